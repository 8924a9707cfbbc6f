//! What a proof from before says of now: nothing, while changes are known to wait that no sink has yet. After a start those are all that the
//! source had by then; where changes come by Kafka, also records that lie in a topic for longer than a moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use plumbline_sdk::TableId;
use plumbline_sdk::position::Partitions;
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::shared::Shared;
use crate::source_log::LogLook;
use crate::state::State;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(250);
/// A record that waits in Kafka for longer than so many looks is late, as a change is that waits to be applied.
const LATE: u32 = 8;

/// Where topics ended, by topic and partition.
type Ends = BTreeMap<(Arc<str>, i32), u64>;

/// Looks until told to stop. `knows_place`: positions say through which place of the source's log the stream was read.
pub async fn watch_unread(shared: Arc<Shared>, metrics: Arc<Metrics>, knows_place: bool, mut stop: watch::Receiver<bool>) {
    let mut first: Option<LogLook> = None;
    let mut begun = false;
    // Where topics ended a moment ago, and where they ended a moment before that.
    let (mut recent, mut waited) = (Ends::default(), Ends::default());
    let mut looks = 0;
    loop {
        let ends: Ends = metrics.kafka().map(|look| look.ends).unwrap_or_default().into_iter().map(|(topic, partition, end)| ((topic, partition), end)).collect();
        let moved = {
            let mut picture = shared.picture();
            let stored = picture.state.applied.clone();
            let read = stored.as_ref().and_then(|position| position.partitions.as_ref());
            if first.is_none() {
                first = picture.state.source_log.look().cloned();
            }
            begun = begun
                || match (&first, &stored) {
                    (Some(first), Some(stored)) if knows_place => first.is_in(stored),
                    // The topics' ends are all that is known then.
                    (_, Some(_)) => !knows_place && !ends.is_empty() && behind(&ends, read).is_empty(),
                    _ => false,
                };
            let topics = behind(&waited, read);
            let late: BTreeSet<TableId> = match shared.topic.get() {
                Some(topic) if !topics.is_empty() => picture.state.present().map(|(id, _)| id).filter(|id| topics.contains(topic(id).as_str())).cloned().collect(),
                _ => BTreeSet::new(),
            };
            if looks % LATE == 0 {
                waited = std::mem::replace(&mut recent, ends);
            }
            note(&mut picture.state, begun, &late, |table| shared.owns(table))
        };
        if moved {
            shared.touch();
        }
        looks += 1;
        if tokio::time::timeout(LOOK, stop.wait_for(|stop| *stop)).await.is_ok() {
            return;
        }
    }
}

/// The topics whose records up to these ends are not all read.
fn behind<'a>(ends: &'a Ends, read: Option<&Partitions>) -> BTreeSet<&'a str> {
    let next = |topic: &str, partition| read.and_then(|read| read.get(topic, partition)).map_or(0, |at| at.next);
    ends.iter().filter(|((topic, partition), end)| next(topic, *partition) < **end).map(|((topic, _), _)| &**topic).collect()
}

/// Marks the tables of this agent. True: something changed.
fn note(state: &mut State, begun: bool, late: &BTreeSet<TableId>, owns: impl Fn(&TableId) -> bool) -> bool {
    let mut moved = false;
    let applies = state.applies;
    // What another agent reads, that one says.
    for (id, table) in state.tables.iter_mut().filter(|(id, _)| owns(id)) {
        // What was compared as a whole since the start was looked at since. What somebody else is to apply must be.
        let is_old = table.verified.is_some() && table.compared.is_none();
        let unread = late.contains(id) || is_old && (!begun || !applies && table.live.iter().sum::<u64>() > 0);
        moved |= table.unread != unread;
        table.unread = unread;
    }
    moved
}

#[cfg(test)]
mod tests {
    use plumbline_sdk::position::PartitionAt;

    use super::*;

    #[test]
    fn a_topic_is_behind_where_any_of_its_records_was_not_read() {
        let topic: Arc<str> = "shop.orders".into();
        let ends: Ends = [((Arc::clone(&topic), 0), 7), ((Arc::clone(&topic), 1), 0)].into();
        let read = |next| {
            let mut partitions = Partitions::default();
            partitions.set(&topic, 0, PartitionAt { next, newest: None });
            partitions
        };
        for (received, expected) in [(None, 1), (Some(read(6)), 1), (Some(read(7)), 0), (Some(read(9)), 0)] {
            assert_eq!(behind(&ends, received.as_ref()).len(), expected, "{received:?}");
        }
    }
}
