//! The last records, bounded in number and bytes.

use std::collections::VecDeque;

use super::Record;

/// Most records.
const COUNT: usize = 8192;
/// Most bytes of text.
const BYTES: usize = 4 << 20;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Ring {
    records: VecDeque<Record>,
    bytes: usize,
}

impl Ring {
    /// Adds the newest; the oldest make room.
    pub fn put(&mut self, record: Record) {
        self.bytes += record.text.len();
        self.records.push_back(record);
        while self.records.len() > COUNT || self.bytes > BYTES {
            let Some(oldest) = self.records.pop_front() else { return };
            self.bytes -= oldest.text.len();
        }
    }

    /// All of them, from the newest.
    pub fn newest_first(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().rev()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> Record {
        Record { time: 0, source: "job x".into(), level: 1, text: text.into(), place: None }
    }

    #[test]
    fn the_oldest_make_room_by_count_and_by_bytes() {
        let mut ring = Ring::default();
        for i in 0..COUNT + 10 {
            ring.put(record(&i.to_string()));
        }
        assert_eq!(ring.records.len(), COUNT);
        assert_eq!(&*ring.records[0].text, "10");
        ring.put(record(&"x".repeat(BYTES)));
        assert_eq!(ring.records.len(), 1);
        ring.put(record("y"));
        assert_eq!((ring.records.len(), ring.bytes), (1, 1));
    }
}
