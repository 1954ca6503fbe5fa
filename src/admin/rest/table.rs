//! Every route there is.

use super::Access;
use super::Action;
use super::Method;
use super::Needs;
use super::PAGING;
use super::Route;
use super::acl;
use super::authentication;
use super::banned;
use super::clients;
use super::events;
use super::links;
use super::messages;
use super::openapi;
use super::pages;
use super::statistics;
use super::trace;
use crate::trust::group::Entitlement;

mod trust;

/// What a route has unless it says otherwise.
const GET: Route = Route {
    method: Method::Get,
    path: "",
    access: Access::Key,
    // Whoever adds a route says who else may use it.
    needs: Needs::Server(Entitlement::Admin),
    about: "",
    act: None,
    stores: false,
    query: &[],
    body: None,
    answers: &[(200, "What was asked for")],
    action: Action::Reload,
};

const FOUND: &[(u16, &str)] = &[(200, "What was asked for"), (404, "There is none")];
const GONE: &[(u16, &str)] = &[(204, "Done"), (404, "There is none")];

/// The routes, in the order of the OpenAPI document.
pub(in crate::admin) fn routes() -> impl Iterator<Item = &'static Route> {
    ROUTES.iter().chain(trust::ROUTES)
}

const ROUTES: &[Route] = &[
    Route {
        path: "/health/live",
        needs: Needs::Nothing,
        access: Access::Open,
        about: "Whether the process answers",
        action: Action::Now(pages::live),
        ..GET
    },
    Route {
        path: "/health/ready",
        needs: Needs::Nothing,
        access: Access::Open,
        about: "Whether the broker serves clients, with reasons if not",
        answers: &[(200, "It does"), (503, "It does not")],
        action: Action::Now(pages::ready),
        ..GET
    },
    Route {
        path: "/status",
        needs: Needs::Nothing,
        access: Access::Open,
        about: "Node and broker",
        query: &[pages::FORMAT],
        answers: &[(200, "Running"), (503, "Not running")],
        action: Action::Now(pages::status),
        ..GET
    },
    Route {
        path: "/metrics",
        needs: Needs::Server(Entitlement::Viewer),
        access: Access::Metrics,
        about: "Every series as Prometheus text",
        action: Action::Now(pages::metrics),
        ..GET
    },
    Route {
        path: "/metrics/emqx",
        needs: Needs::Server(Entitlement::Viewer),
        access: Access::Metrics,
        about: "What has a name in EMQX under that name, as Prometheus text; with http.metrics_emqx",
        answers: &[(200, "What was asked for"), (404, "http.metrics_emqx is false")],
        action: Action::Now(statistics::emqx),
        ..GET
    },
    Route {
        path: "/api-docs.json",
        needs: Needs::Nothing,
        about: "This document",
        action: Action::Now(openapi::show),
        ..GET
    },
    Route {
        path: "/api/v5/status",
        needs: Needs::Nothing,
        access: Access::Open,
        about: "Node and broker",
        query: &[pages::FORMAT],
        answers: &[(200, "Running"), (503, "Not running")],
        action: Action::Now(pages::status),
        ..GET
    },
    Route {
        path: "/api/v5/clients",
        needs: Needs::Server(Entitlement::Viewer),
        about: "Clients, connected or not",
        query: &[PAGING, clients::CLIENT_FILTERS],
        action: Action::Aside(clients::list),
        ..GET
    },
    Route {
        path: "/api/v5/clients/{clientid}",
        needs: Needs::Server(Entitlement::Viewer),
        about: "One client",
        answers: FOUND,
        action: Action::Now(clients::show),
        ..GET
    },
    Route {
        method: Method::Delete,
        path: "/api/v5/clients/{clientid}",
        needs: Needs::Server(Entitlement::Operator),
        act: Some("client_kick"),
        stores: true,
        about: "Disconnect a client and end its session",
        answers: GONE,
        action: Action::Now(clients::kick),
        ..GET
    },
    Route {
        path: "/api/v5/clients/{clientid}/subscriptions",
        needs: Needs::Server(Entitlement::Viewer),
        about: "The subscriptions of one client",
        answers: FOUND,
        action: Action::Now(clients::subscriptions_of),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/clients/kickout/bulk",
        needs: Needs::Server(Entitlement::Operator),
        act: Some("client_kick"),
        stores: true,
        about: "Disconnect clients and end their sessions",
        body: Some("ClientIds"),
        answers: &[(204, "Done")],
        action: Action::Now(clients::kick_all),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/clients/{clientid}/subscribe",
        needs: Needs::Server(Entitlement::Operator),
        act: Some("client_subscribe"),
        stores: true,
        about: "Subscribe a client; the ACL is not asked, `$LINK/` is refused",
        body: Some("Subscribe"),
        answers: FOUND,
        action: Action::Now(clients::subscribe),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/clients/{clientid}/subscribe/bulk",
        needs: Needs::Server(Entitlement::Operator),
        act: Some("client_subscribe"),
        stores: true,
        about: "Subscribe a client to several filters, up to the first that is refused",
        body: Some("Subscribes"),
        answers: FOUND,
        action: Action::Now(clients::subscribe_all),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/clients/{clientid}/unsubscribe",
        needs: Needs::Server(Entitlement::Operator),
        act: Some("client_unsubscribe"),
        stores: true,
        about: "End a subscription of a client",
        body: Some("Unsubscribe"),
        answers: GONE,
        action: Action::Now(clients::unsubscribe),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/clients/{clientid}/unsubscribe/bulk",
        needs: Needs::Server(Entitlement::Operator),
        act: Some("client_unsubscribe"),
        stores: true,
        about: "End several subscriptions of a client",
        body: Some("Unsubscribes"),
        answers: GONE,
        action: Action::Now(clients::unsubscribe_all),
        ..GET
    },
    Route {
        path: "/api/v5/subscriptions",
        needs: Needs::Server(Entitlement::Viewer),
        about: "Subscriptions of all clients",
        query: &[PAGING, clients::SUBSCRIPTION_FILTERS],
        action: Action::Aside(clients::subscriptions),
        ..GET
    },
    Route {
        path: "/api/v5/topics",
        needs: Needs::Server(Entitlement::Viewer),
        about: "The distinct filters that clients subscribe to",
        query: &[PAGING, clients::TOPIC_FILTERS],
        action: Action::Aside(clients::topics),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/publish",
        act: Some("publish"),
        stores: true,
        about: "Publish a message; the ACL is not asked, `$LINK/` and `$SYS` are refused",
        body: Some("Publish"),
        answers: &[
            (200, "Somebody got it"),
            (202, "Nobody subscribes"),
            (503, "It cannot be stored, or a spool is full"),
        ],
        action: Action::Now(messages::publish),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/publish/bulk",
        act: Some("publish"),
        stores: true,
        about: "Publish messages, all or none of which are taken for such",
        body: Some("Publishes"),
        answers: &[
            (200, "Somebody got each"),
            (202, "Nobody subscribes to one of them"),
            (503, "It cannot be stored, or a spool is full"),
        ],
        action: Action::Now(messages::publish_all),
        ..GET
    },
    Route {
        path: "/api/v5/mqtt/retainer/messages",
        needs: Needs::Server(Entitlement::Viewer),
        about: "Retained messages without their payloads",
        query: &[PAGING, messages::RETAINED_FILTERS],
        action: Action::Aside(messages::list),
        ..GET
    },
    Route {
        path: "/api/v5/mqtt/retainer/message/{topic}",
        needs: Needs::Server(Entitlement::Viewer),
        about: "One retained message, its payload in Base64",
        answers: FOUND,
        action: Action::Now(messages::show),
        ..GET
    },
    Route {
        method: Method::Delete,
        path: "/api/v5/mqtt/retainer/message/{topic}",
        needs: Needs::Server(Entitlement::Operator),
        act: Some("retained_delete"),
        stores: true,
        about: "Delete a retained message",
        answers: GONE,
        action: Action::Now(messages::delete),
        ..GET
    },
    Route {
        path: "/api/v5/banned",
        needs: Needs::Server(Entitlement::Viewer),
        about: "Bans in force",
        query: &[PAGING, banned::FILTERS],
        action: Action::Aside(banned::list),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/banned",
        needs: Needs::Server(Entitlement::Operator),
        act: Some("ban_create"),
        stores: true,
        about: "Ban clients and disconnect those who are connected",
        body: Some("Ban"),
        answers: &[(200, "The ban"), (400, "It names nobody, or there is one already")],
        action: Action::Aside(banned::create),
        ..GET
    },
    Route {
        method: Method::Delete,
        path: "/api/v5/banned",
        needs: Needs::Server(Entitlement::Operator),
        act: Some("ban_clear"),
        stores: true,
        about: "Lift all bans",
        answers: &[(204, "Done")],
        action: Action::Now(banned::clear),
        ..GET
    },
    Route {
        method: Method::Delete,
        path: "/api/v5/banned/{as}/{who}",
        needs: Needs::Server(Entitlement::Operator),
        act: Some("ban_delete"),
        stores: true,
        about: "Lift a ban",
        answers: GONE,
        action: Action::Now(banned::delete),
        ..GET
    },
    Route {
        method: Method::Delete,
        path: "/api/v5/authentication/lockouts/{username}",
        needs: Needs::Server(Entitlement::Operator),
        act: Some("auth_unlock"),
        about: "Let a user try to log in again of whom too many attempts failed",
        answers: GONE,
        action: Action::Now(authentication::unlock),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/acl/check",
        needs: Needs::Server(Entitlement::Viewer),
        about: "Errors of an ACL file, and what is legal in it but surely not meant",
        body: Some("AclText"),
        action: Action::Aside(acl::check),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/acl/explain",
        needs: Needs::Server(Entitlement::Viewer),
        about: "Whether a client may do something, and why: a client that is there, or one that is described",
        body: Some("AclQuestion"),
        action: Action::Aside(acl::explain),
        ..GET
    },
    Route {
        path: "/api/v5/acl/generated",
        needs: Needs::Server(Entitlement::Viewer),
        about: "The rules that follow from the links, which are asked before the ACL file",
        action: Action::Aside(acl::generated),
        ..GET
    },
    Route {
        path: "/api/v5/acl/export",
        needs: Needs::Server(Entitlement::Viewer),
        about: "For an EMQX broker at the other end of each link: the rules that let this cluster in there",
        action: Action::Aside(acl::export),
        ..GET
    },
    Route {
        path: "/api/v5/acl/matrix",
        needs: Needs::Server(Entitlement::Viewer),
        about: "Who may do what under `$LINK/`",
        action: Action::Aside(acl::matrix),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/acl/reload",
        needs: Needs::Server(Entitlement::Operator),
        act: Some("acl_reload"),
        about: "Read the ACL file again: its rules take effect, or those in force stay",
        answers: &[(200, "What changed"), (400, "Why nothing did"), (409, "Another reload came in between")],
        action: Action::Aside(acl::reload),
        ..GET
    },
    Route {
        path: "/api/v5/acl/shadow",
        needs: Needs::Server(Entitlement::Viewer),
        about: "Which verdicts the rules on trial would change",
        answers: FOUND,
        action: Action::Aside(acl::shadow),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/acl/shadow",
        needs: Needs::Server(Entitlement::Operator),
        act: Some("acl_shadow_start"),
        about: "Ask other rules beside those in force, and count the verdicts that would change",
        body: Some("AclText"),
        answers: &[
            (200, "They are on trial, with these warnings"),
            (400, "What is wrong with them"),
            (409, "A reload came in between"),
        ],
        action: Action::Aside(acl::start_shadow),
        ..GET
    },
    Route {
        method: Method::Delete,
        path: "/api/v5/acl/shadow",
        needs: Needs::Server(Entitlement::Operator),
        act: Some("acl_shadow_drop"),
        about: "End the trial",
        answers: &[(204, "Done"), (404, "There is none"), (409, "A reload came in between")],
        action: Action::Aside(acl::drop_shadow),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/acl/shadow/apply",
        needs: Needs::Server(Entitlement::Operator),
        act: Some("acl_shadow_apply"),
        about: "Write the rules on trial into the ACL file, and put them in force",
        answers: &[
            (200, "What changed"),
            (400, "Why nothing did"),
            (404, "There is none"),
            (409, "The rules in force are built in, or a reload came in between"),
            (500, "The file could not be written"),
        ],
        action: Action::Aside(acl::apply_shadow),
        ..GET
    },
    Route {
        path: "/api/v5/stats",
        needs: Needs::Server(Entitlement::Viewer),
        about: "How much there is of what",
        query: &[statistics::AGGREGATE],
        action: Action::Aside(statistics::stats),
        ..GET
    },
    Route {
        path: "/api/v5/metrics",
        needs: Needs::Server(Entitlement::Viewer),
        about: "What was counted since the start",
        query: &[statistics::AGGREGATE],
        action: Action::Now(statistics::metrics),
        ..GET
    },
    Route {
        path: "/api/v5/cluster/links",
        needs: Needs::Nothing,
        about: "Links: how they are configured, and how they are",
        action: Action::Now(links::list),
        ..GET
    },
    Route {
        path: "/api/v5/cluster/links/link/{name}",
        needs: Needs::Link(Entitlement::CanView),
        about: "One link",
        answers: FOUND,
        action: Action::Now(links::show),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/cluster/links",
        needs: Needs::Server(Entitlement::CanCreateLinks),
        act: Some("link_create"),
        about: "Makes a link; it is kept in links.toml of the data directory",
        body: Some("Link"),
        answers: &[
            (201, "The link"),
            (400, "There is one of this name, or it is not valid"),
            (409, "This broker has no file for links"),
            (503, "The broker is stopping"),
        ],
        action: Action::Link(links::create, links::created),
        ..GET
    },
    Route {
        method: Method::Put,
        path: "/api/v5/cluster/links/link/{name}",
        needs: Needs::Link(Entitlement::CanEdit),
        act: Some("link_update"),
        about: "Makes this of a link. A secret that is sent as ****** stays",
        body: Some("Link"),
        answers: &[
            (200, "The link"),
            (400, "It is not valid"),
            (404, "There is none"),
            (409, "It is written in the configuration file, which the message names"),
            (503, "The broker is stopping"),
        ],
        action: Action::Link(links::replace, links::show),
        ..GET
    },
    Route {
        method: Method::Delete,
        path: "/api/v5/cluster/links/link/{name}",
        needs: Needs::Link(Entitlement::CanDelete),
        act: Some("link_delete"),
        query: &[links::DELETE],
        about: "Deletes a link; its peer is told first",
        answers: &[
            (204, "Done"),
            (404, "There is none"),
            (409, "It is written in the configuration file, which the message names"),
            (503, "The broker is stopping"),
        ],
        action: Action::Link(links::delete, links::deleted),
        ..GET
    },
    Route {
        path: "/api/v5/cluster/links/link/{name}/metrics",
        needs: Needs::Link(Entitlement::CanView),
        about: "What was forwarded over it",
        answers: FOUND,
        action: Action::Now(links::metrics),
        ..GET
    },
    Route {
        method: Method::Put,
        path: "/api/v5/cluster/links/link/{name}/metrics/reset",
        needs: Needs::Link(Entitlement::CanEdit),
        act: Some("link_metrics_reset"),
        about: "Has what `metrics` shows begin at zero again; the series of `/metrics` go on",
        answers: GONE,
        action: Action::Now(links::reset_metrics),
        ..GET
    },
    Route {
        path: "/api/v5/cluster/links/link/{name}/routes",
        needs: Needs::Link(Entitlement::CanView),
        about: "Routes: what the peer wants of us, or we of it",
        query: &[links::ROUTE_FILTERS, PAGING],
        answers: FOUND,
        action: Action::Aside(links::routes),
        ..GET
    },
    Route {
        path: "/api/v5/cluster/links/link/{name}/spool",
        needs: Needs::Link(Entitlement::CanView),
        about: "What waits for the peer, lane by lane",
        answers: FOUND,
        action: Action::Now(links::spool),
        ..GET
    },
    Route {
        path: "/api/v5/cluster/links/link/{name}/ledger",
        needs: Needs::Link(Entitlement::CanView),
        about: "Where every message for the peer went",
        answers: FOUND,
        action: Action::Now(links::ledger),
        ..GET
    },
    Route {
        path: "/api/v5/cluster/links/link/{name}/explain",
        needs: Needs::Link(Entitlement::CanView),
        about: "Why a topic does or does not cross the link, either way",
        query: &[links::EXPLAIN],
        answers: FOUND,
        action: Action::Aside(links::explain),
        ..GET
    },
    Route {
        path: "/api/v5/events",
        needs: Needs::Server(Entitlement::CanViewEvents),
        about: "Events that are remembered, oldest first: logins, refusals, reloads, what administrators did, what links became",
        query: &[events::EVENT_FILTERS, PAGING],
        action: Action::Aside(events::list),
        ..GET
    },
    Route {
        path: "/api/v5/events/stream",
        needs: Needs::Server(Entitlement::CanViewEvents),
        about: "The same and all that follow, one JSON object per line; empty lines say that nothing happened",
        query: &[events::EVENT_FILTERS],
        answers: &[(200, "Events, until either side closes"), (503, "As many read them as there may be")],
        action: Action::Follow(events::follow),
        ..GET
    },
    Route {
        path: "/api/v5/trace/stream",
        needs: Needs::Server(Entitlement::Operator),
        about: "What happens from now on, one JSON object per line; empty lines say that nothing did",
        query: &[trace::TRACE_FILTERS],
        answers: &[(200, "Events, until either side closes"), (503, "As many traces run as there may be")],
        action: Action::Follow(trace::follow),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/config/reload",
        act: Some("config_reload"),
        about: "Read the configuration again: all of it takes effect, or nothing",
        answers: &[
            (200, "What changed"),
            (400, "Why nothing did"),
            (409, "There is nothing to read again"),
            (503, "It is stopping"),
        ],
        action: Action::Reload,
        ..GET
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::rest::Call;
    use crate::trust::group::Permission;
    use crate::trust::rights::OperatorRights;

    /// The routes that whoever has these permissions may use on the link B, but for those that anybody may who is known.
    fn usable(permissions: &[&str]) -> Vec<String> {
        let read = |text: &&str| Permission::parse(&text.split(' ').collect::<Vec<_>>()).unwrap();
        let permissions: Vec<Permission> = permissions.iter().map(read).collect();
        let rights = OperatorRights::of(&permissions);
        let call = Call { item: "B".to_owned(), rights, ..Call::default() };
        let special = |route: &&Route| !matches!(route.needs, Needs::Nothing | Needs::Judged(_));
        let met = routes().filter(special).filter(|route| route.needs.lacked_by(&call).is_none());
        met.map(|route| format!("{:?} {}", route.method, route.path)).collect()
    }

    #[test]
    fn nobody_may_more_than_is_permitted() {
        assert!(usable(&[]).is_empty() && usable(&["link B peer", "topic # can_import"]).is_empty());
        let changes = |all: &[String]| all.iter().filter(|one| !one.starts_with("Get ")).count();
        let viewer = usable(&["server viewer"]);
        let asking = ["Post /api/v5/acl/check", "Post /api/v5/acl/explain"];
        assert!(viewer.len() > 20 && changes(&viewer) == asking.len(), "{viewer:?}");
        assert!(asking.iter().all(|one| viewer.iter().any(|has| has == one)));
        let of_link = usable(&["link B operator"]);
        assert!(of_link.iter().all(|one| one.contains("/cluster/links/link/{name}")), "{of_link:?}");
        assert_eq!(changes(&of_link), 3, "{of_link:?}");
        assert!(usable(&["link C operator"]).is_empty());
        let operator = usable(&["server operator"]);
        assert!(
            operator.iter().all(|one| one.starts_with("Get ") || !one.contains("/trust/")),
            "{operator:?}"
        );
        for secret in ["config/reload", "/publish", "trust/certificate/rotate", "/events"] {
            assert!(!operator.iter().any(|one| one.contains(secret)), "{secret}: {operator:?}");
        }
        let all = routes().filter(|route| !matches!(route.needs, Needs::Nothing | Needs::Judged(_))).count();
        assert_eq!(usable(&["server admin"]).len(), all);
    }

    /// What changes something is not open to whoever is merely known.
    #[test]
    fn every_change_needs_something() {
        for route in routes().filter(|route| route.act.is_some()) {
            assert!(!matches!(route.needs, Needs::Nothing), "{}", route.path);
            if let Needs::Judged(judge) = route.needs {
                for item in ["link", "admin", "tls"] {
                    let call = Call { item: item.to_owned(), ..Call::default() };
                    assert!(judge(&call).is_some(), "{}", route.path);
                }
            }
        }
    }
}
