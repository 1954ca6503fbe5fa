//! How far a rotation is: who has heard of the next certificate, who has not and why, and what is in its way. Pure.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use serde_json::Value;
use serde_json::json;

/// See the module. Names are those of peers in the book and in the configuration, of which there is a maximum.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Of which next certificate.
    of: Option<[u8; 32]>,
    heard: BTreeSet<String>,
    deaf: BTreeMap<String, String>,
    /// Why it could not be put in force.
    trouble: Option<String>,
}

impl Standing {
    /// What is said from now on is of this next certificate. What was said of another is void.
    pub(super) fn begin(&mut self, next: [u8; 32]) {
        if self.of != Some(next) {
            *self = Self { of: Some(next), ..Self::default() };
        }
    }

    /// Whether a peer has heard.
    pub(super) fn has_heard(&self, name: &str) -> bool {
        self.heard.contains(name)
    }

    /// Of `all` who can be told, those who are not among the `deaf` have heard.
    pub(super) fn told(&mut self, all: Vec<String>, deaf: BTreeMap<String, String>) {
        self.heard = all.into_iter().filter(|name| !deaf.contains_key(name)).collect();
        self.deaf = deaf;
    }

    /// It could not be put in force. Whether that was not said yet.
    pub(super) fn is_in_the_way(&mut self, why: &str) -> bool {
        self.trouble.replace(why.to_owned()).as_deref() != Some(why)
    }

    /// For operators, if it is of this certificate.
    pub(super) fn show(&self, next: [u8; 32]) -> Value {
        let is_it = self.of == Some(next);
        let heard: Vec<&String> = self.heard.iter().filter(|_| is_it).collect();
        let deaf = self.deaf.iter().filter(|_| is_it);
        let not_heard: Vec<Value> = deaf.map(|(name, why)| json!({"name": name, "reason": why})).collect();
        json!({
            "heard": heard,
            "not_heard": not_heard,
            "trouble": self.trouble.as_ref().filter(|_| is_it),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deaf(names: &[&str]) -> BTreeMap<String, String> {
        names.iter().map(|name| ((*name).to_owned(), "away".to_owned())).collect()
    }

    #[test]
    fn whoever_was_not_told_is_never_shown_as_told() {
        let mut standing = Standing::default();
        standing.begin([1; 32]);
        standing.told(vec!["B".to_owned(), "C".to_owned()], deaf(&["C", "configured"]));
        assert!(standing.has_heard("B") && !standing.has_heard("C") && !standing.has_heard("configured"));
        let shown = standing.show([1; 32]);
        assert_eq!(shown["heard"], json!(["B"]));
        let away = |name: &str| json!({"name": name, "reason": "away"});
        assert_eq!(shown["not_heard"], json!([away("C"), away("configured")]));
        // Whoever is deleted meanwhile is neither.
        standing.told(vec!["C".to_owned()], deaf(&[]));
        assert_eq!(standing.show([1; 32])["heard"], json!(["C"]));
        // Of another certificate nobody has heard.
        standing.begin([2; 32]);
        assert!(!standing.has_heard("C"));
        assert_eq!(standing.show([1; 32])["heard"], json!([]));
    }

    #[test]
    fn trouble_is_said_once() {
        let mut standing = Standing::default();
        standing.begin([1; 32]);
        assert!(standing.is_in_the_way("x") && !standing.is_in_the_way("x") && standing.is_in_the_way("y"));
        standing.begin([1; 32]);
        assert_eq!(standing.show([1; 32])["trouble"], "y");
    }
}
