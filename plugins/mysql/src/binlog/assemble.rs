//! Events in, batches of whole transactions out. No network here.

use std::collections::HashMap;
use std::sync::Arc;

use mysql_async::binlog::BinlogChecksumAlg;
use mysql_async::binlog::events::{Event as WireEvent, GtidEvent};
use plumbline_sdk::{
    Batch, ChangeEvent, ColumnType, Coordinate, Error, Event, Gtid, Op, Partial, Position, Result, SchemaChange, Sid, TableId, TableSchema, TransactionMark, TxnId,
};

use crate::binlog::bytes::{Bytes, Malformed};
use crate::binlog::ddl::{Statement, classify};
use crate::binlog::table_map::{self, TablePlan};
use crate::binlog::walk::{Walker, is_whole, rows_head};
use crate::discovery::{DiscoveredTable, Watch};
use crate::log::coordinate;

/// Event types (source: MySQL's `libs/mysql/binlog/event/binlog_event.h`).
mod kind {
    pub const QUERY: u8 = 2;
    pub const APPEND_BLOCK: u8 = 9;
    pub const STOP: u8 = 3;
    pub const ROTATE: u8 = 4;
    pub const INTVAR: u8 = 5;
    pub const RAND: u8 = 13;
    pub const USER_VAR: u8 = 14;
    pub const FORMAT_DESCRIPTION: u8 = 15;
    pub const XID: u8 = 16;
    pub const BEGIN_LOAD_QUERY: u8 = 17;
    pub const EXECUTE_LOAD_QUERY: u8 = 18;
    pub const TABLE_MAP: u8 = 19;
    pub const WRITE_V1: u8 = 23;
    pub const UPDATE_V1: u8 = 24;
    pub const DELETE_V1: u8 = 25;
    pub const INCIDENT: u8 = 26;
    pub const HEARTBEAT: u8 = 27;
    pub const IGNORABLE: u8 = 28;
    pub const ROWS_QUERY: u8 = 29;
    pub const WRITE: u8 = 30;
    pub const UPDATE: u8 = 31;
    pub const DELETE: u8 = 32;
    pub const GTID: u8 = 33;
    pub const ANONYMOUS_GTID: u8 = 34;
    pub const PREVIOUS_GTIDS: u8 = 35;
    pub const TRANSACTION_CONTEXT: u8 = 36;
    pub const VIEW_CHANGE: u8 = 37;
    pub const XA_PREPARE: u8 = 38;
    pub const PARTIAL_UPDATE: u8 = 39;
    pub const TRANSACTION_PAYLOAD: u8 = 40;
    pub const HEARTBEAT_V2: u8 = 41;
    pub const GTID_TAGGED: u8 = 42;
}

/// The flag of events that a reader may skip without losing anything.
const IGNORABLE_FLAG: u16 = 0x80;
/// Events after which a batch is full.
const BATCH_ROWS: usize = 5_000;
/// Bytes of row images after which a batch is full.
const BATCH_BYTES: u64 = 4 * 1024 * 1024;
/// Events of one transaction after which it is handed over in parts.
const PART_ROWS: usize = 20_000;
/// Bytes of row images of one transaction after which it is handed over in parts.
const PART_BYTES: u64 = 16 * 1024 * 1024;
/// Table maps that are remembered by their bytes.
const REMEMBERED: usize = 10_000;
/// Rows of prepared XA transactions that are held in memory, at most.
const XA_ROWS: usize = 1_000_000;
/// Bytes of row images of one XA transaction that are held in memory, at most.
const XA_BYTES: u64 = 256 * 1024 * 1024;

/// What stands in the way of decoding a table.
#[derive(Debug)]
enum Known {
    Plan(Arc<TablePlan>),
    /// Not watched.
    Skipped,
}

/// The transaction that is being read.
#[derive(Debug, Default)]
struct Open {
    id: Option<TxnId>,
    gtid: Option<Gtid>,
    commit_micros: i64,
    begun: bool,
    /// Between BEGIN and COMMIT: statements in there do not end it.
    explicit: bool,
    /// Where its events begin in the batch.
    first_event: usize,
    /// How many of its changes went out in earlier batches.
    handed_over: u64,
    /// Bytes of its row images in the batch.
    weight: u64,
    /// Savepoints: their names, and how many changes came before each.
    savepoints: Vec<(String, u64)>,
    /// An XA transaction between START and PREPARE.
    xa: Option<String>,
}

/// Puts events together.
pub struct Assembler {
    database: String,
    watch: Arc<Watch>,
    known_keys: HashMap<TableId, Arc<TableSchema>>,
    position: Position,
    tables: HashMap<u64, Known>,
    by_bytes: HashMap<Vec<u8>, Arc<TablePlan>>,
    walker: Walker,
    batch: Batch,
    /// Bytes of the row images of whole transactions in the batch.
    weight: u64,
    open: Open,
    /// How far a transaction was handed over before the connection broke; it comes again from its start.
    resumed: Option<Partial>,
    /// The end of the last event in the server's file. The events carry its lower 32 bits only.
    offset: u64,
    moved: bool,
    /// Bytes of a compressed transaction that are still to come.
    payload: Option<u64>,
    needs_keys: bool,
    asked_keys: Option<TableId>,
    /// Prepared XA transactions: their events and the GTID under which they were prepared.
    prepared: HashMap<String, (Vec<Event>, Option<Gtid>)>,
}

impl Assembler {
    /// An assembler for the watched tables of `database`.
    pub fn new(database: String, watch: Arc<Watch>) -> Self {
        let nowhere = Position { server: String::new(), file: String::new(), at: Coordinate::default(), gtids: None, partial: None };
        Self {
            database,
            watch,
            known_keys: HashMap::new(),
            position: nowhere,
            tables: HashMap::new(),
            by_bytes: HashMap::new(),
            walker: Walker::default(),
            batch: Batch::default(),
            weight: 0,
            open: Open::default(),
            resumed: None,
            offset: 0,
            moved: false,
            payload: None,
            needs_keys: false,
            asked_keys: None,
            prepared: HashMap::new(),
        }
    }

    /// Begins at a position: what was half read is forgotten, the server sends it again. The position itself is the first news.
    pub fn restart(&mut self, mut position: Position) {
        // A part of a transaction is sent again from its start; sinks skip what they have. Until it has come again as far as it had been
        // handed over, the position still lies there.
        self.resumed = position.partial.take();
        self.offset = position.at.offset;
        self.position = position;
        self.tables.clear();
        self.batch = Batch::default();
        self.weight = 0;
        self.open = Open::default();
        self.moved = true;
        self.payload = None;
        self.prepared.clear();
    }

    /// Takes in what the catalog says of keys and of generated columns.
    pub fn learn(&mut self, tables: Vec<DiscoveredTable>) {
        let known: HashMap<TableId, Arc<TableSchema>> = tables.into_iter().map(|table| (table.schema.id.clone(), Arc::new(table.schema))).collect();
        let before = std::mem::replace(&mut self.known_keys, known);
        let after = &self.known_keys;
        self.by_bytes.retain(|_, plan| before.get(&plan.schema.id) == after.get(&plan.schema.id));
    }

    /// Whether a table came whose key only the catalog can tell.
    pub fn needs_keys(&self) -> bool {
        self.needs_keys
    }
    /// Whether the batch is to be handed over before more is read.
    pub fn full(&self) -> bool {
        self.open.first_event >= BATCH_ROWS || self.weight >= BATCH_BYTES || self.has_part()
    }
    /// Whether there is a transaction, whole or a large part of one, to hand over.
    pub fn has_events(&self) -> bool {
        !self.batch.transactions.is_empty() || self.has_part()
    }
    /// Whether the position moved since the last batch.
    pub fn moved(&self) -> bool {
        self.moved && !self.open.begun
    }
    /// Whether the open transaction is so large that it is handed over in parts. What XA prepares is held: nobody knows yet whether it counts.
    fn has_part(&self) -> bool {
        self.open.begun && self.open.xa.is_none() && self.open.id.is_some() && (self.open_events() >= PART_ROWS || self.open.weight >= PART_BYTES)
    }
    fn open_events(&self) -> usize {
        self.batch.events.len().saturating_sub(self.open.first_event)
    }

    /// Hands over what there is: whole transactions, and of a large one the part that was read.
    pub fn batch(&mut self) -> Batch {
        let mut position = self.position.clone();
        let first = self.open.first_event.min(self.batch.events.len());
        let mut batch;
        if self.has_part()
            && let Some(id) = self.open.id.clone()
        {
            let changes = changes_in(&self.batch.events[first..]);
            self.batch.transactions.push(TransactionMark {
                id,
                at: position.at,
                commit_micros: self.open.commit_micros,
                events: first..self.batch.events.len(),
                first_change: self.open.handed_over,
                complete: false,
            });
            self.open.handed_over += changes;
            self.open.weight = 0;
            batch = std::mem::take(&mut self.batch);
        } else {
            // What belongs to the open transaction stays behind.
            let kept = self.batch.events.split_off(first);
            batch = std::mem::take(&mut self.batch);
            self.batch.records = changes_in(&kept);
            batch.records -= self.batch.records;
            self.batch.events = kept;
        }
        self.open.first_event = 0;
        self.weight = 0;
        position.partial = self.partial();
        batch.position = Some(position);
        self.moved = false;
        batch
    }

    /// How far into a transaction the position lies: never before where it lay when the connection broke.
    fn partial(&self) -> Option<Partial> {
        let open = self.open.id.as_ref().filter(|_| self.open.handed_over > 0).map(|txn| Partial { txn: txn.clone(), changes: self.open.handed_over });
        match (open, &self.resumed) {
            (Some(open), Some(resumed)) if open.txn == resumed.txn && open.changes < resumed.changes => Some(resumed.clone()),
            (Some(open), _) => Some(open),
            (None, resumed) => resumed.clone(),
        }
    }

    /// Takes in one event. With [`needs_keys`](Self::needs_keys) set afterwards it was not taken: learn and give it again.
    pub fn take(&mut self, event: &WireEvent) -> Result<()> {
        let again = std::mem::take(&mut self.needs_keys);
        let header = event.header();
        let ty = header.event_type_raw();
        let inner = self.payload.is_some() && header.log_pos() == 0 && ty != kind::ROTATE && ty != kind::HEARTBEAT;
        if !inner && !again {
            self.end_payload()?;
            self.verify(event)?;
            if ty != kind::ROTATE {
                self.see(header.log_pos());
            }
            self.batch.bytes += u64::from(header.event_size());
        }
        let taken = self.dispatch(event, ty, header.flags_raw(), header.timestamp());
        taken.map_err(|cause| self.at(cause))?;
        if self.needs_keys {
            return Ok(());
        }
        if inner {
            let left = self.payload.unwrap_or(0);
            let size = u64::from(header.event_size());
            self.payload = Some(left.checked_sub(size).ok_or_else(|| self.corrupt("a compressed transaction is longer than it says"))?);
        } else if header.log_pos() != 0 && ty != kind::ROTATE && !self.open.begun {
            self.advance();
        }
        Ok(())
    }

    /// Follows the end of the events. Above 4 GiB they carry the lower 32 bits only: a large step back is one more turn of them.
    fn see(&mut self, log_pos: u32) {
        const TURN: u64 = 1 << 32;
        if log_pos == 0 {
            return;
        }
        let end = self.offset / TURN * TURN + u64::from(log_pos);
        if end >= self.offset {
            self.offset = end;
        } else if self.offset - end > TURN / 2 {
            self.offset = end + TURN;
        }
    }

    /// Everything up to the last event was taken in. A prepared XA transaction may come again from before: the position does not go back.
    fn advance(&mut self) {
        if self.offset > self.position.at.offset {
            self.position.at.offset = self.offset;
            self.moved = true;
        }
    }

    fn at(&self, error: Error) -> Error {
        if error.kind() == plumbline_sdk::ErrorKind::Fatal { error } else { self.corrupt(&error.chain()) }
    }

    fn corrupt(&self, why: &str) -> Error {
        Error::fatal(format!("BINLOG_CORRUPT: an event after `{}:{}` cannot be read: {why}. The position stays where it is", self.position.file, self.position.at.offset))
    }

    fn verify(&self, event: &WireEvent) -> Result<()> {
        let Ok(Some(BinlogChecksumAlg::BINLOG_CHECKSUM_ALG_CRC32)) = event.footer().get_checksum_alg() else { return Ok(()) };
        // The first event of a stream is made up by the server and may come before it has said that it sends checksums.
        let Some(sent) = event.checksum() else { return Ok(()) };
        let header = event.header();
        if header.event_type_raw() == kind::ROTATE && header.log_pos() == 0 && header.timestamp() == 0 {
            return Ok(());
        }
        if event.calc_checksum(BinlogChecksumAlg::BINLOG_CHECKSUM_ALG_CRC32).to_le_bytes() == sent {
            Ok(())
        } else {
            Err(self.corrupt("its checksum is wrong"))
        }
    }

    /// A compressed transaction must have come whole: the driver says nothing when it could not decompress one.
    fn end_payload(&mut self) -> Result<()> {
        match self.payload.take() {
            Some(0) | None => Ok(()),
            Some(_) => Err(self.corrupt("a compressed transaction could not be decompressed whole")),
        }
    }

    fn dispatch(&mut self, event: &WireEvent, ty: u8, flags: u16, timestamp: u32) -> Result<()> {
        let data = event.data();
        match ty {
            kind::TABLE_MAP => {
                self.control();
                return self.table_map(data);
            }
            kind::WRITE | kind::WRITE_V1 => return self.rows_event(data, Op::Insert, ty == kind::WRITE),
            kind::UPDATE | kind::UPDATE_V1 => return self.rows_event(data, Op::Update, ty == kind::UPDATE),
            kind::DELETE | kind::DELETE_V1 => return self.rows_event(data, Op::Delete, ty == kind::DELETE),
            _ => self.control(),
        }
        match ty {
            kind::GTID | kind::ANONYMOUS_GTID | kind::GTID_TAGGED => self.gtid(event, ty, timestamp),
            kind::QUERY => self.query(data),
            kind::XID => {
                self.complete();
                Ok(())
            }
            kind::XA_PREPARE => self.xa_prepare(data),
            kind::TRANSACTION_PAYLOAD => self.payload(event),
            kind::ROTATE => self.rotate(data),
            kind::FORMAT_DESCRIPTION => {
                self.tables.clear();
                Ok(())
            }
            kind::HEARTBEAT | kind::PREVIOUS_GTIDS | kind::STOP | kind::IGNORABLE | kind::ROWS_QUERY | kind::TRANSACTION_CONTEXT | kind::VIEW_CHANGE | kind::HEARTBEAT_V2 => Ok(()),
            // They belong to a change that comes as a statement: that statement is what is refused.
            kind::INTVAR | kind::RAND | kind::USER_VAR | kind::BEGIN_LOAD_QUERY | kind::APPEND_BLOCK => Ok(()),
            kind::EXECUTE_LOAD_QUERY => self.load_query(data),
            kind::INCIDENT => Err(Error::fatal(
                "the server reports an incident: it may have lost events, so nobody can say what the tables went through. Compare all tables, and begin anew with an empty data folder",
            )),
            kind::PARTIAL_UPDATE => Err(self.refuse_partial(data)),
            _ if flags & IGNORABLE_FLAG != 0 => Ok(()),
            other => Err(Error::fatal(format!("the binlog has an event of type {other} that this version does not know: to skip it could lose changes"))),
        }
    }

    fn control(&mut self) {
        self.batch.records += 1;
        self.batch.control += 1;
    }

    fn gtid(&mut self, event: &WireEvent, ty: u8, timestamp: u32) -> Result<()> {
        let gtid = event.read_event::<GtidEvent>().map_err(|cause| Error::rejected("a GTID event cannot be read").caused_by(cause))?;
        let stamp = gtid.immediate_commit_timestamp();
        self.open = Open {
            commit_micros: if stamp > 0 { i64::try_from(stamp).unwrap_or(i64::MAX) } else { i64::from(timestamp) * 1_000_000 },
            first_event: self.batch.events.len(),
            ..Open::default()
        };
        if self.position.gtids.is_none() {
            // Without GTIDs (or where they are switched on only in part, and a position cannot rely on them) a transaction is known by where it ends.
            let end = self.offset.saturating_sub(u64::from(event.header().event_size())) + gtid.tx_length();
            let named = gtid.tx_length() > 0;
            self.open.id = named.then_some(TxnId::At(Coordinate { log: self.position.at.log, offset: end }));
        } else if ty != kind::ANONYMOUS_GTID {
            let tag = gtid.tag().map(|tag| Arc::from(tag.to_string().to_lowercase()));
            let gtid = Gtid { sid: Sid { uuid: gtid.sid(), tag: tag.filter(|tag: &Arc<str>| !tag.is_empty()) }, number: gtid.gno() };
            self.open.id = Some(TxnId::Gtid(gtid.clone()));
            self.open.gtid = Some(gtid);
        }
        self.open.begun = true;
        Ok(())
    }

    /// Ends the transaction: its events become a whole one in the batch.
    fn complete(&mut self) {
        self.open.begun = false;
        self.advance();
        let at = Coordinate { log: self.position.at.log, offset: self.offset };
        if let (Some(gtid), Some(gtids)) = (&self.open.gtid, &mut self.position.gtids) {
            gtids.insert(gtid);
            self.moved = true;
        }
        let first = self.open.first_event.min(self.batch.events.len());
        let id = self.open.id.take().unwrap_or(TxnId::At(at));
        if self.resumed.as_ref().is_some_and(|resumed| resumed.txn == id) {
            self.resumed = None;
        }
        if self.batch.events.len() > first || self.open.handed_over > 0 {
            self.batch.transactions.push(TransactionMark {
                id,
                at,
                commit_micros: self.open.commit_micros,
                events: first..self.batch.events.len(),
                first_change: self.open.handed_over,
                complete: true,
            });
        }
        self.weight += self.open.weight;
        self.open = Open { first_event: self.batch.events.len(), ..Open::default() };
    }

    /// Takes back the changes of the open transaction after its first `keep`.
    fn take_back(&mut self, keep: u64) -> Result<()> {
        let Some(keep) = keep.checked_sub(self.open.handed_over) else {
            return Err(Error::fatal(format!(
                "a transaction after `{}:{}` was rolled back after a part of it had been handed over: compare all tables, and begin anew with an empty data folder",
                self.position.file, self.position.at.offset
            )));
        };
        let first = self.open.first_event.min(self.batch.events.len());
        let kept = usize::try_from(keep).unwrap_or(usize::MAX).saturating_add(first).min(self.batch.events.len());
        let dropped = self.batch.events.split_off(kept);
        // Rows that took no effect were records, and are no changes.
        self.batch.control += changes_in(&dropped);
        Ok(())
    }

    fn query(&mut self, data: &[u8]) -> Result<()> {
        let (schema, statement) = query_text(data).map_err(malformed)?;
        match classify(&statement, &schema) {
            Statement::Begin => {
                if !self.open.begun {
                    self.open.first_event = self.batch.events.len();
                    self.open.begun = true;
                }
                self.open.explicit = true;
            }
            Statement::Commit => self.complete(),
            Statement::Rollback => {
                self.take_back(0)?;
                self.complete();
            }
            Statement::Savepoint(name) => {
                let changes = self.open.handed_over + self.open_events() as u64;
                self.open.savepoints.push((name, changes));
            }
            Statement::RollbackTo(name) => {
                let at = self.open.savepoints.iter().rposition(|(known, _)| *known == name);
                let Some(at) = at else {
                    return Err(Error::rejected("a transaction goes back to a savepoint that it has not set"));
                };
                self.open.savepoints.truncate(at + 1);
                let keep = self.open.savepoints[at].1;
                self.take_back(keep)?;
            }
            Statement::Release | Statement::XaEnd => {}
            Statement::XaStart(xid) => {
                self.open.explicit = true;
                self.open.xa = Some(xid);
            }
            Statement::XaCommit(xid) => {
                match self.prepared.remove(&xid) {
                    Some((events, prepared_as)) => {
                        self.batch.records += changes_in(&events);
                        self.batch.events.extend(events);
                        if let (Some(gtid), Some(gtids)) = (&prepared_as, &mut self.position.gtids) {
                            gtids.insert(gtid);
                        }
                    }
                    // Without GTIDs those that changed watched tables were refused when they were prepared.
                    None if self.position.gtids.is_none() => {}
                    None => {
                        return Err(Error::fatal(
                            "an XA transaction was committed that had been prepared before the stream began: nobody can say which rows it changed.                              Compare all tables, and begin anew with an empty data folder",
                        ));
                    }
                }
                self.complete();
            }
            Statement::XaRollback(xid) => {
                if let Some((events, gtid)) = self.prepared.remove(&xid) {
                    self.batch.records += changes_in(&events);
                    self.batch.control += changes_in(&events);
                    if let (Some(gtid), Some(gtids)) = (&gtid, &mut self.position.gtids) {
                        gtids.insert(gtid);
                    }
                }
                self.complete();
            }
            Statement::Truncate(table) => {
                if self.watches(&table) {
                    let schema = self.shape(&table);
                    self.batch.control -= 1;
                    self.push_change(ChangeEvent { table: schema, op: Op::Truncate, before: None, after: None });
                }
                self.complete();
            }
            Statement::Schema { changes, begins } => {
                // A statement is one control record, whatever number of tables it names.
                let statement: Arc<str> = statement.into();
                let default_schema: Arc<str> = schema.into();
                for (kind, table, renamed_to) in changes {
                    let watched = self.watches(&table) || renamed_to.as_ref().is_some_and(|new| self.watches(new));
                    if watched {
                        // What the catalog said of them is of the shape before.
                        self.known_keys.remove(&table);
                        if let Some(new) = &renamed_to {
                            self.known_keys.remove(new);
                        }
                        self.batch.events.push(Event::Schema(SchemaChange {
                            table,
                            kind,
                            statement: Arc::clone(&statement),
                            default_schema: Arc::clone(&default_schema),
                            renamed_to,
                        }));
                        self.by_bytes.clear();
                        self.watch.look.notify_one();
                    }
                }
                if !begins {
                    self.complete();
                }
            }
            Statement::Rows(tables) => {
                if let Some(table) = tables.iter().find(|table| self.watches(table)) {
                    return Err(unsupported(&format!("`{table}`")));
                }
            }
            Statement::RowsOfAny => {
                if schema == self.database || statement.contains(&self.database) {
                    return Err(unsupported(&format!("a table of `{}`", self.database)));
                }
            }
            Statement::Other => {
                if self.open.begun && !self.open.explicit {
                    // A statement of its own (accounts, views, databases): it ends what its GTID began.
                    self.watch.look.notify_one();
                    self.complete();
                }
            }
        }
        Ok(())
    }

    /// LOAD DATA as a statement.
    fn load_query(&self, data: &[u8]) -> Result<()> {
        let (schema, text) = query_text_after(data, 13).map_err(malformed)?;
        match classify(&text, &schema) {
            Statement::Rows(tables) if !tables.iter().any(|table| self.watches(table)) => Ok(()),
            Statement::Rows(tables) => Err(unsupported(&tables.first().map_or_else(String::new, |table| format!("`{table}`")))),
            _ if schema == self.database || text.contains(&self.database) => Err(unsupported(&format!("a table of `{}`", self.database))),
            _ => Ok(()),
        }
    }

    fn xa_prepare(&mut self, data: &[u8]) -> Result<()> {
        let one_phase = data.first().is_some_and(|&byte| byte != 0);
        if one_phase {
            self.open.xa = None;
            self.complete();
            return Ok(());
        }
        if self.position.gtids.is_none() && self.open_events() > 0 {
            return Err(Error::fatal("a prepared XA transaction changed watched tables: without GTIDs it could be lost in a restart. Switch GTIDs on"));
        }
        let events = self.batch.events.split_off(self.open.first_event.min(self.batch.events.len()));
        // They are records of the transaction that commits them.
        self.batch.records -= changes_in(&events);
        let xid = self.open.xa.take().unwrap_or_default();
        let held: usize = self.prepared.values().map(|(events, _)| events.len()).sum();
        if held + events.len() > XA_ROWS {
            return Err(Error::fatal(format!("prepared XA transactions hold more than {XA_ROWS} rows")));
        }
        // Not included in the position until it commits, even if it changed nothing here: after a restart the server sends it again, and its
        // end is known as the end of one that was seen.
        self.prepared.insert(xid, (events, self.open.gtid.take()));
        self.open = Open { first_event: self.batch.events.len(), ..Open::default() };
        self.advance();
        Ok(())
    }

    /// A compressed transaction: its events follow one by one, and must add up to what it says.
    fn payload(&mut self, event: &WireEvent) -> Result<()> {
        let mut bytes = Bytes::new(event.data());
        let mut size = None;
        let mut compressed = true;
        while !bytes.is_empty() {
            let field = bytes.packed().map_err(malformed)?;
            if field == 0 {
                break;
            }
            let value = bytes.packed_bytes().map_err(malformed)?;
            let mut value = Bytes::new(value);
            match field {
                2 => compressed = value.packed().map_err(malformed)? == 0,
                3 => size = Some(value.packed().map_err(malformed)?),
                1 if !compressed => size = Some(value.packed().map_err(malformed)?),
                _ => {}
            }
        }
        self.payload = Some(size.ok_or_else(|| self.corrupt("a compressed transaction does not say how long it is"))?);
        Ok(())
    }

    fn rotate(&mut self, data: &[u8]) -> Result<()> {
        let mut bytes = Bytes::new(data);
        let offset = bytes.little(8).map_err(malformed)?;
        let name: String = String::from_utf8_lossy(bytes.rest()).chars().take_while(|letter| letter.is_ascii_graphic()).collect();
        let Some(at) = coordinate(&name, offset) else { return Ok(()) };
        self.offset = offset;
        if name != self.position.file {
            self.tables.clear();
            if at.log != self.position.at.log || self.position.file.is_empty() {
                self.position.at = at;
                self.moved = true;
            }
            self.position.file = name;
        }
        Ok(())
    }

    fn watches(&self, table: &TableId) -> bool {
        *table.schema == *self.database && self.watch.excluded_by(table).is_none()
    }

    /// The table's shape where no row event tells it.
    fn shape(&self, table: &TableId) -> Arc<TableSchema> {
        self.watch
            .schema(table)
            .or_else(|| self.known_keys.get(table).cloned())
            .unwrap_or_else(|| Arc::new(TableSchema { id: table.clone(), columns: Vec::new() }))
    }

    fn table_map(&mut self, data: &[u8]) -> Result<()> {
        let (table_id, schema, _) = table_map::head(data).map_err(malformed)?;
        if schema != self.database.as_bytes() {
            self.tables.insert(table_id, Known::Skipped);
            return Ok(());
        }
        // The same table has the same bytes but for its number, as long as its shape stays.
        let shape = data.get(6..).unwrap_or_default();
        if let Some(plan) = self.by_bytes.get(shape) {
            self.tables.insert(table_id, Known::Plan(Arc::clone(plan)));
            return Ok(());
        }
        let map = table_map::parse(data).map_err(malformed)?;
        if !self.watches(&map.id) {
            self.tables.insert(table_id, Known::Skipped);
            return Ok(());
        }
        if !map.full {
            return Err(Error::fatal(format!(
                "rows of `{}` came without column names: set `binlog_row_metadata = FULL` (`SET PERSIST binlog_row_metadata = FULL`)",
                map.id
            )));
        }
        let mut columns = map.columns;
        match self.known_keys.get(&map.id).filter(|known| same_names(known, &columns)) {
            Some(known) => {
                let keyless = columns.iter().all(|column| column.key_ordinal.is_none());
                for (column, known) in columns.iter_mut().zip(&known.columns) {
                    if keyless {
                        column.key_ordinal = known.key_ordinal;
                    }
                    column.generated = known.generated;
                    if let (ColumnType::TinyInt { boolean, .. }, ColumnType::TinyInt { boolean: declared, .. }) = (&mut column.ty, &known.ty) {
                        *boolean = *declared;
                    }
                }
            }
            None if self.asked_keys.as_ref() != Some(&map.id) => {
                self.asked_keys = Some(map.id);
                self.needs_keys = true;
                self.batch.records -= 1;
                self.batch.control -= 1;
                return Ok(());
            }
            // The catalog has gone on to another shape: what only it can tell is not known of this one.
            None => {}
        }
        self.asked_keys = None;
        let plan = Arc::new(TablePlan { schema: Arc::new(TableSchema { id: map.id, columns }), cells: map.cells });
        if self.by_bytes.len() >= REMEMBERED {
            self.by_bytes.clear();
        }
        self.by_bytes.insert(shape.to_vec(), Arc::clone(&plan));
        self.tables.insert(table_id, Known::Plan(plan));
        Ok(())
    }

    fn rows_event(&mut self, data: &[u8], op: Op, extra: bool) -> Result<()> {
        let head = rows_head(data, extra, op == Op::Update).map_err(malformed)?;
        let plan = match self.tables.get(&head.table_id) {
            Some(Known::Plan(plan)) => Arc::clone(plan),
            Some(Known::Skipped) => {
                self.control();
                return Ok(());
            }
            None => return Err(Error::rejected("rows came without the shape of their table")),
        };
        if head.columns != plan.cells.len() {
            return Err(Error::rejected("rows have another number of columns than their table"));
        }
        if !is_whole(head.present, head.columns) || head.present_after.is_some_and(|after| !is_whole(after, head.columns)) {
            return Err(Error::fatal(format!(
                "rows of `{}` came with some of their columns only: a session wrote them with `binlog_row_image` other than FULL. \
                 Set it to FULL for all sessions; then compare the table, and begin anew with an empty data folder",
                plan.schema.id
            )));
        }
        self.open.weight += data.len() as u64;
        if self.open.xa.is_some() && (self.open_events() > XA_ROWS || self.open.weight > XA_BYTES) {
            return Err(Error::fatal(format!(
                "an XA transaction on `{}` is larger than what is held in memory ({XA_ROWS} rows or {} MiB): nobody knows before its end whether it counts",
                plan.schema.id,
                XA_BYTES >> 20
            )));
        }
        let mut bytes = Bytes::new(head.rows);
        while !bytes.is_empty() {
            let first = self.walker.row(&plan, &mut bytes).map_err(malformed)?;
            let (before, after) = match op {
                Op::Insert => (None, Some(first)),
                Op::Update => (Some(first), Some(self.walker.row(&plan, &mut bytes).map_err(malformed)?)),
                _ => (Some(first), None),
            };
            self.batch.records += 1;
            self.push_change(ChangeEvent { table: Arc::clone(&plan.schema), op, before, after });
        }
        Ok(())
    }

    fn push_change(&mut self, change: ChangeEvent) {
        self.batch.events.push(Event::Change(change));
    }

    fn refuse_partial(&self, data: &[u8]) -> Error {
        let table = Bytes::new(data).little(6).ok().and_then(|id| self.tables.get(&id));
        match table {
            Some(Known::Plan(plan)) => Error::fatal(format!(
                "rows of `{}` came with parts of JSON documents: a session wrote them with `binlog_row_value_options = PARTIAL_JSON`. \
                 Set it to '' for all sessions; then compare the table, and begin anew with an empty data folder",
                plan.schema.id
            )),
            _ => Error::fatal("rows came with parts of JSON documents: set `binlog_row_value_options = ''` for all sessions"),
        }
    }
}

fn changes_in(events: &[Event]) -> u64 {
    events.iter().filter(|event| matches!(event, Event::Change(_))).count() as u64
}

fn same_names(known: &TableSchema, columns: &[plumbline_sdk::Column]) -> bool {
    known.columns.len() == columns.len() && known.columns.iter().zip(columns).all(|(a, b)| a.name == b.name)
}

fn malformed(cause: Malformed) -> Error {
    Error::rejected(cause.0)
}

fn unsupported(what: &str) -> Error {
    Error::fatal(format!(
        "UNSUPPORTED_STATEMENT: a change of {what} was logged as a statement, not as rows: nobody can say which rows it changed. \
         Set `binlog_format = ROW` for all sessions; then compare all tables, and begin anew with an empty data folder"
    ))
}

/// The default schema and the text of a QUERY event.
fn query_text(data: &[u8]) -> std::result::Result<(String, String), Malformed> {
    query_text_after(data, 0)
}

/// The same of an event that has `more` bytes of its own before the status variables.
fn query_text_after(data: &[u8], more: usize) -> std::result::Result<(String, String), Malformed> {
    let mut bytes = Bytes::new(data);
    bytes.take(8)?;
    let schema_length = usize::from(bytes.byte()?);
    bytes.take(2)?;
    let status = bytes.little(2)? as usize;
    bytes.take(more)?;
    bytes.take(status)?;
    let schema = String::from_utf8_lossy(bytes.take(schema_length)?).into_owned();
    bytes.byte()?;
    Ok((schema, String::from_utf8_lossy(bytes.rest()).into_owned()))
}
