//! What operators run against a weir that is behind TLS: the same, by `https://`, if they trust who is there.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use actix_rt::task::JoinHandle;
use clap::{Args, Parser};
use load::checks::{smoke, suite};
use load::client::{Client, ClientError};
use load::target::TargetError;
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::support::front::acceptor;
use crate::support::gateway::Gateway;

/// Longer than any cancel takes.
const MODEL: &str = "text@tokens=200,gap_ms=5";

/// Ends TLS for whatever is behind it. Dropping it ends it.
struct Door {
    port: u16,
    certificate: PathBuf,
    accepting: JoinHandle<()>,
    _folder: TempDir,
}

impl Door {
    async fn before(server: SocketAddr) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let certificate = folder.path().join("door.pem");
        let tls = acceptor(b"http/1.1", &certificate);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepting = actix_rt::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                actix_rt::spawn(pass(tls.clone(), socket, server));
            }
        });
        Self { port, certificate, accepting, _folder: folder }
    }

    fn url(&self) -> String {
        format!("https://localhost:{}", self.port)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Ends when one of the two has ended.
async fn pass(tls: TlsAcceptor, socket: TcpStream, server: SocketAddr) {
    let Ok(mut client) = tls.accept(socket).await else { return };
    let mut server = TcpStream::connect(server).await.unwrap();
    let _ = copy_bidirectional(&mut client, &mut server).await;
}

#[derive(Parser)]
struct Line<A: Args> {
    #[command(flatten)]
    arguments: A,
}

fn line<A: Args>(words: &[&str]) -> A {
    Line::parse_from(["load"].iter().chain(words)).arguments
}

async fn refusal(url: &str, ca_file: Option<&Path>) -> String {
    let client = Client::new(url).unwrap().trusting(ca_file).unwrap();
    let error = client.get("/health").await.unwrap_err();
    assert!(matches!(error, ClientError::Tls(_)), "{error}");
    error.to_string()
}

#[actix_web::test]
async fn streams_and_the_sign_off_work_behind_tls() {
    let gateway = Gateway::start().await;
    let door = Door::before(gateway.address()).await;
    let (url, certificate) = (door.url(), door.certificate.to_str().unwrap());
    let words = ["--url", &url, "--ca-file", certificate, "--model", MODEL];

    // How fast it is here is not what this is about.
    let smoked = smoke::run(&line(&[&words[..], &["--ping-max-ms", "20000"]].concat())).await.unwrap();
    let arguments: suite::Arguments = line(&[&words[..], &["-n", "4", "--burst", "5"]].concat());
    let signed_off = suite::run(&arguments, std::future::pending()).await;

    assert!(smoked.holds(), "{smoked}");
    assert!(signed_off.holds(), "{signed_off}");
    gateway.at_rest().await;
}

#[actix_web::test]
async fn who_is_not_trusted_is_not_spoken_to() {
    let gateway = Gateway::start().await;
    let (door, other) = (Door::before(gateway.address()).await, Door::before(gateway.address()).await);

    assert!(refusal(&door.url(), None).await.contains("certificate"));
    assert!(refusal(&door.url(), Some(&other.certificate)).await.contains("certificate"));
    // The certificate is for a name, and this is another one.
    let by_address = door.url().replace("localhost", "127.0.0.1");
    assert!(refusal(&by_address, Some(&door.certificate)).await.contains("certificate"));
    let plain = format!("https://localhost:{}", gateway.address().port());
    refusal(&plain, None).await;
}

#[actix_web::test]
async fn a_file_of_certificates_that_is_none_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (empty, missing) = (folder.path().join("empty.pem"), folder.path().join("missing.pem"));
    std::fs::write(&empty, "no certificate").unwrap();

    for (file, why) in [(&empty, "no certificate"), (&missing, "No such file")] {
        let words = ["--url", "https://localhost:1", "--ca-file", file.to_str().unwrap()];
        let error = smoke::run(&line(&words)).await.unwrap_err();
        assert!(matches!(error, TargetError::Api(_)), "{error}");
        let said = error.to_string();
        assert!(said.contains(file.to_str().unwrap()) && said.contains(why), "{said}");
    }
}
