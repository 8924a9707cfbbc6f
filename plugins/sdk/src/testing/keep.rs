//! A sink that keeps what it is told.

use std::cmp::Ordering;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::{Counts, Rows, locked};
use crate::error::{Error, Result};
use crate::event::{Batch, ChangeEvent, CopyMark, Event, Op, SchemaChange};
use crate::plugin::Sink;
use crate::position::{Position, TxnId};

/// Keeps every change once, in order, and the position with it; the smallest sink that is exact. Clones share what is kept, as two
/// connections to one store would.
#[derive(Clone, Default)]
pub struct KeepSink {
    kept: Arc<Mutex<Kept>>,
    connected: bool,
}

/// What a [`KeepSink`] keeps.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// Every change, once.
    pub changes: Vec<KeptChange>,
    /// Every schema statement, once.
    pub schema: Vec<SchemaChange>,
    /// News, as often as they came.
    pub news: Vec<Event>,
    /// Rows copied, chunk by chunk.
    pub copied: Vec<ChangeEvent>,
    /// How far the copies have got.
    pub copies: Vec<CopyMark>,
    /// How many changes came that were there already.
    pub duplicates: u64,
    /// Where it stands.
    pub position: Option<Position>,
}

/// A change and its identity.
#[derive(Debug, Clone)]
pub struct KeptChange {
    /// The transaction.
    pub txn: TxnId,
    /// The ordinal of the change in it.
    pub ordinal: u64,
    /// The change.
    pub change: ChangeEvent,
}

impl KeepSink {
    /// A copy of what is kept now.
    pub fn kept(&self) -> Kept {
        locked(&self.kept).clone()
    }
}

impl Kept {
    /// How many changes of each kind each table has had; rows copied count as `read`.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for change in self.changes.iter().map(|kept| &kept.change) {
            counts.entry(change.table.id.clone()).or_default()[change.op.index()] += 1;
        }
        for copy in self.copies.iter().filter(|copy| copy.rows_done > 0) {
            counts.entry(copy.table.clone()).or_default()[Op::Snapshot.index()] = copy.rows_done;
        }
        counts
    }
    /// The rows that the changes come to, tables by the text of their keys.
    pub fn rows(&self) -> Rows {
        let mut rows = Rows::default();
        self.copied.iter().chain(self.changes.iter().map(|kept| &kept.change)).for_each(|change| super::workload::apply(&mut rows, change));
        rows
    }
    fn write(&mut self, batch: &Batch) -> Result<()> {
        if let Some(copy) = &batch.copy {
            self.write_copy(copy, batch);
            return Ok(());
        }
        let stored = self.position.clone();
        let position = match (&batch.position, &stored) {
            (Some(new), Some(old)) => match new.order(old) {
                Some(Ordering::Less) => stored.clone(),
                Some(_) => Some(new.clone()),
                None => return Err(Error::fatal(format!("this sink stands at `{old}` and is told to go to `{new}`: these are not of one stream"))),
            },
            (new, old) => new.clone().or_else(|| old.clone()),
        };
        let mut marked = 0;
        for mark in &batch.transactions {
            let events = &batch.events[mark.events.clone()];
            let arrived = events.iter().filter(|event| matches!(event, Event::Change(_))).count() as u64;
            let included = stored.as_ref().map_or(0, |position| position.included(&mark.id));
            let first = mark.first_change.max(included);
            let before = self.changes.len();
            for (change, ordinal) in batch.new_changes(mark, stored.as_ref()).zip(first..) {
                self.changes.push(KeptChange { txn: mark.id.clone(), ordinal, change: change.clone() });
            }
            self.duplicates += arrived - (self.changes.len() - before) as u64;
            if included == 0 {
                self.schema.extend(events.iter().filter_map(|event| if let Event::Schema(schema) = event { Some(schema.clone()) } else { None }));
            }
            marked += events.len();
        }
        let news = batch.events.iter().filter(|event| !matches!(event, Event::Change(_) | Event::Schema(_)));
        debug_assert!(marked <= batch.events.len());
        self.news.extend(news.cloned());
        self.position = position;
        Ok(())
    }
    fn write_copy(&mut self, copy: &CopyMark, batch: &Batch) {
        let known = self.copies.iter().position(|known| known.table == copy.table);
        if copy.restart {
            self.copied.retain(|change| change.table.id != copy.table);
        } else if known.is_some_and(|i| self.copies[i].rows_done >= copy.rows_done && (self.copies[i].done || !copy.done)) {
            return;
        }
        self.copied.extend(batch.events.iter().filter_map(|event| if let Event::Change(change) = event { Some(change.clone()) } else { None }));
        match known {
            Some(i) => self.copies[i] = copy.clone(),
            None => self.copies.push(copy.clone()),
        }
    }
}

#[async_trait]
impl Sink for KeepSink {
    async fn connect(&mut self) -> Result<()> {
        self.connected = true;
        Ok(())
    }
    async fn position(&mut self) -> Result<Option<Position>> {
        Ok(locked(&self.kept).position.clone())
    }
    async fn write(&mut self, batch: &Batch) -> Result<()> {
        if !self.connected {
            return Err(Error::disconnected("the sink is not connected: call `connect` first"));
        }
        locked(&self.kept).write(batch)
    }
    async fn close(&mut self) -> Result<()> {
        self.connected = false;
        Ok(())
    }
}
