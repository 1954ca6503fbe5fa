//! The tables of `link-protocol.md` 4.4 and 4.5, and a naive model.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::link::compress::Deflater;
use crate::link::compress::Inflater;
use crate::link::payload;
use crate::link::payload::Control;
use crate::link::payload::RouteBatch;

fn at(mono_ms: u64) -> Now {
    Now { mono_ms, unix_ms: 0 }
}

/// Applies (delete, filter, id) items as a peer sends them.
fn update(
    routes: &mut RemoteRoutes,
    now: Now,
    actor: &str,
    incarnation: u64,
    items: &[(bool, &str, &str)],
) -> Result<(), RouteError> {
    let mut batch = RouteBatch::new(actor, incarnation);
    for (delete, topic, id) in items {
        batch.push(&RouteOp { delete: *delete, topic: topic.as_bytes(), id: id.as_bytes() });
    }
    let bytes = batch.finish(&mut Deflater::default(), usize::MAX);
    let mut inflater = Inflater::default();
    let Control::Route(update) = payload::parse_control(inflater.open(&bytes).unwrap()).unwrap() else {
        panic!("a route update")
    };
    routes.update(now, actor, incarnation, update.ops)
}

fn changes(routes: &mut RemoteRoutes) -> Vec<String> {
    let mut changes: Vec<String> = routes
        .drain_changes()
        .map(|change| match change {
            RouteChange::Appeared(filter) => format!("+{filter}"),
            RouteChange::Vanished(filter) => format!("-{filter}"),
        })
        .collect();
    changes.sort();
    changes
}

#[test]
fn the_stored_record_decides_about_an_init() {
    let mut routes = RemoteRoutes::new(RouteLimits::default());
    assert_eq!(routes.actor_init(at(0), "n1", 100), Ok(true));
    update(&mut routes, at(0), "n1", 100, &[(false, "a", "a")]).unwrap();
    assert_eq!(changes(&mut routes), ["+a"]);
    assert_eq!(routes.actor_init(at(1), "n1", 100), Ok(true), "it was cut off before its first heartbeat");
    routes.heartbeat(at(1), "n1", 100).unwrap();
    assert_eq!(routes.actor_init(at(1), "n1", 100), Ok(false));
    assert_eq!(routes.actor_init(at(1), "n1", 99), Err(RouteError::OutdatedIncarnation));
    assert_eq!(changes(&mut routes), [""; 0]);
    assert_eq!(routes.actor_init(at(2), "n1", 101), Ok(true));
    assert_eq!(update(&mut routes, at(2), "n1", 100, &[(false, "a", "a")]), Err(RouteError::UnknownActor));
    assert!(!routes.is_settled());
    routes.heartbeat(at(3), "n1", 101).unwrap();
    routes.collect(at(2 + SETTLE_MS));
    assert_eq!(changes(&mut routes), ["-a"]);
    assert_eq!((routes.len(), routes.bytes(), routes.is_settled()), (0, 0, true));
}

/// An actor with these routes.
fn begin(routes: &mut RemoteRoutes, now: u64, actor: &str, incarnation: u64, filters: &[&str]) {
    assert_eq!(routes.actor_init(at(now), actor, incarnation), Ok(true));
    let items: Vec<(bool, &str, &str)> = filters.iter().map(|filter| (false, *filter, *filter)).collect();
    update(routes, at(now), actor, incarnation, &items).unwrap();
}

#[test]
fn a_peer_that_is_away_goes_on_wanting_what_it_wanted() {
    let mut routes = RemoteRoutes::new(RouteLimits::default());
    begin(&mut routes, 0, "n1", 1, &["a", "b"]);
    routes.heartbeat(at(0), "n1", 1).unwrap();
    routes.collect(at(SETTLE_MS));
    assert_eq!((changes(&mut routes), routes.is_settled()), (vec!["+a".into(), "+b".into()], true));
    let hours = 3_600_000;
    routes.collect(at(hours));
    assert_eq!((changes(&mut routes), routes.is_settled()), (vec![], false));
    assert_eq!(routes.poll_timeout(), None, "for as long as it takes");
    // It comes back and wants something else; until it has said so, both count.
    begin(&mut routes, hours, "n1", 1, &["b", "c"]);
    assert_eq!(changes(&mut routes), ["+c"]);
    routes.collect(at(hours + 20_000));
    assert!(!routes.is_settled(), "without a heartbeat it may have more to say");
    update(&mut routes, at(hours + 20_000), "n1", 1, &[(false, "d", "d")]).unwrap();
    routes.heartbeat(at(hours + 20_000), "n1", 1).unwrap();
    routes.collect(at(hours + 20_000 + SETTLE_MS - 1));
    assert_eq!(changes(&mut routes), ["+d"]);
    routes.collect(at(hours + 20_000 + SETTLE_MS));
    assert_eq!((changes(&mut routes), routes.is_settled()), (vec!["-a".into()], true));
    assert_eq!(routes.len(), 3);
}

#[test]
fn a_peer_waits_while_no_node_of_it_has_said_what_it_wants() {
    let mut routes = RemoteRoutes::new(RouteLimits::default());
    let waits = |routes: &RemoteRoutes| routes.standing().must_wait;
    begin(&mut routes, 0, "n1", 1, &["a"]);
    assert!(!waits(&routes), "what it told first may be sent at once");
    routes.heartbeat(at(0), "n1", 1).unwrap();
    routes.collect(at(SETTLE_MS));
    // The sessions of its cluster, which outlive its nodes, say nothing of them.
    begin(&mut routes, 6_000, "ps-routes-v1", 0, &["c"]);
    routes.heartbeat(at(6_000), "ps-routes-v1", 0).unwrap();
    routes.collect(at(6_000 + SETTLE_MS));
    begin(&mut routes, 12_000, "n1", 2, &["a"]);
    routes.heartbeat(at(12_000), "n1", 2).unwrap();
    assert!(waits(&routes));
    routes.collect(at(12_000 + SETTLE_MS));
    assert!(routes.is_settled() && !waits(&routes));
    // One of two nodes falls silent: the other one takes what there is.
    begin(&mut routes, 20_000, "n2", 1, &["d"]);
    for now in (20_000..=70_000).step_by(10_000) {
        assert!(!waits(&routes));
        routes.heartbeat(at(now), "n2", 1).unwrap();
    }
    routes.collect(at(200_000));
    assert!(waits(&routes), "nobody is there");
}

#[test]
fn a_peer_is_confirmed_by_what_its_nodes_begin_with_and_by_their_heartbeats() {
    let mut routes = RemoteRoutes::new(RouteLimits::default());
    let confirmed = |routes: &RemoteRoutes| routes.standing().confirmed_ms;
    assert_eq!(routes.actor_init(at(5), "n1", 1), Ok(true));
    assert_eq!(confirmed(&routes), u64::MAX, "it wants nothing");
    update(&mut routes, at(6), "n1", 1, &[(false, "a", "a")]).unwrap();
    assert_eq!(confirmed(&routes), 5, "a batch may have been on its way for long");
    routes.heartbeat(at(7), "n1", 1).unwrap();
    assert_eq!(confirmed(&routes), 7);
    begin(&mut routes, 8, "ps-routes-v1", 0, &["c"]);
    routes.heartbeat(at(9), "ps-routes-v1", 0).unwrap();
    assert_eq!(confirmed(&routes), 7);
    assert_eq!(routes.actor_init(at(10), "n1", 1), Ok(false));
    assert_eq!(confirmed(&routes), 10);
}

#[test]
fn what_is_stale_stays_however_long_its_actor_takes_to_tell_what_it_wants_now() {
    let mut routes = RemoteRoutes::new(RouteLimits::default());
    begin(&mut routes, 0, "n1", 1, &["a"]);
    begin(&mut routes, 1, "n1", 2, &["b"]);
    for now in (4_000..=120_000).step_by(4_000) {
        routes.heartbeat(at(now), "n1", 2).unwrap();
        update(&mut routes, at(now), "n1", 2, &[(false, &now.to_string(), "x")]).unwrap();
    }
    assert!(!routes.is_settled());
    routes.collect(at(120_000 + SETTLE_MS));
    assert!(routes.is_settled());
}

#[test]
fn a_batch_after_a_heartbeat_prolongs_a_bootstrap() {
    let mut routes = RemoteRoutes::new(RouteLimits::default());
    begin(&mut routes, 0, "n1", 1, &["a"]);
    begin(&mut routes, 1, "n1", 2, &["b"]);
    routes.heartbeat(at(1), "n1", 2).unwrap();
    update(&mut routes, at(900), "n1", 2, &[(false, "c", "c")]).unwrap();
    routes.collect(at(SETTLE_MS + 1));
    assert!(!routes.is_settled());
    routes.collect(at(900 + SETTLE_MS));
    assert!(routes.is_settled());
}

#[test]
fn an_actor_that_the_rest_of_its_peer_has_lost_loses_its_routes() {
    let mut routes = RemoteRoutes::new(RouteLimits::default());
    begin(&mut routes, 0, "n1", 1, &["a"]);
    begin(&mut routes, 0, "n2", 1, &["b"]);
    // All are silent, then one comes back: the other gets as long as an actor has without a heartbeat.
    routes.collect(at(100_000));
    begin(&mut routes, 200_000, "n2", 2, &["b"]);
    for now in [210_000, 220_000] {
        routes.heartbeat(at(now), "n2", 2).unwrap();
    }
    routes.collect(at(200_000 + ACTOR_TTL_MS - 1));
    assert_eq!(changes(&mut routes), ["+a", "+b"]);
    routes.collect(at(200_000 + ACTOR_TTL_MS));
    assert_eq!((changes(&mut routes), routes.is_settled()), (vec!["-a".into()], true));
}

#[test]
fn stale_routes_give_way_to_the_quota_and_to_whoever_has_had_enough() {
    let mut routes = RemoteRoutes::new(RouteLimits { actors: 2, routes: 3, bytes: 100 });
    begin(&mut routes, 0, "n1", 1, &["a", "b"]);
    begin(&mut routes, 1, "n1", 2, &["b", "c"]);
    assert_eq!((routes.len(), routes.is_settled()), (3, false));
    update(&mut routes, at(2), "n1", 2, &[(false, "d", "d")]).unwrap();
    assert_eq!((routes.len(), routes.is_settled()), (3, true));
    begin(&mut routes, 3, "n1", 3, &["b"]);
    routes.drop_stale();
    changes(&mut routes);
    assert_eq!(routes.filters().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn an_actor_that_begins_anew_again_and_again_has_a_lane_each_time() {
    let mut routes = RemoteRoutes::new(RouteLimits::default());
    for incarnation in 1..=200 {
        begin(&mut routes, 0, "n1", incarnation, &[&format!("t{incarnation}"), "same"]);
    }
    assert!(routes.stale.len() < LANES as usize);
    routes.heartbeat(at(0), "n1", 200).unwrap();
    routes.collect(at(SETTLE_MS));
    let mut filters: Vec<&str> = routes.filters().collect();
    filters.sort_unstable();
    assert_eq!((filters, routes.is_settled()), (vec!["same", "t200"], true));
}

#[test]
fn a_route_stays_until_its_last_actor_and_id_are_gone() {
    let mut routes = RemoteRoutes::new(RouteLimits::default());
    for actor in ["n1", "n2"] {
        routes.actor_init(at(0), actor, 1).unwrap();
        update(&mut routes, at(0), actor, 1, &[(false, "a", "a"), (false, "a", "a")]).unwrap();
    }
    update(&mut routes, at(0), "n1", 1, &[(false, "a", "id")]).unwrap();
    assert_eq!(changes(&mut routes), ["+a"]);
    assert_eq!(routes.len(), 2);
    update(&mut routes, at(0), "n1", 1, &[(true, "a", "a"), (true, "a", "a"), (true, "b", "b")]).unwrap();
    update(&mut routes, at(0), "n2", 1, &[(true, "a", "id"), (true, "a", "a")]).unwrap();
    assert_eq!(changes(&mut routes), [""; 0]);
    update(&mut routes, at(0), "n1", 1, &[(true, "a", "id")]).unwrap();
    assert_eq!(changes(&mut routes), ["-a"]);
    assert!(routes.actors().all(|(_, _, rows)| rows == 0));
}

#[test]
fn a_silent_actor_loses_its_routes_only() {
    let mut routes = RemoteRoutes::new(RouteLimits::default());
    for (actor, filter) in [("n1", "a"), ("n2", "b")] {
        routes.actor_init(at(0), actor, 1).unwrap();
        update(&mut routes, at(0), actor, 1, &[(false, filter, filter)]).unwrap();
    }
    assert_eq!(routes.poll_timeout(), Some(ACTOR_TTL_MS));
    routes.heartbeat(at(20_000), "n2", 1).unwrap();
    assert_eq!(routes.heartbeat(at(20_000), "n2", 2), Err(RouteError::UnknownActor));
    routes.collect(at(ACTOR_TTL_MS - 1));
    assert_eq!(changes(&mut routes), ["+a", "+b"]);
    routes.collect(at(ACTOR_TTL_MS));
    assert_eq!(changes(&mut routes), [""; 0]);
    routes.heartbeat(at(40_000), "n2", 1).unwrap();
    routes.collect(at(2 * ACTOR_TTL_MS));
    assert_eq!(changes(&mut routes), ["-a"]);
    assert_eq!(routes.heartbeat(at(ACTOR_TTL_MS), "n1", 1), Err(RouteError::UnknownActor));
    assert_eq!(routes.actor_init(at(2 * ACTOR_TTL_MS), "n1", 1), Ok(true), "it must bootstrap again");
}

#[test]
fn a_peer_gets_no_more_than_it_is_granted() {
    let mut routes = RemoteRoutes::new(RouteLimits { actors: 2, routes: 3, bytes: 100 });
    routes.actor_init(at(0), "n1", 1).unwrap();
    routes.actor_init(at(0), "n2", 1).unwrap();
    assert_eq!(routes.actor_init(at(0), "n3", 1), Err(RouteError::TooManyActors));
    assert_eq!(routes.actor_init(at(0), "n2", 2), Ok(true), "a new life takes the old one's place");
    let three = [(false, "a", "a"), (false, "b", "b"), (false, "c", "c")];
    update(&mut routes, at(0), "n1", 1, &three).unwrap();
    update(&mut routes, at(0), "n1", 1, &three).unwrap();
    let four = [(false, "d", "d")];
    assert_eq!(update(&mut routes, at(0), "n1", 1, &four), Err(RouteError::QuotaExceeded));
    update(&mut routes, at(0), "n1", 1, &[(true, "a", "a")]).unwrap();
    update(&mut routes, at(0), "n1", 1, &four).unwrap();
    update(&mut routes, at(0), "n1", 1, &[(true, "b", "b")]).unwrap();
    let wide = "w".repeat(99);
    assert_eq!(
        update(&mut routes, at(0), "n1", 1, &[(false, "x", "x"), (false, &wide, "w")]),
        Err(RouteError::QuotaExceeded)
    );
    assert_eq!(routes.filters().count(), 2, "all or nothing");
}

#[test]
fn filters_that_match_nothing_we_forward_are_left_out() {
    let mut routes = RemoteRoutes::new(RouteLimits::default());
    routes.actor_init(at(0), "n1", 1).unwrap();
    let items =
        [(false, "a/#/b", "x"), (false, "", "x"), (false, "$LINK/cluster/msg/+", "x"), (false, "a", "a")];
    update(&mut routes, at(0), "n1", 1, &items).unwrap();
    assert_eq!((routes.len(), routes.ignored()), (1, 3));
    routes.clear();
    assert_eq!(changes(&mut routes), ["+a", "-a"]);
}

#[derive(Debug, Clone)]
enum Step {
    Init(u8, u64),
    Update(u8, Vec<(bool, u8, u8)>),
    Heartbeat(u8),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..3_u8, 1..4_u64).prop_map(|(actor, incarnation)| Step::Init(actor, incarnation)),
        6 => (0..3_u8, prop::collection::vec((any::<bool>(), 0..3_u8, 0..12_u8), 1..12))
            .prop_map(|(actor, items)| Step::Update(actor, items)),
        1 => (0..3_u8).prop_map(Step::Heartbeat),
        1 => (1..20_000_u64).prop_map(Step::Pass),
    ]
}

type RowSet = BTreeSet<(String, String)>;

/// An actor of the naive model.
struct Alive {
    incarnation: u64,
    expires: u64,
    rows: RowSet,
    /// Whether it has beaten and when it last told something, while it bootstraps.
    bootstrap: Option<(bool, u64)>,
}

#[derive(Default)]
struct Model {
    alive: BTreeMap<u8, Alive>,
    /// Whose, which, and until when.
    stale: Vec<(u8, RowSet, Option<u64>)>,
}

impl Model {
    fn retire(&mut self, actor: u8, now: u64) {
        let rows = self.alive.remove(&actor).unwrap().rows;
        if !rows.is_empty() {
            self.stale.push((actor, rows, None));
        }
        self.date(now);
    }

    fn date(&mut self, now: u64) {
        for (actor, _, until) in &mut self.stale {
            let telling = self.alive.get(actor).is_some_and(|alive| alive.bootstrap.is_some());
            let kept = self.alive.is_empty() || telling;
            *until = if kept { None } else { until.or(Some(now + ACTOR_TTL_MS)) };
        }
    }

    fn collect(&mut self, now: u64) {
        for (actor, alive) in &mut self.alive {
            if alive.bootstrap.is_some_and(|(beaten, told)| beaten && told + SETTLE_MS <= now) {
                alive.bootstrap = None;
                self.stale.retain(|(name, ..)| name != actor);
            }
        }
        let expired: Vec<u8> =
            self.alive.iter().filter(|(_, alive)| alive.expires <= now).map(|(actor, _)| *actor).collect();
        expired.into_iter().for_each(|actor| self.retire(actor, now));
        self.stale.retain(|(_, _, until)| until.is_none_or(|until| until > now));
    }
}

proptest! {
    #[test]
    fn routes_are_those_of_a_naive_model(steps in prop::collection::vec(step(), 1..60)) {
        let mut routes = RemoteRoutes::new(RouteLimits::default());
        let mut model = Model::default();
        let mut wanted = BTreeSet::new();
        let mut now = 0;
        for step in steps {
            if let Step::Pass(ms) = step {
                now += ms;
            }
            // Updates and inits look first, too.
            model.collect(now);
            match step {
                Step::Init(actor, incarnation) => {
                    let known = model.alive.get(&actor).map(|alive| alive.incarnation);
                    let expected = match known {
                        Some(known) if incarnation < known => Err(RouteError::OutdatedIncarnation),
                        Some(known) if incarnation > known => Ok(true),
                        Some(_) => Ok(model.alive[&actor].bootstrap.is_some_and(|(beaten, _)| !beaten)),
                        None => Ok(true),
                    };
                    prop_assert_eq!(routes.actor_init(at(now), &actor.to_string(), incarnation), expected);
                    if expected == Ok(true) && known != Some(incarnation) {
                        if known.is_some() {
                            model.retire(actor, now);
                        }
                        let bootstrap = Some((false, now));
                        let alive = Alive { incarnation, expires: 0, rows: RowSet::new(), bootstrap };
                        model.alive.insert(actor, alive);
                        model.date(now);
                    }
                    if expected.is_ok() {
                        model.alive.get_mut(&actor).unwrap().expires = now + ACTOR_TTL_MS;
                    }
                }
                Step::Update(actor, items) => {
                    let items: Vec<(bool, String, String)> = items
                        .into_iter()
                        .map(|(delete, topic, id)| (delete, format!("t{topic}"), format!("t{id}")))
                        .collect();
                    let items: Vec<(bool, &str, &str)> =
                        items.iter().map(|(delete, topic, id)| (*delete, &**topic, &**id)).collect();
                    let alive = model.alive.get_mut(&actor);
                    let incarnation = alive.as_ref().map_or(1, |alive| alive.incarnation);
                    let result = update(&mut routes, at(now), &actor.to_string(), incarnation, &items);
                    prop_assert_eq!(result.is_ok(), alive.is_some());
                    if let Some(alive) = alive {
                        for (delete, topic, id) in items {
                            let row = (topic.to_owned(), id.to_owned());
                            if delete { alive.rows.remove(&row); } else { alive.rows.insert(row); }
                        }
                        alive.bootstrap = alive.bootstrap.map(|(beaten, _)| (beaten, now));
                    }
                }
                Step::Heartbeat(actor) => {
                    let alive = model.alive.get_mut(&actor);
                    let incarnation = alive.as_ref().map_or(1, |alive| alive.incarnation);
                    let result = routes.heartbeat(at(now), &actor.to_string(), incarnation);
                    prop_assert_eq!(result.is_ok(), alive.is_some());
                    if let Some(alive) = alive {
                        alive.expires = now + ACTOR_TTL_MS;
                        alive.bootstrap = alive.bootstrap.map(|(_, told)| (true, told));
                    }
                }
                Step::Pass(_) => routes.collect(at(now)),
            }
            for change in routes.drain_changes() {
                match change {
                    RouteChange::Appeared(filter) => prop_assert!(wanted.insert(filter.to_string())),
                    RouteChange::Vanished(filter) => prop_assert!(wanted.remove(&*filter)),
                }
            }
            let alive = model.alive.values().flat_map(|alive| &alive.rows);
            let stale = model.stale.iter().flat_map(|(_, rows, _)| rows);
            let rows: BTreeSet<&(String, String)> = alive.chain(stale).collect();
            let filters: BTreeSet<String> = rows.iter().map(|row| row.0.clone()).collect();
            prop_assert_eq!(&wanted, &filters);
            prop_assert_eq!(routes.len(), rows.len());
            prop_assert_eq!((routes.is_empty(), routes.is_settled()), (rows.is_empty(), model.stale.is_empty()));
            for (name, _, count) in routes.actors() {
                prop_assert_eq!(count, model.alive[&name.parse::<u8>().unwrap()].rows.len());
            }
        }
        routes.clear();
        prop_assert_eq!(routes.bytes(), 0);
    }
}

#[test]
fn an_actor_that_says_when_its_bootstrap_is_over_is_waited_for() {
    let mut routes = RemoteRoutes::new(RouteLimits::default());
    routes.actor_begin(at(0), "n1", 1, true).unwrap();
    update(&mut routes, at(0), "n1", 1, &[(false, "old", "old"), (false, "both", "both")]).unwrap();
    routes.bootstrapped(at(0), "n1", 1).unwrap();
    assert_eq!(routes.bootstrapped(at(0), "n1", 2), Err(RouteError::UnknownActor));
    // A new life. Neither heartbeats nor time end its bootstrap.
    assert_eq!(routes.actor_begin(at(1_000), "n1", 2, true), Ok(true));
    update(&mut routes, at(1_000), "n1", 2, &[(false, "both", "both")]).unwrap();
    for beat in 1..=5 {
        routes.heartbeat(at(1_000 + beat * ACTOR_TTL_MS / 2), "n1", 2).unwrap();
    }
    assert!(routes.wants("old") && routes.standing().must_wait);
    assert_eq!(routes.digest("n1", 2), None);
    let now = at(1_000 + 3 * ACTOR_TTL_MS);
    assert_eq!(routes.actor_begin(now, "n1", 2, true), Ok(true), "it was cut off before the end");
    routes.bootstrapped(now, "n1", 2).unwrap();
    assert!(!routes.wants("old") && routes.wants("both") && !routes.standing().must_wait);
    assert_eq!(routes.actor_begin(now, "n1", 2, true), Ok(false));
}

#[test]
fn a_digest_is_of_the_rows_that_an_actor_has() {
    let mut routes = RemoteRoutes::new(RouteLimits::default());
    for actor in ["n1", "n2"] {
        routes.actor_begin(at(0), actor, 1, true).unwrap();
        routes.bootstrapped(at(0), actor, 1).unwrap();
    }
    let mut expected = RouteDigest::default();
    expected.add(b"a", b"a");
    expected.add(b"a", b"$share/g/a");
    let items = [
        (false, "a", "a"),
        (false, "a", "$share/g/a"),
        (false, "b", "b"),
        (true, "b", "b"),
        (true, "c", "c"),
    ];
    update(&mut routes, at(0), "n1", 1, &items).unwrap();
    update(&mut routes, at(0), "n1", 1, &items[..2]).unwrap();
    assert_eq!(routes.digest("n1", 1), Some(expected));
    assert_eq!(routes.digest("n2", 1), Some(RouteDigest::default()));
    update(&mut routes, at(0), "n2", 1, &items[..1]).unwrap();
    update(&mut routes, at(0), "n1", 1, &[(true, "a", "a")]).unwrap();
    expected.remove(b"a", b"a");
    assert_eq!(routes.digest("n1", 1), Some(expected), "the other one still wants it");
}

#[test]
fn rows_that_come_and_go_are_told_while_somebody_wants_to_know() {
    let mut routes = RemoteRoutes::new(RouteLimits::default());
    let told = |routes: &mut RemoteRoutes| -> Vec<String> {
        let text = |row: RowChange| format!("{}{} {}", if row.added { '+' } else { '-' }, row.filter, row.id);
        let mut told: Vec<String> = routes.take_row_changes().into_iter().map(text).collect();
        told.sort();
        told
    };
    for actor in ["n1", "n2"] {
        routes.actor_init(at(0), actor, 1).unwrap();
    }
    update(&mut routes, at(0), "n1", 1, &[(false, "a", "a")]).unwrap();
    assert_eq!(told(&mut routes), [""; 0]);
    routes.watch_rows(true);
    routes.watch_rows(true);
    assert_eq!(told(&mut routes), ["+a a"], "those that there are, once");
    update(&mut routes, at(0), "n2", 1, &[(false, "a", "a"), (false, "a", "$via/D/a")]).unwrap();
    assert_eq!(told(&mut routes), ["+a $via/D/a"]);
    update(&mut routes, at(0), "n1", 1, &[(true, "a", "a"), (false, "b", "b")]).unwrap();
    assert_eq!(told(&mut routes), ["+b b"], "another actor has the row of a still");
    assert_eq!(routes.rows().count(), 3);
    routes.actor_init(at(1), "n2", 2).unwrap();
    routes.heartbeat(at(1), "n2", 2).unwrap();
    routes.collect(at(1 + SETTLE_MS));
    assert_eq!(told(&mut routes), ["-a $via/D/a", "-a a"], "with a life of its actor");
    routes.watch_rows(false);
    assert_eq!(told(&mut routes), ["-b b"]);
    update(&mut routes, at(2), "n1", 1, &[(true, "b", "b")]).unwrap();
    assert_eq!(told(&mut routes), [""; 0]);
}

#[test]
fn rows_that_are_not_taken_are_left_out_and_counted() {
    let mut routes = RemoteRoutes::new(RouteLimits::default());
    routes.actor_init(at(0), "n1", 1).unwrap();
    let mut batch = RouteBatch::new("n1", 1);
    for topic in [b"a", b"b"] {
        batch.push(&RouteOp { delete: false, topic, id: topic });
    }
    let bytes = batch.finish(&mut Deflater::default(), usize::MAX);
    let mut inflater = Inflater::default();
    let Control::Route(update) = payload::parse_control(inflater.open(&bytes).unwrap()).unwrap() else {
        panic!("a route update")
    };
    routes.update_if(at(0), "n1", 1, update.ops, |op| op.topic != b"a").unwrap();
    assert_eq!((routes.wants("a"), routes.wants("b"), routes.ignored()), (false, true, 1));
}

/// What a process before this one knew holds messages back until the peer has said what it wants now.
#[test]
fn what_was_wanted_before_is_stale_until_the_peer_has_spoken() {
    let mut routes = RemoteRoutes::new(RouteLimits { routes: 2, ..RouteLimits::default() });
    routes.restore(["a", "b", "$LINK/x", "c"]);
    let appeared: Vec<_> = routes.drain_changes().collect();
    assert_eq!(appeared, ["a", "b"].map(|filter| RouteChange::Appeared(filter.into())));
    assert!(routes.standing().must_wait && !routes.is_settled());
    let start = Now { mono_ms: 1_000, unix_ms: 0 };
    assert_eq!(routes.actor_begin(start, "node", 1, true), Ok(true));
    assert!(routes.standing().must_wait);
    routes.bootstrapped(start, "node", 1).unwrap();
    assert!(!routes.standing().must_wait);
    let late = start.plus_ms(ACTOR_TTL_MS + 1);
    routes.heartbeat(start.plus_ms(ACTOR_TTL_MS - 1), "node", 1).unwrap();
    routes.collect(late);
    let mut gone: Vec<_> = routes.drain_changes().collect();
    gone.sort_unstable_by_key(|change| format!("{change:?}"));
    assert_eq!(gone, ["a", "b"].map(|filter| RouteChange::Vanished(filter.into())));
    assert!(routes.is_empty() && routes.is_settled());
    routes.restore([]);
    assert!(!routes.standing().must_wait, "a peer that wanted nothing is not waited for");
}

#[test]
fn what_was_restored_stays_while_somebody_of_the_peer_is_still_telling() {
    let mut routes = RemoteRoutes::default();
    routes.restore(["a"]);
    routes.drain_changes();
    let start = Now { mono_ms: 1_000, unix_ms: 0 };
    routes.actor_begin(start, "node", 1, true).unwrap();
    // Its connection breaks before it has told anything, and it falls silent.
    routes.collect(start.plus_ms(ACTOR_TTL_MS));
    routes.collect(start.plus_ms(10 * ACTOR_TTL_MS));
    assert_eq!((routes.drain_changes().count(), routes.standing().must_wait), (0, true));
    let again = start.plus_ms(11 * ACTOR_TTL_MS);
    routes.actor_begin(again, "node", 2, true).unwrap();
    routes.bootstrapped(again, "node", 2).unwrap();
    routes.heartbeat(again.plus_ms(ACTOR_TTL_MS - 1), "node", 2).unwrap();
    routes.collect(again.plus_ms(ACTOR_TTL_MS));
    assert!(
        routes.drain_changes().eq([RouteChange::Vanished("a".into())]),
        "it was given as long as any other"
    );
}
