//! The chain of authenticators (authn-tls.md section 2): steps are asked in their order, each allows, denies or passes to
//! the next, and a chain that ends without a decision is a refusal. Pure: a driver asks the steps, which may hash, verify
//! a signature or call somebody, and says here what they answered.
//!
//! Who acts as a peer cluster never comes here: [`crate::auth::peer`] decides about those first. A step that cannot
//! answer, because it failed, was too slow or panicked, denies ([`DenyReason::Unavailable`], A13): to pass then would let
//! whoever can disturb one step choose the next.

use std::collections::BTreeMap;

use crate::auth::DenyReason;

/// Most steps of a chain.
pub const STEPS_MAX: usize = 16;

/// The attribute that only the binding to a peer may set.
pub const RESERVED_ATTRIBUTE: &str = "link_id";
/// Most attributes that a step may give a client, and their longest name and value in bytes.
pub const ATTRIBUTES_MAX: usize = 16;
/// Longest name of an attribute, in bytes.
pub const ATTRIBUTE_NAME_MAX: usize = 64;
/// Longest value of an attribute, in bytes.
pub const ATTRIBUTE_VALUE_MAX: usize = 1024;

/// Which kind of step let a client in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// A password file.
    Password,
    /// The client certificate.
    Certificate,
    /// A token.
    Jwt,
    /// An HTTP server.
    Http,
    /// Enhanced authentication.
    Scram,
    /// None: nothing was shown, and that is allowed.
    Anonymous,
}

impl Mechanism {
    /// The name in settings and events.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Certificate => "certificate",
            Self::Jwt => "jwt",
            Self::Http => "http",
            Self::Scram => "scram",
            Self::Anonymous => "anonymous",
        }
    }
}

/// What a step says of a client that it lets in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Grant {
    /// Who it is.
    pub username: Option<String>,
    /// Attributes for the rules of the ACL file.
    pub attributes: BTreeMap<String, String>,
    /// When that ends, in seconds of the Unix clock; the client is disconnected then.
    pub expires_unix: Option<u64>,
}

impl Grant {
    /// A user without anything further.
    #[must_use]
    pub fn to(username: &str) -> Self {
        Self { username: Some(username.to_owned()), ..Self::default() }
    }
}

/// What a step answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is this client.
    Allow(Grant),
    /// It is not.
    Deny(DenyReason),
    /// The step does not know: nothing was shown that it could verify, or it has no such user.
    Next,
}

/// What a client showed, as far as it matters at the end of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// A User Name that is not empty.
    pub username: bool,
    /// A Password, empty or not.
    pub password: bool,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// Ask the step of this index.
    Ask(usize),
    /// Let it in.
    Allow(Grant),
    /// Refuse it.
    Deny(DenyReason),
}

/// One client on its way through a chain.
#[derive(Debug, Clone)]
pub struct Course {
    next: usize,
    steps: usize,
    shown: Shown,
    allow_anonymous: bool,
}

impl Course {
    /// At the beginning of a chain of so many steps.
    #[must_use]
    pub fn new(steps: usize, shown: Shown, allow_anonymous: bool) -> Self {
        Self { next: 0, steps, shown, allow_anonymous }
    }

    /// Which step is asked first.
    pub fn begin(&mut self) -> Turn {
        self.ask()
    }

    /// What follows from the answer of the step that was asked last.
    pub fn answered(&mut self, answer: Answer) -> Turn {
        match answer {
            Answer::Allow(grant) => Turn::Allow(grant),
            Answer::Deny(reason) => Turn::Deny(reason),
            Answer::Next => self.ask(),
        }
    }

    fn ask(&mut self) -> Turn {
        if self.next < self.steps {
            self.next += 1;
            return Turn::Ask(self.next - 1);
        }
        match (self.shown.username, self.shown.password) {
            (false, false) if self.allow_anonymous => Turn::Allow(Grant::default()),
            (false, false) => Turn::Deny(DenyReason::Anonymous),
            (true, true) => Turn::Deny(DenyReason::BadCredentials),
            _ => Turn::Deny(DenyReason::IncompleteCredentials),
        }
    }
}

/// Why attributes are not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AttributeError {
    /// Only a link has it.
    #[error("`link_id` is for linked clusters and set by their binding alone")]
    Reserved,
    /// Too many or too long.
    #[error("more than {ATTRIBUTES_MAX} attributes, or one too long")]
    TooMuch,
    /// Not an object of strings.
    #[error("the attributes are no object of strings")]
    Shape,
}

/// Reads `client_attrs` of a token or of a reply; numbers and booleans count as their text.
///
/// # Errors
/// If it is more than a client may have, or what it may not have.
pub fn attributes(value: &serde_json::Value) -> Result<BTreeMap<String, String>, AttributeError> {
    use serde_json::Value;
    let object = match value {
        Value::Null => return Ok(BTreeMap::new()),
        Value::Object(object) => object,
        _ => return Err(AttributeError::Shape),
    };
    let mut attributes = BTreeMap::new();
    for (name, value) in object {
        if name == RESERVED_ATTRIBUTE {
            return Err(AttributeError::Reserved);
        }
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(truth) => truth.to_string(),
            _ => return Err(AttributeError::Shape),
        };
        let fits = name.len() <= ATTRIBUTE_NAME_MAX && value.len() <= ATTRIBUTE_VALUE_MAX;
        if !fits || attributes.len() >= ATTRIBUTES_MAX {
            return Err(AttributeError::TooMuch);
        }
        attributes.insert(name.clone(), value);
    }
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const PAIR: Shown = Shown { username: true, password: true };

    fn run(answers: &[Answer], shown: Shown, allow_anonymous: bool) -> (Turn, usize) {
        let mut course = Course::new(answers.len(), shown, allow_anonymous);
        let (mut turn, mut asked) = (course.begin(), 0);
        while let Turn::Ask(index) = turn {
            assert_eq!(index, asked, "in order");
            asked += 1;
            turn = course.answered(answers[index].clone());
        }
        (turn, asked)
    }

    #[test]
    fn the_first_decision_counts_and_nobody_is_asked_after_it() {
        let deny = Answer::Deny(DenyReason::BadCredentials);
        let allow = Answer::Allow(Grant::to("u"));
        assert_eq!(
            run(&[deny.clone(), allow.clone()], PAIR, true),
            (Turn::Deny(DenyReason::BadCredentials), 1)
        );
        assert_eq!(run(&[Answer::Next, allow, deny], PAIR, false), (Turn::Allow(Grant::to("u")), 2));
    }

    #[test]
    fn a_chain_that_ends_without_a_decision_is_a_refusal() {
        for steps in 0..4 {
            let answers = vec![Answer::Next; steps];
            let half = Shown { password: false, ..PAIR };
            let nothing = Shown { username: false, password: false };
            assert_eq!(run(&answers, PAIR, true).0, Turn::Deny(DenyReason::BadCredentials));
            assert_eq!(run(&answers, half, true).0, Turn::Deny(DenyReason::IncompleteCredentials));
            assert_eq!(run(&answers, nothing, false).0, Turn::Deny(DenyReason::Anonymous));
            assert_eq!(run(&answers, nothing, true).0, Turn::Allow(Grant::default()));
        }
    }

    #[test]
    fn attributes_are_bounded_and_none_says_that_it_is_a_link() {
        let read = |value| attributes(&value);
        assert_eq!(read(json!(null)), Ok(BTreeMap::new()));
        let good = read(json!({"site": "north", "floor": 3, "vip": true})).unwrap();
        assert_eq!(good["site"], "north");
        assert_eq!((good["floor"].as_str(), good["vip"].as_str()), ("3", "true"));
        assert_eq!(read(json!({"link_id": "B"})), Err(AttributeError::Reserved));
        assert_eq!(read(json!([1])), Err(AttributeError::Shape));
        assert_eq!(read(json!({"a": {}})), Err(AttributeError::Shape));
        assert_eq!(read(json!({"a": "x".repeat(2000)})), Err(AttributeError::TooMuch));
        let many: BTreeMap<String, u8> = (0..17).map(|n| (n.to_string(), n)).collect();
        assert_eq!(read(json!(many)), Err(AttributeError::TooMuch));
    }

    proptest! {
        #[test]
        fn who_is_let_in_was_allowed_by_the_first_step_that_did_not_pass(
            codes in prop::collection::vec(0u8..3, 0..8), username: bool, password: bool, anonymous: bool
        ) {
            let answer = |code: &u8| match code {
                0 => Answer::Next,
                1 => Answer::Deny(DenyReason::BadCredentials),
                _ => Answer::Allow(Grant::to("u")),
            };
            let answers: Vec<Answer> = codes.iter().map(answer).collect();
            let (turn, _) = run(&answers, Shown { username, password }, anonymous);
            let allowed = match codes.iter().find(|code| **code != 0) {
                Some(code) => *code == 2,
                None => anonymous && !username && !password,
            };
            prop_assert_eq!(matches!(turn, Turn::Allow(_)), allowed);
        }
    }
}
