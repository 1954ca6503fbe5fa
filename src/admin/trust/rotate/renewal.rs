//! When the link certificate is replaced without being asked for: two thirds into its lifetime (`trust.md` 2.6), unless a peer
//! cannot be told. Pure: time is an argument, in seconds since the Unix epoch.

/// How long peers that cannot be told may come back before it is said, in seconds.
const PATIENCE_SECONDS: u64 = 600;
/// How often it is said, in seconds.
const SAID_SECONDS: u64 = 7 * 86_400;
/// Pauses behind failures, in seconds: the first, which doubles, and the longest.
const PAUSES_SECONDS: (u64, u64) = (60, 6 * 3_600);

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing at this moment.
    Wait,
    /// Replace it.
    Rotate,
    /// Say that it should be replaced, and who cannot be told.
    Warn,
}

/// Whether two thirds of a lifetime are over.
pub(super) fn is_due(not_before: i64, not_after: i64, now: i64) -> bool {
    let lifetime = not_after.saturating_sub(not_before).max(0);
    now >= not_before.saturating_add(lifetime - lifetime / 3)
}

/// What was done for the certificate that is due.
#[derive(Debug, Default)]
pub(super) struct Renewal {
    failures: u32,
    /// Not before this moment.
    again: u64,
    /// Since when somebody cannot be told.
    hindered: Option<u64>,
    /// When that was said last.
    said: Option<u64>,
}

impl Renewal {
    /// What to do for a certificate that is due; `hindered` if a peer cannot be told.
    pub(super) fn step(&mut self, hindered: bool, now: u64) -> Step {
        if !hindered {
            self.hindered = None;
            if now < self.again {
                return Step::Wait;
            }
            // Until it is known what came of it.
            self.again = now + PAUSES_SECONDS.0;
            return Step::Rotate;
        }
        let since = *self.hindered.get_or_insert(now);
        let is_said = self.said.is_some_and(|said| now < said.saturating_add(SAID_SECONDS));
        if is_said || now < since.saturating_add(PATIENCE_SECONDS) {
            return Step::Wait;
        }
        self.said = Some(now);
        Step::Warn
    }

    /// It failed.
    pub(super) fn failed(&mut self, now: u64) {
        let (first, longest) = PAUSES_SECONDS;
        let pause = first.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.again = now.saturating_add(pause.min(longest));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_due_behind_two_thirds() {
        assert!(!is_due(0, 300, 199) && is_due(0, 300, 200) && is_due(0, 300, 1_000));
        assert!(!is_due(100, 101, 100) && is_due(100, 101, 101));
        assert!(is_due(5, 5, 5) && is_due(9, 5, 9) && !is_due(i64::MAX, i64::MAX, 0));
    }

    #[test]
    fn failures_are_tried_again_later_and_later() {
        let (mut renewal, mut now, mut pauses) = (Renewal::default(), 1_000_000, Vec::new());
        for _ in 0..11 {
            assert_eq!(renewal.step(false, now), Step::Rotate);
            assert_eq!(renewal.step(false, now), Step::Wait, "nobody knows yet what comes of it");
            renewal.failed(now);
            let failed = now;
            while renewal.step(false, now) == Step::Wait {
                now += 30;
            }
            pauses.push(now - failed);
            now += 86_400;
        }
        let doubled = [60, 120, 240, 480, 960, 1_920, 3_840, 7_680, 15_360, 21_600, 21_600];
        assert_eq!(pauses, doubled);
    }

    #[test]
    fn who_cannot_be_told_is_waited_for_and_then_named_once_a_week() {
        let (mut renewal, start) = (Renewal::default(), 1_000_000);
        assert_eq!(renewal.step(true, start), Step::Wait);
        assert_eq!(renewal.step(true, start + PATIENCE_SECONDS - 1), Step::Wait);
        assert_eq!(renewal.step(true, start + PATIENCE_SECONDS), Step::Warn);
        assert_eq!(renewal.step(true, start + PATIENCE_SECONDS + SAID_SECONDS - 1), Step::Wait);
        assert_eq!(renewal.step(true, start + PATIENCE_SECONDS + SAID_SECONDS), Step::Warn);
        assert_eq!(renewal.step(false, start + 10 * SAID_SECONDS), Step::Rotate, "everybody is there");
    }
}
