//! What every history must do, beyond what a sink does.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::sink::{SinkBench, Told, foreign, sink_failures};
use super::{Checked, ensure, note, said};
use crate::error::{ErrorKind, Result};
use crate::event::{Batch, Event};
use crate::finding::{Finding, Verdict};
use crate::plugin::{FindingQuery, History, Remembered, Sink, Verified};
use crate::table::TableId;
use crate::testing::{Counts, Workload};

/// Opens a history on a store.
#[async_trait]
pub trait HistoryBench: Send {
    /// A new, empty store; the `open`s that follow are on it.
    async fn fresh(&mut self) -> Result<()>;
    /// A history on the store, not connected. Called again after the last one was closed, as after a restart.
    async fn open(&mut self) -> Result<Box<dyn History>>;
    /// A second history on the store while the first one is open, as of a second agent; None: the store lets nobody in.
    async fn second(&mut self) -> Result<Option<Box<dyn History>>> {
        Ok(None)
    }
}

/// Runs every check, those of a sink first; the sentences are the promises that were not kept.
pub async fn history_failures(bench: &mut dyn HistoryBench) -> Vec<String> {
    let mut failures = sink_failures(&mut AsSink(bench)).await;
    note(&mut failures, "a batch of another stream is refused and nothing of it is kept", foreign(&mut AsSink(bench)).await);
    note(&mut failures, "records are changes, duplicates and control, always", sums(bench).await);
    note(&mut failures, "events are given newest first, in pages, each once", events(bench).await);
    note(&mut failures, "a finding is opened, seen again, resolved, opened anew", findings(bench).await);
    note(&mut failures, "a table that is gone keeps its counters", gone(bench).await);
    note(&mut failures, "what was proved survives a restart", verified(bench).await);
    note(&mut failures, "a second agent fences the first", fenced(bench).await);
    failures
}

/// A history seen as a sink: its store is asked through the history itself.
struct AsSink<'a>(&'a mut dyn HistoryBench);

#[async_trait]
impl SinkBench for AsSink<'_> {
    async fn fresh(&mut self) -> Result<()> {
        self.0.fresh().await
    }
    async fn open(&mut self) -> Result<Box<dyn Sink>> {
        Ok(self.0.open().await?)
    }
    async fn differences(&mut self, told: &Told) -> Result<Vec<String>> {
        let mut history = self.0.open().await?;
        history.connect().await?;
        let remembered = history.remembered().await?;
        let position = history.position().await?;
        history.close().await?;
        let mut differences = told.compare_counts(&counters(&remembered));
        if remembered.position != position {
            differences.push("`remembered` and `position` do not say the same".into());
        }
        differences.extend(unequal_sums(&remembered));
        Ok(differences)
    }
}

fn counters(remembered: &Remembered) -> Counts {
    remembered.counters.iter().cloned().collect()
}

/// Rows copied are no records of the stream, so they are left out.
fn unequal_sums(remembered: &Remembered) -> Option<String> {
    let changes: u64 = remembered.counters.iter().map(|(_, counts)| counts.iter().skip(1).sum::<u64>()).sum();
    let Remembered { records, duplicates, control, .. } = remembered;
    (*records != changes + duplicates + control).then(|| format!("{records} records are not {changes} changes, {duplicates} duplicates and {control} control"))
}

async fn connected(bench: &mut dyn HistoryBench) -> std::result::Result<Box<dyn History>, String> {
    let mut history = bench.open().await.map_err(said("open"))?;
    history.connect().await.map_err(said("connect"))?;
    Ok(history)
}

async fn begin(bench: &mut dyn HistoryBench) -> std::result::Result<Box<dyn History>, String> {
    bench.fresh().await.map_err(said("a fresh store"))?;
    connected(bench).await
}

async fn sums(bench: &mut dyn HistoryBench) -> Checked {
    let workload = Workload::random(21, 60);
    let batches = workload.batches(8);
    let mut history = begin(bench).await?;
    let mut records = 0;
    for batch in &batches {
        for _ in 0..2 {
            history.write(batch).await.map_err(said("write"))?;
            records += batch.records;
            let remembered = history.remembered().await.map_err(said("remembered"))?;
            unequal_sums(&remembered).map_or(Ok(()), Err)?;
            ensure(remembered.records == records, || format!("{records} records were written and {} are remembered", remembered.records))?;
        }
    }
    let remembered = history.remembered().await.map_err(said("remembered"))?;
    history.close().await.map_err(said("close"))?;
    ensure(remembered.duplicates == workload.changes() as u64, || {
        format!("every one of {} changes came twice, and {} duplicates are remembered", workload.changes(), remembered.duplicates)
    })
}

async fn events(bench: &mut dyn HistoryBench) -> Checked {
    let workload = Workload::random(22, 40);
    let mut history = begin(bench).await?;
    for batch in workload.batches(8) {
        history.write(&batch).await.map_err(said("write"))?;
    }
    for batch in workload.batches(5) {
        history.write(&batch).await.map_err(said("write"))?;
    }
    let reader = history.reader();
    let all = reader.events(u32::MAX, None).await.map_err(said("events"))?;
    ensure(all.len() == workload.changes(), || format!("{} changes were written and {} events are given", workload.changes(), all.len()))?;
    ensure(all.windows(2).all(|pair| pair[0].id > pair[1].id), || "they are not newest first".into())?;
    let mut paged = Vec::new();
    let mut before = None;
    loop {
        let page = reader.events(7, before).await.map_err(said("events"))?;
        before = page.last().map(|event| event.id);
        ensure(page.len() <= 7, || format!("a page of 7 has {}", page.len()))?;
        if page.is_empty() {
            break;
        }
        paged.extend(page);
    }
    ensure(paged == all, || "pages of 7 do not give the same".into())?;
    let mut traces: Vec<&str> = all.iter().map(|event| event.trace_id.as_str()).collect();
    traces.sort_unstable();
    traces.dedup();
    ensure(traces.len() == all.len(), || format!("{} events have {} trace ids", all.len(), traces.len()))?;
    ensure(traces.iter().all(|trace| trace.len() == 32 && trace.bytes().all(|c| c.is_ascii_hexdigit())), || "a trace id is not 32 hexadecimal digits".into())?;
    history.close().await.map_err(said("close"))
}

fn finding(table: &TableId, key: &str, verdict: Verdict, resolved: bool) -> Event {
    Event::Finding(Finding {
        table: table.clone(),
        verdict,
        key: BTreeMap::from([("id".to_owned(), key.to_owned())]),
        columns: Vec::new(),
        cause: None,
        settled_by: "position".into(),
        validator: "conformance".into(),
        position: None,
        resolved,
        copies: None,
    })
}

async fn findings(bench: &mut dyn HistoryBench) -> Checked {
    let table = TableId::new("conformance", "orders");
    let mut history = begin(bench).await?;
    let reader = history.reader();
    let query = |open| FindingQuery { open, limit: 100, ..FindingQuery::default() };
    let steps = [
        (finding(&table, "1", Verdict::Missing, false), 1, 0),
        (finding(&table, "2", Verdict::Extra, false), 2, 0),
        // The same row, now different in another way, is the same finding.
        (finding(&table, "1", Verdict::Changed, false), 2, 0),
        (finding(&table, "1", Verdict::Changed, true), 1, 1),
        // What is not open cannot be resolved.
        (finding(&table, "9", Verdict::Changed, true), 1, 1),
        (finding(&table, "1", Verdict::Missing, false), 2, 1),
    ];
    for (i, (event, open, resolved)) in steps.into_iter().enumerate() {
        history.write(&Batch::news(vec![event])).await.map_err(said("a finding"))?;
        let found = reader.findings(&query(Some(true))).await.map_err(said("open findings"))?.len();
        ensure(found == open, || format!("after step {} {found} are open and must be {open}", i + 1))?;
        let found = reader.findings(&query(Some(false))).await.map_err(said("resolved findings"))?.len();
        ensure(found == resolved, || format!("after step {} {found} are resolved and must be {resolved}", i + 1))?;
    }
    let all = reader.findings(&query(None)).await.map_err(said("all findings"))?;
    ensure(all.windows(2).all(|pair| pair[0].id > pair[1].id), || "they are not newest first".into())?;
    let page = FindingQuery { before: all.first().map(|finding| finding.id), ..query(None) };
    let rest = reader.findings(&page).await.map_err(said("a page of findings"))?;
    ensure(rest.len() + 1 == all.len(), || format!("the page after the first of {} has {}", all.len(), rest.len()))?;
    let of_another = FindingQuery { table: Some(TableId::new("conformance", "other")), ..query(None) };
    ensure(reader.findings(&of_another).await.map_err(said("findings of a table"))?.is_empty(), || "another table has findings".into())?;
    let open: u64 = reader.open_findings().await.map_err(said("open findings"))?.iter().map(|(_, _, count)| count).sum();
    ensure(open == 2, || format!("{open} are counted open and must be 2"))?;
    history.close().await.map_err(said("close"))
}

async fn gone(bench: &mut dyn HistoryBench) -> Checked {
    let workload = Workload::random(23, 30);
    let table = workload.tables()[0].clone();
    let mut history = begin(bench).await?;
    for batch in [workload.found()].into_iter().chain(workload.batches(8)) {
        history.write(&batch).await.map_err(said("write"))?;
    }
    history.write(&Batch::news(vec![Event::TableGone(table.id.clone())])).await.map_err(said("news"))?;
    history.close().await.map_err(said("close"))?;
    let mut history = connected(bench).await?;
    let remembered = history.remembered().await.map_err(said("remembered"))?;
    ensure(remembered.gone == [table.id.clone()], || format!("gone are {:?}", remembered.gone))?;
    ensure(counters(&remembered).get(&table.id) == workload.counts().get(&table.id), || "its counters changed".into())?;
    history.write(&Batch::news(vec![Event::TableFound(table)])).await.map_err(said("news"))?;
    let remembered = history.remembered().await.map_err(said("remembered"))?;
    history.close().await.map_err(said("close"))?;
    ensure(remembered.gone.is_empty(), || "it was found again and is still gone".into())
}

async fn verified(bench: &mut dyn HistoryBench) -> Checked {
    let table = TableId::new("conformance", "orders");
    let proved = |rows| Verified { position: "a:1-5".into(), micros: 1_700_000_000_000_000, rows };
    let mut history = begin(bench).await?;
    for rows in [1, u64::from(u32::MAX) * 2] {
        history.keep_verified(&table, &proved(rows)).await.map_err(said("keeping what was proved"))?;
    }
    history.close().await.map_err(said("close"))?;
    let mut history = connected(bench).await?;
    let remembered = history.remembered().await.map_err(said("remembered"))?;
    history.close().await.map_err(said("close"))?;
    let expected = [(table, proved(u64::from(u32::MAX) * 2))];
    ensure(remembered.verified == expected, || format!("it remembers {:?}", remembered.verified))
}

async fn fenced(bench: &mut dyn HistoryBench) -> Checked {
    let workload = Workload::random(24, 30);
    let batches = workload.batches(8);
    let mut first = begin(bench).await?;
    first.write(&batches[0]).await.map_err(said("write"))?;
    let Some(mut second) = bench.second().await.map_err(said("opening a second one"))? else {
        return first.close().await.map_err(said("close"));
    };
    second.connect().await.map_err(said("connecting the second one"))?;
    match first.write(&batches[1]).await {
        Ok(()) => return Err("the first one still writes".into()),
        Err(error) => ensure(error.kind() == ErrorKind::Fatal, || format!("the first one's error is {:?} and must be Fatal: {}", error.kind(), error.chain()))?,
    }
    for batch in &batches[1..] {
        second.write(batch).await.map_err(said("writing with the second one"))?;
    }
    let remembered = second.remembered().await.map_err(said("remembered"))?;
    second.close().await.map_err(said("close"))?;
    let differences = Told { counts: workload.counts(), ..Told::default() }.compare_counts(&counters(&remembered));
    ensure(differences.is_empty(), || differences.join("; "))
}
