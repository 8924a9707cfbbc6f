//! What the server says of its log: where it ends, what was executed, what was purged.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use plumbline_sdk::{Coordinate, Error, GtidSet, Result};

use crate::config::MysqlConfig;
use crate::connect::{connect, error};

/// The name of the current log file and where it ends; None: the server writes no binlog.
pub async fn end_of_log(conn: &mut Conn, config: &MysqlConfig) -> Result<Option<(String, Coordinate)>> {
    // The new words are known since MySQL 8.2, the old ones until 8.4.
    let row: Option<Row> = match conn.query_first("SHOW BINARY LOG STATUS").await {
        Err(mysql_async::Error::Server(cause)) if cause.code == 1064 => {
            conn.query_first("SHOW MASTER STATUS").await.map_err(|cause| error(config, "the end of the binlog could not be read", cause))?
        }
        other => other.map_err(|cause| error(config, "the end of the binlog could not be read", cause))?,
    };
    match row {
        None => Ok(None),
        Some(row) => {
            let file: String = row.get(0).unwrap_or_default();
            let offset: u64 = row.get(1).unwrap_or_default();
            let at = coordinate(&file, offset).ok_or_else(|| Error::fatal(format!("the binlog file name `{file}` has no number at its end")))?;
            Ok(Some((file, at)))
        }
    }
}

/// A place in a log file: the number at the end of its name, and the offset.
pub fn coordinate(file: &str, offset: u64) -> Option<Coordinate> {
    let log = file.rsplit('.').next()?.parse().ok()?;
    Some(Coordinate { log, offset })
}

/// The transactions executed; None: the server has no GTIDs.
pub async fn gtid_executed(conn: &mut Conn, config: &MysqlConfig) -> Result<Option<GtidSet>> {
    let row: Option<(String, String)> =
        conn.query_first("SELECT @@GLOBAL.gtid_mode, @@GLOBAL.gtid_executed").await.map_err(|cause| error(config, "the executed GTIDs could not be read", cause))?;
    match row {
        Some((mode, executed)) if mode == "ON" => executed.parse().map(Some),
        _ => Ok(None),
    }
}

/// What the server says of its log at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogSurvey {
    /// `@@server_uuid`, as positions name it.
    pub server: String,
    /// The numbers of the log files with their sizes, in order; the last one is written to.
    pub files: Vec<(u64, u64)>,
    /// The transactions executed; None: the server has no GTIDs.
    pub executed: Option<GtidSet>,
    /// How long a file is kept after its last write; None: the server deletes none by itself, or does not say.
    pub retention_seconds: Option<u64>,
}

/// Looks at a server's log again and again, on one connection.
pub struct LogWatch {
    config: MysqlConfig,
    conn: Option<Conn>,
}

impl LogWatch {
    /// Looks at this server. Building does no IO.
    pub fn new(config: MysqlConfig) -> Self {
        Self { config, conn: None }
    }

    /// Connects where there is no connection.
    pub async fn connect(&mut self) -> Result<()> {
        if self.conn.is_none() {
            self.conn = Some(connect(&self.config).await?);
        }
        Ok(())
    }

    /// Drops the connection: the next look makes a new one. Called after a failure, also after a look that was given up.
    pub fn forget(&mut self) {
        self.conn = None;
    }

    /// What the server says now.
    pub async fn look(&mut self) -> Result<LogSurvey> {
        self.connect().await?;
        match self.conn.as_mut() {
            Some(conn) => survey(conn, &self.config).await,
            None => Err(Error::disconnected("MySQL is not connected")),
        }
    }
}

async fn survey(conn: &mut Conn, config: &MysqlConfig) -> Result<LogSurvey> {
    let said = |cause| error(config, "the state of the binlog could not be read", cause);
    // By name, so that a server which does not know one of them says the others.
    let variables: Vec<(String, String)> = conn
        .query("SHOW GLOBAL VARIABLES WHERE Variable_name IN ('server_uuid', 'binlog_expire_logs_seconds', 'binlog_expire_logs_auto_purge', 'expire_logs_days')")
        .await
        .map_err(said)?;
    let executed = gtid_executed(conn, config).await?;
    let rows: Vec<Row> = conn.query("SHOW BINARY LOGS").await.map_err(said)?;
    let files = rows.iter().filter_map(|row| coordinate(&row.get::<String, _>(0)?, row.get(1)?)).map(|at| (at.log, at.offset)).collect();
    let value = |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    Ok(LogSurvey { server: value("server_uuid").unwrap_or_default().to_owned(), files, executed, retention_seconds: retention(value) })
}

/// For how long the server keeps a file; None: for ever, or it does not say.
fn retention<'a>(value: impl Fn(&str) -> Option<&'a str>) -> Option<u64> {
    if value("binlog_expire_logs_auto_purge").is_some_and(|purge| purge.eq_ignore_ascii_case("OFF")) {
        return None;
    }
    let number = |name: &str| value(name).and_then(|value| value.parse::<u64>().ok()).filter(|number| *number > 0);
    // The older setting counts where the newer one is not set; both at 0: for ever.
    number("binlog_expire_logs_seconds").or_else(|| number("expire_logs_days").map(|days| days * 86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_deletes_nothing_has_no_retention() {
        let check = |variables: &[(&str, &'static str)], expected: Option<u64>| {
            assert_eq!(retention(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)), expected, "{variables:?}");
        };
        check(&[("binlog_expire_logs_seconds", "2592000"), ("binlog_expire_logs_auto_purge", "ON")], Some(2_592_000));
        check(&[("binlog_expire_logs_seconds", "2592000"), ("binlog_expire_logs_auto_purge", "OFF")], None);
        check(&[("binlog_expire_logs_seconds", "0"), ("expire_logs_days", "0")], None);
        check(&[("binlog_expire_logs_seconds", "0"), ("expire_logs_days", "2")], Some(172_800));
        check(&[("binlog_expire_logs_seconds", "3600"), ("expire_logs_days", "2")], Some(3600));
        check(&[], None);
    }
}
