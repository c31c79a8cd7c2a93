//! FreshKey: a new key for a client, and the table by which the configuration knows it.

use std::fmt;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::auth::{AuthKeyTable, Role, hex};
use super::section::Table;

/// What a key begins with, so that whoever finds one knows what it is.
const PREFIX: &str = "weir_";
/// What is drawn for a key.
const RANDOM_BYTES: usize = 32;

/// See the module. Displays the key, once, and the table, which has only its SHA-256. It is kept nowhere.
pub struct FreshKey {
    text: String,
    table: AuthKeyTable,
}

/// Why there is no new key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoKey {
    /// The system gives no random bytes.
    Random(getrandom::Error),
    /// The table would be refused: the option, and why.
    Option(&'static str, String),
}

impl fmt::Display for NoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoKey::Random(error) => write!(f, "no random bytes from the system: {error}"),
            NoKey::Option(option, why) => write!(f, "--{option}: {why}"),
        }
    }
}

impl std::error::Error for NoKey {}

impl FreshKey {
    /// Draws a key of 256 bits from the system. Without `id` the client is named by its key's digest, so that no two
    /// are one by chance.
    pub fn draw(id: Option<String>, org: String, role: Role) -> Result<Self, NoKey> {
        let mut random = [0; RANDOM_BYTES];
        getrandom::fill(&mut random).map_err(NoKey::Random)?;
        let text = format!("{PREFIX}{}", hex(&random));
        let sha256 = hex(&Sha256::digest(&text));
        let id = id.unwrap_or_else(|| format!("key-{}", &sha256[..8]));
        let table = AuthKeyTable { id, sha256, org, role: Some(role), ..AuthKeyTable::default() };
        let mut refused = None;
        table.check(&mut |key, why| {
            refused.get_or_insert(NoKey::Option(key, why));
        });
        refused.map_or(Ok(Self { text, table }), Err)
    }
}

impl fmt::Display for FreshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[derive(Serialize)]
        struct File<'a> {
            auth: Auth<'a>,
        }
        #[derive(Serialize)]
        struct Auth<'a> {
            keys: [&'a AuthKeyTable; 1],
        }
        let table = toml::to_string(&File { auth: Auth { keys: [&self.table] } }).map_err(|_| fmt::Error)?;
        writeln!(f, "# The client's key. It is shown this once and kept nowhere.\n{}\n", self.text)?;
        write!(f, "# For the configuration, which needs only its SHA-256; then reload or start weir.\n{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    /// The key and the table that are printed.
    fn draw(id: Option<&str>, org: &str, role: Role) -> Result<(String, String), String> {
        let fresh = FreshKey::draw(id.map(str::to_owned), org.to_owned(), role).map_err(|error| error.to_string())?;
        let printed = fresh.to_string();
        let (key, table) = printed.split_once("\n\n").unwrap();
        Ok((key.lines().nth(1).unwrap().to_owned(), table.to_owned()))
    }

    #[test]
    fn the_printed_table_lets_the_printed_key_in_and_does_not_have_it() {
        for (id, org, role) in [(Some("chat-ui"), "acme", Role::User), (None, "*", Role::Admin)] {
            let (key, table) = draw(id, org, role).unwrap();

            let config = Config::load(Some(("f", &table)), []).unwrap();
            let known = config.authenticate(&key).expect("the key is known");
            assert_eq!(known.role, role);
            assert!(id.is_none_or(|id| known.id == id));
            assert!(!table.contains(&key) && !table.contains(key.trim_start_matches(PREFIX)), "{table}");
        }
    }

    #[test]
    fn each_key_is_another_one_and_has_256_bits() {
        let keys: Vec<_> = (0..3).map(|_| draw(None, "acme", Role::User).unwrap()).collect();

        for (n, (key, table)) in keys.iter().enumerate() {
            let digits = key.strip_prefix(PREFIX).unwrap();
            assert_eq!(digits.len(), 2 * RANDOM_BYTES);
            assert!(digits.bytes().all(|byte| byte.is_ascii_hexdigit()), "{digits}");
            assert!(keys[..n].iter().all(|(other, of_other)| other != key && of_other != table));
        }
    }

    #[test]
    fn what_the_configuration_would_refuse_is_refused_at_once() {
        let refused = |id, org, role| draw(id, org, role).unwrap_err();

        assert!(refused(Some("two words"), "acme", Role::User).starts_with("--id: expected 1 to 64 letters"));
        assert!(refused(None, "", Role::User).starts_with("--org: expected"));
        assert!(refused(None, "*", Role::User).contains("needs role = \"admin\""));
    }
}
