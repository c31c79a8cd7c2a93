//! `POST /v1/chat/completions`: one answer, whole or in chunks.

use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::web::Data;

use super::body::EventBody;
use super::chunks::Chunks;
use super::listening::Listening;
use super::{completion, joining, request};
use crate::http::caller::Caller;
use crate::http::error::ApiResult;
use crate::http::fields::Fields;
use crate::http::timing::Timing;
use crate::http::{Api, edge, streams};

pub(in crate::http) async fn complete(
    api: Data<Api>,
    caller: Caller,
    request: HttpRequest,
    fields: Fields,
) -> ApiResult {
    let asked = request::read(&api, &caller, &request, fields)?;
    let attachment = joining::join(&api, &caller, &asked).await?;
    edge::name(&request, attachment.subscription().facts.request.as_str());
    let mut listening = Listening::new(attachment);
    if !asked.is_streamed {
        let completion = completion::whole(&mut listening, asked.wants_logprobs).await;
        Timing::of_answer(listening.subscription()).note(&request);
        return completion;
    }
    let hold = Duration::from_millis(api.config().server.openai_hold_ms);
    let began = listening.begin(hold).await?;
    let chunks = Chunks::new(listening.subscription(), asked.wants_usage);
    Ok(EventBody::new(listening, chunks, streams::pings(&api), began).into_response())
}
