//! The file of the resolver, resolv.conf(5): there whole, or as it was before.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

/// Without them the C library waits 5 s for the first server, twice: longer than anybody waits for a name. With three that
/// do not answer these are 7 s.
const OPTIONS: &str = "options timeout:1 attempts:2";

/// Writes it.
pub fn write(path: &Path, resolvers: &[IpAddr], domains: &[String]) -> io::Result<()> {
    let mut text = String::new();
    if !domains.is_empty() {
        writeln!(text, "search {}", domains.join(" ")).map_err(io::Error::other)?;
    }
    for resolver in resolvers {
        writeln!(text, "nameserver {resolver}").map_err(io::Error::other)?;
    }
    writeln!(text, "{OPTIONS}").map_err(io::Error::other)?;
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        write(&path, &[IpAddr::from([10, 0, 2, 3])], &["a.org".into(), "b.org".into()]).unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            format!("search a.org b.org\nnameserver 10.0.2.3\n{OPTIONS}\n")
        );
        write(&path, &[], &[]).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{OPTIONS}\n"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
