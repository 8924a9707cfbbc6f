//! What flows along the line.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::finding::Finding;
use crate::position::{Coordinate, Position, TxnId};
use crate::table::{TableId, TableSchema};
use crate::value::Row;

/// What happened to a row, or to all rows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    /// An existing row was read (`read` to users). Not a change.
    #[serde(rename = "read")]
    Snapshot,
    /// A row was inserted.
    Insert,
    /// A row was updated; its key may have changed.
    Update,
    /// A row was deleted.
    Delete,
    /// All rows were removed at once.
    Truncate,
}

impl Op {
    /// Every op, in the order in which counters are shown.
    pub const ALL: [Self; 5] = [Self::Snapshot, Self::Insert, Self::Update, Self::Delete, Self::Truncate];
    /// The word that users see: `read`, `insert`, `update`, `delete`, `truncate`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Snapshot => "read",
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Truncate => "truncate",
        }
    }
    /// Its index in [`ALL`](Self::ALL), for arrays of counters.
    pub fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One row changed (or, for truncate, all of them).
#[derive(Debug, Clone)]
pub struct ChangeEvent {
    /// The table's shape at this event; the rows' cells are in the order of its columns.
    pub table: Arc<TableSchema>,
    /// What happened.
    pub op: Op,
    /// The row before: update and delete.
    pub before: Option<Row>,
    /// The row after: insert, update, snapshot.
    pub after: Option<Row>,
}

/// What a schema statement did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SchemaChangeKind {
    /// CREATE TABLE.
    Create,
    /// ALTER TABLE, and CREATE or DROP INDEX.
    Alter,
    /// DROP TABLE.
    Drop,
    /// RENAME TABLE.
    Rename,
}

impl SchemaChangeKind {
    /// The word that users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Alter => "alter",
            Self::Drop => "drop",
            Self::Rename => "rename",
        }
    }
}

/// A schema statement on one table, at its place in the stream. A statement on several tables gives one each.
#[derive(Debug, Clone)]
pub struct SchemaChange {
    /// Which table; for a rename its old name.
    pub table: TableId,
    /// What it did.
    pub kind: SchemaChangeKind,
    /// The statement, for sinks that apply it and for the person who must. Only statements on tables get here, never on accounts.
    pub statement: Arc<str>,
    /// The schema that unqualified names in `statement` mean.
    pub default_schema: Arc<str>,
    /// A rename's new name.
    pub renamed_to: Option<TableId>,
}

/// How an outside component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthState {
    /// It answers.
    Up,
    /// It answers, and something about it needs a person's eye.
    Warning,
    /// It does not answer.
    Down,
}

/// A report on an outside component, sent when it changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The component's name: `mysql`, `postgres`, `history`, or a plugin's instance.
    pub component: String,
    /// How it is.
    pub state: HealthState,
    /// What to know and what to do, one sentence a line; empty when all is well. No secret.
    pub messages: Vec<String>,
}

/// What flows: a change of a row, of a table's shape, of the set of tables, of a component's health, or a report of a check.
#[derive(Debug, Clone)]
pub enum Event {
    /// A row changed.
    Change(ChangeEvent),
    /// A schema statement, at its place in the stream.
    Schema(SchemaChange),
    /// Discovery found a table.
    TableFound(Arc<TableSchema>),
    /// Discovery saw that a table's columns, types or key changed.
    TableChanged(Arc<TableSchema>),
    /// Discovery does not see the table any more.
    TableGone(TableId),
    /// A component's health changed.
    Health(Health),
    /// A check proved a difference, saw one again, or saw it gone.
    Finding(Finding),
}

/// One source transaction (or a part of a very large one) within a batch.
#[derive(Debug, Clone)]
pub struct TransactionMark {
    /// Its stable name.
    pub id: TxnId,
    /// The database's own transaction, where another log carries it on (Kafka). None: `id` is that.
    pub origin: Option<TxnId>,
    /// Where it ends in the server's log; for an incomplete part, where the last complete transaction ended.
    pub at: Coordinate,
    /// When it was committed, microseconds since the Unix epoch. Only a header with one second's precision: rounded down.
    pub commit_micros: i64,
    /// Its events: indexes into [`Batch::events`].
    pub events: Range<usize>,
    /// How many change events of this transaction came in earlier batches.
    pub first_change: u64,
    /// Whether the transaction ends in this batch.
    pub complete: bool,
}

impl TransactionMark {
    /// Whether a view of the database, or of the target, that shows everything up to `low` shows this transaction.
    pub fn is_in(&self, low: &Position) -> bool {
        // A target's view stands in the log that was applied to it.
        if low.partitions.is_some() { low.contains(&self.id) } else { low.contains(self.origin.as_ref().unwrap_or(&self.id)) }
    }
}

/// The events in this batch are existing rows of one table, read by the host while the stream stood still for its keys.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct CopyMark {
    /// Which table.
    pub table: TableId,
    /// Rows copied when this batch is written, from the first chunk. A total, so writing it twice changes nothing.
    pub rows_done: u64,
    /// About how many rows the copy will have.
    pub rows_expected: u64,
    /// Where the next chunk starts: the last key of this one, as the source reader wrote it (see [`KeyRange`](crate::KeyRange)).
    /// None: from the beginning.
    pub next: Option<Vec<String>>,
    /// Whether this is the last chunk.
    pub done: bool,
    /// Of a table without key: the view that the rows were read in. Stream events of the table whose transaction this position contains
    /// are in the copied rows already, and are not applied; later ones are. None for a table with key: all its events are applied.
    pub snapshot: Option<Position>,
    /// Whether the table is emptied before these rows are written: the first chunk of a copy that has to begin again (table without key).
    pub restart: bool,
}

/// Events of one source in order, and the position after them: the unit of writing and committing.
///
/// Three forms: changes of the stream (`transactions` name every change; `position` is set), a chunk of a copy (`copy` is set, every event
/// is a snapshot read), or news (health, tables, findings; neither is set). Batch borders differ from run to run: sinks skip what they
/// already have transaction by transaction, by [`Position::included`].
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// The events in order.
    pub events: Vec<Event>,
    /// The transactions in order; together they cover every [`Event::Change`] and [`Event::Schema`].
    pub transactions: Vec<TransactionMark>,
    /// The position after the batch. Set without any event when only the position moved on.
    pub position: Option<Position>,
    /// Set for a chunk of a copy.
    pub copy: Option<CopyMark>,
    /// How many source records (rows and control) went into this batch: `records = changes + duplicates + control`.
    pub records: u64,
    /// How many of them the source knew as changes that it had delivered before; they are not among the events. Sinks find others themselves.
    pub duplicates: u64,
    /// How many of them were control: neither a change nor a duplicate.
    pub control: u64,
    /// Bytes read from the source for it.
    pub bytes: u64,
}

impl Batch {
    /// A batch of news.
    pub fn news(events: Vec<Event>) -> Self {
        Self { events, ..Self::default() }
    }
    /// The changes of `mark` that a sink standing at `stored` does not have yet.
    pub fn new_changes<'a>(&'a self, mark: &TransactionMark, stored: Option<&Position>) -> impl Iterator<Item = &'a ChangeEvent> {
        let included = stored.map_or(0, |position| position.included(&mark.id));
        let skip = included.saturating_sub(mark.first_change);
        self.events[mark.events.clone()]
            .iter()
            .filter_map(|event| match event {
                Event::Change(change) => Some(change),
                _ => None,
            })
            .skip(usize::try_from(skip).unwrap_or(usize::MAX))
    }
}
