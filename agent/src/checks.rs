//! Comparisons of whole tables: when they are due, asked for, run, and what follows from them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use plumbline_sdk::plugin::{FindingQuery, Verified};
use plumbline_sdk::{
    Error, ErrorKind, Event, Finding, HealthState, Position, Reader, Result, SideTable, TableId, TargetTable, Validator, Verdict, View,
};
use tokio::sync::{mpsc, watch};

use crate::agenda::{Agenda, Job};
use crate::clock;
use crate::occurrences::Occurrences;
use crate::pipeline::{Order, set_health};
use crate::shared::{Check, Shared, TableReport};
use crate::state::{CheckProgress, Partner, TableState, Unverified};
use crate::validation::fence::OtherSink;
use crate::validation::{self, Comparison, Fence, Options, Plan};

/// The name of the validator that compares canonical forms.
pub const VALIDATOR: &str = "postgres-comparer";
/// How often it is looked whether something is due.
const TICK: Duration = Duration::from_millis(200);
/// A table whose check could not look is tried again after this.
const TRY_AGAIN: Duration = Duration::from_secs(15);

/// Readers of the source and of the target.
pub type Sides = (Box<dyn Reader>, Box<dyn Reader>);

/// Makes readers of both sides.
pub type Readers = Arc<dyn Fn() -> Result<Sides> + Send + Sync>;

/// How checks are run.
#[derive(Debug, Clone)]
pub struct CheckPolicy {
    /// How often a proved table is compared again.
    pub interval: Duration,
    /// With a sink that is not ours: how long a differing row is left alone.
    pub settle: Duration,
    /// How often rows are counted where nobody tells of changes.
    pub count_interval: Duration,
    /// How often the target's tables are looked at.
    pub discovery_interval: Duration,
    /// See [`Options`].
    pub options: Options,
    /// Whether our applier writes the target.
    pub applies: bool,
    /// Whether the stream's positions say through which place of the source's log it was read.
    pub knows_place: bool,
}

/// Runs checks, one table after the other.
pub struct Checker {
    shared: Arc<Shared>,
    occurrences: Arc<Occurrences>,
    readers: Readers,
    validator: Box<dyn Validator>,
    sink: Option<Arc<dyn OtherSink>>,
    policy: CheckPolicy,
    agenda: Agenda,
    news: mpsc::Sender<Vec<Event>>,
    line: mpsc::Sender<Order>,
    stop: watch::Receiver<bool>,
    source: Option<Box<dyn Reader>>,
    target: Option<Box<dyn Reader>>,
    targets: Vec<Arc<TargetTable>>,
    looked: Option<i64>,
    /// Tables as they were when partners were last matched.
    matched: usize,
    failed: BTreeMap<TableId, i64>,
    /// When the source's rows were last counted.
    counted: BTreeMap<TableId, i64>,
}

/// The parts of a checker that the host chooses.
pub struct CheckerParts {
    /// The common ground.
    pub shared: Arc<Shared>,
    /// Metrics and log lines.
    pub occurrences: Arc<Occurrences>,
    /// Makes readers.
    pub readers: Readers,
    /// Judges pairs.
    pub validator: Box<dyn Validator>,
    /// Who writes the target from the topics that we read, where that is somebody else.
    pub sink: Option<Arc<dyn OtherSink>>,
    /// How.
    pub policy: CheckPolicy,
    /// What is to be looked at, in order.
    pub agenda: Agenda,
    /// Findings go here.
    pub news: mpsc::Sender<Vec<Event>>,
    /// What was proved goes here.
    pub line: mpsc::Sender<Order>,
    /// True: end.
    pub stop: watch::Receiver<bool>,
}

impl Checker {
    /// A checker of these parts.
    pub fn new(parts: CheckerParts) -> Self {
        Self {
            shared: parts.shared,
            occurrences: parts.occurrences,
            readers: parts.readers,
            validator: parts.validator,
            sink: parts.sink,
            policy: parts.policy,
            agenda: parts.agenda,
            news: parts.news,
            line: parts.line,
            stop: parts.stop,
            source: None,
            target: None,
            targets: Vec::new(),
            looked: None,
            matched: 0,
            failed: BTreeMap::new(),
            counted: BTreeMap::new(),
        }
    }

    /// Runs until told to stop.
    pub async fn run(mut self) {
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(if self.agenda.is_empty() { TICK } else { Duration::ZERO }) => {}
            }
            if let Err(error) = self.turn().await {
                tracing::debug!(error = error.chain(), "the checks could not look");
                tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => return,
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                }
            }
        }
    }

    /// One round: partners, counts, one job.
    async fn turn(&mut self) -> Result<()> {
        self.connect().await?;
        self.match_partners().await?;
        self.count_due().await?;
        if self.agenda.is_empty() {
            self.queue_due();
        }
        if let Some((job, cancelled)) = self.agenda.next() {
            self.check(job, cancelled).await;
            self.agenda.done();
        }
        Ok(())
    }

    /// Both readers connected. A reader that failed was dropped: a new one is made.
    async fn connect(&mut self) -> Result<()> {
        if self.source.is_some() && self.target.is_some() {
            return Ok(());
        }
        let (mut source, mut target) = (self.readers)()?;
        source.connect().await?;
        if let Err(error) = target.connect().await {
            set_health(&self.shared, "postgres", HealthState::Down, vec![error.chain()]);
            return Err(error);
        }
        if !self.policy.applies {
            set_health(&self.shared, "postgres", HealthState::Up, Vec::new());
        }
        (self.source, self.target) = (Some(source), Some(target));
        Ok(())
    }

    fn drop_readers(&mut self) {
        (self.source, self.target) = (None, None);
    }

    /// Matches every table of the source with its partner, when either side may have changed.
    async fn match_partners(&mut self) -> Result<()> {
        let now = clock::now_micros();
        let tables = self.shared.picture().state.tables.values().filter(|table| table.schema.is_some() && !table.gone).count();
        let unknown = self.shared.picture().state.present().any(|(_, table)| table.schema.is_some() && matches!(table.partner, Partner::Unknown | Partner::None));
        let age = self.looked.map_or(i64::MAX, |looked| now - looked);
        let wait = if tables != self.matched || unknown { Duration::from_secs(1) } else { self.policy.discovery_interval };
        if u128::try_from(age).unwrap_or(0) < wait.as_micros() {
            return Ok(());
        }
        let target = self.target.as_mut().ok_or_else(|| plumbline_sdk::Error::disconnected("no reader"))?;
        match target.tables().await {
            Ok(found) => {
                self.targets = found
                    .into_iter()
                    .filter_map(|table| match table {
                        SideTable::Target(table) => Some(table),
                        SideTable::Source(_) => None,
                    })
                    .collect();
            }
            Err(error) => {
                self.drop_readers();
                if !self.policy.applies {
                    set_health(&self.shared, "postgres", HealthState::Down, vec![error.chain()]);
                }
                return Err(error);
            }
        }
        self.looked = Some(now);
        self.matched = tables;
        let mut picture = self.shared.picture();
        for table in picture.state.tables.values_mut() {
            let Some(schema) = &table.schema else { continue };
            let partner = validation::partner(schema, &self.targets);
            if table.partner == partner {
                continue;
            }
            table.unverified = match &partner {
                Partner::None if self.policy.applies => Vec::new(),
                Partner::None => vec![Unverified { columns: Vec::new(), reason: "no such table in the target".into() }],
                Partner::Ambiguous(names) => {
                    vec![Unverified { columns: Vec::new(), reason: format!("more than one table of the target has this name without case: `{}`", names.join("`, `")) }]
                }
                Partner::Table(_) | Partner::Unknown => Vec::new(),
            };
            table.partner = partner;
            table.verified = table.verified.take().filter(|_| table.compared.is_none());
            table.compared = None;
        }
        drop(picture);
        self.shared.touch();
        Ok(())
    }

    /// Counts rows where no baseline is known, or where nobody tells of changes.
    async fn count_due(&mut self) -> Result<()> {
        let now = clock::now_micros();
        let interval = i64::try_from(self.policy.count_interval.as_micros()).unwrap_or(i64::MAX);
        let applies = self.policy.applies;
        let (mut source_due, mut target_due) = (Vec::new(), Vec::new());
        {
            let picture = self.shared.picture();
            if picture.state.received.is_none() {
                return Ok(());
            }
            let by_other_log = picture.state.comes_by_other_log();
            for (id, table) in picture.state.present().filter(|(_, table)| table.schema.is_some()) {
                if !self.rested(id, now) {
                    continue;
                }
                // Counts that are estimates are made anew now and then.
                if table.source_rows.is_none() || by_other_log && self.counted.get(id).is_none_or(|counted| now - counted > interval) {
                    source_due.push(id.clone());
                }
                // Rows that come with the stream are no changes to count by.
                let old = table.target_rows.is_none_or(|rows| (!applies || by_other_log) && now - rows.as_of_micros > interval);
                let copying = !picture.state.is_copied(table);
                if let Partner::Table(target) = &table.partner
                    && old
                    && !copying
                {
                    target_due.push((id.clone(), target.id.clone()));
                }
            }
        }
        for id in source_due {
            self.count_source(&id).await?;
        }
        for (id, target) in target_due {
            self.count_target(&id, &target).await?;
        }
        Ok(())
    }

    async fn count_source(&mut self, id: &TableId) -> Result<()> {
        const TRIES: u32 = 5;
        for attempt in 1..=TRIES {
            let Some(source) = self.source.as_mut() else { return Ok(()) };
            let counted = count_in_view(&mut **source, id).await;
            let (view, count) = match counted {
                Ok(counted) => counted,
                Err(error) => return self.leave_for_now(id, error),
            };
            if self.shared.picture().state.comes_by_other_log() {
                self.counted.insert(id.clone(), clock::now_micros());
                let mut picture = self.shared.picture();
                picture.state.set_rows(id, true, count, 0, clock::now_micros(), true);
                if let Some(table) = picture.state.tables.get_mut(id) {
                    table.source_low = view.low;
                }
                break;
            }
            let (Some(low), Some(high)) = (view.low, view.high) else {
                self.shared.picture().state.set_rows(id, true, count, 0, clock::now_micros(), true);
                return Ok(());
            };
            let mut applied = self.shared.applied.subscribe();
            let passed = applied.wait_for(|position| position.as_ref().is_some_and(|position| position.reached(high)));
            let passed = tokio::time::timeout(Duration::from_secs(2), passed).await.is_ok();
            let mut picture = self.shared.picture();
            // Nothing of this table was committed between the view's two bounds: then the count is that of `low`.
            let exact = passed && picture.window.touched(&low, high).is_some_and(|tables| !tables.contains(id));
            let delta = picture.window.delta(id, &low);
            if exact || attempt == TRIES {
                picture.state.set_rows(id, true, count, delta.unwrap_or(0), clock::now_micros(), !exact || delta.is_none());
                break;
            }
        }
        self.shared.touch();
        Ok(())
    }

    async fn count_target(&mut self, id: &TableId, target_id: &TableId) -> Result<()> {
        let Some(target) = self.target.as_mut() else { return Ok(()) };
        let counted = count_in_view(&mut **target, target_id).await;
        match counted {
            Ok((view, count)) => {
                let mut picture = self.shared.picture();
                let delta = match (&view.low, self.policy.applies) {
                    (Some(low), true) => picture.window.delta(id, low),
                    _ => Some(0),
                };
                picture.state.set_rows(id, false, count, delta.unwrap_or(0), clock::now_micros(), delta.is_none());
                Ok(())
            }
            Err(error) => self.leave_for_now(id, error),
        }
    }

    /// A read failed. The table is left alone for a while, and says why. `Err`: a server is away, so nothing else can be looked at either.
    fn leave_for_now(&mut self, id: &TableId, error: Error) -> Result<()> {
        self.failed.insert(id.clone(), clock::now_micros());
        if matches!(error.kind(), ErrorKind::Disconnected | ErrorKind::Fatal) {
            self.drop_readers();
            return Err(error);
        }
        tracing::warn!(table = %id, error = error.chain(), "could not look: the table is not verified");
        if let Some(table) = self.shared.picture().state.tables.get_mut(id) {
            table.could_not_look = Some(Unverified { columns: Vec::new(), reason: format!("could not look: {}", error.chain()) });
        }
        self.shared.touch();
        Ok(())
    }

    /// Whether the table was not left alone a short while ago.
    fn rested(&self, id: &TableId, now: i64) -> bool {
        self.failed.get(id).is_none_or(|failed| now - failed > TRY_AGAIN.as_micros() as i64)
    }

    /// Tables that nobody has compared yet, or not for a while.
    fn queue_due(&mut self) {
        let now = clock::now_micros();
        let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        let due: Vec<TableId> = {
            let picture = self.shared.picture();
            if picture.state.received.is_none() {
                return;
            }
            let mut due: Vec<(&TableId, &TableState)> = picture
                .state
                .present()
                .filter(|(id, table)| {
                    let ready = self.shared.owns(id) && table.schema.is_some() && matches!(table.partner, Partner::Table(_)) && !table.paused && table.stopped.is_none();
                    let copied = picture.state.is_copied(table);
                    let rested = self.rested(id, now);
                    // A table that is compared often rests at least nine times as long as its comparison takes.
                    let again = table.compared.is_none_or(|(when, took)| {
                        let changed = table.gap || table.verified.is_none() || table.schema.as_ref().is_some_and(|schema| schema.key().is_empty()) && table.pending == 0 && changed_since(table, when);
                        let interval = if changed { micros(Duration::from_secs(10)) } else { micros(self.policy.interval) };
                        now - when > interval.max(took.saturating_mul(9))
                    });
                    ready && copied && rested && again
                })
                .collect();
            // Small tables first: the first verdicts come at once.
            due.sort_by_key(|(_, table)| table.source_rows.map_or(0, |rows| rows.rows));
            due.into_iter().map(|(id, _)| id.clone()).collect()
        };
        if due.is_empty() {
            return;
        }
        self.agenda.add_due(due);
    }

    async fn check(&mut self, job: Job, cancelled: watch::Receiver<bool>) {
        let started = clock::now_micros();
        self.note(job.check, |check| {
            if check.state == "queued" {
                check.state = "running";
                check.started_micros = Some(started);
            }
        });
        let report = if job.full { self.compare(&job, cancelled.clone()).await } else { self.compare_counts(&job.table) };
        let took = clock::now_micros() - started;
        let report = match report {
            Ok(report) => report,
            Err(_) if *cancelled.borrow() => {
                if let Some(table) = self.shared.picture().state.tables.get_mut(&job.table) {
                    table.check = None;
                }
                self.shared.touch();
                return;
            }
            Err(error) => {
                let reason = error.chain();
                if let Err(error) = self.leave_for_now(&job.table, error) {
                    tracing::warn!(table = %job.table, error = error.chain(), "could not look: the table is not verified");
                }
                let report = TableReport {
                    table: job.table.to_string(),
                    verdict: "unverified",
                    unverified: vec![Unverified { columns: Vec::new(), reason: format!("could not look: {reason}") }],
                    ..TableReport::default()
                };
                self.occurrences.could_not_compare(took);
                self.finish(&job, &report);
                return;
            }
        };
        if job.full {
            self.take_in(&job.table, &report, started, took).await;
        }
        self.finish(&job, &report);
    }

    fn note(&self, id: u64, change: impl FnOnce(&mut Check)) {
        if let Some(check) = self.shared.checks().iter_mut().find(|check| check.id == id) {
            change(check);
        }
    }

    fn finish(&self, job: &Job, report: &TableReport) {
        self.note(job.check, |check| {
            check.results.insert(report.table.clone(), report.clone());
            if check.results.len() == check.tables.len() && check.state == "running" {
                check.state = "done";
                check.ended_micros = Some(clock::now_micros());
            }
        });
        if let Some(table) = self.shared.picture().state.tables.get_mut(&job.table) {
            table.check = None;
        }
        self.shared.touch();
    }

    fn plan(&self, id: &TableId) -> std::result::Result<Plan, Unverified> {
        let whole = |reason: String| Unverified { columns: Vec::new(), reason };
        let picture = self.shared.picture();
        let table = picture.state.tables.get(id).ok_or_else(|| whole("no such table".into()))?;
        let schema = table.schema.as_ref().ok_or_else(|| whole("its columns are not known yet".into()))?;
        if let Some(reason) = &table.stopped {
            return Err(whole(format!("it is not applied any more: {reason}")));
        }
        match &table.partner {
            Partner::Table(target) => validation::plan(schema, target),
            Partner::None | Partner::Unknown => Err(whole("no such table in the target".into())),
            Partner::Ambiguous(names) => Err(whole(format!("more than one table of the target has this name without case: `{}`", names.join("`, `")))),
        }
    }

    async fn compare(&mut self, job: &Job, cancelled: watch::Receiver<bool>) -> Result<TableReport> {
        let plan = match self.plan(&job.table) {
            Ok(plan) => plan,
            Err(reason) => {
                return Ok(TableReport { table: job.table.to_string(), verdict: "unverified", unverified: vec![reason], ..TableReport::default() });
            }
        };
        self.connect().await?;
        let expected = self.shared.picture().state.tables.get(&job.table).and_then(|table| table.source_rows).map_or(0, |rows| u64::try_from(rows.rows).unwrap_or(0));
        let shared = Arc::clone(&self.shared);
        let id = job.table.clone();
        let progress = move |rows: u64| {
            if let Some(table) = shared.picture().state.tables.get_mut(&id) {
                table.check = Some(CheckProgress { rows, expected: expected.max(rows) });
            }
            shared.touch();
        };
        let suspects = |rows: u64| self.occurrences.suspects(&job.table, rows);
        suspects(0);
        let fence = match &self.sink {
            _ if self.policy.applies && self.policy.knows_place => Fence::Stream(Arc::clone(&self.shared)),
            // Whose changes are read by another agent, its offsets say nothing to this one.
            Some(sink) if self.shared.owns(&job.table) => Fence::Sink { shared: Arc::clone(&self.shared), sink: Arc::clone(sink), settle: self.policy.settle },
            _ => Fence::Time(self.policy.settle),
        };
        let mut run = Comparison {
            source: &mut self.source,
            target: &mut self.target,
            fence,
            validator: &mut *self.validator,
            options: self.policy.options.clone(),
            progress: &progress,
            suspects: &suspects,
            cancel: cancelled,
        };
        let report = validation::compare_table(&mut run, &plan).await;
        suspects(0);
        report
    }

    /// Counts only: from the picture, no scan.
    fn compare_counts(&self, id: &TableId) -> Result<TableReport> {
        let picture = self.shared.picture();
        let table = picture.state.tables.get(id);
        let rows = |rows: Option<crate::state::RowCount>| rows.and_then(|rows| u64::try_from(rows.rows).ok());
        let (source, target) = (table.and_then(|table| rows(table.source_rows)), table.and_then(|table| rows(table.target_rows)));
        let verdict = match (source, target) {
            (Some(source), Some(target)) if source != target => "different",
            _ => "unverified",
        };
        Ok(TableReport { table: id.to_string(), verdict, rows_source: source, rows_target: target, notes: vec!["counts only: no row was compared".into()], ..TableReport::default() })
    }

    /// What follows from a comparison: what was proved, findings, counts.
    async fn take_in(&mut self, id: &TableId, report: &TableReport, started: i64, took: i64) {
        self.occurrences.compared(id, report, took);
        self.failed.remove(id);
        let listed = report.findings.len() as u64 == report.findings_total;
        self.tell_findings(id, report, listed).await;
        let now = clock::now_micros();
        let verified = match (&report.verified_through, report.findings_total) {
            (Some(through), 0) => Some(Verified { position: through.position.clone(), micros: now, rows: through.rows }),
            _ => None,
        };
        {
            let mut picture = self.shared.picture();
            if let (Some(at), true) = (&report.at, self.policy.applies) {
                let delta = picture.window.delta(id, at);
                for (source, rows) in [(true, report.rows_source), (false, report.rows_target)] {
                    if let (Some(rows), Some(delta)) = (rows, delta) {
                        picture.state.set_rows(id, source, rows, delta, now, false);
                    }
                }
            } else if let Some(rows) = report.rows_target {
                picture.state.set_rows(id, false, rows, 0, now, false);
            }
            if let Some(table) = picture.state.tables.get_mut(id) {
                table.compared = Some((started, took));
                table.gap = false;
                table.open_beyond = !listed;
                table.open = if listed { std::mem::take(&mut table.open) } else { verdicts(&report.by_verdict) };
                table.could_not_look = None;
                table.unverified.clone_from(&report.unverified);
                table.notes.clone_from(&report.notes);
                table.representation_only.clone_from(&report.representation_only);
                if report.target.is_some() {
                    table.verified.clone_from(&verified);
                }
            }
        }
        if let Some(verified) = verified {
            let _ = self.line.send(Order::Verified(id.clone(), verified)).await;
        }
    }

    /// Findings as news; open ones that were not seen again are told as gone.
    async fn tell_findings(&mut self, id: &TableId, report: &TableReport, listed: bool) {
        let mut events: Vec<Event> = Vec::new();
        let mut seen = HashSet::new();
        for found in &report.findings {
            let finding = Finding {
                table: id.clone(),
                verdict: match found.verdict {
                    "missing" => Verdict::Missing,
                    "extra" => Verdict::Extra,
                    _ => Verdict::Changed,
                },
                key: found.key.clone(),
                columns: found.columns.clone(),
                cause: None,
                settled_by: found.settled_by.to_owned(),
                validator: VALIDATOR.to_owned(),
                position: report.verified_through.as_ref().map(|through| through.position.clone()),
                resolved: false,
                copies: found.copies_source.zip(found.copies_target),
            };
            seen.insert(finding.identity());
            events.push(Event::Finding(finding));
        }
        if listed && report.target.is_some() {
            events.extend(gone(&self.shared, id, |identity| !seen.contains(identity), report.at.as_ref()).await);
        }
        if !events.is_empty() {
            let _ = self.news.send(events).await;
        }
    }
}

/// The exact number of rows in a view of its own, and the view's bounds.
pub async fn count_in_view(reader: &mut dyn Reader, table: &TableId) -> Result<(View, u64)> {
    let view = reader.begin().await?;
    let count = reader.count(table).await;
    reader.end().await?;
    Ok((view, count?))
}

/// The open findings of a table that `is_gone` says are gone, as news.
pub async fn gone(shared: &Shared, id: &TableId, is_gone: impl Fn(&str) -> bool, at: Option<&Position>) -> Vec<Event> {
    let query = FindingQuery { table: Some(id.clone()), open: Some(true), before: None, limit: 10_000 };
    match shared.history.findings(&query).await {
        Ok(open) => open
            .into_iter()
            .filter(|stored| stored.finding.validator == VALIDATOR && is_gone(&stored.finding.identity()))
            .map(|stored| Event::Finding(Finding { resolved: true, position: at.map(ToString::to_string), ..stored.finding }))
            .collect(),
        Err(error) => {
            tracing::warn!(table = %id, error = error.chain(), "open findings could not be read");
            Vec::new()
        }
    }
}

fn changed_since(table: &TableState, micros: i64) -> bool {
    table.last.as_ref().is_some_and(|last| last.commit_micros > micros)
}

fn verdicts(by_verdict: &BTreeMap<&'static str, u64>) -> BTreeMap<Verdict, u64> {
    by_verdict
        .iter()
        .map(|(verdict, count)| {
            let verdict = match *verdict {
                "missing" => Verdict::Missing,
                "extra" => Verdict::Extra,
                _ => Verdict::Changed,
            };
            (verdict, *count)
        })
        .collect()
}
