//! The media as machines boot them, in firmware of both kinds. Each is a boot of its own, so this is not for every run:
//! `make test-boot`.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use harness::guest::{self, Guest, Own};
use harness::{Operator, Place, args, process};

const NETWORK: &str = "8056c2e21c000001";
const OVMF: &str = "/usr/share/OVMF";

#[test]
#[ignore = "slow: make test-boot"]
fn the_iso_boots_in_a_bios_and_names_the_server_of_the_bootstrap_file() {
    let place = Place::new();
    let operator = operator(&place);
    let guest = Guest::boot_from(&place, &operator.own(), |image| {
        let (named, own) = (place.join("bootstrap.yaml"), place.join("own.iso"));
        operator.names_itself(&named);
        let mut add = Command::new("xorriso");
        add.arg("-indev").arg(image.join("g8os-minimal.iso")).arg("-outdev").arg(&own);
        add.args(["-boot_image", "any", "replay", "-map"]).arg(&named).arg("/bootstrap.yaml");
        // It was made by an earlier try.
        let _ = std::fs::remove_file(&own);
        process::run(&mut add, process::PATIENCE).ok();
        cd(&own)
    });
    has_a_network(&guest);
    guest.until_it_says("bootstrap  done    sequence 7");
}

#[test]
#[ignore = "slow: make test-boot"]
fn the_disk_boots_by_uefi_and_its_esp_names_the_server_of_the_bootstrap_file() {
    let place = Place::new();
    let operator = operator(&place);
    let guest = Guest::boot_from(&place, &operator.own(), |image| {
        let disk = image.join("g8os-minimal.img").display().to_string();
        let named = place.join("bootstrap.yaml");
        operator.names_itself(&named);
        let mut add = Command::new("mcopy");
        add.args(["-D", "o", "-i", &format!("{disk}@@1M")]).arg(&named).arg("::");
        process::run(&mut add, process::PATIENCE).ok();
        let mut medium = uefi(&place);
        let drive = format!("file={disk},if=none,id=m0,format=raw");
        medium.extend(args!["-drive", drive, "-device", "virtio-blk-pci,drive=m0,bootindex=0"]);
        medium
    });
    has_a_network(&guest);
    guest.until_it_says("bootstrap  done    sequence 7");
}

#[test]
#[ignore = "slow: make test-boot"]
fn an_iso_by_url_fetches_the_rest_and_brings_the_number_of_its_network_in_a_bios() {
    let place = Place::new();
    chain_loads(&place, Vec::new());
}

#[test]
#[ignore = "slow: make test-boot"]
fn an_iso_by_url_fetches_the_rest_and_brings_the_number_of_its_network_by_uefi() {
    let place = Place::new();
    chain_loads(&place, uefi(&place));
}

/// Boots from an ISO that a server made, with this firmware.
fn chain_loads(place: &Place, firmware: Vec<OsString>) {
    let iso = place.join("by-url.iso");
    let server = std::cell::RefCell::new(None);
    let guest = Guest::boot_from(place, &Own::default(), |image| {
        let served = Served::start(image);
        served.fetch(&format!("/g8os.iso?netid={NETWORK}"), &iso);
        *server.borrow_mut() = Some(served);
        [firmware.clone(), cd(&iso)].concat()
    });
    has_a_network(&guest);
    let told = guest.bash("cat /proc/cmdline");
    assert!(told.split(' ').any(|word| word == format!("zerotier={NETWORK}")), "{told}");
}

/// Its file says nothing but its number.
fn operator(place: &Place) -> Operator {
    let operator = Operator::new(place, &place.dir("blocks"));
    operator.publish("sequence: 7\narch: i64\nexpires: 2100-01-01T00:00:00Z\n");
    operator
}

fn has_a_network(guest: &Guest) {
    let said = guest.said();
    eprintln!("booted in {:.1} s", guest.booted_in.as_secs_f64());
    assert!(said.contains("eth0 10.0.2.15/24 by 10.0.2.2"), "{said}");
}

fn cd(iso: &Path) -> Vec<OsString> {
    let drive = format!("file={},if=none,id=m0,format=raw,media=cdrom", iso.display());
    args!["-drive", drive, "-device", "ide-cd,drive=m0,bootindex=0"]
}

/// OVMF, with variables of its own.
fn uefi(place: &Place) -> Vec<OsString> {
    let variables = place.join("vars.fd");
    std::fs::copy(format!("{OVMF}/OVMF_VARS_4M.fd"), &variables).expect("package ovmf is installed");
    let flash = |file: String, more: &str| format!("if=pflash,format=raw,file={file}{more}");
    let code = flash(format!("{OVMF}/OVMF_CODE_4M.fd"), ",readonly=on");
    args!["-drive", code, "-drive", flash(variables.display().to_string(), "")]
}

/// `initramfs serve` on the host, which a guest sees as 10.0.2.2.
struct Served {
    server: Child,
    url: String,
}

impl Served {
    fn start(image: &Path) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("the loopback has a free port");
        let port = free.local_addr().expect("it is bound").port();
        drop(free);
        let mut server = Command::new(guest::programs().join("initramfs"));
        server.args(["serve", "--minimal", "--listen", &format!("127.0.0.1:{port}")]);
        server.args(["--url", &format!("http://10.0.2.2:{port}"), "--arguments", &guest::kernel_arguments()]);
        server.arg("--images").arg(image).stdout(Stdio::piped());
        let mut server = server.spawn().expect("cargo built it beside this test");
        let mut url = String::new();
        let stdout = server.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut url).expect("it says where it listens");
        assert!(url.starts_with("http://"), "it does not serve: {url:?}");
        Self { server, url: url.trim_end().to_owned() }
    }

    fn fetch(&self, path: &str, to: &Path) {
        let program = "import sys, urllib.request; urllib.request.urlretrieve(sys.argv[1], sys.argv[2])";
        let mut python = Command::new("python3");
        python.args(["-c", program, &format!("{}{path}", self.url)]).arg(to);
        process::run(&mut python, process::PATIENCE).ok();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
