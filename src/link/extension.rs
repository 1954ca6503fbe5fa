//! What two brokers of ours say to each other beyond EMQX's protocol, on the same wire: integer keys from 1000 up in
//! the maps that there are. Never a new topic, never a new atom. EMQX reads the keys that it knows and no others.
//!
//! | key | in | value |
//! |---|---|---|
//! | 1000 | `actor_init`, `actor_init_ack` | a list of binaries: what its sender can do ([`Capabilities`]) |
//! | 1001 | `route` | anything: the last batch of a bootstrap |
//! | 1002 | `heartbeat` (at QoS 1 then), `heartbeat_ack` | the books of its sender ([`Sent`], [`Received`]) |
//! | 1003 | `heartbeat`, `heartbeat_ack` | `{Count, Sum}` of the routes of the actor ([`RouteDigest`]), as told, as known |
//! | 1004 | `retained_page` | a list of Topic Filters: of which retained messages ([`crate::link::retained`]) |
//! | 1005 | `retained_page`, `retained_page_ack` | a topic: behind which, up to which; without it: from the first, to the last |
//! | 1006 | `retained_page`, `retained_page_ack` | a number: the same in both |
//! | 1007 | `retained_page` | how many bytes the answer may have |
//! | 1008 | `retained_page_ack` | when it was asked for, in milliseconds since the epoch, by the clock of who answers |
//! | 1009 | `retained_page_ack` | a list of messages, each as a forwarded one |
//! | 1010 | `actor_init_ack` | a list of binaries: the clusters that its sender reaches through us ([`crate::link::relay`]) |
//! | 1011 | `extra` of a message | a list of binaries: the clusters that it came through |
//! | 1012 | `actor_init_ack` | a binary: the version of the program that sends it |
//!
//! `actor_init` carries 1000 always, everything else goes only to a peer that has sent 1000 too and named what it is
//! about. Answers come on `$LINK/cluster/resp/…`, as that to `actor_init`; the new operations are `heartbeat_ack`,
//! `retained_page` and `retained_page_ack`, and operations are binaries.

use crate::link::etf;
use crate::link::etf::Head;
use crate::link::etf::Reader;
use crate::link::ingress::DropReason;

/// Capabilities.
pub const KEY_CAPABILITIES: u64 = 1_000;
/// The last batch of a bootstrap.
pub const KEY_BOOTSTRAP_END: u64 = 1_001;
/// Books.
pub const KEY_BOOKS: u64 = 1_002;
/// Routes told or known.
pub const KEY_ROUTE_DIGEST: u64 = 1_003;
/// Of which retained messages.
pub const KEY_FILTERS: u64 = 1_004;
/// Where a page begins and ends.
pub const KEY_POSITION: u64 = 1_005;
/// Which page.
pub const KEY_PAGE: u64 = 1_006;
/// How long it may be.
pub const KEY_PAGE_BYTES: u64 = 1_007;
/// Of which moment it is.
pub const KEY_AS_OF: u64 = 1_008;
/// What is in it.
pub const KEY_MESSAGES: u64 = 1_009;

/// Clusters reached through the peer.
pub const KEY_REACH: u64 = 1_010;
/// Clusters that a message came through.
pub const KEY_PATH: u64 = 1_011;

/// The version of the peer's program.
pub const KEY_VERSION: u64 = 1_012;
/// Ours.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The longest that is shown.
const VERSION_BYTES_MAX: usize = 64;

/// A version as a peer has told it, if it can be shown.
#[must_use]
pub fn version(text: &str) -> Option<&str> {
    let is_shown = text.len() <= VERSION_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
    (is_shown && !text.is_empty()).then_some(text)
}

/// What clusters name when they enrol (`trust.md` 2.4) for what [`Capabilities::OURS`] was in the first version that did.
pub const ENROLLED_FIRST: &str = "link-1";

/// How many capabilities of a peer are looked at.
const CAPABILITIES_MAX: u32 = 64;
/// Bits of a sum: what Erlang's integers and ours carry alike without a thought.
const SUM_MASK: u64 = (1 << 62) - 1;

/// What a broker can do beyond EMQX's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities(u32);

impl Capabilities {
    /// Nothing: EMQX.
    pub const NONE: Self = Self(0);
    /// Says which batch ends a bootstrap, and waits for that of a peer which says so too.
    pub const BOOTSTRAP_END: Self = Self(1);
    /// Answers heartbeats that bring books or a digest of routes.
    pub const HEARTBEAT_ACK: Self = Self(1 << 1);
    /// Passes on what others want, or takes what was passed on.
    pub const RELAY: Self = Self(1 << 2);
    /// Tells the other which messages it retains, and keeps copies of those of the other that its clients want: only
    /// where a link says `retained`.
    pub const RETAINED: Self = Self(1 << 3);
    /// What this version can do with any peer.
    pub const OURS: Self = Self(Self::BOOTSTRAP_END.0 | Self::HEARTBEAT_ACK.0);

    const NAMES: [(Self, &'static str); 4] = [
        (Self::BOOTSTRAP_END, "bootstrap_end"),
        (Self::HEARTBEAT_ACK, "heartbeat_ack"),
        (Self::RELAY, "relay"),
        (Self::RETAINED, "retained"),
    ];

    /// Whether all of `others` are among these.
    #[must_use]
    pub fn has(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Those that both have.
    #[must_use]
    pub fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// These and those.
    #[must_use]
    pub fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// What a peer that has named these when it enrolled must be able to do on every link from then on (`trust.md` 2.7). A later
    /// version may add to it.
    #[must_use]
    pub fn demanded(enrolled: &[String]) -> Self {
        let is_ours = enrolled.iter().any(|name| name == ENROLLED_FIRST);
        if is_ours { Self::BOOTSTRAP_END.with(Self::HEARTBEAT_ACK) } else { Self::NONE }
    }

    /// These without those.
    #[must_use]
    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// As a number, to be kept in an atomic.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }

    /// From [`Self::bits`].
    #[must_use]
    pub fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Their names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().filter(move |(one, _)| self.has(*one)).map(|(_, name)| name)
    }

    /// Reads the list of a peer. What is unknown is for a newer version; what is no list of binaries says nothing.
    #[must_use]
    pub fn parse(mut list: Reader<'_>) -> Self {
        let Ok(Head::List(count)) = list.head() else { return Self::NONE };
        let mut all = Self::NONE;
        for _ in 0..count.min(CAPABILITIES_MAX) {
            let Ok(name) = list.binary() else { break };
            if let Some((one, _)) = Self::NAMES.iter().find(|(_, known)| known.as_bytes() == name) {
                all = all.with(*one);
            }
        }
        all
    }

    /// Appends the list.
    pub fn put(self, out: &mut Vec<u8>) {
        let count = self.0.count_ones();
        if count > 0 {
            etf::put_list(out, count);
        }
        for name in self.names() {
            etf::put_binary(out, name.as_bytes());
        }
        etf::put_nil(out);
    }
}

/// A set of routes in a few bytes: both sides make it of what they have, in any order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RouteDigest {
    /// How many there are.
    pub count: u64,
    /// The sum of their hashes.
    sum: u64,
}

impl RouteDigest {
    /// A route came.
    pub fn add(&mut self, topic: &[u8], id: &[u8]) {
        self.count = self.count.wrapping_add(1);
        self.sum = self.sum.wrapping_add(hash(topic, id)) & SUM_MASK;
    }

    /// A route went.
    pub fn remove(&mut self, topic: &[u8], id: &[u8]) {
        self.count = self.count.wrapping_sub(1);
        self.sum = self.sum.wrapping_sub(hash(topic, id)) & SUM_MASK;
    }

    /// Reads `{Count, Sum}`.
    #[must_use]
    pub fn parse(mut value: Reader<'_>) -> Option<Self> {
        let Ok(Head::Tuple(2)) = value.head() else { return None };
        Some(Self { count: natural(&mut value)?, sum: natural(&mut value)? })
    }

    /// Appends it.
    pub fn put(self, out: &mut Vec<u8>) {
        etf::put_tuple(out, 2);
        etf::put_integer(out, self.count);
        etf::put_integer(out, self.sum);
    }
}

/// FNV-1a over both with a byte between that is in no topic, its bits mixed at the end. It is part of the protocol.
fn hash(topic: &[u8], id: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let first = topic.iter().chain(&[0]).fold(0xcbf2_9ce4_8422_2325, step);
    let mut hash = id.iter().fold(first, step);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

fn natural(value: &mut Reader<'_>) -> Option<u64> {
    u64::try_from(value.integer().ok()?).ok()
}

/// Messages dropped, by reason.
pub type Dropped = [u64; DropReason::ALL.len()];

/// What a sender says of the messages that it owes or owed its peer. All but `queued`, `in_flight` and `unaccounted` only rise
/// while `epoch_ms` stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// Since when it counts, by its clock: a new life begins at zero.
    pub epoch_ms: u64,
    /// Acknowledged by the receiver, be it with a failure.
    pub acknowledged: u64,
    /// Sent at QoS 0.
    pub fired: u64,
    /// Waiting, never sent on this connection.
    pub queued: u64,
    /// Sent and not acknowledged.
    pub in_flight: u64,
    /// Dropped before they were acknowledged.
    pub dropped: Dropped,
    /// What the last comparison with the receiver's books left: zero, or there is a fault in one of us.
    pub unaccounted: u64,
}

/// What a receiver says of the messages that came from its peer. All only rise while `epoch_ms` stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Received {
    /// Since when it counts, by its clock.
    pub epoch_ms: u64,
    /// Came at QoS 1, each message once.
    pub received: u64,
    /// Came at QoS 0.
    pub fired: u64,
    /// Came again, and were acknowledged again and nothing else.
    pub repeated: u64,
    /// Of those that came: dropped.
    pub dropped: Dropped,
}

impl Sent {
    /// Reads what a peer says; `None` if it is nothing that can be counted with.
    #[must_use]
    pub fn parse(mut value: Reader<'_>) -> Option<Self> {
        let Ok(Head::Tuple(7)) = value.head() else { return None };
        Some(Self {
            epoch_ms: natural(&mut value)?,
            acknowledged: natural(&mut value)?,
            fired: natural(&mut value)?,
            queued: natural(&mut value)?,
            in_flight: natural(&mut value)?,
            dropped: parse_dropped(&mut value)?,
            unaccounted: natural(&mut value)?,
        })
    }

    /// Appends it.
    pub fn put(&self, out: &mut Vec<u8>) {
        etf::put_tuple(out, 7);
        for number in [self.epoch_ms, self.acknowledged, self.fired, self.queued, self.in_flight] {
            etf::put_integer(out, number);
        }
        put_dropped(out, &self.dropped);
        etf::put_integer(out, self.unaccounted);
    }

    /// How many may have reached the receiver at most.
    #[must_use]
    pub fn reached_max(&self) -> u64 {
        self.dropped.iter().fold(self.acknowledged.saturating_add(self.in_flight), |all, dropped| {
            all.saturating_add(*dropped)
        })
    }
}

impl Received {
    /// Reads what a peer says; `None` if it is nothing that can be counted with.
    #[must_use]
    pub fn parse(mut value: Reader<'_>) -> Option<Self> {
        let Ok(Head::Tuple(5)) = value.head() else { return None };
        Some(Self {
            epoch_ms: natural(&mut value)?,
            received: natural(&mut value)?,
            fired: natural(&mut value)?,
            repeated: natural(&mut value)?,
            dropped: parse_dropped(&mut value)?,
        })
    }

    /// Appends it.
    pub fn put(&self, out: &mut Vec<u8>) {
        etf::put_tuple(out, 5);
        for number in [self.epoch_ms, self.received, self.fired, self.repeated] {
            etf::put_integer(out, number);
        }
        put_dropped(out, &self.dropped);
    }
}

/// A map from reason to number. Reasons of a newer version are left out.
fn parse_dropped(value: &mut Reader<'_>) -> Option<Dropped> {
    let pairs = value.map().ok()?;
    let mut dropped = Dropped::default();
    for _ in 0..pairs {
        let name = value.binary().ok()?;
        let count = natural(value)?;
        if let Some(reason) = DropReason::ALL.iter().find(|reason| reason.as_str().as_bytes() == name) {
            dropped[reason.index()] = count;
        }
    }
    Some(dropped)
}

fn put_dropped(out: &mut Vec<u8>, dropped: &Dropped) {
    let some = || DropReason::ALL.into_iter().filter(|reason| dropped[reason.index()] > 0);
    etf::put_map(out, u32::try_from(some().count()).unwrap_or(0));
    for reason in some() {
        etf::put_binary(out, reason.as_str().as_bytes());
        etf::put_integer(out, dropped[reason.index()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::compress;

    fn open(bytes: &[u8]) -> Reader<'_> {
        compress::open_plain(bytes).unwrap()
    }

    fn written(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        etf::put_version(&mut out);
        put(&mut out);
        out
    }

    #[test]
    fn capabilities_come_back_and_unknown_ones_are_passed_over() {
        for bits in 0..16 {
            let some = Capabilities::from_bits(bits);
            assert_eq!(Capabilities::parse(open(&written(|out| some.put(out)))), some);
        }
        let newer = written(|out| {
            etf::put_list(out, 3);
            etf::put_binary(out, b"time_travel");
            etf::put_binary(out, b"bootstrap_end");
            etf::put_binary(out, &[255]);
            etf::put_nil(out);
        });
        assert_eq!(Capabilities::parse(open(&newer)), Capabilities::BOOTSTRAP_END);
        for other in [written(|out| etf::put_integer(out, 7)), written(|out| etf::put_map(out, 0))] {
            assert_eq!(Capabilities::parse(open(&other)), Capabilities::NONE);
        }
    }

    #[test]
    fn who_enrolled_as_one_of_ours_must_remain_one() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(Capabilities::demanded(&names(&["reverse-1", "link-9"])), Capabilities::NONE);
        let demanded = Capabilities::demanded(&names(&["link-2", "link-1", "reverse-1"]));
        assert!(Capabilities::OURS.has(demanded), "or we would be refused by our own kind");
        assert!(!Capabilities::NONE.has(demanded) && !Capabilities::BOOTSTRAP_END.has(demanded));
    }

    #[test]
    fn a_version_that_could_move_a_cursor_is_not_shown() {
        assert_eq!((version(VERSION), version("2.0.0-rc.1+x")), (Some(VERSION), Some("2.0.0-rc.1+x")));
        for wrong in ["", "1.0 beta", "1.0\n", "\u{1b}[2J", "é", &"1".repeat(65)] {
            assert_eq!(version(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn every_capability_has_a_name() {
        assert_eq!(Capabilities::OURS.names().count(), Capabilities::OURS.bits().count_ones() as usize);
    }

    #[test]
    fn a_digest_depends_on_the_routes_and_not_on_their_order() {
        let routes: [(&[u8], &[u8]); 3] = [(b"a", b"a"), (b"a/#", b"a/#"), (b"a", b"$share/g/a")];
        let mut forward = RouteDigest::default();
        let mut backward = RouteDigest::default();
        routes.iter().for_each(|(topic, id)| forward.add(topic, id));
        routes.iter().rev().for_each(|(topic, id)| backward.add(topic, id));
        assert_eq!(forward, backward);
        let bytes = written(|out| forward.put(out));
        assert_eq!(RouteDigest::parse(open(&bytes)), Some(forward));
        backward.remove(b"a/#", b"a/#");
        backward.add(b"a/+", b"a/+");
        assert_ne!(forward, backward, "as many, but others");
        routes.iter().for_each(|(topic, id)| forward.remove(topic, id));
        assert_eq!(forward, RouteDigest::default());
    }

    #[test]
    fn books_come_back() {
        let mut dropped = Dropped::default();
        dropped[DropReason::Expired.index()] = 3;
        let sent = Sent { epoch_ms: 1 << 40, acknowledged: 5, in_flight: 2, dropped, ..Sent::default() };
        assert_eq!(Sent::parse(open(&written(|out| sent.put(out)))), Some(sent));
        assert_eq!(sent.reached_max(), 10);
        let received =
            Received { epoch_ms: 9, received: u64::from(u32::MAX) + 1, dropped, ..Received::default() };
        assert_eq!(Received::parse(open(&written(|out| received.put(out)))), Some(received));
        assert_eq!(Sent::parse(open(&written(|out| received.put(out)))), None);
        assert_eq!(Received::parse(open(&written(etf::put_nil))), None);
    }
}
