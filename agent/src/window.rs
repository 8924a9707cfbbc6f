//! The recent past of the stream: what the comparison needs to know of events between its two reads. Bounded in bytes.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use plumbline_sdk::{Batch, ChangeEvent, Coordinate, Event, GtidSet, Op, Position, TableId, TransactionMark, TxnId};

/// Recent batches of the stream in order, oldest dropped first.
#[derive(Debug)]
pub struct Window {
    batches: VecDeque<(u64, Arc<Batch>, usize)>,
    bytes: usize,
    limit: usize,
    next: u64,
    /// Where the line stood when the window began, or the position after the last dropped batch.
    floor: Option<Position>,
    /// Of a log that is not the source's own (Kafka): the source's transactions in the batches that were dropped. Such a log's positions do not
    /// say which they include.
    dropped: GtidSet,
    /// When the window began.
    since: Instant,
    /// Where the stream stands: everything between `floor` and here is known.
    end: Option<Position>,
}

impl Window {
    /// A window that holds at most about `limit` bytes of rows.
    pub fn new(limit: usize) -> Self {
        Self { batches: VecDeque::new(), bytes: 0, limit, next: 0, floor: None, dropped: GtidSet::default(), since: Instant::now(), end: None }
    }

    /// Starts at `position`: nothing before it is known. Called at every (re)connect of the source.
    pub fn restart(&mut self, position: Option<Position>) {
        self.batches.clear();
        self.bytes = 0;
        self.floor.clone_from(&position);
        self.dropped = GtidSet::default();
        self.since = Instant::now();
        self.end = position;
    }

    /// Other parts of another log are read from now on: what came before in them is not known by name.
    pub fn begin_again(&mut self) {
        self.since = Instant::now();
    }

    /// How long ago it began.
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// Whether everything that `position` includes has come by. After a start the target may be ahead of the stream, which then
    /// goes on from the least of what the sinks have.
    pub fn reached(&self, position: &Position) -> bool {
        self.end.as_ref().and_then(|end| position.order(end)).is_some_and(std::cmp::Ordering::is_le)
    }

    /// Adds a batch of the stream. Copies and news do not belong here.
    pub fn push(&mut self, batch: &Arc<Batch>) {
        if batch.position.is_some() {
            self.end.clone_from(&batch.position);
        }
        if batch.transactions.is_empty() {
            return;
        }
        let size = batch.events.iter().map(|event| if let Event::Change(change) = event { size(change) } else { 256 }).sum::<usize>();
        self.batches.push_back((self.next, Arc::clone(batch), size));
        self.next += 1;
        self.bytes += size;
        while self.bytes > self.limit && self.batches.len() > 1 {
            if let Some((_, batch, size)) = self.batches.pop_front() {
                self.bytes -= size;
                for mark in &batch.transactions {
                    if let Some(TxnId::Gtid(gtid)) = &mark.origin {
                        self.dropped.insert(gtid);
                    }
                }
                if batch.position.is_some() {
                    self.floor.clone_from(&batch.position);
                }
            }
        }
    }

    /// The number that the next batch gets.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The number of the oldest batch that is still here.
    pub fn first(&self) -> u64 {
        self.batches.front().map_or(self.next, |(number, _, _)| *number)
    }

    /// The batch of this number, if it is still here.
    pub fn batch(&self, number: u64) -> Option<Arc<Batch>> {
        let at = usize::try_from(number.checked_sub(self.first())?).ok()?;
        self.batches.get(at).map(|(_, batch, _)| Arc::clone(batch))
    }

    /// The batches numbered `from` and later; None: some of them were dropped already.
    pub fn since(&self, from: u64) -> Option<Vec<Arc<Batch>>> {
        (from >= self.first())
            .then(|| self.batches.iter().filter(|(number, _, _)| *number >= from).map(|(_, batch, _)| Arc::clone(batch)).collect())
    }

    /// All batches that are still here.
    pub fn all(&self) -> Vec<Arc<Batch>> {
        self.batches.iter().map(|(_, batch, _)| Arc::clone(batch)).collect()
    }

    /// All batches, if every transaction after `low` is still here: what was dropped must be included in `low`. Where changes come by another
    /// log, `low` must be read a while after the window began ([`age`](Self::age)): what came before it is not known by name.
    pub fn after(&self, low: &Position) -> Option<Vec<Arc<Batch>>> {
        let covered = match (&self.floor, &low.gtids) {
            (None, _) => false,
            (Some(floor), _) if low.partitions.is_some() => floor.order(low).is_some_and(std::cmp::Ordering::is_le),
            (Some(floor), Some(low)) if floor.partitions.is_some() => self.dropped.is_subset(low),
            (Some(floor), Some(low)) => floor.gtids.as_ref().is_some_and(|floor| floor.is_subset(low)),
            (Some(floor), None) => floor.at <= low.at,
        };
        covered.then(|| self.all())
    }

    /// What the stream added to the number of rows of `table` after `low`; None: not known any more, or the table was truncated.
    pub fn delta(&self, table: &TableId, low: &Position) -> Option<i64> {
        let mut delta = 0;
        for batch in self.after(low)? {
            for mark in batch.transactions.iter().filter(|mark| !mark.is_in(low)) {
                for event in &batch.events[mark.events.clone()] {
                    if let Event::Change(change) = event
                        && change.table.id == *table
                    {
                        if change.op == Op::Truncate {
                            return None;
                        }
                        delta += crate::state::row_delta(change.op);
                    }
                }
            }
        }
        Some(delta)
    }

    /// Whether `table` was truncated or changed its shape in a transaction that is not in `at`, as far as is remembered.
    pub fn reshaped(&self, table: &TableId, at: &Position) -> bool {
        self.batches.iter().flat_map(|(_, batch, _)| batch.transactions.iter().map(move |mark| (batch, mark))).filter(|(_, mark)| !at.contains(&mark.id)).any(
            |(batch, mark)| {
                batch.events[mark.events.clone()].iter().any(|event| match event {
                    Event::Change(change) => change.op == Op::Truncate && change.table.id == *table,
                    Event::Schema(change) => change.table == *table || change.renamed_to.as_ref() == Some(table),
                    _ => false,
                })
            },
        )
    }

    /// The tables that changed in transactions that are not in `low` and end at or before `high`.
    pub fn touched(&self, low: &Position, high: Coordinate) -> Option<HashSet<TableId>> {
        let mut tables = HashSet::new();
        for batch in self.after(low)? {
            for mark in batch.transactions.iter().filter(|mark| !mark.is_in(low) && mark.at <= high) {
                for event in &batch.events[mark.events.clone()] {
                    match event {
                        Event::Change(change) => {
                            tables.insert(change.table.id.clone());
                        }
                        Event::Schema(change) => {
                            tables.insert(change.table.clone());
                        }
                        _ => {}
                    }
                }
            }
        }
        Some(tables)
    }
}

fn size(change: &ChangeEvent) -> usize {
    128 + change.before.as_ref().map_or(0, plumbline_sdk::Row::size) + change.after.as_ref().map_or(0, plumbline_sdk::Row::size)
}

/// The events of `table` in these batches whose transaction is not in `low`, and is in `upto` where one is given, in order, with their transaction.
pub fn events_between<'a>(
    batches: &'a [Arc<Batch>],
    table: &'a TableId,
    low: &'a Position,
    upto: Option<&'a Position>,
) -> impl Iterator<Item = (&'a TransactionMark, &'a Event)> {
    batches.iter().flat_map(move |batch| {
        batch.transactions.iter().filter(move |mark| !mark.is_in(low) && upto.is_none_or(|upto| upto.contains(&mark.id))).flat_map(move |mark| {
            batch.events[mark.events.clone()].iter().filter_map(move |event| {
                let concerns = match event {
                    // A row that was read changed nothing on the source.
                    Event::Change(change) => change.table.id == *table && change.op != Op::Snapshot,
                    Event::Schema(change) => change.table == *table || change.renamed_to.as_ref() == Some(table),
                    _ => false,
                };
                concerns.then_some((mark, event))
            })
        })
    })
}
