//! The file: opened by one agent at a time, of a format that this version knows, under an epoch of its own.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use plumbline_sdk::{Error, Position, Result};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection, Row, SqliteConnection};

use super::error::classify;
use super::{Durability, SqliteHistoryConfig};
use crate::folder;

/// `MIGRATIONS[n]` leads from format `n` to `n + 1`; each runs in one transaction together with the new number.
const MIGRATIONS: [&str; 1] = [include_str!("v1.sql")];

/// The format that this version writes.
pub(super) const FORMAT: i64 = MIGRATIONS.len() as i64;

/// The file name of a history in its data folder.
pub(super) const FILE: &str = "history.sqlite";

/// An open history and what this agent knows of it.
#[derive(Debug)]
pub(super) struct Store {
    pub conn: SqliteConnection,
    pub epoch: i64,
    /// The position as stored, to compare with.
    pub stored: Option<String>,
    pub position: Option<Position>,
    /// Changes since the beginning.
    pub changes: u64,
}

/// Held while the agent lives; the system drops it with the process, however that ends.
///
/// It is on a file of its own: opening and closing the database file a second time would drop SQLite's own locks on it.
#[derive(Debug)]
pub(super) struct DataLock {
    _file: File,
}

pub(super) fn path(config: &SqliteHistoryConfig) -> PathBuf {
    config.data_dir.join(FILE)
}

/// Takes the data folder for this process.
pub(super) fn lock(config: &SqliteHistoryConfig) -> Result<DataLock> {
    folder::create(&config.data_dir)?;
    let path = config.data_dir.join("history.lock");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .map_err(|error| folder::refused(&config.data_dir, error, "cannot be written"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            return Err(Error::config(format!(
                "another agent (process {}) holds the history in `{}`: stop it, or give this one a folder of its own in `PLUMBLINE_DATA_DIR`",
                pid.trim(),
                config.data_dir.display()
            )));
        }
        // A file system without locks: the epoch still fences one of two agents, only later.
        Err(TryLockError::Error(error)) => tracing::warn!(file = %path.display(), %error, "the data folder cannot be locked"),
    }
    // Only for the message above. A full disk is no reason to stop here: the write of the history says it better.
    let _ = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
    Ok(DataLock { _file: file })
}

fn options(config: &SqliteHistoryConfig) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(path(config)).busy_timeout(Duration::from_secs(5)).foreign_keys(false)
}

/// How a reader opens the file: it never writes, never creates.
pub(super) fn reader_options(config: &SqliteHistoryConfig) -> SqliteConnectOptions {
    options(config).read_only(true)
}

/// Opens the history, creates it, or brings it to this version's format. `epoch`: taken earlier by this agent; None: takes a new one.
pub(super) async fn open(config: &SqliteHistoryConfig, epoch: Option<i64>) -> Result<Store> {
    let path = path(config);
    let options = options(config)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(match config.durability {
            Durability::PowerLoss => SqliteSynchronous::Full,
            Durability::ProcessDeath => SqliteSynchronous::Normal,
        })
        // A large batch makes the log large once; give the space back afterwards.
        .pragma("journal_size_limit", "67108864");
    let mut conn = SqliteConnection::connect_with(&options).await.map_err(|error| classify(&path, error))?;
    migrate(&mut conn, config).await?;
    let epoch = claim(&mut conn, config, epoch).await?;
    let row = sqlx::query("SELECT position, changes FROM line").fetch_one(&mut conn).await.map_err(|error| classify(&path, error))?;
    let stored: Option<String> = row.get(0);
    let position = stored.as_deref().map(serde_json::from_str).transpose().map_err(|error| {
        Error::fatal(format!("the position in the history `{}` cannot be read: bring the file back from a backup", path.display())).caused_by(error)
    })?;
    Ok(Store { conn, epoch, stored, position, changes: unsigned(row.get(1)) })
}

/// Refuses a format newer than [`FORMAT`].
pub(super) fn check_format(path: &Path, format: i64) -> Result<()> {
    if format > FORMAT {
        return Err(Error::config(format!(
            "the history `{}` was written by a newer version (format {format}, this one knows up to {FORMAT}): run that version, or move the file away to count from zero",
            path.display()
        )));
    }
    Ok(())
}

async fn migrate(conn: &mut SqliteConnection, config: &SqliteHistoryConfig) -> Result<()> {
    let path = path(config);
    let failed = |error| classify(&path, error);
    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    let format: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *tx).await.map_err(failed)?;
    check_format(&path, format)?;
    let (Ok(from), false) = (usize::try_from(format), format == FORMAT) else {
        return tx.rollback().await.map_err(failed);
    };
    if from == 0 {
        let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema").fetch_one(&mut *tx).await.map_err(failed)?;
        if tables > 0 {
            return Err(Error::config(format!(
                "`{}` is a database of another program: name another folder in `PLUMBLINE_DATA_DIR`",
                path.display()
            )));
        }
    }
    for step in &MIGRATIONS[from..] {
        sqlx::raw_sql(*step).execute(&mut *tx).await.map_err(failed)?;
    }
    sqlx::raw_sql(AssertSqlSafe(format!("PRAGMA user_version = {FORMAT}"))).execute(&mut *tx).await.map_err(failed)?;
    tx.commit().await.map_err(failed)?;
    tracing::info!(file = %path.display(), from = format, to = FORMAT, "history brought to this version's format");
    Ok(())
}

/// Makes the file this agent's: of its pipeline, under an epoch that no other agent has.
async fn claim(conn: &mut SqliteConnection, config: &SqliteHistoryConfig, epoch: Option<i64>) -> Result<i64> {
    let path = path(config);
    let failed = |error| classify(&path, error);
    let mut tx = conn.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    sqlx::query("INSERT INTO meta VALUES ('store', lower(hex(randomblob(16)))), ('pipeline', ?) ON CONFLICT DO NOTHING")
        .bind(&config.pipeline)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
    let pipeline: String =
        sqlx::query_scalar("SELECT value FROM meta WHERE name = 'pipeline'").fetch_one(&mut *tx).await.map_err(failed)?;
    if pipeline != config.pipeline {
        return Err(Error::config(format!(
            "the history `{}` belongs to the pipeline `{pipeline}`, not to `{}`: give each pipeline a folder of its own in `PLUMBLINE_DATA_DIR`",
            path.display(),
            config.pipeline
        )));
    }
    let current: i64 = sqlx::query_scalar("SELECT epoch FROM line").fetch_one(&mut *tx).await.map_err(failed)?;
    if let Some(epoch) = epoch {
        return if epoch == current { Ok(epoch) } else { Err(fenced(&path)) };
    }
    sqlx::query("UPDATE line SET epoch = ?").bind(current + 1).execute(&mut *tx).await.map_err(failed)?;
    tx.commit().await.map_err(failed)?;
    Ok(current + 1)
}

/// Another agent has taken the file.
pub(super) fn fenced(path: &Path) -> Error {
    Error::fatal(format!(
        "another agent has taken over the history `{}`: this one writes nothing more; stop one of the two, or give it a folder of its own in `PLUMBLINE_DATA_DIR`",
        path.display()
    ))
}

/// SQLite's integers are signed; ours never get near the sign.
pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// See [`unsigned`].
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
