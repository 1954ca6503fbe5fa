//! MQTT over WebSocket as a byte stream (MQTT 5.0 section 6). Server side only: our links dial plain TCP or TLS.
//! Frames and packets need not align (`[MQTT-6.0.0-2]`), so nothing here knows where a packet ends.

use std::io;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Buf;
use bytes::Bytes;
use futures_core::Stream;
use futures_sink::Sink;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite;
use tungstenite::Message;
use tungstenite::error::ProtocolError;
use tungstenite::handshake::server::ErrorResponse;
use tungstenite::handshake::server::Request;
use tungstenite::handshake::server::Response;
use tungstenite::http::HeaderValue;
use tungstenite::http::StatusCode;
use tungstenite::http::header;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::protocol::frame::coding::CloseCode;

/// The path that speaks MQTT, as with EMQX.
pub const PATH: &str = "/mqtt";
/// The subprotocols we speak, one of which the client must offer (`[MQTT-6.0.0-3]`): the registered one and that of
/// MQTT 3.1.
pub const SUBPROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];
/// Most bytes we put into one frame.
const MAX_SENT_FRAME_BYTES: usize = 64 * 1024;
/// Kept by every WebSocket connection, idle or not.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// A WebSocket connection after its handshake.
#[derive(Debug)]
pub struct WebSocket<S> {
    inner: WebSocketStream<S>,
    /// What is left of the last binary message.
    unread: Bytes,
    /// Whether the Close frame is out.
    close_sent: bool,
}

/// Accepts a WebSocket handshake for MQTT. A client's message and frame may have `max_message_bytes`: a little more
/// than the Maximum Packet Size lets every packet fit into one, and a packet may span several anyway.
///
/// # Errors
/// If it is no WebSocket request, not for [`PATH`], or offers none of [`SUBPROTOCOLS`]; the client has its HTTP
/// answer by then.
pub async fn accept<S>(stream: S, max_message_bytes: usize) -> Result<WebSocket<S>, tungstenite::Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        // Every write goes out at once; a burst is one write already.
        .write_buffer_size(0)
        .max_message_size(Some(max_message_bytes))
        .max_frame_size(Some(max_message_bytes));
    let inner = accept_hdr_async_with_config(stream, negotiate, Some(config)).await?;
    Ok(WebSocket { inner, unread: Bytes::new(), close_sent: false })
}

/// Checks path and subprotocol, and echoes the one chosen (`[MQTT-6.0.0-4]`).
#[expect(clippy::result_large_err, reason = "the signature is the library's")]
fn negotiate(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    if request.uri().path() != PATH {
        return Err(refuse(StatusCode::NOT_FOUND, "MQTT over WebSocket is at /mqtt\n"));
    }
    let offers = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let chosen = offers
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .find_map(|offer| SUBPROTOCOLS.into_iter().find(|known| *known == offer.trim()));
    let Some(chosen) = chosen else {
        return Err(refuse(StatusCode::BAD_REQUEST, "offer the subprotocol mqtt or mqttv3.1\n"));
    };
    response.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(chosen));
    Ok(response)
}

fn refuse(status: StatusCode, reason: &'static str) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(reason.to_owned()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(reason.len()));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

impl<S> WebSocket<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// `[MQTT-6.0.0-1]`: anything but a binary frame ends the connection. The Close frame is an effort: the driver
    /// drops the connection on our error.
    fn refuse_text(&mut self, cx: &mut Context<'_>) -> io::Error {
        let frame = CloseFrame { code: CloseCode::Unsupported, reason: "binary frames only".into() };
        if Pin::new(&mut self.inner).start_send(Message::Close(Some(frame))).is_ok() {
            let _ = Pin::new(&mut self.inner).poll_flush(cx);
        }
        self.close_sent = true;
        io::Error::new(io::ErrorKind::InvalidData, "a WebSocket text frame: MQTT is binary [MQTT-6.0.0-1]")
    }
}

fn into_io(error: tungstenite::Error) -> io::Error {
    match error {
        tungstenite::Error::Io(error) => error,
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => {
            io::ErrorKind::NotConnected.into()
        }
        other => io::Error::new(io::ErrorKind::InvalidData, other),
    }
}

impl<S> AsyncRead for WebSocket<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.unread.is_empty() {
            match ready!(Pin::new(&mut this.inner).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => this.unread = bytes,
                // The library answers Ping and Close by itself, with the next poll at the latest.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_))) => {}
                Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                    return Poll::Ready(Err(this.refuse_text(cx)));
                }
                // An end without a Close frame is an end.
                None
                | Some(Err(tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))) => {
                    return Poll::Ready(Ok(()));
                }
                Some(Err(error)) => return Poll::Ready(Err(into_io(error))),
            }
        }
        let count = this.unread.len().min(buffer.remaining());
        buffer.put_slice(&this.unread[..count]);
        this.unread.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl<S> AsyncWrite for WebSocket<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// One binary frame (`[MQTT-6.0.0-1]`). Waits while the last one is not out, so that one frame is all that is
    /// ever buffered.
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let inner = &mut self.get_mut().inner;
        ready!(Pin::new(&mut *inner).poll_ready(cx)).map_err(into_io)?;
        let bytes = &bytes[..bytes.len().min(MAX_SENT_FRAME_BYTES)];
        let frame = Message::Binary(Bytes::copy_from_slice(bytes));
        Pin::new(inner).start_send(frame).map_err(into_io)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx).map_err(into_io)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.close_sent {
            match ready!(Pin::new(&mut this.inner).poll_close(cx)) {
                Ok(()) | Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed) => {}
                Err(error) => return Poll::Ready(Err(into_io(error))),
            }
            this.close_sent = true;
        }
        Pin::new(this.inner.get_mut()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
