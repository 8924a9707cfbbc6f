//! The exposition as a scraper reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use plumbline_sdk::plugin::{FindingQuery, HistoryReader, StoredEvent, StoredFinding, Verified};
use plumbline_sdk::{Coordinate, Op, Position, Result, TableSchema, Verdict};

use super::*;
use crate::shared::SharedParts;
use crate::source_log::LogLook;
use crate::state::{CheckProgress, LastEvent, RowCount, State, TableState};

struct NoHistory;

#[async_trait]
impl HistoryReader for NoHistory {
    async fn events(&self, _limit: u32, _before: Option<u64>) -> Result<Vec<StoredEvent>> {
        Ok(Vec::new())
    }
    async fn findings(&self, _query: &FindingQuery) -> Result<Vec<StoredFinding>> {
        Ok(Vec::new())
    }
    async fn open_findings(&self) -> Result<Vec<(TableId, Verdict, u64)>> {
        Ok(Vec::new())
    }
}

fn shared(state: State) -> Arc<Shared> {
    let parts = SharedParts {
            membership: None,
        pipeline: "test".into(),
        started_micros: 0,
        state,
        window_bytes: 1024,
        commands: mpsc::channel(1).0,
        history: Arc::new(NoHistory),
        config: serde_json::Value::Null,
    };
    Shared::new(parts)
}

fn metrics(most: usize) -> Metrics {
    Metrics::new("test", most, ChangeTraces::default())
}

/// Everything that can be known of a table.
fn full(id: &TableId, events: u64) -> TableState {
    let rows = Some(RowCount { rows: 3, as_of_micros: 1, estimated: false });
    TableState {
        schema: Some(Arc::new(TableSchema { id: id.clone(), columns: Vec::new() })),
        total: [1, events, 0, 0, 0],
        source_rows: rows,
        target_rows: rows,
        last: Some(LastEvent { table: id.clone(), op: Op::Insert, commit_micros: 5_000_000 }),
        verified: Some(Verified { position: "p".into(), micros: 6_000_000, rows: 3 }),
        check: Some(CheckProgress { rows: 1, expected: 2 }),
        ..TableState::default()
    }
}

type Sample = (String, BTreeMap<String, String>, f64);

/// The samples of an exposition. Anything that a scraper would stumble over is a panic.
fn samples(text: &str) -> Vec<Sample> {
    let mut found = Vec::new();
    let mut families = BTreeSet::new();
    for line in text.split_terminator('\n') {
        if let Some(rest) = line.strip_prefix('#') {
            if let Some(name) = rest.strip_prefix(" TYPE ").and_then(|rest| rest.split(' ').next()) {
                assert!(families.insert(name.to_owned()), "`{name}` comes twice");
            }
            continue;
        }
        let (sample, rest) = sample(line);
        let rest = rest.split(" # ").next().unwrap_or_default();
        let value: f64 = rest.trim().parse().unwrap_or_else(|_| panic!("no number: {line}"));
        found.push((sample.0, sample.1, value));
    }
    found
}

/// The name, the labels without escapes, and what follows them.
fn sample(line: &str) -> ((String, BTreeMap<String, String>), &str) {
    let end = line.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or_else(|| panic!("no name: {line}"));
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, quoted) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
            let mut value = String::new();
            let mut letters = quoted.char_indices();
            let end = loop {
                match letters.next() {
                    Some((at, '"')) => break at,
                    Some((_, '\\')) => value.push(match letters.next() {
                        Some((_, 'n')) => '\n',
                        Some((_, letter @ ('"' | '\\'))) => letter,
                        other => panic!("a wrong escape {other:?}: {line}"),
                    }),
                    Some((_, letter)) => value.push(letter),
                    None => panic!("no end: {line}"),
                }
            };
            assert!(labels.insert(label.to_owned(), value).is_none(), "`{label}` comes twice: {line}");
            rest = &quoted[end + 1..];
            match rest.split_at_checked(1) {
                Some((",", more)) => rest = more,
                Some(("}", more)) => break rest = more,
                _ => panic!("no end of labels: {line}"),
            }
        }
    }
    ((name.to_owned(), labels), rest)
}

fn value(samples: &[Sample], name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let is = |sample: &&Sample| sample.0 == name && labels.iter().all(|(label, value)| sample.1.get(*label).map(String::as_str) == Some(*value));
    samples.iter().find(is).map(|sample| sample.2)
}

fn tables_of(samples: &[Sample]) -> BTreeSet<String> {
    samples.iter().filter_map(|sample| sample.1.get("table").cloned()).collect()
}

/// Names that break a careless exposition.
fn name(number: usize) -> TableId {
    let odd = ["plain", "quo\"te", "br{ace},}", "new\nline", "back\\slash\\n", "🦀 # {trace_id=\"1\"} 1", " ", "a=\"b\",c=\"d\"}", "\\", "#"];
    TableId::new("shop", format!("{}{number:04}", odd[number % odd.len()]))
}

#[test]
fn tables_have_a_cap_and_leave_every_family_when_they_are_gone() {
    const MOST: usize = 1000;
    let names: Vec<TableId> = (0..3000).map(name).collect();
    let mut state = State { applies: true, ..State::default() };
    state.tables.extend(names.iter().map(|id| (id.clone(), full(id, 2))));
    let (shared, metrics) = (shared(state), metrics(MOST));
    for id in &names {
        metrics.table(id, |counted| {
            *counted = Counted { bytes: 10, compared_rows: 7, last_success: Some(1), suspects: Some(1), traces: [Some((TraceId([7; 16]), 1_000_000)); 5] };
        });
    }
    let before = samples(&metrics.open_metrics(&shared));
    let shown = tables_of(&before);
    let real: BTreeSet<String> = names.iter().map(ToString::to_string).collect();
    assert_eq!(shown.iter().filter(|table| real.contains(*table)).count(), MOST);
    assert_eq!(shown.len(), MOST + 1, "only `_other` besides");
    let other = |samples: &[Sample], name: &str, op: &str| {
        let labels = if op.is_empty() { vec![("table", "_other")] } else { vec![("table", "_other"), ("op", op)] };
        value(samples, name, &labels)
    };
    assert_eq!(other(&before, "plumbline_cdc_events_total", "insert"), Some(4000.0));
    assert_eq!(other(&before, "plumbline_cdc_event_bytes_total", ""), Some(20_000.0));
    assert_eq!(other(&before, "plumbline_compare_rows_total", ""), Some(14_000.0));
    assert_eq!(other(&before, "plumbline_table_in_sync", ""), None, "nothing is said of `_other` that is not a sum");
    assert_eq!(value(&before, "plumbline_metric_label_overflow_total", &[]), Some(2000.0));
    let families: BTreeSet<&str> = before.iter().filter(|sample| sample.1.contains_key("table")).map(|sample| sample.0.as_str()).collect();
    assert!(families.len() >= 16, "every family is filled: {families:?}");
    assert_eq!(samples(&metrics.text(&shared)).len(), before.len(), "the same in the older format");

    // Half of the labelled tables go, and half of the others.
    let gone: BTreeSet<String> = names.iter().filter(|id| id.table.ends_with(['0', '2', '4', '6', '8'])).map(ToString::to_string).collect();
    for (id, table) in &mut shared.picture().state.tables {
        table.gone = gone.contains(&id.to_string());
    }
    let after = samples(&metrics.open_metrics(&shared));
    let left = tables_of(&after);
    assert!(left.is_disjoint(&gone), "gone: {:?}", left.intersection(&gone).take(3).collect::<Vec<_>>());
    for (family, op) in [("plumbline_cdc_events_total", "insert"), ("plumbline_cdc_event_bytes_total", ""), ("plumbline_compare_rows_total", "")] {
        assert_eq!(other(&after, family, op), other(&before, family, op), "`{family}` of `_other` does not fall");
    }
    assert_eq!(value(&after, "plumbline_metric_label_overflow_total", &[]), Some(2000.0));

    // A new table takes a free place; one that comes again begins anew where it is counted here.
    let new = TableId::new("shop", "a new one");
    let back = names.iter().find(|id| gone.contains(&id.to_string()) && shown.contains(&id.to_string())).expect("one").clone();
    {
        let mut picture = shared.picture();
        picture.state.tables.insert(new.clone(), full(&new, 1));
        picture.state.tables.entry(back.clone()).or_default().gone = false;
    }
    let last = samples(&metrics.open_metrics(&shared));
    assert_eq!(value(&last, "plumbline_cdc_events_total", &[("table", &new.to_string()), ("op", "insert")]), Some(1.0));
    assert_eq!(value(&last, "plumbline_cdc_event_bytes_total", &[("table", &back.to_string())]), Some(0.0));
    assert_eq!(value(&last, "plumbline_metric_label_overflow_total", &[]), Some(2000.0));
}

#[test]
fn a_table_that_goes_between_two_scrapes_is_counted_anew() {
    let id = name(1);
    let mut state = State::default();
    state.tables.insert(id.clone(), full(&id, 1));
    let (shared, metrics) = (shared(state), metrics(10));
    metrics.table(&id, |counted| counted.bytes += 10);
    metrics.table_gone(&id);
    metrics.table(&id, |counted| counted.bytes += 3);
    assert_eq!(value(&samples(&metrics.open_metrics(&shared)), "plumbline_cdc_event_bytes_total", &[("table", &id.to_string())]), Some(3.0));
}

#[test]
fn a_counter_leads_to_the_trace_of_its_newest_change() {
    let id = TableId::new("shop", "orders");
    let mut state = State::default();
    state.tables.insert(id.clone(), full(&id, 5));
    let (shared, metrics) = (shared(state), metrics(10));
    metrics.table(&id, |counted| counted.traces[Op::Insert.index()] = Some((TraceId([0xab; 16]), 1_500_000)));
    let open = metrics.open_metrics(&shared);
    let line = open.lines().find(|line| line.starts_with("plumbline_cdc_events_total") && line.contains("op=\"insert\"")).expect("a line");
    assert!(line.contains("} 5 # {trace_id=\"abababababababababababababababab\"} 1.0 1.5"), "{line}");
    assert!(!metrics.text(&shared).contains("abababab"), "the older format has no exemplars");
}

#[test]
fn the_process_has_the_names_that_every_client_uses() {
    let (shared, metrics) = (shared(State::default()), metrics(10));
    for text in [metrics.open_metrics(&shared), metrics.text(&shared)] {
        let samples = samples(&text);
        for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_virtual_memory_bytes", "process_open_fds", "process_max_fds", "process_start_time_seconds"] {
            assert!(value(&samples, name, &[]).is_some_and(|value| value >= 0.0), "`{name}`");
        }
        assert!(!text.contains("plumbline_process_"));
        let started = value(&samples, "process_start_time_seconds", &[]).expect("known");
        let now = clock::now_micros() as f64 / 1e6;
        assert!(started > now - 86_400.0 && started <= now + 1.0, "{started} {now}");
    }
}

#[test]
fn what_is_not_known_is_absent() {
    let (shared, metrics) = (shared(State::default()), metrics(10));
    let unknown = [
        "plumbline_cdc_lag_seconds",
        "plumbline_cdc_backlog_bytes",
        "plumbline_cdc_last_received_timestamp_seconds",
        "plumbline_source_binlog_written_bytes_total",
        "plumbline_source_binlog_retention_seconds",
        "plumbline_source_binlog_runway_seconds",
    ];
    let nothing = samples(&metrics.open_metrics(&shared));
    for name in unknown {
        assert_eq!(value(&nothing, name, &[]), None, "`{name}`");
    }
    {
        let mut picture = shared.picture();
        let state = &mut picture.state;
        let at = Position { server: "s".into(), file: "binlog.000001".into(), at: Coordinate { log: 1, offset: 400 }, ..Position::default() };
        (state.received, state.applied, state.received_micros) = (Some(at.clone()), Some(at), Some(7_000_000));
        let look = LogLook { server: "s".into(), files: vec![(1, 1000), (2, 50)], executed: None, retention_seconds: Some(3600) };
        state.applied_commit_micros = Some(clock::now_micros());
        state.source_log.take(look, clock::now_micros());
    }
    shared.streaming.store(true, Ordering::Relaxed);
    let known = samples(&metrics.open_metrics(&shared));
    let of = |name: &str| value(&known, name, &[("pipeline", "test")]);
    assert_eq!(of("plumbline_cdc_lag_seconds"), Some(0.0));
    assert_eq!(of("plumbline_cdc_backlog_bytes"), Some(650.0));
    assert_eq!(of("plumbline_cdc_last_received_timestamp_seconds"), Some(7.0));
    assert_eq!(of("plumbline_source_binlog_written_bytes_total"), Some(0.0));
    assert_eq!(of("plumbline_source_binlog_retention_seconds"), Some(3600.0));
    assert!(of("plumbline_source_binlog_runway_seconds").is_some_and(|seconds| (3500.0..=3600.0).contains(&seconds)));
    shared.streaming.store(false, Ordering::Relaxed);
    assert_eq!(value(&samples(&metrics.open_metrics(&shared)), "plumbline_cdc_lag_seconds", &[]), None, "nobody knows what waits at a source that is away");
}

#[test]
fn kafka_and_the_connectors_are_shown_where_they_are_used() {
    use crate::connectors::{ConnectorView, SinkView, TaskView};
    use plumbline_sdk::position::{PartitionAt, Partitions};
    let (shared, metrics) = (shared(State::default()), metrics(2));
    let unused = metrics.open_metrics(&shared);
    assert!(!unused.contains("plumbline_kafka_") && !unused.contains("plumbline_connector_"));
    let mut partitions = Partitions::default();
    partitions.set(&"shop.inv.a".into(), 0, PartitionAt { next: 4, newest: None });
    shared.picture().state.applied = Some(Position { partitions: Some(partitions), ..Position::default() });
    let ends = vec![("shop.inv.a".into(), 0, 10), ("shop.inv.a".into(), 1, 3), ("shop.inv.b".into(), 0, 5), ("shop.inv.c".into(), 0, 7)];
    metrics.watch_kafka(Box::new(move || KafkaLook { ends: ends.clone(), aside: vec![("row", 2), ("envelope", 0)], rebalances: 3 }));
    let task = TaskView { id: 0, state: "FAILED".into(), worker: String::new(), trace: Vec::new() };
    let sink = SinkView { name: "copy".into(), class: String::new(), group: String::new(), state: "ODD".into(), tables: 1 };
    shared.show_connector(Some(ConnectorView { name: "ours".into(), state: "FAILED".into(), tasks: vec![task], sinks: vec![sink], restarts: 5, ..ConnectorView::default() }));
    let samples = samples(&metrics.open_metrics(&shared));
    for (name, labels, expected) in [
        ("plumbline_kafka_consumer_lag_records", &[("topic", "shop.inv.a"), ("partition", "0")][..], Some(6.0)),
        ("plumbline_kafka_consumer_lag_records", &[("topic", "shop.inv.a"), ("partition", "1")], Some(3.0)),
        ("plumbline_kafka_consumer_lag_records", &[("topic", "_other")], Some(12.0)),
        ("plumbline_kafka_consumer_lag_records", &[("topic", "shop.inv.b")], None),
        ("plumbline_kafka_records_aside_total", &[("reason", "row")], Some(2.0)),
        ("plumbline_kafka_records_aside_total", &[("reason", "envelope")], Some(0.0)),
        ("plumbline_kafka_rebalances_total", &[], Some(3.0)),
        ("plumbline_connector_state", &[("connector", "ours"), ("state", "failed")], Some(1.0)),
        ("plumbline_connector_state", &[("connector", "ours"), ("state", "running")], Some(0.0)),
        ("plumbline_connector_state", &[("connector", "copy"), ("state", "other")], Some(1.0)),
        ("plumbline_connector_task_state", &[("connector", "ours"), ("task", "0"), ("state", "failed")], Some(1.0)),
        ("plumbline_connector_restarts_total", &[("connector", "ours")], Some(5.0)),
    ] {
        assert_eq!(value(&samples, name, labels), expected, "{name} {labels:?}");
    }
}

#[tokio::test]
async fn a_queue_is_shown_for_as_long_as_it_lives() {
    let (shared, metrics) = (shared(State::default()), metrics(10));
    let (queue, waiting) = mpsc::channel::<u8>(4);
    metrics.watch_queue("stream", &queue);
    queue.send(1).await.expect("room");
    let look = |name: &str| value(&samples(&metrics.open_metrics(&shared)), name, &[("queue", "stream")]);
    assert_eq!((look("plumbline_queue_depth"), look("plumbline_queue_capacity")), (Some(1.0), Some(4.0)));
    drop(queue);
    assert_eq!((look("plumbline_queue_depth"), look("plumbline_queue_capacity")), (None, None), "to look at a queue does not keep it");
    drop(waiting);
}
