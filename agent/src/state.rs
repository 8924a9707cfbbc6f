//! The agent's picture of all tables: a pure fold over batches. No IO, no clock: times come with what is applied.

use std::collections::BTreeMap;
use std::sync::Arc;

use plumbline_sdk::plugin::{OpCounts, Remembered, Verified};
use plumbline_sdk::{
    Batch, ChangeEvent, Coordinate, CopyMark, Event, Health, HealthState, Op, Position, SchemaChangeKind, TableId, TableSchema, TargetTable, TransactionMark, Verdict,
};
use serde::{Deserialize, Serialize};

use crate::source_log::SourceLog;

/// The newest change seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastEvent {
    /// Which table.
    pub table: TableId,
    /// What happened.
    pub op: Op,
    /// When it was committed on the source, microseconds since the Unix epoch.
    pub commit_micros: i64,
}

/// The rows of one side: an exact baseline plus what the stream added since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowCount {
    /// Baseline plus deltas.
    pub rows: i64,
    /// When it was last made true: the baseline, or the last change after it.
    pub as_of_micros: i64,
    /// Whether it is an estimate (the baseline was one, or nobody saw what was written).
    pub estimated: bool,
}

/// A part of a table that nobody can judge, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unverified {
    /// The columns; empty: the whole table.
    pub columns: Vec<String>,
    /// Why.
    pub reason: String,
}

/// The target table that a source table is matched to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Partner {
    /// The target was not looked at yet.
    #[default]
    Unknown,
    /// No table of this name.
    None,
    /// More than one table whose name is equal without case.
    Ambiguous(Vec<String>),
    /// This one.
    Table(Arc<TargetTable>),
}

/// Derived, never stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum SyncStatus {
    /// Proved differences are open.
    Diverged,
    /// It cannot be judged, or only in part.
    Unverified,
    /// Changes wait to be applied.
    Lagging,
    /// Existing rows are being copied.
    Copying,
    /// Nobody has looked yet.
    Unknown,
    /// Proved equal and caught up.
    InSync,
}

impl SyncStatus {
    /// The word that users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Diverged => "diverged",
            Self::Unverified => "unverified",
            Self::Lagging => "lagging",
            Self::Copying => "copying",
            Self::Unknown => "unknown",
            Self::InSync => "in_sync",
        }
    }
    /// Every status, for metrics.
    pub const ALL: [Self; 6] = [Self::Diverged, Self::Unverified, Self::Lagging, Self::Copying, Self::Unknown, Self::InSync];
}

/// A comparison that runs now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckProgress {
    /// Rows compared so far.
    pub rows: u64,
    /// About how many there will be.
    pub expected: u64,
}

/// A schema statement that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SeenSchemaChange {
    /// `create`, `alter`, `drop`, `rename`.
    pub kind: &'static str,
    /// When it was committed.
    pub commit_micros: i64,
    /// The position after it.
    pub position: String,
}

/// All that is known of one table.
#[derive(Debug, Clone, Default)]
pub struct TableState {
    /// Its shape, as discovery or the stream last told.
    pub schema: Option<Arc<TableSchema>>,
    /// Its target table.
    pub partner: Partner,
    /// Since the beginning.
    pub total: OpCounts,
    /// Since this start.
    pub live: OpCounts,
    /// Rows on the source.
    pub source_rows: Option<RowCount>,
    /// Where changes come by another log than the source's own (Kafka): what the count of `source_rows` includes for certain.
    pub source_low: Option<Position>,
    /// Rows on the target.
    pub target_rows: Option<RowCount>,
    /// The newest change.
    pub last: Option<LastEvent>,
    /// The copy, when we apply.
    pub copy: Option<CopyMark>,
    /// When the copy's first and latest chunk were written by this process, for rate and time left.
    pub copy_times: Option<(i64, i64, u64)>,
    /// What was proved.
    pub verified: Option<Verified>,
    /// Open findings by verdict: missing, extra, changed.
    pub open: BTreeMap<Verdict, u64>,
    /// What could not be judged.
    pub unverified: Vec<Unverified>,
    /// Why the last look at it failed although both servers answer; None: it went well.
    pub could_not_look: Option<Unverified>,
    /// What else to know, a sentence each.
    pub notes: Vec<String>,
    /// Cells that differ only in representation, accepted by policy, by column.
    pub representation_only: BTreeMap<String, u64>,
    /// Why it is not applied any more.
    pub stopped: Option<String>,
    /// Whether the source has dropped it.
    pub gone: bool,
    /// The comparison that runs.
    pub check: Option<CheckProgress>,
    /// Schema statements seen, newest last, bounded.
    pub schema_changes: Vec<SeenSchemaChange>,
    /// Changes received and not yet applied.
    pub pending: u64,
    /// Commit time of the oldest change not yet applied.
    pub pending_since: Option<i64>,
    /// When the oldest change not yet applied was received.
    pub waiting_since: Option<i64>,
    /// Whether changes have waited for longer than [`LATE_MICROS`]; what is in flight for a moment is no lag.
    pub late: bool,
    /// Whether changes of it are known to wait that no sink has yet: then a proof from before says nothing of now. See `unread.rs`.
    pub unread: bool,
    /// Whether a person stopped checking this table.
    pub paused: bool,
    /// Whether more rows differ than history lists: then `open` is a check's exact number, not history's.
    pub open_beyond: bool,
    /// Whether changes went by unchecked since it was proved: then only a whole check proves it again.
    pub gap: bool,
    /// When it was last compared as a whole, and how long that took, both in microseconds.
    pub compared: Option<(i64, i64)>,
}

impl TableState {
    /// How many findings are open.
    pub fn open_total(&self) -> u64 {
        self.open.values().sum()
    }
    /// What could not be judged: parts of it, or all of it.
    pub fn unjudged(&self) -> impl Iterator<Item = &Unverified> {
        self.could_not_look.iter().chain(&self.unverified)
    }
    /// What its owner says of it.
    pub fn said(&self) -> Said {
        Said {
            verified: self.verified.clone(),
            compared: self.compared,
            unverified: self.unverified.clone(),
            could_not_look: self.could_not_look.clone(),
            notes: self.notes.clone(),
            representation_only: self.representation_only.clone(),
            gap: self.gap,
            unread: self.unread,
            last: self.last.as_ref().map(|last| (last.op.index(), last.commit_micros)),
        }
    }
    fn take_in(&mut self, id: &TableId, said: Said) {
        self.verified = said.verified;
        self.compared = said.compared;
        self.unverified = said.unverified;
        self.could_not_look = said.could_not_look;
        self.notes = said.notes;
        self.representation_only = said.representation_only;
        self.gap = said.gap;
        self.unread = said.unread;
        let last = said.last.and_then(|(op, commit_micros)| Some(LastEvent { table: id.clone(), op: *Op::ALL.get(op)?, commit_micros }));
        if last.as_ref().map(|last| last.commit_micros) > self.last.as_ref().map(|last| last.commit_micros) {
            self.last = last;
        }
    }
    /// Changes (inserts, updates, deletes) of these counters.
    pub fn changes(counts: &OpCounts) -> u64 {
        counts[Op::Insert.index()] + counts[Op::Update.index()] + counts[Op::Delete.index()]
    }
    /// Target rows over source rows in percent: both empty 100; source empty and target not: none. It never rounds up to 100.
    pub fn sync_percentage(&self) -> Option<f64> {
        let (source, target) = (self.source_rows?.rows.max(0), self.target_rows?.rows.max(0));
        match (source, target) {
            (0, 0) => Some(100.0),
            (0, _) => None,
            (source, target) if source == target => Some(100.0),
            (source, target) => {
                let percent = target as f64 / source as f64 * 100.0;
                let cut = (percent * 100.0).floor() / 100.0;
                Some(if target < source { cut.min(99.99) } else { cut.max(100.01) })
            }
        }
    }
    /// Whether all of the table was proved equal once and nothing speaks against it now.
    pub fn status(&self) -> SyncStatus {
        if self.open_total() > 0 {
            SyncStatus::Diverged
        } else if self.stopped.is_some() || !self.unverified.is_empty() || matches!(self.partner, Partner::Ambiguous(_) | Partner::None) && self.copy.is_none() {
            SyncStatus::Unverified
        } else if self.copy.as_ref().is_some_and(|copy| !copy.done) {
            SyncStatus::Copying
        } else if (self.late || self.unread) && self.verified.is_some() {
            SyncStatus::Lagging
        } else if self.could_not_look.is_some() {
            SyncStatus::Unverified
        } else if self.verified.is_none() {
            SyncStatus::Unknown
        } else if matches!((self.source_rows, self.target_rows), (Some(source), Some(target)) if source.rows <= 0 && target.rows > 0) {
            SyncStatus::Unverified
        } else {
            SyncStatus::InSync
        }
    }
}

/// The picture.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// Every table by name, gone ones included.
    pub tables: BTreeMap<TableId, TableState>,
    /// Source records since the beginning: `records = changes + duplicates + control`.
    pub records: u64,
    /// Changes delivered again and not counted again.
    pub duplicates: u64,
    /// Records that are not row changes.
    pub control: u64,
    /// The same since this start: records, duplicates, control, bytes, transactions.
    pub live: LiveTotals,
    /// What was received: what history and the counters stand at.
    pub received: Option<Position>,
    /// What every required sink has.
    pub applied: Option<Position>,
    /// The newest change.
    pub last: Option<LastEvent>,
    /// When it was received by this agent.
    pub last_micros: Option<i64>,
    /// When the last batch of the stream came, microseconds since the epoch.
    pub received_micros: Option<i64>,
    /// Commit time of the newest transaction that every sink has.
    pub applied_commit_micros: Option<i64>,
    /// Components by name.
    pub health: BTreeMap<String, (Health, i64)>,
    /// Whether this agent applies changes to the target.
    pub applies: bool,
    /// Whether discovery has looked at least once.
    pub discovered: bool,
    /// What the source said of its log.
    pub source_log: SourceLog,
    /// Whether several agents share the pipeline: then counters since the beginning come from what history was told by all of them.
    pub in_group: bool,
}

/// What the owner of a table says of it to the agents that do not read its changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Said {
    verified: Option<Verified>,
    compared: Option<(i64, i64)>,
    unverified: Vec<Unverified>,
    could_not_look: Option<Unverified>,
    notes: Vec<String>,
    representation_only: BTreeMap<String, u64>,
    gap: bool,
    #[serde(default)]
    unread: bool,
    /// The newest change: its operation's number, and when it was committed.
    last: Option<(usize, i64)>,
}

/// Totals since this start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LiveTotals {
    /// Source records.
    pub records: u64,
    /// Delivered again.
    pub duplicates: u64,
    /// Not row changes.
    pub control: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Whole transactions.
    pub transactions: u64,
    /// Schema statements.
    pub schema_changes: u64,
}

const KEPT_SCHEMA_CHANGES: usize = 20;
/// A change that is not applied for longer than this makes its table `lagging`.
pub const LATE_MICROS: i64 = 2_000_000;

impl State {
    /// Goes on from what history was told.
    pub fn restore(remembered: Remembered, applies: bool) -> Self {
        let mut state = Self {
            records: remembered.records,
            duplicates: remembered.duplicates,
            control: remembered.control,
            received: remembered.position,
            applies,
            ..Self::default()
        };
        for (table, counts) in remembered.counters {
            state.tables.entry(table).or_default().total = counts;
        }
        for table in remembered.gone {
            state.tables.entry(table).or_default().gone = true;
        }
        for (table, verified) in remembered.verified {
            let table = state.tables.entry(table).or_default();
            // What changed while this agent was down is still to come.
            (table.verified, table.unread) = (Some(verified), true);
        }
        state
    }

    /// Takes in what all agents of the group told history, and what the owners of tables say of them.
    pub fn take_in(&mut self, remembered: Remembered, mut said: BTreeMap<TableId, Said>, owns: impl Fn(&TableId) -> bool) {
        (self.records, self.duplicates, self.control) = (remembered.records, remembered.duplicates, remembered.control);
        for (id, counts) in remembered.counters {
            self.tables.entry(id).or_default().total = counts;
        }
        for (id, table) in &mut self.tables {
            if !owns(id)
                && let Some(said) = said.remove(id)
            {
                table.take_in(id, said);
            }
        }
        let newest = self.tables.values().filter_map(|table| table.last.as_ref()).max_by_key(|last| last.commit_micros);
        if newest.map(|last| last.commit_micros) > self.last.as_ref().map(|last| last.commit_micros) {
            self.last = newest.cloned();
            self.last_micros = None;
        }
    }

    /// Takes in a batch as it was received, before any sink wrote it: counters, last events, pending changes.
    /// Changes that [`received`](Self::received) already includes are duplicates.
    pub fn receive(&mut self, batch: &Batch, now_micros: i64) {
        if !self.in_group {
            self.records += batch.records;
            self.control += batch.control;
            self.duplicates += batch.duplicates;
        }
        self.live.records += batch.records;
        self.live.control += batch.control;
        self.live.duplicates += batch.duplicates;
        self.live.bytes += batch.bytes;
        if let Some(mark) = &batch.copy {
            self.receive_copy(mark, batch, now_micros);
            return;
        }
        for mark in &batch.transactions {
            let all = batch.events[mark.events.clone()].iter().filter(|event| matches!(event, Event::Change(_))).count() as u64;
            let mut fresh = 0;
            for change in batch.new_changes(mark, self.received.as_ref()) {
                fresh += 1;
                count_change(&mut self.tables, change, mark, !self.in_group, self.applies.then_some(now_micros));
                self.last = Some(LastEvent { table: change.table.id.clone(), op: change.op, commit_micros: mark.commit_micros });
                self.last_micros = Some(now_micros);
            }
            if !self.in_group {
                self.duplicates += all - fresh;
            }
            self.live.duplicates += all - fresh;
            let known = self.received.as_ref().is_some_and(|position| position.contains(&mark.id));
            if mark.complete && !known {
                self.live.transactions += 1;
                self.receive_schema(batch, mark.events.clone(), mark.commit_micros, &mark.id.to_string());
            }
        }
        if let Some(position) = &batch.position {
            // A sink that is behind makes the line begin before what was counted: counting goes on only where it had got to.
            let behind = self.received.as_ref().is_some_and(|received| position.order(received) == Some(std::cmp::Ordering::Less));
            if !behind {
                self.received = Some(position.clone());
            }
            self.received_micros = Some(now_micros);
        }
        for event in &batch.events {
            self.receive_news(event, now_micros);
        }
    }

    /// Takes in that every required sink has the batch.
    pub fn apply(&mut self, batch: &Batch) {
        if let Some(position) = &batch.position {
            self.applied = Some(position.clone());
        }
        if let Some(mark) = batch.transactions.last() {
            self.applied_commit_micros = Some(mark.commit_micros);
        }
        if self.applies {
            for event in &batch.events {
                if let Event::Change(change) = event
                    && batch.copy.is_none()
                    && let Some(table) = self.tables.get_mut(&change.table.id)
                {
                    table.pending = table.pending.saturating_sub(1);
                    if table.pending == 0 {
                        table.pending_since = None;
                        table.waiting_since = None;
                        table.late = false;
                    }
                }
            }
        }
    }

    /// Time has passed: tells which tables are late.
    pub fn tick(&mut self, now_micros: i64) {
        for table in self.tables.values_mut() {
            table.late = table.pending > 0 && table.waiting_since.is_some_and(|since| now_micros - since > LATE_MICROS);
        }
    }

    fn receive_copy(&mut self, mark: &CopyMark, batch: &Batch, now_micros: i64) {
        let table = self.tables.entry(mark.table.clone()).or_default();
        let before = table.total[Op::Snapshot.index()];
        table.total[Op::Snapshot.index()] = mark.rows_done;
        table.live[Op::Snapshot.index()] += mark.rows_done.saturating_sub(before);
        table.copy_times = match table.copy_times {
            Some((first, _, rows)) => Some((first, now_micros, rows)),
            None => Some((now_micros, now_micros, mark.rows_done)),
        };
        if let Some(Event::Change(change)) = batch.events.first() {
            table.schema.get_or_insert_with(|| Arc::clone(&change.table));
        }
        table.copy = Some(mark.clone());
        table.target_rows = Some(RowCount { rows: i64::try_from(mark.rows_done).unwrap_or(i64::MAX), as_of_micros: now_micros, estimated: true });
    }

    fn receive_schema(&mut self, batch: &Batch, events: std::ops::Range<usize>, commit_micros: i64, position: &str) {
        for event in &batch.events[events] {
            if let Event::Schema(change) = event {
                self.live.schema_changes += 1;
                let table = self.tables.entry(change.table.clone()).or_default();
                if table.schema_changes.len() == KEPT_SCHEMA_CHANGES {
                    table.schema_changes.remove(0);
                }
                table.schema_changes.push(SeenSchemaChange { kind: change.kind.as_str(), commit_micros, position: position.to_owned() });
                // What was proved held for the old shape.
                table.verified = None;
                match (change.kind, &change.renamed_to) {
                    // A dropped table that comes again is a new one: its rows are copied from the beginning.
                    (SchemaChangeKind::Drop, _) => table.copy = None,
                    (SchemaChangeKind::Rename, Some(new)) => {
                        let copy = table.copy.take();
                        self.tables.entry(new.clone()).or_default().copy = copy;
                    }
                    _ => {}
                }
            }
        }
    }

    /// Sets the rows of a table on one side as they were counted, plus what the stream added since (`delta`).
    pub fn set_rows(&mut self, table: &TableId, source: bool, counted: u64, delta: i64, now_micros: i64, estimated: bool) {
        let Some(table) = self.tables.get_mut(table) else { return };
        let rows = RowCount { rows: i64::try_from(counted).unwrap_or(i64::MAX).saturating_add(delta), as_of_micros: now_micros, estimated };
        if source {
            table.source_rows = Some(rows);
        } else {
            table.target_rows = Some(rows);
        }
    }

    fn receive_news(&mut self, event: &Event, now_micros: i64) {
        match event {
            Event::TableFound(schema) | Event::TableChanged(schema) => {
                let table = self.tables.entry(schema.id.clone()).or_default();
                table.schema = Some(Arc::clone(schema));
                table.gone = false;
            }
            Event::TableGone(id) => {
                let table = self.tables.entry(id.clone()).or_default();
                table.gone = true;
                table.pending = 0;
                table.pending_since = None;
                table.waiting_since = None;
                table.late = false;
            }
            Event::Health(health) => {
                let since = match self.health.get(&health.component) {
                    Some((known, since)) if known.state == health.state => *since,
                    _ => now_micros,
                };
                self.health.insert(health.component.clone(), (health.clone(), since));
            }
            Event::Change(_) | Event::Schema(_) | Event::Finding(_) => {}
        }
    }

    /// Sets the open findings of a table, by verdict.
    pub fn set_open(&mut self, table: &TableId, open: BTreeMap<Verdict, u64>) {
        self.tables.entry(table.clone()).or_default().open = open;
    }

    /// Whether a component is down or warns: the worst state of all.
    pub fn worst_health(&self) -> HealthState {
        let rank = |state: HealthState| match state {
            HealthState::Up => 0,
            HealthState::Warning => 1,
            HealthState::Down => 2,
        };
        self.health.values().map(|(health, _)| health.state).max_by_key(|state| rank(*state)).unwrap_or(HealthState::Up)
    }

    /// Changes since the beginning and since this start: inserts, updates and deletes.
    pub fn changes(&self) -> (u64, u64) {
        self.tables.values().fold((0, 0), |(total, live), table| (total + TableState::changes(&table.total), live + TableState::changes(&table.live)))
    }

    /// Tables that the source has.
    pub fn present(&self) -> impl Iterator<Item = (&TableId, &TableState)> {
        self.tables.iter().filter(|(_, table)| !table.gone)
    }

    /// Seconds between now and the commit of the newest transaction that every sink has, while changes wait; 0 when caught up.
    pub fn lag_seconds(&self, now_micros: i64) -> f64 {
        match (&self.received, &self.applied) {
            (Some(received), Some(applied)) if received.order(applied) == Some(std::cmp::Ordering::Greater) => {
                self.applied_commit_micros.map_or(0.0, |commit| (now_micros - commit).max(0) as f64 / 1e6)
            }
            _ => 0.0,
        }
    }

    /// Seconds, at least, until the source may delete the log that is needed next; None: not known, or never.
    pub fn runway_seconds(&self, now_micros: i64) -> Option<f64> {
        self.source_log.runway_seconds(self.applied.as_ref()?, self.applied_commit_micros, now_micros)
    }

    /// Whether existing rows of a table are in the target as far as we copy them. Where changes come by another log, the rows do too.
    pub fn is_copied(&self, table: &TableState) -> bool {
        !self.applies || self.comes_by_other_log() || table.copy.as_ref().is_some_and(|mark| mark.done)
    }

    /// Whether changes come by another log than the source's own: then nothing says how far the source's own log was read.
    pub fn comes_by_other_log(&self) -> bool {
        self.received.as_ref().is_some_and(|position| position.partitions.is_some())
    }

    /// Whether the line has passed `at` in every required sink.
    pub fn applied_reached(&self, at: Coordinate) -> bool {
        self.applied.as_ref().is_some_and(|position| position.partial.is_none() && position.reached(at))
    }
}

/// `alone`: no other agent counts for this pipeline. `applied_from`: the time of receipt, where we apply.
fn count_change(tables: &mut BTreeMap<TableId, TableState>, change: &ChangeEvent, mark: &TransactionMark, alone: bool, applied_from: Option<i64>) {
    let commit_micros = mark.commit_micros;
    // The table is nearly always known: look before cloning its name.
    if !tables.contains_key(&change.table.id) {
        tables.insert(change.table.id.clone(), TableState::default());
    }
    let Some(table) = tables.get_mut(&change.table.id) else { return };
    if alone {
        table.total[change.op.index()] += 1;
    }
    table.live[change.op.index()] += 1;
    table.last = Some(LastEvent { table: change.table.id.clone(), op: change.op, commit_micros });
    if table.schema.is_none() {
        table.schema = Some(Arc::clone(&change.table));
    }
    let delta = row_delta(change.op);
    // What came by another log may come after a count that has it already.
    let is_counted = table.source_low.as_ref().is_some_and(|low| mark.is_in(low));
    for (rows, follows) in [(&mut table.source_rows, !is_counted), (&mut table.target_rows, applied_from.is_some())] {
        if let Some(count) = rows
            && follows
        {
            count.rows = if change.op == Op::Truncate { 0 } else { count.rows + delta };
            count.as_of_micros = count.as_of_micros.max(commit_micros);
        }
    }
    if let Some(now) = applied_from {
        table.pending += 1;
        table.pending_since.get_or_insert(commit_micros);
        table.waiting_since.get_or_insert(now);
    }
}

/// What a change adds to the number of rows; a truncate sets it to zero.
pub fn row_delta(op: Op) -> i64 {
    match op {
        Op::Insert => 1,
        Op::Delete => -1,
        Op::Update | Op::Snapshot | Op::Truncate => 0,
    }
}

#[cfg(test)]
mod tests {
    use plumbline_sdk::{Column, ColumnType, GtidSet, Row, TxnId, ValueRef};

    use super::*;

    const SERVER: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn orders() -> Arc<TableSchema> {
        let id = Column { name: "id".into(), ty: ColumnType::Int { unsigned: false }, nullable: false, key_ordinal: Some(1), generated: false, charset: None };
        Arc::new(TableSchema { id: TableId::new("shop", "orders"), columns: vec![id] })
    }

    /// Transaction number `number` with these changes, and the position after it.
    fn batch(number: u64, ops: &[Op]) -> Batch {
        let set: GtidSet = format!("{SERVER}:1-{number}").parse().expect("a set");
        let (sid, _) = set.iter().next().expect("a sid");
        let id = TxnId::Gtid(plumbline_sdk::Gtid { sid: sid.clone(), number });
        let at = Coordinate { log: 1, offset: number * 100 };
        let row = Row::of(&[ValueRef::Int(1)]);
        let events: Vec<Event> = ops
            .iter()
            .map(|&op| {
                Event::Change(ChangeEvent {
                    table: orders(),
                    op,
                    before: (op != Op::Insert).then(|| row.clone()),
                    after: (op != Op::Delete).then(|| row.clone()),
                })
            })
            .collect();
        let mark = TransactionMark { id, origin: None, at, commit_micros: 1_000_000, events: 0..events.len(), first_change: 0, complete: true };
        let records = events.len() as u64 + 2;
        let position = Position { server: SERVER.into(), file: "binlog.000001".into(), at, gtids: Some(set), ..Position::default() };
        Batch { events, transactions: vec![mark], position: Some(position), records, control: 2, ..Batch::default() }
    }

    fn table(state: &State) -> &TableState {
        &state.tables[&TableId::new("shop", "orders")]
    }

    #[test]
    fn records_are_changes_and_duplicates_and_control() {
        let mut state = State::default();
        for again in 0..2 {
            state.receive(&batch(1, &[Op::Insert, Op::Insert, Op::Update]), 2_000_000);
            let (total, live) = state.changes();
            assert_eq!((total, live, state.duplicates), (3, 3, again * 3));
            assert_eq!(state.records, total + state.duplicates + state.control);
        }
    }

    #[test]
    fn a_line_that_begins_before_what_was_counted_counts_nothing_twice() {
        let mut state = State::default();
        for number in 1..=3 {
            state.receive(&batch(number, &[Op::Insert]), 0);
        }
        // The target was behind: the line begins again at its position.
        for number in 2..=4 {
            state.receive(&batch(number, &[Op::Insert]), 0);
        }
        assert_eq!(state.changes().0, 4);
        assert_eq!(state.duplicates, 2);
    }

    #[test]
    fn rows_follow_the_stream_from_an_exact_baseline() {
        let mut state = State { applies: true, ..State::default() };
        state.receive(&batch(1, &[Op::Update]), 0);
        state.set_rows(&orders().id, true, 10, 0, 0, false);
        state.receive(&batch(2, &[Op::Insert, Op::Insert, Op::Delete]), 0);
        assert_eq!(table(&state).source_rows.map(|rows| rows.rows), Some(11));
        state.receive(&batch(3, &[Op::Truncate]), 0);
        assert_eq!(table(&state).source_rows.map(|rows| rows.rows), Some(0));
    }

    #[test]
    fn what_is_in_flight_for_a_moment_is_no_lag() {
        let mut state = State { applies: true, ..State::default() };
        let change = batch(1, &[Op::Insert]);
        state.receive(&change, 10_000_000);
        state.tick(11_000_000);
        assert!(!table(&state).late);
        state.tick(13_000_000);
        assert!(table(&state).late);
        state.apply(&change);
        assert!(!table(&state).late && table(&state).pending == 0);
    }

    #[test]
    fn a_percentage_never_rounds_up_to_all() {
        let of = |source, target| {
            let rows = |rows| Some(RowCount { rows, as_of_micros: 0, estimated: false });
            TableState { source_rows: rows(source), target_rows: rows(target), ..TableState::default() }.sync_percentage()
        };
        assert_eq!(of(0, 0), Some(100.0));
        assert_eq!(of(0, 5), None);
        assert_eq!(of(10_000_000, 9_999_999), Some(99.99));
        assert_eq!(of(1000, 999), Some(99.9));
        assert_eq!(of(3, 3), Some(100.0));
        assert!(of(10_000_000, 10_000_001) > Some(100.0));
    }

    #[test]
    fn a_difference_outranks_everything_and_a_missing_proof_is_no_proof() {
        let mut table = TableState { partner: Partner::Table(Arc::new(TargetTable { id: TableId::new("public", "orders"), columns: Vec::new(), key: Vec::new() })), ..TableState::default() };
        assert_eq!(table.status(), SyncStatus::Unknown);
        table.verified = Some(Verified { position: "x".into(), micros: 0, rows: 1 });
        assert_eq!(table.status(), SyncStatus::InSync);
        table.late = true;
        assert_eq!(table.status(), SyncStatus::Lagging);
        (table.late, table.unread) = (false, true);
        assert_eq!(table.status(), SyncStatus::Lagging);
        table.unread = false;
        table.could_not_look = Some(Unverified { columns: Vec::new(), reason: "no grant".into() });
        assert_eq!(table.status(), SyncStatus::Unverified);
        table.could_not_look = None;
        table.unverified.push(Unverified { columns: Vec::new(), reason: "x".into() });
        assert_eq!(table.status(), SyncStatus::Unverified);
        table.open.insert(Verdict::Missing, 1);
        assert_eq!(table.status(), SyncStatus::Diverged);
    }
}
