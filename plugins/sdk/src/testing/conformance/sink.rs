//! What every sink must do.

use async_trait::async_trait;

use super::{Checked, ensure, note, said};
use crate::error::{ErrorKind, Result};
use crate::event::{Batch, ChangeEvent, CopyMark, Event, Health, HealthState, Op};
use crate::gtid::{Gtid, GtidSet, Sid};
use crate::plugin::{Sink, Source};
use crate::position::{Partial, Position, TxnId};
use crate::testing::{Counts, ListSource, Rows, Workload};
use crate::value::{Row, ValueRef};

/// Opens a sink on a store.
#[async_trait]
pub trait SinkBench: Send {
    /// A new, empty store; the `open`s that follow are on it.
    async fn fresh(&mut self) -> Result<()>;
    /// A sink on the store, not connected. Called again after the last one was closed, as after a restart.
    async fn open(&mut self) -> Result<Box<dyn Sink>>;
    /// How the store differs from what it was told, one sentence each, as far as the store can be asked. No sink is open on it.
    async fn differences(&mut self, told: &Told) -> Result<Vec<String>>;
}

/// What a store was told.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// Changes by table and kind; rows copied are `read`.
    pub counts: Counts,
    /// The rows that it comes to.
    pub rows: Rows,
}

impl Told {
    fn of(workload: &Workload) -> Self {
        Self { counts: workload.counts(), rows: workload.rows() }
    }
    /// How counters differ from what was told; tables that have only zeros may be there or not.
    pub fn compare_counts(&self, found: &Counts) -> Vec<String> {
        let mut differences = Vec::new();
        for table in self.counts.keys().chain(found.keys().filter(|table| !self.counts.contains_key(table))) {
            let (told, found) = (self.counts.get(table).copied().unwrap_or_default(), found.get(table).copied().unwrap_or_default());
            if told != found {
                differences.push(format!("`{table}` was told {told:?} and counts {found:?} ({:?})", Op::ALL.map(Op::as_str)));
            }
        }
        differences
    }
    /// How rows differ from what was told: keys and cells as [`Workload::rows`] prints them.
    pub fn compare_rows(&self, found: &Rows) -> Vec<String> {
        let mut differences = Vec::new();
        for (table, told) in &self.rows {
            let empty = Default::default();
            let found = found.get(table).unwrap_or(&empty);
            for key in told.keys().chain(found.keys().filter(|key| !told.contains_key(*key))) {
                if told.get(key) != found.get(key) {
                    differences.push(format!("row {key} of `{table}` is {:?} and must be {:?}", found.get(key), told.get(key)));
                }
            }
        }
        differences
    }
}

/// Runs every check on a store of its own; the sentences are the promises that were not kept.
pub async fn sink_failures(bench: &mut dyn SinkBench) -> Vec<String> {
    let mut failures = Vec::new();
    note(&mut failures, "a new store has no position", empty_store(bench).await);
    note(&mut failures, "what is written is kept, and the position with it", written(bench).await);
    note(&mut failures, "a batch that comes twice is kept once", twice(bench).await);
    note(&mut failures, "batches with other borders are kept transaction by transaction", other_borders(bench).await);
    note(&mut failures, "a position inside a transaction is kept, and the rest of it is added", partial(bench).await);
    note(&mut failures, "every batch survives close and open", reopened(bench).await);
    note(&mut failures, "an old batch does not move the position back", old_batch(bench).await);
    note(&mut failures, "a batch that only moves the position moves it", position_alone(bench).await);
    note(&mut failures, "news does not move the position", news(bench).await);
    note(&mut failures, "a chunk of a copy that comes twice is kept once", copied(bench).await);
    failures
}

/// A connected sink on a fresh store that has heard of the workload's tables.
async fn begin(bench: &mut dyn SinkBench, workload: &Workload) -> std::result::Result<Box<dyn Sink>, String> {
    bench.fresh().await.map_err(said("a fresh store"))?;
    let mut sink = bench.open().await.map_err(said("open"))?;
    sink.connect().await.map_err(said("connect"))?;
    sink.write(&workload.found()).await.map_err(said("the news that tables are found"))?;
    for batch in workload.empty_copies() {
        sink.write(&batch).await.map_err(said("an empty copy"))?;
    }
    Ok(sink)
}

async fn write(sink: &mut dyn Sink, batches: &[Batch]) -> Checked {
    for (i, batch) in batches.iter().enumerate() {
        sink.write(batch).await.map_err(|error| format!("batch {} of {} failed: {}", i + 1, batches.len(), error.chain()))?;
    }
    Ok(())
}

/// Writes what a source gives that resumes from the sink's position.
async fn resume(sink: &mut dyn Sink, batches: Vec<Batch>) -> Checked {
    let mut source = ListSource::new(batches);
    let position = sink.position().await.map_err(said("position"))?;
    source.connect(position.as_ref()).await.map_err(said("resuming"))?;
    while let Some(batch) = source.next(std::time::Duration::ZERO).await.map_err(said("next"))? {
        sink.write(&batch).await.map_err(said("a batch after resuming"))?;
    }
    Ok(())
}

/// The sink stands at `expected`, where it keeps a position at all.
async fn stands_at(sink: &mut dyn Sink, expected: Option<&Position>) -> Checked {
    let found = sink.position().await.map_err(said("position"))?;
    let Some(found) = found else { return Ok(()) };
    ensure(Some(&found) == expected, || format!("it stands at {} and must stand at {}", shown(Some(&found)), shown(expected)))
}

fn shown(position: Option<&Position>) -> String {
    match position {
        Some(position) => format!("`{position}` ({}, {} changes into the next)", position.at, position.partial.as_ref().map_or(0, |partial| partial.changes)),
        None => "no position".into(),
    }
}

fn end(batches: &[Batch]) -> Option<&Position> {
    batches.iter().rev().find_map(|batch| batch.position.as_ref())
}

/// Closes the sink and asks the store.
async fn store_is(bench: &mut dyn SinkBench, mut sink: Box<dyn Sink>, told: &Told) -> Checked {
    sink.close().await.map_err(said("close"))?;
    drop(sink);
    let mut differences = bench.differences(told).await.map_err(said("asking the store"))?;
    let more = differences.len().saturating_sub(5);
    differences.truncate(5);
    if more > 0 {
        differences.push(format!("and {more} more"));
    }
    ensure(differences.is_empty(), || differences.join("; "))
}

async fn empty_store(bench: &mut dyn SinkBench) -> Checked {
    bench.fresh().await.map_err(said("a fresh store"))?;
    let mut sink = bench.open().await.map_err(said("open"))?;
    sink.connect().await.map_err(said("connect"))?;
    let position = sink.position().await.map_err(said("position"))?;
    ensure(position.is_none(), || format!("it stands at {}", shown(position.as_ref())))?;
    store_is(bench, sink, &Told::default()).await
}

async fn written(bench: &mut dyn SinkBench) -> Checked {
    for most in [1, 7, usize::MAX] {
        let workload = Workload::random(most as u64, 60);
        let batches = workload.batches(most);
        let mut sink = begin(bench, &workload).await?;
        write(&mut *sink, &batches).await?;
        stands_at(&mut *sink, end(&batches)).await?;
        store_is(bench, sink, &Told::of(&workload)).await?;
    }
    Ok(())
}

async fn twice(bench: &mut dyn SinkBench) -> Checked {
    let workload = Workload::random(11, 60);
    let batches = workload.batches(9);
    let mut sink = begin(bench, &workload).await?;
    for batch in &batches {
        write(&mut *sink, &[batch.clone(), batch.clone()]).await?;
        stands_at(&mut *sink, batch.position.as_ref()).await?;
    }
    store_is(bench, sink, &Told::of(&workload)).await
}

async fn other_borders(bench: &mut dyn SinkBench) -> Checked {
    let workload = Workload::random(12, 80);
    let mut sink = begin(bench, &workload).await?;
    let large = workload.batches(13);
    write(&mut *sink, &large[..large.len() / 2]).await?;
    // From the first transaction on, cut elsewhere.
    let small = workload.batches(4);
    write(&mut *sink, &small).await?;
    stands_at(&mut *sink, end(&small)).await?;
    write(&mut *sink, &workload.batches(usize::MAX)).await?;
    store_is(bench, sink, &Told::of(&workload)).await
}

async fn partial(bench: &mut dyn SinkBench) -> Checked {
    let workload = Workload::random(13, 80);
    for (before, after) in [(5, 11), (11, 5), (16, usize::MAX)] {
        let batches = workload.batches(before);
        let inside = batches.iter().rposition(|batch| batch.position.as_ref().is_some_and(|position| position.partial.is_some()));
        let inside = inside.ok_or("the workload has no large transaction")?;
        let mut sink = begin(bench, &workload).await?;
        write(&mut *sink, &batches[..=inside]).await?;
        stands_at(&mut *sink, batches[inside].position.as_ref()).await?;
        sink.close().await.map_err(said("close"))?;
        let mut sink = bench.open().await.map_err(said("open"))?;
        sink.connect().await.map_err(said("connect"))?;
        stands_at(&mut *sink, batches[inside].position.as_ref()).await?;
        resume(&mut *sink, workload.batches(after)).await?;
        stands_at(&mut *sink, end(&workload.batches(after))).await?;
        store_is(bench, sink, &Told::of(&workload)).await?;
    }
    Ok(())
}

async fn reopened(bench: &mut dyn SinkBench) -> Checked {
    let workload = Workload::random(14, 30);
    let batches = workload.batches(10);
    let mut sink = begin(bench, &workload).await?;
    for batch in &batches {
        sink.write(batch).await.map_err(said("write"))?;
        sink.close().await.map_err(said("close"))?;
        drop(sink);
        sink = bench.open().await.map_err(said("open"))?;
        sink.connect().await.map_err(said("connect"))?;
        stands_at(&mut *sink, batch.position.as_ref()).await?;
        // Connecting once more, as after a lost connection, changes nothing.
        sink.connect().await.map_err(said("connecting again"))?;
        stands_at(&mut *sink, batch.position.as_ref()).await?;
    }
    store_is(bench, sink, &Told::of(&workload)).await
}

async fn old_batch(bench: &mut dyn SinkBench) -> Checked {
    let workload = Workload::random(15, 40);
    let batches = workload.batches(8);
    let mut sink = begin(bench, &workload).await?;
    write(&mut *sink, &batches).await?;
    for batch in batches.iter().rev() {
        sink.write(batch).await.map_err(said("an old batch"))?;
        stands_at(&mut *sink, end(&batches)).await?;
    }
    store_is(bench, sink, &Told::of(&workload)).await
}

async fn position_alone(bench: &mut dyn SinkBench) -> Checked {
    let workload = Workload::random(16, 20);
    let batches = workload.batches(usize::MAX);
    let mut sink = begin(bench, &workload).await?;
    write(&mut *sink, &batches).await?;
    let mut further = end(&batches).cloned().ok_or("the workload is empty")?;
    further.at.offset += 100;
    further.gtids.get_or_insert_with(GtidSet::default).insert(&other_gtid());
    let batch = Batch { position: Some(further.clone()), records: 1, control: 1, ..Batch::default() };
    sink.write(&batch).await.map_err(said("a batch that only moves the position"))?;
    stands_at(&mut *sink, Some(&further)).await?;
    sink.write(&Batch::default()).await.map_err(said("an empty batch"))?;
    stands_at(&mut *sink, Some(&further)).await?;
    store_is(bench, sink, &Told::of(&workload)).await
}

fn other_gtid() -> Gtid {
    Gtid { sid: Sid { uuid: [7; 16], tag: None }, number: 1 }
}

async fn news(bench: &mut dyn SinkBench) -> Checked {
    let workload = Workload::random(17, 20);
    let batches = workload.batches(6);
    let health = Health { component: "conformance".into(), state: HealthState::Warning, messages: vec!["a message".into()] };
    let mut sink = begin(bench, &workload).await?;
    for batch in &batches {
        sink.write(batch).await.map_err(said("write"))?;
        let mut events = vec![Event::Health(health.clone())];
        events.extend(workload.tables().iter().cloned().map(Event::TableChanged));
        sink.write(&Batch::news(events)).await.map_err(said("news"))?;
        stands_at(&mut *sink, batch.position.as_ref()).await?;
    }
    store_is(bench, sink, &Told::of(&workload)).await
}

async fn copied(bench: &mut dyn SinkBench) -> Checked {
    let workload = Workload::random(18, 0);
    let table = workload.tables()[0].clone();
    bench.fresh().await.map_err(said("a fresh store"))?;
    let mut sink = bench.open().await.map_err(said("open"))?;
    sink.connect().await.map_err(said("connect"))?;
    sink.write(&workload.found()).await.map_err(said("the news that tables are found"))?;
    let mut told = Told::default();
    let chunks: Vec<Batch> = (0..3_u64)
        .map(|chunk| {
            let row = |id: u64| Row::of(&[ValueRef::Int(id as i64), ValueRef::Text("copied"), ValueRef::Decimal("1.50")]);
            let changes = (chunk * 2..chunk * 2 + 2).map(|id| ChangeEvent { table: table.clone(), op: Op::Snapshot, before: None, after: Some(row(id)) });
            let changes: Vec<ChangeEvent> = changes.collect();
            changes.iter().for_each(|change| crate::testing::workload::apply(&mut told.rows, change));
            let rows_done = chunk * 2 + 2;
            let next = Some(vec![(rows_done - 1).to_string()]);
            let mark = CopyMark { table: table.id.clone(), rows_done, rows_expected: 6, next, done: chunk == 2, snapshot: None, restart: false };
            Batch { events: changes.into_iter().map(Event::Change).collect(), copy: Some(mark), records: 2, ..Batch::default() }
        })
        .collect();
    told.counts.entry(table.id.clone()).or_default()[Op::Snapshot.index()] = 6;
    for chunk in &chunks {
        write(&mut *sink, &[chunk.clone(), chunk.clone()]).await?;
    }
    let position = sink.position().await.map_err(said("position"))?;
    ensure(position.is_none(), || format!("a copy moved the position to {}", shown(position.as_ref())))?;
    store_is(bench, sink, &told).await
}

/// For stores that are the truth about the position; a sink may also take what it is told.
pub(super) async fn foreign(bench: &mut dyn SinkBench) -> Checked {
    let workload = Workload::random(19, 30);
    let batches = workload.batches(usize::MAX);
    let mut sink = begin(bench, &workload).await?;
    write(&mut *sink, &batches).await?;
    if sink.position().await.map_err(said("position"))?.is_none() {
        return store_is(bench, sink, &Told::of(&workload)).await;
    }
    let mut foreign = batches.last().cloned().ok_or("the workload is empty")?;
    let mut gtids = GtidSet::default();
    gtids.insert(&other_gtid());
    foreign.transactions.truncate(1);
    foreign.transactions[0].id = TxnId::Gtid(other_gtid());
    foreign.events.truncate(foreign.transactions[0].events.end);
    foreign.control = 2;
    foreign.records = foreign.events.len() as u64 + 2;
    foreign.position = Some(Position { server: "elsewhere".into(), gtids: Some(gtids), partial: None::<Partial>, ..end(&batches).cloned().ok_or("no position")? });
    match sink.write(&foreign).await {
        Ok(()) => return Err("it was written".into()),
        Err(error) => ensure(error.kind() == ErrorKind::Fatal, || format!("the error is {:?} and must be Fatal: {}", error.kind(), error.chain()))?,
    }
    drop(sink);
    let mut sink = bench.open().await.map_err(said("open"))?;
    sink.connect().await.map_err(said("connect"))?;
    stands_at(&mut *sink, end(&batches)).await?;
    store_is(bench, sink, &Told::of(&workload)).await
}
