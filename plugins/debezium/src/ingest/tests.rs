use std::cell::Cell;

use plumbline_sdk::{Column, ColumnType, ValueRef};

use super::*;

fn table(name: &str, columns: &[&str]) -> Arc<TableSchema> {
    let columns = columns.iter().map(|column| Column {
        name: (*column).into(),
        ty: ColumnType::Int { unsigned: false },
        nullable: true,
        key_ordinal: (*column == "id").then_some(1),
        generated: false,
        charset: None,
    });
    Arc::new(TableSchema { id: TableId::new("inv", name), columns: columns.collect() })
}

/// Tables that can change while records come.
#[derive(Clone, Default)]
struct Tables(Arc<Mutex<HashMap<TableId, Arc<TableSchema>>>>);

impl Tables {
    fn set(&self, table: Arc<TableSchema>) {
        self.0.lock().expect("a lock").insert(table.id.clone(), table);
    }
    fn lookup(&self) -> Lookup {
        let tables = Arc::clone(&self.0);
        Arc::new(move |id| tables.lock().expect("a lock").get(id).cloned())
    }
}

fn assembler(tables: &Tables, position: Position) -> Assembler {
    let ways = Ways { cells: Settings::default(), largest: 1 << 20, compressed: false };
    Assembler::new(tables.lookup(), ways, position, Arc::default())
}

fn known() -> Tables {
    let tables = Tables::default();
    tables.set(table("t", &["id", "n"]));
    tables
}

fn change(table: &str, op: &str, pos: u64, row: u64, before: &str, after: &str) -> String {
    format!(
        r#"{{"before":{before},"after":{after},"source":{{"connector":"mysql","db":"inv","table":"{table}","server_id":1,"gtid":"3e11fa47-71ca-11e1-9e33-c80aa9429562:{pos}","file":"binlog.000002","pos":{pos},"row":{row},"ts_us":77}},"op":"{op}"}}"#
    )
}

fn insert(pos: u64, id: u64) -> String {
    change("t", "c", pos, 0, "null", &format!(r#"{{"id":{id},"n":1}}"#))
}

fn give(assembler: &mut Assembler, offset: u64, value: Option<&str>) {
    give_half(assembler, offset, value, Half::Whole);
}

fn give_half(assembler: &mut Assembler, offset: u64, value: Option<&str>, half: Half) {
    let record = Record { topic: "shop.inv.t", partition: 0, offset, key: Some(b"{}"), value: value.map(str::as_bytes), half };
    assembler.take(&record, &|ask| ask());
}

fn changes(batch: &Batch) -> usize {
    batch.events.iter().filter(|event| matches!(event, Event::Change(_))).count()
}

fn check_sums(batch: &Batch) {
    assert_eq!(batch.records, changes(batch) as u64 + batch.duplicates + batch.control);
    assert_eq!(batch.transactions.len(), changes(batch));
    for (i, mark) in batch.transactions.iter().enumerate() {
        assert_eq!((mark.events.clone(), mark.first_change, mark.complete), (i..i + 1, 0, true));
    }
}

#[test]
fn every_record_is_a_change_a_duplicate_or_control() {
    let mut assembler = assembler(&known(), Position::default());
    give(&mut assembler, 0, Some(&insert(100, 1)));
    give(&mut assembler, 1, Some(&change("t", "d", 200, 0, r#"{"id":1,"n":1}"#, "null")));
    give(&mut assembler, 2, None);
    give(&mut assembler, 3, Some(&insert(100, 1)));
    give(&mut assembler, 4, Some("garbage"));
    give(&mut assembler, 9, Some(&change("t", "t", 300, 0, "null", "null")));
    let batch = assembler.batch();
    check_sums(&batch);
    assert_eq!((batch.records, batch.duplicates, batch.control, changes(&batch)), (6, 1, 2, 3));
    let position = batch.position.expect("a position");
    assert_eq!(position.to_string(), "shop.inv.t/0:10", "offsets have holes");
    assert_eq!(position.at, Coordinate::default(), "what one topic has says nothing of the others");
    let mark = &batch.transactions[0];
    assert_eq!((mark.id.to_string().as_str(), mark.commit_micros), ("shop.inv.t/0:0", 77));
    assert_eq!(mark.origin.as_ref().map(ToString::to_string).as_deref(), Some("3e11fa47-71ca-11e1-9e33-c80aa9429562:100"));
    let kept = assembler.aside.newest();
    assert_eq!((kept.len(), kept[0].offset, assembler.aside.total()), (1, 4, 1));
}

#[test]
fn a_connectors_rewind_is_known_after_a_restart_of_ours() {
    let tables = known();
    let mut first = assembler(&tables, Position::default());
    for (offset, pos) in [(0, 100), (1, 200), (2, 300)] {
        give(&mut first, offset, Some(&insert(pos, pos)));
    }
    let stored = serde_json::to_string(&first.batch().position).expect("JSON");
    let mut second = assembler(&tables, serde_json::from_str::<Option<Position>>(&stored).expect("a position").expect("some"));
    assert_eq!(second.next("shop.inv.t", 0), Some(3));
    for (offset, pos) in [(2, 300), (3, 200), (4, 300), (5, 400)] {
        give(&mut second, offset, Some(&insert(pos, pos)));
    }
    let batch = second.batch();
    check_sums(&batch);
    assert_eq!((batch.records, batch.duplicates, changes(&batch)), (3, 2, 1), "a record before the next offset is no record");
}

#[test]
fn a_key_change_is_two_changes_with_a_tombstone_between() {
    let mut assembler = assembler(&known(), Position::default());
    for (offset, round) in [(0, 0), (10, 1)] {
        give_half(&mut assembler, offset, Some(&change("t", "d", 100, 0, r#"{"id":1,"n":1}"#, "null")), Half::Old);
        give(&mut assembler, offset + 1, None);
        give_half(&mut assembler, offset + 2, Some(&change("t", "c", 100, 0, "null", r#"{"id":2,"n":1}"#)), Half::New);
        let batch = assembler.batch();
        check_sums(&batch);
        assert_eq!((changes(&batch), batch.duplicates, batch.control), if round == 0 { (2, 0, 1) } else { (0, 2, 1) });
    }
}

#[test]
fn reads_are_never_duplicates() {
    let mut assembler = assembler(&known(), Position::default());
    give(&mut assembler, 0, Some(&insert(500, 1)));
    for offset in 1..4 {
        give(&mut assembler, offset, Some(&change("t", "r", 100, 0, "null", r#"{"id":7,"n":1}"#)));
    }
    give(&mut assembler, 4, Some(&insert(600, 2)));
    let batch = assembler.batch();
    check_sums(&batch);
    assert_eq!((changes(&batch), batch.duplicates), (5, 0));
}

#[test]
fn the_place_through_which_the_topics_are_whole_is_told_once_and_kept() {
    let tables = known();
    let mut first = assembler(&tables, Position::default());
    let at = Coordinate { log: 2, offset: 700 };
    assert!(first.is_empty());
    first.whole_through("binlog.000002", at);
    assert!(!first.is_empty());
    let batch = first.batch();
    assert_eq!((batch.records, batch.events.len()), (0, 0));
    let position = batch.position.expect("a position");
    assert_eq!((position.file.as_str(), position.at), ("binlog.000002", at));
    first.whole_through("binlog.000002", at);
    assert!(first.is_empty(), "nothing new");
    let mut second = assembler(&tables, position);
    give(&mut second, 0, Some(&insert(900, 1)));
    assert_eq!(second.batch().position.expect("a position").at, at);
}

#[test]
fn a_table_that_is_not_known_is_waited_for_once() {
    let tables = Tables::default();
    let mut assembler = assembler(&tables, Position::default());
    let asked = Cell::new(0);
    let value = insert(100, 1);
    let record = |offset| Record { topic: "shop.inv.t", partition: 0, offset, key: None, value: Some(value.as_bytes()), half: Half::Whole };
    let patience = |ask: &mut dyn FnMut() -> bool| {
        asked.set(asked.get() + 1);
        ask()
    };
    assembler.take(&record(0), &patience);
    assembler.take(&record(1), &patience);
    assert_eq!(asked.get(), 1, "one wait for each table");
    let batch = assembler.batch();
    assert_eq!((batch.control, batch.duplicates), (1, 1));
    assert_eq!(assembler.aside.newest()[0].reason, "table not watched: `inv.t`");
    assert_eq!((assembler.aside.by_class()["not_watched"], assembler.aside.by_class()["row"]), (assembler.aside.total(), 0));
    // Found while it is waited for.
    let mut patient = super::tests::assembler(&tables, Position::default());
    patient.take(&record(0), &|ask| {
        tables.set(table("t", &["id", "n"]));
        ask()
    });
    assert_eq!(changes(&patient.batch()), 1);
}

#[test]
fn a_column_that_the_table_does_not_have_yet_is_waited_for() {
    let tables = known();
    let mut assembler = assembler(&tables, Position::default());
    give(&mut assembler, 0, Some(&insert(100, 1)));
    let wide = change("t", "c", 200, 0, "null", r#"{"id":2,"n":1,"more":5}"#);
    let record = Record { topic: "shop.inv.t", partition: 0, offset: 1, key: None, value: Some(wide.as_bytes()), half: Half::Whole };
    assembler.take(&record, &|ask| {
        tables.set(table("t", &["id", "n", "more"]));
        ask()
    });
    // A column that is gone for good is waited for once, then left out.
    let dropped = change("t", "c", 300, 0, "null", r#"{"id":3,"n":1,"gone":5}"#);
    let waits = Cell::new(0);
    for offset in 2..5 {
        let dropped = dropped.replace("300", &format!("{}", 300 + offset));
        let record = Record { topic: "shop.inv.t", partition: 0, offset, key: None, value: Some(dropped.as_bytes()), half: Half::Whole };
        assembler.take(&record, &|ask| {
            waits.set(waits.get() + 1);
            ask()
        });
    }
    assert_eq!(waits.get(), 1);
    let batch = assembler.batch();
    check_sums(&batch);
    let cells: Vec<usize> = batch
        .events
        .iter()
        .filter_map(|event| match event {
            Event::Change(change) => change.after.as_ref().map(Row::len),
            _ => None,
        })
        .collect();
    assert_eq!(cells, [2, 3, 3, 3, 3]);
    let Event::Change(change) = &batch.events[1] else { panic!("no change") };
    assert_eq!(change.after.as_ref().map(|row| row.get(2)), Some(ValueRef::Int(5)));
}

#[test]
fn a_row_that_does_not_fit_is_kept_aside_by_column() {
    let mut assembler = assembler(&known(), Position::default());
    give(&mut assembler, 0, Some(&change("t", "c", 100, 0, "null", r#"{"id":"sesame","n":1}"#)));
    let batch = assembler.batch();
    check_sums(&batch);
    let kept = assembler.aside.newest();
    assert!(kept[0].reason.contains("`id`") && !kept[0].reason.contains("sesame"), "{kept:?}");
}

#[test]
fn a_batch_is_full_at_a_thousand_records_and_what_is_aside_is_bounded() {
    let mut assembler = assembler(&known(), Position::default());
    for offset in 0..1000 {
        assert!(!assembler.is_full());
        give(&mut assembler, offset, Some("garbage"));
    }
    assert!(assembler.is_full());
    check_sums(&assembler.batch());
    assert!(assembler.is_empty());
    assert_eq!((assembler.aside.total(), assembler.aside.newest().len()), (1000, KEPT));
}
