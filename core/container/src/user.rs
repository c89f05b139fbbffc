//! Whom the command runs as, by the image's own `/etc/passwd` and `/etc/group`.
//!
//! Both files come from the image, so they are opened inside its root whatever its symlinks say, must be
//! regular, and are read up to a limit. The rules are docker's: `name|uid[:group|gid]`; supplementary groups
//! only without a group.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::io::Errno;

const PASSWD: &str = "etc/passwd";
const GROUP: &str = "etc/group";
/// Real ones have a few KiB.
const FILE_MAX_BYTES: u64 = 1 << 20;
/// The largest id that the kernel's and the C library's types agree on.
const ID_MAX: u32 = i32::MAX.cast_unsigned();

/// A user of the container, by the ids inside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The user id.
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    /// The supplementary groups.
    pub groups: Vec<u32>,
    /// The home directory that the image knows, for the caller to put into `HOME`.
    pub home: Option<PathBuf>,
}

/// Why a user cannot be resolved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UserError {
    /// The image's user database cannot be read.
    #[error("cannot read /{file} of the image")]
    Unreadable {
        /// The file, relative to the image's root.
        file: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The image's user database is no regular file of a sane size.
    #[error("/{file} of the image is not a regular file of at most {FILE_MAX_BYTES} bytes")]
    Unusable {
        /// The file, relative to the image's root.
        file: &'static str,
    },
    /// No such name, nor is it an id.
    #[error("the image has no {kind} {name:?}")]
    Unknown {
        /// "user" or "group".
        kind: &'static str,
        /// What was asked for.
        name: String,
    },
}

/// Finds `name|uid[:group|gid]` in the image below `rootfs`. An empty user is root, an id needs no entry, and
/// a missing file has no entries.
pub fn resolve_user(rootfs: &Path, user: &str) -> Result<User, UserError> {
    let (user, group) = user.split_once(':').map_or((user, None), |(user, group)| (user, Some(group)));
    let group = group.filter(|group| !group.is_empty());
    let user = if user.is_empty() { "0" } else { user };

    let passwd = read(rootfs, PASSWD)?;
    let groups = read(rootfs, GROUP)?;
    let id = parse_id(user.as_bytes());
    let entry = accounts(&passwd).find(|entry| entry.name == user.as_bytes() || Some(entry.uid) == id);
    // Every image has a root, also one without files.
    let uid = entry.as_ref().map(|entry| entry.uid).or(id).or((user == "root").then_some(0));
    let uid = uid.ok_or_else(|| UserError::Unknown { kind: "user", name: user.to_owned() })?;

    let (gid, groups) = match group {
        Some(group) => (find_group(&groups, group)?, Vec::new()),
        None => match &entry {
            Some(entry) => (entry.gid, groups_of(&groups, entry.name)),
            None => (0, Vec::new()),
        },
    };
    Ok(User { uid, gid, groups, home: entry.and_then(|entry| entry.home) })
}

/// One line of `passwd(5)`.
struct Account<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: Option<PathBuf>,
}

/// The lines that are whole; others are passed over, as the C library does.
fn accounts(passwd: &[u8]) -> impl Iterator<Item = Account<'_>> {
    lines(passwd).filter_map(|fields| {
        let [name, _password, uid, gid, rest @ ..] = fields.as_slice() else { return None };
        let home = rest.get(1).filter(|home| home.starts_with(b"/"));
        Some(Account {
            name,
            uid: parse_id(uid)?,
            gid: parse_id(gid)?,
            home: home.map(|home| PathBuf::from(OsString::from_vec(home.to_vec()))),
        })
    })
}

/// Each whole line of `group(5)`: name, id, members.
fn groups(file: &[u8]) -> impl Iterator<Item = (&[u8], u32, &[u8])> {
    lines(file).filter_map(|fields| {
        let [name, _password, gid, members, ..] = *fields.as_slice() else { return None };
        Some((name, parse_id(gid)?, members))
    })
}

fn lines(file: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    file.split(|byte| *byte == b'\n').map(|line| line.split(|byte| *byte == b':').collect())
}

fn find_group(file: &[u8], group: &str) -> Result<u32, UserError> {
    let by_name = groups(file).find(|(name, _, _)| *name == group.as_bytes()).map(|(_, gid, _)| gid);
    let gid = by_name.or_else(|| parse_id(group.as_bytes())).or((group == "root").then_some(0));
    gid.ok_or_else(|| UserError::Unknown { kind: "group", name: group.to_owned() })
}

fn groups_of(file: &[u8], user: &[u8]) -> Vec<u32> {
    let is_member = |members: &[u8]| members.split(|byte| *byte == b',').any(|member| member == user);
    groups(file).filter(|(_, _, members)| is_member(members)).map(|(_, gid, _)| gid).collect()
}

/// Digits only: `parse` alone would take a sign.
fn parse_id(text: &[u8]) -> Option<u32> {
    let digits =
        std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok().filter(|id| *id <= ID_MAX)
}

/// The content of a file of the image.
fn read(rootfs: &Path, file: &'static str) -> Result<Vec<u8>, UserError> {
    let unreadable = |errno: Errno| UserError::Unreadable { file, source: errno.into() };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(rootfs, flags, Mode::empty()).map_err(unreadable)?;
    // Nonblocking, as a FIFO would keep us waiting for ever.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let opened = match openat2(&root, OsStr::new(file), flags, Mode::empty(), resolve) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
        opened => opened.map_err(unreadable)?,
    };
    let mode = fstat(&opened).map_err(unreadable)?.st_mode;
    if FileType::from_raw_mode(mode) != FileType::RegularFile {
        return Err(UserError::Unusable { file });
    }
    let mut content = Vec::new();
    let length = File::from(opened)
        .take(FILE_MAX_BYTES + 1)
        .read_to_end(&mut content)
        .map_err(|source| UserError::Unreadable { file, source })?;
    if length as u64 > FILE_MAX_BYTES {
        return Err(UserError::Unusable { file });
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    const PASSWD_TEXT: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:34::/srv:/bin/sh\n\
        odd:x:-1:0::/:\nbig:x:4294967295:0::/:\n1234:x:77:78::relative:\n";
    const GROUP_TEXT: &str =
        "root:x:0:\nweb:x:34:\nvideo:x:44:alice,web\naudio:x:45:web\nwebby:x:46:website\n";

    fn image() -> TempDir {
        let image = tempfile::tempdir().expect("tempdir");
        fs::create_dir(image.path().join("etc")).expect("mkdir");
        fs::write(image.path().join(PASSWD), PASSWD_TEXT).expect("write");
        fs::write(image.path().join(GROUP), GROUP_TEXT).expect("write");
        image
    }

    fn resolve(user: &str) -> Option<(u32, u32, Vec<u32>)> {
        resolve_user(image().path(), user).ok().map(|user| (user.uid, user.gid, user.groups))
    }

    #[test]
    fn names_and_ids_follow_dockers_rules() {
        assert_eq!(resolve(""), Some((0, 0, vec![])));
        assert_eq!(resolve("root"), Some((0, 0, vec![])));
        assert_eq!(resolve("web"), Some((33, 34, vec![44, 45])));
        assert_eq!(resolve("33"), Some((33, 34, vec![44, 45])), "an id brings its entry's groups");
        assert_eq!(resolve("33:"), Some((33, 34, vec![44, 45])));
        assert_eq!(resolve("web:video"), Some((33, 44, vec![])), "a group replaces all");
        assert_eq!(resolve(":video"), Some((0, 44, vec![])));
        assert_eq!(resolve("5000"), Some((5000, 0, vec![])), "an id needs no entry");
        assert_eq!(resolve("5000:6000"), Some((5000, 6000, vec![])));
        assert_eq!(resolve("1234"), Some((77, 78, vec![])), "a name of digits is a name first");
    }

    #[test]
    fn what_is_neither_name_nor_id_is_refused() {
        for user in
            ["nobody", "web:nobody", "odd", "big", "broken", "-1", "+5", "4294967295", "2147483648", "0:-1"]
        {
            assert_eq!(resolve(user), None, "{user}");
        }
    }

    #[test]
    fn the_home_is_the_entrys_when_it_is_absolute() {
        let image = image();
        let home = |user| resolve_user(image.path(), user).expect("known").home;
        assert_eq!(home("web"), Some(PathBuf::from("/srv")));
        assert_eq!((home("1234"), home("5000")), (None, None));
    }

    #[test]
    fn an_image_without_files_knows_root_and_ids() {
        let empty = tempfile::tempdir().expect("tempdir");
        let uid = |user| resolve_user(empty.path(), user).map(|user| user.uid).ok();
        assert_eq!((uid("root"), uid("7"), uid("web")), (Some(0), Some(7), None));
    }

    #[test]
    fn a_symlink_to_outside_is_resolved_inside() {
        let outside = tempfile::tempdir().expect("tempdir");
        let secret = outside.path().join("passwd");
        fs::write(&secret, "web:x:0:0::/:\n").expect("write");
        for target in
            [secret.clone(), PathBuf::from("../../../../../..").join(secret.strip_prefix("/").expect("/"))]
        {
            let image = image();
            fs::remove_file(image.path().join(PASSWD)).expect("remove");
            symlink(&target, image.path().join(PASSWD)).expect("symlink");
            let found = resolve_user(image.path(), "web");
            assert!(matches!(found, Err(UserError::Unknown { .. })), "{}: {found:?}", target.display());

            // A link that stays inside is followed.
            fs::write(image.path().join("etc/real"), PASSWD_TEXT).expect("write");
            fs::remove_file(image.path().join(PASSWD)).expect("remove");
            symlink("/etc/real", image.path().join(PASSWD)).expect("symlink");
            assert_eq!(resolve_user(image.path(), "web").expect("inside").uid, 33);
        }
    }

    #[test]
    fn a_file_that_is_endless_or_no_file_is_refused() {
        let image = image();
        let passwd = image.path().join(PASSWD);
        let refused =
            || matches!(resolve_user(image.path(), "web"), Err(UserError::Unusable { file: PASSWD }));
        fs::File::create(&passwd).and_then(|file| file.set_len(FILE_MAX_BYTES + 1)).expect("grow");
        assert!(refused(), "too large");
        fs::remove_file(&passwd).expect("remove");
        rustix::fs::mknodat(rustix::fs::CWD, &passwd, FileType::Fifo, Mode::from_raw_mode(0o644), 0)
            .expect("mkfifo");
        assert!(refused(), "a fifo, and nobody waits for its writer");
        fs::remove_file(&passwd).expect("remove");
        fs::create_dir(&passwd).expect("mkdir");
        assert!(refused(), "a directory");
    }
}
