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
    /// Whose list is older than the one before.
    older: Vec<String>,
}

impl Watched {
    /// Looks at the file, and reads it if it changed.
    pub(super) fn read(mut self) -> Looked {
        let stamp = fs::metadata(&self.path).and_then(|file| Ok((file.modified()?, file.len())));
        let (mut anew, mut older) = (false, Vec::new());
        match stamp {
            Ok(stamp) if self.stamp == Some(stamp) && self.problem.is_none() => {}
            Ok(stamp) => {
                let first = self.stamp.is_none() && self.problem.is_none();
                let before = self.trust.made();
                let adopted = tls::adopt_file(&self.trust, &self.path, clock::now());
                self.problem = adopted.err().map(|error| error.to_string());
                self.stamp = Some(stamp);
                let made = self.trust.made();
                older = made.older_than(&before);
                // The first look is only there to be sure that nothing changed since the start.
                anew = self.problem.is_none() && (!first || made != before);
            }
            Err(error) => self.problem = Some(format!("crlfile {}: {error}", self.path.display())),
        }
        Looked { file: self, anew, older }
    }
}

/// A list, shared by whoever is about to put it in force.
type List = Arc<CertificateRevocationListDer<'static>>;

/// An address.
#[derive(Debug, Default)]
struct Fetched {
    list: Option<List>,
    due_ms: u64,
    under_way: bool,
    problem: Option<String>,
}

/// A question to be asked.
#[derive(Debug)]
pub(super) struct Fetch {
    pub(super) url: HttpUrl,
    web: Option<ClientTls>,
    limit: Duration,
}

impl Fetch {
    /// Asks.
    pub(super) async fn run(self) -> Result<Vec<u8>, HttpError> {
        fetch(&self.url, None, self.web.as_ref(), FETCHED_BYTES_MAX, self.limit).await
    }
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) url: HttpUrl,
    pub(super) result: Result<Vec<u8>, String>,
}

/// A listener, and the lists that are to be in force there: those of each of its addresses that has one, in turn.
#[derive(Debug)]
pub(super) struct Adoption {
    id: String,
    trust: Arc<ClientTrust>,
    lists: Vec<(HttpUrl, List)>,
}

impl Adoption {
    /// Puts them in force, which takes its time if they are long.
    fn run(&self) -> Result<(), String> {
        let lists = self.lists.iter().map(|(_, list)| CertificateRevocationListDer::clone(list));
        self.trust.adopt(lists.collect(), true)
    }

    /// The same after a start or a reload, when nobody asked.
    pub(super) fn run_again(&self) {
        if let Err(error) = self.run() {
            let listener = &self.id;
            tracing::warn!(listener, "revocation lists that were fetched before are of no use now: {error}");
        }
    }
}

/// An answer and whom it concerns.
#[derive(Debug)]
pub(super) struct Trial {
    url: HttpUrl,
    before: Option<List>,
    /// The last time a listener did not take it, or there was none: the same list is tried again.
    troubled: bool,
    adoptions: Vec<Adoption>,
}

/// What became of an answer.
#[derive(Debug)]
pub(super) struct Verdict {
    url: HttpUrl,
    /// The list, if there is a listener that took it.
    taken: Option<List>,
    /// Why there is none, or what a listener has against it.
    failed: Option<String>,
}

impl Verdict {
    /// Of an answer that was not looked at.
    pub(super) fn failed(url: HttpUrl, why: String) -> Self {
        Self { url, taken: None, failed: Some(why) }
    }
}

impl Trial {
    /// Reads the answer and puts it in force wherever it can be. A list that no listener can use is as good as none.
    pub(super) fn run(mut self, result: Result<Vec<u8>, String>, now: Now) -> Verdict {
        let list = result.and_then(|bytes| {
            let list = pem::revocation_list(&bytes)?;
            check_newer(self.before.as_deref().map(|list| &**list), &list, now)?;
            Ok(Arc::new(list))
        });
        let list = match list {
            Ok(list) if self.troubled || self.before.as_ref() != Some(&list) => list,
            same => return Verdict { url: self.url, taken: None, failed: same.err() },
        };
        let (mut taken, mut failed) = (false, None);
        for adoption in &mut self.adoptions {
            adoption.lists.retain(|(url, _)| *url != self.url);
            adoption.lists.push((self.url.clone(), Arc::clone(&list)));
            // All of them are tried, whatever became of the one before.
            match adoption.run() {
                Ok(()) => taken = true,
                Err(error) => {
                    failed = failed.or_else(|| Some(format!("listeners[{}]: {error}", adoption.id)))
                }
            }
        }
        Verdict { url: self.url, taken: taken.then_some(list), failed }
    }
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
    }

    /// What was fetched before, to be put in force after a start or a reload.
    pub(super) fn known(&self) -> Vec<Adoption> {
        let all = self.by_url.iter().map(|one| self.adoption(one));
        all.filter(|adoption| !adoption.lists.is_empty()).collect()
    }

    fn adoption(&self, (id, urls, trust): &(String, Vec<HttpUrl>, Arc<ClientTrust>)) -> Adoption {
        let known = urls.iter().filter_map(|url| {
            let list = self.fetched.get(url)?.list.as_ref()?;
            Some((url.clone(), Arc::clone(list)))
        });
        Adoption { id: id.clone(), trust: Arc::clone(trust), lists: known.collect() }
    }

    /// The files, to be looked at.
    pub(super) fn files(&self) -> Vec<Watched> {
        self.files.values().cloned().collect()
    }

    /// Takes a file that was looked at, unless a reload has replaced it meanwhile.
    pub(super) fn was_read(&mut self, looked: Looked) -> Option<Step> {
        let Looked { file, anew, older } = looked;
        let known = self.files.get_mut(&file.id).filter(|known| Arc::ptr_eq(&known.trust, &file.trust))?;
        let step = match &file.problem {
            Some(problem) if known.problem.as_ref() != Some(problem) => {
                Some(Step::Failed(format!("listeners[{}].ssl.{problem}", file.id)))
            }
            None if anew => Some(Step::Taken(was_read_again(&file.id, &older))),
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

    /// Whom an answer concerns, unless nobody names that address any more.
    pub(super) fn trial(&self, url: &HttpUrl) -> Option<Trial> {
        let entry = self.fetched.get(url)?;
        let (before, troubled) = (entry.list.clone(), entry.problem.is_some());
        let concerned = self.by_url.iter().filter(|(_, urls, _)| urls.contains(url));
        let adoptions = concerned.map(|one| self.adoption(one)).collect();
        Some(Trial { url: url.clone(), before, troubled, adoptions })
    }

    /// Takes what became of an answer.
    pub(super) fn was_tried(&mut self, verdict: Verdict, now: Now) -> Vec<Step> {
        let Verdict { url, taken, failed } = verdict;
        let Some(entry) = self.fetched.get_mut(&url) else { return Vec::new() };
        entry.under_way = false;
        let interval_ms = if failed.is_some() { self.interval_ms.min(RETRY_MS) } else { self.interval_ms };
        entry.due_ms = now.plus_ms(interval_ms).mono_ms;
        let again = if entry.problem.is_some() { " again" } else { "" };
        let told = failed.is_some() && failed != entry.problem;
        entry.problem = failed;
        let mut steps = Vec::new();
        if let Some(list) = taken {
            entry.list = Some(list);
            steps.push(Step::Taken(match &entry.problem {
                None => format!("{url} was fetched{again}"),
                Some(_) => format!("{url} was fetched, though not for every listener"),
            }));
        }
        if let Some(problem) = entry.problem.as_ref().filter(|_| told) {
            steps.push(Step::Failed(format!("{url}: {problem}")));
        }
        steps
    }
}

fn was_read_again(id: &str, older: &[String]) -> String {
    let place = format!("listeners[{id}].ssl.crlfile");
    for name in older {
        tracing::warn!("{place}: the list of `{name}` is older than the one before");
    }
    match older {
        [] => format!("{place} was read again"),
        [name, ..] => format!("{place} was read again, with an older list of `{name}` than the one before"),
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
