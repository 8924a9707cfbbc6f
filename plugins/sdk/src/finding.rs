//! Differences, proved.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::table::TableId;

/// What differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The source has the row, the target has not.
    Missing,
    /// The target has the row, the source has not.
    Extra,
    /// Both have the row and a column differs.
    Changed,
}

impl Verdict {
    /// The word that users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Changed => "changed",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One difference, proved; or, with `resolved`, the news that it is gone. Carries no cell value except the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which table.
    pub table: TableId,
    /// What differs.
    pub verdict: Verdict,
    /// The key columns as text; `{}` for a table without key.
    pub key: BTreeMap<String, String>,
    /// The columns that differ (`changed` only).
    pub columns: Vec<String>,
    /// Why, where it can be told: `never_captured`, `captured_not_applied`, `overwritten`.
    pub cause: Option<String>,
    /// What settled it: `position` (proved through the fence) or `time` (seen twice with a settle time between).
    pub settled_by: String,
    /// The validator that found it.
    pub validator: String,
    /// The source position at which it was proved.
    pub position: Option<String>,
    /// Whether this says that the difference is gone.
    pub resolved: bool,
    /// For a table without key: how many equal copies each side has.
    pub copies: Option<(u64, u64)>,
}

impl Finding {
    /// What is the same finding: table, key, validator. A row that was `missing` and is now `changed` is the same finding.
    pub fn identity(&self) -> String {
        let mut text = format!("{}\u{1f}{}", self.table, self.validator);
        for (column, value) in &self.key {
            text.push('\u{1f}');
            text.push_str(column);
            text.push('=');
            text.push_str(value);
        }
        text
    }
}
