//! What the source says of its log, and what follows: how much is still to be read, and for how long at least it will be there.
//! Pure: times come with what is taken in.

use std::collections::BTreeMap;

use plumbline_sdk::{Coordinate, GtidSet, Position};

/// One look at the source's log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogLook {
    /// The log's owner, as positions name it.
    pub server: String,
    /// The numbers of the log files with their sizes, in order; the last one is written to.
    pub files: Vec<(u64, u64)>,
    /// The transactions executed; None: the server has no GTIDs.
    pub executed: Option<GtidSet>,
    /// How long a file is kept after its last write; None: nothing is deleted by itself, or it is not known.
    pub retention_seconds: Option<u64>,
}

impl LogLook {
    fn end(&self) -> Option<Coordinate> {
        self.files.last().map(|&(log, offset)| Coordinate { log, offset })
    }

    /// Whether `position` includes all that the log had at this look.
    pub fn is_in(&self, position: &Position) -> bool {
        caught_up(self, position) || (position.partitions.is_some() || position.server == self.server) && self.end().is_some_and(|end| position.reached(end))
    }

    /// Bytes from `from` to the end, as far as the files are still there; None: `from` is not of this log.
    fn bytes_after(&self, from: Coordinate) -> Option<u64> {
        let end = self.end()?;
        if from > end && from.log >= end.log {
            // Read since this look.
            return (from.log == end.log).then_some(0);
        }
        let rest = |&(log, size): &(u64, u64)| match log.cmp(&from.log) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => size.saturating_sub(from.offset),
            std::cmp::Ordering::Greater => size,
        };
        Some(self.files.iter().map(rest).sum())
    }
}

/// A look older than this says nothing of now.
const FRESH: i64 = 60_000_000;

/// The looks so far.
#[derive(Debug, Clone, Default)]
pub struct SourceLog {
    last: Option<(LogLook, i64)>,
    written: u64,
    /// When each file was last seen to be the one that is written to: it was closed later than that.
    last_active: BTreeMap<u64, i64>,
}

impl SourceLog {
    /// Takes in a look.
    pub fn take(&mut self, look: LogLook, now_micros: i64) {
        let known = self.last.as_ref().filter(|(last, _)| last.server == look.server).and_then(|(last, _)| last.end());
        match known {
            // A log that ends before it ended was reset: what it holds now is new, but nobody knows since when.
            Some(end) if look.end().is_some_and(|now| now >= end) => self.written += look.bytes_after(end).unwrap_or(0),
            _ => self.last_active.clear(),
        }
        if let (Some(&(first, _)), Some(&(active, _))) = (look.files.first(), look.files.last()) {
            self.last_active.retain(|log, _| *log >= first);
            self.last_active.insert(active, now_micros);
        }
        self.last = Some((look, now_micros));
    }

    /// The last look; None: there was none.
    pub fn look(&self) -> Option<&LogLook> {
        self.last.as_ref().map(|(look, _)| look)
    }

    fn fresh(&self, now_micros: i64) -> Option<&LogLook> {
        self.last.as_ref().filter(|(_, seen)| now_micros - seen <= FRESH).map(|(look, _)| look)
    }

    /// The number of the oldest log file that the source had at the last look.
    pub fn oldest(&self) -> Option<u64> {
        self.last.as_ref()?.0.files.first().map(|(log, _)| *log)
    }

    /// How long the source keeps its log, as it last said.
    pub fn retention_seconds(&self) -> Option<u64> {
        self.last.as_ref().and_then(|(look, _)| look.retention_seconds)
    }

    /// Bytes that the source has written since the first look; None: there was none.
    pub fn written_bytes(&self) -> Option<u64> {
        self.last.as_ref().map(|_| self.written)
    }

    /// Bytes between `position` and the end of the log; None: not known.
    pub fn backlog_bytes(&self, position: &Position, now_micros: i64) -> Option<u64> {
        let look = self.fresh(now_micros)?;
        if caught_up(look, position) {
            return Some(0);
        }
        if look.server != position.server || position.at == Coordinate::default() {
            return None;
        }
        look.bytes_after(position.at)
    }

    /// Seconds, at least, until the source may delete the log that a reader at `position` needs next. `commit_micros`: the commit of a
    /// transaction that `position` includes. None: not known, or never.
    pub fn runway_seconds(&self, position: &Position, commit_micros: Option<i64>, now_micros: i64) -> Option<f64> {
        let look = self.fresh(now_micros)?;
        let retention = look.retention_seconds? as f64;
        let (&(first, _), &(active, _)) = (look.files.first()?, look.files.last()?);
        if caught_up(look, position) {
            return Some(retention);
        }
        if look.server != position.server || position.at == Coordinate::default() {
            return None;
        }
        if position.at.log >= active {
            // The file that is written to is never deleted.
            return Some(retention);
        }
        if position.at.log < first {
            return Some(0.0);
        }
        // A file's time runs from when it was closed: that was after it was last seen open, and after every commit in it.
        let closed = self.last_active.get(&position.at.log).copied().max(commit_micros)?;
        Some((retention - (now_micros - closed).max(0) as f64 / 1e6).max(0.0))
    }
}

/// Whether the server has executed nothing that `position` does not include.
fn caught_up(look: &LogLook, position: &Position) -> bool {
    match (&look.executed, &position.gtids) {
        (Some(executed), Some(included)) => executed.is_subset(included),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const SECOND: i64 = 1_000_000;

    fn gtids(last: u64) -> GtidSet {
        format!("{SERVER}:1-{last}").parse().expect("a set")
    }

    fn look(files: &[(u64, u64)]) -> LogLook {
        LogLook { server: SERVER.into(), files: files.to_vec(), executed: None, retention_seconds: Some(3600) }
    }

    fn at(log: u64, offset: u64) -> Position {
        Position { server: SERVER.into(), file: format!("binlog.{log:06}"), at: Coordinate { log, offset }, ..Position::default() }
    }

    fn seen(looks: &[(&[(u64, u64)], i64)]) -> SourceLog {
        let mut log = SourceLog::default();
        for (files, now) in looks {
            log.take(look(files), *now);
        }
        log
    }

    #[test]
    fn a_backlog_goes_over_all_files_from_the_position_on() {
        let log = seen(&[(&[(1, 1000), (2, 500), (3, 200)], 0)]);
        let backlog = |log_number, offset| log.backlog_bytes(&at(log_number, offset), 0);
        assert_eq!(backlog(1, 900), Some(100 + 500 + 200));
        assert_eq!(backlog(3, 150), Some(50));
        assert_eq!(backlog(3, 200), Some(0));
        assert_eq!(backlog(3, 260), Some(0), "read since the look");
        assert_eq!(backlog(4, 10), None, "a file that was not there at the look");
        assert_eq!(log.backlog_bytes(&at(3, 150), 61 * SECOND), None, "an old look says nothing of now");
        assert_eq!(log.backlog_bytes(&Position { server: "other".into(), ..at(3, 150) }, 0), None);
        assert_eq!(SourceLog::default().backlog_bytes(&at(1, 1), 0), None);
    }

    #[test]
    fn who_has_every_transaction_has_no_backlog_wherever_the_file_ends() {
        let mut log = SourceLog::default();
        log.take(LogLook { executed: Some(gtids(5)), ..look(&[(1, 1000), (2, 300)]) }, 0);
        let with = |last| Position { gtids: Some(gtids(last)), ..at(1, 1000) };
        assert_eq!(log.backlog_bytes(&with(5), 0), Some(0));
        assert_eq!(log.backlog_bytes(&with(4), 0), Some(300));
        assert_eq!(log.runway_seconds(&with(5), Some(-9000 * SECOND), 0), Some(3600.0), "a quiet source takes nothing from us");
    }

    #[test]
    fn what_the_source_wrote_adds_up_over_rotations_and_never_falls() {
        let written = |looks: &[&[(u64, u64)]]| seen(&looks.iter().map(|files| (*files, 0)).collect::<Vec<_>>()).written_bytes();
        assert_eq!(written(&[]), None);
        assert_eq!(written(&[&[(1, 700)]]), Some(0), "what was there before is not of this start");
        assert_eq!(written(&[&[(1, 700)], &[(1, 750)]]), Some(50));
        assert_eq!(written(&[&[(1, 700)], &[(1, 800), (2, 30), (3, 7)]]), Some(137));
        assert_eq!(written(&[&[(1, 700)], &[(3, 7)]]), Some(7), "what was purged unseen is not counted");
        assert_eq!(written(&[&[(5, 700)], &[(1, 100)], &[(1, 120)]]), Some(20), "a reset log begins anew");
    }

    #[test]
    fn the_runway_runs_from_when_the_needed_file_was_closed() {
        let hour = 3600 * SECOND;
        // File 1 was written to at 0 s and no longer at 10 s.
        let log = seen(&[(&[(1, 500)], 0), (&[(1, 600), (2, 10)], 10 * SECOND)]);
        let runway = |position: &Position, commit: Option<i64>, now: i64| log.runway_seconds(position, commit, now);
        assert_eq!(runway(&at(2, 4), Some(-hour), 10 * SECOND), Some(3600.0), "the file that is written to stays");
        assert_eq!(runway(&at(1, 4), Some(-hour), 10 * SECOND), Some(3590.0));
        assert_eq!(runway(&at(1, 4), Some(5 * SECOND), 10 * SECOND), Some(3595.0));
        assert_eq!(runway(&at(1, 4), None, 71 * SECOND), None, "an old look says nothing of now");
        let late = seen(&[(&[(7, 500), (8, 1)], 0)]);
        assert_eq!(late.runway_seconds(&at(7, 4), None, 0), None, "nobody saw when it was closed");
        assert_eq!(late.runway_seconds(&at(7, 4), Some(-2 * hour), 0), Some(0.0));
        assert_eq!(late.runway_seconds(&at(6, 4), Some(0), 0), Some(0.0), "what is needed is gone");
        let mut never = SourceLog::default();
        never.take(LogLook { retention_seconds: None, ..look(&[(1, 5), (2, 5)]) }, 0);
        assert_eq!(never.runway_seconds(&at(1, 4), Some(0), 0), None);
    }
}
