//! The router over a small ground: a picture with two tables, a history in memory, a desk that answers at once. No servers.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use futures::StreamExt as _;
use plumbline_sdk::plugin::{FindingQuery, HistoryReader, StoredEvent, StoredFinding};
use plumbline_sdk::{Column, Health, HealthState, Op, TableSchema, TargetTable, Verdict};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tower::ServiceExt as _;

use super::*;
use crate::shared::{AddTableError, AddedTable, Check, Command, Discovered, Latest, SharedParts, TableReport};
use crate::connectors::{ConnectorAction, ConnectorView, SinkView};
use crate::state::{Partner, TableState};
use crate::telemetry::ChangeTraces;

const TOKEN: &str = "0123456789abcdef+/ 0123456789abcdef";

/// Events in memory.
#[derive(Default)]
struct Events(Mutex<Vec<StoredEvent>>);

impl Events {
    fn add(&self, ids: impl IntoIterator<Item = u64>) {
        self.0.lock().expect("not poisoned").extend(ids.into_iter().map(|id| StoredEvent {
            id,
            table: "shop.orders".into(),
            operation: Op::Insert,
            commit_micros: 1_800_000_000_000_000,
            position: format!("p:{id}"),
            ordinal: 0,
            trace_id: format!("{id:032x}"),
            key_hash: format!("{id:016x}"),
        }));
    }
}

#[async_trait]
impl HistoryReader for Events {
    async fn events(&self, limit: u32, before: Option<u64>) -> Result<Vec<StoredEvent>> {
        let events = self.0.lock().expect("not poisoned");
        Ok(events.iter().rev().filter(|event| before.is_none_or(|before| event.id < before)).take(limit as usize).cloned().collect())
    }
    async fn findings(&self, _: &FindingQuery) -> Result<Vec<StoredFinding>> {
        Ok(Vec::new())
    }
    async fn open_findings(&self) -> Result<Vec<(TableId, Verdict, u64)>> {
        Ok(Vec::new())
    }
}

fn table(name: &str) -> (TableId, TableState) {
    let id = TableId::new("shop", name);
    let target = TargetTable { id: TableId::new("public", name), columns: Vec::new(), key: Vec::new() };
    let schema = TableSchema { id: id.clone(), columns: Vec::<Column>::new() };
    (id, TableState { schema: Some(Arc::new(schema)), partner: Partner::Table(Arc::new(target)), ..TableState::default() })
}

/// Everything that a test holds on to.
struct Ground {
    router: Router,
    shared: Arc<Shared>,
    events: Arc<Events>,
    limits: Limits,
    stop: watch::Sender<bool>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|cause| panic!("{cause}: {}", String::from_utf8_lossy(&self.body)))
    }
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
    /// The answer is a whole problem of this status; its detail.
    fn problem(&self, status: u16) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", String::from_utf8_lossy(&self.body));
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!((&problem["type"], &problem["status"]), (&json!("about:blank"), &json!(status)));
        assert!(problem["instance"].as_str().is_some_and(|path| path.starts_with('/')), "{problem:#}");
        assert_eq!(problem["request_id"], self.header("x-request-id"));
        let trace = problem["trace_id"].as_str().unwrap_or_default();
        assert!(trace.len() == 32 && trace.bytes().all(|digit| digit.is_ascii_hexdigit()), "{problem:#}");
        let detail = problem["detail"].as_str().unwrap_or_default().to_owned();
        assert!(!detail.is_empty(), "{problem:#}");
        detail
    }
}

impl Ground {
    fn new() -> Self {
        Self::with(None, Limits::default())
    }

    fn with(token: Option<&str>, limits: Limits) -> Self {
        let mut state = State { tables: [table("orders"), table("my.table"), table(".odd.")].into(), discovered: true, ..State::default() };
        for component in ["mysql", "postgres"] {
            state.health.insert(component.into(), (Health { component: component.into(), state: HealthState::Up, messages: Vec::new() }, 0));
        }
        let (commands_in, commands) = mpsc::channel(8);
        let events = Arc::new(Events::default());
        let shared = Shared::new(SharedParts {
            membership: None,
            pipeline: "test".into(),
            started_micros: 0,
            state,
            window_bytes: 1024,
            commands: commands_in,
            history: Arc::clone(&events) as Arc<dyn HistoryReader>,
            config: json!({}),
        });
        shared.streaming.store(true, Ordering::Relaxed);
        tokio::spawn(desk(Arc::clone(&shared), commands));
        let traces = ChangeTraces::start(&BTreeMap::new(), "test").expect("no collector is asked for");
        let metrics = Arc::new(Metrics::new("test", 10, traces));
        let config = ApiConfig {
            listen: "127.0.0.1:8000".into(),
            token: token.map(plumbline_sdk::Secret::new),
            hosts: vec!["plumb.example".into()],
            database: "shop".into(),
            discovery_interval: Duration::from_secs(30),
        };
        let (stop, stopping) = watch::channel(false);
        let router = router(App::new(config, Arc::clone(&shared), metrics, limits.clone(), stopping));
        Self { router, shared, events, limits, stop }
    }

    async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let response = self.open(method, path, headers, body).await;
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 10_000_000).await.expect("a body").to_vec();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn open(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> axum::response::Response {
        let mut request = Request::builder().method(method).uri(path).header("host", "127.0.0.1:8000");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.router.clone().oneshot(request.body(body.into()).expect("a request")).await.expect("an answer")
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], "").await
    }

    /// Serves on a port of its own until it is stopped.
    async fn serve(&self) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (router, limits, stop) = (self.router.clone(), self.limits.clone(), self.stop.subscribe());
        (address, tokio::spawn(async move { server::run(listener, router, &limits, stop).await }))
    }
}

/// Answers as the agent would; the table `slow` is never answered for.
async fn desk(shared: Arc<Shared>, mut commands: mpsc::Receiver<Command>) {
    let mut unanswered = Vec::new();
    while let Some(command) = commands.recv().await {
        match command {
            Command::Discover { reply } => drop(reply.send(Ok(Discovered { source: vec![(TableId::new("shop", "orders"), None), (TableId::new("shop", "tmp"), Some("`tmp`".into()))], target: Vec::new() }))),
            Command::AddTable { table, reply, .. } if table == "slow" => unanswered.push(reply),
            Command::AddTable { table, override_rule, reply } => drop(reply.send(match (table.as_str(), override_rule) {
                ("orders", _) => Ok(AddedTable { table: TableId::new("shop", "orders"), added: false }),
                ("tmp", false) => Err(AddTableError::Excluded("the rule `tmp`".into())),
                ("tmp", true) => Ok(AddedTable { table: TableId::new("shop", "tmp"), added: true }),
                _ => Err(AddTableError::NotFound),
            })),
            Command::Check { tables, full, reply } => {
                let id = shared.checks().len() as u64 + 1;
                let names: Vec<String> = tables.iter().map(ToString::to_string).collect();
                let results = names.iter().map(|name| (name.clone(), TableReport { table: name.clone(), verdict: "equal", ..TableReport::default() })).collect();
                let mode = if full { "rows" } else { "counts" };
                shared.checks().push(Check { id, asked_by: "api", mode, state: "done", tables: names, results, started_micros: Some(0), ended_micros: Some(1) });
                let _ = reply.send(Ok(id));
            }
            Command::CancelCheck { reply, .. } => drop(reply.send(Ok(false))),
            Command::Pause { reply, .. } => drop(reply.send(Ok(()))),
            Command::Latest { reply, .. } => drop(reply.send(Ok(Latest::default()))),
            Command::Connector { action, reply } => {
                let mut view = shared.connector().expect("one is shown");
                let done = match action {
                    _ if view.state == "TAKEN" => Err(Error::rejected("it is not ours")),
                    ConnectorAction::Pause => Ok("PAUSED"),
                    ConnectorAction::Stop => Ok("STOPPED"),
                    ConnectorAction::Resume => Ok("RUNNING"),
                    ConnectorAction::Restart => Err(Error::disconnected("Connect is away")),
                    ConnectorAction::Remove { forget } => Ok(if forget { "FORGOTTEN" } else { "REMOVED" }),
                };
                view.state = done.as_ref().map_or("TAKEN", |state| state).to_owned();
                shared.show_connector(Some(view));
                let _ = reply.send(done.map(drop));
            }
            Command::MigrationLog { reply, .. } => drop(reply.send(Ok(Vec::new()))),
        }
    }
}

#[tokio::test]
async fn a_problem_is_whole_for_a_client_that_asks_for_gzip() {
    let ground = Ground::new();
    for path in ["/nowhere", "/stats/nowhere", "/stats/%FF", "/docs/nowhere"] {
        let mut answer = ground.ask("GET", path, &[("accept-encoding", "gzip"), ("x-request-id", "mine-1")], "").await;
        assert_eq!(answer.header("content-encoding"), "gzip", "{path}");
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(answer.body.as_slice()).read_to_end(&mut plain).expect("gzip");
        answer.body = plain;
        answer.problem(answer.status.as_u16());
        assert_eq!((answer.json()["request_id"].as_str(), answer.json()["instance"].as_str()), (Some("mine-1"), Some(path)));
    }
}

#[tokio::test]
async fn a_name_that_cannot_be_one_is_told_from_one_that_is_not_there() {
    let ground = Ground::new();
    let (most, more) = ("x".repeat(64), "x".repeat(65));
    for (name, status) in [
        ("orders", 200),
        ("shop.orders", 200),
        ("my.table", 200),
        ("shop.my.table", 200),
        (".odd.", 200),
        ("shop..odd.", 200),
        ("nowhere", 404),
        ("shop.nowhere", 404),
        ("my.other.table", 404),
        (&most, 404),
        (&format!("{most}.{most}"), 404),
        (&more, 422),
        (&format!("shop.{more}"), 422),
        (&format!("{more}.orders"), 422),
        (&format!("{}.a", "x.".repeat(64)), 422),
        (".orders", 422),
        ("orders.", 422),
        (".", 422),
        ("shop..orders", 422),
        ("a%00b", 422),
    ] {
        let answer = ground.get(&format!("/stats/{name}")).await;
        assert_eq!(answer.status.as_u16(), status, "{name}");
        if status == 422 {
            let answer = ground.ask("POST", &format!("/table-monitor/add-table/{name}"), &[], "").await;
            assert!(answer.problem(422).contains("1 to 64 characters"), "{name}");
        }
    }
}

#[tokio::test]
async fn a_problem_names_the_trace_of_its_request() {
    let ground = Ground::new();
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let ask = async |parent: &str| {
        let answer = ground.ask("GET", "/nowhere", &[("traceparent", parent)], "").await;
        answer.problem(404);
        answer.json()["trace_id"].as_str().unwrap_or_default().to_owned()
    };
    for valid in ["00-T-00f067aa0ba902b7-01", "42-T-00f067aa0ba902b7-00-more"] {
        assert_eq!(ask(&valid.replace('T', trace)).await, trace, "{valid}");
    }
    for invalid in ["", "00-T", "ff-T-00f067aa0ba902b7-01", "00-T-0000000000000000-01", "00-T-00f067aa0ba902b7-01-more", "00-T-00f067aa0ba902b7", "0-T-00f067aa0ba902b7-01"] {
        assert_ne!(ask(&invalid.replace('T', trace)).await, trace, "{invalid}");
    }
    assert_ne!(ask(&format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32))).await, "0".repeat(32));
    assert_ne!(ask("").await, ask("").await);
}

#[tokio::test]
async fn viewers_beyond_the_limit_are_told_when_to_come_again() {
    let ground = Ground::with(None, Limits { viewers: 2, ..Limits::default() });
    let first = ground.open("GET", "/api/v1/events/stream", &[], "").await;
    let second = ground.open("GET", "/api/v1/page/stream", &[], "").await;
    assert_eq!((first.status(), second.status()), (StatusCode::OK, StatusCode::OK));
    for path in ["/api/v1/events/stream", "/api/v1/page/stream"] {
        let answer = ground.get(path).await;
        answer.problem(503);
        assert_eq!(answer.header("retry-after"), "5");
    }
    // A look at the head takes no place, and who leaves gives its place back.
    drop(second);
    assert_eq!(ground.ask("HEAD", "/api/v1/page/stream", &[], "").await.status, StatusCode::OK);
    assert_eq!(ground.open("GET", "/api/v1/page/stream", &[], "").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn an_answer_comes_in_bounded_time() {
    let ground = Ground::with(None, Limits { answer: Duration::from_millis(50), ..Limits::default() });
    assert!(ground.ask("POST", "/table-monitor/add-table/slow", &[], "").await.problem(504).contains("/health"));
    let stream = ground.open("GET", "/api/v1/page/stream", &[], "").await.into_body().into_data_stream();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(stream.take(1).next().await.is_some_and(|part| part.is_ok()), "a stream is not cut");
}

async fn read_to_end(stream: &mut tokio::net::TcpStream) -> String {
    let mut text = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut text)).await.expect("the connection ends");
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_its_connection() {
    let ground = Ground::with(None, Limits { head: Duration::from_millis(200), ..Limits::default() });
    let (address, _serving) = ground.serve().await;
    for begun in ["", "GET /livez HTTP/1.1\r\nhost: localhost\r\nx-slow: "] {
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
        stream.write_all(begun.as_bytes()).await.expect("written");
        assert!(!read_to_end(&mut stream).await.contains("200 OK"));
    }
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.expect("written");
    assert!(read_to_end(&mut stream).await.starts_with("HTTP/1.1 200 OK"), "an idle connection ends too");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let ground = Ground::with(None, Limits { connections: 1, head: Duration::from_secs(60), ..Limits::default() });
    let (address, _serving) = ground.serve().await;
    let first = tokio::net::TcpStream::connect(address).await.expect("a connection");
    let mut second = tokio::net::TcpStream::connect(address).await.expect("the system queues it");
    second.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.expect("written");
    let mut byte = [0];
    assert!(tokio::time::timeout(Duration::from_millis(300), second.read(&mut byte)).await.is_err(), "there is no place yet");
    drop(first);
    assert!(read_to_end(&mut second).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn a_client_that_takes_nothing_loses_its_connection() {
    let ground = Ground::with(None, Limits { connections: 1, stall: Duration::from_millis(300), ..Limits::default() });
    ground.events.add(1..=100_000);
    let (address, _serving) = ground.serve().await;
    let mut deaf = tokio::net::TcpStream::connect(address).await.expect("a connection");
    deaf.write_all(b"GET /api/v1/events/stream HTTP/1.1\r\nhost: localhost\r\nlast-event-id: 0\r\n\r\n").await.expect("written");
    let mut other = tokio::net::TcpStream::connect(address).await.expect("queued");
    other.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.expect("written");
    assert!(read_to_end(&mut other).await.starts_with("HTTP/1.1 200 OK"), "the place came free");
}

#[tokio::test]
async fn streams_and_idle_connections_end_when_the_agent_stops() {
    let ground = Ground::new();
    let (address, serving) = ground.serve().await;
    let mut viewers = Vec::new();
    for path in ["/api/v1/page/stream", "/api/v1/events/stream"] {
        let mut viewer = tokio::net::TcpStream::connect(address).await.expect("a connection");
        viewer.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.expect("written");
        let mut byte = [0];
        viewer.read_exact(&mut byte).await.expect("the stream begins");
        viewers.push(viewer);
    }
    let _idle = tokio::net::TcpStream::connect(address).await.expect("a connection");
    ground.stop.send_replace(true);
    tokio::time::timeout(Duration::from_secs(5), serving).await.expect("it ends in time").expect("it ends well");
    for mut viewer in viewers {
        assert!(read_to_end(&mut viewer).await.ends_with("0\r\n\r\n"), "the stream ends as a whole");
    }
}

#[tokio::test]
async fn a_page_of_another_site_gives_no_orders() {
    let ground = Ground::new();
    let check = async |headers: &[(&str, &str)], allowed: bool| {
        for (method, path) in [("POST", "/api/v1/checks"), ("POST", "/sync-check"), ("POST", "/table-monitor/add-table/orders")] {
            let answer = ground.ask(method, path, headers, "").await;
            assert_eq!(answer.status != StatusCode::FORBIDDEN, allowed, "{method} {path} {headers:?}");
            if !allowed {
                answer.problem(403);
            }
        }
        assert_eq!(ground.ask("DELETE", "/api/v1/checks/1", headers, "").await.status != StatusCode::FORBIDDEN, allowed, "{headers:?}");
        assert_eq!(ground.ask("GET", "/health", headers, "").await.status, StatusCode::OK, "reading is not an order");
    };
    check(&[], true).await;
    check(&[("origin", "http://127.0.0.1:8000")], true).await;
    check(&[("origin", "http://127.0.0.1:8000"), ("sec-fetch-site", "same-origin")], true).await;
    check(&[("origin", "https://plumb.example")], true).await;
    check(&[("origin", "https://evil.example")], false).await;
    check(&[("origin", "http://127.0.0.1:9000")], false).await;
    check(&[("origin", "null")], false).await;
    check(&[("sec-fetch-site", "cross-site")], false).await;
    check(&[("sec-fetch-site", "same-site"), ("origin", "http://127.0.0.1:8000")], false).await;
}

#[tokio::test]
async fn the_page_is_opened_once_with_the_token_and_the_cookie_does_not_hold_it() {
    let ground = Ground::with(Some(TOKEN), Limits::default());
    let closed = ground.get("/").await;
    assert_eq!((closed.status, closed.header("content-type"), closed.header("www-authenticate")), (StatusCode::UNAUTHORIZED, "text/html; charset=utf-8", "Bearer"));
    assert!(String::from_utf8_lossy(&closed.body).contains("?token="));
    for header in ["content-security-policy", "x-frame-options", "x-content-type-options", "referrer-policy", "x-request-id"] {
        assert!(!closed.header(header).is_empty(), "{header}");
    }
    assert_eq!(ground.get("/?token=wrong").await.status, StatusCode::UNAUTHORIZED);
    ground.get("/health").await.problem(401);
    ground.get("/health?token=0123456789abcdef%2B%2F%200123456789abcdef").await.problem(401);
    assert_eq!(ground.get("/livez").await.status, StatusCode::OK);

    for written in ["0123456789abcdef%2B%2F%200123456789abcdef", "0123456789abcdef%2b/+0123456789abcdef", "0123456789abcdef+/%200123456789abcdef"] {
        let opened = ground.get(&format!("/?token={written}")).await;
        assert_eq!((opened.status, opened.header("location")), (StatusCode::SEE_OTHER, "/"), "{written}");
        let cookie = opened.header("set-cookie").to_owned();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        let (pair, _) = cookie.split_once(';').expect("attributes");
        let (_, value) = pair.split_once('=').expect("a value");
        assert!(value.len() == 64 && !value.contains("0123456789abcdef"), "{cookie}");
        assert_eq!(ground.ask("GET", "/", &[("cookie", &format!("other=1; {pair}"))], "").await.status, StatusCode::OK);
        assert_eq!(ground.ask("GET", "/health", &[("cookie", pair)], "").await.status, StatusCode::OK);
        ground.ask("GET", "/health", &[("authorization", &format!("Bearer {value}"))], "").await.problem(401);
        ground.ask("GET", "/health", &[("cookie", &format!("plumbline_session={TOKEN}"))], "").await.problem(401);
    }
    for scheme in ["Bearer", "bearer"] {
        assert_eq!(ground.ask("GET", "/health", &[("authorization", &format!("{scheme} {TOKEN}"))], "").await.status, StatusCode::OK);
    }
    ground.ask("GET", "/health", &[("authorization", &format!("Bearer {TOKEN}x"))], "").await.problem(401);
}

#[tokio::test]
async fn a_body_may_be_left_out_and_a_wrong_one_is_named() {
    let ground = Ground::new();
    const JSON: (&str, &str) = ("content-type", "application/json");
    for (path, ok) in [("/validate", 200), ("/api/v1/checks", 202)] {
        for (headers, body) in [(vec![], ""), (vec![JSON], ""), (vec![], "{}"), (vec![JSON], "{\"tables\": [\"orders\"]}"), (vec![("content-type", "application/json; charset=utf-8")], "{}"), (vec![("content-type", "text/plain")], "")] {
            let answer = ground.ask("POST", path, &headers, body).await;
            assert_eq!(answer.status.as_u16(), ok, "{path} {headers:?} {body}: {}", String::from_utf8_lossy(&answer.body));
        }
        let check = async |headers: &[(&str, &str)], body: &str, status: u16, word: &str| {
            let detail = ground.ask("POST", path, headers, body.to_owned()).await.problem(status);
            assert!(detail.contains(word), "{detail}");
        };
        check(&[JSON], "{", 400, "not JSON").await;
        check(&[], "tables=orders", 400, "not JSON").await;
        check(&[JSON], "\u{1}", 400, "not JSON").await;
        check(&[JSON], " [[], null]", 422, "object").await;
        check(&[JSON], "null", 422, "expected").await;
        check(&[JSON], "{\"tabels\": []}", 422, "`tabels`").await;
        check(&[JSON], "{\"tables\": [1]}", 422, "expected a string").await;
        check(&[JSON], "{\"tables\": [\"nowhere\"]}", 404, "`nowhere`").await;
        check(&[("content-type", "application/x-www-form-urlencoded")], "tables=orders", 415, "`application/json`").await;
        check(&[JSON], &format!("{{\"tables\": [\"{}\"]}}", "x".repeat(BODY_LIMIT)), 413, "limit").await;
    }
    for path in ["/sync-check", "/table-monitor/setup", "/table-monitor/add-table/orders", "/api/v1/tables/orders/pause", "/api/v1/tables/orders/resume"] {
        assert_eq!(ground.ask("POST", path, &[], "").await.status, StatusCode::OK, "{path}");
    }
    assert_eq!(ground.ask("POST", "/table-monitor/add-table/tmp", &[], "").await.status, StatusCode::CONFLICT);
    assert_eq!(ground.ask("POST", "/table-monitor/add-table/tmp?override=true", &[], "").await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn what_is_not_configured_says_so() {
    let ground = Ground::new();
    let status = ground.get("/table-monitor/status").await.json();
    assert_eq!((&status["connector_status"], &status["cdc_active"]), (&json!("not_configured"), &json!(true)));
    assert_eq!(status["discovery_interval"].to_string(), "30");
    let metrics = ground.get("/metrics.json").await.json();
    assert_eq!((&metrics["cdc_stats"]["connector_status"], &metrics["sync_stats"]["redis_daily"]), (&json!("not_configured"), &json!("not_configured")));
    assert_eq!(ground.get("/health").await.json()["redis"], "not_configured");
    for (state, redis, connector) in [(HealthState::Up, "connected", "running"), (HealthState::Down, "disconnected", "failed")] {
        for component in ["redis", "connect"] {
            let health = Health { component: component.into(), state, messages: Vec::new() };
            ground.shared.picture().state.health.insert(component.into(), (health, 0));
        }
        let health = ground.get("/health").await.json();
        assert_eq!((&health["redis"], &health["debezium"]["mysql_connector"]), (&json!(redis), &json!(connector)));
        assert_eq!(ground.get("/table-monitor/status").await.json()["connector_status"], connector);
    }
}

#[tokio::test]
async fn the_connector_is_shown_and_told_what_people_ask() {
    let ground = Ground::new();
    let list = ground.get("/api/v1/connectors").await.json();
    assert_eq!(list["connectors"], json!([]));
    assert!(ground.get("/api/v1/connectors/plumbline-shop").await.problem(404).contains("CONNECT_URL"));
    let sink = |state: &str| SinkView { name: "copy".into(), class: "J".into(), group: "connect-copy".into(), state: state.into(), tables: 1 };
    let health = Health { component: "connect".into(), state: HealthState::Up, messages: Vec::new() };
    ground.shared.picture().state.health.insert("connect".into(), (health, 0));
    let show = |state: &str, sinks: Vec<SinkView>| {
        ground.shared.show_connector(Some(ConnectorView { name: "plumbline-shop".into(), state: state.into(), sinks, drift: vec!["snapshot.mode".into()], ..ConnectorView::default() }));
    };
    show("RUNNING", Vec::new());
    assert_eq!(ground.get("/api/v1/connectors").await.json()["connectors"][0]["drift"], json!(["snapshot.mode"]));
    assert!(ground.ask("POST", "/api/v1/connectors/theirs/pause", &[], "").await.problem(404).contains("`plumbline-shop`"), "never another one");
    ground.ask("DELETE", "/api/v1/connectors/theirs", &[], "").await.problem(404);

    for (method, order, state, word) in [
        ("POST", "/pause", "PAUSED", "paused"),
        ("POST", "/resume", "RUNNING", "running"),
        ("POST", "/stop", "STOPPED", "stopped"),
        ("DELETE", "", "REMOVED", "running"),
        ("DELETE", "?forget=true", "FORGOTTEN", "running"),
    ] {
        let answer = ground.ask(method, &format!("/api/v1/connectors/plumbline-shop{order}"), &[], "").await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (202, "/api/v1/connectors/plumbline-shop"), "{order}");
        assert_eq!(answer.json()["state"], state);
        for (path, field) in [("/health", "/debezium/mysql_connector"), ("/debezium/status", "/status"), ("/table-monitor/status", "/connector_status"), ("/metrics.json", "/cdc_stats/connector_status")] {
            assert_eq!(ground.get(path).await.json().pointer(field), Some(&json!(word)), "{path} {order}");
        }
    }
    ground.ask("DELETE", "/api/v1/connectors/plumbline-shop?forget=maybe", &[], "").await.problem(400);
    assert!(ground.ask("POST", "/api/v1/connectors/plumbline-shop/restart", &[], "").await.problem(503).contains("away"));
    assert!(ground.ask("POST", "/api/v1/connectors/plumbline-shop/pause", &[], "").await.problem(409).contains("not ours"));

    for (states, word) in [(vec![], "not_configured"), (vec!["RUNNING"], "running"), (vec!["RUNNING", "FAILED"], "failed"), (vec!["PAUSED"], "paused"), (vec!["RUNNING", "UNASSIGNED"], "starting")] {
        show("RUNNING", states.iter().map(|state| sink(state)).collect());
        assert_eq!(ground.get("/health").await.json()["debezium"]["postgres_connector"], word);
    }
}

#[tokio::test]
async fn every_path_answers_its_methods_and_names_them_otherwise() {
    let ground = Ground::new();
    let document = serde_json::to_value(openapi()).expect("a document");
    let mut paths: Vec<(String, Vec<String>)> = document["paths"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(path, methods)| (path.replace("{table}", "orders").replace("{table_name}", "orders").replace("{id}", "1"), methods.as_object().into_iter().flatten().map(|(method, _)| method.to_uppercase()).collect()))
        .collect();
    paths.extend(["/", "/page/app.js", "/favicon.ico", "/openapi.json", "/docs/"].map(|path| (path.to_owned(), vec!["GET".to_owned()])));
    ground.ask("POST", "/api/v1/checks", &[], "").await;
    for (path, methods) in &paths {
        let refused = ground.ask("PATCH", path, &[], "").await;
        refused.problem(405);
        for method in methods {
            assert!(refused.header("allow").split(',').any(|allowed| allowed.trim() == method), "{path}: {}", refused.header("allow"));
        }
        if methods.contains(&Method::GET.to_string()) {
            let get = ground.open("GET", path, &[], "").await;
            let head = ground.ask("HEAD", path, &[], "").await;
            assert_eq!((head.status, &head.headers.get(header::CONTENT_TYPE)), (get.status(), &get.headers().get(header::CONTENT_TYPE)), "{path}");
            assert!(head.body.is_empty(), "{path}");
        }
    }
    for path in ["/nowhere", "/api/v1", "/docs/nowhere", "/page/nowhere.js", "/stats/orders/more", "//"] {
        ground.get(path).await.problem(404);
        assert_eq!(ground.ask("HEAD", path, &[], "").await.status, StatusCode::NOT_FOUND, "{path}");
    }
}

/// The next events of a stream: id, name, content.
async fn next_events(stream: &mut (impl futures::Stream<Item = std::result::Result<bytes::Bytes, axum::Error>> + Unpin), count: usize) -> Vec<(String, Value)> {
    let mut text = String::new();
    while text.matches("\n\n").count() < count {
        let part = tokio::time::timeout(Duration::from_secs(10), stream.next()).await.expect("in time").expect("it goes on").expect("no error");
        text.push_str(&String::from_utf8_lossy(&part));
    }
    let field = |event: &str, name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned()).unwrap_or_default();
    text.split("\n\n").filter(|event| !event.is_empty()).map(|event| (field(event, "id:"), serde_json::from_str(&field(event, "data:")).unwrap_or_default())).collect()
}

#[tokio::test]
async fn a_stream_goes_on_after_the_last_event_that_the_client_saw() {
    let ground = Ground::new();
    ground.events.add(1..=1200);
    let response = ground.open("GET", "/api/v1/events/stream", &[("last-event-id", "97")], "").await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut stream = response.into_body().into_data_stream();
    let seen = next_events(&mut stream, 1103).await;
    let ids: Vec<u64> = seen.iter().map(|(id, _)| id.parse().expect("an id")).collect();
    assert_eq!(ids, (98..=1200).collect::<Vec<_>>(), "each once, in order, over several pages");
    assert!(seen.iter().all(|(id, event)| event["id"].as_u64() == id.parse().ok() && event["operation"] == "insert"));

    // A new one comes on its own, and to a client that says nothing only what is new.
    let mut fresh = ground.open("GET", "/api/v1/events/stream", &[], "").await.into_body().into_data_stream();
    ground.events.add([1201]);
    ground.shared.touch();
    for stream in [&mut stream, &mut fresh] {
        assert_eq!(next_events(stream, 1).await[0].0, "1201");
    }
}

#[test]
fn only_loopback_is_served_without_a_token() {
    for listen in ["127.0.0.1:8000", "[::1]:8000", "localhost:80"] {
        assert!(check_listen(listen, false, false).is_ok(), "{listen}");
    }
    for listen in ["0.0.0.0:8000", "10.0.0.1:80", "[::]:8000", "example.org:80"] {
        let message = check_listen(listen, false, false).expect_err("a refusal").to_string();
        assert!(message.contains("PLUMBLINE_TOKEN") && message.contains(listen), "{message}");
        assert!(check_listen(listen, true, false).is_ok());
        assert!(check_listen(listen, false, true).is_ok());
    }
}

#[test]
fn the_committed_document_is_the_one_of_the_handlers() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    let fresh = openapi().to_pretty_json().expect("a document") + "\n";
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    if committed != fresh {
        std::fs::write(path, fresh).expect("the document is written");
        panic!("`agent/openapi.json` was not up to date; it has been written anew, commit it");
    }
}
