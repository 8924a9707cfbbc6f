//! A way between two programs on which things go wrong: late answers, answers that never come, a line that is cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the way does to what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Everything passes.
    Open,
    /// Every piece of an answer comes so much later.
    Late(Duration),
    /// Questions pass, answers do not: whoever asked cannot know whether it was done.
    NoAnswer,
    /// Nothing passes and nobody hangs up, as where a cable is pulled.
    HalfOpen,
    /// Connections are reset, and new ones too.
    Cut,
}

/// A proxy to one address. It ends when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    way: watch::Sender<Way>,
    swallowed: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    /// A way to this port of 127.0.0.1, open.
    ///
    /// # Panics
    /// Where no port is free.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let own = listener.local_addr().expect("its address").port();
        let (way, seen) = watch::channel(Way::Open);
        let swallowed = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&swallowed);
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (seen, counter) = (seen.clone(), Arc::clone(&counter));
                tokio::spawn(join(near, SocketAddr::from(([127, 0, 0, 1], port)), seen, counter));
            }
        });
        Self { port: own, way, swallowed, task }
    }

    /// Changes what the way does, for open connections too. Once it is no longer [`Way::Open`], what was under way is not given back.
    pub fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// Bytes of answers that never came.
    pub fn swallowed(&self) -> u64 {
        self.swallowed.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.way.send_replace(Way::Cut);
        self.task.abort();
    }
}

async fn join(near: TcpStream, to: SocketAddr, mut way: watch::Receiver<Way>, swallowed: Arc<AtomicU64>) {
    if *way.borrow() == Way::Cut {
        return reset(near);
    }
    let Ok(far) = TcpStream::connect(to).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let (from_near, to_near) = near.into_split();
    let (from_far, to_far) = far.into_split();
    let asked = pass(from_near, to_far, way.clone(), None);
    let answered = pass(from_far, to_near, way.clone(), Some(swallowed));
    tokio::select! {
        () = asked => {}
        () = answered => {}
        _ = way.wait_for(|way| *way == Way::Cut) => {}
    }
}

/// Closed without a goodbye.
fn reset(stream: TcpStream) {
    let _ = stream.set_zero_linger();
}

/// Passes one direction on; `swallowed` is given for answers.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, way: watch::Receiver<Way>, swallowed: Option<Arc<AtomicU64>>) {
    let mut piece = vec![0; 64 * 1024];
    loop {
        let Ok(read @ 1..) = from.read(&mut piece).await else { return };
        let now = *way.borrow();
        match (&swallowed, now) {
            (_, Way::HalfOpen) => continue,
            (Some(swallowed), Way::NoAnswer) => {
                swallowed.fetch_add(read as u64, Ordering::Relaxed);
                continue;
            }
            (Some(_), Way::Late(by)) => tokio::time::sleep(by).await,
            _ => {}
        }
        if to.write_all(&piece[..read]).await.is_err() {
            return;
        }
    }
}
