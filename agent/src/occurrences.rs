//! One function per occurrence: its log line, its metrics and its trace together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use plumbline_sdk::trace::TraceIds;
use plumbline_sdk::{Batch, Error, ErrorKind, Event, Finding, Position, TableId};

use crate::clock;
use crate::metrics::Metrics;
use crate::shared::{LiveNews, Shared, TableReport};
use crate::telemetry::{ChangeTraces, Times};

/// Changes of one batch that are told to those who watch live; nobody reads more.
const LIVE: usize = 100;

/// What is told of what happens.
pub struct Occurrences {
    metrics: Arc<Metrics>,
    traces: ChangeTraces,
}

impl Occurrences {
    /// Tells these.
    pub fn new(metrics: Arc<Metrics>, traces: ChangeTraces) -> Self {
        Self { metrics, traces }
    }

    /// A batch of the stream came; `known` is what was received before it.
    pub fn received(&self, batch: &Arc<Batch>, known: Option<&Position>, shared: &Shared) {
        let now = clock::now_micros();
        for mark in &batch.transactions {
            self.metrics.latency("capture", now - mark.commit_micros, None);
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

    /// Every sink has the batch.
    pub fn stored(&self, batch: &Arc<Batch>, received_micros: i64) {
        let now = clock::now_micros();
        let server = batch.position.as_ref().map_or("", |position| position.server.as_str());
        for (i, mark) in batch.transactions.iter().enumerate() {
            // One exemplar a batch leads from the histogram to a trace.
            let traced = i == 0 && self.traces.is_on();
            let trace = traced.then(|| TraceIds::of(self.metrics.pipeline(), server, &mark.id).change(mark.first_change).to_string());
            self.metrics.latency("process", now - received_micros, None);
            self.metrics.latency("end_to_end", now - mark.commit_micros, trace);
        }
        let mut bytes: Vec<(&TableId, u64)> = Vec::new();
        for event in &batch.events {
            if let Event::Change(change) = event {
                let size = [&change.before, &change.after].into_iter().flatten().map(|row| row.size() as u64).sum::<u64>();
                match bytes.last_mut() {
                    Some((table, sum)) if **table == change.table.id => *sum += size,
                    _ => bytes.push((&change.table.id, size)),
                }
            }
        }
        for (table, size) in bytes {
            self.metrics.bytes(&table.to_string(), size);
        }
        if !batch.transactions.is_empty() {
            self.metrics.history_write("applied");
        }
        self.traces.offer(batch, Times { received: received_micros, stored: now });
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
                Event::TableGone(table) => tracing::info!(%table, "a table is gone"),
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
        self.metrics.compared(&table.to_string(), report.verdict, report.rows_compared, seconds);
        match report.verdict {
            "equal" => tracing::info!(%table, rows = report.rows_compared, seconds, "proved equal"),
            "different" => tracing::warn!(%table, rows = report.rows_compared, findings = report.findings_total, seconds, "compared: not equal"),
            _ => tracing::info!(%table, rows = report.rows_compared, seconds, reason = report.unverified.first().map(|entry| entry.reason.as_str()), "not all of it could be judged"),
        }
    }

    /// A table could not be compared.
    pub fn could_not_compare(&self, table: &TableId) {
        self.metrics.compared(&table.to_string(), "unverified", 0, 0.0);
    }

    /// Changes were checked one by one on the target.
    pub fn verified_events(&self, matching: u64, differing: u64) {
        self.metrics.verified_events("match", matching);
        self.metrics.verified_events("mismatch", differing);
    }

    /// A change was seen on the target that was committed on the source then.
    pub fn seen_on_target(&self, commit_micros: i64) {
        self.metrics.visible(clock::now_micros() - commit_micros);
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

fn kind(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::Config => "config",
        ErrorKind::Disconnected => "disconnected",
        ErrorKind::Rejected => "rejected",
        ErrorKind::Rewound => "rewound",
        ErrorKind::Fatal => "fatal",
    }
}
