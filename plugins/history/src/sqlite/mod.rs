//! `sqlite-history`: history, counters and position in one SQLite file of the data folder.
//!
//! ```text
//! history.sqlite   the truth; one write transaction per batch, write-ahead log beside it
//! history.lock     locked while an agent lives
//! history.secret   under which keys are hashed; lost: equal keys hash to something else from then on, nothing more
//! ```
//!
//! Exactness. A write is a compare-and-set on (epoch, position): whoever opens the file takes a new epoch, and an agent whose epoch is old
//! writes nothing more. What a batch brings again is found by its transactions and counted as duplicates, so that at every commit
//! `records = changes + duplicates + control` (the file itself refuses to hold anything else).
//! After any failed or cancelled write the file is opened again and asked where it stands; nothing in memory is believed.

mod error;
mod file;
mod reader;
#[cfg(test)]
mod tests;
mod write;

use std::path::PathBuf;

use async_trait::async_trait;
use plumbline_sdk::plugin::{HistoryReader, Remembered, Verified};
use plumbline_sdk::{Batch, Error, Event, History, Plugin, Position, Result, Sink, TableId};
use schemars::JsonSchema;
use serde::Deserialize;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::folder;
use crate::key_hash::KeyHasher;
use crate::tally::{Tally, newest, tally};
use error::classify;
use file::{DataLock, Store, unsigned};
use write::{Write, table_id};

/// Settings of `sqlite-history`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SqliteHistoryConfig {
    /// The folder that holds the history; created where it is not there.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    /// The name of the pipeline whose history this is. Part of every trace id; a file belongs to one pipeline.
    #[serde(default = "default_pipeline")]
    pub pipeline: String,
    /// How many of the newest events are kept. The counters count all of them whatever this says.
    #[serde(default = "default_keep_events")]
    pub keep_events: u64,
    /// How many of the newest resolved findings are kept. Open ones are kept all.
    #[serde(default = "default_keep_findings")]
    pub keep_findings: u64,
    /// What a written batch survives.
    #[serde(default)]
    pub durability: Durability,
}

/// What a written batch survives. Counters are exact in both cases: position and counters go back together, and the line reads again
/// what was lost, as long as the source still has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The power going away: one fsync per batch (SQLite's `synchronous = FULL`).
    #[default]
    PowerLoss,
    /// The process being killed. After a power loss the newest batches, up to the last checkpoint of the log, may have to be read again
    /// (SQLite's `synchronous = NORMAL`).
    ProcessDeath,
}

fn default_data_dir() -> PathBuf {
    "plumbline-data".into()
}
fn default_pipeline() -> String {
    "default".into()
}
fn default_keep_events() -> u64 {
    10_000
}
fn default_keep_findings() -> u64 {
    10_000
}

impl Default for SqliteHistoryConfig {
    fn default() -> Self {
        Self {
            data_dir: default_data_dir(),
            pipeline: default_pipeline(),
            keep_events: default_keep_events(),
            keep_findings: default_keep_findings(),
            durability: Durability::default(),
        }
    }
}

/// The history of one pipeline in a SQLite file.
pub struct SqliteHistory {
    config: SqliteHistoryConfig,
    lock: Option<DataLock>,
    /// The epoch taken at the first connect, kept over reconnects.
    epoch: Option<i64>,
    hasher: Option<KeyHasher>,
    /// None: not connected, or a write did not come to its end.
    store: Option<Store>,
}

impl Plugin for SqliteHistory {
    const NAME: &'static str = "sqlite-history";
    type Config = SqliteHistoryConfig;

    fn new(config: Self::Config) -> Result<Self> {
        if config.pipeline.is_empty() {
            return Err(Error::config("the pipeline's name is empty: `pipeline` of `sqlite-history` wants one, as `default`"));
        }
        if config.data_dir.as_os_str().is_empty() {
            return Err(Error::config("the data folder is empty: `PLUMBLINE_DATA_DIR` wants a path, as `plumbline-data`"));
        }
        Ok(Self { config, lock: None, epoch: None, hasher: None, store: None })
    }
}

impl SqliteHistory {
    fn failed(&self, error: sqlx::Error) -> Error {
        classify(&file::path(&self.config), error)
    }

    /// The open store, opened again where the last write failed. Taken out: it comes back only by a write that succeeds.
    async fn take_store(&mut self) -> Result<Store> {
        match self.store.take() {
            Some(store) => Ok(store),
            None => {
                self.connect().await?;
                self.store.take().ok_or_else(|| Error::disconnected("the history is not open"))
            }
        }
    }

    fn plan<'a>(&self, store: &Store, batch: &'a Batch, hasher: &mut KeyHasher) -> Result<Write<'a>> {
        let (tally, events) = if batch.copy.is_some() || batch.position.is_none() {
            (Tally::default(), Vec::new())
        } else {
            let stored = store.position.as_ref();
            let tally = tally(batch, stored)?;
            let events = newest(batch, stored, &tally, store.changes, self.config.keep_events, &self.config.pipeline, hasher);
            (tally, events)
        };
        let news = if batch.copy.is_some() { Vec::new() } else { batch.events.iter().filter(|event| is_news(event)).collect() };
        Ok(Write {
            tally,
            events,
            copy: batch.copy.as_ref(),
            news,
            now_micros: jiff::Timestamp::now().as_microsecond(),
            keep_events: self.config.keep_events,
            keep_findings: self.config.keep_findings,
        })
    }
}

fn is_news(event: &Event) -> bool {
    matches!(event, Event::TableFound(_) | Event::TableChanged(_) | Event::TableGone(_) | Event::Finding(_))
}

#[async_trait]
impl Sink for SqliteHistory {
    async fn connect(&mut self) -> Result<()> {
        self.store = None;
        if self.lock.is_none() {
            self.lock = Some(file::lock(&self.config)?);
        }
        let store = file::open(&self.config, self.epoch).await?;
        self.epoch = Some(store.epoch);
        if self.hasher.is_none() {
            self.hasher = Some(KeyHasher::new(&folder::secret(&self.config.data_dir)?));
        }
        self.store = Some(store);
        Ok(())
    }

    async fn position(&mut self) -> Result<Option<Position>> {
        let store = self.take_store().await?;
        let position = store.position.clone();
        self.store = Some(store);
        Ok(position)
    }

    async fn write(&mut self, batch: &Batch) -> Result<()> {
        let mut store = self.take_store().await?;
        let mut hasher = self.hasher.take().ok_or_else(|| Error::disconnected("the history is not open"))?;
        let plan = self.plan(&store, batch, &mut hasher);
        self.hasher = Some(hasher);
        let plan = plan?;
        let nothing = plan.tally == Tally::default() && plan.copy.is_none() && plan.news.is_empty();
        if !nothing {
            write::write(&mut store, &file::path(&self.config), plan).await?;
        }
        self.store = Some(store);
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        use sqlx::Connection;
        if let Some(store) = self.store.take() {
            store.conn.close().await.map_err(|error| self.failed(error))?;
        }
        self.lock = None;
        self.epoch = None;
        Ok(())
    }
}

#[async_trait]
impl History for SqliteHistory {
    async fn remembered(&mut self) -> Result<Remembered> {
        let mut store = self.take_store().await?;
        let sums = sqlx::query("SELECT records, duplicates, control FROM line")
            .fetch_one(&mut store.conn)
            .await
            .map_err(|error| self.failed(error))?;
        let rows = sqlx::query(
            "SELECT schema_name, table_name, gone, reads, inserts, updates, deletes, truncates, verified_position, verified_micros, verified_rows
             FROM tables ORDER BY schema_name, table_name",
        )
        .fetch_all(&mut store.conn)
        .await
        .map_err(|error| self.failed(error))?;
        let mut remembered = Remembered {
            position: store.position.clone(),
            records: unsigned(sums.get(0)),
            duplicates: unsigned(sums.get(1)),
            control: unsigned(sums.get(2)),
            ..Remembered::default()
        };
        for row in &rows {
            remember_table(&mut remembered, row).map_err(|error| self.failed(error))?;
        }
        self.store = Some(store);
        Ok(remembered)
    }

    async fn keep_verified(&mut self, table: &TableId, verified: &Verified) -> Result<()> {
        let mut store = self.take_store().await?;
        let path = file::path(&self.config);
        let id = table_id(&mut store.conn, table).await.map_err(|error| classify(&path, error))?;
        let done = sqlx::query(
            "UPDATE tables SET verified_position = ?, verified_micros = ?, verified_rows = ?
             WHERE id = ? AND (SELECT epoch FROM line) = ?",
        )
        .bind(&verified.position)
        .bind(verified.micros)
        .bind(file::signed(verified.rows))
        .bind(id)
        .bind(store.epoch)
        .execute(&mut store.conn)
        .await
        .map_err(|error| classify(&path, error))?;
        if done.rows_affected() != 1 {
            return Err(file::fenced(&path));
        }
        self.store = Some(store);
        Ok(())
    }

    fn reader(&self) -> Box<dyn HistoryReader> {
        Box::new(reader::Reader::new(&self.config))
    }
}

fn remember_table(remembered: &mut Remembered, row: &SqliteRow) -> sqlx::Result<()> {
    let table = TableId::new(row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?);
    let mut counts = [0; 5];
    for (i, count) in counts.iter_mut().enumerate() {
        *count = unsigned(row.try_get(3 + i)?);
    }
    if row.try_get(2)? {
        remembered.gone.push(table.clone());
    }
    if let Some(position) = row.try_get(8)? {
        let (micros, rows) = (row.try_get(9)?, unsigned(row.try_get(10)?));
        remembered.verified.push((table.clone(), Verified { position, micros, rows }));
    }
    remembered.counters.push((table, counts));
    Ok(())
}
