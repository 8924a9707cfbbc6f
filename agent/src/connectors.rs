//! The connector that feeds this pipeline's topics: looked at every moment, so that it captures the watched tables and no others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use plumbline_sdk::{Event, Health, HealthState, Result, TableId};
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use crate::shared::Shared;

/// How often the connector is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Cares for one connector of a change-capture platform.
#[async_trait]
pub trait ConnectorCare: Send {
    /// Looks at it and, where this agent `leads` its group, does what it needs, so that it captures these tables. How it is then.
    async fn care(&mut self, tables: &BTreeSet<TableId>, leads: bool) -> Result<Health>;
    /// What people may see of it, as of the last look: `state`, `tasks`, `config` with secrets hidden. None: not looked at yet.
    fn shown(&self) -> Option<Value>;
}

/// Looks at the connector until told to stop, and tells how it is when that changes. Begins when discovery has looked: an agent that does not
/// know its tables yet must not take them out of the connector.
pub async fn care_for(mut connector: Box<dyn ConnectorCare>, shared: Arc<Shared>, news: mpsc::Sender<Vec<Event>>, mut stop: watch::Receiver<bool>) {
    let mut told: Option<Health> = None;
    while tokio::time::timeout(if told.is_none() { Duration::from_millis(200) } else { LOOK }, stop.wait_for(|stop| *stop)).await.is_err() {
        let tables: BTreeSet<TableId> = {
            let picture = shared.picture();
            if !picture.state.discovered {
                continue;
            }
            picture.state.present().filter(|(_, table)| table.schema.is_some()).map(|(id, _)| id.clone()).collect()
        };
        let Some(leads) = shared.leads() else { continue };
        let looked = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            looked = connector.care(&tables, leads) => looked,
        };
        let (state, messages) = looked.map_or_else(|error| (HealthState::Down, vec![error.chain()]), |health| (health.state, health.messages));
        let health = Health { component: "connect".into(), state, messages };
        shared.show_connector(connector.shown());
        if told.as_ref() != Some(&health) {
            let words = health.messages.join("; ");
            match health.state {
                HealthState::Up => tracing::info!("the connector runs"),
                HealthState::Warning => tracing::info!(message = words, "the connector"),
                HealthState::Down => tracing::warn!(message = words, "the connector"),
            }
            told = Some(health.clone());
            if news.send(vec![Event::Health(health)]).await.is_err() {
                break;
            }
        }
    }
}
