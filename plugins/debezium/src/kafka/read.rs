//! The thread that reads: which partitions, from where, and what their errors mean.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plumbline_sdk::plugin::Group;
use plumbline_sdk::position::Partitions;
use plumbline_sdk::{Batch, Error, Event, Health, HealthState, Position, Result};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::mpsc::Sender;

use super::KafkaConfig;
use super::context::Context;
use super::look::Look;
use super::group::Membership;
use super::whole::{Claim, StoredPlace, StoredPlaces};
use crate::envelope::Half;
use crate::ingest::{Aside, Assembler, Lookup, Record, Ways};

/// A batch is handed over after so long.
const LINGER: Duration = Duration::from_millis(5);
/// The thread looks up from waiting for records so often.
const LOOK_UP: Duration = Duration::from_millis(100);
/// Brokers have so long to answer a question.
const ANSWER: Duration = Duration::from_secs(15);
/// News of records kept aside come at most so often.
const NEWS: Duration = Duration::from_secs(10);

pub(super) type Place = (Arc<str>, i32);

/// What the thread owns.
pub(super) struct Reader {
    pub(super) config: KafkaConfig,
    pub(super) consumer: Arc<BaseConsumer<Context>>,
    pub(super) assembler: Assembler,
    pub(super) assigned: BTreeSet<Place>,
    pub(super) stop: Arc<AtomicBool>,
    aside: Arc<Aside>,
    refreshed: Instant,
    /// What was last said of health, and when.
    told: (Vec<String>, Option<Instant>),
    /// What is odd about the topics: partitions that were added, topics that are gone.
    oddities: Vec<String>,
    /// The partitions that there were at the last look, whoever reads them.
    known: BTreeSet<Place>,
    /// The place that Connect stored for the connector; None: nobody tells.
    stored: Option<StoredPlaces>,
    /// What must be read for it to hold.
    pub(super) claim: Option<Claim>,
    /// None: this agent alone reads all partitions.
    pub(super) membership: Option<Membership>,
}

/// What a reader is made of.
pub(super) struct Parts {
    pub config: KafkaConfig,
    pub lookup: Lookup,
    pub ways: Ways,
    pub aside: Arc<Aside>,
    pub look: Arc<Look>,
    pub stored: Option<StoredPlaces>,
    pub group: Option<(Arc<dyn Group>, Handle)>,
    pub stop: Arc<AtomicBool>,
}

impl Reader {
    /// Connects, checks that the log still has what comes after `position`, and assigns all partitions, or asks the group for a share of them.
    pub(super) fn connect(parts: Parts, mut position: Position) -> Result<Self> {
        let Parts { config, lookup, ways, aside, look, stored, group, stop } = parts;
        let consumer: BaseConsumer<Context> =
            config.consumer().create_with_context(Context::shown_by(look)).map_err(|cause| Error::config("Kafka's consumer could not be built of its settings").caused_by(cause))?;
        let consumer = Arc::new(consumer);
        let there = partitions(&consumer, &config)?;
        let cluster = consumer.client().fetch_cluster_id(ANSWER).unwrap_or_default();
        if !position.server.is_empty() && !cluster.is_empty() && position.server != cluster {
            return Err(Error::fatal(format!(
                "the brokers at `{}` are of the cluster `{cluster}`, the stored offsets of `{}`: offsets mean nothing in another cluster. \
                 Give the address of the former, or begin anew with an empty data folder",
                config.bootstrap_servers, position.server
            )));
        }
        position.server.clone_from(&cluster);
        position.partitions.get_or_insert_default();
        if group.is_some() {
            // Where each partition was read to is asked when it is claimed.
            position.partitions = Some(Partitions::default());
        }
        let mut reader = Self {
            assembler: Assembler::new(lookup, ways, position, Arc::clone(&aside)),
            config,
            consumer,
            assigned: BTreeSet::new(),
            stop,
            aside,
            refreshed: Instant::now(),
            told: (Vec::new(), None),
            oddities: Vec::new(),
            known: BTreeSet::new(),
            stored,
            claim: None,
            membership: group.map(|(group, runtime)| Membership { group, runtime, cluster, topics: BTreeSet::new() }),
        };
        // Of topics without records, too.
        reader.assembler.say_position();
        if reader.membership.is_some() {
            reader.subscribe(&there)?;
        } else {
            reader.assign(there, true)?;
        }
        Ok(reader)
    }

    pub(super) fn consumer(&self) -> Arc<BaseConsumer<Context>> {
        Arc::clone(&self.consumer)
    }

    /// Reads until it is stopped, nobody listens any more, or something is wrong.
    pub(super) fn run(mut self, batches: &Sender<Result<Batch>>) {
        while !self.stop.load(Ordering::Relaxed) && !batches.is_closed() {
            let read = self.read();
            self.look_at_claim();
            // What was read before an error came is good.
            if !self.hand_over(batches) {
                return;
            }
            let read = read.and_then(|()| self.follow(batches));
            if let Err(error) = read {
                let _ = batches.blocking_send(Err(error));
                return;
            }
            if let Some(news) = self.news()
                && batches.blocking_send(Ok(news)).is_err()
            {
                return;
            }
        }
    }

    /// Hands over what was read; false: nobody listens any more.
    pub(super) fn hand_over(&mut self, batches: &Sender<Result<Batch>>) -> bool {
        self.assembler.is_empty() || batches.blocking_send(Ok(self.assembler.batch())).is_ok()
    }

    /// Reads what fits one batch, and looks for new partitions now and then.
    fn read(&mut self) -> Result<()> {
        if self.refreshed.elapsed() >= Duration::from_millis(self.config.metadata_refresh_ms) {
            self.refreshed = Instant::now();
            match self.partitions() {
                Ok(there) => self.assign(there, false)?,
                Err(error) => tracing::warn!(error = error.chain(), "topics could not be looked for; tried again"),
            }
        }
        let mut deadline: Option<Instant> = None;
        while !self.assembler.is_full() {
            let wait = deadline.map_or(LOOK_UP, |deadline| deadline.saturating_duration_since(Instant::now()));
            let consumer = Arc::clone(&self.consumer);
            match consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    self.take(&message);
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + LINGER);
                    if Instant::now() >= deadline {
                        break;
                    }
                }
                Some(Err(cause)) => self.judge(cause)?,
            }
        }
        Ok(())
    }

    /// Takes up a newly stored place, and tells when the topics are known to be whole through it.
    fn look_at_claim(&mut self) {
        let fresh = self.stored.as_mut().filter(|stored| self.claim.is_none() && stored.has_changed().unwrap_or(false));
        if let Some(place) = fresh.and_then(|stored| stored.borrow_and_update().clone()) {
            match self.claimed(place) {
                Ok(claim) => self.claim = Some(claim),
                Err(error) => tracing::debug!(error = error.chain(), "the topics' ends are not known; the next stored place is looked at again"),
            }
        }
        if let Some(claim) = self.claim.take_if(|claim| claim.holds(|topic, partition| self.assembler.next(topic, partition))) {
            self.assembler.whole_through(&claim.place.file, claim.place.at);
        }
    }

    fn claimed(&mut self, place: StoredPlace) -> Result<Claim> {
        // A topic that was made a moment ago holds records too.
        let there = self.partitions()?;
        self.assign(there, false)?;
        Claim::of(&self.consumer, place, self.assigned.iter().cloned(), ANSWER).map_err(|cause| self.away(cause))
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) {
        let Ok(offset) = u64::try_from(message.offset()) else { return };
        let half = message.headers().map_or(Half::Whole, |headers| Half::of_headers(headers.iter().map(|header| header.key)));
        let record = Record { topic: message.topic(), partition: message.partition(), offset, key: message.key(), value: message.payload(), half };
        let (stop, limit) = (&self.stop, Duration::from_millis(self.config.table_wait_ms));
        self.assembler.take(&record, &|ask| {
            let started = Instant::now();
            loop {
                if ask() {
                    return true;
                }
                if started.elapsed() >= limit || stop.load(Ordering::Relaxed) {
                    return false;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
    }

    /// The partitions that the cluster has of the topics that are read.
    fn partitions(&self) -> Result<BTreeSet<Place>> {
        partitions(&self.consumer, &self.config)
    }

    /// Reads these partitions: known ones go on, unknown ones begin at their beginning. `first`: after connecting, where the log is checked.
    fn assign(&mut self, there: BTreeSet<Place>, first: bool) -> Result<()> {
        self.notice(&there);
        if self.membership.is_some() {
            return self.subscribe(&there);
        }
        if first {
            for (topic, partition) in &there {
                if let Some(next) = self.assembler.next(topic, *partition) {
                    self.check_range(topic, *partition, next)?;
                }
            }
        } else if there == self.assigned {
            return Ok(());
        }
        let mut list = TopicPartitionList::with_capacity(there.len());
        for (topic, partition) in &there {
            let offset = self.assembler.next(topic, *partition).and_then(|next| i64::try_from(next).ok()).map_or(Offset::Beginning, Offset::Offset);
            list.add_partition_offset(topic, *partition, offset).map_err(|cause| self.away(cause))?;
        }
        self.consumer.assign(&list).map_err(|cause| self.away(cause))?;
        self.assigned = there;
        Ok(())
    }

    /// Notes which partitions came to topics that were there before, and which are gone.
    fn notice(&mut self, there: &BTreeSet<Place>) {
        for (topic, partition) in there.difference(&self.known) {
            let before = |lower: i32| self.known.contains(&(Arc::clone(topic), lower)) || self.assembler.next(topic, lower).is_some();
            if self.assembler.next(topic, *partition).is_none() && (0..*partition).any(before) {
                self.oddities.push(format!(
                    "the topic `{topic}` got the partition {partition}: changes of one row may now lie in two partitions, and their order is not known where they do"
                ));
            }
        }
        for (topic, partition) in self.known.difference(there) {
            self.oddities.push(format!("the partition {partition} of topic `{topic}` is gone"));
        }
        self.known.clone_from(there);
    }

    /// The log must have the record `next`, or end there.
    pub(super) fn check_range(&self, topic: &str, partition: i32, next: u64) -> Result<()> {
        let (low, high) = self.consumer.fetch_watermarks(topic, partition, ANSWER).map_err(|cause| self.away(cause))?;
        let (low, high) = (u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0));
        if next < low {
            return Err(Error::fatal(format!(
                "DATA_LOST [{next}, {low}): the topic `{topic}`, partition {partition}, begins at {low} now, so the records from {next} on were removed before they were read. \
                 Compare all tables; keep topics longer (`retention.ms`, `retention.bytes`); then begin anew with an empty data folder"
            )));
        }
        if next > high {
            return Err(Error::fatal(format!(
                "the topic `{topic}`, partition {partition}, ends at {high}, before the stored offset {next}: it was made anew, or lost its end. \
                 Compare all tables, then begin anew with an empty data folder"
            )));
        }
        Ok(())
    }

    /// What an error of the log means.
    fn judge(&mut self, cause: KafkaError) -> Result<()> {
        use RDKafkaErrorCode as Code;
        let code = cause.rdkafka_error_code();
        if self.is_replaced() {
            return Err(self.replaced().caused_by(cause));
        }
        match code {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => {
                for (topic, partition) in &self.assigned {
                    if let Some(next) = self.assembler.next(topic, *partition) {
                        self.check_range(topic, *partition, next)?;
                    }
                }
                // A log that lost its beginning before its first record was read.
                Err(Error::fatal("DATA_LOST: Kafka has not the records that were asked for, and says no range").caused_by(cause))
            }
            Some(Code::BadMessage | Code::InvalidMessage | Code::BadCompression) => {
                Err(Error::fatal("a record of Kafka is corrupt (its checksum or compression is wrong): the position stays before it").caused_by(cause))
            }
            Some(Code::Authentication | Code::SaslAuthenticationFailed | Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::ClusterAuthorizationFailed) => {
                Err(Error::config(format!("Kafka at `{}` refuses us: give the user the right to read the topics", self.config.bootstrap_servers)).caused_by(cause))
            }
            Some(Code::AllBrokersDown) => Err(self.away(cause)),
            _ if matches!(cause, KafkaError::MessageConsumptionFatal(_)) => Err(self.away(cause)),
            _ => {
                tracing::warn!(error = %cause, "kafka: an error that passes by itself");
                Ok(())
            }
        }
    }

    pub(super) fn away(&self, cause: KafkaError) -> Error {
        self.config.away(cause)
    }

    /// The state of the records, when it has changed.
    fn news(&mut self) -> Option<Batch> {
        if self.told.1.is_some_and(|told| told.elapsed() < NEWS) {
            return None;
        }
        let mut messages = self.oddities.clone();
        messages.extend(self.consumer.context().stalled(|place| self.assigned.contains(place)));
        messages.truncate(20);
        let total = self.aside.total();
        if total > 0 {
            let kept = self.aside.newest();
            let last = kept.last().map(|kept| format!("; the last, `{}` partition {} offset {}: {}", kept.topic, kept.partition, kept.offset, kept.reason));
            messages.push(format!("{total} records could not be taken{}", last.unwrap_or_default()));
        }
        if self.assigned.is_empty() && self.membership.as_ref().is_none_or(|membership| membership.topics.is_empty()) {
            messages.push("no topic of the connector is there yet".into());
        }
        if self.assembler.approximate() {
            messages.push("transactions are compressed: after a restart of the connector, changes may be counted twice".into());
        }
        if messages == self.told.0 && self.told.1.is_some() {
            return None;
        }
        self.told = (messages.clone(), Some(Instant::now()));
        let state = if messages.is_empty() { HealthState::Up } else { HealthState::Warning };
        Some(Batch::news(vec![Event::Health(Health { component: "kafka".into(), state, messages })]))
    }
}

/// The partitions that the cluster has of the topics that are read.
fn partitions(consumer: &BaseConsumer<Context>, config: &KafkaConfig) -> Result<BTreeSet<Place>> {
    let metadata = consumer.fetch_metadata(None, ANSWER).map_err(|cause| config.away(cause))?;
    let topics = metadata.topics().iter().filter(|topic| topic.error().is_none() && config.wants(topic.name()));
    Ok(topics.flat_map(|topic| topic.partitions().iter().map(|partition| (Arc::from(topic.name()), partition.id()))).collect())
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.consumer.context().close();
    }
}
