//! Values of the stream as PostgreSQL text: for COPY, and for parameters that are cast to the column's type.

use std::io::Write;

use plumbline_sdk::{ColumnType, Date, DateTime, ValueRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What becomes of a date that is no day of the calendar (`0000-00-00`, `2020-00-15`, `2020-02-31`): PostgreSQL has no such value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ZeroDates {
    /// NULL where the target column may be NULL; elsewhere the table stops. The comparison shows these cells as different.
    #[default]
    Null,
    /// The table stops.
    Refuse,
}

/// What becomes of a NUL character in text or JSON: PostgreSQL's text and `jsonb` cannot hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NulCharacters {
    /// The table stops.
    #[default]
    Refuse,
    /// They are left out. The comparison shows these cells as different.
    Strip,
}

/// What to do with values that the target cannot hold.
#[derive(Debug, Clone, Copy, Default)]
pub struct Policies {
    /// Dates that are no day.
    pub zero_dates: ZeroDates,
    /// NUL characters.
    pub nul_characters: NulCharacters,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// The text was appended.
    Text,
    /// The cell is NULL.
    Null,
}

/// How the values of one source column are written for one target column; made once per table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversion {
    target: Target,
    bits: usize,
    nullable: bool,
    textual: bool,
    geometry: bool,
    vector: bool,
    zero_dates: ZeroDates,
    nul_characters: NulCharacters,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Number,
    Bool,
    BitString,
    Bytea,
    Uuid,
    Text,
    Jsonb,
    Json,
    Date,
    DateTime,
    Instant,
    Duration,
    Geometry,
    NativePoint,
    Array,
    Vector,
}

impl Conversion {
    /// How values of `source` are written for a column of this base type (PostgreSQL's `typname`).
    pub fn new(source: &ColumnType, base: &str, nullable: bool, policies: Policies) -> Self {
        let target = match base {
            "int2" | "int4" | "int8" | "numeric" | "float4" | "float8" => Target::Number,
            "bool" => Target::Bool,
            "bit" | "varbit" => Target::BitString,
            "bytea" => Target::Bytea,
            "uuid" => Target::Uuid,
            "json" => Target::Json,
            "jsonb" => Target::Jsonb,
            "date" => Target::Date,
            "timestamp" => Target::DateTime,
            "timestamptz" => Target::Instant,
            "time" | "timetz" | "interval" => Target::Duration,
            "geometry" | "geography" => Target::Geometry,
            "point" => Target::NativePoint,
            "vector" | "halfvec" => Target::Vector,
            array if array.starts_with('_') => Target::Array,
            _ => Target::Text,
        };
        Self {
            target,
            bits: if let ColumnType::Bit(n) = source { usize::from(*n) } else { 0 },
            nullable,
            textual: matches!(source, ColumnType::Char(_) | ColumnType::VarChar(_) | ColumnType::Text(_) | ColumnType::Enum(_) | ColumnType::Set(_)),
            geometry: matches!(source, ColumnType::Geometry(_)),
            vector: matches!(source, ColumnType::Vector(_)),
            zero_dates: policies.zero_dates,
            nul_characters: policies.nul_characters,
        }
    }

    /// Appends the value as PostgreSQL reads it, always UTF-8. `Err`: why the target cannot hold it, without the value.
    pub fn write(&self, value: ValueRef<'_>, out: &mut Vec<u8>) -> Result<Written, &'static str> {
        match value {
            ValueRef::Null => return Ok(Written::Null),
            ValueRef::Absent => return Err("the image of the row lacks it; set `binlog_row_image=FULL` on the source"),
            ValueRef::Int(v) => self.integer(v < 0, v.unsigned_abs(), out),
            ValueRef::UInt(v) => self.integer(false, v, out),
            // In a wider target too: the shortest text rounds back to the same FLOAT.
            ValueRef::Float(v) => push_f32(v, out),
            ValueRef::Double(v) => push_f64(v, out),
            ValueRef::Decimal(v) => out.extend_from_slice(v.as_bytes()),
            ValueRef::Text(v) => return self.text(v, out),
            ValueRef::Bytes(v) => return self.bytes(v, out),
            ValueRef::Date(v) => return self.civil(DateTime { date: v, ..DateTime::default() }, matches!(self.target, Target::DateTime | Target::Instant), out),
            ValueRef::DateTime(v) | ValueRef::Timestamp(v) => return self.civil(v, true, out),
            ValueRef::Time(v) => match self.target {
                Target::Number => push(out, format_args!("{v}")),
                _ => push_time(v, out),
            },
            ValueRef::Json(v) => return self.json(v, out),
        }
        Ok(Written::Text)
    }

    fn integer(&self, negative: bool, magnitude: u64, out: &mut Vec<u8>) {
        match self.target {
            Target::Bool => out.push(if magnitude == 0 { b'f' } else { b't' }),
            Target::BitString => push(out, format_args!("{magnitude:0width$b}", width = self.bits.max(1))),
            Target::Bytea if self.bits > 0 => push(out, format_args!("\\x{magnitude:0width$x}", width = self.bits.div_ceil(8) * 2)),
            _ => {
                if negative {
                    out.push(b'-');
                }
                push_integer(magnitude, out);
            }
        }
    }

    fn text(&self, value: &str, out: &mut Vec<u8>) -> Result<Written, &'static str> {
        match self.target {
            Target::Bytea => push_hex(value.as_bytes(), out),
            Target::Array => {
                // The labels of a SET have no comma.
                out.push(b'{');
                for (i, label) in value.split(',').filter(|_| !value.is_empty()).enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    let mut element = String::with_capacity(label.len() + 2);
                    crate::quote::push_array_element(&mut element, label);
                    out.extend_from_slice(element.as_bytes());
                }
                out.push(b'}');
            }
            _ if value.as_bytes().contains(&0) => match self.nul_characters {
                NulCharacters::Refuse => return Err("PostgreSQL's text cannot hold a NUL character; remove it on the source, or set `nul_characters = \"strip\"`"),
                NulCharacters::Strip => out.extend(value.bytes().filter(|&byte| byte != 0)),
            },
            _ => out.extend_from_slice(value.as_bytes()),
        }
        Ok(Written::Text)
    }

    fn json(&self, value: &str, out: &mut Vec<u8>) -> Result<Written, &'static str> {
        if self.target == Target::Jsonb && has_nul_escape(value) {
            if self.nul_characters == NulCharacters::Refuse {
                return Err("`jsonb` cannot hold \\u0000; use `json` or `text` for this column, or set `nul_characters = \"strip\"`");
            }
            strip_nul_escapes(value, out);
        } else {
            out.extend_from_slice(value.as_bytes());
        }
        Ok(Written::Text)
    }

    fn bytes(&self, value: &[u8], out: &mut Vec<u8>) -> Result<Written, &'static str> {
        match self.target {
            Target::Bytea => push_hex(value, out),
            Target::Uuid if value.len() == 16 => value.iter().for_each(|byte| push(out, format_args!("{byte:02x}"))),
            Target::Uuid => return Err("a `uuid` has 16 bytes"),
            Target::Geometry if self.geometry => return push_ewkb(value, out),
            Target::NativePoint if self.geometry => return push_point(value, out),
            Target::Array | Target::Vector if self.vector => {
                let (open, close) = if self.target == Target::Array { (b'{', b'}') } else { (b'[', b']') };
                out.push(open);
                for (i, number) in value.chunks_exact(4).enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    push_f32(f32::from_le_bytes([number[0], number[1], number[2], number[3]]), out);
                }
                out.push(close);
            }
            _ if self.textual => return Err("its bytes are not text in a character set that is known; convert the column to utf8mb4 on the source"),
            _ => return Err("bytes cannot be written to a column of this type; `bytea` takes them"),
        }
        Ok(Written::Text)
    }

    fn civil(&self, at: DateTime, with_time: bool, out: &mut Vec<u8>) -> Result<Written, &'static str> {
        if self.target == Target::Text {
            push_civil(at, with_time, out);
            return Ok(Written::Text);
        }
        if !is_day(at.date) {
            return match self.zero_dates {
                ZeroDates::Null if self.nullable => Ok(Written::Null),
                ZeroDates::Null => Err("a date that is no day of the calendar (like 0000-00-00) cannot become NULL here; drop the column's NOT NULL on the target"),
                ZeroDates::Refuse => Err("a date that is no day of the calendar (like 0000-00-00) is refused by `zero_dates = \"refuse\"`"),
            };
        }
        // Year 0 of MySQL is the year before year 1: PostgreSQL's 1 BC.
        let before_christ = at.date.year == 0;
        let shown = if before_christ { DateTime { date: Date { year: 1, ..at.date }, ..at } } else { at };
        push_civil(shown, with_time, out);
        if self.target == Target::Instant {
            out.extend_from_slice(b"+00");
        }
        if before_christ {
            out.extend_from_slice(b" BC");
        }
        Ok(Written::Text)
    }
}

fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to a Vec does not fail.
    let _ = out.write_fmt(text);
}

fn push_integer(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Rust prints the shortest text that reads back as the same float; plain digits where they are few.
fn push_f32(value: f32, out: &mut Vec<u8>) {
    if value == 0.0 || (1e-5..1e15).contains(&value.abs()) { push(out, format_args!("{value}")) } else { push(out, format_args!("{value:e}")) }
}

fn push_f64(value: f64, out: &mut Vec<u8>) {
    if value == 0.0 || (1e-5..1e15).contains(&value.abs()) { push(out, format_args!("{value}")) } else { push(out, format_args!("{value:e}")) }
}

fn push_hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(bytes.len() * 2 + 2);
    out.extend_from_slice(b"\\x");
    for &byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

fn two(out: &mut Vec<u8>, value: u8) {
    out.extend_from_slice(&[b'0' + value / 10 % 10, b'0' + value % 10]);
}

fn push_micros(micros: u32, out: &mut Vec<u8>) {
    if micros > 0 {
        push(out, format_args!(".{micros:06}"));
    }
}

fn push_civil(at: DateTime, with_time: bool, out: &mut Vec<u8>) {
    let year = at.date.year;
    two(out, u8::try_from(year / 100).unwrap_or(0));
    two(out, u8::try_from(year % 100).unwrap_or(0));
    out.push(b'-');
    two(out, at.date.month);
    out.push(b'-');
    two(out, at.date.day);
    if with_time {
        out.push(b' ');
        two(out, at.hour);
        out.push(b':');
        two(out, at.minute);
        out.push(b':');
        two(out, at.second);
        push_micros(at.micros, out);
    }
}

/// `-838:59:59.000001`: an interval takes it whole; a `time` takes what lies within a day.
fn push_time(micros: i64, out: &mut Vec<u8>) {
    let magnitude = micros.unsigned_abs();
    let (seconds, fraction) = (magnitude / 1_000_000, magnitude % 1_000_000);
    if micros < 0 {
        out.push(b'-');
    }
    push(out, format_args!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60));
    push_micros(u32::try_from(fraction).unwrap_or(0), out);
}

/// Whether PostgreSQL's calendar has this day.
fn is_day(date: Date) -> bool {
    let leap = date.year.is_multiple_of(4) && (!date.year.is_multiple_of(100) || date.year.is_multiple_of(400));
    let days = match date.month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => 0,
    };
    (1..=days).contains(&date.day)
}

/// MySQL's SRID and WKB as PostGIS reads it: hexadecimal EWKB.
fn push_ewkb(stored: &[u8], out: &mut Vec<u8>) -> Result<Written, &'static str> {
    let (Some(srid), Some(wkb)) = (stored.get(..4), stored.get(4..)) else { return Err("the geometry is too short") };
    if wkb.len() < 5 || wkb[0] != 1 {
        return Err("the geometry is not little-endian WKB");
    }
    let mut bytes = Vec::with_capacity(stored.len());
    if srid == [0; 4] {
        bytes.extend_from_slice(wkb);
    } else {
        bytes.extend_from_slice(&wkb[..4]);
        bytes.push(wkb[4] | 0x20);
        bytes.extend_from_slice(srid);
        bytes.extend_from_slice(&wkb[5..]);
    }
    bytes.iter().for_each(|byte| push(out, format_args!("{byte:02x}")));
    Ok(Written::Text)
}

/// A point as PostgreSQL's own type, longitude first.
fn push_point(stored: &[u8], out: &mut Vec<u8>) -> Result<Written, &'static str> {
    let coordinate = |at: usize| stored.get(at..at + 8).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok()).map(f64::from_le_bytes);
    match (stored.get(4..9), coordinate(9), coordinate(17)) {
        (Some([1, 1, 0, 0, 0]), Some(x), Some(y)) => {
            out.push(b'(');
            push_f64(x, out);
            out.push(b',');
            push_f64(y, out);
            out.push(b')');
            Ok(Written::Text)
        }
        _ => Err("the geometry is not a point"),
    }
}

/// Whether JSON text has the escape `\u0000` (and not an escaped backslash before `u0000`).
fn has_nul_escape(json: &str) -> bool {
    json.match_indices("\\u0000").any(|(at, _)| json.as_bytes()[..at].iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 0)
}

fn strip_nul_escapes(json: &str, out: &mut Vec<u8>) {
    let bytes = json.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"\\u0000") {
            at += 6;
        } else if bytes[at] == b'\\' && at + 1 < bytes.len() {
            out.extend_from_slice(&bytes[at..at + 2]);
            at += 2;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(ty: &ColumnType, base: &str, value: ValueRef<'_>) -> Result<Option<String>, &'static str> {
        let mut out = Vec::new();
        let written = Conversion::new(ty, base, true, Policies::default()).write(value, &mut out)?;
        Ok((written == Written::Text).then(|| String::from_utf8(out).expect("utf-8")))
    }

    fn check(ty: &ColumnType, base: &str, value: ValueRef<'_>, expected: &str) {
        assert_eq!(write(ty, base, value), Ok(Some(expected.to_owned())), "{ty} to {base}");
    }

    fn at(year: u16, month: u8, day: u8, hour: u8, minute: u8, second: u8, micros: u32) -> DateTime {
        DateTime { date: Date { year, month, day }, hour, minute, second, micros }
    }

    #[test]
    fn numbers_are_written_exactly() {
        let int = ColumnType::BigInt { unsigned: false };
        check(&int, "int8", ValueRef::Int(i64::MIN), "-9223372036854775808");
        check(&int, "numeric", ValueRef::UInt(u64::MAX), "18446744073709551615");
        check(&int, "int8", ValueRef::Int(0), "0");
        check(&int, "bool", ValueRef::Int(0), "f");
        check(&int, "bool", ValueRef::Int(-1), "t");
        check(&ColumnType::Decimal { precision: 5, scale: 2 }, "numeric", ValueRef::Decimal("-12.50"), "-12.50");
        check(&ColumnType::Float, "float4", ValueRef::Float(0.1), "0.1");
        check(&ColumnType::Float, "float4", ValueRef::Float(16_777_216.0), "16777216");
        check(&ColumnType::Float, "float4", ValueRef::Float(f32::MAX), "3.4028235e38");
        check(&ColumnType::Double, "float8", ValueRef::Double(-0.0), "-0");
        check(&ColumnType::Double, "float8", ValueRef::Double(5e-324), "5e-324");
        check(&ColumnType::Double, "float8", ValueRef::Double(1e15), "1e15");
    }

    #[test]
    fn bits_keep_their_width() {
        check(&ColumnType::Bit(10), "bit", ValueRef::UInt(5), "0000000101");
        check(&ColumnType::Bit(10), "varbit", ValueRef::UInt(0), "0000000000");
        check(&ColumnType::Bit(10), "bytea", ValueRef::UInt(0x201), "\\x0201");
        check(&ColumnType::Bit(64), "numeric", ValueRef::UInt(u64::MAX), "18446744073709551615");
        check(&ColumnType::Bit(1), "bool", ValueRef::UInt(1), "t");
    }

    #[test]
    fn bytes_become_what_the_target_holds() {
        check(&ColumnType::Blob(2), "bytea", ValueRef::Bytes(&[0, 255, 92]), "\\x00ff5c");
        check(&ColumnType::Blob(2), "bytea", ValueRef::Bytes(&[]), "\\x");
        check(&ColumnType::Binary(16), "uuid", ValueRef::Bytes(&[0x11; 16]), "11111111111111111111111111111111");
        assert!(write(&ColumnType::Binary(8), "uuid", ValueRef::Bytes(&[1; 8])).is_err());
        assert!(write(&ColumnType::Binary(8), "text", ValueRef::Bytes(&[1; 8])).is_err());
        let vector: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        check(&ColumnType::Vector(2), "_float4", ValueRef::Bytes(&vector), "{1.5,-2}");
        check(&ColumnType::Vector(2), "vector", ValueRef::Bytes(&vector), "[1.5,-2]");
    }

    #[test]
    fn a_geometry_is_read_by_postgis_and_as_a_point() {
        let mut point = vec![0xe6, 0x10, 0, 0, 1, 1, 0, 0, 0];
        point.extend_from_slice(&1.0f64.to_le_bytes());
        point.extend_from_slice(&2.5f64.to_le_bytes());
        let ty = ColumnType::Geometry("point".into());
        check(&ty, "point", ValueRef::Bytes(&point), "(1,2.5)");
        check(&ty, "geometry", ValueRef::Bytes(&point), "0101000020e6100000000000000000f03f0000000000000440");
        point[..4].fill(0);
        check(&ty, "geometry", ValueRef::Bytes(&point), "0101000000000000000000f03f0000000000000440");
    }

    #[test]
    fn dates_and_times_keep_what_they_can() {
        let full = at(2024, 2, 29, 23, 59, 58, 7);
        check(&ColumnType::DateTime(6), "timestamp", ValueRef::DateTime(full), "2024-02-29 23:59:58.000007");
        check(&ColumnType::DateTime(0), "timestamptz", ValueRef::DateTime(at(2024, 1, 2, 3, 4, 5, 0)), "2024-01-02 03:04:05+00");
        check(&ColumnType::Timestamp(0), "timestamp", ValueRef::Timestamp(at(2024, 1, 2, 3, 4, 5, 0)), "2024-01-02 03:04:05");
        check(&ColumnType::Date, "date", ValueRef::Date(full.date), "2024-02-29");
        check(&ColumnType::Date, "date", ValueRef::Date(Date { year: 0, month: 3, day: 1 }), "0001-03-01 BC");
        check(&ColumnType::DateTime(0), "timestamptz", ValueRef::DateTime(at(0, 3, 1, 0, 0, 0, 0)), "0001-03-01 00:00:00+00 BC");
        check(&ColumnType::Time(6), "interval", ValueRef::Time(-3_020_399_000_001), "-838:59:59.000001");
        check(&ColumnType::Time(0), "time", ValueRef::Time(3_661_000_000), "01:01:01");
        check(&ColumnType::Time(0), "int8", ValueRef::Time(-1), "-1");
    }

    #[test]
    fn a_date_that_is_no_day_follows_the_policy() {
        for date in [Date::default(), Date { year: 2020, month: 0, day: 15 }, Date { year: 2023, month: 2, day: 29 }] {
            assert_eq!(write(&ColumnType::Date, "date", ValueRef::Date(date)), Ok(None));
            let strict = Conversion::new(&ColumnType::Date, "date", false, Policies::default());
            assert!(strict.write(ValueRef::Date(date), &mut Vec::new()).is_err());
        }
        check(&ColumnType::Date, "text", ValueRef::Date(Date::default()), "0000-00-00");
    }

    #[test]
    fn a_nul_is_refused_or_stripped_never_cut() {
        assert!(write(&ColumnType::Text(2), "text", ValueRef::Text("a\0b")).is_err());
        assert!(write(&ColumnType::Json, "jsonb", ValueRef::Json("\"\\u0000\"")).is_err());
        check(&ColumnType::Json, "json", ValueRef::Json("\"\\u0000\""), "\"\\u0000\"");
        check(&ColumnType::Json, "jsonb", ValueRef::Json("\"\\\\u0000\""), "\"\\\\u0000\"");
        let strip = Policies { nul_characters: NulCharacters::Strip, ..Policies::default() };
        let mut out = Vec::new();
        assert_eq!(Conversion::new(&ColumnType::Json, "jsonb", true, strip).write(ValueRef::Json("[\"a\\u0000\\\\u0000\"]"), &mut out), Ok(Written::Text));
        assert_eq!(out, b"[\"a\\\\u0000\"]");
    }

    #[test]
    fn a_set_becomes_an_array_where_the_target_has_one() {
        let set = ColumnType::Set(["a".to_owned(), "b\"".to_owned()].into());
        check(&set, "_text", ValueRef::Text("a,b\""), "{\"a\",\"b\\\"\"}");
        check(&set, "_text", ValueRef::Text(""), "{}");
        check(&set, "text", ValueRef::Text("a,b\""), "a,b\"");
    }
}
