//! `POST /v1/responses`: OpenAI's newer API, on the same streams. Stateless: the client sends the whole conversation.
//!
//! | file | what it does |
//! |---|---|
//! | `request.rs`, `input.rs` | a body, read and resolved |
//! | `object.rs` | an answer whole, and the items that it is made of |
//! | `events.rs` | an answer as a stream of events |

mod events;
mod input;
mod object;
mod request;

use std::time::Duration;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse};

use self::events::Events;
use self::object::Object;
use super::body::EventBody;
use super::listening::Listening;
use super::{failure_of, joining};
use crate::http::caller::Caller;
use crate::http::error::ApiResult;
use crate::http::fields::Fields;
use crate::http::timing::Timing;
use crate::http::{Api, edge, streams};

pub(in crate::http) async fn create(api: Data<Api>, caller: Caller, request: HttpRequest, fields: Fields) -> ApiResult {
    let (asked, echo) = request::read(&api, &caller, &request, fields)?;
    let attachment = joining::join(&api, &caller, &asked).await?;
    edge::name(&request, attachment.subscription().facts.request.as_str());
    let mut listening = Listening::new(attachment);
    let object = Object::new(listening.subscription(), echo);
    if !asked.is_streamed {
        let subscription = listening.subscription();
        let outcome = &listening.ended().await.outcome;
        Timing::of_answer(subscription).note(&request);
        return match failure_of(outcome) {
            Some(failure) => Err(failure.into()),
            None => Ok(HttpResponse::Ok().json(object.whole(subscription, outcome))),
        };
    }
    let hold = Duration::from_millis(api.config().server.openai_hold_ms);
    let began = listening.begin(hold).await?;
    Ok(EventBody::new(listening, Events::new(object), streams::pings(&api), began).into_response())
}
