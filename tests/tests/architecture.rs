//! The rooms of the house: who may know whom, and what is absent on purpose.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace").to_path_buf()
}

/// Every Rust file below `folder`, with its text.
fn files(folder: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                if path.file_name().is_none_or(|name| name != "target") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).expect("below the root").display().to_string();
                found.push((name, std::fs::read_to_string(&path).expect("text")));
            }
        }
    }
    found.sort();
    found
}

/// The code without comments and without its tests.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn absent(files: &[(String, String)], words: &[&str], why: &str) {
    for (name, text) in files {
        let code = code(text);
        for word in words {
            assert!(!code.contains(word), "`{name}` has `{word}`: {why}");
        }
    }
}

fn manifest(folder: &str) -> String {
    let text = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("a manifest");
    text.split("[dev-dependencies]").next().unwrap_or_default().to_owned()
}

#[test]
fn dependencies_point_one_way() {
    for (folder, forbidden) in [
        ("plugins/sdk", &["plumbline-", "mysql_async", "sqlx", "axum", "reqwest", "opentelemetry"][..]),
        ("plugins/mysql", &["plumbline-postgres", "plumbline-history", "plumbline.workspace", "sqlx", "axum"]),
        ("plugins/postgres", &["plumbline-mysql", "plumbline-history", "plumbline.workspace", "mysql_async", "axum"]),
        ("plugins/history", &["plumbline-mysql", "plumbline-postgres", "plumbline.workspace", "mysql_async", "axum"]),
        ("plugins/debezium", &["plumbline-mysql", "plumbline-postgres", "plumbline-history", "plumbline.workspace", "mysql_async", "sqlx", "axum"]),
        ("agent", &["plumbline-tests", "mysql_async", "sqlx"]),
    ] {
        let manifest = manifest(folder);
        let manifest = manifest.split("[dependencies]").nth(1).unwrap_or_default();
        for name in forbidden {
            assert!(!manifest.contains(name), "`{folder}` depends on `{name}`");
        }
    }
}

#[test]
fn only_builtin_names_plugins() {
    for (name, text) in files("agent/src") {
        if !name.ends_with("/builtin.rs") {
            for word in ["plumbline_mysql", "plumbline_postgres", "plumbline_history", "plumbline_debezium"] {
                assert!(!code(&text).contains(word), "`{name}` has `{word}`: only `builtin.rs` names built-in plugins");
            }
        }
    }
}

#[test]
fn pure_rooms_have_no_async_no_clock_no_network() {
    let pure: Vec<(String, String)> = ["agent/src", "plugins/sdk/src", "plugins/mysql/src", "plugins/postgres/src", "plugins/history/src", "plugins/debezium/src"]
        .into_iter()
        .flat_map(files)
        .filter(|(name, _)| {
            ["agent/src/state.rs", "agent/src/source_log.rs", "/sql.rs", "plugins/history/src/tally.rs", "plugins/debezium/src/envelope.rs", "plugins/debezium/src/cells.rs", "plugins/debezium/src/connector/decide.rs"].iter().any(|pure| name.ends_with(pure)) || name.contains("/types/") || name.contains("/canon/")
        })
        .collect();
    assert!(pure.len() >= 8, "the pure rooms are there: {:?}", pure.iter().map(|(name, _)| name).collect::<Vec<_>>());
    absent(&pure, &["async fn", ".await", "Instant::now", "SystemTime::now", "Timestamp::now", "tokio::", "TcpStream"], "this room is pure");
}

#[test]
fn the_comparison_engine_knows_no_sql() {
    absent(&files("agent/src/validation"), &["SELECT ", "sqlx", "mysql_async", "INSERT "], "the engine knows no SQL");
}

#[test]
fn the_environment_is_read_in_one_room() {
    let mut all = files("agent/src");
    all.extend(files("plugins"));
    // A plugin's own tests are told where servers are.
    all.retain(|(name, _)| !name.ends_with("agent/src/config.rs") && !name.contains("/tests/"));
    absent(&all, &["std::env::var", "env::vars", "env::var_os"], "the environment is read in agent/src/config.rs only");
}

#[test]
fn files_stay_short_enough_to_read() {
    for folder in ["agent/src", "plugins", "tests"] {
        for (name, text) in files(folder) {
            let lines = text.lines().count();
            assert!(lines <= 900, "`{name}` has {lines} lines: split it by noun");
        }
    }
}

#[test]
fn there_is_no_unsafe_code_outside_the_boundary() {
    for folder in ["agent/src", "plugins", "tests/src"] {
        absent(&files(folder), &["unsafe {", "unsafe fn", "unsafe impl"], "no unsafe code");
    }
}
