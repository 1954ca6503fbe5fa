//! Fetches what an address of the configuration has, such as a revocation list: one exchange of HTTP/1.1 for each
//! connection, all of it within one time, an answer of bounded length, no redirects.

use std::time::Duration;

use axum::body::Bytes;
use axum::http::Request;
use axum::http::header;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::Limited;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::config::settings::HttpUrl;
use crate::net::dial::DialError;
use crate::net::dial::dial;
use crate::net::tls::ClientTls;

/// Longest head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
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
) -> Result<Vec<u8>, FetchError> {
    let fetching = exchange(url, posted, tls.filter(|_| url.secure), bytes_max, limit);
    timeout(limit, fetching).await.unwrap_or(Err(FetchError::Timeout(limit)))
}

async fn exchange(
    url: &HttpUrl,
    posted: Option<Posted>,
    tls: Option<&ClientTls>,
    bytes_max: usize,
    limit: Duration,
) -> Result<Vec<u8>, FetchError> {
    let request = request(url, posted)?;
    let transport = dial(&url.host, url.port, tls, limit).await?;
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD_BYTES_MAX);
    let (mut sender, connection) = builder.handshake(TokioIo::new(transport)).await?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        if answer.status().as_u16() != 200 {
            return Err(FetchError::Status(answer.status().as_u16()));
        }
        let body = Limited::new(answer.into_body(), bytes_max).collect().await;
        Ok(body.map_err(|_| FetchError::Body(bytes_max))?.to_bytes().to_vec())
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

fn request(url: &HttpUrl, posted: Option<Posted>) -> Result<Request<Full<Bytes>>, FetchError> {
    let mut builder = Request::builder()
        .method(if posted.is_some() { "POST" } else { "GET" })
        .uri(&url.path)
        .header(header::HOST, url.authority())
        .header(header::CONNECTION, "close");
    if let Some(posted) = &posted {
        builder = builder.header(header::CONTENT_TYPE, posted.kind);
    }
    let bytes = posted.map(|posted| posted.bytes).unwrap_or_default();
    Ok(builder.body(Full::new(Bytes::from(bytes)))?)
}
