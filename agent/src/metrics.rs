//! Every metric name and label, once.
//!
//! What happens is counted as it happens; what stands in the picture is read from it at a scrape, so that nothing is kept twice and a
//! table that goes takes its metrics along. No database is asked, and no lock is held for longer than the copy takes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plumbline_sdk::{HealthState, Op, Verdict};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::clock;
use crate::shared::Shared;
use crate::state::{State, SyncStatus, TableState};
use crate::telemetry::ChangeTraces;

type FloatGauge = Gauge<f64, AtomicU64>;
type FloatCounter = Counter<f64, AtomicU64>;

macro_rules! labels {
    ($($name:ident { $($label:ident),+ })+) => { $(
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        struct $name { $($label: String),+ }
    )+ };
}

labels! {
    Table { table }
    TableOp { table, op }
    TableSide { table, side }
    TableKind { table, kind }
    ByState { state }
    ByReason { reason }
    ByResult { result }
    ByStage { stage }
    ByError { stage, error_type }
    ModeResult { mode, result }
    ByMode { mode }
    ByKind { kind }
    Dependency { dependency, role }
    ByQueue { queue }
    ByExporter { exporter }
    Route { method, route, status_code }
    ByPlugin { plugin }
    PluginAbout { plugin, kind, version }
    TraceLabel { trace_id }
}

/// Histogram bounds for seconds from a millisecond to ten minutes.
const SECONDS: [f64; 16] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0];

fn seconds_histogram() -> Histogram {
    Histogram::new(SECONDS)
}

/// What happens, counted as it happens.
pub struct Metrics {
    kept: Registry,
    pipeline: String,
    max_tables: usize,
    traces: ChangeTraces,
    latency: Family<ByStage, HistogramWithExemplars<TraceLabel>, fn() -> HistogramWithExemplars<TraceLabel>>,
    errors: Family<ByError, Counter>,
    event_bytes: Family<Table, Counter>,
    compare_runs: Family<ModeResult, Counter>,
    compare_seconds: Family<ByMode, Histogram, fn() -> Histogram>,
    compare_rows: Family<Table, Counter>,
    event_verifications: Family<ByResult, Counter>,
    event_visible: Histogram,
    history_writes: Family<ByResult, Counter>,
    http: Family<Route, Histogram, fn() -> Histogram>,
    label_overflow: AtomicU64,
}

impl Metrics {
    /// Metrics of one agent.
    pub fn new(pipeline: &str, max_tables: usize, traces: ChangeTraces) -> Self {
        let mut kept = Registry::with_prefix("plumbline");
        let latency = Family::<ByStage, HistogramWithExemplars<TraceLabel>, fn() -> HistogramWithExemplars<TraceLabel>>::new_with_constructor(|| HistogramWithExemplars::new(SECONDS.into_iter()));
        let compare_seconds = Family::<ByMode, Histogram, fn() -> Histogram>::new_with_constructor(seconds_histogram);
        let http = Family::<Route, Histogram, fn() -> Histogram>::new_with_constructor(seconds_histogram);
        let metrics = Self {
            pipeline: pipeline.to_owned(),
            max_tables,
            traces,
            latency,
            errors: Family::default(),
            event_bytes: Family::default(),
            compare_runs: Family::default(),
            compare_seconds,
            compare_rows: Family::default(),
            event_verifications: Family::default(),
            event_visible: seconds_histogram(),
            history_writes: Family::default(),
            http,
            label_overflow: AtomicU64::new(0),
            kept: Registry::default(),
        };
        {
            let of = kept.sub_registry_with_label(("pipeline".into(), pipeline.to_owned().into()));
            of.register_with_unit("cdc_latency", "Time from the commit on the source to a stage, per transaction", Unit::Seconds, metrics.latency.clone());
            of.register("cdc_errors", "Errors by stage", metrics.errors.clone());
            of.register("cdc_event_bytes", "Bytes of row images by table", metrics.event_bytes.clone());
            of.register("compare_runs", "Comparisons of a table by result", metrics.compare_runs.clone());
            of.register_with_unit("compare_duration", "Time that the comparison of a table takes", Unit::Seconds, metrics.compare_seconds.clone());
            of.register("compare_rows", "Row keys compared by table", metrics.compare_rows.clone());
            of.register("event_verifications", "Changes checked one by one on the target, by result", metrics.event_verifications.clone());
            of.register_with_unit("event_visible", "Time from the commit on the source until the change was seen on the target", Unit::Seconds, metrics.event_visible.clone());
            of.register("history_writes", "Batches written to history by result", metrics.history_writes.clone());
        }
        kept.register_with_unit("http_request_duration", "Time to answer a request, by route", Unit::Seconds, metrics.http.clone());
        kept.register("build", "The agent's version", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        for result in ["match", "lagging", "mismatch", "missing", "unverified"] {
            drop(metrics.event_verifications.get_or_create(&ByResult { result: result.into() }));
        }
        for result in ["applied", "failed"] {
            drop(metrics.history_writes.get_or_create(&ByResult { result: result.into() }));
        }
        for result in ["equal", "different", "unverified"] {
            drop(metrics.compare_runs.get_or_create(&ModeResult { mode: "rows".into(), result: result.into() }));
        }
        for stage in ["capture", "process", "end_to_end"] {
            drop(metrics.latency.get_or_create(&ByStage { stage: stage.into() }));
        }
        Self { kept, ..metrics }
    }

    /// A transaction reached a stage so long after its commit. The trace leads to the change.
    pub fn latency(&self, stage: &'static str, micros: i64, trace_id: Option<String>) {
        let exemplar = trace_id.map(|trace_id| TraceLabel { trace_id });
        self.latency.get_or_create(&ByStage { stage: stage.into() }).observe(micros.max(0) as f64 / 1e6, exemplar, None);
    }
    /// The pipeline's name.
    pub fn pipeline(&self) -> &str {
        &self.pipeline
    }
    /// Something failed.
    pub fn error(&self, stage: &'static str, error_type: &'static str) {
        self.errors.get_or_create(&ByError { stage: stage.into(), error_type: error_type.into() }).inc();
    }
    /// Bytes of row images of a table.
    pub fn bytes(&self, table: &str, bytes: u64) {
        self.event_bytes.get_or_create(&Table { table: table.to_owned() }).inc_by(bytes);
    }
    /// A table was compared.
    pub fn compared(&self, table: &str, result: &'static str, rows: u64, seconds: f64) {
        self.compare_runs.get_or_create(&ModeResult { mode: "rows".into(), result: result.into() }).inc();
        self.compare_seconds.get_or_create(&ByMode { mode: "rows".into() }).observe(seconds);
        self.compare_rows.get_or_create(&Table { table: table.to_owned() }).inc_by(rows);
    }
    /// Changes were checked one by one on the target.
    pub fn verified_events(&self, result: &'static str, number: u64) {
        self.event_verifications.get_or_create(&ByResult { result: result.into() }).inc_by(number);
    }
    /// A change was seen on the target so long after its commit.
    pub fn visible(&self, micros: i64) {
        self.event_visible.observe(micros.max(0) as f64 / 1e6);
    }
    /// A batch was written to history, or was not.
    pub fn history_write(&self, result: &'static str) {
        self.history_writes.get_or_create(&ByResult { result: result.into() }).inc();
    }
    /// A request was answered.
    pub fn http_request(&self, method: &str, route: &str, status: u16, took: Duration) {
        let method = if matches!(method, "GET" | "POST" | "DELETE" | "HEAD" | "PUT" | "PATCH" | "OPTIONS") { method } else { "other" };
        self.http.get_or_create(&Route { method: method.into(), route: route.into(), status_code: status.to_string() }).observe(took.as_secs_f64());
    }

    /// Everything in OpenMetrics 1.0.0.
    pub fn open_metrics(&self, shared: &Shared) -> String {
        let mut text = String::with_capacity(64 * 1024);
        let seen = self.seen(shared);
        // Writing to a String does not fail.
        let _ = encode_registry(&mut text, &self.kept);
        let _ = encode_registry(&mut text, &seen);
        let _ = encode_eof(&mut text);
        text
    }

    /// Everything in Prometheus' text format 0.0.4.
    pub fn text(&self, shared: &Shared) -> String {
        as_text(&self.open_metrics(shared))
    }

    /// What stands in the picture.
    fn seen(&self, shared: &Shared) -> Registry {
        let now = clock::now_micros();
        let streaming = shared.streaming.load(Ordering::Relaxed);
        let mut registry = Registry::with_prefix("plumbline");
        {
            let of = registry.sub_registry_with_label(("pipeline".into(), self.pipeline.clone().into()));
            let picture = shared.picture();
            stream(of, &picture.state, now);
            tables(of, &picture.state, self.max_tables, &self.label_overflow);
            let blockers = crate::api::blockers(&picture.state, streaming);
            let ready = gauge(of, "cutover_ready", "Whether it is safe to cut over: 1 or 0");
            ready.set(i64::from(blockers.is_empty()));
            let by_reason = Family::<ByReason, Gauge>::default();
            for reason in ["disconnected", "line_stopped", "no_tables", "differences", "copying", "unverified", "not_verified", "lagging"] {
                by_reason.get_or_create(&ByReason { reason: reason.into() }).set(blockers.iter().filter(|blocker| blocker.reason == reason).count() as i64);
            }
            of.register("cutover_blockers", "Reasons against cutting over", by_reason);
            let up = Family::<Dependency, Gauge>::default();
            for (name, role) in [("mysql", "source"), ("postgres", "target"), ("history", "history")] {
                let state = picture.state.health.get(name).map(|(health, _)| health.state);
                let is_up = state.map_or(name == "history", |state| state != HealthState::Down);
                up.get_or_create(&Dependency { dependency: name.into(), role: role.into() }).set(i64::from(is_up));
            }
            of.register("dependency_up", "Whether an outside component answers: 1 or 0", up);
            let full = Family::<ByQueue, FloatCounter>::default();
            full.get_or_create(&ByQueue { queue: "stream".into() }).inc_by(shared.queue_full_micros.load(Ordering::Relaxed) as f64 / 1e6);
            of.register_with_unit("queue_full", "Time that the source waited for the sinks", Unit::Seconds, full);
            let capacity = Family::<ByQueue, Gauge>::default();
            capacity.get_or_create(&ByQueue { queue: "stream".into() }).set(crate::pipeline::QUEUE as i64);
            of.register("queue_capacity", "Batches that may wait in a queue", capacity);
            let (plugin_up, about) = (Family::<ByPlugin, Gauge>::default(), Family::<PluginAbout, Gauge>::default());
            for plugin in &crate::builtin::PLUGINS {
                let on = match plugin.name {
                    "mysql-binlog" => streaming,
                    "postgres-applier" if !picture.state.applies => continue,
                    _ => true,
                };
                plugin_up.get_or_create(&ByPlugin { plugin: plugin.name.into() }).set(i64::from(on));
                about.get_or_create(&PluginAbout { plugin: plugin.name.into(), kind: plugin.kind.into(), version: env!("CARGO_PKG_VERSION").into() }).set(1);
            }
            of.register("plugin_up", "Whether a plugin works: 1 or 0", plugin_up);
            of.register("plugin_info", "A plugin in use", about);
        }
        self.own(&mut registry);
        registry
    }

    /// The agent itself.
    fn own(&self, registry: &mut Registry) {
        let counts = &self.traces.counts;
        for (name, help, number) in [
            ("otel_spans_ended", "Spans that were built", &counts.ended),
            ("otel_spans_exported", "Spans that the collector took", &counts.exported),
            ("otel_spans_dropped", "Spans that were lost", &counts.dropped),
            ("metric_label_overflow", "Tables that share the label `_other`, at the last scrape that had them", &self.label_overflow),
        ] {
            counter(registry, name, help).inc_by(number.load(Ordering::Relaxed));
        }
        let errors = Family::<ByExporter, Counter>::default();
        errors.get_or_create(&ByExporter { exporter: "otlp".into() }).inc_by(counts.errors.load(Ordering::Relaxed));
        registry.register("export_errors", "Exports that failed", errors);
        process(registry);
    }
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

fn gauge(registry: &mut Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::default();
    registry.register(name, help, gauge.clone());
    gauge
}

fn float_gauge(registry: &mut Registry, name: &str, help: &str, unit: Unit, value: Option<f64>) {
    // What is not known is absent, never 0.
    let Some(value) = value else { return };
    let gauge = FloatGauge::default();
    gauge.set(value);
    registry.register_with_unit(name, help, unit, gauge);
}

fn stream(of: &mut Registry, state: &State, now: i64) {
    for (name, help, number) in [
        ("cdc_records", "Source records since the beginning: changes, duplicates and control", state.records),
        ("cdc_duplicates", "Changes delivered again and not counted again", state.duplicates),
        ("cdc_transactions", "Whole source transactions since this start", state.live.transactions),
    ] {
        counter(of, name, help).inc_by(number);
    }
    let discarded = Family::<ByReason, Counter>::default();
    discarded.get_or_create(&ByReason { reason: "control".into() }).inc_by(state.control);
    discarded.get_or_create(&ByReason { reason: "duplicate".into() }).inc_by(state.duplicates);
    of.register("cdc_events_discarded", "Source records that are not counted as changes, by reason", discarded);
    let written = Counter::<u64>::default();
    written.inc_by(state.live.bytes);
    of.register_with_unit("source_binlog_written", "Bytes of the source's log seen since this start", Unit::Bytes, written);
    let kinds = Family::<ByKind, Counter>::default();
    kinds.get_or_create(&ByKind { kind: "statement".into() }).inc_by(state.live.schema_changes);
    of.register("schema_changes", "Schema statements seen since this start", kinds);
    float_gauge(of, "cdc_lag", "Now minus the commit of the newest stored transaction while others wait; 0 when caught up", Unit::Seconds, Some(state.lag_seconds(now)));
    let received = state.received_micros.map(|micros| micros as f64 / 1e6);
    float_gauge(of, "cdc_last_received_timestamp", "When the last batch of the stream came", Unit::Seconds, received);
    let copies: Vec<_> = state.present().filter_map(|(_, table)| table.copy.as_ref()).collect();
    gauge(of, "snapshot_running", "Whether existing rows are being copied: 1 or 0").set(i64::from(copies.iter().any(|mark| !mark.done)));
    let by_state = Family::<ByState, Gauge>::default();
    by_state.get_or_create(&ByState { state: "done".into() }).set(copies.iter().filter(|mark| mark.done).count() as i64);
    by_state.get_or_create(&ByState { state: "running".into() }).set(copies.iter().filter(|mark| !mark.done).count() as i64);
    of.register("snapshot_tables", "Tables by the state of their copy", by_state);
}

/// Families with a table label.
#[derive(Default)]
struct TableFamilies {
    events: Family<TableOp, Counter>,
    snapshot_rows: Family<Table, Counter>,
    last_event: Family<Table, FloatGauge>,
    rows: Family<TableSide, Gauge>,
    estimated: Family<TableSide, Gauge>,
    in_sync: Family<Table, Gauge>,
    ratio: Family<Table, FloatGauge>,
    verified: Family<Table, FloatGauge>,
    drift: Family<Table, Gauge>,
    mismatched: Family<TableKind, Gauge>,
    unverified: Family<Table, Gauge>,
    progress: Family<Table, FloatGauge>,
    success: Family<Table, FloatGauge>,
}

fn tables(of: &mut Registry, state: &State, most: usize, overflow: &AtomicU64) {
    let families = TableFamilies::default();
    let mut statuses: BTreeMap<SyncStatus, i64> = SyncStatus::ALL.iter().map(|status| (*status, 0)).collect();
    let mut others = TableState::default();
    let mut over = 0;
    for (number, (id, table)) in state.present().filter(|(_, table)| table.schema.is_some() || table.last.is_some()).enumerate() {
        *statuses.entry(table.status()).or_default() += 1;
        if number < most {
            families.add(id.to_string(), table);
        } else {
            over += 1;
            for (sum, count) in others.total.iter_mut().zip(table.total) {
                *sum += count;
            }
        }
    }
    if over > 0 {
        families.add_counts("_other".into(), &others);
    }
    overflow.store(over, Ordering::Relaxed);
    families.register(of);
    let by_state = Family::<ByState, Gauge>::default();
    for (status, count) in statuses {
        by_state.get_or_create(&ByState { state: status.as_str().into() }).set(count);
    }
    of.register("tables", "Tables by status", by_state);
}

impl TableFamilies {
    fn add_counts(&self, table: String, known: &TableState) {
        for op in Op::ALL {
            self.events.get_or_create(&TableOp { table: table.clone(), op: op.as_str().into() }).inc_by(known.total[op.index()]);
        }
        self.snapshot_rows.get_or_create(&Table { table }).inc_by(known.total[Op::Snapshot.index()]);
    }

    fn add(&self, table: String, known: &TableState) {
        self.add_counts(table.clone(), known);
        let label = Table { table: table.clone() };
        if let Some(last) = &known.last {
            self.last_event.get_or_create(&label).set(last.commit_micros as f64 / 1e6);
        }
        for (side, rows) in [("source", known.source_rows), ("target", known.target_rows)] {
            if let Some(rows) = rows {
                let label = TableSide { table: table.clone(), side: side.into() };
                self.rows.get_or_create(&label).set(rows.rows.max(0));
                self.estimated.get_or_create(&label).set(i64::from(rows.estimated));
            }
        }
        self.in_sync.get_or_create(&label).set(i64::from(known.status() == SyncStatus::InSync));
        if let Some(percent) = known.sync_percentage() {
            self.ratio.get_or_create(&label).set(percent / 100.0);
        }
        if let Some(verified) = &known.verified {
            self.verified.get_or_create(&label).set(verified.micros as f64 / 1e6);
        }
        let drift = known.unverified.iter().any(|entry| !entry.columns.is_empty()) || known.stopped.is_some();
        self.drift.get_or_create(&label).set(i64::from(drift));
        for verdict in [Verdict::Missing, Verdict::Extra, Verdict::Changed] {
            let label = TableKind { table: table.clone(), kind: verdict.as_str().into() };
            self.mismatched.get_or_create(&label).set(i64::try_from(known.open.get(&verdict).copied().unwrap_or(0)).unwrap_or(i64::MAX));
        }
        self.unverified.get_or_create(&label).set(known.unjudged().count() as i64);
        if let Some(check) = &known.check {
            self.progress.get_or_create(&label).set(check.rows as f64 / check.expected.max(1) as f64);
        }
        if let Some((compared, took)) = known.compared {
            self.success.get_or_create(&label).set((compared + took) as f64 / 1e6);
        }
    }

    fn register(self, of: &mut Registry) {
        of.register("cdc_events", "Changes and snapshot reads since the beginning", self.events);
        of.register("snapshot_rows", "Existing rows copied since the beginning", self.snapshot_rows);
        of.register_with_unit("cdc_last_event_timestamp", "Commit time of the newest change", Unit::Seconds, self.last_event);
        of.register("table_rows", "Rows by side: an exact baseline plus what the stream added", self.rows);
        of.register("table_rows_estimated", "Whether the number of rows is an estimate: 1 or 0", self.estimated);
        of.register("table_in_sync", "Whether the table is proved equal and caught up: 1 or 0", self.in_sync);
        of.register("table_sync_ratio", "Target rows over source rows; a count, not a proof", self.ratio);
        of.register_with_unit("table_verified_through_timestamp", "When the table was last proved equal", Unit::Seconds, self.verified);
        of.register("table_schema_drift", "Whether columns cannot be compared or applied: 1 or 0", self.drift);
        of.register("compare_mismatched_rows", "Open findings, proved", self.mismatched);
        of.register("compare_unverified_ranges", "Parts of a table that could not be judged", self.unverified);
        of.register("compare_progress_ratio", "How far a running comparison is", self.progress);
        of.register_with_unit("compare_last_success_timestamp", "When a comparison of the table last ended", Unit::Seconds, self.success);
    }
}

/// What Linux says of this process; absent elsewhere.
fn process(registry: &mut Registry) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (stat, status) = (read("/proc/self/stat"), read("/proc/self/status"));
    // The fields after the command's name, which is in parentheses and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let field = |i: usize| fields.get(i).and_then(|field| field.parse::<f64>().ok());
    // Linux has a hundred ticks a second on every machine that Rust's standard library runs on.
    let cpu = field(11).zip(field(12)).map(|(user, system)| (user + system) / 100.0);
    if let Some(cpu) = cpu {
        let seconds = FloatCounter::default();
        seconds.inc_by(cpu);
        registry.register_with_unit("process_cpu", "Processor time used", Unit::Seconds, seconds);
    }
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<f64>().ok()).map(|kilobytes| kilobytes * 1024.0);
    float_gauge(registry, "process_resident_memory", "Memory in use", Unit::Bytes, resident);
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        gauge(registry, "process_open_fds", "Open file descriptors").set(open.count() as i64);
    }
}

/// OpenMetrics brought down to Prometheus' text format 0.0.4: no `# EOF`, no `# UNIT`, no exemplars; counters typed on their `_total` name;
/// info as gauge.
pub fn as_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut counters: BTreeMap<&str, &str> = BTreeMap::new();
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ")
            && let Some((name, kind)) = rest.split_once(' ')
        {
            counters.insert(name, kind);
        }
    }
    for line in open_metrics.lines() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        if let Some(rest) = line.strip_prefix("# HELP ")
            && let Some((name, help)) = rest.split_once(' ')
        {
            text.push_str(&format!("# HELP {} {help}\n", text_name(name, counters.get(name).copied())));
        } else if let Some(rest) = line.strip_prefix("# TYPE ")
            && let Some((name, kind)) = rest.split_once(' ')
        {
            let shown = match kind {
                "info" => "gauge",
                "unknown" => "untyped",
                other => other,
            };
            text.push_str(&format!("# TYPE {} {shown}\n", text_name(name, Some(kind))));
        } else {
            text.push_str(without_exemplar(line));
            text.push('\n');
        }
    }
    text
}

fn text_name(name: &str, kind: Option<&str>) -> String {
    match kind {
        Some("counter") => format!("{name}_total"),
        Some("info") => format!("{name}_info"),
        _ => name.to_owned(),
    }
}

/// A sample without what stands after ` # `, which cannot occur in a label's value unescaped outside quotes.
fn without_exemplar(line: &str) -> &str {
    let mut quoted = false;
    let mut escaped = false;
    for (at, letter) in line.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '#' if !quoted => return line[..at].trim_end(),
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_is_brought_down_to_text() {
        let open = "# HELP a Things.\n# TYPE a counter\na_total{t=\"x # y\"} 3 # {trace_id=\"1\"} 1 2\n# HELP b_seconds Time.\n# TYPE b_seconds gauge\n# UNIT b_seconds seconds\nb_seconds 1.5\n# TYPE c info\nc_info{v=\"1\"} 1\n# EOF\n";
        let text = "# HELP a_total Things.\n# TYPE a_total counter\na_total{t=\"x # y\"} 3\n# HELP b_seconds Time.\n# TYPE b_seconds gauge\nb_seconds 1.5\n# TYPE c_info gauge\nc_info{v=\"1\"} 1\n";
        assert_eq!(as_text(open), text);
    }
}
