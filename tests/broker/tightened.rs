//! What becomes of those who are in when the rules for certificates get tighter by a reload, when their authority expires,
//! and what goes on while a file of certificates cannot be read because its file system hangs.

use std::fs::OpenOptions;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::thread::JoinHandle;

use rcgen::CertificateParams;
use rcgen::date_time_ymd;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tombolo::mqtt::packet::Connect;
use tombolo::mqtt::packet::Version;
use tombolo::net::clock;
use tombolo::time::Now;

use crate::certificates::enter;
use crate::certificates::events;
use crate::certificates::listener;
use crate::harness::Client;
use crate::harness::Got;
use crate::harness::LIMIT;
use crate::harness::Running;
use crate::harness::Setup;
use crate::harness::hello;
use crate::transports::Authority;
use crate::transports::Issued;
use crate::transports::tls_client;

const YEAR_2090_MS: u64 = 3_786_912_000_000;

fn at(unix_ms: u64) -> Now {
    Now { unix_ms, ..clock::now() }
}

fn until_2090(params: &mut CertificateParams) {
    params.not_after = date_time_ymd(2090, 1, 1);
}

/// A listener with these lines beside its keys.
fn asking(authority: &Authority, server: &Issued, lines: &str) -> String {
    let keys = authority.server_keys(server);
    format!(
        "[[listeners]]\nname = \"x\"\ntype = \"ssl\"\nbind = \"127.0.0.1:0\"\n[listeners.ssl]\n{keys}\n{lines}\n"
    )
}

/// A client without a certificate.
async fn enter_bare(broker: &Running, authority: &Authority, id: &str) -> Client {
    let mut client = tls_client(broker.address("ssl:x"), authority, None).await.unwrap();
    assert_eq!(client.connect(&Connect { ..hello(Version::V5, id) }).await, Got::ConnAck(false, 0));
    client
}

#[tokio::test]
async fn a_reload_that_asks_for_more_ends_those_who_would_not_get_in_and_nobody_else() {
    let authority = Authority::new();
    let (server, own) = (authority.issue("localhost"), authority.issue("own"));
    let with = |lines: &str| asking(&authority, &server, lines);
    let optional = "verify = \"verify_peer\"\nfail_if_no_peer_cert = false";
    let required = "verify = \"verify_peer\"\nfail_if_no_peer_cert = true";
    let mut broker = Setup::new().listeners(&with("verify = \"verify_none\"")).start().await;
    let mut bare = enter_bare(&broker, &authority, "bare").await;
    broker.reload(|setup| setup.listeners(&with(optional))).await.unwrap();
    bare.quiet().await;
    let mut certified = enter(&broker, &authority, &own, "certified").await.unwrap();
    broker.reload(|setup| setup.listeners(&with(required))).await.unwrap();
    bare.refused(0x87).await;
    certified.quiet().await;
    let told = events(&broker, "authn_revoked\"");
    assert!(told.len() == 1 && told[0].contains("certificate_required: no certificate"), "{told:?}");
    // What its certificate is for is not remembered: it has to show it again.
    let usage = format!("{required}\nverify_peer_ext_key_usage = \"clientAuth\"");
    broker.reload(|setup| setup.listeners(&with(&usage))).await.unwrap();
    certified.refused(0x98).await;
    let mut again = enter(&broker, &authority, &own, "again").await.unwrap();
    // One intermediate less than none is not asked for.
    let shallow = format!("{usage}\ndepth = 0");
    broker.reload(|setup| setup.listeners(&with(&shallow))).await.unwrap();
    for looser in [required, optional, "verify = \"verify_none\""] {
        again.quiet().await;
        broker.reload(|setup| setup.listeners(&with(looser))).await.unwrap();
    }
    again.quiet().await;
    enter_bare(&broker, &authority, "bare").await.quiet().await;
}

#[tokio::test]
async fn t15_an_authority_that_expires_while_connected_is_the_end_of_the_connection() {
    let (authority, lasting) = (Authority::until("short", 2090), Authority::named("lasting"));
    let text = listener(&authority, "client", "");
    let both = text
        .replace(&authority.file().display().to_string(), &authority.bundle(&lasting).display().to_string());
    let broker = Setup::new().listeners(&both).start().await;
    let mut goes = enter(&broker, &authority, &authority.issue("goes"), "goes").await.unwrap();
    let mut stays = enter(&broker, &authority, &lasting.issue("stays"), "stays").await.unwrap();
    broker.server.check_certificates(at(YEAR_2090_MS)).await;
    goes.quiet().await;
    broker.server.check_certificates(at(YEAR_2090_MS + 1000)).await;
    goes.refused(0x87).await;
    stays.quiet().await;
    let told = events(&broker, "authn_revoked");
    assert!(told.len() == 1 && told[0].contains("authority_expired"), "{told:?}");
}

/// A file whose file system hangs: a pipe that nobody writes to.
struct Hanging {
    /// Comes when somebody hangs there.
    somebody: oneshot::Receiver<()>,
    release: std::sync::mpsc::Sender<()>,
    holding: JoinHandle<bool>,
}

impl Hanging {
    fn at(path: &Path) -> Self {
        std::fs::remove_file(path).unwrap();
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        let (tell, somebody) = oneshot::channel();
        let (release, released) = std::sync::mpsc::channel();
        let path = path.to_owned();
        let holding = thread::spawn(move || {
            // Waits for a reader, who then waits for what is written.
            let pipe = OpenOptions::new().write(true).open(&path).unwrap();
            let _ = tell.send(());
            let in_time = released.recv_timeout(LIMIT).is_ok();
            let gone = PathBuf::from(format!("{}.gone", path.display()));
            std::fs::rename(&path, &gone).unwrap();
            // Whoever opened it meanwhile goes on as well.
            drop((pipe, OpenOptions::new().read(true).write(true).open(&gone).unwrap()));
            in_time
        });
        Self { somebody, release, holding }
    }

    async fn holds_somebody(&mut self) {
        timeout(LIMIT, &mut self.somebody).await.expect("it is read").unwrap();
    }

    /// Lets them go. The broker has got so far without them.
    fn release(self) {
        // If the other end is gone, it has given up, which it says.
        let _ = self.release.send(());
        assert!(self.holding.join().unwrap(), "the broker waited for the file");
    }
}

#[tokio::test]
async fn a_list_whose_file_hangs_holds_up_no_dates() {
    let authority = Authority::new();
    let file = authority.revoke(&[99]);
    let more = format!("crlfile = \"{}\"", file.display());
    let broker = Setup::new().listeners(&listener(&authority, "client", &more)).start().await;
    let short = authority.issue_with("short", until_2090);
    let mut goes = enter(&broker, &authority, &short, "goes").await.unwrap();
    broker.server.check_certificates(clock::now()).await;
    let mut hanging = Hanging::at(&file);
    let checking = broker.server.check_certificates(at(YEAR_2090_MS + 1000));
    tokio::pin!(checking);
    tokio::select! {
        () = &mut checking => panic!("the file was read"),
        () = async { hanging.holds_somebody().await; goes.refused(0x87).await } => {}
    }
    hanging.release();
    checking.await;
}

#[tokio::test]
async fn a_link_whose_files_hang_holds_up_nobody() {
    let authority = Authority::new();
    let own = authority.issue("own");
    let peer = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let link = format!(
        "[[cluster.links]]\nname = \"B\"\nserver = \"{}\"\ntopics = []\n[cluster.links.peer]\ncert_cn = \"b\"\n\
         [cluster.links.ssl]\nserver_name_indication = \"localhost\"\n{}",
        peer.local_addr().unwrap(),
        authority.server_keys(&own)
    );
    let broker = Setup::new().links(&link).start().await;
    // It has read its files for this attempt, and will for the next.
    drop(timeout(LIMIT, peer.accept()).await.unwrap().unwrap());
    let mut hanging = Hanging::at(&own.keyfile);
    hanging.holds_somebody().await;
    let mut client = broker.join(Version::V5, "c").await;
    client.quiet().await;
    hanging.release();
}
