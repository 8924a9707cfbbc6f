//! The shapes of tables as they come, and their rows.

use std::sync::Arc;

use plumbline_sdk::{ChangeEvent, ColumnType, Error, Op, Result, TableId, TableSchema};

use super::{Assembler, Known, REMEMBERED, XA_BYTES, XA_ROWS, malformed};
use crate::binlog::bytes::Bytes;
use crate::binlog::table_map::{self, TablePlan};
use crate::binlog::walk::{is_whole, rows_head};

impl Assembler {
    pub(super) fn table_map(&mut self, data: &[u8]) -> Result<()> {
        let (table_id, schema, table) = table_map::head(data).map_err(malformed)?;
        if schema != self.database.as_bytes() {
            self.tables.insert(table_id, Known::Skipped);
            return Ok(());
        }
        // The same table has the same bytes but for its number, as long as its shape stays.
        let shape = data.get(6..).unwrap_or_default();
        if let Some(plan) = self.by_bytes.get(shape) {
            self.tables.insert(table_id, Known::Plan(Arc::clone(plan)));
            return Ok(());
        }
        if !self.watches(&TableId::new(self.database.as_str(), String::from_utf8_lossy(table))) {
            self.tables.insert(table_id, Known::Skipped);
            return Ok(());
        }
        let map = table_map::parse(data).map_err(malformed)?;
        if !map.full {
            return Err(Error::fatal(format!(
                "rows of `{}` came without column names: set `binlog_row_metadata = FULL` (`SET PERSIST binlog_row_metadata = FULL`)",
                map.id
            )));
        }
        let mut columns = map.columns;
        match self.known_keys.get(&map.id).filter(|known| same_names(known, &columns)) {
            Some(known) => {
                let keyless = columns.iter().all(|column| column.key_ordinal.is_none());
                for (column, known) in columns.iter_mut().zip(&known.columns) {
                    if keyless {
                        column.key_ordinal = known.key_ordinal;
                    }
                    column.generated = known.generated;
                    if let (ColumnType::TinyInt { boolean, .. }, ColumnType::TinyInt { boolean: declared, .. }) = (&mut column.ty, &known.ty) {
                        *boolean = *declared;
                    }
                }
            }
            None if self.asked_keys.as_ref() != Some(&map.id) => {
                self.asked_keys = Some(map.id);
                self.needs_keys = true;
                self.batch.records -= 1;
                self.batch.control -= 1;
                return Ok(());
            }
            // The catalog has gone on to another shape: what only it can tell is not known of this one.
            None => {}
        }
        self.asked_keys = None;
        let plan = Arc::new(TablePlan { schema: Arc::new(TableSchema { id: map.id, columns }), cells: map.cells });
        if self.by_bytes.len() >= REMEMBERED {
            self.by_bytes.clear();
        }
        self.by_bytes.insert(shape.to_vec(), Arc::clone(&plan));
        self.tables.insert(table_id, Known::Plan(plan));
        Ok(())
    }

    pub(super) fn rows_event(&mut self, data: &[u8], op: Op, extra: bool) -> Result<()> {
        let head = rows_head(data, extra, op == Op::Update).map_err(malformed)?;
        let plan = match self.tables.get(&head.table_id) {
            Some(Known::Plan(plan)) => Arc::clone(plan),
            Some(Known::Skipped) => {
                self.control();
                return Ok(());
            }
            None => return Err(Error::rejected("rows came without the shape of their table")),
        };
        if head.columns != plan.cells.len() {
            return Err(Error::rejected("rows have another number of columns than their table"));
        }
        if !is_whole(head.present, head.columns) || head.present_after.is_some_and(|after| !is_whole(after, head.columns)) {
            return Err(Error::fatal(format!(
                "rows of `{}` came with some of their columns only: a session wrote them with `binlog_row_image` other than FULL. \
                 Set it to FULL for all sessions; then compare the table, and begin anew with an empty data folder",
                plan.schema.id
            )));
        }
        self.open.weight += data.len() as u64;
        if self.open.xa.is_some() && (self.open_events() > XA_ROWS || self.open.weight > XA_BYTES) {
            return Err(Error::fatal(format!(
                "an XA transaction on `{}` is larger than what is held in memory ({XA_ROWS} rows or {} MiB): nobody knows before its end whether it counts",
                plan.schema.id,
                XA_BYTES >> 20
            )));
        }
        let mut bytes = Bytes::new(head.rows);
        while !bytes.is_empty() {
            let first = self.walker.row(&plan, &mut bytes).map_err(malformed)?;
            let (before, after) = match op {
                Op::Insert => (None, Some(first)),
                Op::Update => (Some(first), Some(self.walker.row(&plan, &mut bytes).map_err(malformed)?)),
                _ => (Some(first), None),
            };
            self.batch.records += 1;
            self.push_change(ChangeEvent { table: Arc::clone(&plan.schema), op, before, after });
        }
        Ok(())
    }

    pub(super) fn refuse_partial(&self, data: &[u8]) -> Error {
        let table = Bytes::new(data).little(6).ok().and_then(|id| self.tables.get(&id));
        match table {
            Some(Known::Plan(plan)) => Error::fatal(format!(
                "rows of `{}` came with parts of JSON documents: a session wrote them with `binlog_row_value_options = PARTIAL_JSON`. \
                 Set it to '' for all sessions; then compare the table, and begin anew with an empty data folder",
                plan.schema.id
            )),
            _ => Error::fatal("rows came with parts of JSON documents: set `binlog_row_value_options = ''` for all sessions"),
        }
    }
}

fn same_names(known: &TableSchema, columns: &[plumbline_sdk::Column]) -> bool {
    known.columns.len() == columns.len() && known.columns.iter().zip(columns).all(|(a, b)| a.name == b.name)
}
