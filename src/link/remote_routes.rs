//! What one peer wants from us: its actors, their incarnations and their routes (`link-protocol.md` 4.4, 4.5;
//! EMQX's `emqx_cluster_link_extrouter`). Says which filters became wanted and which no longer are.
//!
//! One value per link. A route is a row (filter, id) with one bit per actor, as in EMQX; it vanishes with its
//! last bit, and a filter is wanted while it has a row.
//!
//! Unlike in EMQX nobody's routes go while it cannot say what it wants. Those of an actor that fell silent, or that begins
//! a new life, are *stale*: they stay wanted until the actor has told all routes of its new life, so that what matches
//! them waits in the spool meanwhile. A peer that is there and of which one actor stays silent has lost that one: its
//! stale routes go after [`ACTOR_TTL_MS`] as in EMQX.

use std::collections::HashMap;
use std::collections::VecDeque;

use crate::link::extension::RouteDigest;
use crate::link::name;
use crate::link::payload::RouteOp;
use crate::link::payload::RouteOps;
use crate::link::remote_routes::rows::RowId;
use crate::link::remote_routes::rows::Rows;
use crate::link::remote_routes::rows::row_bytes;
use crate::mqtt::topic;
use crate::time::Now;

/// How long an actor's routes live without a heartbeat.
pub const ACTOR_TTL_MS: u64 = 30_000;
/// How many actors one peer may have: one per node of it and one for its persistent sessions.
pub const ACTORS_MAX: usize = 64;
/// Lanes of a peer: the bits of a row.
const LANES: u32 = 64;
/// How many routes one peer may have, unless its quota says otherwise.
pub const ROUTES_MAX: usize = 1_000_000;
/// How many bytes of filters and ids one peer may have.
pub const ROUTE_BYTES_MAX: usize = 512 * 1024 * 1024;
/// The actor that all nodes of a cluster share, for the sessions that outlive them: it says nothing of a node.
const SHARED_ACTOR: &str = "ps-routes-v1";
/// Stands for all actors that there were before the process began.
const FORMER: &str = "";
/// How long no batch of routes must have come after a heartbeat for a bootstrap to be over. A sender beats once it is
/// through, but perhaps also in between, and then waits for an acknowledgement.
pub const SETTLE_MS: u64 = 5_000;

/// What a peer is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteLimits {
    /// Actors, at most [`ACTORS_MAX`].
    pub actors: usize,
    /// Rows (filter, id).
    pub routes: usize,
    /// Bytes of filters and ids.
    pub bytes: usize,
}

impl Default for RouteLimits {
    fn default() -> Self {
        Self { actors: ACTORS_MAX, routes: ROUTES_MAX, bytes: ROUTE_BYTES_MAX }
    }
}

/// Why an operation was not applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The actor came back with an incarnation older than the one known.
    #[error("outdated_incarnation_actor")]
    OutdatedIncarnation,
    /// The actor is not known (any more), or lives in another incarnation.
    #[error("unknown actor or incarnation")]
    UnknownActor,
    /// More actors than granted.
    #[error("too many actors")]
    TooManyActors,
    /// More routes or bytes than granted; nothing was applied.
    #[error("route quota exceeded")]
    QuotaExceeded,
}

/// A filter became wanted, or is no longer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteChange {
    /// The first row of the filter came.
    Appeared(Box<str>),
    /// The last row of it went.
    Vanished(Box<str>),
}

/// A row came, or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    /// The filter.
    pub filter: Box<str>,
    /// The id, if it is a text.
    pub id: Box<str>,
    /// Whether it came.
    pub added: bool,
}

impl RowChange {
    fn new(filter: &str, id: &RowId, added: bool) -> Option<Self> {
        let id = match id {
            None => filter,
            Some(id) => std::str::from_utf8(id).ok()?,
        };
        Some(Self { filter: filter.into(), id: id.into(), added })
    }
}

#[derive(Debug)]
struct Actor {
    incarnation: u64,
    lane: u32,
    expires_ms: u64,
    /// Its rows in a few bytes.
    digest: RouteDigest,
    rows: usize,
    /// It has not told all its routes yet.
    bootstrap: Option<Bootstrap>,
}

/// A life that has just begun.
#[derive(Debug, Clone, Copy)]
struct Bootstrap {
    /// It has sent a heartbeat.
    has_beaten: bool,
    /// When it last told something.
    told_ms: u64,
    /// It will say when it has told all ([`RemoteRoutes::bootstrapped`]).
    says_when_over: bool,
}

impl Bootstrap {
    /// When it is over, if nothing more comes.
    fn over_ms(self) -> Option<u64> {
        (self.has_beaten && !self.says_when_over).then(|| self.told_ms.saturating_add(SETTLE_MS))
    }

    /// Whether it may go on where it was cut off.
    fn is_complete(self) -> bool {
        self.has_beaten && !self.says_when_over
    }
}

/// Routes of a former life of an actor, or of one that is silent.
#[derive(Debug)]
struct Stale {
    name: Box<str>,
    lane: u32,
    /// When they go, unless the actor comes back; only while others of the peer are there.
    until_ms: Option<u64>,
}

/// What may be sent to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Nothing: what it wants is stale, and no node of it is there that has said all that it wants. It might not know
    /// yet to whom it should go.
    pub must_wait: bool,
    /// When it last said that it is the one it was, or that it began anew. A connection that was dialled since may lead
    /// to another one now. [`u64::MAX`] if it wants nothing anyway.
    pub confirmed_ms: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct RemoteRoutes {
    limits: RouteLimits,
    actors: HashMap<Box<str>, Actor>,
    /// The oldest first.
    stale: VecDeque<Stale>,
    filters: HashMap<Box<str>, Rows>,
    rows: usize,
    bytes: usize,
    ignored: u64,
    /// When a node of the peer last began or sent a heartbeat.
    confirmed_ms: u64,
    changes: VecDeque<RouteChange>,
    /// Rows that came and went, while somebody wants to know.
    row_changes: VecDeque<RowChange>,
    rows_watched: bool,
}

impl RemoteRoutes {
    /// No routes yet.
    #[must_use]
    pub fn new(limits: RouteLimits) -> Self {
        let limits = RouteLimits { actors: limits.actors.min(ACTORS_MAX), ..limits };
        Self { limits, ..Self::default() }
    }

    /// What the peer wanted when the process before this one ended: it is stale, until a node of the peer has said what it
    /// wants now. What is more than the peer is granted is left out.
    pub fn restore<'a>(&mut self, filters: impl IntoIterator<Item = &'a str>) {
        let lane = self.free_lane();
        for filter in filters {
            let op = RouteOp { delete: false, topic: filter.as_bytes(), id: filter.as_bytes() };
            let fits = self.rows < self.limits.routes && self.bytes + filter.len() <= self.limits.bytes;
            if fits && acceptable(op.topic).is_some() {
                self.add(filter, &op, 1 << lane);
            }
        }
        if !self.filters.is_empty() {
            self.stale.push_back(Stale { name: FORMER.into(), lane, until_ms: None });
        }
    }

    /// An actor begins or continues its life (the table of `link-protocol.md` 4.4). `Ok(true)` means that we do not
    /// know all its routes: it must bootstrap.
    pub fn actor_init(&mut self, now: Now, name: &str, incarnation: u64) -> Result<bool, RouteError> {
        self.actor_begin(now, name, incarnation, false)
    }

    /// The same for one that `says_when_over` a bootstrap is ([`Self::bootstrapped`]), or does not.
    pub fn actor_begin(
        &mut self,
        now: Now,
        name: &str,
        incarnation: u64,
        says_when_over: bool,
    ) -> Result<bool, RouteError> {
        self.collect(now);
        let expires_ms = now.mono_ms.saturating_add(ACTOR_TTL_MS);
        if let Some(actor) = self.actors.get_mut(name) {
            if incarnation < actor.incarnation {
                return Err(RouteError::OutdatedIncarnation);
            }
            if incarnation == actor.incarnation {
                actor.expires_ms = expires_ms;
                // Unlike EMQX: of one that was cut off while it told its routes, as the heartbeat behind them shows, we do
                // not know all, and a sender of EMQX that has bootstrapped once would go on without the rest. The actor
                // of all nodes together may be telling over another connection.
                let is_incomplete =
                    name != SHARED_ACTOR && actor.bootstrap.is_some_and(|bootstrap| !bootstrap.is_complete());
                if let Some(bootstrap) = &mut actor.bootstrap {
                    bootstrap.says_when_over = says_when_over;
                }
                self.confirm(now, name);
                return Ok(is_incomplete);
            }
            self.retire(name, now);
        }
        if self.actors.len() >= self.limits.actors {
            return Err(RouteError::TooManyActors);
        }
        let bootstrap = Some(Bootstrap { has_beaten: false, told_ms: now.mono_ms, says_when_over });
        let lane = self.free_lane();
        let digest = RouteDigest::default();
        self.actors.insert(name.into(), Actor { incarnation, lane, expires_ms, digest, rows: 0, bootstrap });
        self.confirm(now, name);
        self.date_stale(now);
        Ok(true)
    }

    /// A heartbeat of an actor.
    pub fn heartbeat(&mut self, now: Now, name: &str, incarnation: u64) -> Result<(), RouteError> {
        self.collect(now);
        let actor = self.actors.get_mut(name).filter(|actor| actor.incarnation == incarnation);
        let actor = actor.ok_or(RouteError::UnknownActor)?;
        actor.expires_ms = now.mono_ms.saturating_add(ACTOR_TTL_MS);
        if let Some(bootstrap) = &mut actor.bootstrap {
            bootstrap.has_beaten = true;
        }
        self.confirm(now, name);
        Ok(())
    }

    /// An actor has told all its routes: what it wanted in a former life is over.
    pub fn bootstrapped(&mut self, now: Now, name: &str, incarnation: u64) -> Result<(), RouteError> {
        self.collect(now);
        let actor = self.actors.get_mut(name).filter(|actor| actor.incarnation == incarnation);
        actor.ok_or(RouteError::UnknownActor)?.bootstrap = None;
        self.drop_stale_if(|stale| *stale.name == *name);
        self.date_stale(now);
        Ok(())
    }

    /// The rows of an actor in a few bytes, to be compared with what it says itself; not during a bootstrap.
    #[must_use]
    pub fn digest(&self, name: &str, incarnation: u64) -> Option<RouteDigest> {
        let actor = self.actors.get(name).filter(|actor| actor.incarnation == incarnation)?;
        actor.bootstrap.is_none().then_some(actor.digest)
    }

    /// Keeps what [`Self::take_row_changes`] gives from now on, beginning with all rows there are, or says of all that they are
    /// gone.
    pub fn watch_rows(&mut self, watched: bool) {
        if watched == self.rows_watched {
            return;
        }
        let all = self.filters.iter().flat_map(|(filter, rows)| {
            rows.ids().into_iter().filter_map(|id| RowChange::new(filter, id, watched))
        });
        let all: VecDeque<RowChange> = all.collect();
        self.row_changes.extend(all);
        self.rows_watched = watched;
    }

    /// The rows that came and went since the last call, in order.
    pub fn take_row_changes(&mut self) -> VecDeque<RowChange> {
        std::mem::take(&mut self.row_changes)
    }

    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = RowChange> {
        self.filters.iter().flat_map(|(filter, rows)| {
            rows.ids().into_iter().filter_map(|id| RowChange::new(filter, id, true))
        })
    }

    /// Applies a route update, all of it or nothing. Repeated additions and deletions of what is not there
    /// are no-ops. Filters that can match no topic we forward (invalid ones, `$LINK/…`) are left out and
    /// counted: EMQX stores them, to the same effect.
    pub fn update(
        &mut self,
        now: Now,
        name: &str,
        incarnation: u64,
        ops: RouteOps<'_>,
    ) -> Result<(), RouteError> {
        self.update_if(now, name, incarnation, ops, |_| true)
    }

    /// The same of those that are taken; the others are left out and counted.
    pub fn update_if(
        &mut self,
        now: Now,
        name: &str,
        incarnation: u64,
        ops: RouteOps<'_>,
        takes: impl Fn(&RouteOp<'_>) -> bool,
    ) -> Result<(), RouteError> {
        self.collect(now);
        let actor = self.actors.get(name).filter(|actor| actor.incarnation == incarnation);
        let bit = 1_u64 << actor.ok_or(RouteError::UnknownActor)?.lane;
        if self.check_quota(ops).is_err() {
            // What it wants now comes before what it wanted in a former life.
            self.drop_stale();
            self.check_quota(ops)?;
        }
        let mut difference = 0_isize;
        let mut digest = self.actors.get(name).map(|actor| actor.digest).unwrap_or_default();
        for op in ops {
            let Some(filter) = acceptable(op.topic).filter(|_| takes(&op)) else {
                self.ignored += 1;
                continue;
            };
            let change = if op.delete { -self.delete(filter, &op, bit) } else { self.add(filter, &op, bit) };
            match change {
                0 => {}
                1.. => digest.add(op.topic, op.id),
                _ => digest.remove(op.topic, op.id),
            }
            difference += change;
        }
        if let Some(actor) = self.actors.get_mut(name) {
            actor.digest = digest;
            actor.rows = actor.rows.saturating_add_signed(difference);
            if let Some(bootstrap) = &mut actor.bootstrap {
                bootstrap.told_ms = now.mono_ms;
            }
        }
        Ok(())
    }

    /// Whether all additions would fit. Near the bound only additions that are really new count.
    fn check_quota(&self, ops: RouteOps<'_>) -> Result<(), RouteError> {
        let adds = ops.filter(|op| !op.delete);
        let (count, bytes) =
            adds.fold((0, 0), |(count, bytes), op| (count + 1, bytes + op.topic.len() + op.id.len()));
        if self.rows + count <= self.limits.routes && self.bytes + bytes <= self.limits.bytes {
            return Ok(());
        }
        let (mut rows, mut bytes) = (self.rows, self.bytes);
        for op in ops.filter(|op| !op.delete) {
            let Some(filter) = acceptable(op.topic) else { continue };
            let id = row_id(&op);
            let known = self.filters.get(filter).is_some_and(|known| known.holds(&id));
            if !known {
                rows += 1;
                bytes += row_bytes(filter.len(), &id);
            }
            if rows > self.limits.routes || bytes > self.limits.bytes {
                return Err(RouteError::QuotaExceeded);
            }
        }
        Ok(())
    }

    /// Returns 1 if the actor gained a row.
    fn add(&mut self, filter: &str, op: &RouteOp<'_>, bit: u64) -> isize {
        let id = row_id(op);
        let rows = match self.filters.get_mut(filter) {
            Some(rows) => rows,
            None => {
                self.changes.push_back(RouteChange::Appeared(filter.into()));
                self.filters.entry(filter.into()).or_default()
            }
        };
        if let Some(lanes) = rows.lanes_mut(&id) {
            let new = *lanes & bit == 0;
            *lanes |= bit;
            return isize::from(new);
        }
        self.rows += 1;
        self.bytes += row_bytes(filter.len(), &id);
        if self.rows_watched {
            self.row_changes.extend(RowChange::new(filter, &id, true));
        }
        rows.insert(id, bit);
        1
    }

    /// Returns 1 if the actor lost a row.
    fn delete(&mut self, filter: &str, op: &RouteOp<'_>, bit: u64) -> isize {
        let id = row_id(op);
        let Some(rows) = self.filters.get_mut(filter) else { return 0 };
        let Some(lanes) = rows.lanes_mut(&id).filter(|lanes| **lanes & bit != 0) else { return 0 };
        *lanes &= !bit;
        if *lanes == 0 {
            rows.remove(&id);
            if self.rows_watched {
                self.row_changes.extend(RowChange::new(filter, &id, false));
            }
            self.rows -= 1;
            self.bytes -= row_bytes(filter.len(), &id);
            if rows.is_empty()
                && let Some((filter, _)) = self.filters.remove_entry(filter)
            {
                self.changes.push_back(RouteChange::Vanished(filter));
            }
        }
        1
    }

    /// A lane that nobody has. There are more of them than actors; the oldest stale routes give way.
    fn free_lane(&mut self) -> u32 {
        loop {
            let is_free = |lane: &u32| {
                self.actors.values().all(|actor| actor.lane != *lane)
                    && self.stale.iter().all(|stale| stale.lane != *lane)
            };
            if let Some(lane) = (0..LANES).find(is_free) {
                return lane;
            }
            // There is one: there are no more actors than lanes, and one more is about to come.
            let Some(oldest) = self.stale.pop_front() else { return 0 };
            self.clear_lane(oldest.lane);
        }
    }

    /// An actor falls silent or dies: its routes are stale from now on.
    fn retire(&mut self, name: &str, now: Now) {
        if let Some((name, actor)) = self.actors.remove_entry(name)
            && actor.rows > 0
        {
            self.stale.push_back(Stale { name, lane: actor.lane, until_ms: None });
        }
        self.date_stale(now);
    }

    /// While somebody of the peer is there, who stays silent is given so long; while nobody is, and while an actor tells the
    /// routes of its new life, all the time there is.
    fn date_stale(&mut self, now: Now) {
        let until_ms = now.mono_ms.saturating_add(ACTOR_TTL_MS);
        let alone = self.actors.is_empty();
        let tells = |actor: &Actor| actor.bootstrap.is_some();
        for stale in &mut self.stale {
            // Any of them may be about to tell what was restored.
            let telling = match &*stale.name {
                FORMER => self.actors.values().any(tells),
                name => self.actors.get(name).is_some_and(tells),
            };
            stale.until_ms = if alone || telling { None } else { Some(stale.until_ms.unwrap_or(until_ms)) };
        }
    }

    /// Removes a lane from every row.
    fn clear_lane(&mut self, lane: u32) {
        let bit = 1_u64 << lane;
        let emptied = self.filters.extract_if(|filter, rows| {
            let (gone, bytes) = rows.clear(bit, filter.len(), |id| {
                if self.rows_watched {
                    self.row_changes.extend(RowChange::new(filter, id, false));
                }
            });
            self.rows -= gone;
            self.bytes -= bytes;
            rows.is_empty()
        });
        self.changes.extend(emptied.map(|(filter, _)| RouteChange::Vanished(filter)));
    }

    /// Removes the stale routes that `which` chooses.
    fn drop_stale_if(&mut self, which: impl Fn(&Stale) -> bool) {
        let all = std::mem::take(&mut self.stale);
        let (gone, kept): (VecDeque<Stale>, VecDeque<Stale>) = all.into_iter().partition(which);
        self.stale = kept;
        for stale in gone {
            self.clear_lane(stale.lane);
        }
    }

    /// Removes all stale routes: what they cost has become too much.
    pub fn drop_stale(&mut self) {
        self.drop_stale_if(|_| true);
    }

    /// Whether the peer has said all that it wants: nothing is stale.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.stale.is_empty()
    }

    /// Whether and since when the peer may be sent what matches.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let mut nodes = self.actors.iter().filter(|(name, _)| ***name != *SHARED_ACTOR);
        Standing {
            must_wait: !self.stale.is_empty() && !nodes.any(|(_, actor)| actor.bootstrap.is_none()),
            confirmed_ms: if self.rows == 0 { u64::MAX } else { self.confirmed_ms },
        }
    }

    fn confirm(&mut self, now: Now, name: &str) {
        if name != SHARED_ACTOR {
            self.confirmed_ms = now.mono_ms;
        }
    }

    /// Lets actors fall silent that have not been heard of for too long, ends bootstraps, and removes what is stale by
    /// then. Call it at [`Self::poll_timeout`].
    pub fn collect(&mut self, now: Now) {
        if self.poll_timeout().is_none_or(|due| now.mono_ms < due) {
            return;
        }
        let is_due = |due: Option<u64>| due.is_some_and(|due| due <= now.mono_ms);
        let settled: Vec<Box<str>> = self
            .actors
            .iter_mut()
            .filter(|(_, actor)| is_due(actor.bootstrap.and_then(Bootstrap::over_ms)))
            .map(|(name, actor)| {
                actor.bootstrap = None;
                name.clone()
            })
            .collect();
        self.drop_stale_if(|stale| settled.contains(&stale.name));
        if !settled.is_empty() {
            self.date_stale(now);
        }
        let expired: Vec<Box<str>> = self
            .actors
            .iter()
            .filter(|(_, actor)| actor.expires_ms <= now.mono_ms)
            .map(|(name, _)| name.clone())
            .collect();
        for name in expired {
            self.retire(&name, now);
        }
        self.drop_stale_if(|stale| is_due(stale.until_ms));
    }

    /// Changes what the peer is granted, unless it has more than that already; whether it was changed.
    pub fn limit(&mut self, limits: RouteLimits) -> bool {
        let limits = RouteLimits { actors: limits.actors.min(ACTORS_MAX), ..limits };
        let fits =
            self.actors.len() <= limits.actors && self.rows <= limits.routes && self.bytes <= limits.bytes;
        if fits {
            self.limits = limits;
        }
        fits
    }

    /// Says of every filter anew that it is wanted, instead of the changes not drained yet: for a table that
    /// has none of them.
    pub fn announce(&mut self) {
        self.changes = self.filters.keys().map(|filter| RouteChange::Appeared(filter.clone())).collect();
    }

    /// Forgets everything: the link is gone.
    pub fn clear(&mut self) {
        self.actors.clear();
        self.stale.clear();
        if self.rows_watched {
            let gone: Vec<RowChange> = self.rows().map(|row| RowChange { added: false, ..row }).collect();
            self.row_changes.extend(gone);
        }
        (self.rows, self.bytes) = (0, 0);
        let filters = std::mem::take(&mut self.filters);
        self.changes.extend(filters.into_keys().map(RouteChange::Vanished));
    }

    /// When something is due, in monotonic milliseconds: an actor expires, a bootstrap is over, stale routes go.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        let of_actor = |actor: &Actor| {
            let over = actor.bootstrap.and_then(Bootstrap::over_ms);
            over.map_or(actor.expires_ms, |over| over.min(actor.expires_ms))
        };
        let of_stale = self.stale.iter().filter_map(|stale| stale.until_ms);
        self.actors.values().map(of_actor).chain(of_stale).min()
    }

    /// The changes since the last call, in order. Drain after every other call.
    pub fn drain_changes(&mut self) -> std::collections::vec_deque::Drain<'_, RouteChange> {
        self.changes.drain(..)
    }

    /// The oldest of them, as many as asked for.
    pub fn drain_oldest(&mut self, most: usize) -> std::collections::vec_deque::Drain<'_, RouteChange> {
        let count = most.min(self.changes.len());
        self.changes.drain(..count)
    }

    /// How many changes are not drained.
    #[must_use]
    pub fn changes(&self) -> usize {
        self.changes.len()
    }

    /// The filters the peer wants.
    pub fn filters(&self) -> impl Iterator<Item = &str> {
        self.filters.keys().map(AsRef::as_ref)
    }

    /// Filters that it wanted until now, of which the changes are not drained.
    pub fn vanishing(&self) -> impl Iterator<Item = &str> {
        self.changes.iter().filter_map(|change| match change {
            RouteChange::Vanished(filter) => Some(&**filter),
            RouteChange::Appeared(_) => None,
        })
    }

    /// Whether the peer wants this filter.
    #[must_use]
    pub fn wants(&self, filter: &str) -> bool {
        self.filters.contains_key(filter)
    }

    /// How many rows (filter, id) there are: EMQX's `routes` gauge.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether the peer wants nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Bytes of filters and ids held, against [`RouteLimits::bytes`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The actors: name, incarnation, rows.
    pub fn actors(&self) -> impl Iterator<Item = (&str, u64, usize)> {
        self.actors.iter().map(|(name, actor)| (name.as_ref(), actor.incarnation, actor.rows))
    }

    /// How many items were left out because no topic could match them.
    #[must_use]
    pub fn ignored(&self) -> u64 {
        self.ignored
    }
}

fn row_id(op: &RouteOp<'_>) -> RowId {
    (op.id != op.topic).then(|| op.id.into())
}

fn acceptable(topic: &[u8]) -> Option<&str> {
    let filter = std::str::from_utf8(topic).ok()?;
    (topic::check_filter(filter).is_ok() && !name::is_reserved(filter)).then_some(filter)
}

mod rows;
#[cfg(test)]
mod tests;
