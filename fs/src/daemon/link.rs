//! A daemon kept alive so that its cache can be asked, and started again when it was killed.

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::client::{Client, ClientError};
use super::protocol::{Reply, Request};

/// How long a daemon may take to open its cache.
const LIMIT: Duration = Duration::from_secs(30);
/// Pauses between two tries to have a daemon again.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The hold on a daemon. Dropping it lets go.
pub struct Link(Arc<Held>);

/// The connection that holds; none after the end.
struct Held(Mutex<Option<UnixStream>>);

impl Link {
    /// Has the daemon give the blocks of its cache from here on, whatever becomes of it.
    pub fn hold(client: Client) -> Result<Link, ClientError> {
        let started = |e: io::Error| ClientError::Start(client.cache().to_owned(), e.to_string());
        let first = ask(&client)?;
        let mut watched = first.try_clone().map_err(started)?;
        let held = Arc::new(Held(Mutex::new(Some(first))));
        let link = Link(Arc::clone(&held));
        let keep = {
            let client = client.clone();
            move || {
                let mut pause = PAUSE_MIN;
                loop {
                    let since = Instant::now();
                    wait_for_the_end(&watched);
                    // A daemon that dies as soon as it is there is not started without end.
                    pause = if since.elapsed() < PAUSE_MAX { (pause * 2).min(PAUSE_MAX) } else { PAUSE_MIN };
                    let Some(next) = again(&client, &held, pause) else { return };
                    watched = next;
                }
            }
        };
        thread::Builder::new().name("g8-link".into()).spawn(keep).map_err(started)?;
        Ok(link)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(stream) = self.0.0.lock().take() {
            // It ends the wait on its other descriptor; a daemon that is gone needs no telling.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Held {
    fn is_wanted(&self) -> bool {
        self.0.lock().is_some()
    }

    /// Takes the place of a connection that broke, unless nobody wants it any more.
    fn replace(&self, stream: &UnixStream) -> io::Result<bool> {
        let mut held = self.0.lock();
        if held.is_some() {
            *held = Some(stream.try_clone()?);
        }
        Ok(held.is_some())
    }
}

fn ask(client: &Client) -> Result<UnixStream, ClientError> {
    let (reply, stream) = client.ask(&Request::Blocks, LIMIT)?;
    let broken = |e| ClientError::Io(client.cache().to_owned(), e);
    match reply {
        Reply::Done => stream.set_read_timeout(None).map_err(broken)?,
        other => {
            let strange = io::Error::new(io::ErrorKind::InvalidData, format!("it answered with {other:?}"));
            return Err(broken(strange));
        }
    }
    Ok(stream)
}

/// Returns when the connection has ended, one way or the other.
fn wait_for_the_end(mut stream: &UnixStream) {
    let ended = io::copy(&mut stream, &mut io::sink());
    tracing::debug!(?ended, "the hold on the daemon");
}

/// The connection to the next daemon; none when nobody wants it any more.
fn again(client: &Client, held: &Held, mut pause: Duration) -> Option<UnixStream> {
    while held.is_wanted() {
        tracing::warn!("the daemon of the cache is gone: it is started again");
        thread::sleep(pause);
        match ask(client) {
            Ok(stream) => match held.replace(&stream) {
                Ok(true) => return Some(stream),
                Ok(false) => return None,
                Err(error) => tracing::warn!(%error, "no descriptor to hold the daemon by"),
            },
            Err(error) => tracing::warn!(%error, "the cache cannot be asked"),
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
    None
}
