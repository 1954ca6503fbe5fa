//! Operators who are known by their certificates (`trust.md` 2.5): HTTP over TLS, and what each may do.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncBufReadExt;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tombolo::admin::base64;
use tombolo::admin::keys::Keys;
use tombolo::net::clock;
use tombolo::net::own_certificate::Pair;
use tombolo::net::own_certificate::chain_pem;
use tombolo::net::tls::ClientTls;
use tombolo::net::tls::ClientTlsOptions;
use tombolo::net::tls::TlsVersion;
use tombolo::net::tls::Verify;

use crate::harness::LIMIT;
use crate::link_changes::Broker;

const TLS: &str = "[http.ssl]\nenable = true\nbind = \"127.0.0.1:0\"\n";

/// A broker with its second port, and certificates of operators.
struct Scene {
    broker: Broker,
    folder: TempDir,
    fingerprint: String,
}

type Ran = (i32, String, String);

async fn run(arguments: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_tombolo"))
        .args(arguments)
        .env_remove("TOMBOLO_KEY")
        .stdin(Stdio::null())
        .output();
    let output = timeout(LIMIT, output).await.unwrap().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

impl Scene {
    async fn new() -> Self {
        let broker = Broker::start("A", TLS).await;
        let folder = tempfile::tempdir().unwrap();
        let mut scene = Self { broker, folder, fingerprint: String::new() };
        let certificate = scene.done("link cert show --format json").await;
        let certificate: Value = serde_json::from_str(&certificate).unwrap();
        scene.fingerprint = certificate["fingerprint"].as_str().unwrap().to_owned();
        for name in ["ada", "eve"] {
            let pair = Pair::make(name, clock::now()).unwrap();
            fs::write(scene.file(name, "pem"), chain_pem(&pair.chain)).unwrap();
            fs::write(scene.file(name, "key"), pair.key.pem().as_bytes()).unwrap();
        }
        scene
    }

    fn file(&self, name: &str, ending: &str) -> String {
        self.folder.path().join(format!("{name}.{ending}")).display().to_string()
    }

    /// By the admin socket.
    async fn done(&self, line: &str) -> String {
        let data = self.broker.data().display().to_string();
        let arguments: Vec<&str> = line.split(' ').chain(["--data", &data]).collect();
        let (code, out, error) = run(&arguments).await;
        // A new key is told of there.
        assert!(
            code == 0 && (error.is_empty() || line.starts_with("auth key create")),
            "{line}: {out}{error}"
        );
        out
    }

    /// Over TLS, with somebody's certificate.
    async fn by(&self, name: &str, line: &str) -> Ran {
        let url = format!("https://{}", self.broker.listener("https"));
        let (certificate, key) = (self.file(name, "pem"), self.file(name, "key"));
        let access = [
            "--url",
            &url,
            "--tls-cert",
            &certificate,
            "--tls-keyfile",
            &key,
            "--tls-fingerprint",
            &self.fingerprint,
        ];
        run(&line.split(' ').chain(access).collect::<Vec<_>>()).await
    }

    async fn may(&self, name: &str, line: &str) -> String {
        let (code, out, error) = self.by(name, line).await;
        assert_eq!((code, error.as_str()), (0, ""), "{line}: {out}");
        out
    }

    async fn may_not(&self, name: &str, line: &str) {
        let ran = self.by(name, line).await;
        assert!(ran.0 == 3 && ran.2.contains(&format!("operator {name} may not do this")), "{line}: {ran:?}");
    }

    /// Because this is lacking.
    async fn lacks(&self, name: &str, line: &str, permission: &str) {
        let ran = self.by(name, line).await;
        let told = format!("operator {name} may not do this: it takes the permission {permission}");
        assert!(ran.0 == 3 && ran.2.contains(&told), "{line}: {ran:?}");
    }

    /// Because somebody would be granted this, which is more than they have.
    async fn may_not_grant(&self, name: &str, line: &str, permission: &str) {
        let ran = self.by(name, line).await;
        let told = format!("permits `{permission}`, which you may not yourself");
        assert!(ran.0 == 3 && ran.2.contains(&told), "{line}: {ran:?}");
    }

    /// What goes on, for an API key.
    async fn stream(
        &self,
        path: &str,
        id: &str,
        secret: &str,
    ) -> tokio::io::Lines<BufReader<TlsStream<TcpStream>>> {
        let mut stream = self.connect(TlsVersion::V13, None).await.unwrap();
        let credentials = base64::encode(format!("{id}:{secret}").as_bytes());
        let request =
            format!("GET {path} HTTP/1.0\r\nHost: any.example\r\nAuthorization: Basic {credentials}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        BufReader::new(stream).lines()
    }

    /// With these files as a certificate.
    async fn connect(
        &self,
        version: TlsVersion,
        files: Option<(&Path, &Path)>,
    ) -> io::Result<TlsStream<TcpStream>> {
        let options = ClientTlsOptions {
            cacertfile: None,
            own: None,
            certfile: files.map(|(certificate, _)| certificate.to_owned()),
            keyfile: files.map(|(_, key)| key.to_owned()),
            password: None,
            server_pins: Vec::new(),
            strict: false,
            verify: Verify::None,
            server_name: None,
            versions: vec![version],
        };
        let config = ClientTls::load(&options, clock::now()).unwrap().config;
        let stream = TcpStream::connect(self.broker.listener("https")).await?;
        TlsConnector::from(config).connect("x".try_into().unwrap(), stream).await
    }

    /// Makes an operator with these permissions.
    async fn operator(&self, name: &str, permissions: &[&str]) {
        self.done(&format!("auth group create of-{name}")).await;
        for permission in permissions {
            self.done(&format!("auth group permission add of-{name} {permission}")).await;
        }
        let file = self.file(name, "pem");
        self.done(&format!("auth identity create admin/{name} {file} --group of-{name}")).await;
    }

    async fn link(&self, name: &str) {
        let settings = "server=127.0.0.1:1 topics=a ssl.enable=false peer.allow_unauthenticated=true";
        self.done(&format!("link create {name} {settings}")).await;
    }
}

#[tokio::test]
async fn a_viewer_reads_and_changes_nothing_until_it_is_revoked() {
    let scene = Scene::new().await;
    let ran = scene.by("ada", "link list").await;
    assert!(ran.0 == 3 && ran.2.contains("an API key is needed"), "nobody knows this certificate: {ran:?}");
    scene.operator("ada", &["server viewer"]).await;
    scene.link("B").await;
    assert!(scene.may("ada", "link list --format csv").await.contains("\nB,"));
    scene.may("ada", "auth group list").await;
    scene.may("ada", "client list").await;
    for line in [
        "link set B topics=b",
        "link delete B --yes",
        "link create C server=x:1 topics=a",
        "link create C -q",
        "auth group create g",
        "auth identity revoke admin/ada --yes",
        "auth identity group add admin/ada link-peer",
        "banned create clientid c",
        "acl reload",
        "events",
        "link cert rotate",
        "link trust B --fingerprint abababababababababababababababababababababababababababababababab --address b:1",
    ] {
        scene.may_not("ada", line).await;
    }
    let events = scene.done("events --format json --event authz_fail").await;
    assert!(events.contains("\"identity\":\"operator ada\"") && events.contains("authz_fail:admin:/api/v5/"));
    scene.done("auth group permission add of-ada server can_view_events").await;
    let (certificate, key) = (scene.file("ada", "pem"), scene.file("ada", "key"));
    let mut stream =
        scene.connect(TlsVersion::V13, Some((Path::new(&certificate), Path::new(&key)))).await.unwrap();
    stream.write_all(b"GET /api/v5/events/stream HTTP/1.0\r\nHost: any.example\r\n\r\n").await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    for name in ["heard", "unheard"] {
        scene.done(&format!("banned create clientid {name}")).await;
    }
    scene.done("banned delete clientid heard").await;
    while !timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().unwrap().contains("clientid/heard") {}
    scene.done("auth identity revoke admin/ada --yes").await;
    scene.done("banned delete clientid unheard").await;
    // The next event is its end.
    while let Some(line) = timeout(LIMIT, lines.next_line()).await.unwrap().unwrap() {
        assert!(!line.contains("unheard"), "{line}");
    }
    let ran = scene.by("ada", "link list").await;
    assert!(ran.0 == 3 && ran.2.contains("an API key is needed"), "{ran:?}");
}

#[tokio::test]
async fn an_operator_of_one_link_sees_and_changes_that_link_alone() {
    let scene = Scene::new().await;
    scene.operator("ada", &["link B operator"]).await;
    scene.link("B").await;
    scene.link("C").await;
    let listed = scene.may("ada", "link list --format csv").await;
    assert!(listed.contains("\nB,") && !listed.contains("C,"), "{listed}");
    assert_eq!(scene.may("ada", "link set B topics=b").await, "Link B changed\n");
    for line in [
        "link show C",
        "link set C topics=b",
        "link delete C --yes",
        "link create B --replace -q",
        "link set B password=file:///etc/passwd",
        "link set B username=${env:HOME}",
        "link set B ssl.enable=true ssl.keyfile=/etc/passwd",
        "link set B trust=pin",
        "client list",
        "auth group list",
        "auth identity show admin/ada",
    ] {
        scene.may_not("ada", line).await;
    }
    assert_eq!(scene.may("ada", "link delete B --yes").await, "Link B deleted\n");
}

#[tokio::test]
async fn who_makes_identities_cannot_say_what_they_may_do() {
    let scene = Scene::new().await;
    scene.operator("ada", &["server can_create_identities"]).await;
    let eve = scene.file("eve", "pem");
    scene.may("ada", "link create B -q --address 127.0.0.1:1").await;
    for line in [
        "link create C -q --group of-ada".to_owned(),
        format!("auth identity create admin/eve {eve} --group of-ada"),
        "auth group permission add of-ada server admin".to_owned(),
        "auth identity delete admin/ada --yes".to_owned(),
    ] {
        scene.may_not("ada", &line).await;
    }
    // Without a group it is nobody of consequence.
    scene.done(&format!("auth identity create admin/eve {eve}")).await;
    assert_eq!(scene.may("eve", "link list --format csv").await.lines().count(), 1);
    scene.may_not("eve", "client list").await;
}

/// Nobody gives themselves or others what they have not, whichever way it is tried; whoever may everything grants everything.
#[tokio::test]
async fn who_manages_permissions_grants_no_more_than_they_have() {
    let scene = Scene::new().await;
    scene
        .operator(
            "ada",
            &[
                "server permission_manager",
                "server viewer",
                "server can_create_identities",
                "link B operator",
            ],
        )
        .await;
    scene.link("B").await;
    scene.done("auth group create bosses").await;
    scene.done("auth group permission add bosses server admin").await;
    let eve = scene.file("eve", "pem");
    scene.may("ada", "auth group create staff").await;
    scene.may("ada", &format!("auth identity create admin/eve {eve} --group staff")).await;
    for (line, permission) in [
        ("auth group permission add of-ada server admin", "server admin"),
        ("auth group permission add of-ada server can_view_events", "server can_view_events"),
        ("auth group permission add of-ada link C can_edit", "link C can_edit"),
        ("auth group permission add staff server operator", "server operator"),
        ("auth group permission add staff link B can_issue_token", "link B can_issue_token"),
        ("auth identity group add admin/ada bosses", "server admin"),
        ("auth identity group add admin/eve bosses", "server admin"),
    ] {
        scene.may_not_grant("ada", line, permission).await;
    }
    scene.may("ada", "auth identity delete admin/eve --yes").await;
    let line = format!("auth identity create admin/eve {eve} --group bosses");
    scene.may_not_grant("ada", &line, "server admin").await;
    // Under another name it permits the same.
    scene.may("ada", "auth group rename bosses chiefs").await;
    scene.may_not_grant("ada", "auth identity group add admin/ada chiefs", "server admin").await;
    // What they have, and what is for peers, they grant.
    for line in [
        "auth group permission add staff link B can_edit",
        "auth group permission add staff server permission_manager",
        "auth group permission add staff topic a/# can_import",
    ] {
        scene.may("ada", line).await;
    }
    scene.may("ada", &format!("auth identity create admin/eve {eve} --group staff")).await;
    scene.done("auth identity group add admin/ada chiefs").await;
    scene.may("ada", "auth group permission add staff server admin").await;
    let events = scene.done("events --format json --event authz_admin").await;
    assert!(events.contains("nobody grants more than they have"), "{events}");
}

#[tokio::test]
async fn what_is_for_operators_is_not_for_peers_however_it_is_tried() {
    let scene = Scene::new().await;
    scene.done("auth group create ops").await;
    scene.done("auth group permission add ops server can_view_events").await;
    scene.done("auth group create mixed").await;
    scene.done("link create C -q --address 127.0.0.1:1 --group mixed").await;
    for line in [
        "link create B -q --address 127.0.0.1:1 --group ops",
        "auth identity group add link/C ops",
        "auth group permission add mixed server viewer",
    ] {
        let ran = run(&[
            &line.split(' ').collect::<Vec<_>>()[..],
            &["--data", &scene.broker.data().display().to_string()],
        ]
        .concat())
        .await;
        assert!(ran.0 == 5 && ran.2.contains("is for operators"), "{line}: {ran:?}");
    }
    scene.done("auth group permission add mixed topic a can_import").await;
}

#[tokio::test]
async fn a_refusal_names_the_permission_that_is_lacking() {
    let scene = Scene::new().await;
    scene.operator("ada", &["link B can_edit"]).await;
    scene.link("B").await;
    for (line, permission) in [
        ("client list", "server viewer"),
        ("link delete B --yes", "link B can_delete"),
        ("link create B -q", "server can_create_identities"),
        ("link create C server=x:1 topics=a", "server can_create_links"),
        ("link set B server=x:1", "server admin"),
        ("link cert rotate", "server admin"),
        ("auth group create g", "server permission_manager"),
        ("auth identity show admin/ada", "server viewer"),
        ("auth identity show link/C", "link C can_view"),
    ] {
        scene.lacks("ada", line, permission).await;
    }
}

/// The link certificate is that of every link: `can_rotate` on each of them is what it takes.
#[tokio::test]
async fn who_may_rotate_for_every_link_may_rotate() {
    let scene = Scene::new().await;
    scene.operator("ada", &["link eve can_rotate"]).await;
    scene.done(&format!("auth identity create link/eve {}", scene.file("eve", "pem"))).await;
    let pair = Pair::make("bob", clock::now()).unwrap();
    fs::write(scene.file("bob", "pem"), chain_pem(&pair.chain)).unwrap();
    scene.done(&format!("auth identity create link/bob {}", scene.file("bob", "pem"))).await;
    scene.lacks("ada", "link cert rotate", "link bob can_rotate").await;
    scene.done("auth group permission add of-ada link bob can_rotate").await;
    assert!(scene.may("ada", "link cert rotate").await.starts_with("Link certificate sha256:"));
}

#[tokio::test]
async fn what_a_key_follows_ends_when_the_key_is_deleted() {
    let scene = Scene::new().await;
    let keys = Keys::of(&scene.broker.data());
    let new = keys.create("test", 1).unwrap();
    let mut followed = Vec::new();
    for path in ["/api/v5/events/stream", "/api/v5/trace/stream"] {
        let mut lines = scene.stream(path, &new.key.id, &new.secret).await;
        // It runs once the head of the answer is there.
        while !timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().unwrap().is_empty() {}
        followed.push(lines);
    }
    for name in ["heard", "unheard"] {
        scene.done(&format!("banned create clientid {name}")).await;
    }
    scene.done("banned delete clientid heard").await;
    while !timeout(LIMIT, followed[0].next_line()).await.unwrap().unwrap().unwrap().contains("clientid/heard")
    {
    }
    keys.delete(&new.key.id).unwrap();
    scene.done("banned delete clientid unheard").await;
    for lines in &mut followed {
        // The next line is its end: what happens, or the one that says that nothing does.
        while let Some(line) = timeout(LIMIT, lines.next_line()).await.unwrap().unwrap() {
            assert!(!line.contains("unheard"), "{line}");
        }
    }
}

/// Keys are made in the data directory; a broker that runs writes it down. So it does with what it denies, and from where.
#[tokio::test]
async fn what_becomes_of_keys_and_who_was_denied_is_written_down_with_the_source() {
    let scene = Scene::new().await;
    scene.operator("ada", &["server viewer"]).await;
    scene.may_not("ada", "banned create clientid c").await;
    let events = scene.done("events --format json --event authz_fail").await;
    assert!(events.contains("\"source\":\"127.0.0.1:"), "{events}");
    let keys = Keys::of(&scene.broker.data());
    let reader = keys.create("reader", 1).unwrap();
    let mut lines = scene.stream("/api/v5/events/stream", &reader.key.id, &reader.secret).await;
    let created = scene.done("auth key create grafana --format json").await;
    let created: Value = serde_json::from_str(&created).unwrap();
    let id = created["key"].as_str().unwrap();
    let mut heard = async |what: &str| loop {
        let line = timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().unwrap();
        if line.contains(what) {
            assert!(!line.contains(created["secret"].as_str().unwrap()));
            break line;
        }
    };
    assert!(heard(&format!("{id} (grafana)")).await.contains("authz_admin:api_key_create"));
    scene.done(&format!("auth key delete {id}")).await;
    assert!(heard("authz_admin:api_key_delete").await.contains(id));
}

#[tokio::test]
async fn the_files_of_the_port_are_read_again_with_a_reload_or_all_stays() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let put = |pair: &Pair| {
        fs::write(file("cert.pem"), chain_pem(&pair.chain)).unwrap();
        fs::write(file("key.pem"), pair.key.pem().as_bytes()).unwrap();
        pair.chain[0].to_vec()
    };
    let (first, second) =
        (Pair::make("one", clock::now()).unwrap(), Pair::make("two", clock::now()).unwrap());
    let before = put(&first);
    let files = format!("certfile = \"{}\"\nkeyfile = \"{}\"\n", file("cert.pem"), file("key.pem"));
    let broker = Broker::start("A", &format!("{TLS}{files}")).await;
    let scene = Scene { broker, folder: tempfile::tempdir().unwrap(), fingerprint: String::new() };
    let shown = async || {
        let stream = scene.connect(TlsVersion::V13, None).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let key = Keys::of(&scene.broker.data()).create("test", 1).unwrap();
    let credentials = base64::encode(format!("{}:{}", key.key.id, key.secret).as_bytes());
    let reload = async || {
        let head = "POST /api/v5/config/reload HTTP/1.0\r\nHost: any.example\r\nContent-Length: 0\r\n";
        let mut stream = scene.connect(TlsVersion::V13, None).await.unwrap();
        stream
            .write_all(format!("{head}Authorization: Basic {credentials}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    assert_eq!(shown().await, before);
    fs::write(file("cert.pem"), "none").unwrap();
    let refused = reload().await;
    assert!(
        refused.contains(" 400 ") && refused.contains("http.ssl: ") && refused.contains("cert.pem"),
        "{refused}"
    );
    assert_eq!(shown().await, before);
    let after = put(&second);
    assert_eq!(shown().await, before, "not before it is asked for");
    let taken = reload().await;
    assert!(taken.contains(" 200 "), "{taken}");
    assert_eq!(shown().await, after);
}

#[tokio::test]
async fn api_keys_work_there_as_well_and_what_is_wrong_is_said() {
    let scene = Scene::new().await;
    let url = format!("https://{}", scene.broker.listener("https"));
    let new = Keys::of(&scene.broker.data()).create("test", 1).unwrap();
    let key = format!("{}:{}", new.key.id, new.secret);
    let with = async |more: &[&str]| run(&[&["client", "list", "--url", &*url], more].concat()).await;
    let print = scene.fingerprint.as_str();
    assert_eq!(with(&["--key", &key, "--tls-fingerprint", print]).await.0, 0);
    assert_eq!(with(&["--key", "a:b", "--tls-fingerprint", print]).await.0, 3);
    let other = "ab".repeat(32);
    let ran = with(&["--key", &key, "--tls-fingerprint", &other]).await;
    assert!(ran.0 == 7 && ran.2.contains(&format!("expected sha256:{other}")), "{ran:?}");
    for (more, why) in [
        (&["--key", "a:b"][..], "--tls-fingerprint"),
        (&["--tls-fingerprint", print], "--tls-cert with --tls-keyfile"),
        (&["--tls-fingerprint", print, "--tls-cert", "/no", "--tls-keyfile", "/no"], "/no"),
    ] {
        let ran = with(more).await;
        assert!(ran.0 == 2 && ran.2.contains(why), "{more:?}: {ran:?}");
    }
    let plain = url.replace("https", "http");
    let ran = run(&["client", "list", "--url", &plain]).await;
    assert!(ran.0 == 2 && ran.2.contains("--url needs --key"), "{ran:?}");
}

/// TLS 1.3 alone, nothing to resume, and a page of another origin is refused.
#[tokio::test]
async fn the_port_is_as_strict_as_a_links() {
    let scene = Scene::new().await;
    let address = scene.broker.listener("https").to_owned();
    let old = scene.connect(TlsVersion::V12, None).await.unwrap_err();
    assert!(old.to_string().contains("ProtocolVersion"), "{old}");
    for (head, status) in [
        ("Host: any.example", "200"),
        ("Host: any.example\r\nOrigin: https://any.example", "200"),
        ("Host: any.example\r\nOrigin: https://other.example", "403"),
        ("Host: any.example\r\nOrigin: null", "403"),
    ] {
        let mut stream = scene.connect(TlsVersion::V13, None).await.unwrap();
        let request = format!("GET /health/live HTTP/1.0\r\n{head}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("close_notify");
        assert_eq!(answer.split(' ').nth(1), Some(status), "{head}: {answer}");
        assert_eq!(stream.get_ref().1.tls13_tickets_received(), 0);
    }
    // Many that say nothing do not keep out who does.
    let mut silent = Vec::new();
    for _ in 0..31 {
        silent.push(TcpStream::connect(&address).await.unwrap());
    }
    scene.connect(TlsVersion::V13, None).await.unwrap();
}

/// `http.viewer_socket`: whoever its file lets in has `server viewer`.
#[tokio::test]
async fn the_socket_of_viewers_shows_what_a_viewer_may_see() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("viewer.sock").display().to_string();
    let broker = Broker::start_with("A", &format!("viewer_socket = \"{socket}\"\n"), "").await;
    let by = async |line: &str| run(&line.split(' ').chain(["--socket", &socket]).collect::<Vec<_>>()).await;
    for line in ["client list", "link list", "auth identity list", "auth group list", "status"] {
        let ran = by(line).await;
        assert!(ran.0 == 0 && ran.2.is_empty(), "{line}: {ran:?}");
    }
    let ran = by("auth identity info --format csv").await;
    assert!(ran.1.contains("viewer socket") && ran.1.contains("viewer\"\"]"), "{ran:?}");
    for line in ["auth group create x", "link create B", "link cert rotate", "events"] {
        let ran = by(line).await;
        assert!(ran.0 == 3 && ran.2.contains("viewer socket may not"), "{line}: {ran:?}");
    }
    drop(broker);
    let ran = by("client list").await;
    assert!(ran.0 == 1 && ran.2.contains("no broker answers at"), "{ran:?}");
}
