//! Schema statements of the source, applied at their place in the stream.

use plumbline_sdk::{ColumnType, Error, SchemaChange, SchemaChangeKind, TableId, TargetColumn};
use sqlx::{AssertSqlSafe, Executor};

use super::attempt::{Attempt, Outcome};
use super::statement::{Clause, Definition, Fill, Literal, clauses, is_rename_only};
use super::store::Binding;
use crate::catalog::{CatalogTable, relation_exists};
use crate::error::Failure;
use crate::quote::{check_name, ident, literal, qualified};
use crate::types::{Conversion, Policies, Written, created_as};

impl Attempt<'_> {
    /// Applies one schema statement; an error stops its table.
    pub async fn schema(&mut self, change: &SchemaChange) -> Outcome<()> {
        let table = &change.table;
        self.blame_statement(table, &change.statement);
        self.memory.plans.remove(table);
        match change.kind {
            // The table is created by what discovery or the first row says of it.
            SchemaChangeKind::Create => Ok(()),
            SchemaChangeKind::Drop => self.drop_table(change).await,
            SchemaChangeKind::Alter | SchemaChangeKind::Rename => {
                // `ALTER TABLE a ADD b INT, RENAME TO c` is a rename with something to do before; `RENAME TABLE` is only a rename.
                if !is_rename_only(&change.statement) && !self.is_stopped(table) {
                    self.alter(change).await?;
                }
                match &change.renamed_to {
                    Some(to) if to != table => self.rename(change, to).await,
                    _ => Ok(()),
                }
            }
        }
    }

    async fn alter(&mut self, change: &SchemaChange) -> Outcome<()> {
        let table = &change.table;
        let Some(binding) = self.memory.book.bindings.get(table).cloned() else { return Ok(()) };
        let clauses = clauses(&change.statement);
        if clauses.iter().all(|clause| *clause == Clause::Nothing) {
            return Ok(());
        }
        for clause in clauses {
            let catalog = self.catalog(table, &binding.target).await?;
            match clause {
                Clause::Nothing => {}
                Clause::AddColumn(column) => self.add_column(table, &binding, &catalog, &column).await?,
                Clause::DropColumn(name) => {
                    if let Some(place) = catalog.column(&name) {
                        self.execute(format!("ALTER TABLE {} DROP COLUMN {}", catalog.sql_name(), ident(&catalog.table.columns[place].name))).await?;
                    }
                }
                Clause::RenameColumn { from, to } => self.rename_column(table, &catalog, &from, &to).await?,
                Clause::Redefine { from, to } => {
                    self.rename_column(table, &catalog, &from, &to.name).await?;
                    let catalog = self.catalog(table, &binding.target).await?;
                    self.redefine(&catalog, &to).await?;
                }
                Clause::AddPrimaryKey(columns) => self.add_key(table, &catalog, columns).await?,
                Clause::DropPrimaryKey => self.drop_key(table, &catalog).await?,
                Clause::Unknown(why) => return Err(Error::rejected(format!("a schema statement on `{table}` cannot be applied: {why}")).into()),
            }
        }
        self.log(table, "schema", "completed", 0, &change.statement).await
    }

    async fn add_column(&mut self, table: &TableId, binding: &Binding, catalog: &CatalogTable, column: &Definition) -> Outcome<()> {
        check_name(&column.name)?;
        let name = catalog.sql_name();
        let ty = created_as(&column.ty)?;
        let existing = catalog.column(&column.name).map(|place| &catalog.table.columns[place]);
        let filler = match &column.fill {
            Fill::Null => None,
            Fill::Value(value) => self.literal(table, column, value, existing)?,
            Fill::Computed => {
                if self.is_filled(&name).await? {
                    return Err(Error::rejected(format!(
                        "column `{}` was added to `{table}` with values that the source computed for the rows that were there: the statement does not say them",
                        column.name
                    ))
                    .into());
                }
                None
            }
        };
        match existing {
            None => {
                let default = filler.map_or_else(String::new, |text| format!(" DEFAULT {}", literal(&text)));
                let not_null = if column.nullable || (default.is_empty() && self.is_filled(&name).await?) { "" } else { " NOT NULL" };
                self.execute(format!("ALTER TABLE {name} ADD COLUMN {} {ty}{not_null}{default}", ident(&column.name))).await?;
            }
            // Discovery saw it before the stream got here: the rows that are here came without it.
            Some(existing) => {
                let quoted = ident(&existing.name);
                if let (Some(text), false) = (filler, existing.generated) {
                    self.execute(format!("UPDATE {name} SET {quoted} = {}", literal(&text))).await?;
                }
                if binding.created && !column.nullable && existing.nullable {
                    self.execute(format!("ALTER TABLE {name} ALTER COLUMN {quoted} SET NOT NULL")).await?;
                }
            }
        }
        Ok(())
    }

    /// A literal as PostgreSQL text; None: NULL.
    fn literal(&self, table: &TableId, column: &Definition, value: &Literal, existing: Option<&TargetColumn>) -> Outcome<Option<String>> {
        let base = existing.map_or_else(|| base_of(&column.ty), |existing| existing.base.clone());
        let nullable = existing.map_or(column.nullable, |existing| existing.nullable);
        let policies = Policies { zero_dates: self.config.zero_dates, nul_characters: self.config.nul_characters };
        let mut text = Vec::new();
        let written = Conversion::new(&column.ty, &base, nullable, policies)
            .write(value.value(&column.ty), &mut text)
            .map_err(|why| Error::rejected(format!("the default of column `{}` of `{table}` cannot be written: {why}", column.name)))?;
        Ok((written == Written::Text).then(|| String::from_utf8_lossy(&text).into_owned()))
    }

    async fn is_filled(&mut self, name: &str) -> Outcome<bool> {
        Ok(sqlx::query_scalar(AssertSqlSafe(format!("SELECT EXISTS (SELECT FROM {name})"))).fetch_one(&mut *self.connection).await?)
    }

    async fn rename_column(&mut self, table: &TableId, catalog: &CatalogTable, from: &str, to: &str) -> Outcome<()> {
        if let Some(mut binding) = self.memory.book.bindings.get(table).cloned()
            && let Some(name) = binding.key.iter_mut().find(|name| *name == from)
            && from != to
        {
            to.clone_into(name);
            self.keep_binding(table, binding).await?;
        }
        let Some(place) = catalog.column(from) else { return Ok(()) };
        let current = &catalog.table.columns[place].name;
        // A target that spells the name in its own way keeps it where only case differs.
        if from == to || current == to || (current != from && current.to_lowercase() == to.to_lowercase()) {
            return Ok(());
        }
        check_name(to)?;
        self.execute(format!("ALTER TABLE {} RENAME COLUMN {} TO {}", catalog.sql_name(), ident(current), ident(to))).await.map(|_| ())
    }

    async fn redefine(&mut self, catalog: &CatalogTable, column: &Definition) -> Outcome<()> {
        let Some(place) = catalog.column(&column.name) else {
            return Err(Error::rejected(format!("the target table `{}` has no column `{}` to change", catalog.table.id, column.name)).into());
        };
        let current = &catalog.table.columns[place];
        let (name, quoted) = (catalog.sql_name(), ident(&current.name));
        match widening(current, &column.ty) {
            Change::None => {}
            Change::Alter { ty, using } => {
                let using = using.map_or_else(String::new, |using| format!(" USING {}", using.replace("{}", &quoted)));
                self.execute(format!("ALTER TABLE {name} ALTER COLUMN {quoted} TYPE {ty}{using}")).await?;
            }
            Change::Unknown => {
                return Err(Error::rejected(format!(
                    "column `{}` of `{}` became `{}` on the source; from `{}` that cannot be done here without perhaps changing values",
                    column.name, catalog.table.id, column.ty, current.ty
                ))
                .into());
            }
        }
        let is_key = catalog.table.key.contains(&current.name);
        match (current.nullable, column.nullable) {
            (false, true) if !is_key => self.execute(format!("ALTER TABLE {name} ALTER COLUMN {quoted} DROP NOT NULL")).await.map(|_| ()),
            (true, false) => self.execute(format!("ALTER TABLE {name} ALTER COLUMN {quoted} SET NOT NULL")).await.map(|_| ()),
            _ => Ok(()),
        }
    }

    async fn add_key(&mut self, table: &TableId, catalog: &CatalogTable, columns: Vec<String>) -> Outcome<()> {
        let Some(mut binding) = self.memory.book.bindings.get(table).cloned() else { return Ok(()) };
        let names: Vec<String> = columns.iter().filter_map(|name| catalog.column(name)).map(|place| catalog.table.columns[place].name.clone()).collect();
        if binding.created && names.len() == columns.len() && !catalog.has_unique(&names.iter().map(String::as_str).collect::<Vec<_>>()) {
            let list = names.iter().map(|name| ident(name)).collect::<Vec<_>>().join(", ");
            self.execute(format!("ALTER TABLE {} ADD PRIMARY KEY ({list})", catalog.sql_name())).await?;
        }
        binding.key = columns;
        self.keep_binding(table, binding).await
    }

    async fn drop_key(&mut self, table: &TableId, catalog: &CatalogTable) -> Outcome<()> {
        let Some(mut binding) = self.memory.book.bindings.get(table).cloned() else { return Ok(()) };
        if binding.created {
            let constraint: Option<String> = sqlx::query_scalar(
                "SELECT k.conname::text FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
                   JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2 AND k.contype = 'p'",
            )
            .bind(&*catalog.table.id.schema)
            .bind(&*catalog.table.id.table)
            .fetch_optional(&mut *self.connection)
            .await?;
            if let Some(constraint) = constraint {
                self.execute(format!("ALTER TABLE {} DROP CONSTRAINT {}", catalog.sql_name(), ident(&constraint))).await?;
            }
        }
        binding.key = Vec::new();
        self.keep_binding(table, binding).await
    }

    /// A target that we created goes with its source; one that was there before stays, and the log says so.
    async fn drop_table(&mut self, change: &SchemaChange) -> Outcome<()> {
        let table = &change.table;
        if let Some(binding) = self.memory.book.bindings.get(table).cloned() {
            let mut left = !binding.created;
            if binding.created {
                let name = qualified(&self.config.connection.schema, &binding.target);
                self.connection.execute("SAVEPOINT plumbline_drop").await?;
                match self.execute(format!("DROP TABLE IF EXISTS {name}")).await {
                    Ok(_) => {}
                    Err(Failure::Said(_)) => {
                        self.connection.execute("ROLLBACK TO SAVEPOINT plumbline_drop").await?;
                        left = true;
                    }
                    Err(other) => return Err(other),
                }
            }
            let message = if left { format!("the source dropped it; the target `{}` is left as it is", binding.target) } else { change.statement.to_string() };
            self.log(table, "schema", "completed", 0, &message).await?;
        }
        self.forget(table).await?;
        self.forget_names();
        Ok(())
    }

    async fn forget(&mut self, table: &TableId) -> Outcome<()> {
        for from in ["copies", "tables", "stopped_tables"] {
            self.store.forget(self.connection, from, table).await?;
        }
        let book = self.book();
        book.bindings.remove(table);
        book.copies.remove(table);
        book.stopped.remove(table);
        if let Some((_, stop)) = self.failed.iter().find(|(failed, _)| failed == table) {
            self.book().stopped.insert(table.clone(), stop.clone());
        }
        self.memory.plans.remove(table);
        Ok(())
    }

    async fn rename(&mut self, change: &SchemaChange, to: &TableId) -> Outcome<()> {
        let table = &change.table;
        let binding = self.memory.book.bindings.get(table).cloned();
        let (copy, stop) = (self.memory.book.copies.get(table).cloned(), self.memory.book.stopped.get(table).cloned());
        // Whatever had the new name before is gone from the source.
        self.forget(to).await?;
        self.forget(table).await?;
        let Some(mut binding) = binding else { return Ok(()) };
        let name = &*to.table;
        if binding.target != name {
            let schema = self.config.connection.schema.clone();
            check_name(name)?;
            if relation_exists(self.connection, &schema, name).await? {
                return Err(Error::rejected(format!("`{table}` was renamed to `{to}`, and the target has another table `{schema}.{name}`; rename or drop that one")).into());
            }
            self.execute(format!("ALTER TABLE {} RENAME TO {}", qualified(&schema, &binding.target), ident(name))).await?;
            binding.target = name.to_owned();
        }
        self.forget_names();
        self.keep_binding(to, binding).await?;
        if let Some(mut mark) = copy {
            mark.table = to.clone();
            self.store.keep_copy(self.connection, &mark).await?;
            self.book().copies.insert(to.clone(), mark);
        }
        let failed = self.failed.iter().find(|(failed, _)| failed == to).map(|(_, stop)| stop.clone());
        if let Some(stop) = failed.or(stop) {
            self.stop(to, &stop).await?;
        }
        self.log(table, "schema", "completed", 0, &change.statement).await
    }
}

/// What a redefinition asks of the target's column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// The column holds every value of the new type as it is.
    None,
    /// A change of type that keeps every value, or fails.
    Alter { ty: String, using: Option<&'static str> },
    /// It cannot be told that values stay the same.
    Unknown,
}

/// How a column that is `current` follows its source column to `ty`. Columns are never made narrower where the wider one holds the same.
pub(super) fn widening(current: &TargetColumn, ty: &ColumnType) -> Change {
    let Ok(wanted) = created_as(ty) else { return Change::Unknown };
    let base = base_of(ty);
    let alter = |using| Change::Alter { ty: wanted.clone(), using };
    let rank = |base: &str| ["int2", "int4", "int8", "numeric"].iter().position(|known| *known == base);
    let numbers = |text: &str| -> Option<Vec<u32>> {
        let inside = text.split_once('(')?.1.split_once(')')?.0;
        inside.split(',').map(|number| number.trim().parse().ok()).collect()
    };
    match (current.base.as_str(), base.as_str()) {
        ("numeric", "numeric") => match (numbers(&current.ty), numbers(&wanted)) {
            (None, _) => Change::None,
            (Some(have), Some(want)) if have == want || (have.first() == want.first() && want.len() == 1 && have.get(1) == Some(&0)) => Change::None,
            // Both round half away from zero where the scale shrinks.
            _ => alter(None),
        },
        ("numeric", _) if rank(&base).is_some() => match numbers(&current.ty) {
            Some(have) if have.get(1).copied().unwrap_or(0) > 0 => alter(None),
            _ => Change::None,
        },
        (have, want) if rank(have).is_some() && rank(want).is_some() => {
            if rank(want) > rank(have) { alter(None) } else { Change::None }
        }
        ("varchar" | "bpchar", "varchar") => match (numbers(&current.ty), numbers(&wanted)) {
            (Some(have), Some(want)) if want > have => alter(None),
            _ => Change::None,
        },
        ("text", "text" | "varchar") => Change::None,
        ("varchar" | "bpchar", "text") => alter(None),
        ("enum" | "citext" | "_text" | "uuid", "text" | "varchar") if !matches!(ty, ColumnType::Text(_)) => Change::None,
        ("float4", "float8") => alter(None),
        ("float8", "float4" | "float8") | ("float4", "float4") => Change::None,
        ("date", "timestamp") => alter(None),
        ("date", "date") | ("bytea", "bytea") | ("_float4", "_float4") | ("json" | "jsonb", "jsonb") | ("bool", "int2") => Change::None,
        ("timestamp", "timestamp") | ("timestamptz", "timestamptz") | ("interval", "interval") | ("time", "interval") => {
            // `timestamp(3) without time zone`; without a number it holds microseconds.
            match (numbers(&current.ty).and_then(|have| have.first().copied()), numbers(&wanted).and_then(|want| want.first().copied())) {
                (Some(have), Some(want)) if want > have && current.base != "time" => alter(None),
                _ => Change::None,
            }
        }
        ("bit", "bit") => match (numbers(&current.ty), numbers(&wanted)) {
            (Some(have), Some(want)) if have == want => Change::None,
            (Some(have), Some(want)) if want > have => Change::Alter {
                using: Some("pg_catalog.lpad({}::pg_catalog.text, 64, '0')::pg_catalog.\"bit\""),
                ty: wanted.clone(),
            },
            _ => Change::Unknown,
        },
        (have, "text" | "varchar") if rank(have).is_some() && have != "numeric" => alter(Some("{}::pg_catalog.text")),
        ("text" | "varchar", "jsonb") => alter(Some("{}::pg_catalog.jsonb")),
        _ => Change::Unknown,
    }
}

/// The `typname` of what [`created_as`] gives.
fn base_of(ty: &ColumnType) -> String {
    let created = created_as(ty).unwrap_or_default();
    let word = created.split('(').next().unwrap_or_default();
    match word {
        "smallint" => "int2",
        "integer" => "int4",
        "bigint" => "int8",
        "real" => "float4",
        "double precision" => "float8",
        "real[]" => "_float4",
        other => other,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(base: &str, ty: &str, wanted: ColumnType, expected: &str) {
        let current = TargetColumn { name: "c".into(), ty: ty.into(), base: base.into(), nullable: true, generated: false };
        let got = match widening(&current, &wanted) {
            Change::None => "none".to_owned(),
            Change::Alter { ty, using } => format!("{ty}{}", if using.is_some() { " using" } else { "" }),
            Change::Unknown => "unknown".to_owned(),
        };
        assert_eq!(got, expected, "{ty} for {wanted}");
    }

    #[test]
    fn a_column_follows_its_source_without_loss_or_not_at_all() {
        use ColumnType as T;
        check("int4", "integer", T::BigInt { unsigned: false }, "bigint");
        check("int8", "bigint", T::BigInt { unsigned: true }, "numeric(20)");
        check("int8", "bigint", T::Int { unsigned: false }, "none");
        check("numeric", "numeric(20,0)", T::BigInt { unsigned: true }, "none");
        check("numeric", "numeric(20,0)", T::Int { unsigned: false }, "none");
        check("numeric", "numeric(10,2)", T::Decimal { precision: 12, scale: 4 }, "numeric(12,4)");
        check("numeric", "numeric", T::Decimal { precision: 12, scale: 4 }, "none");
        check("varchar", "character varying(10)", T::VarChar(20), "varchar(20)");
        check("varchar", "character varying(20)", T::VarChar(10), "none");
        check("varchar", "character varying(20)", T::Text(2), "text");
        check("text", "text", T::Enum(["a".to_owned()].into()), "none");
        check("timestamp", "timestamp(0) without time zone", T::DateTime(6), "timestamp(6)");
        check("timestamp", "timestamp(6) without time zone", T::DateTime(3), "none");
        check("timestamp", "timestamp without time zone", T::DateTime(6), "none");
        check("timestamp", "timestamp(0) without time zone", T::Timestamp(0), "unknown");
        check("bit", "bit(3)", T::Bit(5), "bit(5) using");
        check("float4", "real", T::Double, "double precision");
        check("int4", "integer", T::VarChar(20), "varchar(20) using");
        check("varchar", "character varying(20)", T::Int { unsigned: false }, "unknown");
        check("text", "text", T::Blob(2), "unknown");
        check("float8", "double precision", T::Decimal { precision: 10, scale: 2 }, "unknown");
    }
}
