//! Relay: hands bytes on between a client and a server, and does nothing else. The least that anybody can do who stands
//! between the two: what weir costs is told as a multiple of it. It can also hold requests back, to be slow on purpose.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Bytes of one buffer. Each connection has one for each direction, in memory from its beginning.
pub const BUFFER_LEN: usize = 16 * 1024;

/// Where to.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The server.
    #[arg(long, value_name = "ADDRESS")]
    to: SocketAddr,
}

/// Relays from a free port until the future is dropped; `ready` hears the port's URL.
pub async fn run(arguments: &Arguments, ready: impl FnOnce(String)) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    ready(format!("http://{}", listener.local_addr()?));
    serve(&listener, arguments.to, Duration::ZERO).await
}

/// Relays what a listener accepts, each read of a client `held` back for a while. Dropping the future closes all.
pub async fn serve(listener: &TcpListener, to: SocketAddr, held: Duration) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted?;
                connections.spawn(relay(client, to, held));
            }
            // One that has failed has told both of its ends.
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Whoever leaves first, the other one hears it.
async fn relay(mut client: TcpStream, to: SocketAddr, held: Duration) -> io::Result<()> {
    let mut server = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let there = async {
        let mut buffer = buffer();
        loop {
            let length = from_client.read(&mut buffer).await?;
            if length == 0 {
                return Ok(());
            }
            if !held.is_zero() {
                sleep(held).await;
            }
            to_server.write_all(&buffer[..length]).await?;
        }
    };
    let back = async {
        let mut buffer = buffer();
        loop {
            let length = from_server.read(&mut buffer).await?;
            if length == 0 {
                return Ok(());
            }
            to_client.write_all(&buffer[..length]).await?;
        }
    };
    tokio::select! {
        there = there => there,
        back = back => back,
    }
}

/// Written once, so that the system has given it its memory.
fn buffer() -> Vec<u8> {
    vec![1; BUFFER_LEN]
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::client::Client;
    use crate::mock::Mock;

    #[tokio::test]
    async fn what_is_relayed_arrives_as_it_was_and_late_if_it_is_held() {
        let mock = Mock::start().await;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let client = Client::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let held = Duration::from_millis(20);
        let relayed = async {
            let start = Instant::now();
            let models = client.get("/models").await.unwrap();
            (models, start.elapsed())
        };

        let (models, took) = tokio::select! {
            relayed = relayed => relayed,
            ended = serve(&listener, mock.address(), held) => panic!("{ended:?}"),
        };

        assert_eq!(models.json(), Client::new(&mock.url()).unwrap().get("/models").await.unwrap().json());
        assert!(took >= held, "{took:?}");
    }

    #[tokio::test]
    async fn a_client_that_leaves_is_told_to_the_server() {
        let mock = Mock::start().await;
        let (urls, url) = tokio::sync::oneshot::channel();
        let relay = Arguments { to: mock.address() };
        let relaying = tokio::spawn(async move { run(&relay, |url| urls.send(url).unwrap()).await });
        let client = Client::new(&format!("{}/v1", url.await.unwrap())).unwrap();
        let mut stream = super::super::direct::open(&client, "stall@after=1", "leave").await.unwrap();
        stream.next().await.unwrap();

        drop(stream);

        mock.wait_until(|counts| counts.calls_aborted == 1).await;
        relaying.abort();
    }
}
