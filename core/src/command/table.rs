//! The one list of all commands.

use super::{Entry, job, logger, node, service, system};

/// Makes the table: `answer` rows are [`Command`](super::Command)s, `process` rows are
/// [`ProcessCommand`](super::ProcessCommand)s.
macro_rules! commands {
    ($($kind:ident $domain:ident: $($command:ident),+;)+) => {
        &[$($(Entry::$kind::<$domain::$command>()),+),+]
    };
}

/// Every command of a node.
pub static COMMANDS: &[Entry] = commands! {
    answer node: Ping, State, Reboot, PowerOff, Commands;
    answer logger: Subscribe, Listen, Unlisten;
    process system: System, Bash;
    answer job: List, Kill, KillAll, Unschedule;
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
