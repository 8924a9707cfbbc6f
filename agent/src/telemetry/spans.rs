//! The outline of a batch, and the spans of a change.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use plumbline_sdk::trace::{TraceId, TraceIds};
use plumbline_sdk::{Batch, ChangeEvent, Event, Op, TableSchema, TxnId};

/// When a batch came and was stored, microseconds since the epoch.
#[derive(Debug, Clone, Copy, Default)]
pub struct Times {
    /// It was received.
    pub received: i64,
    /// Every sink has it.
    pub stored: i64,
    /// Each sink's own.
    pub sinks: [Option<SinkTime>; 2],
}

/// How long one sink took for a batch, with all that it had to wait for.
#[derive(Debug, Clone, Copy)]
pub struct SinkTime {
    /// The plugin's name.
    pub plugin: &'static str,
    /// The database behind it, as OpenTelemetry names it.
    pub db_system: &'static str,
    /// The write began.
    pub began: i64,
    /// It was durable.
    pub ended: i64,
}

/// What the check of a single change on the target came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The target has what the newest change of this key made.
    Match,
    /// It has something else.
    Mismatch,
    /// It has no such row.
    Missing,
    /// Nobody could judge it.
    Unverified,
}

impl Outcome {
    /// The word that users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Match => "match",
            Self::Mismatch => "mismatch",
            Self::Missing => "missing",
            Self::Unverified => "unverified",
        }
    }
}

/// The look at the target that judged a batch, microseconds since the epoch.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub began: i64,
    pub ended: i64,
}

/// The changes of a batch without their rows.
#[derive(Debug, Clone)]
pub struct Outline {
    server: Arc<str>,
    marks: Vec<Mark>,
    /// How many changes.
    pub changes: u64,
    /// About how much memory this holds.
    pub bytes: u64,
}

#[derive(Debug, Clone)]
struct Mark {
    id: TxnId,
    first_change: u64,
    commit_micros: i64,
    runs: Vec<Run>,
}

/// Changes of one transaction that stand together and are alike.
#[derive(Debug, Clone)]
struct Run {
    table: Arc<TableSchema>,
    op: Op,
    outcome: Option<Outcome>,
    changes: u64,
}

/// One change of an outline.
pub struct Change<'a> {
    trace: TraceId,
    transaction: Arc<str>,
    table: &'a TableSchema,
    op: Op,
    outcome: Option<Outcome>,
    ordinal: u64,
    committed: i64,
}

impl Outline {
    /// Of this batch; `outcome` tells what became of a change on the target, where it was checked.
    pub fn of(batch: &Batch, mut outcome: impl FnMut(&ChangeEvent) -> Option<Outcome>) -> Self {
        let server: Arc<str> = batch.position.as_ref().map_or("", |position| position.server.as_str()).into();
        let mut outline = Self { server, marks: Vec::with_capacity(batch.transactions.len()), changes: 0, bytes: 0 };
        for mark in &batch.transactions {
            let mut runs: Vec<Run> = Vec::new();
            for event in &batch.events[mark.events.clone()] {
                let Event::Change(change) = event else { continue };
                outline.changes += 1;
                let outcome = outcome(change);
                match runs.last_mut() {
                    Some(run) if Arc::ptr_eq(&run.table, &change.table) && run.op == change.op && run.outcome == outcome => run.changes += 1,
                    _ => runs.push(Run { table: Arc::clone(&change.table), op: change.op, outcome, changes: 1 }),
                }
            }
            if !runs.is_empty() {
                outline.bytes += (size_of::<Mark>() + runs.capacity() * size_of::<Run>()) as u64;
                outline.marks.push(Mark { id: mark.id.clone(), first_change: mark.first_change, commit_micros: mark.commit_micros, runs });
            }
        }
        outline
    }

    /// How many changes came to what.
    pub fn outcomes(&self) -> impl Iterator<Item = (Outcome, u64)> {
        self.marks.iter().flat_map(|mark| &mark.runs).filter_map(|run| Some((run.outcome?, run.changes)))
    }

    /// Every change, as the pipeline called `pipeline` names it.
    pub fn each(&self, pipeline: &str) -> impl Iterator<Item = Change<'_>> {
        self.marks.iter().flat_map(move |mark| {
            let ids = TraceIds::of(pipeline, &self.server, &mark.id);
            let transaction: Arc<str> = mark.id.to_string().into();
            let runs = mark.runs.iter().flat_map(|run| (0..run.changes).map(move |_| run));
            runs.zip(mark.first_change..).map(move |(run, ordinal)| Change {
                trace: ids.change(ordinal),
                transaction: Arc::clone(&transaction),
                table: &run.table,
                op: run.op,
                outcome: run.outcome,
                ordinal,
                committed: mark.commit_micros,
            })
        })
    }
}

/// Builds the spans of changes.
pub struct Builder {
    pub scope: InstrumentationScope,
    pub pipeline: Arc<str>,
}

/// The numbers of a trace's spans: the same at every delivery.
const ROOT: u64 = 1;
const CAPTURE: u64 = 2;
const PROCESS: u64 = 3;
const VERIFY: u64 = 4;
const SINK: u64 = 5;

struct Span {
    number: u64,
    parent: Option<u64>,
    kind: SpanKind,
    name: String,
    start: i64,
    end: i64,
    attributes: Vec<KeyValue>,
    status: Status,
}

impl Builder {
    /// The spans of one change. Without `times` they went out before: only the look at the target is told.
    pub fn spans(&self, change: &Change<'_>, times: Option<&Times>, look: Option<Look>, out: &mut Vec<SpanData>) {
        let mut add = |span: Span| out.push(self.data(change, span));
        let id = &change.table.id;
        let internal = |number, name: String, start, end| Span { number, parent: Some(ROOT), kind: SpanKind::Internal, name, start, end, attributes: Vec::new(), status: Status::Unset };
        // Each stage begins where its predecessor ended, also where clocks disagree.
        let received = times.map(|times| times.received.max(change.committed));
        let stored = times.zip(received).map(|(times, received)| times.stored.max(received));
        let status = match change.outcome {
            Some(Outcome::Mismatch) => Status::error("the row differs on the target"),
            Some(Outcome::Missing) => Status::error("the row is missing on the target"),
            _ => Status::Unset,
        };
        if let (Some(times), Some(received), Some(stored)) = (times, received, stored) {
            let mut attributes = self.attributes(change);
            let skew = (change.committed - times.received).max(0);
            if skew > 0 {
                attributes.push(KeyValue::new("plumbline.clock_skew_us", skew));
            }
            let end = look.map_or(stored, |look| look.ended.max(stored));
            add(Span { parent: None, kind: SpanKind::Producer, attributes, status: status.clone(), ..internal(ROOT, format!("change {id}"), change.committed, end) });
            add(internal(CAPTURE, "capture mysql-binlog".into(), change.committed, received));
            add(Span { kind: SpanKind::Consumer, ..internal(PROCESS, format!("process {id}"), received, stored) });
            for (number, sink) in (SINK..).zip(times.sinks.iter().flatten()) {
                let start = sink.began.clamp(received, stored);
                let attributes = vec![KeyValue::new("db.system.name", sink.db_system), KeyValue::new("plumbline.plugin", sink.plugin)];
                let span = internal(number, format!("write {}", sink.plugin), start, sink.ended.clamp(start, stored));
                add(Span { parent: Some(PROCESS), kind: SpanKind::Client, attributes, ..span });
            }
        }
        if let Some(look) = look {
            let result = change.outcome.unwrap_or(Outcome::Unverified).as_str();
            let start = stored.unwrap_or(look.began).max(look.began);
            let attributes = vec![KeyValue::new("db.system.name", "postgresql"), KeyValue::new("plumbline.result", result)];
            add(Span { attributes, status, ..internal(VERIFY, format!("verify {id}"), start, look.ended.max(start)) });
        }
    }

    fn attributes(&self, change: &Change<'_>) -> Vec<KeyValue> {
        let mut attributes = vec![
            KeyValue::new("db.system.name", "mysql"),
            KeyValue::new("db.namespace", change.table.id.schema.to_string()),
            KeyValue::new("db.collection.name", change.table.id.table.to_string()),
            KeyValue::new("db.operation.name", change.op.as_str()),
            KeyValue::new("plumbline.pipeline", self.pipeline.to_string()),
            KeyValue::new("plumbline.position", change.transaction.to_string()),
            KeyValue::new("plumbline.ordinal", i64::try_from(change.ordinal).unwrap_or(i64::MAX)),
        ];
        attributes.extend(change.outcome.map(|outcome| KeyValue::new("plumbline.result", outcome.as_str())));
        attributes
    }

    fn data(&self, change: &Change<'_>, span: Span) -> SpanData {
        let trace = opentelemetry::trace::TraceId::from_bytes(change.trace.0);
        SpanData {
            span_context: SpanContext::new(trace, span_id(change.trace, span.number), TraceFlags::SAMPLED, false, TraceState::default()),
            parent_span_id: span.parent.map_or(SpanId::INVALID, |parent| span_id(change.trace, parent)),
            parent_span_is_remote: false,
            span_kind: span.kind,
            name: span.name.into(),
            start_time: system_time(span.start),
            end_time: system_time(span.end),
            attributes: span.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: span.status,
            instrumentation_scope: self.scope.clone(),
        }
    }
}

/// The id of a trace's span by number, never 0 and never the same for two numbers below a thousand.
fn span_id(trace: TraceId, number: u64) -> SpanId {
    let mut half = [0; 8];
    half.copy_from_slice(&trace.0[8..]);
    // The lowest bits count, the highest keeps it from 0.
    SpanId::from_bytes((u64::from_be_bytes(half).wrapping_add(number) | 1 << 63).to_be_bytes())
}

fn system_time(micros: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}
