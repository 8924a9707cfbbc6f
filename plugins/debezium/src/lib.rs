//! Pipelines with Debezium: the connector's care over Kafka Connect, its topics as a source of changes.
//!
//! Pure, without async, clock and network: [`envelope`] (what a record says), [`cells`] (its rows as values),
//! [`connector::decide`] (what a connector needs).
#![warn(missing_docs)]

pub mod cells;
pub mod connect;
pub mod connector;
pub mod envelope;
mod shape;

pub use connector::{Connector, ConnectorConfig, Signals};
pub use shape::{Field, Shape};
