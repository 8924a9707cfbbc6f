//! How far sinks that are not ours have got: the offsets that their consumer groups have committed. Asked without joining any group.
//!
//! Connect commits a sink's offsets after the sink has flushed what came before them, so what lies before a committed offset is applied.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use plumbline_sdk::position::{PartitionAt, Partitions};
use plumbline_sdk::{Error, Position, Result, TableId};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::KafkaConfig;
use super::context::Context;
use super::whole::ends;
use crate::connect::{Access, Connect, SinkConnector, Topics};

/// Brokers have so long to answer a question.
const ANSWER: Duration = Duration::from_secs(15);
/// Connect is asked for its sinks at most so often.
const KNOWN_FOR: Duration = Duration::from_secs(15);

/// The sinks' offsets. Cheap to clone.
#[derive(Clone)]
pub struct SinkOffsets {
    config: KafkaConfig,
    connect: Option<Connect>,
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    known: Mutex<Option<(Instant, Vec<SinkConnector>)>>,
    consumers: Mutex<HashMap<String, Arc<BaseConsumer<Context>>>>,
}

impl SinkOffsets {
    /// The sinks that Connect knows, or the one group `sink_group` where it is not empty. Does no IO.
    pub fn new(config: KafkaConfig, access: &Access, sink_group: &str) -> Result<Self> {
        let connect = if access.url.is_empty() { None } else { Some(Connect::with(access)?) };
        let inner = Arc::new(Inner::default());
        if !sink_group.is_empty() {
            let name = sink_group.strip_prefix("connect-").unwrap_or(sink_group).to_owned();
            let sink = SinkConnector { name, class: String::new(), group: sink_group.to_owned(), topics: Topics::of(Vec::new(), Some(".*")), state: String::new() };
            *lock(&inner.known) = Some((Instant::now(), vec![sink]));
            return Ok(Self { config, connect: None, inner });
        }
        Ok(Self { config, connect, inner })
    }

    /// What the sinks have surely applied of `table`, and the name of the one that is behind the others; None: no sink is known to read it.
    pub async fn applied(&self, table: &TableId) -> Result<Option<(String, Position)>> {
        let groups = self.groups().await?;
        let topic = topic_of(&self.config.topic_prefix, table);
        let this = self.clone();
        blocking(move || {
            let partitions = this.partitions(&topic)?;
            least(&groups, &topic, &partitions, |group| this.committed(group, &topic, &partitions))
        })
        .await
    }

    /// The position after the newest record of `table`.
    pub async fn end(&self, table: &TableId) -> Result<Position> {
        let topic: Arc<str> = topic_of(&self.config.topic_prefix, table).into();
        let this = self.clone();
        blocking(move || {
            let partitions = this.partitions(&topic)?;
            let ends = ends(&*this.asker()?, partitions.into_iter().map(|partition| (Arc::clone(&topic), partition)), ANSWER).map_err(|cause| this.away(cause))?;
            Ok(position(&topic, ends.into_iter().map(|(_, partition, end)| (partition, end))))
        })
        .await
    }

    fn partitions(&self, topic: &str) -> Result<Vec<i32>> {
        let metadata = self.asker()?.fetch_metadata(Some(topic), ANSWER).map_err(|cause| self.away(cause))?;
        Ok(metadata.topics().iter().filter(|found| found.error().is_none()).flat_map(|found| found.partitions()).map(|partition| partition.id()).collect())
    }

    /// A consumer for questions: nothing is committed, nothing is joined.
    fn asker(&self) -> Result<Arc<BaseConsumer<Context>>> {
        self.consumer(&self.config.group())
    }

    async fn groups(&self) -> Result<Vec<SinkConnector>> {
        let Some(connect) = &self.connect else { return Ok(lock(&self.inner.known).clone().map(|(_, groups)| groups).unwrap_or_default()) };
        if let Some((when, groups)) = &*lock(&self.inner.known)
            && when.elapsed() < KNOWN_FOR
        {
            return Ok(groups.clone());
        }
        let groups = connect.sinks().await?;
        *lock(&self.inner.known) = Some((Instant::now(), groups.clone()));
        Ok(groups)
    }

    /// The offsets that a group has committed of these partitions; None where it has none.
    fn committed(&self, group: &SinkConnector, topic: &str, partitions: &[i32]) -> Result<Vec<Option<u64>>> {
        let consumer = self.consumer(&group.group)?;
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            list.add_partition(topic, *partition);
        }
        let committed = consumer.committed_offsets(list, ANSWER).map_err(|cause| self.away(cause))?;
        let offset = |partition: i32| match committed.find_partition(topic, partition)?.offset() {
            Offset::Offset(offset) => u64::try_from(offset).ok(),
            _ => None,
        };
        Ok(partitions.iter().map(|partition| offset(*partition)).collect())
    }

    fn consumer(&self, group: &str) -> Result<Arc<BaseConsumer<Context>>> {
        if let Some(consumer) = lock(&self.inner.consumers).get(group) {
            return Ok(Arc::clone(consumer));
        }
        let consumer: BaseConsumer<Context> = self
            .config
            .consumer()
            .set("group.id", group)
            .create_with_context(Context::default())
            .map_err(|cause| Error::config("Kafka's consumer could not be built of its settings").caused_by(cause))?;
        let consumer = Arc::new(consumer);
        lock(&self.inner.consumers).insert(group.to_owned(), Arc::clone(&consumer));
        Ok(consumer)
    }

    fn away(&self, cause: KafkaError) -> Error {
        self.config.away(cause)
    }
}

/// The least that these groups have committed of one topic, and which of them that is.
fn least(groups: &[SinkConnector], topic: &str, partitions: &[i32], committed: impl Fn(&SinkConnector) -> Result<Vec<Option<u64>>>) -> Result<Option<(String, Position)>> {
    let mut least: Option<(String, Vec<u64>)> = None;
    for group in groups {
        let offsets = committed(group)?;
        // A group that has committed nothing of the topic reads another one, unless it is told to read this one.
        if offsets.iter().all(Option::is_none) && !group.topics.has(topic) {
            continue;
        }
        let offsets: Vec<u64> = offsets.into_iter().map(|offset| offset.unwrap_or(0)).collect();
        least = Some(match least {
            Some((name, least)) => {
                let name = if offsets.iter().zip(&least).any(|(offset, least)| offset < least) { group.name.clone() } else { name };
                (name, least.iter().zip(&offsets).map(|(a, b)| *a.min(b)).collect())
            }
            None => (group.name.clone(), offsets),
        });
    }
    let topic: Arc<str> = topic.into();
    Ok(least.map(|(name, offsets)| (name, position(&topic, partitions.iter().copied().zip(offsets)))))
}

fn position(topic: &Arc<str>, places: impl Iterator<Item = (i32, u64)>) -> Position {
    let mut partitions = Partitions::default();
    for (partition, next) in places.filter(|(_, next)| *next > 0) {
        partitions.set(topic, partition, PartitionAt { next, newest: None });
    }
    Position { partitions: Some(partitions), ..Position::default() }
}

/// The topic of a table as Debezium names it: what a topic's name cannot have becomes `_`.
pub fn topic_of(prefix: &str, table: &TableId) -> String {
    let name = format!("{prefix}.{}.{}", table.schema, table.table);
    name.encode_utf16().map(|unit| u8::try_from(unit).ok().filter(|unit| unit.is_ascii_alphanumeric() || b"._-".contains(unit)).map_or('_', char::from)).collect()
}

async fn blocking<T: Send + 'static>(ask: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(ask).await.map_err(|cause| Error::disconnected("a question to Kafka was given up").caused_by(cause))?
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str, topics: &[&str]) -> SinkConnector {
        let topics = Topics::of(topics.iter().map(|topic| (*topic).into()).collect(), None);
        SinkConnector { name: name.into(), class: String::new(), group: format!("connect-{name}"), topics, state: String::new() }
    }

    fn check(committed: &[(SinkConnector, Option<u64>)], expected: Option<(&str, &str)>) {
        let groups: Vec<SinkConnector> = committed.iter().map(|(group, _)| group.clone()).collect();
        let offset = |group: &SinkConnector| Ok(vec![committed.iter().find(|(known, _)| known.name == group.name).and_then(|(_, offset)| *offset)]);
        let said = least(&groups, "shop.inv.t", &[0], offset).expect("judged").map(|(name, position)| (name, position.to_string()));
        assert_eq!(said, expected.map(|(name, position)| (name.to_owned(), position.to_owned())), "{committed:?}");
    }

    #[test]
    fn the_sinks_have_applied_what_all_of_them_have_committed() {
        check(&[], None);
        check(&[(group("a", &[]), None)], None);
        check(&[(group("a", &["shop.inv.t"]), None)], Some(("a", "")));
        for (pattern, told) in [("shop\\..*", true), ("inv", false), ("(?<=look)behind", true)] {
            let group = SinkConnector { topics: Topics::of(Vec::new(), Some(pattern)), ..group("a", &[]) };
            check(&[(group, None)], told.then_some(("a", "")));
        }
        check(&[(group("a", &[]), Some(9))], Some(("a", "shop.inv.t/0:9")));
        check(&[(group("a", &[]), Some(15)), (group("other", &["x"]), None)], Some(("a", "shop.inv.t/0:15")));
        check(&[(group("a", &[]), Some(15)), (group("b", &[]), Some(12))], Some(("b", "shop.inv.t/0:12")));
    }

    #[test]
    fn a_tables_topic_has_no_letter_that_a_topic_cannot_have() {
        for (schema, table, expected) in [("inv", "orders", "shop.inv.orders"), ("a b", "x-é", "shop.a_b.x-_"), ("i", "\u{1f600}", "shop.i.__")] {
            assert_eq!(topic_of("shop", &TableId::new(schema, table)), expected);
        }
    }
}
