//! The program itself: what it prints, how it ends, and what survives when it is killed.

use std::time::Duration;

use futures_util::future::join_all;
use load::client::{Client, ClientError, Connection, Events, Request, text_of};
use load::mock::{Mock, expected_text};
use load::target::{Launch, Weir};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::gateway::{FAST, PATIENCE, config, message};
use crate::support::listener::Listener;
use crate::support::{done, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_weir");

/// How often the program is killed in the middle of an answer.
const KILLS: u64 = 5;

/// How often it is asked to stop while messages come in.
const STOPS: usize = 5;
/// Clients that send a message at that moment.
const SENDERS: usize = 20;

/// The program in front of `mock`, with a database in its own directory.
async fn weir(mock: &Mock, tables: &str) -> Weir {
    Weir::start(Launch::weir(PROGRAM, config(&mock.url(), "weir.db", FAST, tables))).await.unwrap()
}

async fn thread(weir: &Weir) -> String {
    let made = weir.client().post("/api/threads", &json!({})).await.unwrap();
    made.json()["id"].as_str().unwrap().to_owned()
}

async fn stream(weir: &Weir, thread: &str, body: &Value) -> Listener {
    Listener::open(&weir.client(), Request::post(format!("/api/threads/{thread}/messages/stream"), body)).await
}

async fn messages(weir: &Weir, thread: &str) -> Vec<Value> {
    let read = weir.client().get(&format!("/api/threads/{thread}")).await.unwrap();
    read.json()["messages"].as_array().unwrap().clone()
}

#[tokio::test]
async fn without_any_configuration_it_serves_the_demo() {
    let weir = Weir::start(Launch::weir(PROGRAM, "[server]\nbind = \"127.0.0.1:0\"")).await.unwrap();
    let thread = thread(&weir).await;

    let mut events = stream(&weir, &thread, &json!({ "content": "be fast: write 30 words" })).await;
    let events = events.rest().await;

    assert_eq!(done(&events)["status"], "complete");
    assert!(!text_of(&events).is_empty());
    let page = weir.client().get("/").await.unwrap();
    assert!(page.head.header("content-type").unwrap().starts_with("text/html"));
    assert!(page.head.header("content-security-policy").unwrap().contains("default-src 'none'"));
}

#[tokio::test]
async fn a_signal_lets_running_answers_finish() {
    let mock = Mock::start().await;
    let mut weir = weir(&mock, "").await;
    let thread = thread(&weir).await;
    let mut events = stream(&weir, &thread, &message("hello", "gate@after=1")).await;
    events.next_named("delta").await;

    let client = weir.client();
    let once_it_drains = async {
        until(&client, "/ready", |response| response.status() == 503).await;
        mock.open_gate();
        events.rest().await
    };
    let (status, rest) = futures_util::join!(weir.terminate(PATIENCE), once_it_drains);

    assert_eq!(done(&rest)["status"], "complete");
    assert_eq!(text_of(&rest), expected_text("mock", "hello")[expected_text("text@tokens=1", "hello").len()..]);
    assert!(status.unwrap().unwrap().success());
}

#[tokio::test]
async fn an_answer_that_takes_too_long_to_finish_is_interrupted_and_kept() {
    let mock = Mock::start().await;
    let mut weir = weir(&mock, "").await;
    let config = config(&mock.url(), "weir.db", FAST, "").replace("[server]", "[server]\ndrain_timeout_ms = 200");
    weir.terminate(PATIENCE).await.unwrap();
    let mut weir = Weir::start(Launch::weir(PROGRAM, config)).await.unwrap();
    let thread = thread(&weir).await;
    let mut body = message("hello", "stall@after=3");
    body["request_id"] = "cut".into();
    let mut events = stream(&weir, &thread, &body).await;
    events.next_named("delta").await;

    let (status, rest) = futures_util::join!(weir.terminate(PATIENCE), events.rest());
    let end = done(&rest);

    assert_eq!((&end["status"], &end["error"]["code"]), (&json!("interrupted"), &json!("interrupted")));
    assert!(status.unwrap().unwrap().success());
    weir.restart().await.unwrap();
    let answer = messages(&weir, &thread).await[1].clone();
    assert_eq!(
        (&answer["status"], answer["content"].as_str()),
        (&json!("interrupted"), Some(&*expected_text("stall@after=3", "hello")))
    );
    let again = weir.client().post(&format!("/api/threads/{thread}/messages"), &body).await.unwrap();
    assert_eq!((again.status(), &again.json()["error"]), (503, &end["error"]));
}

#[tokio::test]
async fn while_it_drains_it_is_not_ready_and_takes_no_new_messages() {
    let mock = Mock::start().await;
    let weir = weir(&mock, "").await;
    let thread = thread(&weir).await;
    let mut events = stream(&weir, &thread, &message("hello", "silent")).await;
    let request = events.next_named("meta").await.event.json()["request_id"].as_str().unwrap().to_owned();
    let client = weir.client();
    assert_eq!(client.get("/ready").await.unwrap().status(), 200);

    let mut weir = weir;
    let ended = weir.terminate(PATIENCE);
    let drained = async {
        until(&client, "/ready", |response| response.status() == 503).await;
        assert_eq!(client.get("/health").await.unwrap().status(), 200);
        let refused = client.post(&format!("/api/threads/{thread}/messages"), &message("more", "mock")).await.unwrap();
        assert_eq!((refused.status(), refused.error_code().as_deref()), (503, Some("draining")));
        client.post(&format!("/api/threads/cancel/{request}"), &json!({})).await.unwrap()
    };
    let (status, cancel) = futures_util::join!(ended, drained);

    assert_eq!(cancel.status(), 200);
    assert!(status.unwrap().unwrap().success());
}

/// Connections that are being served.
async fn connections(client: &Client) -> Vec<Connection> {
    join_all((0..SENDERS).map(async |_| {
        let mut connection = client.connect().await.unwrap();
        let head = connection.send(&client.complete(Request::get("/health"))).await.unwrap();
        connection.whole(head).await.unwrap();
        connection
    }))
    .await
}

/// Sends a message; it must end in `done` or a refusal.
async fn ends_properly(connection: Connection, request: Request) -> Option<Value> {
    match timeout(PATIENCE, Events::open(connection, &request)).await.expect("an answer in time") {
        Ok(events) => Some(done(&Listener::new(events).rest().await)),
        Err(ClientError::Refused(refusal)) => {
            let code = refusal.error_code();
            assert!(["draining", "interrupted"].contains(&code.as_deref().unwrap()), "{code:?}");
            None
        }
        Err(error) => panic!("neither done nor a refusal: {error}"),
    }
}

async fn stop_during_joins(tables: &str, model: &str) {
    let mock = Mock::start().await;
    let toml = config(&mock.url(), "weir.db", FAST, "").replace("[server]", &format!("[server]\n{tables}"));
    let mut weir = Weir::start(Launch::weir(PROGRAM, toml)).await.unwrap();
    for stop in 0..STOPS {
        let client = weir.client();
        let mut threads = Vec::new();
        for _ in 0..SENDERS {
            let made = client.post("/api/threads", &json!({})).await.unwrap();
            threads.push(made.json()["id"].as_str().unwrap().to_owned());
        }
        let made = client.post("/api/threads", &json!({})).await.unwrap().json();
        let path = format!("/api/threads/{}/messages/stream", made["id"].as_str().unwrap());
        let mut held = Listener::open(&client, Request::post(path, &message("held", "gate@after=1"))).await;
        held.next_named("delta").await;
        let connections = connections(&client).await;

        let sent = threads.iter().zip(connections).enumerate().map(|(at, (thread, connection))| {
            let body = message(&format!("{stop} {at}"), model);
            let path = format!("/api/threads/{thread}/messages/stream");
            ends_properly(connection, client.complete(Request::post(path, &body)))
        });
        let all = async {
            let ends = join_all(sent).await;
            mock.open_gate();
            (ends, held.rest().await)
        };
        let ((ends, held), status) = futures_util::join!(all, weir.terminate(PATIENCE));

        assert!(status.unwrap().unwrap().success());
        done(&held);
        for end in ends.into_iter().flatten() {
            assert!(end["status"] == "complete" || end["error"]["code"] == "interrupted", "{end}");
        }
        mock.reset();
        weir.restart().await.unwrap();
    }
}

#[tokio::test]
async fn a_message_that_comes_with_the_signal_is_answered_or_refused() {
    stop_during_joins("", "text@tokens=5").await;
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let mock = Mock::start().await;
    let tables = "[store]\npath = \"weir.db\"\ncheckpoint_interval_ms = 20";
    let config = config(&mock.url(), "weir.db", FAST, "").replace("[store]\npath = \"weir.db\"", tables);
    let mut weir = Weir::start(Launch::weir(PROGRAM, config)).await.unwrap();
    let thread = thread(&weir).await;
    for kill in 0..KILLS {
        // Longer than the test: it is always killed in the middle.
        let model = format!("text@tokens={},gap_ms=3", 30_000 + kill);
        let mut events = stream(&weir, &thread, &message(&format!("question {kill}"), &model)).await;
        let mut heard = Vec::new();
        while heard.len() < 20 + usize::try_from(kill).unwrap() * 7 {
            heard.push(events.next_named("delta").await);
        }

        weir.kill().await.unwrap();
        while let Ok(Some(arrived)) = events.next().await {
            heard.push(arrived);
        }
        weir.restart().await.unwrap();

        let messages = messages(&weir, &thread).await;
        let sequences: Vec<_> = messages.iter().map(|message| message["sequence"].as_u64().unwrap()).collect();
        assert_eq!(sequences, (0..=2 * kill + 1).collect::<Vec<_>>(), "no gaps");
        let (user, answer) = (&messages[messages.len() - 2], &messages[messages.len() - 1]);
        assert_eq!(user["content"], format!("question {kill}"));
        assert_eq!(answer["status"], "interrupted");
        let whole = expected_text(&model, &format!("question {kill}"));
        assert!(whole.starts_with(answer["content"].as_str().unwrap()), "a prefix of what was said");
        assert!(whole.starts_with(&text_of(&heard)));
    }
    let (ended, _) = (weir.terminate(PATIENCE).await.unwrap(), ());
    assert!(ended.unwrap().success());
    let database = rusqlite::Connection::open(weir.directory().join("weir.db")).unwrap();
    let verdict: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
}

/// Runs the program to its end; its exit code, what it printed and what it complained about.
async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String, String) {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(arguments).current_dir(directory.path()).env_clear().envs(environment.iter().copied());
    let output = timeout(Duration::from_secs(20), command.output()).await.unwrap().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn check_prints_the_effective_configuration_without_secrets() {
    let environment = [("OPENAI_API_KEY", "sk-canary"), ("OPENAI_RPS", "3.5")];

    let (code, printed, _) = run(&["check"], &environment).await;

    assert_eq!(code, 0);
    assert!(printed.contains("rps = 3.5") && !printed.contains("canary"), "{printed}");
}

#[tokio::test]
async fn a_new_key_is_printed_with_the_table_that_lets_it_in() {
    let (code, printed, _) = run(&["key", "new", "--id", "chat-ui", "--org", "acme"], &[]).await;
    assert_eq!(code, 0);
    let (key, table) = printed.split_once("\n\n").unwrap();
    let mock = Mock::start().await;

    let weir = weir(&mock, table).await;

    let status = async |key: &str| {
        let client = weir.client().with_header("authorization", format!("Bearer {key}"));
        client.get("/api/threads").await.unwrap().status()
    };
    assert_eq!((status(key.lines().last().unwrap()).await, status("weir_0").await), (200, 401));
}

#[tokio::test]
async fn a_new_key_that_the_configuration_would_refuse_is_not_drawn() {
    for (arguments, why) in [(["--org", "*"], "needs role = \"admin\""), (["--role", "root"], "expected user or admin")]
    {
        let (code, printed, complaint) = run(&[&["key", "new"], &arguments[..]].concat(), &[]).await;

        assert!(code != 0 && printed.is_empty() && complaint.contains(why), "{code} {printed} {complaint}");
    }
}

#[tokio::test]
async fn a_bad_configuration_is_named_with_its_line() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[server]\nbind = \"nowhere\"\n\n[providers.openai]\nrsp = 3\n").unwrap();

    let (code, _, complaint) = run(&["--config", file.path().to_str().unwrap()], &[]).await;

    assert_eq!(code, 1);
    assert!(complaint.contains(":2: server.bind") && complaint.contains(":5: providers.openai.rsp"), "{complaint}");
}

#[tokio::test]
async fn without_keys_it_serves_no_other_machines() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[server]\nbind = \"0.0.0.0:0\"\n").unwrap();

    let (code, _, complaint) = run(&["--config", file.path().to_str().unwrap()], &[]).await;

    assert_eq!(code, 1);
    assert!(complaint.contains("--insecure"), "{complaint}");
}

#[tokio::test]
async fn two_programs_never_share_a_database() {
    let mock = Mock::start().await;
    let first = weir(&mock, "").await;
    let database = first.directory().join("weir.db");

    let (soft, hard) = (first.directory().join("soft.db"), first.directory().join("hard.db"));
    std::os::unix::fs::symlink(&database, &soft).unwrap();
    std::fs::hard_link(&database, &hard).unwrap();

    for path in [database, soft, hard] {
        let second = Launch::weir(PROGRAM, config(&mock.url(), path.to_str().unwrap(), FAST, ""));
        let refused = Weir::start(second).await.unwrap_err().to_string();
        assert!(refused.contains("in use by another process"), "{}: {refused}", path.display());
    }
}

#[tokio::test]
async fn when_its_database_is_deleted_it_pretends_nothing() {
    let mock = Mock::start().await;
    let mut weir = weir(&mock, "").await;
    let (running, idle) = (thread(&weir).await, thread(&weir).await);
    let mut events = stream(&weir, &running, &message("hello", "gate@after=1")).await;
    events.next_named("delta").await;
    let client = weir.client();
    assert_eq!(client.get("/ready").await.unwrap().status(), 200);

    for file in ["weir.db", "weir.db-wal"] {
        std::fs::remove_file(weir.directory().join(file)).unwrap();
    }

    let ready = client.get("/ready").await.unwrap();
    assert_eq!((ready.status(), ready.error_code().as_deref()), (503, Some("storage")));
    let messages = format!("/api/threads/{idle}/messages");
    for (path, body) in [("/api/threads", json!({})), (&messages, message("more", "mock"))] {
        let refused = client.post(path, &body).await.unwrap();
        assert_eq!((refused.status(), refused.error_code().as_deref()), (503, Some("storage")), "{path}");
    }
    // The answer that runs reaches its listeners, who are told that it is not kept.
    mock.open_gate();
    let end = done(&events.rest().await);
    assert_eq!((&end["status"], &end["saved"]), (&json!("complete"), &json!(false)));
    assert_eq!(client.get("/health").await.unwrap().status(), 200);
    assert!(weir.terminate(PATIENCE).await.unwrap().unwrap().success());
    let log = weir.log();
    let errors: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(matches!(errors[..], [line] if line.contains("weir.db was deleted or moved away")), "{log}");
}
