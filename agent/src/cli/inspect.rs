//! Commands that look and print: `check-config`, `discover`, `events`, `plugins`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use plumbline_sdk::{Error, Event, Result, TableId, TableSchema};
use serde_json::json;

use crate::builtin;
use crate::cli::{Outcome, print};
use crate::clock;
use crate::config::Config;

fn pretty(value: &serde_json::Value) -> Result<Outcome> {
    print(&serde_json::to_string_pretty(value).map_err(|cause| Error::fatal("the answer cannot be written").caused_by(cause))?)
}

pub(crate) fn plugins(as_json: bool) -> Result<Outcome> {
    if as_json {
        let all: Vec<_> = builtin::PLUGINS.iter().map(|plugin| json!({ "name": plugin.name, "kind": plugin.kind, "about": plugin.about, "origin": "built in" })).collect();
        return pretty(&json!({ "plugins": all }));
    }
    for plugin in &builtin::PLUGINS {
        print(&format!("{:<18} {:<10} {}", plugin.name, plugin.kind, plugin.about))?;
    }
    Ok(Outcome::Done)
}

pub(crate) async fn check_config(config: &Config, as_json: bool) -> Result<Outcome> {
    config.require_databases()?;
    crate::api::ApiConfig::of(config)?;
    let checks = builtin::preflight(config).await?;
    let failed = checks.iter().any(|check| check.state == "failed");
    if as_json {
        pretty(&json!({ "ok": !failed, "checks": checks }))?;
    } else {
        for check in &checks {
            print(&format!("{:<8} {:<9} {}", check.state, check.component, check.message))?;
        }
    }
    Ok(if failed { Outcome::Trouble } else { Outcome::Done })
}

pub(crate) async fn discover(config: &Config, as_json: bool) -> Result<Outcome> {
    config.require_databases()?;
    let source = builtin::finder(config)?.tables().await?;
    let (_, mut target) = builtin::readers(config)?()?;
    target.connect().await?;
    let targets: Vec<String> = target
        .tables()
        .await?
        .into_iter()
        .filter_map(|table| match table {
            plumbline_sdk::SideTable::Target(table) => Some(table.id.to_string()),
            plumbline_sdk::SideTable::Source(_) => None,
        })
        .collect();
    if as_json {
        let tables: Vec<_> = source
            .iter()
            .map(|(schema, rule)| {
                let key: Vec<&str> = schema.key().into_iter().map(|i| schema.columns[i].name.as_str()).collect();
                json!({ "table": schema.id.to_string(), "columns": schema.columns.len(), "key": key, "excluded_by": rule })
            })
            .collect();
        return pretty(&json!({ "mysql_tables": tables, "postgres_tables": targets }));
    }
    for (schema, rule) in &source {
        let key: Vec<&str> = schema.key().into_iter().map(|i| schema.columns[i].name.as_str()).collect();
        let key = if key.is_empty() { "no key".to_owned() } else { format!("key ({})", key.join(", ")) };
        let rule = rule.as_ref().map_or(String::new(), |rule| format!(", excluded by {rule}"));
        print(&format!("{}: {} columns, {key}{rule}", schema.id, schema.columns.len()))?;
    }
    print(&format!("target: {}", if targets.is_empty() { "no tables".to_owned() } else { targets.join(", ") }))
}

pub(crate) async fn events(config: &Config, limit: Option<u64>, as_json: bool) -> Result<Outcome> {
    config.require_databases()?;
    let tables: HashMap<TableId, Arc<TableSchema>> = match config.has_kafka() {
        // The topics do not say how the tables look.
        true => builtin::finder(config)?.tables().await?.into_iter().map(|(schema, _)| (schema.id.clone(), Arc::new(schema))).collect(),
        false => HashMap::new(),
    };
    let mut stream = builtin::source(config, Arc::new(move |id| tables.get(id).cloned()), None)?.stream;
    stream.connect(None).await?;
    let mut shown = 0;
    loop {
        let next = tokio::select! {
            next = stream.next(Duration::from_secs(1)) => next?,
            _ = tokio::signal::ctrl_c() => return Ok(Outcome::Done),
        };
        let Some(batch) = next else { return Ok(Outcome::Done) };
        for mark in &batch.transactions {
            for event in &batch.events[mark.events.clone()] {
                let (table, operation) = match event {
                    Event::Change(change) => (change.table.id.to_string(), change.op.as_str()),
                    Event::Schema(change) => (change.table.to_string(), change.kind.as_str()),
                    _ => continue,
                };
                let time = clock::text(mark.commit_micros);
                let line = if as_json {
                    json!({ "table": table, "operation": operation, "timestamp": time, "position": mark.id.to_string() }).to_string()
                } else {
                    format!("{time} {operation:<8} {table} {}", mark.id)
                };
                print(&line)?;
                shown += 1;
                if Some(shown) == limit {
                    return Ok(Outcome::Done);
                }
            }
        }
    }
}
