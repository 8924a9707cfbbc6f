//! The host of all plugins: it runs the line, compares both sides, and answers for both.

pub mod api;
pub mod shared;
pub mod state;
pub mod window;
