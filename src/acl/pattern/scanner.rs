//! Tokens of a PCRE pattern, each in the spelling of our engine; what only backtracking can match is refused here.

use crate::acl::pattern::PatternError;

/// A piece of a pattern. `text` is how our engine spells it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) offset: usize,
    pub(super) kind: Kind,
    pub(super) text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
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

/// Cuts a pattern into tokens.
pub(super) fn tokenize(source: &str) -> Result<Vec<Token>, PatternError> {
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
