//! A session whose process ends now and then: what it noted is enough to go on from.

use std::collections::BTreeMap;

use super::*;
use crate::session::image;
use crate::session::message::Message;
use crate::session::restore::Progress;
use crate::session::restore::Remains;

const SESSION: u64 = 7;

/// What the driver has stored, as it stores it.
#[derive(Default)]
struct Disk {
    owed: BTreeMap<u64, (Vec<u8>, Option<Vec<u8>>)>,
    progress: BTreeMap<u64, PacketId>,
    unreleased: BTreeSet<PacketId>,
}

impl Disk {
    fn store(&mut self, session: &mut Session, now: Now) {
        for change in session.take_changes() {
            match change {
                Change::Owed(owed, sent) => {
                    let mut value = Vec::new();
                    image::put_owed(&mut value, SESSION, &owed, sent, now);
                    let body = image::message_parts(&owed.message.view(), &mut Vec::new(), now).concat();
                    assert!(self.owed.insert(owed.number, (value, Some(body))).is_none());
                }
                Change::Sent { number, id } => assert!(self.progress.insert(number, id).is_none()),
                Change::Received { number, id } => {
                    let mut value = Vec::new();
                    image::put_received(&mut value, SESSION, id);
                    assert!(self.owed.insert(number, (value, None)).is_some());
                }
                Change::Over { number, noted } => {
                    assert!(self.owed.remove(&number).is_some(), "{number} was not owed");
                    assert!(
                        self.progress.remove(&number).is_none() || noted,
                        "{number} leaves something behind"
                    );
                }
                Change::Taken(id) => assert!(self.unreleased.insert(id)),
                Change::Freed(id) => assert!(self.unreleased.remove(&id)),
            }
        }
    }

    fn load(&self, bounds: &Arc<Bounds>, now: Now) -> Session {
        let one = |(number, (value, body)): (&u64, &(Vec<u8>, Option<Vec<u8>>))| {
            let body_bytes = body.as_ref().map_or(0, Vec::len) as u32;
            let (session, owed, progress) = image::owed(*number, value, (*number, body_bytes), now).unwrap();
            assert_eq!(session, SESSION);
            let progress = match (progress, self.progress.get(number)) {
                (Progress::Waiting, Some(id)) => Progress::Sent(*id),
                (progress, _) => progress,
            };
            (owed, progress)
        };
        let owed = self.owed.iter().map(one).collect();
        let unreleased = self.unreleased.iter().copied().collect();
        let remains = Remains { expiry_seconds: 100, owed, unreleased, ..Remains::default() };
        Session::restore(Arc::clone(bounds), remains, now)
    }

    fn fetch(&self, session: &mut Session, now: Now) {
        for (number, body) in session.wanted(3) {
            let message = self.owed[&body].1.as_ref().and_then(|bytes| image::message(bytes, now));
            assert!(message.is_some() && session.supply(number, message));
        }
    }
}

fn bounds(limits: QueueLimits) -> Arc<Bounds> {
    let numbers = Some(Arc::new(AtomicU64::new(1)));
    Arc::new(Bounds { queue: limits, store_qos0: true, numbers })
}

/// A world whose session is kept, and its disk.
fn world(limits: QueueLimits) -> (World, Disk, Arc<Bounds>) {
    let bounds = bounds(limits);
    let mut world =
        World { session: Session::new(Arc::clone(&bounds)), kept: true, ..World::new(limits, true) };
    world.connect(Version::V5, 3, u32::MAX);
    (world, Disk::default(), bounds)
}

#[derive(Debug, Clone)]
enum Turn {
    Step(Step),
    PowerCut,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![12 => step(Just(0)).prop_map(Turn::Step), 1 => Just(Turn::PowerCut)];
    prop::collection::vec(turn, 1..150)
}

fn live(world: &mut World, disk: &mut Disk, bounds: &Arc<Bounds>, turns: Vec<Turn>) {
    for turn in turns {
        match turn {
            Turn::Step(step) => {
                disk.fetch(&mut world.session, world.now);
                run(world, vec![step]);
                disk.store(&mut world.session, world.now);
            }
            Turn::PowerCut => {
                world.disconnect();
                world.now = world.now.plus_ms(1);
                world.session = disk.load(bounds, world.now);
            }
        }
    }
}

fn settle(world: &mut World, disk: &mut Disk) {
    world.connect(Version::V5, 10, u32::MAX);
    for round in 0.. {
        assert!(round < 100_000, "the session is stuck");
        disk.fetch(&mut world.session, world.now);
        world.drive();
        world.client(usize::MAX);
        world.session(usize::MAX);
        disk.store(&mut world.session, world.now);
        world.check();
        if world.session.queued() + world.session.in_flight() == 0 {
            return;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// QoS 1 and 2 all arrive, QoS 2 once, in order, under their identifiers, however often the process ends.
    #[test]
    fn a_correct_client_gets_everything_across_power_cuts(turns in turns()) {
        let (mut world, mut disk, bounds) = world(LIMITS);
        live(&mut world, &mut disk, &bounds, turns);
        settle(&mut world, &mut disk);
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            prop_assert_eq!(world.seen[qos as usize].len(), world.published[qos as usize] as usize);
        }
        prop_assert!(disk.owed.is_empty() && disk.progress.is_empty(), "nothing is left behind");
    }

    /// A queue of four: what was dropped is not stored either.
    #[test]
    fn what_is_dropped_is_not_kept(turns in turns()) {
        let limits = QueueLimits { messages_max: 4, bytes_max: 1_000, ..LIMITS };
        let (mut world, mut disk, bounds) = world(limits);
        live(&mut world, &mut disk, &bounds, turns);
        prop_assert!(disk.owed.len() <= 4 + world.session.in_flight());
        settle(&mut world, &mut disk);
        prop_assert!(disk.owed.is_empty() && disk.progress.is_empty());
    }
}

#[test]
fn what_is_lost_on_disk_is_not_owed_any_more() {
    let (mut world, mut disk, bounds) = world(LIMITS);
    world.publish(&[
        (QoS::AtLeastOnce, 0),
        (QoS::ExactlyOnce, 0),
        (QoS::AtLeastOnce, 0),
        (QoS::ExactlyOnce, 0),
    ]);
    world.publish(&[(QoS::AtLeastOnce, 0)]);
    disk.store(&mut world.session, world.now);
    world.session = disk.load(&bounds, world.now);
    world.connect(Version::V5, 10, u32::MAX);
    let wanted = world.session.wanted(10);
    assert_eq!(wanted.len(), 5);
    for (index, (number, body)) in wanted.into_iter().enumerate() {
        let bytes = disk.owed[&body].1.clone().unwrap();
        let message: Option<Message> = if index % 2 == 0 { None } else { image::message(&bytes, world.now) };
        assert!(world.session.supply(number, message));
    }
    disk.store(&mut world.session, world.now);
    settle(&mut world, &mut disk);
    assert_eq!((world.seen[1].len(), world.seen[2].len()), (0, 2));
    assert!(disk.owed.is_empty() && !world.session.supply(1, None));
}

#[test]
fn a_session_that_ends_leaves_nothing() {
    let (mut world, mut disk, _) = world(LIMITS);
    world.publish(&[
        (QoS::AtLeastOnce, 0),
        (QoS::ExactlyOnce, 0),
        (QoS::ExactlyOnce, 0),
        (QoS::ExactlyOnce, 0),
    ]);
    let limits = InboundLimits { awaiting_max: 9, awaiting_ms: 1_000 };
    for id in [3, 4] {
        world.session.handle_publish(PacketId::new(id).unwrap(), limits, world.now);
    }
    world.session.handle_pubrel(PacketId::new(4).unwrap());
    disk.store(&mut world.session, world.now);
    assert_eq!((disk.owed.len(), disk.unreleased.len()), (4, 1));
    world.disconnect();
    world.session.take_shared();
    world.session.end();
    disk.store(&mut world.session, world.now);
    assert!(disk.owed.is_empty() && disk.unreleased.is_empty());
}
