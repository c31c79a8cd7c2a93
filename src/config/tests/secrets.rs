//! Secrets: wherever one is put, nothing prints it.

use super::{load, loaded};

/// A key that must not be seen. Lower case, as keys have it.
const CANARY: &str = "sk-canary-4242";

#[test]
fn a_key_is_in_nothing_that_is_printed() {
    let config = loaded("", &[("OPENAI_API_KEY", CANARY)]);

    assert_eq!(config.providers["openai"].api_key().map(|key| key.expose()), Some(CANARY));
    for printed in [config.to_toml(), format!("{config:?}"), format!("{config:#?}")] {
        assert!(!printed.contains("canary"), "{printed}");
    }
}

#[test]
fn a_key_that_no_header_can_carry_is_refused_without_showing_it() {
    for end in ["\n", " ", "\u{7f}", "é", "\t"] {
        let key = format!("{CANARY}{end}");
        let problems = load("", &[("OPENAI_API_KEY", &key)]).unwrap_err();

        let expected =
            "OPENAI_API_KEY: contains characters that no key has: a space, a line break or something beyond ASCII";
        assert_eq!(problems, expected);
    }
}

#[test]
fn a_key_in_the_wrong_place_is_refused_without_showing_it() {
    let places = [
        "providers.openai.api_key_env = 'KEY'",
        "providers.openai.api_key = 'KEY'",
        "providers.openai.base_url = 'https://user:KEY@api.openai.com'",
        "providers.openai.base_url = 'https://api.openai.com?key=KEY'",
        "providers.openai.rps = 'KEY'",
        "providers.openai.dialect = 'KEY'",
        "providers.openai.models = ['KEY?']",
        "providers.openai.fallback = ['KEY']",
        "providers.openai = 'KEY'",
        "server.bind = 'KEY'",
        "server.allowed_hosts = ['https://KEY']",
        "server.cors_origins = ['https://KEY/']",
        "auth.keys = ['KEY']",
        "auth.keys = [{ id = 'a', org = 'b', sha256 = 'KEY' }]",
        "auth.keys = [{ id = 'KEY!', org = 'KEY!', role = 'KEY', sha256 = '' }]",
        "default_provider = 'KEY'",
        "providers.openai.api_key_env = KEY",
        "providers.openai.api_key_env = 'KEY",
        "KEY",
    ];
    for place in places {
        let problems = load(&place.replace("KEY", CANARY), &[]).unwrap_err();
        assert!(!problems.contains("canary"), "{problems}");
    }
    for variable in ["OPENAI_RPS", "OPENAI_BURST", "COALESCE_ENABLED"] {
        let problems = load("", &[(variable, CANARY)]).unwrap_err();
        assert!(!problems.contains("canary"), "{problems}");
    }
}
