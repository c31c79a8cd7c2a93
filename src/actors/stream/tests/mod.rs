//! What a stream promises, with everything around it: coalescer, pacer, subscribers, a store in memory, a provider
//! that plays scripts, and time that passes only when nobody has anything to do.

mod cancelling;
mod draining;
mod ending_runs;
mod failing;
mod falling_back;
mod interests;
mod joining;
mod leaving;
mod pacing;
mod provider;
mod sharing;
mod simulation;
mod support;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use self::provider::{Script, Step};
use self::support::{Ask, Heard, House, Listener, millis};
use super::*;
use crate::actors::coalescer::Cancellation;

/// The text of an answer's deltas, in order.
fn text_of(frames: &[u8]) -> String {
    let frames = std::str::from_utf8(frames).unwrap();
    let data = frames.lines().filter_map(|line| line.strip_prefix("data: "));
    let events = data.map(|data| serde_json::from_str::<Value>(data).unwrap());
    events.filter_map(|event| Some(event["delta"].as_str()?.to_owned())).collect()
}
