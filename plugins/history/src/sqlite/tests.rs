use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use plumbline_sdk::plugin::{FindingQuery, OpCounts};
use plumbline_sdk::{CopyMark, ErrorKind, Op, TraceIds, TxnId, Verdict};
use sqlx::Connection;
use tempfile::TempDir;

use super::*;
use crate::fixtures::{SERVER, batch, change, finding, gtid, position, table};

fn history_of(folder: &Path, keep_events: u64) -> SqliteHistory {
    let config = SqliteHistoryConfig { data_dir: folder.into(), keep_events, ..SqliteHistoryConfig::default() };
    SqliteHistory::new(config).expect("a history")
}

async fn open(folder: &TempDir) -> SqliteHistory {
    let mut history = history_of(folder.path(), 100);
    history.connect().await.expect("connected");
    history
}

async fn counts(history: &mut SqliteHistory, name: &str) -> OpCounts {
    let remembered = history.remembered().await.expect("remembered");
    assert_eq!(
        remembered.records - remembered.duplicates - remembered.control,
        remembered.counters.iter().flat_map(|(_, counts)| &counts[1..]).sum::<u64>(),
        "records = changes + duplicates + control"
    );
    remembered.counters.into_iter().find(|(table, _)| &*table.table == name).map(|(_, counts)| counts).unwrap_or_default()
}

#[tokio::test]
async fn counters_and_position_survive_a_restart() {
    let folder = TempDir::new().expect("a folder");
    let t = table("t");
    let mut history = open(&folder).await;
    assert_eq!(history.position().await.expect("asked"), None);
    let first = batch(1, vec![vec![change(&t, Op::Insert, 1), change(&t, Op::Insert, 2)], vec![change(&t, Op::Update, 1), change(&t, Op::Delete, 2)]]);
    history.write(&first).await.expect("written");
    // Killed: nothing is closed.
    drop(history);
    let mut history = open(&folder).await;
    assert_eq!(history.position().await.expect("asked"), Some(position(2, None)));
    assert_eq!(counts(&mut history, "t").await, [0, 2, 1, 1, 0]);
}

#[tokio::test]
async fn a_batch_that_comes_again_with_other_borders_is_counted_once() {
    let folder = TempDir::new().expect("a folder");
    let t = table("t");
    let one = |id| vec![change(&t, Op::Insert, id)];
    let mut history = open(&folder).await;
    history.write(&batch(1, vec![one(1), one(2), one(3)])).await.expect("written");
    history.write(&batch(2, vec![one(2), one(3), one(4)])).await.expect("written");
    history.write(&batch(1, vec![one(1)])).await.expect("written");
    assert_eq!(counts(&mut history, "t").await, [0, 4, 0, 0, 0]);
    let remembered = history.remembered().await.expect("remembered");
    assert_eq!((remembered.records, remembered.duplicates, remembered.control), (14, 3, 7));
    assert_eq!(remembered.position, Some(position(4, None)));
    assert_eq!(history.reader().events(10, None).await.expect("events").len(), 4);
}

#[tokio::test]
async fn a_large_transaction_in_parts_is_counted_once_whatever_part_comes_again() {
    let folder = TempDir::new().expect("a folder");
    let t = table("t");
    let part = |first_change: u64, ids: std::ops::Range<i64>, complete: bool| {
        let mut part = batch(5, vec![ids.clone().map(|id| change(&t, Op::Insert, id)).collect()]);
        part.transactions[0].first_change = first_change;
        part.transactions[0].complete = complete;
        part.position = Some(if complete { position(5, None) } else { position(4, Some((5, first_change + ids.count() as u64))) });
        part
    };
    let mut history = open(&folder).await;
    history.write(&batch(1, vec![vec![], vec![], vec![], vec![]])).await.expect("written");
    history.write(&part(0, 0..10, false)).await.expect("written");
    drop(history);
    let mut history = open(&folder).await;
    assert_eq!(history.position().await.expect("asked"), Some(position(4, Some((5, 10)))));
    history.write(&part(0, 0..4, false)).await.expect("written");
    assert_eq!(counts(&mut history, "t").await[1], 10);
    history.write(&part(4, 4..15, true)).await.expect("written");
    assert_eq!(counts(&mut history, "t").await[1], 15);
    assert_eq!(history.position().await.expect("asked"), Some(position(5, None)));
    let events = history.reader().events(100, None).await.expect("events");
    assert_eq!(events.iter().map(|event| event.ordinal).collect::<Vec<_>>(), (0..15).rev().collect::<Vec<_>>());
}

#[tokio::test]
async fn the_rows_of_a_copy_are_a_total() {
    let folder = TempDir::new().expect("a folder");
    let mut history = open(&folder).await;
    for rows_done in [10, 20, 20] {
        let mark = CopyMark { table: TableId::new("shop", "t"), rows_done, rows_expected: 30, next: None, done: false, restart: false, snapshot: None };
        history.write(&Batch { copy: Some(mark), ..Batch::default() }).await.expect("written");
    }
    let t = table("t");
    history.write(&batch(1, vec![vec![change(&t, Op::Insert, 1)]])).await.expect("written");
    assert_eq!(counts(&mut history, "t").await, [20, 1, 0, 0, 0]);
}

#[tokio::test]
async fn only_the_newest_events_are_kept_and_all_are_counted() {
    let folder = TempDir::new().expect("a folder");
    let t = table("t");
    let mut history = history_of(folder.path(), 3);
    for first in [1, 6] {
        history.write(&batch(first, (0..5).map(|id| vec![change(&t, Op::Insert, id)]).collect())).await.expect("written");
    }
    let events = history.reader().events(10, None).await.expect("events");
    assert_eq!(events.iter().map(|event| event.id).collect::<Vec<_>>(), [10, 9, 8]);
    let newest = &events[0];
    let trace = TraceIds::of("default", SERVER, &TxnId::Gtid(gtid(10))).change(0);
    assert_eq!((newest.table.as_str(), newest.operation, newest.ordinal), ("shop.t", Op::Insert, 0));
    assert_eq!((newest.position.as_str(), newest.commit_micros), (gtid(10).to_string().as_str(), 1_000_010));
    assert_eq!(newest.trace_id, trace.to_string());
    assert_eq!(newest.key_hash.len(), 16);
    assert_eq!(history.reader().events(10, Some(10)).await.expect("events").len(), 2);
    assert_eq!(counts(&mut history, "t").await[1], 10);
}

#[tokio::test]
async fn a_second_agent_is_refused_while_the_first_lives() {
    let folder = TempDir::new().expect("a folder");
    let first = open(&folder).await;
    let mut second = history_of(folder.path(), 100);
    let error = second.connect().await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains(&std::process::id().to_string()) && error.to_string().contains("PLUMBLINE_DATA_DIR"), "{error}");
    drop(first);
    second.connect().await.expect("free now");
}

#[tokio::test]
async fn whoever_is_fenced_writes_nothing_more() {
    let folder = TempDir::new().expect("a folder");
    let t = table("t");
    let one = |number| batch(number, vec![vec![change(&t, Op::Insert, 1)]]);
    let mut first = open(&folder).await;
    first.write(&one(1)).await.expect("written");
    // A lock that someone removed by hand.
    std::fs::remove_file(folder.path().join("history.lock")).expect("removed");
    let mut second = open(&folder).await;
    for _ in 0..2 {
        let error = first.write(&one(2)).await.expect_err("fenced");
        assert_eq!(error.kind(), ErrorKind::Fatal);
        assert!(error.to_string().contains("another agent"), "{error}");
    }
    let verified = Verified { position: "x".into(), micros: 1, rows: 1 };
    assert_eq!(first.keep_verified(&t.id, &verified).await.expect_err("fenced").kind(), ErrorKind::Fatal);
    second.write(&one(2)).await.expect("written");
    assert_eq!(counts(&mut second, "t").await[1], 2);
}

#[tokio::test]
async fn a_finding_is_kept_once_until_it_is_resolved_and_again_when_it_comes_back() {
    let folder = TempDir::new().expect("a folder");
    let mut history = open(&folder).await;
    let reader = history.reader();
    let tell = |events| Batch::news(events);
    history.write(&tell(vec![finding("1", Verdict::Missing, false), finding("2", Verdict::Extra, false)])).await.expect("written");
    history.write(&tell(vec![finding("1", Verdict::Changed, false)])).await.expect("written");
    let t = TableId::new("shop", "t");
    assert_eq!(reader.open_findings().await.expect("asked"), [(t.clone(), Verdict::Changed, 1), (t.clone(), Verdict::Extra, 1)]);
    history.write(&tell(vec![finding("1", Verdict::Changed, true)])).await.expect("written");
    history.write(&tell(vec![finding("1", Verdict::Missing, false)])).await.expect("written");
    let ask = |open| FindingQuery { open, limit: 10, ..FindingQuery::default() };
    let ids = |found: Vec<plumbline_sdk::plugin::StoredFinding>| found.iter().map(|found| found.id).collect::<Vec<_>>();
    assert_eq!(ids(reader.findings(&ask(Some(true))).await.expect("asked")), [4, 2]);
    assert_eq!(ids(reader.findings(&ask(Some(false))).await.expect("asked")), [1]);
    assert_eq!(ids(reader.findings(&ask(None)).await.expect("asked")), [4, 2, 1]);
    let other = FindingQuery { table: Some(TableId::new("shop", "other")), limit: 10, ..FindingQuery::default() };
    assert!(reader.findings(&other).await.expect("asked").is_empty());
    let later = FindingQuery { table: Some(t.clone()), before: Some(4), limit: 1, ..FindingQuery::default() };
    assert_eq!(ids(reader.findings(&later).await.expect("asked")), [2]);
    history.write(&tell(vec![Event::TableGone(t)])).await.expect("written");
    assert!(reader.open_findings().await.expect("asked").is_empty());
}

#[tokio::test]
async fn a_table_that_is_gone_keeps_its_counters_and_may_come_back() {
    let folder = TempDir::new().expect("a folder");
    let t = table("t");
    let mut history = open(&folder).await;
    history.write(&batch(1, vec![vec![change(&t, Op::Insert, 1)]])).await.expect("written");
    history.keep_verified(&t.id, &Verified { position: "p".into(), micros: 7, rows: 9 }).await.expect("kept");
    history.write(&Batch::news(vec![Event::TableGone(t.id.clone())])).await.expect("written");
    let remembered = history.remembered().await.expect("remembered");
    assert_eq!(remembered.gone, std::slice::from_ref(&t.id));
    assert_eq!(remembered.verified, [(t.id.clone(), Verified { position: "p".into(), micros: 7, rows: 9 })]);
    history.write(&Batch::news(vec![Event::TableFound(Arc::clone(&t))])).await.expect("written");
    assert!(history.remembered().await.expect("remembered").gone.is_empty());
    assert_eq!(counts(&mut history, "t").await[1], 1);
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused_by_writer_and_reader() {
    let folder = TempDir::new().expect("a folder");
    drop(open(&folder).await);
    let file = folder.path().join(file::FILE);
    let mut conn = sqlx::SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.expect("opened");
    sqlx::raw_sql("PRAGMA user_version = 99").execute(&mut conn).await.expect("set");
    conn.close().await.expect("closed");
    let mut history = history_of(folder.path(), 100);
    let error = history.connect().await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("format 99") && error.to_string().contains("history.sqlite"), "{error}");
    assert!(history.reader().events(1, None).await.is_err());
}

#[tokio::test]
async fn what_is_no_history_is_refused_by_name() {
    let folder = TempDir::new().expect("a folder");
    std::fs::write(folder.path().join(file::FILE), "this is not a database, and longer than a header of one hundred bytes".repeat(20)).expect("written");
    let error = history_of(folder.path(), 100).connect().await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Fatal);
    assert!(error.to_string().contains("history.sqlite"), "{error}");

    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("plain-file");
    std::fs::write(&file, "").expect("written");
    let error = history_of(&file.join("below"), 100).connect().await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("PLUMBLINE_DATA_DIR") && error.to_string().contains("plain-file"), "{error}");

    let folder = TempDir::new().expect("a folder");
    let config = |pipeline: &str| SqliteHistoryConfig { data_dir: folder.path().into(), pipeline: pipeline.into(), ..SqliteHistoryConfig::default() };
    SqliteHistory::new(config("a")).expect("built").connect().await.expect("connected");
    let error = SqliteHistory::new(config("b")).expect("built").connect().await.expect_err("refused");
    assert!(error.kind() == ErrorKind::Config && error.to_string().contains("`a`"), "{error}");
}

#[tokio::test]
async fn a_source_whose_records_do_not_add_up_is_stopped_and_nothing_is_written() {
    let folder = TempDir::new().expect("a folder");
    let mut history = open(&folder).await;
    let mut wrong = batch(1, vec![vec![change(&table("t"), Op::Insert, 1)]]);
    wrong.records += 1;
    assert_eq!(history.write(&wrong).await.expect_err("refused").kind(), ErrorKind::Fatal);
    assert_eq!(counts(&mut history, "t").await, [0; 5]);
}

#[tokio::test]
async fn a_reader_may_ask_before_anything_was_written() {
    let folder = TempDir::new().expect("a folder");
    let history = history_of(folder.path(), 100);
    assert!(history.reader().events(10, None).await.expect("asked").is_empty());
}

#[tokio::test]
async fn a_write_that_is_cancelled_leaves_all_or_nothing() {
    let folder = TempDir::new().expect("a folder");
    let t = table("t");
    let mut history = open(&folder).await;
    for number in 1..200 {
        let one = batch(number, vec![vec![change(&t, Op::Insert, 1)]]);
        let patience = std::time::Duration::from_micros(number * 7 % 400);
        let _ = tokio::time::timeout(patience, history.write(&one)).await;
        history.write(&one).await.expect("written");
    }
    assert_eq!(counts(&mut history, "t").await[1], 199);
}

/// Not a measurement (the bench crate measures): only that nothing has become grossly slow.
#[tokio::test]
async fn a_hundred_thousand_changes_are_written_in_seconds() {
    let folder = TempDir::new().expect("a folder");
    let t = table("t");
    let mut history = history_of(folder.path(), 10_000);
    let batches: Vec<Batch> = (0..10).map(|i| batch(1 + i * 100, (0..100).map(|_| (0..100).map(|id| change(&t, Op::Insert, id)).collect()).collect())).collect();
    let start = Instant::now();
    for batch in &batches {
        history.write(batch).await.expect("written");
    }
    let all_kept = start.elapsed();
    assert_eq!(counts(&mut history, "t").await[1], 100_000);
    assert!(all_kept.as_secs() < 10, "{all_kept:?}");
    println!("100000 changes, all kept: {all_kept:?}");
}

struct Bench {
    folder: TempDir,
}

#[async_trait]
impl plumbline_sdk::testing::conformance::HistoryBench for Bench {
    async fn fresh(&mut self) -> Result<()> {
        self.folder = TempDir::new().map_err(|error| Error::fatal("no folder").caused_by(error))?;
        Ok(())
    }
    async fn open(&mut self) -> Result<Box<dyn History>> {
        Ok(Box::new(history_of(self.folder.path(), 10_000)))
    }
    async fn second(&mut self) -> Result<Option<Box<dyn History>>> {
        // The lock keeps a second agent out; only where it was taken away does the epoch have to.
        let _ = std::fs::remove_file(self.folder.path().join("history.lock"));
        Ok(Some(Box::new(history_of(self.folder.path(), 10_000))))
    }
}

#[tokio::test]
async fn it_keeps_every_promise_of_a_history() {
    plumbline_sdk::testing::conformance::history(&mut Bench { folder: TempDir::new().expect("a folder") }).await;
}
