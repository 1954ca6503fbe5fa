//! Where revocation lists come from: files that change and addresses that are asked again and again. What is due, and what
//! an answer does; reading and fetching are the caller's to start.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use rustls::pki_types::CertificateRevocationListDer;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::config::settings::CrlCache;
use crate::config::settings::CrlSource;
use crate::config::settings::HttpUrl;
use crate::net::clock;
use crate::net::http_client::HttpError;
use crate::net::http_client::fetch;
use crate::net::pem;
use crate::net::tls;
use crate::net::tls::ClientTls;
use crate::net::trust::ClientTrust;
use crate::time::Now;

/// Longest list that is fetched: one of 100 000 entries has five megabytes.
const FETCHED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How soon a fetch that failed is tried again.
const RETRY_MS: u64 = 60_000;

/// What became of lists.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Other ones are in force.
    Taken(String),
    /// They cannot be had, or cannot be used. Said once until it changes.
    Failed(String),
}

/// By what it is seen that a file is not what it was.
type Stamp = Option<(SystemTime, u64)>;

/// A file of one listener.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    id: String,
    path: PathBuf,
    trust: Arc<ClientTrust>,
    stamp: Stamp,
    problem: Option<String>,
}

/// A file after a look at it.
#[derive(Debug)]
pub(super) struct Looked {
    file: Watched,
    /// Whether other lists are in force now.
    anew: bool,
}

impl Watched {
    /// Looks at the file, and reads it if it changed.
    pub(super) fn read(mut self) -> Looked {
        let stamp = fs::metadata(&self.path).and_then(|file| Ok((file.modified()?, file.len())));
        match stamp {
            Ok(stamp) if self.stamp == Some(stamp) && self.problem.is_none() => {
                Looked { file: self, anew: false }
            }
            Ok(stamp) => {
                let first = self.stamp.is_none() && self.problem.is_none();
                let before = self.trust.next_update_unix();
                let adopted = tls::adopt_file(&self.trust, &self.path, clock::now());
                self.problem = adopted.err().map(|error| error.to_string());
                self.stamp = Some(stamp);
                // The first look is only there to be sure that nothing changed since the start.
                let anew = self.problem.is_none() && (!first || self.trust.next_update_unix() != before);
                Looked { file: self, anew }
            }
            Err(error) => {
                self.problem = Some(format!("crlfile {}: {error}", self.path.display()));
                Looked { file: self, anew: false }
            }
        }
    }
}

/// An address.
#[derive(Debug, Default)]
struct Fetched {
    list: Option<CertificateRevocationListDer<'static>>,
    due_ms: u64,
    under_way: bool,
    problem: Option<String>,
}

/// A question to be asked.
#[derive(Debug)]
pub(super) struct Fetch {
    url: HttpUrl,
    web: Option<ClientTls>,
    limit: Duration,
}

impl Fetch {
    /// Asks.
    pub(super) async fn run(self) -> (HttpUrl, Result<Vec<u8>, HttpError>) {
        let result = fetch(&self.url, None, self.web.as_ref(), FETCHED_BYTES_MAX, self.limit).await;
        (self.url, result)
    }
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) url: HttpUrl,
    pub(super) result: Result<Vec<u8>, HttpError>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Lists {
    files: BTreeMap<String, Watched>,
    by_url: Vec<(String, Vec<HttpUrl>, Arc<ClientTrust>)>,
    fetched: BTreeMap<HttpUrl, Fetched>,
    web: Option<ClientTls>,
    interval_ms: u64,
    limit: Duration,
}

impl Default for Lists {
    fn default() -> Self {
        Self {
            files: BTreeMap::new(),
            by_url: Vec::new(),
            fetched: BTreeMap::new(),
            web: None,
            interval_ms: u64::MAX,
            limit: Duration::ZERO,
        }
    }
}

impl Lists {
    /// Takes the sources of all listeners. An address that is still named keeps its list; all are asked at once.
    pub(super) fn take(
        &mut self,
        sources: Vec<(String, CrlSource, Arc<ClientTrust>)>,
        cache: CrlCache,
        web: Option<ClientTls>,
        now: Now,
    ) {
        self.files.clear();
        self.by_url.clear();
        for (id, source, trust) in sources {
            match source {
                CrlSource::File(path) => {
                    let file = Watched { id: id.clone(), path, trust, stamp: None, problem: None };
                    self.files.insert(id, file);
                }
                CrlSource::Urls(urls) => self.by_url.push((id, urls, trust)),
            }
        }
        let named: BTreeSet<&HttpUrl> = self.by_url.iter().flat_map(|(_, urls, _)| urls).collect();
        self.fetched.retain(|url, _| named.contains(url));
        for url in named {
            self.fetched.entry(url.clone()).or_default().due_ms = now.mono_ms;
        }
        self.web = web;
        self.interval_ms = u64::try_from(cache.refresh_interval.as_millis()).unwrap_or(u64::MAX);
        self.limit = cache.http_timeout;
        for (id, urls, trust) in &self.by_url {
            let known = known_lists(urls, &self.fetched);
            if !known.is_empty()
                && let Err(error) = trust.adopt(known, true)
            {
                tracing::warn!(
                    listener = id,
                    "revocation lists that were fetched before are of no use now: {error}"
                );
            }
        }
    }

    /// The files, to be looked at.
    pub(super) fn files(&self) -> Vec<Watched> {
        self.files.values().cloned().collect()
    }

    /// Takes a file that was looked at, unless a reload has replaced it meanwhile.
    pub(super) fn was_read(&mut self, looked: Looked) -> Option<Step> {
        let Looked { file, anew } = looked;
        let known = self.files.get_mut(&file.id).filter(|known| Arc::ptr_eq(&known.trust, &file.trust))?;
        let step = match &file.problem {
            Some(problem) if known.problem.as_ref() != Some(problem) => {
                Some(Step::Failed(format!("listeners[{}].ssl.{problem}", file.id)))
            }
            None if anew => Some(Step::Taken(format!("listeners[{}].ssl.crlfile was read again", file.id))),
            _ => None,
        };
        *known = file;
        step
    }

    /// What is to be asked now.
    pub(super) fn due(&mut self, now: Now) -> Vec<Fetch> {
        let due = self.fetched.iter_mut().filter(|(_, one)| !one.under_way && one.due_ms <= now.mono_ms);
        due.map(|(url, one)| {
            one.under_way = true;
            Fetch { url: url.clone(), web: self.web.clone(), limit: self.limit }
        })
        .collect()
    }

    /// Takes an answer. A list that no listener can use is as good as none.
    pub(super) fn was_fetched(&mut self, answer: Answer, now: Now) -> Vec<Step> {
        let Answer { url, result } = answer;
        let mut steps = Vec::new();
        let Some(entry) = self.fetched.get_mut(&url) else { return Vec::new() };
        entry.under_way = false;
        entry.due_ms = now.plus_ms(self.interval_ms).mono_ms;
        let list = result.map_err(|error| error.to_string()).and_then(|bytes| {
            let list = pem::revocation_list(&bytes)?;
            check_newer(entry.list.as_deref(), &list, now)?;
            Ok(list)
        });
        let failed = match list {
            Ok(list) if entry.list.as_ref() == Some(&list) => None,
            Ok(list) => {
                let before = entry.list.replace(list);
                let (taken, failed) = self.adopt_of(&url);
                let Some(entry) = self.fetched.get_mut(&url) else { return Vec::new() };
                if !taken {
                    entry.list = before;
                } else if failed.is_none() {
                    let again = if entry.problem.take().is_some() { " again" } else { "" };
                    return vec![Step::Taken(format!("{url} was fetched{again}"))];
                } else {
                    steps.push(Step::Taken(format!("{url} was fetched, though not for every listener")));
                }
                failed
            }
            Err(error) => Some(error),
        };
        let Some(entry) = self.fetched.get_mut(&url) else { return Vec::new() };
        if failed.is_some() {
            entry.due_ms = now.plus_ms(self.interval_ms.min(RETRY_MS)).mono_ms;
        }
        let told = failed != entry.problem;
        entry.problem = failed;
        if let Some(problem) = entry.problem.as_ref().filter(|_| told) {
            steps.push(Step::Failed(format!("{url}: {problem}")));
        }
        steps
    }

    /// Puts the lists of every listener that names `url` in force: whether there is one that took them, and why not, if
    /// there is one that cannot use them.
    fn adopt_of(&self, url: &HttpUrl) -> (bool, Option<String>) {
        let concerned = self.by_url.iter().filter(|(_, urls, _)| urls.contains(url));
        let (mut taken, mut failed) = (false, None);
        for (id, urls, trust) in concerned {
            // All of them are tried, whatever became of the one before.
            match trust.adopt(known_lists(urls, &self.fetched), true) {
                Ok(()) => taken = true,
                Err(error) => failed = failed.or_else(|| Some(format!("listeners[{id}]: {error}"))),
            }
        }
        (taken, failed)
    }
}

/// Refuses an older list than `before`: replayed, it would let in again whom the newer one revoked.
fn check_newer(before: Option<&[u8]>, list: &[u8], now: Now) -> Result<(), String> {
    let Some((_, before)) = before.and_then(|der| CertificateRevocationList::from_der(der).ok()) else {
        return Ok(());
    };
    let (_, list) = CertificateRevocationList::from_der(list)
        .map_err(|error| format!("not a revocation list: {error}"))?;
    // One of the future was made by a wrong clock, and does not keep out those that are right.
    let older = list.issuer().as_raw() == before.issuer().as_raw()
        && before.last_update().timestamp() <= now.unix_seconds()
        && list.last_update().timestamp() < before.last_update().timestamp();
    if older { Err("older than the list in force".to_owned()) } else { Ok(()) }
}

fn known_lists(
    urls: &[HttpUrl],
    fetched: &BTreeMap<HttpUrl, Fetched>,
) -> Vec<CertificateRevocationListDer<'static>> {
    urls.iter().filter_map(|url| fetched.get(url)?.list.clone()).collect()
}
