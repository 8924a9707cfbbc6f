//! What the reading of Kafka shows of itself: where the partitions end, as the client last heard, and how often the group was divided anew.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::Statistics;
use rdkafka::statistics::Partition;

/// Shared by the thread that reads and whoever shows it. Stays the same over reconnects.
#[derive(Debug, Default)]
pub struct Look {
    ends: Mutex<BTreeMap<Arc<str>, BTreeMap<i32, u64>>>,
    rebalances: AtomicU64,
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

    pub(super) fn take(&self, statistics: &Statistics) {
        // A negative end is not known; number -1 stands for what has no partition yet.
        let end = |(number, partition): (&i32, &Partition)| Some((*number, u64::try_from(partition.ls_offset).ok().filter(|_| partition.desired)?));
        let ends = statistics.topics.iter().map(|(name, topic)| (name.as_str().into(), topic.partitions.iter().filter_map(end).collect())).collect();
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner) = ends;
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::statistics::Topic;

    use super::*;

    #[test]
    fn ends_are_known_of_partitions_that_are_read() {
        let look = Look::default();
        let partition = |desired: bool, ls_offset: i64| Partition { desired, ls_offset, ..Partition::default() };
        let topic = Topic { partitions: [(0, partition(true, 7)), (1, partition(true, -1001)), (2, partition(false, 9)), (-1, partition(false, 3))].into(), ..Topic::default() };
        look.take(&Statistics { topics: [("shop.inv.a".to_owned(), topic)].into(), ..Statistics::default() });
        assert_eq!(look.ends(), [("shop.inv.a".into(), 0, 7)]);
        look.take(&Statistics::default());
        assert!(look.ends().is_empty());
    }
}
