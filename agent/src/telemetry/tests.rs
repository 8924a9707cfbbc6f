//! Traces as a collector receives them.

use std::sync::Mutex;

use opentelemetry::trace::{SpanId, SpanKind, Status};
use opentelemetry_sdk::error::OTelSdkResult;
use plumbline_sdk::{Batch, ChangeEvent, Coordinate, Event, Op, Position, TableId, TableSchema, TransactionMark, TxnId};

use super::*;

/// Keeps what is sent; while `stuck` it takes nothing and does not answer.
#[derive(Debug, Clone, Default)]
struct Recorder {
    spans: Arc<Mutex<Vec<SpanData>>>,
    stuck: bool,
}

impl Exporter for Recorder {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        if self.stuck {
            std::future::pending::<()>().await;
        }
        self.spans.lock().expect("not poisoned").extend(batch);
        Ok(())
    }
}

impl Recorder {
    fn named(&self, start: &str) -> Vec<SpanData> {
        self.spans.lock().expect("not poisoned").iter().filter(|span| span.name.starts_with(start)).cloned().collect()
    }
}

/// So many transactions of so many inserts, committed at second 1.
fn batch(transactions: u64, inserts: usize) -> Batch {
    let table = Arc::new(TableSchema { id: TableId::new("shop", "orders"), columns: Vec::new() });
    let mut batch = Batch::default();
    for number in 1..=transactions {
        let first = batch.events.len();
        batch.events.extend((0..inserts).map(|_| Event::Change(ChangeEvent { table: Arc::clone(&table), op: Op::Insert, before: None, after: None })));
        let at = Coordinate { log: 1, offset: number * 100 };
        batch.transactions.push(TransactionMark { id: TxnId::At(at), origin: None, at, commit_micros: 1_000_000, events: first..batch.events.len(), first_change: 0, complete: true });
    }
    let at = Coordinate { log: 1, offset: transactions * 100 };
    batch.position = Some(Position { server: "s".into(), file: "binlog.000001".into(), at, ..Position::default() });
    batch
}

fn outline(outcome: Option<Outcome>) -> Outline {
    Outline::of(&batch(2, 3), |_| outcome)
}

fn times() -> Times {
    let sink = |plugin, db_system, ended| Some(SinkTime { plugin, db_system, began: 2_100_000, ended });
    Times { received: 2_000_000, stored: 3_000_000, sinks: [sink("sqlite-history", "sqlite", 2_500_000), sink("postgres-applier", "postgresql", 3_000_000)] }
}

fn started() -> (ChangeTraces, Recorder) {
    let recorder = Recorder::default();
    (ChangeTraces::send_to(recorder.clone(), "p"), recorder)
}

fn micros(time: std::time::SystemTime) -> u128 {
    time.duration_since(std::time::UNIX_EPOCH).expect("after the epoch").as_micros()
}

async fn flushed(traces: &ChangeTraces) {
    traces.flush(Duration::from_secs(10)).await;
    assert_eq!(traces.queue().expect("on").0, 0, "nothing waits");
    assert_eq!(traces.waiting.bytes.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_trace_ends_when_its_change_was_seen_on_the_target() {
    // The target may be seen before the other sink has it too.
    for seen_first in [false, true] {
        let (traces, recorder) = started();
        if seen_first {
            traces.seen(7, outline(Some(Outcome::Match)), 3_200_000, 3_500_000);
        }
        traces.stored(Some(7), outline(None), times());
        if !seen_first {
            traces.seen(7, outline(Some(Outcome::Match)), 3_200_000, 3_500_000);
        }
        flushed(&traces).await;
        let (roots, verified) = (recorder.named("change shop.orders"), recorder.named("verify shop.orders"));
        assert_eq!((roots.len(), verified.len()), (6, 6));
        for (root, verify) in roots.iter().zip(&verified) {
            assert_eq!((micros(root.start_time), micros(root.end_time)), (1_000_000, 3_500_000));
            assert_eq!((micros(verify.start_time), micros(verify.end_time)), (3_200_000, 3_500_000));
            assert_eq!((verify.parent_span_id, verify.span_context.trace_id()), (root.span_context.span_id(), root.span_context.trace_id()));
            assert!(verify.attributes.contains(&KeyValue::new("plumbline.result", "match")));
        }
        assert_eq!(traces.counts.ended.load(Ordering::Relaxed), traces.counts.exported.load(Ordering::Relaxed));
    }
}

#[tokio::test]
async fn each_sink_has_a_span_of_its_own_time() {
    let (traces, recorder) = started();
    traces.stored(None, outline(None), times());
    flushed(&traces).await;
    let processes = recorder.named("process ");
    for (name, ended) in [("write sqlite-history", 2_500_000), ("write postgres-applier", 3_000_000)] {
        let spans = recorder.named(name);
        assert_eq!(spans.len(), 6);
        for (span, process) in spans.iter().zip(&processes) {
            assert_eq!((micros(span.start_time), micros(span.end_time)), (2_100_000, ended));
            assert_eq!((span.parent_span_id, span.span_kind.clone()), (process.span_context.span_id(), SpanKind::Client));
        }
    }
    let mut ids: Vec<_> = recorder.named("").iter().map(|span| (span.span_context.trace_id(), span.span_context.span_id())).collect();
    let all = ids.len();
    ids.sort_by_key(|(trace, span)| (trace.to_bytes(), span.to_bytes()));
    ids.dedup();
    assert_eq!(ids.len(), all, "no two spans of a trace have one id");
}

#[tokio::test]
async fn a_check_that_comes_late_follows_by_itself() {
    let (traces, recorder) = started();
    traces.stored(Some(1), outline(None), times());
    flushed(&traces).await;
    traces.seen(1, outline(Some(Outcome::Missing)), 9_000_000, 9_500_000);
    flushed(&traces).await;
    let (roots, verified) = (recorder.named("change "), recorder.named("verify "));
    assert_eq!((roots.len(), verified.len()), (6, 6), "no root comes twice");
    for (root, verify) in roots.iter().zip(&verified) {
        assert_eq!(micros(root.end_time), 3_000_000, "stored");
        assert_eq!(root.parent_span_id, SpanId::INVALID);
        assert_eq!((verify.parent_span_id, verify.span_context.trace_id()), (root.span_context.span_id(), root.span_context.trace_id()));
        assert!(matches!(verify.status, Status::Error { .. }));
    }
}

#[tokio::test]
async fn what_is_never_checked_goes_out_after_a_moment() {
    let (traces, recorder) = started();
    traces.stored(Some(1), outline(None), times());
    let deadline = Instant::now() + HOLD * 10;
    while recorder.named("change ").len() < 6 {
        assert!(Instant::now() < deadline, "it is held for ever");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(recorder.named("verify ").len(), 0);
}

#[tokio::test]
async fn a_stuck_collector_costs_spans_which_are_counted_and_bounded_memory() {
    let traces = ChangeTraces::send_to(Recorder { stuck: true, ..Recorder::default() }, "p");
    // Many small transactions weigh more than their changes: bytes are what bounds them.
    let small = Outline::of(&batch(10_000, 1), |_| None);
    for number in 0..200 {
        traces.stored(Some(number), small.clone(), times());
        tokio::task::yield_now().await;
        assert!(traces.waiting.bytes.load(Ordering::Relaxed) <= QUEUE_BYTES && traces.waiting.changes.load(Ordering::Relaxed) <= QUEUE);
    }
    let (waiting, _) = traces.queue().expect("on");
    assert!(waiting > 10_000, "what fits waits");
    let dropped = traces.counts.dropped.load(Ordering::Relaxed);
    assert_eq!(dropped, (200 * 10_000 - waiting as u64) * 5, "every span that is left out is counted");
    assert_eq!(traces.counts.exported.load(Ordering::Relaxed), 0);
}

#[test]
fn room_is_bounded_by_changes_and_by_bytes() {
    let of = |changes, bytes| {
        let mut of = outline(None);
        (of.changes, of.bytes) = (changes, bytes);
        of
    };
    let waiting = Waiting::default();
    assert!(waiting.take(&of(QUEUE * 2, 1)), "what is larger than all the room is taken where nothing waits");
    assert!(!waiting.take(&of(1, 1)));
    waiting.give_back(&of(QUEUE * 2, 1));
    assert!(waiting.take(&of(1, QUEUE_BYTES - 5)));
    assert!(!waiting.take(&of(1, 6)));
    assert!(waiting.take(&of(1, 5)));
}

#[test]
fn an_outline_tells_how_many_came_to_what() {
    let mut number = 0;
    let outline = Outline::of(&batch(1, 5), |_| {
        number += 1;
        Some(if number == 3 { Outcome::Mismatch } else { Outcome::Match })
    });
    assert_eq!(outline.outcomes().collect::<Vec<_>>(), [(Outcome::Match, 2), (Outcome::Mismatch, 1), (Outcome::Match, 2)]);
    assert_eq!(outline.changes, 5);
}
