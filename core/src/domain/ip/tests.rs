use super::*;
use crate::sys::namespace::in_new_network;
use crate::sys::tool::Tool;

async fn ip(arguments: &str) -> String {
    Tool::new("ip").args(arguments.split(' ')).run().await.unwrap()
}

async fn link(name: &str) -> Link {
    links().await.unwrap().into_iter().find(|l| l.name == name).unwrap()
}

#[test]
fn links_change_as_iproute2_sees_them() {
    in_new_network(|| async {
        ip("link add v0 type veth peer name v1").await;
        assert_eq!((link("v0").await.kind.as_str(), link("v0").await.up), ("veth", false));
        set_up("v0").await.unwrap();
        set_mtu("v0", 1400).await.unwrap();
        assert!(link("v0").await.up);
        assert!(ip("link show v0").await.contains("mtu 1400"));
        set_down("v0").await.unwrap();
        rename("v0", "v2").await.unwrap();
        assert_eq!((link("v2").await.mtu, link("v2").await.up), (1400, false));
        let lo = link("lo").await;
        assert_eq!((lo.kind.as_str(), lo.mtu, lo.master.as_str()), ("device", 65_536, ""));
    });
}

#[test]
fn addresses_come_and_go() {
    in_new_network(|| async {
        ip("link add v0 type veth peer name v1").await;
        let (four, six): (Cidr, Cidr) = ("10.1.2.3/24".parse().unwrap(), "fd00::1/64".parse().unwrap());
        add_address("v0", four).await.unwrap();
        add_address("v0", six).await.unwrap();
        assert_eq!(addresses("v0").await.unwrap(), ["10.1.2.3/24", "fd00::1/64"]);
        assert!(ip("addr show v0").await.contains("inet 10.1.2.3/24 brd 10.1.2.255"));
        assert_eq!(addresses("v1").await.unwrap(), Vec::<String>::new());
        let twice = add_address("v0", four).await.unwrap_err();
        assert!(
            matches!(twice, IpError::Netlink(netlink::Error::Refused(_, rustix::io::Errno::EXIST))),
            "{twice:?}"
        );
        delete_address("v0", four).await.unwrap();
        assert_eq!(addresses("v0").await.unwrap(), ["fd00::1/64"]);
        assert!(delete_address("v0", four).await.is_err());
    });
}

#[test]
fn routes_are_added_listed_and_removed() {
    in_new_network(|| async {
        ip("link add v0 type veth peer name v1").await;
        ip("link set v0 up").await;
        ip("link set v1 up").await;
        ip("addr add 10.0.0.1/24 dev v0").await;
        ip("addr add fd00::1/64 dev v0 nodad").await;
        let gateway: IpAddr = "10.0.0.254".parse().unwrap();
        let six: IpAddr = "fd00::2".parse().unwrap();
        let far: Cidr = "192.168.7.9/16".parse().unwrap();
        let far_six: Cidr = "fd01::/16".parse().unwrap();
        add_route("v0", None, Some(gateway)).await.unwrap();
        add_route("v0", Some(far), None).await.unwrap();
        add_route("v0", Some(far_six), Some(six)).await.unwrap();
        let shown = ip("route show").await;
        assert!(shown.contains("default via 10.0.0.254 dev v0"), "{shown}");
        assert!(shown.contains("192.168.0.0/16 dev v0"), "{shown}");
        let route = |dst: &str, gw: &str| Route { dev: "v0".into(), dst: dst.into(), gw: gw.into() };
        let listed = routes().await.unwrap();
        for expected in [route("", "10.0.0.254"), route("192.168.0.0/16", ""), route("fd01::/16", "fd00::2")]
        {
            assert!(listed.contains(&expected), "{expected:?} is not in {listed:?}");
        }
        assert!(listed.iter().all(|r| !r.dst.starts_with("127.")), "local routes are listed: {listed:?}");
        delete_route("v0", None, Some(gateway)).await.unwrap();
        delete_route("v0", Some(far), None).await.unwrap();
        delete_route("v0", Some(far_six), None).await.unwrap();
        let left = routes().await.unwrap();
        assert!(left.iter().all(|r| r.gw.is_empty()), "{left:?}");
        let missing = delete_route("v0", Some(far), None).await.unwrap_err();
        assert!(matches!(missing, IpError::NoRoute(_)), "{missing:?}");
    });
}

#[test]
fn a_route_that_could_be_two_is_not_guessed() {
    in_new_network(|| async {
        ip("link add v0 type veth peer name v1").await;
        ip("link set v0 up").await;
        ip("addr add 10.0.0.1/24 dev v0").await;
        ip("route add 10.9.0.0/16 via 10.0.0.2 metric 1").await;
        ip("route add 10.9.0.0/16 via 10.0.0.3 metric 2").await;
        let far = Some("10.9.0.0/16".parse().unwrap());
        let many = delete_route("v0", far, None).await.unwrap_err();
        assert!(matches!(many, IpError::ManyRoutes { count: 2, .. }), "{many:?}");
        delete_route("v0", far, Some("10.0.0.3".parse().unwrap())).await.unwrap();
        assert!(ip("route show").await.contains("via 10.0.0.2"));
    });
}

#[test]
fn a_bridge_takes_ports_and_gives_them_back() {
    in_new_network(|| async {
        ip("link add v0 type veth peer name v1").await;
        add_bridge("br0", Some([2, 0, 0, 0, 0, 7])).await.unwrap();
        assert_eq!(
            (link("br0").await.kind.as_str(), link("br0").await.hwaddr.as_str()),
            ("bridge", "02:00:00:00:00:07")
        );
        add_port("br0", "v0").await.unwrap();
        assert_eq!(link("v0").await.master, "br0");
        let other = delete_port("br0", "v1").await.unwrap_err();
        assert!(matches!(other, IpError::NoPort { .. }), "{other:?}");
        delete_port("br0", "v0").await.unwrap();
        assert_eq!(link("v0").await.master, "");
        let no_bridge = delete_bridge("v0").await.unwrap_err();
        assert!(matches!(no_bridge, IpError::NoBridge(_)), "{no_bridge:?}");
        delete_bridge("br0").await.unwrap();
        assert!(links().await.unwrap().iter().all(|l| l.name != "br0"));
    });
}

#[test]
fn what_is_not_there_is_named() {
    in_new_network(|| async {
        let missing = [
            set_up("nic9").await.unwrap_err(),
            addresses("nic9").await.unwrap_err(),
            add_route("nic9", None, None).await.unwrap_err(),
            add_port("nic9", "lo").await.unwrap_err(),
        ];
        for error in missing {
            assert_eq!(error.to_string(), "no link nic9");
        }
        let two = add_route("lo", Some("10.0.0.0/8".parse().unwrap()), Some("::1".parse().unwrap())).await;
        assert!(matches!(two, Err(IpError::TwoFamilies(..))), "{two:?}");
    });
}
