//! What Redis says, as an instruction. No password gets into any message.

use std::fmt;
use std::io;

use plumbline_sdk::Error;
use redis::{ErrorKind, RedisError};

/// Where we talk to, and what must never be said of it.
#[derive(Clone)]
pub(super) struct Place {
    /// `host:port`.
    pub at: String,
    /// The user, `default` where none is named.
    pub user: String,
    /// The keys that the user needs.
    pub pattern: String,
    /// Texts that never appear in a message.
    pub hidden: Vec<String>,
}

/// The driver's error as text, with every hidden text taken out.
#[derive(Debug)]
struct Cause(String);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Cause {}

impl Place {
    fn cause(&self, error: &RedisError) -> Cause {
        let text = self.hidden.iter().filter(|hidden| !hidden.is_empty()).fold(error.to_string(), |text, hidden| text.replace(hidden, "***"));
        Cause(text)
    }

    /// The server's error, or the way to it.
    pub(super) fn classify(&self, error: &RedisError) -> Error {
        let Self { at, user, pattern, .. } = self;
        // Of a pipeline: the first that was refused.
        let refused = error.clone().into_server_errors();
        let first = refused.as_ref().and_then(|all| all.first()).map(|(_, error)| error);
        let (code, detail) = match first {
            Some(first) => (first.code(), first.details().unwrap_or_default()),
            None => (error.code().unwrap_or_default(), error.detail().unwrap_or_default()),
        };
        let classified = match code {
            "OOM" => Error::disconnected(format!("Redis at `{at}` is full: raise its `maxmemory` or free some, the line waits and goes on by itself")),
            "LOADING" => Error::disconnected(format!("Redis at `{at}` is loading its data: the line waits and goes on by itself")),
            "BUSY" => Error::disconnected(format!("Redis at `{at}` is busy with a script of someone: the line waits; `SCRIPT KILL` ends the script")),
            "READONLY" => Error::disconnected(format!("Redis at `{at}` takes no writes any more, it has become a replica: name its primary in `REDIS_HOST` or `REDIS_URL`")),
            "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "NOREPLICAS" => Error::disconnected(format!("Redis at `{at}` waits for another server of its own: the line waits and goes on by itself")),
            "MISCONF" => Error::disconnected(format!("Redis at `{at}` cannot write its data to disk and refuses to take more: see its disk, the line waits and goes on by itself")),
            "NOAUTH" | "WRONGPASS" => self.refused_login(),
            "NOPERM" => Error::config(format!(
                "user `{user}` of Redis at `{at}` may not do what a history needs: `ACL SETUSER {user} ~{pattern} +@read +@write +@scripting +@connection +info +config|get`"
            )),
            "DENIED" => Error::config(format!("Redis at `{at}` is in protected mode and takes no connection from here: give it a password, and name it in `REDIS_PASSWORD`")),
            "MOVED" | "ASK" | "CROSSSLOT" => Error::config(format!("Redis at `{at}` is a node of a cluster that does not hold `{pattern}`: name the node that does in `REDIS_HOST` or `REDIS_URL`")),
            "WRONGTYPE" => Error::fatal(format!("a key of `{pattern}` in Redis at `{at}` is not what this agent made: was it changed by another program?")),
            "ERR" if detail.contains("max number of clients") => Error::disconnected(format!("Redis at `{at}` takes no more clients: raise its `maxclients`")),
            "ERR" if detail.contains("DB index") => Error::config(format!("Redis at `{at}` has no such database: `REDIS_URL` ends in a number below its `databases`, as `/0`")),
            "ERR" if detail.contains("unknown command") => Error::config(format!("Redis at `{at}` lacks a command that a history needs: it must be Redis 7.0 or newer, with `EVALSHA` allowed")),
            "ERR" if detail.contains("Script killed") => Error::disconnected(format!("someone ended our script on Redis at `{at}` with `SCRIPT KILL` before it wrote: it is sent again")),
            "ERR" if detail.contains("AUTH") => self.refused_login(),
            _ => self.without_code(error),
        };
        classified.caused_by(self.cause(error))
    }

    fn refused_login(&self) -> Error {
        Error::config(format!("Redis at `{}` refuses user `{}`: check `REDIS_USERNAME` and `REDIS_PASSWORD`, or both in `REDIS_URL`", self.at, self.user))
    }

    fn without_code(&self, error: &RedisError) -> Error {
        let at = &self.at;
        match error.kind() {
            ErrorKind::AuthenticationFailed => self.refused_login(),
            ErrorKind::InvalidClientConfig => Error::config(format!("the settings of Redis at `{at}` are not accepted: check `REDIS_URL` and the file of certificates")),
            ErrorKind::Io if is_certificate(error) => {
                Error::config(format!("the certificate of Redis at `{at}` is not trusted: name the file of its authority in `tls_ca`, or the host as the certificate has it in `REDIS_URL`"))
            }
            ErrorKind::Io if error.is_timeout() => Error::disconnected(format!("Redis at `{at}` does not answer in time")),
            ErrorKind::Io => Error::disconnected(format!("Redis at `{at}` is away: is it up, and are `REDIS_HOST` and `REDIS_PORT` or `REDIS_URL` right?")),
            ErrorKind::Parse => Error::disconnected(format!("what answers at `{at}` does not talk like Redis: is it one, and is it spoken to with TLS (`rediss://`) where it wants that?")),
            _ => Error::fatal(format!("Redis at `{at}` does not do what it must")),
        }
    }
}

fn is_certificate(error: &RedisError) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|io| io.kind() == io::ErrorKind::InvalidData) || error.to_string().contains("certificate")
}

#[cfg(test)]
mod tests {
    use plumbline_sdk::ErrorKind::{Config, Disconnected, Fatal};

    use super::*;

    fn place() -> Place {
        Place { at: "h:1".into(), user: "default".into(), pattern: "plumbline:{p}:*".into(), hidden: vec!["s3cret".into()] }
    }

    #[test]
    fn every_error_of_the_server_is_an_instruction() {
        let said = |code: &str, detail: &str| redis::make_extension_error(code.into(), Some(detail.into()));
        let cases = [
            ("OOM", "command not allowed", Disconnected),
            ("MISCONF", "Errors writing to the AOF file", Disconnected),
            ("BUSY", "Redis is busy running a script", Disconnected),
            ("NOREPLICAS", "Not enough good replicas", Disconnected),
            ("NOAUTH", "Authentication required.", Config),
            ("WRONGPASS", "invalid username-password pair", Config),
            ("DENIED", "Redis is running in protected mode", Config),
            ("WRONGTYPE", "Operation against a key", Fatal),
            ("WHATEVER", "never heard", Fatal),
        ];
        for (code, detail, kind) in cases {
            assert_eq!(place().classify(&said(code, detail)).kind(), kind, "{code}");
        }
    }

    #[test]
    fn no_password_is_said() {
        let error = place().classify(&RedisError::from(io::Error::other("cannot reach redis://u:s3cret@h:1")));
        assert_eq!(error.kind(), Disconnected);
        assert!(error.chain().contains("redis://u:***@h:1") && !error.chain().contains("s3cret"), "{}", error.chain());
    }
}
