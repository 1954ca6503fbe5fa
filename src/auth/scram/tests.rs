use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::auth::users::LineError;

/// RFC 7677 section 3.
const RFC_FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const RFC_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const RFC_SERVER_FIRST: &str =
    "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const RFC_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const RFC_SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

const KEY: DecoyKey = DecoyKey([7; 32]);

fn rfc_users() -> ScramFile {
    let salt = Base64::decode_vec("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap().try_into().unwrap();
    let mut users = ScramFile::default();
    users.set("user", Credential::derive(b"pencil", &salt, 4096).unwrap()).unwrap();
    users
}

fn challenged(users: &ScramFile, first: &[u8]) -> Result<(Exchange, String), Refusal> {
    let mut exchange = Exchange::default();
    match exchange.step(Some(first), users, &KEY, RFC_NONCE, &|_| true)? {
        Step::Challenge(data) => Ok((exchange, String::from_utf8(data).unwrap())),
        Step::Done { .. } => panic!("done after one message"),
    }
}

fn finish(first: &[u8], last: &str) -> Result<Step, Refusal> {
    let users = rfc_users();
    challenged(&users, first)?.0.step(Some(last.as_bytes()), &users, &KEY, "unused", &|_| true)
}

/// The client's side of RFC 5802 section 3, from its own words.
fn client_final(password: &[u8], first: &str, server_first: &str) -> String {
    let mut parts = server_first.split(',').map(|part| &part[2..]);
    let (nonce, salt, rounds) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let mut salted = [0; 32];
    let rounds = NonZeroU32::new(rounds.parse().unwrap()).unwrap();
    let salt = Base64::decode_vec(salt).unwrap();
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, password, &mut salted);
    let client_key = hmac(&salted, &[b"Client Key"]);
    let bare = first.splitn(3, ',').nth(2).unwrap();
    let gs2 = Base64::encode_string(&first.as_bytes()[..first.len() - bare.len()]);
    let without_proof = format!("c={gs2},r={nonce}");
    let message = format!("{bare},{server_first},{without_proof}");
    let signature = hmac(&sha256(&client_key), &[message.as_bytes()]);
    let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, sign)| key ^ sign).collect();
    format!("{without_proof},p={}", Base64::encode_string(&proof))
}

#[test]
fn the_exchange_of_rfc_7677_ends_as_it_says() {
    let users = rfc_users();
    let (mut exchange, challenge) = challenged(&users, RFC_FIRST).unwrap();
    assert_eq!(challenge, RFC_SERVER_FIRST);
    let done = exchange.step(Some(RFC_FINAL.as_bytes()), &users, &KEY, "unused", &|_| true).unwrap();
    assert_eq!(done, Step::Done { username: "user".to_owned(), data: RFC_SERVER_FINAL.into() });
    assert_eq!(
        exchange.step(Some(RFC_FINAL.as_bytes()), &users, &KEY, "unused", &|_| true),
        Err(Refusal::Over)
    );
    assert_eq!(client_final(b"pencil", "n,,n=user,r=rOprNGfwEbeRWgbNEkqO", &challenge), RFC_FINAL);
}

#[test]
fn a_client_that_says_nothing_is_asked_for_its_first_message_once() {
    let users = rfc_users();
    for nothing in [None, Some(b"".as_slice())] {
        let mut exchange = Exchange::default();
        assert_eq!(exchange.step(nothing, &users, &KEY, "n", &|_| true), Ok(Step::Challenge(Vec::new())));
        let mut again = Exchange { state: State::Asked, claimed: None };
        assert_eq!(again.step(nothing, &users, &KEY, "n", &|_| true), Err(Refusal::MalformedFirst));
        assert!(matches!(
            exchange.step(Some(RFC_FIRST), &users, &KEY, RFC_NONCE, &|_| true),
            Ok(Step::Challenge(_))
        ));
        assert!(matches!(
            exchange.step(Some(RFC_FINAL.as_bytes()), &users, &KEY, "n", &|_| true),
            Ok(Step::Done { .. })
        ));
    }
}

#[test]
fn a_wrong_password_an_old_nonce_and_a_changed_binding_are_refused() {
    let first = std::str::from_utf8(RFC_FIRST).unwrap();
    let wrong = client_final(b"pencils", first, RFC_SERVER_FIRST);
    let table = [
        (wrong.clone(), Refusal::Proof),
        (RFC_FINAL.replace("k0,p=", "k1,p="), Refusal::Nonce),
        (RFC_FINAL.replace("%hvY", ""), Refusal::Nonce),
        (RFC_FINAL.replace("biws", "eSws"), Refusal::BindingChanged),
        (RFC_FINAL.replace("c=biws", "c="), Refusal::BindingChanged),
        (RFC_FINAL.replace("k0,p=", "k0,x=1,p="), Refusal::Proof),
        (RFC_FINAL.replace("biws", "biw"), Refusal::MalformedFinal),
        (RFC_FINAL.replace("c=biws,", ""), Refusal::MalformedFinal),
        (RFC_FINAL.replace("p=dHzb", "p=dHz"), Refusal::MalformedFinal),
        (RFC_FINAL.replace("ndVQ=", "ndVQ"), Refusal::MalformedFinal),
        (RFC_FINAL.replace("p=dHzb", "p="), Refusal::MalformedFinal),
        (RFC_FINAL.replace(",p=", ",q="), Refusal::MalformedFinal),
        (RFC_FINAL.replace("k0,p=", "k0,,p="), Refusal::MalformedFinal),
        (String::new(), Refusal::MalformedFinal),
        ("p=".to_owned(), Refusal::MalformedFinal),
        ("x".repeat(MESSAGE_BYTES_MAX + 1), Refusal::TooLong),
    ];
    for (last, refusal) in table {
        assert_eq!(finish(RFC_FIRST, &last), Err(refusal), "{last}");
    }
    // Once refused, the exchange stays over.
    let users = rfc_users();
    let (mut exchange, _) = challenged(&users, RFC_FIRST).unwrap();
    assert_eq!(exchange.step(Some(wrong.as_bytes()), &users, &KEY, "n", &|_| true), Err(Refusal::Proof));
    assert_eq!(exchange.step(Some(RFC_FINAL.as_bytes()), &users, &KEY, "n", &|_| true), Err(Refusal::Over));
}

#[test]
fn malformed_first_messages_are_refused() {
    use Refusal::*;
    let table: [(&[u8], Refusal); 22] = [
        (b"n", MalformedFirst),
        (b"n,", MalformedFirst),
        (b"n,,", MalformedFirst),
        (b"n,,n=user", MalformedFirst),
        (b"n,,n=user,r=", MalformedFirst),
        (b"n,,n=user,r=a b", MalformedFirst),
        (b"n,,n=user,r=\xc3\xa9", MalformedFirst),
        (b"n,,n=user,x=1,r=a", MalformedFirst),
        (b"n,,n=user,r=a,", MalformedFirst),
        (b"n,,n=user,r=a,1=x", MalformedFirst),
        (b"n,,n=,r=a", MalformedFirst),
        (b"n,,n=us=er,r=a", MalformedFirst),
        (b"n,,n=us=2cer,r=a", MalformedFirst),
        (b"n,,n=user=,r=a", MalformedFirst),
        (b"n,,n=us\0er,r=a", MalformedFirst),
        (b"n,,n=us\xffer,r=a", MalformedFirst),
        (b"N,,n=user,r=a", MalformedFirst),
        (b"n,user,n=user,r=a", MalformedFirst),
        (b"p=tls-server-end-point,,n=user,r=a", ChannelBinding),
        (b"n,,m=x,n=user,r=a", Extension),
        (b"n,a=admin,n=user,r=a", AuthorizationIdentity),
        (&[b'x'; MESSAGE_BYTES_MAX + 1], TooLong),
    ];
    let users = rfc_users();
    for (first, refusal) in table {
        let found = challenged(&users, first).map(|(_, challenge)| challenge);
        assert_eq!(found, Err(refusal), "{}", first.escape_ascii());
    }
}

#[test]
fn flags_identities_and_extensions_that_change_nothing_are_taken() {
    let users = rfc_users();
    for first in ["y,,n=user,r=abc", "n,a=user,n=user,r=abc", "y,a=user,n=user,r=abc,x=1"] {
        let (mut exchange, challenge) = challenged(&users, first.as_bytes()).unwrap();
        let last = client_final(b"pencil", first, &challenge);
        let done = exchange.step(Some(last.as_bytes()), &users, &KEY, "n", &|_| true);
        assert!(matches!(done, Ok(Step::Done { .. })), "{first}: {done:?}");
    }
}

#[test]
fn commas_and_equals_signs_in_names_are_escaped() {
    let mut users = ScramFile::default();
    users.set("a,b=c", Credential::derive(b"p", &[1; 16], 4096).unwrap()).unwrap();
    let first = "n,,n=a=2Cb=3Dc,r=abc";
    let (mut exchange, challenge) = challenged(&users, first.as_bytes()).unwrap();
    let last = client_final(b"p", first, &challenge);
    let done = exchange.step(Some(last.as_bytes()), &users, &KEY, "n", &|_| true).unwrap();
    assert!(matches!(done, Step::Done { username, .. } if username == "a,b=c"));
}

/// The salt and the iterations that a client is shown for `name`.
fn shown(users: &ScramFile, name: &str, key: &DecoyKey) -> (String, String) {
    let first = format!("n,,n={name},r=abc");
    let step = Exchange::default().step(Some(first.as_bytes()), users, key, "n", &|_| true).unwrap();
    let Step::Challenge(data) = step else { panic!("{step:?}") };
    let text = String::from_utf8(data).unwrap();
    let mut parts = text.split(',').skip(1).map(str::to_owned);
    (parts.next().unwrap(), parts.next().unwrap())
}

#[test]
fn an_unknown_user_has_a_salt_that_stays_and_profiles_that_occur() {
    let mut users = rfc_users();
    users.set("other", Credential::derive(b"p", &[1; 16], 5000).unwrap()).unwrap();
    let profiles: BTreeSet<String> =
        (0..64).map(|index| shown(&users, &format!("nobody{index}"), &KEY).1).collect();
    assert_eq!(profiles, BTreeSet::from(["i=4096".to_owned(), "i=5000".to_owned()]));
    let nobody = shown(&users, "nobody", &KEY);
    assert_eq!(nobody, shown(&users, "nobody", &KEY));
    assert_eq!(nobody.0.len(), shown(&users, "user", &KEY).0.len(), "salts are of one length");
    assert_ne!(nobody.0, shown(&users, "nobody2", &KEY).0);
    assert_ne!(nobody.0, shown(&users, "nobody", &DecoyKey([8; 32])).0);
    assert_eq!(shown(&ScramFile::default(), "nobody", &KEY).1, format!("i={ITERATIONS}"));
}

#[test]
fn an_unknown_user_fails_where_a_wrong_password_fails() {
    let users = rfc_users();
    for name in ["nobody", "us\u{e9}r"] {
        let first = format!("n,,n={name},r=abc");
        let (mut exchange, challenge) = challenged(&users, first.as_bytes()).unwrap();
        let last = client_final(b"pencil", &first, &challenge);
        assert_eq!(exchange.step(Some(last.as_bytes()), &users, &KEY, "n", &|_| true), Err(Refusal::Proof));
    }
}

#[test]
fn a_credential_of_the_file_is_what_was_derived() {
    let credential = Credential::derive(b"secret", &[3; 16], ITERATIONS_MIN).unwrap();
    assert!(
        credential.text.starts_with("$scram-sha-256$i=4096$AwMDAwMDAwMDAwMDAwMDAw$"),
        "{}",
        credential.text
    );
    let read = Credential::parse(&credential.text).unwrap();
    assert_eq!((read.stored_key, read.server_key), (credential.stored_key, credential.server_key));
    assert_eq!((read.iterations, &read.salt), (4096, &credential.salt));
    let mut file = ScramFile::default();
    file.set("clink-user:A", credential.clone()).unwrap();
    let text = format!("# ours\n{}", file.render());
    assert_eq!(ScramFile::parse(&text).unwrap().render(), text);
    let shown = format!("{credential:?} {file:?} {KEY:?}");
    assert!(!shown.contains("AwMD") && !shown.contains("[3,") && !shown.contains("[7,"), "{shown}");
}

#[test]
fn bad_credentials_are_refused_with_their_line() {
    use UserError::*;
    let keys = Base64Unpadded::encode_string(&[1; 64]);
    let short = Base64Unpadded::encode_string(&[1; 32]);
    let salt = "AwMDAwMDAwMDAwMDAwMDAw";
    let table = [
        (format!("u:$scram-sha-256$i=4095${salt}${keys}"), Iterations),
        (format!("u:$scram-sha-256$i=10000001${salt}${keys}"), Iterations),
        (format!("u:$scram-sha-256$i=x${salt}${keys}"), NotScram),
        (format!("u:$scram-sha-256$i=4096,j=1${salt}${keys}"), NotScram),
        (format!("u:$scram-sha-256$v=1$i=4096${salt}${keys}"), NotScram),
        (format!("u:$scram-sha-256${salt}${keys}"), NotScram),
        (format!("u:$scram-sha-256$i=4096${salt}${short}"), NotScram),
        (format!("u:$scram-sha-256$i=4096${salt}"), NotScram),
        (format!("u:$scram-sha-256$i=4096$AwMD${keys}"), Length),
        (format!("u:$scram-sha-1$i=4096${salt}${keys}"), NotScram),
        (format!("u:$argon2id$v=19$m=64,t=1,p=1${salt}${short}"), NotScram),
        ("u:plain".to_owned(), NotScram),
        (format!("us\u{e9}r:$scram-sha-256$i=4096${salt}${keys}"), NotAscii),
    ];
    for (line, error) in table {
        let found = ScramFile::parse(&format!("# ours\n{line}\n")).err();
        assert_eq!(found, Some(LineError { line: 2, error }), "{line}");
    }
    for (password, error) in
        [("p\u{e9}".as_bytes(), NotAscii), (b"a\tb", NotAscii), (&[b'x'; 65_536], PasswordTooLong)]
    {
        assert_eq!(Credential::derive(password, &[1; 16], 4096).err(), Some(error));
    }
    assert_eq!(Credential::derive(b"p", &[1; 16], 0).err(), Some(Iterations));
}

proptest! {
    #[test]
    fn arbitrary_messages_never_panic_and_never_pass(
        first in proptest::collection::vec(any::<u8>(), 0..80),
        last in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let users = rfc_users_once();
        let mut exchange = Exchange::default();
        for message in [first.as_slice(), RFC_FIRST, &last] {
            let step = exchange.step(Some(message), users, &KEY, RFC_NONCE, &|_| true);
            let done = matches!(step, Ok(Step::Done { .. }));
            prop_assert!(!done);
        }
    }

    #[test]
    fn messages_of_the_right_shape_never_panic_and_never_pass(
        first in "[nyp],(a=[a-z=]{0,4})?,n=[a-z=2CD3]{0,8},r=[!-~]{0,8}(,[a-z]=[a-z]{0,3})?",
        last in "c=[a-zA-Z+/]{0,8}={0,2},r=[!-~]{0,40},p=[a-zA-Z0-9+/]{40,44}={0,2}",
    ) {
        let users = rfc_users_once();
        let mut exchange = Exchange::default();
        if exchange.step(Some(first.as_bytes()), users, &KEY, RFC_NONCE, &|_| true).is_ok() {
            prop_assert!(exchange.step(Some(last.as_bytes()), users, &KEY, "n", &|_| true).is_err());
        }
    }

    #[test]
    fn a_proof_with_any_other_byte_never_passes(index in 0_usize..32, mask in 1_u8..=255) {
        let users = rfc_users_once();
        let (head, proof) = RFC_FINAL.rsplit_once("p=").unwrap();
        let mut proof = Base64::decode_vec(proof).unwrap();
        proof[index] ^= mask;
        let last = format!("{head}p={}", Base64::encode_string(&proof));
        let mut exchange = challenged(users, RFC_FIRST).unwrap().0;
        prop_assert_eq!(exchange.step(Some(last.as_bytes()), users, &KEY, "n", &|_| true), Err(Refusal::Proof));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_wrong_password_never_passes_and_the_right_one_does(password in "[ -~]{1,24}") {
        let users = rfc_users_once();
        let first = std::str::from_utf8(RFC_FIRST).unwrap();
        let (mut exchange, challenge) = challenged(users, RFC_FIRST).unwrap();
        let last = client_final(password.as_bytes(), first, &challenge);
        let passed = exchange.step(Some(last.as_bytes()), users, &KEY, "n", &|_| true).is_ok();
        prop_assert_eq!(passed, password == "pencil");
    }
}

fn rfc_users_once() -> &'static ScramFile {
    static USERS: std::sync::OnceLock<ScramFile> = std::sync::OnceLock::new();
    USERS.get_or_init(rfc_users)
}

#[test]
fn a_name_that_is_held_is_neither_challenged_nor_verified() {
    let users = rfc_users();
    let mut exchange = Exchange::default();
    let step = exchange.step(Some(RFC_FIRST), &users, &KEY, RFC_NONCE, &|name| name != "user");
    assert_eq!((step, exchange.claimed()), (Err(Refusal::Held), Some("user")));
    // Held while it went on: the right proof is as good as any other.
    for last in [RFC_FINAL, "garbage"] {
        let (mut exchange, _) = challenged(&users, RFC_FIRST).unwrap();
        let step = exchange.step(Some(last.as_bytes()), &users, &KEY, "n", &|name| name != "user");
        assert_eq!(step, Err(Refusal::Held));
    }
}
