//! What a request says in its body, where every field may be left out.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use utoipa::ToSchema;

use crate::api::problem::Problem;

/// A table's name, `table` or `schema.table`. Odd names, with points of their own, are found as well where such a table is.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(pattern = "^[^.\\u0000]{1,64}(\\.[^.\\u0000]{1,64})?$")]
pub struct TableName(pub String);

/// How long a client may take to send its body.
const WAIT: Duration = Duration::from_secs(10);

/// The fields of a JSON object; no body at all says the same as `{}`, and a body without content type is taken for JSON.
pub struct Fields<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for Fields<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let refused = not_json(request.headers());
        let body = match tokio::time::timeout(WAIT, Bytes::from_request(request, state)).await {
            Ok(body) => body.map_err(|cause| Problem::new(cause.status(), cause.body_text()))?,
            Err(_) => return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, format!("the body did not come within {} s", WAIT.as_secs()))),
        };
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self(T::default()));
        }
        match refused {
            Some(problem) => Err(problem),
            None => parse(&body).map(Self),
        }
    }
}

/// What is wrong with the content type, if it names one that is not JSON.
fn not_json(headers: &HeaderMap) -> Option<Problem> {
    let given = headers.get(header::CONTENT_TYPE)?;
    let named = given.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let json = named == "application/json" || (named.starts_with("application/") && named.ends_with("+json"));
    (!json).then(|| Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("the body is `{named}`; `application/json` would have been accepted")))
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let fields = serde_json::from_slice(body).map_err(|cause| match cause.classify() {
        Category::Data => Problem::unprocessable(format!("the body is not what is asked for here: {cause}")),
        Category::Syntax | Category::Eof | Category::Io => Problem::new(StatusCode::BAD_REQUEST, format!("the body is not JSON: {cause}; an object such as `{{}}` would have been accepted")),
    })?;
    // Read as they stand, the fields of a structure could come as a list as well.
    if body.trim_ascii_start().starts_with(b"{") { Ok(fields) } else { Err(Problem::unprocessable("the body is not an object; one such as `{}` would have been accepted")) }
}
