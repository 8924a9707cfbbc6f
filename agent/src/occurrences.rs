//! One function per occurrence: its log line, its metrics and its trace together.

use std::sync::Arc;
use std::time::Duration;

use plumbline_sdk::{Batch, Error, Event, Position, TableId};

use crate::shared::{Shared, TableReport};

/// What is told of what happens.
#[derive(Default)]
pub struct Occurrences {}

impl Occurrences {
    /// A batch of the stream came; `known` is what was received before it.
    pub fn received(&self, batch: &Arc<Batch>, known: Option<&Position>, shared: &Shared) {
        let _ = (batch, known, shared);
    }
    /// Every sink has the batch.
    pub fn stored(&self, batch: &Arc<Batch>, received_micros: i64) {
        let _ = (batch, received_micros);
    }
    /// Every sink has a chunk of a copy.
    pub fn copied(&self, batch: &Arc<Batch>, received_micros: i64, shared: &Shared) {
        let _ = (batch, received_micros, shared);
        let Some(mark) = &batch.copy else { return };
        if mark.done {
            tracing::info!(table = %mark.table, rows = mark.rows_done, "the copy is done");
        }
    }
    /// A table was found, changed or gone; a component's health changed; a finding was made.
    pub fn news(&self, event: &Event) {
        match event {
            Event::TableFound(schema) => tracing::info!(table = %schema.id, columns = schema.columns.len(), key = !schema.key().is_empty(), "found a table"),
            Event::TableChanged(schema) => tracing::info!(table = %schema.id, columns = schema.columns.len(), "a table changed its shape"),
            Event::TableGone(table) => tracing::info!(%table, "a table is gone"),
            Event::Finding(finding) if finding.resolved => tracing::info!(table = %finding.table, verdict = %finding.verdict, "a difference is gone"),
            Event::Finding(finding) => {
                tracing::warn!(table = %finding.table, verdict = %finding.verdict, columns = finding.columns.join(","), settled_by = finding.settled_by, "a row differs");
            }
            Event::Health(health) => match health.messages.first() {
                Some(message) => tracing::warn!(component = health.component, state = ?health.state, "{message}"),
                None => tracing::info!(component = health.component, state = ?health.state, "health"),
            },
            Event::Change(_) | Event::Schema(_) => {}
        }
    }
    /// A table was compared; `took` microseconds.
    pub fn compared(&self, table: &TableId, report: &TableReport, took: i64) {
        let seconds = took as f64 / 1e6;
        match report.verdict {
            "equal" => tracing::info!(%table, rows = report.rows_compared, seconds, "proved equal"),
            "different" => tracing::warn!(%table, rows = report.rows_compared, findings = report.findings_total, seconds, "rows differ"),
            _ => tracing::info!(%table, rows = report.rows_compared, seconds, reason = report.unverified.first().map(|entry| entry.reason.as_str()), "not all of it could be judged"),
        }
    }
    /// A table could not be compared.
    pub fn could_not_compare(&self, table: &TableId) {
        let _ = table;
    }
    /// Changes were checked one by one on the target.
    pub fn verified_events(&self, matching: u64, differing: u64, newest_commit_micros: Option<i64>) {
        let _ = (matching, differing, newest_commit_micros);
    }
    /// A sink is away.
    pub fn sink_failed(&self, component: &'static str, error: &Error, again_in: Duration) {
        tracing::warn!(component, error = error.chain(), again_in_ms = again_in.as_millis(), "a sink is away; the line waits");
    }
}
