use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::{get, put};
use axum::{Json, Router};

use super::*;
use crate::connect::{Part, Status};

fn config() -> ConnectorConfig {
    ConnectorConfig {
        connect_url: "http://127.0.0.1:1".into(),
        pipeline: "shop".into(),
        kafka_bootstrap_servers: "kafka:9092".into(),
        host: "mysql".into(),
        user: "dbz".into(),
        password: Secret::new("sesame"),
        database: "inv".into(),
        ..ConnectorConfig::default()
    }
}

fn tables(names: &[&str]) -> BTreeSet<TableId> {
    names.iter().map(|name| TableId::new("inv", *name)).collect()
}

fn status(connector: &str, tasks: &[(&str, Option<&str>)]) -> Status {
    let part = |state: &str, trace: Option<&str>| Part { id: 0, state: state.into(), worker_id: String::new(), trace: trace.map(str::to_owned) };
    Status { connector: part(connector, None), tasks: tasks.iter().map(|(state, trace)| part(state, *trace)).collect() }
}

fn decided(names: &[&str], seen: Option<&Config>, status: Option<&Status>, restarts: &Restarts, now: Instant) -> Decision {
    let tables = tables(names);
    let desired = config().settings(&tables);
    let wish = Wish { name: "plumbline-shop", desired: &desired, tables: &tables, mend: true };
    decide(&wish, seen, status, restarts, now)
}

#[test]
fn a_connector_that_is_not_there_is_created() {
    let decision = decided(&["a"], None, None, &Restarts::default(), Instant::now());
    assert!(matches!(&decision.actions[..], [Action::Put(settings)] if settings["table.include.list"] == r"inv\.a"));
    assert!(decision.added.is_empty(), "its first snapshot reads the existing rows");
}

#[test]
fn a_connector_that_is_not_ours_is_never_touched() {
    let mut seen = config().settings(&tables(&["a"]));
    seen.remove(MARK);
    let failed = status("RUNNING", &[("FAILED", Some("x"))]);
    let decision = decided(&["a", "b"], Some(&seen), Some(&failed), &Restarts::default(), Instant::now());
    assert_eq!((decision.actions.len(), decision.state), (0, "TAKEN"));
    seen.insert(MARK.into(), "another".into());
    assert_eq!(decided(&["a"], Some(&seen), None, &Restarts::default(), Instant::now()).state, "TAKEN");
}

#[test]
fn an_added_table_changes_the_list_and_needs_its_rows() {
    let seen = config().settings(&tables(&["a"]));
    let running = status("RUNNING", &[("RUNNING", None)]);
    let decision = decided(&["a", "b"], Some(&seen), Some(&running), &Restarts::default(), Instant::now());
    assert!(matches!(&decision.actions[..], [Action::Put(settings)] if settings["table.include.list"] == r"inv\.a,inv\.b"));
    assert_eq!(decision.added, [TableId::new("inv", "b")]);
    assert!(!decision.healthy, "the signal waits until the task runs with the new list");
    let same = decided(&["a"], Some(&seen), Some(&running), &Restarts::default(), Instant::now());
    assert!(same.actions.is_empty() && same.healthy && same.messages.is_empty());
}

#[test]
fn drift_is_set_right_and_what_others_added_stays() {
    let mut seen = config().settings(&tables(&["a"]));
    seen.insert("decimal.handling.mode".into(), "double".into());
    seen.insert("max.batch.size".into(), "4096".into());
    let decision = decided(&["a"], Some(&seen), Some(&status("RUNNING", &[("RUNNING", None)])), &Restarts::default(), Instant::now());
    let [Action::Put(settings)] = &decision.actions[..] else { panic!("{decision:?}") };
    assert_eq!((settings["decimal.handling.mode"].as_str(), settings["max.batch.size"].as_str()), ("precise", "4096"));
    assert_eq!(decision.health, HealthState::Warning);
    assert!(decision.messages[0].contains("`decimal.handling.mode`") && !decision.messages[0].contains("double"));
}

#[test]
fn drift_is_only_told_where_that_is_wished_and_the_tables_are_set_all_the_same() {
    let mut seen = config().settings(&tables(&["a"]));
    seen.insert("decimal.handling.mode".into(), "double".into());
    let check = |names: &[&str], actions: usize| {
        let tables = tables(names);
        let desired = config().settings(&tables);
        let wish = Wish { name: "plumbline-shop", desired: &desired, tables: &tables, mend: false };
        let decision = decide(&wish, Some(&seen), Some(&status("RUNNING", &[("RUNNING", None)])), &Restarts::default(), Instant::now());
        assert_eq!((decision.actions.len(), decision.drift.as_slice()), (actions, &["decimal.handling.mode".to_owned()][..]));
        assert!(decision.messages[0].contains("left so"), "{decision:?}");
        decision
    };
    assert!(check(&["a"], 0).healthy);
    let [Action::Put(settings)] = &check(&["a", "b"], 1).actions[..] else { panic!("no list") };
    assert_eq!((settings["decimal.handling.mode"].as_str(), settings["table.include.list"].as_str()), ("double", r"inv\.a,inv\.b"));
}

#[test]
fn a_failed_task_of_a_paused_connector_is_left_alone() {
    let seen = config().settings(&tables(&["a"]));
    for word in ["PAUSED", "STOPPED"] {
        let decision = decided(&["a"], Some(&seen), Some(&status(word, &[("FAILED", Some("x"))])), &Restarts::default(), Instant::now());
        assert_eq!((decision.state, decision.actions.len()), (word, 0));
    }
}

#[test]
fn a_reference_to_a_secret_is_passed_on_and_shown() {
    let reference = "${file:/secrets/mysql:password}";
    let settings = ConnectorConfig { password: Secret::new(reference), ..config() }.settings(&tables(&["a"]));
    assert_eq!((settings["database.password"].as_str(), redact(&settings)["database.password"].as_str()), (reference, reference));
    for secret in ["${x}", "${a:b}c", "$file:b"] {
        assert_eq!(redact(&[("password".to_owned(), secret.to_owned())].into())["password"], "***", "{secret}");
    }
}

#[test]
fn running_without_tasks_is_starting() {
    let seen = config().settings(&tables(&["a"]));
    for status in [status("RUNNING", &[]), status("RUNNING", &[("UNASSIGNED", None)])] {
        let decision = decided(&["a"], Some(&seen), Some(&status), &Restarts::default(), Instant::now());
        assert_eq!((decision.state, decision.health, decision.healthy), ("STARTING", HealthState::Warning, false));
    }
    for (word, state) in [("PAUSED", "PAUSED"), ("STOPPED", "STOPPED")] {
        let decision = decided(&["a"], Some(&seen), Some(&status(word, &[])), &Restarts::default(), Instant::now());
        assert_eq!((decision.state, decision.actions.len()), (state, 0), "nobody resumes what a person paused");
    }
}

#[test]
fn a_failed_task_is_restarted_with_waits_and_a_budget() {
    let seen = config().settings(&tables(&["a"]));
    let failed = status("RUNNING", &[("FAILED", Some("org.x.ConnectException: boom\n\tat org.x.Y\nCaused by: z"))]);
    let start = Instant::now();
    let mut restarts = Restarts::default();
    let mut now = start;
    let mut done = 0;
    for _ in 0..4000 {
        let decision = decided(&["a"], Some(&seen), Some(&failed), &restarts, now);
        assert_eq!((decision.state, decision.health), ("FAILED", HealthState::Down));
        assert_eq!(decision.trace, ["org.x.ConnectException: boom", "Caused by: z"]);
        if decision.actions == [Action::Restart] {
            done += 1;
            restarts.note(now);
        }
        now += Duration::from_secs(1);
    }
    assert_eq!(done, Restarts::BUDGET);
    assert!(now - start > Duration::from_secs(1000));
    restarts.healthy(now);
    restarts.healthy(now + Duration::from_secs(601));
    assert_eq!(decided(&["a"], Some(&seen), Some(&failed), &restarts, now + Duration::from_secs(602)).actions, [Action::Restart]);
}

#[test]
fn a_purged_binlog_is_told_and_not_restarted() {
    let seen = config().settings(&tables(&["a"]));
    let trace = "io.debezium.DebeziumException: The connector is trying to read change stream starting at SourceInfo [currentBinlogFilename=binlog.000001], but this is no longer available on the server. Reconfigure the connector to use a snapshot when needed.";
    let decision = decided(&["a"], Some(&seen), Some(&status("RUNNING", &[("FAILED", Some(trace))])), &Restarts::default(), Instant::now());
    assert_eq!((decision.state, decision.actions.len()), ("PURGED", 0));
    assert!(decision.messages[0].contains("Compare all tables"));
}

#[test]
fn names_are_escaped_in_lists_of_regular_expressions() {
    assert_eq!(escape("a.b*c"), r"a\.b\*c");
    assert_eq!(escape("a,b"), r"a\x2Cb");
    assert_eq!(escape("naïve_name"), "naïve_name");
    assert_eq!(include_list(&BTreeSet::new()), "^$");
    let signal: serde_json::Value = serde_json::from_str(&snapshot_signal(&tables(&["a$b", "c*"]))).expect("JSON");
    assert_eq!(signal["data"]["data-collections"], serde_json::json!(["inv.a$b", r"inv\.c\*"]), "a table that is not known yet is asked for by its plain name");
}

#[test]
fn secrets_are_not_shown() {
    let settings = config().settings(&tables(&["a"]));
    assert_eq!(redact(&settings)["database.password"], "***");
    assert_eq!(redact(&settings)["database.user"], "dbz");
    assert_eq!(scrub("login with sesame failed", &settings), "login with *** failed");
    assert!(!format!("{:?}", config()).contains("sesame"));
    let error = Connect::new("http://dbz:sesame@connect:8083").expect_err("a login");
    assert!(!error.chain().contains("sesame"));
}

#[test]
fn wrong_settings_are_named() {
    for (wrong, name) in [
        (ConnectorConfig { pipeline: "../x".into(), ..config() }, "pipeline"),
        (ConnectorConfig { snapshot_mode: "when_needed".into(), ..config() }, "snapshot_mode"),
        (ConnectorConfig { host: String::new(), ..config() }, "host"),
        (ConnectorConfig { extra: [("topic.prefix".to_owned(), "x".to_owned())].into(), ..config() }, "topic.prefix"),
        (ConnectorConfig { connect_ca: Some("/nowhere".into()), ..config() }, "/nowhere"),
        (ConnectorConfig { connect_ca: Some(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").into()), ..config() }, "holds none"),
        (ConnectorConfig { connect_url: "file:///etc/passwd".into(), ..config() }, "http://connect:8083"),
    ] {
        let error = Connector::new(wrong, Box::new(Kept::default())).err().expect("an error");
        assert!(error.to_string().contains(name), "{error}");
    }
}

/// Signals that are kept, and a connector that tells of a start and of nothing else.
#[derive(Default, Clone)]
struct Kept(Arc<Mutex<Vec<String>>>);

/// What a task tells when it starts without a snapshot.
const STARTED: &[u8] = br#"{"aggregate_type":"Initial Snapshot","type":"SKIPPED","additional_data":{}}"#;

#[async_trait]
impl Signals for Kept {
    async fn make(&mut self, _: &[String]) -> Result<()> {
        Ok(())
    }
    async fn send(&mut self, topic: &str, key: &str, value: &str) -> Result<()> {
        self.0.lock().expect("a lock").push(format!("{topic} {key} {value}"));
        Ok(())
    }
    async fn end(&mut self, _: &str) -> Result<u64> {
        Ok(0)
    }
    async fn heard(&mut self, _: &str) -> Result<Vec<(u64, Vec<u8>)>> {
        Ok(vec![(0, STARTED.to_vec())])
    }
}

/// A Connect cluster of one connector.
#[derive(Default)]
struct Fake {
    config: Option<Config>,
    faults: Vec<(String, String)>,
    puts: u32,
    restarts: u32,
    failed: Option<String>,
    busy: bool,
    orders: Vec<String>,
    resting: Option<String>,
    authorization: Option<String>,
}

type Shared = Arc<Mutex<Fake>>;

async fn fake() -> (String, Shared) {
    let shared = Shared::default();
    let router = Router::new()
        .route("/connector-plugins/{class}/config/validate", put(validate))
        .route("/connectors", get(listed))
        .route("/connectors/{name}", get(connector).delete(delete))
        .route("/connectors/{name}/offsets", axum::routing::delete(forget))
        .route("/connectors/{name}/{order}", put(order))
        .route("/connectors/{name}/config", put(set))
        .route("/connectors/{name}/status", get(said))
        .route("/connectors/{name}/restart", axum::routing::post(restart))
        .with_state(Arc::clone(&shared));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    (format!("http://{address}"), shared)
}

async fn validate(State(fake): State<Shared>, Path(_): Path<String>, Json(_): Json<Config>) -> impl IntoResponse {
    let faults = fake.lock().expect("a lock").faults.clone();
    let mut configs: Vec<_> = faults.iter().map(|(name, error)| serde_json::json!({ "definition": {}, "value": { "name": name, "errors": [error] } })).collect();
    configs.push(serde_json::json!({ "definition": {}, "value": null }));
    Json(serde_json::json!({ "name": "x", "error_count": faults.len(), "configs": configs }))
}

async fn connector(State(fake): State<Shared>, Path(name): Path<String>) -> axum::response::Response {
    match &fake.lock().expect("a lock").config {
        Some(config) => Json(serde_json::json!({ "name": name, "config": config, "tasks": [], "type": "source" })).into_response(),
        None => (StatusCode::NOT_FOUND, Json(serde_json::json!({ "error_code": 404, "message": "not found" }))).into_response(),
    }
}

async fn listed(State(fake): State<Shared>, headers: axum::http::HeaderMap) -> Json<serde_json::Value> {
    fake.lock().expect("a lock").authorization = headers.get("authorization").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let part = serde_json::json!({ "state": "RUNNING", "worker_id": "w" });
    let sink = |topics: &str| serde_json::json!({ "info": { "config": { "topics": topics }, "type": "sink" }, "status": { "connector": part, "tasks": [part] } });
    Json(serde_json::json!({ "copy": sink("plumbline.inv.a,plumbline.inv.b"), "other": sink("x") }))
}

async fn order(State(fake): State<Shared>, Path((_, order)): Path<(String, String)>) -> StatusCode {
    let mut fake = fake.lock().expect("a lock");
    fake.resting = match order.as_str() {
        "pause" => Some("PAUSED".into()),
        "stop" => Some("STOPPED".into()),
        _ => None,
    };
    fake.orders.push(order);
    StatusCode::ACCEPTED
}

async fn delete(State(fake): State<Shared>, Path(_): Path<String>) -> StatusCode {
    let mut fake = fake.lock().expect("a lock");
    fake.config = None;
    fake.orders.push("delete".into());
    StatusCode::NO_CONTENT
}

async fn forget(State(fake): State<Shared>, Path(_): Path<String>) -> StatusCode {
    fake.lock().expect("a lock").orders.push("forget".into());
    StatusCode::OK
}

async fn set(State(fake): State<Shared>, Path(_): Path<String>, Json(config): Json<Config>) -> axum::response::Response {
    let mut fake = fake.lock().expect("a lock");
    if fake.busy {
        return (StatusCode::CONFLICT, Json(serde_json::json!({ "error_code": 409, "message": "rebalance in progress" }))).into_response();
    }
    fake.puts += 1;
    fake.config = Some(config);
    StatusCode::CREATED.into_response()
}

async fn said(State(fake): State<Shared>, Path(name): Path<String>) -> Json<serde_json::Value> {
    let fake = fake.lock().expect("a lock");
    let task = match &fake.failed {
        Some(trace) => serde_json::json!({ "id": 0, "state": "FAILED", "worker_id": "w", "trace": trace }),
        None => serde_json::json!({ "id": 0, "state": "RUNNING", "worker_id": "w" }),
    };
    let tasks = if fake.resting.as_deref() == Some("STOPPED") { Vec::new() } else { vec![task] };
    let state = fake.resting.as_deref().unwrap_or("RUNNING");
    Json(serde_json::json!({ "name": name, "connector": { "state": state, "worker_id": "w" }, "tasks": tasks, "type": "source" }))
}

async fn restart(State(fake): State<Shared>, Path(_): Path<String>) -> StatusCode {
    let mut fake = fake.lock().expect("a lock");
    fake.restarts += 1;
    fake.failed = None;
    StatusCode::ACCEPTED
}

#[tokio::test]
async fn a_connector_is_created_widened_and_healed() {
    let (url, fake) = fake().await;
    let signals = Kept::default();
    let mut care = Connector::new(ConnectorConfig { connect_url: url, ..config() }, Box::new(signals.clone())).expect("a connector");
    let now = Instant::now();
    care.care(&tables(&["a"]), now, true).await.expect("created");
    let health = care.care(&tables(&["a"]), now, true).await.expect("seen");
    assert_eq!((health.state, fake.lock().expect("a lock").puts), (HealthState::Up, 1));
    care.care(&tables(&["a", "b"]), now, true).await.expect("widened");
    assert!(signals.0.lock().expect("a lock").is_empty(), "the signal waits for the new list");
    care.care(&tables(&["a", "b"]), now, true).await.expect("signalled");
    care.care(&tables(&["a", "b"]), now, true).await.expect("once");
    let sent = signals.0.lock().expect("a lock").clone();
    assert!(matches!(&sent[..], [one] if one.starts_with("plumbline.plumbline-signals plumbline ") && one.contains("inv.b")), "{sent:?}");
    care.care(&tables(&["a", "b"]), now + rows::TAKEN_UP, true).await.expect("asked again");
    assert_eq!(signals.0.lock().expect("a lock").len(), 2, "nothing was heard of the rows");
    fake.lock().expect("a lock").failed = Some("boom with sesame".into());
    let health = care.care(&tables(&["a", "b"]), now, true).await.expect("restarted");
    assert_eq!((health.state, fake.lock().expect("a lock").restarts), (HealthState::Down, 1));
    assert!(health.messages.iter().any(|message| message.contains("boom with ***")), "{health:?}");
    let shown = serde_json::to_string(care.shown().expect("shown")).expect("JSON");
    assert!(!shown.contains("sesame"), "{shown}");
}

#[tokio::test]
async fn refused_settings_are_named_and_never_put() {
    let (url, fake) = fake().await;
    fake.lock().expect("a lock").faults.push(("database.hostname".into(), "Unable to connect: Access denied for user 'dbz' with sesame".into()));
    let mut care = Connector::new(ConnectorConfig { connect_url: url, ..config() }, Box::new(Kept::default())).expect("a connector");
    let error = care.care(&tables(&["a"]), Instant::now(), true).await.expect_err("refused");
    assert!(error.to_string().contains("`database.hostname`: Unable to connect") && !error.chain().contains("sesame"), "{error}");
    assert_eq!(fake.lock().expect("a lock").puts, 0);
}

#[tokio::test]
async fn a_busy_cluster_is_asked_again_and_a_foreign_connector_refused() {
    let (url, fake) = fake().await;
    fake.lock().expect("a lock").busy = true;
    let mut care = Connector::new(ConnectorConfig { connect_url: url, ..config() }, Box::new(Kept::default())).expect("a connector");
    let error = care.care(&tables(&["a"]), Instant::now(), true).await.expect_err("busy");
    assert_eq!(error.kind(), plumbline_sdk::ErrorKind::Disconnected);
    fake.lock().expect("a lock").config = Some([("connector.class".to_owned(), "x".to_owned())].into());
    assert_eq!(care.care(&tables(&["a"]), Instant::now(), true).await.expect("looked").state, HealthState::Down);
    assert!(care.remove(false).await.expect_err("foreign").to_string().contains("is taken"));
}

#[tokio::test]
async fn redirects_and_endless_answers_are_refused() {
    let router = Router::new()
        .route("/connectors/{name}", get(|| async { axum::response::Redirect::temporary("http://169.254.169.254/") }))
        .route("/connectors/{name}/status", get(|| async { "x".repeat(9 * 1024 * 1024) }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let connect = Connect::new(&format!("http://{}", listener.local_addr().expect("an address"))).expect("a client");
    tokio::spawn(async move { axum::serve(listener, router).await });
    assert!(connect.config("x").await.expect_err("a redirect").to_string().contains("redirects"));
    assert!(connect.status("x").await.expect_err("too much").to_string().contains("more than"));
}

#[tokio::test]
async fn what_a_person_paused_or_removed_stays_so_until_a_person_resumes_it() {
    let (url, fake) = fake().await;
    let (user, password) = ("ops".to_owned(), Secret::new("hush"));
    let mut care = Connector::new(ConnectorConfig { connect_url: url, connect_user: user, connect_password: password, ..config() }, Box::new(Kept::default())).expect("a connector");
    let (watched, now) = (tables(&["a", "b", "c"]), Instant::now());
    let state = async |care: &mut Connector| {
        care.care(&watched, now, true).await.expect("looked");
        care.shown().expect("shown").state.clone()
    };
    assert!(care.pause().await.expect_err("not there").to_string().contains("there is no connector"));
    state(&mut care).await;
    assert_eq!(state(&mut care).await, "RUNNING");
    let shown = care.shown().expect("shown");
    assert!(matches!(&shown.sinks[..], [sink] if sink.name == "copy" && sink.tables == 2), "{shown:?}");
    assert_eq!((shown.worker.as_str(), shown.tasks[0].worker.as_str()), ("w", "w"));
    assert_eq!(fake.lock().expect("a lock").authorization.as_deref(), Some("Basic b3BzOmh1c2g="));

    care.pause().await.expect("paused");
    for _ in 0..3 {
        assert_eq!(state(&mut care).await, "PAUSED");
    }
    care.resume().await.expect("resumed");
    assert_eq!(state(&mut care).await, "RUNNING");
    care.restart().await.expect("restarted");
    assert_eq!(state(&mut care).await, "RUNNING");
    assert_eq!((care.shown().expect("shown").restarts, fake.lock().expect("a lock").restarts), (1, 1));

    care.remove(true).await.expect("removed");
    for _ in 0..3 {
        assert_eq!(state(&mut care).await, "REMOVED");
    }
    assert_eq!(fake.lock().expect("a lock").orders, ["pause", "resume", "stop", "forget", "delete"], "nobody resumed it, and nobody made it anew");
    fake.lock().expect("a lock").resting = None;
    care.resume().await.expect("made anew");
    state(&mut care).await;
    assert_eq!(state(&mut care).await, "RUNNING");
}
