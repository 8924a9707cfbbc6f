//! The one list of compiled-in plugins, and how settings become their configurations. Nothing else names a built-in plugin's type.

use std::sync::Arc;

use plumbline_history::SqliteHistory;
use plumbline_mysql::{Discovery, MysqlBinlog};
use plumbline_postgres::{PostgresApplier, PostgresComparer};
use plumbline_sdk::{Applier, Error, History, Plugin, Reader, Result, Source, TableId, TableSchema, Validator};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::checks::Readers;
use crate::config::Config;

/// Name, kind and one sentence of every compiled-in plugin.
pub const PLUGINS: [(&str, &str, &str); 5] = [
    ("mysql-discovery", "source", "finds the source's tables and tells when their shape changes"),
    ("mysql-binlog", "source", "follows every change from MySQL's binlog"),
    ("postgres-applier", "sink", "copies tables and applies every change to PostgreSQL"),
    ("postgres-comparer", "validator", "compares both sides' rows by canonical form"),
    ("sqlite-history", "sink", "keeps position, counters, events and findings in SQLite"),
];

fn typed<T: DeserializeOwned>(value: Value, section: &str) -> Result<T> {
    serde_json::from_value(value).map_err(|cause| Error::config(format!("a setting of `[{section}]` is not accepted")).caused_by(cause))
}

fn path(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// The settings of MySQL as its plugins take them.
pub fn mysql_config(config: &Config) -> Result<plumbline_mysql::MysqlConfig> {
    let mysql = &config.mysql;
    typed(
        json!({
            "host": mysql.host, "port": mysql.port, "user": mysql.user, "password": mysql.password.expose(), "database": mysql.database,
            "ssl_mode": mysql.ssl_mode, "ssl_ca": path(&mysql.ssl_ca),
        }),
        "mysql",
    )
}

/// The settings of PostgreSQL as its plugins take them.
pub fn postgres_config(config: &Config) -> Result<plumbline_postgres::PostgresConfig> {
    let postgres = &config.postgres;
    typed(
        json!({
            "host": postgres.host, "port": postgres.port, "user": postgres.user, "password": postgres.password.expose(), "database": postgres.database,
            "schema": postgres.schema, "sslmode": postgres.sslmode, "sslrootcert": path(&postgres.sslrootcert),
        }),
        "postgres",
    )
}

/// Readers of both sides, each with a connection of its own.
pub fn readers(config: &Config) -> Result<Readers> {
    let (mysql, postgres, pipeline) = (mysql_config(config)?, postgres_config(config)?, config.pipeline.clone());
    Ok(Arc::new(move || {
        let source: Box<dyn Reader> = Box::new(plumbline_mysql::MysqlReader::new(mysql.clone()));
        let target: Box<dyn Reader> = Box::new(plumbline_postgres::PostgresReader::new(postgres.clone(), pipeline.clone()));
        Ok((source, target))
    }))
}
