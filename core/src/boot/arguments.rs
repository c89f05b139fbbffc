//! What the kernel was told that is meant for us. Everything else is the kernel's, or somebody else's.

use super::network::plan::Endpoint;

/// Longest command line that is looked at; the kernel's own limit on x86 is 2 KiB.
const MAX: usize = 64 << 10;
/// Where it is.
const CMDLINE: &str = "/proc/cmdline";

/// The arguments of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// `debug`: log what happens, not only what goes wrong.
    pub debug: bool,
    /// `redis.sha256=HASH`: the SHA-256 of the administrator's password. With it, redis listens on the network.
    pub redis_sha256: Option<String>,
    /// `bootstrap=URL`: where the node's bootstrap file is.
    pub bootstrap: Option<Endpoint>,
    /// `zerotier=NETID`: the overlay network to join.
    pub zerotier: Option<String>,
    /// Arguments of ours that have no sense, and why.
    pub refused: Vec<String>,
}

impl Arguments {
    /// Those of this machine.
    pub fn of_machine() -> Self {
        match std::fs::read(CMDLINE) {
            Ok(bytes) => Self::of(&bytes),
            Err(e) => {
                Self { refused: vec![format!("no argument is known: {CMDLINE}: {e}")], ..Self::default() }
            }
        }
    }

    fn of(bytes: &[u8]) -> Self {
        let mut arguments = Self::parse(&String::from_utf8_lossy(bytes));
        if std::str::from_utf8(bytes).is_err() {
            arguments.refused.push(format!("{CMDLINE} is not UTF-8: what is not stands as \u{fffd}"));
        }
        arguments
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
                Some(("zerotier", network)) if is_network(network) => {
                    arguments.zerotier = Some(network.to_ascii_lowercase());
                }
                Some(("zerotier", network)) => {
                    let why = "is no network: it has 16 hexadecimal digits";
                    arguments.refused.push(format!("zerotier={network:.40} {why}"));
                }
                None | Some(_) => {}
            }
        }
        arguments
    }
}

/// What the kernel was told, for conditions of services.
pub fn cmdline() -> String {
    // What is wrong with it is said by who reads the arguments of a node.
    std::fs::read(CMDLINE).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// Whether a text is the number of an overlay network.
pub fn is_network(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit())
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
    fn the_number_of_a_network_is_taken_and_what_is_none_is_told() {
        let arguments = Arguments::parse("quiet zerotier=8056C2E21C000001");
        assert_eq!(arguments.zerotier.as_deref(), Some("8056c2e21c000001"));
        assert!(arguments.refused.is_empty());
        for bad in ["", "8056c2e21c00000", "8056c2e21c0000011", "8056c2e21c00000g"] {
            let arguments = Arguments::parse(&format!("zerotier={bad}"));
            assert_eq!((arguments.zerotier, arguments.refused.len()), (None, 1), "{bad}");
            assert!(arguments.refused[0].contains("16 hexadecimal digits"));
        }
    }

    #[test]
    fn a_byte_that_is_no_text_takes_no_other_argument_away_and_is_told() {
        let arguments = Arguments::of(b"quiet x=\xff\xfe debug zerotier=8056c2e21c000001\n");
        assert!(arguments.debug && arguments.zerotier.is_some());
        assert!(arguments.refused[0].contains("is not UTF-8"), "{:?}", arguments.refused);
        assert!(Arguments::of(b"quiet debug\n").refused.is_empty());
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
