//! Where the source is and who we are there.

use std::path::PathBuf;
use std::time::Duration;

use plumbline_sdk::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How to reach a MySQL server, and which database is watched.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MysqlConfig {
    /// Host name or address.
    pub host: String,
    /// Port.
    #[serde(default = "default_port")]
    pub port: u16,
    /// User.
    pub user: String,
    /// The user's password; empty: none is sent.
    #[serde(default)]
    pub password: Secret,
    /// The database to watch.
    pub database: String,
    /// Whether and how strictly TLS is used.
    #[serde(default)]
    pub ssl_mode: SslMode,
    /// A PEM file with the certificate authorities to trust; none: the well-known ones.
    #[serde(default)]
    pub ssl_ca: Option<PathBuf>,
}

fn default_port() -> u16 {
    3306
}

/// MySQL's words for TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SslMode {
    /// Never TLS.
    Disabled,
    /// TLS if the server offers it, its certificate unverified.
    #[default]
    Preferred,
    /// TLS, the certificate unverified.
    Required,
    /// TLS, the certificate signed by a trusted authority. (The driver also wants it to be for this host, as with `verify_identity`.)
    VerifyCa,
    /// TLS, the certificate signed by a trusted authority and made for this host.
    VerifyIdentity,
}

/// How the binlog is followed.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BinlogConfig {
    /// The server.
    pub mysql: MysqlConfig,
    /// The server id that we show; it must differ from every server's and every replica's.
    pub server_id: u32,
    /// How often the server must show that it lives; after three misses the connection counts as dead.
    pub heartbeat: Duration,
}

/// How tables are found.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiscoveryConfig {
    /// The server.
    pub mysql: MysqlConfig,
    /// How often to look.
    pub interval: Duration,
    /// Tables that are watched although a rule excludes them.
    #[serde(default)]
    pub include: Vec<String>,
    /// Patterns of tables that are not watched; `*` stands for any letters.
    #[serde(default)]
    pub exclude: Vec<String>,
}
