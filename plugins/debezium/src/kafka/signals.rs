//! Signals to a connector, and what it tells of itself, through Kafka.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use plumbline_sdk::{Error, Result};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};

use super::KafkaConfig;
use crate::connector::Signals;

const WAIT: Duration = Duration::from_secs(15);
/// The consumer looks up from waiting for records so often.
const LOOK_UP: Duration = Duration::from_millis(50);

/// Writes to topics of Kafka and reads from them. Connects with the first call.
pub struct KafkaSignals {
    config: KafkaConfig,
    producer: Option<FutureProducer>,
    listener: Option<Arc<Listener>>,
}

/// Who listens to one topic.
struct Listener {
    topic: String,
    consumer: BaseConsumer,
}

impl Listener {
    /// What came since the last call: up to the topic's end as it is now.
    fn heard(&self) -> std::result::Result<Vec<(u64, Vec<u8>)>, KafkaError> {
        let (_, end) = self.consumer.fetch_watermarks(&self.topic, 0, WAIT)?;
        let mut heard = Vec::new();
        let deadline = Instant::now() + WAIT;
        while self.next()? < end && Instant::now() < deadline {
            let Some(message) = self.consumer.poll(LOOK_UP).transpose()? else { continue };
            if let (Ok(offset), Some(value)) = (u64::try_from(message.offset()), message.payload()) {
                heard.push((offset, value.to_vec()));
            }
        }
        Ok(heard)
    }

    /// The offset after the last record that was taken.
    fn next(&self) -> std::result::Result<i64, KafkaError> {
        let position = self.consumer.position()?;
        Ok(position.find_partition(&self.topic, 0).and_then(|place| place.offset().to_raw()).unwrap_or(0))
    }
}

impl KafkaSignals {
    /// Signals through the brokers of this source.
    pub fn new(config: KafkaConfig) -> Self {
        Self { config, producer: None, listener: None }
    }

    fn listener(&mut self, topic: &str) -> std::result::Result<Arc<Listener>, KafkaError> {
        if let Some(listener) = self.listener.as_ref().filter(|listener| listener.topic == topic) {
            return Ok(Arc::clone(listener));
        }
        let mut client = self.config.client();
        client.set("group.id", format!("{}-notifications", self.config.group())).set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
        let consumer: BaseConsumer = client.create()?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Beginning)?;
        consumer.assign(&list)?;
        let listener = Arc::new(Listener { topic: topic.to_owned(), consumer });
        self.listener = Some(Arc::clone(&listener));
        Ok(listener)
    }

    /// Asks the listener of a topic, on a thread that may wait.
    async fn ask<T: Send + 'static>(&mut self, topic: &str, question: impl FnOnce(&Listener) -> std::result::Result<T, KafkaError> + Send + 'static) -> Result<T> {
        let failed = |cause: KafkaError| Error::disconnected(format!("the topic `{topic}` could not be read")).caused_by(cause);
        let listener = self.listener(topic).map_err(failed)?;
        match tokio::task::spawn_blocking(move || question(&listener)).await {
            Ok(answer) => answer.map_err(failed),
            Err(cause) => Err(Error::disconnected(format!("the topic `{topic}` was not read to its end")).caused_by(cause)),
        }
    }
}

#[async_trait]
impl Signals for KafkaSignals {
    async fn make(&mut self, topics: &[String]) -> Result<()> {
        let failed = |cause| Error::disconnected(format!("the topics `{}` could not be made", topics.join("`, `"))).caused_by(cause);
        let admin: AdminClient<DefaultClientContext> = self.config.client().create().map_err(failed)?;
        let options = AdminOptions::new().operation_timeout(Some(WAIT)).request_timeout(Some(WAIT));
        // One partition: the connector reads no other.
        let wished: Vec<NewTopic<'_>> = topics.iter().map(|topic| NewTopic::new(topic, 1, TopicReplication::Fixed(-1)).set("retention.ms", "-1")).collect();
        for made in admin.create_topics(&wished, &options).await.map_err(failed)? {
            match made {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    return Err(Error::rejected(format!("the topic `{topic}` could not be made: {code}. Make it with one partition, or allow it")).caused_by(code));
                }
            }
        }
        Ok(())
    }

    async fn send(&mut self, topic: &str, key: &str, value: &str) -> Result<()> {
        let producer = match &self.producer {
            Some(producer) => producer,
            None => {
                let mut client = self.config.client();
                client.set("enable.idempotence", "true").set("message.timeout.ms", "15000");
                self.producer.insert(client.create().map_err(|cause| Error::config("Kafka's producer could not be built").caused_by(cause))?)
            }
        };
        match producer.send(FutureRecord::to(topic).key(key).payload(value).partition(0), WAIT).await {
            Ok(_) => Ok(()),
            Err((cause, _)) => Err(Error::disconnected(format!("a signal to the topic `{topic}` was not taken")).caused_by(cause)),
        }
    }

    async fn end(&mut self, topic: &str) -> Result<u64> {
        let (_, end) = self.ask(topic, |listener| listener.consumer.fetch_watermarks(&listener.topic, 0, WAIT)).await?;
        Ok(u64::try_from(end).unwrap_or(0))
    }

    async fn heard(&mut self, topic: &str) -> Result<Vec<(u64, Vec<u8>)>> {
        self.ask(topic, Listener::heard).await
    }
}
