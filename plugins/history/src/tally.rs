//! What a batch adds to a history that stands at a position: pure, no store, no clock.

use std::collections::{BTreeMap, HashMap};
use std::cmp::Ordering;
use std::sync::Arc;

use plumbline_sdk::plugin::OpCounts;
use plumbline_sdk::{Batch, ChangeEvent, Error, Event, Op, Position, Result, TableId, TableSchema, TraceIds};

use crate::key_hash::KeyHasher;

/// The sums of one batch, duplicates taken out.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Tally {
    /// By table, in name order: what to add to its counters.
    pub counts: BTreeMap<TableId, OpCounts>,
    pub records: u64,
    pub changes: u64,
    pub duplicates: u64,
    pub control: u64,
    pub transactions: u64,
    /// Where the history stands after the batch. None: the batch does not say, or nothing is new.
    pub position: Option<Position>,
}

/// An event to keep. `number` counts the changes of this history from 1.
#[derive(Debug, PartialEq)]
pub(crate) struct KeptEvent {
    pub number: u64,
    pub table: TableId,
    pub op: Op,
    pub commit_micros: i64,
    pub txn: Arc<str>,
    pub ordinal: u64,
    pub trace_id: [u8; 16],
    pub key_hash: String,
}

/// Sums up a batch of the stream for a history that stands at `stored`.
pub(crate) fn tally(batch: &Batch, stored: Option<&Position>) -> Result<Tally> {
    let mut tally = Tally { records: batch.records, control: batch.control, ..Tally::default() };
    let mut counts = Counts::default();
    let mut arrived = 0;
    for mark in &batch.transactions {
        let included = stored.map_or(0, |position| position.included(&mark.id));
        let mut in_mark = 0;
        for event in &batch.events[mark.events.clone()] {
            if let Event::Change(change) = event {
                // As `Batch::new_changes`, which would not let us count what it skips.
                if mark.first_change + in_mark >= included {
                    counts.add(change);
                    tally.changes += 1;
                }
                in_mark += 1;
            }
        }
        arrived += in_mark;
        if mark.complete && included != u64::MAX {
            tally.transactions += 1;
        }
    }
    if batch.records != arrived + batch.control + batch.duplicates {
        return Err(Error::fatal(format!(
            "the source says that a batch has {} records, {} of them control and {} duplicates, and it has {arrived} changes: the counters would not add up",
            batch.records, batch.control, batch.duplicates
        )));
    }
    tally.duplicates = batch.duplicates + arrived - tally.changes;
    tally.counts = counts.by_table();
    tally.position = newer(batch.position.as_ref(), stored)?.cloned();
    Ok(tally)
}

/// The newest `keep` new events of the batch, oldest first. The history had `before` changes before it.
pub(crate) fn newest(batch: &Batch, stored: Option<&Position>, tally: &Tally, before: u64, keep: u64, pipeline: &str, hasher: &mut KeyHasher) -> Vec<KeptEvent> {
    let skip = tally.changes.saturating_sub(keep);
    let server = batch.position.as_ref().map_or("", |position| &position.server);
    let mut kept = Vec::with_capacity(usize::try_from(tally.changes - skip).unwrap_or(0));
    let mut seen = 0;
    let mut keys: HashMap<*const TableSchema, Vec<usize>> = HashMap::new();
    for mark in &batch.transactions {
        let included = stored.map_or(0, |position| position.included(&mark.id));
        if included == u64::MAX {
            continue;
        }
        let first = mark.first_change.max(included);
        let mut name: Option<(Arc<str>, TraceIds)> = None;
        for (ordinal, change) in (first..).zip(batch.new_changes(mark, stored)) {
            seen += 1;
            if seen <= skip {
                continue;
            }
            let (txn, traces) = name.get_or_insert_with(|| (mark.id.to_string().into(), TraceIds::of(pipeline, server, &mark.id)));
            let key = keys.entry(Arc::as_ptr(&change.table)).or_insert_with(|| change.table.key());
            kept.push(KeptEvent {
                number: before + seen,
                table: change.table.id.clone(),
                op: change.op,
                commit_micros: mark.commit_micros,
                txn: Arc::clone(txn),
                ordinal,
                trace_id: traces.change(ordinal).0,
                key_hash: hasher.hash(change, key),
            });
        }
    }
    kept
}

/// Microseconds of a day.
pub(crate) const DAY_MICROS: i64 = 86_400_000_000;

/// What the batch adds to the counters of each UTC day (counted from 1970) of which counters are kept, by the time of commit.
/// A commit time after tomorrow is wrong, and counts as today.
pub(crate) fn by_day(batch: &Batch, stored: Option<&Position>, tally: &Tally, today: i64, keep_days: u32) -> Vec<(i64, BTreeMap<TableId, OpCounts>)> {
    let day_of = |micros: i64| Some(micros.div_euclid(DAY_MICROS)).filter(|day| *day <= today + 1).unwrap_or(today);
    let mut days = batch.transactions.iter().map(|mark| day_of(mark.commit_micros));
    let Some(first) = days.next() else { return Vec::new() };
    let oldest = today - i64::from(keep_days);
    if days.all(|day| day == first) {
        // The usual case: no second look at the events.
        let counts = tally.counts.clone();
        return if first < oldest || counts.is_empty() { Vec::new() } else { vec![(first, counts)] };
    }
    let mut by_day: BTreeMap<i64, Counts> = BTreeMap::new();
    for mark in &batch.transactions {
        let day = day_of(mark.commit_micros);
        let mut changes = batch.new_changes(mark, stored).peekable();
        if day >= oldest && changes.peek().is_some() {
            let counts = by_day.entry(day).or_default();
            changes.for_each(|change| counts.add(change));
        }
    }
    by_day.into_iter().map(|(day, counts)| (day, counts.by_table())).collect()
}

/// The batch's position if the history gets further by it.
fn newer<'a>(batch: Option<&'a Position>, stored: Option<&Position>) -> Result<Option<&'a Position>> {
    let (Some(new), Some(old)) = (batch, stored) else { return Ok(batch) };
    match new.order(old) {
        // Equal transactions and another place in the log: the log was rotated, or the server is another one.
        Some(Ordering::Greater | Ordering::Equal) if new != old => Ok(Some(new)),
        Some(_) => Ok(None),
        None => Err(Error::fatal(format!(
            "the history stands at `{old}` of server `{}` and is told to go to `{new}` of server `{}`: these are not of one stream",
            old.server, new.server
        ))),
    }
}

/// Counters by shape of table, so that an event costs a pointer comparison; summed by name at the end.
#[derive(Default)]
struct Counts {
    tables: Vec<(Arc<TableSchema>, OpCounts)>,
    index: HashMap<*const TableSchema, usize>,
    last: usize,
}

impl Counts {
    fn add(&mut self, change: &ChangeEvent) {
        let known = self.tables.get(self.last).is_some_and(|(table, _)| Arc::ptr_eq(table, &change.table));
        if !known {
            self.last = *self.index.entry(Arc::as_ptr(&change.table)).or_insert_with(|| {
                self.tables.push((Arc::clone(&change.table), [0; 5]));
                self.tables.len() - 1
            });
        }
        self.tables[self.last].1[change.op.index()] += 1;
    }

    fn by_table(self) -> BTreeMap<TableId, OpCounts> {
        let mut by_table: BTreeMap<TableId, OpCounts> = BTreeMap::new();
        for (table, counts) in self.tables {
            let sums = by_table.entry(table.id.clone()).or_default();
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum += count;
            }
        }
        by_table
    }
}
