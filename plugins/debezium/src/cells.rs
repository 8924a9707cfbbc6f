//! Rows of records as values. Pure: no async, no clock, no network.
//!
//! A cell becomes the same value that the binlog gives for it: compared, both must have one canonical form. What a record's Connect schema says
//! of a field comes first; [`Settings`] say it where there is none.
//!
//! What Debezium itself loses cannot be had back here: zero dates, and dates of the year 0, in DATE and DATETIME columns come as null or as 1970-01-01 (a zero TIMESTAMP
//! that is NOT NULL is known, because MySQL has no TIMESTAMP at second 0), text without meaning in its character set has replacement letters,
//! and dates within JSON documents come without their microseconds where those are zero.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use plumbline_sdk::{Column, ColumnType, Row, RowWriter, TableSchema, ValueRef};
use schemars::JsonSchema;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::json;
use crate::shape::{Field, Shape};

mod decimal;
mod parts;
mod temporal;
#[cfg(test)]
mod tests;

use parts::Raw;

/// What Debezium puts where it has no value: the column was not in the row's image.
const UNAVAILABLE: &str = "__debezium_unavailable_value";

/// How DECIMAL comes in records without a Connect schema (`decimal.handling.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decimals {
    /// As text, exactly.
    #[default]
    String,
    /// As base64 of the unscaled number, exactly (as a number where the converter's `decimal.format` is `NUMERIC`).
    Precise,
    /// As a double: of columns of up to 15 digits nothing is lost, others are refused.
    Double,
}

/// How BINARY, VARBINARY and BLOB come in records without a Connect schema (`binary.handling.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Binaries {
    /// As base64, which is how JSON has bytes.
    #[default]
    Bytes,
    /// As base64.
    Base64,
    /// As base64 with the letters of URLs.
    Base64UrlSafe,
    /// As hexadecimal.
    Hex,
}

/// The units of DATETIME and TIME in records without a Connect schema (`time.precision.mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Times {
    /// Milliseconds where they are enough for the column's digits, else microseconds.
    Adaptive,
    /// The same, but TIME always in microseconds.
    #[default]
    AdaptiveTimeMicroseconds,
    /// Milliseconds, which loses digits of columns that have more than three.
    Connect,
    /// Microseconds.
    Microseconds,
    /// Nanoseconds.
    Nanoseconds,
    /// Text of ISO 8601.
    Isostring,
    /// Objects of year, month, day and so on.
    Structured,
}

/// What records without a Connect schema do not say of themselves: the connector's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `decimal.handling.mode`.
    pub decimals: Decimals,
    /// `binary.handling.mode`.
    pub binaries: Binaries,
    /// `time.precision.mode`.
    pub times: Times,
}

/// A row that does not fit its table. Says names, never values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misfit {
    /// A cell does not fit its column.
    Cell {
        /// The column.
        column: String,
        /// Its type.
        ty: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A column came twice.
    Twice(String),
    /// The row is no JSON object, or its names are no text.
    NoObject,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cell { column, ty, why } => write!(f, "the column `{column}` of type `{ty}` has {why}"),
            Self::Twice(column) => write!(f, "the row has the column `{column}` twice"),
            Self::NoObject => f.write_str("the row is no JSON object with names of columns"),
        }
    }
}

impl std::error::Error for Misfit {}

/// A row as it was read.
#[derive(Debug)]
pub struct Read {
    /// The cells in the order of the table's columns. Columns that the record does not have are absent.
    pub row: Row,
    /// Whether the record has a column that the table does not have: the table's shape as we know it is another than the record's.
    pub more_columns: bool,
}

/// How one column's cells are written.
#[derive(Debug, Clone, PartialEq)]
enum Encoding {
    Int { least: i64, most: i64 },
    UInt { most: u64 },
    BigUInt,
    Bit(u8),
    Float,
    Double,
    Decimal { precision: u8, scale: u8, as_bytes: Option<i32>, as_double: bool },
    Year,
    Date,
    DateTime(Unit),
    Timestamp,
    Time(Unit),
    Char,
    Text,
    /// Whether the first label is the empty one.
    Set(bool),
    Binary { length: usize, hex: bool },
    Bytes { hex: bool },
    Json,
    Geometry,
    Vector(u32),
    Other,
}

/// Which part of a second a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Millis,
    Micros,
    Nanos,
}

/// How the rows of one table are read, worked out once for a table's shape and a record's schema.
#[derive(Debug)]
pub struct Plan {
    table: Arc<TableSchema>,
    encodings: Vec<Encoding>,
    by_name: HashMap<String, usize>,
}

/// Room for cells that are unescaped or decoded, and the buffer that rows share.
#[derive(Debug, Default)]
pub struct Cells {
    writer: RowWriter,
    text: String,
    bytes: Vec<u8>,
}

impl Plan {
    /// Works out how the rows of `table` are read from records of this `shape` (None: without Connect schema).
    pub fn new(table: Arc<TableSchema>, shape: Option<&Shape>, settings: &Settings) -> Self {
        let encodings = table.columns.iter().map(|column| encoding(column, shape.and_then(|shape| shape.field(&column.name)), settings)).collect();
        let by_name = table.columns.iter().enumerate().map(|(i, column)| (column.name.clone(), i)).collect();
        Self { table, encodings, by_name }
    }
    /// The table.
    pub fn table(&self) -> &Arc<TableSchema> {
        &self.table
    }

    /// Reads one row.
    pub fn row(&self, cells: &mut Cells, image: &str) -> Result<Read, Misfit> {
        let mut slots = Slots::new(self);
        let walked = json::members(image, |name, value| {
            slots.take(name, value);
            Some(())
        });
        if walked.is_none() {
            slots = Slots::new(self);
            serde_json::Deserializer::from_str(image).deserialize_map(&mut slots).map_err(|_| Misfit::NoObject)?;
        }
        let Slots { found, more_columns, twice, .. } = slots;
        if let Some(column) = twice {
            return Err(Misfit::Twice(column));
        }
        cells.writer.start(self.encodings.len());
        for ((encoding, column), raw) in self.encodings.iter().zip(&self.table.columns).zip(found) {
            let Some(raw) = raw else {
                cells.writer.push(ValueRef::Absent);
                continue;
            };
            cells.push(encoding, raw).map_err(|why| misfit(column, why))?;
        }
        Ok(Read { row: cells.writer.finish(), more_columns })
    }
}

fn misfit(column: &Column, why: &'static str) -> Misfit {
    let mut ty = column.ty.to_string();
    if ty.len() > 100 {
        ty = format!("{}…", ty.chars().take(100).collect::<String>());
    }
    Misfit::Cell { column: column.name.clone(), ty, why }
}

/// Finds the columns of a row. Debezium writes them in the table's order, so the next name is nearly always the next column's.
struct Slots<'p, 'a> {
    plan: &'p Plan,
    found: Vec<Option<&'a str>>,
    next: usize,
    more_columns: bool,
    twice: Option<String>,
}

impl<'p, 'a> Slots<'p, 'a> {
    fn new(plan: &'p Plan) -> Self {
        Self { plan, found: vec![None; plan.encodings.len()], next: 0, more_columns: false, twice: None }
    }

    fn take(&mut self, name: &str, value: &'a str) {
        let at = match self.plan.table.columns.get(self.next) {
            Some(column) if column.name == name => Some(self.next),
            _ => self.plan.by_name.get(name).copied(),
        };
        match at {
            Some(i) if self.found[i].is_some() => self.twice = Some(name.to_owned()),
            Some(i) => {
                self.found[i] = Some(value);
                self.next = i + 1;
            }
            None => self.more_columns = true,
        }
    }
}

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Visitor<'de> for &mut Slots<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
            self.take(&name, map.next_value::<&'de RawValue>()?.get());
        }
        Ok(())
    }
}

impl Cells {
    /// Writes one cell, or says what is wrong with it.
    fn push(&mut self, encoding: &Encoding, raw: &str) -> Result<(), &'static str> {
        let raw = Raw::of(raw, &mut self.text)?;
        if matches!(raw, Raw::Null) {
            self.writer.push(ValueRef::Null);
            return Ok(());
        }
        if let Raw::Text(text) = raw
            && parts::is_unavailable(text, UNAVAILABLE, matches!(encoding, Encoding::Binary { .. } | Encoding::Bytes { .. } | Encoding::Bit(_) | Encoding::Geometry))
        {
            self.writer.push(ValueRef::Absent);
            return Ok(());
        }
        let bytes = &mut self.bytes;
        bytes.clear();
        let value = match *encoding {
            Encoding::Int { least, most } => ValueRef::Int(raw.signed().filter(|number| (least..=most).contains(number)).ok_or("what is no integer of its range")?),
            Encoding::UInt { most } => ValueRef::UInt(raw.unsigned().filter(|number| *number <= most).ok_or("what is no integer of its range")?),
            Encoding::BigUInt => ValueRef::UInt(big_unsigned(raw, bytes)?),
            Encoding::Bit(width) => ValueRef::UInt(bits(raw, width, bytes)?),
            Encoding::Float => ValueRef::Float(raw.number().and_then(|text| text.parse::<f32>().ok()).filter(|number| number.is_finite()).ok_or("what is no finite number")?),
            Encoding::Double => ValueRef::Double(raw.number().and_then(|text| text.parse::<f64>().ok()).filter(|number| number.is_finite()).ok_or("what is no finite number")?),
            Encoding::Decimal { precision, scale, as_bytes, as_double } => {
                let mut out = String::with_capacity(24);
                match raw {
                    Raw::Text(text) => match as_bytes {
                        Some(own_scale) => {
                            parts::base64(text, bytes)?;
                            decimal::of_bytes(bytes, own_scale, precision, scale, &mut out)?;
                        }
                        None => decimal::of_text(text, precision, scale, &mut out)?,
                    },
                    Raw::Number(_) if as_double && precision > 15 => return Err("a double, which cannot hold its digits: set `decimal.handling.mode` to `string`"),
                    Raw::Number(text) => decimal::of_text(text, precision, scale, &mut out)?,
                    _ => return Err("what is no decimal"),
                }
                self.writer.push(ValueRef::Decimal(&out));
                return Ok(());
            }
            Encoding::Year => ValueRef::Int(temporal::year(raw)?),
            Encoding::Date => ValueRef::Date(temporal::date(raw)?),
            Encoding::DateTime(unit) => ValueRef::DateTime(temporal::datetime(raw, unit)?),
            Encoding::Timestamp => ValueRef::Timestamp(temporal::timestamp(raw)?),
            Encoding::Time(unit) => ValueRef::Time(temporal::time(raw, unit)?),
            Encoding::Char => ValueRef::Text(raw.text().ok_or("what is no text")?.trim_end_matches(' ')),
            Encoding::Text => ValueRef::Text(raw.text().ok_or("what is no text")?),
            Encoding::Set(empty_first) => {
                let text = raw.text().ok_or("what is no text")?;
                // MySQL writes no comma after an empty label at the start; Debezium does.
                ValueRef::Text(if empty_first { text.strip_prefix(',').unwrap_or(text) } else { text })
            }
            Encoding::Binary { length, hex } => {
                parts::bytes(raw, hex, bytes)?;
                if bytes.len() > length {
                    return Err("more bytes than it can hold");
                }
                bytes.resize(length, 0);
                ValueRef::Bytes(bytes)
            }
            Encoding::Bytes { hex } => {
                parts::bytes(raw, hex, bytes)?;
                ValueRef::Bytes(bytes)
            }
            Encoding::Json => ValueRef::Json(raw.text().ok_or("what is no text of JSON")?),
            Encoding::Geometry => {
                parts::geometry(raw, bytes)?;
                ValueRef::Bytes(bytes)
            }
            Encoding::Vector(dimensions) => {
                parts::vector(raw, dimensions, bytes)?;
                ValueRef::Bytes(bytes)
            }
            Encoding::Other => match raw {
                Raw::Text(text) | Raw::Number(text) => ValueRef::Text(text),
                _ => ValueRef::Absent,
            },
        };
        self.writer.push(value);
        Ok(())
    }
}

/// BIGINT UNSIGNED: a number; below zero where the connector counts in signed 64 bits (`long`), of which nothing is lost; base64 where it is `precise`.
fn big_unsigned(raw: Raw<'_>, bytes: &mut Vec<u8>) -> Result<u64, &'static str> {
    const WHY: &str = "what is no integer of its range";
    match raw {
        Raw::Number(_) => raw.unsigned().or_else(|| raw.signed().map(|number| number as u64)).ok_or(WHY),
        Raw::Text(text) => {
            parts::base64(text, bytes)?;
            let (first, rest) = bytes.split_first().ok_or(WHY)?;
            let digits: &[u8] = if *first == 0 { rest } else { bytes };
            if digits.len() > 8 || *first >= 0x80 {
                return Err(WHY);
            }
            Ok(digits.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
        }
        _ => Err(WHY),
    }
}

/// BIT: a boolean of BIT(1), else base64 of its bytes, the lowest first.
fn bits(raw: Raw<'_>, width: u8, bytes: &mut Vec<u8>) -> Result<u64, &'static str> {
    const WHY: &str = "what is no bits of its width";
    let number = match raw {
        Raw::Bool(bit) => u64::from(bit),
        Raw::Text(text) => {
            parts::base64(text, bytes)?;
            if bytes.iter().skip(8).any(|byte| *byte != 0) {
                return Err(WHY);
            }
            bytes.iter().take(8).rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
        }
        _ => return Err(WHY),
    };
    if width < 64 && number >> width != 0 { Err(WHY) } else { Ok(number) }
}

/// How the cells of a column are written: by the record's own words, else by the settings.
fn encoding(column: &Column, field: Option<&Field>, settings: &Settings) -> Encoding {
    use ColumnType as T;
    let signed = |bytes: u32| Encoding::Int { least: i64::MIN >> (64 - 8 * bytes), most: i64::MAX >> (64 - 8 * bytes) };
    let unsigned = |bytes: u32| Encoding::UInt { most: u64::MAX >> (64 - 8 * bytes) };
    let integer = |is_unsigned: bool, bytes: u32| if is_unsigned { unsigned(bytes) } else { signed(bytes) };
    let hex = field.is_none_or(|field| field.ty == "string") && settings.binaries == Binaries::Hex;
    match &column.ty {
        T::TinyInt { unsigned, .. } => integer(*unsigned, 1),
        T::SmallInt { unsigned } => integer(*unsigned, 2),
        T::MediumInt { unsigned } => integer(*unsigned, 3),
        T::Int { unsigned } => integer(*unsigned, 4),
        T::BigInt { unsigned: false } => signed(8),
        T::BigInt { unsigned: true } => Encoding::BigUInt,
        T::Decimal { precision, scale } => {
            let as_bytes = match field {
                Some(field) if field.ty == "bytes" => Some(field.scale.unwrap_or(i32::from(*scale))),
                Some(_) => None,
                None => (settings.decimals == Decimals::Precise).then_some(i32::from(*scale)),
            };
            let as_double = field.map_or(settings.decimals == Decimals::Double, |field| field.ty == "double" || field.ty == "float");
            Encoding::Decimal { precision: *precision, scale: *scale, as_bytes, as_double }
        }
        T::Float => Encoding::Float,
        T::Double => Encoding::Double,
        T::Bit(width) => Encoding::Bit(*width),
        T::Year => Encoding::Year,
        T::Date => Encoding::Date,
        T::DateTime(fsp) => Encoding::DateTime(unit(field).unwrap_or_else(|| unit_of(settings.times, *fsp, false))),
        T::Timestamp(_) => Encoding::Timestamp,
        T::Time(fsp) => Encoding::Time(unit(field).unwrap_or_else(|| unit_of(settings.times, *fsp, true))),
        T::Char(_) => Encoding::Char,
        T::VarChar(_) | T::Text(_) | T::Enum(_) => Encoding::Text,
        T::Set(labels) => Encoding::Set(labels.first().is_some_and(String::is_empty)),
        T::Binary(length) => Encoding::Binary { length: *length as usize, hex },
        T::VarBinary(_) | T::Blob(_) => Encoding::Bytes { hex },
        T::Json => Encoding::Json,
        T::Geometry(_) => Encoding::Geometry,
        T::Vector(dimensions) => Encoding::Vector(*dimensions),
        T::Other(_) => Encoding::Other,
    }
}

/// The unit that a field's own name says.
fn unit(field: Option<&Field>) -> Option<Unit> {
    let name = field?.name.as_deref()?;
    Some(match name {
        "io.debezium.time.Timestamp" | "io.debezium.time.Time" | "org.apache.kafka.connect.data.Timestamp" | "org.apache.kafka.connect.data.Time" => Unit::Millis,
        "io.debezium.time.MicroTimestamp" | "io.debezium.time.MicroTime" => Unit::Micros,
        "io.debezium.time.NanoTimestamp" | "io.debezium.time.NanoTime" => Unit::Nanos,
        _ => return None,
    })
}

/// The unit that the connector's settings say, for a column of `fsp` digits.
fn unit_of(times: Times, fsp: u8, time: bool) -> Unit {
    match times {
        Times::AdaptiveTimeMicroseconds if time => Unit::Micros,
        Times::Adaptive | Times::AdaptiveTimeMicroseconds if fsp <= 3 => Unit::Millis,
        Times::Connect => Unit::Millis,
        Times::Nanoseconds => Unit::Nanos,
        _ => Unit::Micros,
    }
}
