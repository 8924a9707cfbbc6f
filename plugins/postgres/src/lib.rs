//! Plugins that write and read PostgreSQL: `postgres-applier` keeps a target as the source is, `postgres-comparer` judges
//! pairs of rows, and [`PostgresReader`] reads the target's side of a comparison.
//!
//! `types`, `quote`, `sql`, `escape`, `applier::net`, `applier::ddl` and `applier::statement` are pure: no clock, no network.
#![warn(missing_docs)]

pub mod applier;
pub mod catalog;
pub mod comparer;
pub mod config;
pub mod connect;
mod error;
pub mod escape;
pub mod preflight;
pub mod quote;
pub mod reader;
pub mod sql;
pub mod types;

pub use applier::{ApplierConfig, PostgresApplier};
pub use comparer::{ComparerConfig, PostgresComparer};
pub use config::{PostgresConfig, SslMode};
pub use preflight::{PreflightOptions, preflight};
pub use reader::{PostgresReader, ReaderConfig};
