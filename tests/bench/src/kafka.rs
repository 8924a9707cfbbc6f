//! Kafka into counters and history, against a consumer that only reads; and Redis, against its own benchmark.

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use plumbline_debezium::{KafkaCdc, KafkaConfig};
use plumbline_history::{RedisHistory, RedisHistoryConfig, SqliteHistory, SqliteHistoryConfig};
use plumbline_sdk::{Batch, Column, ColumnType, Plugin, Sink, Source, TableId, TableSchema};
use plumbline_tests::agent::Agent;
use plumbline_tests::janitor::folder;
use plumbline_tests::log::{Changes, Log, Written};
use plumbline_tests::servers::{Mysql, Pair, Postgres};
use plumbline_tests::services::Services;
use plumbline_tests::store::Store;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use redis::Value;

use crate::machine::{cpu, cpu_of_process, median, peak_mib};

/// The topic, the database and the pipeline.
const NAME: &str = "bench";
/// Records that are written at once.
const PIECE: u64 = 20_000;

/// Wall and processor seconds.
#[derive(Clone, Copy)]
struct Took {
    wall: f64,
    cpu: f64,
}

/// An update of about 1 KB.
fn update(changes: &mut Changes, number: u64) -> Written {
    changes.pos += 400;
    let note = |v: u64| format!("{v:0>16x}{}", "plumbline ".repeat(26));
    let image = |v: u64| format!(r#"{{"id":{number},"v":{v},"note":"{}"}}"#, note(v));
    let source = changes.source(changes.pos, 0);
    changes.record("u", number, &image(number), &image(number + 1), &source)
}

/// A topic of one partition with so many of them.
async fn fill(log: &Log, records: u64) -> String {
    let mut changes = Changes::of(NAME, "t");
    let topic = changes.topic();
    log.make(&topic, 1).await;
    let mut written = 0;
    while written < records {
        let piece: Vec<Written> = (written..records.min(written + PIECE)).map(|number| update(&mut changes, number)).collect();
        log.write(&topic, 0, &piece);
        written += piece.len() as u64;
    }
    topic
}

/// What `kcat -C` does with the same library: it takes every message and looks at its length.
fn read_only(bootstrap: &str, topic: &str, records: u64) -> Took {
    let mut client = ClientConfig::new();
    for (key, value) in [("bootstrap.servers", bootstrap), ("group.id", "bench"), ("enable.auto.commit", "false"), ("queued.max.messages.kbytes", "65536")] {
        client.set(key, value);
    }
    // As ours: else the peer waits visibly whenever its queue was full.
    client.set("fetch.queue.backoff.ms", "10").set("check.crcs", "true");
    let consumer: BaseConsumer = client.create().expect("a consumer");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning).expect("an offset");
    let (began, before) = (Instant::now(), cpu());
    consumer.assign(&list).expect("assigned");
    let (mut read, mut bytes) = (0, 0);
    while read < records {
        let message = consumer.poll(Duration::from_secs(10)).expect("a message in time").expect("a message");
        bytes += message.payload().map_or(0, <[u8]>::len);
        read += 1;
    }
    assert!(bytes as u64 > records * 500, "{bytes} bytes");
    Took { wall: began.elapsed().as_secs_f64(), cpu: cpu() - before }
}

/// `kcat` itself, where it is installed: it consumes the whole topic and writes it to nowhere.
fn kcat(bootstrap: &str, topic: &str) -> Option<Took> {
    let began = Instant::now();
    let arguments = ["-C", "-b", bootstrap, "-t", topic, "-p", "0", "-o", "beginning", "-e", "-q"];
    let status = Command::new("kcat").args(arguments).stdout(Stdio::null()).status().ok()?;
    assert!(status.success(), "`kcat` ends well");
    Some(Took { wall: began.elapsed().as_secs_f64(), cpu: 0.0 })
}

fn source(bootstrap: &str) -> KafkaCdc {
    let column = |name: &str, ty: ColumnType| Column { name: name.into(), ty, nullable: true, key_ordinal: (name == "id").then_some(1), generated: false, charset: None };
    let columns = vec![column("id", ColumnType::Int { unsigned: false }), column("v", ColumnType::Int { unsigned: false }), column("note", ColumnType::VarChar(400))];
    let table = Arc::new(TableSchema { id: TableId::new(NAME, "t"), columns });
    let config = KafkaConfig { bootstrap_servers: bootstrap.into(), topic_prefix: NAME.into(), ..KafkaConfig::default() };
    KafkaCdc::new(config, Arc::new(move |id| (*id == table.id).then(|| Arc::clone(&table)))).expect("a source")
}

async fn next(source: &mut KafkaCdc) -> Batch {
    source.next(Duration::from_secs(10)).await.expect("a batch").expect("no end")
}

/// Decodes and counts; with a history: stores too.
async fn ours(bootstrap: &str, records: u64, history: Option<&mut dyn Sink>) -> Took {
    let mut source = source(bootstrap);
    let mut history = history;
    if let Some(history) = &mut history {
        history.connect().await.expect("it connects");
    }
    let (began, before) = (Instant::now(), cpu());
    source.connect(None).await.expect("it connects");
    let (mut read, mut changes) = (0, 0);
    while read < records {
        let batch = next(&mut source).await;
        read += batch.records;
        changes += batch.transactions.len() as u64;
        if let Some(history) = &mut history {
            history.write(&batch).await.expect("it is written");
        }
    }
    assert_eq!((read, changes), (records, records), "every record is a change");
    let took = Took { wall: began.elapsed().as_secs_f64(), cpu: cpu() - before };
    source.close().await.expect("it closes");
    if let Some(history) = &mut history {
        history.close().await.expect("it closes");
    }
    took
}

fn sqlite() -> SqliteHistory {
    SqliteHistory::new(SqliteHistoryConfig { data_dir: folder("bench-sqlite"), ..SqliteHistoryConfig::default() }).expect("a history")
}

fn redis_of(store: &Store) -> RedisHistory {
    RedisHistory::new(RedisHistoryConfig { port: store.port, data_dir: folder("bench-redis"), ..RedisHistoryConfig::default() }).expect("a history")
}

/// Events per second, each way after the other in every run, and memory with all of them before an agent.
pub async fn kafka(records: u64, runs: u64) {
    let services = Services::start(&["kafka"]).await;
    let bootstrap = services.get("KAFKA_BOOTSTRAP_SERVERS");
    let topic = fill(&Log::at(bootstrap), records).await;
    let mut all: [Vec<Took>; 4] = Default::default();
    let mut peers = Vec::new();
    read_only(bootstrap, &topic, records);
    for _ in 0..runs {
        peers.extend(kcat(bootstrap, &topic));
        all[0].push(read_only(bootstrap, &topic, records));
        all[1].push(ours(bootstrap, records, None).await);
        all[2].push(ours(bootstrap, records, Some(&mut sqlite())).await);
        let store = Store::start();
        all[3].push(ours(bootstrap, records, Some(&mut redis_of(&store))).await);
    }
    let middle = |took: &[Took]| Took { wall: median(took.iter().map(|took| took.wall).collect()), cpu: median(took.iter().map(|took| took.cpu).collect()) };
    let base = middle(&all[0]);
    println!("kafka, {records} records of about 1 KB, medians of {runs}: events/s, processor seconds of this process, events/s relative to reading only");
    for (name, took) in ["reading only", "decoded", "decoded, counted, SQLite", "decoded, counted, Redis"].into_iter().zip(&all) {
        let took = middle(took);
        println!("  {name}: {:.0} events/s, {:.2} s, {:.2}", records as f64 / took.wall, took.cpu, base.wall / took.wall);
    }
    if !peers.is_empty() {
        let peer = middle(&peers).wall;
        println!("  kcat consuming only: {:.0} events/s; decoded is {:.2} of it", records as f64 / peer, peer / middle(&all[1]).wall);
    }
    backlog(bootstrap, records).await;
}

/// A whole agent with a backlog before it.
async fn backlog(bootstrap: &str, records: u64) {
    let (mysql, postgres) = tokio::join!(Mysql::start(&[]), Postgres::start());
    let pair = Pair::on(&mysql, &postgres, NAME).await;
    let table = "CREATE TABLE t (id INT PRIMARY KEY, v INT, note VARCHAR(400))";
    pair.on_source(&[table]).await;
    pair.on_target(&[table]).await;
    let mut agent = Agent::with(&pair, &[("KAFKA_BOOTSTRAP_SERVERS", bootstrap), ("PLUMBLINE_PIPELINE", NAME)]);
    agent.start();
    let pid = agent.pid().expect("it runs");
    let counted = |answer: &serde_json::Value| answer["cdc_events_total"].as_u64().unwrap_or(0);
    let mut first: Option<(Instant, u64, f64)> = None;
    loop {
        let count = counted(&agent.get("/health").await);
        assert!(agent.runs() && count <= records, "{count} are counted of {records}:\n{}", agent.log_tail());
        if count == records {
            break;
        }
        if count > 0 && first.is_none() {
            first = Some((Instant::now(), count, cpu_of_process(pid)));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if let Some((began, count, before)) = first {
        let seconds = began.elapsed().as_secs_f64();
        println!("  the agent, all of it, SQLite: {:.0} events/s, {:.2} processor seconds, peak {:.0} MiB resident", (records - count) as f64 / seconds, cpu_of_process(pid) - before, peak_mib(pid));
    }
    agent.stop().await;
}

/// The history's calls of batches that Kafka's source made, against `redis-benchmark -P 100` with an XADD of the same size.
pub async fn redis(records: u64, runs: u64) {
    let services = Services::start(&["kafka"]).await;
    let bootstrap = services.get("KAFKA_BOOTSTRAP_SERVERS");
    fill(&Log::at(bootstrap), records).await;
    let mut source = source(bootstrap);
    source.connect(None).await.expect("it connects");
    let mut batches = Vec::new();
    while batches.iter().map(|batch: &Batch| batch.records).sum::<u64>() < records {
        batches.push(next(&mut source).await);
    }
    source.close().await.expect("it closes");
    let (mut ours, mut theirs, mut size) = (Vec::new(), Vec::new(), 0);
    for _ in 0..runs {
        let store = Store::start();
        let mut history = redis_of(&store);
        history.connect().await.expect("it connects");
        let began = Instant::now();
        for batch in &batches {
            history.write(batch).await.expect("it is written");
        }
        ours.push(records as f64 / began.elapsed().as_secs_f64());
        history.close().await.expect("it closes");
        assert_eq!(store.ask::<Vec<u64>>(&["HMGET", "plumbline:{default}:line", "changes"]), [records], "every change is stored");
        // The oldest entry is a whole block of a hundred.
        size = longest(&store.ask(&["XRANGE", "plumbline:{default}:events", "-", "+", "COUNT", "1"])) / 100;
        theirs.push(benchmark(&store, records, size));
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!("redis, {records} events of {size} B kept, medians of {runs}: history {ours:.0} events/s, redis-benchmark -P 100 {theirs:.0} XADD/s, ratio {:.2}", ours / theirs);
}

/// Bytes of the longest text in an answer: of an entry of the stream that is its block.
fn longest(answer: &Value) -> usize {
    match answer {
        Value::Array(parts) => parts.iter().map(longest).max().unwrap_or(0),
        Value::BulkString(bytes) => bytes.len(),
        _ => 0,
    }
}

fn benchmark(store: &Store, records: u64, size: usize) -> f64 {
    let payload = "x".repeat(size.max(1));
    let output = Command::new("redis-benchmark")
        .args(["-p", &store.port.to_string(), "-n", &records.to_string(), "-P", "100", "-c", "1", "--csv", "XADD", "peer", "MAXLEN", "~", "10000", "*", "e", &payload])
        .output()
        .expect("`redis-benchmark` starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let rate = text.lines().last().and_then(|line| line.rsplit("\",\"").nth(6).map(str::to_owned));
    rate.and_then(|rate| rate.trim_matches('"').parse().ok()).unwrap_or_else(|| panic!("`redis-benchmark` says {text}"))
}
