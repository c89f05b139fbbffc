//! The network of containers, as those see it who live in them and those who talk to them.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{runs, signal, until, with_own_mounts, with_own_network};
use crate::place::{Place, data, names};

/// A program that lives as long as this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a script on the node prints.
#[track_caller]
fn on_the_node(script: &str) -> String {
    let output = Command::new("bash").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Somebody on another network, 192.168.9.2, at the other end of a link of the node, which is 192.168.9.1 there.
fn neighbour() -> Running {
    let script = "ip link set lo up; echo up; exec sleep 600";
    let mut unshare = Command::new("unshare");
    let mut child = unshare.args(["--net", "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "up\n");
    let neighbour = Running(child);
    on_the_node(&format!(
        "ip link add out0 type veth peer name far netns {pid}
         ip addr add 192.168.9.1/24 dev out0; ip link set out0 up
         nsenter --net=/proc/{pid}/ns/net sh -ec 'ip addr add 192.168.9.2/24 dev far; ip link set far up'",
        pid = neighbour.0.id()
    ));
    neighbour
}

impl Running {
    /// What a script prints in its network.
    fn bash(&self, script: &str) -> String {
        let netns = format!("--net=/proc/{}/ns/net", self.0.id());
        let output = Command::new("nsenter").arg(netns).args(["bash", "-c", script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a server says, or nothing after a while.
    fn ask(&self, address: &str, port: u16, seconds: u32) -> String {
        let asked = format!(
            "exec 3<>/dev/tcp/{address}/{port}; printf \"GET /hostname HTTP/1.0\r\n\r\n\" >&3; cat <&3"
        );
        self.bash(&format!("timeout {seconds} bash -c '{asked}'"))
    }
}

/// What of networks there is on the node: links, elements of the firewall, sockets, settings, files.
fn traces(place: &Place) -> BTreeSet<String> {
    let script = "ip -o link | sed 's/^[0-9]*: \\([^:@]*\\).*/link \\1/'
        ss -Htuln4 | awk '{print \"socket\", $1, $2, $5}'
        for f in /proc/sys/net/ipv4/conf/*/route_localnet; do echo $f $(cat $f); done
        nft list table inet core0 2>/dev/null | grep elements || true";
    let mut traces: BTreeSet<String> =
        on_the_node(script).lines().map(|line| line.trim().to_owned()).collect();
    for folder in ["networks", "bridges", "containers"] {
        let files = names(&place.node.dir.join(folder)).into_iter().filter(|name| name != "salt");
        traces.extend(files.map(|name| format!("{folder}/{name}")));
    }
    traces
}

fn difference(before: &BTreeSet<String>, now: &BTreeSet<String>) -> Vec<String> {
    before.symmetric_difference(now).cloned().collect()
}

/// The whole of what a container's server says behind a port of the node, once it serves.
fn ask(address: &str, port: u16) -> String {
    let mut said = String::new();
    until("the server in the container answers", || {
        said.clear();
        let Ok(mut stream) = TcpStream::connect((address, port)) else { return false };
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(b"GET /hostname HTTP/1.0\r\n\r\n").is_ok()
            && stream.read_to_string(&mut said).is_ok()
            && said.contains("200 OK")
    });
    said
}

/// Arguments for a container that serves its `/etc` on port 80, which the node has as port 8080.
fn serving() -> Value {
    json!({"entrypoint": ["httpd", "-f", "-p", "80", "-h", "/etc"], "port": {"8080": 80}})
}

fn network(place: &Place, id: u64) -> Value {
    place.list()[id.to_string()]["container"]["network"].clone()
}

#[test]
fn containers_reach_the_outside_names_and_each_other_and_are_reached_at_their_ports() {
    with_own_mounts(|| {
        with_own_network(|| {
            // dnsmasq asks whom the node asks: here a server that knows one name.
            let resolv_conf = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(resolv_conf.path(), "nameserver 127.0.0.1\n").unwrap();
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            std::fs::set_permissions(resolv_conf.path(), open).unwrap();
            on_the_node(&format!("mount --bind {} /etc/resolv.conf", resolv_conf.path().display()));
            let place = Place::new();
            let before = traces(&place);
            let neighbour = neighbour();
            let mut upstream = Command::new("dnsmasq");
            upstream.args([
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--no-hosts",
                "--no-resolv",
                "--pid-file",
            ]);
            upstream.args([
                "--listen-address=127.0.0.1",
                "--bind-interfaces",
                "--address=/name.test/192.168.9.2",
            ]);
            let upstream = Running(upstream.spawn().unwrap());

            let serving = place.created(serving());
            let other =
                place.created(json!({"hostname": "other", "network": {"zerotier": null, "bridge": null}}));
            let shown = network(&place, serving);
            assert_eq!(
                shown["ports"],
                json!([{"protocol": "tcp", "host": 8080, "container": 80}]),
                "{shown}"
            );
            let address =
                shown["nics"][0]["address"].as_str().unwrap().strip_suffix("/16").unwrap().to_owned();
            let own = network(&place, other)["nics"][0]["address"].as_str().unwrap().to_owned();

            // Inside.
            let seen = place.sh(other, "ip -o -4 addr; ip route; cat /etc/resolv.conf /etc/hosts");
            for expected in [&*own, "default via 172.18.0.1 dev eth0", "nameserver 172.18.0.1\n", " other\n"]
            {
                assert!(seen.contains(expected), "{expected} is missing: {seen}");
            }
            for whom in ["192.168.9.2", "172.18.0.1", "other", &address] {
                let said = place.sh(other, &format!("ping -c 1 -W 20 {whom}"));
                assert!(said.contains(" 1 packets received"), "{whom}: {said}");
            }
            until("the name is known", || {
                place.sh(other, "nslookup name.test || true").contains("192.168.9.2")
            });
            assert!(place.sh(other, "nslookup other.none 2>&1 || echo unknown").contains("unknown"));

            // From the node, from elsewhere, and from another container, which finds it at both places.
            let hostname = format!("core-{serving}\n");
            for to in ["127.0.0.1", "192.168.9.1"] {
                assert!(ask(to, 8080).ends_with(&hostname), "{to}");
            }
            let asked = neighbour.ask("192.168.9.1", 8080, 20);
            assert!(asked.ends_with(&hostname), "{asked}");
            for to in [format!("{address} 80"), "172.18.0.1 8080".to_owned()] {
                let asked = format!("printf 'GET /hostname HTTP/1.0\\r\\n\\r\\n' | nc -w 20 {to}");
                let said = place.sh(other, &asked);
                assert!(said.ends_with(&hostname), "{to}: {said}");
            }
            // Nobody outside starts a connection to a container but at its ports.
            neighbour.bash("ip route add 172.18.0.0/16 via 192.168.9.1");
            assert_eq!(neighbour.ask(&address, 80, 1), "");

            place.terminate(other);
            place.terminate(serving);
            place.until_nothing_is_left();
            until("the port is free", || TcpListener::bind("0.0.0.0:8080").is_ok());
            let mut place = place;
            drop((upstream, neighbour));
            place.node.stop();
            let left = difference(&before, &traces(&place));
            // The node's redis is one of them, which is gone now.
            let left: Vec<_> =
                left.into_iter().filter(|trace| !trace.contains(&format!(":{}", place.node.port))).collect();
            assert_eq!(left, Vec::<String>::new());
        });
    });
}

#[test]
fn bridges_give_addresses_of_their_own() {
    with_own_network(|| {
        let place = Place::new();
        let settings = json!({"cidr": "10.5.0.1/24", "start": "10.5.0.10", "end": "10.5.0.59"});
        let bridge =
            json!({"name": "br0", "network": {"mode": "dnsmasq", "nat": true, "settings": settings}});
        data(&place.node.call("bridge.create", bridge));
        let bridges = json!([["br0", "dhcp"], ["br0", "none"], ["br0", ""], ["br0", "10.5.0.2/24"]]);
        let id = place.created(json!({"network": {"bridge": bridges}}));
        let nics = network(&place, id)["nics"].clone();
        assert_eq!(nics.as_array().unwrap().len(), 5, "{nics}");
        assert_eq!([&nics[2]["address"], &nics[3]["address"]], [&Value::Null; 2], "{nics}");
        let from_range = nics[1]["address"].as_str().unwrap().to_owned();
        assert!(from_range.starts_with("10.5.0.") && from_range.ends_with("/24"), "{nics}");
        let seen = place.sh(id, "ip -o -4 addr; cat /etc/resolv.conf");
        for expected in [&*from_range, "eth4    inet 10.5.0.2/24", "nameserver 10.5.0.1\n"] {
            assert!(seen.contains(expected), "{expected} is missing: {seen}");
        }
        // One who asks for an address gets one of the bridge's dnsmasq, and another one.
        let got = place.sh(id, "udhcpc -f -n -q -t 20 -T 1 -i eth2 -s /bin/true 2>&1");
        assert!(got.contains("lease of 10.5.0.") && got.contains("obtained from 10.5.0.1"), "{got}");
        assert!(!got.contains(&format!("lease of {} ", from_range.trim_end_matches("/24"))), "{got}");
        // None at all, and the node's own.
        let none = place.created(json!({"nics": []}));
        assert_eq!(place.sh(none, "ip -o link | grep -c ."), "1\n");
        assert_eq!(network(&place, none), json!({"nics": [], "ports": []}));
        let host = place.created(json!({"host_network": true}));
        assert!(place.sh(host, "ip -o link").contains(" br0:"));
        assert_eq!(
            place.sh(host, "cat /etc/resolv.conf"),
            std::fs::read_to_string("/etc/resolv.conf").unwrap()
        );
        assert_eq!(network(&place, host), Value::Null);
        for id in [id, none, host] {
            place.terminate(id);
        }
        place.until_nothing_is_left();
    });
}

#[test]
fn a_network_that_cannot_be_is_told_and_leaves_nothing() {
    with_own_network(|| {
        let mut place = Place::new();
        data(&place.node.call("bridge.create", json!({"name": "br0"})));
        let holder = place.created(json!({"name": "first", "port": {"8080": 80, "5353|udp": 53}}));
        let listening = TcpListener::bind("127.0.0.1:0").unwrap();
        let listened = listening.local_addr().unwrap().port().to_string();
        // A link in the way of what the container after next would get: its network fails when half of it is there.
        let before = traces(&place);
        for (arguments, code, expected) in [
            (
                json!({"port": {"8080": 81}}),
                409,
                "port 8080/tcp of the node is taken by container 1 (\\\"first\\\")",
            ),
            (json!({"port": {"5353|udp": 81}}), 409, "5353/udp"),
            (json!({"port": {listened.as_str(): 80}}), 409, "is taken by process"),
            (json!({"port": {"x": 80}}), 400, "no port of the node"),
            (json!({"port": {"0": 80}}), 400, "no port of the node"),
            (json!({"port": {"80": 65_536}}), 400, "65536"),
            (json!({"port": {"80": 80}, "nics": []}), 400, "none of its NICs"),
            (json!({"network": {"bridge": [["none", "dhcp"]]}}), 404, "no bridge none"),
            (json!({"network": {"bridge": [["br0", "dhcp"]]}}), 412, "br0 gives no addresses"),
            (json!({"network": {"bridge": [["br0", "10.0.0.0/24"]]}}), 400, "no address of a host"),
            (json!({"network": {"bridge": [["lo", "10.0.0.2/24"]]}}), 404, "no bridge lo"),
            (json!({"network": {"bridge": [["../x", ""]]}}), 400, "no name of a link"),
            (json!({"network": {"bridge": "br0"}}), 400, "br0"),
            (json!({"network": {"zerotier": "8056c2e21c000001"}}), 406, "speaks ZeroTier"),
            (json!({"nics": [{"type": "zerotier", "id": "8056c2e21c000001"}]}), 406, "speaks ZeroTier"),
            (json!({"nics": [{"type": "vlan", "id": "7"}]}), 406, "vlan"),
            (json!({"nics": [{"type": "bridge"}]}), 400, "needs the name"),
            (
                json!({"nics": [{"type": "default", "config": {"cidr": "172.18.0.1/16"}}]}),
                409,
                "belongs to the node",
            ),
            // The network is there when these fail.
            (json!({"entrypoint": ["no-such-program"], "port": {"9090": 80}}), 404, "no-such-program"),
            (
                json!({"config": {"/etc/plain/x": ""}, "port": {"9090": 80}}),
                412,
                "write a file of the container",
            ),
        ] {
            let (found, said) = place.refused(arguments.clone());
            assert!(found == code && said.contains(expected), "{arguments}: {found} {said}");
            assert_eq!(difference(&before, &traces(&place)), Vec::<String>::new(), "{arguments}");
        }
        // A link that somebody made where the container's would be: its network is half there when that shows.
        let next = 1 + place.created(json!({"nics": []}));
        on_the_node(&format!("ip link add c{next}n1 type bridge"));
        let (code, said) = place.refused(json!({
            "nics": [{"type": "default"}, {"type": "default"}, {"type": "default"}], "port": {"9090": 80},
        }));
        assert!(code == 409 && said.contains(&format!("c{next}n1")), "{code} {said}");
        on_the_node(&format!("ip link delete c{next}n1"));
        place.terminate(next - 1);
        until("nothing of it is left", || difference(&before, &traces(&place)).is_empty());
        place.terminate(holder);
        place.until_nothing_is_left();
        // What failed took nothing along: the port is free again.
        let again = place.created(json!({"port": {"8080": 80}}));
        place.terminate(again);
        place.until_nothing_is_left();
        place.node.stop();
    });
}

#[test]
fn networks_live_on_when_the_manager_is_killed_and_end_with_their_containers() {
    with_own_network(|| {
        let mut place = Place::new();
        let before = traces(&place);
        let kept = place.created(serving());
        let lost = place.created(json!({"port": {"9090": 80}, "entrypoint": ["sleep", "600"]}));
        let hostname = format!("core-{kept}\n");
        assert!(ask("127.0.0.1", 8080).ends_with(&hostname));
        let pid = place.list()[lost.to_string()]["container"]["pid"].as_i64().unwrap() as i32;
        place.node.kill_manager();
        // Nobody looks after it, and it serves.
        let asked = TcpStream::connect("127.0.0.1:8080");
        assert!(asked.is_ok(), "{asked:?}");
        // One that ends meanwhile.
        signal(pid, libc::SIGKILL);
        until("it is gone", || !runs(pid));
        place.node.restart();
        assert!(ask("127.0.0.1", 8080).ends_with(&hostname));
        assert_eq!(place.list().as_object().unwrap().len(), 1);
        let (code, said) = place.refused(json!({"port": {"8080": 80}}));
        assert!(code == 409 && said.contains("container 1"), "{code} {said}");
        let again = place.created(json!({"port": {"9090": 80}}));
        let said = place.sh(
            again,
            &format!(
                "ping -c 1 -W 20 {}",
                network(&place, kept)["nics"][0]["address"].as_str().unwrap().trim_end_matches("/16")
            ),
        );
        assert!(said.contains(" 1 packets received"), "{said}");
        place.terminate(again);
        // The other one is left to the end of the node, and its network ends with it.
        place.node.stop();
        let left = difference(&before, &traces(&place));
        let left: Vec<_> =
            left.into_iter().filter(|trace| !trace.starts_with("socket tcp LISTEN 127.0.0.1:")).collect();
        assert_eq!(left, Vec::<String>::new());
    });
}

#[test]
fn containers_are_in_the_network_that_the_configuration_names() {
    with_own_network(|| {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::configured(dir.path(), "[network]\ncontainers = '10.88.7.1/28'\n");
        let ids = [(); 2].map(|()| place.created(json!({"network": {"zerotier": null, "bridge": null}})));
        let addresses = ids.map(|id| network(&place, id)["nics"][0]["address"].as_str().unwrap().to_owned());
        for address in &addresses {
            assert!(address.starts_with("10.88.7.") && address.ends_with("/28"), "{address}");
        }
        let seen = place.sh(ids[0], "ip -o -4 addr; ip route; cat /etc/resolv.conf");
        for expected in [&*addresses[0], "default via 10.88.7.1 dev eth0", "nameserver 10.88.7.1\n"] {
            assert!(seen.contains(expected), "{expected} is missing: {seen}");
        }
        let other = addresses[1].trim_end_matches("/28");
        let said = place.sh(ids[0], &format!("ping -c 1 -W 20 {other}"));
        assert!(said.contains(" 1 packets received"), "{said}");
        // The usual one is not made beside it.
        assert!(!on_the_node("ip -o -4 addr").contains("172.18."));
    });
}
