//! `TopicTrie<V>`: a map from Topic Filters to values, matched by Topic Name (MQTT 5.0 section 4.7;
//! `performance.md` 5.1 rule 7). Levels are numbers, nodes are 32 bytes in one arena, and all edges but one per
//! node lie in one hash table, so that a filter costs what its unshared levels cost.
//!
//! It is a map: one value per filter. Where a filter has several subscribers the value is their list. It does not
//! check filters or names ([`crate::mqtt::topic`] does) and does not bound their depth: no operation recurses,
//! and a match walks no deeper than the filters stored.

use std::hash::BuildHasher;

use rapidhash::quality::RandomState;
use smallvec::SmallVec;

use crate::mqtt::trie::levels::Levels;
use crate::mqtt::trie::table::IdTable;

mod levels;
mod matching;
mod table;
#[cfg(test)]
mod tests;

/// No node, no level, no value.
const NONE: u32 = u32::MAX;
/// Levels that are not texts.
const PLUS: u32 = u32::MAX - 1;
const HASH: u32 = u32::MAX - 2;
const ROOT: u32 = 0;

/// Levels of a Topic Name that a match handles without allocating.
const SHALLOW_LEVELS: usize = 32;

/// An id is an index into an arena whose elements have at least 32 bytes.
fn index(position: usize) -> u32 {
    u32::try_from(position).ok().filter(|&id| id < HASH).expect("memory ends before 2^32 nodes of 32 bytes")
}

/// Where a filter lies in its trie: valid until the filter is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

impl NodeId {
    /// Before every node: where [`TopicTrie::next_after`] begins.
    pub const START: Self = Self(ROOT);
}

#[derive(Clone, Copy)]
struct Node {
    parent: u32,
    /// The level that leads here from the parent.
    level: u32,
    plus: u32,
    hash: u32,
    /// One child by text is kept here; most nodes have no other.
    child_level: u32,
    child: u32,
    /// The number of further children, which are in the edge table.
    others: u32,
    value: u32,
}

impl Node {
    fn new(parent: u32, level: u32) -> Self {
        let (plus, hash, child_level, child) = (NONE, NONE, NONE, NONE);
        Self { parent, level, plus, hash, child_level, child, others: 0, value: NONE }
    }

    fn is_unused(&self) -> bool {
        self.value == NONE && self.plus == NONE && self.hash == NONE && self.child == NONE && self.others == 0
    }
}

enum Slot<V> {
    Used(V),
    Free { next: u32 },
}

/// A map from Topic Filters to values, matched by Topic Name.
pub struct TopicTrie<V, S = RandomState> {
    levels: Levels<S>,
    edges: IdTable,
    nodes: Vec<Node>,
    /// Free nodes, linked through `parent`.
    free_node: u32,
    live_nodes: usize,
    values: Vec<Slot<V>>,
    free_value: u32,
    len: usize,
}

impl<V, S: BuildHasher> TopicTrie<V, S> {
    /// An empty trie. Clients choose the levels, so `hasher` must be seeded with something they do not know.
    #[must_use]
    pub fn new(hasher: S) -> Self {
        Self {
            levels: Levels::new(hasher),
            edges: IdTable::default(),
            nodes: vec![Node::new(NONE, NONE)],
            free_node: NONE,
            live_nodes: 0,
            values: Vec::new(),
            free_value: NONE,
            len: 0,
        }
    }

    /// Number of filters.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no filter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of nodes in use, the root not counted: zero when no filter is stored.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.live_nodes
    }

    /// Number of distinct level texts held.
    #[must_use]
    pub fn level_count(&self) -> usize {
        self.levels.len()
    }

    /// The node of this filter, if it is stored.
    #[must_use]
    pub fn find(&self, filter: &str) -> Option<NodeId> {
        let mut id = ROOT;
        for text in filter.split('/') {
            let node = &self.nodes[id as usize];
            id = match text {
                "+" => some(node.plus),
                "#" => some(node.hash),
                _ => self.child(id, self.levels.find(text.as_bytes())?),
            }?;
        }
        (self.nodes[id as usize].value != NONE).then_some(NodeId(id))
    }

    /// The value at this node.
    #[must_use]
    pub fn value(&self, id: NodeId) -> Option<&V> {
        let slot = self.nodes.get(id.0 as usize)?.value;
        match self.values.get(slot as usize) {
            Some(Slot::Used(value)) => Some(value),
            _ => None,
        }
    }

    /// The value at this node, to change.
    pub fn value_mut(&mut self, id: NodeId) -> Option<&mut V> {
        let slot = self.nodes.get(id.0 as usize)?.value;
        match self.values.get_mut(slot as usize) {
            Some(Slot::Used(value)) => Some(value),
            _ => None,
        }
    }

    /// The value of exactly this filter.
    #[must_use]
    pub fn get(&self, filter: &str) -> Option<&V> {
        self.value(self.find(filter)?)
    }

    /// The value of exactly this filter, to change.
    pub fn get_mut(&mut self, filter: &str) -> Option<&mut V> {
        self.value_mut(self.find(filter)?)
    }

    /// The node of this filter and its value, which `make` gives if the filter is new.
    pub fn entry(&mut self, filter: &str, make: impl FnOnce() -> V) -> (NodeId, &mut V) {
        let mut id = ROOT;
        for text in filter.split('/') {
            id = match text {
                "+" => self.wildcard_child(id, PLUS),
                "#" => self.wildcard_child(id, HASH),
                _ => self.text_child(id, text),
            };
        }
        let mut slot = self.nodes[id as usize].value;
        if slot == NONE {
            slot = self.store(make());
            self.nodes[id as usize].value = slot;
            self.len += 1;
        }
        match &mut self.values[slot as usize] {
            Slot::Used(value) => (NodeId(id), value),
            Slot::Free { .. } => unreachable!("a node refers to a value in use"),
        }
    }

    /// Sets the value of this filter; what it was before, if the filter was stored.
    pub fn insert(&mut self, filter: &str, value: V) -> (NodeId, Option<V>) {
        let mut given = Some(value);
        let (id, place) = self.entry(filter, || given.take().expect("taken here only"));
        let before = given.map(|value| std::mem::replace(place, value));
        (id, before)
    }

    /// Takes out a filter.
    pub fn remove(&mut self, filter: &str) -> Option<V> {
        self.remove_at(self.find(filter)?)
    }

    /// Takes out the filter at this node, and every node that only served it.
    pub fn remove_at(&mut self, id: NodeId) -> Option<V> {
        let slot = std::mem::replace(&mut self.nodes.get_mut(id.0 as usize)?.value, NONE);
        let place = self.values.get_mut(slot as usize)?;
        let Slot::Used(value) = std::mem::replace(place, Slot::Free { next: self.free_value }) else {
            unreachable!("a node refers to a value in use");
        };
        self.free_value = slot;
        self.len -= 1;
        self.prune(id.0);
        if self.len == 0 {
            self.release_memory();
        }
        Some(value)
    }

    /// The text of the filter at this node.
    #[must_use]
    pub fn filter(&self, id: NodeId) -> Option<String> {
        self.value(id)?;
        let mut path: SmallVec<[u32; SHALLOW_LEVELS]> = SmallVec::new();
        let mut at = id.0;
        while at != ROOT {
            path.push(at);
            at = self.nodes[at as usize].parent;
        }
        let mut text = String::new();
        for (position, &at) in path.iter().rev().enumerate() {
            if position > 0 {
                text.push('/');
            }
            text.push_str(match self.nodes[at as usize].level {
                PLUS => "+",
                HASH => "#",
                level => self.levels.text(level),
            });
        }
        Some(text)
    }

    /// The next stored filter after `id` in the order of the nodes, looking at `nodes_max` nodes at most: where
    /// it stopped, and the filter if one was there. `None` at the end. A filter stored throughout a walk is seen
    /// exactly once, whatever else is added or removed meanwhile.
    #[must_use]
    pub fn next_after(&self, id: NodeId, nodes_max: usize) -> Option<(NodeId, Option<&V>)> {
        let last = self.nodes.len().saturating_sub(1);
        let end = last.min((id.0 as usize).saturating_add(nodes_max.max(1)));
        let first = id.0 as usize + 1;
        if first > last {
            return None;
        }
        let found = (first..=end).find(|&at| self.nodes[at].value != NONE);
        let at = NodeId(index(found.unwrap_or(end)));
        Some((at, self.value(at)))
    }

    /// Every filter with its value.
    pub fn filters(&self) -> impl Iterator<Item = (String, &V)> {
        let ids = (0..self.nodes.len()).map(|position| NodeId(index(position)));
        ids.filter_map(|id| Some((self.filter(id)?, self.value(id)?)))
    }

    fn child(&self, id: u32, level: u32) -> Option<u32> {
        let node = &self.nodes[id as usize];
        if level == NONE {
            return None;
        }
        if node.child_level == level {
            return Some(node.child);
        }
        if node.others == 0 {
            return None;
        }
        self.edges.find(self.levels.pair_tag(id, level), |child| {
            let child = &self.nodes[child as usize];
            child.parent == id && child.level == level
        })
    }

    fn wildcard_child(&mut self, id: u32, level: u32) -> u32 {
        let node = &self.nodes[id as usize];
        if let Some(child) = some(if level == PLUS { node.plus } else { node.hash }) {
            return child;
        }
        let child = self.allocate(id, level);
        let node = &mut self.nodes[id as usize];
        *(if level == PLUS { &mut node.plus } else { &mut node.hash }) = child;
        child
    }

    fn text_child(&mut self, id: u32, text: &str) -> u32 {
        let level = self.levels.acquire(text);
        if let Some(child) = self.child(id, level) {
            // The child holds a reference already.
            self.levels.release(level);
            return child;
        }
        let child = self.allocate(id, level);
        let node = &mut self.nodes[id as usize];
        if node.child == NONE {
            (node.child_level, node.child) = (level, child);
        } else {
            node.others += 1;
            self.edges.insert(self.levels.pair_tag(id, level), child);
        }
        child
    }

    fn allocate(&mut self, parent: u32, level: u32) -> u32 {
        self.live_nodes += 1;
        let node = Node::new(parent, level);
        let id = self.free_node;
        if let Some(slot) = self.nodes.get_mut(id as usize) {
            self.free_node = slot.parent;
            *slot = node;
            return id;
        }
        let id = index(self.nodes.len());
        self.nodes.push(node);
        id
    }

    fn store(&mut self, value: V) -> u32 {
        let id = self.free_value;
        if let Some(slot) = self.values.get_mut(id as usize) {
            if let Slot::Free { next } = *slot {
                self.free_value = next;
            }
            *slot = Slot::Used(value);
            return id;
        }
        let id = index(self.values.len());
        self.values.push(Slot::Used(value));
        id
    }

    /// Frees this node and its ancestors as far as nothing else uses them.
    fn prune(&mut self, mut id: u32) {
        while id != ROOT && self.nodes[id as usize].is_unused() {
            let Node { parent, level, .. } = self.nodes[id as usize];
            self.unlink(parent, level, id);
            let node = &mut self.nodes[id as usize];
            *node = Node::new(self.free_node, NONE);
            self.free_node = id;
            self.live_nodes -= 1;
            id = parent;
        }
    }

    fn unlink(&mut self, parent: u32, level: u32, id: u32) {
        let node = &mut self.nodes[parent as usize];
        match level {
            PLUS => node.plus = NONE,
            HASH => node.hash = NONE,
            _ => {
                if node.child == id {
                    (node.child_level, node.child) = (NONE, NONE);
                } else {
                    node.others -= 1;
                    self.edges.remove(self.levels.pair_tag(parent, level), id);
                }
                self.levels.release(level);
            }
        }
    }

    /// Gives back what a large number of filters needed, once they are all gone.
    fn release_memory(&mut self) {
        self.nodes.truncate(1);
        self.nodes.shrink_to_fit();
        self.values = Vec::new();
        (self.free_node, self.free_value) = (NONE, NONE);
    }
}

fn some(id: u32) -> Option<u32> {
    (id != NONE).then_some(id)
}
