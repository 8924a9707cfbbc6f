//! Differences that were planted, and equal rows that only look different.

use std::collections::BTreeSet;
use std::time::Duration;

use plumbline_tests::agent::{self, Agent};
use plumbline_tests::servers::Pair;
use plumbline_tests::services;
use serde_json::{Value, json};

use crate::kafka;

const SOURCE: [&str; 4] = [
    "CREATE TABLE items (id INT PRIMARY KEY, word VARCHAR(50), price DECIMAL(10,2), at DATETIME(6), data BLOB, n BIGINT UNSIGNED, f DOUBLE)",
    "INSERT INTO items WITH RECURSIVE n AS (SELECT 1 AS id UNION ALL SELECT id + 1 FROM n WHERE id < 900) SELECT id, CONCAT('word ', id), id / 4, '2024-02-29 12:00:00.000001', UNHEX('00FF'), 18446744073709551615, id / 8 FROM n",
    "CREATE TABLE pairs (a INT, b VARCHAR(20), v INT, PRIMARY KEY (a, b))",
    "INSERT INTO pairs VALUES (1, 'x', 1), (1, 'Y', 2), (2, 'é', 3)",
];
const TARGET: [&str; 2] = [
    "CREATE TABLE items (id INT PRIMARY KEY, word VARCHAR(50), price NUMERIC(10,2), at TIMESTAMP(6), data BYTEA, n NUMERIC(20), f DOUBLE PRECISION)",
    "CREATE TABLE pairs (a INT, b VARCHAR(20), v INT, PRIMARY KEY (a, b))",
];
const EQUAL: [&str; 2] = [
    "INSERT INTO items SELECT id, 'word ' || id, id / 4.0, '2024-02-29 12:00:00.000001', '\\x00ff', 18446744073709551615, id / 8.0 FROM generate_series(1, 900) id",
    "INSERT INTO pairs VALUES (1, 'x', 1), (1, 'Y', 2), (2, 'é', 3)",
];
const PLANTED: [&str; 11] = [
    "DELETE FROM items WHERE id = 10",
    "INSERT INTO items SELECT 5000, word, price, at, data, n, f FROM items WHERE id = 11",
    "UPDATE items SET word = 'Word 12' WHERE id = 12",
    "UPDATE items SET word = word || ' ' WHERE id = 13",
    "UPDATE items SET word = NULL WHERE id = 14",
    "UPDATE items SET word = '' WHERE id = 15",
    "UPDATE items SET at = at + interval '1 microsecond' WHERE id = 16",
    "UPDATE items SET price = price + 0.01, n = n - 1 WHERE id = 17",
    "UPDATE items SET data = '\\x00ff00' WHERE id = 18",
    "UPDATE items SET f = f + 0.0000000000001 WHERE id = 19",
    "DELETE FROM pairs WHERE b = 'Y'",
];

async fn planted(name: &str, differences: bool) -> Pair {
    let pair = Pair::shared(name).await;
    pair.on_source(&SOURCE).await;
    pair.on_target(&TARGET).await;
    pair.on_target(&EQUAL).await;
    if differences {
        pair.on_target(&PLANTED).await;
    }
    pair
}

fn expected() -> BTreeSet<String> {
    let changed = |id: &str, columns: &[&str]| json!(["changed", {"id": id}, columns]).to_string();
    [
        json!(["missing", {"id": "10"}, []]).to_string(),
        json!(["extra", {"id": "5000"}, []]).to_string(),
        changed("12", &["word"]),
        changed("13", &["word"]),
        changed("14", &["word"]),
        changed("15", &["word"]),
        changed("16", &["at"]),
        changed("17", &["n", "price"]),
        changed("18", &["data"]),
        changed("19", &["f"]),
    ]
    .into()
}

fn shape(finding: &Value) -> String {
    let mut columns: Vec<&str> = finding["columns"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    columns.sort_unstable();
    json!([finding["verdict"], finding["key"], columns]).to_string()
}

async fn compare(pair: &Pair, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let mut all = vec!["compare", "--json", "--settle", "100ms"];
    all.extend(arguments);
    let output = agent::run(pair.environment(), &all).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or(Value::Null), said)
}

fn of<'a>(answer: &'a Value, name: &str) -> &'a Value {
    agent::table(answer, name).unwrap_or(&Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn compare_says_equal_and_exits_with_0() {
    let pair = planted("equal", false).await;
    let (code, answer, said) = compare(&pair, &[]).await;
    assert_eq!((code, &answer["verdict"]), (Some(0), &json!("equal")), "{said}\n{answer:#}");
    let items = of(&answer, "items");
    assert_eq!((items["rows_source"].as_u64(), items["rows_target"].as_u64(), items["rows_compared"].as_u64()), (Some(900), Some(900), Some(900)), "{items:#}");
    assert!(items["verified_through"]["position"].is_string(), "{items:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn compare_finds_every_planted_difference_and_exits_with_1() {
    let pair = planted("planted", true).await;
    let (code, answer, said) = compare(&pair, &[]).await;
    assert_eq!((code, &answer["verdict"]), (Some(1), &json!("different")), "{said}\n{answer:#}");
    let items = of(&answer, "items");
    let found: BTreeSet<String> = items["findings"].as_array().into_iter().flatten().map(shape).collect();
    assert_eq!(found, expected());
    assert_eq!(items["findings_total"], 10);
    let pairs = of(&answer, "pairs");
    assert_eq!(shape(&pairs["findings"][0]), json!(["missing", {"a": "1", "b": "Y"}, []]).to_string());
    assert!(!answer.to_string().contains("word 12"), "no cell value is shown unless asked for");

    let (code, answer, _) = compare(&pair, &["--max-findings", "2", "items"]).await;
    assert_eq!(code, Some(1));
    assert_eq!(answer["tables"].as_array().map(Vec::len), Some(1));
    assert_eq!((of(&answer, "items")["findings"].as_array().map(Vec::len), of(&answer, "items")["findings_total"].as_u64()), (Some(2), Some(10)));
}

#[tokio::test(flavor = "multi_thread")]
async fn compare_exits_with_2_where_it_could_not_look() {
    let pair = planted("trouble", false).await;
    pair.on_source(&["CREATE TABLE lonely (id INT PRIMARY KEY)"]).await;
    let (code, answer, said) = compare(&pair, &[]).await;
    assert_eq!((code, &answer["verdict"]), (Some(2), &json!("unverified")), "{said}\n{answer:#}");
    assert!(of(&answer, "lonely")["unverified"][0]["reason"].as_str().is_some_and(|reason| reason.contains("no such table in the target")), "{answer:#}");

    let (code, _, said) = compare(&pair, &["nowhere"]).await;
    assert_eq!(code, Some(2));
    assert!(said.contains("nowhere"), "{said}");

    for (name, value, words) in [
        ("MYSQL_PASSWORD", "wrong", ["password", "MySQL"]),
        ("MYSQL_PORT", "1", ["127.0.0.1:1", "MySQL"]),
        ("POSTGRES_PASSWORD", "wrong", ["password", "PostgreSQL"]),
        ("POSTGRES_PORT", "1", ["127.0.0.1:1", "PostgreSQL"]),
        ("POSTGRES_DATABASE", "nowhere", ["nowhere", "PostgreSQL"]),
    ] {
        let mut environment = pair.environment();
        environment.retain(|(known, _)| known != name);
        environment.push((name.into(), value.into()));
        let output = agent::run(environment, &["compare", "--json"]).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
        for word in words {
            assert!(said.contains(word), "{name}={value} says: {said}");
        }
        assert!(!said.contains("plumb'line"), "no secret is shown: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_agent_finds_what_was_planted_and_sees_it_mended() {
    let pair = planted("running", false).await;
    let mut agent = Agent::with(&pair, &[]).started().await;
    agent.in_sync(&["items", "pairs"]).await;
    assert_eq!(agent.findings("all").await, Vec::<Value>::new());
    pair.on_target(&PLANTED).await;
    let (status, _) = agent.post("/api/v1/checks", &json!({"full": true})).await;
    assert_eq!(status, 202);
    agent.wait_for("/api/v1/findings?state=open&limit=1000", |answer| answer["total_open"] == 11).await;
    let found: BTreeSet<String> = agent.findings("open").await.iter().filter(|finding| finding["table"] == "running.items").map(shape).collect();
    assert_eq!(found, expected());
    agent.wait_for("/api/v1/tables", |answer| of(answer, "items")["status"] == "diverged").await;

    pair.on_target(&["TRUNCATE items, pairs"]).await;
    pair.on_target(&EQUAL).await;
    agent.post("/api/v1/checks", &json!({"full": true})).await;
    agent.wait_for("/api/v1/findings?state=open&limit=1000", |answer| answer["total_open"] == 0).await;
    agent.in_sync(&["items", "pairs"]).await;
    assert_eq!(agent.findings("resolved").await.len(), 11);
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_someone_else_changes_on_the_target_is_found_while_we_apply() {
    let pair = Pair::shared("others").await;
    pair.on_source(&SOURCE).await;
    let mut agent = Agent::new(&pair).started().await;
    agent.in_sync(&["items", "pairs"]).await;
    pair.on_target(&["UPDATE items SET word = 'not ours' WHERE id = 77"]).await;
    agent.post("/api/v1/checks", &json!({"full": true})).await;
    agent.wait_for("/api/v1/findings?state=open", |answer| answer["total_open"] == 1).await;
    assert_eq!(shape(&agent.findings("open").await[0]), json!(["changed", {"id": "77"}, ["word"]]).to_string());
    // The source changes the row again: what we apply is right, and the finding is gone by itself.
    pair.on_source(&["UPDATE items SET word = 'new' WHERE id = 77"]).await;
    agent.post("/api/v1/checks", &json!({"full": true})).await;
    agent.wait_for("/api/v1/findings?state=open", |answer| answer["total_open"] == 0).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(agent.stop().await, Some(0));
}

/// Starts the agent and waits until its table differs; what it said of the table until then.
async fn said_until_it_differs(agent: &mut Agent) -> BTreeSet<String> {
    agent.start();
    let mut said = BTreeSet::new();
    for _ in 0..6000 {
        let status = agent::table(&agent.get("/api/v1/tables").await, "t").map_or(Value::Null, |table| table["status"].clone());
        said.extend(status.as_str().map(str::to_owned));
        if status == "diverged" {
            return said;
        }
        if status == "lagging" {
            let page = agent.get("/api/v1/page").await;
            assert!(page["cutover"]["ready"] == json!(false) || page.is_null(), "{page:#}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never differs; said: {said:?}\n{}", agent.log_tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_an_old_proof_is_not_taken_for_a_new_one() {
    let services = services::shared().await;
    for by_kafka in [false, true] {
        let pair = Pair::shared(if by_kafka { "oldproofk" } else { "oldproof" }).await;
        pair.on_source(&["CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)"]).await;
        pair.on_target(&["CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)"]).await;
        let mut agent = if by_kafka { kafka::agent(&pair, services).await } else { Agent::with(&pair, &[]) }.started().await;
        agent.in_sync(&["t"]).await;
        assert_eq!(agent.stop().await, Some(0));
        pair.on_source(&["INSERT INTO t VALUES (2)"]).await;
        let said = said_until_it_differs(&mut agent).await;
        assert!(!said.contains("in_sync") && said.contains("lagging"), "{said:?}");
        // What nobody changed is in sync as soon as the stream has come to where the source was.
        pair.on_target(&["INSERT INTO t VALUES (2)"]).await;
        agent.in_sync(&["t"]).await;
        assert_eq!(agent.stop().await, Some(0));
        agent.start();
        agent.in_sync(&["t"]).await;
        assert_eq!(agent.stop().await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_a_table_lags_until_the_target_has_what_the_source_had() {
    let pair = Pair::shared("oldapply").await;
    pair.on_source(&["CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)"]).await;
    let mut agent = Agent::new(&pair).started().await;
    agent.in_sync(&["t"]).await;
    assert_eq!(agent.stop().await, Some(0));
    pair.on_source(&["INSERT INTO t VALUES (2)"]).await;
    // The applier waits for whoever holds the table.
    let mut holder = pair.target().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE").execute(&mut holder).await.expect("the superuser may");
    agent.start();
    let seen = agent.wait_for("/api/v1/tables", |tables| agent::table(tables, "t").is_some()).await;
    assert_eq!(agent::table(&seen, "t").map(|table| &table["status"]), Some(&json!("lagging")), "{seen}");
    for _ in 0..30 {
        let tables = agent.get("/api/v1/tables").await;
        assert_eq!(agent::table(&tables, "t").map(|table| &table["status"]), Some(&json!("lagging")), "{tables}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    sqlx::raw_sql("ROLLBACK").execute(&mut holder).await.expect("ended");
    agent.in_sync(&["t"]).await;
    assert_eq!(agent.stop().await, Some(0));
}
