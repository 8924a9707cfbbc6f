//! Errors as problem+json (RFC 9457).

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use plumbline_sdk::{Error, ErrorKind};
use serde::Serialize;
use utoipa::ToSchema;

/// What went wrong.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// `about:blank`: the status says what kind it is.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What happened and what would have been accepted.
    detail: String,
    /// The path that was asked for.
    #[schema(value_type = String)]
    instance: Box<str>,
    /// The header `x-request-id` of the request, else a new one; the answer's header has it too.
    #[schema(value_type = String)]
    request_id: Box<str>,
    /// 32 hex digits, of the request's header `traceparent`, else new ones.
    #[schema(value_type = String)]
    trace_id: Box<str>,
    #[serde(skip)]
    #[schema(ignore)]
    retry_after: Option<u16>,
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("error"),
            status: status.as_u16(),
            detail: detail.into(),
            instance: Box::default(),
            request_id: Box::default(),
            trace_id: Box::default(),
            retry_after: None,
        }
    }
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }
    pub fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }
    /// Says after how many seconds it is worth asking again.
    pub fn retry_after(mut self, seconds: u16) -> Self {
        self.retry_after = Some(seconds);
        self
    }
    /// Says of which request it is.
    pub fn of(mut self, instance: &str, request_id: &str, trace_id: &str) -> Self {
        (self.instance, self.request_id, self.trace_id) = (instance.into(), request_id.into(), trace_id.into());
        self
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::Rejected => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorKind::Disconnected | ErrorKind::Config | ErrorKind::Rewound => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Fatal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.chain())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

/// The answer carries the problem itself as well, for `guard::finish`, which knows the request.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&self)).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// No such path.
pub async fn not_found(uri: Uri) -> Problem {
    Problem::not_found(format!("there is nothing at `{}`; `/docs` says what there is", shorten(uri.path())))
}

/// The path is there, the method is not.
pub async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("`{method}` is not possible at `{}`; the header `Allow` says what is", shorten(uri.path())))
}

/// A handler panicked: a fault of ours.
pub fn panicked(_: Box<dyn std::any::Any + Send + 'static>) -> Response {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the agent made a mistake in answering; its log says more").into_response()
}

/// A path as it may stand in an answer.
pub fn shorten(path: &str) -> String {
    path.chars().take(200).collect()
}
