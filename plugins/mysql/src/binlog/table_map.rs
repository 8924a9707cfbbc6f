//! TABLE_MAP events: the shape of a table at that moment, and the plan by which its rows are decoded
//! (source of the format: MySQL's `libs/mysql/binlog/event/rows_event.h`, `Table_map_event`).

use std::sync::Arc;

use mysql_async::consts::ColumnType as Wire;
use plumbline_sdk::{Column, ColumnType, TableId, TableSchema};

use crate::binlog::bytes::{Bytes, Malformed};
use crate::binlog::charset::{Charset, by_collation};

/// How one cell is decoded.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// An integer of so many bytes.
    Int { size: usize, unsigned: bool },
    Float,
    Double,
    Decimal { precision: u8, scale: u8 },
    Year,
    Date,
    DateTime(u8),
    Timestamp(u8),
    Time(u8),
    /// BIT(n) of so many bytes.
    Bit(usize),
    /// The index's bytes and the labels.
    Enum { size: usize, labels: Arc<[String]> },
    Set { size: usize, labels: Arc<[String]> },
    /// Text with a length of so many bytes before it.
    Text { prefix: usize, charset: Charset },
    /// BINARY(n): trailing zero bytes are not in the log.
    Padded { prefix: usize, length: usize },
    Bytes { prefix: usize },
    /// So many bytes that are not understood, taken as they are.
    Raw { size: usize },
    Json,
}

/// A table's shape and how its rows are decoded.
#[derive(Debug)]
pub struct TablePlan {
    /// The shape, keys included where the event or discovery tells them.
    pub schema: Arc<TableSchema>,
    /// How each cell is decoded.
    pub cells: Vec<Cell>,
}

/// What a TABLE_MAP event says, before the key of discovery is added.
#[derive(Debug, Clone, PartialEq)]
pub struct TableMap {
    /// The number that row events name.
    pub table_id: u64,
    /// Which table.
    pub id: TableId,
    /// The columns; names are missing with `binlog_row_metadata=MINIMAL`.
    pub columns: Vec<Column>,
    /// How each cell is decoded.
    pub cells: Vec<Cell>,
    /// Whether column names were there.
    pub full: bool,
}

/// The table's number and name, without reading the rest.
pub fn head(event: &[u8]) -> Result<(u64, &[u8], &[u8]), Malformed> {
    let mut bytes = Bytes::new(event);
    let table_id = bytes.little(6)?;
    bytes.take(2)?;
    let length = usize::from(bytes.byte()?);
    let schema = bytes.take(length)?;
    bytes.byte()?;
    let length = usize::from(bytes.byte()?);
    let table = bytes.take(length)?;
    Ok((table_id, schema, table))
}

/// Reads a whole TABLE_MAP event.
pub fn parse(event: &[u8]) -> Result<TableMap, Malformed> {
    let (table_id, schema, table) = head(event)?;
    let mut bytes = Bytes::new(event);
    bytes.take(6 + 2 + 1 + schema.len() + 1 + 1 + table.len() + 1)?;
    let count = usize::try_from(bytes.packed()?).map_err(|_| Malformed("it has too many columns"))?;
    let types = bytes.take(count)?;
    let mut metadata = Bytes::new(bytes.packed_bytes()?);
    let nullable = bytes.take(count.div_ceil(8))?;
    let optional = Optional::parse(&mut bytes)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut columns = Vec::with_capacity(count);
    let mut cells = Vec::with_capacity(count);
    let mut place = Places::default();
    for (i, &ty) in types.iter().enumerate() {
        let wire = WireType::parse(ty, &mut metadata)?;
        let (column_type, cell, charset) = wire.read(&optional, &mut place)?;
        columns.push(Column {
            name: optional.names.get(i).map_or_else(|| format!("@{i}"), |name| text(name)),
            ty: column_type,
            nullable: nullable.get(i / 8).is_some_and(|byte| byte >> (i % 8) & 1 == 1),
            key_ordinal: optional.key.iter().position(|&column| column == i as u64).and_then(|at| u32::try_from(at + 1).ok()),
            generated: false,
            charset,
        });
        cells.push(cell);
    }
    Ok(TableMap { table_id, id: TableId::new(text(schema), text(table)), columns, cells, full: optional.names.len() == count })
}

/// The column's type with its metadata, the hidden types of STRING resolved.
struct WireType {
    ty: u8,
    first: u32,
    second: u32,
}

impl WireType {
    fn parse(ty: u8, metadata: &mut Bytes<'_>) -> Result<Self, Malformed> {
        let plain = |ty, first, second| Ok(Self { ty, first: u32::from(first), second: u32::from(second) });
        match Wire::try_from(ty).map_err(|_| Malformed("it has a column of an unknown type"))? {
            Wire::MYSQL_TYPE_STRING => {
                let (real, length) = (metadata.byte()?, metadata.byte()?);
                // CHAR and BINARY above 255 bytes keep two bits of their length in the type; ENUM and SET their real type.
                if real & 0x30 == 0x30 {
                    plain(real, length, 0)
                } else {
                    Ok(Self { ty: real | 0x30, first: u32::from(length) | (u32::from(real & 0x30) ^ 0x30) << 4, second: 0 })
                }
            }
            Wire::MYSQL_TYPE_VARCHAR | Wire::MYSQL_TYPE_VAR_STRING => {
                let length = metadata.little(2)?;
                Ok(Self { ty, first: length as u32, second: 0 })
            }
            Wire::MYSQL_TYPE_NEWDECIMAL | Wire::MYSQL_TYPE_BIT | Wire::MYSQL_TYPE_ENUM | Wire::MYSQL_TYPE_SET => {
                let (first, second) = (metadata.byte()?, metadata.byte()?);
                plain(ty, first, second)
            }
            Wire::MYSQL_TYPE_FLOAT
            | Wire::MYSQL_TYPE_DOUBLE
            | Wire::MYSQL_TYPE_TINY_BLOB
            | Wire::MYSQL_TYPE_BLOB
            | Wire::MYSQL_TYPE_MEDIUM_BLOB
            | Wire::MYSQL_TYPE_LONG_BLOB
            | Wire::MYSQL_TYPE_GEOMETRY
            | Wire::MYSQL_TYPE_JSON
            | Wire::MYSQL_TYPE_VECTOR
            | Wire::MYSQL_TYPE_TIME2
            | Wire::MYSQL_TYPE_DATETIME2
            | Wire::MYSQL_TYPE_TIMESTAMP2 => plain(ty, metadata.byte()?, 0),
            _ => plain(ty, 0, 0),
        }
    }

    fn read(&self, optional: &Optional<'_>, place: &mut Places) -> Result<(ColumnType, Cell, Option<Arc<str>>), Malformed> {
        let byte = |number: u32| u8::try_from(number).map_err(|_| Malformed("a column's metadata is out of range"));
        let int = |size: usize, make: fn(bool) -> ColumnType, place: &mut Places| {
            let unsigned = optional.unsigned(place.number());
            Ok((make(unsigned), Cell::Int { size, unsigned }, None))
        };
        let none = |ty, cell| Ok((ty, cell, None));
        match Wire::try_from(self.ty).map_err(|_| Malformed("it has a column of an unknown type"))? {
            Wire::MYSQL_TYPE_TINY => int(1, |unsigned| ColumnType::TinyInt { unsigned, boolean: false }, place),
            Wire::MYSQL_TYPE_SHORT => int(2, |unsigned| ColumnType::SmallInt { unsigned }, place),
            Wire::MYSQL_TYPE_INT24 => int(3, |unsigned| ColumnType::MediumInt { unsigned }, place),
            Wire::MYSQL_TYPE_LONG => int(4, |unsigned| ColumnType::Int { unsigned }, place),
            Wire::MYSQL_TYPE_LONGLONG => int(8, |unsigned| ColumnType::BigInt { unsigned }, place),
            Wire::MYSQL_TYPE_FLOAT => {
                place.number();
                none(ColumnType::Float, Cell::Float)
            }
            Wire::MYSQL_TYPE_DOUBLE => {
                place.number();
                none(ColumnType::Double, Cell::Double)
            }
            Wire::MYSQL_TYPE_NEWDECIMAL => {
                place.number();
                let (precision, scale) = (byte(self.first)?, byte(self.second)?);
                none(ColumnType::Decimal { precision, scale }, Cell::Decimal { precision, scale })
            }
            Wire::MYSQL_TYPE_YEAR => {
                // A year has a sign bit too, though it has no sign.
                place.number();
                none(ColumnType::Year, Cell::Year)
            }
            Wire::MYSQL_TYPE_DATE | Wire::MYSQL_TYPE_NEWDATE => none(ColumnType::Date, Cell::Date),
            Wire::MYSQL_TYPE_DATETIME2 => none(ColumnType::DateTime(byte(self.first)?), Cell::DateTime(byte(self.first)?)),
            Wire::MYSQL_TYPE_TIMESTAMP2 => none(ColumnType::Timestamp(byte(self.first)?), Cell::Timestamp(byte(self.first)?)),
            Wire::MYSQL_TYPE_TIME2 => none(ColumnType::Time(byte(self.first)?), Cell::Time(byte(self.first)?)),
            Wire::MYSQL_TYPE_BIT => {
                let bits = self.second * 8 + self.first;
                none(ColumnType::Bit(byte(bits)?), Cell::Bit(bits.div_ceil(8) as usize))
            }
            Wire::MYSQL_TYPE_ENUM => {
                let (size, charset) = (self.first as usize, optional.enum_charset(place.label()));
                match optional.labels(&optional.enums, place.enumeration(), charset) {
                    Some(labels) => Ok((ColumnType::Enum(Arc::clone(&labels)), Cell::Enum { size, labels }, Some(charset.name().into()))),
                    None => none(ColumnType::Other(format!("enum of character set {}", charset.name()).into()), Cell::Raw { size }),
                }
            }
            Wire::MYSQL_TYPE_SET => {
                let (size, charset) = (self.first as usize, optional.enum_charset(place.label()));
                match optional.labels(&optional.sets, place.set(), charset) {
                    Some(labels) => Ok((ColumnType::Set(Arc::clone(&labels)), Cell::Set { size, labels }, Some(charset.name().into()))),
                    None => none(ColumnType::Other(format!("set of character set {}", charset.name()).into()), Cell::Raw { size }),
                }
            }
            Wire::MYSQL_TYPE_VARCHAR | Wire::MYSQL_TYPE_VAR_STRING => {
                let (charset, prefix) = (optional.charset(place.text()), if self.first < 256 { 1 } else { 2 });
                Ok(match charset {
                    Charset::Binary => (ColumnType::VarBinary(self.first), Cell::Bytes { prefix }, None),
                    charset => (ColumnType::VarChar(self.first / charset.widest()), Cell::Text { prefix, charset }, Some(charset.name().into())),
                })
            }
            Wire::MYSQL_TYPE_STRING => {
                let (charset, prefix) = (optional.charset(place.text()), if self.first < 256 { 1 } else { 2 });
                Ok(match charset {
                    Charset::Binary => (ColumnType::Binary(self.first), Cell::Padded { prefix, length: self.first as usize }, None),
                    charset => (ColumnType::Char(self.first / charset.widest()), Cell::Text { prefix, charset }, Some(charset.name().into())),
                })
            }
            Wire::MYSQL_TYPE_BLOB | Wire::MYSQL_TYPE_TINY_BLOB | Wire::MYSQL_TYPE_MEDIUM_BLOB | Wire::MYSQL_TYPE_LONG_BLOB => {
                let (charset, prefix) = (optional.charset(place.text()), self.first as usize);
                Ok(match charset {
                    Charset::Binary => (ColumnType::Blob(byte(self.first)?), Cell::Bytes { prefix }, None),
                    charset => (ColumnType::Text(byte(self.first)?), Cell::Text { prefix, charset }, Some(charset.name().into())),
                })
            }
            Wire::MYSQL_TYPE_JSON => none(ColumnType::Json, Cell::Json),
            Wire::MYSQL_TYPE_GEOMETRY => {
                none(ColumnType::Geometry(optional.geometry(place.geometry())), Cell::Bytes { prefix: self.first as usize })
            }
            Wire::MYSQL_TYPE_VECTOR => none(ColumnType::Vector(optional.dimensions(place.vector())), Cell::Bytes { prefix: self.first as usize }),
            _ => Err(Malformed("it has a column of a type that MySQL 8.0 and later do not write")),
        }
    }
}

/// How many columns of each family were seen: optional metadata counts within families.
#[derive(Default)]
struct Places {
    numbers: usize,
    texts: usize,
    labels: usize,
    enums: usize,
    sets: usize,
    geometries: usize,
    vectors: usize,
}

impl Places {
    fn next(counter: &mut usize) -> usize {
        *counter += 1;
        *counter - 1
    }
    fn number(&mut self) -> usize {
        Self::next(&mut self.numbers)
    }
    fn text(&mut self) -> usize {
        Self::next(&mut self.texts)
    }
    fn label(&mut self) -> usize {
        Self::next(&mut self.labels)
    }
    fn enumeration(&mut self) -> usize {
        Self::next(&mut self.enums)
    }
    fn set(&mut self) -> usize {
        Self::next(&mut self.sets)
    }
    fn geometry(&mut self) -> usize {
        Self::next(&mut self.geometries)
    }
    fn vector(&mut self) -> usize {
        Self::next(&mut self.vectors)
    }
}

/// The optional metadata that is used here.
#[derive(Default)]
struct Optional<'a> {
    signs: &'a [u8],
    charsets: Charsets,
    enum_charsets: Charsets,
    names: Vec<&'a [u8]>,
    sets: Vec<Vec<&'a [u8]>>,
    enums: Vec<Vec<&'a [u8]>>,
    geometries: Vec<u64>,
    vectors: Vec<u64>,
    key: Vec<u64>,
}

/// One collation for all but some, or one each.
#[derive(Default)]
struct Charsets {
    default: Option<u64>,
    others: Vec<(u64, u64)>,
    each: Vec<u64>,
}

impl Charsets {
    fn of(&self, place: usize) -> Charset {
        let id = self
            .each
            .get(place)
            .copied()
            .or_else(|| self.others.iter().find(|(column, _)| *column == place as u64).map(|(_, id)| *id))
            .or(self.default);
        id.map_or(Charset::Utf8, by_collation)
    }
}

impl<'a> Optional<'a> {
    fn parse(bytes: &mut Bytes<'a>) -> Result<Self, Malformed> {
        let mut optional = Self::default();
        while !bytes.is_empty() {
            let kind = bytes.byte()?;
            let mut field = Bytes::new(bytes.packed_bytes()?);
            match kind {
                1 => optional.signs = field.rest(),
                2 => optional.charsets = default_and_others(&mut field)?,
                3 => optional.charsets.each = numbers(&mut field)?,
                4 => {
                    while !field.is_empty() {
                        optional.names.push(field.packed_bytes()?);
                    }
                }
                5 => optional.sets = labels(&mut field)?,
                6 => optional.enums = labels(&mut field)?,
                7 => optional.geometries = numbers(&mut field)?,
                8 => optional.key = numbers(&mut field)?,
                9 => {
                    // With prefixes: a row is not found by its key alone where a prefix is shorter than the column. Length 0: the whole column.
                    let mut prefix = false;
                    while !field.is_empty() {
                        optional.key.push(field.packed()?);
                        prefix |= field.packed()? != 0;
                    }
                    if prefix {
                        optional.key.clear();
                    }
                }
                10 => optional.enum_charsets = default_and_others(&mut field)?,
                11 => optional.enum_charsets.each = numbers(&mut field)?,
                13 => optional.vectors = numbers(&mut field)?,
                // Visibility, and what later versions add.
                _ => {}
            }
        }
        Ok(optional)
    }

    fn unsigned(&self, place: usize) -> bool {
        self.signs.get(place / 8).is_some_and(|byte| byte >> (7 - place % 8) & 1 == 1)
    }

    fn charset(&self, place: usize) -> Charset {
        self.charsets.of(place)
    }

    fn enum_charset(&self, place: usize) -> Charset {
        self.enum_charsets.of(place)
    }

    /// The labels of the ENUM or SET at this place; None: they are in a character set that is not decoded here.
    fn labels(&self, all: &[Vec<&[u8]>], place: usize, charset: Charset) -> Option<Arc<[String]>> {
        let Some(labels) = all.get(place) else { return Some(Arc::default()) };
        let decode = |label: &&[u8]| {
            let mut text = String::new();
            charset.decode(label, &mut text).then_some(text)
        };
        labels.iter().map(decode).collect::<Option<Vec<String>>>().map(Into::into)
    }

    fn geometry(&self, place: usize) -> Arc<str> {
        const KINDS: [&str; 8] = ["geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geomcollection"];
        self.geometries.get(place).and_then(|&kind| KINDS.get(usize::try_from(kind).ok()?)).copied().unwrap_or("geometry").into()
    }

    fn dimensions(&self, place: usize) -> u32 {
        self.vectors.get(place).and_then(|&dimensions| u32::try_from(dimensions).ok()).unwrap_or(0)
    }
}

fn numbers(field: &mut Bytes<'_>) -> Result<Vec<u64>, Malformed> {
    let mut numbers = Vec::new();
    while !field.is_empty() {
        numbers.push(field.packed()?);
    }
    Ok(numbers)
}

fn default_and_others(field: &mut Bytes<'_>) -> Result<Charsets, Malformed> {
    let default = Some(field.packed()?);
    let mut others = Vec::new();
    while !field.is_empty() {
        others.push((field.packed()?, field.packed()?));
    }
    Ok(Charsets { default, others, each: Vec::new() })
}

fn labels<'a>(field: &mut Bytes<'a>) -> Result<Vec<Vec<&'a [u8]>>, Malformed> {
    let mut all = Vec::new();
    while !field.is_empty() {
        let count = field.packed()?;
        all.push((0..count).map(|_| field.packed_bytes()).collect::<Result<Vec<_>, _>>()?);
    }
    Ok(all)
}
