//! What one peer wants from us: its actors, their incarnations and their routes (`link-protocol.md` 4.4, 4.5;
//! EMQX's `emqx_cluster_link_extrouter`). Says which filters became wanted and which no longer are.
//!
//! One value per link. A route is a row (filter, id) with one bit per actor, as in EMQX; it vanishes with its
//! last bit, and a filter is wanted while it has a row.

use std::collections::HashMap;
use std::collections::VecDeque;

use smallvec::SmallVec;

use crate::link::name;
use crate::link::payload::RouteOp;
use crate::link::payload::RouteOps;
use crate::mqtt::topic;
use crate::time::Now;

/// How long an actor's routes live without a heartbeat.
pub const ACTOR_TTL_MS: u64 = 30_000;
/// How many actors one peer may have: one per node of it and one for its persistent sessions.
pub const ACTORS_MAX: usize = 64;
/// How many routes one peer may have, unless its quota says otherwise.
pub const ROUTES_MAX: usize = 1_000_000;
/// How many bytes of filters and ids one peer may have.
pub const ROUTE_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Up to here the rows of a filter are a plain list.
const ROWS_LISTED_MAX: usize = 8;

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

#[derive(Debug)]
struct Actor {
    incarnation: u64,
    lane: u32,
    expires_ms: u64,
    rows: usize,
}

/// A route id; `None` stands for one that equals the filter, which is the common case.
type RowId = Option<Box<[u8]>>;

/// The rows of one filter, by id, each with the lanes of its actors.
#[derive(Debug)]
enum Rows {
    Few(SmallVec<[(RowId, u64); 1]>),
    Many(HashMap<RowId, u64>),
}

impl Rows {
    fn lanes_mut(&mut self, id: &RowId) -> Option<&mut u64> {
        match self {
            Self::Few(rows) => rows.iter_mut().find(|(other, _)| other == id).map(|(_, lanes)| lanes),
            Self::Many(rows) => rows.get_mut(id),
        }
    }

    fn insert(&mut self, id: RowId, lanes: u64) {
        match self {
            Self::Few(rows) if rows.len() < ROWS_LISTED_MAX => rows.push((id, lanes)),
            Self::Few(rows) => {
                let mut map: HashMap<_, _> = rows.drain(..).collect();
                map.insert(id, lanes);
                *self = Self::Many(map);
            }
            Self::Many(rows) => drop(rows.insert(id, lanes)),
        }
    }

    fn remove(&mut self, id: &RowId) {
        match self {
            Self::Few(rows) => rows.retain(|(other, _)| other != id),
            Self::Many(rows) => drop(rows.remove(id)),
        }
    }

    /// Clears a lane everywhere; returns how many rows went and their ids' bytes.
    fn clear(&mut self, bit: u64, filter_bytes: usize) -> (usize, usize) {
        let (mut gone, mut bytes) = (0, 0);
        let mut keep = |id: &RowId, lanes: &mut u64| {
            let had = *lanes & bit != 0;
            *lanes &= !bit;
            if had && *lanes == 0 {
                gone += 1;
                bytes += row_bytes(filter_bytes, id);
            }
            *lanes != 0
        };
        match self {
            Self::Few(rows) => rows.retain(|(id, lanes)| keep(id, lanes)),
            Self::Many(rows) => rows.retain(|id, lanes| keep(id, lanes)),
        }
        (gone, bytes)
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Few(rows) => rows.is_empty(),
            Self::Many(rows) => rows.is_empty(),
        }
    }
}

fn row_bytes(filter_bytes: usize, id: &RowId) -> usize {
    filter_bytes + id.as_ref().map_or(0, |id| id.len())
}

/// See the module.
#[derive(Debug, Default)]
pub struct RemoteRoutes {
    limits: RouteLimits,
    actors: HashMap<Box<str>, Actor>,
    filters: HashMap<Box<str>, Rows>,
    rows: usize,
    bytes: usize,
    ignored: u64,
    changes: VecDeque<RouteChange>,
}

impl RemoteRoutes {
    /// No routes yet.
    #[must_use]
    pub fn new(limits: RouteLimits) -> Self {
        let limits = RouteLimits { actors: limits.actors.min(ACTORS_MAX), ..limits };
        Self { limits, ..Self::default() }
    }

    /// An actor begins or continues its life (the table of `link-protocol.md` 4.4). `Ok(true)` means that we
    /// know no routes of it: it must bootstrap.
    pub fn actor_init(&mut self, now: Now, name: &str, incarnation: u64) -> Result<bool, RouteError> {
        self.collect(now);
        let expires_ms = now.mono_ms.saturating_add(ACTOR_TTL_MS);
        if let Some(actor) = self.actors.get_mut(name) {
            if incarnation < actor.incarnation {
                return Err(RouteError::OutdatedIncarnation);
            }
            if incarnation == actor.incarnation {
                actor.expires_ms = expires_ms;
                return Ok(false);
            }
            self.remove_actor(name);
        }
        let free = (0..64).find(|lane| self.actors.values().all(|actor| actor.lane != *lane));
        let lane =
            free.filter(|_| self.actors.len() < self.limits.actors).ok_or(RouteError::TooManyActors)?;
        self.actors.insert(name.into(), Actor { incarnation, lane, expires_ms, rows: 0 });
        Ok(true)
    }

    /// A heartbeat of an actor.
    pub fn heartbeat(&mut self, now: Now, name: &str, incarnation: u64) -> Result<(), RouteError> {
        self.collect(now);
        let actor = self.actors.get_mut(name).filter(|actor| actor.incarnation == incarnation);
        actor.ok_or(RouteError::UnknownActor)?.expires_ms = now.mono_ms.saturating_add(ACTOR_TTL_MS);
        Ok(())
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
        self.collect(now);
        let actor = self.actors.get(name).filter(|actor| actor.incarnation == incarnation);
        let bit = 1_u64 << actor.ok_or(RouteError::UnknownActor)?.lane;
        self.check_quota(ops)?;
        let mut difference = 0_isize;
        for op in ops {
            let Some(filter) = acceptable(op.topic) else {
                self.ignored += 1;
                continue;
            };
            difference += if op.delete { -self.delete(filter, &op, bit) } else { self.add(filter, &op, bit) };
        }
        if let Some(actor) = self.actors.get_mut(name) {
            actor.rows = actor.rows.saturating_add_signed(difference);
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
            let known = match self.filters.get(filter) {
                Some(Rows::Few(known)) => known.iter().any(|(other, _)| *other == id),
                Some(Rows::Many(known)) => known.contains_key(&id),
                None => false,
            };
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
                self.filters.entry(filter.into()).or_insert_with(|| Rows::Few(SmallVec::new()))
            }
        };
        if let Some(lanes) = rows.lanes_mut(&id) {
            let new = *lanes & bit == 0;
            *lanes |= bit;
            return isize::from(new);
        }
        self.rows += 1;
        self.bytes += row_bytes(filter.len(), &id);
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

    /// Removes an actor and its bit from every row.
    fn remove_actor(&mut self, name: &str) {
        let Some(actor) = self.actors.remove(name).filter(|actor| actor.rows > 0) else { return };
        let bit = 1_u64 << actor.lane;
        let emptied = self.filters.extract_if(|filter, rows| {
            let (gone, bytes) = rows.clear(bit, filter.len());
            self.rows -= gone;
            self.bytes -= bytes;
            rows.is_empty()
        });
        self.changes.extend(emptied.map(|(filter, _)| RouteChange::Vanished(filter)));
    }

    /// Removes the actors that have been silent for too long. Call it at [`Self::poll_timeout`].
    pub fn collect(&mut self, now: Now) {
        if self.poll_timeout().is_none_or(|due| now.mono_ms < due) {
            return;
        }
        let expired: Vec<Box<str>> = self
            .actors
            .iter()
            .filter(|(_, actor)| actor.expires_ms <= now.mono_ms)
            .map(|(name, _)| name.clone())
            .collect();
        for name in expired {
            self.remove_actor(&name);
        }
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
        (self.rows, self.bytes) = (0, 0);
        let filters = std::mem::take(&mut self.filters);
        self.changes.extend(filters.into_keys().map(RouteChange::Vanished));
    }

    /// When the next actor expires, in monotonic milliseconds.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        self.actors.values().map(|actor| actor.expires_ms).min()
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

#[cfg(test)]
mod tests;
