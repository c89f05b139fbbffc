//! One answer of an [`super::Origin`]: right, slow or wrong.

use std::io::{self, Read};
use std::net::TcpStream;

use super::found::{Body, Found};
use super::{Fault, Shared};

impl Shared {
    /// Says whether the connection goes on.
    pub(super) fn answer(
        &self,
        stream: &TcpStream,
        head: &str,
        target: &str,
        fault: Option<Fault>,
    ) -> io::Result<bool> {
        let head_only = head.starts_with("HEAD ");
        // There is no body to spoil then. What was sent of one would be taken for the next answer, and a connection that
        // stalls after it swallow requests that the log never sees.
        let fault = fault.filter(|fault| !(head_only && fault.is_of_the_body()));
        match fault {
            None => match self.find(head, target) {
                Some(found) => self.whole(stream, found, head_only),
                None => self.status(stream, head, "404 Not Found"),
            },
            Some(Fault::Status(status)) => self.status(stream, head, &status.to_string()),
            Some(Fault::Busy(seconds)) => {
                self.status(stream, head, &format!("429 Too Many Requests\r\nRetry-After: {seconds}"))
            }
            Some(Fault::Reset) => Ok(false),
            Some(Fault::Stall) => hang(stream),
            Some(Fault::Html) => {
                let headers = "Content-Type: text/html; charset=utf-8\r\n".to_owned();
                let body = Body::Memory(b"<h1>Welcome to our hotel</h1>".to_vec());
                self.whole(stream, Found { status: "200 OK", headers, body }, false)
            }
            Some(Fault::RedirectLoop) => {
                self.status(stream, head, &format!("302 Found\r\nLocation: {target}"))
            }
            Some(Fault::Endless) => {
                let mut sending = self.pace.sending(stream);
                sending.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
                loop {
                    sending.send(&[7; 16 << 10])?;
                }
            }
            Some(Fault::StallMidway | Fault::Truncate | Fault::Short | Fault::FlipBit) => {
                let Some(found) = self.find(head, target) else {
                    return self.status(stream, head, "404 Not Found");
                };
                let (status, headers) = (found.status, found.headers);
                let mut bytes = found.body.bytes()?;
                let half = bytes.len() / 2;
                if fault == Some(Fault::FlipBit) {
                    bytes.iter_mut().skip(half).take(1).for_each(|byte| *byte ^= 4);
                    return self.whole(stream, Found { status, headers, body: Body::Memory(bytes) }, false);
                }
                let length = match fault {
                    Some(Fault::Short) => "Connection: close".to_owned(),
                    _ => format!("Content-Length: {}", bytes.len()),
                };
                let mut sending = self.pace.sending(stream);
                sending.send(format!("HTTP/1.1 {status}\r\n{headers}{length}\r\n\r\n").as_bytes())?;
                sending.send(&bytes[..half])?;
                if fault == Some(Fault::StallMidway) { hang(stream) } else { Ok(false) }
            }
        }
    }

    /// `status` may bring a header with it.
    fn status(&self, stream: &TcpStream, head: &str, status: &str) -> io::Result<bool> {
        let body = if head.starts_with("HEAD ") { "" } else { "no" };
        let answer =
            format!("HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{body}");
        self.pace.sending(stream).send(answer.as_bytes())?;
        Ok(true)
    }

    fn whole(&self, stream: &TcpStream, found: Found, head_only: bool) -> io::Result<bool> {
        let Found { status, headers, body } = found;
        let length = body.len();
        let mut sending = self.pace.sending(stream);
        sending.send(format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n").as_bytes())?;
        if !head_only {
            body.send(&mut sending)?;
        }
        Ok(true)
    }
}

/// Says nothing until the client goes away.
fn hang(mut stream: &TcpStream) -> io::Result<bool> {
    while stream.read(&mut [0; 512])? > 0 {}
    Ok(false)
}
