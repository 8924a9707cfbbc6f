//! Rows on their way: net effects, single changes, chunks of copies.

use plumbline_sdk::{Batch, ChangeEvent, CopyMark, Error, Event, Op, Row, TableSchema};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor};

use super::attempt::{Attempt, Group, Mode, Outcome};
use super::net::net;
use super::target::{Plan, PlanColumn};
use crate::types::Written;

/// One statement carries at most this many rows, and about this many bytes.
const STATEMENT_ROWS: usize = 20_000;
const STATEMENT_BYTES: usize = 8 * 1024 * 1024;

impl Attempt<'_> {
    /// Writes what a run of changes of one table comes to.
    pub async fn write_group(&mut self, group: &Group<'_>) -> Outcome<()> {
        let plan = &group.plan;
        if plan.key.is_empty() {
            return self.write_in_order(plan, &group.changes).await;
        }
        let net = net(&group.changes, |row, out| plan.key_bytes(row, out))?;
        if self.mode == Mode::Replace && (plan.created || self.bypasses) {
            let all: Vec<&Row> = net.deletes.iter().chain(&net.upserts).copied().collect();
            self.delete(plan, &all).await?;
            send(self.connection, &plan.insert, &plan.schema, &plan.columns, &net.upserts).await?;
            return Ok(());
        }
        if !net.deletes.is_empty() {
            self.delete(plan, &net.deletes).await?;
        }
        self.upsert(plan, &net.upserts).await
    }

    async fn upsert(&mut self, plan: &Plan, rows: &[&Row]) -> Outcome<()> {
        if rows.is_empty() {
            return Ok(());
        }
        if !plan.conflict {
            self.delete(plan, rows).await?;
        }
        send(self.connection, &plan.upsert, &plan.schema, &plan.columns, rows).await.map(|_| ())
    }

    /// Deletes the rows with these rows' keys. Where no index serves the key, the table is read once for all of them, not once for each.
    async fn delete(&mut self, plan: &Plan, rows: &[&Row]) -> Outcome<()> {
        if plan.conflict {
            return send(self.connection, &plan.delete, &plan.schema, &plan.key, rows).await.map(|_| ());
        }
        self.connection.execute("SET LOCAL enable_hashjoin = on; SET LOCAL plan_cache_mode = force_custom_plan").await?;
        send(self.connection, &plan.delete, &plan.schema, &plan.key, rows).await?;
        self.connection.execute("SET LOCAL enable_hashjoin = off; SET LOCAL plan_cache_mode = auto").await?;
        Ok(())
    }

    /// A table without key: each change finds a row that equals it as a whole. Inserts that follow each other go together.
    async fn write_in_order(&mut self, plan: &Plan, changes: &[&ChangeEvent]) -> Outcome<()> {
        let mut inserts: Vec<&Row> = Vec::new();
        for change in changes {
            if change.op == Op::Insert
                && let Some(after) = &change.after
            {
                inserts.push(after);
                continue;
            }
            if !inserts.is_empty() {
                send(self.connection, &plan.insert, &plan.schema, &plan.columns, &inserts).await?;
                inserts.clear();
            }
            self.write_one(plan, change).await?;
        }
        if !inserts.is_empty() {
            send(self.connection, &plan.insert, &plan.schema, &plan.columns, &inserts).await?;
        }
        Ok(())
    }

    /// Writes one change at its place in the source's order.
    pub async fn write_one(&mut self, plan: &Plan, change: &ChangeEvent) -> Outcome<()> {
        if plan.key.is_empty() {
            if let Some(before) = &change.before
                && delete_equal(self.connection, plan, before).await? == 0
            {
                tracing::warn!(table = %plan.schema.id, op = %change.op, "the target has no row that equals the one that changed");
            }
            if let Some(after) = &change.after {
                send(self.connection, &plan.insert, &plan.schema, &plan.columns, &[after]).await?;
            }
            return Ok(());
        }
        match (change.op, &change.before, &change.after) {
            (Op::Delete, Some(before), _) => self.delete(plan, &[before]).await,
            (_, Some(before), Some(after)) if !plan.same_key(change)? => {
                self.delete(plan, &[before]).await?;
                self.upsert(plan, &[after]).await
            }
            (_, _, Some(after)) => self.upsert(plan, &[after]).await,
            _ => Err(Error::fatal(format!("a change of `{}` carries no row", plan.schema.id)).into()),
        }
    }

    /// Writes a chunk of a copy, and its mark.
    pub async fn copy(&mut self, batch: &Batch, mark: &CopyMark) -> Outcome<()> {
        if self.is_stopped(&mark.table) {
            return Ok(());
        }
        self.blame(&mark.table);
        let changes: Vec<&ChangeEvent> = batch.events.iter().filter_map(|event| if let Event::Change(change) = event { Some(change) } else { None }).collect();
        let rows: Vec<&Row> = changes.iter().filter_map(|change| change.after.as_ref()).collect();
        let stored = self.memory.book.copies.get(&mark.table).cloned();
        let schema = changes.first().map(|change| change.table.clone()).or_else(|| self.memory.known.get(&mark.table).cloned());
        // The last chunk of a table that nobody knows any more has no row and no shape.
        if let Some(schema) = schema {
            let plan = self.plan(&schema).await?;
            let fresh = if plan.key.is_empty() { self.keyless_chunk(&plan, mark, stored.as_ref(), rows.len() as u64).await? } else { true };
            if fresh && !rows.is_empty() {
                self.insert_copied(&plan, &changes, &rows).await?;
            }
        }
        if stored.is_none() {
            self.log(&mark.table, "copy", "started", 0, &format!("about {} rows", mark.rows_expected)).await?;
        }
        if mark.done && !stored.as_ref().is_some_and(|stored| stored.done) {
            self.log(&mark.table, "copy", "completed", mark.rows_done, &format!("{} rows", mark.rows_done)).await?;
        }
        self.store.keep_copy(self.connection, mark).await?;
        self.book().copies.insert(mark.table.clone(), mark.clone());
        Ok(())
    }

    /// Rows that the stream did not touch. In a target that we created, what is there already is newer; one that was there before may
    /// hold anything, and is made true.
    async fn insert_copied(&mut self, plan: &Plan, changes: &[&ChangeEvent], rows: &[&Row]) -> Outcome<()> {
        if plan.key.is_empty() {
            return send(self.connection, &plan.insert, &plan.schema, &plan.columns, rows).await.map(|_| ());
        }
        if self.mode == Mode::Ordered && !plan.created {
            for change in changes {
                self.write_one(plan, change).await?;
            }
            return Ok(());
        }
        if plan.created && plan.conflict {
            return send(self.connection, &plan.insert_missing, &plan.schema, &plan.columns, rows).await.map(|_| ());
        }
        self.upsert(plan, rows).await
    }

    /// Whether a chunk of a table without key is still to be written. Nothing but its place in the copy tells: a first chunk begins with
    /// an empty table, a later one follows the stored mark, one that the mark includes came before.
    async fn keyless_chunk(&mut self, plan: &Plan, mark: &CopyMark, stored: Option<&CopyMark>, rows: u64) -> Outcome<bool> {
        let before = mark.rows_done.saturating_sub(rows);
        let same_copy = stored.filter(|stored| stored.snapshot == mark.snapshot && !mark.restart);
        match same_copy {
            Some(stored) if stored.rows_done >= mark.rows_done && (rows > 0 || stored.done) => return Ok(false),
            Some(stored) if stored.rows_done == before => return Ok(true),
            Some(_) => return Err(Error::fatal(format!("a chunk of the copy of `{}` does not follow the one before", mark.table)).into()),
            None => {}
        }
        if before > 0 {
            return Err(Error::fatal(format!("the first chunk of the copy of `{}` is missing", mark.table)).into());
        }
        if mark.restart || plan.created || stored.is_some() {
            self.empty(&plan.name).await?;
            return Ok(true);
        }
        let filled: bool = sqlx::query_scalar(AssertSqlSafe(format!("SELECT EXISTS (SELECT FROM {})", plan.name))).fetch_one(&mut *self.connection).await?;
        if filled {
            return Err(Error::rejected(format!(
                "the target table {} has rows and `{}` has no key, so its rows cannot be told from those to be copied; empty it with: TRUNCATE {}",
                plan.name, mark.table, plan.name
            ))
            .into());
        }
        Ok(true)
    }
}

/// The cells of one column: a text array in the making.
#[derive(Default)]
struct Cells {
    text: Vec<u8>,
    ends: Vec<Option<usize>>,
}

impl Cells {
    fn array(&self, table: &TableSchema) -> Outcome<Vec<Option<&str>>> {
        let mut start = 0;
        let mut array = Vec::with_capacity(self.ends.len());
        for end in &self.ends {
            array.push(match end {
                Some(end) => {
                    let cell = std::str::from_utf8(&self.text[start..*end]).map_err(|_| Error::rejected(format!("a value of `{}` is not UTF-8", table.id)))?;
                    start = *end;
                    Some(cell)
                }
                None => None,
            });
        }
        Ok(array)
    }
}

/// Runs a statement over rows: one array of text per column. Gives how many rows of the target it touched.
async fn send(connection: &mut PgConnection, statement: &str, schema: &TableSchema, columns: &[PlanColumn], rows: &[&Row]) -> Outcome<u64> {
    let mut touched = 0;
    let mut cells: Vec<Cells> = columns.iter().map(|_| Cells::default()).collect();
    let mut from = 0;
    while from < rows.len() {
        let (mut upto, mut bytes) = (from, 0);
        for column in &mut cells {
            column.text.clear();
            column.ends.clear();
        }
        while upto < rows.len() && upto - from < STATEMENT_ROWS && bytes < STATEMENT_BYTES {
            for (column, cells) in columns.iter().zip(&mut cells) {
                let end = match column.write(schema, rows[upto], &mut cells.text)? {
                    Written::Text => Some(cells.text.len()),
                    Written::Null => None,
                };
                cells.ends.push(end);
            }
            bytes += rows[upto].size();
            upto += 1;
        }
        let mut query = sqlx::query(AssertSqlSafe(statement.to_owned()));
        for column in &cells {
            query = query.bind(column.array(schema)?);
        }
        touched += query.execute(&mut *connection).await?.rows_affected();
        from = upto;
    }
    Ok(touched)
}

/// Deletes one row that equals `row` in every column.
async fn delete_equal(connection: &mut PgConnection, plan: &Plan, row: &Row) -> Outcome<u64> {
    let mut cells = Vec::with_capacity(plan.columns.len());
    for column in &plan.columns {
        let mut text = Vec::new();
        cells.push(match column.write(&plan.schema, row, &mut text)? {
            Written::Text => Some(String::from_utf8(text).map_err(|_| Error::rejected(format!("a value of `{}` is not UTF-8", plan.schema.id)))?),
            Written::Null => None,
        });
    }
    let mut query = sqlx::query(AssertSqlSafe(plan.delete_row.clone()));
    for cell in cells {
        query = query.bind(cell);
    }
    Ok(query.execute(connection).await?.rows_affected())
}
