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

/// Changes that share an entry of the stream: an entry costs Redis as much as the changes in it.
pub(super) const BLOCK: usize = 100;
/// The field of an entry that is a block.
pub(super) const BLOCK_FIELD: &[u8] = b"b";

/// Changes of consecutive numbers, each with its length before it. The number of the last is the id of the entry.
#[derive(Default)]
pub(super) struct Block {
    bytes: Vec<u8>,
}

impl Block {
    pub(super) fn add(&mut self, event: &KeptEvent, table: &str) {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        pack(event, table, &mut self.bytes);
        let length = u32::try_from(self.bytes.len() - at - 4).unwrap_or(u32::MAX);
        self.bytes[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }
}

/// The changes of an entry, the newest first; None: it is none of ours. The first version wrote each change into an entry of its own.
pub(super) fn unpack_entry(id: u64, field: &[u8], bytes: &[u8]) -> Option<Vec<StoredEvent>> {
    if field != BLOCK_FIELD {
        return Some(vec![unpack(id, bytes)?]);
    }
    let mut packed = Vec::with_capacity(BLOCK);
    let mut rest = bytes;
    while let Some((length, more)) = rest.split_first_chunk::<4>() {
        let (event, more) = more.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        packed.push(event);
        rest = more;
    }
    if !rest.is_empty() || packed.is_empty() {
        return None;
    }
    packed.iter().rev().zip(0..).map(|(event, before)| unpack(id.checked_sub(before)?, event)).collect()
}

/// A change, packed: about a hundred bytes.
fn pack(event: &KeptEvent, table: &str, out: &mut Vec<u8>) {
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
fn unpack(id: u64, bytes: &[u8]) -> Option<StoredEvent> {
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
    fn a_block_gives_back_its_changes_newest_first_and_nothing_where_it_is_cut() {
        let mut block = Block::default();
        for txn in ["a:1", "a:2", "a:30"] {
            block.add(&event("", txn), &crate::redis::keys::table_name(&TableId::new("shop", "t")));
        }
        let back = unpack_entry(9, BLOCK_FIELD, block.bytes()).expect("unpacked");
        assert_eq!(back.iter().map(|event| (event.id, event.position.as_str())).collect::<Vec<_>>(), [(9, "a:30"), (8, "a:2"), (7, "a:1")]);
        assert!(unpack_entry(1, BLOCK_FIELD, block.bytes()).is_none(), "no number is below zero");
        let whole = |length: usize| unpack_entry(9, BLOCK_FIELD, &block.bytes()[..length]).map(|events| events.len());
        let ends: Vec<usize> = (0..=block.bytes().len()).filter(|length| whole(*length).is_some()).collect();
        assert_eq!(ends.len(), 3, "only between two changes: {ends:?}");
        // As the first version wrote it.
        assert_eq!(unpack_entry(7, b"e", &packed(&event("", "a:1"))).expect("unpacked")[0].id, 7);
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
