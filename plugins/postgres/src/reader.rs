//! Reads the target's side of a comparison: COPY in text, taken apart into blocks.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use plumbline_sdk::read::BlockSink;
use plumbline_sdk::{Error, KeyRange, Plugin, Position, ReadPlan, Reader, Result, RowBlock, SideTable, TableId, View};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};

use crate::catalog::{CatalogTable, read_tables};
use crate::config::PostgresConfig;
use crate::connect::{Pulse, Role, connect};
use crate::error::{Doing, Failure};
use crate::escape::take_line;
use crate::quote::qualified;
use crate::sql;

/// A block is handed over when it holds this much.
const BLOCK_BYTES: usize = 1024 * 1024;

/// Settings of the reader.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReaderConfig {
    /// The database; its `schema` is what is read.
    pub connection: PostgresConfig,
    /// The schema in which the applier keeps its progress.
    #[serde(default = "default_state_schema")]
    pub state_schema: String,
    /// The applier's pipeline, whose progress a view names.
    #[serde(default = "default_pipeline")]
    pub pipeline: String,
}

pub(crate) fn default_state_schema() -> String {
    "plumbline".into()
}

pub(crate) fn default_pipeline() -> String {
    "default".into()
}

/// Reads one PostgreSQL schema. Reading never writes: the session is read-only.
pub struct PostgresReader {
    config: ReaderConfig,
    connection: Option<PgConnection>,
    pulse: Option<Pulse>,
    tables: HashMap<TableId, Arc<CatalogTable>>,
}

impl Plugin for PostgresReader {
    const NAME: &'static str = "postgres-reader";
    type Config = ReaderConfig;
    fn new(config: ReaderConfig) -> Result<Self> {
        Ok(Self { config, connection: None, pulse: None, tables: HashMap::new() })
    }
}

impl PostgresReader {
    /// Whether the connection is encrypted.
    pub async fn is_encrypted(&mut self) -> Result<bool> {
        crate::connect::is_encrypted(self.connection()?).await
    }

    fn connection(&mut self) -> Result<&mut PgConnection> {
        self.connection.as_mut().ok_or_else(|| Error::disconnected("the reader of PostgreSQL is not connected"))
    }

    /// The catalog's picture of a table, read again when it is not known.
    async fn table(&mut self, id: &TableId) -> Result<Arc<CatalogTable>> {
        if let Some(table) = self.tables.get(id) {
            return Ok(Arc::clone(table));
        }
        let names = [id.table.to_string()];
        let read = read_tables(self.connection()?, &id.schema, Some(&names)).await.map_err(|failure| failure.into_error("reading the catalog"))?;
        let table = read.into_iter().next().map(Arc::new).ok_or_else(|| Error::rejected(format!("there is no table `{id}` in the target")))?;
        self.tables.insert(id.clone(), Arc::clone(&table));
        Ok(table)
    }

    /// Runs a COPY and gives its rows to `out` in blocks. A COPY that did not end well leaves the connection in an unknown state: it is
    /// closed, and `begin` opens a new one.
    async fn copy(&mut self, statement: &str, table: &TableId, width: usize, out: &mut dyn BlockSink) -> Result<()> {
        let mut connection = self.connection.take().ok_or_else(|| Error::disconnected("the reader of PostgreSQL is not connected"))?;
        let result = copy_blocks(&mut connection, self.pulse.as_ref(), statement, table, width, out).await;
        match result {
            Ok(()) => {
                self.connection = Some(connection);
                Ok(())
            }
            Err(error) => {
                // The shape may have changed under us.
                self.tables.remove(table);
                Err(error)
            }
        }
    }
}

async fn copy_blocks(connection: &mut PgConnection, pulse: Option<&Pulse>, statement: &str, table: &TableId, width: usize, out: &mut dyn BlockSink) -> Result<()> {
    let doing = || format!("reading `{table}`");
    // Sorting may take its time before the first row; the server works then, and is waited for.
    let begun = connection.copy_out_raw(statement);
    let begun = match pulse {
        Some(pulse) => pulse.guard(begun).await?,
        None => begun.await,
    };
    let mut stream = begun.map_err(|error| Failure::from(error).into_error(&doing()))?;
    let mut block = RowBlock::new(width);
    loop {
        let next = match stream.next().now_or_never() {
            Some(next) => next,
            // Only a wait is guarded: most rows are here already.
            None => match pulse {
                Some(pulse) => pulse.guard(stream.next()).await?,
                None => stream.next().await,
            },
        };
        let Some(line) = next else { break };
        let line = line.map_err(|error| Failure::from(error).into_error(&doing()))?;
        if !take_line(&line, width, &mut block) {
            return Err(Error::fatal(format!("PostgreSQL sent a row of `{table}` that does not have {width} cells")));
        }
        if block.size() >= BLOCK_BYTES {
            block = out.put(block).await?;
            block.clear();
        }
    }
    if block.rows() > 0 {
        out.put(block).await?;
    }
    Ok(())
}

/// Asks for a plan that suits a long ordered stream, until the view ends: one process, and nothing compiled for it. Where the planner has no
/// statistics of the key it takes the rows to lie in any order, and sorts them; a table that was just copied lies in the order of its key.
async fn plan_stream(connection: &mut PgConnection, table: &TableId, key: &str) -> Result<()> {
    sqlx::query(
        "SELECT pg_catalog.set_config('max_parallel_workers_per_gather', '0', true), pg_catalog.set_config('jit', 'off', true),
                pg_catalog.set_config('enable_sort', CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_stats WHERE schemaname = $1 AND tablename = $2 AND attname = $3)
                    THEN pg_catalog.current_setting('enable_sort') ELSE 'off' END, true)",
    )
    .bind(&*table.schema)
    .bind(&*table.table)
    .bind(key)
    .execute(connection)
    .await
    .doing("preparing to read")
    .map(|_| ())
}

/// Gathers a bounded read into one block.
struct Gather(RowBlock);

#[async_trait]
impl BlockSink for Gather {
    async fn put(&mut self, block: RowBlock) -> Result<RowBlock> {
        let width = block.width();
        if self.0.rows() == 0 {
            self.0 = block;
            return Ok(RowBlock::new(width));
        }
        for row in 0..block.rows() {
            for column in 0..width {
                self.0.push(block.cell(row, column));
            }
        }
        Ok(block)
    }
}

#[async_trait]
impl Reader for PostgresReader {
    async fn connect(&mut self) -> Result<()> {
        self.tables.clear();
        self.connection = None;
        let mut connection = connect(&self.config.connection, Role::Read).await?;
        self.pulse = Some(Pulse::of(&self.config.connection, &mut connection).await?);
        self.connection = Some(connection);
        Ok(())
    }

    async fn tables(&mut self) -> Result<Vec<SideTable>> {
        let schema = self.config.connection.schema.clone();
        let tables = read_tables(self.connection()?, &schema, None).await.map_err(|failure| failure.into_error("reading the catalog"))?;
        self.tables.clear();
        let mut all = Vec::with_capacity(tables.len());
        for table in tables {
            all.push(SideTable::Target(Arc::new(table.table.clone())));
            self.tables.insert(table.table.id.clone(), Arc::new(table));
        }
        Ok(all)
    }

    async fn begin(&mut self) -> Result<View> {
        if self.connection.is_none() {
            self.connect().await?;
        }
        // A view sees the catalog as it is now.
        self.tables.clear();
        let (schema, pipeline) = (self.config.state_schema.clone(), self.config.pipeline.clone());
        let connection = self.connection()?;
        let begun = async {
            connection.execute("ROLLBACK").await.ok();
            connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await.doing("opening a view")?;
            progress(connection, &schema, &pipeline).await
        };
        match begun.await {
            Ok(low) => Ok(View { low, high: None }),
            Err(error) => {
                self.connection = None;
                Err(error)
            }
        }
    }

    async fn end(&mut self) -> Result<()> {
        let Some(connection) = self.connection.as_mut() else { return Ok(()) };
        let ended = connection.execute("ROLLBACK").await.doing("closing a view");
        if ended.is_err() {
            self.connection = None;
        }
        ended.map(|_| ())
    }

    async fn count(&mut self, table: &TableId) -> Result<u64> {
        let catalog = self.table(table).await?;
        let pulse = self.pulse.clone();
        let counting = sqlx::query_scalar(AssertSqlSafe(sql::count(&catalog))).fetch_one(self.connection()?);
        let counted = match pulse {
            Some(pulse) => pulse.guard(counting).await,
            None => Ok(counting.await),
        };
        if counted.is_err() {
            self.connection = None;
        }
        let count: i64 = counted?.doing(&format!("counting `{table}`"))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    async fn bound(&mut self, plan: &ReadPlan, after: Option<&[String]>, rows: u64) -> Result<Option<Vec<String>>> {
        if plan.key == 0 {
            return Ok(None);
        }
        let catalog = self.table(&plan.table).await?;
        let mut gather = Gather(RowBlock::new(plan.key));
        self.copy(&sql::bound(&catalog, plan, after, rows), &plan.table, plan.key, &mut gather).await?;
        let block = gather.0;
        if block.rows() == 0 {
            return Ok(None);
        }
        let mut bound = Vec::with_capacity(plan.key);
        for (i, column) in plan.columns[..plan.key].iter().enumerate() {
            let mut canonical = Vec::new();
            column.rule.target_text(block.cell(0, i).unwrap_or_default(), &mut canonical)?;
            let cell = column.rule.key_for_target(&canonical)?;
            bound.push(String::from_utf8(cell).map_err(|_| Error::rejected(format!("a key of `{}` is not text", plan.table)))?);
        }
        Ok(Some(bound))
    }

    async fn rows(&mut self, plan: &ReadPlan, range: &KeyRange, limit: Option<u64>, out: &mut dyn BlockSink) -> Result<()> {
        let catalog = self.table(&plan.table).await?;
        if let Some(key) = plan.columns[..plan.key].first() {
            let planned = plan_stream(self.connection()?, &plan.table, &key.name).await;
            if planned.is_err() {
                self.connection = None;
            }
            planned?;
        }
        self.copy(&sql::rows(&catalog, plan, range, limit), &plan.table, plan.columns.len(), out).await
    }

    async fn rows_by_key(&mut self, plan: &ReadPlan, keys: &RowBlock) -> Result<RowBlock> {
        let mut gather = Gather(RowBlock::new(plan.columns.len()));
        if keys.rows() == 0 || plan.key == 0 {
            return Ok(gather.0);
        }
        let catalog = self.table(&plan.table).await?;
        let statement = {
            let mut columns = vec![Vec::with_capacity(keys.rows()); plan.key];
            for row in 0..keys.rows() {
                for (i, column) in columns.iter_mut().enumerate() {
                    let cell = keys.cell(row, i).ok_or_else(|| Error::rejected(format!("a key of `{}` is NULL", plan.table)))?;
                    let cell = std::str::from_utf8(cell).map_err(|_| Error::rejected(format!("a key of `{}` is not text", plan.table)))?;
                    if cell.contains('\0') {
                        return Err(Error::rejected(format!("a key of `{}` has a NUL character, which PostgreSQL cannot hold", plan.table)));
                    }
                    column.push(cell);
                }
            }
            sql::rows_by_key(&catalog, plan, &columns)
        };
        self.copy(&statement, &plan.table, plan.columns.len(), &mut gather).await?;
        Ok(gather.0)
    }

    async fn latest(&mut self, table: &TableId, limit: u32) -> Result<Vec<Vec<(String, Option<String>)>>> {
        let catalog = self.table(table).await?;
        let rows = sqlx::query(AssertSqlSafe(sql::latest(&catalog, limit))).persistent(false).fetch_all(self.connection()?).await.doing(&format!("reading `{table}`"))?;
        let mut latest = Vec::with_capacity(rows.len());
        for row in &rows {
            let mut cells = Vec::with_capacity(catalog.table.columns.len());
            for (i, column) in catalog.table.columns.iter().enumerate() {
                cells.push((column.name.clone(), row.try_get(i).doing(&format!("reading `{table}`"))?));
            }
            latest.push(cells);
        }
        Ok(latest)
    }
}

/// The applier's position as this session sees it; None: there is no applier, or this user may not know.
async fn progress(connection: &mut PgConnection, schema: &str, pipeline: &str) -> Result<Option<Position>> {
    let readable: Option<bool> = sqlx::query_scalar(
        "SELECT pg_catalog.has_schema_privilege(n.oid, 'USAGE') AND pg_catalog.has_table_privilege(c.oid, 'SELECT')
           FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = 'progress'",
    )
    .bind(schema)
    .fetch_optional(&mut *connection)
    .await
    .doing("reading the applier's progress")?;
    if readable != Some(true) {
        return Ok(None);
    }
    let statement = format!("SELECT position::pg_catalog.text FROM {} WHERE pipeline = $1", qualified(schema, "progress"));
    let position: Option<Option<String>> =
        sqlx::query_scalar(AssertSqlSafe(statement)).bind(pipeline).fetch_optional(connection).await.doing("reading the applier's progress")?;
    match position.flatten() {
        Some(text) => serde_json::from_str(&text).map(Some).map_err(|cause| Error::fatal(format!("the position in `{schema}.progress` cannot be read")).caused_by(cause)),
        None => Ok(None),
    }
}

impl Drop for PostgresReader {
    fn drop(&mut self) {
        // Closing is the server's business when the socket ends; nothing is pending that must be saved.
        if let Some(connection) = self.connection.take() {
            drop(connection.close());
        }
    }
}
