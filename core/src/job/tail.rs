//! The last lines of a stream, which a result carries.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Most lines.
const LINES: usize = 100;
/// Most bytes.
const BYTES: usize = 256 << 10;

/// See the module's text.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Tail {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Tail {
    /// Adds a line; the oldest make room.
    pub fn put(&mut self, line: String) {
        self.bytes += line.len() + 1;
        self.lines.push_back(line);
        while self.lines.len() > LINES || self.bytes > BYTES {
            let Some(oldest) = self.lines.pop_front() else { return };
            self.bytes -= oldest.len() + 1;
        }
    }

    /// All lines, each with its end.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(self.bytes);
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_stay_within_their_bounds() {
        let mut tail = Tail::default();
        (0..LINES + 5).for_each(|i| tail.put(i.to_string()));
        assert!(tail.text().starts_with("5\n6\n") && tail.text().ends_with("104\n"));
        (0..LINES).for_each(|_| tail.put("x".repeat(60 << 10)));
        assert!(tail.text().len() <= BYTES);
        assert_eq!(tail.lines.len(), 4);
    }
}
