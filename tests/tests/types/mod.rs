//! Values of every pair of types, written to real servers and read in the three ways that we read them: by the source's reader, from the
//! binlog, by the target's reader. All must come to one canonical form; what was planted must not; keys must find their rows again.
#![allow(clippy::expect_used, reason = "a test ends where it cannot go on")]

mod cases;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cases::Case;
use plumbline_mysql::{BinlogConfig, MysqlBinlog, MysqlConfig, MysqlReader};
use plumbline_postgres::{PostgresConfig, PostgresReader, ReaderConfig};
use plumbline_sdk::canon::{Rule, value_of_source_text};
use plumbline_sdk::read::BlockSink;
use plumbline_sdk::{Event, KeyRange, Plugin, ReadColumn, ReadPlan, Reader, Result, Row, RowBlock, SideTable, Source, TableId, TableSchema, TargetTable, ValueRef};
use plumbline_tests::servers::{PASSWORD, Pair};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;

/// Rows of each pair of types; every tenth is NULL.
const ROWS: i64 = 150;
/// Rows of each table whose key is of the type.
const KEYS: i64 = 60;
/// Planted values of one row have numbers from the row's number times this.
const PLANTED: i64 = 10;

struct Gather(Vec<RowBlock>);

#[async_trait]
impl BlockSink for Gather {
    async fn put(&mut self, block: RowBlock) -> Result<RowBlock> {
        let empty = RowBlock::new(block.width());
        self.0.push(block);
        Ok(empty)
    }
}

/// The three ways, and what the catalogs say.
struct Ways {
    source: MysqlReader,
    target: PostgresReader,
    stream: HashMap<(String, i64), (Arc<TableSchema>, Row)>,
    sources: HashMap<String, Arc<TableSchema>>,
    targets: HashMap<String, Arc<TargetTable>>,
}

impl Ways {
    /// The plans that read both sides of a table, key first, and the rule of its column `c`.
    fn plans(&self, table: &str) -> (ReadPlan, ReadPlan, Rule) {
        let (source, target) = (&self.sources[table], &self.targets[table]);
        let rule = |name: &str| {
            let theirs = target.columns.iter().find(|column| column.name == name).expect("a column of the target");
            let ours = &source.columns[source.column(name).expect("a column of the source")];
            Rule::new(ours, theirs).unwrap_or_else(|reason| panic!("{table}.{name}: {reason}"))
        };
        let key = &source.columns[source.key()[0]].name;
        let other = if key == "c" { "id" } else { "c" };
        let columns = || [key.as_str(), other].map(|name| ReadColumn { name: name.into(), rule: rule(name) }).into();
        let ordered = rule(key).ordered();
        let plan = |table: &TableId, source| ReadPlan { table: table.clone(), columns: columns(), key: 1, ordered, source };
        (plan(&source.id, true), plan(&target.id, false), rule("c"))
    }

    async fn rows(&mut self, plan: &ReadPlan, range: &KeyRange) -> Vec<(Option<Vec<u8>>, Option<Vec<u8>>)> {
        let mut gather = Gather(Vec::new());
        let reader: &mut dyn Reader = if plan.source { &mut self.source } else { &mut self.target };
        reader.rows(plan, range, None, &mut gather).await.unwrap_or_else(|error| panic!("{}: {}", plan.table, error.chain()));
        let cells = |block: &RowBlock| (0..block.rows()).map(|row| [0, 1].map(|i| block.cell(row, i).map(<[u8]>::to_vec))).collect::<Vec<_>>();
        gather.0.iter().flat_map(cells).map(|[key, other]| (key, other)).collect()
    }

    /// The cells of `c` by number.
    async fn by_number(&mut self, plan: &ReadPlan) -> HashMap<i64, Option<Vec<u8>>> {
        let number = |cell: Option<Vec<u8>>| String::from_utf8_lossy(&cell.expect("a key")).parse().expect("a number");
        self.rows(plan, &KeyRange::default()).await.into_iter().map(|(key, cell)| (number(key), cell)).collect()
    }

    /// Canonical keys and numbers, in the order of the reader.
    async fn keys(&mut self, plan: &ReadPlan, range: &KeyRange) -> Vec<(Vec<u8>, Vec<u8>)> {
        let rule = &plan.columns[0].rule;
        let rows = self.rows(plan, range).await;
        rows.into_iter().map(|(key, number)| (form(rule, plan.source, &key.expect("a key")), number.expect("a number"))).collect()
    }
}

fn form(rule: &Rule, source: bool, cell: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let done = if source { rule.source_text(cell, &mut out) } else { rule.target_text(cell, &mut out) };
    done.unwrap_or_else(|error| panic!("{:?}: {error}", String::from_utf8_lossy(cell)));
    out
}

/// Types that can be a primary key on both sides and are looked up by our readers.
fn keyable(case: &Case) -> bool {
    !matches!(case.source, "JSON" | "TEXT" | "LONGTEXT" | "TEXT CHARACTER SET cp1250" | "BLOB") && !case.target.ends_with("[]")
}

/// Writes all tables, and follows the binlog meanwhile.
async fn written(pair: &Pair, cases: &[Case]) -> HashMap<(String, i64), (Arc<TableSchema>, Row)> {
    let mut random = StdRng::seed_from_u64(97);
    let (mut before, mut there, mut values) = (Vec::new(), Vec::new(), (Vec::new(), Vec::new()));
    there.extend(cases::TARGET_TYPES.map(str::to_owned));
    for (i, case) in cases.iter().enumerate() {
        before.push(format!("CREATE TABLE v{i} (id BIGINT PRIMARY KEY, c {} NULL)", case.source));
        there.push(format!("CREATE TABLE v{i} (id BIGINT PRIMARY KEY, c {})", case.target));
        there.push(format!("CREATE TABLE planted{i} (id BIGINT PRIMARY KEY, c {})", case.target));
        let (mut ours, mut theirs, mut planted) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..ROWS {
            if row % 10 == 9 {
                ours.push(format!("({row}, NULL)"));
                theirs.push(format!("({row}, NULL)"));
                continue;
            }
            let value = (case.make)(&mut random);
            ours.push(format!("({row}, {})", value.source));
            theirs.push(format!("({row}, {})", value.target));
            planted.extend((row * PLANTED..).zip(value.planted).map(|(number, value)| format!("({number}, {value})")));
        }
        values.0.push(format!("INSERT INTO v{i} VALUES {}", ours.join(",")));
        values.1.push(format!("INSERT INTO v{i} VALUES {}", theirs.join(",")));
        values.1.push(format!("INSERT INTO planted{i} VALUES {}", planted.join(",")));
        if keyable(case) {
            before.push(format!("CREATE TABLE k{i} (c {} PRIMARY KEY, id BIGINT)", case.source));
            there.push(format!("CREATE TABLE k{i} (c {} PRIMARY KEY, id BIGINT)", case.target));
            for number in 0..KEYS {
                let value = (case.make)(&mut random);
                // What the source takes for equal to another key is not there; the target then loses it too.
                values.0.push(format!("INSERT IGNORE INTO k{i} VALUES ({}, {number})", value.source));
                values.1.push(format!("INSERT INTO k{i} VALUES ({}, {number}) ON CONFLICT DO NOTHING", value.target));
            }
        }
    }
    pair.on_source(&borrowed(&before)).await;
    pair.on_target(&borrowed(&there)).await;
    let mut source = MysqlBinlog::new(BinlogConfig { mysql: mysql(pair), server_id: 771_001, heartbeat: Duration::from_secs(5) }).expect("a source");
    source.connect(None).await.unwrap_or_else(|error| panic!("{}", error.chain()));
    pair.on_source(&borrowed(&values.0)).await;
    pair.on_target(&borrowed(&values.1)).await;
    let mut stream = HashMap::new();
    let wanted = cases.len() * ROWS as usize;
    for _ in 0..200 {
        if stream.len() >= wanted {
            break;
        }
        let batch = source.next(Duration::from_millis(200)).await.unwrap_or_else(|error| panic!("{}", error.chain())).expect("a stream without end");
        for event in batch.events {
            if let Event::Change(change) = event
                && change.table.id.table.starts_with('v')
                && let Some(row) = change.after
                && let ValueRef::Int(number) = row.get(0)
            {
                stream.insert((change.table.id.table.to_string(), number), (change.table, row));
            }
        }
    }
    source.close().await.expect("close");
    assert_eq!(stream.len(), wanted, "every row came from the binlog");
    stream
}

fn borrowed(statements: &[String]) -> Vec<&str> {
    statements.iter().map(String::as_str).collect()
}

fn mysql(pair: &Pair) -> MysqlConfig {
    serde_json::from_value(json!({"host": "127.0.0.1", "port": pair.mysql_port, "user": pair.name, "password": PASSWORD, "database": pair.name})).expect("settings")
}

fn postgres(pair: &Pair) -> PostgresConfig {
    serde_json::from_value(json!({"host": "127.0.0.1", "port": pair.postgres_port, "user": pair.name, "password": PASSWORD, "database": pair.name})).expect("settings")
}

async fn ways(pair: &Pair, cases: &[Case]) -> Ways {
    let stream = written(pair, cases).await;
    let mut source = MysqlReader::new(mysql(pair));
    let mut target = PostgresReader::new(ReaderConfig { connection: postgres(pair), state_schema: "plumbline".into(), pipeline: "default".into() }).expect("a reader");
    source.connect().await.expect("the source's reader connects");
    target.connect().await.expect("the target's reader connects");
    let tables = source.tables().await.expect("the source's tables").into_iter().chain(target.tables().await.expect("the target's tables"));
    let (mut sources, mut targets) = (HashMap::new(), HashMap::new());
    for table in tables {
        match table {
            SideTable::Source(table) => sources.insert(table.id.table.to_string(), table).map(drop),
            SideTable::Target(table) => targets.insert(table.id.table.to_string(), table).map(drop),
        };
    }
    source.begin().await.expect("a view of the source");
    target.begin().await.expect("a view of the target");
    Ways { source, target, stream, sources, targets }
}

/// Values of one pair of types.
async fn check_values(ways: &mut Ways, i: usize, failures: &mut Vec<String>) {
    let table = format!("v{i}");
    let (source_plan, target_plan, rule) = ways.plans(&table);
    let planted_plan = ReadPlan { table: TableId::new(target_plan.table.schema.clone(), format!("planted{i}")), ..target_plan.clone() };
    let (ours, theirs, planted) = (ways.by_number(&source_plan).await, ways.by_number(&target_plan).await, ways.by_number(&planted_plan).await);
    let ty = &ways.sources[&table].columns[1].ty;
    let shown = |cell: &[u8]| String::from_utf8_lossy(cell).into_owned();
    for row in 0..ROWS {
        let (schema, streamed) = &ways.stream[&(table.clone(), row)];
        let (Some(ours), Some(theirs)) = (&ours[&row], &theirs[&row]) else {
            if ours[&row] != theirs[&row] || streamed.get(1) != ValueRef::Null {
                failures.push(format!("row {row} is NULL in one way only"));
            }
            continue;
        };
        let expected = form(&rule, true, ours);
        if form(&rule, false, theirs) != expected {
            failures.push(format!("{:?} of the source is not {:?} of the target", shown(ours), shown(theirs)));
        }
        let streams = Rule::new(&schema.columns[1], &ways.targets[&table].columns[1]).expect("the stream's type has a rule");
        let mut form = Vec::new();
        if streams.value(streamed.get(1), &mut form).is_err() || form != expected {
            failures.push(format!("{:?} of the binlog is not {:?} of the source", streamed.get(1), shown(ours)));
        }
        let mut scratch = Vec::new();
        let copied = value_of_source_text(ty, ours, &mut scratch).unwrap_or(ValueRef::Absent);
        // JSON is printed by the server here and by us there.
        if copied != streamed.get(1) && !matches!(copied, ValueRef::Json(_)) {
            failures.push(format!("a copy would write {copied:?}, the stream {:?}", streamed.get(1)));
        }
        for cell in (row * PLANTED..(row + 1) * PLANTED).filter_map(|number| planted.get(&number)?.as_ref()) {
            let mut form = Vec::new();
            let equal = rule.target_text(cell, &mut form).is_ok() && form == expected;
            if equal || (rule.raw_equal() && cell == ours) {
                failures.push(format!("the planted {:?} was not told from {:?}", shown(cell), shown(ours)));
            }
        }
    }
}

/// Keys of one type: sorted alike where the rule says so, ranges shared, rows found by key.
async fn check_keys(ways: &mut Ways, i: usize, failures: &mut Vec<String>) {
    let (source_plan, target_plan, rule) = ways.plans(&format!("k{i}"));
    let everything = KeyRange::default();
    let ours = ways.keys(&source_plan, &everything).await;
    let theirs = ways.keys(&target_plan, &everything).await;
    let there: HashMap<&[u8], &[u8]> = theirs.iter().map(|(key, number)| (key.as_slice(), number.as_slice())).collect();
    if !ours.iter().all(|(key, number)| there.get(key.as_slice()) == Some(&number.as_slice())) {
        failures.push("a key of the source is not on the target".into());
    }
    if rule.ordered() {
        for side in [&ours, &theirs] {
            if !side.is_sorted_by(|a, b| rule.compare(&a.0, &b.0).is_lt()) {
                failures.push("the servers sort otherwise than `compare`".into());
            }
        }
        let (after, upto) = (&ours[ours.len() / 4].0, &ours[ours.len() * 3 / 4].0);
        let text = |key: Result<Vec<u8>>| vec![String::from_utf8(key.expect("a key cell")).expect("text")];
        let source_range = KeyRange { after: Some(text(rule.key_for_source(after))), upto: Some(text(rule.key_for_source(upto))) };
        let target_range = KeyRange { after: Some(text(rule.key_for_target(after))), upto: Some(text(rule.key_for_target(upto))) };
        if ways.keys(&source_plan, &source_range).await != ways.keys(&target_plan, &target_range).await {
            failures.push("a shared range has other rows on both sides".into());
        }
    }
    let (mut for_source, mut for_target) = (RowBlock::new(1), RowBlock::new(1));
    for (key, _) in &ours {
        for_source.push(Some(&rule.key_for_source(key).expect("a key cell")));
        for_target.push(Some(&rule.key_for_target(key).expect("a key cell")));
    }
    let found = ways.source.rows_by_key(&source_plan, &for_source).await.unwrap_or_else(|error| panic!("{}", error.chain())).rows();
    if rule.key_is_exact() && found != ours.len() {
        failures.push(format!("{found} of {} keys were found on the source", ours.len()));
    }
    let found = ways.target.rows_by_key(&target_plan, &for_target).await.unwrap_or_else(|error| panic!("{}", error.chain())).rows();
    if rule.key_is_exact() && found != ours.len() {
        failures.push(format!("{found} of {} keys were found on the target", ours.len()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_has_one_form_however_it_was_read() {
    let pair = Pair::shared("types").await;
    let cases = cases::all();
    let mut ways = ways(&pair, &cases).await;
    let mut failures = Vec::new();
    for (i, case) in cases.iter().enumerate() {
        let mut found = Vec::new();
        check_values(&mut ways, i, &mut found).await;
        if keyable(case) {
            check_keys(&mut ways, i, &mut found).await;
        }
        failures.extend(found.into_iter().take(5).map(|what| format!("{} against {}: {what}", case.source, case.target)));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
