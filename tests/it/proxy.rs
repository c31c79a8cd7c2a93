//! Behind nginx, as operators run it: with the settings that the project recommends, and with nginx's own.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use load::client::{Connection, Events, Request};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use crate::support::done;
use crate::support::gateway::{FAST, Gateway, PATIENCE, message};

/// What the project recommends.
const RECOMMENDED: &str = include_str!("../../packaging/nginx.conf");
/// What somebody writes who knows nothing of streams.
const PLAIN: &str = "server { listen 80; location / { proxy_pass http://127.0.0.1:8000; } }";

/// An nginx on a socket of its own. Ends with the test.
struct Nginx {
    directory: TempDir,
    _process: Child,
    _said: Lines<BufReader<ChildStderr>>,
}

impl Nginx {
    /// In front of `gateway`, with these settings of the http context.
    async fn before(gateway: &Gateway, settings: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().display();
        let settings = settings
            .replace("listen 80;", &format!("listen unix:{at}/nginx.sock;"))
            .replace("127.0.0.1:8000", &gateway.address().to_string());
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

    /// Sends a message through it.
    async fn stream(&self, thread: &str, model: &str) -> Events<UnixStream> {
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

#[actix_web::test]
async fn every_event_comes_through_nginx_before_the_next_one_is_said() {
    let gateway = Gateway::start().await;
    for settings in [RECOMMENDED, PLAIN] {
        let nginx = Nginx::before(&gateway, settings).await;
        let thread = gateway.thread().await;

        // The provider says nothing, then two pieces, and the rest when it is allowed to.
        let mut events = nginx.stream(&thread, "gate@after=2,tokens=4").await;

        for name in ["ping", "meta", "delta", "delta"] {
            let heard = timeout(PATIENCE, events.next_named(name)).await;
            heard.unwrap_or_else(|_| panic!("{name} is held back with {settings}")).unwrap();
        }
        gateway.called(|counts| counts.answers_held == 1).await;
        gateway.mock.open_gate();
        let rest = timeout(PATIENCE, events.rest()).await.expect("the end comes in time").unwrap();
        assert_eq!(done(&rest)["status"], "complete");
    }
    gateway.at_rest().await;
}

#[actix_web::test]
async fn whoever_leaves_nginx_leaves_weir() {
    let gateway = Gateway::with(FAST, "[stream]\non_disconnect = \"cancel\"\ndisconnect_grace_ms = 0").await;
    for (settings, left) in [(RECOMMENDED, 1), (PLAIN, 2)] {
        let nginx = Nginx::before(&gateway, settings).await;
        let mut events = nginx.stream(&gateway.thread().await, "text@gap_ms=3600000").await;
        timeout(PATIENCE, events.next_named("delta")).await.expect("the first piece comes in time").unwrap();

        drop(events);

        gateway.called(|counts| counts.calls_aborted == left).await;
    }
    gateway.at_rest().await;
}
