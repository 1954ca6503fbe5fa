//! Retained messages (MQTT 5.0 section 3.3.1.3) and their expiry: at most one per Topic Name, found by name
//! through a hash map and by wildcard through the order of the names. That order is what lets a `#` be answered
//! in slices (`performance.md` 5.1 rule 12): where to go on is a name, right whatever came or went meanwhile.
//! It does not decide what is retained: an empty payload removes (`[MQTT-3.3.1-6]`) by the caller's call.
//!
//! Each message is held with its publisher. When the rules change, what a publisher may not publish any more is withheld
//! ([`RetainedStore::recheck`]), as mosquitto's `check_retain_source` has it, and given again if that is taken back.
//!
//! A message may be the copy of one that a linked cluster retains ([`Origin`]). Copies have no publisher here: whether
//! they may stay is the link's question, and what it no longer wants is removed (`broker::link_retained`).

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::collections::HashSet;
use std::hash::Hash;
use std::hash::Hasher;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::Mutex;
use parking_lot::RwLock;
use rapidhash::quality::RandomState;

use crate::broker::retained::seek::Step;
use crate::broker::retained::seek::literal_prefix;
use crate::broker::retained::seek::step;
use crate::broker::retained::sources::NOBODY;
use crate::broker::retained::sources::Sources;
use crate::broker::routes::LinkId;
use crate::mqtt::topic;

mod seek;
mod sources;
#[cfg(test)]
mod tests;

/// Names that one call of [`RetainedStore::matching`] looks at, whether they match or not.
const NAMES_PER_SLICE: usize = 1_024;
/// How often those that came late are asked about before nobody may come any more: each time they are fewer.
const LATE_ROUNDS: usize = 8;
/// Neighbours looked at one by one before the place where the filter goes on is searched from the top.
const NEIGHBOURS: usize = 8;

/// A message that can be retained: a shared, unchanging handle, so that a clone copies no payload.
pub trait Retainable: Clone {
    /// The Topic Name; always the same for the same message.
    fn topic(&self) -> &str;
    /// What the message holds in memory; always the same for the same message.
    fn bytes(&self) -> usize;
    /// The end of its Message Expiry Interval, on the clock that the store's calls are given; always the same for the
    /// same message.
    fn deadline_ms(&self) -> Option<u64>;
    /// Whether both are the same message, not only equal ones.
    fn is_same(&self, other: &Self) -> bool;
}

/// Bounds of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetainedLimits {
    /// Messages at most.
    pub messages_max: usize,
    /// The sum of [`Retainable::bytes`] at most.
    pub bytes_max: usize,
}

/// Why a message was not retained; the one retained before, if any, stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RetainedFull {
    /// [`RetainedLimits::messages_max`] is reached.
    #[error("the number of retained messages is at its maximum")]
    Messages,
    /// [`RetainedLimits::bytes_max`] would be exceeded.
    #[error("the size of the retained messages is at its maximum")]
    Bytes,
}

/// Stores what is retained, so that it outlives the process. It is told of every change under the lock of the store, so in
/// their order.
pub trait Keeper<M, S>: Send + Sync {
    /// A message that was published here takes the place of the one of its name.
    fn kept(&self, message: &M, source: Option<&S>, stamp_ms: u64);
    /// None that was published here has this name any more.
    fn gone(&self, name: &str);
}

/// What became of a retained message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// The Topic Name had none.
    New,
    /// It took the place of another (`[MQTT-3.3.1-5]`).
    Replaced,
    /// It was not to take the place of what is there.
    Declined,
}

/// Where a message was published, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Over which link it came; `None` if it was published here.
    pub link: Option<LinkId>,
    /// When the broker that it was published to took it, by that broker's clock, in milliseconds since the epoch.
    pub stamp_ms: u64,
}

impl Origin {
    /// Published here.
    #[must_use]
    pub fn here(unix_ms: u64) -> Self {
        Self { link: None, stamp_ms: unix_ms }
    }
}

/// What is held of a message beside it.
#[derive(Debug, Clone, Copy)]
struct Kept {
    /// The number of its publisher.
    source: u32,
    origin: Origin,
}

/// Sizes of the store, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RetainedCounts {
    /// Messages held, expired ones included until a sweep takes them.
    pub messages: usize,
    /// The sum of [`Retainable::bytes`].
    pub bytes: usize,
    /// Messages that are withheld: their publishers may not publish them any more.
    pub withheld: usize,
}

/// Where an answer to a filter goes on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    /// Names from here on were not looked at.
    from: String,
}

/// Some of the messages that match a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice<M> {
    /// The messages, in the order of their names; it may be empty before the end.
    pub messages: Vec<M>,
    /// What to ask with for the next slice; `None` at the end.
    pub next: Option<Cursor>,
}

/// A message that stands for its own name in a set, so that the name is held once. Each message is in two sets; one of
/// them has where it is from beside it.
struct Held<M, X = ()>(M, X);

impl<M: Retainable, X> Borrow<str> for Held<M, X> {
    fn borrow(&self) -> &str {
        self.0.topic()
    }
}

impl<M: Retainable, X> PartialEq for Held<M, X> {
    fn eq(&self, other: &Self) -> bool {
        self.0.topic() == other.0.topic()
    }
}

impl<M: Retainable, X> Eq for Held<M, X> {}

impl<M: Retainable, X> PartialOrd for Held<M, X> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<M: Retainable, X> Ord for Held<M, X> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.topic().cmp(other.0.topic())
    }
}

impl<M: Retainable, X> Hash for Held<M, X> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.topic().hash(state);
    }
}

impl<M: Retainable, X> Held<M, X> {
    fn at(&self, now_ms: u64) -> Option<M> {
        self.0.deadline_ms().is_none_or(|deadline_ms| deadline_ms > now_ms).then(|| self.0.clone())
    }
}

struct Inner<M, S> {
    by_name: HashSet<Held<M>, RandomState>,
    in_order: BTreeSet<Held<M, Kept>>,
    sources: Sources<S>,
    /// Names of messages that their publishers may not publish any more.
    withheld: HashSet<Box<str>, RandomState>,
    /// Names of messages that came while the others are asked about: by what they were let in may have changed.
    late: Option<HashSet<Box<str>, RandomState>>,
    /// Only the messages that expire.
    by_deadline: BTreeSet<(u64, Held<M>)>,
    /// How many came over each link.
    copies: HashMap<LinkId, usize>,
    bytes: usize,
    keeper: Option<Box<dyn Keeper<M, S>>>,
}

/// The retained messages, each with its publisher, an `S`.
pub struct RetainedStore<M, S> {
    inner: RwLock<Inner<M, S>>,
    limits: RetainedLimits,
    /// One recheck at a time: the last one decides.
    rechecking: Mutex<()>,
}

impl<M: Retainable, S> RetainedStore<M, S> {
    /// An empty store, its hash seeded at random.
    #[must_use]
    pub fn new(limits: RetainedLimits) -> Self {
        let inner = Inner {
            by_name: HashSet::with_hasher(RandomState::new()),
            in_order: BTreeSet::new(),
            sources: Sources::default(),
            withheld: HashSet::with_hasher(RandomState::new()),
            late: None,
            by_deadline: BTreeSet::new(),
            copies: HashMap::new(),
            bytes: 0,
            keeper: None,
        };
        Self { inner: RwLock::new(inner), limits, rechecking: Mutex::default() }
    }

    /// From now on what is published here is stored by `keeper`.
    pub fn keep_in(&self, keeper: Box<dyn Keeper<M, S>>) {
        self.inner.write().keeper = Some(keeper);
    }

    /// Retains a message in the place of the one of its name (`[MQTT-3.3.1-5]`). `source` published it, and may.
    pub fn insert(
        &self,
        message: M,
        source: Option<&Arc<S>>,
        origin: Origin,
    ) -> Result<Inserted, RetainedFull> {
        self.inner.write().insert(self.limits, message, source, origin)
    }

    /// The same, if `may` says so of where what is there is from, and of itself.
    pub fn insert_if(
        &self,
        message: M,
        source: Option<&Arc<S>>,
        origin: Origin,
        may: impl FnOnce(Option<Origin>, Option<&M>) -> bool,
    ) -> Result<Inserted, RetainedFull> {
        let mut inner = self.inner.write();
        let there = inner.in_order.get(message.topic());
        if !may(there.map(|there| there.1.origin), there.map(|there| &there.0)) {
            return Ok(Inserted::Declined);
        }
        inner.insert(self.limits, message, source, origin)
    }

    /// Takes out the message of this Topic Name (`[MQTT-3.3.1-6]`).
    pub fn remove(&self, name: &str) -> Option<M> {
        self.inner.write().remove(name)
    }

    /// The same, if `may` says so of where it is from.
    pub fn remove_if(&self, name: &str, may: impl FnOnce(Origin) -> bool) -> Option<M> {
        let mut inner = self.inner.write();
        inner.origin(name).filter(|origin| may(*origin))?;
        inner.remove(name)
    }

    /// How many came over this link.
    #[must_use]
    pub fn copies(&self, link: LinkId) -> usize {
        self.inner.read().copies.get(&link).copied().unwrap_or(0)
    }

    /// The next messages that are from there (`None`: published here) and match `filter`, if there is one, with their
    /// stamps, but for what is withheld; and at which name to go on. The lock is held for a bounded number of names.
    #[must_use]
    pub fn from_link(
        &self,
        link: Option<LinkId>,
        filter: Option<&str>,
        from: Bound<&str>,
        messages_max: usize,
        now_ms: u64,
    ) -> (Vec<(M, u64)>, Option<String>) {
        let inner = self.inner.read();
        let chosen = |held: &Held<M, Kept>| {
            let is_chosen = held.1.origin.link == link && !inner.withheld.contains(held.0.topic());
            is_chosen.then(|| held.at(now_ms)).flatten().map(|message| (message, held.1.origin.stamp_ms))
        };
        let Some(filter) = filter else {
            let mut names = inner.in_order.range::<str, _>((from, Bound::Unbounded));
            let found = names.by_ref().take(messages_max.clamp(1, NAMES_PER_SLICE)).filter_map(chosen);
            let found = found.collect();
            return (found, names.next().map(|held| held.0.topic().to_owned()));
        };
        if topic::has_wildcard(filter) {
            return inner.walk(filter, from, messages_max.max(1), chosen);
        }
        let is_next = match from {
            Bound::Unbounded => true,
            Bound::Included(name) => name <= filter,
            Bound::Excluded(name) => name < filter,
        };
        let one = inner.in_order.get(filter).filter(|_| is_next).and_then(chosen);
        (one.into_iter().collect(), None)
    }

    /// The message of this Topic Name.
    #[must_use]
    pub fn get(&self, name: &str, now_ms: u64) -> Option<M> {
        self.inner.read().by_name.get(name)?.at(now_ms)
    }

    /// The next messages that match `filter`, at most `messages_max` of them, and where to go on. Begin with
    /// `Cursor::default()`. A message retained all the while is given exactly once. The lock is held for a
    /// bounded number of names.
    #[must_use]
    pub fn matching(&self, filter: &str, cursor: Cursor, messages_max: usize, now_ms: u64) -> Slice<M> {
        if !topic::has_wildcard(filter) {
            return Slice { messages: self.get(filter, now_ms).into_iter().collect(), next: None };
        }
        let from = Bound::Included(cursor.from.as_str());
        let take = |held: &Held<M, Kept>| held.at(now_ms);
        let (messages, next) = self.inner.read().walk(filter, from, messages_max.max(1), take);
        Slice { messages, next: next.map(|from| Cursor { from }) }
    }

    /// The next messages in the order of their names, `$` topics included, and where to go on: for a list of
    /// everything, which no one filter gives.
    #[must_use]
    pub fn in_order(&self, cursor: Cursor, messages_max: usize, now_ms: u64) -> Slice<M> {
        let inner = self.inner.read();
        let from = (Bound::Included(cursor.from.as_str()), Bound::Unbounded);
        let mut names = inner.in_order.range::<str, _>(from);
        let some = names.by_ref().take(messages_max.clamp(1, NAMES_PER_SLICE));
        let messages = some.filter_map(|held| held.at(now_ms)).collect();
        let next = names.next().map(|held| Cursor { from: held.0.topic().to_owned() });
        Slice { messages, next }
    }

    /// Leaves out of `messages`, which were found here, what is withheld. It is for
    /// subscribers: operators see everything.
    pub fn leave_out_withheld(&self, messages: &mut Vec<M>) {
        let inner = self.inner.read();
        if !inner.withheld.is_empty() {
            messages.retain(|message| !inner.withheld.contains(message.topic()));
        }
    }

    /// Whether the message of this Topic Name is withheld.
    #[must_use]
    pub fn is_withheld(&self, name: &str) -> bool {
        self.inner.read().withheld.contains(name)
    }

    /// Asks `may` about every message that has a publisher, those that come meanwhile included; those it says no to are
    /// withheld until the next time. How many they are. `rules` makes it, once nobody else is at it. Nothing is locked
    /// while it is asked, but for the last few that come faster than it answers.
    pub fn recheck<F: Fn(&S, &M) -> bool>(&self, rules: impl FnOnce() -> F) -> usize {
        let _alone = self.rechecking.lock();
        // Before the rules are read: whoever was let in by others is among the late ones then.
        self.inner.write().late = Some(HashSet::with_hasher(RandomState::new()));
        let may = rules();
        let (mut from, mut denied) = (Some(String::new()), Vec::new());
        while let Some(name) = from {
            let (some, next) = self.inner.read().with_sources(&name);
            denied.extend(some.into_iter().filter(|(message, source)| !may(source, message)));
            from = next;
        }
        for _ in 0..LATE_ROUNDS {
            let some = self.inner.write().take_late();
            if some.is_empty() {
                break;
            }
            denied.extend(some.into_iter().filter(|(message, source)| !may(source, message)));
        }
        let mut inner = self.inner.write();
        let rest = inner.take_late();
        denied.extend(rest.into_iter().filter(|(message, source)| !may(source, message)));
        inner.late = None;
        let held =
            |message: &M| inner.by_name.get(message.topic()).is_some_and(|held| held.0.is_same(message));
        let names =
            denied.iter().filter(|(message, _)| held(message)).map(|(message, _)| message.topic().into());
        let withheld: Vec<Box<str>> = names.collect();
        inner.withheld.clear();
        inner.withheld.extend(withheld);
        inner.withheld.len()
    }

    /// Takes out messages whose deadline has come, at most `budget`; how many there were.
    pub fn expire(&self, now_ms: u64, budget: usize) -> usize {
        let mut inner = self.inner.write();
        for expired in 0..budget {
            let due = inner.by_deadline.first().filter(|(deadline_ms, _)| *deadline_ms <= now_ms);
            let Some(due) = due.map(|(_, held)| held.0.clone()) else { return expired };
            inner.remove(due.topic());
        }
        budget
    }

    /// The sizes of the store.
    #[must_use]
    pub fn counts(&self) -> RetainedCounts {
        let inner = self.inner.read();
        let (messages, withheld) = (inner.by_name.len(), inner.withheld.len());
        RetainedCounts { messages, bytes: inner.bytes, withheld }
    }
}

impl<M: Retainable, S> Inner<M, S> {
    fn insert(
        &mut self,
        limits: RetainedLimits,
        message: M,
        source: Option<&Arc<S>>,
        origin: Origin,
    ) -> Result<Inserted, RetainedFull> {
        let before = self.by_name.get(message.topic()).map(|before| before.0.bytes());
        if before.is_none() && self.by_name.len() >= limits.messages_max {
            return Err(RetainedFull::Messages);
        }
        let bytes = (self.bytes - before.unwrap_or(0)).saturating_add(message.bytes());
        if bytes > limits.bytes_max {
            return Err(RetainedFull::Bytes);
        }
        self.withheld.remove(message.topic());
        if source.is_some()
            && let Some(late) = &mut self.late
        {
            late.insert(message.topic().into());
        }
        let kept = Kept { source: self.sources.hold(source), origin };
        if let Some(link) = origin.link {
            *self.copies.entry(link).or_default() += 1;
        }
        let replaced = self.in_order.replace(Held(message.clone(), kept)).map(|before| before.1);
        if let Some(keeper) = &self.keeper {
            if origin.link.is_none() {
                keeper.kept(&message, source.map(AsRef::as_ref), origin.stamp_ms);
            } else if replaced.is_some_and(|before| before.origin.link.is_none()) {
                keeper.gone(message.topic());
            }
        }
        if let Some(before) = replaced {
            self.let_go(before);
        }
        let expiring = message.deadline_ms().map(|deadline_ms| (deadline_ms, Held(message.clone(), ())));
        // The former deadline goes first: it may be the same.
        if let Some(before) = self.by_name.replace(Held(message, ())) {
            self.forget_deadline(before);
        }
        self.by_deadline.extend(expiring);
        self.bytes = bytes;
        Ok(if before.is_some() { Inserted::Replaced } else { Inserted::New })
    }

    fn remove(&mut self, name: &str) -> Option<M> {
        let held = self.by_name.take(name)?;
        if let Some(in_order) = self.in_order.take(name) {
            if let Some(keeper) = self.keeper.as_ref().filter(|_| in_order.1.origin.link.is_none()) {
                keeper.gone(name);
            }
            self.let_go(in_order.1);
        }
        self.withheld.remove(name);
        self.bytes -= held.0.bytes();
        let message = held.0.clone();
        self.forget_deadline(held);
        Some(message)
    }

    fn origin(&self, name: &str) -> Option<Origin> {
        self.in_order.get(name).map(|held| held.1.origin)
    }

    /// A message is not held any more.
    fn let_go(&mut self, kept: Kept) {
        self.sources.release(kept.source);
        if let Some(link) = kept.origin.link
            && let Some(copies) = self.copies.get_mut(&link)
        {
            *copies -= 1;
            if *copies == 0 {
                self.copies.remove(&link);
            }
        }
    }

    fn forget_deadline(&mut self, held: Held<M>) {
        if let Some(deadline_ms) = held.0.deadline_ms() {
            self.by_deadline.remove(&(deadline_ms, held));
        }
    }

    /// The messages that came late so far, with their publishers.
    fn take_late(&mut self) -> Vec<(M, Arc<S>)> {
        let Some(late) = &mut self.late else { return Vec::new() };
        let names = std::mem::replace(late, HashSet::with_hasher(RandomState::new()));
        let held = names.iter().filter_map(|name| self.in_order.get::<str>(name));
        held.filter_map(|held| Some((held.0.clone(), Arc::clone(self.sources.get(held.1.source)?)))).collect()
    }

    /// The next messages that have publishers, with these, and where to go on.
    fn with_sources(&self, from: &str) -> (Vec<(M, Arc<S>)>, Option<String>) {
        let mut names = self.in_order.range::<str, _>((Bound::Included(from), Bound::Unbounded));
        let some = names.by_ref().take(NAMES_PER_SLICE).filter(|held| held.1.source != NOBODY);
        let some =
            some.filter_map(|held| Some((held.0.clone(), Arc::clone(self.sources.get(held.1.source)?))));
        let some = some.collect();
        (some, names.next().map(|held| held.0.topic().to_owned()))
    }

    /// The next `most` that match the filter and of which `take` makes something, and where to go on.
    fn walk<T>(
        &self,
        filter: &str,
        from: Bound<&str>,
        most: usize,
        take: impl Fn(&Held<M, Kept>) -> Option<T>,
    ) -> (Vec<T>, Option<String>) {
        let prefix = literal_prefix(filter);
        let begins = |name: &str| name >= prefix && !name.is_empty();
        let mut from: Bound<String> = match from {
            Bound::Included(name) if begins(name) => Bound::Included(name.to_owned()),
            Bound::Excluded(name) if begins(name) => Bound::Excluded(name.to_owned()),
            _ => Bound::Included(prefix.to_owned()),
        };
        let mut found = Vec::new();
        let mut budget = NAMES_PER_SLICE;
        'seek: loop {
            let names = (from.as_ref().map(String::as_str), Bound::Unbounded);
            for (passed, held) in self.in_order.range::<str, _>(names).enumerate() {
                let name = held.0.topic();
                if found.len() >= most || budget == 0 {
                    return (found, Some(name.to_owned()));
                }
                budget -= 1;
                match step(filter, name) {
                    Step::Match => found.extend(take(held)),
                    Step::From { keep, then } if passed >= NEIGHBOURS => {
                        from = Bound::Included([&name[..keep], then[0], then[1]].concat());
                        continue 'seek;
                    }
                    Step::Next | Step::From { .. } => {}
                    Step::End => return (found, None),
                }
            }
            return (found, None);
        }
    }
}
