//! `/metrics` in the form that the client reads.

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::IntoParams;

use crate::api::App;
use crate::api::health::{connection, last_event, status};
use crate::api::negotiate::{Form, choose};
use crate::api::tables::{counts_as_of, operations, verified};
use crate::clock;
use crate::state::TableState;

#[derive(Debug, Default, Deserialize, IntoParams)]
pub struct FormatQuery {
    /// `prometheus`, `openmetrics` or `json`, instead of what Accept says.
    format: Option<String>,
}

/// Metrics for scrapers (OpenMetrics or Prometheus text), or statistics as JSON where that is preferred.
#[utoipa::path(get, path = "/metrics", tag = "operators", params(FormatQuery), responses((status = 200, description = "OpenMetrics, Prometheus text or JSON", content_type = "text/plain", body = String)))]
pub async fn metrics(State(app): State<App>, Query(query): Query<FormatQuery>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let form = choose(query.format.as_deref(), accept);
    let body = match form {
        Form::OpenMetrics => app.metrics.open_metrics(&app.shared),
        Form::Text => app.metrics.text(&app.shared),
        Form::Json => statistics(&app).to_string(),
    };
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
    response
}

/// The same statistics as JSON, always.
#[utoipa::path(get, path = "/metrics.json", tag = "operators", responses((status = 200, body = Object)))]
pub async fn metrics_json(State(app): State<App>) -> Json<Value> {
    Json(statistics(&app))
}

/// The statistics of one table.
pub fn table_status(table: &TableState) -> Value {
    json!({
        "mysql_count": table.source_rows.map(|rows| rows.rows.max(0)),
        "postgres_count": table.target_rows.map(|rows| rows.rows.max(0)),
        "sync_percentage": table.sync_percentage(),
        "last_sync": table.verified.as_ref().map(|verified| clock::text(verified.micros)),
        "last_operation": table.last.as_ref().map(|last| last.op.as_str()),
        "status": table.status().as_str(),
        "verified_through": verified(table),
        "counts_as_of": counts_as_of(table).map(clock::text),
        "operations": operations(&table.total),
    })
}

fn statistics(app: &App) -> Value {
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
    let tables: Map<String, Value> = state.present().filter(|(_, table)| table.schema.is_some()).map(|(id, table)| (id.table.to_string(), table_status(table))).collect();
    let side = |component: &str, names: &[String]| json!({ "status": connection(state, component), "tables": names.len(), "table_list": names, "total_tables": names.len() });
    let by_op = |counts: fn(&TableState) -> &plumbline_sdk::plugin::OpCounts| {
        let mut sum = [0; 5];
        for table in state.tables.values() {
            for (sum, count) in sum.iter_mut().zip(counts(table)) {
                *sum += count;
            }
        }
        operations(&sum)
    };
    json!({
        "timestamp": clock::text(clock::now_micros()),
        "database_stats": { "mysql": side("mysql", &names), "postgres": side("postgres", &targets) },
        "cdc_stats": {
            "events_processed": live,
            "events_total": total,
            "last_event": last_event(state.last.as_ref()),
            "connector_status": if streaming { "running" } else { "stopped" },
            "monitored_tables": names,
            "records": state.records,
            "duplicates": state.duplicates,
            "control": state.control,
        },
        "sync_stats": {
            "total": by_op(|table| &table.total),
            "global_live": by_op(|table| &table.live),
            "redis_daily": Value::Null,
            "table_status": tables,
        },
        "health_status": status(state, streaming),
    })
}
