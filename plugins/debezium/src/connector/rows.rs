//! The existing rows of tables that were added to a connector: asked for by a signal, begun, read. Pure: the time comes in.
//!
//! A task that still has the former list of tables must not take the signal: it would drop rows that changed meanwhile. So a table is asked for when
//! the connector has told that it started since. And what was asked for can be lost: an agent may end between the new list and the signal, Connect
//! before it has stored how far it read. So the connector's settings keep which tables were added ([`ADDED`]), and a table is asked for until the
//! connector tells of its end. What it tells are Debezium's notifications (`notification.enabled.channels=sink`), in a topic of one partition.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use plumbline_sdk::TableId;
use serde::Deserialize;

use crate::connect::Config;

/// The setting of ours that keeps, as JSON, each table that was added and the offset in the topic of notifications from which on its rows are told of.
pub const ADDED: &str = "plumbline.added";

/// The connector looks for signals every second, and a source that nobody writes to is heard of every four: what has not begun by then was lost.
pub const TAKEN_UP: Duration = Duration::from_secs(30);
/// Connect stores every minute how far rows were read: what was silent for so long, and is not stored, was lost.
const LOST: Duration = Duration::from_secs(180);

/// What a connector tells of the rows that it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Where it stands in the topic.
    offset: u64,
    /// The tables, with commas between and around them.
    tables: String,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// The connector itself started; of no table.
    Started,
    Begun,
    Read,
    NotRead(Why),
}

/// Why a connector does not read a table's existing rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It has no key, in whose order they would be read.
    NoKey,
    /// Reading was ended by somebody.
    Aborted,
    /// The connector says no more.
    Failed,
}

/// A notification, with or without its Connect schema.
#[derive(Deserialize)]
#[serde(untagged)]
enum Record {
    Wrapped { payload: Notification },
    Plain(Notification),
}

#[derive(Deserialize)]
struct Notification {
    aggregate_type: String,
    #[serde(rename = "type")]
    kind: String,
    additional_data: BTreeMap<String, Option<String>>,
}

impl Told {
    /// Reads a notification; None: it tells of something else.
    pub fn read(offset: u64, text: &[u8]) -> Option<Self> {
        let (Record::Wrapped { payload: told } | Record::Plain(told)) = serde_json::from_slice(text).ok()?;
        match told.aggregate_type.as_str() {
            // Told at every start, as skipped where there was no need of one.
            "Initial Snapshot" => return Some(Self { offset, tables: String::new(), what: What::Started }),
            "Incremental Snapshot" => {}
            _ => return None,
        }
        let field = |name: &str| told.additional_data.get(name).and_then(Option::as_deref);
        let (names, what) = match told.kind.as_str() {
            "TABLE_SCAN_COMPLETED" => {
                let what = match field("status") {
                    Some("SUCCEEDED" | "EMPTY") => What::Read,
                    Some("NO_PRIMARY_KEY") => What::NotRead(Why::NoKey),
                    _ => What::NotRead(Why::Failed),
                };
                (field("scanned_collection")?, what)
            }
            "ABORTED" => (field("data_collections")?, What::NotRead(Why::Aborted)),
            _ => (field("data_collections")?, What::Begun),
        };
        Some(Self { offset, tables: format!(",{names},"), what })
    }
}

/// The tables that were added, and how far their rows are.
#[derive(Debug, Default)]
pub struct Rows {
    added: BTreeMap<TableId, Added>,
    /// What was told, and where it was told last.
    told: BTreeMap<(String, What), u64>,
    /// Where the topic ended.
    end: u64,
}

#[derive(Debug)]
struct Added {
    /// The offset from which on the connector tells of it.
    from: u64,
    /// When it was added, or seen first.
    since: Instant,
    asked: Option<Instant>,
    /// When it was heard of last.
    heard: Option<Instant>,
}

impl Rows {
    /// Takes up what the settings say. Of tables that were added by somebody else, or before this agent began, the signal may be on its way.
    pub fn look(&mut self, seen: &Config, tables: &BTreeSet<TableId>, now: Instant) {
        let marks = marks(seen);
        self.added.retain(|table, known| marks.get(&table.to_string()) == Some(&known.from));
        for table in tables {
            if let Some(from) = marks.get(&table.to_string()) {
                self.added.entry(table.clone()).or_insert(Added { from: *from, since: now, asked: Some(now), heard: None });
            }
        }
    }

    /// Adds these tables at the end of the notifications, and gives the setting that keeps it; of what is not captured any more nothing is kept.
    pub fn add(&mut self, seen: &Config, tables: &BTreeSet<TableId>, added: &[TableId], end: u64, now: Instant) -> String {
        if !added.is_empty() {
            self.end = end;
        }
        self.added.extend(added.iter().map(|table| (table.clone(), Added { from: end, since: now, asked: None, heard: None })));
        let mut marks = marks(seen);
        marks.extend(added.iter().map(|table| (table.to_string(), end)));
        let names: BTreeSet<String> = tables.iter().map(ToString::to_string).collect();
        marks.retain(|name, _| names.contains(name));
        serde_json::to_string(&marks).unwrap_or_default()
    }

    /// Takes in what the connector tells, in its order, up to the topic's end.
    pub fn hear(&mut self, told: impl IntoIterator<Item = Told>, end: u64, now: Instant) {
        self.end = end;
        for told in told {
            for (_, known) in self.added.iter_mut().filter(|(table, _)| told.tables.contains(&listed(table))) {
                known.heard = Some(now);
            }
            self.told.insert((told.tables, told.what), told.offset);
        }
    }

    /// Tables whose rows are to be asked for. `reads`: the connector has stored that it reads rows.
    pub fn due(&self, reads: bool, now: Instant) -> BTreeSet<TableId> {
        let passed = |since: Instant| now.saturating_duration_since(since);
        let is_due = |(table, known): &(&TableId, &Added)| match (self.last(table, known), known.asked) {
            (None, Some(asked)) => passed(asked) >= TAKEN_UP,
            (None, None) => self.started(known) || passed(known.since) >= TAKEN_UP,
            (Some(What::Begun), _) => !reads && known.heard.is_some_and(|heard| passed(heard) >= LOST),
            (Some(_), _) => false,
        };
        self.added.iter().filter(is_due).map(|(table, _)| table.clone()).collect()
    }

    /// These were asked for.
    pub fn asked(&mut self, tables: &BTreeSet<TableId>, now: Instant) {
        for (_, known) in self.added.iter_mut().filter(|(table, _)| tables.contains(*table)) {
            known.asked = Some(now);
            known.heard = known.heard.map(|_| now);
        }
    }

    /// Tables whose rows are still to come.
    pub fn open(&self) -> impl Iterator<Item = &TableId> {
        self.added.iter().filter(|(table, known)| matches!(self.last(table, known), None | Some(What::Begun))).map(|(table, _)| table)
    }

    /// Tables whose rows the connector does not read.
    pub fn not_read(&self) -> impl Iterator<Item = (&TableId, Why)> {
        self.added.iter().filter_map(|(table, known)| match self.last(table, known) {
            Some(What::NotRead(why)) => Some((table, why)),
            _ => None,
        })
    }

    /// What was told of a table since it was added; how it ended, where it has: other tables of the same signal may still be read.
    fn last(&self, table: &TableId, known: &Added) -> Option<What> {
        let name = listed(table);
        self.told_since(known).filter(|(tables, _, _)| tables.contains(&name)).max_by_key(|(_, what, offset)| (*what != What::Begun, *offset)).map(|(_, what, _)| what)
    }

    /// Whether the connector has started since a table was added.
    fn started(&self, known: &Added) -> bool {
        self.told_since(known).any(|(_, what, _)| what == What::Started)
    }

    /// A topic that ends before a table was added was made anew: all of it counts.
    fn told_since(&self, known: &Added) -> impl Iterator<Item = (&str, What, u64)> {
        let from = if self.end < known.from { 0 } else { known.from };
        self.told.iter().filter(move |(_, offset)| **offset >= from).map(|((tables, what), offset)| (tables.as_str(), *what, *offset))
    }
}

/// A table as it stands in [`Told`].
fn listed(table: &TableId) -> String {
    format!(",{table},")
}

fn marks(config: &Config) -> BTreeMap<String, u64> {
    config.get(ADDED).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str) -> TableId {
        TableId::new("inv", name)
    }

    fn told(offset: u64, kind: &str, more: &[(&str, &str)]) -> Told {
        let more: BTreeMap<&str, &str> = more.iter().copied().collect();
        let notification = serde_json::json!({ "id": "1", "aggregate_type": "Incremental Snapshot", "type": kind, "additional_data": more, "timestamp": 1 });
        let told = Told::read(offset, notification.to_string().as_bytes()).expect("a notification");
        let wrapped = serde_json::json!({ "schema": { "type": "struct" }, "payload": notification });
        assert_eq!(Told::read(offset, wrapped.to_string().as_bytes()), Some(told.clone()));
        told
    }

    fn started(offset: u64) -> Told {
        Told::read(offset, br#"{"aggregate_type":"Initial Snapshot","type":"SKIPPED","additional_data":{"connector_name":"x"}}"#).expect("a notification")
    }

    /// Tables added at these offsets, all watched.
    fn rows(added: &[(&str, u64)], now: Instant) -> Rows {
        let marks: BTreeMap<String, u64> = added.iter().map(|(name, from)| (table(name).to_string(), *from)).collect();
        let mut rows = Rows::default();
        let tables = added.iter().map(|(name, _)| table(name)).collect();
        rows.look(&[(ADDED.to_owned(), serde_json::to_string(&marks).expect("JSON"))].into(), &tables, now);
        rows
    }

    #[test]
    fn a_table_is_asked_for_until_its_rows_begin_to_come() {
        let now = Instant::now();
        let mut rows = Rows::default();
        let watched: BTreeSet<TableId> = [table("a"), table("b")].into();
        let mark = rows.add(&Config::new(), &watched, &[table("b")], 3, now);
        assert_eq!(mark, r#"{"inv.b":3}"#);
        rows.hear([started(2)], 3, now);
        assert!(rows.due(false, now).is_empty(), "the task has not started with the new list");
        assert_eq!(rows.due(false, now + TAKEN_UP), [table("b")].into(), "it does not tell of its starts");
        rows.hear([started(3)], 4, now);
        assert_eq!(rows.due(false, now), [table("b")].into());
        rows.asked(&[table("b")].into(), now);
        assert!(rows.due(false, now).is_empty());
        assert_eq!(rows.due(false, now + TAKEN_UP), [table("b")].into(), "the signal was lost");
        rows.hear([told(2, "STARTED", &[("data_collections", "inv.b")])], 4, now);
        assert_eq!(rows.due(false, now + TAKEN_UP), [table("b")].into(), "that was told before it was added");
        rows.hear([told(4, "STARTED", &[("data_collections", "inv.a,inv.b")])], 5, now);
        assert!(rows.due(false, now + TAKEN_UP).is_empty());
        assert!(rows.due(true, now + LOST).is_empty());
        assert_eq!(rows.due(false, now + LOST), [table("b")].into(), "Connect was killed before it had stored how far it read");
        assert_eq!(rows.open().count(), 1);
    }

    #[test]
    fn one_table_is_read_while_others_of_its_signal_are_not() {
        let mut rows = rows(&[("b", 0), ("c", 0), ("d", 0)], Instant::now());
        let all = [("data_collections", "inv.b,inv.c,inv.d")];
        let ended = |offset, name, status| told(offset, "TABLE_SCAN_COMPLETED", &[("scanned_collection", name), ("status", status)]);
        rows.hear([told(0, "STARTED", &all), ended(1, "inv.b", "EMPTY"), told(2, "IN_PROGRESS", &all), ended(3, "inv.d", "NO_PRIMARY_KEY")], 4, Instant::now());
        assert_eq!(rows.open().collect::<Vec<_>>(), [&table("c")]);
        assert_eq!(rows.not_read().collect::<Vec<_>>(), [(&table("d"), Why::NoKey)]);
    }

    #[test]
    fn who_comes_later_waits_for_the_signal_of_who_was_there_before() {
        let now = Instant::now();
        let mut rows = rows(&[("b", 7)], now);
        assert!(rows.due(false, now).is_empty());
        assert_eq!(rows.due(false, now + TAKEN_UP), [table("b")].into());
        // The topic was made anew.
        rows.hear([told(0, "STARTED", &[("data_collections", "inv.b")])], 1, now);
        assert!(rows.due(false, now + TAKEN_UP).is_empty());
    }

    #[test]
    fn a_table_that_went_and_came_again_is_read_again() {
        let now = Instant::now();
        let mut rows = rows(&[("b", 0)], now);
        rows.hear([told(0, "TABLE_SCAN_COMPLETED", &[("scanned_collection", "inv.b"), ("status", "SUCCEEDED")]), started(1)], 2, now);
        assert_eq!(rows.open().count(), 0);
        let seen = Config::from([(ADDED.to_owned(), r#"{"inv.b":0,"inv.gone":0}"#.to_owned())]);
        let mark = rows.add(&seen, &[table("b")].into(), &[table("b")], 1, now);
        assert_eq!((mark.as_str(), rows.due(false, now)), (r#"{"inv.b":1}"#, [table("b")].into()));
    }

    #[test]
    fn what_tells_of_something_else_is_passed_over() {
        for text in ["", "{}", "[1]", r#"{"aggregate_type":"Other","type":"COMPLETED","additional_data":{"data_collections":"inv.b"}}"#] {
            assert_eq!(Told::read(0, text.as_bytes()), None, "{text}");
        }
    }
}
