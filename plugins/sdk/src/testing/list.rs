//! A source that plays a list of batches.

use std::cmp::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::locked;
use crate::error::{Error, Result};
use crate::event::Batch;
use crate::plugin::Source;
use crate::position::Position;

/// Plays a list of batches in order. From no position: from the first one. From a position: from the first batch that has something
/// the position does not include; that batch comes whole, as from any source. After the last batch it ends, or waits for more.
pub struct ListSource {
    list: ListHandle,
    /// The next batch; None: not connected.
    next: Option<usize>,
}

/// The list behind a [`ListSource`]: it outlives the source, and grows while one plays it.
#[derive(Clone, Default)]
pub struct ListHandle {
    list: Arc<Mutex<List>>,
    more: Arc<Notify>,
}

#[derive(Default)]
struct List {
    batches: Vec<Batch>,
    ended: bool,
    commits: Vec<Position>,
}

impl ListSource {
    /// Plays these batches and ends.
    pub fn new(batches: Vec<Batch>) -> Self {
        let list = ListHandle::default();
        for batch in batches {
            list.push(batch);
        }
        list.end();
        list.source()
    }
}

impl ListHandle {
    /// A source on this list, as after a restart.
    pub fn source(&self) -> ListSource {
        ListSource { list: self.clone(), next: None }
    }
    /// Adds a batch at the end.
    pub fn push(&self, batch: Batch) {
        locked(&self.list).batches.push(batch);
        self.more.notify_one();
    }
    /// No more will come: after the last batch the source ends.
    pub fn end(&self) {
        locked(&self.list).ended = true;
        self.more.notify_one();
    }
    /// Every position committed, in order.
    pub fn commits(&self) -> Vec<Position> {
        locked(&self.list).commits.clone()
    }
}

/// Whether `position` includes everything of this batch; None: the batch has no place in the stream.
fn included(batch: &Batch, position: &Position) -> Result<Option<bool>> {
    let Some(end) = &batch.position else { return Ok(None) };
    match end.order(position) {
        Some(Ordering::Less | Ordering::Equal) => Ok(Some(batch.transactions.iter().all(|mark| position.contains(&mark.id)))),
        Some(Ordering::Greater) => Ok(Some(false)),
        None => Err(Error::fatal(format!("the position `{position}` is not of the stream that the list plays, which comes to `{end}`"))),
    }
}

#[async_trait]
impl Source for ListSource {
    async fn connect(&mut self, from: Option<&Position>) -> Result<()> {
        let list = locked(&self.list.list);
        let mut start = 0;
        if let Some(from) = from {
            for (i, batch) in list.batches.iter().enumerate() {
                match included(batch, from)? {
                    Some(true) => start = i + 1,
                    Some(false) => break,
                    None => {}
                }
            }
            let inside = from.partial.as_ref().map(|partial| &partial.txn);
            let replay = list.batches.iter().position(|batch| batch.transactions.iter().any(|mark| Some(&mark.id) == inside));
            start = replay.map_or(start, |replay| start.min(replay));
        }
        self.next = Some(start);
        Ok(())
    }

    async fn next(&mut self, wait: Duration) -> Result<Option<Batch>> {
        let next = self.next.as_mut().ok_or_else(|| Error::disconnected("the list is not connected: call `connect` first"))?;
        for woken in [false, true] {
            {
                let list = locked(&self.list.list);
                if let Some(batch) = list.batches.get(*next) {
                    *next += 1;
                    return Ok(Some(batch.clone()));
                }
                if list.ended {
                    return Ok(None);
                }
            }
            if woken {
                break;
            }
            // Nothing is taken yet, so being dropped here loses nothing. A wake-up that came before is kept.
            let _ = tokio::time::timeout(wait, self.list.more.notified()).await;
        }
        Ok(Some(Batch::default()))
    }

    async fn commit(&mut self, upto: &Position) -> Result<()> {
        locked(&self.list.list).commits.push(upto.clone());
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        self.next = None;
        Ok(())
    }
}
