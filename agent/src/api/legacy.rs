//! The endpoints that the original served, with its field names.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use plumbline_sdk::TableId;
use plumbline_sdk::plugin::LogEntry;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use crate::api::App;
use crate::api::body::{Fields, TableName};
use crate::api::events::EventView;
use crate::api::feed::{AgentOfGroup, PartitionPlace, agents, partitions};
use crate::api::health::LastCdcEvent;
use crate::api::problem::Problem;
use crate::api::scrape::{TableStatistics, by_table};
use crate::api::tables::{UnverifiedView, VerifiedView};
use crate::clock;
use crate::connectors::ConnectorView;
use crate::shared::{Command, KeptAside, ReportFinding, TableReport, VerifiedThrough};
use crate::state::{SyncStatus, TableState, Unverified};

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
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct LatestQuery {
    /// At most so many; 5 if not said.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct LimitQuery {
    /// At most so many; 100 if not said.
    #[param(minimum = 1, maximum = 10_000)]
    limit: Option<u32>,
}

/// How both sides of a table compare in numbers.
#[derive(Debug, Serialize, ToSchema)]
struct LatestComparison {
    /// Rows shown.
    mysql_count: usize,
    /// Rows shown.
    postgres_count: usize,
    /// Rows in all.
    mysql_total: Option<i64>,
    /// Rows in all.
    postgres_total: Option<i64>,
    /// `in_sync`, `copying`, `lagging`, `diverged`, `unverified`, `unknown`.
    sync_status: &'static str,
}

/// What the stream told of a table.
#[derive(Debug, Serialize, ToSchema)]
struct TableEvents {
    last_event: Option<LastCdcEvent>,
    /// Since the beginning.
    operations: BTreeMap<&'static str, u64>,
}

/// The newest rows of a table on both sides, cells as text.
#[derive(Debug, Serialize, ToSchema)]
pub struct LatestRecords {
    table_name: String,
    #[schema(value_type = Vec<BTreeMap<String, Option<String>>>)]
    mysql_latest: Vec<Map<String, Value>>,
    #[schema(value_type = Vec<BTreeMap<String, Option<String>>>)]
    postgres_latest: Vec<Map<String, Value>>,
    comparison: LatestComparison,
    cdc_info: TableEvents,
    timestamp: String,
}

/// The newest rows of both sides by key. Values of rows: mind who sees them.
#[utoipa::path(get, path = "/latest-records/{table}", tag = "original",
    params(("table" = String, Path, description = "`table` or `schema.table`"), LatestQuery),
    responses((status = 200, body = LatestRecords), (status = 400, body = Problem), (status = 404, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
pub async fn latest_records(State(app): State<App>, Path(name): Path<String>, asked: Result<Query<LatestQuery>, QueryRejection>) -> Result<Json<LatestRecords>, Problem> {
    let limit = limit(asked?.limit, 5, 100)?;
    let id = app.table(&name)?;
    let latest = app.shared.ask(|reply| Command::Latest { table: id.clone(), limit, reply }).await?;
    let rows = |rows: &[Vec<(String, Option<String>)>]| -> Vec<Map<String, Value>> {
        rows.iter().map(|row| row.iter().map(|(column, cell)| (column.clone(), cell.clone().map_or(Value::Null, Value::String))).collect()).collect()
    };
    let picture = app.shared.picture();
    let table = picture.state.tables.get(&id).cloned().unwrap_or_default();
    drop(picture);
    Ok(Json(LatestRecords {
        table_name: id.table.to_string(),
        mysql_latest: rows(&latest.source),
        postgres_latest: rows(&latest.target),
        comparison: LatestComparison {
            mysql_count: latest.source.len(),
            postgres_count: latest.target.len(),
            mysql_total: table.source_rows.map(|rows| rows.rows.max(0)),
            postgres_total: table.target_rows.map(|rows| rows.rows.max(0)),
            sync_status: table.status().as_str(),
        },
        cdc_info: TableEvents { last_event: table.last.as_ref().map(Into::into), operations: crate::api::tables::operations(&table.total) },
        timestamp: clock::text(clock::now_micros()),
    }))
}

/// How one table stands, in numbers.
#[derive(Debug, Serialize, ToSchema)]
pub struct TableStats {
    table_name: String,
    mysql_count: Option<i64>,
    postgres_count: Option<i64>,
    /// `in_sync`, `copying`, `lagging`, `diverged`, `unverified`, `unknown`.
    sync_status: &'static str,
    /// Target rows over source rows in percent; a count, not a proof.
    sync_percentage: Option<f64>,
    timestamp: String,
}

fn table_stats_of(id: &TableId, table: &TableState) -> TableStats {
    TableStats {
        table_name: id.table.to_string(),
        mysql_count: table.source_rows.map(|rows| rows.rows.max(0)),
        postgres_count: table.target_rows.map(|rows| rows.rows.max(0)),
        sync_status: table.status().as_str(),
        sync_percentage: table.sync_percentage(),
        timestamp: clock::text(clock::now_micros()),
    }
}

/// How the migration as a whole stands, in numbers.
#[derive(Debug, Serialize, ToSchema)]
struct MigrationStatus {
    total_tables: usize,
    synced_tables: usize,
    pending_tables: usize,
    failed_tables: usize,
    /// Percent of tables; null: there are none.
    overall_progress: Option<f64>,
    last_update: String,
    is_healthy: bool,
}

/// How the migration as a whole stands, and each table.
#[derive(Debug, Serialize, ToSchema)]
pub struct MigrationStats {
    migration_status: MigrationStatus,
    tables: Vec<TableStats>,
    timestamp: String,
}

/// How the migration as a whole stands.
#[utoipa::path(get, path = "/stats", tag = "original", responses((status = 200, body = MigrationStats)))]
pub async fn stats(State(app): State<App>) -> Json<MigrationStats> {
    let picture = app.shared.picture();
    let state = &picture.state;
    let tables: Vec<_> = state.present().filter(|(_, table)| table.schema.is_some()).collect();
    let count = |wanted: fn(SyncStatus) -> bool| tables.iter().filter(|(_, table)| wanted(table.status())).count();
    let synced = count(|status| matches!(status, SyncStatus::InSync | SyncStatus::Lagging));
    let failed = count(|status| matches!(status, SyncStatus::Diverged | SyncStatus::Unverified));
    let streaming = app.shared.streaming.load(std::sync::atomic::Ordering::Relaxed);
    Json(MigrationStats {
        migration_status: MigrationStatus {
            total_tables: tables.len(),
            synced_tables: synced,
            pending_tables: tables.len() - synced - failed,
            failed_tables: failed,
            overall_progress: (!tables.is_empty()).then(|| (synced as f64 / tables.len() as f64 * 10_000.0).floor() / 100.0),
            last_update: clock::text(clock::now_micros()),
            is_healthy: crate::api::health::status(state, streaming) == "healthy" && failed == 0,
        },
        tables: tables.iter().map(|(id, table)| table_stats_of(id, table)).collect(),
        timestamp: clock::text(clock::now_micros()),
    })
}

/// How one table stands.
#[utoipa::path(get, path = "/stats/{table}", tag = "original", params(("table" = String, Path, description = "`table` or `schema.table`")),
    responses((status = 200, body = TableStats), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub async fn table_stats(State(app): State<App>, Path(name): Path<String>) -> Result<Json<TableStats>, Problem> {
    let id = app.table(&name)?;
    let picture = app.shared.picture();
    let table = picture.state.tables.get(&id).ok_or_else(|| Problem::not_found(format!("there is no table `{name}`")))?;
    Ok(Json(table_stats_of(&id, table)))
}

/// The newest changes, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct CdcEvents {
    events: Vec<EventView>,
    /// Inserts, updates and deletes since the beginning.
    total_processed: u64,
    timestamp: String,
}

/// The newest changes, newest first.
#[utoipa::path(get, path = "/cdc/events", tag = "original", params(LimitQuery),
    responses((status = 200, body = CdcEvents), (status = 400, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
pub async fn cdc_events(State(app): State<App>, asked: Result<Query<LimitQuery>, QueryRejection>) -> Result<Json<CdcEvents>, Problem> {
    let limit = limit(asked?.limit, 100, 10_000)?;
    let events = app.shared.history.events(limit, None).await?;
    let (total_processed, _) = app.shared.picture().state.changes();
    Ok(Json(CdcEvents { events: events.iter().map(Into::into).collect(), total_processed, timestamp: clock::text(clock::now_micros()) }))
}

#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ValidateBody {
    /// These tables; none: all.
    tables: Option<Vec<TableName>>,
    /// Compare rows (true, the default) or counts only.
    full_validation: Option<bool>,
}

/// What a comparison of one table showed.
#[derive(Debug, Serialize, ToSchema)]
struct Validated {
    table_name: String,
    mysql_count: Option<u64>,
    postgres_count: Option<u64>,
    /// Null: not verified.
    is_consistent: Option<bool>,
    /// Seconds.
    validation_time: f64,
    /// Whether only counts were compared.
    quick_check: bool,
    /// The first differences.
    discrepancies: Vec<ReportFinding>,
    /// All of them.
    discrepancies_total: u64,
    #[schema(value_type = Vec<UnverifiedView>)]
    unverified: Vec<Unverified>,
    #[schema(value_type = Option<VerifiedView>)]
    verified_through: Option<VerifiedThrough>,
}

/// What a comparison showed.
#[derive(Debug, Serialize, ToSchema)]
pub struct Validation {
    message: &'static str,
    /// The number of the check, as in `/api/v1/checks`.
    check: u64,
    started_at: Option<String>,
    timestamp: String,
    tables_validated: usize,
    consistent_tables: usize,
    results: Vec<Validated>,
}

/// Compares tables now and waits for the result. `is_consistent` is null where it could not be verified.
#[utoipa::path(post, path = "/validate", tag = "original", request_body = ValidateBody,
    responses((status = 200, body = Validation), (status = 400, body = Problem), (status = 404, body = Problem), (status = 413, body = Problem), (status = 415, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
pub async fn validate(State(app): State<App>, Fields(body): Fields<ValidateBody>) -> Result<Json<Validation>, Problem> {
    let full = body.full_validation.unwrap_or(true);
    let tables = body.tables.unwrap_or_default().iter().map(|name| app.table(&name.0)).collect::<Result<Vec<_>, _>>()?;
    let id = app.shared.ask(|reply| Command::Check { tables, full, reply }).await?;
    let check = wait_for(&app, id).await;
    let started = check.as_ref().and_then(|check| check.started_micros);
    let results: Vec<Validated> = check.iter().flat_map(|check| check.results.values()).map(|report| validated(report, full)).collect();
    Ok(Json(Validation {
        message: match check.as_ref().map(|check| check.state) {
            Some("done") => "validation completed",
            Some("cancelled") => "validation was cancelled",
            _ => "validation still runs; `/api/v1/checks` shows how far it is",
        },
        check: id,
        started_at: started.map(clock::text),
        timestamp: clock::text(clock::now_micros()),
        tables_validated: results.len(),
        consistent_tables: results.iter().filter(|result| result.is_consistent == Some(true)).count(),
        results,
    }))
}

fn validated(report: &TableReport, full: bool) -> Validated {
    Validated {
        table_name: report.table.split_once('.').map_or(report.table.as_str(), |(_, table)| table).to_owned(),
        mysql_count: report.rows_source,
        postgres_count: report.rows_target,
        is_consistent: match report.verdict {
            "equal" => Some(true),
            "different" => Some(false),
            _ => None,
        },
        validation_time: report.seconds,
        quick_check: !full,
        discrepancies: report.findings.clone(),
        discrepancies_total: report.findings_total,
        unverified: report.unverified.clone(),
        verified_through: report.verified_through.clone(),
    }
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

/// A comparison was started; how tables stand now.
#[derive(Debug, Serialize, ToSchema)]
pub struct SyncCheck {
    message: &'static str,
    success: bool,
    /// The number of the check, as in `/api/v1/checks`.
    check: u64,
    results: BTreeMap<String, TableStatistics>,
    timestamp: String,
}

/// Starts a comparison of all tables, and says how they stand now.
#[utoipa::path(post, path = "/sync-check", tag = "original", responses((status = 200, body = SyncCheck), (status = 503, body = Problem)))]
pub async fn sync_check(State(app): State<App>) -> Result<Json<SyncCheck>, Problem> {
    let check = app.shared.ask(|reply| Command::Check { tables: Vec::new(), full: true, reply }).await?;
    let results = by_table(&app.shared.picture().state);
    Ok(Json(SyncCheck { message: "a comparison of all tables was started", success: true, check, results, timestamp: clock::text(clock::now_micros()) }))
}

/// Kafka, where it is used.
#[derive(Debug, Serialize, ToSchema)]
pub struct KafkaStatus {
    /// `connected`, `disconnected`, `not_configured`.
    status: &'static str,
    /// Topics of which something was read.
    topics: Vec<String>,
    /// How far each partition was read and stored.
    consumers: Vec<PartitionPlace>,
    /// Records that could not be taken as changes since this start of this agent: they are counted as control records, and reading goes on.
    invalid_total: u64,
    /// The newest of them, newest last, a hundred at most.
    invalid: Vec<KeptAside>,
    /// What is odd: a partition that stands still, records kept aside, partitions that came or went; or why nothing can be read.
    messages: Vec<String>,
    /// The agents that share the partitions; empty where this one is alone.
    members: Vec<AgentOfGroup>,
    timestamp: String,
}

/// Kafka: what was read of it.
#[utoipa::path(get, path = "/kafka-status", tag = "original", responses((status = 200, body = KafkaStatus)))]
pub async fn kafka_status(State(app): State<App>) -> Json<KafkaStatus> {
    let consumers = partitions(&app);
    let members = agents(&app);
    let picture = app.shared.picture();
    let topics = consumers.iter().map(|place| place.topic.clone()).collect::<BTreeSet<String>>().into_iter().collect();
    let status = crate::api::health::connection(&picture.state, "kafka");
    let messages = picture.state.health.get("kafka").map(|(health, _)| health.messages.clone()).unwrap_or_default();
    let (invalid_total, invalid) = app.shared.aside.get().map(|aside| aside()).unwrap_or_default();
    Json(KafkaStatus { status, topics, consumers, invalid_total, invalid, messages, members, timestamp: clock::text(clock::now_micros()) })
}

/// Debezium's connectors, where they are used.
#[derive(Debug, Serialize, ToSchema)]
pub struct DebeziumStatus {
    /// `running`, `failed`, `paused`, `stopped`, `not_configured`.
    status: &'static str,
    /// Secrets are hidden.
    connectors: Vec<ConnectorView>,
    timestamp: String,
}

/// Debezium's connector: its state, its tasks, how far it has read, its settings.
#[utoipa::path(get, path = "/debezium/status", tag = "original", responses((status = 200, body = DebeziumStatus)))]
pub async fn debezium_status(State(app): State<App>) -> Json<DebeziumStatus> {
    let status = crate::api::health::connector(&app);
    Json(DebeziumStatus { status, connectors: app.shared.connector().into_iter().collect(), timestamp: clock::text(clock::now_micros()) })
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct LogQuery {
    /// At most so many; 100 if not said.
    #[param(minimum = 1, maximum = 10_000)]
    limit: Option<u32>,
    /// Only of this table.
    table_name: Option<String>,
}

/// What was done once.
#[derive(Debug, Serialize, ToSchema)]
struct LogLine {
    timestamp: String,
    /// `schema.table`; empty: the pipeline as a whole.
    table_name: String,
    /// `create_table`, `copy`, `apply`, `schema`, `refused`.
    operation: String,
    /// `started`, `completed`, `failed`.
    status: String,
    /// How many rows.
    record_count: u64,
    message: String,
}

impl From<LogEntry> for LogLine {
    fn from(entry: LogEntry) -> Self {
        let LogEntry { timestamp, table_name, operation, status, record_count, message } = entry;
        Self { timestamp, table_name, operation, status, record_count, message }
    }
}

/// What was done, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct MigrationLog {
    /// Of the entries shown.
    total: usize,
    logs: Vec<LogLine>,
    timestamp: String,
}

/// What was copied, applied and refused, newest first. Empty where the agent does not apply.
#[utoipa::path(get, path = "/migration-log", tag = "original", params(LogQuery),
    responses((status = 200, body = MigrationLog), (status = 400, body = Problem), (status = 404, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
pub async fn migration_log(State(app): State<App>, asked: Result<Query<LogQuery>, QueryRejection>) -> Result<Json<MigrationLog>, Problem> {
    let Query(asked) = asked?;
    let limit = limit(asked.limit, 100, 10_000)?;
    let table = asked.table_name.map(|name| app.table(&name)).transpose()?;
    let log = app.shared.ask(|reply| Command::MigrationLog { limit, table, reply }).await?;
    Ok(Json(MigrationLog { total: log.len(), logs: log.into_iter().map(Into::into).collect(), timestamp: clock::text(clock::now_micros()) }))
}
