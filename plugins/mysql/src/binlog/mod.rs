//! The plugin `mysql-binlog`: every change, straight from MySQL's binlog, in whole transactions.
//!
//! The driver brings events; their rows are decoded here. Every checksum is verified, everything unknown that the server does not mark
//! as ignorable is refused: what cannot be read exactly is never skipped in silence.

mod assemble;
pub mod bytes;
pub mod charset;
mod charset_tables;
pub mod ddl;
pub mod json;
pub mod number;
pub mod table_map;
pub mod time;
pub mod walk;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use mysql_async::binlog::events::Event as WireEvent;
use mysql_async::prelude::Queryable;
use mysql_async::{BinlogStream, BinlogStreamRequest, Conn, GnoInterval, Sid as WireSid};
use plumbline_sdk::{Batch, Coordinate, Error, ErrorKind, Plugin, Position, Result, Source};

use crate::binlog::assemble::Assembler;
use crate::config::{BinlogConfig, MysqlConfig};
use crate::connect::{connect, error};
use crate::discovery::{Watch, tables};
use crate::log::{coordinate, end_of_log, gtid_executed};
use crate::preflight;

/// A position that moved without any change of ours is told at most this often.
const POSITION_INTERVAL: Duration = Duration::from_millis(100);

/// Follows the binlog of one server.
pub struct MysqlBinlog {
    config: BinlogConfig,
    watch: Arc<Watch>,
    stream: Option<BinlogStream>,
    /// An event that was taken from the stream and not yet taken in: whoever drops `next` loses nothing.
    pending: Option<WireEvent>,
    /// What went wrong after whole transactions that are handed over first.
    failed: Option<Error>,
    assembler: Assembler,
    last_event: Instant,
    last_position: Instant,
}

impl MysqlBinlog {
    /// A source that watches what discovery watches.
    pub fn with_watch(config: BinlogConfig, watch: Arc<Watch>) -> Self {
        let assembler = Assembler::new(config.mysql.database.clone(), Arc::clone(&watch));
        Self { config, watch, stream: None, pending: None, failed: None, assembler, last_event: Instant::now(), last_position: Instant::now() }
    }

    fn said(&self, doing: &str, cause: mysql_async::Error) -> Error {
        binlog_error(&self.config.mysql, doing, cause)
    }

    async fn start(&mut self, from: Option<&Position>) -> Result<()> {
        self.stream = None;
        self.pending = None;
        self.failed = None;
        let mut conn = connect(&self.config.mysql).await?;
        let facts = preflight::facts(&mut conn, &self.config.mysql).await?;
        preflight::require_binlog(&facts, &self.config.mysql)?;
        // What has a key, and which: rows of new tables may come before discovery sees them.
        self.assembler.learn(tables(&mut conn, &self.config.mysql, &self.watch).await?);
        let gtids = gtid_executed(&mut conn, &self.config.mysql).await?;
        let end = end_of_log(&mut conn, &self.config.mysql).await?.ok_or_else(|| preflight::no_binlog(&self.config.mysql))?;
        let position = match from {
            Some(position) => {
                self.check_resume(&mut conn, position, &facts.server_uuid).await?;
                let mut position = position.clone();
                if position.server != facts.server_uuid {
                    // Another server that has all we have: its log files are its own.
                    position.server.clone_from(&facts.server_uuid);
                    position.file.clear();
                    position.at = Coordinate::default();
                }
                position
            }
            None => {
                // With GTIDs: what was in the log but not yet executed when we asked will come. The place is the start of the file until the
                // server, which skips what we have, has told how far it got.
                let at = if gtids.is_some() { Coordinate { offset: 4, ..end.1 } } else { end.1 };
                Position { server: facts.server_uuid.clone(), file: end.0.clone(), at, gtids, ..Position::default() }
            }
        };
        let config = self.config.mysql.clone();
        let said = |cause| binlog_error(&config, "the binlog could not be asked for", cause);
        let nanos = self.config.heartbeat.as_nanos();
        conn.query_drop(format!("SET @master_heartbeat_period = {nanos}, @source_heartbeat_period = {nanos}")).await.map_err(said)?;
        let request = BinlogStreamRequest::new(self.config.server_id);
        let file = position.file.clone();
        let request = match &position.gtids {
            Some(gtids) => {
                let sids = gtids.iter().map(|(sid, intervals)| {
                    let intervals = intervals.iter().map(|&(first, last)| GnoInterval::new(first, last + 1)).collect();
                    let wire = WireSid::new(sid.uuid).with_intervals(intervals);
                    match sid.tag.as_deref().map(|tag| mysql_common::packets::Tag::new(tag.to_owned())) {
                        Some(Ok(tag)) => wire.with_tag(tag),
                        _ => wire,
                    }
                });
                request.with_gtid().with_gtid_set(sids.collect::<Vec<_>>())
            }
            // A place above 4 GiB cannot be asked for: the file is read again from its start, and sinks skip what they have.
            None => request.with_filename(file.as_bytes()).with_pos(if position.at.offset > u64::from(u32::MAX) { 4 } else { position.at.offset }),
        };
        let stream = conn.get_binlog_stream(request).await.map_err(said)?;
        self.stream = Some(stream);
        self.last_event = Instant::now();
        self.assembler.restart(position);
        Ok(())
    }

    /// Whether this server can go on from a stored position without a hole.
    async fn check_resume(&self, conn: &mut Conn, position: &Position, server_uuid: &str) -> Result<()> {
        let Some(gtids) = &position.gtids else {
            if position.server != server_uuid {
                return Err(Error::fatal(format!(
                    "the stored position is of server `{}`, and this is `{server_uuid}`: without GTIDs a position means nothing on another server. Point to the old server, or begin anew with an empty data folder",
                    position.server
                )));
            }
            return Ok(());
        };
        let mine = gtids.to_string();
        let row: Option<(u8, u8, String, String)> = conn
            .exec_first(
                "SELECT GTID_SUBSET(@@GLOBAL.gtid_purged, ?), GTID_SUBSET(?, @@GLOBAL.gtid_executed), \
                 GTID_SUBTRACT(@@GLOBAL.gtid_purged, ?), GTID_SUBTRACT(?, @@GLOBAL.gtid_executed)",
                (&mine, &mine, &mine, &mine),
            )
            .await
            .map_err(|cause| self.said("the stored position could not be checked", cause))?;
        match row {
            Some((0, _, lost, _)) => Err(Error::fatal(format!(
                "PURGED: the server has deleted binlogs that were not read yet (transactions `{lost}`): those changes are lost to the stream. \
                 Compare all tables, and begin anew with an empty data folder; keep binlogs longer with `SET PERSIST binlog_expire_logs_seconds = 604800`"
            ))),
            Some((_, 0, _, ahead)) => Err(Error::fatal(format!(
                "the stored position is ahead of this server by `{ahead}`: it is a replica that lags, or it lost its last transactions. Wait for it, or point to the server that has them"
            ))),
            _ => Ok(()),
        }
    }

    /// The next batch. What went wrong is told after the whole transactions that came before it.
    async fn read(&mut self, wait: Duration) -> Result<Option<Batch>> {
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        match self.read_on(wait).await {
            Err(failed) if self.assembler.has_events() => {
                self.failed = Some(failed);
                Ok(Some(self.assembler.batch()))
            }
            other => other,
        }
    }

    async fn read_on(&mut self, wait: Duration) -> Result<Option<Batch>> {
        let deadline = Instant::now() + wait;
        loop {
            if self.pending.is_some() {
                self.take().await?;
            }
            if self.assembler.full() {
                return Ok(Some(self.assembler.batch()));
            }
            let Some(stream) = self.stream.as_mut() else {
                return Err(Error::disconnected("the binlog stream is not connected"));
            };
            let ready = stream.next().now_or_never();
            let event = match ready {
                Some(event) => event,
                None if self.assembler.has_events() => {
                    // Nothing more is there at the moment: hand over what is whole.
                    self.last_position = Instant::now();
                    return Ok(Some(self.assembler.batch()));
                }
                None => {
                    let until = if self.assembler.moved() { deadline.min(self.last_position + POSITION_INTERVAL) } else { deadline };
                    match tokio::time::timeout_at(until.into(), stream.next()).await {
                        Ok(event) => event,
                        Err(_) => {
                            if self.last_event.elapsed() > self.config.heartbeat * 3 {
                                self.stream = None;
                                return Err(Error::disconnected(format!(
                                    "MySQL at `{}:{}` has sent nothing, not even a heartbeat, for {} s: the connection is dead",
                                    self.config.mysql.host,
                                    self.config.mysql.port,
                                    self.last_event.elapsed().as_secs()
                                )));
                            }
                            if self.assembler.moved() && self.last_position.elapsed() >= POSITION_INTERVAL {
                                self.last_position = Instant::now();
                                return Ok(Some(self.assembler.batch()));
                            }
                            if Instant::now() >= deadline {
                                return Ok(Some(Batch::default()));
                            }
                            continue;
                        }
                    }
                }
            };
            match event {
                Some(Ok(event)) => {
                    self.last_event = Instant::now();
                    self.pending = Some(event);
                }
                Some(Err(cause)) => return Err(self.said("the binlog stream broke", cause)),
                None => return Err(Error::disconnected("MySQL ended the binlog stream")),
            }
        }
    }

    /// Takes in the pending event.
    async fn take(&mut self) -> Result<()> {
        let Some(event) = &self.pending else { return Ok(()) };
        if !self.assembler.needs_keys() {
            self.assembler.take(event)?;
        }
        while self.assembler.needs_keys() {
            // A table of a shape that nobody has seen yet: its unique key and its generated columns are known to the catalog only.
            let mut conn = connect(&self.config.mysql).await?;
            let known = tables(&mut conn, &self.config.mysql, &self.watch).await?;
            let _ = conn.disconnect().await;
            self.assembler.learn(known);
            self.assembler.take(event)?;
        }
        self.pending = None;
        Ok(())
    }
}

/// What an error of the binlog dump asks of the caller. The numbers are the same for many causes; the texts tell them apart.
fn binlog_error(config: &MysqlConfig, doing: &str, cause: mysql_async::Error) -> Error {
    let text = match &cause {
        mysql_async::Error::Server(server) if server.code == 1236 => server.message.clone(),
        mysql_async::Error::Server(server) if server.code == 1045 => {
            return Error::new(ErrorKind::Config, format!("user `{}` may not read the binlog: `GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO '{}'@'%'`", config.user, config.user))
                .caused_by(cause);
        }
        _ => return error(config, doing, cause),
    };
    let (kind, message) = if text.contains("same server_uuid/server_id") {
        (ErrorKind::Disconnected, "another replica or agent uses our server id and took the stream: set `PLUMBLINE_SOURCE_SERVER_ID` to a number of its own".to_owned())
    } else if text.contains("Could not find first log file") || text.contains("purged") {
        (ErrorKind::Fatal, "PURGED: the server has deleted the binlog that was to be read: those changes are lost to the stream. Compare all tables, and begin anew with an empty data folder".to_owned())
    } else if text.contains("more GTIDs than the source") {
        (ErrorKind::Fatal, "the stored position is ahead of this server: it lost its last transactions, or another server stands in its place".to_owned())
    } else if text.contains("position > file size") || text.contains("truncated") || text.contains("exceeded max_allowed_packet") {
        (ErrorKind::Fatal, "the stored position does not fit the server's binlog: it was reset, or another server stands in its place".to_owned())
    } else {
        (ErrorKind::Disconnected, doing.to_owned())
    };
    Error::new(kind, message).caused_by(cause)
}

impl Plugin for MysqlBinlog {
    const NAME: &'static str = "mysql-binlog";
    type Config = BinlogConfig;
    fn new(config: BinlogConfig) -> Result<Self> {
        if config.server_id == 0 {
            return Err(Error::config("the server id is 0; any other number that no server and no replica has would be accepted"));
        }
        Ok(Self::with_watch(config, Watch::new(Vec::new(), Vec::new())))
    }
}

#[async_trait]
impl Source for MysqlBinlog {
    async fn connect(&mut self, from: Option<&Position>) -> Result<()> {
        self.start(from).await
    }

    async fn next(&mut self, wait: Duration) -> Result<Option<Batch>> {
        // The driver panics on some malformed packets: that is a broken stream, not a broken agent.
        let result = AssertUnwindSafe(self.read(wait)).catch_unwind().await;
        let result = result.unwrap_or_else(|_| Err(Error::disconnected("the driver gave up on a malformed packet")));
        if result.is_err() {
            self.stream = None;
        }
        result.map(|batch| {
            batch.map(|mut batch| {
                if let Some(position) = &mut batch.position
                    && coordinate(&position.file, 0).is_none()
                {
                    position.file.clear();
                }
                batch
            })
        })
    }

    async fn commit(&mut self, _upto: &Position) -> Result<()> {
        // The agent's sinks keep the position; MySQL is not told.
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        match self.stream.take() {
            Some(stream) => {
                // The server may be in the middle of sending: what it answers to the end is of no interest.
                let _ = tokio::time::timeout(Duration::from_secs(1), stream.close()).await;
                Ok(())
            }
            None => Ok(()),
        }
    }
}
