//! Changes: the newest ones, and as they come.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use futures::{Stream, StreamExt as _};
use plumbline_sdk::plugin::StoredEvent;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::App;
use crate::api::problem::Problem;
use crate::clock;

/// Events that one step of a stream reads from history.
const STEP: u32 = 500;
const HEARTBEAT: Duration = Duration::from_secs(10);

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// At most so many; 100 if not said.
    #[param(minimum = 1, maximum = 10_000)]
    limit: Option<u32>,
    /// Only events with an id below this: the next page.
    before: Option<u64>,
}

/// A change as users see it: no cell value, the key only as a hash.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventView {
    id: u64,
    /// `schema.table`.
    table: String,
    /// `read`, `insert`, `update`, `delete`, `truncate`.
    operation: &'static str,
    /// When it was committed on the source.
    timestamp: String,
    /// The transaction.
    position: String,
    /// Its place in the transaction.
    ordinal: u64,
    /// 32 hex digits, the same at every delivery.
    trace_id: String,
    /// 16 hex digits; empty where there is no key.
    key_hash: String,
}

impl From<&StoredEvent> for EventView {
    fn from(event: &StoredEvent) -> Self {
        Self {
            id: event.id,
            table: event.table.clone(),
            operation: event.operation.as_str(),
            timestamp: clock::text(event.commit_micros),
            position: event.position.clone(),
            ordinal: event.ordinal,
            trace_id: event.trace_id.clone(),
            key_hash: event.key_hash.clone(),
        }
    }
}

/// A page of changes, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventPage {
    events: Vec<EventView>,
    timestamp: String,
}

/// The newest changes, newest first.
#[utoipa::path(get, path = "/api/v1/events", tag = "events", params(EventsQuery),
    responses((status = 200, body = EventPage), (status = 400, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
pub async fn list(State(app): State<App>, query: Result<Query<EventsQuery>, QueryRejection>) -> Result<Json<EventPage>, Problem> {
    let Query(query) = query?;
    let limit = query.limit.unwrap_or(100);
    if !(1..=10_000).contains(&limit) {
        return Err(Problem::unprocessable(format!("`limit` is {limit}; 1 to 10000 would have been accepted")));
    }
    if query.before.is_some_and(|before| i64::try_from(before).is_err()) {
        return Err(Problem::unprocessable("`before` is no id that this agent gave"));
    }
    let events = app.shared.history.events(limit, query.before).await?;
    Ok(Json(EventPage { events: events.iter().map(Into::into).collect(), timestamp: clock::text(clock::now_micros()) }))
}

/// Changes as they come (server-sent events). The id of each is its id in history: `Last-Event-ID` goes on after it, as far back as history reaches.
#[utoipa::path(get, path = "/api/v1/events/stream", tag = "events", responses((status = 200, description = "a stream of events named `change`", content_type = "text/event-stream", body = String)))]
pub async fn stream(State(app): State<App>, headers: HeaderMap) -> Result<Sse<impl Stream<Item = Result<SseEvent, Infallible>>>, Problem> {
    let place = app.viewer()?;
    let stopped = app.clone().stopped();
    let asked = headers.get("last-event-id").and_then(|id| id.to_str().ok()).and_then(|id| id.parse::<u64>().ok());
    let after = match asked {
        Some(id) => id,
        None => app.shared.history.events(1, None).await?.first().map_or(0, |event| event.id),
    };
    let changed = app.shared.changed.subscribe();
    let start = (app, changed, after, VecDeque::<StoredEvent>::new(), place);
    let stream = futures::stream::unfold(start, |(app, mut changed, mut after, mut waiting, place)| async move {
        loop {
            if let Some(event) = waiting.pop_front() {
                after = event.id;
                let content = serde_json::to_string(&EventView::from(&event)).unwrap_or_default();
                let sse = SseEvent::default().id(event.id.to_string()).event("change").data(content);
                return Some((Ok(sse), (app, changed, after, waiting, place)));
            }
            // What cannot be read now is read at the next change.
            waiting.extend(newer(&app, after).await.unwrap_or_default());
            if waiting.is_empty() {
                changed.changed().await.ok()?;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    });
    Ok(Sse::new(stream.take_until(stopped)).keep_alive(KeepAlive::new().interval(HEARTBEAT)))
}

/// All events after this one, oldest first; all or none, so that no gap is sent.
async fn newer(app: &App, after: u64) -> plumbline_sdk::Result<Vec<StoredEvent>> {
    let mut newer = Vec::new();
    let mut before = None;
    loop {
        let page = app.shared.history.events(STEP, before).await?;
        let full = page.len() as u32 == STEP;
        before = page.last().map(|event| event.id);
        newer.extend(page.into_iter().take_while(|event| event.id > after));
        if !full || before.is_none_or(|id| id <= after) {
            newer.reverse();
            return Ok(newer);
        }
    }
}
