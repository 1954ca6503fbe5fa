//! Asks an HTTP authenticator about a client: so many at a time, each within its time. Whatever goes wrong denies.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio::sync::Semaphore;
use tokio::time;

use crate::auth::DenyReason;
use crate::auth::callout;
use crate::auth::callout::BODY_BYTES_MAX;
use crate::auth::callout::Question;
use crate::auth::chain::Answer;
use crate::broker::authenticate::Place;
use crate::broker::authenticate::Stopped;
use crate::net::http_client::HttpServer;
use crate::net::http_client::Posted;
use crate::time::Now;

/// A step of mechanism http.
#[derive(Debug)]
pub struct Callout {
    server: Arc<HttpServer>,
    asking: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Callout {
    /// Asks this server, so many questions at a time.
    #[must_use]
    pub fn new(server: HttpServer, max_concurrent: usize) -> Self {
        Self {
            server: Arc::new(server),
            asking: Arc::new(Semaphore::new(max_concurrent)),
            waiting: AtomicUsize::new(0),
        }
    }

    /// What it says. Its time includes the wait for those before.
    pub(super) async fn ask(&self, question: &Question<'_>, now: Now) -> Result<Answer, Stopped> {
        // A password that is not text cannot be asked about in JSON, so nobody can know it there.
        let Some(body) = question.body() else { return Ok(Answer::Deny(DenyReason::BadCredentials)) };
        let _place = Place::take(&self.waiting)?;
        let turn = Arc::clone(&self.asking).acquire_owned();
        let Ok(Ok(permit)) = time::timeout(self.server.timeout, turn).await else {
            return Err(Stopped::Busy);
        };
        let server = Arc::clone(&self.server);
        // On a task of its own, whose panic is a failure like any other (A13), and which has its turn until it is done.
        let asked = tokio::spawn(async move {
            let _permit = permit;
            server.ask(Some(Posted { kind: "application/json", bytes: body }), BODY_BYTES_MAX).await
        })
        .await;
        let refused = |error: &dyn std::fmt::Display| {
            tracing::warn!(server = ?self.server, %error, "the authenticator gave no answer: the client is refused");
            Ok(Answer::Deny(DenyReason::Unavailable))
        };
        let (status, body) = match asked {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return refused(&error),
            Err(error) => return refused(&error),
        };
        match callout::read(status, &body, question.username, now.unix_ms / 1000) {
            Ok(reply) => {
                if reply.superuser {
                    tracing::warn!(server = ?self.server, "the authenticator made a client a superuser, which is not taken from outside");
                }
                Ok(reply.answer)
            }
            Err(error) => refused(&error),
        }
    }
}
