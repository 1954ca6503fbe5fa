use super::*;

const PIN_B: [u8; 32] = [0xb; 32];
const PIN_C: [u8; 32] = [0xc; 32];

fn certificate(der_sha256: [u8; 32], common_name: Option<&str>, chain_verified: bool) -> CertificateFacts {
    CertificateFacts {
        der_sha256,
        common_name: common_name.map(str::to_owned),
        subject: String::new(),
        not_after_unix: i64::MAX,
        chain: Box::default(),
        anchor: None,
        chain_verified,
    }
}

fn rule(cluster: &str) -> PeerRule {
    PeerRule {
        cluster: cluster.to_owned(),
        clientid_prefix: format!("clink-{cluster}-"),
        ..PeerRule::default()
    }
}

/// A and AB by username, B by common name and username, C by fingerprint, L by nothing on loopback.
fn rules() -> Vec<PeerRule> {
    vec![
        PeerRule { username: Some("clink-user:A".into()), ..rule("A") },
        PeerRule { username: Some("clink-user:AB".into()), ..rule("AB") },
        PeerRule { username: Some("clink-user:B".into()), cert_cn: Some("cluster-b".into()), ..rule("B") },
        PeerRule { cert_sha256: vec![PIN_C, [0xcc; 32]], ..rule("C") },
        PeerRule { allow_unauthenticated: true, ..rule("L") },
        rule("N"),
    ]
}

/// One row of a table: the connection, and what it is bound to.
struct Case {
    what: &'static str,
    client_id: &'static str,
    /// User Name, and whether its Password was verified.
    user: Option<(&'static str, bool)>,
    certificate: Option<CertificateFacts>,
    role: ListenerRole,
    loopback: bool,
    expect: Result<Option<&'static str>, Refusal>,
}

fn case(what: &'static str, client_id: &'static str, expect: Result<Option<&'static str>, Refusal>) -> Case {
    Case { what, client_id, user: None, certificate: None, role: ListenerRole::Any, loopback: false, expect }
}

impl Case {
    fn user(self, name: &'static str) -> Self {
        Self { user: Some((name, true)), ..self }
    }

    fn unverified_user(self, name: &'static str) -> Self {
        Self { user: Some((name, false)), ..self }
    }

    fn cert(self, pin: [u8; 32], common_name: Option<&str>, chain_verified: bool) -> Self {
        Self { certificate: Some(certificate(pin, common_name, chain_verified)), ..self }
    }

    fn on(self, role: ListenerRole) -> Self {
        Self { role, ..self }
    }

    fn loopback(self) -> Self {
        Self { loopback: true, ..self }
    }

    fn check(&self, rules: &[PeerRule]) {
        let facts = ConnectFacts {
            client_id: self.client_id,
            username: self.user.map(|(name, _)| name),
            password_verified: self.user.is_some_and(|(_, verified)| verified),
            certificate: self.certificate.as_ref(),
            role: self.role,
            loopback: self.loopback,
        };
        let got = match bind(rules, &facts) {
            Binding::Ordinary => Ok(None),
            Binding::Peer(rule) => Ok(Some(rule.cluster.as_str())),
            Binding::Refused(refusal) => Err(refusal),
        };
        assert_eq!(got, self.expect, "{}", self.what);
    }
}

fn check(cases: &[Case]) {
    let rules = rules();
    for case in cases {
        case.check(&rules);
    }
}

#[test]
fn a_peer_is_bound_by_every_field_of_its_rule() {
    use Refusal::*;
    check(&[
        case("username and password", "clink-A-1", Ok(Some("A"))).user("clink-user:A"),
        case("the prefix alone is a ClientID too", "clink-A-", Ok(Some("A"))).user("clink-user:A"),
        case("password not verified", "clink-A-1", Err(PasswordNotVerified)).unverified_user("clink-user:A"),
        case("nothing", "clink-A-1", Err(UsernameMismatch)),
        case("another user", "clink-A-1", Err(UsernameMismatch)).user("app"),
        case("a certificate that is nobody's", "clink-A-1", Ok(Some("A"))).user("clink-user:A").cert(
            [1; 32],
            Some("x"),
            true,
        ),
        case("fingerprint", "clink-C-1", Ok(Some("C"))).cert(PIN_C, None, false),
        case("one of several fingerprints", "clink-C-1", Ok(Some("C"))).cert([0xcc; 32], None, false),
        case("another fingerprint", "clink-C-1", Err(FingerprintMismatch)).cert([1; 32], None, true),
        case("no certificate", "clink-C-1", Err(CertificateMissing)),
        case("name and username", "clink-B-1", Ok(Some("B"))).user("clink-user:B").cert(
            PIN_B,
            Some("cluster-b"),
            true,
        ),
        case("a certificate stands in for the password", "clink-B-1", Ok(Some("B")))
            .unverified_user("clink-user:B")
            .cert(PIN_B, Some("cluster-b"), true),
        case("name without chain", "clink-B-1", Err(ChainNotVerified)).user("clink-user:B").cert(
            PIN_B,
            Some("cluster-b"),
            false,
        ),
        case("another name", "clink-B-1", Err(CommonNameMismatch)).user("clink-user:B").cert(
            PIN_B,
            Some("cluster-x"),
            true,
        ),
        case("no name", "clink-B-1", Err(CommonNameMismatch)).user("clink-user:B").cert(PIN_B, None, true),
        case("name without username", "clink-B-1", Err(UsernameMismatch)).cert(
            PIN_B,
            Some("cluster-b"),
            true,
        ),
        case("username without certificate", "clink-B-1", Err(CertificateMissing)).user("clink-user:B"),
        case("no proof asked for, loopback", "clink-L-1", Ok(Some("L"))).loopback(),
        case("no proof asked for, elsewhere", "clink-L-1", Err(NotLoopback)),
        case("no proof configured", "clink-N-1", Err(NoProofConfigured)).loopback().user("x"),
    ]);
}

#[test]
fn a_peers_identity_is_of_no_use_to_anybody_else() {
    use Refusal::*;
    check(&[
        case("A4: right password, ClientID outside the prefix", "x", Err(ClientIdOutsidePrefix))
            .user("clink-user:A"),
        case("A4: empty ClientID", "", Err(ClientIdOutsidePrefix)).user("clink-user:A"),
        case("A4: case matters", "CLINK-A-1", Err(ClientIdOutsidePrefix)).user("clink-user:A"),
        case("A4: by certificate", "x", Err(ClientIdOutsidePrefix)).cert(PIN_C, None, false),
        case("A4: by name", "x", Err(ClientIdOutsidePrefix)).cert(PIN_B, Some("cluster-b"), true),
        case("T3: an unverified name is no identity", "x", Ok(None)).cert(PIN_B, Some("cluster-b"), false),
        case("A5: A's username, C's certificate", "clink-A-1", Err(IdentityOfAnotherPeer))
            .user("clink-user:A")
            .cert(PIN_C, None, false),
        case("A5: A's username as C", "clink-C-1", Err(IdentityOfAnotherPeer))
            .user("clink-user:A")
            .cert(PIN_C, None, false),
        case("A5: A's username under AB's prefix", "clink-AB-1", Err(IdentityOfAnotherPeer))
            .user("clink-user:A"),
        case("prefixes that begin alike", "clink-AB-1", Ok(Some("AB"))).user("clink-user:AB"),
        case("A6: link username on an application listener", "x", Err(ClientIdOutsidePrefix))
            .user("clink-user:A")
            .on(ListenerRole::Client),
        case("A6: claimed without password", "x", Err(ClientIdOutsidePrefix))
            .unverified_user("clink-user:A")
            .on(ListenerRole::Client),
        case("A6: application with a peer's ClientID", "clink-A-x", Err(UsernameMismatch))
            .user("app")
            .on(ListenerRole::Client),
        case("A8: the ClientID of a live link", "clink-C-1", Err(CertificateMissing))
            .user("app")
            .on(ListenerRole::Any),
    ]);
}

#[test]
fn the_listeners_role_decides_who_comes_in_at_all() {
    use Refusal::*;
    let peer = |role, expect| case("peer", "clink-A-1", expect).user("clink-user:A").on(role);
    check(&[
        peer(ListenerRole::Client, Err(PeerOnClientListener)),
        peer(ListenerRole::Link, Ok(Some("A"))),
        peer(ListenerRole::Any, Ok(Some("A"))),
        case("application", "x", Ok(None)).user("app").on(ListenerRole::Client),
        case("application", "x", Ok(None)).user("app").on(ListenerRole::Any),
        case("application", "x", Err(UnboundOnLinkListener)).user("app").on(ListenerRole::Link),
        case("nearly a prefix", "clink-A", Ok(None)).on(ListenerRole::Any),
    ]);
}

#[test]
fn without_rules_everyone_is_ordinary() {
    case("no rules", "clink-A-1", Ok(None)).user("clink-user:A").check(&[]);
}

#[test]
fn of_overlapping_prefixes_the_longest_decides_and_an_empty_one_names_nobody() {
    let wide = PeerRule { clientid_prefix: "clink-".into(), username: Some("u".into()), ..rule("W") };
    let narrow = PeerRule { username: Some("v".into()), ..rule("A") };
    for rules in [[wide.clone(), narrow.clone()], [narrow.clone(), wide]] {
        case("the longer", "clink-A-1", Ok(Some("A"))).user("v").check(&rules);
        case("the shorter", "clink-C-1", Ok(Some("W"))).user("u").check(&rules);
        case("under the longer", "clink-A-1", Err(Refusal::IdentityOfAnotherPeer)).user("u").check(&rules);
        case("under the shorter", "clink-C-1", Err(Refusal::IdentityOfAnotherPeer)).user("v").check(&rules);
        case("with nothing", "clink-A-1", Err(Refusal::UsernameMismatch)).check(&rules);
    }
    let same = PeerRule { username: Some("u".into()), clientid_prefix: "clink-A-".into(), ..rule("S") };
    case("one prefix for two", "clink-A-1", Err(Refusal::AmbiguousClientId)).user("v").check(&[narrow, same]);
    let empty = PeerRule { clientid_prefix: String::new(), allow_unauthenticated: true, ..rule("E") };
    case("empty", "x", Ok(None)).loopback().check(&[empty]);
}

#[test]
fn rules_that_cannot_be_told_apart_are_reported_with_both_names() {
    let names = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(conflicts(&rules()), [RuleConflict::NoProof("N".into())]);

    let user = |cluster| PeerRule { username: Some("same".into()), ..rule(cluster) };
    let (a, b) = names("A", "B");
    assert_eq!(conflicts(&[user("A"), user("B")]), [RuleConflict::Username(a, b)], "A7");

    let pin = |cluster| PeerRule { cert_sha256: vec![PIN_B], ..rule(cluster) };
    let (a, b) = names("A", "B");
    assert_eq!(conflicts(&[pin("A"), pin("B")]), [RuleConflict::Fingerprint(a, b)]);

    let name = |cluster| PeerRule { cert_cn: Some("same".into()), ..rule(cluster) };
    let (a, b) = names("A", "B");
    assert_eq!(conflicts(&[name("A"), name("B")]), [RuleConflict::CommonName(a, b)]);

    let proof = |cluster: &str| Some(format!("user-{cluster}"));
    let wide = PeerRule { clientid_prefix: "clink-".into(), username: proof("W"), ..rule("W") };
    let same = PeerRule { clientid_prefix: "clink-A-".into(), username: proof("S"), ..rule("S") };
    let narrow = PeerRule { username: proof("A"), ..rule("A") };
    let (a, s) = names("A", "S");
    assert_eq!(conflicts(&[narrow, wide, same]), [RuleConflict::Prefix(a, s)]);

    let empty = PeerRule { clientid_prefix: String::new(), username: proof("E"), ..rule("E") };
    assert_eq!(conflicts(&[empty]), [RuleConflict::EmptyPrefix("E".into())]);
}

#[test]
fn every_refusal_has_its_own_snake_case_name() {
    let mut names: Vec<_> = Refusal::ALL.iter().map(|refusal| refusal.name()).collect();
    for (index, refusal) in Refusal::ALL.iter().enumerate() {
        assert_eq!(*refusal as usize, index);
        assert!(refusal.name().chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{refusal}");
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Refusal::ALL.len());
}
