//! `redis-history`: history, counters and position in Redis, for a line whose counters live where the team already looks.
//!
//! Exactness. One write is one script call, and the call is a compare-and-set on (epoch, number of writes, position):
//!
//! | the store answers | what follows |
//! |---|---|
//! | applied | the batch is in |
//! | it stands after this very write | a call whose answer was lost did arrive: the batch is in, nothing is counted twice |
//! | another agent has a newer epoch | `Fatal`: this one writes nothing more |
//! | it stands elsewhere | `Rewound`: Redis lost its tail, failed over, or an older copy was put back; the stream starts again from there |
//! | it is not there | `Fatal`: `redis-store.json` in the data folder says that it was; nothing is counted from zero in silence |
//!
//! After a failed or cancelled write the store is asked where it stands before anything is written again.
//! What a batch brings again is found by its transactions and counted as duplicates, as in `sqlite-history`.

mod connect;
mod error;
mod group;
mod keys;
mod marker;
mod reader;
mod record;
mod script;
mod store;
#[cfg(test)]
mod tests;
mod write;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use plumbline_sdk::plugin::{Group, HistoryReader, Remembered, Verified};
use plumbline_sdk::{Batch, Error, Event, History, Plugin, Position, Result, Secret, Sink, TableId};
use redis::aio::MultiplexedConnection;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::folder;
use crate::key_hash::KeyHasher;
use crate::tally::{DAY_MICROS, Tally, by_day, newest, tally};
use connect::Server;
use group::{Claims, RedisGroup};
use keys::Keys;
use script::Calls;
use store::{Answer, Context, Found};
use write::{Belief, Packed, Write, pack};

/// Settings of `redis-history`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedisHistoryConfig {
    /// `redis://[user[:password]@]host[:port][/database]`, or `rediss://` for TLS. Where it is set, `host` to `tls` are not looked at.
    #[serde(default)]
    pub url: Option<Secret>,
    /// The server's name or address.
    #[serde(default = "default_host")]
    pub host: String,
    /// Its port.
    #[serde(default = "default_port")]
    pub port: u16,
    /// Empty: the user `default`.
    #[serde(default)]
    pub username: String,
    /// Empty: none is sent.
    #[serde(default)]
    pub password: Secret,
    /// The number of the database.
    #[serde(default)]
    pub database: u32,
    /// Whether TLS is spoken. The certificate is always checked.
    #[serde(default)]
    pub tls: bool,
    /// A file of PEM certificates that are trusted instead of the usual authorities.
    #[serde(default)]
    pub tls_ca: Option<PathBuf>,
    /// What every key begins with.
    #[serde(default = "default_prefix")]
    pub prefix: String,
    /// The folder that holds the secret of the key hashes and the name of the store that was used; created where it is not there.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    /// The name of the pipeline whose history this is. Part of every key and of every trace id.
    #[serde(default = "default_pipeline")]
    pub pipeline: String,
    /// How many of the newest events are kept, 1,000,000 at most. The counters count all of them whatever this says.
    #[serde(default = "default_keep")]
    pub keep_events: u64,
    /// How many of the newest resolved findings are kept. Open ones are kept all.
    #[serde(default = "default_keep")]
    pub keep_findings: u64,
    /// For how many days, before today, the counters by day are kept.
    #[serde(default = "default_keep_days")]
    pub keep_days: u32,
    /// Whether several agents share the history, each of them the owner of some partitions of a partitioned log.
    #[serde(default)]
    pub shared: bool,
    /// How long one answer may take.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
}

fn default_host() -> String {
    "127.0.0.1".into()
}
fn default_port() -> u16 {
    6379
}
fn default_prefix() -> String {
    "plumbline".into()
}
fn default_data_dir() -> PathBuf {
    "plumbline-data".into()
}
fn default_pipeline() -> String {
    "default".into()
}
fn default_keep() -> u64 {
    10_000
}
fn default_keep_days() -> u32 {
    90
}
fn default_timeout_ms() -> u64 {
    10_000
}

impl Default for RedisHistoryConfig {
    fn default() -> Self {
        Self {
            url: None,
            host: default_host(),
            port: default_port(),
            username: String::new(),
            password: Secret::default(),
            database: 0,
            tls: false,
            tls_ca: None,
            prefix: default_prefix(),
            data_dir: default_data_dir(),
            pipeline: default_pipeline(),
            keep_events: default_keep(),
            keep_findings: default_keep(),
            keep_days: default_keep_days(),
            shared: false,
            timeout_ms: default_timeout_ms(),
        }
    }
}

/// One call carries the events of a batch, so that it stays bounded whatever is kept.
const MOST_EVENTS: u64 = 1_000_000;

/// The history of one pipeline in Redis.
pub struct RedisHistory {
    config: Arc<RedisHistoryConfig>,
    server: Server,
    keys: Keys,
    calls: Calls,
    hasher: Option<KeyHasher>,
    /// None: not connected, or a call did not come to its end.
    conn: Option<MultiplexedConnection>,
    /// Where the store stands under our epoch, kept over reconnects. None: never opened, or it went back.
    belief: Option<Belief>,
    /// Writes that were sent from where we believe the store to be, and whose outcome we do not know: it may have taken one of them.
    doubts: Vec<Doubt>,
    /// The one of them that it did take, until the host says which batch is next.
    landed: Option<Landed>,
    marked: bool,
    warnings: Vec<String>,
    /// Where the history is shared: what this process has claimed, and its name.
    group: Option<(Arc<Claims>, String)>,
}

struct Doubt {
    token: String,
    after: Belief,
}

struct Landed {
    token: String,
    base: Belief,
}

impl Plugin for RedisHistory {
    const NAME: &'static str = "redis-history";
    type Config = RedisHistoryConfig;

    fn new(config: Self::Config) -> Result<Self> {
        for (name, value) in [("pipeline", &config.pipeline), ("prefix", &config.prefix)] {
            if value.is_empty() || value.contains(['{', '}', '*', '?', '[', ']']) || value.chars().any(|c| c.is_control() || c.is_whitespace()) {
                return Err(Error::config(format!(
                    "`{name}` of `redis-history` is `{value}`: it wants a word without braces, brackets, `*`, `?` and spaces, as `default`"
                )));
            }
        }
        if config.data_dir.as_os_str().is_empty() {
            return Err(Error::config("the data folder is empty: `PLUMBLINE_DATA_DIR` wants a path, as `plumbline-data`"));
        }
        if config.keep_events > MOST_EVENTS {
            return Err(Error::config(format!("`keep_events` of `redis-history` is {}: it wants a number up to {MOST_EVENTS}", config.keep_events)));
        }
        if config.timeout_ms == 0 {
            return Err(Error::config("`timeout_ms` of `redis-history` is 0: it wants milliseconds, as 10000"));
        }
        let keys = Keys::new(&config.prefix, &config.pipeline);
        let server = Server::new(&config, &keys)?;
        let group = config.shared.then(|| (Arc::new(Claims::default()), store::fresh_name()));
        Ok(Self {
            group,
            config: Arc::new(config),
            server,
            keys,
            calls: Calls::new(),
            hasher: None,
            conn: None,
            belief: None,
            doubts: Vec::new(),
            landed: None,
            marked: false,
            warnings: Vec::new(),
        })
    }
}

/// What a write comes to.
enum Outcome {
    Written,
    /// The store had taken an earlier batch whose answer was lost: plan this one anew.
    Moved,
}

impl RedisHistory {
    fn context(&self) -> Context<'_> {
        Context { config: &self.config, server: &self.server, keys: &self.keys }
    }

    fn failed(&self, error: &redis::RedisError) -> Error {
        self.server.place.classify(error)
    }

    /// The open connection, opened again where the last call failed. Taken out: it comes back only by a call that succeeds.
    async fn take_conn(&mut self) -> Result<MultiplexedConnection> {
        if self.conn.is_none() {
            self.connect().await?;
        }
        self.conn.take().ok_or_else(|| Error::disconnected("the history is not open"))
    }

    fn believed(&self) -> Result<&Belief> {
        self.belief.as_ref().ok_or_else(|| Error::disconnected("the history is not open"))
    }

    /// Brings what we believe and what the store says together; `Err`: they cannot be.
    fn settle(&mut self, found: &Found) -> Result<()> {
        if let Some((claims, owner)) = &self.group {
            // The line moves by the others' writes too: what must hold is asked of each partition at each write.
            if self.belief.as_ref().is_none_or(|belief| belief.store != found.stands.store) {
                claims.opened(&found.stands.store, found.stands.position.as_ref());
                let position = found.stands.position.clone().filter(|_| self.belief.is_none());
                self.belief = Some(Belief { owner: owner.clone(), position, ..found.stands.clone() });
            }
            self.doubts.clear();
            return Ok(());
        }
        let stands = &found.stands;
        let Some(belief) = &self.belief else {
            self.belief = Some(stands.clone());
            return Ok(());
        };
        if stands == belief {
            return Ok(());
        }
        if let Some(at) = self.doubts.iter().position(|doubt| doubt.after == *stands && doubt.token == found.last) {
            let doubt = self.doubts.swap_remove(at);
            self.landed = Some(Landed { token: doubt.token, base: belief.clone() });
            self.belief = Some(doubt.after);
            self.doubts.clear();
            return Ok(());
        }
        if stands.epoch > belief.epoch || (stands.epoch == belief.epoch && stands.owner != belief.owner) {
            return Err(self.context().fenced());
        }
        Err(self.context().rewound(belief, stands))
    }

    /// As [`settle`](Self::settle). After `Rewound` nothing is believed any more: the next connect takes what the store says, under a new epoch.
    fn settle_or_forget(&mut self, found: &Found) -> Result<()> {
        let settled = self.settle(found);
        if settled.as_ref().is_err_and(|error| error.kind() == plumbline_sdk::ErrorKind::Rewound) {
            self.forget();
        }
        settled
    }

    fn forget(&mut self) {
        self.belief = None;
        self.doubts.clear();
        self.landed = None;
    }

    fn plan<'a>(&mut self, base: &Belief, batch: &'a Batch) -> Result<Write<'a>> {
        let now_micros = jiff::Timestamp::now().as_microsecond();
        let (config, stored) = (&self.config, base.position.as_ref());
        let hasher = self.hasher.as_mut().ok_or_else(|| Error::disconnected("the history is not open"))?;
        if self.group.is_some()
            && let (Some(position), Some(stored)) = (&batch.position, stored)
            && !position.order(stored).is_some_and(std::cmp::Ordering::is_ge)
        {
            // The source went back to what was stored while later batches were still on their way here.
            return Err(group::lost("a partition"));
        }
        let (tally, events, days) = if batch.copy.is_some() || batch.position.is_none() {
            (Tally::default(), Vec::new(), Vec::new())
        } else {
            let tally = tally(batch, stored)?;
            let events = newest(batch, stored, &tally, base.changes, config.keep_events, &config.pipeline, hasher);
            let days = by_day(batch, stored, &tally, now_micros.div_euclid(DAY_MICROS), config.keep_days);
            (tally, events, days)
        };
        let news = if batch.copy.is_some() { Vec::new() } else { batch.events.iter().filter(|event| is_news(event)).collect() };
        let moved = match (&self.group, &batch.position) {
            (Some((claims, _)), Some(position)) => Some(claims.moved(position)?),
            (Some(_), None) => Some(Vec::new()),
            (None, _) => None,
        };
        Ok(Write {
            moved,
            tally,
            days,
            events,
            copy: batch.copy.as_ref(),
            news,
            now_micros,
            keep_events: config.keep_events,
            keep_findings: config.keep_findings,
            keep_days: config.keep_days,
        })
    }

    /// The call for a batch; None: there is nothing to write.
    fn packed(&mut self, base: &Belief, batch: &Batch) -> Result<Option<Packed>> {
        let write = self.plan(base, batch)?;
        if write.is_empty() {
            return Ok(None);
        }
        pack(&self.calls.write, &self.keys, base, write).map(Some)
    }

    /// Whether the store took this very batch when its answer was lost.
    fn has_landed(&mut self, batch: &Batch) -> Result<bool> {
        let Some(landed) = self.landed.take() else { return Ok(false) };
        Ok(self.packed(&landed.base, batch)?.is_some_and(|packed| packed.token == landed.token))
    }

    async fn write_once(&mut self, conn: &mut MultiplexedConnection, batch: &Batch) -> Result<Outcome> {
        if self.has_landed(batch)? {
            return Ok(Outcome::Written);
        }
        let base = self.believed()?.clone();
        let Some(packed) = self.packed(&base, batch)? else { return Ok(Outcome::Written) };
        if !self.marked {
            self.context().mark(&base.store)?;
            self.marked = true;
        }
        // Noted before it is sent: whatever happens from here on, it may have arrived.
        let known = self.doubts.iter().any(|doubt| doubt.token == packed.token);
        if !known {
            self.doubts.push(Doubt { token: packed.token.clone(), after: packed.after.clone() });
        }
        let answer = self.calls.write.send(conn, &packed.cmd).await;
        let answer = answer.map_err(|error| {
            // An earlier attempt may still be on its way.
            if !known && is_answer(&error) {
                self.doubts.retain(|doubt| doubt.token != packed.token);
            }
            self.failed(&error)
        })?;
        match Answer::read(&self.server, answer)? {
            Answer::Applied => {
                if let Some((claims, _)) = &self.group {
                    claims.stored(packed.moved);
                }
                self.belief = Some(packed.after);
                self.doubts.clear();
                Ok(Outcome::Written)
            }
            Answer::At(found) => {
                self.settle_or_forget(&found)?;
                Ok(if self.has_landed(batch)? { Outcome::Written } else { Outcome::Moved })
            }
            other => Err(other.refusal(&self.context())),
        }
    }
}

/// Whether the server itself refused the call, so that it is sure not to have run.
fn is_answer(error: &redis::RedisError) -> bool {
    error.code().is_some() && !error.is_io_error()
}

fn is_news(event: &Event) -> bool {
    matches!(event, Event::TableFound(_) | Event::TableChanged(_) | Event::TableGone(_) | Event::Finding(_))
}

#[async_trait]
impl Sink for RedisHistory {
    async fn connect(&mut self) -> Result<()> {
        self.conn = None;
        folder::create(&self.config.data_dir)?;
        if self.hasher.is_none() {
            self.hasher = Some(KeyHasher::new(&folder::secret(&self.config.data_dir)?));
        }
        let mut conn = self.server.open().await?;
        self.warnings = self.server.preflight(&mut conn).await?;
        // Nothing was ever told to it: whatever it says is right.
        if self.belief.as_ref().is_some_and(|belief| belief.writes == 0) && self.doubts.is_empty() {
            self.forget();
        }
        let found = self.context().claim(&mut conn, &self.calls, self.belief.as_ref()).await?;
        self.settle_or_forget(&found)?;
        self.conn = Some(conn);
        Ok(())
    }

    async fn position(&mut self) -> Result<Option<Position>> {
        let conn = self.take_conn().await?;
        let position = self.believed()?.position.clone();
        self.conn = Some(conn);
        Ok(position)
    }

    async fn write(&mut self, batch: &Batch) -> Result<()> {
        let mut conn = self.take_conn().await?;
        while let Outcome::Moved = self.write_once(&mut conn, batch).await? {}
        self.conn = Some(conn);
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        self.conn = None;
        self.marked = false;
        self.forget();
        Ok(())
    }
}

#[async_trait]
impl History for RedisHistory {
    async fn remembered(&mut self) -> Result<Remembered> {
        let mut conn = self.take_conn().await?;
        let remembered = reader::remembered(&mut conn, &self.server, &self.keys, &self.calls.remembered).await?;
        self.conn = Some(conn);
        Ok(remembered)
    }

    async fn keep_verified(&mut self, table: &TableId, verified: &Verified) -> Result<()> {
        let mut conn = self.take_conn().await?;
        let belief = self.believed()?;
        let text = serde_json::to_string(verified).map_err(|error| Error::fatal("what was proved cannot be written as JSON").caused_by(error))?;
        let mut cmd = self.calls.verified.begin(&self.keys, &[]);
        let epoch = if self.group.is_some() { String::new() } else { belief.epoch.to_string() };
        cmd.arg(&belief.store).arg(epoch).arg(&belief.owner).arg(keys::table_name(table)).arg(text);
        let answer = self.calls.verified.send(&mut conn, &cmd).await.map_err(|error| self.failed(&error))?;
        match Answer::read(&self.server, answer)? {
            Answer::Applied => {}
            // The belief stays: the next write finds the same, and the host acts on that.
            Answer::At(found) => return self.settle(&found),
            other => return Err(other.refusal(&self.context())),
        }
        self.conn = Some(conn);
        Ok(())
    }

    fn group(&self) -> Option<Arc<dyn Group>> {
        let (claims, owner) = self.group.clone()?;
        Some(Arc::new(RedisGroup::new(Arc::clone(&self.config), self.server.clone(), self.keys.clone(), owner, claims)))
    }

    fn warnings(&self) -> Vec<String> {
        self.warnings.clone()
    }

    fn reader(&self) -> Box<dyn HistoryReader> {
        Box::new(reader::Reader::new(Arc::clone(&self.config), self.server.clone(), self.keys.clone()))
    }
}
