//! The connector that feeds this pipeline's topics: looked at every moment, so that it captures the watched tables and no others; and what
//! people ask to be done with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use plumbline_sdk::{Error, Event, Health, HealthState, Result, TableId};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};
use utoipa::ToSchema;

use crate::shared::Shared;

/// How often the connector is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How often before the first look.
const FIRST: Duration = Duration::from_millis(200);

/// Cares for one connector of a change-capture platform.
#[async_trait]
pub trait ConnectorCare: Send {
    /// Looks at it and, where this agent `leads` its group, does what it needs, so that it captures these tables. How it is then.
    async fn care(&mut self, tables: &BTreeSet<TableId>, leads: bool) -> Result<Health>;
    /// Does what a person asks. `Rejected`: it cannot be done with this connector as it is.
    async fn act(&mut self, action: ConnectorAction) -> Result<()>;
    /// What people may see of it, as of the last look. None: not looked at yet.
    fn shown(&self) -> Option<ConnectorView>;
}

/// What a person may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectorAction {
    /// Read no more until it is resumed; its task stays.
    Pause,
    /// Go on after a pause or a stop; make it anew after a removal.
    Resume,
    /// End its task until it is resumed.
    Stop,
    /// Start it and its task again.
    Restart,
    /// Remove it; its topics stay.
    Remove {
        /// Its place in the binlog too, so that one made anew reads all rows.
        forget: bool,
    },
}

/// An action, and who waits for it.
pub type ConnectorOrder = (ConnectorAction, oneshot::Sender<Result<()>>);

/// The connector. Secrets in its settings are hidden.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub struct ConnectorView {
    /// Its name.
    pub name: String,
    /// `RUNNING`, `FAILED`, `PAUSED`, `STOPPED`, `STARTING`, `MISSING` (being made), `REMOVED` (on request), `TAKEN` (somebody else has one of
    /// this name), `PURGED` (the source has deleted the binlog that it needs).
    pub state: String,
    /// The worker of Kafka Connect that runs it; empty: not known.
    pub worker: String,
    /// Its tasks.
    pub tasks: Vec<TaskView>,
    /// The first lines of what failed.
    pub trace: Vec<String>,
    /// The binlog file up to which it has stored its place; null: it has stored none yet.
    pub file: Option<String>,
    /// The byte in it.
    pub pos: Option<u64>,
    /// The transactions up to there; null: the source has no GTIDs.
    pub gtids: Option<String>,
    /// With `PURGED`: what was lost, in a sentence.
    pub lost: Option<String>,
    /// Settings that somebody had changed at the last look, by name.
    pub drift: Vec<String>,
    /// Settings that make what is said of its tables weaker, one sentence each.
    pub weak: Vec<String>,
    /// How often it was started again since the agent started.
    pub restarts: u64,
    /// The sink connectors of the same cluster that read its topics.
    pub sinks: Vec<SinkView>,
    /// Its settings.
    pub config: BTreeMap<String, String>,
}

/// A task of the connector.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct TaskView {
    /// Its number.
    pub id: u32,
    /// `RUNNING`, `PAUSED`, `FAILED`, `UNASSIGNED`, `RESTARTING`.
    pub state: String,
    /// The worker that runs it.
    pub worker: String,
    /// The first lines of what failed.
    pub trace: Vec<String>,
}

/// A sink connector that reads the topics.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SinkView {
    /// Its name.
    pub name: String,
    /// Its class.
    pub class: String,
    /// Its consumer group.
    pub group: String,
    /// `RUNNING`, `FAILED`, `PAUSED`, `STOPPED`, `STARTING`.
    pub state: String,
    /// Of how many watched tables it reads the topics.
    pub tables: usize,
}

/// What was lost when the source purged the binlog that the connector needs; None: nothing was. `oldest`: the number of the oldest file there.
fn lost(view: &ConnectorView, oldest: Option<u64>) -> Option<String> {
    if view.state != "PURGED" {
        return None;
    }
    let Some(file) = &view.file else { return Some("it has stored no place, so nobody can say what was lost".into()) };
    let (name, number) = file.rsplit_once('.').unwrap_or((file, ""));
    let from = format!("from `{file}` byte {}", view.pos.unwrap_or(0));
    let through = view.gtids.as_ref().map(|gtids| format!(" (after the transactions `{}`)", gtids.replace('\n', ""))).unwrap_or_default();
    let until = match oldest.filter(|oldest| number.parse::<u64>().is_ok_and(|number| number < *oldest)) {
        Some(oldest) => format!("the beginning of `{name}.{oldest:0width$}`, the oldest that the source has", width = number.len()),
        None => "the oldest binlog that the source has".into(),
    };
    Some(format!("lost are the changes {from}{through} to {until}"))
}

/// Looks at the connector until told to stop, does what people ask of it, and tells how it is when that changes. Begins when discovery has
/// looked: an agent that does not know its tables yet must not take them out of the connector.
pub async fn care_for(mut connector: Box<dyn ConnectorCare>, shared: Arc<Shared>, news: mpsc::Sender<Vec<Event>>, mut orders: mpsc::Receiver<ConnectorOrder>, mut stop: watch::Receiver<bool>) {
    let mut told: Option<Health> = None;
    loop {
        let wait = if told.is_none() { FIRST } else { LOOK };
        let order = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            order = orders.recv() => match order {
                Some(order) => Some(order),
                None => break,
            },
            () = tokio::time::sleep(wait) => None,
        };
        let turn = async {
            let done = match order {
                Some((action, reply)) => Some((act(connector.as_mut(), action, &shared).await, reply)),
                None => None,
            };
            let looked = look(connector.as_mut(), &shared).await;
            if let Some((done, reply)) = done {
                // Whoever asked may have gone.
                let _ = reply.send(done);
            }
            looked
        };
        let looked = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            looked = turn => looked,
        };
        let Some(health) = looked.filter(|health| told.as_ref() != Some(health)) else { continue };
        tell(&health);
        told = Some(health.clone());
        if news.send(vec![Event::Health(health)]).await.is_err() {
            break;
        }
    }
}

async fn act(connector: &mut dyn ConnectorCare, action: ConnectorAction, shared: &Shared) -> Result<()> {
    if matches!(action, ConnectorAction::Remove { .. }) && shared.leads() != Some(true) {
        return Err(Error::rejected("another agent of this pipeline cares for the connector, and would make it anew: ask that one; `/kafka-status` says which leads"));
    }
    connector.act(action).await?;
    tracing::info!(?action, "the connector was told to, on request");
    Ok(())
}

/// One look; None: it is too early.
async fn look(connector: &mut dyn ConnectorCare, shared: &Shared) -> Option<Health> {
    let (tables, oldest) = {
        let picture = shared.picture();
        if !picture.state.discovered {
            return None;
        }
        let tables: BTreeSet<TableId> = picture.state.present().filter(|(_, table)| table.schema.is_some()).map(|(id, _)| id.clone()).collect();
        (tables, picture.state.source_log.oldest())
    };
    let leads = shared.leads()?;
    let looked = connector.care(&tables, leads).await;
    let (state, mut messages) = looked.map_or_else(|error| (HealthState::Down, vec![error.chain()]), |health| (health.state, health.messages));
    let view = connector.shown().map(|view| ConnectorView { lost: lost(&view, oldest), ..view });
    messages.extend(view.as_ref().and_then(|view| view.lost.clone()));
    shared.show_connector(view);
    Some(Health { component: "connect".into(), state, messages })
}

fn tell(health: &Health) {
    let words = health.messages.join("; ");
    match health.state {
        HealthState::Up => tracing::info!("the connector runs"),
        HealthState::Warning => tracing::info!(message = words, "the connector"),
        HealthState::Down => tracing::warn!(message = words, "the connector"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_goes_from_the_stored_place_to_the_oldest_binlog() {
        let check = |state: &str, file: Option<&str>, oldest: Option<u64>, expected: Option<&[&str]>| {
            let view = ConnectorView { state: state.into(), file: file.map(str::to_owned), pos: Some(157), gtids: Some("u:1-9,\nv:1".into()), ..ConnectorView::default() };
            let said = lost(&view, oldest);
            assert_eq!(said.is_some(), expected.is_some(), "{said:?}");
            for word in expected.unwrap_or_default() {
                assert!(said.as_ref().is_some_and(|said| said.contains(word)), "{said:?} lacks {word}");
            }
        };
        check("RUNNING", Some("binlog.000002"), Some(5), None);
        check("PURGED", Some("binlog.000002"), Some(5), Some(&["`binlog.000002` byte 157", "`u:1-9,v:1`", "`binlog.000005`, the oldest"]));
        check("PURGED", Some("binlog.000002"), None, Some(&["byte 157", "to the oldest binlog"]));
        // The source was not looked at since.
        check("PURGED", Some("binlog.000002"), Some(1), Some(&["to the oldest binlog"]));
        check("PURGED", None, Some(5), Some(&["no place"]));
    }
}
