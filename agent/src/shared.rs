//! What the line, the checks and the API share: the picture, the recent past, and the questions that the API may ask.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use plumbline_sdk::plugin::{HistoryReader, LogEntry};
use plumbline_sdk::{Error, Position, Result, TableId};
use serde::Serialize;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use utoipa::ToSchema;

use crate::connectors::{ConnectorAction, ConnectorView};
use crate::group::Membership;
use crate::state::State;
use crate::window::Window;

/// One agent's common ground. Locks are held for moments only, never across an await.
pub struct Shared {
    /// The name of this pipeline, in metrics and trace ids.
    pub pipeline: String,
    /// Microseconds since the Unix epoch when the agent started.
    pub started_micros: i64,
    picture: Mutex<Picture>,
    /// The applied position, for those who wait for a fence.
    pub applied: watch::Sender<Option<Position>>,
    /// Small news for the event stream: changes as they are received (bounded; slow readers miss some and are told).
    pub live: broadcast::Sender<LiveNews>,
    /// Raised with every change of the picture, for those who push updates.
    pub changed: watch::Sender<u64>,
    /// Asks the agent to do something.
    pub commands: mpsc::Sender<Command>,
    /// The asking side of history.
    pub history: Arc<dyn HistoryReader>,
    /// Whether the source streams (the line is connected).
    pub streaming: AtomicBool,
    /// Microseconds for which the line waited with a full queue.
    pub queue_full_micros: AtomicU64,
    connector: Mutex<Option<ConnectorView>>,
    /// Among the agents that share the pipeline; None: this one is alone.
    pub membership: Option<Arc<Membership>>,
    /// The checks of this agent, newest last, bounded.
    pub checks: Mutex<Vec<Check>>,
    /// The effective configuration with secrets hidden, as `/api/v1/config` shows it.
    pub config: serde_json::Value,
    /// Asks for the records of the stream that were kept aside; empty where the source keeps none.
    pub aside: OnceLock<AsideView>,
    /// The topic that brings a table's changes; empty where they do not come by Kafka.
    pub topic: OnceLock<TopicOf>,
}

/// Names the topic of a table.
pub type TopicOf = Box<dyn Fn(&TableId) -> String + Send + Sync>;

/// How many records could not be taken since this start, and the newest of them, newest last.
pub type AsideView = Box<dyn Fn() -> (u64, Vec<KeptAside>) + Send + Sync>;

/// A record of the stream that could not be taken as a change.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct KeptAside {
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: u64,
    /// Why; names, never values.
    pub reason: String,
}

/// State and window change together, under one lock.
pub struct Picture {
    /// The picture of all tables.
    pub state: State,
    /// The recent past of the stream.
    pub window: Window,
}

/// A change as it was received, for the live stream: no cell value.
#[derive(Debug, Clone, Serialize)]
pub struct LiveNews {
    /// `schema.table`.
    pub table: String,
    /// `read`, `insert`, `update`, `delete`, `truncate`.
    pub operation: &'static str,
    /// Commit time, microseconds since the epoch.
    pub commit_micros: i64,
    /// The transaction.
    pub position: String,
    /// The ordinal of the change in its transaction.
    pub ordinal: u64,
    /// The same at every delivery.
    pub trace_id: String,
}

/// Parts of [`Shared`] that are chosen by the host.
pub struct SharedParts {
    /// See [`Shared::pipeline`].
    pub pipeline: String,
    /// Now.
    pub started_micros: i64,
    /// The picture to start from.
    pub state: State,
    /// Bytes that the window may hold.
    pub window_bytes: usize,
    /// See [`Shared::commands`].
    pub commands: mpsc::Sender<Command>,
    /// See [`Shared::history`].
    pub history: Arc<dyn HistoryReader>,
    /// See [`Shared::config`].
    pub config: serde_json::Value,
    /// See [`Shared::membership`].
    pub membership: Option<Arc<Membership>>,
}

impl Shared {
    /// The common ground of a new agent.
    pub fn new(parts: SharedParts) -> Arc<Self> {
        Arc::new(Self {
            pipeline: parts.pipeline,
            started_micros: parts.started_micros,
            picture: Mutex::new(Picture { state: parts.state, window: Window::new(parts.window_bytes) }),
            applied: watch::channel(None).0,
            live: broadcast::channel(1024).0,
            changed: watch::channel(0).0,
            commands: parts.commands,
            history: parts.history,
            streaming: AtomicBool::new(false),
            queue_full_micros: AtomicU64::new(0),
            connector: Mutex::new(None),
            membership: parts.membership,
            checks: Mutex::new(Vec::new()),
            config: parts.config,
            aside: OnceLock::new(),
            topic: OnceLock::new(),
        })
    }

    /// Whether this agent does what only one of several may do; None: the others were not met yet.
    pub fn leads(&self) -> Option<bool> {
        self.membership.as_ref().map_or(Some(true), |membership| membership.leads())
    }

    /// Whether this agent is the one that compares a table.
    pub fn owns(&self, table: &TableId) -> bool {
        self.membership.as_ref().is_none_or(|membership| membership.owns(table))
    }

    /// What people may see of the connector, as of the last look; None: there is none, or it was not looked at yet.
    pub fn connector(&self) -> Option<ConnectorView> {
        self.connector.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps what people may see of the connector.
    pub fn show_connector(&self, shown: Option<ConnectorView>) {
        *self.connector.lock().unwrap_or_else(PoisonError::into_inner) = shown;
    }

    /// The picture, locked for a moment.
    pub fn picture(&self) -> MutexGuard<'_, Picture> {
        // A panic while the lock was held leaves counters that the next restart reads from history again.
        self.picture.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The checks, locked for a moment.
    pub fn checks(&self) -> MutexGuard<'_, Vec<Check>> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells those who push updates that something changed.
    pub fn touch(&self) {
        self.changed.send_modify(|number| *number += 1);
    }

    /// Asks the agent and waits for its answer.
    pub async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let stopping = || Error::disconnected("the agent is stopping");
        self.commands.send(command(reply)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}

/// A question or an order to the agent; each answers through its `reply`.
pub enum Command {
    /// Look at both databases' tables now.
    Discover {
        /// Answered with what was seen.
        reply: oneshot::Sender<Result<Discovered>>,
    },
    /// Watch a table that a rule excluded, or one that was not discovered yet.
    AddTable {
        /// The table's name, with or without schema, as the catalog spells it.
        table: String,
        /// Whether to watch it although a rule excludes it.
        override_rule: bool,
        /// Whether it was watched already (false: newly added). `Rejected` names why not.
        reply: oneshot::Sender<std::result::Result<AddedTable, AddTableError>>,
    },
    /// Compare tables now.
    Check {
        /// These; empty: all.
        tables: Vec<TableId>,
        /// Rows, or counts only.
        full: bool,
        /// The check's id.
        reply: oneshot::Sender<Result<u64>>,
    },
    /// Stop a check that runs or waits.
    CancelCheck {
        /// Its id.
        id: u64,
        /// Whether there was one to stop.
        reply: oneshot::Sender<Result<bool>>,
    },
    /// Stop or go on checking a table.
    Pause {
        /// Which.
        table: TableId,
        /// Stop, or go on.
        paused: bool,
        /// Done.
        reply: oneshot::Sender<Result<()>>,
    },
    /// Read the newest rows of a table on both sides.
    Latest {
        /// Which.
        table: TableId,
        /// At most so many.
        limit: u32,
        /// What was read.
        reply: oneshot::Sender<Result<Latest>>,
    },
    /// Do something with the connector that feeds the topics.
    Connector {
        /// What.
        action: ConnectorAction,
        /// Passed on to Kafka Connect, and looked at since. `Rejected`: it cannot be done with the connector as it is.
        reply: oneshot::Sender<Result<()>>,
    },
    /// The applier's migration log.
    MigrationLog {
        /// At most so many.
        limit: u32,
        /// Only of this table.
        table: Option<TableId>,
        /// Newest first.
        reply: oneshot::Sender<Result<Vec<LogEntry>>>,
    },
}

/// What both databases have.
#[derive(Debug, Clone, Default)]
pub struct Discovered {
    /// Tables of the source, in order, with the rule that excludes each, if any.
    pub source: Vec<(TableId, Option<String>)>,
    /// Tables of the target.
    pub target: Vec<TableId>,
}

/// A table was added, or was there.
#[derive(Debug, Clone)]
pub struct AddedTable {
    /// Its name in the catalog's spelling.
    pub table: TableId,
    /// Whether it is newly watched.
    pub added: bool,
}

/// Why a table was not added.
#[derive(Debug)]
pub enum AddTableError {
    /// The source has no such table.
    NotFound,
    /// A rule excludes it, and the request did not override it.
    Excluded(String),
    /// The agent could not look.
    Failed(Error),
}

/// A comparison that was asked for or ran by itself.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    /// Ascending.
    pub id: u64,
    /// Who asked: `schedule`, `api`, `start`.
    pub asked_by: &'static str,
    /// `rows` or `counts`.
    pub mode: &'static str,
    /// `queued`, `running`, `done`, `cancelled`.
    pub state: &'static str,
    /// Tables to check.
    pub tables: Vec<String>,
    /// Results so far, by table.
    pub results: BTreeMap<String, TableReport>,
    /// Microseconds since the epoch.
    pub started_micros: Option<i64>,
    /// Microseconds since the epoch.
    pub ended_micros: Option<i64>,
}

/// The result of comparing one table; `compare --json` prints it (FACE.md section 2).
#[derive(Debug, Clone, Serialize, Default)]
pub struct TableReport {
    /// `schema.table`.
    pub table: String,
    /// The partner on the target; None: there is none.
    pub target: Option<String>,
    /// `equal`, `different`, `unverified`.
    pub verdict: &'static str,
    /// Exact rows on the source; None: could not be counted.
    pub rows_source: Option<u64>,
    /// Exact rows on the target.
    pub rows_target: Option<u64>,
    /// Row keys compared.
    pub rows_compared: u64,
    /// Exact, also above the bound of `findings`.
    pub findings_total: u64,
    /// By verdict, exact.
    pub by_verdict: BTreeMap<&'static str, u64>,
    /// The first ones.
    pub findings: Vec<ReportFinding>,
    /// Cells that differ only in representation, accepted by policy, by column.
    pub representation_only: BTreeMap<String, u64>,
    /// What could not be judged.
    pub unverified: Vec<crate::state::Unverified>,
    /// What else to know.
    pub notes: Vec<String>,
    /// Through where it was proved equal (or different).
    pub verified_through: Option<VerifiedThrough>,
    /// How long it took.
    pub seconds: f64,
    /// `verified_through` as a position, for counts that go on from it.
    #[serde(skip)]
    pub at: Option<Position>,
}

/// A finding in a report.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ReportFinding {
    /// `missing`, `extra`, `changed`.
    pub verdict: &'static str,
    /// Key columns as text; `{}` for a table without key.
    pub key: BTreeMap<String, String>,
    /// The columns that differ.
    pub columns: Vec<String>,
    /// `position` or `time`.
    pub settled_by: &'static str,
    /// Without key: copies of this row on the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copies_source: Option<u64>,
    /// Without key: copies of this row on the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copies_target: Option<u64>,
    /// Cell values of both sides by column, only where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, Vec<Option<String>>>>)]
    pub values: Option<BTreeMap<String, Cells>>,
}

/// A cell's text on the source and on the target; None: NULL.
pub type Cells = (Option<String>, Option<String>);

/// Through where a table was proved.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct VerifiedThrough {
    /// The source position as text.
    pub position: String,
    /// RFC 3339 UTC with microseconds.
    pub time: String,
    /// Over how many rows.
    pub rows: u64,
}

/// The newest rows of both sides.
#[derive(Debug, Clone, Default)]
pub struct Latest {
    /// Of the source: columns by name.
    pub source: Vec<Vec<(String, Option<String>)>>,
    /// Of the target.
    pub target: Vec<Vec<(String, Option<String>)>>,
}
