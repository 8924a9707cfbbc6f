//! A connector of Debezium on real servers: its records and the binlog's rows are the same values, and nothing is counted twice.
//!
//! Needs MySQL, Kafka and Connect, of `compose/stack servers start DIR --dev` and `compose/stack services start DIR kafka connect`:
//! `cargo test -p plumbline-debezium --test live -- --ignored --nocapture` with their variables set.
#![allow(clippy::disallowed_methods, reason = "the tests' own settings are read here only")]
#![allow(clippy::expect_used, reason = "a test ends where it cannot go on")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plumbline_debezium::{Connector, ConnectorConfig, KafkaCdc, KafkaConfig, KafkaSignals};
use plumbline_mysql::{BinlogConfig, Discovery, DiscoveryConfig, MysqlBinlog, MysqlConfig, SslMode, Watch};
use plumbline_sdk::canon::Rule;
use plumbline_sdk::{Batch, ChangeEvent, ErrorKind, Event, HealthState, Op, Position, Row, Secret, Source, TableId, TableSchema, ValueRef};

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("`{name}` is not set"))
}

fn sql(statements: &str) {
    let output = Command::new(env("MYSQL_CLIENT"))
        .env_remove("MYSQL_HOST")
        .args(["-uroot", "--protocol=socket", "-S", &env("MYSQL_ROOT_SOCKET"), "--default-character-set=utf8mb4", "-e", statements])
        .output()
        .expect("the client");
    assert!(output.status.success(), "{statements}: {}", String::from_utf8_lossy(&output.stderr));
}

fn mysql() -> MysqlConfig {
    MysqlConfig {
        host: env("MYSQL_HOST"),
        port: env("MYSQL_PORT").parse().expect("a port"),
        user: env("MYSQL_USER"),
        password: Secret::new(env("MYSQL_PASSWORD")),
        database: "dbz".into(),
        ssl_mode: SslMode::Preferred,
        ssl_ca: None,
    }
}

/// The tests share a database: one at a time.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// One pipeline of its own: a connector and its topics.
struct Stage {
    _alone: tokio::sync::MutexGuard<'static, ()>,
    name: String,
    watch: Arc<Watch>,
    discovery: Discovery,
    connector: Connector,
    kafka: KafkaConfig,
}

impl Stage {
    async fn new(statements: &str) -> Self {
        let alone = ALONE.lock().await;
        let _ = tracing_subscriber::fmt().with_env_filter("warn").try_init();
        let name = format!("live{}", std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis()));
        sql(&format!(
            "DROP DATABASE IF EXISTS dbz; CREATE DATABASE dbz; \
             CREATE USER IF NOT EXISTS debezium@'%' IDENTIFIED BY 'debezium'; GRANT SELECT, LOCK TABLES ON dbz.* TO debezium@'%'; GRANT SELECT ON dbz.* TO '{}'@'%'; \
             GRANT REPLICATION SLAVE, REPLICATION CLIENT, RELOAD, SHOW DATABASES ON *.* TO debezium@'%'; USE dbz; SET sql_mode=''; {statements}",
            env("MYSQL_USER")
        ));
        let kafka = KafkaConfig { bootstrap_servers: env("KAFKA_BOOTSTRAP_SERVERS"), topic_prefix: name.clone(), metadata_refresh_ms: 500, ..KafkaConfig::default() };
        let config = ConnectorConfig {
            connect_url: env("CONNECT_URL"),
            pipeline: name.clone(),
            topic_prefix: name.clone(),
            kafka_bootstrap_servers: env("KAFKA_BOOTSTRAP_SERVERS"),
            host: env("MYSQL_HOST"),
            port: env("MYSQL_PORT").parse().expect("a port"),
            user: "debezium".into(),
            password: Secret::new("debezium"),
            database: "dbz".into(),
            extra: [("schema.history.internal.store.only.captured.tables.ddl".to_owned(), "true".to_owned())].into(),
            ..ConnectorConfig::default()
        };
        let connector = Connector::new(config, Box::new(KafkaSignals::new(kafka.clone()))).expect("a connector");
        let watch = Watch::new(Vec::new(), Vec::new());
        let interval = Duration::from_millis(200);
        let mut discovery = Discovery::with_watch(DiscoveryConfig { mysql: mysql(), interval, include: Vec::new(), exclude: Vec::new() }, Arc::clone(&watch));
        discovery.connect(None).await.expect("discovery");
        discovery.next(Duration::ZERO).await.expect("tables");
        Self { _alone: alone, name, watch, discovery, connector, kafka }
    }

    fn source(&self) -> KafkaCdc {
        let watch = Arc::clone(&self.watch);
        KafkaCdc::new(self.kafka.clone(), Arc::new(move |id| watch.schema(id))).expect("a source")
    }

    async fn binlog(&self) -> MysqlBinlog {
        let config = BinlogConfig { mysql: mysql(), server_id: 77_001, heartbeat: Duration::from_secs(10) };
        let mut source = MysqlBinlog::with_watch(config, Arc::clone(&self.watch));
        source.connect(None).await.expect("the binlog");
        source
    }

    /// Cares until the connector runs with these tables.
    async fn running(&mut self, tables: &[&str]) {
        let tables: BTreeSet<TableId> = tables.iter().map(|table| TableId::new("dbz", *table)).collect();
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            match self.connector.care(&tables, Instant::now(), true).await {
                Ok(health) if health.state == HealthState::Up => return,
                Ok(health) => assert!(Instant::now() < deadline, "{health:?} {:?}", self.connector.shown()),
                Err(error) if error.kind() == ErrorKind::Disconnected => assert!(Instant::now() < deadline, "{}", error.chain()),
                Err(error) => panic!("{}", error.chain()),
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    async fn look(&mut self) {
        self.watch.look.notify_one();
        self.discovery.next(Duration::from_secs(5)).await.expect("tables");
    }

    async fn end(mut self) {
        self.connector.remove(false).await.expect("deleted");
    }
}

/// What came of one source.
#[derive(Default)]
struct Seen {
    changes: Vec<ChangeEvent>,
    records: u64,
    duplicates: u64,
    control: u64,
    position: Option<Position>,
}

impl Seen {
    fn take(&mut self, batch: Batch) {
        self.records += batch.records;
        self.duplicates += batch.duplicates;
        self.control += batch.control;
        self.position = batch.position.or(self.position.take());
        self.changes.extend(batch.events.into_iter().filter_map(|event| match event {
            Event::Change(change) => Some(change),
            _ => None,
        }));
    }
    fn count(&self, op: Op) -> usize {
        self.changes.iter().filter(|change| change.op == op).count()
    }
}

/// Reads until this holds.
async fn read(source: &mut dyn Source, seen: &mut Seen, what: &str, enough: impl Fn(&Seen) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !enough(seen) {
        assert!(Instant::now() < deadline, "{what}: {} changes, {} records, {} duplicates, {} control", seen.changes.len(), seen.records, seen.duplicates, seen.control);
        let batch = source.next(Duration::from_millis(200)).await.unwrap_or_else(|error| panic!("{what}: {}", error.chain())).expect("no end");
        if let Some(position) = &batch.position {
            source.commit(position).await.expect("committed");
        }
        seen.take(batch);
    }
}

/// A row as canonical cells by column.
fn canonical(table: &TableSchema, row: &Row) -> BTreeMap<String, String> {
    let cells = table.columns.iter().enumerate().map(|(i, column)| {
        let text = match row.get(i) {
            ValueRef::Null => "NULL".to_owned(),
            ValueRef::Absent => "absent".to_owned(),
            value => {
                let mut out = Vec::new();
                match Rule::of_source(column).value(value, &mut out) {
                    Ok(()) => String::from_utf8_lossy(&out).into_owned(),
                    Err(error) => format!("{value:?}: {}", error.chain()),
                }
            }
        };
        (column.name.clone(), text)
    });
    cells.collect()
}

const TYPES: &str = "CREATE TABLE types (id INT PRIMARY KEY, ti TINYINT, tu TINYINT UNSIGNED, b1 BOOL, si SMALLINT UNSIGNED, mi MEDIUMINT, i INT UNSIGNED ZEROFILL, bi BIGINT, bu BIGINT UNSIGNED, \
     de DECIMAL(20,6), dx DECIMAL(65,30), d0 DECIMAL(10,0), f FLOAT, dd DOUBLE, bit1 BIT(1), bit10 BIT(10), bit64 BIT(64), y YEAR, da DATE, dt0 DATETIME, dt3 DATETIME(3), dt6 DATETIME(6), \
     ts0 TIMESTAMP NULL, ts6 TIMESTAMP(6) NULL, t0 TIME, t3 TIME(3), t6 TIME(6), c CHAR(10), vc VARCHAR(50), tx TEXT, l1 VARCHAR(20) CHARACTER SET latin1, bn BINARY(8), vb VARBINARY(20), bl BLOB, \
     en ENUM('a','B c','it''s','é'), se SET('','x','y'), js JSON, g GEOMETRY, p POINT SRID 4326, v VECTOR(3), gen INT AS (ti + 1) VIRTUAL, inv INT INVISIBLE DEFAULT 7)";
const ROWS: [&str; 6] = [
    "(1, -128, 255, 2, 65535, -8388608, 42, -9223372036854775808, 18446744073709551615, -12.5, 12345678901234567890123456789012345.123456789012345678901234567890, 100, 0.1, 4.9e-324, b'1', b'1000000001', b'1', \
      2155, '2024-02-29', '9999-12-31 23:59:59', '1969-12-31 23:59:59.999', '0001-01-01 00:00:00.000001', '1970-01-01 00:00:01', '2038-01-19 03:14:07.999999', '-838:59:59', '-00:00:00.5', '838:59:58.999999', \
      'ab ', 'é \\\\ \" 😀 ', 'x\\ny', 'é€', 'a', x'00ff', x'', 'it''s', 'x,y', '{\"b\": 1.10, \"a\": [1, null, \"é\"], \"n\": 1e2}', ST_GeomFromText('LINESTRING(1 2,3 4)'), ST_GeomFromText('POINT(10 20)', 4326), STRING_TO_VECTOR('[1.5,-0.1,16777217]'))",
    "(2, 127, 0, 0, 0, 8388607, 4294967295, 9223372036854775807, 9223372036854775808, 0, 0, -9999999999, 16777216, -0.0, b'0', b'0', x'ffffffffffffffff', 0, '0099-01-01', '1970-01-01 00:00:00', '2024-03-31 02:30:00', '1969-12-31 23:59:59.999999', \
      '2024-06-01 12:00:00', '2024-06-01 12:00:00.1', '00:00:00', '23:59:59.999', '-00:00:00.000001', '', '', '', '', '', x'', 'text', '', '', 'null', ST_GeomFromText('POINT(0 0)'), ST_GeomFromText('POINT(-90 180)', 4326), STRING_TO_VECTOR('[0]'))",
    "(3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    "(4, 1, 1, 1, 1, 1, 1, 1, 1, 0.000001, -0.000000000000000000000000000001, 1, 3.4028235e38, 1.7976931348623157e308, b'1', b'11', b'10', 1901, '0001-01-01', '2018-06-20 06:37:03', '2018-06-20 06:37:03.004', '2018-06-20 06:37:03.000004', \
      '2018-06-20 06:37:03', '2018-06-20 06:37:03.000004', '10:11:12', '-10:11:12.013', '10:11:12.000014', 'x', 'trailing   ', REPEAT('long ', 3000), 'A', x'0102030405060708', x'00', REPEAT('b', 5000), 'a', 'y', '[]', ST_GeomFromText('GEOMETRYCOLLECTION EMPTY'), NULL, NULL)",
    "(5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 1.1754944e-38, 1e15, NULL, NULL, NULL, 2000, '2000-02-29', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'tab\\tnul\\0end', NULL, NULL, NULL, NULL, NULL, 'bad label', 'x', '{\"k\": {\"deep\": [[[1.5e300, -1, 18446744073709551615]]]}, \"\": \"\\\\u0000\"}', NULL, NULL, NULL)",
    "(6, 6, 6, 1, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, NULL, NULL, NULL, 1970, '1969-12-31', '0099-12-31 00:00:00', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'é', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '\"text\"', NULL, NULL, NULL)",
];

const COLUMNS: &str = "id,ti,tu,b1,si,mi,i,bi,bu,de,dx,d0,f,dd,bit1,bit10,bit64,y,da,dt0,dt3,dt6,ts0,ts6,t0,t3,t6,c,vc,tx,l1,bn,vb,bl,en,se,js,g,p,v";

fn insert(row: &str) -> String {
    format!("SET sql_mode=''; SET time_zone='+00:00'; INSERT INTO dbz.types ({COLUMNS}) VALUES {row}")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs MySQL, Kafka and Connect"]
async fn records_are_the_values_that_the_binlog_has() {
    let mut stage = Stage::new(TYPES).await;
    stage.running(&["types"]).await;
    let (mut kafka, mut binlog) = (stage.source(), stage.binlog().await);
    kafka.connect(None).await.expect("Kafka");
    for row in ROWS {
        sql(&insert(row));
    }
    sql("SET sql_mode=''; UPDATE dbz.types SET vc = 'changed', de = 1.000001 WHERE id IN (1, 2); UPDATE dbz.types SET id = 40 WHERE id = 4; DELETE FROM dbz.types WHERE id = 3; TRUNCATE dbz.types");
    let (mut records, mut rows) = (Seen::default(), Seen::default());
    read(&mut binlog, &mut rows, "the binlog", |seen| seen.count(Op::Truncate) > 0).await;
    read(&mut kafka, &mut records, "Kafka", |seen| seen.count(Op::Truncate) > 0).await;
    println!("aside: {:?}", kafka.aside().newest());
    // A key change is an update in the binlog, and a delete with an insert in Kafka.
    let mut expected = Vec::new();
    for change in &rows.changes {
        let (before, after) = (change.before.as_ref().map(|row| canonical(&change.table, row)), change.after.as_ref().map(|row| canonical(&change.table, row)));
        let moved = change.op == Op::Update && before.as_ref().map(|row| &row["id"]) != after.as_ref().map(|row| &row["id"]);
        if moved {
            expected.push((Op::Delete, before, None));
            expected.push((Op::Insert, None, after));
        } else {
            expected.push((change.op, before, after));
        }
    }
    let mut differ = 0;
    assert_eq!(records.changes.iter().map(|change| change.op).collect::<Vec<_>>(), expected.iter().map(|(op, ..)| *op).collect::<Vec<_>>());
    for (change, (op, before, after)) in records.changes.iter().zip(&expected) {
        for (name, row, expected) in [("before", &change.before, before), ("after", &change.after, after)] {
            let row = row.as_ref().map(|row| canonical(&change.table, row));
            assert_eq!(row.is_some(), expected.is_some(), "{op} {name}");
            let (Some(row), Some(expected)) = (row, expected) else { continue };
            for (column, cell) in expected {
                if row.get(column) != Some(cell) {
                    differ += 1;
                    println!("{op} {name} id {} `{column}`: binlog {cell}, record {:?}", expected["id"], row.get(column));
                }
            }
        }
    }
    assert_eq!(records.records, records.changes.len() as u64 + records.duplicates + records.control);
    assert_eq!((differ, records.duplicates), (0, 0));
    kafka.close().await.expect("closed");
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs MySQL, Kafka and Connect"]
async fn a_rewound_connector_changes_no_count() {
    let mut stage = Stage::new("CREATE TABLE a (id INT PRIMARY KEY, n INT); CREATE TABLE b (id INT PRIMARY KEY, n INT); INSERT INTO a VALUES (1,1),(2,2),(3,3); INSERT INTO b VALUES (1,1),(2,2)").await;
    stage.running(&["a"]).await;
    let mut kafka = stage.source();
    kafka.connect(None).await.expect("Kafka");
    let mut seen = Seen::default();
    read(&mut kafka, &mut seen, "the snapshot", |seen| seen.count(Op::Snapshot) == 3).await;
    sql("INSERT INTO dbz.a VALUES (4,4),(5,5); UPDATE dbz.a SET n = n + 1; DELETE FROM dbz.a WHERE id = 1");
    read(&mut kafka, &mut seen, "changes", |seen| seen.count(Op::Delete) == 1).await;
    assert_eq!((seen.count(Op::Insert), seen.count(Op::Update), seen.duplicates), (2, 5, 0));
    // Ours starts again, from the position that was stored.
    kafka.close().await.expect("closed");
    let stored = serde_json::to_string(&seen.position).expect("JSON");
    let position: Option<Position> = serde_json::from_str(&stored).expect("a position");
    let mut kafka = stage.source();
    kafka.connect(position.as_ref()).await.expect("Kafka again");
    // The connector goes back by the last transactions; what it knows of tables begins with its snapshot.
    let http = reqwest::Client::new();
    let url = format!("{}/connectors/plumbline-{}", env("CONNECT_URL"), stage.name);
    stage.connector.stop().await.expect("stopped");
    let offsets: serde_json::Value = loop {
        let offsets: serde_json::Value = serde_json::from_str(&http.get(format!("{url}/offsets")).send().await.expect("offsets").text().await.expect("text")).expect("JSON");
        if offsets["offsets"].as_array().is_some_and(|offsets| !offsets.is_empty()) {
            break offsets;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let mut back = offsets.clone();
    let gtids = back["offsets"][0]["offset"]["gtids"].as_str().expect("gtids").to_owned();
    let (uuid, last) = gtids.rsplit_once('-').expect("an interval");
    let last: u64 = last.parse().expect("a number");
    back["offsets"][0]["offset"]["gtids"] = format!("{uuid}-{}", last - 1).into();
    for key in ["row", "event"] {
        back["offsets"][0]["offset"][key] = 0.into();
    }
    let answer = http.patch(format!("{url}/offsets")).header("content-type", "application/json").body(back.to_string()).send().await.expect("patched");
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap_or_default());
    stage.connector.resume().await.expect("resumed");
    stage.running(&["a"]).await;
    sql("INSERT INTO dbz.a VALUES (6,6)");
    let mut after = Seen::default();
    read(&mut kafka, &mut after, "after the rewind", |seen| seen.count(Op::Insert) == 1).await;
    println!("after the rewind: {} duplicates, {} control", after.duplicates, after.control);
    assert!(after.duplicates > 0, "the connector sent nothing again");
    assert_eq!(after.changes.len(), 1);
    assert_eq!(after.records, 1 + after.duplicates + after.control);
    // A table is added: its rows come by a signal, its changes from now on.
    stage.look().await;
    stage.running(&["a", "b"]).await;
    let mut last = 7;
    let deadline = Instant::now() + Duration::from_secs(120);
    stage.running(&["a", "b"]).await;
    while after.count(Op::Snapshot) < 2 {
        assert!(Instant::now() < deadline, "the added table's rows did not come");
        sql(&format!("INSERT INTO dbz.a VALUES ({last},1)"));
        last += 1;
        for _ in 0..5 {
            if let Some(batch) = kafka.next(Duration::from_millis(200)).await.expect("a batch") {
                after.take(batch);
            }
        }
    }
    let rows = after.changes.iter().filter(|change| change.op == Op::Snapshot).map(|change| change.table.id.to_string()).collect::<Vec<_>>();
    assert_eq!(rows, ["dbz.b", "dbz.b"]);
    // An offset that is gone is told with its range, and never jumped over.
    let mut position = after.position.clone().expect("a position");
    let partitions = position.partitions.as_mut().expect("partitions");
    let topic: Arc<str> = format!("{}.dbz.a", stage.name).into();
    let place = partitions.get(&topic, 0).cloned().expect("a place");
    partitions.set(&topic, 0, plumbline_sdk::position::PartitionAt { next: place.next + 1_000, ..place });
    let error = stage.source().connect(Some(&position)).await.expect_err("the log ends before");
    assert_eq!(error.kind(), ErrorKind::Fatal, "{}", error.chain());
    // What was removed before it was read is told with its range.
    let admin: rdkafka::admin::AdminClient<rdkafka::client::DefaultClientContext> =
        rdkafka::ClientConfig::new().set("bootstrap.servers", env("KAFKA_BOOTSTRAP_SERVERS")).create().expect("a client");
    let mut before = rdkafka::TopicPartitionList::new();
    before.add_partition_offset(&topic, 0, rdkafka::Offset::Offset(5)).expect("an offset");
    admin.delete_records(&before, &rdkafka::admin::AdminOptions::new()).await.expect("removed");
    position.partitions.as_mut().expect("partitions").set(&topic, 0, plumbline_sdk::position::PartitionAt { next: 2, newest: None });
    let error = stage.source().connect(Some(&position)).await.expect_err("lost");
    assert!(error.kind() == ErrorKind::Fatal && error.chain().contains("DATA_LOST [2, 5)"), "{}", error.chain());
    // Records that nobody has read before begin where the log does.
    let mut anew = stage.source();
    anew.connect(None).await.expect("from the beginning");
    let mut seen = Seen::default();
    read(&mut anew, &mut seen, "the rest", |seen| seen.changes.len() > 10).await;
    stage.end().await;
}
