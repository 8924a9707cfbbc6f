//! The source's side of a comparison.

use async_trait::async_trait;
use futures::StreamExt;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};
use plumbline_sdk::gtid::GtidSet;
use plumbline_sdk::read::BlockSink;
use plumbline_sdk::{Error, KeyRange, Position, ReadPlan, Reader, Result, RowBlock, SideTable, TableId, View};
use std::sync::Arc;

use crate::config::MysqlConfig;
use crate::connect::{connect, error};
use crate::discovery::{Watch, tables};
use crate::log::{end_of_log, gtid_executed};
use crate::sql;

/// A block is handed over when it holds about this much.
const BLOCK: usize = 256 * 1024;
/// Keys in one look-up statement.
const KEYS: usize = 1_000;

/// Reads MySQL in consistent views. Owns its connection, and never writes.
pub struct MysqlReader {
    config: MysqlConfig,
    conn: Option<Conn>,
    server: String,
}

impl MysqlReader {
    /// A reader that is not connected yet.
    pub fn new(config: MysqlConfig) -> Self {
        Self { config, conn: None, server: String::new() }
    }

    fn conn(&mut self) -> Result<&mut Conn> {
        self.conn.as_mut().ok_or_else(|| Error::disconnected("the reader of MySQL is not connected"))
    }

    fn said(&self, doing: &str, cause: mysql_async::Error) -> Error {
        error(&self.config, doing, cause)
    }

    async fn fill(&mut self, statement: String, width: usize, out: &mut dyn BlockSink) -> Result<()> {
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
        self.conn = None;
        let mut conn = connect(&self.config).await?;
        let server: Option<String> = conn.query_first("SELECT @@server_uuid").await.map_err(|cause| self.said("the server's name could not be read", cause))?;
        self.server = server.unwrap_or_default();
        self.conn = Some(conn);
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
        let conn = self.conn()?;
        // L before the view, H after it: everything in gtid_executed is visible, everything visible is in the log.
        let executed = gtid_executed(conn, &config).await?;
        conn.query_drop("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await.map_err(|cause| error(&config, "a view could not be opened", cause))?;
        conn.query_drop("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await.map_err(|cause| error(&config, "a view could not be opened", cause))?;
        let end = end_of_log(conn, &config).await?;
        let low = executed.map(|gtids: GtidSet| Position { server, gtids: Some(gtids), ..Position::default() });
        Ok(View { low, high: end.map(|(_, at)| at) })
    }

    async fn end(&mut self) -> Result<()> {
        let config = self.config.clone();
        match self.conn.as_mut() {
            Some(conn) => conn.query_drop("COMMIT").await.map_err(|cause| error(&config, "a view could not be closed", cause)),
            None => Ok(()),
        }
    }

    async fn count(&mut self, table: &TableId) -> Result<u64> {
        let config = self.config.clone();
        let statement = format!("SELECT COUNT(*) FROM {}", sql::table(table));
        let count: Option<u64> = self.conn()?.query_first(statement).await.map_err(|cause| error(&config, &format!("`{table}` could not be counted"), cause))?;
        Ok(count.unwrap_or(0))
    }

    async fn bound(&mut self, plan: &ReadPlan, after: Option<&[String]>, rows: u64) -> Result<Option<Vec<String>>> {
        let config = self.config.clone();
        let statement = sql::bound(plan, after, rows)?;
        let row: Option<Row> = self.conn()?.query_first(statement).await.map_err(|cause| error(&config, "a key bound could not be read", cause))?;
        let Some(row) = row else { return Ok(None) };
        let mut block = RowBlock::new(plan.key);
        push(&mut block, row);
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
        let config = self.config.clone();
        let mut found = RowBlock::new(plan.columns.len());
        let mut from = 0;
        while from < keys.rows() {
            let upto = (from + KEYS).min(keys.rows());
            let statement = sql::rows_by_key(plan, keys, from, upto)?;
            let rows: Vec<Row> = self.conn()?.query(statement).await.map_err(|cause| error(&config, "rows could not be looked up", cause))?;
            for row in rows {
                push(&mut found, row);
            }
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
