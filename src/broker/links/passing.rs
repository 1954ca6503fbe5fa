//! What goes on from one link to another ([`crate::link::relay`]): what its peer wants, and what its peer sends.

use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use crate::broker::delivery::Reached;
use crate::broker::links::Link;
use crate::broker::links::Links;
use crate::broker::routes;
use crate::broker::routes::LinkId;
use crate::broker::routes::RouteChange;
use crate::link::message::Forwarded;
use crate::link::message::MessageProperties;
use crate::link::message::Outgoing;
use crate::link::relay;
use crate::link::remote_routes::RowChange;
use crate::time::Now;

impl Link {
    /// Whether what this link brings goes on over `other`.
    fn passes_on_to(&self, other: &Self) -> bool {
        self.settings.relay && other.settings.relay && other.settings.enable && self.id != other.id
    }

    /// Whether `other` takes from us, under this id, what our peer wants; and our peer in turn what that one sends.
    fn is_agreed(&self, other: &Self, id: &str) -> bool {
        let reach = self.replication.reach();
        other.replication.takes(id) && reach.iter().any(|name| **name == *other.peer())
    }

    /// The peer has said that it reaches others through us than before.
    pub fn reach_changed(&self) {
        self.reach_changed.store(true, Ordering::Relaxed);
        self.behind.notify_one();
    }

    /// The route of another cluster that a row of this link's peer is.
    fn passed_on(&self, row: &RowChange) -> routes::LocalRoute {
        let id = relay::via(self.peer(), &row.id);
        routes::LocalRoute { filter: row.filter.clone(), share: None, via: Some(id) }
    }
}

impl Links {
    /// Adds what the peers of others want and the peer of this link takes.
    pub(super) fn add_passed_on(&self, link: &Link, routes: &mut Vec<routes::LocalRoute>) {
        if !link.settings.relay || link.replication.reach().is_empty() {
            return;
        }
        for other in self.all().iter().filter(|other| other.passes_on_to(link)) {
            let rows: Vec<RowChange> = other.routes.lock().rows().collect();
            let passed_on = rows.iter().map(|row| other.passed_on(row));
            let is_agreed =
                |route: &routes::LocalRoute| route.via.as_deref().is_some_and(|id| other.is_agreed(link, id));
            routes.extend(passed_on.filter(is_agreed));
        }
    }

    /// Tells the others what the peer of this link wants now, or no longer.
    pub fn pass_on_routes(&self, link: &Link) {
        let mut sequence = self.passed_on.lock();
        let anew = link.reach_changed.swap(false, Ordering::Relaxed);
        let changes = {
            let mut routes = link.routes.lock();
            let mut changes = routes.take_row_changes();
            if anew && link.settings.relay {
                changes.extend(routes.rows());
            }
            changes
        };
        if changes.is_empty() {
            return;
        }
        let others = self.all();
        for row in &changes {
            *sequence += 1;
            let change = RouteChange { route: link.passed_on(row), added: row.added, sequence: *sequence };
            let id = change.route.via.as_deref().unwrap_or_default();
            for other in others.iter().filter(|other| other.id != link.id && other.settings.relay) {
                let is_agreed = link.is_agreed(other, id);
                // What is not agreed upon any more goes, and what is taken back anyway.
                if is_agreed || anew || !row.added {
                    let added = row.added && is_agreed && link.passes_on_to(other);
                    other.replication.handle_route_change(&RouteChange { added, ..change.clone() });
                }
            }
        }
    }

    /// Spools a message of the peer of this link for those of others that want it and take it from us.
    pub fn pass_on(&self, ids: &[LinkId], message: &Forwarded<'_>, from: &Link, now: Now) -> Reached {
        let mut path = message.path.and_then(relay::read).unwrap_or_default();
        path.push(from.peer());
        let reached_by_sender = from.replication.reach();
        let outgoing = outgoing(message);
        let mut reached = Reached::Nobody;
        let others: SmallVec<[_; 4]> = {
            let links = self.links.read();
            links.values().filter(|link| ids.contains(&link.id)).cloned().collect()
        };
        for other in others.iter().filter(|other| from.passes_on_to(other)) {
            let agreed = relay::is_agreed(&path, other.peer(), &other.replication.reach())
                && reached_by_sender.iter().any(|name| **name == *other.peer());
            if agreed && other.forwarder.push_passed_on(&outgoing, &path, now) == Reached::Somebody {
                reached = Reached::Somebody;
            }
        }
        reached
    }
}

/// The same message as it goes on: with the id by which a repetition is told, and without the publisher's address.
fn outgoing<'a>(message: &'a Forwarded<'_>) -> Outgoing<'a> {
    let text = |bytes: Option<&'a [u8]>| bytes.and_then(|bytes| std::str::from_utf8(bytes).ok());
    let given = &message.properties;
    Outgoing {
        id: message.id,
        qos: message.qos,
        from: text(message.from),
        username: text(message.username),
        peer: None,
        retain: message.retain,
        topic: message.topic,
        payload: &message.payload,
        timestamp_ms: message.timestamp_ms,
        properties: MessageProperties {
            payload_format_indicator: given.payload_format_indicator,
            message_expiry_interval: given.message_expiry_interval,
            response_topic: given.response_topic,
            correlation_data: given.correlation_data,
            content_type: given.content_type,
            user_properties: given.user_properties.iter().copied().collect(),
        },
    }
}
