//! The three files: read within bounds and with their modes, written so that each is whole.

use std::fs;
use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::LinkKeysError;
use super::stand::Senseless;
use super::stand::Stand;
use crate::broker::replace::replace;
use crate::config::LINK_CERTIFICATE;
use crate::config::LINK_FOLDER;
use crate::config::LINK_KEY;
use crate::net::own_certificate::Key;
use crate::net::own_certificate::OwnCertificate;
use crate::net::own_certificate::OwnCertificateError;
use crate::net::own_certificate::PEM_BYTES_MAX;
use crate::net::own_certificate::Pair;
use crate::net::own_certificate::chain_from_pem;
use crate::net::own_certificate::chain_pem;
use crate::time::moment;

const NEXT: &str = "next.pem";
/// Stands before the moment in the first line of that file, which is none of PEM's.
const UNTIL: &str = "until ";
/// Longest of these files, in bytes.
const FILE_BYTES_MAX: u64 = PEM_BYTES_MAX as u64;

/// Where they are.
#[derive(Debug)]
pub(super) struct Files {
    data: PathBuf,
    folder: PathBuf,
}

impl Files {
    pub(super) fn new(data: &Path) -> Self {
        Self { data: data.to_owned(), folder: data.join(LINK_FOLDER) }
    }

    /// What there is, and what to warn of.
    pub(super) fn read(&self) -> Result<(Stand, Vec<String>), LinkKeysError> {
        let mut warnings = Vec::new();
        let content = |name| move |source| LinkKeysError::Content { path: self.folder.join(name), source };
        let chain = self.text(LINK_CERTIFICATE)?.map(|text| chain_from_pem(&text));
        let key = self.secret(LINK_KEY, &mut warnings)?.map(|text| Key::from_pem(&text));
        let next = self.secret(NEXT, &mut warnings)?.map(|text| Pair::from_pem(&text, &text));
        let stand = Stand::of(
            chain.transpose().map_err(content(LINK_CERTIFICATE))?,
            key.transpose().map_err(content(LINK_KEY))?,
            next.transpose().map_err(content(NEXT))?,
        );
        let stand = stand.map_err(|senseless| match senseless {
            Senseless::NoKey => {
                LinkKeysError::Half { path: self.folder.join(LINK_CERTIFICATE), missing: LINK_KEY }
            }
            Senseless::NoCertificate => {
                LinkKeysError::Half { path: self.folder.join(LINK_KEY), missing: LINK_CERTIFICATE }
            }
            Senseless::Mismatch => content(LINK_KEY)(OwnCertificateError::Mismatch),
        })?;
        Ok((stand, warnings))
    }

    /// The pair in force, for use.
    pub(super) fn judge(&self, pair: &Pair) -> Result<OwnCertificate, LinkKeysError> {
        self.judged(LINK_CERTIFICATE, pair)
    }

    /// The same of the next one.
    pub(super) fn judge_next(&self, pair: &Pair) -> Result<OwnCertificate, LinkKeysError> {
        self.judged(NEXT, pair)
    }

    fn judged(&self, name: &str, pair: &Pair) -> Result<OwnCertificate, LinkKeysError> {
        OwnCertificate::new(pair)
            .map_err(|source| LinkKeysError::Content { path: self.folder.join(name), source })
    }

    /// Writes down what is to become the pair, and of a rotation until when the one before is good.
    pub(super) fn write_next(&self, pair: &Pair, until: Option<u64>) -> Result<(), LinkKeysError> {
        self.make_folder().map_err(|source| LinkKeysError::Io { path: self.folder.clone(), source })?;
        let first = until.map(|until| format!("{UNTIL}{}\n", moment::format(until))).unwrap_or_default();
        let pem = pair.pem();
        let mut text = Zeroizing::new(String::with_capacity(first.len() + pem.len()));
        text.push_str(&first);
        text.push_str(&pem);
        self.write(NEXT, &text)
    }

    /// Until when the pair in force is good beside the one that is written down, if that is said.
    pub(super) fn until(&self) -> Option<u64> {
        let text = self.text(NEXT).ok().flatten()?;
        moment::parse(text.lines().next()?.strip_prefix(UNTIL)?)
    }

    /// Makes what was written down the pair.
    pub(super) fn put_in_place(&self, pair: &Pair) -> Result<(), LinkKeysError> {
        self.write(LINK_KEY, &pair.key.pem())?;
        self.write(LINK_CERTIFICATE, &chain_pem(&pair.chain))?;
        self.remove_next()
    }

    /// Removes what was written down.
    pub(super) fn remove_next(&self) -> Result<(), LinkKeysError> {
        let path = self.folder.join(NEXT);
        let removed = fs::remove_file(&path).and_then(|()| sync(&self.folder));
        removed.map_err(|source| LinkKeysError::Io { path, source })
    }

    fn write(&self, name: &str, text: &str) -> Result<(), LinkKeysError> {
        replace(&self.folder.join(name), text).map_err(|(path, source)| LinkKeysError::Io { path, source })
    }

    fn make_folder(&self) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        match builder.create(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made.and_then(|()| sync(&self.data)),
        }
    }

    fn text(&self, name: &str) -> Result<Option<Zeroizing<String>>, LinkKeysError> {
        let opened = File::open(self.folder.join(name)).map(Some);
        let opened = opened.or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(None),
            _ => Err(error),
        });
        let read = opened.and_then(|file| file.map(read_whole).transpose());
        read.map_err(|source| LinkKeysError::Io { path: self.folder.join(name), source })
    }

    /// The text of a file that holds a key, which is for its owner, or for a group that runs the broker.
    fn secret(
        &self,
        name: &str,
        warnings: &mut Vec<String>,
    ) -> Result<Option<Zeroizing<String>>, LinkKeysError> {
        let text = self.text(name)?;
        #[cfg(unix)]
        if text.is_some() {
            use std::os::unix::fs::PermissionsExt;
            let path = self.folder.join(name);
            let mode = fs::metadata(&path).map(|metadata| metadata.permissions().mode());
            match mode.map_err(|source| LinkKeysError::Io { path: path.clone(), source })? {
                mode if mode & 0o007 != 0 => return Err(LinkKeysError::Exposed(path)),
                mode if mode & 0o070 != 0 => {
                    warnings.push(format!("{}: it is open to its group: chmod 600 it", path.display()));
                }
                _ => {}
            }
        }
        #[cfg(not(unix))]
        let _ = warnings;
        Ok(text)
    }
}

/// One that grows would leave parts of it behind in memory.
fn read_whole(file: File) -> io::Result<Zeroizing<String>> {
    let length = file.metadata()?.len().min(FILE_BYTES_MAX);
    let mut text = Zeroizing::new(String::with_capacity(length as usize + 1));
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("longer than {FILE_BYTES_MAX} bytes")));
    }
    Ok(text)
}

/// Makes sure that what was made or removed in a folder stays so after a power cut.
fn sync(folder: &Path) -> io::Result<()> {
    match File::open(folder).and_then(|folder| folder.sync_all()) {
        // Some file systems do not do that for folders.
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        result => result,
    }
}
