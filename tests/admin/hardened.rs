//! `tombolo check --hardened`: the README's chapter on security, step by step, and what its command says then.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::process::Output;

use rcgen::CertificateParams;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::KeyPair;
use rcgen::PKCS_ECDSA_P384_SHA384;
use tempfile::TempDir;
use tombolo::auth::password::PasswordFile;
use tombolo::auth::password::hash_password;

/// A block of code in the chapter.
fn block(language: &str) -> &'static str {
    let (_, chapter) = include_str!("../../README.md").split_once("\n## Security\n").unwrap();
    let (_, text) = chapter.split_once(&format!("```{language}\n")).unwrap();
    text.split_once("```").unwrap().0
}

fn secret(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// What `openssl` makes there, with the name of the host.
fn certificate(folder: &Path, name: &str) {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    let mut params = CertificateParams::new(vec![format!("{name}.example.net")]).unwrap();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    fs::write(folder.join(format!("{name}.pem")), params.self_signed(&key).unwrap().pem()).unwrap();
    secret(&folder.join(format!("{name}.key")), &key.serialize_pem());
}

fn chapter() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    certificate(folder.path(), "a");
    certificate(folder.path(), "b");
    let mut users = PasswordFile::parse("").unwrap();
    users.set("sensor-1", hash_password(b"secret", &[7; 16]).unwrap()).unwrap();
    secret(&folder.path().join("passwd"), &users.render());
    fs::write(folder.path().join("tombolo.toml"), block("toml")).unwrap();
    fs::write(folder.path().join("acl.conf"), block("erlang")).unwrap();
    folder
}

fn check(folder: &TempDir) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tombolo"))
        .args(["check", "--config", "tombolo.toml", "--hardened"])
        .current_dir(folder.path())
        .output()
        .unwrap()
}

/// The numbers of the lines that begin with this word.
fn lines(output: &Output, word: &str) -> Vec<usize> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines()
        .filter_map(|line| line.strip_prefix(word)?.trim_start().split_once('.')?.0.parse().ok())
        .collect()
}

#[test]
fn the_chapters_files_pass_and_each_line_is_confirmed() {
    let output = check(&chapter());
    assert_eq!(lines(&output, "ok"), (1..=11).collect::<Vec<_>>(), "{output:?}");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn a_line_that_does_not_hold_says_where_and_the_command_fails() {
    let folder = chapter();
    let config = folder.path().join("tombolo.toml");
    let open = fs::read_to_string(&config).unwrap().replace("enable = true", "enable = false");
    fs::write(&config, open).unwrap();
    fs::set_permissions(folder.path().join("a.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let output = check(&folder);
    assert_eq!((lines(&output, "NO"), output.status.code()), (vec![8, 11], Some(2)), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("flapping_detect.enable: false") && text.contains("a.key is open to every user"));
    assert!(String::from_utf8(output.stderr).unwrap().contains("2 of 11 lines"));
}
