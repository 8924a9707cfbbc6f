//! A small question to every outside component every few seconds: how long it takes to answer, and where the source's log stands.

use std::sync::Arc;
use std::time::{Duration, Instant};

use plumbline_sdk::{Error, Reader, Result};
use tokio::sync::watch;

use crate::builtin::LogProbe;
use crate::clock;
use crate::metrics::Metrics;
use crate::shared::Shared;

const EVERY: Duration = Duration::from_secs(10);
/// What does not answer within this is asked again later, on a new connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks until told to stop. One connection to each side.
pub struct Probe {
    /// The common ground.
    pub shared: Arc<Shared>,
    /// Where the times go.
    pub metrics: Arc<Metrics>,
    /// Asks the source.
    pub source: LogProbe,
    /// Asks the target: made anew after a failure.
    pub target: Box<dyn Fn() -> Result<Box<dyn Reader>> + Send + Sync>,
    /// True: end.
    pub stop: watch::Receiver<bool>,
}

impl Probe {
    /// Runs until told to stop. A component that does not answer is told of by those who need it, not here.
    pub async fn run(mut self) {
        let mut stop = self.stop.clone();
        let mut target: Option<Box<dyn Reader>> = None;
        loop {
            let turn = async {
                tokio::join!(look_at_log(&mut self.source, &self.shared, &self.metrics), ask_target(&mut target, &self.target, &self.metrics), ask_history(&self.shared, &self.metrics));
            };
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = turn => {}
            }
            if tokio::time::timeout(EVERY, stop.wait_for(|stop| *stop)).await.is_ok() {
                return;
            }
        }
    }
}

async fn in_time<T>(asked: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(Error::disconnected("no answer in time")))
}

async fn look_at_log(source: &mut LogProbe, shared: &Shared, metrics: &Metrics) {
    let looked = in_time(async {
        // A new connection is not part of the answer's time.
        source.connect().await?;
        let started = Instant::now();
        let look = source.look().await?;
        Ok((look, started.elapsed()))
    })
    .await;
    match looked {
        Ok((look, took)) => {
            metrics.probed("mysql", took);
            shared.picture().state.source_log.take(look, clock::now_micros());
            shared.touch();
        }
        Err(error) => {
            source.forget();
            tracing::debug!(error = error.chain(), "the source's log could not be looked at");
        }
    }
}

async fn ask_target(slot: &mut Option<Box<dyn Reader>>, make: &(dyn Fn() -> Result<Box<dyn Reader>> + Send + Sync), metrics: &Metrics) {
    let reader = slot.take();
    let asked = in_time(async {
        let mut reader = match reader {
            Some(reader) => reader,
            None => {
                let mut reader = make()?;
                reader.connect().await?;
                reader
            }
        };
        let started = Instant::now();
        reader.begin().await?;
        reader.end().await?;
        metrics.probed("postgres", started.elapsed());
        Ok(reader)
    })
    .await;
    match asked {
        Ok(reader) => *slot = Some(reader),
        Err(error) => tracing::debug!(error = error.chain(), "the target did not answer the probe"),
    }
}

async fn ask_history(shared: &Shared, metrics: &Metrics) {
    let started = Instant::now();
    match in_time(shared.history.events(1, None)).await {
        Ok(_) => metrics.probed("history", started.elapsed()),
        Err(error) => tracing::debug!(error = error.chain(), "history did not answer the probe"),
    }
}
