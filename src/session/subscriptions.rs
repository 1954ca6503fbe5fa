//! The subscriptions of one session by filter. Most clients have a few: these lie side by side, which takes less memory
//! than a hash table and less time than hashing; many are in one.

use std::collections::HashMap;

use rapidhash::quality::RandomState;

use crate::session::Subscription;

/// So many are looked through one by one.
const FEW: usize = 8;

#[derive(Debug)]
enum Held {
    Few(Vec<(Box<str>, Subscription)>),
    #[expect(clippy::box_collection, reason = "the map would make every session larger")]
    Many(Box<HashMap<Box<str>, Subscription, RandomState>>),
}

/// Subscriptions by filter, as the client wrote it.
#[derive(Debug)]
pub struct Subscriptions(Held);

impl Default for Subscriptions {
    fn default() -> Self {
        Self(Held::Few(Vec::new()))
    }
}

impl Subscriptions {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Held::Few(few) => few.len(),
            Held::Many(many) => many.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The subscription of exactly this filter, character by character.
    pub fn get_mut(&mut self, filter: &str) -> Option<&mut Subscription> {
        match &mut self.0 {
            Held::Few(few) => few.iter_mut().find(|(known, _)| **known == *filter).map(|(_, found)| found),
            Held::Many(many) => many.get_mut(filter),
        }
    }

    /// Adds the subscription of a filter that has none.
    pub fn add(&mut self, filter: &str, subscription: Subscription) {
        match &mut self.0 {
            Held::Few(few) if few.len() < FEW => {
                if few.len() == few.capacity() {
                    few.reserve_exact(few.len().max(1));
                }
                few.push((filter.into(), subscription));
            }
            Held::Few(few) => {
                let mut many: Box<HashMap<_, _, _>> = Box::default();
                many.extend(few.drain(..));
                many.insert(filter.into(), subscription);
                self.0 = Held::Many(many);
            }
            Held::Many(many) => {
                many.insert(filter.into(), subscription);
            }
        }
    }

    /// Takes out the subscription of exactly this filter. Whether there was one.
    pub fn remove(&mut self, filter: &str) -> bool {
        match &mut self.0 {
            Held::Few(few) => {
                let found = few.iter().position(|(known, _)| **known == *filter);
                found.map(|at| few.swap_remove(at)).is_some()
            }
            Held::Many(many) => {
                let existed = many.remove(filter).is_some();
                // Half of it, so that one that comes and goes does not move them all each time.
                if many.len() <= FEW / 2 {
                    self.0 = Held::Few(many.drain().collect());
                }
                existed
            }
        }
    }

    /// All of them, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Subscription)> {
        let (few, many) = match &self.0 {
            Held::Few(few) => (few.as_slice(), None),
            Held::Many(many) => (&[][..], Some(many)),
        };
        let few = few.iter().map(|(filter, subscription)| (&**filter, subscription));
        few.chain(many.into_iter().flat_map(|many| many.iter()).map(|(filter, one)| (&**filter, one)))
    }

    /// Takes out all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;
    use crate::mqtt::packet::SubscriptionOptions;

    #[test]
    fn one_subscription_takes_24_bytes_beside_its_filter() {
        assert_eq!(size_of::<(Box<str>, Subscription)>(), 24);
        assert_eq!(size_of::<Subscriptions>(), 24);
    }

    proptest! {
        #[test]
        fn they_are_a_map(steps in prop::collection::vec((0u32..14, 0u32..3), 0..200)) {
            let mut subscriptions = Subscriptions::default();
            let mut model: BTreeMap<String, Subscription> = BTreeMap::new();
            for (n, (filter, what)) in (1u32..).zip(steps) {
                let filter = format!("f/{filter}");
                let subscription = Subscription { options: SubscriptionOptions::default(), id: NonZeroU32::new(n) };
                if what == 0 {
                    prop_assert_eq!(subscriptions.remove(&filter), model.remove(&filter).is_some());
                } else if let Some(known) = subscriptions.get_mut(&filter) {
                    *known = subscription;
                    prop_assert!(model.insert(filter, subscription).is_some());
                } else {
                    subscriptions.add(&filter, subscription);
                    prop_assert!(model.insert(filter, subscription).is_none());
                }
                let all: BTreeMap<String, Subscription> =
                    subscriptions.iter().map(|(filter, one)| (filter.to_owned(), *one)).collect();
                prop_assert_eq!(&all, &model);
                prop_assert_eq!((subscriptions.len(), subscriptions.is_empty()), (model.len(), model.is_empty()));
            }
        }
    }
}
