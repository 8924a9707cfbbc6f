//! What the tests are told from outside. The only file of this crate that reads the environment.
#![allow(clippy::disallowed_methods, reason = "the tests' own settings are read here only")]

/// The value of `name`; a test that needs it fails where it is not set, and says what to do. Nothing is skipped in silence.
///
/// # Panics
/// Where the variable is not set.
pub fn required(name: &str) -> String {
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => value,
        _ => panic!("`{name}` is not set: run the tests by `compose/stack test`, which installs the servers and sets it"),
    }
}

/// The value of `name`, where it is set.
pub fn optional(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Makes clients of HTTP possible in this process: the workspace's TLS is chosen by whoever starts.
pub fn choose_tls() {
    // Whoever came first has chosen the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
