//! The REST API (`interface.md` section 3): one table of routes, from which the router and the OpenAPI document are
//! made, so that neither has what the other lacks. Paths and shapes are EMQX's where it has the resource.
//!
//! A handler is a function of the broker and a `Call`. Which parameters it takes, whether it reads a body and who
//! may call it stands in the table and is checked before it runs.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::Value;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::sync::oneshot;

use crate::admin::http::query::Query;
use crate::admin::keys::Keys;
use crate::admin::links::LinkEdit;
use crate::admin::trust::Shelf;
use crate::admin::trust::TrustChange;
use crate::admin::trust::certificate::NewCertificate;
use crate::admin::trust::join::Order;
use crate::admin::trust::rotate::Rotation;
use crate::broker::Broker;
use crate::broker::feeds::LineReader;
use crate::broker::inspect::Page;
use crate::broker::link_keys::LinkKeys;
use crate::trust::group::Entitlement;
use crate::trust::name::clipped;
use crate::trust::rights::OperatorRights;

mod acl;
mod authentication;
mod banned;
mod clients;
mod events;
mod fields;
mod links;
mod messages;
mod openapi;
mod pages;
mod statistics;
mod table;
mod trace;
mod trust;

pub(super) use self::links::lacking_for;
pub(super) use self::table::routes;
pub(super) use self::trust::lacking_for_rotation;
pub(super) use self::trust::shown_certificate;

/// Items of a page, unless `limit` says otherwise, and at most: EMQX's numbers.
const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 10_000;

/// Whether the broker can serve clients, else why not.
pub type Readiness = Result<(), Vec<String>>;
/// What a reload changed, or why it changed nothing, one line each.
pub type Reloaded = Result<Vec<String>, Vec<String>>;

/// What only whoever runs the broker can do, and where they answer.
#[derive(Debug)]
pub enum Change {
    /// Read the configuration again.
    Reload(oneshot::Sender<Reloaded>),
    /// Change one link.
    Link(LinkEdit, oneshot::Sender<Result<(), Problem>>),
    /// Change who is trusted, or what they may do.
    Trust(TrustChange, oneshot::Sender<Result<Value, Problem>>),
    /// Put the next link certificate in force.
    Promote(oneshot::Sender<Result<(), Problem>>),
    /// Show another link certificate.
    Certificate(NewCertificate, oneshot::Sender<Result<Value, Problem>>),
}

/// Asks whoever runs the broker for a change of its configuration.
pub type Changes = mpsc::Sender<Change>;

/// What the handlers work on.
#[derive(Clone)]
pub struct HttpState {
    /// The broker.
    pub broker: Arc<Broker>,
    /// The text of `/metrics`.
    pub render_metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// For `/health/ready`.
    pub readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
    /// `cluster.name`.
    pub cluster: String,
    /// `cluster.node`.
    pub node: String,
    /// Whether `/metrics` needs no key: `http.metrics_auth = false`. Believed on a loopback `http.bind` only.
    pub metrics_open: bool,
    /// `http.metrics_emqx`
    pub metrics_emqx: bool,
    /// Names under which we are reached, beside `localhost` and the address that is bound.
    pub allowed_hosts: Vec<String>,
    /// Who may use the API.
    pub keys: Arc<Keys>,
    /// Who is trusted.
    pub shelf: Arc<Shelf>,
    /// How far the rotation of the link certificate is.
    pub rotation: Arc<Rotation>,
    /// The link certificate, if this broker has a place for one.
    pub link_keys: Option<Arc<LinkKeys>>,
    /// Who changes the configuration; `None` if there is none to read again.
    pub changes: Option<Changes>,
}

/// How a route is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Post,
    Put,
    Delete,
}

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody.
    Open,
    /// Everybody on loopback unless `http.metrics_auth` is set.
    Metrics,
    /// An API key, or the admin socket.
    Key,
}

/// A parameter in the query.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    /// Type in OpenAPI.
    pub(super) kind: &'static str,
    pub(super) about: &'static str,
}

/// What runs.
#[derive(Clone, Copy)]
pub(super) enum Action {
    /// At once: it looks at a bounded part of the broker.
    Now(fn(&HttpState, &Call) -> Outcome),
    /// On another thread: it looks at all clients, subscriptions or messages.
    Aside(fn(&HttpState, &Call) -> Outcome),
    /// A reload of the configuration.
    Reload,
    /// A change of a link; then the answer, if that was done.
    Link(fn(&Call) -> Result<LinkEdit, Problem>, fn(&HttpState, &Call) -> Outcome),
    /// A change of who is trusted; then the answer, of what was done.
    Trust(fn(&HttpState, &Call) -> Result<TrustChange, Problem>, fn(Value) -> Answer),
    /// The same with a token of another cluster, which is asked.
    Join(fn(&Call) -> Result<Order, Problem>, fn(Value) -> Answer),
    /// Another link certificate.
    Certificate(fn(&Call) -> Result<NewCertificate, Problem>, fn(Value) -> Answer),
    /// The next link certificate, which peers are told of; for how many seconds both are good.
    Rotate(fn(&Call) -> Result<u64, Problem>, fn(Value) -> Answer),
    /// Lines that come as they are made, until either side ends.
    Follow(fn(&HttpState, &Call) -> Result<LineReader, Problem>),
}

/// What an operator must be permitted. API keys and the admin socket may everything.
#[derive(Clone, Copy)]
pub(super) enum Needs {
    /// To be known: the answer is of what they may see.
    Nothing,
    /// This, on the server.
    Server(Entitlement),
    /// This, on the link that the path names.
    Link(Entitlement),
    /// What this says of the request.
    Judged(fn(&Call) -> Lacking),
}

/// The permission that whoever asks lacks, as `auth group permission add` takes it; `None` if they may.
pub(super) type Lacking = Option<String>;

impl Needs {
    /// What whoever asks would have to be permitted besides what they are.
    pub(super) fn lacked_by(&self, call: &Call) -> Lacking {
        match self {
            Self::Nothing => None,
            Self::Server(wanted) => call.lacks(*wanted),
            Self::Link(wanted) => call.lacks_on_link(&call.item, *wanted),
            Self::Judged(judge) => judge(call),
        }
    }
}

/// One route.
pub(super) struct Route {
    pub(super) method: Method,
    /// With `{name}` for what varies, twice at most; such a part is the last one or ends before a `/`.
    pub(super) path: &'static str,
    pub(super) access: Access,
    pub(super) needs: Needs,
    pub(super) about: &'static str,
    /// How the security event log names it, if it changes anything.
    pub(super) act: Option<&'static str>,
    /// Whether it changes what outlives the process: all that it changes is stored as a whole, and answered then.
    pub(super) stores: bool,
    pub(super) query: &'static [&'static [Parameter]],
    /// Name of the body's schema in the OpenAPI document.
    pub(super) body: Option<&'static str>,
    pub(super) answers: &'static [(u16, &'static str)],
    pub(super) action: Action,
}

impl Route {
    /// Whether the query may have a parameter of this name.
    pub(super) fn takes(&self, name: &str) -> bool {
        self.query.iter().flat_map(|group| group.iter()).any(|parameter| parameter.name == name)
    }
}

/// One request to a route.
#[derive(Default)]
pub(super) struct Call {
    /// What stood for the `{name}` of the path.
    pub(super) item: String,
    /// The same for a second `{name}`.
    pub(super) second: String,
    /// Who asks, for the log: an API key or the admin socket.
    pub(super) caller: String,
    /// What they may do.
    pub(super) rights: OperatorRights,
    pub(super) query: Query,
    pub(super) body: Value,
}

impl Call {
    /// This on the server, unless whoever asks has it.
    fn lacks(&self, wanted: Entitlement) -> Lacking {
        (!self.rights.on_server(wanted)).then(|| format!("server {wanted}"))
    }

    /// This on the link with `name`, unless whoever asks has it.
    fn lacks_on_link(&self, name: &str, wanted: Entitlement) -> Lacking {
        (!self.rights.on_link(name, wanted)).then(|| format!("link {} {wanted}", clipped(name)))
    }
}

/// Without the body, in which there may be a token or a key.
impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("item", &self.item)
            .field("second", &self.second)
            .field("caller", &self.caller)
            .finish_non_exhaustive()
    }
}

/// What a handler gives.
pub(super) type Outcome = Result<Answer, Problem>;

/// What is answered.
#[derive(Debug)]
pub(super) enum Answer {
    /// 200 with JSON.
    Json(Value),
    /// Another status with JSON.
    Status(StatusCode, Value),
    /// Text of this media type.
    Text(StatusCode, &'static str, String),
    /// 204.
    Nothing,
    /// 200 with lines of JSON as they come.
    Lines(LineReader, Permitted),
}

/// Whether whoever asked may still hear what goes on.
pub(super) struct Permitted(pub(super) Box<dyn Fn() -> bool + Send>);

impl fmt::Debug for Permitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permitted").finish_non_exhaustive()
    }
}

/// A request that was not carried out: `{"code", "message"}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub(in crate::admin) status: StatusCode,
    pub(in crate::admin) code: &'static str,
    pub(in crate::admin) message: String,
}

impl Problem {
    pub(in crate::admin) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(in crate::admin) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BAD_REQUEST", message)
    }

    pub(in crate::admin) fn already_exists(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "ALREADY_EXISTS", message)
    }

    pub(in crate::admin) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "CONFLICT", message)
    }

    pub(in crate::admin) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", message)
    }
}

/// `page` and `limit` of a list.
const PAGING: &[Parameter] = &[
    Parameter { name: "page", kind: "integer", about: "Which page, from 1" },
    Parameter { name: "limit", kind: "integer", about: "Items of a page, at most 10000; default 100" },
];

/// Which part of a list is asked for.
struct Paging {
    page: usize,
    limit: usize,
}

impl Paging {
    fn of(call: &Call) -> Result<Self, Problem> {
        let page = number(call, "page", 1, usize::MAX)?.unwrap_or(1);
        let limit = number(call, "limit", 1, LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT);
        Ok(Self { page, limit })
    }

    fn window(&self) -> Range<usize> {
        let start = (self.page - 1).saturating_mul(self.limit);
        start..start.saturating_add(self.limit)
    }

    /// EMQX's envelope.
    fn wrap<T>(&self, page: &Page<T>, item: impl Fn(&T) -> Value) -> Answer {
        let data: Vec<Value> = page.items.iter().map(item).collect();
        let hasnext = self.window().end < page.count;
        let meta = json!({"page": self.page, "limit": self.limit, "count": page.count, "hasnext": hasnext});
        Answer::Json(json!({"data": data, "meta": meta}))
    }
}

fn boolean(call: &Call, name: &str) -> Result<Option<bool>, Problem> {
    match call.query.value(name) {
        None => Ok(None),
        Some("true") => Ok(Some(true)),
        Some("false") => Ok(Some(false)),
        Some(_) => Err(Problem::bad_request(format!("{name}: true or false"))),
    }
}

fn number(call: &Call, name: &str, min: usize, max: usize) -> Result<Option<usize>, Problem> {
    let Some(text) = call.query.value(name) else { return Ok(None) };
    let number = text.parse().ok().filter(|number| (min..=max).contains(number));
    let bounds = if max == usize::MAX { format!("at least {min}") } else { format!("{min} to {max}") };
    number.map(Some).ok_or_else(|| Problem::bad_request(format!("{name}: must be a number, {bounds}")))
}
