//! Encode once, send to many: the PUBLISH frames of one run, per protocol layout and with or without a Packet
//! Identifier. A receiver's copy is a `memcpy`; only flags and identifier are patched afterwards. The frames
//! of a run lie one after the other, so a receiver that takes the whole run unchanged costs a single copy.

use std::cell::OnceCell;
use std::ops::Range;

use crate::mqtt::frame;
use crate::mqtt::frame::PublishHeader;
use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::QoS;
use crate::mqtt::packet::Version;
use crate::session::alias::Alias;
use crate::session::message::Message;
use crate::session::message::Publication;
use crate::time::Now;

/// Several messages for the same receivers, in the order they were published.
#[derive(Debug)]
pub struct Run<'a, 'f> {
    publications: &'a [Publication<'a>],
    kept: Vec<OnceCell<Message>>,
    frames: &'f mut RunFrames,
    received: Option<Received<'a>>,
    sole: bool,
    /// What its one receiver was sent last.
    last: Option<LastFrame>,
    now: Now,
}

/// A frame in the output of a session. The next one mostly begins like it.
#[derive(Debug, Clone)]
struct LastFrame {
    /// Which message it has.
    index: usize,
    with_packet_id: bool,
    packet_id_at: usize,
    /// Everything in front of the payload.
    head: Range<usize>,
}

impl LastFrame {
    /// Whether a frame with this message differs in nothing but flags, Packet Identifier and payload.
    fn begins_like(&self, last: &Publication<'_>, next: &Publication<'_>, with_packet_id: bool) -> bool {
        std::ptr::eq(last.topic, next.topic)
            && last.payload.len() == next.payload.len()
            && is_plain(next)
            && self.with_packet_id == with_packet_id
    }
}

fn is_plain(publication: &Publication<'_>) -> bool {
    publication.properties.is_empty() && publication.expiry.is_none()
}

/// The packets of a run as they came in, where that is what every receiver of the same protocol gets: QoS 0, RETAIN
/// 0, whole Topic Names, and no property that is not passed on or has changed since.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    bytes: &'a [u8],
    is_v5: bool,
    frame_len_max: usize,
}

impl<'a> Received<'a> {
    /// All packets of the run, one after the other, the longest of `frame_len_max` bytes.
    #[must_use]
    pub fn new(bytes: &'a [u8], version: Version, frame_len_max: usize) -> Self {
        Self { bytes, is_v5: version == Version::V5, frame_len_max }
    }

    /// Every packet.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The longest.
    #[must_use]
    pub fn frame_len_max(&self) -> usize {
        self.frame_len_max
    }
}

impl<'a, 'f> Run<'a, 'f> {
    /// Starts a run; `frames` is scratch space whose allocations are reused from run to run.
    pub fn new(publications: &'a [Publication<'a>], frames: &'f mut RunFrames, now: Now) -> Self {
        frames.clear();
        Self { publications, kept: Vec::new(), frames, received: None, sole: false, last: None, now }
    }

    /// The same with the packets that brought it.
    #[must_use]
    pub fn as_received(mut self, received: Option<Received<'a>>) -> Self {
        self.received = received;
        self
    }

    /// What a receiver of this version can be sent as it came.
    #[must_use]
    pub fn received(&self, version: Version) -> Option<Received<'a>> {
        self.received.filter(|received| received.is_v5 == (version == Version::V5))
    }

    /// Says whether one session alone gets it: then its frames are written where they go, and not for others as well.
    pub fn set_sole(&mut self, sole: bool) {
        self.sole = sole;
    }

    /// Begins to write into the output of a session.
    pub fn begin(&mut self) {
        self.last = None;
    }

    fn last_like(&self, index: usize, with_packet_id: bool) -> Option<&LastFrame> {
        let next = &self.publications[index];
        self.last
            .as_ref()
            .filter(|last| last.begins_like(&self.publications[last.index], next, with_packet_id))
    }

    /// Bytes of what [`Self::append_next`] would append.
    #[must_use]
    pub fn next_len(&self, index: usize, version: Version, qos: QoS) -> usize {
        let publication = &self.publications[index];
        match self.last_like(index, qos != QoS::AtMostOnce) {
            Some(last) => last.head.len() + publication.payload.len(),
            None => single_len(publication, version, qos, &[], self.now),
        }
    }

    /// Appends the frame of one message to the output of the session that alone gets the run: since [`Self::begin`]
    /// nothing was taken out of it. It has neither Subscription Identifiers nor a Topic Alias.
    #[inline]
    pub fn append_next(&mut self, index: usize, single: &Single<'_>, out: &mut Vec<u8>) {
        let publication = &self.publications[index];
        let (start, with_packet_id) = (out.len(), single.packet_id.is_some());
        if let Some(last) = self.last_like(index, with_packet_id) {
            out.extend_from_within(last.head.clone());
            out.extend_from_slice(publication.payload);
            let flags = frame::flags(single.qos, single.retain, single.dup);
            if let Some(frame) = out.get_mut(start..) {
                frame[0] &= 0xF0;
                patch(frame, last.packet_id_at, flags, single.packet_id);
            }
            return;
        }
        let packet_id_at = append_single(publication, single, self.now, out);
        self.last = match out.len().checked_sub(start + publication.payload.len()) {
            Some(head_len @ 1..) if is_plain(publication) => {
                Some(LastFrame { index, with_packet_id, packet_id_at, head: start..start + head_len })
            }
            _ => None,
        };
    }

    /// Whether nobody else would use the frames.
    #[must_use]
    pub fn is_sole(&self) -> bool {
        self.sole
    }

    /// The messages.
    #[must_use]
    pub fn publications(&self) -> &'a [Publication<'a>] {
        self.publications
    }

    /// When it is delivered.
    #[must_use]
    pub fn now(&self) -> Now {
        self.now
    }

    /// The message at `index` as an owned value, made at most once however many sessions keep it.
    pub fn keep(&mut self, index: usize) -> Message {
        if self.kept.is_empty() {
            self.kept.resize_with(self.publications.len(), OnceCell::new);
        }
        self.kept[index].get_or_init(|| Message::keep(&self.publications[index])).clone()
    }

    /// All frames of the run in one layout.
    pub fn layout(&mut self, version: Version, with_packet_id: bool) -> &Layout {
        let layout = &mut self.frames.layouts[layout_index(version, with_packet_id)];
        if layout.frames.is_empty() {
            for publication in self.publications {
                layout.push(publication, version, with_packet_id, self.now);
            }
        }
        layout
    }
}

fn layout_index(version: Version, with_packet_id: bool) -> usize {
    usize::from(version == Version::V5) * 2 + usize::from(with_packet_id)
}

/// Scratch space for the frames of a run.
#[derive(Debug, Default)]
pub struct RunFrames {
    layouts: [Layout; 4],
}

/// Beyond this a layout gives its memory back after the run.
const SCRATCH_BYTES_MAX: usize = 256 * 1024;

impl RunFrames {
    fn clear(&mut self) {
        for layout in &mut self.layouts {
            layout.bytes.clear();
            layout.bytes.shrink_to(SCRATCH_BYTES_MAX);
            layout.frames.clear();
        }
    }
}

/// The frames of a run in one layout, one after the other.
#[derive(Debug, Default)]
pub struct Layout {
    bytes: Vec<u8>,
    frames: Vec<FrameAt>,
}

#[derive(Debug, Clone)]
struct FrameAt {
    range: Range<usize>,
    packet_id_at: usize,
}

impl Layout {
    fn push(&mut self, publication: &Publication<'_>, version: Version, with_packet_id: bool, now: Now) {
        let start = self.bytes.len();
        let header = header(publication, &[], None, now);
        let packet_id_at = write(version, with_packet_id, &header, &mut self.bytes);
        self.frames.push(FrameAt { range: start..self.bytes.len(), packet_id_at });
    }

    /// Every frame of the run, with DUP, QoS and RETAIN 0.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Bytes of one frame.
    #[must_use]
    pub fn frame_len(&self, index: usize) -> usize {
        self.frames[index].range.len()
    }

    /// The longest frame of the run.
    #[must_use]
    pub fn frame_len_max(&self) -> usize {
        self.frames.iter().map(|frame| frame.range.len()).max().unwrap_or(0)
    }

    /// Appends one frame with this receiver's flags and Packet Identifier. It is sent for the first time: DUP is 0
    /// at every QoS (`[MQTT-4.3.1-1]`, `[MQTT-4.3.2-2]`, `[MQTT-4.3.3-2]`), whatever it was when it came in
    /// (`[MQTT-3.3.1-3]`).
    pub fn append(
        &self,
        index: usize,
        out: &mut Vec<u8>,
        qos: QoS,
        retain: bool,
        packet_id: Option<PacketId>,
    ) {
        let frame = &self.frames[index];
        let start = out.len();
        out.extend_from_slice(&self.bytes[frame.range.clone()]);
        patch(&mut out[start..], frame.packet_id_at, frame::flags(qos, retain, false), packet_id);
    }
}

fn patch(frame: &mut [u8], packet_id_at: usize, flags: u8, packet_id: Option<PacketId>) {
    let Some(first) = frame.first_mut() else { return };
    *first |= flags;
    if let Some(id) = packet_id {
        frame[packet_id_at..packet_id_at + 2].copy_from_slice(&id.get().to_be_bytes());
    }
}

/// How one message goes to one receiver when its frame cannot be shared.
#[derive(Debug, Clone, Copy)]
pub struct Single<'a> {
    /// Protocol of the receiver.
    pub version: Version,
    /// QoS of this delivery.
    pub qos: QoS,
    /// RETAIN of this delivery.
    pub retain: bool,
    /// DUP: it was sent before to this receiver (`[MQTT-3.3.1-1]`), and is not of QoS 0 (`[MQTT-3.3.1-2]`).
    pub dup: bool,
    /// Present when QoS is not 0.
    pub packet_id: Option<PacketId>,
    /// Subscription Identifiers of the receiver's matching subscriptions.
    pub subscription_ids: &'a [u32],
    /// Topic Alias of this connection.
    pub alias: Option<Alias>,
}

/// Appends the frame of one message to one receiver, and gives the place of its Packet Identifier.
pub fn append_single(
    publication: &Publication<'_>,
    single: &Single<'_>,
    now: Now,
    out: &mut Vec<u8>,
) -> usize {
    let start = out.len();
    let header = header(publication, single.subscription_ids, single.alias, now);
    let packet_id_at = write(single.version, single.packet_id.is_some(), &header, out);
    patch(
        &mut out[start..],
        packet_id_at,
        frame::flags(single.qos, single.retain, single.dup),
        single.packet_id,
    );
    packet_id_at
}

/// Appends a PUBLISH with all flags 0 and gives the place of its Packet Identifier. What came in as one packet
/// fails only by growing over 256 MiB; then nothing is written, and nothing sent.
fn write(version: Version, with_packet_id: bool, header: &PublishHeader<'_>, out: &mut Vec<u8>) -> usize {
    frame::write(0, version, with_packet_id.then_some(0), header, out).unwrap_or(0)
}

/// Bytes the frame of one message to one receiver would take with its Topic Name.
#[must_use]
pub fn single_len(publication: &Publication<'_>, version: Version, qos: QoS, ids: &[u32], now: Now) -> usize {
    frame::publish_len(version, qos, &header(publication, ids, None, now))
}

fn header<'a>(
    publication: &Publication<'a>,
    subscription_ids: &'a [u32],
    alias: Option<Alias>,
    now: Now,
) -> PublishHeader<'a> {
    PublishHeader {
        topic: if matches!(alias, Some(Alias::Use(_))) { "" } else { publication.topic },
        properties: publication.properties,
        // One that expired on the way to its acknowledgement is sent again as such, not as one that never expires.
        expiry: publication.expiry.map(|expiry| expiry.remaining_seconds(now).unwrap_or(0)),
        subscription_ids,
        topic_alias: alias.map(Alias::number),
        payload: publication.payload,
    }
}
