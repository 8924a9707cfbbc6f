//! The Debezium connector: how it is, and what people ask of it.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use plumbline_sdk::ErrorKind;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::App;
use crate::api::problem::{Problem, shorten};
use crate::clock;
use crate::connectors::{ConnectorAction, ConnectorView};
use crate::shared::Command;

/// The connectors that the agent cares for.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConnectorList {
    /// One, or none where no connector is managed or it was not looked at yet.
    connectors: Vec<ConnectorView>,
    timestamp: String,
}

/// The connectors that the agent cares for, as of the last look.
#[utoipa::path(get, path = "/api/v1/connectors", tag = "connectors", responses((status = 200, body = ConnectorList)))]
pub async fn list(State(app): State<App>) -> Json<ConnectorList> {
    Json(ConnectorList { connectors: app.shared.connector().into_iter().collect(), timestamp: clock::text(clock::now_micros()) })
}

/// The connector of this name. Of others, whatever they are, nothing is said and nothing is done.
fn named(app: &App, name: Result<Path<String>, PathRejection>) -> Result<ConnectorView, Problem> {
    let Path(name) = name?;
    let Some(view) = app.shared.connector() else {
        return Err(Problem::not_found("no connector is cared for: set `KAFKA_BOOTSTRAP_SERVERS` and `CONNECT_URL`; with both set, it was not looked at yet"));
    };
    if view.name != name {
        return Err(Problem::not_found(format!("the agent cares for no connector `{}`; it does for `{}`", shorten(&name), view.name)));
    }
    Ok(view)
}

/// The connector: its state, its tasks, how far it has read, what was changed in its settings, its settings.
#[utoipa::path(get, path = "/api/v1/connectors/{name}", tag = "connectors", params(("name" = String, Path, description = "its name")),
    responses((status = 200, body = ConnectorView), (status = 404, body = Problem)))]
pub async fn one(State(app): State<App>, name: Result<Path<String>, PathRejection>) -> Result<Json<ConnectorView>, Problem> {
    named(&app, name).map(Json)
}

/// Passes an order on. Kafka Connect does it in its own time: 202, and where to see how far it is.
async fn order(app: &App, name: Result<Path<String>, PathRejection>, action: ConnectorAction) -> Result<Response, Problem> {
    let before = named(app, name)?;
    let done = app.shared.ask(|reply| Command::Connector { action, reply }).await;
    done.map_err(|error| match error.kind() {
        // Not ours, not there: the order is right, the connector is not.
        ErrorKind::Rejected => Problem::conflict(error.chain()),
        _ => Problem::from(error),
    })?;
    let mut response = (StatusCode::ACCEPTED, Json(app.shared.connector().unwrap_or_else(|| before.clone()))).into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("/api/v1/connectors/{}", before.name)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Makes the connector read no more until it is resumed; the agent does not resume it by itself.
#[utoipa::path(post, path = "/api/v1/connectors/{name}/pause", tag = "connectors", params(("name" = String, Path, description = "its name")),
    responses((status = 202, body = ConnectorView), (status = 404, body = Problem), (status = 409, body = Problem), (status = 503, body = Problem)))]
pub async fn pause(State(app): State<App>, name: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    order(&app, name, ConnectorAction::Pause).await
}

/// Lets it go on after a pause or a stop. One that was removed is made anew.
#[utoipa::path(post, path = "/api/v1/connectors/{name}/resume", tag = "connectors", params(("name" = String, Path, description = "its name")),
    responses((status = 202, body = ConnectorView), (status = 404, body = Problem), (status = 409, body = Problem), (status = 503, body = Problem)))]
pub async fn resume(State(app): State<App>, name: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    order(&app, name, ConnectorAction::Resume).await
}

/// Ends its task until it is resumed; its settings and its place stay.
#[utoipa::path(post, path = "/api/v1/connectors/{name}/stop", tag = "connectors", params(("name" = String, Path, description = "its name")),
    responses((status = 202, body = ConnectorView), (status = 404, body = Problem), (status = 409, body = Problem), (status = 503, body = Problem)))]
pub async fn stop(State(app): State<App>, name: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    order(&app, name, ConnectorAction::Stop).await
}

/// Starts it and its task again, as after a fault was mended.
#[utoipa::path(post, path = "/api/v1/connectors/{name}/restart", tag = "connectors", params(("name" = String, Path, description = "its name")),
    responses((status = 202, body = ConnectorView), (status = 404, body = Problem), (status = 409, body = Problem), (status = 503, body = Problem)))]
pub async fn restart(State(app): State<App>, name: Result<Path<String>, PathRejection>) -> Result<Response, Problem> {
    order(&app, name, ConnectorAction::Restart).await
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct RemoveQuery {
    /// Forget its place in the binlog too: one made anew then reads all rows first.
    #[serde(default)]
    forget: bool,
}

/// Removes it; its topics stay. It is made anew when it is resumed, or when the agent starts anew.
#[utoipa::path(delete, path = "/api/v1/connectors/{name}", tag = "connectors", params(("name" = String, Path, description = "its name"), RemoveQuery),
    responses((status = 202, body = ConnectorView), (status = 400, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem), (status = 503, body = Problem)))]
pub async fn remove(State(app): State<App>, name: Result<Path<String>, PathRejection>, query: Result<Query<RemoveQuery>, QueryRejection>) -> Result<Response, Problem> {
    let Query(RemoveQuery { forget }) = query?;
    order(&app, name, ConnectorAction::Remove { forget }).await
}
