//! How a message gets into the output: as it came, as a frame that was encoded for many, or by itself.

use crate::mqtt::packet::PacketId;
use crate::mqtt::packet::QoS;
use crate::mqtt::packet::Version;
use crate::session::alias::Alias;
use crate::session::frames;
use crate::session::frames::Run;
use crate::session::frames::Single;
use crate::session::outbound::Grant;
use crate::session::outbound::OUTPUT_BYTES_HARD;
use crate::session::outbound::Output;
use crate::session::queue::Owed;
use crate::session::tally::Tally;
use crate::time::Now;

/// The common case in one copy: every message goes at QoS 0, with RETAIN 0, without identifiers and aliases, and
/// fits.
pub(super) fn deliver_unchanged(
    run: &mut Run<'_, '_>,
    grant: &Grant<'_>,
    output: &mut Output,
    tally: &mut Tally,
) -> bool {
    if !grant.subscription_ids.is_empty() || output.aliases.is_some() {
        return false;
    }
    if let Some(received) = run.received(output.version) {
        let bytes = received.bytes();
        let fits = output.bytes.len() + bytes.len() <= OUTPUT_BYTES_HARD
            && received.frame_len_max() <= output.max_packet_size as usize;
        if fits {
            output.bytes.extend_from_slice(bytes);
            tally.sent_many(QoS::AtMostOnce, run.publications().len() as u64);
        }
        return fits;
    }
    let plain = run.publications().iter().all(|publication| {
        publication.qos.min(grant.qos) == QoS::AtMostOnce
            && !(publication.retain && grant.retain_as_published)
    });
    if !plain {
        return false;
    }
    let count = run.publications().len();
    if run.is_sole() {
        let fits = append_whole(run, output);
        tally.sent_many(QoS::AtMostOnce, if fits { count as u64 } else { 0 });
        return fits;
    }
    let layout = run.layout(output.version, false);
    let fits = output.bytes.len() + layout.bytes().len() <= OUTPUT_BYTES_HARD
        && (output.max_packet_size == u32::MAX || layout.frame_len_max() <= output.max_packet_size as usize);
    if fits {
        output.bytes.extend_from_slice(layout.bytes());
        tally.sent_many(QoS::AtMostOnce, count as u64);
    }
    fits
}

/// Appends a run of QoS 0 to the output of the one session that gets it; nothing if any of it has no room there.
fn append_whole(run: &mut Run<'_, '_>, output: &mut Output) -> bool {
    let version = output.version;
    let single = Single {
        version,
        qos: QoS::AtMostOnce,
        retain: false,
        dup: false,
        packet_id: None,
        subscription_ids: &[],
        alias: None,
    };
    let before = output.bytes.len();
    let out = &mut output.bytes;
    for index in 0..run.publications().len() {
        let start = out.len();
        run.append_next(index, &single, out);
        if out.len() > OUTPUT_BYTES_HARD || out.len() - start > output.max_packet_size as usize {
            out.truncate(before);
            run.begin();
            return false;
        }
    }
    true
}

#[inline]
pub(super) fn delivery_len(
    run: &mut Run<'_, '_>,
    index: usize,
    qos: QoS,
    grant: &Grant<'_>,
    version: Version,
    now: Now,
) -> usize {
    if grant.subscription_ids.is_empty() {
        if run.is_sole() {
            return run.next_len(index, version, qos);
        }
        return run.layout(version, qos != QoS::AtMostOnce).frame_len(index);
    }
    frames::single_len(&run.publications()[index], version, qos, grant.subscription_ids, now)
}

#[inline]
#[expect(clippy::too_many_arguments, reason = "one delivery is the meeting point of all of these")]
pub(super) fn append(
    run: &mut Run<'_, '_>,
    index: usize,
    qos: QoS,
    retain: bool,
    packet_id: Option<PacketId>,
    length: usize,
    grant: &Grant<'_>,
    output: &mut Output,
    now: Now,
) {
    let alias = output.alias_for(run.publications()[index].topic, length);
    if grant.subscription_ids.is_empty() && alias.is_none() && !run.is_sole() {
        run.layout(output.version, packet_id.is_some()).append(
            index,
            &mut output.bytes,
            qos,
            retain,
            packet_id,
        );
        return;
    }
    let version = output.version;
    let subscription_ids = grant.subscription_ids;
    let single = Single { version, qos, retain, dup: false, packet_id, subscription_ids, alias };
    if subscription_ids.is_empty() && alias.is_none() {
        return run.append_next(index, &single, &mut output.bytes);
    }
    frames::append_single(&run.publications()[index], &single, now, &mut output.bytes);
}

#[inline]
pub(super) fn owed_len(owed: &Owed, version: Version, now: Now) -> usize {
    frames::single_len(&owed.message.view(), version, owed.qos, owed.subscription_ids(), now)
}

#[inline]
pub(super) fn alias_for_owed(owed: &Owed, length: usize, output: &mut Output) -> Option<Alias> {
    // Most clients allow none, and then the topic need not be looked at.
    output.aliases.as_ref()?;
    output.alias_for(owed.message.view().topic, length)
}

#[inline]
pub(super) fn append_owed(
    owed: &Owed,
    packet_id: Option<PacketId>,
    dup: bool,
    alias: Option<Alias>,
    output: &mut Output,
    now: Now,
) {
    let single = Single {
        version: output.version,
        qos: owed.qos,
        retain: owed.retain,
        dup,
        packet_id,
        subscription_ids: owed.subscription_ids(),
        alias,
    };
    frames::append_single(&owed.message.view(), &single, now, &mut output.bytes);
}
