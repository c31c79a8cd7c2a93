//! Schedule: when answers are asked for. At fixed intervals, whatever has become of those before: a way that is slow
//! is asked no less than one that is fast, and what is measured is no queue that the measuring itself has made.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::samples::Samples;
use crate::suites::beside::{Ticket, Way};
use crate::suites::prompt;
use crate::target::ApiError;

/// Tokens of an answer.
const TOKENS: u32 = 20;
/// Before the first answer of a way and after the last one, for what is still to be done about what came before.
const REST: Duration = Duration::from_millis(200);
/// Threads that are made at once.
const TICKETS_AT_ONCE: usize = 16;
/// How long an answer may take beyond what it takes the provider.
const PATIENCE: Duration = Duration::from_secs(60);

/// When answers are asked for, on one way in one round.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    /// Answers that run at the same time, once the first ones end.
    pub(super) at_once: usize,
    /// Answers that count; so many more come before them as run at the same time, so that those find company.
    pub(super) counted: usize,
    /// How long an answer takes the provider.
    pub(super) takes: Duration,
}

/// What one way has shown in one round.
#[derive(Debug, Default)]
pub(super) struct Block {
    /// The times to the first token.
    pub(super) times: Samples,
    /// Answers that did not come to their proper end.
    pub(super) lost: u64,
    /// What was wrong with one of them.
    pub(super) why: Option<String>,
}

impl Schedule {
    /// From one answer's beginning to the next.
    fn interval(&self) -> Duration {
        self.takes / u32::try_from(self.at_once).unwrap_or(u32::MAX)
    }

    fn model(&self) -> String {
        format!("text@tokens={TOKENS},gap_ms={}", (self.takes / TOKENS).as_millis().max(1))
    }

    /// Runs it on one way.
    pub(super) async fn run(&self, way: &Arc<Way>, round: usize) -> Result<Block, ApiError> {
        let total = self.at_once + self.counted;
        let tickets = stream::iter((0..total).map(async |_| way.ticket().await));
        let tickets: Vec<Ticket> = tickets.buffer_unordered(TICKETS_AT_ONCE).try_collect().await?;
        sleep(REST).await;
        let (start, interval, mut answers) = (Instant::now(), self.interval(), JoinSet::new());
        for (n, ticket) in (0..).zip(tickets) {
            sleep_until(start + interval * n).await;
            let (way, model) = (Arc::clone(way), self.model());
            let prompt = prompt(way.name, format_args!("{round}.{n}"));
            let deadline = Instant::now() + self.takes + PATIENCE;
            answers.spawn(async move {
                let asked = first_token(&way, ticket, &model, &prompt);
                let took = tokio::time::timeout_at(deadline, asked).await;
                (n as usize, took.unwrap_or_else(|_| Err("it did not end".to_owned())))
            });
        }
        let mut block = Block::default();
        while let Some(answer) = answers.join_next().await {
            match answer {
                Ok((n, Ok(took))) if n >= self.at_once => block.times.add(took),
                Ok((_, Ok(_))) => {}
                Ok((_, Err(why))) => block.lose(why),
                Err(error) => block.lose(error.to_string()),
            }
        }
        sleep(REST).await;
        Ok(block)
    }
}

impl Block {
    fn lose(&mut self, why: String) {
        self.lost += 1;
        self.why.get_or_insert(why);
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at_once, counted, .. } = self;
        let (every_ms, takes_ms) = (self.interval().as_secs_f64() * 1e3, self.takes.as_millis());
        write!(f, "one answer every {every_ms} ms, of {takes_ms} ms each: {at_once} at once; ")?;
        write!(f, "in each round {counted} on each way after the first {at_once}")
    }
}

/// The time to the first token; reads the answer to its end.
async fn first_token(way: &Way, ticket: Ticket, model: &str, prompt: &str) -> Result<Duration, String> {
    let asked = way.ask(ticket, model, prompt).await;
    let mut events = asked.map_err(|error| error.to_string())?;
    let sent = events.sent();
    let (mut first, mut is_whole) = (None, false);
    while let Some(arrived) = events.next().await.map_err(|error| error.to_string())? {
        if first.is_none() && way.is_token(&arrived.event) {
            first = Some(arrived.at - sent);
        }
        is_whole |= way.is_end(&arrived.event);
    }
    first.filter(|_| is_whole).ok_or_else(|| "it ended before its end".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_answers_run_at_once_as_begin_while_one_takes() {
        let schedule = Schedule { at_once: 50, counted: 200, takes: Duration::from_secs(1) };

        assert_eq!(schedule.interval(), Duration::from_millis(20));
        assert_eq!(schedule.model(), "text@tokens=20,gap_ms=50");
        let said = schedule.to_string();
        assert!(said.starts_with("one answer every 20 ms, of 1000 ms each: 50 at once; "), "{said}");
    }

    #[tokio::test(start_paused = true)]
    async fn only_answers_that_found_company_count_and_lost_ones_are_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let way = Arc::new(Way::direct(&format!("http://{}", listener.local_addr().unwrap())).unwrap());
        drop(listener);
        let schedule = Schedule { at_once: 2, counted: 3, takes: Duration::from_secs(1) };

        let begin = Instant::now();
        let block = schedule.run(&way, 0).await.unwrap();

        assert_eq!((block.times.count(), block.lost), (0, 5));
        assert!(block.why.unwrap().starts_with("cannot connect"));
        assert_eq!((begin.elapsed() - 2 * REST).as_millis() / 100, 20, "nobody waits for the answers before");
    }
}
