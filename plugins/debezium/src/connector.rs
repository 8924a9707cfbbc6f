//! One connector of Debezium, cared for: created, kept to its settings, its tables added, its failed task restarted.
//!
//! What to do is decided by pure functions over what is wished and what Connect says ([`decide`]); [`Connector`] carries it out.
//! A connector without our mark is never touched.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use plumbline_sdk::{Error, Health, HealthState, Result, Secret, TableId};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::connect::{Access, Config, Connect, Fault, Offset, SinkConnector};
use crate::kafka::{StoredPlace, topic_of};

mod decide;
mod rows;
mod shown;
#[cfg(test)]
mod tests;
mod weak;

pub use decide::{Action, Decision, Restarts, Wish, decide};
use rows::{Rows, Told, Why};
pub use shown::{Shown, ShownSink, ShownTask, first_lines, redact, scrub};
pub use weak::weaknesses;

/// The setting that marks a connector as ours; its value is the pipeline's name. Connect keeps settings that it does not know.
pub const MARK: &str = "plumbline.pipeline";

/// The settings of plugin `debezium-connectors`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectorConfig {
    /// Kafka Connect: `http://connect:8083`, or `https`.
    pub connect_url: String,
    /// The user, where Connect asks for one.
    pub connect_user: String,
    /// Its password.
    pub connect_password: Secret,
    /// A PEM file with the certificate authorities to trust; None: the well-known ones.
    pub connect_ca: Option<PathBuf>,
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
    /// Its password, or a reference that Connect's workers resolve: `${file:/secrets/mysql:password}`. It is passed on as it is.
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
    /// Whether settings of ours that somebody has changed are set right again; else they are only told of.
    pub mend_drift: bool,
    /// Settings of the connector beyond ours, for TLS and the like. They come first.
    pub extra: BTreeMap<String, String>,
}

impl Default for ConnectorConfig {
    fn default() -> Self {
        Self {
            connect_url: String::new(),
            connect_user: String::new(),
            connect_password: Secret::default(),
            connect_ca: None,
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
            mend_drift: true,
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

    /// How to reach Connect.
    pub fn access(&self) -> Access {
        Access { url: self.connect_url.clone(), user: self.connect_user.clone(), password: self.connect_password.clone(), ca: self.connect_ca.clone() }
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
            ("connector.class", CLASS.to_owned()),
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
                // By default it looks every five seconds and waits for nothing, so that the first signal takes many looks.
                ("signal.poll.interval.ms", "1000".into()),
                ("signal.kafka.poll.timeout.ms", "500".into()),
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

/// What is said to the connector and heard of it, by topics of one partition.
#[async_trait]
pub trait Signals: Send + Sync {
    /// Sees to it that these topics are there and forget nothing.
    async fn make(&mut self, topics: &[String]) -> Result<()>;
    /// Writes one signal durably.
    async fn send(&mut self, topic: &str, key: &str, value: &str) -> Result<()>;
    /// The offset after a topic's last record.
    async fn end(&mut self, topic: &str) -> Result<u64>;
    /// The records of a topic since the last call, at first since its beginning, with their offsets.
    async fn heard(&mut self, topic: &str) -> Result<Vec<(u64, Vec<u8>)>>;
}

/// How often the sinks of the cluster are looked for.
const SINKS: Duration = Duration::from_secs(10);
/// A connector that is told to stop has so long for it, until its place can be forgotten.
const STOPS: Duration = Duration::from_secs(15);
/// Debezium's connector for MySQL.
const CLASS: &str = "io.debezium.connector.mysql.MySqlConnector";

/// Cares for one connector.
pub struct Connector {
    config: ConnectorConfig,
    connect: Connect,
    signals: Box<dyn Signals>,
    restarts: Restarts,
    /// How often it was started again.
    restarted: u64,
    /// A person removed it: it is not made again by itself.
    removed: bool,
    sinks: Vec<SinkConnector>,
    sinks_seen: Option<Instant>,
    /// The existing rows of tables that were added.
    rows: Rows,
    stored: Option<StoredPlace>,
    shown: Option<Shown>,
}

impl Connector {
    /// The connector of this configuration. Does no IO but to read the file of certificates.
    pub fn new(config: ConnectorConfig, signals: Box<dyn Signals>) -> Result<Self> {
        config.check()?;
        let connect = Connect::with(&config.access())?;
        Ok(Self {
            config,
            connect,
            signals,
            restarts: Restarts::default(),
            restarted: 0,
            removed: false,
            sinks: Vec::new(),
            sinks_seen: None,
            rows: Rows::default(),
            stored: None,
            shown: None,
        })
    }

    /// Looks at the connector and does what it needs, so that it captures `tables`. To be called when the tables change, and every few seconds.
    /// `Disconnected`: Connect is away, or busy; call again. `Rejected`: the settings are wrong, by name. Without `acts` it only looks: of several
    /// agents one acts.
    pub async fn care(&mut self, tables: &BTreeSet<TableId>, now: Instant, acts: bool) -> Result<Health> {
        let name = self.config.name();
        let desired = self.config.settings(tables);
        let seen = self.connect.config(&name).await?;
        let status = if seen.is_some() { self.connect.status(&name).await? } else { None };
        // Whoever made it anew has ended what was asked for.
        self.removed &= seen.is_none();
        let wish = Wish { name: &name, desired: &desired, tables, mend: self.config.mend_drift };
        let mut decision = if self.removed { decide::removed(&name) } else { decide(&wish, seen.as_ref(), status.as_ref(), &self.restarts, now) };
        if !acts {
            decision.actions.clear();
        }
        if let Some(seen) = seen.as_ref().filter(|_| decision.state != "TAKEN") {
            self.rows.look(seen, tables, now);
        }
        for action in &decision.actions {
            match action {
                Action::Put(settings) => {
                    let mut settings = settings.clone();
                    self.mark_added(&mut settings, tables, &decision.added, now).await?;
                    self.put(&name, &settings).await?;
                }
                Action::Restart => {
                    self.restarts.note(now);
                    self.restarted += 1;
                    self.connect.restart_failed(&name).await?;
                }
            }
        }
        let offset = self.connect.offset(&name).await.unwrap_or_default();
        if decision.healthy {
            self.hear_of_rows(now).await?;
            if acts {
                self.restarts.healthy(now);
                self.ask_for_rows(offset.as_ref(), now).await?;
            }
        }
        self.stored = self.place(offset.as_ref());
        let config = seen.unwrap_or(desired);
        self.look_for_sinks(now).await;
        let shown = Shown {
            weak: if decision.state == "TAKEN" { Vec::new() } else { weaknesses(&config) },
            sinks: self.sinks_of(tables),
            restarts: self.restarted,
            ..Shown::of(name, &decision, status.as_ref(), offset.unwrap_or_default(), &config)
        };
        let health = self.health(decision, &shown);
        self.shown = Some(shown);
        Ok(health)
    }

    /// The place of the binlog before which every row and every change is in the topics. None: not known, as while existing rows are read.
    pub fn stored(&self) -> Option<&StoredPlace> {
        self.stored.as_ref()
    }

    fn place(&self, offset: Option<&Offset>) -> Option<StoredPlace> {
        let offset = offset.filter(|offset| self.rows.open().next().is_none() && !offset.reads_rows())?;
        StoredPlace::new(offset.file.as_deref()?, offset.pos?)
    }

    /// What people may see of it, as of the last look.
    pub fn shown(&self) -> Option<&Shown> {
        self.shown.as_ref()
    }
    /// Stops reading until `resume`. Nobody but a person resumes it.
    pub async fn pause(&self) -> Result<()> {
        self.owned().await?;
        self.connect.pause(&self.config.name()).await
    }
    /// Goes on after `pause` or `stop`. One that was removed is made anew at the next look.
    pub async fn resume(&mut self) -> Result<()> {
        if std::mem::take(&mut self.removed) {
            return Ok(());
        }
        self.owned().await?;
        self.connect.resume(&self.config.name()).await
    }
    /// Ends its task; settings and place stay.
    pub async fn stop(&self) -> Result<()> {
        self.owned().await?;
        self.connect.stop(&self.config.name()).await
    }
    /// Starts it and its task again, whether they failed or not; from then on the care may restart it as often as at first.
    pub async fn restart(&mut self) -> Result<()> {
        self.owned().await?;
        self.connect.restart(&self.config.name()).await?;
        self.restarts = Restarts::default();
        self.restarted += 1;
        Ok(())
    }
    /// Removes it; its topics stay. It is not made again until `resume`, or until the agent starts anew. With `forget` its place in the
    /// binlog goes too, so that one made anew reads all rows first.
    pub async fn remove(&mut self, forget: bool) -> Result<()> {
        self.owned().await?;
        let name = self.config.name();
        if forget {
            self.forget_place(&name).await?;
        }
        self.connect.delete(&name).await?;
        self.removed = true;
        self.restarts = Restarts::default();
        Ok(())
    }

    /// What stands against this connector, or weakens what is said by it. `Disconnected`: Connect does not answer.
    pub async fn preflight(&self) -> Result<Preflight> {
        let mut found = Preflight::default();
        let (name, prefix) = (self.config.name(), &self.config.topic_prefix);
        if !self.connect.has_class(CLASS).await? {
            found.problems.push(format!("the workers of Kafka Connect have no plugin with `{CLASS}`: install Debezium's connector for MySQL on each"));
        }
        for (other, config) in self.connect.sources().await? {
            let ours = other == name && config.get(MARK) == Some(&self.config.pipeline);
            if other == name && !ours {
                found.problems.push(decide::taken(&name));
            } else if ours || config.get("topic.prefix") == Some(prefix) {
                if !ours {
                    found.warnings.push(format!("the connector `{other}` writes to topics of the same prefix `{prefix}`: changes come twice. Choose another `KAFKA_TOPIC_PREFIX`"));
                }
                found.warnings.extend(weaknesses(&config).into_iter().map(|weak| format!("the connector `{other}`: {weak}")));
            }
        }
        Ok(found)
    }

    /// A place is forgotten only while its connector is stopped.
    async fn forget_place(&self, name: &str) -> Result<()> {
        self.connect.stop(name).await?;
        let deadline = tokio::time::Instant::now() + STOPS;
        while !self.connect.status(name).await?.is_some_and(|status| status.connector.state == "STOPPED" && status.tasks.is_empty()) {
            if tokio::time::Instant::now() >= deadline {
                return Err(Error::disconnected(format!("the connector `{name}` did not stop within {} s; nothing was removed", STOPS.as_secs())));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        self.connect.forget_offsets(name).await
    }

    /// What was last seen stays until it is seen otherwise.
    async fn look_for_sinks(&mut self, now: Instant) {
        if self.sinks_seen.is_some_and(|seen| now.saturating_duration_since(seen) < SINKS) {
            return;
        }
        self.sinks_seen = Some(now);
        match self.connect.sinks().await {
            Ok(sinks) => self.sinks = sinks,
            Err(error) => tracing::debug!(error = error.chain(), "the sinks of Kafka Connect could not be looked for"),
        }
    }

    /// Those that read topics of these tables.
    fn sinks_of(&self, tables: &BTreeSet<TableId>) -> Vec<ShownSink> {
        let topics: Vec<String> = tables.iter().map(|table| topic_of(&self.config.topic_prefix, table)).collect();
        let shown = |sink: &SinkConnector| {
            let tables = topics.iter().filter(|topic| sink.topics.has(topic)).count();
            (tables > 0).then(|| ShownSink { name: sink.name.clone(), class: sink.class.clone(), group: sink.group.clone(), state: sink.state.clone(), tables })
        };
        self.sinks.iter().filter_map(shown).collect()
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

    /// Makes the topics before a connector looks for them, which else hears nothing of the first signal, and keeps in its settings what is added.
    async fn mark_added(&mut self, settings: &mut Config, tables: &BTreeSet<TableId>, added: &[TableId], now: Instant) -> Result<()> {
        let notifications = self.config.notification_topic();
        let mut end = 0;
        if self.config.gtids {
            self.signals.make(&[self.config.signal_topic(), notifications.clone()]).await?;
            if !added.is_empty() {
                end = self.signals.end(&notifications).await?;
            }
        }
        let mark = self.rows.add(settings, tables, added, end, now);
        settings.insert(rows::ADDED.to_owned(), mark);
        Ok(())
    }

    async fn hear_of_rows(&mut self, now: Instant) -> Result<()> {
        if !self.config.gtids || self.rows.open().next().is_none() {
            return Ok(());
        }
        let topic = self.config.notification_topic();
        let heard = self.signals.heard(&topic).await?;
        let end = match heard.last() {
            Some((offset, _)) => offset + 1,
            None => self.signals.end(&topic).await?,
        };
        self.rows.hear(heard.iter().filter_map(|(offset, text)| Told::read(*offset, text)), end, now);
        Ok(())
    }

    async fn ask_for_rows(&mut self, offset: Option<&Offset>, now: Instant) -> Result<()> {
        let due = self.rows.due(offset.is_some_and(Offset::reads_rows), now);
        // Without GTIDs an incremental snapshot needs a table of signals in MySQL, which is not ours to make.
        if due.is_empty() || !self.config.gtids {
            return Ok(());
        }
        self.signals.send(&self.config.signal_topic(), &self.config.topic_prefix, &snapshot_signal(&due)).await?;
        self.rows.asked(&due, now);
        Ok(())
    }

    /// Of which tables the existing rows do not come, and what to do.
    fn unread(&self) -> Vec<String> {
        if !self.config.gtids {
            let names: Vec<String> = self.rows.open().map(|table| format!("`{table}`")).collect();
            let lacks = "are not read by the connector: without GTIDs it needs a signal table. Turn GTIDs on, or copy the rows with Plumbline";
            return if names.is_empty() { Vec::new() } else { vec![format!("the existing rows of {} {lacks}", names.join(", "))] };
        }
        let why = |(table, why): (&TableId, Why)| {
            let why = match why {
                Why::NoKey => "the table has no primary key, in whose order they would be read. Give it one, or copy the rows with Plumbline",
                Why::Aborted => "somebody ended the reading. Take the table out and in again, or copy the rows with Plumbline",
                Why::Failed => "it failed; its log says why. Take the table out and in again, or copy the rows with Plumbline",
            };
            format!("the existing rows of `{table}` are not read by the connector: {why}")
        };
        self.rows.not_read().map(why).collect()
    }

    fn health(&self, decision: Decision, shown: &Shown) -> Health {
        let secrets = self.config.settings(&BTreeSet::new());
        let mut messages: Vec<String> = decision.messages.iter().chain(&decision.trace).map(|line| scrub(line, &secrets)).collect();
        let mut state = decision.health;
        let unread = self.unread();
        if !unread.is_empty() && decision.healthy {
            messages.extend(unread);
            state = HealthState::Warning;
        }
        if !shown.weak.is_empty() {
            messages.extend(shown.weak.iter().cloned());
            state = if state == HealthState::Up { HealthState::Warning } else { state };
        }
        Health { component: "debezium".into(), state, messages }
    }
}

/// What preflight found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preflight {
    /// What stands against it.
    pub problems: Vec<String>,
    /// What should be known.
    pub warnings: Vec<String>,
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

/// How long after a start a restart of the task waits, the more often the longer.
pub const BACKOFF: [Duration; 5] = [Duration::from_secs(2), Duration::from_secs(10), Duration::from_secs(30), Duration::from_secs(120), Duration::from_secs(300)];
