//! The plugin kinds.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::event::{Batch, CopyMark, Op};
use crate::finding::{Finding, Verdict};
use crate::position::{PartitionAt, Position};
use crate::read::{ReadPlan, RowBlock};
use crate::table::TableId;
use crate::value::Row;

/// How a plugin is named and built. Building does no IO.
pub trait Plugin: Sized {
    /// The name by which configuration asks for it: `mysql-binlog`.
    const NAME: &'static str;
    /// Its settings.
    type Config: DeserializeOwned + JsonSchema;
    /// Builds it; an `Err` names the setting and what would have been accepted.
    fn new(config: Self::Config) -> Result<Self>;
}

/// Where changes come from. Pulled by the host, which owns retry, batching, back-pressure and stopping:
///
/// ```text
/// connect(stored position)
/// loop { next -> Some(batch): written to every sink, then commit(batch.position); None: the end }
/// close
/// ```
#[async_trait]
pub trait Source: Send {
    /// Connects and goes on after `from`; None: from now. Called again after `Disconnected`, from the position then stored.
    /// A `from` that lies inside a transaction replays that transaction from its start; sinks skip what they have.
    async fn connect(&mut self, from: Option<&Position>) -> Result<()>;
    /// The next batch, within about `wait`. An empty batch: nothing yet; with a position: only the position moved on. None: the end.
    /// Safe to drop between polls only at an await that has not yet taken anything from the stream.
    async fn next(&mut self, wait: Duration) -> Result<Option<Batch>>;
    /// Everything up to `upto` is durable in every required sink.
    async fn commit(&mut self, upto: &Position) -> Result<()>;
    /// Ends the connection in good order.
    async fn close(&mut self) -> Result<()>;
}

/// Where changes go.
#[async_trait]
pub trait Sink: Send {
    /// Connects, or connects again after `Disconnected`.
    async fn connect(&mut self) -> Result<()>;
    /// How far this sink has got; None: it has nothing yet, or keeps no position. Asked after `connect`.
    async fn position(&mut self) -> Result<Option<Position>>;
    /// Writes a batch. `Ok`: durable. The same batch, or one that overlaps, may come again: what is already there is skipped
    /// transaction by transaction. `Rewound` (from here and from `connect`): the sink lost what it had taken; after the next `connect`,
    /// `position` says from where the stream must start again.
    async fn write(&mut self, batch: &Batch) -> Result<()>;
    /// Ends the connection in good order.
    async fn close(&mut self) -> Result<()>;
}

/// A sink that keeps a target database as the source is, and knows how far the copy of each table has got.
#[async_trait]
pub trait Applier: Sink {
    /// The copies begun and done, as of the last write.
    async fn copies(&mut self) -> Result<Vec<CopyMark>>;
    /// Tables that stopped, with the reason and what to do.
    async fn stopped(&mut self) -> Result<Vec<(TableId, String)>>;
    /// The newest `limit` entries of the migration log, newest first.
    async fn migration_log(&mut self, limit: u32, table: Option<&TableId>) -> Result<Vec<LogEntry>>;
}

/// An entry of the migration log.
#[derive(Debug, Clone, Serialize)]
pub struct LogEntry {
    /// When, RFC 3339 UTC.
    pub timestamp: String,
    /// Which table, `schema.table`; empty for the pipeline as a whole.
    pub table_name: String,
    /// What was done: `create_table`, `copy`, `apply`, `schema`, `refused`.
    pub operation: String,
    /// `started`, `completed`, `failed`.
    pub status: String,
    /// How many rows.
    pub record_count: u64,
    /// What else to know.
    pub message: String,
}

/// Counters of one table, by [`Op::index`].
pub type OpCounts = [u64; 5];

/// A recent event, as history keeps it. No cell value: the key only as a hash.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct StoredEvent {
    /// Ascending number of the event in this history.
    pub id: u64,
    /// `schema.table`.
    pub table: String,
    /// What happened.
    pub operation: Op,
    /// The commit time, microseconds since the Unix epoch.
    pub commit_micros: i64,
    /// The transaction: GTID or `file:pos`.
    pub position: String,
    /// The ordinal of the change in its transaction.
    pub ordinal: u64,
    /// 32 hex digits, the same at every delivery of this change.
    pub trace_id: String,
    /// 16 hex digits over the canonical key; empty where there is none.
    pub key_hash: String,
}

/// A finding, as history keeps it.
#[derive(Debug, Clone, Serialize)]
pub struct StoredFinding {
    /// Ascending number.
    pub id: u64,
    /// The finding as last seen.
    pub finding: Finding,
    /// Microseconds since the Unix epoch.
    pub found_micros: i64,
    /// When it was last seen.
    pub last_seen_micros: i64,
    /// When it was seen gone.
    pub resolved_micros: Option<i64>,
}

/// Which findings to ask for.
#[derive(Debug, Clone, Default)]
pub struct FindingQuery {
    /// Only of this table.
    pub table: Option<TableId>,
    /// Some(true): open ones; Some(false): resolved ones; None: all.
    pub open: Option<bool>,
    /// Only ids below this (newest first paging).
    pub before: Option<u64>,
    /// At most so many.
    pub limit: u32,
}

/// What was proved of a table, stored so that a restart does not forget it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Verified {
    /// The source position, as text.
    pub position: String,
    /// When, microseconds since the Unix epoch.
    pub micros: i64,
    /// Over how many rows.
    pub rows: u64,
}

/// What history was told, read once at the start.
#[derive(Debug, Clone, Default)]
pub struct Remembered {
    /// Where the line stands.
    pub position: Option<Position>,
    /// Counters since the beginning, tables that are gone included.
    pub counters: Vec<(TableId, OpCounts)>,
    /// Tables that are gone, with their counters above.
    pub gone: Vec<TableId>,
    /// Duplicates, control records and all records since the beginning.
    pub records: u64,
    /// Duplicates since the beginning.
    pub duplicates: u64,
    /// Control records since the beginning.
    pub control: u64,
    /// What was proved.
    pub verified: Vec<(TableId, Verified)>,
}

/// What one table did on one day, by the time at which the source committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DailyCounts {
    /// The UTC day, `2026-01-31`.
    pub day: String,
    /// Which table.
    pub table: TableId,
    /// Its counters of that day.
    pub counts: OpCounts,
}

/// An agent of a group, as the others see it.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Member {
    /// A name of its own, new at every start.
    pub id: String,
    /// Where its API listens.
    pub address: String,
    /// Since when it is a member, microseconds since the Unix epoch.
    pub since_micros: i64,
    /// How many partitions it reads.
    pub partitions: u64,
    /// Whether it does what only one of them may do, such as caring for the connector.
    pub leads: bool,
    /// Whether it is the one that was asked.
    pub this: bool,
}

/// A partition, who reads it, and how far it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedPartition {
    /// Which topic.
    pub topic: String,
    /// Which of its partitions.
    pub partition: i32,
    /// The [`Member`] that claimed it last; it may not live any more.
    pub owner: String,
    /// The offset of the next record; None: nothing of it is stored.
    pub next: Option<u64>,
}

/// What the agents of a group know together.
#[derive(Debug, Clone, Default)]
pub struct GroupPicture {
    /// Those that live, the oldest first.
    pub members: Vec<Member>,
    /// Every partition that one of them has read.
    pub partitions: Vec<OwnedPartition>,
    /// What history was told by all of them.
    pub remembered: Remembered,
    /// What the owner of each table said of it, in the host's own words.
    pub said: Vec<(TableId, String)>,
}

/// Who reads a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// This agent.
    This,
    /// Another one.
    Another,
    /// Nobody was ever known to read it: it may not be there.
    Nobody,
}

/// Several agents that share one pipeline's partitions, its history and its counters.
///
/// A partition has one owner at a time. Whoever claims it fences its former owner, of whom nothing more is taken.
#[async_trait]
pub trait Group: Send + Sync {
    /// Takes over these partitions of the cluster `cluster`, and says how far each of them was read; None: not at all.
    async fn claim(&self, cluster: &str, partitions: &[(Arc<str>, i32)]) -> Result<Vec<Option<PartitionAt>>>;
    /// The offset up to which a partition that this agent claimed is stored; None: nothing of it is.
    fn stored(&self, topic: &str, partition: i32) -> Option<u64>;
    /// Lets go of all partitions: others will claim them.
    fn release(&self);
    /// How often partitions were claimed: where it changes, what is remembered of the stream begins anew.
    fn claims(&self) -> u64;
    /// Who reads a topic, as of the last [`meet`](Self::meet).
    fn reads(&self, topic: &str) -> Reads;
    /// Tells the others that this agent lives and listens at `address`, and learns of them. To be called about twice a second.
    async fn meet(&self, address: &str) -> Result<GroupPicture>;
    /// Tells the others what is known of a table.
    async fn say(&self, table: &TableId, words: &str) -> Result<()>;
}

/// A sink that can also be asked what it was told, and that stores position and counters atomically with it.
///
/// One write is one transaction with a compare-and-set on (epoch, previous position): a second agent that opens the same history
/// fences the first, whose next write is `Fatal`.
#[async_trait]
pub trait History: Sink {
    /// All that is needed to go on after a start.
    async fn remembered(&mut self) -> Result<Remembered>;
    /// Keeps what was proved of a table.
    async fn keep_verified(&mut self, table: &TableId, verified: &Verified) -> Result<()>;
    /// What the set-up of the store could do better, one sentence each, as of the last `connect`. Nothing here stops the line.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
    /// The group of agents that share this history. None: it is one agent's alone.
    fn group(&self) -> Option<Arc<dyn Group>> {
        None
    }
    /// A second handle on the same history, for the API to read while the line writes.
    fn reader(&self) -> Box<dyn HistoryReader>;
}

/// The asking side of a history. Cheap to clone behind an `Arc`; never blocks the line.
#[async_trait]
pub trait HistoryReader: Send + Sync {
    /// The newest events, newest first.
    async fn events(&self, limit: u32, before: Option<u64>) -> Result<Vec<StoredEvent>>;
    /// Findings, newest first.
    async fn findings(&self, query: &FindingQuery) -> Result<Vec<StoredFinding>>;
    /// How many findings are open, by table and verdict.
    async fn open_findings(&self) -> Result<Vec<(TableId, Verdict, u64)>>;
    /// Counters by table and day, newest day first. None: this history keeps none.
    async fn daily(&self) -> Result<Option<Vec<DailyCounts>>> {
        Ok(None)
    }
}

/// What a validator wants to see.
#[derive(Debug, Clone, Default)]
pub struct Wants {
    /// Only these tables; empty: all.
    pub tables: Vec<TableId>,
    /// Change events.
    pub events: bool,
    /// Row pairs of comparisons.
    pub pairs: bool,
}

/// One cell of a pair: as a side printed it, or as the stream carried it.
#[derive(Debug, Clone, Copy)]
pub enum PairRow<'a> {
    /// Row `row` of a block that a reader filled.
    Block(&'a RowBlock, usize),
    /// A row of the stream; `columns[i]` is where plan column `i` is in it.
    Row(&'a Row, &'a [usize]),
}

/// The same key on both sides.
#[derive(Debug, Clone, Copy)]
pub struct Pair<'a> {
    /// The source's row, or what the stream says it must be; None: no such row.
    pub source: Option<PairRow<'a>>,
    /// The target's row; None: no such row.
    pub target: Option<(&'a RowBlock, usize)>,
}

/// Row pairs of one table, for judging. Valid for the call.
pub struct CheckBatch<'a> {
    /// What was read of the source, with the rules; the target's plan has the same columns in the same order.
    pub plan: &'a ReadPlan,
    /// The pairs.
    pub pairs: &'a [Pair<'a>],
}

/// Where a validator puts what it found.
#[derive(Debug, Default)]
pub struct Findings {
    /// (index of the pair, verdict, indexes of the differing plan columns).
    pub found: Vec<(usize, Verdict, Vec<usize>)>,
    /// Cells that differ only in representation, accepted by policy: (plan column, how many).
    pub representation_only: Vec<(usize, u64)>,
    /// Plan columns whose cells could not be judged, with the reason: the pair is then not equal for this column, and not different.
    pub unjudged: Vec<(usize, String)>,
}

/// Judges; does no IO of its own: the host reads both sides and hands over batches. `Err` is "could not look".
pub trait Validator: Send {
    /// Which tables and what of them.
    fn wants(&self) -> Wants;
    /// Judges one batch of pairs.
    fn validate(&mut self, batch: &CheckBatch<'_>, findings: &mut Findings) -> Result<()>;
    /// Called at the end of a check, for validators that hold something back.
    fn flush(&mut self, findings: &mut Findings) -> Result<()>;
}
