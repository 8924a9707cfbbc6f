//! The hash under which history names a row, so that no key is stored.
//!
//! Keyed with a secret of this data folder: phone numbers and the like cannot be looked up by hashing all of them.

use std::fmt::Write;

use plumbline_sdk::{ChangeEvent, DateTime, Row, ValueRef};
use sha2::{Digest, Sha256};

/// 64 bits of SHA-256 over a secret of 32 bytes and the key's cells as text, each with its length before it.
/// (A secret prefix is a sound keyed hash here because three quarters of the digest are not shown.)
#[derive(Clone)]
pub(crate) struct KeyHasher {
    keyed: Sha256,
    cell: String,
}

impl KeyHasher {
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        Self { keyed: Sha256::new_with_prefix(secret), cell: String::new() }
    }

    /// 16 hex digits for the row that `change` touched: its key after the change, else before; empty where there is none.
    pub(crate) fn hash(&mut self, change: &ChangeEvent, key: &[usize]) -> String {
        let Some(row) = change.after.as_ref().or(change.before.as_ref()) else { return String::new() };
        if key.is_empty() {
            return String::new();
        }
        let mut hash = self.keyed.clone();
        for &column in key {
            let bytes = self.cell_bytes(row, column);
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        }
        let digest = hash.finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        format!("{:016x}", u64::from_be_bytes(first))
    }

    fn cell_bytes<'a>(&'a mut self, row: &'a Row, column: usize) -> &'a [u8] {
        let out = &mut self.cell;
        out.clear();
        // Writing to a String cannot fail.
        let _ = match row.get(column) {
            ValueRef::Bytes(bytes) => return bytes,
            ValueRef::Text(text) | ValueRef::Decimal(text) | ValueRef::Json(text) => return text.as_bytes(),
            ValueRef::Absent | ValueRef::Null => Ok(()),
            ValueRef::Int(v) => write!(out, "{v}"),
            ValueRef::UInt(v) => write!(out, "{v}"),
            ValueRef::Float(v) => write!(out, "{v}"),
            ValueRef::Double(v) => write!(out, "{v}"),
            ValueRef::Time(v) => write!(out, "{v}"),
            ValueRef::Date(v) => write!(out, "{:04}-{:02}-{:02}", v.year, v.month, v.day),
            ValueRef::DateTime(v) | ValueRef::Timestamp(v) => write_datetime(out, v),
        };
        self.cell.as_bytes()
    }
}

fn write_datetime(out: &mut String, at: DateTime) -> std::fmt::Result {
    let date = at.date;
    write!(
        out,
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:06}",
        date.year, date.month, date.day, at.hour, at.minute, at.second, at.micros
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use plumbline_sdk::{Op, TableId, TableSchema};

    use super::*;

    fn hash(secret: u8, cells: &[ValueRef<'_>], key: &[usize]) -> String {
        let table = Arc::new(TableSchema { id: TableId::new("shop", "t"), columns: Vec::new() });
        let change = ChangeEvent { table, op: Op::Insert, before: None, after: Some(Row::of(cells)) };
        KeyHasher::new(&[secret; 32]).hash(&change, key)
    }

    #[test]
    fn equal_keys_hash_alike_under_one_secret_only() {
        let key = [ValueRef::UInt(5), ValueRef::Text("x")];
        assert_eq!(hash(1, &key, &[0]).len(), 16);
        assert_eq!(hash(1, &key, &[0]), hash(1, &[ValueRef::Int(5), ValueRef::Null], &[0]));
        assert_ne!(hash(1, &key, &[0]), hash(2, &key, &[0]));
        assert_ne!(hash(1, &key, &[0]), hash(1, &key, &[0, 1]));
    }

    #[test]
    fn cells_do_not_run_into_each_other() {
        let a = hash(1, &[ValueRef::Text("ab"), ValueRef::Text("c")], &[0, 1]);
        let b = hash(1, &[ValueRef::Text("a"), ValueRef::Text("bc")], &[0, 1]);
        assert_ne!(a, b);
    }

    #[test]
    fn a_table_without_key_has_no_hash() {
        assert_eq!(hash(1, &[ValueRef::Int(5)], &[]), "");
    }
}
