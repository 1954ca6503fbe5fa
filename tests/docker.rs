//! What `docker/` names exists: the binary, its subcommands, files of the repository, settings, ports, services. It reads
//! the files as text, line by line; it builds no image.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use tombolo::config;
use tombolo::config::Environment;
use tombolo::config::Settings;
use tombolo::config::settings::AclSource;
use tombolo::config::settings::Bind;
use tombolo::config::settings::Role;

const CONFIG_IN_IMAGE: &str = "/etc/tombolo/tombolo.toml";

#[test]
fn the_image_starts_the_program_with_a_subcommand_it_has() {
    let dockerfile = read("docker/Dockerfile");
    let runtime = stage(&dockerfile, "runtime");
    let program = env!("CARGO_BIN_EXE_tombolo");
    let name = Path::new(program).file_name().unwrap().to_str().unwrap();
    assert!(dockerfile.contains(&format!("cargo build --release --locked --bin {name}\n")));
    assert!(
        runtime.contains(&format!("COPY --from=build /src/target/release/{name} /usr/local/bin/{name}\n"))
    );
    assert_eq!(list(&runtime, "ENTRYPOINT"), [name]);
    let arguments = list(&runtime, "CMD");
    assert_eq!(arguments[1..], ["--config", CONFIG_IN_IMAGE]);
    // Understood up to the file, which is not here.
    assert_eq!(run(&[&arguments[0], "--help"]), Some(0));
    assert_eq!(run(&["check", "--config", "/nonexistent.toml"]), Some(2));
}

#[test]
fn everything_copied_into_the_image_is_in_the_repository() {
    let (dockerfile, ignored) = (read("docker/Dockerfile"), read(".dockerignore"));
    let sources: Vec<&str> = dockerfile
        .lines()
        .filter_map(|line| line.strip_prefix("COPY "))
        .filter(|rest| !rest.starts_with("--from="))
        .flat_map(|rest| {
            let words: Vec<&str> = rest.split_whitespace().collect();
            words[..words.len() - 1].to_vec()
        })
        .collect();
    assert!(sources.len() > 5, "{sources:?}");
    for source in &sources {
        assert!(repository().join(source).exists(), "COPY {source}");
        let top = source.split('/').next().unwrap();
        assert!(ignored.lines().any(|line| line == format!("!{top}")), ".dockerignore leaves out {source}");
    }
    // And what the sources include from outside src/.
    for (file, included) in inclusions() {
        let inside = sources.iter().any(|source| included.starts_with(repository().join(source)));
        assert!(inside, "{} includes {}, which the build does not have", file.display(), included.display());
    }
}

#[test]
fn the_configurations_are_valid_and_name_what_is_mounted() {
    let compose = compose();
    for (service, file, peer) in [("a", "docker/a.toml", "b"), ("b", "docker/b.toml", "a")] {
        let settings = settings(file);
        let service = &compose[service];
        let mounted = service.mounted();
        assert_eq!(service.host_of(CONFIG_IN_IMAGE), Some(repository().join(file)));
        let AclSource::File(acl) = &settings.authorization.file else { panic!("{file} names no ACL file") };
        assert_eq!(
            service.host_of(acl.to_str().unwrap()),
            Some(repository().join(format!("acl/cluster-{}.conf", service.name)))
        );
        let tls = settings.listeners.iter().filter_map(|listener| listener.ssl.as_ref());
        let mut files: Vec<PathBuf> = tls
            .flat_map(|tls| [tls.certfile.clone(), tls.keyfile.clone(), tls.cacertfile.clone()])
            .flatten()
            .collect();
        for link in &settings.cluster.links {
            let tls = link.ssl.as_ref().expect("links use TLS");
            files.extend(
                [tls.cacertfile.clone(), tls.certfile.clone(), tls.keyfile.clone()].into_iter().flatten(),
            );
        }
        assert!(files.len() >= 6, "{files:?}");
        for path in files {
            assert!(mounted.iter().any(|target| path.starts_with(target)), "{file} names {}", path.display());
            assert_eq!(path.parent(), Some(Path::new("/etc/tombolo/certs")), "where make-certs.sh puts them");
            let made =
                ["ca.pem".to_owned(), format!("{}.pem", service.name), format!("{}.key", service.name)];
            assert!(made.iter().any(|name| path.ends_with(name)), "{} is not made", path.display());
        }
        assert!(
            mounted.iter().any(|target| settings.data.dir.starts_with(target)),
            "{}",
            settings.data.dir.display()
        );
        assert!(
            settings.cluster.links.iter().all(|link| link.servers.iter().all(|server| server.host == peer))
        );
    }
    settings("docker/tombolo.toml");
}

#[test]
fn each_side_of_the_link_is_what_the_other_expects() {
    let made = read("docker/make-certs.sh");
    assert!(
        made.contains("for service in a b; do")
            && made.contains("/CN=cluster-$service")
            && made.contains("DNS:$service")
    );
    for (ours, theirs, peer) in [("a", "b", "cluster-b"), ("b", "a", "cluster-a")] {
        let (ours, theirs) =
            (settings(&format!("docker/{ours}.toml")), settings(&format!("docker/{theirs}.toml")));
        let link = &ours.cluster.links[0];
        let back = &theirs.cluster.links[0];
        assert_eq!(link.name, theirs.cluster.name);
        assert_eq!(link.peer.clientid, back.clientid);
        assert_eq!(link.peer.cert_cn.as_deref(), Some(peer));
        let accepting = theirs
            .listeners
            .iter()
            .find(|listener| listener.role == Role::Link)
            .expect("a listener for links");
        assert_eq!(Some(link.servers[0].port), port(&accepting.bind));
    }
}

#[test]
fn published_and_exposed_ports_are_listened_on() {
    let compose = compose();
    for name in ["a", "b"] {
        let settings = settings(&format!("docker/{name}.toml"));
        let bound: Vec<u16> = settings.listeners.iter().filter_map(|listener| port(&listener.bind)).collect();
        assert_eq!(compose[name].ports.len(), 1);
        for published in &compose[name].ports {
            let inside: u16 = published.rsplit(':').next().unwrap().parse().unwrap();
            assert!(published.starts_with("127.0.0.1:"), "anonymous clients, so loopback only: {published}");
            assert!(bound.contains(&inside), "{published}");
        }
        let dockerfile = read("docker/Dockerfile");
        let exposed = dockerfile.lines().find_map(|line| line.strip_prefix("EXPOSE ")).unwrap();
        assert_eq!(exposed.split(' ').map(|port| port.parse().unwrap()).collect::<Vec<u16>>(), bound);
        // The health check asks where HTTP listens by default.
        assert!(read("docker/healthcheck.sh").contains(&format!("${{1:-{}}}", settings.http.bind.port())));
    }
}

#[test]
fn services_are_built_from_stages_that_exist() {
    let dockerfile = read("docker/Dockerfile");
    let compose = compose();
    assert_eq!(compose.keys().collect::<Vec<_>>(), ["a", "b", "certs"]);
    for service in compose.values() {
        assert!(dockerfile.contains(&format!(" AS {}\n", service.target)), "{} is no stage", service.target);
        for (host, _) in &service.volumes {
            let named = ["certs", "data-a", "data-b"].contains(&host.as_str());
            assert!(named || repository().join("docker").join(host).is_file(), "{host}");
        }
    }
    let readme = read("README.md");
    assert!(readme.contains("docker compose -f docker/compose.yaml up"));
}

/// What of a service matters here.
#[derive(Debug, Default)]
struct Service {
    name: String,
    target: String,
    ports: Vec<String>,
    /// What is mounted, and where.
    volumes: Vec<(String, String)>,
}

impl Service {
    fn mounted(&self) -> Vec<&str> {
        self.volumes.iter().map(|(_, target)| target.as_str()).collect()
    }

    /// The file of the repository that is mounted there.
    fn host_of(&self, target: &str) -> Option<PathBuf> {
        let (host, _) = self.volumes.iter().find(|(_, mounted)| mounted == target)?;
        Some(repository().join("docker").join(host).canonicalize().expect("a file of the repository"))
    }
}

/// The services of `compose.yaml`, by indentation: two spaces name a service, four a key, six an item.
fn compose() -> BTreeMap<String, Service> {
    let text = read("docker/compose.yaml");
    let (mut services, mut name, mut key) =
        (BTreeMap::<String, Service>::new(), String::new(), String::new());
    let lines =
        text.lines().skip_while(|line| *line != "services:").skip(1).take_while(|line| *line != "volumes:");
    for line in lines.filter(|line| !line.trim().is_empty()) {
        let indent = line.len() - line.trim_start().len();
        let word = line.trim().trim_end_matches(':');
        if indent == 2 {
            name = word.to_owned();
            services.insert(name.clone(), Service { name: name.clone(), ..Service::default() });
            continue;
        }
        let service = services.get_mut(&name).expect("a service before its keys");
        if indent == 4 {
            key = word.to_owned();
        } else if let Some(target) = line.trim().strip_prefix("target: ") {
            service.target = target.to_owned();
        } else if let Some(item) = line.trim().strip_prefix("- ") {
            let item = item.trim_matches('"');
            match key.as_str() {
                "ports" => service.ports.push(item.to_owned()),
                "volumes" => {
                    let mut parts = item.split(':');
                    let (host, target) = (parts.next().unwrap(), parts.next().expect("a target"));
                    service.volumes.push((host.to_owned(), target.to_owned()));
                }
                other => panic!("an item of {other}, which this test does not know"),
            }
        }
    }
    services
}

/// The lines of one build stage.
fn stage(dockerfile: &str, name: &str) -> String {
    let from = dockerfile.find(&format!(" AS {name}\n")).expect("the stage");
    let rest = &dockerfile[from..];
    rest[..rest.find("\nFROM ").unwrap_or(rest.len())].to_owned()
}

/// An instruction in the form of a list: `CMD ["serve", …]`.
fn list(stage: &str, instruction: &str) -> Vec<String> {
    let line = stage
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{instruction} [")))
        .expect("the instruction");
    line.trim_end_matches(']').split(", ").map(|word| word.trim_matches('"').to_owned()).collect()
}

/// What `include_str!` and `include_bytes!` of production code name outside `src`.
fn inclusions() -> Vec<(PathBuf, PathBuf)> {
    let mut found = Vec::new();
    let mut pending = vec![repository().join("src")];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder).expect("readable folder") {
            let path = entry.expect("readable entry").path();
            if path.is_dir() {
                pending.push(path);
                continue;
            }
            let Ok(text) = fs::read_to_string(&path) else { continue };
            let code = text.lines().take_while(|line| *line != "#[cfg(test)]");
            for line in code.filter(|_| !path.ends_with("tests.rs")) {
                let Some((_, rest)) =
                    line.split_once("include_str!(\"").or_else(|| line.split_once("include_bytes!(\""))
                else {
                    continue;
                };
                let relative = rest.split('"').next().unwrap_or_default();
                let included =
                    path.parent().expect("a folder").join(relative).canonicalize().expect("an included file");
                found.push((path.clone(), included));
            }
        }
    }
    found
}

fn settings(file: &str) -> Settings {
    config::parse(file, &read(file), &Environment::default()).unwrap_or_else(|errors| {
        panic!("{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })
}

fn port(bind: &Bind) -> Option<u16> {
    match bind {
        Bind::Addr(address) => Some(address.port()),
        Bind::Path(_) => None,
    }
}

fn run(arguments: &[&str]) -> Option<i32> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tombolo"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().expect("the program runs").code()
}

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).canonicalize().expect("the repository")
}
