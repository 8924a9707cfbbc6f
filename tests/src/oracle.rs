//! What the server's own binlog says was done, counted by mysql_async's decoder and not by ours.

use std::collections::BTreeMap;

use futures::StreamExt;
use mysql_async::BinlogStreamRequest;
use mysql_async::binlog::events::{EventData, RowsEventData};
use mysql_async::prelude::Queryable;

use crate::servers::Pair;

/// Rows by operation: insert, update, delete, and TRUNCATE statements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Rows inserted.
    pub inserts: u64,
    /// Rows updated.
    pub updates: u64,
    /// Rows deleted.
    pub deletes: u64,
    /// TRUNCATE statements.
    pub truncates: u64,
}

impl Counts {
    /// Inserts, updates and deletes together.
    pub fn rows(self) -> u64 {
        self.inserts + self.updates + self.deletes
    }
}

/// A place in the binlog.
#[derive(Debug, Clone)]
pub struct Place {
    file: String,
    position: u64,
}

/// The end of the binlog now.
///
/// # Panics
/// Where the server does not say.
pub async fn end_of_binlog(pair: &Pair) -> Place {
    let mut conn = pair.source().await;
    let row: mysql_async::Row = conn.query_first("SHOW BINARY LOG STATUS").await.expect("allowed").expect("a binlog");
    let place = Place { file: row.get(0).expect("a file"), position: row.get(1).expect("a position") };
    let _ = conn.disconnect().await;
    place
}

/// What was done in the pair's database from there to the end, by table.
///
/// # Panics
/// Where the binlog cannot be read.
pub async fn count(pair: &Pair, from: &Place) -> BTreeMap<String, Counts> {
    let conn = pair.source().await;
    let request = BinlogStreamRequest::new(4_000_000 + u32::from(rand::random::<u16>()))
        .with_non_blocking()
        .with_filename(from.file.as_bytes())
        .with_pos(from.position);
    let mut stream = conn.get_binlog_stream(request).await.expect("the binlog");
    let mut counts: BTreeMap<String, Counts> = BTreeMap::new();
    while let Some(event) = stream.next().await {
        let event = event.expect("an event");
        match event.read_data().expect("an event of a known kind") {
            Some(EventData::RowsEvent(rows)) => {
                let map = stream.get_tme(rows.table_id()).expect("a table map");
                if map.database_name() != pair.name {
                    continue;
                }
                let table = counts.entry(map.table_name().into_owned()).or_default();
                let mut number = 0;
                for row in rows.rows(map) {
                    row.expect("a row that can be decoded");
                    number += 1;
                }
                match rows {
                    RowsEventData::WriteRowsEvent(_) | RowsEventData::WriteRowsEventV1(_) => table.inserts += number,
                    RowsEventData::UpdateRowsEvent(_) | RowsEventData::UpdateRowsEventV1(_) | RowsEventData::PartialUpdateRowsEvent(_) => table.updates += number,
                    RowsEventData::DeleteRowsEvent(_) | RowsEventData::DeleteRowsEventV1(_) => table.deletes += number,
                }
            }
            Some(EventData::QueryEvent(query)) if query.schema() == pair.name => {
                let text = query.query();
                if let Some(name) = text.trim().strip_prefix("TRUNCATE TABLE ") {
                    counts.entry(name.trim_matches('`').to_owned()).or_default().truncates += 1;
                }
            }
            _ => {}
        }
    }
    counts
}
