//! What librdkafka says of itself: into our logs, and, of a group, to the thread that reads.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rdkafka::ClientContext;
use rdkafka::Statistics;
use rdkafka::TopicPartitionList;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;

use super::look::Look;
use super::read::Place;
use super::stable::Stable;

/// What a group decides of this member, in order.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// These are to be read from now on, and no others.
    Assigned(Vec<(Arc<str>, i32)>),
    /// Nothing is to be read any more.
    Revoked,
    /// The group does not have this member.
    Failed(RDKafkaErrorCode),
}

/// Passes on logs, errors and decisions.
#[derive(Debug, Clone, Default)]
pub(super) struct Context {
    look: Arc<Look>,
    decisions: Arc<Mutex<VecDeque<Decision>>>,
    closing: Arc<AtomicBool>,
    stable: Arc<Mutex<Stable>>,
}

impl Context {
    /// Shows there what the client says.
    pub fn shown_by(look: Arc<Look>) -> Self {
        Self { look, ..Self::default() }
    }
    /// Nobody takes up decisions any more: the consumer is about to leave its group.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
    }
    /// The oldest decision that was not taken up yet.
    pub fn next(&self) -> Option<Decision> {
        self.decisions.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
    /// What is to be said of partitions that look idle and are not.
    pub fn stalled(&self, reads: impl Fn(&Place) -> bool) -> Vec<String> {
        self.stable.lock().unwrap_or_else(PoisonError::into_inner).stalled(Instant::now(), reads)
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
                tracing::warn!(facility, "kafka: {message}");
            }
            _ => tracing::debug!(facility, "kafka: {message}"),
        }
    }
    fn stats_raw(&self, statistics: &[u8]) {
        let Ok(statistics) = serde_json::from_slice::<Statistics>(statistics) else {
            tracing::debug!("the client's statistics are of another form than known");
            return;
        };
        self.look.take(&statistics);
        let mut stable = self.stable.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        for (name, topic) in statistics.topics {
            let name: Arc<str> = name.into();
            // Number -1 stands for what has no partition yet.
            for (number, partition) in topic.partitions.into_iter().filter(|(number, _)| *number >= 0) {
                stable.see((Arc::clone(&name), number), partition.ls_offset, partition.hi_offset, now);
            }
        }
    }
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(%error, "kafka: {reason}");
    }
}

impl ConsumerContext for Context {
    /// Only noted: the thread that reads claims the partitions first, or stores what it has of them, and then answers the group.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        if self.closing.load(Ordering::Relaxed) {
            // The group waits for an answer, and the consumer's end for the group.
            let _ = consumer.unassign();
            return;
        }
        self.look.rebalanced();
        let decision = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                Decision::Assigned(partitions.elements().iter().map(|element| (Arc::from(element.topic()), element.partition())).collect())
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => Decision::Revoked,
            other => Decision::Failed(other.into()),
        };
        self.decisions.lock().unwrap_or_else(PoisonError::into_inner).push_back(decision);
    }
}
