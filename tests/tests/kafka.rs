//! The same line by Kafka, Kafka Connect with Debezium, and Redis.

use std::time::Duration;

use plumbline_tests::agent::{Agent, table};
use plumbline_tests::oracle;
use plumbline_tests::servers::Pair;
use plumbline_tests::services::{self, Services};
use reqwest::Method;
use serde_json::{Value, json};

/// An agent of this pair, by Kafka and Redis, with a pipeline of its own.
async fn agent(pair: &Pair, services: &Services) -> Agent {
    pair.on_source(&[&format!("GRANT RELOAD, SHOW DATABASES ON *.* TO {}@'127.0.0.1'", pair.name)]).await;
    let mut settings: Vec<(&str, &str)> = ["KAFKA_BOOTSTRAP_SERVERS", "CONNECT_URL", "REDIS_HOST", "REDIS_PORT"].into_iter().map(|name| (name, services.get(name))).collect();
    settings.push(("PLUMBLINE_PIPELINE", &pair.name));
    Agent::with(pair, &settings)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// The counters of a table in an answer of `/api/v1/tables`; null where it is not there.
fn operations(tables: &Value, name: &str) -> Value {
    table(tables, name).map(|table| table["operations"].clone()).unwrap_or_default()
}

/// Asks Connect about the pair's connector.
async fn connector(services: &Services, pair: &Pair, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let url = format!("{}/connectors/plumbline-{}{path}", services.get("CONNECT_URL"), pair.name);
    let mut request = reqwest::Client::new().request(method, url);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.expect("Connect answers");
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

async fn wait_for_state(services: &Services, pair: &Pair, state: &str) {
    for _ in 0..100 {
        if connector(services, pair, Method::GET, "/status", None).await.1["connector"]["state"] == state {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the connector was not {state} in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_come_and_go_and_every_change_is_counted_once() {
    let services = services::shared().await;
    let pair = Pair::shared("debezium").await;
    pair.on_source(&["CREATE TABLE a (id INT PRIMARY KEY, v INT)", "INSERT INTO a VALUES (1, 1), (2, 2), (3, 3)"]).await;
    pair.on_target(&["CREATE TABLE a (id INT PRIMARY KEY, v INT)", "CREATE TABLE b (id INT PRIMARY KEY, v INT)"]).await;
    let mut agent = agent(&pair, services).await.started().await;
    agent.wait_for("/api/v1/tables", |tables| operations(tables, "a")["read"] == 3).await;

    // A key change is told by Debezium as a delete and an insert.
    pair.on_source(&["UPDATE a SET v = v + 1", "DELETE FROM a WHERE id = 3", "UPDATE a SET id = 9 WHERE id = 2", "TRUNCATE a", "INSERT INTO a VALUES (5, 5)"]).await;
    let expected = json!({ "read": 3, "insert": 2, "update": 3, "delete": 2, "truncate": 1 });
    agent.wait_for("/api/v1/tables", |tables| operations(tables, "a") == expected).await;
    let health = agent.get("/health").await;
    assert_eq!((&health["redis"], &health["debezium"]["mysql_connector"], &health["cdc_events_total"]), (&json!("connected"), &json!("running"), &json!(7)), "{health}");

    // The target does not have the row; then it has.
    agent.wait_for("/api/v1/tables", |tables| table(tables, "a").is_some_and(|table| table["findings"]["missing"] == 1)).await;
    pair.on_target(&["INSERT INTO a VALUES (5, 5)"]).await;
    agent.in_sync(&["a"]).await;

    // The connector goes back, and what it sends again is known. Its place is written when it stops.
    connector(services, &pair, Method::PUT, "/stop", None).await;
    wait_for_state(services, &pair, "STOPPED").await;
    let (_, offsets) = connector(services, &pair, Method::GET, "/offsets", None).await;
    assert!(!offsets["offsets"].as_array().expect("a list").is_empty(), "{offsets}");
    connector(services, &pair, Method::PUT, "/resume", None).await;
    pair.on_source(&["UPDATE a SET v = 6", "UPDATE a SET v = 7"]).await;
    let before = agent.wait_for("/metrics.json", |now| now["cdc_stats"]["events_total"] == 9).await;
    connector(services, &pair, Method::PUT, "/stop", None).await;
    wait_for_state(services, &pair, "STOPPED").await;
    let (status, answer) = connector(services, &pair, Method::PATCH, "/offsets", Some(offsets)).await;
    assert_eq!(status, 200, "{answer}");
    connector(services, &pair, Method::PUT, "/resume", None).await;
    let known = number(&before["cdc_stats"]["duplicates"]);
    agent.wait_for("/metrics.json", |now| number(&now["cdc_stats"]["duplicates"]) >= known + 2).await;
    assert_eq!(agent.get("/health").await["cdc_events_total"], 9);

    // A new table comes with its rows, which Debezium reads while the binlog moves on.
    pair.on_source(&["CREATE TABLE b (id INT PRIMARY KEY, v INT)", "INSERT INTO b VALUES (1, 1), (2, 2)"]).await;
    for _ in 0..60 {
        if number(&operations(&agent.get("/api/v1/tables").await, "b")["read"]) >= 2 {
            break;
        }
        pair.on_source(&["INSERT INTO b SELECT MAX(id) + 1, 0 FROM b"]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    agent.wait_for("/api/v1/tables", |tables| number(&operations(tables, "b")["read"]) >= 2).await;
    pair.on_source(&["DROP TABLE a"]).await;
    agent.wait_for("/api/v1/tables", |tables| table(tables, "a").is_none()).await;
    let list = |status: &Value| status["connectors"][0]["config"]["table.include.list"].as_str().map(str::to_owned);
    let status = agent.wait_for("/debezium/status", |status| list(status).as_deref() == Some("debezium\\.b")).await;
    assert_eq!(status["connectors"][0]["config"]["database.password"], "***");
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_again_and_again_it_counts_what_the_binlog_has() {
    let services = Services::start(&["redis", "connect"]).await;
    let pair = Pair::shared("killed").await;
    pair.on_source(&["CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v INT)"]).await;
    pair.on_target(&["CREATE TABLE t (id INT PRIMARY KEY, v INT)"]).await;
    let mut agent = agent(&pair, &services).await.started().await;
    // The connector follows the binlog when it has sent a change.
    for _ in 0..60 {
        pair.on_source(&["INSERT INTO t (v) VALUES (0)"]).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        if number(&operations(&agent.get("/api/v1/tables").await, "t")["insert"]) > 0 {
            break;
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let first = operations(&agent.get("/api/v1/tables").await, "t");
    let from = oracle::end_of_binlog(&pair).await;
    for round in 0..8 {
        pair.on_source(&["INSERT INTO t (v) SELECT v + 1 FROM t LIMIT 200", "UPDATE t SET v = v + 1 LIMIT 150", "DELETE FROM t ORDER BY id LIMIT 20"]).await;
        agent.kill();
        if round == 3 {
            services.kill("redis");
            services.again("redis").await;
        }
        agent.start();
        pair.on_source(&["UPDATE t SET v = v * 2 + id LIMIT 100"]).await;
        agent.ready().await;
    }
    // Redis dies under it: what it lost of the last second is read again.
    pair.on_source(&["UPDATE t SET v = v + 1000"]).await;
    services.kill("redis");
    pair.on_source(&["UPDATE t SET v = v + 2000"]).await;
    services.again("redis").await;
    let counted = oracle::count(&pair, &from).await;
    let counted = counted.get("t").copied().unwrap_or_default();
    let wanted = [number(&first["insert"]) + counted.inserts, number(&first["update"]) + counted.updates, number(&first["delete"]) + counted.deletes];
    let of = |tables: &Value| {
        let operations = operations(tables, "t");
        ["insert", "update", "delete"].map(|op| number(&operations[op]))
    };
    for _ in 0..200 {
        if of(&agent.get("/api/v1/tables").await) == wanted {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(of(&agent.get("/api/v1/tables").await), wanted, "{}", agent.log_tail());
    let metrics = agent.get("/metrics.json").await;
    let stats = &metrics["cdc_stats"];
    let total: u64 = metrics["sync_stats"]["total"].as_object().into_iter().flatten().map(|(_, count)| number(count)).sum();
    assert_eq!(number(&stats["records"]), total + number(&stats["duplicates"]) + number(&stats["control"]), "{stats}");
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connector_that_is_not_ours_is_not_touched() {
    let services = services::shared().await;
    let pair = Pair::shared("theirs").await;
    pair.on_source(&["CREATE TABLE t (id INT PRIMARY KEY)"]).await;
    let foreign = json!({ "connector.class": "org.apache.kafka.connect.tools.MockSourceConnector", "tasks.max": "1", "name": "plumbline-theirs" });
    let (status, answer) = connector(services, &pair, Method::PUT, "/config", Some(foreign)).await;
    if status == 400 {
        // This class is not on every worker: a connector of Debezium that somebody else has made does as well.
        let theirs = json!({
            "connector.class": "io.debezium.connector.mysql.MySqlConnector", "name": "plumbline-theirs", "topic.prefix": "theirs", "database.hostname": "127.0.0.1",
            "database.port": pair.mysql_port.to_string(), "database.user": "theirs", "database.password": pair.environment()[3].1, "database.server.id": "99887",
            "schema.history.internal.kafka.bootstrap.servers": services.get("KAFKA_BOOTSTRAP_SERVERS"), "schema.history.internal.kafka.topic": "theirs.history",
        });
        let (status, answer) = connector(services, &pair, Method::PUT, "/config", Some(theirs)).await;
        assert_eq!(status, 201, "{answer}");
    } else {
        assert_eq!(status, 201, "{answer}");
    }
    let (_, before) = connector(services, &pair, Method::GET, "/config", None).await;
    let mut agent = agent(&pair, services).await;
    agent.start();
    let health = agent.wait_for("/health", |health| health["components"]["connect"]["messages"].to_string().contains("is taken")).await;
    assert_eq!(health["debezium"]["mysql_connector"], "failed", "{health}");
    assert_eq!(connector(services, &pair, Method::GET, "/config", None).await.1, before);
    assert_eq!(agent.stop().await, Some(0));
}
