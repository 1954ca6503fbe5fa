//! Groups and what they permit (`trust.md` 2.5). A permission is an entitlement on an entity; identities get permissions from
//! their groups and in no other way.

use std::fmt;

use serde::Deserialize;
use serde::Serialize;

use crate::mqtt::topic;
use crate::trust::name::clipped;
use crate::trust::name::is_cluster_name;

pub use self::entitlement::ENTITLEMENTS;
pub use self::entitlement::Entitlement;
pub use self::entitlement::EntityKind;

mod entitlement;

/// The group that an identity is in unless it is said otherwise: [`Entitlement::Peer`] on its own link.
pub const LINK_PEER: &str = "link-peer";
/// Permissions of one group.
pub const PERMISSIONS_MAX: usize = 1_000;
/// The longest Topic Filter of a permission, in bytes.
pub const FILTER_BYTES_MAX: usize = 1_024;
/// The link of the identity itself, as a name: no cluster is called so.
const OWN: &str = "@self";

/// A group.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// What an operator says of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What it permits: at most [`PERMISSIONS_MAX`], none twice.
    #[serde(default)]
    pub permissions: Vec<Permission>,
}

impl Group {
    /// What is built in under [`LINK_PEER`].
    #[must_use]
    pub fn link_peer() -> Self {
        let permission =
            Permission { entity: Entity::OwnLink, entitlement: Entitlement::Peer, qos_max: None };
        Self {
            description: "what a linked cluster needs, and no topic".to_owned(),
            permissions: vec![permission],
        }
    }
}

/// What an entitlement is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entity {
    /// The broker.
    Server,
    /// The link with the cluster of this name.
    Link(String),
    /// The link of whichever identity is in the group.
    OwnLink,
    /// The topics that this Topic Filter matches.
    Topic(String),
}

impl Entity {
    /// Its type.
    #[must_use]
    pub fn kind(&self) -> EntityKind {
        match self {
            Self::Server => EntityKind::Server,
            Self::Link(_) | Self::OwnLink => EntityKind::Link,
            Self::Topic(_) => EntityKind::Topic,
        }
    }

    /// Its name, which the server does not have.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Server => None,
            Self::OwnLink => Some(OWN),
            Self::Link(name) | Self::Topic(name) => Some(name),
        }
    }

    /// Its place in the API: `/v1/links/B`, `/v1/topics/<filter>`.
    #[must_use]
    pub fn url(&self) -> String {
        match self {
            Self::Server => "/v1".to_owned(),
            Self::OwnLink => format!("/v1/links/{OWN}"),
            Self::Link(name) => format!("/v1/links/{name}"),
            Self::Topic(filter) => format!("/v1/topics/{filter}"),
        }
    }
}

/// What is permitted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Permission {
    /// On what.
    pub entity: Entity,
    /// To do what.
    pub entitlement: Entitlement,
    /// Of topics: up to which QoS; 2 unless it is said.
    pub qos_max: Option<u8>,
}

/// Why something is no permission or no group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PermissionError {
    /// No such type.
    #[error("{0:?} is no entity: server, link NAME or topic FILTER")]
    Entity(String),
    /// Not all that belongs to it.
    #[error("a permission is server ENTITLEMENT, link NAME ENTITLEMENT or topic FILTER ENTITLEMENT")]
    Incomplete,
    /// No name of a cluster.
    #[error("{0:?} is neither a cluster name nor @self")]
    Link(String),
    /// No Topic Filter.
    #[error("{0:?} is not a Topic Filter of at most 1024 bytes")]
    Filter(String),
    /// What the broker says of itself, and what is between brokers.
    #[error("{0:?}: topics that begin with $ do not cross links")]
    Dollar(String),
    /// No such entitlement on such an entity.
    #[error("{entitlement:?} is no entitlement on a {kind}: {known}")]
    Entitlement {
        /// What was written.
        entitlement: String,
        /// The type of the entity.
        kind: EntityKind,
        /// Those that there are.
        known: String,
    },
    /// An option that there is not, or with a value that cannot be.
    #[error("{0:?} is no option here: on topics direction=in or out, qos=0, 1 or 2")]
    Option(String),
    /// An entitlement that goes one way and an option that says the other.
    #[error("{0} and {1} contradict each other")]
    Direction(Entitlement, String),
}

impl Permission {
    /// Reads the words of a command line: `ENTITY [NAME] ENTITLEMENT [k=v]…`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(words: &[impl AsRef<str>]) -> Result<Self, PermissionError> {
        let mut words = words.iter().map(AsRef::as_ref);
        let mut next = || words.next().ok_or(PermissionError::Incomplete);
        let kind = next()?;
        let kind = EntityKind::parse(kind).ok_or_else(|| PermissionError::Entity(clipped(kind)))?;
        let name = if kind == EntityKind::Server { "" } else { next()? };
        let entitlement = next()?;
        let mut permission = Self::new(kind, name, entitlement)?;
        words.try_for_each(|option| permission.set(option))?;
        Ok(permission)
    }

    fn new(kind: EntityKind, name: &str, entitlement: &str) -> Result<Self, PermissionError> {
        let entity = match kind {
            EntityKind::Server => Entity::Server,
            EntityKind::Link if name == OWN => Entity::OwnLink,
            EntityKind::Link if is_cluster_name(name) => Entity::Link(name.to_owned()),
            EntityKind::Link => return Err(PermissionError::Link(clipped(name))),
            EntityKind::Topic => Entity::Topic(checked_filter(name)?),
        };
        let entitlement =
            Entitlement::parse(kind, entitlement).ok_or_else(|| PermissionError::Entitlement {
                entitlement: clipped(entitlement),
                kind,
                known: Entitlement::names(kind),
            })?;
        Ok(Self { entity, entitlement, qos_max: None })
    }

    fn set(&mut self, option: &str) -> Result<(), PermissionError> {
        let wrong = || PermissionError::Option(clipped(option));
        if self.entity.kind() != EntityKind::Topic {
            return Err(wrong());
        }
        match option.split_once('=').ok_or_else(wrong)? {
            ("direction", way @ ("in" | "out")) => {
                let own = if self.entitlement == Entitlement::CanImport { "in" } else { "out" };
                if way == own {
                    Ok(())
                } else {
                    Err(PermissionError::Direction(self.entitlement, option.to_owned()))
                }
            }
            ("qos", qos @ ("0" | "1" | "2")) => {
                self.qos_max = qos.parse().ok();
                Ok(())
            }
            _ => Err(wrong()),
        }
    }

    /// Whether both are about the same, whatever their options.
    #[must_use]
    pub fn is_about_the_same(&self, other: &Self) -> bool {
        (&self.entity, self.entitlement) == (&other.entity, other.entitlement)
    }
}

/// As [`Permission::parse`] reads it, with spaces between the words.
impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.entity.kind())?;
        if let Some(name) = self.entity.name() {
            write!(f, "{name} ")?;
        }
        write!(f, "{}", self.entitlement)?;
        self.qos_max.map_or(Ok(()), |qos| write!(f, " qos={qos}"))
    }
}

/// A permission as it is in JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    entity: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    entitlement: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    qos: Option<u8>,
}

impl From<Permission> for Stored {
    fn from(permission: Permission) -> Self {
        Self {
            entity: permission.entity.kind().to_string(),
            name: permission.entity.name().map(str::to_owned),
            entitlement: permission.entitlement.to_string(),
            qos: permission.qos_max,
        }
    }
}

impl TryFrom<Stored> for Permission {
    type Error = PermissionError;

    fn try_from(stored: Stored) -> Result<Self, PermissionError> {
        let qos = stored.qos.map(|qos| format!("qos={qos}"));
        let mut words = vec![stored.entity];
        words.extend(stored.name);
        words.push(stored.entitlement);
        words.extend(qos);
        Self::parse(&words)
    }
}

fn checked_filter(filter: &str) -> Result<String, PermissionError> {
    if filter.starts_with('$') {
        return Err(PermissionError::Dollar(clipped(filter)));
    }
    if filter.len() > FILTER_BYTES_MAX
        || filter.chars().any(char::is_control)
        || topic::check_filter(filter).is_err()
    {
        return Err(PermissionError::Filter(clipped(filter)));
    }
    Ok(filter.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Permission, PermissionError> {
        Permission::parse(&text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>())
    }

    #[test]
    fn every_entitlement_is_read_on_its_entity_and_on_no_other() {
        let names = [(EntityKind::Server, ""), (EntityKind::Link, "B "), (EntityKind::Topic, "a/# ")];
        for (kind, name) in names {
            for (entitled, entitlement, _) in ENTITLEMENTS {
                let text = format!("{kind} {name}{entitlement}");
                let known = ENTITLEMENTS.iter().any(|(k, e, _)| (*k, *e) == (kind, *entitlement));
                assert_eq!(parse(&text).is_ok(), known, "{text}");
                if *entitled == kind {
                    assert_eq!(parse(&text).unwrap().to_string(), text);
                }
            }
        }
    }

    #[test]
    fn what_is_no_permission_is_told_why() {
        use PermissionError as E;
        let entitlement = |text: &str| matches!(parse(text), Err(E::Entitlement { .. }));
        assert_eq!(parse(""), Err(E::Incomplete));
        assert_eq!(parse("server"), Err(E::Incomplete));
        assert_eq!(parse("link B"), Err(E::Incomplete));
        assert_eq!(parse("cluster B peer"), Err(E::Entity("cluster".to_owned())));
        assert_eq!(parse("link B/C peer"), Err(E::Link("B/C".to_owned())));
        assert_eq!(parse("link @all peer"), Err(E::Link("@all".to_owned())));
        assert!(entitlement("link B admin") && entitlement("server peer") && entitlement("topic a can_view"));
        assert_eq!(parse("topic a#  can_import"), Err(E::Filter("a#".to_owned())));
        assert_eq!(parse(&format!("topic {} can_import", "x".repeat(1_025))), Err(E::Filter("x".repeat(64))));
        for filter in ["$SYS/#", "$LINK/#", "$share/g/a", "$"] {
            for way in ["can_import", "can_export"] {
                assert_eq!(parse(&format!("topic {filter} {way}")), Err(E::Dollar(filter.to_owned())));
            }
        }
    }

    #[test]
    fn options_belong_to_topics() {
        let permission = parse("topic a/+ can_import direction=in qos=1").unwrap();
        assert_eq!(permission.qos_max, Some(1));
        assert_eq!(permission.to_string(), "topic a/+ can_import qos=1");
        assert!(parse("topic a can_export direction=out qos=0").is_ok());
        for text in [
            "topic a can_import direction=out",
            "topic a can_export direction=in",
            "topic a can_import qos=3",
            "topic a can_import qos",
            "topic a can_import speed=1",
            "link B peer qos=1",
            "server admin direction=in",
        ] {
            assert!(
                matches!(parse(text), Err(PermissionError::Option(_) | PermissionError::Direction(..))),
                "{text}"
            );
        }
    }

    #[test]
    fn a_filter_may_hold_spaces() {
        let permission = Permission::parse(&["topic", "my topics/#", "can_export"]).unwrap();
        assert_eq!(permission.entity.url(), "/v1/topics/my topics/#");
        let json = serde_json::to_string(&permission).unwrap();
        assert_eq!(json, r#"{"entity":"topic","name":"my topics/#","entitlement":"can_export"}"#);
        assert_eq!(serde_json::from_str::<Permission>(&json).unwrap(), permission);
    }

    #[test]
    fn a_stored_permission_is_checked_as_a_written_one() {
        let json = serde_json::to_string(&Group::link_peer()).unwrap();
        assert_eq!(serde_json::from_str::<Group>(&json).unwrap(), Group::link_peer());
        for json in [
            r#"{"entity":"topic","name":"$SYS/#","entitlement":"can_import"}"#,
            r#"{"entity":"topic","name":"a","entitlement":"can_import","qos":7}"#,
            r#"{"entity":"server","name":"x","entitlement":"admin"}"#,
            r#"{"entity":"link","entitlement":"peer"}"#,
            r#"{"entity":"link","name":"B","entitlement":"peer","more":1}"#,
        ] {
            assert!(serde_json::from_str::<Permission>(json).is_err(), "{json}");
        }
    }
}
