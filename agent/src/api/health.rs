//! Whether the agent lives, can do its work, and how the components are.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use plumbline_sdk::HealthState;
use serde_json::{Value, json};

use crate::api::App;
use crate::api::problem::Problem;
use crate::clock;
use crate::state::{LastEvent, State as Picture};

/// `connected`, `disconnected` or `not_configured`.
pub fn connection(state: &Picture, component: &str) -> &'static str {
    match state.health.get(component) {
        Some((health, _)) if health.state != HealthState::Down => "connected",
        _ => "disconnected",
    }
}

/// The newest change as users see it.
pub fn last_event(last: Option<&LastEvent>) -> Value {
    match last {
        Some(last) => json!({ "table": last.table.to_string(), "operation": last.op.as_str(), "timestamp": clock::text(last.commit_micros) }),
        None => Value::Null,
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

/// How the agent and its components are. 503 when unhealthy.
#[utoipa::path(get, path = "/health", tag = "operators", responses((status = 200, body = Object), (status = 503, body = Object)))]
pub async fn health(State(app): State<App>) -> Response {
    let (status, body) = {
        let picture = app.shared.picture();
        let state = &picture.state;
        let status = status(state, app.shared.streaming.load(Ordering::Relaxed));
        let (total, live) = state.changes();
        let components: serde_json::Map<String, Value> = state
            .health
            .iter()
            .map(|(name, (health, since))| (name.clone(), json!({ "state": health.state, "since": clock::text(*since), "messages": health.messages })))
            .collect();
        let body = json!({
            "status": status,
            "mysql": connection(state, "mysql"),
            "postgres": connection(state, "postgres"),
            "redis": "not_configured",
            "debezium": { "mysql_connector": "not_configured", "postgres_connector": "not_configured" },
            "cdc_events_processed": live,
            "cdc_events_total": total,
            "last_cdc_event": last_event(state.last.as_ref()),
            "timestamp": clock::text(clock::now_micros()),
            "version": env!("CARGO_PKG_VERSION"),
            "components": components,
        });
        (status, body)
    };
    let code = if status == "unhealthy" { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    (code, Json(body)).into_response()
}

/// The process lives.
#[utoipa::path(get, path = "/livez", tag = "operators", responses((status = 200, body = Object)))]
pub async fn livez() -> Json<Value> {
    Json(json!({ "status": "alive" }))
}

/// The source streams and the target answers.
#[utoipa::path(get, path = "/readyz", tag = "operators", responses((status = 200, body = Object), (status = 503, body = Problem)))]
pub async fn readyz(State(app): State<App>) -> Response {
    let reasons = not_ready(&app);
    if reasons.is_empty() {
        Json(json!({ "status": "ready" })).into_response()
    } else {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, reasons.join("; ")).into_response()
    }
}
