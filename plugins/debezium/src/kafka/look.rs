//! What the reading of Kafka shows of itself: where the partitions end, as the client last heard, and how often the group was divided anew.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

/// Shared by the thread that reads and whoever shows it. Stays the same over reconnects.
#[derive(Debug, Default)]
pub struct Look {
    ends: Mutex<BTreeMap<Arc<str>, BTreeMap<i32, u64>>>,
    rebalances: AtomicU64,
}

/// librdkafka's statistics, as far as they are of use here.
#[derive(Deserialize)]
struct Statistics {
    topics: HashMap<String, Topic>,
}

#[derive(Deserialize)]
struct Topic {
    partitions: HashMap<i32, Partition>,
}

#[derive(Deserialize)]
struct Partition {
    #[serde(default)]
    desired: bool,
    /// The end of what may be read; negative: not known.
    #[serde(default)]
    ls_offset: i64,
}

impl Look {
    /// The offset after the newest record of each partition that is read. What is not known is absent.
    pub fn ends(&self) -> Vec<(Arc<str>, i32, u64)> {
        let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.iter().flat_map(|(topic, partitions)| partitions.iter().map(|(partition, end)| (Arc::clone(topic), *partition, *end))).collect()
    }
    /// How often the consumer group gave partitions to this agent anew, or took them.
    pub fn rebalances(&self) -> u64 {
        self.rebalances.load(Ordering::Relaxed)
    }

    pub(super) fn rebalanced(&self) {
        self.rebalances.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn take(&self, statistics: &[u8]) {
        let Ok(Statistics { topics }) = serde_json::from_slice(statistics) else {
            tracing::debug!("the client's statistics are of another form than known");
            return;
        };
        let end = |(number, partition): (i32, Partition)| Some((number, u64::try_from(partition.ls_offset).ok().filter(|_| partition.desired)?));
        let ends = topics.into_iter().map(|(name, topic)| (name.into(), topic.partitions.into_iter().filter_map(end).collect())).collect();
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner) = ends;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_known_of_partitions_that_are_read() {
        let look = Look::default();
        look.take(
            br#"{"name":"x","topics":{"shop.inv.a":{"topic":"shop.inv.a","partitions":{
                "0":{"partition":0,"desired":true,"ls_offset":7},"1":{"desired":true,"ls_offset":-1001},"2":{"desired":false,"ls_offset":9},"-1":{"ls_offset":3}}}}}"#,
        );
        assert_eq!(look.ends(), [("shop.inv.a".into(), 0, 7)]);
        look.take(b"nonsense");
        assert_eq!(look.ends().len(), 1, "what was heard stays");
        look.take(br#"{"topics":{}}"#);
        assert!(look.ends().is_empty());
    }
}
