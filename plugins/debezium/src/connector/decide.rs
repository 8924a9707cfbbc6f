//! What a connector needs. Pure: the time comes in.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use plumbline_sdk::{HealthState, TableId};

use super::shown::trace_lines;
use super::{BACKOFF, MARK, pattern};
use crate::connect::{Config, Status};

/// The setting that lists the tables.
const LIST: &str = "table.include.list";

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Validate these settings, then create the connector with them or replace its own.
    Put(Config),
    /// Start again what failed.
    Restart,
}

/// What to do, and how the connector is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// To be done in order.
    pub actions: Vec<Action>,
    /// Tables that the running connector did not capture before: their existing rows are not read by themselves.
    pub added: Vec<TableId>,
    /// Settings of ours that are other than wished, but for the list of tables.
    pub drift: Vec<String>,
    /// One word.
    pub state: &'static str,
    /// For the agent's health.
    pub health: HealthState,
    /// What to know and do.
    pub messages: Vec<String>,
    /// The first lines of what failed; may hold secrets until they are scrubbed.
    pub trace: Vec<String>,
    /// Whether it works: its task runs.
    pub healthy: bool,
}

/// Restarts of a failed task: with longer and longer waits, and a budget.
#[derive(Debug, Clone, Default)]
pub struct Restarts {
    times: u32,
    last: Option<Instant>,
    healthy_since: Option<Instant>,
}

impl Restarts {
    /// As many in a row, then a person must look.
    pub const BUDGET: u32 = 8;
    /// Works for so long: the budget is whole again.
    const RECOVERED: Duration = Duration::from_secs(600);

    /// Whether the next one is due.
    fn due(&self, now: Instant) -> bool {
        let wait = BACKOFF[(self.times as usize).min(BACKOFF.len() - 1)];
        self.times < Self::BUDGET && self.last.is_none_or(|last| now.saturating_duration_since(last) >= wait)
    }
    /// One was done.
    pub fn note(&mut self, now: Instant) {
        self.times += 1;
        self.last = Some(now);
        self.healthy_since = None;
    }
    /// The task runs.
    pub fn healthy(&mut self, now: Instant) {
        let since = *self.healthy_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= Self::RECOVERED {
            *self = Self { healthy_since: Some(since), ..Self::default() };
        }
    }
}

pub(super) fn taken(name: &str) -> String {
    format!("the name `{name}` is taken by a connector that is not ours: it is not touched. Rename it, remove it, or choose another `pipeline`")
}

/// What is wished of the connector.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its settings.
    pub desired: &'a Config,
    /// The tables that it captures.
    pub tables: &'a BTreeSet<TableId>,
    /// Whether settings that somebody has changed are set right again. The list of tables always is.
    pub mend: bool,
}

impl Decision {
    fn of(state: &'static str) -> Self {
        Self { actions: Vec::new(), added: Vec::new(), drift: Vec::new(), state, health: HealthState::Warning, messages: Vec::new(), trace: Vec::new(), healthy: false }
    }
}

/// What is to be known where a person removed it.
pub(super) fn removed(name: &str) -> Decision {
    let mut decision = Decision::of("REMOVED");
    decision.messages.push(format!("the connector `{name}` was removed on request: nothing new comes until it is resumed, which makes it anew; a new start of the agent does so too"));
    decision
}

/// Decides from what is wished and what Connect says of the connector.
pub fn decide(wish: &Wish<'_>, seen: Option<&Config>, status: Option<&Status>, restarts: &Restarts, now: Instant) -> Decision {
    let Wish { name, desired, tables, mend } = *wish;
    let mut decision = Decision::of("MISSING");
    let Some(seen) = seen else {
        decision.actions.push(Action::Put(desired.clone()));
        decision.messages.push(format!("the connector `{name}` is being created"));
        return decision;
    };
    if seen.get(MARK) != desired.get(MARK) {
        decision.state = "TAKEN";
        decision.health = HealthState::Down;
        decision.messages.push(taken(name));
        return decision;
    }
    judge(&mut decision, name, status, restarts, now);
    let is_other = |key: &str| seen.get(key) != desired.get(key);
    decision.drift = desired.keys().filter(|key| key.as_str() != LIST && is_other(key)).cloned().collect();
    if is_other(LIST) || mend && !decision.drift.is_empty() {
        let list = seen.get(LIST).map(String::as_str).unwrap_or_default();
        let captured: BTreeSet<&str> = list.split(',').collect();
        decision.added = tables.iter().filter(|table| !captured.contains(pattern(table).as_str())).cloned().collect();
        // What others added stays; what is ours is set right.
        let mut settings = seen.clone();
        settings.extend(desired.iter().filter(|(key, _)| mend || key.as_str() == LIST).map(|(key, value)| (key.clone(), value.clone())));
        decision.actions.insert(0, Action::Put(settings));
        decision.healthy = false;
    }
    if !decision.drift.is_empty() {
        let names: Vec<String> = decision.drift.iter().map(|key| format!("`{key}`")).collect();
        let done = if mend { "were other than ours and are set right" } else { "are other than ours and are left so, as `CONNECT_MEND_DRIFT` says" };
        decision.health = decision.health.max_of(HealthState::Warning);
        decision.messages.push(format!("settings of the connector `{name}` {done}: {}", names.join(", ")));
    }
    decision
}

/// How it is by its status, and whether its task is to be started again.
fn judge(decision: &mut Decision, name: &str, status: Option<&Status>, restarts: &Restarts, now: Instant) {
    let Some(status) = status else {
        decision.state = "STARTING";
        return;
    };
    // What a person has paused is left as it is, whatever its tasks say.
    let rests = matches!(status.connector.state.as_str(), "PAUSED" | "STOPPED");
    let parts = || std::iter::once(&status.connector).chain(&status.tasks);
    if let Some(failed) = parts().find(|part| part.state == "FAILED" && !rests) {
        let trace = failed.trace.as_deref().unwrap_or_default();
        decision.health = HealthState::Down;
        decision.trace = trace_lines(trace);
        if is_purged(trace) {
            decision.state = "PURGED";
            decision.messages.push(format!(
                "the connector `{name}` needs binlog files that the server has purged: what changed since its last position cannot be read any more. \
                 Compare all tables: rows that were deleted meanwhile may still be in the copy. Then remove the connector with its place \
                 (`DELETE /api/v1/connectors/{name}?forget=true`) and resume it, which reads all rows again"
            ));
            return;
        }
        decision.state = "FAILED";
        if restarts.due(now) {
            decision.actions.push(Action::Restart);
            decision.messages.push(format!("the connector `{name}` failed and is started again ({} of {})", restarts.times + 1, Restarts::BUDGET));
        } else if restarts.times >= Restarts::BUDGET {
            decision.messages.push(format!("the connector `{name}` failed again and again; it is not started any more: see what it says, mend it, and restart it"));
        } else {
            decision.messages.push(format!("the connector `{name}` failed; it will be started again in a moment"));
        }
        return;
    }
    match status.connector.state.as_str() {
        "RUNNING" if status.tasks.is_empty() => decision.state = "STARTING",
        "RUNNING" if status.tasks.iter().all(|task| task.state == "RUNNING") => {
            decision.state = "RUNNING";
            decision.health = HealthState::Up;
            decision.healthy = true;
        }
        "PAUSED" => {
            decision.state = "PAUSED";
            decision.messages.push(format!("the connector `{name}` is paused: nothing new comes until it is resumed"));
        }
        "STOPPED" => {
            decision.state = "STOPPED";
            decision.messages.push(format!("the connector `{name}` is stopped: nothing new comes until it is resumed"));
        }
        _ => decision.state = "STARTING",
    }
    if decision.state == "STARTING" {
        decision.messages.push(format!("the connector `{name}` is starting"));
    }
}

/// Whether a trace says that the server does not have the binlog any more that is to be read.
fn is_purged(trace: &str) -> bool {
    ["no longer available on the server", "purged required binary logs", "purged binary logs containing GTIDs", "Could not find first log file name in binary log index"]
        .iter()
        .any(|text| trace.contains(text))
}

trait Worse {
    fn max_of(self, other: Self) -> Self;
}

impl Worse for HealthState {
    fn max_of(self, other: Self) -> Self {
        if self == Self::Down || other == Self::Down {
            Self::Down
        } else if self == Self::Up {
            other
        } else {
            self
        }
    }
}
