//! The asking side: a connection of its own, so that a question never waits for the line nor the line for it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use plumbline_sdk::plugin::{DailyCounts, FindingQuery, HistoryReader, OpCounts, Remembered, StoredEvent, StoredFinding, Verified};
use plumbline_sdk::{Error, Op, Result, TableId, Verdict};
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Pipeline};
use tokio::sync::Mutex;

use super::RedisHistoryConfig;
use super::connect::Server;
use super::keys::{Keys, table_name, table_of};
use super::record;
use super::script::Call;
use super::store::{FORMAT, OLDEST};
use super::write::date;

/// Opens at the first question; may be asked before the history was ever written.
pub(super) struct Reader {
    config: Arc<RedisHistoryConfig>,
    server: Server,
    keys: Keys,
    conn: Mutex<Option<MultiplexedConnection>>,
}

/// Format and number of changes of the line; both None: there is no history yet.
type Line = (Option<u32>, Option<u64>);

impl Reader {
    pub(super) fn new(config: Arc<RedisHistoryConfig>, server: Server, keys: Keys) -> Self {
        Self { config, server, keys, conn: Mutex::new(None) }
    }

    /// A handle on the shared connection, which carries many questions at once.
    async fn conn(&self) -> Result<MultiplexedConnection> {
        let mut conn = self.conn.lock().await;
        match &*conn {
            Some(conn) => Ok(conn.clone()),
            None => Ok(conn.insert(self.server.open().await?).clone()),
        }
    }

    /// One round trip: the line first, then what is asked. None: there is no history yet.
    async fn ask<T: FromRedisValue + Send>(&self, add: impl FnOnce(&mut Pipeline) + Send) -> Result<Option<(u64, T)>> {
        let mut pipe = redis::pipe();
        pipe.cmd("HMGET").arg(self.keys.line()).arg("format").arg("changes");
        add(&mut pipe);
        let answer: redis::RedisResult<(Line, T)> = pipe.query_async(&mut self.conn().await?).await;
        let ((format, changes), answer) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                *self.conn.lock().await = None;
                return Err(self.server.place.classify(&error));
            }
        };
        match format {
            None => Ok(None),
            Some(OLDEST..=FORMAT) => Ok(Some((changes.unwrap_or(0), answer))),
            Some(format) => Err(Error::config(format!(
                "the history `{}` in Redis at `{}` was written by another version (format {format}, this one knows {FORMAT})",
                self.keys.line(),
                self.server.name()
            ))),
        }
    }

    fn unreadable(&self, what: &str) -> Error {
        Error::fatal(format!("{what} in the history of Redis at `{}` cannot be read: was it changed by another program?", self.server.name()))
    }

    /// Adds the changes below `below` of these entries, and gives the number by which the last entry is called; None: nothing older is shown. The stream is
    /// trimmed in whole blocks: what is left over of the last one is not shown.
    fn take(&self, entries: &Entries, changes: u64, below: u64, events: &mut Vec<StoredEvent>) -> Result<Option<u64>> {
        let oldest = changes.saturating_sub(self.config.keep_events);
        let mut last = None;
        for (id, fields) in entries {
            let id: u64 = id.split('-').next().and_then(|id| id.parse().ok()).ok_or_else(|| self.unreadable("the number of an event"))?;
            if id <= oldest {
                return Ok(None);
            }
            let (Some(field), Some(bytes)) = (fields.first(), fields.get(1)) else { return Err(self.unreadable("an event")) };
            let block = record::unpack_entry(id, field, bytes).ok_or_else(|| self.unreadable("an event"))?;
            events.extend(block.into_iter().filter(|event| event.id > oldest && event.id < below));
            last = Some(id);
        }
        Ok(last)
    }

    /// The numbers of the newest findings that are open, or resolved.
    async fn ids(&self, query: &FindingQuery, open: bool) -> Result<Vec<u64>> {
        let ids: Option<(u64, Vec<String>)> = match &query.table {
            None => {
                let below = query.before.map_or_else(|| "+inf".to_owned(), |before| format!("({before}"));
                self.ask(|pipe| {
                    pipe.cmd("ZREVRANGEBYSCORE").arg(self.keys.findings_in(open)).arg(below).arg("-inf").arg("LIMIT").arg(0).arg(query.limit);
                })
                .await?
            }
            Some(table) => {
                let name = table_name(table);
                // After the name stand 16 hex digits: `g` is above all of them.
                let below = query.before.map_or_else(|| format!("({name}g"), |before| format!("({name}{before:016x}"));
                self.ask(|pipe| {
                    pipe.cmd("ZREVRANGEBYLEX").arg(self.keys.findings_of_tables(open)).arg(below).arg(format!("[{name}")).arg("LIMIT").arg(0).arg(query.limit);
                })
                .await?
            }
        };
        let number = |text: &String| {
            let id = if query.table.is_some() { text.get(text.len().saturating_sub(16)..).and_then(|hex| u64::from_str_radix(hex, 16).ok()) } else { text.parse().ok() };
            id.ok_or_else(|| self.unreadable("the number of a finding"))
        };
        ids.map(|(_, ids)| ids).unwrap_or_default().iter().map(number).collect()
    }
}

/// Findings, and entries of changes, that are fetched at once.
const PAGE: usize = 1000;
/// Entries of changes that are fetched first: each may hold many.
const FIRST_ENTRIES: usize = 8;

/// Entries of the stream of changes.
type Entries = Vec<(String, Vec<Vec<u8>>)>;

#[async_trait]
impl HistoryReader for Reader {
    async fn events(&self, limit: u32, before: Option<u64>) -> Result<Vec<StoredEvent>> {
        if limit == 0 || before.is_some_and(|before| before <= 1) {
            return Ok(Vec::new());
        }
        let mut events: Vec<StoredEvent> = Vec::new();
        // The entry that holds the change before `before` ends at it or after it; all that come before that entry end before it.
        let mut below = before;
        if let Some(before) = before {
            let first = (before - 1).to_string();
            let answer: Option<(u64, Entries)> = self
                .ask(|pipe| {
                    pipe.cmd("XRANGE").arg(self.keys.events()).arg(first).arg("+").arg("COUNT").arg(1);
                })
                .await?;
            let Some((changes, entries)) = answer else { return Ok(Vec::new()) };
            self.take(&entries, changes, before, &mut events)?;
        }
        let mut count = FIRST_ENTRIES;
        while events.len() < limit as usize {
            let newest = below.map_or_else(|| "+".to_owned(), |below| below.saturating_sub(2).to_string());
            let answer: Option<(u64, Entries)> = self
                .ask(|pipe| {
                    pipe.cmd("XREVRANGE").arg(self.keys.events()).arg(newest).arg("-").arg("COUNT").arg(count);
                })
                .await?;
            let Some((changes, entries)) = answer else { break };
            let last = self.take(&entries, changes, before.unwrap_or(u64::MAX), &mut events)?;
            if last.is_none() || entries.len() < count {
                break;
            }
            // One above the entry that was read last: nothing ends there twice.
            below = last.map(|last| last + 1);
            count = (count * 8).min(PAGE);
        }
        events.truncate(limit as usize);
        Ok(events)
    }

    async fn findings(&self, query: &FindingQuery) -> Result<Vec<StoredFinding>> {
        if query.limit == 0 {
            return Ok(Vec::new());
        }
        let mut ids = Vec::new();
        for open in [true, false] {
            if query.open.is_none_or(|wanted| wanted == open) {
                ids.extend(self.ids(query, open).await?);
            }
        }
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids.dedup();
        ids.truncate(usize::try_from(query.limit).unwrap_or(usize::MAX));
        let mut findings = Vec::with_capacity(ids.len());
        for page in ids.chunks(PAGE) {
            let texts: Option<(u64, Vec<Option<String>>)> = self
                .ask(|pipe| {
                    pipe.cmd("HMGET").arg(self.keys.findings()).arg(page);
                })
                .await?;
            // One that was trimmed meanwhile is left out.
            for (id, text) in page.iter().zip(texts.map(|(_, texts)| texts).unwrap_or_default()) {
                let Some(text) = text else { continue };
                findings.push(record::finding_of(*id, &text).ok_or_else(|| self.unreadable("a finding"))?);
            }
        }
        Ok(findings)
    }

    async fn open_findings(&self) -> Result<Vec<(TableId, Verdict, u64)>> {
        let counts: Option<(u64, HashMap<String, u64>)> = self
            .ask(|pipe| {
                pipe.cmd("HGETALL").arg(self.keys.open_counts());
            })
            .await?;
        let mut open = Vec::new();
        for (field, count) in counts.map(|(_, counts)| counts).unwrap_or_default() {
            let (verdict, table) = field.split_once(' ').ok_or_else(|| self.unreadable("the number of open findings"))?;
            let verdict = match verdict {
                "missing" => Verdict::Missing,
                "extra" => Verdict::Extra,
                _ => Verdict::Changed,
            };
            open.push((table_of(table).ok_or_else(|| self.unreadable("the number of open findings"))?, verdict, count));
        }
        open.sort_unstable_by(|a, b| (&a.0, a.1.as_str()).cmp(&(&b.0, b.1.as_str())));
        Ok(open)
    }

    async fn daily(&self) -> Result<Option<Vec<DailyCounts>>> {
        let days: Option<(u64, Vec<i64>)> = self
            .ask(|pipe| {
                pipe.cmd("ZREVRANGE").arg(self.keys.days()).arg(0).arg(-1);
            })
            .await?;
        let dates: Vec<String> = days.map(|(_, days)| days).unwrap_or_default().into_iter().map(date).collect();
        let mut daily = Vec::new();
        if dates.is_empty() {
            return Ok(Some(daily));
        }
        let mut pipe = redis::pipe();
        for date in &dates {
            pipe.cmd("HGETALL").arg(self.keys.day(date));
        }
        let hashes: Vec<HashMap<String, u64>> = pipe.query_async(&mut self.conn().await?).await.map_err(|error| self.server.place.classify(&error))?;
        for (date, hash) in dates.iter().zip(hashes) {
            for (table, counts) in by_table(hash).ok_or_else(|| self.unreadable("the counters of a day"))? {
                daily.push(DailyCounts { day: date.clone(), table, counts });
            }
        }
        Ok(Some(daily))
    }
}

/// Counters by table, from fields `OP:TABLE`.
fn by_table(fields: HashMap<String, u64>) -> Option<BTreeMap<TableId, OpCounts>> {
    let mut by_table: BTreeMap<TableId, OpCounts> = BTreeMap::new();
    for (field, count) in fields {
        let (op, table) = field.split_once(':')?;
        let op = Op::ALL.into_iter().find(|known| known.as_str() == op)?;
        by_table.entry(table_of(table)?).or_default()[op.index()] = count;
    }
    Some(by_table)
}

/// All that is needed to go on after a start, as of one moment.
pub(super) async fn remembered(conn: &mut MultiplexedConnection, server: &Server, keys: &Keys, call: &Call) -> Result<Remembered> {
    type Sums = (Option<String>, Option<u64>, Option<u64>, Option<u64>);
    type All = (Sums, HashMap<String, u64>, BTreeMap<String, u8>, BTreeMap<String, String>);
    let unreadable = || Error::fatal(format!("the history in Redis at `{}` cannot be read: was it changed by another program?", server.name()));
    // A script, not MULTI: a user with the rights that we name may not use that, and the driver does not survive its refusal.
    let (sums, counts, tables, verified): All = call.send(conn, &call.begin(keys, &[])).await.map_err(|error| server.place.classify(&error))?;
    let (position, records, duplicates, control) = sums;
    let position = match position.as_deref() {
        None | Some("") => None,
        Some(text) => Some(serde_json::from_str(text).map_err(|error| unreadable().caused_by(error))?),
    };
    let mut remembered = Remembered {
        position,
        records: records.unwrap_or(0),
        duplicates: duplicates.unwrap_or(0),
        control: control.unwrap_or(0),
        ..Remembered::default()
    };
    let mut counters = by_table(counts).ok_or_else(unreadable)?;
    for (name, gone) in &tables {
        let table = table_of(name).ok_or_else(unreadable)?;
        if *gone == 1 {
            remembered.gone.push(table.clone());
        }
        counters.entry(table).or_default();
    }
    for (name, text) in &verified {
        let proved: Verified = serde_json::from_str(text).map_err(|error| unreadable().caused_by(error))?;
        remembered.verified.push((table_of(name).ok_or_else(unreadable)?, proved));
    }
    remembered.gone.sort_unstable();
    remembered.verified.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    remembered.counters = counters.into_iter().collect();
    Ok(remembered)
}
