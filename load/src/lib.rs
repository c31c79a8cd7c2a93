//! load: what verifies a running weir. A provider that misbehaves by name ([`mock`]), a client that looks closely
//! ([`client`], [`sse`]), and the measurements made with them.

pub mod body;
pub mod client;
pub mod mock;
pub mod sse;
