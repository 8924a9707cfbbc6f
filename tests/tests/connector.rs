//! What people do with the Debezium connector, and what happens to it, on real servers.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use plumbline_tests::agent::{Agent, table};
use plumbline_tests::servers::{self, Mysql, Pair};
use plumbline_tests::services::{self, Services};
use reqwest::Method;
use serde_json::{Value, json};

use crate::kafka::{agent, number, operations};

/// Orders something of the pair's connector.
async fn order(agent: &Agent, pair: &Pair, method: Method, order: &str) -> (u16, Value) {
    let url = agent.url(&format!("/api/v1/connectors/plumbline-{}{order}", pair.name));
    let answer = agent.client().request(method, url).send().await.expect("the agent answers");
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

/// What Kafka Connect itself says of the pair's connector.
async fn connect(services: &Services, pair: &Pair, path: &str) -> (u16, Value) {
    let answer = reqwest::get(format!("{}/connectors/plumbline-{}{path}", services.get("CONNECT_URL"), pair.name)).await.expect("Connect answers");
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

fn is(state: &'static str) -> impl Fn(&Value) -> bool {
    move |list| list["connectors"][0]["state"] == state
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_pauses_changes_removes_and_resumes_the_connector() {
    let services = services::shared().await;
    let pair = Pair::shared("handled").await;
    pair.on_source(&["CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)"]).await;
    pair.on_target(&["CREATE TABLE t (id INT PRIMARY KEY)"]).await;
    let mut agent = agent(&pair, services).await.started().await;
    agent.wait_for("/api/v1/connectors", is("RUNNING")).await;
    agent.wait_for("/api/v1/tables", |tables| operations(tables, "t")["read"] == 1).await;

    // Paused stays paused, though the care looks every other second.
    let (status, answer) = order(&agent, &pair, Method::POST, "/pause").await;
    assert_eq!(status, 202, "{answer}");
    agent.wait_for("/health", |health| health["debezium"]["mysql_connector"] == "paused").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(connect(services, &pair, "/status").await.1["connector"]["state"], "PAUSED");
    assert_eq!(order(&agent, &pair, Method::POST, "/resume").await.0, 202);
    pair.on_source(&["INSERT INTO t VALUES (2)"]).await;
    agent.wait_for("/api/v1/tables", |tables| operations(tables, "t")["insert"] == 1).await;
    let list = agent.wait_for("/api/v1/connectors", |list| is("RUNNING")(list) && list["connectors"][0]["gtids"].is_string()).await;
    let shown = &list["connectors"][0];
    assert!(shown["tasks"][0]["state"] == "RUNNING" && shown["worker"].as_str().is_some_and(|worker| !worker.is_empty()), "{shown}");
    assert_eq!((&shown["config"]["database.password"], &shown["weak"], &shown["drift"]), (&json!("***"), &json!([]), &json!([])));

    // Somebody changes a setting: it is set right, and told by name.
    let (_, mut settings) = connect(services, &pair, "/config").await;
    settings["decimal.handling.mode"] = json!("double");
    let url = format!("{}/connectors/plumbline-{}/config", services.get("CONNECT_URL"), pair.name);
    assert!(reqwest::Client::new().put(url).json(&settings).send().await.expect("Connect answers").status().is_success());
    for _ in 0..100 {
        if agent.log().contains("`decimal.handling.mode`") && connect(services, &pair, "/config").await.1["decimal.handling.mode"] == "precise" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(connect(services, &pair, "/config").await.1["decimal.handling.mode"], "precise");
    assert!(agent.log().contains("`decimal.handling.mode`"), "{}", agent.log_tail());
    agent.wait_for("/api/v1/connectors", is("RUNNING")).await;

    let metrics = agent.client().get(agent.url("/metrics")).header("accept", "text/plain;version=0.0.4").send().await.expect("metrics").text().await.expect("text");
    for wanted in [
        format!("plumbline_connector_state{{pipeline=\"handled\",connector=\"plumbline-handled\",state=\"{}\"}} 1", "running"),
        "plumbline_kafka_consumer_lag_records{".to_owned(),
        "plumbline_kafka_records_aside_total{pipeline=\"handled\",reason=\"row\"} 0".to_owned(),
        "plumbline_cdc_latency_seconds_count{pipeline=\"handled\",stage=\"transport\"}".to_owned(),
    ] {
        assert!(metrics.contains(&wanted), "no {wanted} in\n{metrics}");
    }

    // Removed stays removed until it is resumed; nobody else's is ever touched.
    assert_eq!(order(&agent, &pair, Method::DELETE, "").await.0, 202);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(connect(services, &pair, "").await.0, 404);
    assert_eq!(order(&agent, &pair, Method::POST, "/pause").await.0, 409);
    assert_eq!(order(&agent, &pair, Method::POST, "/resume").await.0, 202);
    agent.wait_for("/api/v1/connectors", is("RUNNING")).await;
    pair.on_source(&["INSERT INTO t VALUES (3)"]).await;
    agent.wait_for("/api/v1/tables", |tables| operations(tables, "t")["insert"] == 2).await;
    assert_eq!(number(&operations(&agent.get("/api/v1/tables").await, "t")["read"]), 1, "it went on from its place");
    assert_eq!(agent.stop().await, Some(0));
}

/// The binlog that is written to now.
async fn newest_binlog(root: &mut mysql_async::Conn) -> String {
    let row: mysql_async::Row = root.query_first("SHOW BINARY LOG STATUS").await.expect("allowed").expect("a binlog");
    row.get(0).expect("a name")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purged_binlog_is_told_with_what_was_lost_and_never_passed_over() {
    let services = services::shared().await;
    let mysql = Mysql::start(&[]).await;
    let pair = Pair::on(&mysql, &servers::shared().await.1, "purged").await;
    pair.on_source(&["CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)"]).await;
    pair.on_target(&["CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1), (2)"]).await;
    let mut agent = agent(&pair, services).await.started().await;
    agent.wait_for("/api/v1/tables", |tables| operations(tables, "t")["read"] == 2).await;
    agent.wait_for("/api/v1/connectors", |list| list["connectors"][0]["file"].is_string()).await;
    pair.on_source(&["INSERT INTO t VALUES (3)"]).await;
    agent.wait_for("/api/v1/tables", |tables| operations(tables, "t")["insert"] == 1).await;

    assert_eq!(order(&agent, &pair, Method::POST, "/stop").await.0, 202);
    let stopped = agent.wait_for("/api/v1/connectors", |list| list["connectors"][0]["state"] == "STOPPED" && list["connectors"][0]["file"].is_string()).await;
    let from = stopped["connectors"][0]["file"].as_str().expect("a file").to_owned();
    let mut root = mysql.root().await;
    pair.on_source(&["DELETE FROM t WHERE id = 1"]).await;
    for _ in 0..2 {
        root.query_drop("FLUSH BINARY LOGS").await.expect("allowed");
    }
    let oldest = newest_binlog(&mut root).await;
    root.query_drop(format!("PURGE BINARY LOGS TO '{oldest}'")).await.expect("allowed");
    assert_eq!(order(&agent, &pair, Method::POST, "/resume").await.0, 202);

    // What was lost is said, with the place where it begins and the one where it ends; nothing was read again in silence.
    let told = agent.wait_for("/debezium/status", |status| status["connectors"][0]["lost"].as_str().is_some_and(|lost| lost.contains(&oldest))).await;
    let shown = &told["connectors"][0];
    assert_eq!((&shown["state"], &told["status"]), (&json!("PURGED"), &json!("failed")), "{told}");
    let lost = shown["lost"].as_str().expect("a sentence").to_owned();
    assert!(lost.contains(&format!("from `{from}` byte")) && lost.contains("after the transactions"), "{lost}");
    let messages = agent.wait_for("/health", |health| health["components"]["connect"]["messages"].to_string().contains(&oldest)).await["components"]["connect"]["messages"].to_string();
    assert!(messages.contains("purged") && messages.contains("Compare all tables") && messages.contains("forget=true"), "{messages}");
    let page = agent.get("/api/v1/page").await;
    assert!(page.to_string().contains(&oldest), "the page says it: {page:#}");
    assert_eq!(number(&operations(&agent.get("/api/v1/tables").await, "t")["read"]), 2, "no row was read again");

    // What is to be done: the deleted row is found; the connector begins anew on request and reads all rows.
    agent.post("/api/v1/checks", &json!({ "tables": ["t"] })).await;
    agent.wait_for("/api/v1/tables", |tables| table(tables, "t").is_some_and(|table| number(&table["findings"]["total"]) > 0)).await;
    let (status, answer) = order(&agent, &pair, Method::DELETE, "?forget=true").await;
    assert_eq!(status, 202, "{answer}");
    assert_eq!(order(&agent, &pair, Method::POST, "/resume").await.0, 202);
    agent.wait_for("/api/v1/connectors", is("RUNNING")).await;
    agent.wait_for("/api/v1/tables", |tables| number(&operations(tables, "t")["read"]) == 4).await;
    pair.on_source(&["INSERT INTO t VALUES (9)"]).await;
    agent.wait_for("/api/v1/tables", |tables| operations(tables, "t")["insert"] == 2).await;
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_by_tls_and_password_connect_by_https_and_no_password_in_the_connector() {
    let services = Services::start(&["redis", "connect", "secure"]).await;
    let pair = Pair::shared("secured").await;
    pair.on_source(&["CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)"]).await;
    pair.on_target(&["CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)"]).await;
    let password = pair.environment().into_iter().find(|(name, _)| name == "MYSQL_PASSWORD").expect("a password").1;
    let secrets = services.get("CONNECT_SECRETS");
    std::fs::write(format!("{secrets}/mysql.properties"), format!("password={password}\n")).expect("a secret of the workers");
    std::fs::write(format!("{secrets}/kafka"), services.get("KAFKA_SECURE_PASSWORD")).expect("a secret of the agent");
    let reference = format!("${{file:{secrets}/mysql.properties:password}}");
    let ca = services.get("KAFKA_SECURE_CA");
    let mut agent = agent(&pair, &services).await;
    for (name, value) in [
        ("KAFKA_BOOTSTRAP_SERVERS", services.get("KAFKA_SECURE_SERVERS")),
        ("CONNECT_BOOTSTRAP_SERVERS", services.get("KAFKA_BOOTSTRAP_SERVERS")),
        ("KAFKA_SECURITY_PROTOCOL", "sasl_ssl"),
        ("KAFKA_SSL_CA", ca),
        ("KAFKA_SASL_MECHANISM", "PLAIN"),
        ("KAFKA_SASL_USERNAME", services.get("KAFKA_SECURE_USER")),
        ("KAFKA_SASL_PASSWORD_FILE", &format!("{secrets}/kafka")),
        ("CONNECT_URL", services.get("CONNECT_SECURE_URL")),
        ("CONNECT_CA", ca),
        ("CONNECT_MYSQL_PASSWORD", &reference),
    ] {
        agent.set(name, value);
    }
    let mut agent = agent.started().await;
    agent.wait_for("/api/v1/tables", |tables| operations(tables, "t")["read"] == 1).await;
    pair.on_source(&["INSERT INTO t VALUES (2)"]).await;
    agent.wait_for("/api/v1/tables", |tables| operations(tables, "t")["insert"] == 1).await;
    assert_eq!(connect(&services, &pair, "/config").await.1["database.password"], reference.as_str(), "Kafka Connect was given no password");
    assert_eq!(agent.stop().await, Some(0));

    // What does not fit says so, and nothing is sent in clear instead.
    agent.set("CONNECT_CA", "");
    agent.start();
    let health = agent.wait_for("/health", |health| health["components"]["connect"]["messages"].to_string().contains("does not answer")).await;
    assert!(health["components"]["connect"]["messages"].to_string().to_lowercase().contains("certificate"), "{health}");
    assert_eq!(agent.stop().await, Some(0));
}
