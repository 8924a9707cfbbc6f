//! The comparison engine: plan, fence, align, judge, recheck. It knows no SQL: readers read, rules compare, validators judge.

mod beside;
pub mod compare;
pub mod fence;
pub mod feed;
pub mod follow;
pub mod judge;
pub mod keyless;
pub mod keys;
pub mod plan;
mod settle;

pub use compare::{Comparison, Options, compare_table};
pub use fence::Fence;
pub use plan::{Plan, partner, plan};
