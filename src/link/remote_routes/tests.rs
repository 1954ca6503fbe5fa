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
    assert_eq!(routes.actor_init(at(1), "n1", 100), Ok(false));
    assert_eq!(routes.actor_init(at(1), "n1", 99), Err(RouteError::OutdatedIncarnation));
    assert_eq!(changes(&mut routes), [""; 0]);
    assert_eq!(routes.actor_init(at(2), "n1", 101), Ok(true));
    assert_eq!(changes(&mut routes), ["-a"]);
    assert_eq!(update(&mut routes, at(2), "n1", 100, &[(false, "a", "a")]), Err(RouteError::UnknownActor));
    assert_eq!((routes.len(), routes.bytes()), (0, 0));
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
    assert_eq!(changes(&mut routes), ["-a"]);
    assert_eq!(routes.heartbeat(at(ACTOR_TTL_MS), "n1", 1), Err(RouteError::UnknownActor));
    assert_eq!(routes.actor_init(at(ACTOR_TTL_MS), "n1", 1), Ok(true), "it must bootstrap again");
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

/// Per actor: incarnation, expiry, rows.
type Model = BTreeMap<u8, (u64, u64, BTreeSet<(String, String)>)>;

proptest! {
    #[test]
    fn routes_are_those_of_a_naive_model(steps in prop::collection::vec(step(), 1..60)) {
        let mut routes = RemoteRoutes::new(RouteLimits::default());
        let mut model = Model::new();
        let mut wanted = BTreeSet::new();
        let mut now = 0;
        for step in steps {
            if let Step::Pass(ms) = step {
                now += ms;
            }
            model.retain(|_, (_, expires, _)| *expires > now);
            match step {
                Step::Init(actor, incarnation) => {
                    let known = model.get(&actor).map(|record| record.0);
                    let expected = match known {
                        Some(known) if incarnation < known => Err(RouteError::OutdatedIncarnation),
                        Some(known) => Ok(incarnation > known),
                        None => Ok(true),
                    };
                    prop_assert_eq!(routes.actor_init(at(now), &actor.to_string(), incarnation), expected);
                    if expected == Ok(true) {
                        model.insert(actor, (incarnation, 0, BTreeSet::new()));
                    }
                    if expected.is_ok() {
                        model.get_mut(&actor).unwrap().1 = now + ACTOR_TTL_MS;
                    }
                }
                Step::Update(actor, items) => {
                    let items: Vec<(bool, String, String)> = items
                        .into_iter()
                        .map(|(delete, topic, id)| (delete, format!("t{topic}"), format!("t{id}")))
                        .collect();
                    let items: Vec<(bool, &str, &str)> =
                        items.iter().map(|(delete, topic, id)| (*delete, &**topic, &**id)).collect();
                    let record = model.get_mut(&actor);
                    let incarnation = record.as_ref().map_or(1, |record| record.0);
                    let result = update(&mut routes, at(now), &actor.to_string(), incarnation, &items);
                    prop_assert_eq!(result.is_ok(), record.is_some());
                    for (delete, topic, id) in items {
                        let row = (topic.to_owned(), id.to_owned());
                        if let Some((_, _, rows)) = model.get_mut(&actor) {
                            if delete { rows.remove(&row); } else { rows.insert(row); }
                        }
                    }
                }
                Step::Heartbeat(actor) => {
                    let record = model.get_mut(&actor);
                    let incarnation = record.as_ref().map_or(1, |record| record.0);
                    let result = routes.heartbeat(at(now), &actor.to_string(), incarnation);
                    prop_assert_eq!(result.is_ok(), record.is_some());
                    if let Some(record) = record {
                        record.1 = now + ACTOR_TTL_MS;
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
            let rows: BTreeSet<&(String, String)> = model.values().flat_map(|record| &record.2).collect();
            let filters: BTreeSet<String> = rows.iter().map(|row| row.0.clone()).collect();
            prop_assert_eq!(&wanted, &filters);
            prop_assert_eq!(routes.len(), rows.len());
            prop_assert_eq!(routes.is_empty(), rows.is_empty());
            for (name, _, count) in routes.actors() {
                prop_assert_eq!(count, model[&name.parse::<u8>().unwrap()].2.len());
            }
        }
        routes.clear();
        prop_assert_eq!(routes.bytes(), 0);
    }
}
