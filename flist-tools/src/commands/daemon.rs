//! `flist daemon`: the process that `mount` starts. It says `ready` on stdout, or why not, and closes it.

use g8_fs::daemon::run_process;

use crate::cli::Global;
use crate::defaults;

pub fn run(global: &Global) -> anyhow::Result<()> {
    run_process(defaults::engine(global)?)
}
