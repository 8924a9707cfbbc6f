//! Kafka Connect's REST interface: fixed paths, no redirects, answers of limited size, a deadline for each call.
//!
//! Connect has no login by default, and who may create a connector may run code on its host: nothing here passes on a path or a name that a
//! user of the agent gave. No password is in any error: see [`scrub`](crate::connector::scrub).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use plumbline_sdk::{Error, Result, Secret};
use regex::Regex;
use reqwest::{Client, Method, StatusCode, Url};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::connector::first_lines;

mod tls;

/// A connector's settings.
pub type Config = BTreeMap<String, String>;

/// Answers above this are refused.
const LARGEST: usize = 8 * 1024 * 1024;

/// How to reach a Connect cluster.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// `http://host:8083`, or `https`.
    pub url: String,
    /// The user, where it asks for one; empty: it does not.
    pub user: String,
    /// Its password.
    pub password: Secret,
    /// A PEM file with the certificate authorities to trust; None: the well-known ones.
    pub ca: Option<PathBuf>,
}

/// A client of one Connect cluster.
#[derive(Debug, Clone)]
pub struct Connect {
    http: Client,
    base: Url,
    user: String,
    password: Secret,
}

/// What is wrong with a setting, as the connector itself says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The setting.
    pub setting: String,
    /// What is wrong.
    pub errors: Vec<String>,
}

/// How a connector is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Status {
    /// The connector itself; it stays RUNNING when its task fails.
    pub connector: Part,
    /// Its tasks; none for a moment after it was created, and while it is stopped.
    #[serde(default)]
    pub tasks: Vec<Part>,
}

/// How a connector or a task is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Part {
    /// A task's number.
    #[serde(default)]
    pub id: u32,
    /// `RUNNING`, `PAUSED`, `STOPPED`, `FAILED`, `UNASSIGNED`, `RESTARTING`.
    pub state: String,
    /// Where it runs.
    #[serde(default)]
    pub worker_id: String,
    /// What failed.
    #[serde(default)]
    pub trace: Option<String>,
}

/// How far a connector has stored its place in the binlog.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
pub struct Offset {
    /// The binlog file.
    pub file: Option<String>,
    /// The byte in it.
    pub pos: Option<u64>,
    /// The transactions read.
    pub gtids: Option<String>,
    /// Set while existing rows are read at the start: rows that lie before this place are still to come.
    #[serde(default)]
    snapshot: Option<IgnoredAny>,
    /// Set while existing rows of added tables are read.
    #[serde(default)]
    incremental_snapshot_collections: Option<IgnoredAny>,
}

impl Offset {
    /// Whether existing rows are still being read.
    pub fn reads_rows(&self) -> bool {
        self.snapshot.is_some() || self.incremental_snapshot_collections.is_some()
    }
}

#[derive(Deserialize)]
struct Validated {
    error_count: u32,
    #[serde(default)]
    configs: Vec<ValidatedSetting>,
}

#[derive(Deserialize)]
struct ValidatedSetting {
    // One internal setting comes without a value.
    value: Option<ValidatedValue>,
}

#[derive(Deserialize)]
struct ValidatedValue {
    name: String,
    #[serde(default)]
    errors: Vec<String>,
}

#[derive(Deserialize)]
struct Offsets {
    #[serde(default)]
    offsets: Vec<OffsetOf>,
}

#[derive(Deserialize)]
struct OffsetOf {
    offset: Option<Offset>,
}

#[derive(Deserialize)]
struct Refusal {
    message: String,
}

#[derive(Deserialize)]
struct Plugin {
    class: String,
}

#[derive(Deserialize)]
struct Named {
    config: Config,
}

impl Connect {
    /// A client of the cluster at `url` (`http://host:8083`), which asks for no user.
    pub fn new(url: &str) -> Result<Self> {
        Self::with(&Access { url: url.to_owned(), ..Access::default() })
    }

    /// A client of a cluster. Reads the file of certificates; does no other IO.
    pub fn with(access: &Access) -> Result<Self> {
        let base = base_of(&access.url)?;
        let mut http = Client::builder().redirect(reqwest::redirect::Policy::none()).connect_timeout(Duration::from_secs(5)).timeout(Duration::from_secs(30));
        // The client is given its TLS in any case, so that it does not look for one of the process.
        http = http.tls_backend_preconfigured(tls::client(access.ca.as_deref())?);
        if base.scheme() == "http" && access.ca.is_some() {
            return Err(Error::config("`CONNECT_CA` is set, and `CONNECT_URL` is not one of `https`"));
        }
        let http = http.build().map_err(|cause| Error::config("the HTTP client for Connect could not be built").caused_by(cause.without_url()))?;
        Ok(Self { http, base, user: access.user.clone(), password: access.password.clone() })
    }

    /// What is wrong with these settings, asked of the connector itself; it connects to the database. Needs `connector.class` and `name`.
    pub async fn validate(&self, config: &Config) -> Result<Vec<Fault>> {
        let class = config.get("connector.class").map(String::as_str).unwrap_or_default();
        let answer = self.call(Method::PUT, &["connector-plugins", class, "config", "validate"], None, Some(config)).await?;
        let validated: Validated = read(&answer, "the validation")?;
        if validated.error_count == 0 {
            return Ok(Vec::new());
        }
        let faults = validated.configs.into_iter().filter_map(|setting| setting.value).filter(|value| !value.errors.is_empty());
        Ok(faults.map(|value| Fault { setting: value.name, errors: value.errors }).collect())
    }
    /// Creates the connector or replaces its settings. Validate first: Connect answers a wrong setting with a crash that does not name it.
    pub async fn put(&self, name: &str, config: &Config) -> Result<()> {
        self.call(Method::PUT, &["connectors", name, "config"], None, Some(config)).await.map(drop)
    }
    /// The connector's settings, passwords in clear; None: there is no such connector.
    pub async fn config(&self, name: &str) -> Result<Option<Config>> {
        match self.maybe(&["connectors", name]).await? {
            Some(answer) => Ok(Some(read::<Named>(&answer, "the connector")?.config)),
            None => Ok(None),
        }
    }
    /// How the connector is; None: there is no such connector, or it is so new that nothing is known.
    pub async fn status(&self, name: &str) -> Result<Option<Status>> {
        self.maybe(&["connectors", name, "status"]).await?.map(|answer| read(&answer, "the status")).transpose()
    }
    /// How far it has stored its place. None until it was stored first, a minute after the start by default.
    pub async fn offset(&self, name: &str) -> Result<Option<Offset>> {
        let Some(answer) = self.maybe(&["connectors", name, "offsets"]).await? else { return Ok(None) };
        Ok(read::<Offsets>(&answer, "the offsets")?.offsets.into_iter().find_map(|offset| offset.offset))
    }
    /// Stops reading; its task stays.
    pub async fn pause(&self, name: &str) -> Result<()> {
        self.call(Method::PUT, &["connectors", name, "pause"], None, None).await.map(drop)
    }
    /// Goes on after `pause` or `stop`.
    pub async fn resume(&self, name: &str) -> Result<()> {
        self.call(Method::PUT, &["connectors", name, "resume"], None, None).await.map(drop)
    }
    /// Ends its task; its settings and its place stay.
    pub async fn stop(&self, name: &str) -> Result<()> {
        self.call(Method::PUT, &["connectors", name, "stop"], None, None).await.map(drop)
    }
    /// Removes the connector. Its topics stay.
    pub async fn delete(&self, name: &str) -> Result<()> {
        self.call(Method::DELETE, &["connectors", name], None, None).await.map(drop)
    }
    /// Forgets how far it has read. Only while it is stopped.
    pub async fn forget_offsets(&self, name: &str) -> Result<()> {
        self.call(Method::DELETE, &["connectors", name, "offsets"], None, None).await.map(drop)
    }
    /// Starts it and all its tasks again.
    pub async fn restart(&self, name: &str) -> Result<()> {
        self.call(Method::POST, &["connectors", name, "restart"], Some("includeTasks=true&onlyFailed=false"), None).await.map(drop)
    }
    /// Whether the workers have a connector of this class.
    pub async fn has_class(&self, class: &str) -> Result<bool> {
        let plugins: Vec<Plugin> = read(&self.call(Method::GET, &["connector-plugins"], None, None).await?, "the list of plugins")?;
        Ok(plugins.iter().any(|plugin| plugin.class == class))
    }
    /// Starts again what failed of it.
    pub async fn restart_failed(&self, name: &str) -> Result<()> {
        self.call(Method::POST, &["connectors", name, "restart"], Some("includeTasks=true&onlyFailed=true"), None).await.map(drop)
    }

    async fn maybe(&self, path: &[&str]) -> Result<Option<Vec<u8>>> {
        let (status, answer) = self.ask(Method::GET, path, None, None).await?;
        if status == StatusCode::NOT_FOUND { Ok(None) } else { self.judge(status, answer).map(Some) }
    }

    async fn call(&self, method: Method, path: &[&str], query: Option<&str>, body: Option<&Config>) -> Result<Vec<u8>> {
        let (status, answer) = self.ask(method, path, query, body).await?;
        self.judge(status, answer)
    }

    async fn ask(&self, method: Method, path: &[&str], query: Option<&str>, body: Option<&Config>) -> Result<(StatusCode, Vec<u8>)> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url.set_query(query);
        let mut request = self.http.request(method, url);
        if !self.user.is_empty() {
            request = request.basic_auth(&self.user, Some(self.password.expose()));
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let away = |cause: reqwest::Error| Error::disconnected(format!("Kafka Connect at `{}` does not answer", self.base)).caused_by(cause.without_url());
        let mut response = request.send().await.map_err(away)?;
        let status = response.status();
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(away)? {
            if answer.len() + chunk.len() > LARGEST {
                return Err(Error::rejected(format!("Kafka Connect at `{}` answered with more than {LARGEST} bytes: is it Connect?", self.base)));
            }
            answer.extend_from_slice(&chunk);
        }
        Ok((status, answer))
    }

    fn judge(&self, status: StatusCode, answer: Vec<u8>) -> Result<Vec<u8>> {
        if status.is_success() {
            return Ok(answer);
        }
        let said = serde_json::from_slice::<Refusal>(&answer).map(|refusal| first_lines(&refusal.message, 3)).unwrap_or_default();
        Err(match status.as_u16() {
            401 | 403 => Error::config(format!("Kafka Connect at `{}` refuses us ({status}): give `CONNECT_USER` and `CONNECT_PASSWORD` of who may manage connectors", self.base)),
            409 => Error::disconnected(format!("Kafka Connect at `{}` rebalances its work; it is asked again in a moment", self.base)),
            500.. => Error::disconnected(format!("Kafka Connect at `{}` failed ({status}): {said}", self.base)),
            300..=399 => Error::config(format!("`{}` redirects, which is not followed: give the address of Kafka Connect itself", self.base)),
            _ => Error::rejected(format!("Kafka Connect at `{}` refused ({status}): {said}", self.base)),
        })
    }
}

fn read<'a, T: Deserialize<'a>>(answer: &'a [u8], what: &str) -> Result<T> {
    serde_json::from_slice(answer).map_err(|_| {
        let json = serde_json::from_slice::<&RawValue>(answer).is_ok();
        Error::rejected(format!("{what} that Kafka Connect sent {}", if json { "is of another form than known" } else { "is no JSON: is it Connect?" }))
    })
}

/// The address below which all paths lie.
fn base_of(url: &str) -> Result<Url> {
    let wrong = || Error::config(format!("the Connect URL `{}` is none; it looks like `http://connect:8083` or `https://connect:8443`", without_login(url)));
    let mut base = Url::parse(url).map_err(|_| wrong())?;
    if !["http", "https"].contains(&base.scheme()) || base.host().is_none() || base.cannot_be_a_base() {
        return Err(wrong());
    }
    if !base.username().is_empty() || base.password().is_some() || base.query().is_some() {
        return Err(Error::config("the Connect URL has a login or a query: it looks like `http://connect:8083`, and `CONNECT_USER` and `CONNECT_PASSWORD` say who asks"));
    }
    if !base.path().ends_with('/') {
        base.set_path(&format!("{}/", base.path()));
    }
    Ok(base)
}

/// A URL without what stands before `@`.
fn without_login(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((_, host)) => format!("***@{host}"),
        None => url.to_owned(),
    }
}

/// A sink connector of the cluster.
#[derive(Debug, Clone)]
pub struct SinkConnector {
    /// Its name.
    pub name: String,
    /// Its class.
    pub class: String,
    /// Its consumer group.
    pub group: String,
    /// What it is told to read.
    pub topics: Topics,
    /// How it is: `RUNNING`, `PAUSED`, `FAILED`, ...; `FAILED` too where a task of it failed.
    pub state: String,
}

/// The topics that a sink is told to read.
#[derive(Debug, Clone, Default)]
pub struct Topics {
    names: Vec<String>,
    pattern: Option<Pattern>,
}

#[derive(Debug, Clone)]
enum Pattern {
    Read(Regex),
    /// What Rust cannot read of Java's expressions may mean every topic.
    Any,
}

impl Topics {
    /// These names, and what a regular expression of Java stands for as a whole.
    pub fn of(names: Vec<String>, pattern: Option<&str>) -> Self {
        let pattern = pattern.map(|pattern| Regex::new(&format!("^(?:{pattern})$")).map_or(Pattern::Any, Pattern::Read));
        Self { names, pattern }
    }
    /// Whether a topic is among them.
    pub fn has(&self, topic: &str) -> bool {
        self.names.iter().any(|name| name == topic)
            || self.pattern.as_ref().is_some_and(|pattern| match pattern {
                Pattern::Read(regex) => regex.is_match(topic),
                Pattern::Any => true,
            })
    }
}

impl Connect {
    /// The sink connectors of the cluster, of whomever.
    pub async fn sinks(&self) -> Result<Vec<SinkConnector>> {
        let answer = self.call(Method::GET, &["connectors"], Some("expand=info&expand=status"), None).await?;
        Ok(expanded(&answer)?.into_iter().filter_map(|(name, expanded)| sink(name, expanded)).collect())
    }
    /// The source connectors of the cluster, of whomever, with their settings, passwords in clear.
    pub async fn sources(&self) -> Result<Vec<(String, Config)>> {
        let answer = self.call(Method::GET, &["connectors"], Some("expand=info"), None).await?;
        let source = |(name, expanded): (String, Expanded)| Some((name, expanded.info.filter(|info| info.kind == "source")?.config));
        Ok(expanded(&answer)?.into_iter().filter_map(source).collect())
    }
}

/// A connector that comes or goes while the list is made has one half of it.
#[derive(Deserialize)]
struct Expanded {
    info: Option<Info>,
    status: Option<Status>,
}

#[derive(Deserialize)]
struct Info {
    config: Config,
    #[serde(rename = "type", default)]
    kind: String,
}

fn expanded(answer: &[u8]) -> Result<BTreeMap<String, Expanded>> {
    read(answer, "the list of connectors")
}

fn sink(name: String, Expanded { info, status }: Expanded) -> Option<SinkConnector> {
    let Info { config, .. } = info.filter(|info| info.kind == "sink")?;
    let given = |key: &str| config.get(key).map(|value| value.trim()).filter(|value| !value.is_empty());
    let names: Vec<String> = given("topics").unwrap_or_default().split(',').map(str::trim).filter(|topic| !topic.is_empty()).map(str::to_owned).collect();
    let state = match status {
        Some(status) if std::iter::once(&status.connector).chain(&status.tasks).any(|part| part.state == "FAILED") => "FAILED".to_owned(),
        Some(status) => status.connector.state,
        None => "STARTING".to_owned(),
    };
    let group = given("consumer.override.group.id").map_or_else(|| format!("connect-{name}"), str::to_owned);
    let topics = Topics::of(names, given("topics.regex"));
    Some(SinkConnector { class: given("connector.class").unwrap_or_default().to_owned(), group, topics, state, name })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sinks_are_told_from_sources_with_group_topics_and_state() {
        let part = |state: &str| json!({ "state": state, "worker_id": "w" });
        let answer = json!({
            "copy": { "info": { "config": { "connector.class": "J", "topics": "a.b, a.c" }, "type": "sink" }, "status": { "connector": part("RUNNING"), "tasks": [part("RUNNING"), part("FAILED")] } },
            "more": { "info": { "config": { "topics.regex": "a\\..*", "consumer.override.group.id": "g" }, "type": "sink" } },
            "ours": { "info": { "config": { "topic.prefix": "a", "topics": "x" }, "type": "source" }, "status": { "connector": part("RUNNING"), "tasks": [] } },
            "gone": {},
        });
        let sinks: Vec<SinkConnector> = expanded(answer.to_string().as_bytes()).expect("a list").into_iter().filter_map(|(name, one)| sink(name, one)).collect();
        let seen: Vec<_> = sinks.iter().map(|sink| (sink.name.as_str(), sink.group.as_str(), sink.state.as_str(), ["a.b", "a.x"].iter().filter(|topic| sink.topics.has(topic)).count())).collect();
        assert_eq!(seen, [("copy", "connect-copy", "FAILED", 1), ("more", "g", "STARTING", 2)]);
    }
}
