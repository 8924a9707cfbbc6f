//! The type rules: one canonical byte string per value, however it was read. This is their only room.
//!
//! A [`Rule`] joins a source column and a target column. It says how each side selects the cell, and brings what each side gives
//! (MySQL text, a value of the stream, PostgreSQL text) to the same bytes. Equal bytes are equal values; nothing else is.
//!
//! What a target holds that the source cannot hold (`NaN`, `infinity`, a year above 9999, text that is no JSON) gets a canonical form too:
//! one that begins with a byte `0xFF` and that no source value has.
//!
//! Policies, where two readings were possible:
//! - `-0` equals `0` in FLOAT and DOUBLE.
//! - a TINYINT in a boolean: every number but 0 is true.
//! - a zero date (`0000-00-00`, `2020-00-15`) equals nothing that PostgreSQL can hold, NULL included.
//! - MySQL's year 0 equals PostgreSQL's year 1 BC: both are the year before year 1.
//! - DECIMAL in a binary float: equal when the float nearest to the decimal is stored. FLOAT in a wider type: the target is rounded to real first.
//!   DOUBLE in real, a time of day that a date lost, microseconds that were cut: different.
//! - a SET in an array: the labels in the order of the definition.
//! - JSON: see the module's `json.rs`.

mod bytes;
mod decimal;
mod float;
mod integer;
mod json;
mod pair;
mod source;
mod text;
mod time;

use std::cmp::Ordering;

pub use source::value_of_source_text;


use crate::error::{Error, Result};
use crate::read::TargetColumn;
use crate::table::{Column, ColumnType};
use crate::value::ValueRef;
use pair::{Form, Read};

/// The first byte of the canonical form of a target value that no source value equals.
const FOREIGN: u8 = 0xFF;

/// How the source's reader selects a cell; the SQL text is the reader's. The session has `time_zone='+00:00'`, `NAMES utf8mb4` and a
/// `sql_mode` without `PAD_CHAR_TO_FULL_LENGTH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceSelect {
    /// The bare column, as the text protocol prints it: numbers (zero filling does no harm), dates and times, text converted to utf8mb4
    /// by the server, JSON as text; BINARY, VARBINARY and BLOB as their raw bytes.
    Plain,
    /// As an unsigned decimal number (`c+0`): BIT.
    Number,
    /// As a double, so that FLOAT is printed exactly: `CAST(c AS DOUBLE)` (8.0.17 and later; keeps -0), or `c+0e0`.
    Double,
    /// Converted to utf8mb4 on the server (`CONVERT(c USING utf8mb4)`). No rule asks for it while sessions are utf8mb4, where the text
    /// protocol converts by itself; it is for a session in which it does not.
    Utf8,
}

/// How the target's reader selects a cell; the SQL text is the reader's. The session has `timezone=UTC`, `datestyle=ISO`,
/// `intervalstyle=postgres`, `extra_float_digits=1`, `client_encoding=UTF8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetSelect {
    /// The bare column, as the server's text output prints it: `c::text` or COPY's text (unescaped) will do; they differ only in the
    /// padding of `bpchar` and in `t` for `true`, and both are understood.
    Plain,
    /// A time stamp with zone as civil time in UTC: `c AT TIME ZONE 'UTC'`.
    AtUtc,
    /// Hexadecimal of the bytes, without prefix, in either case: `encode(c,'hex')`.
    Hex,
}

/// How a pair of columns is compared.
///
/// Three kinds of text, not to be mixed up:
/// - a *cell* is what a select expression prints: the content of a [`RowBlock`](crate::RowBlock) that a reader filled;
/// - the *canonical form* is the same bytes for both sides: made by [`value`](Self::value), [`source_text`](Self::source_text),
///   [`target_text`](Self::target_text), never for NULL, which the caller handles apart;
/// - a *key cell* is UTF-8 text that goes *into* a reader (`rows_by_key`, [`KeyRange`](crate::KeyRange)): made by
///   [`key_for_source`](Self::key_for_source) and [`key_for_target`](Self::key_for_target). A reader's `bound` gives key cells too.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// The source's type.
    pub source: ColumnType,
    /// The target's base type (PostgreSQL's `typname`).
    pub target: String,
    form: Form,
    read: Read,
    /// The digits of a `bit(n)` target.
    width: usize,
    /// A `?` in the text may stand for a byte that has no meaning in the column's character set.
    lossy: bool,
}

impl Rule {
    /// The rule for this pair of columns; `Err` is the reason why it is `unverified`.
    pub fn new(source: &Column, target: &TargetColumn) -> std::result::Result<Self, String> {
        let (form, read) = pair::of(source, &target.base)?;
        Ok(Self {
            source: source.ty.clone(),
            target: target.base.clone(),
            form,
            read,
            width: pair::modifier(&target.ty).unwrap_or_else(|| pair::bits(&source.ty)),
            lossy: pair::lossy(source),
        })
    }

    /// The rule by which a copy reads this column of the source: by its type alone, whatever the target makes of it. It says how to
    /// select and how to bring a key cell to canonical form and back; it judges nothing, so it exists for every type.
    pub fn of_source(source: &Column) -> Self {
        let (form, read) = pair::of_source(&source.ty);
        Self { source: source.ty.clone(), target: String::new(), form, read, width: pair::bits(&source.ty), lossy: false }
    }

    /// How the source's reader selects the cell.
    pub fn source_select(&self) -> SourceSelect {
        match self.source {
            ColumnType::Bit(_) => SourceSelect::Number,
            ColumnType::Float => SourceSelect::Double,
            _ => SourceSelect::Plain,
        }
    }

    /// How the target's reader selects the cell.
    pub fn target_select(&self) -> TargetSelect {
        match self.target.as_str() {
            "timestamptz" => TargetSelect::AtUtc,
            "bytea" => TargetSelect::Hex,
            _ => TargetSelect::Plain,
        }
    }

    /// Whether equal cells of both sides certainly are equal values: the fast path. Unequal cells say nothing.
    pub fn raw_equal(&self) -> bool {
        match self.read {
            // Both texts go through the same function, or have one meaning only.
            Read::Number | Read::Double | Read::Time | Read::Interval | Read::Uuid | Read::Json => true,
            // FLOAT is printed exactly, as a double; a real that prints the same digits is that real.
            Read::Real => self.form == Form::Real,
            Read::Civil => matches!((&self.source, self.target.as_str()), (ColumnType::Date, "date") | (ColumnType::DateTime(_) | ColumnType::Timestamp(_), _)),
            Read::Text => !self.lossy,
            // A CHAR has no trailing spaces; in a VARCHAR they are content, which `bpchar` cannot keep.
            Read::Padded => !self.lossy && matches!(self.source, ColumnType::Char(_) | ColumnType::Enum(_) | ColumnType::Set(_)),
            // The number 10 and the bit string 10, the text `41` and the hexadecimal 41, the label `{}` and the empty array.
            Read::BitString | Read::HexNumber | Read::Hex | Read::UuidBytes | Read::Array | Read::Bool | Read::Micros => false,
        }
    }

    /// Whether both sides sort values of this pair alike, so that ranges of keys may be shared and sorted rows be merged by
    /// [`compare`](Self::compare).
    pub fn ordered(&self) -> bool {
        match self.read {
            Read::Number => self.form == Form::Number,
            Read::Civil | Read::Time | Read::Interval | Read::Micros | Read::Hex | Read::UuidBytes => true,
            _ => false,
        }
    }

    /// The order of two canonical forms, where [`ordered`](Self::ordered): the order in which both sides sort them. Elsewhere a total
    /// order of no meaning.
    pub fn compare(&self, a: &[u8], b: &[u8]) -> Ordering {
        match self.form {
            Form::Number | Form::Time => decimal::compare(a, b),
            _ => a.cmp(b),
        }
    }

    /// Whether a key has one spelling on each side, so that [`key_for_source`](Self::key_for_source) and
    /// [`key_for_target`](Self::key_for_target) name the very value that stands there. False where values that a side tells apart have one
    /// canonical form (an upper-case UUID in a CHAR, 2 in a boolean, a decimal against its nearest double): a look-up may then miss the row.
    pub fn key_is_exact(&self) -> bool {
        match self.form {
            Form::Number | Form::Date | Form::DateTime | Form::Time | Form::Text | Form::Bytes | Form::Json => true,
            Form::Bool | Form::Uuid => false,
            // One of both sides has values between the floats.
            Form::Real => self.read == Read::Real,
            Form::Double => self.read == Read::Double && matches!(self.source, ColumnType::Double),
        }
    }

    /// Appends the canonical form of a value of the stream. NULL, an absent cell, and a value that is not of this column's type are errors.
    pub fn value(&self, value: ValueRef<'_>, out: &mut Vec<u8>) -> Result<()> {
        match (self.form, value) {
            (Form::Number, ValueRef::Int(v)) => integer::push_signed(v, out),
            (Form::Number, ValueRef::UInt(v)) => integer::push_unsigned(v, out),
            (Form::Number, ValueRef::Decimal(v)) => return self.printed(decimal::push(v.as_bytes(), out)),
            (Form::Bool, ValueRef::Int(v)) => out.push(integer::bool_digit(v != 0)),
            (Form::Bool, ValueRef::UInt(v)) => out.push(integer::bool_digit(v != 0)),
            (Form::Real, ValueRef::Float(v)) => return self.printed(float::push_real(v, out)),
            (Form::Double, ValueRef::Double(v)) => return self.printed(float::push_double(v, out)),
            (Form::Double, ValueRef::Decimal(v)) => return self.printed(float::push_double_text(v.as_bytes(), out)),
            (Form::Date, ValueRef::Date(v)) => time::push_date(v, out),
            (Form::DateTime, ValueRef::DateTime(v) | ValueRef::Timestamp(v)) => time::push_datetime(v, out),
            (Form::Time, ValueRef::Time(v)) => integer::push_signed(v, out),
            (Form::Text, ValueRef::Text(v)) => return self.source_string(v.as_bytes(), out),
            (Form::Uuid, ValueRef::Text(v)) => text::push_uuid_text(v.as_bytes(), out),
            (Form::Bytes, ValueRef::Bytes(v)) => out.extend_from_slice(v),
            (Form::Json, ValueRef::Json(v)) => return self.printed(json::push(v.as_bytes(), out)),
            _ => return Err(self.not_of_type()),
        }
        Ok(())
    }

    /// Appends the canonical form of a source cell.
    pub fn source_text(&self, cell: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let done = match self.form {
            Form::Number => decimal::push(cell, out),
            Form::Bool => integer::push_nonzero(cell, out),
            Form::Real => float::push_double_as_real(cell, out),
            Form::Double => float::push_double_text(cell, out),
            Form::Date => time::push_date_text(cell, out),
            Form::DateTime => time::push_datetime_text(cell, out),
            Form::Time => time::push_time_text(cell, out),
            Form::Text => return self.source_string(cell, out),
            Form::Uuid => {
                text::push_uuid_text(cell, out);
                true
            }
            Form::Bytes => {
                out.extend_from_slice(cell);
                true
            }
            Form::Json => json::push(cell, out),
        };
        self.printed(done)
    }

    /// Appends the canonical form of a target cell.
    pub fn target_text(&self, cell: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        let done = match self.read {
            Read::Number => match self.form {
                Form::Real => float::push_real_text(cell, out),
                Form::Double => float::push_double_text(cell, out),
                _ => decimal::push(cell, out),
            },
            Read::Bool => integer::push_bool(cell, out),
            Read::BitString => integer::push_bit_string(cell, out),
            Read::HexNumber => integer::push_hex(cell, pair::bits(&self.source).div_ceil(8), out),
            Read::Real if self.form == Form::Real => float::push_real_text(cell, out),
            Read::Real => float::push_real_as_double(cell, out),
            Read::Double if self.form == Form::Real => float::push_double_as_real(cell, out),
            Read::Double => float::push_double_text(cell, out),
            Read::Civil => time::push_target_civil(cell, self.form == Form::Date, out),
            Read::Time => time::push_time_text(cell, out),
            Read::Interval => time::push_interval(cell, out),
            Read::Micros => decimal::push(cell, out),
            Read::Text => {
                out.extend_from_slice(cell);
                true
            }
            Read::Padded => {
                out.extend_from_slice(text::without_padding(cell));
                true
            }
            Read::Uuid => {
                text::push_uuid_text(cell, out);
                true
            }
            Read::Array => text::push_array(cell, out),
            Read::Json => json::push(cell, out),
            // Any bytes are a value here, so there is no room for a foreign one; and only a reader's mistake gets here.
            Read::Hex | Read::UuidBytes => {
                return if bytes::push_hex(cell, out) {
                    Ok(())
                } else {
                    out.truncate(start);
                    Err(Error::rejected(format!("a cell of type `{}` is not hexadecimal", self.target)))
                };
            }
        };
        if !done {
            out.truncate(start);
            out.extend_from_slice(&[FOREIGN, FOREIGN]);
            out.extend_from_slice(cell);
        }
        Ok(())
    }

    /// A canonical key cell as the source's reader takes it in `rows_by_key` and [`KeyRange`](crate::KeyRange): UTF-8 text.
    ///
    /// Numbers (BIT, YEAR and booleans too) as decimal text; FLOAT and DOUBLE as the double's shortest text; `YYYY-MM-DD`;
    /// `YYYY-MM-DD HH:MM:SS.ffffff`; TIME as `[-]HHH:MM:SS.ffffff`; text, enum and set as they are; a UUID in text in lower case, with
    /// hyphens where they fit; BINARY, VARBINARY and BLOB as upper-case hexadecimal without prefix, for `X'…'`.
    pub fn key_for_source(&self, canonical: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(canonical.len() + 8);
        let done = match self.form {
            Form::Number | Form::Bool | Form::Text | Form::Date | Form::DateTime | Form::Json => {
                out.extend_from_slice(canonical);
                canonical.first() != Some(&FOREIGN)
            }
            Form::Real | Form::Double => float::print(canonical, &mut out),
            Form::Time => time::print_time(canonical, 6, &mut out),
            // There is no room for hyphens, so there are none.
            Form::Uuid if matches!(self.source, ColumnType::Char(32..36) | ColumnType::VarChar(32..36)) => {
                out.extend_from_slice(canonical);
                true
            }
            Form::Uuid => text::print_uuid_digits(canonical, &mut out),
            Form::Bytes => {
                bytes::print_upper(canonical, &mut out);
                true
            }
        };
        if done { Ok(out) } else { Err(self.no_key("source")) }
    }

    /// A canonical key cell as the target's reader takes it in `rows_by_key` and [`KeyRange`](crate::KeyRange): UTF-8 text that
    /// PostgreSQL reads as this type (`cell::base`), except `bytea`, which is upper-case hexadecimal without prefix, for `decode(…,'hex')`.
    ///
    /// A `timestamptz` has `+00` at its end, `bit(n)` its digits, an array its braces, year 0 its `BC`.
    pub fn key_for_target(&self, canonical: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(canonical.len() + 8);
        if canonical.first() == Some(&FOREIGN) && !matches!(self.form, Form::Bytes | Form::Real | Form::Double) {
            // It came from the target, so the target reads its own text.
            out.extend_from_slice(canonical.get(2..).unwrap_or_default());
            return Ok(out);
        }
        let done = match self.read {
            Read::Number | Read::Real | Read::Double if matches!(self.form, Form::Real | Form::Double) => float::print(canonical, &mut out),
            Read::Number | Read::Real | Read::Double | Read::Micros | Read::Text | Read::Padded | Read::Json => {
                out.extend_from_slice(canonical);
                true
            }
            Read::Bool => {
                out.push(if canonical == b"0" { b'f' } else { b't' });
                true
            }
            Read::BitString => integer::print_bits(canonical, self.width, &mut out),
            Read::HexNumber => integer::print_hex(canonical, pair::bits(&self.source).div_ceil(8), &mut out),
            Read::Civil => {
                time::print_for_target(canonical, self.target == "timestamptz", &mut out);
                true
            }
            Read::Time | Read::Interval => time::print_time(canonical, 6, &mut out),
            Read::Uuid => text::print_uuid_digits(canonical, &mut out),
            Read::UuidBytes => text::print_uuid_bytes(canonical, &mut out),
            Read::Hex => {
                bytes::print_upper(canonical, &mut out);
                true
            }
            Read::Array => {
                text::print_array(canonical, &mut out);
                true
            }
        };
        if done { Ok(out) } else { Err(self.no_key("target")) }
    }

    /// Appends the canonical form of a key cell that [`key_for_source`](Self::key_for_source) made.
    pub fn canonical_of_key(&self, key_cell: &[u8], out: &mut Vec<u8>) -> Result<()> {
        match self.form {
            Form::Bytes if bytes::push_hex(key_cell, out) => Ok(()),
            Form::Bytes => Err(self.not_of_type()),
            _ => self.source_text(key_cell, out),
        }
    }

    /// A canonical key cell as people see it in a finding (FACE.md section 4): binary as `0x` and lower-case hexadecimal, a UUID as the
    /// target prints it, fractions of a second only where there are some.
    pub fn key_text(&self, canonical: &[u8]) -> String {
        let mut out = Vec::with_capacity(canonical.len() + 8);
        let foreign = canonical.first() == Some(&FOREIGN) && self.form != Form::Bytes;
        let done = !foreign
            && match self.form {
                Form::Real | Form::Double => float::print(canonical, &mut out),
                Form::Time => time::print_time(canonical, 0, &mut out),
                Form::DateTime => time::print_short(canonical, &mut out),
                Form::Uuid => text::print_uuid_digits(canonical, &mut out),
                Form::Bytes if self.read == Read::UuidBytes && text::print_uuid_bytes(canonical, &mut out) => true,
                Form::Bytes => {
                    bytes::print_lower(canonical, &mut out);
                    true
                }
                _ => false,
            };
        let shown = match (done, foreign) {
            (true, _) => &out,
            (false, true) => canonical.get(2..).unwrap_or_default(),
            (false, false) => canonical,
        };
        String::from_utf8_lossy(shown).into_owned()
    }

    fn source_string(&self, cell: &[u8], out: &mut Vec<u8>) -> Result<()> {
        if self.lossy && cell.contains(&b'?') {
            return Err(Error::rejected(format!(
                "a `?` in a `{}` of this character set may stand for a byte without meaning, so the cell was not judged",
                pair::name(&self.source)
            )));
        }
        let cell = if matches!(self.source, ColumnType::Char(_)) { text::without_padding(cell) } else { cell };
        out.extend_from_slice(cell);
        Ok(())
    }

    fn printed(&self, done: bool) -> Result<()> {
        if done { Ok(()) } else { Err(self.not_of_type()) }
    }

    #[cold]
    fn not_of_type(&self) -> Error {
        Error::rejected(format!("a cell of type `{}` does not hold what that type prints", pair::name(&self.source)))
    }

    #[cold]
    fn no_key(&self, side: &str) -> Error {
        Error::rejected(format!("a key of type `{}` against `{}` has no text for the {side}", pair::name(&self.source), self.target))
    }
}

#[cfg(test)]
mod tests;
