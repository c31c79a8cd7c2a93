//! Logging: lines go to standard error by a thread of its own, so that nobody who serves ever waits for a terminal, a
//! pipe or a disk. When lines come faster than they can be written, the newest are dropped and counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel};
use std::time::Duration;

/// Lines that may wait to be written.
const LINES_MAX: usize = 16 * 1024;
/// What is logged when `RUST_LOG` does not say.
const FILTER: &str = "warn,weir=info";
/// Logs an error for every request that is not HTTP, with which anybody could fill the log: only if `RUST_LOG` asks for
/// it by this name.
const FLOODED: &str = "actix_http::h1";
/// How long the end waits for the last lines.
const FLUSH_WAIT_MAX: Duration = Duration::from_secs(1);

/// What the thread is sent.
enum Order {
    Line(Vec<u8>),
    /// Write what came before, then say so.
    Flush(std::sync::mpsc::Sender<()>),
}

/// Where `env_logger` writes to.
struct Pipe {
    orders: SyncSender<Order>,
    dropped: Arc<AtomicU64>,
}

impl Write for Pipe {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.orders.try_send(Order::Line(line.to_vec())) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Held while the program runs; dropping it waits a moment for the last lines.
#[derive(Debug)]
pub struct Logging {
    orders: SyncSender<Order>,
}

impl Drop for Logging {
    fn drop(&mut self) {
        let (done, written) = channel();
        if self.orders.try_send(Order::Flush(done)).is_ok() {
            let _ = written.recv_timeout(FLUSH_WAIT_MAX);
        }
    }
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Order")
    }
}

/// Starts to log what `RUST_LOG` asks for, else warnings and what weir itself has to say.
pub fn start() -> io::Result<Logging> {
    let (orders, received) = sync_channel(LINES_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let pipe = Pipe { orders: orders.clone(), dropped: dropped.clone() };
    std::thread::Builder::new().name("weir-log".into()).spawn(move || run(&received, &dropped, &mut io::stderr()))?;
    env_logger::Builder::new()
        .filter_module(FLOODED, log::LevelFilter::Off)
        .parse_env(env_logger::Env::default().default_filter_or(FILTER))
        .target(env_logger::Target::Pipe(Box::new(pipe)))
        .init();
    Ok(Logging { orders })
}

/// The body of the thread. A sink that is gone loses the lines, not the program.
fn run(orders: &Receiver<Order>, dropped: &AtomicU64, sink: &mut impl Write) {
    loop {
        match orders.recv_timeout(Duration::from_secs(1)) {
            Ok(Order::Line(line)) => {
                let _ = sink.write_all(&line);
            }
            Ok(Order::Flush(done)) => {
                let _ = sink.flush();
                let _ = done.send(());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(sink, "{lost} lines of the log were dropped, because they could not be written in time");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_cannot_be_written_in_time_hold_nobody_up_and_are_counted() {
        let (orders, received) = sync_channel(2);
        let dropped = Arc::new(AtomicU64::new(0));
        let mut pipe = Pipe { orders, dropped: dropped.clone() };

        for line in 0..5 {
            pipe.write_all(format!("{line}\n").as_bytes()).unwrap();
        }
        drop(pipe);
        let mut written = Vec::new();
        run(&received, &dropped, &mut written);

        let written = String::from_utf8(written).unwrap();
        assert!(written.starts_with("0\n") && written.contains("3 lines of the log were dropped"), "{written}");
    }
}
