//! Where a source stands.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::gtid::{Gtid, GtidSet};

/// A place in the log of one server: ordered, and the same for every reader of that server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Coordinate {
    /// The number of the log file (binlog: the numeric suffix of its name).
    pub log: u64,
    /// The byte after the last complete event.
    pub offset: u64,
}

impl fmt::Display for Coordinate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.log, self.offset)
    }
}

/// The name of one source transaction: stable across restarts and redelivery.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TxnId {
    /// By GTID.
    Gtid(Gtid),
    /// Without GTID: where the transaction ends in the log.
    At(Coordinate),
}

impl fmt::Display for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gtid(gtid) => gtid.fmt(f),
            Self::At(at) => at.fmt(f),
        }
    }
}

/// How far into a transaction that has not ended yet a position reaches. Very large transactions come in several batches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partial {
    /// Which transaction.
    pub txn: TxnId,
    /// How many of its change events are included, from the first.
    pub changes: u64,
}

/// Where a source stands: everything up to here is included, nothing after it.
///
/// The agent stores it as JSON and compares it only through the methods here; only its source interprets it further.
/// Positions of different `server`s are not ordered by coordinate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The log's owner: MySQL's `server_uuid`.
    pub server: String,
    /// The name of the log file (`binlog.000002`).
    pub file: String,
    /// Its number and the byte after the last complete transaction.
    pub at: Coordinate,
    /// The transactions included; None where the server has no GTIDs.
    pub gtids: Option<GtidSet>,
    /// Set when the position lies inside a transaction.
    pub partial: Option<Partial>,
}

impl Position {
    /// Whether the transaction `id` is included whole.
    pub fn contains(&self, id: &TxnId) -> bool {
        match (id, &self.gtids) {
            (TxnId::Gtid(gtid), Some(set)) => set.contains(gtid),
            (TxnId::Gtid(_), None) => false,
            (TxnId::At(at), _) => *at <= self.at,
        }
    }
    /// How many change events of the transaction `id` are included: all (`u64::MAX`), some, or none.
    pub fn included(&self, id: &TxnId) -> u64 {
        match &self.partial {
            Some(partial) if partial.txn == *id => partial.changes,
            _ if self.contains(id) => u64::MAX,
            _ => 0,
        }
    }
    /// Whether everything up to `at` in this server's log is included.
    pub fn reached(&self, at: Coordinate) -> bool {
        self.at >= at
    }
    /// The order of two positions of one stream; None where they are of different servers or of diverging histories.
    pub fn order(&self, other: &Self) -> Option<Ordering> {
        let whole = match (&self.gtids, &other.gtids) {
            (Some(a), Some(b)) => match (a.is_subset(b), b.is_subset(a)) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Less,
                (false, true) => Ordering::Greater,
                (false, false) => return None,
            },
            _ if self.server != other.server => return None,
            _ => self.at.cmp(&other.at),
        };
        let inside = |position: &Self| position.partial.as_ref().map_or(0, |partial| partial.changes);
        Some(whole.then_with(|| inside(self).cmp(&inside(other))))
    }
}

impl fmt::Display for Position {
    /// The GTID set where there is one, else `file:offset`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.gtids {
            Some(set) => set.fmt(f),
            None => write!(f, "{}:{}", self.file, self.at.offset),
        }
    }
}
