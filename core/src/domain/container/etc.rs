//! What a container finds in `/etc` of its network: its names, and who knows the others.
//!
//! A file that the caller gives at the same place comes instead. With the node's network it has the node's files, as they are
//! when it is made.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use g8_container::{ConfigFile, Covered};

use crate::domain::container_net::Attached;

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Most bytes of a file of the node.
const FILE_MAX: u64 = 256 << 10;

/// The files of a container with a network of its own, or with the node's. Files of the caller come last.
pub async fn files(
    hostname: &str,
    network: Option<&Attached>,
    given: &BTreeMap<PathBuf, String>,
) -> Vec<ConfigFile> {
    let usual = match network {
        Some(network) => vec![
            file("/etc/hostname", format!("{hostname}\n").into_bytes()),
            file(HOSTS, hosts(hostname, network).into_bytes()),
            file(RESOLV_CONF, network.resolv_conf.clone().into_bytes()),
        ],
        None => of_the_node().await,
    };
    let given_files = given.iter().map(|(path, content)| ConfigFile {
        covered: Covered::Refused,
        ..file(path, content.clone().into_bytes())
    });
    usual.into_iter().filter(|file| !given.contains_key(&file.path)).chain(given_files).collect()
}

/// Each name of the container leads to its first address.
fn hosts(hostname: &str, network: &Attached) -> String {
    let own = network.address().map(|address| format!("{address} {hostname}\n"));
    let own = own.unwrap_or_else(|| format!("127.0.1.1 {hostname}\n"));
    format!("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n{own}")
}

/// What cannot be read is left as the image has it.
async fn of_the_node() -> Vec<ConfigFile> {
    let read = || {
        let files = [HOSTS, RESOLV_CONF].into_iter().filter_map(|path| match read(Path::new(path)) {
            Ok(content) => Some(file(path, content)),
            Err(error) => {
                tracing::warn!(%error, "a container with the network of the node does without its {path}");
                None
            }
        });
        files.collect()
    };
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut content)?;
    match content.len() as u64 > FILE_MAX {
        true => Err(io::ErrorKind::FileTooLarge.into()),
        false => Ok(content),
    }
}

/// One that the caller may show something else for.
fn file(path: impl Into<PathBuf>, content: Vec<u8>) -> ConfigFile {
    ConfigFile { path: path.into(), content, covered: Covered::Allowed }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str) -> Attached {
        let nic = crate::domain::container_net::AttachedNic {
            name: "eth0".into(),
            bridge: "core0".into(),
            hardware: [2, 0, 0, 0, 0, 1],
            address: Some(address.parse().unwrap()),
        };
        Attached { nics: vec![nic], ports: Vec::new(), resolv_conf: "nameserver 10.0.0.1\n".into() }
    }

    #[tokio::test]
    async fn a_container_knows_its_names_unless_the_caller_knows_better() {
        let network = network("10.0.0.2/24");
        let files = files("web", Some(&network), &BTreeMap::new()).await;
        let text = |path: &str| {
            let file = files.iter().find(|file| file.path == Path::new(path)).unwrap();
            String::from_utf8(file.content.clone()).unwrap()
        };
        assert!(text("/etc/hosts").ends_with("\n10.0.0.2 web\n"), "{}", text("/etc/hosts"));
        assert_eq!(text("/etc/resolv.conf"), "nameserver 10.0.0.1\n");
        let given = [(PathBuf::from("/etc/hosts"), "mine".to_owned())].into();
        let files = super::files("web", Some(&network), &given).await;
        let found: Vec<_> = files.iter().filter(|file| file.path == Path::new("/etc/hosts")).collect();
        // And one that nobody sees is no longer as good.
        let mine = ConfigFile { covered: Covered::Refused, ..file("/etc/hosts", b"mine".to_vec()) };
        assert_eq!(found, [&mine]);
    }

    #[tokio::test]
    async fn with_the_network_of_the_node_a_container_has_its_servers_and_names() {
        let files = files("web", None, &BTreeMap::new()).await;
        let hosts = files.iter().find(|file| file.path == Path::new("/etc/hosts")).unwrap();
        assert_eq!(hosts.content, std::fs::read("/etc/hosts").unwrap());
    }
}
