//! Who may call, and what every answer carries.

use std::time::Instant;

use axum::body::to_bytes;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::api::App;
use crate::api::legacy::VALIDATE_WAIT;
use crate::api::problem::{Problem, shorten};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const COOKIE: &str = "plumbline_session";
/// Paths that an orchestrator asks without a token: they tell nothing of the data.
const OPEN: [&str; 2] = ["/livez", "/readyz"];

/// What the page says to somebody who may not see it.
const CLOSED: &str = "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>Plumbline</title>\n\
<h1>Plumbline asks for its token</h1>\n<p>WHY</p>\n\
<p>Open this page once as <code>/?token=TOKEN</code>, with the agent's <code>PLUMBLINE_TOKEN</code>. A cookie remembers it, and the address bar does not.</p>\n\
<p>Scripts send <code>Authorization: Bearer TOKEN</code>.</p>\n</html>\n";

/// Lets a request in if it is meant for this agent, comes from a page of this agent where it comes from a page, and carries the token.
pub async fn admit(State(app): State<App>, request: Request, next: Next) -> Response {
    if let Err(problem) = check_host(&request, &app).and_then(|()| check_origin(&request, &app)) {
        return problem.into_response();
    }
    let Some(session) = &app.session else { return next.run(request).await };
    let path = request.uri().path();
    if OPEN.contains(&path) {
        return next.run(request).await;
    }
    // The page is opened once with `?token=`; from then on a cookie says that it was, and the address bar does not.
    let asked = if path == "/" { given_tokens(request.uri().query().unwrap_or_default()) } else { Vec::new() };
    if asked.iter().any(|token| is_equal(token, session.token.expose())) {
        return opened(&session.cookie);
    }
    if session.knows(request.headers()) {
        return next.run(request).await;
    }
    let mut response = if path == "/" {
        let why = if asked.is_empty() { "Nobody has told it in this browser, or the token is another one now." } else { "The token in the address is not the one of this agent." };
        (StatusCode::UNAUTHORIZED, Html(CLOSED.replace("WHY", why))).into_response()
    } else {
        Problem::new(StatusCode::UNAUTHORIZED, "a token is asked for: send `Authorization: Bearer TOKEN`, or open the page as `/?token=TOKEN`").into_response()
    };
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// The token and what a browser keeps in its place.
pub struct Session {
    token: plumbline_sdk::Secret,
    cookie: String,
}

impl Session {
    /// The cookie follows from the token, so that it outlives a restart and ends with the token; the way back is made long.
    pub fn new(token: plumbline_sdk::Secret) -> Self {
        const ROUNDS: usize = 100_000;
        let mut hash = Sha256::new_with_prefix(b"plumbline session 1\0").chain_update(token.expose()).finalize();
        for _ in 0..ROUNDS {
            hash = Sha256::new_with_prefix(hash).chain_update(token.expose()).finalize();
        }
        Self { token, cookie: hash.iter().map(|byte| format!("{byte:02x}")).collect() }
    }

    /// Whether the header carries the token, or the cookie says that the page was opened with it.
    fn knows(&self, headers: &HeaderMap) -> bool {
        let bearer = text(headers, header::AUTHORIZATION).and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';'));
        let mut sessions = cookies.filter_map(|part| part.trim().strip_prefix(COOKIE)?.strip_prefix('='));
        bearer.is_some_and(|(_, given)| is_equal(given.trim(), self.token.expose())) || sessions.any(|given| is_equal(given, &self.cookie))
    }
}

/// Sends the browser to the page itself, with the cookie.
fn opened(session: &str) -> Response {
    let mut response = (StatusCode::SEE_OTHER, [(header::LOCATION, "/")]).into_response();
    if let Ok(cookie) = HeaderValue::from_str(&format!("{COOKIE}={session}; HttpOnly; SameSite=Strict; Path=/")) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

/// Every reading of `token=` in a query: a plus sign may be one (typed by hand), or a space (sent by a form).
fn given_tokens(query: &str) -> Vec<String> {
    query.split('&').filter_map(|part| part.strip_prefix("token=")).flat_map(|given| [percent_decoded(given), percent_decoded(&given.replace('+', " "))]).collect()
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let decoded = match (first, tail) {
            (b'%', [high, low, ..]) => char::from(*high).to_digit(16).zip(char::from(*low).to_digit(16)).and_then(|(high, low)| u8::try_from(high * 16 + low).ok()),
            _ => None,
        };
        bytes.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The name by which the agent is called.
fn called(request: &Request) -> Option<&str> {
    text(request.headers(), header::HOST).or_else(|| request.uri().authority().map(|authority| authority.as_str()))
}

/// Refuses foreign host names: a page of another site could otherwise talk to an agent on loopback.
fn check_host(request: &Request, app: &App) -> Result<(), Problem> {
    match called(request) {
        Some(host) if !is_known_host(host, app) => {
            Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, format!("the agent is not called `{}`; add the name to the setting `hosts`", shorten(host))))
        }
        _ => Ok(()),
    }
}

/// Refuses orders that a page of another site makes a browser send. Scripts send neither header.
fn check_origin(request: &Request, app: &App) -> Result<(), Problem> {
    if matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    let origin = request.headers().get(header::ORIGIN).map(|origin| origin.to_str().unwrap_or("null"));
    let site = text(request.headers(), FETCH_SITE).unwrap_or("none");
    let same = |origin: &str| {
        let Some((_, authority)) = origin.split_once("://") else { return false };
        called(request).is_some_and(|host| host.eq_ignore_ascii_case(authority)) || app.config.hosts.iter().any(|known| known.eq_ignore_ascii_case(&host_name(authority)))
    };
    if matches!(site, "none" | "same-origin") && origin.is_none_or(same) {
        return Ok(());
    }
    let from = origin.map_or_else(|| "another site".to_owned(), |origin| format!("`{}`", shorten(origin)));
    Err(Problem::new(StatusCode::FORBIDDEN, format!("the order comes from a page of {from}, which is not this agent; its own page may, and scripts without the header `Origin`")))
}

/// Host without port and brackets, in lower case.
fn host_name(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) && !name.ends_with(':') => name.trim_matches(['[', ']']).to_owned(),
        _ => host.trim_matches(['[', ']']).to_owned(),
    }
}

fn is_known_host(host: &str, app: &App) -> bool {
    let called = host_name(host);
    called == "localhost"
        || called.parse::<std::net::IpAddr>().is_ok()
        || called == host_name(&app.config.listen)
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

/// Gives an answer in bounded time. A stream has answered when it begins.
pub async fn in_time(State(app): State<App>, request: Request, next: Next) -> Response {
    // This one waits for a comparison by itself, and then answers with what there is.
    let more = if request.uri().path() == "/validate" { VALIDATE_WAIT } else { std::time::Duration::ZERO };
    let wait = app.limits.answer + more;
    match tokio::time::timeout(wait, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(StatusCode::GATEWAY_TIMEOUT, format!("no answer within {} s; `/health` says which side is slow or away", wait.as_secs_f64())).into_response(),
    }
}

/// What every answer carries: a request id, safe defaults for browsers; and problems say of which request they are.
pub async fn finish(request: Request, next: Next) -> Response {
    let id = text(request.headers(), REQUEST_ID)
        .filter(|id| (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)))
        .map_or_else(|| format!("{:016x}", rand::random::<u64>()), str::to_owned);
    let trace = text(request.headers(), TRACEPARENT).and_then(trace_of).map_or_else(|| format!("{:032x}", rand::random_range(1..=u128::MAX)), str::to_owned);
    let path = shorten(request.uri().path());
    let docs = path.starts_with("/docs");
    let mut response = next.run(request).await;
    if is_unworded(&response) {
        response = reword(response).await;
    }
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        response = named(response.headers(), problem.of(&path, &id, &trace));
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

/// The trace id of a `traceparent` (W3C Trace Context), where it is a valid one.
fn trace_of(parent: &str) -> Option<&str> {
    let is_hex = |part: &str, length: usize| part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let mut parts = parent.trim().split('-');
    let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    // A later version may say more at the end; the first one may not.
    let shape = is_hex(version, 2) && version != "ff" && is_hex(flags, 2) && (version != "00" || parts.next().is_none());
    let ids = [(trace, 32), (span, 16)].into_iter().all(|(id, length)| is_hex(id, length) && id.bytes().any(|byte| byte != b'0'));
    (shape && ids).then_some(trace)
}

/// Whether the web library refused in its own words.
fn is_unworded(response: &Response) -> bool {
    let status = response.status();
    let worded = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/") || kind.as_bytes().starts_with(b"text/html"));
    (status.is_client_error() || status.is_server_error()) && !worded
}

/// Refusals that the web library words itself become problems.
async fn reword(response: Response) -> Response {
    let (parts, body) = response.into_parts();
    let detail = to_bytes(body, 4096).await.ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).filter(|text| !text.is_empty());
    let detail = detail.unwrap_or_else(|| parts.status.canonical_reason().unwrap_or("error").to_owned());
    let problem = Problem::new(parts.status, detail);
    named(&parts.headers, problem)
}

/// The answer with the problem as its body; other headers stay.
fn named(headers: &HeaderMap, problem: Problem) -> Response {
    let mut response = problem.into_response();
    for (name, value) in headers {
        if ![header::CONTENT_LENGTH, header::CONTENT_TYPE, header::RETRY_AFTER].contains(name) {
            response.headers_mut().append(name, value.clone());
        }
    }
    response
}
