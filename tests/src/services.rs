//! Redis, Kafka and Kafka Connect with Debezium, as `compose/stack services` starts them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use tokio::sync::OnceCell;

use crate::environment::choose_tls;
use crate::janitor::{adopt, folder};

/// Services in a folder of their own.
#[derive(Debug)]
pub struct Services {
    folder: PathBuf,
    variables: BTreeMap<String, String>,
}

/// Redis, Kafka and Connect that all tests share.
///
/// # Panics
/// Where one does not come up.
pub async fn shared() -> &'static Services {
    static SHARED: OnceCell<Services> = OnceCell::const_new();
    SHARED.get_or_init(|| Services::start(&["redis", "connect"])).await
}

/// What a test started for itself ends with the test: several idle stacks would slow down all that follow.
impl Drop for Services {
    fn drop(&mut self) {
        for pid in ["connect", "kafka", "redis"].into_iter().filter_map(|part| self.pid(part)) {
            let _ = Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status();
        }
    }
}

impl Services {
    /// Starts these parts.
    ///
    /// # Panics
    /// Where one does not come up.
    pub async fn start(parts: &[&str]) -> Self {
        choose_tls();
        let mut services = Self { folder: folder("services"), variables: BTreeMap::new() };
        services.up(parts).await;
        let text = std::fs::read_to_string(services.folder.join("services.env")).expect("how to reach them");
        services.variables = text.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        services
    }

    async fn up(&self, parts: &[&str]) {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/stack"));
        command.args(["services", "start"]).arg(&self.folder).args(parts);
        let output = tokio::task::spawn_blocking(move || command.output().expect("the script runs")).await.expect("it ends");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for pid in ["redis", "kafka", "connect"].into_iter().filter_map(|part| self.pid(part)) {
            adopt(pid);
        }
    }

    fn pid(&self, part: &str) -> Option<u32> {
        let text = std::fs::read_to_string(self.folder.join(format!("{part}.pid"))).ok()?;
        text.split_whitespace().next()?.parse().ok()
    }

    /// Kills a part as the system would.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn kill(&self, part: &str) {
        let pid = self.pid(part).expect("it runs");
        let _ = Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status();
    }

    /// Starts a part again, at its port and with its data.
    ///
    /// # Panics
    /// Where it does not come up.
    pub async fn again(&self, part: &str) {
        self.up(&[part]).await;
    }

    /// A variable that says how to reach them.
    ///
    /// # Panics
    /// Where there is no such variable.
    pub fn get(&self, name: &str) -> &str {
        self.variables.get(name).unwrap_or_else(|| panic!("`{name}` is not among {:?}", self.variables.keys()))
    }
}
