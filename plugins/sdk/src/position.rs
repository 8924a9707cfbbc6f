//! Where a source stands.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

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
    /// A record of a partitioned log (Kafka): each is a transaction of its own.
    Record(RecordId),
}

/// The place of one record in a partitioned log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RecordId {
    /// Which topic.
    pub topic: Arc<str>,
    /// Which of its partitions.
    pub partition: i32,
    /// Which record of that partition.
    pub offset: u64,
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.topic, self.partition, self.offset)
    }
}

/// How far one partition was read.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PartitionAt {
    /// The offset of the next record: everything before it is included.
    pub next: u64,
    /// What the source needs to know a redelivered record again, in its own words. Nobody else reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<String>,
}

/// How far each partition of a partitioned log was read: topic, partition, place. A partition that is not here was not read at all.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Partitions(pub BTreeMap<Arc<str>, BTreeMap<i32, PartitionAt>>);

impl Partitions {
    /// The place of one partition.
    pub fn get(&self, topic: &str, partition: i32) -> Option<&PartitionAt> {
        self.0.get(topic)?.get(&partition)
    }
    /// Sets the place of one partition.
    pub fn set(&mut self, topic: &Arc<str>, partition: i32, at: PartitionAt) {
        match self.0.get_mut(topic) {
            Some(partitions) => partitions.insert(partition, at),
            None => self.0.entry(Arc::clone(topic)).or_default().insert(partition, at),
        };
    }
    /// Every partition, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, i32, &PartitionAt)> {
        self.0.iter().flat_map(|(topic, partitions)| partitions.iter().map(move |(partition, at)| (topic, *partition, at)))
    }
    /// Whether `other` has read at least as far in every partition.
    fn is_within(&self, other: &Self) -> bool {
        self.iter().all(|(topic, partition, at)| at.next <= other.get(topic, partition).map_or(0, |at| at.next))
    }
}

impl fmt::Display for Partitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (topic, partition, at)) in self.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{topic}/{partition}:{}", at.next)?;
        }
        Ok(())
    }
}

impl fmt::Display for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gtid(gtid) => gtid.fmt(f),
            Self::At(at) => at.fmt(f),
            Self::Record(record) => record.fmt(f),
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
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Position {
    /// The log's owner: MySQL's `server_uuid`, Kafka's cluster id.
    pub server: String,
    /// The name of the log file (`binlog.000002`).
    pub file: String,
    /// Its number and the byte after the last complete transaction.
    pub at: Coordinate,
    /// The transactions included; None where the server has no GTIDs.
    pub gtids: Option<GtidSet>,
    /// Set when the position lies inside a transaction.
    pub partial: Option<Partial>,
    /// Of a partitioned log: how far each partition was read. `file` and `at` then say through which place of the database's own log all
    /// partitions are known to have been read; zero: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<Partitions>,
}

impl Position {
    /// Whether the transaction `id` is included whole.
    pub fn contains(&self, id: &TxnId) -> bool {
        match (id, &self.gtids) {
            (TxnId::Gtid(gtid), Some(set)) => set.contains(gtid),
            (TxnId::Gtid(_), None) => false,
            (TxnId::At(at), _) => *at <= self.at,
            (TxnId::Record(record), _) => self.partitions.as_ref().and_then(|all| all.get(&record.topic, record.partition)).is_some_and(|at| record.offset < at.next),
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
        if self.partitions.is_some() || other.partitions.is_some() {
            let (Some(a), Some(b)) = (&self.partitions, &other.partitions) else { return None };
            return by_inclusion(a.is_within(b), b.is_within(a));
        }
        let whole = match (&self.gtids, &other.gtids) {
            (Some(a), Some(b)) => by_inclusion(a.is_subset(b), b.is_subset(a))?,
            _ if self.server != other.server => return None,
            _ => self.at.cmp(&other.at),
        };
        let inside = |position: &Self| position.partial.as_ref().map_or(0, |partial| partial.changes);
        Some(whole.then_with(|| inside(self).cmp(&inside(other))))
    }
}

/// The order of two sets, each within the other or not.
fn by_inclusion(a_in_b: bool, b_in_a: bool) -> Option<Ordering> {
    match (a_in_b, b_in_a) {
        (true, true) => Some(Ordering::Equal),
        (true, false) => Some(Ordering::Less),
        (false, true) => Some(Ordering::Greater),
        (false, false) => None,
    }
}

impl fmt::Display for Position {
    /// The partitions' offsets or the GTID set where there are such, else `file:offset`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.partitions, &self.gtids) {
            (Some(partitions), _) => partitions.fmt(f),
            (None, Some(set)) => set.fmt(f),
            (None, None) => write!(f, "{}:{}", self.file, self.at.offset),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(places: &[(&str, i32, u64)]) -> Position {
        let mut partitions = Partitions::default();
        for (topic, partition, next) in places {
            partitions.set(&Arc::from(*topic), *partition, PartitionAt { next: *next, newest: None });
        }
        Position { partitions: Some(partitions), ..Position::default() }
    }

    #[test]
    fn a_partitioned_position_holds_what_is_before_the_next_offset() {
        let position = read(&[("shop.orders", 0, 5), ("shop.orders", 1, 1)]);
        let record = |topic: &str, partition, offset| TxnId::Record(RecordId { topic: topic.into(), partition, offset });
        assert!(position.contains(&record("shop.orders", 0, 4)));
        for later in [record("shop.orders", 0, 5), record("shop.orders", 1, 1), record("shop.orders", 2, 0), record("shop.users", 0, 0)] {
            assert!(!position.contains(&later), "{later}");
        }
        assert_eq!(position.to_string(), "shop.orders/0:5,shop.orders/1:1");
    }

    #[test]
    fn partitioned_positions_are_ordered_where_every_partition_agrees() {
        let (low, high, aside) = (read(&[("t", 0, 5)]), read(&[("t", 0, 6), ("t", 1, 1)]), read(&[("t", 0, 4), ("t", 1, 9)]));
        assert_eq!(low.order(&high), Some(Ordering::Less));
        assert_eq!(high.order(&low), Some(Ordering::Greater));
        assert_eq!(high.order(&high), Some(Ordering::Equal));
        assert_eq!(high.order(&aside), None);
        assert_eq!(high.order(&Position::default()), None, "another kind of log");
    }

    #[test]
    fn positions_written_before_there_were_partitions_are_read() {
        let old = r#"{"server":"s","file":"binlog.000001","at":{"log":1,"offset":4},"gtids":null,"partial":null}"#;
        let position: Position = serde_json::from_str(old).expect("a position");
        assert_eq!(serde_json::to_string(&position).expect("text"), old);
    }
}
