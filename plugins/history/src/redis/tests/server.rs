//! A Redis of the test's own, and a wire to it that can be cut in bad moments.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// A `redis-server` process in a folder of its own; it ends with this value.
pub(super) struct RedisServer {
    child: Option<Child>,
    pub port: u16,
    folder: TempDir,
    args: Vec<String>,
    password: Option<&'static str>,
}

#[allow(clippy::disallowed_methods, reason = "tests find their servers by the environment")]
fn program() -> OsString {
    std::env::var("PLUMBLINE_TEST_REDIS_SERVER").map_or_else(|_| "redis-server".into(), OsString::from)
}

impl RedisServer {
    pub(super) fn start() -> Self {
        Self::with(&[])
    }

    /// With more settings, that outrank the usual ones.
    pub(super) fn with(more: &[&str]) -> Self {
        let folder = TempDir::new().expect("a folder");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let mut args: Vec<String> = ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction", "--bind", "127.0.0.1"].map(String::from).into();
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        let mut server = Self { child: None, port, folder, args, password: None };
        server.start_again();
        server
    }

    pub(super) fn with_password(password: &'static str) -> Self {
        let mut server = Self::with(&[]);
        server.password = Some(password);
        redis::cmd("CONFIG").arg(&["SET", "requirepass", password]).query::<()>(&mut redis::Client::open(("127.0.0.1", server.port)).expect("a client").get_connection().expect("a connection")).expect("set");
        server
    }

    pub(super) fn start_again(&mut self) {
        let log = File::options().create(true).append(true).open(self.dir().join("log")).expect("a log");
        let started = Command::new(program())
            .arg("--port")
            .arg(self.port.to_string())
            .args(["--dir".as_ref(), self.dir().as_os_str()])
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn();
        let child = match started {
            Ok(child) => child,
            Err(error) => panic!("these tests want `redis-server` 7 or newer in PATH, or its path in `PLUMBLINE_TEST_REDIS_SERVER`: {:?} does not start: {error}", program()),
        };
        self.child = Some(child);
        let patience = Instant::now() + Duration::from_secs(30);
        while self.try_call("PING", &[]).is_err() {
            let ended = self.child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|status| status.is_some()));
            assert!(!ended && Instant::now() < patience, "`redis-server` does not answer: {}", std::fs::read_to_string(self.dir().join("log")).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// As `kill -9`.
    pub(super) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(super) fn dir(&self) -> &Path {
        self.folder.path()
    }

    fn try_call(&self, command: &str, args: &[&str]) -> redis::RedisResult<redis::Value> {
        let url = format!("redis://{}127.0.0.1:{}", self.password.map(|password| format!(":{password}@")).unwrap_or_default(), self.port);
        let mut conn = redis::Client::open(url)?.get_connection_with_timeout(Duration::from_secs(5))?;
        redis::cmd(command).arg(args).query(&mut conn)
    }

    pub(super) fn call(&self, command: &str, args: &[&str]) -> redis::Value {
        self.try_call(command, args).unwrap_or_else(|error| panic!("`{command}` failed: {error}"))
    }

    /// CPU that the server has used.
    pub(super) fn cpu_seconds(&self) -> f64 {
        let redis::Value::BulkString(text) = self.call("INFO", &["cpu"]) else { return f64::NAN };
        let text = String::from_utf8_lossy(&text).into_owned();
        let used = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.parse::<f64>().ok()).unwrap_or(f64::NAN);
        used("used_cpu_user:") + used("used_cpu_sys:")
    }

    /// A copy of what is on disk; the server must be down.
    pub(super) fn save_files(&self) -> TempDir {
        let copy = TempDir::new().expect("a folder");
        copy_folder(&self.dir().join("appendonlydir"), &copy.path().join("appendonlydir")).expect("copied");
        copy
    }

    /// Puts a copy back; the server must be down.
    pub(super) fn put_back(&self, copy: &TempDir) {
        let place = self.dir().join("appendonlydir");
        std::fs::remove_dir_all(&place).expect("removed");
        copy_folder(&copy.path().join("appendonlydir"), &place).expect("copied");
    }

    /// The newest part of the append-only file.
    pub(super) fn tail_file(&self) -> PathBuf {
        let files = std::fs::read_dir(self.dir().join("appendonlydir")).expect("the folder of the append-only file");
        files.filter_map(|file| Some(file.ok()?.path())).filter(|path| path.to_string_lossy().ends_with(".incr.aof")).max().expect("a tail")
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to)?;
    for file in std::fs::read_dir(from)? {
        let file = file?;
        std::fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}

/// What a wire does with the next script call.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(u8)]
pub(super) enum Mood {
    /// Carries the question, and cuts when the answer comes.
    LoseAnswer = 1,
    /// Keeps the question until [`Wire::release`], while newer connections are carried.
    Hold = 2,
}

/// A proxy before a server.
pub(super) struct Wire {
    pub port: u16,
    mood: Arc<AtomicU8>,
    release: Arc<Notify>,
    /// Told when a held question has arrived and its answer has come.
    released: Arc<Notify>,
}

impl Wire {
    pub(super) async fn to(server: u16) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let wire = Self { port, mood: Arc::default(), release: Arc::default(), released: Arc::default() };
        let (mood, release, released) = (Arc::clone(&wire.mood), Arc::clone(&wire.release), Arc::clone(&wire.released));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (mood, release, released) = (Arc::clone(&mood), Arc::clone(&release), Arc::clone(&released));
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
                    let _ = carry(client, server, &mood, &release, &released).await;
                });
            }
        });
        wire
    }

    /// Once, for the next call of `write.lua` (or another one that comes next).
    pub(super) fn next_is(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::SeqCst);
    }

    /// Lets a held question through and waits until it was answered.
    pub(super) async fn release(&self) {
        self.release.notify_one();
        self.released.notified().await;
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, mood: &AtomicU8, release: &Notify, released: &Notify) -> io::Result<()> {
    let (mut asked, mut told) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let read = read?;
                if read == 0 {
                    return Ok(());
                }
                let script = asked[..read].windows(7).any(|word| word == b"EVALSHA");
                let now = if script { mood.swap(0, Ordering::SeqCst) } else { 0 };
                if now == Mood::Hold as u8 {
                    release.notified().await;
                }
                server.write_all(&asked[..read]).await?;
                if now == Mood::LoseAnswer as u8 {
                    // The whole question is through when its answer begins.
                    loop {
                        tokio::select! {
                            more = client.read(&mut asked) => server.write_all(&asked[..more?]).await?,
                            read = server.read(&mut told) => { read?; return Ok(()); }
                        }
                    }
                }
                if now == Mood::Hold as u8 {
                    let answered = server.read(&mut told).await;
                    released.notify_one();
                    answered?;
                    return Ok(());
                }
            }
            read = server.read(&mut told) => {
                let read = read?;
                if read == 0 {
                    return Ok(());
                }
                client.write_all(&told[..read]).await?;
            }
        }
    }
}
