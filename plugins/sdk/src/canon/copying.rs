//! How a copy reads a source column: by its type alone, whatever the target makes of it.

use super::Rule;
use crate::table::Column;

impl Rule {
    /// The rule by which a copy reads this column of the source. It says how to select and how to bring a key cell to canonical form;
    /// it judges nothing, so it exists for every type.
    pub fn of_source(source: &Column) -> Self {
        Self { source: source.ty.clone(), target: String::new() }
    }
}
