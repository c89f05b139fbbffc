//! From bytes that a process printed to messages with a level. Pure: knows no pipes and no jobs.

use serde::{Deserialize, Serialize};

use super::level;

/// Longest line; a longer one becomes several.
const LINE_MAX: usize = 64 << 10;
/// Most bytes of a message of several lines. A longer one ends there, and its other lines are plain ones.
const BLOCK_MAX: usize = 512 << 10;

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// How it is meant.
    pub level: u16,
    /// What, without a line end.
    pub text: String,
    /// How many bytes of the stream there are up to its end.
    pub end: u64,
}

/// The messages of one stream of a process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Messages {
    /// The level of lines that name none.
    plain: u16,
    /// A line whose end has not come.
    line: Vec<u8>,
    /// A message of several lines whose end has not come.
    block: Option<Message>,
    /// Bytes up to the end of the last line.
    end: u64,
}

impl Messages {
    /// Of a stream whose plain lines have this level.
    pub fn new(plain: u16) -> Self {
        Self { plain, line: Vec::new(), block: None, end: 0 }
    }

    /// How many bytes were taken.
    pub fn fed(&self) -> u64 {
        self.end + self.line.len() as u64
    }

    /// Takes what was read.
    pub fn feed(&mut self, mut bytes: &[u8], found: &mut impl FnMut(Message)) {
        while let Some(end) = bytes.iter().position(|&b| b == b'\n') {
            let (line, rest) = bytes.split_at(end);
            self.add(line, found);
            self.end_line(1, found);
            bytes = &rest[1..];
        }
        self.add(bytes, found);
    }

    /// Takes the end of the stream.
    pub fn finish(&mut self, found: &mut impl FnMut(Message)) {
        if !self.line.is_empty() {
            self.end_line(0, found);
        }
        if let Some(block) = self.block.take() {
            found(block);
        }
    }

    fn add(&mut self, mut bytes: &[u8], found: &mut impl FnMut(Message)) {
        while self.line.len() + bytes.len() > LINE_MAX {
            let (now, rest) = bytes.split_at(LINE_MAX - self.line.len());
            self.line.extend_from_slice(now);
            self.end_line(0, found);
            bytes = rest;
        }
        self.line.extend_from_slice(bytes);
    }

    /// The line ends here, with so many bytes that are no part of it.
    fn end_line(&mut self, end: u64, found: &mut impl FnMut(Message)) {
        self.end += self.line.len() as u64 + end;
        let end = self.end;
        let line = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        match self.block.take() {
            Some(block) => self.go_on(Message { end, ..block }, &line, found),
            None => match prefix(&line) {
                Some((level, text, true)) => match text.strip_suffix(":::") {
                    Some(text) => found(Message { level, text: text.into(), end }),
                    None => self.block = Some(Message { level, text: text.into(), end }),
                },
                Some((level, text, false)) => found(Message { level, text: text.into(), end }),
                None => found(Message { level: self.plain, text: line, end }),
            },
        }
    }

    /// One more line of a message of several. The last one may be empty, as `:::` often stands alone.
    fn go_on(&mut self, mut block: Message, line: &str, found: &mut impl FnMut(Message)) {
        let (text, ended) = line.strip_suffix(":::").map_or((line, false), |text| (text, true));
        if block.text.len() + text.len() >= BLOCK_MAX {
            found(block);
            return found(Message { level: self.plain, text: line.into(), end: self.end });
        }
        if !(ended && text.is_empty()) {
            if !block.text.is_empty() {
                block.text.push('\n');
            }
            block.text.push_str(text);
        }
        match ended {
            true => found(block),
            false => self.block = Some(block),
        }
    }
}

/// `LEVEL::text` or `LEVEL:::text`: the level, the text, and whether more lines follow.
fn prefix(line: &str) -> Option<(u16, &str, bool)> {
    let digits = line.bytes().take(3).take_while(u8::is_ascii_digit).count();
    let level: u16 = line[..digits].parse().ok().filter(|level| level::is_known(*level))?;
    let rest = line[digits..].strip_prefix("::")?;
    Some(match rest.strip_prefix(':') {
        Some(text) => (level, text, true),
        None => (level, rest, false),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(chunks: &[&[u8]]) -> Vec<(u16, String)> {
        let mut found = Vec::new();
        let mut messages = Messages::new(level::STDOUT);
        let mut add = |m: Message| found.push((m.level, m.text));
        for chunk in chunks {
            messages.feed(chunk, &mut add);
        }
        messages.finish(&mut add);
        found
    }

    fn of(level: u16, text: &str) -> (u16, String) {
        (level, text.to_string())
    }

    #[test]
    fn lines_without_a_level_have_that_of_their_stream() {
        let found = messages(&[b"one\ntw", b"o\n\nlast"]);
        assert_eq!(found, [of(1, "one"), of(1, "two"), of(1, ""), of(1, "last")]);
    }

    #[test]
    fn a_level_before_two_colons_is_of_one_line() {
        assert_eq!(messages(&[b"20::{}\n8::bad\n2::err"]), [of(20, "{}"), of(8, "bad"), of(2, "err")]);
    }

    #[test]
    fn a_level_before_three_colons_is_of_lines_up_to_three_colons() {
        assert_eq!(messages(&[b"20:::{\n\"a\":1\n}\n:::\nx"]), [of(20, "{\n\"a\":1\n}"), of(1, "x")]);
        assert_eq!(messages(&[b"20:::{\n}:::\n"]), [of(20, "{\n}")]);
        assert_eq!(messages(&[b"20:::one:::\n"]), [of(20, "one")]);
        assert_eq!(messages(&[b"20:::\nopen"]), [of(20, "open")]);
    }

    #[test]
    fn what_only_looks_like_a_level_is_text() {
        for text in ["2001::1", "12::x", "::1", "1:x", "999::x", "1 ::x"] {
            assert_eq!(messages(&[text.as_bytes()]), [of(1, text)]);
        }
    }

    #[test]
    fn any_bytes_are_cut_and_bounded() {
        let found = messages(&[&vec![b'x'; 3 * LINE_MAX + 1], b"\n\xff\xfe\0\n"]);
        assert_eq!(
            found.iter().map(|(_, text)| text.len()).collect::<Vec<_>>()[..4],
            [LINE_MAX, LINE_MAX, LINE_MAX, 1]
        );
        assert_eq!(found[4].1, "\u{fffd}\u{fffd}\0");
        let block = [b"20:::".as_slice(), &b"yyyyyyyyy\n".repeat(2 * BLOCK_MAX / 10)].concat();
        let found = messages(&[&block]);
        assert!(found[0].0 == 20 && found[0].1.len() <= BLOCK_MAX);
        let bytes: usize = found.iter().map(|(_, text)| text.len()).sum();
        assert!(bytes >= 2 * BLOCK_MAX / 10 * 9, "{bytes}: what does not fit into a block is lost");
        assert!(found[1..].iter().all(|message| *message == of(1, "yyyyyyyyy")));
    }

    #[test]
    fn a_message_knows_where_in_the_stream_it_ends_however_it_was_read() {
        let bytes = b"one\n20:::{\n}\n:::\nlast";
        for size in 1..bytes.len() {
            let mut ends = Vec::new();
            let mut messages = Messages::new(level::STDOUT);
            bytes.chunks(size).for_each(|chunk| messages.feed(chunk, &mut |m: Message| ends.push(m.end)));
            messages.finish(&mut |m: Message| ends.push(m.end));
            assert_eq!(ends, [4, 17, 21], "in pieces of {size}");
        }
    }
}
