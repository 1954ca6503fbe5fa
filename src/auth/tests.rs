use super::*;
use crate::auth::peer::PeerRule;
use crate::auth::peer::Refusal;

const OPEN: Authenticator = Authenticator {
    enable: true,
    allow_anonymous: true,
    has_users: false,
    certificate_username: CertificateUsername::Disabled,
};
const CLOSED: Authenticator = Authenticator { allow_anonymous: false, has_users: true, ..OPEN };
const MIXED: Authenticator = Authenticator { allow_anonymous: true, has_users: true, ..OPEN };
const NOTHING: Credentials<'static> = Credentials {
    username: None,
    has_password: false,
    password: PasswordCheck::NotChecked,
    enhanced: None,
    certificate: None,
};

fn with(username: Option<&'static str>, has_password: bool, password: PasswordCheck) -> Credentials<'static> {
    Credentials { username, has_password, password, ..NOTHING }
}

#[test]
fn the_name_that_was_proved_counts_and_no_other() {
    let proved = Credentials { enhanced: Some("u"), ..NOTHING };
    let same = Credentials { username: Some("u"), ..proved };
    let empty = Credentials { username: Some(""), ..proved };
    let other = Credentials { username: Some("admin"), ..proved };
    let off = Authenticator { enable: false, ..CLOSED };
    for authenticator in [CLOSED, MIXED, OPEN, off] {
        for credentials in [proved, same, empty] {
            assert_eq!(decide(&authenticator, &Binding::Ordinary, &credentials), allow(Some("u")));
        }
        let mismatch = Outcome::Deny(DenyReason::UsernameMismatch);
        assert_eq!(decide(&authenticator, &Binding::Ordinary, &other), mismatch);
        let wrong = Credentials { has_password: true, password: PasswordCheck::Bad, ..same };
        let bad = Outcome::Deny(DenyReason::BadCredentials);
        assert_eq!(
            decide(&authenticator, &Binding::Ordinary, &wrong),
            bad,
            "a proof excuses no wrong password"
        );
    }
}

#[test]
fn passwords_and_anonymous_clients() {
    use DenyReason::*;
    use PasswordCheck::*;
    let good = with(Some("u"), true, Good);
    let bad = with(Some("u"), true, Bad);
    let no_password = with(Some("u"), false, NotChecked);
    let no_username = with(None, true, NotChecked);
    let empty_username = with(Some(""), false, NotChecked);
    let unchecked = with(Some("u"), true, NotChecked);
    let off = Authenticator { enable: false, ..CLOSED };
    let shut = Authenticator { allow_anonymous: false, ..OPEN };
    let table = [
        ("good", CLOSED, good, Ok(Some("u"))),
        ("good", MIXED, good, Ok(Some("u"))),
        ("bad", CLOSED, bad, Err(BadCredentials)),
        ("bad is out even where anonymous is in", MIXED, bad, Err(BadCredentials)),
        ("anonymous", CLOSED, NOTHING, Err(Anonymous)),
        ("anonymous", MIXED, NOTHING, Ok(None)),
        ("A3: no password", CLOSED, no_password, Err(IncompleteCredentials)),
        ("A3: no password is not anonymous", MIXED, no_password, Err(IncompleteCredentials)),
        ("A3: no username", MIXED, no_username, Err(IncompleteCredentials)),
        ("an empty username is none", MIXED, empty_username, Ok(None)),
        ("an empty username is none", CLOSED, empty_username, Err(Anonymous)),
        ("nobody to ask, all let in", OPEN, unchecked, Ok(Some("u"))),
        ("nobody to ask, all let in", OPEN, no_username, Ok(None)),
        ("nobody to ask, nobody let in", shut, unchecked, Err(BadCredentials)),
        ("nobody to ask, nobody let in", shut, NOTHING, Err(Anonymous)),
        ("switched off", off, NOTHING, Ok(None)),
        ("switched off", off, no_password, Ok(Some("u"))),
    ];
    for (what, authenticator, credentials, expect) in table {
        let expect = match expect {
            Ok(username) => allow(username),
            Err(reason) => Outcome::Deny(reason),
        };
        assert_eq!(
            decide(&authenticator, &Binding::Ordinary, &credentials),
            expect,
            "{what}: {credentials:?}"
        );
    }
}

#[test]
fn a_bound_peer_is_in_and_a_refused_one_is_out() {
    let rule = PeerRule { cluster: "B".into(), ..PeerRule::default() };
    let claimed = with(Some("clink-user:B"), false, PasswordCheck::NotChecked);
    let wrong = with(Some("clink-user:B"), true, PasswordCheck::Bad);
    let peer = Binding::Peer(&rule);
    assert_eq!(decide(&CLOSED, &peer, &claimed), allow(Some("clink-user:B")));
    assert_eq!(decide(&CLOSED, &peer, &wrong), Outcome::Deny(DenyReason::BadCredentials));
    let refused = Binding::Refused(Refusal::UsernameMismatch);
    assert_eq!(decide(&OPEN, &refused, &NOTHING), Outcome::Deny(DenyReason::Peer));
}

#[test]
fn a_certificate_as_username() {
    use self::CertificateUsername as Part;
    use DenyReason::*;
    let facts = CertificateFacts {
        der_sha256: [0xab; 32],
        common_name: Some("device-1".into()),
        subject: "CN=device-1,O=x".into(),
        not_after_unix: 0,
        chain: Box::default(),
        anchor: None,
        chain_verified: true,
    };
    let nameless = CertificateFacts { common_name: None, ..facts.clone() };
    let unverified = CertificateFacts { chain_verified: false, ..facts.clone() };
    let hex = "ab".repeat(32);
    let table = [
        (Part::CommonName, &facts, None, Ok("device-1")),
        (Part::CommonName, &facts, Some("device-1"), Ok("device-1")),
        (Part::CommonName, &facts, Some("device-2"), Err(UsernameMismatch)),
        (Part::CommonName, &nameless, None, Err(CertificateUsername)),
        (Part::CommonName, &unverified, None, Err(CertificateUnverified)),
        (Part::Subject, &facts, None, Ok("CN=device-1,O=x")),
        (Part::Sha256, &facts, None, Ok(hex.as_str())),
        (Part::Sha256, &unverified, None, Err(CertificateUnverified)),
        (Part::Disabled, &facts, None, Err(Anonymous)),
    ];
    for (part, certificate, username, expect) in table {
        let authenticator = Authenticator { certificate_username: part, ..CLOSED };
        let credentials = Credentials { username, certificate: Some(certificate), ..NOTHING };
        let expect = match expect {
            Ok(name) => allow(Some(name)),
            Err(reason) => Outcome::Deny(reason),
        };
        assert_eq!(decide(&authenticator, &Binding::Ordinary, &credentials), expect, "{part:?} {username:?}");
    }
}

#[test]
fn every_reason_has_its_own_name_at_its_index() {
    let mut names: Vec<_> = DenyReason::ALL.iter().map(|reason| reason.name()).collect();
    for (index, reason) in DenyReason::ALL.iter().enumerate() {
        assert_eq!(*reason as usize, index);
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), DenyReason::ALL.len());
}
