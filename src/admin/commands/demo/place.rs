//! What the demo makes for itself: a directory of its own with certificates, ACL files and data, removed at
//! the end, and a configuration for each cluster, read as any other.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DistinguishedName;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rcgen::PKCS_ECDSA_P384_SHA384;

use crate::config;
use crate::config::Environment;
use crate::config::Settings;
use crate::net::random;

const ACL_A: &str = include_str!("../../../../acl/cluster-a.conf");
const ACL_B: &str = include_str!("../../../../acl/cluster-b.conf");

/// Why the demo could not prepare.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlaceError {
    /// The file system or the ports.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The certificates.
    #[error("certificates: {0}")]
    Certificates(#[from] rcgen::Error),
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
    /// Makes the directory, the certificates and the ACL files, and chooses ports.
    pub(super) fn make() -> Result<Self, PlaceError> {
        let path = std::env::temp_dir().join(format!("tombolo-demo-{}", random::hex(6)));
        private_directory(&path)?;
        // From here on the directory is removed whatever happens.
        let mut place =
            Self { path, a: Ports { mqtt: 0, link: 0, http: 0 }, b: Ports { mqtt: 0, link: 0, http: 0 } };
        (place.a, place.b) = ports()?;
        place.write_certificates()?;
        fs::write(place.path.join("a.conf"), ACL_A)?;
        fs::write(place.path.join("b.conf"), ACL_B)?;
        Ok(place)
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn write_certificates(&self) -> Result<(), PlaceError> {
        let authority_key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?;
        let mut authority = CertificateParams::default();
        authority.distinguished_name = named("tombolo demo authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = authority.self_signed(&authority_key)?;
        fs::write(self.path.join("ca.pem"), certificate.pem())?;
        let issuer = Issuer::new(authority, authority_key);
        for cluster in ["a", "b"] {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?;
            let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
            params.distinguished_name = named(&format!("cluster-{cluster}"));
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages =
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let certificate = params.signed_by(&key, &issuer)?;
            fs::write(self.path.join(format!("{cluster}.pem")), certificate.pem())?;
            private_file(&self.path.join(format!("{cluster}.key")), &key.serialize_pem())?;
        }
        Ok(())
    }

    /// The configuration of one cluster.
    pub(super) fn settings(&self, name: &str, peer: &str) -> Result<Settings, PlaceError> {
        let text = self.configuration(name, peer);
        config::parse("demo", &text, &Environment::default()).map_err(|errors| {
            PlaceError::Config(errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        })
    }

    fn configuration(&self, name: &str, peer: &str) -> String {
        let (ours, theirs) = if name == "A" { (self.a, self.b) } else { (self.b, self.a) };
        let (us, them) = (name.to_lowercase(), peer.to_lowercase());
        // A path is written as a literal string: it may hold a backslash, never a single quote of ours.
        let file = |file: String| format!("'{}'", self.path.join(file).display());
        let (ca, cert, key) = (file("ca.pem".into()), file(format!("{us}.pem")), file(format!("{us}.key")));
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
[listeners.ssl]
certfile = {cert}
keyfile = {key}
cacertfile = {ca}
[authentication]
allow_anonymous = true
[authorization]
file = {acl}
[[cluster.links]]
name = "{peer}"
server = "127.0.0.1:{link_there}"
clientid = "clink-{name}-"
topics = ["#"]
[cluster.links.peer]
clientid = "clink-{peer}-"
cert_cn = "cluster-{them}"
[cluster.links.ssl]
cacertfile = {ca}
certfile = {cert}
keyfile = {key}
[http]
bind = "127.0.0.1:{http}"
"##,
            mqtt = ours.mqtt,
            link = ours.link,
            link_there = theirs.link,
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

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
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

fn private_file(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)?.write_all(text.as_bytes())
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
        for (name, peer) in [("A", "B"), ("B", "A")] {
            let settings = place.settings(name, peer).unwrap();
            let material = Material::load(&settings, clock::now()).unwrap();
            assert_eq!(material.warnings, Vec::<String>::new());
            assert_eq!(material.tls.len(), 1);
        }
        drop(place);
        assert!(!path.exists());
    }
}
