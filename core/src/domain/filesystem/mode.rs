//! How a file is opened: the letters of Python's `open`, as two generations of clients use them.

use std::str::FromStr;

use rustix::fs::OFlags;

/// A mode of letters: one of `r`, `w` and `a`, with `+` for both ways and `x` to make a file that is missing.
///
/// `x` beside another letter is no O_EXCL: old clients upload with `wx`, over what is there. Alone, as in `x` and `x+`, it
/// is what it is in Python: the file must be new. `+` alone is `r+`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenMode(OFlags);

impl OpenMode {
    /// Flags of open(2), without those that every file gets.
    pub fn flags(self) -> OFlags {
        self.0
    }
}

impl FromStr for OpenMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || {
            let start: String = text.chars().take(16).collect();
            format!(
                "mode {start:?} is none: one of r, w and a, then + to read and write, x to make a missing file"
            )
        };
        let (mut way, mut plus, mut create) = (None, false, false);
        for letter in text.chars() {
            let seen = match letter {
                'r' | 'w' | 'a' => way.replace(letter).is_some(),
                '+' => std::mem::replace(&mut plus, true),
                'x' => std::mem::replace(&mut create, true),
                // Every file is one of bytes.
                'b' => false,
                _ => true,
            };
            if seen {
                return Err(refused());
            }
        }
        let mut flags = match (way, create) {
            (Some('w'), _) => OFlags::CREATE | OFlags::TRUNC,
            (Some('a'), _) => OFlags::CREATE | OFlags::APPEND,
            (Some(_), true) => OFlags::CREATE,
            (None, true) => OFlags::CREATE | OFlags::EXCL,
            (Some(_), false) => OFlags::empty(),
            (None, false) if plus => OFlags::empty(),
            (None, false) => return Err(refused()),
        };
        let writes = matches!(way, Some('w' | 'a')) || (way.is_none() && create);
        flags |= match (plus, writes) {
            (true, _) => OFlags::RDWR,
            (false, true) => OFlags::WRONLY,
            (false, false) => OFlags::RDONLY,
        };
        Ok(OpenMode(flags))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(text: &str) -> OFlags {
        text.parse::<OpenMode>().unwrap().flags()
    }

    #[test]
    fn letters_mean_what_they_mean_in_python() {
        assert_eq!(flags("r"), OFlags::RDONLY);
        assert_eq!(flags("rb"), OFlags::RDONLY);
        assert_eq!(flags("r+"), OFlags::RDWR);
        assert_eq!(flags("w"), OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC);
        assert_eq!(flags("w+"), OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC);
        assert_eq!(flags("a"), OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND);
        assert_eq!(flags("x"), OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL);
        assert_eq!(flags("x+"), OFlags::RDWR | OFlags::CREATE | OFlags::EXCL);
    }

    #[test]
    fn what_old_clients_send_overwrites() {
        assert_eq!(flags("wx"), flags("w"));
        assert_eq!(flags("ax"), flags("a"));
        assert_eq!(flags("r+x"), OFlags::RDWR | OFlags::CREATE);
        assert_eq!(flags("+"), OFlags::RDWR);
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for text in ["", "rw", "wa", "ww", "++", "xx", "t", "b", "r\0", &"r".repeat(1 << 20)] {
            assert!(text.parse::<OpenMode>().is_err(), "{text:.10}");
        }
    }
}
