//! What Linux says of this process, by the names that every Prometheus client uses; absent elsewhere.

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{FloatCounter, FloatGauge, names};

/// What was read; None: the system does not say it.
#[derive(Debug, Default, PartialEq)]
struct Facts {
    cpu_seconds: Option<f64>,
    resident_bytes: Option<f64>,
    virtual_bytes: Option<f64>,
    max_fds: Option<i64>,
    start_seconds: Option<f64>,
}

/// Reads them and registers what is known.
pub fn register(registry: &mut Registry) {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let ticks = ticks(&std::fs::read("/proc/self/auxv").unwrap_or_default());
    let facts = facts(&read("/proc/self/stat"), &read("/proc/self/status"), &read("/proc/self/limits"), &read("/proc/stat"), ticks);
    if let Some(cpu) = facts.cpu_seconds {
        let seconds = FloatCounter::default();
        seconds.inc_by(cpu);
        names::PROCESS_CPU.register(registry, seconds);
    }
    for (name, value) in [
        (names::PROCESS_RESIDENT_MEMORY, facts.resident_bytes),
        (names::PROCESS_VIRTUAL_MEMORY, facts.virtual_bytes),
        (names::PROCESS_START_TIME, facts.start_seconds),
    ] {
        if let Some(value) = value {
            let gauge = FloatGauge::default();
            gauge.set(value);
            name.register(registry, gauge);
        }
    }
    let open = std::fs::read_dir("/proc/self/fd").ok().and_then(|open| i64::try_from(open.count()).ok());
    for (name, value) in [(names::PROCESS_OPEN_FDS, open), (names::PROCESS_MAX_FDS, facts.max_fds)] {
        if let Some(value) = value {
            let gauge = Gauge::<i64>::default();
            gauge.set(value);
            name.register(registry, gauge);
        }
    }
}

/// Clock ticks in a second, from the auxiliary vector that the kernel gives every process: pairs of native words, 17 is AT_CLKTCK.
fn ticks(auxv: &[u8]) -> f64 {
    const AT_CLKTCK: usize = 17;
    const WORD: usize = size_of::<usize>();
    let word = |bytes: &[u8]| bytes.try_into().map(usize::from_ne_bytes).unwrap_or(0);
    auxv.chunks_exact(2 * WORD).map(|pair| (word(&pair[..WORD]), word(&pair[WORD..]))).find(|(key, ticks)| *key == AT_CLKTCK && *ticks > 0).map_or(100.0, |(_, ticks)| ticks as f64)
}

fn facts(stat: &str, status: &str, limits: &str, system: &str, ticks: f64) -> Facts {
    // The fields after the command's name, which is in parentheses and may hold anything. proc(5) counts them from 3.
    let fields: Vec<&str> = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let field = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<f64>().ok());
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<f64>().ok());
    let booted = system.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
    Facts {
        cpu_seconds: field(14).zip(field(15)).map(|(user, system)| (user + system) / ticks),
        resident_bytes: resident.map(|kilobytes| kilobytes * 1024.0),
        virtual_bytes: field(23),
        // `unlimited` is no number: then there is no maximum to show.
        max_fds: limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok()),
        start_seconds: booted.zip(field(22)).map(|(booted, started)| booted + started / ticks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "4242 (a) b (c) S 1 4242 4242 0 -1 4194560 900 0 0 0 150 50 0 0 20 0 9 0 123400 104857600 2048 18446744073709551615 1 1 0";

    #[test]
    fn fields_are_counted_after_the_last_parenthesis() {
        let status = "Name:\ta) b\nVmPeak:\t  999 kB\nVmRSS:\t    2048 kB\n";
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \nMax open files            1024                 524288               files     \n";
        let found = facts(STAT, status, limits, "cpu  1 2 3\nbtime 1700000000\n", 100.0);
        let wanted = Facts { cpu_seconds: Some(2.0), resident_bytes: Some(2_097_152.0), virtual_bytes: Some(104_857_600.0), max_fds: Some(1024), start_seconds: Some(1_700_001_234.0) };
        assert_eq!(found, wanted);
    }

    #[test]
    fn what_the_system_does_not_say_is_absent() {
        assert_eq!(facts("", "", "Max open files            unlimited            unlimited            files\n", "", 100.0), Facts::default());
    }

    #[test]
    fn ticks_come_from_the_kernel() {
        let words = |words: &[usize]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
        assert_eq!(ticks(&words(&[6, 4096, 17, 250, 0, 0])), 250.0);
        assert_eq!(ticks(&words(&[6, 17])), 100.0);
        assert_eq!(ticks(&[1, 2, 3]), 100.0);
    }
}
