//! A table without key: the rows of both sides as a multiset. First only sums; rows only where the sums differ.

use std::collections::{BTreeMap, HashMap};

use plumbline_sdk::{Error, KeyRange, ReadPlan, Reader, Result, Row, RowBlock};

use crate::shared::{ReportFinding, TableReport, VerifiedThrough};
use crate::state::Unverified;
use crate::validation::compare::{self, Comparison, Walk, copies_verdict, reader};
use crate::validation::feed::Feed;
use crate::validation::fence::Fence;
use crate::validation::plan::Plan;

/// Distinct rows that are held to name the differing ones.
const MAX_DISTINCT: usize = 4_000_000;
const ROUNDS: u32 = 3;

/// The multiset of one side: how many rows, and the sum of their 128-bit hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Sums {
    rows: u64,
    hashes: u128,
}

impl Sums {
    fn add(&mut self, hash: u128) {
        self.rows += 1;
        self.hashes = self.hashes.wrapping_add(hash);
    }
    fn remove(&mut self, hash: u128) {
        self.rows = self.rows.wrapping_sub(1);
        self.hashes = self.hashes.wrapping_sub(hash);
    }
}

/// Copies of each distinct row: source, target.
type Copies = HashMap<u128, (u64, u64)>;

/// Compares a table without key.
pub async fn compare(run: &mut Comparison<'_>, plan: &Plan) -> Result<TableReport> {
    let max_findings = run.options.max_findings;
    let mut walk = Walk { source: run.source, target: run.target, fence: &run.fence, options: &run.options, progress: run.progress, suspects: run.suspects, cancel: &run.cancel };
    let mut differing: Option<BTreeMap<u128, (u64, u64)>> = None;
    let (mut rows_source, mut rows_target, mut position) = (0, 0, None);
    let mut too_many = false;
    for round in 0..ROUNDS {
        let views = walk.open(plan).await?;
        let mut source = sums(walk.source, &plan.source_plan, None).await?;
        let target = sums(walk.target, &plan.target_plan, None).await?;
        for row in &views.expected.removed {
            source.remove(hash_row(plan, row)?);
        }
        for row in &views.expected.added {
            source.add(hash_row(plan, row)?);
        }
        (rows_source, rows_target, position) = (source.rows, target.rows, views.at.clone());
        if source == target {
            walk.close().await?;
            differing = None;
            break;
        }
        let mut copies = Copies::new();
        sums(walk.source, &plan.source_plan, Some((&mut copies, true))).await?;
        sums(walk.target, &plan.target_plan, Some((&mut copies, false))).await?;
        for row in &views.expected.removed {
            let entry = copies.entry(hash_row(plan, row)?).or_default();
            entry.0 = entry.0.saturating_sub(1);
        }
        for row in &views.expected.added {
            copies.entry(hash_row(plan, row)?).or_default().0 += 1;
        }
        walk.close().await?;
        too_many = copies.len() >= MAX_DISTINCT;
        let now: BTreeMap<u128, (u64, u64)> = copies.into_iter().filter(|(_, (source, target))| source != target).collect();
        let Some(settle) = walk.fence.settle_time() else {
            differing = Some(now);
            break;
        };
        // Seen twice with the same copies: settled. The first round has nothing to compare with.
        differing = Some(match differing {
            Some(before) => now.into_iter().filter(|(hash, copies)| before.get(hash) == Some(copies)).collect(),
            None => now,
        });
        if round > 0 || differing.as_ref().is_some_and(BTreeMap::is_empty) {
            break;
        }
        tokio::time::sleep(settle).await;
    }
    let settled_by = if matches!(walk.fence, Fence::Stream(_)) { "position" } else { "time" };
    let differing = differing.unwrap_or_default();
    let mut by_verdict = BTreeMap::new();
    let mut total = 0;
    for (source, target) in differing.values() {
        let copies = source.abs_diff(*target);
        total += copies;
        *by_verdict.entry(copies_verdict(*source, *target).as_str()).or_default() += copies;
    }
    let findings = differing
        .values()
        .take(max_findings)
        .map(|(source, target)| ReportFinding {
            verdict: copies_verdict(*source, *target).as_str(),
            key: BTreeMap::new(),
            columns: Vec::new(),
            settled_by,
            copies_source: Some(*source),
            copies_target: Some(*target),
            values: None,
        })
        .collect();
    let unverified = if too_many {
        vec![Unverified { columns: Vec::new(), reason: format!("the table has no key and more than {MAX_DISTINCT} distinct rows: not all differences could be named") }]
    } else {
        Vec::new()
    };
    Ok(TableReport {
        rows_source: Some(rows_source),
        rows_target: Some(rows_target),
        rows_compared: rows_source.max(rows_target),
        findings_total: total,
        by_verdict,
        findings,
        unverified,
        notes: vec!["no key: rows are compared as a multiset".into()],
        at: position.clone(),
        verified_through: position.map(|position| VerifiedThrough { position: position.to_string(), time: compare::now(), rows: rows_source }),
        ..TableReport::default()
    })
}

/// Reads all rows of a side, sums them, and counts copies where asked to.
async fn sums(slot: &mut Option<Box<dyn Reader>>, plan: &ReadPlan, mut copies: Option<(&mut Copies, bool)>) -> Result<Sums> {
    reader(slot)?;
    let taken = slot.take().ok_or_else(|| Error::disconnected("a reader was lost"))?;
    let mut feed = Feed::start(taken, plan.clone(), KeyRange::default(), None);
    let mut sums = Sums::default();
    let mut result = Ok(());
    'feed: while feed.refill().await {
        for row in 0..feed.block.rows() {
            let hash = match hash_block(plan, &feed.block, row) {
                Ok(hash) => hash,
                Err(error) => {
                    result = Err(error);
                    break 'feed;
                }
            };
            sums.add(hash);
            if let Some((copies, source)) = &mut copies
                && (copies.len() < MAX_DISTINCT || copies.contains_key(&hash))
            {
                let entry = copies.entry(hash).or_default();
                if *source { entry.0 += 1 } else { entry.1 += 1 }
            }
        }
    }
    let (back, read) = feed.end().await?;
    *slot = Some(back);
    result.and(read).map(|()| sums)
}

fn hash_block(plan: &ReadPlan, block: &RowBlock, row: usize) -> Result<u128> {
    hash_cells(plan.columns.len(), |i, out| match block.cell(row, i) {
        None => Ok(false),
        Some(cell) => {
            let rule = &plan.columns[i].rule;
            if plan.source { rule.source_text(cell, out) } else { rule.target_text(cell, out) }.map(|()| true)
        }
    })
}

fn hash_row(plan: &Plan, row: &Row) -> Result<u128> {
    hash_cells(plan.source_plan.columns.len(), |i, out| match row.get(plan.stream_columns[i]) {
        plumbline_sdk::ValueRef::Null => Ok(false),
        value => plan.source_plan.columns[i].rule.value(value, out).map(|()| true),
    })
}

/// A hash over canonical cells, each with its length before it and NULL apart.
fn hash_cells(width: usize, mut cell: impl FnMut(usize, &mut Vec<u8>) -> Result<bool>) -> Result<u128> {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    let mut canonical = Vec::new();
    for i in 0..width {
        canonical.clear();
        if cell(i, &mut canonical)? {
            hash.update(&(canonical.len() as u64).to_le_bytes());
            hash.update(&canonical);
        } else {
            hash.update(&u64::MAX.to_le_bytes());
        }
    }
    Ok(hash.digest128())
}
