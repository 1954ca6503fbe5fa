//! The match: from a Topic Name to the values of the filters that match it. It walks with a stack of its own and
//! turns a level of the name into its id only when it first comes that deep.

use std::hash::BuildHasher;

use smallvec::SmallVec;

use crate::mqtt::trie::NONE;
use crate::mqtt::trie::ROOT;
use crate::mqtt::trie::SHALLOW_LEVELS;
use crate::mqtt::trie::Slot;
use crate::mqtt::trie::TopicTrie;
use crate::mqtt::trie::levels::Levels;

impl<V, S: BuildHasher> TopicTrie<V, S> {
    /// Calls `found` with the value of every filter that matches this Topic Name (`[MQTT-3.3.2-3]`), byte by byte
    /// (`[MQTT-4.7.3-4]`), in no particular order.
    /// A leading wildcard does not match a name that begins with `$` (`[MQTT-4.7.2-1]`).
    pub fn for_each_match<'a>(&'a self, name: &str, mut found: impl FnMut(&'a V)) {
        let dollar = name.starts_with('$');
        let mut name = NameLevels::new(name);
        let mut pending: SmallVec<[(u32, u32); SHALLOW_LEVELS]> = SmallVec::new();
        let (mut id, mut depth) = (ROOT, 0);
        loop {
            let node = &self.nodes[id as usize];
            let wildcards = depth > 0 || !dollar;
            if wildcards && node.hash != NONE {
                self.visit(node.hash, &mut found);
            }
            match name.level(depth as usize, &self.levels) {
                None => self.visit(id, &mut found),
                Some(level) => {
                    if wildcards && node.plus != NONE {
                        pending.push((node.plus, depth + 1));
                    }
                    if let Some(child) = self.child(id, level) {
                        (id, depth) = (child, depth + 1);
                        continue;
                    }
                }
            }
            let Some(next) = pending.pop() else { return };
            (id, depth) = next;
        }
    }

    fn visit<'a>(&'a self, id: u32, found: &mut impl FnMut(&'a V)) {
        let value = self.nodes[id as usize].value;
        if let Some(Slot::Used(value)) = self.values.get(value as usize) {
            found(value);
        }
    }
}

/// The levels of a Topic Name as ids, each found when the match first comes that deep.
struct NameLevels<'n> {
    rest: Option<&'n [u8]>,
    /// `NONE` for a level that no filter has.
    ids: SmallVec<[u32; SHALLOW_LEVELS]>,
}

impl<'n> NameLevels<'n> {
    fn new(name: &'n str) -> Self {
        Self { rest: Some(name.as_bytes()), ids: SmallVec::new() }
    }

    /// `None` behind the last level.
    fn level<S: BuildHasher>(&mut self, depth: usize, levels: &Levels<S>) -> Option<u32> {
        while self.ids.len() <= depth {
            let rest = self.rest?;
            let end = rest.iter().position(|&byte| byte == b'/');
            let level = &rest[..end.unwrap_or(rest.len())];
            self.rest = end.map(|end| &rest[end + 1..]);
            self.ids.push(levels.find(level).unwrap_or(NONE));
        }
        Some(self.ids[depth])
    }
}
