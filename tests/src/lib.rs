//! The harness of the tests: real servers, the real agent as a child process, a seeded workload and an oracle of what it did.
//!
//! `compose/stack test` installs what the tests need, says where it is in the environment, and runs them.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a harness fails a test by panicking")]

pub mod agent;
pub mod contents;
pub mod environment;
pub mod janitor;
pub mod log;
pub mod oracle;
pub mod proxy;
pub mod servers;
pub mod services;
pub mod store;
pub mod workload;
