//! The host of all plugins: it runs the line, compares both sides, and answers for both.

pub mod agenda;
pub mod agent;
pub mod api;
pub mod builtin;
pub mod checks;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connectors;
pub mod copy;
pub mod desk;
pub mod group;
pub mod occurrences;
pub mod pipeline;
pub mod metrics;
pub mod probe;
pub mod shared;
pub mod source_log;
pub mod state;
pub mod telemetry;
pub mod timed;
mod unread;
pub mod validation;
pub mod window;
