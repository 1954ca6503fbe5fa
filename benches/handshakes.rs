//! What a TLS handshake costs the broker: its side alone, on one core, without sockets. TLS 1.2 against 1.3, and ways to judge
//! a client certificate: none asked for, by authority, by fingerprint, by authority and a revocation list of 10,000 entries.
//!
//! `cargo bench --bench handshakes`; `-- seconds=10` measures each row for longer.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on ends")]

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::CertificateRevocationListParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyIdMethod;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rcgen::RevokedCertParams;
use rcgen::SerialNumber;
use rcgen::date_time_ymd;
use rustls::ClientConnection;
use rustls::ServerConnection;
use sha2::Digest;
use sha2::Sha256;
use tombolo::auth::fitness::KeyUsage;
use tombolo::config::settings::CipherSuite;
use tombolo::config::settings::CrlSource;
use tombolo::config::settings::PartialChain;
use tombolo::net::clock;
use tombolo::net::tls::ClientTls;
use tombolo::net::tls::ClientTlsOptions;
use tombolo::net::tls::ServerTls;
use tombolo::net::tls::ServerTlsOptions;
use tombolo::net::tls::TlsVersion;
use tombolo::net::tls::Verify;

const REVOKED: u64 = 10_000;

/// Files of an authority, a server and a client, all with P-256.
struct Files {
    folder: tempfile::TempDir,
    client_pin: [u8; 32],
}

impl Files {
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "authority");
        fs::write(folder.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(params, key);
        issue(&issuer, folder.path(), "server");
        let client_pin = issue(&issuer, folder.path(), "client");
        let revoked = |serial: u64| RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: (0..REVOKED).map(|number| revoked(u64::MAX / 2 + number)).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        fs::write(folder.path().join("crl.pem"), list.signed_by(&issuer).unwrap().pem().unwrap()).unwrap();
        Self { folder, client_pin }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn server(&self, version: TlsVersion, verify: Verify) -> ServerTlsOptions {
        ServerTlsOptions {
            own: None,
            certfile: self.path("server.pem"),
            keyfile: self.path("server.key"),
            password: None,
            ocsp_issuer: None,
            cacertfile: None,
            partial_chain: PartialChain::Off,
            crl: None,
            verify,
            fail_if_no_peer_cert: verify == Verify::Peer,
            client_pins: Vec::new(),
            depth: 2,
            key_usages: if verify == Verify::Peer { vec![KeyUsage::ClientAuth] } else { Vec::new() },
            strict: true,
            versions: vec![version],
            ciphers: CipherSuite::ALL.to_vec(),
            honor_cipher_order: true,
            reuse_sessions: false,
            session_tickets: false,
            server_names: Vec::new(),
        }
    }

    fn client(&self, version: TlsVersion) -> ClientTlsOptions {
        ClientTlsOptions {
            cacertfile: Some(self.path("ca.pem")),
            own: None,
            certfile: Some(self.path("client.pem")),
            keyfile: Some(self.path("client.key")),
            password: None,
            server_pins: Vec::new(),
            strict: true,
            verify: Verify::Peer,
            server_name: None,
            versions: vec![version],
        }
    }
}

/// Fingerprint of what was issued.
fn issue(issuer: &Issuer<'static, KeyPair>, folder: &Path, name: &str) -> [u8; 32] {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.signed_by(&key, issuer).unwrap();
    fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
    fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    Sha256::digest(certificate.der()).into()
}

fn main() {
    // `cargo bench` passes `--bench`; `cargo test --benches` does not, and wants nothing measured.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let seconds = std::env::args().find_map(|argument| argument.strip_prefix("seconds=")?.parse().ok());
    let span = Duration::from_secs(seconds.unwrap_or(3));
    let files = Files::make();
    let (ca, crl) = (Some(files.path("ca.pem")), Some(CrlSource::File(files.path("crl.pem"))));
    println!("| handshake | broker's side, us | a second on one core |\n|---|---|---|");
    for (version, name) in [(TlsVersion::V12, "TLS 1.2"), (TlsVersion::V13, "TLS 1.3")] {
        let open = files.server(version, Verify::None);
        let asks = files.server(version, Verify::Peer);
        let by_authority = ServerTlsOptions { cacertfile: ca.clone(), ..asks.clone() };
        let rows = [
            ("no client certificate", open),
            ("fingerprint", ServerTlsOptions { client_pins: vec![files.client_pin], ..asks }),
            ("authority", by_authority.clone()),
            ("authority, list of 10,000", ServerTlsOptions { crl: crl.clone(), ..by_authority }),
        ];
        let client = ClientTls::load(&files.client(version), clock::now()).unwrap();
        for (how, options) in rows {
            let server = ServerTls::load(&options, clock::now()).unwrap();
            let us = measure(&server, &client, span);
            println!("| {name}, {how} | {us:.0} | {:.0} |", 1e6 / us);
        }
    }
}

/// Microseconds of the broker for each handshake.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn measure(server: &ServerTls, client: &ClientTls, span: Duration) -> f64 {
    let until = Instant::now() + span;
    let (mut worked, mut count) = (Duration::ZERO, 0);
    while Instant::now() < until {
        worked += shake(server, client);
        count += 1;
    }
    worked.as_secs_f64() * 1e6 / f64::from(count)
}

/// One handshake in memory; gives what the broker's side took.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
fn shake(server: &ServerTls, client: &ClientTls) -> Duration {
    let mut near =
        ClientConnection::new(Arc::clone(&client.config), "localhost".try_into().unwrap()).unwrap();
    let mut worked = Duration::ZERO;
    let begun = Instant::now();
    let mut far = ServerConnection::new(Arc::clone(&server.config)).unwrap();
    worked += begun.elapsed();
    let mut wire = Vec::new();
    while near.is_handshaking() || far.is_handshaking() {
        while near.wants_write() {
            near.write_tls(&mut wire).unwrap();
        }
        let begun = Instant::now();
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            far.read_tls(&mut bytes).unwrap();
            far.process_new_packets().unwrap();
        }
        wire.clear();
        while far.wants_write() {
            far.write_tls(&mut wire).unwrap();
        }
        worked += begun.elapsed();
        let mut bytes = wire.as_slice();
        while !bytes.is_empty() {
            near.read_tls(&mut bytes).unwrap();
            near.process_new_packets().unwrap();
        }
        wire.clear();
    }
    worked
}
