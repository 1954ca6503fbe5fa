//! What can be permitted on what, and what implies what (`trust.md` 2.5).

use std::fmt;

/// The type of an entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntityKind {
    /// The broker.
    Server,
    /// A link.
    Link,
    /// Topics.
    Topic,
}

impl EntityKind {
    /// Reads its name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Server, Self::Link, Self::Topic].into_iter().find(|kind| kind.to_string() == text)
    }
}

impl fmt::Display for EntityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Link => "link",
            Self::Topic => "topic",
        })
    }
}

/// What is permitted. Which of them there are on which entity is in [`ENTITLEMENTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Entitlement {
    /// Everything.
    Admin,
    /// To see.
    Viewer,
    /// To manage links and rules, not identities, tokens or certificates.
    Operator,
    /// To make links.
    CanCreateLinks,
    /// To make identities, and tokens for them.
    CanCreateIdentities,
    /// To change groups, and who is in them; nobody grants more than they have.
    PermissionManager,
    /// To read the security log.
    CanViewEvents,
    /// To see a link.
    CanView,
    /// To change a link.
    CanEdit,
    /// To delete a link.
    CanDelete,
    /// To begin a rotation of the certificate for a link.
    CanRotate,
    /// To issue a token for the peer of a link.
    CanIssueToken,
    /// To forward messages.
    CanForward,
    /// To tell what is wanted, and be answered.
    CanSyncRoutes,
    /// Both.
    Peer,
    /// Forwarded messages on these topics are accepted.
    CanImport,
    /// Messages on these topics may be asked for.
    CanExport,
}

use Entitlement as E;
use EntityKind as K;

/// Every entitlement with the type of its entity and what it is for.
pub const ENTITLEMENTS: &[(EntityKind, Entitlement, &str)] = &[
    (K::Server, E::Admin, "everything"),
    (K::Server, E::Viewer, "see every link"),
    (K::Server, E::Operator, "manage every link and the rules; no identities, tokens or certificates"),
    (K::Server, E::CanCreateLinks, "make links"),
    (K::Server, E::CanCreateIdentities, "make identities and tokens"),
    (K::Server, E::PermissionManager, "change groups and who is in them, granting no more than one has"),
    (K::Server, E::CanViewEvents, "read the security log"),
    (K::Link, E::Viewer, "see the link"),
    (K::Link, E::Operator, "see, change and delete the link"),
    (K::Link, E::CanView, "see the link"),
    (K::Link, E::CanEdit, "change the link"),
    (K::Link, E::CanDelete, "delete the link"),
    (K::Link, E::CanRotate, "begin a rotation of the certificate for the link"),
    (K::Link, E::CanIssueToken, "issue a token for the peer"),
    (K::Link, E::CanForward, "the peer forwards messages"),
    (K::Link, E::CanSyncRoutes, "the peer tells what it wants"),
    (K::Link, E::Peer, "both of a peer's entitlements"),
    (K::Topic, E::CanImport, "forwarded messages on these topics are accepted"),
    (K::Topic, E::CanExport, "the peer may ask for messages on these topics"),
];

impl Entitlement {
    /// The name of it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::CanCreateLinks => "can_create_links",
            Self::CanCreateIdentities => "can_create_identities",
            Self::PermissionManager => "permission_manager",
            Self::CanViewEvents => "can_view_events",
            Self::CanView => "can_view",
            Self::CanEdit => "can_edit",
            Self::CanDelete => "can_delete",
            Self::CanRotate => "can_rotate",
            Self::CanIssueToken => "can_issue_token",
            Self::CanForward => "can_forward",
            Self::CanSyncRoutes => "can_sync_routes",
            Self::Peer => "peer",
            Self::CanImport => "can_import",
            Self::CanExport => "can_export",
        }
    }

    /// Reads one on an entity of this type.
    #[must_use]
    pub fn parse(kind: EntityKind, text: &str) -> Option<Self> {
        Self::of(kind).find(|entitlement| entitlement.name() == text)
    }

    /// Those on an entity of this type.
    pub fn of(kind: EntityKind) -> impl Iterator<Item = Self> {
        ENTITLEMENTS.iter().filter(move |(on, _, _)| *on == kind).map(|(_, entitlement, _)| *entitlement)
    }

    /// Their names, for messages.
    #[must_use]
    pub fn names(kind: EntityKind) -> String {
        Self::of(kind).map(Self::name).collect::<Vec<_>>().join(", ")
    }

    /// Whether who has this on the server has `wanted` there.
    #[must_use]
    pub fn implies_on_server(self, wanted: Self) -> bool {
        self == wanted
            || match self {
                Self::Admin => true,
                Self::Operator => matches!(wanted, Self::Viewer | Self::CanCreateLinks),
                _ => false,
            }
    }

    /// Whether who has this on the server has `wanted` on every link.
    #[must_use]
    pub fn implies_on_links(self, wanted: Self) -> bool {
        match self {
            Self::Admin => !wanted.is_of_peers(),
            Self::Operator => Self::Operator.implies_on_link(wanted),
            Self::Viewer => Self::Viewer.implies_on_link(wanted),
            _ => false,
        }
    }

    /// Whether who has this on a link has `wanted` there.
    #[must_use]
    pub fn implies_on_link(self, wanted: Self) -> bool {
        self == wanted
            || match self {
                Self::Operator => {
                    matches!(wanted, Self::Viewer | Self::CanView | Self::CanEdit | Self::CanDelete)
                }
                Self::Viewer | Self::CanEdit | Self::CanDelete | Self::CanRotate | Self::CanIssueToken => {
                    wanted == Self::CanView
                }
                Self::Peer => matches!(wanted, Self::CanForward | Self::CanSyncRoutes),
                _ => false,
            }
    }

    /// Whether it is for peer clusters, and gives an operator nothing; all others give a peer nothing.
    #[must_use]
    pub fn is_of_peers(self) -> bool {
        matches!(
            self,
            Self::CanForward | Self::CanSyncRoutes | Self::Peer | Self::CanImport | Self::CanExport
        )
    }
}

impl fmt::Display for Entitlement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_implies_what() {
        for (kind, entitlement, _) in ENTITLEMENTS {
            let (admin, peers) = (E::Admin, entitlement.is_of_peers());
            match kind {
                K::Server => assert!(admin.implies_on_server(*entitlement)),
                K::Link => assert_eq!(admin.implies_on_links(*entitlement), !peers, "{entitlement}"),
                K::Topic => assert!(peers),
            }
            assert!(entitlement.implies_on_link(*entitlement) && entitlement.implies_on_server(*entitlement));
        }
        for wanted in [E::CanCreateIdentities, E::PermissionManager, E::Admin, E::CanViewEvents] {
            assert!(!E::Operator.implies_on_server(wanted), "{wanted}");
        }
        for wanted in [E::CanRotate, E::CanIssueToken, E::Peer, E::CanForward] {
            assert!(
                !E::Operator.implies_on_links(wanted) && !E::Operator.implies_on_link(wanted),
                "{wanted}"
            );
        }
        assert!(E::Operator.implies_on_links(E::CanEdit) && E::Operator.implies_on_server(E::Viewer));
        assert!(E::Viewer.implies_on_links(E::CanView) && !E::Viewer.implies_on_links(E::CanEdit));
        assert!(E::CanEdit.implies_on_link(E::CanView) && !E::CanView.implies_on_link(E::CanEdit));
        assert!(E::Peer.implies_on_link(E::CanForward) && E::Peer.implies_on_link(E::CanSyncRoutes));
        assert!(!E::PermissionManager.implies_on_links(E::CanView));
    }

    #[test]
    fn none_is_listed_twice() {
        let mut all: Vec<_> =
            ENTITLEMENTS.iter().map(|(kind, entitlement, _)| (*kind, *entitlement)).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), ENTITLEMENTS.len());
    }
}
