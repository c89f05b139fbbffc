//! A store next door that serves a place over HTTP.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::flists::flist_program;
use crate::harness::signal;
use crate::place::Place;

/// `flist serve` of the store of a place.
pub struct Gateway(Child, String);

impl Gateway {
    pub fn of(place: &Place) -> Self {
        Self::listening(place, "127.0.0.1:0")
    }

    /// At the address that one before had.
    pub fn again(self, place: &Place) -> Self {
        let address = self.1.trim_start_matches("http://").to_owned();
        drop(self);
        Self::listening(place, &address)
    }

    fn listening(place: &Place, address: &str) -> Self {
        let mut child = Command::new(flist_program())
            .args(["serve", "--listen", address, "--no-cache"])
            .env("G8_FROM", &place.storage)
            .env("G8_CACHE", place.node.dir.join("cache of the gateway"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.split_whitespace().find(|word| word.starts_with("http://"));
        let url = url.unwrap_or_else(|| panic!("{line:?}")).to_owned();
        Self(child, url)
    }

    pub fn url(&self) -> &str {
        &self.1
    }

    pub fn signal(&self, number: i32) {
        signal(self.0.id() as i32, number);
    }

    /// Nobody listens there from here on.
    pub fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.end();
    }
}
