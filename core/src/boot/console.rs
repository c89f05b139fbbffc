//! The console of a machine: a line for each change of a stage, and a page with all of them when the boot is through.
//!
//! A console can be slow, or stand still for ever when nobody reads a serial line: a thread of its own writes to it, and
//! what does not fit into its queue is dropped.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::mpsc::{SyncSender, sync_channel};

use parking_lot::Mutex;

use super::STAGES;
use super::line::{State, line};

/// Most lines that wait to be written.
const QUEUE: usize = 256;
/// Longest line.
const LINE_MAX: usize = 300;

/// See the module's text.
pub struct Console {
    lines: SyncSender<String>,
    states: Mutex<BTreeMap<&'static str, State>>,
}

impl Console {
    /// The console of this machine.
    pub fn open() -> Self {
        Self::on(File::options().write(true).open("/dev/console").ok())
    }

    /// One on a file.
    pub(super) fn on(mut to: Option<File>) -> Self {
        let (lines, written) = sync_channel::<String>(QUEUE);
        // It ends with the last sender.
        std::thread::spawn(move || {
            for line in written {
                let Some(console) = &mut to else { continue };
                // A console that went away is no reason to stop.
                let _ = console.write_all(line.as_bytes());
            }
        });
        Self { lines, states: Mutex::default() }
    }

    /// A stage that was over before there was this console: PID 1 has told of it.
    pub fn is_done_already(&self, stage: &'static str) {
        self.states.lock().insert(stage, State::Done(String::new()));
    }

    /// A stage has changed.
    pub fn set(&self, stage: &'static str, state: State) {
        if self.states.lock().insert(stage, state.clone()).as_ref() != Some(&state) {
            self.say(&line(stage, &state));
        }
    }

    /// Says something that is no stage.
    pub fn say(&self, text: &str) {
        // Whatever came from elsewhere in it must not move the cursor.
        let plain: String = text.chars().filter(|c| !c.is_control()).take(LINE_MAX).collect();
        let _ = self.lines.try_send(format!("{}\r\n", plain.trim_end()));
    }

    /// All stages.
    pub fn page(&self) {
        let states = self.states.lock();
        self.say("");
        self.say(&format!("g8os {}", env!("CARGO_PKG_VERSION")));
        for stage in &STAGES {
            if let Some(state) = states.get(stage.name) {
                self.say(&format!("  {:<10} {state}", stage.name));
            }
        }
        self.say("");
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// What is written to the console until it is dropped.
    fn written(use_it: impl FnOnce(&Console)) -> String {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let console = Console::on(Some(writer.into()));
        use_it(&console);
        drop(console);
        let mut text = String::new();
        File::from(reader).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn changes_are_told_once_and_the_page_has_all_stages_in_order() {
        let text = written(|console| {
            console.is_done_already("pseudo_fs");
            console.set("network", State::Waits("a carrier on eth0".into()));
            console.set("network", State::Waits("a carrier on eth0".into()));
            console.set("network", State::Done("eth0 10.0.2.15/24".into()));
            console.set("drivers", State::Failed("no modprobe".into()));
            console.page();
        });
        assert_eq!(text.matches("a carrier").count(), 1, "{text}");
        let page = text.split("g8os ").nth(1).unwrap();
        let at = |word: &str| page.find(word).unwrap_or_else(|| panic!("{word} in {page}"));
        assert!(at("pseudo_fs") < at("drivers") && at("drivers") < at("10.0.2.15"));
    }

    #[test]
    fn what_comes_from_elsewhere_cannot_move_the_cursor_or_flood() {
        let text = written(|console| console.say(&format!("\x1b[2J\nname{}", "x".repeat(10_000))));
        assert!(text.starts_with("[2Jname") && text.len() <= LINE_MAX + 2, "{text}");
    }

    #[test]
    fn a_console_that_nobody_reads_holds_up_nobody() {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let console = Console::on(Some(writer.into()));
        for number in 0..100_000 {
            console.say(&number.to_string());
        }
        drop(reader);
    }
}
