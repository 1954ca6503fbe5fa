"""openssl as a foreign TLS client: what is not negotiated, whatever it offers (`authn-tls.md` T8 to T10); and as an OCSP responder."""

import re
import tempfile

from pathlib import Path

from harness import Process, case, expect, expect_equal, free_port, need, run, until

# What the certificate of these tests, which has an elliptic curve, can be used with.
OURS = {"ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"}
# Every suite that the program knows, weak ones included.
EVERYTHING = "ALL:COMPLEMENTOFALL:@SECLEVEL=0"


def client(broker, *options, stdin=""):
    """Exit code and output of one connection."""
    arguments = [need("openssl"), "s_client", "-connect", f"127.0.0.1:{broker.ports['ssl']}", "-CAfile", broker.certificate]
    code, lines = run(*arguments, *options, stdin=stdin)
    return code, "\n".join(lines)


def refused(output, alerts, what):
    """Nothing was agreed on, and the broker said so."""
    expect("Cipher is (NONE)" in output, f"{what} was negotiated:\n{output}")
    expect(re.search(rf"alert number ({alerts})\b", output), f"{what}: no alert {alerts}:\n{output}")


def offered(broker):
    code, lines = run(need("openssl"), "ciphers", "-s", "-tls1_2", EVERYTHING)
    expect_equal(code, 0, f"openssl ciphers: {lines}")
    suites = lines[0].split(":")
    expect(len(suites) > 20 and OURS <= set(suites), f"suites of this openssl: {suites}")
    return [suite for suite in suites if suite not in OURS and not suite.startswith("TLS_")]


@case
def our_suites_are_taken(broker):
    for suite in sorted(OURS):
        code, output = client(broker, "-tls1_2", "-cipher", suite)
        expect(f"Cipher is {suite}" in output and "Verify return code: 0" in output, f"{suite}:\n{output}")
    code, output = client(broker, "-tls1_3")
    expect("Cipher is TLS_AES_256_GCM_SHA384" in output, f"TLS 1.3:\n{output}")


@case
def t9_no_weak_suite_is_taken(broker):
    """CBC, static RSA, DHE, RC4, 3DES, NULL, anonymous and PSK: whatever this openssl knows, together and each alone."""
    suites = offered(broker)
    psk = ("-psk", "0123456789abcdef", "-psk_identity", "x")
    _, output = client(broker, "-tls1_2", *psk, "-cipher", ":".join(suites) + ":@SECLEVEL=0")
    refused(output, 40, "one of all weak suites")
    for suite in suites:
        _, output = client(broker, "-tls1_2", *psk, "-cipher", f"{suite}:@SECLEVEL=0")
        refused(output, 40, suite)


@case
def t8_no_older_version_is_taken(broker):
    for version in ("-tls1", "-tls1_1"):
        _, output = client(broker, version, "-cipher", EVERYTHING)
        # The library says either, by what else the client lacks.
        refused(output, "40|70", version)


@case
def t10_a_client_that_renegotiates_gets_nothing(broker):
    """It hears no ServerHello until the broker gives up waiting for its CONNECT (`mqtt.idle_timeout`)."""
    process = Process(
        need("openssl"), "s_client", "-connect", f"127.0.0.1:{broker.ports['ssl']}", "-CAfile", broker.certificate, "-tls1_2",
        "-msg", stdin="R\n",
    )
    try:
        process.wait_line(r"^RENEGOTIATING")
        asked = len(process.lines)
        process.wait()
        expect(not any("ServerHello" in line for line in process.lines[asked:]), "a second handshake took place")
        expect(any("ServerHello" in line for line in process.lines[:asked]), "the first one was seen")
    finally:
        process.stop()


@case
def t10_nothing_is_compressed_and_no_heart_beats(broker):
    for version in ("-tls1_2", "-tls1_3"):
        _, output = client(broker, version, "-comp", "-tlsextdebug")
        expect("Compression: NONE" in output, f"{version}:\n{output}")
        expect("heartbeat" not in output, f"{version}:\n{output}")


@case
def t10_early_data_is_not_taken(broker):
    """A replayed first flight could be a replayed PUBLISH."""
    with tempfile.TemporaryDirectory() as folder:
        session, early = Path(folder, "session"), Path(folder, "early")
        process = Process(
            need("openssl"), "s_client", "-connect", f"127.0.0.1:{broker.ports['ssl']}", "-CAfile", broker.certificate, "-tls1_3",
            "-ign_eof", "-sess_out", str(session),
        )
        try:
            # It comes after the handshake.
            until(lambda: session.exists() and session.stat().st_size > 0, "a ticket to resume with")
        finally:
            process.stop()
        early.write_bytes(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00")
        _, output = client(broker, "-tls1_3", "-sess_in", str(session), "-early_data", str(early))
    expect("Early data was accepted" not in output, output)
    expect(re.search(r"Max Early Data: 0|Early data was (not sent|rejected)", output), output)
    expect("Reused, TLSv1.3" in output, f"the session was not resumed:\n{output}")


STAPLING = """
[cluster]
name = "stapling"
[data]
dir = "{dir}/data"
[[listeners]]
name = "default"
type = "ssl"
bind = "127.0.0.1:0"
[listeners.ssl]
certfile = "{dir}/server.pem"
keyfile = "{dir}/server.key"
[listeners.ssl.ocsp]
enable_ocsp_stapling = true
responder_url = "http://127.0.0.1:{port}"
issuer_pem = "{dir}/ca.pem"
[authentication]
allow_anonymous = true
[http]
bind = "127.0.0.1:0"
[log]
format = "json"
"""


def openssl(*arguments):
    code, output = run(need("openssl"), *arguments)
    expect_equal(code, 0, f"openssl {arguments[0]}: {output}")
    return output


def make_authority(folder):
    """An authority and a certificate by it that an index says is valid."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"]
    openssl("req", "-x509", *key, "-days", "2", "-subj", "/CN=authority", "-keyout", f"{folder}/ca.key", "-out", f"{folder}/ca.pem")
    openssl("req", *key, "-subj", "/CN=localhost", "-keyout", f"{folder}/server.key", "-out", f"{folder}/server.csr")
    Path(folder, "extensions").write_text("basicConstraints=critical,CA:FALSE\nsubjectAltName=DNS:localhost\n", encoding="utf-8")
    openssl(
        "x509", "-req", "-in", f"{folder}/server.csr", "-CA", f"{folder}/ca.pem", "-CAkey", f"{folder}/ca.key", "-days", "2",
        "-set_serial", "0xABCD", "-extfile", f"{folder}/extensions", "-out", f"{folder}/server.pem",
    )
    Path(folder, "index").write_text("V\t491231235959Z\t\tABCD\tunknown\t/CN=localhost\n", encoding="utf-8")


@case
def the_word_of_a_responder_is_stapled(broker):
    with tempfile.TemporaryDirectory() as folder:
        make_authority(folder)
        port = free_port()
        responder = Process(
            need("openssl"), "ocsp", "-port", str(port), "-index", f"{folder}/index", "-CA", f"{folder}/ca.pem",
            "-rsigner", f"{folder}/ca.pem", "-rkey", f"{folder}/ca.key", "-nmin", "5",
        )
        config = Path(folder, "tombolo.toml")
        stapling = None
        try:
            responder.wait_line(r"ACCEPT|waiting for OCSP")
            config.write_text(STAPLING.format(dir=folder, port=port), encoding="utf-8")
            stapling = Process(broker.binary, "serve", "--config", str(config))
            address = stapling.wait_line(r'"message":"listening".*"address":"127.0.0.1:(\d+)"').group(1)
            stapling.wait_line(r"says that our certificate is good")
            _, lines = run(
                need("openssl"), "s_client", "-connect", f"127.0.0.1:{address}", "-CAfile", f"{folder}/ca.pem", "-status", stdin="",
            )
            output = "\n".join(lines)
            expect("OCSP Response Status: successful" in output and "Cert Status: good" in output, output)
        finally:
            if stapling is not None:
                stapling.stop()
            responder.stop()
