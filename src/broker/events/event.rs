//! One security event: what happened, by whom, from where, in one schema. Values only: no I/O, no locks.
//!
//! Names follow OWASP's vocabulary for security logs, as LXD's do (`authn-tls.md` section 5). An event names people,
//! clients, addresses, topics and reasons. It never holds a payload, a password, a token or a key.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::metrics::labels::LinkState;
use crate::metrics::labels::SecurityEvent as Name;
use crate::net::address::PeerAddr;
use crate::time::Rfc3339;

/// Characters of a name, a topic or a description that are written.
const TEXT_CHARS_MAX: usize = 512;
/// What the line of a login takes.
const USUAL_BYTES: usize = 256;

/// Who came in, who was refused, what administrators did.
pub const SECURITY: &str = "security";
/// What links became.
pub const LINK: &str = "link";

/// How much it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// As it should be.
    Info,
    /// Somebody was refused.
    Warning,
    /// Somebody acts as another, or nobody watches any more.
    Critical,
}

impl Level {
    /// The name in a line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What happened, with what belongs into its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What<'a> {
    /// The broker is up.
    Startup,
    /// The broker stops.
    Shutdown,
    /// This log does not reach its file any more.
    MonitorDisabled,
    /// It does again.
    MonitorEnabled,
    /// A configuration was put in force, or refused.
    ConfigReload {
        /// Which of the two.
        taken: bool,
    },
    /// The same of an ACL file.
    AclReload {
        /// Which of the two.
        taken: bool,
    },
    /// What has to be kept cannot be stored, or can again.
    Store {
        /// Which of the two.
        works: bool,
    },
    /// A link entered this state.
    LinkState(LinkState),
    /// Somebody proved who they are and came in.
    LoginSuccess,
    /// Somebody did not.
    LoginFail {
        /// What did not hold: `tls`, `password`, `certificate`, `scram`, `jwt`, `http`, `api_key`, `banned`…
        method: &'static str,
    },
    /// A name is locked after too many failures.
    Lockout,
    /// It is not any more.
    Unlock,
    /// A connected client's proof stopped to hold: its certificate, its binding, its token.
    Revoked,
    /// Other revocation lists are in force, or cannot be.
    RevocationLists {
        /// Which of the two.
        taken: bool,
    },
    /// A responder says that our certificate is good, or does not.
    Staple {
        /// Which of the two.
        taken: bool,
    },
    /// A certificate that we depend on expires soon, or has expired.
    CertificateExpiry,
    /// Our link certificate is being replaced, or was; or it should be and cannot be.
    CertificateRotation {
        /// Whether it goes on.
        works: bool,
    },
    /// Somebody is kept out from now on.
    Ban,
    /// A session belongs to another user than the one who asks for it.
    SessionOfAnother,
    /// The ACL said no.
    AuthzFail {
        /// `publish` or `subscribe`.
        action: &'a str,
        /// What it was about.
        topic: &'a str,
    },
    /// A token, an identity or a certificate of a peer became something else.
    Trust {
        /// As the event is called.
        name: &'static str,
        /// Whether somebody should look at it at once.
        critical: bool,
    },
    /// Somebody acts as a linked cluster that they are not, or a linked cluster leaves its own ground.
    LinkForgery,
    /// An administrator changed something, or tried to.
    Admin {
        /// The operation, such as `client_kick`.
        act: &'static str,
    },
}

impl What<'_> {
    /// The name without what varies.
    #[must_use]
    pub fn name(&self) -> Name {
        match self {
            Self::Startup => Name::Startup,
            Self::Shutdown => Name::Shutdown,
            Self::MonitorDisabled => Name::MonitorDisabled,
            Self::MonitorEnabled => Name::MonitorEnabled,
            Self::ConfigReload { taken: true } => Name::ConfigReload,
            Self::ConfigReload { taken: false } => Name::ConfigReloadFail,
            Self::AclReload { taken: true } => Name::AclReload,
            Self::AclReload { taken: false } => Name::AclReloadFail,
            Self::Store { works: false } => Name::StoreFail,
            Self::Store { works: true } => Name::StoreRecover,
            Self::LinkState(_) => Name::LinkState,
            Self::LoginSuccess => Name::LoginSuccess,
            Self::LoginFail { .. } => Name::LoginFail,
            Self::Lockout => Name::Lockout,
            Self::Unlock => Name::Unlock,
            Self::Revoked => Name::Revoked,
            Self::RevocationLists { taken: true } => Name::RevocationLists,
            Self::RevocationLists { taken: false } => Name::RevocationListsFail,
            Self::CertificateExpiry => Name::CertificateExpiry,
            Self::CertificateRotation { works: true } => Name::CertificateRotation,
            Self::CertificateRotation { works: false } => Name::CertificateRotationFail,
            Self::Staple { taken: true } => Name::Staple,
            Self::Staple { taken: false } => Name::StapleFail,
            Self::Ban => Name::Ban,
            Self::SessionOfAnother => Name::SessionOfAnother,
            Self::AuthzFail { .. } => Name::AuthzFail,
            Self::Trust { critical: true, .. } => Name::TokenAbuse,
            Self::Trust { critical: false, .. } => Name::Trust,
            Self::LinkForgery => Name::LinkForgery,
            Self::Admin { .. } => Name::Admin,
        }
    }

    /// How much it matters.
    #[must_use]
    pub fn level(&self) -> Level {
        match self {
            Self::Startup
            | Self::Shutdown
            | Self::MonitorEnabled
            | Self::ConfigReload { taken: true }
            | Self::AclReload { taken: true }
            | Self::Store { works: true }
            | Self::RevocationLists { taken: true }
            | Self::Staple { taken: true }
            | Self::LinkState(LinkState::Active | LinkState::Connecting | LinkState::Disabled)
            | Self::LoginSuccess
            | Self::Unlock
            | Self::CertificateRotation { works: true }
            | Self::Trust { critical: false, .. }
            | Self::Admin { .. } => Level::Info,
            Self::LinkForgery
            | Self::MonitorDisabled
            | Self::Lockout
            | Self::Trust { critical: true, .. }
            | Self::Store { works: false } => Level::Critical,
            _ => Level::Warning,
        }
    }

    /// Whether a stranger can bring it about as often as they like.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::LoginFail { .. } | Self::SessionOfAnother | Self::AuthzFail { .. } | Self::LinkForgery
        )
    }

    fn full_name(&self) -> Cow<'static, str> {
        let name = self.name().name();
        match self {
            Self::LoginFail { method } => format!("{name}:{method}").into(),
            Self::AuthzFail { action, topic } => format!("{name}:{action}:{}", clipped(topic)).into(),
            Self::Admin { act } => format!("{name}:{act}").into(),
            Self::LinkState(state) => format!("{name}:{}", state.name()).into(),
            Self::Trust { name, .. } => (*name).into(),
            _ => name.into(),
        }
    }
}

/// One event; what does not apply is absent.
#[derive(Debug, Clone, Copy)]
pub struct SecurityEvent<'a> {
    /// What happened.
    pub what: What<'a>,
    /// Who: a user name, a linked cluster, an API key's identifier.
    pub identity: Option<&'a str>,
    /// How they proved it, or tried to.
    pub method: Option<&'a str>,
    /// From where.
    pub source: Option<PeerAddr>,
    /// Client Identifier.
    pub client_id: Option<&'a str>,
    /// Listener.
    pub listener: Option<&'a str>,
    /// The rest, for people.
    pub description: &'a str,
}

impl<'a> SecurityEvent<'a> {
    /// Of this and no more.
    #[must_use]
    pub fn new(what: What<'a>, description: &'a str) -> Self {
        Self {
            what,
            identity: None,
            method: None,
            source: None,
            client_id: None,
            listener: None,
            description,
        }
    }

    /// As one line of JSON. `suppressed` refusals of the same source were left out before it.
    #[must_use]
    pub fn line(&self, unix_ms: u64, suppressed: u64) -> String {
        let mut line = String::new();
        self.write(&mut line, unix_ms, suppressed);
        line
    }

    /// The same instead of what is in `line`, whose memory it takes. Every login writes one: by hand, as most of it is
    /// the same in all of them.
    pub fn write(&self, line: &mut String, unix_ms: u64, suppressed: u64) {
        line.clear();
        line.reserve(USUAL_BYTES);
        // Writing to a string does not fail.
        let _ = write!(line, "{{\"time\":\"{}\"", Rfc3339(unix_ms));
        put(line, "type", kind(self.what.name()));
        put(line, "level", self.what.level().name());
        put(line, "event", &self.what.full_name());
        for (key, text) in [("identity", self.identity.map(clipped)), ("method", self.method.map(Cow::from))]
        {
            text.iter().for_each(|text| put(line, key, text));
        }
        if let Some(source) = self.source {
            let _ = write!(line, ",\"source\":\"{source}\"");
        }
        for (key, text) in
            [("clientid", self.client_id.map(clipped)), ("listener", self.listener.map(Cow::from))]
        {
            text.iter().for_each(|text| put(line, key, text));
        }
        if suppressed > 0 {
            let _ = write!(line, ",\"suppressed\":{suppressed}");
        }
        if !self.description.is_empty() {
            put(line, "description", &clipped(self.description));
        }
        line.push_str("}\n");
        // Lines are kept, and the longest of strangers are many.
        line.shrink_to(USUAL_BYTES);
    }
}

/// One more field of a line.
fn put(line: &mut String, key: &str, text: &str) {
    for part in [",\"", key, "\":\""] {
        line.push_str(part);
    }
    // All bytes are looked at, so that it takes a few instructions for sixteen of them.
    let is_plain = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\';
    if text.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
        line.push_str(text);
    } else {
        // A string: there is nothing that could not be written.
        let quoted = harmless(serde_json::to_string(text).unwrap_or_default());
        line.push_str(quoted.strip_prefix('"').and_then(|it| it.strip_suffix('"')).unwrap_or_default());
    }
    line.push('"');
}

/// The type of the events of this name.
#[must_use]
pub fn kind(name: Name) -> &'static str {
    if name == Name::LinkState { LINK } else { SECURITY }
}

/// As much of a text as is written: a stranger who sends the longest names there are must not push others' events out.
fn clipped(text: &str) -> Cow<'_, str> {
    if text.len() <= TEXT_CHARS_MAX {
        return text.into();
    }
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        None => text.into(),
        Some((end, _)) => format!("{}…", &text[..end]).into(),
    }
}

/// JSON leaves DEL, C1 controls, line separators and marks of direction as they are; a terminal or a viewer does not. In
/// JSON they can stand in strings only, where an escape means the same.
fn harmless(json: String) -> String {
    if json.bytes().all(|byte| byte < 0x7f) || !json.contains(is_harmful) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if is_harmful(character) {
            // All of them are in the Basic Multilingual Plane. Writing to a string does not fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(character));
        } else {
            escaped.push(character);
        }
    }
    escaped
}

fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{061c}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line_of_one_schema() {
        let event = SecurityEvent {
            identity: Some("ada"),
            source: Some(PeerAddr::Ip("10.0.0.7:4711".parse().unwrap())),
            client_id: Some("sensor-1"),
            listener: Some("ssl:field"),
            ..SecurityEvent::new(What::LoginFail { method: "password" }, "bad_credentials")
        };
        assert_eq!(
            event.line(0, 3),
            "{\"time\":\"1970-01-01T00:00:00.000Z\",\"type\":\"security\",\"level\":\"warning\",\
             \"event\":\"authn_login_fail:password\",\"identity\":\"ada\",\"source\":\"10.0.0.7:4711\",\
             \"clientid\":\"sensor-1\",\"listener\":\"ssl:field\",\"suppressed\":3,\
             \"description\":\"bad_credentials\"}\n"
        );
    }

    #[test]
    fn every_character_is_read_as_it_was() {
        for character in (0..=0xffff).filter_map(char::from_u32) {
            let text = format!("a{character}b");
            let event = SecurityEvent { client_id: Some(&text), ..SecurityEvent::new(What::Startup, &text) };
            let line = event.line(0, 0);
            let read: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!(
                (read["clientid"].as_str(), read["description"].as_str()),
                (Some(&*text), Some(&*text))
            );
            assert!(line.trim_end().chars().all(|written| !is_harmful(written)), "{text:?}");
        }
    }

    #[test]
    fn long_texts_are_cut() {
        let long = "é".repeat(30_000);
        let what = What::AuthzFail { action: "publish", topic: &long };
        let event = SecurityEvent {
            identity: Some(&long),
            client_id: Some(&long),
            ..SecurityEvent::new(what, &long)
        };
        let line = event.line(0, 0);
        assert!(line.len() < 4 * (TEXT_CHARS_MAX + 100) * 2, "{}", line.len());
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["clientid"].as_str().unwrap().chars().count(), TEXT_CHARS_MAX + 1);
    }

    #[test]
    fn what_a_client_chose_can_neither_break_a_line_nor_turn_it_round() {
        let topic = "a\nb\u{7f}\u{9b}\u{202e}\u{2028}\u{feff}é\"";
        let line = SecurityEvent::new(What::AuthzFail { action: "publish", topic }, "").line(0, 0);
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.contains(r#""authz_fail:publish:a\nb\u007f\u009b\u202e\u2028\ufeffé\"""#), "{line}");
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["event"], format!("authz_fail:publish:{topic}"));
    }
}
