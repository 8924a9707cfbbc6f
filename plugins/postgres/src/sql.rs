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
        sql.push('1');
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

#[cfg(test)]
mod tests {
    use plumbline_sdk::canon::Rule;
    use plumbline_sdk::{Column, ColumnType, TableId, TargetColumn, TargetTable};

    use super::*;
    use crate::catalog::ColumnExtra;

    fn target(name: &str, ty: &str, base: &str) -> TargetColumn {
        TargetColumn { name: name.into(), ty: ty.into(), base: base.into(), nullable: true, generated: false }
    }

    fn source(ty: ColumnType) -> Column {
        Column { name: "c".into(), ty, nullable: true, key_ordinal: None, generated: false, charset: None }
    }

    /// A table `s"."t` of these columns (source type, name, type, base), the first `key` of them its key.
    fn table(columns: &[(ColumnType, &str, &str, &str)], key: usize) -> (CatalogTable, ReadPlan) {
        let targets: Vec<TargetColumn> = columns.iter().map(|(_, name, ty, base)| target(name, ty, base)).collect();
        let extras = columns.iter().map(|(_, _, _, base)| ColumnExtra { cast: format!("\"pg_catalog\".\"{base}\""), identity_always: false, has_default: false });
        let names: Vec<String> = targets[..key].iter().map(|column| column.name.clone()).collect();
        let id = TableId::new("s\"", "t");
        let reads = columns
            .iter()
            .zip(&targets)
            .map(|((ty, name, _, _), target)| ReadColumn { name: (*name).into(), rule: Rule::new(&source(ty.clone()), target).expect("a rule") })
            .collect();
        let catalog =
            CatalogTable { extras: extras.collect(), unique: vec![names.clone()], table: TargetTable { id: id.clone(), columns: targets, key: names } };
        (catalog, ReadPlan { table: id, columns: reads, key, ordered: false, source: false })
    }

    const INT: ColumnType = ColumnType::Int { unsigned: false };

    #[test]
    fn a_range_is_read_in_key_order_with_typed_bounds() {
        let (table, plan) = table(&[(INT, "id", "integer", "int4"), (ColumnType::VarChar(9), "a\"b", "text", "text")], 1);
        let range = KeyRange { after: Some(vec!["5".into()]), upto: Some(vec!["9".into()]) };
        assert_eq!(
            rows(&table, &plan, &range, Some(7)),
            "COPY (SELECT \"id\", \"a\"\"b\" FROM \"s\"\"\".\"t\" WHERE (\"id\") > ('5'::\"pg_catalog\".\"int4\") AND (\"id\") <= ('9'::\"pg_catalog\".\"int4\") ORDER BY \"id\" LIMIT 7) TO STDOUT"
        );
        assert_eq!(rows(&table, &plan, &KeyRange::default(), None), "COPY (SELECT \"id\", \"a\"\"b\" FROM \"s\"\"\".\"t\" ORDER BY \"id\") TO STDOUT");
    }

    #[test]
    fn a_bound_is_the_key_so_many_rows_on() {
        let (table, plan) = table(&[(ColumnType::VarChar(9), "k", "text", "text"), (INT, "n", "integer", "int4")], 2);
        assert_eq!(
            bound(&table, &plan, Some(&["it's".to_owned(), "1".to_owned()]), 1000),
            "COPY (SELECT \"k\", \"n\" FROM \"s\"\"\".\"t\" WHERE (\"k\", \"n\") > ('it''s'::\"pg_catalog\".\"text\", '1'::\"pg_catalog\".\"int4\") ORDER BY \"k\", \"n\" OFFSET 999 LIMIT 1) TO STDOUT"
        );
    }

    #[test]
    fn bytes_and_instants_are_selected_as_the_rule_says() {
        let (table, plan) = table(&[(ColumnType::Binary(2), "b", "bytea", "bytea"), (ColumnType::Timestamp(0), "at", "timestamp(0) with time zone", "timestamptz")], 1);
        let range = KeyRange { after: Some(vec!["00FF".into()]), upto: None };
        assert_eq!(
            rows(&table, &plan, &range, None),
            "COPY (SELECT pg_catalog.encode(\"b\", 'hex'), \"at\" AT TIME ZONE 'UTC' FROM \"s\"\"\".\"t\" WHERE (\"b\") > (pg_catalog.decode('00FF', 'hex')) ORDER BY \"b\") TO STDOUT"
        );
        assert!(rows_by_key(&table, &plan, &[vec!["00FF"]]).contains("\"b\" = ANY ('{\"\\\\x00FF\"}'::\"pg_catalog\".\"bytea\"[])"));
    }

    #[test]
    fn keys_are_looked_up_by_arrays_of_their_type() {
        let (one, plan) = table(&[(ColumnType::VarChar(9), "k", "text", "text")], 1);
        assert_eq!(
            rows_by_key(&one, &plan, &[vec!["a", "it's \"\\"]]),
            "COPY (SELECT \"k\" FROM \"s\"\"\".\"t\" WHERE \"k\" = ANY ('{\"a\",\"it''s \\\"\\\\\"}'::\"pg_catalog\".\"text\"[])) TO STDOUT"
        );
        let (two, plan) = table(&[(INT, "a", "integer", "int4"), (INT, "b", "bigint", "int8")], 2);
        assert_eq!(
            rows_by_key(&two, &plan, &[vec!["1", "2"], vec!["3", "4"]]),
            "COPY (SELECT \"a\", \"b\" FROM \"s\"\"\".\"t\" JOIN ROWS FROM (pg_catalog.unnest('{\"1\",\"2\"}'::\"pg_catalog\".\"int4\"[]), \
             pg_catalog.unnest('{\"3\",\"4\"}'::\"pg_catalog\".\"int8\"[])) AS plumbline_wanted(plumbline_k0, plumbline_k1) \
             ON \"a\" = plumbline_wanted.plumbline_k0 AND \"b\" = plumbline_wanted.plumbline_k1) TO STDOUT"
        );
    }

    #[test]
    fn the_newest_rows_come_by_key_downwards() {
        let (table, _) = table(&[(INT, "id", "integer", "int4"), (INT, "n", "integer", "int4")], 1);
        assert_eq!(latest(&table, 5), "SELECT \"id\"::pg_catalog.text, \"n\"::pg_catalog.text FROM \"s\"\"\".\"t\" ORDER BY \"id\" DESC LIMIT 5");
        assert_eq!(count(&table), "SELECT pg_catalog.count(*) FROM \"s\"\"\".\"t\"");
    }
}
