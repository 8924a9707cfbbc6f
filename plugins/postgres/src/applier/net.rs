//! What a run of changes of one table comes to: for each key its last state. Pure.
//!
//! Applying deletes first and upserts after gives the same table as applying every change in order, because each change names its row by
//! key and carries it whole. What may fail on the way is a second unique constraint; then the changes are applied one by one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use plumbline_sdk::{ChangeEvent, Op, Row};

/// The net effect of a run of changes.
#[derive(Debug, Default)]
pub struct Net<'a> {
    /// Rows whose key is gone at the end.
    pub deletes: Vec<&'a Row>,
    /// Rows that are there at the end.
    pub upserts: Vec<&'a Row>,
}

/// The net effect of `changes`. `key` appends the bytes of a row's key: equal bytes, same row.
pub fn net<'a, E>(changes: &[&'a ChangeEvent], mut key: impl FnMut(&Row, &mut Vec<u8>) -> Result<(), E>) -> Result<Net<'a>, E> {
    let mut places: HashMap<Vec<u8>, usize> = HashMap::with_capacity(changes.len());
    // In order of each key's last change.
    let mut last: Vec<Option<(&'a Row, bool)>> = Vec::with_capacity(changes.len());
    let mut put = |row: &'a Row, present: bool| -> Result<(), E> {
        let mut bytes = Vec::with_capacity(16);
        key(row, &mut bytes)?;
        match places.entry(bytes) {
            Entry::Occupied(mut place) => {
                last[*place.get()] = None;
                place.insert(last.len());
            }
            Entry::Vacant(place) => {
                place.insert(last.len());
            }
        }
        last.push(Some((row, present)));
        Ok(())
    };
    for change in changes {
        // An update whose key did not change overwrites its own delete.
        if let (Op::Update | Op::Delete, Some(before)) = (change.op, &change.before) {
            put(before, false)?;
        }
        if let (Op::Snapshot | Op::Insert | Op::Update, Some(after)) = (change.op, &change.after) {
            put(after, true)?;
        }
    }
    let mut net = Net::default();
    for (row, present) in last.into_iter().flatten() {
        if present { net.upserts.push(row) } else { net.deletes.push(row) }
    }
    Ok(net)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use plumbline_sdk::{TableId, TableSchema, ValueRef};

    use super::*;

    /// `check("i1 u1>2 d2", deletes, upserts)`: the changes, the keys that end absent, the keys that end present.
    fn check(changes: &str, deletes: &[i64], upserts: &[i64]) {
        let table = Arc::new(TableSchema { id: TableId::new("s", "t"), columns: Vec::new() });
        let row = |key: &str| Some(Row::of(&[ValueRef::Int(key.parse().expect("a number"))]));
        let events: Vec<ChangeEvent> = changes
            .split(' ')
            .map(|change| {
                let (op, before, after) = match (change.as_bytes()[0], &change[1..]) {
                    (b'i', key) => (Op::Insert, None, row(key)),
                    (b'd', key) => (Op::Delete, row(key), None),
                    (_, keys) => {
                        let (before, after) = keys.split_once('>').unwrap_or((keys, keys));
                        (Op::Update, row(before), row(after))
                    }
                };
                ChangeEvent { table: Arc::clone(&table), op, before, after }
            })
            .collect();
        let key_of = |row: &Row| match row.get(0) {
            ValueRef::Int(key) => key,
            _ => 0,
        };
        let changes: Vec<&ChangeEvent> = events.iter().collect();
        let Ok(net) = net::<Infallible>(&changes, |row, out| {
            out.extend_from_slice(&key_of(row).to_le_bytes());
            Ok(())
        });
        let keys = |rows: &[&Row]| rows.iter().map(|row| key_of(row)).collect::<Vec<_>>();
        assert_eq!((keys(&net.deletes), keys(&net.upserts)), (deletes.to_vec(), upserts.to_vec()));
    }

    #[test]
    fn the_last_state_of_each_key_counts() {
        check("i1", &[], &[1]);
        check("i1 u1 u1", &[], &[1]);
        check("i1 d1", &[1], &[]);
        check("d1 i1", &[], &[1]);
        check("u1>2", &[1], &[2]);
        check("u1>2 u2>1", &[2], &[1]);
        check("u1>9 u2>1 u9>2", &[9], &[1, 2]);
        check("i1 i2 d1 u2>1 i2", &[], &[1, 2]);
    }
}
