//! `ip.*`: links, addresses, routes and plain bridges.

mod address;
mod bridge;
mod link;
mod route;

use rustix::io::Errno;

pub use address::{AddrAdd, AddrDel, AddrList};
pub use bridge::{BridgeAdd, BridgeAddIf, BridgeDel, BridgeDelIf};
pub use link::{LinkDown, LinkList, LinkMtu, LinkName, LinkUp};
pub use route::{RouteAdd, RouteDel, RouteList};

use super::CommandError;
use crate::domain::ip::IpError;
use crate::sys::netlink;

impl From<IpError> for CommandError {
    fn from(error: IpError) -> Self {
        let message = error.to_string();
        match error {
            IpError::Netlink(error) => error.into(),
            IpError::NoBridge(_) | IpError::TwoFamilies(..) => CommandError::bad_request(message),
            IpError::NoPort { .. } | IpError::NoRoute(_) => CommandError::not_found(message),
            IpError::ManyRoutes { .. } => CommandError::conflict(message),
        }
    }
}

impl From<netlink::Error> for CommandError {
    fn from(error: netlink::Error) -> Self {
        let message = error.to_string();
        match error {
            netlink::Error::NoLink(_) => CommandError::not_found(message),
            netlink::Error::Refused(_, errno) => {
                let error = match errno {
                    Errno::EXIST => CommandError::conflict(message),
                    Errno::NODEV | Errno::ADDRNOTAVAIL | Errno::SRCH => CommandError::not_found(message),
                    Errno::INVAL | Errno::NETUNREACH | Errno::RANGE => CommandError::bad_request(message),
                    Errno::BUSY | Errno::NETDOWN => CommandError::precondition(message),
                    Errno::OPNOTSUPP | Errno::PERM => CommandError::not_acceptable(message),
                    _ => CommandError::internal(message),
                };
                error.because(errno)
            }
            netlink::Error::Socket(source) => CommandError::internal(message).because(source),
            netlink::Error::Broken(..) | netlink::Error::Silent(..) => CommandError::internal(message),
        }
    }
}
