//! The same line by Kafka, Kafka Connect with Debezium, and Redis.

use std::time::Duration;

use plumbline_tests::agent::{Agent, table};
use plumbline_tests::contents;
use plumbline_tests::oracle;
use plumbline_tests::servers::Pair;
use plumbline_tests::services::{self, Services};
use plumbline_tests::workload::{TABLES, Workload};
use reqwest::Method;
use serde_json::{Value, json};

/// An agent of this pair, by Kafka and Redis, with a pipeline of its own.
pub async fn agent(pair: &Pair, services: &Services) -> Agent {
    pair.on_source(&[&format!("GRANT RELOAD, SHOW DATABASES ON *.* TO {}@'127.0.0.1'", pair.name)]).await;
    let mut settings: Vec<(&str, &str)> = ["KAFKA_BOOTSTRAP_SERVERS", "CONNECT_URL", "REDIS_HOST", "REDIS_PORT"].into_iter().map(|name| (name, services.get(name))).collect();
    settings.push(("PLUMBLINE_PIPELINE", &pair.name));
    Agent::with(pair, &settings)
}

pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// The counters of a table in an answer of `/api/v1/tables`; null where it is not there.
pub fn operations(tables: &Value, name: &str) -> Value {
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
    // Connect dies under it, and goes back to what it had stored of the connector: what is sent again is known.
    for _ in 0..20 {
        pair.on_source(&["UPDATE t SET v = v + 1 LIMIT 50"]).await;
    }
    services.kill("connect");
    pair.on_source(&["UPDATE t SET v = v + 3000", "INSERT INTO t (v) SELECT v FROM t LIMIT 30"]).await;
    services.again("connect").await;
    let counted = oracle::count(&pair, &from).await;
    let counted = counted.get("t").copied().unwrap_or_default();
    let wanted = [number(&first["insert"]) + counted.inserts, number(&first["update"]) + counted.updates, number(&first["delete"]) + counted.deletes];
    let of = |tables: &Value| {
        let operations = operations(tables, "t");
        ["insert", "update", "delete"].map(|op| number(&operations[op]))
    };
    for _ in 0..400 {
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

/// Writes the pair's topics into its target by Debezium's JDBC sink: somebody else's, of whom the agent knows only the offsets.
async fn jdbc_sink(services: &Services, pair: &Pair) -> String {
    let (name, environment) = (format!("sink-{}", pair.name), pair.environment());
    let of = |wanted: &str| environment.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.clone()).expect("a setting");
    let settings = json!({
        "connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector", "name": name, "tasks.max": "1",
        "topics.regex": format!("{0}\\.{0}\\..*", pair.name), "consumer.override.metadata.max.age.ms": "1000",
        "connection.url": format!("jdbc:postgresql://127.0.0.1:{}/{}", pair.postgres_port, of("POSTGRES_DATABASE")),
        "connection.username": of("POSTGRES_USER"), "connection.password": of("POSTGRES_PASSWORD"),
        "insert.mode": "upsert", "delete.enabled": "true", "primary.key.mode": "record_key", "schema.evolution": "none",
        "collection.name.format": "${source.table}",
        "key.converter": "org.apache.kafka.connect.json.JsonConverter", "key.converter.schemas.enable": "true",
        "value.converter": "org.apache.kafka.connect.json.JsonConverter", "value.converter.schemas.enable": "true",
    });
    let url = format!("{}/connectors/{name}/config", services.get("CONNECT_URL"));
    let answer = reqwest::Client::new().put(url).json(&settings).send().await.expect("Connect answers");
    assert_eq!(answer.status().as_u16(), 201, "{}", answer.text().await.unwrap_or_default());
    name
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_elses_sink_has_in_flight_is_no_difference_and_what_it_lost_is_one() {
    let services = Services::start(&["redis", "jdbc"]).await;
    let pair = Pair::shared("beside").await;
    let shape = "(id INT PRIMARY KEY, v INT, price DECIMAL(12,2), note VARCHAR(40))";
    pair.on_source(&[&format!("CREATE TABLE t {shape}"), "INSERT INTO t VALUES (1, 1, 1.50, 'a'), (2, 2, 2.25, 'b'), (3, 3, NULL, NULL)"]).await;
    pair.on_target(&[&format!("CREATE TABLE t {shape}")]).await;
    pair.on_source(&["CREATE TABLE u (id INT PRIMARY KEY, v INT)", "INSERT INTO u VALUES (1, 1), (2, 2)"]).await;
    pair.on_target(&["CREATE TABLE u (id INT PRIMARY KEY, v INT)"]).await;
    let sink = jdbc_sink(&services, &pair).await;
    let mut agent = agent(&pair, &services).await;
    // Time settles nothing here.
    agent.set("PLUMBLINE_CHECKS_SETTLE", "600s");
    let mut agent = agent.started().await;
    let of_sink = |what: &'static str| {
        let url = format!("{}/connectors/{sink}/{what}", services.get("CONNECT_URL"));
        async move { assert!(reqwest::Client::new().put(url).send().await.expect("Connect answers").status().is_success()) }
    };
    agent.in_sync(&["t", "u"]).await;

    // Writes all the time, hot keys, a sink that stops for a while and goes on.
    let mut checks = 0;
    for round in 0..40 {
        if round == 12 {
            of_sink("pause").await;
        }
        if round == 24 {
            of_sink("resume").await;
        }
        let mut statements = vec!["UPDATE t SET v = v + 1, price = COALESCE(price, 0) + 0.01 WHERE id <= 3".to_owned(); 3];
        statements.push(format!("INSERT INTO t VALUES ({}, {round}, {round}.5, 'n{round}')", 100 + round));
        statements.push(format!("DELETE FROM t WHERE id = {}", 97 + round));
        let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
        pair.on_source(&statements).await;
        if round % 8 == 0 {
            let (status, check) = agent.post("/api/v1/checks", &json!({ "tables": ["t"] })).await;
            assert_eq!(status, 202, "{check}");
            checks += 1;
        }
        let findings = agent.get("/api/v1/findings?state=all").await;
        assert_eq!(findings["findings"], json!([]), "round {round}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    agent.in_sync(&["t"]).await;
    assert_eq!((checks, &agent.get("/api/v1/findings?state=all").await["findings"]), (5, &json!([])));
    // Each change was looked at by itself, when the sink had settled it: three rows three times a round, one more, and one less.
    let singly = async |agent: &Agent, result: &str| -> u64 {
        let metrics = agent.client().get(agent.url("/metrics")).header("accept", "text/plain;version=0.0.4").send().await.expect("metrics").text().await.expect("text");
        let name = format!("plumbline_event_verifications_total{{pipeline=\"beside\",result=\"{result}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse::<f64>().ok()).map_or(0, |number| number as u64)
    };
    for _ in 0..100 {
        if singly(&agent, "match").await >= 40 * 10 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(singly(&agent, "match").await >= 40 * 10, "{}", agent.log_tail());
    assert_eq!((singly(&agent, "mismatch").await, singly(&agent, "missing").await), (0, 0));

    // What the sink lost, changed or invented is found, and nothing else.
    pair.on_target(&["UPDATE t SET v = -1 WHERE id = 2", "DELETE FROM t WHERE id = 139", "INSERT INTO t VALUES (5000, 0, 0, '')"]).await;
    pair.on_source(&["UPDATE t SET note = 'new' WHERE id = 1"]).await;
    agent.post("/api/v1/checks", &json!({ "tables": ["t"] })).await;
    let found = agent.wait_for("/api/v1/findings", |findings| findings["total_open"] == 3).await;
    let text = |finding: &Value| [&finding["verdict"], &finding["settled_by"], &finding["key"]["id"]].map(|field| field.as_str().unwrap_or_default().to_owned());
    let mut seen: Vec<[String; 3]> = found["findings"].as_array().expect("a list").iter().map(text).collect();
    seen.sort();
    let expected = [["changed", "offsets", "2"], ["extra", "offsets", "5000"], ["missing", "offsets", "139"]].map(|finding| finding.map(str::to_owned));
    assert_eq!(seen, expected, "{found}");
    assert_eq!(agent.stop().await, Some(0));

    // No more comparisons of whole tables that stand well: a row that somebody spoils right after the sink wrote it is found by its own check.
    agent.set("PLUMBLINE_CHECKS_INTERVAL", "1h");
    let mut agent = agent.started().await;
    agent.in_sync(&["u"]).await;
    let mut target = pair.target().await;
    for value in 10..40 {
        pair.on_source(&[&format!("UPDATE u SET v = {value} WHERE id = 1")]).await;
        for _ in 0..3000 {
            let spoilt = sqlx::query("UPDATE u SET v = -v WHERE id = 1 AND v = $1").bind(value).execute(&mut target).await.expect("the superuser may");
            if spoilt.rows_affected() > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // Where the sink had committed already, and its row was looked at before it was spoilt, the next one is.
        for _ in 0..25 {
            if singly(&agent, "mismatch").await > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        if singly(&agent, "mismatch").await > 0 {
            break;
        }
    }
    assert!(singly(&agent, "mismatch").await > 0, "{}", agent.log_tail());
    let found = agent.wait_for("/api/v1/findings?table=beside.u", |findings| findings["findings"].as_array().is_some_and(|findings| findings.len() == 1)).await;
    let finding = &found["findings"][0];
    assert_eq!((&finding["verdict"], &finding["key"]["id"], &finding["settled_by"]), (&json!("changed"), &json!("1"), &json!("offsets")), "{found}");
    assert_eq!(finding["columns"], json!(["v"]));
    // The next change of the row sets it right, and its check says so.
    pair.on_source(&["UPDATE u SET v = 1000 WHERE id = 1"]).await;
    agent.wait_for("/api/v1/findings?table=beside.u", |findings| findings["findings"] == json!([])).await;
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_random_workload_is_applied_by_kafka_and_never_found_to_differ() {
    let services = services::shared().await;
    let pair = Pair::shared("bykafka").await;
    // Debezium's parser of statements stops at names with quotes in them.
    let mut workload = Workload::begin(&pair, 7, 60).await.without_quotes().await;
    let mut agent = agent(&pair, services).await;
    agent.set("PLUMBLINE_APPLY", "true");
    let mut agent = agent.started().await;
    // Written while the connector reads the existing rows, and after it; killed now and then.
    for round in 0..6 {
        workload.go(150, false).await;
        if round % 2 == 1 {
            agent.kill();
            workload.go(30, false).await;
            agent.start();
        }
    }
    agent.ready().await;
    let tables: Vec<&str> = TABLES.into_iter().filter(|name| !name.contains('`')).collect();
    agent.in_sync(&tables).await;
    contents::are_equal_of(&pair, |name| !name.contains('`')).await;
    let findings = agent.get("/api/v1/findings?state=all").await;
    assert_eq!(findings["findings"], json!([]), "{findings}\n{}", agent.log_tail());

    pair.on_target(&["UPDATE ints SET n = n + 1000 WHERE id = (SELECT MIN(id) FROM ints)"]).await;
    agent.wait_for("/api/v1/findings", |findings| findings["total_open"] == 1).await;
    assert_eq!(agent.stop().await, Some(0));
}
