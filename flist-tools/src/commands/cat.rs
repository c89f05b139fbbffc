//! `flist cat REF PATH...`: print files.

use std::io::Write;

use g8_fs::paths::Last;

use crate::cli::{CatArgs, Global};
use crate::session::Session;

pub fn run(global: &Global, args: &CatArgs) -> anyhow::Result<()> {
    let session = Session::open(global, &args.reference)?;
    let mut out = std::io::stdout().lock();
    for path in &args.paths {
        let inode = session.find(path, Last::Follow)?;
        let written = if inode.is_file() {
            session.contents(&inode, |_, bytes| Ok(out.write_all(bytes)?))
        } else {
            Err(anyhow::anyhow!("is not a regular file"))
        };
        written.map_err(|e| e.context(path.display().to_string()))?;
    }
    Ok(out.flush()?)
}
