//! One connector of Debezium, cared for: created, kept to its settings, its tables added, its failed task restarted.
//!
//! What to do is decided by pure functions over what is wished and what Connect says ([`decide`]); [`Connector`] carries it out.
//! A connector without our mark is never touched.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use plumbline_sdk::{Error, Health, HealthState, Result, Secret, TableId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::connect::{Config, Connect, Fault, Offset, Status};
use crate::kafka::StoredPlace;

mod decide;
#[cfg(test)]
mod tests;

pub use decide::{Action, Decision, Restarts, decide};

/// The setting that marks a connector as ours; its value is the pipeline's name. Connect keeps settings that it does not know.
pub const MARK: &str = "plumbline.pipeline";

/// The settings of plugin `debezium-connectors`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectorConfig {
    /// Kafka Connect: `http://connect:8083`.
    pub connect_url: String,
    /// The pipeline's name: of letters, digits, `-` and `_`. The connector is called `plumbline-NAME`.
    pub pipeline: String,
    /// The first part of the topics' names.
    pub topic_prefix: String,
    /// Kafka, as Connect reaches it: `kafka:9092`.
    pub kafka_bootstrap_servers: String,
    /// MySQL, as Connect reaches it.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The connector's user.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// The database.
    pub database: String,
    /// The number under which the connector reads the binlog, unlike that of any other reader; 0: made from its name.
    pub server_id: u32,
    /// What it does with existing rows when it is created: `initial` reads them, `no_data` does not. Not `when_needed`, which hides what was lost.
    pub snapshot_mode: String,
    /// Whether GTIDs are on: existing rows of added tables are then read without any write to MySQL.
    pub gtids: bool,
    /// Whether keys and values carry their Connect schema, which sinks such as Debezium's for JDBC need. Without, records are a quarter as large.
    pub schemas: bool,
    /// Settings of the connector beyond ours, for TLS and the like. They come first.
    pub extra: BTreeMap<String, String>,
}

impl Default for ConnectorConfig {
    fn default() -> Self {
        Self {
            connect_url: String::new(),
            pipeline: "main".into(),
            topic_prefix: "plumbline".into(),
            kafka_bootstrap_servers: String::new(),
            host: String::new(),
            port: 3306,
            user: String::new(),
            password: Secret::default(),
            database: String::new(),
            server_id: 0,
            snapshot_mode: "initial".into(),
            gtids: true,
            schemas: true,
            extra: BTreeMap::new(),
        }
    }
}

impl ConnectorConfig {
    /// The connector's name.
    pub fn name(&self) -> String {
        format!("plumbline-{}", self.pipeline)
    }
    /// The topic of signals to the connector: one partition.
    pub fn signal_topic(&self) -> String {
        format!("{}.plumbline-signals", self.topic_prefix)
    }
    /// The topic in which the connector tells of its snapshots.
    pub fn notification_topic(&self) -> String {
        format!("{}.plumbline-notifications", self.topic_prefix)
    }

    fn check(&self) -> Result<()> {
        let plain = |text: &str, more: &str| !text.is_empty() && text.chars().all(|letter| letter.is_ascii_alphanumeric() || more.contains(letter));
        if !plain(&self.pipeline, "-_") || self.pipeline.len() > 100 {
            return Err(Error::config(format!("setting `pipeline`: `{}` is no name; letters, digits, `-` and `_` are", self.pipeline)));
        }
        if !plain(&self.topic_prefix, "-_.") || self.topic_prefix.len() > 150 {
            return Err(Error::config(format!("setting `topic_prefix`: `{}` is no name; letters, digits, `-`, `_` and `.` are", self.topic_prefix)));
        }
        if !["initial", "no_data"].contains(&self.snapshot_mode.as_str()) {
            return Err(Error::config(format!("setting `snapshot_mode`: `{}` is not known here; `initial` and `no_data` are", self.snapshot_mode)));
        }
        for (name, value) in [("host", &self.host), ("user", &self.user), ("database", &self.database), ("kafka_bootstrap_servers", &self.kafka_bootstrap_servers)] {
            if value.is_empty() {
                return Err(Error::config(format!("setting `{name}` is empty")));
            }
        }
        if let Some(key) = self.extra.keys().find(|key| [MARK, "name", "connector.class", "topic.prefix", "table.include.list"].contains(&key.as_str())) {
            return Err(Error::config(format!("setting `extra`: `{key}` is set by Plumbline itself")));
        }
        Ok(())
    }

    /// The connector's settings for these tables: what loses nothing of a value, sends truncations, and fails rather than skips.
    pub fn settings(&self, tables: &BTreeSet<TableId>) -> Config {
        const JSON: &str = "org.apache.kafka.connect.json.JsonConverter";
        let server_id = if self.server_id == 0 { derived_server_id(&self.name()) } else { self.server_id };
        let (name, kafka) = (self.name(), self.kafka_bootstrap_servers.clone());
        let mut settings: Config = [
            ("connector.class", "io.debezium.connector.mysql.MySqlConnector".to_owned()),
            ("name", name.clone()),
            (MARK, self.pipeline.clone()),
            ("tasks.max", "1".into()),
            ("database.hostname", self.host.clone()),
            ("database.port", self.port.to_string()),
            ("database.user", self.user.clone()),
            ("database.password", self.password.expose().to_owned()),
            ("database.server.id", server_id.to_string()),
            ("database.include.list", escape(&self.database)),
            ("table.include.list", include_list(tables)),
            ("topic.prefix", self.topic_prefix.clone()),
            ("topic.creation.default.replication.factor", "-1".into()),
            // One partition keeps a table's changes in order, truncations and key changes included.
            ("topic.creation.default.partitions", "1".into()),
            ("schema.history.internal.kafka.bootstrap.servers", kafka.clone()),
            ("schema.history.internal.kafka.topic", format!("{}.plumbline-schema-history", self.topic_prefix)),
            ("snapshot.mode", self.snapshot_mode.clone()),
            ("key.converter", JSON.into()),
            ("key.converter.schemas.enable", self.schemas.to_string()),
            ("value.converter", JSON.into()),
            ("value.converter.schemas.enable", self.schemas.to_string()),
            // Exact both ways; without its schema a number as bytes would be nothing that people can read.
            ("decimal.handling.mode", if self.schemas { "precise" } else { "string" }.into()),
            ("bigint.unsigned.handling.mode", "precise".into()),
            ("binary.handling.mode", "bytes".into()),
            ("time.precision.mode", "adaptive_time_microseconds".into()),
            // Years below 100 stay what they are.
            ("enable.time.adjuster", "false".into()),
            // By default truncations are not sent, and values that cannot be converted become null.
            ("skipped.operations", "none".into()),
            ("event.converting.failure.handling.mode", "fail".into()),
            ("tombstones.on.delete", "true".into()),
            ("include.schema.changes", "true".into()),
            ("poll.interval.ms", "10".into()),
            ("heartbeat.interval.ms", "1000".into()),
            // The server is asked for a heartbeat at four fifths of this: on a silent source the connector's place moves on with it.
            ("connect.keep.alive.interval.ms", "5000".into()),
            ("notification.enabled.channels", "sink".into()),
            ("notification.sink.topic.name", self.notification_topic()),
        ]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect();
        if self.gtids {
            for (key, value) in [
                ("read.only", "true".to_owned()),
                ("signal.enabled.channels", "kafka".into()),
                ("signal.kafka.topic", self.signal_topic()),
                ("signal.kafka.bootstrap.servers", kafka),
                // The default group is the same for every connector in the world.
                ("signal.kafka.groupId", format!("{name}-signals")),
            ] {
                settings.insert(key.to_owned(), value);
            }
        }
        settings.extend(self.extra.clone());
        settings
    }
}

/// A number that few others use: above a hundred million, by the name.
fn derived_server_id(name: &str) -> u32 {
    100_000_000 + u32::try_from(xxhash_rust::xxh3::xxh3_64(name.as_bytes()) % 1_000_000_000).unwrap_or(0)
}

/// A name for a list of regular expressions, in which it means itself only.
pub fn escape(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for letter in name.chars() {
        // A comma separates the list's entries, escaped or not, so it is written as a number.
        if letter == ',' {
            out.push_str("\\x2C");
            continue;
        }
        if letter.is_ascii_punctuation() && letter != '_' {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

fn pattern(table: &TableId) -> String {
    format!("{}\\.{}", escape(&table.schema), escape(&table.table))
}

/// The tables as a list of regular expressions. Without tables: one that no table has, because an empty list would mean all of them.
fn include_list(tables: &BTreeSet<TableId>) -> String {
    if tables.is_empty() {
        return "^$".into();
    }
    tables.iter().map(pattern).collect::<Vec<_>>().join(",")
}

/// Where signals to the connector go.
#[async_trait]
pub trait Signals: Send + Sync {
    /// Writes one signal durably; the topic is made, with one partition, if it is not there.
    async fn send(&mut self, topic: &str, key: &str, value: &str) -> Result<()>;
}

/// What people may see of a connector. No secret.
#[derive(Debug, Clone, Serialize)]
pub struct Shown {
    /// Its name.
    pub name: String,
    /// `RUNNING`, `FAILED`, `PAUSED`, `STOPPED`, `STARTING`, `MISSING`, `TAKEN`, `PURGED`.
    pub state: String,
    /// Its tasks' states.
    pub tasks: Vec<String>,
    /// The first lines of what failed.
    pub trace: Vec<String>,
    /// The binlog file up to which it has stored its place.
    pub file: Option<String>,
    /// The byte in it.
    pub pos: Option<u64>,
    /// The transactions up to there.
    pub gtids: Option<String>,
    /// Its settings; secrets are `***`.
    pub config: Config,
}

/// Cares for one connector.
pub struct Connector {
    config: ConnectorConfig,
    connect: Connect,
    signals: Box<dyn Signals>,
    restarts: Restarts,
    /// Tables whose existing rows are still to be asked for.
    pending: BTreeSet<TableId>,
    /// When rows were last asked for.
    asked: Option<Instant>,
    stored: Option<StoredPlace>,
    shown: Option<Shown>,
}

/// A signal is taken up by then: the connector looks for signals every few seconds.
const TAKEN_UP: Duration = Duration::from_secs(20);

impl Connector {
    /// The connector of this configuration. Does no IO.
    pub fn new(config: ConnectorConfig, signals: Box<dyn Signals>) -> Result<Self> {
        config.check()?;
        let connect = Connect::new(&config.connect_url)?;
        Ok(Self { config, connect, signals, restarts: Restarts::default(), pending: BTreeSet::new(), asked: None, stored: None, shown: None })
    }

    /// Looks at the connector and does what it needs, so that it captures `tables`. To be called when the tables change, and every few seconds.
    /// `Disconnected`: Connect is away, or busy; call again. `Rejected`: the settings are wrong, by name. Without `acts` it only looks: of several
    /// agents one acts.
    pub async fn care(&mut self, tables: &BTreeSet<TableId>, now: Instant, acts: bool) -> Result<Health> {
        let name = self.config.name();
        let desired = self.config.settings(tables);
        let seen = self.connect.config(&name).await?;
        let status = if seen.is_some() { self.connect.status(&name).await? } else { None };
        let decision = decide(&name, &desired, tables, seen.as_ref(), status.as_ref(), &self.restarts, now);
        let mut decision = decision;
        if acts {
            self.pending.extend(decision.added.iter().cloned());
            self.pending.retain(|table| tables.contains(table));
        } else {
            if !decision.actions.is_empty() {
                // Whoever acts may ask for rows next.
                self.asked = Some(now);
            }
            decision.actions.clear();
            self.pending.clear();
        }
        for action in &decision.actions {
            match action {
                Action::Put(settings) => self.put(&name, settings).await?,
                Action::Restart => {
                    self.restarts.note(now);
                    self.connect.restart_failed(&name).await?;
                }
            }
        }
        if decision.healthy && acts {
            self.restarts.healthy(now);
            self.ask_for_rows(now).await?;
        }
        let offset = self.connect.offset(&name).await.unwrap_or_default();
        self.stored = self.place(offset.as_ref(), now);
        let config = seen.unwrap_or(desired);
        self.shown = Some(self.show(name, &decision, status.as_ref(), offset, &config));
        Ok(self.health(decision))
    }

    /// The place of the binlog before which every row and every change is in the topics. None: not known, as while existing rows are read.
    pub fn stored(&self) -> Option<&StoredPlace> {
        self.stored.as_ref()
    }

    fn place(&self, offset: Option<&Offset>, now: Instant) -> Option<StoredPlace> {
        let asked = !self.pending.is_empty() || self.asked.is_some_and(|asked| now.saturating_duration_since(asked) < TAKEN_UP);
        let offset = offset.filter(|offset| !asked && !offset.reads_rows())?;
        StoredPlace::new(offset.file.as_deref()?, offset.pos?)
    }

    /// Asks for the existing rows of these tables, at the next look at which the connector works.
    pub fn request_rows(&mut self, tables: impl IntoIterator<Item = TableId>) {
        self.pending.extend(tables);
    }
    /// What people may see of it, as of the last look.
    pub fn shown(&self) -> Option<&Shown> {
        self.shown.as_ref()
    }
    /// Stops reading until `resume`.
    pub async fn pause(&self) -> Result<()> {
        self.owned().await?;
        self.connect.pause(&self.config.name()).await
    }
    /// Goes on after `pause` or `stop`.
    pub async fn resume(&self) -> Result<()> {
        self.owned().await?;
        self.connect.resume(&self.config.name()).await
    }
    /// Ends its task; settings and place stay.
    pub async fn stop(&self) -> Result<()> {
        self.owned().await?;
        self.connect.stop(&self.config.name()).await
    }
    /// Removes it; its topics stay.
    pub async fn delete(&self) -> Result<()> {
        self.owned().await?;
        self.connect.delete(&self.config.name()).await
    }

    /// Refuses where the connector is not there, or not ours.
    async fn owned(&self) -> Result<()> {
        let name = self.config.name();
        match self.connect.config(&name).await? {
            Some(config) if config.get(MARK) == Some(&self.config.pipeline) => Ok(()),
            Some(_) => Err(Error::rejected(decide::taken(&name))),
            None => Err(Error::rejected(format!("there is no connector `{name}`"))),
        }
    }

    async fn put(&self, name: &str, settings: &Config) -> Result<()> {
        let faults = self.connect.validate(settings).await?;
        if !faults.is_empty() {
            return Err(Error::rejected(scrub(&faults_as_text(name, &faults), settings)));
        }
        self.connect.put(name, settings).await.map_err(|cause| Error::new(cause.kind(), scrub(&cause.chain(), settings)))
    }

    async fn ask_for_rows(&mut self, now: Instant) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        if !self.config.gtids {
            // Without GTIDs an incremental snapshot needs a table of signals in MySQL, which is not ours to make.
            return Ok(());
        }
        let value = snapshot_signal(&self.pending);
        self.signals.send(&self.config.signal_topic(), &self.config.topic_prefix, &value).await?;
        self.pending.clear();
        self.asked = Some(now);
        Ok(())
    }

    fn show(&self, name: String, decision: &Decision, status: Option<&Status>, offset: Option<Offset>, config: &Config) -> Shown {
        let offset = offset.unwrap_or_default();
        Shown {
            name,
            state: decision.state.to_owned(),
            tasks: status.map(|status| status.tasks.iter().map(|task| task.state.clone()).collect()).unwrap_or_default(),
            trace: decision.trace.iter().map(|line| scrub(line, config)).collect(),
            file: offset.file,
            pos: offset.pos,
            gtids: offset.gtids,
            config: redact(config),
        }
    }

    fn health(&self, decision: Decision) -> Health {
        let secrets = self.config.settings(&BTreeSet::new());
        let mut messages: Vec<String> = decision.messages.iter().chain(&decision.trace).map(|line| scrub(line, &secrets)).collect();
        let mut state = decision.health;
        if !self.pending.is_empty() && decision.healthy && !self.config.gtids {
            let names: Vec<String> = self.pending.iter().map(|table| format!("`{table}`")).collect();
            messages.push(format!(
                "the existing rows of {} are not read by the connector: without GTIDs it needs a signal table. Turn GTIDs on, or copy the rows with Plumbline",
                names.join(", ")
            ));
            state = HealthState::Warning;
        }
        Health { component: "debezium".into(), state, messages }
    }
}

/// The signal that asks for the existing rows of tables.
pub fn snapshot_signal(tables: &BTreeSet<TableId>) -> String {
    let names: Vec<String> = tables.iter().map(signalled).collect();
    serde_json::json!({ "type": "execute-snapshot", "data": { "data-collections": names, "type": "incremental" } }).to_string()
}

/// A table's name in a signal. It is a regular expression over the tables that the connector knows; one that matches none of them is taken
/// literally, which is what a table just added needs. So names go plain, unless they mean something as an expression.
fn signalled(table: &TableId) -> String {
    let plain = |name: &str| name.chars().all(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '$'));
    if plain(&table.schema) && plain(&table.table) { table.to_string() } else { pattern(table) }
}

fn faults_as_text(name: &str, faults: &[Fault]) -> String {
    let said: Vec<String> = faults.iter().map(|fault| format!("`{}`: {}", fault.setting, fault.errors.join("; "))).collect();
    format!("the connector `{name}` refuses its settings: {}", said.join(" / "))
}

/// Whether a setting's value is not to be shown.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["password", "secret", "token", "jaas", "credential", "passphrase", "ssl.key", "apikey", "api.key"].iter().any(|word| key.contains(word))
}

/// The settings with `***` for secrets.
pub fn redact(config: &Config) -> Config {
    config.iter().map(|(key, value)| (key.clone(), if is_secret(key) && !value.is_empty() { "***".to_owned() } else { value.clone() })).collect()
}

/// A text without the secrets of these settings.
pub fn scrub(text: &str, config: &Config) -> String {
    let mut secrets: Vec<&str> = config.iter().filter(|(key, value)| is_secret(key) && !value.is_empty()).map(|(_, value)| value.as_str()).collect();
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.into_iter().fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
}

/// The first lines of a long text that say something, each of limited length.
pub fn first_lines(text: &str, lines: usize) -> String {
    let told = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("at ") && !line.starts_with("... "));
    told.take(lines).map(|line| line.chars().take(500).collect::<String>()).collect::<Vec<_>>().join(" / ")
}

/// How long after a start a restart of the task waits, the more often the longer.
pub const BACKOFF: [Duration; 5] = [Duration::from_secs(2), Duration::from_secs(10), Duration::from_secs(30), Duration::from_secs(120), Duration::from_secs(300)];
