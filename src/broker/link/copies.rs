//! What the driver has done about retained messages of the peer, on threads that may take their time: one page is applied,
//! and copies that nobody wants any more are removed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use tokio::task::JoinHandle;
use tokio::task::spawn_blocking;

use crate::broker::Broker;
use crate::broker::link_retained::Sweep;
use crate::broker::links::Link;
use crate::broker::routes::LocalRoute;
use crate::link::extension::Capabilities;
use crate::link::retained::Applied;
use crate::link::retained::Page;
use crate::net::clock;

/// Filters that nobody subscribes to any more and of which the copies are not removed yet; with more of them all copies
/// are looked through.
const SWEEPS_MAX: usize = 1_024;

/// See the module.
#[derive(Default)]
pub(super) struct Upkeep {
    /// Who retains.
    broker: Option<Arc<Broker>>,
    /// A page, and up to where it is.
    page: Option<(JoinHandle<Applied>, Option<Box<str>>)>,
    waiting: Vec<Sweep>,
    sweeping: Option<JoinHandle<()>>,
}

impl Upkeep {
    /// Of this broker. Without one nothing is retained.
    pub(super) fn of(broker: Option<Arc<Broker>>) -> Self {
        Self { broker, ..Self::default() }
    }

    /// The peer has accepted us, and can do this: copies go of which a subscription went while we were not looking.
    pub(super) fn accepted(&mut self, link: &Link, capabilities: Capabilities) {
        let Some(broker) = &self.broker else { return };
        if broker.retained.copies(link.id) > 0 {
            let is_told = capabilities.has(Capabilities::RETAINED);
            self.waiting = vec![if is_told { Sweep::Unwanted } else { Sweep::Everything }];
        }
    }

    /// Nobody here subscribes to this any more.
    pub(super) fn gone(&mut self, link: &Link, route: &LocalRoute) {
        if !link.settings.retained || route.share.is_some() {
            return;
        }
        for filter in link.topics.intersections(&route.filter) {
            match self.waiting.first() {
                Some(Sweep::Unwanted | Sweep::Everything) => return,
                _ if self.waiting.len() >= SWEEPS_MAX => self.waiting = vec![Sweep::Unwanted],
                _ => self.waiting.push(Sweep::Under(filter)),
            }
        }
    }

    /// Has a page applied.
    pub(super) fn apply(&mut self, link: &Arc<Link>, page: Page) {
        let Some(broker) = self.broker.clone() else { return };
        let (link, up_to) = (Arc::clone(link), page.up_to.clone());
        let asked = link.incoming.copies.lock().asked();
        let applying = spawn_blocking(move || broker.apply_page(&link, &page, asked, clock::now()));
        self.page = Some((applying, up_to));
    }

    /// The connection is gone. A page that is being applied is void.
    pub(super) fn forget_page(&mut self, link: &Link) {
        if self.page.take().is_some() {
            link.incoming.copies.lock().ask();
            link.incoming.copies.lock().rest();
        }
    }

    /// The page that was applied: up to where it is, and what became of it.
    pub(super) fn poll_page(
        &mut self,
        cx: &mut Context<'_>,
        link: &Link,
    ) -> Poll<(Option<Box<str>>, Applied)> {
        let Some((applying, _)) = &mut self.page else { return Poll::Pending };
        let Poll::Ready(applied) = Pin::new(applying).poll(cx) else { return Poll::Pending };
        let applied = applied.unwrap_or_else(|error| {
            tracing::error!(peer = link.peer(), "a page of retained messages was not applied: {error}");
            Applied::Unsure
        });
        Poll::Ready((self.page.take().and_then(|(_, up_to)| up_to), applied))
    }

    /// Begins to remove what waits, if nothing is being removed.
    pub(super) fn poll_sweep(&mut self, cx: &mut Context<'_>, link: &Arc<Link>) {
        if let Some(sweeping) = &mut self.sweeping {
            let Poll::Ready(ended) = Pin::new(sweeping).poll(cx) else { return };
            self.sweeping = None;
            if let Err(error) = ended {
                tracing::error!(peer = link.peer(), "copies of retained messages were not removed: {error}");
            }
        }
        let Some(broker) = self.broker.clone().filter(|_| !self.waiting.is_empty()) else { return };
        let (link, sweeps) = (Arc::clone(link), std::mem::take(&mut self.waiting));
        let mut sweeping = spawn_blocking(move || sweeps.iter().for_each(|sweep| broker.sweep(&link, sweep)));
        // So that the driver is woken when it has ended; it hardly has by now.
        if Pin::new(&mut sweeping).poll(cx).is_pending() {
            self.sweeping = Some(sweeping);
        }
    }
}
