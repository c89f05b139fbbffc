//! Just enough of an HTTP client to ask a server of this machine something, past our own clients.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// How long an answer may stand still.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a server said.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Panics with everything known unless the status is 200.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("no JSON ({e}): {}", String::from_utf8_lossy(&self.body)))
    }
}

/// POSTs nothing to `target` on a port of this machine.
#[track_caller]
pub fn post(port: u16, target: &str) -> Answer {
    post_body(port, target, "text/plain", &[])
}

/// POSTs `body`, which is of this type.
#[track_caller]
pub fn post_body(port: u16, target: &str, kind: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("somebody listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time that is not zero");
    let head = format!("POST {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: {kind}");
    let head = format!("{head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).expect("it listens to the end");
    stream.write_all(body).expect("it listens to the end");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap_or_else(|e| panic!("POST {target}: {e}"));
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").expect("an answer has a head");
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let body = &answer[end + 4..];
    let body = if head.contains("transfer-encoding: chunked") { joined(body) } else { body.to_vec() };
    Answer { status, body }
}

/// A chunked body as one.
fn joined(mut chunks: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = chunks.windows(2).position(|w| w == b"\r\n") {
        let len = String::from_utf8_lossy(&chunks[..end]);
        let len = usize::from_str_radix(len.split(';').next().unwrap_or_default().trim(), 16).unwrap_or(0);
        let from = end + 2;
        if len == 0 || chunks.len() < from + len + 2 {
            break;
        }
        body.extend_from_slice(&chunks[from..from + len]);
        chunks = &chunks[from + len + 2..];
    }
    body
}
