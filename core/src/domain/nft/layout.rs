//! The table: its sets, and chains that are always the same.

use serde::{Deserialize, Serialize};

/// What happens to packets for the node that no rule accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum InputPolicy {
    /// They come in: other tables may still drop them.
    #[default]
    Accept,
    /// They are dropped: only open ports, answers, ICMP and what bridges need comes in.
    Drop,
}

/// A script that makes the table, or puts an existing one right without losing an element of it.
///
/// A network behind NAT is reached from its own bridge (`nat_home`), by answers, and by forwarded ports; nobody on the
/// outside starts a connection into it. Its packets keep their address on their own bridge and get the node's elsewhere.
///
/// A forwarded port (`forwards`) of any address of the node leads to a container. Who asks from outside keeps its address
/// there. The node itself and neighbours on the same bridge get the node's (`targets`), or the answer would go past the
/// node. For 127.0.0.1 the bridge lets packets with such addresses pass (`route_localnet`), so `martians` drops all that
/// come in with one: a container must not reach what listens on the loopback of the node, nor seem to be the node.
pub fn script(policy: InputPolicy) -> String {
    let policy = match policy {
        InputPolicy::Accept => "accept",
        InputPolicy::Drop => "drop",
    };
    format!(
        "add table inet core0
add set inet core0 open {{ type inet_service; }}
add set inet core0 open_link {{ type ifname . inet_service; }}
add set inet core0 open_net {{ type ipv4_addr . inet_service; flags interval; }}
add set inet core0 open_link_net {{ type ifname . ipv4_addr . inet_service; flags interval; }}
add set inet core0 open_net6 {{ type ipv6_addr . inet_service; flags interval; }}
add set inet core0 open_link_net6 {{ type ifname . ipv6_addr . inet_service; flags interval; }}
add set inet core0 networks {{ type ifname; }}
add set inet core0 nat {{ type ipv4_addr; flags interval; }}
add set inet core0 nat_home {{ type ipv4_addr . ifname; flags interval; }}
add map inet core0 forwards {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
add set inet core0 targets {{ type ipv4_addr . inet_proto . inet_service; }}
add chain inet core0 martians {{ type filter hook prerouting priority raw; policy accept; }}
add chain inet core0 prerouting {{ type nat hook prerouting priority dstnat; policy accept; }}
add chain inet core0 output {{ type nat hook output priority -100; policy accept; }}
add chain inet core0 input {{ type filter hook input priority filter; policy {policy}; }}
add chain inet core0 forward {{ type filter hook forward priority filter; policy accept; }}
add chain inet core0 postrouting {{ type nat hook postrouting priority srcnat; policy accept; }}
flush chain inet core0 martians
flush chain inet core0 prerouting
flush chain inet core0 output
flush chain inet core0 input
flush chain inet core0 forward
flush chain inet core0 postrouting
add rule inet core0 martians iif != lo ip saddr 127.0.0.0/8 drop
add rule inet core0 martians iif != lo ip daddr 127.0.0.0/8 drop
add rule inet core0 prerouting fib daddr type local dnat ip to meta l4proto . th dport map @forwards
add rule inet core0 output fib daddr type local dnat ip to meta l4proto . th dport map @forwards
add rule inet core0 input ct state established,related accept
add rule inet core0 input iif lo accept
add rule inet core0 input meta l4proto {{ icmp, ipv6-icmp }} accept
add rule inet core0 input iifname @networks udp dport {{ 53, 67 }} accept
add rule inet core0 input iifname @networks tcp dport 53 accept
add rule inet core0 input tcp dport @open accept
add rule inet core0 input iifname . tcp dport @open_link accept
add rule inet core0 input ip saddr . tcp dport @open_net accept
add rule inet core0 input iifname . ip saddr . tcp dport @open_link_net accept
add rule inet core0 input ip6 saddr . tcp dport @open_net6 accept
add rule inet core0 input iifname . ip6 saddr . tcp dport @open_link_net6 accept
add rule inet core0 forward ct state established,related accept
add rule inet core0 forward ct status dnat accept
add rule inet core0 forward ip daddr . iifname @nat_home accept
add rule inet core0 forward ip daddr @nat drop
add rule inet core0 postrouting ip daddr . meta l4proto . th dport @targets ct status dnat fib saddr type local masquerade
add rule inet core0 postrouting ip daddr . meta l4proto . th dport @targets ct status dnat ip saddr . oifname @nat_home masquerade
add rule inet core0 postrouting ip saddr . oifname @nat_home return
add rule inet core0 postrouting ip saddr @nat masquerade
"
    )
}
