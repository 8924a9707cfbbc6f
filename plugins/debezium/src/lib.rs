//! Pipelines with Debezium: the connector's care over Kafka Connect, its topics as a source of changes.
//!
//! Pure, without async, clock and network: [`envelope`] (what a record says), [`cells`] (its rows as values),
//! `json` (its text, walked in one pass), [`newest`] (which records came before), [`connector::decide`] (what a connector needs).
#![warn(missing_docs)]

pub mod cells;
pub mod connect;
pub mod connector;
pub mod envelope;
pub mod ingest;
mod json;
pub mod kafka;
pub mod newest;
mod shape;

pub use connect::Access;
pub use connector::{Connector, ConnectorConfig, Shown, Signals};
pub use ingest::{Aside, Kept, Lookup};
pub use kafka::{KafkaCdc, KafkaConfig, KafkaSignals, Look, SinkOffsets, StoredPlace, StoredPlaces, topic_of};
pub use shape::{Field, Shape};
