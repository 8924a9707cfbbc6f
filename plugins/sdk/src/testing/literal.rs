//! A side of a comparison, made of literal rows.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::locked;
use crate::error::{Error, ErrorKind, Result};
use crate::read::{BlockSink, KeyRange, ReadPlan, Reader, RowBlock, SideTable, View};
use crate::table::TableId;

/// The cells of a row in the order of the table's columns, each as the rule's select expression prints it; None: NULL.
pub type LiteralRow = Vec<Option<Vec<u8>>>;

/// A table and its rows.
#[derive(Debug, Clone)]
pub struct LiteralTable {
    /// The table.
    pub table: SideTable,
    /// Its rows, in any order.
    pub rows: Vec<LiteralRow>,
}

impl LiteralTable {
    /// A table of rows given as text.
    pub fn new(table: SideTable, rows: &[&[Option<&str>]]) -> Self {
        let rows = rows.iter().map(|row| row.iter().map(|cell| cell.map(|text| text.as_bytes().to_vec())).collect()).collect();
        Self { table, rows }
    }
    fn id(&self) -> &TableId {
        match &self.table {
            SideTable::Source(table) => &table.id,
            SideTable::Target(table) => &table.id,
        }
    }
    fn columns(&self) -> Vec<&str> {
        match &self.table {
            SideTable::Source(table) => table.columns.iter().map(|column| column.name.as_str()).collect(),
            SideTable::Target(table) => table.columns.iter().map(|column| column.name.as_str()).collect(),
        }
    }
    fn key(&self) -> Vec<usize> {
        match &self.table {
            SideTable::Source(table) => table.key(),
            SideTable::Target(table) => table.key.iter().filter_map(|name| table.columns.iter().position(|column| column.name == *name)).collect(),
        }
    }
}

/// The side behind a [`LiteralReader`], to be changed by a test while readers read: a view that is open does not see it.
#[derive(Clone, Default)]
pub struct LiteralSide {
    side: Arc<Mutex<Side>>,
}

#[derive(Default)]
struct Side {
    tables: Vec<LiteralTable>,
    views: VecDeque<View>,
    faults: Vec<(&'static str, ErrorKind)>,
    reads: u64,
}

impl LiteralSide {
    /// A side with these tables.
    pub fn new(tables: Vec<LiteralTable>) -> Self {
        Self { side: Arc::new(Mutex::new(Side { tables, ..Side::default() })) }
    }
    /// A reader of this side.
    pub fn reader(&self) -> LiteralReader {
        LiteralReader { side: self.clone(), view: None }
    }
    /// What the next `begin`s give as L, H or A, in order; after the last one an empty view.
    pub fn script(&self, views: impl IntoIterator<Item = View>) {
        locked(&self.side).views.extend(views);
    }
    /// Lets the next call of this method (`connect`, `begin`, `rows`, …) fail.
    pub fn fail(&self, method: &'static str, kind: ErrorKind) {
        locked(&self.side).faults.push((method, kind));
    }
    /// Changes the rows of a table. Does nothing where there is no such table.
    pub fn change(&self, table: &TableId, change: impl FnOnce(&mut Vec<LiteralRow>)) {
        if let Some(table) = locked(&self.side).tables.iter_mut().find(|known| known.id() == table) {
            change(&mut table.rows);
        }
    }
    /// Removes a table.
    pub fn drop_table(&self, table: &TableId) {
        locked(&self.side).tables.retain(|known| known.id() != table);
    }
    /// How many rows were given to readers in all, by `rows` and `rows_by_key`.
    pub fn reads(&self) -> u64 {
        locked(&self.side).reads
    }
    fn called(&self, method: &'static str) -> Result<()> {
        let mut side = locked(&self.side);
        match side.faults.iter().position(|(name, _)| *name == method) {
            Some(due) => {
                let (_, kind) = side.faults.remove(due);
                Err(Error::new(kind, format!("a test let `{method}` fail")))
            }
            None => Ok(()),
        }
    }
}

/// Reads literal rows. Keys are sorted by their canonical forms, in the order that both sides share where the plan says so.
pub struct LiteralReader {
    side: LiteralSide,
    /// The tables as they were when the view began.
    view: Option<Vec<LiteralTable>>,
}

/// The rows of a plan with their canonical keys, sorted.
type Sorted = Vec<(Vec<Vec<u8>>, LiteralRow)>;

impl LiteralReader {
    fn table(&self, id: &TableId) -> Result<&LiteralTable> {
        let view = self.view.as_ref().ok_or_else(|| Error::disconnected("no view is open: call `begin` first"))?;
        view.iter().find(|table| table.id() == id).ok_or_else(|| Error::rejected(format!("no table `{id}`")))
    }

    fn sorted(&self, plan: &ReadPlan) -> Result<Sorted> {
        let table = self.table(&plan.table)?;
        let columns = table.columns();
        let mut places = Vec::with_capacity(plan.columns.len());
        for column in &plan.columns {
            let place = columns.iter().position(|name| *name == column.name);
            places.push(place.ok_or_else(|| Error::rejected(format!("table `{}` has no column `{}`", plan.table, column.name)))?);
        }
        let mut rows = Vec::with_capacity(table.rows.len());
        for row in &table.rows {
            let row: LiteralRow = places.iter().map(|&place| row.get(place).cloned().flatten()).collect();
            let mut key = Vec::with_capacity(plan.key);
            for (column, cell) in plan.columns[..plan.key].iter().zip(&row) {
                let cell = cell.as_deref().ok_or_else(|| Error::rejected(format!("a key of `{}` is NULL", plan.table)))?;
                let mut canonical = Vec::new();
                if plan.source {
                    column.rule.source_text(cell, &mut canonical)?;
                } else {
                    column.rule.target_text(cell, &mut canonical)?;
                }
                key.push(canonical);
            }
            rows.push((key, row));
        }
        rows.sort_by(|(a, _), (b, _)| order(plan, a, b));
        Ok(rows)
    }

    fn count_reads(&self, rows: usize) {
        locked(&self.side.side).reads += rows as u64;
    }
}

fn order(plan: &ReadPlan, a: &[Vec<u8>], b: &[Vec<u8>]) -> Ordering {
    let mut cells = plan.columns.iter().zip(a.iter().zip(b));
    cells.find_map(|(column, (a, b))| Some(column.rule.compare(a, b)).filter(|order| order.is_ne())).unwrap_or(Ordering::Equal)
}

/// The canonical forms of key cells.
fn canonical<'a>(plan: &ReadPlan, cells: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Vec<u8>>> {
    let mut key = Vec::with_capacity(plan.key);
    for (column, cell) in plan.columns[..plan.key].iter().zip(cells) {
        let mut out = Vec::new();
        if plan.source {
            column.rule.canonical_of_key(cell, &mut out)?;
        } else {
            // A target's key cell is text that the target itself prints, or reads as the same value.
            column.rule.target_text(cell, &mut out)?;
        }
        key.push(out);
    }
    Ok(key)
}

fn bound(plan: &ReadPlan, cells: Option<&[String]>) -> Result<Option<Vec<Vec<u8>>>> {
    cells.map(|cells| canonical(plan, cells.iter().map(String::as_bytes))).transpose()
}

fn push(block: &mut RowBlock, row: &LiteralRow) {
    for cell in row {
        block.push(cell.as_deref());
    }
}

#[async_trait]
impl Reader for LiteralReader {
    async fn connect(&mut self) -> Result<()> {
        self.view = None;
        self.side.called("connect")
    }

    async fn tables(&mut self) -> Result<Vec<SideTable>> {
        self.side.called("tables")?;
        Ok(locked(&self.side.side).tables.iter().map(|table| table.table.clone()).collect())
    }

    async fn begin(&mut self) -> Result<View> {
        self.side.called("begin")?;
        let mut side = locked(&self.side.side);
        self.view = Some(side.tables.clone());
        Ok(side.views.pop_front().unwrap_or_default())
    }

    async fn end(&mut self) -> Result<()> {
        self.view = None;
        self.side.called("end")
    }

    async fn count(&mut self, table: &TableId) -> Result<u64> {
        self.side.called("count")?;
        Ok(self.table(table)?.rows.len() as u64)
    }

    async fn bound(&mut self, plan: &ReadPlan, after: Option<&[String]>, rows: u64) -> Result<Option<Vec<String>>> {
        self.side.called("bound")?;
        let after = bound(plan, after)?;
        let sorted = self.sorted(plan)?;
        let start = after.map_or(0, |after| sorted.partition_point(|(key, _)| order(plan, key, &after).is_le()));
        let last = usize::try_from(rows).ok().and_then(|rows| start.checked_add(rows)?.checked_sub(1));
        let Some((key, _)) = last.and_then(|last| sorted.get(last)) else { return Ok(None) };
        let mut cells = Vec::with_capacity(key.len());
        for (column, cell) in plan.columns.iter().zip(key) {
            let cell = if plan.source { column.rule.key_for_source(cell)? } else { column.rule.key_for_target(cell)? };
            cells.push(String::from_utf8_lossy(&cell).into_owned());
        }
        Ok(Some(cells))
    }

    async fn rows(&mut self, plan: &ReadPlan, range: &KeyRange, limit: Option<u64>, out: &mut dyn BlockSink) -> Result<()> {
        self.side.called("rows")?;
        let (after, upto) = (bound(plan, range.after.as_deref())?, bound(plan, range.upto.as_deref())?);
        let sorted = self.sorted(plan)?;
        let inside = sorted.iter().filter(|(key, _)| {
            after.as_ref().is_none_or(|after| order(plan, key, after).is_gt()) && upto.as_ref().is_none_or(|upto| order(plan, key, upto).is_le())
        });
        let mut block = RowBlock::new(plan.columns.len());
        for (i, (_, row)) in inside.take(limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))).enumerate() {
            push(&mut block, row);
            self.count_reads(1);
            // Small blocks, so that their borders are tested.
            if i % 3 == 2 {
                block = out.put(block).await?;
                block.clear();
            }
        }
        if block.rows() > 0 {
            out.put(block).await?;
        }
        Ok(())
    }

    async fn rows_by_key(&mut self, plan: &ReadPlan, keys: &RowBlock) -> Result<RowBlock> {
        self.side.called("rows_by_key")?;
        let mut wanted = Vec::with_capacity(keys.rows());
        for row in 0..keys.rows() {
            wanted.push(canonical(plan, (0..keys.width()).map(|i| keys.cell(row, i).unwrap_or_default()))?);
        }
        let mut block = RowBlock::new(plan.columns.len());
        for (key, row) in &self.sorted(plan)? {
            if wanted.contains(key) {
                push(&mut block, row);
            }
        }
        self.count_reads(block.rows());
        Ok(block)
    }

    async fn latest(&mut self, table: &TableId, limit: u32) -> Result<Vec<Vec<(String, Option<String>)>>> {
        self.side.called("latest")?;
        let side = locked(&self.side.side);
        let table = side.tables.iter().find(|known| known.id() == table).ok_or_else(|| Error::rejected(format!("no table `{table}`")))?;
        let (key, columns) = (table.key(), table.columns());
        let mut rows: Vec<&LiteralRow> = table.rows.iter().collect();
        rows.sort_by_key(|row| key.iter().map(|&i| row[i].as_ref().map(|cell| (cell.len(), cell))).collect::<Vec<_>>());
        let text = |cell: &Option<Vec<u8>>| cell.as_ref().map(|cell| String::from_utf8_lossy(cell).into_owned());
        let newest = rows.into_iter().rev().take(limit as usize);
        Ok(newest.map(|row| columns.iter().zip(row).map(|(name, cell)| ((*name).to_owned(), text(cell))).collect()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canon::Rule;
    use crate::position::Coordinate;
    use crate::read::{ReadColumn, TargetColumn, TargetTable};
    use crate::testing::Workload;

    struct Gather(Vec<String>);

    #[async_trait]
    impl BlockSink for Gather {
        async fn put(&mut self, block: RowBlock) -> Result<RowBlock> {
            for row in 0..block.rows() {
                let cells: Vec<String> = (0..block.width()).map(|i| block.cell(row, i).map_or("~".into(), |cell| String::from_utf8_lossy(cell).into_owned())).collect();
                self.0.push(cells.join("|"));
            }
            Ok(block)
        }
    }

    /// The orders of the workload on both sides, key first.
    fn sides() -> [(LiteralSide, ReadPlan); 2] {
        let source = Workload::random(1, 0).tables()[0].clone();
        let column = |name: &str, ty: &str| TargetColumn { name: name.into(), ty: ty.into(), base: ty.into(), nullable: true, generated: false };
        let columns = vec![column("amount", "numeric"), column("id", "int8"), column("name", "text")];
        let target = Arc::new(TargetTable { id: TableId::new("public", "orders"), columns, key: vec!["id".into()] });
        let plan = |table: &TableId, is_source| ReadPlan {
            table: table.clone(),
            columns: source
                .columns
                .iter()
                .map(|column| {
                    let partner = target.columns.iter().find(|partner| partner.name == column.name).expect("a partner");
                    ReadColumn { name: column.name.clone(), rule: Rule::new(column, partner).expect("a rule") }
                })
                .collect(),
            key: 1,
            ordered: true,
            source: is_source,
        };
        let plans = (plan(&source.id, true), plan(&target.id, false));
        let ours = LiteralTable::new(SideTable::Source(source), &[&[Some("10"), Some("é"), Some("1.50")], &[Some("9"), None, Some("0.00")], &[Some("-1"), Some(""), None]]);
        let theirs = LiteralTable::new(SideTable::Target(target), &[&[Some("1.5"), Some("10"), Some("é")], &[Some("0"), Some("9"), None], &[None, Some("-1"), Some("")]]);
        [(LiteralSide::new(vec![ours]), plans.0), (LiteralSide::new(vec![theirs]), plans.1)]
    }

    #[tokio::test]
    async fn rows_come_in_the_order_of_the_key_and_within_the_range() {
        for (side, plan) in sides() {
            let mut reader = side.reader();
            reader.begin().await.expect("begin");
            for (after, upto, limit, expected) in [
                (None, None, None, vec!["-1", "9", "10"]),
                (Some("-1"), Some("9"), None, vec!["9"]),
                (Some("8"), None, None, vec!["9", "10"]),
                (None, None, Some(2), vec!["-1", "9"]),
                (Some("10"), None, None, vec![]),
            ] {
                let bound = |bound: Option<&str>| bound.map(|bound| vec![bound.to_owned()]);
                let mut gather = Gather(Vec::new());
                let range = KeyRange { after: bound(after), upto: bound(upto) };
                reader.rows(&plan, &range, limit, &mut gather).await.expect("rows");
                let keys: Vec<&str> = gather.0.iter().map(|row| row.split('|').next().unwrap_or("")).collect();
                assert_eq!(keys, expected);
            }
            assert_eq!(reader.bound(&plan, None, 2).await.expect("bound"), Some(vec!["9".to_owned()]));
            assert_eq!(reader.bound(&plan, Some(&["-1".to_owned()]), 3).await.expect("bound"), None);
            let mut keys = RowBlock::new(1);
            keys.push(Some(b"10"));
            keys.push(Some(b"11"));
            let found = reader.rows_by_key(&plan, &keys).await.expect("rows by key");
            assert_eq!((found.rows(), found.cell(0, 1)), (1, Some("é".as_bytes())));
        }
    }

    #[tokio::test]
    async fn a_view_stands_still_and_says_what_the_script_says() {
        let [(side, plan), _] = sides();
        side.script([View { low: None, high: Some(Coordinate { log: 1, offset: 5 }) }]);
        let mut reader = side.reader();
        assert_eq!(reader.begin().await.expect("begin").high, Some(Coordinate { log: 1, offset: 5 }));
        side.change(&plan.table, Vec::clear);
        assert_eq!(reader.count(&plan.table).await.expect("count"), 3);
        reader.end().await.expect("end");
        assert_eq!(reader.begin().await.expect("begin").high, None);
        assert_eq!(reader.count(&plan.table).await.expect("count"), 0);
        side.fail("count", ErrorKind::Disconnected);
        assert!(reader.count(&plan.table).await.is_err());
        assert!(reader.count(&plan.table).await.is_ok());
    }
}
