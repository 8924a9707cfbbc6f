//! Through which place of the binlog the topics are whole.
//!
//! Records of one topic say nothing of what another topic still lacks, and a source that nobody writes to sends none. What tells is the place
//! that Kafka Connect stored for the connector: it stores one only when every record before it was acknowledged by the brokers. So who sees
//! that place first, asks for the topics' ends then, and has read up to those ends, has read all that lies before the place.

use std::sync::Arc;
use std::time::Duration;

use plumbline_sdk::Coordinate;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::watch;

/// The place of the binlog that Connect has stored for a connector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPlace {
    /// The binlog file.
    pub file: String,
    /// Its number, and the byte in it.
    pub at: Coordinate,
}

impl StoredPlace {
    /// The byte `pos` of `file` (`binlog.000002`); None: the name has no number.
    pub fn new(file: &str, pos: u64) -> Option<Self> {
        let log = file.rsplit('.').next()?.parse().ok()?;
        Some(Self { file: file.to_owned(), at: Coordinate { log, offset: pos } })
    }
}

/// The newest stored place, as the connector's care last saw it.
pub type StoredPlaces = watch::Receiver<Option<StoredPlace>>;

/// A stored place, and how far must be read for it to hold.
#[derive(Debug)]
pub(super) struct Claim {
    pub place: StoredPlace,
    ends: Vec<(Arc<str>, i32, u64)>,
}

impl Claim {
    /// The claim of `place`, which was seen before this call, over these partitions.
    pub fn of<C: ConsumerContext>(consumer: &BaseConsumer<C>, place: StoredPlace, partitions: impl Iterator<Item = (Arc<str>, i32)>, wait: Duration) -> KafkaResult<Self> {
        Ok(Self { place, ends: ends(consumer, partitions, wait)? })
    }
    /// Whether all of it was read; `next` gives the offset of the next record of a partition.
    pub fn holds(&self, next: impl Fn(&str, i32) -> Option<u64>) -> bool {
        self.ends.iter().all(|(topic, partition, end)| next(topic, *partition).unwrap_or(0) >= *end)
    }
}

/// The offset after the newest record of each partition, in one question to each broker. Of a partition without records: 0.
pub(super) fn ends<C: ConsumerContext>(consumer: &BaseConsumer<C>, partitions: impl Iterator<Item = (Arc<str>, i32)>, wait: Duration) -> KafkaResult<Vec<(Arc<str>, i32, u64)>> {
    let partitions: Vec<(Arc<str>, i32)> = partitions.collect();
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let asked = |time: Offset| {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (topic, partition) in &partitions {
            list.add_partition_offset(topic, *partition, time)?;
        }
        let answer = consumer.offsets_for_times(list, wait)?;
        partitions
            .iter()
            .map(|(topic, partition)| {
                let Some(found) = answer.find_partition(topic, *partition) else { return Ok(0) };
                found.error()?;
                Ok(match found.offset() {
                    Offset::Offset(offset) => u64::try_from(offset).unwrap_or(0),
                    _ => 0,
                })
            })
            .collect::<KafkaResult<Vec<u64>>>()
    };
    // "Times" of the protocol's ListOffsets: the end and the beginning have numbers of their own.
    let (begin, end) = (asked(Offset::Beginning)?, asked(Offset::End)?);
    Ok(partitions.into_iter().zip(begin.into_iter().zip(end)).map(|((topic, partition), (begin, end))| (topic, partition, if begin == end { 0 } else { end })).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_number_and_a_byte() {
        assert_eq!(StoredPlace::new("binlog.000012", 157).map(|place| place.at), Some(Coordinate { log: 12, offset: 157 }));
        for wrong in ["", "binlog", "binlog.", "binlog.x1"] {
            assert_eq!(StoredPlace::new(wrong, 4), None, "{wrong}");
        }
    }

    #[test]
    fn a_claim_holds_when_every_partition_is_read_to_its_end() {
        let place = StoredPlace::new("binlog.000001", 4).expect("a place");
        let claim = Claim { place, ends: vec![("a".into(), 0, 5), ("a".into(), 1, 0), ("b".into(), 0, 2)] };
        let check = |a: Option<u64>, b: Option<u64>, expected: bool| {
            assert_eq!(claim.holds(|topic, partition| if partition == 1 { None } else if topic == "a" { a } else { b }), expected, "{a:?} {b:?}");
        };
        check(Some(5), Some(2), true);
        check(Some(9), Some(3), true);
        check(Some(4), Some(2), false);
        check(Some(5), None, false);
    }
}
