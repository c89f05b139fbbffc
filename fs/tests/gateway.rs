//! The gateway as its clients see it: every answer of the trustless gateway specification, and what it does about
//! clients that ask too much, too slowly or nonsense.

#[path = "support/lab.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod lab;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use g8_cache::{BlockId, Codec, FetchError, Origin, Sources, StoredBlock};
use g8_fs::gateway::{Gateway, Limits, Stock};
use g8_fs::pack::PackOptions;

use lab::{Objects, Packed};

static PACKED: LazyLock<Packed> = LazyLock::new(|| lab::pack_files(lab::sample(), &PackOptions::default()));

/// A gateway and the threads it runs on.
struct Served {
    at: At,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    ended: tokio::task::JoinHandle<()>,
    _runtime: tokio::runtime::Runtime,
}

/// Where it listens.
enum At {
    Network(SocketAddr),
    Socket(PathBuf, #[allow(dead_code, reason = "it is there as long as the socket")] tempfile::TempDir),
}

/// A client's end of a connection.
trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

fn serve_with(sources: Sources, deadline: Duration, limits: Limits) -> Served {
    let runtime = runtime();
    let listen = "127.0.0.1:0".parse().unwrap();
    let stock = Stock::of_sources(lab::memory(), sources, deadline);
    let gateway = runtime.block_on(Gateway::bind(listen, stock, limits)).unwrap();
    let at = At::Network(gateway.address().unwrap());
    start(runtime, gateway, at)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn start(runtime: tokio::runtime::Runtime, gateway: Gateway, at: At) -> Served {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let ended = runtime.spawn(gateway.run(async { drop(stopped.await) }));
    Served { at, stop: Some(stop), ended, _runtime: runtime }
}

fn serve() -> Served {
    serve_with(lab::from_map(&PACKED.objects), Duration::from_secs(20), Limits::default())
}

/// What a cache holds, on a unix socket: all of the flist but `lacking`.
fn serve_cache(lacking: &[BlockId]) -> Served {
    let (runtime, cache) = (runtime(), lab::memory());
    let sources = lab::from_map(&PACKED.objects);
    for id in PACKED.objects.keys().filter(|id| !lacking.contains(id)) {
        let deadline = Instant::now() + Duration::from_secs(20);
        runtime.block_on(cache.get_object(*id, &sources, deadline)).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blocks.sock");
    let socket = UnixListener::bind(&path).unwrap();
    let _inside = runtime.enter();
    let stock = Stock::of_cache(cache, Duration::from_secs(20));
    let gateway = Gateway::on_socket(socket, stock, Limits::default()).unwrap();
    drop(_inside);
    start(runtime, gateway, At::Socket(path, folder))
}

/// Both kinds, for what they answer alike.
fn both() -> [Served; 2] {
    [serve(), serve_cache(&[])]
}

struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

impl Served {
    fn connect(&self) -> Box<dyn Wire> {
        let limit = Some(Duration::from_secs(30));
        match &self.at {
            At::Network(address) => {
                let stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(limit).unwrap();
                Box::new(stream)
            }
            At::Socket(path, _) => {
                let stream = UnixStream::connect(path).unwrap();
                stream.set_read_timeout(limit).unwrap();
                Box::new(stream)
            }
        }
    }

    /// Sends a request as it is and reads to the end of the connection.
    fn raw(&self, request: &str) -> Reply {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut all = Vec::new();
        // What was refused before it was read is reset.
        let _ = stream.read_to_end(&mut all);
        let end =
            all.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or_else(|| panic!("no head: {request}"));
        let head = String::from_utf8(all[..end].to_vec()).unwrap();
        let body = all[end + 4..].to_vec();
        Reply { status: head[9..12].parse().unwrap(), head, body }
    }

    fn ask(&self, method: &str, target: &str, headers: &str) -> Reply {
        self.raw(&format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n"))
    }

    fn get(&self, target: &str) -> Reply {
        self.ask("GET", target, "")
    }
}

/// The bytes of a chunked body, and whether it was whole.
fn unchunk(mut body: &[u8]) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    loop {
        let Some(end) = body.windows(2).position(|w| w == b"\r\n") else { return (out, false) };
        let len = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        if len == 0 {
            return (out, true);
        }
        if body.len() < end + 2 + len + 2 {
            return (out, false);
        }
        out.extend_from_slice(&body[end + 2..end + 2 + len]);
        body = &body[end + 2 + len + 2..];
    }
}

/// The blocks of a CARv1 of `root`, in order, each proven.
fn read_car(mut car: &[u8], root: &BlockId) -> Vec<BlockId> {
    fn section<'a>(car: &mut &'a [u8]) -> &'a [u8] {
        let (len, rest) = unsigned_varint::decode::usize(car).unwrap();
        let (section, rest) = rest.split_at(len);
        *car = rest;
        section
    }
    let header = section(&mut car);
    let cid = root.cid().to_bytes();
    assert!(header.windows(cid.len()).any(|w| w == cid), "the root is in the header");
    let mut ids = Vec::new();
    while !car.is_empty() {
        let mut section = section(&mut car);
        let cid = cid::Cid::read_bytes(&mut section).unwrap();
        let id = BlockId::try_from(&cid).unwrap();
        assert_eq!(BlockId::of(id.codec(), section), id);
        ids.push(id);
    }
    ids
}

#[test]
fn every_block_is_given_with_the_headers_of_the_specification() {
    for served in both() {
        for (id, bytes) in &PACKED.objects {
            let reply = served.get(&format!("/ipfs/{id}?format=raw"));
            assert_eq!((reply.status, &reply.body[..]), (200, &bytes[..]), "{}", reply.head);
        }
        let id = PACKED.id;
        let reply = served.get(&format!("/ipfs/{id}?format=raw"));
        let expected = [
            ("content-type", "application/vnd.ipld.raw".to_owned()),
            ("content-length", PACKED.objects[&id].len().to_string()),
            ("etag", format!("\"{id}.raw\"")),
            ("cache-control", "public, max-age=29030400, immutable".to_owned()),
            ("x-content-type-options", "nosniff".to_owned()),
            ("content-disposition", format!("attachment; filename=\"{id}.bin\"")),
            ("x-ipfs-path", format!("/ipfs/{id}")),
        ];
        for (name, value) in &expected {
            assert_eq!(reply.header(name), Some(value.as_str()), "{name}: {}", reply.head);
        }
        let head = served.ask("HEAD", &format!("/ipfs/{id}?format=raw"), "");
        assert_eq!((head.status, head.body.len()), (200, 0));
        for (name, value) in &expected {
            assert_eq!(head.header(name), Some(value.as_str()), "{name}: {}", head.head);
        }
    }
}

#[test]
fn the_form_is_that_of_the_url_else_what_accept_likes_most() {
    for served in both() {
        let id = PACKED.id;
        let (raw, car) = ("application/vnd.ipld.raw", "application/vnd.ipld.car");
        let table = [
            ("", "Accept: application/vnd.ipld.raw\r\n", Ok(raw)),
            ("", "Accept: application/vnd.ipld.car\r\n", Ok(car)),
            (
                "",
                "Accept: text/html, application/vnd.ipld.raw;q=0.5, application/vnd.ipld.car;q=0.2\r\n",
                Ok(raw),
            ),
            (
                "",
                "Accept: application/vnd.ipld.raw;q=0.5, application/vnd.ipld.car; version=1; order=dfs\r\n",
                Ok(car),
            ),
            ("", "Accept: application/vnd.ipld.car; dups=y, application/vnd.ipld.raw; q=0.1\r\n", Ok(raw)),
            ("?format=raw", "Accept: application/vnd.ipld.car\r\n", Ok(raw)),
            ("?format=car", "Accept: application/vnd.ipld.raw\r\n", Ok(car)),
            ("?format=car&car-version=1&car-order=dfs&car-dups=n", "", Ok(car)),
            ("", "", Err(400)),
            ("", "Accept: */*\r\n", Err(406)),
            ("", "Accept: text/html\r\n", Err(406)),
            ("", "Accept: application/vnd.ipld.car; version=2\r\n", Err(406)),
            ("", "Accept: application/vnd.ipld.raw;q=0\r\n", Err(406)),
            ("?format=dag-json", "Accept: application/vnd.ipld.raw\r\n", Err(406)),
            ("?format=car&car-version=2", "", Err(406)),
            ("?format=car&car-dups=y", "", Err(406)),
            ("?format=car&dag-scope=some", "", Err(400)),
        ];
        for (query, headers, expected) in table {
            let reply = served.ask("HEAD", &format!("/ipfs/{id}{query}"), headers);
            let kind = reply.header("content-type").unwrap();
            match expected {
                Ok(form) => {
                    assert!(
                        reply.status == 200 && kind.starts_with(form),
                        "{query} {headers}: {}",
                        reply.head
                    );
                    let vary = (!query.starts_with("?format")).then_some("Accept");
                    assert_eq!(reply.header("vary"), vary, "{query} {headers}");
                }
                Err(status) => assert_eq!(reply.status, status, "{query} {headers}: {}", reply.head),
            }
        }
    }
}

#[test]
fn what_cannot_be_answered_is_refused_with_its_status() {
    for served in both() {
        let id = PACKED.id;
        let missing = BlockId::of(Codec::Raw, b"nowhere");
        let table = [
            ("GET", format!("/ipfs/{missing}?format=raw"), "", 404),
            ("HEAD", format!("/ipfs/{missing}?format=raw"), "", 404),
            ("GET", format!("/ipfs/{missing}?format=car"), "", 404),
            ("GET", "/ipfs/QmdfTbBqBPQ7VNxZEYEj14VmRuZBkqFbiwReogJgS1zR1n?format=raw".into(), "", 404),
            ("GET", "/ipfs/nonsense?format=raw".into(), "", 400),
            ("GET", "/ipfs/?format=raw".into(), "", 400),
            ("GET", format!("/ipfs/{}?format=raw", "b".repeat(3000)), "", 400),
            ("GET", "/ipfs/../../etc/passwd?format=raw".into(), "", 400),
            ("GET", format!("/ipfs/{id}/a/b?format=car"), "", 400),
            ("GET", "/".into(), "", 404),
            ("GET", "/api/v0/id".into(), "", 404),
            ("POST", format!("/ipfs/{id}?format=raw"), "Content-Length: 0\r\n", 405),
            ("DELETE", format!("/ipfs/{id}?format=raw"), "", 405),
            ("GET", format!("/ipfs/{id}?format=raw"), "Content-Length: 1000000000\r\n", 413),
            ("GET", format!("/ipfs/{id}?format=raw"), "Transfer-Encoding: chunked\r\n", 413),
        ];
        for (method, target, headers, status) in table {
            let reply = served.ask(method, &target, headers);
            assert_eq!(reply.status, status, "{method} {target} {headers}: {}", reply.head);
            assert_eq!(reply.header("cache-control"), Some("no-store"), "{target}");
            assert!(reply.header("content-type").unwrap().starts_with("text/plain"), "{target}");
        }
        assert_eq!(served.ask("PUT", "/ipfs/x", "").header("allow"), Some("GET, HEAD"));
        let filler = format!("X-Filler: {}\r\n", "a".repeat(1000)).repeat(100);
        assert_eq!(served.ask("GET", "/", &filler).status, 431);
        // The same block under another spelling of its name.
        let spelled = id.cid().to_string_of_base(cid::multibase::Base::Base58Btc).unwrap();
        assert_eq!(served.get(&format!("/ipfs/{spelled}?format=raw")).body, PACKED.objects[&id]);
    }
}

#[test]
fn a_probe_finds_a_gateway() {
    for served in both() {
        let reply = served.get("/ipfs/bafkqaaa?format=raw");
        assert_eq!((reply.status, reply.body.len()), (200, 0));
        assert_eq!(served.ask("HEAD", "/ipfs/bafkqaaa", "Accept: application/vnd.ipld.raw\r\n").status, 200);
        let reply = served.get("/ipfs/bafkqaaa?format=car");
        let (len, header) = unsigned_varint::decode::usize(&reply.body).unwrap();
        assert_eq!((reply.status, len), (200, header.len()), "a CAR without blocks");
    }
}

#[test]
fn what_the_client_has_is_not_sent_again() {
    for served in both() {
        let id = PACKED.id;
        let tag = format!("\"{id}.raw\"");
        for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}")] {
            let reply =
                served.ask("GET", &format!("/ipfs/{id}?format=raw"), &format!("If-None-Match: {known}\r\n"));
            assert_eq!((reply.status, reply.body.len()), (304, 0), "{known}");
            assert_eq!(reply.header("etag"), Some(tag.as_str()));
        }
        let reply =
            served.ask("GET", &format!("/ipfs/{id}?format=car"), &format!("If-None-Match: {tag}\r\n"));
        assert_eq!(reply.status, 200, "a CAR is another answer");
    }
}

#[test]
fn a_car_has_every_object_of_the_flist_once_with_the_metadata_first() {
    for served in both() {
        let id = PACKED.id;
        let reply = served.get(&format!("/ipfs/{id}?format=car"));
        assert_eq!(
            reply.header("content-type"),
            Some("application/vnd.ipld.car; version=1; order=dfs; dups=n")
        );
        let (car, whole) = unchunk(&reply.body);
        assert!(whole);
        let ids = read_car(&car, &id);
        let once: std::collections::HashSet<_> = ids.iter().collect();
        assert_eq!((ids[0], once.len(), ids.len()), (id, PACKED.objects.len(), PACKED.objects.len()));
        let root = g8_fs::format::Root::from_bytes(&PACKED.objects[&id]).unwrap();
        let metadata =
            [root.map_pieces().unwrap(), root.tree_pieces().unwrap(), root.shard_ids().unwrap()].concat();
        let place = |id: &BlockId| ids.iter().position(|other| other == id).unwrap();
        let places: Vec<usize> = metadata.iter().map(place).collect();
        assert_eq!(places, (1..=metadata.len()).collect::<Vec<_>>(), "one shard, so its blocks are last");
        for scope in ["dag-scope=block", "dag-scope=entity", "entity-bytes=0:*"] {
            let (car, _) = unchunk(&served.get(&format!("/ipfs/{id}?format=car&{scope}")).body);
            assert_eq!(read_car(&car, &id), [id], "{scope}");
        }
        let leaf = root.tree_pieces().unwrap()[0];
        let (car, _) = unchunk(&served.get(&format!("/ipfs/{leaf}?format=car")).body);
        assert_eq!(read_car(&car, &leaf), [leaf]);
    }
}

#[test]
fn a_car_that_lacks_a_block_is_cut_off_and_not_ended() {
    let root = g8_fs::format::Root::from_bytes(&PACKED.objects[&PACKED.id]).unwrap();
    let mut objects = PACKED.objects.clone();
    objects.remove(&root.shard_ids().unwrap()[0]);
    let served = serve_with(lab::from_map(&objects), Duration::from_secs(20), Limits::default());
    let (_, whole) = unchunk(&served.get(&format!("/ipfs/{}?format=car", PACKED.id)).body);
    assert!(!whole);
}

/// A cache asks nobody: what it lacks is not here, and what is below that ends early.
#[test]
fn what_a_cache_lacks_is_not_here() {
    let root = g8_fs::format::Root::from_bytes(&PACKED.objects[&PACKED.id]).unwrap();
    let lacking = root.shard_ids().unwrap()[0];
    let served = serve_cache(&[lacking]);
    for method in ["GET", "HEAD"] {
        for form in ["raw", "car"] {
            assert_eq!(served.ask(method, &format!("/ipfs/{lacking}?format={form}"), "").status, 404);
        }
    }
    assert_eq!(served.get(&format!("/ipfs/{}?format=raw", PACKED.id)).status, 200);
    let (_, whole) = unchunk(&served.get(&format!("/ipfs/{}?format=car", PACKED.id)).body);
    assert!(!whole);
}

#[test]
fn wrong_bytes_are_not_sent() {
    let mut objects: Objects = PACKED.objects.clone();
    for bytes in objects.values_mut() {
        *bytes = bytes.iter().map(|byte| byte ^ 1).collect();
    }
    let served = serve_with(lab::from_map(&objects), Duration::from_secs(20), Limits::default());
    for id in objects.keys() {
        let reply = served.get(&format!("/ipfs/{id}?format=raw"));
        assert_eq!(reply.status, 404, "{}", reply.head);
        assert!(reply.body.len() < 200, "a sentence");
    }
}

/// Answers nobody, or says that it does not work.
struct Odd(bool);

#[async_trait]
impl Origin for Odd {
    fn spec(&self) -> &str {
        "dir:/secret/path"
    }

    async fn fetch(&self, _: &BlockId) -> Result<StoredBlock, FetchError> {
        match self.0 {
            true => std::future::pending().await,
            false => Err(FetchError::unavailable("the disk is gone")),
        }
    }

    fn keep(&self) -> bool {
        false
    }
}

fn odd(stalls: bool) -> Sources {
    lab::sources([Arc::new(Odd(stalls)) as Arc<dyn Origin>])
}

#[test]
fn a_source_that_stalls_is_a_504_and_one_that_fails_a_503_that_tells_no_insides() {
    let target = format!("/ipfs/{}?format=raw", PACKED.id);
    let served = serve_with(odd(true), Duration::from_millis(200), Limits::default());
    assert_eq!(served.get(&target).status, 504);
    let served = serve_with(odd(false), Duration::from_secs(5), Limits::default());
    let reply = served.get(&target);
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    assert!(!String::from_utf8_lossy(&reply.body).contains("secret"));
}

#[test]
fn who_asks_too_much_is_told_to_come_back() {
    let limits = Limits { requests: 2, cars: 1, turn: Duration::from_millis(100), ..Limits::default() };
    let served = serve_with(odd(true), Duration::from_secs(5), limits);
    let ids: Vec<BlockId> = (0..3_u8).map(|n| BlockId::of(Codec::Raw, &[n])).collect();
    let mut holding = Vec::new();
    for id in &ids[..2] {
        let mut stream = served.connect();
        write!(stream, "GET /ipfs/{id}?format=raw HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        holding.push(stream);
    }
    std::thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    let reply = served.get(&format!("/ipfs/{}?format=raw", ids[2]));
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("1")));
    assert!(began.elapsed() < Duration::from_secs(2));
    // What needs no source is answered still.
    assert_eq!(served.get("/ipfs/bafkqaaa?format=raw").status, 200);
}

/// Gives a root and, of what is below it, nothing.
struct RootAlone;

#[async_trait]
impl Origin for RootAlone {
    fn spec(&self) -> &str {
        "test:"
    }

    async fn fetch(&self, id: &BlockId) -> Result<StoredBlock, FetchError> {
        if *id != PACKED.id {
            std::future::pending::<()>().await;
        }
        Ok(StoredBlock::new(*id, PACKED.objects[id].clone())?)
    }

    fn keep(&self) -> bool {
        false
    }
}

#[test]
fn who_asks_for_one_more_car_than_there_may_be_is_told_to_come_back() {
    let limits = Limits { cars: 2, turn: Duration::from_millis(100), ..Limits::default() };
    let sources = lab::sources([Arc::new(RootAlone) as Arc<dyn Origin>]);
    let served = serve_with(sources, Duration::from_secs(60), limits);
    let id = PACKED.id;
    // The head of an answer that does not end.
    let begun = || {
        let mut stream = served.connect();
        write!(stream, "GET /ipfs/{id}?format=car HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        (String::from_utf8(status.to_vec()).unwrap(), stream)
    };
    let (mut held, ok) = (Vec::new(), "HTTP/1.1 200");
    for _ in 0..2 {
        let (status, stream) = begun();
        assert_eq!(status, ok);
        held.push(stream);
    }
    let reply = served.get(&format!("/ipfs/{id}?format=car"));
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("1")));
    // Blocks are another matter, and a client that goes away gives its place free.
    assert_eq!(served.get(&format!("/ipfs/{id}?format=raw")).status, 200);
    held.pop();
    let end = Instant::now() + Duration::from_secs(30);
    while begun().0 != ok {
        assert!(Instant::now() < end, "its place is not free again");
    }
}

#[test]
fn a_client_that_says_nothing_or_takes_nothing_is_left() {
    let short = Duration::from_millis(300);
    let limits = Limits { head: short, stall: short, connections: 2, ..Limits::default() };
    let served = serve_with(lab::from_map(&PACKED.objects), Duration::from_secs(5), limits);
    // Two connections are all there are: each of the following must go before the next is served.
    for begun in ["", "GET /ipfs/x HTTP/1.1\r\nHost: ", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut stream = served.connect();
        stream.write_all(begun.as_bytes()).unwrap();
        let began = Instant::now();
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        assert!(began.elapsed() < Duration::from_secs(5), "{begun:?} is still connected");
    }
    let mut deaf = Vec::new();
    let largest = PACKED.objects.iter().max_by_key(|(_, bytes)| bytes.len()).unwrap().0;
    for _ in 0..2 {
        let mut stream = served.connect();
        let request = format!("GET /ipfs/{largest}?format=raw HTTP/1.1\r\nHost: x\r\n\r\n");
        // More answers than all buffers between us hold.
        let _ = stream.write_all(request.repeat(100).as_bytes());
        deaf.push(stream);
    }
    assert_eq!(served.get("/ipfs/bafkqaaa?format=raw").status, 200);
}

#[test]
fn when_told_to_stop_it_ends_what_runs_and_takes_nothing_new() {
    let limits = Limits { stop: Duration::from_secs(5), ..Limits::default() };
    let mut served = serve_with(odd(true), Duration::from_millis(600), limits);
    let mut running = served.connect();
    write!(running, "GET /ipfs/{}?format=raw HTTP/1.1\r\nHost: x\r\n\r\n", PACKED.id).unwrap();
    let idle = served.connect();
    std::thread::sleep(Duration::from_millis(200));
    served.stop.take().unwrap().send(()).unwrap();
    let mut said = String::new();
    running.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 504"), "{said}");
    let end = Instant::now() + Duration::from_secs(4);
    while !served.ended.is_finished() {
        assert!(Instant::now() < end, "an idle client must not hold it");
        std::thread::sleep(Duration::from_millis(10));
    }
    let At::Network(address) = served.at else { panic!("it listens on the network") };
    assert!(TcpStream::connect(address).is_err());
    drop(idle);
}
