//! Who may call, and what every answer carries.

use std::time::Instant;

use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use crate::api::App;
use crate::api::problem::Problem;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const COOKIE: &str = "plumbline_token";
/// Paths that an orchestrator or a scraper asks without a token: they tell nothing of the data.
const OPEN: [&str; 2] = ["/livez", "/readyz"];

/// Refuses foreign host names (a page of another site could otherwise talk to an agent on loopback) and callers without the token.
pub async fn admit(State(app): State<App>, request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).map(str::to_owned).or_else(|| request.uri().host().map(str::to_owned));
    if let Some(host) = host
        && !is_known_host(&host, &app)
    {
        return Problem::new(StatusCode::MISDIRECTED_REQUEST, format!("the agent is not called `{host}`; add the name to the setting `hosts`")).into_response();
    }
    let Some(token) = &app.config.token else { return next.run(request).await };
    if OPEN.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    // The page is opened once with `?token=`; from then on a cookie carries it, and the address bar does not.
    let asked = request.uri().query().and_then(|query| query.split('&').find_map(|part| part.strip_prefix("token=")).map(str::to_owned));
    if let Some(given) = &asked
        && request.uri().path() == "/"
        && is_equal(given, token.expose())
    {
        let cookie = format!("{COOKIE}={given}; HttpOnly; SameSite=Strict; Path=/");
        let mut response = (StatusCode::SEE_OTHER, [(header::LOCATION, "/")]).into_response();
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            response.headers_mut().insert(header::SET_COOKIE, cookie);
        }
        return response;
    }
    if has_token(request.headers(), token.expose()) {
        return next.run(request).await;
    }
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, "a token is asked for: send `Authorization: Bearer TOKEN`, or open the page as `/?token=TOKEN`").into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// Whether the header or the cookie carries the token.
fn has_token(headers: &HeaderMap, token: &str) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer ")).map(str::trim);
    let cookie = text(header::COOKIE).and_then(|value| value.split(';').find_map(|part| part.trim().strip_prefix(COOKIE)?.strip_prefix('=')));
    [bearer, cookie].into_iter().flatten().any(|given| is_equal(given, token))
}

fn is_known_host(host: &str, app: &App) -> bool {
    let name = |host: &str| {
        let host = host.to_ascii_lowercase();
        match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) && !name.ends_with(':') => name.trim_matches(['[', ']']).to_owned(),
            _ => host.trim_matches(['[', ']']).to_owned(),
        }
    };
    let called = name(host);
    called == "localhost"
        || called.parse::<std::net::IpAddr>().is_ok()
        || called == name(&app.config.listen)
        || app.config.hosts.iter().any(|known| known.eq_ignore_ascii_case(&called) || known == "*")
}

/// Takes the same time wherever the texts differ.
fn is_equal(given: &str, token: &str) -> bool {
    let (given, token) = (given.as_bytes(), token.as_bytes());
    let mut difference = u8::from(given.len() != token.len());
    for (i, byte) in given.iter().enumerate() {
        difference |= byte ^ token.get(i % token.len().max(1)).copied().unwrap_or(0);
    }
    difference == 0
}

/// Counts the request by its route, not by its path.
pub async fn measure(State(app): State<App>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or_else(|| "other".to_owned(), |path| path.as_str().to_owned());
    let method = request.method().clone();
    let response = next.run(request).await;
    app.metrics.http_request(method.as_str(), &route, response.status().as_u16(), started.elapsed());
    response
}

/// What every answer carries: a request id, safe defaults for browsers; and problems their instance.
pub async fn finish(request: Request, next: Next) -> Response {
    let id = request
        .headers()
        .get(REQUEST_ID)
        .and_then(|id| id.to_str().ok())
        .filter(|id| id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)))
        .map_or_else(new_id, str::to_owned);
    let path = request.uri().path().chars().take(200).collect::<String>();
    let docs = path.starts_with("/docs");
    let mut response = next.run(request).await;
    let plain_error = (response.status().is_client_error() || response.status().is_server_error())
        && response.headers().get(header::CONTENT_TYPE).is_none_or(|kind| !kind.as_bytes().starts_with(b"application/"));
    if plain_error {
        response = reword(response).await;
    }
    if response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/problem+json") {
        response = with_instance(response, &path, &id).await;
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    // Swagger UI styles itself inline; nothing else here may.
    let policy = if docs {
        "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; font-src 'self' data:"
    } else {
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    };
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Refusals that the web library words itself become problems.
async fn reword(response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let detail = to_bytes(body, 4096).await.ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).filter(|text| !text.is_empty());
    let detail = detail.unwrap_or_else(|| parts.status.canonical_reason().unwrap_or("error").to_owned());
    let mut response = Problem::new(parts.status, detail).into_response();
    if let Some(allow) = parts.headers.get(header::ALLOW) {
        response.headers_mut().insert(header::ALLOW, allow.clone());
    }
    response
}

async fn with_instance(response: Response, path: &str, id: &str) -> Response {
    let (mut parts, body) = response.into_parts();
    let bytes = to_bytes(body, 64 * 1024).await.unwrap_or_default();
    let body = match serde_json::from_slice::<Value>(&bytes) {
        Ok(Value::Object(mut problem)) => {
            problem.insert("instance".into(), Value::String(path.to_owned()));
            problem.insert("request_id".into(), Value::String(id.to_owned()));
            Value::Object(problem).to_string().into_bytes()
        }
        _ => bytes.to_vec(),
    };
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(body))
}

fn new_id() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{:016x}", xxhash_rust::xxh3::xxh3_64(format!("{}-{number}", crate::clock::now_micros()).as_bytes()))
}
