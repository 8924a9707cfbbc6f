//! The live page: its files, its snapshot, and what changes in it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, extract::Request};
use futures::{Stream, StreamExt as _};
use plumbline_sdk::HealthState;
use serde_json::{Map, Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::error::TryRecvError;

use crate::api::App;
use crate::api::feed;
use crate::api::health::connection;
use crate::api::problem::{self, Problem};
use crate::api::summary::{NOT_YET, blockers, summary};
use crate::api::tables::{TableView, view};
use crate::clock;
use crate::connectors::ConnectorView;

/// The page's files, embedded. No build step.
const FILES: &[(&str, &str, &str)] = &[
    ("index.html", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("app.js", "text/javascript; charset=utf-8", include_str!("page/app.js")),
    ("style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("favicon.svg", "image/svg+xml", include_str!("page/favicon.svg")),
];

/// At most four updates a second.
const PACE: Duration = Duration::from_millis(250);
/// A quiet page is told that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Changes in one message of the tail.
const TAIL: usize = 50;
/// Partitions of which the page is told: those furthest behind.
const PARTITIONS: usize = 20;

/// Routes of the page's files.
pub fn assets() -> Router<App> {
    Router::new().route("/", get(index)).route("/page/{file}", get(file)).route("/favicon.ico", get(favicon))
}

async fn index(headers: HeaderMap) -> Response {
    serve("index.html", &headers).unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
}

async fn favicon(headers: HeaderMap) -> Response {
    serve("favicon.svg", &headers).unwrap_or_else(|| StatusCode::NOT_FOUND.into_response())
}

async fn file(Path(name): Path<String>, headers: HeaderMap, request: Request) -> Response {
    match serve(&name, &headers) {
        Some(response) => response,
        None => problem::not_found(request.uri().clone()).await.into_response(),
    }
}

fn serve(name: &str, headers: &HeaderMap) -> Option<Response> {
    let (_, kind, content) = FILES.iter().find(|(known, _, _)| *known == name)?;
    let tag = format!("\"{:016x}\"", xxhash_rust::xxh3::xxh3_64(content.as_bytes()));
    let same = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut response = if same { StatusCode::NOT_MODIFIED.into_response() } else { ([(header::CONTENT_TYPE, *kind)], *content).into_response() };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Some(response)
}

/// Changes per second between two looks.
#[derive(Default)]
struct Pace {
    last: Option<(i64, u64)>,
    per_second: Option<f64>,
}

impl Pace {
    fn look(&mut self, now: i64, total: u64) -> Option<f64> {
        match self.last {
            Some((then, _)) if now - then < 1_000_000 => {}
            Some((then, before)) => {
                self.per_second = Some((total.saturating_sub(before)) as f64 / ((now - then) as f64 / 1e6));
                self.last = Some((now, total));
            }
            None => self.last = Some((now, total)),
        }
        self.per_second
    }
}

/// Where changes come from, when they come by Kafka; else null.
fn feed(app: &App) -> Value {
    if connection(&app.shared.picture().state, "kafka") == "not_configured" {
        return Value::Null;
    }
    let mut partitions = feed::partitions(app);
    let behind: Option<u64> = partitions.iter().filter_map(|place| place.lag_records).reduce(|sum, records| sum + records);
    // Topics of the connector's own are of interest only where they wait.
    partitions.retain(|place| place.table.is_some() || place.lag_records.is_some_and(|records| records > 0));
    let total = partitions.len();
    partitions.sort_by_key(|place| std::cmp::Reverse(place.lag_records));
    partitions.truncate(PARTITIONS);
    // Settings are shown on request; here they would go over the wire with every change.
    let connector = app.shared.connector().map(|view| ConnectorView { config: BTreeMap::new(), ..view });
    let aside = app.shared.aside.get().map_or(0, |aside| aside().0);
    json!({ "connector": connector, "agents": feed::agents(app), "partitions": partitions, "partitions_total": total, "lag_records": behind, "aside": aside })
}

/// The page's head (all but tables) and its tables by name.
fn look(app: &App, pace: &mut Pace) -> (Map<String, Value>, BTreeMap<String, TableView>) {
    let now = clock::now_micros();
    let streaming = app.shared.streaming.load(Ordering::Relaxed);
    let (connector, feed) = (app.shared.connector(), feed(app));
    let picture = app.shared.picture();
    let state = &picture.state;
    let (total, live) = state.changes();
    let mut connections: Vec<Value> = Vec::new();
    // Where history is kept in Redis, that is what people look for.
    let history = if state.health.contains_key("redis") { "redis" } else { "history" };
    for name in ["mysql", "postgres", history, "kafka", "connect"] {
        let known = state.health.get(name);
        let (shown, since, messages) = match known {
            Some((health, since)) => (
                match health.state {
                    HealthState::Up => "up",
                    HealthState::Warning => "warning",
                    HealthState::Down => "down",
                },
                Some(clock::text(*since)),
                health.messages.clone(),
            ),
            // History was opened before anything is served.
            None if name == "history" => ("up", Some(clock::text(app.shared.started_micros)), Vec::new()),
            None if connection(state, name) == "not_configured" => ("not_configured", None, Vec::new()),
            None => ("down", None, vec![NOT_YET.to_owned()]),
        };
        connections.push(json!({ "name": name, "state": shown, "since": since, "messages": messages }));
    }
    let blockers = blockers(state, connector.as_ref(), streaming);
    let delay = state.last_micros.zip(state.last.as_ref()).map(|(received, last)| ((received - last.commit_micros).max(0)) as f64 / 1e6);
    let head = json!({
        "now": clock::text(now),
        "version": env!("CARGO_PKG_VERSION"),
        "pipeline": app.shared.pipeline,
        "database": app.config.database,
        "applies": state.applies,
        "started": clock::text(app.shared.started_micros),
        "streaming": streaming,
        "sentence": summary(state, connector.as_ref(), streaming, now),
        "cutover": { "ready": blockers.is_empty(), "blockers": blockers },
        "changes": { "total": total, "since_start": live, "per_second": pace.look(now, live) },
        "lag": { "seconds": state.lag_seconds(now), "delay_seconds": delay },
        "runway": { "seconds": state.runway_seconds(now) },
        "connections": connections,
        "feed": feed,
    });
    let tables = state
        .present()
        .filter(|(_, table)| table.schema.is_some())
        .map(|(id, table)| {
            let view = view(id, table, state.applies, now);
            (view.table.clone(), view)
        })
        .collect();
    match head {
        Value::Object(head) => (head, tables),
        _ => (Map::new(), tables),
    }
}

/// All that the page shows.
#[utoipa::path(get, path = "/api/v1/page", tag = "summary", responses((status = 200, body = Object)))]
pub async fn snapshot(State(app): State<App>) -> Json<Value> {
    let (mut head, tables) = look(&app, &mut Pace::default());
    head.insert("tables".into(), json!(tables.into_values().collect::<Vec<_>>()));
    Json(Value::Object(head))
}

/// What the page shows, as it changes: `snapshot` first, then `patch` with the tables that changed, and `events` with new changes.
#[utoipa::path(get, path = "/api/v1/page/stream", tag = "summary", responses((status = 200, description = "events `snapshot`, `patch`, `events`", content_type = "text/event-stream", body = String)))]
pub async fn stream(State(app): State<App>) -> Result<Sse<impl Stream<Item = Result<SseEvent, Infallible>>>, Problem> {
    struct Viewer {
        app: App,
        changed: tokio::sync::watch::Receiver<u64>,
        live: tokio::sync::broadcast::Receiver<crate::shared::LiveNews>,
        shown: BTreeMap<String, TableView>,
        pace: Pace,
        first: bool,
        tail: Option<Value>,
        /// Held as long as somebody looks.
        _place: OwnedSemaphorePermit,
    }
    let place = app.viewer()?;
    let stopped = app.clone().stopped();
    let viewer = Viewer {
        changed: app.shared.changed.subscribe(),
        live: app.shared.live.subscribe(),
        app,
        shown: BTreeMap::new(),
        pace: Pace::default(),
        first: true,
        tail: None,
        _place: place,
    };
    let stream = futures::stream::unfold(viewer, |mut viewer| async move {
        if let Some(tail) = viewer.tail.take() {
            return Some((Ok(SseEvent::default().event("events").data(tail.to_string())), viewer));
        }
        if !viewer.first {
            // Wait for a change, or show that time passes; never faster than the pace.
            tokio::time::sleep(PACE).await;
            let _ = tokio::time::timeout(HEARTBEAT - PACE, viewer.changed.changed()).await;
        }
        let (mut head, tables) = look(&viewer.app, &mut viewer.pace);
        let changed: Vec<&TableView> = tables.values().filter(|table| viewer.first || viewer.shown.get(&table.table) != Some(*table)).collect();
        let removed: Vec<&String> = viewer.shown.keys().filter(|name| !tables.contains_key(*name)).collect();
        head.insert("tables".into(), json!(changed));
        head.insert("removed".into(), json!(removed));
        let name = if viewer.first { "snapshot" } else { "patch" };
        let mut news = Vec::new();
        loop {
            match viewer.live.try_recv() {
                Ok(change) => news.push(change),
                // Too many to show one by one: the newest are enough.
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        if !news.is_empty() {
            let newest = news.split_off(news.len().saturating_sub(TAIL));
            let shown: Vec<Value> = newest
                .iter()
                .map(|change| json!({ "table": change.table, "operation": change.operation, "timestamp": clock::text(change.commit_micros), "position": change.position, "trace_id": change.trace_id }))
                .collect();
            viewer.tail = Some(json!(shown));
        }
        viewer.first = false;
        viewer.shown = tables;
        Some((Ok(SseEvent::default().event(name).data(Value::Object(head).to_string())), viewer))
    });
    Ok(Sse::new(stream.take_until(stopped)).keep_alive(KeepAlive::new().interval(HEARTBEAT)))
}
