//! What a new configuration changes while weir runs.

use super::loaded;

/// The keys that change at once, and those that wait.
fn merged(old: &str, new: &str) -> (Vec<String>, Vec<String>) {
    let merged = loaded(old, &[]).merge(&loaded(new, &[]));
    (merged.changed, merged.needs_restart)
}

#[track_caller]
fn check(old: &str, new: &str, changed: &[&str], needs_restart: &[&str]) {
    let found = merged(old, new);
    assert_eq!((&found.0[..], &found.1[..]), (&owned(changed)[..], &owned(needs_restart)[..]), "\n{old}\n->\n{new}");
}

fn owned(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

fn key(id: &str, digit: char) -> String {
    let sha256: String = std::iter::repeat_n(digit, 64).collect();
    format!("[[auth.keys]]\nid = \"{id}\"\nsha256 = \"{sha256}\"\norg = \"acme\"\nrole = \"user\"\n")
}

#[test]
fn the_same_configuration_changes_nothing() {
    let text = key("a", 'a');
    for text in ["", text.as_str(), "[profiles.p.providers.demo]\nrps = 2.0"] {
        check(text, text, &[], &[]);
    }
}

#[test]
fn each_key_that_differs_is_told_whether_it_has_changed_or_waits() {
    check("", "system_prompt = \"be brief\"", &["system_prompt"], &[]);
    check("", "[limits]\npage_max = 10\ntools_max = 1", &["limits.page_max", "limits.tools_max"], &[]);
    check("", "[metrics]\nwindow_max = 100", &[], &["metrics.window_max"]);
    check("", "[metrics.alerts]\nhold_ms = 1", &["metrics.alerts.hold_ms"], &[]);
    check("", "[coalesce]\nenabled = false\nerror_ttl_ms = 1", &["coalesce.enabled"], &["coalesce.error_ttl_ms"]);
    check("", "[stream]\nretain_ms = 1\nturn_wait_max_ms = 1", &["stream.turn_wait_max_ms"], &["stream.retain_ms"]);
    check("", "[store]\npath = \"other.db\"", &[], &["store.path"]);
    let server = "[server]\nbind = \"127.0.0.1:1\"\nworkers = 3\nallowed_hosts = [\"weir.test\"]";
    check("", server, &["server.allowed_hosts"], &["server.bind", "server.workers"]);
    check("", "[server]\ncors_origins = [\"https://weir.test\"]", &["server.cors_origins"], &[]);
}

#[test]
fn a_server_with_keys_does_not_become_open_while_it_runs() {
    let (one, other) = (key("a", 'a'), key("a", 'b'));

    check(&one, &other, &["auth.keys"], &[]);
    check("", &one, &["auth.keys"], &[]);
    check(&one, "", &[], &["auth.keys"]);
}

#[test]
fn what_keys_may_ask_for_changes_while_it_runs() {
    let one = key("a", 'a');
    let more = format!("[auth]\nrequests_per_min = 5\nsession_ms = 1000\n{one}");

    check(&one, &more, &["auth.requests_per_min", "auth.session_ms"], &[]);
    check(&one, &format!("{one}tokens_per_day = 5"), &["auth.keys"], &[]);
}

#[test]
fn a_provider_changes_its_pace_and_its_models_but_not_where_it_is() {
    let at = |server: &str, more: &str| {
        format!("[providers.p]\ndialect = \"ollama\"\nbase_url = \"http://127.0.0.1:{server}\"\n{more}\n")
    };
    let old = at("1", "models = [\"a\"]");

    let faster = at("1", "models = [\"a\"]\nrps = 77.0\nqueue_max = 3\nretries_max = 7");
    check(&old, &faster, &["providers.p.queue_max", "providers.p.rps"], &["providers.p.retries_max"]);
    let more_models = at("1", "models = [\"b\", \"a\"]");
    check(&old, &more_models, &["providers.p.default_model", "providers.p.models"], &[]);
    let elsewhere = at("2", "models = [\"b\"]\nrps = 77.0");
    let waits = ["providers.p.base_url", "providers.p.default_model", "providers.p.models"];
    check(&old, &elsewhere, &["providers.p.rps"], &waits);
}

#[test]
fn providers_come_and_go_with_a_restart_and_so_does_what_names_them() {
    let one = "[providers.p]\ndialect = \"ollama\"\nmodels = [\"a\"]\n";
    let chosen = format!("default_provider = \"p\"\n{one}");

    check("", one, &[], &["providers.p"]);
    check(one, "", &[], &["providers.p"]);
    check("", &chosen, &[], &["default_provider", "providers.p"]);
    check(one, &chosen, &["default_provider"], &[]);
    check("", "default_provider = \"demo\"", &["default_provider"], &[]);
}

#[test]
fn profiles_come_and_go() {
    let slow = "[profiles.slow.providers.demo]\nrps = 1.0";
    let slower = "[profiles.slow.providers.demo]\nrps = 0.5";

    check("", slow, &["profiles.slow"], &[]);
    check(slow, "", &["profiles.slow"], &[]);
    check(slow, slower, &["profiles.slow.providers.demo.rps"], &[]);
}
