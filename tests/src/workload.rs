//! A seeded random workload: every kind of statement that changes rows, on tables of every kind of key.
//!
//! It says nothing about what the result must be; the oracle takes that from the server.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::servers::Pair;

/// The tables of the workload: bare names, in the order in which they are made.
pub const TABLES: [&str; 8] = ["ints", "pairs", "names", "bins", "keyless", "latin", "Mixed \"Case\" `tick`", "grows"];

const CREATE: [&str; 8] = [
    "CREATE TABLE ints (id BIGINT UNSIGNED PRIMARY KEY, n INT, amount DECIMAL(20,6), f DOUBLE, flag TINYINT(1), note VARCHAR(200), t TIME(6), at DATETIME(6), ts TIMESTAMP(3) NULL, j JSON, bits BIT(12), e ENUM('red','green','blue'), s SET('a','b','c'), y YEAR, d DATE, blobby BLOB)",
    "CREATE TABLE pairs (a INT, b VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, v BIGINT, w VARCHAR(100), PRIMARY KEY (a, b))",
    "CREATE TABLE names (name VARCHAR(60) CHARACTER SET utf8mb4 COLLATE utf8mb4_0900_ai_ci PRIMARY KEY, v INT, c CHAR(10))",
    "CREATE TABLE bins (id BINARY(8) PRIMARY KEY, data VARBINARY(100), txt TEXT)",
    "CREATE TABLE keyless (a INT, b VARCHAR(50), c DECIMAL(8,2))",
    "CREATE TABLE latin (id INT AUTO_INCREMENT PRIMARY KEY, word VARCHAR(50) CHARACTER SET latin1, mid MEDIUMINT UNSIGNED, small SMALLINT)",
    "CREATE TABLE `Mixed \"Case\" ``tick``` (`the id` INT PRIMARY KEY, `select` VARCHAR(30), `UP` INT)",
    "CREATE TABLE grows (id INT PRIMARY KEY, v INT)",
];

/// Random statements from a seed. The state that it keeps is only how wide `grows` is.
pub struct Workload {
    random: StdRng,
    conn: Conn,
    columns_added: u32,
    has_dropped: bool,
}

impl Workload {
    /// Makes the tables and puts `rows` rows into each.
    ///
    /// # Panics
    /// Where a statement is refused.
    pub async fn begin(pair: &Pair, seed: u64, rows: u64) -> Self {
        let mut workload = Self { random: StdRng::seed_from_u64(seed), conn: pair.source().await, columns_added: 0, has_dropped: false };
        for sql in CREATE {
            workload.run(sql).await;
        }
        for _ in 0..rows {
            for table in 0..CREATE.len() {
                let sql = workload.insert(table, "INSERT IGNORE");
                workload.run(&sql).await;
            }
        }
        workload
    }

    /// Takes the table out whose name is hardest, for whoever cannot deal with it.
    pub async fn without_quotes(mut self) -> Self {
        self.run("DROP TABLE `Mixed \"Case\" ``tick```").await;
        self.has_dropped = true;
        self
    }

    /// A second workload on the tables that are there.
    pub async fn join(pair: &Pair, seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), conn: pair.source().await, columns_added: 0, has_dropped: false }
    }

    async fn run(&mut self, sql: &str) {
        if let Err(error) = self.conn.query_drop(sql).await {
            // A lost race for a key or a lock is part of the workload, and undoes at least the statement.
            let code = match &error {
                mysql_async::Error::Server(server) => server.code,
                _ => 0,
            };
            let is_gone = code == 1146 && self.has_dropped;
            assert!(matches!(code, 1062 | 1213 | 1205 | 1305) || is_gone, "{sql}: {error}");
        }
    }

    /// `transactions` random ones, with `ddl` also schema statements and TRUNCATE.
    pub async fn go(&mut self, transactions: usize, ddl: bool) {
        for _ in 0..transactions {
            match self.random.random_range(0..100) {
                0 if ddl => self.grow().await,
                1 if ddl => {
                    let table = ["pairs", "keyless", "latin", "grows"][self.random.random_range(0..4)];
                    self.run(&format!("TRUNCATE TABLE {table}")).await;
                }
                2 => self.bulk().await,
                3..50 => {
                    let sql = self.statement();
                    self.run(&sql).await;
                }
                _ => self.transaction().await,
            }
        }
    }

    async fn grow(&mut self) {
        if self.columns_added > 0 && self.random.random_bool(0.4) {
            self.run(&format!("ALTER TABLE grows DROP COLUMN c{}", self.columns_added)).await;
            self.columns_added -= 1;
        } else if self.columns_added < 20 {
            self.columns_added += 1;
            self.run(&format!("ALTER TABLE grows ADD COLUMN c{} VARCHAR(20) DEFAULT 'new'", self.columns_added)).await;
        }
    }

    async fn bulk(&mut self) {
        let from = self.random.random_range(10_000..1_000_000);
        let values: Vec<String> = (from..from + 300).map(|id| format!("({id}, {}, 'bulk''s \\\\ {id}')", id % 17)).collect();
        self.run(&format!("INSERT IGNORE INTO ints (id, n, note) VALUES {}", values.join(", "))).await;
        self.run(&format!("UPDATE ints SET n = n + 1, note = CONCAT(note, '!') WHERE id BETWEEN {from} AND {}", from + 150)).await;
        self.run(&format!("DELETE FROM ints WHERE id BETWEEN {} AND {}", from + 50, from + 250)).await;
    }

    async fn transaction(&mut self) {
        self.run("BEGIN").await;
        for _ in 0..self.random.random_range(1..6) {
            if self.random.random_bool(0.15) {
                self.run("SAVEPOINT here").await;
                let sql = self.statement();
                self.run(&sql).await;
                if self.random.random_bool(0.5) {
                    self.run("ROLLBACK TO SAVEPOINT here").await;
                }
            } else {
                let sql = self.statement();
                self.run(&sql).await;
            }
        }
        let end = if self.random.random_bool(0.2) { "ROLLBACK" } else { "COMMIT" };
        self.run(end).await;
    }

    fn statement(&mut self) -> String {
        let table = self.random.random_range(0..CREATE.len());
        match self.random.random_range(0..20) {
            0..8 => {
                let verb = ["INSERT IGNORE", "INSERT IGNORE", "REPLACE"][self.random.random_range(0..3)];
                self.insert(table, verb)
            }
            8..10 => self.upsert(),
            10..16 => self.update(table),
            16 => self.change_key(),
            _ => self.delete(table),
        }
    }

    fn small(&mut self) -> u32 {
        self.random.random_range(0..200)
    }

    fn word(&mut self) -> String {
        const WORDS: [&str; 12] =
            ["", "a", "Zoë", "naïve", "quo''te", "back\\\\slash", "tab\\there", "line\\nfeed", "trail  ", "日本語", "🙂 smile", "NULL"];
        let word = WORDS[self.random.random_range(0..WORDS.len())];
        if self.random.random_bool(0.5) { format!("{word}{}", self.small()) } else { word.to_owned() }
    }

    fn quoted(&mut self) -> String {
        if self.random.random_bool(0.1) { "NULL".to_owned() } else { format!("'{}'", self.word()) }
    }

    fn insert(&mut self, table: usize, verb: &str) -> String {
        let rows = if self.random.random_bool(0.3) { self.random.random_range(2..6) } else { 1 };
        let mut values = Vec::new();
        for _ in 0..rows {
            let id = self.small();
            values.push(match table {
                0 => self.ints_row(id),
                1 => {
                    let (b, w) = (self.word(), self.quoted());
                    format!("({}, '{b}', {}, {w})", id % 10, i64::from(id) - 100)
                }
                2 => format!("('name{id}{}', {id}, {})", if id.is_multiple_of(7) { "é" } else { "" }, self.quoted_short()),
                3 => format!("(UNHEX('{:016x}'), UNHEX('00ff{:04x}'), {})", u64::from(id) << 8, self.random.random::<u16>(), self.quoted()),
                4 => format!("({}, {}, {})", id % 20, self.quoted(), self.decimal(2)),
                5 => format!("({}, '{}', {}, {})", id + 1, ["déjà", "ñandú", "plain", "£50"][self.random.random_range(0..4)], self.random.random_range(0..16_777_216), self.random.random::<i16>()),
                6 => format!("({id}, {}, {})", self.quoted_short(), self.small()),
                _ => format!("({id}, {})", self.small()),
            });
        }
        let target = match table {
            6 => "`Mixed \"Case\" ``tick```".to_owned(),
            7 => "grows (id, v)".to_owned(),
            _ => TABLES[table].to_owned(),
        };
        format!("{verb} INTO {target} VALUES {}", values.join(", "))
    }

    fn quoted_short(&mut self) -> String {
        format!("'w{}'", self.small())
    }

    fn decimal(&mut self, scale: usize) -> String {
        let whole: i32 = self.random.random_range(-9999..9999);
        format!("{whole}.{:0scale$}", self.random.random_range(0..10_u32.pow(u32::try_from(scale).unwrap_or(0))))
    }

    fn ints_row(&mut self, id: u32) -> String {
        let hours = self.random.random_range(-838..838);
        let micros = self.random.random_range(0..1_000_000);
        let (n, flag, bits) = (self.random.random::<i32>(), self.random.random_range(0..2), self.random.random_range(0..4096));
        let second = self.random.random_range(0..60);
        let day = self.random.random_range(1..29);
        let year = self.random.random_range(1971..2037);
        format!(
            "({id}, {n}, {}, {}, {flag}, {}, '{hours}:{second:02}:59.{micros:06}', '{year}-03-{day:02} 02:{second:02}:00.{micros:06}', '{year}-10-{day:02} 01:{second:02}:00.{:03}', \
             '{{\"k\": [{n}, 1.50, null, true], \"w\": \"é{id}\"}}', {bits}, '{}', 'a,c', {year}, '{year}-12-{day:02}', UNHEX('00{:08x}'))",
            self.decimal(6),
            f64::from(self.random.random::<i32>()) / 1024.0,
            self.quoted(),
            micros % 1000,
            ["red", "green", "blue"][self.random.random_range(0..3)],
            self.random.random::<u32>(),
        )
    }

    fn upsert(&mut self) -> String {
        let (id, v) = (self.small(), self.small());
        match self.random.random_range(0..3) {
            0 => format!("INSERT INTO grows (id, v) VALUES ({id}, {v}) ON DUPLICATE KEY UPDATE v = v + 1"),
            1 => format!("INSERT INTO names VALUES ('name{id}', {v}, 'up') ON DUPLICATE KEY UPDATE v = {v}, c = 'upd'"),
            _ => format!("INSERT INTO ints (id, n) VALUES ({id}, {v}), ({}, {v}) ON DUPLICATE KEY UPDATE n = n - 1, flag = 1 - flag", id + 1),
        }
    }

    fn update(&mut self, table: usize) -> String {
        let (id, v) = (self.small(), self.small());
        match table {
            0 => format!("UPDATE ints SET amount = -amount, note = {}, t = SEC_TO_TIME({v}), j = JSON_SET(j, '$.k', {v}) WHERE id BETWEEN {id} AND {}", self.quoted(), id + v % 5),
            1 => format!("UPDATE pairs SET v = v + {v}, w = {} WHERE a = {}", self.quoted(), id % 10),
            2 => format!("UPDATE names SET v = {v} WHERE name LIKE 'NAME{}%'", id % 30),
            3 => format!("UPDATE bins SET data = UNHEX('{v:04x}'), txt = REPEAT('long ', {v}) WHERE id = UNHEX('{:016x}')", u64::from(id) << 8),
            4 => format!("UPDATE keyless SET c = c + 1 WHERE a = {} LIMIT 2", id % 20),
            5 => format!("UPDATE latin SET word = 'Übung', small = {v} WHERE id = {id}"),
            6 => format!("UPDATE `Mixed \"Case\" ``tick``` SET `UP` = `UP` + 1, `select` = {} WHERE `the id` = {id}", self.quoted_short()),
            _ => format!("UPDATE grows SET v = {v} WHERE id BETWEEN {id} AND {}", id + 3),
        }
    }

    fn change_key(&mut self) -> String {
        let (from, to) = (self.small(), self.small());
        match self.random.random_range(0..4) {
            0 => format!("UPDATE IGNORE ints SET id = {to}, n = {from} WHERE id = {from}"),
            1 => format!("UPDATE IGNORE pairs SET a = {} WHERE a = {}", to % 10, from % 10),
            2 => format!("UPDATE grows SET id = id + 1 WHERE id > {} ORDER BY id DESC", 100 + from),
            _ => format!("UPDATE names SET name = UPPER(name) WHERE name = 'name{from}'"),
        }
    }

    fn delete(&mut self, table: usize) -> String {
        let id = self.small();
        match table {
            0 => format!("DELETE FROM ints WHERE id BETWEEN {id} AND {}", id + 3),
            1 => format!("DELETE FROM pairs WHERE a = {} LIMIT 3", id % 10),
            2 => format!("DELETE FROM names WHERE name = 'name{id}'"),
            3 => format!("DELETE FROM bins WHERE id = UNHEX('{:016x}')", u64::from(id) << 8),
            4 => format!("DELETE FROM keyless WHERE a = {} LIMIT 2", id % 20),
            5 => format!("DELETE FROM latin WHERE id = {id}"),
            6 => format!("DELETE FROM `Mixed \"Case\" ``tick``` WHERE `the id` = {id}"),
            _ => format!("DELETE FROM grows WHERE id BETWEEN {id} AND {}", id + 2),
        }
    }
}
