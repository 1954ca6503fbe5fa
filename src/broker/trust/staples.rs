//! Asks OCSP responders about our own certificates: when one is due, and what an answer does.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::broker::trust::lists::Step;
use crate::config::settings::Ocsp;
use crate::net::http_client::HttpError;
use crate::net::http_client::Posted;
use crate::net::http_client::fetch;
use crate::net::staple::OcspError;
use crate::net::staple::Stapler;
use crate::time::Now;

/// Longest answer that is read: one has a few kilobytes with the certificate of its responder.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How soon a question without an answer is asked again.
const RETRY_MS: u64 = 60_000;

#[derive(Debug)]
struct Staple {
    stapler: Arc<Stapler>,
    settings: Ocsp,
    due_ms: u64,
    under_way: bool,
    until_unix: Option<i64>,
    problem: Option<String>,
}

/// Which listener a question is about.
#[derive(Debug, Clone)]
pub(super) struct About {
    id: String,
    stapler: Arc<Stapler>,
}

/// A question to be asked.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) about: About,
    settings: Ocsp,
}

impl Ask {
    /// Asks.
    pub(super) async fn run(self) -> Result<Vec<u8>, HttpError> {
        let posted = Posted { kind: "application/ocsp-request", bytes: self.about.stapler.request() };
        let (url, limit) = (&self.settings.responder_url, self.settings.refresh_http_timeout);
        fetch(url, Some(posted), None, ANSWER_BYTES_MAX, limit).await
    }
}

/// Of all listeners.
#[derive(Debug, Default)]
pub(super) struct Staples(BTreeMap<String, Staple>);

impl Staples {
    /// Takes the listeners as they are now. An answer that is good for the certificate they have now stays.
    pub(super) fn take(&mut self, listeners: Vec<(String, Ocsp, Arc<Stapler>)>, now: Now) {
        let before = std::mem::take(&mut self.0);
        for (id, settings, stapler) in listeners {
            let known = before.get(&id).and_then(|staple| staple.stapler.current());
            let until_unix = known.and_then(|answer| stapler.take(answer, now.unix_seconds()).ok());
            let (due_ms, under_way, problem) = (now.mono_ms, false, None);
            self.0.insert(id, Staple { stapler, settings, due_ms, under_way, until_unix, problem });
        }
    }

    /// What is to be asked now. What is no longer current is not stapled any more.
    pub(super) fn due(&mut self, now: Now) -> Vec<Ask> {
        let mut due = Vec::new();
        for (id, staple) in &mut self.0 {
            if staple.until_unix.is_some_and(|until| until <= now.unix_seconds()) {
                staple.until_unix = None;
                staple.stapler.clear();
            }
            if !staple.under_way && staple.due_ms <= now.mono_ms {
                staple.under_way = true;
                let about = About { id: id.clone(), stapler: Arc::clone(&staple.stapler) };
                due.push(Ask { about, settings: staple.settings.clone() });
            }
        }
        due
    }

    /// Takes a reply, unless a reload has replaced the listener meanwhile.
    pub(super) fn was_answered(
        &mut self,
        about: About,
        result: Result<Vec<u8>, String>,
        now: Now,
    ) -> Option<Step> {
        let About { id, stapler } = about;
        let staple = self.0.get_mut(&id).filter(|staple| Arc::ptr_eq(&staple.stapler, &stapler))?;
        staple.under_way = false;
        let taken =
            result.map_err(OcspError::Useless).and_then(|answer| stapler.take(answer, now.unix_seconds()));
        let interval_ms = u64::try_from(staple.settings.refresh_interval.as_millis()).unwrap_or(u64::MAX);
        let url = &staple.settings.responder_url;
        match taken {
            Ok(until) => {
                staple.due_ms = now.plus_ms(interval_ms).mono_ms;
                let news = staple.until_unix.is_none() || staple.problem.is_some();
                (staple.until_unix, staple.problem) = (Some(until), None);
                news.then(|| {
                    Step::Taken(format!("listeners[{id}].ssl.ocsp: {url} says that our certificate is good"))
                })
            }
            Err(error) => {
                let problem = match error {
                    OcspError::Revoked => {
                        staple.until_unix = None;
                        format!("{error}: nothing is stapled to it")
                    }
                    OcspError::Useless(why) => why,
                };
                staple.due_ms = now.plus_ms(interval_ms.min(RETRY_MS)).mono_ms;
                let news = staple.problem.as_ref() != Some(&problem);
                let text = format!("listeners[{id}].ssl.ocsp: {url}: {problem}");
                staple.problem = Some(problem);
                news.then_some(Step::Failed(text))
            }
        }
    }
}
