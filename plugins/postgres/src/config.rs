//! Where the target is and who we are there.

use std::path::PathBuf;

use plumbline_sdk::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How to reach a PostgreSQL database.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
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
    /// Database.
    pub database: String,
    /// The schema whose tables are the target.
    #[serde(default = "default_schema")]
    pub schema: String,
    /// Whether and how strictly TLS is used, in libpq's words.
    #[serde(default)]
    pub sslmode: SslMode,
    /// A PEM file with the certificate authorities to trust; none: the well-known ones.
    #[serde(default)]
    pub sslrootcert: Option<PathBuf>,
}

fn default_port() -> u16 {
    5432
}

fn default_schema() -> String {
    "public".into()
}

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Never TLS.
    Disable,
    /// TLS only if the server insists.
    Allow,
    /// TLS if the server offers it, its certificate unverified.
    #[default]
    Prefer,
    /// TLS, the certificate unverified.
    Require,
    /// TLS, the certificate signed by a trusted authority.
    VerifyCa,
    /// TLS, the certificate signed by a trusted authority and made for this host.
    VerifyFull,
}

impl SslMode {
    /// Whether the server's certificate is checked.
    pub fn verifies(self) -> bool {
        matches!(self, Self::VerifyCa | Self::VerifyFull)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_setting_is_refused_and_the_rest_has_defaults() {
        let parse = |text: &str| serde_json::from_str::<PostgresConfig>(text);
        let config = parse(r#"{"host":"h","user":"u","database":"d","sslmode":"verify-full"}"#).expect("a configuration");
        assert_eq!((config.port, config.schema.as_str(), config.sslmode), (5432, "public", SslMode::VerifyFull));
        assert!(parse(r#"{"host":"h","user":"u","database":"d","sslmodus":"prefer"}"#).is_err());
    }
}
