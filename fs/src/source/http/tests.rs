//! Every answer a stranger may give, from a server that says exactly what it is told to.

mod bulk;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use g8_cache::Codec;
use parking_lot::Mutex;

use super::*;

const HELLO: &[u8] = b"hello";

fn hello() -> BlockId {
    BlockId::of(Codec::Raw, HELLO)
}

/// What was asked, and how many connections that took.
#[derive(Default)]
struct Log {
    heads: Mutex<Vec<String>>,
    connections: AtomicUsize,
}

/// A server for as long as the test runs; `answer` gets the head of a request and writes what it likes. Probes that only open
/// connections are answered and not told of.
fn server(answer: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> (u16, Arc<Log>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, log, answer) =
        (listener.local_addr().unwrap().port(), Arc::new(Log::default()), Arc::new(answer));
    let shared = log.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (log, answer) = (shared.clone(), answer.clone());
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                let mut stream = stream;
                let mut used = false;
                while let Some(head) = head(&mut reader) {
                    if head.starts_with("HEAD ") {
                        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
                        continue;
                    }
                    if !std::mem::replace(&mut used, true) {
                        log.connections.fetch_add(1, SeqCst);
                    }
                    log.heads.lock().push(head.clone());
                    answer(&head, &mut stream);
                }
            });
        }
    });
    (port, log)
}

fn head(reader: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    loop {
        let before = head.len();
        reader.read_line(&mut head).ok()?;
        match &head[before..] {
            "\r\n" => return Some(head),
            "" => return None,
            _ => {}
        }
    }
}

fn says(answer: &'static str) -> (u16, Arc<Log>) {
    server(move |_, stream| {
        let _ = stream.write_all(answer.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Both);
    })
}

async fn fetch(url: String) -> Result<StoredBlock, FetchError> {
    HttpSource::new(url.clone(), &url.parse().unwrap(), Reach::Anywhere).unwrap().fetch(&hello()).await
}

async fn asked(port: u16) -> Result<StoredBlock, FetchError> {
    fetch(format!("http://127.0.0.1:{port}")).await
}

/// The error and its causes.
fn told(error: &FetchError) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told.push_str(&format!(": {error}"));
        cause = error.source();
    }
    told
}

#[tokio::test]
async fn blocks_are_asked_for_by_cid_over_kept_connections_with_the_credentials_of_the_url() {
    let (port, log) = server(|_, stream| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.ipld.raw\r\nContent-Length: 5\r\n\r\n";
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(HELLO)).unwrap();
    });
    let gateway: Gateway = format!("http://me:secret@127.0.0.1:{port}/below").parse().unwrap();
    let source = HttpSource::new(gateway.to_string(), &gateway, Reach::Anywhere).unwrap();
    for _ in 0..30 {
        assert_eq!(source.fetch(&hello()).await.unwrap().verify().unwrap().bytes(), HELLO);
    }
    let connections = log.connections.load(SeqCst);
    assert!(connections <= 1 + warm::CONNECTIONS, "30 requests over {connections} connections");
    let heads = log.heads.lock();
    let (head, line) =
        (heads[0].to_lowercase(), format!("GET /below/ipfs/{}?format=raw HTTP/1.1\r\n", hello()));
    assert!(heads[0].starts_with(&line), "{head}");
    assert!(head.contains("accept: application/vnd.ipld.raw\r\n"), "{head}");
    assert!(head.contains("authorization: basic bwu6c2vjcmv0\r\n"), "{head}");
    assert!(
        !head.contains("cookie") && !head.contains("accept-encoding") && !head.contains("referer"),
        "{head}"
    );
    assert_eq!(source.spec(), format!("http://127.0.0.1:{port}/below"));
}

#[tokio::test]
async fn every_status_has_its_meaning() {
    let busy = |seconds| matches!(seconds, FetchError::Busy(wait) if wait == Duration::from_secs(7));
    let long = |seconds| matches!(seconds, FetchError::Busy(wait) if wait == Duration::from_secs(10));
    let unavailable = |error| matches!(error, FetchError::Unavailable(_));
    let unfit = |error| matches!(error, FetchError::Unfit(_));
    let missing = |error| matches!(error, FetchError::NotFound);
    let table: [(&str, &dyn Fn(FetchError) -> bool); 17] = [
        ("404 Not Found", &missing),
        ("410 Gone", &missing),
        ("429 Too Many Requests\r\nRetry-After: 7", &busy),
        ("503 Service Unavailable\r\nRetry-After: 7", &busy),
        ("503 Service Unavailable\r\nRetry-After: 86400", &long),
        ("503 Service Unavailable\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT", &unavailable),
        ("429 Too Many Requests", &unavailable),
        ("500 Internal Server Error", &unavailable),
        ("502 Bad Gateway", &unavailable),
        ("504 Gateway Timeout", &unavailable),
        ("408 Request Timeout", &unavailable),
        ("400 Bad Request", &unfit),
        ("401 Unauthorized", &unfit),
        ("403 Forbidden", &unfit),
        ("206 Partial Content", &unfit),
        ("204 No Content", &unfit),
        ("304 Not Modified", &unfit),
    ];
    for (status, as_expected) in table {
        let answer: &'static str = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").leak();
        let error = asked(says(answer).0).await.unwrap_err();
        let told = told(&error);
        assert!(as_expected(error), "{status}: {told}");
    }
}

#[tokio::test]
async fn what_is_no_block_is_no_gateway_and_says_so() {
    for kind in ["text/html; charset=utf-8", "text/plain", "application/json", "application/vnd.ipld.car"] {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: 5\r\n\r\nhello");
        let error = asked(says(answer.leak()).0).await.unwrap_err();
        assert!(matches!(error, FetchError::Unfit(_)), "{kind}: {error}");
        assert!(told(&error).contains("is not a trustless gateway"), "{kind}: {error}");
    }
    for kind in
        ["Content-Type: application/octet-stream\r\n", "Content-Type: APPLICATION/vnd.ipld.raw;a=b\r\n", ""]
    {
        let answer = format!("HTTP/1.1 200 OK\r\n{kind}Content-Length: 5\r\n\r\nhello");
        asked(says(answer.leak()).0).await.unwrap().verify().unwrap();
    }
}

#[tokio::test]
async fn half_an_answer_is_none() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.ipld.raw\r\nContent-Length: 5\r\n\r\nhel",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n",
        "HTTP/1.1 200 OK\r\nContent-Le",
        "",
        "\0\0\0nonsense\r\n\r\n",
    ] {
        let error = asked(says(answer).0).await.unwrap_err();
        assert!(matches!(error, FetchError::Unavailable(_)), "{answer}: {error}");
        assert!(!told(&error).contains("ipfs"), "the URL is not told: {}", told(&error));
    }
    // Without a length nobody can tell, but the proof does.
    let cut = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhel";
    asked(says(cut).0).await.unwrap().verify().unwrap_err();
    let error = fetch("http://127.0.0.1:1".into()).await.unwrap_err();
    assert!(matches!(error, FetchError::Unavailable(_)), "{error}");
    assert!(told(&error).contains("refused"), "{}", told(&error));
}

#[tokio::test]
async fn an_endless_body_is_left_after_the_size_of_a_block() {
    let announced = "HTTP/1.1 200 OK\r\nContent-Length: 1032193\r\n\r\n";
    assert!(matches!(asked(says(announced).0).await, Err(FetchError::TooLarge(_))));
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let (port, _) = server(move |_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        while let Ok(n) = stream.write(&[7; 1 << 16]) {
            counted.fetch_add(n, SeqCst);
        }
    });
    assert!(matches!(asked(port).await, Err(FetchError::TooLarge(_))));
    // What the kernel buffers is sent too.
    assert!(sent.load(SeqCst) < 32 << 20, "{} bytes sent", sent.load(SeqCst));
}

#[tokio::test]
async fn an_endless_head_is_not_read_to_its_end() {
    let (port, _) = server(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"X-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n").is_ok() {}
    });
    let error = asked(port).await.unwrap_err();
    assert!(matches!(error, FetchError::Unavailable(_)), "{error}");
}

#[tokio::test]
async fn redirects_are_followed_three_times_and_loops_left() {
    let (port, log) = server(|head, stream| {
        let step = head.split("/step-").nth(1).and_then(|rest| rest[..1].parse().ok()).unwrap_or(0_usize);
        let answer = match step {
            3 => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".into(),
            _ => format!("HTTP/1.1 302 Found\r\nLocation: /step-{}\r\nContent-Length: 0\r\n\r\n", step + 1),
        };
        stream.write_all(answer.as_bytes()).unwrap();
    });
    asked(port).await.unwrap().verify().unwrap();
    assert_eq!(log.heads.lock().len(), 4);
    let (port, log) = server(|_, stream| {
        stream.write_all(b"HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n").unwrap();
    });
    let error = asked(port).await.unwrap_err();
    assert!(
        matches!(error, FetchError::Unfit(_)) && told(&error).contains("redirected too often"),
        "{}",
        told(&error)
    );
    assert_eq!(log.heads.lock().len(), 4);
    let (port, _) = says("HTTP/1.1 301 Moved\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n");
    assert!(asked(port).await.is_err());
}

#[tokio::test]
async fn who_does_not_speak_tls_is_no_https_source() {
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = plain.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut stream = plain.accept().unwrap().0;
        let _ =
            stream.read(&mut [0; 1024]).and_then(|_| stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    });
    let error = fetch(format!("https://127.0.0.1:{port}")).await.unwrap_err();
    assert!(matches!(error, FetchError::Unfit(_)), "{}", told(&error));
}

async fn hinted(url: &str) -> Result<StoredBlock, FetchError> {
    HttpSource::new(url.into(), &url.parse().unwrap(), Reach::Public).unwrap().fetch(&hello()).await
}

#[tokio::test]
async fn a_hint_whose_name_leads_to_this_machine_is_not_followed() {
    let (port, log) = says("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    let error = hinted(&format!("http://localhost:{port}")).await.unwrap_err();
    assert!(matches!(error, FetchError::Unfit(_)), "{}", told(&error));
    assert!(told(&error).contains("is this machine, not a public address"), "{}", told(&error));
    assert_eq!(log.connections.load(SeqCst), 0, "nobody was connected to");
    // Whom the user named may be anywhere.
    fetch(format!("http://localhost:{port}")).await.unwrap();
}

/// The URL itself is judged when the source is opened; here only where it redirects.
#[tokio::test]
async fn a_hint_is_not_redirected_to_what_is_not_public() {
    for target in
        ["http://127.0.0.1:1/", "http://[::1]:1/", "http://169.254.169.254/latest", "http://2130706433/"]
    {
        let (port, _) = server(move |_, stream| {
            let _ = write!(stream, "HTTP/1.1 307 Moved\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n");
        });
        let error = hinted(&format!("http://127.0.0.1:{port}")).await.unwrap_err();
        assert!(matches!(error, FetchError::Unfit(_)), "{target}: {}", told(&error));
        assert!(told(&error).contains("not a public address"), "{target}: {}", told(&error));
    }
}
