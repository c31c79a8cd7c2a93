//! Nginx: a real one, in front of a weir.

use std::fmt::Display;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use actix_rt::task::JoinHandle;
use load::client::{Connection, Events, Request};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines, copy_bidirectional};
use tokio::net::{TcpListener, UnixStream};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use super::PATIENCE;
use super::gateway::message;

/// What the project recommends.
pub(crate) const RECOMMENDED: &str = include_str!("../../../packaging/nginx.conf");
/// What somebody writes who knows nothing of streams.
pub(crate) const PLAIN: &str = "server { listen 80; location / { proxy_pass http://127.0.0.1:8000; } }";

/// An nginx on a socket of its own. Ends with the test.
pub(crate) struct Nginx {
    directory: TempDir,
    _process: Child,
    _said: Lines<BufReader<ChildStderr>>,
}

impl Nginx {
    /// In front of the weir at `address`, with these settings of the http context.
    pub(crate) async fn before(address: impl Display, settings: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().display();
        let settings = settings
            .replace("listen 80;", &format!("listen unix:{at}/nginx.sock;"))
            .replace("127.0.0.1:8000", &address.to_string());
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {at}/{kind};"))
            .concat();
        let config = format!(
            "daemon off; master_process off; pid {at}/pid; error_log stderr notice;
             events {{ worker_connections 64; }} http {{ access_log off; {temporary} {settings} }}"
        );
        fs::write(directory.path().join("nginx.conf"), config).unwrap();
        let mut command = Command::new("nginx");
        command.args(["-p", &at.to_string(), "-e", "error.log", "-c", "nginx.conf"]);
        command.stderr(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().expect("nginx is installed (Debian: nginx-light)");
        let said = BufReader::new(process.stderr.take().unwrap()).lines();
        let said = timeout(PATIENCE, listens(said)).await.expect("nginx listens in time");
        Self { directory, _process: process, _said: said }
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("nginx.sock")
    }

    /// The URL of a port at which it is reached, too, for those who cannot use its socket.
    pub(crate) async fn port(&self) -> (String, Door) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let socket = self.socket();
        let accepting = actix_rt::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                client.set_nodelay(true).unwrap();
                let mut server = UnixStream::connect(&socket).await.unwrap();
                actix_rt::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
            }
        });
        (url, Door(accepting))
    }

    /// Sends a message through it.
    pub(crate) async fn stream(&self, thread: &str, model: &str) -> Events<UnixStream> {
        let stream = UnixStream::connect(self.socket()).await.unwrap();
        let request = Request::post(format!("/api/threads/{thread}/messages/stream"), &message("hello", model));
        let opened = Events::open(Connection::new(stream, "localhost"), &request);
        timeout(PATIENCE, opened).await.expect("the stream begins in time").unwrap()
    }
}

/// Reads until nginx says that it waits for connections, which it does after it has opened its sockets.
async fn listens(mut said: Lines<BufReader<ChildStderr>>) -> Lines<BufReader<ChildStderr>> {
    let mut all = String::new();
    while let Some(line) = said.next_line().await.unwrap() {
        if line.contains("event method") {
            return said;
        }
        all.push_str(&line);
    }
    panic!("nginx has ended: {all}");
}

/// A port, for as long as it is kept.
pub(crate) struct Door(JoinHandle<()>);

impl Drop for Door {
    fn drop(&mut self) {
        self.0.abort();
    }
}
