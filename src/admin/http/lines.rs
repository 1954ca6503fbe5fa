//! The body of an answer that goes on: lines as they come. An empty line now and then tells either side that the other
//! is still there.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use futures_core::Stream;
use tokio::time::Instant;
use tokio::time::Sleep;

use crate::admin::rest::Permitted;
use crate::broker::feeds::LineReader;

/// How long there may be nothing to say.
const SILENCE: Duration = Duration::from_secs(15);

pub(super) struct Lines {
    reader: LineReader,
    permitted: Permitted,
    silence: Pin<Box<Sleep>>,
}

impl Lines {
    pub(super) fn new(reader: LineReader, permitted: Permitted) -> Self {
        // The first empty line goes out at once, and with it the head of the answer: who asked knows that it runs.
        Self { reader, permitted, silence: Box::pin(tokio::time::sleep(Duration::ZERO)) }
    }
}

impl Stream for Lines {
    type Item = Result<String, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let lines = match self.reader.poll_lines(cx) {
            Poll::Ready(Some(lines)) => lines,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {
                std::task::ready!(self.silence.as_mut().poll(cx));
                "\n".to_owned()
            }
        };
        if !(self.permitted.0)() {
            return Poll::Ready(None);
        }
        self.silence.as_mut().reset(Instant::now() + SILENCE);
        Poll::Ready(Some(Ok(lines)))
    }
}
