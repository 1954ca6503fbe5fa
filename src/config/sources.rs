//! The texts that settings are made of: the configuration file, and the links that were made while the broker ran
//! (`<data>/links.toml`, `interface.md` section 2).

use std::fs::File;
use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;

use super::Environment;
use super::check;
use super::document::Document;
use super::error::ConfigError;
use super::error::Place;
use super::reader::Reading;
use super::sections;
use super::settings::Settings;
use super::unsupported;

/// The longest file that is read.
pub const FILE_BYTES_MAX: u64 = 8 << 20;
/// In the data directory: links that no configuration file has.
pub const LINKS_FILE: &str = "links.toml";

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
                let text = read_file(path).map_err(|error| unreadable(&name, &error))?;
                Text { name, text }
            }
        };
        let mut sources = Self { main, embedded: path.is_none(), links: None };
        let file = sources.data_dir(environment)?.join(LINKS_FILE);
        let text = match read_file(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(unreadable(&file.display().to_string(), &error)),
        };
        sources.links = Some((file, text));
        Ok(sources)
    }

    /// A configuration file that is called `name` in errors.
    #[must_use]
    pub fn of_text(name: &str, text: &str) -> Self {
        Self { main: Text { name: name.to_owned(), text: text.to_owned() }, embedded: false, links: None }
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
        let settings = sections::settings(&reading, &defaults);
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

    fn data_dir(&self, environment: &Environment) -> Result<PathBuf, Vec<ConfigError>> {
        let mut document = Document::parse(&self.main.name, &self.main.text)?;
        // What is wrong with them is told when the settings are read.
        document.apply_variables(&environment.variables);
        let reading = Reading::new(&document, &environment.variables);
        Ok(sections::data(reading.root().section("data")).dir)
    }
}

fn unreadable(name: &str, error: &io::Error) -> Vec<ConfigError> {
    let message = match error.kind() {
        io::ErrorKind::FileTooLarge => format!("this file is longer than {FILE_BYTES_MAX} bytes"),
        _ => format!("cannot read this file: {error}"),
    };
    vec![ConfigError { place: Place::File(name.to_owned()), key: String::new(), message, hint: None }]
}

fn read_file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    match u64::try_from(text.len()) {
        Ok(length) if length <= FILE_BYTES_MAX => Ok(text),
        _ => Err(io::ErrorKind::FileTooLarge.into()),
    }
}
