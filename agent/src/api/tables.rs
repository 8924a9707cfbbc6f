//! Tables: how each one stands.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, Query, State};
use plumbline_sdk::{Op, TableId, Verdict};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::App;
use crate::api::problem::Problem;
use crate::clock;
use crate::shared::Command;
use crate::state::{self, Partner, SyncStatus, TableState};
use crate::validation;

/// How far the copy of a table has got.
#[derive(Debug, Clone, Serialize, PartialEq, ToSchema)]
pub struct CopyView {
    /// Rows copied.
    rows_done: u64,
    /// About how many there will be.
    rows_expected: u64,
    /// Since this start; null: not known yet.
    rows_per_second: Option<f64>,
    /// At that rate; null: not known.
    seconds_left: Option<f64>,
    /// Whether the copy is done.
    done: bool,
}

/// The newest change.
#[derive(Debug, Clone, Serialize, PartialEq, ToSchema)]
pub struct LastView {
    /// `read`, `insert`, `update`, `delete`, `truncate`.
    operation: &'static str,
    /// When it was committed on the source.
    timestamp: String,
}

/// Through where a table was proved equal.
#[derive(Debug, Clone, Serialize, PartialEq, ToSchema)]
pub struct VerifiedView {
    /// The source position.
    position: String,
    /// When it was proved.
    time: String,
    /// Over how many rows.
    rows: u64,
}

/// Open findings.
#[derive(Debug, Clone, Copy, Default, Serialize, PartialEq, ToSchema)]
pub struct FindingCounts {
    total: u64,
    missing: u64,
    extra: u64,
    changed: u64,
}

/// A part of a table that could not be judged.
#[derive(Debug, Clone, Serialize, PartialEq, ToSchema)]
pub struct UnverifiedView {
    /// The columns; empty: the whole table.
    columns: Vec<String>,
    /// Why.
    reason: String,
}

/// A comparison that runs.
#[derive(Debug, Clone, Serialize, PartialEq, ToSchema)]
pub struct CheckView {
    rows: u64,
    expected: u64,
}

/// How a table stands.
#[derive(Debug, Clone, Serialize, PartialEq, ToSchema)]
pub struct TableView {
    /// `schema.table` on the source.
    pub table: String,
    /// Its partner on the target; null: none.
    target: Option<String>,
    /// `in_sync`, `copying`, `lagging`, `diverged`, `unverified`, `unknown`.
    pub status: &'static str,
    source_rows: Option<i64>,
    target_rows: Option<i64>,
    /// Whether either number is an estimate.
    rows_estimated: bool,
    /// The moment that both numbers speak of.
    counts_as_of: Option<String>,
    /// Target rows over source rows in percent; a count, not a proof.
    sync_percentage: Option<f64>,
    copy: Option<CopyView>,
    last: Option<LastView>,
    /// Seconds since the commit of the oldest change that is not applied yet; 0: none; null: somebody else applies.
    lag_seconds: Option<f64>,
    /// Changes received and not applied yet.
    pending: u64,
    verified_through: Option<VerifiedView>,
    findings: FindingCounts,
    unverified: Vec<UnverifiedView>,
    notes: Vec<String>,
    representation_only: BTreeMap<String, u64>,
    /// Why it is not applied any more.
    stopped: Option<String>,
    /// Whether a person stopped checking it.
    paused: bool,
    check: Option<CheckView>,
    /// Changes and reads since the beginning.
    operations: BTreeMap<&'static str, u64>,
    /// Whether the source dropped it.
    gone: bool,
}

/// A column on both sides.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct ColumnView {
    name: String,
    source_type: String,
    /// Null: the target has no such column.
    target_type: Option<String>,
    key: bool,
    /// Whether it is compared; else the reason stands in `unverified`.
    compared: bool,
}

/// A schema statement that was seen.
#[derive(Debug, Clone, Serialize, ToSchema)]
struct SchemaChangeView {
    kind: &'static str,
    timestamp: String,
    position: String,
}

/// A table with its columns.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TableDetail {
    #[serde(flatten)]
    table: TableView,
    columns: Vec<ColumnView>,
    schema_changes: Vec<SchemaChangeView>,
}

/// Several tables.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TableList {
    tables: Vec<TableView>,
    timestamp: String,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    /// Tables that the source dropped, instead of those that it has.
    #[serde(default)]
    gone: bool,
}

/// Operations by word.
pub fn operations(counts: &plumbline_sdk::plugin::OpCounts) -> BTreeMap<&'static str, u64> {
    Op::ALL.iter().map(|op| (op.as_str(), counts[op.index()])).collect()
}

/// The view of `verified_through`, everywhere the same.
pub fn verified(table: &TableState) -> Option<VerifiedView> {
    table.verified.as_ref().map(|verified| VerifiedView { position: verified.position.clone(), time: clock::text(verified.micros), rows: verified.rows })
}

/// When a table's two counts were true: the older of both.
pub fn counts_as_of(table: &TableState) -> Option<i64> {
    match (table.source_rows, table.target_rows) {
        (Some(source), Some(target)) => Some(source.as_of_micros.min(target.as_of_micros)),
        (Some(one), None) | (None, Some(one)) => Some(one.as_of_micros),
        (None, None) => None,
    }
}

/// The view of one table.
pub fn view(id: &TableId, table: &TableState, applies: bool, now: i64) -> TableView {
    let copy = table.copy.as_ref().map(|mark| {
        let rate = table.copy_times.and_then(|(first, latest, at_first)| {
            let seconds = (latest - first) as f64 / 1e6;
            (seconds > 0.2).then(|| mark.rows_done.saturating_sub(at_first) as f64 / seconds)
        });
        let left = rate.filter(|rate| *rate > 0.0).map(|rate| mark.rows_expected.saturating_sub(mark.rows_done) as f64 / rate);
        CopyView { rows_done: mark.rows_done, rows_expected: mark.rows_expected, rows_per_second: rate, seconds_left: left.filter(|_| !mark.done), done: mark.done }
    });
    let open = |verdict| table.open.get(&verdict).copied().unwrap_or(0);
    TableView {
        table: id.to_string(),
        target: match &table.partner {
            Partner::Table(target) => Some(target.id.to_string()),
            _ => None,
        },
        status: table.status().as_str(),
        source_rows: table.source_rows.map(|rows| rows.rows.max(0)),
        target_rows: table.target_rows.map(|rows| rows.rows.max(0)),
        rows_estimated: table.source_rows.is_some_and(|rows| rows.estimated) || table.target_rows.is_some_and(|rows| rows.estimated),
        counts_as_of: counts_as_of(table).map(clock::text),
        sync_percentage: table.sync_percentage(),
        copy,
        last: table.last.as_ref().map(|last| LastView { operation: last.op.as_str(), timestamp: clock::text(last.commit_micros) }),
        lag_seconds: applies.then(|| table.pending_since.map_or(0.0, |since| (now - since).max(0) as f64 / 1e6)),
        pending: table.pending,
        verified_through: verified(table),
        findings: FindingCounts { total: table.open_total(), missing: open(Verdict::Missing), extra: open(Verdict::Extra), changed: open(Verdict::Changed) },
        unverified: table.unjudged().map(|entry: &state::Unverified| UnverifiedView { columns: entry.columns.clone(), reason: entry.reason.clone() }).collect(),
        notes: table.notes.clone(),
        representation_only: table.representation_only.clone(),
        stopped: table.stopped.clone(),
        paused: table.paused,
        check: table.check.as_ref().map(|check| CheckView { rows: check.rows, expected: check.expected }),
        operations: operations(&table.total),
        gone: table.gone,
    }
}

/// How every table stands, trouble first.
#[utoipa::path(get, path = "/api/v1/tables", tag = "tables", params(ListQuery), responses((status = 200, body = TableList), (status = 400, body = Problem)))]
pub async fn list(State(app): State<App>, query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>) -> Result<Json<TableList>, Problem> {
    let Query(query) = query?;
    let now = clock::now_micros();
    let picture = app.shared.picture();
    let state = &picture.state;
    let mut tables: Vec<(SyncStatus, TableView)> = state
        .tables
        .iter()
        .filter(|(_, table)| table.gone == query.gone && (table.gone || table.schema.is_some()))
        .map(|(id, table)| (table.status(), view(id, table, state.applies, now)))
        .collect();
    tables.sort_by_key(|(status, _)| *status);
    Ok(Json(TableList { tables: tables.into_iter().map(|(_, view)| view).collect(), timestamp: clock::text(now) }))
}

/// How one table stands, with its columns on both sides.
#[utoipa::path(get, path = "/api/v1/tables/{table}", tag = "tables", params(("table" = String, Path, description = "`schema.table` or `table`")),
    responses((status = 200, body = TableDetail), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub async fn one(State(app): State<App>, Path(name): Path<String>) -> Result<Json<TableDetail>, Problem> {
    let id = app.table(&name)?;
    let now = clock::now_micros();
    let picture = app.shared.picture();
    let state = &picture.state;
    let table = state.tables.get(&id).ok_or_else(|| Problem::not_found(format!("there is no table `{name}`")))?;
    let target = match &table.partner {
        Partner::Table(target) => Some(target),
        _ => None,
    };
    let columns = table
        .schema
        .iter()
        .flat_map(|schema| &schema.columns)
        .map(|column| {
            let other = target.and_then(|target| validation::plan::target_column(target, &column.name));
            ColumnView {
                name: column.name.clone(),
                source_type: column.ty.to_string(),
                target_type: other.map(|other| other.ty.clone()),
                key: column.key_ordinal.is_some(),
                compared: other.is_some_and(|other| plumbline_sdk::canon::Rule::new(column, other).is_ok()),
            }
        })
        .collect();
    let schema_changes = table
        .schema_changes
        .iter()
        .map(|change| SchemaChangeView { kind: change.kind, timestamp: clock::text(change.commit_micros), position: change.position.clone() })
        .collect();
    Ok(Json(TableDetail { table: view(&id, table, state.applies, now), columns, schema_changes }))
}

async fn set_paused(app: &App, name: &str, paused: bool) -> Result<Json<TableView>, Problem> {
    let id = app.table(name)?;
    app.shared.ask(|reply| Command::Pause { table: id.clone(), paused, reply }).await?;
    let picture = app.shared.picture();
    let table = picture.state.tables.get(&id).ok_or_else(|| Problem::not_found(format!("there is no table `{name}`")))?;
    Ok(Json(view(&id, table, picture.state.applies, clock::now_micros())))
}

/// Stop checking a table by schedule. Changes are counted and applied on.
#[utoipa::path(post, path = "/api/v1/tables/{table}/pause", tag = "tables", params(("table" = String, Path, description = "`schema.table` or `table`")),
    responses((status = 200, body = TableView), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub async fn pause(State(app): State<App>, Path(name): Path<String>) -> Result<Json<TableView>, Problem> {
    set_paused(&app, &name, true).await
}

/// Go on checking a table by schedule.
#[utoipa::path(post, path = "/api/v1/tables/{table}/resume", tag = "tables", params(("table" = String, Path, description = "`schema.table` or `table`")),
    responses((status = 200, body = TableView), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub async fn resume(State(app): State<App>, Path(name): Path<String>) -> Result<Json<TableView>, Problem> {
    set_paused(&app, &name, false).await
}
