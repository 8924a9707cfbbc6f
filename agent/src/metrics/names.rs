//! Every metric name with what it says, once. The names follow OpenMetrics: the unit, `_total` and `_info` are added by the encoder.
//!
//! | label | values |
//! |---|---|
//! | `pipeline` | on all but the agent's own |
//! | `table` | `schema.table`; at most as many as the settings allow, then `_other` (see `tables.rs`) |
//! | `op` | read, insert, update, delete, truncate |
//! | `stage` | of a latency: capture (commit to received, by the binlog), transport (the same by Debezium and Kafka), process, end_to_end; of an error: the component |
//! | `topic`, `partition` | as Kafka names them; at most as many as tables, then `_other` |
//! | `connector`, `task` | our connector and the sinks that read its topics |
//! | `dependency` | mysql, postgres, history, kafka, connect |
//! | `db_system` | mysql, postgresql, sqlite |
//! | `queue` | stream (batches), news, orders, checks (messages), traces (changes) |
//! | `plugin`, `kind`, `mode`, `result`, `reason`, `state`, `side`, `exporter`, `method`, `route`, `status_code` | words of this program |
//!
//! What is not known is absent, never 0.

use prometheus_client::registry::{Metric, Registry, Unit};

/// A metric's name without prefix, unit and suffix.
pub struct Name {
    name: &'static str,
    unit: Option<Unit>,
    help: &'static str,
}

impl Name {
    const fn of(name: &'static str, help: &'static str) -> Self {
        Self { name, unit: None, help }
    }
    const fn seconds(name: &'static str, help: &'static str) -> Self {
        Self { name, unit: Some(Unit::Seconds), help }
    }
    const fn bytes(name: &'static str, help: &'static str) -> Self {
        Self { name, unit: Some(Unit::Bytes), help }
    }
    /// Registers `metric` under this name.
    pub fn register(&self, registry: &mut Registry, metric: impl Metric) {
        match &self.unit {
            Some(unit) => registry.register_with_unit(self.name, self.help, unit.clone(), metric),
            None => registry.register(self.name, self.help, metric),
        }
    }
}

// The change stream.
pub const CDC_EVENTS: Name = Name::of("cdc_events", "Changes and snapshot reads since the beginning, also over restarts");
pub const CDC_EVENT_BYTES: Name = Name::of("cdc_event_bytes", "Bytes of row images since this start");
pub const CDC_RECORDS: Name = Name::of("cdc_records", "Source records since the beginning: changes, duplicates and control");
pub const CDC_DUPLICATES: Name = Name::of("cdc_duplicates", "Changes delivered again and not counted again");
pub const CDC_TRANSACTIONS: Name = Name::of("cdc_transactions", "Whole source transactions since this start");
pub const CDC_EVENTS_DISCARDED: Name = Name::of("cdc_events_discarded", "Source records that are not counted as changes, by reason");
pub const CDC_ERRORS: Name = Name::of("cdc_errors", "Errors by stage");
pub const SCHEMA_CHANGES: Name = Name::of("schema_changes", "Schema statements seen since this start");

// How far behind.
pub const CDC_LATENCY: Name = Name::seconds("cdc_latency", "Time from the commit on the source to a stage, per transaction");
pub const CDC_LAG: Name = Name::seconds("cdc_lag", "Now minus the commit of the newest stored transaction while others wait; 0 when caught up; absent while the source is away");
pub const CDC_BACKLOG: Name = Name::bytes("cdc_backlog", "From our position to the end of the source's binlog; absent where the place of our position is not known");
pub const CDC_LAST_EVENT: Name = Name::seconds("cdc_last_event_timestamp", "Commit time of the newest change");
pub const CDC_LAST_RECEIVED: Name = Name::seconds("cdc_last_received_timestamp", "When the last batch of the stream came");
pub const SOURCE_BINLOG_WRITTEN: Name = Name::bytes("source_binlog_written", "What the source has added to its binlog since this start, by whomever, as the source says itself");
pub const SOURCE_BINLOG_RETENTION: Name = Name::seconds("source_binlog_retention", "How long the source keeps its binlogs; absent where it never deletes them by itself");
pub const SOURCE_BINLOG_RUNWAY: Name = Name::seconds("source_binlog_runway", "How long at least until the source may delete the binlog that is needed next; absent where that is not known or never");

// Kafka and Kafka Connect, where changes come by them.
pub const KAFKA_CONSUMER_LAG: Name = Name::of("kafka_consumer_lag_records", "Records that are not stored yet, by topic and partition, as of some seconds ago; absent where the end is not known");
pub const KAFKA_RECORDS_ASIDE: Name = Name::of("kafka_records_aside", "Records since this start that could not be taken as changes, by reason; they are counted as control");
pub const KAFKA_REBALANCES: Name = Name::of("kafka_rebalances", "How often the consumer group gave partitions to this agent, or took them, since this start");
pub const CONNECTOR_STATE: Name = Name::of("connector_state", "The state of our connector, and of sinks that read its topics: 1 for the one that holds, else 0");
pub const CONNECTOR_TASK_STATE: Name = Name::of("connector_task_state", "The state of a task of our connector: 1 for the one that holds, else 0");
pub const CONNECTOR_RESTARTS: Name = Name::of("connector_restarts", "How often our connector was started again, by the agent or on request, since this start");

// The copy of existing rows.
pub const SNAPSHOT_RUNNING: Name = Name::of("snapshot_running", "Whether existing rows are being copied: 1 or 0");
pub const SNAPSHOT_TABLES: Name = Name::of("snapshot_tables", "Tables by the state of their copy");
pub const SNAPSHOT_ROWS: Name = Name::of("snapshot_rows", "Existing rows copied since the beginning");

// Tables.
pub const TABLE_ROWS: Name = Name::of("table_rows", "Rows by side: an exact baseline plus what the stream added");
pub const TABLE_ROWS_ESTIMATED: Name = Name::of("table_rows_estimated", "Whether the number of rows is an estimate: 1 or 0");
pub const TABLE_IN_SYNC: Name = Name::of("table_in_sync", "Whether the table is proved equal and caught up: 1 or 0");
pub const TABLE_SYNC_RATIO: Name = Name::of("table_sync_ratio", "Target rows over source rows; a count, not a proof");
pub const TABLE_VERIFIED_THROUGH: Name = Name::seconds("table_verified_through_timestamp", "When the table was last proved equal");
pub const TABLE_SCHEMA_DRIFT: Name = Name::of("table_schema_drift", "Whether columns cannot be compared or applied: 1 or 0");
pub const TABLES: Name = Name::of("tables", "Tables by status");

// Comparisons of whole tables.
pub const COMPARE_RUNS: Name = Name::of("compare_runs", "Comparisons of a table by result");
pub const COMPARE_DURATION: Name = Name::seconds("compare_duration", "Time that the comparison of a table takes");
pub const COMPARE_ROWS: Name = Name::of("compare_rows", "Row keys compared since this start");
pub const COMPARE_SUSPECT_ROWS: Name = Name::of("compare_suspect_rows", "Rows that differed and wait to be read again before they are judged; never a finding yet");
pub const COMPARE_MISMATCHED_ROWS: Name = Name::of("compare_mismatched_rows", "Open findings, proved");
pub const COMPARE_UNVERIFIED_RANGES: Name = Name::of("compare_unverified_ranges", "Parts of a table that could not be judged");
pub const COMPARE_PROGRESS: Name = Name::of("compare_progress_ratio", "How far a running comparison is");
pub const COMPARE_LAST_SUCCESS: Name = Name::seconds("compare_last_success_timestamp", "When a comparison of the table last came to a verdict, since this start");

// Changes checked one by one.
pub const EVENT_VERIFICATIONS: Name = Name::of("event_verifications", "Changes checked one by one on the target, by result");
pub const EVENT_VISIBLE: Name = Name::seconds("event_visible", "Time from the commit on the source until the change was seen on the target");

// What the agent leans on.
pub const DEPENDENCY_UP: Name = Name::of("dependency_up", "Whether an outside component answers: 1 or 0");
pub const DEPENDENCY_PROBE: Name = Name::seconds("dependency_probe_duration", "Time in which an outside component answers a small question that is asked every few seconds");
pub const DB_OPERATION: Name = Name::seconds("db_operation_duration", "Time of a call to a database as the agent sees it; reads of many rows include the time in which the agent takes them");
pub const HISTORY_WRITES: Name = Name::of("history_writes", "Batches written to history by result");
pub const PLUGIN_UP: Name = Name::of("plugin_up", "Whether a plugin works: 1 or 0");
pub const PLUGIN_INFO: Name = Name::of("plugin_info", "A plugin in use");
pub const QUEUE_DEPTH: Name = Name::of("queue_depth", "What waits in a queue");
pub const QUEUE_CAPACITY: Name = Name::of("queue_capacity", "What may wait in a queue at most");
pub const QUEUE_FULL: Name = Name::seconds("queue_full", "Time that the source waited for the sinks");

// Cutting over.
pub const CUTOVER_READY: Name = Name::of("cutover_ready", "Whether it is safe to cut over: 1 or 0");
pub const CUTOVER_BLOCKERS: Name = Name::of("cutover_blockers", "Reasons against cutting over");

// The agent itself: without the label `pipeline`.
pub const OTEL_SPANS_ENDED: Name = Name::of("otel_spans_ended", "Spans that were built, or would have been");
pub const OTEL_SPANS_EXPORTED: Name = Name::of("otel_spans_exported", "Spans that the collector took");
pub const OTEL_SPANS_DROPPED: Name = Name::of("otel_spans_dropped", "Spans that were lost");
pub const EXPORT_ERRORS: Name = Name::of("export_errors", "Exports that failed");
pub const METRIC_LABEL_OVERFLOW: Name = Name::of("metric_label_overflow", "Tables that were put under the label `_other` since this start");
pub const HTTP_REQUEST: Name = Name::seconds("http_request_duration", "Time to answer a request, by route");
pub const BUILD: Name = Name::of("build", "The agent's version");

// Of every process that Prometheus knows: without the prefix too.
pub const PROCESS_CPU: Name = Name::seconds("process_cpu", "Processor time used, in user and system mode");
pub const PROCESS_RESIDENT_MEMORY: Name = Name::bytes("process_resident_memory", "Memory in use");
pub const PROCESS_VIRTUAL_MEMORY: Name = Name::bytes("process_virtual_memory", "Address space in use");
pub const PROCESS_OPEN_FDS: Name = Name::of("process_open_fds", "Open file descriptors");
pub const PROCESS_MAX_FDS: Name = Name::of("process_max_fds", "File descriptors that may be open at most");
pub const PROCESS_START_TIME: Name = Name::seconds("process_start_time", "When the process started, since the Unix epoch");
