//! `plumbline compare`: the same engine, without a running agent.

use std::io::Write;
use std::sync::Arc;

use clap::Args;
use plumbline_sdk::{Error, Reader, Result, SideTable, TableSchema, TargetTable};
use serde::Serialize;
use tokio::sync::watch;

use crate::builtin;
use crate::cli::{Outcome, is_shown, print};
use crate::config::{Config, Span};
use crate::shared::TableReport;
use crate::state::{Partner, Unverified};
use crate::validation::{self, Comparison, Fence, Options};

#[derive(Debug, Args)]
pub(crate) struct CompareArguments {
    /// Tables, as `table` or `database.table`; none: all that would be watched.
    tables: Vec<String>,
    /// How many findings of a table are listed; all are counted.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    max_findings: usize,
    /// How long a differing row is left alone before it is read again.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = |text: &str| Span::parse(text))]
    settle: Span,
    /// Show the cells that differ. They are your data: mind where the output goes.
    #[arg(long)]
    values: bool,
}

#[derive(Serialize)]
struct Whole {
    verdict: &'static str,
    tables: Vec<TableReport>,
}

pub(crate) async fn compare(config: &Config, arguments: &CompareArguments, json: bool) -> Result<Outcome> {
    config.require_databases()?;
    let (mut source, mut target) = builtin::readers(config)?()?;
    source.connect().await?;
    target.connect().await?;
    let targets = target_tables(&mut *target).await?;
    let chosen = choose(config, arguments).await?;
    let mut validator = builtin::validator()?;
    let (mut source, mut target) = (Some(source), Some(target));
    let (_cancel, cancelled) = watch::channel(false);
    let mut reports = Vec::new();
    for schema in chosen {
        let progress = |rows: u64| show_progress(&schema, rows);
        let planned = match validation::partner(&schema, &targets) {
            Partner::Table(partner) => validation::plan(&schema, &partner).map_err(|reason| (Some(partner.id.to_string()), reason)),
            Partner::Ambiguous(names) => {
                Err((None, whole(format!("more than one table of the target has this name without case: `{}`", names.join("`, `")))))
            }
            Partner::None | Partner::Unknown => Err((None, whole("no such table in the target".into()))),
        };
        let report = match planned {
            Err((partner, reason)) => unverified(&schema, partner, reason),
            Ok(plan) => {
                if source.is_none() || target.is_none() {
                    let (mut new_source, mut new_target) = builtin::readers(config)?()?;
                    new_source.connect().await?;
                    new_target.connect().await?;
                    (source, target) = (Some(new_source), Some(new_target));
                }
                let mut run = Comparison {
                    source: &mut source,
                    target: &mut target,
                    fence: Fence::Time(arguments.settle.0),
                    validator: &mut *validator,
                    options: Options { chunk_rows: config.checks.chunk_rows, max_findings: arguments.max_findings, values: arguments.values },
                    progress: &progress,
                    suspects: &|_| {},
                    cancel: cancelled.clone(),
                };
                match validation::compare_table(&mut run, &plan).await {
                    Ok(report) => report,
                    Err(error) => {
                        tracing::warn!(table = %schema.id, error = error.chain(), "could not look");
                        (source, target) = (None, None);
                        unverified(&schema, Some(plan.target.id.to_string()), whole(format!("could not look: {}", error.chain())))
                    }
                }
            }
        };
        clear_progress();
        if !json {
            print(&text(&report))?;
        }
        reports.push(report);
    }
    let verdict = if reports.iter().any(|report| report.verdict == "different") {
        "different"
    } else if reports.iter().any(|report| report.verdict != "equal") || reports.is_empty() {
        "unverified"
    } else {
        "equal"
    };
    if json {
        let whole = Whole { verdict, tables: reports };
        print(&serde_json::to_string_pretty(&whole).map_err(|cause| Error::fatal("the report cannot be written").caused_by(cause))?)?;
    } else {
        print(&format!("{verdict}: {} table{}", reports.len(), if reports.len() == 1 { "" } else { "s" }))?;
    }
    Ok(match verdict {
        "equal" => Outcome::Done,
        "different" => Outcome::Differences,
        _ => Outcome::Trouble,
    })
}

async fn target_tables(target: &mut dyn Reader) -> Result<Vec<Arc<TargetTable>>> {
    let tables = target.tables().await?;
    Ok(tables
        .into_iter()
        .filter_map(|table| match table {
            SideTable::Target(table) => Some(table),
            SideTable::Source(_) => None,
        })
        .collect())
}

/// The tables that were asked for; every name must be known.
async fn choose(config: &Config, arguments: &CompareArguments) -> Result<Vec<Arc<TableSchema>>> {
    let tables = builtin::finder(config)?.tables().await?;
    if arguments.tables.is_empty() {
        return Ok(tables.into_iter().filter(|(_, rule)| rule.is_none()).map(|(schema, _)| Arc::new(schema)).collect());
    }
    arguments
        .tables
        .iter()
        .map(|name| {
            tables.iter().find(|(schema, _)| *schema.id.table == **name || schema.id.to_string() == *name).map(|(schema, _)| Arc::new(schema.clone())).ok_or_else(|| {
                let known = tables.iter().map(|(schema, _)| format!("`{}`", schema.id.table)).collect::<Vec<_>>().join(", ");
                Error::config(format!("there is no table `{name}` in `{}`; there are: {known}", config.mysql.database))
            })
        })
        .collect()
}

fn whole(reason: String) -> Unverified {
    Unverified { columns: Vec::new(), reason }
}

fn unverified(schema: &TableSchema, target: Option<String>, reason: Unverified) -> TableReport {
    TableReport { table: schema.id.to_string(), target, verdict: "unverified", unverified: vec![reason], ..TableReport::default() }
}

/// A report for people.
fn text(report: &TableReport) -> String {
    let sign = match report.verdict {
        "equal" => "=",
        "different" => "≠",
        _ => "?",
    };
    let rows = |rows: Option<u64>| rows.map_or("–".to_owned(), |rows| rows.to_string());
    let mut lines = vec![format!(
        "{sign} {}: {}, {} rows on the source, {} on the target, {:.1} s",
        report.table,
        report.verdict,
        rows(report.rows_source),
        rows(report.rows_target),
        report.seconds
    )];
    for found in &report.findings {
        let key = found.key.iter().map(|(column, value)| format!("{column}={value}")).collect::<Vec<_>>().join(", ");
        let mut line = format!("    {} {key}", found.verdict);
        if let (Some(source), Some(target)) = (found.copies_source, found.copies_target) {
            line.push_str(&format!("a row without key: {source} on the source, {target} on the target"));
        }
        if !found.columns.is_empty() {
            line.push_str(&format!(" ({})", found.columns.join(", ")));
        }
        lines.push(line);
        for (column, (source, target)) in found.values.iter().flatten() {
            lines.push(format!("        {column}: {} | {}", source.as_deref().unwrap_or("NULL"), target.as_deref().unwrap_or("NULL")));
        }
    }
    if report.findings_total > report.findings.len() as u64 {
        lines.push(format!("    and {} more", report.findings_total - report.findings.len() as u64));
    }
    for (column, cells) in &report.representation_only {
        lines.push(format!("    {column}: {cells} cells differ only in representation"));
    }
    for entry in &report.unverified {
        let columns = if entry.columns.is_empty() { String::new() } else { format!("`{}`: ", entry.columns.join("`, `")) };
        lines.push(format!("    not verified: {columns}{}", entry.reason));
    }
    for note in &report.notes {
        lines.push(format!("    note: {note}"));
    }
    lines.join("\n")
}

fn show_progress(schema: &TableSchema, rows: u64) {
    let mut err = std::io::stderr();
    if is_shown(&err) {
        let _ = write!(err, "\r\x1b[K{}: {rows} rows", schema.id);
        let _ = err.flush();
    }
}

fn clear_progress() {
    let mut err = std::io::stderr();
    if is_shown(&err) {
        let _ = write!(err, "\r\x1b[K");
        let _ = err.flush();
    }
}
