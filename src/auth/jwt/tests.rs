//! The vectors of RFC 7515 and RFC 8037, signatures made with OpenSSL, and what a token may not do.

use proptest::prelude::*;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::EcdsaKeyPair;
use ring::signature::KeyPair;
use serde_json::json;

use super::keys::KeyError;
use super::*;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
/// `alice`, until 2033.
const PS256: &str = "eyJhbGciOiJQUzI1NiJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6MjAwMDAwMDAwMH0.cyXuR7gLbG_tXMPwLL39rEZSMVue9qFOQ-YRJzYtqL-JUVwz8_TuSR914AX6bubMpIBuJDbRxxmB4AhhUUC86x1RYFrhiPtPez4ni3nUQpec1TUWXagM2JtQ8E_4qPrHJv-ODCdwDONxeSRHz3sGXINH4PRpzgNC2E3FBOqkG9a1bNtQjtXb3toNYOc-KBvOe_nX9rCg9KIzCqvpacOAXZYYcW2LXJMDruxDB5C0G86yg3lqG2_24G_oxJu5ylEG0o_jW092ol9VUTbJJevcmp8TcRrMYt9Dmamp3mjWD0IVMRxWH-Qbr2i3hDwN2iWnhxDgWMWi699kkOEB3VAD6A";
const RS512: &str = "eyJhbGciOiJSUzUxMiJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6MjAwMDAwMDAwMH0.UMHjTbXuiT9hJOpBAiKC5kDDj8aTBHqNj6ETDP_OVKIW0MR09yhvBXzLbNXsPV9hP_HJA3uNFJHZEMPhcM2vRGiusR3qtY8PP1jz1owLhD7dSodOXAxOfXgCCakku8BufZPoEyARxE1TDG7Pd4MNpdlTB1nnPmy04AFzWn8Y7XeDX2lHdPLiFk6xXNUg6Y1N_0XJGjZP1IDR99Odiu9ryidTAK0gztrFJQpaTkb_OgAcxqtm2a7lohuutkdxdVGkiqzOo5bdODH3FSk0dueeCVGvqn95YkCzTPRYNjAonJvmSeu8qA3et591817Rr5w64dmvqAzVwZAVn94B7y6icw";
const RSA_PEM: &str = "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAw/PtDPNcjNEiB3OWGuZ4\naI6i/uh9DaFrW++znp42w3eEY6mm9SK8c0Z98OD5DM2dBDLvXGm/zJv/DCaZf6zQ\n/BtFPk55gubRt92NmJMW298f9r12Ffwec8QtOmzkWHAcJ7r1CE6TBJAHRh7MZYGt\nthX46RdoGsJe1nk7C3xAYgUVllfThTutOxb+BfWDdMW8HbhfmSBMZws4V5Uohn1L\nOE2rjBOoKmcpN/LPa9+n9c3BxfGRE4WkyQZ7NIDxjGJvRkJBoHUCKWF7FJzmH5BA\nK/ctbR8fhe2JQPVQ/GptLdb5phmAk3cWmmu1AouZW8trK45F+kTSTPmrQLUBdqJC\n+QIDAQAB\n-----END PUBLIC KEY-----\n";
const SMALL_PEM: &str = "-----BEGIN PUBLIC KEY-----\nMIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDNe50Wv7V2pgopfqAcvKFCuq/M\n4ZdvgWzR49A96GmDIoJDCg/j6ZpYHhCZ0Wi5BefUlaWnL/A7KdhuIyorh/9lnfSy\n2iCHSwK1oJjILhPK1sEpIakXszq3YntTml3FjfUqj2hyh/k1Zh3eAWtGKU39Zfx+\nWkK5irfXMpmrdTHRYwIDAQAB\n-----END PUBLIC KEY-----\n";

/// RFC 7515 appendix A.1 to A.3: the same claims under three keys.
const RFC_CLAIMS: &str =
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const RFC_SECRET: &str =
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
const RFC_HS256: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const RFC_RS256: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
const RFC_ES256: &str =
    "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
const RFC_KEYS: &str = r#"{"keys": [
    {"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"},
    {"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"},
    {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
    {"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}
]}"#;

fn rules() -> Rules {
    Rules {
        from: From::Password,
        username_claim: "sub".to_owned(),
        require_exp: true,
        leeway_seconds: 5,
        verify_claims: Vec::new(),
        disconnect_after_expire: true,
    }
}

fn asked(now_unix: u64) -> Asked<'static> {
    Asked { username: None, password: None, client_id: "c", now_unix }
}

fn encoded(bytes: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(bytes)
}

fn signed_as(header: &Value, claims: &Value) -> String {
    let text =
        format!("{}.{}", encoded(header.to_string().as_bytes()), encoded(claims.to_string().as_bytes()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), text.as_bytes());
    format!("{text}.{}", encoded(tag.as_ref()))
}

fn signed(claims: &Value) -> String {
    signed_as(&json!({"alg": "HS256"}), claims)
}

fn secret() -> KeySet {
    KeySet::secret(SECRET, false).unwrap()
}

fn check(rules: &Rules, claims: &Value) -> Result<Grant, JwtError> {
    verify(&secret(), rules, signed(claims).as_bytes(), &asked(1_000))
}

#[test]
fn the_vectors_of_the_standards_verify_and_no_altered_one_does() {
    let joe = Rules { username_claim: "iss".to_owned(), ..rules() };
    let (secret, set) =
        (KeySet::secret(RFC_SECRET.as_bytes(), true).unwrap(), KeySet::json(RFC_KEYS.as_bytes()).unwrap());
    assert_eq!(set.len(), 3, "a secret in a set of public keys is left out");
    let table = [
        (&secret, "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9", RFC_HS256),
        (&set, "eyJhbGciOiJSUzI1NiJ9", RFC_RS256),
        (&set, "eyJhbGciOiJFUzI1NiJ9", RFC_ES256),
    ];
    for (keys, header, signature) in table {
        let token = format!("{header}.{RFC_CLAIMS}.{signature}");
        let grant = verify(keys, &joe, token.as_bytes(), &asked(1_300_819_379)).unwrap();
        assert_eq!(grant.username.as_deref(), Some("joe"));
        assert_eq!(grant.expires_unix, Some(1_300_819_385), "as long as it is taken");
        let late = verify(keys, &joe, token.as_bytes(), &asked(1_300_819_385));
        assert_eq!(late, Err(JwtError::Expired));
        let altered = token.replacen(".eyJpc3", ".eyJpc4", 1);
        assert_eq!(verify(keys, &joe, altered.as_bytes(), &asked(0)), Err(JwtError::Signature));
        let cut = &token[..token.len() - 4];
        assert_eq!(verify(keys, &joe, cut.as_bytes(), &asked(0)), Err(JwtError::Signature));
    }
    // RFC 8037 appendix A.4 signs a text, which has no claims.
    let text = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    let outcome = |text: &str| verify(&set, &joe, format!("{text}.{signature}").as_bytes(), &asked(0));
    assert_eq!(outcome(text), Err(JwtError::Claims), "the signature is right");
    assert_eq!(outcome(&text.replace("XhhbXBsZ", "XhhbXBsY")), Err(JwtError::Signature));
}

/// A set of so many keys on P-256 that sign nothing here, and behind them that of RFC 7515 appendix A.3.
fn many_keys(strangers: usize) -> KeySet {
    let mut set: Value = serde_json::from_str(RFC_KEYS).unwrap();
    let keys = set["keys"].as_array_mut().unwrap();
    for _ in 0..strangers {
        let way = &ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(way, &SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(way, document.as_ref(), &SystemRandom::new()).unwrap();
        let point = pair.public_key().as_ref();
        let (x, y) = (encoded(&point[1..33]), encoded(&point[33..]));
        keys.insert(0, json!({"kty": "EC", "crv": "P-256", "x": x, "y": y}));
    }
    KeySet::json(set.to_string().as_bytes()).unwrap()
}

#[test]
fn a_token_that_may_be_signed_by_a_key_that_was_not_tried_is_no_guess() {
    let joe = Rules { username_claim: "iss".to_owned(), ..rules() };
    let right = format!("eyJhbGciOiJFUzI1NiJ9.{RFC_CLAIMS}.{RFC_ES256}");
    let wrong = right.replacen(".eyJpc3", ".eyJpc4", 1);
    let answered = |keys: usize, token: &str| {
        let asked = Asked { password: Some(token.as_bytes()), ..asked(1_300_819_379) };
        answer(&many_keys(keys), &joe, &asked)
    };
    let untried = (Answer::Deny(DenyReason::TokenUntried), Some(JwtError::Untried));
    assert!(matches!(answered(3, &right).0, Answer::Allow(_)), "the fourth is tried");
    assert_eq!(answered(3, &wrong).0, Answer::Deny(DenyReason::Token));
    assert_eq!(answered(4, &right), untried);
    assert_eq!(answered(4, &wrong), untried);
    assert!(!DenyReason::TokenUntried.is_guess() && DenyReason::Token.is_guess());
}

#[test]
fn rsa_and_pss_signatures_of_openssl_verify_by_the_key_in_pem() {
    let keys = KeySet::pem(RSA_PEM.as_bytes()).unwrap();
    for token in [PS256, RS512] {
        let grant = verify(&keys, &rules(), token.as_bytes(), &asked(1_000)).unwrap();
        assert_eq!(grant.username.as_deref(), Some("alice"));
    }
    // The same signature under the other way of padding is none.
    let swapped = PS256.replacen("eyJhbGciOiJQUzI1NiJ9", "eyJhbGciOiJSUzI1NiJ9", 1);
    assert_eq!(verify(&keys, &rules(), swapped.as_bytes(), &asked(1_000)), Err(JwtError::Signature));
    assert_eq!(KeySet::pem(SMALL_PEM.as_bytes()).map(|_| ()), Err(KeyError::Unsupported));
    assert_eq!(KeySet::pem(b"-----BEGIN CERTIFICATE-----").map(|_| ()), Err(KeyError::NotPem));
}

#[test]
fn es384_signs_with_its_own_curve_only() {
    let random = SystemRandom::new();
    let way = &ring::signature::ECDSA_P384_SHA384_FIXED_SIGNING;
    let document = EcdsaKeyPair::generate_pkcs8(way, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(way, document.as_ref(), &random).unwrap();
    let point = pair.public_key().as_ref();
    let key = json!({"kty": "EC", "crv": "P-384", "kid": "one", "x": encoded(&point[1..49]), "y": encoded(&point[49..])});
    let keys = KeySet::json(json!({"keys": [key]}).to_string().as_bytes()).unwrap();
    let token = |header: Value| {
        let text =
            format!("{}.{}", encoded(header.to_string().as_bytes()), encoded(br#"{"sub":"u","exp":9999}"#));
        let signature = pair.sign(&random, text.as_bytes()).unwrap();
        format!("{text}.{}", encoded(signature.as_ref()))
    };
    let check =
        |header| verify(&keys, &rules(), token(header).as_bytes(), &asked(1_000)).map(|grant| grant.username);
    assert_eq!(check(json!({"alg": "ES384", "kid": "one"})), Ok(Some("u".to_owned())));
    assert_eq!(check(json!({"alg": "ES384"})), Ok(Some("u".to_owned())));
    assert_eq!(check(json!({"alg": "ES384", "kid": "two"})), Err(JwtError::UnknownKey));
    assert_eq!(check(json!({"alg": "ES256", "kid": "one"})), Err(JwtError::Algorithm));
}

/// The classic holes: no algorithm, a public key as a secret, a key that the token brings along.
#[test]
fn the_key_says_which_algorithm_and_the_token_does_not() {
    let claims = json!({"sub": "admin", "exp": 9_999});
    let rsa = KeySet::pem(RSA_PEM.as_bytes()).unwrap();
    let text =
        |header: &str| format!("{}.{}", encoded(header.as_bytes()), encoded(claims.to_string().as_bytes()));
    for header in [r#"{"alg":"none"}"#, r#"{"alg":"None"}"#, r#"{"alg":""}"#] {
        for signature in ["", "AAAA"] {
            let token = format!("{}.{signature}", text(header));
            for keys in [&secret(), &rsa] {
                let outcome = verify(keys, &rules(), token.as_bytes(), &asked(1_000));
                assert_eq!(outcome, Err(JwtError::Algorithm), "{header}");
            }
        }
    }
    let confused = text(r#"{"alg":"HS256"}"#);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, RSA_PEM.as_bytes()), confused.as_bytes());
    let token = format!("{confused}.{}", encoded(tag.as_ref()));
    assert_eq!(verify(&rsa, &rules(), token.as_bytes(), &asked(1_000)), Err(JwtError::Algorithm));
    // A key in the header is not looked at.
    let brought =
        signed_as(&json!({"alg": "HS256", "jwk": {"kty": "oct", "k": "AAAA"}, "jku": "http://x"}), &claims);
    assert!(verify(&secret(), &rules(), brought.as_bytes(), &asked(1_000)).is_ok());
    let other = KeySet::secret(&[7; 32], false).unwrap();
    assert_eq!(verify(&other, &rules(), brought.as_bytes(), &asked(1_000)), Err(JwtError::Signature));
    for header in [
        json!({"alg": "HS256", "crit": ["exp"]}),
        json!({"alg": "HS256", "crit": []}),
        json!({"alg": "HS256", "b64": false}),
    ] {
        let token = signed_as(&header, &claims);
        assert_eq!(verify(&secret(), &rules(), token.as_bytes(), &asked(1_000)), Err(JwtError::Critical));
    }
}

#[test]
fn times_are_kept_and_an_end_is_asked_for() {
    use JwtError::*;
    let table = [
        (json!({"sub": "u"}), Err(NoExpiry)),
        (json!({"sub": "u", "exp": 1_001}), Ok(())),
        (json!({"sub": "u", "exp": 996}), Ok(())),
        (json!({"sub": "u", "exp": 995}), Err(Expired)),
        (json!({"sub": "u", "exp": 1_001.5}), Ok(())),
        (json!({"sub": "u", "exp": "1001"}), Err(Claims)),
        (json!({"sub": "u", "exp": -1}), Err(Claims)),
        (json!({"sub": "u", "exp": null}), Err(Claims)),
        (json!({"sub": "u", "exp": u64::MAX}), Ok(())),
        (json!({"sub": "u", "exp": 2_000, "nbf": 1_005}), Ok(())),
        (json!({"sub": "u", "exp": 2_000, "nbf": 1_006}), Err(NotYet)),
        (json!({"sub": "u", "exp": 2_000, "iat": 1_006}), Err(NotYet)),
        (json!({"sub": "u", "exp": 2_000, "iat": []}), Err(Claims)),
    ];
    for (claims, expected) in table {
        assert_eq!(check(&rules(), &claims).map(|_| ()), expected, "{claims}");
    }
    let lax = Rules { require_exp: false, disconnect_after_expire: false, ..rules() };
    assert_eq!(check(&lax, &json!({"sub": "u"})).map(|grant| grant.expires_unix), Ok(None));
    assert_eq!(check(&lax, &json!({"sub": "u", "exp": 995})), Err(Expired));
    assert_eq!(check(&lax, &json!({"sub": "u", "exp": 2_000})).map(|grant| grant.expires_unix), Ok(None));
}

#[test]
fn the_username_is_the_claim_and_no_other_is_taken() {
    let check = |claims: Value, username| {
        let asked = Asked { username, ..asked(1_000) };
        verify(&secret(), &rules(), signed(&claims).as_bytes(), &asked).map(|grant| grant.username)
    };
    let claims = || json!({"sub": "alice", "exp": 2_000});
    assert_eq!(check(claims(), Some("alice")), Ok(Some("alice".to_owned())));
    assert_eq!(check(claims(), Some("")), Ok(Some("alice".to_owned())));
    assert_eq!(check(claims(), Some("bob")), Err(JwtError::AnotherUser));
    for sub in [json!(null), json!(7), json!(""), json!("a\nb"), json!("x".repeat(2_000))] {
        assert_eq!(check(json!({"sub": sub, "exp": 2_000}), None), Err(JwtError::NoUsername));
    }
    let by_name = Rules { from: From::Username, ..rules() };
    let token = signed(&claims());
    let asked = Asked { username: Some(&token), password: Some(b"x"), ..asked(1_000) };
    assert_eq!(by_name.token_of(&asked), Some(token.as_bytes()));
    let (answer, error) = answer(&secret(), &by_name, &asked);
    assert_eq!(
        (answer, error),
        (Answer::Allow(Grant { expires_unix: Some(2_005), ..Grant::to("alice") }), None)
    );
}

#[test]
fn claims_are_as_the_rules_say() {
    let claim = |name: &str, text: &str| (name.to_owned(), text.to_owned());
    let rules = Rules {
        verify_claims: vec![
            claim("aud", "broker"),
            claim("cid", "x-${clientid}-${username}-${"),
            claim("n", "7"),
        ],
        ..rules()
    };
    let good = json!({"sub": "${clientid}", "exp": 2_000, "aud": ["a", "broker"], "cid": "x-c-${clientid}-${", "n": 7});
    assert_eq!(check(&rules, &good).map(|_| ()), Ok(()), "what a name contains is no placeholder");
    for (name, value) in [
        ("aud", json!("other")),
        ("aud", json!([])),
        ("cid", json!("x-c-c-${")),
        ("n", json!(null)),
        ("n", json!({})),
    ] {
        let mut bad = good.clone();
        bad[name] = value;
        assert_eq!(check(&rules, &bad), Err(JwtError::Claim), "{bad}");
    }
}

#[test]
fn a_token_gives_attributes_but_makes_nobody_a_link_or_a_superuser() {
    let grant =
        check(&rules(), &json!({"sub": "u", "exp": 2_000, "is_superuser": true, "client_attrs": {"a": "b"}}));
    assert_eq!(grant.unwrap().attributes["a"], "b");
    let link = json!({"sub": "u", "exp": 2_000, "client_attrs": {"link_id": "B"}});
    assert_eq!(check(&rules(), &link), Err(JwtError::Attributes(AttributeError::Reserved)));
    let acl = json!({"sub": "u", "exp": 2_000, "acl": []});
    assert_eq!(check(&rules(), &acl), Err(JwtError::Permissions), "never ignored");
}

#[test]
fn what_is_no_token_is_passed_on_and_a_bad_one_is_denied() {
    let of = |password: &[u8]| {
        let asked = Asked { password: Some(password), ..asked(1_000) };
        answer(&secret(), &rules(), &asked).0
    };
    for text in ["", "secret", "a.b", "a.b.c", "..", "eyJ.eyJ.x", "\u{e9}.e.e"] {
        assert_eq!(of(text.as_bytes()), Answer::Next, "{text}");
    }
    assert_eq!(of(&[b'e'; TOKEN_BYTES_MAX + 1]), Answer::Next);
    assert_eq!(answer(&secret(), &rules(), &asked(0)).0, Answer::Next, "no password at all");
    assert_eq!(of(PS256.as_bytes()), Answer::Next, "another issuer's");
    let token = signed(&json!({"sub": "u", "exp": 2_000}));
    assert!(looks_like_a_token(token.as_bytes()) && !looks_like_a_token(b"a.b.c"));
    assert!(matches!(of(token.as_bytes()), Answer::Allow(_)));
    assert_eq!(of(&token.as_bytes()[..token.len() - 1]), Answer::Deny(DenyReason::Token));
    let past = signed(&json!({"sub": "u", "exp": 1}));
    assert_eq!(of(past.as_bytes()), Answer::Deny(DenyReason::TokenExpired));
}

#[test]
fn secrets_and_sets_that_are_no_use_are_refused() {
    assert_eq!(KeySet::secret(b"short", false).map(|_| ()), Err(KeyError::ShortSecret(5)));
    assert_eq!(KeySet::secret(b"!!", true).map(|_| ()), Err(KeyError::NotBase64));
    let set = |text: &str| KeySet::json(text.as_bytes()).map(|keys| keys.len());
    assert_eq!(set("{}"), Err(KeyError::NotASet));
    assert_eq!(set("{\"keys\": []}"), Err(KeyError::Empty));
    assert_eq!(set("{\"keys\": [1, {\"kty\": \"oct\", \"k\": \"AAAA\"}]}"), Err(KeyError::Empty));
    assert_eq!(set(&format!("{{\"keys\": [{}1]}}", "1,".repeat(64))), Err(KeyError::TooMany));
    assert_eq!(set(&" ".repeat(300_000)), Err(KeyError::NotASet));
    let enc = RFC_KEYS.replace("\"kty\"", "\"use\": \"enc\", \"kty\"");
    assert_eq!(set(&enc), Err(KeyError::Empty));
    assert_eq!(format!("{:?}", secret()), "KeySet { keys: 1 }");
}

proptest! {
    #[test]
    fn no_bytes_panic_and_none_are_a_token(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "[A-Za-z0-9_.-]{0,80}") {
        for token in [&bytes[..], text.as_bytes()] {
            prop_assert!(verify(&secret(), &rules(), token, &asked(0)).is_err());
            let _ = KeySet::json(token);
            let _ = KeySet::pem(token);
        }
    }

    #[test]
    fn no_bit_of_a_token_can_be_changed(at in 0usize..90, bit in 0u8..6) {
        let token = signed(&json!({"sub": "u", "exp": 2_000}));
        let mut bytes = token.clone().into_bytes();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if bytes != token.as_bytes() {
            prop_assert!(verify(&secret(), &rules(), &bytes, &asked(1_000)).is_err());
        }
    }
}
