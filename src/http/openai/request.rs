//! Request: the body of a call, read, checked and resolved.

use actix_web::HttpRequest;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::conversation;
use crate::chat::{ChatRequest, Priority, RequestId};
use crate::config::{OpenaiSharing, Provider};
use crate::failure::{Code, Failure};
use crate::http::Api;
use crate::http::caller::Caller;
use crate::http::error::{ApiError, ApiResult};
use crate::http::fields::{Fields, wrong_type};
use crate::http::messages::{self, MAX_TOKENS_MAX, Named, TEMPERATURE};

/// What a client asks for.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) request: RequestId,
    /// Whether the client chose the id.
    pub(super) has_own_id: bool,
    /// What goes upstream.
    pub(super) chat: ChatRequest,
    /// On whose behalf.
    pub(super) user: Option<String>,
    pub(super) may_share: bool,
    pub(super) priority: Priority,
    pub(super) is_streamed: bool,
    /// Whether a stream is to end with what the answer has cost.
    pub(super) wants_usage: bool,
    pub(super) wants_logprobs: bool,
    /// Tells a repetition from another request.
    pub(super) body_digest: [u8; 32],
    pub(super) arrived: Instant,
}

/// Reads the body of a chat completion. What is not read here travels as the client wrote it; the provider's adapter
/// knows what its dialect takes.
pub(super) fn read(api: &Api, caller: &Caller, request: &HttpRequest, mut fields: Fields) -> ApiResult<Asked> {
    let arrived = Instant::now();
    let body_digest = fields.digest("chat completion", "request_id");
    let Named { request: id, has_own_id } = messages::name(caller, request, &mut fields)?;
    let config = api.config();
    let limits = &config.limits;
    let model = fields.text("model")?.ok_or_else(|| ApiError::field("model", "model is missing"))?;
    let (provider, model) = config.resolve_name(&model)?;
    let messages = conversation::read(fields.list("messages")?, provider, limits)?;
    let tools = tools(fields.list("tools")?, provider, limits.tools_max)?;
    let temperature = fields.number("temperature", TEMPERATURE.0, TEMPERATURE.1)?;
    let is_streamed = fields.flag("stream")?.unwrap_or(false);
    let (priority, wants_to_share) = messages::urgency(request, &mut fields)?;
    let limit = fields.whole("max_tokens", 1, MAX_TOKENS_MAX)?;
    let completion_limit = fields.whole("max_completion_tokens", 1, MAX_TOKENS_MAX)?;
    let mut extra = fields.rest();
    // A limit goes out under the name that the client has chosen.
    for (name, limit) in [("max_tokens", limit), ("max_completion_tokens", completion_limit)] {
        if let Some(limit) = limit {
            extra.insert(name.to_owned(), limit.into());
        }
    }
    let wants_usage = take_include_usage(&mut extra)?;
    refuse_what_cannot_be(&extra, provider)?;
    let max_tokens = completion_limit.or(limit).and_then(|tokens| u32::try_from(tokens).ok());
    let provider = provider.name.clone();
    let chat = ChatRequest { provider, model, system: None, messages, temperature, max_tokens, tools, extra };
    Ok(Asked {
        request: id,
        has_own_id,
        user: chat.extra.get("user").and_then(Value::as_str).map(str::to_owned),
        priority,
        may_share: wants_to_share && may_share(api, &chat, is_streamed),
        is_streamed,
        wants_usage,
        wants_logprobs: chat.extra.get("logprobs") == Some(&Value::Bool(true)),
        body_digest,
        arrived,
        chat,
    })
}

/// The client's tools, checked, in OpenAI's shape.
pub(super) fn tools(tools: Vec<Value>, provider: &Provider, tools_max: usize) -> ApiResult<Vec<Value>> {
    if tools.len() > tools_max {
        return Err(ApiError::field("tools", format!("there may be at most {tools_max} tools")));
    }
    let dialect = provider.dialect;
    let takes_others = dialect.is_chat_completions() || dialect.is_responses();
    for (at, tool) in tools.iter().enumerate() {
        let name = tool.get("function").and_then(|function| function.get("name")).and_then(Value::as_str);
        match tool.get("type").and_then(Value::as_str) {
            Some("function") if name.is_some_and(|name| !name.is_empty()) => {}
            Some(other) if other != "function" && takes_others => {}
            Some(other) if other != "function" => {
                let message = format!("{} takes functions only", provider.name);
                return Err(unprocessable(format!("tools[{at}].type"), message));
            }
            _ => {
                let message = r#"a tool is {"type": "function", "function": {"name": …}}"#;
                return Err(ApiError::field(format!("tools[{at}]"), message));
            }
        }
    }
    Ok(tools)
}

/// Usage is asked for in any case; whether the client hears of it is no matter of the provider's.
fn take_include_usage(extra: &mut Map<String, Value>) -> ApiResult<bool> {
    let Some(options) = extra.remove("stream_options").filter(|options| !options.is_null()) else { return Ok(false) };
    let Value::Object(mut options) = options else {
        return Err(wrong_type("stream_options", "an object", &options));
    };
    let wants_usage = match options.remove("include_usage") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(wants)) => wants,
        Some(other) => return Err(wrong_type("stream_options.include_usage", "true or false", &other)),
    };
    if !options.is_empty() {
        extra.insert("stream_options".to_owned(), Value::Object(options));
    }
    Ok(wants_usage)
}

/// Refuses what would come back incomplete, or not at all.
fn refuse_what_cannot_be(extra: &Map<String, Value>, provider: &Provider) -> ApiResult<()> {
    let given = |name: &str| extra.get(name).filter(|value| !value.is_null());
    if given("n").is_some_and(|n| *n != 1) {
        return Err(unprocessable("n", "there is one answer to a request; send n: 1, and as many requests"));
    }
    let speaks = |modalities: &Value| modalities.as_array().is_some_and(|all| all.iter().any(|one| one == "audio"));
    if given("audio").is_some() || given("modalities").is_some_and(speaks) {
        return Err(unprocessable("modalities", "answers are text; audio cannot be asked for"));
    }
    if given("functions").is_some() && !provider.dialect.is_chat_completions() {
        return Err(unprocessable("functions", format!("{} takes tools; functions are older", provider.name)));
    }
    Ok(())
}

/// A field that is well-formed and still cannot be honoured.
pub(super) fn unprocessable(
    param: impl Into<std::borrow::Cow<'static, str>>,
    message: impl Into<std::borrow::Cow<'static, str>>,
) -> ApiError {
    ApiError(Failure::new(Code::Unprocessable, message).param(param))
}

/// Whether the answer may serve others who ask the same: clients of this API do not expect that two samples are one,
/// so by default only where they would be equal anyway.
pub(super) fn may_share(api: &Api, chat: &ChatRequest, is_streamed: bool) -> bool {
    let config = api.config();
    let given = |name: &str| chat.extra.get(name).is_some_and(|value| !value.is_null());
    let is_allowed = match config.coalesce.openai_api {
        OpenaiSharing::Always => true,
        OpenaiSharing::Never => false,
        OpenaiSharing::Deterministic => chat.temperature == Some(0.0) || given("seed"),
    };
    let has_effects = !chat.tools.is_empty() || given("functions") || chat.extra.get("store") == Some(&true.into());
    config.coalesce.enabled && is_allowed && !has_effects && (!is_streamed || config.stream.fanout_enabled)
}
