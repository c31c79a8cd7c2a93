//! Failure: everything that can go wrong for a request, in the words of the public contract.
//!
//! One table gives each code its HTTP status, its OpenAI-compatible type and whether a retry can help. The same
//! value travels as the body of an HTTP error and as the `error` of a stream's `done`.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

/// Declares the codes and their facts in one place, so that no code can be without them.
macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $status:literal, $kind:ident, $retry:literal;)*) => {
        /// The closed set of failures that a client can be told.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $code)] $name,)*
        }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Code] = &[$(Code::$name),*];

            /// The name that clients see.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $code),* }
            }

            /// The code of this name.
            pub fn find(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|code| code.as_str() == name)
            }

            /// The HTTP status when the failure is known before the response has begun.
            pub fn status(self) -> u16 {
                match self { $(Code::$name => $status),* }
            }

            /// The coarse type that OpenAI clients switch on.
            pub fn kind(self) -> Kind {
                match self { $(Code::$name => Kind::$kind),* }
            }

            /// Whether the same request may succeed later.
            pub fn retryable(self) -> bool {
                match self { $(Code::$name => $retry),* }
            }
        }
    };
}

codes! {
    /// The body is not JSON.
    InvalidJson = "invalid_json", 400, InvalidRequest, false;
    /// A field is missing, unknown, or has the wrong type or value.
    InvalidRequest = "invalid_request", 400, InvalidRequest, false;
    /// A field is well-formed but cannot be honoured.
    Unprocessable = "unprocessable", 422, InvalidRequest, false;
    /// The content or the body exceeds its limit.
    TooLarge = "too_large", 413, InvalidRequest, false;
    /// The request target exceeds its limit.
    UriTooLong = "uri_too_long", 414, InvalidRequest, false;
    /// The request's headers exceed their limit.
    HeadersTooLarge = "headers_too_large", 431, InvalidRequest, false;
    /// The body has a media type or an encoding that is not accepted.
    UnsupportedMedia = "unsupported_media_type", 415, InvalidRequest, false;
    /// The body did not arrive in time.
    RequestTimeout = "request_timeout", 408, InvalidRequest, true;
    /// No credentials, or unknown ones.
    Unauthorized = "unauthorized", 401, Authentication, false;
    /// The credentials do not allow this.
    Forbidden = "forbidden", 403, Permission, false;
    /// No such path, or a thing that belongs to somebody else.
    NotFound = "not_found", 404, NotFound, false;
    /// The path exists, the method does not.
    MethodNotAllowed = "method_not_allowed", 405, InvalidRequest, false;
    /// No such thread, or another organisation's.
    ThreadNotFound = "thread_not_found", 404, NotFound, false;
    /// No such request, or another organisation's.
    RequestNotFound = "request_not_found", 404, NotFound, false;
    /// No provider of this name is configured.
    UnknownProvider = "unknown_provider", 400, InvalidRequest, false;
    /// The provider does not list this model.
    UnknownModel = "unknown_model", 400, InvalidRequest, false;
    /// On `/v1`: no provider lists this model, or several do.
    ModelNotFound = "model_not_found", 404, InvalidRequest, false;
    /// The provider has no key, so it cannot be called.
    ProviderUnavailable = "provider_unavailable", 503, Server, false;
    /// Another turn runs in this thread.
    TurnInProgress = "turn_in_progress", 409, Conflict, true;
    /// The request id names another request.
    RequestIdInUse = "request_id_in_use", 409, Conflict, false;
    /// The idempotency key came with another body.
    IdempotencyConflict = "idempotency_conflict", 409, Conflict, false;
    /// The provider's queue is full.
    ProviderBusy = "provider_busy", 429, RateLimit, true;
    /// The request waited for its turn as long as it may.
    QueueTimeout = "queue_timeout", 503, Server, true;
    /// The provider fails so often that it is left alone for a while.
    BreakerOpen = "breaker_open", 503, Server, true;
    /// The key's own limit is reached.
    RateLimited = "rate_limited", 429, RateLimit, true;
    /// The server is about to stop.
    Draining = "draining", 503, Server, true;
    /// A table of the server is full.
    Overloaded = "overloaded", 503, Server, true;
    /// The store cannot keep the message.
    Storage = "storage", 503, Server, true;
    /// A defect of the server.
    Internal = "internal", 500, Server, true;
    /// The answer was cut short by the server's end.
    Interrupted = "interrupted", 503, Server, true;
    /// On `/v1`: the request was withdrawn by a cancel. Threads have a status for it.
    Cancelled = "cancelled", 499, InvalidRequest, false;
    /// No connection to the provider.
    UpstreamConnect = "upstream_connect", 502, Upstream, true;
    /// The provider's name does not resolve.
    UpstreamDns = "upstream_dns", 502, Upstream, true;
    /// The provider's certificate or handshake failed.
    UpstreamTls = "upstream_tls", 502, Upstream, false;
    /// The provider did not answer in time.
    UpstreamTimeout = "upstream_timeout", 504, Upstream, true;
    /// The provider fell silent in the middle of an answer.
    UpstreamStalled = "upstream_stalled", 504, Upstream, true;
    /// The answer ended without the provider's own terminator.
    UpstreamTruncated = "upstream_truncated", 502, Upstream, true;
    /// The provider sent what its protocol does not allow.
    UpstreamProtocol = "upstream_protocol", 502, Upstream, true;
    /// The provider answered with a redirect, which is never followed.
    UpstreamRedirect = "upstream_redirect", 502, Upstream, false;
    /// The provider refused the server's key.
    UpstreamAuth = "upstream_auth", 502, Upstream, false;
    /// The provider's rate limit.
    UpstreamRateLimit = "upstream_rate_limit", 429, RateLimit, true;
    /// The provider's account is exhausted; waiting does not help.
    UpstreamQuota = "upstream_quota", 429, Quota, false;
    /// The provider is overloaded.
    UpstreamOverloaded = "upstream_overloaded", 503, Upstream, true;
    /// The provider failed.
    UpstreamError = "upstream_error", 502, Upstream, true;
    /// The provider refused the request as it is.
    UpstreamRejected = "upstream_rejected", 400, InvalidRequest, false;
    /// The provider does not know the model.
    UpstreamModel = "upstream_model_not_found", 404, NotFound, false;
    /// The conversation is longer than the model's window.
    ContextLength = "context_length_exceeded", 400, InvalidRequest, false;
    /// The provider's policy refused the request.
    ContentFilter = "content_filter", 400, InvalidRequest, false;
    /// The answer exceeds the limit for one answer.
    ResponseTooLarge = "response_too_large", 502, Upstream, false;
}

// Derived, it would have the names of the variants: macros hide their literals from each other.
impl PartialSchema for Code {
    fn schema() -> RefOr<Schema> {
        let names = Code::ALL.iter().map(|code| code.as_str());
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(names)).into()
    }
}

impl ToSchema for Code {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("ErrorCode")
    }
}

/// The coarse types of failures, named as OpenAI clients know them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ErrorType)]
pub enum Kind {
    /// The client must change the request.
    #[serde(rename = "invalid_request_error")]
    InvalidRequest,
    /// The client must authenticate.
    #[serde(rename = "authentication_error")]
    Authentication,
    /// The client may not do this.
    #[serde(rename = "permission_error")]
    Permission,
    /// What the client names does not exist.
    #[serde(rename = "not_found_error")]
    NotFound,
    /// The client's request contradicts another one.
    #[serde(rename = "conflict_error")]
    Conflict,
    /// Too many requests at once.
    #[serde(rename = "rate_limit_error")]
    RateLimit,
    /// Nothing left to spend.
    #[serde(rename = "insufficient_quota")]
    Quota,
    /// The server's own trouble.
    #[serde(rename = "server_error")]
    Server,
    /// The provider's trouble.
    #[serde(rename = "upstream_error")]
    Upstream,
}

/// How far a request had come when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ErrorPhase)]
pub enum Phase {
    /// Waiting for the pacer.
    Queue,
    /// Connecting to the provider.
    Connect,
    /// Sent, waiting for the response's head.
    Headers,
    /// The response has begun, no content yet.
    PreToken,
    /// Content has been delivered.
    MidStream,
}

/// One failure with what is known about it. The message is ours: it never quotes a provider, a prompt or a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub code: Code,
    /// What went wrong, for a person.
    pub message: Cow<'static, str>,
    /// The request field that is to blame.
    pub param: Option<Cow<'static, str>>,
    /// When a retry is worth while, milliseconds from now.
    pub retry_after_ms: Option<u64>,
    /// The configured provider's name.
    pub provider: Option<Box<str>>,
    /// How far the request had come.
    pub phase: Option<Phase>,
    /// The provider's own id of the failed call.
    pub upstream_request_id: Option<Box<str>>,
    /// The request that stands in the way (409): named in place of the failed one.
    pub conflicting_request_id: Option<Box<str>>,
}

impl Failure {
    /// A failure with its message and nothing else known.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            param: None,
            retry_after_ms: None,
            provider: None,
            phase: None,
            upstream_request_id: None,
            conflicting_request_id: None,
        }
    }

    /// Names the request field that is to blame.
    #[must_use]
    pub fn param(mut self, param: impl Into<Cow<'static, str>>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// Says when a retry is worth while.
    #[must_use]
    pub fn retry_after_ms(mut self, retry_after_ms: u64) -> Self {
        self.retry_after_ms = Some(retry_after_ms);
        self
    }

    /// Names the request that stands in the way.
    #[must_use]
    pub fn conflicting(mut self, request_id: &str) -> Self {
        self.conflicting_request_id = Some(request_id.into());
        self
    }

    /// Another turn of the thread runs, whose first request is named if one is left.
    pub fn turn_in_progress(first_request_id: Option<&str>) -> Self {
        let failure = Self::new(Code::TurnInProgress, "another message of this thread is being answered");
        Self { conflicting_request_id: first_request_id.map(Into::into), ..failure }
    }

    /// Says how far the request had come.
    #[must_use]
    pub fn phase(mut self, phase: Phase) -> Self {
        self.phase = Some(phase);
        self
    }

    /// The failure that such an object tells of, as far as it can be read.
    pub fn of_body(body: &Value) -> Option<Self> {
        let Told { code, message, param, retry_after_ms, provider, phase, upstream_request_id } =
            Told::deserialize(body).ok()?;
        Some(Self {
            param: param.map(Cow::Owned),
            retry_after_ms,
            provider,
            phase,
            upstream_request_id,
            ..Self::new(code, message)
        })
    }

    /// The JSON object under `error`, the same in HTTP bodies and in `done` events.
    pub fn body<'a>(&'a self, request_id: Option<&'a str>) -> FailureBody<'a> {
        FailureBody {
            code: self.code,
            kind: self.code.kind(),
            message: &self.message,
            param: self.param.as_deref(),
            retryable: self.code.retryable(),
            retry_after_ms: self.retry_after_ms,
            request_id: self.conflicting_request_id.as_deref().or(request_id),
            provider: self.provider.as_deref(),
            phase: self.phase,
            upstream_request_id: self.upstream_request_id.as_deref(),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.message)
    }
}

impl std::error::Error for Failure {}

/// What a [`FailureBody`] says that cannot be told by its code.
#[derive(Deserialize)]
struct Told {
    code: Code,
    message: String,
    #[serde(default)]
    param: Option<String>,
    #[serde(default)]
    retry_after_ms: Option<u64>,
    #[serde(default)]
    provider: Option<Box<str>>,
    #[serde(default)]
    phase: Option<Phase>,
    #[serde(default)]
    upstream_request_id: Option<Box<str>>,
}

/// A failure as clients read it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ErrorFacts)]
pub struct FailureBody<'a> {
    code: Code,
    #[serde(rename = "type")]
    kind: Kind,
    message: &'a str,
    #[schema(required)]
    param: Option<&'a str>,
    retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    phase: Option<Phase>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_request_id: Option<&'a str>,
}
