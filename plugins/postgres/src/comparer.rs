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

#[cfg(test)]
mod tests {
    use plumbline_sdk::canon::Rule;
    use plumbline_sdk::{Column, ColumnType, Pair, ReadPlan, Row, TableId, TargetColumn};

    use super::*;

    fn plan(columns: &[(ColumnType, &str)]) -> ReadPlan {
        let columns = columns
            .iter()
            .map(|(ty, base)| {
                let source = Column { name: "c".into(), ty: ty.clone(), nullable: true, key_ordinal: None, generated: false, charset: None };
                let target = TargetColumn { name: "c".into(), ty: (*base).into(), base: (*base).into(), nullable: true, generated: false };
                ReadColumn { name: "c".into(), rule: Rule::new(&source, &target).expect("a rule") }
            })
            .collect();
        ReadPlan { table: TableId::new("s", "t"), columns, key: 1, ordered: true, source: true }
    }

    fn block(rows: &[&[Option<&str>]], width: usize) -> RowBlock {
        let mut block = RowBlock::new(width);
        for row in rows {
            for cell in *row {
                block.push(cell.map(str::as_bytes));
            }
        }
        block
    }

    const INT: ColumnType = ColumnType::Int { unsigned: false };

    /// Differing columns of one pair; empty: equal.
    fn check(ty: ColumnType, base: &str, ours: Option<&str>, theirs: Option<&str>, equal: bool) {
        let plan = plan(&[(ty, base)]);
        let (source, target) = (block(&[&[ours]], 1), block(&[&[theirs]], 1));
        let pairs = [Pair { source: Some(PairRow::Block(&source, 0)), target: Some((&target, 0)) }];
        let mut findings = Findings::default();
        PostgresComparer::default().validate(&CheckBatch { plan: &plan, pairs: &pairs }, &mut findings).expect("judged");
        let expected = if equal { Vec::new() } else { vec![(0, Verdict::Changed, vec![0])] };
        assert_eq!((findings.found, findings.unjudged.len()), (expected, 0), "{base}: {ours:?} {theirs:?}");
    }

    #[test]
    fn cells_are_equal_by_their_canonical_form() {
        check(INT, "int4", Some("5"), Some("5"), true);
        check(INT, "int4", Some("5"), Some("6"), false);
        check(ColumnType::Decimal { precision: 5, scale: 2 }, "numeric", Some("1.50"), Some("1.5"), true);
        check(ColumnType::VarChar(5), "text", Some("a"), Some("a "), false);
        check(ColumnType::VarChar(5), "text", Some(""), None, false);
        check(ColumnType::VarChar(5), "text", None, Some(""), false);
        check(ColumnType::VarChar(5), "text", None, None, true);
        check(ColumnType::Double, "float8", Some("1e15"), Some("1e+15"), true);
    }

    #[test]
    fn a_row_of_one_side_only_is_missing_or_extra() {
        let plan = plan(&[(INT, "int4")]);
        let rows = block(&[&[Some("1")]], 1);
        let pairs = [Pair { source: Some(PairRow::Block(&rows, 0)), target: None }, Pair { source: None, target: Some((&rows, 0)) }];
        let mut findings = Findings::default();
        PostgresComparer::default().validate(&CheckBatch { plan: &plan, pairs: &pairs }, &mut findings).expect("judged");
        assert_eq!(findings.found, [(0, Verdict::Missing, Vec::new()), (1, Verdict::Extra, Vec::new())]);
    }

    #[test]
    fn a_row_of_the_stream_is_judged_by_its_values_and_never_where_it_is_silent() {
        let plan = plan(&[(INT, "int4"), (ColumnType::VarChar(5), "text"), (INT, "int4")]);
        let row = Row::of(&[ValueRef::Absent, ValueRef::Text("x"), ValueRef::Int(1)]);
        let places = [2, 1, 0];
        let target = block(&[&[Some("1"), Some("y"), Some("7")]], 3);
        let pairs = [Pair { source: Some(PairRow::Row(&row, &places)), target: Some((&target, 0)) }];
        let mut findings = Findings::default();
        PostgresComparer::default().validate(&CheckBatch { plan: &plan, pairs: &pairs }, &mut findings).expect("judged");
        assert_eq!(findings.found, [(0, Verdict::Changed, vec![1])]);
        assert_eq!(findings.unjudged.iter().map(|(column, _)| *column).collect::<Vec<_>>(), [2]);
    }
}
