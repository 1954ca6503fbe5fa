//! The rules of a running broker, swapped: read again, tried beside those in force, or replaced by what was tried. All
//! or nothing: until a file is read, compiled and linted nothing changes, and then one pointer does.
//!
//! Everything here blocks, by reading files, compiling ten thousand rules or asking about every subscription: it is
//! called off the threads that serve clients, which go on meanwhile.

use std::fs;
use std::io;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use crate::acl::difference::Difference;
use crate::broker::Broker;
use crate::broker::acl_file::AclFile;
use crate::broker::acl_file::LoadedRules;
use crate::broker::acl_front::Front;
use crate::broker::events::event::What;
use crate::broker::identity::Policy;
use crate::broker::shadow::Shadow;
use crate::metrics::labels::Outcome;
use crate::net::clock;
use crate::time::Now;

/// Swaps that may come between the reading of a file and its own before that is given up.
const ATTEMPTS_MAX: usize = 8;

/// What a reload did.
#[derive(Debug, Clone)]
pub struct AclReloaded {
    /// How the rules differ from those before.
    pub difference: Difference,
    /// What is legal in the file but surely not meant.
    pub warnings: Vec<String>,
    /// Names the rules now in force.
    pub generation: u64,
    /// How many they are.
    pub rules: usize,
    /// Subscriptions that were removed because they are denied now.
    pub subscriptions_removed: usize,
}

/// Why the rules did not change.
#[derive(Debug, thiserror::Error)]
pub enum AclReloadError {
    /// What is wrong with the file.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
    /// There is nothing on trial.
    #[error("no rules are on trial")]
    NoShadow,
    /// The rules in force are built in.
    #[error(
        "the rules in force are built in: name a file in authorization.file, into which others can be written"
    )]
    BuiltIn,
    /// The file could not be replaced.
    #[error("{0}: {1}")]
    Write(String, io::Error),
    /// Others reloaded all the time.
    #[error("other reloads came in between: try again")]
    Busy,
}

impl Broker {
    /// Reads the ACL file again. The rules in force stay when anything is wrong with it.
    ///
    /// # Errors
    /// What is wrong.
    pub fn reload_acl(&self) -> Result<AclReloaded, AclReloadError> {
        self.counted(|| self.replace_rules(|policy| policy.file.load()))
    }

    /// Tries `text` beside the rules in force until it is applied or dropped; takes the place of what was tried before.
    /// The subscriptions there are are asked about at once.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn try_rules(&self, name: &str, text: &str, now: Now) -> Result<Vec<String>, AclReloadError> {
        for _ in 0..ATTEMPTS_MAX {
            let current = self.policy();
            let LoadedRules { policy, warnings, .. } =
                current.file.compile(name, text.as_bytes()).map_err(AclReloadError::Invalid)?;
            let rules = Arc::unwrap_or_clone(policy.rules);
            let shadow = Shadow::new(name.to_owned(), text.to_owned(), rules, current.no_match, now.unix_ms);
            let next = Policy { shadow: Some(Arc::new(shadow)), ..(*current).clone() };
            if self.swap_policy(next, current.generation).is_some() {
                tracing::info!(name, "ACL rules on trial");
                self.recheck_subscriptions();
                return Ok(warnings);
            }
        }
        Err(AclReloadError::Busy)
    }

    /// Ends the trial. The counts it came to.
    ///
    /// # Errors
    /// If there is none.
    pub fn drop_tried_rules(&self) -> Result<Arc<Shadow>, AclReloadError> {
        for _ in 0..ATTEMPTS_MAX {
            let current = self.policy();
            let shadow = current.shadow.clone().ok_or(AclReloadError::NoShadow)?;
            let next = Policy { shadow: None, ..(*current).clone() };
            if self.swap_policy(next, current.generation).is_some() {
                tracing::info!(name = shadow.name, "ACL rules on trial dropped");
                return Ok(shadow);
            }
        }
        Err(AclReloadError::Busy)
    }

    /// Puts what was tried in force, and into the ACL file, so that the next start and the next reload find it there.
    ///
    /// # Errors
    /// If there is nothing on trial, or the file cannot be replaced; the trial goes on then.
    pub fn apply_tried_rules(&self) -> Result<AclReloaded, AclReloadError> {
        let policy = self.policy();
        let shadow = policy.shadow.clone().ok_or(AclReloadError::NoShadow)?;
        let path = policy.file.path.clone().ok_or(AclReloadError::BuiltIn)?;
        self.counted(|| {
            // Compiled before it is written: by now the settings may ask for more than when the trial began.
            policy.file.compile(&shadow.name, shadow.text.as_bytes()).map_err(AclReloadError::Invalid)?;
            replace_file(&path, shadow.text.as_bytes())
                .map_err(|error| AclReloadError::Write(path.display().to_string(), error))?;
            tracing::info!(name = shadow.name, file = %path.display(), "ACL rules on trial applied");
            let reloaded = self.replace_rules(|policy| policy.file.load())?;
            self.drop_tried_rules()?;
            Ok(reloaded)
        })
    }

    /// Puts what follows from other links in front of the file, whose rules stay as they are. Returns whether that changed
    /// anything: if so, subscriptions are to be asked about again.
    pub(super) fn set_front(&self, file: &Arc<AclFile>, front: Option<&Arc<Front>>) -> bool {
        loop {
            let current = self.policy();
            if current.file.has_links_of(file) {
                return false;
            }
            let next = Policy { file: Arc::clone(file), front: front.cloned(), ..(*current).clone() };
            // Whoever was faster has swapped the rules of the file, not the links.
            if self.swap_policy(next, current.generation).is_some() {
                return true;
            }
        }
    }

    fn replace_rules(
        &self,
        load: impl Fn(&Policy) -> Result<LoadedRules, Vec<String>>,
    ) -> Result<AclReloaded, AclReloadError> {
        for _ in 0..ATTEMPTS_MAX {
            let current = self.policy();
            let LoadedRules { policy, warnings, .. } = load(&current).map_err(AclReloadError::Invalid)?;
            let difference = Difference::between(&current.rules, &policy.rules);
            let rules = policy.rules.len();
            let next = Policy { shadow: current.shadow.clone(), ..policy };
            let Some(generation) = self.swap_policy(next, current.generation) else { continue };
            warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
            log_difference(&difference, generation);
            let subscriptions_removed = self.recheck_subscriptions();
            return Ok(AclReloaded { difference, warnings, generation, rules, subscriptions_removed });
        }
        Err(AclReloadError::Busy)
    }

    fn counted(
        &self,
        reload: impl FnOnce() -> Result<AclReloaded, AclReloadError>,
    ) -> Result<AclReloaded, AclReloadError> {
        let result = reload();
        let outcome = if result.is_ok() { Outcome::Ok } else { Outcome::Error };
        self.metrics.broker.acl_reloads[outcome].inc();
        let text = match &result {
            Ok(reloaded) => reloaded.difference.to_string(),
            Err(error) => error.to_string(),
        };
        self.security_note(What::AclReload { taken: result.is_ok() }, &text, clock::now());
        if let Err(error) = &result {
            tracing::error!("ACL reload refused, the rules in force stay: {error}");
        }
        result
    }
}

/// Says in the log what other rules are in force now.
pub(super) fn log_difference(difference: &Difference, generation: u64) {
    tracing::info!(generation, "ACL: {difference}");
    difference.lines.iter().for_each(|line| tracing::info!("ACL: {line}"));
}

/// Writes beside the file, then moves that into its place, with the permissions the file has.
fn replace_file(path: &Path, text: &[u8]) -> io::Result<()> {
    // A link stays one: what it leads to is replaced.
    let path = fs::canonicalize(path)?;
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = folder.join(format!(".{name}.{}.tmp", std::process::id()));
    let written = fs::metadata(&path).and_then(|metadata| {
        let _ = fs::remove_file(&beside);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).open(&beside)?;
        file.set_permissions(metadata.permissions())?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        fs::File::open(folder)?.sync_all()
    });
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}
