//! The actors of weir. Control goes through their mailboxes, bytes never do.
//!
//! | actor | owns | accepts | tells | kind |
//! |---|---|---|---|---|
//! | [`guardian`] | the permanent actors' recipes, the restart budget | a child that went | main, when it gives up | root |
//! | [`pacer`] | one provider's tokens, slots and queue | `Acquire`, `Change`, `Snapshot` | nobody | permanent |
//! | [`coalescer`] | which answer runs for which request, thread and key | `Join`, `Cancel`, `Find`, … | streams | permanent |
//! | [`stream`] | one answer: its phases, its log, who is interested | `Join`, `Withdraw`, `Stop` | coalescer, subscribers | temporary |
//! | [`subscriber`] | one request's interest: its timings, its grace, its end | `Ended`, `Unattended` | its stream | temporary |
//!
//! ```text
//! http ── Join, Cancel ──▶ coalescer ── Join, Withdraw ──▶ stream ── Acquire ──▶ pacer
//!                              ▲                           │  ▲ └─ Ended ──▶ subscriber
//!                              └────────── Ended ──────────┘  └── Withdraw ──────┘
//! ```
//!
//! Asks go from left to right; what comes back is news. A handler never waits for another actor.

pub mod coalescer;
pub mod guardian;
pub mod pacer;
pub mod stream;
pub mod subscriber;
pub mod target;
