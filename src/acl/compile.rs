//! Terms to rules, with line and column in every error (`acl-language.md` sections 1, 2 and 7).
//!
//! All errors of a file are reported, not the first. What EMQX accepts although it cannot have been meant is an error in
//! strict mode and a warning in EMQX mode; what makes EMQX refuse or crash is an error in both.

mod action;
mod condition;
mod topics;

use std::collections::HashMap;

use crate::acl::diagnostic::Code;
use crate::acl::diagnostic::DIAGNOSTICS_MAX;
use crate::acl::diagnostic::Diagnostic;
use crate::acl::diagnostic::Source;
use crate::acl::diagnostic::Span;
use crate::acl::eval::RuleSet;
use crate::acl::pattern::Pattern;
use crate::acl::pattern::PatternError;
use crate::acl::rule::Action;
use crate::acl::rule::Condition;
use crate::acl::rule::Mode;
use crate::acl::rule::Permission;
use crate::acl::rule::Rule;
use crate::acl::rule::SecurityProfile;
use crate::acl::rule::Topics;
use crate::acl::term;
use crate::acl::term::Term;
use crate::acl::term::TermKind;

/// The largest file in bytes.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;
/// The most topics of one rule.
pub const TOPICS_MAX: usize = 1_000;

/// How a file is to be understood (`interface.md` section 2, `[authorization]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompileOptions {
    /// Whose semantics.
    pub mode: Mode,
    /// What `{security_profile, …}` sees.
    pub security_profile: SecurityProfile,
}

impl RuleSet {
    /// Compiles a file; on failure all its errors, in the order of the file.
    pub fn compile(text: impl AsRef<[u8]>, options: &CompileOptions) -> Result<Self, Vec<Diagnostic>> {
        let bytes = text.as_ref();
        if bytes.len() > FILE_BYTES_MAX {
            let message = format!("the file is larger than {FILE_BYTES_MAX} bytes");
            return Err(vec![Source::new("").diagnostic(Code::E002, Span::default(), message)]);
        }
        match std::str::from_utf8(bytes) {
            Ok(text) => compile_text(text, options),
            Err(error) => {
                let text = String::from_utf8_lossy(bytes);
                let start = error.valid_up_to();
                let span = Span { start, end: start + '\u{FFFD}'.len_utf8() };
                let byte = bytes.get(start).copied().unwrap_or_default();
                let message = format!("the byte 0x{byte:02x} is not UTF-8");
                Err(vec![Source::new(&text).diagnostic(Code::E105, span, message)])
            }
        }
    }
}

fn compile_text(text: &str, options: &CompileOptions) -> Result<RuleSet, Vec<Diagnostic>> {
    let mut source = Source::new(text);
    let terms = term::read(&mut source);
    let mut compiler = Compiler { source, options: *options, warnings: Vec::new(), patterns: HashMap::new() };
    let mut rules = Vec::with_capacity(terms.len());
    for term in &terms {
        rules.extend(compiler.rule(term));
        if compiler.source.is_full() {
            break;
        }
    }
    let Compiler { source, warnings, .. } = compiler;
    let errors = source.into_diagnostics();
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(RuleSet::new(rules, options.mode, options.security_profile, warnings))
}

struct Compiler<'a> {
    source: Source<'a>,
    options: CompileOptions,
    warnings: Vec<Diagnostic>,
    /// One program per pattern, however many rules use it.
    patterns: HashMap<String, Pattern>,
}

/// An error of this rule was reported, or the term was reported already.
type Checked<T> = Option<T>;

impl Compiler<'_> {
    fn error<T>(&mut self, code: Code, term: &Term, message: impl Into<String>) -> Checked<T> {
        if term.kind != TermKind::Invalid {
            self.source.report(code, term.span, message);
        }
        None
    }

    /// What EMQX accepts: an error in strict mode (`None`), a warning in EMQX mode.
    fn tolerated(&mut self, code: Code, span: Span, message: impl Into<String>) -> Checked<()> {
        if self.options.mode == Mode::Strict {
            self.source.report(code, span, message);
            return None;
        }
        if self.warnings.len() < DIAGNOSTICS_MAX {
            let warning = self.source.diagnostic(code, span, message.into());
            self.warnings.push(warning);
        }
        Some(())
    }

    fn rule(&mut self, term: &Term) -> Checked<Rule> {
        let line = self.source.line(term.span.start);
        let TermKind::Tuple(items) = &term.kind else {
            return self.error(
                Code::E201,
                term,
                "not a rule: a rule is `{allow | deny, Who, Action, Topics}`",
            );
        };
        match items.as_slice() {
            [permission, who] => {
                let permission = self.permission(permission);
                let condition = self.short_condition(who);
                let (action, topics) = (Action::ALL, Topics::All);
                Some(Rule { permission: permission?, condition: condition?, action, topics, line })
            }
            [_, _, _] => {
                let message = "a rule with three elements: the topics are missing, write `{…, …, …, all}`";
                self.error(Code::E202, term, message)
            }
            [permission, who, action, topics] => {
                // Each part is checked even if another is wrong, so that all errors come out at once.
                let permission = self.permission(permission);
                let condition = self.condition(who);
                let action = self.action(action);
                let topics = self.topics(topics);
                Some(Rule {
                    permission: permission?,
                    condition: condition?,
                    action: action?,
                    topics: topics?,
                    line,
                })
            }
            _ => {
                let message =
                    format!("not a rule: a tuple of {} elements, a rule has two or four", items.len());
                self.error(Code::E201, term, message)
            }
        }
    }

    fn permission(&mut self, term: &Term) -> Checked<Permission> {
        match &term.kind {
            TermKind::Atom(name) if name == "allow" => Some(Permission::Allow),
            TermKind::Atom(name) if name == "deny" => Some(Permission::Deny),
            TermKind::Atom(name) => {
                let meant = nearest(name, &["allow", "deny"], &[("permit", "allow"), ("reject", "deny")]);
                self.error(Code::E203, term, format!("`{name}` is not a permission{meant}"))
            }
            _ => self.error(Code::E203, term, "a rule begins with `allow` or `deny`"),
        }
    }

    /// The second element of `{Permission, Who}`.
    fn short_condition(&mut self, term: &Term) -> Checked<Condition> {
        let profile = matches!(&term.kind, TermKind::Tuple(items)
            if matches!(items.first().map(|t| &t.kind), Some(TermKind::Atom(name)) if name == "security_profile"));
        if profile || matches!(&term.kind, TermKind::Atom(name) if name == "all") {
            return self.condition(term);
        }
        let message = "a rule with two elements takes only `all` or `{security_profile, …}` here; \
                       write `{…, …, all, all}`";
        self.error(Code::E202, term, message)
    }

    /// A text: string, binary or atom. Control characters are in no MQTT text that is let in.
    fn text(&mut self, term: &Term) -> Checked<Result<String, ()>> {
        let text = match &term.kind {
            TermKind::String(text) | TermKind::Atom(text) => text.clone(),
            TermKind::Binary(bytes) => match String::from_utf8(bytes.clone()) {
                Ok(text) => text,
                Err(_) => {
                    return self.error(Code::E212, term, "this binary is not UTF-8: write `<<\"…\"/utf8>>`");
                }
            },
            TermKind::Invalid => return None,
            _ => return Some(Err(())),
        };
        if let Some(control) = text.chars().find(|c| c.is_control()) {
            let message = format!("the control character U+{:04X} in a text", u32::from(control));
            self.tolerated(Code::E212, term.span, message)?;
        }
        Some(Ok(text))
    }

    fn pattern(&mut self, term: &Term) -> Checked<Pattern> {
        let Ok(source) = self.text(term)? else {
            return self.error(Code::E302, term, "a pattern is a text: `{re, \"…\"}`");
        };
        if let Some(known) = self.patterns.get(&source) {
            return Some(known.clone());
        }
        match Pattern::compile(&source, self.options.mode) {
            Ok(pattern) => {
                self.patterns.insert(source, pattern.clone());
                Some(pattern)
            }
            Err(error) => {
                let (code, offset) = match error {
                    PatternError::Syntax { offset, .. } => (Code::E301, offset),
                    PatternError::Unsupported { offset, .. } => (Code::E305, Some(offset)),
                    PatternError::TooBig => (Code::E002, None),
                };
                let span = self.inside(term.span, &source, offset);
                self.source.report(code, span, error.to_string());
                None
            }
        }
    }

    /// The place of a byte of a string literal, if the literal is written as it reads.
    fn inside(&self, span: Span, text: &str, offset: Option<usize>) -> Span {
        let written = self.source.text().get(span.start + 1..span.end.saturating_sub(1));
        match offset {
            Some(offset) if written == Some(text) => {
                let start = span.start + 1 + offset;
                Span { start, end: start + 1 }
            }
            _ => span,
        }
    }
}

/// `; did you mean …` for a word close to one of `words`, or known as a stand-in for one.
fn nearest(word: &str, words: &[&'static str], meant: &[(&str, &'static str)]) -> String {
    let lower = word.to_lowercase();
    let known = meant.iter().find(|(other, _)| *other == lower).map(|(_, right)| *right);
    let close = || {
        let near = words.iter().map(|candidate| (distance(&lower, candidate), *candidate)).min();
        near.filter(|(distance, candidate)| *distance <= 2 && *distance < candidate.len()).map(|(_, c)| c)
    };
    known.or_else(close).map_or_else(String::new, |right| format!("; did you mean `{right}`?"))
}

/// Levenshtein distance of short words.
fn distance(one: &str, other: &str) -> usize {
    if one.len() > 32 {
        return usize::MAX;
    }
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in other.iter().enumerate() {
            let substituted = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}
