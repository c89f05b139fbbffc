//! The script by which iPXE loads a node (<https://ipxe.org/scripting>).

use super::{NetworkId, ServeError};

/// Stands where a network's number belongs. As long as one, and none.
pub const PLACE: &str = "G8OS-NETWORK-ID-";

/// A script without the number of a network.
#[derive(Clone, Debug)]
pub struct Script(String);

impl Script {
    /// One that loads from a server.
    pub fn new(url: &str, arguments: &str) -> Result<Self, ServeError> {
        let url = url.trim_end_matches('/');
        let breaks = |c: char| c.is_control() || c == '$';
        if url.is_empty() || url.contains(char::is_whitespace) || url.contains(breaks) {
            return Err(ServeError::Script(url.into()));
        }
        if arguments.contains(breaks) || arguments.contains(PLACE) || url.contains(PLACE) {
            return Err(ServeError::Script(arguments.into()));
        }
        // UEFI finds the initramfs by the name in the arguments. Whatever fails is tried again, for ever: there is nobody to ask.
        Ok(Self(format!(
            "#!ipxe\n:again\ndhcp || goto wait\n\
             kernel {url}/vmlinuz initrd=initramfs {arguments} zerotier={PLACE} || goto wait\n\
             initrd --name initramfs {url}/initramfs || goto wait\nboot\n\
             :wait\necho g8os: {url} does not answer, again in 5 s\nimgfree\nsleep 5\ngoto again\n"
        )))
    }

    /// As it is, with [`PLACE`] in it.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// That of a network.
    pub fn of(&self, network: &NetworkId) -> String {
        self.0.replace(PLACE, &network.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::network_id::DIGITS;

    #[test]
    fn a_script_has_the_number_once_and_the_place_for_it_is_no_number() {
        assert_eq!(PLACE.len(), DIGITS);
        assert!(PLACE.parse::<NetworkId>().is_err());
        let script = Script::new("http://10.0.2.2:8080/", "console=ttyS0 quiet").unwrap();
        let text = script.of(&"8056C2E21C000001".parse().unwrap());
        assert!(text.starts_with("#!ipxe\n") && !text.contains(PLACE));
        let kernel = "kernel http://10.0.2.2:8080/vmlinuz initrd=initramfs console=ttyS0 quiet zerotier=8056c2e21c000001 ";
        assert!(text.contains(kernel), "{text}");
    }

    #[test]
    fn what_would_become_another_line_or_a_setting_of_ipxe_is_refused() {
        for (url, arguments) in [
            ("http://a b", ""),
            ("http://a\nshell", ""),
            ("", ""),
            ("http://${x}", ""),
            ("http://a", "x\nshell"),
            ("http://a", "${x}"),
        ] {
            assert!(Script::new(url, arguments).is_err(), "{url:?} {arguments:?}");
        }
    }
}
