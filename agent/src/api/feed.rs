//! Where changes come from when they come by Kafka: its partitions, the agents that share them, the connector. None of it asks anybody.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use plumbline_sdk::plugin::Member;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::App;
use crate::clock;

/// One of several agents.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct AgentOfGroup {
    /// New at every start.
    id: String,
    /// Where its API listens.
    address: String,
    /// Since when it is a member.
    since: String,
    /// How many partitions it reads.
    partitions: u64,
    /// Whether it cares for the connector.
    leads: bool,
    /// Whether it is the one that answers.
    this: bool,
}

impl From<Member> for AgentOfGroup {
    fn from(member: Member) -> Self {
        let Member { id, address, since_micros, partitions, leads, this } = member;
        Self { id, address, since: clock::text(since_micros), partitions, leads, this }
    }
}

/// How far a partition was read.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct PartitionPlace {
    /// Its topic.
    pub topic: String,
    partition: i32,
    /// The table whose changes it brings; null: no watched one.
    pub table: Option<String>,
    /// The offset of the next record.
    next_offset: u64,
    /// Records that are not stored yet; null: another agent reads it, or its end was not heard of yet.
    pub lag_records: Option<u64>,
    /// The agent that reads it, where several share the partitions.
    owner: Option<String>,
}

/// The agents that share the partitions, the oldest first; empty where this one is alone.
pub fn agents(app: &App) -> Vec<AgentOfGroup> {
    app.shared.membership.iter().flat_map(|membership| membership.members()).map(Into::into).collect()
}

/// How far each partition was read and stored, by name.
pub fn partitions(app: &App) -> Vec<PartitionPlace> {
    let ends: HashMap<(Arc<str>, i32), u64> = app.metrics.kafka().map(|look| look.ends).unwrap_or_default().into_iter().map(|(topic, partition, end)| ((topic, partition), end)).collect();
    let picture = app.shared.picture();
    let tables: BTreeMap<String, String> = match app.shared.topic.get() {
        Some(topic) => picture.state.present().map(|(id, _)| (topic(id), id.to_string())).collect(),
        None => BTreeMap::new(),
    };
    let stored = picture.state.applied.as_ref().and_then(|position| position.partitions.as_ref());
    let place = |topic: String, partition: i32, next_offset: u64, owner: Option<String>| {
        let end = ends.get(&(topic.as_str().into(), partition));
        PartitionPlace { table: tables.get(&topic).cloned(), lag_records: end.map(|end| end.saturating_sub(next_offset)), topic, partition, next_offset, owner }
    };
    match &app.shared.membership {
        Some(membership) => {
            // What is stored here is newer than what was said when the agents met.
            let next = |topic: &str, partition, said: Option<u64>| stored.and_then(|stored| stored.get(topic, partition)).map(|at| at.next).max(said).unwrap_or(0);
            membership.partitions().into_iter().map(|known| place(known.topic.clone(), known.partition, next(&known.topic, known.partition, known.next), Some(known.owner))).collect()
        }
        None => stored.into_iter().flat_map(plumbline_sdk::position::Partitions::iter).map(|(topic, partition, at)| place(topic.to_string(), partition, at.next, None)).collect(),
    }
}
