//! Each kind of mistake that a file can contain, and the line that is told about it.

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::example::FILE;
use super::{check, load};

#[test]
fn an_empty_file_is_right() {
    check("", &[], &[]);
    check("\u{feff}# only a comment\r\n", &[], &[]);
    check("[server]\n[providers]\n[profiles]\n[auth]\n[metrics.alerts]", &[], &[]);
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    check("[server]\n\nbind = ", &[], &["f:3: string values must be quoted, expected literal string"]);
    check("\n[a\n", &[], &["f:2: unclosed table, expected `]`"]);
    check("[store]\nreaders = 1\nreaders = 2", &[], &["f:3: duplicate key"]);
}

#[test]
fn unknown_keys_are_refused_with_the_known_ones() {
    let top = "default_provider, history_messages_max, system_prompt, server, store, coalesce, stream, auth, metrics, \
               limits, providers, profiles";
    let provider = "dialect, base_url, api_key_env, models, default_model, any_model, rps, concurrency, burst, \
                    tpm, queue_max, queue_wait_max_ms, http, connect_timeout_ms, headers_timeout_ms, ttft_timeout_ms, \
                    idle_timeout_ms, total_timeout_ms, on_cancel, drain_max_ms, drain_bytes_max, warm_connections, \
                    ca_file, retries_max, breaker_failures, breaker_open_ms, breaker_open_max_ms, fallback";
    check("serv = 1", &[], &[&format!("f:1: serv: unknown key; expected one of {top}")]);
    check(
        "\n[metrics]\nwindow = 1",
        &[],
        &["f:3: metrics.window: unknown key; expected one of window_max, failures_max, alerts"],
    );
    check(
        "[metrics.alerts]\nhold = 1",
        &[],
        &["f:2: metrics.alerts.hold: unknown key; expected one of ttft_p95_ms, \
        error_rate, error_window, queue_wait_p95_ms, hold_ms, coalesce_ratio_min, coalesce_burst_min"],
    );
    let auth = "session_ms, requests_per_min, streams_max, tokens_per_day, keys";
    check("[auth]\nkey = []", &[], &[&format!("f:2: auth.key: unknown key; expected one of {auth}")]);
    check("[profiles.ttft]\nrps = 1", &[], &["f:2: profiles.ttft.rps: unknown key; expected providers"]);
    check(
        "[profiles.ttft.providers.demo]\nqueue_max = 1",
        &[],
        &["f:2: profiles.ttft.providers.demo.queue_max: unknown key; expected one of rps, concurrency, burst, tpm"],
    );
    check(
        "\"a.b\\n\" = 1\n[providers.openai]\nrsp = 1.0",
        &[],
        &[
            &format!("f:1: \"a.b\\n\": unknown key; expected one of {top}"),
            &format!("f:3: providers.openai.rsp: unknown key; expected one of {provider}"),
        ],
    );
}

#[test]
fn values_of_another_type_are_refused_with_what_is_expected() {
    let cases = [
        ("server = 1", "server: expected a table"),
        ("server.workers = 'four'", "server.workers: expected a whole number, 0 or more"),
        ("server.workers = -1", "server.workers: expected a whole number, 0 or more"),
        ("server.workers = 1.5", "server.workers: expected a whole number, 0 or more"),
        ("server.bind = 'localhost:80'", "server.bind: expected an address such as \"127.0.0.1:8000\""),
        ("server.bind = 80", "server.bind: expected an address such as \"127.0.0.1:8000\""),
        ("server.admin_bind = ':80'", "server.admin_bind: expected an address such as \"127.0.0.1:8000\""),
        ("server.allowed_hosts = 'a'", "server.allowed_hosts: expected an array"),
        ("store.path = 1", "store.path: expected a string"),
        ("store.durability = 'half'", "store.durability: expected full or normal"),
        ("coalesce.enabled = 1", "coalesce.enabled: expected a boolean"),
        ("coalesce.openai_api = 'no'", "coalesce.openai_api: expected one of deterministic, always, never"),
        ("metrics.alerts.error_rate = '1%'", "metrics.alerts.error_rate: expected a number"),
        ("providers = []", "providers: expected a table"),
        ("providers.demo = 1", "providers.demo: expected a table"),
        ("providers.demo.burst = 5_000_000_000", "providers.demo.burst: expected a whole number from 0 to 4294967295"),
        ("providers.demo.ca_file = 1", "providers.demo.ca_file: expected a string"),
        ("auth.keys = {}", "auth.keys: expected an array of tables"),
        ("auth.keys = [1]", "auth.keys[0]: expected a table"),
        ("default_provider = true", "default_provider: expected a string"),
    ];
    for (toml, expected) in cases {
        check(toml, &[], &[&format!("f:1: {expected}")]);
    }
}

#[test]
fn the_line_is_that_of_the_wrong_element() {
    check("[server]\nallowed_hosts = [\n  'a',\n  1,\n]", &[], &["f:4: server.allowed_hosts: expected a string"]);
    check(
        "[server]\nallowed_hosts = [\n  'a',\n  'b:1',\n]",
        &[],
        &["f:4: server.allowed_hosts[1]: expected a host without scheme and port"],
    );
}

#[test]
fn numbers_out_of_their_range_are_refused_with_the_range() {
    let cases = [
        ("history_messages_max = 10001", "history_messages_max: 10001 is out of range: 0 to 10000 are allowed"),
        ("server.ping_interval_ms = 0", "server.ping_interval_ms: 0 is out of range: 1 to 86400000 are allowed"),
        ("metrics.alerts.error_rate = 1.5", "metrics.alerts.error_rate: 1.5 is out of range: 0 to 1 are allowed"),
        ("metrics.alerts.error_rate = nan", "metrics.alerts.error_rate: NaN is out of range: 0 to 1 are allowed"),
        ("providers.openai.rps = 0", "providers.openai.rps: 0 is out of range: 0.001 to 1000000 are allowed"),
        ("providers.openai.rps = inf", "providers.openai.rps: inf is out of range: 0.001 to 1000000 are allowed"),
        ("providers.openai.concurrency = 0", "providers.openai.concurrency: 0 is out of range: 1 to 10000 are allowed"),
        ("providers.openai.burst = 0", "providers.openai.burst: 0 is out of range: 1 to 1000000 are allowed"),
        (
            "providers.demo.breaker_failures = 1001",
            "providers.demo.breaker_failures: 1001 is out of range: 0 to 1000 are allowed",
        ),
        ("providers.demo.retries_max = 11", "providers.demo.retries_max: 11 is out of range: 0 to 10 are allowed"),
        ("providers.demo.queue_max = 10001", "providers.demo.queue_max: 10001 is out of range: 0 to 10000 are allowed"),
        (
            "providers.demo.warm_connections = 1001",
            "providers.demo.warm_connections: 1001 is out of range: 0 to 1000 are allowed",
        ),
        (
            "profiles.p.providers.demo.rps = -1",
            "profiles.p.providers.demo.rps: -1 is out of range: 0.001 to 1000000 are allowed",
        ),
    ];
    for (toml, expected) in cases {
        check(toml, &[], &[&format!("f:1: {expected}")]);
    }
}

#[test]
fn every_wait_of_a_provider_has_the_same_range() {
    for wait in [
        "queue_wait_max",
        "connect_timeout",
        "headers_timeout",
        "ttft_timeout",
        "idle_timeout",
        "total_timeout",
        "breaker_open",
        "breaker_open_max",
    ] {
        let expected = format!("f:2: providers.demo.{wait}_ms: 0 is out of range: 1 to 86400000 are allowed");
        check(&format!("[providers.demo]\n{wait}_ms = 0"), &[], &[&expected]);
        check(&format!("[providers.demo]\n{wait}_ms = 86400000"), &[], &[]);
    }
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let toml = "
history_messages_max = -1
[store]
readers = 0
queue_max = 'many'
[providers.my-llm]
rps = 1.0
[coalesce]
enable = true
[server]
workers = 5000
";
    check(
        toml,
        &[("OPENAI_RPS", "fast"), ("COALESCE_ENABLED", "maybe")],
        &[
            "f:2: history_messages_max: expected a whole number, 0 or more",
            "f:4: store.readers: 0 is out of range: 1 to 64 are allowed",
            "f:5: store.queue_max: expected a whole number, 0 or more",
            "f:6: providers.my-llm: needs a dialect, one of openai_chat, openai_responses, perplexity_agent, \
         perplexity_sonar, gemini, openrouter, anthropic, ollama, demo",
            "f:9: coalesce.enable: unknown key; expected one of enabled, scope, error_ttl_ms, openai_api",
            "f:11: server.workers: 5000 is out of range: 0 to 512 are allowed",
            "COALESCE_ENABLED: expected 1, 0, true or false",
            "OPENAI_RPS: expected a number",
        ],
    );
}

#[test]
fn clients_keys_need_a_name_an_organisation_and_a_digest() {
    let digest = "5e78863ed1ffb9fc66b1d61634b126bf8eb20267e7996297eeeb9b19c8c0f732";
    let of_nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let name = "expected 1 to 64 letters, digits, _, . or -";
    let hex = "expected the SHA-256 of the key as 64 hexadecimal digits";
    let key =
        |id: &str, sha256: &str, org: &str| format!("[[auth.keys]]\nid = '{id}'\nsha256 = '{sha256}'\norg = '{org}'\n");

    check(&key("chat-ui", digest, "acme"), &[], &[]);
    check(&key("", digest, "acme"), &[], &[&format!("f:2: auth.keys[0].id: {name}")]);
    check(
        &key("a:b", digest, "a b"),
        &[],
        &[&format!("f:2: auth.keys[0].id: {name}"), &format!("f:4: auth.keys[0].org: {name}")],
    );
    for wrong in ["my-key".to_owned(), digest[1..].to_owned(), digest.replace('5', "+"), format!("{digest}0")] {
        check(&key("a", &wrong, "acme"), &[], &[&format!("f:3: auth.keys[0].sha256: {hex}")]);
    }
    check(
        &key("a", of_nothing, "acme"),
        &[],
        &["f:3: auth.keys[0].sha256: this is the SHA-256 of nothing, not of a key"],
    );
    check(
        &(key("a", digest, "acme") + &key("b", &digest.to_uppercase(), "acme")),
        &[],
        &["f:7: auth.keys[1].sha256: auth.keys[0] has the same"],
    );
    check(
        "\n[[auth.keys]]\nrole = 'root'",
        &[],
        &[
            &format!("f:2: auth.keys[0].id: {name}"),
            &format!("f:2: auth.keys[0].org: {name}"),
            &format!("f:2: auth.keys[0].sha256: {hex}"),
            "f:3: auth.keys[0].role: expected user or admin",
        ],
    );
}

/// A client's key whose text is `key`.
fn client(id: &str, key: &str, org: &str, role: &str) -> String {
    let sha256: String = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("[[auth.keys]]\nid = '{id}'\nsha256 = '{sha256}'\norg = '{org}'\nrole = '{role}'\n")
}

#[test]
fn keys_with_one_id_are_one_client_whose_key_is_being_replaced() {
    let old = client("chat-ui", "old", "acme", "user");
    let another = |what| format!("auth.keys[0] has the same id and another {what}; keys with one id are one client");

    check(&(old.clone() + &client("chat-ui", "new", "acme", "user")), &[], &[]);
    check(
        &(old.clone() + &client("chat-ui", "new", "rival", "user")),
        &[],
        &[&format!("f:9: auth.keys[1].org: {}", another("org"))],
    );
    check(
        &(old + &client("chat-ui", "new", "*", "admin")),
        &[],
        &[
            &format!("f:9: auth.keys[1].org: {}", another("org")),
            &format!("f:10: auth.keys[1].role: {}", another("role")),
        ],
    );
}

#[test]
fn keys_with_one_id_may_ask_for_the_same() {
    let (old, new) = (client("a", "old", "acme", "user"), client("a", "new", "acme", "user"));
    let another = |what| format!("auth.keys[0] has the same id and another {what}; keys with one id are one client");

    check(&format!("[auth]\nstreams_max = 3\n{old}streams_max = 3\n{new}"), &[], &[]);
    check(
        &format!("{old}streams_max = 3\ntokens_per_day = 5\n{new}tokens_per_day = 6\n"),
        &[],
        &[
            &format!("f:8: auth.keys[1].streams_max: {}", another("streams_max")),
            &format!("f:13: auth.keys[1].tokens_per_day: {}", another("tokens_per_day")),
        ],
    );
}

#[test]
fn what_a_key_may_ask_for_is_a_number_within_bounds() {
    let a = client("a", "key", "acme", "user");
    let beyond = "is out of range: 0 to 1000000 are allowed";

    check("[auth]\nrequests_per_min = 0\nstreams_max = 1000000\ntokens_per_day = 1000000000000", &[], &[]);
    check(
        &format!("[auth]\nrequests_per_min = 1000001\n{a}streams_max = 1000001\ntokens_per_day = -1"),
        &[],
        &[
            &format!("f:2: auth.requests_per_min: 1000001 {beyond}"),
            &format!("f:8: auth.keys[0].streams_max: 1000001 {beyond}"),
            "f:9: auth.keys[0].tokens_per_day: expected a whole number, 0 or more",
        ],
    );
}

#[test]
fn only_an_operators_key_may_stand_for_all_organisations() {
    check(&client("ops", "key", "*", "admin"), &[], &[]);
    let operators = "f:4: auth.keys[0].org: \"*\" is for those who operate weir: it needs role = \"admin\"";
    check(&client("ops", "key", "*", "user"), &[], &[operators]);
    check(&client("ops", "key", "*", "user").replace("role = 'user'\n", ""), &[], &[operators]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_damaged_file_is_accepted_or_every_problem_has_a_line(
        at in 0..FILE.len(),
        len in 0..80_usize,
        instead in ".{0,4}",
    ) {
        let mut damaged = FILE.to_owned();
        damaged.replace_range(at..(at + len).min(FILE.len()), &instead);
        let problems = load(&damaged, &[]).err().unwrap_or_default();
        for problem in problems.lines() {
            let line = problem.strip_prefix("f:").and_then(|rest| rest.split_once(": ")).map(|(line, _)| line.parse());
            prop_assert!(matches!(line, Some(Ok(1..=400_usize))), "{problem}\nin\n{damaged}");
        }
    }
}

#[test]
fn a_database_that_is_no_file_is_refused() {
    check("[store]\npath = \"\"", &[], &["f:2: store.path: expected the path of a file"]);
    for path in [":memory:", "file::memory:", "file:weir.db?mode=ro"] {
        let why = "store.path: expected the path of a file; threads are not kept in memory, nor behind a URI";
        check(&format!("[store]\n\npath = {path:?}"), &[], &[&format!("f:3: {why}")]);
    }
    check("[store]\npath = \"memory:/files/:memory:\"", &[], &[]);
}

#[test]
fn an_origin_is_written_as_browsers_write_it() {
    let origins = |list: &[&str]| format!("[server]\ncors_origins = {list:?}");
    let good = ["https://a.example", "http://localhost:3000", "http://[::1]:8000", "capacitor://localhost", "http://x"];
    check(&origins(&good), &[], &[]);
    for bad in [
        "",
        "null",
        "a.example",
        "https://",
        "https://a.example/",
        "https://A.example",
        "HTTPS://a.example",
        "https://a.example:443",
        "http://a.example:80",
        "https://a.example:0",
        "https://*.example",
        "https://u@a.example",
        "https://a.example, https://b.example",
        "https://bücher.example",
        "://a",
        "**",
    ] {
        let expected = "f:2: server.cors_origins[1]: expected an origin as browsers write it, such as \
                        https://app.example.com: no path, no / at its end, no usual port";
        check(&origins(&["https://a.example", bad]), &[], &[expected]);
    }
}

#[test]
fn pages_of_everybody_may_use_a_server_with_keys_alone() {
    let everybody = "[server]\ncors_origins = [\n'*'\n]\n";

    check(&(everybody.to_owned() + &client("a", "key", "acme", "user")), &[], &[]);
    let why = "\"*\" needs auth.keys: without keys every page that somebody has open could use this server";
    check(everybody, &[], &[&format!("f:3: server.cors_origins[0]: {why}")]);
}
