//! Where transactions begin and end, and what of them counts: GTIDs, statements, savepoints, XA.

use std::sync::Arc;

use mysql_async::binlog::events::{Event as WireEvent, GtidEvent};
use plumbline_sdk::{ChangeEvent, Coordinate, Error, Event, Gtid, Op, Result, SchemaChange, SchemaChangeKind, Sid, TableId, TableSchema, TransactionMark, TxnId};

use super::{Assembler, Open, XA_ROWS, changes_in, kind, malformed};
use crate::binlog::bytes::{Bytes, Malformed};
use crate::binlog::ddl::{Statement, classify};

impl Assembler {
    pub(super) fn gtid(&mut self, event: &WireEvent, ty: u8, timestamp: u32) -> Result<()> {
        let gtid = event.read_event::<GtidEvent>().map_err(|cause| Error::rejected("a GTID event cannot be read").caused_by(cause))?;
        let stamp = gtid.immediate_commit_timestamp();
        self.open = Open {
            commit_micros: if stamp > 0 { i64::try_from(stamp).unwrap_or(i64::MAX) } else { i64::from(timestamp) * 1_000_000 },
            first_event: self.batch.events.len(),
            ..Open::default()
        };
        if self.position.gtids.is_none() {
            // Without GTIDs (or where they are switched on only in part, and a position cannot rely on them) a transaction is known by where it ends.
            let end = self.offset.saturating_sub(u64::from(event.header().event_size())) + gtid.tx_length();
            let named = gtid.tx_length() > 0;
            self.open.id = named.then_some(TxnId::At(Coordinate { log: self.position.at.log, offset: end }));
        } else if ty != kind::ANONYMOUS_GTID {
            let tag = gtid.tag().map(|tag| Arc::from(tag.to_string().to_lowercase()));
            let gtid = Gtid { sid: Sid { uuid: gtid.sid(), tag: tag.filter(|tag: &Arc<str>| !tag.is_empty()) }, number: gtid.gno() };
            self.open.id = Some(TxnId::Gtid(gtid.clone()));
            self.open.gtid = Some(gtid);
        }
        self.open.begun = true;
        Ok(())
    }

    /// Ends the transaction: its events become a whole one in the batch.
    pub(super) fn complete(&mut self) {
        self.open.begun = false;
        self.advance();
        let at = Coordinate { log: self.position.at.log, offset: self.offset };
        if let (Some(gtid), Some(gtids)) = (&self.open.gtid, &mut self.position.gtids) {
            gtids.insert(gtid);
            self.moved = true;
        }
        let first = self.open.first_event.min(self.batch.events.len());
        let id = self.open.id.take().unwrap_or(TxnId::At(at));
        if self.resumed.as_ref().is_some_and(|resumed| resumed.txn == id) {
            self.resumed = None;
        }
        if self.batch.events.len() > first || self.open.handed_over > 0 {
            self.batch.transactions.push(TransactionMark {
                id,
                origin: None,
                at,
                commit_micros: self.open.commit_micros,
                events: first..self.batch.events.len(),
                first_change: self.open.handed_over,
                complete: true,
            });
        }
        self.weight += self.open.weight;
        self.open = Open { first_event: self.batch.events.len(), ..Open::default() };
    }

    /// Takes back the changes of the open transaction after its first `keep`.
    pub(super) fn take_back(&mut self, keep: u64) -> Result<()> {
        let Some(keep) = keep.checked_sub(self.open.handed_over) else {
            return Err(Error::fatal(format!(
                "a transaction after `{}:{}` was rolled back after a part of it had been handed over: compare all tables, and begin anew with an empty data folder",
                self.position.file, self.position.at.offset
            )));
        };
        let first = self.open.first_event.min(self.batch.events.len());
        let kept = usize::try_from(keep).unwrap_or(usize::MAX).saturating_add(first).min(self.batch.events.len());
        let dropped = self.batch.events.split_off(kept);
        // Rows that took no effect were records, and are no changes.
        self.batch.control += changes_in(&dropped);
        Ok(())
    }

    pub(super) fn query(&mut self, data: &[u8]) -> Result<()> {
        let (schema, statement) = query_text(data).map_err(malformed)?;
        match classify(&statement, &schema) {
            Statement::Begin => {
                if !self.open.begun {
                    self.open.first_event = self.batch.events.len();
                    self.open.begun = true;
                }
                self.open.explicit = true;
            }
            Statement::Commit => self.complete(),
            Statement::Rollback => {
                self.take_back(0)?;
                self.complete();
            }
            Statement::Savepoint(name) => {
                let changes = self.open.handed_over + self.open_events() as u64;
                self.open.savepoints.push((name, changes));
            }
            Statement::RollbackTo(name) => {
                let at = self.open.savepoints.iter().rposition(|(known, _)| *known == name);
                let Some(at) = at else {
                    return Err(Error::rejected("a transaction goes back to a savepoint that it has not set"));
                };
                self.open.savepoints.truncate(at + 1);
                let keep = self.open.savepoints[at].1;
                self.take_back(keep)?;
            }
            Statement::Release | Statement::XaEnd => {}
            Statement::XaStart(xid) => {
                self.open.explicit = true;
                self.open.xa = Some(xid);
            }
            Statement::XaCommit(xid) => {
                match self.prepared.remove(&xid) {
                    Some((events, prepared_as)) => {
                        self.batch.records += changes_in(&events);
                        self.batch.events.extend(events);
                        if let (Some(gtid), Some(gtids)) = (&prepared_as, &mut self.position.gtids) {
                            gtids.insert(gtid);
                        }
                    }
                    // Without GTIDs those that changed watched tables were refused when they were prepared.
                    None if self.position.gtids.is_none() => {}
                    None => {
                        return Err(Error::fatal(
                            "an XA transaction was committed that had been prepared before the stream began: nobody can say which rows it changed.                              Compare all tables, and begin anew with an empty data folder",
                        ));
                    }
                }
                self.complete();
            }
            Statement::XaRollback(xid) => {
                if let Some((events, gtid)) = self.prepared.remove(&xid) {
                    self.batch.records += changes_in(&events);
                    self.batch.control += changes_in(&events);
                    if let (Some(gtid), Some(gtids)) = (&gtid, &mut self.position.gtids) {
                        gtids.insert(gtid);
                    }
                }
                self.complete();
            }
            Statement::Truncate(table) => {
                if self.watches(&table) {
                    let schema = self.shape(&table);
                    self.batch.control -= 1;
                    self.push_change(ChangeEvent { table: schema, op: Op::Truncate, before: None, after: None });
                }
                self.complete();
            }
            Statement::Schema { changes, begins } => {
                // A statement is one control record, whatever number of tables it names.
                let statement: Arc<str> = statement.into();
                let default_schema: Arc<str> = schema.into();
                for (kind, table, renamed_to) in changes {
                    let watched = self.watches(&table) || renamed_to.as_ref().is_some_and(|new| self.watches(new));
                    if watched {
                        // What the catalog said of them is of the shape before.
                        self.known_keys.remove(&table);
                        if let Some(new) = &renamed_to {
                            self.known_keys.remove(new);
                        }
                        self.batch.events.push(Event::Schema(SchemaChange {
                            table,
                            kind,
                            statement: Arc::clone(&statement),
                            default_schema: Arc::clone(&default_schema),
                            renamed_to,
                        }));
                        self.by_bytes.clear();
                        self.watch.look.notify_one();
                    }
                }
                if !begins {
                    self.complete();
                }
            }
            Statement::DropSchema(name) => {
                let statement: Arc<str> = statement.into();
                let mut gone: Vec<TableId> = self.known_keys.keys().cloned().chain(self.watch.known()).filter(|table| *table.schema == *name && self.watches(table)).collect();
                gone.sort();
                gone.dedup();
                for table in gone {
                    self.known_keys.remove(&table);
                    self.batch.events.push(Event::Schema(SchemaChange {
                        table,
                        kind: SchemaChangeKind::Drop,
                        statement: Arc::clone(&statement),
                        default_schema: name.as_str().into(),
                        renamed_to: None,
                    }));
                }
                self.by_bytes.clear();
                self.watch.look.notify_one();
                self.complete();
            }
            Statement::Rows(tables) => {
                if let Some(table) = tables.iter().find(|table| self.watches(table)) {
                    return Err(unsupported(&format!("`{table}`")));
                }
            }
            Statement::RowsOfAny => {
                if schema == self.database || statement.contains(&self.database) {
                    return Err(unsupported(&format!("a table of `{}`", self.database)));
                }
            }
            Statement::Other => {
                if self.open.begun && !self.open.explicit {
                    // A statement of its own (accounts, views, databases): it ends what its GTID began.
                    self.watch.look.notify_one();
                    self.complete();
                }
            }
        }
        Ok(())
    }

    /// LOAD DATA as a statement.
    pub(super) fn load_query(&self, data: &[u8]) -> Result<()> {
        let (schema, text) = query_text_after(data, 13).map_err(malformed)?;
        match classify(&text, &schema) {
            Statement::Rows(tables) if !tables.iter().any(|table| self.watches(table)) => Ok(()),
            Statement::Rows(tables) => Err(unsupported(&tables.first().map_or_else(String::new, |table| format!("`{table}`")))),
            _ if schema == self.database || text.contains(&self.database) => Err(unsupported(&format!("a table of `{}`", self.database))),
            _ => Ok(()),
        }
    }

    pub(super) fn xa_prepare(&mut self, data: &[u8]) -> Result<()> {
        let one_phase = data.first().is_some_and(|&byte| byte != 0);
        if one_phase {
            self.open.xa = None;
            self.complete();
            return Ok(());
        }
        if self.position.gtids.is_none() && self.open_events() > 0 {
            return Err(Error::fatal("a prepared XA transaction changed watched tables: without GTIDs it could be lost in a restart. Switch GTIDs on"));
        }
        let events = self.batch.events.split_off(self.open.first_event.min(self.batch.events.len()));
        // They are records of the transaction that commits them.
        self.batch.records -= changes_in(&events);
        let xid = self.open.xa.take().unwrap_or_default();
        let held: usize = self.prepared.values().map(|(events, _)| events.len()).sum();
        if held + events.len() > XA_ROWS {
            return Err(Error::fatal(format!("prepared XA transactions hold more than {XA_ROWS} rows")));
        }
        // Not included in the position until it commits, even if it changed nothing here: after a restart the server sends it again, and its
        // end is known as the end of one that was seen.
        self.prepared.insert(xid, (events, self.open.gtid.take()));
        self.open = Open { first_event: self.batch.events.len(), ..Open::default() };
        self.advance();
        Ok(())
    }

    /// The table's shape where no row event tells it.
    fn shape(&self, table: &TableId) -> Arc<TableSchema> {
        self.watch
            .schema(table)
            .or_else(|| self.known_keys.get(table).cloned())
            .unwrap_or_else(|| Arc::new(TableSchema { id: table.clone(), columns: Vec::new() }))
    }
}

fn unsupported(what: &str) -> Error {
    Error::fatal(format!(
        "UNSUPPORTED_STATEMENT: a change of {what} was logged as a statement, not as rows: nobody can say which rows it changed. \
         Set `binlog_format = ROW` for all sessions; then compare all tables, and begin anew with an empty data folder"
    ))
}

/// The default schema and the text of a QUERY event.
fn query_text(data: &[u8]) -> std::result::Result<(String, String), Malformed> {
    query_text_after(data, 0)
}

/// The same of an event that has `more` bytes of its own before the status variables.
fn query_text_after(data: &[u8], more: usize) -> std::result::Result<(String, String), Malformed> {
    let mut bytes = Bytes::new(data);
    bytes.take(8)?;
    let schema_length = usize::from(bytes.byte()?);
    bytes.take(2)?;
    let status = bytes.little(2)? as usize;
    bytes.take(more)?;
    bytes.take(status)?;
    let schema = String::from_utf8_lossy(bytes.take(schema_length)?).into_owned();
    bytes.byte()?;
    Ok((schema, String::from_utf8_lossy(bytes.rest()).into_owned()))
}
