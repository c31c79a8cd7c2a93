//! `GET /api/admin/feed`: what the dashboard shows, as an event each second: the performance report, the pacers, the
//! running streams.

use std::time::Duration;

use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, Responder};
use actix_web_lab::sse::{self, Sse};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Interval, MissedTickBehavior, interval};
use utoipa::ToSchema;

use super::Api;
use super::admin::{self, PacerRow};
use super::caller::Operator;
use super::error::{ApiError, ApiResult};
use crate::actors::coalescer::{self, StreamStatus};
use crate::chat::View;
use crate::failure::{Code, Failure};
use crate::metrics::Performance;

/// How often the feed says how things stand.
const INTERVAL: Duration = Duration::from_secs(1);
/// Feeds of this process at the same time: each costs a report a second.
const FEEDS_MAX: usize = 16;
/// Requests that a report covers.
const LAST_N: usize = 100;

static FEEDS: Semaphore = Semaphore::const_new(FEEDS_MAX);

/// How things stand.
#[derive(Serialize, ToSchema)]
pub(super) struct Report {
    r#type: &'static str,
    performance: Performance,
    pacers: Vec<PacerRow>,
    streams: Vec<StreamStatus>,
}

/// One listener.
struct Feed {
    api: Data<Api>,
    view: View,
    ticks: Interval,
    _place: SemaphorePermit<'static>,
}

pub(super) async fn feed(api: Data<Api>, operator: Operator, request: HttpRequest) -> ApiResult {
    let Ok(place) = FEEDS.try_acquire() else {
        let message = format!("there are {FEEDS_MAX} dashboards already");
        return Err(ApiError(Failure::new(Code::Overloaded, message).retry_after_ms(10_000)));
    };
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let feed = Feed { api, view: operator.view, ticks, _place: place };
    let mut response: HttpResponse = Sse::from_infallible_stream(stream::unfold(feed, next)).respond_to(&request);
    response.headers_mut().insert(super::sse::NO_BUFFERING.0, super::sse::NO_BUFFERING.1);
    Ok(response)
}

/// The next event; nothing more when the server is about to stop.
async fn next(mut feed: Feed) -> Option<(sse::Event, Feed)> {
    feed.ticks.tick().await;
    if feed.api.drain.has_begun() {
        return None;
    }
    let event = match report(&feed.api, &feed.view).await.ok().and_then(|report| sse::Data::new_json(report).ok()) {
        Some(data) => data.event("report").into(),
        // A part of the server is being restarted: the next second may know more.
        None => sse::Event::Comment("nothing is known".into()),
    };
    Some((event, feed))
}

async fn report(api: &Api, view: &View) -> ApiResult<Report> {
    Ok(Report {
        r#type: "report",
        performance: api.metrics.performance(view, LAST_N),
        pacers: admin::pacer_rows(api).await?,
        streams: api.coalescer.ask(coalescer::Snapshot(view.clone())).await?,
    })
}
