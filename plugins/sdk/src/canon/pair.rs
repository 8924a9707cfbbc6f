//! Which pairs of types are compared, and in which form.

use crate::table::{Column, ColumnType};

/// What the canonical form of a pair is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Decimal text: no sign but `-`, no leading zeros, no trailing zeros after the point, no `-0`.
    Number,
    /// `1` or `0`.
    Bool,
    /// The 4 bytes of a finite real, little endian, without -0.
    Real,
    /// The 8 bytes of a finite double, little endian, without -0.
    Double,
    /// `YYYY-MM-DD`; with a time of day as [`Form::DateTime`].
    Date,
    /// `YYYY-MM-DD HH:MM:SS.ffffff`; a time stamp in UTC.
    DateTime,
    /// Microseconds as decimal text.
    Time,
    /// UTF-8; an enum's label; a set's labels joined by `,`.
    Text,
    /// 32 lower-case hexadecimal digits; text that is no UUID stays as it is.
    Uuid,
    /// Raw bytes.
    Bytes,
    /// A canonical tree, see `json.rs`.
    Json,
}

/// How the target prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// An integer or numeric.
    Number,
    /// `t`/`f` or `true`/`false`.
    Bool,
    /// `0101`.
    BitString,
    /// A number, big endian, as hexadecimal of its bytes.
    HexNumber,
    /// A real.
    Real,
    /// A double.
    Double,
    /// A date or time stamp.
    Civil,
    /// A time of day.
    Time,
    /// An interval in style `postgres`.
    Interval,
    /// Microseconds as an integer.
    Micros,
    /// Text.
    Text,
    /// Text, perhaps padded with spaces.
    Padded,
    /// A UUID against text.
    Uuid,
    /// Hexadecimal of bytes.
    Hex,
    /// A UUID against bytes.
    UuidBytes,
    /// An array of text.
    Array,
    /// JSON.
    Json,
}

/// The form and the target's reading of a pair; `Err` is the reason why it is not compared.
pub(super) fn of(source: &Column, base: &str) -> Result<(Form, Read), String> {
    use ColumnType as T;
    match &source.ty {
        T::Geometry(_) | T::Vector(_) | T::Other(_) => return Err(format!("type `{}` is not compared", name(&source.ty))),
        T::Char(_) | T::VarChar(_) | T::Text(_) | T::Enum(_) | T::Set(_) => {
            if let Some(charset) = source.charset.as_deref().filter(|charset| ambiguous(charset)) {
                return Err(format!("character set `{charset}` is not compared: it has several bytes for one character"));
            }
        }
        _ => {}
    }
    let integer = matches!(base, "int2" | "int4" | "int8" | "numeric");
    let pair = match (&source.ty, base) {
        (T::TinyInt { .. } | T::SmallInt { .. } | T::MediumInt { .. } | T::Int { .. } | T::BigInt { .. } | T::Year, _) if integer => (Form::Number, Read::Number),
        (T::TinyInt { .. }, "bool") => (Form::Bool, Read::Bool),
        (T::Decimal { .. }, _) if integer => (Form::Number, Read::Number),
        (T::Decimal { .. }, "float8") => (Form::Double, Read::Double),
        (T::Float, "float4") => (Form::Real, Read::Real),
        (T::Float, "float8") => (Form::Real, Read::Double),
        (T::Float, "numeric") => (Form::Real, Read::Number),
        (T::Double, "float8") => (Form::Double, Read::Double),
        (T::Double, "float4") => (Form::Double, Read::Real),
        (T::Double, "numeric") => (Form::Double, Read::Number),
        (T::Bit(_), _) if integer => (Form::Number, Read::Number),
        (T::Bit(_), "bool") => (Form::Number, Read::Bool),
        (T::Bit(_), "bit" | "varbit") => (Form::Number, Read::BitString),
        (T::Bit(_), "bytea") => (Form::Number, Read::HexNumber),
        (T::Date, "date" | "timestamp") => (Form::Date, Read::Civil),
        (T::DateTime(_), "timestamp" | "timestamptz" | "date") => (Form::DateTime, Read::Civil),
        (T::Timestamp(_), "timestamp" | "timestamptz") => (Form::DateTime, Read::Civil),
        (T::Time(_), "time") => (Form::Time, Read::Time),
        (T::Time(_), "interval") => (Form::Time, Read::Interval),
        (T::Time(_), "int8") => (Form::Time, Read::Micros),
        (T::Char(_) | T::VarChar(_) | T::Text(_), "uuid") => (Form::Uuid, Read::Uuid),
        (T::Char(_) | T::VarChar(_) | T::Text(_) | T::Enum(_) | T::Set(_), "text" | "varchar" | "citext") => (Form::Text, Read::Text),
        (T::Char(_) | T::VarChar(_) | T::Text(_) | T::Enum(_) | T::Set(_), "bpchar") => (Form::Text, Read::Padded),
        (T::Enum(_), "enum") => (Form::Text, Read::Text),
        (T::Set(_), "_text" | "_varchar" | "_enum") => (Form::Text, Read::Array),
        (T::Binary(_) | T::VarBinary(_) | T::Blob(_), "bytea") => (Form::Bytes, Read::Hex),
        (T::Binary(_) | T::VarBinary(_) | T::Blob(_), "uuid") => (Form::Bytes, Read::UuidBytes),
        (T::Json, "json" | "jsonb" | "text") => (Form::Json, Read::Json),
        _ => return Err(format!("`{}` against `{base}` is not compared", name(&source.ty))),
    };
    Ok(pair)
}

/// The form of a source column alone, with the reading of the target type that is nearest to it.
pub(super) fn of_source(ty: &ColumnType) -> (Form, Read) {
    use ColumnType as T;
    match ty {
        T::TinyInt { .. } | T::SmallInt { .. } | T::MediumInt { .. } | T::Int { .. } | T::BigInt { .. } | T::Year | T::Decimal { .. } | T::Bit(_) => (Form::Number, Read::Number),
        T::Float => (Form::Real, Read::Real),
        T::Double => (Form::Double, Read::Double),
        T::Date => (Form::Date, Read::Civil),
        T::DateTime(_) | T::Timestamp(_) => (Form::DateTime, Read::Civil),
        T::Time(_) => (Form::Time, Read::Time),
        T::Char(_) | T::VarChar(_) | T::Text(_) | T::Enum(_) | T::Set(_) => (Form::Text, Read::Text),
        T::Json => (Form::Json, Read::Json),
        T::Binary(_) | T::VarBinary(_) | T::Blob(_) | T::Geometry(_) | T::Vector(_) | T::Other(_) => (Form::Bytes, Read::Hex),
    }
}

/// The type's name without its modifier and labels, for messages.
pub(super) fn name(ty: &ColumnType) -> String {
    match ty {
        ColumnType::Enum(_) => "enum".into(),
        ColumnType::Set(_) => "set".into(),
        ty => {
            let text = ty.to_string();
            match text.find('(') {
                Some(at) if !matches!(ty, ColumnType::Other(_)) => text[..at].to_owned(),
                _ => text,
            }
        }
    }
}

/// The bits of a BIT(n).
pub(super) fn bits(ty: &ColumnType) -> usize {
    match ty {
        ColumnType::Bit(n) => usize::from(*n),
        _ => 0,
    }
}

/// `n` of `bit(n)`.
pub(super) fn modifier(ty: &str) -> Option<usize> {
    ty.strip_prefix("bit(")?.strip_suffix(')')?.parse().ok()
}

/// Character sets with two bytes for one character: different source values would look equal.
fn ambiguous(charset: &str) -> bool {
    matches!(charset, "tis620" | "armscii8")
}

/// Character sets with bytes that have no meaning and can be stored all the same: MySQL prints each of them as `?`. Found by storing
/// every byte, or every pair of bytes, on MySQL 9.7; the other character sets refuse what they do not know, or print it apart.
pub(super) fn lossy(column: &Column) -> bool {
    column.charset.as_deref().is_some_and(|charset| {
        matches!(
            charset,
            "cp1250" | "cp1251" | "cp1256" | "cp1257" | "hebrew" | "geostd8" | "greek" | "dec8" | "swe7" | "hp8" // one byte
                | "big5" | "gbk" | "sjis" | "cp932" | "ujis" | "eucjpms" | "euckr" | "gb2312" // several
        )
    })
}
