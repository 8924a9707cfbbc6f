//! Tables, changes and batches for the tests of every history.

use std::sync::Arc;

use plumbline_sdk::{
    Batch, ChangeEvent, Column, ColumnType, Coordinate, Event, Finding, Gtid, GtidSet, Op, Partial, Position, Row as Cells, Sid, TableId, TableSchema,
    TransactionMark, TxnId, ValueRef, Verdict,
};

pub(crate) const SERVER: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

pub(crate) fn table(name: &str) -> Arc<TableSchema> {
    let id = Column {
        name: "id".into(),
        ty: ColumnType::Int { unsigned: false },
        nullable: false,
        key_ordinal: Some(1),
        generated: false,
        charset: None,
    };
    Arc::new(TableSchema { id: TableId::new("shop", name), columns: vec![id] })
}

pub(crate) fn change(table: &Arc<TableSchema>, op: Op, id: i64) -> Event {
    let row = Some(Cells::of(&[ValueRef::Int(id)]));
    let (before, after) = match op {
        Op::Snapshot | Op::Insert => (None, row),
        Op::Update => (row.clone(), row),
        Op::Delete => (row, None),
        Op::Truncate => (None, None),
    };
    Event::Change(ChangeEvent { table: Arc::clone(table), op, before, after })
}

pub(crate) fn gtid(number: u64) -> Gtid {
    let uuid = [0x3e, 0x11, 0xfa, 0x47, 0x71, 0xca, 0x11, 0xe1, 0x9e, 0x33, 0xc8, 0x0a, 0xa9, 0x42, 0x95, 0x62];
    Gtid { sid: Sid { uuid, tag: None }, number }
}

pub(crate) fn position(upto: u64, partial: Option<(u64, u64)>) -> Position {
    let mut gtids = GtidSet::default();
    if upto > 0 {
        gtids.insert_range(&gtid(1).sid, 1, upto);
    }
    Position {
        server: SERVER.into(),
        file: "binlog.000001".into(),
        at: Coordinate { log: 1, offset: upto * 100 },
        gtids: Some(gtids),
        partial: partial.map(|(number, changes)| Partial { txn: TxnId::Gtid(gtid(number)), changes }),
        ..Position::default()
    }
}

/// Transactions `first`, `first + 1`, ... with these events, each followed by one control record.
pub(crate) fn batch(first: u64, transactions: Vec<Vec<Event>>) -> Batch {
    let mut batch = Batch::default();
    let mut number = first;
    for events in transactions {
        let start = batch.events.len();
        batch.records += events.len() as u64 + 1;
        batch.control += 1;
        batch.events.extend(events);
        batch.transactions.push(TransactionMark {
            id: TxnId::Gtid(gtid(number)),
            origin: None,
            at: Coordinate { log: 1, offset: number * 100 },
            commit_micros: 1_000_000 + number as i64,
            events: start..batch.events.len(),
            first_change: 0,
            complete: true,
        });
        number += 1;
    }
    batch.position = Some(position(number - 1, None));
    batch
}

pub(crate) fn finding(key: &str, verdict: Verdict, resolved: bool) -> Event {
    Event::Finding(Finding {
        table: TableId::new("shop", "t"),
        verdict,
        key: [("id".to_owned(), key.to_owned())].into(),
        columns: Vec::new(),
        cause: None,
        settled_by: "position".into(),
        validator: "postgres-comparer".into(),
        position: None,
        resolved,
        copies: None,
    })
}
