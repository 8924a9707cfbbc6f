//! Blocks of rows from a reader that runs in a task of its own, a few blocks ahead and no more.

use async_trait::async_trait;
use plumbline_sdk::read::BlockSink;
use plumbline_sdk::{Error, KeyRange, ReadPlan, Reader, Result, RowBlock};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// How many filled blocks may wait. With blocks below a MiB or so this bounds memory whatever the table.
const AHEAD: usize = 4;

/// A reader after its read, and how that went.
type Read = (Box<dyn Reader>, Result<()>);

/// A reader that is reading, and the block at hand.
pub struct Feed {
    filled: mpsc::Receiver<RowBlock>,
    empty: mpsc::Sender<RowBlock>,
    task: Option<JoinHandle<Read>>,
    /// The block at hand.
    pub block: RowBlock,
    /// The next row of it.
    pub row: usize,
}

struct ChannelSink {
    filled: mpsc::Sender<RowBlock>,
    empty: mpsc::Receiver<RowBlock>,
}

#[async_trait]
impl BlockSink for ChannelSink {
    async fn put(&mut self, block: RowBlock) -> Result<RowBlock> {
        let width = block.width();
        self.filled.send(block).await.map_err(|_| Error::rejected("the comparison was stopped"))?;
        Ok(match self.empty.try_recv() {
            Ok(mut spare) => {
                spare.clear();
                spare
            }
            Err(_) => RowBlock::new(width),
        })
    }
}

impl Feed {
    /// Starts reading. The reader comes back from [`end`](Self::end).
    pub fn start(mut reader: Box<dyn Reader>, plan: ReadPlan, range: KeyRange, limit: Option<u64>) -> Self {
        let (filled_in, filled) = mpsc::channel(AHEAD);
        let (empty, empty_out) = mpsc::channel(AHEAD);
        let width = plan.columns.len();
        let task = tokio::spawn(async move {
            let mut sink = ChannelSink { filled: filled_in, empty: empty_out };
            let result = reader.rows(&plan, &range, limit, &mut sink).await;
            (reader, result)
        });
        Self { filled, empty, task: Some(task), block: RowBlock::new(width), row: 0 }
    }

    /// Whether the block at hand is used up.
    pub fn is_used_up(&self) -> bool {
        self.row >= self.block.rows()
    }

    /// Takes the next block that has rows; false: there is none. What the reader failed with comes from [`end`](Self::end).
    pub async fn refill(&mut self) -> bool {
        loop {
            let Some(next) = self.filled.recv().await else {
                self.block.clear();
                self.row = 0;
                return false;
            };
            let used = std::mem::replace(&mut self.block, next);
            let _ = self.empty.try_send(used);
            self.row = 0;
            if self.block.rows() > 0 {
                return true;
            }
        }
    }

    /// Stops reading, and gives the reader back with the result of its read.
    pub async fn end(mut self) -> Result<Read> {
        self.filled.close();
        while self.filled.recv().await.is_some() {}
        match self.task.take() {
            Some(task) => task.await.map_err(|cause| Error::disconnected("a reader failed and took its connection with it").caused_by(cause)),
            None => Err(Error::fatal("a reader was ended twice")),
        }
    }
}
