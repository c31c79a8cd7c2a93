//! Auth: the keys of weir's own clients.

use super::tables::words;
use crate::chat::OrgId;

/// `[auth]`: who may use weir.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Auth {
    /// The keys of clients; none: weir is open. Two may have one id while a key is being replaced.
    pub keys: Vec<AuthKey>,
}

/// A client's key.
#[derive(Clone, PartialEq)]
pub struct AuthKey {
    /// Its name in logs and in principals.
    pub id: String,
    /// The SHA-256 of the key; the key itself is nowhere.
    pub digest: [u8; 32],
    /// The organisation it belongs to.
    pub org: OrgId,
    /// What it allows.
    pub role: Role,
}

impl std::fmt::Debug for AuthKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthKey").field("id", &self.id).field("org", &self.org).field("role", &self.role).finish()
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
