//! The control operations of cluster linking (`link-protocol.md` 3.2), to and from external terms:
//! actor_init, its ack, route updates, heartbeats. EMQX's `emqx_cluster_link_mqtt`; what ours add is in [`crate::link::extension`].
//!
//! Key order is free, unknown keys are ignored, every known key is checked. Route lists are not copied: they
//! are checked once as a whole, then iterated.

use std::borrow::Cow;

use crate::link::compress::Deflater;
use crate::link::etf;
use crate::link::etf::EtfError;
use crate::link::etf::Head;
use crate::link::etf::Reader;
use crate::link::extension;
use crate::link::extension::Capabilities;
use crate::link::extension::KEY_BOOKS;
use crate::link::extension::KEY_BOOTSTRAP_END;
use crate::link::extension::KEY_CAPABILITIES;
use crate::link::extension::KEY_REACH;
use crate::link::extension::KEY_ROUTE_DIGEST;
use crate::link::extension::KEY_VERSION;
use crate::link::extension::Received;
use crate::link::extension::RouteDigest;
use crate::link::extension::Sent;
use crate::link::payload::page::PageAnswer;
use crate::link::payload::page::PageRequest;
use crate::link::relay::REACH_MAX;

pub mod page;

/// The protocol version every release speaks (`link-protocol.md`, fact 2).
pub const PROTO_VER: u64 = 1;
/// How many items one route update may hold. EMQX sends at most 4,000.
pub const ROUTES_PER_UPDATE_MAX: u32 = 65_536;
/// The longest actor name in bytes. EMQX's are node names, that is atoms of at most 255 characters.
pub const ACTOR_BYTES_MAX: usize = 1_024;
/// The longest route id in bytes: a topic, a group or session, and a prefix.
pub const ROUTE_ID_BYTES_MAX: usize = 2 * 65_535 + 8;

const KEY_ACTOR: u64 = 10;
const KEY_INCARNATION: u64 = 11;
const KEY_ROUTES: u64 = 12;
const KEY_TARGET_CLUSTER: u64 = 13;
const KEY_PROTO_VER: u64 = 14;
const KEY_RESULT: u64 = 15;
const KEY_NEED_BOOTSTRAP: u64 = 16;
/// How many keys of [`crate::link::extension`] there are.
const EXTENSIONS: usize = (KEY_VERSION - KEY_CAPABILITIES) as usize + 1;
/// First element of a deletion in a route list.
const ROUTE_DELETE: u64 = 100;

/// Why a payload is no control operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Not a term, or not one we take.
    #[error(transparent)]
    Term(#[from] EtfError),
    /// Not a map.
    #[error("a control operation is a map")]
    NotAMap,
    /// `$op` is missing or unknown.
    #[error("unknown operation")]
    Operation,
    /// A key the operation needs is missing.
    #[error("key {0} is missing")]
    Missing(u64),
    /// A key holds something else than it should.
    #[error("key {0} is not what it should be")]
    Field(u64),
    /// A key occurs twice.
    #[error("key {0} occurs twice")]
    Twice(u64),
    /// An item of a route list is neither an addition nor a deletion.
    #[error("a route item is not {{Topic, Id}} or {{100, Topic, Id}}")]
    RouteItem,
    /// More than [`ROUTES_PER_UPDATE_MAX`] items.
    #[error("too many routes in one update")]
    TooManyRoutes,
}

/// What a peer publishes to `$LINK/cluster/route/…`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Control<'a> {
    /// Opens a connection for one actor.
    ActorInit(ActorInit<'a>),
    /// Adds and deletes routes.
    Route(RouteUpdate<'a>),
    /// Keeps the actor's routes alive.
    Heartbeat(Heartbeat<'a>),
    /// Asks for retained messages.
    RetainedPage(PageRequest<'a>),
}

/// `actor_init`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActorInit<'a> {
    /// Who replicates: one node of the peer, or `ps-routes-v1`.
    pub actor: &'a str,
    /// Rises with every life of the actor.
    pub incarnation: u64,
    /// The name by which the sender knows the receiver.
    pub target_cluster: &'a str,
    /// Read, not compared (`link-protocol.md` 4.4).
    pub proto_ver: u64,
    /// What the sender can do beyond this protocol.
    pub capabilities: Capabilities,
}

/// `heartbeat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heartbeat<'a> {
    /// Whose routes are meant.
    pub actor: &'a str,
    /// Its incarnation.
    pub incarnation: u64,
    /// What the sender has to say of messages.
    pub books: Option<Sent>,
    /// The routes that it has told.
    pub routes: Option<RouteDigest>,
}

/// `heartbeat_ack`: the answer of one of ours to a heartbeat that says more than that its sender is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatAck<'a> {
    /// As in the heartbeat.
    pub actor: &'a str,
    /// Likewise.
    pub incarnation: u64,
    /// What came from the sender's cluster.
    pub books: Option<Received>,
    /// The routes of the actor that are known.
    pub routes: Option<RouteDigest>,
}

/// What comes on a response topic.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer<'a> {
    /// To an actor_init.
    Init(ActorInitAck<'a>),
    /// To a heartbeat.
    Heartbeat(HeartbeatAck<'a>),
    /// To a retained_page.
    RetainedPage(PageAnswer<'a>),
}

/// `route`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RouteUpdate<'a> {
    /// Whose routes are meant.
    pub actor: &'a str,
    /// Its incarnation; EMQX goes by the connection's instead (`link-protocol.md` 4.4).
    pub incarnation: u64,
    /// The items.
    pub ops: RouteOps<'a>,
    /// It ends a bootstrap.
    pub is_last: bool,
}

/// One item of a route list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteOp<'a> {
    /// Addition or deletion.
    pub delete: bool,
    /// The topic filter wanted; not checked.
    pub topic: &'a [u8],
    /// Opaque bytes that tell apart routes of one filter.
    pub id: &'a [u8],
}

/// The items of a route update: checked, and decoded again while iterating.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RouteOps<'a> {
    reader: Reader<'a>,
    left: u32,
}

impl<'a> RouteOps<'a> {
    /// Checks every item, so that iterating cannot fail.
    fn parse(mut reader: Reader<'a>) -> Result<Self, PayloadError> {
        let count = match reader.head()? {
            Head::Nil => 0,
            Head::List(count) => count,
            _ => return Err(PayloadError::Field(KEY_ROUTES)),
        };
        if count > ROUTES_PER_UPDATE_MAX {
            return Err(PayloadError::TooManyRoutes);
        }
        let ops = Self { reader, left: count };
        for _ in 0..count {
            parse_op(&mut reader)?;
        }
        if count > 0 && reader.head()? != Head::Nil {
            return Err(PayloadError::RouteItem);
        }
        Ok(ops)
    }
}

impl<'a> Iterator for RouteOps<'a> {
    type Item = RouteOp<'a>;

    fn next(&mut self) -> Option<RouteOp<'a>> {
        self.left = self.left.checked_sub(1)?;
        parse_op(&mut self.reader).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

fn parse_op<'a>(reader: &mut Reader<'a>) -> Result<RouteOp<'a>, PayloadError> {
    let delete = match reader.head()? {
        Head::Tuple(2) => false,
        Head::Tuple(3) if reader.head()? == Head::Integer(100) => true,
        _ => return Err(PayloadError::RouteItem),
    };
    let topic = reader.binary().map_err(|_| PayloadError::RouteItem)?;
    let id = reader.binary().map_err(|_| PayloadError::RouteItem)?;
    if id.len() > ROUTE_ID_BYTES_MAX {
        return Err(PayloadError::RouteItem);
    }
    Ok(RouteOp { delete, topic, id })
}

/// `actor_init_ack`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActorInitAck<'a> {
    /// As in the init.
    pub actor: &'a str,
    /// [`PROTO_VER`].
    pub proto_ver: u64,
    /// Accepted, or the reason why not: any text.
    pub result: Result<(), Cow<'a, str>>,
    /// Whether the receiver knows none of the actor's routes. Old receivers always say false
    /// (`link-protocol.md` 4.7); absent in rejections.
    pub need_bootstrap: Option<bool>,
    /// What the receiver can do beyond this protocol.
    pub capabilities: Capabilities,
    /// Clusters that the receiver reaches through the sender.
    pub reach: Vec<&'a str>,
    /// The version of the receiver's program.
    pub version: Option<&'a str>,
}

/// The known keys of a map, each as a reader of its value.
#[derive(Default)]
struct Fields<'a> {
    op: Option<&'a [u8]>,
    values: [Option<Reader<'a>>; 7],
    /// The keys from 1000 on.
    extensions: [Option<Reader<'a>>; EXTENSIONS],
}

impl<'a> Fields<'a> {
    fn read(mut reader: Reader<'a>) -> Result<Self, PayloadError> {
        let Head::Map(pairs) = reader.head()? else { return Err(PayloadError::NotAMap) };
        let mut fields = Self::default();
        for _ in 0..pairs {
            let mut key = reader.term()?;
            let mut value = reader.term()?;
            match key.head()? {
                Head::Atom(b"$op") => match value.head()? {
                    Head::Binary(name) if fields.op.is_none() => fields.op = Some(name),
                    _ => return Err(PayloadError::Operation),
                },
                Head::Integer(key @ 10..=16) => fields.set(key.cast_unsigned(), value)?,
                // Nothing of ours is worth refusing what EMQX would take.
                Head::Integer(key) => fields.extend(key.cast_unsigned(), value),
                _ => {}
            }
        }
        Ok(fields)
    }

    fn extend(&mut self, key: u64, value: Reader<'a>) {
        let index = usize::try_from(key.wrapping_sub(KEY_CAPABILITIES)).unwrap_or(usize::MAX);
        if let Some(extension) = self.extensions.get_mut(index) {
            *extension = Some(value);
        }
    }

    fn extension(&self, key: u64) -> Option<Reader<'a>> {
        self.extensions[(key - KEY_CAPABILITIES) as usize]
    }

    fn capabilities(&self) -> Capabilities {
        self.extension(KEY_CAPABILITIES).map_or(Capabilities::NONE, Capabilities::parse)
    }

    fn set(&mut self, key: u64, value: Reader<'a>) -> Result<(), PayloadError> {
        let earlier = self.values[key as usize - 10].replace(value);
        earlier.map_or(Ok(()), |_| Err(PayloadError::Twice(key)))
    }

    fn value(&self, key: u64) -> Result<Reader<'a>, PayloadError> {
        self.values[key as usize - 10].ok_or(PayloadError::Missing(key))
    }

    fn number(&self, key: u64) -> Result<u64, PayloadError> {
        let value = self.value(key)?.integer().map_err(|_| PayloadError::Field(key))?;
        u64::try_from(value).map_err(|_| PayloadError::Field(key))
    }

    fn text(&self, key: u64) -> Result<&'a str, PayloadError> {
        self.value(key)?.text().map_err(|_| PayloadError::Field(key))
    }

    fn actor(&self) -> Result<&'a str, PayloadError> {
        let actor = self.text(KEY_ACTOR)?;
        if actor.is_empty() || actor.len() > ACTOR_BYTES_MAX {
            return Err(PayloadError::Field(KEY_ACTOR));
        }
        Ok(actor)
    }
}

/// Decodes what came on a route topic. The reader is of [`crate::link::compress::Inflater::open`].
pub fn parse_control(reader: Reader<'_>) -> Result<Control<'_>, PayloadError> {
    let fields = Fields::read(reader)?;
    match fields.op {
        Some(b"actor_init") => Ok(Control::ActorInit(ActorInit {
            actor: fields.actor()?,
            incarnation: fields.number(KEY_INCARNATION)?,
            target_cluster: fields.text(KEY_TARGET_CLUSTER)?,
            proto_ver: fields.number(KEY_PROTO_VER)?,
            capabilities: fields.capabilities(),
        })),
        Some(b"route") => Ok(Control::Route(RouteUpdate {
            actor: fields.actor()?,
            incarnation: fields.number(KEY_INCARNATION)?,
            ops: RouteOps::parse(fields.value(KEY_ROUTES)?)?,
            is_last: fields.extension(KEY_BOOTSTRAP_END).is_some(),
        })),
        Some(b"heartbeat") => Ok(Control::Heartbeat(Heartbeat {
            actor: fields.actor()?,
            incarnation: fields.number(KEY_INCARNATION)?,
            books: fields.extension(KEY_BOOKS).and_then(Sent::parse),
            routes: fields.extension(KEY_ROUTE_DIGEST).and_then(RouteDigest::parse),
        })),
        Some(b"retained_page") => PageRequest::parse(&fields).map(Control::RetainedPage),
        _ => Err(PayloadError::Operation),
    }
}

/// Decodes what came on a response topic.
pub fn parse_answer(reader: Reader<'_>) -> Result<Answer<'_>, PayloadError> {
    let fields = Fields::read(reader)?;
    match fields.op {
        Some(b"actor_init_ack") => init_ack(&fields).map(Answer::Init),
        Some(b"heartbeat_ack") => Ok(Answer::Heartbeat(HeartbeatAck {
            actor: fields.actor()?,
            incarnation: fields.number(KEY_INCARNATION)?,
            books: fields.extension(KEY_BOOKS).and_then(Received::parse),
            routes: fields.extension(KEY_ROUTE_DIGEST).and_then(RouteDigest::parse),
        })),
        Some(b"retained_page_ack") => PageAnswer::parse(&fields).map(Answer::RetainedPage),
        _ => Err(PayloadError::Operation),
    }
}

/// The same, where only the answer to an actor_init will do.
pub fn parse_ack(reader: Reader<'_>) -> Result<ActorInitAck<'_>, PayloadError> {
    match parse_answer(reader)? {
        Answer::Init(ack) => Ok(ack),
        Answer::Heartbeat(_) | Answer::RetainedPage(_) => Err(PayloadError::Operation),
    }
}

fn init_ack<'a>(fields: &Fields<'a>) -> Result<ActorInitAck<'a>, PayloadError> {
    let need_bootstrap = match fields.value(KEY_NEED_BOOTSTRAP)?.head()? {
        Head::Atom(b"true") => Some(true),
        Head::Atom(b"false") => Some(false),
        _ => None,
    };
    Ok(ActorInitAck {
        actor: fields.actor()?,
        proto_ver: fields.number(KEY_PROTO_VER)?,
        result: ack_result(fields.value(KEY_RESULT)?)?,
        need_bootstrap,
        capabilities: fields.capabilities(),
        reach: fields.extension(KEY_REACH).map(parse_reach).unwrap_or_default(),
        version: fields.extension(KEY_VERSION).and_then(|mut text| extension::version(text.text().ok()?)),
    })
}

/// Names, as far as they can be read.
fn parse_reach(mut list: Reader<'_>) -> Vec<&str> {
    let Ok(Head::List(count)) = list.head() else { return Vec::new() };
    let count = REACH_MAX.min(usize::try_from(count).unwrap_or(0));
    (0..count).map_while(|_| list.text().ok()).collect()
}

/// EMQX sends `ok` or `{error, Binary}`; any other term is a rejection too.
fn ack_result(mut value: Reader<'_>) -> Result<Result<(), Cow<'_, str>>, PayloadError> {
    let mut head = value.head()?;
    if head == Head::Atom(b"ok") {
        return Ok(Ok(()));
    }
    if head == Head::Tuple(2) && value.head()? == Head::Atom(b"error") {
        head = value.head()?;
    }
    Ok(Err(match head {
        Head::Binary(text) | Head::Atom(text) | Head::ByteList(text) => String::from_utf8_lossy(text),
        _ => Cow::Borrowed("unreadable reason"),
    }))
}

/// Appends an actor_init payload.
pub fn put_actor_init(out: &mut Vec<u8>, init: &ActorInit<'_>) {
    etf::put_version(out);
    etf::put_map(out, 5 + u32::from(init.capabilities != Capabilities::NONE));
    put_identity(out, init.actor, init.incarnation);
    etf::put_integer(out, KEY_TARGET_CLUSTER);
    etf::put_binary(out, init.target_cluster.as_bytes());
    etf::put_integer(out, KEY_PROTO_VER);
    etf::put_integer(out, init.proto_ver);
    put_operation(out, "actor_init");
    put_capabilities(out, init.capabilities);
}

fn put_capabilities(out: &mut Vec<u8>, capabilities: Capabilities) {
    if capabilities != Capabilities::NONE {
        etf::put_integer(out, KEY_CAPABILITIES);
        capabilities.put(out);
    }
}

/// Appends an actor_init_ack payload. The reason of a rejection goes as a binary, as EMQX sends it.
pub fn put_ack(out: &mut Vec<u8>, ack: &ActorInitAck<'_>) {
    etf::put_version(out);
    let extensions = [ack.capabilities != Capabilities::NONE, !ack.reach.is_empty(), ack.version.is_some()];
    let extensions: u32 = extensions.into_iter().map(u32::from).sum();
    etf::put_map(out, 5 + extensions);
    etf::put_integer(out, KEY_ACTOR);
    etf::put_binary(out, ack.actor.as_bytes());
    etf::put_integer(out, KEY_PROTO_VER);
    etf::put_integer(out, ack.proto_ver);
    etf::put_integer(out, KEY_RESULT);
    match &ack.result {
        Ok(()) => etf::put_atom(out, "ok"),
        Err(reason) => {
            etf::put_tuple(out, 2);
            etf::put_atom(out, "error");
            etf::put_binary(out, reason.as_bytes());
        }
    }
    etf::put_integer(out, KEY_NEED_BOOTSTRAP);
    etf::put_atom(
        out,
        match ack.need_bootstrap {
            Some(true) => "true",
            Some(false) => "false",
            None => "undefined",
        },
    );
    put_operation(out, "actor_init_ack");
    put_capabilities(out, ack.capabilities);
    if !ack.reach.is_empty() {
        etf::put_integer(out, KEY_REACH);
        etf::put_list(out, u32::try_from(ack.reach.len()).unwrap_or(0));
        ack.reach.iter().for_each(|name| etf::put_binary(out, name.as_bytes()));
        etf::put_nil(out);
    }
    if let Some(version) = ack.version {
        etf::put_integer(out, KEY_VERSION);
        etf::put_binary(out, version.as_bytes());
    }
}

/// Appends a heartbeat payload.
pub fn put_heartbeat(out: &mut Vec<u8>, beat: &Heartbeat<'_>) {
    let extensions = u32::from(beat.books.is_some()) + u32::from(beat.routes.is_some());
    etf::put_version(out);
    etf::put_map(out, 3 + extensions);
    put_identity(out, beat.actor, beat.incarnation);
    put_operation(out, "heartbeat");
    if let Some(books) = &beat.books {
        etf::put_integer(out, KEY_BOOKS);
        books.put(out);
    }
    put_routes(out, beat.routes);
}

/// Appends the answer to such a heartbeat.
pub fn put_heartbeat_ack(out: &mut Vec<u8>, ack: &HeartbeatAck<'_>) {
    let extensions = u32::from(ack.books.is_some()) + u32::from(ack.routes.is_some());
    etf::put_version(out);
    etf::put_map(out, 3 + extensions);
    put_identity(out, ack.actor, ack.incarnation);
    put_operation(out, "heartbeat_ack");
    if let Some(books) = &ack.books {
        etf::put_integer(out, KEY_BOOKS);
        books.put(out);
    }
    put_routes(out, ack.routes);
}

fn put_routes(out: &mut Vec<u8>, routes: Option<RouteDigest>) {
    if let Some(routes) = routes {
        etf::put_integer(out, KEY_ROUTE_DIGEST);
        routes.put(out);
    }
}

fn put_identity(out: &mut Vec<u8>, actor: &str, incarnation: u64) {
    etf::put_integer(out, KEY_ACTOR);
    etf::put_binary(out, actor.as_bytes());
    etf::put_integer(out, KEY_INCARNATION);
    etf::put_integer(out, incarnation);
}

fn put_operation(out: &mut Vec<u8>, name: &str) {
    etf::put_atom(out, "$op");
    etf::put_binary(out, name.as_bytes());
}

/// Where the last byte of the number of pairs is, behind the version and the tag of a map.
const PAIRS_AT: usize = 5;

/// Builds one route update item by item, so that a batch is cut by its true size.
#[derive(Debug)]
pub struct RouteBatch {
    out: Vec<u8>,
    count_at: usize,
    count: u32,
}

impl RouteBatch {
    /// An empty update of this actor.
    #[must_use]
    pub fn new(actor: &str, incarnation: u64) -> Self {
        let mut out = Vec::with_capacity(256);
        etf::put_version(&mut out);
        etf::put_map(&mut out, 4);
        put_identity(&mut out, actor, incarnation);
        put_operation(&mut out, "route");
        etf::put_integer(&mut out, KEY_ROUTES);
        let count_at = out.len() + 1;
        etf::put_list(&mut out, 0);
        Self { out, count_at, count: 0 }
    }

    /// What an item adds to the payload.
    #[must_use]
    pub fn cost(op: &RouteOp<'_>) -> usize {
        14 + op.topic.len() + op.id.len()
    }

    /// Adds an item.
    pub fn push(&mut self, op: &RouteOp<'_>) {
        etf::put_tuple(&mut self.out, if op.delete { 3 } else { 2 });
        if op.delete {
            etf::put_integer(&mut self.out, ROUTE_DELETE);
        }
        etf::put_binary(&mut self.out, op.topic);
        etf::put_binary(&mut self.out, op.id);
        self.count += 1;
    }

    /// How many items it holds.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The size so far, the end of the list included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.out.len() + 1
    }

    /// The payload, compressed where that shrinks it.
    #[must_use]
    pub fn finish(self, deflater: &mut Deflater, threshold: usize) -> Vec<u8> {
        self.close(false, deflater, threshold)
    }

    /// The same for the last of a bootstrap, towards a peer that can make something of it.
    #[must_use]
    pub fn finish_last(mut self, deflater: &mut Deflater, threshold: usize) -> Vec<u8> {
        if let Some(pairs) = self.out.get_mut(PAIRS_AT) {
            *pairs += 1;
        }
        self.close(true, deflater, threshold)
    }

    fn close(mut self, is_last: bool, deflater: &mut Deflater, threshold: usize) -> Vec<u8> {
        if self.count == 0 {
            self.out.truncate(self.count_at - 1);
        } else if let Some(count) = self.out.get_mut(self.count_at..self.count_at + 4) {
            count.copy_from_slice(&self.count.to_be_bytes());
        }
        etf::put_nil(&mut self.out);
        if is_last {
            etf::put_integer(&mut self.out, KEY_BOOTSTRAP_END);
            etf::put_atom(&mut self.out, "true");
        }
        deflater.shrink(&mut self.out, 0, threshold);
        self.out
    }
}
