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
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks = |i: usize| fields.get(i).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
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
    let mut peak = 0.0_f64;
    let stdout = child.stdout.take().expect("a pipe");
    let reading = std::thread::spawn(move || std::io::read_to_string(stdout).unwrap_or_default());
    let status = loop {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
        peak = peak.max(kib.unwrap_or(0.0) / 1024.0);
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let wall = started.elapsed();
    Ran { wall, peak_mib: peak, code: status.code(), output: reading.join().unwrap_or_default() }
}
