use argon2::Algorithm;
use argon2::Params;
use argon2::Version;
use proptest::prelude::*;

use super::*;
use crate::auth::users::MAX_USERNAME_BYTES;

/// Cheap enough for tests; the format is the same.
const CHEAP: &str = "$argon2id$v=19$m=64,t=1,p=1$";
const SALT: &str = "c2FsdHNhbHRzYWx0c2FsdA";
const HASH: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn cheap_hash(password: &[u8]) -> Account {
    argon2_hash(password, 64).into()
}

fn argon2_hash(password: &[u8], memory: u32) -> StoredHash {
    let params = Params::new(memory, 1, 1, None).unwrap();
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
    let hash = argon2id(b"secret", &[1; 16]).unwrap();
    assert!(hash.text().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", hash.text());
    let mut memory = HashMemory::default();
    assert!(hash.verify(b"secret", &mut memory));
    assert!(!hash.verify(b"Secret", &mut memory));
    assert!(hash.verify(b"secret", &mut memory), "what the last one left changes nothing");
    assert!(!argon2_hash(b"x", 8).verify(b"secret", &mut memory));
    assert!(hash.verify(b"secret", &mut memory));
    assert_eq!(memory.blocks.len(), 19 * 1024, "as much as the largest needs");
    assert_ne!(hash.text(), argon2id(b"secret", &[2; 16]).unwrap().text());
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

/// What an attempt computed.
fn spent(file: &PasswordFile, user: &str, now_unix: u64) -> BTreeMap<Cost, usize> {
    let mut memory = HashMemory::default();
    let _ = file.check(user, b"wrong", now_unix, &mut memory);
    memory.computed
}

/// A2: the same hashes for everybody, so that time says neither who is a user nor how its password is kept.
#[test]
fn every_attempt_that_fails_computes_the_same_whoever_the_user_is() {
    let mut file = PasswordFile::default();
    file.set("one", cheap_hash(b"x")).unwrap();
    let only = spent(&file, "one", 0);
    assert_eq!(only.values().collect::<Vec<_>>(), [&1], "one hash");
    assert_eq!(spent(&file, "nobody", 0), only);
    file.set("dearer", argon2_hash(b"x", 128).into()).unwrap();
    file.set("changing", cheap_hash(b"new").replacing(cheap_hash(b"old"), 100)).unwrap();
    let bcrypt = "$2b$10$N9qo8uLOickgx2ZMRZoMyecBPBZPbMY9K9Iy/VaK.7YTHTLYF41De";
    file.set("bcrypt", Account::parse(bcrypt).unwrap()).unwrap();
    let expected = spent(&file, "nobody", 0);
    assert_eq!(expected.values().sum::<usize>(), 4, "two cheap ones, a dearer one, a bcrypt");
    for user in ["one", "dearer", "changing", "bcrypt", ""] {
        for now in [0, 100] {
            assert_eq!(spent(&file, user, now), expected, "{user} at {now}");
        }
    }
    let mut memory = HashMemory::default();
    file.pretend(b"wrong", &mut memory);
    assert_eq!(memory.computed, expected);
}

#[test]
fn kinds_of_hashes_are_few_since_each_costs_every_attempt() {
    let mut file = PasswordFile::default();
    for memory in 1..=4u32 {
        file.set(&memory.to_string(), argon2_hash(b"x", 64 * memory).into()).unwrap();
    }
    assert_eq!(file.set("5", argon2_hash(b"x", 1024).into()), Err(UserError::Kinds));
    assert_eq!(file.set("6", argon2_hash(b"x", 64).into()), Ok(false));
    assert!(file.lookup("5").is_none());
}

/// A11: the old password until its end, the new one at once.
#[test]
fn while_a_password_changes_both_are_good_and_then_the_new_one() {
    let line = "u:".to_owned() + cheap_hash(b"new").replacing(cheap_hash(b"old"), 100).text();
    let file = PasswordFile::parse(&line).unwrap();
    assert_eq!(file.render().trim_end(), line);
    let check = |password: &[u8], now| file.check("u", password, now, &mut HashMemory::default());
    // Both are cheap, and only the current one is to be made anew.
    let (new, old) = (Found::Right { legacy: true }, Found::Right { legacy: false });
    for now in [0, 99] {
        assert_eq!((check(b"new", now), check(b"old", now)), (new, old));
        assert_eq!(check(b"other", now), Found::Wrong);
    }
    assert_eq!((check(b"new", 100), check(b"old", 100)), (new, Found::Wrong));
    let third = cheap_hash(b"third").replacing(file.lookup("u").unwrap().clone(), 200);
    assert_eq!(third.hashes().count(), 2, "the oldest goes");
    for text in ["until=5", "until=x $HASH", "until=5 $HASH more", "5 $HASH"] {
        let hash = cheap_hash(b"x").text().to_owned();
        let line = format!("u:{hash} {}", text.replace("$HASH", &hash));
        assert_eq!(error(&line), (1, UserError::Overlap), "{line}");
    }
}

#[test]
fn hashes_made_elsewhere_verify() {
    let table = [
        // crypt(3)
        ("$2b$10$N9qo8uLOickgx2ZMRZoMyecBPBZPbMY9K9Iy/VaK.7YTHTLYF41De", &b"secret"[..]),
        ("$2y$10$abcdefghijklmnopqrstuuKayA8b5mr70hn7mjJcOjVoMMVthuYtu", b"abc123xyz"),
        // bcrypt reads 72 bytes and no more.
        ("$2a$10$abcdefghijklmnopqrstuuhBb/0dYbuuS1CS8hp30IXhlFBW2VAWG", &[b'x'; 100]),
        // hashlib.pbkdf2_hmac
        (
            "$pbkdf2-sha256$i=600000$c29tZXNhbHRzb21lc2FsdA$ivf+fieW0XSkO4ug266G8XCK0Fb1q2B2QH0uwQrFHLw",
            b"password",
        ),
    ];
    for (text, password) in table {
        let hash = StoredHash::parse(text).unwrap();
        let mut memory = HashMemory::default();
        assert!(hash.verify(password, &mut memory), "{text}");
        assert!(!hash.verify(b"another", &mut memory), "{text}");
        assert!(!hash.is_legacy());
    }
}

#[test]
fn hashes_that_are_guessed_fast_are_refused_or_legacy() {
    use UserError::*;
    let hash = |text: &str| StoredHash::parse(text).map(|_| ());
    for (text, expected) in [
        ("$2b$09$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy", Bcrypt),
        ("$2b$15$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy", Bcrypt),
        ("$2b$10$N9qo8uLOickgx2ZMRZoMye", Bcrypt),
        ("$2b$10$", Bcrypt),
        (
            "$pbkdf2-sha256$i=599999$c29tZXNhbHRzb21lc2FsdA$ivf+fieW0XSkO4ug266G8XCK0Fb1q2B2QH0uwQrFHLw",
            Pbkdf2,
        ),
        (
            "$pbkdf2-sha256$i=10000001$c29tZXNhbHRzb21lc2FsdA$ivf+fieW0XSkO4ug266G8XCK0Fb1q2B2QH0uwQrFHLw",
            Pbkdf2,
        ),
        ("$pbkdf2-sha256$i=600000$c2FsdA$ivf+fieW0XSkO4ug266G8XCK0Fb1q2B2QH0uwQrFHLw", Length),
        ("$emqx-sha256$prefix$c2FsdA$AAAA", LegacyForm),
        ("$emqx-md5$prefix$c2FsdA$AAAA", NotPhc),
        ("$plain$secret", NotPhc),
    ] {
        assert!(hash(text).is_err(), "{text}");
        if !matches!(expected, NotPhc) {
            assert_eq!(hash(text), Err(expected), "{text}");
        }
    }
    for (sha512, digest) in [(false, &ring::digest::SHA256), (true, &ring::digest::SHA512)] {
        let of = |text: &[u8]| ring::digest::digest(digest, text).as_ref().to_vec();
        for (position, text) in [
            (hashes::SaltPosition::Prefix, "saltpw"),
            (hashes::SaltPosition::Suffix, "pwsalt"),
            (hashes::SaltPosition::Disable, "pw"),
        ] {
            let hash = StoredHash::legacy(sha512, position, b"salt", &of(text.as_bytes())).unwrap();
            assert!(hash.is_legacy());
            let mut file = PasswordFile::default();
            file.set("u", hash.clone().into()).unwrap();
            file.set("v", hash_password(b"x", &[7; 16]).unwrap()).unwrap();
            let mut file = PasswordFile::parse(&file.render()).unwrap();
            assert_eq!(file.legacy_user(), Some("u"));
            assert_eq!(file.check("u", b"pw", 0, &mut HashMemory::default()), Found::Right { legacy: true });
            assert_eq!(file.check("u", b"pwx", 0, &mut HashMemory::default()), Found::Wrong);
            // As an old password it is good until its end, and not written anew in the place of the current one.
            let both = cheap_hash(b"new").replacing(hash.clone().into(), 100);
            let changing = PasswordFile::parse(&format!("u:{}", both.text())).unwrap();
            let right = Found::Right { legacy: false };
            assert_eq!(changing.check("u", b"pw", 0, &mut HashMemory::default()), right);
            let better = argon2id(b"pw", &[8; 16]).unwrap();
            file.rehash("u", "another text", better.clone());
            assert_eq!(file.legacy_user(), Some("u"), "it was changed meanwhile");
            file.rehash("u", hash.text(), better);
            assert_eq!(file.legacy_user(), None);
            assert!(file.verify("u", b"pw"));
        }
    }
}

#[test]
fn argon2id_with_little_work_is_a_hash_that_is_guessed_fast() {
    for (parameters, is_legacy) in [
        ("m=19456,t=2,p=1", false),
        ("m=7168,t=5,p=1", false),
        ("m=47104,t=1,p=1", false),
        ("m=7168,t=4,p=1", true),
        ("m=7167,t=16,p=1", true),
        ("m=19456,t=1,p=1", true),
        ("m=8,t=1,p=1", true),
    ] {
        let hash = StoredHash::parse(&format!("$argon2id$v=19${parameters}${SALT}${HASH}")).unwrap();
        assert_eq!(hash.is_legacy(), is_legacy, "{parameters}");
    }
    let mut file = PasswordFile::default();
    file.set("u", cheap_hash(b"pw")).unwrap();
    assert_eq!(file.legacy_user(), Some("u"));
    assert_eq!(file.check("u", b"pw", 0, &mut HashMemory::default()), Found::Right { legacy: true });
    assert_eq!(spent(&file, "nobody", 0), spent(&file, "u", 0), "and costs what it costs");
    let before = file.lookup("u").unwrap().text().to_owned();
    file.rehash("u", &before, argon2id(b"pw", &[8; 16]).unwrap());
    assert_eq!(file.check("u", b"pw", 0, &mut HashMemory::default()), Found::Right { legacy: false });
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
        (one_user("u:$2b$04$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy"), Bcrypt),
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
