//! Messages of a peer that are alike: those of a run differ in nothing but ids, payloads and moments. One that has the same
//! bytes as the one before everywhere else means the same, and is not read term by term.

use crate::link::etf;
use crate::link::message::Forwarded;
use crate::link::message::ID_AT;
use crate::link::message::TAG;

/// Length of an id.
const ID_BYTES: usize = 16;
/// Tag and length of a binary.
const BINARY_BYTES: usize = 5;
/// Timestamp and `extra`, as they end a message.
const BACK_BYTES: usize = 14;

/// What others have in common with a message.
#[derive(Debug, Clone, Copy)]
pub struct Likeness<'a> {
    /// All of it up to the payload.
    front: &'a [u8],
}

impl<'a> Likeness<'a> {
    /// Of a message, and the term from which it was read. `None` if its likes are not to be known by their bytes, or would
    /// not mean the same: one that expires does so by its timestamp.
    #[must_use]
    pub fn of(term: &'a [u8], message: &Forwarded<'_>) -> Option<Self> {
        // Where the reader found the payload, whatever else looks like one: up to there it reads equal bytes alike.
        let payload_at = place(term, &message.payload)?;
        let front = term.get(..payload_at.checked_sub(BINARY_BYTES)?)?;
        let begins = term.strip_prefix(&[etf::VERSION]).is_some_and(|term| term.starts_with(TAG));
        let likeness = Self { front };
        let is_usual = begins
            && likeness.find(term).is_some_and(|(_, payload)| std::ptr::eq(payload, &*message.payload));
        (is_usual && message.properties.count() == 0).then_some(likeness)
    }

    /// Id and payload of a message like that.
    #[inline]
    #[must_use]
    pub fn find<'b>(&self, term: &'b [u8]) -> Option<([u8; ID_BYTES], &'b [u8])> {
        let (front, rest) = term.split_at_checked(self.front.len())?;
        let (&[109, a, b, c, d], rest) = rest.split_first_chunk()? else { return None };
        let (payload, back) = rest.split_at_checked(u32::from_be_bytes([a, b, c, d]) as usize)?;
        let &[110, 6, 0, _, _, _, _, _, _, 116, 0, 0, 0, 0] = <&[u8; BACK_BYTES]>::try_from(back).ok()?
        else {
            return None;
        };
        let (tag, rest) = front.split_at_checked(ID_AT)?;
        let (id, rest) = rest.split_first_chunk()?;
        let (known_tag, known) = self.front.split_at_checked(ID_AT)?;
        (rest == known.get(ID_BYTES..)? && tag == known_tag).then_some((*id, payload))
    }
}

/// Where in `whole` a part of it begins; `None` if it lies elsewhere.
fn place(whole: &[u8], part: &[u8]) -> Option<usize> {
    let at = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    (at + part.len() <= whole.len()).then_some(at)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::*;
    use crate::link::etf::Reader;
    use crate::link::message;
    use crate::link::message::tests::change;
    use crate::link::message::tests::changes;
    use crate::link::message::tests::sent;

    fn parse(term: &[u8]) -> Option<Forwarded<'_>> {
        let term = term.strip_prefix(&[etf::VERSION])?;
        message::parse(Reader::new(term)).ok()
    }

    /// The same message but for these.
    fn again(front: &[u8], id: [u8; ID_BYTES], payload: &[u8], moment: [u8; 6]) -> Vec<u8> {
        let mut term = front.to_vec();
        term[ID_AT..ID_AT + ID_BYTES].copy_from_slice(&id);
        etf::put_binary(&mut term, payload);
        term.extend_from_slice(&[110, 6, 0]);
        term.extend_from_slice(&moment);
        etf::put_map(&mut term, 0);
        term
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Whatever is done to either of two messages, one that is found to be like the other is read as that by the
        /// reader that compares nothing.
        #[test]
        fn what_is_alike_means_the_same(
            (mut first, is_usual) in sent(),
            (id, payload, moment) in (any::<[u8; ID_BYTES]>(), any::<Vec<u8>>(), any::<[u8; 6]>()),
            (changes_of_first, changes_of_second) in (changes(), changes()),
        ) {
            change(&mut first, &changes_of_first);
            let Some(known) = parse(&first) else { return Ok(()) };
            let Some(likeness) = Likeness::of(&first, &known) else {
                prop_assert!(!is_usual || known.properties.count() > 0 || !changes_of_first.is_empty());
                return Ok(());
            };
            let mut second = again(likeness.front, id, &payload, moment);
            prop_assert_eq!(likeness.find(&second), Some((id, &*payload)));
            change(&mut second, &changes_of_second);
            if let Some((id, payload)) = likeness.find(&second) {
                let read = parse(&second).expect("what is alike can be read");
                let expected = Forwarded {
                    id,
                    payload: Cow::Borrowed(payload),
                    timestamp_ms: read.timestamp_ms,
                    ..parse(&first).unwrap()
                };
                prop_assert_eq!(read, expected);
            }
        }
    }

    #[test]
    fn a_payload_that_is_found_elsewhere_makes_no_likeness() {
        let payload = Cow::Owned(b"payload".to_vec());
        let term = again(&[&[etf::VERSION], TAG, &[0; 16]].concat(), [1; 16], b"payload", [0; 6]);
        let message = message::tests::with_payload(payload);
        assert!(Likeness::of(&term, &message).is_none());
        let inside =
            message::tests::with_payload(Cow::Borrowed(&term[ID_AT + ID_BYTES + BINARY_BYTES..][..7]));
        assert!(Likeness::of(&term, &inside).is_some());
        let before = message::tests::with_payload(Cow::Borrowed(&term[..0]));
        assert!(Likeness::of(&term, &before).is_none());
    }
}
