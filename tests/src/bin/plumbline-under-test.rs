//! The agent's own `main`, built together with the tests so that they never run a stale one.

fn main() -> std::process::ExitCode {
    plumbline::cli::main()
}
