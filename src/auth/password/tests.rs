use proptest::prelude::*;

use super::*;
use crate::auth::users::MAX_USERNAME_BYTES;

/// Cheap enough for tests; the format is the same.
const CHEAP: &str = "$argon2id$v=19$m=64,t=1,p=1$";
const SALT: &str = "c2FsdHNhbHRzYWx0c2FsdA";
const HASH: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn cheap_hash(password: &[u8]) -> StoredHash {
    let params = Params::new(64, 1, 1, None).unwrap();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let salt = SaltString::encode_b64(b"saltsaltsaltsalt").unwrap();
    StoredHash::parse(&argon2.hash_password(password, &salt).unwrap().to_string()).unwrap()
}

fn error(text: &str) -> (usize, UserError) {
    let error = PasswordFile::parse(text).expect_err(text);
    (error.line, error.error)
}

#[test]
fn a_password_is_verified_against_its_users_hash_only() {
    let mut file = PasswordFile::default();
    assert_eq!(file.set("clink-user:A", cheap_hash(b"one")), Ok(false));
    assert_eq!(file.set("app", cheap_hash(b"two")), Ok(false));
    let file = PasswordFile::parse(&file.render()).unwrap();
    assert!(file.verify("clink-user:A", b"one"));
    assert!(file.verify("app", b"two"));
    assert!(!file.verify("app", b"one"));
    assert!(!file.verify("app", b""));
    assert!(!file.verify("app", b"two\0"));
    assert!(!file.verify("nobody", b"one"));
    assert!(!file.verify("", b"one"));
    assert!(!PasswordFile::default().verify("app", b"two"));
}

#[test]
fn passwords_are_bytes_without_normalisation() {
    let mut file = PasswordFile::default();
    file.set("nfc", cheap_hash("\u{e9}".as_bytes())).unwrap();
    file.set("nul", cheap_hash(b"a\0b\xff")).unwrap();
    file.set("long", cheap_hash(&[7; MAX_PASSWORD_BYTES])).unwrap();
    file.set("empty", cheap_hash(b"")).unwrap();
    assert!(file.verify("nfc", "\u{e9}".as_bytes()));
    assert!(!file.verify("nfc", "e\u{301}".as_bytes()));
    assert!(file.verify("nul", b"a\0b\xff"));
    assert!(!file.verify("nul", b"a"));
    assert!(file.verify("long", &[7; MAX_PASSWORD_BYTES]));
    assert!(file.verify("empty", b""));
}

#[test]
fn our_own_hashes_have_the_documented_form_and_verify() {
    let hash = hash_password(b"secret", &[1; 16]).unwrap();
    assert!(hash.text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.text);
    let mut memory = HashMemory::default();
    assert!(hash.verify(b"secret", &mut memory));
    assert!(!hash.verify(b"Secret", &mut memory));
    assert!(hash.verify(b"secret", &mut memory), "what the last one left changes nothing");
    let small = StoredHash { params: Params::new(8, 1, 1, None).unwrap(), ..hash.clone() };
    assert!(!small.verify(b"secret", &mut memory));
    assert!(hash.verify(b"secret", &mut memory));
    assert_eq!(memory.0.len(), 19 * 1024, "as much as the largest needs");
    assert_ne!(hash.text, hash_password(b"secret", &[2; 16]).unwrap().text);
    let long = vec![0; MAX_PASSWORD_BYTES + 1];
    assert_eq!(hash_password(&long, &[1; 16]).map(|_| ()), Err(UserError::PasswordTooLong));
}

#[test]
fn a_hash_made_by_the_reference_program_verifies() {
    // printf password | argon2 somesalt -id -v 13 -t 2 -m 16 -p 1 -l 32
    let line = "u:$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
    let file = PasswordFile::parse(line).unwrap();
    assert!(file.verify("u", b"password"));
    assert!(!file.verify("u", b"passwore"));
}

#[test]
fn an_unknown_user_costs_as_much_as_the_costliest() {
    let mut file = PasswordFile::default();
    file.set("cheap", cheap_hash(b"x")).unwrap();
    file.set("dear", hash_password(b"x", &[1; 16]).unwrap()).unwrap();
    file.set("other", cheap_hash(b"x")).unwrap();
    assert_eq!(file.strangers.as_ref().map(|dummy| dummy.params.m_cost()), Some(19_456));
}

#[test]
fn bad_lines_are_refused_with_their_number() {
    use UserError::*;
    let good = format!("{CHEAP}{SALT}${HASH}");
    let one_user = |text: &str| format!("# comment\n\n{text}\n");
    let table = [
        (one_user("nobody"), NoSeparator),
        (one_user(&format!(":{good}")), EmptyUsername),
        (one_user("u:"), NotPhc),
        (one_user("u:plain"), NotPhc),
        (one_user("u:$argon2id$v=19$m=64,t=1,p=1$"), NotPhc),
        (one_user(&format!("u:{CHEAP}{SALT}")), NotPhc),
        (one_user("u:$2b$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"), NotPhc),
        (one_user(&format!("u:$argon2i$v=19$m=64,t=1,p=1${SALT}${HASH}")), Algorithm),
        (one_user(&format!("u:$argon2id$v=16$m=64,t=1,p=1${SALT}${HASH}")), Algorithm),
        (one_user(&format!("u:$argon2id$m=64,t=1,p=1${SALT}${HASH}")), Algorithm),
        (one_user(&format!("u:$argon2id$v=19$m=4294967295,t=1,p=1${SALT}${HASH}")), Parameters),
        (one_user(&format!("u:$argon2id$v=19$m=262145,t=1,p=1${SALT}${HASH}")), Parameters),
        (one_user(&format!("u:$argon2id$v=19$m=64,t=17,p=1${SALT}${HASH}")), Parameters),
        (one_user(&format!("u:$argon2id$v=19$m=128,t=1,p=9${SALT}${HASH}")), Parameters),
        (one_user(&format!("u:$argon2id$v=19$m=1,t=1,p=1${SALT}${HASH}")), Parameters),
        (one_user(&format!("u:{CHEAP}c2FsdA${HASH}")), Length),
        (one_user(&format!("u:{CHEAP}{SALT}$AAAAAAAAAAAAAAAA")), Length),
        (one_user(&format!("a\u{7}b:{good}")), UnsafeUsername),
        (one_user(&format!("u :{good}")), UnsafeUsername),
        (one_user(&format!("{}:{good}", "u".repeat(MAX_USERNAME_BYTES + 1))), UsernameTooLong),
    ];
    for (text, expect) in table {
        assert_eq!(error(&text), (3, expect), "{text}");
    }
    assert_eq!(error(&format!("a:{good}\nb:{good}\na:{good}")), (3, DuplicateUser(1)));
}

#[test]
fn comments_and_order_stay_and_a_changed_user_keeps_its_line() {
    let hash = cheap_hash(b"x");
    let text = format!("# head\n\nb:{0}\n# middle\na:{0}\n", hash.text);
    let mut file = PasswordFile::parse(&text).unwrap();
    assert_eq!(file.render(), text);
    assert_eq!(PasswordFile::parse(&text.replace('\n', "\r\n")).unwrap().render(), text);

    let other = cheap_hash(b"y");
    assert_eq!(file.set("b", other.clone()), Ok(true));
    assert!(file.remove("a"));
    assert!(!file.remove("a"));
    assert_eq!(file.render(), format!("# head\n\nb:{}\n# middle\n", other.text));
    assert!(file.lookup("a").is_none());
    assert_eq!(file.len(), 1);
}

#[test]
fn nothing_secret_is_shown_by_debug() {
    let mut file = PasswordFile::default();
    let hash = hash_password(b"secret", &[1; 16]).unwrap();
    let shown = format!("{hash:?}");
    file.set("u", hash.clone()).unwrap();
    let shown = shown + &format!("{file:?}");
    let secret = hash.text.rsplit('$').next().unwrap();
    assert!(!shown.contains(secret) && !shown.contains("hash:"), "{shown}");
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "\\PC*(\n\\PC*){0,4}") {
        let _ = PasswordFile::parse(&text);
        let _ = StoredHash::parse(&text);
    }

    #[test]
    fn what_is_set_is_read_back(names in proptest::collection::vec("\\PC{0,12}", 0..6)) {
        let hash = cheap_hash(b"x");
        let mut file = PasswordFile::default();
        let mut accepted = Vec::new();
        for name in &names {
            if file.set(name, hash.clone()).is_ok() {
                accepted.push(name.clone());
            }
        }
        let read = PasswordFile::parse(&file.render()).unwrap();
        for name in &accepted {
            prop_assert!(read.lookup(name).is_some(), "{name:?}");
        }
        accepted.sort();
        accepted.dedup();
        prop_assert_eq!(read.len(), accepted.len());
    }
}
