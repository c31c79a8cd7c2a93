//! Check: what must hold between the keys of the configuration, beyond the type and the range of each.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::Config;
use super::address::{check_base_url, is_host, is_origin};
use super::authorities::authorities;
use super::dialect::Dialect;
use super::load::Written;
use super::provider::{DEMO, ProviderTable, env_prefix, is_model, parse_route};
use super::report::{Report, joined};

/// What a model's name has to look like.
const MODEL: &str = "expected a model's name: 1 to 200 visible characters, none of ?#%\\\"'<> and no ..";

/// A provider's or a profile's name goes into variables, metrics and URLs.
pub(super) fn name(path: &str, name: &str, report: &mut Report<'_>) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !(1..=64).contains(&name.len()) || !name.bytes().all(plain) {
        report.key(path, "expected a name of 1 to 64 letters, digits, _ or -");
    }
}

/// One provider's table by itself.
pub(super) fn provider(path: &str, name: &str, table: &ProviderTable, report: &mut Report<'_>) {
    let Some(provider) = table.clone().resolve(name) else {
        let dialects: Vec<_> = Dialect::ALL.iter().map(|dialect| dialect.as_str()).collect();
        report.key(path, format_args!("needs a dialect, one of {}", dialects.join(", ")));
        return;
    };
    let mut wrong = |key: &str, what: &str| report.key(&format!("{path}.{key}"), what);
    if provider.dialect == Dialect::Demo {
        if !provider.base_url.is_empty() {
            wrong("base_url", "the demo has no server");
        }
        if !provider.api_key_env.is_empty() {
            wrong("api_key_env", "the demo needs no key");
        }
    } else if name == DEMO {
        wrong("dialect", "demo is the built-in provider; choose another name for another one");
    } else if let Err(what) = check_base_url(&provider.base_url) {
        wrong("base_url", what);
    }
    // Told without the text: the mistake to expect is the key itself.
    if !provider.api_key_env.is_empty() && !is_variable(&provider.api_key_env) {
        wrong("api_key_env", "expected the name of an environment variable: A-Z, 0-9 and _");
    }
    for (n, model) in provider.models.iter().enumerate() {
        if !is_model(model) {
            wrong(&format!("models[{n}]"), MODEL);
        }
    }
    match &provider.default_model {
        Some(model) if provider.accepts(model) => {}
        Some(model) if !is_model(model) => wrong("default_model", MODEL),
        Some(_) => wrong("default_model", "expected one of models, or any_model = true"),
        None if provider.any_model => {}
        None => wrong("models", "expected at least one, or any_model = true"),
    }
    if let Some(Err(what)) = provider.ca_file.as_deref().map(authorities) {
        wrong("ca_file", &what);
    }
    for (n, route) in table.fallback.iter().flatten().enumerate() {
        if parse_route(route).is_none() {
            wrong(&format!("fallback[{n}]"), "expected provider/model, or a provider");
        }
    }
    if let Some(keepalive_ms) = provider.dialect.keepalive_ms().filter(|ms| *ms >= provider.idle_timeout_ms) {
        // It may be meant: a server of one's own can be quicker.
        let dialect = provider.dialect;
        let what = format!("{dialect} tells every {keepalive_ms} ms that it still thinks: such answers will be cut");
        report.doubt(&format!("{path}.idle_timeout_ms"), what);
    }
}

/// The addresses that weir listens on, the names that requests may use for it, and where their pages may come from.
pub(super) fn addresses(config: &Config, report: &mut Report<'_>) {
    if config.server.admin_bind.is_some_and(|admin| overlap(admin, config.server.bind)) {
        report.key("server.admin_bind", "bind has this address already; \"\" shares it");
    }
    for (n, host) in config.server.allowed_hosts.iter().enumerate() {
        if !is_host(host) {
            report.key(&format!("server.allowed_hosts[{n}]"), "expected a host without scheme and port");
        }
    }
    for (n, origin) in config.server.cors_origins.iter().enumerate() {
        let key = format!("server.cors_origins[{n}]");
        if origin != "*" && !is_origin(origin) {
            let example = "such as https://app.example.com: no path, no / at its end, no usual port";
            report.key(&key, format_args!("expected an origin as browsers write it, {example}"));
        } else if origin == "*" && config.auth.keys.is_empty() {
            let why = "without keys every page that somebody has open could use this server";
            report.key(&key, format_args!("\"*\" needs auth.keys: {why}"));
        }
    }
}

/// The database must be a file: what SQLite understands beside that would be made as a file of that name.
pub(super) fn store(config: &Config, report: &mut Report<'_>) {
    let path = config.store.path.as_os_str().as_encoded_bytes();
    if path.is_empty() {
        report.key("store.path", "expected the path of a file");
    } else if path == b":memory:" || path.starts_with(b"file:") {
        report.key("store.path", "expected the path of a file; threads are not kept in memory, nor behind a URI");
    }
}

/// What names a provider must name one that exists.
pub(super) fn references(config: &Config, written: &Written, report: &mut Report<'_>) {
    let exists = |name: &str| config.providers.contains_key(name) || written.contains_key(name);
    if config.default_provider.as_ref().is_some_and(|name| !exists(name)) {
        let names: Vec<_> = config.providers.keys().map(String::as_str).collect();
        report.key("default_provider", format_args!("there is no such provider, only {}", names.join(", ")));
    }
    for (name, table) in written {
        let path = joined("providers", name);
        for (n, route) in table.fallback.iter().flatten().enumerate() {
            let Some(route) = parse_route(route) else { continue };
            let path = format!("{path}.fallback[{n}]");
            if route.provider.as_str() == name {
                report.key(&path, "this is the provider that has failed by then; name another one");
                continue;
            }
            match (config.providers.get(route.provider.as_str()), &route.model) {
                (Some(provider), Some(model)) if !provider.accepts(model) => {
                    report.key(&path, format_args!("{} does not list this model", route.provider));
                }
                (Some(provider), None) if provider.default_model.is_none() => {
                    report.key(&path, format_args!("{} has no default model; name one of its models", route.provider));
                }
                (None, _) if !exists(route.provider.as_str()) => report.key(&path, "there is no such provider"),
                _ => {}
            }
        }
    }
    let mut prefixes = BTreeMap::new();
    for name in config.providers.keys() {
        if let Some(other) = prefixes.insert(env_prefix(name), name) {
            let (here, there) = if written.contains_key(name) { (name, other) } else { (other, name) };
            let what = format!("its environment variables would be those of {there}; choose another name");
            report.key(&joined("providers", here), what);
        }
    }
}

/// Whether only one of two addresses can be listened on. Port 0 is any free one.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let takes = |one: SocketAddr, other: SocketAddr| one.ip().is_unspecified() && (one.is_ipv6() || other.is_ipv4());
    let same = one.ip() == other.ip() || takes(one, other) || takes(other, one);
    same && one.port() == other.port() && one.port() != 0
}

/// Whether the text can name a variable. Lower case is left out: keys have it, names of variables do not.
fn is_variable(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    text.len() <= 128 && text.bytes().all(plain) && !text.starts_with(|first: char| first.is_ascii_digit())
}
