//! The tree of a system flist: what a node mounts on `/system` beside its image, so that it can be another one without another
//! image. `flist pack` makes the flist of it.
//!
//! Whoever gets in by these programs would go around the commands of the node, which are logged. So they are never in it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::assemble::{self, Programs};
use crate::build::{BuildError, Options, packages};
use crate::pool::Pool;
use crate::recipe::Recipe;
use crate::report;
use crate::store::Store;
use crate::tree::{Node, Tree};

/// Programs that are in no system flist, and what else begins so with a dash behind it, as `git-shell`.
const REFUSED: [&str; 9] = ["mc", "mcedit", "git", "ssh", "sshd", "scp", "sftp", "dropbear", "dbclient"];

/// What came out.
#[derive(Clone, Debug)]
pub struct Built {
    /// The folder.
    pub folder: PathBuf,
    /// Files, links and folders.
    pub entries: usize,
    /// Bytes of the files.
    pub bytes: u64,
}

/// Writes the tree of a recipe without a kernel to the folder `system` of the output.
pub fn build(options: &Options) -> Result<Built, BuildError> {
    let recipe = Recipe::load(&options.recipe)?;
    if recipe.kernel.is_some() {
        return Err(BuildError::NoSystem(options.recipe.clone()));
    }
    let output = |source| BuildError::Io { path: options.output.clone(), source };
    fs::create_dir_all(&options.output).map_err(output)?;
    let work = tempfile::tempdir_in(&options.output).map_err(output)?;
    let [stripped, written, old] = ["programs", "system", "old"].map(|name| work.path().join(name));
    fs::create_dir(&stripped).map_err(output)?;
    let programs = Programs { built: options.programs.clone(), stripped };
    let store = Store::open(&options.cache)?;
    let lock = packages(options, &recipe, &programs, &store)?;
    let step = report::step("taking files");
    let pool = Pool::open(&lock.packages, &store)?;
    let tree = assemble::assemble(&recipe, &pool, &programs)?.tree;
    if let Some(path) = refused(&tree) {
        return Err(BuildError::Refused { recipe: options.recipe.clone(), path: format!("/{path}") });
    }
    let bytes = write(&tree, &written)?;
    let entries = tree.iter().count();
    step.done(&format!("{entries} files and folders, {}", report::size(bytes)));

    // Whole, or as it was.
    let folder = options.output.join("system");
    match fs::rename(&folder, &old) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(output(e)),
        Ok(()) | Err(_) => {}
    }
    fs::rename(&written, &folder).map_err(output)?;
    Ok(Built { folder, entries, bytes })
}

/// The first program that does not belong in it.
fn refused(tree: &Tree) -> Option<&str> {
    let is = |path: &&str| {
        let name = path.rsplit('/').next().unwrap_or_default();
        let begins = |refused: &&str| name.strip_prefix(refused).is_some_and(|rest| rest.starts_with('-'));
        path.split('/').any(|part| part == "bin" || part == "sbin")
            && (REFUSED.contains(&name) || REFUSED.iter().any(begins))
    };
    tree.iter().map(|(path, _)| path).find(is)
}

/// Writes a tree down, and returns how many bytes its files have.
fn write(tree: &Tree, to: &Path) -> Result<u64, BuildError> {
    let mut bytes = 0;
    let folder = |path: &Path, mode| {
        DirBuilder::new().mode(mode).create(path)?;
        fs::set_permissions(path, PermissionsExt::from_mode(mode))
    };
    let mut node = |path: &Path, node: &Node| match node {
        Node::Folder(mode) => folder(path, *mode),
        Node::Link(target) => symlink(target, path),
        Node::File(content, mode) => {
            let content = content.read()?;
            bytes += content.len() as u64;
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(*mode).open(path)?;
            io::Write::write_all(&mut file, &content)?;
            file.set_permissions(PermissionsExt::from_mode(*mode))
        }
        // The console of a kernel that boots; a node has its own.
        Node::Device(..) => Ok(()),
    };
    let failed = |path: &Path| {
        let path = path.to_owned();
        |source| BuildError::Io { path, source }
    };
    fs::create_dir(to).map_err(failed(to))?;
    for (path, what) in tree.iter() {
        let path = to.join(path);
        node(&path, what).map_err(failed(&path))?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Content, EXECUTABLE};

    #[test]
    fn programs_that_let_somebody_in_are_refused_wherever_they_lie() {
        for (path, expected) in [
            ("/bin/mc", true),
            ("/usr/bin/git", true),
            ("/usr/local/bin/git-shell", true),
            ("/usr/sbin/sshd", true),
            ("/usr/bin/ssh-keygen", true),
            ("/opt/x/bin/dropbear", true),
            ("/usr/bin/mcopy", false),
            ("/usr/bin/gitlab", false),
            ("/usr/share/doc/git", false),
            ("/etc/ssh/ssh_config", false),
        ] {
            let mut tree = Tree::new();
            tree.insert(path, Node::File(Content::Bytes(Vec::new()), EXECUTABLE));
            assert_eq!(refused(&tree).is_some(), expected, "{path}");
        }
    }

    #[test]
    fn a_tree_is_written_with_its_modes_and_links_and_without_devices() {
        let folder = tempfile::tempdir().unwrap();
        let mut tree = Tree::new();
        tree.insert("/usr/bin/a", Node::File(Content::Bytes(b"abc".to_vec()), EXECUTABLE));
        tree.insert("/tmp", Node::Folder(0o1777));
        let to = folder.path().join("system");
        assert_eq!(write(&tree, &to).unwrap(), 3);
        let mode = |path: &str| fs::metadata(to.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("bin/a"), mode("tmp")), (0o755, 0o1777));
        assert_eq!(fs::read_link(to.join("bin")).unwrap(), Path::new("usr/bin"));
        assert!(fs::symlink_metadata(to.join("dev/console")).is_err());
    }
}
