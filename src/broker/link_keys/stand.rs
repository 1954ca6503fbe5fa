//! What the three files say together. Pure: their contents are arguments.

use rustls::pki_types::CertificateDer;

use crate::net::own_certificate::Key;
use crate::net::own_certificate::Pair;

/// What there is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// No pair yet.
    Nothing,
    /// This pair was about to be put in place.
    Unfinished(Pair),
    /// A pair, and perhaps the next one of a rotation.
    Settled { current: Pair, next: Option<Pair> },
}

/// Why there is no sense in them.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Senseless {
    /// A certificate without its key.
    NoKey,
    /// A key without its certificate.
    NoCertificate,
    /// A key that is another certificate's.
    Mismatch,
}

impl Stand {
    /// A pair is put in place key first. So while the two files do not belong together, the next pair is the one that was
    /// on its way if a half of it is there, or nothing is; while they do, only if its certificate is there.
    pub(super) fn of(
        chain: Option<Vec<CertificateDer<'static>>>,
        key: Option<Key>,
        next: Option<Pair>,
    ) -> Result<Self, Senseless> {
        let half = |next: &Pair| chain.as_ref() == Some(&next.chain) || key.as_ref() == Some(&next.key);
        let empty = chain.is_none() && key.is_none();
        let arrived = next.as_ref().is_some_and(|next| half(next) || empty);
        let (chain, key) = match (chain, key, next) {
            (Some(chain), Some(key), next) => {
                let current = Pair { chain, key };
                return match next {
                    Some(next) if next.chain == current.chain => Ok(Self::Unfinished(next)),
                    next if current.belongs_together() => Ok(Self::Settled { current, next }),
                    Some(next) if arrived => Ok(Self::Unfinished(next)),
                    _ => Err(Senseless::Mismatch),
                };
            }
            (_, _, Some(next)) if arrived => return Ok(Self::Unfinished(next)),
            (chain, key, _) => (chain.is_some(), key.is_some()),
        };
        match (chain, key) {
            (true, _) => Err(Senseless::NoKey),
            (_, true) => Err(Senseless::NoCertificate),
            (false, false) => Ok(Self::Nothing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Now;

    const NOW: Now = Now { mono_ms: 0, unix_ms: 1_767_225_600_000 };

    fn unfinished(pair: &Pair) -> Result<Stand, Senseless> {
        Ok(Stand::Unfinished(pair.clone()))
    }

    fn settled(current: &Pair, next: Option<&Pair>) -> Result<Stand, Senseless> {
        Ok(Stand::Settled { current: current.clone(), next: next.cloned() })
    }

    #[test]
    fn every_moment_at_which_a_pair_can_be_cut_off_is_told_from_the_others() {
        let (old, new) = (Pair::make("a", NOW).unwrap(), Pair::make("a", NOW).unwrap());
        let stand = |chain: Option<&Pair>, key: Option<&Pair>, next: Option<&Pair>| {
            Stand::of(chain.map(|pair| pair.chain.clone()), key.map(|pair| pair.key.clone()), next.cloned())
        };
        let (o, n) = (Some(&old), Some(&new));
        // The first pair: nothing, written beside, its key, both, done.
        assert_eq!(stand(None, None, None), Ok(Stand::Nothing));
        assert_eq!(stand(None, None, n), unfinished(&new));
        assert_eq!(stand(None, n, n), unfinished(&new));
        assert_eq!(stand(n, n, n), unfinished(&new));
        assert_eq!(stand(n, n, None), settled(&new, None));
        // One in place of another.
        assert_eq!(stand(o, o, n), settled(&old, n));
        assert_eq!(stand(o, n, n), unfinished(&new));
        // What nothing of ours leaves behind.
        assert_eq!(stand(n, o, n), unfinished(&new));
        assert_eq!(stand(n, None, n), unfinished(&new));
        assert_eq!(stand(o, None, None), Err(Senseless::NoKey));
        assert_eq!(stand(o, None, n), Err(Senseless::NoKey));
        assert_eq!(stand(None, o, None), Err(Senseless::NoCertificate));
        assert_eq!(stand(None, o, n), Err(Senseless::NoCertificate));
        assert_eq!(stand(o, n, None), Err(Senseless::Mismatch));
    }
}
