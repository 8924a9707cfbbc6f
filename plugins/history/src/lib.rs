//! Plugins that keep history, counters and position.
//!
//! [`SqliteHistory`] is the embedded default: one SQLite file in the data folder.
#![warn(missing_docs)]

mod key_hash;
mod sqlite;
mod tally;

pub use sqlite::{Durability, SqliteHistory, SqliteHistoryConfig};
