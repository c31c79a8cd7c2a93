//! Fan-out: what a running answer shares with its listeners, across threads.
//!
//! One writer appends frames to a [`StreamLog`]; every listener reads it at its own offset. A [`Subscription`] is one
//! request's view of it: who asked, since when, and how it ended for this request. Everybody who listens has a place in the
//! answer's [`Audience`].

mod audience;
mod done;
mod facts;
mod log;
mod progress;
mod subscription;
#[cfg(test)]
mod tests;
mod transcript;
mod wakers;

pub use audience::{Audience, Full, Seat};
pub use done::Done;
pub use facts::{Facts, Spans};
pub use log::{Cursor, Next, StreamLog};
pub use progress::{Fallback, LogStats, QueuePlace, Timings};
pub use subscription::{Attachment, End, Kept, Outcome, Subscription, SubscriptionFacts};
pub use transcript::Transcript;
