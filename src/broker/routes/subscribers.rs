//! What one Topic Filter leads to: ordinary Subscriptions, Shared Subscriptions, linked clusters. Most filters
//! have a single subscriber, so that case needs no allocation.

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::broker::routes::LinkId;
use crate::broker::shared::ClientKey;
use crate::broker::shared::SharedGroup;
use crate::broker::shared::Subscription;

/// The ordinary Subscriptions of one filter, at most one per client, in the order of their keys.
pub(super) enum Subscribers<D> {
    None,
    One(Subscription<D>),
    /// Boxed, because the map would make every filter 8 bytes larger.
    #[allow(clippy::box_collection)]
    Many(Box<BTreeMap<ClientKey, Subscription<D>>>),
}

impl<D: Clone> Subscribers<D> {
    /// Adds a Subscription or replaces the client's former one (`[MQTT-3.8.4-3]`); whether there was one.
    pub(super) fn insert(&mut self, subscription: Subscription<D>) -> bool {
        match self {
            Self::None => {
                *self = Self::One(subscription);
                false
            }
            Self::One(one) if one.key == subscription.key => {
                *one = subscription;
                true
            }
            Self::One(one) => {
                let both = [one.clone(), subscription].map(|each| (each.key, each));
                *self = Self::Many(Box::new(BTreeMap::from(both)));
                false
            }
            Self::Many(many) => many.insert(subscription.key, subscription).is_some(),
        }
    }

    /// Takes a client's Subscription out; whether there was one.
    pub(super) fn remove(&mut self, key: ClientKey) -> bool {
        match self {
            Self::One(one) if one.key == key => {
                *self = Self::None;
                true
            }
            Self::None | Self::One(_) => false,
            Self::Many(many) => {
                let existed = many.remove(&key).is_some();
                if many.len() == 1
                    && let Some((_, last)) = many.pop_first()
                {
                    *self = Self::One(last);
                }
                existed
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Subscription<D>> {
        let (one, many) = match self {
            Self::None => (None, None),
            Self::One(one) => (Some(one), None),
            Self::Many(many) => (None, Some(many.values())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}

/// The rare rest: boxed, so that a filter without it is small.
pub(super) struct Rest<D> {
    /// Sorted by name.
    pub(super) groups: Vec<Arc<SharedGroup<D>>>,
    pub(super) links: SmallVec<[LinkId; 2]>,
}

/// Everything behind one Topic Filter.
pub(super) struct FilterRoutes<D> {
    pub(super) subscribers: Subscribers<D>,
    pub(super) rest: Option<Box<Rest<D>>>,
}

impl<D: Clone> FilterRoutes<D> {
    pub(super) fn new() -> Self {
        Self { subscribers: Subscribers::None, rest: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.subscribers.is_empty() && self.rest.is_none()
    }

    pub(super) fn groups(&self) -> &[Arc<SharedGroup<D>>] {
        self.rest.as_ref().map_or(&[], |rest| &rest.groups)
    }

    pub(super) fn links(&self) -> &[LinkId] {
        self.rest.as_ref().map_or(&[], |rest| &rest.links)
    }

    fn rest_mut(&mut self) -> &mut Rest<D> {
        self.rest.get_or_insert_with(|| Box::new(Rest { groups: Vec::new(), links: SmallVec::new() }))
    }

    fn drop_empty_rest(&mut self) {
        if self.rest.as_ref().is_some_and(|rest| rest.groups.is_empty() && rest.links.is_empty()) {
            self.rest = None;
        }
    }

    /// Adds or replaces a member of a group: whether it was one, and whether the group is new.
    pub(super) fn join(&mut self, name: &str, filter: &str, member: Subscription<D>) -> (bool, bool) {
        let groups = &mut self.rest_mut().groups;
        match groups.binary_search_by(|group| (**group.name()).cmp(name)) {
            Ok(at) => (groups[at].join(member), false),
            Err(at) => {
                let group = SharedGroup::new(name, filter);
                group.join(member);
                groups.insert(at, Arc::new(group));
                (false, true)
            }
        }
    }

    /// Takes a member out of a group: whether it was one, and whether the group is gone with it.
    pub(super) fn leave(&mut self, name: &str, key: ClientKey) -> (bool, bool) {
        let Some(rest) = &mut self.rest else { return (false, false) };
        let Ok(at) = rest.groups.binary_search_by(|group| (**group.name()).cmp(name)) else {
            return (false, false);
        };
        let existed = rest.groups[at].leave(key);
        let last = existed && rest.groups[at].is_empty();
        if last {
            rest.groups.remove(at);
            self.drop_empty_rest();
        }
        (existed, last)
    }

    /// Whether the link is new here.
    pub(super) fn add_link(&mut self, link: LinkId) -> bool {
        let links = &mut self.rest_mut().links;
        let new = !links.contains(&link);
        if new {
            links.push(link);
        }
        new
    }

    pub(super) fn remove_link(&mut self, link: LinkId) {
        if let Some(rest) = &mut self.rest {
            rest.links.retain(|other| *other != link);
        }
        self.drop_empty_rest();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A filter with one subscriber must stay within `performance.md` 5.4: 200 bytes with its nodes.
    #[test]
    fn a_filter_with_one_subscriber_is_32_bytes() {
        assert_eq!(size_of::<Subscription<Arc<u8>>>(), 24);
        assert_eq!(size_of::<FilterRoutes<Arc<u8>>>(), 32);
    }
}
