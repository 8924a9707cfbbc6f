//! The trace of a change: the same at every delivery, in every process, so that history, log, API and traces name it alike.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::position::TxnId;

/// The id of one change's trace, as OpenTelemetry wants it: 16 bytes, not all zero. Prints as 32 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// The trace ids of one transaction: the first 16 bytes of SHA-256 over pipeline, server, transaction and ordinal,
/// each part with its length before it.
#[derive(Debug, Clone)]
pub struct TraceIds(Sha256);

impl TraceIds {
    /// For the transaction `txn` of `server` ([`Position::server`](crate::Position)) as the pipeline called `pipeline` sees it.
    pub fn of(pipeline: &str, server: &str, txn: &TxnId) -> Self {
        let mut hash = Sha256::new();
        for part in [pipeline, server, &txn.to_string()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        Self(hash)
    }
    /// The trace of the transaction's change number `ordinal`, from 0.
    pub fn change(&self, ordinal: u64) -> TraceId {
        let mut hash = self.0.clone();
        hash.update(8u64.to_le_bytes());
        hash.update(ordinal.to_le_bytes());
        let mut id = [0; 16];
        id.copy_from_slice(&hash.finalize()[..16]);
        if id == [0; 16] {
            id[15] = 1;
        }
        TraceId(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Coordinate;

    fn id(pipeline: &str, server: &str, log: u64, ordinal: u64) -> String {
        TraceIds::of(pipeline, server, &TxnId::At(Coordinate { log, offset: 4 })).change(ordinal).to_string()
    }

    #[test]
    fn a_change_has_the_same_trace_at_every_delivery() {
        // Fixed for ever: traces already sent and histories already written carry it.
        assert_eq!(id("default", "s", 1, 0), "0b9f5deb9769cd5f0d8124612b67f67a");
        assert_eq!(id("default", "s", 1, 0), id("default", "s", 1, 0));
    }

    #[test]
    fn every_part_counts_and_none_runs_into_the_next() {
        let all = [id("p", "s", 1, 0), id("q", "s", 1, 0), id("p", "t", 1, 0), id("p", "s", 2, 0), id("p", "s", 1, 1), id("ps", "", 1, 0)];
        for (i, a) in all.iter().enumerate() {
            assert_eq!(a.len(), 32);
            assert!(all[i + 1..].iter().all(|b| a != b));
        }
    }
}
