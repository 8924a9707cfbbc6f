//! Every metric: `names.rs` has the names with what they say, `tables.rs` all that has a table label, `picture.rs` the rest of what stands
//! in the picture, `kafka.rs` Kafka and the connectors, `process.rs` what Linux says of the process.
//!
//! What happens is counted as it happens; what stands in the picture is read from it at a scrape, so that nothing is kept twice and a
//! table that goes takes its metrics along. No database is asked, and no lock is held for longer than the copy takes.

mod kafka;
mod names;
mod picture;
mod process;
mod tables;
#[cfg(test)]
mod tests;
mod text;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use plumbline_sdk::TableId;
use plumbline_sdk::trace::TraceId;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;

use crate::clock;
use crate::shared::Shared;
use crate::telemetry::ChangeTraces;
pub use kafka::KafkaLook;
pub use tables::Counted;
use tables::Tables;
pub use text::as_text;

const PREFIX: &str = "plumbline";

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
    ByDependency { dependency }
    Operation { db_system, operation }
    ByQueue { queue }
    TopicPartition { topic, partition }
    ConnectorName { connector }
    ConnectorState { connector, state }
    TaskState { connector, task, state }
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

fn exemplar_histogram() -> HistogramWithExemplars<TraceLabel> {
    HistogramWithExemplars::new(SECONDS.into_iter())
}

/// What a queue of the agent holds and may hold; None: it has ended.
type QueueLook = Box<dyn Fn() -> Option<(usize, usize)> + Send + Sync>;

/// Asks what the reading of Kafka shows of itself.
pub type KafkaLooks = Box<dyn Fn() -> KafkaLook + Send + Sync>;

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;
type Exemplars<L> = Family<L, HistogramWithExemplars<TraceLabel>, fn() -> HistogramWithExemplars<TraceLabel>>;

/// What happens, counted as it happens.
pub struct Metrics {
    kept: Registry,
    pipeline: String,
    traces: ChangeTraces,
    tables: Tables,
    queues: Mutex<Vec<(&'static str, QueueLook)>>,
    kafka: OnceLock<KafkaLooks>,
    /// At most so many topics' partitions have labels of their own.
    most: usize,
    latency: Exemplars<ByStage>,
    errors: Family<ByError, Counter>,
    compare_runs: Family<ModeResult, Counter>,
    compare_seconds: Histograms<ByMode>,
    event_verifications: Family<ByResult, Counter>,
    event_visible: HistogramWithExemplars<TraceLabel>,
    history_writes: Family<ByResult, Counter>,
    probes: Histograms<ByDependency>,
    operations: Histograms<Operation>,
    http: Histograms<Route>,
}

impl Metrics {
    /// Metrics of one agent.
    pub fn new(pipeline: &str, max_tables: usize, traces: ChangeTraces) -> Self {
        let mut metrics = Self {
            kept: Registry::with_prefix(PREFIX),
            pipeline: pipeline.to_owned(),
            traces,
            tables: Tables::new(max_tables),
            queues: Mutex::default(),
            kafka: OnceLock::new(),
            most: max_tables,
            latency: Family::new_with_constructor(exemplar_histogram),
            errors: Family::default(),
            compare_runs: Family::default(),
            compare_seconds: Family::new_with_constructor(seconds_histogram),
            event_verifications: Family::default(),
            event_visible: exemplar_histogram(),
            history_writes: Family::default(),
            probes: Family::new_with_constructor(seconds_histogram),
            operations: Family::new_with_constructor(seconds_histogram),
            http: Family::new_with_constructor(seconds_histogram),
        };
        metrics.begin_at_zero();
        let of = metrics.kept.sub_registry_with_label(("pipeline".into(), pipeline.to_owned().into()));
        names::CDC_LATENCY.register(of, metrics.latency.clone());
        names::CDC_ERRORS.register(of, metrics.errors.clone());
        names::COMPARE_RUNS.register(of, metrics.compare_runs.clone());
        names::COMPARE_DURATION.register(of, metrics.compare_seconds.clone());
        names::EVENT_VERIFICATIONS.register(of, metrics.event_verifications.clone());
        names::EVENT_VISIBLE.register(of, metrics.event_visible.clone());
        names::HISTORY_WRITES.register(of, metrics.history_writes.clone());
        names::DEPENDENCY_PROBE.register(of, metrics.probes.clone());
        names::DB_OPERATION.register(of, metrics.operations.clone());
        names::HTTP_REQUEST.register(&mut metrics.kept, metrics.http.clone());
        names::BUILD.register(&mut metrics.kept, Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        metrics
    }

    /// Known label sets begin at 0, so that the first increase is seen as one.
    fn begin_at_zero(&self) {
        for result in ["match", "lagging", "mismatch", "missing", "unverified"] {
            drop(self.event_verifications.get_or_create(&ByResult { result: result.into() }));
        }
        for result in ["applied", "failed"] {
            drop(self.history_writes.get_or_create(&ByResult { result: result.into() }));
        }
        for result in ["equal", "different", "unverified"] {
            drop(self.compare_runs.get_or_create(&ModeResult { mode: "rows".into(), result: result.into() }));
        }
        for stage in ["capture", "transport", "process", "end_to_end"] {
            drop(self.latency.get_or_create(&ByStage { stage: stage.into() }));
        }
    }

    /// The pipeline's name.
    pub fn pipeline(&self) -> &str {
        &self.pipeline
    }
    /// A transaction reached a stage so long after its commit. The trace leads to the change.
    pub fn latency(&self, stage: &'static str, micros: i64, trace: Option<TraceId>) {
        self.latency.get_or_create(&ByStage { stage: stage.into() }).observe(micros.max(0) as f64 / 1e6, trace.map(label), None);
    }
    /// Something failed.
    pub fn error(&self, stage: &'static str, error_type: &'static str) {
        self.errors.get_or_create(&ByError { stage: stage.into(), error_type: error_type.into() }).inc();
    }
    /// Counts something of a table.
    pub fn table(&self, table: &TableId, what: impl FnOnce(&mut Counted)) {
        self.tables.count(table, what);
    }
    /// A table is gone: so is what was counted of it.
    pub fn table_gone(&self, table: &TableId) {
        self.tables.gone(table);
    }
    /// A table was compared.
    pub fn compared(&self, result: &'static str, seconds: f64) {
        self.compare_runs.get_or_create(&ModeResult { mode: "rows".into(), result: result.into() }).inc();
        self.compare_seconds.get_or_create(&ByMode { mode: "rows".into() }).observe(seconds);
    }
    /// Changes were checked one by one on the target.
    pub fn verified_events(&self, result: &'static str, number: u64) {
        self.event_verifications.get_or_create(&ByResult { result: result.into() }).inc_by(number);
    }
    /// A change was seen on the target so long after its commit.
    pub fn visible(&self, micros: i64, trace: Option<TraceId>) {
        self.event_visible.observe(micros.max(0) as f64 / 1e6, trace.map(label), None);
    }
    /// A batch was written to history, or was not.
    pub fn history_write(&self, result: &'static str) {
        self.history_writes.get_or_create(&ByResult { result: result.into() }).inc();
    }
    /// An outside component answered a small question.
    pub fn probed(&self, dependency: &'static str, took: Duration) {
        self.probes.get_or_create(&ByDependency { dependency: dependency.into() }).observe(took.as_secs_f64());
    }
    /// A database was called, whatever it answered.
    pub fn db_operation(&self, db_system: &'static str, operation: &'static str, took: Duration) {
        self.operations.get_or_create(&Operation { db_system: db_system.into(), operation: operation.into() }).observe(took.as_secs_f64());
    }
    /// A request was answered.
    pub fn http_request(&self, method: &str, route: &str, status: u16, took: Duration) {
        let method = if matches!(method, "GET" | "POST" | "DELETE" | "HEAD" | "PUT" | "PATCH" | "OPTIONS") { method } else { "other" };
        self.http.get_or_create(&Route { method: method.into(), route: route.into(), status_code: status.to_string() }).observe(took.as_secs_f64());
    }
    /// Shows from now on what waits in a queue, for as long as it lives.
    pub fn watch_queue<T: Send + 'static>(&self, name: &'static str, queue: &mpsc::Sender<T>) {
        let queue = queue.downgrade();
        let look: QueueLook = Box::new(move || queue.upgrade().map(|queue| (queue.max_capacity() - queue.capacity(), queue.max_capacity())));
        self.queues.lock().unwrap_or_else(PoisonError::into_inner).push((name, look));
    }

    /// Shows from now on what the reading of Kafka says of itself.
    pub fn watch_kafka(&self, look: KafkaLooks) {
        // There is one stream.
        let _ = self.kafka.set(look);
    }

    /// What the reading of Kafka says of itself now; None: changes do not come by Kafka.
    pub fn kafka(&self) -> Option<KafkaLook> {
        self.kafka.get().map(|look| look())
    }

    /// Everything in OpenMetrics 1.0.0.
    pub fn open_metrics(&self, shared: &Shared) -> String {
        let mut text = String::with_capacity(64 * 1024);
        let mut process = Registry::default();
        process::register(&mut process);
        // Writing to a String does not fail.
        let _ = encode_registry(&mut text, &self.kept);
        let _ = encode_registry(&mut text, &self.seen(shared));
        let _ = encode_registry(&mut text, &process);
        let _ = encode_eof(&mut text);
        text
    }

    /// Everything in Prometheus' text format 0.0.4.
    pub fn text(&self, shared: &Shared) -> String {
        as_text(&self.open_metrics(shared))
    }

    /// What stands in the picture.
    fn seen(&self, shared: &Shared) -> Registry {
        let mut registry = Registry::with_prefix(PREFIX);
        let of = registry.sub_registry_with_label(("pipeline".into(), self.pipeline.clone().into()));
        self.register_queues(of);
        {
            let picture = shared.picture();
            picture::register(of, &picture.state, shared, clock::now_micros());
            self.tables.register(of, &picture.state);
        }
        if let Some(look) = self.kafka() {
            let applied = shared.picture().state.applied.clone();
            kafka::register(of, &look, applied.as_ref(), self.most);
        }
        if let Some(view) = shared.connector() {
            kafka::connectors(of, &view);
        }
        self.own(&mut registry);
        registry
    }

    fn register_queues(&self, of: &mut Registry) {
        let (depth, capacity) = (Family::<ByQueue, Gauge>::default(), Family::<ByQueue, Gauge>::default());
        let mut queues: Vec<(&'static str, (usize, usize))> = Vec::new();
        queues.extend(self.queues.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(|(name, look)| Some((*name, look()?))));
        queues.extend(self.traces.queue().map(|look| ("traces", look)));
        for (name, (waiting, most)) in queues {
            let label = ByQueue { queue: name.into() };
            depth.get_or_create(&label).set(i64::try_from(waiting).unwrap_or(i64::MAX));
            capacity.get_or_create(&label).set(i64::try_from(most).unwrap_or(i64::MAX));
        }
        names::QUEUE_DEPTH.register(of, depth);
        names::QUEUE_CAPACITY.register(of, capacity);
    }

    /// The agent itself.
    fn own(&self, registry: &mut Registry) {
        let counts = &self.traces.counts;
        let errors = Family::<ByExporter, Counter>::default();
        errors.get_or_create(&ByExporter { exporter: "otlp".into() }).inc_by(counts.errors.load(Ordering::Relaxed));
        names::EXPORT_ERRORS.register(registry, errors);
        for (name, number) in [
            (names::OTEL_SPANS_ENDED, counts.ended.load(Ordering::Relaxed)),
            (names::OTEL_SPANS_EXPORTED, counts.exported.load(Ordering::Relaxed)),
            (names::OTEL_SPANS_DROPPED, counts.dropped.load(Ordering::Relaxed)),
            (names::METRIC_LABEL_OVERFLOW, self.tables.overflowed()),
        ] {
            picture::counter(registry, &name, number);
        }
    }
}

fn label(trace: TraceId) -> TraceLabel {
    TraceLabel { trace_id: trace.to_string() }
}
