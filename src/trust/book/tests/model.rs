//! The book against a naive model: a list of operations by chance, and what always holds after each of them.

use std::collections::BTreeMap;
use std::collections::HashSet;

use proptest::prelude::*;

use crate::trust::Secret;
use crate::trust::identity::Role;

use super::*;

const NAMES: [&str; 3] = ["B", "C", "D"];

#[derive(Debug, Clone)]
enum Op {
    Issue { name: usize, replace: bool, approve: bool },
    Redeem { token: usize, certificate: u8, right: bool },
    RevokeToken(usize),
    Approve(usize),
    Create { name: usize, certificate: u8 },
    Revoke(usize),
    Delete(usize),
    Removed(usize),
    Rotate { name: usize, certificate: u8, overlap: u64 },
    Seen(u8),
    Wait(u64),
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    let (name, certificate) = (0..NAMES.len(), 1_u8..7);
    prop_oneof![
        4 => (name.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(name, replace, approve)| Op::Issue { name, replace, approve }),
        8 => (any::<prop::sample::Index>(), certificate.clone(), prop::bool::weighted(0.7))
            .prop_map(|(token, certificate, right)| Op::Redeem { token: token.index(12), certificate, right }),
        1 => (0..12_usize).prop_map(Op::RevokeToken),
        2 => name.clone().prop_map(Op::Approve),
        1 => (name.clone(), certificate.clone()).prop_map(|(name, certificate)| Op::Create { name, certificate }),
        1 => name.clone().prop_map(Op::Revoke),
        1 => name.clone().prop_map(Op::Delete),
        1 => name.clone().prop_map(Op::Removed),
        2 => (name, certificate.clone(), 0_u64..2_000)
            .prop_map(|(name, certificate, overlap)| Op::Rotate { name, certificate, overlap }),
        3 => certificate.prop_map(Op::Seen),
        3 => prop_oneof![1_u64..400, 80_000_u64..90_000].prop_map(Op::Wait),
        1 => Just(Op::Restart),
    ]
}

#[derive(Debug, Clone)]
struct One {
    id: usize,
    state: State,
    pins: Vec<(u8, Role, Option<u64>)>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Issued,
    Used(u8),
    Bad,
    Gone,
}

#[derive(Debug, Clone)]
struct Out {
    name: usize,
    identity: usize,
    expires: u64,
    attempts: u8,
    approve: bool,
    fate: Fate,
}

/// What is kept, in the plainest way.
#[derive(Debug, Default)]
struct Model {
    ones: BTreeMap<usize, One>,
    tokens: Vec<Out>,
    ids: usize,
}

impl Model {
    fn new_id(&mut self) -> usize {
        self.ids += 1;
        self.ids
    }

    fn holder(&self, certificate: u8) -> Option<usize> {
        let has = |one: &One| one.pins.iter().any(|(byte, ..)| *byte == certificate);
        self.ones.iter().find(|(_, one)| has(one)).map(|(name, _)| *name)
    }

    fn forget_issued(&mut self, name: usize) {
        for token in self.tokens.iter_mut().filter(|token| token.name == name && token.fate == Fate::Issued) {
            token.fate = Fate::Gone;
        }
    }

    fn issue(&mut self, name: usize, replace: bool, approve: bool, now: u64) -> bool {
        let identity = match self.ones.get(&name).map(|one| one.state) {
            Some(State::Expired) | None => None,
            Some(State::Pending) if replace => None,
            Some(_) if replace => self.ones.get(&name).map(|one| one.id),
            Some(_) => return false,
        };
        self.forget_issued(name);
        let identity = identity.unwrap_or_else(|| {
            let id = self.new_id();
            self.ones.insert(name, One { id, state: State::Pending, pins: Vec::new() });
            id
        });
        let expires = now + MINUTES_15;
        self.tokens.push(Out { name, identity, expires, attempts: 0, approve, fate: Fate::Issued });
        true
    }

    /// The code of the answer.
    fn redeem(&mut self, token: usize, certificate: u8, right: bool, now: u64) -> Option<&'static str> {
        let holder = self.holder(certificate);
        let Some(out) = self.tokens.get_mut(token).filter(|out| out.fate != Fate::Gone) else {
            return Some("unknown_token");
        };
        let one = self.ones.get_mut(&out.name).filter(|one| one.id == out.identity);
        if !right {
            if out.fate == Fate::Issued && now <= out.expires {
                out.attempts += 1;
                if out.attempts == 5 {
                    out.fate = Fate::Bad;
                    one.filter(|one| one.state == State::Pending)
                        .into_iter()
                        .for_each(|one| one.state = State::Expired);
                }
            }
            return Some("unknown_token");
        }
        match out.fate {
            Fate::Used(by) => {
                let stands = one.is_some_and(|one| {
                    matches!(one.state, State::Active | State::PendingApproval)
                        && one.pins.iter().any(|(byte, ..)| *byte == certificate)
                });
                return (by != certificate || now > out.expires || !stands).then_some("used");
            }
            Fate::Bad | Fate::Gone => return Some("used"),
            Fate::Issued => {}
        }
        if now > out.expires {
            return Some("expired");
        }
        if certificate == 1 {
            return Some("cert_rejected:ours");
        }
        if holder.is_some_and(|holder| holder != out.name) {
            return Some("cert_rejected:bound");
        }
        let one = one.expect("a token that can be used has its identity");
        one.state = if out.approve { State::PendingApproval } else { State::Active };
        one.pins = vec![(certificate, Role::Current, None)];
        out.fate = Fate::Used(certificate);
        None
    }

    fn revoke_token(&mut self, token: usize) -> bool {
        let Some(out) = self.tokens.get_mut(token).filter(|out| out.fate == Fate::Issued) else {
            return false;
        };
        out.fate = Fate::Bad;
        let (name, identity) = (out.name, out.identity);
        self.ones.retain(|of, one| *of != name || one.id != identity || one.state != State::Pending);
        true
    }

    fn change(&mut self, name: usize, from: &[State], to: State) -> bool {
        match self.ones.get_mut(&name).filter(|one| from.contains(&one.state)) {
            Some(one) => {
                one.state = to;
                true
            }
            None => false,
        }
    }

    fn create(&mut self, name: usize, certificate: u8) -> bool {
        let in_the_way = self.ones.get(&name).is_some_and(|one| one.state != State::Expired);
        if in_the_way || certificate == 1 || self.holder(certificate).is_some() {
            return false;
        }
        let id = self.new_id();
        let pins = vec![(certificate, Role::Current, None)];
        self.ones.insert(name, One { id, state: State::Active, pins });
        true
    }

    fn rotate(&mut self, name: usize, certificate: u8, until: u64) -> bool {
        let is_free = certificate != 1 && self.holder(certificate).is_none_or(|holder| holder == name);
        let Some(one) = self.ones.get_mut(&name).filter(|one| one.state == State::Active && is_free) else {
            return false;
        };
        if one.pins.iter().any(|(byte, role, _)| (*byte, *role) == (certificate, Role::Current)) {
            return false;
        }
        one.pins.retain(|(byte, role, _)| *role != Role::Next && *byte != certificate);
        one.pins.push((certificate, Role::Next, Some(until)));
        true
    }

    fn usable(one: &One, now: u64) -> Vec<u8> {
        if one.state != State::Active {
            return Vec::new();
        }
        let next_until = one.pins.iter().find(|pin| pin.1 == Role::Next).and_then(|pin| pin.2);
        let good = |pin: &&(u8, Role, Option<u64>)| match pin.1 {
            Role::Next => true,
            Role::Current => next_until.is_none_or(|until| now <= until),
            Role::Previous => pin.2.is_some_and(|until| now <= until),
        };
        one.pins.iter().filter(good).map(|pin| pin.0).collect()
    }

    /// Whether somebody is known by it.
    fn seen(&mut self, certificate: u8, now: u64) -> bool {
        let known = |one: &&mut One| Self::usable(one, now).contains(&certificate);
        let Some(one) = self.ones.values_mut().find(known) else { return false };
        if let Some(until) =
            one.pins.iter().find(|pin| (pin.0, pin.1) == (certificate, Role::Next)).map(|pin| pin.2)
        {
            one.pins.retain(|pin| pin.1 != Role::Previous);
            for pin in &mut one.pins {
                *pin = match pin.1 {
                    Role::Next => (pin.0, Role::Current, None),
                    _ => (pin.0, Role::Previous, until),
                };
            }
            one.pins.retain(|pin| pin.2.is_none_or(|until| now <= until));
        }
        true
    }

    fn expire(&mut self, now: u64) {
        for out in &mut self.tokens {
            let one = self.ones.get_mut(&out.name).filter(|one| one.id == out.identity);
            if out.fate == Fate::Issued && now > out.expires {
                one.filter(|one| one.state == State::Pending)
                    .into_iter()
                    .for_each(|one| one.state = State::Expired);
            }
            if now > out.expires + REMEMBERED_SECONDS {
                out.fate = Fate::Gone;
            }
        }
        let tokens = &self.tokens;
        let remembered = |id| tokens.iter().any(|out| out.identity == id && out.fate != Fate::Gone);
        self.ones.retain(|_, one| one.state != State::Expired || remembered(one.id));
        for one in self.ones.values_mut() {
            if one.pins.iter().any(|pin| pin.1 == Role::Next && pin.2.is_some_and(|until| now > until)) {
                one.pins.retain(|pin| pin.1 == Role::Next);
                one.pins.iter_mut().for_each(|pin| *pin = (pin.0, Role::Current, None));
            }
            one.pins.retain(|pin| pin.2.is_none_or(|until| now <= until));
        }
    }
}

/// The book and the model, side by side.
struct Pair {
    a: Cluster,
    book: Book,
    model: Model,
    tokens: Vec<Token>,
    now: u64,
    random: u8,
}

impl Pair {
    fn apply(&mut self, op: &Op) {
        self.random += 1;
        let (random, now, own) = (self.random, self.now, self.a.own());
        let (book, model) = (&mut self.book, &mut self.model);
        match *op {
            Op::Issue { name, replace, approve } => {
                let new = NewLink { replace, approve, ..NewLink::named(NAMES[name], "ada") };
                let issued = issue(book, &own, &new, random, now);
                assert_eq!(issued.is_ok(), model.issue(name, replace, approve, now), "{issued:?}");
                self.tokens.extend(issued);
            }
            Op::Redeem { token, certificate, right } => {
                let Some(token_held) = self.tokens.get(token) else { return };
                let name = NAMES.iter().find(|name| **name == token_held.issued_for).expect("one of them");
                let mut request = cluster(name, 0).asks(token_held);
                if !right {
                    request.secret = Secret::new([0xee; 32]);
                }
                let before = book.clone();
                let redeemed = book.redeem(&own, &request, &leaf(certificate), SOURCE, now);
                let expected = model.redeem(token, certificate, right, now).map(str::to_owned);
                assert_eq!(code(&redeemed).map(|code| code.to_string()), expected);
                assert_eq!(redeemed.changed, *book != before);
            }
            Op::RevokeToken(token) => {
                let Some(held) = self.tokens.get(token) else { return };
                assert_eq!(book.revoke_token(held.id).is_ok(), model.revoke_token(token));
            }
            Op::Approve(name) => {
                let done = model.change(name, &[State::PendingApproval], State::Active);
                assert_eq!(book.approve(NAMES[name], "ada").is_ok(), done);
            }
            Op::Create { name, certificate } => {
                let leaf = leaf(certificate);
                let new = NewIdentity {
                    kind: Kind::Link,
                    name: NAMES[name],
                    prefix: None,
                    groups: &[],
                    addrs: &[],
                    caps: &[],
                    leaf: &leaf,
                    description: "",
                    operator: "ada",
                };
                let created = book.create_identity(&own, &new, [random; 16], now);
                assert_eq!(created.is_ok(), model.create(name, certificate), "{created:?}");
            }
            Op::Revoke(name) => {
                let from = [State::Active, State::PendingApproval, State::RevokedByPeer];
                let done = model.change(name, &from, State::Revoked);
                assert_eq!(book.revoke(Kind::Link, NAMES[name], "ada").is_ok(), done);
                if done {
                    model.forget_issued(name);
                }
            }
            Op::Delete(name) => {
                let done = model.ones.remove(&name).is_some();
                assert_eq!(book.delete_identity(Kind::Link, NAMES[name], "ada").is_ok(), done);
                if done {
                    model.forget_issued(name);
                }
            }
            Op::Removed(name) => {
                let done = model.change(name, &[State::Active], State::RevokedByPeer);
                assert_eq!(book.peer_removed_us(NAMES[name]).is_ok(), done);
            }
            Op::Rotate { name, certificate, overlap } => {
                let begun = book.rotate_begin(&own, NAMES[name], &leaf(certificate), now + overlap, now);
                assert_eq!(begun.is_ok(), model.rotate(name, certificate, now + overlap), "{begun:?}");
            }
            Op::Seen(certificate) => {
                let seen = book.seen(Fingerprint([certificate; 32]), SOURCE, now);
                assert_eq!(seen != Seen::Unknown, model.seen(certificate, now), "{seen:?}");
            }
            Op::Wait(seconds) => {
                self.now += seconds;
                book.expire(self.now);
                model.expire(self.now);
                assert!(
                    book.next_change(self.now).is_none_or(|next| next > self.now),
                    "nothing is left to do"
                );
            }
            Op::Restart => *book = Book::from_json(&book.to_json()).expect("what was written is read"),
        }
        self.check();
    }

    fn check(&self) {
        let (book, model) = (&self.book, &self.model);
        assert_eq!(book.identities().len(), model.ones.len());
        for (name, one) in &model.ones {
            let kept = book.link(NAMES[*name]).expect("it is there");
            assert_eq!(kept.state, one.state, "{}", NAMES[*name]);
            let pins: Vec<_> =
                kept.fingerprints.iter().map(|pin| (pin.sha256.0[0], pin.role, pin.until)).collect();
            assert_eq!(pins, one.pins);
            let usable: Vec<u8> = book.peers_pins(NAMES[*name], self.now).iter().map(|pin| pin[0]).collect();
            assert_eq!(usable, Model::usable(one, self.now));
        }
        let active = model.ones.values().filter(|one| !Model::usable(one, self.now).is_empty()).count();
        assert_eq!(book.peers(self.now).len(), active);
        let may_come =
            |out: &Out| matches!(out.fate, Fate::Issued | Fate::Used(_)) && self.now <= out.expires;
        assert_eq!(book.pending(self.now), model.tokens.iter().any(may_come));
        let mut pins = HashSet::new();
        assert!(book.identities().flat_map(|one| &one.fingerprints).all(|pin| pins.insert(pin.sha256)));
        assert!(!pins.contains(&self.a.leaf().sha256));
        assert!(book.conflicts(&self.a.own()).is_empty());
        let text = book.to_json();
        for token in &self.tokens {
            assert!(!text.contains(&*token.secret.text()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_book_does_what_the_model_does(ops in prop::collection::vec(op(), 1..60)) {
        let mut pair = Pair {
            a: cluster("A", 1),
            book: Book::default(),
            model: Model::default(),
            tokens: Vec::new(),
            now: NOW,
            random: 0,
        };
        for op in &ops {
            pair.apply(op);
        }
    }
}
