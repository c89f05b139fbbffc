use serde_json::json;

use super::*;

/// Answers everybody on TCP and UDP port 80 with who asked, for as long as the test runs.
const SERVER: &str = "exec python3 -c '
import socket, threading
t = socket.create_server((\"0.0.0.0\", 80))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind((\"0.0.0.0\", 80))
def udp():
    while True:
        who = u.recvfrom(99)[1]; u.sendto(who[0].encode(), who)
threading.Thread(target=udp, daemon=True).start()
print(\"up\", flush=True)
while True:
    c, who = t.accept(); c.sendall(who[0].encode()); c.close()
'";

/// Asks `SERVER` behind an address and port, and prints what it says, or the error.
fn ask(kind: &str, to: &str, port: u16) -> String {
    let talk = match kind {
        "tcp" => format!("s = socket.create_connection((\"{to}\", {port}), 10); print(s.recv(99).decode())"),
        _ => format!(
            "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(10); s.connect((\"{to}\", {port})); s.send(b\"?\"); print(s.recv(99).decode())"
        ),
    };
    format!(
        "python3 -c '
import socket
try:
    {talk}
except Exception as e:
    print(type(e).__name__)
'"
    )
}

struct Server(tokio::process::Child);

impl Container {
    async fn serve(&self) -> Server {
        let netns = format!("--net=/proc/{}/fd/{}", std::process::id(), self.netns.as_raw_fd());
        let mut command = crate::sys::tool::command("nsenter");
        command.args([&netns, "bash", "-c", SERVER]).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut up = [0; 3];
        let said = tokio::io::AsyncReadExt::read_exact(child.stdout.as_mut().unwrap(), &mut up);
        tokio::time::timeout(Duration::from_secs(60), said).await.expect("the server starts").unwrap();
        Server(child)
    }

    async fn ask(&self, kind: &str, to: &str, port: u16) -> String {
        self.run(&ask(kind, to, port)).await.unwrap().trim().to_owned()
    }
}

impl Server {
    async fn stop(mut self) {
        self.0.kill().await.unwrap();
    }
}

/// Somebody on another network, at the other end of a link of the node, which is 192.168.9.1 there.
async fn neighbour() -> Container {
    let neighbour = Container::new();
    let pid = std::process::id();
    let fd = neighbour.netns.as_raw_fd();
    run(&format!(
        "ip link set lo up
         ip link add out0 type veth peer name far netns /proc/{pid}/fd/{fd}
         ip addr add 192.168.9.1/24 dev out0; ip link set out0 up"
    ))
    .await;
    neighbour.run("ip addr add 192.168.9.2/24 dev far; ip link set lo up; ip link set far up; ip route add 172.18.0.0/16 via 192.168.9.1").await.unwrap();
    neighbour
}

#[test]
fn a_forwarded_port_is_reached_from_everywhere() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let node = node_that_waits(dir.path(), LINGER);
        let outside = neighbour().await;
        let (server, client) = (Container::new(), Container::new());
        let ports = plan(json!({"port": {"8080|tcp+udp": 80, "8081": 80}}));
        server.attach(&node, 1, ports).await.unwrap();
        client.attach(&node, 2, default_plan()).await.unwrap();
        let serving = server.serve().await;
        for kind in ["tcp", "udp"] {
            // Strangers keep their address; the node and its containers get that of the node on the bridge.
            assert_eq!(outside.ask(kind, "192.168.9.1", 8080).await, "192.168.9.2", "{kind} from outside");
            for address in ["127.0.0.1", "192.168.9.1", "172.18.0.1"] {
                let said = run(&ask(kind, address, 8080)).await;
                assert_eq!(said.trim(), "172.18.0.1", "{kind} from the node to {address}");
            }
            assert_eq!(client.ask(kind, "192.168.9.1", 8080).await, "172.18.0.1", "{kind} from a container");
            assert_eq!(client.ask(kind, "172.18.0.1", 8080).await, "172.18.0.1", "{kind} from a container");
            assert_eq!(
                server.ask(kind, "192.168.9.1", 8080).await,
                "172.18.0.1",
                "{kind} from the same container"
            );
            assert_eq!(client.ask(kind, "172.18.0.2", 80).await, "172.18.0.3", "{kind} past the node");
        }
        assert_eq!(outside.ask("tcp", "192.168.9.1", 8081).await, "192.168.9.2");
        // What is not forwarded is not there.
        assert_eq!(outside.ask("tcp", "192.168.9.1", 8082).await, "ConnectionRefusedError");
        assert_eq!(
            outside.ask("tcp", "172.18.0.2", 80).await,
            "TimeoutError",
            "the network of containers is open"
        );
        serving.stop().await;
        node.release(1).await.unwrap();
        assert_eq!(outside.ask("tcp", "192.168.9.1", 8080).await, "ConnectionRefusedError");
        node.release(2).await.unwrap();
        node.stop().await.unwrap();
    });
}

#[test]
fn a_container_reaches_nothing_on_the_loopback_of_the_node() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let node = node_that_waits(dir.path(), LINGER);
        run("ip link set lo up").await;
        let container = Container::new();
        container.attach(&node, 1, plan(json!({"port": {"8080": 80}}))).await.unwrap();
        assert_eq!(run("cat /proc/sys/net/ipv4/conf/core0/route_localnet").await.trim(), "1");
        let secret = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let anybody = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        for socket in [&secret, &anybody] {
            socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        }
        // Packets to the loopback sent to the bridge, and packets to the bridge that seem to come from the loopback.
        let script = format!(
            "ip addr del 127.0.0.1/8 dev lo; ip link set lo down
             sysctl -q net.ipv4.conf.eth0.route_localnet=1 net.ipv4.conf.all.rp_filter=0
             ip route add 127.0.0.1/32 via 172.18.0.1 src 172.18.0.2
             ip route del table local 127.0.0.0/8 2>/dev/null
             python3 -c '
import socket
for address, port in ((\"127.0.0.1\", {}), (\"172.18.0.1\", {})):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b\"honest\", (address, port))
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
import struct
body = struct.pack(\"!HHHH\", 1, {}, 12, 0) + b\"spy!\"
head = struct.pack(\"!BBHHHBBH4s4s\", 0x45, 0, 32, 1, 0, 64, 17, 0, socket.inet_aton(\"127.0.0.1\"), socket.inet_aton(\"172.18.0.1\"))
raw.sendto(head + body, (\"172.18.0.1\", 0))'",
            secret.local_addr().unwrap().port(),
            anybody.local_addr().unwrap().port(),
            anybody.local_addr().unwrap().port(),
        );
        container.run(&script).await.unwrap();
        let mut buffer = [0; 16];
        let (n, from) = anybody.recv_from(&mut buffer).expect("an honest packet arrives");
        assert_eq!((&buffer[..n], from.ip()), (&b"honest"[..], [172, 18, 0, 2].into()));
        assert!(anybody.recv_from(&mut buffer).is_err(), "a packet in the name of the loopback came in");
        assert!(secret.recv_from(&mut buffer).is_err(), "a packet to the loopback came in");
        node.release(1).await.unwrap();
        assert_eq!(run("cat /proc/sys/net/ipv4/conf/core0/route_localnet").await.trim(), "0");
        node.stop().await.unwrap();
    });
}

#[test]
fn containers_find_each_other_names_and_the_outside() {
    in_new_network(|| async {
        // The node's own DNS server: dnsmasq asks whom resolv.conf names.
        let _resolv_conf = own_resolv_conf();
        let dir = tempfile::tempdir().unwrap();
        let node = node_that_waits(dir.path(), LINGER);
        let outside = neighbour().await;
        let mut upstream = crate::sys::tool::command("dnsmasq");
        upstream.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-hosts",
            "--no-resolv",
            "--listen-address=127.0.0.1",
            "--bind-interfaces",
            "--pid-file",
            "--address=/name.test/192.168.9.2",
        ]);
        let mut upstream = upstream.spawn().unwrap();
        let (one, two) = (Container::new(), Container::new());
        let attached = one.attach(&node, 1, default_plan()).await.unwrap();
        let other = two.attach(&node, 2, default_plan()).await.unwrap().address().unwrap();
        one.run(&format!("busybox ping -c 1 -W 10 {other}")).await.unwrap();
        one.run("busybox ping -c 1 -W 10 192.168.9.2").await.unwrap();
        let hidden = outside.run("busybox ping -c 1 -W 1 172.18.0.2").await;
        hidden.expect_err("somebody outside reaches a container");
        let resolv_conf = dir.path().join("resolv.conf");
        std::fs::write(&resolv_conf, attached.resolv_conf).unwrap();
        let found = one
            .run(&format!(
                "unshare -m bash -c 'mount --bind {} /etc/resolv.conf; for i in $(seq 20); do getent ahostsv4 name.test && exit; sleep 0.5; done'",
                resolv_conf.display()
            ))
            .await
            .unwrap();
        assert!(found.starts_with("192.168.9.2 "), "{found:?}");
        upstream.kill().await.unwrap();
        node.release(1).await.unwrap();
        node.release(2).await.unwrap();
        node.stop().await.unwrap();
    });
}

/// In a mount namespace of this thread and of what it starts, 127.0.0.1 is the DNS server, as long as the file is there.
fn own_resolv_conf() -> tempfile::NamedTempFile {
    use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
    // SAFETY: the thread gets its own view of mounts and its own working folder; nothing else here depends on either.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "nameserver 127.0.0.1\n").unwrap();
    std::fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    mount_bind(file.path(), "/etc/resolv.conf").unwrap();
    file
}
