//! Route operations a peer has not acknowledged yet (`link-protocol.md` 4.3; EMQX's `emqx_router_syncer`):
//! one per (topic, id), the last one wins, additions go before deletions. Bounded: when it is full it empties
//! itself and says so, and the replicator starts a new incarnation, whose snapshot replaces what was lost.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::sync::Arc;

use crate::link::payload::RouteBatch;
use crate::link::payload::RouteOp;
use crate::link::route::RouteKey;

/// How many operations may wait.
pub const PENDING_OPS_MAX: usize = 200_000;
/// How many bytes of topics and ids may wait.
pub const PENDING_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How many operations one update holds, as EMQX cuts them.
pub const BATCH_OPS_MAX: u32 = 4_000;
/// How many bytes one update holds before compression.
pub const BATCH_BYTES_MAX: usize = 256 * 1024;

/// More operations than the bounds allow: everything was dropped, a snapshot under a new incarnation is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overflow;

#[derive(Debug, Clone, Copy)]
struct Entry {
    delete: bool,
    sequence: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Pending {
    ops: HashMap<Arc<RouteKey>, Entry>,
    adds: BTreeMap<u64, Arc<RouteKey>>,
    deletes: BTreeMap<u64, Arc<RouteKey>>,
    in_flight: Vec<(Arc<RouteKey>, bool)>,
    bytes: usize,
    sequence: u64,
    ops_max: usize,
    bytes_max: usize,
    too_large: u64,
}

impl Default for Pending {
    fn default() -> Self {
        Self::new(PENDING_OPS_MAX, PENDING_BYTES_MAX)
    }
}

fn weight(key: &RouteKey) -> usize {
    key.topic.len() + key.id.len()
}

impl Pending {
    /// An empty set with these bounds, which count what is in flight too.
    #[must_use]
    pub fn new(ops_max: usize, bytes_max: usize) -> Self {
        Self {
            ops: HashMap::new(),
            adds: BTreeMap::new(),
            deletes: BTreeMap::new(),
            in_flight: Vec::new(),
            bytes: 0,
            sequence: 0,
            ops_max,
            bytes_max,
            too_large: 0,
        }
    }

    /// Puts an operation in, in place of an earlier one for the same route. An addition followed by a
    /// deletion leaves the deletion: the addition may have been sent in a batch that got lost.
    pub fn push(&mut self, key: RouteKey, delete: bool) -> Result<(), Overflow> {
        self.insert(Arc::new(key), delete);
        if self.len() > self.ops_max || self.bytes > self.bytes_max {
            self.clear();
            return Err(Overflow);
        }
        Ok(())
    }

    fn insert(&mut self, key: Arc<RouteKey>, delete: bool) {
        self.sequence += 1;
        let entry = Entry { delete, sequence: self.sequence };
        match self.ops.insert(key.clone(), entry) {
            Some(Entry { delete: true, sequence }) => drop(self.deletes.remove(&sequence)),
            Some(Entry { delete: false, sequence }) => drop(self.adds.remove(&sequence)),
            None => self.bytes += weight(&key),
        }
        let queue = if delete { &mut self.deletes } else { &mut self.adds };
        queue.insert(self.sequence, key);
    }

    /// Moves as many operations into `batch` as its bounds allow. They stay until [`Self::acknowledged`] or
    /// [`Self::failed`]. An operation too large for any batch is dropped and counted.
    pub fn fill(&mut self, batch: &mut RouteBatch, bytes_max: usize) {
        let empty = batch.bytes();
        while batch.count() < BATCH_OPS_MAX {
            let delete = self.adds.is_empty();
            let queue = if delete { &mut self.deletes } else { &mut self.adds };
            let Some(first) = queue.first_entry() else { break };
            let key = first.get();
            let op = RouteOp { delete, topic: key.topic.as_bytes(), id: key.id.as_bytes() };
            let fits = batch.bytes() + RouteBatch::cost(&op) <= bytes_max;
            let hopeless = empty + RouteBatch::cost(&op) > bytes_max;
            if fits {
                batch.push(&op);
            } else if !hopeless {
                break;
            }
            let key = first.remove();
            self.ops.remove(&key);
            self.bytes -= weight(&key);
            if hopeless {
                self.too_large += 1;
            } else {
                self.bytes += weight(&key);
                self.in_flight.push((key, delete));
            }
        }
    }

    /// What is in the batch and is no deletion.
    pub fn added(&self) -> impl Iterator<Item = &RouteKey> {
        self.in_flight.iter().filter(|(_, delete)| !delete).map(|(key, _)| &**key)
    }

    /// The peer has the batch.
    pub fn acknowledged(&mut self) {
        for (key, _) in self.in_flight.drain(..) {
            self.bytes -= weight(&key);
        }
    }

    /// The batch got lost: its operations wait again, unless a later one replaced them.
    pub fn failed(&mut self) {
        for (key, delete) in std::mem::take(&mut self.in_flight) {
            self.bytes -= weight(&key);
            if !self.ops.contains_key(&key) {
                self.insert(key, delete);
            }
        }
    }

    /// Forgets the additions: a snapshot that is about to be taken holds them.
    pub fn forget_additions(&mut self) {
        for key in std::mem::take(&mut self.adds).into_values() {
            self.ops.remove(&key);
            self.bytes -= weight(&key);
        }
    }

    /// Forgets everything: a new incarnation begins.
    pub fn clear(&mut self) {
        self.ops = HashMap::new();
        self.adds.clear();
        self.deletes.clear();
        self.in_flight = Vec::new();
        self.bytes = 0;
    }

    /// How many operations wait or are in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ops.len() + self.in_flight.len()
    }

    /// Whether the peer has acknowledged everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether something waits that is not in flight.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.ops.is_empty()
    }

    /// How many bytes of topics and ids it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many operations were dropped because no batch could hold them.
    #[must_use]
    pub fn too_large(&self) -> u64 {
        self.too_large
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::link::compress::Deflater;
    use crate::link::compress::Inflater;
    use crate::link::payload;
    use crate::link::payload::Control;

    fn key(number: u8) -> RouteKey {
        RouteKey { topic: format!("t/{number}").into(), id: format!("id/{number}").into() }
    }

    fn sent(batch: RouteBatch) -> Vec<(bool, String)> {
        let bytes = batch.finish(&mut Deflater::default(), usize::MAX);
        let mut inflater = Inflater::default();
        let Control::Route(update) = payload::parse_control(inflater.open(&bytes).unwrap()).unwrap() else {
            panic!("not a route update")
        };
        update.ops.map(|op| (op.delete, String::from_utf8(op.topic.to_vec()).unwrap())).collect()
    }

    #[test]
    fn the_last_operation_wins_and_additions_go_first() {
        let mut pending = Pending::default();
        pending.push(key(1), true).unwrap();
        pending.push(key(2), false).unwrap();
        pending.push(key(3), false).unwrap();
        pending.push(key(3), true).unwrap();
        let mut batch = RouteBatch::new("n", 1);
        pending.fill(&mut batch, BATCH_BYTES_MAX);
        assert_eq!(sent(batch), [(false, "t/2".into()), (true, "t/1".into()), (true, "t/3".into())]);
        assert_eq!(pending.len(), 3);
        pending.acknowledged();
        assert!(pending.is_empty());
        assert_eq!(pending.bytes(), 0);
    }

    #[test]
    fn a_lost_batch_does_not_overwrite_what_came_later() {
        let mut pending = Pending::default();
        pending.push(key(1), false).unwrap();
        pending.push(key(2), false).unwrap();
        pending.fill(&mut RouteBatch::new("n", 1), BATCH_BYTES_MAX);
        pending.push(key(1), true).unwrap();
        pending.failed();
        let mut batch = RouteBatch::new("n", 1);
        pending.fill(&mut batch, BATCH_BYTES_MAX);
        assert_eq!(sent(batch), [(false, "t/2".into()), (true, "t/1".into())]);
    }

    #[test]
    fn a_full_set_empties_itself_and_says_so() {
        let mut pending = Pending::new(2, 1_000);
        pending.push(key(1), false).unwrap();
        pending.push(key(2), false).unwrap();
        assert_eq!(pending.push(key(2), true), Ok(()));
        assert_eq!(pending.push(key(3), false), Err(Overflow));
        assert!(pending.is_empty());
        let wide = RouteKey { topic: "x".repeat(600).into(), id: "x".repeat(600).into() };
        assert_eq!(pending.push(wide, false), Err(Overflow));
    }

    #[test]
    fn a_route_no_batch_can_hold_is_counted_and_does_not_block_the_rest() {
        let mut pending = Pending::default();
        pending.push(RouteKey { topic: "x".repeat(900).into(), id: "x".into() }, false).unwrap();
        pending.push(key(1), false).unwrap();
        let mut batch = RouteBatch::new("n", 1);
        pending.fill(&mut batch, 800);
        assert_eq!((batch.count(), pending.too_large()), (1, 1));
        pending.acknowledged();
        assert_eq!((pending.len(), pending.bytes()), (0, 0));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(u8, bool),
        Fill,
        Acknowledged,
        Failed,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0..12_u8, any::<bool>()).prop_map(|(key, delete)| Step::Push(key, delete)),
            2 => Just(Step::Fill),
            1 => Just(Step::Acknowledged),
            1 => Just(Step::Failed),
        ]
    }

    proptest! {
        /// Whatever gets lost on the way: once everything is acknowledged, the peer has the final state.
        #[test]
        fn the_peer_ends_with_the_final_state(steps in prop::collection::vec(step(), 0..80)) {
            let mut pending = Pending::default();
            let (mut ours, mut theirs) = (BTreeSet::new(), BTreeSet::new());
            let mut in_flight: Option<Vec<(bool, String)>> = None;
            let mut steps = steps;
            steps.extend([Step::Acknowledged, Step::Fill, Step::Acknowledged]);
            for step in steps {
                match step {
                    Step::Push(number, delete) => {
                        let key = key(number);
                        if delete { ours.remove(&*key.topic.clone()); } else { ours.insert(key.topic.to_string()); }
                        pending.push(key, delete).unwrap();
                    }
                    Step::Fill if in_flight.is_none() => {
                        let mut batch = RouteBatch::new("n", 1);
                        pending.fill(&mut batch, BATCH_BYTES_MAX);
                        in_flight = Some(sent(batch));
                    }
                    Step::Fill => {}
                    Step::Acknowledged => {
                        for (delete, topic) in in_flight.take().unwrap_or_default() {
                            if delete { theirs.remove(&topic); } else { theirs.insert(topic); }
                        }
                        pending.acknowledged();
                    }
                    Step::Failed => {
                        in_flight = None;
                        pending.failed();
                    }
                }
            }
            prop_assert!(pending.is_empty());
            prop_assert_eq!(pending.bytes(), 0);
            prop_assert_eq!(ours, theirs);
        }
    }
}
