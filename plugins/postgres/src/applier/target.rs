//! One table of the source bound to its table of the target: which columns go where, and the statements. Pure but for the catalog it is given.

use std::sync::Arc;

use plumbline_sdk::{ChangeEvent, Error, Result, Row, TableSchema};

use crate::catalog::{CatalogTable, only_match};
use crate::quote::{check_name, ident, qualified};
use crate::types::{Conversion, Policies, Written, created_as};

/// A column that is written.
#[derive(Debug, Clone)]
pub struct PlanColumn {
    /// Its place in the source's rows.
    pub source: usize,
    /// The target's name, quoted.
    pub name: String,
    /// The base type to cast to: never cuts.
    cast: String,
    /// The type to cast to when an existing cell is looked for: rounds as the insert rounded.
    matching: String,
    /// How the cell of the target is compared in a search by the whole row.
    compared: Compared,
    conversion: Conversion,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compared {
    Directly,
    /// `json` has no equality; `jsonb` has.
    AsJsonb,
    /// A type without equality.
    AsText,
}

/// How the rows of one table are written.
#[derive(Debug)]
pub struct Plan {
    /// The source's shape that this plan is for.
    pub schema: Arc<TableSchema>,
    /// The target's quoted, qualified name.
    pub name: String,
    /// Whether we created the target.
    pub created: bool,
    /// What is written.
    pub columns: Vec<PlanColumn>,
    /// What names a row; empty: only the whole row does.
    pub key: Vec<PlanColumn>,
    /// Whether `ON CONFLICT` may name the key.
    pub conflict: bool,
    /// Inserts rows, as they are.
    pub insert: String,
    /// Inserts rows or makes them so (without `conflict`: only inserts; their keys are deleted before).
    pub upsert: String,
    /// Inserts the rows whose key is not there.
    pub insert_missing: String,
    /// Deletes by key.
    pub delete: String,
    /// Deletes one row that equals the parameters.
    pub delete_row: String,
}

/// What stands between the source's shape and the target's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mismatch {
    /// The target lacks these columns of the source.
    Lacking(Vec<String>),
    /// The target wants values for these columns, which the source does not have.
    Wanting(Vec<String>),
    /// A name is equal to several without case.
    Ambiguous(String),
}

impl Plan {
    /// Binds `schema` to `catalog`. `key`: the names of the source's key columns.
    pub fn new(schema: &Arc<TableSchema>, key: &[String], catalog: &CatalogTable, created: bool, policies: Policies) -> std::result::Result<Self, Mismatch> {
        let names = || catalog.table.columns.iter().map(|column| column.name.as_str());
        let (mut columns, mut keys, mut lacking, mut covered) = (Vec::new(), Vec::new(), Vec::new(), vec![false; catalog.table.columns.len()]);
        let mut all = Vec::with_capacity(schema.columns.len());
        for (source, column) in schema.columns.iter().enumerate() {
            let place = only_match(names(), &column.name).map_err(|_| Mismatch::Ambiguous(column.name.clone()))?;
            let Some(place) = place else {
                lacking.push(column.name.clone());
                all.push(None);
                continue;
            };
            covered[place] = true;
            let (target, extra) = (&catalog.table.columns[place], &catalog.extras[place]);
            let rounds = matches!(target.base.as_str(), "timestamp" | "timestamptz" | "time" | "timetz" | "interval" | "numeric");
            let planned = PlanColumn {
                source,
                name: ident(&target.name),
                cast: extra.cast.clone(),
                matching: if rounds { target.ty.clone() } else { extra.cast.clone() },
                compared: match target.base.as_str() {
                    "json" => Compared::AsJsonb,
                    "xml" | "point" | "path" | "polygon" | "geometry" | "geography" | "vector" | "halfvec" => Compared::AsText,
                    _ => Compared::Directly,
                },
                conversion: Conversion::new(&column.ty, &target.base, target.nullable, policies),
            };
            if !target.generated {
                columns.push(planned.clone());
            }
            all.push(Some(planned));
        }
        if !lacking.is_empty() {
            return Err(Mismatch::Lacking(lacking));
        }
        let wanting = |i: &usize| !covered[*i] && !catalog.table.columns[*i].nullable && !catalog.table.columns[*i].generated && !catalog.extras[*i].has_default;
        let wanting: Vec<String> = (0..covered.len()).filter(wanting).map(|i| catalog.table.columns[i].name.clone()).collect();
        if !wanting.is_empty() {
            return Err(Mismatch::Wanting(wanting));
        }
        for name in key {
            match schema.column(name).and_then(|i| all[i].clone()) {
                Some(column) => keys.push(column),
                None => return Err(Mismatch::Lacking(vec![name.clone()])),
            }
        }
        let target_key: Vec<&str> = key.iter().filter_map(|name| catalog.column(name)).map(|i| catalog.table.columns[i].name.as_str()).collect();
        // An identity that is always generated can be inserted over, but never updated.
        let updatable = |name: &str| catalog.column(name).is_none_or(|i| !catalog.extras[i].identity_always || target_key.contains(&name));
        let conflict = !keys.is_empty() && catalog.has_unique(&target_key) && catalog.table.columns.iter().all(|column| updatable(&column.name));
        let overriding = catalog.extras.iter().any(|extra| extra.identity_always);
        let name = catalog.sql_name();
        let insert = insert_statement(&name, &columns, overriding);
        let on_key = keys.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", ");
        let set: Vec<String> =
            columns.iter().filter(|column| !keys.iter().any(|key| key.source == column.source)).map(|column| format!("{0} = EXCLUDED.{0}", column.name)).collect();
        let missing = if conflict { format!("{insert} ON CONFLICT ({on_key}) DO NOTHING") } else { insert.clone() };
        let upsert = match conflict {
            true if set.is_empty() => missing.clone(),
            true => format!("{insert} ON CONFLICT ({on_key}) DO UPDATE SET {}", set.join(", ")),
            false => insert.clone(),
        };
        Ok(Self {
            delete: delete_statement(&name, &keys),
            delete_row: delete_row_statement(&name, &columns),
            schema: Arc::clone(schema),
            created,
            conflict,
            insert,
            upsert,
            insert_missing: missing,
            name,
            columns,
            key: keys,
        })
    }

    /// Appends the bytes that name a row.
    pub fn key_bytes(&self, row: &Row, out: &mut Vec<u8>) -> Result<()> {
        for column in &self.key {
            let at = out.len();
            out.extend_from_slice(&[0; 4]);
            if column.write(&self.schema, row, out)? == Written::Null {
                return Err(Error::rejected(format!("the key column `{}` of `{}` is NULL", self.schema.columns[column.source].name, self.schema.id)));
            }
            let length = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
            out[at..at + 4].copy_from_slice(&length.to_le_bytes());
        }
        Ok(())
    }

    /// Whether a change left the key as it was.
    pub fn same_key(&self, change: &ChangeEvent) -> Result<bool> {
        let (Some(before), Some(after)) = (&change.before, &change.after) else { return Ok(true) };
        let (mut a, mut b) = (Vec::new(), Vec::new());
        self.key_bytes(before, &mut a)?;
        self.key_bytes(after, &mut b)?;
        Ok(a == b)
    }
}

impl PlanColumn {
    /// Appends the cell's text; an error names table and column, never the value.
    pub fn write(&self, schema: &TableSchema, row: &Row, out: &mut Vec<u8>) -> Result<Written> {
        self.conversion
            .write(row.get(self.source), out)
            .map_err(|why| Error::rejected(format!("a value of column `{}` of `{}` cannot be written: {why}", schema.columns[self.source].name, schema.id)))
    }
}

/// The source of rows: one array of text for each column.
fn push_unnest(sql: &mut String, columns: &[PlanColumn]) {
    sql.push_str("ROWS FROM (");
    for i in 1..=columns.len() {
        sql.push_str(if i > 1 { ", " } else { "" });
        sql.push_str(&format!("pg_catalog.unnest(${i}::pg_catalog.text[])"));
    }
    sql.push_str(") AS u(");
    for i in 1..=columns.len() {
        sql.push_str(if i > 1 { ", " } else { "" });
        sql.push_str(&format!("c{i}"));
    }
    sql.push(')');
}

fn insert_statement(name: &str, columns: &[PlanColumn], overriding: bool) -> String {
    let mut sql = format!("INSERT INTO {name} (");
    sql.push_str(&columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>().join(", "));
    sql.push_str(if overriding { ") OVERRIDING SYSTEM VALUE SELECT " } else { ") SELECT " });
    for (i, column) in columns.iter().enumerate() {
        sql.push_str(if i > 0 { ", " } else { "" });
        sql.push_str(&format!("u.c{}::{}", i + 1, column.cast));
    }
    sql.push_str(" FROM ");
    push_unnest(&mut sql, columns);
    sql
}

fn delete_statement(name: &str, key: &[PlanColumn]) -> String {
    let mut sql = format!("DELETE FROM {name} AS t USING ");
    push_unnest(&mut sql, key);
    for (i, column) in key.iter().enumerate() {
        sql.push_str(if i == 0 { " WHERE " } else { " AND " });
        sql.push_str(&format!("t.{} = u.c{}::{}", column.name, i + 1, column.matching));
    }
    sql
}

fn delete_row_statement(name: &str, columns: &[PlanColumn]) -> String {
    let mut sql = format!("DELETE FROM {name} WHERE (tableoid, ctid) = (SELECT tableoid, ctid FROM {name}");
    for (i, PlanColumn { name, matching, compared, .. }) in columns.iter().enumerate() {
        sql.push_str(if i == 0 { " WHERE " } else { " AND " });
        let parameter = format!("${}::pg_catalog.text", i + 1);
        sql.push_str(&match compared {
            Compared::Directly => format!("{name} IS NOT DISTINCT FROM {parameter}::{matching}"),
            Compared::AsJsonb => format!("{name}::pg_catalog.jsonb IS NOT DISTINCT FROM {parameter}::pg_catalog.jsonb"),
            Compared::AsText => format!("{name}::pg_catalog.text IS NOT DISTINCT FROM {parameter}::{matching}::pg_catalog.text"),
        });
    }
    sql.push_str(" LIMIT 1)");
    sql
}

/// The statement that creates a target for `schema`.
pub fn create_table(schema: &TableSchema, key: &[String], target_schema: &str, target: &str) -> Result<String> {
    check_name(target)?;
    let mut sql = format!("CREATE TABLE {} (", qualified(target_schema, target));
    for (i, column) in schema.columns.iter().enumerate() {
        check_name(&column.name).map_err(|error| Error::rejected(format!("table `{}` cannot be created", schema.id)).caused_by(error))?;
        let ty = created_as(&column.ty).map_err(|error| Error::rejected(format!("column `{}` of `{}` cannot be created", column.name, schema.id)).caused_by(error))?;
        sql.push_str(if i > 0 { ", " } else { "" });
        sql.push_str(&format!("{} {ty}{}", ident(&column.name), if column.nullable { "" } else { " NOT NULL" }));
    }
    if !key.is_empty() {
        sql.push_str(&format!(", PRIMARY KEY ({})", key.iter().map(|name| ident(name)).collect::<Vec<_>>().join(", ")));
    }
    sql.push(')');
    Ok(sql)
}

#[cfg(test)]
mod tests {
    use plumbline_sdk::{Column, ColumnType, TableId, TargetColumn, TargetTable, ValueRef};

    use super::*;
    use crate::catalog::ColumnExtra;

    const INT: ColumnType = ColumnType::Int { unsigned: false };

    fn schema(columns: &[(&str, ColumnType, bool)]) -> Arc<TableSchema> {
        let columns = columns
            .iter()
            .map(|(name, ty, nullable)| Column { name: (*name).into(), ty: ty.clone(), nullable: *nullable, key_ordinal: None, generated: false, charset: None })
            .collect();
        Arc::new(TableSchema { id: TableId::new("shop", "t"), columns })
    }

    fn catalog(columns: &[(&str, &str, &str)], unique: &[&str]) -> CatalogTable {
        CatalogTable {
            table: TargetTable {
                id: TableId::new("public", "t"),
                columns: columns
                    .iter()
                    .map(|(name, ty, base)| TargetColumn { name: (*name).into(), ty: (*ty).into(), base: (*base).into(), nullable: true, generated: false })
                    .collect(),
                key: unique.iter().map(|name| (*name).into()).collect(),
            },
            extras: columns.iter().map(|(_, _, base)| ColumnExtra { cast: format!("pg.{base}"), identity_always: false, has_default: false }).collect(),
            unique: if unique.is_empty() { Vec::new() } else { vec![unique.iter().map(|name| (*name).into()).collect()] },
        }
    }

    fn plan(schema: &Arc<TableSchema>, key: &[&str], catalog: &CatalogTable) -> std::result::Result<Plan, Mismatch> {
        let key: Vec<String> = key.iter().map(|name| (*name).into()).collect();
        Plan::new(schema, &key, catalog, true, Policies::default())
    }

    #[test]
    fn rows_are_upserted_and_deleted_by_key() {
        let schema = schema(&[("id", INT, false), ("a\"b", ColumnType::VarChar(9), true)]);
        let catalog = catalog(&[("id", "integer", "int4"), ("a\"b", "character varying(9)", "varchar")], &["id"]);
        let plan = plan(&schema, &["id"], &catalog).expect("a plan");
        let insert = "INSERT INTO \"public\".\"t\" (\"id\", \"a\"\"b\") SELECT u.c1::pg.int4, u.c2::pg.varchar FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) AS u(c1, c2)";
        assert_eq!(plan.insert, insert);
        assert_eq!(plan.upsert, format!("{insert} ON CONFLICT (\"id\") DO UPDATE SET \"a\"\"b\" = EXCLUDED.\"a\"\"b\""));
        assert_eq!(plan.insert_missing, format!("{insert} ON CONFLICT (\"id\") DO NOTHING"));
        assert_eq!(plan.delete, "DELETE FROM \"public\".\"t\" AS t USING ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[])) AS u(c1) WHERE t.\"id\" = u.c1::pg.int4");
    }

    #[test]
    fn a_target_that_is_not_unique_over_the_key_is_deleted_from_and_inserted_into() {
        let schema = schema(&[("id", INT, false)]);
        let plan = plan(&schema, &["id"], &catalog(&[("id", "integer", "int4")], &[])).expect("a plan");
        assert!(!plan.conflict);
        assert_eq!(plan.upsert, plan.insert);
    }

    #[test]
    fn a_row_without_key_is_found_as_it_was_rounded_when_it_was_inserted() {
        let schema = schema(&[("at", ColumnType::DateTime(6), true), ("j", ColumnType::Json, true), ("v", ColumnType::VarChar(9), true)]);
        let catalog = catalog(&[("at", "timestamp(0) without time zone", "timestamp"), ("j", "json", "json"), ("v", "character varying(9)", "varchar")], &[]);
        let plan = plan(&schema, &[], &catalog).expect("a plan");
        assert_eq!(
            plan.delete_row,
            "DELETE FROM \"public\".\"t\" WHERE (tableoid, ctid) = (SELECT tableoid, ctid FROM \"public\".\"t\" \
             WHERE \"at\" IS NOT DISTINCT FROM $1::pg_catalog.text::timestamp(0) without time zone \
             AND \"j\"::pg_catalog.jsonb IS NOT DISTINCT FROM $2::pg_catalog.text::pg_catalog.jsonb \
             AND \"v\" IS NOT DISTINCT FROM $3::pg_catalog.text::pg.varchar LIMIT 1)"
        );
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        let source = schema(&[("id", INT, false), ("b", INT, true), ("c", INT, true)]);
        let mut target = catalog(&[("ID", "integer", "int4"), ("extra", "integer", "int4")], &["ID"]);
        assert_eq!(plan(&source, &["id"], &target).expect_err("lacking"), Mismatch::Lacking(vec!["b".into(), "c".into()]));
        let source = schema(&[("id", INT, false)]);
        assert!(plan(&source, &["id"], &target).expect("a plan").conflict);
        target.table.columns[1].nullable = false;
        assert_eq!(plan(&source, &["id"], &target).expect_err("wanting"), Mismatch::Wanting(vec!["extra".into()]));
        target.extras[1].has_default = true;
        assert!(plan(&source, &["id"], &target).is_ok());
    }

    #[test]
    fn key_bytes_tell_rows_apart() {
        let schema = schema(&[("a", ColumnType::VarChar(9), false), ("b", ColumnType::VarChar(9), false)]);
        let catalog = catalog(&[("a", "text", "text"), ("b", "text", "text")], &["a", "b"]);
        let plan = plan(&schema, &["a", "b"], &catalog).expect("a plan");
        let bytes = |a: &str, b: &str| {
            let mut out = Vec::new();
            plan.key_bytes(&Row::of(&[ValueRef::Text(a), ValueRef::Text(b)]), &mut out).expect("a key");
            out
        };
        assert_ne!(bytes("ab", "c"), bytes("a", "bc"));
        assert_ne!(bytes("a", "b"), bytes("A", "b"));
        assert!(plan.key_bytes(&Row::of(&[ValueRef::Null, ValueRef::Text("b")]), &mut Vec::new()).is_err());
    }

    #[test]
    fn a_table_is_created_with_its_names_as_they_are() {
        let schema = schema(&[("I\"d", INT, false), ("select", ColumnType::Json, true)]);
        assert_eq!(
            create_table(&schema, &["I\"d".into()], "public", "T t").expect("a statement"),
            "CREATE TABLE \"public\".\"T t\" (\"I\"\"d\" integer NOT NULL, \"select\" jsonb, PRIMARY KEY (\"I\"\"d\"))"
        );
        assert!(create_table(&schema, &[], "public", &"x".repeat(64)).is_err());
    }
}
