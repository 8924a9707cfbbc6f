//! An open store: what its scripts answer, and what follows from an answer.

use std::path::Path;

use plumbline_sdk::{Error, Position, Result};
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Value};

use super::RedisHistoryConfig;
use super::connect::Server;
use super::keys::Keys;
use super::marker;
use super::script::Calls;
use super::write::Belief;

/// The format that this version writes: since 2 changes stand in blocks.
pub(super) const FORMAT: u32 = 2;
/// The oldest format that it goes on with.
pub(super) const OLDEST: u32 = 1;

/// Where a store stands, as it says itself.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub stands: Belief,
    /// The token of its last write.
    pub last: String,
}

/// What a script answers.
#[derive(Debug)]
pub(super) enum Answer {
    /// Done.
    Applied,
    /// The store does not stand where we believe; nothing was written. For `claim`: where it stands.
    At(Box<Found>),
    /// There is no store where one must be.
    Lost,
    /// Another store stands in its place.
    Other,
    /// Of a format that we do not know.
    Format(String),
    /// This key is not what we made.
    Damaged(String),
    /// The sums would not add up.
    Unequal,
    /// This partition has another owner, or another place, than we believe.
    Taken(String),
}

impl Answer {
    pub(super) fn read(server: &Server, answer: Vec<Value>) -> Result<Self> {
        let strange = || Error::fatal(format!("Redis at `{}` answers a script of ours with something else: is there something between that changes answers?", server.place.at));
        let mut parts = answer.into_iter();
        let word: String = parts.next().and_then(|word| String::from_redis_value(word).ok()).ok_or_else(strange)?;
        let mut text = || parts.next().and_then(|value| String::from_redis_value(value).ok());
        Ok(match word.as_str() {
            "applied" => Self::Applied,
            "lost" => Self::Lost,
            "other" => Self::Other,
            "unequal" => Self::Unequal,
            "format" => Self::Format(text().unwrap_or_default()),
            "taken" | "back" => Self::Taken(text().unwrap_or_default()),
            "damaged" => Self::Damaged(text().unwrap_or_default()),
            "ok" | "elsewhere" => {
                let fields: Vec<Option<String>> = parts.next().and_then(|value| Vec::from_redis_value(value).ok()).ok_or_else(strange)?;
                Self::At(Box::new(found(server, fields)?))
            }
            _ => return Err(strange()),
        })
    }

    /// The error where this is neither done nor where a store stands.
    pub(super) fn refusal(self, context: &Context<'_>) -> Error {
        let Context { config, server, keys } = context;
        let (at, line, marker) = (server.name(), keys.line(), marker::path(&config.data_dir));
        match self {
            Self::Lost => Error::fatal(format!(
                "the history of pipeline `{}` is no longer in Redis at `{at}` (`{line}`), and this agent has written to it before: nothing was written and nothing is counted from zero. \
                 Put a backup of Redis back, or name the right server; to begin anew, remove `{}` and empty the target",
                config.pipeline,
                marker.display()
            )),
            Self::Other => Error::fatal(format!(
                "Redis at `{at}` holds another history under `{line}` than the one that the data folder `{}` was used with: name the right server or the right `PLUMBLINE_DATA_DIR`; \
                 to go on with the history in Redis, remove `{}`",
                config.data_dir.display(),
                marker.display()
            )),
            Self::Format(format) => Error::config(format!(
                "the history `{line}` in Redis at `{at}` was written by another version (format {format}, this one knows {FORMAT}): run that version, or name another `prefix` to count from zero"
            )),
            Self::Damaged(key) => Error::fatal(format!("`{key}` in Redis at `{at}` does not belong to a whole history: bring it back from a backup, or remove all keys `{}` to count from zero", keys.pattern())),
            Self::Unequal => Error::fatal(format!("the sums of the history `{line}` in Redis at `{at}` do not add up (records = changes + duplicates + control): bring it back from a backup")),
            Self::Taken(partition) => super::group::lost(&partition),
            Self::Applied | Self::At(_) => Error::fatal(format!("the history `{line}` in Redis at `{at}` gives an answer that does not belong to the question")),
        }
    }
}

fn found(server: &Server, fields: Vec<Option<String>>) -> Result<Found> {
    let damaged = || Error::fatal(format!("the line of the history in Redis at `{}` cannot be read: bring it back from a backup", server.place.at));
    let [Some(store), Some(epoch), Some(owner), Some(writes), Some(last), Some(stored), Some(changes)] = <[Option<String>; 7]>::try_from(fields).map_err(|_| damaged())? else {
        return Err(damaged());
    };
    let number = |text: &str| text.parse::<u64>().map_err(|error| damaged().caused_by(error));
    let position: Option<Position> = match stored.as_str() {
        "" => None,
        text => Some(serde_json::from_str(text).map_err(|error| damaged().caused_by(error))?),
    };
    let stands = Belief { store, epoch: number(&epoch)?, owner, writes: number(&writes)?, stored, position, changes: number(&changes)? };
    Ok(Found { stands, last })
}

/// What every call needs to know.
pub(super) struct Context<'a> {
    pub config: &'a RedisHistoryConfig,
    pub server: &'a Server,
    pub keys: &'a Keys,
}

impl Context<'_> {
    /// Opens the store under a new epoch, or under the one that we have; creates it where none was ever used.
    pub(super) async fn claim(&self, conn: &mut MultiplexedConnection, calls: &Calls, belief: Option<&Belief>) -> Result<Found> {
        let marker = marker::read(&self.config.data_dir, &self.config.pipeline)?;
        let known = marker.map(|marker| marker.store).unwrap_or_default();
        let owner = belief.map_or_else(fresh_name, |belief| belief.owner.clone());
        let mut cmd = calls.claim.begin(self.keys, &[]);
        let epoch = if self.config.shared { "shared".to_owned() } else { belief.map(|belief| belief.epoch.to_string()).unwrap_or_default() };
        cmd.arg(FORMAT).arg(known).arg(fresh_name()).arg(owner).arg(epoch);
        let answer = calls.claim.send(conn, &cmd).await.map_err(|error| self.server.place.classify(&error))?;
        match Answer::read(self.server, answer)? {
            Answer::At(found) => Ok(*found),
            other => Err(other.refusal(self)),
        }
    }

    /// Another agent has taken the store.
    pub(super) fn fenced(&self) -> Error {
        Error::fatal(format!(
            "another agent has taken over the history of pipeline `{}` in Redis at `{}`: this one writes nothing more; stop one of the two, or give it a pipeline name of its own",
            self.config.pipeline,
            self.server.name()
        ))
    }

    /// The store lost what it had told.
    pub(super) fn rewound(&self, from: &Belief, to: &Belief) -> Error {
        Error::rewound(format!(
            "the history in Redis at `{}` went from {} (write {}) to {} (write {}) while this agent was not looking: it lost its tail, failed over, or another copy was put back. \
             Nothing was written; the stream must start again from there",
            self.server.name(),
            shown(from),
            from.writes,
            shown(to),
            to.writes
        ))
    }

    /// Says in the data folder that this store has been used.
    pub(super) fn mark(&self, store: &str) -> Result<()> {
        let folder: &Path = &self.config.data_dir;
        let marker = marker::Marker {
            store: store.to_owned(),
            pipeline: self.config.pipeline.clone(),
            key: self.keys.line().to_owned(),
            server: self.server.name(),
        };
        match marker::read(folder, &self.config.pipeline)? {
            Some(known) if known == marker => Ok(()),
            _ => marker::write(folder, &marker),
        }
    }
}

/// A name that nothing else has.
pub(super) fn fresh_name() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn shown(belief: &Belief) -> String {
    belief.position.as_ref().map_or_else(|| "no position".to_owned(), |position| format!("`{position}`"))
}
