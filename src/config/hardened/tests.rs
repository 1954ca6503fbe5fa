use super::*;
use crate::config::Environment;
use crate::config::parse;

const README: &str = include_str!("../../../README.md");

/// The configuration of the README's chapter on security.
fn chapter() -> &'static str {
    let (_, chapter) = README.split_once("\n## Security\n").unwrap();
    let (_, text) = chapter.split_once("```toml\n").unwrap();
    text.split_once("```").unwrap().0
}

fn points(text: &str) -> Vec<Point> {
    let settings = parse("tombolo.toml", text, &Environment::default());
    hardened(&settings.unwrap_or_else(|errors| panic!("{}", errors[0])))
}

#[test]
fn the_chapter_has_these_lines_and_its_configuration_keeps_them() {
    for (number, point) in (1..).zip(points(chapter())) {
        assert_eq!(point.broken, [""; 0], "{}", point.about);
        assert!(README.contains(&format!("\n{number}. {}\n", point.about)), "{}", point.about);
    }
}

/// What is changed in the chapter's configuration, which lines that breaks, and at what setting.
#[test]
fn each_weak_spot_breaks_its_line() {
    let table: [(&str, &str, &[usize], &str); 24] = [
        (
            "[authentication]",
            "[authentication]\nallow_anonymous = true",
            &[1],
            "authentication.allow_anonymous",
        ),
        (
            "[authentication]",
            "[authentication]\nattempts = {enable = false}",
            &[1],
            "authentication.attempts.enable",
        ),
        (
            "[authorization]",
            "[[authentication.chain]]\nmechanism = \"jwt\"\nrequire_exp = false\njwks_file = \"k\"\n[authorization]",
            &[1],
            "authentication.chain[0].require_exp",
        ),
        (
            "[authorization]",
            "[[authentication.chain]]\nmechanism = \"http\"\nallow_insecure = true\nurl = \"http://a\"\n[authorization]",
            &[2],
            "authentication.chain[0]: plaintext towards a:80",
        ),
        ("versions = [\"tlsv1.3\"]", "", &[2], "listeners[ssl:field].ssl.versions"),
        ("[authentication]", "[http]\nbind = \"192.0.2.1:1\"\n[authentication]", &[2], "http.bind"),
        (
            "[authentication]",
            "[[listeners]]\nname = \"old\"\nbind = \"[::]:1883\"\n[authentication]",
            &[2],
            "listeners[tcp:old].type: plaintext on [::]:1883",
        ),
        (
            "[authentication]",
            "[[listeners]]\nname = \"in\"\nbind = \"127.0.0.1:1\"\nauthn = {enable = false}\n[authentication]",
            &[1],
            "listeners[tcp:in].authn.enable",
        ),
        ("192.0.2.10:8885", "0.0.0.0:8885", &[3], "listeners[ssl:links].bind"),
        ("192.0.2.10:8885", "[::]:8885", &[3], "listeners[ssl:links].bind"),
        ("role = \"link\"", "role = \"any\"", &[3], "listeners[ssl:links].role"),
        (
            "role = \"link\"",
            "role = \"link\"\nallow_insecure = true",
            &[3],
            "listeners[ssl:links].allow_insecure",
        ),
        ("[authentication]", "[link]\ntoken_expiry = \"16m\"\n[authentication]", &[5], "link.token_expiry"),
        (
            "[authentication]",
            "[link]\nallowed_peer_networks = [\"127.0.0.1\"]\n[authentication]",
            &[6],
            "link.allowed_peer_networks",
        ),
        ("topics = [\"plant/+/state\"]", "topics = [\"#\"]", &[6], "cluster.links[B].topics"),
        ("export = [\"plant/+/state\"]", "export = [\"#\"]", &[6], "cluster.links[B].export"),
        ("export = [\"plant/+/state\"]", "", &[6], "cluster.links[B].export"),
        ("bytes_rate = \"10MB/s\"", "", &[6], "cluster.links[B].quota"),
        ("file = \"acl.conf\"", "", &[7], "authorization.file"),
        ("security_profile = \"hardened\"", "", &[7], "authorization.security_profile"),
        (
            "file = \"acl.conf\"",
            "file = \"acl.conf\"\nmode = \"emqx\"\nno_match = \"allow\"",
            &[7],
            "authorization.mode",
        ),
        ("[flapping_detect]\nenable = true", "", &[8], "flapping_detect.enable"),
        (
            "[authentication]",
            "[overload_protection]\nmax_memory = \"infinity\"\n[authentication]",
            &[9],
            "overload_protection.max_memory",
        ),
        ("[authentication]", "[log]\nsecurity_file = false\n[authentication]", &[10], "log.security_file"),
    ];
    for (old, new, lines, setting) in table {
        assert!(chapter().contains(old), "{old}");
        let points = points(&chapter().replacen(old, new, 1));
        let broken: Vec<usize> = (1..)
            .zip(&points)
            .filter(|(_, point)| !point.broken.is_empty())
            .map(|(number, _)| number)
            .collect();
        assert_eq!(broken, lines, "{new}: {points:?}");
        let all = points[lines[0] - 1].broken.join("\n");
        assert!(all.contains(setting), "{new}: {all}");
    }
}

#[test]
fn a_link_without_certificates_breaks_the_line_on_proofs() {
    let proof = "cert_sha256 = [\"BB";
    let (before, rest) = chapter().split_once(proof).unwrap();
    let (_, after) = rest.split_once("]\n").unwrap();
    let by_name = format!("{before}username = \"clink-user:B\"\n{after}");
    // The listener for links knows no certificate to ask for any more, which is an error of its own.
    let by_name = by_name.replacen("role = \"link\"", "role = \"link\"\nallow_insecure = true", 1).replacen(
        "bind = \"192.0.2.10:8885\"\n[listeners.ssl]",
        "bind = \"192.0.2.10:8885\"\n[listeners.ssl]\nverify = \"verify_none\"\nfail_if_no_peer_cert = false",
        1,
    );
    let broken = &points(&by_name)[3].broken;
    assert_eq!(broken.len(), 2, "{broken:?}");
    assert!(
        broken[0].contains("listeners[ssl:links].ssl.verify") && broken[1].contains("cluster.links[B].peer")
    );
}
