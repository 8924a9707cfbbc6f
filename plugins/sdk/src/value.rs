//! Cells and rows, packed: a row is one shared slice of bytes, and a cell is read where it lies.

use bytes::{BufMut, Bytes, BytesMut};

/// A civil date as MySQL has it; `0000-00-00` and partial dates (month or day 0) are values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Date {
    /// 0 to 9999.
    pub year: u16,
    /// 0 to 12.
    pub month: u8,
    /// 0 to 31.
    pub day: u8,
}

impl Date {
    /// The date of a day since the Unix epoch (Howard Hinnant's `civil_from_days`); year 0 where it is outside of 0 to 65535.
    #[inline]
    pub fn of_day(days: i64) -> Self {
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Self { year: u16::try_from(year).unwrap_or(0), month: u8::try_from(month).unwrap_or(0), day: u8::try_from(day).unwrap_or(0) }
    }
    /// Whether this is not a day of a calendar: `0000-00-00`, or month or day is 0.
    pub fn is_zero(&self) -> bool {
        self.month == 0 || self.day == 0
    }
}

/// A civil date and time to the microsecond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct DateTime {
    /// The date.
    pub date: Date,
    /// 0 to 23.
    pub hour: u8,
    /// 0 to 59.
    pub minute: u8,
    /// 0 to 59.
    pub second: u8,
    /// 0 to 999,999.
    pub micros: u32,
}

/// One cell, borrowed from its row. Text is UTF-8; what cannot be proved to be UTF-8 is `Bytes`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ValueRef<'a> {
    /// The column is not in this image.
    Absent,
    /// NULL.
    Null,
    /// A signed integer, and YEAR.
    Int(i64),
    /// An unsigned integer, and BIT(n) as a number.
    UInt(u64),
    /// FLOAT.
    Float(f32),
    /// DOUBLE.
    Double(f64),
    /// DECIMAL as MySQL prints it, with its scale: `-12.50`.
    Decimal(&'a str),
    /// Text; an ENUM's label (`""` for the invalid index 0); a SET's labels joined by `,` in definition order.
    Text(&'a str),
    /// Bytes: BINARY (padded to its length), VARBINARY, BLOB, GEOMETRY (SRID and WKB as stored), VECTOR (f32 little endian).
    Bytes(&'a [u8]),
    /// DATE.
    Date(Date),
    /// TIME in microseconds, negative below zero.
    Time(i64),
    /// DATETIME as written.
    DateTime(DateTime),
    /// TIMESTAMP, in UTC; the zero timestamp is `0000-00-00 00:00:00`.
    Timestamp(DateTime),
    /// JSON as text, as MySQL's `CAST(c AS CHAR)` prints it.
    Json(&'a str),
}

/// A row: cells by column, in the order of its [`TableSchema`](crate::TableSchema). Cloning shares the bytes.
///
/// Layout, private to this file: `n` little-endian `u32` ends, then the cells, each a tag byte and its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    bytes: Bytes,
    width: u32,
}

impl Row {
    /// How many cells.
    pub fn len(&self) -> usize {
        self.width as usize
    }
    /// Whether there is no cell.
    pub fn is_empty(&self) -> bool {
        self.width == 0
    }
    /// The bytes this row takes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }
    /// The cell of column `i`; [`ValueRef::Absent`] where there is none.
    pub fn get(&self, i: usize) -> ValueRef<'_> {
        if i >= self.len() {
            return ValueRef::Absent;
        }
        let end = |i: usize| u32::from_le_bytes([self.bytes[i * 4], self.bytes[i * 4 + 1], self.bytes[i * 4 + 2], self.bytes[i * 4 + 3]]) as usize;
        let start = if i == 0 { self.len() * 4 } else { end(i - 1) };
        read_cell(&self.bytes[start..end(i)])
    }
    /// All cells in order.
    pub fn iter(&self) -> impl Iterator<Item = ValueRef<'_>> {
        (0..self.len()).map(|i| self.get(i))
    }
    /// A row of these cells; for tests and slow paths, [`RowWriter`] serves the fast one.
    pub fn of(cells: &[ValueRef<'_>]) -> Self {
        let mut writer = RowWriter::default();
        writer.start(cells.len());
        for cell in cells {
            writer.push(*cell);
        }
        writer.finish()
    }
}

/// Writes rows into one growing buffer that the finished rows share.
#[derive(Debug, Default)]
pub struct RowWriter {
    buffer: BytesMut,
    width: usize,
    next: usize,
}

impl RowWriter {
    /// Starts a row of `width` cells. A row that was started and not finished is dropped.
    pub fn start(&mut self, width: usize) {
        self.buffer.clear();
        if self.buffer.capacity() < width * 16 {
            self.buffer.reserve((width * 16).max(256 * 1024));
        }
        self.buffer.put_bytes(0, width * 4);
        self.width = width;
        self.next = 0;
    }
    /// Adds the next cell.
    pub fn push(&mut self, cell: ValueRef<'_>) {
        write_cell(&mut self.buffer, cell);
        self.end_cell();
    }
    fn end_cell(&mut self) {
        debug_assert!(self.next < self.width, "a row got more cells than it was started with");
        let end = u32::try_from(self.buffer.len()).unwrap_or(u32::MAX);
        self.buffer[self.next * 4..self.next * 4 + 4].copy_from_slice(&end.to_le_bytes());
        self.next += 1;
    }
    /// Ends the row; cells not pushed are absent.
    pub fn finish(&mut self) -> Row {
        while self.next < self.width {
            self.push(ValueRef::Absent);
        }
        Row { bytes: self.buffer.split().freeze(), width: u32::try_from(self.width).unwrap_or(0) }
    }
}

const ABSENT: u8 = 0;
const NULL: u8 = 1;
const INT: u8 = 2;
const UINT: u8 = 3;
const FLOAT: u8 = 4;
const DOUBLE: u8 = 5;
const DECIMAL: u8 = 6;
const TEXT: u8 = 7;
const BYTES: u8 = 8;
const DATE: u8 = 9;
const TIME: u8 = 10;
const DATETIME: u8 = 11;
const TIMESTAMP: u8 = 12;
const JSON: u8 = 13;

fn write_cell(out: &mut BytesMut, cell: ValueRef<'_>) {
    let datetime = |out: &mut BytesMut, tag: u8, at: DateTime| {
        let mut cell = [tag, 0, 0, at.date.month, at.date.day, at.hour, at.minute, at.second, 0, 0, 0, 0];
        cell[1..3].copy_from_slice(&at.date.year.to_le_bytes());
        cell[8..12].copy_from_slice(&at.micros.to_le_bytes());
        out.put_slice(&cell);
    };
    let fixed = |out: &mut BytesMut, tag: u8, content: [u8; 8]| {
        let mut cell = [tag, 0, 0, 0, 0, 0, 0, 0, 0];
        cell[1..9].copy_from_slice(&content);
        out.put_slice(&cell);
    };
    let slice = |out: &mut BytesMut, tag: u8, content: &[u8]| {
        out.reserve(content.len() + 1);
        out.put_u8(tag);
        out.put_slice(content);
    };
    match cell {
        ValueRef::Absent => out.put_u8(ABSENT),
        ValueRef::Null => out.put_u8(NULL),
        ValueRef::Int(v) => fixed(out, INT, v.to_le_bytes()),
        ValueRef::UInt(v) => fixed(out, UINT, v.to_le_bytes()),
        ValueRef::Double(v) => fixed(out, DOUBLE, v.to_bits().to_le_bytes()),
        ValueRef::Time(v) => fixed(out, TIME, v.to_le_bytes()),
        ValueRef::Float(v) => slice(out, FLOAT, &v.to_bits().to_le_bytes()),
        ValueRef::Decimal(v) => slice(out, DECIMAL, v.as_bytes()),
        ValueRef::Text(v) => slice(out, TEXT, v.as_bytes()),
        ValueRef::Json(v) => slice(out, JSON, v.as_bytes()),
        ValueRef::Bytes(v) => slice(out, BYTES, v),
        ValueRef::Date(v) => {
            let [low, high] = v.year.to_le_bytes();
            out.put_slice(&[DATE, low, high, v.month, v.day]);
        }
        ValueRef::DateTime(v) => datetime(out, DATETIME, v),
        ValueRef::Timestamp(v) => datetime(out, TIMESTAMP, v),
    }
}

fn read_cell(cell: &[u8]) -> ValueRef<'_> {
    let content = &cell[1..];
    let eight = || <[u8; 8]>::try_from(content).unwrap_or_default();
    // Only `write_cell` makes cells, from `&str`; the check is kept because this file has no unsafe code.
    let text = || std::str::from_utf8(content).unwrap_or_default();
    let datetime = || DateTime {
        date: Date { year: u16::from_le_bytes([content[0], content[1]]), month: content[2], day: content[3] },
        hour: content[4],
        minute: content[5],
        second: content[6],
        micros: u32::from_le_bytes([content[7], content[8], content[9], content[10]]),
    };
    match cell[0] {
        NULL => ValueRef::Null,
        INT => ValueRef::Int(i64::from_le_bytes(eight())),
        UINT => ValueRef::UInt(u64::from_le_bytes(eight())),
        FLOAT => ValueRef::Float(f32::from_bits(u32::from_le_bytes(<[u8; 4]>::try_from(content).unwrap_or_default()))),
        DOUBLE => ValueRef::Double(f64::from_bits(u64::from_le_bytes(eight()))),
        DECIMAL => ValueRef::Decimal(text()),
        TEXT => ValueRef::Text(text()),
        BYTES => ValueRef::Bytes(content),
        DATE => ValueRef::Date(Date { year: u16::from_le_bytes([content[0], content[1]]), month: content[2], day: content[3] }),
        TIME => ValueRef::Time(i64::from_le_bytes(eight())),
        DATETIME => ValueRef::DateTime(datetime()),
        TIMESTAMP => ValueRef::Timestamp(datetime()),
        JSON => ValueRef::Json(text()),
        _ => ValueRef::Absent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_reads_back_what_was_written() {
        let date = Date { year: 2020, month: 0, day: 15 };
        let at = DateTime { date, hour: 23, minute: 59, second: 58, micros: 999_999 };
        let cells = [
            ValueRef::Null,
            ValueRef::Int(i64::MIN),
            ValueRef::UInt(u64::MAX),
            ValueRef::Float(-0.0),
            ValueRef::Double(f64::MIN_POSITIVE),
            ValueRef::Decimal("-12.50"),
            ValueRef::Text("é"),
            ValueRef::Text(""),
            ValueRef::Bytes(&[0, 255]),
            ValueRef::Date(date),
            ValueRef::Time(-1),
            ValueRef::DateTime(at),
            ValueRef::Timestamp(at),
            ValueRef::Json("{}"),
            ValueRef::Absent,
        ];
        let row = Row::of(&cells);
        assert_eq!(row.iter().collect::<Vec<_>>(), cells);
        assert_eq!(row.get(99), ValueRef::Absent);
    }

    #[test]
    fn rows_of_one_writer_do_not_overlap() {
        let mut writer = RowWriter::default();
        let rows: Vec<Row> = (0..1000)
            .map(|i| {
                writer.start(2);
                writer.push(ValueRef::Int(i));
                writer.push(ValueRef::Text(&"x".repeat(usize::try_from(i).unwrap_or(0))));
                writer.finish()
            })
            .collect();
        for (i, row) in rows.iter().enumerate() {
            assert_eq!(row.get(0), ValueRef::Int(i64::try_from(i).unwrap_or(0)));
            assert_eq!(row.get(1), ValueRef::Text(&"x".repeat(i)));
        }
    }
}
