//! What every source must do.

use std::cmp::Ordering;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::{Checked, ensure, note, said};
use crate::error::Result;
use crate::event::{Batch, Event, Op};
use crate::plugin::Source;
use crate::position::{Partial, Position, TxnId};
use crate::value::Row;

/// Opens a source on a log.
#[async_trait]
pub trait SourceBench: Send {
    /// A new log without changes; the `open`s that follow are on it. What else happens on it must not have changes of rows.
    async fn fresh(&mut self) -> Result<()>;
    /// A source on the log, not connected. Called again after the last one was closed, as after a restart.
    async fn open(&mut self) -> Result<Box<dyn Source>>;
    /// Commits one transaction for each number, in order, with as many changes (1 or more), all rows different.
    async fn commit(&mut self, changes: &[u64]) -> Result<()>;
}

/// How long a check waits for changes that were committed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs every check on a log of its own; the sentences are the promises that were not kept.
pub async fn source_failures(bench: &mut dyn SourceBench) -> Vec<String> {
    let mut failures = Vec::new();
    note(&mut failures, "committed transactions come in order, each change once", in_order(bench).await);
    note(&mut failures, "from a position, what follows it comes and nothing is left out", resumed(bench).await);
    note(&mut failures, "from a position inside a transaction, the transaction comes from its start", resumed_inside(bench).await);
    note(&mut failures, "what comes again has the same names, ordinals and rows", again(bench).await);
    note(&mut failures, "where nothing happens, `next` comes back with nothing", quiet(bench).await);
    failures
}

/// One change as it must be at every delivery.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    txn: TxnId,
    ordinal: u64,
    op: Op,
    before: Option<Row>,
    after: Option<Row>,
}

/// What is wrong with the shape of a batch of the stream; None: it is well formed.
pub fn shape_of(batch: &Batch) -> Option<String> {
    shape(batch).err()
}

fn shape(batch: &Batch) -> Checked {
    ensure(batch.copy.is_none(), || "a source gave a chunk of a copy, which is the host's".into())?;
    let mut at = 0;
    for (i, mark) in batch.transactions.iter().enumerate() {
        ensure(mark.events.start >= at && mark.events.end <= batch.events.len() && mark.events.start <= mark.events.end, || {
            format!("the events {:?} of transaction `{}` overlap others or are not there ({} events)", mark.events, mark.id, batch.events.len())
        })?;
        let between = batch.events[at..mark.events.start].iter().any(in_stream);
        ensure(!between, || format!("a change before transaction `{}` belongs to none", mark.id))?;
        at = mark.events.end;
        let read = batch.events[mark.events.clone()].iter().any(|event| matches!(event, Event::Change(change) if change.op == Op::Snapshot));
        ensure(!read, || format!("transaction `{}` has a row that was read, which is no change", mark.id))?;
        ensure(mark.complete || i + 1 == batch.transactions.len(), || format!("transaction `{}` is not complete and another one follows", mark.id))?;
        ensure(mark.commit_micros > 0, || format!("transaction `{}` has no time", mark.id))?;
    }
    ensure(!batch.events[at..].iter().any(in_stream), || "a change at the end of the batch belongs to no transaction".into())?;
    let changes = batch.events.iter().filter(|event| matches!(event, Event::Change(_))).count() as u64;
    ensure(batch.records == changes + batch.control, || format!("{} records are not {changes} changes and {} control", batch.records, batch.control))?;
    let Some(position) = &batch.position else {
        return ensure(batch.transactions.is_empty(), || "a batch with transactions has no position".into());
    };
    for mark in &batch.transactions {
        if mark.complete {
            ensure(position.included(&mark.id) == u64::MAX, || format!("transaction `{}` is complete and the position does not include it", mark.id))?;
        } else {
            let changes = batch.events[mark.events.clone()].iter().filter(|event| matches!(event, Event::Change(_))).count() as u64;
            let included = mark.first_change + changes;
            ensure(position.included(&mark.id) == included, || {
                format!("{included} changes of transaction `{}` came, and the position includes {}", mark.id, position.included(&mark.id))
            })?;
        }
    }
    Ok(())
}

fn in_stream(event: &Event) -> bool {
    matches!(event, Event::Change(_) | Event::Schema(_))
}

async fn open(bench: &mut dyn SourceBench, from: Option<&Position>) -> std::result::Result<Box<dyn Source>, String> {
    let mut source = bench.open().await.map_err(said("open"))?;
    source.connect(from).await.map_err(said("connect"))?;
    Ok(source)
}

/// Reads until `changes` changes that `from` does not include have come, or no more come.
async fn read(source: &mut dyn Source, from: Option<&Position>, changes: u64) -> std::result::Result<(Vec<Batch>, Vec<Seen>), String> {
    let (mut batches, mut seen) = (Vec::new(), Vec::new());
    let deadline = Instant::now() + PATIENCE;
    let mut stored = from.cloned();
    while (seen.len() as u64) < changes && Instant::now() < deadline {
        let Some(batch) = source.next(Duration::from_millis(200)).await.map_err(said("next"))? else { break };
        shape(&batch)?;
        for mark in &batch.transactions {
            let included = stored.as_ref().map_or(0, |position| position.included(&mark.id));
            for (change, ordinal) in batch.new_changes(mark, stored.as_ref()).zip(mark.first_change.max(included)..) {
                seen.push(Seen { txn: mark.id.clone(), ordinal, op: change.op, before: change.before.clone(), after: change.after.clone() });
            }
        }
        // Forward only: a replay inside a transaction comes to positions that were passed already.
        if let Some(position) = &batch.position
            && stored.as_ref().is_none_or(|stored| position.order(stored) == Some(Ordering::Greater))
        {
            stored = Some(position.clone());
        }
        batches.push(batch);
    }
    Ok((batches, seen))
}

/// A fresh log with these transactions, read by a source that was there from the beginning.
async fn first(bench: &mut dyn SourceBench, transactions: &[u64]) -> std::result::Result<(Vec<Batch>, Vec<Seen>), String> {
    bench.fresh().await.map_err(said("a fresh log"))?;
    let mut source = open(bench, None).await?;
    bench.commit(transactions).await.map_err(said("writing"))?;
    let (batches, seen) = read(&mut *source, None, transactions.iter().sum()).await?;
    if let Some(position) = batches.iter().rev().find_map(|batch| batch.position.as_ref()) {
        source.commit(position).await.map_err(said("commit"))?;
    }
    source.close().await.map_err(said("close"))?;
    Ok((batches, seen))
}

fn sizes(seen: &[Seen]) -> std::result::Result<Vec<u64>, String> {
    let mut sizes: Vec<u64> = Vec::new();
    let mut last: Option<&TxnId> = None;
    for change in seen {
        if last == Some(&change.txn) {
            let size = sizes.last_mut().ok_or("no transaction")?;
            ensure(change.ordinal == *size, || format!("change {size} of transaction `{}` has the ordinal {}", change.txn, change.ordinal))?;
            *size += 1;
        } else {
            ensure(change.ordinal == 0, || format!("the first change of transaction `{}` has the ordinal {}", change.txn, change.ordinal))?;
            sizes.push(1);
            last = Some(&change.txn);
        }
    }
    Ok(sizes)
}

async fn in_order(bench: &mut dyn SourceBench) -> Checked {
    let transactions = [1, 3, 1, 40, 2, 1];
    let (batches, seen) = first(bench, &transactions).await?;
    let found = sizes(&seen)?;
    ensure(found == transactions, || format!("transactions of {transactions:?} changes came as {found:?}"))?;
    let positions: Vec<&Position> = batches.iter().filter_map(|batch| batch.position.as_ref()).collect();
    for pair in positions.windows(2) {
        let order = pair[0].order(pair[1]);
        ensure(order.is_some_and(|order| order.is_le()), || format!("the position went from `{}` to `{}`, which is not forward", pair[0], pair[1]))?;
    }
    Ok(())
}

async fn resumed(bench: &mut dyn SourceBench) -> Checked {
    let (batches, all) = first(bench, &[2, 1, 5, 1]).await?;
    ensure(all.len() == 9, || format!("9 changes were committed, {} came", all.len()))?;
    for position in batches.iter().filter_map(|batch| batch.position.as_ref()) {
        let rest: Vec<Seen> = all.iter().filter(|seen| position.included(&seen.txn) <= seen.ordinal).cloned().collect();
        let mut source = open(bench, Some(position)).await?;
        let (_, found) = read(&mut *source, Some(position), rest.len() as u64).await?;
        source.close().await.map_err(said("close"))?;
        ensure(found == rest, || format!("after `{position}` {} changes must come and {} came, or others", rest.len(), found.len()))?;
    }
    // From the end, what is committed later.
    let Some(end) = batches.iter().rev().find_map(|batch| batch.position.clone()) else { return Err("no batch had a position".into()) };
    bench.commit(&[4]).await.map_err(said("writing"))?;
    let mut source = open(bench, Some(&end)).await?;
    let (_, found) = read(&mut *source, Some(&end), 4).await?;
    source.close().await.map_err(said("close"))?;
    let found = sizes(&found)?;
    ensure(found == [4], || format!("a transaction of 4 changes after `{end}` came as {found:?}"))
}

async fn resumed_inside(bench: &mut dyn SourceBench) -> Checked {
    let (batches, all) = first(bench, &[1, 6, 2]).await?;
    ensure(all.len() == 9, || format!("9 changes were committed, {} came", all.len()))?;
    let large = all[1].txn.clone();
    // The position before the large transaction: of a run that stopped there.
    let before = batches.iter().filter_map(|batch| batch.position.as_ref()).rfind(|position| position.included(&large) == 0).cloned();
    let Some(mut inside) = before else {
        // All came in one batch, and only the source makes positions. Its own positions are tested above.
        return Ok(());
    };
    inside.partial = Some(Partial { txn: large.clone(), changes: 4 });
    let mut source = open(bench, Some(&inside)).await?;
    let (batches, found) = read(&mut *source, Some(&inside), 4).await?;
    source.close().await.map_err(said("close"))?;
    let rest: Vec<Seen> = all.iter().filter(|seen| inside.included(&seen.txn) <= seen.ordinal).cloned().collect();
    ensure(found == rest, || format!("4 changes of `{large}` were there, {} must come and {} came, or others", rest.len(), found.len()))?;
    let start = batches.iter().flat_map(|batch| &batch.transactions).find(|mark| mark.id == large).map(|mark| mark.first_change);
    ensure(start == Some(0), || format!("`{large}` began at change {start:?} and must begin at 0"))
}

async fn again(bench: &mut dyn SourceBench) -> Checked {
    bench.fresh().await.map_err(said("a fresh log"))?;
    let mut source = open(bench, None).await?;
    bench.commit(&[1]).await.map_err(said("writing"))?;
    let (batches, _) = read(&mut *source, None, 1).await?;
    let Some(from) = batches.iter().rev().find_map(|batch| batch.position.clone()) else { return Err("no batch had a position".into()) };
    bench.commit(&[3, 1, 2]).await.map_err(said("writing"))?;
    let (_, once) = read(&mut *source, Some(&from), 6).await?;
    // Nothing of it was committed: a restart sees it again.
    drop(source);
    let mut source = open(bench, Some(&from)).await?;
    let (_, twice) = read(&mut *source, Some(&from), 6).await?;
    // The same source, connected again as after a lost connection.
    source.connect(Some(&from)).await.map_err(said("connecting again"))?;
    let (_, thrice) = read(&mut *source, Some(&from), 6).await?;
    source.close().await.map_err(said("close"))?;
    ensure(once.len() == 6, || format!("6 changes were committed, {} came", once.len()))?;
    ensure(once == twice, || "after a restart they are not the same".into())?;
    ensure(once == thrice, || "after connecting again they are not the same".into())
}

async fn quiet(bench: &mut dyn SourceBench) -> Checked {
    bench.fresh().await.map_err(said("a fresh log"))?;
    let mut source = open(bench, None).await?;
    let started = Instant::now();
    for _ in 0..3 {
        let Some(batch) = source.next(Duration::from_millis(50)).await.map_err(said("next"))? else { break };
        shape(&batch)?;
        ensure(batch.transactions.iter().all(|mark| mark.events.is_empty()), || "changes came that nobody committed".into())?;
    }
    let took = started.elapsed();
    source.close().await.map_err(said("close"))?;
    ensure(took < Duration::from_secs(5), || format!("three calls of `next` with a wait of 50 ms took {took:?}"))
}
