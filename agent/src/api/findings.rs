//! Differences that were proved.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use plumbline_sdk::plugin::{FindingQuery, StoredFinding};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::App;
use crate::api::problem::Problem;
use crate::clock;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct FindingsQuery {
    /// Only of this table.
    table: Option<String>,
    /// `open` (the default), `resolved` or `all`.
    #[param(pattern = "^(open|resolved|all)$")]
    state: Option<String>,
    /// At most so many; 100 if not said.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[0-9]{1,18}$")]
    cursor: Option<String>,
}

/// A difference.
#[derive(Debug, Serialize, ToSchema)]
pub struct FindingView {
    id: u64,
    table: String,
    /// `missing`, `extra`, `changed`.
    verdict: &'static str,
    /// Key columns as text; `{}` for a table without key.
    key: BTreeMap<String, String>,
    columns: Vec<String>,
    cause: Option<String>,
    /// `position` or `time`.
    settled_by: String,
    validator: String,
    position: Option<String>,
    found_at: String,
    last_seen_at: String,
    resolved_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    copies_source: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    copies_target: Option<u64>,
}

/// A page of differences, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct FindingPage {
    findings: Vec<FindingView>,
    /// For the next page; null: this was the last.
    next_cursor: Option<String>,
    /// All open ones, of the table where one was named.
    total_open: u64,
}

fn view(stored: StoredFinding) -> FindingView {
    let finding = stored.finding;
    FindingView {
        id: stored.id,
        table: finding.table.to_string(),
        verdict: finding.verdict.as_str(),
        key: finding.key,
        columns: finding.columns,
        cause: finding.cause,
        settled_by: finding.settled_by,
        validator: finding.validator,
        position: finding.position,
        found_at: clock::text(stored.found_micros),
        last_seen_at: clock::text(stored.last_seen_micros),
        resolved_at: stored.resolved_micros.map(clock::text),
        copies_source: finding.copies.map(|(source, _)| source),
        copies_target: finding.copies.map(|(_, target)| target),
    }
}

/// Differences, newest first, a page at a time.
#[utoipa::path(get, path = "/api/v1/findings", tag = "findings", params(FindingsQuery),
    responses((status = 200, body = FindingPage), (status = 400, body = Problem), (status = 404, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
pub async fn list(State(app): State<App>, query: Result<Query<FindingsQuery>, QueryRejection>) -> Result<Json<FindingPage>, Problem> {
    let Query(query) = query?;
    let table = query.table.as_deref().map(|name| app.table(name)).transpose()?;
    let open = match query.state.as_deref() {
        None | Some("open") => Some(true),
        Some("resolved") => Some(false),
        Some("all") => None,
        Some(other) => return Err(Problem::unprocessable(format!("`state` is `{other}`; `open`, `resolved` or `all` would have been accepted"))),
    };
    let limit = query.limit.unwrap_or(100);
    if !(1..=1000).contains(&limit) {
        return Err(Problem::unprocessable(format!("`limit` is {limit}; 1 to 1000 would have been accepted")));
    }
    let before = query.cursor.map(|cursor| cursor.parse().map_err(|_| Problem::unprocessable("`cursor` is none that this agent gave"))).transpose()?;
    let asked = FindingQuery { table: table.clone(), open, before, limit: limit + 1 };
    let mut found = app.shared.history.findings(&asked).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next_cursor = found.last().filter(|_| more).map(|last| last.id.to_string());
    let total_open = {
        let picture = app.shared.picture();
        picture.state.tables.iter().filter(|(id, _)| table.as_ref().is_none_or(|table| table == *id)).map(|(_, table)| table.open_total()).sum()
    };
    Ok(Json(FindingPage { findings: found.into_iter().map(view).collect(), next_cursor, total_open }))
}
