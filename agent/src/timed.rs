//! Readers whose calls are measured, at the host's side.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use plumbline_sdk::read::BlockSink;
use plumbline_sdk::{KeyRange, ReadPlan, Reader, Result, RowBlock, SideTable, TableId, View};

use crate::checks::Readers;
use crate::metrics::Metrics;

/// Readers of both sides whose calls are measured.
pub fn timed(readers: Readers, metrics: Arc<Metrics>) -> Readers {
    Arc::new(move || {
        let (source, target) = readers()?;
        let timed = |inner, system| Box::new(Timed { inner, system, metrics: Arc::clone(&metrics) });
        Ok((timed(source, "mysql"), timed(target, "postgresql")))
    })
}

struct Timed {
    inner: Box<dyn Reader>,
    system: &'static str,
    metrics: Arc<Metrics>,
}

impl Timed {
    fn took<T>(&self, operation: &'static str, started: Instant, result: T) -> T {
        self.metrics.db_operation(self.system, operation, started.elapsed());
        result
    }
}

#[async_trait]
impl Reader for Timed {
    async fn connect(&mut self) -> Result<()> {
        let started = Instant::now();
        let result = self.inner.connect().await;
        self.took("connect", started, result)
    }
    async fn tables(&mut self) -> Result<Vec<SideTable>> {
        let started = Instant::now();
        let result = self.inner.tables().await;
        self.took("tables", started, result)
    }
    async fn begin(&mut self) -> Result<View> {
        let started = Instant::now();
        let result = self.inner.begin().await;
        self.took("begin", started, result)
    }
    async fn end(&mut self) -> Result<()> {
        let started = Instant::now();
        let result = self.inner.end().await;
        self.took("end", started, result)
    }
    async fn count(&mut self, table: &TableId) -> Result<u64> {
        let started = Instant::now();
        let result = self.inner.count(table).await;
        self.took("count", started, result)
    }
    async fn bound(&mut self, plan: &ReadPlan, after: Option<&[String]>, rows: u64) -> Result<Option<Vec<String>>> {
        let started = Instant::now();
        let result = self.inner.bound(plan, after, rows).await;
        self.took("bound", started, result)
    }
    async fn rows(&mut self, plan: &ReadPlan, range: &KeyRange, limit: Option<u64>, out: &mut dyn BlockSink) -> Result<()> {
        let started = Instant::now();
        let result = self.inner.rows(plan, range, limit, out).await;
        self.took("rows", started, result)
    }
    async fn rows_by_key(&mut self, plan: &ReadPlan, keys: &RowBlock) -> Result<RowBlock> {
        let started = Instant::now();
        let result = self.inner.rows_by_key(plan, keys).await;
        self.took("rows_by_key", started, result)
    }
    async fn latest(&mut self, table: &TableId, limit: u32) -> Result<Vec<Vec<(String, Option<String>)>>> {
        let started = Instant::now();
        let result = self.inner.latest(table, limit).await;
        self.took("latest", started, result)
    }
}
