//! Real MySQL and PostgreSQL in folders of their own, on free loopback ports.
//!
//! [`shared`] is one pair for all tests of the run; every test works in a [`Pair`] of databases of its own there. [`Mysql::start`] and
//! [`Postgres::start`] give a server of one's own for tests that need other settings, or that stop and start it.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::sync::OnceCell;

use crate::environment::required;
use crate::janitor::{Kept, folder};

/// The password of every account that the tests make. Not that of the superusers, who have none and come in over loopback only.
pub const PASSWORD: &str = "plumb'line \"secret\"";

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A port that was free a moment ago.
///
/// # Panics
/// Where the system has none.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

fn log_to(path: &Path) -> Stdio {
    std::fs::OpenOptions::new().create(true).append(true).open(path).expect("a log file").into()
}

/// A MySQL server.
pub struct Mysql {
    folder: PathBuf,
    settings: Vec<String>,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    process: Option<Kept>,
}

impl Mysql {
    /// Makes and starts a server with these settings besides the usual (`--gtid-mode=OFF`).
    ///
    /// # Panics
    /// Where it does not come up; its log is in the message.
    pub async fn start(settings: &[&str]) -> Self {
        static MADE: OnceCell<PathBuf> = OnceCell::const_new();
        let made = MADE
            .get_or_init(|| async {
                let data = folder("mysql-made").join("data");
                tokio::task::spawn_blocking(move || {
                    let done = Command::new(required("PLUMBLINE_TEST_MYSQLD"))
                        .args(["--no-defaults", "--user=root", "--secure-file-priv=NULL", "--initialize-insecure", "--innodb-redo-log-capacity=16M"])
                        .arg(format!("--datadir={}", data.display()))
                        .output()
                        .expect("`mysqld` starts");
                    assert!(done.status.success(), "mysqld --initialize: {}", String::from_utf8_lossy(&done.stderr));
                    // Every copy is to be a server of its own.
                    let _ = std::fs::remove_file(data.join("auto.cnf"));
                    data
                })
                .await
                .expect("initialised")
            })
            .await;
        let folder = folder("mysql");
        let copied = Command::new("cp").args(["-a", "--reflink=auto"]).arg(made).arg(folder.join("data")).status().expect("`cp` starts");
        assert!(copied.success(), "the data folder is copied");
        let mut server = Self { folder, settings: settings.iter().map(|&setting| setting.to_owned()).collect(), port: free_port(), process: None };
        server.up().await;
        server
    }

    /// Starts it again where [`stop`](Self::stop) left it.
    pub async fn up(&mut self) {
        let log = self.folder.join("log");
        self.process = Some(Kept::spawn(
            Command::new(required("PLUMBLINE_TEST_MYSQLD"))
                .args(["--no-defaults", "--user=root", "--secure-file-priv=NULL", "--mysqlx=OFF", "--bind-address=127.0.0.1", "--skip-name-resolve"])
                .args(["--log-bin=binlog", "--binlog-row-metadata=FULL", "--gtid-mode=ON", "--enforce-gtid-consistency=ON"])
                .args(["--innodb-buffer-pool-size=128M", "--innodb-redo-log-capacity=16M", "--performance-schema=OFF", "--max-connections=200"])
                // The machine does not lose power in a test, and a slow disk is no part of it.
                .args(["--sync-binlog=0", "--innodb-flush-log-at-trx-commit=2"])
                .arg(format!("--datadir={}", self.folder.join("data").display()))
                .arg(format!("--socket={}", self.folder.join("s").display()))
                .arg(format!("--pid-file={}", self.folder.join("pid").display()))
                .arg(format!("--port={}", self.port))
                .arg(format!("--server-id={}", self.port))
                .args(&self.settings)
                .stdin(Stdio::null())
                .stdout(log_to(&log))
                .stderr(log_to(&log)),
        ));
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(mut conn) = mysql_async::Conn::new(self.root_options()).await {
                conn.query_drop("SET SESSION sql_log_bin = 0").await.expect("root may");
                conn.query_drop("CREATE USER IF NOT EXISTS root@'127.0.0.1'").await.expect("root may");
                conn.query_drop("GRANT ALL ON *.* TO root@'127.0.0.1' WITH GRANT OPTION").await.expect("root may");
                let _ = conn.disconnect().await;
                return;
            }
            let alive = self.process.as_mut().is_some_and(Kept::runs);
            assert!(alive && Instant::now() < deadline, "MySQL does not come up: {}", tail(&log));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn root_options(&self) -> mysql_async::Opts {
        mysql_async::OptsBuilder::default().socket(Some(self.folder.join("s").display().to_string())).user(Some("root")).prefer_socket(true).into()
    }

    /// Ends it: in good order, or by SIGKILL.
    pub async fn stop(&mut self, kill: bool) {
        let Some(mut process) = self.process.take() else { return };
        process.signal(if kill { "KILL" } else { "TERM" });
        let deadline = Instant::now() + PATIENCE;
        while process.runs() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A connection as root.
    ///
    /// # Panics
    /// Where it is refused.
    pub async fn root(&self) -> mysql_async::Conn {
        mysql_async::Conn::new(self.root_options()).await.expect("root connects")
    }
}

/// A PostgreSQL server.
pub struct Postgres {
    folder: PathBuf,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    process: Option<Kept>,
}

impl Postgres {
    /// Makes and starts a server.
    ///
    /// # Panics
    /// Where it does not come up; its log is in the message.
    pub async fn start() -> Self {
        let folder = folder("postgres");
        let made = folder.clone();
        tokio::task::spawn_blocking(move || {
            hand_over(&made);
            let done = as_owner(Command::new(Path::new(&required("PLUMBLINE_TEST_PG_BIN")).join("initdb")))
                .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "-D"])
                .arg(made.join("data"))
                .output()
                .expect("`initdb` starts");
            assert!(done.status.success(), "initdb: {}", String::from_utf8_lossy(&done.stderr));
            // The superuser comes in as who he is, everyone else by password.
            let access = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
            std::fs::write(made.join("data/pg_hba.conf"), access).expect("written");
        })
        .await
        .expect("initialised");
        let mut server = Self { folder, port: free_port(), process: None };
        server.up().await;
        server
    }

    /// Starts it again where [`stop`](Self::stop) left it.
    pub async fn up(&mut self) {
        let log = self.folder.join("log");
        self.process = Some(Kept::spawn(
            as_owner(Command::new(Path::new(&required("PLUMBLINE_TEST_PG_BIN")).join("postgres")))
                .arg("-D")
                .arg(self.folder.join("data"))
                .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "max_connections=300"])
                .args(["-c", &format!("port={}", self.port)])
                .stdin(Stdio::null())
                .stdout(log_to(&log))
                .stderr(log_to(&log)),
        ));
        let deadline = Instant::now() + PATIENCE;
        while PgConnection::connect(&self.url("postgres")).await.is_err() {
            let alive = self.process.as_mut().is_some_and(Kept::runs);
            assert!(alive && Instant::now() < deadline, "PostgreSQL does not come up: {}", tail(&log));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends it at once, as a crash would.
    pub async fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.signal("QUIT");
        let deadline = Instant::now() + PATIENCE;
        while process.runs() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// A connection as superuser.
    ///
    /// # Panics
    /// Where it is refused.
    pub async fn root(&self, database: &str) -> PgConnection {
        PgConnection::connect(&self.url(database)).await.expect("the superuser connects")
    }
}

/// PostgreSQL refuses to run as root: then it is the account `PLUMBLINE_TEST_PG_USER`.
fn owner() -> Option<(u32, u32)> {
    let name = crate::environment::optional("PLUMBLINE_TEST_PG_USER")?;
    let accounts = std::fs::read_to_string("/etc/passwd").ok()?;
    let mut fields = accounts.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields.first() == Some(&name.as_str()))?.into_iter().skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").expect("/proc is there")) == 0
}

fn as_owner(mut command: Command) -> Command {
    if is_root()
        && let Some((user, group)) = owner()
    {
        command.uid(user).gid(group).current_dir("/").env("HOME", "/");
    }
    command
}

fn hand_over(folder: &Path) {
    if is_root()
        && let Some((user, group)) = owner()
    {
        std::os::unix::fs::chown(folder, Some(user), Some(group)).expect("root may");
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// The pair that all tests share.
///
/// # Panics
/// Where a server does not come up.
pub async fn shared() -> &'static (Mysql, Postgres) {
    static SHARED: OnceCell<(Mysql, Postgres)> = OnceCell::const_new();
    SHARED.get_or_init(|| async { tokio::join!(Mysql::start(&[]), Postgres::start()) }).await
}

/// A source database and a target database of one test, with accounts that have what the agent needs and no more.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The port of MySQL.
    pub mysql_port: u16,
    /// The port of PostgreSQL.
    pub postgres_port: u16,
    /// The name of both databases and of both accounts.
    pub name: String,
}

impl Pair {
    /// Databases on the shared servers.
    pub async fn shared(name: &str) -> Self {
        let (mysql, postgres) = shared().await;
        Self::on(mysql, postgres, name).await
    }

    /// Databases on these servers.
    ///
    /// # Panics
    /// Where they cannot be made.
    pub async fn on(mysql: &Mysql, postgres: &Postgres, name: &str) -> Self {
        let mut conn = mysql.root().await;
        let password = PASSWORD.replace('\'', "''");
        for sql in [
            format!("CREATE DATABASE {name}"),
            format!("CREATE USER {name}@'127.0.0.1' IDENTIFIED BY '{password}'"),
            format!("GRANT SELECT ON {name}.* TO {name}@'127.0.0.1'"),
            format!("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {name}@'127.0.0.1'"),
        ] {
            conn.query_drop(sql).await.expect("root may");
        }
        let _ = conn.disconnect().await;
        let mut conn = postgres.root("postgres").await;
        for sql in [format!("CREATE ROLE {name} LOGIN PASSWORD '{password}'"), format!("CREATE DATABASE {name} OWNER {name}")] {
            conn.execute(AssertSqlSafe(sql)).await.expect("the superuser may");
        }
        let mut conn = postgres.root(name).await;
        conn.execute(AssertSqlSafe(format!("ALTER SCHEMA public OWNER TO {name}"))).await.expect("the superuser may");
        Self { mysql_port: mysql.port, postgres_port: postgres.port, name: name.to_owned() }
    }

    /// A connection of the team's own application to the source, with all rights.
    ///
    /// # Panics
    /// Where it is refused.
    pub async fn source(&self) -> mysql_async::Conn {
        let options = mysql_async::OptsBuilder::default()
            .ip_or_hostname("127.0.0.1")
            .tcp_port(self.mysql_port)
            .user(Some("root"))
            .db_name(Some(&self.name))
            .prefer_socket(false)
            .init(vec!["SET time_zone = '+00:00'"]);
        mysql_async::Conn::new(options).await.expect("root connects")
    }

    /// A connection to the target, with all rights.
    ///
    /// # Panics
    /// Where it is refused.
    pub async fn target(&self) -> PgConnection {
        let url = format!("postgres://postgres@127.0.0.1:{}/{}?sslmode=disable", self.postgres_port, self.name);
        PgConnection::connect(&url).await.expect("the superuser connects")
    }

    /// Runs statements on the source.
    ///
    /// # Panics
    /// Where one is refused.
    pub async fn on_source(&self, statements: &[&str]) {
        let mut conn = self.source().await;
        for sql in statements {
            conn.query_drop(*sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
        let _ = conn.disconnect().await;
    }

    /// Runs statements on the target.
    ///
    /// # Panics
    /// Where one is refused.
    pub async fn on_target(&self, statements: &[&str]) {
        let mut conn = self.target().await;
        // What is made there is the account's own.
        let role = format!("SET ROLE {}", self.name);
        for sql in std::iter::once(&role.as_str()).chain(statements) {
            conn.execute(AssertSqlSafe(*sql)).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        }
    }

    /// How the agent is told where these are.
    pub fn environment(&self) -> Vec<(String, String)> {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        vec![
            pair("MYSQL_HOST", "127.0.0.1"),
            pair("MYSQL_PORT", &self.mysql_port.to_string()),
            pair("MYSQL_USER", &self.name),
            pair("MYSQL_PASSWORD", PASSWORD),
            pair("MYSQL_DATABASE", &self.name),
            pair("POSTGRES_HOST", "127.0.0.1"),
            pair("POSTGRES_PORT", &self.postgres_port.to_string()),
            pair("POSTGRES_USER", &self.name),
            pair("POSTGRES_PASSWORD", PASSWORD),
            pair("POSTGRES_DATABASE", &self.name),
        ]
    }
}
