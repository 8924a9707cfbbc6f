//! Settings: `default.toml` < file < environment < flags. The only place that reads the environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plumbline_sdk::{Error, Result, Secret};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::{Table, Value};

/// The reference: every setting with its default.
pub const DEFAULT: &str = include_str!("../default.toml");

/// All settings. Every field stands in `default.toml`, with what it means.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Config {
    pub listen: String,
    pub token: Secret,
    pub insecure: bool,
    pub hosts: Vec<String>,
    pub data_dir: PathBuf,
    pub apply: bool,
    pub pipeline: String,
    pub discovery_interval: Span,
    pub shutdown_deadline: Span,
    pub log: String,
    pub log_format: LogFormat,
    pub mysql: MysqlSettings,
    pub postgres: PostgresSettings,
    pub source: SourceSettings,
    pub kafka: KafkaSettings,
    pub connect: ConnectSettings,
    pub redis: RedisSettings,
    pub history: HistorySettings,
    pub checks: CheckSettings,
    pub stream: StreamSettings,
    pub metrics: MetricSettings,
    /// The standard `OTEL_*` variables; not in the file.
    #[serde(skip)]
    pub otel: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct MysqlSettings {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: Secret,
    pub database: String,
    pub ssl_mode: String,
    pub ssl_ca: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct PostgresSettings {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: Secret,
    pub database: String,
    pub schema: String,
    pub sslmode: String,
    pub sslrootcert: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct SourceSettings {
    pub server_id: u32,
    pub heartbeat: Span,
    pub include: Vec<String>,
    pub exclude: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct KafkaSettings {
    pub bootstrap_servers: Vec<String>,
    pub topic_prefix: String,
    pub group: String,
    pub group_instance_id: String,
    pub security_protocol: String,
    pub ssl_ca: String,
    pub sasl_mechanism: String,
    pub sasl_username: String,
    pub sasl_password: Secret,
    pub properties: Vec<String>,
    pub sink_group: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ConnectSettings {
    pub url: String,
    pub user: String,
    pub password: Secret,
    pub ca: String,
    pub mysql_host: String,
    pub mysql_port: u16,
    pub mysql_user: String,
    pub mysql_password: Secret,
    pub bootstrap_servers: String,
    pub schemas: bool,
    pub mend_drift: bool,
    pub properties: Vec<Secret>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct RedisSettings {
    pub host: String,
    pub port: u16,
    pub username: String,
    pub password: Secret,
    pub url: Secret,
    pub tls_ca: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct HistorySettings {
    pub keep_events: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct CheckSettings {
    pub interval: Span,
    pub settle: Span,
    pub chunk_rows: u64,
    pub max_findings: usize,
    pub count_interval: Span,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct StreamSettings {
    pub window_bytes: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct MetricSettings {
    pub max_tables: usize,
}

/// A duration, written as `30s`, `5m`, `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl Span {
    /// Reads a duration.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        text.trim()
            .parse::<jiff::SignedDuration>()
            .ok()
            .and_then(|span| Duration::try_from(span).ok())
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a duration; one looks like `30s`, `5m` or `1h`"))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let millis = self.0.as_millis();
        if millis.is_multiple_of(1000) { serializer.collect_str(&format_args!("{}s", millis / 1000)) } else { serializer.collect_str(&format_args!("{millis}ms")) }
    }
}

impl Config {
    /// Settings of this process: the file that is named (or `PLUMBLINE_CONFIG` names) and the environment.
    pub fn of_process(file: Option<&Path>) -> Result<Self> {
        #[allow(clippy::disallowed_methods, reason = "the one place that reads the environment")]
        let environment: Vec<(String, String)> = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect();
        Self::load(file, &environment)
    }

    /// Settings from these parts.
    pub fn load(file: Option<&Path>, environment: &[(String, String)]) -> Result<Self> {
        let mut settings: Table = DEFAULT.parse().map_err(|cause: toml::de::Error| Error::fatal("`default.toml` is broken").caused_by(cause))?;
        let variable = |name: &str| environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let named = file.map(Path::to_path_buf).or_else(|| variable("PLUMBLINE_CONFIG").map(PathBuf::from));
        if let Some(path) = named {
            let text = std::fs::read_to_string(&path).map_err(|cause| Error::config(format!("the configuration file `{}` cannot be read", path.display())).caused_by(cause))?;
            let given: Table =
                text.parse().map_err(|cause: toml::de::Error| Error::config(format!("the configuration file `{}` is not TOML", path.display())).caused_by(cause))?;
            overlay(&mut settings, given, "", &format!("`{}`", path.display()))?;
        }
        let names = names(&settings);
        for (name, value) in environment {
            let Some(place) = names.get(name.as_str()) else { continue };
            set(&mut settings, place, value, name)?;
        }
        for (name, path) in environment {
            let Some(secret) = name.strip_suffix("_FILE").filter(|secret| SECRETS.contains(secret)) else { continue };
            let text = std::fs::read_to_string(path).map_err(|cause| Error::config(format!("`{name}` names `{path}`, which cannot be read")).caused_by(cause))?;
            if let Some(place) = names.get(secret) {
                set(&mut settings, place, text.trim_end_matches(['\r', '\n']), name)?;
            }
        }
        refuse_unknown(environment, &names)?;
        let mut config = Self::deserialize(Value::Table(settings)).map_err(|cause| Error::config("a setting has a value that is not accepted").caused_by(cause))?;
        config.otel = environment.iter().filter(|(name, _)| name.starts_with("OTEL_")).cloned().collect();
        Ok(config)
    }

    /// Whether history lives in Redis.
    pub fn has_redis(&self) -> bool {
        !self.redis.host.is_empty() || !self.redis.url.is_empty()
    }

    /// Whether changes come from Kafka.
    pub fn has_kafka(&self) -> bool {
        !self.kafka.bootstrap_servers.is_empty()
    }

    /// What a command that needs the databases must have; the message names every missing setting.
    pub fn require_databases(&self) -> Result<()> {
        let missing: Vec<&str> = [
            ("MYSQL_USER", self.mysql.user.is_empty()),
            ("MYSQL_DATABASE", self.mysql.database.is_empty()),
            ("POSTGRES_USER", self.postgres.user.is_empty()),
            ("POSTGRES_DATABASE", self.postgres.database.is_empty()),
        ]
        .into_iter()
        .filter_map(|(name, missing)| missing.then_some(name))
        .collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(Error::config(format!("not set: `{}`; set them in the environment or in a configuration file (see `default.toml`)", missing.join("`, `"))))
        }
    }
}

/// Whether the person asked for no colour (<https://no-color.org>).
pub fn no_colour() -> bool {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

const SECRETS: [&str; 9] = ["CONNECT_PASSWORD", "CONNECT_PROPERTIES", "KAFKA_SASL_PASSWORD", "MYSQL_PASSWORD", "POSTGRES_PASSWORD", "PLUMBLINE_TOKEN", "CONNECT_MYSQL_PASSWORD", "REDIS_PASSWORD", "REDIS_URL"];
/// Sections whose variables are known by their own names, without `PLUMBLINE_`.
const OWN_NAMES: [&str; 5] = ["mysql", "postgres", "kafka", "connect", "redis"];

/// Variables that belong to the agent and are not settings of `default.toml`.
const OTHERS: [&str; 1] = ["PLUMBLINE_CONFIG"];

/// Environment name to its place among the settings.
fn names(settings: &Table) -> BTreeMap<String, Vec<String>> {
    let mut names = BTreeMap::new();
    for (key, value) in settings {
        match value {
            Value::Table(section) => {
                for inner in section.keys() {
                    let prefix = if OWN_NAMES.contains(&key.as_str()) { String::new() } else { "PLUMBLINE_".to_owned() };
                    names.insert(format!("{prefix}{}_{}", key.to_uppercase(), inner.to_uppercase()), vec![key.clone(), inner.clone()]);
                }
            }
            _ => {
                names.insert(format!("PLUMBLINE_{}", key.to_uppercase()), vec![key.clone()]);
            }
        }
    }
    names
}

/// Puts a text into the place of a setting, as the type that the default has.
fn set(settings: &mut Table, place: &[String], text: &str, name: &str) -> Result<()> {
    let (last, sections) = match place.split_last() {
        Some(split) => split,
        None => return Ok(()),
    };
    let mut table = settings;
    for section in sections {
        match table.get_mut(section) {
            Some(Value::Table(inner)) => table = inner,
            _ => return Ok(()),
        }
    }
    let Some(value) = table.get_mut(last) else { return Ok(()) };
    let shown = if SECRETS.iter().any(|secret| name.starts_with(secret)) { "***" } else { text };
    let refused = |expected: &str| Error::config(format!("`{name}` is `{shown}`; {expected} would have been accepted"));
    *value = match value {
        Value::Boolean(_) => Value::Boolean(match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => true,
            "false" | "0" | "no" | "off" | "" => false,
            _ => return Err(refused("`true` or `false`")),
        }),
        Value::Integer(_) => Value::Integer(text.trim().parse().map_err(|_| refused("a whole number"))?),
        Value::Array(_) => Value::Array(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(|part| Value::String(part.to_owned())).collect()),
        _ => Value::String(text.to_owned()),
    };
    Ok(())
}

/// Lays `given` over `settings`; every key must be known.
fn overlay(settings: &mut Table, given: Table, place: &str, origin: &str) -> Result<()> {
    for (key, value) in given {
        let name = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
        let known = settings.keys().map(|known| format!("`{known}`")).collect::<Vec<_>>().join(", ");
        match (settings.get_mut(&key), value) {
            (None, _) => return Err(Error::config(format!("unknown setting `{name}` in {origin}; known here: {known}"))),
            (Some(Value::Table(inner)), Value::Table(given)) => overlay(inner, given, &name, origin)?,
            (Some(place), value) if place.type_str() == value.type_str() => *place = value,
            (Some(place), value) => {
                return Err(Error::config(format!("`{name}` in {origin} is of type {}; {} would have been accepted", value.type_str(), place.type_str())));
            }
        }
    }
    Ok(())
}

fn refuse_unknown(environment: &[(String, String)], names: &BTreeMap<String, Vec<String>>) -> Result<()> {
    for (name, _) in environment {
        let secret_file = name.strip_suffix("_FILE").is_some_and(|secret| SECRETS.contains(&secret));
        if name.starts_with("PLUMBLINE_") && !names.contains_key(name) && !OTHERS.contains(&name.as_str()) && !secret_file && !name.starts_with("PLUMBLINE_TEST_") && !name.starts_with("PLUMBLINE_STACK_")
        {
            let known = names.keys().filter(|name| name.starts_with("PLUMBLINE_")).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            return Err(Error::config(format!("unknown variable `{name}`; known: {known}, `PLUMBLINE_CONFIG`")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: Option<&str>, environment: &[(&str, &str)]) -> std::result::Result<Config, String> {
        let folder = std::env::temp_dir().join(format!("plumbline-config-{}-{:?}", std::process::id(), std::thread::current().id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("plumbline.toml");
        if let Some(text) = file {
            std::fs::write(&path, text).expect("a file");
        }
        let environment: Vec<(String, String)> = environment.iter().map(|(name, value)| ((*name).to_owned(), value.replace("@DIR", &folder.display().to_string()))).collect();
        let config = Config::load(file.map(|_| path.as_path()), &environment).map_err(|error| error.chain());
        std::fs::remove_dir_all(folder).expect("the folder goes");
        config
    }

    #[test]
    fn the_reference_gives_every_setting_a_default() {
        let config = load(None, &[]).expect("defaults");
        assert_eq!(config.listen, "127.0.0.1:8000");
        assert!(!config.apply);
        assert_eq!(config.discovery_interval.0, Duration::from_secs(30));
    }

    #[test]
    fn the_environment_outranks_the_file_and_the_file_the_defaults() {
        let file = "apply = true\n[mysql]\nhost = \"a\"\nport = 3307\n";
        let config = load(Some(file), &[("MYSQL_HOST", "b"), ("PLUMBLINE_SOURCE_EXCLUDE", "x, y")]).expect("settings");
        assert_eq!((config.mysql.host.as_str(), config.mysql.port, config.apply), ("b", 3307, true));
        assert_eq!(config.source.exclude, ["x", "y"]);
    }

    fn refused(file: Option<&str>, environment: &[(&str, &str)], words: &[&str]) {
        let message = load(file, environment).expect_err("a refusal");
        for word in words {
            assert!(message.contains(word), "{message}");
        }
    }

    #[test]
    fn what_is_not_accepted_is_named_with_what_would_have_been() {
        refused(Some("[mysql]\nhots = \"a\"\n"), &[], &["`mysql.hots`", "plumbline.toml", "`host`"]);
        refused(Some("apply = \"yes\"\n"), &[], &["`apply`", "boolean"]);
        refused(None, &[("PLUMBLINE_APLY", "true")], &["`PLUMBLINE_APLY`", "`PLUMBLINE_APPLY`"]);
        refused(None, &[("PLUMBLINE_APPLY", "maybe")], &["`PLUMBLINE_APPLY`", "maybe", "`true` or `false`"]);
        refused(None, &[("MYSQL_PORT", "x")], &["`MYSQL_PORT`", "whole number"]);
        refused(None, &[("PLUMBLINE_DISCOVERY_INTERVAL", "soon")], &["soon", "30s"]);
        refused(None, &[("MYSQL_PASSWORD_FILE", "/nowhere")], &["`MYSQL_PASSWORD_FILE`", "/nowhere"]);
    }

    #[test]
    fn a_secret_prints_as_stars_wherever_it_comes_from() {
        let config = load(None, &[("MYSQL_PASSWORD", "hush")]).expect("settings");
        assert_eq!(config.mysql.password.expose(), "hush");
        assert!(!format!("{config:?}{}", serde_json::to_string(&config).expect("json")).contains("hush"));
    }
}
