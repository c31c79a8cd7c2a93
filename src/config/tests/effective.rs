//! The effective configuration as `weir check` prints it.

use proptest::prelude::*;

use super::{certificate_file, loaded};
use crate::config::Config;

/// Checks that what is printed loads to the same configuration.
#[track_caller]
fn check_round_trip(toml: &str, env: &[(&str, &str)]) -> Config {
    let config = loaded(toml, env);
    let printed = config.to_toml();
    assert_eq!(loaded(&printed, env), config, "\n{printed}");
    config
}

#[test]
fn what_is_printed_configures_the_same() {
    let full = r#"
default_provider = "my-llm"
system_prompt = """
"Be brief."\t\u0007\\
# no comment
"""
[server]
bind = "[::1]:0"
admin_bind = "0.0.0.0:9000"
allowed_hosts = ["a.example", "[::1]"]
cors_origins = ["https://a.example", "*"]
[metrics.alerts]
error_rate = 0.1
[auth]
session_ms = 60000
streams_max = 9
[[auth.keys]]
id = "chat-ui"
sha256 = "5E78863ed1ffb9fc66b1d61634b126bf8eb20267e7996297eeeb9b19c8c0f732"
org = "acme"
role = "admin"
streams_max = 0
tokens_per_day = 1000000000000
[[auth.keys]]
id = "ops"
sha256 = "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"
org = "*"
role = "admin"
[providers.my-llm]
dialect = "openai_chat"
base_url = "http://localhost:8080/v1/"
ca_file = "/etc/ca.pem"
http = "2"
fallback = ["openai/gpt-6-astra", "openrouter/a/b:free", "demo"]
[providers.gpu]
dialect = "ollama"
[profiles.ttft.providers.perplexity]
rps = 5.0
[profiles.empty]
"#;
    check_round_trip("", &[]);
    let (certificate, _folder) = certificate_file();
    let full = &full.replace("/etc/ca.pem", certificate.to_str().unwrap());
    check_round_trip(full, &[]);
    check_round_trip(full, &[("MY_LLM_API_KEY", "k"), ("PERPLEXITY_BURST", "7"), ("COALESCE_ENABLED", "0")]);
}

#[test]
fn comments_say_which_providers_can_be_called() {
    let printed = loaded("", &[("OPENAI_API_KEY", "k")]).to_toml();

    assert!(
        printed.starts_with("# Requests that name no provider go to openai.\ndefault_provider = \"\"\n"),
        "{printed}"
    );
    for expected in [
        "\n# Available.\n[providers.openai]\n",
        "\n# Not available: no key in OPENROUTER_API_KEY.\n[providers.openrouter]\n",
        "\n# Not available: no key in ANTHROPIC_API_KEY.\n[providers.anthropic]\n",
        "\n[server]\n",
        "\n[metrics.alerts]\n",
    ] {
        assert!(printed.contains(expected), "{expected}\nin\n{printed}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_configuration_survives_printing(
        prompt in ".{0,40}",
        path in "[^\0]{1,20}",
        rps in 0.001..1_000_000.0,
        profile_rps in proptest::option::of(0.001..1_000_000.0),
        burst in 1..1_000_000_u32,
        ratio in 0.0..1_000_000.0,
        wait in 1..86_400_000_u64,
        models in proptest::collection::vec("[!$&(*+,:;=@A-Z_a-z|~-]{1,20}", 0..4),
        env_rps in proptest::option::of(0.001..1_000_000.0),
    ) {
        let text = toml::Value::String;
        let models = toml::Value::from(models);
        let mut toml = format!("system_prompt = {}\n[store]\npath = {}\n", text(prompt), text(path));
        toml += &format!("[metrics.alerts]\ncoalesce_ratio_min = {ratio:?}\n");
        toml += &format!("[stream]\nslow_reader_timeout_ms = {wait}\n");
        toml += &format!("[providers.openai]\nrps = {rps:?}\nburst = {burst}\nmodels = {models}\n");
        if let Some(rps) = profile_rps {
            toml += &format!("[profiles.p.providers.openai]\nrps = {rps:?}\n");
        }
        let env_rps = env_rps.map(|rps| format!("{rps:?}"));
        let env: Vec<_> = env_rps.iter().map(|rps| ("OPENAI_RPS", rps.as_str())).collect();

        check_round_trip(&toml, &env);
    }
}
