//! What people may see of a connector: no secret.

use serde::Serialize;

use super::decide::Decision;
use crate::connect::{Config, Offset, Part, Status};

/// What people may see of a connector, as of one look.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Its name.
    pub name: String,
    /// `RUNNING`, `FAILED`, `PAUSED`, `STOPPED`, `STARTING`, `MISSING`, `TAKEN`, `PURGED`, `REMOVED`.
    pub state: String,
    /// The worker that runs it; empty: not known.
    pub worker: String,
    /// Its tasks.
    pub tasks: Vec<ShownTask>,
    /// The first lines of what failed.
    pub trace: Vec<String>,
    /// The binlog file up to which it has stored its place.
    pub file: Option<String>,
    /// The byte in it.
    pub pos: Option<u64>,
    /// The transactions up to there.
    pub gtids: Option<String>,
    /// Settings of ours that were other than wished at the look, by name.
    pub drift: Vec<String>,
    /// Settings that make what is said of its tables weaker, one sentence each.
    pub weak: Vec<String>,
    /// How often it was started again, by the care or on request, since the agent started.
    pub restarts: u64,
    /// The sink connectors of the same cluster that read its topics.
    pub sinks: Vec<ShownSink>,
    /// Its settings; secrets are `***`.
    pub config: Config,
}

/// One task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownTask {
    /// Its number.
    pub id: u32,
    /// `RUNNING`, `PAUSED`, `FAILED`, `UNASSIGNED`, `RESTARTING`.
    pub state: String,
    /// The worker that runs it.
    pub worker: String,
    /// The first lines of what failed.
    pub trace: Vec<String>,
}

/// A sink connector that reads topics of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ShownSink {
    /// Its name.
    pub name: String,
    /// Its class.
    pub class: String,
    /// Its consumer group.
    pub group: String,
    /// `RUNNING`, `PAUSED`, `STOPPED`, `FAILED`, ...
    pub state: String,
    /// Of how many watched tables it reads the topics.
    pub tables: usize,
}

impl Shown {
    pub(super) fn of(name: String, decision: &Decision, status: Option<&Status>, offset: Offset, config: &Config) -> Self {
        let lines = |lines: &[String]| lines.iter().map(|line| scrub(line, config)).collect();
        let task = |part: &Part| ShownTask {
            id: part.id,
            state: part.state.clone(),
            worker: part.worker_id.clone(),
            trace: lines(&trace_lines(part.trace.as_deref().unwrap_or_default())),
        };
        Self {
            name,
            state: decision.state.to_owned(),
            worker: status.map(|status| status.connector.worker_id.clone()).unwrap_or_default(),
            tasks: status.map(|status| status.tasks.iter().map(task).collect()).unwrap_or_default(),
            trace: lines(&decision.trace),
            file: offset.file,
            pos: offset.pos,
            gtids: offset.gtids,
            drift: decision.drift.clone(),
            config: redact(config),
            ..Self::default()
        }
    }
}

/// Whether a setting's value is not to be shown.
fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["password", "secret", "token", "jaas", "credential", "passphrase", "ssl.key", "apikey", "api.key"].iter().any(|word| key.contains(word))
}

/// Whether a value only names a secret, which the workers' config providers resolve: `${file:/secrets/mysql:password}`.
fn is_reference(value: &str) -> bool {
    value.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).is_some_and(|inner| inner.contains(':') && !inner.contains(['{', '}']))
}

/// The settings with `***` for secrets. What only names a secret is shown.
pub fn redact(config: &Config) -> Config {
    let shown = |key: &str, value: &str| if is_secret(key) && !value.is_empty() && !is_reference(value) { "***".to_owned() } else { value.to_owned() };
    config.iter().map(|(key, value)| (key.clone(), shown(key, value))).collect()
}

/// A text without the secrets of these settings.
pub fn scrub(text: &str, config: &Config) -> String {
    let mut secrets: Vec<&str> = config.iter().filter(|(key, value)| is_secret(key) && !value.is_empty()).map(|(_, value)| value.as_str()).collect();
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets.into_iter().fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
}

/// The first lines of a trace.
pub(super) fn trace_lines(trace: &str) -> Vec<String> {
    first_lines(trace, 3).split(" / ").filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// The first lines of a long text that say something, each of limited length.
pub fn first_lines(text: &str, lines: usize) -> String {
    let told = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("at ") && !line.starts_with("... "));
    told.take(lines).map(|line| line.chars().take(500).collect::<String>()).collect::<Vec<_>>().join(" / ")
}
