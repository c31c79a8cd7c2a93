//! Local: what a weir would start with here: the configuration, its keys, the database, the limit of open files.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::findings::Findings;
use crate::chat::View;
use crate::config::{AuthKey, Config, Dialect, Examined, Key, Origin, Provider, Role};
use crate::http::files;
use crate::store::{self, Inspection};

/// With less room than this a database will soon be in trouble, in bytes.
const ROOM_MIN: u64 = 256 * 1024 * 1024;
/// Keys that anybody would try.
const GUESSES: [&str; 10] = ["admin", "changeme", "demo", "key", "password", "secret", "test", "token", "weir", "chat"];

/// Reads the configuration; `None`: there is none that weir would start with.
pub(super) fn configuration(origin: &Origin, findings: &mut Findings) -> Option<Examined> {
    let examined = match origin.examine() {
        Ok(examined) => examined,
        Err(error) => {
            for problem in error.to_string().lines() {
                findings.fail("config", problem, "put it right; config.toml shows every key");
            }
            return None;
        }
    };
    for doubt in &examined.doubts {
        findings.warn("config", doubt, "put it right, unless it is meant");
    }
    match &examined.path {
        None => findings.ok("config", "no file: the defaults, and what the environment says"),
        Some(path) if anybody_may_write(path) => findings.fail(
            "config",
            format!("{}: every user of this machine may change it, and so who gets the keys", path.display()),
            "chmod o-w",
        ),
        Some(path) => findings.ok("config", path.display().to_string()),
    }
    Some(examined)
}

fn anybody_may_write(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o002 != 0)
}

/// The keys of clients, and those of providers.
pub(super) fn keys(examined: &Examined, insecure: bool, findings: &mut Findings) {
    let config = &examined.config;
    match (config.refuse_open(), config.auth.keys.as_slice()) {
        (Err(open), _) if insecure => {
            findings.warn("auth", open.to_string(), "weir key new draws a key, unless everybody is meant");
        }
        (Err(open), _) => findings.fail("auth", open.to_string(), "weir key new draws a key"),
        (Ok(()), []) => findings.ok("auth", "open, on loopback addresses only"),
        (Ok(()), keys) => findings.ok("auth", clients(keys)),
    }
    for key in guessable(config) {
        findings.fail("auth", format!("auth.keys: anybody can guess the key of {}", key.id), "weir key new draws one");
    }
    let mut unused = Vec::new();
    for provider in config.providers.values() {
        match &provider.key {
            Key::Missing => missing_key(examined, provider, &mut unused, findings),
            Key::Given(_) => given_key(provider, findings),
            Key::NotNeeded => {}
        }
    }
    if !unused.is_empty() {
        findings.ok("keys", format!("not used, without a key: {}", unused.join(", ")));
    }
}

fn clients(keys: &[AuthKey]) -> String {
    let (admins, all) = (keys.iter().filter(|key| key.role == Role::Admin), keys.iter());
    let of_all = all.filter(|key| key.view == View::Everything).count();
    format!("{} keys, {} of them admin, {of_all} for all organisations", keys.len(), admins.count())
}

/// Keys that can be found by trying.
fn guessable(config: &Config) -> Vec<&AuthKey> {
    let names = config.auth.keys.iter().map(|key| key.id.as_str());
    let mut found: Vec<&AuthKey> =
        GUESSES.into_iter().chain(names).filter_map(|guess| config.authenticate(guess)).collect();
    found.dedup_by_key(|key| key.digest);
    found
}

fn missing_key(examined: &Examined, provider: &Provider, unused: &mut Vec<String>, findings: &mut Findings) {
    let Examined { config, written, .. } = examined;
    let (name, variable) = (provider.name.as_str(), &provider.api_key_env);
    let is_default = config.default_provider.as_deref() == Some(name);
    let routes = config.providers.values().filter(|other| other.fallback.iter().any(|to| to.provider.as_str() == name));
    let routes: Vec<_> = routes.map(|other| other.name.as_str()).collect();
    let set_it = format!("put its key into {variable} where weir is started");
    if is_default {
        findings.fail(format!("key {name}"), format!("default_provider has no key in {variable}"), set_it);
    } else if !routes.is_empty() {
        let says = format!("the fallback of {} has no key in {variable}", routes.join(", "));
        findings.warn(format!("key {name}"), says, set_it);
    } else if written.iter().any(|other| other == name) {
        findings.warn(format!("key {name}"), format!("no key in {variable}: it cannot be called"), set_it);
    } else {
        unused.push(format!("{name} ({variable})"));
    }
}

/// What is likely wrong with a key, told without the key.
fn given_key(provider: &Provider, findings: &mut Findings) {
    let (name, variable) = (provider.name.as_str(), &provider.api_key_env);
    let quoted = provider.api_key().is_some_and(|key| key.expose().starts_with(['"', '\'']));
    let is_plain = provider.base_url.starts_with("http://") && !is_loopback(&provider.base_url);
    let check = format!("key {name}");
    if quoted {
        findings.fail(check, format!("{variable} begins with a quotation mark"), "set it without: nobody takes it off");
    } else if is_plain {
        findings.warn(check, format!("{variable} travels unencrypted: base_url is http://"), "https://, if it can");
    } else {
        findings.ok(check, format!("{variable} is set"));
    }
}

fn is_loopback(base_url: &str) -> bool {
    let host = base_url.trim_start_matches("http://").split(['/']).next().unwrap_or_default();
    ["localhost", "127.", "[::1]"].iter().any(|own| host.starts_with(own))
}

/// Where the database is, or will be, and whether enough files may be open.
pub(super) fn database_and_files(config: &Config, findings: &mut Findings) {
    // Whoever looks from another directory than weir's sees it by the path.
    let path = std::path::absolute(&config.store.path).unwrap_or_else(|_| config.store.path.clone());
    let mut running = None;
    match store::inspect(&config.store.path) {
        Err(error) => findings.fail("database", error.to_string(), "see store.path; run this as weir's user"),
        Ok(inspection) => {
            running = inspection.process;
            database(&path.display().to_string(), &inspection, findings);
        }
    }
    let limit = running.and_then(limit_of);
    let looked = files::look(config, limit);
    let whose = match (limit, running) {
        (Some(_), Some(process)) => format!("process {process}"),
        _ => "a weir that is started from here".to_owned(),
    };
    match looked.limit {
        Some(limit) if limit < looked.needed => {
            let says = format!(
                "{whose} may have {limit} files open, server.connections_max = {} needs {}: it serves {} at once",
                config.server.connections_max, looked.needed, looked.connections
            );
            findings.warn("files", says, "LimitNOFILE of systemd, ulimit -n, or fewer connections_max");
        }
        Some(limit) => findings.ok("files", format!("{whose} may have {limit} open, {} are needed", looked.needed)),
        None => findings.ok("files", format!("{whose} may have any number open")),
    }
}

fn database(path: &str, inspection: &Inspection, findings: &mut Findings) {
    let Inspection { bytes, in_use, process, room, readable_by_all, is_others } = inspection;
    let size = bytes.map_or("not made yet".to_owned(), |bytes| format!("{} KiB", bytes / 1024));
    let user = match (in_use, process) {
        (true, Some(process)) => format!(", in use by a weir that runs (process {process})"),
        (true, None) => ", in use by a weir that runs".to_owned(),
        (false, _) => ", can be used".to_owned(),
    };
    let says = format!("{path}: {size}{user}");
    if let Some(room) = room.filter(|room| *room < ROOM_MIN) {
        findings.warn("database", format!("{says}; its disk has {} MiB left", room / 1024 / 1024), "make room");
    } else if *readable_by_all {
        findings.warn(
            "database",
            format!("{says}; every user of this machine can read it"),
            format!("chmod o-r {path}*"),
        );
    } else if *is_others && !in_use {
        findings.warn("database", format!("{says} by you, but it is another user's"), "run this as weir's user, too");
    } else {
        findings.ok("database", says);
    }
}

/// How many files a process may have open, as the system tells.
fn limit_of(process: u32) -> Option<usize> {
    let limits = std::fs::read_to_string(format!("/proc/{process}/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// Whether a provider is called over a network.
pub(super) fn has_network(provider: &Provider) -> bool {
    provider.dialect != Dialect::Demo
}
