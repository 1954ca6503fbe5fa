//! A timer for hand-written futures: armed with the time at which a core wants to be called.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use tokio::time::Instant;
use tokio::time::Sleep;
use tokio::time::sleep_until;

use crate::time::Now;

/// Set to one moment at a time.
#[derive(Debug, Default)]
pub struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
    due_ms: Option<u64>,
}

impl Alarm {
    /// Whether `due_ms`, in monotonic milliseconds, has come. If not, the task is woken then.
    pub fn poll(&mut self, cx: &mut Context<'_>, due_ms: Option<u64>, now: Now) -> bool {
        let Some(due_ms) = due_ms else { return false };
        if due_ms <= now.mono_ms {
            return true;
        }
        let until = || Instant::now() + Duration::from_millis(due_ms - now.mono_ms);
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(until())));
        if self.due_ms != Some(due_ms) {
            sleep.as_mut().reset(until());
            self.due_ms = Some(due_ms);
        }
        let rings = sleep.as_mut().poll(cx).is_ready();
        if rings {
            // It can ring a moment before our own clock says so: then it is set again.
            self.due_ms = None;
        }
        rings
    }
}
