//! Several agents of one line: who reads which partition, who lives, and what the owner of a table says of it.
//!
//! A partition's place stands in a field of its own, with its owner before it. Whoever claims a partition puts its name there, and a write of
//! somebody else is refused whole from then on. There is no epoch to compare: a name is of one process, and never comes again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use plumbline_sdk::plugin::{Group, GroupPicture, Member, OwnedPartition, Reads};
use plumbline_sdk::position::{PartitionAt, Partitions};
use plumbline_sdk::{Error, Position, Result, TableId};
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, Value};
use tokio::sync::Mutex as AsyncMutex;

use super::RedisHistoryConfig;
use super::connect::Server;
use super::keys::{Keys, table_name, table_of};
use super::reader;
use super::script::Calls;
use super::store::{Answer, Context};

/// A member that was silent for so long is none.
const SILENT_MICROS: u64 = 6_000_000;

type Place = (Arc<str>, i32);

/// One partition that this agent has claimed.
#[derive(Debug, Clone)]
struct Claimed {
    /// The offset of the next record that is not stored, as the store has it; `-`: it has none.
    text: String,
    next: Option<u64>,
    /// Whether it was not let go of since.
    held: bool,
}

/// What this agent has claimed: common to the source, which claims, and to the history, which writes.
#[derive(Debug, Default)]
pub(super) struct Claims {
    places: Mutex<BTreeMap<Place, Claimed>>,
    /// The store's name, as the history found it.
    store: Mutex<String>,
    /// What a history of one agent had read of each partition, for those of which the store has no place yet.
    before: Mutex<Partitions>,
    times: AtomicU64,
}

/// A partition that a batch moves.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Moved {
    pub name: String,
    pub before: String,
    pub after: String,
    pub memory: String,
    place: Place,
}

impl Claims {
    /// What a store says before anything is claimed.
    pub(super) fn opened(&self, store: &str, position: Option<&Position>) {
        store.clone_into(&mut lock(&self.store));
        *lock(&self.before) = position.and_then(|position| position.partitions.clone()).unwrap_or_default();
    }

    /// The partitions that `position` moves. `Rewound`: one of them was let go of, or never claimed.
    pub(super) fn moved(&self, position: &Position) -> Result<Vec<Moved>> {
        let places = lock(&self.places);
        let mut moved = Vec::new();
        for (topic, partition, at) in position.partitions.iter().flat_map(Partitions::iter) {
            let name = name(topic, partition);
            let Some(claimed) = places.get(&(Arc::clone(topic), partition)) else { return Err(lost(&name)) };
            if claimed.next == Some(at.next) || claimed.next.is_none() && at.next == 0 {
                continue;
            }
            if !claimed.held {
                return Err(lost(&name));
            }
            let memory = at.newest.clone().unwrap_or_default();
            moved.push(Moved { name, before: claimed.text.clone(), after: at.next.to_string(), memory, place: (Arc::clone(topic), partition) });
        }
        Ok(moved)
    }

    /// They are stored.
    pub(super) fn stored(&self, moved: Vec<Moved>) {
        let mut places = lock(&self.places);
        for moved in moved {
            if let Some(claimed) = places.get_mut(&moved.place) {
                claimed.next = moved.after.parse().ok();
                claimed.text = moved.after;
            }
        }
    }
}

/// Of a partition that another agent has, or that the store has at another place: this agent begins anew, from what the store says.
pub(super) fn lost(partition: &str) -> Error {
    Error::rewound(format!("another agent reads `{partition}` by now, or Redis went back: nothing was written, and this agent begins anew from what Redis has"))
}

fn name(topic: &str, partition: i32) -> String {
    format!("{topic}/{partition}")
}

/// From the partition's name, its owner and the offset of its next record.
fn owned(known: &[String]) -> Option<OwnedPartition> {
    let (topic, partition) = known[0].rsplit_once('/')?;
    Some(OwnedPartition { topic: topic.to_owned(), partition: partition.parse().ok()?, owner: known[1].clone(), next: known[2].parse().ok() })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This agent's membership.
pub(super) struct RedisGroup {
    config: Arc<RedisHistoryConfig>,
    server: Server,
    keys: Keys,
    calls: Calls,
    /// The name of this process.
    owner: String,
    since_micros: i64,
    claims: Arc<Claims>,
    conn: AsyncMutex<Option<MultiplexedConnection>>,
    owners: Mutex<BTreeMap<String, String>>,
}

impl RedisGroup {
    pub(super) fn new(config: Arc<RedisHistoryConfig>, server: Server, keys: Keys, owner: String, claims: Arc<Claims>) -> Self {
        let since_micros = jiff::Timestamp::now().as_microsecond();
        Self { config, server, keys, calls: Calls::new(), owner, since_micros, claims, conn: AsyncMutex::new(None), owners: Mutex::default() }
    }

    fn context(&self) -> Context<'_> {
        Context { config: &self.config, server: &self.server, keys: &self.keys }
    }

    fn strange(&self) -> Error {
        Error::fatal(format!("Redis at `{}` answers a script of ours with something else: is there something between that changes answers?", self.server.place.at))
    }

    /// Asks over the shared connection, which is opened again where it failed.
    async fn ask(&self, call: impl AsyncFnOnce(&mut MultiplexedConnection) -> redis::RedisResult<Vec<Value>>) -> Result<Vec<Value>> {
        let mut conn = {
            let mut kept = self.conn.lock().await;
            match &*kept {
                Some(conn) => conn.clone(),
                None => kept.insert(self.server.open().await?).clone(),
            }
        };
        match call(&mut conn).await {
            Ok(answer) => Ok(answer),
            Err(error) => {
                *self.conn.lock().await = None;
                Err(self.server.place.classify(&error))
            }
        }
    }

    /// The parts of an answer that begins with `word`; another word is a refusal.
    fn parts(&self, answer: Vec<Value>, word: &str) -> Result<std::vec::IntoIter<Value>> {
        let said = answer.first().and_then(|first| String::from_redis_value(first.clone()).ok());
        if said.as_deref() != Some(word) {
            return Err(Answer::read(&self.server, answer)?.refusal(&self.context()));
        }
        let mut parts = answer.into_iter();
        parts.next();
        Ok(parts)
    }

    fn texts(&self, part: Option<Value>) -> Result<Vec<String>> {
        part.and_then(|part| Vec::from_redis_value(part).ok()).ok_or_else(|| self.strange())
    }

    fn members(&self, texts: &[String], owners: &BTreeMap<String, String>) -> Vec<Member> {
        let mut members: Vec<Member> = texts
            .chunks_exact(3)
            .map(|member| Member {
                id: member[0].clone(),
                address: member[2].clone(),
                since_micros: member[1].parse().unwrap_or(0),
                partitions: owners.values().filter(|owner| **owner == member[0]).count() as u64,
                leads: false,
                this: member[0] == self.owner,
            })
            .collect();
        members.sort_by(|a, b| (a.since_micros, &a.id).cmp(&(b.since_micros, &b.id)));
        if let Some(first) = members.first_mut() {
            first.leads = true;
        }
        members
    }
}

#[async_trait]
impl Group for RedisGroup {
    async fn claim(&self, cluster: &str, partitions: &[Place]) -> Result<Vec<Option<PartitionAt>>> {
        let names: Vec<String> = partitions.iter().map(|(topic, partition)| name(topic, *partition)).collect();
        // What a history of one agent must not go on from.
        let position = Position { server: cluster.to_owned(), partitions: Some(Partitions::default()), ..Position::default() };
        let position = serde_json::to_string(&position).map_err(|error| Error::fatal("a position cannot be written as JSON").caused_by(error))?;
        let mut cmd = self.calls.partitions.begin(&self.keys, &[]);
        cmd.arg(&*lock(&self.claims.store)).arg(&self.owner).arg(position).arg(&names);
        let answer = self.ask(async |conn| self.calls.partitions.send(conn, &cmd).await).await?;
        let found = self.texts(self.parts(answer, "claimed")?.next())?;
        if found.len() != partitions.len() * 2 {
            return Err(self.strange());
        }
        let before = lock(&self.claims.before).clone();
        let mut places = lock(&self.claims.places);
        self.claims.times.fetch_add(1, Ordering::Relaxed);
        Ok(partitions
            .iter()
            .zip(found.chunks_exact(2))
            .map(|((topic, partition), found)| {
                let at = match found[0].parse() {
                    Ok(next) => Some(PartitionAt { next, newest: Some(found[1].clone()).filter(|memory| !memory.is_empty()) }),
                    Err(_) => before.get(topic, *partition).cloned(),
                };
                let claimed = Claimed { text: found[0].clone(), next: at.as_ref().map(|at| at.next), held: true };
                places.insert((Arc::clone(topic), *partition), claimed);
                at
            })
            .collect())
    }

    fn stored(&self, topic: &str, partition: i32) -> Option<u64> {
        lock(&self.claims.places).get(&(Arc::from(topic), partition))?.next
    }

    fn release(&self) {
        for claimed in lock(&self.claims.places).values_mut() {
            claimed.held = false;
        }
    }

    fn claims(&self) -> u64 {
        self.claims.times.load(Ordering::Relaxed)
    }

    fn reads(&self, topic: &str) -> Reads {
        let held = lock(&self.claims.places).range((Arc::from(topic), 0)..).next().is_some_and(|((found, _), claimed)| &**found == topic && claimed.held);
        if held {
            return Reads::This;
        }
        let owners = lock(&self.owners);
        let known = owners.range(format!("{topic}/")..).next().is_some_and(|(name, _)| name.strip_prefix(topic).is_some_and(|rest| rest.starts_with('/')));
        if known { Reads::Another } else { Reads::Nobody }
    }

    async fn meet(&self, address: &str) -> Result<GroupPicture> {
        let mut cmd = self.calls.meet.begin(&self.keys, &[]);
        cmd.arg(&*lock(&self.claims.store)).arg(&self.owner).arg(self.since_micros).arg(SILENT_MICROS).arg(address);
        let answer = self.ask(async |conn| self.calls.meet.send(conn, &cmd).await).await?;
        let mut parts = self.parts(answer, "met")?;
        let (members, owners, said) = (self.texts(parts.next())?, self.texts(parts.next())?, self.texts(parts.next())?);
        let partitions: Vec<OwnedPartition> = owners.chunks_exact(3).filter_map(owned).collect();
        let owners: BTreeMap<String, String> = owners.chunks_exact(3).map(|known| (known[0].clone(), known[1].clone())).collect();
        let members = self.members(&members, &owners);
        *lock(&self.owners) = owners;
        let mut conn = match &*self.conn.lock().await {
            Some(conn) => conn.clone(),
            None => return Err(Error::disconnected("the connection to Redis was lost")),
        };
        let remembered = reader::remembered(&mut conn, &self.server, &self.keys, &self.calls.remembered).await?;
        let said = said.chunks_exact(2).filter_map(|pair| Some((table_of(&pair[0])?, pair[1].clone()))).collect();
        Ok(GroupPicture { members, partitions, remembered, said })
    }

    async fn say(&self, table: &TableId, words: &str) -> Result<()> {
        let mut cmd = redis::cmd("HSET");
        cmd.arg(self.keys.said()).arg(table_name(table)).arg(words);
        self.ask(async |conn| cmd.query_async::<i64>(conn).await.map(|_| Vec::new())).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(places: &[(&str, i32, u64)]) -> Position {
        let mut partitions = Partitions::default();
        for (topic, partition, next) in places {
            partitions.set(&Arc::from(*topic), *partition, PartitionAt { next: *next, newest: None });
        }
        Position { partitions: Some(partitions), ..Position::default() }
    }

    fn claims(places: &[(&str, i32, Option<u64>, bool)]) -> Claims {
        let claims = Claims::default();
        for (topic, partition, next, held) in places {
            let text = next.map_or_else(|| "-".to_owned(), |next| next.to_string());
            lock(&claims.places).insert((Arc::from(*topic), *partition), Claimed { text, next: *next, held: *held });
        }
        claims
    }

    fn check(claims: &Claims, at: &[(&str, i32, u64)], expected: Option<&[(&str, &str, &str)]>) {
        let moved = claims.moved(&position(at)).ok();
        let said = moved.as_ref().map(|moved| moved.iter().map(|moved| (moved.name.as_str(), moved.before.as_str(), moved.after.as_str())).collect::<Vec<_>>());
        assert_eq!(said.as_deref(), expected, "{at:?}");
    }

    #[test]
    fn a_batch_moves_the_partitions_whose_place_it_changes() {
        let claims = claims(&[("t", 0, Some(5), true), ("t", 1, None, true), ("u", 0, Some(3), false)]);
        check(&claims, &[("t", 0, 5), ("t", 1, 0), ("u", 0, 3)], Some(&[]));
        check(&claims, &[("t", 0, 9), ("t", 1, 2)], Some(&[("t/0", "5", "9"), ("t/1", "-", "2")]));
        check(&claims, &[("u", 0, 4)], None);
        check(&claims, &[("v", 0, 1)], None);
        claims.stored(claims.moved(&position(&[("t", 1, 2)])).expect("moved"));
        check(&claims, &[("t", 1, 7)], Some(&[("t/1", "2", "7")]));
    }
}
