//! Who may do what in the redis of a node: redis' users, one a line of its `users.acl`.
//!
//! A named user pushes to its own queue, and reads its own results, streams and listeners. It writes nothing else: what it
//! could leave behind in a key without a time to live would be in the way of all others, and for ever.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use crate::config::Config;
use crate::sys::text;

/// What a named user reads its keys with. Categories would give too much.
const READ: &str = "-@all +lrange +lindex +llen +exists +ttl +pttl +type +xread +xrange +xrevrange +xlen \
     +xinfo|stream +ping +echo +hello +auth +select +reset +quit +command +client|setname +client|getname +client|id";
/// Longest password.
const PASSWORD_MAX: usize = 4096;

/// The content of `users.acl`: core0 itself, the administrator, and whom the configuration names.
pub fn acl(own: &str, admin: &str, config: &Config) -> io::Result<String> {
    let mut lines = vec![
        format!("user core0 on >{own} ~* &* +@all"),
        administrator(admin, config.redis.password_sha256.as_deref()),
    ];
    for (name, user) in &config.users {
        let password = password(&user.password_file).map_err(|why| {
            let place = user.password_file.display();
            io::Error::new(why.kind(), format!("the password of user {name} in {place}: {why}"))
        })?;
        let read = format!("%R~result:{name}:* %R~stream:{name}:* %R~logger:{name}:*");
        let push = format!("(%W~core:user:{name} -@all +rpush)");
        lines.push(format!("user {name} on >{password} resetchannels {read} {READ} {push}"));
    }
    Ok(lines.join("\n") + "\n")
}

/// The line of the administrator, who may have a second password, by its SHA-256.
fn administrator(password: &str, other: Option<&str>) -> String {
    let other = other.map(|hash| format!(" #{hash}")).unwrap_or_default();
    // redis reads its append-only file in the name of this user: what it may not do is missing after a restart.
    format!("user default on >{password}{other} ~* resetchannels +@all -@admin -@dangerous +info")
}

/// The content of `users.acl` with another second password of the administrator.
pub fn with_administrator(acl: &str, password: &str, other: Option<&str>) -> String {
    let lines = acl.lines().map(|line| match line.starts_with("user default ") {
        true => administrator(password, other) + "\n",
        false => format!("{line}\n"),
    });
    lines.collect()
}

/// The users of `old` that are not the same in `new`.
pub fn changed(old: &str, new: &str) -> BTreeSet<String> {
    let kept: BTreeSet<&str> = new.lines().collect();
    let gone = old.lines().filter(|line| !kept.contains(line));
    gone.filter_map(|line| line.split(' ').nth(1)).map(str::to_owned).collect()
}

/// One word: redis reads its file by lines and blanks.
pub fn password(path: &Path) -> io::Result<String> {
    let text = text::read(path)?;
    let password = text.trim_end_matches('\n');
    let fault = match password {
        "" => "it is empty",
        long if long.len() > PASSWORD_MAX => "it is too long",
        odd if odd.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\u{FFFD}') => {
            "it has blanks or control characters, or is not UTF-8"
        }
        good => return Ok(good.to_owned()),
    };
    Err(io::Error::new(io::ErrorKind::InvalidData, fault))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Role;
    use crate::config::User;

    fn config(folder: &Path, users: &[(&str, &str)]) -> Config {
        let mut config = Config::default();
        for (name, secret) in users {
            let password_file = folder.join(name);
            std::fs::write(&password_file, secret).unwrap();
            config.users.insert((*name).into(), User { role: Role::Read, password_file });
        }
        config
    }

    #[test]
    fn who_changed_is_named_and_who_is_new_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let acl = |users: &[(&str, &str)]| acl("own", "admin", &config(dir.path(), users)).unwrap();
        let old = acl(&[("bob", "one"), ("eve", "one"), ("joe", "one\n")]);
        let new = acl(&[("amy", "one"), ("bob", "one"), ("joe", "two")]);
        assert_eq!(changed(&old, &new), BTreeSet::from(["eve".to_owned(), "joe".to_owned()]));
        assert_eq!(changed(&old, &old), BTreeSet::new());
        assert_eq!(changed("", &new), BTreeSet::new());
    }

    #[test]
    fn a_password_is_one_word() {
        let dir = tempfile::tempdir().unwrap();
        for wrong in ["", "\n", "a b", "a\u{a0}b", "a\0b", "a\nuser eve on", &"x".repeat(5000)] {
            let error = acl("own", "admin", &config(dir.path(), &[("bob", wrong)])).unwrap_err();
            assert!(error.to_string().starts_with("the password of user bob in "), "{wrong:?}: {error}");
        }
        let config = config(dir.path(), &[]);
        let users = [("eve".to_owned(), User { role: Role::Read, password_file: dir.path().join("none") })];
        let config = Config { users: users.into(), ..config };
        assert_eq!(acl("own", "admin", &config).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
