//! load: what verifies a running weir. A provider that misbehaves by name ([`mock`]), a client that looks closely
//! ([`client`], [`sse`]), weir as a process ([`target`]), the measurements made with them ([`suites`]), what an operator
//! asks of any weir ([`checks`]), and whether weir has become slower ([`guardrail`]).

pub mod body;
pub mod checks;
pub mod client;
pub mod clock;
pub mod guardrail;
pub mod mock;
pub mod report;
pub mod samples;
pub mod sse;
pub mod suites;
pub mod target;
