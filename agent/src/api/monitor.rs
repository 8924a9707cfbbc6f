//! What is watched: the documented endpoints of the table monitor and of discovery.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::App;
use crate::api::health::{LastCdcEvent, connector};
use crate::api::problem::Problem;
use crate::clock;
use crate::shared::{AddTableError, Command};

/// What is watched and what was seen.
#[derive(Debug, Serialize, ToSchema)]
pub struct MonitoringStatus {
    monitoring_active: bool,
    cdc_active: bool,
    total_tables: usize,
    current_tables: Vec<String>,
    /// Columns by table.
    table_schemas: BTreeMap<String, usize>,
    /// Seconds.
    #[schema(value_type = f64)]
    discovery_interval: serde_json::Number,
    database_name: String,
    /// Inserts, updates and deletes since this start.
    cdc_events_processed: u64,
    /// The same since the beginning.
    cdc_events_total: u64,
    last_cdc_event: Option<LastCdcEvent>,
    /// Debezium's connector: `running`, `failed`, `paused`, `stopped`, `not_configured`.
    connector_status: &'static str,
    timestamp: String,
}

/// Whole seconds without a point.
fn seconds(span: Duration) -> serde_json::Number {
    serde_json::Number::from_f64(span.as_secs_f64()).filter(|_| span.subsec_nanos() > 0).unwrap_or_else(|| span.as_secs().into())
}

/// In the original's fields.
pub fn monitoring_status(app: &App) -> MonitoringStatus {
    let connector_status = connector(app);
    let picture = app.shared.picture();
    let state = &picture.state;
    let (total, live) = state.changes();
    let watched = || state.present().filter_map(|(id, table)| Some((id.table.to_string(), table.schema.as_ref()?)));
    let current: Vec<String> = watched().map(|(name, _)| name).collect();
    MonitoringStatus {
        monitoring_active: state.discovered,
        cdc_active: app.shared.streaming.load(Ordering::Relaxed),
        total_tables: current.len(),
        current_tables: current,
        table_schemas: watched().map(|(name, schema)| (name, schema.columns.len())).collect(),
        discovery_interval: seconds(app.config.discovery_interval),
        database_name: app.config.database.clone(),
        cdc_events_processed: live,
        cdc_events_total: total,
        last_cdc_event: state.last.as_ref().map(Into::into),
        connector_status,
        timestamp: clock::text(clock::now_micros()),
    }
}

/// What is watched.
#[utoipa::path(get, path = "/table-monitor/status", tag = "table monitor", responses((status = 200, body = MonitoringStatus)))]
pub async fn status(State(app): State<App>) -> Json<MonitoringStatus> {
    Json(monitoring_status(&app))
}

/// The agent watches.
#[derive(Debug, Serialize, ToSchema)]
pub struct MonitoringSetup {
    message: &'static str,
    success: bool,
    monitoring_status: MonitoringStatus,
    timestamp: String,
}

/// Starts watching. The agent watches from its start, so calling this changes nothing.
#[utoipa::path(post, path = "/table-monitor/setup", tag = "table monitor", responses((status = 200, body = MonitoringSetup)))]
pub async fn setup(State(app): State<App>) -> Json<MonitoringSetup> {
    Json(MonitoringSetup {
        message: "the agent watches every table that no rule excludes",
        success: true,
        monitoring_status: monitoring_status(&app),
        timestamp: clock::text(clock::now_micros()),
    })
}

/// A table is watched.
#[derive(Debug, Serialize, ToSchema)]
pub struct WatchedTable {
    message: &'static str,
    success: bool,
    /// In the catalog's spelling.
    table_name: String,
    timestamp: String,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AddQuery {
    /// Watch it although a rule excludes it.
    #[serde(default)]
    r#override: bool,
}

/// Watches a table that was not discovered yet, or that a rule excludes.
#[utoipa::path(post, path = "/table-monitor/add-table/{table_name}", tag = "table monitor",
    params(("table_name" = String, Path, description = "`table` or `schema.table`"), AddQuery),
    responses((status = 201, body = WatchedTable), (status = 200, body = WatchedTable), (status = 400, body = Problem), (status = 404, body = Problem),
        (status = 409, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
pub async fn add_table(State(app): State<App>, Path(name): Path<String>, query: Result<Query<AddQuery>, axum::extract::rejection::QueryRejection>) -> Result<Response, Problem> {
    let Query(query) = query?;
    super::check_name(&name)?;
    let (reply, answer) = tokio::sync::oneshot::channel();
    let stopping = || Problem::unavailable("the agent is stopping");
    app.shared.commands.send(Command::AddTable { table: name.clone(), override_rule: query.r#override, reply }).await.map_err(|_| stopping())?;
    match answer.await.map_err(|_| stopping())? {
        Ok(added) => {
            let (code, message) = if added.added { (StatusCode::CREATED, "the table is watched from now on") } else { (StatusCode::OK, "the table was watched already") };
            let body = WatchedTable { message, success: true, table_name: added.table.table.to_string(), timestamp: clock::text(clock::now_micros()) };
            Ok((code, Json(body)).into_response())
        }
        Err(AddTableError::NotFound) => Err(Problem::not_found(format!("MySQL has no table `{name}` in `{}`", app.config.database))),
        Err(AddTableError::Excluded(rule)) => Err(Problem::conflict(format!("`{name}` is excluded by {rule}; `?override=true` watches it all the same"))),
        Err(AddTableError::Failed(error)) => Err(error.into()),
    }
}

/// The source's tables.
#[derive(Debug, Serialize, ToSchema)]
struct SourceTables {
    all: Vec<String>,
    monitorable: Vec<String>,
    excluded: Vec<String>,
}

/// The tables of both sides.
#[derive(Debug, Serialize, ToSchema)]
pub struct TablesOfBothSides {
    mysql_tables: SourceTables,
    postgres_tables: Vec<String>,
    current_monitoring: Vec<String>,
    /// By table: why it is excluded.
    reasons: BTreeMap<String, String>,
    timestamp: String,
}

/// The tables of both sides, looked at now.
#[utoipa::path(get, path = "/discover-tables", tag = "table monitor", responses((status = 200, body = TablesOfBothSides), (status = 503, body = Problem), (status = 422, body = Problem)))]
pub async fn discover_tables(State(app): State<App>) -> Result<Json<TablesOfBothSides>, Problem> {
    let found = app.shared.ask(|reply| Command::Discover { reply }).await?;
    let names = |excluded: Option<bool>| -> Vec<String> {
        found.source.iter().filter(|(_, rule)| excluded.is_none_or(|excluded| rule.is_some() == excluded)).map(|(id, _)| id.table.to_string()).collect()
    };
    Ok(Json(TablesOfBothSides {
        mysql_tables: SourceTables { all: names(None), monitorable: names(Some(false)), excluded: names(Some(true)) },
        postgres_tables: found.target.iter().map(|id| id.table.to_string()).collect(),
        current_monitoring: app.shared.picture().state.present().filter(|(_, table)| table.schema.is_some()).map(|(id, _)| id.table.to_string()).collect(),
        reasons: found.source.iter().filter_map(|(id, rule)| Some((id.table.to_string(), rule.clone()?))).collect(),
        timestamp: clock::text(clock::now_micros()),
    }))
}
