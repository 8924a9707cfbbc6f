//! What goes wrong in Kafka's log and in Redis: every record is counted once, and what happened is said.
//!
//! The records are written by the test itself, as Debezium writes them: so that it knows each of them, and needs no Connect.

use std::time::Duration;

use plumbline_tests::agent::{Agent, PATIENCE};
use plumbline_tests::log::{Changes, Log, Written, row};
use plumbline_tests::proxy::{Proxy, Way};
use plumbline_tests::servers::Pair;
use plumbline_tests::services::{self, Services};
use plumbline_tests::store::Store;
use serde_json::{Value, json};

use crate::kafka::{number, operations};

/// An agent of this pair that reads these brokers and keeps its history in this Redis.
fn agent(pair: &Pair, services: &Services, redis: u16) -> Agent {
    let port = redis.to_string();
    Agent::with(
        pair,
        &[("KAFKA_BOOTSTRAP_SERVERS", services.get("KAFKA_BOOTSTRAP_SERVERS")), ("REDIS_HOST", "127.0.0.1"), ("REDIS_PORT", &port), ("PLUMBLINE_PIPELINE", &pair.name)],
    )
}

/// A pair with the table `t` on both sides, its topic with so many partitions, and what writes there.
async fn line(log: &Log, name: &'static str, partitions: i32) -> (Pair, Changes) {
    let pair = Pair::shared(name).await;
    pair.on_source(&["CREATE TABLE t (id INT PRIMARY KEY, v INT)"]).await;
    pair.on_target(&["CREATE TABLE t (id INT PRIMARY KEY, v INT)"]).await;
    let changes = Changes::of(name, "t");
    log.make(&changes.topic(), partitions).await;
    (pair, changes)
}

/// What the log has, counted by the test.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Model {
    insert: u64,
    update: u64,
    delete: u64,
    duplicates: u64,
    control: u64,
}

impl Model {
    fn records(self) -> u64 {
        self.insert + self.update + self.delete + self.duplicates + self.control
    }
    /// Waits until the agent has counted this and no more, and all its sums agree.
    async fn is_counted_by(self, agent: &mut Agent) {
        let of = |tables: &Value| operations(tables, "t");
        agent.wait_for("/api/v1/tables", |tables| of(tables) == json!({ "read": 0, "insert": self.insert, "update": self.update, "delete": self.delete, "truncate": 0 })).await;
        let sums = |metrics: &Value| ["records", "duplicates", "control"].map(|name| number(&metrics["cdc_stats"][name]));
        agent.wait_for("/metrics.json", |metrics| sums(metrics) == [self.records(), self.duplicates, self.control]).await;
    }
}

/// Waits until `/kafka-status` and `/health` both say these words of Kafka.
async fn says(agent: &mut Agent, words: &str) {
    agent.wait_for("/kafka-status", |status| status["messages"].to_string().contains(words)).await;
    agent.wait_for("/health", |health| health["components"]["kafka"]["messages"].to_string().contains(words)).await;
}

/// Records that cannot be taken, each with a word of the reason.
fn bad(changes: &mut Changes) -> Vec<(Written, &'static str)> {
    let shape = changes.clone();
    // Each at a place of its own: different rows at one place are those of a compressed transaction.
    let mut source = || {
        changes.pos += 100;
        changes.source(changes.pos, 0)
    };
    let deep = format!(r#"{{"op":"c","before":null,"after":{}1{},"source":{}}}"#, r#"{"id":"#.repeat(10_000), "}".repeat(10_000), source());
    let text = |value: &str| Written::of(value.as_bytes());
    vec![
        (Written::of(vec![b' '; 100_000_100]), "above the limit"),
        (text(&deep), "the column `id` of type `int`"),
        (text(&format!(r#"{{"op":"c","op":"d","before":null,"after":{},"source":{}}}"#, row(1, 1), source())), "`op` twice"),
        (shape.record("c", 1, "null", r#"{"id":1,"v":1,"v":2}"#, &source()), "twice"),
        (Written::of(b"{\"op\":\"c\",\"x\":\"\xff\xfe\"}".as_slice()), "not valid UTF-8"),
        (shape.record("c", 1, "null", r#"{"id":1,"\ud800":2}"#, &source()), "names of columns"),
        (text(&format!(r#"{{"op":"c","\ud800":1,"before":null,"after":{},"source":{}}}"#, row(1, 1), source())), "surrogate"),
        (Written::of([0, 0, 0, 0, 7, 2, 14].as_slice()), "magic byte 0"),
        (Written::of([8, 150, 1, 18, 3].as_slice()), "binary"),
        (shape.record("x", 1, "null", &row(1, 1), &source()), "unknown op `x`"),
        (text(&format!(r#"{{"op":"c","before":null,"after":{}}}"#, row(1, 1))), "no `source`"),
        (text(&format!(r#"{{"op":"c","before":null,"after":{},"source":{}}}"#, row(1, 1), r#"{"connector":"mysql","db":"x"}"#)), "no `table`"),
        (shape.record("u", 1, "null", &row(1, 1), &source()), "no `before`"),
        (text("nonsense"), "not valid JSON"),
        (text("[1]"), "no object"),
        (Written::of(b"".as_slice()), "no byte"),
        (text(r#"{"id":1,"v":1,"__op":"c"}"#), "flattened"),
        (shape.record("c", 1, "null", &row(1, 1), &source().replace("mysql", "postgresql")), "`postgresql`"),
    ]
}

/// Records that say something of the pipeline, by topic.
fn control(name: &str) -> Vec<(String, Written)> {
    let keyed = |key: &str, value: &str| Written { key: Some(key.into()), value: Some(value.into()), header: None };
    vec![
        (name.to_owned(), keyed(&format!(r#"{{"databaseName":"{name}"}}"#), r#"{"source":{"connector":"mysql"},"databaseName":"x","ddl":"CREATE TABLE x (i INT)","tableChanges":[]}"#)),
        (format!("{name}.transaction"), keyed(r#"{"id":"a:1"}"#, r#"{"status":"BEGIN","id":"a:1","event_count":null,"data_collections":null,"ts_ms":1}"#)),
        (format!("{name}.transaction"), keyed(r#"{"id":"a:1"}"#, r#"{"status":"END","id":"a:1","event_count":1,"data_collections":[],"ts_ms":1}"#)),
        (format!("__debezium-heartbeat.{name}"), keyed(&format!(r#"{{"serverName":"{name}"}}"#), r#"{"ts_ms":1795440273452}"#)),
        (format!("{name}.{name}.t"), Written { key: None, value: None, header: None }),
        (format!("{name}.{name}.t"), keyed("1", r#"{"id":"s-1","type":"execute-snapshot","data":"{}"}"#)),
        (format!("{name}.{name}.t"), keyed("1", r#"{"id":"n-1","aggregate_type":"Initial Snapshot","type":"STARTED","additional_data":{},"timestamp":1}"#)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_odd_in_the_log_is_kept_aside_or_counted_and_reading_goes_on() {
    let services = services::shared().await;
    let log = Log::at(services.get("KAFKA_BOOTSTRAP_SERVERS"));
    let store = Store::start();
    let (pair, mut changes) = line(&log, "odd", 1).await;
    let topic = changes.topic();
    for other in ["odd", "odd.transaction", "__debezium-heartbeat.odd"] {
        log.make(other, 1).await;
    }
    let mut model = Model { insert: 3, ..Model::default() };
    log.write(&topic, 0, &changes.inserts(1, 3));
    let mut agent = agent(&pair, services, store.port).started().await;
    let bad = bad(&mut changes);
    log.write(&topic, 0, &bad.iter().map(|(record, _)| record.clone()).collect::<Vec<_>>());
    model.control += bad.len() as u64;
    log.write(&topic, 0, &changes.inserts(4, 2));
    model.insert += 2;
    model.is_counted_by(&mut agent).await;
    let status = agent.get("/kafka-status").await;
    assert_eq!(status["invalid_total"], bad.len(), "{status:#}");
    let other = |(number, (_, word)): (usize, &(Written, &'static str))| {
        let kept = &status["invalid"][number];
        let as_expected = kept["reason"].as_str().is_some_and(|reason| reason.contains(word)) && kept["topic"] == topic && kept["partition"] == 0 && kept["offset"] == 3 + number;
        (!as_expected).then(|| format!("`{word}`: {kept}"))
    };
    assert_eq!(bad.iter().enumerate().filter_map(other).collect::<Vec<_>>(), Vec::<String>::new());
    says(&mut agent, &format!("{} records could not be taken", bad.len())).await;

    // A clock that is wrong makes no change less true.
    for (number, clock) in [9_000_000_000_000_000_i64, -1].into_iter().enumerate() {
        changes.pos += 100;
        let source = changes.source(changes.pos, 0).replace("1795440273452608", &clock.to_string());
        log.write(&topic, 0, &[changes.record("c", 20 + number as u64, "null", &row(20 + number as u64, 0), &source)]);
    }
    model.insert += 2;
    model.is_counted_by(&mut agent).await;

    let told = control("odd");
    for (topic, record) in &told {
        log.write(topic, 0, std::slice::from_ref(record));
    }
    model.control += told.len() as u64;
    model.is_counted_by(&mut agent).await;
    assert_eq!(agent.get("/kafka-status").await["invalid_total"], bad.len());

    // A key change: the delete of the old key and the insert of the new have one place. Sent again, both are known.
    changes.pos += 100;
    let source = changes.source(changes.pos, 0);
    let delete = Written { header: Some("__debezium.newkey"), ..changes.record("d", 1, &row(1, 0), "null", &source) };
    let tombstone = Written { value: None, header: None, ..delete.clone() };
    let insert = Written { header: Some("__debezium.oldkey"), ..changes.record("c", 99, "null", &row(99, 0), &source) };
    let moved = [delete, tombstone, insert];
    log.write(&topic, 0, &moved);
    log.write(&topic, 0, &moved);
    (model.delete, model.insert, model.duplicates, model.control) = (1, model.insert + 1, 2, model.control + 2);
    model.is_counted_by(&mut agent).await;

    // Of a compressed transaction: one place and one ordinal, A to B to A to B on one key.
    changes.pos += 100;
    let source = changes.source(changes.pos, 0);
    let step = |from: u64, to: u64| changes.record("u", 2, &row(2, from), &row(2, to), &source);
    log.write(&topic, 0, &[step(1, 2), step(2, 1), step(1, 2)]);
    model.update += 3;
    model.is_counted_by(&mut agent).await;
    says(&mut agent, "transactions are compressed").await;

    // It says so after a new start too, and goes on where it was.
    assert_eq!(agent.stop().await, Some(0));
    log.write(&topic, 0, &changes.inserts(200, 5));
    model.insert += 5;
    agent.start();
    agent.ready().await;
    model.is_counted_by(&mut agent).await;
    says(&mut agent, "transactions are compressed").await;
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_stands_still_is_not_idle_and_one_that_was_added_is_read() {
    let services = services::shared().await;
    let log = Log::at(services.get("KAFKA_BOOTSTRAP_SERVERS"));
    let store = Store::start();
    let (pair, mut changes) = line(&log, "still", 1).await;
    let topic = changes.topic();
    let mut model = Model { insert: 10, ..Model::default() };
    log.write(&topic, 0, &changes.inserts(1, 10));
    let mut agent = agent(&pair, services, store.port).started().await;
    model.is_counted_by(&mut agent).await;
    assert!(!agent.get("/kafka-status").await.to_string().contains("stalled"));

    for (commit, first) in [(false, 100), (true, 200)] {
        let open = log.begin(&topic, 0, &changes.inserts(first, 5));
        // What others write meanwhile lies behind it.
        log.write(&topic, 0, &changes.inserts(first + 50, 5));
        says(&mut agent, "stalled").await;
        model.is_counted_by(&mut agent).await;
        open.end(commit);
        model.insert += if commit { 10 } else { 5 };
        model.is_counted_by(&mut agent).await;
        agent.wait_for("/kafka-status", |status| !status["messages"].to_string().contains("stalled")).await;
    }

    // More partitions: read from their beginning, and their order is in doubt. A key change may then lie in two of them.
    log.grow(&topic, 3).await;
    let log = Log::at(services.get("KAFKA_BOOTSTRAP_SERVERS"));
    log.write(&topic, 2, &changes.inserts(300, 5));
    changes.pos += 100;
    let source = changes.source(changes.pos, 0);
    log.write(&topic, 0, &[Written { header: Some("__debezium.newkey"), ..changes.record("d", 1, &row(1, 0), "null", &source) }]);
    log.write(&topic, 1, &[Written { header: Some("__debezium.oldkey"), ..changes.record("c", 400, "null", &row(400, 0), &source) }]);
    (model.insert, model.delete) = (model.insert + 6, 1);
    model.is_counted_by(&mut agent).await;
    says(&mut agent, "got the partition 2").await;
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_restarts_leaves_no_gap_and_records_that_are_gone_are_named() {
    let services = Services::start(&["kafka"]).await;
    let log = Log::at(services.get("KAFKA_BOOTSTRAP_SERVERS"));
    let store = Store::start();
    let (pair, mut changes) = line(&log, "broker", 2).await;
    let topic = changes.topic();
    let (lost_pair, mut lost) = line(&log, "lost", 1).await;
    let (anew_pair, mut anew) = line(&log, "anew", 1).await;
    let mut agents = [agent(&pair, &services, store.port), agent(&lost_pair, &services, store.port), agent(&anew_pair, &services, store.port)];
    for (changes, agent) in [&mut changes, &mut lost, &mut anew].into_iter().zip(&mut agents) {
        log.write(&changes.topic(), 0, &changes.inserts(1, 20));
        agent.start();
    }
    for agent in &mut agents {
        agent.ready().await;
        Model { insert: 20, ..Model::default() }.is_counted_by(agent).await;
    }
    let [running, behind, other] = &mut agents;
    for agent in [&mut *behind, &mut *other] {
        assert_eq!(agent.stop().await, Some(0));
    }

    // The broker dies under traffic.
    let mut model = Model { insert: 20, ..Model::default() };
    for (partition, first) in [(0, 1_000), (1, 3_000)] {
        log.write(&topic, partition, &changes.inserts(first, 1_500));
    }
    services.kill("kafka");
    running.wait_for("/health", |health| health["components"]["kafka"]["state"] != "up").await;
    services.again("kafka").await;
    let log = Log::at(services.get("KAFKA_BOOTSTRAP_SERVERS"));
    log.write(&topic, 0, &changes.inserts(6_000, 500));
    model.insert += 3_500;
    model.is_counted_by(running).await;
    running.wait_for("/kafka-status", |status| status["status"] == "connected").await;
    assert_eq!(running.stop().await, Some(0));

    // Retention was faster than the agent: 30 records are gone, of which 10 were never read.
    log.write(&lost.topic(), 0, &lost.inserts(100, 30));
    log.forget(&lost.topic(), 0, 30).await;
    behind.start();
    says(behind, "DATA_LOST [20, 30)").await;
    assert_eq!(behind.status("/readyz").await, Some(503));
    assert_eq!(operations(&behind.get("/api/v1/tables").await, "t")["insert"], 20);
    assert_eq!(behind.stop().await, Some(0));

    // Made anew with fewer records.
    log.remove(&anew.topic()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    log.make(&anew.topic(), 1).await;
    log.write(&anew.topic(), 0, &anew.inserts(500, 5));
    other.start();
    says(other, "it was made anew").await;
    assert_eq!(operations(&other.get("/api/v1/tables").await, "t")["insert"], 20);
    assert_eq!(other.stop().await, Some(0));
}

/// Writes so many inserts in pieces, and lets something happen between them.
async fn under_load(log: &Log, changes: &mut Changes, model: &mut Model, mut between: impl FnMut(u64)) {
    let topic = changes.topic();
    for piece in 0..10 {
        log.write(&topic, (piece % 2) as i32, &changes.inserts(1_000_000 + model.insert, 300));
        model.insert += 300;
        between(piece);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_redis_does_every_change_is_counted_once() {
    let services = services::shared().await;
    let log = Log::at(services.get("KAFKA_BOOTSTRAP_SERVERS"));
    let mut store = Store::start();
    let way = Proxy::to(store.port).await;
    let (pair, mut changes) = line(&log, "moods", 2).await;
    let mut model = Model { insert: 10, ..Model::default() };
    log.write(&changes.topic(), 0, &changes.inserts(1, 10));
    let mut agent = agent(&pair, services, way.port).started().await;

    // It forgets its scripts.
    under_load(&log, &mut changes, &mut model, |_| store.ask::<()>(&["SCRIPT", "FLUSH"])).await;
    model.is_counted_by(&mut agent).await;

    // Answers are lost after the write was done, and the line is cut: it is asked again, and has it already.
    for _ in 0..3 {
        let before = way.swallowed();
        under_load(&log, &mut changes, &mut model, |piece| if piece == 4 { way.set(Way::NoAnswer) }).await;
        let deadline = std::time::Instant::now() + PATIENCE;
        while way.swallowed() == before {
            assert!(std::time::Instant::now() < deadline, "no answer was lost");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        way.set(Way::Cut);
        tokio::time::sleep(Duration::from_millis(100)).await;
        way.set(Way::Open);
        model.is_counted_by(&mut agent).await;
    }
    way.set(Way::Late(Duration::from_millis(30)));
    under_load(&log, &mut changes, &mut model, |_| {}).await;
    model.is_counted_by(&mut agent).await;
    way.set(Way::Open);

    // Somebody's script runs and runs.
    store.ask::<()>(&["CONFIG", "SET", "busy-reply-threshold", "50"]);
    let mut busy = store.connection();
    let somebody = std::thread::spawn(move || redis::cmd("EVAL").arg("while true do end").arg(0).query::<()>(&mut busy));
    tokio::time::sleep(Duration::from_millis(300)).await;
    under_load(&log, &mut changes, &mut model, |_| {}).await;
    agent.wait_for("/health", |health| health["components"]["redis"]["messages"].to_string().contains("busy with a script")).await;
    store.ask::<()>(&["SCRIPT", "KILL"]);
    assert!(somebody.join().expect("it ends").is_err());
    model.is_counted_by(&mut agent).await;

    // It is full: the line waits, nothing is lost, and it goes on by itself.
    store.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let before = model;
    under_load(&log, &mut changes, &mut model, |_| {}).await;
    agent.wait_for("/health", |health| health["components"]["redis"]["messages"].to_string().contains("is full")).await;
    assert_eq!(store.ask::<Vec<String>>(&["HMGET", &format!("plumbline:{{{}}}:line", pair.name), "changes"]), [before.insert.to_string()]);
    store.ask::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    model.is_counted_by(&mut agent).await;
    agent.wait_for("/health", |health| health["redis"] == "connected").await;

    // It dies, and loads its data slowly, of which others have put in many: half of the agent's questions are refused meanwhile. It listens once in a
    // thousand commands that it loads.
    store.ask::<()>(&["EVAL", "for i = 1, 10000 do redis.call('SET', 'others:' .. i, i) end", "0"]);
    store.kill();
    store.begin(&["--key-load-delay", "200", "--loading-process-events-interval-bytes", "1024"]);
    under_load(&log, &mut changes, &mut model, |_| {}).await;
    agent.wait_for("/health", |health| health["components"]["redis"]["messages"].to_string().contains("loading its data")).await;
    model.is_counted_by(&mut agent).await;

    // The agent dies again and again, before and after what it wrote was stored.
    for _ in 0..2 {
        under_load(&log, &mut changes, &mut model, |piece| if piece == 5 { agent.kill() }).await;
        agent.start();
        agent.ready().await;
    }
    model.is_counted_by(&mut agent).await;

    // An old copy of its data is put in its place: what it lacks is read again.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    store.copy();
    under_load(&log, &mut changes, &mut model, |_| {}).await;
    model.is_counted_by(&mut agent).await;
    store.put_back();
    store.up(&[]);
    under_load(&log, &mut changes, &mut model, |_| {}).await;
    model.is_counted_by(&mut agent).await;
    assert!(agent.log().contains("Redis went back"), "{}", agent.log_tail());

    // All is gone: nothing is counted from zero, not by this process and not by the next.
    under_load(&log, &mut changes, &mut model, |piece| if piece == 5 { store.ask::<()>(&["FLUSHALL"]) }).await;
    agent.wait_for("/health", |health| health["status"] == "unhealthy" && health.to_string().contains("is no longer in Redis")).await;
    assert_eq!(agent.status("/readyz").await, Some(503));
    agent.stop().await;
    agent.start();
    let deadline = std::time::Instant::now() + PATIENCE;
    while agent.runs() {
        assert!(std::time::Instant::now() < deadline, "it does not refuse to start");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(agent.log_tail().contains("nothing is counted from zero"), "{}", agent.log_tail());
    assert_eq!(store.ask::<Vec<String>>(&["KEYS", "*"]), Vec::<String>::new());
}
