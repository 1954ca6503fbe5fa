//! Every route there is.

use super::Access;
use super::Action;
use super::Method;
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

mod trust;

/// What a route has unless it says otherwise.
const GET: Route = Route {
    method: Method::Get,
    path: "",
    access: Access::Key,
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
        access: Access::Open,
        about: "Whether the process answers",
        action: Action::Now(pages::live),
        ..GET
    },
    Route {
        path: "/health/ready",
        access: Access::Open,
        about: "Whether the broker serves clients, with reasons if not",
        answers: &[(200, "It does"), (503, "It does not")],
        action: Action::Now(pages::ready),
        ..GET
    },
    Route {
        path: "/status",
        access: Access::Open,
        about: "Node and broker",
        query: &[pages::FORMAT],
        answers: &[(200, "Running"), (503, "Not running")],
        action: Action::Now(pages::status),
        ..GET
    },
    Route {
        path: "/metrics",
        access: Access::Metrics,
        about: "Every series as Prometheus text",
        action: Action::Now(pages::metrics),
        ..GET
    },
    Route {
        path: "/metrics/emqx",
        access: Access::Metrics,
        about: "What has a name in EMQX under that name, as Prometheus text; with http.metrics_emqx",
        answers: &[(200, "What was asked for"), (404, "http.metrics_emqx is false")],
        action: Action::Now(statistics::emqx),
        ..GET
    },
    Route { path: "/api-docs.json", about: "This document", action: Action::Now(openapi::show), ..GET },
    Route {
        path: "/api/v5/status",
        access: Access::Open,
        about: "Node and broker",
        query: &[pages::FORMAT],
        answers: &[(200, "Running"), (503, "Not running")],
        action: Action::Now(pages::status),
        ..GET
    },
    Route {
        path: "/api/v5/clients",
        about: "Clients, connected or not",
        query: &[PAGING, clients::CLIENT_FILTERS],
        action: Action::Aside(clients::list),
        ..GET
    },
    Route {
        path: "/api/v5/clients/{clientid}",
        about: "One client",
        answers: FOUND,
        action: Action::Now(clients::show),
        ..GET
    },
    Route {
        method: Method::Delete,
        path: "/api/v5/clients/{clientid}",
        act: Some("client_kick"),
        stores: true,
        about: "Disconnect a client and end its session",
        answers: GONE,
        action: Action::Now(clients::kick),
        ..GET
    },
    Route {
        path: "/api/v5/clients/{clientid}/subscriptions",
        about: "The subscriptions of one client",
        answers: FOUND,
        action: Action::Now(clients::subscriptions_of),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/clients/kickout/bulk",
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
        about: "Subscriptions of all clients",
        query: &[PAGING, clients::SUBSCRIPTION_FILTERS],
        action: Action::Aside(clients::subscriptions),
        ..GET
    },
    Route {
        path: "/api/v5/topics",
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
        about: "Retained messages without their payloads",
        query: &[PAGING, messages::RETAINED_FILTERS],
        action: Action::Aside(messages::list),
        ..GET
    },
    Route {
        path: "/api/v5/mqtt/retainer/message/{topic}",
        about: "One retained message, its payload in Base64",
        answers: FOUND,
        action: Action::Now(messages::show),
        ..GET
    },
    Route {
        method: Method::Delete,
        path: "/api/v5/mqtt/retainer/message/{topic}",
        act: Some("retained_delete"),
        stores: true,
        about: "Delete a retained message",
        answers: GONE,
        action: Action::Now(messages::delete),
        ..GET
    },
    Route {
        path: "/api/v5/banned",
        about: "Bans in force",
        query: &[PAGING, banned::FILTERS],
        action: Action::Aside(banned::list),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/banned",
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
        act: Some("auth_unlock"),
        about: "Let a user try to log in again of whom too many attempts failed",
        answers: GONE,
        action: Action::Now(authentication::unlock),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/acl/check",
        about: "Errors of an ACL file, and what is legal in it but surely not meant",
        body: Some("AclText"),
        action: Action::Aside(acl::check),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/acl/explain",
        about: "Whether a client may do something, and why: a client that is there, or one that is described",
        body: Some("AclQuestion"),
        action: Action::Aside(acl::explain),
        ..GET
    },
    Route {
        path: "/api/v5/acl/generated",
        about: "The rules that follow from the links, which are asked before the ACL file",
        action: Action::Aside(acl::generated),
        ..GET
    },
    Route {
        path: "/api/v5/acl/export",
        about: "For an EMQX broker at the other end of each link: the rules that let this cluster in there",
        action: Action::Aside(acl::export),
        ..GET
    },
    Route {
        path: "/api/v5/acl/matrix",
        about: "Who may do what under `$LINK/`",
        action: Action::Aside(acl::matrix),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/acl/reload",
        act: Some("acl_reload"),
        about: "Read the ACL file again: its rules take effect, or those in force stay",
        answers: &[(200, "What changed"), (400, "Why nothing did"), (409, "Another reload came in between")],
        action: Action::Aside(acl::reload),
        ..GET
    },
    Route {
        path: "/api/v5/acl/shadow",
        about: "Which verdicts the rules on trial would change",
        answers: FOUND,
        action: Action::Aside(acl::shadow),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/acl/shadow",
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
        act: Some("acl_shadow_drop"),
        about: "End the trial",
        answers: &[(204, "Done"), (404, "There is none"), (409, "A reload came in between")],
        action: Action::Aside(acl::drop_shadow),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/acl/shadow/apply",
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
        about: "How much there is of what",
        query: &[statistics::AGGREGATE],
        action: Action::Aside(statistics::stats),
        ..GET
    },
    Route {
        path: "/api/v5/metrics",
        about: "What was counted since the start",
        query: &[statistics::AGGREGATE],
        action: Action::Now(statistics::metrics),
        ..GET
    },
    Route {
        path: "/api/v5/cluster/links",
        about: "Links: how they are configured, and how they are",
        action: Action::Now(links::list),
        ..GET
    },
    Route {
        path: "/api/v5/cluster/links/link/{name}",
        about: "One link",
        answers: FOUND,
        action: Action::Now(links::show),
        ..GET
    },
    Route {
        method: Method::Post,
        path: "/api/v5/cluster/links",
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
        act: Some("link_delete"),
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
        about: "What was forwarded over it",
        answers: FOUND,
        action: Action::Now(links::metrics),
        ..GET
    },
    Route {
        method: Method::Put,
        path: "/api/v5/cluster/links/link/{name}/metrics/reset",
        act: Some("link_metrics_reset"),
        about: "Has what `metrics` shows begin at zero again; the series of `/metrics` go on",
        answers: GONE,
        action: Action::Now(links::reset_metrics),
        ..GET
    },
    Route {
        path: "/api/v5/cluster/links/link/{name}/routes",
        about: "Routes: what the peer wants of us, or we of it",
        query: &[links::ROUTE_FILTERS, PAGING],
        answers: FOUND,
        action: Action::Aside(links::routes),
        ..GET
    },
    Route {
        path: "/api/v5/cluster/links/link/{name}/spool",
        about: "What waits for the peer, lane by lane",
        answers: FOUND,
        action: Action::Now(links::spool),
        ..GET
    },
    Route {
        path: "/api/v5/cluster/links/link/{name}/ledger",
        about: "Where every message for the peer went",
        answers: FOUND,
        action: Action::Now(links::ledger),
        ..GET
    },
    Route {
        path: "/api/v5/cluster/links/link/{name}/explain",
        about: "Why a topic does or does not cross the link, either way",
        query: &[links::EXPLAIN],
        answers: FOUND,
        action: Action::Aside(links::explain),
        ..GET
    },
    Route {
        path: "/api/v5/events",
        about: "Events that are remembered, oldest first: logins, refusals, reloads, what administrators did, what links became",
        query: &[events::EVENT_FILTERS, PAGING],
        action: Action::Aside(events::list),
        ..GET
    },
    Route {
        path: "/api/v5/events/stream",
        about: "The same and all that follow, one JSON object per line; empty lines say that nothing happened",
        query: &[events::EVENT_FILTERS],
        answers: &[(200, "Events, until either side closes"), (503, "As many read them as there may be")],
        action: Action::Follow(events::follow),
        ..GET
    },
    Route {
        path: "/api/v5/trace/stream",
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
