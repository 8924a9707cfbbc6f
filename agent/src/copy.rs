//! The copy of existing rows, merged with the stream, while writes go on.
//!
//! A chunk is read in a view of the source (L, H). It is written when the line has passed H, without the rows whose keys the stream has
//! touched since: for those the stream's events are the newer truth, and they are applied already. A table without key has no such
//! identity: it is copied in one view while the line waits, and the applier leaves out the events that the view contains.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use plumbline_sdk::canon::value_of_source_text;
use plumbline_sdk::read::BlockSink;
use plumbline_sdk::{
    Batch, ChangeEvent, Coordinate, CopyMark, Error, ErrorKind, Event, KeyRange, Op, Position, ReadColumn, ReadPlan, Reader, Result, Row, RowBlock, RowWriter,
    TableId, TableSchema, ValueRef, View,
};
use tokio::sync::mpsc;

use crate::checks::count_in_view;
use crate::pipeline::Line;
use crate::shared::Shared;
use crate::state::Partner;
use crate::validation::feed::Feed;
use crate::window::Window;

/// Rows in the first chunk of a table; later ones follow from how much a row weighs.
const FIRST_CHUNK: u64 = 2_000;
const MOST_ROWS: u64 = 50_000;
const CHUNK_BYTES: u64 = 8 * 1024 * 1024;
const AWAY: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(300);

/// The copy of all tables that need one.
pub struct Copier {
    requests: mpsc::Sender<Request>,
    answers: mpsc::Receiver<Answer>,
    queue: VecDeque<TableId>,
    current: Option<Current>,
    /// A chunk that was read and waits for its fence.
    waiting: Option<Chunk>,
    /// Whether the reading task works on a request.
    asked: bool,
    stale: bool,
    /// Copies of tables without key that a write may have crossed: looked at when the line passes H.
    doubtful: Vec<(TableId, Position, Coordinate)>,
}

struct Current {
    schema: Arc<TableSchema>,
    plan: ReadPlan,
    next: Option<Vec<String>>,
    rows_done: u64,
    expected: u64,
    limit: u64,
    restart: bool,
}

enum Request {
    Count(TableId),
    Chunk { schema: Arc<TableSchema>, plan: ReadPlan, next: Option<Vec<String>>, limit: u64 },
    /// Hand over the reader; it comes back with `Return`.
    Lend,
    Return(Box<dyn Reader>),
}

enum Answer {
    Counted(u64),
    Chunk(Box<Chunk>),
    Lent(Box<dyn Reader>),
    Failed(Error),
}

struct Chunk {
    schema: Arc<TableSchema>,
    rows: Vec<Row>,
    view: View,
    last: Option<Vec<String>>,
    done: bool,
    bytes: u64,
}

impl Copier {
    /// A copier that reads with `reader`, in a task of its own.
    pub fn new(reader: Box<dyn Reader>) -> Self {
        let (requests, inbox) = mpsc::channel(2);
        let (outbox, answers) = mpsc::channel(2);
        tokio::spawn(read(reader, inbox, outbox));
        Self { requests, answers, queue: VecDeque::new(), current: None, waiting: None, asked: false, stale: true, doubtful: Vec::new() }
    }

    /// The set of tables or a shape changed: look for tables that need a copy.
    pub fn look_again(&mut self) {
        self.stale = true;
    }

    /// Resolves when there is something to do at the line's position. Dropped and asked again at will.
    pub async fn ready(&mut self, shared: &Shared) {
        if self.asked && self.waiting.is_none() {
            match self.answers.recv().await {
                Some(answer) => {
                    self.asked = false;
                    self.take(answer);
                }
                None => std::future::pending().await,
            }
            // A chunk waits for its fence first: it may have columns that the target gets by a statement on its way.
            if self.waiting.is_none() {
                return;
            }
        }
        if let Some(chunk) = &self.waiting {
            let Some(high) = chunk.view.high else { return };
            let mut applied = shared.applied.subscribe();
            // Within a transaction the target is in no state of the source: a chunk waits for its end.
            let _ = applied.wait_for(|position| position.as_ref().is_some_and(|position| position.partial.is_none() && position.reached(high))).await;
            return;
        }
        let started = shared.picture().state.applied.is_some();
        if started && (self.stale || self.current.is_some() || !self.queue.is_empty() || !self.doubtful.is_empty()) {
            if !self.stale && self.current.is_none() && self.queue.is_empty() {
                // Only doubtful copies: wait until the line has passed them.
                let high = self.doubtful.iter().map(|(_, _, high)| *high).min().unwrap_or_default();
                let mut applied = shared.applied.subscribe();
                let _ = applied.wait_for(|position| position.as_ref().is_some_and(|position| position.reached(high))).await;
            }
            return;
        }
        std::future::pending().await
    }

    fn take(&mut self, answer: Answer) {
        match answer {
            Answer::Chunk(chunk) => {
                if let Some(current) = &mut self.current {
                    current.limit = match chunk.rows.len() as u64 {
                        0 => current.limit,
                        rows => (CHUNK_BYTES * rows / chunk.bytes.max(1)).clamp(500, MOST_ROWS),
                    };
                }
                self.waiting = Some(*chunk);
            }
            Answer::Counted(rows) => {
                if let Some(current) = &mut self.current {
                    current.expected = rows.max(current.rows_done);
                }
            }
            Answer::Failed(error) => {
                if let Some(current) = &self.current {
                    tracing::warn!(table = %current.schema.id, error = error.chain(), "the copy could not read; it tries again");
                    if matches!(error.kind(), ErrorKind::Rejected | ErrorKind::Fatal) {
                        // Most often the table vanished or changed: look what stands there now.
                        self.current = None;
                        self.stale = true;
                    }
                }
            }
            Answer::Lent(_) => {}
        }
    }

    /// Does the next thing. Called by the line, between two batches.
    pub(crate) async fn step(&mut self, line: &mut Line) -> Result<()> {
        self.settle_doubtful(&line.shared);
        if let Some(chunk) = self.waiting.take() {
            return self.write(chunk, line).await;
        }
        if self.stale {
            self.stale = false;
            self.queue = wanted(&line.shared);
            if let Some(current) = &self.current
                && !self.queue.contains(&current.schema.id)
            {
                self.current = None;
            }
        }
        if self.current.is_none() {
            self.begin(&line.shared);
            if let Some(current) = &self.current {
                tracing::info!(table = %current.schema.id, rows_done = current.rows_done, "copying");
                if current.plan.key > 0 {
                    self.ask(Request::Count(current.schema.id.clone())).await;
                }
            }
            if self.current.as_ref().is_some_and(|current| current.plan.key == 0) {
                return self.copy_keyless(line).await;
            }
            return Ok(());
        }
        self.ask_chunk().await;
        Ok(())
    }

    async fn ask(&mut self, request: Request) {
        self.asked = self.requests.send(request).await.is_ok();
    }

    async fn ask_chunk(&mut self) {
        if let Some(current) = &self.current {
            let request = Request::Chunk { schema: Arc::clone(&current.schema), plan: current.plan.clone(), next: current.next.clone(), limit: current.limit };
            self.ask(request).await;
        }
    }

    /// Takes the next table of the queue.
    fn begin(&mut self, shared: &Shared) {
        while let Some(id) = self.queue.pop_front() {
            let picture = shared.picture();
            let Some(table) = picture.state.tables.get(&id) else { continue };
            let Some(schema) = table.schema.clone() else { continue };
            let plan = read_plan(&schema);
            let begun = table.copy.as_ref();
            // A table without key cannot go on in the middle: it begins again, emptied first.
            let (next, rows_done) = match begun {
                Some(mark) if plan.key > 0 => (mark.next.clone(), mark.rows_done),
                _ => (None, 0),
            };
            let expected = begun.map_or(0, |mark| mark.rows_expected);
            self.current = Some(Current { restart: begun.is_some() && plan.key == 0, schema, plan, next, rows_done, expected, limit: FIRST_CHUNK });
            return;
        }
    }

    /// Writes a chunk whose fence the line has passed.
    async fn write(&mut self, chunk: Chunk, line: &mut Line) -> Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        if current.schema.id != chunk.schema.id {
            return Ok(());
        }
        let touched = {
            let picture = line.shared.picture();
            touched(&picture.window, &chunk)
        };
        let Some(touched) = touched else {
            // The shape changed, the table was emptied, or the past is forgotten: read the chunk again.
            let shape = line.shared.picture().state.tables.get(&current.schema.id).and_then(|table| table.schema.clone());
            match shape {
                Some(schema) if schema != current.schema => {
                    current.plan = read_plan(&schema);
                    current.schema = schema;
                }
                _ => {}
            }
            self.ask_chunk().await;
            return Ok(());
        };
        let key = chunk.schema.key();
        let events: Vec<Event> = chunk
            .rows
            .into_iter()
            .filter(|row| touched.is_empty() || !touched.contains(&key_bytes(row, &key)))
            .map(|row| Event::Change(ChangeEvent { table: Arc::clone(&chunk.schema), op: Op::Snapshot, before: None, after: Some(row) }))
            .collect();
        current.rows_done += events.len() as u64;
        current.next = chunk.last;
        let mark = CopyMark {
            table: chunk.schema.id.clone(),
            rows_done: current.rows_done,
            rows_expected: current.expected.max(current.rows_done),
            next: current.next.clone(),
            done: chunk.done,
            snapshot: None,
            restart: false,
        };
        if chunk.done {
            self.current = None;
        } else {
            // The next chunk is read while this one is written.
            self.ask_chunk().await;
        }
        line.pass_copy(Batch { events, copy: Some(mark), ..Batch::default() }).await
    }

    /// Copies a table without key in one view, while the line waits.
    async fn copy_keyless(&mut self, line: &mut Line) -> Result<()> {
        let Some(current) = self.current.take() else { return Ok(()) };
        self.ask(Request::Lend).await;
        let reader = match self.answers.recv().await {
            Some(Answer::Lent(reader)) => reader,
            Some(Answer::Failed(error)) => {
                self.asked = false;
                tracing::warn!(table = %current.schema.id, error = error.chain(), "the copy could not read; it tries again");
                tokio::time::sleep(AWAY).await;
                self.stale = true;
                return Ok(());
            }
            _ => {
                self.asked = false;
                return Ok(());
            }
        };
        self.asked = false;
        let result = keyless(reader, &current, line).await;
        let reader = match result {
            Ok((back, doubt)) => {
                if let Some((low, high)) = doubt {
                    self.doubtful.push((current.schema.id.clone(), low, high));
                }
                back
            }
            Err(KeylessError { back, error: Some(error) }) if error.kind() == ErrorKind::Fatal => {
                drop(back);
                return Err(error);
            }
            Err(KeylessError { back, error }) => {
                if let Some(error) = error {
                    tracing::warn!(table = %current.schema.id, error = error.chain(), "the copy of a table without key begins again");
                }
                self.stale = true;
                tokio::time::sleep(Duration::from_millis(50)).await;
                back
            }
        };
        if let Some(reader) = reader {
            let _ = self.requests.send(Request::Return(reader)).await;
        }
        Ok(())
    }

    /// A write that crossed the view of a table without key: nobody can tell whether the copy has it. The copy begins again.
    fn settle_doubtful(&mut self, shared: &Shared) {
        let mut picture = shared.picture();
        let mut again = Vec::new();
        self.doubtful.retain(|(table, low, high)| {
            if !picture.state.applied_reached(*high) {
                return true;
            }
            if picture.window.touched(low, *high).is_none_or(|tables| tables.contains(table)) {
                again.push(table.clone());
            }
            false
        });
        for table in again {
            tracing::info!(%table, "a write crossed the view of a table without key: its copy begins again");
            if let Some(mark) = picture.state.tables.get_mut(&table).and_then(|table| table.copy.as_mut()) {
                mark.done = false;
            }
            self.stale = true;
        }
    }
}

/// Tables that need a copy, in order.
fn wanted(shared: &Shared) -> VecDeque<TableId> {
    let picture = shared.picture();
    picture
        .state
        .present()
        .filter(|(_, table)| {
            table.schema.is_some() && table.stopped.is_none() && !table.copy.as_ref().is_some_and(|mark| mark.done) && !matches!(table.partner, Partner::Ambiguous(_))
        })
        .map(|(id, _)| id.clone())
        .collect()
}

/// The keys that the stream touched since the chunk's view opened; None: the chunk cannot be used.
fn touched(window: &Window, chunk: &Chunk) -> Option<HashSet<Vec<u8>>> {
    let batches = match &chunk.view.low {
        Some(low) => window.after(low)?,
        // Without GTIDs the lower bound is not known: everything remembered counts as later. What it touched is applied already.
        None => window.since(0).or_else(|| window.since(window.next()))?,
    };
    let key = chunk.schema.key();
    let mut touched = HashSet::new();
    for batch in &batches {
        for mark in &batch.transactions {
            if chunk.view.low.as_ref().is_some_and(|low| mark.is_in(low)) {
                continue;
            }
            for event in &batch.events[mark.events.clone()] {
                match event {
                    Event::Schema(change) if change.table == chunk.schema.id => return None,
                    Event::Change(change) if change.table.id == chunk.schema.id => {
                        if change.op == Op::Truncate || change.table.columns.len() != chunk.schema.columns.len() {
                            return None;
                        }
                        for row in change.before.iter().chain(&change.after) {
                            touched.insert(key_bytes(row, &key));
                        }
                    }
                    _ => {}
                }
            }
        }
    }
    Some(touched)
}

/// The key cells of a row as bytes that are equal for equal values, whether the row was read or came by the stream.
fn key_bytes(row: &Row, key: &[usize]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16);
    for &i in key {
        let at = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        match row.get(i) {
            ValueRef::Int(v) => bytes.extend_from_slice(v.to_string().as_bytes()),
            ValueRef::UInt(v) => bytes.extend_from_slice(v.to_string().as_bytes()),
            ValueRef::Text(v) | ValueRef::Decimal(v) | ValueRef::Json(v) => bytes.extend_from_slice(v.as_bytes()),
            ValueRef::Bytes(v) => bytes.extend_from_slice(v),
            other => bytes.extend_from_slice(format!("{other:?}").as_bytes()),
        }
        let length = u32::try_from(bytes.len() - at - 4).unwrap_or(u32::MAX);
        bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }
    bytes
}

/// All columns of the source, key first.
fn read_plan(schema: &TableSchema) -> ReadPlan {
    let key = schema.key();
    let order = key.iter().copied().chain((0..schema.columns.len()).filter(|i| !key.contains(i)));
    let columns = order.map(|i| ReadColumn { name: schema.columns[i].name.clone(), rule: plumbline_sdk::canon::Rule::of_source(&schema.columns[i]) }).collect();
    ReadPlan { table: schema.id.clone(), columns, key: key.len(), ordered: false, source: true }
}

/// For each column of the schema: its place in the read plan.
fn places(schema: &TableSchema, plan: &ReadPlan) -> Vec<usize> {
    schema.columns.iter().filter_map(|column| plan.columns.iter().position(|read| read.name == column.name)).collect()
}

fn rows_of(schema: &TableSchema, plan: &ReadPlan, block: &RowBlock, writer: &mut RowWriter, rows: &mut Vec<Row>) -> Result<()> {
    let places = places(schema, plan);
    let mut scratch = Vec::new();
    for row in 0..block.rows() {
        writer.start(schema.columns.len());
        for (column, &place) in schema.columns.iter().zip(&places) {
            match block.cell(row, place) {
                None => writer.push(ValueRef::Null),
                Some(cell) => {
                    scratch.clear();
                    let value = value_of_source_text(&column.ty, cell, &mut scratch)
                        .map_err(|cause| Error::rejected(format!("a value of `{}`.`{}` cannot be read", schema.id, column.name)).caused_by(cause))?;
                    writer.push(value);
                }
            }
        }
        rows.push(writer.finish());
    }
    Ok(())
}

/// The reading task: owns the reader, answers one request after the other.
async fn read(mut reader: Box<dyn Reader>, mut requests: mpsc::Receiver<Request>, answers: mpsc::Sender<Answer>) {
    let mut connected = false;
    while let Some(request) = requests.recv().await {
        if !connected {
            match reader.connect().await {
                Ok(()) => connected = true,
                Err(error) => {
                    tokio::time::sleep(AWAY).await;
                    if answers.send(Answer::Failed(error)).await.is_err() {
                        return;
                    }
                    continue;
                }
            }
        }
        let answer = match request {
            Request::Count(table) => count_in_view(&mut *reader, &table).await.map(|(_, rows)| Answer::Counted(rows)),
            Request::Chunk { schema, plan, next, limit } => read_chunk(&mut *reader, schema, plan, next, limit).await.map(|chunk| Answer::Chunk(Box::new(chunk))),
            Request::Lend => {
                if answers.send(Answer::Lent(reader)).await.is_err() {
                    return;
                }
                match requests.recv().await {
                    Some(Request::Return(back)) => reader = back,
                    _ => return,
                }
                continue;
            }
            Request::Return(back) => {
                reader = back;
                continue;
            }
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                connected = error.kind() != ErrorKind::Disconnected;
                // A table that vanished is told of by discovery in a moment; until then there is no use in asking on and on.
                tokio::time::sleep(PAUSE).await;
                Answer::Failed(error)
            }
        };
        if answers.send(answer).await.is_err() {
            return;
        }
    }
}

/// Collects a bounded read.
struct Collect {
    blocks: Vec<RowBlock>,
    bytes: u64,
}

#[async_trait::async_trait]
impl BlockSink for Collect {
    async fn put(&mut self, block: RowBlock) -> Result<RowBlock> {
        let width = block.width();
        self.bytes += block.size() as u64;
        self.blocks.push(block);
        Ok(RowBlock::new(width))
    }
}

async fn read_chunk(reader: &mut dyn Reader, schema: Arc<TableSchema>, plan: ReadPlan, next: Option<Vec<String>>, limit: u64) -> Result<Chunk> {
    let view = reader.begin().await?;
    let mut collect = Collect { blocks: Vec::new(), bytes: 0 };
    let read = reader.rows(&plan, &KeyRange { after: next.clone(), upto: None }, Some(limit), &mut collect).await;
    reader.end().await?;
    read?;
    let mut rows = Vec::new();
    let mut writer = RowWriter::default();
    for block in &collect.blocks {
        rows_of(&schema, &plan, block, &mut writer, &mut rows)?;
    }
    let last = collect.blocks.iter().rev().find(|block| block.rows() > 0).map(|block| {
        (0..plan.key).map(|i| key_cell(&plan, block, i)).collect::<Vec<String>>()
    });
    let done = (rows.len() as u64) < limit;
    Ok(Chunk { schema, rows, view, last: last.or(next), done, bytes: collect.bytes })
}

/// A key cell as a bound of the next range: canonical, then as the source's reader takes it.
fn key_cell(plan: &ReadPlan, block: &RowBlock, column: usize) -> String {
    let rule = &plan.columns[column].rule;
    let cell = block.cell(block.rows() - 1, column).unwrap_or_default();
    let mut canonical = Vec::new();
    match rule.source_text(cell, &mut canonical).and_then(|()| rule.key_for_source(&canonical)) {
        Ok(key) => String::from_utf8_lossy(&key).into_owned(),
        Err(_) => String::from_utf8_lossy(cell).into_owned(),
    }
}

struct KeylessError {
    back: Option<Box<dyn Reader>>,
    error: Option<Error>,
}

/// Reads and writes all rows of a table without key in one view. Gives the reader back, and the bounds of the view where they are apart.
async fn keyless(
    mut reader: Box<dyn Reader>,
    current: &Current,
    line: &mut Line,
) -> std::result::Result<(Option<Box<dyn Reader>>, Option<(Position, Coordinate)>), KeylessError> {
    let view = match open_after(&mut *reader, &line.shared).await {
        Ok(Some(view)) => view,
        Ok(None) => return Err(KeylessError { back: Some(reader), error: None }),
        Err(error) => return Err(KeylessError { back: Some(reader), error: Some(error) }),
    };
    let expected = reader.count(&current.schema.id).await.unwrap_or(0);
    let Some(low) = view.low.clone() else { return Err(KeylessError { back: Some(reader), error: None }) };
    let mut feed = Feed::start(reader, current.plan.clone(), KeyRange::default(), None);
    let mut writer = RowWriter::default();
    let mut rows_done = 0;
    let mut first = true;
    let mut result = Ok(());
    let started = Instant::now();
    loop {
        let more = feed.refill().await;
        let mut rows = Vec::new();
        if more {
            result = rows_of(&current.schema, &current.plan, &feed.block, &mut writer, &mut rows);
            if result.is_err() {
                break;
            }
        }
        rows_done += rows.len() as u64;
        if !more {
            break;
        }
        let mark = CopyMark {
            table: current.schema.id.clone(),
            rows_done,
            rows_expected: expected.max(rows_done),
            next: None,
            done: false,
            snapshot: Some(low.clone()),
            restart: first && current.restart,
        };
        first = false;
        result = line.pass_copy(snapshot_batch(&current.schema, rows, mark)).await;
        if result.is_err() {
            break;
        }
    }
    let (mut reader, read) = match feed.end().await {
        Ok(ended) => ended,
        Err(error) => return Err(KeylessError { back: None, error: Some(error) }),
    };
    let ended = reader.end().await;
    if let Err(error) = result.and(read).and(ended) {
        return Err(KeylessError { back: Some(reader), error: Some(error) });
    }
    let mark = CopyMark {
        table: current.schema.id.clone(),
        rows_done,
        rows_expected: rows_done,
        next: None,
        done: true,
        snapshot: Some(low.clone()),
        restart: first && current.restart,
    };
    if let Err(error) = line.pass_copy(snapshot_batch(&current.schema, Vec::new(), mark)).await {
        return Err(KeylessError { back: Some(reader), error: Some(error) });
    }
    tracing::debug!(table = %current.schema.id, rows = rows_done, seconds = started.elapsed().as_secs_f64(), "copied a table without key");
    Ok((Some(reader), view.high.map(|high| (low, high))))
}

fn snapshot_batch(schema: &Arc<TableSchema>, rows: Vec<Row>, mark: CopyMark) -> Batch {
    let events = rows
        .into_iter()
        .map(|row| Event::Change(ChangeEvent { table: Arc::clone(schema), op: Op::Snapshot, before: None, after: Some(row) }))
        .collect();
    Batch { events, copy: Some(mark), ..Batch::default() }
}

/// Opens a view that contains everything the line has applied; None: not yet.
async fn open_after(reader: &mut dyn Reader, shared: &Shared) -> Result<Option<View>> {
    let applied = shared.picture().state.applied.clone();
    let Some(applied) = applied else { return Ok(None) };
    let mut view = reader.begin().await?;
    let contained = match (&applied.gtids, view.low.as_ref().and_then(|low| low.gtids.as_ref())) {
        (Some(applied), Some(low)) => applied.is_subset(low),
        // Without GTIDs a view's lower bound is only known where nothing was written since the line's position.
        _ if view.high.is_some_and(|high| high == applied.at) => {
            view.low = Some(applied.clone());
            true
        }
        _ => false,
    };
    if contained && applied.partial.is_none() {
        return Ok(Some(view));
    }
    reader.end().await?;
    Ok(None)
}
