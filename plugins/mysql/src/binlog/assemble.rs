//! Events in, batches of whole transactions out. No network here.

use std::collections::HashMap;
use std::sync::Arc;

use mysql_async::binlog::BinlogChecksumAlg;
use mysql_async::binlog::events::{Event as WireEvent, GtidEvent};
use plumbline_sdk::{
    Batch, ChangeEvent, Coordinate, Error, Event, Gtid, Op, Partial, Position, Result, SchemaChange, Sid, TableId, TableSchema, TransactionMark, TxnId,
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
    pub const STOP: u8 = 3;
    pub const ROTATE: u8 = 4;
    pub const INTVAR: u8 = 5;
    pub const RAND: u8 = 13;
    pub const USER_VAR: u8 = 14;
    pub const FORMAT_DESCRIPTION: u8 = 15;
    pub const XID: u8 = 16;
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
/// Rows of one transaction after which it is handed over in parts.
const PART_ROWS: usize = 20_000;
/// Table maps that are remembered by their bytes.
const REMEMBERED: usize = 10_000;
/// Rows of prepared XA transactions that are held in memory, at most.
const XA_ROWS: usize = 1_000_000;

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
    /// Where its events begin in the batch.
    first_event: usize,
    /// How many of its changes went out in earlier batches.
    handed_over: u64,
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
    rows: usize,
    open: Open,
    moved: bool,
    /// Bytes of a compressed transaction that are still to come.
    payload: Option<u64>,
    payload_end: u32,
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
            rows: 0,
            open: Open::default(),
            moved: false,
            payload: None,
            payload_end: 0,
            needs_keys: false,
            asked_keys: None,
            prepared: HashMap::new(),
        }
    }

    /// Begins at a position: what was half read is forgotten, the server sends it again. The position itself is the first news.
    pub fn restart(&mut self, mut position: Position) {
        // A part of a transaction is sent again from its start; sinks skip what they have.
        position.partial = None;
        self.position = position;
        self.tables.clear();
        self.batch = Batch::default();
        self.rows = 0;
        self.open = Open::default();
        self.moved = true;
        self.payload = None;
        self.prepared.clear();
    }

    /// Takes in what the catalog says of keys.
    pub fn learn(&mut self, tables: Vec<DiscoveredTable>) {
        self.known_keys = tables.into_iter().map(|table| (table.schema.id.clone(), Arc::new(table.schema))).collect();
        self.by_bytes.clear();
    }

    /// Whether a table came whose key only the catalog can tell.
    pub fn needs_keys(&self) -> bool {
        self.needs_keys
    }
    /// Changes in the batch so far.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Bytes read for the batch so far.
    pub fn bytes(&self) -> u64 {
        self.batch.bytes
    }
    /// Whether there is a transaction, whole or a large part of one, to hand over.
    pub fn has_events(&self) -> bool {
        !self.batch.transactions.is_empty() || self.batch.events.len() > PART_ROWS
    }
    /// Whether the position moved since the last batch.
    pub fn moved(&self) -> bool {
        self.moved && !self.open.begun
    }

    /// Hands over what there is: whole transactions, and of a large one the part that was read.
    pub fn batch(&mut self) -> Batch {
        let mut position = self.position.clone();
        let open_events = self.batch.events.len() - self.open.first_event.min(self.batch.events.len());
        let mut batch;
        if self.open.begun && self.open.xa.is_none() && open_events > PART_ROWS
            && let Some(id) = self.open.id.clone()
        {
            let changes = changes_in(&self.batch.events[self.open.first_event..]);
            self.batch.transactions.push(TransactionMark {
                id: id.clone(),
                at: position.at,
                commit_micros: self.open.commit_micros,
                events: self.open.first_event..self.batch.events.len(),
                first_change: self.open.handed_over,
                complete: false,
            });
            self.open.handed_over += changes;
            position.partial = Some(Partial { txn: id, changes: self.open.handed_over });
            batch = std::mem::take(&mut self.batch);
            self.open.first_event = 0;
            self.rows = 0;
        } else {
            // What belongs to the open transaction stays behind.
            let kept = self.batch.events.split_off(self.open.first_event.min(self.batch.events.len()));
            batch = std::mem::take(&mut self.batch);
            self.rows = kept.len();
            self.batch.records = changes_in(&kept);
            batch.records -= self.batch.records;
            self.batch.events = kept;
            self.open.first_event = 0;
            if self.open.handed_over > 0
                && let Some(id) = self.open.id.clone()
            {
                position.partial = Some(Partial { txn: id, changes: self.open.handed_over });
            }
        }
        batch.position = Some(position);
        self.moved = false;
        batch
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
        } else if header.log_pos() != 0 && ty != kind::ROTATE && ty != kind::FORMAT_DESCRIPTION && !self.open.begun {
            self.advance(header.log_pos())?;
        }
        Ok(())
    }

    /// The place up to which everything was taken in.
    fn advance(&mut self, log_pos: u32) -> Result<()> {
        let offset = u64::from(log_pos);
        if offset < self.position.at.offset {
            // A file above 4 GiB wraps the offsets that events carry. GTIDs go on; a position by offset would point to the wrong place.
            if self.position.gtids.is_none() {
                return Err(Error::fatal(format!(
                    "the binlog file `{}` is larger than 4 GiB: without GTIDs its end cannot be addressed. Switch GTIDs on, or set `max_binlog_size` and avoid such transactions",
                    self.position.file
                )));
            }
            return Ok(());
        }
        if offset != self.position.at.offset {
            self.position.at.offset = offset;
            self.moved = true;
        }
        Ok(())
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
            kind::QUERY => self.query(data, event.header().log_pos()),
            kind::XID => self.complete(event.header().log_pos()),
            kind::XA_PREPARE => self.xa_prepare(data, event.header().log_pos()),
            kind::TRANSACTION_PAYLOAD => self.payload(event),
            kind::ROTATE => self.rotate(data),
            kind::FORMAT_DESCRIPTION => {
                self.tables.clear();
                Ok(())
            }
            kind::HEARTBEAT | kind::PREVIOUS_GTIDS | kind::STOP | kind::IGNORABLE | kind::ROWS_QUERY | kind::TRANSACTION_CONTEXT | kind::VIEW_CHANGE | kind::HEARTBEAT_V2 => Ok(()),
            // They belong to a change that comes as a statement: that statement is what is refused.
            kind::INTVAR | kind::RAND | kind::USER_VAR => Ok(()),
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
        if ty != kind::ANONYMOUS_GTID {
            let tag = gtid.tag().map(|tag| Arc::from(tag.to_string().to_lowercase()));
            let gtid = Gtid { sid: Sid { uuid: gtid.sid(), tag: tag.filter(|tag: &Arc<str>| !tag.is_empty()) }, number: gtid.gno() };
            self.open.id = Some(TxnId::Gtid(gtid.clone()));
            self.open.gtid = Some(gtid);
        }
        self.open.begun = true;
        Ok(())
    }

    /// Ends the transaction: its events become a whole one in the batch.
    fn complete(&mut self, log_pos: u32) -> Result<()> {
        let end = if log_pos == 0 { self.payload_end } else { log_pos };
        self.open.begun = false;
        self.advance(end)?;
        let at = self.position.at;
        if let (Some(gtid), Some(gtids)) = (&self.open.gtid, &mut self.position.gtids) {
            gtids.insert(gtid);
            self.moved = true;
        }
        let first = self.open.first_event.min(self.batch.events.len());
        if self.batch.events.len() > first || self.open.handed_over > 0 {
            self.batch.transactions.push(TransactionMark {
                id: self.open.id.clone().unwrap_or(TxnId::At(at)),
                at,
                commit_micros: self.open.commit_micros,
                events: first..self.batch.events.len(),
                first_change: self.open.handed_over,
                complete: true,
            });
        }
        self.open = Open { first_event: self.batch.events.len(), ..Open::default() };
        Ok(())
    }

    /// Ends the transaction without anything of it.
    fn forget(&mut self, log_pos: u32) -> Result<()> {
        let dropped = self.batch.events.split_off(self.open.first_event.min(self.batch.events.len()));
        // Rows that took no effect were records, and are no changes.
        self.batch.control += changes_in(&dropped);
        self.rows = self.rows.saturating_sub(dropped.len());
        self.complete(log_pos)
    }

    fn query(&mut self, data: &[u8], log_pos: u32) -> Result<()> {
        let (schema, statement) = query_text(data).map_err(malformed)?;
        match classify(&statement, &schema) {
            Statement::Begin => {
                if !self.open.begun {
                    self.open.first_event = self.batch.events.len();
                    self.open.begun = true;
                }
                Ok(())
            }
            Statement::Commit => self.complete(log_pos),
            Statement::Rollback => self.forget(log_pos),
            Statement::Savepoint | Statement::XaEnd => Ok(()),
            Statement::XaStart(xid) => {
                self.open.xa = Some(xid);
                Ok(())
            }
            Statement::XaCommit(xid) => {
                if let Some((events, prepared_as)) = self.prepared.remove(&xid) {
                    self.rows += events.len();
                    self.batch.records += changes_in(&events);
                    self.batch.events.extend(events);
                    if let (Some(gtid), Some(gtids)) = (&prepared_as, &mut self.position.gtids) {
                        gtids.insert(gtid);
                    }
                }
                self.complete(log_pos)
            }
            Statement::XaRollback(xid) => {
                if let Some((events, gtid)) = self.prepared.remove(&xid) {
                    self.batch.records += changes_in(&events);
                    self.batch.control += changes_in(&events);
                    if let (Some(gtid), Some(gtids)) = (&gtid, &mut self.position.gtids) {
                        gtids.insert(gtid);
                    }
                }
                self.complete(log_pos)
            }
            Statement::Truncate(table) => {
                if self.watches(&table) {
                    let schema = self.shape(&table);
                    self.batch.control -= 1;
                    self.push_change(ChangeEvent { table: schema, op: Op::Truncate, before: None, after: None });
                }
                self.complete(log_pos)
            }
            Statement::Schema { changes, begins } => {
                // A statement is one control record, whatever number of tables it names.
                let statement: Arc<str> = statement.into();
                let default_schema: Arc<str> = schema.into();
                for (kind, table, renamed_to) in changes {
                    let watched = self.watches(&table) || renamed_to.as_ref().is_some_and(|new| self.watches(new));
                    if watched {
                        self.known_keys.remove(&table);
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
                if begins { Ok(()) } else { self.complete(log_pos) }
            }
            Statement::Rows(table) if self.watches(&table) => Err(Error::fatal(format!(
                "UNSUPPORTED_STATEMENT: a change of `{table}` was logged as a statement, not as rows: nobody can say which rows it changed. \
                 Set `binlog_format = ROW` for all sessions; then compare all tables, and begin anew with an empty data folder"
            ))),
            Statement::Rows(_) => Ok(()),
            Statement::Other => {
                if self.open.begun && self.open.id.is_some() && log_pos != 0 {
                    // A statement of its own (accounts, views, databases): it ends what its GTID began.
                    self.watch.look.notify_one();
                    return self.complete(log_pos);
                }
                Ok(())
            }
        }
    }

    fn xa_prepare(&mut self, data: &[u8], log_pos: u32) -> Result<()> {
        let one_phase = data.first().is_some_and(|&byte| byte != 0);
        if one_phase {
            self.open.xa = None;
            return self.complete(log_pos);
        }
        if self.position.gtids.is_none() && self.batch.events.len() > self.open.first_event {
            return Err(Error::fatal("a prepared XA transaction changed watched tables: without GTIDs it could be lost in a restart. Switch GTIDs on"));
        }
        let events = self.batch.events.split_off(self.open.first_event.min(self.batch.events.len()));
        self.rows = self.rows.saturating_sub(events.len());
        // They are records of the transaction that commits them.
        self.batch.records -= changes_in(&events);
        let xid = self.open.xa.take().unwrap_or_default();
        let held: usize = self.prepared.values().map(|(events, _)| events.len()).sum();
        if held + events.len() > XA_ROWS {
            return Err(Error::fatal(format!("prepared XA transactions hold more than {XA_ROWS} rows")));
        }
        // Not included in the position until it commits: after a restart the server sends it again.
        let gtid = self.open.gtid.take();
        if events.is_empty() {
            if let (Some(gtid), Some(gtids)) = (&gtid, &mut self.position.gtids) {
                gtids.insert(gtid);
            }
        } else {
            self.prepared.insert(xid, (events, gtid));
        }
        self.open = Open { first_event: self.batch.events.len(), ..Open::default() };
        self.advance(if log_pos == 0 { self.payload_end } else { log_pos })
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
        self.payload_end = event.header().log_pos();
        Ok(())
    }

    fn rotate(&mut self, data: &[u8]) -> Result<()> {
        let mut bytes = Bytes::new(data);
        let offset = bytes.little(8).map_err(malformed)?;
        let name: String = String::from_utf8_lossy(bytes.rest()).chars().take_while(|letter| letter.is_ascii_graphic()).collect();
        let Some(at) = coordinate(&name, offset) else { return Ok(()) };
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
        if columns.iter().all(|column| column.key_ordinal.is_none()) {
            let known = self.watch.schema(&map.id).filter(|known| same_names(known, &columns)).or_else(|| self.known_keys.get(&map.id).cloned());
            match known {
                Some(known) if same_names(&known, &columns) => {
                    for (column, known) in columns.iter_mut().zip(&known.columns) {
                        column.key_ordinal = known.key_ordinal;
                    }
                }
                _ if self.asked_keys.as_ref() != Some(&map.id) => {
                    self.asked_keys = Some(map.id);
                    self.needs_keys = true;
                    self.batch.records -= 1;
                    self.batch.control -= 1;
                    return Ok(());
                }
                // The catalog has gone on to another shape: the table is taken to have no key until rows of that shape come.
                _ => {}
            }
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
        self.rows += 1;
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

/// The default schema and the text of a QUERY event.
fn query_text(data: &[u8]) -> std::result::Result<(String, String), Malformed> {
    let mut bytes = Bytes::new(data);
    bytes.take(8)?;
    let schema_length = usize::from(bytes.byte()?);
    bytes.take(2)?;
    let status = bytes.little(2)? as usize;
    bytes.take(status)?;
    let schema = String::from_utf8_lossy(bytes.take(schema_length)?).into_owned();
    bytes.byte()?;
    Ok((schema, String::from_utf8_lossy(bytes.rest()).into_owned()))
}
