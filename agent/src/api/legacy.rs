//! The endpoints that the original served, with its field names.

use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use plumbline_sdk::TableId;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};

use crate::api::App;
use crate::api::body::Fields;
use crate::api::problem::Problem;
use crate::clock;
use crate::shared::{Command, TableReport};
use crate::state::{SyncStatus, TableState};

/// How long `POST /validate` waits for its check before it answers with what there is.
pub const VALIDATE_WAIT: Duration = Duration::from_secs(120);

fn moved(to: &'static str) -> Response {
    let mut response = (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, to)]).into_response();
    response.headers_mut().insert("deprecation", HeaderValue::from_static("true"));
    if let Ok(link) = HeaderValue::from_str(&format!("<{to}>; rel=\"successor-version\"")) {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    query.map(|Query(query)| query).map_err(|cause| Problem::new(cause.status(), cause.body_text()))
}

fn limit(asked: Option<u32>, default: u32, most: u32) -> Result<u32, Problem> {
    match asked {
        None => Ok(default),
        Some(limit) if (1..=most).contains(&limit) => Ok(limit),
        Some(limit) => Err(Problem::unprocessable(format!("`limit` is {limit}; 1 to {most} would have been accepted"))),
    }
}

/// Moved to `/table-monitor/status`.
#[utoipa::path(get, path = "/cdc/status", tag = "original", responses((status = 308, description = "moved to /table-monitor/status")))]
pub async fn cdc_status() -> Response {
    moved("/table-monitor/status")
}

/// Moved to `/table-monitor/setup`.
#[utoipa::path(post, path = "/cdc/setup-dynamic", tag = "original", responses((status = 308, description = "moved to /table-monitor/setup")))]
pub async fn setup_dynamic() -> Response {
    moved("/table-monitor/setup")
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct LimitQuery {
    /// At most so many.
    limit: Option<u32>,
}

/// The newest rows of both sides by key. Values of rows: mind who sees them.
#[utoipa::path(get, path = "/latest-records/{table}", tag = "original",
    params(("table" = String, Path, description = "`table` or `schema.table`"), LimitQuery),
    responses((status = 200, body = Object), (status = 400, body = Problem), (status = 404, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
pub async fn latest_records(State(app): State<App>, Path(name): Path<String>, asked: Result<Query<LimitQuery>, QueryRejection>) -> Result<Json<Value>, Problem> {
    let limit = limit(query(asked)?.limit, 5, 100)?;
    let id = app.table(&name)?;
    let latest = app.shared.ask(|reply| Command::Latest { table: id.clone(), limit, reply }).await?;
    let rows = |rows: &[Vec<(String, Option<String>)>]| -> Vec<Value> {
        rows.iter().map(|row| Value::Object(row.iter().map(|(column, cell)| (column.clone(), cell.clone().map_or(Value::Null, Value::String))).collect())).collect()
    };
    let picture = app.shared.picture();
    let table = picture.state.tables.get(&id).cloned().unwrap_or_default();
    drop(picture);
    Ok(Json(json!({
        "table_name": id.table,
        "mysql_latest": rows(&latest.source),
        "postgres_latest": rows(&latest.target),
        "comparison": {
            "mysql_count": latest.source.len(),
            "postgres_count": latest.target.len(),
            "mysql_total": table.source_rows.map(|rows| rows.rows.max(0)),
            "postgres_total": table.target_rows.map(|rows| rows.rows.max(0)),
            "sync_status": table.status().as_str(),
        },
        "cdc_info": {
            "last_event": crate::api::health::last_event(table.last.as_ref()),
            "operations": crate::api::tables::operations(&table.total),
        },
        "timestamp": clock::text(clock::now_micros()),
    })))
}

fn table_stats_of(id: &TableId, table: &TableState) -> Value {
    json!({
        "table_name": id.table,
        "mysql_count": table.source_rows.map(|rows| rows.rows.max(0)),
        "postgres_count": table.target_rows.map(|rows| rows.rows.max(0)),
        "sync_status": table.status().as_str(),
        "sync_percentage": table.sync_percentage(),
        "timestamp": clock::text(clock::now_micros()),
    })
}

/// How the migration as a whole stands.
#[utoipa::path(get, path = "/stats", tag = "original", responses((status = 200, body = Object)))]
pub async fn stats(State(app): State<App>) -> Json<Value> {
    let picture = app.shared.picture();
    let state = &picture.state;
    let tables: Vec<_> = state.present().filter(|(_, table)| table.schema.is_some()).collect();
    let count = |wanted: fn(SyncStatus) -> bool| tables.iter().filter(|(_, table)| wanted(table.status())).count();
    let synced = count(|status| matches!(status, SyncStatus::InSync | SyncStatus::Lagging));
    let failed = count(|status| matches!(status, SyncStatus::Diverged | SyncStatus::Unverified));
    let progress = if tables.is_empty() { Value::Null } else { json!((synced as f64 / tables.len() as f64 * 10_000.0).floor() / 100.0) };
    let streaming = app.shared.streaming.load(std::sync::atomic::Ordering::Relaxed);
    Json(json!({
        "migration_status": {
            "total_tables": tables.len(),
            "synced_tables": synced,
            "pending_tables": tables.len() - synced - failed,
            "failed_tables": failed,
            "overall_progress": progress,
            "last_update": clock::text(clock::now_micros()),
            "is_healthy": crate::api::health::status(state, streaming) == "healthy" && failed == 0,
        },
        "tables": tables.iter().map(|(id, table)| table_stats_of(id, table)).collect::<Vec<_>>(),
        "timestamp": clock::text(clock::now_micros()),
    }))
}

/// How one table stands.
#[utoipa::path(get, path = "/stats/{table}", tag = "original", params(("table" = String, Path, description = "`table` or `schema.table`")),
    responses((status = 200, body = Object), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub async fn table_stats(State(app): State<App>, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    let id = app.table(&name)?;
    let picture = app.shared.picture();
    let table = picture.state.tables.get(&id).ok_or_else(|| Problem::not_found(format!("there is no table `{name}`")))?;
    Ok(Json(table_stats_of(&id, table)))
}

/// The newest changes, newest first.
#[utoipa::path(get, path = "/cdc/events", tag = "original", params(LimitQuery), responses((status = 200, body = Object), (status = 400, body = Problem), (status = 422, body = Problem)))]
pub async fn cdc_events(State(app): State<App>, asked: Result<Query<LimitQuery>, QueryRejection>) -> Result<Json<Value>, Problem> {
    let limit = limit(query(asked)?.limit, 100, 10_000)?;
    let events = app.shared.history.events(limit, None).await?;
    let (total, _) = app.shared.picture().state.changes();
    Ok(Json(json!({
        "events": events.iter().map(crate::api::events::stored).collect::<Vec<_>>(),
        "total_processed": total,
        "timestamp": clock::text(clock::now_micros()),
    })))
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ValidateBody {
    /// These tables; none: all.
    tables: Option<Vec<String>>,
    /// Compare rows (true, the default) or counts only.
    full_validation: Option<bool>,
}

/// Compares tables now and waits for the result. `is_consistent` is null where it could not be verified.
#[utoipa::path(post, path = "/validate", tag = "original", request_body = Option<ValidateBody>,
    responses((status = 200, body = Object), (status = 400, body = Problem), (status = 404, body = Problem), (status = 413, body = Problem), (status = 415, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
pub async fn validate(State(app): State<App>, Fields(body): Fields<ValidateBody>) -> Result<Json<Value>, Problem> {
    let full = body.full_validation.unwrap_or(true);
    let tables = body.tables.unwrap_or_default().iter().map(|name| app.table(name)).collect::<Result<Vec<_>, _>>()?;
    let id = app.shared.ask(|reply| Command::Check { tables, full, reply }).await?;
    let check = wait_for(&app, id).await;
    let started = check.as_ref().and_then(|check| check.started_micros);
    let results: Vec<Value> = check.iter().flat_map(|check| check.results.values()).map(|report| result(report, full)).collect();
    let consistent = results.iter().filter(|result| result["is_consistent"] == json!(true)).count();
    Ok(Json(json!({
        "message": match check.as_ref().map(|check| check.state) {
            Some("done") => "validation completed",
            Some("cancelled") => "validation was cancelled",
            _ => "validation still runs; `/api/v1/checks` shows how far it is",
        },
        "check": id,
        "started_at": started.map(clock::text),
        "timestamp": clock::text(clock::now_micros()),
        "tables_validated": results.len(),
        "consistent_tables": consistent,
        "results": results,
    })))
}

fn result(report: &TableReport, full: bool) -> Value {
    json!({
        "table_name": report.table.split_once('.').map_or(report.table.as_str(), |(_, table)| table),
        "mysql_count": report.rows_source,
        "postgres_count": report.rows_target,
        "is_consistent": match report.verdict { "equal" => Some(true), "different" => Some(false), _ => None },
        "validation_time": report.seconds,
        "quick_check": !full,
        "discrepancies": report.findings,
        "discrepancies_total": report.findings_total,
        "unverified": report.unverified,
        "verified_through": report.verified_through,
    })
}

async fn wait_for(app: &App, id: u64) -> Option<crate::shared::Check> {
    let mut changed = app.shared.changed.subscribe();
    let ended = async {
        loop {
            let check = app.shared.checks().iter().find(|check| check.id == id).cloned();
            if check.as_ref().is_none_or(|check| matches!(check.state, "done" | "cancelled")) || changed.changed().await.is_err() {
                return check;
            }
        }
    };
    match tokio::time::timeout(VALIDATE_WAIT, ended).await {
        Ok(check) => check,
        Err(_) => app.shared.checks().iter().find(|check| check.id == id).cloned(),
    }
}

/// Starts a comparison of all tables, and says how they stand now.
#[utoipa::path(post, path = "/sync-check", tag = "original", responses((status = 200, body = Object), (status = 503, body = Problem)))]
pub async fn sync_check(State(app): State<App>) -> Result<Json<Value>, Problem> {
    let id = app.shared.ask(|reply| Command::Check { tables: Vec::new(), full: true, reply }).await?;
    let picture = app.shared.picture();
    let results: Map<String, Value> =
        picture.state.present().filter(|(_, table)| table.schema.is_some()).map(|(id, table)| (id.table.to_string(), super::scrape::table_status(table))).collect();
    Ok(Json(json!({ "message": "a comparison of all tables was started", "success": true, "check": id, "results": results, "timestamp": clock::text(clock::now_micros()) })))
}

/// Kafka is not used by this agent.
#[utoipa::path(get, path = "/kafka-status", tag = "original", responses((status = 200, body = Object)))]
pub async fn kafka_status() -> Json<Value> {
    Json(json!({ "status": "not_configured", "topics": [], "consumers": [], "timestamp": clock::text(clock::now_micros()) }))
}

/// Debezium is not used by this agent.
#[utoipa::path(get, path = "/debezium/status", tag = "original", responses((status = 200, body = Object)))]
pub async fn debezium_status() -> Json<Value> {
    Json(json!({ "status": "not_configured", "connectors": [], "timestamp": clock::text(clock::now_micros()) }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct LogQuery {
    /// At most so many.
    limit: Option<u32>,
    /// Only of this table.
    table_name: Option<String>,
}

/// What was copied, applied and refused, newest first. Empty where the agent does not apply.
#[utoipa::path(get, path = "/migration-log", tag = "original", params(LogQuery),
    responses((status = 200, body = Object), (status = 400, body = Problem), (status = 404, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
pub async fn migration_log(State(app): State<App>, asked: Result<Query<LogQuery>, QueryRejection>) -> Result<Json<Value>, Problem> {
    let asked = query(asked)?;
    let limit = limit(asked.limit, 100, 10_000)?;
    let table = asked.table_name.map(|name| app.table(&name)).transpose()?;
    let log = app.shared.ask(|reply| Command::MigrationLog { limit, table, reply }).await?;
    Ok(Json(json!({ "total": log.len(), "logs": log, "timestamp": clock::text(clock::now_micros()) })))
}
