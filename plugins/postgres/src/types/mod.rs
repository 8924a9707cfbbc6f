//! Types: what a MySQL column becomes in a table that we create, and how a value is written as PostgreSQL text. Pure.

mod create;
mod text;

pub use create::created_as;
pub use text::{Conversion, NulCharacters, Policies, Written, ZeroDates};
