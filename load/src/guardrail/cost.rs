//! Cost: what weir uses of the machine, measured beside a bare relay that has the same to do at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::direct;
use super::ground::{Ground, GroundError, prompt};
use super::metrics::Figure;
use crate::client::Events;
use crate::target::{MOCK, Usage, cpu_time_of_threads};

/// Streams that relay chunks at once, weir's and as many of the relay.
const STREAMS: usize = 60;
/// Chunks of 12 bytes, 50 a second.
const CHUNKS: &str = "text@tokens=10000000,gap_ms=20,bytes=12";
/// Listeners of one answer.
const LISTENERS: usize = 150;
/// Events of 12 bytes, 20 a second.
const EVENTS: &str = "text@tokens=10000000,gap_ms=50,bytes=12";
/// Parts of a measurement; the one in the middle counts.
const WINDOWS: usize = 5;
const WINDOW: Duration = Duration::from_millis(600);
/// The first moment belongs to the starting.
const SETTLE: Duration = Duration::from_millis(700);

/// Streams that are open while memory is looked at, weir's and as many of the relay.
const IDLE_STREAMS: usize = 200;
/// Streams that come and go before.
const IDLE_WARM_UP: usize = 10;
const IDLE: &str = "stall@after=1";

/// Streams that are read all the time, and how much has come.
#[derive(Debug)]
struct Readers {
    reading: JoinSet<()>,
    arrived: Arc<AtomicU64>,
}

impl Readers {
    fn new() -> Self {
        Self { reading: JoinSet::new(), arrived: Arc::default() }
    }

    /// Counts the events of a stream with text, which of weir's are called `delta` and of the provider nothing else.
    fn add(&mut self, mut stream: Events) {
        let arrived = Arc::clone(&self.arrived);
        self.reading.spawn(async move {
            while let Ok(Some(event)) = stream.next().await {
                if matches!(event.event.name.as_str(), "delta" | "message") {
                    arrived.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }

    /// Lets all of them go. Fails if one has ended by itself.
    async fn end(mut self) -> Result<(), GroundError> {
        let is_whole = self.reading.try_join_next().is_none();
        self.reading.shutdown().await;
        if is_whole { Ok(()) } else { Err(GroundError::Nothing("an answer that goes on")) }
    }
}

/// Processor time for each chunk.
pub(super) async fn cpu_per_chunk(ground: &Ground) -> Result<Figure, GroundError> {
    let mut readers = Readers::new();
    for n in 0..STREAMS {
        let thread = ground.api().create_thread().await?;
        readers.add(ground.api().send(&thread, MOCK, CHUNKS, &prompt("chunks", n)).await?);
    }
    beside_the_relay(ground, readers).await
}

/// Processor time for each delivery.
pub(super) async fn cpu_per_delivery(ground: &Ground) -> Result<Figure, GroundError> {
    let mut readers = Readers::new();
    let thread = ground.api().create_thread().await?;
    readers.add(ground.api().send(&thread, MOCK, EVENTS, &prompt("events", 0)).await?);
    for _ in 1..LISTENERS {
        readers.add(ground.api().join(&thread).await?);
    }
    beside_the_relay(ground, readers).await
}

/// What weir uses for what its readers get, and the relay for what its own ones do.
async fn beside_the_relay(ground: &Ground, readers: Readers) -> Result<Figure, GroundError> {
    let mut relayed = Readers::new();
    for n in 0..STREAMS {
        relayed.add(direct::open(ground.relayed(), CHUNKS, &prompt("relayed", n)).await?);
    }
    let used = |pid: u32, readers: &Readers| {
        let cpu = cpu_time_of_threads(pid).map_err(GroundError::Usage)?;
        Ok::<_, GroundError>((cpu, readers.arrived.load(Ordering::Relaxed)))
    };
    let look = || Ok::<_, GroundError>((used(ground.weir_pid(), &readers)?, used(ground.relay_pid(), &relayed)?));
    sleep(SETTLE).await;
    let mut rounds = Vec::new();
    let mut before = look()?;
    for _ in 0..WINDOWS {
        sleep(WINDOW).await;
        let after = look()?;
        let measured = each_us(before.0, after.0);
        rounds.extend(
            measured.zip(each_us(before.1, after.1)).map(|(measured, reference)| Figure { measured, reference }),
        );
        before = after;
    }
    readers.end().await?;
    relayed.end().await?;
    ground.at_rest().await?;
    Figure::median(rounds).ok_or(GroundError::Nothing("a chunk"))
}

/// Microseconds for each thing that has come between two looks.
fn each_us((cpu, count): (Duration, u64), (cpu_after, count_after): (Duration, u64)) -> Option<f64> {
    let things = count_after.checked_sub(count).filter(|things| *things > 0)?;
    Some(cpu_after.saturating_sub(cpu).as_secs_f64() * 1e6 / things as f64)
}

/// Memory for each open stream. Only the first measurement of a process says something: later streams are put where
/// the earlier ones were.
pub(super) async fn rss_per_stream(ground: &Ground) -> Result<Figure, GroundError> {
    open_and_leave(ground, IDLE_WARM_UP, "warm up").await?;
    let before = both(ground).await?;
    let open = open_and_leave(ground, IDLE_STREAMS, "idle").await?;
    let each_kb = |before: Usage, open: Usage| {
        open.rss_bytes.saturating_sub(before.rss_bytes) as f64 / 1_000.0 / IDLE_STREAMS as f64
    };
    Ok(Figure { measured: each_kb(before.0, open.0), reference: each_kb(before.1, open.1) })
}

/// Opens streams at weir and at the relay, looks at both when nothing happens any more, and leaves them.
async fn open_and_leave(ground: &Ground, count: usize, words: &str) -> Result<(Usage, Usage), GroundError> {
    let mut streams = Vec::with_capacity(2 * count);
    for n in 0..count {
        let prompt = prompt(words, n);
        let thread = ground.api().create_thread().await?;
        let mut stream = ground.api().send(&thread, MOCK, IDLE, &prompt).await?;
        stream.next_named("delta").await?;
        streams.push(stream);
        let mut stream = direct::open(ground.relayed(), IDLE, &prompt).await?;
        stream.next().await?;
        streams.push(stream);
    }
    let usage = both(ground).await?;
    drop(streams);
    ground.at_rest().await?;
    Ok(usage)
}

async fn both(ground: &Ground) -> Result<(Usage, Usage), GroundError> {
    sleep(SETTLE).await;
    let of = |pid| Usage::of(pid).map_err(GroundError::Usage);
    Ok((of(ground.weir_pid())?, of(ground.relay_pid())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nothing_came_of_costs_nothing_that_could_be_told() {
        let ms = Duration::from_millis;

        assert_eq!(each_us((ms(10), 100), (ms(30), 200)), Some(200.0));
        assert_eq!(each_us((ms(10), 100), (ms(30), 100)), None);
    }
}
