//! The asking side: connections of its own that only read, so that a question never waits for the line nor the line for it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use plumbline_sdk::plugin::{FindingQuery, HistoryReader, StoredEvent, StoredFinding};
use plumbline_sdk::{Error, Op, Result, TableId, Verdict};
use sqlx::sqlite::{SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{Row, SqliteConnection};

use super::SqliteHistoryConfig;
use super::error::classify;
use super::file::{self, check_format, signed, unsigned};

/// Opens at the first question; may be asked before the history was ever written.
pub(super) struct Reader {
    pool: SqlitePool,
    path: PathBuf,
}

impl Reader {
    pub(super) fn new(config: &SqliteHistoryConfig) -> Self {
        let pool = SqlitePoolOptions::new()
            .min_connections(0)
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(5))
            .connect_lazy_with(file::reader_options(config));
        Self { pool, path: file::path(config) }
    }

    fn failed(&self, error: sqlx::Error) -> Error {
        classify(&self.path, error)
    }

    /// A connection to a file of a format we know; None: there is no history yet.
    async fn open(&self) -> Result<Option<sqlx::pool::PoolConnection<sqlx::Sqlite>>> {
        if !self.path.exists() {
            return Ok(None);
        }
        let mut conn = self.pool.acquire().await.map_err(|error| self.failed(error))?;
        Ok(check(&mut conn, &self.path).await?.then_some(conn))
    }
}

/// Whether the file has its tables already.
async fn check(conn: &mut SqliteConnection, path: &Path) -> Result<bool> {
    let format: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(conn).await.map_err(|error| classify(path, error))?;
    check_format(path, format)?;
    Ok(format == file::FORMAT)
}

#[async_trait]
impl HistoryReader for Reader {
    async fn events(&self, limit: u32, before: Option<u64>) -> Result<Vec<StoredEvent>> {
        let Some(mut conn) = self.open().await? else { return Ok(Vec::new()) };
        let rows = sqlx::query(
            "SELECT e.id, t.schema_name, t.table_name, e.op, e.commit_micros, e.txn, e.ordinal, lower(hex(e.trace_id)), e.key_hash
             FROM events e JOIN tables t ON t.id = e.table_id WHERE e.id < ? ORDER BY e.id DESC LIMIT ?",
        )
        .bind(before.map_or(i64::MAX, signed))
        .bind(i64::from(limit))
        .fetch_all(&mut *conn)
        .await
        .map_err(|error| self.failed(error))?;
        rows.iter().map(stored_event).collect::<sqlx::Result<_>>().map_err(|error| self.failed(error))
    }

    async fn findings(&self, query: &FindingQuery) -> Result<Vec<StoredFinding>> {
        let Some(mut conn) = self.open().await? else { return Ok(Vec::new()) };
        let (schema, table) = query.table.as_ref().map(|id| (&*id.schema, &*id.table)).unzip();
        let rows = sqlx::query(
            "SELECT id, finding, found_micros, last_seen_micros, resolved_micros FROM findings
             WHERE id < ?1 AND (?2 IS NULL OR (resolved_micros IS NULL) = ?2)
               AND (?3 IS NULL OR table_id = (SELECT id FROM tables WHERE schema_name = ?3 AND table_name = ?4))
             ORDER BY id DESC LIMIT ?5",
        )
        .bind(query.before.map_or(i64::MAX, signed))
        .bind(query.open)
        .bind(schema)
        .bind(table)
        .bind(i64::from(query.limit))
        .fetch_all(&mut *conn)
        .await
        .map_err(|error| self.failed(error))?;
        rows.iter().map(stored_finding).collect::<sqlx::Result<_>>().map_err(|error| self.failed(error))
    }

    async fn open_findings(&self) -> Result<Vec<(TableId, Verdict, u64)>> {
        let Some(mut conn) = self.open().await? else { return Ok(Vec::new()) };
        let rows = sqlx::query(
            "SELECT t.schema_name, t.table_name, f.verdict, count(*) FROM findings f JOIN tables t ON t.id = f.table_id
             WHERE f.resolved_micros IS NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
        )
        .fetch_all(&mut *conn)
        .await
        .map_err(|error| self.failed(error))?;
        let open = |row: &SqliteRow| {
            let verdict: String = row.try_get(2)?;
            let verdict = match verdict.as_str() {
                "missing" => Verdict::Missing,
                "extra" => Verdict::Extra,
                _ => Verdict::Changed,
            };
            Ok((TableId::new(row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?), verdict, unsigned(row.try_get(3)?)))
        };
        rows.iter().map(open).collect::<sqlx::Result<_>>().map_err(|error| self.failed(error))
    }
}

fn stored_event(row: &SqliteRow) -> sqlx::Result<StoredEvent> {
    let op = usize::try_from(row.try_get::<i64, _>(3)?).ok().and_then(|index| Op::ALL.get(index).copied());
    Ok(StoredEvent {
        id: unsigned(row.try_get(0)?),
        table: format!("{}.{}", row.try_get::<String, _>(1)?, row.try_get::<String, _>(2)?),
        operation: op.ok_or_else(|| sqlx::Error::Decode("an event has an operation that is none".into()))?,
        commit_micros: row.try_get(4)?,
        position: row.try_get(5)?,
        ordinal: unsigned(row.try_get(6)?),
        trace_id: row.try_get(7)?,
        key_hash: row.try_get(8)?,
    })
}

fn stored_finding(row: &SqliteRow) -> sqlx::Result<StoredFinding> {
    let text: String = row.try_get(1)?;
    Ok(StoredFinding {
        id: unsigned(row.try_get(0)?),
        finding: serde_json::from_str(&text).map_err(|error| sqlx::Error::Decode(error.into()))?,
        found_micros: row.try_get(2)?,
        last_seen_micros: row.try_get(3)?,
        resolved_micros: row.try_get(4)?,
    })
}
