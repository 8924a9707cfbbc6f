//! What is to be checked, in order: taken in at any time, also while a table is being compared.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plumbline_sdk::{Result, TableId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock;
use crate::shared::{Check, Shared};

/// Checks that are remembered.
const KEPT: usize = 100;

/// What may be asked.
pub enum CheckOrder {
    /// Compare these tables (empty: all); rows, or counts only.
    Start(Vec<TableId>, bool, oneshot::Sender<Result<u64>>),
    /// Cancel a check.
    Cancel(u64, oneshot::Sender<Result<bool>>),
}

/// One table to look at, as a part of a check.
#[derive(Debug, Clone)]
pub struct Job {
    /// The check.
    pub check: u64,
    /// Which table.
    pub table: TableId,
    /// Rows, or counts only.
    pub full: bool,
}

#[derive(Debug, Default)]
struct Plan {
    /// What people asked for.
    asked: VecDeque<Job>,
    /// What is due by itself; comes after what people asked for.
    due: VecDeque<Job>,
    /// The check of the table that is looked at now, and how to stop it.
    running: Option<(u64, watch::Sender<bool>)>,
    last: u64,
}

/// The agenda of the checker. Cheap to clone.
#[derive(Clone)]
pub struct Agenda {
    shared: Arc<Shared>,
    plan: Arc<Mutex<Plan>>,
}

impl Agenda {
    /// An empty agenda, which writes its checks into the common ground.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, plan: Arc::default() }
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes orders until told to stop.
    pub async fn take_orders(self, mut orders: mpsc::Receiver<CheckOrder>, mut stop: watch::Receiver<bool>) {
        loop {
            let order = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                order = orders.recv() => order,
            };
            match order {
                Some(CheckOrder::Start(tables, full, reply)) => {
                    let _ = reply.send(Ok(self.start(&tables, full)));
                }
                Some(CheckOrder::Cancel(id, reply)) => {
                    let _ = reply.send(Ok(self.cancel(id)));
                }
                None => return,
            }
        }
    }

    fn start(&self, tables: &[TableId], full: bool) -> u64 {
        let known: Vec<TableId> = {
            let picture = self.shared.picture();
            picture.state.present().map(|(id, _)| id.clone()).filter(|id| tables.is_empty() || tables.contains(id)).collect()
        };
        let check = self.record("api", if full { "rows" } else { "counts" }, &known);
        self.plan().asked.extend(known.into_iter().map(|table| Job { check, table, full }));
        check
    }

    /// Whether there was one to stop.
    fn cancel(&self, id: u64) -> bool {
        let mut found = false;
        for check in self.shared.checks().iter_mut().filter(|check| check.id == id && matches!(check.state, "queued" | "running")) {
            check.state = "cancelled";
            check.ended_micros = Some(clock::now_micros());
            found = true;
        }
        let mut plan = self.plan();
        plan.asked.retain(|job| job.check != id);
        plan.due.retain(|job| job.check != id);
        if let Some((_, stop)) = plan.running.as_ref().filter(|(running, _)| *running == id) {
            stop.send_replace(true);
        }
        found
    }

    /// Puts tables on the agenda that are due by themselves.
    pub fn add_due(&self, tables: Vec<TableId>) {
        let check = self.record("schedule", "rows", &tables);
        self.plan().due.extend(tables.into_iter().map(|table| Job { check, table, full: true }));
    }

    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        let plan = self.plan();
        plan.asked.is_empty() && plan.due.is_empty()
    }

    /// The next job, and what becomes true when it is cancelled.
    pub fn next(&self) -> Option<(Job, watch::Receiver<bool>)> {
        let mut plan = self.plan();
        let job = plan.asked.pop_front().or_else(|| plan.due.pop_front())?;
        let (stop, stopped) = watch::channel(false);
        plan.running = Some((job.check, stop));
        Some((job, stopped))
    }

    /// The job that `next` gave is done.
    pub fn done(&self) {
        self.plan().running = None;
    }

    fn record(&self, asked_by: &'static str, mode: &'static str, tables: &[TableId]) -> u64 {
        let id = {
            let mut plan = self.plan();
            plan.last += 1;
            plan.last
        };
        let mut checks = self.shared.checks();
        if checks.len() >= KEPT {
            checks.remove(0);
        }
        let (state, ended) = if tables.is_empty() { ("done", Some(clock::now_micros())) } else { ("queued", None) };
        checks.push(Check {
            id,
            asked_by,
            mode,
            state,
            tables: tables.iter().map(ToString::to_string).collect(),
            results: BTreeMap::new(),
            started_micros: None,
            ended_micros: ended,
        });
        id
    }
}
