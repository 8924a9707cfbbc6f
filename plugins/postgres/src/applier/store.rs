//! The applier's own schema: progress, copies, which table is bound to which, what stopped, and the migration log.
//!
//! Everything here is written in the transaction of the data it speaks of.

use std::collections::HashMap;

use plumbline_sdk::plugin::LogEntry;
use plumbline_sdk::{CopyMark, Error, Position, Result, TableId};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor, Row};

use crate::catalog::relation_exists;
use crate::error::{Doing, Failure};
use crate::quote::{ident, qualified};

/// The layout of the schema. A newer one is refused: this version would not know what it says.
const LAYOUT: i32 = 1;

/// A table of the source and the table of the target it is applied to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The target's name, in the configured schema.
    pub target: String,
    /// Whether we created it.
    pub created: bool,
    /// The source's key when it was bound, for streams that do not name it.
    pub key: Vec<String>,
    /// Whether it was stopped after something had been written to it.
    pub halted: bool,
}

/// Why a table stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// The reason and what to do.
    pub reason: String,
    /// The statement that could not be applied; empty where it was not a statement.
    pub statement: String,
}

/// What is known of all tables: the memory of what the schema holds.
#[derive(Debug, Clone, Default)]
pub struct Book {
    /// By source table.
    pub bindings: HashMap<TableId, Binding>,
    /// By source table.
    pub copies: HashMap<TableId, CopyMark>,
    /// By source table.
    pub stopped: HashMap<TableId, Stop>,
}

/// What was found at connect.
pub struct Opened {
    /// The fencing token: greater than any before.
    pub epoch: i64,
    /// How far the target is.
    pub position: Option<Position>,
    /// The rest.
    pub book: Book,
}

/// The SQL of one pipeline in one state schema.
#[derive(Debug, Clone)]
pub struct Store {
    schema: String,
    pipeline: String,
}

impl Store {
    pub fn new(schema: &str, pipeline: &str) -> Self {
        Self { schema: schema.to_owned(), pipeline: pipeline.to_owned() }
    }

    fn table(&self, name: &str) -> String {
        qualified(&self.schema, name)
    }

    /// Creates what is not there, refuses what is newer, takes the next epoch. `mine`: the epoch this applier had before; if another
    /// has taken over since, it stays out.
    pub async fn open(&self, connection: &mut PgConnection, user: &str, mine: Option<i64>) -> Result<Opened> {
        self.create(connection, user).await?;
        connection.execute("BEGIN").await.doing("opening the applier's state")?;
        let opened = self.take_over(connection, mine).await?;
        connection.execute("COMMIT").await.doing("opening the applier's state")?;
        Ok(opened)
    }

    async fn create(&self, connection: &mut PgConnection, user: &str) -> Result<()> {
        if relation_exists(connection, &self.schema, "layout").await? {
            let version: Option<i32> = sqlx::query_scalar(AssertSqlSafe(format!("SELECT version FROM {}", self.table("layout"))))
                .fetch_optional(&mut *connection)
                .await
                .doing(&format!("reading `{}.layout`; the schema must belong to user `{user}`", self.schema))?;
            return match version {
                Some(version) if version > LAYOUT => Err(Error::config(format!(
                    "the schema `{}` in the target was made by a newer version (layout {version}, this one knows {LAYOUT}); run that version, or set another `state_schema`",
                    self.schema
                ))),
                _ => Ok(()),
            };
        }
        let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)")
            .bind(&self.schema)
            .fetch_one(&mut *connection)
            .await
            .doing("looking for the applier's schema")?;
        if !exists {
            let statement = format!("CREATE SCHEMA IF NOT EXISTS {}", ident(&self.schema));
            if let Err(error) = connection.execute(AssertSqlSafe(statement)).await {
                return Err(match Failure::from(error) {
                    Failure::Said(said) if said.code == "42501" => {
                        let database: String = sqlx::query_scalar("SELECT pg_catalog.current_database()::text").fetch_one(connection).await.doing("asking for the database")?;
                        Error::config(format!(
                            "user `{user}` may not create the schema `{}` in which the applier keeps its progress; mend it with: GRANT CREATE ON DATABASE {} TO {}",
                            self.schema,
                            ident(&database),
                            ident(user)
                        ))
                        .caused_by(said)
                    }
                    other => other.into_error("creating the applier's schema"),
                });
            }
        }
        let (layout, progress, copies) = (self.table("layout"), self.table("progress"), self.table("copies"));
        let (tables, stopped, log) = (self.table("tables"), self.table("stopped_tables"), self.table("migration_log"));
        let statement = format!(
            "BEGIN;
             CREATE TABLE IF NOT EXISTS {progress} (pipeline text PRIMARY KEY, epoch bigint NOT NULL, position jsonb, updated_at timestamptz NOT NULL DEFAULT pg_catalog.now());
             CREATE TABLE IF NOT EXISTS {copies} (pipeline text, source_schema text, source_table text, mark jsonb NOT NULL,
               updated_at timestamptz NOT NULL DEFAULT pg_catalog.now(), PRIMARY KEY (pipeline, source_schema, source_table));
             CREATE TABLE IF NOT EXISTS {tables} (pipeline text, source_schema text, source_table text, target_table text NOT NULL, created boolean NOT NULL,
               key text[] NOT NULL, halted boolean NOT NULL DEFAULT false, PRIMARY KEY (pipeline, source_schema, source_table));
             CREATE TABLE IF NOT EXISTS {stopped} (pipeline text, source_schema text, source_table text, reason text NOT NULL, statement text NOT NULL,
               position jsonb, stopped_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(), PRIMARY KEY (pipeline, source_schema, source_table));
             CREATE TABLE IF NOT EXISTS {log} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, pipeline text NOT NULL, at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
               table_name text NOT NULL, operation text NOT NULL, status text NOT NULL, record_count bigint NOT NULL, message text NOT NULL);
             CREATE TABLE IF NOT EXISTS {layout} (version integer NOT NULL);
             INSERT INTO {layout} SELECT {LAYOUT} WHERE NOT EXISTS (SELECT FROM {layout});
             COMMIT"
        );
        connection.execute(AssertSqlSafe(statement)).await.doing(&format!("creating the tables of the schema `{}`", self.schema)).map(|_| ())
    }

    async fn take_over(&self, connection: &mut PgConnection, mine: Option<i64>) -> Result<Opened> {
        let doing = "reading the applier's state";
        let row = sqlx::query(AssertSqlSafe(format!("SELECT epoch, position::text FROM {} WHERE pipeline = $1 FOR UPDATE", self.table("progress"))))
            .bind(&self.pipeline)
            .fetch_optional(&mut *connection)
            .await
            .doing(doing)?;
        let (stored, position): (i64, Option<String>) = match &row {
            Some(row) => (row.try_get(0).doing(doing)?, row.try_get(1).doing(doing)?),
            None => (0, None),
        };
        if mine.is_some_and(|mine| mine != stored) {
            return Err(self.fenced());
        }
        let epoch: i64 = sqlx::query_scalar(AssertSqlSafe(format!(
            "INSERT INTO {0} AS p (pipeline, epoch) VALUES ($1, 1) ON CONFLICT (pipeline) DO UPDATE SET epoch = p.epoch + 1 RETURNING epoch",
            self.table("progress")
        )))
        .bind(&self.pipeline)
        .fetch_one(&mut *connection)
        .await
        .doing(doing)?;
        let position = position.map(|text| serde_json::from_str(&text)).transpose();
        let position = position.map_err(|cause| Error::fatal(format!("the position in `{}.progress` cannot be read", self.schema)).caused_by(cause))?;
        Ok(Opened { epoch, position, book: self.read_book(connection).await? })
    }

    async fn read_book(&self, connection: &mut PgConnection) -> Result<Book> {
        let doing = "reading the applier's state";
        let mut book = Book::default();
        let select = |what: &str, table: &str| AssertSqlSafe(format!("SELECT source_schema, source_table, {what} FROM {} WHERE pipeline = $1", self.table(table)));
        for row in sqlx::query(select("target_table, created, key, halted", "tables")).bind(&self.pipeline).fetch_all(&mut *connection).await.doing(doing)? {
            let binding = Binding {
                target: row.try_get(2).doing(doing)?,
                created: row.try_get(3).doing(doing)?,
                key: row.try_get(4).doing(doing)?,
                halted: row.try_get(5).doing(doing)?,
            };
            book.bindings.insert(source_id(&row)?, binding);
        }
        for row in sqlx::query(select("mark::text", "copies")).bind(&self.pipeline).fetch_all(&mut *connection).await.doing(doing)? {
            let mark: String = row.try_get(2).doing(doing)?;
            let mark = serde_json::from_str(&mark).map_err(|cause| Error::fatal(format!("a mark in `{}.copies` cannot be read", self.schema)).caused_by(cause))?;
            book.copies.insert(source_id(&row)?, mark);
        }
        for row in sqlx::query(select("reason, statement", "stopped_tables")).bind(&self.pipeline).fetch_all(connection).await.doing(doing)? {
            book.stopped.insert(source_id(&row)?, Stop { reason: row.try_get(2).doing(doing)?, statement: row.try_get(3).doing(doing)? });
        }
        Ok(book)
    }

    /// Moves the progress on; the transaction that this is in fails where another applier has taken over.
    pub async fn advance(&self, connection: &mut PgConnection, epoch: i64, from: Option<&Position>, to: &Position) -> std::result::Result<(), Failure> {
        let statement = format!(
            "UPDATE {} SET position = $3::text::jsonb, updated_at = pg_catalog.now() WHERE pipeline = $1 AND epoch = $2 AND position IS NOT DISTINCT FROM $4::text::jsonb",
            self.table("progress")
        );
        let from = from.map(json).transpose()?;
        let done = sqlx::query(AssertSqlSafe(statement)).bind(&self.pipeline).bind(epoch).bind(json(to)?).bind(from).execute(connection).await?;
        if done.rows_affected() == 1 { Ok(()) } else { Err(self.fenced().into()) }
    }

    /// Holds the progress row for the rest of the transaction, for writes that do not move it.
    pub async fn hold(&self, connection: &mut PgConnection, epoch: i64) -> std::result::Result<(), Failure> {
        let statement = format!("SELECT 1 FROM {} WHERE pipeline = $1 AND epoch = $2 FOR UPDATE", self.table("progress"));
        let held = sqlx::query(AssertSqlSafe(statement)).bind(&self.pipeline).bind(epoch).fetch_optional(connection).await?;
        if held.is_some() { Ok(()) } else { Err(self.fenced().into()) }
    }

    fn fenced(&self) -> Error {
        Error::fatal(format!(
            "another applier has taken over the pipeline `{}` in this target, so this one stops; let only one agent apply to it, or give each its own `pipeline`",
            self.pipeline
        ))
    }

    pub async fn keep_copy(&self, connection: &mut PgConnection, mark: &CopyMark) -> std::result::Result<(), Failure> {
        let statement = format!(
            "INSERT INTO {} (pipeline, source_schema, source_table, mark) VALUES ($1, $2, $3, $4::text::jsonb)
             ON CONFLICT (pipeline, source_schema, source_table) DO UPDATE SET mark = EXCLUDED.mark, updated_at = pg_catalog.now()",
            self.table("copies")
        );
        let text = json(mark)?;
        sqlx::query(AssertSqlSafe(statement)).bind(&self.pipeline).bind(&*mark.table.schema).bind(&*mark.table.table).bind(text).execute(connection).await?;
        Ok(())
    }

    pub async fn keep_binding(&self, connection: &mut PgConnection, source: &TableId, binding: &Binding) -> std::result::Result<(), Failure> {
        let statement = format!(
            "INSERT INTO {} (pipeline, source_schema, source_table, target_table, created, key, halted) VALUES ($1, $2, $3, $4, $5, $6, $7)
             ON CONFLICT (pipeline, source_schema, source_table)
             DO UPDATE SET target_table = EXCLUDED.target_table, created = EXCLUDED.created, key = EXCLUDED.key, halted = EXCLUDED.halted",
            self.table("tables")
        );
        sqlx::query(AssertSqlSafe(statement))
            .bind(&self.pipeline)
            .bind(&*source.schema)
            .bind(&*source.table)
            .bind(&binding.target)
            .bind(binding.created)
            .bind(&binding.key)
            .bind(binding.halted)
            .execute(connection)
            .await?;
        Ok(())
    }

    pub async fn keep_stop(&self, connection: &mut PgConnection, source: &TableId, stop: &Stop, position: Option<&Position>) -> std::result::Result<(), Failure> {
        let statement = format!(
            "INSERT INTO {} (pipeline, source_schema, source_table, reason, statement, position) VALUES ($1, $2, $3, $4, $5, $6::text::jsonb)
             ON CONFLICT (pipeline, source_schema, source_table) DO UPDATE SET reason = EXCLUDED.reason, statement = EXCLUDED.statement, position = EXCLUDED.position",
            self.table("stopped_tables")
        );
        let position = position.map(json).transpose()?;
        sqlx::query(AssertSqlSafe(statement))
            .bind(&self.pipeline)
            .bind(&*source.schema)
            .bind(&*source.table)
            .bind(&stop.reason)
            .bind(&stop.statement)
            .bind(position)
            .execute(connection)
            .await?;
        Ok(())
    }

    /// Forgets a table in one of `copies`, `tables`, `stopped_tables`.
    pub async fn forget(&self, connection: &mut PgConnection, from: &str, source: &TableId) -> std::result::Result<(), Failure> {
        let statement = format!("DELETE FROM {} WHERE pipeline = $1 AND source_schema = $2 AND source_table = $3", self.table(from));
        sqlx::query(AssertSqlSafe(statement)).bind(&self.pipeline).bind(&*source.schema).bind(&*source.table).execute(connection).await?;
        Ok(())
    }

    pub async fn log(&self, connection: &mut PgConnection, entry: &Entry<'_>) -> std::result::Result<(), Failure> {
        let statement =
            format!("INSERT INTO {} (pipeline, table_name, operation, status, record_count, message) VALUES ($1, $2, $3, $4, $5, $6)", self.table("migration_log"));
        sqlx::query(AssertSqlSafe(statement))
            .bind(&self.pipeline)
            .bind(entry.table.map_or_else(String::new, ToString::to_string))
            .bind(entry.operation)
            .bind(entry.status)
            .bind(i64::try_from(entry.rows).unwrap_or(i64::MAX))
            .bind(entry.message.replace('\0', ""))
            .execute(connection)
            .await?;
        Ok(())
    }

    pub async fn read_log(&self, connection: &mut PgConnection, limit: u32, table: Option<&TableId>) -> Result<Vec<LogEntry>> {
        let doing = "reading the migration log";
        let statement = format!(
            "SELECT pg_catalog.to_char(at, 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), table_name, operation, status, record_count, message FROM {}
              WHERE pipeline = $1 AND ($2::text IS NULL OR table_name = $2) ORDER BY id DESC LIMIT $3",
            self.table("migration_log")
        );
        let rows = sqlx::query(AssertSqlSafe(statement))
            .bind(&self.pipeline)
            .bind(table.map(ToString::to_string))
            .bind(i64::from(limit))
            .fetch_all(connection)
            .await
            .doing(doing)?;
        rows.iter()
            .map(|row| {
                Ok(LogEntry {
                    timestamp: row.try_get(0)?,
                    table_name: row.try_get(1)?,
                    operation: row.try_get(2)?,
                    status: row.try_get(3)?,
                    record_count: u64::try_from(row.try_get::<i64, _>(4)?).unwrap_or(0),
                    message: row.try_get(5)?,
                })
            })
            .collect::<std::result::Result<_, sqlx::Error>>()
            .doing(doing)
    }

    /// The statement by which a person lets a stopped table go on.
    pub fn resume_statement(&self, source: &TableId) -> String {
        use crate::quote::literal;
        format!(
            "DELETE FROM {} WHERE pipeline = {} AND source_schema = {} AND source_table = {}",
            self.table("stopped_tables"),
            literal(&self.pipeline),
            literal(&source.schema),
            literal(&source.table)
        )
    }
}

/// What goes into the migration log.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    pub table: Option<&'a TableId>,
    pub operation: &'static str,
    pub status: &'static str,
    pub rows: u64,
    pub message: &'a str,
}

fn source_id(row: &sqlx::postgres::PgRow) -> Result<TableId> {
    let doing = "reading the applier's state";
    Ok(TableId::new(row.try_get::<String, _>(0).doing(doing)?, row.try_get::<String, _>(1).doing(doing)?))
}

fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|cause| Error::fatal("the applier's state cannot be written as JSON").caused_by(cause))
}
