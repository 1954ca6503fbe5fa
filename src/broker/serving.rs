//! The task of a connection: its handshakes, then its client, then what is left to say.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use crate::broker::connection::Connection;
use crate::broker::connection::Farewell;

/// A connection from when it was accepted to when it is closed. Written by hand, because what is lasting is a pointer,
/// and a task of that size takes a third of the memory.
pub(super) enum Serving<F> {
    Becoming(Pin<Box<F>>),
    Client(Box<Connection>),
    Leaving(Farewell),
    Gone,
}

impl<F> Serving<F> {
    /// What `becoming` makes of it.
    pub(super) fn new(becoming: Pin<Box<F>>) -> Self {
        Self::Becoming(becoming)
    }
}

impl<F: Future<Output = Option<Box<Connection>>>> Future for Serving<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let close = match &mut *self {
                Self::Becoming(becoming) => {
                    let Some(mut connection) = ready!(becoming.as_mut().poll(cx)) else { break };
                    let early = connection.handle_early();
                    self.set(Self::Client(connection));
                    match early {
                        Ok(()) => continue,
                        Err(close) => close,
                    }
                }
                Self::Client(connection) => ready!(connection.poll(cx)),
                Self::Leaving(farewell) => {
                    ready!(farewell.as_mut().poll(cx));
                    break;
                }
                Self::Gone => break,
            };
            if let Self::Client(connection) = std::mem::replace(&mut *self, Self::Gone)
                && let Some(farewell) = connection.end(&close)
            {
                self.set(Self::Leaving(farewell));
            }
        }
        self.set(Self::Gone);
        Poll::Ready(())
    }
}
