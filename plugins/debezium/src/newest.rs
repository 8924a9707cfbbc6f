//! Which records of a partition came before. Pure.
//!
//! A connector that starts again goes back in the binlog and sends the end of what it had sent once more, in the same order. So a partition
//! needs to remember only the newest place it has: what lies at or before it came before. Places are compared within one server's numbering.
//!
//! In a compressed transaction all rows have one place, with their ordinals beginning again for each event: nothing tells a new row from an old
//! one there. Such rows are never dropped: the counts may then be too high after a connector's restart, and [`Newest::approximate`] says so.

use plumbline_sdk::Gtid;
use serde::{Deserialize, Serialize};

use crate::envelope::{Half, Source};

/// Servers that are remembered of one partition.
const SERVERS: usize = 16;

/// The newest place of one partition, by server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Newest {
    #[serde(rename = "p", default)]
    places: Vec<Place>,
    /// Rows with one place and other content were seen: transactions are compressed.
    #[serde(rename = "c", default)]
    compressed: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Place {
    #[serde(rename = "s")]
    server_id: u64,
    #[serde(rename = "l")]
    log: u64,
    #[serde(rename = "o")]
    offset: u64,
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    gtid: Option<Gtid>,
    /// The first row at this place: its ordinal and half, and a hash of its content.
    #[serde(rename = "f")]
    first: (u64, u8, u64),
    /// The newest row at this place.
    #[serde(rename = "n")]
    last: (u64, u8, u64),
}

impl Newest {
    /// Reads what [`to_text`](Self::to_text) wrote; what cannot be read is forgotten.
    pub fn of_text(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }
    /// As a position keeps it.
    pub fn to_text(&self) -> Option<String> {
        if self.places.is_empty() { None } else { serde_json::to_string(self).ok() }
    }
    /// Whether duplicates may have been taken for changes.
    pub fn approximate(&self) -> bool {
        self.compressed
    }

    /// Sees a change, in the partition's order: whether it is new. `content` is a hash of its rows; `compressed`: the server is known to
    /// compress transactions.
    pub fn is_new(&mut self, source: &Source<'_>, half: Half, content: u64, compressed: bool) -> bool {
        self.compressed |= compressed;
        let here = (source.row, half.ordinal(), content);
        let fresh = || Place { server_id: source.server_id, log: source.at.log, offset: source.at.offset, gtid: source.gtid.clone(), first: here, last: here };
        let Some(place) = self.places.iter_mut().find(|place| place.server_id == source.server_id) else {
            if self.places.len() >= SERVERS {
                self.places.remove(0);
            }
            self.places.push(fresh());
            return true;
        };
        let (before, at) = ((place.log, place.offset), (source.at.log, source.at.offset));
        if at > before || at < before && place.took_over(source) {
            *place = fresh();
            return true;
        }
        if at < before {
            return false;
        }
        let (row, half, _) = here;
        let after_last = (row, half) > (place.last.0, place.last.1);
        let other_content = [place.first, place.last].iter().any(|known| (known.0, known.1) == (row, half) && known.2 != content);
        self.compressed |= other_content && !after_last;
        if after_last || self.compressed {
            place.last = here;
            return true;
        }
        false
    }
}

impl Place {
    /// Whether the transaction of `source` was written after this place's by the same server: its file and byte are then of another numbering,
    /// that of a server that took over.
    fn took_over(&self, source: &Source<'_>) -> bool {
        matches!((&self.gtid, &source.gtid), (Some(known), Some(new)) if known.sid == new.sid && new.number > known.number)
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use plumbline_sdk::Coordinate;

    use super::*;

    fn source(server_id: u64, log: u64, offset: u64, row: u64, gtid: Option<u64>) -> Source<'static> {
        Source {
            schema: Cow::Borrowed("inv"),
            table: Cow::Borrowed("t"),
            server_id,
            gtid: gtid.map(|number| format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:{number}").parse().expect("a GTID")),
            file: Cow::Borrowed("binlog.000001"),
            at: Coordinate { log, offset },
            row,
            commit_micros: 0,
            incremental: false,
        }
    }

    /// Sees these places, and says of each whether it was new. The content follows the place.
    fn check(newest: &mut Newest, places: &[(u64, u64, u64)], expected: &[bool]) {
        let seen: Vec<bool> = places.iter().map(|(log, offset, row)| newest.is_new(&source(1, *log, *offset, *row, None), Half::Whole, offset * 31 + row, false)).collect();
        assert_eq!(seen, expected, "{places:?}");
    }

    #[test]
    fn what_came_before_is_known_after_a_rewind() {
        let mut newest = Newest::default();
        check(&mut newest, &[(2, 100, 0), (2, 100, 1), (2, 250, 0)], &[true, true, true]);
        let mut again = Newest::of_text(&newest.to_text().expect("text"));
        assert_eq!(again, newest);
        check(&mut again, &[(2, 100, 0), (2, 100, 1), (2, 250, 0), (2, 250, 1), (3, 4, 0)], &[false, false, false, true, true]);
        assert!(!again.approximate());
    }

    #[test]
    fn files_are_numbers_and_not_text() {
        check(&mut Newest::default(), &[(999_999, 500, 0), (1_000_000, 4, 0), (999_999, 500, 0)], &[true, true, false]);
    }

    #[test]
    fn both_halves_of_a_key_change_are_new() {
        let mut newest = Newest::default();
        let place = source(1, 1, 100, 0, None);
        assert!(newest.is_new(&place, Half::Old, 1, false));
        assert!(newest.is_new(&place, Half::New, 2, false));
        assert!(newest.is_new(&source(1, 1, 100, 1, None), Half::Old, 3, false));
        for (half, content) in [(Half::Old, 1), (Half::New, 2)] {
            assert!(!newest.is_new(&place, half, content, false), "{half:?}");
        }
    }

    #[test]
    fn rows_of_a_compressed_transaction_are_never_dropped() {
        let mut newest = Newest::default();
        let place = source(1, 1, 100, 0, Some(5));
        // A to B, B to A, A to B: one place, one ordinal.
        for (content, round) in [(1, 0), (2, 1), (1, 2), (2, 3)] {
            assert!(newest.is_new(&place, Half::Whole, content, false), "{round}");
        }
        assert!(newest.approximate());
        let mut known = Newest::default();
        assert!(known.is_new(&place, Half::Whole, 1, true) && known.is_new(&place, Half::Whole, 1, true));
        // Of other places they are known nevertheless.
        assert!(newest.is_new(&source(1, 1, 200, 0, Some(6)), Half::Whole, 1, false));
        assert!(!newest.is_new(&place, Half::Whole, 1, false));
    }

    #[test]
    fn each_server_has_its_own_numbering() {
        let mut newest = Newest::default();
        assert!(newest.is_new(&source(1, 5, 100, 0, None), Half::Whole, 1, false));
        assert!(newest.is_new(&source(2, 1, 100, 0, None), Half::Whole, 1, false));
        assert!(!newest.is_new(&source(1, 5, 100, 0, None), Half::Whole, 1, false));
        for server in 3..100 {
            assert!(newest.is_new(&source(server, 1, 4, 0, None), Half::Whole, 1, false));
        }
        assert!(newest.places.len() <= SERVERS);
    }

    #[test]
    fn a_later_transaction_at_a_lower_place_is_of_a_server_that_took_over() {
        let mut newest = Newest::default();
        assert!(newest.is_new(&source(1, 5, 100, 0, Some(50)), Half::Whole, 1, false));
        assert!(newest.is_new(&source(1, 1, 300, 0, Some(51)), Half::Whole, 1, false));
        assert!(!newest.is_new(&source(1, 1, 200, 0, Some(50)), Half::Whole, 1, false));
    }

    #[test]
    fn text_that_is_not_ours_is_forgotten() {
        assert_eq!(Newest::of_text("garbage"), Newest::default());
        assert_eq!(Newest::default().to_text(), None);
    }
}
