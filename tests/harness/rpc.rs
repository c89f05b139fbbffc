//! A server that answers as kubo documents its RPC, and goes wrong as it is told: there is no kubo daemon to be had here.
//!
//! It keeps what it is given in memory, pins what is whole, counts, and lists. All CIDs that it says are in upper case, since
//! nodes name blocks in spellings of their own. It keeps a log of what it was asked.

mod dag;

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

/// Who it says it is.
pub const ID: &str = "12D3KooWGRUVh4kZ8GXtJ5yPBjS9HQkQqTqnmTQFwjTzTLmWfBsG";

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trick {
    /// An import answers 200, and the pin failed.
    PinFails,
    /// An import answers 200 and says nothing about its root.
    NoRootLine,
    /// An import speaks of another root.
    OtherRoot,
    /// An import counts one block less.
    Miscounts,
    /// An import keeps every second block only, as if a garbage collector came by, and says so when it pins.
    LosesBlocks,
    /// It is pinned, and the pin is gone at once.
    LosesPin,
    /// Everything is taken and nothing is answered.
    Hangs,
    /// Status 500 at once, and of the reason that is announced not one byte.
    Mumbles,
    /// Status 200 and these words, whatever was asked.
    Says(&'static str),
    /// Status 200 and these words for ever.
    Endless(&'static str),
    /// Status 200 and five times a second the same sign of life, for ever.
    Ticks,
    /// The answer of a node that is content, before the body has come, of which nothing is kept.
    Early,
    /// An import keeps every second block, and then the disk is full.
    Full,
    /// A block is said to be larger than all there is.
    Bloats,
    /// The connection is cut when so many bytes of the body have come; what came before is kept.
    Cuts(usize),
    /// Half of the body comes, then the end, although the head announced more.
    Half,
    /// Other bytes than those asked for.
    Lies,
    /// A web page with status 200.
    Html,
    /// 429 with `Retry-After`, in seconds.
    Busy(u64),
    /// A status, with an error as kubo words it where that is 500.
    Status(u16),
    /// The right answer, and so many spaces behind it: where it is JSON, they change nothing.
    Padded(usize),
    /// Status 200 and the beginning of an answer, whose end says in a trailer that these words are the end of it.
    Trails(&'static str),
}

#[derive(Default)]
struct State {
    blocks: BTreeMap<String, Vec<u8>>,
    /// Name of each.
    pins: BTreeMap<String, String>,
    names: BTreeMap<String, String>,
    keys: BTreeMap<String, String>,
    peers: Vec<String>,
    log: Vec<String>,
    /// Bytes that each import brought, and whether it was to pin.
    imports: Vec<(usize, bool)>,
    connections: usize,
    /// The port of the node that answers what does not go wrong.
    behind: Option<u16>,
    is_like_js_ipfs: bool,
    tricks: Vec<Planned>,
}

/// What goes wrong.
struct Planned {
    call: &'static str,
    trick: Trick,
    /// So often it goes well before.
    well: usize,
    /// And so often it goes wrong then.
    wrong: usize,
}

/// The server. Dropping it ends it.
pub struct Rpc {
    port: u16,
    state: Arc<Mutex<State>>,
    is_down: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl Rpc {
    /// A healthy node that has nothing.
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (state, is_down) = (Arc::new(Mutex::new(State::default())), Arc::new(AtomicBool::new(false)));
        let (shared, down) = (state.clone(), is_down.clone());
        let accept = move || {
            for stream in listener.incoming().flatten() {
                if down.load(SeqCst) {
                    return;
                }
                let shared = shared.clone();
                lock(&shared).connections += 1;
                std::thread::spawn(move || {
                    // A client that goes away is its own business.
                    let _ = serve(&shared, &stream);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        };
        Self { port, state, is_down, listener: Some(std::thread::spawn(accept)) }
    }

    /// The real node at a port of this machine, but for what goes wrong.
    pub fn before(port: u16) -> Self {
        let node = Self::start();
        lock(&node.state).behind = Some(port);
        node
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// As `--from` and `--to` name it.
    pub fn spec(&self) -> String {
        format!("ipfs:http://127.0.0.1:{}", self.port)
    }

    /// The same with credentials in it.
    pub fn spec_with(&self, credentials: &str) -> String {
        format!("ipfs:http://{credentials}@127.0.0.1:{}", self.port)
    }

    /// The next `times` calls of `call` go wrong like this.
    pub fn fails(&self, call: &'static str, trick: Trick, times: usize) {
        self.fails_after(0, call, trick, times);
    }

    /// The same after `well` calls.
    pub fn fails_after(&self, well: usize, call: &'static str, trick: Trick, wrong: usize) {
        lock(&self.state).tricks.push(Planned { call, trick, well, wrong });
    }

    /// It says that it is js-ipfs, which has no names for pins and is asked for what it has.
    pub fn poses_as_js_ipfs(&self) {
        lock(&self.state).is_like_js_ipfs = true;
    }

    /// Nothing goes wrong any more.
    pub fn heal(&self) {
        lock(&self.state).tricks.clear();
    }

    /// Heads of what was asked so far.
    pub fn log(&self) -> Vec<String> {
        lock(&self.state).log.clone()
    }

    /// How often `call` was made.
    pub fn count(&self, call: &str) -> usize {
        self.log().iter().filter(|head| head.contains(&format!("/api/v0/{call}"))).count()
    }

    /// How often somebody connected.
    pub fn connections(&self) -> usize {
        lock(&self.state).connections
    }

    /// Bytes that imports brought, those included that were cut off.
    pub fn imported(&self) -> usize {
        self.imports().iter().map(|(bytes, _)| bytes).sum()
    }

    /// Bytes that each import brought, in their order, and whether it was to pin.
    pub fn imports(&self) -> Vec<(usize, bool)> {
        lock(&self.state).imports.clone()
    }

    /// The CIDs of its blocks, sorted.
    pub fn blocks(&self) -> Vec<String> {
        lock(&self.state).blocks.keys().cloned().collect()
    }

    /// Its pins and their names.
    pub fn pins(&self) -> BTreeMap<String, String> {
        lock(&self.state).pins.clone()
    }

    /// Somebody removes a pin.
    pub fn unpin(&self, cid: &str) {
        lock(&self.state).pins.remove(cid);
    }

    /// Whom it was connected to.
    pub fn peers(&self) -> Vec<String> {
        lock(&self.state).peers.clone()
    }

    /// What `name` stands for from now on.
    pub fn name(&self, name: &str, path: &str) {
        lock(&self.state).names.insert(name.to_owned(), path.to_owned());
    }
}

impl Drop for Rpc {
    fn drop(&mut self) {
        self.is_down.store(true, SeqCst);
        // The one that waits for a connection needs one to see it.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(listener) = self.listener.take() {
            listener.join().expect("the listener ends when told");
        }
    }
}

/// A test that failed while it held the lock has told why.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Answers the requests of one connection.
fn serve(state: &Mutex<State>, stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let (call, query) = target.split_once('?').unwrap_or((&target, ""));
        let call = call.strip_prefix("/api/v0/").unwrap_or_default();
        let trick = {
            let mut state = lock(state);
            state.log.push(head.clone());
            state.trick(call)
        };
        if trick == Some(Trick::Early) {
            // Without counting, as js-ipfs.
            write_answer(stream, "application/json", Ok(Vec::new()))?;
            body(&mut reader, &head, None)?;
            continue;
        }
        let cut = if let Some(Trick::Cuts(at)) = trick { Some(at) } else { None };
        let body = body(&mut reader, &head, cut)?;
        let part = part(&head, &body);
        if call == "dag/import" {
            lock(state).imports.push((part.len(), query.contains("pin-roots=true")));
        }
        if cut.is_some() {
            dag::keep(&mut lock(state).blocks, dag::sections(part));
            return Ok(());
        }
        let answer = match trick {
            Some(Trick::Hangs) => {
                // Until the client has enough.
                let _ = reader.read(&mut [0; 1]);
                return Ok(());
            }
            Some(Trick::Mumbles) => {
                let mut stream = stream;
                stream.write_all(b"HTTP/1.1 500 It is so\r\nContent-Length: 100\r\n\r\n")?;
                let _ = reader.read(&mut [0; 1]);
                return Ok(());
            }
            Some(Trick::Busy(seconds)) => {
                let head =
                    format!("HTTP/1.1 429 It is so\r\nRetry-After: {seconds}\r\nContent-Length: 0\r\n\r\n");
                let mut stream = stream;
                stream.write_all(head.as_bytes())?;
                continue;
            }
            Some(Trick::Says(words)) => Ok(words.as_bytes().to_vec()),
            Some(Trick::Endless(words)) => return for_ever(stream, &words.repeat(1000), Duration::ZERO),
            Some(Trick::Ticks) => return for_ever(stream, "{\"Progress\":7}\n", Duration::from_millis(200)),
            Some(Trick::Trails(words)) => {
                let head =
                    "HTTP/1.1 200 It is so\r\nTrailer: X-Stream-Error\r\nTransfer-Encoding: chunked\r\n\r\n";
                let begun = "{\"Progress\":1}\n";
                let body = format!("{:x}\r\n{begun}\r\n0\r\nX-Stream-Error: {words}\r\n\r\n", begun.len());
                let mut stream = stream;
                stream.write_all(format!("{head}{body}").as_bytes())?;
                continue;
            }
            Some(Trick::Html) => Ok(b"<html><h1>Welcome</h1></html>".to_vec()),
            Some(Trick::Status(status)) => Err((status, "something is wrong with this node".to_owned())),
            Some(Trick::Padded(spaces)) => {
                let answer = lock(state).answer(call, query, part, trick);
                answer.map(|body| [body, vec![b' '; spaces]].concat())
            }
            trick => {
                let behind = lock(state).behind;
                match behind {
                    Some(port) => passed_on(port, &target, &head, &body),
                    None => lock(state).answer(call, query, part, trick),
                }
            }
        };
        if trick == Some(Trick::Half) {
            let body = answer.unwrap_or_else(|(_, message)| message.into_bytes());
            let mut stream = stream;
            let head = format!("HTTP/1.1 200 It is so\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes())?;
            return stream.write_all(&body[..body.len() / 2]);
        }
        let kind = if trick == Some(Trick::Html) { "text/html" } else { "application/json" };
        write_answer(stream, kind, answer)?;
    }
}

/// Says `words` until nobody listens any more.
fn for_ever(mut stream: &TcpStream, words: &str, pause: Duration) -> io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 It is so\r\nContent-Type: application/json\r\n\r\n")?;
    loop {
        stream.write_all(words.as_bytes())?;
        std::thread::sleep(pause);
    }
}

fn write_answer(mut stream: &TcpStream, kind: &str, answer: Said) -> io::Result<()> {
    let (status, body) = match answer {
        Ok(body) => (200, body),
        Err((404, _)) => (404, b"404 page not found\n".to_vec()),
        Err((status, message)) => {
            (status, json!({"Message": message, "Code": 0, "Type": "error"}).to_string().into_bytes())
        }
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} It is so\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)
}

/// What the node at `port` says to a request.
fn passed_on(port: u16, target: &str, head: &str, body: &[u8]) -> Said {
    let mut headers = head.lines().filter_map(|line| line.split_once(": "));
    let kind = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-type")).map(|(_, kind)| kind);
    let answer = crate::http::post_body(port, target, kind.unwrap_or("text/plain"), body);
    match answer.status {
        200 => Ok(answer.body),
        status => Err((status, answer.json()["Message"].as_str().unwrap_or_default().to_owned())),
    }
}

/// The body of a request, up to `cut` bytes of it.
fn body(reader: &mut impl BufRead, head: &str, cut: Option<usize>) -> io::Result<Vec<u8>> {
    let lower = head.to_ascii_lowercase();
    let most = cut.unwrap_or(usize::MAX);
    let mut body = Vec::new();
    if let Some(length) = lower.split("content-length: ").nth(1) {
        let length: u64 = length.split("\r\n").next().and_then(|l| l.parse().ok()).unwrap_or(0);
        reader.take(length.min(most as u64)).read_to_end(&mut body)?;
    } else if lower.contains("transfer-encoding: chunked") {
        while body.len() < most {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                break;
            }
            let length = u64::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            reader.take(length).read_to_end(&mut body)?;
            reader.read_line(&mut line)?;
            if length == 0 {
                break;
            }
        }
    }
    Ok(body)
}

/// What lies in the one part of a multipart body, which may be cut off.
fn part<'a>(head: &str, body: &'a [u8]) -> &'a [u8] {
    let Some(boundary) = head.split("boundary=").nth(1) else { return &[] };
    let boundary = boundary.split("\r\n").next().unwrap_or_default().trim_matches('"');
    let from = body.windows(4).position(|w| w == b"\r\n\r\n").map_or(0, |at| at + 4);
    let end = format!("\r\n--{boundary}--");
    let tail = body.len().saturating_sub(end.len() + 4).max(from);
    let end =
        body[tail..].windows(end.len()).position(|w| w == end.as_bytes()).map_or(body.len(), |at| tail + at);
    &body[from..end]
}

/// A body, or a status and why.
type Said = Result<Vec<u8>, (u16, String)>;

fn refuse(message: impl Into<String>) -> Said {
    Err((500, message.into()))
}

fn lines(lines: &[Value]) -> Said {
    Ok(lines.iter().map(|line| format!("{line}\n")).collect::<String>().into_bytes())
}

impl State {
    /// What goes wrong with this call.
    fn trick(&mut self, call: &str) -> Option<Trick> {
        let planned = self.tricks.iter_mut().find(|planned| planned.call == call && planned.wrong > 0)?;
        if planned.well > 0 {
            planned.well -= 1;
            return None;
        }
        planned.wrong -= 1;
        Some(planned.trick)
    }

    fn answer(&mut self, call: &str, query: &str, part: &[u8], trick: Option<Trick>) -> Said {
        let of = |key: &str| {
            let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(k, _)| *k == key).map(|(_, value)| decoded(value)).next().unwrap_or_default()
        };
        let arg = of("arg").trim_start_matches("/ipfs/").to_owned();
        match call {
            "version" if self.is_like_js_ipfs => {
                lines(&[json!({"Version": "0.18.1", "Commit": "", "Repo": "12"})])
            }
            "version" => {
                lines(&[json!({"Version": "0.40.0", "Commit": "", "Repo": "18", "Golang": "go1.25.7"})])
            }
            "block/stat" => match self.blocks.get(&arg) {
                Some(block) => {
                    let size = if trick == Some(Trick::Bloats) { u64::MAX } else { block.len() as u64 };
                    lines(&[json!({"Key": arg.to_uppercase(), "Size": size})])
                }
                None => refuse(format!("block was not found locally (offline): ipld: could not find {arg}")),
            },
            "block/get" => match self.blocks.get(&arg) {
                Some(block) if trick == Some(Trick::Lies) => Ok(block.iter().map(|byte| !byte).collect()),
                Some(block) => Ok(block.clone()),
                None if of("offline") == "true" => {
                    refuse(format!("block was not found locally (offline): ipld: could not find {arg}"))
                }
                None => refuse("context deadline exceeded"),
            },
            "refs/local" => {
                let refs: Vec<Value> =
                    self.blocks.keys().map(|cid| json!({"Ref": cid.to_uppercase(), "Err": ""})).collect();
                lines(&refs)
            }
            "dag/import" => self.import(part, of("pin-roots") == "true", trick),
            "block/put" => {
                let codec =
                    if of("cid-codec") == "dag-cbor" { crate::cid::DAG_CBOR } else { crate::cid::RAW };
                let cid = dag::name(codec, part);
                self.blocks.insert(cid.clone(), part.to_vec());
                lines(&[json!({"Key": cid.to_uppercase(), "Size": part.len()})])
            }
            "pin/add" => match dag::lacks(&self.blocks, &arg) {
                Some(missing) => refuse(format!("pin: ipld: could not find {missing}")),
                None => {
                    self.pins.insert(arg.clone(), of("name"));
                    self.lose_pin(&arg, trick);
                    lines(&[json!({"Progress": 1}), json!({"Pins": [arg.to_uppercase()]})])
                }
            },
            "pin/ls" => match self.pins.get(&arg) {
                Some(name) => {
                    lines(&[json!({"Keys": {(arg.to_uppercase()): {"Type": "recursive", "Name": name}}})])
                }
                None => refuse(format!("path '/ipfs/{arg}' is not pinned")),
            },
            "key/list" => {
                let keys: Vec<Value> =
                    self.keys.iter().map(|(name, id)| json!({"Name": name, "Id": id})).collect();
                lines(&[json!({"Keys": keys})])
            }
            "key/gen" => {
                let id = format!("k51qzi5uqu5d{}", self.keys.len());
                self.keys.insert(arg.clone(), id.clone());
                lines(&[json!({"Name": arg, "Id": id})])
            }
            "name/publish" => {
                let key = of("key");
                let Some(id) = self.keys.get(&key).cloned() else {
                    return refuse("no key by the given name was found");
                };
                let path = format!("/ipfs/{arg}");
                self.names.insert(id.clone(), path.clone());
                lines(&[json!({"Name": id, "Value": path})])
            }
            "name/resolve" => match self.names.get(arg.trim_start_matches("/ipns/")) {
                Some(path) => lines(&[json!({"Path": path})]),
                None => refuse("could not resolve name"),
            },
            "id" => {
                lines(&[json!({"ID": ID, "PublicKey": "", "Addresses": null, "AgentVersion": "kubo/0.40.0"})])
            }
            "swarm/connect" if arg.ends_with(ID) => {
                refuse(format!("connect {ID} failure: failed to dial: dial to self attempted"))
            }
            "swarm/connect" => {
                self.peers.push(arg.clone());
                lines(&[json!({"Strings": [format!("connect {arg} success")]})])
            }
            _ => Err((404, String::new())),
        }
    }

    fn import(&mut self, car: &[u8], pin: bool, trick: Option<Trick>) -> Said {
        let (root, mut sections) = (dag::root(car), dag::sections(car));
        let count = sections.len() as u64;
        if matches!(trick, Some(Trick::LosesBlocks | Trick::Full)) {
            let mut turn = 0;
            sections.retain(|_| {
                turn += 1;
                turn % 2 == 0
            });
        }
        dag::keep(&mut self.blocks, sections);
        if trick == Some(Trick::Full) {
            return refuse("write /repo/blocks/put-1: no space left on device");
        }
        let mut said = Vec::new();
        if pin && trick != Some(Trick::NoRootLine) {
            let missing = dag::lacks(&self.blocks, &root).map(|cid| format!("ipld: could not find {cid}"));
            let trouble = match trick {
                Some(Trick::PinFails) => "the pinner is out of order".to_owned(),
                _ => missing.unwrap_or_default(),
            };
            if trouble.is_empty() && trick != Some(Trick::OtherRoot) {
                self.pins.entry(root.clone()).or_default();
                self.lose_pin(&root, trick);
            }
            let other = crate::cid::encode(crate::cid::DAG_CBOR, crate::cid::SHA2_256, &[7; 32]);
            let named = if trick == Some(Trick::OtherRoot) { other } else { root };
            said.push(json!({"Root": {"Cid": {"/": named.to_uppercase()}, "PinErrorMsg": trouble}}));
        }
        let counted = if trick == Some(Trick::Miscounts) { count - 1 } else { count };
        said.push(json!({"Stats": {"BlockCount": counted, "BlockBytesCount": car.len()}}));
        lines(&said)
    }

    fn lose_pin(&mut self, cid: &str, trick: Option<Trick>) {
        if trick == Some(Trick::LosesPin) {
            self.pins.remove(cid);
        }
    }
}

/// A value of a query without its percent signs.
fn decoded(value: &str) -> String {
    let mut parts = value.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let byte = part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        text.extend(byte.map(char::from));
        text.push_str(part.get(2..).unwrap_or_default());
    }
    text.replace('+', " ")
}
