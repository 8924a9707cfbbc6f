//! Column types as `information_schema` writes them. Pure.

use std::sync::Arc;

use plumbline_sdk::ColumnType;

/// Reads a COLUMN_TYPE such as `decimal(10,2) unsigned zerofill` or `enum('a','b''c')`.
pub fn column_type(text: &str) -> ColumnType {
    let lower = text.to_ascii_lowercase();
    let name: &str = lower.split(['(', ' ']).next().unwrap_or_default();
    let arguments = text.find('(').and_then(|open| text.rfind(')').map(|close| &text[open + 1..close.max(open + 1)])).unwrap_or_default();
    let after = text.rfind(')').map_or(lower.as_str(), |close| &lower[close + 1..]);
    let unsigned = after.split(' ').any(|word| word == "unsigned" || word == "zerofill");
    let number = |i: usize| arguments.split(',').nth(i).and_then(|part| part.trim().parse::<u32>().ok());
    let byte = |i: usize, default: u8| number(i).and_then(|n| u8::try_from(n).ok()).unwrap_or(default);
    match name {
        "tinyint" => ColumnType::TinyInt { unsigned, boolean: !unsigned && number(0) == Some(1) },
        "bool" | "boolean" => ColumnType::TinyInt { unsigned: false, boolean: true },
        "smallint" => ColumnType::SmallInt { unsigned },
        "mediumint" => ColumnType::MediumInt { unsigned },
        "int" | "integer" => ColumnType::Int { unsigned },
        "bigint" => ColumnType::BigInt { unsigned },
        "decimal" | "numeric" | "dec" | "fixed" => ColumnType::Decimal { precision: byte(0, 10), scale: byte(1, 0) },
        "float" => ColumnType::Float,
        "double" | "real" => ColumnType::Double,
        "bit" => ColumnType::Bit(byte(0, 1)),
        "year" => ColumnType::Year,
        "date" => ColumnType::Date,
        "datetime" => ColumnType::DateTime(byte(0, 0)),
        "timestamp" => ColumnType::Timestamp(byte(0, 0)),
        "time" => ColumnType::Time(byte(0, 0)),
        "char" => ColumnType::Char(number(0).unwrap_or(1)),
        "varchar" => ColumnType::VarChar(number(0).unwrap_or(0)),
        "tinytext" => ColumnType::Text(1),
        "text" => ColumnType::Text(2),
        "mediumtext" => ColumnType::Text(3),
        "longtext" => ColumnType::Text(4),
        "binary" => ColumnType::Binary(number(0).unwrap_or(1)),
        "varbinary" => ColumnType::VarBinary(number(0).unwrap_or(0)),
        "tinyblob" => ColumnType::Blob(1),
        "blob" => ColumnType::Blob(2),
        "mediumblob" => ColumnType::Blob(3),
        "longblob" => ColumnType::Blob(4),
        "enum" => ColumnType::Enum(labels(arguments)),
        "set" => ColumnType::Set(labels(arguments)),
        "json" => ColumnType::Json,
        "vector" => ColumnType::Vector(number(0).unwrap_or(2048)),
        "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon" | "geomcollection" | "geometrycollection" => {
            ColumnType::Geometry(name.into())
        }
        _ => ColumnType::Other(name.into()),
    }
}

/// The labels of `'a','b''c'`.
fn labels(text: &str) -> Arc<[String]> {
    let mut labels = Vec::new();
    let mut letters = text.chars().peekable();
    while letters.by_ref().any(|letter| letter == '\'') {
        let mut label = String::new();
        while let Some(letter) = letters.next() {
            match letter {
                '\'' if letters.peek() == Some(&'\'') => {
                    letters.next();
                    label.push('\'');
                }
                '\'' => break,
                other => label.push(other),
            }
        }
        labels.push(label);
    }
    labels.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: ColumnType) {
        assert_eq!(column_type(text), expected, "{text}");
    }

    #[test]
    fn column_types_are_read_as_mysql_writes_them() {
        check("tinyint(1)", ColumnType::TinyInt { unsigned: false, boolean: true });
        check("tinyint unsigned", ColumnType::TinyInt { unsigned: true, boolean: false });
        check("int(8) unsigned zerofill", ColumnType::Int { unsigned: true });
        check("bigint", ColumnType::BigInt { unsigned: false });
        check("decimal(65,30) unsigned", ColumnType::Decimal { precision: 65, scale: 30 });
        check("double(10,2)", ColumnType::Double);
        check("float", ColumnType::Float);
        check("bit(10)", ColumnType::Bit(10));
        check("datetime(6)", ColumnType::DateTime(6));
        check("datetime", ColumnType::DateTime(0));
        check("varchar(20)", ColumnType::VarChar(20));
        check("enum('a','it''s','x,y','(')", ColumnType::Enum(Arc::from(["a".to_owned(), "it's".to_owned(), "x,y".to_owned(), "(".to_owned()])));
        check("set('')", ColumnType::Set(Arc::from([String::new()])));
        check("point", ColumnType::Geometry("point".into()));
        check("vector(3)", ColumnType::Vector(3));
        check("inet6", ColumnType::Other("inet6".into()));
    }
}
