//! This agent among others that share its pipeline: who owns which table, who leads, and one picture for all of them.
//!
//! Counters come from what history was told by all of them. What only the owner of a table finds out, it says to the others, twice a second and
//! only where it changed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use plumbline_sdk::TableId;
use plumbline_sdk::plugin::{Group, GroupPicture, Member, OwnedPartition, Reads};
use tokio::sync::watch;

use crate::pipeline::refresh_open;
use crate::shared::Shared;
use crate::state::Said;

/// How often the agents meet.
const MEET: Duration = Duration::from_millis(500);
/// How many meetings go by before the open findings are read again.
const FINDINGS: u64 = 4;

const UNKNOWN: u8 = 0;
const LEADS: u8 = 1;
const FOLLOWS: u8 = 2;

/// This agent's membership.
pub struct Membership {
    group: Arc<dyn Group>,
    /// Where this agent's API listens.
    address: String,
    topic: Box<dyn Fn(&TableId) -> String + Send + Sync>,
    leads: AtomicU8,
    members: Mutex<Vec<Member>>,
    partitions: Mutex<Vec<OwnedPartition>>,
}

impl Membership {
    /// A member that listens at `address`; `topic` names the topic of a table.
    pub fn new(group: Arc<dyn Group>, address: String, topic: Box<dyn Fn(&TableId) -> String + Send + Sync>) -> Self {
        Self { group, address, topic, leads: AtomicU8::new(UNKNOWN), members: Mutex::default(), partitions: Mutex::default() }
    }

    /// Whether this agent does what only one of them may do; None: the others were not met yet.
    pub fn leads(&self) -> Option<bool> {
        match self.leads.load(Ordering::Relaxed) {
            UNKNOWN => None,
            leads => Some(leads == LEADS),
        }
    }

    /// Whether this agent is the one that compares a table: it reads its changes, or it leads and nobody does.
    pub fn owns(&self, table: &TableId) -> bool {
        match self.group.reads(&(self.topic)(table)) {
            Reads::This => true,
            Reads::Another => false,
            Reads::Nobody => self.leads() == Some(true),
        }
    }

    /// How often partitions were claimed: what came in between was read by others.
    pub fn claims(&self) -> u64 {
        self.group.claims()
    }

    /// Those that live, the oldest first.
    pub fn members(&self) -> Vec<Member> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every partition that one of them has read, by name.
    pub fn partitions(&self) -> Vec<OwnedPartition> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take_in(&self, shared: &Shared, picture: GroupPicture) {
        let GroupPicture { members, mut partitions, remembered, said } = picture;
        partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
        *self.partitions.lock().unwrap_or_else(PoisonError::into_inner) = partitions;
        let leads = members.iter().any(|member| member.this && member.leads);
        self.leads.store(if leads { LEADS } else { FOLLOWS }, Ordering::Relaxed);
        *self.members.lock().unwrap_or_else(PoisonError::into_inner) = members;
        let said: BTreeMap<TableId, Said> = said.into_iter().filter_map(|(table, words)| Some((table, serde_json::from_str(&words).ok()?))).collect();
        shared.picture().state.take_in(remembered, said, |table| self.owns(table));
        shared.touch();
    }

    /// What this agent says of its tables.
    fn words(&self, shared: &Shared) -> Vec<(TableId, String)> {
        let owned: Vec<(TableId, Said)> = {
            let picture = shared.picture();
            picture.state.present().filter(|(id, _)| self.owns(id)).map(|(id, table)| (id.clone(), table.said())).collect()
        };
        owned.into_iter().filter_map(|(id, said)| Some((id, serde_json::to_string(&said).ok()?))).collect()
    }
}

/// Meets the others until told to stop.
pub async fn meet(membership: Arc<Membership>, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut told: BTreeMap<TableId, String> = BTreeMap::new();
    let (mut claims, mut meetings) = (0, 0);
    loop {
        match membership.group.meet(&membership.address).await {
            Ok(picture) => membership.take_in(&shared, picture),
            // The line says it louder, and waits.
            Err(error) => tracing::debug!(error = error.chain(), "the other agents were not met"),
        }
        if membership.claims() != claims {
            claims = membership.claims();
            shared.picture().window.begin_again();
        }
        for (table, words) in membership.words(&shared) {
            if told.get(&table) == Some(&words) {
                continue;
            }
            if let Err(error) = membership.group.say(&table, &words).await {
                tracing::debug!(%table, error = error.chain(), "the other agents were not told of a table");
                break;
            }
            told.insert(table, words);
        }
        // What another one said meanwhile would be taken for ours.
        told.retain(|table, _| membership.owns(table));
        if meetings % FINDINGS == 0 {
            refresh_open(&shared).await;
        }
        meetings += 1;
        if tokio::time::timeout(MEET, stop.wait_for(|stop| *stop)).await.is_ok() {
            break;
        }
    }
}
