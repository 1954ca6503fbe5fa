//! Which topics a rule is about: filters, `{eq, …}` and templates.

use crate::acl::compile::Checked;
use crate::acl::compile::Compiler;
use crate::acl::compile::TOPICS_MAX;
use crate::acl::diagnostic::Code;
use crate::acl::rule::TopicMatch;
use crate::acl::rule::Topics;
use crate::acl::template;
use crate::acl::template::Parsed;
use crate::acl::term::Term;
use crate::acl::term::TermKind;
use crate::mqtt::topic;

impl Compiler<'_> {
    pub(super) fn topics(&mut self, term: &Term) -> Checked<Topics> {
        let items = match &term.kind {
            TermKind::Atom(name) if name == "all" => return Some(Topics::All),
            TermKind::List(items) => items,
            TermKind::String(_) | TermKind::Binary(_) => {
                return self.error(Code::E208, term, "topics stand in a list: `[\"…\"]`");
            }
            _ => return self.error(Code::E208, term, "topics are `all` or a list of texts: `[\"a/#\"]`"),
        };
        if items.is_empty() {
            self.tolerated(
                Code::E213,
                term.span,
                "an empty list of topics never matches; did you mean `all`?",
            )?;
        }
        if let Some(extra) = items.get(TOPICS_MAX) {
            return self.error(Code::E002, extra, format!("more than {TOPICS_MAX} topics in one rule"));
        }
        let entries: Vec<_> = items.iter().map(|item| self.topic(item)).collect();
        entries.into_iter().collect::<Option<_>>().map(Topics::List)
    }

    fn topic(&mut self, term: &Term) -> Checked<TopicMatch> {
        match &term.kind {
            TermKind::String(_) | TermKind::Binary(_) => {
                let Ok(text) = self.text(term)? else { return None };
                match text.strip_prefix("eq ") {
                    Some(rest) => self.eq(term, rest),
                    None => self.filter(term, &text),
                }
            }
            TermKind::Tuple(items) => match items.as_slice() {
                [name, value] if name.kind == TermKind::Atom("eq".to_owned()) => match self.text(value)? {
                    Ok(text) => self.eq(value, &text),
                    Err(()) => self.error(Code::E209, value, "`eq` takes a text"),
                },
                _ => self.error(Code::E209, term, "not a topic: a string, a binary or `{eq, \"…\"}`"),
            },
            TermKind::Atom(name) => {
                let message = format!("`{name}` is an atom; a topic is a string: `\"{name}\"`");
                self.error(Code::E209, term, message)
            }
            _ => self.error(Code::E209, term, "not a topic: a string, a binary or `{eq, \"…\"}`"),
        }
    }

    fn eq(&mut self, term: &Term, text: &str) -> Checked<TopicMatch> {
        if let Err(error) = topic::check_filter(text) {
            self.tolerated(Code::E210, term.span, format!("not a Topic Filter: {error}"))?;
        }
        Some(TopicMatch::Eq(text.into()))
    }

    fn filter(&mut self, term: &Term, source: &str) -> Checked<TopicMatch> {
        let reading = template::read(source, self.options.mode);
        let mut sound = true;
        for (offset, unknown) in reading.unknown {
            let span = self.inside(term.span, source, Some(offset));
            let message = format!(
                "`{unknown}` is not a placeholder of topics; there are `${{username}}`, `${{clientid}}`, \
                 `${{cert_common_name}}`, `${{zone}}` and `${{client_attrs.NAME}}`"
            );
            sound &= self.tolerated(Code::E211, span, message).is_some();
        }
        let checked = match &reading.parsed {
            Parsed::Constant(filter) => topic::check_filter(filter),
            Parsed::Template(template) => topic::check_filter(&template.filled_with("x")),
        };
        if let Err(error) = checked {
            self.tolerated(Code::E210, term.span, format!("not a Topic Filter: {error}"))?;
            return Some(TopicMatch::Never(source.into()));
        }
        sound.then(|| match reading.parsed {
            Parsed::Constant(filter) => TopicMatch::Filter { source: source.into(), filter: filter.into() },
            Parsed::Template(template) => TopicMatch::Template(template),
        })
    }
}
