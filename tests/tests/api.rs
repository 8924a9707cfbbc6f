//! The face: REST, metrics and traces, as scripts and dashboards hold on to them.

use std::collections::HashSet;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use plumbline_tests::agent::Agent;
use plumbline_tests::environment::required;
use plumbline_tests::janitor::{Kept, folder};
use plumbline_tests::servers::{Pair, free_port};
use serde_json::{Value, json};

const SETUP: [&str; 2] = ["CREATE TABLE orders (id INT PRIMARY KEY, note VARCHAR(50))", "INSERT INTO orders VALUES (1, 'one'), (2, 'two')"];

async fn running(name: &str, settings: &[(&str, &str)]) -> (Pair, Agent) {
    let pair = Pair::shared(name).await;
    pair.on_source(&SETUP).await;
    let mut all = vec![("PLUMBLINE_APPLY", "true")];
    all.extend(settings);
    let mut agent = Agent::with(&pair, &all).started().await;
    agent.in_sync(&["orders"]).await;
    (pair, agent)
}

fn has(answer: &Value, fields: &[&str]) {
    for field in fields {
        let mut value = answer;
        for part in field.split('.') {
            assert!(value.get(part).is_some(), "`{field}` is missing: {answer:#}");
            value = &value[part];
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn documented_endpoints_have_their_fields() {
    let (pair, mut agent) = running("fields", &[]).await;
    pair.on_source(&["INSERT INTO orders VALUES (3, 'three')", "UPDATE orders SET note = 'x' WHERE id = 1", "DELETE FROM orders WHERE id = 2"]).await;
    agent.wait_for("/health", |health| health["cdc_events_processed"] == 3).await;
    agent.in_sync(&["orders"]).await;

    let health = agent.get("/health").await;
    has(&health, &["status", "mysql", "postgres", "redis", "debezium.mysql_connector", "debezium.postgres_connector", "last_cdc_event.table", "last_cdc_event.operation", "last_cdc_event.timestamp", "timestamp", "version", "components"]);
    assert_eq!((&health["mysql"], &health["postgres"], &health["redis"]), (&json!("connected"), &json!("connected"), &json!("not_configured")));
    let metrics = agent.get("/metrics").await;
    has(&metrics, &["timestamp", "database_stats.mysql.status", "database_stats.postgres.total_tables", "cdc_stats.events_processed", "cdc_stats.monitored_tables", "sync_stats.total", "sync_stats.global_live", "sync_stats.table_status", "health_status"]);
    has(&agent.get("/table-monitor/status").await, &["monitoring_active", "cdc_active", "current_tables", "total_tables", "table_schemas", "discovery_interval", "database_name", "cdc_events_processed", "connector_status", "timestamp"]);
    has(&agent.get("/discover-tables").await, &["mysql_tables.all", "mysql_tables.monitorable", "mysql_tables.excluded", "postgres_tables", "current_monitoring", "timestamp", "reasons"]);
    has(&agent.get("/stats").await, &["migration_status.total_tables", "migration_status.synced_tables", "migration_status.overall_progress", "migration_status.is_healthy"]);
    has(&agent.get("/stats/orders").await, &["table_name", "mysql_count", "postgres_count", "sync_status", "sync_percentage", "timestamp"]);
    let latest = agent.get("/latest-records/orders?limit=5").await;
    has(&latest, &["table_name", "comparison.mysql_total", "comparison.sync_status", "cdc_info", "timestamp"]);
    assert_eq!(latest["mysql_latest"], json!([{"id": "3", "note": "three"}, {"id": "1", "note": "x"}]), "{latest:#}");
    assert_eq!(latest["mysql_latest"], latest["postgres_latest"]);
    let events = agent.get("/cdc/events?limit=2").await;
    has(&events, &["events", "total_processed", "timestamp"]);
    assert_eq!(events["events"].as_array().map(Vec::len), Some(2));
    assert_eq!((&events["events"][0]["operation"], &events["events"][1]["operation"]), (&json!("delete"), &json!("update")), "{events:#}");
    has(&events["events"][0], &["table", "timestamp", "position", "trace_id", "key_hash"]);
    let (status, validated) = agent.post("/validate", &json!({"tables": ["orders"], "full_validation": true})).await;
    assert_eq!(status, 200, "{validated:#}");
    assert_eq!((&validated["results"][0]["is_consistent"], &validated["results"][0]["mysql_count"]), (&json!(true), &json!(2)), "{validated:#}");
    for path in ["/kafka-status", "/debezium/status", "/migration-log", "/api/v1/plugins", "/api/v1/cutover", "/api/v1/config", "/openapi.json"] {
        assert_eq!(agent.status(path).await, Some(200), "{path}");
    }
    assert!(!agent.get("/api/v1/config").await.to_string().contains("plumb'line"), "no secret is shown");
    assert!(!agent.log().contains("plumb'line"), "no secret is logged");
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_get_a_problem_and_the_right_status() {
    let (_, mut agent) = running("problems", &[]).await;
    for (method, path, body, status) in [
        ("GET", "/nowhere", None, 404),
        ("DELETE", "/health", None, 405),
        ("GET", "/stats/nowhere", None, 404),
        ("GET", "/latest-records/orders%20UNION?limit=5", None, 404),
        ("GET", "/latest-records/orders?limit=0", None, 422),
        ("GET", "/cdc/events?limit=x", None, 400),
        ("POST", "/table-monitor/add-table/nowhere", None, 404),
        ("POST", "/validate", Some("{"), 400),
        ("POST", "/validate", Some("{\"tabels\": []}"), 422),
        ("GET", "/api/v1/findings?state=odd", None, 422),
        ("GET", "/api/v1/checks/99999", None, 404),
    ] {
        let mut request = agent.client().request(method.parse().expect("a method"), agent.url(path));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body);
        }
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), status, "{method} {path}");
        assert_eq!(answer.headers().get("content-type").and_then(|kind| kind.to_str().ok()), Some("application/problem+json"), "{method} {path}");
        let problem: Value = answer.json().await.expect("JSON");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()) && problem["status"] == status, "{problem:#}");
    }
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().expect("a client");
    let moved = client.get(agent.url("/cdc/status")).send().await.expect("an answer");
    assert_eq!(moved.status().as_u16(), 308);
    assert_eq!(moved.headers()["location"], "/table-monitor/status");
    assert!(moved.headers().contains_key("deprecation") && moved.headers().contains_key("link"));
    assert_eq!(agent.stop().await, Some(0));
}

/// Percent-encoded, as a form wants it.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| if byte.is_ascii_alphanumeric() || byte == b'_' { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[derive(Clone, Default)]
struct Collector {
    /// (trace, name of the span) of every root span.
    roots: Arc<Mutex<Vec<(String, String)>>>,
    /// The trace of every `verify` span that says `match`.
    verified: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(&self, request: tonic::Request<ExportTraceServiceRequest>) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let mut roots = self.roots.lock().map_err(|_| tonic::Status::internal("poisoned"))?;
        for span in request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans) {
            let trace: String = span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
            if span.name.starts_with("verify ") && span.attributes.iter().any(|attribute| attribute.key == "plumbline.result" && format!("{:?}", attribute.value).contains("match")) {
                self.verified.lock().map_err(|_| tonic::Status::internal("poisoned"))?.push(trace.clone());
            }
            if span.parent_span_id.is_empty() {
                roots.push((trace, span.name));
            }
        }
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_one_trace_which_history_names_alike() {
    let collector = Collector::default();
    let port = free_port();
    let address = format!("127.0.0.1:{port}").parse().expect("an address");
    tokio::spawn(tonic::transport::Server::builder().add_service(TraceServiceServer::new(collector.clone())).serve(address));
    let (pair, mut agent) = running("traces", &[("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://127.0.0.1:{port}"))]).await;
    pair.on_source(&["INSERT INTO orders WITH RECURSIVE n AS (SELECT 10 AS id UNION ALL SELECT id + 1 FROM n WHERE id < 509) SELECT id, 'traced' FROM n", "UPDATE orders SET note = 'again' WHERE id >= 10"]).await;
    agent.wait_for("/health", |health| health["cdc_events_processed"] == 1000).await;
    for _ in 0..100 {
        let text = agent.client().get(agent.url("/metrics?format=prometheus")).send().await.expect("an answer").text().await.expect("text");
        if text.lines().any(|line| line.starts_with("plumbline_event_verifications_total") && line.contains("\"match\"") && line.ends_with(" 1000")) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let events = agent.get("/cdc/events?limit=1000").await;
    let named: HashSet<String> = events["events"].as_array().into_iter().flatten().filter_map(|event| event["trace_id"].as_str().map(str::to_owned)).collect();
    assert_eq!(named.len(), 1000);
    assert_eq!(agent.stop().await, Some(0));
    let roots = collector.roots.lock().expect("not poisoned").clone();
    let changes: Vec<&String> = roots.iter().filter(|(_, name)| name.starts_with("change ")).map(|(trace, _)| trace).collect();
    assert_eq!(changes.len(), 1000, "one trace per change");
    assert_eq!(changes.into_iter().cloned().collect::<HashSet<_>>(), named);
    let verified = collector.verified.lock().expect("not poisoned").clone();
    assert_eq!(verified.len(), 1000, "one check per change");
    assert_eq!(verified.into_iter().collect::<HashSet<_>>(), named);
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_scrapes_it_and_promtool_finds_nothing_to_say() {
    let (pair, mut agent) = running("scraped", &[]).await;
    pair.on_source(&["INSERT INTO orders VALUES (3, 'three')"]).await;
    agent.wait_for("/health", |health| health["cdc_events_processed"] == 1).await;

    let text = agent.client().get(agent.url("/metrics")).header("accept", "text/plain;version=0.0.4").send().await.expect("an answer").text().await.expect("text");
    let mut promtool = Command::new(required("PLUMBLINE_TEST_PROMTOOL")).args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("promtool starts");
    std::io::Write::write_all(&mut promtool.stdin.take().expect("a pipe"), text.as_bytes()).expect("written");
    let said = promtool.wait_with_output().expect("it ends");
    assert!(said.status.success(), "{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));

    let folder = folder("prometheus");
    let config = format!("global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: plumbline, static_configs: [{{targets: ['127.0.0.1:{}']}}]}}]\n", agent.port);
    std::fs::write(folder.join("prometheus.yml"), config).expect("written");
    let port = free_port();
    let prometheus = Kept::spawn(
        Command::new(required("PLUMBLINE_TEST_PROMETHEUS"))
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null()),
    );
    let ask = |query: &'static str| {
        let client = agent.client().clone();
        async move {
            let answer = client.post(format!("http://127.0.0.1:{port}/api/v1/query")).header("content-type", "application/x-www-form-urlencoded").body(format!("query={}", encoded(query))).send().await.ok()?;
            let answer: Value = answer.json().await.ok()?;
            answer["data"]["result"][0]["value"][1].as_str().map(str::to_owned)
        }
    };
    for (query, wanted) in [
        ("up{job=\"plumbline\"}", "1"),
        ("plumbline_cdc_events_total{table=\"scraped.orders\",op=\"insert\"}", "1"),
        ("plumbline_table_in_sync{table=\"scraped.orders\"}", "1"),
        ("plumbline_table_rows{table=\"scraped.orders\",side=\"target\"}", "3"),
        ("plumbline_event_verifications_total{result=\"match\"}", "1"),
        ("plumbline_cdc_backlog_bytes", "0"),
        ("plumbline_queue_capacity{queue=\"stream\"}", "4"),
        ("count(plumbline_source_binlog_retention_seconds > 0)", "1"),
        ("count(plumbline_source_binlog_runway_seconds > 0)", "1"),
        ("count(plumbline_source_binlog_written_bytes_total)", "1"),
        ("count(plumbline_dependency_probe_duration_seconds_count > 0)", "3"),
        ("count(plumbline_db_operation_duration_seconds_count{db_system=\"sqlite\",operation=\"write\"} > 0)", "1"),
        ("count(plumbline_db_operation_duration_seconds_count{db_system=\"postgresql\",operation=\"write\"} > 0)", "1"),
        ("count(plumbline_db_operation_duration_seconds_count{db_system=\"mysql\",operation=\"rows\"} > 0)", "1"),
        ("count(process_cpu_seconds_total{job=\"plumbline\"} > 0)", "1"),
        ("absent({__name__=~\"plumbline_process_.*\"})", "1"),
    ] {
        let mut last = None;
        for _ in 0..100 {
            last = ask(query).await;
            if last.as_deref() == Some(wanted) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        assert_eq!(last.as_deref(), Some(wanted), "{query}\n{text}");
    }
    drop(prometheus);
    let page = agent.get("/api/v1/page").await;
    assert!(page["runway"]["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{page:#}");
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_totals_survive_and_begin_anew_as_documented() {
    let (pair, mut agent) = running("totals", &[]).await;
    pair.on_source(&["INSERT INTO orders VALUES (3, 'three'), (4, 'four')"]).await;
    agent.wait_for("/health", |health| health["cdc_events_processed"] == 2).await;
    assert_eq!(agent.stop().await, Some(0));
    agent.start();
    agent.ready().await;
    let health = agent.wait_for("/health", |health| health["cdc_events_total"] == 2).await;
    assert_eq!(health["cdc_events_processed"], 0, "since this start");
    pair.on_source(&["DELETE FROM orders WHERE id = 3"]).await;
    agent.wait_for("/health", |health| health["cdc_events_processed"] == 1 && health["cdc_events_total"] == 3).await;
    assert_eq!(agent.stop().await, Some(0));
}
