//! The routes about trust between clusters (`trust.md` 2.2).

use super::super::trust;
use super::super::trust::groups;
use super::super::trust::identities;
use super::Action;
use super::FOUND;
use super::GET;
use super::Method;
use super::Needs;
use super::PAGING;
use super::Route;
use crate::trust::group::Entitlement;

/// A change of one that may not be there.
const CHANGED: &[(u16, &str)] = &[
    (200, "What there is now"),
    (400, "It cannot be"),
    (404, "There is none"),
    (409, "It is not as it would have to be"),
    (503, "The broker is stopping"),
];
const MADE: &[(u16, &str)] = &[
    (201, "What was made"),
    (400, "It cannot be"),
    (404, "A group that it names is not there"),
    (409, "There is one, or another stands against it"),
    (503, "The broker is stopping"),
];
const REMOVED: &[(u16, &str)] = &[
    (204, "Done"),
    (404, "There is none"),
    (409, "It is not as it would have to be"),
    (503, "The broker is stopping"),
];

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/api/v5/trust/tokens",
        needs: Needs::Server(Entitlement::CanCreateIdentities),
        about: "Tokens that are out, or were; never a secret",
        query: &[PAGING],
        action: Action::Now(trust::tokens),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/trust/tokens",
        needs: Needs::Judged(trust::lacking_to_issue),
        act: Some("token_create"),
        about: "Issues a token for a peer cluster: the only time that it is shown",
        body: Some("TokenOrder"),
        answers: MADE,
        action: Action::Trust(trust::issue, trust::created),
        ..GET
    },
    Route {
        method: Method::Delete,
        path: "/api/v5/trust/tokens/{id}",
        needs: Needs::Server(Entitlement::CanCreateIdentities),
        act: Some("token_revoke"),
        about: "Takes a token back, with the identity that waits for it",
        answers: REMOVED,
        action: Action::Trust(trust::revoke_token, trust::done),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/trust/join",
        needs: Needs::Judged(trust::lacking_to_join),
        act: Some("link_join"),
        about: "Takes a token to the cluster that issued it, and makes the link with it",
        body: Some("JoinOrder"),
        answers: &[
            (201, "The link"),
            (400, "The token is none, is this cluster's own, or is for another"),
            (404, "A group that it names is not there"),
            (409, "TOKEN_OVER: it is expired or used; CONFLICT: there is such a link"),
            (502, "PEER_REFUSED, FINGERPRINT_MISMATCH, or PEER_UNREACHABLE"),
            (503, "The broker is stopping"),
        ],
        action: Action::Join(trust::join, trust::created),
        ..GET
    },
    Route {
        path: "/api/v5/trust/identities",
        needs: Needs::Nothing,
        about: "Identities of peers and operators, and the peers that the configuration knows",
        query: &[PAGING, identities::FILTERS],
        action: Action::Now(identities::list),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/trust/identities",
        needs: Needs::Judged(identities::lacking_to_create),
        act: Some("identity_create"),
        about: "Makes an identity of a certificate that was brought along, without a token",
        body: Some("NewIdentity"),
        answers: MADE,
        action: Action::Trust(identities::create, trust::created),
        ..GET
    },
    Route {
        path: "/api/v5/trust/identities/{type}/{name}",
        needs: Needs::Judged(identities::lacking_to_show),
        about: "One identity, with its effective rights: type link or admin, or tls for either",
        answers: FOUND,
        action: Action::Now(identities::show),
        ..GET
    },
    Route {
        method: Method::Put,
        path: "/api/v5/trust/identities/{type}/{name}",
        needs: Needs::Server(Entitlement::PermissionManager),
        act: Some("identity_edit"),
        about: "Says what an identity is for, and puts it into these groups and no others",
        body: Some("IdentityChange"),
        answers: CHANGED,
        action: Action::Trust(identities::update, trust::changed),
        ..GET
    },
    Route {
        method: Method::Delete,
        path: "/api/v5/trust/identities/{type}/{name}",
        needs: Needs::Judged(identities::lacking_to_remove),
        act: Some("identity_delete"),
        about: "Deletes an identity, its tokens and pins, and the link that it made",
        answers: REMOVED,
        action: Action::Trust(identities::delete, trust::done),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/trust/identities/{type}/{name}/approve",
        needs: Needs::Server(Entitlement::CanCreateIdentities),
        act: Some("identity_approve"),
        about: "Approves a peer that has come with a token",
        answers: CHANGED,
        action: Action::Trust(identities::approve, trust::changed),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/trust/identities/{type}/{name}/revoke",
        needs: Needs::Judged(identities::lacking_to_remove),
        act: Some("identity_revoke"),
        about: "Trusts an identity no more; it stays, so that nobody comes with its certificate",
        answers: CHANGED,
        action: Action::Trust(identities::revoke, trust::changed),
        ..GET
    },
    Route {
        path: "/api/v5/trust/self",
        needs: Needs::Nothing,
        about: "Who asks, and what they may do",
        action: Action::Now(identities::myself),
        ..GET
    },
    Route {
        path: "/api/v5/trust/groups",
        needs: Needs::Server(Entitlement::Viewer),
        about: "Groups with their permissions, and who is in them",
        query: &[PAGING],
        action: Action::Now(groups::list),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/trust/groups",
        needs: Needs::Server(Entitlement::PermissionManager),
        act: Some("group_create"),
        about: "Makes a group without permissions",
        body: Some("NewGroup"),
        answers: MADE,
        action: Action::Trust(groups::create, trust::created),
        ..GET
    },
    Route {
        path: "/api/v5/trust/groups/{name}",
        needs: Needs::Server(Entitlement::Viewer),
        about: "One group",
        answers: FOUND,
        action: Action::Now(groups::show),
        ..GET
    },
    Route {
        method: Method::Put,
        path: "/api/v5/trust/groups/{name}",
        needs: Needs::Server(Entitlement::PermissionManager),
        act: Some("group_edit"),
        about: "Says what a group is for, or gives it another name wherever it is named",
        body: Some("GroupChange"),
        answers: CHANGED,
        action: Action::Trust(groups::update, trust::changed),
        ..GET
    },
    Route {
        method: Method::Delete,
        path: "/api/v5/trust/groups/{name}",
        needs: Needs::Server(Entitlement::PermissionManager),
        act: Some("group_delete"),
        about: "Deletes a group that nobody is in",
        answers: REMOVED,
        action: Action::Trust(groups::delete, trust::done),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/trust/groups/{name}/permissions",
        needs: Needs::Server(Entitlement::PermissionManager),
        act: Some("group_edit"),
        about: "Adds a permission: `ENTITY [NAME] ENTITLEMENT [k=v]`, such as `topic a/# can_import qos=1`",
        body: Some("Permission"),
        answers: CHANGED,
        action: Action::Trust(groups::add, trust::changed),
        ..GET
    },
    Route {
        method: Method::Delete,
        path: "/api/v5/trust/groups/{name}/permissions",
        needs: Needs::Server(Entitlement::PermissionManager),
        act: Some("group_edit"),
        about: "Takes a permission away, whatever its options",
        body: Some("Permission"),
        answers: CHANGED,
        action: Action::Trust(groups::remove, trust::changed),
        ..GET
    },
    Route {
        path: "/api/v5/trust/permissions",
        needs: Needs::Server(Entitlement::Viewer),
        about: "What can be permitted on what, and which groups permit it",
        query: &[PAGING],
        action: Action::Now(groups::all),
        ..GET
    },
    Route {
        path: "/api/v5/trust/certificate",
        needs: Needs::Server(Entitlement::Viewer),
        about: "The link certificate of this cluster, and the next one during a rotation; never a key",
        answers: FOUND,
        action: Action::Now(trust::certificate),
        ..GET
    },
    Route {
        method: Method::Put,
        path: "/api/v5/trust/certificate",
        act: Some("certificate_import"),
        about: "Shows another link certificate from now on; the answer names the peers that must be told",
        body: Some("CertificatePair"),
        answers: &[
            (200, "The certificate"),
            (400, "It is not good enough, or not within its dates"),
            (409, "It is a peer's, or a rotation is under way"),
            (500, "It cannot be stored"),
            (503, "The broker is stopping"),
        ],
        action: Action::Certificate(trust::import, trust::changed),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/trust/certificate/rotate",
        needs: Needs::Judged(trust::lacking_to_rotate),
        act: Some("certificate_rotate"),
        about: "Makes the next link certificate and tells every peer; both are good for the overlap",
        body: Some("Rotation"),
        answers: &[
            (200, "Who has heard of it, and who has not"),
            (400, "The overlap cannot be"),
            (409, "The next certificate cannot be made or put in force"),
            (503, "The broker is stopping"),
        ],
        action: Action::Rotate(trust::rotate, trust::changed),
        ..GET
    },
    Route {
        path: "/api/v5/trust/pins",
        needs: Needs::Server(Entitlement::Viewer),
        about: "Certificates of peers' servers that were pinned by hand",
        query: &[PAGING],
        action: Action::Now(trust::pins),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/trust/pins",
        act: Some("link_trust"),
        about: "Trusts the servers that show a certificate, and makes the link to them",
        body: Some("Pin"),
        answers: &[
            (201, "The pin"),
            (400, "It cannot be"),
            (409, "It is the certificate of another"),
            (502, "FINGERPRINT_MISMATCH: another one is known, which `replace` replaces"),
            (503, "The broker is stopping"),
        ],
        action: Action::Trust(trust::pin, trust::created),
        ..GET
    },
    Route {
        method: Method::Delete,
        path: "/api/v5/trust/pins/{name}",
        act: Some("link_distrust"),
        about: "Takes a pin back",
        answers: REMOVED,
        action: Action::Trust(trust::unpin, trust::done),
        ..GET
    },
];
