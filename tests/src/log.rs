//! Kafka's log as a test writes it: topics, records like Debezium's, transactions that stay open.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};

const WAIT: Duration = Duration::from_secs(30);
/// Larger than any record of a test.
const LARGEST: &str = "150000000";

/// One record to be written.
#[derive(Debug, Clone, Default)]
pub struct Written {
    /// Its key; None: it has none.
    pub key: Option<String>,
    /// Its value; None: a tombstone.
    pub value: Option<Vec<u8>>,
    /// The name of a header that it has.
    pub header: Option<&'static str>,
}

impl Written {
    /// A record with this value and the key `{"id":1}`.
    pub fn of(value: impl Into<Vec<u8>>) -> Self {
        Self { key: Some(r#"{"id":1}"#.into()), value: Some(value.into()), header: None }
    }
}

/// The way to one cluster.
pub struct Log {
    bootstrap: String,
    admin: AdminClient<DefaultClientContext>,
    producer: ThreadedProducer<DefaultProducerContext>,
}

impl Log {
    /// The cluster at this address.
    ///
    /// # Panics
    /// Where librdkafka does not accept it.
    pub fn at(bootstrap: &str) -> Self {
        let admin = client(bootstrap).create().expect("an admin client");
        let producer = client(bootstrap).set("enable.idempotence", "true").set("linger.ms", "2").set("queue.buffering.max.kbytes", "500000").create().expect("a producer");
        Self { bootstrap: bootstrap.to_owned(), admin, producer }
    }

    /// Makes a topic.
    ///
    /// # Panics
    /// Where it is there already, or cannot be made.
    pub async fn make(&self, topic: &str, partitions: i32) {
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1)).set("max.message.bytes", LARGEST);
        let made = self.admin.create_topics(&[new], &options()).await.expect("Kafka answers");
        assert!(made.iter().all(Result::is_ok), "{made:?}");
    }

    /// Removes a topic with its records.
    ///
    /// # Panics
    /// Where it is not there.
    pub async fn remove(&self, topic: &str) {
        let removed = self.admin.delete_topics(&[topic], &options()).await.expect("Kafka answers");
        assert!(removed.iter().all(Result::is_ok), "{removed:?}");
    }

    /// Gives a topic more partitions.
    ///
    /// # Panics
    /// Where Kafka refuses.
    pub async fn grow(&self, topic: &str, partitions: usize) {
        let grown = self.admin.create_partitions(&[NewPartitions::new(topic, partitions)], &options()).await.expect("Kafka answers");
        assert!(grown.iter().all(Result::is_ok), "{grown:?}");
    }

    /// Removes the records before this offset, as retention does.
    ///
    /// # Panics
    /// Where Kafka refuses.
    pub async fn forget(&self, topic: &str, partition: i32, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(before)).expect("an offset");
        self.admin.delete_records(&list, &options()).await.expect("Kafka answers");
    }

    /// Writes records in their order, and waits until the broker has them.
    ///
    /// # Panics
    /// Where it does not take them.
    pub fn write(&self, topic: &str, partition: i32, records: &[Written]) {
        for record in records {
            send(&self.producer, topic, partition, record);
        }
        self.producer.flush(WAIT).expect("the broker takes them");
    }

    /// Begins a transaction and writes these records in it; it stays open until [`Open::end`], or for ten minutes.
    ///
    /// # Panics
    /// Where the broker does not take them.
    pub fn begin(&self, topic: &str, partition: i32, records: &[Written]) -> Open {
        let producer: ThreadedProducer<DefaultProducerContext> =
            client(&self.bootstrap).set("transactional.id", format!("test-{topic}")).set("transaction.timeout.ms", "600000").create().expect("a producer");
        producer.init_transactions(WAIT).expect("the coordinator answers");
        producer.begin_transaction().expect("begun");
        for record in records {
            send(&producer, topic, partition, record);
        }
        producer.flush(WAIT).expect("the broker takes them");
        Open { producer }
    }
}

/// A transaction that is open.
pub struct Open {
    producer: ThreadedProducer<DefaultProducerContext>,
}

impl Open {
    /// Ends it: `true` commits it, `false` takes its records back.
    ///
    /// # Panics
    /// Where the coordinator refuses.
    pub fn end(self, commit: bool) {
        let ended = if commit { self.producer.commit_transaction(WAIT) } else { self.producer.abort_transaction(WAIT) };
        ended.expect("it ends");
    }
}

fn client(bootstrap: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", bootstrap).set("message.max.bytes", LARGEST);
    client
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(WAIT)).request_timeout(Some(WAIT))
}

fn send(producer: &ThreadedProducer<DefaultProducerContext>, topic: &str, partition: i32, written: &Written) {
    loop {
        let mut record: BaseRecord<'_, str, [u8]> = BaseRecord::to(topic).partition(partition);
        record.key = written.key.as_deref();
        record.payload = written.value.as_deref();
        record.headers = written.header.map(|name| OwnedHeaders::new().insert(Header { key: name, value: Some("{}") }));
        match producer.send(record) {
            Ok(()) => return,
            Err((rdkafka::error::KafkaError::MessageProduction(rdkafka::types::RDKafkaErrorCode::QueueFull), _)) => std::thread::sleep(Duration::from_millis(20)),
            Err((error, _)) => panic!("a record is not accepted: {error}"),
        }
    }
}

/// Writes what Debezium would of one table `(id INT, v INT)`: every change at a place of its own in the binlog, as if by one server.
#[derive(Debug, Clone)]
pub struct Changes {
    database: String,
    table: String,
    /// The next place in the binlog.
    pub pos: u64,
}

impl Changes {
    /// Changes of this table, from the beginning of a binlog.
    pub fn of(database: &str, table: &str) -> Self {
        Self { database: database.to_owned(), table: table.to_owned(), pos: 4 }
    }

    /// The topic, where the prefix is the database's name, as in the tests.
    pub fn topic(&self) -> String {
        format!("{0}.{0}.{1}", self.database, self.table)
    }

    /// `source` of a record at this place.
    pub fn source(&self, pos: u64, row: u64) -> String {
        format!(
            r#"{{"version":"3.6.1.Final","connector":"mysql","name":"{0}","ts_ms":1795440273452,"snapshot":"false","db":"{0}","sequence":null,"ts_us":1795440273452608,"table":"{1}","server_id":1,"gtid":null,"file":"binlog.000002","pos":{pos},"row":{row},"thread":16,"query":null}}"#,
            self.database, self.table
        )
    }

    /// A record with these images at this place; `null` is none.
    pub fn record(&self, op: &str, id: u64, before: &str, after: &str, source: &str) -> Written {
        let value = format!(r#"{{"before":{before},"after":{after},"source":{source},"transaction":null,"op":"{op}","ts_ms":1795440273500}}"#);
        Written { key: Some(format!(r#"{{"id":{id}}}"#)), value: Some(value.into_bytes()), header: None }
    }

    fn here(&mut self) -> String {
        self.pos += 100;
        self.source(self.pos, 0)
    }

    /// An insert.
    pub fn insert(&mut self, id: u64) -> Written {
        let source = self.here();
        self.record("c", id, "null", &row(id, 0), &source)
    }

    /// An update.
    pub fn update(&mut self, id: u64, v: u64) -> Written {
        let source = self.here();
        self.record("u", id, &row(id, v), &row(id, v + 1), &source)
    }

    /// A delete, and the tombstone after it.
    pub fn delete(&mut self, id: u64) -> [Written; 2] {
        let source = self.here();
        let delete = self.record("d", id, &row(id, 0), "null", &source);
        let tombstone = Written { key: delete.key.clone(), ..Written::default() };
        [delete, tombstone]
    }

    /// So many inserts, from this key on.
    pub fn inserts(&mut self, first: u64, count: u64) -> Vec<Written> {
        (first..first + count).map(|id| self.insert(id)).collect()
    }
}

/// A row of the table as JSON.
pub fn row(id: u64, v: u64) -> String {
    format!(r#"{{"id":{id},"v":{v}}}"#)
}
