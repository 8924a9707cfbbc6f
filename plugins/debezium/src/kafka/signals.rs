//! Signals to a connector, through Kafka.

use std::time::Duration;

use async_trait::async_trait;
use plumbline_sdk::{Error, Result};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{FutureProducer, FutureRecord};

use super::KafkaConfig;
use crate::connector::Signals;

const WAIT: Duration = Duration::from_secs(15);

/// Writes signals to a topic of Kafka. Connects with the first one.
pub struct KafkaSignals {
    config: KafkaConfig,
    producer: Option<FutureProducer>,
}

impl KafkaSignals {
    /// Signals through the brokers of this source.
    pub fn new(config: KafkaConfig) -> Self {
        Self { config, producer: None }
    }

    /// Sees to it that the topic is there. It has one partition: the connector reads no other.
    async fn make(&self, topic: &str) -> Result<()> {
        let failed = |cause| Error::disconnected(format!("the topic `{topic}` could not be made")).caused_by(cause);
        let admin: AdminClient<DefaultClientContext> = self.config.client().create().map_err(failed)?;
        let options = AdminOptions::new().operation_timeout(Some(WAIT)).request_timeout(Some(WAIT));
        let made = admin.create_topics(&[NewTopic::new(topic, 1, TopicReplication::Fixed(-1))], &options).await.map_err(failed)?;
        match made.into_iter().next() {
            None | Some(Ok(_)) | Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
            Some(Err((_, code))) => Err(Error::rejected(format!("the topic `{topic}` could not be made: {code}. Make it with one partition, or allow it")).caused_by(code)),
        }
    }
}

#[async_trait]
impl Signals for KafkaSignals {
    async fn send(&mut self, topic: &str, key: &str, value: &str) -> Result<()> {
        if self.producer.is_none() {
            self.make(topic).await?;
            let mut client = self.config.client();
            client.set("enable.idempotence", "true").set("message.timeout.ms", "15000");
            self.producer = Some(client.create().map_err(|cause| Error::config("Kafka's producer could not be built").caused_by(cause))?);
        }
        let Some(producer) = &self.producer else { return Err(Error::disconnected("Kafka's producer is not there")) };
        match producer.send(FutureRecord::to(topic).key(key).payload(value).partition(0), WAIT).await {
            Ok(_) => Ok(()),
            Err((cause, _)) => Err(Error::disconnected(format!("a signal to the topic `{topic}` was not taken")).caused_by(cause)),
        }
    }
}
