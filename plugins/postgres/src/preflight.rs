//! What must be so before a run: one message for each thing that is not, with the statement that mends it.

use plumbline_sdk::Result;
use sqlx::Row;
use sqlx::postgres::PgConnection;

use crate::config::PostgresConfig;
use crate::connect::{Role, connect, is_encrypted};
use crate::error::Doing;
use crate::quote::{ident, qualified};

/// What the agent is going to do.
#[derive(Debug, Clone)]
pub struct PreflightOptions {
    /// Whether it applies changes.
    pub applies: bool,
    /// The schema of the applier's progress.
    pub state_schema: String,
}

/// What preflight found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preflight {
    /// The server's version, as it says it.
    pub version: String,
    /// Whether the connection is encrypted.
    pub encrypted: bool,
    /// What stands in the way; empty: nothing.
    pub problems: Vec<String>,
    /// What works, and a person should know.
    pub warnings: Vec<String>,
}

/// The oldest version whose catalog and functions the statements of this crate use.
const OLDEST: i32 = 120_000;

/// Looks whether everything is as a run needs it. `Err`: the database cannot be asked.
pub async fn preflight(config: &PostgresConfig, options: &PreflightOptions) -> Result<Preflight> {
    let mut connection = connect(config, Role::Read).await?;
    let doing = "looking at the server";
    let row = sqlx::query("SELECT pg_catalog.current_setting('server_version_num')::int4, pg_catalog.current_setting('server_version'), pg_catalog.pg_is_in_recovery()")
        .fetch_one(&mut connection)
        .await
        .doing(doing)?;
    let (number, version, standby): (i32, String, bool) = (row.try_get(0).doing(doing)?, row.try_get(1).doing(doing)?, row.try_get(2).doing(doing)?);
    let mut found = Preflight { version, encrypted: is_encrypted(&mut connection).await?, ..Preflight::default() };
    if number < OLDEST {
        found.problems.push(format!("PostgreSQL is version {}; version 12 or later is needed", found.version));
    }
    if options.applies && standby {
        found.problems.push("PostgreSQL is a standby, which cannot be written to; set `POSTGRES_HOST` to the primary".into());
    }
    let local = matches!(config.host.as_str(), "localhost" | "127.0.0.1" | "::1") || config.host.starts_with('/');
    if !local && !found.encrypted {
        found.warnings.push(format!("the connection to PostgreSQL at `{}` is not encrypted; set `POSTGRES_SSLMODE=verify-full`", config.host));
    } else if !local && !config.sslmode.verifies() {
        found.warnings.push(format!("the certificate of PostgreSQL at `{}` is not verified; set `POSTGRES_SSLMODE=verify-full`", config.host));
    }
    grants(&mut connection, config, options, &mut found).await?;
    if options.applies {
        constraints(&mut connection, config, &mut found).await?;
    }
    Ok(found)
}

async fn grants(connection: &mut PgConnection, config: &PostgresConfig, options: &PreflightOptions, found: &mut Preflight) -> Result<()> {
    let doing = "looking at the grants";
    let (user, schema) = (ident(&config.user), ident(&config.schema));
    let row = sqlx::query(
        "SELECT n.oid IS NOT NULL, coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE'), false), coalesce(pg_catalog.has_schema_privilege(n.oid, 'CREATE'), false),
                pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'), EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $2)
           FROM (SELECT 1) one LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = $1",
    )
    .bind(&config.schema)
    .bind(&options.state_schema)
    .fetch_one(&mut *connection)
    .await
    .doing(doing)?;
    let flag = |i: usize| row.try_get::<bool, _>(i).doing(doing);
    if !flag(0)? {
        found.problems.push(format!("there is no schema {schema} in database `{}`; mend it with: CREATE SCHEMA {schema} AUTHORIZATION {user}", config.database));
        return Ok(());
    }
    if !flag(1)? {
        found.problems.push(format!("user `{}` may not use schema {schema}; mend it with: GRANT USAGE ON SCHEMA {schema} TO {user}", config.user));
    }
    if options.applies && !flag(2)? {
        found.problems.push(format!("user `{}` may not create tables in schema {schema}; mend it with: GRANT CREATE ON SCHEMA {schema} TO {user}", config.user));
    }
    if options.applies && !flag(4)? && !flag(3)? {
        let (state, database) = (ident(&options.state_schema), ident(&config.database));
        found.problems.push(format!(
            "user `{}` may not create the schema {state} in which the applier keeps its progress; mend it with: GRANT CREATE ON DATABASE {database} TO {user}, or: CREATE SCHEMA {state} AUTHORIZATION {user}",
            config.user
        ));
    }
    let wanted: &[&str] = if options.applies { &["SELECT", "INSERT", "UPDATE", "DELETE"] } else { &["SELECT"] };
    let lacking = sqlx::query(
        "SELECT c.relname::text, ARRAY(SELECT w FROM pg_catalog.unnest($2::text[]) w WHERE NOT pg_catalog.has_table_privilege(c.oid, w))
           FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
          WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition
            AND EXISTS (SELECT FROM pg_catalog.unnest($2::text[]) w WHERE NOT pg_catalog.has_table_privilege(c.oid, w)) ORDER BY c.relname",
    )
    .bind(&config.schema)
    .bind(wanted.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await
    .doing(doing)?;
    // One table that cannot be touched does not stop the others: a warning each, or one for all where they are many.
    let mut lacked: Vec<(String, String)> = Vec::new();
    for row in lacking {
        lacked.push((row.try_get(0).doing(doing)?, row.try_get::<Vec<String>, _>(1).doing(doing)?.join(", ")));
    }
    if lacked.len() > 5 {
        let (table, _) = &lacked[0];
        let rights = wanted.join(", ");
        found.warnings.push(format!(
            "user `{}` lacks rights on {} tables of schema {schema} (`{table}` and others); mend it with: GRANT {rights} ON ALL TABLES IN SCHEMA {schema} TO {user}",
            config.user,
            lacked.len()
        ));
    } else {
        found.warnings.extend(lacked.iter().map(|(table, rights)| {
            let name = qualified(&config.schema, table);
            format!("user `{}` lacks {rights} on `{}.{table}`; mend it with: GRANT {rights} ON {name} TO {user}", config.user, config.schema)
        }));
    }
    Ok(())
}

/// Foreign keys and triggers of the target: bypassed where that is granted, else named.
async fn constraints(connection: &mut PgConnection, config: &PostgresConfig, found: &mut Preflight) -> Result<()> {
    use sqlx::Executor;
    if connection.execute("SET session_replication_role = replica").await.is_ok() {
        return Ok(());
    }
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT c.relname::text FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND k.contype = 'f' AND NOT k.condeferrable ORDER BY 1",
    )
    .bind(&config.schema)
    .fetch_all(&mut *connection)
    .await
    .doing("looking at the foreign keys")?;
    if !tables.is_empty() {
        found.warnings.push(format!(
            "the foreign keys of {} are checked while rows are copied table by table, and may refuse them; mend it with (PostgreSQL 15, as superuser): GRANT SET ON PARAMETER session_replication_role TO {}",
            tables.iter().map(|table| format!("`{table}`")).collect::<Vec<_>>().join(", "),
            ident(&config.user)
        ));
    }
    Ok(())
}
