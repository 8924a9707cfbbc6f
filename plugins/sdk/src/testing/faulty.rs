//! Plugins that fail on demand.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::locked;
use crate::error::{Error, ErrorKind, Result};
use crate::event::Batch;
use crate::plugin::{Sink, Source};
use crate::position::Position;

/// A method of a source or sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// `connect`.
    Connect,
    /// `position`, of a sink.
    Position,
    /// `next`, of a source.
    Next,
    /// `write`, of a sink.
    Write,
    /// `commit`, of a source.
    Commit,
    /// `close`.
    Close,
}

/// One failure.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// Which method fails.
    pub call: Call,
    /// At which of its calls, counted from 1 from now on.
    pub nth: u64,
    /// With which kind of error.
    pub kind: ErrorKind,
    /// Whether the call takes effect first and then fails, as when an answer is lost.
    pub after: bool,
}

/// The failures to come, shared by a test and its plugin, also over restarts of the plugin.
#[derive(Clone, Default)]
pub struct Faults {
    plan: Arc<Mutex<Plan>>,
}

#[derive(Default)]
struct Plan {
    faults: Vec<Fault>,
    calls: HashMap<Call, u64>,
}

impl Faults {
    /// Fails once, as `fault` says.
    pub fn add(&self, fault: Fault) {
        let mut plan = locked(&self.plan);
        let nth = plan.calls.get(&fault.call).copied().unwrap_or(0) + fault.nth.max(1);
        plan.faults.push(Fault { nth, ..fault });
    }
    /// How often a method was called.
    pub fn calls(&self, call: Call) -> u64 {
        locked(&self.plan).calls.get(&call).copied().unwrap_or(0)
    }
    /// Counts a call; gives the failure that is due.
    fn due(&self, call: Call) -> Option<Fault> {
        let mut plan = locked(&self.plan);
        let count = plan.calls.entry(call).or_default();
        *count += 1;
        let now = *count;
        let due = plan.faults.iter().position(|fault| fault.call == call && fault.nth == now)?;
        Some(plan.faults.swap_remove(due))
    }
}

fn error(fault: Fault) -> Error {
    let when = if fault.after { "after" } else { "before" };
    Error::new(fault.kind, format!("a test let `{:?}` fail {when} its effect", fault.call))
}

/// A source that does what another one does, and fails on demand.
pub struct FaultySource<S> {
    inner: S,
    faults: Faults,
}

impl<S: Source> FaultySource<S> {
    /// Wraps a source.
    pub fn new(inner: S, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

#[async_trait]
impl<S: Source> Source for FaultySource<S> {
    async fn connect(&mut self, from: Option<&Position>) -> Result<()> {
        match self.faults.due(Call::Connect) {
            Some(fault) if fault.after => self.inner.connect(from).await.and(Err(error(fault))),
            Some(fault) => Err(error(fault)),
            None => self.inner.connect(from).await,
        }
    }
    /// With `after`, the batch is taken from the source and lost: the host must connect again to see it.
    async fn next(&mut self, wait: Duration) -> Result<Option<Batch>> {
        match self.faults.due(Call::Next) {
            Some(fault) if fault.after => self.inner.next(wait).await.and(Err(error(fault))),
            Some(fault) => Err(error(fault)),
            None => self.inner.next(wait).await,
        }
    }
    async fn commit(&mut self, upto: &Position) -> Result<()> {
        match self.faults.due(Call::Commit) {
            Some(fault) if fault.after => self.inner.commit(upto).await.and(Err(error(fault))),
            Some(fault) => Err(error(fault)),
            None => self.inner.commit(upto).await,
        }
    }
    async fn close(&mut self) -> Result<()> {
        match self.faults.due(Call::Close) {
            Some(fault) if fault.after => self.inner.close().await.and(Err(error(fault))),
            Some(fault) => Err(error(fault)),
            None => self.inner.close().await,
        }
    }
}

/// A sink that does what another one does, and fails on demand.
pub struct FaultySink<S> {
    inner: S,
    faults: Faults,
}

impl<S: Sink> FaultySink<S> {
    /// Wraps a sink.
    pub fn new(inner: S, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

#[async_trait]
impl<S: Sink> Sink for FaultySink<S> {
    async fn connect(&mut self) -> Result<()> {
        match self.faults.due(Call::Connect) {
            Some(fault) if fault.after => self.inner.connect().await.and(Err(error(fault))),
            Some(fault) => Err(error(fault)),
            None => self.inner.connect().await,
        }
    }
    async fn position(&mut self) -> Result<Option<Position>> {
        match self.faults.due(Call::Position) {
            Some(fault) => Err(error(fault)),
            None => self.inner.position().await,
        }
    }
    /// With `after`, the batch is durable and the host does not know: it comes again.
    async fn write(&mut self, batch: &Batch) -> Result<()> {
        match self.faults.due(Call::Write) {
            Some(fault) if fault.after => self.inner.write(batch).await.and(Err(error(fault))),
            Some(fault) => Err(error(fault)),
            None => self.inner.write(batch).await,
        }
    }
    async fn close(&mut self) -> Result<()> {
        match self.faults.due(Call::Close) {
            Some(fault) if fault.after => self.inner.close().await.and(Err(error(fault))),
            Some(fault) => Err(error(fault)),
            None => self.inner.close().await,
        }
    }
}
