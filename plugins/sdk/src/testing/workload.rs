//! Transactions on two tables, and what they must come to. The same seed gives the same transactions.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::event::{Batch, ChangeEvent, CopyMark, Event, Op, TransactionMark};
use crate::gtid::{Gtid, GtidSet, Sid};
use crate::plugin::OpCounts;
use crate::position::{Coordinate, Partial, Position, TxnId};
use crate::table::{Column, ColumnType, TableId, TableSchema};
use crate::value::{Row, ValueRef};

/// Counters by table.
pub type Counts = BTreeMap<TableId, OpCounts>;
/// Rows by table and key, cells as [`Debug`](std::fmt::Debug) prints them.
pub type Rows = BTreeMap<TableId, BTreeMap<String, String>>;

/// Random transactions on `conformance.orders` (`id`, `name`, `amount`) and `conformance.order_lines` (composite key): inserts, updates,
/// key changes, deletes, truncates; most are small, some have dozens of changes. They are consistent: what is updated is there.
pub struct Workload {
    tables: Vec<Arc<TableSchema>>,
    transactions: Vec<Transaction>,
}

struct Transaction {
    id: TxnId,
    end: Coordinate,
    changes: Vec<ChangeEvent>,
}

const SERVER: &str = "0c0f02f0-0000-4000-8000-000000000001";
/// Control records of a transaction: where it begins and where it ends.
const CONTROL: u64 = 2;

impl Workload {
    /// So many transactions.
    pub fn random(seed: u64, transactions: usize) -> Self {
        let tables = vec![orders(), order_lines()];
        let mut random = Random(seed);
        let mut model: Vec<BTreeMap<(i64, i64), Row>> = vec![BTreeMap::new(); tables.len()];
        let transactions = (1..=transactions as u64)
            .map(|number| {
                let size = if random.below(10) == 0 { 20 + random.below(40) } else { 1 + random.below(5) };
                let truncate = random.below(40) == 0;
                let changes = if truncate {
                    vec![change_all(&tables, &mut model, &mut random)]
                } else {
                    (0..size).map(|_| change_one(&tables, &mut model, &mut random)).collect()
                };
                Transaction { id: id(number), end: Coordinate { log: 1 + number / 64, offset: 200 + number % 64 * 1000 }, changes }
            })
            .collect();
        Self { tables, transactions }
    }

    /// The tables.
    pub fn tables(&self) -> &[Arc<TableSchema>] {
        &self.tables
    }

    /// How many changes there are.
    pub fn changes(&self) -> usize {
        self.transactions.iter().map(|transaction| transaction.changes.len()).sum()
    }

    /// The news with which a line begins: the tables are found.
    pub fn found(&self) -> Batch {
        Batch::news(self.tables.iter().map(|table| Event::TableFound(Arc::clone(table))).collect())
    }

    /// Copies of both tables, which have no rows yet: begun and done at once.
    pub fn empty_copies(&self) -> Vec<Batch> {
        let mark = |table: &Arc<TableSchema>| CopyMark { table: table.id.clone(), rows_done: 0, rows_expected: 0, next: None, done: true, snapshot: None, restart: false };
        self.tables.iter().map(|table| Batch { copy: Some(mark(table)), ..Batch::default() }).collect()
    }

    /// All transactions in batches of `most` changes: a transaction that reaches over a border comes in parts.
    pub fn batches(&self, most: usize) -> Vec<Batch> {
        let mut batches = Vec::new();
        let mut batch = Batch::default();
        let mut done = GtidSet::default();
        let mut at = Coordinate { log: 1, offset: 200 };
        for transaction in &self.transactions {
            let mut first = 0;
            loop {
                let left = transaction.changes.len() - first;
                let taken = left.min(most.max(1) - batch.events.len());
                let from = batch.events.len();
                batch.events.extend(transaction.changes[first..first + taken].iter().cloned().map(Event::Change));
                let complete = taken == left;
                if complete {
                    at = transaction.end;
                    if let TxnId::Gtid(gtid) = &transaction.id {
                        done.insert(gtid);
                    }
                    batch.control += CONTROL;
                }
                batch.transactions.push(TransactionMark {
                    id: transaction.id.clone(),
                    origin: None,
                    at,
                    commit_micros: 1_700_000_000_000_000 + at.offset as i64,
                    events: from..batch.events.len(),
                    first_change: first as u64,
                    complete,
                });
                first += taken;
                let partial = (!complete).then(|| Partial { txn: transaction.id.clone(), changes: first as u64 });
                if batch.events.len() >= most.max(1) {
                    batches.push(ended(std::mem::take(&mut batch), &done, at, partial));
                }
                if complete {
                    break;
                }
            }
        }
        if !batch.transactions.is_empty() {
            batches.push(ended(batch, &done, at, None));
        }
        batches
    }

    /// What the counters must be after all of it.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for change in self.transactions.iter().flat_map(|transaction| &transaction.changes) {
            counts.entry(change.table.id.clone()).or_default()[change.op.index()] += 1;
        }
        counts
    }

    /// The rows after all of it.
    pub fn rows(&self) -> Rows {
        let mut rows = Rows::default();
        self.transactions.iter().flat_map(|transaction| &transaction.changes).for_each(|change| apply(&mut rows, change));
        rows
    }
}

/// Ends a batch at a position.
fn ended(mut batch: Batch, done: &GtidSet, at: Coordinate, partial: Option<Partial>) -> Batch {
    batch.records = batch.events.len() as u64 + batch.control;
    batch.bytes = batch.records * 100;
    batch.position = Some(Position { server: SERVER.into(), file: format!("binlog.{:06}", at.log), at, gtids: Some(done.clone()), partial, ..Position::default() });
    batch
}

/// Does to `rows` what a change says.
pub(super) fn apply(rows: &mut Rows, change: &ChangeEvent) {
    let table = rows.entry(change.table.id.clone()).or_default();
    let key = |row: &Row| change.table.key().iter().map(|&i| format!("{:?}", row.get(i))).collect::<Vec<_>>().join(",");
    if change.op == Op::Truncate {
        table.clear();
    }
    if let Some(before) = &change.before {
        table.remove(&key(before));
    }
    if let Some(after) = &change.after {
        let cells: Vec<String> = after.iter().map(|cell| format!("{cell:?}")).collect();
        table.insert(key(after), cells.join(","));
    }
}

fn id(number: u64) -> TxnId {
    let uuid = [0x0c, 0x0f, 0x02, 0xf0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, 1];
    TxnId::Gtid(Gtid { sid: Sid { uuid, tag: None }, number })
}

fn column(name: &str, ty: ColumnType, key_ordinal: Option<u32>) -> Column {
    let charset = matches!(ty, ColumnType::VarChar(_)).then(|| "utf8mb4".into());
    Column { name: name.into(), ty, nullable: key_ordinal.is_none(), key_ordinal, generated: false, charset }
}

fn orders() -> Arc<TableSchema> {
    Arc::new(TableSchema {
        id: TableId::new("conformance", "orders"),
        columns: vec![
            column("id", ColumnType::BigInt { unsigned: false }, Some(1)),
            column("name", ColumnType::VarChar(100), None),
            column("amount", ColumnType::Decimal { precision: 12, scale: 2 }, None),
        ],
    })
}

fn order_lines() -> Arc<TableSchema> {
    Arc::new(TableSchema {
        id: TableId::new("conformance", "order_lines"),
        columns: vec![
            column("order_id", ColumnType::BigInt { unsigned: false }, Some(1)),
            column("line", ColumnType::Int { unsigned: false }, Some(2)),
            column("name", ColumnType::VarChar(100), None),
        ],
    })
}

fn row(table: usize, key: (i64, i64), random: &mut Random) -> Row {
    let name = format!("é {}", random.below(1_000_000));
    let name = if random.below(8) == 0 { ValueRef::Null } else { ValueRef::Text(&name) };
    let amount = format!("{}.{:02}", random.below(100_000), random.below(100));
    match table {
        0 => Row::of(&[ValueRef::Int(key.0), name, ValueRef::Decimal(&amount)]),
        _ => Row::of(&[ValueRef::Int(key.0), ValueRef::Int(key.1), name]),
    }
}

fn change_all(tables: &[Arc<TableSchema>], model: &mut [BTreeMap<(i64, i64), Row>], random: &mut Random) -> ChangeEvent {
    let at = random.below(tables.len() as u64) as usize;
    model[at].clear();
    ChangeEvent { table: Arc::clone(&tables[at]), op: Op::Truncate, before: None, after: None }
}

fn change_one(tables: &[Arc<TableSchema>], model: &mut [BTreeMap<(i64, i64), Row>], random: &mut Random) -> ChangeEvent {
    let at = random.below(tables.len() as u64) as usize;
    let (table, rows) = (Arc::clone(&tables[at]), &mut model[at]);
    let any = |random: &mut Random| (random.below(200) as i64, if at == 0 { 0 } else { random.below(3) as i64 });
    let key = any(random);
    let op = if rows.contains_key(&key) { random.below(4) } else { 0 };
    match (op, rows.get(&key).cloned()) {
        (1, before @ Some(_)) => {
            rows.remove(&key);
            ChangeEvent { table, op: Op::Delete, before, after: None }
        }
        (0, before @ Some(_)) => {
            // A key change, where the new key is free.
            let to = any(random);
            let to = if rows.contains_key(&to) { key } else { to };
            let after = row(at, to, random);
            rows.remove(&key);
            rows.insert(to, after.clone());
            ChangeEvent { table, op: Op::Update, before, after: Some(after) }
        }
        (_, before @ Some(_)) => {
            let after = row(at, key, random);
            rows.insert(key, after.clone());
            ChangeEvent { table, op: Op::Update, before, after: Some(after) }
        }
        (_, None) => {
            let after = row(at, key, random);
            rows.insert(key, after.clone());
            ChangeEvent { table, op: Op::Insert, before: None, after: Some(after) }
        }
    }
}

/// A small generator (SplitMix64), so that the sdk needs no other.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    }
}
