//! The one list of all commands.

use super::{
    Entry, bridge, btrfs, config, corex, disk, filesystem, flist, info, ip, job, logger, nft, node, process,
    service, system,
};

/// Makes the table: `answer` rows are [`Command`](super::Command)s, `process` rows are
/// [`ProcessCommand`](super::ProcessCommand)s. `inside` rows are commands that a container carries out as well, `both` rows
/// are answered by the node for it; other commands are refused to containers.
macro_rules! commands {
    ($($kind:ident $domain:ident: $($command:ident),+;)+) => {
        &[$($(Entry::$kind::<$domain::$command>()),+),+]
    };
}

/// Every command of a node.
pub static COMMANDS: &[Entry] = commands! {
    both node: Ping;
    answer node: State, Reboot, PowerOff, Commands;
    answer logger: Subscribe, Listen, Unlisten;
    process system: System, Bash;
    inside info: Cpu, Mem, Disk, Nic, Os, Port;
    both info: Version;
    inside filesystem: Open, Read, Write;
    both filesystem: Close;
    inside filesystem: Exists, List, Mkdir, Remove, Move, Chmod, Chown;
    answer ip: LinkList, LinkUp, LinkDown, LinkName, LinkMtu;
    answer ip: AddrList, AddrAdd, AddrDel, RouteList, RouteAdd, RouteDel;
    answer ip: BridgeAdd, BridgeDel, BridgeAddIf, BridgeDelIf;
    answer bridge: Create, List, Delete;
    answer nft: OpenPort, DropPort, List, RuleExists;
    answer disk: List, GetInfo, MkTable, MkPart, RmPart, Mount, Umount;
    answer btrfs: List, Info, Create, DeviceAdd, DeviceRemove;
    answer btrfs: SubvolCreate, SubvolList, SubvolDelete, SubvolQuota, SubvolSnapshot;
    answer flist: Mount, Umount, List, Info;
    answer corex: Create, List, Get, Find, Terminate, Dispatch;
    inside process: List, Kill;
    answer config: Get;
    answer job: List, Kill, KillAll, Unschedule, Type, Query;
    answer service: List, Show, Start, Stop, Restart, Reload, Logs;
};

/// The command of this name.
pub fn find(name: &str) -> Option<&'static Entry> {
    COMMANDS.iter().find(|entry| entry.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_is_there_once_and_has_a_summary() {
        let names: BTreeSet<_> = COMMANDS.iter().map(|entry| entry.name).collect();
        assert_eq!(names.len(), COMMANDS.len());
        for entry in COMMANDS {
            assert!(entry.summary.ends_with('.'), "{}: {:?}", entry.name, entry.summary);
            assert!(std::ptr::eq(find(entry.name).unwrap(), entry));
        }
    }
}
