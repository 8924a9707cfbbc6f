//! Logs to stderr, and one trace per change to an OTLP collector.
//!
//! The line hands whole batches over and never waits: a slow or absent collector costs spans, which are counted, and nothing else.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use plumbline_sdk::{Batch, ChangeEvent, Error, Event, Result, trace::TraceIds};
use tokio::sync::{mpsc, oneshot};
use tracing_subscriber::EnvFilter;

/// Changes that may wait for their spans to be built and sent.
const QUEUE: u64 = 200_000;
/// Spans in one export.
const EXPORT: usize = 4_096;
/// Spans of one change: the change itself, its capture, its processing.
const SPANS: u64 = 3;

/// Sends log lines to stderr. `filter` is a level or a list such as `info,plumbline=debug`.
pub fn log_to_stderr(filter: &str, json: bool) -> Result<()> {
    let filter = EnvFilter::try_new(filter).map_err(|cause| Error::config(format!("`PLUMBLINE_LOG` is `{filter}`; `info` or `info,plumbline=debug` would have been accepted")).caused_by(cause))?;
    let colour = std::io::stderr().is_terminal() && !crate::config::no_colour();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    // A second subscriber in one process (tests) is refused; the first one serves.
    let _ = if json { builder.json().try_init() } else { builder.try_init() };
    Ok(())
}

/// When a batch came and was stored, microseconds since the epoch.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// It was received.
    pub received: i64,
    /// Every sink has it.
    pub stored: i64,
}

enum Message {
    Batch(Arc<Batch>, Times),
    Flush(oneshot::Sender<()>),
}

/// Counters of spans.
#[derive(Debug, Default)]
pub struct SpanCounts {
    /// Built.
    pub ended: AtomicU64,
    /// Taken by the collector.
    pub exported: AtomicU64,
    /// Lost: the queue was full, or the collector did not take them.
    pub dropped: AtomicU64,
    /// Exports that failed.
    pub errors: AtomicU64,
}

/// One trace per change. Cheap to clone.
#[derive(Clone)]
pub struct ChangeTraces {
    queue: Option<mpsc::UnboundedSender<Message>>,
    waiting: Arc<AtomicU64>,
    /// What became of spans.
    pub counts: Arc<SpanCounts>,
}

impl ChangeTraces {
    /// Starts sending, where the standard `OTEL_*` variables name a collector; one log line says so, or that traces are not sent.
    pub fn start(otel: &BTreeMap<String, String>, pipeline: &str) -> Result<Self> {
        let variable = |name: &str| otel.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let off = Self { queue: None, waiting: Arc::default(), counts: Arc::default() };
        let endpoint = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT"));
        let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) || variable("OTEL_TRACES_EXPORTER") == Some("none");
        let Some(endpoint) = endpoint.filter(|_| !disabled) else {
            tracing::info!("traces are not sent: `OTEL_EXPORTER_OTLP_ENDPOINT` names no collector, or tracing is switched off");
            return Ok(off);
        };
        let protocol = variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| variable("OTEL_EXPORTER_OTLP_PROTOCOL")).unwrap_or("grpc");
        let said = |cause| Error::config(format!("the OTLP exporter for `{endpoint}` cannot be built")).caused_by(cause);
        // Endpoint, headers and timeout are read from the standard variables by the exporter itself.
        let mut exporter = match protocol {
            "grpc" => SpanExporter::builder().with_tonic().build().map_err(said)?,
            "http/protobuf" => SpanExporter::builder().with_http().with_protocol(opentelemetry_otlp::Protocol::HttpBinary).build().map_err(said)?,
            other => return Err(Error::config(format!("`OTEL_EXPORTER_OTLP_PROTOCOL` is `{other}`; `grpc` or `http/protobuf` would have been accepted"))),
        };
        let mut resource = Resource::builder();
        if variable("OTEL_SERVICE_NAME").is_none() && !variable("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|all| all.contains("service.name=")) {
            resource = resource.with_service_name("plumbline");
        }
        exporter.set_resource(&resource.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION"))).build());
        tracing::info!(endpoint, protocol, "traces are sent");
        let (queue, messages) = mpsc::unbounded_channel();
        let traces = Self { queue: Some(queue), ..off };
        tokio::spawn(send(exporter, messages, traces.waiting.clone(), traces.counts.clone(), pipeline.to_owned()));
        Ok(traces)
    }

    /// Whether traces are sent at all.
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Takes a batch that every sink has. Never waits: where too much waits already, its spans are counted as dropped.
    pub fn offer(&self, batch: &Arc<Batch>, times: Times) {
        let Some(queue) = &self.queue else { return };
        let changes = batch.events.len() as u64;
        if changes == 0 || batch.transactions.is_empty() {
            return;
        }
        if self.waiting.load(Ordering::Relaxed) + changes > QUEUE && self.waiting.load(Ordering::Relaxed) > 0 {
            self.counts.ended.fetch_add(changes * SPANS, Ordering::Relaxed);
            self.counts.dropped.fetch_add(changes * SPANS, Ordering::Relaxed);
            return;
        }
        self.waiting.fetch_add(changes, Ordering::Relaxed);
        let _ = queue.send(Message::Batch(Arc::clone(batch), times));
    }

    /// Waits until what was offered is sent, at most so long.
    pub async fn flush(&self, deadline: Duration) {
        let Some(queue) = &self.queue else { return };
        let (done, wait) = oneshot::channel();
        if queue.send(Message::Flush(done)).is_ok() {
            let _ = tokio::time::timeout(deadline, wait).await;
        }
    }
}

async fn send(exporter: SpanExporter, mut messages: mpsc::UnboundedReceiver<Message>, waiting: Arc<AtomicU64>, counts: Arc<SpanCounts>, pipeline: String) {
    let scope = InstrumentationScope::builder("plumbline").with_version(env!("CARGO_PKG_VERSION")).build();
    let mut spans: Vec<SpanData> = Vec::new();
    let mut last_said: Option<std::time::Instant> = None;
    while let Some(message) = messages.recv().await {
        let mut flush = None;
        match message {
            Message::Batch(batch, times) => {
                let mut builder = Builder { scope: &scope, pipeline: &pipeline, spans: &mut spans };
                builder.batch(&batch, times);
                waiting.fetch_sub(batch.events.len() as u64, Ordering::Relaxed);
            }
            Message::Flush(done) => flush = Some(done),
        }
        // Small batches are sent together, as long as more of them wait.
        if spans.len() < EXPORT && flush.is_none() && !messages.is_empty() {
            continue;
        }
        while !spans.is_empty() {
            let rest = spans.split_off(spans.len().min(EXPORT));
            let export = std::mem::replace(&mut spans, rest);
            let number = export.len() as u64;
            counts.ended.fetch_add(number, Ordering::Relaxed);
            match exporter.export(export).await {
                Ok(()) => {
                    counts.exported.fetch_add(number, Ordering::Relaxed);
                }
                Err(cause) => {
                    counts.dropped.fetch_add(number, Ordering::Relaxed);
                    counts.errors.fetch_add(1, Ordering::Relaxed);
                    if last_said.is_none_or(|said| said.elapsed() > Duration::from_secs(30)) {
                        last_said = Some(std::time::Instant::now());
                        tracing::warn!(%cause, "the collector did not take spans; they are counted as dropped");
                    }
                }
            }
        }
        if let Some(done) = flush {
            let _ = done.send(());
        }
    }
}

struct Builder<'a> {
    scope: &'a InstrumentationScope,
    pipeline: &'a str,
    spans: &'a mut Vec<SpanData>,
}

impl Builder<'_> {
    fn batch(&mut self, batch: &Batch, times: Times) {
        let server = batch.position.as_ref().map_or("", |position| position.server.as_str());
        for mark in &batch.transactions {
            let ids = TraceIds::of(self.pipeline, server, &mark.id);
            let transaction = mark.id.to_string();
            let mut ordinal = mark.first_change;
            for event in &batch.events[mark.events.clone()] {
                if let Event::Change(change) = event {
                    self.change(change, ids.change(ordinal).0, &transaction, ordinal, mark.commit_micros, times);
                    ordinal += 1;
                }
            }
        }
    }

    fn change(&mut self, change: &ChangeEvent, trace: [u8; 16], transaction: &str, ordinal: u64, committed: i64, times: Times) {
        // Each stage begins where its predecessor ended, also where clocks disagree.
        let received = times.received.max(committed);
        let stored = times.stored.max(received);
        let table = change.table.id.to_string();
        let span = |number: u64| SpanId::from_bytes((u64::from_be_bytes([trace[8], trace[9], trace[10], trace[11], trace[12], trace[13], trace[14], trace[15]]).wrapping_add(number) | 1 << 63).to_be_bytes());
        let (root, capture, process) = (span(1), span(2), span(3));
        let attributes = || {
            vec![
                KeyValue::new("db.system.name", "mysql"),
                KeyValue::new("db.namespace", change.table.id.schema.to_string()),
                KeyValue::new("db.collection.name", change.table.id.table.to_string()),
                KeyValue::new("db.operation.name", change.op.as_str()),
                KeyValue::new("plumbline.pipeline", self.pipeline.to_owned()),
                KeyValue::new("plumbline.position", transaction.to_owned()),
                KeyValue::new("plumbline.ordinal", i64::try_from(ordinal).unwrap_or(i64::MAX)),
            ]
        };
        let skew = (committed - times.received).max(0);
        let mut whole = attributes();
        if skew > 0 {
            whole.push(KeyValue::new("plumbline.clock_skew_us", skew));
        }
        let parts = [
            (root, SpanId::INVALID, SpanKind::Producer, format!("change {table}"), committed, stored, whole),
            (capture, root, SpanKind::Internal, "capture mysql-binlog".to_owned(), committed, received, Vec::new()),
            (process, root, SpanKind::Consumer, format!("process {table}"), received, stored, Vec::new()),
        ];
        for (id, parent, kind, name, start, end, attributes) in parts {
            self.spans.push(SpanData {
                span_context: SpanContext::new(TraceId::from_bytes(trace), id, TraceFlags::SAMPLED, false, TraceState::default()),
                parent_span_id: parent,
                parent_span_is_remote: false,
                span_kind: kind,
                name: name.into(),
                start_time: system_time(start),
                end_time: system_time(end),
                attributes,
                dropped_attributes_count: 0,
                events: SpanEvents::default(),
                links: SpanLinks::default(),
                status: Status::Unset,
                instrumentation_scope: self.scope.clone(),
            });
        }
    }
}

fn system_time(micros: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}
