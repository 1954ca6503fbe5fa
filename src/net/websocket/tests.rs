use std::io::ErrorKind;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::DuplexStream;
use tokio::io::duplex;

use super::*;

const BINARY: u8 = 2;
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const LIMIT: usize = 1024;

/// A client that writes its frames by hand.
struct Client(DuplexStream);

type Server = Result<WebSocket<DuplexStream>, tungstenite::Error>;

async fn handshake(path: &str, headers: &str) -> (Client, String, Server) {
    let (client, server) = duplex(64 * 1024);
    let accepting = tokio::spawn(accept(server, LIMIT));
    let mut client = Client(client);
    let request = format!(
        "GET {path} HTTP/1.1\nHost: x\nConnection: Upgrade\nUpgrade: websocket\nSec-WebSocket-Version: 13\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n{headers}\n"
    );
    client.0.write_all(request.replace('\n', "\r\n").as_bytes()).await.unwrap();
    let answer = client.head().await;
    (client, answer, accepting.await.unwrap())
}

async fn connected() -> (Client, WebSocket<DuplexStream>) {
    let (client, answer, server) = handshake(PATH, "Sec-WebSocket-Protocol: mqtt\n").await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    (client, server.unwrap())
}

impl Client {
    /// Up to the end of an HTTP head, or of the connection.
    async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match self.0.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
        String::from_utf8(head).unwrap()
    }

    async fn send(&mut self, opcode: u8, last: bool, payload: &[u8]) {
        let mask = [1, 2, 3, 4];
        let mut frame = vec![u8::from(last) << 7 | opcode];
        if payload.len() < 126 {
            frame.push(0x80 | u8::try_from(payload.len()).unwrap());
        } else {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
        }
        frame.extend(mask);
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.0.write_all(&frame).await.unwrap();
    }

    /// Opcode and payload of the next frame.
    async fn receive(&mut self) -> (u8, Vec<u8>) {
        let first = self.0.read_u8().await.unwrap();
        assert_eq!(first & 0xf0, 0x80, "whole frames only");
        let length = match self.0.read_u8().await.unwrap() {
            126 => u64::from(self.0.read_u16().await.unwrap()),
            127 => self.0.read_u64().await.unwrap(),
            length => u64::from(length),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut payload).await.unwrap();
        (first & 0xf, payload)
    }
}

#[tokio::test]
async fn the_subprotocol_is_required_and_echoed() {
    // [MQTT-6.0.0-3], [MQTT-6.0.0-4]
    let table = [
        ("Sec-WebSocket-Protocol: mqtt\n", Some("mqtt")),
        ("Sec-WebSocket-Protocol: mqttv3.1\n", Some("mqttv3.1")),
        ("Sec-WebSocket-Protocol: chat, mqtt\n", Some("mqtt")),
        ("Sec-WebSocket-Protocol: mqttv3.1,mqtt\n", Some("mqttv3.1")),
        ("Sec-WebSocket-Protocol: chat\nSec-WebSocket-Protocol: mqtt\n", Some("mqtt")),
        ("Sec-WebSocket-Protocol: chat\n", None),
        ("Sec-WebSocket-Protocol: MQTT\n", None),
        ("Sec-WebSocket-Protocol: mqtt5\n", None),
        ("", None),
    ];
    for (headers, expect) in table {
        let (_, answer, server) = handshake(PATH, headers).await;
        let answer = answer.to_lowercase();
        match expect {
            Some(chosen) => {
                assert!(server.is_ok(), "{headers}");
                assert!(answer.contains(&format!("\r\nsec-websocket-protocol: {chosen}\r\n")), "{answer}");
            }
            None => {
                assert!(server.is_err(), "{headers}");
                assert!(answer.starts_with("http/1.1 400 "), "{answer}");
            }
        }
    }
}

#[tokio::test]
async fn only_the_path_of_mqtt_is_served() {
    let protocol = "Sec-WebSocket-Protocol: mqtt\n";
    for path in ["/", "/mqtt/", "/MQTT", "/chat"] {
        let (mut client, answer, server) = handshake(path, protocol).await;
        assert!(server.is_err(), "{path}");
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        let mut body = String::new();
        client.0.read_to_string(&mut body).await.unwrap();
        assert_eq!(body, "MQTT over WebSocket is at /mqtt\n");
    }
    assert!(handshake("/mqtt?token=1", protocol).await.2.is_ok());
}

#[tokio::test]
async fn what_is_no_websocket_is_refused() {
    let (client, server) = duplex(1024);
    let accepting = tokio::spawn(accept(server, LIMIT));
    let mut client = Client(client);
    // An MQTT CONNECT where HTTP is expected.
    client.0.write_all(b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00\r\n\r\n").await.unwrap();
    assert!(accepting.await.unwrap().is_err());
    assert_eq!(client.head().await, "");
}

#[tokio::test]
async fn frames_and_packets_need_not_align() {
    // [MQTT-6.0.0-2]
    let (mut client, mut server) = connected().await;
    client.send(BINARY, true, b"\xc0").await;
    client.send(BINARY, true, b"").await;
    client.send(PING, true, b"are you there").await;
    client.send(BINARY, false, b"\x00\xc0\x00").await;
    client.send(PING, true, b"between fragments").await;
    client.send(0, true, b"\xe0\x00").await;
    let mut bytes = [0; 6];
    server.read_exact(&mut bytes[..1]).await.unwrap();
    server.read_exact(&mut bytes[1..]).await.unwrap();
    assert_eq!(&bytes, b"\xc0\x00\xc0\x00\xe0\x00");

    server.write_all(b"\xd0\x00").await.unwrap();
    server.flush().await.unwrap();
    assert_eq!(client.receive().await, (PONG, b"are you there".to_vec()));
    assert_eq!(client.receive().await, (PONG, b"between fragments".to_vec()));
    assert_eq!(client.receive().await, (BINARY, b"\xd0\x00".to_vec()));
}

#[tokio::test]
async fn a_text_frame_ends_the_connection() {
    // [MQTT-6.0.0-1]
    let (mut client, mut server) = connected().await;
    client.send(TEXT, true, b"\xc0\x00".map(|byte| byte & 0x7f).as_slice()).await;
    let error = server.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert!(error.to_string().contains("MQTT-6.0.0-1"), "{error}");
    drop(server);
    let (opcode, payload) = client.receive().await;
    assert_eq!((opcode, &payload[..2]), (CLOSE, 1003_u16.to_be_bytes().as_slice()));
    assert_eq!(client.0.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_message_above_the_limit_and_an_unmasked_frame_are_errors() {
    let (mut client, mut server) = connected().await;
    client.send(BINARY, true, &[1; LIMIT]).await;
    let mut whole = [0; LIMIT];
    server.read_exact(&mut whole).await.unwrap();
    client.send(BINARY, true, &[1; LIMIT + 1]).await;
    assert_eq!(server.read_u8().await.unwrap_err().kind(), ErrorKind::InvalidData);

    let (mut client, mut server) = connected().await;
    client.send(BINARY, false, &[1; LIMIT / 2]).await;
    client.send(0, false, &[1; LIMIT / 2]).await;
    client.send(0, true, &[1; 1]).await;
    assert_eq!(server.read_u8().await.unwrap_err().kind(), ErrorKind::InvalidData);

    let (mut client, mut server) = connected().await;
    client.0.write_all(b"\x82\x01a").await.unwrap();
    assert_eq!(server.read_u8().await.unwrap_err().kind(), ErrorKind::InvalidData);
}

#[tokio::test]
async fn the_end_of_a_connection_is_an_end_with_and_without_a_close_frame() {
    let (mut client, mut server) = connected().await;
    client.send(BINARY, true, b"\xe0\x00").await;
    client.send(CLOSE, true, &1000_u16.to_be_bytes()).await;
    let mut rest = Vec::new();
    server.read_to_end(&mut rest).await.unwrap();
    assert_eq!(rest, b"\xe0\x00");
    assert_eq!(client.receive().await, (CLOSE, 1000_u16.to_be_bytes().to_vec()));

    let (client, mut server) = connected().await;
    drop(client);
    assert_eq!(server.read(&mut [0]).await.unwrap(), 0);

    let (mut client, mut server) = connected().await;
    server.write_all(b"\xd0\x00").await.unwrap();
    server.shutdown().await.unwrap();
    assert_eq!(client.receive().await.0, BINARY);
    assert_eq!(client.receive().await.0, CLOSE);
    assert_eq!(client.0.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn much_data_to_a_slow_reader_arrives_whole() {
    let (mut client, mut server) = connected().await;
    let sent: Vec<u8> = (0..300_000_u32).map(|index| index.to_le_bytes()[0]).collect();
    let expect = sent.clone();
    let writing = tokio::spawn(async move {
        server.write_all(&sent).await.unwrap();
        server.flush().await.unwrap();
        server
    });
    let mut received = Vec::new();
    while received.len() < expect.len() {
        let (opcode, payload) = client.receive().await;
        assert_eq!(opcode, BINARY);
        assert!(payload.len() <= MAX_SENT_FRAME_BYTES);
        received.extend(payload);
    }
    assert!(received == expect);
    writing.await.unwrap();
}
