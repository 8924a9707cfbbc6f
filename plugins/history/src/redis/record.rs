//! How one change and one finding stand in Redis: pure.

use plumbline_sdk::plugin::{StoredEvent, StoredFinding};
use plumbline_sdk::{Finding, Op};
use sha2::{Digest, Sha256};

use super::keys::table_of;
use crate::tally::KeptEvent;

/// The first byte of every packed change.
const FORMAT: u8 = 1;
/// Format, operation, whether there is a key hash.
const HEAD: usize = 3;
/// Commit time, ordinal, trace, key hash, length of the transaction's name.
const FIXED: usize = HEAD + 8 + 8 + 16 + 8 + 2;

/// A change, packed: about a hundred bytes. Its number is the id of its entry.
pub(super) fn pack(event: &KeptEvent, table: &str, out: &mut Vec<u8>) {
    let hash = u64::from_str_radix(&event.key_hash, 16).ok();
    let txn = &event.txn.as_bytes()[..event.txn.len().min(usize::from(u16::MAX))];
    out.extend_from_slice(&[FORMAT, event.op.index() as u8, u8::from(hash.is_some())]);
    out.extend_from_slice(&event.commit_micros.to_be_bytes());
    out.extend_from_slice(&event.ordinal.to_be_bytes());
    out.extend_from_slice(&event.trace_id);
    out.extend_from_slice(&hash.unwrap_or(0).to_be_bytes());
    out.extend_from_slice(&(txn.len() as u16).to_be_bytes());
    out.extend_from_slice(txn);
    out.extend_from_slice(table.as_bytes());
}

/// The change that [`pack`] wrote; None: it is not one.
pub(super) fn unpack(id: u64, bytes: &[u8]) -> Option<StoredEvent> {
    let fixed = bytes.get(..FIXED)?;
    let number = |at: usize| Some(u64::from_be_bytes(fixed.get(at..at + 8)?.try_into().ok()?));
    let (FORMAT, op, hashed) = (fixed[0], Op::ALL.get(usize::from(fixed[1])).copied()?, fixed[2] == 1) else { return None };
    let txn = usize::from(u16::from_be_bytes([fixed[FIXED - 2], fixed[FIXED - 1]]));
    let table = table_of(std::str::from_utf8(bytes.get(FIXED + txn..)?).ok()?)?;
    Some(StoredEvent {
        id,
        table: table.to_string(),
        operation: op,
        commit_micros: i64::from_be_bytes(fixed.get(HEAD..HEAD + 8)?.try_into().ok()?),
        position: std::str::from_utf8(bytes.get(FIXED..FIXED + txn)?).ok()?.to_owned(),
        ordinal: number(HEAD + 8)?,
        trace_id: format!("{:032x}", u128::from_be_bytes(fixed.get(HEAD + 16..HEAD + 32)?.try_into().ok()?)),
        key_hash: if hashed { format!("{:016x}", number(HEAD + 32)?) } else { String::new() },
    })
}

/// What [`Finding::identity`] says, in a bounded length.
pub(super) fn identity(finding: &Finding) -> String {
    let digest = Sha256::digest(finding.identity().as_bytes());
    digest[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The finding that `write.lua` keeps as `verdict found last_seen resolved|- identity length-of-table \n table json`.
pub(super) fn finding_of(id: u64, text: &str) -> Option<StoredFinding> {
    let (head, rest) = text.split_once('\n')?;
    let mut words = head.split(' ');
    let (_verdict, found, seen, resolved, _identity, table) = (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
    let finding: Finding = serde_json::from_str(rest.get(table.parse().ok()?..)?).ok()?;
    let resolved_micros = if resolved == "-" { None } else { Some(resolved.parse().ok()?) };
    Some(StoredFinding { id, finding, found_micros: found.parse().ok()?, last_seen_micros: seen.parse().ok()?, resolved_micros })
}

#[cfg(test)]
mod tests {
    use plumbline_sdk::TableId;

    use super::*;

    fn event(key_hash: &str, txn: &str) -> KeptEvent {
        KeptEvent {
            number: 7,
            table: TableId::new("shop", "é t"),
            op: Op::Delete,
            commit_micros: -5,
            txn: txn.into(),
            ordinal: u64::MAX,
            trace_id: [0xab; 16],
            key_hash: key_hash.into(),
        }
    }

    fn packed(event: &KeptEvent) -> Vec<u8> {
        let mut bytes = Vec::new();
        pack(event, &crate::redis::keys::table_name(&event.table), &mut bytes);
        bytes
    }

    #[test]
    fn a_change_comes_back_as_it_was() {
        for hash in ["00000000000000ff", "0000000000000000", ""] {
            let event = event(hash, "3e11fa47-71ca-11e1-9e33-c80aa9429562:tag:5");
            let back = unpack(7, &packed(&event)).expect("unpacked");
            assert_eq!((back.id, &*back.table, back.operation, back.commit_micros, back.ordinal), (7, "shop.é t", Op::Delete, -5, u64::MAX));
            assert_eq!((&*back.position, &*back.trace_id, &*back.key_hash), (&*event.txn, &*"ab".repeat(16), hash));
        }
    }

    #[test]
    fn what_is_cut_or_of_another_format_is_not_a_change() {
        let bytes = packed(&event("", "a:1"));
        for length in 0..bytes.len() {
            assert!(unpack(7, &bytes[..length]).is_none(), "{length}");
        }
        let mut other = bytes.clone();
        other[0] = 2;
        assert!(unpack(7, &other).is_none());
    }
}
