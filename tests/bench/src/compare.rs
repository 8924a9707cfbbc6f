//! The comparison of equal tables against reladiff, and how soon the first verdict comes.

use std::process::Command;

use mysql_async::prelude::Queryable;
use std::time::{Duration, Instant};

use plumbline_tests::agent::{self, Agent};
use plumbline_tests::servers::{Mysql, Pair, Postgres};

use crate::machine::{Ran, cpu_of, median, run};
use crate::stream::make;

/// `compare --json` of equal tables; with `--reladiff` the same tables by it, in turn.
pub async fn compare(rows: u64, runs: u64, reladiff: Option<String>) {
    let mysql = Mysql::start(&["--innodb-buffer-pool-size=1G"]).await;
    let postgres = Postgres::start().await;
    let pair = Pair::on(&mysql, &postgres, "bench").await;
    if reladiff.is_some() {
        // MySQL 9.6 and later has MD5, which reladiff asks for, in a component only.
        let mut root = mysql.root().await;
        root.query_drop("INSTALL COMPONENT 'file://component_classic_hashing'").await.expect("the component is there");
        let _ = root.disconnect().await;
    }
    println!("making {rows} rows");
    make(&pair, rows).await;
    let mut copier = Agent::new(&pair).started().await;
    let started = Instant::now();
    while !copier.get("/api/v1/tables").await["tables"][0]["copy"]["done"].as_bool().unwrap_or(false) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    println!("copied in {:.1} s", started.elapsed().as_secs_f64());
    copier.stop().await;
    // Over loopback, as the peer's figures are known: what encryption costs both servers is another question.
    copier.set("MYSQL_SSL_MODE", "disabled");
    let (mut ours, mut theirs, mut peak) = (Vec::new(), Vec::new(), 0.0_f64);
    for round in 0..=runs {
        let environment = copier.environment();
        let ran = tokio::task::block_in_place(|| measured("ours", &pair, &mut agent::command(&environment, &["compare", "--json"])));
        assert_eq!(ran.code, Some(0), "the tables are equal: {}", ran.output);
        peak = peak.max(ran.peak_mib);
        let other = reladiff.as_ref().map(|program| tokio::task::block_in_place(|| measured("reladiff", &pair, &mut peer(program, &pair))));
        if let Some(other) = &other {
            assert_eq!(other.output.trim(), "", "reladiff finds nothing");
        }
        // The first round warms both up.
        if round > 0 {
            ours.push(ran.wall.as_secs_f64());
            theirs.extend(other.map(|other| other.wall.as_secs_f64()));
        }
    }
    let mine = median(ours);
    println!("compare, {rows} equal rows: {mine:.2} s, peak memory {peak:.0} MiB");
    if !theirs.is_empty() {
        let peer = median(theirs);
        println!("reladiff: {peer:.2} s, ratio ours/reladiff {:.2}", mine / peer);
    }
}

/// Runs a command and tells whose processor seconds it took.
fn measured(name: &str, pair: &Pair, command: &mut Command) -> Ran {
    let servers = || [pair.mysql_port, pair.postgres_port].map(|port| cpu_of(&format!("port={port}")));
    let before = servers();
    let ran = run(command);
    // A session's process ends a moment after its client.
    std::thread::sleep(Duration::from_millis(200));
    let [mysql, postgres] = servers();
    println!("{name}: {:.2} s; processor seconds: itself {:.2}, mysqld {:.2}, postgres {:.2}", ran.wall.as_secs_f64(), ran.cpu, mysql - before[0], postgres - before[1]);
    ran
}

fn peer(program: &str, pair: &Pair) -> Command {
    let mut command = Command::new(program);
    command
        .arg(format!("mysql://root@127.0.0.1:{}/{}", pair.mysql_port, pair.name))
        .arg("orders")
        .arg(format!("postgresql://postgres@127.0.0.1:{}/{}", pair.postgres_port, pair.name))
        .args(["orders", "-k", "id", "-j", "4"])
        .args(["customer", "total", "placed", "status", "city", "note", "weight", "flags", "done"].iter().flat_map(|column| ["-c", column]));
    command
}

/// From the start of the agent to the first proof, on a sample of 300,000 rows in six tables that both sides have.
pub async fn first_verdict() {
    let mysql = Mysql::start(&[]).await;
    let postgres = Postgres::start().await;
    let pair = Pair::on(&mysql, &postgres, "bench").await;
    make(&pair, 250_000).await;
    let small: Vec<String> = (0..5).map(|i| format!("CREATE TABLE t{i} AS SELECT * FROM orders LIMIT 10000")).collect();
    for (i, statement) in small.iter().enumerate() {
        pair.on_source(&[statement, &format!("ALTER TABLE t{i} ADD PRIMARY KEY (id)")]).await;
    }
    let mut times = Vec::new();
    for _ in 0..3 {
        let mut agent = Agent::new(&pair);
        let started = Instant::now();
        agent.start();
        loop {
            let proved = agent.status("/livez").await == Some(200)
                && agent.get("/api/v1/tables").await["tables"].as_array().is_some_and(|tables| tables.iter().any(|table| !table["verified_through"].is_null()));
            if proved {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        times.push(started.elapsed().as_secs_f64());
        agent.stop().await;
        pair.on_target(&["DROP SCHEMA plumbline CASCADE", "DROP TABLE orders, t0, t1, t2, t3, t4"]).await;
    }
    println!("start to first verdict, copying included: {:.2} s", median(times));
}
