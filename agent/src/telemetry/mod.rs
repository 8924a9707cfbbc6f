//! Logs to stderr, and one trace per change to an OTLP collector.
//!
//! The line hands outlines of batches over and never waits: a slow or absent collector costs spans, which are counted, and nothing else.
//! An outline names changes (table, op, transaction, ordinal) and holds no row, so that what waits here keeps no batch in memory.
//!
//! ```text
//! change {table}          PRODUCER  commit -> stored, or seen on the target
//!  ├ capture mysql-binlog INTERNAL  commit -> received
//!  ├ process {table}      CONSUMER  received -> stored
//!  │  └ one CLIENT span per sink: the write of the batch that the change was in
//!  └ verify {table}       INTERNAL  the look at the target that judged it, with its result
//! ```
//!
//! Where changes are checked one by one, a trace waits a moment for that, so that its root ends when the change was seen. If the check comes
//! later, the root has ended when the change was stored, and `verify` follows by itself. A key's hash is not among the attributes: history
//! computes it with a secret of its own, which it does not hand out.

mod spans;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as Exporter};
use plumbline_sdk::{Error, Result};
use tokio::sync::{mpsc, oneshot};
use tracing_subscriber::EnvFilter;

pub use spans::{Outcome, Outline, SinkTime, Times};
use spans::{Builder, Look};

/// Changes that may wait for their spans to be built and sent.
const QUEUE: u64 = 200_000;
/// Bytes of outlines that may wait.
const QUEUE_BYTES: u64 = 16 * 1024 * 1024;
/// Changes of traces that wait to be checked on the target, at most: well below what may wait in all.
const HELD: u64 = QUEUE / 2;
/// How long a trace waits to be checked on the target.
const HOLD: Duration = Duration::from_secs(1);
/// Spans in one export.
const EXPORT: usize = 4_096;

/// Sends log lines to stderr. `filter` is a level or a list such as `info,plumbline=debug`.
pub fn log_to_stderr(filter: &str, json: bool) -> Result<()> {
    let filter = EnvFilter::try_new(filter).map_err(|cause| Error::config(format!("`PLUMBLINE_LOG` is `{filter}`; `info` or `info,plumbline=debug` would have been accepted")).caused_by(cause))?;
    let colour = std::io::stderr().is_terminal() && !crate::config::no_colour();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colour);
    // A second subscriber in one process (tests) is refused; the first one serves.
    let _ = if json { builder.json().try_init() } else { builder.try_init() };
    Ok(())
}

enum Message {
    /// Every sink has this; `number` where it will be checked on the target.
    Stored { number: Option<u64>, outline: Outline, times: Times },
    /// It was checked on the target.
    Seen { number: u64, outline: Outline, look: Look },
    Flush(oneshot::Sender<()>),
}

/// Counters of spans.
#[derive(Debug, Default)]
pub struct SpanCounts {
    /// Built, or left out because too many waited.
    pub ended: AtomicU64,
    /// Taken by the collector.
    pub exported: AtomicU64,
    /// Lost: the queue was full, or the collector did not take them.
    pub dropped: AtomicU64,
    /// Exports that failed.
    pub errors: AtomicU64,
}

/// What waits, in changes and in bytes.
#[derive(Debug, Default)]
struct Waiting {
    changes: AtomicU64,
    bytes: AtomicU64,
}

impl Waiting {
    /// Takes room for an outline; false: there is none. One that is larger than all the room is taken where nothing else waits.
    fn take(&self, outline: &Outline) -> bool {
        let (changes, bytes) = (self.changes.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        if changes > 0 && (changes + outline.changes > QUEUE || bytes + outline.bytes > QUEUE_BYTES) {
            return false;
        }
        self.changes.fetch_add(outline.changes, Ordering::Relaxed);
        self.bytes.fetch_add(outline.bytes, Ordering::Relaxed);
        true
    }
    fn give_back(&self, outline: &Outline) {
        self.changes.fetch_sub(outline.changes, Ordering::Relaxed);
        self.bytes.fetch_sub(outline.bytes, Ordering::Relaxed);
    }
}

/// One trace per change. Cheap to clone.
#[derive(Clone, Default)]
pub struct ChangeTraces {
    queue: Option<mpsc::UnboundedSender<Message>>,
    waiting: Arc<Waiting>,
    /// What became of spans.
    pub counts: Arc<SpanCounts>,
}

impl ChangeTraces {
    /// Starts sending, where the standard `OTEL_*` variables name a collector; one log line says so, or that traces are not sent.
    pub fn start(otel: &BTreeMap<String, String>, pipeline: &str) -> Result<Self> {
        let variable = |name: &str| otel.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let endpoint = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT"));
        let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) || variable("OTEL_TRACES_EXPORTER") == Some("none");
        let Some(endpoint) = endpoint.filter(|_| !disabled) else {
            tracing::info!("traces are not sent: `OTEL_EXPORTER_OTLP_ENDPOINT` names no collector, or tracing is switched off");
            return Ok(Self::default());
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
        Ok(Self::send_to(exporter, pipeline))
    }

    fn send_to(exporter: impl Exporter + 'static, pipeline: &str) -> Self {
        let (queue, messages) = mpsc::unbounded_channel();
        let traces = Self { queue: Some(queue), ..Self::default() };
        let sender = Sender {
            exporter,
            builder: Builder { scope: InstrumentationScope::builder("plumbline").with_version(env!("CARGO_PKG_VERSION")).build(), pipeline: pipeline.into() },
            waiting: Arc::clone(&traces.waiting),
            counts: Arc::clone(&traces.counts),
            spans: Vec::new(),
            held: VecDeque::new(),
            held_changes: 0,
            early: VecDeque::new(),
            told: None,
            last_said: None,
        };
        tokio::spawn(sender.run(messages));
        traces
    }

    /// Whether traces are sent at all.
    pub fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// Changes that wait, and how many may; None: traces are not sent.
    pub fn queue(&self) -> Option<(usize, usize)> {
        let changes = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        self.is_on().then(|| (changes(self.waiting.changes.load(Ordering::Relaxed)), changes(QUEUE)))
    }

    /// Takes what every sink has; `number`: by which [`seen`](Self::seen) will name it, where it will. Never waits: where too much waits
    /// already, its spans are counted as dropped.
    pub fn stored(&self, number: Option<u64>, outline: Outline, times: Times) {
        let spans = outline.changes * (3 + times.sinks.iter().flatten().count() as u64);
        self.offer(outline, spans, |outline| Message::Stored { number, outline, times });
    }

    /// Takes what was checked on the target: the look began and ended then.
    pub fn seen(&self, number: u64, outline: Outline, began: i64, ended: i64) {
        let spans = outline.changes;
        self.offer(outline, spans, |outline| Message::Seen { number, outline, look: Look { began, ended } });
    }

    fn offer(&self, outline: Outline, spans: u64, message: impl FnOnce(Outline) -> Message) {
        let Some(queue) = self.queue.as_ref().filter(|_| outline.changes > 0) else { return };
        if self.waiting.take(&outline) {
            let _ = queue.send(message(outline));
        } else {
            self.counts.ended.fetch_add(spans, Ordering::Relaxed);
            self.counts.dropped.fetch_add(spans, Ordering::Relaxed);
        }
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

/// A trace that waits to be checked on the target.
struct Held {
    number: u64,
    outline: Outline,
    times: Times,
    until: tokio::time::Instant,
}

/// Builds spans and sends them.
struct Sender<E> {
    exporter: E,
    builder: Builder,
    waiting: Arc<Waiting>,
    counts: Arc<SpanCounts>,
    spans: Vec<SpanData>,
    /// In ascending order of their numbers.
    held: VecDeque<Held>,
    held_changes: u64,
    /// Checked on the target before every other sink had it: at most the batch that is being written.
    early: VecDeque<(u64, Outline, Look)>,
    /// The highest number that was stored.
    told: Option<u64>,
    last_said: Option<Instant>,
}

impl<E: Exporter> Sender<E> {
    async fn run(mut self, mut messages: mpsc::UnboundedReceiver<Message>) {
        loop {
            let message = match self.held.front() {
                None => messages.recv().await,
                Some(first) => match tokio::time::timeout_at(first.until, messages.recv()).await {
                    Ok(message) => message,
                    Err(_) => {
                        self.release_first().await;
                        self.export(messages.is_empty()).await;
                        continue;
                    }
                },
            };
            let Some(message) = message else { break };
            match message {
                Message::Stored { number, outline, times } => self.stored(number, outline, times).await,
                Message::Seen { number, outline, look } => self.seen(number, outline, look).await,
                Message::Flush(done) => {
                    self.release_all().await;
                    self.export(true).await;
                    let _ = done.send(());
                }
            }
            // Small batches are sent together, as long as more of them wait.
            self.export(messages.is_empty()).await;
        }
        self.release_all().await;
        self.export(true).await;
    }

    async fn stored(&mut self, number: Option<u64>, outline: Outline, times: Times) {
        let Some(number) = number else { return self.build(outline, Some(times), None).await };
        self.told = Some(number);
        // What was left out at its storing and checked all the same.
        while self.early.front().is_some_and(|(early, _, _)| *early < number) {
            if let Some((_, outline, look)) = self.early.pop_front() {
                self.build(outline, None, Some(look)).await;
            }
        }
        if self.early.front().is_some_and(|(early, _, _)| *early == number)
            && let Some((_, judged, look)) = self.early.pop_front()
        {
            self.waiting.give_back(&outline);
            return self.build(judged, Some(times), Some(look)).await;
        }
        self.held_changes += outline.changes;
        self.held.push_back(Held { number, outline, times, until: tokio::time::Instant::now() + HOLD });
        while self.held_changes > HELD && !self.held.is_empty() {
            self.release_first().await;
        }
    }

    async fn seen(&mut self, number: u64, outline: Outline, look: Look) {
        match self.held.binary_search_by_key(&number, |held| held.number) {
            Ok(at) => {
                if let Some(held) = self.held.remove(at) {
                    self.held_changes -= held.outline.changes;
                    self.waiting.give_back(&held.outline);
                    self.build(outline, Some(held.times), Some(look)).await;
                }
            }
            // It waits for its storing where that may still come: it was not told of anything later yet.
            Err(_) if self.told < Some(number) => self.early.push_back((number, outline, look)),
            Err(_) => self.build(outline, None, Some(look)).await,
        }
    }

    async fn release_first(&mut self) {
        if let Some(held) = self.held.pop_front() {
            self.held_changes -= held.outline.changes;
            self.build(held.outline, Some(held.times), None).await;
        }
    }

    async fn release_all(&mut self) {
        while !self.held.is_empty() {
            self.release_first().await;
        }
        while let Some((_, outline, look)) = self.early.pop_front() {
            self.build(outline, None, Some(look)).await;
        }
    }

    /// Builds the spans of all changes of an outline, and sends them as they become many: a large batch is never built as a whole.
    async fn build(&mut self, outline: Outline, times: Option<Times>, look: Option<Look>) {
        let pipeline = Arc::clone(&self.builder.pipeline);
        for change in outline.each(&pipeline) {
            self.builder.spans(&change, times.as_ref(), look, &mut self.spans);
            if self.spans.len() >= EXPORT {
                self.export(true).await;
            }
        }
        self.waiting.give_back(&outline);
    }

    /// Sends what is built, where it is enough or `all` is to go.
    async fn export(&mut self, all: bool) {
        while self.spans.len() >= EXPORT || all && !self.spans.is_empty() {
            let rest = self.spans.split_off(self.spans.len().min(EXPORT));
            let export = std::mem::replace(&mut self.spans, rest);
            let number = export.len() as u64;
            self.counts.ended.fetch_add(number, Ordering::Relaxed);
            match self.exporter.export(export).await {
                Ok(()) => {
                    self.counts.exported.fetch_add(number, Ordering::Relaxed);
                }
                Err(cause) => {
                    self.counts.dropped.fetch_add(number, Ordering::Relaxed);
                    self.counts.errors.fetch_add(1, Ordering::Relaxed);
                    if self.last_said.is_none_or(|said| said.elapsed() > Duration::from_secs(30)) {
                        self.last_said = Some(Instant::now());
                        tracing::warn!(%cause, "the collector did not take spans; they are counted as dropped");
                    }
                }
            }
        }
    }
}
