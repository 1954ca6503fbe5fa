//! `{re, Pattern}`: PCRE as EMQX writes it, run by a linear-time engine (`acl-language.md` sections 2 and 8 item 9).
//!
//! A search, unanchored, byte by byte, case sensitive. What PCRE has and a linear-time engine cannot have is refused by
//! name; what the two engines spell differently is translated. Simple prefixes do not need the engine at all.

mod scanner;

use std::fmt;

use regex::bytes::Regex;
use regex::bytes::RegexBuilder;

use crate::acl::pattern::scanner::Kind;
use crate::acl::pattern::scanner::Token;
use crate::acl::pattern::scanner::tokenize;
use crate::acl::rule::Mode;

/// The largest compiled program in bytes (`acl-language.md` section 1).
pub const PROGRAM_BYTES_MAX: usize = 1024 * 1024;

/// A compiled pattern.
#[derive(Clone)]
pub struct Pattern {
    source: Box<str>,
    engine: Engine,
    shape: Shape,
}

#[derive(Clone)]
enum Engine {
    Prefix(Box<str>),
    Equals(Box<str>),
    Regex(Regex),
}

/// What a pattern without anything but literal text asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Literal<'a> {
    /// The text begins with this.
    Begins(&'a str),
    /// The text is this.
    Equals(&'a str),
}

/// Why a pattern was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It cannot be parsed.
    #[error("{message}{}", offset.map_or_else(String::new, |at| format!(" at offset {at} of the pattern")))]
    Syntax {
        /// What the engine says.
        message: String,
        /// Byte offset in the pattern, where it is known.
        offset: Option<usize>,
    },
    /// PCRE has it, the linear-time engine does not.
    #[error("{feature} at offset {offset} of the pattern is not supported: matching must take linear time")]
    Unsupported {
        /// Name of the feature.
        feature: &'static str,
        /// Byte offset in the pattern.
        offset: usize,
    },
    /// The program is larger than [`PROGRAM_BYTES_MAX`].
    #[error("the compiled pattern is larger than {PROGRAM_BYTES_MAX} bytes")]
    TooBig,
}

/// What can be said of a pattern by its looks; the linter asks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shape {
    /// Every branch begins with `^` or `\A`.
    pub anchored: bool,
    /// Literal text that every match begins with (when anchored).
    pub prefix: String,
    /// Nothing but anchors and literal text.
    pub literal: bool,
    /// Ends in `$` or `\z`.
    pub ends: bool,
    /// Byte offset of a `$` used as end anchor.
    pub dollar: Option<usize>,
    /// Literal but for `.` that may be meant as dots.
    pub loose_dots: bool,
    /// A quantified group holds a quantifier: super-linear in a backtracking engine.
    pub nested_repetition: bool,
}

impl Pattern {
    /// Compiles `source`.
    pub fn compile(source: &str, mode: Mode) -> Result<Self, PatternError> {
        let tokens = tokenize(source)?;
        let shape = Shape::of(&tokens);
        // EMQX's `$` also matches before one final newline, so equality would miss that.
        let plain_end = mode == Mode::Strict || shape.dollar.is_none();
        let engine = if shape.literal && shape.anchored && shape.ends && plain_end {
            Engine::Equals(shape.prefix.as_str().into())
        } else if shape.literal && ((shape.anchored && !shape.ends) || source.is_empty()) {
            Engine::Prefix(shape.prefix.as_str().into())
        } else {
            Engine::Regex(build(source, &translate(&tokens, mode))?)
        };
        Ok(Self { source: source.into(), engine, shape })
    }

    /// Whether the pattern is found in `text`.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        match &self.engine {
            Engine::Prefix(prefix) => text.starts_with(&**prefix),
            Engine::Equals(wanted) => **wanted == *text,
            Engine::Regex(regex) => regex.is_match(text.as_bytes()),
        }
    }

    /// As written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What it asks for, if that needs no engine.
    #[must_use]
    pub fn literal(&self) -> Option<Literal<'_>> {
        match &self.engine {
            Engine::Prefix(prefix) => Some(Literal::Begins(prefix)),
            Engine::Equals(wanted) => Some(Literal::Equals(wanted)),
            Engine::Regex(_) => None,
        }
    }

    /// What can be said by its looks.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.source).finish()
    }
}

fn build(source: &str, translated: &str) -> Result<Regex, PatternError> {
    let built = RegexBuilder::new(translated)
        .unicode(false)
        .size_limit(PROGRAM_BYTES_MAX)
        .dfa_size_limit(PROGRAM_BYTES_MAX)
        .build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => PatternError::TooBig,
        other => syntax_error(source, translated, &other.to_string()),
    })
}

/// The engine reports a drawing: the pattern, a caret line, `error: what`.
fn syntax_error(source: &str, translated: &str, report: &str) -> PatternError {
    let message = report.lines().rev().find_map(|line| line.trim().strip_prefix("error: "));
    let message = message.unwrap_or("not a regular expression").to_owned();
    let caret = report.lines().find(|line| line.contains('^') && line.trim_matches([' ', '^']).is_empty());
    // The drawing indents by four; its offset is that of the source only if nothing was translated.
    let offset = caret
        .filter(|_| source == translated && source.is_ascii())
        .and_then(|line| line.find('^'))
        .and_then(|column| column.checked_sub(4));
    PatternError::Syntax { message, offset }
}

fn translate(tokens: &[Token], mode: Mode) -> String {
    let multi_line =
        tokens.iter().any(|t| t.text.starts_with("(?") && t.text.contains('m') && !t.text.contains('<'));
    tokens
        .iter()
        .map(|token| match token.kind {
            Kind::Dollar if mode == Mode::Emqx && !multi_line => "(?:\\n?\\z)",
            _ => token.text.as_str(),
        })
        .collect()
}

impl Shape {
    fn of(tokens: &[Token]) -> Self {
        let mut shape = Self { nested_repetition: nested_repetition(tokens), ..Self::default() };
        shape.dollar = tokens.iter().find(|t| t.kind == Kind::Dollar).map(|t| t.offset);
        shape.anchored = branches(tokens).all(|branch| branch.first().is_some_and(|t| t.kind == Kind::Start));
        shape.ends = branches(tokens)
            .all(|branch| branch.last().is_some_and(|t| matches!(t.kind, Kind::Dollar | Kind::End)));
        let body = tokens.strip_prefix_of(Kind::Start).strip_suffix_of(&[Kind::Dollar, Kind::End]);
        shape.literal = body.iter().all(|t| matches!(t.kind, Kind::Literal(_)));
        shape.loose_dots = !shape.literal
            && body.iter().all(|t| matches!(t.kind, Kind::Literal(_) | Kind::Any))
            && body.iter().any(|t| t.kind != Kind::Any);
        if branches(tokens).count() == 1 {
            let optional = |index: usize| body.get(index + 1).is_some_and(|t| t.kind == Kind::Quantifier);
            for (index, token) in body.iter().enumerate() {
                let Kind::Literal(c) = token.kind else { break };
                if optional(index) {
                    break;
                }
                shape.prefix.push(c);
            }
        }
        shape
    }
}

trait TokenSlice {
    fn strip_prefix_of(&self, kind: Kind) -> &[Token];
    fn strip_suffix_of(&self, kinds: &[Kind]) -> &[Token];
}

impl TokenSlice for [Token] {
    fn strip_prefix_of(&self, kind: Kind) -> &[Token] {
        match self {
            [first, rest @ ..] if first.kind == kind => rest,
            all => all,
        }
    }

    fn strip_suffix_of(&self, kinds: &[Kind]) -> &[Token] {
        match self {
            [rest @ .., last] if kinds.contains(&last.kind) => rest,
            all => all,
        }
    }
}

/// The alternatives at the outermost level.
fn branches(tokens: &[Token]) -> impl Iterator<Item = &[Token]> {
    let mut depth = 0usize;
    tokens.split(move |token| {
        match token.kind {
            Kind::Open => depth += 1,
            Kind::Close => depth = depth.saturating_sub(1),
            _ => {}
        }
        token.kind == Kind::Bar && depth == 0
    })
}

fn nested_repetition(tokens: &[Token]) -> bool {
    let unbounded =
        |t: &Token| t.kind == Kind::Quantifier && (t.text.starts_with(['*', '+']) || t.text.contains(",}"));
    // For each open group: whether it holds an unbounded quantifier.
    let mut open = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        match token.kind {
            Kind::Open => open.push(false),
            Kind::Close => {
                let inner = open.pop().unwrap_or(false);
                let repeated = tokens.get(index + 1).is_some_and(unbounded);
                if inner && repeated {
                    return true;
                }
                if let (true, Some(outer)) = (inner, open.last_mut()) {
                    *outer = true;
                }
            }
            _ if unbounded(token) => {
                if let Some(group) = open.last_mut() {
                    *group = true;
                }
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests;
