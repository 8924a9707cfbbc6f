//! The words and the contracts of Plumbline, for anyone who writes a plugin.
//!
//! A plugin is a [`Source`] (where changes come from), a [`Sink`] (where they go) or a [`Validator`] (what judges them).
//! The agent runs one line:
//!
//! ```text
//! source.next() -> Batch -> sink.write(batch) for every sink -> source.commit(position)
//! ```
//!
//! Absent on purpose: this crate knows no driver, no web stack, no clock of its own.
#![warn(missing_docs)]

pub mod canon;
pub mod error;
pub mod event;
pub mod finding;
pub mod gtid;
pub mod pattern;
pub mod plugin;
pub mod position;
pub mod read;
pub mod secret;
pub mod table;
#[cfg(feature = "testing")]
pub mod testing;
pub mod trace;
pub mod value;

pub use error::{Error, ErrorKind, Result};
pub use event::{Batch, ChangeEvent, CopyMark, Event, Health, HealthState, Op, SchemaChange, SchemaChangeKind, TransactionMark};
pub use finding::{Finding, Verdict};
pub use gtid::{Gtid, GtidSet, Sid};
pub use plugin::{Applier, CheckBatch, Findings, History, Pair, Plugin, Sink, Source, Validator, Wants};
pub use position::{Coordinate, Partial, Position, TxnId};
pub use read::{KeyRange, ReadColumn, ReadPlan, Reader, RowBlock, SideTable, TargetColumn, TargetTable, View};
pub use secret::Secret;
pub use table::{Column, ColumnType, TableId, TableSchema};
pub use trace::{TraceId, TraceIds};
pub use value::{Date, DateTime, Row, RowWriter, ValueRef};
