//! `{re, Pattern}`: PCRE as EMQX writes it, run by a linear-time engine (`acl-language.md` sections 2 and 8 item 9).
//!
//! A search, unanchored, byte by byte, case sensitive. What PCRE has and a linear-time engine cannot have is refused by
//! name; what the two engines spell differently is translated. Simple prefixes do not need the engine at all.

use std::fmt;

use regex::bytes::Regex;
use regex::bytes::RegexBuilder;

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

/// A piece of a pattern. `text` is how our engine spells it.
#[derive(Debug, Clone, PartialEq)]
struct Token {
    offset: usize,
    kind: Kind,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Literal(char),
    Any,
    Start,
    End,
    Dollar,
    Open,
    Close,
    Bar,
    Quantifier,
    Other,
}

struct Scanner<'a> {
    source: &'a str,
    at: usize,
    tokens: Vec<Token>,
}

fn tokenize(source: &str) -> Result<Vec<Token>, PatternError> {
    let mut scanner = Scanner { source, at: 0, tokens: Vec::new() };
    while let Some(c) = scanner.peek() {
        scanner.token(c)?;
    }
    Ok(scanner.tokens)
}

impl Scanner<'_> {
    fn rest(&self) -> &str {
        self.source.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn unsupported<T>(&self, feature: &'static str) -> Result<T, PatternError> {
        Err(PatternError::Unsupported { feature, offset: self.at })
    }

    fn push(&mut self, length: usize, kind: Kind, text: impl Into<String>) {
        self.tokens.push(Token { offset: self.at, kind, text: text.into() });
        self.at += length;
    }

    /// Takes `length` bytes over as they are.
    fn keep(&mut self, length: usize, kind: Kind) {
        let text = self.rest().get(..length).unwrap_or_default().to_owned();
        self.push(length, kind, text);
    }

    fn token(&mut self, c: char) -> Result<(), PatternError> {
        match c {
            '\\' => self.escape()?,
            '[' => self.class()?,
            '(' => self.group()?,
            ')' => self.keep(1, Kind::Close),
            '|' => self.keep(1, Kind::Bar),
            '.' => self.keep(1, Kind::Any),
            '^' => self.keep(1, Kind::Start),
            '$' => self.keep(1, Kind::Dollar),
            '*' | '+' | '?' => self.quantifier(1)?,
            '{' => match bounds(self.rest()) {
                Some(length) => self.quantifier(length)?,
                None => self.push(1, Kind::Literal('{'), "\\{"),
            },
            '}' | ']' => self.push(1, Kind::Literal(c), format!("\\{c}")),
            c => self.keep(c.len_utf8(), Kind::Literal(c)),
        }
        Ok(())
    }

    fn quantifier(&mut self, length: usize) -> Result<(), PatternError> {
        self.keep(length, Kind::Quantifier);
        match self.peek() {
            Some('+') => self.unsupported("a possessive quantifier"),
            Some('?') => {
                if let Some(last) = self.tokens.last_mut() {
                    last.text.push('?');
                }
                self.at += 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn escape(&mut self) -> Result<(), PatternError> {
        let Some(c) = self.rest().chars().nth(1) else {
            let message = "the pattern ends in a single backslash".to_owned();
            return Err(PatternError::Syntax { message, offset: Some(self.at) });
        };
        match c {
            'A' => self.keep(2, Kind::Start),
            'z' => self.keep(2, Kind::End),
            'Z' => self.push(2, Kind::Dollar, "$"),
            '1'..='9' | 'g' | 'k' => return self.unsupported("a backreference"),
            'K' => return self.unsupported("\\K"),
            'Q' | 'E' => return self.unsupported("\\Q...\\E"),
            'G' | 'C' | 'X' | 'R' | 'N' | 'h' | 'H' | 'v' | 'V' | 'p' | 'P' | '0' | 'c' | 'o' | 'e' => {
                return self.unsupported("this escape sequence");
            }
            'x' => {
                let end = if self.rest().starts_with("\\x{") {
                    self.rest().find('}').map(|at| at + 1)
                } else {
                    Some(4)
                };
                let length = end.filter(|&end| self.rest().is_char_boundary(end)).unwrap_or(2);
                self.keep(length, Kind::Other);
            }
            c if c.is_ascii_alphanumeric() => self.keep(2, Kind::Other),
            '<' | '>' => self.push(2, Kind::Literal(c), c),
            c if c.is_ascii() => self.keep(2, Kind::Literal(c)),
            c => self.push(1 + c.len_utf8(), Kind::Literal(c), c),
        }
        Ok(())
    }

    fn group(&mut self) -> Result<(), PatternError> {
        let rest = self.rest();
        if rest.starts_with("(*") {
            return self.unsupported("a verb");
        }
        let Some(inner) = rest.strip_prefix("(?") else {
            self.keep(1, Kind::Open);
            return Ok(());
        };
        let mut chars = inner.chars();
        match (chars.next(), chars.next()) {
            (Some('=' | '!'), _) => self.unsupported("look-ahead"),
            (Some('<'), Some('=' | '!')) => self.unsupported("look-behind"),
            (Some('>'), _) => self.unsupported("an atomic group"),
            (Some('#'), _) => self.unsupported("a comment"),
            (Some('|'), _) => self.unsupported("a branch reset"),
            (Some('('), _) => self.unsupported("a conditional"),
            (Some('C'), _) => self.unsupported("a callout"),
            (Some('P'), Some('=')) => self.unsupported("a backreference"),
            (Some('R' | '&' | '+' | '0'..='9'), _)
            | (Some('-'), Some('0'..='9'))
            | (Some('P'), Some('>')) => self.unsupported("recursion"),
            _ => {
                // `(?:`, `(?i)`, `(?i:`, `(?<name>`, `(?P<name>`
                let end = inner.find([':', ')', '>']).map_or(rest.len(), |at| at + 3);
                let flags = inner.get(..end.saturating_sub(2)).unwrap_or_default();
                if !flags.contains('<') && flags.contains(['u', 'R', 'J', 'X', '\'']) {
                    return self.unsupported("this group");
                }
                let kind = if rest.get(..end).is_some_and(|head| head.ends_with(')')) {
                    Kind::Other
                } else {
                    Kind::Open
                };
                self.keep(end, kind);
                Ok(())
            }
        }
    }

    /// A bracket expression. PCRE knows no nested sets and no set operations, our engine does.
    fn class(&mut self) -> Result<(), PatternError> {
        let mut text = String::from("[");
        let rest = self.rest().to_owned();
        let mut at = 1;
        if rest[at..].starts_with('^') {
            text.push('^');
            at += 1;
        }
        let first = at;
        loop {
            let Some(c) = rest[at..].chars().next() else {
                let message = "missing `]`".to_owned();
                return Err(PatternError::Syntax { message, offset: Some(self.at) });
            };
            let next = rest[at + c.len_utf8()..].chars().next();
            match (c, next) {
                (']', _) if at > first => break,
                (']', _) => text.push_str("\\]"),
                ('[', Some(':')) => match rest[at..].find(":]") {
                    Some(end) => {
                        text.push_str(&rest[at..at + end + 2]);
                        at += end + 2;
                        continue;
                    }
                    None => text.push_str("\\["),
                },
                ('[', Some('.' | '=')) => return self.unsupported("a collating element"),
                ('-', Some('-')) => return self.unsupported("a range that begins or ends with `-`"),
                ('[' | '&' | '~', _) => text.extend(['\\', c]),
                ('\\', Some('<' | '>')) => {}
                (
                    '\\',
                    Some('h' | 'H' | 'v' | 'V' | 'R' | 'N' | 'Q' | 'E' | 'b' | '0'..='9' | 'c' | 'o' | 'e'),
                ) => {
                    return self.unsupported("this escape sequence in a class");
                }
                ('\\', Some(next)) => {
                    if next.is_ascii() {
                        text.push('\\');
                    }
                    text.push(next);
                    at += 1 + next.len_utf8();
                    continue;
                }
                _ => text.push(c),
            }
            at += c.len_utf8();
        }
        text.push(']');
        self.push(at + 1, Kind::Other, text);
        Ok(())
    }
}

/// Length of a `{n}`, `{n,}` or `{n,m}` at the start of `text`; PCRE takes any other brace as text.
fn bounds(text: &str) -> Option<usize> {
    let end = text.find('}')?;
    let inner = text.get(1..end)?;
    let (low, high) = inner.split_once(',').unwrap_or((inner, ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    (!low.is_empty() && digits(low) && digits(high)).then_some(end + 1)
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
