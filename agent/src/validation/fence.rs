//! The fence: how two reads at two moments are made to speak of one state.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use plumbline_sdk::{Batch, Coordinate, Error, Event, Op, Position, Reader, Result, Row, TableId, TransactionMark};

use crate::shared::Shared;
use crate::validation::keys;
use crate::validation::plan::Plan;
use crate::window::events_between;

/// What settles a difference.
#[derive(Clone)]
pub enum Fence {
    /// Our applier writes the target: the stream says what every row must be at the applier's position.
    Stream(Arc<Shared>),
    /// Somebody else writes it: a row that differs is read again after this time.
    Time(Duration),
    /// Somebody else writes it from the topics that we read: what its offsets say settles a difference.
    Sink {
        /// What the stream said.
        shared: Arc<Shared>,
        /// Its offsets.
        sink: Arc<dyn OtherSink>,
        /// Where they are not to be had: see [`Fence::Time`].
        settle: Duration,
    },
}

impl Fence {
    /// How long a difference is left alone where time settles it.
    pub fn settle_time(&self) -> Option<Duration> {
        match self {
            Self::Stream(_) => None,
            Self::Time(settle) | Self::Sink { settle, .. } => Some(*settle),
        }
    }
}

/// A sink that is not ours, and that reads the same topics.
#[async_trait]
pub trait OtherSink: Send + Sync {
    /// What it has surely applied of `table`, and its name. None: no sink is known to read the table's topic.
    async fn applied(&self, table: &TableId) -> Result<Option<(String, Position)>>;
    /// The position after the newest record of `table`; other tables' topics are not in it.
    async fn end(&self, table: &TableId) -> Result<Position>;
}

/// Both views are open, and what the stream did between them.
pub struct Views {
    /// What the target shows: A, exactly; with [`Fence::Time`] what the source showed at least.
    pub at: Option<Position>,
    /// What the stream says of keys that it touched between the source's view and the target's.
    pub expected: Expected,
}

/// Rows as the stream left them at the target's position, by canonical key.
#[derive(Default)]
pub struct Expected {
    /// None: deleted.
    pub rows: HashMap<Vec<u8>, ExpectedRow>,
    /// For a table without key: rows removed and added, in order.
    pub removed: Vec<Row>,
    /// See `removed`.
    pub added: Vec<Row>,
}

/// One of them.
pub struct ExpectedRow {
    /// The last after-image; None: the last event deleted it.
    pub row: Option<Row>,
    /// Whether a pair of this key was judged.
    pub seen: bool,
}

/// Why views could not be opened or had to be given up.
#[derive(Debug)]
pub enum Lost {
    /// The table changed its shape, was truncated, or the window was too small: begin the chunk again.
    Restart(&'static str),
    /// A write crossed the view of a table without key: begin again, at once and often.
    Crossed,
    /// Could not look.
    Error(Error),
}

impl From<Error> for Lost {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// How long the applier may take to pass the source's view before the comparison gives up for now.
const PATIENCE: Duration = Duration::from_secs(120);
/// Progress inside a large transaction, or a moment behind: look again after this.
pub(super) const AGAIN: Duration = Duration::from_millis(10);
/// Without GTIDs, what the log held when the window began must have become visible before a view may rely on it.
const SETTLED_COMMIT: Duration = Duration::from_secs(2);

/// Opens both views: the source's first, then, when the applier has passed everything that the source's view can show, the target's.
pub async fn open(fence: &Fence, source: &mut dyn Reader, target: &mut dyn Reader, plan: &Plan) -> std::result::Result<Views, Lost> {
    let view = source.begin().await?;
    let Fence::Stream(shared) = fence else {
        target.begin().await?;
        return Ok(Views { at: view.low, expected: Expected::default() });
    };
    let high = view.high.ok_or_else(|| Error::rejected("the source's reader gave no upper bound of its view"))?;
    wait_applied(shared, high).await?;
    let opened = Instant::now();
    let at = loop {
        let at = target.begin().await?.low.ok_or_else(|| Error::rejected("the target has no progress of our applier"))?;
        // After a start the target may be ahead of the stream: what it has must have come by, or nobody knows what it should be.
        let known = shared.picture().window.reached(&at);
        if at.partial.is_none() && at.reached(high) && known {
            break at;
        }
        target.end().await?;
        if opened.elapsed() > PATIENCE {
            return Err(Error::rejected("the stream did not catch up with what the target has").into());
        }
        tokio::time::sleep(AGAIN).await;
    };
    if view.low.is_none() {
        tokio::time::sleep(SETTLED_COMMIT).await;
    } else {
        settled_start(shared).await;
    }
    let low = view.low.unwrap_or_else(|| Position { server: at.server.clone(), ..Position::default() });
    let batches = since(shared, &low).ok_or(Lost::Restart("the stream ran past what is remembered of it"))?;
    if plan.key() > 0 {
        let expected = expected(plan, &batches, &low, &at)?;
        return Ok(Views { at: Some(at), expected });
    }
    // Without key an event cannot be counted twice without harm: nobody may have written between the view's two bounds.
    if events_between(&batches, &plan.schema.id, &low, Some(&at)).any(|(mark, _)| crossed(mark, &low, high)) {
        return Err(Lost::Crossed);
    }
    let low = if low.gtids.is_some() { low } else { Position { at: high, ..low } };
    let expected = expected(plan, &batches, &low, &at)?;
    Ok(Views { at: Some(at), expected })
}

/// The window's batches, if every transaction that `low` does not include is still among them. Without GTIDs: if none was dropped at all.
pub(super) fn since(shared: &Shared, low: &Position) -> Option<Vec<Arc<Batch>>> {
    let window = &shared.picture().window;
    if low.gtids.is_some() { window.after(low) } else { window.since(0) }
}

/// Waits until what came before the window began is visible in MySQL: records of another log do not say which transactions they were.
pub(super) async fn settled_start(shared: &Shared) {
    let wait = {
        let picture = shared.picture();
        if picture.state.comes_by_other_log() { SETTLED_COMMIT.saturating_sub(picture.window.age()) } else { Duration::ZERO }
    };
    tokio::time::sleep(wait).await;
}

/// Whether a transaction may or may not be in a view with these bounds. Without GTIDs a moment must have passed since its commit.
fn crossed(mark: &TransactionMark, low: &Position, high: Coordinate) -> bool {
    let settled = low.gtids.is_none() && crate::clock::now_micros() - mark.commit_micros > 2 * SETTLED_COMMIT.as_micros() as i64;
    mark.at <= high && !settled
}

async fn wait_applied(shared: &Shared, high: Coordinate) -> Result<()> {
    let mut applied = shared.applied.subscribe();
    let passed = applied.wait_for(|position| position.as_ref().is_some_and(|position| position.partial.is_none() && position.reached(high)));
    match tokio::time::timeout(PATIENCE, passed).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err(Error::rejected("the agent is stopping")),
        Err(_) => Err(Error::rejected(format!("the target is behind: it did not reach `{high}` within {} s", PATIENCE.as_secs()))),
    }
}

/// What the stream says of every key that it touched after `low`, up to `upto`.
pub fn expected(plan: &Plan, batches: &[Arc<Batch>], low: &Position, upto: &Position) -> std::result::Result<Expected, Lost> {
    let mut expected = Expected::default();
    let mut key = Vec::new();
    for (_, event) in events_between(batches, &plan.schema.id, low, Some(upto)) {
        let Event::Change(change) = event else { return Err(Lost::Restart("the table's shape changed between the two reads")) };
        if change.op == Op::Truncate {
            return Err(Lost::Restart("the table was truncated between the two reads"));
        }
        if !same_columns(plan, change) {
            return Err(Lost::Restart("the table's columns changed between the two reads"));
        }
        if plan.key() == 0 {
            expected.removed.extend(change.before.clone());
            expected.added.extend(change.after.clone());
            continue;
        }
        for (row, gone) in [(&change.before, true), (&change.after, false)] {
            if let Some(row) = row {
                keys::of_row(&plan.source_plan, row, &plan.stream_columns, &mut key)?;
                let now = if gone { None } else { Some(row.clone()) };
                expected.rows.insert(key.clone(), ExpectedRow { row: now, seen: false });
            }
        }
    }
    Ok(expected)
}

/// Whether a row of this event has its columns where the plan thinks they are.
pub fn same_columns(plan: &Plan, change: &plumbline_sdk::ChangeEvent) -> bool {
    Arc::ptr_eq(&plan.schema, &change.table)
        || change.table.columns.len() == plan.schema.columns.len()
            && plan.stream_columns.iter().all(|&i| change.table.columns[i].name == plan.schema.columns[i].name)
}
