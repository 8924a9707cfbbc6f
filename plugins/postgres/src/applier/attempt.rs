//! One attempt at one batch: a transaction, in which each change finds its table's plan.

use std::sync::Arc;

use plumbline_sdk::{Batch, ChangeEvent, CopyMark, Error, Event, GtidSet, Op, Position, TableId, TableSchema, TransactionMark};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor};

use super::store::{Binding, Book, Entry, Stop, Store};
use super::target::{Mismatch, Plan, create_table};
use super::{ApplierConfig, Memory};
use crate::catalog::{CatalogTable, only_match, read_tables};
use crate::error::Failure;
use crate::quote::{ident, qualified};
use crate::types::{Policies, created_as};

pub(super) type Outcome<T> = std::result::Result<T, Failure>;

/// What a transaction is for.
pub(super) enum Work<'a> {
    /// A batch of the stream, and the position after it.
    Stream(&'a Batch, Position),
    /// A chunk of a copy.
    Copy(&'a Batch, &'a CopyMark),
    /// News: tables found.
    News(&'a Batch),
    /// A stopped table goes on.
    Resume(TableId),
}

/// The position after applying a batch that ends at `next` where `stored` is; None: there is nothing new in it.
///
/// Two servers may have written the same transactions in another order; then neither position contains the other, and both together count.
pub(super) fn merged(stored: Option<&Position>, next: &Position) -> Option<Position> {
    let Some(stored) = stored else { return Some(next.clone()) };
    match stored.order(next) {
        Some(std::cmp::Ordering::Less) => Some(next.clone()),
        // No new transaction, and all the same another place in the log: a fence waits for it.
        Some(std::cmp::Ordering::Equal) if stored.server != next.server || stored.at < next.at => Some(next.clone()),
        Some(_) => None,
        None => {
            let mut both = next.clone();
            if let (Some(all), Some(had)) = (&mut both.gtids, &stored.gtids) {
                GtidSet::union(all, had);
            }
            Some(both)
        }
    }
}

/// How changes are written. Each falls back to the next where PostgreSQL finds two rows in each other's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Mode {
    /// The net effect of many changes: deletes, then upserts.
    #[default]
    Bulk,
    /// The net effect, with every row that changes taken out before any is put in: rows may swap what is unique besides the key. Only where
    /// nothing else reacts to a delete: in tables that we created, or where triggers and foreign keys are bypassed.
    Replace,
    /// Change by change, in the source's order.
    Ordered,
}

/// Changes of one table that wait to be written together.
pub(super) struct Group<'b> {
    pub plan: Arc<Plan>,
    pub changes: Vec<&'b ChangeEvent>,
}

pub(super) struct Attempt<'a> {
    pub connection: &'a mut PgConnection,
    pub memory: &'a mut Memory,
    pub store: &'a Store,
    pub config: &'a ApplierConfig,
    pub mode: Mode,
    /// Whether foreign keys and triggers of the target are bypassed.
    pub bypasses: bool,
    /// The table whose turn it is, and the schema statement, if it is one.
    blamed: Option<(TableId, String)>,
    /// The book as it was, once it has been written to.
    backup: Option<Book>,
    /// The names of all target tables, read once.
    names: Option<Vec<String>>,
    /// Tables that failed in earlier attempts at this work. They stay stopped in it, whatever a DROP or RENAME in the same batch forgets.
    pub failed: &'a [(TableId, Stop)],
}

impl<'a> Attempt<'a> {
    pub fn new(connection: &'a mut PgConnection, memory: &'a mut Memory, store: &'a Store, config: &'a ApplierConfig, mode: Mode, bypasses: bool, failed: &'a [(TableId, Stop)]) -> Self {
        Self { connection, memory, store, config, mode, bypasses, blamed: None, backup: None, names: None, failed }
    }

    /// Who is to blame for a failure, and the book to go back to.
    pub fn end(self) -> (Option<(TableId, String)>, Option<Book>) {
        (self.blamed, self.backup)
    }

    /// Does `work` and commits.
    pub async fn run(&mut self, work: &Work<'_>) -> Outcome<()> {
        self.connection.execute("BEGIN; SET CONSTRAINTS ALL DEFERRED").await?;
        let from = self.memory.position.clone();
        match work {
            Work::Stream(_, next) => self.store.advance(self.connection, self.memory.epoch, from.as_ref(), next).await?,
            _ => self.store.hold(self.connection, self.memory.epoch).await?,
        }
        for (table, stop) in self.failed {
            self.stop(table, stop).await?;
        }
        match work {
            Work::Stream(batch, _) => self.stream(batch, from.as_ref()).await?,
            Work::Copy(batch, mark) => self.copy(batch, mark).await?,
            Work::News(batch) => self.news(batch).await?,
            Work::Resume(table) => self.go_on(table).await?,
        }
        // What deferred constraints say is said now; the server names the table.
        if let Err(error) = self.connection.execute("COMMIT").await {
            let failure = Failure::from(error);
            if let Failure::Said(said) = &failure {
                self.blamed = said.table.as_ref().and_then(|target| self.source_of(target)).map(|table| (table, String::new()));
            }
            return Err(failure);
        }
        if let Work::Stream(_, next) = work {
            self.memory.position = Some(next.clone());
        }
        Ok(())
    }

    fn source_of(&self, target: &str) -> Option<TableId> {
        self.memory.book.bindings.iter().find(|(_, binding)| binding.target == target).map(|(table, _)| table.clone())
    }

    pub fn blame(&mut self, table: &TableId) {
        if self.blamed.as_ref().is_none_or(|(blamed, statement)| blamed != table || !statement.is_empty()) {
            self.blamed = Some((table.clone(), String::new()));
        }
    }

    pub fn blame_statement(&mut self, table: &TableId, statement: &str) {
        self.blamed = Some((table.clone(), statement.to_owned()));
    }

    /// The book, to be written to.
    pub fn book(&mut self) -> &mut Book {
        if self.backup.is_none() {
            self.backup = Some(self.memory.book.clone());
        }
        &mut self.memory.book
    }

    pub async fn log(&mut self, table: &TableId, operation: &'static str, status: &'static str, rows: u64, message: &str) -> Outcome<()> {
        self.store.log(self.connection, &Entry { table: Some(table), operation, status, rows, message }).await
    }

    pub async fn execute(&mut self, statement: String) -> Outcome<u64> {
        Ok(self.connection.execute(AssertSqlSafe(statement)).await?.rows_affected())
    }

    pub fn is_stopped(&self, table: &TableId) -> bool {
        self.memory.book.stopped.contains_key(table)
    }

    /// Stops a table. Where nothing was written to it yet, only memory knows: a restart looks again.
    pub async fn stop(&mut self, table: &TableId, stop: &Stop) -> Outcome<()> {
        self.book().stopped.insert(table.clone(), stop.clone());
        if let Some(mut binding) = self.memory.book.bindings.get(table).cloned() {
            let position = self.memory.position.clone();
            self.store.keep_stop(self.connection, table, stop, position.as_ref()).await?;
            binding.halted = true;
            self.keep_binding(table, binding).await?;
        }
        let message = if stop.statement.is_empty() { stop.reason.clone() } else { format!("{}; the statement: {}", stop.reason, stop.statement) };
        self.log(table, if stop.statement.is_empty() { "apply" } else { "schema" }, "failed", 0, &message).await
    }

    async fn go_on(&mut self, table: &TableId) -> Outcome<()> {
        let Some(mut binding) = self.memory.book.bindings.get(table).cloned() else {
            self.book().stopped.remove(table);
            return Ok(());
        };
        if binding.created {
            let name = qualified(&self.config.connection.schema, &binding.target);
            if !read_tables(self.connection, &self.config.connection.schema, Some(std::slice::from_ref(&binding.target))).await?.is_empty() {
                self.empty(&name).await?;
            }
        }
        binding.halted = false;
        self.keep_binding(table, binding).await?;
        for from in ["copies", "stopped_tables"] {
            self.store.forget(self.connection, from, table).await?;
        }
        let book = self.book();
        book.copies.remove(table);
        book.stopped.remove(table);
        self.log(table, "apply", "started", 0, "goes on; the table is copied again").await
    }

    async fn stream(&mut self, batch: &Batch, from: Option<&Position>) -> Outcome<()> {
        let mut groups: Vec<Group<'_>> = Vec::new();
        for mark in &batch.transactions {
            let included = from.map_or(0, |position| position.included(&mark.id));
            if included == u64::MAX {
                continue;
            }
            let mut skip = included.saturating_sub(mark.first_change);
            for event in &batch.events[mark.events.clone()] {
                match event {
                    Event::Change(_) if skip > 0 => skip -= 1,
                    Event::Change(change) => self.change(&mut groups, mark, change).await?,
                    Event::Schema(change) if included == 0 => {
                        self.flush(&mut groups).await?;
                        self.schema(change).await?;
                    }
                    _ => {}
                }
            }
        }
        self.flush(&mut groups).await
    }

    async fn change<'b>(&mut self, groups: &mut Vec<Group<'b>>, mark: &TransactionMark, change: &'b ChangeEvent) -> Outcome<()> {
        let id = &change.table.id;
        // The common case: a table that is being written, in the shape it had.
        if change.op != Op::Truncate
            && self.mode != Mode::Ordered
            && let Some(group) = groups.iter_mut().rev().find(|group| Arc::ptr_eq(&group.plan.schema, &change.table))
            && !group.plan.key.is_empty()
        {
            group.changes.push(change);
            return Ok(());
        }
        if self.is_stopped(id) {
            return Ok(());
        }
        if change.op == Op::Truncate {
            self.flush(groups).await?;
            return self.truncate(mark, id).await;
        }
        self.blame(id);
        let plan = self.plan(&change.table).await?;
        if plan.key.is_empty() && !self.past_copy(id, mark) {
            return Ok(());
        }
        if self.mode == Mode::Ordered {
            return self.write_one(&plan, change).await;
        }
        match groups.iter().position(|group| group.plan.schema.id == *id) {
            Some(place) if Arc::ptr_eq(&groups[place].plan, &plan) => groups[place].changes.push(change),
            Some(_) => {
                self.flush(groups).await?;
                groups.push(Group { plan, changes: vec![change] });
            }
            None => groups.push(Group { plan, changes: vec![change] }),
        }
        Ok(())
    }

    /// The statement names a table and says nothing of its shape. A table that is not bound yet has nothing to be removed.
    async fn truncate(&mut self, mark: &TransactionMark, table: &TableId) -> Outcome<()> {
        self.blame(table);
        let copied_after = self.memory.book.copies.get(table).is_some_and(|copy| copy.snapshot.is_some()) && !self.past_copy(table, mark);
        match self.memory.book.bindings.get(table) {
            Some(binding) if !copied_after => {
                let name = qualified(&self.config.connection.schema, &binding.target);
                self.empty(&name).await
            }
            _ => Ok(()),
        }
    }

    /// Whether a change of a table without key is to be applied: what came before its copy, or is in the copied rows, is not.
    fn past_copy(&self, table: &TableId, mark: &TransactionMark) -> bool {
        match self.memory.book.copies.get(table) {
            Some(copy) => copy.done && copy.snapshot.as_ref().is_none_or(|snapshot| !snapshot.contains(&mark.id)),
            None => !self.config.copies_first,
        }
    }

    async fn flush(&mut self, groups: &mut Vec<Group<'_>>) -> Outcome<()> {
        for group in groups.drain(..) {
            self.blame(&group.plan.schema.id);
            self.write_group(&group).await?;
        }
        Ok(())
    }

    async fn news(&mut self, batch: &Batch) -> Outcome<()> {
        for event in &batch.events {
            if let Event::TableFound(schema) = event
                && !self.is_stopped(&schema.id)
            {
                self.blame(&schema.id);
                self.binding(schema).await?;
            }
        }
        Ok(())
    }

    /// The target that `schema` is bound to; bound now, or created, where it is not yet.
    pub async fn binding(&mut self, schema: &Arc<TableSchema>) -> Outcome<Binding> {
        if let Some(binding) = self.memory.book.bindings.get(&schema.id) {
            return Ok(binding.clone());
        }
        let known = self.memory.known.get(&schema.id).cloned();
        let described = known.as_ref().filter(|known| known.columns.len() == schema.columns.len()).unwrap_or(schema);
        let key: Vec<String> = described.key().iter().map(|&i| described.columns[i].name.clone()).collect();
        let name = &*schema.id.table;
        let mut candidates = self.target_names().await?.to_vec();
        // Tables that belong to another table of the source are not candidates, and neither is one that another could name exactly.
        let theirs = |candidate: &str| {
            self.memory.book.bindings.iter().any(|(table, binding)| *table != schema.id && binding.target == candidate)
                || (candidate != name && self.memory.known.keys().any(|table| &*table.table == candidate))
        };
        if let Some((other, _)) = self.memory.book.bindings.iter().find(|(_, binding)| binding.target == name) {
            return Err(Error::rejected(format!("`{}` and `{other}` would both be the table `{name}` of the target; give one of them a schema of its own", schema.id)).into());
        }
        candidates.retain(|candidate| !theirs(candidate));
        let found = only_match(candidates.iter().map(String::as_str), name).map_err(|count| {
            Error::rejected(format!("{count} tables of the target are named like `{}` without regard to case; rename all but one of them", schema.id))
        })?;
        let binding = match found {
            Some(place) => Binding { target: candidates[place].clone(), created: false, key, halted: false },
            None => {
                self.create(described, &key, name).await?;
                Binding { target: name.to_owned(), created: true, key, halted: false }
            }
        };
        self.keep_binding(&schema.id, binding.clone()).await?;
        Ok(binding)
    }

    async fn target_names(&mut self) -> Outcome<&[String]> {
        if self.names.is_none() {
            let names = sqlx::query_scalar(
                "SELECT c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                  WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition",
            )
            .bind(&self.config.connection.schema)
            .fetch_all(&mut *self.connection)
            .await?;
            self.names = Some(names);
        }
        Ok(self.names.as_deref().unwrap_or_default())
    }

    /// The set of target tables changed.
    pub fn forget_names(&mut self) {
        self.names = None;
    }

    async fn create(&mut self, schema: &Arc<TableSchema>, key: &[String], name: &str) -> Outcome<()> {
        let target_schema = self.config.connection.schema.clone();
        let statement = create_table(schema, key, &target_schema, name)?;
        if let Err(failure) = self.execute(statement).await {
            return Err(match failure {
                Failure::Said(said) if matches!(said.code.as_str(), "42501" | "3F000") => Error::rejected(format!(
                    "table `{}` cannot be created in the target; mend it with: CREATE SCHEMA IF NOT EXISTS {schema}; GRANT USAGE, CREATE ON SCHEMA {schema} TO {user}",
                    schema.id,
                    schema = ident(&target_schema),
                    user = ident(&self.config.connection.user)
                ))
                .caused_by(said)
                .into(),
                other => other,
            });
        }
        self.forget_names();
        let message = if key.is_empty() { format!("created `{target_schema}.{name}`; it has no key") } else { format!("created `{target_schema}.{name}`") };
        self.log(&schema.id, "create_table", "completed", 0, &message).await
    }

    pub async fn keep_binding(&mut self, table: &TableId, binding: Binding) -> Outcome<()> {
        self.store.keep_binding(self.connection, table, &binding).await?;
        self.book().bindings.insert(table.clone(), binding);
        Ok(())
    }

    /// The catalog's picture of a bound target.
    pub async fn catalog(&mut self, table: &TableId, target: &str) -> Outcome<CatalogTable> {
        let names = [target.to_owned()];
        let read = read_tables(self.connection, &self.config.connection.schema, Some(&names)).await?;
        read.into_iter().next().ok_or_else(|| {
            Error::rejected(format!("the target table `{}.{target}` of `{table}` is gone, or is no table; it was there before", self.config.connection.schema)).into()
        })
    }

    /// How the rows of this shape are written.
    pub async fn plan(&mut self, schema: &Arc<TableSchema>) -> Outcome<Arc<Plan>> {
        if let Some(plans) = self.memory.plans.get(&schema.id)
            && let Some(plan) = plans.iter().find(|plan| Arc::ptr_eq(&plan.schema, schema)).or_else(|| plans.iter().find(|plan| plan.schema == *schema))
        {
            return Ok(Arc::clone(plan));
        }
        let binding = self.binding(schema).await?;
        let mut mended = false;
        let plan = loop {
            let catalog = self.catalog(&schema.id, &binding.target).await?;
            let key = self.key_of(schema, &binding, &catalog);
            let policies = Policies { zero_dates: self.config.zero_dates, nul_characters: self.config.nul_characters };
            match Plan::new(schema, &key, &catalog, binding.created, policies) {
                Ok(plan) => break Arc::new(plan),
                Err(mismatch) => {
                    if mended || !binding.created || !self.mend(schema, &catalog, &mismatch).await? {
                        return Err(self.explain(schema, &catalog, &mismatch).into());
                    }
                    mended = true;
                }
            }
        };
        let plans = self.memory.plans.entry(schema.id.clone()).or_default();
        if plans.len() >= 4 {
            plans.remove(0);
        }
        plans.push(Arc::clone(&plan));
        Ok(plan)
    }

    /// The key's column names. A stream names a primary key only: another key counts where the target is unique over it.
    fn key_of(&self, schema: &TableSchema, binding: &Binding, catalog: &CatalogTable) -> Vec<String> {
        let key: Vec<String> = schema.key().iter().map(|&i| schema.columns[i].name.clone()).collect();
        if !key.is_empty() {
            return key;
        }
        let known = self.memory.known.get(&schema.id).map(|known| known.key().iter().map(|&i| known.columns[i].name.clone()).collect::<Vec<_>>());
        let candidate = known.filter(|key| !key.is_empty()).unwrap_or_else(|| binding.key.clone());
        let target: Option<Vec<&str>> = candidate.iter().map(|name| catalog.column(name).map(|i| catalog.table.columns[i].name.as_str())).collect();
        let unique = !candidate.is_empty() && target.is_some_and(|target| catalog.has_unique(&target)) && candidate.iter().all(|name| schema.column(name).is_some());
        if unique { candidate } else { Vec::new() }
    }

    /// A target that we created from what discovery saw may be ahead of the stream: it is made as the stream says.
    async fn mend(&mut self, schema: &Arc<TableSchema>, catalog: &CatalogTable, mismatch: &Mismatch) -> Outcome<bool> {
        let name = catalog.sql_name();
        match mismatch {
            Mismatch::Lacking(_) => {
                let filled: bool = sqlx::query_scalar(AssertSqlSafe(format!("SELECT EXISTS (SELECT FROM {name})"))).fetch_one(&mut *self.connection).await?;
                if filled {
                    return Ok(false);
                }
                self.execute(format!("DROP TABLE {name}")).await?;
                let key: Vec<String> = schema.key().iter().map(|&i| schema.columns[i].name.clone()).collect();
                self.create(schema, &key, &catalog.table.id.table.clone()).await?;
            }
            Mismatch::Wanting(columns) => {
                for column in columns {
                    self.execute(format!("ALTER TABLE {name} ALTER COLUMN {} DROP NOT NULL", ident(column))).await?;
                }
            }
            Mismatch::Ambiguous(_) => return Ok(false),
        }
        Ok(true)
    }

    fn explain(&self, schema: &TableSchema, catalog: &CatalogTable, mismatch: &Mismatch) -> Error {
        let (source, target) = (&schema.id, &catalog.table.id);
        Error::rejected(match mismatch {
            Mismatch::Lacking(columns) => {
                let add: Vec<String> = columns
                    .iter()
                    .filter_map(|name| schema.column(name).map(|i| format!("ADD COLUMN {} {}", ident(name), created_as(&schema.columns[i].ty).unwrap_or_else(|_| "text".into()))))
                    .collect();
                format!(
                    "the target table `{target}` lacks {} that `{source}` has; mend it with: ALTER TABLE {} {}",
                    listed(columns),
                    catalog.sql_name(),
                    add.join(", ")
                )
            }
            Mismatch::Wanting(columns) => format!(
                "the target table `{target}` wants a value for {}, which `{source}` does not have; give each a default, or: ALTER TABLE {} {}",
                listed(columns),
                catalog.sql_name(),
                columns.iter().map(|name| format!("ALTER COLUMN {} DROP NOT NULL", ident(name))).collect::<Vec<_>>().join(", ")
            ),
            Mismatch::Ambiguous(column) => format!("several columns of `{target}` are named like `{column}` of `{source}` without regard to case; rename all but one of them"),
        })
    }

    /// Removes all rows of a target. TRUNCATE needs a right of its own and refuses a table that others refer to.
    pub async fn empty(&mut self, name: &str) -> Outcome<()> {
        self.connection.execute("SAVEPOINT plumbline_empty").await?;
        match self.execute(format!("TRUNCATE {name}")).await {
            Ok(_) => {
                self.connection.execute("RELEASE SAVEPOINT plumbline_empty").await?;
                Ok(())
            }
            Err(Failure::Said(said)) if matches!(said.code.as_str(), "42501" | "0A000") => {
                self.connection.execute("ROLLBACK TO SAVEPOINT plumbline_empty").await?;
                self.execute(format!("DELETE FROM {name}")).await.map(|_| ())
            }
            Err(other) => Err(other),
        }
    }
}

fn listed(columns: &[String]) -> String {
    let names: Vec<String> = columns.iter().map(|name| format!("`{name}`")).collect();
    format!("{} {}", if columns.len() == 1 { "the column" } else { "the columns" }, names.join(", "))
}

#[cfg(test)]
mod tests {
    use plumbline_sdk::Coordinate;

    use super::*;

    #[test]
    fn a_place_further_in_the_log_is_new_without_a_new_transaction() {
        let of = |server: &str, offset, gtids: &str| {
            let at = Coordinate { log: 1, offset };
            Position { server: server.into(), file: "binlog.000001".into(), at, gtids: Some(gtids.parse().expect("a set")), ..Position::default() }
        };
        const SID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        let stored = of("a", 100, &format!("{SID}:1-5"));
        let check = |next: Position, is_new: bool| assert_eq!(merged(Some(&stored), &next), is_new.then_some(next.clone()), "{next:?}");
        check(of("a", 300, &format!("{SID}:1-5")), true);
        check(of("a", 100, &format!("{SID}:1-5")), false);
        check(of("a", 50, &format!("{SID}:1-5")), false);
        check(of("b", 4, &format!("{SID}:1-5")), true);
        check(of("a", 200, &format!("{SID}:1-6")), true);
        check(of("a", 300, &format!("{SID}:1-4")), false);
    }
}
