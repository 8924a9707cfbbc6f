//! Whole paths against peers on real servers, in ratios. Never asserts a time; checks the result of what was timed.
//!
//! `set -a; eval "$(compose/stack env)"` and `cargo build --release -p plumbline` first, then `cargo run --release -p plumbline-bench -- binlog | compare | work | first-verdict | kafka | redis`.
#![allow(clippy::expect_used, clippy::panic, reason = "a benchmark that cannot go on ends")]

mod compare;
mod kafka;
mod machine;
mod stream;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str, default: u64| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("`{name}` takes a whole number")))
    };
    let text = |name: &str| arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1)).cloned();
    machine::describe();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        match arguments.first().map(String::as_str) {
            Some("binlog") => stream::binlog(number("--rows", 500_000), number("--runs", 3)).await,
            Some("compare") => compare::compare(number("--rows", 2_000_000), number("--runs", 3), text("--reladiff")).await,
            Some("work") => stream::work(number("--small", 10_000), number("--times", 100)).await,
            Some("kafka") => kafka::kafka(number("--records", 1_000_000), number("--runs", 3)).await,
            Some("redis") => kafka::redis(number("--records", 300_000), number("--runs", 3)).await,
            Some("first-verdict") => compare::first_verdict().await,
            _ => {
                eprintln!("binlog [--rows N] [--runs N] | compare [--rows N] [--runs N] [--reladiff PROGRAM] | work [--small N] [--times N] | first-verdict | kafka [--records N] [--runs N] | redis [--records N] [--runs N]");
                std::process::exit(2);
            }
        }
    });
}
