//! Kafka Connect's REST interface: fixed paths, no redirects, answers of limited size, a deadline for each call.
//!
//! Connect has no login by default, and who may create a connector may run code on its host: nothing here passes on a path or a name that a
//! user of the agent gave. No password is in any error: see [`scrub`](crate::connector::scrub).

use std::collections::BTreeMap;
use std::time::Duration;

use plumbline_sdk::{Error, Result};
use reqwest::{Client, Method, StatusCode, Url};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::connector::first_lines;

/// A connector's settings.
pub type Config = BTreeMap<String, String>;

/// Answers above this are refused.
const LARGEST: usize = 8 * 1024 * 1024;

/// A client of one Connect cluster.
#[derive(Debug, Clone)]
pub struct Connect {
    http: Client,
    base: Url,
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
struct Named {
    config: Config,
}

impl Connect {
    /// A client of the cluster at `url` (`http://host:8083`).
    pub fn new(url: &str) -> Result<Self> {
        let wrong = || Error::config(format!("the Connect URL `{}` is none; it looks like `http://connect:8083`", without_login(url)));
        let mut base = Url::parse(url).map_err(|_| wrong())?;
        if base.scheme() != "http" || base.host().is_none() || base.cannot_be_a_base() {
            return Err(wrong());
        }
        if !base.username().is_empty() || base.password().is_some() || base.query().is_some() {
            return Err(Error::config("the Connect URL has a login or a query, which is not supported: it looks like `http://connect:8083`"));
        }
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let http = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(30))
            .build()
            .map_err(|cause| Error::config("the HTTP client for Connect could not be built").caused_by(cause.without_url()))?;
        Ok(Self { http, base })
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
            409 => Error::disconnected(format!("Kafka Connect at `{}` rebalances its work; it is asked again in a moment", self.base)),
            500.. => Error::disconnected(format!("Kafka Connect at `{}` failed ({status}): {said}", self.base)),
            300..400 => Error::config(format!("`{}` redirects, which is not followed: give the address of Kafka Connect itself", self.base)),
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

/// A URL without what stands before `@`.
fn without_login(url: &str) -> String {
    match url.rsplit_once('@') {
        Some((_, host)) => format!("***@{host}"),
        None => url.to_owned(),
    }
}

/// A sink connector of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkConnector {
    /// Its name.
    pub name: String,
    /// Its class.
    pub class: String,
    /// Its consumer group.
    pub group: String,
    /// The topics that it is told by name.
    pub topics: Vec<String>,
    /// Or by a regular expression of Java.
    pub topics_regex: Option<String>,
    /// How it is: `RUNNING`, `PAUSED`, `FAILED`, ...; `FAILED` too where a task of it failed.
    pub state: String,
}

impl Connect {
    /// The sink connectors of the cluster.
    pub async fn sinks(&self) -> Result<Vec<SinkConnector>> {
        let answer = self.call(Method::GET, &["connectors"], Some("expand=info&expand=status"), None).await?;
        let all: BTreeMap<String, Expanded> = read(&answer, "the list of connectors")?;
        Ok(all.into_iter().filter_map(|(name, expanded)| sink(name, expanded)).collect())
    }
}

#[derive(Deserialize)]
struct Expanded {
    info: Named,
    status: Status,
}

fn sink(name: String, expanded: Expanded) -> Option<SinkConnector> {
    let Expanded { info: Named { config }, status } = expanded;
    let given = |key: &str| config.get(key).map(|value| value.trim()).filter(|value| !value.is_empty());
    let topics_regex = given("topics.regex").map(str::to_owned);
    let topics: Vec<String> = given("topics").unwrap_or_default().split(',').map(str::trim).filter(|topic| !topic.is_empty()).map(str::to_owned).collect();
    if topics.is_empty() && topics_regex.is_none() {
        return None;
    }
    let failed = std::iter::once(&status.connector).chain(&status.tasks).any(|part| part.state == "FAILED");
    let state = if failed { "FAILED".to_owned() } else { status.connector.state };
    let group = given("consumer.override.group.id").map_or_else(|| format!("connect-{name}"), str::to_owned);
    Some(SinkConnector { class: given("connector.class").unwrap_or_default().to_owned(), group, topics, topics_regex, state, name })
}
