//! SQL text for MySQL. Pure: names come from the catalog and are quoted, values are literals of a known type, never pasted text.

use plumbline_sdk::canon::SourceSelect;
use plumbline_sdk::{ColumnType, Error, KeyRange, ReadColumn, ReadPlan, Result, RowBlock, TableId};

/// A name in backticks.
pub fn name(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// `schema`.`table`.
pub fn table(id: &TableId) -> String {
    format!("{}.{}", name(&id.schema), name(&id.table))
}

fn select(column: &ReadColumn) -> String {
    let quoted = name(&column.name);
    match column.rule.source_select() {
        SourceSelect::Plain => quoted,
        SourceSelect::Number => format!("{quoted}+0"),
        SourceSelect::Double => format!("CAST({quoted} AS DOUBLE)"),
        SourceSelect::Utf8 => format!("CONVERT({quoted} USING utf8mb4)"),
    }
}

fn columns(plan: &ReadPlan) -> String {
    plan.columns.iter().map(select).collect::<Vec<_>>().join(", ")
}

fn key(plan: &ReadPlan) -> &[ReadColumn] {
    &plan.columns[..plan.key]
}

fn is_text(ty: &ColumnType) -> bool {
    matches!(ty, ColumnType::Char(_) | ColumnType::VarChar(_) | ColumnType::Text(_) | ColumnType::Enum(_) | ColumnType::Set(_))
}

/// A key cell as a literal of its column's type.
fn literal(ty: &ColumnType, cell: &[u8]) -> Result<String> {
    let text = || std::str::from_utf8(cell).map_err(|_| Error::rejected("a key cell is not UTF-8 text"));
    let refused = || Error::rejected(format!("a key cell of type `{ty}` is not of the form that the reader takes"));
    let plain = |allowed: &dyn Fn(u8) -> bool| text().and_then(|text| if !cell.is_empty() && cell.iter().all(|&byte| allowed(byte)) { Ok(text) } else { Err(refused()) });
    Ok(match ty {
        ColumnType::TinyInt { .. }
        | ColumnType::SmallInt { .. }
        | ColumnType::MediumInt { .. }
        | ColumnType::Int { .. }
        | ColumnType::BigInt { .. }
        | ColumnType::Decimal { .. }
        | ColumnType::Year
        | ColumnType::Bit(_) => plain(&|byte| byte.is_ascii_digit() || byte == b'-' || byte == b'.')?.to_owned(),
        // Exponent form, so that it is a double and no decimal.
        ColumnType::Float | ColumnType::Double => {
            let number = plain(&|byte| byte.is_ascii_digit() || b"-+.eE".contains(&byte))?;
            if number.contains(['e', 'E']) { number.to_owned() } else { format!("{number}e0") }
        }
        ColumnType::Date | ColumnType::DateTime(_) | ColumnType::Timestamp(_) | ColumnType::Time(_) => {
            format!("'{}'", plain(&|byte| byte.is_ascii_digit() || b"-: .".contains(&byte))?)
        }
        ColumnType::Binary(_) | ColumnType::VarBinary(_) | ColumnType::Blob(_) => {
            if cell.iter().all(u8::is_ascii_hexdigit) { format!("X'{}'", text()?) } else { return Err(refused()) }
        }
        _ => {
            let hex: String = text()?.bytes().map(|byte| format!("{byte:02X}")).collect();
            format!("_utf8mb4 X'{hex}'")
        }
    })
}

/// How a key column is compared with a bound. ENUM and SET sort by number and compare with text by text: they are compared by number.
fn comparison(column: &ReadColumn, cell: &[u8]) -> Result<(String, String)> {
    let text = || std::str::from_utf8(cell).map_err(|_| Error::rejected("a key cell is not UTF-8 text"));
    let place = |labels: &[String], label: &str| labels.iter().position(|known| known == label);
    let number = match &column.rule.source {
        ColumnType::Enum(labels) => {
            let label = text()?;
            // The invalid value has number 0 and the empty text.
            Some(place(labels, label).map_or(0, |at| at as u64 + 1))
        }
        ColumnType::Set(labels) => {
            Some(text()?.split(',').filter_map(|label| place(labels, label)).fold(0_u64, |bits, at| bits | 1_u64.checked_shl(u32::try_from(at).unwrap_or(64)).unwrap_or(0)))
        }
        _ => None,
    };
    match number {
        Some(number) => Ok((format!("{}+0", name(&column.name)), number.to_string())),
        None => Ok((name(&column.name), literal(&column.rule.source, cell)?)),
    }
}

/// The condition that a key is after (or at) a bound, written out so that the key's index serves it.
fn beyond(plan: &ReadPlan, bound: &[String], sign: &str, or_equal: bool) -> Result<String> {
    let key = key(plan);
    let mut alternatives = Vec::new();
    for last in 0..key.len() {
        let mut parts = Vec::new();
        for (i, column) in key[..=last].iter().enumerate() {
            let cell = bound.get(i).ok_or_else(|| Error::rejected("a key bound has too few cells"))?;
            let (column, literal) = comparison(column, cell.as_bytes())?;
            let operator = match (i == last, or_equal && last + 1 == key.len()) {
                (false, _) => "=".to_owned(),
                (true, true) => format!("{sign}="),
                (true, false) => sign.to_owned(),
            };
            parts.push(format!("{column} {operator} {literal}"));
        }
        alternatives.push(format!("({})", parts.join(" AND ")));
    }
    Ok(format!("({})", alternatives.join(" OR ")))
}

fn conditions(plan: &ReadPlan, range: &KeyRange) -> Result<String> {
    let mut parts = Vec::new();
    if let Some(after) = &range.after {
        parts.push(beyond(plan, after, ">", false)?);
    }
    if let Some(upto) = &range.upto {
        parts.push(beyond(plan, upto, "<", true)?);
    }
    Ok(if parts.is_empty() { String::new() } else { format!(" WHERE {}", parts.join(" AND ")) })
}

fn order(plan: &ReadPlan, direction: &str) -> String {
    if plan.key == 0 {
        return String::new();
    }
    format!(" ORDER BY {}", key(plan).iter().map(|column| format!("{}{direction}", name(&column.name))).collect::<Vec<_>>().join(", "))
}

/// The rows of a range in key order.
pub fn rows(plan: &ReadPlan, range: &KeyRange, limit: Option<u64>) -> Result<String> {
    let limit = limit.map_or(String::new(), |limit| format!(" LIMIT {limit}"));
    Ok(format!("SELECT {} FROM {}{}{}{limit}", columns(plan), table(&plan.table), conditions(plan, range)?, order(plan, "")))
}

/// The key `rows` rows after a bound.
pub fn bound(plan: &ReadPlan, after: Option<&[String]>, rows: u64) -> Result<String> {
    let keys = key(plan).iter().map(select).collect::<Vec<_>>().join(", ");
    let range = KeyRange { after: after.map(<[String]>::to_vec), upto: None };
    Ok(format!("SELECT {keys} FROM {}{}{} LIMIT 1 OFFSET {}", table(&plan.table), conditions(plan, &range)?, order(plan, ""), rows.saturating_sub(1)))
}

/// The rows whose keys are in the block, from row `from` up to `upto`. Text keys match by the column's own collation here, so that the key's
/// index serves; the caller checks the bytes.
pub fn rows_by_key(plan: &ReadPlan, keys: &RowBlock, from: usize, upto: usize) -> Result<String> {
    let cell = |row: usize, i: usize| -> Result<String> {
        let cell = keys.cell(row, i).ok_or_else(|| Error::rejected("a key cell is NULL"))?;
        literal(&key(plan)[i].rule.source, cell)
    };
    let condition = if plan.key == 1 {
        let cells = (from..upto).map(|row| cell(row, 0)).collect::<Result<Vec<_>>>()?;
        format!("{} IN ({})", name(&plan.columns[0].name), cells.join(", "))
    } else {
        let names = key(plan).iter().map(|column| name(&column.name)).collect::<Vec<_>>().join(", ");
        let rows = (from..upto)
            .map(|row| Ok(format!("({})", (0..plan.key).map(|i| cell(row, i)).collect::<Result<Vec<_>>>()?.join(", "))))
            .collect::<Result<Vec<_>>>()?;
        format!("({names}) IN ({})", rows.join(", "))
    };
    Ok(format!("SELECT {} FROM {} WHERE {condition}", columns(plan), table(&plan.table)))
}

/// Whether a look-up of this plan may bring rows whose text keys are equal only by collation.
pub fn needs_recheck(plan: &ReadPlan) -> bool {
    key(plan).iter().any(|column| is_text(&column.rule.source))
}

/// The newest rows by key; every column as text.
pub fn latest(id: &TableId, columns: &[(String, ColumnType)], key: &[String], limit: u32) -> String {
    let shown = columns
        .iter()
        .map(|(column, ty)| {
            let quoted = name(column);
            match ty {
                ColumnType::Bit(_) => format!("CAST({quoted}+0 AS CHAR)"),
                ColumnType::Binary(_) | ColumnType::VarBinary(_) | ColumnType::Blob(_) | ColumnType::Geometry(_) | ColumnType::Vector(_) => {
                    format!("CONCAT('0x', LOWER(HEX({quoted})))")
                }
                _ => format!("CAST({quoted} AS CHAR)"),
            }
        })
        .collect::<Vec<_>>()
        .join(", ");
    let order = if key.is_empty() { String::new() } else { format!(" ORDER BY {}", key.iter().map(|column| format!("{} DESC", name(column))).collect::<Vec<_>>().join(", ")) };
    format!("SELECT {shown} FROM {}{order} LIMIT {limit}", table(id))
}

#[cfg(test)]
mod tests {
    use plumbline_sdk::canon::Rule;
    use plumbline_sdk::{Column, TargetColumn};

    use super::*;

    fn plan(columns: &[(&str, ColumnType, &str)], key: usize) -> ReadPlan {
        let columns = columns
            .iter()
            .map(|(name, ty, base)| {
                let charset = matches!(ty, ColumnType::VarChar(_) | ColumnType::Enum(_)).then(|| "utf8mb4".into());
                let column = Column { name: (*name).to_owned(), ty: ty.clone(), nullable: false, key_ordinal: None, generated: false, charset };
                let target = TargetColumn { name: (*name).to_owned(), ty: (*base).to_owned(), base: (*base).to_owned(), nullable: false, generated: false };
                ReadColumn { name: (*name).to_owned(), rule: Rule::new(&column, &target).expect("a rule") }
            })
            .collect();
        ReadPlan { table: TableId::new("sh`op", "t"), columns, key, ordered: true, source: true }
    }

    fn int() -> ColumnType {
        ColumnType::Int { unsigned: false }
    }

    fn check(plan: &ReadPlan, after: &[&str], upto: &[&str], expected: &str) {
        let bound = |cells: &[&str]| (!cells.is_empty()).then(|| cells.iter().map(|cell| (*cell).to_owned()).collect());
        let range = KeyRange { after: bound(after), upto: bound(upto) };
        assert_eq!(rows(plan, &range, None).expect("a statement"), expected);
    }

    #[test]
    fn names_are_quoted_and_ranges_follow_the_key() {
        let one = plan(&[("id", int(), "int4")], 1);
        check(&one, &[], &[], "SELECT `id` FROM `sh``op`.`t` ORDER BY `id`");
        check(&one, &["5"], &["-9"], "SELECT `id` FROM `sh``op`.`t` WHERE ((`id` > 5)) AND ((`id` <= -9)) ORDER BY `id`");
        let two = plan(&[("a", int(), "int4"), ("b", ColumnType::VarChar(9), "text")], 2);
        check(
            &two,
            &["1", "é"],
            &[],
            "SELECT `a`, `b` FROM `sh``op`.`t` WHERE ((`a` > 1) OR (`a` = 1 AND `b` > _utf8mb4 X'C3A9')) ORDER BY `a`, `b`",
        );
    }

    #[test]
    fn an_enum_in_a_key_is_compared_as_it_is_sorted() {
        let labels = ColumnType::Enum(["z".to_owned(), "a".to_owned()].into());
        let plan = plan(&[("e", labels, "text")], 1);
        check(&plan, &["z"], &["a"], "SELECT `e` FROM `sh``op`.`t` WHERE ((`e`+0 > 1)) AND ((`e`+0 <= 2)) ORDER BY `e`");
    }

    #[test]
    fn a_key_cell_never_becomes_more_than_a_literal() {
        for (ty, cell) in [(int(), "1 OR 1=1"), (int(), ""), (ColumnType::Date, "2020-01-01' OR '1"), (ColumnType::Double, "1)"), (ColumnType::Binary(2), "X'")] {
            assert!(literal(&ty, cell.as_bytes()).is_err(), "{ty} {cell}");
        }
        assert_eq!(literal(&ColumnType::VarChar(9), b"' OR 1").expect("a literal"), "_utf8mb4 X'27204F522031'");
        assert_eq!(literal(&ColumnType::Double, b"1.5").expect("a literal"), "1.5e0");
    }
}
