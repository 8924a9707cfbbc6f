//! The target's tables as `pg_catalog` has them. Names come in as bound parameters and go out in the catalog's own spelling.

use std::collections::HashMap;

use plumbline_sdk::{Result, TableId, TargetColumn, TargetTable};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::Row;

use crate::error::{Doing, Failure};
use crate::quote::qualified;

/// A table of the target with what writing to it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogTable {
    /// As the sdk knows it.
    pub table: TargetTable,
    /// For each column of `table.columns`.
    pub extras: Vec<ColumnExtra>,
    /// The columns of every unique index that is valid, immediate, not partial and without expressions: what `ON CONFLICT` may name.
    pub unique: Vec<Vec<String>>,
}

/// What writing to a column needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnExtra {
    /// The base type, quoted and qualified, without modifier: casting to it never cuts a value.
    pub cast: String,
    /// `GENERATED ALWAYS AS IDENTITY`: an INSERT must override it, an UPDATE cannot.
    pub identity_always: bool,
    /// Whether an INSERT may leave it out: it has a default or is an identity.
    pub has_default: bool,
}

impl CatalogTable {
    /// The quoted, qualified name.
    pub fn sql_name(&self) -> String {
        qualified(&self.table.id.schema, &self.table.id.table)
    }
    /// The index of the column of this name, else of the only one whose name is equal without case.
    pub fn column(&self, name: &str) -> Option<usize> {
        only_match(self.table.columns.iter().map(|column| column.name.as_str()), name).ok().flatten()
    }
    /// Whether `ON CONFLICT` may name exactly these columns.
    pub fn has_unique(&self, columns: &[&str]) -> bool {
        self.unique.iter().any(|unique| unique.len() == columns.len() && columns.iter().all(|column| unique.iter().any(|name| name == column)))
    }
}

/// The index of the name that equals `name`, else of the only one that equals it without case; `Err`: several do.
pub fn only_match<'a>(names: impl Iterator<Item = &'a str> + Clone, name: &str) -> std::result::Result<Option<usize>, usize> {
    if let Some(exact) = names.clone().position(|candidate| candidate == name) {
        return Ok(Some(exact));
    }
    let folded = name.to_lowercase();
    let mut alike = names.enumerate().filter(|(_, candidate)| candidate.to_lowercase() == folded).map(|(i, _)| i);
    match (alike.next(), alike.count()) {
        (found, 0) => Ok(found),
        (_, more) => Err(more + 1),
    }
}

const COLUMNS: &str = "
SELECT c.oid, c.relname::text, a.attname::text, pg_catalog.format_type(b.oid, b.typmod),
       CASE WHEN t.typtype = 'e' THEN 'enum' WHEN e.typtype = 'e' THEN '_enum' ELSE t.typname::text END,
       NOT (a.attnotnull OR o.typnotnull), a.attgenerated <> '', tn.nspname::text, t.typname::text,
       a.attidentity = 'a', a.atthasdef OR a.attidentity <> ''
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  JOIN pg_catalog.pg_type o ON o.oid = a.atttypid
  CROSS JOIN LATERAL (
    WITH RECURSIVE up(oid, typmod, depth) AS (
      SELECT a.atttypid, a.atttypmod, 0
      UNION ALL
      SELECT d.typbasetype, CASE WHEN up.typmod = -1 THEN d.typtypmod ELSE up.typmod END, up.depth + 1
        FROM up JOIN pg_catalog.pg_type d ON d.oid = up.oid WHERE d.typtype = 'd')
    SELECT up.oid, up.typmod FROM up ORDER BY up.depth DESC LIMIT 1) b
  JOIN pg_catalog.pg_type t ON t.oid = b.oid
  JOIN pg_catalog.pg_namespace tn ON tn.oid = t.typnamespace
  LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem AND t.typcategory = 'A'
 WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND ($2::text[] IS NULL OR c.relname = ANY ($2))
 ORDER BY c.relname, a.attnum";

const UNIQUE: &str = "
SELECT i.indrelid, i.indisprimary, i.indimmediate,
       ARRAY(SELECT a.attname::text FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place)
               JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
              WHERE k.place <= i.indnkeyatts ORDER BY k.place),
       NOT EXISTS (SELECT FROM pg_catalog.unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, place)
                     JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
                    WHERE k.place <= i.indnkeyatts AND NOT a.attnotnull)
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = $1 AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AND ($2::text[] IS NULL OR c.relname = ANY ($2))
 ORDER BY i.indrelid, i.indisprimary DESC, i.indexrelid";

/// The tables of `schema`, all or those named exactly, in order of their names.
pub(crate) async fn read_tables(connection: &mut PgConnection, schema: &str, names: Option<&[String]>) -> std::result::Result<Vec<CatalogTable>, Failure> {
    let rows = sqlx::query(COLUMNS).bind(schema).bind(names).fetch_all(&mut *connection).await?;
    let mut tables: Vec<CatalogTable> = Vec::new();
    let mut places: HashMap<sqlx::postgres::types::Oid, usize> = HashMap::new();
    for row in &rows {
        let oid = row.try_get(0)?;
        let place = match places.get(&oid) {
            Some(&place) => place,
            None => {
                let id = TableId::new(schema, row.try_get::<String, _>(1)?);
                tables.push(CatalogTable { table: TargetTable { id, columns: Vec::new(), key: Vec::new() }, extras: Vec::new(), unique: Vec::new() });
                places.insert(oid, tables.len() - 1);
                tables.len() - 1
            }
        };
        let (column, extra) = column(row)?;
        tables[place].table.columns.push(column);
        tables[place].extras.push(extra);
    }
    for row in sqlx::query(UNIQUE).bind(schema).bind(names).fetch_all(connection).await? {
        let Some(&place) = places.get(&row.try_get(0)?) else { continue };
        let (primary, immediate, columns, not_null): (bool, bool, Vec<String>, bool) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?, row.try_get(4)?);
        let table = &mut tables[place];
        if table.table.key.is_empty() && (primary || not_null) {
            table.table.key.clone_from(&columns);
        }
        if immediate {
            table.unique.push(columns);
        }
    }
    Ok(tables)
}

fn column(row: &PgRow) -> std::result::Result<(TargetColumn, ColumnExtra), sqlx::Error> {
    let column = TargetColumn { name: row.try_get(2)?, ty: row.try_get(3)?, base: row.try_get(4)?, nullable: row.try_get(5)?, generated: row.try_get(6)? };
    let cast = qualified(&row.try_get::<String, _>(7)?, &row.try_get::<String, _>(8)?);
    Ok((column, ColumnExtra { cast, identity_always: row.try_get(9)?, has_default: row.try_get(10)? }))
}

/// Whether a relation exists, by bound names.
pub(crate) async fn relation_exists(connection: &mut PgConnection, schema: &str, name: &str) -> Result<bool> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2)",
    )
    .bind(schema)
    .bind(name)
    .fetch_one(connection)
    .await
    .doing("looking for a table")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_matches_itself_before_another_case() {
        let check = |names: &[&str], name, expected| assert_eq!(only_match(names.iter().copied(), name), expected, "{names:?} {name}");
        check(&["a", "A"], "A", Ok(Some(1)));
        check(&["orders"], "Orders", Ok(Some(0)));
        check(&["oRders", "orderS"], "Orders", Err(2));
        check(&["x"], "Orders", Ok(None));
    }
}
