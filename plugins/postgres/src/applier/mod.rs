//! The plugin `postgres-applier`: keeps the target as the source is, with its progress in the same transaction.
//!
//! ```text
//! one batch = one PostgreSQL transaction: progress moves on from where it was, or the transaction fails; then the changes
//! ```
//!
//! A table whose change cannot be applied is stopped, with the reason, and the others go on. Nothing is ever applied twice: a transaction
//! of the source that the stored position includes is skipped, and so are the first changes of one that it includes in part.

mod attempt;
mod ddl;
pub mod net;
pub mod statement;
mod store;
pub mod target;
mod write;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use plumbline_sdk::plugin::LogEntry;
use plumbline_sdk::{Applier, Batch, CopyMark, Error, ErrorKind, Event, Plugin, Position, Result, Sink, TableId, TableSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};

use crate::config::PostgresConfig;
use crate::connect::{Pulse, Role, connect};
use crate::error::{Doing, Failure};
use crate::reader::{default_pipeline, default_state_schema};
use crate::types::{NulCharacters, ZeroDates};
use attempt::{Attempt, Mode, Work, merged};
use store::{Book, Stop, Store};
use target::Plan;

/// Settings of the applier.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplierConfig {
    /// The database; its `schema` is where the tables are created and looked for.
    pub connection: PostgresConfig,
    /// The schema in which the applier keeps its progress; created where it is missing.
    #[serde(default = "default_state_schema")]
    pub state_schema: String,
    /// The name under which the progress is kept: one for each source that is applied to this database.
    #[serde(default = "default_pipeline")]
    pub pipeline: String,
    /// Whether existing rows come as a copy, which must be done before changes of a table without key are applied. False: they come in the stream.
    #[serde(default = "default_copies_first")]
    pub copies_first: bool,
    /// What becomes of dates that are no day of the calendar.
    #[serde(default)]
    pub zero_dates: ZeroDates,
    /// What becomes of NUL characters in text.
    #[serde(default)]
    pub nul_characters: NulCharacters,
}

fn default_copies_first() -> bool {
    true
}

/// How many batches are applied in the way that succeeded after one that could not be applied in bulk.
const CAREFUL_BATCHES: u32 = 32;

/// What the applier knows; the book and the position are as of the last commit.
#[derive(Default)]
struct Memory {
    epoch: i64,
    position: Option<Position>,
    book: Book,
    /// Ways to write a table, by its shapes: the stream and the copy may describe the same table a little differently.
    plans: HashMap<TableId, Vec<Arc<Plan>>>,
    /// As discovery last saw the tables.
    known: HashMap<TableId, Arc<TableSchema>>,
    /// How the next batches are applied, and how many of them.
    mode: Mode,
    careful: u32,
}

/// Applies batches to one PostgreSQL schema.
pub struct PostgresApplier {
    config: ApplierConfig,
    store: Store,
    connection: Option<PgConnection>,
    pulse: Option<Pulse>,
    memory: Memory,
    bypasses_constraints: bool,
    connected_before: bool,
}

impl Plugin for PostgresApplier {
    const NAME: &'static str = "postgres-applier";
    type Config = ApplierConfig;
    fn new(config: ApplierConfig) -> Result<Self> {
        for (name, value) in [("state_schema", &config.state_schema), ("schema", &config.connection.schema)] {
            crate::quote::check_name(value).map_err(|error| Error::config(format!("`{name}` cannot be used")).caused_by(error))?;
        }
        if config.state_schema == config.connection.schema {
            return Err(Error::config(format!("`state_schema` is `{}`, and so is the target's schema; give the applier's progress a schema of its own", config.state_schema)));
        }
        let store = Store::new(&config.state_schema, &config.pipeline);
        Ok(Self { config, store, connection: None, pulse: None, memory: Memory::default(), bypasses_constraints: false, connected_before: false })
    }
}

impl PostgresApplier {
    /// Whether the connection is encrypted.
    pub async fn is_encrypted(&mut self) -> Result<bool> {
        crate::connect::is_encrypted(self.connection()?).await
    }

    /// Whether foreign keys and triggers of the target are left out while we write. Known after `connect`.
    pub fn bypasses_constraints(&self) -> bool {
        self.bypasses_constraints
    }

    /// Lets a stopped table go on: a target that we created is emptied, and the copy of the table begins again.
    pub async fn resume(&mut self, table: &TableId) -> Result<()> {
        let work = Work::Resume(table.clone());
        self.run(&work).await
    }

    fn connection(&mut self) -> Result<&mut PgConnection> {
        self.connection.as_mut().ok_or_else(|| Error::disconnected("the applier is not connected to PostgreSQL"))
    }

    /// Runs `work` in one transaction, again and again: change by change where bulk failed, with what the catalog says now where memory
    /// may be stale, without the tables that cannot go on. The connection is put back only when it is in a known state.
    async fn run(&mut self, work: &Work<'_>) -> Result<()> {
        let mut connection = self.connection.take().ok_or_else(|| Error::disconnected("the applier is not connected to PostgreSQL"))?;
        let result = match self.pulse.clone() {
            Some(pulse) => pulse.guard(self.run_with(&mut connection, work)).await.and_then(|result| result),
            None => self.run_with(&mut connection, work).await,
        };
        let usable = match &result {
            Ok(()) => true,
            Err(error) => error.kind() == ErrorKind::Rejected,
        };
        if usable {
            self.connection = Some(connection);
        }
        result
    }

    async fn run_with(&mut self, connection: &mut PgConnection, work: &Work<'_>) -> Result<()> {
        let mut stops: Vec<(TableId, Stop)> = Vec::new();
        let mut mode = if self.memory.careful > 0 { self.memory.mode } else { Mode::Bulk };
        let mut read_again = false;
        loop {
            let mut attempt = Attempt::new(&mut *connection, &mut self.memory, &self.store, &self.config, mode, self.bypasses_constraints, &stops);
            let result = attempt.run(work).await;
            let (blamed, backup) = attempt.end();
            let failure = match result {
                Ok(()) => {
                    self.memory.careful = self.memory.careful.saturating_sub(1);
                    return Ok(());
                }
                Err(failure) => failure,
            };
            if let Some(book) = backup {
                self.memory.book = book;
            }
            self.memory.plans.clear();
            connection.execute("ROLLBACK").await.doing("rolling back")?;
            let reason = match failure {
                Failure::Away(error) => return Err(error),
                Failure::Ours(error) if error.kind() != ErrorKind::Rejected || blamed.is_none() => return Err(error),
                Failure::Ours(error) => error.chain(),
                Failure::Said(said) if said.is_order() && mode != Mode::Ordered => {
                    mode = if mode == Mode::Bulk { Mode::Replace } else { Mode::Ordered };
                    self.memory.mode = mode;
                    self.memory.careful = CAREFUL_BATCHES;
                    continue;
                }
                Failure::Said(said) => {
                    let Some((table, _)) = &blamed else {
                        return Err(Error::fatal("PostgreSQL refused a batch, and it cannot be told which table is to blame").caused_by(said));
                    };
                    self.refusal(table, &said)
                }
            };
            let Some((table, statement)) = blamed else { return Err(Error::fatal(reason)) };
            if !read_again {
                // The target may have changed under us: once more with what the catalog says now.
                read_again = true;
                continue;
            }
            if stops.iter().any(|(stopped, _)| *stopped == table) {
                return Err(Error::fatal(format!("table `{table}` cannot be stopped: {reason}")));
            }
            tracing::error!(%table, reason, "the table stops; the others go on");
            stops.push((table, Stop { reason, statement }));
        }
    }

    fn refusal(&self, table: &TableId, said: &crate::error::ServerSaid) -> String {
        let mut reason = format!("PostgreSQL refused a change of `{table}`: {said}");
        if said.code == "42501" {
            let target = self.memory.book.bindings.get(table).map_or(&*table.table, |binding| binding.target.as_str());
            reason.push_str(&format!(
                "; mend it with: GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON {} TO {}",
                crate::quote::qualified(&self.config.connection.schema, target),
                crate::quote::ident(&self.config.connection.user)
            ));
        }
        reason
    }
}

#[async_trait]
impl Sink for PostgresApplier {
    async fn connect(&mut self) -> Result<()> {
        self.connection = None;
        let mut connection = connect(&self.config.connection, Role::Write).await?;
        self.pulse = Some(Pulse::of(&self.config.connection, &mut connection).await?);
        let mine = self.connected_before.then_some(self.memory.epoch);
        let opened = self.store.open(&mut connection, &self.config.connection.user, mine).await?;
        // Foreign keys are the source's business: its changes arrive in its order, cascades included. Where this is not granted,
        // deferrable constraints are deferred.
        self.bypasses_constraints = connection.execute("SET session_replication_role = replica").await.is_ok();
        self.memory.epoch = opened.epoch;
        self.memory.position = opened.position;
        self.memory.book = opened.book;
        self.memory.plans.clear();
        self.connected_before = true;
        self.connection = Some(connection);
        let resumed: Vec<TableId> = {
            let book = &self.memory.book;
            book.bindings.iter().filter(|(table, binding)| binding.halted && !book.stopped.contains_key(table)).map(|(table, _)| table.clone()).collect()
        };
        for table in resumed {
            self.resume(&table).await?;
        }
        Ok(())
    }

    async fn position(&mut self) -> Result<Option<Position>> {
        Ok(self.memory.position.clone())
    }

    async fn write(&mut self, batch: &Batch) -> Result<()> {
        for event in &batch.events {
            match event {
                Event::TableFound(schema) | Event::TableChanged(schema) => {
                    self.memory.known.insert(schema.id.clone(), Arc::clone(schema));
                }
                Event::TableGone(table) => {
                    self.memory.known.remove(table);
                }
                _ => {}
            }
        }
        let work = if let Some(mark) = &batch.copy {
            Work::Copy(batch, mark)
        } else if let Some(position) = &batch.position {
            match merged(self.memory.position.as_ref(), position) {
                Some(next) => Work::Stream(batch, next),
                None => return Ok(()),
            }
        } else if batch.events.iter().any(|event| matches!(event, Event::TableFound(_))) {
            Work::News(batch)
        } else {
            return Ok(());
        };
        self.run(&work).await
    }

    async fn close(&mut self) -> Result<()> {
        match self.connection.take() {
            Some(connection) => connection.close().await.doing("closing the connection"),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Applier for PostgresApplier {
    async fn copies(&mut self) -> Result<Vec<CopyMark>> {
        Ok(self.memory.book.copies.values().cloned().collect())
    }

    async fn stopped(&mut self) -> Result<Vec<(TableId, String)>> {
        let told = |(table, stop): (&TableId, &Stop)| {
            let mut text = stop.reason.clone();
            if !stop.statement.is_empty() {
                text.push_str(&format!("; the statement: {}", stop.statement));
            }
            if self.memory.book.bindings.get(table).is_some_and(|binding| binding.halted) {
                text.push_str(&format!("; when it is mended, this and a restart copies the table again: {}", self.store.resume_statement(table)));
            } else {
                text.push_str("; when it is mended, a restart takes the table in");
            }
            (table.clone(), text)
        };
        Ok(self.memory.book.stopped.iter().map(told).collect())
    }

    async fn migration_log(&mut self, limit: u32, table: Option<&TableId>) -> Result<Vec<LogEntry>> {
        let mut connection = self.connection.take().ok_or_else(|| Error::disconnected("the applier is not connected to PostgreSQL"))?;
        let log = self.store.read_log(&mut connection, limit, table).await?;
        self.connection = Some(connection);
        Ok(log)
    }
}
