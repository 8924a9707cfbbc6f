//! The host of all plugins: it runs the line, compares both sides, and answers for both.

pub mod api;
pub mod checks;
pub mod clock;
pub mod config;
pub mod copy;
pub mod occurrences;
pub mod pipeline;
pub mod shared;
pub mod state;
pub mod validation;
pub mod window;
