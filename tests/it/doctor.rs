//! The check-up: finds a good weir good, and says what is wrong with another and what helps.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use load::mock::{Mock, Provider};
use load::target::{Launch, Weir};
use serde_json::Value;
use tokio::net::TcpSocket;
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::front::{Front, Protocol};
use crate::support::gateway::{FAST, PATIENCE, config};
use crate::support::nginx::{Nginx, PLAIN, RECOMMENDED};

const PROGRAM: &str = env!("CARGO_BIN_EXE_weir");
const CANARY: &str = "sk-canary-7Yq";
/// The SHA-256 of [`CANARY`].
const DIGEST: &str = "769e77e9a2144b0a50e2c01ba70a3a2e841a65a24f202fc0327ad265118da287";
/// What somebody writes who means well: weir's wish is not heard, all else is nginx's default.
const DEAF: &str = "server { listen 80; location / { proxy_pass http://127.0.0.1:8000; \
                    proxy_ignore_headers X-Accel-Buffering; } }";
const COMPRESSING: &str = "gzip on; gzip_types text/event-stream; gzip_min_length 1; gzip_proxied any; \
                           gzip_http_version 1.0; server { listen 80; location / { proxy_pass http://127.0.0.1:8000; } }";

/// What a check-up has found, and how it ended.
struct Found {
    code: i32,
    said: String,
    json: Value,
}

impl Found {
    /// The verdict and the words of a check.
    #[track_caller]
    fn check(&self, name: &str) -> (&str, String) {
        let checks = self.json["checks"].as_array().unwrap();
        let row =
            checks.iter().find(|row| row["check"] == name).unwrap_or_else(|| panic!("no {name} in {}", self.said));
        let words = format!("{} -> {}", row["says"].as_str().unwrap(), row["to_do"].as_str().unwrap_or_default());
        (row["verdict"].as_str().unwrap(), words)
    }

    /// A check's verdict, and a part of its words.
    #[track_caller]
    fn says(&self, name: &str, verdict: &str, words: &str) {
        let (found, said) = self.check(name);
        assert!(found == verdict && said.contains(words), "{name}: {found}: {said}");
    }
}

/// Runs the program's check-up in a directory, once for programs and once for people.
async fn doctor(directory: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Found {
    let run = async |further: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.arg("doctor").args(arguments).args(further).current_dir(directory);
        command.env_clear().envs(environment.iter().copied());
        let output = timeout(PATIENCE, command.output()).await.expect("an end in time").unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!text.contains(CANARY), "{text}");
        (output.status.code().unwrap(), text, output.stdout)
    };
    let (code, _, json) = run(&["--json"]).await;
    let json: Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["well"], code == 0, "{json}");
    // Looking at a site takes a while, and once is enough.
    let said = if arguments.contains(&"--url") { json.to_string() } else { run(&[]).await.1 };
    Found { code, said, json }
}

/// The check-up of a configuration that is not in use.
async fn of_config(toml: &str, environment: &[(&str, &str)]) -> Found {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("config.toml"), toml).unwrap();
    let found = doctor(directory.path(), &[], environment).await;
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "it leaves nothing behind: {left:?}");
    found
}

#[actix_web::test]
async fn a_good_weir_is_well_and_its_database_is_left_to_it() {
    let mock = Mock::start().await;
    let tables = format!("[[auth.keys]]\nid = \"chat\"\norg = \"acme\"\nrole = \"user\"\nsha256 = {DIGEST:?}");
    let weir = Weir::start(Launch::weir(PROGRAM, config(&mock.url(), "weir.db", FAST, &tables))).await.unwrap();
    let mode = |mode| std::fs::set_permissions(weir.directory(), std::fs::Permissions::from_mode(mode)).unwrap();

    mode(0o700);
    let found = doctor(weir.directory(), &["--url", weir.url()], &[("WEIR_API_KEY", CANARY)]).await;

    assert_eq!(found.code, 0, "{}", found.said);
    found.says("config", "ok", "config.toml");
    found.says("auth", "ok", "1 keys, 0 of them admin");
    found.says("provider mock", "ok", "HTTP/1.1, GET /models 200");
    found.says("database", "ok", &format!("in use by a weir that runs (process {})", weir.pid()));
    found.says("database", "ok", weir.directory().join("weir.db").to_str().unwrap());
    found.says("files", "ok", &format!("process {}", weir.pid()));
    found.says("headers", "ok", "X-Accel-Buffering arrived");
    found.says("buffering", "ok", "nothing buffers");
    let client = weir.client().with_header("authorization", format!("Bearer {CANARY}"));
    assert_eq!(client.get("/api/threads").await.unwrap().json(), serde_json::json!([]), "its thread is deleted");
    assert_eq!(mock.counts().calls_finished, 0, "nobody who costs money was asked");
    mode(0o755);
    std::fs::set_permissions(weir.directory().join("weir.db"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let refused = doctor(weir.directory(), &["--url", weir.url()], &[]).await;
    refused.says("database", "warn", "every user of this machine can read it");
    refused.says("database", "warn", "chmod o-r ");
    refused.says("access", "fail", "WEIR_API_KEY");
}

#[actix_web::test]
async fn a_provider_that_is_dead_is_named_with_the_step_that_failed() {
    // Bound, so that nobody else gets the port, but not listening.
    let deaf = TcpSocket::new_v4().unwrap();
    deaf.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}/v1", deaf.local_addr().unwrap());
    let toml = config(
        &url,
        "weir.db",
        FAST,
        "[providers.nowhere]\ndialect = \"ollama\"\n\
        base_url = \"http://nowhere.invalid.test\"",
    );

    let found = of_config(&toml, &[]).await;

    assert_eq!(found.code, 1);
    found.says("provider mock", "fail", "1 address in");
    found.says("provider mock", "fail", "no connection -> is it up");
    found.says("provider nowhere", "fail", "does not resolve");
    assert!(found.said.lines().any(|line| line.starts_with("FAIL  provider mock ")), "{}", found.said);
    found.says("database", "ok", "not made yet, can be used");
}

#[actix_web::test]
async fn a_certificate_that_nobody_trusts_is_told_from_one_that_is_trusted_over_either_http() {
    let provider = Arc::new(Provider::new(None));
    for (protocol, http) in [(Protocol::Http1, "HTTP/1.1"), (Protocol::Http2, "HTTP/2")] {
        let front = Front::start(protocol, provider.clone()).await;
        let table = format!("{FAST}\n{}", front.keys());
        let trusted = config(&front.url("v1"), "weir.db", &table, "");
        let untrusted: String =
            trusted.lines().filter(|line| !line.starts_with("ca_file")).map(|line| format!("{line}\n")).collect();

        let good = of_config(&trusted, &[]).await;
        let bad = of_config(&untrusted, &[]).await;

        good.says("provider mock", "ok", &format!("{http}, GET /models 200"));
        bad.says("provider mock", "fail", "not trusted (ca_file)");
        assert_eq!((good.code, bad.code), (0, 1), "{protocol:?}");
    }
}

#[actix_web::test]
async fn keys_that_are_missing_or_refused_are_told_without_them() {
    let mock = Mock::start().await;
    let toml = format!(
        "default_provider = \"mine\"\n[server]\nbind = \"0.0.0.0:0\"\n\
         [providers.mine]\ndialect = \"openai_chat\"\nbase_url = {0:?}\nfallback = [\"other\"]\nany_model = true\n\
         default_model = \"m\"\n[providers.other]\ndialect = \"openai_chat\"\nbase_url = {0:?}\ndefault_model = \"m\"\n\
         any_model = true\n",
        mock.url()
    );

    let found = of_config(&toml, &[("OPENAI_API_KEY_OF_NOBODY", CANARY)]).await;

    assert_eq!(found.code, 1);
    found.says("key mine", "fail", "MINE_API_KEY");
    found.says("key other", "warn", "the fallback of mine");
    found.says("keys", "ok", "anthropic (ANTHROPIC_API_KEY)");
    found.says("auth", "fail", "can be reached from other machines");
    let quoted = format!("\"{CANARY}\"");
    let found = of_config(&toml, &[("MINE_API_KEY", CANARY), ("OTHER_API_KEY", &quoted)]).await;
    found.says("key mine", "ok", "MINE_API_KEY is set");
    found.says("key other", "fail", "quotation mark");
}

#[actix_web::test]
async fn what_is_wrong_with_the_configuration_is_told_with_its_line() {
    let found = of_config("[server]\nbind = \"nowhere\"\n\n[providers.openai]\nrsp = 3\n", &[]).await;

    assert_eq!(found.code, 1);
    found.says("config", "fail", "config.toml:2: server.bind");
    assert!(found.said.contains("config.toml:5: providers.openai.rsp"), "{}", found.said);
}

#[actix_web::test]
async fn keys_that_anybody_guesses_and_databases_that_are_none_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let database = directory.path().join("other.db");
    std::fs::write(&database, "not a database at all").unwrap();
    // The SHA-256 of "password".
    let tables = "[[auth.keys]]\nid = \"chat\"\norg = \"acme\"\nrole = \"user\"\n\
                  sha256 = \"5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8\"";
    let mock = Mock::start().await;

    let found = of_config(&config(&mock.url(), database.to_str().unwrap(), FAST, tables), &[]).await;

    assert_eq!(found.code, 1);
    assert!(found.said.contains("anybody can guess the key of chat"), "{}", found.said);
    found.says("database", "fail", "it is not a database");
    assert_eq!(std::fs::read(&database).unwrap(), b"not a database at all");
}

/// The check-up of a weir behind nginx with these settings.
async fn behind_nginx(settings: &str) -> Found {
    let mock = Mock::start().await;
    let weir = Weir::start(Launch::weir(PROGRAM, config(&mock.url(), "weir.db", FAST, ""))).await.unwrap();
    let nginx = Nginx::before(weir.url().trim_start_matches("http://"), settings).await;
    let (url, _door) = nginx.port().await;
    doctor(weir.directory(), &["--url", &url], &[]).await
}

#[actix_web::test]
async fn an_nginx_that_passes_events_on_is_well() {
    for settings in [RECOMMENDED, PLAIN] {
        let found = behind_nginx(settings).await;

        assert_eq!(found.code, 0, "{}", found.said);
        found.says("buffering", "ok", "nothing buffers");
        found.says("headers", "ok", "taken out (nginx acts on it)");
    }
}

#[actix_web::test]
async fn an_nginx_that_buffers_is_told_with_the_line_that_helps() {
    let found = behind_nginx(DEAF).await;

    assert_eq!(found.code, 1);
    found.says("buffering", "fail", "something buffers");
    found.says("buffering", "fail", "nginx: `proxy_buffering off;`");
}

#[actix_web::test]
async fn an_nginx_that_compresses_streams_is_told_with_the_line_that_helps() {
    let found = behind_nginx(COMPRESSING).await;

    assert_eq!(found.code, 1);
    found.says("compression", "fail", "nginx: `gzip off;`");
}

#[actix_web::test]
async fn where_nothing_runs_and_where_something_else_does_the_words_are_clear() {
    let directory = tempfile::tempdir().unwrap();
    let other = Mock::start().await;

    let dead = doctor(directory.path(), &["--url", "http://127.0.0.1:1"], &[]).await;
    let stranger = doctor(directory.path(), &["--url", &other.url()], &[]).await;

    assert_eq!((dead.code, stranger.code), (1, 1));
    dead.says("url", "fail", "no connection");
    stranger.says("health", "fail", "what answers is not weir");
}
