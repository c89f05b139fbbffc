//! Absurd servers: what they say over the wire, byte by byte. The node says why it does not believe it, goes on, and takes the
//! first answer that makes sense.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::*;

/// RFC 2132.
const NETMASK: u8 = 1;
const ROUTER: u8 = 3;
const RESOLVER: u8 = 6;
const HOST_NAME: u8 = 12;
const DOMAIN: u8 = 15;
const LEASE_TIME: u8 = 51;
const KIND: u8 = 53;
const SERVER: u8 = 54;
const T1: u8 = 58;
const T2: u8 = 59;
const CLASSLESS_ROUTES: u8 = 121;

/// What a server gives to everybody.
#[derive(Clone)]
struct Reply {
    address: Ipv4Addr,
    options: Vec<(u8, Vec<u8>)>,
    /// It does what it offered.
    confirms: bool,
}

impl Reply {
    fn sane() -> Self {
        Self { address: [10, 77, 0, 50].into(), options: Vec::new(), confirms: true }
            .with(LEASE_TIME, 3600u32.to_be_bytes())
            .with(NETMASK, [255, 255, 255, 0])
            .with(ROUTER, [10, 77, 0, 1])
    }

    fn at(address: [u8; 4]) -> Self {
        Self { address: address.into(), ..Self::sane() }
    }

    fn without(mut self, code: u8) -> Self {
        self.options.retain(|(other, _)| *other != code);
        self
    }

    fn with(self, code: u8, data: impl Into<Vec<u8>>) -> Self {
        let mut changed = self.without(code);
        changed.options.push((code, data.into()));
        changed
    }

    fn seconds(self, code: u8, seconds: u32) -> Self {
        self.with(code, seconds.to_be_bytes())
    }

    /// The answer to a request (RFC 2131, 2).
    fn to(&self, request: &[u8]) -> Option<Vec<u8>> {
        const OFFER: [u8; 2] = [1, 2];
        const CONFIRMATION: [u8; 2] = [3, 5];
        let kind = option(request, KIND)?;
        let answers = [Some(OFFER), Some(CONFIRMATION).filter(|_| self.confirms)];
        let [_, kind] = answers.into_iter().flatten().find(|[asked, _]| kind == [*asked])?;
        let mut bytes = vec![0; 236];
        bytes[..4].copy_from_slice(&[2, 1, 6, 0]);
        bytes[4..8].copy_from_slice(&request[4..8]);
        bytes[16..20].copy_from_slice(&self.address.octets());
        bytes[28..44].copy_from_slice(&request[28..44]);
        bytes.extend([99, 130, 83, 99, KIND, 1, kind, SERVER, 4, 10, 77, 0, 1]);
        for (code, data) in &self.options {
            // Long ones in parts (RFC 3396).
            for part in data.chunks(255) {
                bytes.extend([*code, part.len() as u8]);
                bytes.extend(part);
            }
        }
        bytes.push(255);
        Some(bytes)
    }
}

/// What an option of a message says.
fn option(message: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut left = message.get(240..)?;
    while let [code, length, rest @ ..] = left {
        let (data, rest) = rest.split_at_checked(usize::from(*length))?;
        if *code == wanted {
            return Some(data);
        }
        left = rest;
    }
    None
}

/// A server at the other end of `eth0`, until this is dropped.
struct Server {
    reply: Arc<Mutex<Reply>>,
    ends: Arc<AtomicBool>,
}

impl Server {
    async fn new(far: &Far, reply: Reply) -> Self {
        far.cable("eth0").await;
        far.plug("eth0", 0).await;
        // Who has no address yet is answered by broadcast.
        far.run("ip route add 255.255.255.255 dev far-eth0").await;
        let server = Self { reply: Arc::new(Mutex::new(reply)), ends: Arc::default() };
        let (reply, ends) = (server.reply.clone(), server.ends.clone());
        let namespace = File::open(format!("/proc/{}/ns/net", far.pid())).unwrap();
        std::thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            let socket = UdpSocket::bind("0.0.0.0:67").unwrap();
            socket.set_broadcast(true).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let mut request = [0; 1500];
            while !ends.load(Ordering::Relaxed) {
                let Ok((length, mut from)) = socket.recv_from(&mut request) else { continue };
                let Some(answer) = reply.lock().unwrap().to(&request[..length]) else { continue };
                if from.ip().is_unspecified() {
                    from = SocketAddr::from((Ipv4Addr::BROADCAST, from.port()));
                }
                // Whoever renews may be gone.
                let _ = socket.send_to(&answer, from);
            }
        });
        server
    }

    fn gives(&self, reply: Reply) {
        *self.reply.lock().unwrap() = reply;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

/// All cases at once, each in a network of its own: they wait more than they do.
fn each<C: Send + 'static, F: Future<Output = ()>>(
    cases: Vec<C>,
    test: impl Fn(C) -> F + Clone + Send + 'static,
) {
    std::thread::scope(|scope| {
        for case in cases {
            let test = test.clone();
            scope.spawn(move || in_new_network(move || test(case)));
        }
    });
}

#[test]
fn a_lease_that_cannot_be_is_refused_with_the_reason_and_the_first_good_one_is_taken() {
    let never = u32::MAX;
    let (absurd, ignored) =
        ("eth0: a server gives an absurd lease: ", "eth0: no lease: no server offers one that makes sense");
    let refused = |words: &str| format!("{absurd}the {words}");
    let cases = vec![
        (Reply::at([0, 0, 0, 0]), refused("address 0.0.0.0/24")),
        (Reply::at([127, 0, 0, 1]), refused("address 127.0.0.1/24")),
        (Reply::at([239, 1, 2, 3]), refused("address 239.1.2.3/24")),
        (Reply::at([255, 255, 255, 255]), refused("address 255.255.255.255/24")),
        (Reply::at([10, 77, 0, 255]), refused("address 10.77.0.255/24")),
        (Reply::sane().with(NETMASK, [0; 4]), refused("netmask 0.0.0.0")),
        (Reply::sane().without(NETMASK), refused("netmask 0.0.0.0")),
        (Reply::sane().with(NETMASK, [255, 0, 255, 0]), refused("netmask 255.0.255.0")),
        (Reply::sane().without(LEASE_TIME), ignored.to_owned()),
        (Reply::sane().with(LEASE_TIME, [7]), ignored.to_owned()),
        (Reply::sane().seconds(LEASE_TIME, 0), ignored.to_owned()),
        (Reply::sane().seconds(T1, 900).seconds(T2, 900), ignored.to_owned()),
        (Reply::sane().seconds(T2, 3600), ignored.to_owned()),
        (Reply::sane().seconds(LEASE_TIME, never).seconds(T1, never).seconds(T2, never), ignored.to_owned()),
        (
            Reply { confirms: false, ..Reply::sane() },
            "eth0: no lease: a server offers one and does not confirm it within 5s".to_owned(),
        ),
    ];
    each(cases, |(reply, words)| async move {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        let server = Server::new(&far, reply).await;
        let mut node = Node::new(folder.path()).await;
        node.until_it_waits_for(&words).await;
        assert_eq!(sh("ip -4 addr show eth0; ip route").await, "", "{words}");
        server.gives(Reply::sane());
        let up = node.until_up().await;
        assert_eq!(
            (up.to_string().as_str(), up.trouble),
            ("eth0 10.77.0.50/24 by 10.77.0.1", None),
            "{words}"
        );
    });
}

#[test]
fn of_a_lease_that_says_nonsense_beside_an_address_the_rest_is_used_and_the_nonsense_told() {
    let unusable = |what: &str| Some(format!("eth0: the server gives what cannot be used, {what}"));
    let resolvers: Vec<u8> = (1..=60).flat_map(|last| [10, 77, 0, last]).collect();
    let numbers = (1..=9).chain(11..=171);
    let routes: Vec<u8> =
        numbers.flat_map(|number| [8, number, 10, 77, 0, 1]).chain([0, 10, 77, 0, 1]).collect();
    let hostile = "x\u{1b}[2J\nnameserver 6.6.6.6";
    let cases = vec![
        (Reply::sane().with(ROUTER, [224, 0, 0, 1]), unusable("the router 224.0.0.1")),
        (Reply::sane().with(ROUTER, [10, 77, 0, 50]), unusable("the router 10.77.0.50")),
        (Reply::sane().with(ROUTER, [10]), None),
        (Reply::sane().with(HOST_NAME, hostile), None),
        (Reply::sane().with(DOMAIN, hostile), unusable("the domain \"x\\u{1b}[2J\\nnameserver 6.6.6.6\"")),
        (Reply::sane().with(DOMAIN, [b'a'; 600]), unusable(&format!("the domain \"{}\"...", "a".repeat(64)))),
        (Reply::sane().with(DOMAIN, [0xff, 0xfe]), None),
        (Reply::sane().with(RESOLVER, resolvers), None),
        (Reply::sane().with(RESOLVER, [0, 0, 0, 0, 10, 77, 0, 1]), unusable("the resolver 0.0.0.0")),
        (Reply::sane().with(CLASSLESS_ROUTES, routes), unusable("106 of 170 routes")),
        (Reply::sane().with(CLASSLESS_ROUTES, [200, 1]), None),
        (Reply::sane().seconds(LEASE_TIME, u32::MAX), None),
    ];
    each(cases, |(reply, trouble)| async move {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        let _server = Server::new(&far, reply).await;
        let _controller = far.controller("10.77.0.1", 8443);
        Node::plan(folder.path(), "controllers = [\"http://10.77.0.1:8443\"]\n");
        let mut node = Node::new(folder.path()).await;
        let up = node.until_up().await;
        assert_eq!((up.links[0].1.to_string().as_str(), &up.trouble), ("10.77.0.50/24", &trouble));
        let resolver = std::fs::read_to_string(folder.path().join("resolv.conf")).unwrap();
        assert!(!resolver.contains("6.6.6.6") && resolver.matches("nameserver").count() <= 3, "{resolver}");
        let routes = sh("ip route").await;
        assert!(routes.lines().count() <= 66, "{routes}");
        // It lasts.
        let lost = node.until(|state| *state != State::Up(up.clone()));
        assert!(tokio::time::timeout(Duration::from_secs(5), lost).await.is_err(), "{trouble:?}");
    });
}

#[test]
fn a_lease_that_is_renewed_with_nonsense_is_good_all_the_same() {
    in_new_network(|| async {
        let folder = tempfile::tempdir().unwrap();
        let far = Far::new().await;
        let reply = Reply::sane().seconds(LEASE_TIME, 24).seconds(T1, 5).seconds(T2, 20);
        let server = Server::new(&far, reply.clone()).await;
        let mut node = Node::new(folder.path()).await;
        let up = node.until_up().await;
        server.gives(reply.clone().without(NETMASK));
        let lost = node.until(|state| *state != State::Up(up.clone()));
        assert!(tokio::time::timeout(Duration::from_secs(32), lost).await.is_err(), "it is still good");
        // Of another address nothing is ours for longer.
        server.gives(Reply { address: [10, 77, 0, 255].into(), ..reply });
        node.until_it_waits_for("nobody renewed it in time").await;
        assert_eq!(sh("ip -4 addr show eth0; ip route").await, "");
    });
}
