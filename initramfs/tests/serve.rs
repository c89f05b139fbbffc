//! `initramfs serve` over real HTTP, with an image that was built for it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use initramfs::build::{self, Options};
use initramfs::serve::{self, Server};
use initramfs::store::Store;

const NETWORK: &str = "8056c2e21c000001";
const PATIENCE: Duration = Duration::from_secs(60);

/// A server, and the folder of what it serves.
struct Served {
    address: SocketAddr,
    images: PathBuf,
}

/// One for all tests: the image is dear.
fn served() -> &'static Served {
    static SERVED: OnceLock<Served> = OnceLock::new();
    SERVED.get_or_init(|| {
        let images = Path::new(env!("CARGO_TARGET_TMPDIR")).join("serve");
        let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes");
        let test = std::env::current_exe().unwrap();
        let built = build::build(&Options {
            recipe: recipes.join("minimal.toml"),
            lock: recipes.join("packages.lock"),
            relock: true,
            programs: test.ancestors().nth(2).unwrap().into(),
            cache: Store::usual().unwrap(),
            output: images.clone(),
            with: Vec::new(),
        });
        let built = built.unwrap();
        let options = serve::Options {
            listen: "127.0.0.1:0".parse().unwrap(),
            url: Some("http://boot.example.org:8086/".into()),
            kernel: built.files[0].0.clone(),
            initramfs: built.files[1].0.clone(),
            parts: images.join(build::PARTS),
            arguments: "console=ttyS0 quiet".into(),
        };
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            tokio::runtime::Runtime::new().unwrap().block_on(async {
                let server = Server::bind(&options).await.unwrap();
                tell.send(server.address()).unwrap();
                server.run(std::future::pending()).await;
            });
        });
        Served { address: told.recv_timeout(PATIENCE).unwrap(), images }
    })
}

#[tokio::test]
async fn an_address_that_is_nobodys_is_in_no_script() {
    let folder = tempfile::tempdir().unwrap();
    let options = serve::Options {
        listen: "[::]:0".parse().unwrap(),
        url: None,
        kernel: folder.path().join("vmlinuz"),
        initramfs: folder.path().join("initramfs"),
        parts: folder.path().into(),
        arguments: String::new(),
    };
    let Err(error) = Server::bind(&options).await else { panic!("it serves") };
    assert!(error.to_string().contains("--url"), "{error}");
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        let line = self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.unwrap_or_else(|| panic!("{name} in {}", self.head))
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

fn ask(method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut stream = TcpStream::connect(served().address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: bytes[end + 4..].to_vec() }
}

fn get(path: &str) -> Answer {
    ask("GET", path, &[])
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    said
}

#[test]
fn a_script_carries_the_number_of_the_network_and_leads_to_kernel_and_initramfs() {
    let answer = get(&format!("/ipxe/{}", NETWORK.to_uppercase()));
    assert_eq!(answer.status, 200);
    let kernel = "kernel http://boot.example.org:8086/vmlinuz initrd=initramfs console=ttyS0 quiet zerotier=8056c2e21c000001 ";
    assert!(answer.text().starts_with("#!ipxe\n") && answer.text().contains(kernel), "{}", answer.text());
    assert!(answer.text().contains("initrd --name initramfs http://boot.example.org:8086/initramfs"));
    let file = get(&format!("/g8os.ipxe?netid={NETWORK}"));
    assert_eq!((file.status, file.body), (200, answer.body));
    assert_eq!(get("/").status, 404);
    assert_eq!(ask("POST", &format!("/ipxe/{NETWORK}"), &[("Content-Length", "0")]).status, 405);
}

#[test]
fn what_is_no_number_of_a_network_is_a_400_that_says_why_whatever_it_is() {
    let long = "a".repeat(4000);
    let bad = [
        "",
        "8056c2e21c00000",
        "8056c2e21c0000011",
        "8056c2e21c00000g",
        "%0a056c2e21c000001",
        "%24%7bx%7d",
        &long,
    ];
    for text in bad {
        for path in
            [format!("/g8os.iso?netid={text}"), format!("/g8os.ipxe?netid={text}"), format!("/ipxe/{text}")]
        {
            let answer = get(&path);
            // Nothing at all is another path.
            let expected = if path == "/ipxe/" { 404 } else { 400 };
            assert_eq!(answer.status, expected, "{path}: {}", answer.head);
            assert!(answer.body.len() < 300 && !answer.text().trim_end().contains('\n'), "{}", answer.text());
        }
    }
    for path in ["/g8os.iso", "/g8os.ipxe?other=1"] {
        let answer = get(path);
        assert!(answer.status == 400 && answer.text().contains("netid is missing"), "{}", answer.text());
    }
}

#[test]
fn an_iso_boots_by_bios_and_uefi_and_has_the_script_of_its_network_in_both_places() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let answer = get(&format!("/g8os.iso?netid={NETWORK}"));
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/x-iso9660-image"));
    std::fs::write(at("g8os.iso"), &answer.body).unwrap();
    let boots = run("xorriso", &["-indev", &at("g8os.iso"), "-report_el_torito", "plain"]);
    assert!(boots.contains("BIOS") && boots.contains("UEFI"), "{boots}");
    let partitions = run("xorriso", &["-indev", &at("g8os.iso"), "-report_system_area", "plain"]);
    assert!(partitions.contains("GPT") && partitions.contains("isohybrid"), "{partitions}");
    run("xorriso", &["-osirrox", "on", "-indev", &at("g8os.iso"), "-extract", "/", &at("files")]);
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    let script = get(&format!("/ipxe/{NETWORK}")).body;
    assert_eq!(read("files/boot.ipx"), script);
    run("mcopy", &["-i", &at("files/efi.img"), "::autoexec.ipxe", "::EFI/BOOT/BOOTX64.EFI", &at("")]);
    assert_eq!(read("autoexec.ipxe"), script);
    let part = |name: &str| std::fs::read(served().images.join(build::PARTS).join(name)).unwrap();
    assert!(read("files/ipxe.krn") == part("ipxe.krn") && read("BOOTX64.EFI") == part("ipxe.efi"));
    assert!(String::from_utf8(read("files/isolinux/isolinux.cfg")).unwrap().contains("INITRD /boot.ipx"));
}

#[test]
fn isos_of_two_networks_differ_in_their_numbers_alone_and_come_within_50_ms() {
    let of = |network: &str| get(&format!("/g8os.iso?netid={network}"));
    let [one, other, again] = [NETWORK, "ffffffffffffffff", NETWORK].map(of);
    let differ = one.body.iter().zip(&other.body).filter(|(a, b)| a != b).count();
    assert!(one.body.len() == other.body.len() && (1..=32).contains(&differ), "{differ}");
    assert!(one.body == again.body && one.header("etag") == again.header("etag"));
    assert_ne!(one.header("etag"), other.header("etag"));
    let took = (0..20).map(|_| {
        let began = Instant::now();
        of(NETWORK);
        began.elapsed()
    });
    let fastest = took.min().unwrap();
    eprintln!("an ISO of {} bytes in {:.1} ms", one.body.len(), fastest.as_secs_f64() * 1000.0);
    assert!(fastest <= Duration::from_millis(50), "{fastest:?}");
}

#[test]
fn kernel_and_initramfs_come_in_parts_and_not_again_when_they_are_known() {
    for (path, file) in [("/vmlinuz", "vmlinuz"), ("/initramfs", "initramfs-minimal.cpio.zst")] {
        let whole = get(path);
        let expected = std::fs::read(served().images.join(file)).unwrap();
        assert!(whole.status == 200 && whole.body == expected, "{path}");
        let etag = whole.header("etag").to_owned();
        assert!(etag.len() > 30 && whole.header("accept-ranges") == "bytes");
        let head = ask("HEAD", path, &[]);
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.header("content-length"), expected.len().to_string());
        let known = ask("GET", path, &[("If-None-Match", &etag)]);
        assert_eq!((known.status, known.body.len()), (304, 0));
        let middle = expected.len() / 2;
        let first = ask("GET", path, &[("Range", &format!("bytes=0-{}", middle - 1))]);
        let rest = ask("GET", path, &[("Range", &format!("bytes={middle}-")), ("If-Range", &etag)]);
        assert_eq!((first.status, rest.status), (206, 206));
        assert_eq!(
            rest.header("content-range"),
            format!("bytes {middle}-{}/{}", expected.len() - 1, expected.len())
        );
        assert!([first.body, rest.body].concat() == expected, "{path}");
        let changed = ask("GET", path, &[("Range", "bytes=1-2"), ("If-Range", "\"another\"")]);
        assert!(changed.status == 200 && changed.body == expected);
        let behind = ask("GET", path, &[("Range", &format!("bytes={}-", expected.len()))]);
        assert_eq!(
            (behind.status, behind.header("content-range")),
            (416, format!("bytes */{}", expected.len()).as_str())
        );
    }
}
