//! What settings are made of: the configuration file, and in the data directory the links that were made while the broker ran
//! (`links.toml`, `interface.md` section 2) and the identities of peers (`trust.json`, `trust.md` 2.4).

use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::LazyLock;

use super::Environment;
use super::check;
use super::document::Document;
use super::error::ConfigError;
use super::error::Place;
use super::reader::Reading;
use super::sections;
use super::settings::Settings;
use super::trusted;
use super::unsupported;
use crate::trust::book;
use crate::trust::book::Book;

/// The longest file that is read.
pub const FILE_BYTES_MAX: u64 = 8 << 20;
/// In the data directory: links that no configuration file has.
pub const LINKS_FILE: &str = "links.toml";
/// In the data directory: who is trusted, and what they may do.
pub const TRUST_FILE: &str = "trust.json";

#[derive(Debug, Clone)]
struct Text {
    name: String,
    text: String,
}

/// What settings are made of.
#[derive(Debug, Clone)]
pub struct Sources {
    main: Text,
    embedded: bool,
    /// The links made while the broker ran, and the file that keeps them; a text alone has none.
    links: Option<(PathBuf, String)>,
    /// Who is trusted, and the file that keeps it.
    trust: Option<(PathBuf, Arc<Book>)>,
}

impl Sources {
    /// Reads the file, or takes the embedded default when there is none, and the links in the data directory that it
    /// names.
    ///
    /// # Errors
    /// A file that cannot be read or is not TOML.
    pub fn read(path: Option<&Path>, environment: &Environment) -> Result<Self, Vec<ConfigError>> {
        let main = match path {
            None => Text { name: "embedded".to_owned(), text: String::new() },
            Some(path) => {
                let name = path.display().to_string();
                let text = read_file(path, FILE_BYTES_MAX).map_err(|error| unreadable(&name, &error))?;
                Text { name, text }
            }
        };
        let mut sources = Self { main, embedded: path.is_none(), links: None, trust: None };
        let data = sources.data_dir(environment)?;
        let file = data.join(LINKS_FILE);
        let text = read_if_there(&file, FILE_BYTES_MAX)?.unwrap_or_default();
        sources.links = Some((file, text));
        let file = data.join(TRUST_FILE);
        let book = match read_if_there(&file, book::BYTES_MAX as u64)? {
            None => Book::default(),
            Some(text) => Book::from_json(&text)
                .map_err(|error| invalid(&file.display().to_string(), &error.to_string()))?,
        };
        sources.trust = Some((file, Arc::new(book)));
        Ok(sources)
    }

    /// A configuration file that is called `name` in errors.
    #[must_use]
    pub fn of_text(name: &str, text: &str) -> Self {
        Self {
            main: Text { name: name.to_owned(), text: text.to_owned() },
            embedded: false,
            links: None,
            trust: None,
        }
    }

    /// The settings, with everything that is wrong with them.
    ///
    /// # Errors
    /// Each names its place.
    pub fn settings(&self, environment: &Environment) -> Result<Settings, Vec<ConfigError>> {
        let mut document = Document::parse(&self.main.name, &self.main.text)?;
        let mut errors = document.apply_variables(&environment.variables);
        if let Some((file, text)) = &self.links {
            document.append(&file.display().to_string(), text, &["cluster", "links"])?;
        }
        let reading = Reading::new(&document, &environment.variables);
        let defaults = sections::Defaults { host_name: &environment.host_name, embedded: self.embedded };
        let mut settings = sections::settings(&reading, &defaults);
        trusted::complete(&mut settings, self.book(), environment.unix_seconds);
        check::check(&reading, &settings);
        unsupported::refuse(&reading);
        errors.extend(reading.into_errors());
        if errors.is_empty() { Ok(settings) } else { Err(errors) }
    }

    /// The file of links made while the broker ran, and its text.
    #[must_use]
    pub fn links(&self) -> Option<(&Path, &str)> {
        self.links.as_ref().map(|(file, text)| (file.as_path(), text.as_str()))
    }

    /// The same sources with another text there.
    #[must_use]
    pub fn with_links(&self, text: &str) -> Self {
        let mut sources = self.clone();
        if let Some((_, links)) = &mut sources.links {
            text.clone_into(links);
        }
        sources
    }

    /// The file of who is trusted, and what it says.
    #[must_use]
    pub fn trust(&self) -> Option<(&Path, &Arc<Book>)> {
        self.trust.as_ref().map(|(file, book)| (file.as_path(), book))
    }

    /// The same sources with another book.
    #[must_use]
    pub fn with_trust(&self, book: Book) -> Self {
        let mut sources = self.clone();
        if let Some((_, trust)) = &mut sources.trust {
            *trust = Arc::new(book);
        }
        sources
    }

    fn book(&self) -> &Book {
        static NOBODY: LazyLock<Book> = LazyLock::new(Book::default);
        self.trust.as_ref().map_or(&NOBODY, |(_, book)| book)
    }

    fn data_dir(&self, environment: &Environment) -> Result<PathBuf, Vec<ConfigError>> {
        let mut document = Document::parse(&self.main.name, &self.main.text)?;
        // What is wrong with them is told when the settings are read.
        document.apply_variables(&environment.variables);
        let reading = Reading::new(&document, &environment.variables);
        Ok(sections::data(reading.root().section("data")).dir)
    }
}

fn unreadable(name: &str, error: &io::Error) -> Vec<ConfigError> {
    invalid(name, &format!("cannot read this file: {error}"))
}

fn invalid(name: &str, message: &str) -> Vec<ConfigError> {
    let place = Place::File(name.to_owned());
    vec![ConfigError { place, key: String::new(), message: message.to_owned(), hint: None }]
}

fn read_if_there(path: &Path, bytes_max: u64) -> Result<Option<String>, Vec<ConfigError>> {
    match read_file(path, bytes_max) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(&path.display().to_string(), &error)),
    }
}

fn read_file(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(bytes_max + 1).read_to_string(&mut text)?;
    match u64::try_from(text.len()) {
        Ok(length) if length <= bytes_max => Ok(text),
        _ => Err(io::Error::other(format!("it is longer than {bytes_max} bytes"))),
    }
}
