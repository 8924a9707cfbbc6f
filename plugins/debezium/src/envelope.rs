//! What a record of Debezium's MySQL connector says. Pure: no async, no clock, no network.
//!
//! JSON with and without a Connect schema is read; the rows stay the text they came as until [`cells`](crate::cells) reads them.
//! Whatever comes, the answer is a [`Decoded`]: what cannot be read says why in one sentence, and what to change in the connector's settings.

use std::borrow::Cow;
use std::sync::Arc;

use plumbline_sdk::{Coordinate, Gtid, Op, TableId, TxnId};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json;
use crate::shape::Shape;

/// Records larger than this are not read, unless the settings say otherwise.
pub const LARGEST: usize = 64 * 1024 * 1024;

/// Which half of a key change a record is: Debezium sends it as a delete of the old key and an insert of the new, at one position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Half {
    /// Not a key change.
    #[default]
    Whole,
    /// The delete of the old key (header `__debezium.newkey`).
    Old,
    /// The insert of the new key (header `__debezium.oldkey`).
    New,
}

impl Half {
    /// By the names of a record's headers.
    pub fn of_headers<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        names.into_iter().fold(Self::Whole, |half, name| match name {
            "__debezium.newkey" => Self::Old,
            "__debezium.oldkey" => Self::New,
            _ => half,
        })
    }
    /// Its order within one position.
    pub fn ordinal(self) -> u8 {
        u8::from(self == Self::New)
    }
}

/// What a record is.
#[derive(Debug)]
pub enum Decoded<'a> {
    /// A row was inserted, updated or deleted.
    Change(Change<'a>),
    /// An existing row was read (op `r`). Not a change.
    Read(Change<'a>),
    /// All rows of a table were removed at once.
    Truncate(Source<'a>),
    /// Neither: it says something of the pipeline.
    Control(Control),
    /// It cannot be read.
    Undecodable(Reason),
}

/// A record that says something of the pipeline, not of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// The null that follows a delete, for the log's compaction.
    Tombstone,
    /// The connector lives.
    Heartbeat,
    /// A schema statement.
    SchemaChange,
    /// A transaction began or ended.
    Transaction,
    /// A signal to the connector.
    Signal,
    /// The connector tells of a snapshot.
    Notification,
}

/// One row changed, or was read.
#[derive(Debug)]
pub struct Change<'a> {
    /// What happened.
    pub op: Op,
    /// The row before, as JSON: update and delete.
    pub before: Option<&'a str>,
    /// The row after: insert, update, read.
    pub after: Option<&'a str>,
    /// Where it comes from.
    pub source: Source<'a>,
    /// Which half of a key change it is.
    pub half: Half,
    /// What the record's Connect schema says of the rows' fields; None: it came without.
    pub shape: Option<Arc<Shape>>,
}

/// Where a change comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source<'a> {
    /// The database.
    pub schema: Cow<'a, str>,
    /// The table.
    pub table: Cow<'a, str>,
    /// The server that wrote the transaction; 0 for rows of a snapshot.
    pub server_id: u64,
    /// The transaction; None without GTIDs, for snapshots, and where it is not MySQL's form.
    pub gtid: Option<Gtid>,
    /// The binlog file.
    pub file: Cow<'a, str>,
    /// The number of the file, and where the event begins in it. Zero for what has no position.
    pub at: Coordinate,
    /// The row's ordinal in its event.
    pub row: u64,
    /// When it was committed, microseconds since the Unix epoch, never negative. Old connectors tell milliseconds or seconds only.
    pub commit_micros: i64,
    /// Whether it is of an incremental snapshot, which may come before, between and after changes of the same row.
    pub incremental: bool,
}

impl Source<'_> {
    /// Which table.
    pub fn table_id(&self) -> TableId {
        TableId::new(&*self.schema, &*self.table)
    }
    /// The database's own transaction.
    pub fn transaction(&self) -> TxnId {
        match &self.gtid {
            Some(gtid) => TxnId::Gtid(gtid.clone()),
            None => TxnId::At(self.at),
        }
    }
}

/// Why a record cannot be read, and what to change. Says names, never values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// No byte, and not null.
    #[error("the record's value has no byte; Debezium sends JSON or null")]
    Empty,
    /// Above the limit.
    #[error("the record has {size} bytes, above the limit of {limit}: raise `max_record_bytes`, or exclude its large columns from the connector")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// JSON Schema with a registry.
    #[error(
        "the record is in a schema registry's form (JSON Schema, id {0}): set the connector's `key.converter` and `value.converter` to `org.apache.kafka.connect.json.JsonConverter`"
    )]
    RegistryJson(u32),
    /// Avro or Protobuf with a registry.
    #[error(
        "the record is Avro or Protobuf (magic byte 0, schema id {0}): set the connector's `key.converter` and `value.converter` to `org.apache.kafka.connect.json.JsonConverter`"
    )]
    Registry(u32),
    /// Binary without a registry's mark.
    #[error(
        "the record is binary, Protobuf perhaps, and not JSON: set the connector's `key.converter` and `value.converter` to `org.apache.kafka.connect.json.JsonConverter`"
    )]
    Binary,
    /// Bytes that are no text.
    #[error("the record is not valid UTF-8 from byte {0}")]
    Utf8(usize),
    /// Not JSON.
    #[error("the record is not valid JSON at column {0}")]
    NotJson(usize),
    /// Nested too deep.
    #[error("the record is nested deeper than 128 levels")]
    TooDeep,
    /// A text with half a surrogate pair.
    #[error("the record has a name with half a surrogate pair, which is no text")]
    Surrogate,
    /// A field came twice.
    #[error("the record has the field `{0}` twice")]
    Twice(String),
    /// A field of another type.
    #[error("the record is JSON, but not as Debezium writes it: a field has another type at column {0}")]
    WrongType(usize),
    /// JSON, but no object.
    #[error("the record is JSON, but no object: it is not one of Debezium's")]
    NoObject,
    /// The envelope was taken off.
    #[error(
        "the record was flattened: it has `{0}` and no envelope with `before`, `after` and `source`. Remove the transform `ExtractNewRecordState` (`transforms`) from the connector"
    )]
    Flattened(String),
    /// An object without the fields of an envelope.
    #[error("the record has no envelope (`op`, `before`, `after`, `source`): was it flattened by a transform, or is the topic not the connector's?")]
    NoEnvelope,
    /// An op that is not known.
    #[error("the record has the unknown op `{0}`; known are `c`, `u`, `d`, `r`, `t`")]
    UnknownOp(String),
    /// No op.
    #[error("the record has no `op`: a transform took it off; remove it from `transforms` of the connector")]
    NoOp,
    /// No source.
    #[error("the record has no `source`: a transform took it off; remove it from `transforms` of the connector")]
    NoSource,
    /// The source lacks a field.
    #[error("the record's `source` has no `{0}`: a transform took it off, or the connector is older than 2.0")]
    SourceLacks(&'static str),
    /// Another database's connector.
    #[error("the record is of the connector `{0}`; known are `mysql` and `mariadb`")]
    Connector(String),
    /// An image that the op must have.
    #[error("the record of op `{op}` has no `{image}`: the server's `binlog_row_image` must be FULL")]
    NoImage {
        /// The op.
        op: &'static str,
        /// `before` or `after`.
        image: &'static str,
    },
    /// A row does not fit its table.
    #[error(transparent)]
    Row(#[from] crate::cells::Misfit),
}

/// Decodes the records of one topic. It remembers the last Connect schema, so that records of one shape read it once.
#[derive(Debug)]
pub struct Decoder {
    largest: usize,
    remembered: Option<Remembered>,
}

/// A record's text up to its payload, read once; a record that begins with the same bytes has the same schema.
#[derive(Debug)]
struct Remembered {
    prefix: Box<str>,
    shape: Option<Arc<Shape>>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(LARGEST)
    }
}

impl Decoder {
    /// A decoder that reads records of up to `largest` bytes.
    pub fn new(largest: usize) -> Self {
        Self { largest, remembered: None }
    }

    /// Says what a record is. `half` comes from its headers ([`Half::of_headers`]).
    pub fn decode<'a>(&mut self, key: Option<&[u8]>, value: Option<&'a [u8]>, half: Half) -> Decoded<'a> {
        let Some(value) = value else { return Decoded::Control(Control::Tombstone) };
        match self.read(key, value, half) {
            Ok(decoded) => decoded,
            Err(reason) => Decoded::Undecodable(reason),
        }
    }

    fn read<'a>(&mut self, key: Option<&[u8]>, value: &'a [u8], half: Half) -> Result<Decoded<'a>, Reason> {
        if value.len() > self.largest {
            return Err(Reason::TooLarge { size: value.len(), limit: self.largest });
        }
        let text = as_text(value)?;
        if let Some((payload, shape)) = self.after_remembered(text)
            && let Some(envelope) = Envelope::of_change(payload).or_else(|| serde_json::from_str::<Envelope<'a>>(payload).ok())
        {
            return envelope.decode(key, half, shape);
        }
        if let Some(envelope) = Envelope::of_change(text) {
            return envelope.decode(key, half, None);
        }
        let envelope: Envelope<'a> = parse(text)?;
        let (Some(schema), Some(payload), None) = (envelope.schema, envelope.payload, &envelope.op) else {
            return if envelope.is_empty_payload() { Ok(Decoded::Control(Control::Tombstone)) } else { envelope.decode(key, half, None) };
        };
        let shape = Shape::of_envelope(schema.get()).map(Arc::new);
        self.remember(text, schema.get(), payload, shape.clone());
        parse::<Envelope<'a>>(payload)?.decode(key, half, shape)
    }

    /// The payload of a record that begins as the last one did.
    fn after_remembered<'a>(&self, text: &'a str) -> Option<(&'a str, Option<Arc<Shape>>)> {
        let remembered = self.remembered.as_ref()?;
        let payload = text.strip_prefix(&*remembered.prefix)?.strip_suffix('}')?;
        Some((payload, remembered.shape.clone()))
    }

    /// Keeps what stands before the payload, where the record is as Connect writes it: schema, payload, and nothing after it.
    fn remember(&mut self, text: &str, schema: &str, payload: &str, shape: Option<Arc<Shape>>) {
        let place = |part: &str| (part.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize);
        let (schema_at, payload_at) = (place(schema), place(payload));
        let as_written = schema_at < payload_at && text.get(..schema_at) == Some("{\"schema\":") && text.get(payload_at + payload.len()..) == Some("}");
        let between = text.get(schema_at + schema.len()..payload_at) == Some(",\"payload\":");
        if as_written && between {
            self.remembered = text.get(..payload_at).map(|prefix| Remembered { prefix: prefix.into(), shape });
        }
    }
}

/// The value as text, or what it is instead.
fn as_text(value: &[u8]) -> Result<&str, Reason> {
    if value.is_empty() {
        return Err(Reason::Empty);
    }
    if let [0, a, b, c, d, rest @ ..] = value {
        let id = u32::from_be_bytes([*a, *b, *c, *d]);
        return Err(if rest.first() == Some(&b'{') { Reason::RegistryJson(id) } else { Reason::Registry(id) });
    }
    let json = matches!(value.iter().find(|byte| !byte.is_ascii_whitespace()), Some(b'{' | b'[' | b'"' | b't' | b'f' | b'n' | b'-' | b'0'..=b'9'));
    match std::str::from_utf8(value) {
        Ok(text) if json => Ok(text),
        Ok(text) if text.chars().all(|letter| !letter.is_control() || letter.is_ascii_whitespace()) => Err(Reason::NotJson(1)),
        Err(cause) if json => Err(Reason::Utf8(cause.valid_up_to())),
        _ => Err(Reason::Binary),
    }
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Reason> {
    if !text.trim_start().starts_with('{') {
        return Err(match serde_json::from_str::<&RawValue>(text) {
            Ok(_) => Reason::NoObject,
            Err(cause) => Reason::NotJson(cause.column()),
        });
    }
    serde_json::from_str(text).map_err(|cause| reason_of(&cause))
}

/// What the parser said, without the text it quotes.
fn reason_of(cause: &serde_json::Error) -> Reason {
    let said = cause.to_string();
    if let Some(name) = said.strip_prefix("duplicate field `").and_then(|rest| rest.split('`').next()) {
        return Reason::Twice(name.to_owned());
    }
    if said.starts_with("recursion limit") {
        return Reason::TooDeep;
    }
    if said.contains("surrogate") || said.contains("hex escape") {
        return Reason::Surrogate;
    }
    match cause.classify() {
        serde_json::error::Category::Data => Reason::WrongType(cause.column()),
        _ => Reason::NotJson(cause.column()),
    }
}

/// The fields of everything that Debezium writes, and of what Connect wraps it in.
#[derive(Deserialize, Default)]
struct Envelope<'a> {
    #[serde(borrow)]
    op: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "written")]
    before: Option<&'a str>,
    #[serde(borrow, default, deserialize_with = "written")]
    after: Option<&'a str>,
    #[serde(borrow, default, deserialize_with = "written")]
    source: Option<&'a str>,
    #[serde(borrow)]
    ts_ms: Option<&'a RawValue>,
    // Connect's wrapping.
    #[serde(borrow)]
    schema: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    payload: Option<&'a str>,
    // Control records.
    #[serde(borrow)]
    ddl: Option<&'a RawValue>,
    #[serde(borrow, rename = "tableChanges")]
    table_changes: Option<&'a RawValue>,
    #[serde(borrow)]
    status: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    aggregate_type: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    // What flattening adds.
    #[serde(borrow, rename = "__op")]
    flat_op: Option<&'a RawValue>,
    #[serde(borrow, rename = "__deleted")]
    flat_deleted: Option<&'a RawValue>,
    #[serde(borrow, rename = "__table")]
    flat_table: Option<&'a RawValue>,
}

/// A field that is there, although it may be null.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de str>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(|raw| Some(raw.get()))
}

/// A field as it is written; None: null.
fn written<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de str>, D::Error> {
    Option::<&RawValue>::deserialize(deserializer).map(|raw| raw.map(RawValue::get))
}

/// The fields of keys that tell control records apart.
#[derive(Deserialize, Default)]
struct Key<'a> {
    #[serde(borrow, rename = "serverName")]
    server_name: Option<&'a RawValue>,
    #[serde(borrow, rename = "databaseName")]
    database_name: Option<&'a RawValue>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct WireSource<'a> {
    #[serde(borrow)]
    connector: Option<Cow<'a, str>>,
    #[serde(borrow)]
    db: Option<Cow<'a, str>>,
    #[serde(borrow)]
    table: Option<Cow<'a, str>>,
    server_id: Option<i64>,
    #[serde(borrow)]
    gtid: Option<Cow<'a, str>>,
    #[serde(borrow)]
    file: Option<Cow<'a, str>>,
    pos: Option<i64>,
    row: Option<i64>,
    ts_us: Option<i64>,
    ts_ms: Option<i64>,
    #[serde(borrow, default, deserialize_with = "written")]
    snapshot: Option<&'a str>,
}

impl<'a> Envelope<'a> {
    /// A change as Connect writes it; None: something else, or in another form.
    fn of_change(text: &'a str) -> Option<Self> {
        if !json::is_clean(text) {
            return None;
        }
        let mut envelope = Self::default();
        let mut seen = 0_u8;
        json::members(text, |name, value| {
            let (bit, field) = match name {
                "before" => (1, Some(&mut envelope.before)),
                "after" => (2, Some(&mut envelope.after)),
                "source" => (4, Some(&mut envelope.source)),
                "op" => {
                    envelope.op = Some(Cow::Borrowed(json::plain(value)?));
                    (8, None)
                }
                "ts_ms" | "ts_us" | "ts_ns" | "transaction" => return Some(()),
                _ => return None,
            };
            if let Some(field) = field {
                *field = Some(value).filter(|value| *value != "null");
            }
            let again = seen & bit != 0;
            seen |= bit;
            (!again).then_some(())
        })?;
        envelope.op.is_some().then_some(envelope)
    }

    /// A null that Connect wrapped.
    fn is_empty_payload(&self) -> bool {
        self.op.is_none() && self.source.is_none() && self.payload == Some("null")
    }

    fn decode(self, key: Option<&[u8]>, half: Half, shape: Option<Arc<Shape>>) -> Result<Decoded<'a>, Reason> {
        let Some(op) = self.op.as_deref() else { return self.without_op(key) };
        let (op, name) = match op {
            "c" => (Op::Insert, "c"),
            "u" => (Op::Update, "u"),
            "d" => (Op::Delete, "d"),
            "r" => (Op::Snapshot, "r"),
            "t" => (Op::Truncate, "t"),
            other => return Err(Reason::UnknownOp(other.chars().filter(|letter| letter.is_ascii_graphic()).take(16).collect())),
        };
        let source = source(self.source.ok_or(Reason::NoSource)?)?;
        if op == Op::Truncate {
            return Ok(Decoded::Truncate(source));
        }
        let image = |image: Option<&'a str>, name_of: &'static str| image.map(Some).ok_or(Reason::NoImage { op: name, image: name_of });
        let before = if matches!(op, Op::Update | Op::Delete) { image(self.before, "before")? } else { None };
        let after = if op == Op::Delete { None } else { image(self.after, "after")? };
        let change = Change { op, before, after, source, half, shape };
        Ok(if op == Op::Snapshot { Decoded::Read(change) } else { Decoded::Change(change) })
    }

    /// Control records have no op; neither have records that are not Debezium's.
    fn without_op(&self, key: Option<&[u8]>) -> Result<Decoded<'a>, Reason> {
        let key = Key::read(key);
        let is = |field: Option<&RawValue>, texts: &[&str]| field.is_some_and(|raw| texts.contains(&raw.get()));
        let flattened = [(self.flat_op, "__op"), (self.flat_deleted, "__deleted"), (self.flat_table, "__table")];
        if let Some((_, name)) = flattened.into_iter().find(|(field, _)| field.is_some()) {
            return Err(Reason::Flattened(name.to_owned()));
        }
        let control = if self.ddl.is_some() || self.table_changes.is_some() || key.database {
            Control::SchemaChange
        } else if is(self.status, &["\"BEGIN\"", "\"END\""]) && self.id.is_some() {
            Control::Transaction
        } else if self.aggregate_type.is_some() && self.kind.is_some() {
            Control::Notification
        } else if self.kind.is_some() && self.data.is_some() {
            Control::Signal
        } else if self.ts_ms.is_some() && key.server {
            Control::Heartbeat
        } else if self.before.is_some() || self.after.is_some() || self.source.is_some() {
            return Err(Reason::NoOp);
        } else {
            return Err(Reason::NoEnvelope);
        };
        Ok(Decoded::Control(control))
    }
}

/// What a key says of its record.
#[derive(Default)]
struct KeyKind {
    server: bool,
    database: bool,
}

impl Key<'_> {
    fn read(key: Option<&[u8]>) -> KeyKind {
        let Some(Ok(mut read)) = key.map(serde_json::from_slice::<Key<'_>>) else { return KeyKind::default() };
        if let Some(payload) = read.payload {
            read = serde_json::from_str(payload.get()).unwrap_or_default();
        }
        KeyKind { server: read.server_name.is_some(), database: read.database_name.is_some() }
    }
}

impl<'a> WireSource<'a> {
    /// A source as Connect writes it; None: in another form.
    fn read(text: &'a str) -> Option<Self> {
        let mut wire = Self::default();
        let mut seen = 0_u16;
        json::members(text, |name, value| {
            let bit = match name {
                "connector" => wire.text(value, 0, |wire| &mut wire.connector)?,
                "db" => wire.text(value, 1, |wire| &mut wire.db)?,
                "table" => wire.text(value, 2, |wire| &mut wire.table)?,
                "gtid" => wire.text(value, 3, |wire| &mut wire.gtid)?,
                "file" => wire.text(value, 4, |wire| &mut wire.file)?,
                "server_id" => wire.number(value, 5, |wire| &mut wire.server_id)?,
                "pos" => wire.number(value, 6, |wire| &mut wire.pos)?,
                "row" => wire.number(value, 7, |wire| &mut wire.row)?,
                "ts_us" => wire.number(value, 8, |wire| &mut wire.ts_us)?,
                "ts_ms" => wire.number(value, 9, |wire| &mut wire.ts_ms)?,
                "snapshot" => {
                    wire.snapshot = Some(value).filter(|value| *value != "null");
                    1 << 10
                }
                _ => return Some(()),
            };
            let again = seen & bit != 0;
            seen |= bit;
            (!again).then_some(())
        })?;
        Some(wire)
    }

    fn text(&mut self, value: &'a str, number: u16, field: impl Fn(&mut Self) -> &mut Option<Cow<'a, str>>) -> Option<u16> {
        *field(self) = if value == "null" { None } else { Some(Cow::Borrowed(json::plain(value)?)) };
        Some(1 << number)
    }

    fn number(&mut self, value: &str, number: u16, field: impl Fn(&mut Self) -> &mut Option<i64>) -> Option<u16> {
        *field(self) = if value == "null" { None } else { Some(value.parse().ok()?) };
        Some(1 << number)
    }
}

fn source(text: &str) -> Result<Source<'_>, Reason> {
    let wire = match WireSource::read(text) {
        Some(wire) => wire,
        None => parse(text)?,
    };
    if let Some(connector) = wire.connector.as_deref().filter(|name| !matches!(*name, "mysql" | "mariadb")) {
        return Err(Reason::Connector(connector.chars().filter(|letter| letter.is_ascii_graphic()).take(32).collect()));
    }
    let natural = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok()).unwrap_or(0);
    let file = wire.file.unwrap_or_default();
    let log = file.rsplit('.').next().and_then(|number| number.parse().ok()).unwrap_or(0);
    let micros = wire.ts_us.or_else(|| wire.ts_ms.map(|millis| millis.saturating_mul(1000))).unwrap_or(0);
    Ok(Source {
        schema: wire.db.ok_or(Reason::SourceLacks("db"))?,
        table: wire.table.ok_or(Reason::SourceLacks("table"))?,
        server_id: natural(wire.server_id),
        gtid: wire.gtid.and_then(|gtid| gtid.parse().ok()),
        at: Coordinate { log, offset: natural(wire.pos) },
        file,
        row: natural(wire.row),
        commit_micros: micros.max(0),
        incremental: wire.snapshot == Some("\"incremental\""),
    })
}

#[cfg(test)]
mod tests;
