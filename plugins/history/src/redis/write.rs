//! A batch as the arguments of one call: pure but for the clock that it is given.

use std::collections::BTreeMap;

use plumbline_sdk::plugin::OpCounts;
use plumbline_sdk::{CopyMark, Error, Event, Position, Result, TableId};
use redis::Cmd;
use xxhash_rust::xxh3::Xxh3;

use super::group::Moved;
use super::keys::{Keys, table_name};
use super::record;
use super::script::Call;
use crate::tally::{DAY_MICROS, KeptEvent, Tally};

/// Where the store stands, as we believe it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Belief {
    pub store: String,
    pub epoch: u64,
    /// Of one opening: two agents that took the same epoch of a store that went back are told apart by it.
    pub owner: String,
    /// Writes since the beginning.
    pub writes: u64,
    /// The position as stored, to compare with.
    pub stored: String,
    pub position: Option<Position>,
    /// Changes since the beginning.
    pub changes: u64,
}

/// All that one batch changes.
pub(super) struct Write<'a> {
    pub tally: Tally,
    pub days: Vec<(i64, BTreeMap<TableId, OpCounts>)>,
    /// Oldest first, numbered without a gap.
    pub events: Vec<KeptEvent>,
    pub copy: Option<&'a CopyMark>,
    /// Where several agents share the line: the partitions that the batch moves.
    pub moved: Option<Vec<Moved>>,
    /// Tables found and gone, findings; others are skipped.
    pub news: Vec<&'a Event>,
    pub now_micros: i64,
    pub keep_events: u64,
    pub keep_findings: u64,
    pub keep_days: u32,
}

impl Write<'_> {
    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        if let Some(moved) = &self.moved {
            // That the position says more of the same partitions is nobody else's concern.
            return self.tally.records == 0 && moved.is_empty() && self.copy.is_none() && self.news.is_empty();
        }
        self.tally == Tally::default() && self.copy.is_none() && self.news.is_empty()
    }
}

/// The call, and what it leads to.
pub(super) struct Packed {
    pub cmd: Cmd,
    /// Names this write of this batch at this place: a store whose last write has it has taken the batch.
    pub token: String,
    /// What we believe once it is written.
    pub after: Belief,
    /// Where the line is shared: the partitions that it moves.
    pub moved: Vec<Moved>,
}

/// The arguments in the order in which `write.lua` takes them: store, epoch, owner, writes, position before; position after, five sums; the clock and
/// what to keep; partitions, counters, days, copy, news, events; the token.
pub(super) fn pack(call: &Call, keys: &Keys, base: &Belief, write: Write<'_>) -> Result<Packed> {
    let Write { tally, days, .. } = &write;
    let today = write.now_micros.div_euclid(DAY_MICROS);
    let oldest = today - i64::from(write.keep_days);
    let expires = |day: i64| (day + 1 + i64::from(write.keep_days)) * (DAY_MICROS / 1_000_000);
    let mut day_keys = Vec::with_capacity(days.len() + 1);
    for day in days.iter().map(|(day, _)| *day).chain(write.copy.map(|_| today)) {
        day_keys.push(keys.day(&date(day)));
    }
    let after = match &tally.position {
        Some(position) => to_text(position)?,
        None => base.stored.clone(),
    };

    let mut out = Args { cmd: call.begin(keys, &day_keys), token: Xxh3::new() };
    let epoch = if write.moved.is_some() { String::new() } else { base.epoch.to_string() };
    out.arg(&base.store).arg(epoch).arg(&base.owner).arg(base.writes).arg(&base.stored).arg(&after);
    for sum in [tally.records, tally.changes, tally.duplicates, tally.control, tally.transactions] {
        out.arg(sum);
    }
    // Of the moment, not of the batch: the same batch sent again has another clock.
    out.loose(write.now_micros).loose(write.keep_events).loose(write.keep_findings).loose(oldest);
    let moved = write.moved.as_deref().unwrap_or_default();
    out.loose(moved.len());
    for partition in moved {
        out.loose(&partition.name).loose(&partition.before).loose(&partition.after).loose(&partition.memory);
    }
    out.counts(&tally.counts);
    out.loose(days.len());
    for (day, counts) in days {
        out.loose(day).loose(expires(*day));
        out.counts(counts);
    }
    match write.copy {
        Some(copy) => out.arg(1).arg(table_name(&copy.table)).arg(copy.rows_done).loose(today).loose(expires(today)),
        None => out.arg(0),
    };
    out.news(&write.news)?;
    out.events(&write.events);
    let token = format!("{:032x}", out.token.digest128());
    out.cmd.arg(&token);

    let after = Belief {
        writes: base.writes + 1,
        stored: after,
        position: tally.position.clone().or_else(|| base.position.clone()),
        changes: base.changes + tally.changes,
        ..base.clone()
    };
    Ok(Packed { cmd: out.cmd, token, after, moved: write.moved.unwrap_or_default() })
}

/// A UTC day as `2026-01-31`.
pub(super) fn date(day: i64) -> String {
    let midnight = jiff::Timestamp::from_second(day.saturating_mul(86_400)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    midnight.strftime("%Y-%m-%d").to_string()
}

fn to_text(position: &Position) -> Result<String> {
    serde_json::to_string(position).map_err(|error| Error::fatal("a position cannot be written as JSON").caused_by(error))
}

/// The command as it grows, and the hash of what makes its batch.
struct Args {
    cmd: Cmd,
    token: Xxh3,
}

impl Args {
    fn arg(&mut self, value: impl ToString) -> &mut Self {
        let text = value.to_string();
        self.bytes(text.as_bytes())
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.token.update(&(bytes.len() as u64).to_le_bytes());
        self.token.update(bytes);
        self.cmd.arg(bytes);
        self
    }

    /// An argument that is not part of the token.
    fn loose(&mut self, value: impl ToString) -> &mut Self {
        self.cmd.arg(value.to_string());
        self
    }

    fn counts(&mut self, counts: &BTreeMap<TableId, OpCounts>) {
        self.loose(counts.len());
        for (table, counts) in counts {
            self.loose(table_name(table));
            for count in counts {
                self.loose(count);
            }
        }
    }

    fn news(&mut self, news: &[&Event]) -> Result<()> {
        self.arg(news.len());
        for event in news {
            match event {
                Event::TableFound(table) | Event::TableChanged(table) => self.arg("found").arg(table_name(&table.id)),
                Event::TableGone(table) => self.arg("gone").arg(table_name(table)),
                Event::Finding(finding) if finding.resolved => self.arg("resolved").arg(record::identity(finding)),
                Event::Finding(finding) => {
                    let text = serde_json::to_string(finding).map_err(|error| Error::fatal("a finding cannot be written as JSON").caused_by(error))?;
                    self.arg("open").arg(table_name(&finding.table)).arg(finding.verdict).arg(record::identity(finding)).arg(text)
                }
                Event::Change(_) | Event::Schema(_) | Event::Health(_) => {
                    return Err(Error::fatal("what is no news stands among the news of a batch"));
                }
            };
        }
        Ok(())
    }

    /// How many, the number of the first, and blocks: how many each has, and what it is.
    fn events(&mut self, events: &[KeptEvent]) {
        self.arg(events.len());
        let Some(first) = events.first() else { return };
        self.arg(first.number).arg(events.len().div_ceil(record::BLOCK));
        let (mut table, mut name) = (&first.table, table_name(&first.table));
        let mut block = record::Block::default();
        for chunk in events.chunks(record::BLOCK) {
            for event in chunk {
                if event.table != *table {
                    (table, name) = (&event.table, table_name(&event.table));
                }
                block.add(event, &name);
            }
            self.arg(chunk.len()).bytes(block.bytes());
            block.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::script::Calls;

    fn belief() -> Belief {
        Belief { store: "s".into(), epoch: 1, owner: "o".into(), writes: 4, stored: String::new(), position: None, changes: 9 }
    }

    fn write(now_micros: i64, records: u64) -> Write<'static> {
        let tally = Tally { records, control: records, ..Tally::default() };
        Write { tally, days: Vec::new(), events: Vec::new(), copy: None, moved: None, news: Vec::new(), now_micros, keep_events: 1, keep_findings: 1, keep_days: 1 }
    }

    #[test]
    fn the_same_batch_at_the_same_place_has_the_same_token_at_any_time() {
        let (calls, keys) = (Calls::new(), Keys::new("plumbline", "p"));
        let token = |base: &Belief, write: Write<'_>| pack(&calls.write, &keys, base, write).expect("packed").token;
        let first = token(&belief(), write(1, 3));
        assert_eq!(first, token(&belief(), write(86_400_000_000 * 9, 3)));
        assert_ne!(first, token(&belief(), write(1, 4)));
        assert_ne!(first, token(&Belief { writes: 5, ..belief() }, write(1, 3)));
        assert_ne!(first, token(&Belief { owner: "other".into(), ..belief() }, write(1, 3)));
    }

    #[test]
    fn days_are_named_by_date() {
        assert_eq!((date(0).as_str(), date(20_000).as_str()), ("1970-01-01", "2024-10-04"));
    }
}
