//! Pipelines with Debezium: the connector's care over Kafka Connect, its topics as a source of changes.
//!
//! Pure, without async, clock and network: [`envelope`] (what a record says), [`cells`] (its rows as values).
#![warn(missing_docs)]

pub mod cells;
pub mod envelope;
mod shape;

pub use shape::{Field, Shape};
