//! One function per occurrence: its log line, its metrics and its trace together.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use plumbline_sdk::trace::{TraceId, TraceIds};
use plumbline_sdk::{Batch, ChangeEvent, Error, ErrorKind, Event, Finding, Position, TableId, TransactionMark, TxnId};

use crate::clock;
use crate::metrics::Metrics;
use crate::shared::{LiveNews, Shared, TableReport};
use crate::telemetry::{ChangeTraces, Outcome, Outline, SinkTime, Times};

/// Changes of one batch that are told to those who watch live; nobody reads more.
const LIVE: usize = 100;

/// What is told of what happens.
pub struct Occurrences {
    metrics: Arc<Metrics>,
    traces: ChangeTraces,
    redis: bool,
}

impl Occurrences {
    /// Tells these. `redis`: history lives there.
    pub fn new(metrics: Arc<Metrics>, traces: ChangeTraces, redis: bool) -> Self {
        Self { metrics, traces, redis }
    }

    /// The plugin behind a component of the line, and its database as OpenTelemetry's conventions call it.
    pub fn sink_names(&self, component: &str) -> (&'static str, &'static str) {
        match (component, self.redis) {
            ("history", false) => ("sqlite-history", "sqlite"),
            ("history", true) => ("redis-history", "redis"),
            _ => ("postgres-applier", "postgresql"),
        }
    }

    /// A batch of the stream came; `known` is what was received before it.
    pub fn received(&self, batch: &Arc<Batch>, known: Option<&Position>, shared: &Shared) {
        let now = clock::now_micros();
        for mark in &batch.transactions {
            let stage = if matches!(mark.id, TxnId::Record(_)) { "transport" } else { "capture" };
            self.metrics.latency(stage, now - mark.commit_micros, None);
        }
        if shared.live.receiver_count() > 0 {
            self.tell_live(batch, known, shared);
        }
    }

    fn tell_live(&self, batch: &Batch, known: Option<&Position>, shared: &Shared) {
        let server = batch.position.as_ref().map_or("", |position| position.server.as_str());
        let mut left = LIVE;
        // The newest of a batch are what is shown.
        for mark in batch.transactions.iter().rev() {
            let ids = TraceIds::of(&shared.pipeline, server, &mark.id);
            let changes: Vec<_> = batch.new_changes(mark, known).collect();
            let first = mark.first_change + (mark.events.len() - changes.len()) as u64;
            for (i, change) in changes.iter().enumerate().rev() {
                if left == 0 {
                    return;
                }
                left -= 1;
                let ordinal = first + i as u64;
                let news = LiveNews {
                    table: change.table.id.to_string(),
                    operation: change.op.as_str(),
                    commit_micros: mark.commit_micros,
                    position: mark.id.to_string(),
                    ordinal,
                    trace_id: ids.change(ordinal).to_string(),
                };
                let _ = shared.live.send(news);
            }
        }
    }

    /// Every sink has the batch; `number`: by which [`verified`](Self::verified) will name it, where changes are checked one by one.
    pub fn stored(&self, batch: &Arc<Batch>, number: Option<u64>, received_micros: i64, sinks: [Option<SinkTime>; 2]) {
        let now = clock::now_micros();
        let trace = self.first_trace(batch);
        for (i, mark) in batch.transactions.iter().enumerate() {
            self.metrics.latency("process", now - received_micros, None);
            self.metrics.latency("end_to_end", now - mark.commit_micros, trace.filter(|_| i == 0));
        }
        self.count_tables(batch, now);
        if self.traces.is_on() && !batch.transactions.is_empty() {
            self.traces.stored(number, Outline::of(batch, |_| None), Times { received: received_micros, stored: now, sinks });
        }
    }

    /// The trace of the batch's first change: one exemplar a batch leads from a histogram to a trace.
    fn first_trace(&self, batch: &Batch) -> Option<TraceId> {
        let mark = batch.transactions.iter().find(|mark| batch.events[mark.events.clone()].iter().any(|event| matches!(event, Event::Change(_))))?;
        self.traces.is_on().then(|| TraceIds::of(self.metrics.pipeline(), server(batch), &mark.id).change(mark.first_change))
    }

    /// Bytes by table, and the newest change of each op, whose trace its counter leads to.
    fn count_tables(&self, batch: &Batch, now: i64) {
        struct Seen<'a> {
            bytes: u64,
            newest: [Option<(&'a TransactionMark, u64)>; 5],
        }
        let mut tables: HashMap<&TableId, Seen<'_>> = HashMap::new();
        for mark in &batch.transactions {
            let mut ordinal = mark.first_change;
            let mut events = batch.events[mark.events.clone()].iter().filter_map(|event| if let Event::Change(change) = event { Some(change) } else { None }).peekable();
            while let Some(first) = events.peek() {
                let table = Arc::clone(&first.table);
                let seen = tables.entry(&first.table.id).or_insert_with(|| Seen { bytes: 0, newest: [None; 5] });
                while let Some(change) = events.next_if(|change| Arc::ptr_eq(&change.table, &table)) {
                    seen.bytes += [&change.before, &change.after].into_iter().flatten().map(|row| row.size() as u64).sum::<u64>();
                    seen.newest[change.op.index()] = Some((mark, ordinal));
                    ordinal += 1;
                }
            }
        }
        for (table, seen) in tables {
            self.metrics.table(table, |counted| {
                counted.bytes += seen.bytes;
                if self.traces.is_on() {
                    for (trace, newest) in counted.traces.iter_mut().zip(seen.newest) {
                        if let Some((mark, ordinal)) = newest {
                            *trace = Some((TraceIds::of(self.metrics.pipeline(), server(batch), &mark.id).change(ordinal), now));
                        }
                    }
                }
            });
        }
    }

    /// A sink was written to, or said why not.
    pub fn wrote(&self, component: &str, took: Duration, done: bool) {
        let (_, db_system) = self.sink_names(component);
        self.metrics.db_operation(db_system, "write", took);
        if done && component == "history" {
            self.metrics.history_write("applied");
        }
    }

    /// Every sink has a chunk of a copy.
    pub fn copied(&self, batch: &Arc<Batch>) {
        let Some(mark) = &batch.copy else { return };
        if mark.done {
            tracing::info!(table = %mark.table, rows = mark.rows_done, "the copy is done");
        } else {
            tracing::debug!(table = %mark.table, rows = mark.rows_done, expected = mark.rows_expected, "copying");
        }
    }

    /// Tables were found, changed or gone; a component's health changed; findings were made.
    pub fn news(&self, events: &[Event]) {
        let mut findings: BTreeMap<(&TableId, bool), (u64, &Finding)> = BTreeMap::new();
        for event in events {
            match event {
                Event::TableFound(schema) => tracing::info!(table = %schema.id, columns = schema.columns.len(), key = !schema.key().is_empty(), "found a table"),
                Event::TableChanged(schema) => tracing::info!(table = %schema.id, columns = schema.columns.len(), "a table changed its shape"),
                Event::TableGone(table) => {
                    self.metrics.table_gone(table);
                    tracing::info!(%table, "a table is gone");
                }
                Event::Finding(finding) => findings.entry((&finding.table, finding.resolved)).or_insert((0, finding)).0 += 1,
                Event::Health(health) if health.messages.is_empty() => tracing::info!(component = health.component, state = ?health.state, "health"),
                Event::Health(health) => {
                    for message in &health.messages {
                        tracing::warn!(component = health.component, state = ?health.state, "{message}");
                    }
                }
                Event::Change(_) | Event::Schema(_) => {}
            }
        }
        // One line for the findings of a table, whatever their number.
        for ((table, resolved), (rows, first)) in findings {
            if resolved {
                tracing::info!(%table, rows, "rows differ no longer");
            } else {
                tracing::warn!(%table, rows, first_verdict = %first.verdict, first_columns = first.columns.join(","), settled_by = first.settled_by, "rows differ");
            }
        }
    }

    /// A table was compared; `took` microseconds.
    pub fn compared(&self, table: &TableId, report: &TableReport, took: i64) {
        let seconds = took as f64 / 1e6;
        self.metrics.compared(report.verdict, seconds);
        self.metrics.table(table, |counted| {
            counted.compared_rows += report.rows_compared;
            if report.verified_through.is_some() {
                counted.last_success = Some(clock::now_micros());
            }
        });
        match report.verdict {
            "equal" => tracing::info!(%table, rows = report.rows_compared, seconds, "proved equal"),
            "different" => tracing::warn!(%table, rows = report.rows_compared, findings = report.findings_total, seconds, "compared: not equal"),
            _ => tracing::info!(%table, rows = report.rows_compared, seconds, reason = report.unverified.first().map(|entry| entry.reason.as_str()), "not all of it could be judged"),
        }
    }

    /// Rows of a table differed and wait to be read again before they are judged.
    pub fn suspects(&self, table: &TableId, rows: u64) {
        self.metrics.table(table, |counted| counted.suspects = Some(rows));
    }

    /// A table could not be compared; `took` microseconds.
    pub fn could_not_compare(&self, took: i64) {
        self.metrics.compared("unverified", took as f64 / 1e6);
    }

    /// Batches were checked change by change on the target, in a look that began then; the first one is the stream's number `number`.
    pub fn verified(&self, number: u64, batches: &[Arc<Batch>], began_micros: i64, mut outcome: impl FnMut(&ChangeEvent) -> Outcome) {
        let now = clock::now_micros();
        for (number, batch) in (number..).zip(batches) {
            let outline = Outline::of(batch, |change| Some(outcome(change)));
            for (outcome, changes) in outline.outcomes() {
                self.metrics.verified_events(outcome.as_str(), changes);
            }
            let trace = self.first_trace(batch);
            for (i, mark) in batch.transactions.iter().enumerate() {
                self.metrics.visible(now - mark.commit_micros, trace.filter(|_| i == 0));
            }
            if self.traces.is_on() {
                self.traces.seen(number, outline, began_micros, now);
            }
        }
    }

    /// A change that somebody else's sink had settled was checked on the target.
    pub fn settled(&self, mark: &TransactionMark, outcome: Outcome) {
        self.metrics.verified_events(outcome.as_str(), 1);
        if outcome == Outcome::Match {
            self.metrics.visible(clock::now_micros() - mark.commit_micros, None);
        }
    }

    /// So many changes could not be checked one by one.
    pub fn not_settled(&self, changes: u64) {
        self.metrics.verified_events(Outcome::Unverified.as_str(), changes);
    }

    /// A sink is away.
    pub fn sink_failed(&self, component: &'static str, error: &Error, again_in: Duration) {
        self.metrics.error(component, kind(error));
        if component == "history" {
            self.metrics.history_write("failed");
        }
        tracing::warn!(component, error = error.chain(), again_in_ms = again_in.as_millis(), "a sink is away; the line waits");
    }
}

fn server(batch: &Batch) -> &str {
    batch.position.as_ref().map_or("", |position| position.server.as_str())
}

fn kind(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::Config => "config",
        ErrorKind::Disconnected => "disconnected",
        ErrorKind::Rejected => "rejected",
        ErrorKind::Rewound => "rewound",
        ErrorKind::Fatal => "fatal",
    }
}
