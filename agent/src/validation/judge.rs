//! Pairs of rows go in, findings come out: counted exactly, listed up to a bound.

use std::collections::BTreeMap;

use plumbline_sdk::plugin::PairRow;
use plumbline_sdk::{CheckBatch, Findings, Pair, Result, RowBlock, Validator, Verdict};

use crate::shared::{Cells, ReportFinding};
use crate::validation::fence::Expected;
use crate::validation::keys;
use crate::validation::plan::Plan;

/// What a pair was found to be.
#[derive(Debug, Clone)]
pub struct Found {
    /// The canonical key.
    pub key: Vec<u8>,
    /// What differs.
    pub verdict: Verdict,
    /// Indexes of the differing plan columns.
    pub columns: Vec<usize>,
    /// A hash of the source's row as it was read, to see whether it changes.
    pub source_hash: u64,
    /// Both sides' text of the differing cells, where asked for.
    pub values: Vec<Cells>,
}

/// Judges the pairs of one table.
pub struct Judge<'v> {
    validator: &'v mut dyn Validator,
    /// Found so far, at most `limit`.
    pub found: Vec<Found>,
    /// All that were found.
    pub total: u64,
    /// By verdict, exact.
    pub by_verdict: BTreeMap<Verdict, u64>,
    /// Keys looked at.
    pub compared: u64,
    /// Rows that the source has (as the stream left them).
    pub source_rows: u64,
    /// Rows that the target has.
    pub target_rows: u64,
    /// Plan column to cells that differ only in representation.
    pub representation_only: BTreeMap<usize, u64>,
    /// Plan column to why cells of it could not be judged, and how many.
    pub unjudged: BTreeMap<(usize, String), u64>,
    limit: usize,
    values: bool,
    key: Vec<u8>,
}

impl<'v> Judge<'v> {
    /// A judge that lists at most `limit` and keeps cell text only with `values`.
    pub fn new(validator: &'v mut dyn Validator, limit: usize, values: bool) -> Self {
        Self {
            validator,
            found: Vec::new(),
            total: 0,
            by_verdict: BTreeMap::new(),
            compared: 0,
            source_rows: 0,
            target_rows: 0,
            representation_only: BTreeMap::new(),
            unjudged: BTreeMap::new(),
            limit,
            values,
            key: Vec::new(),
        }
    }

    /// Judges pairs of rows of these two blocks, given by their numbers. Where the stream knows better what the source has, it is asked.
    pub fn judge(&mut self, plan: &Plan, source: &RowBlock, target: &RowBlock, rows: &[(Option<usize>, Option<usize>)], expected: &mut Expected) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        if !expected.rows.is_empty() {
            self.mark_seen(plan, source, target, rows, expected)?;
        }
        let mut pairs = Vec::with_capacity(rows.len());
        let mut key = std::mem::take(&mut self.key);
        for &(s, t) in rows {
            let mut pair = Pair { source: s.map(|s| PairRow::Block(source, s)), target: t.map(|t| (target, t)) };
            if !expected.rows.is_empty() {
                match (s, t) {
                    (Some(s), _) => keys::of_block(&plan.source_plan, source, s, &mut key)?,
                    (None, Some(t)) => keys::of_block(&plan.target_plan, target, t, &mut key)?,
                    (None, None) => continue,
                }
                if let Some(now) = expected.rows.get(key.as_slice()) {
                    pair.source = now.row.as_ref().map(|row| PairRow::Row(row, &plan.stream_columns));
                }
            }
            if pair.source.is_none() && pair.target.is_none() {
                continue;
            }
            pairs.push(pair);
        }
        self.key = key;
        self.judge_pairs(plan, &pairs)
    }

    fn mark_seen(&mut self, plan: &Plan, source: &RowBlock, target: &RowBlock, rows: &[(Option<usize>, Option<usize>)], expected: &mut Expected) -> Result<()> {
        for &(s, t) in rows {
            match (s, t) {
                (Some(s), _) => keys::of_block(&plan.source_plan, source, s, &mut self.key)?,
                (None, Some(t)) => keys::of_block(&plan.target_plan, target, t, &mut self.key)?,
                (None, None) => continue,
            }
            if let Some(now) = expected.rows.get_mut(self.key.as_slice()) {
                now.seen = true;
            }
        }
        Ok(())
    }

    /// Whether nothing is wrong with a pair; it is not counted. A pair without any row is equal.
    pub fn is_equal(&mut self, plan: &Plan, pair: &Pair<'_>) -> Result<bool> {
        match (pair.source, pair.target) {
            (None, None) => return Ok(true),
            (None, Some(_)) | (Some(_), None) => return Ok(false),
            (Some(_), Some(_)) => {}
        }
        let mut findings = Findings::default();
        self.validator.validate(&CheckBatch { plan: &plan.source_plan, pairs: std::slice::from_ref(pair) }, &mut findings)?;
        Ok(findings.found.is_empty())
    }

    /// Judges pairs as they are.
    pub fn judge_pairs(&mut self, plan: &Plan, pairs: &[Pair<'_>]) -> Result<()> {
        let mut findings = Findings::default();
        self.validator.validate(&CheckBatch { plan: &plan.source_plan, pairs }, &mut findings)?;
        for pair in pairs {
            self.source_rows += u64::from(pair.source.is_some());
            self.target_rows += u64::from(pair.target.is_some());
            self.compared += u64::from(pair.source.is_some() || pair.target.is_some());
        }
        for (column, cells) in findings.representation_only {
            *self.representation_only.entry(column).or_default() += cells;
        }
        for entry in findings.unjudged {
            *self.unjudged.entry(entry).or_default() += 1;
        }
        for (i, verdict, columns) in findings.found {
            self.total += 1;
            *self.by_verdict.entry(verdict).or_default() += 1;
            if self.found.len() < self.limit {
                self.found.push(found(plan, &pairs[i], verdict, columns, self.values)?);
            }
        }
        Ok(())
    }

    /// Tells the validator that the table is done.
    pub fn finish(&mut self) -> Result<()> {
        self.validator.flush(&mut Findings::default())
    }
}

fn found(plan: &Plan, pair: &Pair<'_>, verdict: Verdict, columns: Vec<usize>, values: bool) -> Result<Found> {
    let mut key = Vec::new();
    if plan.key() > 0 {
        match (pair.source, pair.target) {
            (Some(PairRow::Block(block, row)), _) => keys::of_block(&plan.source_plan, block, row, &mut key)?,
            (Some(PairRow::Row(row, columns)), _) => keys::of_row(&plan.source_plan, row, columns, &mut key)?,
            (None, Some((block, row))) => keys::of_block(&plan.target_plan, block, row, &mut key)?,
            (None, None) => {}
        }
    }
    let source_hash = match pair.source {
        Some(PairRow::Block(block, row)) => block_hash(block, row),
        _ => 0,
    };
    let text = |cell: Option<&[u8]>| cell.map(|cell| String::from_utf8_lossy(cell).into_owned());
    let values = if values {
        let shown: Vec<usize> = if verdict == Verdict::Changed { columns.clone() } else { (0..plan.source_plan.columns.len()).collect() };
        shown
            .iter()
            .map(|&i| {
                let source = match pair.source {
                    Some(PairRow::Block(block, row)) => text(block.cell(row, i)),
                    Some(PairRow::Row(row, columns)) => {
                        let mut canonical = Vec::new();
                        plan.source_plan.columns[i].rule.value(row.get(columns[i]), &mut canonical).ok().map(|()| String::from_utf8_lossy(&canonical).into_owned())
                    }
                    None => None,
                };
                (source, pair.target.and_then(|(block, row)| text(block.cell(row, i))))
            })
            .collect()
    } else {
        Vec::new()
    };
    Ok(Found { key, verdict, columns, source_hash, values })
}

/// A hash of all cells of a row as they were read.
pub fn block_hash(block: &RowBlock, row: usize) -> u64 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    for i in 0..block.width() {
        match block.cell(row, i) {
            Some(cell) => {
                hash.update(&(cell.len() as u64).to_le_bytes());
                hash.update(cell);
            }
            None => hash.update(&u64::MAX.to_le_bytes()),
        }
    }
    hash.digest()
}

/// A finding as reports show it.
pub fn report(plan: &Plan, found: &Found, settled_by: &'static str) -> ReportFinding {
    let names = |columns: &[usize]| columns.iter().map(|&i| plan.name(i).to_owned()).collect::<Vec<_>>();
    let values = (!found.values.is_empty()).then(|| {
        let shown: Vec<usize> = if found.verdict == Verdict::Changed { found.columns.clone() } else { (0..plan.source_plan.columns.len()).collect() };
        names(&shown).into_iter().zip(found.values.iter().cloned()).collect()
    });
    ReportFinding {
        verdict: found.verdict.as_str(),
        key: keys::text(&plan.source_plan, &found.key),
        columns: names(&found.columns),
        settled_by,
        copies_source: None,
        copies_target: None,
        values,
    }
}
