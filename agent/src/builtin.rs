//! The one list of compiled-in plugins, and how settings become their configurations. Nothing else names a built-in plugin's type.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use mysql::{BinlogConfig, Discovery, DiscoveryConfig, MysqlBinlog, MysqlReader, Watch};
use plumbline_debezium::{Access, Aside, Connector, ConnectorConfig, KafkaCdc, KafkaConfig, KafkaSignals, Shown, SinkOffsets, StoredPlace};
use plumbline_history::{RedisHistory, RedisHistoryConfig, SqliteHistory, SqliteHistoryConfig};
use plumbline_mysql as mysql;
use plumbline_sdk::plugin::Group;
use plumbline_postgres::{
    ApplierConfig, ComparerConfig, PostgresApplier, PostgresComparer, PostgresConfig, PostgresReader, PreflightOptions, ReaderConfig,
};
use plumbline_sdk::{Applier, Error, Health, History, Plugin, Position, Reader, Result, Secret, Source, TableId, TableSchema, Validator};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::checks::Readers;
use crate::config::Config;
use crate::connectors::{ConnectorAction, ConnectorCare, ConnectorView, SinkView, TaskView};
use crate::metrics::{KafkaLook, KafkaLooks};
use crate::shared::{AsideView, KeptAside};
use crate::source_log::LogLook;
use crate::validation::fence::OtherSink;

/// A compiled-in plugin: name, kind, one sentence.
pub struct BuiltIn {
    /// By which configuration asks for it.
    pub name: &'static str,
    /// `source`, `sink`, `validator`.
    pub kind: &'static str,
    /// What it does.
    pub about: &'static str,
}

/// Every compiled-in plugin.
pub const PLUGINS: [BuiltIn; 8] = [
    BuiltIn { name: Discovery::NAME, kind: "source", about: "finds the source's tables and tells when their shape changes" },
    BuiltIn { name: MysqlBinlog::NAME, kind: "source", about: "follows every change from MySQL's binlog" },
    BuiltIn { name: KafkaCdc::NAME, kind: "source", about: "follows every change from the topics of a Debezium connector" },
    BuiltIn { name: "debezium-connectors", kind: "source", about: "creates and cares for the Debezium connector over Kafka Connect" },
    BuiltIn { name: PostgresApplier::NAME, kind: "sink", about: "copies tables and applies every change to PostgreSQL" },
    BuiltIn { name: PostgresComparer::NAME, kind: "validator", about: "compares both sides' rows by canonical form" },
    BuiltIn { name: SqliteHistory::NAME, kind: "sink", about: "keeps position, counters, events and findings in SQLite" },
    BuiltIn { name: RedisHistory::NAME, kind: "sink", about: "keeps position, counters, events and findings in Redis" },
];

/// The schema of the target in which the applier keeps its progress.
pub const STATE_SCHEMA: &str = "plumbline";

fn typed<T: DeserializeOwned>(value: Value, section: &str) -> Result<T> {
    serde_json::from_value(value).map_err(|cause| Error::config(format!("a setting of `[{section}]` is not accepted")).caused_by(cause))
}

fn path(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn mysql_config(config: &Config) -> Result<mysql::MysqlConfig> {
    let settings = &config.mysql;
    typed(
        json!({
            "host": settings.host, "port": settings.port, "user": settings.user, "password": settings.password.expose(), "database": settings.database,
            "ssl_mode": settings.ssl_mode, "ssl_ca": path(&settings.ssl_ca),
        }),
        "mysql",
    )
}

fn postgres_config(config: &Config) -> Result<PostgresConfig> {
    let settings = &config.postgres;
    typed(
        json!({
            "host": settings.host, "port": settings.port, "user": settings.user, "password": settings.password.expose(), "database": settings.database,
            "schema": settings.schema, "sslmode": settings.sslmode, "sslrootcert": path(&settings.sslrootcert),
        }),
        "postgres",
    )
}

/// Readers of both sides, each with a connection of its own.
pub fn readers(config: &Config) -> Result<Readers> {
    let (mysql, connection, pipeline) = (mysql_config(config)?, postgres_config(config)?, config.pipeline.clone());
    Ok(Arc::new(move || {
        let source: Box<dyn Reader> = Box::new(MysqlReader::new(mysql.clone()));
        let reader = ReaderConfig { connection: connection.clone(), state_schema: STATE_SCHEMA.into(), pipeline: pipeline.clone() };
        let target: Box<dyn Reader> = Box::new(PostgresReader::new(reader)?);
        Ok((source, target))
    }))
}

/// The validator that compares canonical forms.
pub fn validator() -> Result<Box<dyn Validator>> {
    Ok(Box::new(PostgresComparer::new(ComparerConfig::default())?))
}

/// The history that the settings ask for: Redis where it is named, else SQLite in the data folder.
pub fn history(config: &Config) -> Result<Box<dyn History>> {
    let redis = &config.redis;
    if config.has_redis() {
        let settings = RedisHistoryConfig {
            url: Some(redis.url.clone()).filter(|url| !url.is_empty()),
            host: redis.host.clone(),
            port: redis.port,
            username: redis.username.clone(),
            password: redis.password.clone(),
            tls_ca: path(&redis.tls_ca).map(Into::into),
            data_dir: config.data_dir.clone(),
            pipeline: config.pipeline.clone(),
            keep_events: u64::from(config.history.keep_events),
            // Partitions can be divided; one binlog cannot, and neither can the writing of one target.
            shared: config.has_kafka() && !config.apply,
            ..RedisHistoryConfig::default()
        };
        return Ok(Box::new(RedisHistory::new(settings)?));
    }
    let settings = SqliteHistoryConfig {
        data_dir: config.data_dir.clone(),
        pipeline: config.pipeline.clone(),
        keep_events: u64::from(config.history.keep_events),
        ..SqliteHistoryConfig::default()
    };
    Ok(Box::new(SqliteHistory::new(settings)?))
}

/// The applier, where the settings ask for one.
pub fn applier(config: &Config) -> Result<Option<Box<dyn Applier>>> {
    if !config.apply {
        return Ok(None);
    }
    let settings: ApplierConfig = ApplierConfig {
        connection: postgres_config(config)?,
        state_schema: STATE_SCHEMA.into(),
        pipeline: config.pipeline.clone(),
        copies_first: !config.has_kafka(),
        zero_dates: Default::default(),
        nul_characters: Default::default(),
    };
    Ok(Some(Box::new(PostgresApplier::new(settings)?)))
}

/// Finds the source's tables on request, and tells discovery and the stream what to watch besides.
#[derive(Clone)]
pub struct Finder {
    mysql: mysql::MysqlConfig,
    watch: Arc<Watch>,
}

impl Finder {
    /// The source's tables, each with the rule that excludes it, if any.
    pub async fn tables(&self) -> Result<Vec<(TableSchema, Option<String>)>> {
        let mut conn = mysql::connect::connect(&self.mysql).await?;
        let found = mysql::tables(&mut conn, &self.mysql, &self.watch).await?;
        // The answer is there; how the connection ends is of no interest.
        let _ = conn.disconnect().await;
        Ok(found.into_iter().map(|table| (table.schema, table.excluded_by)).collect())
    }
    /// Watches a table although a rule excludes it.
    pub fn include(&self, table: &TableId) {
        self.watch.include(table);
    }
    /// Makes discovery look at once.
    pub fn look_now(&self) {
        self.watch.look.notify_one();
    }
}

/// Looks at the source's log.
pub struct LogProbe(mysql::LogWatch);

impl LogProbe {
    /// Connects where there is no connection.
    pub async fn connect(&mut self) -> Result<()> {
        self.0.connect().await
    }
    /// Drops the connection.
    pub fn forget(&mut self) {
        self.0.forget();
    }
    /// What the source says now.
    pub async fn look(&mut self) -> Result<LogLook> {
        let mysql::LogSurvey { server, files, executed, retention_seconds } = self.0.look().await?;
        Ok(LogLook { server, files, executed, retention_seconds })
    }
}

/// What looks at the source's log.
pub fn log_probe(config: &Config) -> Result<LogProbe> {
    Ok(LogProbe(mysql::LogWatch::new(mysql_config(config)?)))
}

/// What follows the source: a finder, discovery, and the stream, which watch the same tables.
pub struct SourceParts {
    /// Finds tables on request.
    pub finder: Finder,
    /// Tells of tables.
    pub discovery: Box<dyn Source>,
    /// Tells of changes.
    pub stream: Box<dyn Source>,
    /// What `stream` is called where its health is told: `mysql`, `kafka`.
    pub component: &'static str,
    /// What the reading of Kafka shows of itself, where changes come by Kafka.
    pub kafka: Option<KafkaLooks>,
    /// What the stream keeps aside, where it does.
    pub aside: Option<AsideView>,
    /// Cares for the connector that feeds the stream, where there is one.
    pub connector: Option<Box<dyn ConnectorCare>>,
}

/// How a watched table looks, as discovery last saw it; None: it is not watched, or not known yet.
pub type Schemas = Arc<dyn Fn(&TableId) -> Option<Arc<TableSchema>> + Send + Sync>;

/// Finds the source's tables.
pub fn finder(config: &Config) -> Result<Finder> {
    Ok(Finder { mysql: mysql_config(config)?, watch: Watch::new(config.source.include.clone(), config.source.exclude.clone()) })
}

/// The sources that the settings ask for.
pub fn source(config: &Config, schemas: Schemas, group: Option<Arc<dyn Group>>) -> Result<SourceParts> {
    let finder = finder(config)?;
    let (mysql, watch) = (finder.mysql.clone(), Arc::clone(&finder.watch));
    let discovery = DiscoveryConfig {
        mysql: mysql.clone(),
        interval: config.discovery_interval.0,
        include: config.source.include.clone(),
        exclude: config.source.exclude.clone(),
    };
    let discovery = Box::new(Discovery::with_watch(discovery, Arc::clone(&watch)));
    if config.has_kafka() {
        let kafka = kafka_config(config)?;
        let (stored_in, stored) = watch::channel(None);
        let connector = connector(config, &kafka, stored_in)?;
        let stream = KafkaCdc::new(kafka, schemas)?.told_by(stored);
        let (look, aside) = (stream.look(), stream.aside());
        let look: KafkaLooks = Box::new(move || KafkaLook { ends: look.ends(), aside: aside.by_class().into_iter().collect(), rebalances: look.rebalances() });
        let stream = match group {
            Some(group) => stream.in_group(group),
            None => stream,
        };
        let aside = Some(kept_aside(stream.aside()));
        return Ok(SourceParts { finder, discovery, stream: Box::new(stream), component: "kafka", kafka: Some(look), aside, connector });
    }
    let stream = BinlogConfig { mysql, server_id: server_id(config), heartbeat: config.source.heartbeat.0 };
    Ok(SourceParts { finder, discovery, stream: Box::new(MysqlBinlog::with_watch(stream, watch)), component: "mysql", kafka: None, aside: None, connector: None })
}

/// What Kafka's source keeps aside, for the API.
fn kept_aside(aside: Arc<Aside>) -> AsideView {
    Box::new(move || {
        let newest = aside.newest().into_iter().map(|kept| KeptAside { topic: kept.topic, partition: kept.partition, offset: kept.offset, reason: kept.reason });
        (aside.total(), newest.collect())
    })
}

/// Whether positions say through which place of the binlog the stream was read. Of topics only the connector's keeper knows it.
pub fn knows_place(config: &Config) -> bool {
    !config.has_kafka() || !config.connect.url.is_empty()
}

/// The offsets of whoever writes the target from the topics that we read. None where changes do not come by Kafka, or where nobody could tell
/// through which place of the binlog the topics were read: then time settles differences.
pub fn other_sink(config: &Config) -> Result<Option<Arc<dyn OtherSink>>> {
    if config.apply || !config.has_kafka() || config.connect.url.is_empty() {
        return Ok(None);
    }
    Ok(Some(Arc::new(KafkaSink(SinkOffsets::new(kafka_config(config)?, &access(config), &config.kafka.sink_group)?))))
}

struct KafkaSink(SinkOffsets);

#[async_trait]
impl OtherSink for KafkaSink {
    async fn applied(&self, table: &TableId) -> Result<Option<(String, Position)>> {
        self.0.applied(table).await
    }
    async fn end(&self, table: &TableId) -> Result<Position> {
        self.0.end(table).await
    }
}

/// The topic that brings a table's changes, where they come by Kafka.
pub fn topic(config: &Config, table: &TableId) -> String {
    plumbline_debezium::topic_of(topic_prefix(config), table)
}

/// What the topics' names begin with.
fn topic_prefix(config: &Config) -> &str {
    if config.kafka.topic_prefix.is_empty() { &config.pipeline } else { &config.kafka.topic_prefix }
}

/// Settings written as `name=value`. `variable` is where they stand.
fn properties<'a>(given: impl Iterator<Item = &'a str>, variable: &str) -> Result<BTreeMap<String, String>> {
    let mut found = BTreeMap::new();
    for property in given {
        // The value may be a secret.
        let name = property.split('=').next().unwrap_or_default();
        let (name, value) = property.split_once('=').ok_or_else(|| Error::config(format!("`{variable}` has `{name}` without a value; `name=value` would have been accepted")))?;
        found.insert(name.trim().to_owned(), value.trim().to_owned());
    }
    Ok(found)
}

/// How to reach Kafka Connect.
fn access(config: &Config) -> Access {
    let settings = &config.connect;
    Access { url: settings.url.clone(), user: settings.user.clone(), password: settings.password.clone(), ca: path(&settings.ca).map(Into::into) }
}

fn kafka_config(config: &Config) -> Result<KafkaConfig> {
    let settings = &config.kafka;
    let extra = properties(settings.properties.iter().map(String::as_str), "KAFKA_PROPERTIES")?;
    Ok(KafkaConfig {
        bootstrap_servers: settings.bootstrap_servers.join(","),
        topic_prefix: topic_prefix(config).to_owned(),
        group_id: if settings.group.is_empty() { format!("plumbline-{}", config.pipeline) } else { settings.group.clone() },
        group_instance_id: settings.group_instance_id.clone(),
        security_protocol: settings.security_protocol.clone(),
        ssl_ca: path(&settings.ssl_ca).map(Into::into),
        sasl_mechanism: settings.sasl_mechanism.clone(),
        sasl_username: settings.sasl_username.clone(),
        sasl_password: settings.sasl_password.clone(),
        extra,
        ..KafkaConfig::default()
    })
}

/// The account for Debezium: one of its own, or the agent's. A password may be given without a user: a reference for the same account.
fn debezium_account(config: &Config) -> (String, Secret) {
    let (settings, mysql) = (&config.connect, &config.mysql);
    let user = if settings.mysql_user.is_empty() { &mysql.user } else { &settings.mysql_user };
    let own = !settings.mysql_user.is_empty() || !settings.mysql_password.is_empty();
    (user.clone(), if own { settings.mysql_password.clone() } else { mysql.password.clone() })
}

/// The Debezium connector, where Kafka Connect is named.
fn debezium(config: &Config, kafka: &KafkaConfig) -> Result<Option<Connector>> {
    let (settings, mysql) = (&config.connect, &config.mysql);
    if settings.url.is_empty() {
        return Ok(None);
    }
    let or = |given: &str, otherwise: &str| if given.is_empty() { otherwise.to_owned() } else { given.to_owned() };
    let (user, password) = debezium_account(config);
    let Access { url, user: connect_user, password: connect_password, ca } = access(config);
    let connector = ConnectorConfig {
        connect_url: url,
        connect_user,
        connect_password,
        connect_ca: ca,
        pipeline: config.pipeline.clone(),
        topic_prefix: kafka.topic_prefix.clone(),
        kafka_bootstrap_servers: or(&settings.bootstrap_servers, &kafka.bootstrap_servers),
        host: or(&settings.mysql_host, &mysql.host),
        port: if settings.mysql_port == 0 { mysql.port } else { settings.mysql_port },
        user,
        password,
        database: mysql.database.clone(),
        schemas: settings.schemas,
        mend_drift: settings.mend_drift,
        extra: properties(settings.properties.iter().map(Secret::expose), "CONNECT_PROPERTIES")?,
        ..ConnectorConfig::default()
    };
    Connector::new(connector, Box::new(KafkaSignals::new(kafka.clone()))).map(Some)
}

/// The care for it.
fn connector(config: &Config, kafka: &KafkaConfig, stored: watch::Sender<Option<StoredPlace>>) -> Result<Option<Box<dyn ConnectorCare>>> {
    Ok(debezium(config, kafka)?.map(|connector| -> Box<dyn ConnectorCare> { Box::new(DebeziumCare { connector, stored }) }))
}

struct DebeziumCare {
    connector: Connector,
    /// Tells the stream what Connect has stored.
    stored: watch::Sender<Option<StoredPlace>>,
}

#[async_trait]
impl ConnectorCare for DebeziumCare {
    async fn care(&mut self, tables: &BTreeSet<TableId>, leads: bool) -> Result<Health> {
        let health = self.connector.care(tables, Instant::now(), leads).await;
        let stored = self.connector.stored().filter(|_| health.is_ok()).cloned();
        self.stored.send_if_modified(|known| {
            let moved = *known != stored;
            *known = stored;
            moved
        });
        health
    }
    async fn act(&mut self, action: ConnectorAction) -> Result<()> {
        match action {
            ConnectorAction::Pause => self.connector.pause().await,
            ConnectorAction::Resume => self.connector.resume().await,
            ConnectorAction::Stop => self.connector.stop().await,
            ConnectorAction::Restart => self.connector.restart().await,
            ConnectorAction::Remove { forget } => self.connector.remove(forget).await,
        }
    }
    fn shown(&self) -> Option<ConnectorView> {
        self.connector.shown().map(view)
    }
}

fn view(shown: &Shown) -> ConnectorView {
    let Shown { name, state, worker, tasks, trace, file, pos, gtids, drift, weak, restarts, sinks, config } = shown.clone();
    let tasks = tasks.into_iter().map(|task| TaskView { id: task.id, state: task.state, worker: task.worker, trace: task.trace }).collect();
    let sinks = sinks.into_iter().map(|sink| SinkView { name: sink.name, class: sink.class, group: sink.group, state: sink.state, tables: sink.tables }).collect();
    ConnectorView { name, state, worker, tasks, trace, file, pos, gtids, lost: None, drift, weak, restarts, sinks, config }
}

/// The server id that is set, or one of its own for this pipeline and data folder, far above what people choose by hand.
fn server_id(config: &Config) -> u32 {
    if config.source.server_id != 0 {
        return config.source.server_id;
    }
    let folder = std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
    let hash = xxhash_rust::xxh3::xxh3_64(format!("{}\u{0}{}", config.pipeline, folder.display()).as_bytes());
    0x8000_0000 | (hash as u32 & 0x7FFF_FFFF)
}

/// One thing that preflight looked at.
#[derive(Debug, Clone, serde::Serialize)]
pub struct PreflightCheck {
    /// `mysql`, `postgres`, `kafka`, `connect`.
    pub component: &'static str,
    /// `ok`, `warning`, `failed`.
    pub state: &'static str,
    /// What to know, and what mends it.
    pub message: String,
}

/// Looks at both servers' settings and at what we may do there. A server that cannot be reached is a failed check.
pub async fn preflight(config: &Config) -> Result<Vec<PreflightCheck>> {
    let mut checks = Vec::new();
    let mysql = mysql_config(config)?;
    let looked = async {
        let mut conn = mysql::connect::connect(&mysql).await?;
        mysql::preflight::check(&mut conn, &mysql).await
    };
    let component = "mysql";
    match looked.await {
        Ok(found) => checks.extend(found.into_iter().map(|check| PreflightCheck {
            component,
            state: match check.state {
                mysql::preflight::CheckState::Ok => "ok",
                mysql::preflight::CheckState::Warning => "warning",
                mysql::preflight::CheckState::Failed => "failed",
            },
            message: check.message,
        })),
        Err(error) => checks.push(PreflightCheck { component, state: "failed", message: error.chain() }),
    }
    let component = "postgres";
    let options = PreflightOptions { applies: config.apply, state_schema: STATE_SCHEMA.into() };
    match plumbline_postgres::preflight(&postgres_config(config)?, &options).await {
        Ok(found) => {
            if found.problems.is_empty() {
                checks.push(PreflightCheck { component, state: "ok", message: format!("PostgreSQL {} can be used", found.version) });
            }
            checks.extend(found.problems.into_iter().map(|message| PreflightCheck { component, state: "failed", message }));
            checks.extend(found.warnings.into_iter().map(|message| PreflightCheck { component, state: "warning", message }));
        }
        Err(error) => checks.push(PreflightCheck { component, state: "failed", message: error.chain() }),
    }
    if config.has_kafka() {
        preflight_kafka(config, &mysql, &mut checks).await?;
    }
    Ok(checks)
}

/// Kafka's and Connect's part: what travels in clear, what Debezium's account may do, what a connector's settings weaken.
async fn preflight_kafka(config: &Config, mysql: &mysql::MysqlConfig, checks: &mut Vec<PreflightCheck>) -> Result<()> {
    let kafka = kafka_config(config)?;
    let mut say = |component, state, message: String| checks.push(PreflightCheck { component, state, message });
    if kafka.is_clear() && !config.kafka.bootstrap_servers.iter().all(|server| is_here(server)) {
        say("kafka", "warning", "the connection to Kafka is not encrypted: set `KAFKA_SECURITY_PROTOCOL` to `ssl` or `sasl_ssl`".into());
    }
    let Some(connector) = debezium(config, &kafka)? else { return Ok(()) };
    if config.connect.url.strip_prefix("http://").is_some_and(|rest| !is_here(rest.split('/').next().unwrap_or_default())) {
        say("connect", "warning", "the connection to Kafka Connect is not encrypted, and the connector's password goes over it: give an `https` address as `CONNECT_URL`".into());
    }
    let (user, password) = debezium_account(config);
    if password.expose().starts_with("${") {
        say("connect", "ok", format!("the grants of `{user}` are not looked at: only the workers of Kafka Connect know its password"));
    } else {
        match mysql::preflight::debezium(&mysql::MysqlConfig { user, password, ..mysql.clone() }).await {
            Ok(None) => say("connect", "ok", "Debezium's account has its grants".into()),
            Ok(Some(missing)) => say("connect", "failed", missing),
            Err(error) => say("connect", "failed", error.chain()),
        }
    }
    match connector.preflight().await {
        Ok(found) => {
            if found.problems.is_empty() && found.warnings.is_empty() {
                say("connect", "ok", "Kafka Connect can be used".into());
            }
            found.problems.into_iter().for_each(|message| say("connect", "failed", message));
            found.warnings.into_iter().for_each(|message| say("connect", "warning", message));
        }
        Err(error) => say("connect", "failed", error.chain()),
    }
    Ok(())
}

/// Whether `host:port` is this machine.
fn is_here(server: &str) -> bool {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
