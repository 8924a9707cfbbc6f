//! The binlog source by itself: what real servers write, read exactly, and what cannot be read exactly refused by name.

use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use plumbline_mysql::{BinlogConfig, MysqlBinlog, MysqlConfig, SslMode};
use plumbline_sdk::{Batch, Coordinate, ErrorKind, Event, Op, Plugin, Position, Result, Secret, Source, ValueRef};
use plumbline_tests::servers::Mysql;

/// A server of its own with one database, and a source on it.
struct Bench {
    mysql: Mysql,
    conn: mysql_async::Conn,
    source: MysqlBinlog,
}

impl Bench {
    async fn new(settings: &[&str]) -> Self {
        let mysql = Mysql::start(settings).await;
        let mut conn = mysql.root().await;
        conn.query_drop("CREATE DATABASE shop").await.expect("a database");
        conn.query_drop("USE shop").await.expect("a database");
        let source = source(&mysql);
        let mut bench = Self { mysql, conn, source };
        bench.source.connect(None).await.expect("it connects");
        bench
    }
    async fn run(&mut self, statements: &[&str]) {
        for statement in statements {
            self.conn.query_drop(*statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
    }
    /// Reads until everything in the log has come; the seen changes as `insert 1`, and where it stands.
    async fn read(&mut self) -> Result<(Vec<String>, Position)> {
        let row: mysql_async::Row = self.conn.query_first("SHOW BINARY LOG STATUS").await.expect("allowed").expect("a binlog");
        let file: String = row.get(0).expect("a file");
        let end = Coordinate { log: file.rsplit('.').next().and_then(|number| number.parse().ok()).expect("a number"), offset: row.get(1).expect("an offset") };
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut seen = Vec::new();
        loop {
            assert!(Instant::now() < deadline, "the end of the log does not come");
            let batch = self.source.next(Duration::from_millis(100)).await?.expect("no end");
            let changes = batch.events.iter().filter(|event| matches!(event, Event::Change(_))).count() as u64;
            assert_eq!(batch.records, changes + batch.control, "records = changes + control");
            seen.extend(batch.events.iter().map(tell));
            if let Some(position) = batch.position
                && position.reached(end)
                && position.partial.is_none()
            {
                return Ok((seen, position));
            }
        }
    }
    async fn refused(&mut self, statements: &[&str]) -> String {
        self.run(statements).await;
        let error = self.read().await.expect_err("a refusal");
        assert_eq!(error.kind(), ErrorKind::Fatal, "{error}");
        error.to_string()
    }
}

fn source(mysql: &Mysql) -> MysqlBinlog {
    let config = MysqlConfig { host: "127.0.0.1".into(), port: mysql.port, user: "root".into(), password: Secret::default(), database: "shop".into(), ssl_mode: SslMode::Preferred, ssl_ca: None };
    MysqlBinlog::new(BinlogConfig { mysql: config, server_id: 771_010, heartbeat: Duration::from_secs(5) }).expect("settings")
}

fn tell(event: &Event) -> String {
    match event {
        Event::Change(change) => {
            let id = change.table.column("id").map(|at| change.after.as_ref().or(change.before.as_ref()).map_or(ValueRef::Absent, |row| row.get(at)));
            match (change.op, id) {
                (Op::Truncate, _) => format!("truncate {}", change.table.id.table),
                (op, Some(ValueRef::Int(id))) => format!("{op} {id}"),
                (op, other) => format!("{op} {other:?}"),
            }
        }
        Event::Schema(change) => format!("{} {}", change.kind.as_str(), change.table.table),
        other => format!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_effect_is_told_once_and_in_order() {
    let mut bench = Bench::new(&[]).await;
    bench.run(&["CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(9))", "INSERT INTO t VALUES (1, 'a'), (2, 'b')"]).await;
    bench.run(&["BEGIN", "INSERT INTO t VALUES (3, 'c')", "SAVEPOINT s", "INSERT INTO t VALUES (4, 'd')", "ROLLBACK TO s", "INSERT INTO t VALUES (5, 'e')", "COMMIT"]).await;
    bench.run(&["BEGIN", "INSERT INTO t VALUES (6, 'f')", "ROLLBACK", "CREATE TABLE u SELECT * FROM t WHERE id < 3"]).await;
    bench.run(&["ALTER TABLE t ADD COLUMN w INT DEFAULT 7 FIRST", "UPDATE t SET v = 'z' WHERE id = 1", "TRUNCATE u"]).await;
    let compressed = ["SET SESSION binlog_transaction_compression = ON", "BEGIN", "INSERT INTO t (id) VALUES (8), (9)", "DELETE FROM t WHERE id = 8", "COMMIT"];
    bench.run(&compressed).await;
    bench.run(&["SET SESSION binlog_transaction_compression = OFF", "FLUSH BINARY LOGS", "REPLACE INTO t (id) VALUES (9)"]).await;
    let (seen, _) = bench.read().await.expect("it is read");
    let expected = [
        "create t", "insert 1", "insert 2", "insert 3", "insert 5", "create u", "insert 1", "insert 2", "alter t", "update 1", "truncate u", "insert 8", "insert 9", "delete 8",
        "update 9",
    ];
    // A REPLACE of an equal row may come as an update or as delete and insert.
    assert_eq!(seen[..14], expected[..14]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_xa_transaction_counts_when_it_commits_also_after_a_restart_in_between() {
    let mut bench = Bench::new(&[]).await;
    bench.run(&["CREATE TABLE t (id INT PRIMARY KEY)"]).await;
    bench.run(&["XA START 'a'", "INSERT INTO t VALUES (1)", "XA END 'a'", "XA PREPARE 'a'"]).await;
    let (seen, position) = bench.read().await.expect("it is read");
    assert_eq!(seen, ["create t"]);
    // A session that has prepared may commit only that; another one goes on.
    bench.conn = bench.mysql.root().await;
    bench.run(&["USE shop", "INSERT INTO t VALUES (2)", "XA COMMIT 'a'"]).await;
    bench.run(&["XA START 'b'", "INSERT INTO t VALUES (3)", "XA END 'b'", "XA PREPARE 'b'"]).await;
    bench.conn = bench.mysql.root().await;
    bench.run(&["USE shop", "XA ROLLBACK 'b'", "XA START 'c'", "INSERT INTO t VALUES (4)", "XA END 'c'", "XA COMMIT 'c' ONE PHASE"]).await;
    bench.source.connect(Some(&position)).await.expect("it connects");
    assert_eq!(bench.read().await.expect("it is read").0, ["insert 2", "insert 1", "insert 4"]);
}

/// Reads a large transaction in parts, breaks off after each and goes on from there: every change comes once to a sink that skips what it has.
async fn parts(settings: &[&str]) {
    let mut bench = Bench::new(settings).await;
    bench.run(&["CREATE TABLE t (id INT PRIMARY KEY)", "SET SESSION cte_max_recursion_depth = 100000"]).await;
    let (_, mut stored) = bench.read().await.expect("it is read");
    bench.run(&["INSERT INTO t WITH RECURSIVE n AS (SELECT 1 i UNION ALL SELECT i + 1 FROM n WHERE i < 50000) SELECT i FROM n", "INSERT INTO t VALUES (50001)"]).await;
    let mut kept = 0;
    let mut breaks = 0;
    while kept < 50_001 {
        bench.source.connect(Some(&stored)).await.expect("it connects");
        loop {
            let batch: Batch = bench.source.next(Duration::from_millis(200)).await.expect("a batch").expect("no end");
            let before = kept;
            for mark in &batch.transactions {
                kept += batch.new_changes(mark, Some(&stored)).count();
            }
            if let Some(position) = batch.position {
                assert_ne!(position.order(&stored), Some(std::cmp::Ordering::Less), "a position never goes back");
                stored = position;
            }
            if kept > before {
                breaks += 1;
                break;
            }
        }
    }
    assert_eq!(kept, 50_001);
    assert!(breaks >= 3, "it came in {breaks} parts");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_transaction_comes_in_parts_that_survive_a_restart_each() {
    parts(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_gtids_a_large_transaction_is_known_by_its_end() {
    parts(&["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_exactly_is_refused_by_the_name_of_its_table() {
    let mut bench = Bench::new(&[]).await;
    bench.run(&["CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(9), j JSON)", r#"INSERT INTO t VALUES (1, 'a', '{"a": "aaaaaaaaaaaaaaaaaaaa", "b": 1}')"#]).await;
    let said = bench.refused(&["SET SESSION binlog_row_image = MINIMAL", "UPDATE t SET v = 'm'", "SET SESSION binlog_row_image = FULL"]).await;
    assert!(said.contains("`shop.t`") && said.contains("binlog_row_image"), "{said}");
    bench.source.connect(None).await.expect("it connects");
    let said = bench.refused(&["SET SESSION binlog_format = STATEMENT", "UPDATE t SET v = 's'", "SET SESSION binlog_format = ROW"]).await;
    assert!(said.contains("UNSUPPORTED_STATEMENT") && said.contains("`shop.t`"), "{said}");
    bench.source.connect(None).await.expect("it connects");
    let said = bench.refused(&["SET SESSION binlog_row_value_options = 'PARTIAL_JSON'", "UPDATE t SET j = JSON_SET(j, '$.b', 2)"]).await;
    assert!(said.contains("`shop.t`") && said.contains("PARTIAL_JSON"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_that_the_server_cannot_go_on_from_is_said_and_never_jumped_over() {
    let mut bench = Bench::new(&[]).await;
    bench.run(&["CREATE TABLE t (id INT PRIMARY KEY)"]).await;
    let (_, old) = bench.read().await.expect("it is read");
    bench.run(&["INSERT INTO t VALUES (1)", "FLUSH BINARY LOGS"]).await;
    let (_, new) = bench.read().await.expect("it is read");
    let row: mysql_async::Row = bench.conn.query_first("SHOW BINARY LOG STATUS").await.expect("allowed").expect("a binlog");
    bench.source.close().await.expect("it closes");
    let file: String = row.get(0).expect("a file");
    bench.run(&[&format!("PURGE BINARY LOGS TO '{file}'")]).await;
    let error = bench.source.connect(Some(&old)).await.expect_err("purged");
    assert!(error.kind() == ErrorKind::Fatal && error.to_string().contains("PURGED"), "{error}");
    bench.run(&["RESET BINARY LOGS AND GTIDS"]).await;
    let error = bench.source.connect(Some(&new)).await.expect_err("ahead");
    assert!(error.kind() == ErrorKind::Fatal && error.to_string().contains("ahead"), "{error}");
}
