//! Accept: takes connections in, on some threads, until it is told to stop.
//!
//! All threads wait at one socket, and whichever is free takes the next connection and keeps it to its end. There is no
//! thread that only hands connections out: one to be woken less on the way of a new client's first request.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::TcpListener as Socket;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use actix_service::{Service, ServiceFactory};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::task::{JoinSet, unconstrained};
use tokio::time::{sleep, timeout};

use crate::event_loop::Spawner;

/// How long no connection is taken in after one could not be, for want of files or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// A server that runs.
pub struct Serving {
    stop: watch::Sender<bool>,
    /// What hears when a thread has ended its connections.
    ended: Vec<oneshot::Receiver<()>>,
}

/// Hears when a server is to stop.
#[derive(Clone)]
pub(super) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Waits until it is to stop. The framework asks with every piece of every answer, so asking again takes no lock
    /// that connections and threads share.
    pub(super) fn asked(self) -> impl Future<Output = ()> {
        let mut changes = self.0.clone();
        // A server that is gone without a word has nothing to wait for either.
        // Where a task has used up its turn, the wait would not note whom to wake.
        let mut wait = Box::pin(unconstrained(async move { drop(changes.wait_for(|stop| *stop).await) }));
        let mut known: Option<Waker> = None;
        poll_fn(move |cx| {
            let is_known = known.as_ref().is_some_and(|known| known.will_wake(cx.waker()));
            if is_known && matches!(self.0.has_changed(), Ok(false)) {
                return Poll::Pending;
            }
            known = Some(cx.waker().clone());
            wait.as_mut().poll(cx)
        })
    }
}

/// How many connections are served, and how they end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// So many are taken in; whoever comes then waits in the system's queue.
    pub(super) connections_max: usize,
    /// How long the last ones may take once the server is to stop.
    pub(super) end_wait_max: Duration,
}

impl Serving {
    /// Serves connections to `socket` on these threads, each with what `make` gives it.
    pub(super) fn start<F, M>(socket: &Socket, threads: &[Spawner], bounds: Bounds, make: M) -> io::Result<Self>
    where
        F: ServiceFactory<TcpStream, Config = (), Response = (), InitError = ()> + 'static,
        F::Service: 'static,
        M: FnOnce(Stop) -> F + Clone + Send + 'static,
    {
        let (stop, asked) = watch::channel(false);
        let places = Arc::new(Semaphore::new(bounds.connections_max.min(Semaphore::MAX_PERMITS)));
        let mut ended = Vec::with_capacity(threads.len());
        for thread in threads {
            let (socket, make, places) = (socket.try_clone()?, make.clone(), places.clone());
            let (stop, (over, end)) = (Stop(asked.clone()), oneshot::channel());
            ended.push(end);
            thread.spawn(async move || {
                let ended = serve(socket, places, bounds.end_wait_max, make(stop.clone()), stop).await;
                if let Err(error) = ended {
                    log::error!(error:%; "a thread serves no connections");
                }
                let _ = over.send(());
            });
        }
        Ok(Self { stop, ended })
    }

    /// Takes no more connections, ends those that are idle, waits for the others as long as they may take, and ends
    /// them.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        for ended in self.ended {
            let _ = ended.await;
        }
    }
}

/// The part of one thread.
async fn serve<F>(
    socket: Socket,
    places: Arc<Semaphore>,
    end_wait_max: Duration,
    factory: F,
    stop: Stop,
) -> io::Result<()>
where
    F: ServiceFactory<TcpStream, Config = (), Response = (), InitError = ()>,
    F::Service: 'static,
{
    let listener = TcpListener::from_std(socket)?;
    let service = factory.new_service(()).await.map_err(|()| io::Error::other("the routes cannot be built"))?;
    let service = Rc::new(service);
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop.asked());
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            // Before the next one, so that those that have ended are forgotten however fast others come.
            Some(_) = connections.join_next() => {}
            (stream, place) = next(&listener, &places) => {
                let service = service.clone();
                connections.spawn_local(async move {
                    if poll_fn(|cx| service.poll_ready(cx)).await.is_ok() {
                        // Whatever it ends with, there is nobody left to tell.
                        let _ = service.call(stream).await;
                    }
                    drop(place);
                });
            }
        }
    }
    drop(listener);
    let _ = timeout(end_wait_max, async { while connections.join_next().await.is_some() {} }).await;
    connections.shutdown().await;
    Ok(())
}

/// The next connection, once there is place for it.
async fn next(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let place = places.clone().acquire_owned().await.expect("nobody closes it");
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                log::warn!(error:%; "no connection can be taken in for a moment");
                drop(place);
                sleep(PAUSE).await;
            }
        }
    }
}

/// Whether the client has only changed its mind.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests {
    use actix_service::fn_service;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::event_loop::EventLoop;
    use crate::http::server::listen;

    const HANG: Duration = Duration::from_secs(10);

    /// A server that says hello and echoes each byte; its threads, and where it is.
    fn polite(bounds: Bounds, threads: usize) -> (Serving, Vec<EventLoop>, std::net::SocketAddr) {
        let socket = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let loops: Vec<_> = (0..threads).map(|_| EventLoop::start("weir-serve").unwrap()).collect();
        let handles: Vec<_> = loops.iter().map(EventLoop::spawner).collect();
        let make = |_| {
            fn_service(async |mut stream: TcpStream| {
                stream.write_all(b"hello").await?;
                while let Ok(byte) = stream.read_u8().await {
                    stream.write_u8(byte).await?;
                }
                Ok::<_, io::Error>(())
            })
        };
        (Serving::start(&socket, &handles, bounds, make).unwrap(), loops, socket.local_addr().unwrap())
    }

    async fn greeted(stream: &mut TcpStream) -> bool {
        let mut hello = [0; 5];
        timeout(HANG, stream.read_exact(&mut hello)).await.expect("in time").is_ok() && hello == *b"hello"
    }

    #[actix_rt::test]
    async fn whoever_comes_when_all_places_are_taken_is_served_when_one_is_given_back() {
        let (serving, _threads, address) = polite(Bounds { connections_max: 1, end_wait_max: HANG }, 1);
        let mut first = TcpStream::connect(address).await.unwrap();
        assert!(greeted(&mut first).await);
        let mut second = TcpStream::connect(address).await.unwrap();
        // What the thread does for the second one it does before it hears this.
        first.write_u8(7).await.unwrap();
        assert_eq!(timeout(HANG, first.read_u8()).await.expect("in time").unwrap(), 7);
        assert_eq!(second.try_read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(first);

        assert!(greeted(&mut second).await);
        drop(second);
        serving.stop().await;
    }

    #[actix_rt::test]
    async fn every_thread_takes_connections_in() {
        let (serving, mut threads, address) = polite(Bounds { connections_max: 9, end_wait_max: HANG }, 2);
        let (held, holds) = oneshot::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        // One thread is busy, whichever it is.
        threads[0].spawner().spawn(async move || {
            let _ = held.send(());
            let _ = released.recv();
        });
        holds.await.unwrap();

        assert!(greeted(&mut TcpStream::connect(address).await.unwrap()).await);
        release.send(()).unwrap();
        threads.remove(1).stop();
        assert!(greeted(&mut TcpStream::connect(address).await.unwrap()).await);
        serving.stop().await;
    }

    #[actix_rt::test]
    async fn a_server_that_stops_refuses_who_comes_and_ends_who_stays() {
        let bounds = Bounds { connections_max: 9, end_wait_max: Duration::from_millis(20) };
        let (serving, _threads, address) = polite(bounds, 1);
        let mut stays = TcpStream::connect(address).await.unwrap();
        assert!(greeted(&mut stays).await);

        timeout(HANG, serving.stop()).await.expect("in time");

        assert!(timeout(HANG, stays.read_u8()).await.expect("in time").is_err());
        assert_eq!(TcpStream::connect(address).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}
