//! What commands about trust print, to the letter (`trust.md` 2.8): each file in `golden` is a transcript. Who changes a column on
//! purpose writes them anew with `TOMBOLO_GOLDEN=write cargo test --test admin golden`, and looks at the difference. Ids,
//! fingerprints, times, ports and folders are masked, in their length.

use std::env;
use std::fs;
use std::path::Path;

use tombolo::net::clock;
use tombolo::net::own_certificate::Pair;
use tombolo::net::own_certificate::chain_pem;

use crate::link_changes::Broker;
use crate::trust::ran;
use crate::trust::start;

/// What lists and shows, in every format.
const FORMATS: [&str; 5] = ["table", "json", "yaml", "csv", "compact"];

/// What is done and shown, in this order: `*` in front is for every format.
const LINK: &str = "\
link create B --description partner
*link token list
*link list
link show B
link info B
link create B
link get B topics
link delete B --yes
auth identity create link/C CERT --address 127.0.0.1:1 --topics plant/#
link set C enable=false
*link list
*link show C
*link info C
*link routes C
*link spool C
*link ledger C
link explain plant/1
link get C topics
link unset C topics
link trust D --fingerprint sha256:0101010101010101010101010101010101010101010101010101010101010101 --address 127.0.0.1:1
link trust D --remove --yes
*link cert show
link rename C E
link delete C --yes
link delete C --yes
link token revoke 00000000-0000-4000-8000-000000000000 --yes";

const AUTH: &str = "\
auth group create plant --description everything
auth group permission add plant topic plant/# can_export
auth group permission add plant topic plant/# can_sing
auth group create plant
*auth group list
*auth group show plant
auth identity create link/C CERT --group plant
link create B
*auth identity list
*auth identity list --unused 0s
auth identity list --unused soon
*auth identity show link/C
*auth identity info link/C
*auth permission list
auth permission list --max-entitlements 0
auth identity group add link/C link-peer
auth identity group remove link/C plant
auth group permission remove plant topic plant/# can_export
auth group rename plant works
auth group delete works
auth group delete works --yes
auth identity revoke link/C --yes
auth identity delete link/C --yes
auth identity show link/C";

const ACL: &str = "\
acl show --generated
auth identity create link/C CERT --address 127.0.0.1:1
acl show --generated
acl export --emqx
acl export --emqx --peer C
acl export --emqx --peer D";

#[tokio::test]
async fn commands_about_links_print_what_they_did() {
    compare("link", LINK).await;
}

#[tokio::test]
async fn commands_about_identities_print_what_they_did() {
    compare("auth", AUTH).await;
}

#[tokio::test]
async fn commands_about_generated_rules_print_what_they_did() {
    compare("acl", ACL).await;
}

/// Whether the transcripts are to be written anew.
#[allow(clippy::disallowed_methods, reason = "it is asked of whoever runs the test, not of a configuration")]
fn is_writing() -> bool {
    env::var("TOMBOLO_GOLDEN").is_ok_and(|what| what == "write")
}

async fn compare(name: &str, commands: &str) {
    let now = transcript(commands).await;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/admin/golden/{name}.txt"));
    if is_writing() {
        fs::write(&path, &now).unwrap();
    }
    let before = fs::read_to_string(&path).unwrap();
    let differs = before.lines().zip(now.lines()).position(|(before, now)| before != now);
    let line = differs.unwrap_or_else(|| before.lines().count().min(now.lines().count()));
    let at = |text: &str| text.lines().nth(line).unwrap_or("(the end)").to_owned();
    let (was, is) = (at(&before), at(&now));
    assert!(
        before == now,
        "{name}.txt:{}\n was: {was}\n  is: {is}\n(see above how to write it anew)",
        line + 1
    );
}

async fn transcript(commands: &str) -> String {
    let broker = start("A").await;
    let certificate = broker.data().join("c.pem");
    fs::write(&certificate, chain_pem(&Pair::make("C", clock::now()).unwrap().chain)).unwrap();
    let mut all = String::new();
    for line in commands.lines() {
        match line.strip_prefix('*') {
            None => all += &one(&broker, line, &certificate).await,
            Some(line) => {
                for format in FORMATS {
                    all += &one(&broker, &format!("{line} --format {format}"), &certificate).await;
                }
            }
        }
    }
    all
}

/// A command, and what came of it.
async fn one(broker: &Broker, line: &str, certificate: &Path) -> String {
    let (code, out, error) = ran(broker, &line.replace("CERT", certificate.to_str().unwrap())).await;
    let mut text = format!("$ tombolo {line}\n{out}");
    text += &error.lines().map(|line| format!("! {line}\n")).collect::<String>();
    if code != 0 {
        text += &format!("(exit {code})\n");
    }
    masked(&text.replace(broker.data().to_str().unwrap(), "DATA")) + "\n"
}

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Without what is another in every run.
fn masked(text: &str) -> String {
    let certificates = text.split(BEGIN).map(|part| match part.split_once(END) {
        Some((_, after)) => format!("{BEGIN}...{END}{after}"),
        None => part.to_owned(),
    });
    let text: String = certificates.collect();
    let is_of_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, ':' | '.' | '-' | '_');
    text.split_inclusive(|c| !is_of_word(c))
        .map(|part| {
            let word = part.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            masked_word(word) + &part[word.len()..]
        })
        .collect()
}

fn masked_word(word: &str) -> String {
    if word.starts_with("tmb1.") {
        return "tmb1.TOKEN".to_owned();
    }
    if let Some(port) = word.strip_prefix("127.0.0.1:").filter(|port| port.len() == 5) {
        return format!("127.0.0.1:{}", "9".repeat(port.len()));
    }
    let hex = word.strip_prefix("sha256:").unwrap_or(word);
    if hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return word.replace(hex, &"f".repeat(64));
    }
    let shape: String = word.chars().map(|c| if c.is_ascii_hexdigit() { '0' } else { c }).collect();
    let is_moment = shape.len() >= 20 && shape.starts_with("0000-00-00T00:00:00");
    if shape == "00000000-0000-0000-0000-000000000000" || is_moment {
        return word.chars().map(|c| if c.is_ascii_hexdigit() { '0' } else { c }).collect();
    }
    word.to_owned()
}
