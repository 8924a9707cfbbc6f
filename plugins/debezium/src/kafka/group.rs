//! Reading as one of several agents: the consumer group says which partitions, the store that the agents share says from where.
//!
//! The group's protocol is the eager one: at each change every member stores what it has, lets go of everything, and is told anew. That is a
//! moment of silence, and the order is easy to be sure of: a partition is claimed in the store before it is read, and what was read of it is
//! stored before it is let go of. Where a member was away for too long, its next write is refused by the store.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use plumbline_sdk::plugin::Group;
use plumbline_sdk::{Batch, Error, Result};
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;

use super::context::Decision;
use super::read::{Place, Reader};

/// What was read may take so long to be stored before the partitions are let go of.
pub(super) const STORED_WITHIN: Duration = Duration::from_secs(10);

/// This agent's membership, as the thread that reads uses it.
pub(super) struct Membership {
    pub group: Arc<dyn Group>,
    pub runtime: Handle,
    pub cluster: String,
    /// The topics that were subscribed to.
    pub topics: BTreeSet<Arc<str>>,
}

impl Reader {
    /// Asks the group for a share of all topics there are by now.
    pub(super) fn subscribe(&mut self, there: &BTreeSet<Place>) -> Result<()> {
        let topics: BTreeSet<Arc<str>> = there.iter().map(|(topic, _)| Arc::clone(topic)).collect();
        let Some(membership) = &mut self.membership else { return Ok(()) };
        if topics == membership.topics || topics.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
        self.consumer.subscribe(&names).map_err(|cause| Error::disconnected("the topics could not be subscribed to").caused_by(cause))?;
        membership.topics = topics;
        Ok(())
    }

    /// Does what the group has decided.
    pub(super) fn follow(&mut self, batches: &Sender<Result<Batch>>) -> Result<()> {
        while let Some(decision) = self.consumer.context().next() {
            match decision {
                Decision::Assigned(places) => self.take_over(places)?,
                Decision::Revoked => self.let_go(batches)?,
                Decision::Failed(code) if self.is_replaced() => return Err(self.replaced().caused_by(code)),
                Decision::Failed(code) => {
                    return Err(Error::disconnected(format!("the consumer group `{}` does not have this agent", self.config.group())).caused_by(code));
                }
            }
        }
        Ok(())
    }

    /// Whether another member of the same name has come: the group keeps the newer one.
    pub(super) fn is_replaced(&self) -> bool {
        matches!(self.consumer.client().fatal_error(), Some((RDKafkaErrorCode::FencedInstanceId, _)))
    }

    /// To connect again would throw the other one out in its turn, and so on for ever.
    pub(super) fn replaced(&self) -> Error {
        Error::fatal(format!(
            "another agent of the consumer group `{}` has the same `group.instance.id` (`KAFKA_GROUP_INSTANCE_ID`), `{}`, and has taken this one's place: \
             give each a name of its own, or none, and start this one again",
            self.config.group(),
            self.config.group_instance_id
        ))
    }

    fn take_over(&mut self, places: Vec<Place>) -> Result<()> {
        let Some(membership) = &self.membership else { return Ok(()) };
        let claimed = membership.runtime.block_on(membership.group.claim(&membership.cluster, &places))?;
        let mut list = TopicPartitionList::with_capacity(places.len());
        for ((topic, partition), at) in places.iter().zip(claimed) {
            let next = at.as_ref().map(|at| at.next);
            self.assembler.go_on(topic, *partition, at);
            if let Some(next) = next {
                self.check_range(topic, *partition, next)?;
            }
            let offset = next.and_then(|next| i64::try_from(next).ok()).map_or(Offset::Beginning, Offset::Offset);
            list.add_partition_offset(topic, *partition, offset).map_err(|cause| self.away(cause))?;
        }
        self.consumer.assign(&list).map_err(|cause| self.away(cause))?;
        tracing::info!(partitions = places.len(), "the group has given this agent its share");
        self.assigned = places.into_iter().collect();
        self.claim = None;
        Ok(())
    }

    /// Hands over what was read, waits until it is stored, and answers the group.
    fn let_go(&mut self, batches: &Sender<Result<Batch>>) -> Result<()> {
        if !self.consumer.assignment_lost() && self.hand_over(batches) {
            let started = Instant::now();
            while !self.is_stored() && started.elapsed() < STORED_WITHIN && !self.stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        if let Some(membership) = &self.membership {
            membership.group.release();
        }
        self.assigned.clear();
        self.claim = None;
        self.consumer.unassign().map_err(|cause| self.away(cause))
    }

    fn is_stored(&self) -> bool {
        let Some(membership) = &self.membership else { return true };
        self.assigned.iter().all(|(topic, partition)| self.assembler.next(topic, *partition).unwrap_or(0) <= membership.group.stored(topic, *partition).unwrap_or(0))
    }
}
