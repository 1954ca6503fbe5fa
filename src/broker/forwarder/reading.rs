//! Reads the pages of a lane's spool, one at a time, where nobody waits for the thread.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use tokio::task::JoinHandle;
use tokio::task::spawn_blocking;

use crate::broker::links::Link;
use crate::link::lane::PageRef;
use crate::net::clock;

/// How often a page is read that could not be read, and how long to wait in between. One that is damaged is not read again.
const TRIES_MAX: u32 = 5;
const PAUSE_MS: u64 = 1_000;

type Read = io::Result<Option<Vec<u8>>>;

/// The page that is being read, if there is one.
#[derive(Debug, Default)]
pub(super) struct Reading {
    page: Option<PageRef>,
    task: Option<JoinHandle<Read>>,
    failures: u32,
    /// When it is tried again, in monotonic milliseconds.
    retry_ms: Option<u64>,
}

impl Reading {
    /// A page that was read, with its bytes if it could be.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, link: &Link) -> Option<(PageRef, Option<Vec<u8>>)> {
        if self.retry_ms.is_some_and(|due| clock::now().mono_ms >= due) {
            self.read(link);
        }
        let Poll::Ready(ended) = Pin::new(self.task.as_mut()?).poll(cx) else { return None };
        self.task = None;
        let page = self.page?;
        let bytes = match ended.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.failures += 1;
                let is_lost = error.kind() == io::ErrorKind::InvalidData || self.failures >= TRIES_MAX;
                let (peer, entry) = (link.peer(), page.number);
                tracing::error!(peer, entry, is_lost, %error, "a page of the spool cannot be read");
                if !is_lost {
                    self.retry_ms = Some(clock::now().plus_ms(PAUSE_MS).mono_ms);
                    return None;
                }
                None
            }
        };
        *self = Self::default();
        Some((page, bytes))
    }

    /// Begins to read this page; whether there is one. Then it is to be polled.
    pub(super) fn begin(&mut self, wanted: Option<PageRef>, link: &Link) -> bool {
        if wanted.is_some() {
            self.page = wanted;
            self.read(link);
        }
        wanted.is_some()
    }

    fn read(&mut self, link: &Link) {
        self.retry_ms = None;
        let (Some(page), Some(store)) = (self.page, link.forwarder.store.clone()) else { return };
        self.task = Some(spawn_blocking(move || store.storage().body(page.body)));
    }

    /// When to poll it again, if nothing else does that.
    pub(super) fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }
}
