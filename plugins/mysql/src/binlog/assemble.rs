//! Events in, batches of whole transactions out. No network here.

use std::collections::HashMap;
use std::sync::Arc;

use mysql_async::binlog::BinlogChecksumAlg;
use mysql_async::binlog::events::Event as WireEvent;
use plumbline_sdk::{
    Batch, ChangeEvent, Error, Event, Gtid, Op, Partial, Position, Result, TableId, TableSchema, TransactionMark, TxnId,
};

use crate::binlog::bytes::{Bytes, Malformed};
use crate::binlog::table_map::TablePlan;
use crate::binlog::walk::Walker;
use crate::discovery::{DiscoveredTable, Watch};
use crate::log::coordinate;

mod rows;
#[cfg(test)]
mod tests;
mod transactions;

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
        let nowhere = Position::default();
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
                origin: None,
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

    /// A compressed transaction: its events follow one by one, and must add up to what it says.
    ///
    /// The driver has decompressed it before it hands it over, into as many bytes as the event says, and says nothing when that fails; so the sum
    /// is checked here. A server compresses only what fits its `max_allowed_packet` (1 GiB); an event that claims more than there is memory
    /// ends the process, and the position stays before it.
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

    fn push_change(&mut self, change: ChangeEvent) {
        self.batch.events.push(Event::Change(change));
    }

    fn watches(&self, table: &TableId) -> bool {
        *table.schema == *self.database && self.watch.excluded_by(table).is_none()
    }
}

fn changes_in(events: &[Event]) -> u64 {
    events.iter().filter(|event| matches!(event, Event::Change(_))).count() as u64
}

fn malformed(cause: Malformed) -> Error {
    Error::rejected(cause.0)
}

