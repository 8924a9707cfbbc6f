//! Keys: canonical, comparable, and as people read them.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use plumbline_sdk::{Error, ReadPlan, Result, Row, RowBlock};

/// The canonical key of a row: the canonical forms of its key cells, each with its length before it.
pub fn of_block(plan: &ReadPlan, block: &RowBlock, row: usize, out: &mut Vec<u8>) -> Result<()> {
    out.clear();
    for (i, column) in plan.columns[..plan.key].iter().enumerate() {
        let cell = block.cell(row, i).ok_or_else(|| null_key(plan))?;
        cell_into(out, |out| if plan.source { column.rule.source_text(cell, out) } else { column.rule.target_text(cell, out) })?;
    }
    Ok(())
}

/// The canonical key of a row of the stream; `columns[i]` is where plan column `i` is in it.
pub fn of_row(plan: &ReadPlan, row: &Row, columns: &[usize], out: &mut Vec<u8>) -> Result<()> {
    out.clear();
    for (i, column) in plan.columns[..plan.key].iter().enumerate() {
        cell_into(out, |out| column.rule.value(row.get(columns[i]), out))?;
    }
    Ok(())
}

fn cell_into(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Result<()>) -> Result<()> {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out)?;
    let length = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

fn null_key(plan: &ReadPlan) -> Error {
    Error::rejected(format!("a key column of `{}` is NULL, so the row has no key", plan.table))
}

/// The cells of a canonical key.
pub fn cells(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = key;
    std::iter::from_fn(move || {
        let (length, tail) = rest.split_at_checked(4)?;
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let (cell, tail) = tail.split_at_checked(length)?;
        rest = tail;
        Some(cell)
    })
}

/// The canonical key of a range's bound.
pub fn of_bound(plan: &ReadPlan, bound: &[String]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for (column, cell) in plan.columns[..plan.key].iter().zip(bound) {
        cell_into(&mut out, |out| column.rule.canonical_of_key(cell.as_bytes(), out))?;
    }
    Ok(out)
}

/// The order of two canonical keys, as both sides sort them. Only for plans that are `ordered`.
pub fn order(plan: &ReadPlan, a: &[u8], b: &[u8]) -> Ordering {
    for ((column, a), b) in plan.columns[..plan.key].iter().zip(cells(a)).zip(cells(b)) {
        let order = column.rule.compare(a, b);
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

/// The order of the rows at hand on both sides: equal raw cells first, canonical forms only where they differ.
pub fn order_of_rows(plans: (&ReadPlan, &ReadPlan), source: (&RowBlock, usize), target: (&RowBlock, usize), scratch: &mut (Vec<u8>, Vec<u8>)) -> Result<Ordering> {
    for (i, column) in plans.0.columns[..plans.0.key].iter().enumerate() {
        let (Some(a), Some(b)) = (source.0.cell(source.1, i), target.0.cell(target.1, i)) else { return Err(null_key(plans.0)) };
        if a == b && column.rule.raw_equal() {
            continue;
        }
        scratch.0.clear();
        scratch.1.clear();
        column.rule.source_text(a, &mut scratch.0)?;
        column.rule.target_text(b, &mut scratch.1)?;
        let order = column.rule.compare(&scratch.0, &scratch.1);
        if order != Ordering::Equal {
            return Ok(order);
        }
    }
    Ok(Ordering::Equal)
}

/// A block with the key cells of these canonical keys, for `rows_by_key` of the side that `plan` reads.
pub fn block_for<'a>(plan: &ReadPlan, keys: impl Iterator<Item = &'a [u8]>) -> Result<RowBlock> {
    let mut block = RowBlock::new(plan.key);
    for key in keys {
        for (column, cell) in plan.columns[..plan.key].iter().zip(cells(key)) {
            let cell = if plan.source { column.rule.key_for_source(cell)? } else { column.rule.key_for_target(cell)? };
            block.push(Some(&cell));
        }
    }
    Ok(block)
}

/// A canonical key as people read it: column name to text.
pub fn text(plan: &ReadPlan, key: &[u8]) -> BTreeMap<String, String> {
    plan.columns[..plan.key].iter().zip(cells(key)).map(|(column, cell)| (column.name.clone(), column.rule.key_text(cell))).collect()
}
