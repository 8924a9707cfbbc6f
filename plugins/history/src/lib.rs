//! Plugins that keep history, counters and position.
//!
//! [`SqliteHistory`] is the embedded default: one SQLite file in the data folder. [`RedisHistory`] keeps the same in Redis.
#![warn(missing_docs)]

#[cfg(test)]
mod fixtures;
mod folder;
mod key_hash;
mod redis;
mod sqlite;
mod tally;

pub use redis::{RedisHistory, RedisHistoryConfig};
pub use sqlite::{Durability, SqliteHistory, SqliteHistoryConfig};
