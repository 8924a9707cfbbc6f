//! The straight line: next, write to every sink, commit. News and chunks of copies join it between two batches of the stream.

use std::sync::Arc;
use std::sync::atomic::Ordering as Atomic;
use std::time::{Duration, Instant};

use plumbline_sdk::plugin::LogEntry;
use plumbline_sdk::position::Partitions;
use plumbline_sdk::{Applier, Batch, Error, ErrorKind, Event, Health, HealthState, History, Position, Result, Sink, Source, TableId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock;
use crate::copy::Copier;
use crate::occurrences::Occurrences;
use crate::shared::Shared;
use crate::telemetry::SinkTime;

/// Filled batches that may wait between the source and the sinks.
pub const QUEUE: usize = 4;
/// How long a source may wait for its next batch before it says "nothing yet".
const WAIT: Duration = Duration::from_millis(500);
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
const LAST_BACKOFF: Duration = Duration::from_secs(10);

/// What the host asks of the line between two batches, because only the line owns the sinks.
pub enum Order {
    /// The applier's migration log.
    MigrationLog(u32, Option<TableId>, oneshot::Sender<Result<Vec<LogEntry>>>),
    /// Keep what was proved of a table.
    Verified(TableId, plumbline_sdk::plugin::Verified),
}

/// The line and all that it owns.
pub struct Line {
    /// The picture it keeps.
    pub shared: Arc<Shared>,
    /// Metrics, traces and log lines of what happens.
    pub occurrences: Arc<Occurrences>,
    /// Position, counters, events, findings.
    pub history: Box<dyn History>,
    /// The target, where we apply.
    pub applier: Option<Box<dyn Applier>>,
    /// The copy of existing rows, where we apply.
    pub copier: Option<Copier>,
    /// Batches of the stream.
    pub stream: mpsc::Receiver<Batch>,
    /// Health of the source, tables, findings.
    pub news: mpsc::Receiver<Vec<Event>>,
    /// Orders of the host.
    pub orders: mpsc::Receiver<Order>,
    /// Tells the source what is durable.
    pub committed: watch::Sender<Option<Position>>,
    /// True: drain and end.
    pub stop: watch::Receiver<bool>,
}

enum Next {
    Batch(Box<Batch>),
    News(Vec<Event>),
    Order(Order),
    Chunk,
    Stop,
}

impl Line {
    /// Runs until told to stop, or until going on could lose something.
    pub async fn run(mut self) -> Result<()> {
        let mut stop = self.stop.clone();
        loop {
            let next = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => Next::Stop,
                Some(order) = self.orders.recv() => Next::Order(order),
                Some(news) = self.news.recv() => Next::News(news),
                () = ready(&mut self.copier, &self.shared) => Next::Chunk,
                batch = self.stream.recv() => batch.map_or(Next::Stop, |batch| Next::Batch(Box::new(batch))),
            };
            match next {
                Next::Batch(batch) => self.pass(*batch).await?,
                Next::News(events) => self.tell(events).await?,
                Next::Order(order) => self.obey(order).await,
                Next::Chunk => self.copy().await?,
                Next::Stop => break,
            }
        }
        self.drain().await
    }

    /// What is already queued is written; then the sinks end in good order.
    async fn drain(&mut self) -> Result<()> {
        while let Ok(batch) = self.stream.try_recv() {
            self.pass(batch).await?;
        }
        while let Ok(events) = self.news.try_recv() {
            self.tell(events).await?;
        }
        let closed = self.history.close().await;
        if let Some(applier) = &mut self.applier {
            applier.close().await?;
        }
        closed
    }

    /// One batch of the stream: into the picture, into every sink, committed.
    async fn pass(&mut self, batch: Batch) -> Result<()> {
        let batch = Arc::new(batch);
        let received = clock::now_micros();
        let number = {
            let mut picture = self.shared.picture();
            if picture.state.received.is_none()
                && let Some(position) = &batch.position
            {
                if position.partitions.is_some() {
                    // Another log is read from its beginning: the window has all of it.
                    picture.window.restart(Some(Position { partitions: Some(Partitions::default()), ..Position::default() }));
                } else if batch.transactions.is_empty() {
                    picture.window.restart(batch.position.clone());
                }
            }
            // Into the window before any sink has it: whoever reads the target finds its events here.
            let number = picture.window.next();
            picture.window.push(&batch);
            self.occurrences.received(&batch, picture.state.received.as_ref(), &self.shared);
            picture.state.receive(&batch, received);
            number
        };
        self.shared.touch();
        let sinks = self.write(&batch).await?;
        {
            let mut picture = self.shared.picture();
            picture.state.apply(&batch);
        }
        self.occurrences.stored(&batch, self.applier.is_some().then_some(number), received, sinks);
        if batch.position.is_some() {
            self.shared.applied.send_replace(batch.position.clone());
            self.committed.send_replace(batch.position.clone());
        }
        self.shared.touch();
        if batch.events.iter().any(|event| matches!(event, Event::Schema(_)))
            && let Some(copier) = &mut self.copier
        {
            copier.look_again();
        }
        self.show_stopped().await;
        Ok(())
    }

    /// News: into the picture, history and the applier; nothing to commit.
    async fn tell(&mut self, events: Vec<Event>) -> Result<()> {
        let batch = Arc::new(Batch::news(events));
        self.shared.picture().state.receive(&batch, clock::now_micros());
        self.occurrences.news(&batch.events);
        self.write(&batch).await?;
        if batch.events.iter().any(|event| matches!(event, Event::Finding(_))) {
            refresh_open(&self.shared).await;
        }
        if let Some(copier) = &mut self.copier
            && batch.events.iter().any(|event| matches!(event, Event::TableFound(_) | Event::TableChanged(_) | Event::TableGone(_)))
        {
            copier.look_again();
        }
        self.shared.touch();
        self.show_stopped().await;
        Ok(())
    }

    /// A chunk of a copy whose time has come, or a whole table without key.
    async fn copy(&mut self) -> Result<()> {
        let Some(mut copier) = self.copier.take() else { return Ok(()) };
        let result = copier.step(self).await;
        self.copier = Some(copier);
        result
    }

    /// Writes a chunk through every sink. Called by the copier.
    pub(crate) async fn pass_copy(&mut self, batch: Batch) -> Result<()> {
        let batch = Arc::new(batch);
        // Into the picture only when it is written: a copy that is done there may be compared at once.
        self.write(&batch).await?;
        self.shared.picture().state.receive(&batch, clock::now_micros());
        self.occurrences.copied(&batch);
        self.shared.touch();
        Ok(())
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::MigrationLog(limit, table, reply) => {
                let log = match &mut self.applier {
                    Some(applier) => applier.migration_log(limit, table.as_ref()).await,
                    None => Ok(Vec::new()),
                };
                let _ = reply.send(log);
            }
            Order::Verified(table, verified) => {
                if let Err(error) = self.history.keep_verified(&table, &verified).await {
                    tracing::warn!(%table, error = error.chain(), "what was proved could not be kept");
                }
            }
        }
    }

    /// Writes a batch to every sink at once, and tells how long each took.
    async fn write(&mut self, batch: &Batch) -> Result<[Option<SinkTime>; 2]> {
        let history = write_to(&mut *self.history, "history", batch, &self.shared, &self.occurrences, self.stop.clone());
        match &mut self.applier {
            None => Ok([Some(history.await?), None]),
            Some(applier) => {
                let applier = write_to(&mut **applier, "postgres", batch, &self.shared, &self.occurrences, self.stop.clone());
                let (history, applier) = tokio::join!(history, applier);
                Ok([Some(history?), Some(applier?)])
            }
        }
    }

    async fn show_stopped(&mut self) {
        let Some(applier) = &mut self.applier else { return };
        let Ok(stopped) = applier.stopped().await else { return };
        let mut picture = self.shared.picture();
        for (id, table) in &mut picture.state.tables {
            let reason = stopped.iter().find(|(stopped, _)| stopped == id).map(|(_, reason)| reason);
            if table.stopped.as_ref() != reason {
                table.stopped = reason.cloned();
            }
        }
    }
}

/// Resolves when the copier has something to do at the line's position.
async fn ready(copier: &mut Option<Copier>, shared: &Shared) {
    match copier {
        Some(copier) => copier.ready(shared).await,
        None => std::future::pending().await,
    }
}

/// Sets the open findings of every table from history, but where a check knows of more than history lists.
pub async fn refresh_open(shared: &Shared) {
    match shared.history.open_findings().await {
        Ok(open) => {
            let mut picture = shared.picture();
            for table in picture.state.tables.values_mut().filter(|table| !table.open_beyond) {
                table.open.clear();
            }
            for (table, verdict, count) in open {
                if let Some(table) = picture.state.tables.get_mut(&table)
                    && !table.open_beyond
                {
                    table.open.insert(verdict, count);
                }
            }
        }
        Err(error) => tracing::warn!(error = error.chain(), "open findings could not be read"),
    }
}

/// Writes a batch to one sink, connecting again for as long as it is away. Gives up only where going on could lose something.
async fn write_to<S: Sink + ?Sized>(sink: &mut S, component: &'static str, batch: &Batch, shared: &Shared, occurrences: &Occurrences, mut stop: watch::Receiver<bool>) -> Result<SinkTime> {
    let began = clock::now_micros();
    let mut backoff = FIRST_BACKOFF;
    let mut was_down = false;
    let mut connected = true;
    loop {
        let started = Instant::now();
        let result = if connected { sink.write(batch).await } else { sink.connect().await };
        if connected {
            occurrences.wrote(component, started.elapsed(), result.is_ok());
        }
        match result {
            Ok(()) if connected => {
                if was_down {
                    sink_health(shared, component, HealthState::Up, Vec::new());
                }
                let (plugin, db_system) = occurrences.sink_names(component);
                return Ok(SinkTime { plugin, db_system, began, ended: clock::now_micros() });
            }
            Ok(()) => connected = true,
            Err(error) if matches!(error.kind(), ErrorKind::Disconnected | ErrorKind::Config) => {
                occurrences.sink_failed(component, &error, backoff);
                sink_health(shared, component, HealthState::Down, vec![error.chain()]);
                was_down = true;
                connected = false;
                tokio::select! {
                    () = tokio::time::sleep(backoff) => {}
                    _ = stop.wait_for(|stop| *stop) => return Err(Error::disconnected(format!("stopped while `{component}` was away; the stored position is where the next start goes on")).caused_by(error)),
                }
                backoff = (backoff * 2).min(LAST_BACKOFF);
            }
            Err(error) => {
                sink_health(shared, component, HealthState::Down, vec![error.chain()]);
                return Err(error);
            }
        }
    }
}

/// A sink's health; where history lives in Redis, that is Redis's as well.
fn sink_health(shared: &Shared, component: &str, state: HealthState, messages: Vec<String>) {
    if component == "history" && shared.picture().state.health.contains_key("redis") {
        set_health(shared, "redis", state, messages.clone());
    }
    set_health(shared, component, state, messages);
}

/// Puts a component's health into the picture at once, where the line itself cannot wait for its own news.
pub fn set_health(shared: &Shared, component: &str, state: HealthState, messages: Vec<String>) {
    let news = Batch::news(vec![Event::Health(Health { component: component.to_owned(), state, messages })]);
    shared.picture().state.receive(&news, clock::now_micros());
    shared.touch();
}

/// Drives a source: connects from `resume`, hands batches on, connects again after the last one handed on for as long as the source is away.
/// `Fatal` and `Rejected` end it: a person must look.
pub async fn drive(
    mut source: Box<dyn Source>,
    component: &'static str,
    resume: Option<Position>,
    batches: mpsc::Sender<Batch>,
    mut committed: watch::Receiver<Option<Position>>,
    shared: Arc<Shared>,
    mut stop: watch::Receiver<bool>,
) {
    let mut last = resume;
    let mut backoff = FIRST_BACKOFF;
    let mut connected = false;
    loop {
        if *stop.borrow() {
            break;
        }
        let result = if connected { source.next(WAIT).await } else { source.connect(last.as_ref()).await.map(|()| Some(Batch::default())) };
        match result {
            Ok(None) => break,
            Ok(Some(batch)) => {
                if !connected {
                    connected = true;
                    shared.streaming.store(true, Atomic::Relaxed);
                    set_health(&shared, component, HealthState::Up, Vec::new());
                    tracing::info!(component, from = last.as_ref().map(ToString::to_string), "the source streams");
                    continue;
                }
                backoff = FIRST_BACKOFF;
                if batch.position.is_some() {
                    last.clone_from(&batch.position);
                }
                if batch.events.is_empty() && batch.position.is_none() && batch.records == 0 {
                    continue;
                }
                let waits = clock::now_micros();
                if batches.send(batch).await.is_err() {
                    break;
                }
                shared.queue_full_micros.fetch_add(u64::try_from(clock::now_micros() - waits).unwrap_or(0), Atomic::Relaxed);
                if committed.has_changed().unwrap_or(false) {
                    let upto = committed.borrow_and_update().clone();
                    if let Some(upto) = upto
                        && let Err(error) = source.commit(&upto).await
                    {
                        tracing::debug!(component, error = error.chain(), "the source did not take the commit");
                    }
                }
            }
            Err(error) => {
                shared.streaming.store(false, Atomic::Relaxed);
                connected = false;
                set_health(&shared, component, HealthState::Down, vec![error.chain()]);
                if matches!(error.kind(), ErrorKind::Fatal | ErrorKind::Rejected) {
                    tracing::error!(component, error = error.chain(), "the source stopped: going on could lose or invent something");
                    let _ = stop.wait_for(|stop| *stop).await;
                    break;
                }
                tracing::warn!(component, error = error.chain(), again_in_ms = backoff.as_millis(), "the source is away");
                tokio::select! {
                    () = tokio::time::sleep(backoff) => {}
                    _ = stop.wait_for(|stop| *stop) => break,
                }
                backoff = (backoff * 2).min(LAST_BACKOFF);
            }
        }
    }
    shared.streaming.store(false, Atomic::Relaxed);
    if let Err(error) = source.close().await {
        tracing::debug!(component, error = error.chain(), "the source did not end in good order");
    }
}

/// Where the line goes on: the least of what the sinks have. `Err`: they have different histories.
pub fn resume_from(positions: &[(&str, Option<Position>)]) -> Result<Option<Position>> {
    let mut least: Option<(&str, &Position)> = None;
    for (name, position) in positions {
        let Some(position) = position else { continue };
        least = match least {
            None => Some((name, position)),
            Some((other, so_far)) => match position.order(so_far) {
                Some(std::cmp::Ordering::Less) => Some((name, position)),
                Some(_) => Some((other, so_far)),
                None => {
                    return Err(Error::fatal(format!(
                        "`{name}` and `{other}` stand at positions of different histories: `{position}` and `{so_far}`; one of them belongs to another source. \
                         Start with an empty data folder and an empty target, or give back the one that belongs together"
                    )));
                }
            },
        };
    }
    Ok(least.map(|(_, position)| position.clone()))
}
