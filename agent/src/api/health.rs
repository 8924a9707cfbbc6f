//! Whether the agent lives, can do its work, and how the components are.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use plumbline_sdk::HealthState;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::App;
use crate::api::problem::Problem;
use crate::clock;
use crate::state::{LastEvent, State as Picture};

/// Components that may be left out: they have a health only where they are configured.
const OPTIONAL: [&str; 3] = ["redis", "kafka", "connect"];

/// `connected`, `disconnected` or `not_configured`.
pub fn connection(state: &Picture, component: &str) -> &'static str {
    match state.health.get(component) {
        Some((health, _)) if health.state != HealthState::Down => "connected",
        None if OPTIONAL.contains(&component) => "not_configured",
        _ => "disconnected",
    }
}

/// Debezium's connector: `running`, `failed`, `paused`, `stopped` or `not_configured`.
pub fn connector(app: &App) -> &'static str {
    let rests = app.shared.connector().map(|view| view.state);
    match (connection(&app.shared.picture().state, "connect"), rests.as_deref()) {
        ("connected", Some("PAUSED")) => "paused",
        ("connected", Some("STOPPED")) => "stopped",
        ("connected", _) => "running",
        ("disconnected", _) => "failed",
        (other, _) => other,
    }
}

/// The sink connectors that read the topics, in one word: that of the one that is worst off.
fn sink(app: &App) -> &'static str {
    let Some(view) = app.shared.connector().filter(|view| !view.sinks.is_empty()) else { return "not_configured" };
    let is = |state: &str| view.sinks.iter().any(|sink| sink.state == state);
    let worst = [("FAILED", "failed"), ("STOPPED", "stopped"), ("PAUSED", "paused")].into_iter().find(|(state, _)| is(state));
    worst.map_or_else(|| if view.sinks.iter().all(|sink| sink.state == "RUNNING") { "running" } else { "starting" }, |(_, word)| word)
}

/// The newest change as users see it.
#[derive(Debug, Serialize, ToSchema)]
pub struct LastCdcEvent {
    /// `schema.table`.
    table: String,
    /// `read`, `insert`, `update`, `delete`, `truncate`.
    operation: &'static str,
    /// When it was committed on the source.
    timestamp: String,
}

impl From<&LastEvent> for LastCdcEvent {
    fn from(last: &LastEvent) -> Self {
        Self { table: last.table.to_string(), operation: last.op.as_str(), timestamp: clock::text(last.commit_micros) }
    }
}

/// `healthy`, `degraded`, `unhealthy`.
pub fn status(state: &Picture, streaming: bool) -> &'static str {
    let connected = |component| connection(state, component) == "connected";
    let line_down = state.health.get("line").is_some_and(|(health, _)| health.state == HealthState::Down);
    if line_down || !connected("mysql") || !connected("postgres") {
        "unhealthy"
    } else if state.worst_health() != HealthState::Up || !streaming || state.present().any(|(_, table)| table.stopped.is_some()) {
        "degraded"
    } else {
        "healthy"
    }
}

/// Why the agent cannot do its work, one sentence each; empty: it can.
pub fn not_ready(app: &App) -> Vec<String> {
    let picture = app.shared.picture();
    let state = &picture.state;
    let mut reasons = Vec::new();
    if !app.shared.streaming.load(Ordering::Relaxed) {
        reasons.push("the source does not stream".to_owned());
    }
    for component in ["mysql", "postgres", "history", "line"] {
        if let Some((health, _)) = state.health.get(component).filter(|(health, _)| health.state == HealthState::Down) {
            reasons.push(format!("{component}: {}", health.messages.join("; ")));
        }
    }
    if connection(state, "postgres") != "connected" && reasons.is_empty() {
        reasons.push("the target has not answered yet".to_owned());
    }
    if state.applied.is_none() && reasons.is_empty() {
        reasons.push("the source has not said yet where it stands".to_owned());
    }
    reasons
}

/// Debezium's connectors.
#[derive(Debug, Serialize, ToSchema)]
struct Connectors {
    /// `running`, `failed`, `paused`, `stopped`, `not_configured`.
    mysql_connector: &'static str,
    /// Somebody else's sink on the same Kafka Connect that reads our topics: `running`, `failed`, `paused`, `stopped`, `starting`;
    /// `not_configured`: there is none.
    postgres_connector: &'static str,
}

/// How a component is.
#[derive(Debug, Serialize, ToSchema)]
struct ComponentHealth {
    /// `up`, `warning`, `down`.
    #[schema(value_type = String)]
    state: HealthState,
    since: String,
    /// What to know and what to do, one sentence each.
    messages: Vec<String>,
}

/// How the agent and its components are.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthReport {
    /// `healthy`, `degraded`, `unhealthy`.
    status: &'static str,
    /// `connected`, `disconnected`.
    mysql: &'static str,
    /// `connected`, `disconnected`.
    postgres: &'static str,
    /// `connected`, `disconnected`, `not_configured`.
    redis: &'static str,
    debezium: Connectors,
    /// Inserts, updates and deletes since this start.
    cdc_events_processed: u64,
    /// The same since the beginning.
    cdc_events_total: u64,
    last_cdc_event: Option<LastCdcEvent>,
    timestamp: String,
    version: &'static str,
    components: BTreeMap<String, ComponentHealth>,
}

fn report(app: &App) -> HealthReport {
    let debezium = Connectors { mysql_connector: connector(app), postgres_connector: sink(app) };
    let streaming = app.shared.streaming.load(Ordering::Relaxed);
    let picture = app.shared.picture();
    let state = &picture.state;
    let (total, live) = state.changes();
    let component = |(health, since): &(plumbline_sdk::Health, i64)| ComponentHealth { state: health.state, since: clock::text(*since), messages: health.messages.clone() };
    HealthReport {
        status: status(state, streaming),
        mysql: connection(state, "mysql"),
        postgres: connection(state, "postgres"),
        redis: connection(state, "redis"),
        debezium,
        cdc_events_processed: live,
        cdc_events_total: total,
        last_cdc_event: state.last.as_ref().map(Into::into),
        timestamp: clock::text(clock::now_micros()),
        version: env!("CARGO_PKG_VERSION"),
        components: state.health.iter().map(|(name, health)| (name.clone(), component(health))).collect(),
    }
}

/// How the agent and its components are. 503 when unhealthy.
#[utoipa::path(get, path = "/health", tag = "operators", responses((status = 200, body = HealthReport), (status = 503, body = HealthReport)))]
pub async fn health(State(app): State<App>) -> Response {
    let report = report(&app);
    let code = if report.status == "unhealthy" { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (code, Json(report)).into_response()
}

/// One word for an orchestrator.
#[derive(Debug, Serialize, ToSchema)]
pub struct Sign {
    /// `alive` or `ready`.
    status: &'static str,
}

/// The process lives.
#[utoipa::path(get, path = "/livez", tag = "operators", responses((status = 200, body = Sign)))]
pub async fn livez() -> Json<Sign> {
    Json(Sign { status: "alive" })
}

/// The source streams and the target answers.
#[utoipa::path(get, path = "/readyz", tag = "operators", responses((status = 200, body = Sign), (status = 503, body = Problem)))]
pub async fn readyz(State(app): State<App>) -> Result<Json<Sign>, Problem> {
    let reasons = not_ready(&app);
    if reasons.is_empty() { Ok(Json(Sign { status: "ready" })) } else { Err(Problem::unavailable(reasons.join("; "))) }
}
