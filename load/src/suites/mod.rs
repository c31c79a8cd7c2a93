//! Suites: the measurements, one a file. Each starts what it needs, and reports.

pub mod burst;
pub mod cancel;
pub mod cpu;
pub mod fanout;
pub mod idle;
pub mod junk;
pub mod kill;
pub mod soak;
pub mod ttft;

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::mock::Counts;
use crate::target::{ApiError, Target};

/// How long anything may take that should happen at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at what cannot be waited for.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// Asks again until the answer is yes, for a bounded time. Returns how long that took; `None` if it never was.
async fn until<F, Fut>(mut ask: F) -> Result<Option<Duration>, ApiError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<bool, ApiError>>,
{
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if ask().await? {
            return Ok(Some(start.elapsed()));
        }
        sleep(LOOK_INTERVAL).await;
    }
    Ok(None)
}

/// Waits for what the mock should see soon. `None` if it does not.
async fn seen(target: &Target, condition: impl FnMut(&Counts) -> bool) -> Option<Counts> {
    timeout(PATIENCE, target.mock.wait_until(condition)).await.ok()
}

/// A prompt that nobody else asks at the same time, so that nothing is shared by chance.
fn prompt(words: &str, n: impl std::fmt::Display) -> String {
    format!("{words} ({n})")
}
