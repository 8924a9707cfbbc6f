//! Finds the tables of the source, and tells when one appears, changes its shape, or is gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use plumbline_sdk::pattern::matches;
use plumbline_sdk::{Batch, Column, Event, Plugin, Position, Result, Source, TableId, TableSchema};
use tokio::sync::Notify;

use crate::columns::column_type;
use crate::config::{DiscoveryConfig, MysqlConfig};
use crate::connect::{connect, error};

/// A table of the source, and the rule that excludes it, if any.
#[derive(Debug, Clone)]
pub struct DiscoveredTable {
    /// Its shape.
    pub schema: TableSchema,
    /// The name of the rule and what it says; None: the table is watched.
    pub excluded_by: Option<String>,
}

/// Which tables are watched. Shared by discovery, the binlog source and the API.
#[derive(Debug, Default)]
pub struct Watch {
    include: Mutex<Vec<String>>,
    exclude: Vec<String>,
    /// Watched tables as discovery last saw them.
    tables: Mutex<BTreeMap<TableId, Arc<TableSchema>>>,
    /// Wakes discovery at once.
    pub look: Notify,
}

impl Watch {
    /// Rules on top of the built-in ones.
    pub fn new(include: Vec<String>, exclude: Vec<String>) -> Arc<Self> {
        Arc::new(Self { include: Mutex::new(include), exclude, ..Self::default() })
    }
    /// Watches a table although a rule excludes it, and looks at once.
    pub fn include(&self, table: &TableId) {
        self.include.lock().unwrap_or_else(PoisonError::into_inner).push(table.table.to_string());
        self.look.notify_one();
    }
    /// The rule that excludes a table, if any.
    pub fn excluded_by(&self, table: &TableId) -> Option<String> {
        let name = &*table.table;
        if self.include.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|pattern| matches(pattern, name) || matches(pattern, &table.to_string())) {
            return None;
        }
        if let Some(pattern) = self.exclude.iter().find(|pattern| matches(pattern, name) || matches(pattern, &table.to_string())) {
            return Some(format!("setting `exclude`: `{pattern}`"));
        }
        RULES.iter().find(|(_, patterns)| patterns.iter().any(|pattern| matches(pattern, &name.to_lowercase()))).map(|(rule, _)| (*rule).to_owned())
    }
    /// The shape of a watched table as discovery last saw it.
    pub fn schema(&self, table: &TableId) -> Option<Arc<TableSchema>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).get(table).cloned()
    }
    /// The watched tables as discovery last saw them.
    pub(crate) fn known(&self) -> Vec<TableId> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
    fn swap(&self, tables: BTreeMap<TableId, Arc<TableSchema>>) -> BTreeMap<TableId, Arc<TableSchema>> {
        std::mem::replace(&mut *self.tables.lock().unwrap_or_else(PoisonError::into_inner), tables)
    }
}

/// Named rules that exclude tables; a setting `include` overrides them.
const RULES: [(&str, &[&str]); 3] = [
    ("backup", &["*_bak", "*_bkp", "*_backup", "*_backup_*", "*_bak_*", "bak_*", "backup_*", "*_old"]),
    ("temporary", &["tmp_*", "temp_*", "*_tmp", "*_temp", "#sql*"]),
    ("online schema change", &["_*_gho", "_*_ghc", "_*_del", "_*_new", "_*_old"]),
];

const COLUMNS: &str = "SELECT c.TABLE_NAME, c.COLUMN_NAME, c.COLUMN_TYPE, c.IS_NULLABLE, c.EXTRA, c.CHARACTER_SET_NAME \
     FROM information_schema.COLUMNS c JOIN information_schema.TABLES t ON t.TABLE_SCHEMA = c.TABLE_SCHEMA AND t.TABLE_NAME = c.TABLE_NAME \
     WHERE c.TABLE_SCHEMA = ? AND t.TABLE_TYPE = 'BASE TABLE' ORDER BY c.TABLE_NAME, c.ORDINAL_POSITION";
const KEYS: &str = "SELECT TABLE_NAME, INDEX_NAME, COLUMN_NAME, SUB_PART, NULLABLE FROM information_schema.STATISTICS \
     WHERE TABLE_SCHEMA = ? AND NON_UNIQUE = 0 ORDER BY TABLE_NAME, INDEX_NAME <> 'PRIMARY', INDEX_NAME, SEQ_IN_INDEX";

type ColumnRow = (String, String, String, String, String, Option<String>);
type KeyRow = (String, String, Option<String>, Option<u64>, String);

/// The tables of the configured database.
pub async fn tables(conn: &mut Conn, config: &MysqlConfig, watch: &Watch) -> Result<Vec<DiscoveredTable>> {
    let said = |cause| error(config, "the tables could not be read", cause);
    let columns: Vec<ColumnRow> = conn.exec(COLUMNS, (&config.database,)).await.map_err(said)?;
    let keys: Vec<KeyRow> = conn.exec(KEYS, (&config.database,)).await.map_err(said)?;
    let mut tables: BTreeMap<String, Vec<Column>> = BTreeMap::new();
    for (table, name, ty, nullable, extra, charset) in columns {
        let extra = extra.to_ascii_uppercase();
        tables.entry(table).or_default().push(Column {
            name,
            ty: column_type(&ty),
            nullable: nullable == "YES",
            key_ordinal: None,
            generated: extra.contains("VIRTUAL GENERATED") || extra.contains("STORED GENERATED"),
            charset: charset.map(Into::into),
        });
    }
    let mut keys_of: BTreeMap<String, Vec<KeyRow>> = BTreeMap::new();
    for key in keys {
        keys_of.entry(key.0.clone()).or_default().push(key);
    }
    Ok(tables
        .into_iter()
        .map(|(table, mut columns)| {
            mark_key(&mut columns, keys_of.get(&table).map_or(&[][..], Vec::as_slice));
            let schema = TableSchema { id: TableId::new(config.database.as_str(), table), columns };
            let excluded_by = watch.excluded_by(&schema.id);
            DiscoveredTable { schema, excluded_by }
        })
        .collect())
}

/// Marks the primary key, else the first unique key whose columns are whole and not nullable.
fn mark_key(columns: &mut [Column], keys: &[KeyRow]) {
    let mut names: Vec<&str> = Vec::new();
    for (_, index, ..) in keys {
        if !names.contains(&index.as_str()) {
            names.push(index);
        }
    }
    let usable = |index: &str| keys.iter().filter(|key| key.1 == index).all(|(_, _, column, part, nullable)| column.is_some() && part.is_none() && nullable != "YES");
    let Some(chosen) = names.into_iter().find(|index| usable(index)) else { return };
    for (i, (_, _, column, ..)) in keys.iter().filter(|key| key.1 == chosen).enumerate() {
        if let Some(column) = columns.iter_mut().find(|known| Some(&known.name) == column.as_ref()) {
            column.key_ordinal = u32::try_from(i + 1).ok();
        }
    }
}

/// The plugin `mysql-discovery`: a source of news about tables.
pub struct Discovery {
    config: DiscoveryConfig,
    watch: Arc<Watch>,
    conn: Option<Conn>,
    looked: Option<Instant>,
}

impl Discovery {
    /// Discovery that shares what it sees with the binlog source.
    pub fn with_watch(config: DiscoveryConfig, watch: Arc<Watch>) -> Self {
        Self { config, watch, conn: None, looked: None }
    }

    async fn look(&mut self) -> Result<Vec<Event>> {
        let Some(conn) = self.conn.as_mut() else {
            return Err(plumbline_sdk::Error::disconnected("discovery is not connected"));
        };
        let found = tables(conn, &self.config.mysql, &self.watch).await.inspect_err(|_| self.conn = None)?;
        let now: BTreeMap<TableId, Arc<TableSchema>> =
            found.into_iter().filter(|table| table.excluded_by.is_none()).map(|table| (table.schema.id.clone(), Arc::new(table.schema))).collect();
        let before = self.watch.swap(now.clone());
        let mut events = Vec::new();
        for (id, schema) in &now {
            match before.get(id) {
                None => events.push(Event::TableFound(Arc::clone(schema))),
                Some(known) if known != schema => events.push(Event::TableChanged(Arc::clone(schema))),
                Some(_) => {}
            }
        }
        events.extend(before.keys().filter(|id| !now.contains_key(*id)).map(|id| Event::TableGone(id.clone())));
        Ok(events)
    }
}

impl Plugin for Discovery {
    const NAME: &'static str = "mysql-discovery";
    type Config = DiscoveryConfig;
    fn new(config: DiscoveryConfig) -> Result<Self> {
        let watch = Watch::new(config.include.clone(), config.exclude.clone());
        Ok(Self::with_watch(config, watch))
    }
}

#[async_trait]
impl Source for Discovery {
    async fn connect(&mut self, _from: Option<&Position>) -> Result<()> {
        self.conn = Some(connect(&self.config.mysql).await?);
        Ok(())
    }

    async fn next(&mut self, wait: Duration) -> Result<Option<Batch>> {
        if let Some(looked) = self.looked {
            let left = self.config.interval.saturating_sub(looked.elapsed());
            let asked = tokio::time::timeout(wait.min(left), self.watch.look.notified()).await.is_ok();
            if !asked && wait < left {
                return Ok(Some(Batch::default()));
            }
        }
        let events = self.look().await?;
        self.looked = Some(Instant::now());
        Ok(Some(Batch::news(events)))
    }

    async fn commit(&mut self, _upto: &Position) -> Result<()> {
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        match self.conn.take() {
            Some(conn) => conn.disconnect().await.map_err(|cause| error(&self.config.mysql, "the connection did not end in good order", cause)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_exclude_by_name_and_settings_override_them() {
        let watch = Watch::new(vec!["orders_old".into()], vec!["log_*".into()]);
        let rule = |name: &str| watch.excluded_by(&TableId::new("shop", name));
        assert_eq!(rule("orders"), None);
        assert_eq!(rule("orders_bak").as_deref(), Some("backup"));
        assert_eq!(rule("orders_old"), None);
        assert_eq!(rule("ORDERS_BACKUP").as_deref(), Some("backup"));
        assert_eq!(rule("_orders_gho").as_deref(), Some("online schema change"));
        assert_eq!(rule("log_2020").as_deref(), Some("setting `exclude`: `log_*`"));
        assert_eq!(rule("catalog"), None);
        assert_eq!(rule("template"), None);
    }
}
