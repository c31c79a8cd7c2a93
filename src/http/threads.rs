//! `/api/threads`: made, listed, read, changed, deleted.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::{Data, Path, Query};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Api;
use super::caller::Caller;
use super::cancel::withdraw_turn;
use super::error::{ApiError, ApiResult};
use super::fields::Fields;
use super::rendering::{self, Render, Shown};
use crate::actors::coalescer::{FindTurn, Forget};
use crate::chat::ThreadId;
use crate::failure::Code;
use crate::store::{Cursor, NewThread, Thread, UnixMs};

/// Messages in one page of a thread.
pub(super) const MESSAGES_MAX: usize = 1_000;
/// Threads in a page of the list when the client does not say.
pub(super) const PAGE_DEFAULT: usize = 50;
/// How long a deletion waits for the running answer's end.
const STOP_WAIT_MAX: Duration = Duration::from_secs(5);

/// Which part of a list is wanted.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    limit: Option<String>,
    before: Option<String>,
    /// Of a thread's messages.
    render: Option<Render>,
}

impl Page {
    fn limit(&self, default: usize, max: usize) -> ApiResult<usize> {
        let Some(text) = &self.limit else { return Ok(default.min(max)) };
        let limit = text.parse().ok().filter(|limit| (1..=max).contains(limit));
        limit.ok_or_else(|| ApiError::field("limit", format!("limit must be a whole number between 1 and {max}")))
    }
}

/// A thread that has just been made. `thread_id` and `id` are the same.
#[derive(Serialize, ToSchema)]
pub(super) struct NewlyMade {
    thread_id: ThreadId,
    id: ThreadId,
    title: String,
    #[schema(value_type = i64)]
    created_at: UnixMs,
}

/// A thread with its messages.
#[derive(Serialize, ToSchema)]
pub(super) struct WholeThread {
    #[serde(flatten)]
    thread: Thread,
    #[schema(required)]
    active_request_id: Option<String>,
    messages: Vec<Shown>,
}

pub(super) async fn create(api: Data<Api>, caller: Caller, mut fields: Fields) -> ApiResult {
    let limits = &api.config().limits;
    let title = fields.short_text("title", limits.title_chars_max)?.unwrap_or_default();
    let description = fields.short_text("description", limits.description_chars_max)?;
    let user_id = fields.short_text("user_id", limits.user_id_chars_max)?;
    fields.finish()?;
    let new = NewThread { org: caller.org, title, description, user_id };
    let Thread { id, title, created_at, .. } = api.store.create_thread(new).await?;
    let location = ("location", format!("/api/threads/{id}"));
    let made = NewlyMade { thread_id: id.clone(), id, title, created_at };
    Ok(HttpResponse::Created().insert_header(location).json(made))
}

pub(super) async fn list(api: Data<Api>, caller: Caller, page: Query<Page>) -> ApiResult {
    let limit = page.limit(PAGE_DEFAULT, api.config().limits.page_max)?;
    let before = page.before.as_deref().map(str::parse::<Cursor>).transpose();
    let before = before.map_err(|_| ApiError::field("before", "before is not a cursor from X-Next-Cursor"))?;
    let (threads, next) = api.store.list_threads(&caller.org, limit, before).await?;
    let mut response = HttpResponse::Ok();
    if let Some(next) = next {
        response.insert_header(("x-next-cursor", next.to_string()));
    }
    Ok(response.json(threads))
}

pub(super) async fn read(api: Data<Api>, caller: Caller, thread: Path<String>, page: Query<Page>) -> ApiResult {
    let limit = page.limit(MESSAGES_MAX, MESSAGES_MAX)?;
    let before = page.before.as_deref().map(str::parse::<i64>).transpose();
    let before = before.map_err(|_| ApiError::field("before", "before is not a cursor from X-Next-Cursor"))?;
    let id = ThreadId::new(thread.into_inner());
    // First the answer that runs, then the messages: the other way round, one that has begun in between would be named
    // without its messages. One that is only being opened may still be.
    let running = api.coalescer.ask(FindTurn { org: caller.org.clone(), thread: id.clone() }).await?;
    let active_request_id = running.map(|found| found.0.facts.request.to_string());
    let Some((thread, messages)) = api.store.thread(&caller.org, &id, limit, before).await? else {
        return Err(not_found());
    };
    let mut response = HttpResponse::Ok();
    if let Some(first) = messages.first().filter(|first| messages.len() == limit && first.sequence > 0) {
        response.insert_header(("x-next-cursor", first.sequence.to_string()));
    }
    let messages = rendering::shown(&api.renderings, messages, page.render).await?;
    Ok(response.json(WholeThread { thread, active_request_id, messages }))
}

pub(super) async fn change(api: Data<Api>, caller: Caller, thread: Path<String>, mut fields: Fields) -> ApiResult {
    let title = fields.short_text("title", api.config().limits.title_chars_max)?;
    let pinned = fields.flag("pinned")?;
    fields.finish()?;
    let id = ThreadId::new(thread.into_inner());
    Ok(HttpResponse::Ok().json(api.store.patch_thread(&caller.org, &id, title, pinned).await?))
}

pub(super) async fn remove(api: Data<Api>, caller: Caller, thread: Path<String>) -> ApiResult {
    let id = ThreadId::new(thread.into_inner());
    let turn = FindTurn { org: caller.org.clone(), thread: id.clone() };
    if let Some(found) = api.coalescer.ask(turn).await? {
        withdraw_turn(&api, id.clone()).await?;
        // Its last write comes before the deletion, if it comes in time; afterwards it finds nothing to change.
        let _ = tokio::time::timeout(STOP_WAIT_MAX, found.0.ended()).await;
    }
    api.store.delete_thread(&caller.org, &id).await?;
    // What is deleted is not found in memory either.
    api.coalescer.ask(Forget { thread: id }).await?;
    Ok(HttpResponse::NoContent().finish())
}

fn not_found() -> ApiError {
    ApiError::new(Code::ThreadNotFound, "no such thread")
}
