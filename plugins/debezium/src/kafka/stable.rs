//! Partitions whose newest records nobody may read yet, because a transaction of their producer is open. Pure: the clock is given.
//!
//! Such a partition looks idle: no record comes. What tells is that its last stable offset stays where it is, below the log's end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::read::Place;

/// A transaction of a connector that writes exactly once lasts as long as its flush of offsets, a few seconds; one of so long is stuck.
const STALLED: Duration = Duration::from_secs(10);

/// Where partitions stand still, and since when.
#[derive(Debug, Default)]
pub(super) struct Stable {
    open: BTreeMap<Place, Stand>,
}

#[derive(Debug, Clone, Copy)]
struct Stand {
    stable: i64,
    end: i64,
    since: Instant,
}

impl Stable {
    /// Sees the offsets of a partition: the last stable one, and the log's end. Negative ones are not known yet.
    pub fn see(&mut self, place: Place, stable: i64, end: i64, now: Instant) {
        if stable < 0 || stable >= end {
            self.open.remove(&place);
            return;
        }
        let since = self.open.get(&place).filter(|stand| stand.stable == stable).map_or(now, |stand| stand.since);
        self.open.insert(place, Stand { stable, end, since });
    }

    /// One sentence for each partition that has stood still for long.
    pub fn stalled(&self, now: Instant, reads: impl Fn(&Place) -> bool) -> Vec<String> {
        let long = |(place, stand): &(&Place, &Stand)| reads(place) && now.saturating_duration_since(stand.since) >= STALLED;
        let stalled = self.open.iter().filter(long);
        let said = stalled.map(|((topic, partition), stand)| {
            format!(
                "stalled: the topic `{topic}`, partition {partition}, has records up to {} and only those before {} may be read: a producer has a transaction open. \
                 It goes on when that ends, at the latest after the producer's `transaction.timeout.ms`; `kafka-transactions.sh find-hanging` names it",
                stand.end, stand.stable
            )
        });
        said.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_stalled_when_its_stable_offset_stays_below_its_end() {
        let (start, place): (Instant, Place) = (Instant::now(), ("t".into(), 0));
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut stable = Stable::default();
        let check = |stable: &Stable, seconds: u64, expected: usize| assert_eq!(stable.stalled(at(seconds), |_| true).len(), expected, "{seconds}");
        stable.see(place.clone(), -1001, 9, at(0));
        check(&stable, 60, 0);
        stable.see(place.clone(), 5, 9, at(0));
        check(&stable, 9, 0);
        // More records behind the same open transaction.
        stable.see(place.clone(), 5, 12, at(9));
        check(&stable, 10, 1);
        assert!(stable.stalled(at(10), |_| false).is_empty());
        assert!(stable.stalled(at(10), |_| true).iter().all(|said| said.contains("up to 12") && said.contains("before 5")));
        // One ended, the next began: it moves.
        stable.see(place.clone(), 7, 12, at(11));
        check(&stable, 20, 0);
        stable.see(place, 12, 12, at(30));
        check(&stable, 90, 0);
    }
}
