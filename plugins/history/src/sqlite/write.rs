//! One batch, one transaction.

use std::path::Path;

use plumbline_sdk::{CopyMark, Error, Event, Finding, Position, Result, TableId};
use sqlx::sqlite::Sqlite;
use sqlx::{AssertSqlSafe, Connection, SqliteConnection, Transaction};

use super::error::classify;
use super::file::{Store, fenced, signed};
use crate::tally::{KeptEvent, Tally};

/// All that one batch changes.
pub(super) struct Write<'a> {
    pub tally: Tally,
    /// Oldest first, numbered without a gap.
    pub events: Vec<KeptEvent>,
    pub copy: Option<&'a CopyMark>,
    /// Tables found and gone, findings; others are skipped.
    pub news: Vec<&'a Event>,
    pub now_micros: i64,
    pub keep_events: u64,
    pub keep_findings: u64,
}

/// Writes it whole or not at all. On an error the store must be opened again: what the file then says is the truth.
pub(super) async fn write(store: &mut Store, path: &Path, write: Write<'_>) -> Result<()> {
    let failed = |error| classify(path, error);
    let position = match &write.tally.position {
        Some(position) => Some(to_text(position)?),
        None => store.stored.clone(),
    };
    let mut tx = store.conn.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    if !advance(&mut tx, store.epoch, store.stored.as_deref(), position.as_deref(), &write.tally).await.map_err(failed)? {
        let epoch: i64 = sqlx::query_scalar("SELECT epoch FROM line").fetch_one(&mut *tx).await.map_err(failed)?;
        return Err(if epoch == store.epoch { rewound(path) } else { fenced(path) });
    }
    for (table, counts) in &write.tally.counts {
        let mut add = sqlx::query(
            "INSERT INTO tables (schema_name, table_name, reads, inserts, updates, deletes, truncates) VALUES (?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (schema_name, table_name) DO UPDATE SET reads = reads + excluded.reads, inserts = inserts + excluded.inserts,
                updates = updates + excluded.updates, deletes = deletes + excluded.deletes, truncates = truncates + excluded.truncates",
        )
        .bind(&*table.schema)
        .bind(&*table.table);
        for count in counts {
            add = add.bind(signed(*count));
        }
        add.execute(&mut *tx).await.map_err(failed)?;
    }
    if let Some(copy) = write.copy {
        sqlx::query(
            "INSERT INTO tables (schema_name, table_name, reads) VALUES (?, ?, ?)
             ON CONFLICT (schema_name, table_name) DO UPDATE SET reads = excluded.reads",
        )
        .bind(&*copy.table.schema)
        .bind(&*copy.table.table)
        .bind(signed(copy.rows_done))
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
    }
    keep_events(&mut tx, &write.events, write.keep_events).await.map_err(failed)?;
    let mut findings = false;
    for event in write.news {
        match event {
            Event::TableFound(table) | Event::TableChanged(table) => set_gone(&mut tx, &table.id, false).await.map_err(failed)?,
            Event::TableGone(table) => {
                set_gone(&mut tx, table, true).await.map_err(failed)?;
                resolve_all(&mut tx, table, write.now_micros).await.map_err(failed)?;
            }
            Event::Finding(finding) => {
                keep_finding(&mut tx, finding, write.now_micros).await.map_err(failed)?;
                findings = true;
            }
            Event::Change(_) | Event::Schema(_) | Event::Health(_) => {}
        }
    }
    if findings {
        trim_findings(&mut tx, write.keep_findings).await.map_err(failed)?;
    }
    tx.commit().await.map_err(failed)?;
    store.stored = position;
    store.changes += write.tally.changes;
    if write.tally.position.is_some() {
        store.position = write.tally.position;
    }
    Ok(())
}

fn to_text(position: &Position) -> Result<String> {
    serde_json::to_string(position).map_err(|error| Error::fatal("a position cannot be written as JSON").caused_by(error))
}

/// Something that is not an agent changed the file under us: a restored copy, a hand.
fn rewound(path: &Path) -> Error {
    Error::fatal(format!(
        "the history `{}` does not stand where this agent left it: was the file replaced or changed while the agent ran? start the agent again, it goes on from what the file says",
        path.display()
    ))
}

/// The compare-and-set. False: the line is not where we left it, or not ours.
async fn advance(
    tx: &mut Transaction<'_, Sqlite>,
    epoch: i64,
    before: Option<&str>,
    after: Option<&str>,
    tally: &Tally,
) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "UPDATE line SET position = ?, records = records + ?, changes = changes + ?, duplicates = duplicates + ?, control = control + ?,
            transactions = transactions + ? WHERE epoch = ? AND position IS ?",
    )
    .bind(after)
    .bind(signed(tally.records))
    .bind(signed(tally.changes))
    .bind(signed(tally.duplicates))
    .bind(signed(tally.control))
    .bind(signed(tally.transactions))
    .bind(epoch)
    .bind(before)
    .execute(&mut **tx)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Rows per statement, largest first: few enough shapes that each is prepared once, large enough that a row costs little.
const ROWS_PER_INSERT: [usize; 4] = [512, 64, 8, 1];

async fn keep_events(tx: &mut Transaction<'_, Sqlite>, events: &[KeptEvent], keep: u64) -> sqlx::Result<()> {
    let Some(last) = events.last() else { return Ok(()) };
    let mut ids: Vec<(&TableId, i64)> = Vec::new();
    for event in events {
        if !ids.iter().any(|(table, _)| **table == event.table) {
            ids.push((&event.table, table_id(tx, &event.table).await?));
        }
    }
    let mut rest = events;
    for size in ROWS_PER_INSERT {
        while rest.len() >= size {
            let (rows, after) = rest.split_at(size);
            insert_events(tx, rows, &ids).await?;
            rest = after;
        }
    }
    sqlx::query("DELETE FROM events WHERE id <= ?").bind(signed(last.number.saturating_sub(keep))).execute(&mut **tx).await?;
    Ok(())
}

async fn insert_events(tx: &mut Transaction<'_, Sqlite>, rows: &[KeptEvent], ids: &[(&TableId, i64)]) -> sqlx::Result<()> {
    let values = vec!["(?, ?, ?, ?, ?, ?, ?, ?)"; rows.len()].join(", ");
    let mut insert = sqlx::query(AssertSqlSafe(format!("INSERT INTO events VALUES {values}")));
    for row in rows {
        let id = ids.iter().find(|(table, _)| **table == row.table).map(|(_, id)| *id);
        insert = insert
            .bind(signed(row.number))
            .bind(id)
            .bind(row.op.index() as i64)
            .bind(row.commit_micros)
            .bind(&*row.txn)
            .bind(signed(row.ordinal))
            .bind(&row.trace_id[..])
            .bind(&*row.key_hash);
    }
    insert.execute(&mut **tx).await?;
    Ok(())
}

/// The number of a table; it gets one where it has none.
pub(super) async fn table_id(conn: &mut SqliteConnection, table: &TableId) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "INSERT INTO tables (schema_name, table_name) VALUES (?, ?) ON CONFLICT (schema_name, table_name) DO UPDATE SET gone = gone RETURNING id",
    )
    .bind(&*table.schema)
    .bind(&*table.table)
    .fetch_one(conn)
    .await
}

async fn set_gone(tx: &mut Transaction<'_, Sqlite>, table: &TableId, gone: bool) -> sqlx::Result<()> {
    let id = table_id(tx, table).await?;
    sqlx::query("UPDATE tables SET gone = ? WHERE id = ?").bind(gone).bind(id).execute(&mut **tx).await?;
    Ok(())
}

/// A table that is not there has no differences.
async fn resolve_all(tx: &mut Transaction<'_, Sqlite>, table: &TableId, now: i64) -> sqlx::Result<()> {
    let id = table_id(tx, table).await?;
    sqlx::query("UPDATE findings SET resolved_micros = ? WHERE table_id = ? AND resolved_micros IS NULL")
        .bind(now)
        .bind(id)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn keep_finding(tx: &mut Transaction<'_, Sqlite>, finding: &Finding, now: i64) -> sqlx::Result<()> {
    if finding.resolved {
        sqlx::query("UPDATE findings SET resolved_micros = ?, last_seen_micros = ? WHERE identity = ? AND resolved_micros IS NULL")
            .bind(now)
            .bind(now)
            .bind(finding.identity())
            .execute(&mut **tx)
            .await?;
        return Ok(());
    }
    let id = table_id(tx, &finding.table).await?;
    let text = serde_json::to_string(finding).map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query(
        "INSERT INTO findings (table_id, identity, verdict, finding, found_micros, last_seen_micros) VALUES (?, ?, ?, ?, ?, ?)
         ON CONFLICT (identity) WHERE resolved_micros IS NULL
         DO UPDATE SET verdict = excluded.verdict, finding = excluded.finding, last_seen_micros = excluded.last_seen_micros",
    )
    .bind(id)
    .bind(finding.identity())
    .bind(finding.verdict.as_str())
    .bind(text)
    .bind(now)
    .bind(now)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// An open difference is never forgotten; of the resolved ones the newest `keep` stay.
async fn trim_findings(tx: &mut Transaction<'_, Sqlite>, keep: u64) -> sqlx::Result<()> {
    sqlx::query(
        "DELETE FROM findings WHERE resolved_micros IS NOT NULL AND id <=
            (SELECT id FROM findings WHERE resolved_micros IS NOT NULL ORDER BY id DESC LIMIT 1 OFFSET ?)",
    )
    .bind(signed(keep))
    .execute(&mut **tx)
    .await?;
    Ok(())
}
