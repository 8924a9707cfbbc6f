//! The raw forms of cells: JSON scalars, base64, hexadecimal, geometries, vectors.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

use crate::json;

/// One JSON value, told by its first letter. Texts are unescaped.
#[derive(Debug, Clone, Copy)]
pub(super) enum Raw<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    Text(&'a str),
    Object(&'a str),
    Array(&'a str),
}

impl<'a> Raw<'a> {
    /// Reads a value's raw text; a text with escapes is unescaped into `room`.
    pub(super) fn of(raw: &'a str, room: &'a mut String) -> Result<Self, &'static str> {
        Ok(match raw.as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b't') => Self::Bool(true),
            Some(b'f') => Self::Bool(false),
            Some(b'{') => Self::Object(raw),
            Some(b'[') => Self::Array(raw),
            Some(b'"') => {
                let inner = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
                if json::has_escapes(inner) {
                    *room = serde_json::from_str(raw).map_err(|_| "a text with half a surrogate pair or an unknown escape, which is no text")?;
                    Self::Text(room)
                } else {
                    Self::Text(inner)
                }
            }
            _ => Self::Number(raw),
        })
    }
    pub(super) fn number(self) -> Option<&'a str> {
        match self {
            Self::Number(text) => Some(text),
            _ => None,
        }
    }
    pub(super) fn text(self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
    /// An integer. A boolean, which the converter for `tinyint(1)` makes, is 0 or 1.
    pub(super) fn signed(self) -> Option<i64> {
        match self {
            Self::Number(text) => text.parse().ok(),
            Self::Bool(bit) => Some(i64::from(bit)),
            _ => None,
        }
    }
    pub(super) fn unsigned(self) -> Option<u64> {
        match self {
            Self::Number(text) => text.parse().ok(),
            Self::Bool(bit) => Some(u64::from(bit)),
            _ => None,
        }
    }
}

/// Whether a text is Debezium's placeholder; `in_base64`: or the placeholder as bytes are written.
pub(super) fn is_unavailable(text: &str, placeholder: &str, in_base64: bool) -> bool {
    text == placeholder
        || in_base64 && (text == "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==" || text == "5f5f646562657a69756d5f756e617661696c61626c655f76616c7565")
}

const PADDING: GeneralPurposeConfig = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, PADDING);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, PADDING);

/// Decodes base64 with either alphabet.
pub(super) fn base64(text: &str, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let engine = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
    engine.decode_vec(text, out).map_err(|_| "what is no base64: is `binary.handling.mode` as configured here?")
}

/// Decodes bytes as they are written: base64 or hexadecimal.
pub(super) fn bytes(raw: Raw<'_>, hex: bool, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let text = raw.text().ok_or("what is no bytes")?;
    if !hex {
        return base64(text, out);
    }
    const WHY: &str = "what is no hexadecimal: is `binary.handling.mode` as configured here?";
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).ok_or(WHY);
    for pair in text.as_bytes().chunks(2) {
        let [high, low] = pair else { return Err(WHY) };
        out.push(digit(*high)? << 4 | digit(*low)?);
    }
    Ok(())
}

#[derive(Deserialize)]
struct Geometry<'a> {
    #[serde(borrow)]
    wkb: Cow<'a, str>,
    srid: Option<u32>,
}

/// `{"wkb": base64, "srid": number or null}` as MySQL stores it: the SRID in four bytes, then the WKB.
pub(super) fn geometry(raw: Raw<'_>, out: &mut Vec<u8>) -> Result<(), &'static str> {
    const WHY: &str = "what is no geometry (`wkb` and `srid`)";
    let Raw::Object(text) = raw else { return Err(WHY) };
    let geometry: Geometry<'_> = serde_json::from_str(text).map_err(|_| WHY)?;
    out.extend_from_slice(&geometry.srid.unwrap_or(0).to_le_bytes());
    base64(&geometry.wkb, out)
}

/// A list of numbers as MySQL stores it: four bytes each, the lowest first.
pub(super) fn vector(raw: Raw<'_>, dimensions: u32, out: &mut Vec<u8>) -> Result<(), &'static str> {
    const WHY: &str = "what is no list of its finite numbers";
    let Raw::Array(text) = raw else { return Err(WHY) };
    let numbers: Vec<&RawValue> = serde_json::from_str(text).map_err(|_| WHY)?;
    if numbers.len() > dimensions as usize {
        return Err(WHY);
    }
    for number in numbers {
        let number: f32 = number.get().parse().ok().filter(|number: &f32| number.is_finite()).ok_or(WHY)?;
        out.extend_from_slice(&number.to_le_bytes());
    }
    Ok(())
}
