//! What stands in the picture, read from it at a scrape.

use std::sync::atomic::Ordering;

use plumbline_sdk::{HealthState, Position};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::names::{self, Name};
use super::{ByKind, ByPlugin, ByQueue, ByReason, ByState, Dependency, FloatCounter, FloatGauge, PluginAbout};
use crate::shared::Shared;
use crate::state::State;

/// The words of `cutover_blockers`.
const BLOCKERS: [&str; 8] = ["disconnected", "line_stopped", "no_tables", "differences", "copying", "unverified", "not_verified", "lagging"];

/// Everything but tables.
pub fn register(of: &mut Registry, state: &State, shared: &Shared, now: i64) {
    let streaming = shared.streaming.load(Ordering::Relaxed);
    stream(of, state);
    behind(of, state, streaming, now);
    copies(of, state);
    cutover(of, state, shared);
    components(of, state, streaming);
    let full = Family::<ByQueue, FloatCounter>::default();
    full.get_or_create(&ByQueue { queue: "stream".into() }).inc_by(shared.queue_full_micros.load(Ordering::Relaxed) as f64 / 1e6);
    names::QUEUE_FULL.register(of, full);
}

pub fn counter(of: &mut Registry, name: &Name, number: u64) {
    let counter = Counter::<u64>::default();
    counter.inc_by(number);
    name.register(of, counter);
}

fn gauge(of: &mut Registry, name: &Name, number: i64) {
    let gauge = Gauge::<i64>::default();
    gauge.set(number);
    name.register(of, gauge);
}

/// What is not known is absent, never 0.
fn float_gauge(of: &mut Registry, name: &Name, value: Option<f64>) {
    let Some(value) = value else { return };
    let gauge = FloatGauge::default();
    gauge.set(value);
    name.register(of, gauge);
}

fn stream(of: &mut Registry, state: &State) {
    counter(of, &names::CDC_RECORDS, state.records);
    counter(of, &names::CDC_DUPLICATES, state.duplicates);
    counter(of, &names::CDC_TRANSACTIONS, state.live.transactions);
    let discarded = Family::<ByReason, Counter>::default();
    discarded.get_or_create(&ByReason { reason: "control".into() }).inc_by(state.control);
    discarded.get_or_create(&ByReason { reason: "duplicate".into() }).inc_by(state.duplicates);
    names::CDC_EVENTS_DISCARDED.register(of, discarded);
    let kinds = Family::<ByKind, Counter>::default();
    kinds.get_or_create(&ByKind { kind: "statement".into() }).inc_by(state.live.schema_changes);
    names::SCHEMA_CHANGES.register(of, kinds);
}

fn behind(of: &mut Registry, state: &State, streaming: bool, now: i64) {
    // While the source is away nobody knows what waits there.
    let known = match (&state.received, &state.applied) {
        (Some(received), Some(applied)) => streaming && (received.order(applied) != Some(std::cmp::Ordering::Greater) || state.applied_commit_micros.is_some()),
        _ => false,
    };
    let lag = known.then(|| state.lag_seconds(now));
    float_gauge(of, &names::CDC_LAG, lag);
    float_gauge(of, &names::CDC_LAST_RECEIVED, state.received_micros.map(|micros| micros as f64 / 1e6));
    let log = &state.source_log;
    if let Some(written) = log.written_bytes() {
        counter(of, &names::SOURCE_BINLOG_WRITTEN, written);
    }
    float_gauge(of, &names::SOURCE_BINLOG_RETENTION, log.retention_seconds().map(|seconds| seconds as f64));
    let backlog = |position: &Position| log.backlog_bytes(position, now).map(|bytes| bytes as f64);
    float_gauge(of, &names::CDC_BACKLOG, state.applied.as_ref().and_then(backlog));
    float_gauge(of, &names::SOURCE_BINLOG_RUNWAY, state.runway_seconds(now));
}

fn copies(of: &mut Registry, state: &State) {
    let copies: Vec<_> = state.present().filter_map(|(_, table)| table.copy.as_ref()).collect();
    let done = copies.iter().filter(|mark| mark.done).count();
    gauge(of, &names::SNAPSHOT_RUNNING, i64::from(done < copies.len()));
    let by_state = Family::<ByState, Gauge>::default();
    for (state, tables) in [("done", done), ("running", copies.len() - done)] {
        by_state.get_or_create(&ByState { state: state.into() }).set(i64::try_from(tables).unwrap_or(i64::MAX));
    }
    names::SNAPSHOT_TABLES.register(of, by_state);
}

fn cutover(of: &mut Registry, state: &State, shared: &Shared) {
    let blockers = crate::api::blockers(state, shared.connector().as_ref(), shared.streaming.load(std::sync::atomic::Ordering::Relaxed));
    gauge(of, &names::CUTOVER_READY, i64::from(blockers.is_empty()));
    let by_reason = Family::<ByReason, Gauge>::default();
    for reason in BLOCKERS {
        let number = blockers.iter().filter(|blocker| blocker.reason == reason).count();
        by_reason.get_or_create(&ByReason { reason: reason.into() }).set(i64::try_from(number).unwrap_or(i64::MAX));
    }
    names::CUTOVER_BLOCKERS.register(of, by_reason);
}

fn components(of: &mut Registry, state: &State, streaming: bool) {
    let answers = |name: &str| match state.health.get(name) {
        Some((health, _)) => health.state != HealthState::Down,
        // History was opened before anything is served; the others have not answered yet.
        None => name == "history",
    };
    let up = Family::<Dependency, Gauge>::default();
    let used = |name: &str| state.health.contains_key(name);
    let dependencies = [("mysql", "source"), ("postgres", "target"), ("history", "history"), ("kafka", "source"), ("connect", "connector")];
    for (name, role) in dependencies.into_iter().filter(|(name, _)| !["kafka", "connect"].contains(name) || used(name)) {
        up.get_or_create(&Dependency { dependency: name.into(), role: role.into() }).set(i64::from(answers(name)));
    }
    names::DEPENDENCY_UP.register(of, up);
    let (plugin_up, about) = (Family::<ByPlugin, Gauge>::default(), Family::<PluginAbout, Gauge>::default());
    for plugin in &crate::builtin::PLUGINS {
        let works = match plugin.name {
            "mysql-discovery" => state.discovered,
            "mysql-binlog" if !used("kafka") => streaming,
            "kafka-cdc" if used("kafka") => streaming,
            "debezium-connectors" if used("connect") => answers("connect"),
            "postgres-applier" if state.applies => answers("postgres"),
            "sqlite-history" if !used("redis") => answers("history"),
            "redis-history" if used("redis") => answers("history"),
            // A validator does no IO: it works when it is there.
            _ if plugin.kind == "validator" => true,
            _ => continue,
        };
        plugin_up.get_or_create(&ByPlugin { plugin: plugin.name.into() }).set(i64::from(works));
        about.get_or_create(&PluginAbout { plugin: plugin.name.into(), kind: plugin.kind.into(), version: env!("CARGO_PKG_VERSION").into() }).set(1);
    }
    names::PLUGIN_UP.register(of, plugin_up);
    names::PLUGIN_INFO.register(of, about);
}
