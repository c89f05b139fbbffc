//! What a server says, judged: what of it is used, and what is left out because nobody can use it.

use std::net::Ipv4Addr;

use mozim::DhcpV4Lease;

use super::DhcpError;
use crate::argument::shown;
use crate::boot::network::plan::{DOMAINS, RESOLVERS};
use crate::boot::network::setting::{Route, Setting, is_domain};
use crate::sys::netlink::Cidr;

/// Most routes of a lease, beside the one to everywhere.
const ROUTES: usize = 64;

/// What becomes of a lease. One without an address that a machine can have is none.
pub fn judge(lease: &DhcpV4Lease) -> Result<Setting, DhcpError> {
    let prefix = prefix(lease.subnet_mask)
        .ok_or_else(|| DhcpError::Absurd(format!("the netmask {}", lease.subnet_mask)))?;
    let address = Cidr { address: lease.yiaddr.into(), prefix };
    if !is_host(lease.yiaddr) || !address.is_host() {
        return Err(DhcpError::Absurd(format!("the address {address}")));
    }
    let mut left_out = Vec::new();
    let routes = routes(lease, address, &mut left_out);
    let mut keep = |fits: bool, what: String| {
        if !fits {
            left_out.push(what);
        }
        fits
    };
    let resolvers = lease.dns_srvs.iter().flatten();
    let resolvers = resolvers.filter(|server| keep(is_host(**server), format!("the resolver {server}")));
    let resolvers = resolvers.map(|resolver| (*resolver).into()).take(RESOLVERS).collect();
    let domains = lease.domain_search.iter().flatten().chain(&lease.domain_name);
    let domains = domains.filter(|domain| keep(is_domain(domain), format!("the domain {}", shown(domain))));
    let domains = domains.take(DOMAINS).cloned().collect();
    Ok(Setting { address, routes, resolvers, domains, left_out })
}

/// The routes in an order in which the kernel takes them: what is on the link, what routers there lead to, and the way to
/// everywhere.
fn routes(lease: &DhcpV4Lease, own: Cidr, left_out: &mut Vec<String>) -> Vec<Route> {
    // Who gives classless routes means them instead of routers (RFC 3442).
    let given: Vec<(Option<Cidr>, Ipv4Addr)> = match &lease.classless_routes {
        Some(routes) => routes
            .iter()
            .filter(|route| route.prefix_length <= 32)
            .map(|route| {
                (Cidr { address: route.destination.into(), prefix: route.prefix_length }, route.router)
            })
            .map(|(cidr, router)| (Some(cidr).filter(|cidr| cidr.prefix > 0), router))
            .collect(),
        None => lease.gateways.iter().flatten().take(1).map(|router| (None, *router)).collect(),
    };
    let (mut on_link, mut by_router, mut everywhere) = (Vec::new(), Vec::new(), None);
    for (destination, router) in given {
        // In a classless route it means that there is none.
        let is_on_link = router.is_unspecified() && lease.classless_routes.is_some();
        if !is_on_link && (!is_host(router) || own.address == router) {
            left_out.push(format!("the router {router}"));
            continue;
        }
        let route = Route { destination, gateway: (!is_on_link).then(|| router.into()) };
        match destination {
            None => everywhere = everywhere.or(Some(route)),
            Some(_) if is_on_link => on_link.push(route),
            Some(_) => by_router.push(route),
        }
    }
    let many = on_link.len() + by_router.len();
    on_link.truncate(ROUTES);
    by_router.truncate(ROUTES - on_link.len());
    if many > ROUTES {
        left_out.push(format!("{} of {many} routes", many - ROUTES));
    }
    // The kernel asks no router for the way to another one. A cloud that gives each machine a network of its own has all of
    // them elsewhere.
    for gateway in by_router.iter().chain(&everywhere).filter_map(|route: &Route| route.gateway) {
        let is_there = |route: &Route| route.destination.is_some_and(|there| there.contains(gateway));
        if !own.contains(gateway) && !on_link.iter().any(is_there) {
            let destination = Some(Cidr { address: gateway, prefix: 32 });
            on_link.push(Route { destination, gateway: None });
        }
    }
    on_link.into_iter().chain(by_router).chain(everywhere).collect()
}

/// An address that a machine can have.
fn is_host(address: Ipv4Addr) -> bool {
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.octets()[0] >= 240)
}

/// The length of a netmask that is one.
fn prefix(mask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    let length = bits.leading_ones();
    (length > 0 && bits.count_ones() == length).then_some(length as u8)
}

#[cfg(test)]
mod tests {
    use mozim::DhcpV4ClasslessRoute;

    use super::*;

    fn sane() -> DhcpV4Lease {
        let mut lease = DhcpV4Lease::default();
        lease.yiaddr = [10, 0, 2, 15].into();
        lease.subnet_mask = [255, 255, 255, 0].into();
        lease.gateways = Some(vec![[10, 0, 2, 2].into()]);
        lease
    }

    /// The routes of a lease with these classless ones, `DESTINATION ROUTER`, as `ip` writes them, and what is left out.
    fn routed(mask: [u8; 4], routes: &[&str]) -> (Vec<String>, Vec<String>) {
        let mut lease = sane();
        lease.subnet_mask = mask.into();
        let route = |text: &&str| {
            let (destination, router) = text.split_once(' ').unwrap();
            let (destination, length) = destination.split_once('/').unwrap();
            DhcpV4ClasslessRoute {
                destination: destination.parse().unwrap(),
                prefix_length: length.parse().unwrap(),
                router: router.parse().unwrap(),
            }
        };
        lease.classless_routes = Some(routes.iter().map(route).collect());
        let setting = judge(&lease).unwrap();
        (setting.routes.iter().map(Route::to_string).collect(), setting.left_out)
    }

    #[test]
    fn a_lease_is_an_address_a_router_and_resolvers() {
        let mut given = sane();
        given.dns_srvs = Some((1..9).map(|last| [10, 0, 2, last].into()).collect());
        given.domain_name = Some("example.org".into());
        let lease = judge(&given).unwrap();
        assert_eq!(lease.address.to_string(), "10.0.2.15/24");
        assert_eq!(lease.gateway(), Some([10, 0, 2, 2].into()));
        assert_eq!((lease.resolvers.len(), lease.domains), (RESOLVERS, vec!["example.org".to_owned()]));
        assert_eq!(lease.left_out, Vec::<String>::new());
    }

    #[test]
    fn absurd_addresses_and_netmasks_are_refused() {
        let all = [[0, 0, 0, 0], [127, 0, 0, 1], [224, 0, 0, 1], [255, 255, 255, 255]];
        // The network itself, and all of its hosts.
        for address in all.into_iter().chain([[10, 0, 2, 0], [10, 0, 2, 255]]) {
            let mut lease = sane();
            lease.yiaddr = address.into();
            assert!(matches!(judge(&lease), Err(DhcpError::Absurd(_))), "{address:?}");
        }
        for mask in [[0, 0, 0, 0], [255, 0, 255, 0], [0, 255, 255, 255]] {
            let mut lease = sane();
            lease.subnet_mask = mask.into();
            assert!(matches!(judge(&lease), Err(DhcpError::Absurd(_))), "{mask:?}");
        }
    }

    #[test]
    fn what_would_write_other_lines_into_the_file_of_the_resolver_is_left_out_and_told() {
        let mut lease = sane();
        lease.domain_search = Some(["a.org", "x\nnameserver 6.6.6.6", "b c"].map(str::to_owned).to_vec());
        lease.dns_srvs = Some(vec![[0, 0, 0, 0].into()]);
        let lease = judge(&lease).unwrap();
        assert_eq!((lease.domains, lease.resolvers), (vec!["a.org".to_owned()], vec![]));
        let told = ["the resolver 0.0.0.0", "the domain \"x\\nnameserver 6.6.6.6\"", "the domain \"b c\""];
        assert_eq!(lease.left_out, told);
    }

    #[test]
    fn a_route_without_a_router_is_on_the_link_and_comes_before_those_that_need_it() {
        let given = ["0.0.0.0/0 10.0.0.1", "192.168.7.9/16 10.0.0.2", "10.0.0.0/30 0.0.0.0"];
        let (routes, left_out) = routed([255, 255, 255, 255], &given);
        assert_eq!(
            routes,
            ["10.0.0.0/30 on the link", "192.168.7.9/16 by 10.0.0.2", "everywhere by 10.0.0.1"]
        );
        assert_eq!(left_out, Vec::<String>::new());
        let everywhere = routed([255, 255, 255, 0], &["0.0.0.0/0 0.0.0.0"]).0;
        assert_eq!(everywhere, ["everywhere on the link"]);
    }

    #[test]
    fn a_router_that_is_not_in_the_network_is_on_the_link() {
        let given = ["0.0.0.0/0 172.31.1.1", "10.9.0.0/16 172.31.1.1", "10.8.0.0/16 10.0.2.3"];
        assert_eq!(
            routed([255, 255, 255, 0], &given).0,
            [
                "172.31.1.1/32 on the link",
                "10.9.0.0/16 by 172.31.1.1",
                "10.8.0.0/16 by 10.0.2.3",
                "everywhere by 172.31.1.1"
            ]
        );
        let mut lease = sane();
        lease.gateways = Some(vec![[172, 31, 1, 1].into()]);
        let routes: Vec<String> = judge(&lease).unwrap().routes.iter().map(Route::to_string).collect();
        assert_eq!(routes, ["172.31.1.1/32 on the link", "everywhere by 172.31.1.1"]);
    }

    #[test]
    fn routers_that_cannot_be_are_left_out_and_so_are_more_routes_than_a_node_takes() {
        let (routes, left_out) = routed(
            [255, 255, 255, 0],
            &["10.9.0.0/16 224.0.0.1", "10.8.0.0/16 10.0.2.15", "0.0.0.0/0 10.0.2.2"],
        );
        assert_eq!(routes, ["everywhere by 10.0.2.2"]);
        assert_eq!(left_out, ["the router 224.0.0.1", "the router 10.0.2.15"]);
        let many: Vec<String> = (0..200).map(|number| format!("10.{number}.0.0/16 10.0.2.2")).collect();
        let mut many: Vec<&str> = many.iter().map(String::as_str).collect();
        many.push("0.0.0.0/0 10.0.2.2");
        let (routes, left_out) = routed([255, 255, 255, 0], &many);
        assert_eq!((routes.len(), routes.last().unwrap().as_str()), (ROUTES + 1, "everywhere by 10.0.2.2"));
        assert_eq!(left_out, ["136 of 200 routes"]);
        // A router of 0.0.0.0 means nothing outside of classless routes.
        let mut lease = sane();
        lease.gateways = Some(vec![[0, 0, 0, 0].into()]);
        let lease = judge(&lease).unwrap();
        assert_eq!((lease.routes, lease.left_out), (vec![], vec!["the router 0.0.0.0".to_owned()]));
    }
}
