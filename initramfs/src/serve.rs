//! Hands out what machines boot, over HTTP: scripts for iPXE and an ISO that carry the number of a network, and the kernel
//! and the initramfs that they load.
//!
//! All of it is in memory from the start: an image that is built meanwhile changes nothing of what is served, and no
//! request waits for a disk. An ISO is the one that was made at the start with sixteen bytes changed.

mod content;
mod iso;
mod network_id;
mod question;
mod script;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

use crate::media::MediaError;
use content::Content;
use iso::Template;
pub use network_id::NetworkId;
use script::Script;

/// Connections; further ones wait in the socket's queue. Each may hold an ISO that its client does not take.
const CONNECTIONS: usize = 128;
/// How long a client may take to say what it wants, and to take nothing of its answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a connection may last: with a megabit in a second the largest image takes less. Who takes one byte after the other
/// does not keep a place for ever.
const LONGEST: Duration = Duration::from_secs(20 * 60);
/// Most bytes of the head of a request.
const HEAD_BYTES: usize = 16 << 10;
/// After accepting failed, which is for lack of descriptors: some are free again soon.
const BREATH: Duration = Duration::from_millis(100);
/// How long requests under way may take when the server is told to end.
const LAST: Duration = Duration::from_secs(5);
/// Kinds of what is served.
const BYTES: &str = "application/octet-stream";
const TEXT: &str = "text/plain; charset=utf-8";
const ISO: &str = "application/x-iso9660-image";

/// What is served.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where others reach it, when that is not where it listens.
    pub url: Option<String>,
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// The folder with the parts of an ISO, as `initramfs build` leaves it.
    pub parts: PathBuf,
    /// Arguments of the kernel beside the network's number.
    pub arguments: String,
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A file is missing.
    #[error("cannot read {path}: `make image` builds it")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Text would become other lines of a script.
    #[error("{0:?} cannot be in a script of iPXE: it has blanks, line ends or `$`")]
    Script(String),
    /// The ISO cannot be made.
    #[error("cannot make the ISO that all others are made from")]
    Media(#[from] MediaError),
    /// The ISO is not what was put in.
    #[error("the ISO has {length} bytes and the script {places} times, and not twice")]
    Template {
        /// How often the script is in it.
        places: usize,
        /// Its length.
        length: usize,
    },
    /// Machines would be sent to an address that is nobody's.
    #[error("machines cannot reach http://{0}: say with --url how they reach this server")]
    Unspecified(SocketAddr),
    /// It cannot listen.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// All that is served.
struct Site {
    script: Script,
    template: Template,
    kernel: Content,
    initramfs: Content,
}

/// A server that listens, and has not answered yet.
pub struct Server {
    listener: TcpListener,
    site: Arc<Site>,
    address: SocketAddr,
}

impl Server {
    /// Reads and makes all that is served, and listens.
    pub async fn bind(options: &Options) -> Result<Self, ServeError> {
        if options.url.is_none() && options.listen.ip().is_unspecified() {
            return Err(ServeError::Unspecified(options.listen));
        }
        let failed = |source| ServeError::Listen { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let url = options.url.clone().unwrap_or_else(|| format!("http://{address}"));
        let script = Script::new(&url, &options.arguments)?;
        let read = |path: &PathBuf| {
            let bytes = std::fs::read(path);
            bytes.map(Bytes::from).map_err(|source| ServeError::Read { path: path.clone(), source })
        };
        let site = Site {
            template: Template::make(&options.parts, &script)?,
            kernel: Content::new(read(&options.kernel)?, BYTES, "vmlinuz"),
            initramfs: Content::new(read(&options.initramfs)?, BYTES, "initramfs"),
            script,
        };
        Ok(Self { listener, site: Arc::new(site), address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until it is told to end; requests under way get a moment more.
    pub async fn run(self, end: impl Future<Output = ()>) {
        let mut end = std::pin::pin!(end);
        let graceful = GracefulShutdown::new();
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let accept = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, self.listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                () = &mut end => break,
                accepted = accept => accepted,
            };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(BREATH).await;
                continue;
            };
            // The last bytes of an answer would wait for the client's word that it has those before. If the kernel refuses, they do.
            let _ = stream.set_nodelay(true);
            let connection = graceful.watch(connection(stream, self.site.clone()));
            tokio::spawn(async move {
                let _place = place;
                // Who breaks a connection off knows why.
                let _ = tokio::time::timeout(LONGEST, connection).await;
            });
        }
        drop(self.listener);
        // Whoever does not take an answer in time is left.
        let _ = tokio::time::timeout(LAST, graceful.shutdown()).await;
    }
}

fn connection(
    stream: TcpStream,
    site: Arc<Site>,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> + Send {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(PATIENCE));
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(
            TokioIo::new(Box::pin(stream)),
            service_fn(move |request| {
                let answer = question::answer(&site, &request);
                async move { Ok::<_, Infallible>(answer) }
            }),
        )
}
