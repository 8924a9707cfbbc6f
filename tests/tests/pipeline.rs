//! From a change in MySQL to an exact count and an equal row, whatever happens on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use plumbline_tests::agent::{Agent, table};
use plumbline_tests::contents;
use plumbline_tests::oracle::{self, Counts};
use plumbline_tests::servers::Pair;
use plumbline_tests::workload::{TABLES, Workload};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

fn counted(answer: &Value, name: &str) -> Counts {
    let operations = table(answer, name).map_or(&Value::Null, |table| &table["operations"]);
    let of = |operation: &str| operations[operation].as_u64().unwrap_or(0);
    Counts { inserts: of("insert"), updates: of("update"), deletes: of("delete"), truncates: of("truncate") }
}

/// The agent has counted a change made after it was ready: from here on nothing is before its beginning.
async fn has_begun(pair: &Pair, agent: &mut Agent) {
    pair.on_source(&["INSERT INTO grows (id, v) VALUES (100000, 1)"]).await;
    agent.wait_for("/api/v1/tables", |answer| counted(answer, "grows").inserts > 0).await;
}

async fn counts_become(agent: &mut Agent, expected: &std::collections::BTreeMap<String, Counts>) {
    let deadline = std::time::Instant::now() + Duration::from_secs(45);
    loop {
        let answer = agent.get("/api/v1/tables").await;
        let wrong: Vec<_> = expected.iter().filter(|(name, counts)| counted(&answer, name) != **counts).map(|(name, counts)| (name, *counts, counted(&answer, name))).collect();
        if wrong.is_empty() {
            return;
        }
        if std::time::Instant::now() > deadline {
            agent.stop().await;
            let kept = agent.history().await;
            panic!("(table, in the binlog, counted): {wrong:?}\nin the history: {kept:?}\nlog:\n{}", agent.log_tail());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Neither now nor at any time before: resolved findings stay listed.
async fn no_finding_ever(agent: &Agent) {
    let findings = agent.findings("all").await;
    let some: Vec<String> = findings
        .iter()
        .take(20)
        .map(|finding| format!("{} {} {} {} found {} resolved {} at {}", finding["table"], finding["verdict"], finding["key"], finding["columns"], finding["found_at"], finding["resolved_at"], finding["position"]))
        .collect();
    assert!(findings.is_empty(), "{} findings where nothing ever differed, among them:\n{}\nlog:\n{}", findings.len(), some.join("\n"), agent.log_tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_and_rows_are_exact_after_twenty_kills() {
    let pair = Pair::shared("kills").await;
    drop(Workload::begin(&pair, 1, 100).await);
    let beginning = oracle::end_of_binlog(&pair).await;
    let mut agent = Agent::new(&pair).started().await;
    has_begun(&pair, &mut agent).await;

    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn({
        let (pair, stop) = (pair.clone(), Arc::clone(&stop));
        async move {
            let mut workload = Workload::join(&pair, 2).await;
            while !stop.load(Ordering::Relaxed) {
                workload.go(20, true).await;
            }
        }
    });
    let mut random = StdRng::seed_from_u64(3);
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(random.random_range(50..1200))).await;
        // A finding is looked into at rest: whether it is true, or the comparison is wrong.
        if !agent.findings("all").await.is_empty() {
            break;
        }
        agent.kill();
        agent.start();
    }
    agent.ready().await;
    stop.store(true, Ordering::Relaxed);
    writing.await.expect("the workload ends");

    let expected = oracle::count(&pair, &beginning).await;
    assert!(expected.values().map(|counts| counts.rows()).sum::<u64>() > 1000, "the workload did something: {expected:?}");
    counts_become(&mut agent, &expected).await;
    agent.caught_up().await;
    let stopped: Vec<Value> = agent.get("/api/v1/tables").await["tables"].as_array().into_iter().flatten().map(|table| table["stopped"].clone()).filter(|stopped| !stopped.is_null()).collect();
    assert!(stopped.is_empty(), "{stopped:#?}\nlog:\n{}", agent.log().lines().filter(|line| line.contains("grows") && !line.contains("a table changed")).collect::<Vec<_>>().join("\n"));
    contents::are_equal(&pair).await;
    no_finding_ever(&agent).await;
    agent.in_sync(&TABLES).await;
    let health = agent.get("/health").await;
    let total: u64 = expected.values().map(|counts| counts.rows()).sum();
    assert_eq!(health["cdc_events_total"].as_u64(), Some(total), "{health:#}");
    assert_eq!(agent.stop().await, Some(0), "{}", agent.log_tail());
    let (kept, (records, duplicates, control)) = agent.history().await;
    for (name, counts) in &expected {
        let [_, inserts, updates, deletes, truncates] = kept.get(name).copied().unwrap_or_default();
        assert_eq!(Counts { inserts, updates, deletes, truncates }, *counts, "{name}");
    }
    let changes: u64 = expected.values().map(|counts| counts.rows() + counts.truncates).sum();
    assert_eq!(records, changes + duplicates + control);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_killed_goes_on_and_ends_equal_while_writes_go_on() {
    let pair = Pair::shared("copies").await;
    let mut workload = Workload::begin(&pair, 5, 10).await;
    pair.on_source(&[
        "SET SESSION cte_max_recursion_depth = 1000000",
        "CREATE TABLE large (id INT PRIMARY KEY, v VARCHAR(100))",
    ])
    .await;
    let fill = "INSERT INTO large WITH RECURSIVE n AS (SELECT 1 AS id UNION ALL SELECT id + 1 FROM n WHERE id < 200000) SELECT /*+ SET_VAR(cte_max_recursion_depth=1000000) */ id, REPEAT('x', id % 100) FROM n";
    pair.on_source(&[fill]).await;
    let mut agent = Agent::new(&pair);
    agent.start();
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        agent.kill();
        agent.start();
        workload.go(20, false).await;
        pair.on_source(&["UPDATE large SET v = CONCAT('u', id) WHERE id % 997 = 3", "DELETE FROM large WHERE id % 1013 = 5", "UPDATE large SET id = id + 1000000 WHERE id % 4999 = 7"]).await;
    }
    agent.ready().await;
    // What was proved before a kill is still said after it: only who has the newest row says it of now.
    pair.on_source(&["INSERT INTO large VALUES (9999999, 'the newest')"]).await;
    agent.wait_for("/latest-records/large?limit=1", |latest| latest["postgres_latest"].to_string().contains("9999999")).await;
    agent.in_sync(&TABLES).await;
    agent.in_sync(&["large"]).await;
    no_finding_ever(&agent).await;
    contents::are_equal(&pair).await;
    let look = contents::Look { source: "large", target: "large", columns: &[("id", "id"), ("v", "v")] };
    let (source, target) = contents::both(&pair, &look).await;
    assert!(source == target, "{} rows on the source, {} on the target", source.len(), target.len());
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_apply_everything_is_counted_and_neither_database_is_written() {
    let pair = Pair::shared("reading").await;
    pair.on_source(&["CREATE TABLE grows (id INT PRIMARY KEY, v INT)", "INSERT INTO grows VALUES (1, 1), (2, 2)"]).await;
    pair.on_target(&["CREATE TABLE grows (id INT PRIMARY KEY, v INT)", "INSERT INTO grows VALUES (1, 1), (2, 2)"]).await;
    let beginning = oracle::end_of_binlog(&pair).await;
    let mut agent = Agent::with(&pair, &[]).started().await;
    has_begun(&pair, &mut agent).await;
    pair.on_source(&["UPDATE grows SET v = v + 1", "DELETE FROM grows WHERE id = 2"]).await;
    let after = oracle::end_of_binlog(&pair).await;
    counts_become(&mut agent, &oracle::count(&pair, &beginning).await).await;
    agent.stop().await;
    assert!(oracle::count(&pair, &after).await.is_empty());
    let mut conn = pair.target().await;
    let others: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND c.relname <> 'grows'").fetch_one(&mut conn).await.expect("asked");
    assert_eq!(others, 0, "nothing was made on the target");
}
