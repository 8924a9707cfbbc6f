//! What goes wrong outside: each gives one message that says what to do, nothing is lost, and what still can work goes on.

use std::process::Command;
use std::time::Duration;

use mysql_async::prelude::Queryable;
use plumbline_tests::agent::{self, Agent, table};
use plumbline_tests::contents::{self, Look};
use plumbline_tests::servers::{self, Mysql, Pair, Postgres};
use serde_json::Value;

const TABLE: [&str; 2] = ["CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v INT)", "INSERT INTO t (v) VALUES (1), (2), (3)"];
const LOOK: Look = Look { source: "t", target: "t", columns: &[("id", "id"), ("v", "v")] };

async fn equal(pair: &Pair) {
    let (source, target) = contents::both(pair, &LOOK).await;
    assert_eq!(source, target);
}

/// Row changes since the beginning.
fn total(health: &Value) -> u64 {
    health["cdc_events_total"].as_u64().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn both_servers_may_go_away_and_come_back() {
    let (mut mysql, mut postgres) = tokio::join!(Mysql::start(&[]), Postgres::start());
    let pair = Pair::on(&mysql, &postgres, "away").await;
    pair.on_source(&TABLE).await;
    let mut agent = Agent::new(&pair).started().await;
    agent.in_sync(&["t"]).await;

    postgres.stop().await;
    pair.on_source(&["INSERT INTO t (v) SELECT v + 1 FROM t", "UPDATE t SET v = v * 2"]).await;
    agent.wait_for("/health", |health| health["postgres"] == "disconnected").await;
    assert_eq!(agent.status("/readyz").await, Some(503));
    postgres.up().await;
    agent.wait_for("/health", |health| health["postgres"] == "connected" && total(health) == 9).await;
    agent.in_sync(&["t"]).await;
    equal(&pair).await;

    mysql.stop(true).await;
    agent.wait_for("/health", |health| health["mysql"] == "disconnected").await;
    mysql.up().await;
    pair.on_source(&["DELETE FROM t WHERE id = 1"]).await;
    agent.wait_for("/health", |health| health["mysql"] == "connected" && total(health) == 10).await;
    agent.in_sync(&["t"]).await;
    equal(&pair).await;
    assert_eq!(agent.findings("all").await, Vec::<Value>::new());
    assert_eq!(agent.stop().await, Some(0));
}

/// The agent of a pair refuses to follow, goes on serving, and says these words.
async fn refused(pair: &Pair, words: &[&str]) {
    let output = agent::run(pair.environment(), &["check-config"]).await;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(2), "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is not said: {said}");
    }
    let mut agent = Agent::with(pair, &[]);
    agent.start();
    agent.wait_for("/health", |health| health["mysql"] == "disconnected" && words.iter().all(|word| health.to_string().contains(word))).await;
    assert_eq!(agent.status("/readyz").await, Some(503));
    assert_eq!(agent.status("/livez").await, Some(200));
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_followed_is_refused_with_the_statement_that_mends_it() {
    let (_, postgres) = servers::shared().await;
    let off = Mysql::start(&["--skip-log-bin", "--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]).await;
    refused(&Pair::on(&off, postgres, "off").await, &["log_bin", "--log-bin"]).await;
    drop(off);
    let minimal = Mysql::start(&["--binlog-row-image=MINIMAL"]).await;
    refused(&Pair::on(&minimal, postgres, "minimal").await, &["binlog_row_image", "SET PERSIST binlog_row_image = FULL"]).await;
    let mut conn = minimal.root().await;
    for sql in ["SET GLOBAL binlog_row_image = FULL", "SET GLOBAL binlog_row_metadata = MINIMAL"] {
        conn.query_drop(sql).await.expect("root may");
    }
    refused(&Pair::on(&minimal, postgres, "names").await, &["binlog_row_metadata", "SET PERSIST binlog_row_metadata = FULL"]).await;
    for sql in ["SET GLOBAL binlog_row_metadata = FULL", "SET GLOBAL binlog_format = STATEMENT"] {
        conn.query_drop(sql).await.expect("root may");
    }
    refused(&Pair::on(&minimal, postgres, "statements").await, &["binlog_format", "SET PERSIST binlog_format = ROW"]).await;
    conn.query_drop("SET GLOBAL binlog_format = ROW").await.expect("root may");
    let poor = Pair::on(&minimal, postgres, "poor").await;
    conn.query_drop("REVOKE REPLICATION SLAVE ON *.* FROM poor@'127.0.0.1'").await.expect("root may");
    refused(&poor, &["GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.*"]).await;
    let _ = conn.disconnect().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_gtids_and_with_compressed_transactions_it_is_as_exact() {
    let (_, postgres) = servers::shared().await;
    let mysql = Mysql::start(&["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF", "--binlog-transaction-compression=ON"]).await;
    let pair = Pair::on(&mysql, postgres, "plain").await;
    pair.on_source(&TABLE).await;
    let mut agent = Agent::new(&pair).started().await;
    agent.in_sync(&["t"]).await;
    for _ in 0..8 {
        pair.on_source(&["INSERT INTO t (v) SELECT v + 1 FROM t LIMIT 50", "UPDATE t SET v = v + 1 LIMIT 40", "FLUSH BINARY LOGS"]).await;
        agent.kill();
        agent.start();
    }
    let expected: u64 = {
        let mut conn = pair.source().await;
        let rows: u64 = conn.query_first("SELECT COUNT(*) FROM t").await.expect("asked").expect("a row");
        let _ = conn.disconnect().await;
        // Rows inserted after the copy, and the updates: 6, 12, 24, then 40 of each round.
        (rows - 3) + 6 + 12 + 24 + 5 * 40
    };
    agent.wait_for("/health", |health| total(health) >= expected).await;
    agent.in_sync(&["t"]).await;
    assert_eq!(total(&agent.get("/health").await), expected);
    equal(&pair).await;
    assert_eq!(agent.findings("all").await, Vec::<Value>::new());
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_history_stops_reading_and_loses_nothing() {
    let pair = Pair::shared("small_disk").await;
    pair.on_source(&TABLE).await;
    let mut agent = Agent::new(&pair);
    std::fs::create_dir_all(&agent.data).expect("a folder");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"]).arg(&agent.data).status();
    if !mounted.is_ok_and(|status| status.success()) {
        // Only root can make a small disk; elsewhere the folder cannot be filled without harm to others.
        println!("no small file system can be mounted here: the case was not run");
        return;
    }
    agent.start();
    agent.ready().await;
    agent.in_sync(&["t"]).await;
    let ballast = agent.data.join("ballast");
    // Everything that is left, to the last block.
    let _ = std::fs::write(&ballast, vec![0; 3 << 20]);
    pair.on_source(&["INSERT INTO t (v) WITH RECURSIVE n AS (SELECT 1 AS id UNION ALL SELECT id + 1 FROM n WHERE id < 900) SELECT id FROM n"]).await;
    let health = agent.wait_for("/health", |health| health["components"]["history"]["state"] == "down").await;
    assert!(health["components"]["history"]["messages"].to_string().contains(&agent.data.display().to_string()), "{health:#}");
    std::fs::remove_file(&ballast).expect("removed");
    agent.wait_for("/health", |health| total(health) == 900 && health["components"]["history"]["state"] == "up").await;
    agent.in_sync(&["t"]).await;
    equal(&pair).await;
    assert_eq!(agent.stop().await, Some(0));
    let (kept, (records, duplicates, control)) = agent.history().await;
    assert_eq!(kept["t"][1], 900);
    assert_eq!(records, 900 + duplicates + control);
    let _ = Command::new("umount").arg("-l").arg(&agent.data).status();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_on_the_same_data_folder_is_refused() {
    let pair = Pair::shared("twice").await;
    pair.on_source(&TABLE).await;
    let mut agent = Agent::with(&pair, &[]).started().await;
    let mut environment = agent.environment();
    environment.retain(|(name, _)| name != "PLUMBLINE_LISTEN");
    environment.push(("PLUMBLINE_LISTEN".into(), format!("127.0.0.1:{}", servers::free_port())));
    let output = agent::run(environment, &["run"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("PLUMBLINE_DATA_DIR") && said.contains(&agent.pid().unwrap_or(0).to_string()), "{said}");
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_be_applied_stops_alone_and_says_so() {
    let pair = Pair::shared("alone").await;
    pair.on_source(&TABLE).await;
    pair.on_source(&["CREATE TABLE bad (id INT PRIMARY KEY, v VARCHAR(50), w INT)", "INSERT INTO bad VALUES (1, 'x', 1)"]).await;
    pair.on_target(&["CREATE TABLE bad (id INT PRIMARY KEY, v VARCHAR(50))", "INSERT INTO bad VALUES (7, 'keep')"]).await;
    let mut agent = Agent::new(&pair).started().await;
    agent.in_sync(&["t"]).await;
    let answer = agent.wait_for("/api/v1/tables", |answer| table(answer, "bad").is_some_and(|bad| bad["stopped"].is_string())).await;
    assert!(table(&answer, "bad").is_some_and(|bad| bad["stopped"].to_string().contains("`w`") && bad["status"] != "in_sync"), "{answer:#}");
    pair.on_source(&["INSERT INTO bad VALUES (2, 'y', 2)", "INSERT INTO t (v) VALUES (9)"]).await;
    agent.wait_for("/health", |health| total(health) == 2).await;
    agent.in_sync(&["t"]).await;
    equal(&pair).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_table_that_may_not_be_read_says_so_and_holds_up_no_other() {
    let pair = Pair::shared("closed").await;
    for name in ["a", "b"] {
        pair.on_source(&[&format!("CREATE TABLE {name} (id INT PRIMARY KEY)"), &format!("INSERT INTO {name} VALUES (1), (2)")]).await;
        pair.on_target(&[&format!("CREATE TABLE {name} (id INT PRIMARY KEY)"), &format!("INSERT INTO {name} VALUES (1), (2)")]).await;
    }
    let mut root = pair.target().await;
    sqlx::raw_sql("ALTER TABLE a OWNER TO postgres; REVOKE ALL ON a FROM PUBLIC, closed").execute(&mut root).await.expect("the superuser may");
    let mut agent = Agent::with(&pair, &[]).started().await;
    let of = |tables: &Value, name: &str| table(tables, name).cloned().unwrap_or_default();
    let tables = agent.wait_for("/api/v1/tables", |tables| of(tables, "b")["status"] == "in_sync" && of(tables, "a")["status"] == "unverified").await;
    assert!(of(&tables, "a")["unverified"].to_string().contains("permission denied"), "{tables}");
    sqlx::raw_sql("GRANT SELECT ON a TO closed").execute(&mut root).await.expect("the superuser may");
    agent.wait_for("/api/v1/tables", |tables| of(tables, "a")["status"] == "in_sync").await;
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_nobody_writes_to_is_proved_too() {
    let (_, postgres) = servers::shared().await;
    let mysql = Mysql::start(&[]).await;
    let pair = Pair::on(&mysql, postgres, "idle").await;
    pair.on_source(&TABLE).await;
    // The log's end is then past its last transaction.
    pair.on_source(&["FLUSH BINARY LOGS"]).await;
    let mut agent = Agent::new(&pair).started().await;
    agent.in_sync(&["t"]).await;
    pair.on_source(&["FLUSH BINARY LOGS", "FLUSH BINARY LOGS"]).await;
    let (status, check) = agent.post("/api/v1/checks", &serde_json::json!({})).await;
    assert_eq!(status, 202, "{check}");
    let path = format!("/api/v1/checks/{}", check["id"]);
    let done = agent.wait_for(&path, |check| check["state"] == "done").await;
    assert!(done.to_string().contains("\"equal\""), "{done}");
    assert_eq!(agent.stop().await, Some(0));
}
