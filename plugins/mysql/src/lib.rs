//! Plugins that read MySQL: `mysql-discovery` finds tables, `mysql-binlog` follows every change, [`MysqlReader`] reads the source's side
//! of a comparison.
//!
//! `columns`, `sql`, and all of `binlog` but its module file are pure: no clock, no network.
#![warn(missing_docs)]

#[allow(missing_docs, reason = "decoding is documented where it says something that the names do not")]
pub mod binlog;
pub mod columns;
pub mod config;
pub mod connect;
pub mod discovery;
mod log;
pub mod preflight;
pub mod reader;
pub mod sql;
mod wire;

pub use binlog::MysqlBinlog;
pub use config::{BinlogConfig, DiscoveryConfig, MysqlConfig, SslMode};
pub use discovery::{DiscoveredTable, Discovery, Watch, tables};
pub use log::{LogSurvey, LogWatch};
pub use reader::MysqlReader;
