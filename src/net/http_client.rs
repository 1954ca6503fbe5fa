//! A small HTTP/1.1 client for whom we ask about clients and fetch keys and revocation lists from: one request for each
//! connection, all of it within one time, an answer of bounded length, no redirects. Nothing is sent before the server's
//! certificate is verified.

use std::fmt;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::HeaderValue;
use axum::http::Request;
use axum::http::header;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::Limited;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time;

use crate::config::settings::HttpUrl;
use crate::net::dial;
use crate::net::dial::DialError;
use crate::net::tls::ClientTls;

/// Longest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// A server that we call.
pub struct HttpServer {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The header `Host`.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// With https.
    pub tls: Option<ClientTls>,
    /// The header `Accept`.
    pub accept: &'static str,
    /// The header `Authorization`, a secret.
    pub authorization: Option<HeaderValue>,
    /// How long all of it may take.
    pub timeout: Duration,
}

impl fmt::Debug for HttpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpServer").field("authority", &self.authority).finish_non_exhaustive()
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Not done in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// Not HTTP, or it ended early.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// An answer, but not what was asked for.
    #[error("the answer has status {0}")]
    Status(u16),
    /// The answer is longer than is read.
    #[error("the answer is longer than {0} bytes, or ended early")]
    Body(usize),
    /// An address with https, and no authorities to verify its server by.
    #[error("https needs the authorities of its server")]
    Unverifiable,
    /// What is asked cannot be asked.
    #[error("the request cannot be made: {0}")]
    Request(#[from] axum::http::Error),
}

/// What goes along with a POST.
#[derive(Debug, Clone)]
pub struct Posted {
    /// `Content-Type`.
    pub kind: &'static str,
    /// The body.
    pub bytes: Vec<u8>,
}

/// What is at `url`, of at most `bytes_max`; `tls` is for `https`. With `posted` it is a POST, otherwise a GET.
///
/// # Errors
/// Why there is nothing.
pub async fn fetch(
    url: &HttpUrl,
    posted: Option<Posted>,
    tls: Option<&ClientTls>,
    bytes_max: usize,
    limit: Duration,
) -> Result<Vec<u8>, HttpError> {
    if url.secure && tls.is_none() {
        return Err(HttpError::Unverifiable);
    }
    let server = HttpServer {
        host: url.host.clone(),
        port: url.port,
        authority: url.authority(),
        path: url.path.clone(),
        tls: tls.filter(|_| url.secure).cloned(),
        accept: "*/*",
        authorization: None,
        timeout: limit,
    };
    match server.ask(posted, bytes_max).await? {
        (200, bytes) => Ok(bytes),
        (status, _) => Err(HttpError::Status(status)),
    }
}

impl HttpServer {
    /// Asks: with a body by POST, without one by GET. Status and body of the answer.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn ask(
        &self,
        posted: Option<Posted>,
        answer_bytes_max: usize,
    ) -> Result<(u16, Vec<u8>), HttpError> {
        let asking = self.exchange(posted, answer_bytes_max);
        time::timeout(self.timeout, asking).await.unwrap_or(Err(HttpError::Timeout(self.timeout)))
    }

    async fn exchange(
        &self,
        posted: Option<Posted>,
        answer_bytes_max: usize,
    ) -> Result<(u16, Vec<u8>), HttpError> {
        let request = self.request(posted)?;
        let transport = dial::dial(&self.host, self.port, self.tls.as_ref(), self.timeout).await?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEAD_BYTES_MAX);
        let (mut sender, connection) = builder.handshake(TokioIo::new(transport)).await?;
        let exchange = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status().as_u16();
            let body = Limited::new(answer.into_body(), answer_bytes_max).collect().await;
            let body = body.map_err(|_| HttpError::Body(answer_bytes_max))?;
            Ok((status, body.to_bytes().to_vec()))
        };
        // Driven beside it and dropped with it, so that nothing outlives the question.
        tokio::pin!(exchange, connection);
        tokio::select! {
            biased;
            answer = &mut exchange => answer,
            ended = &mut connection => {
                ended?;
                exchange.await
            }
        }
    }

    fn request(&self, posted: Option<Posted>) -> Result<Request<Full<Bytes>>, HttpError> {
        let method = if posted.is_some() { "POST" } else { "GET" };
        let mut builder = Request::builder()
            .method(method)
            .uri(&self.path)
            .header(header::HOST, &self.authority)
            .header(header::CONNECTION, "close")
            .header(header::ACCEPT, self.accept);
        if let Some(posted) = &posted {
            builder = builder.header(header::CONTENT_TYPE, posted.kind);
        }
        if let Some(value) = &self.authorization {
            builder = builder.header(header::AUTHORIZATION, value.clone());
        }
        let bytes = posted.map(|posted| posted.bytes).unwrap_or_default();
        Ok(builder.body(Full::new(Bytes::from(bytes)))?)
    }
}
