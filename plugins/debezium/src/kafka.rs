//! The source `kafka-cdc`: a connector's topics, read from stored offsets: all of them, or as one of several agents the share that a group gives.
//!
//! A thread of its own polls, decodes the borrowed records in place and hands over batches of up to 1,000 records or 5 ms; the channel between
//! is short, so that a slow sink slows the reading. Offsets live in the position; the group's offsets are committed for lag tools only.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use plumbline_sdk::pattern::matches;
use plumbline_sdk::plugin::Group;
use plumbline_sdk::{Batch, Error, Position, Result, Secret, Source};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::mpsc;

use crate::cells::Settings;
use crate::envelope::LARGEST;
use crate::ingest::{Aside, Lookup, Ways};

mod context;
mod group;
mod look;
mod read;
mod signals;
mod sinks;
mod stable;
mod whole;

pub use look::Look;
pub use signals::KafkaSignals;
pub use sinks::{SinkOffsets, topic_of};
pub use whole::{StoredPlace, StoredPlaces};

use context::Context;
use group::STORED_WITHIN;

/// librdkafka's settings that may be given beyond ours. None of them opens a file, loads code or names another host.
const ALLOWED: [&str; 25] = [
    "client.id",
    "client.rack",
    "broker.address.family",
    "connections.max.idle.ms",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "log.connection.close",
    "max.partition.fetch.bytes",
    "metadata.max.age.ms",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "receive.message.max.bytes",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "sasl.mechanism",
    "sasl.mechanisms",
    "security.protocol",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.receive.buffer.bytes",
    "socket.timeout.ms",
];

/// The settings of plugin `kafka-cdc`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KafkaConfig {
    /// Brokers to begin with: `kafka:9092,kafka2:9092`.
    pub bootstrap_servers: String,
    /// The connector's `topic.prefix`: its topics, and those of its heartbeats and transactions, are read.
    pub topic_prefix: String,
    /// Instead of the prefix: topics by name, with `*` for any letters.
    pub topics: Vec<String>,
    /// The group under which offsets are committed for lag tools. Empty: `plumbline-` and the prefix.
    pub group_id: String,
    /// A name of this member's own in the group, which stays over restarts (`group.instance.id`); empty: it has none.
    pub group_instance_id: String,
    /// `plaintext`, `ssl`, `sasl_plaintext`, `sasl_ssl`; empty: `plaintext`, or as `extra` says.
    pub security_protocol: String,
    /// A PEM file with the certificate authorities to trust; None: those of the system.
    pub ssl_ca: Option<PathBuf>,
    /// `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512`; empty: as `extra` says.
    pub sasl_mechanism: String,
    /// The user, where the brokers ask for one.
    pub sasl_username: String,
    /// Its password.
    pub sasl_password: Secret,
    /// How cells are written where records come without a Connect schema; as our own connector writes them by default.
    pub cells: Settings,
    /// Larger records are kept aside.
    pub max_record_bytes: usize,
    /// How long a record of a table that is not known yet is held, in milliseconds: discovery may be about to find it.
    pub table_wait_ms: u64,
    /// How often new topics and partitions are looked for, in milliseconds.
    pub metadata_refresh_ms: u64,
    /// Whether the server compresses transactions (`binlog_transaction_compression`): their rows cannot be told from redelivered ones.
    pub compressed_transactions: bool,
    /// Settings of librdkafka beyond ours; only harmless ones are allowed.
    pub extra: BTreeMap<String, String>,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            bootstrap_servers: String::new(),
            topic_prefix: "plumbline".into(),
            topics: Vec::new(),
            group_id: String::new(),
            group_instance_id: String::new(),
            security_protocol: String::new(),
            ssl_ca: None,
            sasl_mechanism: String::new(),
            sasl_username: String::new(),
            sasl_password: Secret::default(),
            cells: Settings::default(),
            max_record_bytes: LARGEST,
            table_wait_ms: 5_000,
            metadata_refresh_ms: 5_000,
            compressed_transactions: false,
            extra: BTreeMap::new(),
        }
    }
}

impl KafkaConfig {
    fn check(&self) -> Result<()> {
        if self.bootstrap_servers.is_empty() {
            return Err(Error::config("setting `bootstrap_servers` is empty; it looks like `kafka:9092`"));
        }
        if self.topics.is_empty() && self.topic_prefix.is_empty() {
            return Err(Error::config("neither `topic_prefix` nor `topics` is set"));
        }
        if let Some(key) = self.extra.keys().find(|key| !ALLOWED.contains(&key.as_str())) {
            return Err(Error::config(format!("setting `extra`: `{key}` is not allowed; allowed are `{}`", ALLOWED.join("`, `"))));
        }
        self.check_security()
    }

    /// What would be ignored, or fail with words of another library, is refused here by name.
    fn check_security(&self) -> Result<()> {
        const PROTOCOLS: [&str; 4] = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];
        const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
        let protocol = self.protocol();
        if !PROTOCOLS.contains(&protocol.as_str()) {
            return Err(Error::config(format!("setting `security_protocol`: `{protocol}` is not known; `{}` are", PROTOCOLS.join("`, `"))));
        }
        if !self.sasl_mechanism.is_empty() && !MECHANISMS.contains(&self.sasl_mechanism.as_str()) {
            return Err(Error::config(format!("setting `sasl_mechanism`: `{}` is not known; `{}` are", self.sasl_mechanism, MECHANISMS.join("`, `"))));
        }
        if self.ssl_ca.is_some() && !protocol.ends_with("ssl") {
            return Err(Error::config(format!("setting `ssl_ca` is set, and `security_protocol` is `{protocol}`, which is not encrypted; `ssl` or `sasl_ssl` would be")));
        }
        let asks = protocol.starts_with("sasl");
        if asks == self.sasl_username.is_empty() {
            let (has, lacks) = if asks { (format!("`security_protocol` is `{protocol}`"), "`sasl_username`") } else { ("`sasl_username` is set".into(), "a `security_protocol` of `sasl_ssl` or `sasl_plaintext`") };
            return Err(Error::config(format!("{has}, and {lacks} is missing")));
        }
        Ok(())
    }

    /// The protocol in lower case.
    fn protocol(&self) -> String {
        let given = if self.security_protocol.is_empty() { self.extra.get("security.protocol").map(String::as_str).unwrap_or("plaintext") } else { &self.security_protocol };
        given.to_ascii_lowercase()
    }

    /// Whether what is read travels in clear.
    pub fn is_clear(&self) -> bool {
        !self.protocol().ends_with("ssl")
    }

    /// The group's name.
    pub fn group(&self) -> String {
        if self.group_id.is_empty() { format!("plumbline-{}", self.topic_prefix) } else { self.group_id.clone() }
    }

    /// Whether a topic is read.
    pub fn wants(&self, topic: &str) -> bool {
        if !self.topics.is_empty() {
            return self.topics.iter().any(|pattern| matches(pattern, topic));
        }
        let prefix = &self.topic_prefix;
        let inner = topic.strip_prefix(prefix.as_str()).and_then(|rest| rest.strip_prefix('.'));
        match inner {
            // What we write ourselves, and the connector's own memory.
            Some("plumbline-signals" | "plumbline-schema-history") => false,
            Some(_) => true,
            None => topic == prefix || topic.strip_prefix("__debezium-heartbeat.") == Some(prefix),
        }
    }

    /// A question that the brokers did not answer.
    fn away(&self, cause: KafkaError) -> Error {
        Error::disconnected(format!("Kafka at `{}` does not answer", self.bootstrap_servers)).caused_by(cause)
    }

    /// What every client of ours is told.
    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        for (key, value) in &self.extra {
            client.set(key, value);
        }
        client.set("bootstrap.servers", &self.bootstrap_servers).set("security.protocol", self.protocol());
        if let Some(ca) = &self.ssl_ca {
            client.set("ssl.ca.location", ca.display().to_string());
        }
        if !self.sasl_mechanism.is_empty() {
            client.set("sasl.mechanism", &self.sasl_mechanism);
        }
        if !self.sasl_username.is_empty() {
            client.set("sasl.username", &self.sasl_username).set("sasl.password", self.sasl_password.expose());
        }
        client
    }

    fn consumer(&self) -> ClientConfig {
        // Not by way of `config_map`, which has other words in the place of passwords.
        let mut client = self.client();
        // An answer has at least one whole record, however large: one above the library's own limit of 100 MB could never be passed by.
        let usual = [("queued.max.messages.kbytes", "16384"), ("fetch.queue.backoff.ms", "10"), ("fetch.wait.max.ms", "100"), ("receive.message.max.bytes", "1100000000")];
        for (key, value) in usual {
            if !self.extra.contains_key(key) {
                client.set(key, value);
            }
        }
        for (key, value) in [
            ("group.id", self.group().as_str()),
            // At each change of the group all partitions are given anew: see group.rs.
            ("partition.assignment.strategy", "roundrobin"),
            ("session.timeout.ms", "6000"),
            ("heartbeat.interval.ms", "1500"),
            // How far each partition may be read, and where it ends: see stable.rs.
            ("statistics.interval.ms", "2000"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("isolation.level", "read_committed"),
            ("check.crcs", "true"),
            ("allow.auto.create.topics", "false"),
        ] {
            client.set(key, value);
        }
        if !self.group_instance_id.is_empty() {
            client.set("group.instance.id", &self.group_instance_id);
        }
        client
    }
}

/// A source of changes from a connector's topics.
pub struct KafkaCdc {
    config: KafkaConfig,
    lookup: Lookup,
    aside: Arc<Aside>,
    look: Arc<Look>,
    stored: Option<StoredPlaces>,
    group: Option<Arc<dyn Group>>,
    /// The position after the last batch that was handed on.
    handed: Option<Position>,
    running: Option<Running>,
}

/// The thread that reads, and what it hands over.
struct Running {
    batches: mpsc::Receiver<Result<Batch>>,
    stop: Arc<AtomicBool>,
    consumer: Arc<BaseConsumer<Context>>,
    thread: std::thread::JoinHandle<()>,
    committed: Option<Instant>,
}

impl KafkaCdc {
    /// The name by which configuration asks for it.
    pub const NAME: &'static str = "kafka-cdc";

    /// A source of these settings; `lookup` says how watched tables look. Does no IO.
    pub fn new(config: KafkaConfig, lookup: Lookup) -> Result<Self> {
        config.check()?;
        Ok(Self { config, lookup, aside: Arc::default(), look: Arc::default(), stored: None, group: None, handed: None, running: None })
    }
    /// Is told what Connect stores for the connector: only then do positions say through which place of the binlog the topics were read.
    pub fn told_by(mut self, stored: StoredPlaces) -> Self {
        self.stored = Some(stored);
        self
    }
    /// Reads as one of several agents: only the partitions that the consumer group gives it, from where `group` says.
    pub fn in_group(mut self, group: Arc<dyn Group>) -> Self {
        self.group = Some(group);
        self
    }
    /// Records that could not be taken, for who shows them. Stays the same over reconnects.
    pub fn aside(&self) -> Arc<Aside> {
        Arc::clone(&self.aside)
    }
    /// What the reading shows of itself. Stays the same over reconnects.
    pub fn look(&self) -> Arc<Look> {
        Arc::clone(&self.look)
    }

    /// Waits until the group's store has what was handed on: what is claimed again begins after it.
    async fn stored(&self) -> Result<()> {
        let (Some(group), Some(partitions)) = (&self.group, self.handed.as_ref().and_then(|position| position.partitions.as_ref())) else { return Ok(()) };
        let started = Instant::now();
        while !partitions.iter().all(|(topic, partition, at)| group.stored(topic, partition).unwrap_or(0) >= at.next) {
            if started.elapsed() > STORED_WITHIN {
                return Err(Error::disconnected("what was read of Kafka is not stored yet; it is read on when it is"));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    async fn end(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.stop.store(true, Ordering::Relaxed);
        drop(running.batches);
        let thread = running.thread;
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }
}

#[async_trait]
impl Source for KafkaCdc {
    async fn connect(&mut self, from: Option<&Position>) -> Result<()> {
        self.end().await;
        self.stored().await?;
        let position = from.cloned().unwrap_or_default();
        if position.partitions.is_none() && position != Position::default() {
            return Err(Error::config(
                "the stored position is one of the binlog, not of Kafka's topics: begin anew with an empty data folder, or go on with the source `mysql-binlog`",
            ));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let ways = Ways { cells: self.config.cells, largest: self.config.max_record_bytes, compressed: self.config.compressed_transactions };
        let stored = self.stored.clone().map(|mut stored| {
            // What was stored before this connection tells as well.
            stored.mark_changed();
            stored
        });
        let group = self.group.clone().map(|group| (group, tokio::runtime::Handle::current()));
        let parts = read::Parts { config: self.config.clone(), lookup: Arc::clone(&self.lookup), ways, aside: Arc::clone(&self.aside), look: Arc::clone(&self.look), stored, group, stop: Arc::clone(&stop) };
        let reader = tokio::task::spawn_blocking(move || read::Reader::connect(parts, position))
            .await
            .map_err(|cause| Error::disconnected("the connection to Kafka was given up").caused_by(cause))??;
        let consumer = reader.consumer();
        let (sender, batches) = mpsc::channel(2);
        let thread = std::thread::Builder::new()
            .name("kafka-cdc".into())
            .spawn(move || reader.run(&sender))
            .map_err(|cause| Error::disconnected("no thread could be started to read Kafka").caused_by(cause))?;
        self.running = Some(Running { batches, stop, consumer, thread, committed: None });
        Ok(())
    }

    async fn next(&mut self, wait: Duration) -> Result<Option<Batch>> {
        let Some(running) = &mut self.running else { return Err(Error::disconnected("Kafka is not connected")) };
        match tokio::time::timeout(wait, running.batches.recv()).await {
            Err(_) => Ok(Some(Batch::default())),
            Ok(Some(batch)) => {
                let batch = batch?;
                if self.group.is_some() && batch.position.is_some() {
                    self.handed.clone_from(&batch.position);
                }
                Ok(Some(batch))
            }
            Ok(None) => Err(Error::disconnected("the thread that reads Kafka has ended")),
        }
    }

    async fn commit(&mut self, upto: &Position) -> Result<()> {
        if self.group.is_some() {
            return Ok(());
        }
        let (Some(running), Some(partitions)) = (&mut self.running, &upto.partitions) else { return Ok(()) };
        if running.committed.is_some_and(|last| last.elapsed() < Duration::from_secs(1)) {
            return Ok(());
        }
        running.committed = Some(Instant::now());
        let mut offsets = TopicPartitionList::new();
        for (topic, partition, at) in partitions.iter() {
            if let Ok(next) = i64::try_from(at.next) {
                let _ = offsets.add_partition_offset(topic, partition, Offset::Offset(next));
            }
        }
        if offsets.count() > 0
            && let Err(cause) = running.consumer.commit(&offsets, CommitMode::Async)
        {
            tracing::debug!(error = %cause, "the group's offsets were not committed; only lag tools miss them");
        }
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        self.end().await;
        Ok(())
    }
}

impl Drop for KafkaCdc {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.stop.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> KafkaConfig {
        KafkaConfig { bootstrap_servers: "kafka:9092".into(), topic_prefix: "shop".into(), ..KafkaConfig::default() }
    }

    #[test]
    fn topics_are_told_by_prefix_or_pattern() {
        let check = |config: &KafkaConfig, topic: &str, expected: bool| assert_eq!(config.wants(topic), expected, "{topic}");
        for (topic, expected) in [
            ("shop", true),
            ("shop.inv.orders", true),
            ("shop.transaction", true),
            ("__debezium-heartbeat.shop", true),
            ("shop.plumbline-notifications", true),
            ("shop.plumbline-signals", false),
            ("shop.plumbline-schema-history", false),
            ("shopping.inv.orders", false),
            ("__debezium-heartbeat.shopping", false),
            ("connect-offsets", false),
        ] {
            check(&config(), topic, expected);
        }
        let config = KafkaConfig { topics: vec!["a.*.orders".into(), "b".into()], ..config() };
        for (topic, expected) in [("a.x.orders", true), ("a.orders", false), ("b", true), ("shop.inv.orders", false)] {
            check(&config, topic, expected);
        }
    }

    #[test]
    fn settings_that_load_code_or_open_files_are_refused() {
        for key in ["plugin.library.paths", "ssl.ca.location", "debug", "sasl.oauthbearer.token.endpoint.url", "enable.auto.commit", "auto.offset.reset", "sasl.password"] {
            let config = KafkaConfig { extra: [(key.to_owned(), "x".to_owned())].into(), ..config() };
            let error = KafkaCdc::new(config, Arc::new(|_| None)).err().expect("an error");
            assert!(error.to_string().contains(key) && error.to_string().contains("allowed are"), "{error}");
        }
        assert!(KafkaCdc::new(KafkaConfig { bootstrap_servers: String::new(), ..config() }, Arc::new(|_| None)).is_err());
    }

    #[test]
    fn security_that_does_not_fit_together_is_refused_by_name() {
        let with = |protocol: &str, mechanism: &str, user: &str, ca: Option<&str>| KafkaConfig {
            security_protocol: protocol.into(),
            sasl_mechanism: mechanism.into(),
            sasl_username: user.into(),
            ssl_ca: ca.map(Into::into),
            ..config()
        };
        for (config, word) in [
            (with("tls", "", "", None), "`tls`"),
            (with("sasl_ssl", "GSSAPI", "u", None), "`GSSAPI`"),
            (with("", "", "", Some("/ca")), "ssl_ca"),
            (with("sasl_ssl", "PLAIN", "", None), "`sasl_username` is missing"),
            (with("ssl", "", "u", None), "`sasl_username` is set"),
        ] {
            let error = config.check().expect_err("refused");
            assert!(error.to_string().contains(word), "{error}");
        }
        let good = with("SASL_SSL", "SCRAM-SHA-256", "u", Some("/ca"));
        good.check().expect("fits");
        let client = good.client();
        for (key, value) in [("security.protocol", "sasl_ssl"), ("ssl.ca.location", "/ca"), ("sasl.mechanism", "SCRAM-SHA-256"), ("sasl.username", "u")] {
            assert_eq!(client.config_map().get(key), Some(&value), "{key}");
        }
        assert_eq!(good.consumer().get("sasl.password"), good.client().get("sasl.password"), "a consumer logs in as every other client");
        assert_eq!(KafkaConfig { sasl_password: Secret::new("hush"), ..good.clone() }.consumer().get("sasl.password"), Some("hush"));
        assert!(config().is_clear() && !good.is_clear());
    }

    #[test]
    fn what_must_hold_cannot_be_set_otherwise() {
        let config = KafkaConfig { extra: [("queued.max.messages.kbytes".to_owned(), "1024".to_owned())].into(), ..config() };
        let consumer = config.consumer();
        let settings = consumer.config_map();
        for (key, value) in [
            ("auto.offset.reset", "error"),
            ("enable.auto.commit", "false"),
            ("isolation.level", "read_committed"),
            ("check.crcs", "true"),
            ("queued.max.messages.kbytes", "1024"),
            ("group.id", "plumbline-shop"),
        ] {
            assert_eq!(settings.get(key), Some(&value), "{key}");
        }
    }

    #[tokio::test]
    async fn a_position_of_the_binlog_is_refused() {
        let mut source = KafkaCdc::new(config(), Arc::new(|_| None)).expect("a source");
        let position = Position { file: "binlog.000002".into(), ..Position::default() };
        let error = source.connect(Some(&position)).await.expect_err("refused");
        assert_eq!(error.kind(), plumbline_sdk::ErrorKind::Config);
    }
}
