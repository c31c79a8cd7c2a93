//! Timing: where the time of a request went, as the header `Server-Timing` tells it. Its parts follow one another and
//! overlap nowhere.

use std::fmt::Write;
use std::time::Duration;

use actix_web::http::header::HeaderValue;
use actix_web::{HttpMessage, HttpRequest};
use tokio::time::Instant;

use crate::fanout::{Subscription, Timings};

/// What is known when the response's head is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timing {
    arrived: Instant,
    answer: Option<Spent>,
}

/// The parts of an answer that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spent {
    queue: Duration,
    /// To connect, and from there to the end; nothing for an answer that never got its permit.
    upstream: Option<(Duration, Duration)>,
}

impl Timing {
    /// Of a stream that is about to begin: nothing has happened yet, but weir has taken the request in.
    pub(super) fn of_head(subscription: &Subscription) -> Self {
        Self { arrived: subscription.facts.arrived, answer: None }
    }

    /// Of an answer that has ended.
    pub(super) fn of_answer(subscription: &Subscription) -> Self {
        let arrived = subscription.facts.arrived;
        let latency = subscription.end().map(|end| Duration::from_millis(end.latency_ms.into()));
        Self { arrived, answer: latency.map(|latency| Spent::new(arrived, &subscription.log.timings(), latency)) }
    }

    /// Leaves it with the request, for the response's head.
    pub(super) fn note(self, request: &HttpRequest) {
        request.extensions_mut().insert(self);
    }

    /// The header's value when the head is made at `now`: `weir` is what none of the other parts has.
    pub(super) fn value(&self, now: Instant) -> Option<HeaderValue> {
        let mut rest = now.saturating_duration_since(self.arrived);
        let mut value = String::new();
        let mut tell = |name: &str, spent: Duration| {
            rest = rest.saturating_sub(spent);
            // Writing to a string cannot fail.
            let _ = write!(value, "{name};dur={}, ", millis(spent));
        };
        if let Some(Spent { queue, upstream }) = self.answer {
            tell("queue", queue);
            if let Some((connect, upstream)) = upstream {
                tell("connect", connect);
                tell("upstream", upstream);
            }
        }
        let _ = write!(value, "weir;dur={}", millis(rest));
        HeaderValue::try_from(value).ok()
    }
}

impl Spent {
    /// A follower comes when some of it has happened already: that cost it nothing.
    fn new(arrived: Instant, timings: &Timings, latency: Duration) -> Self {
        let ended = arrived + latency;
        let Some(granted) = timings.granted else { return Self { queue: latency, upstream: None } };
        let connected = granted + Duration::from_millis(timings.connect_ms.unwrap_or(0).into());
        let granted = granted.clamp(arrived, ended);
        let connected = connected.clamp(granted, ended);
        Self { queue: granted - arrived, upstream: Some((connected - granted, ended - connected)) }
    }
}

/// Milliseconds with one digit of what is less.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 10_000.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn value(arrived: Instant, timings: &Timings, latency: Duration, total: Duration) -> String {
        let answer = Some(Spent::new(arrived, timings, latency));
        Timing { arrived, answer }.value(arrived + total).unwrap().to_str().unwrap().to_owned()
    }

    #[test]
    fn the_parts_of_an_answer_are_the_whole_of_it() {
        let arrived = Instant::now();
        let timings = Timings { granted: Some(arrived + 20 * MS), connect_ms: Some(30), ..Timings::default() };

        let found = value(arrived, &timings, 150 * MS, 152 * MS + MS / 4);

        assert_eq!(found, "queue;dur=20, connect;dur=30, upstream;dur=100, weir;dur=2.3");
    }

    #[test]
    fn an_answer_that_never_got_its_permit_has_waited_and_nothing_else() {
        let found = value(Instant::now(), &Timings::default(), 150 * MS, 151 * MS);

        assert_eq!(found, "queue;dur=150, weir;dur=1");
    }

    #[test]
    fn what_happened_before_a_follower_came_cost_it_nothing() {
        let granted = Instant::now();
        let timings = Timings { granted: Some(granted), connect_ms: Some(30), ..Timings::default() };

        let found = value(granted + 60 * MS, &timings, 10 * MS, 10 * MS);

        assert_eq!(found, "queue;dur=0, connect;dur=0, upstream;dur=10, weir;dur=0");
    }

    #[test]
    fn the_head_of_a_stream_knows_of_weir_alone() {
        let arrived = Instant::now();

        let found = Timing { arrived, answer: None }.value(arrived + 3 * MS).unwrap();

        assert_eq!(found, "weir;dur=3");
    }
}
