//! Retained messages over links ([`crate::link::retained`]): a peer is told which of our own it may have, and what it
//! tells is kept as a copy of it for as long as a client here wants it. A copy has no publisher here whose rights could
//! change: it came under the link's `topics`, and goes with them.

use std::collections::HashSet;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::broker::Broker;
use crate::broker::Targets;
use crate::broker::counts::Counts;
use crate::broker::delivery::Source;
use crate::broker::forwarder;
use crate::broker::link_ingress;
use crate::broker::links::Link;
use crate::broker::retained::Inserted;
use crate::broker::retained::Origin;
use crate::broker::routes::LinkId;
use crate::link::compress::COMPRESS_BYTES_MIN;
use crate::link::compress::Deflater;
use crate::link::ingress;
use crate::link::ingress::PageOrder;
use crate::link::message::Forwarded;
use crate::link::message::Outgoing;
use crate::link::name;
use crate::link::payload::page::PageBuilder;
use crate::link::retained::Applied;
use crate::link::retained::Page;
use crate::link::retained::copies;
use crate::link::retained::copies::Missing;
use crate::link::retained::copies::Present;
use crate::link::retained::pages;
use crate::link::retained::pages::Merge;
use crate::link::retained::pages::Named;
use crate::metrics::labels::Direction;
use crate::metrics::labels::DropReason;
use crate::metrics::labels::LinkDropReason;
use crate::mqtt::packet::QoS;
use crate::mqtt::property::PropertiesBuf;
use crate::mqtt::topic;
use crate::net::clock;
use crate::session::frames::Run;
use crate::session::frames::RunFrames;
use crate::session::message::Message;
use crate::session::message::Publication;
use crate::time::Now;

/// A burst that had begun when a page was asked for has handed its messages to the lanes by then.
const SETTLE_MS: u64 = 20;
/// How long a page may wait for the lanes.
const WAIT_MAX_MS: u64 = 2_000;
/// Copies that are looked at in one go.
const LOOK: usize = 256;

/// A message of ours, with its stamp.
struct Own(Message, u64);

impl Named for Own {
    fn topic(&self) -> &str {
        self.0.view().topic
    }
}

/// Copies to be looked through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sweep {
    /// Those that this filter matches: what no client here wants goes.
    Under(Box<str>),
    /// All: what no client here wants goes.
    Unwanted,
    /// All of them go.
    Everything,
}

fn present(origin: Option<Origin>, link: LinkId) -> Present {
    match origin {
        None => Present::Nothing,
        Some(origin) if origin.link == Some(link) => Present::Copy(origin.stamp_ms),
        Some(origin) => Present::Other(origin.stamp_ms),
    }
}

impl Broker {
    /// Answers a request for a page that came at `asked`. The first page waits until the peer has acknowledged what was
    /// published before it was asked for: then it tells nothing that is still to come as a message. `paging` is true until
    /// it is made.
    pub(super) async fn answer_page(
        self: Arc<Self>,
        link: Arc<Link>,
        order: PageOrder,
        paging: Arc<AtomicBool>,
        asked: Now,
    ) {
        let is_time = order.after.is_some() || caught_up(&link, asked).await;
        let topic = order.topic.clone();
        let broker = Arc::clone(&self);
        let made = spawn_blocking(move || broker.page(&link, &order, is_time, asked)).await;
        // Whoever has the answer may ask again.
        paging.store(false, Ordering::Relaxed);
        match made {
            Ok(payload) => self.respond(&topic, &[], &payload, clock::now()),
            Err(error) => tracing::error!("a page of retained messages was not made: {error}"),
        }
    }

    /// The answer. It looks up as many messages as fit into it.
    fn page(&self, link: &Link, order: &PageOrder, is_time: bool, asked: Now) -> Vec<u8> {
        let now = clock::now();
        let PageOrder { actor, incarnation, number, bytes_max, .. } = order;
        let mut page = PageBuilder::new(actor, *incarnation, *number, asked.unix_ms, *bytes_max);
        let after = order.after.as_deref();
        let mut up_to = Some(after.unwrap_or_default().to_owned());
        if is_time {
            let export = link.exported.lock().filters().cloned();
            let filters: Vec<Box<str>> = match &export {
                _ if !link.settings.enable => Vec::new(),
                None => order.filters.clone(),
                Some(export) => {
                    order.filters.iter().flat_map(|filter| export.intersections(filter)).collect()
                }
            };
            let mut look = |filter: &str, from: Bound<&str>, most: usize| {
                let (found, next) = self.retained.from_link(None, Some(filter), from, most, now.mono_ms);
                let told = found.into_iter().map(|(message, stamp_ms)| Own(message, stamp_ms));
                (told.filter(|own| is_told(own.topic())).collect(), next)
            };
            let mut merge = Merge::new(filters.iter().map(AsRef::as_ref), after);
            let too_large;
            (up_to, too_large) =
                pages::fill(&mut merge, &mut look, &mut page, |own| outgoing(link, own, now));
            link.metrics.messages_dropped[(Direction::Out, LinkDropReason::TooLarge)].add(too_large);
        }
        page.finish(up_to.as_deref(), &mut Deflater::default(), COMPRESS_BYTES_MIN)
    }

    /// A message of the peer with RETAIN 1 came live: it is kept if it is newer than what is there and a client here
    /// wants it, and removes what is older if its payload is empty.
    pub(super) fn keep_live(&self, link: &Link, one: &Publication<'_>, stamp_ms: u64, is_wanted: bool) {
        let _burst = self.begin();
        let mut copies = link.incoming.copies.lock();
        copies.note(one.topic, stamp_ms);
        let may = |origin| copies::is_newer(stamp_ms, present(origin, link.id));
        if one.payload.is_empty() {
            self.retained.remove_if(one.topic, |origin| may(Some(origin)));
        } else if is_wanted {
            self.keep_copy(one, Origin { link: Some(link.id), stamp_ms }, |origin, _| may(origin));
        }
    }

    /// Whether it was kept.
    fn keep_copy(
        &self,
        one: &Publication<'_>,
        origin: Origin,
        may: impl FnOnce(Option<Origin>, Option<&Message>) -> bool,
    ) -> bool {
        if !self.limits().server.retain_available {
            return false;
        }
        let kept = if self.load.is_critical() {
            None
        } else {
            self.retained.insert_if(Message::keep(one), None, origin, may).ok()
        };
        if kept.is_none() {
            self.metrics.broker.messages_dropped[DropReason::RetainedFull].inc();
        }
        matches!(kept, Some(Inserted::New | Inserted::Replaced))
    }

    /// Brings the copies up to date with a page of the request `asked`: keeps what is newer, and gives it to who has
    /// subscribed to it unless it comes as a message of its own too; removes what the peer has no more.
    pub(super) fn apply_page(&self, link: &Link, page: &Page, asked: u64, now: Now) -> Applied {
        let mut counts = Counts::default();
        let is_applied =
            page.messages.iter().all(|message| self.apply(link, page, asked, &message, now, &mut counts));
        let is_pressed = counts.tally.pressed;
        counts.report(&self.metrics);
        let is_sure = if is_applied { self.remove_missing(link, page, asked, now) } else { None };
        let mut copies = link.incoming.copies.lock();
        if copies.asked() == asked {
            copies.rest();
        }
        match is_sure {
            None => Applied::Overtaken,
            Some(false) => Applied::Unsure,
            Some(true) if is_pressed => Applied::Pressed,
            Some(true) => Applied::Done,
        }
    }

    /// One message of a page; `false` if the page is void.
    fn apply(
        &self,
        link: &Link,
        page: &Page,
        asked: u64,
        message: &Forwarded<'_>,
        now: Now,
        counts: &mut Counts,
    ) -> bool {
        let was_asked = page.filters.iter().any(|filter| topic::matches(filter, message.topic));
        if !was_asked || !link.topics.covers(message.topic) || name::is_reserved(message.topic) {
            link.metrics.messages_dropped[(Direction::In, LinkDropReason::Filter)].inc();
            return true;
        }
        if link.qos.as_ref().is_some_and(|bounds| message.qos > bounds.most(message.topic)) {
            link.metrics.messages_dropped[(Direction::In, LinkDropReason::Acl)].inc();
            return true;
        }
        let clients = self.routes.targets(message.topic).targets.clients.clone();
        if clients.is_empty() || message.payload.is_empty() || ingress::is_expired(message, now) {
            return true;
        }
        let mut properties = PropertiesBuf::new();
        link_ingress::encode(&message.properties, &mut properties);
        let encoded = properties.as_properties().as_bytes();
        let one = Publication {
            retain: true,
            ..link_ingress::publication(message, &message.payload, encoded, now)
        };
        let stamp_ms = message.timestamp_ms;
        let _burst = self.begin();
        // Locked until it is delivered: nothing that is newer may get there first.
        let copies = link.incoming.copies.lock();
        if !copies.is_current(asked) {
            return false;
        }
        let may = |origin, there: Option<&Message>| {
            let is_same = there.is_some_and(|there| there.view().payload == &*message.payload);
            copies.page(message.topic, stamp_ms, present(origin, link.id), is_same)
        };
        let is_kept = self.keep_copy(&one, Origin { link: Some(link.id), stamp_ms }, may);
        if is_kept && stamp_ms < page.since_ms {
            // Shared Subscriptions are given no retained messages (section 4.8.2).
            let targets = Targets { clients, ..Targets::default() };
            let mut frames = RunFrames::default();
            let publications = [one];
            let mut run = Run::new(&publications, &mut frames, now);
            let source = Source::Link(link.peer());
            self.deliver(&mut run, &targets, source, now, &mut counts.tally, &mut Vec::new());
        }
        true
    }

    /// Removes the copies that are not in the page and should be. Whether that is certain of all; `None` if the page is
    /// void.
    fn remove_missing(&self, link: &Link, page: &Page, asked: u64, now: Now) -> Option<bool> {
        let there: HashSet<&str> = page.messages.iter().map(|message| message.topic).collect();
        let mut is_sure = true;
        for filter in &*page.filters {
            let mut from = Some(
                page.after.as_deref().map_or(Bound::Unbounded, |after| Bound::Excluded(after.to_owned())),
            );
            while let Some(start) = from.take() {
                let start = start.as_ref().map(String::as_str);
                let (some, next) =
                    self.retained.from_link(Some(link.id), Some(filter), start, LOOK, now.mono_ms);
                let is_within = |name: &str| page.up_to.as_deref().is_none_or(|up_to| name <= up_to);
                from = next.filter(|next| is_within(next)).map(Bound::Included);
                for (message, stamp_ms) in some {
                    let name = message.view().topic;
                    if !is_within(name) || there.contains(name) {
                        continue;
                    }
                    let copies = link.incoming.copies.lock();
                    if !copies.is_current(asked) {
                        return None;
                    }
                    let known = Origin { link: Some(link.id), stamp_ms };
                    match copies.missing(name, stamp_ms, page.as_of_ms) {
                        Missing::Gone => drop(self.retained.remove_if(name, |origin| origin == known)),
                        Missing::Newer => {}
                        Missing::Unsure => is_sure = false,
                    }
                }
            }
        }
        Some(is_sure)
    }

    /// Looks through copies from the peer of this link. It may take long.
    pub(super) fn sweep(&self, link: &Link, sweep: &Sweep) {
        let stays = |name: &str| {
            *sweep != Sweep::Everything && link.topics.covers(name) && self.routes.has_subscriber(name)
        };
        let filter = if let Sweep::Under(filter) = sweep { Some(&**filter) } else { None };
        let mut from = Some(String::new());
        while let Some(start) = from.take() {
            // Expired ones too.
            let (some, next) =
                self.retained.from_link(Some(link.id), filter, Bound::Included(&start), LOOK, 0);
            from = next;
            for (message, _) in some {
                let name = message.view().topic;
                // Locked, so that no page brings it back in between for a client that has just come.
                let _copies = link.incoming.copies.lock();
                if !stays(name) {
                    self.retained.remove_if(name, |origin| origin.link == Some(link.id));
                }
            }
        }
    }

    /// Publishes an answer of the link protocol.
    pub(super) fn respond(&self, topic: &str, properties: &[u8], payload: &[u8], now: Now) {
        let reply =
            Publication { topic, properties, payload, qos: QoS::AtLeastOnce, retain: false, expiry: None };
        self.publish_one(&reply, Source::Broker, now);
    }
}

/// Whether the peer has acknowledged what was published before that moment, in time.
async fn caught_up(link: &Link, asked: Now) -> bool {
    loop {
        sleep(Duration::from_millis(SETTLE_MS)).await;
        let now = clock::now();
        let waited_ms = now.mono_ms.saturating_sub(asked.mono_ms);
        if link.oldest_age_ms(now).is_none_or(|age_ms| age_ms + SETTLE_MS < waited_ms) {
            return true;
        }
        if waited_ms >= WAIT_MAX_MS {
            return false;
        }
    }
}

/// Whether a peer hears of it: nothing of the link protocol, and nothing that the broker says of itself.
fn is_told(name: &str) -> bool {
    !name::is_reserved(name) && !name.starts_with("$SYS/")
}

/// The message as it crosses; `None` if it has expired.
fn outgoing<'o>(link: &Link, own: &'o Own, now: Now) -> Option<Outgoing<'o>> {
    let Own(message, stamp_ms) = own;
    let view = message.view();
    let mut properties = forwarder::properties(view.properties);
    if let Some(expiry) = view.expiry {
        // Counted from the stamp.
        let age_seconds = u32::try_from(now.unix_ms.saturating_sub(*stamp_ms) / 1000).unwrap_or(u32::MAX);
        properties.message_expiry_interval = Some(expiry.remaining_seconds(now)?.saturating_add(age_seconds));
    }
    Some(Outgoing {
        // It is told from others by its topic.
        id: [0; 16],
        qos: link.forwarder.bounded(view.topic, view.qos),
        from: None,
        username: None,
        peer: None,
        retain: true,
        topic: view.topic,
        payload: view.payload,
        timestamp_ms: *stamp_ms,
        properties,
    })
}
