//! Warm: keeps idle connections to one provider open, so that a call need not wait for a handshake.
//!
//! Servers close connections that have never carried a call soon. So connections are opened, and used again before they
//! idle out, by real calls that cost nothing. Those run at the same time, as many as connections are wanted: one after the other would all use the
//! same connection.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;

use super::http1::Server;

/// How often the idle connections are counted.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// A connection that has waited this long does not count, so that it is used before a server closes it. The servers
/// and balancers in wide use wait 60 s at least.
const REFRESH_AFTER: Duration = Duration::from_secs(45);
/// The longest pause between tries while there is no success.
const BACK_OFF_MAX: Duration = Duration::from_secs(60);

/// Keeps `wanted` connections idle by `GET`s of `path`, for ever; dropping the future ends it.
pub(super) async fn keep(server: Rc<Server>, path: &'static str, wanted: usize) {
    let mut pause = CHECK_INTERVAL;
    loop {
        let enough = server.connections().idle(REFRESH_AFTER) >= wanted;
        pause = next_pause(pause, enough || warm_up(&server, path, wanted).await);
        sleep(pause).await;
    }
}

/// One round of calls. Succeeds if each has left its connection open.
async fn warm_up(server: &Server, path: &str, wanted: usize) -> bool {
    let warm = join_all((0..wanted).map(|_| server.warm_up(path))).await;
    let open = warm.iter().filter(|warm| **warm).count();
    if open < wanted {
        log::debug!(provider = server.name(), open, wanted; "no warm connections");
    }
    open == wanted
}

/// A provider that is away, or keeps no connections, is asked more and more seldom.
pub(super) fn next_pause(pause: Duration, well: bool) -> Duration {
    if well { CHECK_INTERVAL } else { (pause * 2).min(BACK_OFF_MAX) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_double_the_pause_up_to_a_limit_and_success_restores_it() {
        let mut pauses = vec![CHECK_INTERVAL];
        for _ in 0..8 {
            pauses.push(next_pause(*pauses.last().unwrap(), false));
        }

        assert_eq!(pauses.iter().map(Duration::as_secs).collect::<Vec<_>>(), [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(next_pause(BACK_OFF_MAX, true), CHECK_INTERVAL);
    }
}
