//! What is at the other end of the cables: another network namespace, with servers in it.

use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use crate::sys::tool::{Tool, command};

/// See the module's text. All of it ends with this.
pub struct Far {
    holder: Child,
    folder: tempfile::TempDir,
}

impl Far {
    pub async fn new() -> Self {
        let mut holder = command("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up; echo here; exec sleep 600"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
        assert_eq!(line, "here\n");
        Self { holder, folder: tempfile::tempdir().unwrap() }
    }

    /// The process whose namespace it is.
    pub fn pid(&self) -> u32 {
        self.holder.id().unwrap()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A NIC whose cable ends here, at `far-NIC`.
    pub async fn cable(&self, nic: &str) {
        sh(&format!("ip link add {nic} type veth peer name far-{nic} netns {}", self.pid())).await;
    }

    /// One with this hardware address.
    pub async fn cable_of(&self, nic: &str, address: &str) {
        let pid = self.pid();
        sh(&format!("ip link add {nic} address {address} type veth peer name far-{nic} netns {pid}")).await;
    }

    /// Runs a line here, to its end.
    pub async fn run(&self, line: &str) -> String {
        let pid = self.pid();
        Tool::new("nsenter")
            .args([&format!("--net=/proc/{pid}/ns/net"), "sh", "-c", line])
            .run()
            .await
            .unwrap()
    }

    /// Runs a server here, until it is dropped.
    pub fn serve(&self, line: &str) -> Child {
        let mut server = command("nsenter");
        server.arg(format!("--net=/proc/{}/ns/net", self.pid())).args(["sh", "-c", &format!("exec {line}")]);
        server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Plugs a cable in, at a machine that has the address 10.77.NET.1.
    pub async fn plug(&self, nic: &str, net: u8) {
        self.run(&format!("ip link set far-{nic} up; ip addr add 10.77.{net}.1/24 dev far-{nic}")).await;
    }

    /// Gives leases of an hour on a cable: addresses from 10.77.NET.FROM on, and itself as the router and the resolver.
    pub fn dnsmasq(&self, nic: &str, net: u8, from: u8) -> Child {
        // What it gave before is forgotten, as by a server that was set up anew.
        let _ = std::fs::remove_file(self.folder().join(format!("leases-{nic}")));
        let usual = format!(
            "--dhcp-option=3,10.77.{net}.1 --dhcp-option=6,10.77.{net}.1 --dhcp-option=15,example.org"
        );
        self.dnsmasq_with(nic, net, from, "1h", &usual)
    }

    /// The same, which gives what it is told to, for so long, and remembers what it gave before. It says what it does in
    /// `said-NIC`.
    pub fn dnsmasq_with(&self, nic: &str, net: u8, from: u8, lease: &str, options: &str) -> Child {
        let file = |name: &str| self.folder().join(format!("{name}-{nic}")).display().to_string();
        self.serve(&format!(
            "dnsmasq --keep-in-foreground --port=0 --conf-file=/dev/null --interface=far-{nic} --bind-interfaces \
             --dhcp-authoritative --no-ping --dhcp-range=10.77.{net}.{from},10.77.{net}.{},255.255.255.0,{lease} \
             --dhcp-leasefile={} --log-facility={} --pid-file= --user=root {options}",
            from + 9,
            file("leases"),
            file("said"),
        ))
    }

    /// What the server on a cable has said so far.
    pub fn said(&self, nic: &str) -> String {
        std::fs::read_to_string(self.folder().join(format!("said-{nic}"))).unwrap_or_default()
    }

    /// Gives leases of so many seconds, which are too short for dnsmasq.
    pub fn udhcpd(&self, nic: &str, net: u8, seconds: u32) -> Child {
        let file = |name: &str| self.folder().join(name).display().to_string();
        let configuration = format!(
            "start 10.77.{net}.50\nend 10.77.{net}.59\ninterface far-{nic}\nmin_lease 2\nlease_file {}\npidfile {}\n\
             option subnet 255.255.255.0\noption router 10.77.{net}.1\noption lease {seconds}\n",
            file("udhcpd.leases"),
            file("udhcpd.pid")
        );
        std::fs::write(file("udhcpd.conf"), configuration).unwrap();
        std::fs::write(file("udhcpd.leases"), "").unwrap();
        self.serve(&format!("busybox udhcpd -f {}", file("udhcpd.conf")))
    }

    /// Resolves the one name `controller.example.org`.
    pub fn resolver(&self, address: &str, controller: &str) -> Child {
        self.serve(&format!(
            "dnsmasq --keep-in-foreground --conf-file=/dev/null --listen-address={address} --bind-interfaces --no-resolv \
             --no-hosts --local=/example.org/ --host-record=controller.example.org,{controller} --pid-file= --user=root"
        ))
    }

    /// A controller: it takes connections.
    pub fn controller(&self, address: &str, port: u16) -> Child {
        self.serve(&format!("busybox httpd -f -p {address}:{port} -h {}", self.folder().display()))
    }
}

/// Runs a line in the namespace of the test.
pub async fn sh(line: &str) -> String {
    Tool::new("sh").args(["-c", line]).run().await.unwrap()
}
