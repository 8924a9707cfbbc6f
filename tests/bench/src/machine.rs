//! What the machine says of itself and of processes.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Prints the machine's processors and load: figures mean nothing without them.
pub fn describe() {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!("{cores} cores, load before {}", load.split(' ').next().unwrap_or("?"));
}

/// Processor seconds of this process so far: user and system.
pub fn cpu() -> f64 {
    ticks("/proc/self/stat", [11, 12])
}

/// Processor seconds so far of another process.
pub fn cpu_of_process(pid: u32) -> f64 {
    ticks(&format!("/proc/{pid}/stat"), [11, 12])
}

/// The most that a process had resident so far, in MiB.
pub fn peak_mib(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

/// Processor seconds of all processes that this one has started and seen end.
fn cpu_of_children() -> f64 {
    ticks("/proc/self/stat", [13, 14])
}

fn ticks(stat: &str, places: [usize; 2]) -> f64 {
    let stat = std::fs::read_to_string(stat).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    places.iter().filter_map(|&place| fields.get(place)?.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Processor seconds so far of the processes whose command line has `word` (a server's `port=…`), and of all that came from them.
pub fn cpu_of(word: &str) -> f64 {
    let mut seen: Vec<(u32, u32, f64, f64, bool)> = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let (Ok(stat), Ok(command)) = (std::fs::read_to_string(entry.path().join("stat")), std::fs::read(entry.path().join("cmdline"))) else { continue };
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |i: usize| fields.get(i).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
        let named = String::from_utf8_lossy(&command).split('\0').any(|argument| argument.trim_start_matches('-') == word);
        seen.push((process, number(1) as u32, (number(11) + number(12)) / 100.0, (number(13) + number(14)) / 100.0, named));
    }
    let roots: Vec<u32> = seen.iter().filter(|one| one.4).map(|one| one.0).collect();
    // A server's children have none of their own; those that ended are in its own count of children.
    seen.iter().map(|(process, parent, own, ended, _)| if roots.contains(process) { own + ended } else if roots.contains(parent) { *own } else { 0.0 }).sum()
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// How a process went.
pub struct Ran {
    /// From start to end.
    pub wall: Duration,
    /// Processor seconds of it and of all that it started.
    pub cpu: f64,
    /// Peak resident memory in MiB, sampled.
    pub peak_mib: f64,
    /// Its exit code.
    pub code: Option<i32>,
    /// What it printed.
    pub output: String,
}

/// Runs a command to its end.
pub fn run(command: &mut Command) -> Ran {
    let started = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let before = cpu_of_children();
    let mut peak = 0.0_f64;
    let stdout = child.stdout.take().expect("a pipe");
    let reading = std::thread::spawn(move || std::io::read_to_string(stdout).unwrap_or_default());
    let status = loop {
        peak = peak.max(peak_mib(child.id()));
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let wall = started.elapsed();
    Ran { wall, cpu: cpu_of_children() - before, peak_mib: peak, code: status.code(), output: reading.join().unwrap_or_default() }
}
