//! Every change checked on the target as it is applied: no timers, final verdicts. Where our applier writes the target, that is; where
//! somebody else's sink does, see `beside.rs`.
//!
//! In one view of the target its progress A is read with the rows. A key whose newest event is at or before A must equal that event's
//! after-image; nothing else is asked, so a row in flight is never a difference.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use plumbline_sdk::plugin::{PairRow, Verified};
use plumbline_sdk::{Batch, ChangeEvent, Event, Finding, Op, Pair, Position, Reader, Result, Row, TableId, Validator, Verdict};
use tokio::sync::{mpsc, watch};

use crate::checks::{Readers, VALIDATOR, gone};
use crate::clock;
use crate::occurrences::Occurrences;
use crate::pipeline::Order;
use crate::shared::Shared;
use crate::state::Partner;
use crate::telemetry::Outcome;
use crate::validation::beside::{PACE, Waiting};
use crate::validation::fence::OtherSink;
use crate::validation::judge::{Found, Judge};
use crate::validation::{Plan, fence, keys};

/// Keys of one table that are looked up at once.
pub(super) const LOOKUP: usize = 2_000;
/// Batches that are taken at once: bounds the memory of a round.
pub(super) const ROUND: usize = 50;
const AGAIN: Duration = Duration::from_millis(10);
const QUIET: Duration = Duration::from_secs(1);
const AWAY: Duration = Duration::from_secs(2);
/// What was proved is kept in history at most this often: it is news, not truth that a restart needs to the moment.
const KEEP: i64 = 5_000_000;

/// Batches in the stream's order.
type Batches = Vec<Arc<Batch>>;

/// Follows the line and checks what it applied.
pub struct Follower {
    /// The common ground.
    pub shared: Arc<Shared>,
    /// Metrics and log lines.
    pub occurrences: Arc<Occurrences>,
    /// Makes readers.
    pub readers: Readers,
    /// Judges pairs.
    pub validator: Box<dyn Validator>,
    /// Who writes the target, where that is somebody else.
    pub sink: Option<Arc<dyn OtherSink>>,
    /// Findings go here.
    pub news: mpsc::Sender<Vec<Event>>,
    /// What was proved goes here.
    pub line: mpsc::Sender<Order>,
    /// True: end.
    pub stop: watch::Receiver<bool>,
}

/// The newest event of each key of a table: its after-image, or None where it is deleted.
#[derive(Default)]
struct Touched {
    plan: Option<Plan>,
    keys: HashMap<Vec<u8>, Option<Row>>,
}

/// What the check of a table's keys came to. Without plan: nobody could judge them.
#[derive(Default)]
pub(super) struct Looked {
    plan: Option<Plan>,
    differs: HashMap<Vec<u8>, Verdict>,
}

impl Looked {
    pub(super) fn of(plan: Plan, found: &[Found]) -> Self {
        Self { plan: Some(plan), differs: found.iter().map(|found| (found.key.clone(), found.verdict)).collect() }
    }

    /// What became of one change: its key as it is after it.
    pub(super) fn outcome(&self, change: &ChangeEvent) -> Outcome {
        let (Some(plan), Some(row)) = (&self.plan, change.after.as_ref().or(change.before.as_ref())) else { return Outcome::Unverified };
        if self.differs.is_empty() {
            return Outcome::Match;
        }
        let mut key = Vec::new();
        match keys::of_row(&plan.source_plan, row, &plan.stream_columns, &mut key).map(|()| self.differs.get(&key)) {
            Ok(None) => Outcome::Match,
            Ok(Some(Verdict::Missing)) => Outcome::Missing,
            Ok(Some(_)) => Outcome::Mismatch,
            Err(_) => Outcome::Unverified,
        }
    }
}

impl Follower {
    /// Runs until told to stop.
    pub async fn run(mut self) {
        let mut stop = self.stop.clone();
        let mut reader: Option<Box<dyn Reader>> = None;
        // Numbers of the window: everything before was checked.
        let mut cursor = 0;
        let mut kept = 0;
        let mut waiting = Waiting::default();
        loop {
            let mut applied = self.shared.applied.subscribe();
            let behind = self.shared.picture().window.next() > cursor;
            if !behind && waiting.is_empty() {
                tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => return,
                    _ = applied.changed() => {}
                    () = tokio::time::sleep(QUIET) => {}
                }
            }
            if *stop.borrow() {
                return;
            }
            let round = match self.sink.clone() {
                None => self.round(&mut reader, &mut cursor, &mut kept).await.map(|checked| if checked { Duration::ZERO } else { AGAIN }),
                Some(sink) => self.round_beside(&mut reader, &*sink, &mut cursor, &mut waiting).await.map(|()| PACE),
            };
            let pause = match round {
                Ok(Duration::ZERO) => continue,
                Ok(pause) => pause,
                Err(error) => {
                    tracing::debug!(error = error.chain(), "the check of single changes could not look");
                    reader = None;
                    AWAY
                }
            };
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Checks what was applied since `cursor`. True: something was checked.
    async fn round(&mut self, slot: &mut Option<Box<dyn Reader>>, cursor: &mut u64, kept: &mut i64) -> Result<bool> {
        if self.shared.picture().state.applied.is_none() {
            return Ok(false);
        }
        let target = self.target(slot).await?;
        let began = clock::now_micros();
        let view = target.begin().await?;
        let checked = match view.low {
            Some(at) if at.partial.is_none() => self.check(&mut **target, &at, cursor, began).await,
            _ => Ok(None),
        };
        target.end().await?;
        let Some((at, caught_up)) = checked? else { return Ok(false) };
        if caught_up {
            self.advance(&at, kept).await;
        }
        Ok(true)
    }

    /// The reader of the target, connected.
    pub(super) async fn target<'r>(&mut self, slot: &'r mut Option<Box<dyn Reader>>) -> Result<&'r mut Box<dyn Reader>> {
        let target = match slot.take() {
            Some(target) => target,
            None => {
                let (_, mut target) = (self.readers)()?;
                target.connect().await?;
                target
            }
        };
        Ok(slot.insert(target))
    }

    /// Checks the keys of the next batches that `at` contains. None: nothing to check; else whether all that `at` contains was checked.
    async fn check(&mut self, target: &mut dyn Reader, at: &Position, cursor: &mut u64, began: i64) -> Result<Option<(Position, bool)>> {
        // What the target has and the stream has not brought (again) yet may be the newest event of any key, or a TRUNCATE.
        if !self.shared.picture().window.reached(at) {
            return Ok(None);
        }
        let Some((batches, later)) = self.take(at, *cursor) else {
            // The window ran away: what went by unchecked is proved again only by a whole check.
            let mut picture = self.shared.picture();
            *cursor = picture.window.next();
            for table in picture.state.tables.values_mut() {
                table.gap = true;
            }
            return Ok(None);
        };
        if batches.is_empty() {
            return Ok(None);
        }
        let mut touched = self.touched(&batches)?;
        overtake(&mut touched, at, &later)?;
        let mut looked: HashMap<TableId, Looked> = HashMap::new();
        for (id, touched) in touched {
            let of = self.check_table(target, at, &id, touched).await?;
            looked.insert(id, of);
        }
        self.occurrences.verified(*cursor, &batches, began, |change| looked.get(&change.table.id).map_or(Outcome::Unverified, |looked| looked.outcome(change)));
        *cursor += batches.len() as u64;
        let all = !later.iter().any(|batch| batch.transactions.iter().any(|mark| at.contains(&mark.id)));
        Ok(Some((at.clone(), all)))
    }

    /// Whole batches from `cursor` that `at` contains, at most a round of them, and what came after them. None: some were dropped.
    fn take(&self, at: &Position, cursor: u64) -> Option<(Batches, Batches)> {
        let mut batches = self.shared.picture().window.since(cursor)?;
        let whole = batches.iter().take(ROUND).take_while(|batch| batch.transactions.iter().all(|mark| at.contains(&mark.id))).count();
        let later = batches.split_off(whole);
        Some((batches, later))
    }

    fn touched(&self, batches: &[Arc<Batch>]) -> Result<HashMap<TableId, Touched>> {
        let mut tables: HashMap<TableId, Touched> = HashMap::new();
        let mut key = Vec::new();
        for event in batches.iter().flat_map(|batch| batch.transactions.iter().flat_map(|mark| &batch.events[mark.events.clone()])) {
            let change = match event {
                Event::Change(change) => change,
                Event::Schema(change) => {
                    for id in std::iter::once(&change.table).chain(&change.renamed_to) {
                        tables.insert(id.clone(), Touched::default());
                    }
                    continue;
                }
                _ => continue,
            };
            let id = &change.table.id;
            if !tables.contains_key(id) {
                tables.insert(id.clone(), Touched { plan: self.plan(id), keys: HashMap::new() });
            }
            let Some(touched) = tables.get_mut(id) else { continue };
            if change.op == Op::Truncate {
                touched.keys.clear();
                continue;
            }
            let Some(plan) = touched.plan.as_ref().filter(|plan| fence::same_columns(plan, change)) else {
                // Of another shape: what it did to keys that came before cannot be told by this plan.
                touched.plan = None;
                continue;
            };
            for (row, gone) in [(&change.before, true), (&change.after, false)] {
                if let Some(row) = row {
                    keys::of_row(&plan.source_plan, row, &plan.stream_columns, &mut key)?;
                    let now = if gone { None } else { Some(row.clone()) };
                    touched.keys.insert(key.clone(), now);
                }
            }
        }
        Ok(tables)
    }

    pub(super) fn plan(&self, id: &TableId) -> Option<Plan> {
        let picture = self.shared.picture();
        let table = picture.state.tables.get(id)?;
        let copied = picture.state.is_copied(table);
        let (Some(schema), Partner::Table(target), true, None) = (&table.schema, &table.partner, copied, &table.stopped) else { return None };
        crate::validation::plan(schema, target).ok().filter(|plan| plan.key() > 0)
    }

    async fn check_table(&mut self, target: &mut dyn Reader, at: &Position, id: &TableId, touched: Touched) -> Result<Looked> {
        let Some(plan) = touched.plan else {
            // Without key, or in change: a whole check must look at it again.
            if let Some(table) = self.shared.picture().state.tables.get_mut(id) {
                table.gap = true;
            }
            return Ok(Looked::default());
        };
        let all: Vec<&Vec<u8>> = touched.keys.keys().collect();
        let mut judge = Judge::new(&mut *self.validator, usize::MAX, false);
        for group in all.chunks(LOOKUP) {
            let block = keys::block_for(&plan.target_plan, group.iter().map(|key| key.as_slice()))?;
            let found = target.rows_by_key(&plan.target_plan, &block).await?;
            let index = super::compare::index(&plan.target_plan, &found)?;
            let pairs: Vec<Pair<'_>> = group
                .iter()
                .map(|key| Pair {
                    source: touched.keys.get(*key).and_then(Option::as_ref).map(|row| PairRow::Row(row, &plan.stream_columns)),
                    target: index.get(key.as_slice()).map(|&row| (&found, row)),
                })
                .filter(|pair| pair.source.is_some() || pair.target.is_some())
                .collect();
            judge.judge_pairs(&plan, &pairs)?;
        }
        // PostgreSQL's TRUNCATE and rewriting ALTER are not in the view's time: a view opened before one reads an emptied table after it.
        if !judge.found.is_empty() && self.shared.picture().window.reshaped(id, at) {
            if let Some(table) = self.shared.picture().state.tables.get_mut(id) {
                table.gap = true;
            }
            return Ok(Looked::default());
        }
        let found = std::mem::take(&mut judge.found);
        self.conclude(&plan, touched.keys.keys(), &found, at, "position").await;
        Ok(Looked::of(plan, &found))
    }

    /// Tells what was found of these keys, and that what was open of the others is gone.
    pub(super) async fn conclude(&mut self, plan: &Plan, all: impl Iterator<Item = &Vec<u8>>, found: &[Found], at: &Position, settled_by: &'static str) {
        let id = &plan.schema.id;
        let mut events: Vec<Event> = Vec::new();
        if self.shared.picture().state.tables.get(id).is_some_and(|table| table.open_total() > 0) {
            let differing: HashSet<&[u8]> = found.iter().map(|found| found.key.as_slice()).collect();
            let equal = all.filter(|key| !differing.contains(key.as_slice()));
            let clean: BTreeSet<String> = equal.map(|key| finding(plan, key, Verdict::Changed, &[], at, settled_by).identity()).collect();
            if !clean.is_empty() {
                events.extend(gone(&self.shared, id, |identity| clean.contains(identity), Some(at)).await);
            }
        }
        if !found.is_empty() {
            if let Some(table) = self.shared.picture().state.tables.get_mut(id) {
                table.verified = None;
            }
            for found in found {
                let names: Vec<String> = found.columns.iter().map(|&i| plan.name(i).to_owned()).collect();
                events.push(Event::Finding(finding(plan, &found.key, found.verdict, &names, at, settled_by)));
            }
        }
        if !events.is_empty() {
            let _ = self.news.send(events).await;
        }
    }

    /// Everything up to `at` was checked change by change: tables that were proved before are proved through here.
    async fn advance(&mut self, at: &Position, kept: &mut i64) {
        let now = clock::now_micros();
        let mut moved = Vec::new();
        {
            let mut picture = self.shared.picture();
            let text = at.to_string();
            for (id, table) in &mut picture.state.tables {
                if table.gone || table.gap || table.open_total() > 0 || table.stopped.is_some() {
                    continue;
                }
                let rows = table.source_rows.map_or(0, |rows| u64::try_from(rows.rows).unwrap_or(0));
                if let Some(verified) = &mut table.verified {
                    *verified = Verified { position: text.clone(), micros: now, rows };
                    moved.push((id.clone(), verified.clone()));
                }
            }
        }
        self.shared.touch();
        if now - *kept > KEEP {
            *kept = now;
            for (id, verified) in moved {
                let _ = self.line.send(Order::Verified(id, verified)).await;
            }
        }
    }
}

/// The view shows what came after the batches at hand, as far as `at` contains it: the newest event of a key counts.
fn overtake(touched: &mut HashMap<TableId, Touched>, at: &Position, later: &[Arc<Batch>]) -> Result<()> {
    let mut key = Vec::new();
    for batch in later {
        for mark in batch.transactions.iter().filter(|mark| at.contains(&mark.id)) {
            for event in &batch.events[mark.events.clone()] {
                let change = match event {
                    Event::Change(change) => change,
                    Event::Schema(change) => {
                        for id in std::iter::once(&change.table).chain(&change.renamed_to) {
                            if let Some(touched) = touched.get_mut(id) {
                                touched.plan = None;
                            }
                        }
                        continue;
                    }
                    _ => continue,
                };
                let Some(Touched { plan: slot @ Some(_), keys }) = touched.get_mut(&change.table.id) else { continue };
                let Some(plan) = slot.as_ref().filter(|plan| fence::same_columns(plan, change)) else {
                    *slot = None;
                    continue;
                };
                if change.op == Op::Truncate {
                    keys.values_mut().for_each(|row| *row = None);
                    continue;
                }
                for (row, gone) in [(&change.before, true), (&change.after, false)] {
                    if let Some(row) = row {
                        keys::of_row(&plan.source_plan, row, &plan.stream_columns, &mut key)?;
                        if let Some(now) = keys.get_mut(key.as_slice()) {
                            *now = if gone { None } else { Some(row.clone()) };
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

fn finding(plan: &Plan, key: &[u8], verdict: Verdict, columns: &[String], at: &Position, settled_by: &'static str) -> Finding {
    Finding {
        table: plan.schema.id.clone(),
        verdict,
        key: keys::text(&plan.source_plan, key),
        columns: columns.to_vec(),
        cause: None,
        settled_by: settled_by.into(),
        validator: VALIDATOR.into(),
        position: Some(at.to_string()),
        resolved: false,
        copies: None,
    }
}
