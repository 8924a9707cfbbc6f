//! Kafka and the connectors, read at a scrape from what was last seen of them.

use std::sync::Arc;

use plumbline_sdk::Position;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{ByReason, ConnectorName, ConnectorState, TaskState, TopicPartition, names, picture};
use crate::connectors::ConnectorView;

/// States of a connector; another one that Kafka Connect may have is `other`.
const STATES: [&str; 9] = ["running", "failed", "paused", "stopped", "starting", "missing", "removed", "taken", "purged"];
/// States of a task.
const TASK_STATES: [&str; 6] = ["running", "paused", "stopped", "failed", "unassigned", "restarting"];

/// What the reading of Kafka shows of itself.
#[derive(Debug, Clone, Default)]
pub struct KafkaLook {
    /// The offset after the newest record of each partition that is read here.
    pub ends: Vec<(Arc<str>, i32, u64)>,
    /// Records kept aside, by the class of reasons.
    pub aside: Vec<(&'static str, u64)>,
    /// How often the consumer group was divided anew.
    pub rebalances: u64,
}

/// Records not stored yet by topic and partition: at most `most` of them by name, the rest as one sum.
fn lags(look: &KafkaLook, applied: Option<&Position>, most: usize) -> Vec<(String, String, u64)> {
    let next = |topic: &Arc<str>, partition: i32| {
        let partitions = applied.and_then(|position| position.partitions.as_ref())?;
        partitions.iter().find(|(name, number, _)| *name == topic && *number == partition).map(|(_, _, at)| at.next)
    };
    let mut lags = Vec::new();
    let mut rest = None;
    for (topic, partition, end) in &look.ends {
        let lag = end.saturating_sub(next(topic, *partition).unwrap_or(0));
        if lags.len() < most { lags.push((topic.to_string(), partition.to_string(), lag)) } else { *rest.get_or_insert(0) += lag }
    }
    lags.extend(rest.map(|lag| ("_other".to_owned(), String::new(), lag)));
    lags
}

pub fn register(of: &mut Registry, look: &KafkaLook, applied: Option<&Position>, most: usize) {
    let lag = Family::<TopicPartition, Gauge>::default();
    for (topic, partition, records) in lags(look, applied, most) {
        lag.get_or_create(&TopicPartition { topic, partition }).set(i64::try_from(records).unwrap_or(i64::MAX));
    }
    names::KAFKA_CONSUMER_LAG.register(of, lag);
    let aside = Family::<ByReason, Counter>::default();
    for (class, number) in &look.aside {
        aside.get_or_create(&ByReason { reason: (*class).into() }).inc_by(*number);
    }
    names::KAFKA_RECORDS_ASIDE.register(of, aside);
    picture::counter(of, &names::KAFKA_REBALANCES, look.rebalances);
}

/// The word of `state` is 1, all others are 0.
fn one_of<const N: usize>(states: [&'static str; N], state: &str) -> impl Iterator<Item = (&'static str, i64)> {
    let now = state.to_ascii_lowercase();
    let known = states.contains(&now.as_str());
    states.into_iter().map(move |word| (word, i64::from(word == now))).chain((!known).then_some(("other", 1)))
}

/// Our connector, and the sinks that read its topics.
pub fn connectors(of: &mut Registry, view: &ConnectorView) {
    let (states, tasks, restarts) = (Family::<ConnectorState, Gauge>::default(), Family::<TaskState, Gauge>::default(), Family::<ConnectorName, Counter>::default());
    let all = std::iter::once((&view.name, &view.state)).chain(view.sinks.iter().map(|sink| (&sink.name, &sink.state)));
    for (connector, state) in all {
        for (word, is) in one_of(STATES, state) {
            states.get_or_create(&ConnectorState { connector: connector.clone(), state: word.into() }).set(is);
        }
    }
    for task in &view.tasks {
        for (word, is) in one_of(TASK_STATES, &task.state) {
            tasks.get_or_create(&TaskState { connector: view.name.clone(), task: task.id.to_string(), state: word.into() }).set(is);
        }
    }
    restarts.get_or_create(&ConnectorName { connector: view.name.clone() }).inc_by(view.restarts);
    names::CONNECTOR_STATE.register(of, states);
    names::CONNECTOR_TASK_STATE.register(of, tasks);
    names::CONNECTOR_RESTARTS.register(of, restarts);
}
