//! Several agents of one pipeline: they share partitions, any of them may die, and each answers for the whole.

use std::collections::BTreeMap;
use std::time::Duration;

use plumbline_tests::agent::Agent;
use plumbline_tests::oracle;
use plumbline_tests::servers::Pair;
use plumbline_tests::services::{self, Services};
use serde_json::{Value, json};

use crate::kafka::{agent, number, operations};

const TABLES: [&str; 4] = ["a", "b", "c", "d"];

fn counts(tables: &Value) -> BTreeMap<&'static str, [u64; 3]> {
    TABLES.into_iter().map(|name| (name, ["insert", "update", "delete"].map(|op| number(&operations(tables, name)[op])))).collect()
}

/// Writes to every table.
async fn write(pair: &Pair) {
    for name in TABLES {
        let statements = [
            format!("INSERT INTO {name} (v) SELECT v + 1 FROM {name} LIMIT 40"),
            format!("UPDATE {name} SET v = v + 1 LIMIT 60"),
            format!("DELETE FROM {name} ORDER BY id LIMIT 10"),
        ];
        pair.on_source(&statements.each_ref().map(String::as_str)).await;
    }
}

/// Waits until every agent gives these counters.
async fn agree(agents: &mut [Agent], wanted: &BTreeMap<&'static str, [u64; 3]>) {
    for agent in agents {
        agent.wait_for("/api/v1/tables", |tables| counts(tables) == *wanted).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_agents_share_the_partitions_and_whichever_dies_every_count_is_exact() {
    let services = Services::start(&["redis", "connect"]).await;
    let pair = Pair::shared("shared3").await;
    for name in TABLES {
        pair.on_source(&[&format!("CREATE TABLE {name} (id INT PRIMARY KEY AUTO_INCREMENT, v INT)")]).await;
        pair.on_target(&[&format!("CREATE TABLE {name} (id INT PRIMARY KEY, v INT)")]).await;
    }
    // Written to by nobody: what is planted there is found among nothing else.
    pair.on_source(&["CREATE TABLE quiet (id INT PRIMARY KEY, v INT)", "INSERT INTO quiet VALUES (1, 1)"]).await;
    pair.on_target(&["CREATE TABLE quiet (id INT PRIMARY KEY, v INT)", "INSERT INTO quiet VALUES (1, 1)"]).await;
    let mut agents = Vec::new();
    for _ in 0..3 {
        let mut agent = agent(&pair, &services).await;
        agent.start();
        agents.push(agent);
    }
    for agent in &mut agents {
        agent.ready().await;
    }
    // The connector follows the binlog when it has sent a change.
    for _ in 0..60 {
        for name in TABLES {
            pair.on_source(&[&format!("INSERT INTO {name} (v) VALUES (0)")]).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        if counts(&agents[0].get("/api/v1/tables").await).values().all(|counts| counts[0] > 0) {
            break;
        }
    }
    for agent in &mut agents {
        agent.wait_for("/kafka-status", |status| status["members"].as_array().is_some_and(|members| members.len() == 3 && members.iter().all(|member| number(&member["partitions"]) > 0))).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let first = counts(&agents[0].get("/api/v1/tables").await);
    let from = oracle::end_of_binlog(&pair).await;
    for round in 0..6 {
        write(&pair).await;
        let victim = round % 3;
        match round {
            // Killed, and away for longer than the group waits.
            0 | 3 => {
                agents[victim].kill();
                for _ in 0..8 {
                    write(&pair).await;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                agents[victim].start();
            }
            // Asleep for longer than that, and writing on when it wakes.
            1 | 4 => {
                agents[victim].signal("STOP");
                for _ in 0..9 {
                    write(&pair).await;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                agents[victim].signal("CONT");
            }
            _ => {
                assert_eq!(agents[victim].stop().await, Some(0));
                agents[victim].start();
            }
        }
        write(&pair).await;
        agents[victim].ready().await;
    }
    let counted = oracle::count(&pair, &from).await;
    let wanted: BTreeMap<&'static str, [u64; 3]> = TABLES
        .into_iter()
        .map(|name| {
            let more = counted.get(name).copied().unwrap_or_default();
            (name, [first[name][0] + more.inserts, first[name][1] + more.updates, first[name][2] + more.deletes])
        })
        .collect();
    agree(&mut agents, &wanted).await;
    for agent in &agents {
        let status = agent.get("/kafka-status").await;
        let owned = status["consumers"].as_array().map(|consumers| consumers.iter().filter(|place| TABLES.iter().any(|name| place["topic"] == format!("shared3.shared3.{name}")) && place["owner"].is_string()).count());
        assert_eq!(owned, Some(TABLES.len()), "each of them answers for the whole: {status}");
        let metrics = agent.get("/metrics.json").await;
        let stats = &metrics["cdc_stats"];
        let total: u64 = metrics["sync_stats"]["total"].as_object().into_iter().flatten().map(|(_, count)| number(count)).sum();
        assert_eq!(number(&stats["records"]), total + number(&stats["duplicates"]) + number(&stats["control"]), "{stats}");
    }

    // Whatever the owner of a table finds, all of them say.
    pair.on_target(&["INSERT INTO quiet VALUES (1000000, 1)"]).await;
    for agent in &mut agents {
        agent.wait_for("/api/v1/findings?table=shared3.quiet", |findings| findings.to_string().contains("1000000")).await;
    }
    let leaders = agents[0].get("/kafka-status").await["members"].as_array().map(|members| members.iter().filter(|member| member["leads"] == json!(true)).count());
    assert_eq!(leaders, Some(1));
    for agent in &mut agents {
        assert_eq!(agent.stop().await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_agents_with_one_instance_id_the_older_stops_and_the_newer_goes_on() {
    let services = services::shared().await;
    let pair = Pair::shared("twins").await;
    pair.on_source(&["CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v INT)", "INSERT INTO t (v) VALUES (1), (2), (3)"]).await;
    pair.on_target(&["CREATE TABLE t (id INT PRIMARY KEY, v INT)"]).await;
    let mut older = agent(&pair, services).await;
    older.set("KAFKA_GROUP_INSTANCE_ID", "one");
    let mut older = older.started().await;
    older.wait_for("/api/v1/tables", |tables| operations(tables, "t")["read"] == 3).await;
    let mut newer = agent(&pair, services).await;
    newer.set("KAFKA_GROUP_INSTANCE_ID", "one");
    newer.start();
    let stopped = older.wait_for("/health", |health| health.to_string().contains("KAFKA_GROUP_INSTANCE_ID")).await;
    assert_eq!(stopped["components"]["kafka"]["state"], "down", "{stopped}");
    newer.ready().await;
    pair.on_source(&["INSERT INTO t (v) VALUES (4), (5)", "UPDATE t SET v = v + 1"]).await;
    let counted = |tables: &Value| ["read", "insert", "update"].map(|op| number(&operations(tables, "t")[op])) == [3, 2, 5];
    newer.wait_for("/api/v1/tables", counted).await;
    assert!(older.runs() && newer.status("/readyz").await == Some(200) && older.status("/readyz").await == Some(503), "{}", older.log_tail());
    assert_eq!((older.stop().await, newer.stop().await), (Some(0), Some(0)));
}
