//! The whole in one sentence, whether it is safe to cut over, and what the agent is made of. The words are pure functions of the picture.

use axum::Json;
use axum::extract::State;
use plumbline_sdk::HealthState;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::api::App;
use crate::builtin;
use crate::clock;
use crate::connectors::ConnectorView;
use crate::state::{State as Picture, SyncStatus, TableState};

/// A true sentence, with how bad it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Sentence {
    /// `bad`, `unknown`, `warn`, `busy`, `ok`.
    level: &'static str,
    /// The sign that goes with the colour.
    sign: &'static str,
    text: String,
}

/// The worst true sentence, and the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Summary {
    level: &'static str,
    sign: &'static str,
    text: String,
    others: Vec<Sentence>,
}

/// Why it is not safe to cut over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Blocker {
    /// One word: `disconnected`, `line_stopped`, `copying`, `differences`, `unverified`, `not_verified`, `lagging`, `no_tables`.
    pub reason: &'static str,
    message: String,
    table: Option<String>,
}

/// What a component is said to be before its first answer.
pub const NOT_YET: &str = "it has not answered yet";
/// Seconds that a table may be behind before it is worth a sentence.
const LATE: f64 = 5.0;
/// A proof older than this is worth a sentence.
const OLD_PROOF: i64 = 3 * 3600 * 1_000_000;

fn sentence(level: &'static str, text: String) -> Sentence {
    let sign = match level {
        "bad" => "✖",
        "unknown" => "?",
        "warn" => "▲",
        "busy" => "●",
        _ => "✔",
    };
    Sentence { level, sign, text }
}

fn rank(level: &str) -> u8 {
    match level {
        "bad" => 0,
        "unknown" => 1,
        "warn" => 2,
        "busy" => 3,
        _ => 4,
    }
}

/// 12,345 as people read it.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn plural(count: usize, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{} {one}s", grouped(count as u64)) }
}

fn ago(micros: i64) -> String {
    match micros.max(0) / 1_000_000 {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7199 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

/// `12:03:05` of a time.
fn of_day(micros: i64) -> String {
    clock::text(micros).get(11..19).unwrap_or_default().to_owned()
}

/// The first letter as a sentence has it.
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Everything that is true and worth saying, worst first.
pub fn summary(state: &Picture, connector: Option<&ConnectorView>, streaming: bool, now: i64) -> Summary {
    let tables: Vec<_> = state.present().filter(|(_, table)| table.schema.is_some()).collect();
    let mut all = Vec::new();
    let newest_proof = tables.iter().filter_map(|(_, table)| table.verified.as_ref().map(|verified| verified.micros)).max();
    let last_proof = newest_proof.map_or(String::new(), |proof| format!("; last proof {}", of_day(proof)));
    let components = [
        ("mysql", "MySQL cannot be reached", "MySQL cannot be followed"),
        ("postgres", "PostgreSQL cannot be reached", "PostgreSQL cannot be used"),
        ("history", "History cannot be reached", "History cannot be written"),
        ("kafka", "Kafka cannot be reached", "Kafka cannot be read"),
        ("connect", "Kafka Connect cannot be reached", "Kafka Connect cannot be used"),
        ("line", "The line has stopped", "The line has stopped"),
    ];
    for (name, away, refuses) in components {
        if let Some((health, since)) = state.health.get(name).filter(|(health, _)| health.state == HealthState::Down) {
            let message = health.messages.first().map_or("", String::as_str);
            if message == NOT_YET {
                all.push(sentence("busy", format!("{away} yet.")));
                continue;
            }
            let since = of_day(*since);
            if name == "connect" && message.starts_with("the connector ") {
                let trace = connector.and_then(|connector| connector.trace.first()).map_or(String::new(), |line| format!(" It says: {}.", line.trim_end_matches('.')));
                all.push(sentence("bad", format!("{} (since {since}{last_proof}).{trace}", capital(message))));
                continue;
            }
            let words = if ["cannot be reached", "does not answer"].iter().any(|known| message.contains(known)) { away } else { refuses };
            let why = if message.is_empty() { String::new() } else { format!(" ({message})") };
            all.push(sentence("bad", format!("{words} since {since}{last_proof}{why}.")));
        }
    }
    let rests = connector.and_then(|connector| resting(state, connector));
    all.extend(rests.clone());
    differences(&tables, &mut all);
    for (id, table) in &tables {
        if let Some(reason) = &table.stopped {
            all.push(sentence("bad", format!("{} is not applied any more: {reason}.", id.table)));
        }
    }
    unproved(&tables, now, &mut all);
    late(&tables, now, &mut all);
    copying(&tables, &mut all);
    sinks(connector, state.applies, &mut all);
    for (name, (health, _)) in state.health.iter().filter(|(_, (health, _))| health.state == HealthState::Warning) {
        if let Some(message) = health.messages.first().filter(|_| name != "connect" || rests.is_none()) {
            all.push(sentence("warn", format!("{}: {message}.", name.trim_end_matches("-setup"))));
        }
    }
    if tables.is_empty() {
        let text = if state.discovered { "No tables are watched: the database has none, or rules exclude them all." } else { "Looking for tables." };
        all.push(sentence(if state.discovered { "unknown" } else { "busy" }, text.to_owned()));
    } else if !streaming && all.is_empty() {
        all.push(sentence("busy", "Connecting to the source.".to_owned()));
    }
    if all.iter().all(|sentence| sentence.level == "warn" && !sentence.text.contains(" behind")) {
        proved(&tables, &mut all);
    }
    all.sort_by_key(|sentence| rank(sentence.level));
    // What is proved comes before a standing warning of the set-up.
    if let Some(at) = all.iter().position(|sentence| sentence.level == "ok" && rests.is_none()) {
        let proved = all.remove(at);
        all.insert(0, proved);
    }
    let mut all = all.into_iter();
    let first = all.next().unwrap_or_else(|| sentence("unknown", "Nobody has looked yet.".to_owned()));
    Summary { level: first.level, sign: first.sign, text: first.text, others: all.collect() }
}

/// A connector that brings nothing new although nothing is wrong with it: what was proved before grows old.
fn resting(state: &Picture, connector: &ConnectorView) -> Option<Sentence> {
    let (health, _) = state.health.get("connect").filter(|(health, _)| health.state == HealthState::Warning)?;
    let level = match connector.state.as_str() {
        "PAUSED" | "STOPPED" | "REMOVED" => "warn",
        "STARTING" | "MISSING" => "busy",
        _ => return None,
    };
    Some(sentence(level, format!("{}.", capital(health.messages.first()?))))
}

/// Sinks that do not run write nothing to the target.
fn sinks(connector: Option<&ConnectorView>, applies: bool, all: &mut Vec<Sentence>) {
    for sink in connector.into_iter().flat_map(|connector| &connector.sinks).filter(|sink| !applies && sink.state != "RUNNING") {
        all.push(sentence("warn", format!("The sink {} is {}: see Kafka Connect; changes wait until it runs.", sink.name, sink.state.to_lowercase())));
    }
}

type Tables<'a> = [(&'a plumbline_sdk::TableId, &'a TableState)];

fn differences(tables: &Tables<'_>, all: &mut Vec<Sentence>) {
    let differing: Vec<_> = tables.iter().filter(|(_, table)| table.open_total() > 0).collect();
    if differing.is_empty() {
        return;
    }
    let total: u64 = differing.iter().map(|(_, table)| table.open_total()).sum();
    let named = differing
        .iter()
        .take(3)
        .map(|(id, table)| {
            let parts = table.open.iter().filter(|(_, count)| **count > 0).map(|(verdict, count)| format!("{} {verdict}", grouped(*count))).collect::<Vec<_>>();
            format!("{} ({})", id.table, parts.join(", "))
        })
        .collect::<Vec<_>>()
        .join(", ");
    let more = if differing.len() > 3 { format!(" and {} more", differing.len() - 3) } else { String::new() };
    let verb = if total == 1 { "row differs" } else { "rows differ" };
    all.push(sentence("bad", format!("{} {verb} in {}: {named}{more}.", grouped(total), plural(differing.len(), "table"))));
}

fn unproved(tables: &Tables<'_>, now: i64, all: &mut Vec<Sentence>) {
    let cannot: Vec<_> = tables.iter().filter(|(_, table)| table.stopped.is_none() && table.open_total() == 0 && table.status() == SyncStatus::Unverified).collect();
    if let Some((id, table)) = cannot.first() {
        let reason = table.unjudged().next().map_or_else(|| "no such table in the target".to_owned(), |entry| match entry.columns.as_slice() {
            [] => entry.reason.clone(),
            columns => format!("{}: {}", columns.join(", "), entry.reason),
        });
        let more = if cannot.len() > 1 { format!("; {} more cannot be judged in full", cannot.len() - 1) } else { String::new() };
        all.push(sentence("unknown", format!("{} cannot be judged in full: {reason}{more}.", id.table)));
    }
    let waiting = tables.iter().filter(|(_, table)| table.status() == SyncStatus::Unknown).count();
    if waiting > 0 {
        all.push(sentence("busy", format!("{} of {} wait for their first comparison.", grouped(waiting as u64), plural(tables.len(), "table"))));
    }
    if let Some((id, micros)) = tables.iter().filter_map(|(id, table)| Some((id, table.verified.as_ref()?.micros))).min_by_key(|(_, micros)| *micros)
        && now - micros > OLD_PROOF
    {
        all.push(sentence("unknown", format!("Nobody has looked at {} for {}.", id.table, ago(now - micros))));
    }
}

fn late(tables: &Tables<'_>, now: i64, all: &mut Vec<Sentence>) {
    let unread: Vec<_> = tables.iter().filter(|(_, table)| table.unread && table.status() == SyncStatus::Lagging).collect();
    if let Some(oldest) = unread.iter().filter_map(|(_, table)| table.verified.as_ref()).map(|verified| verified.micros).min() {
        let which = if let [(id, _)] = unread.as_slice() { format!("{} is", id.table) } else { format!("{} of {} are", grouped(unread.len() as u64), plural(tables.len(), "table")) };
        all.push(sentence("busy", format!("{which} behind: what changed meanwhile is still to be looked at; last proof {}.", of_day(oldest))));
    }
    let worst = tables.iter().filter_map(|(id, table)| Some((id, table.pending_since?))).min_by_key(|(_, since)| *since);
    if let Some((id, since)) = worst
        && (now - since) as f64 / 1e6 > LATE
    {
        let nothing = if tables.iter().all(|(_, table)| table.open_total() == 0) { "; nothing differs" } else { "" };
        all.push(sentence("warn", format!("{} is {} behind{nothing}.", id.table, ago(now - since))));
    }
}

fn copying(tables: &Tables<'_>, all: &mut Vec<Sentence>) {
    let copies: Vec<_> = tables.iter().filter_map(|(_, table)| table.copy.as_ref().map(|mark| (mark, table.copy_times))).collect();
    if copies.is_empty() && !tables.iter().any(|(_, table)| table.status() == SyncStatus::Copying) {
        return;
    }
    let done = copies.iter().filter(|(mark, _)| mark.done).count();
    if done == tables.len() || copies.is_empty() {
        return;
    }
    let (rows, expected) = copies.iter().fold((0, 0), |(rows, expected), (mark, _)| (rows + mark.rows_done, expected + mark.rows_expected.max(mark.rows_done)));
    let percent = if expected == 0 { 0.0 } else { (rows as f64 / expected as f64 * 100.0).floor().min(99.0) };
    let rate: f64 = copies
        .iter()
        .filter(|(mark, _)| !mark.done)
        .filter_map(|(mark, times)| {
            let (first, latest, at_first) = (*times)?;
            let seconds = (latest - first) as f64 / 1e6;
            (seconds > 0.5).then(|| mark.rows_done.saturating_sub(at_first) as f64 / seconds)
        })
        .sum();
    let left = if rate > 0.0 { format!(", about {} left", ago(((expected - rows) as f64 / rate * 1e6) as i64)) } else { String::new() };
    all.push(sentence("busy", format!("Copying: {done} of {} done, {percent} %{left}.", plural(tables.len(), "table"))));
}

fn proved(tables: &Tables<'_>, all: &mut Vec<Sentence>) {
    let Some(oldest) = tables.iter().filter_map(|(_, table)| table.verified.as_ref().map(|verified| verified.micros)).min() else { return };
    let rows: u64 = tables.iter().filter_map(|(_, table)| table.verified.as_ref().map(|verified| verified.rows)).sum();
    let all_of = if tables.len() == 1 { "The table".to_owned() } else { format!("All {}", plural(tables.len(), "table")) };
    all.push(sentence("ok", format!("{all_of} proved equal through {}, {} rows.", of_day(oldest), grouped(rows))));
}

/// Why it is not safe to cut over, the gravest first; empty: it is.
pub fn blockers(state: &Picture, connector: Option<&ConnectorView>, streaming: bool) -> Vec<Blocker> {
    let mut blockers = Vec::new();
    let mut block = |reason, message: String, table: Option<String>| blockers.push(Blocker { reason, message, table });
    for (name, word) in [("mysql", "MySQL"), ("postgres", "PostgreSQL"), ("history", "history"), ("kafka", "Kafka")] {
        if super::health::connection(state, name) == "disconnected" && (name != "history" || state.health.contains_key(name)) {
            block("disconnected", format!("{word} is not connected"), None);
        }
    }
    if super::health::connection(state, "connect") == "disconnected" {
        let message = state.health.get("connect").and_then(|(health, _)| health.messages.first()).filter(|message| message.starts_with("the connector "));
        block("line_stopped", message.map_or("Kafka Connect is not connected: nobody knows what is not sent yet", String::as_str).to_owned(), None);
    } else if let Some(connector) = connector.filter(|connector| connector.state != "RUNNING") {
        block("line_stopped", format!("the connector {} is {}", connector.name, connector.state.to_lowercase()), None);
    }
    if state.health.get("line").is_some_and(|(health, _)| health.state == HealthState::Down) || !streaming {
        block("line_stopped", "the source does not stream".to_owned(), None);
    }
    let mut tables = state.present().filter(|(_, table)| table.schema.is_some()).peekable();
    if tables.peek().is_none() {
        block("no_tables", "no tables are watched".to_owned(), None);
    }
    for (id, table) in tables {
        let name = || Some(id.to_string());
        match table.status() {
            SyncStatus::Diverged => block("differences", format!("{} differing in {}", plural(usize::try_from(table.open_total()).unwrap_or(usize::MAX), "row"), id.table), name()),
            SyncStatus::Copying => block("copying", format!("{} is still being copied", id.table), name()),
            SyncStatus::Unverified => block("unverified", format!("{} cannot be judged in full", id.table), name()),
            SyncStatus::Unknown => block("not_verified", format!("{} was not compared yet", id.table), name()),
            SyncStatus::Lagging => block("lagging", format!("{} has changes that are not {} yet", id.table, if table.unread { "looked at" } else { "applied" }), name()),
            SyncStatus::InSync => {}
        }
    }
    blockers
}

/// Whether it is safe to cut over now.
#[derive(Debug, Serialize, ToSchema)]
pub struct Cutover {
    ready: bool,
    blockers: Vec<Blocker>,
    /// The source position that every required sink has; null: none yet.
    position: Option<String>,
    timestamp: String,
}

/// Whether it is safe to cut over now, and if not, why.
#[utoipa::path(get, path = "/api/v1/cutover", tag = "summary", responses((status = 200, body = Cutover)))]
pub async fn cutover(State(app): State<App>) -> Json<Cutover> {
    let connector = app.shared.connector();
    let picture = app.shared.picture();
    let blockers = blockers(&picture.state, connector.as_ref(), app.shared.streaming.load(std::sync::atomic::Ordering::Relaxed));
    let position = picture.state.applied.as_ref().map(ToString::to_string);
    Json(Cutover { ready: blockers.is_empty(), blockers, position, timestamp: clock::text(clock::now_micros()) })
}

/// A plugin.
#[derive(Debug, Serialize, ToSchema)]
struct PluginView {
    name: &'static str,
    kind: &'static str,
    about: &'static str,
    /// `built in`.
    origin: &'static str,
}

/// What the agent is made of.
#[derive(Debug, Serialize, ToSchema)]
pub struct PluginList {
    plugins: Vec<PluginView>,
    loaded: &'static str,
}

/// The plugins: compiled in; loading is not possible in this version.
#[utoipa::path(get, path = "/api/v1/plugins", tag = "summary", responses((status = 200, body = PluginList)))]
pub async fn plugins() -> Json<PluginList> {
    let plugins = builtin::PLUGINS.iter().map(|plugin| PluginView { name: plugin.name, kind: plugin.kind, about: plugin.about, origin: "built in" }).collect();
    Json(PluginList { plugins, loaded: "not_configured" })
}

/// The effective settings, secrets hidden.
#[utoipa::path(get, path = "/api/v1/config", tag = "summary", responses((status = 200, body = Object)))]
pub async fn config(State(app): State<App>) -> Json<Value> {
    Json(app.shared.config.clone())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use plumbline_sdk::plugin::Verified;
    use plumbline_sdk::{CopyMark, Health, TableId, TableSchema, TargetTable, Verdict};

    use super::*;
    use crate::state::{Partner, Unverified};

    const NOW: i64 = 1_800_000_000_000_000;

    fn proved(name: &str) -> (TableId, TableState) {
        let id = TableId::new("shop", name);
        let target = TargetTable { id: TableId::new("public", name), columns: Vec::new(), key: Vec::new() };
        let table = TableState {
            schema: Some(Arc::new(TableSchema { id: id.clone(), columns: Vec::new() })),
            partner: Partner::Table(Arc::new(target)),
            verified: Some(Verified { position: "p".into(), micros: NOW - 4_000_000, rows: 1_000_206 }),
            ..TableState::default()
        };
        (id, table)
    }

    fn picture(tables: impl IntoIterator<Item = (TableId, TableState)>) -> Picture {
        let mut state = Picture { tables: tables.into_iter().collect(), discovered: true, ..Picture::default() };
        for component in ["mysql", "postgres"] {
            state.health.insert(component.into(), (Health { component: component.into(), state: HealthState::Up, messages: Vec::new() }, NOW));
        }
        state
    }

    fn check(state: &Picture, level: &str, words: &[&str]) {
        let summary = summary(state, None, true, NOW);
        assert_eq!(summary.level, level, "{}", summary.text);
        for word in words {
            assert!(summary.text.contains(word), "{}", summary.text);
        }
        let ready = blockers(state, None, true).is_empty();
        assert_eq!(ready, level == "ok", "{:?}", blockers(state, None, true));
    }

    #[test]
    fn the_worst_true_sentence_wins() {
        check(&picture([proved("orders"), proved("users")]), "ok", &["All 2 tables proved equal", "2,000,412 rows"]);

        let mut late = proved("orders");
        (late.1.late, late.1.pending, late.1.pending_since) = (true, 3, Some(NOW - 41_000_000));
        check(&picture([late, proved("users")]), "warn", &["orders is 41 s behind; nothing differs"]);

        let mut unread = proved("orders");
        unread.1.unread = true;
        check(&picture([unread, proved("users")]), "busy", &["orders is behind: what changed meanwhile is still to be looked at; last proof"]);

        let mut copying = proved("orders");
        copying.1.copy = Some(CopyMark { table: copying.0.clone(), rows_done: 63, rows_expected: 100, next: None, done: false, snapshot: None, restart: false });
        check(&picture([copying]), "busy", &["Copying: 0 of 1 table done, 63 %"]);

        let mut unverified = proved("shapes");
        unverified.1.unverified.push(Unverified { columns: vec!["shape".into()], reason: "type `geometry` is not compared".into() });
        check(&picture([unverified, proved("users")]), "unknown", &["shapes cannot be judged in full: shape: type `geometry` is not compared"]);

        let mut differs = proved("orders");
        differs.1.open.insert(Verdict::Changed, 2);
        let mut more = proved("users");
        more.1.open.insert(Verdict::Missing, 1);
        check(&picture([differs.clone(), more]), "bad", &["3 rows differ in 2 tables: orders (2 changed), users (1 missing)"]);
        check(&picture([differs]), "bad", &["2 rows differ in 1 table"]);

        let mut away = picture([proved("orders")]);
        away.health.insert("mysql".into(), (Health { component: "mysql".into(), state: HealthState::Down, messages: vec!["MySQL cannot be reached: no answer".into()] }, NOW));
        check(&away, "bad", &["MySQL cannot be reached since", "last proof", "no answer"]);
        away.health.insert("mysql".into(), (Health { component: "mysql".into(), state: HealthState::Down, messages: vec!["`log_bin` is OFF".into()] }, NOW));
        check(&away, "bad", &["MySQL cannot be followed since", "`log_bin` is OFF"]);

        check(&picture([]), "unknown", &["No tables are watched"]);
    }

    #[test]
    fn a_connector_that_brings_nothing_is_said_before_what_was_proved() {
        let health = |state, message: &str| (Health { component: "connect".into(), state, messages: vec![message.into()] }, NOW);
        let said = |state: &str, known, trace: Option<&str>| {
            let mut picture = picture([proved("orders")]);
            picture.health.insert("connect".into(), known);
            let connector = ConnectorView { name: "c".into(), state: state.into(), trace: trace.map(str::to_owned).into_iter().collect(), ..ConnectorView::default() };
            let summary = summary(&picture, Some(&connector), true, NOW);
            (summary.level, summary.text, blockers(&picture, Some(&connector), true).first().map(|blocker| (blocker.reason, blocker.message.clone())))
        };
        let (level, text, blocker) = said("RUNNING", health(HealthState::Up, ""), None);
        assert_eq!((level, blocker), ("ok", None), "{text}");
        let (level, text, blocker) = said("RUNNING", health(HealthState::Warning, "a setting makes it weaker"), None);
        assert_eq!((level, blocker), ("ok", None), "a standing warning: {text}");
        let (level, text, blocker) = said("PAUSED", health(HealthState::Warning, "the connector `c` is paused: nothing new comes until it is resumed"), None);
        assert_eq!((level, text.as_str()), ("warn", "The connector `c` is paused: nothing new comes until it is resumed."));
        assert_eq!(blocker, Some(("line_stopped", "the connector c is paused".into())));
        let (level, text, blocker) = said("FAILED", health(HealthState::Down, "the connector `c` failed; it will be started again in a moment"), Some("Access denied."));
        assert!(level == "bad" && text.contains("`c` failed") && text.contains("last proof") && text.ends_with("It says: Access denied."), "{text}");
        assert!(blocker.is_some_and(|(reason, message)| reason == "line_stopped" && message.contains("`c` failed")));
        let (level, text, blocker) = said("RUNNING", health(HealthState::Down, "Kafka Connect at `x` does not answer"), None);
        assert!(level == "bad" && text.starts_with("Kafka Connect cannot be reached since"), "{text}");
        assert!(blocker.is_some_and(|(_, message)| message.contains("is not connected")));
        let (level, text, _) = said("", health(HealthState::Down, NOT_YET), None);
        assert_eq!((level, text.as_str()), ("busy", "Kafka Connect cannot be reached yet."));
    }

    #[test]
    fn an_old_proof_is_said_to_be_old() {
        let mut old = proved("invoices");
        old.1.verified = Some(Verified { position: "p".into(), micros: NOW - 4 * 3600 * 1_000_000, rows: 1 });
        let summary = summary(&picture([old]), None, true, NOW);
        assert_eq!((summary.level, summary.text.as_str()), ("unknown", "Nobody has looked at invoices for 4 h."));
    }
}
