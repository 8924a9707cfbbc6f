//! The sdk's conformance suite on the plugins that we ship, on real servers.
#![allow(clippy::expect_used, reason = "a test ends where it cannot go on")]

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use mysql_async::prelude::Queryable;
use plumbline_history::{SqliteHistory, SqliteHistoryConfig};
use plumbline_mysql::{BinlogConfig, MysqlBinlog, MysqlConfig};
use plumbline_postgres::{ApplierConfig, PostgresApplier, PostgresConfig};
use plumbline_sdk::testing::Rows;
use plumbline_sdk::testing::conformance::{self, HistoryBench, SinkBench, SourceBench, Told};
use plumbline_sdk::{History, Plugin, Result, Sink, Source, TableId};
use plumbline_tests::servers::{PASSWORD, Pair};
use serde_json::json;
use sqlx::{AssertSqlSafe, Executor, Row};

struct Files {
    folder: tempfile::TempDir,
    number: u32,
}

impl Files {
    fn store(&self) -> PathBuf {
        self.folder.path().join(self.number.to_string())
    }
}

#[async_trait]
impl HistoryBench for Files {
    async fn fresh(&mut self) -> Result<()> {
        self.number += 1;
        Ok(())
    }
    async fn open(&mut self) -> Result<Box<dyn History>> {
        Ok(Box::new(SqliteHistory::new(SqliteHistoryConfig { data_dir: self.store(), ..SqliteHistoryConfig::default() })?))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_in_sqlite_keeps_every_promise() {
    conformance::history(&mut Files { folder: tempfile::tempdir().expect("a folder"), number: 0 }).await;
}

struct Log {
    pair: Pair,
    rows: u64,
}

#[async_trait]
impl SourceBench for Log {
    async fn fresh(&mut self) -> Result<()> {
        self.pair.on_source(&["DROP TABLE IF EXISTS t", "CREATE TABLE t (id BIGINT PRIMARY KEY, v VARCHAR(20))"]).await;
        Ok(())
    }
    async fn open(&mut self) -> Result<Box<dyn Source>> {
        let mysql: MysqlConfig = serde_json::from_value(json!({
            "host": "127.0.0.1", "port": self.pair.mysql_port, "user": self.pair.name, "password": PASSWORD, "database": self.pair.name,
        }))
        .expect("settings");
        Ok(Box::new(MysqlBinlog::new(BinlogConfig { mysql, server_id: 771_002, heartbeat: Duration::from_secs(5) })?))
    }
    async fn commit(&mut self, changes: &[u64]) -> Result<()> {
        let mut conn = self.pair.source().await;
        for &changes in changes {
            conn.query_drop("BEGIN").await.expect("a transaction");
            for _ in 0..changes {
                self.rows += 1;
                conn.query_drop(format!("INSERT INTO t VALUES ({}, 'v')", self.rows)).await.expect("a row");
            }
            conn.query_drop("COMMIT").await.expect("committed");
        }
        let _ = conn.disconnect().await;
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_binlog_source_keeps_every_promise() {
    conformance::source(&mut Log { pair: Pair::shared("conformance_source").await, rows: 0 }).await;
}

struct Target {
    pair: Pair,
}

#[async_trait]
impl SinkBench for Target {
    async fn fresh(&mut self) -> Result<()> {
        let schemas = ["DROP SCHEMA IF EXISTS state CASCADE", "DROP TABLE IF EXISTS orders, order_lines"];
        self.pair.on_target(&schemas).await;
        Ok(())
    }
    async fn open(&mut self) -> Result<Box<dyn Sink>> {
        let connection: PostgresConfig = serde_json::from_value(json!({
            "host": "127.0.0.1", "port": self.pair.postgres_port, "user": self.pair.name, "password": PASSWORD, "database": self.pair.name,
        }))
        .expect("settings");
        let (zero_dates, nul_characters) = Default::default();
        Ok(Box::new(PostgresApplier::new(ApplierConfig { connection, state_schema: "state".into(), pipeline: "conformance".into(), copies_first: true, zero_dates, nul_characters })?))
    }
    async fn differences(&mut self, told: &Told) -> Result<Vec<String>> {
        // The rows as the workload prints them.
        let text = |column: &str| format!("coalesce('Text(' || to_json({column})::text || ')', 'Null')");
        let int = |column: &str| format!("'Int(' || {column} || ')'");
        let orders = format!("SELECT {}, {}, 'Decimal(\"' || amount || '\")' FROM orders", int("id"), text("name"));
        let lines = format!("SELECT {}, {}, {} FROM order_lines", int("order_id"), int("line"), text("name"));
        let mut conn = self.pair.target().await;
        let mut rows = Rows::default();
        for (table, sql, key) in [("orders", orders, 1), ("order_lines", lines, 2)] {
            // Before the first news there is no table.
            let Ok(found) = conn.fetch_all(AssertSqlSafe(sql)).await else { continue };
            let table = rows.entry(TableId::new("conformance", table)).or_default();
            for row in found {
                let cells: Vec<String> = (0..3).map(|i| row.get(i)).collect();
                table.insert(cells[..key].join(","), cells.join(","));
            }
        }
        Ok(told.compare_rows(&rows))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_applier_keeps_every_promise() {
    conformance::sink(&mut Target { pair: Pair::shared("conformance_sink").await }).await;
}
