//! JSON as the binlog has it, printed as MySQL prints it (source of the format: MySQL's `sql-common/json_binary.h`).

use std::fmt::Write;

use crate::binlog::bytes::{Bytes, Malformed};
use crate::binlog::{number, time};

/// Nested deeper than MySQL allows.
const DEEPEST: usize = 101;

/// Prints a document.
pub fn print(document: &[u8], out: &mut String) -> Result<(), Malformed> {
    match document.split_first() {
        // An empty document stands for NULL that a non-strict ALTER left behind: MySQL prints it as null.
        None => {
            out.push_str("null");
            Ok(())
        }
        Some((&kind, value)) => print_value(kind, value, out, 0),
    }
}

fn print_value(kind: u8, value: &[u8], out: &mut String, depth: usize) -> Result<(), Malformed> {
    if depth > DEEPEST {
        return Err(Malformed("JSON is nested too deep"));
    }
    let mut bytes = Bytes::new(value);
    let written = match kind {
        0x00..=0x03 => return print_container(kind, value, out, depth),
        0x04 => {
            out.push_str(literal(bytes.byte()?)?);
            Ok(())
        }
        0x05 => write!(out, "{}", i16::from_le_bytes(bytes.array()?)),
        0x06 => write!(out, "{}", u16::from_le_bytes(bytes.array()?)),
        0x07 => write!(out, "{}", i32::from_le_bytes(bytes.array()?)),
        0x08 => write!(out, "{}", u32::from_le_bytes(bytes.array()?)),
        0x09 => write!(out, "{}", i64::from_le_bytes(bytes.array()?)),
        0x0A => write!(out, "{}", u64::from_le_bytes(bytes.array()?)),
        0x0B => push_double(f64::from_le_bytes(bytes.array()?), out),
        0x0C => {
            let length = varying(&mut bytes)?;
            push_string(bytes.take(length)?, out);
            Ok(())
        }
        0x0F => return print_opaque(&mut bytes, out),
        _ => return Err(Malformed("JSON has a value of an unknown kind")),
    };
    written.map_err(|_| Malformed("JSON cannot be printed"))
}

/// The shortest digits that give the same double, with a sign that it is one: `1.0`, `0.00001`, `1e15`
/// (MySQL's `my_gcvt`: an exponent below 1e-15 and from 1e15 on).
fn push_double(number: f64, out: &mut String) -> std::fmt::Result {
    let scientific = format!("{number:e}");
    let exponent = scientific.split_once('e').and_then(|(_, exponent)| exponent.parse::<i32>().ok()).unwrap_or(0);
    if number != 0.0 && !(-15..15).contains(&exponent) {
        out.push_str(&scientific);
        return Ok(());
    }
    let start = out.len();
    write!(out, "{number}")?;
    if !out[start..].contains('.') {
        out.push_str(".0");
    }
    Ok(())
}

fn literal(byte: u8) -> Result<&'static str, Malformed> {
    match byte {
        0 => Ok("null"),
        1 => Ok("true"),
        2 => Ok("false"),
        _ => Err(Malformed("JSON has an unknown literal")),
    }
}

/// A length of seven bits a byte, the lowest first.
fn varying(bytes: &mut Bytes<'_>) -> Result<usize, Malformed> {
    let mut length = 0_usize;
    for i in 0..5 {
        let byte = bytes.byte()?;
        length |= usize::from(byte & 0x7F) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(length);
        }
    }
    Err(Malformed("a JSON length is too long"))
}

/// Objects (0 small, 1 large) and arrays (2 small, 3 large).
fn print_container(kind: u8, value: &[u8], out: &mut String, depth: usize) -> Result<(), Malformed> {
    let large = kind & 1 == 1;
    let object = kind < 2;
    let width = if large { 4 } else { 2 };
    let mut head = Bytes::new(value);
    let count = head.little(width)? as usize;
    let size = head.little(width)? as usize;
    let value = value.get(..size).ok_or(Malformed("JSON ended too early"))?;
    let keys = head.rest();
    let key_entry = width + 2;
    let mut entries = Bytes::new(keys);
    if object {
        entries.take(count.checked_mul(key_entry).ok_or(Malformed("JSON has too many members"))?)?;
    }
    out.push(if object { '{' } else { '[' });
    let mut key_entries = Bytes::new(keys);
    for i in 0..count {
        if i > 0 {
            out.push_str(", ");
        }
        if object {
            let offset = key_entries.little(width)? as usize;
            let length = key_entries.little(2)? as usize;
            let key = value.get(offset..).and_then(|rest| rest.get(..length)).ok_or(Malformed("a JSON key lies outside"))?;
            push_string(key, out);
            out.push_str(": ");
        }
        let kind = entries.byte()?;
        let inlined = entries.rest().get(..width).ok_or(Malformed("JSON ended too early"))?;
        let at = entries.little(width)? as usize;
        let inline = matches!(kind, 0x04..=0x06) || large && matches!(kind, 0x07 | 0x08);
        if inline {
            print_value(kind, inlined, out, depth + 1)?;
        } else {
            let rest = value.get(at..).ok_or(Malformed("a JSON value lies outside"))?;
            print_value(kind, rest, out, depth + 1)?;
        }
    }
    out.push(if object { '}' } else { ']' });
    Ok(())
}

/// Values that JSON has no kind for: decimals as numbers, dates and times as strings, the rest as base64.
fn print_opaque(bytes: &mut Bytes<'_>, out: &mut String) -> Result<(), Malformed> {
    let kind = bytes.byte()?;
    let length = varying(bytes)?;
    let content = bytes.take(length)?;
    let mut inner = Bytes::new(content);
    let unprintable = |_| Malformed("JSON cannot be printed");
    match kind {
        246 => {
            let precision = inner.byte()?;
            let scale = inner.byte()?;
            number::decimal(&mut inner, precision, scale, out)
        }
        7 | 10 | 12 => {
            let packed = i64::from_le_bytes(inner.array()?) as u64;
            let at = time::of_packed(packed >> 24, (packed & 0xFF_FFFF) as u32);
            let date = at.date;
            write!(out, "\"{:04}-{:02}-{:02}", date.year, date.month, date.day).map_err(unprintable)?;
            if kind != 10 {
                write!(out, " {:02}:{:02}:{:02}.{:06}", at.hour, at.minute, at.second, at.micros).map_err(unprintable)?;
            }
            out.push('"');
            Ok(())
        }
        11 => {
            let micros = time::time_of_packed(i64::from_le_bytes(inner.array()?));
            let (sign, size) = (if micros < 0 { "-" } else { "" }, micros.unsigned_abs());
            let seconds = size / 1_000_000;
            write!(out, "\"{sign}{:02}:{:02}:{:02}.{:06}\"", seconds / 3600, seconds / 60 % 60, seconds % 60, size % 1_000_000).map_err(unprintable)
        }
        _ => {
            write!(out, "\"base64:type{kind}:").map_err(unprintable)?;
            push_base64(content, out);
            out.push('"');
            Ok(())
        }
    }
}

fn push_base64(bytes: &[u8], out: &mut String) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for group in bytes.chunks(3) {
        let number = group.iter().fold(0_u32, |number, &byte| number << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for i in 0..4 {
            if i <= group.len() {
                out.push(char::from(LETTERS[(number >> (18 - 6 * i) & 63) as usize]));
            } else {
                out.push('=');
            }
        }
    }
}

fn push_string(bytes: &[u8], out: &mut String) {
    out.push('"');
    for letter in String::from_utf8_lossy(bytes).chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(document: &[u8], expected: &str) {
        let mut out = String::new();
        assert_eq!(print(document, &mut out), Ok(()));
        assert_eq!(out, expected);
    }

    #[test]
    fn documents_print_as_mysql_prints_them() {
        check(&[0x04, 0x01], "true");
        check(&[0x05, 0xFF, 0xFF], "-1");
        check(&[0x0C, 0x03, b'a', b'"', b'\n'], r#""a\"\n""#);
        // {"a": 1}: one member, 12 bytes; key at 11, value inlined.
        check(&[0x00, 1, 0, 12, 0, 11, 0, 1, 0, 0x05, 1, 0, b'a'], r#"{"a": 1}"#);
        // [true, "x"]
        check(&[0x02, 2, 0, 12, 0, 0x04, 1, 0, 0x0C, 10, 0, 1, b'x'], r#"[true, "x"]"#);
        check(&[], "null");
    }

    #[test]
    fn doubles_print_as_mysql_prints_them() {
        // Texts of MySQL 9.7's CAST(JSON_ARRAY(...) AS CHAR).
        let check = |number: f64, expected: &str| {
            let mut document = vec![0x0B];
            document.extend(number.to_le_bytes());
            check(&document, expected);
        };
        check(1e15, "1e15");
        check(1e14, "100000000000000.0");
        check(100.0, "100.0");
        check(0.00001, "0.00001");
        check(1e-15, "0.000000000000001");
        check(1e-16, "1e-16");
        check(1.5e300, "1.5e300");
        check(-0.0, "-0.0");
        check(123456789012345680.0, "1.2345678901234568e17");
        check(0.1, "0.1");
        check(4.9e-324, "5e-324");
        check(999999999999999.0, "999999999999999.0");
        check(1234567890123456.0, "1.234567890123456e15");
    }

    #[test]
    fn what_is_cut_off_is_an_error_and_not_a_panic() {
        let document = [0x00, 1, 0, 12, 0, 11, 0, 1, 0, 0x05, 1, 0, b'a'];
        for length in 1..document.len() {
            assert!(print(&document[..length], &mut String::new()).is_err(), "{length}");
        }
    }
}
