//! The source's side of a comparison.

use async_trait::async_trait;
use futures::StreamExt;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};
use plumbline_sdk::gtid::GtidSet;
use plumbline_sdk::read::BlockSink;
use plumbline_sdk::{Error, KeyRange, Position, ReadPlan, Reader, Result, RowBlock, SideTable, TableId, View};
use std::sync::Arc;
use std::time::Duration;

use crate::config::MysqlConfig;
use crate::connect::{SESSION, SHOW_INVISIBLE_KEYS, connect, error};
use crate::discovery::{Watch, tables};
use crate::log::{end_of_log, gtid_executed};
use crate::sql;
use crate::wire::Wire;

/// A block is handed over when it holds about this much.
const BLOCK: usize = 256 * 1024;
/// The server's name as positions know it, and what tells it from others that may stand behind the same address.
const NAMES: &str = "SELECT @@server_uuid, @@hostname, @@port, @@server_id";
const NAMED: usize = 4;
/// How long the second connection may take, with the first one just made.
const PATIENCE: Duration = Duration::from_secs(10);
/// Keys in one look-up statement.
const KEYS: usize = 1_000;

/// Reads MySQL in consistent views. Owns its connections, and never writes.
pub struct MysqlReader {
    config: MysqlConfig,
    conn: Option<Conn>,
    /// Where the view is and its rows are read; None: the driver's connection serves for that too.
    wire: Option<Wire>,
    server: String,
}

impl MysqlReader {
    /// A reader that is not connected yet.
    pub fn new(config: MysqlConfig) -> Self {
        Self { config, conn: None, wire: None, server: String::new() }
    }

    fn conn(&mut self) -> Result<&mut Conn> {
        self.conn.as_mut().ok_or_else(|| Error::disconnected("the reader of MySQL is not connected"))
    }

    fn said(&self, doing: &str, cause: mysql_async::Error) -> Error {
        error(&self.config, doing, cause)
    }

    /// Runs a statement of the view and gathers its rows.
    async fn gather(&mut self, doing: &str, statement: &str, width: usize) -> Result<RowBlock> {
        let Some(wire) = self.wire.as_mut() else {
            let config = self.config.clone();
            let rows: Vec<Row> = self.conn()?.query(statement).await.map_err(|cause| error(&config, doing, cause))?;
            let mut block = RowBlock::new(width);
            for row in rows {
                push(&mut block, row);
            }
            return Ok(block);
        };
        match wire.gather(statement, width).await {
            Ok(block) => Ok(block),
            Err(cause) => Err(self.lost(doing, cause)),
        }
    }

    /// What a failure of the wire is. Where the server did not say it, the view is gone: then both connections go, so that nothing is read
    /// beside a view.
    fn lost(&mut self, doing: &str, cause: mysql_async::Error) -> Error {
        if !matches!(cause, mysql_async::Error::Server(_)) {
            self.forget();
        }
        self.said(doing, cause)
    }

    fn forget(&mut self) {
        self.wire = None;
        self.conn = None;
    }

    async fn fill(&mut self, statement: String, width: usize, out: &mut dyn BlockSink) -> Result<()> {
        let Some(wire) = self.wire.as_mut() else { return self.fill_by_driver(statement, width, out).await };
        match wire.rows(&statement, width, BLOCK, out).await {
            Ok(Ok(())) => Ok(()),
            // The rest of the result would have to be read: a new connection is cheaper.
            Ok(Err(stopped)) => {
                self.forget();
                Err(stopped)
            }
            Err(cause) => Err(self.lost("rows could not be read", cause)),
        }
    }

    async fn fill_by_driver(&mut self, statement: String, width: usize, out: &mut dyn BlockSink) -> Result<()> {
        let config = self.config.clone();
        let said = |cause| error(&config, "rows could not be read", cause);
        let conn = self.conn()?;
        let mut result = conn.query_iter(statement).await.map_err(said)?;
        let mut block = RowBlock::new(width);
        let mut stopped = Ok(());
        if let Some(mut rows) = result.stream::<Row>().await.map_err(said)? {
            while let Some(row) = rows.next().await {
                push(&mut block, row.map_err(said)?);
                if block.size() >= BLOCK {
                    match out.put(block).await {
                        Ok(empty) => block = empty,
                        Err(error) => {
                            stopped = Err(error);
                            block = RowBlock::new(width);
                            break;
                        }
                    }
                }
            }
        }
        if stopped.is_err() {
            // The rest of the result would have to be read: a new connection is cheaper.
            self.conn = None;
            return stopped;
        }
        result.drop_result().await.map_err(said)?;
        if block.rows() > 0 {
            out.put(block).await?;
        }
        Ok(())
    }
}

/// A wire to the server that has these names; None, where it cannot be had.
async fn wire(config: &MysqlConfig, names: &RowBlock) -> Option<Wire> {
    let named = |block: &RowBlock| (block.rows() > 0).then(|| (0..NAMED).map(|i| block.cell(0, i).map(<[u8]>::to_vec)).collect::<Vec<_>>());
    let opened = async {
        let mut wire = Wire::connect(config, &SESSION).await?;
        if let Err(cause) = wire.run(SHOW_INVISIBLE_KEYS).await
            && !matches!(cause, mysql_async::Error::Server(_))
        {
            return Err(cause);
        }
        let same = named(names).is_some() && named(&wire.gather(NAMES, NAMED).await?) == named(names);
        Ok(same.then_some(wire))
    };
    match tokio::time::timeout(PATIENCE, opened).await {
        Ok(Ok(Some(wire))) => Some(wire),
        Ok(Ok(None)) => {
            tracing::debug!("two connections to MySQL came to two servers: the reader keeps to one connection");
            None
        }
        Ok(Err(cause)) => {
            tracing::debug!(%cause, "the reader of MySQL keeps to the driver's connection");
            None
        }
        Err(_) => None,
    }
}

/// The text protocol gives every cell as bytes.
fn push(block: &mut RowBlock, row: Row) {
    for value in row.unwrap_raw() {
        match value {
            Some(Value::Bytes(bytes)) => block.push(Some(&bytes)),
            Some(Value::NULL) | None => block.push(None),
            // Only the binary protocol, which is not used here, has other values.
            Some(other) => block.push(Some(other.as_sql(true).trim_matches('\'').as_bytes())),
        }
    }
}

#[async_trait]
impl Reader for MysqlReader {
    async fn connect(&mut self) -> Result<()> {
        self.forget();
        let mut conn = connect(&self.config).await?;
        let names: Option<Row> = conn.query_first(NAMES).await.map_err(|cause| self.said("the server's name could not be read", cause))?;
        let mut block = RowBlock::new(NAMED);
        if let Some(names) = names {
            push(&mut block, names);
            self.server = block.cell(0, 0).map(|server| String::from_utf8_lossy(server).into_owned()).unwrap_or_default();
        }
        self.conn = Some(conn);
        self.wire = wire(&self.config, &block).await;
        Ok(())
    }

    async fn tables(&mut self) -> Result<Vec<SideTable>> {
        let config = self.config.clone();
        let found = tables(self.conn()?, &config, &Watch::default()).await?;
        Ok(found.into_iter().map(|table| SideTable::Source(Arc::new(table.schema))).collect())
    }

    async fn begin(&mut self) -> Result<View> {
        if self.conn.is_none() {
            self.connect().await?;
        }
        let (config, server) = (self.config.clone(), self.server.clone());
        // L before the view, H after it: everything in gtid_executed is visible, everything visible is in the log.
        let executed = gtid_executed(self.conn()?, &config).await?;
        for statement in ["SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"] {
            self.gather("a view could not be opened", statement, 0).await?;
        }
        let end = end_of_log(self.conn()?, &config).await?;
        let low = executed.map(|gtids: GtidSet| Position { server, gtids: Some(gtids), ..Position::default() });
        Ok(View { low, high: end.map(|(_, at)| at) })
    }

    async fn end(&mut self) -> Result<()> {
        if self.conn.is_some() {
            self.gather("a view could not be closed", "COMMIT", 0).await?;
        }
        Ok(())
    }

    async fn count(&mut self, table: &TableId) -> Result<u64> {
        let statement = format!("SELECT COUNT(*) FROM {}", sql::table(table));
        let counted = self.gather(&format!("`{table}` could not be counted"), &statement, 1).await?;
        let count = (counted.rows() > 0).then(|| counted.cell(0, 0)).flatten().and_then(|count| std::str::from_utf8(count).ok()?.parse().ok());
        count.ok_or_else(|| Error::fatal(format!("MySQL's number of rows of `{table}` is no number")))
    }

    async fn bound(&mut self, plan: &ReadPlan, after: Option<&[String]>, rows: u64) -> Result<Option<Vec<String>>> {
        let block = self.gather("a key bound could not be read", &sql::bound(plan, after, rows)?, plan.key).await?;
        if block.rows() == 0 {
            return Ok(None);
        }
        (0..plan.key)
            .map(|i| {
                let rule = &plan.columns[i].rule;
                let mut canonical = Vec::new();
                rule.source_text(block.cell(0, i).ok_or_else(|| Error::rejected("a key column is NULL"))?, &mut canonical)?;
                Ok(String::from_utf8_lossy(&rule.key_for_source(&canonical)?).into_owned())
            })
            .collect::<Result<Vec<String>>>()
            .map(Some)
    }

    async fn rows(&mut self, plan: &ReadPlan, range: &KeyRange, limit: Option<u64>, out: &mut dyn BlockSink) -> Result<()> {
        let statement = sql::rows(plan, range, limit)?;
        self.fill(statement, plan.columns.len(), out).await
    }

    async fn rows_by_key(&mut self, plan: &ReadPlan, keys: &RowBlock) -> Result<RowBlock> {
        let mut found = RowBlock::new(plan.columns.len());
        let mut from = 0;
        while from < keys.rows() {
            let upto = (from + KEYS).min(keys.rows());
            let part = self.gather("rows could not be looked up", &sql::rows_by_key(plan, keys, from, upto)?, plan.columns.len()).await?;
            found.append(&part);
            from = upto;
        }
        if sql::needs_recheck(plan) { recheck(plan, keys, found) } else { Ok(found) }
    }

    async fn latest(&mut self, table: &TableId, limit: u32) -> Result<Vec<Vec<(String, Option<String>)>>> {
        let config = self.config.clone();
        let found = tables(self.conn()?, &config, &Watch::default()).await?;
        let schema = found.into_iter().find(|found| found.schema.id == *table).ok_or_else(|| Error::rejected(format!("there is no table `{table}`")))?.schema;
        let columns: Vec<_> = schema.columns.iter().map(|column| (column.name.clone(), column.ty.clone())).collect();
        let key: Vec<String> = schema.key().into_iter().map(|i| schema.columns[i].name.clone()).collect();
        let statement = sql::latest(table, &columns, &key, limit);
        let rows: Vec<Row> = self.conn()?.query(statement).await.map_err(|cause| error(&config, "the newest rows could not be read", cause))?;
        Ok(rows
            .into_iter()
            .map(|row| {
                let mut block = RowBlock::new(columns.len());
                push(&mut block, row);
                columns.iter().enumerate().map(|(i, (name, _))| (name.clone(), block.cell(0, i).map(|cell| String::from_utf8_lossy(cell).into_owned()))).collect()
            })
            .collect())
    }
}

/// A collation finds `a` for `A`: only rows whose key has the very bytes that were asked for are kept.
fn recheck(plan: &ReadPlan, keys: &RowBlock, found: RowBlock) -> Result<RowBlock> {
    let canonical = |cells: &dyn Fn(usize) -> Option<Vec<u8>>| (0..plan.key).map(cells).collect::<Option<Vec<Vec<u8>>>>();
    let asked: std::collections::HashSet<Vec<Vec<u8>>> =
        (0..keys.rows()).filter_map(|row| canonical(&|i| keys.cell(row, i).map(<[u8]>::to_vec))).collect();
    let mut kept = RowBlock::new(plan.columns.len());
    for row in 0..found.rows() {
        let key = canonical(&|i| {
            let mut form = Vec::new();
            plan.columns[i].rule.source_text(found.cell(row, i)?, &mut form).ok()?;
            plan.columns[i].rule.key_for_source(&form).ok()
        });
        if key.is_some_and(|key| asked.contains(&key)) {
            for i in 0..plan.columns.len() {
                kept.push(found.cell(row, i));
            }
        }
    }
    Ok(kept)
}
