//! Walks row images by a table's plan and writes cells straight into a row.

use plumbline_sdk::{Row, RowWriter, ValueRef};

use crate::binlog::bytes::{Bytes, Malformed};
use crate::binlog::charset::Charset;
use crate::binlog::table_map::{Cell, TablePlan};
use crate::binlog::{json, number, time};

/// Room for cells that are printed or joined.
#[derive(Debug, Default)]
pub struct Walker {
    writer: RowWriter,
    text: String,
    padded: Vec<u8>,
}

impl Walker {
    /// Reads one whole row image: its NULL bitmap and its cells.
    pub fn row(&mut self, plan: &TablePlan, bytes: &mut Bytes<'_>) -> Result<Row, Malformed> {
        let count = plan.cells.len();
        let nulls = bytes.take(count.div_ceil(8))?;
        self.writer.start(count);
        for (i, cell) in plan.cells.iter().enumerate() {
            if nulls[i / 8] >> (i % 8) & 1 == 1 {
                self.writer.push(ValueRef::Null);
            } else {
                self.cell(cell, bytes)?;
            }
        }
        Ok(self.writer.finish())
    }

    fn cell(&mut self, cell: &Cell, bytes: &mut Bytes<'_>) -> Result<(), Malformed> {
        match *cell {
            Cell::Int { size, unsigned } => {
                let raw = bytes.little(size)?;
                let value = if unsigned {
                    ValueRef::UInt(raw)
                } else {
                    // The sign of the value's own width, spread to 64 bits.
                    let shift = 64 - 8 * size;
                    ValueRef::Int((raw << shift) as i64 >> shift)
                };
                self.writer.push(value);
            }
            Cell::Float => self.writer.push(ValueRef::Float(f32::from_le_bytes(bytes.array()?))),
            Cell::Double => self.writer.push(ValueRef::Double(f64::from_le_bytes(bytes.array()?))),
            Cell::Decimal { precision, scale } => {
                self.text.clear();
                number::decimal(bytes, precision, scale, &mut self.text)?;
                self.writer.push(ValueRef::Decimal(&self.text));
            }
            Cell::Year => {
                let year = bytes.byte()?;
                self.writer.push(ValueRef::Int(if year == 0 { 0 } else { i64::from(year) + 1900 }));
            }
            Cell::Date => self.writer.push(ValueRef::Date(time::date(bytes)?)),
            Cell::DateTime(fsp) => self.writer.push(ValueRef::DateTime(time::datetime(bytes, fsp)?)),
            Cell::Timestamp(fsp) => self.writer.push(ValueRef::Timestamp(time::timestamp(bytes, fsp)?)),
            Cell::Time(fsp) => self.writer.push(ValueRef::Time(time::time(bytes, fsp)?)),
            Cell::Bit(size) => self.writer.push(ValueRef::UInt(bytes.big(size)?)),
            Cell::Enum { size, ref labels } => {
                let index = bytes.little(size)?;
                let label = match usize::try_from(index).ok().and_then(|index| index.checked_sub(1)) {
                    // Index 0 is the empty text that an invalid insert leaves.
                    None => "",
                    Some(i) => labels.get(i).ok_or(Malformed("an ENUM has an index without label: is `binlog_row_metadata` FULL?"))?,
                };
                self.writer.push(ValueRef::Text(label));
            }
            Cell::Set { size, ref labels } => {
                let bits = bytes.little(size)?;
                self.text.clear();
                for (_, label) in labels.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 1) {
                    // As MySQL does it: after an empty label at the start there is no comma.
                    if !self.text.is_empty() {
                        self.text.push(',');
                    }
                    self.text.push_str(label);
                }
                if bits != 0 && labels.is_empty() {
                    return Err(Malformed("a SET has bits without labels: is `binlog_row_metadata` FULL?"));
                }
                self.writer.push(ValueRef::Text(&self.text));
            }
            Cell::Text { prefix, charset } => {
                let length = bytes.little(prefix)? as usize;
                let raw = bytes.take(length)?;
                self.push_text(raw, charset);
            }
            Cell::Padded { prefix, length } => {
                let held = bytes.little(prefix)? as usize;
                let raw = bytes.take(held)?;
                if held == length {
                    self.writer.push(ValueRef::Bytes(raw));
                } else {
                    self.padded.clear();
                    self.padded.extend_from_slice(raw);
                    self.padded.resize(length.max(held), 0);
                    self.writer.push(ValueRef::Bytes(&self.padded));
                }
            }
            Cell::Bytes { prefix } => {
                let length = bytes.little(prefix)? as usize;
                self.writer.push(ValueRef::Bytes(bytes.take(length)?));
            }
            Cell::Raw { size } => self.writer.push(ValueRef::Bytes(bytes.take(size)?)),
            Cell::Json => {
                let length = bytes.little(4)? as usize;
                let document = bytes.take(length)?;
                self.text.clear();
                json::print(document, &mut self.text)?;
                self.writer.push(ValueRef::Json(&self.text));
            }
        }
        Ok(())
    }

    fn push_text(&mut self, raw: &[u8], charset: Charset) {
        match charset {
            Charset::Utf8 | Charset::Utf8mb3 | Charset::Ascii => match std::str::from_utf8(raw) {
                Ok(text) => self.writer.push(ValueRef::Text(text)),
                Err(_) => self.writer.push(ValueRef::Bytes(raw)),
            },
            charset => {
                self.text.clear();
                if charset.decode(raw, &mut self.text) {
                    self.writer.push(ValueRef::Text(&self.text));
                } else {
                    self.writer.push(ValueRef::Bytes(raw));
                }
            }
        }
    }
}

/// What a rows event says before its rows.
#[derive(Debug)]
pub struct RowsHead<'a> {
    /// Whose rows.
    pub table_id: u64,
    /// How many columns.
    pub columns: usize,
    /// Which columns the images have; updates have a second bitmap for the after-image.
    pub present: &'a [u8],
    /// See `present`.
    pub present_after: Option<&'a [u8]>,
    /// The images.
    pub rows: &'a [u8],
}

/// Reads the head of a WRITE, UPDATE or DELETE rows event; `extra`: version 2, which has extra data; `update`: two bitmaps.
pub fn rows_head(event: &[u8], extra: bool, update: bool) -> Result<RowsHead<'_>, Malformed> {
    let mut bytes = Bytes::new(event);
    let table_id = bytes.little(6)?;
    bytes.take(2)?;
    if extra {
        let length = bytes.little(2)? as usize;
        bytes.take(length.checked_sub(2).ok_or(Malformed("a length is too small"))?)?;
    }
    let columns = usize::try_from(bytes.packed()?).map_err(|_| Malformed("it has too many columns"))?;
    let present = bytes.take(columns.div_ceil(8))?;
    let present_after = if update { Some(bytes.take(columns.div_ceil(8))?) } else { None };
    Ok(RowsHead { table_id, columns, present, present_after, rows: bytes.rest() })
}

/// Whether a bitmap names all of `columns` columns.
pub fn is_whole(bitmap: &[u8], columns: usize) -> bool {
    (0..columns).all(|i| bitmap.get(i / 8).is_some_and(|byte| byte >> (i % 8) & 1 == 1))
}
