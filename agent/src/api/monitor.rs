//! What is watched: the documented endpoints of the table monitor and of discovery.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::IntoParams;

use crate::api::App;
use crate::api::health::last_event;
use crate::api::problem::Problem;
use crate::clock;
use crate::shared::{AddTableError, Command};

/// What is watched and what was seen, in the original's fields.
pub fn monitoring_status(app: &App) -> Value {
    let picture = app.shared.picture();
    let state = &picture.state;
    let (total, live) = state.changes();
    let streaming = app.shared.streaming.load(Ordering::Relaxed);
    let mut current = Vec::new();
    let mut schemas = Map::new();
    for (id, table) in state.present() {
        if let Some(schema) = &table.schema {
            current.push(id.table.to_string());
            schemas.insert(id.table.to_string(), schema.columns.len().into());
        }
    }
    json!({
        "monitoring_active": state.discovered,
        "cdc_active": streaming,
        "total_tables": current.len(),
        "current_tables": current,
        "table_schemas": schemas,
        "discovery_interval": app.config.discovery_interval.as_secs_f64(),
        "database_name": app.config.database,
        "cdc_events_processed": live,
        "cdc_events_total": total,
        "last_cdc_event": last_event(state.last.as_ref()),
        "connector_status": if streaming { "running" } else { "stopped" },
        "timestamp": clock::text(clock::now_micros()),
    })
}

/// What is watched.
#[utoipa::path(get, path = "/table-monitor/status", tag = "table monitor", responses((status = 200, body = Object)))]
pub async fn status(State(app): State<App>) -> Json<Value> {
    Json(monitoring_status(&app))
}

/// Starts watching. The agent watches from its start, so calling this changes nothing.
#[utoipa::path(post, path = "/table-monitor/setup", tag = "table monitor", responses((status = 200, body = Object)))]
pub async fn setup(State(app): State<App>) -> Json<Value> {
    Json(json!({
        "message": "the agent watches every table that no rule excludes",
        "success": true,
        "monitoring_status": monitoring_status(&app),
        "timestamp": clock::text(clock::now_micros()),
    }))
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct AddQuery {
    /// Watch it although a rule excludes it.
    #[serde(default)]
    r#override: bool,
}

/// Watches a table that was not discovered yet, or that a rule excludes.
#[utoipa::path(post, path = "/table-monitor/add-table/{table_name}", tag = "table monitor",
    params(("table_name" = String, Path, description = "`table` or `schema.table`"), AddQuery),
    responses((status = 201, body = Object), (status = 200, body = Object), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
pub async fn add_table(State(app): State<App>, Path(name): Path<String>, query: Result<Query<AddQuery>, axum::extract::rejection::QueryRejection>) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|cause| Problem::new(cause.status(), cause.body_text()))?;
    super::check_name(&name)?;
    let (reply, answer) = tokio::sync::oneshot::channel();
    let stopping = || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping");
    app.shared.commands.send(Command::AddTable { table: name.clone(), override_rule: query.r#override, reply }).await.map_err(|_| stopping())?;
    match answer.await.map_err(|_| stopping())? {
        Ok(added) => {
            let (code, message) = if added.added { (StatusCode::CREATED, "the table is watched from now on") } else { (StatusCode::OK, "the table was watched already") };
            let body = json!({ "message": message, "success": true, "table_name": added.table.table, "timestamp": clock::text(clock::now_micros()) });
            Ok((code, Json(body)).into_response())
        }
        Err(AddTableError::NotFound) => Err(Problem::not_found(format!("MySQL has no table `{name}` in `{}`", app.config.database))),
        Err(AddTableError::Excluded(rule)) => Err(Problem::conflict(format!("`{name}` is excluded by {rule}; `?override=true` watches it all the same"))),
        Err(AddTableError::Failed(error)) => Err(error.into()),
    }
}

/// The tables of both sides, looked at now.
#[utoipa::path(get, path = "/discover-tables", tag = "table monitor", responses((status = 200, body = Object), (status = 503, body = Problem), (status = 422, body = Problem)))]
pub async fn discover_tables(State(app): State<App>) -> Result<Json<Value>, Problem> {
    let found = app.shared.ask(|reply| Command::Discover { reply }).await?;
    let names = |excluded: Option<bool>| -> Vec<String> {
        found.source.iter().filter(|(_, rule)| excluded.is_none_or(|excluded| rule.is_some() == excluded)).map(|(id, _)| id.table.to_string()).collect()
    };
    let reasons: Map<String, Value> = found.source.iter().filter_map(|(id, rule)| Some((id.table.to_string(), Value::String(rule.clone()?)))).collect();
    let current: Vec<String> = app.shared.picture().state.present().filter(|(_, table)| table.schema.is_some()).map(|(id, _)| id.table.to_string()).collect();
    Ok(Json(json!({
        "mysql_tables": { "all": names(None), "monitorable": names(Some(false)), "excluded": names(Some(true)) },
        "postgres_tables": found.target.iter().map(|id| id.table.to_string()).collect::<Vec<_>>(),
        "current_monitoring": current,
        "reasons": reasons,
        "timestamp": clock::text(clock::now_micros()),
    })))
}
