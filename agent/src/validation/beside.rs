//! Every change checked on the target where somebody else's sink writes it (protocol C, per event).
//!
//! A change is settled when the sink has committed its offset. Then its row must be what the newest settled change of its key left, or what
//! any later one left, up to the end of the topic after the row was read. What is none of these is read once more, with the topic read to its
//! end, before it is found to differ. Nothing is kept but the numbers of batches: rows are taken from the window, by key, the newest ones.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use plumbline_sdk::{Batch, ChangeEvent, Error, ErrorKind, Event, Op, Position, Reader, Result, RowBlock, TableId, TransactionMark, Verdict};

use crate::shared::Shared;
use crate::validation::fence::{self, Lost, OtherSink};
use crate::validation::follow::{Follower, LOOKUP, Looked, ROUND};
use crate::validation::judge::{Found, Judge};
use crate::validation::settle::{admissible, is_within, judge_admissible, received, unexplained};
use crate::validation::{Plan, keys};

/// How often the sink's offsets are asked for.
pub(super) const PACE: Duration = Duration::from_millis(500);
/// How long the topic may take to be read to its end; it is tried again in the next round.
const PATIENCE: Duration = Duration::from_secs(10);

/// Numbers of batches in the window with changes of a table, and how many of them each has.
type Queue = VecDeque<(u64, u64)>;

/// Changes that are not checked yet.
#[derive(Default)]
pub(super) struct Waiting {
    tables: BTreeMap<TableId, Queue>,
    told: Told,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }
}

/// Records of which the window says nothing, counted: those that other agents read before partitions were claimed, those that a connector
/// sent again (the sink writes them again), and those that could not be taken. Where a number rose, the window is not all that a sink read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Told {
    claims: u64,
    duplicates: u64,
    aside: u64,
}

impl Told {
    fn of(shared: &Shared) -> Self {
        Self {
            claims: shared.membership.as_ref().map_or(0, |membership| membership.claims()),
            duplicates: shared.picture().state.live.duplicates,
            aside: shared.aside.get().map_or(0, |aside| aside().0),
        }
    }
}

/// The changes of a table in a batch, with their transactions.
fn changes<'a>(batch: &'a Batch, table: &'a TableId) -> impl Iterator<Item = (&'a TransactionMark, &'a ChangeEvent)> {
    batch.transactions.iter().flat_map(|mark| batch.events[mark.events.clone()].iter().map(move |event| (mark, event))).filter_map(move |(mark, event)| match event {
        // A row that was read changed nothing on the source.
        Event::Change(change) if change.table.id == *table && change.op != Op::Snapshot => Some((mark, change)),
        _ => None,
    })
}

impl Follower {
    /// Checks what the sink has settled since the last round.
    pub(super) async fn round_beside(&mut self, slot: &mut Option<Box<dyn Reader>>, sink: &dyn OtherSink, cursor: &mut u64, waiting: &mut Waiting) -> Result<()> {
        let told = Told::of(&self.shared);
        if told != waiting.told {
            for (id, mut queue) in std::mem::take(&mut waiting.tables) {
                self.give_up(&id, &mut queue, true);
            }
            (*cursor, waiting.told) = (self.shared.picture().window.next(), told);
        }
        self.wait_for(cursor, &mut waiting.tables);
        for (id, queue) in &mut waiting.tables {
            let target = self.target(slot).await?;
            match self.check_beside(&mut **target, sink, id, queue, &waiting.told).await {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Rejected => {
                    tracing::debug!(table = %id, error = error.chain(), "single changes could not be checked");
                    self.give_up(id, queue, true);
                    // Its view may be open still.
                    *slot = None;
                }
                Err(error) => return Err(error),
            }
        }
        waiting.tables.retain(|_, queue| !queue.is_empty());
        Ok(())
    }

    /// Notes which tables changed in the batches from `cursor` on.
    fn wait_for(&self, cursor: &mut u64, waiting: &mut BTreeMap<TableId, Queue>) {
        let (first, batches) = {
            let picture = self.shared.picture();
            // What was dropped meanwhile is proved by whole checks only.
            let first = picture.window.first().max(*cursor);
            (first, picture.window.since(first).unwrap_or_default())
        };
        *cursor = first + batches.len() as u64;
        for (number, batch) in (first..).zip(&batches) {
            for event in batch.transactions.iter().flat_map(|mark| &batch.events[mark.events.clone()]) {
                let Event::Change(change) = event else { continue };
                let id = &change.table.id;
                if change.op == Op::Snapshot || !self.shared.owns(id) {
                    continue;
                }
                if !waiting.contains_key(id) {
                    waiting.insert(id.clone(), VecDeque::new());
                }
                let Some(queue) = waiting.get_mut(id) else { continue };
                match queue.back_mut() {
                    Some((last, changes)) if *last == number => *changes += 1,
                    _ => queue.push_back((number, 1)),
                }
            }
        }
    }

    /// Checks the changes of one table that the sink has settled, at most a round of batches.
    async fn check_beside(&mut self, target: &mut dyn Reader, sink: &dyn OtherSink, id: &TableId, queue: &mut Queue, told: &Told) -> Result<()> {
        let Some((_, applied)) = sink.applied(id).await? else {
            // Nobody says how far the target is: nothing can be said of a single change.
            self.give_up(id, queue, false);
            return Ok(());
        };
        let settled = self.settled(id, queue, &applied);
        let Some(&(first, _)) = queue.front().filter(|_| !settled.is_empty()) else { return Ok(()) };
        let looked = match self.plan(id) {
            Some(plan) => self.look_beside(target, sink, plan, (first, &settled), applied, told).await,
            None => Ok(Looked::default()),
        };
        let looked = match looked {
            Ok(looked) => looked,
            Err(Lost::Error(error)) => return Err(error),
            // In change, or not remembered any more: a whole check looks at it again.
            Err(Lost::Restart(_) | Lost::Crossed) => {
                if let Some(table) = self.shared.picture().state.tables.get_mut(id) {
                    table.gap = true;
                }
                Looked::default()
            }
        };
        for (mark, change) in settled.iter().flat_map(|batch| changes(batch, id)) {
            self.occurrences.settled(mark, looked.outcome(change));
        }
        let checked = settled.len();
        queue.drain(..checked);
        Ok(())
    }

    /// The next batches whose changes of the table are all settled. Those that were dropped meanwhile are given up.
    fn settled(&self, id: &TableId, queue: &mut Queue, applied: &Position) -> Vec<Arc<Batch>> {
        let picture = self.shared.picture();
        let oldest = picture.window.first();
        while let Some(&(number, changes)) = queue.front()
            && number < oldest
        {
            queue.pop_front();
            self.occurrences.not_settled(changes);
        }
        let is_settled = |batch: &Arc<Batch>| changes(batch, id).all(|(mark, _)| applied.contains(&mark.id));
        queue.iter().take(ROUND).map_while(|(number, _)| picture.window.batch(*number).filter(is_settled)).collect()
    }

    /// `gap`: a whole check is to look at the table again.
    fn give_up(&self, id: &TableId, queue: &mut Queue, gap: bool) {
        if gap && let Some(table) = self.shared.picture().state.tables.get_mut(id) {
            table.gap = true;
        }
        for (_, changes) in queue.drain(..) {
            self.occurrences.not_settled(changes);
        }
    }

    /// Looks at the keys that settled batches changed. `first`: the number of the first of them.
    async fn look_beside(&mut self, target: &mut dyn Reader, sink: &dyn OtherSink, plan: Plan, (first, settled): (u64, &[Arc<Batch>]), applied: Position, told: &Told) -> std::result::Result<Looked, Lost> {
        let id = plan.schema.id.clone();
        let mut all: HashSet<Vec<u8>> = HashSet::new();
        for (_, change) in settled.iter().flat_map(|batch| changes(batch, &id)) {
            if change.op == Op::Truncate || !fence::same_columns(&plan, change) {
                return Err(Lost::Restart("the table was truncated, or has another shape"));
            }
            for row in change.before.iter().chain(&change.after) {
                let mut key = Vec::new();
                keys::of_row(&plan.source_plan, row, &plan.stream_columns, &mut key)?;
                all.insert(key);
            }
        }
        let mut suspects: Vec<Found> = all.iter().map(|key| Found { key: key.clone(), verdict: Verdict::Changed, columns: Vec::new(), source_hash: 0, values: Vec::new() }).collect();
        let shared = Arc::clone(&self.shared);
        let since = || shared.picture().window.since(first).ok_or(Lost::Restart("the stream ran past what is remembered of it"));
        let mut judge = Judge::new(&mut *self.validator, usize::MAX, false);
        let low = Position::default();

        let blocks = read(target, &plan, &suspects).await?;
        {
            let batches = since()?;
            let known = admissible(&plan, &batches, &low, &applied)?;
            suspects = each(&blocks, &suspects, |group, block| unexplained(&plan, &mut judge, group, block, &known))?;
        }
        let mut at = applied;
        if !suspects.is_empty() {
            // Once more: what the sink has surely applied may have gone back, and the records of what was read may not have been received.
            let Some((_, again)) = sink.applied(&id).await? else { return Ok(Looked::default()) };
            let blocks = read(target, &plan, &suspects).await?;
            let end = sink.end(&id).await?;
            let started = Instant::now();
            while !received(&shared).is_some_and(|position| is_within(&end, &position)) {
                if started.elapsed() > PATIENCE {
                    return Err(Error::rejected("the topic was not read to its end in time").into());
                }
                tokio::time::sleep(fence::AGAIN).await;
            }
            let batches = since()?;
            let known = admissible(&plan, &batches, &low, &again)?;
            if !suspects.iter().all(|found| known.get(&found.key).is_some_and(|known| known.certain)) {
                return Err(Lost::Restart("the sink's offsets went back"));
            }
            let empty = RowBlock::new(plan.source_plan.columns.len());
            each(&blocks, &suspects, |group, block| judge_admissible(&plan, &mut judge, group, (&empty, block), &known).map(|()| Vec::new()))?;
            // What was read may be of a record of which the window says nothing.
            if !judge.found.is_empty() && Told::of(&shared) != *told {
                return Err(Lost::Restart("records came of which the stream says nothing"));
            }
            at = again;
        }
        let found = std::mem::take(&mut judge.found);
        self.conclude(&plan, all.iter(), &found, &at, "offsets").await;
        Ok(Looked::of(plan, &found))
    }
}

/// The target's rows of these keys, in groups, in one view.
async fn read(target: &mut dyn Reader, plan: &Plan, suspects: &[Found]) -> Result<Vec<RowBlock>> {
    target.begin().await?;
    let mut blocks = Vec::new();
    for group in suspects.chunks(LOOKUP) {
        let wanted = keys::block_for(&plan.target_plan, group.iter().map(|found| found.key.as_slice()))?;
        blocks.push(target.rows_by_key(&plan.target_plan, &wanted).await?);
    }
    target.end().await?;
    Ok(blocks)
}

/// What `judge` says of each group of keys and its rows.
fn each(blocks: &[RowBlock], suspects: &[Found], mut judge: impl FnMut(&[Found], &RowBlock) -> Result<Vec<Found>>) -> Result<Vec<Found>> {
    let mut left = Vec::new();
    for (group, block) in suspects.chunks(LOOKUP).zip(blocks) {
        left.append(&mut judge(group, block)?);
    }
    Ok(left)
}
