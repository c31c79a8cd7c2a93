//! Watch: one call among many, known by its prompt: when it comes and how it ends.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::counters::Outcome;

/// The calls that somebody watches.
#[derive(Debug, Default)]
pub(super) struct Watches(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    /// Those that have not come yet, by their prompts.
    expected: HashMap<String, Watcher>,
    /// How those end that have come, by their numbers.
    running: HashMap<u64, oneshot::Sender<(Outcome, Instant)>>,
}

#[derive(Debug)]
struct Watcher {
    started: oneshot::Sender<()>,
    ended: oneshot::Sender<(Outcome, Instant)>,
}

/// A call that is watched. Dropping it gives up.
#[derive(Debug)]
pub struct Watched<'w> {
    watches: &'w Watches,
    prompt: String,
    started: Option<oneshot::Receiver<()>>,
    ended: oneshot::Receiver<(Outcome, Instant)>,
}

impl Watches {
    pub(super) fn watch(&self, prompt: &str) -> Watched<'_> {
        let ((started, has_started), (ended, has_ended)) = (oneshot::channel(), oneshot::channel());
        self.0.lock().expected.insert(prompt.to_owned(), Watcher { started, ended });
        Watched { watches: self, prompt: prompt.to_owned(), started: Some(has_started), ended: has_ended }
    }

    pub(super) fn started(&self, prompt: &str, call: u64) {
        let mut table = self.0.lock();
        if let Some(Watcher { started, ended }) = table.expected.remove(prompt) {
            // Whoever has given up since then does not want to know.
            let _ = started.send(());
            table.running.insert(call, ended);
        }
    }

    pub(super) fn ended(&self, call: u64, outcome: Outcome) {
        if let Some(ended) = self.0.lock().running.remove(&call) {
            let _ = ended.send((outcome, Instant::now()));
        }
    }
}

impl Watched<'_> {
    /// Waits until the call has come; for ever if it never does.
    pub async fn started(&mut self) {
        if let Some(started) = self.started.take()
            && started.await.is_err()
        {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the call has ended, and tells how and when; for ever if it never does.
    pub async fn ended(&mut self) -> (Outcome, Instant) {
        match (&mut self.ended).await {
            Ok(ended) => ended,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.watches.0.lock().expected.remove(&self.prompt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_call_is_told_to_who_watches_it_and_nothing_is_kept() {
        let watches = Watches::default();
        let (mut one, mut other) = (watches.watch("one"), watches.watch("other"));
        watches.started("other", 1);
        watches.started("one", 2);
        watches.started("nobody's", 3);
        one.started().await;
        other.started().await;

        watches.ended(3, Outcome::Finished);
        watches.ended(2, Outcome::Aborted);
        watches.ended(1, Outcome::Finished);

        assert_eq!(one.ended().await.0, Outcome::Aborted);
        assert_eq!(other.ended().await.0, Outcome::Finished);
        drop(watches.watch("never comes"));
        let table = watches.0.lock();
        assert!(table.expected.is_empty() && table.running.is_empty());
    }
}
