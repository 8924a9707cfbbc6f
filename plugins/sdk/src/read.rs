//! One side of a comparison, read: the contract between the engine, which knows no SQL, and the databases.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use crate::canon::Rule;
use crate::error::Result;
use crate::position::{Coordinate, Position};
use crate::table::{TableId, TableSchema};

/// A table of the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetTable {
    /// Schema and name in the target's spelling.
    pub id: TableId,
    /// Its columns in order.
    pub columns: Vec<TargetColumn>,
    /// The names of its primary key's columns in key order (else of the first unique index without nullable columns); empty: no key.
    pub key: Vec<String>,
}

/// A column of the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetColumn {
    /// Its name in the target's spelling.
    pub name: String,
    /// The type as the target prints it with its modifier: `numeric(12,2)`, `timestamp(3) without time zone`, `text[]`.
    pub ty: String,
    /// Domains resolved and modifier dropped: `numeric`, `timestamptz`, `_text` (PostgreSQL's `typname`); `enum` for any enumeration and
    /// `_enum` for an array of one.
    pub base: String,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// Whether it is a generated column, never written.
    pub generated: bool,
}

/// A table as one side has it.
#[derive(Debug, Clone)]
pub enum SideTable {
    /// As the source has it.
    Source(Arc<TableSchema>),
    /// As the target has it.
    Target(Arc<TargetTable>),
}

/// One column to read, with the rule by which both sides are compared.
#[derive(Debug, Clone)]
pub struct ReadColumn {
    /// Its name on this side.
    pub name: String,
    /// How its values are brought to canonical form. A reader asks the rule how the cell is to be selected.
    pub rule: Rule,
}

/// What to read of one table on one side. The key columns come first, in key order, then the others.
#[derive(Debug, Clone)]
pub struct ReadPlan {
    /// The table on this side.
    pub table: TableId,
    /// The columns, key first.
    pub columns: Vec<ReadColumn>,
    /// How many of them are the key; 0: the table has no key.
    pub key: usize,
    /// Whether both sides sort the key alike (numbers, dates, bytes): then rows come in key order and ranges may be shared.
    pub ordered: bool,
    /// Whether this plan reads the source.
    pub source: bool,
}

/// A range of keys: after `after`, up to and with `upto`. Bounds are key cells of the reader's side, as
/// [`Rule::key_for_source`](crate::canon::Rule::key_for_source) and [`Rule::key_for_target`](crate::canon::Rule::key_for_target) make them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// Exclusive lower bound; None: from the first row.
    pub after: Option<Vec<String>>,
    /// Inclusive upper bound; None: to the last row.
    pub upto: Option<Vec<String>>,
}

/// What a reader sees between `begin` and `end`.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Everything at or before this position is visible. Source: L (transactions visible when the view opened). Target: A, the applier's progress, exactly.
    pub low: Option<Position>,
    /// Everything visible is at or before this coordinate. Source: H. Target: None.
    pub high: Option<Coordinate>,
}

/// Rows as one side printed them, packed. A cell is text exactly as the rule's select expression gives it, NULL apart.
#[derive(Debug, Clone, Default)]
pub struct RowBlock {
    cells: Vec<u8>,
    ends: Vec<u32>,
    width: usize,
}

const NULL_BIT: u32 = 1 << 31;

impl RowBlock {
    /// An empty block of rows with `width` cells.
    pub fn new(width: usize) -> Self {
        Self { cells: Vec::new(), ends: Vec::new(), width }
    }
    /// Forgets the rows and keeps the memory.
    pub fn clear(&mut self) {
        self.cells.clear();
        self.ends.clear();
    }
    /// Cells in a row.
    pub fn width(&self) -> usize {
        self.width
    }
    /// Complete rows.
    pub fn rows(&self) -> usize {
        self.ends.len().checked_div(self.width).unwrap_or(0)
    }
    /// Bytes held.
    pub fn size(&self) -> usize {
        self.cells.len() + self.ends.len() * 4
    }
    /// Adds the next cell. Blocks stay far below 2 GiB: readers end a block at a few MiB.
    pub fn push(&mut self, cell: Option<&[u8]>) {
        let null = match cell {
            Some(content) => {
                self.cells.extend_from_slice(content);
                0
            }
            None => NULL_BIT,
        };
        self.ends.push((self.cells.len() as u32 & !NULL_BIT) | null);
    }
    /// Adds the next cell by writing to the buffer it is given.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.cells);
        self.ends.push(self.cells.len() as u32 & !NULL_BIT);
    }
    /// Adds all rows of another block of the same width.
    pub fn append(&mut self, other: &Self) {
        let start = self.cells.len() as u32;
        self.cells.extend_from_slice(&other.cells);
        self.ends.extend(other.ends.iter().map(|end| (start + (end & !NULL_BIT)) | (end & NULL_BIT)));
    }
    /// The cell of column `column` in row `row`; None: NULL.
    pub fn cell(&self, row: usize, column: usize) -> Option<&[u8]> {
        let i = row * self.width + column;
        let end = self.ends[i];
        if end & NULL_BIT != 0 {
            return None;
        }
        let start = if i == 0 { 0 } else { self.ends[i - 1] & !NULL_BIT };
        Some(&self.cells[start as usize..end as usize])
    }
}

/// Where a reader puts the blocks it fills; waits while the engine is busy.
#[async_trait]
pub trait BlockSink: Send {
    /// Hands over a block and gives an empty one of the same width. `Err`: the engine does not want more; pass it on.
    async fn put(&mut self, block: RowBlock) -> Result<RowBlock>;
}

/// Reads one side. One owner, one connection of its own; reading never writes.
///
/// ```text
/// connect; tables; ( begin; bound | count | rows | rows_by_key ...; end )*
/// ```
///
/// `Err` is "could not look", never equal and never different.
#[async_trait]
pub trait Reader: Send {
    /// Connects, or connects again after `Disconnected`; any open view is gone.
    async fn connect(&mut self) -> Result<()>;
    /// Every table on this side that could be compared.
    async fn tables(&mut self) -> Result<Vec<SideTable>>;
    /// Opens a consistent view for the reads that follow.
    async fn begin(&mut self) -> Result<View>;
    /// Closes the view. Called after `begin`, also when a read failed.
    async fn end(&mut self) -> Result<()>;
    /// The exact number of rows in the view.
    async fn count(&mut self, table: &TableId) -> Result<u64>;
    /// The key `rows` rows after `after` in this side's own key order, as key cells; None: fewer rows are left.
    async fn bound(&mut self, plan: &ReadPlan, after: Option<&[String]>, rows: u64) -> Result<Option<Vec<String>>>;
    /// The rows of `range`, in this side's own key order, in blocks. `limit`: at most so many rows.
    async fn rows(&mut self, plan: &ReadPlan, range: &KeyRange, limit: Option<u64>, out: &mut dyn BlockSink) -> Result<()>;
    /// The rows whose key equals one of `keys` byte by byte (a block of width `plan.key`, key cells of this side as
    /// [`Rule::key_for_source`](crate::canon::Rule::key_for_source) and [`Rule::key_for_target`](crate::canon::Rule::key_for_target) make them). In any order.
    async fn rows_by_key(&mut self, plan: &ReadPlan, keys: &RowBlock) -> Result<RowBlock>;
    /// The newest rows by key, at most `limit`, every column as text by name; for people to look at.
    async fn latest(&mut self, table: &TableId, limit: u32) -> Result<Vec<Vec<(String, Option<String>)>>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_appended_block_keeps_its_cells_and_its_nulls() {
        let mut block = RowBlock::new(2);
        let mut other = RowBlock::new(2);
        for cell in [Some("a"), None] {
            block.push(cell.map(str::as_bytes));
        }
        for cell in [None, Some(""), Some("bc"), None] {
            other.push(cell.map(str::as_bytes));
        }
        block.append(&other);
        block.append(&RowBlock::new(2));
        let cells: Vec<_> = (0..block.rows()).flat_map(|row| [block.cell(row, 0), block.cell(row, 1)]).collect();
        assert_eq!(cells, [Some(&b"a"[..]), None, None, Some(&b""[..]), Some(&b"bc"[..]), None]);
    }
}
