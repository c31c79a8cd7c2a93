//! Latency: what weir adds to times, measured in turns with the provider asked directly.

use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::{Instant, timeout};

use super::direct;
use super::ground::{Ground, GroundError, prompt};
use super::metrics::{Figure, median};
use crate::client::{ClientError, Request};
use crate::samples::Samples;
use crate::target::{Api, MOCK};

/// Rounds of each measurement. The least of each side counts: other work of the machine wakes threads later, never
/// earlier, and it comes and goes.
const ROUNDS: usize = 6;
/// Answers, with weir and without, of one round.
const ASKS: usize = 30;
/// Cancels of one round, and as many first tokens without weir.
const CANCELS: usize = 8;
/// Rounds of gaps, which take a second each.
const GAP_ROUNDS: usize = 3;
/// Streams at once, with weir and as many without.
const GAP_STREAMS: usize = 4;
/// How long anything may take that should happen at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// As short as an answer can be.
const SHORT: &str = "text@tokens=1,gap_ms=0";
/// A second of tokens.
const PACED: &str = "text@tokens=200,gap_ms=5,bytes=16";
/// One that goes on until it is cancelled.
const LASTING: &str = "text@tokens=100000,gap_ms=5";

/// What is added to the time to the first token.
pub(super) async fn added_ttft(ground: &Ground) -> Result<Figure, GroundError> {
    // Pools, caches and allocators are warm in production, too.
    for n in 0..ASKS {
        first_token(ground, n).await?;
        first_token_direct(ground, n).await?;
    }
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for n in 0..ASKS {
            // Who comes first has the colder caches: take turns.
            if n % 2 == 0 {
                with.push(first_token(ground, n).await?);
                without.push(first_token_direct(ground, n).await?);
            } else {
                without.push(first_token_direct(ground, n).await?);
                with.push(first_token(ground, n).await?);
            }
        }
        let both = median(with).zip(median(without));
        rounds.extend(both.map(|(with, without)| Figure { measured: with - without, reference: without }));
    }
    Figure::least(rounds).ok_or(GroundError::Nothing("a first token"))
}

/// Milliseconds to the first token with weir.
async fn first_token(ground: &Ground, n: usize) -> Result<f64, GroundError> {
    let thread = ground.api().create_thread().await?;
    let mut stream = ground.api().send(&thread, MOCK, SHORT, &prompt("short", n)).await?;
    let took = stream.next_named("delta").await?.at - stream.sent();
    stream.rest().await?;
    Ok(milliseconds(took))
}

/// The same without.
async fn first_token_direct(ground: &Ground, n: usize) -> Result<f64, GroundError> {
    let mut stream = direct::open(ground.provider(), SHORT, &prompt("short", n)).await?;
    let sent = stream.sent();
    let mut first = None;
    while let Some(arrived) = stream.next().await? {
        if first.is_none() && direct::is_token(&arrived.event) {
            first = Some(arrived.at);
        }
    }
    Ok(milliseconds(first.ok_or(ClientError::Cut)? - sent))
}

/// How long the longest of the gaps between tokens are, but for the last twentieth.
pub(super) async fn added_gap(ground: &Ground) -> Result<Figure, GroundError> {
    let mut rounds = Vec::new();
    for _ in 0..GAP_ROUNDS {
        let both = (0..GAP_STREAMS).map(async |n| {
            let prompt = prompt("paced", n);
            let thread = ground.api().create_thread().await?;
            let mut with = ground.api().send(&thread, MOCK, PACED, &prompt).await?;
            let mut without = direct::open(ground.provider(), PACED, &prompt).await?;
            let (with, without) = tokio::join!(with.rest(), without.rest());
            let with = with?.into_iter().filter(|arrived| arrived.event.name == "delta").map(|arrived| arrived.at);
            let without = without?.into_iter().filter(|arrived| direct::is_token(&arrived.event));
            Ok::<_, GroundError>((gaps(with), gaps(without.map(|arrived| arrived.at))))
        });
        let (mut with, mut without) = (Samples::default(), Samples::default());
        for (with_weir, without_weir) in try_join_all(both).await? {
            with.merge(&with_weir);
            without.merge(&without_weir);
        }
        let both = with.percentile_ms(95.0).zip(without.percentile_ms(95.0));
        rounds.extend(both.map(|(measured, reference)| Figure { measured, reference }));
    }
    Figure::least(rounds).ok_or(GroundError::Nothing("a second token"))
}

fn gaps(arrivals: impl Iterator<Item = Instant>) -> Samples {
    let arrivals: Vec<_> = arrivals.collect();
    arrivals.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

/// How long it takes from a cancel until the provider sees the end of its call.
pub(super) async fn cancel_latency(ground: &Ground) -> Result<Figure, GroundError> {
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        let (mut cancels, mut references) = (Vec::new(), Vec::new());
        for n in 0..CANCELS {
            cancels.push(cancel(ground, round * CANCELS + n).await?);
            references.push(first_token_direct(ground, n).await?);
        }
        let both = median(cancels).zip(median(references));
        rounds.extend(both.map(|(measured, reference)| Figure { measured, reference }));
    }
    Figure::least(rounds).ok_or(GroundError::Nothing("a cancel"))
}

async fn cancel(ground: &Ground, n: usize) -> Result<f64, GroundError> {
    let (api, mock) = (ground.api(), ground.mock());
    let before = mock.wait_until(|counts| counts.streams_live == 0).await.calls_aborted;
    let thread = api.create_thread().await?;
    let mut stream = api.send(&thread, MOCK, LASTING, &prompt("lasting", n)).await?;
    stream.next_named("delta").await?;
    let request = stream.head().header("x-request-id").unwrap_or_default().to_owned();
    let cancellation: Request = api.client().complete(Api::cancellation(&request));
    let mut connection = api.client().connect().await?;
    let asked = Instant::now();
    let answered = async {
        let head = connection.send(&cancellation).await?;
        connection.whole(head).await
    };
    let reached = timeout(PATIENCE, mock.wait_until(|counts| counts.calls_aborted > before));
    let (answered, reached) = tokio::join!(answered, reached);
    answered?;
    let reached = reached.ok().and_then(|counts| counts.last_abort).ok_or(GroundError::Nothing("an aborted call"))?;
    stream.rest().await?;
    Ok(milliseconds(reached - asked))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
