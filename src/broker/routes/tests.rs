use std::collections::BTreeMap;
use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;
use crate::broker::shared::Eligibility;
use crate::broker::shared::Start;
use crate::mqtt::packet::QoS;
use crate::mqtt::packet::RetainHandling;
use crate::mqtt::packet::SubscriptionOptions;
use crate::mqtt::topic;

type Table = RouteTable<u64>;

fn options(qos: u8, no_local: bool, retain_as_published: bool) -> SubscriptionOptions {
    let qos = QoS::from_u8(qos).unwrap();
    SubscriptionOptions { qos, no_local, retain_as_published, retain_handling: RetainHandling::default() }
}

fn subscription(key: u64, options: SubscriptionOptions, id: u32) -> Subscription<u64> {
    Subscription { key: ClientKey(key), destination: key, options, id: NonZeroU32::new(id) }
}

fn plain(key: u64) -> Subscription<u64> {
    subscription(key, SubscriptionOptions::default(), 0)
}

fn keys(table: &Table, name: &str) -> Vec<u64> {
    table.targets(name).targets.clients.iter().map(|target| target.destination).collect()
}

fn route(filter: &str, share: Option<&str>) -> LocalRoute {
    LocalRoute::new(filter, share)
}

#[test]
fn only_the_first_and_the_last_subscriber_change_a_route() {
    let table = Table::new();
    let first = table.subscribe("a/+", None, plain(1));
    let added = RouteChange { route: route("a/+", None), added: true, sequence: 1 };
    assert_eq!(first, Changed { existed: false, change: Some(added) });
    assert_eq!(table.subscribe("a/+", None, plain(1)), Changed { existed: true, change: None });
    assert_eq!(table.subscribe("a/+", None, plain(2)), Changed { existed: false, change: None });
    let group = table.subscribe("a/+", Some("g"), plain(1)).change.unwrap();
    assert_eq!((group.route, group.added), (route("a/+", Some("g")), true));
    assert_eq!(table.subscribe("a/+", Some("g"), plain(2)).change, None);
    assert_eq!(table.unsubscribe(ClientKey(3), "a/+", None), Changed { existed: false, change: None });
    assert_eq!(table.unsubscribe(ClientKey(1), "a/+", None), Changed { existed: true, change: None });
    let last = table.unsubscribe(ClientKey(2), "a/+", None);
    let removed = RouteChange { route: route("a/+", None), added: false, sequence: 3 };
    assert_eq!(last, Changed { existed: true, change: Some(removed) });
    assert_eq!(table.local_routes(), [route("a/+", Some("g"))]);
    let all = [("a/+", Some("g")), ("a/+", None)];
    assert_eq!(table.remove_all(ClientKey(1), all), []);
    assert_eq!(table.remove_all(ClientKey(2), all).len(), 1);
    assert_eq!(table.counts(), RouteCounts::default());
}

#[test]
fn overlapping_subscriptions_of_one_client_are_one_copy() {
    let table = Table::new();
    table.subscribe("a/#", None, subscription(1, options(0, false, true), 7));
    table.subscribe("a/+", None, subscription(1, options(2, false, false), 0));
    table.subscribe("a/b", None, subscription(1, options(1, false, false), 7));
    let targets = table.targets("a/b").targets;
    assert_eq!(targets.clients.len(), 1);
    let grant = targets.clients[0].grant_for(None).unwrap();
    assert_eq!((grant.qos, grant.retain_as_published), (QoS::ExactlyOnce, true));
    assert_eq!(grant.subscription_ids.as_slice(), [7, 7]);
}

/// `[MQTT-3.8.3-3]`: No Local silences the subscription that has it, not the client's others.
#[test]
fn no_local_concerns_only_its_own_subscription() {
    let table = Table::new();
    table.subscribe("a", None, subscription(1, options(2, true, true), 5));
    let silent = table.targets("a").targets;
    assert_eq!(silent.clients[0].grant_for(Some(ClientKey(1))), None);
    assert!(silent.clients[0].grant_for(Some(ClientKey(2))).is_some());
    table.subscribe("+", None, subscription(1, options(1, false, false), 6));
    let both = table.targets("a").targets;
    let own = both.clients[0].grant_for(Some(ClientKey(1))).unwrap();
    assert_eq!(
        (own.qos, own.retain_as_published, own.subscription_ids.as_slice()),
        (QoS::AtLeastOnce, false, &[6][..])
    );
    let other = both.clients[0].grant_for(Some(ClientKey(2))).unwrap();
    assert_eq!(
        (other.qos, other.retain_as_published, other.subscription_ids.len()),
        (QoS::ExactlyOnce, true, 2)
    );
}

#[test]
fn links_are_told_once_and_make_no_route_change() {
    let table = Table::new();
    let (one, other) = (LinkId(1), LinkId(2));
    assert!(table.add_link_route(one, "a/#"));
    assert!(!table.add_link_route(one, "a/#"));
    assert!(table.add_link_route(one, "a/b"));
    assert!(table.add_link_route(other, "a/+"));
    assert_eq!(table.targets("a/b").targets.links.as_slice(), [one, other]);
    assert_eq!(table.local_routes(), []);
    assert!(table.subscribe("a/b", None, plain(1)).change.is_some(), "the link is not a local subscriber");
    assert!(table.remove_link_route(one, "a/b"));
    assert!(!table.remove_link_route(one, "a/b"));
    assert!(!table.remove_link_route(other, "a/b"));
    table.clear_link(one);
    assert_eq!(table.targets("a/b").targets.links.as_slice(), [other]);
    assert_eq!((table.counts().link_routes, table.counts().filters), (1, 2));
    assert_eq!(table.local_routes(), [route("a/b", None)]);
}

#[test]
fn clearing_a_link_goes_beyond_one_hold_of_the_lock() {
    let table = Table::new();
    for n in 0..FILTERS_PER_LOCK * 3 + 1 {
        table.add_link_route(LinkId(1), &format!("a/{n}"));
    }
    table.clear_link(LinkId(1));
    assert_eq!(table.counts(), RouteCounts::default());
}

#[test]
fn local_routes_are_all_listed_over_many_holds_of_the_lock() {
    let table = Table::new();
    for n in 0..NODES_PER_LOCK + FILTERS_PER_LOCK {
        table.subscribe(&format!("{n}/+/x"), None, plain(1));
        table.add_link_route(LinkId(1), &format!("{n}/y"));
    }
    let mut routes = table.local_routes();
    routes.sort();
    routes.dedup();
    assert_eq!(routes.len(), NODES_PER_LOCK + FILTERS_PER_LOCK);
    assert_eq!(routes.len(), table.counts().local_routes);
}

#[test]
fn a_stamp_ends_with_a_change_that_may_concern_it() {
    let table = Table::new();
    let nobody = table.targets("a/b");
    assert!(nobody.targets.is_empty() && table.is_current(nobody.stamp));
    assert_eq!(table.cache_misses(), 1);
    assert!(Arc::ptr_eq(&nobody.targets, &table.targets("a/b").targets));
    assert_eq!(table.cache_misses(), 1, "that a name leads nowhere is remembered too");
    table.subscribe("a/+", None, plain(1));
    assert!(!table.is_current(nobody.stamp));
    assert_eq!(keys(&table, "a/b"), [1]);
    let found = table.targets("a/b");
    table.subscribe("+/c", None, plain(2));
    assert!(!table.is_current(found.stamp));
    let again = table.targets("a/b");
    table.unsubscribe(ClientKey(1), "a/none", None);
    assert!(table.is_current(again.stamp), "nothing changed");
    table.subscribe("a/b", Some("g"), plain(3));
    assert!(!table.is_current(again.stamp));
}

#[test]
fn a_group_that_is_empty_picks_nobody_for_who_still_holds_it() {
    let table = Table::new();
    table.subscribe("a", Some("g"), plain(1));
    let held = table.targets("a");
    assert_eq!(
        held.targets.shared[0].pick(Start::Turn, |_| Eligibility::Now).map(|member| member.destination),
        Some(1)
    );
    table.unsubscribe(ClientKey(1), "a", Some("g"));
    assert_eq!(held.targets.shared[0].pick(Start::Turn, |_| Eligibility::Now), None);
    assert!(table.targets("a").targets.is_empty());
}

/// Publishers match and fill the cache while subscribers come and go; what is cached afterwards must be right.
#[test]
fn no_stale_targets_outlive_concurrent_changes() {
    let table = Table::new();
    std::thread::scope(|scope| {
        for key in 0..2 {
            let table = &table;
            scope.spawn(move || {
                for round in 0..2_000u64 {
                    let filter = ["a/+", "+/b", "a/b"][round as usize % 3];
                    table.subscribe(filter, None, plain(key));
                    table.unsubscribe(ClientKey(key), filter, None);
                }
                table.subscribe("a/#", None, plain(key));
            });
            scope.spawn(move || (0..4_000).for_each(|_| drop(table.targets("a/b"))));
        }
    });
    assert_eq!(keys(&table, "a/b"), [0, 1]);
}

#[derive(Debug, Clone)]
enum Step {
    Subscribe {
        key: u64,
        filter: &'static str,
        share: Option<&'static str>,
        options: SubscriptionOptions,
        id: u32,
    },
    Unsubscribe {
        key: u64,
        filter: &'static str,
        share: Option<&'static str>,
    },
    RemoveAll {
        key: u64,
    },
    Link {
        link: u32,
        filter: &'static str,
        add: bool,
    },
    ClearLink {
        link: u32,
    },
}

const FILTERS: [&str; 10] = ["a", "a/b", "a/+", "a/#", "#", "+/b", "+", "$s/#", "b/b", "$s/+"];
const NAMES: [&str; 7] = ["a", "a/b", "b/b", "b", "$s/x", "a/b/c", "$s"];

fn step() -> impl Strategy<Value = Step> {
    let filter = || prop::sample::select(FILTERS.to_vec());
    let share = || prop::sample::select(vec![None, None, Some("g"), Some("h")]);
    let options =
        (0u8..3, any::<bool>(), any::<bool>()).prop_map(|(qos, local, retain)| options(qos, local, retain));
    prop_oneof![
        8 => (0u64..5, filter(), share(), options, 0u32..4).prop_map(|(key, filter, share, options, id)| {
            Step::Subscribe { key, filter, share, options, id }
        }),
        5 => (0u64..5, filter(), share()).prop_map(|(key, filter, share)| Step::Unsubscribe { key, filter, share }),
        1 => (0u64..5).prop_map(|key| Step::RemoveAll { key }),
        3 => (0u32..3, filter(), any::<bool>()).prop_map(|(link, filter, add)| Step::Link { link, filter, add }),
        1 => (0u32..3).prop_map(|link| Step::ClearLink { link }),
    ]
}

#[derive(Default)]
struct Model {
    subscriptions: BTreeMap<(&'static str, Option<&'static str>, u64), Subscription<u64>>,
    links: BTreeMap<(u32, &'static str), ()>,
}

impl Model {
    fn members(&self, filter: &str, share: Option<&str>) -> usize {
        self.subscriptions.keys().filter(|(f, s, _)| *f == filter && *s == share).count()
    }

    fn routes(&self) -> Vec<LocalRoute> {
        let mut routes: Vec<_> = self.subscriptions.keys().map(|(f, s, _)| route(f, *s)).collect();
        routes.sort();
        routes.dedup();
        routes
    }

    /// `(QoS, retain as published, ids)` for a message of `publisher` to `key`.
    fn grant(&self, name: &str, key: u64, publisher: u64) -> Option<(QoS, bool, Vec<u32>)> {
        let matching: Vec<_> = self
            .subscriptions
            .iter()
            .filter(|((filter, share, k), _)| *k == key && share.is_none() && topic::matches(filter, name))
            .filter(|(_, s)| key != publisher || !s.options.no_local)
            .map(|(_, s)| s)
            .collect();
        let qos = matching.iter().map(|s| s.options.qos).max()?;
        let mut ids: Vec<u32> = matching.iter().filter_map(|s| s.id).map(NonZeroU32::get).collect();
        ids.sort_unstable();
        Some((qos, matching.iter().any(|s| s.options.retain_as_published), ids))
    }

    fn apply(&mut self, table: &Table, step: Step) {
        match step {
            Step::Subscribe { key, filter, share, options, id } => {
                let before = self.members(filter, share);
                let given = subscription(key, options, id);
                let existed = self.subscriptions.insert((filter, share, key), given.clone()).is_some();
                let changed = table.subscribe(filter, share, given);
                assert_eq!(changed.existed, existed);
                let expected = (before == 0).then(|| (route(filter, share), true));
                assert_eq!(changed.change.map(|change| (change.route, change.added)), expected);
            }
            Step::Unsubscribe { key, filter, share } => {
                let existed = self.subscriptions.remove(&(filter, share, key)).is_some();
                let last = existed && self.members(filter, share) == 0;
                let changed = table.unsubscribe(ClientKey(key), filter, share);
                assert_eq!(changed.existed, existed);
                let expected = last.then(|| (route(filter, share), false));
                assert_eq!(changed.change.map(|change| (change.route, change.added)), expected);
            }
            Step::RemoveAll { key } => {
                let filters: Vec<_> =
                    self.subscriptions.keys().filter(|(.., k)| *k == key).copied().collect();
                let before = self.routes().len();
                self.subscriptions.retain(|(.., k), _| *k != key);
                let changes = table.remove_all(ClientKey(key), filters.iter().map(|(f, s, _)| (*f, *s)));
                assert_eq!(changes.len(), before - self.routes().len());
            }
            Step::Link { link, filter, add: true } => {
                let new = self.links.insert((link, filter), ()).is_none();
                assert_eq!(table.add_link_route(LinkId(link), filter), new);
            }
            Step::Link { link, filter, add: false } => {
                let existed = self.links.remove(&(link, filter)).is_some();
                assert_eq!(table.remove_link_route(LinkId(link), filter), existed);
            }
            Step::ClearLink { link } => {
                self.links.retain(|(l, _), ()| *l != link);
                table.clear_link(LinkId(link));
            }
        }
    }

    fn check(&self, table: &Table) {
        for name in NAMES {
            let routed = table.targets(name);
            assert!(table.is_current(routed.stamp));
            let targets = routed.targets;
            assert!(targets.clients.is_sorted_by_key(|target| target.key));
            for key in 0..5 {
                let target = targets.clients.iter().find(|target| target.key == ClientKey(key));
                for publisher in [key, 9] {
                    let grant =
                        target.and_then(|target| target.grant_for(Some(ClientKey(publisher)))).map(|grant| {
                            let mut ids = grant.subscription_ids.to_vec();
                            ids.sort_unstable();
                            (grant.qos, grant.retain_as_published, ids)
                        });
                    assert_eq!(grant, self.grant(name, key, publisher), "{name} to {key} from {publisher}");
                }
            }
            let routes = self.routes();
            let groups =
                routes.iter().filter(|r| r.share.is_some() && topic::matches(&r.filter, name)).count();
            assert_eq!(targets.shared.len(), groups);
            let mut links: Vec<u32> =
                self.links.keys().filter(|(_, f)| topic::matches(f, name)).map(|(link, _)| *link).collect();
            links.dedup();
            assert_eq!(targets.links.iter().map(|link| link.0).collect::<Vec<_>>(), links);
        }
        let mut routes = table.local_routes();
        routes.sort();
        assert_eq!(routes, self.routes());
        let counts = table.counts();
        assert_eq!(counts.local_routes, routes.len());
        assert_eq!(counts.subscriptions + counts.shared_subscriptions, self.subscriptions.len());
        assert_eq!(counts.link_routes, self.links.len());
    }
}

proptest! {
    /// The cache lives through all the steps, so a missed generation shows as a wrong answer.
    #[test]
    fn it_answers_as_a_list_of_subscriptions_does(steps in prop::collection::vec(step(), 1..60)) {
        let (table, mut model) = (Table::new(), Model::default());
        for step in steps {
            model.apply(&table, step);
            model.check(&table);
        }
    }
}
