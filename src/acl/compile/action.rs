//! What a rule is about doing: kinds and their options.

use crate::acl::compile::Checked;
use crate::acl::compile::Compiler;
use crate::acl::compile::nearest;
use crate::acl::diagnostic::Code;
use crate::acl::rule::Action;
use crate::acl::rule::QosSet;
use crate::acl::term::Term;
use crate::acl::term::TermKind;
use crate::mqtt::packet::QoS;

const KINDS: [&str; 3] = ["publish", "subscribe", "all"];
const MEANT: [(&str, &str); 6] = [
    ("pub", "publish"),
    ("write", "publish"),
    ("sub", "subscribe"),
    ("read", "subscribe"),
    ("readwrite", "all"),
    ("pubsub", "all"),
];

#[derive(Default)]
struct Options {
    qos: Option<QosSet>,
    retain: Option<bool>,
}

impl Compiler<'_> {
    pub(super) fn action(&mut self, term: &Term) -> Checked<Action> {
        let (kind, options) = match &term.kind {
            TermKind::Atom(_) => (term, None),
            TermKind::Tuple(items) => match items.as_slice() {
                [kind, options] => (kind, Some(options)),
                _ => {
                    return self.error(Code::E204, term, "an action with options is `{publish, [{qos, 1}]}`");
                }
            },
            _ => return self.error(Code::E204, term, "not an action: `publish`, `subscribe` or `all`"),
        };
        let (publish, subscribe) = self.kind(kind)?;
        let options = match options {
            None => Options::default(),
            Some(options) => self.options(options, publish)?,
        };
        let retain = options.retain.filter(|_| publish);
        Some(Action { publish, subscribe, qos: options.qos.unwrap_or(QosSet::ALL), retain })
    }

    fn kind(&mut self, term: &Term) -> Checked<(bool, bool)> {
        let TermKind::Atom(name) = &term.kind else {
            return self.error(Code::E204, term, "not an action: `publish`, `subscribe` or `all`");
        };
        match name.as_str() {
            "publish" => Some((true, false)),
            "subscribe" => Some((false, true)),
            "all" => Some((true, true)),
            other => {
                let meant = nearest(other, &KINDS, &MEANT);
                self.error(Code::E204, term, format!("`{other}` is not an action{meant}"))
            }
        }
    }

    fn options(&mut self, term: &Term, publish: bool) -> Checked<Options> {
        let TermKind::List(items) = &term.kind else {
            return self.error(
                Code::E204,
                term,
                "the options of an action stand in a list: `[{retain, true}]`",
            );
        };
        let mut options = Options::default();
        let mut sound = true;
        for item in items {
            sound &= self.option(item, publish, &mut options).is_some();
        }
        sound.then_some(options)
    }

    fn option(&mut self, term: &Term, publish: bool, options: &mut Options) -> Checked<()> {
        let pair = match &term.kind {
            TermKind::Tuple(items) => match items.as_slice() {
                [name, value] => Some((name, value)),
                _ => None,
            },
            TermKind::Invalid => return None,
            _ => None,
        };
        match pair {
            Some((name, value)) if name.kind == TermKind::Atom("qos".to_owned()) => {
                let set = self.qos_set(value)?;
                let earlier = options.qos.unwrap_or(QosSet::EMPTY);
                options.qos = Some(earlier.union(set));
                Some(())
            }
            Some((name, value)) if name.kind == TermKind::Atom("retain".to_owned()) => {
                options.retain = self.retain(value)?;
                if publish {
                    return Some(());
                }
                self.tolerated(Code::E207, term.span, "`retain` has no meaning for a subscribe")
            }
            Some((Term { kind: TermKind::Invalid, .. }, _)) => None,
            _ => {
                let name = pair.map_or(term, |(name, _)| name);
                let (what, meant) = match &name.kind {
                    TermKind::Atom(name) => (format!("`{name}`"), nearest(name, &["qos", "retain"], &[])),
                    _ => ("this".to_owned(), String::new()),
                };
                let message =
                    format!("{what} is not an option of an action: `{{qos, …}}` or `{{retain, …}}`{meant}");
                self.tolerated(Code::E207, term.span, message)
            }
        }
    }

    fn qos_set(&mut self, term: &Term) -> Checked<QosSet> {
        let TermKind::List(items) = &term.kind else {
            return self.qos(term).map(|qos| QosSet::EMPTY.with(qos));
        };
        if items.is_empty() {
            self.tolerated(Code::E213, term.span, "an empty list of QoS never matches")?;
        }
        let found: Vec<_> = items.iter().map(|item| self.qos(item)).collect();
        found.into_iter().try_fold(QosSet::EMPTY, |set, qos| qos.map(|qos| set.with(qos)))
    }

    fn qos(&mut self, term: &Term) -> Checked<QoS> {
        let TermKind::Integer(value) = term.kind else {
            return self.error(Code::E205, term, "a QoS is one of the integers 0, 1 and 2");
        };
        match u8::try_from(value).ok().and_then(QoS::from_u8) {
            Some(qos) => Some(qos),
            None => self.error(Code::E205, term, format!("`{value}` is not a QoS: 0, 1 or 2")),
        }
    }

    fn retain(&mut self, term: &Term) -> Checked<Option<bool>> {
        match &term.kind {
            TermKind::Atom(name) if name == "true" => Some(Some(true)),
            TermKind::Atom(name) if name == "false" => Some(Some(false)),
            TermKind::Atom(name) if name == "all" => Some(None),
            _ => self.error(Code::E206, term, "`retain` is `true`, `false` or `all`"),
        }
    }
}
