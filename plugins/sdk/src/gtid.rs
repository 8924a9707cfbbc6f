//! GTIDs and GTID sets, with tags, as MySQL 8.0 to 9.7 writes them
//! (source of the format: MySQL Reference Manual, "GTID Format and Storage").

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// Who wrote a transaction: a server's UUID and, since MySQL 8.3, an optional tag.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sid {
    /// The UUID's 16 bytes.
    pub uuid: [u8; 16],
    /// The tag; None for an untagged GTID.
    pub tag: Option<Arc<str>>,
}

/// One transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gtid {
    /// Who wrote it.
    pub sid: Sid,
    /// Its number, from 1.
    pub number: u64,
}

/// A set of transactions: for every [`Sid`] disjoint, ascending, inclusive intervals. Holes are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GtidSet {
    sids: BTreeMap<Sid, Vec<(u64, u64)>>,
}

impl GtidSet {
    /// Whether `gtid` is in the set.
    pub fn contains(&self, gtid: &Gtid) -> bool {
        self.sids.get(&gtid.sid).is_some_and(|intervals| covers(intervals, gtid.number, gtid.number))
    }
    /// Adds one transaction.
    pub fn insert(&mut self, gtid: &Gtid) {
        match self.sids.get_mut(&gtid.sid) {
            Some(intervals) => insert(intervals, gtid.number, gtid.number),
            None => {
                self.sids.insert(gtid.sid.clone(), vec![(gtid.number, gtid.number)]);
            }
        }
    }
    /// Adds the transactions `first` to `last` of `sid`.
    pub fn insert_range(&mut self, sid: &Sid, first: u64, last: u64) {
        insert(self.sids.entry(sid.clone()).or_default(), first, last);
    }
    /// Adds all of `other`.
    pub fn union(&mut self, other: &Self) {
        for (sid, intervals) in &other.sids {
            for &(first, last) in intervals {
                self.insert_range(sid, first, last);
            }
        }
    }
    /// Whether all of this set is in `other`.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.sids.iter().all(|(sid, intervals)| {
            let theirs = other.sids.get(sid).map_or(&[][..], Vec::as_slice);
            intervals.iter().all(|&(first, last)| covers(theirs, first, last))
        })
    }
    /// Whether the set has no transaction.
    pub fn is_empty(&self) -> bool {
        self.sids.is_empty()
    }
    /// Every `Sid` with its intervals, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Sid, &[(u64, u64)])> {
        self.sids.iter().map(|(sid, intervals)| (sid, intervals.as_slice()))
    }
}

fn covers(intervals: &[(u64, u64)], first: u64, last: u64) -> bool {
    let after = intervals.partition_point(|&(start, _)| start <= first);
    after > 0 && intervals[after - 1].1 >= last
}

fn insert(intervals: &mut Vec<(u64, u64)>, first: u64, last: u64) {
    // The common case: the next number of the last interval.
    if let Some(end) = intervals.last_mut()
        && end.0 <= first
        && first <= end.1.saturating_add(1)
    {
        end.1 = end.1.max(last);
        return;
    }
    let from = intervals.partition_point(|&(_, end)| end.saturating_add(1) < first);
    let to = intervals.partition_point(|&(start, _)| start <= last.saturating_add(1));
    let merged = intervals[from..to].iter().fold((first, last), |(a, b), &(start, end)| (a.min(start), b.max(end)));
    intervals.splice(from..to, [merged]);
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.uuid.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        match &self.tag {
            Some(tag) => write!(f, ":{tag}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sid, self.number)
    }
}

impl fmt::Display for GtidSet {
    /// As MySQL prints it, without newlines: `uuid:1-5:7:tag:1-2,uuid:1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut uuid = None;
        for (sid, intervals) in &self.sids {
            if uuid == Some(sid.uuid) {
                if let Some(tag) = &sid.tag {
                    write!(f, ":{tag}")?;
                }
            } else {
                if uuid.is_some() {
                    f.write_str(",")?;
                }
                sid.fmt(f)?;
                uuid = Some(sid.uuid);
            }
            for &(first, last) in intervals {
                if first == last {
                    write!(f, ":{first}")?;
                } else {
                    write!(f, ":{first}-{last}")?;
                }
            }
        }
        Ok(())
    }
}

impl FromStr for GtidSet {
    type Err = Error;
    /// Reads MySQL's own text, newlines and tags included. The empty text is the empty set.
    fn from_str(text: &str) -> Result<Self> {
        let bad = |part: &str| Error::rejected(format!("`{part}` is not a GTID set; a set looks like `uuid:1-5:7` or `uuid:tag:1-5`"));
        let mut set = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut fields = part.split(':').map(str::trim);
            let uuid = fields.next().and_then(parse_uuid).ok_or_else(|| bad(part))?;
            let mut sid = Sid { uuid, tag: None };
            let mut any = false;
            for field in fields {
                if field.starts_with(|c: char| c.is_ascii_digit()) {
                    let (first, last) = field.split_once('-').unwrap_or((field, field));
                    let (first, last) = first.trim().parse().ok().zip(last.trim().parse().ok()).ok_or_else(|| bad(part))?;
                    if first == 0 || last < first {
                        return Err(bad(part));
                    }
                    set.insert_range(&sid, first, last);
                    any = true;
                } else if !field.is_empty() && field.len() <= 32 && field.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                    sid = Sid { uuid, tag: Some(field.to_ascii_lowercase().into()) };
                } else {
                    return Err(bad(part));
                }
            }
            if !any {
                return Err(bad(part));
            }
        }
        Ok(set)
    }
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let mut uuid = [0; 16];
    let mut digits = text.bytes().filter(|&b| b != b'-');
    for byte in &mut uuid {
        let high = char::from(digits.next()?).to_digit(16)?;
        let low = char::from(digits.next()?).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    digits.next().is_none().then_some(uuid)
}

impl FromStr for Gtid {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let set: GtidSet = text.parse()?;
        let mut all = set.iter();
        match (all.next(), all.next()) {
            (Some((sid, &[(first, last)])), None) if first == last => Ok(Self { sid: sid.clone(), number: first }),
            _ => Err(Error::rejected(format!("`{text}` is not one GTID; one looks like `uuid:7`"))),
        }
    }
}

impl Serialize for GtidSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for GtidSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
impl Serialize for Gtid {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de> Deserialize<'de> for Gtid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn check(text: &str, expected: &str) {
        let set: GtidSet = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(set.to_string(), expected);
    }

    #[test]
    fn a_set_prints_as_mysql_prints_it() {
        check("", "");
        check(&format!("{A}:1-5,\n{A}:6-7:9"), &format!("{A}:1-7:9"));
        check(&format!("{A}:1-1801:tag_a:1-2:tag_b:1"), &format!("{A}:1-1801:tag_a:1-2:tag_b:1"));
        check(&format!("{A}:5:1-2:3"), &format!("{A}:1-3:5"));
        check(&format!("{}:1", A.to_uppercase()), &format!("{A}:1"));
    }

    #[test]
    fn what_is_not_a_set_is_refused_by_name() {
        for text in ["x", A, "3e11:1", &format!("{A}:0"), &format!("{A}:5-2"), &format!("{A}:"), &format!("{A}:t!:1")] {
            assert!(text.parse::<GtidSet>().is_err(), "{text}");
        }
    }

    #[test]
    fn holes_are_kept_and_filled() {
        let mut set: GtidSet = format!("{A}:1-3:7").parse().expect("a set");
        let at = |number| Gtid { sid: set.iter().next().expect("a sid").0.clone(), number };
        let (five, six, four) = (at(5), at(6), at(4));
        assert!(!set.contains(&five));
        set.insert(&five);
        assert_eq!(set.to_string(), format!("{A}:1-3:5:7"));
        set.insert(&six);
        set.insert(&four);
        assert_eq!(set.to_string(), format!("{A}:1-7"));
        assert!(format!("{A}:2-3").parse::<GtidSet>().expect("a set").is_subset(&set));
        assert!(!format!("{A}:2-8").parse::<GtidSet>().expect("a set").is_subset(&set));
    }
}
