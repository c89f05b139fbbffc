//! Whether a server can be reached: it takes a TCP connection. Who it is, is proven by what is asked of it later.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::net::TcpStream;

use super::plan::Endpoint;

/// How long names and connections may take.
const PATIENCE: Duration = Duration::from_secs(4);

/// The first one that answers, of all of them at once; or why none does.
pub async fn any(endpoints: &[Endpoint]) -> Result<Endpoint, String> {
    let mut asked: FuturesUnordered<_> = endpoints.iter().map(one).collect();
    let mut refused = Vec::new();
    while let Some(answer) = asked.next().await {
        match answer {
            Ok(endpoint) => return Ok(endpoint),
            Err(why) => refused.push(why),
        }
    }
    Err(refused.join(", "))
}

async fn one(endpoint: &Endpoint) -> Result<Endpoint, String> {
    match tokio::time::timeout(PATIENCE, TcpStream::connect((endpoint.host(), endpoint.port()))).await {
        Ok(Ok(_)) => Ok(endpoint.clone()),
        Ok(Err(e)) => Err(format!("{endpoint}: {e}")),
        Err(_) => Err(format!("{endpoint} does not answer")),
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
        let began = Instant::now();
        let found = any(&[refused.clone(), nowhere.clone(), well.clone()]).await;
        assert_eq!(found, Ok(well));
        let why = any(&[refused, nowhere]).await.unwrap_err();
        assert!(why.contains("127.0.0.1:1: ") && why.contains("https://nowhere.invalid:443"), "{why}");
        assert!(began.elapsed() < 4 * PATIENCE, "{:?}", began.elapsed());
    }
}
