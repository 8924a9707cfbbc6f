//! Source cells as values: what the copy of existing rows is made from.

use super::{pair, time};
use crate::error::{Error, Result};
use crate::table::ColumnType;
use crate::value::ValueRef;

/// Reads a source cell (as [`Rule::source_select`](super::Rule::source_select) asks for it: BIT as a number, FLOAT as a double, bytes raw,
/// all else as the text protocol prints it) as a value. The value borrows from the cell; `scratch` is free for the caller to reuse.
/// GEOMETRY, VECTOR and types this version does not know are their raw bytes. `Err`: the text is not what this type prints.
pub fn value_of_source_text<'a>(ty: &ColumnType, text: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<ValueRef<'a>> {
    // No type needs it today; it is in the signature for one whose value is not a part of its text.
    let _ = scratch;
    parse(ty, text).ok_or_else(|| Error::rejected(format!("a cell of type `{}` does not hold what that type prints", pair::name(ty))))
}

fn parse<'a>(ty: &ColumnType, text: &'a [u8]) -> Option<ValueRef<'a>> {
    use ColumnType as T;
    let utf8 = || std::str::from_utf8(text).ok();
    Some(match ty {
        T::TinyInt { unsigned: true, .. }
        | T::SmallInt { unsigned: true }
        | T::MediumInt { unsigned: true }
        | T::Int { unsigned: true }
        | T::BigInt { unsigned: true }
        | T::Bit(_) => ValueRef::UInt(utf8()?.parse().ok()?),
        T::TinyInt { .. } | T::SmallInt { .. } | T::MediumInt { .. } | T::Int { .. } | T::BigInt { .. } | T::Year => ValueRef::Int(utf8()?.parse().ok()?),
        T::Decimal { .. } => ValueRef::Decimal(decimal(utf8()?)?),
        T::Float => ValueRef::Float(finite(utf8()?)? as f32),
        T::Double => ValueRef::Double(finite(utf8()?)?),
        T::Date => ValueRef::Date(time::parse_date(text)?),
        T::DateTime(_) => ValueRef::DateTime(time::parse_datetime(text)?),
        T::Timestamp(_) => ValueRef::Timestamp(time::parse_datetime(text)?),
        T::Time(_) => ValueRef::Time(time::time_micros(text)?),
        T::Char(_) | T::VarChar(_) | T::Text(_) | T::Enum(_) | T::Set(_) => utf8().map_or(ValueRef::Bytes(text), ValueRef::Text),
        T::Json => ValueRef::Json(utf8()?),
        T::Binary(_) | T::VarBinary(_) | T::Blob(_) | T::Geometry(_) | T::Vector(_) | T::Other(_) => ValueRef::Bytes(text),
    })
}

/// A decimal without the zeros of ZEROFILL.
fn decimal(text: &str) -> Option<&str> {
    let mut checked = text.strip_prefix('-').unwrap_or(text).splitn(2, '.');
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
    if !checked.next().is_some_and(digits) || !checked.next().is_none_or(digits) {
        return None;
    }
    let whole = text.find('.').unwrap_or(text.len());
    let zeros = text.bytes().take(whole.saturating_sub(1)).take_while(|&c| c == b'0').count();
    text.get(zeros..)
}

fn finite(text: &str) -> Option<f64> {
    text.parse().ok().filter(|value: &f64| value.is_finite())
}
