//! The live page in a real browser.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use plumbline_tests::agent::Agent;
use plumbline_tests::environment::required;
use plumbline_tests::janitor::{Kept, folder};
use plumbline_tests::servers::{Pair, free_port};
use plumbline_tests::services;
use serde_json::{Value, json};

use crate::kafka;

/// A headless Chromium by the W3C WebDriver protocol; as much of it as the tests need.
struct Browser {
    client: reqwest::Client,
    session: String,
    _driver: Kept,
}

impl Browser {
    async fn open(width: u32, height: u32) -> Self {
        let port = free_port();
        let driver = Kept::spawn(
            Command::new(required("PLUMBLINE_TEST_CHROMEDRIVER")).arg(format!("--port={port}")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()),
        );
        let client = reqwest::Client::new();
        let profile = folder("chromium");
        let wanted = json!({"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:loggingPrefs": {"browser": "ALL"}, "goog:chromeOptions": {
            "binary": required("PLUMBLINE_TEST_CHROMIUM"),
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", format!("--window-size={width},{height}"), format!("--user-data-dir={}", profile.display())],
        }}}});
        let root = format!("http://127.0.0.1:{port}/session");
        let deadline = Instant::now() + Duration::from_secs(60);
        let answer: Value = loop {
            if let Ok(answer) = client.post(&root).json(&wanted).send().await {
                break answer.json().await.expect("JSON");
            }
            assert!(Instant::now() < deadline, "chromedriver does not come up");
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let id = answer["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {answer:#}"));
        Self { client, session: format!("{root}/{id}"), _driver: driver }
    }

    async fn ask(&self, what: &str, body: Value) -> Value {
        let answer: Value = self.client.post(format!("{}/{what}", self.session)).json(&body).send().await.expect("an answer").json().await.expect("JSON");
        assert!(answer["value"]["error"].is_null(), "{what}: {answer:#}");
        answer["value"].clone()
    }

    async fn go(&self, url: &str) {
        self.ask("url", json!({ "url": url })).await;
    }

    async fn run(&self, script: &str) -> Value {
        self.ask("execute/sync", json!({ "script": script, "args": [] })).await
    }

    async fn text(&self) -> String {
        self.run("return document.body.innerText").await.as_str().unwrap_or_default().to_owned()
    }

    async fn shows(&self, words: &[&str]) -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let text = self.text().await;
            if words.iter().all(|word| text.contains(word)) {
                return text;
            }
            assert!(Instant::now() < deadline, "the page never shows {words:?}:\n{text}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// What the page complained about.
    async fn errors(&self) -> Vec<String> {
        let log = self.ask("se/log", json!({"type": "browser"})).await;
        log.as_array().into_iter().flatten().filter(|entry| entry["level"] == "SEVERE").map(|entry| entry["message"].to_string()).collect()
    }

    async fn close(self) {
        let _ = self.client.delete(&self.session).send().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_tables_and_moves_by_itself() {
    let pair = Pair::shared("seen").await;
    pair.on_source(&["CREATE TABLE orders (id INT PRIMARY KEY, v INT)", "INSERT INTO orders VALUES (1, 1)", "CREATE TABLE customers (id INT PRIMARY KEY)"]).await;
    let mut agent = Agent::new(&pair).started().await;
    agent.in_sync(&["orders", "customers"]).await;
    let browser = Browser::open(1280, 900).await;
    browser.go(&agent.url("/")).await;
    browser.shows(&["orders", "customers", "proved equal"]).await;
    // By itself: no reload from here on.
    browser.run("window.notReloaded = true").await;
    pair.on_source(&["INSERT INTO orders VALUES (2, 2), (3, 3)"]).await;
    pair.on_source(&["CREATE TABLE fresh (id INT PRIMARY KEY)"]).await;
    browser.shows(&["fresh", "3 tables proved equal"]).await;
    pair.on_target(&["DELETE FROM orders WHERE id = 2"]).await;
    agent.post("/api/v1/checks", &json!({"full": true})).await;
    browser.shows(&["1 missing"]).await;
    assert_eq!(browser.run("return window.notReloaded").await, json!(true));
    assert_eq!(browser.errors().await, Vec::<String>::new());
    browser.close().await;
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_kafka_the_page_says_who_feeds_it_who_reads_what_and_that_a_paused_connector_brings_nothing() {
    let services = services::shared().await;
    let pair = Pair::shared("seenfed").await;
    for name in ["orders", "customers"] {
        pair.on_source(&[&format!("CREATE TABLE {name} (id INT PRIMARY KEY)"), &format!("INSERT INTO {name} VALUES (1)")]).await;
        pair.on_target(&[&format!("CREATE TABLE {name} (id INT PRIMARY KEY)"), &format!("INSERT INTO {name} VALUES (1)")]).await;
    }
    let mut agent = kafka::agent(&pair, services).await.started().await;
    agent.in_sync(&["orders", "customers"]).await;
    let browser = Browser::open(420, 900).await;
    browser.go(&agent.url("/")).await;
    let text = browser.shows(&["All 2 tables proved equal", "plumbline-seenfed ✔ running", "task 0 ✔ running", "Records behind"]).await;
    assert!(!text.contains("not configured") && !text.contains("Read by"), "what is not there is not shown:\n{text}");
    let wide = browser.run("return document.documentElement.scrollWidth - window.innerWidth").await;
    assert!(wide.as_i64().is_some_and(|pixels| pixels <= 0), "the page is {wide} pixels too wide");

    // Another agent takes its share: each partition has a reader, by address.
    let mut other = kafka::agent(&pair, services).await;
    other.start();
    let text = browser.shows(&["Read by", &format!("127.0.0.1:{}", other.port), &format!("127.0.0.1:{} (this one)", agent.port)]).await;
    assert!(text.contains("cares for the connector"), "{text}");
    other.ready().await;
    assert_eq!(other.stop().await, Some(0));

    // What was proved before a pause is still true, and no answer to whether one may cut over.
    assert_eq!(agent.post("/api/v1/connectors/plumbline-seenfed/pause", &Value::Null).await.0, 202);
    let text = browser.shows(&["is paused: nothing new comes until it is resumed", "Cut over now: no, the connector plumbline-seenfed is paused", "plumbline-seenfed ▲ paused"]).await;
    assert!(text.find("is paused").zip(text.find("proved equal")).is_some_and(|(paused, proved)| paused < proved), "{text}");
    assert_eq!(agent.get("/api/v1/cutover").await["blockers"][0]["reason"], "line_stopped");
    assert_eq!(agent.post("/api/v1/connectors/plumbline-seenfed/resume", &Value::Null).await.0, 202);
    browser.shows(&["plumbline-seenfed ✔ running", "Cut over now: yes"]).await;
    assert_eq!(browser.errors().await, Vec::<String>::new());
    browser.close().await;
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrow_page_does_not_scroll_sideways_and_names_are_text() {
    let pair = Pair::shared("narrow").await;
    pair.on_source(&["CREATE TABLE `<img src=x onerror=alert(1)>` (id INT PRIMARY KEY)", "CREATE TABLE a_table_with_a_name_that_is_as_long_as_names_may_be_in_mysql_64 (id INT PRIMARY KEY)"]).await;
    let mut agent = Agent::with(&pair, &[]).started().await;
    agent.wait_for("/api/v1/tables", |answer| answer["tables"].as_array().is_some_and(|tables| tables.len() == 2)).await;
    let browser = Browser::open(420, 800).await;
    browser.go(&agent.url("/")).await;
    browser.shows(&["<img src=x onerror=alert(1)>"]).await;
    assert_eq!(browser.run("return document.querySelector('img[src=x]') === null").await, json!(true));
    let wide = browser.run("return document.documentElement.scrollWidth - window.innerWidth").await;
    assert!(wide.as_i64().is_some_and(|pixels| pixels <= 0), "the page is {wide} pixels too wide");
    assert_eq!(browser.errors().await, Vec::<String>::new());
    browser.close().await;
    assert_eq!(agent.stop().await, Some(0));
}
