//! What the kernel was told that is meant for us. Everything else is the kernel's, or somebody else's.

use super::network::plan::Endpoint;

/// Longest command line that is looked at; the kernel's own limit on x86 is 2 KiB.
const MAX: usize = 64 << 10;

/// The arguments of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// `debug`: log what happens, not only what goes wrong.
    pub debug: bool,
    /// `redis.sha256=HASH`: the SHA-256 of the administrator's password. With it, redis listens on the network.
    pub redis_sha256: Option<String>,
    /// `bootstrap=URL`: where the node's bootstrap file is.
    pub bootstrap: Option<Endpoint>,
    /// Arguments of ours that have no sense, and why.
    pub refused: Vec<String>,
}

impl Arguments {
    /// Those of this machine.
    pub fn of_machine() -> Self {
        Self::parse(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default())
    }

    fn parse(cmdline: &str) -> Self {
        let mut arguments = Self::default();
        for word in cmdline.get(..MAX).unwrap_or(cmdline).split_ascii_whitespace() {
            match word.split_once('=') {
                None if word == "debug" => arguments.debug = true,
                Some(("redis.sha256", hash)) if is_hash(hash) => {
                    arguments.redis_sha256 = Some(hash.to_ascii_lowercase());
                }
                Some(("redis.sha256", _)) => {
                    arguments
                        .refused
                        .push("redis.sha256= is no SHA-256: it has 64 hexadecimal digits".into());
                }
                Some(("bootstrap", url)) => match url.parse() {
                    Ok(endpoint) => arguments.bootstrap = Some(endpoint),
                    Err(e) => arguments.refused.push(format!("bootstrap=: {e}")),
                },
                None | Some(_) => {}
            }
        }
        arguments
    }
}

/// Whether a text is a SHA-256.
pub fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_are_found_among_those_of_the_kernel() {
        let hash = "AB".repeat(32);
        let cmdline = format!("BOOT_IMAGE=/vmlinuz console=ttyS0 quiet debug redis.sha256={hash} panic=-1\n");
        let arguments = Arguments::parse(&cmdline);
        assert!(arguments.debug && arguments.refused.is_empty());
        assert_eq!(arguments.redis_sha256, Some("ab".repeat(32)));
        assert_eq!(Arguments::parse("quiet debugger x.debug"), Arguments::default());
    }

    #[test]
    fn a_bootstrap_url_that_is_none_is_told_and_not_taken() {
        let arguments = Arguments::parse("bootstrap=https://boot.example.org/g8os");
        assert_eq!(arguments.bootstrap.unwrap().to_string(), "https://boot.example.org:443");
        let arguments = Arguments::parse("bootstrap=ftp://x");
        assert!(arguments.bootstrap.is_none() && arguments.refused[0].contains("ftp://x"));
    }

    #[test]
    fn a_hash_that_is_none_opens_nothing_and_is_told() {
        for bad in ["", "abc", &"g".repeat(64), &"a".repeat(65)] {
            let arguments = Arguments::parse(&format!("redis.sha256={bad}"));
            assert_eq!((arguments.redis_sha256, arguments.refused.len()), (None, 1), "{bad}");
        }
    }
}
