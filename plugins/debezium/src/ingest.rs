//! Records in, batches out. No network and no clock here; waiting is the caller's.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use plumbline_sdk::position::{PartitionAt, Partitions, RecordId};
use plumbline_sdk::{Batch, ChangeEvent, Coordinate, Event, Op, Position, Row, TableId, TableSchema, TransactionMark, TxnId};
use serde::Serialize;

use crate::cells::{Cells, Misfit, Plan, Settings};
use crate::envelope::{Change, Decoded, Decoder, Half, Reason, Source};
use crate::newest::Newest;
use crate::shape::Shape;

/// Says how a watched table looks, as discovery last saw it; None: it is not watched, or not known yet.
pub type Lookup = Arc<dyn Fn(&TableId) -> Option<Arc<TableSchema>> + Send + Sync>;

/// Records after which a batch is full.
const BATCH_RECORDS: u64 = 1_000;
/// Bytes after which a batch is full.
const BATCH_BYTES: u64 = 4 * 1024 * 1024;
/// Records that are kept aside, the newest of them.
const KEPT: usize = 100;

/// One record, borrowed from the log.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: u64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; None: a tombstone.
    pub value: Option<&'a [u8]>,
    /// Which half of a key change it is, by its headers.
    pub half: Half,
}

/// A record that could not be taken as a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Its topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: u64,
    /// Why.
    pub reason: String,
}

/// Records that could not be taken, shared with who shows them: how many, and the newest of them.
#[derive(Debug, Default)]
pub struct Aside {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_class: BTreeMap<&'static str, u64>,
    newest: VecDeque<Kept>,
}

impl Aside {
    fn keep(&self, record: &Record<'_>, class: &'static str, reason: String) {
        let mut inner = self.lock();
        *inner.by_class.entry(class).or_default() += 1;
        if inner.newest.len() >= KEPT {
            inner.newest.pop_front();
        }
        inner.newest.push_back(Kept { topic: record.topic.to_owned(), partition: record.partition, offset: record.offset, reason });
    }
    /// How many there were since the start.
    pub fn total(&self) -> u64 {
        self.lock().by_class.values().sum()
    }
    /// How many of each class of reasons, of all of [`CLASSES`].
    pub fn by_class(&self) -> BTreeMap<&'static str, u64> {
        let inner = self.lock();
        CLASSES.iter().map(|class| (*class, inner.by_class.get(class).copied().unwrap_or(0))).collect()
    }
    /// The newest, newest last.
    pub fn newest(&self) -> Vec<Kept> {
        self.lock().newest.iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why records are kept aside, in a word: larger than allowed, of another form than JSON, JSON that cannot be read, without Debezium's envelope,
/// a row that does not fit its table, of a table that is not watched.
pub const CLASSES: [&str; 6] = ["too_large", "format", "malformed", "envelope", "row", "not_watched"];

fn class_of(reason: &Reason) -> &'static str {
    match reason {
        Reason::TooLarge { .. } => "too_large",
        Reason::RegistryJson(_) | Reason::Registry(_) | Reason::Binary | Reason::Empty => "format",
        Reason::Utf8(_) | Reason::NotJson(_) | Reason::TooDeep | Reason::Surrogate | Reason::Twice(_) | Reason::WrongType(_) => "malformed",
        Reason::Row(_) => "row",
        _ => "envelope",
    }
}

/// Asks again and again until the answer is true or patience ends; says whether it became true.
pub type Patience<'a> = &'a dyn Fn(&mut dyn FnMut() -> bool) -> bool;

/// What the records' connector says elsewhere.
#[derive(Debug, Clone, Copy)]
pub struct Ways {
    /// How cells are written where there is no Connect schema.
    pub cells: Settings,
    /// Larger records are not read.
    pub largest: usize,
    /// The server compresses transactions (`binlog_transaction_compression`).
    pub compressed: bool,
}

/// Puts records together to batches.
pub struct Assembler {
    lookup: Lookup,
    ways: Ways,
    topics: HashMap<Arc<str>, Topic>,
    /// Tables that were waited for in vain.
    unwatched: HashSet<TableId>,
    cells: Cells,
    position: Position,
    batch: Batch,
    /// Whether the topics are known to be whole through another place than the last batch said.
    moved: bool,
    /// Counts batches: a table's shape is asked for once in each.
    round: u64,
    aside: Arc<Aside>,
}

struct Topic {
    name: Arc<str>,
    decoder: Decoder,
    planned: Option<Planned>,
    partitions: HashMap<i32, Partition>,
}

#[derive(Default)]
struct Partition {
    next: u64,
    newest: Newest,
    touched: bool,
}

struct Planned {
    id: TableId,
    table: Arc<TableSchema>,
    shape: Option<Arc<Shape>>,
    plan: Plan,
    round: u64,
    /// Whether this shape was waited for, because a record has more columns.
    waited: bool,
}

impl Assembler {
    /// An assembler that goes on after `position`.
    pub fn new(lookup: Lookup, ways: Ways, position: Position, aside: Arc<Aside>) -> Self {
        let mut topics: HashMap<Arc<str>, Topic> = HashMap::new();
        for (name, partition, at) in position.partitions.iter().flat_map(Partitions::iter) {
            let topic = topics.entry(Arc::clone(name)).or_insert_with(|| Topic::new(name, ways.largest));
            let newest = at.newest.as_deref().map(Newest::of_text).unwrap_or_default();
            topic.partitions.insert(partition, Partition { next: at.next, newest, touched: false });
        }
        Self { lookup, ways, topics, unwatched: HashSet::new(), cells: Cells::default(), position, batch: Batch::default(), moved: false, round: 1, aside }
    }

    /// The offset of the next record of a partition; None: nothing was read of it.
    pub fn next(&self, topic: &str, partition: i32) -> Option<u64> {
        self.topics.get(topic)?.partitions.get(&partition).map(|partition| partition.next)
    }
    /// Whether the batch is to be handed over.
    pub fn is_full(&self) -> bool {
        self.batch.records >= BATCH_RECORDS || self.batch.bytes >= BATCH_BYTES
    }
    /// Whether there is nothing to hand over.
    pub fn is_empty(&self) -> bool {
        self.batch.records == 0 && !self.moved
    }
    /// Whether duplicates may have been counted as changes, because transactions are compressed.
    pub fn approximate(&self) -> bool {
        self.topics.values().flat_map(|topic| topic.partitions.values()).any(|partition| partition.newest.approximate())
    }

    /// Goes on with a partition at this place, whatever was read of it here before; None: at its beginning.
    pub fn go_on(&mut self, topic: &Arc<str>, partition: i32, at: Option<PartitionAt>) {
        let place = at.clone().unwrap_or_default();
        let newest = place.newest.as_deref().map(Newest::of_text).unwrap_or_default();
        let largest = self.ways.largest;
        let known = self.topics.entry(Arc::clone(topic)).or_insert_with(|| Topic::new(topic, largest));
        known.partitions.insert(partition, Partition { next: place.next, newest, touched: false });
        if let Some(at) = at {
            self.position.partitions.get_or_insert_default().set(topic, partition, at);
        }
    }

    /// Says where it stands with the next batch, even where nothing comes.
    pub fn say_position(&mut self) {
        self.moved = true;
    }

    /// All that lies before this place of the binlog was taken in.
    pub fn whole_through(&mut self, file: &str, at: Coordinate) {
        self.moved |= self.position.at != at || self.position.file != file;
        self.position.at = at;
        if self.position.file != file {
            self.position.file = file.to_owned();
        }
    }

    /// Hands over what there is, with the position after it.
    pub fn batch(&mut self) -> Batch {
        let partitions = self.position.partitions.get_or_insert_default();
        for topic in self.topics.values_mut() {
            for (number, partition) in topic.partitions.iter_mut().filter(|(_, partition)| partition.touched) {
                partition.touched = false;
                partitions.set(&topic.name, *number, PartitionAt { next: partition.next, newest: partition.newest.to_text() });
            }
        }
        self.round += 1;
        self.moved = false;
        let mut batch = std::mem::take(&mut self.batch);
        batch.position = Some(self.position.clone());
        batch
    }

    /// Takes in one record, in its partition's order.
    pub fn take(&mut self, record: &Record<'_>, patience: Patience<'_>) {
        let topic = match self.topics.get_mut(record.topic) {
            Some(topic) => topic,
            None => {
                let name: Arc<str> = record.topic.into();
                self.topics.entry(Arc::clone(&name)).or_insert_with(|| Topic::new(&name, self.ways.largest))
            }
        };
        let partition = topic.partitions.entry(record.partition).or_default();
        if record.offset < partition.next {
            return;
        }
        partition.next = record.offset + 1;
        partition.touched = true;
        self.batch.records += 1;
        self.batch.bytes += (record.value.map_or(0, <[u8]>::len) + record.key.map_or(0, <[u8]>::len)) as u64;
        let taken = match topic.decoder.decode(record.key, record.value, record.half) {
            Decoded::Control(_) => Taken::Control,
            Decoded::Undecodable(reason) => Taken::Aside(class_of(&reason), reason.to_string()),
            Decoded::Read(change) => self.row(record, &change, patience),
            Decoded::Truncate(source) => {
                if partition.newest.is_new(&source, Half::Whole, 0, self.ways.compressed) {
                    self.truncate(record, &source, patience)
                } else {
                    Taken::Duplicate
                }
            }
            Decoded::Change(change) => {
                if partition.newest.is_new(&change.source, change.half, content(&change), self.ways.compressed) {
                    self.row(record, &change, patience)
                } else {
                    Taken::Duplicate
                }
            }
        };
        match taken {
            Taken::Change => {}
            Taken::Control => self.batch.control += 1,
            Taken::Duplicate => self.batch.duplicates += 1,
            Taken::Aside(class, reason) => {
                self.batch.control += 1;
                self.aside.keep(record, class, reason);
            }
        }
    }

    fn row(&mut self, record: &Record<'_>, change: &Change<'_>, patience: Patience<'_>) -> Taken {
        if let Err(taken) = self.plan(record.topic, &change.source, change.shape.as_ref(), patience) {
            return taken;
        }
        let read = match self.images(record.topic, change) {
            Ok(images) if images.more_columns => {
                // The table has changed since we saw it: its new shape is on its way.
                if self.renew(record.topic, patience) { self.images(record.topic, change) } else { Ok(images) }
            }
            read => read,
        };
        match read {
            Ok(images) => {
                let event = ChangeEvent { table: images.table, op: change.op, before: images.before, after: images.after };
                self.push(record, &change.source, event);
                Taken::Change
            }
            Err(misfit) => Taken::Aside("row", Reason::Row(misfit).to_string()),
        }
    }

    fn truncate(&mut self, record: &Record<'_>, source: &Source<'_>, patience: Patience<'_>) -> Taken {
        if let Err(taken) = self.plan(record.topic, source, None, patience) {
            return taken;
        }
        let Some(planned) = self.topics.get(record.topic).and_then(|topic| topic.planned.as_ref()) else { return Taken::Control };
        let event = ChangeEvent { table: Arc::clone(&planned.table), op: Op::Truncate, before: None, after: None };
        self.push(record, source, event);
        Taken::Change
    }

    fn push(&mut self, record: &Record<'_>, source: &Source<'_>, event: ChangeEvent) {
        let first = self.batch.events.len();
        let topic = self.topics.get(record.topic).map_or_else(|| record.topic.into(), |topic| Arc::clone(&topic.name));
        self.batch.events.push(Event::Change(event));
        self.batch.transactions.push(TransactionMark {
            id: TxnId::Record(RecordId { topic, partition: record.partition, offset: record.offset }),
            origin: Some(source.transaction()),
            at: source.at,
            commit_micros: source.commit_micros,
            events: first..first + 1,
            first_change: 0,
            complete: true,
        });
    }

    /// Sees to it that the topic's plan is of this table and this shape.
    fn plan(&mut self, topic: &str, source: &Source<'_>, shape: Option<&Arc<Shape>>, patience: Patience<'_>) -> Result<(), Taken> {
        let Some(topic) = self.topics.get_mut(topic) else { return Err(Taken::Control) };
        let same_shape = |planned: &Planned| match (&planned.shape, shape) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) || a == b,
            (None, None) => true,
            _ => false,
        };
        let known = topic.planned.as_mut().filter(|planned| *planned.id.schema == *source.schema && *planned.id.table == *source.table);
        let id = known.as_ref().map_or_else(|| source.table_id(), |planned| planned.id.clone());
        let known = known.filter(|planned| same_shape(planned));
        if known.as_ref().is_some_and(|planned| planned.round == self.round) {
            return Ok(());
        }
        let mut table = (self.lookup)(&id);
        if table.is_none() && !self.unwatched.contains(&id) {
            patience(&mut || {
                table = (self.lookup)(&id);
                table.is_some()
            });
        }
        let Some(table) = table else {
            let reason = format!("table not watched: `{id}`");
            topic.planned = None;
            self.unwatched.insert(id);
            return Err(Taken::Aside("not_watched", reason));
        };
        self.unwatched.remove(&id);
        if let Some(planned) = known
            && (Arc::ptr_eq(&planned.table, &table) || planned.table == table)
        {
            planned.round = self.round;
            return Ok(());
        }
        let plan = Plan::new(Arc::clone(&table), shape.map(|shape| &**shape), &self.ways.cells);
        topic.planned = Some(Planned { id, table, shape: shape.cloned(), plan, round: self.round, waited: false });
        Ok(())
    }

    /// Waits for another shape of the topic's table, once for each shape; says whether it came.
    fn renew(&mut self, topic: &str, patience: Patience<'_>) -> bool {
        let Some(planned) = self.topics.get_mut(topic).and_then(|topic| topic.planned.as_mut()).filter(|planned| !planned.waited) else { return false };
        planned.waited = true;
        let lookup = &self.lookup;
        let mut newer = None;
        patience(&mut || {
            newer = lookup(&planned.id).filter(|table| *table != planned.table);
            newer.is_some()
        });
        let Some(table) = newer else { return false };
        planned.plan = Plan::new(Arc::clone(&table), planned.shape.as_deref(), &self.ways.cells);
        planned.table = table;
        planned.waited = false;
        true
    }

    fn images(&mut self, topic: &str, change: &Change<'_>) -> Result<Images, Misfit> {
        let Some(planned) = self.topics.get(topic).and_then(|topic| topic.planned.as_ref()) else { return Err(Misfit::NoObject) };
        let mut more_columns = false;
        let mut read = |image: Option<&str>| -> Result<Option<Row>, Misfit> {
            let Some(image) = image else { return Ok(None) };
            let read = planned.plan.row(&mut self.cells, image)?;
            more_columns |= read.more_columns;
            Ok(Some(read.row))
        };
        let (before, after) = (read(change.before)?, read(change.after)?);
        Ok(Images { table: Arc::clone(&planned.table), before, after, more_columns })
    }
}

impl Topic {
    fn new(name: &Arc<str>, largest: usize) -> Self {
        Self { name: Arc::clone(name), decoder: Decoder::new(largest), planned: None, partitions: HashMap::new() }
    }
}

struct Images {
    table: Arc<TableSchema>,
    before: Option<Row>,
    after: Option<Row>,
    more_columns: bool,
}

/// What became of a record.
enum Taken {
    Change,
    Control,
    Duplicate,
    Aside(&'static str, String),
}

/// A hash of a change's rows.
fn content(change: &Change<'_>) -> u64 {
    let hash = |image: Option<&str>| image.map_or(0, |image| xxhash_rust::xxh3::xxh3_64(image.as_bytes()));
    hash(change.before).rotate_left(1) ^ hash(change.after)
}

#[cfg(test)]
mod tests;
