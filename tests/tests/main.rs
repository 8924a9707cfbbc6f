//! Every test on real servers, as one program: run it by `compose/stack test`, or one by `compose/stack test NAME`.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod api;
mod architecture;
mod binlog;
mod conformance;
mod connector;
mod faults;
mod group;
mod kafka;
mod kafka_faults;
mod live;
mod pipeline;
mod types;
mod validation;
