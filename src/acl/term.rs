//! Reader for Erlang terms as written in acl.conf: tuples, lists, strings, atoms, binaries, integers
//! (`acl-language.md` section 1).
//!
//! The data subset of the language only. Whatever else Erlang could read there is named in an error, with its place;
//! after an error the reader goes on behind the next dot, so that one run reports all errors of a file. Not here: what a
//! term means ([`crate::acl::compile`]).

mod lexer;

use crate::acl::diagnostic::Code;
use crate::acl::diagnostic::Source;
use crate::acl::diagnostic::Span;
use crate::acl::term::lexer::Lexer;
use crate::acl::term::lexer::Token;
use crate::acl::term::lexer::TokenKind;

/// The most rules of a file.
pub const RULES_MAX: usize = 10_000;
/// How deep tuples and lists may stand in each other.
pub const NESTING_MAX: usize = 32;
/// The longest string in bytes.
pub const STRING_BYTES_MAX: usize = 64 * 1024;

/// One term with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// What it is.
    pub kind: TermKind,
    /// Where it stands.
    pub span: Span,
}

/// The terms that an ACL file may hold.
#[derive(Debug, Clone, PartialEq)]
pub enum TermKind {
    /// `allow`, `'and'`
    Atom(String),
    /// `"text"`
    String(String),
    /// `<<"text">>`
    Binary(Vec<u8>),
    /// `1`, `$a`; saturated.
    Integer(i64),
    /// `{…}`
    Tuple(Vec<Term>),
    /// `[…]`
    List(Vec<Term>),
    /// Read, but never part of a rule: its name.
    Unsupported(&'static str),
    /// An error was reported for it; nothing more is to be said.
    Invalid,
}

/// A term could not be read; the error is reported already.
struct Unreadable;

/// Reads all terms of a file and reports what is wrong with its syntax.
pub fn read(source: &mut Source<'_>) -> Vec<Term> {
    let mut reader = Reader { lexer: Lexer::new(source), peeked: None, last_end: 0 };
    let mut terms = Vec::new();
    while reader.peek().kind != TokenKind::End && !reader.lexer.source.is_full() {
        if terms.len() == RULES_MAX {
            let span = reader.peek().span;
            reader.lexer.source.report(Code::E002, span, format!("more than {RULES_MAX} rules"));
            break;
        }
        match reader.term(0) {
            Ok(term) => {
                reader.dot(&term);
                terms.push(term);
            }
            Err(Unreadable) => reader.skip_to_dot(),
        }
    }
    terms
}

struct Reader<'s, 'a> {
    lexer: Lexer<'s, 'a>,
    peeked: Option<Token>,
    last_end: usize,
}

impl Reader<'_, '_> {
    fn peek(&mut self) -> &Token {
        self.peeked.get_or_insert_with(|| self.lexer.next())
    }

    fn next(&mut self) -> Token {
        let token = self.peeked.take().unwrap_or_else(|| self.lexer.next());
        self.last_end = token.span.end;
        token
    }

    fn next_is(&mut self, punctuation: &str) -> bool {
        let found = matches!(self.peek().kind, TokenKind::Punctuation(p) if p == punctuation);
        if found {
            self.next();
        }
        found
    }

    fn report(&mut self, code: Code, span: Span, message: impl Into<String>) {
        self.lexer.source.report(code, span, message);
    }

    /// Reports that something else was expected than the next token.
    fn unexpected(&mut self, expected: &str) -> Unreadable {
        let after = Span { start: self.last_end, end: self.last_end };
        let broken = self.lexer.broken;
        let token = self.peek();
        let found = token.kind.describe();
        // The end of the file is far away from what is missing.
        let span = if token.kind == TokenKind::End { after } else { token.span };
        if !broken {
            self.report(Code::E101, span, format!("expected {expected}, found {found}"));
        }
        Unreadable
    }

    /// The dot that ends a rule.
    fn dot(&mut self, term: &Term) {
        let after = Span { start: term.span.end, end: term.span.end };
        let compound = matches!(term.kind, TermKind::Tuple(_) | TermKind::List(_));
        let broken = self.lexer.broken;
        match self.peek().kind {
            TokenKind::Dot => {
                self.next();
            }
            TokenKind::End if broken => {}
            TokenKind::End => self.report(Code::E102, after, "the rule is not ended by `.`"),
            TokenKind::Punctuation("{") if compound => {
                self.report(Code::E102, after, "the rule is not ended by `.`");
            }
            TokenKind::Punctuation(".") => {
                let span = self.peek().span;
                self.report(Code::E101, span, "the `.` that ends a rule must be followed by white space");
                self.next();
            }
            _ => {
                self.unexpected("`.`");
                self.skip_to_dot();
            }
        }
    }

    fn skip_to_dot(&mut self) {
        while !matches!(self.next().kind, TokenKind::Dot | TokenKind::End) {}
    }

    fn term(&mut self, depth: usize) -> Result<Term, Unreadable> {
        if depth > NESTING_MAX {
            let span = self.peek().span;
            self.report(Code::E002, span, format!("nested deeper than {NESTING_MAX} levels"));
            return Err(Unreadable);
        }
        if !self.peek().kind.begins_term() {
            return Err(self.unexpected("a term"));
        }
        let token = self.next();
        let start = token.span.start;
        let kind = match token.kind {
            TokenKind::Atom(name) => {
                if matches!(self.peek().kind, TokenKind::Punctuation("(" | ":")) {
                    let message = format!("`{name}` is called here; a rule is data only");
                    self.report(Code::E103, token.span, message);
                    return Err(Unreadable);
                }
                TermKind::Atom(name)
            }
            TokenKind::Reserved(name) => {
                let message = format!("`{name}` is a reserved word here; quote it: `'{name}'`");
                self.report(Code::E106, token.span, message);
                TermKind::Atom(name)
            }
            TokenKind::Variable(name) => {
                let atom = name.to_lowercase();
                let message = format!("`{name}` is a variable, a rule is data only; did you mean `{atom}`?");
                self.report(Code::E103, token.span, message);
                TermKind::Invalid
            }
            TokenKind::String(text) => self.joined(text, token.span),
            TokenKind::Integer(value) => TermKind::Integer(value),
            TokenKind::Float => TermKind::Unsupported("a float"),
            TokenKind::Punctuation("-") => self.signed(-1)?,
            TokenKind::Punctuation("+") => self.signed(1)?,
            TokenKind::Punctuation("{") => TermKind::Tuple(self.items(depth, "}")?),
            TokenKind::Punctuation("[") => TermKind::List(self.items(depth, "]")?),
            TokenKind::Punctuation("#") => self.map(depth)?,
            _ => self.binary(start)?,
        };
        Ok(Term { kind, span: Span { start, end: self.last_end } })
    }

    /// Adjacent string literals are one string.
    fn joined(&mut self, mut text: String, span: Span) -> TermKind {
        while matches!(self.peek().kind, TokenKind::String(_)) {
            if let TokenKind::String(more) = self.next().kind {
                text.push_str(&more);
            }
        }
        if text.len() > STRING_BYTES_MAX {
            self.report(Code::E002, span, format!("a string longer than {STRING_BYTES_MAX} bytes"));
            return TermKind::Invalid;
        }
        TermKind::String(text)
    }

    fn signed(&mut self, sign: i64) -> Result<TermKind, Unreadable> {
        match self.peek().kind {
            TokenKind::Integer(value) => {
                self.next();
                Ok(TermKind::Integer(value.saturating_mul(sign)))
            }
            TokenKind::Float => {
                self.next();
                Ok(TermKind::Unsupported("a float"))
            }
            _ => Err(self.unexpected("a number")),
        }
    }

    /// The rest of a tuple or list behind its opening bracket.
    fn items(&mut self, depth: usize, close: &'static str) -> Result<Vec<Term>, Unreadable> {
        let mut items = Vec::new();
        if self.next_is(close) {
            return Ok(items);
        }
        loop {
            items.push(self.term(depth + 1)?);
            if self.next_is(close) {
                return Ok(items);
            }
            if close == "]" && matches!(self.peek().kind, TokenKind::Punctuation("|")) {
                let span = self.peek().span;
                self.report(Code::E101, span, "a list with a tail: separate its items by `,`");
                return Err(Unreadable);
            }
            if !self.next_is(",") {
                return Err(self.unexpected(&format!("`,` or `{close}`")));
            }
        }
    }

    /// `#{…}`, read to the end so that its place in the rule is reported, not its inside.
    fn map(&mut self, depth: usize) -> Result<TermKind, Unreadable> {
        if !self.next_is("{") {
            return Err(self.unexpected("a term"));
        }
        if self.next_is("}") {
            return Ok(TermKind::Unsupported("a map"));
        }
        loop {
            self.term(depth + 1)?;
            if !self.next_is("=>") {
                return Err(self.unexpected("`=>`"));
            }
            self.term(depth + 1)?;
            if self.next_is("}") {
                return Ok(TermKind::Unsupported("a map"));
            }
            if !self.next_is(",") {
                return Err(self.unexpected("`,` or `}`"));
            }
        }
    }

    /// The rest of a binary behind `<<`. Text without `/utf8` is Latin-1, as Erlang has it.
    fn binary(&mut self, start: usize) -> Result<TermKind, Unreadable> {
        let mut bytes = Vec::new();
        let mut kind = None;
        if self.next_is(">>") {
            return Ok(TermKind::Binary(bytes));
        }
        loop {
            match self.peek().kind {
                TokenKind::String(_) => {
                    let token = self.next();
                    let TokenKind::String(text) = token.kind else { continue };
                    let joined = self.joined(text, token.span);
                    let utf8 = self.utf8_suffix()?;
                    match joined {
                        TermKind::String(text) if utf8 => bytes.extend_from_slice(text.as_bytes()),
                        TermKind::String(text) if text.chars().all(|c| u32::from(c) < 256) => {
                            bytes.extend(text.chars().map(|c| c as u8));
                        }
                        TermKind::String(_) => {
                            let span = Span { start, end: self.last_end };
                            self.report(
                                Code::E212,
                                span,
                                "text beyond Latin-1 in a binary: write `<<\"…\"/utf8>>`",
                            );
                            kind = Some(TermKind::Invalid);
                        }
                        _ => kind = Some(TermKind::Invalid),
                    }
                }
                TokenKind::Integer(value) => {
                    self.next();
                    // Erlang keeps the low eight bits.
                    bytes.push((value & 0xFF) as u8);
                }
                _ => return Err(self.unexpected("a string or an integer")),
            }
            if self.next_is(">>") {
                return Ok(kind.unwrap_or(TermKind::Binary(bytes)));
            }
            if !self.next_is(",") {
                return Err(self.unexpected("`,` or `>>`"));
            }
        }
    }

    fn utf8_suffix(&mut self) -> Result<bool, Unreadable> {
        if !self.next_is("/") {
            return Ok(false);
        }
        if !matches!(&self.peek().kind, TokenKind::Atom(name) if name == "utf8") {
            return Err(self.unexpected("`utf8`"));
        }
        self.next();
        Ok(true)
    }
}

#[cfg(test)]
mod tests;
