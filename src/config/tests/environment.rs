//! What the environment says, and that it wins over the file.

use super::{check, loaded};
use crate::config::{Config, Key, Pace, Secret};

#[test]
fn the_environment_wins_over_the_file() {
    let toml = "
[coalesce]
enabled = true
[stream]
fanout_enabled = false
[providers.perplexity]
rps = 2
concurrency = 2
[providers.my-llm]
dialect = 'demo'
";
    let env = [
        ("COALESCE_ENABLED", "0"),
        ("STREAM_FANOUT_ENABLED", "true"),
        ("PERPLEXITY_RPS", "0.5"),
        ("PERPLEXITY_BURST", "9"),
        ("MY_LLM_CONCURRENCY", "11"),
        ("MY_LLM_TPM", "30000"),
        ("SOMETHING_ELSE", "\u{0}"),
    ];
    let config = loaded(toml, &env);

    assert!(!config.coalesce.enabled && config.stream.fanout_enabled);
    assert_eq!(config.providers["perplexity"].pace, Pace { rps: 0.5, concurrency: 2, burst: 9, tpm: 0 });
    assert_eq!(config.providers["my-llm"].pace, Pace { rps: 1000.0, concurrency: 11, burst: 1000, tpm: 30_000 });
}

#[test]
fn the_environment_is_enough_without_a_file() {
    let env = [("OPENAI_RPS".to_owned(), "3".to_owned())];
    let config = Config::load(None, env).unwrap();

    assert_eq!(config.providers["openai"].pace.rps, 3.0);
    assert_eq!(Config::load(None, []), Ok(Config::default()));
}

#[test]
fn switches_are_one_and_zero_or_true_and_false() {
    for (text, enabled) in [("1", true), ("true", true), ("True", true), ("0", false), ("false", false)] {
        assert_eq!(loaded("", &[("COALESCE_ENABLED", text)]).coalesce.enabled, enabled, "{text}");
    }
    check("", &[("STREAM_FANOUT_ENABLED", "off")], &["STREAM_FANOUT_ENABLED: expected 1, 0, true or false"]);
}

#[test]
fn wrong_numbers_are_told_with_the_variable() {
    check(
        "",
        &[("OPENAI_BURST", "1.5"), ("OPENAI_CONCURRENCY", "-1"), ("OPENAI_RPS", "fast")],
        &[
            "OPENAI_RPS: expected a number",
            "OPENAI_CONCURRENCY: expected a whole number",
            "OPENAI_BURST: expected a whole number",
        ],
    );
    check(
        "",
        &[("OPENAI_BURST", "0"), ("OPENAI_CONCURRENCY", "10001"), ("OPENAI_RPS", "nan")],
        &[
            "OPENAI_RPS: NaN is out of range: 0.001 to 1000000 are allowed",
            "OPENAI_CONCURRENCY: 10001 is out of range: 1 to 10000 are allowed",
            "OPENAI_BURST: 0 is out of range: 1 to 1000000 are allowed",
        ],
    );
}

#[test]
fn the_file_is_checked_even_where_the_environment_wins() {
    check(
        "providers.openai.rps = 0",
        &[("OPENAI_RPS", "1")],
        &["f:1: providers.openai.rps: 0 is out of range: 0.001 to 1000000 are allowed"],
    );
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let env = [("COALESCE_ENABLED", ""), ("OPENAI_RPS", ""), ("OPENAI_API_KEY", "")];

    assert_eq!(loaded("", &env), Config::default());
}

#[test]
fn keys_come_from_the_variable_that_the_file_names() {
    let toml = "
[providers.openai]
api_key_env = 'WORK_KEY'
[providers.mine]
dialect = 'openai_chat'
[providers.local]
dialect = 'openai_chat'
api_key_env = ''
";
    let env = [("OPENAI_API_KEY", "a"), ("WORK_KEY", "b"), ("MINE_API_KEY", "c"), ("LOCAL_API_KEY", "d")];
    let config = loaded(toml, &env);

    assert_eq!(config.providers["openai"].key, Key::Given(Secret::new("b")));
    assert_eq!(config.providers["mine"].key, Key::Given(Secret::new("c")));
    assert_eq!(config.providers["local"].key, Key::NotNeeded);
    assert_eq!(config.providers["openrouter"].key, Key::Missing);
}
