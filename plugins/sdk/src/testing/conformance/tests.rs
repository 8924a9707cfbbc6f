//! The suite on the plugins of this crate, and on some that break a promise: it must say so.

use async_trait::async_trait;

use super::*;
use crate::error::{Error, Result};
use crate::event::{Batch, ChangeEvent, Event, Op, TransactionMark};
use crate::gtid::{Gtid, GtidSet, Sid};
use crate::plugin::{Sink, Source};
use crate::position::{Coordinate, Position, TxnId};
use crate::testing::{Call, Fault, Faults, FaultySink, KeepSink, ListHandle, Workload};
use crate::value::{Row, ValueRef};

/// Keeps, and breaks a promise on the way.
#[derive(Clone, Copy, PartialEq)]
enum Broken {
    No,
    /// Forgets the position, so that everything comes again.
    Position,
    /// Drops what is partial.
    Partial,
    /// Takes every batch as new.
    Duplicates,
}

struct Keeping {
    store: KeepSink,
    broken: Broken,
}

struct Breaking {
    inner: KeepSink,
    broken: Broken,
    n: u64,
}

#[async_trait]
impl Sink for Breaking {
    async fn connect(&mut self) -> Result<()> {
        self.inner.connect().await
    }
    async fn position(&mut self) -> Result<Option<Position>> {
        let mut position = self.inner.position().await?;
        if self.broken == Broken::Partial
            && let Some(position) = &mut position
        {
            position.partial = None;
        }
        Ok(if self.broken == Broken::Position { Some(start()) } else { position })
    }
    async fn write(&mut self, batch: &Batch) -> Result<()> {
        let mut batch = batch.clone();
        if self.broken == Broken::Duplicates {
            for mark in &mut batch.transactions {
                self.n += 1;
                mark.id = TxnId::Gtid(Gtid { sid: Sid { uuid: [9; 16], tag: None }, number: self.n });
                mark.first_change = 0;
            }
        }
        self.inner.write(&batch).await
    }
    async fn close(&mut self) -> Result<()> {
        self.inner.close().await
    }
}

#[async_trait]
impl SinkBench for Keeping {
    async fn fresh(&mut self) -> Result<()> {
        self.store = KeepSink::default();
        Ok(())
    }
    async fn open(&mut self) -> Result<Box<dyn Sink>> {
        Ok(Box::new(Breaking { inner: self.store.clone(), broken: self.broken, n: 0 }))
    }
    async fn differences(&mut self, told: &Told) -> Result<Vec<String>> {
        let kept = self.store.kept();
        let mut differences = told.compare_counts(&kept.counts());
        differences.extend(told.compare_rows(&kept.rows()));
        Ok(differences)
    }
}

fn start() -> Position {
    Position { server: "0c0f02f0-0000-4000-8000-000000000001".into(), file: "binlog.000001".into(), at: Coordinate { log: 1, offset: 200 }, gtids: Some(GtidSet::default()), ..Position::default() }
}

#[tokio::test]
async fn the_keeping_sink_keeps_every_promise() {
    sink(&mut Keeping { store: KeepSink::default(), broken: Broken::No }).await;
}

#[tokio::test]
async fn a_sink_that_breaks_a_promise_is_named() {
    for (broken, promise) in [
        (Broken::Position, "every batch survives close and open"),
        (Broken::Partial, "a position inside a transaction is kept"),
        (Broken::Duplicates, "a batch that comes twice is kept once"),
    ] {
        let failures = sink_failures(&mut Keeping { store: KeepSink::default(), broken }).await;
        assert!(failures.iter().any(|failure| failure.starts_with(promise)), "{promise}: {failures:?}");
    }
}

/// A log in memory. `cut`: changes in a batch.
struct Listing {
    log: ListHandle,
    cut: usize,
    forgetful: bool,
    number: u64,
    done: GtidSet,
    table: std::sync::Arc<crate::TableSchema>,
}

impl Listing {
    fn new(cut: usize, forgetful: bool) -> Self {
        let table = Workload::random(1, 0).tables()[0].clone();
        Self { log: ListHandle::default(), cut, forgetful, number: 0, done: GtidSet::default(), table }
    }
}

#[async_trait]
impl SourceBench for Listing {
    async fn fresh(&mut self) -> Result<()> {
        *self = Self::new(self.cut, self.forgetful);
        Ok(())
    }
    async fn open(&mut self) -> Result<Box<dyn Source>> {
        let inner = self.log.source();
        Ok(if self.forgetful { Box::new(Forgetful(inner)) } else { Box::new(inner) })
    }
    async fn commit(&mut self, changes: &[u64]) -> Result<()> {
        for &changes in changes {
            self.number += 1;
            let gtid = Gtid { sid: Sid { uuid: [1; 16], tag: None }, number: self.number };
            let row = |i: u64| Row::of(&[ValueRef::UInt(self.number * 1000 + i), ValueRef::Null, ValueRef::Null]);
            let events: Vec<Event> = (0..changes)
                .map(|i| Event::Change(ChangeEvent { table: self.table.clone(), op: Op::Insert, before: None, after: Some(row(i)) }))
                .collect();
            let mut first_change = 0;
            for part in events.chunks(self.cut) {
                let end = first_change + part.len() as u64;
                let complete = end == changes;
                let at = Coordinate { log: 1, offset: self.number * 100 };
                if complete {
                    self.done.insert(&gtid);
                }
                let partial = (!complete).then(|| crate::Partial { txn: TxnId::Gtid(gtid.clone()), changes: end });
                self.log.push(Batch {
                    events: part.to_vec(),
                    transactions: vec![TransactionMark { id: TxnId::Gtid(gtid.clone()), origin: None, at, commit_micros: 1, events: 0..part.len(), first_change, complete }],
                    position: Some(Position { at, gtids: Some(self.done.clone()), partial, ..start() }),
                    records: part.len() as u64,
                    ..Batch::default()
                });
                first_change = end;
            }
        }
        Ok(())
    }
}

/// A source that loses the first batch after each resume.
struct Forgetful(crate::testing::ListSource);

#[async_trait]
impl Source for Forgetful {
    async fn connect(&mut self, from: Option<&Position>) -> Result<()> {
        self.0.connect(from).await?;
        if from.is_some() {
            self.0.next(std::time::Duration::ZERO).await?;
        }
        Ok(())
    }
    async fn next(&mut self, wait: std::time::Duration) -> Result<Option<Batch>> {
        self.0.next(wait).await
    }
    async fn commit(&mut self, upto: &Position) -> Result<()> {
        self.0.commit(upto).await
    }
    async fn close(&mut self) -> Result<()> {
        self.0.close().await
    }
}

#[tokio::test]
async fn the_list_source_keeps_every_promise() {
    for cut in [1, 3, 1000] {
        source(&mut Listing::new(cut, false)).await;
    }
}

#[tokio::test]
async fn a_source_that_leaves_something_out_is_named() {
    let failures = source_failures_within_patience(&mut Listing::new(2, true)).await;
    assert!(failures.iter().any(|failure| failure.starts_with("from a position, what follows it comes")), "{failures:?}");
}

/// The log is ended, so that a source that lost a batch does not keep the check waiting.
async fn source_failures_within_patience(bench: &mut Listing) -> Vec<String> {
    struct Ending<'a>(&'a mut Listing);
    #[async_trait]
    impl SourceBench for Ending<'_> {
        async fn fresh(&mut self) -> Result<()> {
            self.0.fresh().await
        }
        async fn open(&mut self) -> Result<Box<dyn Source>> {
            self.0.open().await
        }
        async fn commit(&mut self, changes: &[u64]) -> Result<()> {
            self.0.commit(changes).await?;
            self.0.log.end();
            Ok(())
        }
    }
    source_failures(&mut Ending(bench)).await
}

#[tokio::test]
async fn a_fault_comes_at_its_call_before_or_after_the_effect() {
    let (store, faults) = (KeepSink::default(), Faults::default());
    let mut sink = FaultySink::new(store.clone(), faults.clone());
    sink.connect().await.expect("connect");
    let batches = Workload::random(3, 20).batches(4);
    faults.add(Fault { call: Call::Write, nth: 2, kind: crate::ErrorKind::Disconnected, after: false });
    faults.add(Fault { call: Call::Write, nth: 3, kind: crate::ErrorKind::Fatal, after: true });
    let mut kinds = Vec::new();
    for batch in &batches[..3] {
        kinds.push(sink.write(batch).await.map_err(|error: Error| error.kind()));
    }
    assert_eq!(kinds, [Ok(()), Err(crate::ErrorKind::Disconnected), Err(crate::ErrorKind::Fatal)]);
    assert_eq!(store.kept().position, batches[2].position);
    assert_eq!(faults.calls(Call::Write), 3);
}
