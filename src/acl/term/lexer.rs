//! Tokens of Erlang source text, as far as data can hold them (`acl-language.md` section 1).

use crate::acl::diagnostic::Code;
use crate::acl::diagnostic::Source;
use crate::acl::diagnostic::Span;

/// A token with its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) span: Span,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum TokenKind {
    Atom(String),
    Reserved(String),
    Variable(String),
    String(String),
    Integer(i64),
    Float,
    Punctuation(&'static str),
    /// `.` with white space, a comment or the end behind it.
    Dot,
    End,
}

impl TokenKind {
    pub(super) fn begins_term(&self) -> bool {
        match self {
            Self::Punctuation(p) => matches!(*p, "{" | "[" | "<<" | "#" | "-" | "+"),
            Self::Dot | Self::End => false,
            _ => true,
        }
    }

    pub(super) fn describe(&self) -> String {
        match self {
            Self::Atom(name) | Self::Reserved(name) | Self::Variable(name) => format!("`{name}`"),
            Self::String(_) => "a string".to_owned(),
            Self::Integer(value) => format!("`{value}`"),
            Self::Float => "a float".to_owned(),
            Self::Punctuation(p) => format!("`{p}`"),
            Self::Dot => "the end of the rule".to_owned(),
            Self::End => "the end of the file".to_owned(),
        }
    }
}

const RESERVED: [&str; 29] = [
    "after", "and", "andalso", "band", "begin", "bnot", "bor", "bsl", "bsr", "bxor", "case", "catch", "cond",
    "div", "else", "end", "fun", "if", "let", "maybe", "not", "of", "or", "orelse", "receive", "rem", "try",
    "when", "xor",
];

/// Longest first.
const PUNCTUATION: [&str; 29] = [
    "..", "<<", ">>", "=>", ":=", "->", "||", "{", "}", "[", "]", "(", ")", ",", "|", "#", "-", "+", "/",
    ":", ";", "=", "<", ">", "!", "?", "*", "&", ".",
];

/// Cuts a text into tokens. What cannot be a token is reported and left out.
pub(super) struct Lexer<'s, 'a> {
    pub(super) source: &'s mut Source<'a>,
    text: &'a str,
    at: usize,
    /// A quote was never closed: the rest of the file is lost.
    pub(super) broken: bool,
}

impl<'s, 'a> Lexer<'s, 'a> {
    pub(super) fn new(source: &'s mut Source<'a>) -> Self {
        let text = source.text();
        Self { source, text, at: 0, broken: false }
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let taken = rest.split(|c| !wanted(c)).next().unwrap_or_default();
        self.at += taken.len();
        taken
    }

    fn span_from(&self, start: usize) -> Span {
        Span { start, end: self.at }
    }

    /// The next token; `End` for ever once the text is used up.
    pub(super) fn next(&mut self) -> Token {
        loop {
            self.skip_blank();
            let start = self.at;
            let kind = match self.peek() {
                None => TokenKind::End,
                Some(c) => match self.token(c) {
                    Some(kind) => kind,
                    None => continue,
                },
            };
            return Token { kind, span: self.span_from(start) };
        }
    }

    fn skip_blank(&mut self) {
        loop {
            self.take_while(is_blank);
            if self.peek() != Some('%') {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    /// The token that begins with `c`, or `None` when there is none and something was reported.
    fn token(&mut self, c: char) -> Option<TokenKind> {
        match c {
            '"' => self.quoted('"', "string").map(TokenKind::String),
            '\'' => self.quoted('\'', "quoted atom").map(TokenKind::Atom),
            '$' => self.character(),
            '0'..='9' => Some(self.number()),
            c if is_lower(c) => Some(self.word()),
            c if is_upper(c) => Some(TokenKind::Variable(self.take_while(is_name).to_owned())),
            '.' if self.rest()[1..].chars().next().is_none_or(|c| is_blank(c) || c == '%') => {
                self.at += 1;
                Some(TokenKind::Dot)
            }
            c => {
                let found = PUNCTUATION.into_iter().find(|p| self.rest().starts_with(p));
                if let Some(punctuation) = found {
                    self.at += punctuation.len();
                    return Some(TokenKind::Punctuation(punctuation));
                }
                self.illegal(c);
                None
            }
        }
    }

    fn word(&mut self) -> TokenKind {
        let name = self.take_while(is_name).to_owned();
        if RESERVED.contains(&name.as_str()) { TokenKind::Reserved(name) } else { TokenKind::Atom(name) }
    }

    fn illegal(&mut self, c: char) {
        let start = self.at;
        self.take_while(|other| other == c);
        let message = match c {
            '\u{FEFF}' => "a byte order mark: save the file without one".to_owned(),
            '“' | '”' | '„' | '‘' | '’' => {
                format!("`{c}` is a typographic quote; strings stand in \"…\"")
            }
            c => format!("`{}` may not stand here", c.escape_default()),
        };
        let span = self.span_from(start);
        self.source.report(Code::E105, span, message);
    }

    fn quoted(&mut self, quote: char, name: &str) -> Option<String> {
        let start = self.at;
        self.bump();
        let mut text = String::new();
        loop {
            match self.bump() {
                Some(c) if c == quote => return Some(text),
                Some('\\') => text.extend(self.escape()),
                Some(c) => text.push(c),
                None => {
                    self.broken = true;
                    let span = Span { start, end: start + 1 };
                    self.source.report(Code::E104, span, format!("this {name} is never closed"));
                    return None;
                }
            }
        }
    }

    /// The character of an escape sequence, behind its backslash.
    fn escape(&mut self) -> Option<char> {
        let start = self.at.saturating_sub(1);
        Some(match self.bump()? {
            'b' => '\u{8}',
            'd' => '\u{7F}',
            'e' => '\u{1B}',
            'f' => '\u{C}',
            'n' => '\n',
            'r' => '\r',
            's' => ' ',
            't' => '\t',
            'v' => '\u{B}',
            '^' => char::from(self.bump().and_then(|c| u8::try_from(c).ok())? & 31),
            'x' => return self.hexadecimal(start),
            first @ '0'..='7' => {
                let mut value = first.to_digit(8)?;
                for _ in 0..2 {
                    let Some(digit) = self.peek().and_then(|c| c.to_digit(8)) else { break };
                    self.bump();
                    value = value * 8 + digit;
                }
                char::from_u32(value)?
            }
            other => other,
        })
    }

    fn hexadecimal(&mut self, start: usize) -> Option<char> {
        let digits = if self.peek() == Some('{') {
            self.bump();
            let digits = self.take_while(|c| c.is_ascii_hexdigit());
            let closed = self.peek() == Some('}');
            if closed {
                self.bump();
            }
            if closed { digits } else { "" }
        } else {
            let both = self.rest().get(..2).filter(|two| two.bytes().all(|b| b.is_ascii_hexdigit()));
            self.at += both.map_or(0, str::len);
            both.unwrap_or_default()
        };
        let found = u32::from_str_radix(digits, 16).ok().and_then(char::from_u32);
        if found.is_none() {
            let span = self.span_from(start);
            let message = "not a character: write `\\xHH` or `\\x{H…}` with hexadecimal digits";
            self.source.report(Code::E101, span, message);
        }
        found
    }

    /// `$a`: the number of a character.
    fn character(&mut self) -> Option<TokenKind> {
        let start = self.at;
        self.bump();
        let c = match self.bump() {
            Some('\\') => self.escape(),
            other => other,
        };
        if c.is_none() {
            let span = self.span_from(start);
            self.source.report(Code::E101, span, "`$` must be followed by a character");
        }
        c.map(|c| TokenKind::Integer(i64::from(u32::from(c))))
    }

    fn number(&mut self) -> TokenKind {
        let digits = self.take_while(|c| c.is_ascii_digit() || c == '_');
        let value = integer(digits, 10);
        let mut ahead = self.rest().chars();
        match (ahead.next(), ahead.next()) {
            (Some('.'), Some('0'..='9')) => {
                self.bump();
                self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
                TokenKind::Float
            }
            (Some('#'), Some(c)) if c.is_ascii_alphanumeric() && (2..=36).contains(&value) => {
                self.bump();
                let digits = self.take_while(|c| c.is_ascii_alphanumeric() || c == '_');
                TokenKind::Integer(integer(digits, u32::try_from(value).unwrap_or(10)))
            }
            _ => TokenKind::Integer(value),
        }
    }
}

/// Saturates: no rule holds a large number.
fn integer(digits: &str, base: u32) -> i64 {
    digits
        .chars()
        .filter_map(|c| c.to_digit(base))
        .fold(0i64, |value, digit| value.saturating_mul(i64::from(base)).saturating_add(i64::from(digit)))
}

fn is_blank(c: char) -> bool {
    c <= ' ' || ('\u{80}'..='\u{A0}').contains(&c)
}

fn is_lower(c: char) -> bool {
    c.is_ascii_lowercase() || (('ß'..='ÿ').contains(&c) && c != '÷')
}

fn is_upper(c: char) -> bool {
    c.is_ascii_uppercase() || c == '_' || (('À'..='Þ').contains(&c) && c != '×')
}

fn is_name(c: char) -> bool {
    is_lower(c) || is_upper(c) || c.is_ascii_digit() || c == '@'
}
