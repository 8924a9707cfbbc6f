//! `/metrics` in the form that the client reads.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::api::App;
use crate::api::health::{LastCdcEvent, connection, connector, status};
use crate::api::negotiate::{Form, choose};
use crate::api::tables::{VerifiedView, counts_as_of, operations, verified};
use crate::clock;
use crate::state::{State as Picture, TableState};

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FormatQuery {
    /// `prometheus`, `openmetrics` or `json`, instead of what Accept says.
    format: Option<String>,
}

/// Metrics for scrapers (OpenMetrics or Prometheus text), or statistics as JSON where that is preferred.
#[utoipa::path(get, path = "/metrics", tag = "operators", params(FormatQuery),
    responses((status = 200, description = "in the form that the client reads", content((String = "text/plain"), (String = "application/openmetrics-text"), (Statistics = "application/json")))))]
pub async fn metrics(State(app): State<App>, Query(query): Query<FormatQuery>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let form = choose(query.format.as_deref(), accept);
    let body = match form {
        Form::OpenMetrics => app.metrics.open_metrics(&app.shared),
        Form::Text => app.metrics.text(&app.shared),
        Form::Json => return with_form(Json(statistics(&app).await).into_response(), form),
    };
    with_form(body.into_response(), form)
}

fn with_form(mut response: Response, form: Form) -> Response {
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
    response
}

/// The same statistics as JSON, always.
#[utoipa::path(get, path = "/metrics.json", tag = "operators", responses((status = 200, body = Statistics)))]
pub async fn metrics_json(State(app): State<App>) -> Json<Statistics> {
    Json(statistics(&app).await)
}

/// The statistics of one table.
#[derive(Debug, Serialize, ToSchema)]
pub struct TableStatistics {
    mysql_count: Option<i64>,
    postgres_count: Option<i64>,
    /// Target rows over source rows in percent; a count, not a proof.
    sync_percentage: Option<f64>,
    /// When it was last proved equal.
    last_sync: Option<String>,
    last_operation: Option<&'static str>,
    /// `in_sync`, `copying`, `lagging`, `diverged`, `unverified`, `unknown`.
    status: &'static str,
    verified_through: Option<VerifiedView>,
    /// The moment that both counts speak of.
    counts_as_of: Option<String>,
    /// Since the beginning.
    operations: BTreeMap<&'static str, u64>,
}

impl From<&TableState> for TableStatistics {
    fn from(table: &TableState) -> Self {
        Self {
            mysql_count: table.source_rows.map(|rows| rows.rows.max(0)),
            postgres_count: table.target_rows.map(|rows| rows.rows.max(0)),
            sync_percentage: table.sync_percentage(),
            last_sync: table.verified.as_ref().map(|verified| clock::text(verified.micros)),
            last_operation: table.last.as_ref().map(|last| last.op.as_str()),
            status: table.status().as_str(),
            verified_through: verified(table),
            counts_as_of: counts_as_of(table).map(clock::text),
            operations: operations(&table.total),
        }
    }
}

/// The statistics of all watched tables.
pub fn by_table(state: &Picture) -> BTreeMap<String, TableStatistics> {
    state.present().filter(|(_, table)| table.schema.is_some()).map(|(id, table)| (id.table.to_string(), table.into())).collect()
}

/// The tables of one side.
#[derive(Debug, Serialize, ToSchema)]
struct SideStatistics {
    /// `connected`, `disconnected`.
    status: &'static str,
    tables: usize,
    table_list: Vec<String>,
    total_tables: usize,
}

#[derive(Debug, Serialize, ToSchema)]
struct DatabaseStatistics {
    mysql: SideStatistics,
    postgres: SideStatistics,
}

#[derive(Debug, Serialize, ToSchema)]
struct CdcStatistics {
    /// Inserts, updates and deletes since this start.
    events_processed: u64,
    /// The same since the beginning.
    events_total: u64,
    last_event: Option<LastCdcEvent>,
    /// Debezium's connector: `running`, `failed`, `paused`, `stopped`, `not_configured`.
    connector_status: &'static str,
    monitored_tables: Vec<String>,
    /// Always changes, duplicates and control together.
    records: u64,
    duplicates: u64,
    control: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct SyncStatistics {
    /// Operations since the beginning.
    total: BTreeMap<&'static str, u64>,
    /// Operations since this start.
    global_live: BTreeMap<&'static str, u64>,
    /// Operations by UTC day and table, as Redis keeps them; `not_configured` without Redis; null: they could not be read.
    #[schema(value_type = Object)]
    redis_daily: Value,
    table_status: BTreeMap<String, TableStatistics>,
}

/// The documented statistics.
#[derive(Debug, Serialize, ToSchema)]
pub struct Statistics {
    timestamp: String,
    database_stats: DatabaseStatistics,
    cdc_stats: CdcStatistics,
    sync_stats: SyncStatistics,
    /// `healthy`, `degraded`, `unhealthy`.
    health_status: &'static str,
}

/// Operations by day and table.
async fn daily(app: &App) -> Value {
    if connection(&app.shared.picture().state, "redis") == "not_configured" {
        return "not_configured".into();
    }
    let mut days: BTreeMap<String, BTreeMap<String, BTreeMap<&'static str, u64>>> = BTreeMap::new();
    match app.shared.history.daily().await {
        Ok(counters) => {
            for entry in counters.into_iter().flatten() {
                days.entry(entry.day).or_default().insert(entry.table.table.to_string(), operations(&entry.counts));
            }
            serde_json::to_value(days).unwrap_or_default()
        }
        Err(error) => {
            tracing::warn!(error = error.chain(), "the counters by day could not be read");
            Value::Null
        }
    }
}

async fn statistics(app: &App) -> Statistics {
    let redis_daily = daily(app).await;
    let connector_status = connector(app);
    let picture = app.shared.picture();
    let state = &picture.state;
    let (total, live) = state.changes();
    let streaming = app.shared.streaming.load(std::sync::atomic::Ordering::Relaxed);
    let names: Vec<String> = state.present().filter(|(_, table)| table.schema.is_some()).map(|(id, _)| id.table.to_string()).collect();
    let targets: Vec<String> = state
        .present()
        .filter_map(|(_, table)| match &table.partner {
            crate::state::Partner::Table(target) => Some(target.id.table.to_string()),
            _ => None,
        })
        .collect();
    let side = |component, names: Vec<String>| SideStatistics { status: connection(state, component), tables: names.len(), total_tables: names.len(), table_list: names };
    let by_op = |counts: fn(&TableState) -> &plumbline_sdk::plugin::OpCounts| {
        let mut sum = [0; 5];
        for table in state.tables.values() {
            for (sum, count) in sum.iter_mut().zip(counts(table)) {
                *sum += count;
            }
        }
        operations(&sum)
    };
    Statistics {
        timestamp: clock::text(clock::now_micros()),
        database_stats: DatabaseStatistics { mysql: side("mysql", names.clone()), postgres: side("postgres", targets) },
        cdc_stats: CdcStatistics {
            events_processed: live,
            events_total: total,
            last_event: state.last.as_ref().map(Into::into),
            connector_status,
            monitored_tables: names,
            records: state.records,
            duplicates: state.duplicates,
            control: state.control,
        },
        sync_stats: SyncStatistics {
            total: by_op(|table| &table.total),
            global_live: by_op(|table| &table.live),
            redis_daily,
            table_status: by_table(state),
        },
        health_status: status(state, streaming),
    }
}
