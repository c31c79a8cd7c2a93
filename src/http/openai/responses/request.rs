//! Request: the body of a call, read, checked and put into the words that providers' adapters know.

use actix_web::HttpRequest;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::input;
use crate::chat::ChatRequest;
use crate::http::Api;
use crate::http::caller::Caller;
use crate::http::error::{ApiError, ApiResult};
use crate::http::fields::Fields;
use crate::http::messages::{self, MAX_TOKENS_MAX, Named, TEMPERATURE};
use crate::http::openai::request::{Asked, may_share, tools};

/// What would need something that is kept from an earlier call, or from outside of any.
const STATEFUL: [&str; 3] = ["previous_response_id", "conversation", "prompt"];
/// What changes nothing that a provider of another dialect could know.
const DROPPED: [&str; 4] = ["include", "max_tool_calls", "top_logprobs", "truncation"];
/// What a response repeats of its request, and what it says where the request says nothing.
const ECHOED: [(&str, &str); 7] = [
    ("metadata", "{}"),
    ("parallel_tool_calls", "true"),
    ("reasoning", r#"{"effort":null,"summary":null}"#),
    ("text", r#"{"format":{"type":"text"}}"#),
    ("tool_choice", r#""auto""#),
    ("top_p", "null"),
    ("truncation", r#""disabled""#),
];

/// Reads the body of a call; gives also what its response repeats of it.
pub(super) fn read(
    api: &Api,
    caller: &Caller,
    request: &HttpRequest,
    mut fields: Fields,
) -> ApiResult<(Asked, Map<String, Value>)> {
    let arrived = Instant::now();
    let body_digest = fields.digest("response", "request_id");
    let Named { request: id, has_own_id } = messages::name(caller, request, &mut fields)?;
    let config = api.config();
    let limits = &config.limits;
    for name in STATEFUL {
        if fields.take(name).is_some() {
            return Err(ApiError::field(name, "nothing is kept between calls: send the whole conversation as input"));
        }
    }
    if fields.flag("background")? == Some(true) {
        return Err(ApiError::field("background", "nothing is kept between calls: listen while it is answered"));
    }
    let model = fields.text("model")?.ok_or_else(|| ApiError::field("model", "model is missing"))?;
    let (provider, model) = config.resolve_name(&model)?;
    let messages = input::read(fields.take("input"), limits)?;
    let own_tools = fields.list("tools")?;
    let tools = tools(own_tools.iter().map(as_chat_tool).collect(), provider, limits.tools_max)?;
    let system = fields.text("instructions")?;
    let temperature = fields.number("temperature", TEMPERATURE.0, TEMPERATURE.1)?;
    let max_tokens = fields.whole("max_output_tokens", 1, MAX_TOKENS_MAX)?;
    let is_streamed = fields.flag("stream")?.unwrap_or(false);
    let (priority, wants_to_share) = messages::urgency(request, &mut fields)?;
    // Nothing is kept, whatever it says; and there is nothing to obfuscate.
    fields.flag("store")?;
    fields.take("stream_options");
    let extra = fields.rest();
    let mut echo = echo(&extra);
    echo.insert("instructions".to_owned(), json!(system));
    echo.insert("tools".to_owned(), Value::Array(own_tools));
    echo.insert("temperature".to_owned(), json!(temperature));
    echo.insert("max_output_tokens".to_owned(), json!(max_tokens));
    let chat = ChatRequest {
        provider: provider.name.clone(),
        model,
        system,
        messages,
        temperature,
        max_tokens: max_tokens.and_then(|tokens| u32::try_from(tokens).ok()),
        tools,
        extra: if provider.dialect.is_responses() { extra } else { as_chat(extra) },
    };
    let asked = Asked {
        request: id,
        has_own_id,
        user: chat.extra.get("user").and_then(Value::as_str).map(str::to_owned),
        priority,
        may_share: wants_to_share && may_share(api, &chat, is_streamed),
        is_streamed,
        wants_usage: true,
        wants_logprobs: false,
        body_digest,
        arrived,
        chat,
    };
    Ok((asked, echo))
}

fn echo(extra: &Map<String, Value>) -> Map<String, Value> {
    let default = |text: &str| serde_json::from_str(text).expect("the defaults are JSON");
    let given = |name: &str| extra.get(name).filter(|value| !value.is_null()).cloned();
    ECHOED.iter().map(|(name, text)| ((*name).to_owned(), given(name).unwrap_or_else(|| default(text)))).collect()
}

/// `{"type": "function", "name": …}` as chat completions write it; other tools as they are.
fn as_chat_tool(tool: &Value) -> Value {
    let Some(function) = tool.as_object().filter(|tool| tool.get("type").is_some_and(|kind| kind == "function")) else {
        return tool.clone();
    };
    if function.contains_key("function") {
        return tool.clone();
    }
    let function: Map<_, _> = function.clone().into_iter().filter(|(name, _)| name != "type").collect();
    json!({ "type": "function", "function": function })
}

/// The fields that weir does not read itself, in the words of chat completions, which every adapter knows.
fn as_chat(extra: Map<String, Value>) -> Map<String, Value> {
    let mut chat = Map::new();
    for (name, value) in extra {
        let mut put = |name: &str, value: Option<&Value>| {
            if let Some(value) = value.filter(|value| !value.is_null()) {
                chat.insert(name.to_owned(), value.clone());
            }
        };
        match &*name {
            dropped if DROPPED.contains(&dropped) => {}
            "reasoning" => put("reasoning_effort", value.get("effort")),
            "text" => {
                put("verbosity", value.get("verbosity"));
                put("response_format", value.get("format").and_then(response_format).as_ref());
            }
            "tool_choice" => put("tool_choice", Some(&as_chat_tool(&value))),
            name => put(name, Some(&value)),
        }
    }
    chat
}

/// How the text is to be formed; plain text needs no word.
fn response_format(format: &Value) -> Option<Value> {
    match format.get("type")?.as_str()? {
        "text" => None,
        "json_schema" => {
            let schema: Map<_, _> =
                format.as_object()?.clone().into_iter().filter(|(name, _)| name != "type").collect();
            Some(json!({ "type": "json_schema", "json_schema": schema }))
        }
        _ => Some(format.clone()),
    }
}
