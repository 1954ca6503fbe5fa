//! Lanes that keep what they have on a disk that is a map: paging, other lives, other lanes.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::link::lane::LaneConfig;
use crate::link::lane::OnFull;
use crate::link::lane::PageRef;
use crate::link::lane::Pushed;
use crate::link::lane::SpoolBudget;
use crate::link::lane::lane_of;
use crate::link::lane::stored::Stored;
use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::QoS;

/// The time of day, when the monotonic clock is at 0.
const WALL_MS: u64 = 1_700_000_000_000;

/// What is kept.
#[derive(Debug, Default)]
struct Disk {
    entries: BTreeMap<u64, (Option<u64>, Vec<u8>)>,
    bodies: BTreeMap<u64, Vec<u8>>,
}

impl Keeper for Disk {
    fn put(&mut self, number: u64, body: Option<(u64, &[u8])>, write: impl FnOnce(&mut Vec<u8>)) {
        let mut value = Vec::new();
        write(&mut value);
        if let Some((body, bytes)) = body {
            assert!(self.bodies.insert(body, bytes.to_vec()).is_none());
        }
        assert!(self.entries.insert(number, (body.map(|(body, _)| body), value)).is_none(), "{number} again");
    }

    fn delete(&mut self, number: u64) {
        let (body, _) = self.entries.remove(&number).expect("what is deleted was put");
        body.into_iter().for_each(|body| drop(self.bodies.remove(&body).unwrap()));
    }
}

impl Disk {
    /// As they are read at the beginning of a life.
    fn read(&self) -> Vec<Stored> {
        let parse = |(number, (body, value)): (&u64, &(Option<u64>, Vec<u8>))| {
            Stored::parse(*number, *body, value).expect("an entry of ours")
        };
        let mut all: Vec<Stored> = self.entries.iter().map(parse).collect();
        all.sort_by_key(|stored| (stored.order, stored.number));
        all
    }
}

fn at(mono_ms: u64) -> Now {
    Now { mono_ms, unix_ms: WALL_MS + mono_ms }
}

/// A link's lanes, and their peer.
struct World {
    disk: Disk,
    numbers: Arc<AtomicU64>,
    config: LaneConfig,
    budget: Arc<SpoolBudget>,
    lanes: Vec<Lane>,
    /// What is in flight, by lane and identifier.
    in_flight: Vec<BTreeMap<PacketId, u64>>,
    /// The last message of each publisher that came on the connection of its lane.
    last: BTreeMap<u32, u64>,
    delivered: BTreeSet<u64>,
    pushed: u64,
    now_ms: u64,
}

impl World {
    fn new(limit: u64, config: LaneConfig) -> Self {
        let budget = SpoolBudget::new(limit);
        let mut world = Self {
            disk: Disk::default(),
            numbers: Arc::new(AtomicU64::new(1)),
            config,
            budget,
            lanes: Vec::new(),
            in_flight: Vec::new(),
            last: BTreeMap::new(),
            delivered: BTreeSet::new(),
            pushed: 0,
            now_ms: 1_000,
        };
        world.lanes = world.make(1);
        world.in_flight = vec![BTreeMap::new()];
        world
    }

    fn make(&self, count: u16) -> Vec<Lane> {
        let lane = |index| {
            let keep = Keep::new("B".into(), index, count, Arc::clone(&self.numbers));
            let keep = Keep { resident_bytes: 20_000, page_bytes: 4_000, ..keep };
            let config = LaneConfig { keep: Some(keep), ..self.config.clone() };
            let mut lane = Lane::new(config, Arc::clone(&self.budget));
            lane.note_group(at(self.now_ms), 0, 0);
            lane
        };
        (0..count).map(lane).collect()
    }

    /// A run of one publisher.
    fn push(&mut self, publisher: u32, lengths: &[usize], qos: QoS) {
        let index = lane_of(publisher, self.lanes.len()).unwrap();
        let lane = &mut self.lanes[index];
        lane.note_group(at(self.now_ms), 0, 0);
        for length in lengths {
            let number = if qos == QoS::AtMostOnce { 0 } else { self.pushed + 1 };
            let body = [&number.to_be_bytes()[..], &publisher.to_be_bytes(), &vec![7; *length]].concat();
            let pushed = lane.push_from(publisher, at(self.now_ms), qos, |out| out.extend_from_slice(&body));
            if number > 0 && pushed == Pushed::Spooled {
                self.pushed = number;
            }
        }
        lane.keep(&mut self.disk);
    }

    fn send(&mut self, index: usize, most: usize) {
        for _ in 0..most {
            let lane = &mut self.lanes[index];
            lane.note_group(at(self.now_ms), 0, 0);
            let Some(sent) = lane.next_to_send(at(self.now_ms)) else { break };
            let Some(id) = sent.packet_id else { continue };
            let (message, dup) = (sent.message(), sent.dup);
            let number = u64::from_be_bytes(message[..8].try_into().unwrap());
            let publisher = u32::from_be_bytes(message[8..12].try_into().unwrap());
            let last = self.last.insert(publisher, number).unwrap_or(0);
            assert!(last < number, "{last} of {publisher}, then {number}");
            assert!(!self.delivered.contains(&number) || dup, "{number} comes again without DUP");
            assert!(self.in_flight[index].insert(id, number).is_none());
        }
        self.keep(index);
    }

    fn ack(&mut self, index: usize, which: usize) {
        let Some(id) = self.in_flight[index].keys().nth(which).copied() else { return };
        let number = self.in_flight[index].remove(&id).unwrap();
        self.lanes[index].handle_ack(id, 0);
        self.delivered.insert(number);
        self.keep(index);
    }

    fn load(&mut self, index: usize, damage: bool) {
        let lane = &mut self.lanes[index];
        let Some(PageRef { number, body, .. }) = lane.wants_page() else { return };
        assert_eq!(lane.wants_page(), None, "one at a time");
        let mut bytes = self.disk.bodies[&body].clone();
        if damage {
            bytes.pop();
        }
        assert_eq!(lane.handle_page(number, Some(&bytes)) > 0, damage);
        self.keep(index);
    }

    fn keep(&mut self, index: usize) {
        let lane = &mut self.lanes[index];
        if lane.has_to_keep().is_some() {
            lane.keep(&mut self.disk);
        }
    }

    fn connect(&mut self, index: usize, window: u16) {
        self.lanes[index].handle_connected(window, None);
        self.forget_connection(index);
    }

    fn disconnect(&mut self, index: usize) {
        self.lanes[index].handle_disconnected();
        self.forget_connection(index);
        self.keep(index);
    }

    fn forget_connection(&mut self, index: usize) {
        // What is in flight may have come, and be repeated.
        self.delivered.extend(std::mem::take(&mut self.in_flight[index]).into_values());
        let count = self.lanes.len();
        self.last.retain(|publisher, _| lane_of(*publisher, count) != Some(index));
    }

    /// The process ends without a word and another one begins.
    fn restart(&mut self) {
        let count = self.lanes.len();
        (0..count).for_each(|index| self.forget_connection(index));
        self.lanes = self.make(count as u16);
        for stored in self.disk.read() {
            let lane = &mut self.lanes[usize::from(stored.lane)];
            assert_eq!((lane.restore(&stored), usize::from(stored.lanes)), (0, count));
            lane.keep(&mut self.disk);
        }
    }

    /// Another configuration, with so many lanes, which took something before they took over.
    fn replace(&mut self, count: u16, publisher: u32, length: usize) {
        let old_count = self.lanes.len();
        (0..old_count).for_each(|index| self.disconnect(index));
        let new = self.make(count);
        let old = std::mem::replace(&mut self.lanes, new);
        self.in_flight = vec![BTreeMap::new(); usize::from(count)];
        for _ in 0..12 {
            self.push(publisher, &[length], QoS::AtLeastOnce);
        }
        let sorted = if old_count == usize::from(count) {
            old
        } else {
            let mut sorted = self.make(count);
            let bodies = self.disk.bodies.clone();
            let disk = &mut self.disk;
            for lane in old {
                let read = |page: PageRef| Some(bodies[&page.body].clone());
                lane.split(&mut sorted, read, |lanes, old| {
                    lanes.iter_mut().chain([old]).for_each(|lane| lane.keep(disk));
                });
            }
            sorted
        };
        for (lane, older) in self.lanes.iter_mut().zip(sorted) {
            lane.take_over(older);
            lane.keep(&mut self.disk);
        }
    }

    fn check(&self) {
        let mut kept = 0;
        for lane in &self.lanes {
            assert_eq!(lane.unaccounted(), 0);
            let state = lane.kept.as_ref().unwrap();
            let live = state.records.len() - state.free.len();
            kept += live + state.pages.len();
            assert_eq!(state.paged, state.pages.iter().map(|page| page.count as usize).sum::<usize>());
            let resend = |entries: &VecDeque<Entry>| entries.iter().filter(|entry| entry.sent).count();
            let paged = state.pages.iter().map(|page| page.sent as usize).sum::<usize>();
            assert_eq!(lane.resend, resend(&lane.queue) + resend(&state.tail) + paged);
            assert!(state.tail_bytes < 4_000 + 10 * 3_100);
        }
        assert_eq!(self.disk.entries.len(), kept, "what is over is not there any more, and all else is");
        let bytes: u64 = self.lanes.iter().map(|lane| lane.bytes() + lane.credit).sum();
        assert_eq!(bytes, self.budget.used());
    }

    /// Everything that is left comes across.
    fn finish(&mut self) {
        for index in 0..self.lanes.len() {
            self.lanes[index].handle_disconnected();
            self.connect(index, 50);
            while self.lanes[index].queued() + self.lanes[index].in_flight() > 0 {
                self.load(index, false);
                self.send(index, 7);
                self.ack(index, 0);
            }
            assert_eq!((self.lanes[index].bytes(), self.lanes[index].uncertain()), (0, 0));
        }
        self.check();
        assert!(self.disk.entries.is_empty() && self.disk.bodies.is_empty());
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push(u32, Vec<usize>, u8),
    Send(usize, usize),
    Ack(usize, usize),
    Load(usize, bool),
    Connect(usize, u16),
    Disconnect(usize),
    Pass(u64),
    Restart,
    Replace(u16, u32, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0..5_u32, prop::collection::vec(1..3_000_usize, 1..8), 0..3_u8)
            .prop_map(|(publisher, lengths, qos)| Step::Push(publisher, lengths, qos)),
        6 => (0..3_usize, 1..20_usize).prop_map(|(lane, most)| Step::Send(lane, most)),
        8 => (0..3_usize, 0..8_usize).prop_map(|(lane, which)| Step::Ack(lane, which)),
        6 => (0..3_usize, any::<bool>()).prop_map(|(lane, damage)| Step::Load(lane, damage)),
        2 => (0..3_usize, 1..30_u16).prop_map(|(lane, window)| Step::Connect(lane, window)),
        1 => (0..3_usize).prop_map(Step::Disconnect),
        2 => (1..4_000_u64).prop_map(Step::Pass),
        1 => Just(Step::Restart),
        1 => (1..4_u16, 0..5_u32, 1..3_000_usize).prop_map(|(count, publisher, length)| Step::Replace(count, publisher, length)),
    ]
}

fn run(world: &mut World, steps: Vec<Step>, damages: bool) {
    for step in steps {
        let lane = |index: usize| index % world.lanes.len();
        match step {
            Step::Push(publisher, lengths, qos) => {
                world.push(publisher, &lengths, QoS::from_u8(qos).unwrap());
            }
            Step::Send(index, most) => world.send(lane(index), most),
            Step::Ack(index, which) => world.ack(lane(index), which),
            Step::Load(index, damage) => world.load(lane(index), damage && damages),
            Step::Connect(index, window) => world.connect(lane(index), window),
            Step::Disconnect(index) => world.disconnect(lane(index)),
            Step::Pass(ms) => {
                world.now_ms += ms;
                for index in 0..world.lanes.len() {
                    world.lanes[index].handle_timeout(at(world.now_ms));
                    world.keep(index);
                }
            }
            Step::Restart => world.restart(),
            Step::Replace(count, publisher, length) => world.replace(count, publisher, length),
        }
        world.check();
    }
}

proptest! {
    #[test]
    fn whatever_was_kept_comes_across_in_order_over_restarts_and_other_lanes(
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let config = LaneConfig { max_inflight: Some(20), topic: "a topic of 20 bytes.".into(), ..LaneConfig::default() };
        let mut world = World::new(u64::MAX / 2, config);
        run(&mut world, steps, false);
        world.finish();
        prop_assert_eq!(&world.delivered, &(1..=world.pushed).collect::<BTreeSet<_>>());
    }

    #[test]
    fn whatever_is_lost_to_bounds_and_damage_is_counted_and_not_kept(
        on_full in prop::sample::select(vec![OnFull::DropOldest, OnFull::DropNew, OnFull::Refuse]),
        qos0 in any::<bool>(),
        steps in prop::collection::vec(step(), 1..150),
    ) {
        let config = LaneConfig {
            max_inflight: Some(20),
            max_age_ms: Some(10_000),
            topic: "a topic of 20 bytes.".into(),
            on_full,
            qos0,
            ..LaneConfig::default()
        };
        let mut world = World::new(60_000, config);
        run(&mut world, steps, true);
        world.finish();
        prop_assert!(world.delivered.iter().all(|number| (1..=world.pushed).contains(number)));
    }
}

#[test]
fn a_message_of_qos_2_waits_until_it_is_kept_and_those_behind_it_too() {
    let mut world = World::new(1_000_000, LaneConfig::default());
    world.connect(0, 9);
    let lane = &mut world.lanes[0];
    lane.note_group(at(5), 7, 6);
    let text = |out: &mut Vec<u8>| out.extend_from_slice(b"x");
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtLeastOnce] {
        lane.push(at(5), qos, text);
        lane.keep(&mut world.disk);
    }
    assert_eq!(lane.gate(), None);
    assert!(lane.next_to_send(at(5)).is_some(), "at QoS 1 it may come twice");
    assert_eq!(lane.next_to_send(at(5)), None);
    assert_eq!(lane.gate(), Some(7));
    lane.note_group(at(6), 8, 7);
    assert_eq!(lane.gate(), None);
    assert!(lane.next_to_send(at(6)).is_some() && lane.next_to_send(at(6)).is_some());
}

#[test]
fn a_page_is_read_only_when_it_is_committed_and_there_is_room_and_somebody_to_send_to() {
    let mut world = World::new(1_000_000, LaneConfig::default());
    for _ in 0..12 {
        world.push(0, &[3_000], QoS::AtLeastOnce);
    }
    let lane = &mut world.lanes[0];
    lane.note_group(at(1), 4, 3);
    lane.push(at(1), QoS::AtLeastOnce, |out| out.resize(out.len() + 5_000, 0));
    lane.keep(&mut world.disk);
    assert_eq!(lane.wants_page(), None, "nobody takes it");
    lane.handle_connected(50, None);
    assert_eq!(lane.wants_page(), None, "there is no room");
    for id in 1..=5 {
        assert!(lane.next_to_send(at(1)).is_some());
        lane.handle_ack(PacketId::new(id).unwrap(), 0);
    }
    let pages: Vec<_> = std::iter::from_fn(|| {
        let page = lane.wants_page()?;
        assert_eq!(lane.handle_page(page.number, Some(&world.disk.bodies[&page.body])), 0);
        while lane.next_to_send(at(1)).is_some() {}
        for id in 1..=50 {
            lane.handle_ack(PacketId::new(id).unwrap(), 0);
        }
        Some(page.group)
    })
    .collect();
    assert!(!pages.is_empty() && pages.iter().all(|group| *group == 0));
    assert_eq!(lane.gate(), Some(4), "the last one is not committed");
    lane.note_group(at(1), 5, 4);
    assert_eq!(lane.wants_page().map(|page| page.group), Some(4));
}
