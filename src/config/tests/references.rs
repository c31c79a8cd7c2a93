//! Providers and profiles: what their tables must say, and what they must not name.

use super::{check, load, loaded};
use crate::config::{Key, Pace};

const MODEL: &str = "expected a model's name: 1 to 200 visible characters, none of ?#%\\\"'<> and no ..";

#[test]
fn a_name_of_ones_own_needs_a_dialect_that_exists() {
    check("[providers.mine]\ndialect = 'demo'", &[], &[]);
    check(
        "[providers.mine]\n",
        &[],
        &["f:1: providers.mine: needs a dialect, one of openai_chat, openai_responses, perplexity_agent, \
         perplexity_sonar, gemini, openrouter, anthropic, ollama, demo"],
    );
    check(
        "[providers.mine]\ndialect = 'openai'",
        &[],
        &["f:2: providers.mine.dialect: expected one of openai_chat, openai_responses, perplexity_agent, \
         perplexity_sonar, gemini, openrouter, anthropic, ollama, demo"],
    );
}

#[test]
fn names_fit_into_variables_metrics_and_urls() {
    let name = "expected a name of 1 to 64 letters, digits, _ or -";
    check("[providers.'a/b']\ndialect = 'demo'", &[], &[&format!("f:1: providers.\"a/b\": {name}")]);
    check("[profiles.'']", &[], &[&format!("f:1: profiles.\"\": {name}")]);
    check(
        "[providers.my-llm]\ndialect = 'demo'\n[providers.my_llm]\ndialect = 'demo'",
        &[],
        &["f:3: providers.my_llm: its environment variables would be those of my-llm; choose another name"],
    );
    check(
        "[providers.OpenAI]\ndialect = 'demo'",
        &[],
        &["f:1: providers.OpenAI: its environment variables would be those of openai; choose another name"],
    );
}

#[test]
fn base_urls_are_https_unless_the_server_is_private() {
    let at = |url: &str| format!("[providers.openai]\nbase_url = '{url}'");
    check(&at("https://proxy.example.com/v1/"), &[], &[]);
    check(&at("http://192.168.0.7:8080/v1"), &[], &[]);
    check(
        &at("http://proxy.example.com/v1"),
        &[],
        &["f:2: providers.openai.base_url: http:// is for loopback and private addresses only: anybody in between \
             could read the key"],
    );
    check(
        &at("proxy.example.com"),
        &[],
        &["f:2: providers.openai.base_url: expected a URL such as https://example.com/v1: a scheme, a host, and no \
             user, query or fragment"],
    );
    check(
        &at("ftp://a"),
        &[],
        &["f:2: providers.openai.base_url: expected a URL that begins with https://, or http:// for private servers"],
    );
    assert_eq!(loaded(&at("https://a/v1//"), &[]).providers["openai"].base_url, "https://a/v1");
}

#[test]
fn the_demo_stays_the_demo() {
    check("[providers.demo]\nrps = 5", &[], &[]);
    check(
        "[providers.demo]\ndialect = 'openai_chat'",
        &[],
        &["f:2: providers.demo.dialect: demo is the built-in provider; choose another name for another one"],
    );
    check(
        "[providers.demo]\nbase_url = 'https://a'\napi_key_env = 'A'",
        &[],
        &[
            "f:2: providers.demo.base_url: the demo has no server",
            "f:3: providers.demo.api_key_env: the demo needs no key",
        ],
    );
}

#[test]
fn models_have_names_that_fit_and_the_default_one_is_accepted() {
    check(
        "[providers.openai]\nmodels = [\n 'a',\n 'b c',\n '../d']",
        &[],
        &[&format!("f:4: providers.openai.models[1]: {MODEL}"), &format!("f:5: providers.openai.models[2]: {MODEL}")],
    );
    check("[providers.openai]\ndefault_model = ''", &[], &[&format!("f:2: providers.openai.default_model: {MODEL}")]);
    check(
        "[providers.openai]\ndefault_model = 'a'",
        &[],
        &["f:2: providers.openai.default_model: expected one of models, or any_model = true"],
    );
    check("[providers.openai]\ndefault_model = 'a'\nany_model = true", &[], &[]);
    check(
        "[providers.openai]\nmodels = []\nany_model = false",
        &[],
        &["f:2: providers.openai.models: expected at least one, or any_model = true"],
    );
}

#[test]
fn a_server_of_which_no_model_is_known_accepts_any() {
    let config = loaded("[providers.mine]\ndialect = 'openai_chat'\nbase_url = 'http://localhost:8080'", &[]);
    let mine = &config.providers["mine"];

    assert!(mine.models.is_empty() && mine.default_model.is_none());
    assert!(mine.accepts("anything"));
    assert!(!config.providers["openai"].accepts("anything"));
}

#[test]
fn fallbacks_name_a_provider_and_a_model_of_it() {
    let with = |fallback: &str| format!("[providers.openai]\nfallback = [{fallback}]");
    check(&with("'openrouter/anything/goes', 'demo/demo', 'demo'"), &[], &[]);
    check(
        &with("'', '/a', 'a/', 'demo/a b'"),
        &[],
        &[
            "f:2: providers.openai.fallback[0]: expected provider/model, or a provider",
            "f:2: providers.openai.fallback[1]: expected provider/model, or a provider",
            "f:2: providers.openai.fallback[2]: expected provider/model, or a provider",
            "f:2: providers.openai.fallback[3]: expected provider/model, or a provider",
        ],
    );
    check(
        &with("\n'nobody/a',\n'demo/a'"),
        &[],
        &[
            "f:3: providers.openai.fallback[0]: there is no such provider",
            "f:4: providers.openai.fallback[1]: demo does not list this model",
        ],
    );
    let no_default = "[providers.mine]\ndialect = 'openai_chat'\nbase_url = 'http://localhost:8080'";
    check(
        &format!("{no_default}\nfallback = ['mine', 'nobody']"),
        &[],
        &[
            "f:4: providers.mine.fallback[0]: this is the provider that has failed by then; name another one",
            "f:4: providers.mine.fallback[1]: there is no such provider",
        ],
    );
}

#[test]
fn a_default_provider_exists_but_need_not_be_available() {
    check("default_provider = 'gemini'", &[], &[]);
    check("default_provider = ''", &[], &[]);
    check(
        "\ndefault_provider = 'mine'",
        &[],
        &["f:2: default_provider: there is no such provider, only anthropic, demo, gemini, openai, openrouter, \
             perplexity"],
    );
}

#[test]
fn one_mistake_is_told_once() {
    // The provider is wrong, not everything that names it.
    let toml = "
default_provider = 'mine'
[providers.mine]
dialect = 'none'
[providers.openai]
fallback = ['mine/a']
[profiles.p.providers.mine]
rps = 1
";
    let problems = load(toml, &[]).unwrap_err();

    assert!(problems.starts_with("f:4: providers.mine.dialect: "), "{problems}");
    assert_eq!(problems.lines().count(), 1, "{problems}");
}

#[test]
fn the_default_provider_is_one_that_can_be_called() {
    let default = |toml: &str, env: &[(&str, &str)]| loaded(toml, env).default_provider().name.to_string();
    let local = "[providers.local]\ndialect = 'openai_chat'\nbase_url = 'http://localhost'\napi_key_env = ''\n";
    let ollama = "[providers.a]\ndialect = 'ollama'";

    assert_eq!(default("", &[]), "demo");
    assert_eq!(default("", &[("OPENROUTER_API_KEY", "k"), ("OPENAI_API_KEY", "k")]), "openai");
    assert_eq!(default(local, &[]), "local");
    assert_eq!(default(ollama, &[]), "a");
    assert_eq!(default(local, &[("OPENAI_API_KEY", "k")]), "openai");
    assert_eq!(default("default_provider = 'gemini'", &[("OPENAI_API_KEY", "k")]), "gemini");
    assert_eq!(default(ollama, &[("ANTHROPIC_API_KEY", "k"), ("GEMINI_API_KEY", "k")]), "gemini");
}

#[test]
fn a_provider_tells_why_it_cannot_be_called() {
    let env = &[("GEMINI_API_KEY", "k"), ("OPENROUTER_API_KEY", "k")];
    let config = loaded("providers.perplexity.dialect = 'perplexity_sonar'", env);
    let why = |name: &str| config.providers[name].available().err();

    assert_eq!((why("demo"), why("openrouter"), why("gemini")), (None, None, None));
    assert_eq!(why("openai").as_deref(), Some("no key in OPENAI_API_KEY"));
    assert_eq!(why("perplexity").as_deref(), Some("no key in PERPLEXITY_API_KEY"));
    assert_eq!(why("anthropic").as_deref(), Some("no key in ANTHROPIC_API_KEY"));
    assert_eq!(config.providers["anthropic"].key, Key::Missing);
}

#[test]
fn a_profile_overrides_what_it_names_and_leaves_the_rest() {
    let toml = "
[providers.openai]
rps = 4
burst = 6
[profiles.ttft.providers.openai]
rps = 5
[profiles.ttft.providers.demo]
";
    let config = loaded(toml, &[("OPENAI_CONCURRENCY", "7")]);

    let ttft = config.profile("ttft").unwrap();
    assert_eq!(ttft["openai"], Pace { rps: 5.0, concurrency: 7, burst: 6, tpm: 0 });
    assert_eq!(ttft["demo"], config.providers["demo"].pace);
    assert_eq!(ttft["gemini"], config.providers["gemini"].pace);
    assert_eq!(config.profile("production").unwrap()["openai"], Pace { rps: 4.0, concurrency: 7, burst: 6, tpm: 0 });
    assert_eq!(config.profile("other"), None);
}

#[test]
fn profiles_name_providers_that_exist_and_leave_production_alone() {
    check(
        "[profiles.ttft.providers.nobody]\nrps = 1",
        &[],
        &["f:1: profiles.ttft.providers.nobody: there is no such provider"],
    );
    check(
        "[profiles.production.providers.demo]\nrps = 1",
        &[],
        &["f:1: profiles.production: production is the providers' own paces; choose another name"],
    );
}

#[test]
fn a_fallback_is_another_provider() {
    check(
        "[providers.openai]\nfallback = [\n'demo/demo',\n'openai/gpt-6-astra']",
        &[],
        &["f:4: providers.openai.fallback[1]: this is the provider that has failed by then; name another one"],
    );
}
