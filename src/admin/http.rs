//! The HTTP server (interface.md section 3), on a port and on the admin socket: who may ask, how large a request may
//! be, how an answer is written. What is answered is in [`crate::admin::rest`].
//!
//! A browser on the operator's machine can be made to send requests here from any page. So a Host or Origin that is
//! not ours is refused (DNS rebinding), a body must be JSON, and nothing but health and status is open without a key.
//! Whoever can open the admin socket owns the data directory and needs no key.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::extract::RawPathParams;
use axum::extract::Request;
use axum::extract::State;
use axum::extract::connect_info::Connected;
use axum::extract::rejection::RawPathParamsRejection;
use axum::http::HeaderMap;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header;
use axum::middleware;
use axum::middleware::Next;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::MethodFilter;
use axum::routing::MethodRouter;
use axum::routing::on;
use axum::serve::IncomingStream;
use axum::serve::Listener;
use serde_json::Value;
use serde_json::json;
use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::sync::oneshot;

use crate::admin::http::asker::Asker;
use crate::admin::http::lines::Lines;
use crate::admin::http::query::Query;
use crate::admin::http::tls::Peer;
use crate::admin::http::tls::Tls;
use crate::admin::http::tls::TlsListener;
use crate::admin::links::LinkEdit;
use crate::admin::rest::Access;
use crate::admin::rest::Action;
use crate::admin::rest::Answer;
use crate::admin::rest::Call;
use crate::admin::rest::Change;
use crate::admin::rest::Changes;
use crate::admin::rest::HttpState;
use crate::admin::rest::Method;
use crate::admin::rest::Outcome;
use crate::admin::rest::Problem;
use crate::admin::rest::Route;
use crate::admin::rest::lacking_for;
use crate::admin::rest::lacking_for_rotation;
use crate::admin::rest::routes;
use crate::admin::trust::join;
use crate::admin::trust::rotate;
use crate::admin::trust::rotate::Scene;
use crate::broker::events::event::SecurityEvent;
use crate::broker::events::event::What;
use crate::net::address::PeerAddr;
use crate::net::clock;

mod asker;
mod lines;
pub mod query;
mod socket;
mod stored;
pub mod tls;

/// The longest body: a message of the default `mqtt.max_packet_size` in Base64 fits.
const MAX_BODY_BYTES: usize = 2 * 1024 * 1024;
/// How long a connection may take to finish once the broker stops.
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// Below this prefix even what does not exist needs a key.
const API_PREFIX: &str = "/api";

struct Shared {
    state: HttpState,
    /// Where we listen.
    bound: Bound,
}

/// Where requests come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// A port: who asks has to say who they are.
    To(SocketAddr),
    /// A socket whose file lets in who may everything.
    AdminSocket,
    /// A socket whose file lets in who may look.
    ViewerSocket,
}

/// Answers on `listener` until `shutdown` ends, then lets requests under way finish for a short time.
///
/// # Errors
/// If the listener has no address.
pub async fn run(
    listener: TcpListener,
    state: HttpState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let bound = listener.local_addr()?;
    let router = router(state, Bound::To(bound)).into_make_service_with_connect_info::<From>();
    let listener = socket::BoundedListener::new(listener);
    let (end, limit) = ends(shutdown);
    within(limit, axum::serve(listener, router).with_graceful_shutdown(end).into_future()).await
}

/// From where a request without TLS comes.
#[derive(Debug, Clone, Copy)]
struct From(SocketAddr);

impl Connected<IncomingStream<'_, socket::BoundedListener<TcpListener>>> for From {
    fn connect_info(stream: IncomingStream<'_, socket::BoundedListener<TcpListener>>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// The same over TLS, where operators are known by their certificates as well.
///
/// # Errors
/// If the listener has no address.
pub async fn run_tls(
    listener: TcpListener,
    tls: Arc<Tls>,
    state: HttpState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let bound = listener.local_addr()?;
    let router = router(state, Bound::To(bound)).into_make_service_with_connect_info::<Peer>();
    let listener = socket::BoundedListener::new(TlsListener::new(listener, bound, tls));
    let (end, limit) = ends(shutdown);
    within(limit, axum::serve(listener, router).with_graceful_shutdown(end).into_future()).await
}

/// The same on whatever connections come from, which need not be sockets.
///
/// # Errors
/// If the listener fails.
pub async fn serve<L: Listener<Io: Unpin, Addr: std::fmt::Debug>>(
    listener: L,
    bound: Bound,
    state: HttpState,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (listener, router) = (socket::BoundedListener::new(listener), router(state, bound));
    let (end, limit) = ends(shutdown);
    within(limit, axum::serve(listener, router).with_graceful_shutdown(end).into_future()).await
}

/// When no more requests are taken, and when those that are under way have had their time after it.
fn ends(
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> (impl Future<Output = ()> + Send + 'static, impl Future<Output = ()>) {
    let (stopped, stop) = oneshot::channel::<()>();
    let end = async move {
        shutdown.await;
        drop(stopped);
    };
    let limit = async move {
        // Ends when the other half is dropped.
        let _ = stop.await;
        tokio::time::sleep(STOP_LIMIT).await;
    };
    (end, limit)
}

async fn within(
    limit: impl Future<Output = ()>,
    serving: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    tokio::select! {
        result = serving => result,
        () = limit => Ok(()),
    }
}

fn router(state: HttpState, bound: Bound) -> Router {
    let shared = Arc::new(Shared { state, bound });
    let mut router = Router::new();
    for route in routes() {
        router = router.route(&captures(route.path), endpoint(route));
    }
    router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), guard))
        .with_state(shared)
}

/// A topic takes the rest of the path, and so does whom a ban names, so that their slashes need not be encoded.
fn captures(path: &str) -> String {
    let open_end = ["{topic}", "{who}"].into_iter().find_map(|end| Some((path.strip_suffix(end)?, end)));
    open_end.map_or_else(|| path.to_owned(), |(start, end)| format!("{start}{{*{}", &end[1..]))
}

fn endpoint(route: &'static Route) -> MethodRouter<Arc<Shared>> {
    let method = match route.method {
        Method::Get => MethodFilter::GET,
        Method::Post => MethodFilter::POST,
        Method::Put => MethodFilter::PUT,
        Method::Delete => MethodFilter::DELETE,
    };
    let handler = move |State(shared): State<Arc<Shared>>,
                        path: Result<RawPathParams, RawPathParamsRejection>,
                        request: Request| async move {
        // Who asks for a change and hangs up has asked for it: it is done, and written down, all the same.
        let outcome = if route.act.is_some() {
            tokio::spawn(dispatch(route, shared, path, request))
                .await
                .unwrap_or_else(|_| Err(internal("the request failed; the log says more")))
        } else {
            dispatch(route, shared, path, request).await
        };
        let answered = match outcome {
            Ok(answer) => answer_response(answer),
            Err(problem) => problem_response(&problem),
        };
        answered.into_response()
    };
    on(method, handler)
}

/// Checks what the table says about a route, then runs its action.
async fn dispatch(
    route: &'static Route,
    shared: Arc<Shared>,
    path: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
) -> Outcome {
    let asker = shared.admit(route.access, &request)?;
    // Before the body is read: a change that was asked for wrongly was asked for.
    let act = route.act.map(|act| (act, asker.name.clone(), request.uri().path().to_owned()));
    let source = asker.source;
    let outcome = perform(route, &shared, path, request, asker).await;
    if let Some((act, caller, path)) = act {
        let result = match &outcome {
            Ok(_) => "done",
            Err(problem) => &problem.message,
        };
        let what = What::Admin { act };
        let text = format!("{path}: {result}");
        let event = SecurityEvent { identity: Some(&caller), source, ..SecurityEvent::new(what, &text) };
        shared.state.broker.security_event(&event, clock::now());
    }
    outcome
}

async fn perform(
    route: &'static Route,
    shared: &Arc<Shared>,
    path: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    asker: Asker,
) -> Outcome {
    let path = path.map_err(|_| Problem::bad_request("the path is not percent-encoded UTF-8"))?;
    let mut items = path.iter().map(|(_, value)| value.to_owned());
    let (item, second) = (items.next().unwrap_or_default(), items.next().unwrap_or_default());
    let query = Query::parse(request.uri().query().unwrap_or_default())?;
    // A filter that is not known must not be taken for none.
    if let Some(name) = query.names().find(|name| !route.takes(name) && route.access == Access::Key) {
        return Err(Problem::bad_request(format!("{name}: no such parameter")));
    }
    let body = if route.body.is_some() { read_json(request.into_body()).await? } else { Value::Null };
    let Asker { name: caller, rights, proof, source } = asker;
    let call = Call { item, second, caller, rights, query, body };
    if let Some(lacking) = route.needs.lacked_by(&call) {
        return Err(shared.denied(route, &call, source, &lacking));
    }
    let state = shared.state.clone();
    match route.action {
        Action::Now(handler) => {
            let (outcome, group) = stored::run(route, handler, &state, &call);
            stored::wait(&state, outcome, group).await
        }
        Action::Aside(handler) => {
            let aside = state.clone();
            let (outcome, group) =
                tokio::task::spawn_blocking(move || stored::run(route, handler, &aside, &call))
                    .await
                    .unwrap_or_else(|_| (Err(internal("the request failed; the log says more")), None));
            stored::wait(&state, outcome, group).await
        }
        Action::Reload => reload(state.changes.as_ref()).await,
        Action::Link(edit, answer) => {
            if let Some(lacking) = lacking_for(&state, &call) {
                return Err(shared.denied(route, &call, source, &lacking));
            }
            change_link(state.changes.as_ref(), edit(&call)?).await?;
            answer(&state, &call)
        }
        Action::Trust(make, answer) => {
            let change = make(&state, &call)?.within(call.rights);
            asked_for(state.changes.as_ref(), |done| Change::Trust(change, done)).await?.map(answer)
        }
        Action::Join(order, answer) => {
            let order = order(&call)?;
            let changes = state.changes.as_ref().ok_or_else(nothing_to_change)?;
            let keys = state.link_keys.as_ref().ok_or_else(nothing_to_change)?;
            join::join(changes, keys, order).await.map(answer)
        }
        Action::Certificate(read, answer) => {
            let new = read(&call)?;
            asked_for(state.changes.as_ref(), |done| Change::Certificate(new, done)).await?.map(answer)
        }
        Action::Rotate(overlap, answer) => {
            if let Some(lacking) = lacking_for_rotation(&state, &call) {
                return Err(shared.denied(route, &call, source, &lacking));
            }
            let overlap = overlap(&call)?;
            let changes = state.changes.clone().ok_or_else(nothing_to_change)?;
            let keys = state.link_keys.clone().ok_or_else(nothing_to_change)?;
            let HttpState { shelf, cluster, broker, rotation, .. } = state;
            let scene = Scene { changes, keys, shelf, cluster, broker, rotation };
            rotate::rotate(&scene, overlap).await.map(answer)
        }
        Action::Follow(handler) => {
            handler(&state, &call).map(|lines| Answer::Lines(lines, shared.still(proof, route)))
        }
    }
}

async fn read_json(body: Body) -> Result<Value, Problem> {
    let bytes = axum::body::to_bytes(body, MAX_BODY_BYTES).await.map_err(|error| {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", error.to_string())
    })?;
    serde_json::from_slice(&bytes).map_err(|error| Problem::bad_request(format!("the body: {error}")))
}

async fn reload(changes: Option<&Changes>) -> Outcome {
    match asked_for(changes, Change::Reload).await? {
        Ok(changes) => Ok(Answer::Json(json!({"changes": changes}))),
        Err(errors) => Err(Problem::bad_request(errors.join("\n"))),
    }
}

async fn change_link(changes: Option<&Changes>, edit: LinkEdit) -> Result<(), Problem> {
    asked_for(changes, |answer| Change::Link(edit, answer)).await?
}

fn nothing_to_change() -> Problem {
    Problem::conflict("this broker has no configuration that can be read again")
}

/// Hands a change to whoever runs the broker, and waits for what they say.
async fn asked_for<T>(
    changes: Option<&Changes>,
    change: impl FnOnce(oneshot::Sender<T>) -> Change,
) -> Result<T, Problem> {
    let stopping =
        || Problem::new(StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE", "the broker is stopping");
    let (answer, answered) = oneshot::channel();
    changes.ok_or_else(nothing_to_change)?.send(change(answer)).await.map_err(|_| stopping())?;
    answered.await.map_err(|_| stopping())
}

/// In front of everything, unknown paths included.
async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let refused = shared.refuse(&request);
    let mut response = match refused {
        Some(problem) => problem_response(&problem),
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

impl Shared {
    fn refuse(&self, request: &Request) -> Option<Problem> {
        if !self.is_ours(request) {
            return Some(Problem::new(
                StatusCode::FORBIDDEN,
                "FORBIDDEN",
                "Host or Origin is not this server",
            ));
        }
        let headers = request.headers();
        let length = headers.get(header::CONTENT_LENGTH).map(|value| value.to_str().unwrap_or_default());
        let length = length.map(|length| length.parse().unwrap_or(usize::MAX)).unwrap_or(0);
        if length > MAX_BODY_BYTES {
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            return Some(Problem::new(status, "PAYLOAD_TOO_LARGE", "the body is too long"));
        }
        let has_body = length > 0 || headers.contains_key(header::TRANSFER_ENCODING);
        if has_body && !is_json(headers) {
            let (status, code) = (StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE");
            return Some(Problem::new(status, code, "a body must be application/json"));
        }
        let path = request.uri().path();
        let known = routes().any(|route| route.access != Access::Key && route.path == path);
        if path.starts_with(API_PREFIX) && !known {
            return self.admit(Access::Key, request).err();
        }
        None
    }

    fn is_ours(&self, request: &Request) -> bool {
        // No page of a browser reaches a socket that is a file.
        let Bound::To(bound) = self.bound else { return true };
        let headers = request.headers();
        if peer(request).is_some() {
            // Over TLS no other name can be made to lead here: its certificate would not be ours.
            return is_same_origin(headers);
        }
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
        let is_ours = |name: &str| self.host_is_ours(name, bound.ip());
        let target_is_ours = request.uri().authority().is_none_or(|name| is_ours(name.as_str()));
        target_is_ours
            && host.to_str().is_ok_and(is_ours)
            && headers.get_all(header::ORIGIN).iter().all(|origin| {
                let origin = origin.to_str().unwrap_or_default();
                let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
                host.is_some_and(is_ours)
            })
    }

    /// `name[:port]`; the port is left alone, as port forwarding changes it.
    fn host_is_ours(&self, host: &str, bound: IpAddr) -> bool {
        let Some(name) = without_port(host) else { return false };
        if name.eq_ignore_ascii_case("localhost") {
            return true;
        }
        if self.state.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name)) {
            return true;
        }
        let Ok(address) = name.parse::<IpAddr>() else { return false };
        // An address cannot be rebound; where every address is bound, every address is ours.
        bound.is_unspecified() || address == bound || (bound.is_loopback() && address.is_loopback())
    }
}

/// Who is at the other end, over TLS.
fn peer(request: &Request) -> Option<&Peer> {
    request.extensions().get::<ConnectInfo<Peer>>().map(|ConnectInfo(peer)| peer)
}

/// From where a request comes, if not by the admin socket.
fn source(request: &Request) -> Option<PeerAddr> {
    let plain = request.extensions().get::<ConnectInfo<From>>().map(|ConnectInfo(from)| from.0);
    plain.or_else(|| peer(request).map(|peer| peer.address)).map(PeerAddr::Ip)
}

/// Whether a page that asks is of this server.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    headers.get_all(header::ORIGIN).iter().all(|origin| {
        origin
            .to_str()
            .ok()
            .and_then(|origin| origin.strip_prefix("https://"))
            .is_some_and(|name| name == host)
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
}

fn without_port(host: &str) -> Option<&str> {
    if let Some(rest) = host.strip_prefix('[') {
        let (name, port) = rest.split_once(']')?;
        return (port.is_empty() || is_port(port.strip_prefix(':')?)).then_some(name);
    }
    match host.split_once(':') {
        Some((name, port)) => is_port(port).then_some(name),
        None => Some(host),
    }
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

async fn not_found() -> Response {
    problem_response(&Problem::not_found("no such path"))
}

async fn method_not_allowed() -> Response {
    let (status, code) = (StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED");
    problem_response(&Problem::new(status, code, "this path has other methods: see /api-docs.json"))
}

fn internal(message: &str) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", message)
}

fn answer_response(answer: Answer) -> Response {
    match answer {
        Answer::Json(value) => json_response(StatusCode::OK, &value),
        Answer::Status(status, value) => json_response(status, &value),
        Answer::Text(status, kind, text) => (status, [(header::CONTENT_TYPE, kind)], text).into_response(),
        Answer::Nothing => StatusCode::NO_CONTENT.into_response(),
        Answer::Lines(reader, permitted) => {
            let body = Body::from_stream(Lines::new(reader, permitted));
            ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
        }
    }
}

fn problem_response(problem: &Problem) -> Response {
    let body = json!({"code": problem.code, "message": problem.message});
    let mut response = json_response(problem.status, &body);
    if problem.status == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("Basic realm=\"tombolo\", charset=\"UTF-8\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    }
    response
}

fn json_response(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

#[cfg(test)]
mod tests;
