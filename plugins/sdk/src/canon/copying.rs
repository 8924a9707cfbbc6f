//! How a copy reads a source column: by its type alone, whatever the target makes of it; and key cells read back.

use super::pair::{Form, Read};
use super::{Rule, bytes};
use crate::error::{Error, Result};
use crate::table::{Column, ColumnType};

impl Rule {
    /// The rule by which a copy reads this column of the source. It says how to select and how to bring a key cell to canonical form;
    /// it judges nothing, so it exists for every type.
    pub fn of_source(source: &Column) -> Self {
        let form = match source.ty {
            ColumnType::TinyInt { .. }
            | ColumnType::SmallInt { .. }
            | ColumnType::MediumInt { .. }
            | ColumnType::Int { .. }
            | ColumnType::BigInt { .. }
            | ColumnType::Decimal { .. }
            | ColumnType::Bit(_)
            | ColumnType::Year => Form::Number,
            ColumnType::Float => Form::Real,
            ColumnType::Double => Form::Double,
            ColumnType::Date => Form::Date,
            ColumnType::DateTime(_) | ColumnType::Timestamp(_) => Form::DateTime,
            ColumnType::Time(_) => Form::Time,
            ColumnType::Json => Form::Json,
            ColumnType::Char(_) | ColumnType::VarChar(_) | ColumnType::Text(_) | ColumnType::Enum(_) | ColumnType::Set(_) => Form::Text,
            ColumnType::Binary(_) | ColumnType::VarBinary(_) | ColumnType::Blob(_) | ColumnType::Geometry(_) | ColumnType::Vector(_) | ColumnType::Other(_) => Form::Bytes,
        };
        Self { source: source.ty.clone(), target: String::new(), form, read: Read::Text, width: 0, lossy: false }
    }

    /// The canonical form of a key cell, as [`key_for_source`](Self::key_for_source) makes one.
    pub fn canonical_of_key(&self, key_cell: &[u8], out: &mut Vec<u8>) -> Result<()> {
        match self.form {
            Form::Bytes if bytes::push_hex(key_cell, out) => Ok(()),
            Form::Bytes => Err(Error::rejected("a key cell of bytes is not hexadecimal")),
            _ => self.source_text(key_cell, out),
        }
    }
}
