//! Whether a server can be reached: its name resolves, and it takes a TCP connection. Who it is, is proven by what is asked
//! of it later.
//!
//! Names are resolved by the C library, on threads that nobody can stop: there are few of them, and each ends by itself, as
//! the resolver's file bounds its patience.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::plan::{Endpoint, is_own};

/// How long a name may take: the last of three resolvers is asked after 2 s, and again after 6.
const NAME: Duration = Duration::from_secs(6);
/// How long a connection may take.
const CONNECTION: Duration = Duration::from_secs(4);
/// Most addresses of a name that are tried, all at once.
const ADDRESSES: usize = 8;
/// Most names that are resolved at once, those that nobody waits for any more among them.
const NAMES: usize = 8;
static RESOLVING: Semaphore = Semaphore::const_new(NAMES);

/// The first one that answers, of all of them at once; or why none does.
pub async fn any(endpoints: &[Endpoint]) -> Result<Endpoint, String> {
    first(endpoints.iter().map(one)).await
}

async fn one(endpoint: &Endpoint) -> Result<Endpoint, String> {
    let addresses = resolve(endpoint).await.map_err(|why| format!("{endpoint}: {why}"))?;
    first(addresses.into_iter().map(connect)).await.map_err(|why| format!("{endpoint} {why}"))?;
    Ok(endpoint.clone())
}

async fn connect(address: SocketAddr) -> Result<(), String> {
    match timeout(CONNECTION, TcpStream::connect(address)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(e)) => Err(format!("at {}: {e}", address.ip())),
        Err(_) => Err(format!("does not answer at {}", address.ip())),
    }
}

/// The first of all that succeeds, or why none does.
async fn first<T>(asked: impl Iterator<Item = impl Future<Output = Result<T, String>>>) -> Result<T, String> {
    let mut asked: FuturesUnordered<_> = asked.collect();
    let mut refused = Vec::new();
    while let Some(answer) = asked.next().await {
        match answer {
            Ok(found) => return Ok(found),
            Err(why) => refused.push(why),
        }
    }
    Err(refused.join(", "))
}

/// The addresses of a server. A name cannot be that of the node itself.
async fn resolve(endpoint: &Endpoint) -> Result<Vec<SocketAddr>, String> {
    let (host, port) = (endpoint.host().to_owned(), endpoint.port());
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let asked = async {
        let place = RESOLVING.acquire().await.expect("it is never closed");
        let ask = move || {
            let found: io::Result<Vec<_>> = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
            // Only now: who waits for the name may be gone.
            drop(place);
            found
        };
        tokio::task::spawn_blocking(ask).await.map_err(io::Error::other)?
    };
    let found = match timeout(NAME, asked).await {
        Ok(Ok(found)) => found,
        Ok(Err(e)) => return Err(format!("its name does not resolve: {e}")),
        Err(_) => return Err(format!("its name does not resolve: no answer within {} s", NAME.as_secs())),
    };
    let others: Vec<_> = found.into_iter().filter(|found| !is_own(found.ip())).take(ADDRESSES).collect();
    match others.is_empty() {
        true => Err("its name is that of each node itself".into()),
        false => Ok(others),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[tokio::test]
    async fn one_that_answers_is_enough_and_the_reasons_of_all_are_told_when_none_does() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let well: Endpoint = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        // Nobody listens on the first, and a name that there is not has no address.
        let refused: Endpoint = "http://127.0.0.1:1".parse().unwrap();
        let nowhere: Endpoint = "https://nowhere.invalid".parse().unwrap();
        let itself: Endpoint = format!("http://localhost:{}", well.port()).parse().unwrap();
        let began = Instant::now();
        let found = any(&[refused.clone(), nowhere.clone(), itself.clone(), well.clone()]).await;
        assert_eq!(found, Ok(well));
        let why = any(&[refused, nowhere, itself.clone()]).await.unwrap_err();
        for words in [
            "http://127.0.0.1:1 at 127.0.0.1: ",
            "https://nowhere.invalid:443: its name does not resolve: ",
            &format!("{itself}: its name is that of each node itself"),
        ] {
            assert!(why.contains(words), "{words}: {why}");
        }
        assert!(began.elapsed() < 2 * (NAME + CONNECTION), "{:?}", began.elapsed());
    }
}
