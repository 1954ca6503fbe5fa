//! The link certificate on disk: `<data>/link/cert.pem` and `key.pem`, made when they are needed first, and `next.pem`
//! beside them while a rotation is under way (trust.md 2.1, 2.6). The folder has mode 0700, the files 0600.
//!
//! Two files cannot be replaced at once. Whatever is to become the pair is written to `next.pem` as a whole first, and that
//! goes last: a process that was killed between finds there what it was at, and finishes it. So a certificate without its
//! key is never what a crash left behind, and is an error.
//!
//! All of it waits for the disk: call it where that is allowed.

mod files;
mod stand;

use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use self::files::Files;
use self::stand::Stand;
use crate::net::own_certificate::OwnCertificate;
use crate::net::own_certificate::OwnCertificateError;
use crate::net::own_certificate::Pair;
use crate::time::Now;

/// Why there is no link certificate.
#[derive(Debug, thiserror::Error)]
pub enum LinkKeysError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// What is in a file is no good, or what was handed in.
    #[error("{}: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: OwnCertificateError,
    },
    /// What was handed in is no good.
    #[error(transparent)]
    Refused(#[from] OwnCertificateError),
    /// One of the two files is missing.
    #[error(
        "{}: it is there without {missing}: put that back, or move it away as well to have a new pair made, which peers do not know",
        path.display()
    )]
    Half {
        /// The file that is there.
        path: PathBuf,
        /// The name of the one that is not.
        missing: &'static str,
    },
    /// A key that everybody on this machine can read.
    #[error("{}: it is open to every user of this machine: chmod 600 it, or rotate if somebody may have read it", .0.display())]
    Exposed(PathBuf),
    /// A rotation is under way.
    #[error("a rotation of the link certificate is under way: finish it or give it up first")]
    Rotating,
    /// None is.
    #[error("no rotation of the link certificate is under way")]
    NotRotating,
}

/// The cluster's pair, and the next one during a rotation. Whoever opens it has the lock of the data directory.
#[derive(Debug)]
pub struct LinkKeys {
    files: Files,
    cluster: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    current: Option<Arc<OwnCertificate>>,
    next: Option<Next>,
    warnings: Vec<String>,
    is_new: bool,
}

/// The pair of a rotation that is under way.
#[derive(Debug)]
struct Next {
    pair: Pair,
    judged: Arc<OwnCertificate>,
    /// The last second in which the one in force is good, since the Unix epoch; `None` if an older version began it.
    until: Option<u64>,
}

impl LinkKeys {
    /// Reads what is in the data directory, and finishes what was interrupted. Nothing is made yet.
    ///
    /// # Errors
    /// What is wrong with a file, and what to do.
    pub fn open(data: &Path, cluster: &str) -> Result<Self, LinkKeysError> {
        let files = Files::new(data);
        let (stand, warnings) = files.read()?;
        let mut state = State { warnings, ..State::default() };
        match stand {
            Stand::Nothing => {}
            Stand::Unfinished(pair) => {
                state.current = Some(Arc::new(files.judge(&pair)?));
                files.put_in_place(&pair)?;
            }
            Stand::Settled { current, next } => {
                state.current = Some(Arc::new(files.judge(&current)?));
                if let Some(pair) = next {
                    let judged = Arc::new(files.judge_next(&pair)?);
                    state.next = Some(Next { pair, judged, until: files.until() });
                }
            }
        }
        Ok(Self { files, cluster: cluster.to_owned(), state: Mutex::new(state) })
    }

    /// The pair that is in a data directory, for whoever may only look: another process may be using it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn look(data: &Path) -> Result<Option<OwnCertificate>, LinkKeysError> {
        let files = Files::new(data);
        match files.read()?.0 {
            Stand::Nothing => Ok(None),
            Stand::Unfinished(pair) | Stand::Settled { current: pair, .. } => files.judge(&pair).map(Some),
        }
    }

    /// The certificate in force, if one was needed yet.
    #[must_use]
    pub fn current(&self) -> Option<Arc<OwnCertificate>> {
        self.state.lock().current.clone()
    }

    /// What an operator should know of the files, from when they were read.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.state.lock().warnings.clone()
    }

    /// The certificate in force; made now if there is none.
    ///
    /// # Errors
    /// If it cannot be made or stored.
    pub fn ensure(&self, now: Now) -> Result<Arc<OwnCertificate>, LinkKeysError> {
        let mut state = self.state.lock();
        if let Some(current) = &state.current {
            return Ok(Arc::clone(current));
        }
        let made = Pair::make(&self.cluster, now)?;
        let own = self.adopt(&mut state, &made)?;
        state.is_new = true;
        Ok(own)
    }

    /// Whether there was none when the broker started: nobody can know what is shown.
    #[must_use]
    pub fn is_new(&self) -> bool {
        let state = self.state.lock();
        state.is_new || state.current.is_none()
    }

    /// Puts a pair of the operator's in force instead of the one there is (trust.md 2.2). One text may hold both.
    ///
    /// # Errors
    /// If the pair is no good for links, is not within its dates, or cannot be stored; or during a rotation.
    pub fn import(
        &self,
        certificates: &str,
        key: &str,
        now: Now,
    ) -> Result<Arc<OwnCertificate>, LinkKeysError> {
        let pair = Pair::from_pem(certificates, key)?;
        OwnCertificate::new(&pair)?.check_dates(now)?;
        let mut state = self.state.lock();
        if state.next.is_some() {
            return Err(LinkKeysError::Rotating);
        }
        self.adopt(&mut state, &pair)
    }

    fn adopt(&self, state: &mut State, pair: &Pair) -> Result<Arc<OwnCertificate>, LinkKeysError> {
        let judged = Arc::new(OwnCertificate::new(pair)?);
        self.files.write_next(pair, None)?;
        self.files.put_in_place(pair)?;
        state.current = Some(Arc::clone(&judged));
        Ok(judged)
    }

    /// The certificate that is to be in force after the rotation that is under way.
    #[must_use]
    pub fn next(&self) -> Option<Arc<OwnCertificate>> {
        self.state.lock().next.as_ref().map(|next| Arc::clone(&next.judged))
    }

    /// The last second in which the certificate in force is good beside the next one, since the Unix epoch. `None` if no
    /// rotation is under way, or an older version has begun it.
    #[must_use]
    pub fn next_until(&self) -> Option<u64> {
        self.state.lock().next.as_ref().and_then(|next| next.until)
    }

    /// Begins a rotation: makes the next pair, to be told to peers before it is in force (trust.md 2.6). The one in force is good
    /// until `until`, in seconds since the Unix epoch. Of a rotation that is under way the moment is only brought forward: peers
    /// that were told of it refuse the certificate in force from then on.
    ///
    /// # Errors
    /// If it cannot be made or stored.
    pub fn prepare_next(&self, now: Now, until: u64) -> Result<Arc<OwnCertificate>, LinkKeysError> {
        let mut state = self.state.lock();
        if let Some(next) = &mut state.next {
            if next.until.is_none_or(|before| until < before) {
                self.files.write_next(&next.pair, Some(until))?;
                next.until = Some(until);
            }
            return Ok(Arc::clone(&next.judged));
        }
        let pair = Pair::make(&self.cluster, now)?;
        let judged = Arc::new(OwnCertificate::new(&pair)?);
        self.files.write_next(&pair, Some(until))?;
        state.next = Some(Next { pair, judged: Arc::clone(&judged), until: Some(until) });
        Ok(judged)
    }

    /// Ends a rotation: the next pair is the one in force.
    ///
    /// # Errors
    /// If none is under way, or the files cannot be written; the pair before stays in force then, and the next start of the
    /// broker may find the new one.
    pub fn promote(&self) -> Result<Arc<OwnCertificate>, LinkKeysError> {
        let mut state = self.state.lock();
        let next = state.next.as_ref().ok_or(LinkKeysError::NotRotating)?;
        self.files.put_in_place(&next.pair)?;
        let judged = Arc::clone(&next.judged);
        state.next = None;
        state.current = Some(Arc::clone(&judged));
        Ok(judged)
    }

    /// Gives a rotation up: the next pair is destroyed.
    ///
    /// # Errors
    /// If none is under way, or its file cannot be removed.
    pub fn abandon_next(&self) -> Result<(), LinkKeysError> {
        let mut state = self.state.lock();
        if state.next.is_none() {
            return Err(LinkKeysError::NotRotating);
        }
        self.files.remove_next()?;
        state.next = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
