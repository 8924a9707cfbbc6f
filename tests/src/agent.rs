//! The real agent as a child process.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use plumbline_history::{SqliteHistory, SqliteHistoryConfig};
use plumbline_sdk::plugin::OpCounts;
use plumbline_sdk::{History, Plugin, Sink};
use serde_json::Value;

use crate::environment::choose_tls;
use crate::janitor::{Kept, folder};
use crate::servers::{Pair, free_port};

/// How long the agent may take for what a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The program under test: beside the folder of the test program, or beside this program (the benches).
///
/// # Panics
/// Where it is not there, which cargo does not let happen.
pub fn program() -> PathBuf {
    let tests = std::env::current_exe().expect("this program has a path");
    let beside = tests.parent().expect("a folder");
    let folder = beside.parent().expect("a target folder");
    [folder.join("plumbline-under-test"), beside.join("plumbline-under-test"), beside.join("plumbline")]
        .into_iter()
        .find(|program| program.exists())
        .unwrap_or_else(|| panic!("no agent in `{}`: run the tests by cargo, and build the agent before a bench", folder.display()))
}

/// A command of the agent with this environment and no other `PLUMBLINE_*`, `MYSQL_*`, `POSTGRES_*` or `OTEL_*`.
pub fn command(environment: &[(String, String)], arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.env_clear().env("PATH", "/usr/bin:/bin").envs(environment.iter().map(|(name, value)| (name, value))).args(arguments);
    command
}

/// Runs a command of the agent to its end.
///
/// # Panics
/// Where it does not start.
pub async fn run(environment: Vec<(String, String)>, arguments: &[&str]) -> Output {
    let mut command = command(&environment, arguments);
    tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output().expect("the agent starts")).await.expect("it ends")
}

/// An agent, running or stopped; its data folder stays between runs.
pub struct Agent {
    environment: Vec<(String, String)>,
    /// Its data folder.
    pub data: PathBuf,
    /// Where it listens.
    pub port: u16,
    log: PathBuf,
    process: Option<Kept>,
    client: reqwest::Client,
}

impl Agent {
    /// An agent for this pair that is not started yet. It applies, and checks often.
    pub fn new(pair: &Pair) -> Self {
        Self::with(pair, &[("PLUMBLINE_APPLY", "true")])
    }

    /// An agent for this pair with these settings, not started yet.
    ///
    /// # Panics
    /// Where no port is free.
    pub fn with(pair: &Pair, settings: &[(&str, &str)]) -> Self {
        choose_tls();
        let folder = folder(&pair.name);
        let data = folder.join("data");
        let port = free_port();
        let mut environment = pair.environment();
        environment.push(("PLUMBLINE_DATA_DIR".into(), data.display().to_string()));
        environment.push(("PLUMBLINE_LISTEN".into(), format!("127.0.0.1:{port}")));
        environment.push(("PLUMBLINE_DISCOVERY_INTERVAL".into(), "1s".into()));
        environment.push(("PLUMBLINE_CHECKS_INTERVAL".into(), "2s".into()));
        environment.push(("PLUMBLINE_CHECKS_SETTLE".into(), "1s".into()));
        let mut agent = Self { environment, data, port, log: folder.join("log"), process: None, client: reqwest::Client::new() };
        for (name, value) in settings {
            agent.set(name, value);
        }
        agent
    }

    /// Sets or replaces a variable of its environment, for the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.into(), value.into()));
    }

    /// Its environment.
    pub fn environment(&self) -> Vec<(String, String)> {
        self.environment.clone()
    }

    /// Starts it without waiting for anything.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn start(&mut self) {
        let log = || -> Stdio { std::fs::OpenOptions::new().create(true).append(true).open(&self.log).expect("a log file").into() };
        let process = Kept::spawn(command(&self.environment, &["run"]).stdin(Stdio::null()).stdout(log()).stderr(log()));
        self.process = Some(process);
    }

    /// Starts it and waits until it is ready.
    pub async fn started(mut self) -> Self {
        self.start();
        self.ready().await;
        self
    }

    /// Waits until it is ready.
    ///
    /// # Panics
    /// Where it ends, or is not ready in time.
    pub async fn ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.status("/readyz").await != Some(200) {
            assert!(self.runs(), "the agent ended:\n{}", self.log_tail());
            assert!(Instant::now() < deadline, "the agent is not ready:\n{}", self.log_tail());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Whether it runs.
    pub fn runs(&mut self) -> bool {
        self.process.as_mut().is_some_and(Kept::runs)
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Kept::id)
    }

    /// Kills it as the system would.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Sends it a signal: `STOP`, `CONT`.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn signal(&self, signal: &str) {
        self.process.as_ref().expect("it runs").signal(signal);
    }

    /// Asks it to stop and waits; its exit code.
    ///
    /// # Panics
    /// Where it does not stop in time.
    pub async fn stop(&mut self) -> Option<i32> {
        let mut process = self.process.take()?;
        process.signal("TERM");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(Some(status)) = process.child().try_wait() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the agent does not stop:\n{}", self.log_tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What its history file says, asked while the agent is stopped: by table (bare name) the counters, and the sums
    /// (records, duplicates, control).
    ///
    /// # Panics
    /// Where the file cannot be read.
    pub async fn history(&self) -> (BTreeMap<String, OpCounts>, (u64, u64, u64)) {
        let mut history = SqliteHistory::new(SqliteHistoryConfig { data_dir: self.data.clone(), pipeline: "plumbline".into(), ..SqliteHistoryConfig::default() }).expect("a history");
        history.connect().await.expect("the agent is stopped");
        let remembered = history.remembered().await.expect("a history");
        history.close().await.expect("closed");
        let counters = remembered.counters.into_iter().map(|(table, counts)| (table.table.to_string(), counts)).collect();
        (counters, (remembered.records, remembered.duplicates, remembered.control))
    }

    /// What it wrote to its log, all starts together.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Its address with this path.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The HTTP client of this agent, for what the others do not cover.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// The status of a GET; None where nobody answers.
    pub async fn status(&self, path: &str) -> Option<u16> {
        let answer = self.client.get(self.url(path)).timeout(Duration::from_secs(5)).send().await.ok()?;
        Some(answer.status().as_u16())
    }

    /// The JSON of a GET, whatever its status; null where nobody answers.
    pub async fn get(&self, path: &str) -> Value {
        match self.client.get(self.url(path)).header("accept", "application/json").timeout(Duration::from_secs(30)).send().await {
            Ok(answer) => answer.json().await.unwrap_or(Value::Null),
            Err(_) => Value::Null,
        }
    }

    /// The status and JSON of a POST.
    ///
    /// # Panics
    /// Where nobody answers.
    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let answer = self.client.post(self.url(path)).json(body).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
    }

    /// Waits until `path` answers something that `wanted` accepts, and gives it back.
    ///
    /// # Panics
    /// Where that does not happen in time; the last answer and the log are in the message.
    pub async fn wait_for(&mut self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.get(path).await;
            if wanted(&answer) {
                return answer;
            }
            assert!(self.runs(), "the agent ended:\n{}", self.log_tail());
            assert!(Instant::now() < deadline, "`{path}` never became what is waited for; last: {answer:#}\nlog:\n{}", self.log_tail());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until every one of these tables is in sync and proved equal.
    ///
    /// # Panics
    /// Where that does not happen in time; the tables that are not are in the message.
    pub async fn in_sync(&mut self, tables: &[&str]) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.get("/api/v1/tables").await;
            let proved = |name: &str| table(&answer, name).is_some_and(|table| table["status"] == "in_sync" && !table["verified_through"].is_null());
            let others: Vec<&Value> = tables.iter().filter(|&&name| !proved(name)).map(|name| table(&answer, name).unwrap_or(&Value::Null)).collect();
            if others.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "not in sync and proved: {others:#?}\nlog:\n{}", self.log_tail());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until nothing is pending, twice in a row.
    pub async fn caught_up(&mut self) {
        for _ in 0..2 {
            self.wait_for("/api/v1/tables", |answer| answer["tables"].as_array().is_some_and(|tables| tables.iter().all(|table| table["pending"] == 0))).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    /// The findings of a state: `open`, `resolved` or `all`.
    pub async fn findings(&self, state: &str) -> Vec<Value> {
        let answer = self.get(&format!("/api/v1/findings?state={state}&limit=1000")).await;
        answer["findings"].as_array().cloned().unwrap_or_default()
    }
}

/// The table of this bare name in an answer of `/api/v1/tables`.
pub fn table<'a>(answer: &'a Value, name: &str) -> Option<&'a Value> {
    answer["tables"].as_array()?.iter().find(|table| table["table"].as_str().and_then(|full| full.split_once('.')).is_some_and(|(_, bare)| bare == name))
}
