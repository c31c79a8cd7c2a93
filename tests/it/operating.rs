//! What operators do to the process and see of it: signals, the limit of open files, the log.

use load::mock::Mock;
use load::target::{Launch, Weir};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::gateway::{FAST, PATIENCE, config, message};
use crate::support::listener::Listener;
use crate::support::{done, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_weir");

pub(crate) async fn weir(mock: &Mock, server: &str) -> Weir {
    let config = config(&mock.url(), "weir.db", FAST, "").replace("[server]", &format!("[server]\n{server}"));
    Weir::start(Launch::weir(PROGRAM, config)).await.unwrap()
}

/// A stream that goes on until the mock's gate is opened.
pub(crate) async fn stream(weir: &Weir) -> Listener {
    let client = weir.client();
    let made = client.post("/api/threads", &serde_json::json!({})).await.unwrap().json();
    let path = format!("/api/threads/{}/messages/stream", made["id"].as_str().unwrap());
    let mut events =
        Listener::open(&client, load::client::Request::post(path, &message("hello", "gate@after=1"))).await;
    events.next_named("delta").await;
    events
}

pub(crate) fn send(weir: &Weir, signal: Signal) {
    kill_process(Pid::from_raw(weir.pid().try_into().unwrap()).unwrap(), signal).unwrap();
}

/// Waits until the log has `text`. Each question asks the process something: it is given time to write.
pub(crate) async fn until_logged(weir: &Weir, text: &str) {
    until(&weir.client(), "/health", |_| weir.log().contains(text)).await;
}

#[tokio::test]
async fn signals_that_ask_for_nothing_end_nothing() {
    let mock = Mock::start().await;
    let mut weir = weir(&mock, "").await;
    let mut events = stream(&weir).await;

    for (signal, name) in [(Signal::USR1, "SIGUSR1"), (Signal::USR2, "SIGUSR2")] {
        send(&weir, signal);
        until_logged(&weir, &format!("{name} is ignored")).await;
    }

    mock.open_gate();
    assert_eq!(done(&events.rest().await)["status"], "complete");
    assert!(weir.terminate(PATIENCE).await.unwrap().unwrap().success());
}

#[tokio::test]
async fn a_quit_lets_running_answers_finish_like_any_other_end() {
    let mock = Mock::start().await;
    let mut weir = weir(&mock, "").await;
    let mut events = stream(&weir).await;
    let client = weir.client();

    send(&weir, Signal::QUIT);
    until(&client, "/ready", |response| response.status() == 503).await;
    mock.open_gate();

    assert_eq!(done(&events.rest().await)["status"], "complete");
    assert!(weir.wait(PATIENCE).await.unwrap().unwrap().success());
}

/// Starts the program in a shell that has limited its open files.
async fn weir_with_files(mock: &Mock, limits: &str, connections_max: usize) -> Weir {
    let config = config(&mock.url(), "weir.db", "concurrency = 1", "");
    let config = config.replace("[server]", &format!("[server]\nconnections_max = {connections_max}"));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    std::fs::write(&file, config).unwrap();
    let script = format!("{limits} && exec {PROGRAM} --config {}", file.to_str().unwrap());
    Weir::start(Launch::program("/bin/sh", ["-c", &script])).await.unwrap()
}

#[tokio::test]
async fn with_too_few_files_it_says_so_and_still_answers_everybody() {
    let mock = Mock::start().await;
    let weir = weir_with_files(&mock, "ulimit -n 450", 10_000).await;
    until_logged(&weir, "the process may have 450").await;
    assert!(weir.log().contains("server.connections_max = 10000"), "{}", weir.log());
    let address = weir.url().strip_prefix("http://").unwrap().to_owned();

    let mut held = Vec::new();
    let mut refused = false;
    while !refused && held.len() < 450 {
        let mut socket = TcpStream::connect(&address).await.unwrap();
        socket.write_all(b"GET /api/providers HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        timeout(PATIENCE, socket.read_exact(&mut answer)).await.expect("an answer, whichever").unwrap();
        refused = &answer == b"HTTP/1.1 503";
        held.push(socket);
    }

    assert!(refused, "there is an end");
    assert_eq!(weir.client().get("/health").await.unwrap().status(), 200);
}

#[tokio::test]
async fn the_limit_of_open_files_is_raised_as_far_as_it_may() {
    let mock = Mock::start().await;
    let weir = weir_with_files(&mock, "ulimit -Sn 300", 500).await;

    let mut held = Vec::new();
    for _ in 0..400 {
        let mut connection = weir.client().connect().await.unwrap();
        let head =
            connection.send(&weir.client().complete(load::client::Request::get("/api/providers"))).await.unwrap();
        assert_eq!(connection.whole(head).await.unwrap().status(), 200);
        held.push(connection);
    }

    assert!(!weir.log().contains("ulimit"), "{}", weir.log());
}

#[tokio::test]
async fn what_is_not_http_writes_nothing_to_the_log() {
    let mock = Mock::start().await;
    let mut weir = weir(&mock, "").await;
    let address = weir.url().strip_prefix("http://").unwrap().to_owned();
    for bytes in [&b"nonsense\r\n\r\n"[..], &[b'x'; 200_000]] {
        let mut socket = TcpStream::connect(&address).await.unwrap();
        let (mut reader, mut writer) = socket.split();
        let mut answer = Vec::new();
        let reading = timeout(PATIENCE, reader.read_to_end(&mut answer));
        let (_, read) = futures_util::join!(writer.write_all(bytes), reading);
        read.expect("the server closes the connection").unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 4"));
    }

    assert!(weir.terminate(PATIENCE).await.unwrap().unwrap().success());
    assert!(!weir.log().contains("actix") && !weir.log().contains("ERROR"), "{}", weir.log());
}
