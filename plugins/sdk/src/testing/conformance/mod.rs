//! What every source, every sink and every history must do, as tests that any of them runs.
//!
//! Implement a bench ([`SourceBench`], [`SinkBench`], [`HistoryBench`]) that opens your plugin on a fresh log or store, and call
//! [`source`], [`sink`] or [`history`] from a test. They panic with one sentence for each promise that was not kept;
//! [`source_failures`], [`sink_failures`] and [`history_failures`] give the sentences.
//!
//! ```
//! use plumbline_sdk::testing::conformance::{self, SinkBench, Told};
//! use plumbline_sdk::testing::KeepSink;
//! use plumbline_sdk::{Result, Sink};
//!
//! #[derive(Default)]
//! struct Bench(KeepSink);
//!
//! #[async_trait::async_trait]
//! impl SinkBench for Bench {
//!     async fn fresh(&mut self) -> Result<()> {
//!         self.0 = KeepSink::default();
//!         Ok(())
//!     }
//!     async fn open(&mut self) -> Result<Box<dyn Sink>> {
//!         Ok(Box::new(self.0.clone()))
//!     }
//!     async fn differences(&mut self, told: &Told) -> Result<Vec<String>> {
//!         Ok(told.compare_counts(&self.0.kept().counts()))
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! conformance::sink(&mut Bench::default()).await;
//! # });
//! ```

mod history;
mod sink;
mod source;

pub use history::{HistoryBench, history_failures};
pub use sink::{SinkBench, Told, sink_failures};
pub use source::{SourceBench, shape_of, source_failures};

/// Checks a source; panics with all that it does not keep.
pub async fn source(bench: &mut dyn SourceBench) {
    passed("source", &source_failures(bench).await);
}

/// Checks a sink; panics with all that it does not keep.
pub async fn sink(bench: &mut dyn SinkBench) {
    passed("sink", &sink_failures(bench).await);
}

/// Checks a history, as a sink and as one that can be asked; panics with all that it does not keep.
pub async fn history(bench: &mut dyn HistoryBench) {
    passed("history", &history_failures(bench).await);
}

fn passed(kind: &str, failures: &[String]) {
    assert!(failures.is_empty(), "this {kind} does not keep {} of its promises:\n- {}", failures.len(), failures.join("\n- "));
}

/// The outcome of one check: what was wrong.
type Checked = std::result::Result<(), String>;

/// An error of the plugin, as a sentence.
fn said(doing: &'static str) -> impl Fn(crate::Error) -> String {
    move |error| format!("{doing} failed: {}", error.chain())
}

fn ensure(kept: bool, otherwise: impl FnOnce() -> String) -> Checked {
    if kept { Ok(()) } else { Err(otherwise()) }
}

/// Keeps the name of a check with what it found.
fn note(failures: &mut Vec<String>, check: &str, outcome: Checked) {
    if let Err(what) = outcome {
        failures.push(format!("{check}: {what}"));
    }
}

#[cfg(test)]
mod tests;
