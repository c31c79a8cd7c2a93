//! Event loop: a thread whose tasks never leave it.
//!
//! An arbiter of actix keeps such tasks in a set of their own beside the runtime. When the thread waits and the network
//! has something for one of them, the set wakes the runtime as if from another thread: one write to the kernel and one
//! more wait for each piece of an answer. Here the runtime has the tasks itself. What actix spawns, actors and
//! connections among it, is spawned here all the same.

use std::io;
use std::thread::{self, JoinHandle};

use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::mpsc;
use tokio::task::spawn_local;

/// What a thread does first of a task: makes it, so that it need not be able to move there.
type Start = Box<dyn FnOnce() + Send>;

/// See the module. Goes on until it is stopped.
#[derive(Debug)]
pub struct EventLoop {
    spawner: Spawner,
    thread: JoinHandle<()>,
}

/// Spawns tasks on an event loop, from any thread.
#[derive(Debug, Clone)]
pub struct Spawner(mpsc::UnboundedSender<Option<Start>>);

impl EventLoop {
    /// Starts a thread called `name`.
    pub fn start(name: &str) -> io::Result<Self> {
        let (spawner, starts) = mpsc::unbounded_channel();
        let (built, outcome) = std::sync::mpsc::channel();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
            match runtime {
                Ok(runtime) => {
                    let _ = built.send(Ok(()));
                    run(&runtime, starts);
                }
                Err(error) => drop(built.send(Err(error))),
            }
        })?;
        outcome.recv().unwrap_or_else(|_| Err(io::Error::other("the thread has ended")))?;
        Ok(Self { spawner: Spawner(spawner), thread })
    }

    /// What spawns tasks on it.
    pub fn spawner(&self) -> Spawner {
        self.spawner.clone()
    }

    /// Ends it and drops its tasks, wherever they are. Waits for the thread, so not to be called on an event loop.
    pub fn stop(self) {
        let _ = self.spawner.0.send(None);
        // It fails when the thread has panicked, which has been told.
        let _ = self.thread.join();
    }
}

impl Spawner {
    /// Calls `make` on the loop's thread, and runs there what it makes. Nothing happens when the loop has stopped.
    pub fn spawn<F: Future<Output = ()> + 'static>(&self, make: impl FnOnce() -> F + Send + 'static) {
        let _ = self.0.send(Some(Box::new(move || drop(spawn_local(async move { make().await })))));
    }
}

fn run(runtime: &LocalRuntime, mut starts: mpsc::UnboundedReceiver<Option<Start>>) {
    runtime.block_on(async {
        while let Some(Some(start)) = starts.recv().await {
            start();
        }
    });
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn tasks_are_made_and_stay_on_one_thread_of_that_name() {
        let event_loop = EventLoop::start("weir-loop").unwrap();
        let (told, name) = oneshot::channel();

        event_loop.spawner().spawn(|| {
            let stays = Rc::new(thread::current().id());
            async move {
                tokio::task::yield_now().await;
                assert_eq!(*stays, thread::current().id());
                let _ = told.send(thread::current().name().map(str::to_owned));
            }
        });

        assert_eq!(name.await.unwrap().as_deref(), Some("weir-loop"));
        event_loop.stop();
    }

    #[tokio::test]
    async fn a_loop_that_stops_drops_its_tasks_and_takes_no_more() {
        let event_loop = EventLoop::start("weir-loop").unwrap();
        let spawner = event_loop.spawner();
        let (held, dropped) = oneshot::channel::<()>();
        spawner.spawn(|| async move {
            let _held = held;
            std::future::pending::<()>().await;
        });

        event_loop.stop();

        assert!(dropped.await.is_err());
        let (late, ran) = oneshot::channel::<()>();
        spawner.spawn(|| async move { late.send(()).unwrap() });
        assert!(ran.await.is_err());
    }

    #[tokio::test]
    async fn a_task_that_panics_takes_no_other_with_it() {
        let event_loop = EventLoop::start("weir-loop").unwrap();
        let (told, went_on) = oneshot::channel();

        event_loop.spawner().spawn(|| async { panic!("on purpose") });
        event_loop.spawner().spawn(|| async move { told.send(()).unwrap() });

        assert!(went_on.await.is_ok());
        event_loop.stop();
    }
}
