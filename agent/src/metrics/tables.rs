//! The one place for metrics with a table label: which tables have a label of their own, and all of their families.
//!
//! A table gets a label when it is first seen and keeps it until it is gone; then it leaves every family, and its place is free. Above the
//! cap tables share `_other`, and stay there: what `_other` counts never falls, also when its tables go.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use plumbline_sdk::trace::TraceId;
use plumbline_sdk::{Op, TableId, Verdict};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::CounterWithExemplar;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::{FloatGauge, Table, TableKind, TableOp, TableSide, TraceLabel, names};
use crate::state::{State, SyncStatus, TableState};

/// Where tables without a label of their own are counted.
const OTHER: &str = "_other";

/// What is counted of a table as it happens; the rest stands in the picture.
#[derive(Debug, Default, Clone)]
pub struct Counted {
    /// Bytes of row images.
    pub bytes: u64,
    /// Row keys compared.
    pub compared_rows: u64,
    /// When a comparison last came to a verdict, microseconds since the epoch.
    pub last_success: Option<i64>,
    /// Rows that wait to be read again; None: nobody looks.
    pub suspects: Option<u64>,
    /// The newest change of each op, with the time at which every sink had it.
    pub traces: [Option<(TraceId, i64)>; 5],
}

/// Labels and counters of tables.
pub struct Tables {
    most: usize,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    named: BTreeSet<TableId>,
    others: BTreeSet<TableId>,
    overflowed: u64,
    counted: HashMap<TableId, Counted>,
}

impl Tables {
    /// At most `most` tables have a label of their own.
    pub fn new(most: usize) -> Self {
        Self { most, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts something of a table.
    pub fn count(&self, table: &TableId, what: impl FnOnce(&mut Counted)) {
        let mut kept = self.kept();
        // The table is nearly always known: look before cloning its name.
        match kept.counted.get_mut(table) {
            Some(counted) => what(counted),
            None => what(kept.counted.entry(table.clone()).or_default()),
        }
    }

    /// A table is gone: it gives up its label and what was counted under it. Under `_other` it stays counted.
    pub fn gone(&self, table: &TableId) {
        let mut kept = self.kept();
        if kept.named.remove(table) || !kept.others.contains(table) {
            kept.counted.remove(table);
        }
    }

    /// How many tables were put under `_other` so far. Never falls.
    pub fn overflowed(&self) -> u64 {
        self.kept().overflowed
    }

    /// Registers every family with a table label as the picture has them now, and the tables by status.
    pub fn register(&self, registry: &mut Registry, state: &State) {
        let families = Families::default();
        let mut statuses: BTreeMap<SyncStatus, i64> = SyncStatus::ALL.iter().map(|status| (*status, 0)).collect();
        let mut kept = self.kept();
        kept.settle(state, self.most);
        let unknown = Counted::default();
        for (id, table) in seen(state) {
            *statuses.entry(table.status()).or_default() += 1;
            if kept.named.contains(id) {
                families.add(id.to_string(), table, kept.counted.get(id).unwrap_or(&unknown));
            }
        }
        if !kept.others.is_empty() {
            let (total, counted) = kept.sum_of_others(state);
            families.add_counts(OTHER.into(), &total, &counted);
        }
        drop(kept);
        families.register(registry);
        let by_state = Family::<super::ByState, Gauge>::default();
        for (status, count) in statuses {
            by_state.get_or_create(&super::ByState { state: status.as_str().into() }).set(count);
        }
        names::TABLES.register(registry, by_state);
    }
}

/// Tables that the source has and of which something is known.
fn seen(state: &State) -> impl Iterator<Item = (&TableId, &TableState)> {
    state.present().filter(|(_, table)| table.schema.is_some() || table.last.is_some())
}

impl Kept {
    /// Gone tables give up their label and what was counted under it; new ones get a label, or go to `_other`.
    fn settle(&mut self, state: &State, most: usize) {
        let present = |id: &TableId| state.tables.get(id).is_some_and(|table| !table.gone);
        self.named.retain(present);
        self.counted.retain(|id, _| present(id) || self.others.contains(id));
        for (id, _) in seen(state) {
            if self.named.contains(id) || self.others.contains(id) {
                continue;
            }
            if self.named.len() < most {
                self.named.insert(id.clone());
            } else {
                self.others.insert(id.clone());
                self.overflowed += 1;
            }
        }
    }

    /// The counters of all tables that were ever put under `_other`, gone ones included.
    fn sum_of_others(&self, state: &State) -> ([u64; 5], Counted) {
        let (mut total, mut counted) = ([0; 5], Counted::default());
        for id in &self.others {
            for (sum, count) in total.iter_mut().zip(state.tables.get(id).map_or([0; 5], |table| table.total)) {
                *sum += count;
            }
            if let Some(of) = self.counted.get(id) {
                counted.bytes += of.bytes;
                counted.compared_rows += of.compared_rows;
            }
        }
        (total, counted)
    }
}

/// Every family with a table label.
#[derive(Default)]
struct Families {
    events: Family<TableOp, CounterWithExemplar<TraceLabel>>,
    bytes: Family<Table, Counter>,
    snapshot_rows: Family<Table, Counter>,
    last_event: Family<Table, FloatGauge>,
    rows: Family<TableSide, Gauge>,
    estimated: Family<TableSide, Gauge>,
    in_sync: Family<Table, Gauge>,
    ratio: Family<Table, FloatGauge>,
    verified: Family<Table, FloatGauge>,
    drift: Family<Table, Gauge>,
    compared: Family<Table, Counter>,
    suspects: Family<Table, Gauge>,
    mismatched: Family<TableKind, Gauge>,
    unverified: Family<Table, Gauge>,
    progress: Family<Table, FloatGauge>,
    success: Family<Table, FloatGauge>,
}

impl Families {
    fn add_counts(&self, table: String, total: &[u64; 5], counted: &Counted) {
        for op in Op::ALL {
            let counter = self.events.get_or_create_owned(&TableOp { table: table.clone(), op: op.as_str().into() });
            let number = total[op.index()];
            match counted.traces[op.index()] {
                // The exemplar's value is what its own change added.
                Some((trace, micros)) if number > 0 => {
                    counter.inc_by(number - 1, None, None);
                    let at = UNIX_EPOCH + Duration::from_micros(u64::try_from(micros).unwrap_or(0));
                    counter.inc_by(1, Some(TraceLabel { trace_id: trace.to_string() }), Some(at));
                }
                _ => {
                    counter.inc_by(number, None, None);
                }
            }
        }
        let label = Table { table };
        self.snapshot_rows.get_or_create(&label).inc_by(total[Op::Snapshot.index()]);
        self.bytes.get_or_create(&label).inc_by(counted.bytes);
        self.compared.get_or_create(&label).inc_by(counted.compared_rows);
    }

    fn add(&self, table: String, known: &TableState, counted: &Counted) {
        self.add_counts(table.clone(), &known.total, counted);
        let label = Table { table: table.clone() };
        let seconds = |micros: i64| micros as f64 / 1e6;
        for (family, value) in [
            (&self.last_event, known.last.as_ref().map(|last| seconds(last.commit_micros))),
            (&self.ratio, known.sync_percentage().map(|percent| percent / 100.0)),
            (&self.verified, known.verified.as_ref().map(|verified| seconds(verified.micros))),
            (&self.progress, known.check.as_ref().map(|check| check.rows as f64 / check.expected.max(1) as f64)),
            (&self.success, counted.last_success.map(seconds)),
        ] {
            if let Some(value) = value {
                family.get_or_create(&label).set(value);
            }
        }
        for (side, rows) in [("source", known.source_rows), ("target", known.target_rows)] {
            if let Some(rows) = rows {
                let label = TableSide { table: table.clone(), side: side.into() };
                self.rows.get_or_create(&label).set(rows.rows.max(0));
                self.estimated.get_or_create(&label).set(i64::from(rows.estimated));
            }
        }
        self.in_sync.get_or_create(&label).set(i64::from(known.status() == SyncStatus::InSync));
        let drift = known.unverified.iter().any(|entry| !entry.columns.is_empty()) || known.stopped.is_some();
        self.drift.get_or_create(&label).set(i64::from(drift));
        self.unverified.get_or_create(&label).set(number(known.unjudged().count() as u64));
        if let Some(suspects) = counted.suspects {
            self.suspects.get_or_create(&label).set(number(suspects));
        }
        for verdict in [Verdict::Missing, Verdict::Extra, Verdict::Changed] {
            let label = TableKind { table: table.clone(), kind: verdict.as_str().into() };
            self.mismatched.get_or_create(&label).set(number(known.open.get(&verdict).copied().unwrap_or(0)));
        }
    }

    fn register(self, of: &mut Registry) {
        names::CDC_EVENTS.register(of, self.events);
        names::CDC_EVENT_BYTES.register(of, self.bytes);
        names::SNAPSHOT_ROWS.register(of, self.snapshot_rows);
        names::CDC_LAST_EVENT.register(of, self.last_event);
        names::TABLE_ROWS.register(of, self.rows);
        names::TABLE_ROWS_ESTIMATED.register(of, self.estimated);
        names::TABLE_IN_SYNC.register(of, self.in_sync);
        names::TABLE_SYNC_RATIO.register(of, self.ratio);
        names::TABLE_VERIFIED_THROUGH.register(of, self.verified);
        names::TABLE_SCHEMA_DRIFT.register(of, self.drift);
        names::COMPARE_ROWS.register(of, self.compared);
        names::COMPARE_SUSPECT_ROWS.register(of, self.suspects);
        names::COMPARE_MISMATCHED_ROWS.register(of, self.mismatched);
        names::COMPARE_UNVERIFIED_RANGES.register(of, self.unverified);
        names::COMPARE_PROGRESS.register(of, self.progress);
        names::COMPARE_LAST_SUCCESS.register(of, self.success);
    }
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
