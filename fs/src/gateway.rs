//! A read-only trustless gateway: gives whoever asks over HTTP the blocks that some sources have, each proven before it is
//! sent, so that any node feeds any other.
//!
//! It follows <https://specs.ipfs.tech/http-gateways/trustless-gateway/>: `GET` and `HEAD` of `/ipfs/CID`, as a raw block or as
//! a CAR of all that the CID reaches. `question` reads a request, `answer` writes headers, `car` streams. It speaks plain
//! HTTP/1.1; TLS is for a proxy in front of it.
//!
//! What it has is its [`Stock`]: sources, or just what a cache holds. It listens for everybody who reaches its address, or on a
//! unix socket for other processes of this user.
//!
//! Everything a client can hold on to is bounded: connections, requests, CARs, the time to say what it wants and the time
//! to take what it gets. Who asks too much is told to come back in a second.

mod answer;
mod car;
mod listener;
mod question;
mod stock;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::Duration;

use g8_cache::{Class, GetError, VerifiedBlock};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

use crate::log_quota::LogQuota;
use answer::Body;
use listener::{Connection, Listener};
use question::{Ask, Question, Refusal, Scope};
pub use stock::Stock;

/// What one gateway gives away at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections; further ones wait in the socket's queue. Each may hold a block that its client does not take.
    pub connections: usize,
    /// Blocks looked for at the same time, and how long a request waits for its turn.
    pub requests: usize,
    /// CARs sent at the same time.
    pub cars: usize,
    /// How long a request waits for its turn.
    pub turn: Duration,
    /// How long a client may take to say what it wants, idle time included.
    pub head: Duration,
    /// How long a client may take nothing of its answer.
    pub stall: Duration,
    /// How long running requests may take after the gateway was told to stop.
    pub stop: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 256,
            requests: 128,
            cars: 8,
            turn: Duration::from_secs(2),
            // Longer than common clients keep a connection that they do not use, ours included.
            head: Duration::from_secs(60),
            stall: Duration::from_secs(30),
            stop: Duration::from_secs(10),
        }
    }
}

/// Most bytes of the head of a request.
const HEAD_BYTES: usize = 16 << 10;
/// After accepting failed, which is for lack of descriptors: some are free again soon.
const BREATH: Duration = Duration::from_millis(100);

/// What all connections share.
struct Shared {
    stock: Stock,
    limits: Limits,
    requests: Semaphore,
    cars: Arc<Semaphore>,
    /// Whoever asks can make requests fail.
    logged: LogQuota,
}

/// A gateway that listens.
pub struct Gateway {
    listener: Listener,
    shared: Arc<Shared>,
}

impl Gateway {
    /// Listens on `address`; nobody is answered before [`Gateway::run`].
    pub async fn bind(address: SocketAddr, stock: Stock, limits: Limits) -> io::Result<Gateway> {
        Ok(Gateway::on(TcpListener::bind(address).await?, stock, limits))
    }

    /// The same on a socket that listens already.
    pub fn on(listener: TcpListener, stock: Stock, limits: Limits) -> Gateway {
        Gateway::new(Listener::Tcp(listener), stock, limits)
    }

    /// Listens on a unix socket, for processes of this user and of root. Must run on a tokio runtime.
    pub fn on_socket(socket: UnixListener, stock: Stock, limits: Limits) -> io::Result<Gateway> {
        socket.set_nonblocking(true)?;
        Ok(Gateway::new(Listener::Unix(tokio::net::UnixListener::from_std(socket)?), stock, limits))
    }

    fn new(listener: Listener, stock: Stock, limits: Limits) -> Gateway {
        let (requests, cars) = (Semaphore::new(limits.requests), Arc::new(Semaphore::new(limits.cars)));
        let logged = LogQuota::new();
        Gateway { listener, shared: Arc::new(Shared { stock, limits, requests, cars, logged }) }
    }

    /// Where it listens, unless that is a unix socket.
    pub fn address(&self) -> io::Result<SocketAddr> {
        match &self.listener {
            Listener::Tcp(listener) => listener.local_addr(),
            Listener::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Answers until `stop`, and lets running answers end.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let graceful = GracefulShutdown::new();
        let places = Arc::new(Semaphore::new(self.shared.limits.connections));
        loop {
            let accept = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, self.listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                () = &mut stop => break,
                accepted = accept => accepted,
            };
            let stream = match accepted {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection");
                    tokio::time::sleep(BREATH).await;
                    continue;
                }
            };
            let connection = graceful.watch(self.connection(stream));
            tokio::spawn(async move {
                let _place = place;
                // Who breaks a connection off knows why.
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection ended early");
                }
            });
        }
        drop(self.listener);
        let ended = tokio::time::timeout(self.shared.limits.stop, graceful.shutdown()).await;
        if ended.is_err() {
            tracing::warn!("clients that did not take their answers in time are left");
        }
    }

    fn connection(
        &self,
        stream: Connection,
    ) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> + Send + use<> {
        let (shared, limits) = (Arc::clone(&self.shared), self.shared.limits);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(limits.stall));
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(
                TokioIo::new(Box::pin(stream)),
                service_fn(move |request| {
                    let shared = Arc::clone(&shared);
                    async move { Ok::<_, Infallible>(shared.answer(&request).await) }
                }),
            )
    }
}

impl Shared {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let answer = match Question::of(request) {
            Ok(question) => self.look(&question).await,
            Err(refusal) => Err(refusal),
        };
        let response = answer.unwrap_or_else(|refusal| answer::refusal(&refusal));
        if request.method() == hyper::Method::HEAD { answer::without_body(response) } else { response }
    }

    async fn look(&self, question: &Question) -> Result<Response<Body>, Refusal> {
        if question.is_known() {
            return Ok(answer::not_modified(question));
        }
        match question.ask {
            Ask::Probe => Ok(answer::probe(question)),
            Ask::Block(id) => Ok(answer::block(question, &self.get(id).await?)),
            Ask::Car(id, scope) => {
                let turn = Arc::clone(&self.cars).acquire_owned();
                let turn = tokio::time::timeout(self.limits.turn, turn).await.map_err(|_| Refusal::busy())?;
                // A root that is not here is a 404, and not an empty CAR.
                let root = self.get(id).await?;
                let turn = turn.map_err(|_| Refusal::busy())?;
                let walk = car::Walk::new(&self.stock, turn);
                Ok(answer::car(question, walk.stream(&root, scope == Scope::All)))
            }
        }
    }

    /// A block, proven.
    async fn get(&self, id: g8_cache::BlockId) -> Result<VerifiedBlock, Refusal> {
        let turn = tokio::time::timeout(self.limits.turn, self.requests.acquire()).await;
        let _turn = turn.map_err(|_| Refusal::busy())?;
        self.stock.get(id, Class::OnDemand).await.map_err(|error| {
            self.log(&error);
            refuse(&error)
        })
    }

    /// Tells the log of a failure that is not the client's alone, unless it has heard enough of them.
    fn log(&self, error: &GetError) {
        match error {
            GetError::NotFound { .. } => {}
            _ if !self.logged.allows() => {}
            GetError::Wrong { .. } => tracing::warn!(%error, "a source holds wrong bytes"),
            GetError::Unavailable { .. } | GetError::TimedOut { .. } => {
                tracing::warn!(%error, "a request failed");
            }
            GetError::Damaged { .. } | GetError::Aborted { .. } => {
                tracing::error!(%error, "a request failed");
            }
        }
    }
}

/// What a failure is to a client. Wrong bytes are for the log: a gateway that has no right ones does not have the block.
fn refuse(error: &GetError) -> Refusal {
    let status = match error {
        GetError::NotFound { .. } | GetError::Wrong { .. } => StatusCode::NOT_FOUND,
        GetError::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        GetError::TimedOut { .. } => StatusCode::GATEWAY_TIMEOUT,
        GetError::Damaged { .. } | GetError::Aborted { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    };
    // Sources, paths and other insides are not a stranger's business.
    let what = match error {
        GetError::NotFound { id, .. } | GetError::Wrong { id, .. } => format!("block {id} is not here"),
        GetError::Unavailable { id, .. }
        | GetError::TimedOut { id, .. }
        | GetError::Damaged { id, .. }
        | GetError::Aborted { id } => format!("block {id} cannot be had now"),
    };
    Refusal::new(status, what)
}
