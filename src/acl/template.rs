//! Placeholders in topic filters: `${username}`, `${clientid}`, `${cert_common_name}`, `${zone}` and
//! `${client_attrs.NAME}` (`acl-language.md` sections 1 to 3).
//!
//! A value is put in as text and never read as a pattern: one that holds `+`, `#` or `/` is refused, so that no
//! client widens a rule by its name (`reliability.md` 3.2 class F).

use smallvec::SmallVec;

use crate::acl::eval::Subject;
use crate::acl::rule::Mode;

/// A filter with at least one placeholder.
#[derive(Debug, Clone, PartialEq)]
pub struct Template {
    source: Box<str>,
    segments: Vec<Segment>,
}

/// A piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub enum Segment {
    /// Literal text.
    Text(Box<str>),
    /// A value of the client.
    Value(Placeholder),
}

/// What a placeholder stands for.
#[derive(Debug, Clone, PartialEq)]
pub enum Placeholder {
    /// `${username}`
    Username,
    /// `${clientid}`
    ClientId,
    /// `${cert_common_name}`
    CertCommonName,
    /// `${zone}`
    Zone,
    /// `${client_attrs.NAME}`
    ClientAttr(Box<str>),
}

impl Placeholder {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "username" => Self::Username,
            "clientid" => Self::ClientId,
            "cert_common_name" => Self::CertCommonName,
            "zone" => Self::Zone,
            _ => {
                let attr = name.strip_prefix("client_attrs.").filter(|attr| !attr.is_empty())?;
                Self::ClientAttr(attr.into())
            }
        })
    }

    fn value<'a>(&self, subject: &Subject<'a>) -> Option<&'a str> {
        match self {
            Self::Username => subject.username,
            Self::ClientId => Some(subject.client_id),
            Self::CertCommonName => subject.cert_common_name,
            Self::Zone => Some(subject.zone),
            Self::ClientAttr(name) => subject.client_attrs.get(&**name).map(String::as_str),
        }
    }
}

/// What a text with `${…}` turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Parsed {
    /// No placeholder: the filter itself.
    Constant(String),
    /// To be rendered per client.
    Template(Template),
}

/// A text, and the `${…}` in it that are no placeholder of topics, each with its offset.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Unknown ones stay literal text in it.
    pub parsed: Parsed,
    /// What was not understood.
    pub unknown: Vec<(usize, String)>,
}

/// Reads the placeholders of a topic text.
#[must_use]
pub fn read(source: &str, mode: Mode) -> Reading {
    let mut segments = Vec::new();
    let mut unknown = Vec::new();
    let mut text = String::new();
    let mut rest = source;
    while let Some(at) = rest.find("${") {
        text.push_str(&rest[..at]);
        let offset = source.len() - rest.len() + at;
        let inner = &rest[at + 2..];
        let Some(end) = inner.find('}') else {
            unknown.push((offset, rest[at..].to_owned()));
            rest = &rest[at..];
            break;
        };
        let name = &inner[..end];
        if name == "$" {
            text.push('$');
        } else if let Some(placeholder) = Placeholder::parse(name) {
            if !text.is_empty() {
                segments.push(Segment::Text(std::mem::take(&mut text).into()));
            }
            segments.push(Segment::Value(placeholder));
        } else {
            unknown.push((offset, format!("${{{name}}}")));
            text.push_str(&rest[at..at + 3 + end]);
        }
        rest = &inner[end + 1..];
    }
    text.push_str(rest);
    if segments.is_empty() {
        // EMQX keeps `${$}` as it is unless another placeholder is present (cases 73, 115 and 116).
        let constant = if mode == Mode::Emqx { source.to_owned() } else { text };
        return Reading { parsed: Parsed::Constant(constant), unknown };
    }
    if !text.is_empty() {
        segments.push(Segment::Text(text.into()));
    }
    Reading { parsed: Parsed::Template(Template { source: source.into(), segments }), unknown }
}

/// What to do with a value that cannot stand in the filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// Strict allow: the entry covers nothing.
    Refuse,
    /// Strict deny: the level becomes `+`.
    Widen,
    /// EMQX: an undefined username is the text `undefined`, an empty value an empty level; others are refused.
    Emqx,
}

/// A rendered filter: a text of moderate length stays off the heap.
#[derive(Debug, Default)]
pub struct Rendered(SmallVec<[u8; 128]>);

impl Rendered {
    /// The filter.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Only whole texts are put in, and cut off before a `/`.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    fn push(&mut self, text: &str) {
        self.0.extend_from_slice(text.as_bytes());
    }

    /// Puts `+` in place of the last level.
    fn widen(&mut self) {
        self.0.truncate(self.0.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1));
        self.0.push(b'+');
    }
}

impl Template {
    /// The text as written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The pieces in order.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The filter with `value` in every place, to check its form.
    #[must_use]
    pub fn filled_with(&self, value: &str) -> String {
        self.segments
            .iter()
            .map(|segment| match segment {
                Segment::Text(text) => text,
                Segment::Value(_) => value,
            })
            .collect()
    }

    /// The filter with every level that holds a placeholder as `+`: covers whatever is rendered from it.
    #[must_use]
    pub fn widened(&self) -> String {
        let filled = self.filled_with("\0");
        let levels = filled.split('/').map(|level| if level.contains('\0') { "+" } else { level });
        levels.collect::<Vec<_>>().join("/")
    }

    /// The filter for this client, or `None` when a value cannot stand in it.
    #[must_use]
    pub fn render(&self, subject: &Subject<'_>, unfit: Unfit) -> Option<Rendered> {
        let mut out = Rendered::default();
        // While a level is widened, everything up to the next `/` is dropped.
        let mut widened = false;
        for segment in &self.segments {
            match segment {
                Segment::Text(text) if widened => {
                    if let Some(slash) = text.find('/') {
                        out.push(&text[slash..]);
                        widened = false;
                    }
                }
                Segment::Text(text) => out.push(text),
                Segment::Value(_) if widened => {}
                Segment::Value(placeholder) => match fit(placeholder, subject, unfit, out.0.is_empty()) {
                    Some(value) => out.push(value),
                    None if unfit == Unfit::Widen => {
                        out.widen();
                        widened = true;
                    }
                    None => return None,
                },
            }
        }
        Some(out)
    }
}

fn fit<'a>(
    placeholder: &Placeholder,
    subject: &Subject<'a>,
    unfit: Unfit,
    at_start: bool,
) -> Option<&'a str> {
    let value = placeholder.value(subject);
    let value = match (value, unfit) {
        (None, Unfit::Emqx) if *placeholder == Placeholder::Username => "undefined",
        (None, _) => return None,
        (Some(""), Unfit::Refuse | Unfit::Widen) => return None,
        (Some(value), _) => value,
    };
    // A client named `$SYS` must not turn `${clientid}/#` into a grant of `$SYS/#`.
    let reserved = unfit == Unfit::Refuse && at_start && value.starts_with('$');
    (!reserved && !value.contains(['+', '#', '/'])).then_some(value)
}
