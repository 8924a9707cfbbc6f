//! The calls on a store. Each is one script, called by its hash: `EVALSHA`, and loaded again on `NOSCRIPT`.
//!
//! Not a Redis Function: a function library stays on the server under a name that other versions of this agent, a `FUNCTION FLUSH` or a restored
//! dump can replace under us. A hash names this very text, nothing is left behind, and an ACL user needs no more than `@scripting`.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, RedisResult, Script, ServerErrorKind};

use super::keys::Keys;

/// One of them.
pub(super) struct Call {
    script: Script,
    text: &'static str,
}

/// All of them.
pub(super) struct Calls {
    pub claim: Call,
    pub write: Call,
    pub verified: Call,
    pub remembered: Call,
    pub partitions: Call,
    pub meet: Call,
}

impl Calls {
    pub(super) fn new() -> Self {
        let call = |text| Call { script: Script::new(text), text };
        Self {
            claim: call(include_str!("claim.lua")),
            write: call(include_str!("write.lua")),
            verified: call(include_str!("verified.lua")),
            remembered: call(include_str!("remembered.lua")),
            partitions: call(include_str!("partitions.lua")),
            meet: call(include_str!("meet.lua")),
        }
    }
}

impl Call {
    /// The command up to its keys; arguments follow.
    pub(super) fn begin(&self, keys: &Keys, more: &[String]) -> Cmd {
        let mut cmd = redis::cmd("EVALSHA");
        cmd.arg(self.script.get_hash()).arg(keys.all().len() + more.len()).arg(keys.all()).arg(more);
        cmd
    }

    /// Sends it. One round trip, three where the server does not know the script.
    pub(super) async fn send<T: FromRedisValue>(&self, conn: &mut MultiplexedConnection, cmd: &Cmd) -> RedisResult<T> {
        match cmd.query_async(conn).await {
            Err(error) if error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript) => {
                redis::cmd("SCRIPT").arg("LOAD").arg(self.text).query_async::<()>(conn).await?;
                cmd.query_async(conn).await
            }
            answer => answer,
        }
    }
}
