//! What a MySQL column becomes in a table that we create. Every value of the source must fit, and be equal in its canonical form.

use plumbline_sdk::{ColumnType, Error, Result};

/// The PostgreSQL type for a MySQL type.
///
/// | MySQL | PostgreSQL | why |
/// |---|---|---|
/// | TINYINT, also `(1)`, SMALLINT, YEAR | `smallint` | a `boolean` would lose the 2 and the -1 that a BOOL of MySQL may hold |
/// | SMALLINT UNSIGNED, MEDIUMINT, INT | `integer` | |
/// | INT UNSIGNED, BIGINT | `bigint` | |
/// | BIGINT UNSIGNED | `numeric(20)` | 2^64-1 does not fit a `bigint` |
/// | DECIMAL(p,s) | `numeric(p,s)` | |
/// | FLOAT, DOUBLE | `real`, `double precision` | |
/// | BIT(n) | `bit(n)` | |
/// | DATETIME(n) | `timestamp(n)` | the wall time as written |
/// | TIMESTAMP(n) | `timestamptz(n)` | an instant |
/// | TIME(n) | `interval(n)` | -838:59:59 to 838:59:59: a `time` ends at 24:00:00 and knows no sign |
/// | CHAR(n), VARCHAR(n) | `varchar(n)` | characters on both sides; a CHAR has no trailing spaces when read, and `char(n)` would print them |
/// | TEXT and its sizes, ENUM, SET | `text` | an ENUM of PostgreSQL has no label for MySQL's invalid `''` |
/// | BINARY, VARBINARY, BLOB | `bytea` | |
/// | JSON | `jsonb` | both keep the last of duplicate keys; `\u0000` is refused, see [`NulCharacters`](super::NulCharacters) |
/// | GEOMETRY and its kinds | `bytea` | SRID and WKB as MySQL stores them: nothing is lost where PostGIS is not installed |
/// | VECTOR(n) | `real[]` | the same 32-bit floats |
pub fn created_as(ty: &ColumnType) -> Result<String> {
    use ColumnType as T;
    Ok(match ty {
        T::TinyInt { .. } | T::SmallInt { unsigned: false } | T::Year => "smallint".into(),
        T::SmallInt { unsigned: true } | T::MediumInt { .. } | T::Int { unsigned: false } => "integer".into(),
        T::Int { unsigned: true } | T::BigInt { unsigned: false } => "bigint".into(),
        T::BigInt { unsigned: true } => "numeric(20)".into(),
        T::Decimal { precision, scale } => format!("numeric({precision},{scale})"),
        T::Float => "real".into(),
        T::Double => "double precision".into(),
        T::Bit(n) => format!("bit({})", (*n).max(1)),
        T::Date => "date".into(),
        T::DateTime(fsp) => format!("timestamp({fsp})"),
        T::Timestamp(fsp) => format!("timestamptz({fsp})"),
        T::Time(fsp) => format!("interval({fsp})"),
        // CHAR(0) and VARCHAR(0) exist in MySQL; PostgreSQL starts at 1.
        T::Char(n) | T::VarChar(n) => format!("varchar({})", (*n).max(1)),
        T::Text(_) | T::Enum(_) | T::Set(_) => "text".into(),
        T::Binary(_) | T::VarBinary(_) | T::Blob(_) | T::Geometry(_) => "bytea".into(),
        T::Json => "jsonb".into(),
        T::Vector(_) => "real[]".into(),
        T::Other(name) => return Err(Error::rejected(format!("type `{name}` is not known to this version; leave the table out, or change the column's type on the source"))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_the_source_fits() {
        let check = |ty: ColumnType, expected: &str| assert_eq!(created_as(&ty).expect("a type"), expected, "{ty}");
        check(ColumnType::TinyInt { unsigned: false, boolean: true }, "smallint");
        check(ColumnType::TinyInt { unsigned: true, boolean: false }, "smallint");
        check(ColumnType::SmallInt { unsigned: true }, "integer");
        check(ColumnType::MediumInt { unsigned: true }, "integer");
        check(ColumnType::Int { unsigned: true }, "bigint");
        check(ColumnType::BigInt { unsigned: true }, "numeric(20)");
        check(ColumnType::Decimal { precision: 65, scale: 30 }, "numeric(65,30)");
        check(ColumnType::Bit(1), "bit(1)");
        check(ColumnType::Year, "smallint");
        check(ColumnType::DateTime(6), "timestamp(6)");
        check(ColumnType::Timestamp(0), "timestamptz(0)");
        check(ColumnType::Time(3), "interval(3)");
        check(ColumnType::Char(0), "varchar(1)");
        check(ColumnType::VarChar(255), "varchar(255)");
        check(ColumnType::Set(["a".to_owned()].into()), "text");
        check(ColumnType::Json, "jsonb");
        check(ColumnType::Geometry("point".into()), "bytea");
        check(ColumnType::Vector(3), "real[]");
        assert!(created_as(&ColumnType::Other("inet6".into())).is_err());
    }
}
