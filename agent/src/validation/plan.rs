//! Which table is compared with which, by which columns and rules. Pure.

use std::sync::Arc;

use plumbline_sdk::canon::Rule;
use plumbline_sdk::{ReadColumn, ReadPlan, TableSchema, TargetColumn, TargetTable};

use crate::state::{Partner, Unverified};

/// How one table is compared: the same columns in the same order on both sides, key first.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The table's shape on the source.
    pub schema: Arc<TableSchema>,
    /// Its partner.
    pub target: Arc<TargetTable>,
    /// What to read of the source.
    pub source_plan: ReadPlan,
    /// What to read of the target.
    pub target_plan: ReadPlan,
    /// For each plan column: where it is in a row of the stream of this shape.
    pub stream_columns: Vec<usize>,
    /// Columns that nobody can judge.
    pub unverified: Vec<Unverified>,
    /// What else to know.
    pub notes: Vec<String>,
}

impl Plan {
    /// How many of the columns are the key.
    pub fn key(&self) -> usize {
        self.source_plan.key
    }
    /// The name of plan column `i` on the source.
    pub fn name(&self, i: usize) -> &str {
        &self.source_plan.columns[i].name
    }
}

/// The target table of `schema`: the same name, else the only one whose name is equal without case.
pub fn partner(schema: &TableSchema, targets: &[Arc<TargetTable>]) -> Partner {
    let name = &schema.id.table;
    if let Some(same) = targets.iter().find(|target| target.id.table == *name) {
        return Partner::Table(Arc::clone(same));
    }
    let folded = name.to_lowercase();
    let mut alike = targets.iter().filter(|target| target.id.table.to_lowercase() == folded);
    match (alike.next(), alike.next()) {
        (None, _) => Partner::None,
        (Some(only), None) => Partner::Table(Arc::clone(only)),
        (Some(_), Some(_)) => {
            Partner::Ambiguous(targets.iter().filter(|target| target.id.table.to_lowercase() == folded).map(|target| target.id.to_string()).collect())
        }
    }
}

/// The plan for comparing `schema` with `target`, or why the table as a whole cannot be compared.
pub fn plan(schema: &Arc<TableSchema>, target: &Arc<TargetTable>) -> Result<Plan, Unverified> {
    let mut unverified: Vec<Unverified> = Vec::new();
    let mut pairs: Vec<(usize, &TargetColumn, Rule)> = Vec::new();
    for (i, column) in schema.columns.iter().enumerate() {
        match target_column(target, &column.name) {
            None => note(&mut unverified, &column.name, "not in the target".to_owned()),
            Some(other) => match Rule::new(column, other) {
                Ok(rule) => pairs.push((i, other, rule)),
                Err(reason) => note(&mut unverified, &column.name, reason),
            },
        }
    }
    let only_target: Vec<&str> = target
        .columns
        .iter()
        .filter(|other| !schema.columns.iter().any(|column| target_column(target, &column.name).is_some_and(|found| found.name == other.name)))
        .map(|other| other.name.as_str())
        .collect();
    let mut notes = Vec::new();
    if !only_target.is_empty() {
        notes.push(format!("only in the target, not judged: `{}`", only_target.join("`, `")));
    }
    let key = schema.key();
    if let Some(&lost) = key.iter().find(|i| !pairs.iter().any(|(at, _, _)| at == *i)) {
        return Err(Unverified { columns: vec![schema.columns[lost].name.clone()], reason: "a key column cannot be compared, so no row can be found".into() });
    }
    if pairs.is_empty() {
        return Err(Unverified { columns: Vec::new(), reason: "no column can be compared".into() });
    }
    // Key columns first, in key order; the sort is stable for the others.
    let place = |i: usize| key.iter().position(|k| *k == i).unwrap_or(key.len());
    pairs.sort_by_key(|(i, _, _)| place(*i));
    let ordered = !key.is_empty() && pairs[..key.len()].iter().all(|(_, _, rule)| rule.ordered());
    let side = |source: bool| ReadPlan {
        table: if source { schema.id.clone() } else { target.id.clone() },
        columns: pairs
            .iter()
            .map(|(i, other, rule)| ReadColumn { name: if source { schema.columns[*i].name.clone() } else { other.name.clone() }, rule: rule.clone() })
            .collect(),
        key: key.len(),
        ordered,
        source,
    };
    Ok(Plan {
        schema: Arc::clone(schema),
        target: Arc::clone(target),
        source_plan: side(true),
        target_plan: side(false),
        stream_columns: pairs.iter().map(|(i, _, _)| *i).collect(),
        unverified,
        notes,
    })
}

/// The target's column of this name, else the only one equal without case.
pub fn target_column<'a>(target: &'a TargetTable, name: &str) -> Option<&'a TargetColumn> {
    target.columns.iter().find(|column| column.name == name).or_else(|| {
        let folded = name.to_lowercase();
        let mut alike = target.columns.iter().filter(|column| column.name.to_lowercase() == folded);
        alike.next().filter(|_| alike.next().is_none())
    })
}

/// Columns with the same reason share one entry.
fn note(unverified: &mut Vec<Unverified>, column: &str, reason: String) {
    match unverified.iter_mut().find(|entry| entry.reason == reason) {
        Some(entry) => entry.columns.push(column.to_owned()),
        None => unverified.push(Unverified { columns: vec![column.to_owned()], reason }),
    }
}
