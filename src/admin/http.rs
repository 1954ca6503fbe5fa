//! Health, status and metrics over HTTP (interface.md section 3): all there is without an API key. It knows nothing of
//! the broker: what it shows comes from the closures of [`HttpState`].
//!
//! A browser on the operator's machine can be made to send requests here from any page. So a Host or Origin that is
//! not ours is refused (DNS rebinding), and only GET and HEAD exist.

use std::fmt::Write as _;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::RawQuery;
use axum::extract::Request;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::HeaderValue;
use axum::http::StatusCode;
use axum::http::header;
use axum::middleware;
use axum::middleware::Next;
use axum::response::IntoResponse;
use axum::response::Response;
use axum::routing::get;
use tokio::net::TcpListener;

mod socket;

/// Nothing here reads a body; a larger one is refused before it is sent.
const MAX_BODY_BYTES: u64 = 64 * 1024;
/// How long a connection may take to finish once the broker stops.
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// What Prometheus asks for.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether the broker can serve clients, else why not.
pub type Readiness = Result<(), Vec<String>>;

/// What the pages show.
#[derive(Clone)]
pub struct HttpState {
    /// The text of `/metrics`.
    pub render_metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// For `/health/ready`.
    pub readiness: Arc<dyn Fn() -> Readiness + Send + Sync>,
    /// `cluster.node`, for `/status`.
    pub node: String,
    /// Whether `/metrics` needs no key: `http.metrics_auth = false`. Believed on a loopback `http.bind` only.
    pub metrics_open: bool,
    /// Names under which we are reached, beside `localhost` and the address that is bound.
    pub allowed_hosts: Vec<String>,
}

struct Shared {
    state: HttpState,
    bound: SocketAddr,
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
    let router = router(state, bound);
    let (stopped, stop) = tokio::sync::oneshot::channel::<()>();
    let limit = async move {
        // Ends when the other half below is dropped: at the shutdown.
        let _ = stop.await;
        tokio::time::sleep(STOP_LIMIT).await;
    };
    let serving =
        axum::serve(socket::BoundedListener::new(listener), router).with_graceful_shutdown(async move {
            shutdown.await;
            drop(stopped);
        });
    tokio::select! {
        result = serving => result,
        () = limit => Ok(()),
    }
}

fn router(state: HttpState, bound: SocketAddr) -> Router {
    let shared = Arc::new(Shared { state, bound });
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/status", get(status))
        .route("/api/v5/status", get(status))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), guard))
        .with_state(shared)
}

/// In front of everything, unknown paths included.
async fn guard(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    if !shared.is_ours(&request) {
        return error(StatusCode::FORBIDDEN, "FORBIDDEN", "Host or Origin is not this server");
    }
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if length.is_some_and(|length| length.parse().map_or(true, |bytes: u64| bytes > MAX_BODY_BYTES)) {
        return error(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", "the body is too long");
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

impl Shared {
    fn is_ours(&self, request: &Request) -> bool {
        let headers = request.headers();
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
        let target_is_ours = request.uri().authority().is_none_or(|name| self.host_is_ours(name.as_str()));
        target_is_ours
            && host.to_str().is_ok_and(|host| self.host_is_ours(host))
            && self.origin_is_ours(headers)
    }

    fn origin_is_ours(&self, headers: &HeaderMap) -> bool {
        headers.get_all(header::ORIGIN).iter().all(|origin| {
            let origin = origin.to_str().unwrap_or_default();
            let host = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            host.is_some_and(|host| self.host_is_ours(host))
        })
    }

    /// `name[:port]`; the port is left alone, as port forwarding changes it.
    fn host_is_ours(&self, host: &str) -> bool {
        let Some(name) = without_port(host) else { return false };
        if name.eq_ignore_ascii_case("localhost") {
            return true;
        }
        if self.state.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name)) {
            return true;
        }
        let Ok(address) = name.parse::<IpAddr>() else { return false };
        let bound = self.bound.ip();
        // An address cannot be rebound; where every address is bound, every address is ours.
        bound.is_unspecified() || address == bound || (bound.is_loopback() && address.is_loopback())
    }
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

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    if !shared.state.metrics_open || !shared.bound.ip().is_loopback() {
        let message = "metrics are open on a loopback http.bind only";
        return error(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message);
    }
    ([(header::CONTENT_TYPE, METRICS_TYPE)], (shared.state.render_metrics)()).into_response()
}

async fn live() -> Response {
    json(StatusCode::OK, r#"{"status":"live"}"#.to_owned())
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    match (shared.state.readiness)() {
        Ok(()) => json(StatusCode::OK, r#"{"status":"ready"}"#.to_owned()),
        Err(reasons) => {
            let reasons: Vec<_> = reasons.iter().map(|reason| json_string(reason)).collect();
            let body = format!(r#"{{"status":"not_ready","reasons":[{}]}}"#, reasons.join(","));
            json(StatusCode::SERVICE_UNAVAILABLE, body)
        }
    }
}

/// EMQX's shapes: two lines of text, or JSON for `?format=json`.
async fn status(State(shared): State<Arc<Shared>>, RawQuery(query): RawQuery) -> Response {
    let running = (shared.state.readiness)().is_ok();
    let code = if running { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let app = if running { "running" } else { "not_running" };
    let node = &shared.state.node;
    if query.is_some_and(|query| query.split('&').any(|pair| pair == "format=json")) {
        let version = json_string(env!("CARGO_PKG_VERSION"));
        let node = json_string(node);
        let body = format!(
            r#"{{"rel_vsn":{version},"node_name":{node},"broker_status":"started","app_status":"{app}"}}"#
        );
        return json(code, body);
    }
    let body = format!("Node {node} is started\ntombolo is {app}\n");
    (code, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body).into_response()
}

async fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "NOT_FOUND", "no such path")
}

async fn method_not_allowed() -> Response {
    error(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", "only GET and HEAD are allowed here")
}

fn error(status: StatusCode, code: &str, message: &str) -> Response {
    json(status, format!(r#"{{"code":{},"message":{}}}"#, json_string(code), json_string(message)))
}

fn json(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn json_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests;
