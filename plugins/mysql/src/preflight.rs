//! What the server must be set to and what the user must be allowed, before anything is followed: one clear message each.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use plumbline_sdk::{Error, Result};

use crate::config::MysqlConfig;
use crate::connect::{connect, error};
use crate::log::end_of_log;

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What: a server variable or a grant.
    pub name: &'static str,
    /// How it stands.
    pub state: CheckState,
    /// What to know, and what mends it.
    pub message: String,
}

/// How a checked thing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckState {
    /// As it must be.
    Ok,
    /// It works, and something should be known.
    Warning,
    /// It does not work.
    Failed,
}

/// What the server says of itself.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// `@@version`.
    pub version: String,
    /// `@@server_uuid`.
    pub server_uuid: String,
    /// Variables by name; those that the server does not know are absent.
    pub variables: std::collections::BTreeMap<String, String>,
    /// Whether the connection is encrypted.
    pub encrypted: bool,
}

const VARIABLES: [&str; 16] = [
    "log_bin",
    "binlog_format",
    "binlog_row_image",
    "binlog_row_value_options",
    "binlog_row_metadata",
    "gtid_mode",
    "enforce_gtid_consistency",
    "binlog_expire_logs_seconds",
    "innodb_native_foreign_keys",
    "server_id",
    "version",
    "server_uuid",
    "log_replica_updates",
    "replica_preserve_commit_order",
    "binlog_transaction_compression",
    "max_binlog_size",
];

/// Reads what the checks need. No privilege is needed for it.
pub async fn facts(conn: &mut Conn, config: &MysqlConfig) -> Result<Facts> {
    let said = |cause| error(config, "the server's settings could not be read", cause);
    let names = VARIABLES.map(|name| format!("'{name}'")).join(", ");
    let rows: Vec<(String, String)> = conn.query(format!("SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})")).await.map_err(said)?;
    let cipher: Option<(String, String)> = conn.query_first("SHOW SESSION STATUS LIKE 'Ssl_cipher'").await.map_err(said)?;
    let mut facts = Facts { variables: rows.into_iter().collect(), encrypted: cipher.is_some_and(|(_, cipher)| !cipher.is_empty()), ..Facts::default() };
    facts.version = facts.variables.get("version").cloned().unwrap_or_default();
    facts.server_uuid = facts.variables.get("server_uuid").cloned().unwrap_or_default();
    Ok(facts)
}

/// Judges the server's settings. Pure.
pub fn judge(facts: &Facts) -> Vec<Check> {
    let value = |name: &str| facts.variables.get(name).map(String::as_str);
    let mut checks = Vec::new();
    let mut wants = |name: &'static str, wanted: &str, state: CheckState, why: &str| {
        let Some(found) = value(name) else { return };
        let check = if found.eq_ignore_ascii_case(wanted) {
            Check { name, state: CheckState::Ok, message: format!("`{name}` is `{found}`") }
        } else {
            let wanted = if wanted.is_empty() { "''" } else { wanted };
            Check { name, state, message: format!("`{name}` is `{found}`: {why}. `SET PERSIST {name} = {wanted}`") }
        };
        checks.push(check);
    };
    wants("binlog_format", "ROW", CheckState::Failed, "changes would come as statements, and nobody could say which rows they changed");
    wants("binlog_row_image", "FULL", CheckState::Failed, "rows would come with some of their columns only");
    wants("binlog_row_value_options", "", CheckState::Failed, "JSON documents would come in parts");
    wants("binlog_row_metadata", "FULL", CheckState::Failed, "rows would come without column names, keys and labels");
    wants("gtid_mode", "ON", CheckState::Warning, "after a failover the stream cannot go on, and comparisons are less exact");
    if value("gtid_mode").is_some_and(|mode| mode.eq_ignore_ascii_case("ON")) {
        wants("enforce_gtid_consistency", "ON", CheckState::Warning, "statements that GTIDs cannot name are possible");
    }
    if let Some(version) = value("version") {
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok()).unwrap_or(0);
        if version.contains("MariaDB") || major < 8 {
            checks.push(Check {
                name: "version",
                state: CheckState::Failed,
                message: format!("`version` is `{version}`: its binlog has another form than MySQL's of 8.0 and later, which is what is read here"),
            });
        }
    }
    if value("log_replica_updates").is_some() && value("replica_preserve_commit_order").is_some_and(|on| on.eq_ignore_ascii_case("OFF")) {
        checks.push(Check {
            name: "replica_preserve_commit_order",
            state: CheckState::Warning,
            message: "`replica_preserve_commit_order` is OFF: if this server is a replica, transactions come in another order than on its source. `SET PERSIST replica_preserve_commit_order = ON`".into(),
        });
    }
    match value("log_bin") {
        Some(on) if on.eq_ignore_ascii_case("ON") || on == "1" => checks.push(Check { name: "log_bin", state: CheckState::Ok, message: "`log_bin` is ON".into() }),
        _ => checks.push(Check {
            name: "log_bin",
            state: CheckState::Failed,
            message: "`log_bin` is OFF: the server writes no binlog. Start it with `--log-bin` and a `server-id`".into(),
        }),
    }
    if let Some(seconds) = value("binlog_expire_logs_seconds").and_then(|seconds| seconds.parse::<u64>().ok())
        && seconds > 0
        && seconds < 86_400
    {
        checks.push(Check {
            name: "binlog_expire_logs_seconds",
            state: CheckState::Warning,
            message: format!("binlogs are deleted after {seconds} s: an agent that is away longer loses changes. `SET PERSIST binlog_expire_logs_seconds = 604800`"),
        });
    }
    let native = value("innodb_native_foreign_keys");
    if native.is_none() || native.is_some_and(|on| on.eq_ignore_ascii_case("ON") || on == "1") {
        checks.push(Check {
            name: "innodb_native_foreign_keys",
            state: CheckState::Warning,
            message: "rows that a foreign key cascade changes are not in this server's binlog: tables with ON DELETE or ON UPDATE CASCADE or SET NULL drift apart unless the target has the same cascades".into(),
        });
    }
    if value("log_replica_updates").is_some_and(|on| on.eq_ignore_ascii_case("OFF")) {
        checks.push(Check {
            name: "log_replica_updates",
            state: CheckState::Warning,
            message: "`log_replica_updates` is OFF: if this server is a replica, changes that it replicates are not in its binlog".into(),
        });
    }
    checks
}

/// Refuses a server whose binlog cannot be followed exactly: one message with everything that is missing.
pub fn require_binlog(facts: &Facts, config: &MysqlConfig) -> Result<()> {
    let failed: Vec<String> = judge(facts).into_iter().filter(|check| check.state == CheckState::Failed).map(|check| check.message).collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::config(format!("MySQL at `{}:{}` is not set up to be followed: {}", config.host, config.port, failed.join("; "))))
}

/// The server writes no binlog.
pub fn no_binlog(config: &MysqlConfig) -> Error {
    Error::config(format!("MySQL at `{}:{}` writes no binlog: start it with `--log-bin` and a `server-id`", config.host, config.port))
}

/// Everything, with a connection: settings and what the user is allowed.
pub async fn check(conn: &mut Conn, config: &MysqlConfig) -> Result<Vec<Check>> {
    let facts = facts(conn, config).await?;
    let mut checks = judge(&facts);
    let user = &config.user;
    match end_of_log(conn, config).await {
        Ok(_) => checks.push(Check { name: "REPLICATION CLIENT", state: CheckState::Ok, message: "the end of the binlog can be read".into() }),
        Err(cause) => checks.push(Check { name: "REPLICATION CLIENT", state: CheckState::Failed, message: cause.to_string() }),
    }
    let grants: Vec<Row> = conn.query("SHOW GRANTS").await.map_err(|cause| error(config, "the grants could not be read", cause))?;
    let grants: Vec<String> = grants.into_iter().filter_map(|row| row.get::<String, _>(0)).collect();
    if allows_replication(&grants) {
        checks.push(Check { name: "REPLICATION SLAVE", state: CheckState::Ok, message: "the binlog may be followed".into() });
    } else {
        checks.push(Check {
            name: "REPLICATION SLAVE",
            state: CheckState::Failed,
            message: format!("user `{user}` may not follow the binlog: `GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO '{user}'@'%'`"),
        });
    }
    let readable: Option<u64> = conn
        .exec_first("SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = ?", (&config.database,))
        .await
        .map_err(|cause| error(config, "the tables could not be counted", cause))?;
    if readable.unwrap_or(0) == 0 {
        checks.push(Check {
            name: "SELECT",
            state: CheckState::Warning,
            message: format!("user `{user}` sees no table in `{}`: it is empty, or `GRANT SELECT ON `{}`.* TO '{user}'@'%'` is missing", config.database, config.database),
        });
    }
    if !facts.encrypted && !matches!(config.host.as_str(), "127.0.0.1" | "localhost" | "::1") {
        checks.push(Check { name: "TLS", state: CheckState::Warning, message: "the connection to MySQL is not encrypted: set `MYSQL_SSL_MODE` to `verify_identity`".into() });
    } else if facts.encrypted
        && !matches!(config.host.as_str(), "127.0.0.1" | "localhost" | "::1")
        && !matches!(config.ssl_mode, crate::config::SslMode::VerifyCa | crate::config::SslMode::VerifyIdentity)
    {
        checks.push(Check { name: "TLS", state: CheckState::Warning, message: "the server's certificate is not verified: set `MYSQL_SSL_MODE` to `verify_identity`".into() });
    }
    Ok(checks)
}

/// What the account that Debezium reads with is not allowed, with the statement that allows it; None: nothing is missing.
pub async fn debezium(config: &MysqlConfig) -> Result<Option<String>> {
    let mut conn = connect(config).await?;
    let said = |cause| error(config, "the grants could not be read", cause);
    let grants: Vec<Row> = conn.query("SHOW GRANTS").await.map_err(said)?;
    // The answer is there; how the connection ends is of no interest.
    let _ = conn.disconnect().await;
    let grants: Vec<String> = grants.into_iter().filter_map(|row| row.get::<String, _>(0)).collect();
    let missing = debezium_lacks(&grants);
    if missing.is_empty() {
        return Ok(None);
    }
    let (user, missing) = (&config.user, missing.join(", "));
    Ok(Some(format!("Debezium's account `{user}` lacks {missing}: its connector fails, or cannot read existing rows. `GRANT {missing} ON *.* TO '{user}'@'%'`")))
}

/// The global privileges that Debezium needs beside SELECT, as far as they are missing.
fn debezium_lacks(grants: &[String]) -> Vec<&'static str> {
    const NEEDED: [&str; 4] = ["RELOAD", "SHOW DATABASES", "REPLICATION SLAVE", "REPLICATION CLIENT"];
    let global: Vec<String> = grants.iter().map(|grant| grant.to_ascii_uppercase()).filter(|grant| grant.starts_with("GRANT ") && grant.contains(" ON *.* TO ")).collect();
    let has = |needed: &str| {
        global.iter().any(|grant| {
            let list = grant.split(" ON *.* TO ").next().unwrap_or_default().trim_start_matches("GRANT ");
            list.split(',').any(|granted| matches!(granted.trim(), "ALL PRIVILEGES" | "ALL") || granted.trim() == needed)
        })
    };
    NEEDED.into_iter().filter(|needed| !has(needed)).collect()
}

/// Whether any grant lets the user follow the binlog. Grants by role are listed too, once roles are active.
fn allows_replication(grants: &[String]) -> bool {
    grants.iter().any(|grant| {
        let upper = grant.to_ascii_uppercase();
        upper.contains(" ON *.* ") && (upper.contains("REPLICATION SLAVE") || upper.starts_with("GRANT ALL PRIVILEGES") || upper.contains("SUPER"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts_of(pairs: &[(&str, &str)]) -> Facts {
        let good = [("log_bin", "ON"), ("binlog_format", "ROW"), ("binlog_row_image", "FULL"), ("binlog_row_value_options", ""), ("binlog_row_metadata", "FULL"), ("gtid_mode", "ON"), ("enforce_gtid_consistency", "ON"), ("innodb_native_foreign_keys", "OFF")];
        let mut facts = Facts::default();
        for (name, value) in good.iter().chain(pairs) {
            facts.variables.insert((*name).to_owned(), (*value).to_owned());
        }
        facts
    }

    fn check(pairs: &[(&str, &str)], name: &str, state: CheckState, words: &[&str]) {
        let checks = judge(&facts_of(pairs));
        let found = checks.iter().find(|check| check.name == name).unwrap_or_else(|| panic!("no check `{name}`"));
        assert_eq!(found.state, state);
        for word in words {
            assert!(found.message.contains(word), "{}", found.message);
        }
    }

    #[test]
    fn every_missing_setting_is_named_with_the_statement_that_mends_it() {
        check(&[("binlog_format", "STATEMENT")], "binlog_format", CheckState::Failed, &["SET PERSIST binlog_format = ROW"]);
        check(&[("binlog_row_image", "MINIMAL")], "binlog_row_image", CheckState::Failed, &["SET PERSIST binlog_row_image = FULL"]);
        check(&[("binlog_row_metadata", "MINIMAL")], "binlog_row_metadata", CheckState::Failed, &["SET PERSIST binlog_row_metadata = FULL"]);
        check(&[("binlog_row_value_options", "PARTIAL_JSON")], "binlog_row_value_options", CheckState::Failed, &["= ''"]);
        check(&[("log_bin", "OFF")], "log_bin", CheckState::Failed, &["--log-bin"]);
        check(&[("gtid_mode", "OFF")], "gtid_mode", CheckState::Warning, &["SET PERSIST gtid_mode = ON"]);
        check(&[("binlog_expire_logs_seconds", "3600")], "binlog_expire_logs_seconds", CheckState::Warning, &["3600 s"]);
        check(&[("version", "10.11.6-MariaDB-log")], "version", CheckState::Failed, &["MariaDB"]);
        check(&[("version", "5.7.44")], "version", CheckState::Failed, &["8.0"]);
        check(&[("innodb_native_foreign_keys", "ON")], "innodb_native_foreign_keys", CheckState::Warning, &["cascade"]);
        assert!(judge(&facts_of(&[])).iter().all(|check| check.state == CheckState::Ok));
    }

    #[test]
    fn debezium_needs_global_grants_each_by_its_whole_name() {
        let check = |grants: &[&str], missing: &[&str]| {
            let grants: Vec<String> = grants.iter().map(|grant| (*grant).to_owned()).collect();
            assert_eq!(debezium_lacks(&grants), missing, "{grants:?}");
        };
        check(&["GRANT SELECT, RELOAD, SHOW DATABASES, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO `d`@`%`"], &[]);
        check(&["GRANT ALL PRIVILEGES ON *.* TO `d`@`%` WITH GRANT OPTION"], &[]);
        check(&["GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO `d`@`%`", "GRANT ALL PRIVILEGES ON `shop`.* TO `d`@`%`"], &["RELOAD", "SHOW DATABASES"]);
        check(&["GRANT RELOAD ON *.* TO `d`@`%`", "GRANT SHOW DATABASES ON *.* TO `d`@`%`", "GRANT FLUSH_TABLES ON *.* TO `d`@`%`"], &["REPLICATION SLAVE", "REPLICATION CLIENT"]);
        check(&["GRANT USAGE ON *.* TO `reload`@`%`"], &["RELOAD", "SHOW DATABASES", "REPLICATION SLAVE", "REPLICATION CLIENT"]);
    }

    #[test]
    fn replication_is_allowed_by_its_grant_only() {
        let grants = |grant: &str| vec![grant.to_owned()];
        assert!(allows_replication(&grants("GRANT SELECT, REPLICATION SLAVE ON *.* TO `p`@`%`")));
        assert!(!allows_replication(&grants("GRANT SELECT ON `shop`.* TO `p`@`%`")));
    }
}
