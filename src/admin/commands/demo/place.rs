//! What the demo makes for itself: a directory of its own with ACL files and data, removed at the end, and a configuration for
//! each cluster, read as any other.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;

use crate::config::Environment;
use crate::config::Settings;
use crate::config::Sources;
use crate::net::random;

const ACL_A: &str = include_str!("../../../../acl/cluster-a.conf");
const ACL_B: &str = include_str!("../../../../acl/cluster-b.conf");

/// Why the demo could not prepare.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlaceError {
    /// The file system or the ports.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Our own configuration: a fault of ours.
    #[error("{0}")]
    Config(String),
}

/// Ports of one cluster.
#[derive(Debug, Clone, Copy)]
struct Ports {
    mqtt: u16,
    link: u16,
    http: u16,
}

/// The demo's own directory. It goes when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    a: Ports,
    b: Ports,
}

impl Place {
    /// Makes the directory and the ACL files, and chooses ports.
    pub(super) fn make() -> Result<Self, PlaceError> {
        let path = std::env::temp_dir().join(format!("tombolo-demo-{}", random::hex(6)));
        private_directory(&path)?;
        // From here on the directory is removed whatever happens.
        let mut place =
            Self { path, a: Ports { mqtt: 0, link: 0, http: 0 }, b: Ports { mqtt: 0, link: 0, http: 0 } };
        (place.a, place.b) = ports()?;
        fs::write(place.path.join("a.conf"), ACL_A)?;
        fs::write(place.path.join("b.conf"), ACL_B)?;
        Ok(place)
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the settings of one cluster are made of, and they.
    pub(super) fn sources(&self, name: &str) -> Result<(Sources, Settings), PlaceError> {
        let file = self.path.join(format!("{}.toml", name.to_lowercase()));
        fs::write(&file, self.configuration(name))?;
        let environment = Environment::default();
        let read = Sources::read(Some(&file), &environment)
            .and_then(|sources| sources.settings(&environment).map(|settings| (sources, settings)));
        read.map_err(|errors| {
            PlaceError::Config(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        })
    }

    fn configuration(&self, name: &str) -> String {
        let ours = if name == "A" { self.a } else { self.b };
        let us = name.to_lowercase();
        // A path is written as a literal string: it may hold a backslash, never a single quote of ours.
        let file = |file: String| format!("'{}'", self.path.join(file).display());
        let (data, acl) = (file(format!("data-{us}")), file(format!("{us}.conf")));
        format!(
            r##"
[cluster]
name = "{name}"
node = "tombolo-{us}@127.0.0.1"
[data]
dir = {data}
durability = "memory"
[[listeners]]
name = "default"
type = "tcp"
bind = "127.0.0.1:{mqtt}"
[[listeners]]
name = "links"
type = "ssl"
bind = "127.0.0.1:{link}"
role = "link"
[authentication]
allow_anonymous = true
[authorization]
file = {acl}
[http]
bind = "127.0.0.1:{http}"
"##,
            mqtt = ours.mqtt,
            link = ours.link,
            http = ours.http,
        )
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the demo's directory could not be removed");
        }
    }
}

/// The well-known ports where they are free, else any.
fn ports() -> io::Result<(Ports, Ports)> {
    // All are held until all are known, so that none is given out twice.
    let mut held = Vec::new();
    let mut port = |wanted: u16| -> io::Result<u16> {
        let socket =
            TcpListener::bind(("127.0.0.1", wanted)).or_else(|_| TcpListener::bind("127.0.0.1:0"))?;
        let port = socket.local_addr()?.port();
        held.push(socket);
        Ok(port)
    };
    let a = Ports { mqtt: port(1883)?, link: port(8883)?, http: port(18083)? };
    let b = Ports { mqtt: port(2883)?, link: port(9883)?, http: port(28083)? };
    Ok((a, b))
}

fn private_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::material::Material;
    use crate::net::clock;

    #[test]
    fn what_it_makes_is_a_good_configuration_and_goes_with_it() {
        let place = Place::make().unwrap();
        let path = place.path().to_owned();
        for name in ["A", "B"] {
            let (_, settings) = place.sources(name).unwrap();
            let material = Material::load(&settings, clock::now()).unwrap();
            assert_eq!(material.warnings, Vec::<String>::new());
            assert_eq!(material.tls.len(), 1);
        }
        drop(place);
        assert!(!path.exists());
    }
}
