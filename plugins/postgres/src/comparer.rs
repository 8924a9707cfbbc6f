//! The plugin `postgres-comparer`: judges pairs of rows by the canonical forms of their cells. Does no IO.

use plumbline_sdk::plugin::PairRow;
use plumbline_sdk::{CheckBatch, Findings, Plugin, ReadColumn, Result, RowBlock, Validator, ValueRef, Verdict, Wants};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Settings of the comparer.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ComparerConfig {}

/// Equality of canonical forms, cell by cell. Equal pairs cost no allocation.
#[derive(Debug, Default)]
pub struct PostgresComparer {
    ours: Vec<u8>,
    theirs: Vec<u8>,
}

impl Plugin for PostgresComparer {
    const NAME: &'static str = "postgres-comparer";
    type Config = ComparerConfig;
    fn new(_: ComparerConfig) -> Result<Self> {
        Ok(Self::default())
    }
}

/// What a cell turned out to be.
enum Judgement {
    Equal,
    Different,
    Unjudged(String),
}

impl PostgresComparer {
    fn judge(&mut self, column: &ReadColumn, raw_equal: bool, source: PairRow<'_>, index: usize, target: Option<&[u8]>) -> Judgement {
        self.ours.clear();
        let ours = match source {
            PairRow::Block(block, row) => match block.cell(row, index) {
                None => None,
                // The common case: both sides print the same.
                Some(cell) if raw_equal && Some(cell) == target => return Judgement::Equal,
                Some(cell) => match target {
                    None => return Judgement::Different,
                    Some(_) => Some(column.rule.source_text(cell, &mut self.ours)),
                },
            },
            PairRow::Row(row, places) => match places.get(index).map_or(ValueRef::Absent, |&place| row.get(place)) {
                ValueRef::Null => None,
                ValueRef::Absent => return Judgement::Unjudged("the change did not carry this column".into()),
                _ if target.is_none() => return Judgement::Different,
                value => Some(column.rule.value(value, &mut self.ours)),
            },
        };
        match (ours, target) {
            (None, None) => Judgement::Equal,
            (None, Some(_)) | (Some(_), None) => Judgement::Different,
            (Some(Err(error)), Some(_)) => Judgement::Unjudged(error.chain()),
            (Some(Ok(())), Some(cell)) => {
                self.theirs.clear();
                match column.rule.target_text(cell, &mut self.theirs) {
                    Err(error) => Judgement::Unjudged(error.chain()),
                    Ok(()) if self.ours == self.theirs => Judgement::Equal,
                    Ok(()) => Judgement::Different,
                }
            }
        }
    }

    fn columns(&mut self, batch: &CheckBatch<'_>, raw_equal: &[bool], source: PairRow<'_>, target: (&RowBlock, usize), findings: &mut Findings) -> Vec<usize> {
        let mut differing = Vec::new();
        for (index, column) in batch.plan.columns.iter().enumerate() {
            match self.judge(column, raw_equal[index], source, index, target.0.cell(target.1, index)) {
                Judgement::Equal => {}
                Judgement::Different => differing.push(index),
                Judgement::Unjudged(reason) => {
                    if !findings.unjudged.iter().any(|(column, known)| *column == index && *known == reason) {
                        findings.unjudged.push((index, reason));
                    }
                }
            }
        }
        differing
    }
}

impl Validator for PostgresComparer {
    fn wants(&self) -> Wants {
        Wants { tables: Vec::new(), events: false, pairs: true }
    }

    fn validate(&mut self, batch: &CheckBatch<'_>, findings: &mut Findings) -> Result<()> {
        let raw_equal: Vec<bool> = batch.plan.columns.iter().map(|column| column.rule.raw_equal()).collect();
        for (index, pair) in batch.pairs.iter().enumerate() {
            match (pair.source, pair.target) {
                (None, None) => {}
                (Some(_), None) => findings.found.push((index, Verdict::Missing, Vec::new())),
                (None, Some(_)) => findings.found.push((index, Verdict::Extra, Vec::new())),
                (Some(source), Some(target)) => {
                    let differing = self.columns(batch, &raw_equal, source, target, findings);
                    if !differing.is_empty() {
                        findings.found.push((index, Verdict::Changed, differing));
                    }
                }
            }
        }
        Ok(())
    }

    fn flush(&mut self, _: &mut Findings) -> Result<()> {
        Ok(())
    }
}
