//! Users and groups by name, from passwd(5) and group(5). The static binary has no NSS, and a node has no other users.

use super::FilesystemError;
use crate::sys::text;

/// Number of a user: its name, or the number itself.
pub fn user(name: &str) -> Result<u32, FilesystemError> {
    number("user", "/etc/passwd", name)
}

/// Number of a group: its name, or the number itself.
pub fn group(name: &str) -> Result<u32, FilesystemError> {
    number("group", "/etc/group", name)
}

fn number(kind: &'static str, file: &str, name: &str) -> Result<u32, FilesystemError> {
    // A node that boots from an initramfs may have neither file, and numbers do without.
    let table = text::read(file).unwrap_or_default();
    let found = find(&table, name).or_else(|| plain_number(name));
    found.ok_or_else(|| FilesystemError::NoName(kind, name.chars().take(64).collect()))
}

/// `name:password:number:...`
fn find(table: &str, name: &str) -> Option<u32> {
    // A name with the separator in it would match a name and its password.
    if name.is_empty() || name.contains(':') {
        return None;
    }
    table.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.split(':').nth(1)?.parse().ok())
}

/// The highest number means "leave it" to chown(2).
fn plain_number(name: &str) -> Option<u32> {
    let digits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
    name.parse().ok().filter(|n| digits && *n != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_users() {
        assert_eq!(user("root").unwrap(), 0);
        assert_eq!(group("root").unwrap(), 0);
        assert_eq!(user("12345").unwrap(), 12_345);
    }

    #[test]
    fn what_is_neither_is_nobody() {
        for name in ["", "roo", "-1", "+1", "4294967295", "4294967296", "no such user", "root:x"] {
            assert!(matches!(user(name), Err(FilesystemError::NoName(..))), "{name:?}");
        }
    }

    #[test]
    fn a_name_is_matched_as_a_whole() {
        let table = "daemon:x:1:1::/:/bin/sh\nda:x:7:7::/:/bin/sh\nbroken:x\n";
        assert_eq!(find(table, "da"), Some(7));
        assert_eq!(find(table, "broken"), None);
    }
}
