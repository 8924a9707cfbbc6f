//! Rows that differed at first sight, where the sink is not ours: what of them is a difference, and what is only on its way.
//!
//! By offsets, where the stream comes by Kafka and the sink's committed offsets can be read: the source's rows are read in a view, the topics
//! are read through everything that the view can show, the sink has committed all of that, and only then is the target read. A target row must
//! then be what the newest change that the sink has surely applied left, or what a later one left. Anything else is a difference, and no timer
//! decides. By time, where there are no offsets: rows that still differ after a while, although their source rows stood still.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use plumbline_sdk::plugin::PairRow;
use plumbline_sdk::{Batch, Error, Event, Op, Pair, Position, Result, Row, RowBlock};

use crate::shared::Shared;
use crate::validation::compare::{LOOKUP, MAX_SUSPECTS, Walk, index, reader};
use crate::validation::fence::{self, Expected, Fence, Lost, OtherSink};
use crate::validation::judge::{Found, Judge};
use crate::validation::keys;
use crate::validation::plan::Plan;
use crate::window::events_between;

/// How often suspects are looked at again: by time while their source rows change, by offsets while the table changes its shape.
const ROUNDS: u32 = 3;
/// How long a sink may take to commit what was there when the source was read. Connect's workers commit once a minute by default.
const PATIENCE: Duration = Duration::from_secs(180);
/// How often its offsets are asked for.
const AGAIN: Duration = Duration::from_millis(500);

/// How a look by offsets ended.
enum Looked {
    /// These are differences.
    Settled(Vec<Found>),
    /// Nobody knows of a sink that reads the table's topic.
    NoSink,
    /// Not all that was there has come through yet: why.
    Behind(String),
}

/// The rows that a key may have on the target.
#[derive(Default)]
pub(super) struct Admissible<'a> {
    /// Whether the first of `rows` is surely applied: then nothing older is admissible.
    pub(super) certain: bool,
    /// What the key had before the first of `rows`, as its change told; none where that is certain.
    before: Option<Option<&'a Row>>,
    /// In the stream's order; None: deleted.
    rows: Vec<Option<&'a Row>>,
}

impl Walk<'_> {
    /// Settles what differed at first sight. Says by what.
    pub(super) async fn settle(&mut self, plan: &Plan, judge: &mut Judge<'_>) -> Result<&'static str> {
        match self.fence {
            Fence::Stream(_) => Ok("position"),
            Fence::Time(settle) => self.settle_by_time(plan, judge, *settle).await.map(|()| "time"),
            Fence::Sink { shared, sink, settle } => {
                let (shared, sink, settle) = (Arc::clone(shared), Arc::clone(sink), *settle);
                if self.settle_by_offsets(plan, judge, &shared, &*sink).await? {
                    return Ok("offsets");
                }
                self.settle_by_time(plan, judge, settle).await.map(|()| "time")
            }
        }
    }

    async fn settle_by_time(&mut self, plan: &Plan, judge: &mut Judge<'_>, settle: Duration) -> Result<()> {
        let mut suspects = std::mem::take(&mut judge.found);
        if suspects.is_empty() {
            return Ok(());
        }
        let first = First::of(judge, &suspects);
        let mut settled: Vec<Found> = Vec::new();
        for _ in 0..ROUNDS {
            (self.suspects)(suspects.len() as u64);
            tracing::info!(table = %plan.schema.id, rows = suspects.len(), seconds = settle.as_secs_f64(), "rows differ: waiting, then reading them again");
            self.pause(settle).await?;
            let again = self.look_again(plan, judge, &suspects).await?;
            let before: HashMap<&[u8], u64> = suspects.iter().map(|found| (found.key.as_slice(), found.source_hash)).collect();
            let (still, moved): (Vec<Found>, Vec<Found>) = again.into_iter().partition(|found| before.get(found.key.as_slice()) == Some(&found.source_hash));
            settled.extend(still);
            suspects = moved;
            if suspects.is_empty() {
                break;
            }
        }
        first.end(judge, settled);
        if !suspects.is_empty() {
            judge.unjudged.insert((0, "rows kept changing while they were looked at".into()), suspects.len() as u64);
        }
        Ok(())
    }

    /// Suspects read again on both sides: those that differ now.
    async fn look_again(&mut self, plan: &Plan, judge: &mut Judge<'_>, suspects: &[Found]) -> Result<Vec<Found>> {
        self.open(plan).await?;
        judge.found = Vec::new();
        for group in suspects.chunks(LOOKUP) {
            self.check_cancel()?;
            let (source, target) = self.both(plan, group).await?;
            let (at_source, at_target) = (index(&plan.source_plan, &source)?, index(&plan.target_plan, &target)?);
            let keys = group.iter().map(|found| found.key.as_slice());
            let rows: Vec<_> = keys.map(|key| (at_source.get(key).copied(), at_target.get(key).copied())).filter(|pair| *pair != (None, None)).collect();
            judge.judge(plan, &source, &target, &rows, &mut Expected::default())?;
        }
        self.close().await?;
        Ok(std::mem::take(&mut judge.found))
    }

    /// The rows of these keys, in the views that are open.
    async fn both(&mut self, plan: &Plan, group: &[Found]) -> Result<(RowBlock, RowBlock)> {
        let keys = || group.iter().map(|found| found.key.as_slice());
        let source = reader(self.source)?.rows_by_key(&plan.source_plan, &keys::block_for(&plan.source_plan, keys())?).await?;
        let target = reader(self.target)?.rows_by_key(&plan.target_plan, &keys::block_for(&plan.target_plan, keys())?).await?;
        Ok((source, target))
    }

    /// False: there is no sink whose offsets could be read; nothing was settled.
    async fn settle_by_offsets(&mut self, plan: &Plan, judge: &mut Judge<'_>, shared: &Shared, sink: &dyn OtherSink) -> Result<bool> {
        let suspects = std::mem::take(&mut judge.found);
        if suspects.is_empty() {
            return Ok(true);
        }
        let first = First::of(judge, &suspects);
        (self.suspects)(suspects.len() as u64);
        let mut why = "";
        for _ in 0..ROUNDS {
            let looked = self.look_by_offsets(plan, judge, &suspects, shared, sink).await;
            // The views are of no use any more; an error that ended the look is told first.
            let closed = self.close().await;
            match looked {
                Ok(Looked::Settled(settled)) => {
                    closed?;
                    first.end(judge, settled);
                    return Ok(true);
                }
                Ok(Looked::NoSink) => {
                    closed?;
                    judge.found = suspects;
                    return Ok(false);
                }
                Ok(Looked::Behind(why)) => {
                    closed?;
                    let rows = suspects.len() as u64;
                    first.end(judge, Vec::new());
                    judge.unjudged.insert((0, format!("rows differ that may be on their way: {why}")), rows);
                    return Ok(true);
                }
                Err(Lost::Restart(reason)) => why = reason,
                Err(Lost::Crossed) => {}
                Err(Lost::Error(error)) => return Err(error),
            }
        }
        Err(Error::rejected(format!("rows of `{}` that differed could not be looked at again: {why}", plan.schema.id)))
    }

    async fn look_by_offsets(&mut self, plan: &Plan, judge: &mut Judge<'_>, suspects: &[Found], shared: &Shared, sink: &dyn OtherSink) -> std::result::Result<Looked, Lost> {
        let table = &plan.schema.id;
        let Some((_, applied)) = sink.applied(table).await? else { return Ok(Looked::NoSink) };
        // Most of what differs under traffic is what the newest records say: for that, nobody has to be waited for.
        reader(self.target)?.begin().await?;
        let suspects = self.judge_suspects(plan, judge, suspects, shared, sink, (None, &applied)).await?;
        reader(self.target)?.end().await?;
        if suspects.is_empty() {
            return Ok(Looked::Settled(Vec::new()));
        }
        let view = reader(self.source)?.begin().await?;
        let high = view.high.ok_or_else(|| Error::rejected("the source's reader gave no upper bound of its view"))?;
        // Whatever the view shows and was changed since the stream was followed has come by then.
        let started = Instant::now();
        while !received(shared).is_some_and(|position| position.reached(high)) {
            if started.elapsed() > PATIENCE {
                return Ok(Looked::Behind("the connector has not stored that it sent them".into()));
            }
            self.pause(fence::AGAIN).await?;
        }
        let end = sink.end(table).await?;
        let started = Instant::now();
        let applied = loop {
            let Some((name, applied)) = sink.applied(table).await? else { return Ok(Looked::NoSink) };
            if is_within(&end, &applied) {
                break applied;
            }
            if started.elapsed() > PATIENCE {
                return Ok(Looked::Behind(format!("the sink `{name}` has not committed them")));
            }
            self.pause(AGAIN).await?;
        };
        fence::settled_start(shared).await;
        reader(self.target)?.begin().await?;
        let low = view.low.unwrap_or_default();
        self.judge_suspects(plan, judge, &suspects, shared, sink, (Some(&low), &applied)).await.map(Looked::Settled)
    }

    /// Judges suspects in the target's view, which was opened after the sink had `applied`: those whose row is none that the stream allows.
    /// With `low` the source's view is open too, and says what the stream does not; without, such rows stay suspects.
    async fn judge_suspects(
        &mut self,
        plan: &Plan,
        judge: &mut Judge<'_>,
        suspects: &[Found],
        shared: &Shared,
        sink: &dyn OtherSink,
        (low, applied): (Option<&Position>, &Position),
    ) -> std::result::Result<Vec<Found>, Lost> {
        let mut left = Vec::new();
        for group in suspects.chunks(LOOKUP) {
            self.check_cancel()?;
            let keys = || group.iter().map(|found| found.key.as_slice());
            let source = match low {
                Some(_) => reader(self.source)?.rows_by_key(&plan.source_plan, &keys::block_for(&plan.source_plan, keys())?).await?,
                None => RowBlock::new(plan.source_plan.columns.len()),
            };
            let target = reader(self.target)?.rows_by_key(&plan.target_plan, &keys::block_for(&plan.target_plan, keys())?).await?;
            // What the sink can have written by now lies before the topic's end.
            let end = sink.end(&plan.schema.id).await?;
            let started = Instant::now();
            while !received(shared).is_some_and(|position| is_within(&end, &position)) {
                if started.elapsed() > PATIENCE {
                    return Err(Error::rejected("the topic was not read to its end in time").into());
                }
                self.pause(fence::AGAIN).await?;
            }
            let (from, batches) = match low {
                Some(low) => (low.clone(), fence::since(shared, low).ok_or(Lost::Restart("the stream ran past what is remembered of it"))?),
                None => (Position::default(), shared.picture().window.all()),
            };
            let admissible = admissible(plan, &batches, &from, applied)?;
            let blocks = (&source, &target);
            if low.is_some() {
                judge_admissible(plan, judge, group, blocks, &admissible)?;
                left.append(&mut judge.found);
            } else {
                left.extend(unexplained(plan, judge, group, &target, &admissible)?);
            }
        }
        Ok(left)
    }

    async fn pause(&mut self, time: Duration) -> Result<()> {
        let mut cancel = self.cancel.clone();
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            _ = cancel.wait_for(|stop| *stop) => Err(Error::rejected("the comparison was cancelled")),
        }
    }
}

/// Whether `position` includes all that `end` does.
pub(super) fn is_within(end: &Position, position: &Position) -> bool {
    end.order(position).is_some_and(std::cmp::Ordering::is_le)
}

/// Where the stream stands in the window: everything up to there can be asked for.
pub(super) fn received(shared: &Shared) -> Option<Position> {
    shared.picture().state.received.clone()
}

/// What the first look counted, which a second look at some of the rows must not change.
struct First {
    compared: u64,
    source_rows: u64,
    target_rows: u64,
    /// Rows that differed beyond those that are remembered.
    over: u64,
}

impl First {
    fn of(judge: &mut Judge<'_>, suspects: &[Found]) -> Self {
        let first = Self { compared: judge.compared, source_rows: judge.source_rows, target_rows: judge.target_rows, over: judge.total.saturating_sub(suspects.len() as u64) };
        judge.total = 0;
        judge.by_verdict = BTreeMap::new();
        first
    }

    fn end(self, judge: &mut Judge<'_>, settled: Vec<Found>) {
        (judge.compared, judge.source_rows, judge.target_rows) = (self.compared, self.source_rows, self.target_rows);
        judge.total = settled.len() as u64;
        judge.by_verdict = BTreeMap::new();
        for found in &settled {
            *judge.by_verdict.entry(found.verdict).or_default() += 1;
        }
        judge.found = settled;
        if self.over > 0 {
            judge.unjudged.insert((0, format!("more than {MAX_SUSPECTS} rows differed at first sight; the rest was not looked at again")), self.over);
        }
    }
}

/// What the stream says of every key that it touched after `low`: from the newest change that `applied` includes on.
pub(super) fn admissible<'a>(plan: &'a Plan, batches: &'a [Arc<Batch>], low: &'a Position, applied: &Position) -> std::result::Result<HashMap<Vec<u8>, Admissible<'a>>, Lost> {
    let mut all: HashMap<Vec<u8>, Admissible<'a>> = HashMap::new();
    for (mark, event) in events_between(batches, &plan.schema.id, low, None) {
        let Event::Change(change) = event else { return Err(Lost::Restart("the table's shape changed between the two reads")) };
        if change.op == Op::Truncate {
            return Err(Lost::Restart("the table was truncated between the two reads"));
        }
        if !fence::same_columns(plan, change) {
            return Err(Lost::Restart("the table's columns changed between the two reads"));
        }
        let certain = applied.contains(&mark.id);
        let key_of = |row: &Option<Row>| -> Result<Option<Vec<u8>>> {
            let Some(row) = row else { return Ok(None) };
            let mut key = Vec::new();
            keys::of_row(&plan.source_plan, row, &plan.stream_columns, &mut key)?;
            Ok(Some(key))
        };
        let (before, after) = (key_of(&change.before)?, key_of(&change.after)?);
        // An update under the same key is one step: the row is never away.
        let update = after.is_some() && before == after;
        let gone = before.filter(|before| after.as_ref() != Some(before)).map(|key| (key, None));
        for (key, row) in gone.into_iter().chain(after.map(|key| (key, change.after.as_ref()))) {
            let entry = all.entry(key).or_default();
            if certain {
                (entry.certain, entry.before) = (true, None);
                entry.rows.clear();
            } else if entry.rows.is_empty() {
                entry.before = Some(if row.is_none() || update { change.before.as_ref() } else { None });
            }
            entry.rows.push(row);
        }
    }
    Ok(all)
}

/// The suspects whose target row is not one that the stream allows. Nothing is counted.
pub(super) fn unexplained(plan: &Plan, judge: &mut Judge<'_>, group: &[Found], target: &RowBlock, admissible: &HashMap<Vec<u8>, Admissible<'_>>) -> Result<Vec<Found>> {
    let at_target = index(&plan.target_plan, target)?;
    let mut left = Vec::new();
    for found in group {
        let theirs = at_target.get(found.key.as_slice()).map(|&row| (target, row));
        let mut fits = false;
        for row in admissible.get(&found.key).into_iter().flat_map(|known| known.before.iter().chain(&known.rows)) {
            fits |= judge.is_equal(plan, &Pair { source: row.map(|row| PairRow::Row(row, &plan.stream_columns)), target: theirs })?;
        }
        if !fits {
            left.push(found.clone());
        }
    }
    Ok(left)
}

/// Judges suspects whose source rows are known: what no admissible row equals is found to differ from the newest one.
pub(super) fn judge_admissible(plan: &Plan, judge: &mut Judge<'_>, group: &[Found], blocks: (&RowBlock, &RowBlock), admissible: &HashMap<Vec<u8>, Admissible<'_>>) -> Result<()> {
    let (source, target) = blocks;
    let (at_source, at_target) = (index(&plan.source_plan, source)?, index(&plan.target_plan, target)?);
    let mut pairs: Vec<Pair<'_>> = Vec::with_capacity(group.len());
    for found in group {
        let key = found.key.as_slice();
        let theirs = at_target.get(key).map(|&row| (target, row));
        let read = at_source.get(key).map(|&row| PairRow::Block(source, row));
        let later = admissible.get(key);
        let base = (!later.is_some_and(|later| later.certain)).then_some(read);
        let streamed = later.into_iter().flat_map(|later| &later.rows).map(|row| row.map(|row| PairRow::Row(row, &plan.stream_columns)));
        let mut last = None;
        let mut fits = false;
        for candidate in base.into_iter().chain(streamed) {
            let pair = Pair { source: candidate, target: theirs };
            fits |= judge.is_equal(plan, &pair)?;
            last = Some(pair);
        }
        pairs.extend(last.filter(|pair| !fits && (pair.source.is_some() || pair.target.is_some())));
    }
    judge.judge_pairs(plan, &pairs)
}
