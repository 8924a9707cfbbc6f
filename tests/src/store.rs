//! A Redis of one's own, whose settings, data and moods a test decides.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use redis::{Cmd, Connection};

use crate::environment::required;
use crate::janitor::{Kept, folder};
use crate::servers::free_port;

const PATIENCE: Duration = Duration::from_secs(30);

/// A `redis-server` that appends to its file every second, as `compose/stack` starts it.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    process: Option<Kept>,
}

impl Store {
    /// Starts an empty one.
    ///
    /// # Panics
    /// Where it does not come up.
    pub fn start() -> Self {
        let mut store = Self { folder: folder("store"), port: free_port(), process: None };
        store.up(&[]);
        store
    }

    /// Starts it again with its data and with these settings besides the usual.
    ///
    /// # Panics
    /// Where it does not come up.
    pub fn up(&mut self, settings: &[&str]) {
        self.begin(settings);
        let deadline = Instant::now() + PATIENCE;
        while self.try_ask(redis::cmd("PING").clone()).is_err() {
            assert!(Instant::now() < deadline, "Redis does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// As [`up`](Self::up), without waiting: it may still load its data.
    ///
    /// # Panics
    /// Where it cannot be started.
    pub fn begin(&mut self, settings: &[&str]) {
        let mut command = Command::new(required("PLUMBLINE_TEST_REDIS_SERVER"));
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]);
        command.args(["--maxmemory-policy", "noeviction", "--dir"]).arg(self.data()).args(settings);
        std::fs::create_dir_all(self.data()).expect("a folder");
        self.process = Some(Kept::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())));
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Kills it as the system would.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Keeps a copy of its data as they are on disk now.
    ///
    /// # Panics
    /// Where it cannot be copied.
    pub fn copy(&self) {
        self.copy_between("data", "copy");
    }

    /// Kills it, and puts the copy in the place of its data.
    ///
    /// # Panics
    /// Where there is no copy.
    pub fn put_back(&mut self) {
        self.kill();
        self.copy_between("copy", "data");
    }

    fn copy_between(&self, from: &str, to: &str) {
        let (from, to) = (self.folder.join(from), self.folder.join(to));
        let _ = std::fs::remove_dir_all(&to);
        let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("`cp` starts");
        assert!(copied.success(), "the data are copied");
    }

    /// A connection of its own.
    ///
    /// # Panics
    /// Where it is refused.
    pub fn connection(&self) -> Connection {
        redis::Client::open(("127.0.0.1", self.port)).and_then(|client| client.get_connection()).expect("Redis takes a connection")
    }

    fn try_ask(&self, cmd: Cmd) -> redis::RedisResult<redis::Value> {
        let mut connection = redis::Client::open(("127.0.0.1", self.port))?.get_connection()?;
        cmd.query(&mut connection)
    }

    /// Asks it something: the words of a command.
    ///
    /// # Panics
    /// Where it refuses.
    pub fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut cmd = Cmd::new();
        cmd.arg(words);
        cmd.query(&mut self.connection()).unwrap_or_else(|error| panic!("Redis refuses {words:?}: {error}"))
    }
}
