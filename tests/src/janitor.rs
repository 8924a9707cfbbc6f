//! A process that outlives the tests by a moment: however they end, it kills the servers they started and removes their folder.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Learns process ids line by line; when its input ends, which it does with our process, it cleans up.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
pids=' '
while read -r what pid; do
    case $what in
        +) pids="$pids$pid " ;;
        -) pids="${pids%% $pid *} ${pids#* $pid }" ;;
    esac
done
for pid in $pids; do kill -s KILL -- "-$pid" 2>/dev/null; done
umount -l "$1"/*/data 2>/dev/null
for try in 1 2 3 4 5; do
    sleep 0.3
    rm -rf "$1" 2>/dev/null && break
done
"#;

struct Janitor {
    folder: PathBuf,
    told: Mutex<std::process::ChildStdin>,
    _process: Child,
}

static JANITOR: OnceLock<Janitor> = OnceLock::new();

fn janitor() -> &'static Janitor {
    JANITOR.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("plumbline-tests-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder for the tests");
        let mut process = Command::new("sh")
            .args(["-c", SCRIPT, "janitor"])
            .arg(&folder)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("`sh` starts");
        let told = Mutex::new(process.stdin.take().expect("a pipe"));
        Janitor { folder, told, _process: process }
    })
}

/// A new folder, removed when the tests end.
///
/// # Panics
/// Where it cannot be made.
pub fn folder(name: &str) -> PathBuf {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = janitor().folder.join(format!("{name}-{number}"));
    std::fs::create_dir_all(&folder).expect("a folder of a test");
    folder
}

fn tell(what: char, pid: u32) {
    let mut told = janitor().told.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = writeln!(told, "{what} {pid}");
}

/// Makes the janitor know a process that somebody else started, the first of its group: it is killed when the tests end.
pub fn adopt(pid: u32) {
    tell('+', pid);
}

/// A child that the janitor knows: killed when it is dropped, or when the tests end in any way.
#[derive(Debug)]
pub struct Kept(Child);

impl Kept {
    /// Starts it, away from the terminal's Ctrl-C.
    ///
    /// # Panics
    /// Where the program cannot be started.
    pub fn spawn(command: &mut Command) -> Self {
        janitor();
        let child = command.process_group(0).spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        tell('+', child.id());
        Self(child)
    }
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
    /// The child.
    pub fn child(&mut self) -> &mut Child {
        &mut self.0
    }
    /// Sends a signal by its name without `SIG`.
    pub fn signal(&self, name: &str) {
        let _ = Command::new("kill").args(["-s", name, &self.id().to_string()]).status();
    }
    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.0.kill();
        // And whom it started itself.
        let _ = Command::new("kill").args(["-s", "KILL", "--", &format!("-{}", self.id())]).stderr(Stdio::null()).status();
        let _ = self.0.wait();
        tell('-', self.0.id());
    }
}
