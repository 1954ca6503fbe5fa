use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DnType::CommonName;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::date_time_ymd;

use super::*;

/// 2030-01-01.
const NOW: i64 = 1_893_456_000;

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

/// An authority: what it is called and its key.
struct Authority(Issuer<'static, KeyPair>, &'static str);

impl Authority {
    fn new(name: &'static str) -> Self {
        Self(Issuer::new(named(name), KeyPair::generate().unwrap()), name)
    }

    fn own(&self) -> Vec<u8> {
        named(self.1).self_signed(self.0.key()).unwrap().der().to_vec()
    }

    fn signs(&self, other: &Self) -> Vec<u8> {
        named(other.1).signed_by(other.0.key(), &self.0).unwrap().der().to_vec()
    }

    /// Its certificate until this year.
    fn anchor_until(&self, year: i32) -> Anchor {
        let mut params = named(self.1);
        params.not_after = date_time_ymd(year, 1, 1);
        Anchor::new(&fitness::read(params.self_signed(self.0.key()).unwrap().der()).unwrap())
    }

    fn anchor(&self) -> Anchor {
        Anchor::new(&fitness::read(&self.own()).unwrap())
    }
}

fn steps(leaf: &[u8], others: &[&[u8]], anchors: &[Anchor], depth: usize) -> Result<Vec<usize>, NoPath<()>> {
    let mut taken = Vec::new();
    find(leaf, others, anchors, depth, NOW, |steps| {
        taken = steps.to_vec();
        Ok(())
    })?;
    Ok(taken)
}

#[test]
fn a_path_is_followed_to_an_anchor_as_far_as_is_allowed() {
    let [root, one, two, leaf] = ["root", "one", "two", "leaf"].map(Authority::new);
    let (of_one, of_two, leaf) = (root.signs(&one), one.signs(&two), two.signs(&leaf));
    let anchors = [root.anchor()];
    let others: [&[u8]; 2] = [&of_one, &of_two];
    assert_eq!(steps(&leaf, &others, &anchors, 2), Ok(vec![1, 0]));
    assert_eq!(steps(&leaf, &others, &anchors, 1), Err(NoPath::TooLong));
    assert_eq!(steps(&of_one, &[], &anchors, 0), Ok(Vec::new()));
    assert_eq!(steps(&leaf, &others[..1], &anchors, 2), Err(NoPath::Missing), "a gap");
    assert_eq!(steps(&leaf, &others, &[], 2), Err(NoPath::Missing));
    assert_eq!(steps(b"x", &others, &anchors, 2), Err(NoPath::Missing));
    let unread: [&[u8]; 3] = [b"x", &of_two, &of_one];
    assert_eq!(steps(&leaf, &unread, &anchors, 2), Ok(vec![1, 2]), "positions are those of what was given");
}

#[test]
fn a_step_is_one_only_if_it_is_signed() {
    let [root, one, two, leaf] = ["root", "one", "two", "leaf"].map(Authority::new);
    let (of_one, of_two, leaf) = (root.signs(&one), one.signs(&two), two.signs(&leaf));
    // In the names of those on the way, and short.
    let forger = Authority::new("root");
    let forged = forger.signs(&two);
    let other_key = forger.signs(&Authority::new("two"));
    let others: [&[u8]; 4] = [&forged, &other_key, &of_one, &of_two];
    assert_eq!(steps(&leaf, &others, &[root.anchor()], 1), Err(NoPath::TooLong));
    assert_eq!(steps(&leaf, &others, &[root.anchor()], 2), Ok(vec![3, 2]));
    assert_eq!(steps(&leaf, &others, &[forger.anchor()], 2), Ok(vec![0]), "who trusts that one, does");
}

#[test]
fn the_next_path_is_tried_when_one_is_refused_and_the_first_reason_is_kept() {
    let [old, new, one, leaf] = ["old", "new", "one", "leaf"].map(Authority::new);
    let (by_old, by_new, leaf) = (old.signs(&one), new.signs(&one), one.signs(&leaf));
    let others: [&[u8]; 2] = [&by_old, &by_new];
    let anchors = [old.anchor(), new.anchor()];
    let found =
        find(&leaf, &others, &anchors, 1, NOW, |steps| if steps == [0] { Err("old") } else { Ok(()) });
    assert_eq!(found, Ok(&anchors[1]));
    let mut reasons = ["first", "second"].into_iter();
    let none = find(&leaf, &others, &anchors, 1, NOW, |_| Err(reasons.next().unwrap()));
    assert_eq!(none, Err(NoPath::Refused("first")));
}

#[test]
fn circles_and_crowds_come_to_an_end() {
    let [root, one, two, leaf] = ["root", "one", "two", "leaf"].map(Authority::new);
    let circle = [one.signs(&two), two.signs(&one), one.own(), root.own()];
    let circle: Vec<&[u8]> = circle.iter().map(Vec::as_slice).collect();
    assert_eq!(steps(&one.signs(&leaf), &circle, &[root.anchor()], 10), Err(NoPath::Missing));
    let crowd: Vec<Vec<u8>> =
        (0..SIGNATURES_MAX).map(|_| root.signs(&Authority::new("one"))).chain([root.signs(&one)]).collect();
    let crowd: Vec<&[u8]> = crowd.iter().map(Vec::as_slice).collect();
    let leaf = one.signs(&leaf);
    assert_eq!(steps(&leaf, &crowd, &[root.anchor()], 1), Err(NoPath::Missing), "no more are tried");
    assert_eq!(steps(&leaf, &crowd[3..], &[root.anchor()], 1), Ok(vec![SIGNATURES_MAX - 3]));
}

#[test]
fn an_anchor_is_its_name_and_its_key() {
    let (one, other, same) = (Authority::new("root"), Authority::new("other"), Authority::new("root"));
    assert_eq!(one.anchor(), Anchor::new(&fitness::read(&other.signs(&one)).unwrap()), "whoever signed it");
    assert_ne!(one.anchor().id, same.anchor().id);
    assert_ne!(one.anchor().id, other.anchor().id);
}

#[test]
fn an_authority_that_has_expired_vouches_for_nobody_unless_it_was_renewed() {
    let [root, leaf] = ["root", "leaf"].map(Authority::new);
    let leaf = root.signs(&leaf);
    let [past, last_day, renewed] = [2029, 2030, 2040].map(|year| root.anchor_until(year));
    assert_eq!(steps(&leaf, &[], std::slice::from_ref(&past), 1), Err(NoPath::Expired));
    assert_eq!(steps(&leaf, &[], &[last_day], 1), Ok(Vec::new()), "its last moment is within");
    assert_eq!(steps(&leaf, &[], &[past, renewed], 1), Ok(Vec::new()));
}
