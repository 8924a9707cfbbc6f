//! Small real plugins for tests, and the conformance suite that every source and sink passes.
//!
//! They are plugins as any other: the agent cannot tell them from the ones it ships. Together they run a whole line without a server:
//!
//! ```
//! use std::time::Duration;
//! use plumbline_sdk::testing::{KeepSink, ListSource, Workload};
//! use plumbline_sdk::{Sink, Source};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let workload = Workload::random(1, 50);
//! let (mut source, mut sink) = (ListSource::new(workload.batches(7)), KeepSink::default());
//! sink.connect().await?;
//! source.connect(sink.position().await?.as_ref()).await?;
//! while let Some(batch) = source.next(Duration::from_millis(100)).await? {
//!     sink.write(&batch).await?;
//!     if let Some(position) = &batch.position {
//!         source.commit(position).await?;
//!     }
//! }
//! assert_eq!(sink.kept().counts(), workload.counts());
//! # Ok::<(), plumbline_sdk::Error>(())
//! # }).unwrap();
//! ```
//!
//! | plugin | what it does |
//! |---|---|
//! | [`ListSource`] | plays a list of batches, resumes from a position, grows while it plays |
//! | [`KeepSink`] | keeps what it is told, skips what it has |
//! | [`FaultySource`], [`FaultySink`] | wrap another one and fail on demand |
//! | [`LiteralReader`] | a side of a comparison, made of literal rows |
//! | [`Workload`] | transactions on two tables, in batches cut where you like, with what they must come to |
//!
//! [`conformance`] is the suite: give it a bench that opens your plugin.

pub mod conformance;
mod faulty;
mod keep;
mod list;
mod literal;
mod workload;

pub use faulty::{Call, Fault, Faults, FaultySink, FaultySource};
pub use keep::{KeepSink, Kept, KeptChange};
pub use list::{ListHandle, ListSource};
pub use literal::{LiteralReader, LiteralRow, LiteralSide, LiteralTable};
pub use workload::{Counts, Rows, Workload};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The content of a lock, also after a test panicked while it held it.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
