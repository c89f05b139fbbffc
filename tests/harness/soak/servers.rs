//! Sources that are no server of the harness: a gateway that is a process of ours, and archives on the disk.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::car::Car;
use crate::{Flist, Gateway, wait};

/// How long to wait for a port that was ours before.
const PORT_LIMIT: Duration = Duration::from_secs(60);

/// `flist serve` over a store, which can be killed and come back where it was.
pub(super) struct Served {
    publisher: Flist,
    url: String,
    running: Mutex<Option<Gateway>>,
}

impl Served {
    /// Over the store of `publisher`, by a user of its own.
    pub(super) fn by(publisher: &Flist) -> Served {
        let publisher = Flist::beside(publisher);
        let gateway = Gateway::with(&publisher, &["--no-cache"]);
        Served { url: gateway.url().to_owned(), running: Mutex::new(Some(gateway)), publisher }
    }

    pub(super) fn url(&self) -> String {
        self.url.clone()
    }

    /// It dies.
    pub(super) fn dies(&self) {
        drop(self.running.lock().expect("nothing in here panics").take());
    }

    /// It is there and says nothing.
    pub(super) fn hangs(&self) {
        self.told(Signal::STOP);
    }

    /// It is there and answers.
    pub(super) fn heals(&self) {
        self.told(Signal::CONT);
        let mut running = self.running.lock().expect("nothing in here panics");
        if running.is_none() {
            let address = self.url.trim_start_matches("http://");
            // Meanwhile a connection of somebody may have been given our port.
            wait::until("the port of a gateway is free", PORT_LIMIT, || TcpListener::bind(address).is_ok());
            *running = Some(Gateway::on(address, &self.publisher, &["--no-cache"]));
        }
    }

    fn told(&self, signal: Signal) {
        if let Some(gateway) = &*self.running.lock().expect("nothing in here panics") {
            kill_process(Pid::from_raw(gateway.pid()).expect("it runs"), signal)
                .expect("it is our own child");
        }
    }
}

/// A `car:` file. Bytes in the middle of one that is open are not turned: whoever opened it meanwhile would rightly take them
/// for damage for as long as it is mounted.
pub(super) struct Archive {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Archive {
    /// All that an flist in the store of `publisher` has.
    pub(super) fn of(publisher: &Flist, cid: &str, name: &str) -> Archive {
        let path = publisher.home().join(&format!("{name}.car"));
        let bytes = Car::of(publisher.store(), cid, |_| true).bytes;
        fs::write(&path, &bytes).expect("an archive");
        Archive { path, bytes }
    }

    pub(super) fn spec(&self) -> String {
        format!("car:{}", self.path.display())
    }

    /// All from `part` in 256 of it on is missing.
    pub(super) fn is_cut(&self, part: u64) {
        let cut = File::options().write(true).open(&self.path);
        // It may be away.
        let _ = cut.and_then(|file| file.set_len(self.bytes.len() as u64 * part / 256));
    }

    /// It has another name; who has it open does not care.
    pub(super) fn is_away(&self) {
        let _ = fs::rename(&self.path, self.path.with_extension("away"));
    }

    /// It is there and whole.
    pub(super) fn heals(&self) {
        let _ = fs::rename(self.path.with_extension("away"), &self.path);
        let file = File::options().write(true).open(&self.path).expect("it is back");
        let there = file.metadata().expect("it is open").len();
        file.write_all_at(&self.bytes[there as usize..], there).expect("it is whole again");
    }
}
