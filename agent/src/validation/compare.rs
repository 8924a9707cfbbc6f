//! Compares one table.
//!
//! With a key that both sides sort alike, both sides are streamed in key order and merged. With any other key (text: collations differ)
//! the source is streamed and the target looked up by key, and rows that only the target has are found from its side. Without a key,
//! rows are compared as a multiset.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::time::Instant;

use plumbline_sdk::plugin::PairRow;
use plumbline_sdk::{Error, KeyRange, Pair, Position, ReadPlan, Reader, Result, RowBlock, Validator, Verdict};
use tokio::sync::watch;

use crate::shared::{TableReport, VerifiedThrough};
use crate::state::Unverified;
use crate::validation::feed::Feed;
use crate::validation::fence::{self, Expected, Fence, Lost, Views};
use crate::validation::judge::{self, Judge};
use crate::validation::keys;
use crate::validation::keyless;
use crate::validation::plan::Plan;

/// How a comparison is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Rows of the source in one pair of views; a table with more takes several, one after the other.
    pub chunk_rows: u64,
    /// How many findings are listed; all are counted.
    pub max_findings: usize,
    /// Whether findings carry the text of differing cells.
    pub values: bool,
}

/// One comparison: its two readers and what it may tell while it runs.
pub struct Comparison<'a> {
    /// Reads the source. Taken while a task reads with it.
    pub source: &'a mut Option<Box<dyn Reader>>,
    /// Reads the target.
    pub target: &'a mut Option<Box<dyn Reader>>,
    /// What settles a difference.
    pub fence: Fence,
    /// The judge of pairs.
    pub validator: &'a mut dyn Validator,
    /// How.
    pub options: Options,
    /// Told how many rows were compared so far.
    pub progress: &'a (dyn Fn(u64) + Send + Sync),
    /// Told how many rows differed and wait to be read again.
    pub suspects: &'a (dyn Fn(u64) + Send + Sync),
    /// True: stop soon.
    pub cancel: watch::Receiver<bool>,
}

/// Suspects of a comparison that time settles, at most; what is above is said to be unverified.
pub(super) const MAX_SUSPECTS: usize = 1_000_000;
/// Keys looked up at once.
pub(super) const LOOKUP: usize = 2_000;
/// Keys of the source that are remembered at most: 16 bytes and a place in a table each.
const MAX_KNOWN: usize = 20_000_000;
/// How often a chunk begins again before the table is given up for now.
const RESTARTS: u32 = 5;
/// How often a view of a table without key is opened again because a write crossed it.
const CROSSINGS: u32 = 100;

/// Compares a table. `Err`: could not look, nothing is said of the table.
pub async fn compare_table(run: &mut Comparison<'_>, plan: &Plan) -> Result<TableReport> {
    for _ in 0..RESTARTS {
        let report = look(run, plan).await?;
        // PostgreSQL's TRUNCATE and rewriting ALTER are not in the view's time: a view opened before one reads an emptied table after it.
        // Whatever could be seen of them came into the window before they were applied.
        let reshaped = match (&run.fence, &report.at) {
            (Fence::Stream(shared), Some(at)) if report.findings_total > 0 => shared.picture().window.reshaped(&plan.schema.id, at),
            _ => false,
        };
        if !reshaped {
            return Ok(report);
        }
    }
    Err(Error::rejected(format!("`{}` kept being truncated or changing its shape while it was compared", plan.schema.id)))
}

/// One look at the whole table.
async fn look(run: &mut Comparison<'_>, plan: &Plan) -> Result<TableReport> {
    let started = Instant::now();
    let limit = match run.fence {
        Fence::Stream(_) => run.options.max_findings,
        Fence::Time(_) | Fence::Sink { .. } => MAX_SUSPECTS,
    };
    let mut report = if plan.key() == 0 {
        keyless::compare(run, plan).await?
    } else {
        let mut judge = Judge::new(&mut *run.validator, limit, run.options.values);
        // The judge borrows the validator; the rest of the run is taken apart so that both can be used.
        let mut walk = Walk { source: run.source, target: run.target, fence: &run.fence, options: &run.options, progress: run.progress, suspects: run.suspects, cancel: &run.cancel };
        let position = if plan.source_plan.ordered { walk.merge(plan, &mut judge).await? } else { walk.look_up(plan, &mut judge).await? };
        judge.finish()?;
        let settled_by = walk.settle(plan, &mut judge).await?;
        report(plan, &judge, settled_by, run.options.max_findings, position)
    };
    report.table = plan.schema.id.to_string();
    report.target = Some(plan.target.id.to_string());
    report.unverified.extend(plan.unverified.iter().cloned());
    report.notes.extend(plan.notes.iter().cloned());
    report.verdict = match (report.findings_total, report.unverified.is_empty()) {
        (0, true) => "equal",
        (0, false) => "unverified",
        _ => "different",
    };
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

fn report(plan: &Plan, judge: &Judge<'_>, settled_by: &'static str, max_findings: usize, position: Option<Position>) -> TableReport {
    let mut unverified: Vec<Unverified> = Vec::new();
    for ((column, reason), cells) in &judge.unjudged {
        unverified.push(Unverified { columns: vec![plan.name(*column).to_owned()], reason: format!("{reason} ({cells} cells)") });
    }
    TableReport {
        rows_source: Some(judge.source_rows),
        rows_target: Some(judge.target_rows),
        rows_compared: judge.compared,
        findings_total: judge.total,
        by_verdict: judge.by_verdict.iter().map(|(verdict, count)| (verdict.as_str(), *count)).collect(),
        findings: judge.found.iter().take(max_findings).map(|found| judge::report(plan, found, settled_by)).collect(),
        representation_only: judge.representation_only.iter().map(|(column, cells)| (plan.name(*column).to_owned(), *cells)).collect(),
        unverified,
        at: position.clone(),
        verified_through: position.map(|position| VerifiedThrough { position: position.to_string(), time: now(), rows: judge.source_rows }),
        ..TableReport::default()
    }
}

/// Now, RFC 3339 UTC with microseconds.
pub fn now() -> String {
    crate::clock::text(crate::clock::now_micros())
}

pub(super) struct Walk<'a> {
    pub source: &'a mut Option<Box<dyn Reader>>,
    pub target: &'a mut Option<Box<dyn Reader>>,
    pub fence: &'a Fence,
    pub options: &'a Options,
    pub progress: &'a (dyn Fn(u64) + Send + Sync),
    pub suspects: &'a (dyn Fn(u64) + Send + Sync),
    pub cancel: &'a watch::Receiver<bool>,
}

fn missing_reader() -> Error {
    Error::disconnected("a reader was lost with its task; the comparison begins again with a new one")
}

/// The reader in `slot`, for calls that do not need a task.
pub(super) fn reader(slot: &mut Option<Box<dyn Reader>>) -> Result<&mut dyn Reader> {
    match slot {
        Some(reader) => Ok(&mut **reader),
        None => Err(missing_reader()),
    }
}

impl Walk<'_> {
    pub(super) fn check_cancel(&self) -> Result<()> {
        if *self.cancel.borrow() { Err(Error::rejected("the comparison was cancelled")) } else { Ok(()) }
    }

    /// Opens both views, beginning again while the stream makes that necessary.
    pub async fn open(&mut self, plan: &Plan) -> Result<Views> {
        let mut restarts = 0;
        let mut crossings = 0;
        while restarts < RESTARTS && crossings < CROSSINGS {
            self.check_cancel()?;
            let opened = fence::open(self.fence, reader(self.source)?, reader(self.target)?, plan).await;
            match opened {
                Ok(views) => return Ok(views),
                Err(Lost::Restart(reason)) => {
                    tracing::debug!(table = %plan.schema.id, reason, "a view was given up");
                    restarts += 1;
                    self.close().await?;
                }
                Err(Lost::Crossed) => {
                    crossings += 1;
                    self.close().await?;
                }
                Err(Lost::Error(error)) => {
                    // The first error is the one to tell; the views are closed as far as that is still possible.
                    let _ = self.close().await;
                    return Err(error);
                }
            }
        }
        let why = if crossings > 0 { "is written to all the time, and has no key" } else { "kept changing its shape between the two reads" };
        Err(Error::rejected(format!("`{}` {why}", plan.schema.id)))
    }

    pub async fn close(&mut self) -> Result<()> {
        let source = reader(self.source)?.end().await;
        let target = reader(self.target)?.end().await;
        source.and(target)
    }

    /// Starts both readers on the same range.
    async fn feeds(&mut self, plan: &Plan, range: &KeyRange) -> Result<(Feed, Feed)> {
        let source = self.source.take().ok_or_else(missing_reader)?;
        let Some(target) = self.target.take() else {
            *self.source = Some(source);
            return Err(missing_reader());
        };
        Ok((Feed::start(source, plan.source_plan.clone(), range.clone(), None), Feed::start(target, plan.target_plan.clone(), range.clone(), None)))
    }

    /// Takes the readers back. The read's own error comes before the merge's: it is the cause.
    async fn take_back(&mut self, source: Feed, target: Option<Feed>, merged: Result<()>) -> Result<()> {
        let (reader, source_read) = source.end().await?;
        *self.source = Some(reader);
        let mut target_read = Ok(());
        if let Some(target) = target {
            let (reader, read) = target.end().await?;
            *self.target = Some(reader);
            target_read = read;
        }
        // A merge that stopped early makes the readers fail with "stopped": then the merge's error is the cause.
        match merged {
            Err(error) => Err(error),
            Ok(()) => source_read.and(target_read),
        }
    }

    /// Both sides in key order, merged; chunk by chunk.
    async fn merge(&mut self, plan: &Plan, judge: &mut Judge<'_>) -> Result<Option<Position>> {
        let mut after: Option<Vec<String>> = None;
        let mut first: Option<Position> = None;
        loop {
            let mut views = self.open(plan).await?;
            let upto = reader(self.source)?.bound(&plan.source_plan, after.as_deref(), self.options.chunk_rows).await?;
            let range = KeyRange { after: after.take(), upto: upto.clone() };
            let (mut source, mut target) = self.feeds(plan, &range).await?;
            let merged = merge_feeds(plan, judge, &mut source, &mut target, &mut views.expected, self.progress, self.cancel).await;
            self.take_back(source, Some(target), merged).await?;
            judge_unseen(plan, judge, &mut views.expected, &range)?;
            self.close().await?;
            first = first.or(views.at);
            match upto {
                Some(upto) => after = Some(upto),
                None => return Ok(first),
            }
        }
    }

    /// The source streamed, the target looked up by key; then what only the target has.
    async fn look_up(&mut self, plan: &Plan, judge: &mut Judge<'_>) -> Result<Option<Position>> {
        let mut views = self.open(plan).await?;
        let source = self.source.take().ok_or_else(missing_reader)?;
        let mut source = Feed::start(source, plan.source_plan.clone(), KeyRange::default(), None);
        // Where a canonical key does not name the source's own spelling, the source cannot be asked for it: its keys are remembered.
        let exact = plan.source_plan.columns[..plan.key()].iter().all(|column| column.rule.key_is_exact());
        let mut known = (!exact).then(HashSet::new);
        let looked = self.look_up_feed(plan, judge, &mut source, &mut views.expected, &mut known).await;
        self.take_back(source, None, looked).await?;
        // Keys that only the stream knows, at the target.
        let unseen: Vec<Vec<u8>> = views.expected.rows.iter().filter(|(_, row)| !row.seen).map(|(key, _)| key.clone()).collect();
        for keys in unseen.chunks(LOOKUP) {
            let block = keys::block_for(&plan.target_plan, keys.iter().map(Vec::as_slice))?;
            let found = reader(self.target)?.rows_by_key(&plan.target_plan, &block).await?;
            let at = index(&plan.target_plan, &found)?;
            let pairs: Vec<Pair<'_>> = keys
                .iter()
                .map(|key| Pair {
                    source: views.expected.rows.get(key).and_then(|row| row.row.as_ref()).map(|row| PairRow::Row(row, &plan.stream_columns)),
                    target: at.get(key.as_slice()).map(|&row| (&found, row)),
                })
                .filter(|pair| pair.source.is_some() || pair.target.is_some())
                .collect();
            judge.judge_pairs(plan, &pairs)?;
        }
        let target_rows = reader(self.target)?.count(&plan.target.id).await?;
        if target_rows > judge.target_rows {
            self.look_up_extras(plan, judge, &views.expected, known.as_ref()).await?;
        }
        self.close().await?;
        Ok(views.at)
    }

    async fn look_up_feed(&mut self, plan: &Plan, judge: &mut Judge<'_>, source: &mut Feed, expected: &mut Expected, known: &mut Option<HashSet<u128>>) -> Result<()> {
        let mut key = Vec::new();
        while source.refill().await {
            self.check_cancel()?;
            let mut from = 0;
            while from < source.block.rows() {
                let upto = (from + LOOKUP).min(source.block.rows());
                let mut keys = Vec::with_capacity(upto - from);
                for row in from..upto {
                    keys::of_block(&plan.source_plan, &source.block, row, &mut key)?;
                    if let Some(known) = known {
                        if known.len() >= MAX_KNOWN {
                            return Err(Error::rejected(format!("`{}` has more than {MAX_KNOWN} rows, and a key that the source cannot be asked for by value", plan.schema.id)));
                        }
                        known.insert(xxhash_rust::xxh3::xxh3_128(&key));
                    }
                    keys.push(key.clone());
                }
                let block = keys::block_for(&plan.target_plan, keys.iter().map(Vec::as_slice))?;
                let found = reader(self.target)?.rows_by_key(&plan.target_plan, &block).await?;
                let at = index(&plan.target_plan, &found)?;
                let rows: Vec<_> = keys.iter().enumerate().map(|(i, key)| (Some(from + i), at.get(key.as_slice()).copied())).collect();
                judge.judge(plan, &source.block, &found, &rows, expected)?;
                from = upto;
            }
            (self.progress)(judge.compared);
        }
        Ok(())
    }

    /// Rows of the target that no source row was paired with.
    async fn look_up_extras(&mut self, plan: &Plan, judge: &mut Judge<'_>, expected: &Expected, known: Option<&HashSet<u128>>) -> Result<()> {
        let keys_only = |side: &ReadPlan| ReadPlan { columns: side.columns[..side.key].to_vec(), ..side.clone() };
        let (source_keys, target_keys) = (keys_only(&plan.source_plan), keys_only(&plan.target_plan));
        let target = self.target.take().ok_or_else(missing_reader)?;
        let mut feed = Feed::start(target, target_keys.clone(), KeyRange::default(), None);
        let mut extras: Vec<Vec<u8>> = Vec::new();
        let mut looked = Ok(());
        'feed: while feed.refill().await {
            let mut keys = Vec::with_capacity(feed.block.rows());
            let mut key = Vec::new();
            for row in 0..feed.block.rows() {
                looked = keys::of_block(&target_keys, &feed.block, row, &mut key);
                if looked.is_err() {
                    break 'feed;
                }
                keys.push(key.clone());
            }
            for keys in keys.chunks(LOOKUP) {
                let absent = match known {
                    Some(known) => Ok(keys.iter().filter(|key| !expected.rows.contains_key(key.as_slice()) && !known.contains(&xxhash_rust::xxh3::xxh3_128(key))).cloned().collect()),
                    None => self.absent_at_source(&source_keys, keys, expected).await,
                };
                match absent {
                    Ok(absent) => extras.extend::<Vec<Vec<u8>>>(absent),
                    Err(error) => {
                        looked = Err(error);
                        break 'feed;
                    }
                }
            }
        }
        let (reader_back, read) = feed.end().await?;
        *self.target = Some(reader_back);
        looked.and(read)?;
        let empty = RowBlock::new(plan.source_plan.columns.len());
        for keys in extras.chunks(LOOKUP) {
            let block = keys::block_for(&plan.target_plan, keys.iter().map(Vec::as_slice))?;
            let found = reader(self.target)?.rows_by_key(&plan.target_plan, &block).await?;
            let rows: Vec<_> = (0..found.rows()).map(|row| (None, Some(row))).collect();
            judge.judge(plan, &empty, &found, &rows, &mut Expected::default())?;
        }
        Ok(())
    }

    async fn absent_at_source(&mut self, source_keys: &ReadPlan, keys: &[Vec<u8>], expected: &Expected) -> Result<Vec<Vec<u8>>> {
        // Keys that the stream knows were judged already.
        let asked: Vec<&Vec<u8>> = keys.iter().filter(|key| !expected.rows.contains_key(key.as_slice())).collect();
        let block = keys::block_for(source_keys, asked.iter().map(|key| key.as_slice()))?;
        let found = reader(self.source)?.rows_by_key(source_keys, &block).await?;
        let there: HashSet<Vec<u8>> = index(source_keys, &found)?.into_keys().collect();
        Ok(asked.into_iter().filter(|key| !there.contains(key.as_slice())).cloned().collect())
    }
}

/// Merges two feeds in key order.
async fn merge_feeds(
    plan: &Plan,
    judge: &mut Judge<'_>,
    source: &mut Feed,
    target: &mut Feed,
    expected: &mut Expected,
    progress: &(dyn Fn(u64) + Send + Sync),
    cancel: &watch::Receiver<bool>,
) -> Result<()> {
    let plans = (&plan.source_plan, &plan.target_plan);
    let mut rows: Vec<(Option<usize>, Option<usize>)> = Vec::new();
    let mut scratch = (Vec::new(), Vec::new());
    let (mut more_source, mut more_target) = (true, true);
    loop {
        if (more_source && source.is_used_up()) || (more_target && target.is_used_up()) {
            judge.judge(plan, &source.block, &target.block, &rows, expected)?;
            rows.clear();
            progress(judge.compared);
            if *cancel.borrow() {
                return Err(Error::rejected("the comparison was cancelled"));
            }
            if more_source && source.is_used_up() {
                more_source = source.refill().await;
            }
            if more_target && target.is_used_up() {
                more_target = target.refill().await;
            }
        }
        let order = match (more_source, more_target) {
            (false, false) => break,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (true, true) => keys::order_of_rows(plans, (&source.block, source.row), (&target.block, target.row), &mut scratch)?,
        };
        rows.push(match order {
            Ordering::Less => (Some(source.row), None),
            Ordering::Greater => (None, Some(target.row)),
            Ordering::Equal => (Some(source.row), Some(target.row)),
        });
        source.row += usize::from(order != Ordering::Greater);
        target.row += usize::from(order != Ordering::Less);
    }
    judge.judge(plan, &source.block, &target.block, &rows, expected)
}

/// Rows that the stream left on the source, in this range, and that neither read showed.
fn judge_unseen(plan: &Plan, judge: &mut Judge<'_>, expected: &mut Expected, range: &KeyRange) -> Result<()> {
    if expected.rows.is_empty() {
        return Ok(());
    }
    let bound = |cells: &Option<Vec<String>>| cells.as_deref().map(|cells| keys::of_bound(&plan.source_plan, cells)).transpose();
    let (after, upto) = (bound(&range.after)?, bound(&range.upto)?);
    let inside = |key: &[u8]| {
        after.as_ref().is_none_or(|after| keys::order(&plan.source_plan, key, after) == Ordering::Greater)
            && upto.as_ref().is_none_or(|upto| keys::order(&plan.source_plan, key, upto) != Ordering::Greater)
    };
    let pairs: Vec<Pair<'_>> = expected
        .rows
        .iter()
        .filter(|(key, row)| !row.seen && row.row.is_some() && inside(key))
        .filter_map(|(_, row)| Some(Pair { source: Some(PairRow::Row(row.row.as_ref()?, &plan.stream_columns)), target: None }))
        .collect();
    judge.judge_pairs(plan, &pairs)
}

/// Canonical key to row number.
pub(super) fn index(plan: &ReadPlan, block: &RowBlock) -> Result<HashMap<Vec<u8>, usize>> {
    let mut at = HashMap::with_capacity(block.rows());
    let mut key = Vec::new();
    for row in 0..block.rows() {
        keys::of_block(plan, block, row, &mut key)?;
        at.insert(key.clone(), row);
    }
    Ok(at)
}

/// What a finding's verdict is where only numbers of copies differ.
pub(super) fn copies_verdict(source: u64, target: u64) -> Verdict {
    if target < source { Verdict::Missing } else { Verdict::Extra }
}
