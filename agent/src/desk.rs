//! The desk: answers what the API asks of the databases, with readers of its own, and passes orders on to who can carry them out.

use std::sync::Arc;

use plumbline_sdk::{Error, ErrorKind, Result, TableId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::agenda::CheckOrder;
use crate::builtin::Finder;
use crate::checks::{Readers, Sides};
use crate::connectors::ConnectorOrder;
use crate::pipeline::Order;
use crate::shared::{AddTableError, AddedTable, Command, Discovered, Latest, Shared};
use crate::state::Partner;

/// Answers the API.
pub struct Desk {
    /// The common ground.
    pub shared: Arc<Shared>,
    /// Makes readers.
    pub readers: Readers,
    /// Finds the source's tables, and is told which to watch besides.
    pub finder: Finder,
    /// What the API asks.
    pub commands: mpsc::Receiver<Command>,
    /// To the checker.
    pub checks: mpsc::Sender<CheckOrder>,
    /// To the connector's care; None: there is none.
    pub connector: Option<mpsc::Sender<ConnectorOrder>>,
    /// To the line.
    pub line: mpsc::Sender<Order>,
    /// True: end.
    pub stop: watch::Receiver<bool>,
}

impl Desk {
    /// Runs until told to stop.
    pub async fn run(mut self) {
        let mut stop = self.stop.clone();
        let mut sides: Option<Sides> = None;
        loop {
            let command = tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                command = self.commands.recv() => match command {
                    Some(command) => command,
                    None => return,
                },
            };
            self.answer(command, &mut sides).await;
        }
    }

    async fn answer(&mut self, command: Command, sides: &mut Option<Sides>) {
        match command {
            Command::Discover { reply } => {
                let _ = reply.send(self.discover(sides).await);
            }
            Command::AddTable { table, override_rule, reply } => {
                let _ = reply.send(self.add(&table, override_rule).await);
            }
            Command::Check { tables, full, reply } => {
                let _ = self.checks.send(CheckOrder::Start(tables, full, reply)).await;
            }
            Command::CancelCheck { id, reply } => {
                let _ = self.checks.send(CheckOrder::Cancel(id, reply)).await;
            }
            Command::Pause { table, paused, reply } => {
                let _ = reply.send(self.pause(&table, paused));
            }
            Command::Latest { table, limit, reply } => {
                let latest = self.latest(&table, limit, sides).await;
                if latest.as_ref().is_err_and(|error| error.kind() == ErrorKind::Disconnected) {
                    *sides = None;
                }
                let _ = reply.send(latest);
            }
            Command::Connector { action, reply } => {
                if let Some(connector) = &self.connector {
                    let _ = connector.send((action, reply)).await;
                } else {
                    let _ = reply.send(Err(Error::rejected("no connector is cared for: `CONNECT_URL` is not set")));
                }
            }
            Command::MigrationLog { limit, table, reply } => {
                let (answer, log) = oneshot::channel();
                let result = match self.line.send(Order::MigrationLog(limit, table, answer)).await {
                    Ok(()) => log.await.unwrap_or_else(|_| Err(Error::disconnected("the agent is stopping"))),
                    Err(_) => Err(Error::disconnected("the line has stopped; `/health` says why")),
                };
                let _ = reply.send(result);
            }
        }
    }

    async fn connected<'a>(&self, sides: &'a mut Option<Sides>) -> Result<&'a mut Sides> {
        if sides.is_none() {
            let (mut source, mut target) = (self.readers)()?;
            source.connect().await?;
            target.connect().await?;
            *sides = Some((source, target));
        }
        sides.as_mut().ok_or_else(|| Error::disconnected("no reader"))
    }

    async fn discover(&mut self, sides: &mut Option<Sides>) -> Result<Discovered> {
        let source = self.finder.tables().await?;
        let (_, target) = self.connected(sides).await?;
        let found = target.tables().await;
        if found.is_err() {
            *sides = None;
        }
        let target = found?
            .into_iter()
            .filter_map(|table| match table {
                plumbline_sdk::SideTable::Target(table) => Some(table.id.clone()),
                plumbline_sdk::SideTable::Source(_) => None,
            })
            .collect();
        Ok(Discovered { source: source.into_iter().map(|(schema, rule)| (schema.id, rule)).collect(), target })
    }

    async fn add(&mut self, name: &str, override_rule: bool) -> std::result::Result<AddedTable, AddTableError> {
        let tables = self.finder.tables().await.map_err(AddTableError::Failed)?;
        let found = tables.into_iter().find(|(schema, _)| *schema.id.table == *name || schema.id.to_string() == name).ok_or(AddTableError::NotFound)?;
        let table = found.0.id;
        match found.1 {
            Some(rule) if !override_rule => Err(AddTableError::Excluded(rule)),
            Some(_) => {
                self.finder.include(&table);
                Ok(AddedTable { table, added: true })
            }
            None => {
                let known = self.shared.picture().state.tables.get(&table).is_some_and(|table| !table.gone && table.schema.is_some());
                if !known {
                    self.finder.look_now();
                }
                Ok(AddedTable { table, added: !known })
            }
        }
    }

    fn pause(&self, table: &TableId, paused: bool) -> Result<()> {
        match self.shared.picture().state.tables.get_mut(table) {
            Some(table) => {
                table.paused = paused;
                Ok(())
            }
            None => Err(Error::rejected(format!("there is no table `{table}`"))),
        }
    }

    async fn latest(&self, table: &TableId, limit: u32, sides: &mut Option<Sides>) -> Result<Latest> {
        let partner = match self.shared.picture().state.tables.get(table) {
            Some(state) => match &state.partner {
                Partner::Table(target) => Some(target.id.clone()),
                _ => None,
            },
            None => return Err(Error::rejected(format!("there is no table `{table}`"))),
        };
        let (source, target) = self.connected(sides).await?;
        let source_rows = source.latest(table, limit).await?;
        let target_rows = match partner {
            Some(partner) => target.latest(&partner, limit).await?,
            None => Vec::new(),
        };
        Ok(Latest { source: source_rows, target: target_rows })
    }
}
