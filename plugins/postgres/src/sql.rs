//! The SQL text of the reader. Pure.

use plumbline_sdk::canon::TargetSelect;
use plumbline_sdk::{KeyRange, ReadColumn, ReadPlan};

use crate::catalog::CatalogTable;
use crate::quote::{literal, push_array_element, push_ident};

/// `column` as the rule wants it selected.
fn push_select(out: &mut String, column: &ReadColumn) {
    match column.rule.target_select() {
        TargetSelect::Plain => push_ident(out, &column.name),
        TargetSelect::AtUtc => {
            push_ident(out, &column.name);
            out.push_str(" AT TIME ZONE 'UTC'");
        }
        TargetSelect::Hex => {
            out.push_str("pg_catalog.encode(");
            push_ident(out, &column.name);
            out.push_str(", 'hex')");
        }
    }
}

fn push_selects(out: &mut String, columns: &[ReadColumn]) {
    for (i, column) in columns.iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        push_select(out, column);
    }
}

/// A key cell as a literal of the column's own type: the cast names the base type, so nothing is cut.
fn push_key_literal(out: &mut String, table: &CatalogTable, column: &ReadColumn, cell: &str) {
    match table.column(&column.name) {
        Some(_) if column.rule.target_select() == TargetSelect::Hex => {
            out.push_str("pg_catalog.decode(");
            out.push_str(&literal(cell));
            out.push_str(", 'hex')");
        }
        Some(i) => {
            out.push_str(&literal(cell));
            out.push_str("::");
            out.push_str(&table.extras[i].cast);
        }
        None => out.push_str(&literal(cell)),
    }
}

fn push_key_tuple(out: &mut String, plan: &ReadPlan) {
    out.push('(');
    for (i, column) in plan.columns[..plan.key].iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        push_ident(out, &column.name);
    }
    out.push(')');
}

fn push_bound(out: &mut String, table: &CatalogTable, plan: &ReadPlan, operator: &str, bound: &[String]) {
    push_key_tuple(out, plan);
    out.push_str(operator);
    out.push('(');
    for (i, (column, cell)) in plan.columns[..plan.key].iter().zip(bound).enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        push_key_literal(out, table, column, cell);
    }
    out.push(')');
}

fn push_from(out: &mut String, table: &CatalogTable, plan: &ReadPlan, range: &KeyRange) {
    out.push_str(" FROM ");
    out.push_str(&table.sql_name());
    let mut word = " WHERE ";
    for (operator, bound) in [(" > ", &range.after), (" <= ", &range.upto)] {
        if let Some(bound) = bound.as_ref().filter(|_| plan.key > 0) {
            out.push_str(word);
            push_bound(out, table, plan, operator, bound);
            word = " AND ";
        }
    }
}

/// The key's own order: the one its index has. Where the plan is `ordered` it is the source's order too.
fn push_order(out: &mut String, plan: &ReadPlan) {
    for (i, column) in plan.columns[..plan.key].iter().enumerate() {
        out.push_str(if i == 0 { " ORDER BY " } else { ", " });
        push_ident(out, &column.name);
    }
}

/// The rows of a range in key order.
pub fn rows(table: &CatalogTable, plan: &ReadPlan, range: &KeyRange, limit: Option<u64>) -> String {
    let mut sql = String::from("COPY (SELECT ");
    push_selects(&mut sql, &plan.columns);
    push_from(&mut sql, table, plan, range);
    push_order(&mut sql, plan);
    if let Some(limit) = limit {
        sql.push_str(&format!(" LIMIT {limit}"));
    }
    sql.push_str(") TO STDOUT");
    sql
}

/// The key `rows` rows after `after`, as key cells: text that [`push_key_literal`] takes.
pub fn bound(table: &CatalogTable, plan: &ReadPlan, after: Option<&[String]>, rows: u64) -> String {
    let mut sql = String::from("COPY (SELECT ");
    push_selects(&mut sql, &plan.columns[..plan.key]);
    push_from(&mut sql, table, plan, &KeyRange { after: after.map(<[String]>::to_vec), upto: None });
    push_order(&mut sql, plan);
    sql.push_str(&format!(" OFFSET {} LIMIT 1) TO STDOUT", rows.saturating_sub(1)));
    sql
}

/// The rows with these keys. `keys[i]` holds the cells of key column `i`.
pub fn rows_by_key(table: &CatalogTable, plan: &ReadPlan, keys: &[Vec<&str>]) -> String {
    let mut sql = String::from("COPY (SELECT ");
    for (i, column) in plan.columns.iter().enumerate() {
        if i > 0 {
            sql.push_str(", ");
        }
        push_select(&mut sql, column);
    }
    sql.push_str(" FROM ");
    sql.push_str(&table.sql_name());
    if keys.len() == 1 {
        sql.push_str(" WHERE ");
        push_ident(&mut sql, &plan.columns[0].name);
        sql.push_str(" = ANY (");
        push_key_array(&mut sql, table, &plan.columns[0], &keys[0]);
        sql.push(')');
    } else {
        // The names of the wanted keys cannot hide a column: they are qualified.
        sql.push_str(" JOIN ROWS FROM (");
        for (i, cells) in keys.iter().enumerate() {
            if i > 0 {
                sql.push_str(", ");
            }
            sql.push_str("pg_catalog.unnest(");
            push_key_array(&mut sql, table, &plan.columns[i], cells);
            sql.push(')');
        }
        sql.push_str(") AS plumbline_wanted(");
        for i in 0..keys.len() {
            sql.push_str(&format!("{}plumbline_k{i}", if i > 0 { ", " } else { "" }));
        }
        sql.push_str(") ON ");
        for i in 0..keys.len() {
            if i > 0 {
                sql.push_str(" AND ");
            }
            push_ident(&mut sql, &plan.columns[i].name);
            sql.push_str(&format!(" = plumbline_wanted.plumbline_k{i}"));
        }
    }
    sql.push_str(") TO STDOUT");
    sql
}

fn push_key_array(out: &mut String, table: &CatalogTable, column: &ReadColumn, cells: &[&str]) {
    let hex = column.rule.target_select() == TargetSelect::Hex;
    let mut array = String::with_capacity(cells.iter().map(|cell| cell.len() + 6).sum());
    array.push('{');
    for (i, cell) in cells.iter().enumerate() {
        if i > 0 {
            array.push(',');
        }
        if hex {
            // The array's own escape for the backslash of `\x`.
            array.push_str("\"\\\\x");
            array.push_str(cell);
            array.push('"');
        } else {
            push_array_element(&mut array, cell);
        }
    }
    array.push('}');
    out.push_str(&literal(&array));
    out.push_str("::");
    match table.column(&column.name) {
        Some(i) => out.push_str(&table.extras[i].cast),
        None => out.push_str("pg_catalog.text"),
    }
    out.push_str("[]");
}

/// The newest rows by key, every column as text.
pub fn latest(table: &CatalogTable, limit: u32) -> String {
    let mut sql = String::from("SELECT ");
    for (i, column) in table.table.columns.iter().enumerate() {
        if i > 0 {
            sql.push_str(", ");
        }
        push_ident(&mut sql, &column.name);
        sql.push_str("::pg_catalog.text");
    }
    if table.table.columns.is_empty() {
        sql.push_str("1");
    }
    sql.push_str(" FROM ");
    sql.push_str(&table.sql_name());
    for (i, name) in table.table.key.iter().enumerate() {
        sql.push_str(if i == 0 { " ORDER BY " } else { ", " });
        push_ident(&mut sql, name);
        sql.push_str(" DESC");
    }
    sql.push_str(&format!(" LIMIT {limit}"));
    sql
}

/// The exact number of rows.
pub fn count(table: &CatalogTable) -> String {
    format!("SELECT pg_catalog.count(*) FROM {}", table.sql_name())
}
