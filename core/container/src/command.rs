//! The command's side, between its clone from PID 1 and its `execve`: gives up all that the command shall not
//! have.

use std::os::fd::OwnedFd;

use rustix::io::{Errno, Result};
use rustix::process::{chdir, getpid, setpgid, setsid};

use super::plan::{CommandPlan, Plan};
use super::report::Report;
use super::step::{Failure, Step};
use super::syscall;
use super::terminal::{self, Terminal};
use super::{EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND, EXIT_NOT_STARTED, confinement, link, privileges, signals};

/// Becomes the command; returns an exit code when that fails.
pub(super) fn run(plan: &Plan<'_>, command: &CommandPlan<'_>, link: &OwnedFd) -> i32 {
    if let Err(failure) = set_up(plan, command) {
        link::send_report(link, Report::Failed(failure));
        return EXIT_NOT_STARTED;
    }
    let errno = execute(command);
    link::send_report(link, Report::NotExecuted(errno));
    if is_absent(errno) { EXIT_NOT_FOUND } else { EXIT_NOT_EXECUTABLE }
}

/// COMMAND STEPS. The order matters; each says why it stands where it stands.
fn set_up(plan: &Plan<'_>, command: &CommandPlan<'_>) -> std::result::Result<(), Failure> {
    // Before the first output. SIGTTOU is still blocked, which the change of the foreground needs.
    Step::OwnTerminal.check(own_group(plan.terminal.as_ref()))?;
    if let Some(kept) = plan.capabilities {
        // Before the user changes, to whom the number of processes belongs.
        Step::LimitResources.check(privileges::limit_resources())?;
        // While root: a change of the user clears them, and what the bounding set lost no setuid program
        // regains.
        Step::DropCapabilities.check(privileges::limit(kept))?;
    }
    // Groups, group, user: each needs the rights that the next one takes.
    Step::ChangeUser.check(privileges::change_user(command))?;
    if plan.capabilities.is_some() {
        Step::RefusePrivileges.check(rustix::thread::set_no_new_privs(true))?;
        // Needs no_new_privs, as the command may run without any capability by now.
        Step::ConfineWrites.check(confinement::confine_writes())?;
    }
    // As the user, so that its permissions decide.
    Step::EnterWorkdir.check(enter_workdir(plan))?;
    if let Some(filters) = plan.filters {
        // After all that needs calls which it refuses.
        Step::FilterCalls.check(filters.apply())?;
    }
    // Last: from here on a forwarded signal may kill us, as it may the command.
    Step::UnblockSignals.check(signals::unblock_all())
}

/// With a terminal: a group of its own in the foreground. Without: a session of its own, which may open one.
fn own_group(terminal: Option<&Terminal>) -> Result<()> {
    match terminal {
        Some(_) => {
            setpgid(None, None)?;
            terminal::claim(getpid())
        }
        None => setsid().map(drop),
    }
}

fn enter_workdir(plan: &Plan<'_>) -> Result<()> {
    plan.workdirs.last().map_or(Ok(()), |workdir| chdir(workdir.as_c_str()))
}

/// Tries the candidates as `execvp` does: the first that exists decides, but one that may not be executed
/// lets the next ones try. No shell is tried for a file of unknown format: the kernel's answer is the better
/// message.
fn execute(plan: &CommandPlan<'_>) -> Errno {
    let mut answer = Errno::NOENT;
    for program in &plan.programs {
        match syscall::execute(program, &plan.argv, &plan.env) {
            Errno::ACCESS => answer = Errno::ACCESS,
            errno if is_absent(errno) => {}
            errno => return errno,
        }
    }
    answer
}

fn is_absent(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR)
}
