//! Every test on real servers, as one program: run it by `compose/stack test`, or one by `compose/stack test -p plumbline-tests NAME`.

mod api;
mod architecture;
mod binlog;
mod conformance;
mod faults;
mod live;
mod pipeline;
mod types;
mod validation;
