//! Tables and columns as the source has them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Schema and table name on the source, in the catalog's own spelling. Prints as `shop.orders`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableId {
    /// The schema (MySQL: the database).
    pub schema: Arc<str>,
    /// The table.
    pub table: Arc<str>,
}

impl TableId {
    /// Names a table.
    pub fn new(schema: impl Into<Arc<str>>, table: impl Into<Arc<str>>) -> Self {
        Self { schema: schema.into(), table: table.into() }
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

/// A table's shape at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSchema {
    /// Which table.
    pub id: TableId,
    /// Its columns in the order of the source, invisible and generated ones included.
    pub columns: Vec<Column>,
}

impl TableSchema {
    /// Indexes into `columns` of the key, in key order: the primary key, or the first unique key without nullable columns.
    /// Empty: the table has no key.
    pub fn key(&self) -> Vec<usize> {
        let mut key: Vec<usize> = (0..self.columns.len()).filter(|&i| self.columns[i].key_ordinal.is_some()).collect();
        key.sort_by_key(|&i| self.columns[i].key_ordinal);
        key
    }
    /// The index of the column of exactly this name.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }
}

/// A column as the source has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name in the catalog's spelling.
    pub name: String,
    /// Its type.
    pub ty: ColumnType,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// Its place in the key, from 1; None: not in the key.
    pub key_ordinal: Option<u32>,
    /// Whether it is a generated column, and so never written by hand.
    pub generated: bool,
    /// The character set of a text column, as MySQL names it (`utf8mb4`, `latin1`); None for others or where it is not known.
    pub charset: Option<Arc<str>>,
}

/// A MySQL type with what matters for values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ColumnType {
    /// TINYINT. `boolean`: declared as `TINYINT(1)`/`BOOL` (not known from the binlog, where it is false).
    TinyInt {
        /// UNSIGNED.
        unsigned: bool,
        /// Declared as `tinyint(1)`.
        boolean: bool,
    },
    /// SMALLINT.
    SmallInt {
        /// UNSIGNED.
        unsigned: bool,
    },
    /// MEDIUMINT.
    MediumInt {
        /// UNSIGNED.
        unsigned: bool,
    },
    /// INT.
    Int {
        /// UNSIGNED.
        unsigned: bool,
    },
    /// BIGINT.
    BigInt {
        /// UNSIGNED.
        unsigned: bool,
    },
    /// DECIMAL(precision, scale).
    Decimal {
        /// Digits in all, 1 to 65.
        precision: u8,
        /// Digits after the point, 0 to 30.
        scale: u8,
    },
    /// FLOAT.
    Float,
    /// DOUBLE.
    Double,
    /// BIT(n), 1 to 64.
    Bit(u8),
    /// YEAR.
    Year,
    /// DATE.
    Date,
    /// DATETIME(fsp).
    DateTime(u8),
    /// TIMESTAMP(fsp).
    Timestamp(u8),
    /// TIME(fsp).
    Time(u8),
    /// CHAR(characters). Trailing spaces are not part of the value.
    Char(u32),
    /// VARCHAR(characters).
    VarChar(u32),
    /// TINYTEXT to LONGTEXT, by the bytes of its length prefix (1 to 4).
    Text(u8),
    /// BINARY(bytes), padded with zero bytes.
    Binary(u32),
    /// VARBINARY(bytes).
    VarBinary(u32),
    /// TINYBLOB to LONGBLOB, by the bytes of its length prefix (1 to 4).
    Blob(u8),
    /// ENUM with its labels in order.
    Enum(Arc<[String]>),
    /// SET with its labels in order.
    Set(Arc<[String]>),
    /// JSON.
    Json,
    /// GEOMETRY and its kinds, by name (`point`).
    Geometry(Arc<str>),
    /// VECTOR(dimensions).
    Vector(u32),
    /// A type this version does not know, by name: never compared, `unverified` with the reason.
    Other(Arc<str>),
}

impl fmt::Display for ColumnType {
    /// The type in MySQL's words, as `information_schema` would say it, without character set and labels' quoting rules.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = |unsigned: &bool| if *unsigned { " unsigned" } else { "" };
        match self {
            Self::TinyInt { unsigned, boolean: true } => write!(f, "tinyint(1){}", sign(unsigned)),
            Self::TinyInt { unsigned, .. } => write!(f, "tinyint{}", sign(unsigned)),
            Self::SmallInt { unsigned } => write!(f, "smallint{}", sign(unsigned)),
            Self::MediumInt { unsigned } => write!(f, "mediumint{}", sign(unsigned)),
            Self::Int { unsigned } => write!(f, "int{}", sign(unsigned)),
            Self::BigInt { unsigned } => write!(f, "bigint{}", sign(unsigned)),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::Float => f.write_str("float"),
            Self::Double => f.write_str("double"),
            Self::Bit(n) => write!(f, "bit({n})"),
            Self::Year => f.write_str("year"),
            Self::Date => f.write_str("date"),
            Self::DateTime(fsp) => write!(f, "datetime({fsp})"),
            Self::Timestamp(fsp) => write!(f, "timestamp({fsp})"),
            Self::Time(fsp) => write!(f, "time({fsp})"),
            Self::Char(n) => write!(f, "char({n})"),
            Self::VarChar(n) => write!(f, "varchar({n})"),
            Self::Text(n) => f.write_str(["tinytext", "tinytext", "text", "mediumtext", "longtext"][usize::from(*n).min(4)]),
            Self::Binary(n) => write!(f, "binary({n})"),
            Self::VarBinary(n) => write!(f, "varbinary({n})"),
            Self::Blob(n) => f.write_str(["tinyblob", "tinyblob", "blob", "mediumblob", "longblob"][usize::from(*n).min(4)]),
            Self::Enum(labels) => write!(f, "enum({})", labels.join(",")),
            Self::Set(labels) => write!(f, "set({})", labels.join(",")),
            Self::Json => f.write_str("json"),
            Self::Geometry(kind) => f.write_str(kind),
            Self::Vector(n) => write!(f, "vector({n})"),
            Self::Other(name) => f.write_str(name),
        }
    }
}
