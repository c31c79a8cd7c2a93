//! Chat: what is asked of a provider, the identities around it, and the key that makes two requests equal.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

/// Declares an identity: cheap to clone, never mixed up with another one.
macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
        #[serde(transparent)]
        #[schema(value_type = String)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Wraps a text that has been checked where it came in.
            pub fn new(text: impl Into<Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

ids! {
    /// An organisation. Nothing of one is visible to another.
    OrgId;
    /// Who asks, within an organisation: the API key and, when given, the user.
    Principal;
    /// A thread of messages.
    ThreadId;
    /// A message of a thread.
    MessageId;
    /// One generation of an answer; never reused.
    StreamId;
    /// A provider's name in the configuration and in requests.
    ProviderName;
}

/// Whose data an operator may see. What takes one shows nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum View {
    /// That of one organisation.
    Org(OrgId),
    /// That of all.
    Everything,
}

impl View {
    /// Whether it includes what belongs to `org`.
    pub fn shows(&self, org: &OrgId) -> bool {
        match self {
            View::Org(own) => own == org,
            View::Everything => true,
        }
    }
}

impl ThreadId {
    /// A new id, sortable by time.
    pub fn generate() -> Self {
        Self::new(generated("t_"))
    }
}

impl MessageId {
    /// A new id, sortable by time.
    pub fn generate() -> Self {
        Self::new(generated("m_"))
    }
}

impl StreamId {
    /// A new id, sortable by time.
    pub fn generate() -> Self {
        Self::new(generated("s_"))
    }
}

fn generated(prefix: &str) -> String {
    format!("{prefix}{}", uuid::Uuid::now_v7().simple())
}

/// A request of one organisation. Two organisations may use the same text; they never meet, because the organisation
/// is part of the identity.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestId {
    org: OrgId,
    id: Arc<str>,
}

impl RequestId {
    /// The longest id that a client may choose.
    pub const LEN_MAX: usize = 64;

    /// A new id of `org`.
    pub fn generate(org: OrgId) -> Self {
        Self { org, id: generated("r_").into() }
    }

    /// An id that a client chose: 1 to 64 of `[A-Za-z0-9_-]`, else `None`.
    pub fn parse(org: OrgId, text: &str) -> Option<Self> {
        let fits = (1..=Self::LEN_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        fits.then(|| Self { org, id: text.into() })
    }

    /// The organisation it belongs to.
    pub fn org(&self) -> &OrgId {
        &self.org
    }

    /// The text that the client knows.
    pub fn as_str(&self) -> &str {
        &self.id
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

/// How urgent a request is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Priority {
    /// A person waits for the answer.
    #[default]
    User,
    /// Nobody does: the call may be served after those that a person waits for.
    Background,
}

impl Priority {
    /// The priority of this name.
    pub fn find(name: &str) -> Option<Self> {
        match name {
            "user" => Some(Priority::User),
            "background" => Some(Priority::Background),
            _ => None,
        }
    }
}

/// On whose behalf a provider is called, and how urgently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    /// The organisation.
    pub org: OrgId,
    /// Who of it.
    pub principal: Principal,
    /// How urgently.
    pub priority: Priority,
}

/// Who speaks a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = Speaker)]
pub enum Role {
    /// The operator's instructions.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    /// The name in JSON and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }
}

/// A piece of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Part {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// An image.
    ImageUrl {
        /// Where it is.
        image_url: ImageUrl,
    },
}

/// An image's place: an `https:` or a `data:` URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageUrl {
    /// The URL.
    pub url: String,
    /// `low`, `high` or `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What a message says: plain text, or parts. Serializes as clients and OpenAI-shaped providers write it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// Text and images.
    Parts(Vec<Part>),
}

impl Content {
    /// The text, without the images.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        match self {
            Content::Text(text) => text.into(),
            Content::Parts(parts) => {
                let texts = parts.iter().filter_map(|part| match part {
                    Part::Text { text } => Some(text.as_str()),
                    Part::ImageUrl { .. } => None,
                });
                texts.collect::<Vec<_>>().join("\n").into()
            }
        }
    }
}

/// One message of a conversation as a provider gets it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: Content,
    /// The tools that an assistant message called.
    pub tool_calls: Vec<crate::event::ToolCall>,
    /// Which call a tool message answers.
    pub tool_call_id: Option<String>,
    /// Signatures of reasoning that the provider wants back, as it gave them.
    pub opaque: Vec<Value>,
    /// The whole message as a client has written it in the words of chat completions. Providers of that dialect get
    /// this; for the others it says nothing.
    pub as_written: Option<Value>,
}

impl ChatMessage {
    /// A message of text alone.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self {
            role,
            content: Content::Text(text.into()),
            tool_calls: Vec::new(),
            tool_call_id: None,
            opaque: Vec::new(),
            as_written: None,
        }
    }
}

/// The whole resolved request that goes to a provider.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChatRequest {
    /// The configured provider's name.
    pub provider: ProviderName,
    /// The model as the provider calls it.
    pub model: Arc<str>,
    /// The operator's instructions.
    pub system: Option<String>,
    /// The conversation, oldest first; the last one is the new message.
    pub messages: Vec<ChatMessage>,
    /// Sampling temperature, 0 to 2.
    pub temperature: Option<f64>,
    /// The longest answer, in tokens.
    pub max_tokens: Option<u32>,
    /// The client's tools, in OpenAI's shape.
    pub tools: Vec<Value>,
    /// Further fields of the client's body that travel as they are.
    pub extra: serde_json::Map<String, Value>,
}

/// Within which circle requests may share one upstream call. There is no key without it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// One principal of one organisation.
    Principal(OrgId, Principal),
    /// Everybody of one organisation.
    Org(OrgId),
}

/// What makes two requests equal: the circle that may share, and every byte that would go upstream.
///
/// Holds the canonical bytes beside their digest, so that equality never rests on the digest alone.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestKey {
    digest: [u8; 32],
    canonical: Arc<[u8]>,
}

impl RequestKey {
    /// Changes whenever the meaning of the canonical bytes does.
    const VERSION: &'static [u8] = b"weir-key-1";

    /// The key of `request` within `scope`. Every field is written with its length first, so that no two different
    /// requests have the same bytes.
    pub fn new(scope: &Scope, request: &ChatRequest) -> Self {
        let mut canonical = Vec::with_capacity(512);
        push_field(&mut canonical, Self::VERSION);
        match scope {
            Scope::Principal(org, principal) => {
                push_field(&mut canonical, b"principal");
                push_field(&mut canonical, org.as_str().as_bytes());
                push_field(&mut canonical, principal.as_str().as_bytes());
            }
            Scope::Org(org) => {
                push_field(&mut canonical, b"org");
                push_field(&mut canonical, org.as_str().as_bytes());
                push_field(&mut canonical, b"");
            }
        }
        let request = serde_json::to_vec(request).expect("requests have string keys and finite numbers");
        push_field(&mut canonical, &request);
        let digest = Sha256::digest(&canonical).into();
        Self { digest, canonical: canonical.into() }
    }

    /// A key that equals no other one: the request is never shared.
    pub fn unshared(stream: &StreamId) -> Self {
        let mut canonical = Vec::with_capacity(64);
        push_field(&mut canonical, Self::VERSION);
        push_field(&mut canonical, b"unshared");
        push_field(&mut canonical, stream.as_str().as_bytes());
        let digest = Sha256::digest(&canonical).into();
        Self { digest, canonical: canonical.into() }
    }

    /// SHA-256 of everything that makes the request: for what is remembered long after the request has gone.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

fn push_field(out: &mut Vec<u8>, field: &[u8]) {
    out.extend_from_slice(&(field.len() as u64).to_be_bytes());
    out.extend_from_slice(field);
}

impl std::hash::Hash for RequestKey {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.digest.hash(state);
    }
}

impl fmt::Debug for RequestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.digest;
        write!(f, "RequestKey({a:02x}{b:02x}{c:02x}{d:02x})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> ChatRequest {
        ChatRequest {
            provider: ProviderName::new("demo"),
            model: "m".into(),
            system: None,
            messages: vec![ChatMessage::text(Role::User, text)],
            temperature: None,
            max_tokens: None,
            tools: Vec::new(),
            extra: serde_json::Map::new(),
        }
    }

    fn scope(org: &str, principal: &str) -> Scope {
        Scope::Principal(OrgId::new(org), Principal::new(principal))
    }

    #[test]
    fn equal_requests_of_one_principal_have_one_key() {
        let first = RequestKey::new(&scope("a", "p"), &request("hi"));
        let second = RequestKey::new(&scope("a", "p"), &request("hi"));

        assert_eq!(first, second);
    }

    #[test]
    fn any_difference_separates_keys() {
        let mut requests = vec![request("hi"), request("ho")];
        requests.push(ChatRequest { temperature: Some(0.0), ..request("hi") });
        requests.push(ChatRequest { max_tokens: Some(1), ..request("hi") });
        requests.push(ChatRequest { system: Some(String::new()), ..request("hi") });
        requests.push(ChatRequest { model: "n".into(), ..request("hi") });
        requests.push(ChatRequest { provider: ProviderName::new("other"), ..request("hi") });
        requests.push(ChatRequest { tools: vec![Value::Null], ..request("hi") });
        let scopes = [scope("a", "p"), scope("a", "q"), scope("ap", ""), Scope::Org(OrgId::new("a"))];
        let mut seen = std::collections::HashSet::new();

        for scope in &scopes {
            for request in &requests {
                assert!(seen.insert(RequestKey::new(scope, request)), "{scope:?} {request:?}");
            }
        }
    }

    #[test]
    fn a_request_id_of_another_org_is_another_request() {
        let ours = RequestId::parse(OrgId::new("a"), "r-1").unwrap();
        let theirs = RequestId::parse(OrgId::new("b"), "r-1").unwrap();

        assert_ne!(ours, theirs);
    }

    #[test]
    fn request_ids_are_short_and_plain() {
        let org = OrgId::new("a");
        for bad in ["", "a b", "ä", "a/b", &"x".repeat(65)] {
            assert_eq!(RequestId::parse(org.clone(), bad), None, "{bad:?}");
        }
        assert!(RequestId::parse(org, &"x".repeat(64)).is_some());
    }
}
