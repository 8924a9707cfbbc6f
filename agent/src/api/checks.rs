//! Comparisons: started, watched, cancelled.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::App;
use crate::api::body::{Fields, TableName};
use crate::api::problem::Problem;
use crate::clock;
use crate::shared::{Check, Command};

/// A comparison.
#[derive(Debug, Serialize, ToSchema)]
pub struct CheckInfo {
    id: u64,
    /// `schedule` or `api`.
    asked_by: &'static str,
    /// `rows` or `counts`.
    mode: &'static str,
    /// `queued`, `running`, `done`, `cancelled`.
    state: &'static str,
    tables: Vec<String>,
    /// By table: the object that `plumbline compare --json` prints for a table.
    #[schema(value_type = Object)]
    results: BTreeMap<String, crate::shared::TableReport>,
    started_at: Option<String>,
    ended_at: Option<String>,
}

/// Several comparisons.
#[derive(Debug, Serialize, ToSchema)]
pub struct CheckList {
    checks: Vec<CheckInfo>,
}

impl From<&Check> for CheckInfo {
    fn from(check: &Check) -> Self {
        Self {
            id: check.id,
            asked_by: check.asked_by,
            mode: check.mode,
            state: check.state,
            tables: check.tables.clone(),
            results: check.results.clone(),
            started_at: check.started_micros.map(clock::text),
            ended_at: check.ended_micros.map(clock::text),
        }
    }
}

/// The newest comparisons, newest first.
#[utoipa::path(get, path = "/api/v1/checks", tag = "checks", responses((status = 200, body = CheckList)))]
pub async fn list(State(app): State<App>) -> Json<CheckList> {
    Json(CheckList { checks: app.shared.checks().iter().rev().map(CheckInfo::from).collect() })
}

/// What to compare.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartCheck {
    /// These tables; none: all.
    #[serde(default)]
    tables: Vec<TableName>,
    /// Compare rows (the default), or counts only.
    full: Option<bool>,
}

/// A comparison was queued.
#[derive(Debug, Serialize, ToSchema)]
pub struct StartedCheck {
    id: u64,
    /// Where to ask how far it is.
    status_url: String,
}

/// Starts a comparison.
#[utoipa::path(post, path = "/api/v1/checks", tag = "checks", request_body = StartCheck,
    responses((status = 202, body = StartedCheck), (status = 400, body = Problem), (status = 404, body = Problem), (status = 413, body = Problem),
        (status = 415, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
pub async fn start(State(app): State<App>, Fields(body): Fields<StartCheck>) -> Result<Response, Problem> {
    let tables = body.tables.iter().map(|name| app.table(&name.0)).collect::<Result<Vec<_>, _>>()?;
    let full = body.full.unwrap_or(true);
    let id = app.shared.ask(|reply| Command::Check { tables, full, reply }).await?;
    let status_url = format!("/api/v1/checks/{id}");
    let mut response = (StatusCode::ACCEPTED, Json(StartedCheck { id, status_url: status_url.clone() })).into_response();
    if let Ok(location) = HeaderValue::from_str(&status_url) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

fn id_of(path: Result<Path<u64>, PathRejection>) -> Result<u64, Problem> {
    path.map(|Path(id)| id).map_err(|_| Problem::unprocessable("a check's id is a whole number"))
}

fn no_check(id: u64) -> Problem {
    Problem::not_found(format!("there is no check {id}; the newest ones stand at `/api/v1/checks`"))
}

/// One comparison.
#[utoipa::path(get, path = "/api/v1/checks/{id}", tag = "checks", params(("id" = u64, Path, description = "its id")),
    responses((status = 200, body = CheckInfo), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub async fn one(State(app): State<App>, id: Result<Path<u64>, PathRejection>) -> Result<Json<CheckInfo>, Problem> {
    let id = id_of(id)?;
    app.shared.checks().iter().find(|check| check.id == id).map(|check| Json(CheckInfo::from(check))).ok_or_else(|| no_check(id))
}

/// Cancels a comparison that runs or waits. One that has ended stays as it is.
#[utoipa::path(delete, path = "/api/v1/checks/{id}", tag = "checks", params(("id" = u64, Path, description = "its id")),
    responses((status = 200, body = CheckInfo), (status = 404, body = Problem), (status = 422, body = Problem), (status = 503, body = Problem)))]
pub async fn cancel(State(app): State<App>, id: Result<Path<u64>, PathRejection>) -> Result<Json<CheckInfo>, Problem> {
    let id = id_of(id)?;
    app.shared.ask(|reply| Command::CancelCheck { id, reply }).await?;
    app.shared.checks().iter().find(|check| check.id == id).map(|check| Json(CheckInfo::from(check))).ok_or_else(|| no_check(id))
}
