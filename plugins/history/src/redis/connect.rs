//! From settings to a connection, and what must be true of the server before it is trusted with a history.

use std::collections::HashMap;
use std::time::Duration;

use plumbline_sdk::{Error, Result};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, TlsCertificates};

use super::RedisHistoryConfig;
use super::error::Place;
use super::keys::Keys;

/// The oldest version that is accepted: scripts with flags, and every command used.
const OLDEST: (u32, u32) = (7, 0);

/// How to reach the server. Nothing is opened yet.
#[derive(Clone)]
pub(super) struct Server {
    pub place: Place,
    info: ConnectionInfo,
    tls_ca: Option<std::path::PathBuf>,
    timeout: Duration,
}

impl Server {
    pub(super) fn new(config: &RedisHistoryConfig, keys: &Keys) -> Result<Self> {
        let info = match &config.url {
            Some(url) => of_url(url.expose())?,
            None => of_parts(config)?,
        };
        let settings = info.redis_settings();
        let mut hidden = vec![settings.password().unwrap_or_default().to_owned(), config.password.expose().to_owned()];
        if let Some(url) = &config.url {
            // As it stands in the URL, percent signs and all.
            hidden.push(url.expose().to_owned());
            hidden.extend(url.expose().rsplit_once('@').and_then(|(before, _)| before.rsplit_once("//")?.1.split_once(':')).map(|(_, password)| password.to_owned()));
        }
        let at = match info.addr() {
            ConnectionAddr::TcpTls { host, port, .. } | ConnectionAddr::Tcp(host, port) => format!("{host}:{port}"),
            _ => return Err(bad_url()),
        };
        let place = Place { at, user: settings.username().unwrap_or("default").to_owned(), pattern: keys.pattern(), hidden };
        Ok(Self { place, info, tls_ca: config.tls_ca.clone(), timeout: Duration::from_millis(config.timeout_ms) })
    }

    /// `host:port/database`, for the marker and for messages.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.place.at, self.info.redis_settings().db())
    }

    /// A connection, logged in.
    pub(super) async fn open(&self) -> Result<MultiplexedConnection> {
        let failed = |error| self.place.classify(&error);
        let client = match &self.tls_ca {
            Some(path) => {
                let root = std::fs::read(path).map_err(|error| Error::config(format!("the file of certificates `{}` cannot be read", path.display())).caused_by(error))?;
                Client::build_with_tls(self.info.clone(), TlsCertificates { client_tls: None, root_cert: Some(root) }).map_err(failed)?
            }
            None => Client::open(self.info.clone()).map_err(failed)?,
        };
        if self.is_tls() {
            // Of the whole process; whoever came first has set the same.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(self.timeout)).set_response_timeout(Some(self.timeout));
        client.get_multiplexed_async_connection_with_config(&config).await.map_err(failed)
    }

    fn is_tls(&self) -> bool {
        matches!(self.info.addr(), ConnectionAddr::TcpTls { .. })
    }

    fn is_here(&self) -> bool {
        let host = self.place.at.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']);
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Refuses a server that could lose or forget a history; gives what it could do better.
    pub(super) async fn preflight(&self, conn: &mut MultiplexedConnection) -> Result<Vec<String>> {
        let at = &self.place.at;
        let mut facts = Facts::default();
        match redis::cmd("INFO").query_async::<String>(conn).await {
            Ok(text) => facts.read_info(&text),
            Err(error) if is_forbidden(&error) => {}
            Err(error) => return Err(self.place.classify(&error)),
        }
        for setting in ["maxmemory-policy", "save", "appendonly"] {
            match redis::cmd("CONFIG").arg("GET").arg(setting).query_async::<HashMap<String, String>>(conn).await {
                Ok(found) => facts.read_config(&found),
                Err(error) if is_forbidden(&error) => break,
                Err(error) => return Err(self.place.classify(&error)),
            }
        }
        let mut warnings = facts.judge(at)?;
        if !self.is_tls() && !self.is_here() {
            warnings.push(format!("the connection to Redis at `{at}` is not encrypted: `REDIS_URL=rediss://...` encrypts it"));
        }
        Ok(warnings)
    }
}

/// The ACL, or a provider that took the command away.
fn is_forbidden(error: &redis::RedisError) -> bool {
    error.code() == Some("NOPERM") || error.detail().is_some_and(|detail| detail.contains("unknown command") || detail.contains("unknown subcommand"))
}

fn bad_url() -> Error {
    Error::config("`REDIS_URL` is not accepted: it wants `redis://[user[:password]@]host[:port][/database]`, or `rediss://` for TLS; percent-encode what is special in a password")
}

/// The cause is left out: it could show the URL.
fn of_url(url: &str) -> Result<ConnectionInfo> {
    if !url.starts_with("redis://") && !url.starts_with("rediss://") {
        return Err(bad_url());
    }
    let info = url.into_connection_info().map_err(|_| bad_url())?;
    if matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. }) {
        return Err(Error::config("`REDIS_URL` ends in `#insecure`: certificates are always checked; name the file of their authority in `tls_ca`"));
    }
    Ok(info)
}

fn of_parts(config: &RedisHistoryConfig) -> Result<ConnectionInfo> {
    if config.host.is_empty() || config.port == 0 {
        return Err(Error::config("Redis has no address: `REDIS_HOST` wants a host and `REDIS_PORT` a port from 1, as `6379`; or `REDIS_URL` both"));
    }
    let addr = if config.tls {
        ConnectionAddr::TcpTls { host: config.host.clone(), port: config.port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(config.host.clone(), config.port)
    };
    let mut settings = RedisConnectionInfo::default().set_db(i64::from(config.database));
    if !config.username.is_empty() {
        settings = settings.set_username(&config.username);
    }
    if !config.password.is_empty() {
        settings = settings.set_password(config.password.expose());
    }
    let info = addr.into_connection_info().map_err(|error| Error::config("the address of Redis is not accepted").caused_by(error))?;
    Ok(info.set_redis_settings(settings))
}

/// What a server says of itself. None: it may not be asked.
#[derive(Debug, Default, PartialEq)]
struct Facts {
    version: Option<String>,
    role: Option<String>,
    loading: bool,
    policy: Option<String>,
    aof: Option<bool>,
    save: Option<bool>,
}

impl Facts {
    fn read_info(&mut self, text: &str) {
        for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
            match name {
                "redis_version" => self.version = Some(value.to_owned()),
                "role" => self.role = Some(value.to_owned()),
                "loading" => self.loading = value == "1",
                "maxmemory_policy" => self.policy = Some(value.to_owned()),
                "aof_enabled" => self.aof = Some(value == "1"),
                _ => {}
            }
        }
    }

    fn read_config(&mut self, found: &HashMap<String, String>) {
        if let Some(policy) = found.get("maxmemory-policy") {
            self.policy = Some(policy.clone());
        }
        if let Some(save) = found.get("save") {
            self.save = Some(!save.is_empty());
        }
        if let Some(aof) = found.get("appendonly") {
            self.aof = Some(aof == "yes");
        }
    }

    fn judge(&self, at: &str) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        match &self.version {
            Some(version) if !is_new_enough(version) => {
                let (major, minor) = OLDEST;
                return Err(Error::config(format!("Redis at `{at}` is version {version}: a history wants {major}.{minor} or newer")));
            }
            Some(_) => {}
            None => warnings.push(format!("Redis at `{at}` does not tell its version (`INFO` is forbidden): it must be 7.0 or newer")),
        }
        if self.loading {
            return Err(Error::disconnected(format!("Redis at `{at}` is loading its data: the line waits and goes on by itself")));
        }
        if self.role.as_deref() == Some("slave") {
            return Err(Error::config(format!("Redis at `{at}` is a replica and takes no writes: name its primary in `REDIS_HOST` or `REDIS_URL`")));
        }
        match self.policy.as_deref() {
            Some("noeviction") => {}
            Some(policy) => {
                return Err(Error::config(format!(
                    "Redis at `{at}` has `maxmemory-policy {policy}`, under which it forgets parts of a history when it is full: `CONFIG SET maxmemory-policy noeviction`, there and in its file"
                )));
            }
            None => warnings.push(format!("Redis at `{at}` does not tell its `maxmemory-policy`: it must be `noeviction`, else it forgets parts of the history when it is full")),
        }
        match (self.aof, self.save) {
            (Some(false), Some(false)) => warnings.push(format!("Redis at `{at}` keeps nothing on disk: when it ends, the history is lost; `CONFIG SET appendonly yes`, there and in its file")),
            (Some(false), _) => warnings.push(format!("Redis at `{at}` has no append-only file: when it ends, all since its last snapshot is read again, if the source still has it; `CONFIG SET appendonly yes`")),
            _ => {}
        }
        Ok(warnings)
    }
}

fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= OLDEST
}

#[cfg(test)]
mod tests {
    use plumbline_sdk::{ErrorKind, Secret};

    use super::*;

    fn judged(info: &str, config: &[(&str, &str)]) -> std::result::Result<usize, (ErrorKind, String)> {
        let mut facts = Facts::default();
        facts.read_info(info);
        facts.read_config(&config.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect());
        facts.judge("h:1").map(|warnings| warnings.len()).map_err(|error| (error.kind(), error.to_string()))
    }

    #[test]
    fn a_server_that_could_forget_is_refused_and_one_that_could_be_better_is_warned_of() {
        const GOOD: &str = "redis_version:7.0.15\r\nrole:master\r\nloading:0\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n";
        assert_eq!(judged(GOOD, &[("save", "")]), Ok(0));
        assert_eq!(judged(&GOOD.replace("aof_enabled:1", "aof_enabled:0"), &[("save", "")]), Ok(1));
        assert_eq!(judged(&GOOD.replace("aof_enabled:1", "aof_enabled:0"), &[("save", "3600 1")]), Ok(1));
        assert_eq!(judged("", &[]), Ok(2));
        let refused = [
            ("7.0.15", "6.2.14", ErrorKind::Config, "6.2.14"),
            ("role:master", "role:slave", ErrorKind::Config, "replica"),
            ("noeviction", "allkeys-lru", ErrorKind::Config, "allkeys-lru"),
            ("loading:0", "loading:1", ErrorKind::Disconnected, "loading"),
        ];
        for (from, to, kind, word) in refused {
            let (found, text) = judged(&GOOD.replace(from, to), &[]).expect_err(to);
            assert!(found == kind && text.contains(word), "{to}: {text}");
        }
        assert!(judged(&GOOD.replace("7.0.15", "10.1"), &[]).is_ok());
    }

    fn server(url: &str) -> Result<Server> {
        let config = RedisHistoryConfig { url: Some(Secret::new(url)), ..RedisHistoryConfig::default() };
        Server::new(&config, &Keys::new("plumbline", "default"))
    }

    #[test]
    fn a_url_is_read_and_a_wrong_one_is_not_shown() {
        let found = server("rediss://ann:s%40cret@redis.example:7000/3").expect("accepted");
        assert_eq!((found.name().as_str(), found.place.user.as_str(), found.is_tls(), found.is_here()), ("redis.example:7000/3", "ann", true, false));
        assert!(found.place.hidden.iter().any(|hidden| hidden == "s@cret") && found.place.hidden.iter().any(|hidden| hidden == "s%40cret"));
        assert!(server("redis://127.0.0.1").expect("accepted").is_here());
        for wrong in ["http://:s3cret@h", "redis://u:s3cret@:x", "rediss://:s3cret@h/#insecure", "unix:///tmp/s3cret", "", "redis://u:s3cret@h/notanumber"] {
            let Err(error) = server(wrong) else { panic!("{wrong} is accepted") };
            assert!(error.kind() == ErrorKind::Config && error.to_string().contains("REDIS_URL") && !error.chain().contains("s3cret"), "{}", error.chain());
        }
    }
}
