//! Auth: the keys of weir's own clients.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Config;
use super::allowance::{Allowance, OwnAllowance};
use super::report::{Report, joined};
use super::section::{Section, Table};
use super::tables::{check_range, words};
use crate::chat::{OrgId, View};

/// `[auth]`: who may use weir.
#[derive(Debug, Clone, PartialEq)]
pub struct Auth {
    /// How long a browser stays signed in, in milliseconds.
    pub session_ms: u64,
    /// How much each client may ask for, unless its key says otherwise.
    pub allowance: Allowance,
    /// The keys of clients; none: weir is open. Two may have one id while a key is being replaced.
    pub keys: Vec<AuthKey>,
}

impl Default for Auth {
    fn default() -> Self {
        Self { session_ms: AuthTable::default().session_ms, allowance: Allowance::default(), keys: Vec::new() }
    }
}

impl Auth {
    /// How much the client with this key may ask for.
    pub fn allowance_of(&self, key: &AuthKey) -> Allowance {
        key.allowance.over(self.allowance)
    }

    /// The first key of each client.
    pub fn clients(&self) -> impl Iterator<Item = &AuthKey> {
        let mut seen = BTreeSet::new();
        self.keys.iter().filter(move |key| seen.insert(&*key.id))
    }
}

/// How long a session may be configured to last: a second to thirty days.
const SESSION_MS: RangeInclusive<u64> = 1_000..=2_592_000_000;

/// What stands for all organisations.
const ALL_ORGS: &str = "*";

/// A client's key.
#[derive(Clone, PartialEq)]
pub struct AuthKey {
    /// Its name in logs and in principals.
    pub id: String,
    /// The SHA-256 of the key; the key itself is nowhere.
    pub digest: [u8; 32],
    /// The organisation it belongs to; all of them, for an operator who belongs to none.
    pub view: View,
    /// What it allows.
    pub role: Role,
    /// How much of it, where that is not as usual.
    pub allowance: OwnAllowance,
}

impl fmt::Debug for AuthKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthKey").field("id", &self.id).field("view", &self.view).field("role", &self.role).finish()
    }
}

words! {
    /// What a client's key allows.
    Role {
        /// Chats.
        User = "user",
        /// Chats, metrics and administration.
        Admin = "admin",
    }
}

/// Nobody needs a key, and the address can be reached from other machines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenToAll {
    key: &'static str,
    address: SocketAddr,
}

impl fmt::Display for OpenToAll {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, address } = self;
        write!(f, "{key}: {address} can be reached from other machines and there are no auth.keys: ")?;
        f.write_str("add keys, use 127.0.0.1, or start with --insecure")
    }
}

impl std::error::Error for OpenToAll {}

impl Config {
    /// The key that a client presents, if it is one of the configured ones. All keys are compared, each in constant
    /// time, so that the time tells nothing about them.
    pub fn authenticate(&self, presented_key: &str) -> Option<&AuthKey> {
        let presented = Sha256::digest(presented_key.as_bytes());
        let mut found = None;
        for key in &self.auth.keys {
            if bool::from(key.digest.ct_eq(&presented)) {
                found = Some(key);
            }
        }
        found.filter(|_| !presented_key.is_empty())
    }

    /// The key with this digest, if it is still one of the configured ones.
    pub fn key_of(&self, digest: &[u8; 32]) -> Option<&AuthKey> {
        self.auth.keys.iter().find(|key| key.digest == *digest)
    }

    /// Refuses to serve everybody: without keys, weir listens on loopback addresses only. `--insecure` skips this.
    pub fn refuse_open(&self) -> Result<(), OpenToAll> {
        let addresses = [("server.bind", Some(self.server.bind)), ("server.admin_bind", self.server.admin_bind)];
        for (key, address) in addresses {
            if let Some(address) = address
                && self.auth.keys.is_empty()
                && !address.ip().to_canonical().is_loopback()
            {
                return Err(OpenToAll { key, address });
            }
        }
        Ok(())
    }
}

/// Whether the text can name an organisation, a client's key or the like: 1 to 64 of `[A-Za-z0-9_.-]`. Such a name
/// needs no escaping anywhere.
pub fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(plain)
}

/// `[auth]` as it is written. It knows of the keys so that a message about an unknown one can name them.
#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AuthTable {
    session_ms: u64,
    requests_per_min: u32,
    streams_max: u32,
    tokens_per_day: u64,
    #[serde(skip_serializing)]
    keys: IgnoredAny,
}

impl Default for AuthTable {
    fn default() -> Self {
        let Allowance { requests_per_min, streams_max, tokens_per_day } = Allowance::default();
        Self { session_ms: 43_200_000, requests_per_min, streams_max, tokens_per_day, keys: IgnoredAny }
    }
}

impl Table for AuthTable {
    fn check(&self, wrong: &mut dyn FnMut(&'static str, String)) {
        check_range("session_ms", &SESSION_MS, Some(&self.session_ms), wrong);
        let (requests_per_min, streams_max) = (Some(self.requests_per_min), Some(self.streams_max));
        OwnAllowance { requests_per_min, streams_max, tokens_per_day: Some(self.tokens_per_day) }.check(wrong);
    }
}

impl From<&Auth> for AuthTable {
    fn from(auth: &Auth) -> Self {
        let Allowance { requests_per_min, streams_max, tokens_per_day } = auth.allowance;
        Self { session_ms: auth.session_ms, requests_per_min, streams_max, tokens_per_day, keys: IgnoredAny }
    }
}

/// One of `auth.keys` as it is written.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AuthKeyTable {
    pub(super) id: String,
    pub(super) sha256: String,
    pub(super) org: String,
    pub(super) role: Option<Role>,
    pub(super) requests_per_min: Option<u32>,
    pub(super) streams_max: Option<u32>,
    pub(super) tokens_per_day: Option<u64>,
}

impl AuthKeyTable {
    fn allowance(&self) -> OwnAllowance {
        let Self { requests_per_min, streams_max, tokens_per_day, .. } = *self;
        OwnAllowance { requests_per_min, streams_max, tokens_per_day }
    }
}

impl Table for AuthKeyTable {
    fn check(&self, wrong: &mut dyn FnMut(&'static str, String)) {
        for (key, text) in [("id", &self.id), ("org", &self.org)] {
            if !is_name(text) && (key, text.as_str()) != ("org", ALL_ORGS) {
                wrong(key, "expected 1 to 64 letters, digits, _, . or -".to_owned());
            }
        }
        if self.org == ALL_ORGS && self.role != Some(Role::Admin) {
            wrong("org", "\"*\" is for those who operate weir: it needs role = \"admin\"".to_owned());
        }
        match digest(&self.sha256) {
            None => wrong("sha256", "expected the SHA-256 of the key as 64 hexadecimal digits".to_owned()),
            Some(digest) if digest == *Sha256::digest(b"") => {
                wrong("sha256", "this is the SHA-256 of nothing, not of a key".to_owned());
            }
            Some(_) => {}
        }
        self.allowance().check(wrong);
    }
}

impl From<&AuthKey> for AuthKeyTable {
    fn from(key: &AuthKey) -> Self {
        let sha256 = hex(&key.digest);
        let org = match &key.view {
            View::Org(org) => org.as_str(),
            View::Everything => ALL_ORGS,
        };
        let OwnAllowance { requests_per_min, streams_max, tokens_per_day } = key.allowance;
        let (id, org, role) = (key.id.clone(), org.to_owned(), Some(key.role));
        Self { id, sha256, org, role, requests_per_min, streams_max, tokens_per_day }
    }
}

/// Reads `[auth]`.
pub(super) fn read(mut section: Section<'_>, report: &mut Report<'_>) -> Auth {
    let keys = section.take_array("keys", report);
    let AuthTable { session_ms, requests_per_min, streams_max, tokens_per_day, .. } = section.read(report);
    let allowance = Allowance { requests_per_min, streams_max, tokens_per_day };
    let mut auth = Auth { session_ms, allowance, keys: Vec::new() };
    let mut seen: BTreeMap<[u8; 32], String> = BTreeMap::new();
    let mut clients: BTreeMap<String, (String, AuthKey)> = BTreeMap::new();
    for key in keys {
        let table: AuthKeyTable = key.read(report);
        let Some(digest) = digest(&table.sha256) else { continue };
        if let Some(first) = seen.insert(digest, key.path.clone()) {
            report.key(&joined(&key.path, "sha256"), format_args!("{first} has the same"));
        }
        let allowance = table.allowance();
        let view = if table.org == ALL_ORGS { View::Everything } else { View::Org(OrgId::new(table.org)) };
        let role = table.role.unwrap_or(Role::User);
        // What has no name is told so already.
        if !is_name(&table.id) {
            continue;
        }
        let new = AuthKey { id: table.id, digest, view, role, allowance };
        let (first, known) = clients.entry(new.id.clone()).or_insert_with(|| (key.path.clone(), new.clone()));
        let identity = [("org", known.view != new.view), ("role", known.role != new.role)];
        let identity = identity.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name);
        let allowances = auth.allowance_of(known).differences(auth.allowance_of(&new));
        for name in identity.chain(allowances) {
            let what = format_args!("{first} has the same id and another {name}; keys with one id are one client");
            report.key(&joined(&key.path, name), what);
        }
        auth.keys.push(new);
    }
    auth
}

/// The bytes in hexadecimal digits, which need no escaping in a header, a URL or a shell.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 64 hexadecimal digits as 32 bytes.
fn digest(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (n, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * n..2 * n + 2], 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str, key: &str) -> AuthKey {
        let view = View::Org(OrgId::new("acme"));
        let allowance = OwnAllowance::default();
        AuthKey { id: id.into(), digest: Sha256::digest(key).into(), view, role: Role::User, allowance }
    }

    /// A configuration with these keys, listening on these addresses.
    fn config(keys: Vec<AuthKey>, bind: &str, admin_bind: &str) -> Config {
        let mut config = Config::default();
        config.auth.keys = keys;
        config.server.bind = bind.parse().unwrap();
        config.server.admin_bind = admin_bind.parse().ok();
        config
    }

    #[test]
    fn a_key_is_found_by_its_text_and_nothing_else_is() {
        let config = config(vec![key("old", "one"), key("new", "two"), key("none", "")], "127.0.0.1:0", "");
        let id = |presented| config.authenticate(presented).map(|key| key.id.as_str());

        assert_eq!((id("one"), id("two")), (Some("old"), Some("new")));
        assert_eq!((id("One"), id("one "), id("")), (None, None, None));
        assert_eq!(Config::default().authenticate("one"), None);
    }

    #[test]
    fn without_keys_only_loopback_addresses_are_served() {
        let refused = |bind, admin| config(vec![], bind, admin).refuse_open().err().map(|open| open.to_string());

        for (bind, admin) in [("127.0.0.1:8000", ""), ("[::1]:0", "127.0.0.2:9"), ("[::ffff:127.0.0.1]:0", "")] {
            assert_eq!(refused(bind, admin), None, "{bind} {admin}");
        }
        for bind in ["0.0.0.0:8000", "[::]:8000", "10.0.0.1:8000", "[::ffff:10.0.0.1]:8000"] {
            assert!(refused(bind, "").is_some_and(|why| why.starts_with("server.bind: ")), "{bind}");
        }
        let admin = refused("127.0.0.1:8000", "0.0.0.0:9000").unwrap();
        assert_eq!(
            admin,
            "server.admin_bind: 0.0.0.0:9000 can be reached from other machines and there are no auth.keys: \
             add keys, use 127.0.0.1, or start with --insecure"
        );
    }

    #[test]
    fn with_keys_any_address_is_served() {
        assert_eq!(config(vec![key("a", "a")], "0.0.0.0:8000", "[::]:9000").refuse_open(), Ok(()));
    }
}
