//! One answer of an [`super::Origin`]: right, slow or wrong.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{Fault, Shared, lock};

/// What is sent at a time on a link with a bound.
const STEP: usize = 16 << 10;

impl Shared {
    /// Says whether the connection goes on.
    pub(super) fn answer(
        &self,
        stream: &TcpStream,
        target: &str,
        cid: &str,
        fault: Option<Fault>,
    ) -> io::Result<bool> {
        // As in a `dir:` store: a folder named by the two characters before the last.
        let folder = cid.len().checked_sub(3).and_then(|at| cid.get(at..cid.len() - 1)).unwrap_or("-");
        let block = fs::read(self.store.join(folder).join(cid)).ok();
        let block = block.filter(|_| target.starts_with("/ipfs/"));
        match fault {
            Some(Fault::Status(status)) => self.status(stream, &status.to_string()),
            Some(Fault::Busy(seconds)) => {
                self.status(stream, &format!("429 Too Many Requests\r\nRetry-After: {seconds}"))
            }
            Some(Fault::Reset) => Ok(false),
            Some(Fault::Stall) => hang(stream),
            Some(Fault::Html) => {
                self.whole(stream, "200 OK", "text/html; charset=utf-8", b"<h1>Welcome to our hotel</h1>")
            }
            Some(Fault::RedirectLoop) => self.status(stream, &format!("302 Found\r\nLocation: {target}")),
            Some(Fault::Endless) => {
                self.send(stream, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
                loop {
                    self.send(stream, &[7; STEP])?;
                }
            }
            None => match block {
                Some(block) => self.block(stream, &block),
                None => self.status(stream, "404 Not Found"),
            },
            Some(Fault::StallMidway | Fault::Truncate | Fault::Short | Fault::FlipBit) => {
                let Some(mut block) = block else { return self.status(stream, "404 Not Found") };
                let half = block.len() / 2;
                if fault == Some(Fault::FlipBit) {
                    block[half] ^= 4;
                    return self.block(stream, &block);
                }
                let length = match fault {
                    Some(Fault::Short) => "Connection: close".to_owned(),
                    _ => format!("Content-Length: {}", block.len()),
                };
                let kind = "Content-Type: application/vnd.ipld.raw";
                self.send(stream, format!("HTTP/1.1 200 OK\r\n{kind}\r\n{length}\r\n\r\n").as_bytes())?;
                self.send(stream, &block[..half])?;
                if fault == Some(Fault::StallMidway) { hang(stream) } else { Ok(false) }
            }
        }
    }

    fn block(&self, stream: &TcpStream, block: &[u8]) -> io::Result<bool> {
        self.whole(stream, "200 OK", "application/vnd.ipld.raw", block)
    }

    fn status(&self, stream: &TcpStream, status: &str) -> io::Result<bool> {
        self.whole(stream, status, "text/plain", b"no")
    }

    /// `status` may bring a header with it.
    fn whole(&self, stream: &TcpStream, status: &str, kind: &str, body: &[u8]) -> io::Result<bool> {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
        self.send(stream, head.as_bytes())?;
        self.send(stream, body)?;
        Ok(true)
    }

    /// Writes as fast as the link is, which all connections share.
    fn send(&self, mut stream: &TcpStream, bytes: &[u8]) -> io::Result<()> {
        let Some(speed) = lock(&self.link).bytes_per_second else { return stream.write_all(bytes) };
        for step in bytes.chunks(STEP) {
            let free = {
                let mut busy_until = lock(&self.busy_until);
                let takes = Duration::from_secs_f64(step.len() as f64 / speed as f64);
                *busy_until = (*busy_until).max(Instant::now()) + takes;
                *busy_until
            };
            std::thread::sleep(free.saturating_duration_since(Instant::now()));
            stream.write_all(step)?;
        }
        Ok(())
    }
}

/// Says nothing until the client goes away.
fn hang(mut stream: &TcpStream) -> io::Result<bool> {
    while stream.read(&mut [0; 512])? > 0 {}
    Ok(false)
}
