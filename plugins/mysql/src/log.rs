//! What the server says of its log: where it ends, what was executed, what was purged.

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row};
use plumbline_sdk::{Coordinate, Error, GtidSet, Result};

use crate::config::MysqlConfig;
use crate::connect::error;

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
