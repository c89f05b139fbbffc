//! Mounts of a bootstrap file as services: a manager's services over the real spawner, the real daemon of flists, and a server of
//! blocks. The file's text is given to them directly; `tests/boot.rs` has a machine fetch it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use core0::boot::bootstrap::document::Document;
use core0::boot::bootstrap::follow::State;
use core0::boot::bootstrap::mounts::{self, Mounts};
use core0::domain::flist::Noted;
use core0::log::Logs;
use core0::publish;
use core0::service::{Parts, ServiceState, Services, Status, Summary};
use core0::spawner::Spawner;
use g8_fs::pack::{PackOptions, Progress, pack};
use g8_fs::source::DirStore;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// How long anything may take before it is a hang.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where everything is, for the test as its own child, in whose environment the cache is.
const DIR: &str = "CORE0_TEST_MOUNTS";

/// The files of a node, its spawner, and a server with flists, below a folder.
struct Place {
    dir: PathBuf,
    url: String,
    processes: Vec<Child>,
}

impl Place {
    fn new(dir: &Path) -> Self {
        for name in ["run", "log", "services", "hold", "store"] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut place =
            Self { dir: dir.into(), url: format!("http://127.0.0.1:{port}"), processes: Vec::new() };
        // The daemon serves this as long as the test runs. It is that of `flist`, as this program is none.
        let held = place.packed("held");
        let mut mount = place.flist(&["mount", "--from", &format!("dir:{}/store", dir.display()), &held]);
        let mounted = mount.arg(dir.join("hold")).output().unwrap();
        assert!(mounted.status.success(), "{}", String::from_utf8_lossy(&mounted.stderr));
        let mut serve =
            place.flist(&["serve", "--from", &format!("dir:{}/store", dir.display()), "--listen"]);
        serve.arg(format!("127.0.0.1:{port}")).env("G8_CACHE", dir.join("server"));
        let mut spawner = Command::new(env!("CARGO_BIN_EXE_core0"));
        spawner.args(["spawner", "--grace", "0", "--socket"]).arg(place.socket());
        for process in [&mut serve, &mut spawner] {
            let child = process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            place.processes.push(child.unwrap());
        }
        let began = std::time::Instant::now();
        while !place.socket().exists() {
            assert!(began.elapsed() < PATIENCE, "the spawner does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        place
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("run/spawner.sock")
    }

    fn flist(&self, words: &[&str]) -> Command {
        let beside = || Path::new(env!("CARGO_BIN_EXE_core0")).with_file_name("flist");
        let program = std::env::var_os("FLIST_BIN").map_or_else(beside, PathBuf::from);
        assert!(program.is_file(), "no {}: build it with `cargo build -p flist-tools`", program.display());
        let mut flist = Command::new(program);
        flist.args(words);
        flist
    }

    /// A path of the node; the file may name it.
    fn at(&self, name: &str) -> PathBuf {
        self.dir.join("shown").join(name)
    }

    /// Which mount is there. The number of one that has ended is given again, unless somebody has a file of it open.
    fn mount_id(&self, name: &str) -> Option<String> {
        let (table, at) = (fs::read_to_string("/proc/self/mountinfo").unwrap(), self.at(name));
        let mut mounts = table.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        mounts.find(|mount| Path::new(mount[4]) == at).map(|mount| mount[0].into())
    }

    fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.at(name).join("file")).ok()
    }

    /// An flist with one file, which says its name, in a store.
    fn packed_into(&self, store: &str, name: &str) -> String {
        let tree = self.dir.join("trees").join(name);
        // Once: its times have a part in its address.
        if !tree.exists() {
            fs::create_dir_all(&tree).unwrap();
            fs::write(tree.join("file"), name).unwrap();
        }
        let store = DirStore::create(&self.dir.join(store)).unwrap();
        let (options, cancel) = (PackOptions::default(), AtomicBool::new(false));
        pack(&tree, &options, &store, &Progress::default(), &cancel).unwrap().cid.to_string()
    }

    /// The server has it.
    fn packed(&self, name: &str) -> String {
        self.packed_into("store", name)
    }

    /// What a file says.
    fn file(&self, sequence: u64, mounts: &[(&str, &str)]) -> State {
        let mount =
            |(flist, name): &(&str, &str)| format!("{{flist: {flist}, path: {}}}", self.at(name).display());
        let mounts: Vec<String> = mounts.iter().map(mount).collect();
        let text = format!(
            "sequence: {sequence}\narch: i64\nexpires: 2100-01-01T00:00:00Z\nsources: ['{}']\nmounts: [{}]\n",
            self.url,
            mounts.join(", ")
        );
        State { document: Some(Arc::new(Document::parse(text.as_bytes()).unwrap())), ..State::default() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = self.flist(&["umount"]).arg(self.dir.join("hold")).output();
    }
}

/// A manager. Dropping it is its sudden death.
struct Manager {
    runtime: Option<Runtime>,
    services: Arc<Services>,
    told: watch::Sender<State>,
    shown: watch::Receiver<Mounts>,
}

impl Manager {
    fn start(place: &Place, first: State) -> Self {
        let runtime = Runtime::new().unwrap();
        let (told, told_to) = watch::channel(first);
        let (tells, shown) = watch::channel(Mounts::new());
        let services = runtime.block_on(async {
            let (spawner, held) = Spawner::connect(&place.socket(), Path::new("/dev/null")).await.unwrap();
            let parts = Parts {
                spawner,
                logs: Arc::new(Logs::open(&place.dir.join("log"), publish::channel().0).unwrap()),
                units: place.dir.join("services"),
                notify_dir: place.dir.join("run"),
                cmdline: String::new(),
                processes: 1000,
                flists: Arc::new(Noted::new(place.dir.join("run/mounts"))),
            };
            let services = Arc::new(Services::new(parts));
            let name = |tag: String| tag.strip_prefix("service ").map(str::to_owned);
            let mut held: HashMap<_, _> =
                held.into_iter().filter_map(|(tag, child)| Some((name(tag)?, child))).collect();
            services.reload(&mut held).await.unwrap();
            // Mounts that units wait for do what they do as long as nobody tells them.
            let waits =
                |(name, status): (&String, &Status)| name.starts_with("mount:") && status.reason.is_empty();
            let began = std::time::Instant::now();
            while services.list().iter().any(waits) {
                assert!(began.elapsed() < PATIENCE, "{:#?}", services.list());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            let shows = services.clone();
            tokio::spawn(async move { mounts::show(&shows, told_to, &tells).await });
            services
        });
        Self { runtime: Some(runtime), services, told, shown }
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        let runtime = self.runtime.as_ref().unwrap();
        let waited = runtime.block_on(async { tokio::time::timeout(PATIENCE, work).await });
        waited.expect("that takes too long")
    }

    fn status(&self, name: &str) -> Option<Status> {
        self.services.list().remove(name)
    }

    #[track_caller]
    fn until_it_is(&self, name: &str, state: ServiceState) {
        self.until(&format!("{name} is {state}"), || self.status(name).is_some_and(|is| is.state == state));
    }

    #[track_caller]
    fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let began = std::time::Instant::now();
        while !holds() {
            assert!(
                began.elapsed() < PATIENCE,
                "not within {PATIENCE:?}: {what}\n{:#?}",
                self.services.list()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[test]
fn mounts_of_the_bootstrap_file_are_services() {
    match std::env::var_os(DIR) {
        Some(dir) => {
            let place = Place::new(Path::new(&dir));
            they_are_services(&place);
        }
        None => {
            let dir = tempfile::tempdir().unwrap();
            let again = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "mounts_of_the_bootstrap_file_are_services", "--nocapture"])
                .env(DIR, dir.path())
                .env("G8_CACHE", dir.path().join("cache"))
                .env("XDG_DATA_HOME", dir.path().join("data"))
                .env("G8_DEADLINE", "5")
                .env_remove("G8_FROM")
                .status();
            assert!(again.unwrap().success());
        }
    }
}

fn they_are_services(place: &Place) {
    use ServiceState::{Pausing, Ready, Stopped, Waiting};
    let names = ["app", "other", "missing"].map(|name| format!("mount:{}", place.at(name).display()));
    let [app_service, other_service, missing_service] = names.each_ref().map(String::as_str);
    let dir = place.dir.display();
    let script = format!(
        "cat {0} > {dir}/seen; trap \"cat {0} > {dir}/last; exit 0\" TERM; while :; do sleep 0.1; done",
        place.at("app/file").display()
    );
    let unit =
        format!("exec = ['sh', '-c', '''{script}''']\nafter = ['{app_service}']\nstop_timeout = 10.0\n");
    fs::write(place.dir.join("services/uses.toml"), unit).unwrap();

    // Before any file names the flist.
    let manager = Manager::start(place, State::default());
    manager.until_it_is(app_service, Waiting);
    let waits = format!("it comes after {app_service}, which is waiting");
    manager
        .until("who waits says for whom", || manager.status("uses").is_some_and(|uses| uses.reason == waits));
    assert_eq!(manager.status("uses").unwrap().state, Waiting);
    assert_eq!(manager.status(app_service).unwrap().reason, "the bootstrap file names no flist for it");
    let summary = Summary::of(&manager.services.list());
    assert_eq!(
        summary.to_string().split(", ").next(),
        Some(format!("0 of 2; {app_service}: waiting").as_str()),
        "{summary}"
    );

    let (app, other) = (place.packed("app"), place.packed("other"));
    let missing = place.packed_into("elsewhere", "missing");
    let named = [(app.as_str(), "app"), (&other, "other"), (&missing, "missing")];
    manager.told.send_replace(place.file(1, &named));
    for name in [app_service, other_service, "uses"] {
        manager.until_it_is(name, Ready);
    }
    manager.until("who waited has what it waited for", || {
        fs::read_to_string(place.dir.join("seen")).is_ok_and(|seen| seen == "app")
    });
    assert_eq!(place.read("other").as_deref(), Some("other"));

    // The one that no source has is told of, tried again, and holds up nobody.
    manager.until("the missing one was tried again", || {
        manager.status(missing_service).is_some_and(|status| status.restarts > 1 && status.state == Pausing)
    });
    let why = manager.status(missing_service).unwrap().reason;
    assert!(why.contains(&missing), "{why}");
    let how = |name: &str| manager.shown.borrow()[&place.at(name).display().to_string()].clone();
    manager.until("who told of it is told", || how("missing") == why && how("app") == "mounted");

    // They are stopped and started like others, and stay stopped; and what is somewhere now heals.
    manager.wait(manager.services.stop(other_service)).unwrap();
    assert_eq!(place.read("other"), None);
    manager.wait(manager.services.start(other_service)).unwrap();
    manager.until_it_is(other_service, Ready);
    // Also one that cannot be unmounted: who stops it is told, and the next manager does it. What is noted cannot be read here.
    let (notes, aside) = (place.dir.join("run/mounts"), place.dir.join("run/aside"));
    fs::rename(&notes, &aside).unwrap();
    fs::write(&notes, "no folder").unwrap();
    for _ in 0..2 {
        let refused = manager.wait(manager.services.stop(other_service)).unwrap_err().to_string();
        assert!(refused.contains("is not stopped yet: it stays mounted"), "{refused}");
    }
    assert_eq!(place.read("other").as_deref(), Some("other"));
    drop(manager);
    fs::remove_file(&notes).unwrap();
    fs::rename(&aside, &notes).unwrap();
    let manager = Manager::start(place, place.file(1, &named));
    manager.until_it_is(other_service, Stopped);
    assert_eq!(place.read("other"), None);
    assert_eq!(place.packed("missing"), missing);
    manager.until_it_is(missing_service, Ready);
    assert_eq!(place.read("missing").as_deref(), Some("missing"));
    manager.until_it_is("uses", Ready);
    let before = (manager.status("uses").unwrap().pid, place.mount_id("app"));
    let open = fs::File::open(place.at("app")).unwrap();
    drop(manager);
    let manager = Manager::start(place, place.file(1, &named));
    manager.until_it_is(app_service, Ready);
    let after = (manager.status("uses").unwrap().pid, place.mount_id("app"));
    assert_eq!(after, before, "it runs on, and what it uses stays");
    drop(open);
    manager.until_it_is(other_service, Stopped);
    manager.wait(manager.services.start(other_service)).unwrap();
    manager.until_it_is(other_service, Ready);
    // What somebody else unmounts comes back.
    let unmounted = place.flist(&["umount"]).arg(place.at("other")).output().unwrap();
    assert!(unmounted.status.success(), "{}", String::from_utf8_lossy(&unmounted.stderr));
    manager.until("it is there again", || place.read("other").is_some());

    // Another flist for one path, and none any more for another, which is told while no manager runs.
    drop(manager);
    let manager = Manager::start(place, place.file(2, &[(&app, "app"), (&other, "missing")]));
    manager.until("the other one has its place", || place.read("missing").as_deref() == Some("other"));
    manager.until("the service is gone", || manager.status(other_service).is_none());
    assert_eq!(place.read("other"), None);
    let other_place = place.at("other").display().to_string();
    manager.until("nobody is told of it", || !manager.shown.borrow().contains_key(&other_place));
    manager.wait(manager.services.stop(other_service)).unwrap_err();
    // And while one runs. Who uses it goes on, and waits for it when it is started again.
    manager.told.send_replace(place.file(3, &[(&other, "missing")]));
    manager.until_it_is(app_service, Waiting);
    assert_eq!(place.read("app"), None);
    assert_eq!(manager.status("uses").unwrap().state, Ready);
    manager.wait(manager.services.restart("uses")).unwrap();
    manager.until_it_is("uses", Waiting);
    manager.told.send_replace(place.file(4, &[(&app, "app"), (&other, "missing")]));
    manager.until_it_is("uses", Ready);
    manager.until("it has started", || {
        fs::read_to_string(place.dir.join("seen")).is_ok_and(|seen| seen == "app")
    });

    // In order: who uses it ends before it.
    fs::remove_file(place.dir.join("last")).ok();
    manager.wait(manager.services.stop_all(Duration::from_secs(30)));
    assert_eq!(fs::read_to_string(place.dir.join("last")).ok().as_deref(), Some("app"));
    assert_eq!((place.read("app"), place.read("missing")), (None, None));
    assert_eq!(fs::read_dir(place.dir.join("run/mounts")).unwrap().count(), 0, "something is noted still");
}
