//! What a log does with files, and no more than that, so that tests can have them fail in every way.

use std::fmt;
use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

/// One folder of files, and folders in it that are made when something is created there.
pub trait Files: fmt::Debug + Send + Sync + 'static {
    /// An open file.
    type Handle: Handle;

    /// The names of the files in it.
    ///
    /// # Errors
    /// Those of the system.
    fn list(&self) -> io::Result<Vec<String>>;

    /// An empty file, in the place of what has the name.
    ///
    /// # Errors
    /// Those of the system.
    fn create(&self, name: &str) -> io::Result<Self::Handle>;

    /// A file that is there.
    ///
    /// # Errors
    /// Those of the system.
    fn open(&self, name: &str) -> io::Result<Self::Handle>;

    /// Removes a file.
    ///
    /// # Errors
    /// Those of the system.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes sure that what was created stays, and what was removed does not come back.
    ///
    /// # Errors
    /// Those of the system.
    fn sync_names(&self) -> io::Result<()>;
}

/// An open file. It can be read while it is written.
pub trait Handle: fmt::Debug + Send + Sync + 'static {
    /// How many bytes it has.
    ///
    /// # Errors
    /// Those of the system.
    fn length(&self) -> io::Result<u64>;

    /// Reads what is there, possibly less than asked for.
    ///
    /// # Errors
    /// Those of the system.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes, possibly less than asked for.
    ///
    /// # Errors
    /// Those of the system.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Cuts off what is behind `length`.
    ///
    /// # Errors
    /// Those of the system.
    fn cut(&self, length: u64) -> io::Result<()>;

    /// Waits until everything written is on the disk.
    ///
    /// # Errors
    /// Those of the system. What was written may be lost then, and trying again would not tell.
    fn sync(&self) -> io::Result<()>;

    /// Fills `bytes`.
    ///
    /// # Errors
    /// Those of the system, and `UnexpectedEof`.
    fn read_exact_at(&self, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.read_at(bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    bytes = &mut bytes[count..];
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// Those of the system; a part may be written.
    fn write_all_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_at(bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    bytes = &bytes[count..];
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A directory of the operating system. Files are for their owner only.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    writes: bool,
}

impl Disk {
    /// A directory, made if it is not there.
    ///
    /// # Errors
    /// Those of the system.
    pub fn new(path: &Path) -> io::Result<Self> {
        if !path.is_dir() {
            make(path)?;
            // Its own name, too, has to outlive a power cut.
            File::open(path.join(".."))?.sync_all()?;
        }
        Ok(Self { path: path.to_owned(), writes: true })
    }

    /// A directory of which nothing is changed.
    #[must_use]
    pub fn read_only(path: &Path) -> Self {
        Self { path: path.to_owned(), writes: false }
    }
}

fn make(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

impl Files for Disk {
    type Handle = File;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // No file of ours has a name that is not UTF-8.
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<File> {
        if !self.writes {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        let path = self.path.join(name);
        if let Some(folder) = path.parent().filter(|folder| *folder != self.path) {
            make(folder)?;
        }
        OpenOptions::new().create(true).truncate(true).read(true).write(true).mode(0o600).open(path)
    }

    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().read(true).write(self.writes).open(self.path.join(name))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        if !self.writes {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl Handle for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn cut(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

#[cfg(test)]
pub(crate) mod faulty;
