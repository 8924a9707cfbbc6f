//! The binlog into counted batches, and what a change costs both databases.

use std::time::Duration;

use futures::StreamExt;
use mysql_async::binlog::events::EventData;
use mysql_async::prelude::Queryable;
use mysql_async::{BinlogStreamRequest, Row};
use plumbline_mysql::{BinlogConfig, MysqlBinlog, MysqlConfig, Watch};
use plumbline_sdk::{Coordinate, Event, Position, Source};
use plumbline_tests::agent::Agent;
use plumbline_tests::servers::{Mysql, Pair, Postgres};
use sqlx::Row as _;

use crate::machine::{cpu, median};

const TABLE: &str = "CREATE TABLE orders (id bigint PRIMARY KEY, customer int NOT NULL, total decimal(12,2) NOT NULL, placed datetime(3) NOT NULL, \
     status varchar(10) NOT NULL, city varchar(40), note varchar(120), weight decimal(14,4), flags int unsigned, done smallint)";

/// Rows of about 200 bytes from number `first`.
pub fn fill(first: u64, rows: u64) -> String {
    format!(
        "INSERT INTO orders WITH RECURSIVE n AS (SELECT {first} i UNION ALL SELECT i + 1 FROM n WHERE i < {}) \
         SELECT i, i % 1000, i * 0.01, TIMESTAMP('2026-01-01') + INTERVAL i SECOND, ELT(1 + i % 3, 'new', 'paid', 'sent'), CONCAT('city ', i % 500), \
         CONCAT(SHA2(i, 256), ' note ', i), ROUND(i / 7, 4), i % 256, i % 2 FROM n",
        first + rows - 1
    )
}

/// A table with so many rows on the pair's source.
pub async fn make(pair: &Pair, rows: u64) {
    let mut conn = pair.source().await;
    conn.query_drop("SET SESSION cte_max_recursion_depth = 10000000").await.expect("allowed");
    conn.query_drop(TABLE).await.expect("a table");
    let mut first = 1;
    while first <= rows {
        let chunk = (rows - first + 1).min(50_000);
        conn.query_drop(fill(first, chunk)).await.expect("rows");
        first += chunk;
    }
    let _ = conn.disconnect().await;
}

async fn ours(pair: &Pair, from: &Position, rows: u64) -> f64 {
    let mysql = MysqlConfig {
        host: "127.0.0.1".into(),
        port: pair.mysql_port,
        user: "root".into(),
        password: Default::default(),
        database: pair.name.clone(),
        ssl_mode: plumbline_mysql::SslMode::Disabled,
        ssl_ca: None,
    };
    let config = BinlogConfig { mysql, server_id: 77_001, heartbeat: Duration::from_secs(10) };
    let mut source = MysqlBinlog::with_watch(config, Watch::new(Vec::new(), Vec::new()));
    let before = cpu();
    source.connect(Some(from)).await.expect("it connects");
    let mut counted = 0;
    while counted < rows {
        let batch = source.next(Duration::from_secs(5)).await.expect("a batch").expect("no end");
        counted += batch.events.iter().filter(|event| matches!(event, Event::Change(_))).count() as u64;
    }
    assert_eq!(counted, rows, "every row is counted");
    let used = cpu() - before;
    source.close().await.expect("it closes");
    used
}

async fn theirs(pair: &Pair, from: &Position, rows: u64) -> f64 {
    let conn = pair.source().await;
    let before = cpu();
    let request = BinlogStreamRequest::new(77_002).with_filename(from.file.as_bytes()).with_pos(from.at.offset);
    let mut stream = conn.get_binlog_stream(request).await.expect("a stream");
    let mut counted = 0;
    while counted < rows {
        let event = stream.next().await.expect("no end").expect("an event");
        if let Ok(Some(EventData::RowsEvent(event))) = event.read_data() {
            let map = stream.get_tme(event.table_id()).expect("a table map");
            counted += event.rows(map).filter(|row| row.as_ref().is_ok_and(|(_, after)| after.is_some())).count() as u64;
        }
    }
    cpu() - before
}

/// Rows per processor second, ours against the driver's `rows()`, on the same bulk binlog.
pub async fn binlog(rows: u64, runs: u64) {
    let mysql = Mysql::start(&["--max-binlog-size=1G"]).await;
    let postgres = Postgres::start().await;
    let pair = Pair::on(&mysql, &postgres, "bench").await;
    let mut conn = pair.source().await;
    let row: Row = conn.query_first("SHOW BINARY LOG STATUS").await.expect("allowed").expect("a binlog");
    let (server, gtids): (String, String) = conn.query_first("SELECT @@server_uuid, @@gtid_executed").await.expect("allowed").expect("a row");
    let file: String = row.get(0).expect("a file");
    let at = Coordinate { log: file.rsplit('.').next().and_then(|number| number.parse().ok()).expect("a number"), offset: row.get(1).expect("an offset") };
    let from = Position { server, file, at, gtids: Some(gtids.parse().expect("a set")), ..Position::default() };
    make(&pair, rows).await;
    let (mut a, mut b) = (Vec::new(), Vec::new());
    ours(&pair, &from, rows).await;
    for _ in 0..runs {
        a.push(ours(&pair, &from, rows).await);
        b.push(theirs(&pair, &from, rows).await);
    }
    let (a, b) = (median(a), median(b));
    println!("binlog, {rows} rows of about 200 B, rows per processor second: ours {:.0}, mysql_async rows() {:.0}, ratio {:.1}", rows as f64 / a, rows as f64 / b, b / a);
}

/// What 1,000 changes make both databases read, with a small table and with one so many times its size.
pub async fn work(small: u64, times: u64) {
    for rows in [small, small * times] {
        let mysql = Mysql::start(&[]).await;
        let postgres = Postgres::start().await;
        let pair = Pair::on(&mysql, &postgres, "bench").await;
        make(&pair, rows).await;
        let mut agent = Agent::new(&pair).started().await;
        agent.in_sync(&["orders"]).await;
        let before = reads(&pair).await;
        let mut conn = pair.source().await;
        for i in 0..1000 {
            conn.query_drop(format!("UPDATE orders SET weight = weight + 1 WHERE id = {}", 1 + i * 7 % small)).await.expect("a change");
        }
        agent.wait_for("/metrics.json", |answer| answer["cdc_stats"]["events_processed"].as_u64() >= Some(1000)).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let after = reads(&pair).await;
        // The updates themselves read one row each.
        println!("{rows} rows: per change, MySQL read {:.2} rows besides the change itself, PostgreSQL {:.2} rows", (after.0 - before.0) as f64 / 1000.0 - 1.0, (after.1 - before.1) as f64 / 1000.0);
        agent.stop().await;
    }
}

async fn reads(pair: &Pair) -> (i64, i64) {
    let mut conn = pair.source().await;
    let rows: i64 = conn.query_first::<(String, i64), _>("SHOW GLOBAL STATUS LIKE 'Innodb_rows_read'").await.expect("allowed").expect("a row").1;
    let mut target = pair.target().await;
    let row = sqlx::query("SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::int8 FROM pg_stat_user_tables WHERE relname = 'orders'").fetch_one(&mut target).await.expect("a row");
    (rows, row.get(0))
}
