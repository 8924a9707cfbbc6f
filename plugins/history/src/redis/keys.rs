//! The names of the keys, and how a table's name stands in them: pure.
//!
//! ```text
//! PREFIX:{PIPELINE}:line        hash    where the line stands, sums, epoch and owner, number of writes
//!                  :counts      hash    OP:TABLE -> changes since the beginning
//!                  :tables      hash    TABLE -> 1 where it is gone
//!                  :verified    hash    TABLE -> what was proved
//!                  :events      stream  the newest changes; the id is the change's number
//!                  :findings    hash    number -> finding; :findings:... are its indexes and the open ones' counts
//!                  :days        zset    the days that have counters
//!                  :partitions  hash    TOPIC/PARTITION -> owner, offset of the next record, what its source remembers of it
//!                  :members     hash    agent -> when it was last seen, since when it is a member, and what it says of itself
//!                  :said        hash    TABLE -> what its owner said of it
//!                  :day:DATE    hash    OP:TABLE -> changes of that day; expires
//! ```
//! The braces make one hash slot of them, so that one call may change them all.

use plumbline_sdk::TableId;

/// All keys of one pipeline but those of days. The order is the scripts'.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    root: String,
    all: [String; 16],
}

const NAMES: [&str; 16] = [
    "line",
    "counts",
    "tables",
    "verified",
    "events",
    "findings",
    "findings:identities",
    "findings:open",
    "findings:resolved",
    "findings:open:tables",
    "findings:resolved:tables",
    "findings:open:counts",
    "days",
    "partitions",
    "members",
    "said",
];

impl Keys {
    pub(super) fn new(prefix: &str, pipeline: &str) -> Self {
        let root = format!("{prefix}:{{{pipeline}}}:");
        let all = NAMES.map(|name| format!("{root}{name}"));
        Self { root, all }
    }
    pub(super) fn all(&self) -> &[String] {
        &self.all
    }
    pub(super) fn line(&self) -> &str {
        &self.all[0]
    }
    pub(super) fn events(&self) -> &str {
        &self.all[4]
    }
    pub(super) fn findings(&self) -> &str {
        &self.all[5]
    }
    /// By number.
    pub(super) fn findings_in(&self, open: bool) -> &str {
        &self.all[if open { 7 } else { 8 }]
    }
    /// By table and number: members that [`table_name`] begins and 16 hex digits end.
    pub(super) fn findings_of_tables(&self, open: bool) -> &str {
        &self.all[if open { 9 } else { 10 }]
    }
    pub(super) fn open_counts(&self) -> &str {
        &self.all[11]
    }
    pub(super) fn days(&self) -> &str {
        &self.all[12]
    }
    pub(super) fn said(&self) -> &str {
        &self.all[15]
    }
    /// The counters of a day, `2026-01-31`.
    pub(super) fn day(&self, date: &str) -> String {
        format!("{}day:{date}", self.root)
    }
    /// What a user of this store needs in an ACL.
    pub(super) fn pattern(&self) -> String {
        format!("{}*", self.root)
    }
}

/// A table as fields and members name it: `4.6:shop.orders`. With the lengths before it, none is the beginning of another.
pub(super) fn table_name(table: &TableId) -> String {
    format!("{}.{}:{}.{}", table.schema.len(), table.table.len(), table.schema, table.table)
}

/// The table that [`table_name`] wrote.
pub(super) fn table_of(name: &str) -> Option<TableId> {
    let (lengths, names) = name.split_once(':')?;
    let (schema, table) = lengths.split_once('.')?;
    let (schema, table): (usize, usize) = (schema.parse().ok()?, table.parse().ok()?);
    let rest = names.get(schema..)?.strip_prefix('.')?;
    (rest.len() == table).then(|| TableId::new(&names[..schema], rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_comes_back_whatever_its_name_holds() {
        for (schema, table) in [("shop", "orders"), ("", ""), ("a.b", "c:d"), ("é", "\u{1f600} \0x"), ("1.1:", ".")] {
            let table = TableId::new(schema, table);
            assert_eq!(table_of(&table_name(&table)), Some(table.clone()), "{table}");
        }
        for wrong in ["", "shop.orders", "4.6:shop.order", "9.9:x", "4:shop.orders"] {
            assert_eq!(table_of(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn keys_of_a_pipeline_share_one_hash_tag() {
        let keys = Keys::new("plumbline", "default");
        assert_eq!(keys.line(), "plumbline:{default}:line");
        assert!(keys.all().iter().all(|key| key.starts_with("plumbline:{default}:")));
        assert_eq!(keys.day("2026-01-31"), "plumbline:{default}:day:2026-01-31");
        assert_eq!((keys.days(), keys.open_counts(), keys.findings_of_tables(false)), (&*keys.all[12], "plumbline:{default}:findings:open:counts", "plumbline:{default}:findings:resolved:tables"));
    }
}
