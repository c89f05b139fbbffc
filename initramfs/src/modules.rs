//! Modules of the kernel: those that a recipe names, with all that they need by their dependencies (`modules.dep`), by what
//! they ask for later (`modules.softdep`), and by names of the crypto layer (`modules.alias`).
//!
//! They are decompressed, since modprobe of a small node cannot, and otherwise untouched: their signature is at their end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use globset::GlobBuilder;

use crate::store::index_modules;
use crate::tool::ToolError;
use crate::tree::{Content, Node, PLAIN, Tree};

/// Largest module.
const MODULE_MAX: u64 = 256 << 20;
/// What depmod reads beside the modules, and modprobe for what is built in.
const LISTS: [&str; 3] = ["modules.order", "modules.builtin", "modules.builtin.modinfo"];

/// Why modules are not there.
#[derive(Debug, thiserror::Error)]
pub enum ModulesError {
    /// The recipe names some that the kernel does not have.
    #[error("this kernel has no module {}", .0.join(", "))]
    Missing(Vec<String>),
    /// A pattern is none.
    #[error("the recipe has a pattern of modules that is none")]
    Pattern(#[from] globset::Error),
    /// A file cannot be read or written.
    #[error("cannot read or write {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A module is compressed in a way that we do not know.
    #[error("{0} is compressed in an unknown way")]
    Compressed(String),
    /// depmod failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
}

/// What depmod knows of the modules of a kernel.
#[derive(Debug, Default)]
pub struct Index {
    /// Path by name.
    paths: BTreeMap<String, String>,
    /// Paths that a path needs.
    needs: BTreeMap<String, Vec<String>>,
    /// Names and aliases that a module asks for while it starts.
    soft: BTreeMap<String, Vec<String>>,
    /// Names of modules by alias, without those that are patterns for devices.
    aliases: BTreeMap<String, Vec<String>>,
    builtin: BTreeSet<String>,
}

impl Index {
    /// Reads the lists in `lib/modules/VERSION`.
    pub fn open(dir: &Path) -> Result<Self, ModulesError> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).map_err(|source| ModulesError::Io { path, source })
        };
        Ok(Self::parse(
            &read("modules.dep")?,
            &read("modules.softdep")?,
            &read("modules.alias")?,
            &read("modules.builtin")?,
        ))
    }

    fn parse(dep: &str, softdep: &str, alias: &str, builtin: &str) -> Self {
        let mut index = Self::default();
        for (path, needs) in dep.lines().filter_map(|line| line.split_once(':')) {
            index.paths.insert(name(path), path.to_owned());
            index.needs.insert(path.to_owned(), needs.split_whitespace().map(str::to_owned).collect());
        }
        for line in softdep.lines() {
            let mut words = line.split_whitespace();
            if let (Some("softdep"), Some(module)) = (words.next(), words.next()) {
                let soft = words.filter(|word| !word.ends_with(':')).map(str::to_owned);
                index.soft.entry(name(module)).or_default().extend(soft);
            }
        }
        for line in alias.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["alias", alias, module] = words[..]
                && !alias.contains(['*', '?', '['])
            {
                index.aliases.entry(plain(alias)).or_default().push(name(module));
            }
        }
        index.builtin = builtin.lines().map(name).collect();
        index
    }

    /// The paths of all modules that these need, themselves included, in order.
    pub fn select(&self, wanted: &[String]) -> Result<BTreeSet<String>, ModulesError> {
        let mut queue = Vec::new();
        let mut missing = Vec::new();
        for word in wanted {
            let found = match word.contains('/') {
                true => self.matching(word)?,
                false => self.named(word),
            };
            if found.is_empty() && !self.builtin.contains(&name(word)) {
                missing.push(word.clone());
            }
            queue.extend(found);
        }
        if !missing.is_empty() {
            return Err(ModulesError::Missing(missing));
        }
        let mut selected = BTreeSet::new();
        while let Some(path) = queue.pop() {
            queue.extend(self.needs.get(&path).into_iter().flatten().cloned());
            let soft = self.soft.get(&name(&path)).into_iter().flatten();
            let soft: Vec<String> = soft.flat_map(|word| self.named(word)).collect();
            if selected.insert(path) {
                queue.extend(soft);
            }
            queue.retain(|path| !selected.contains(path));
        }
        Ok(selected)
    }

    /// The paths of the modules that a word names: one by its name, or all that have this alias.
    fn named(&self, word: &str) -> Vec<String> {
        if let Some(path) = self.paths.get(&name(word)) {
            return vec![path.clone()];
        }
        let modules = self.aliases.get(&plain(word)).into_iter().flatten();
        modules.filter_map(|module| self.paths.get(module).cloned()).collect()
    }

    fn matching(&self, pattern: &str) -> Result<Vec<String>, ModulesError> {
        let glob = GlobBuilder::new(pattern).literal_separator(true).build()?.compile_matcher();
        Ok(self.needs.keys().filter(|path| glob.is_match(path)).cloned().collect())
    }
}

/// The name of a module from its name or path: `-` and `_` are one.
fn name(path: &str) -> String {
    let file = path.trim().rsplit('/').next().unwrap_or(path);
    plain(file.split_once(".ko").map_or(file, |(name, _)| name))
}

fn plain(word: &str) -> String {
    word.replace('-', "_")
}

/// Puts modules and their lists into a tree, below `/lib/modules/VERSION`. `work` is a folder for depmod.
pub fn install(
    from: &Path,
    version: &str,
    wanted: &[String],
    work: &Path,
    tree: &mut Tree,
) -> Result<usize, ModulesError> {
    let selected = Index::open(from)?.select(wanted)?;
    let base = work.join("lib/modules").join(version);
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ModulesError::Io { path, source }
    };
    for path in &selected {
        let to = base.join(uncompressed(path));
        fs::create_dir_all(to.parent().expect("a module lies in a folder")).map_err(io(&to))?;
        let source = from.join(path);
        let bytes = decompress(path, &fs::read(&source).map_err(io(&source))?)?;
        fs::write(&to, bytes).map_err(io(&to))?;
    }
    for list in LISTS {
        fs::copy(from.join(list), base.join(list)).map_err(io(&base.join(list)))?;
    }
    index_modules(work, version)?;
    for entry in walkdir::WalkDir::new(&base).sort_by_file_name() {
        let entry = entry.map_err(|e| ModulesError::Io { path: base.clone(), source: e.into() })?;
        let relative = entry.path().strip_prefix(work).expect("it was found below the folder");
        if let (true, Some(path)) = (entry.file_type().is_file(), relative.to_str()) {
            tree.insert(path, Node::File(Content::Path(entry.path().into()), PLAIN));
        }
    }
    Ok(selected.len())
}

fn uncompressed(path: &str) -> &str {
    path.find(".ko").map_or(path, |end| &path[..end + 3])
}

fn decompress(path: &str, bytes: &[u8]) -> Result<Vec<u8>, ModulesError> {
    let mut plain = Vec::new();
    let read = match path.rsplit('.').next() {
        Some("ko") => return Ok(bytes.to_vec()),
        Some("xz") => liblzma::read::XzDecoder::new(bytes).take(MODULE_MAX).read_to_end(&mut plain),
        Some("zst") => zstd::Decoder::new(bytes).and_then(|d| d.take(MODULE_MAX).read_to_end(&mut plain)),
        Some(_) | None => return Err(ModulesError::Compressed(path.into())),
    };
    read.map_err(|source| ModulesError::Io { path: path.into(), source })?;
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        Index::parse(
            "kernel/fs/btrfs/btrfs.ko.xz: kernel/lib/raid6.ko.xz kernel/crypto/xor.ko.xz\nkernel/lib/raid6.ko.xz:\n\
             kernel/crypto/xor.ko.xz:\nkernel/crypto/crc32c_generic.ko.xz:\nkernel/arch/x86/crc32c-intel.ko.xz:\n\
             kernel/net/a/one.ko.xz:\nkernel/net/a/b/two.ko.xz: kernel/net/a/one.ko.xz\n",
            "# Soft dependencies extracted from modules themselves.\nsoftdep btrfs pre: crc32c absent post: one\n\
             softdep one pre: btrfs\n",
            "# Aliases\nalias crc32c crc32c_generic\nalias crypto-crc32c crc32c_intel\nalias crypto-crc32c crc32c_generic\n\
             alias pci:v*d* one\n",
            "kernel/fs/fuse/fuse.ko\n",
        )
    }

    fn select(wanted: &[&str]) -> Vec<String> {
        let wanted: Vec<String> = wanted.iter().map(|word| (*word).to_owned()).collect();
        index().select(&wanted).unwrap().iter().map(|path| name(path)).collect()
    }

    #[test]
    fn a_module_brings_its_dependencies_softdeps_and_what_their_aliases_name() {
        // In circles too: btrfs asks for one, and one for btrfs.
        assert_eq!(select(&["btrfs"]).len(), 5);
        assert!(select(&["btrfs"]).contains(&"crc32c_generic".to_owned()));
        assert_eq!(select(&["crypto-crc32c"]), ["crc32c_intel", "crc32c_generic"]);
        assert!(select(&["crc32c_intel"]).contains(&"crc32c_intel".to_owned()));
    }

    #[test]
    fn patterns_stay_in_their_folder_unless_they_say_otherwise() {
        assert_eq!(index().matching("kernel/net/*/*").unwrap().len(), 1);
        assert_eq!(index().matching("kernel/net/**").unwrap().len(), 2);
    }

    #[test]
    fn what_is_built_in_is_there_and_what_is_not_there_is_named() {
        assert_eq!(select(&["fuse"]), [] as [&str; 0]);
        let wanted = ["fuse", "gone", "kernel/none/*"].map(str::to_owned);
        let error = index().select(&wanted).unwrap_err();
        assert_eq!(error.to_string(), "this kernel has no module gone, kernel/none/*");
    }

    #[test]
    fn modules_are_decompressed_and_nothing_else_changes() {
        let module = b"\x7fELF and a signature at the end~Module signature appended~\n".repeat(100);
        let mut xz = Vec::new();
        liblzma::read::XzEncoder::new(&module[..], 6).read_to_end(&mut xz).unwrap();
        assert_eq!(decompress("a.ko.xz", &xz).unwrap(), module);
        assert_eq!(decompress("a.ko.zst", &zstd::encode_all(&module[..], 3).unwrap()).unwrap(), module);
        assert_eq!(decompress("a.ko", &module).unwrap(), module);
        assert!(decompress("a.ko.xz", &xz[..xz.len() / 2]).is_err());
        assert!(matches!(decompress("a.ko.lz4", &xz), Err(ModulesError::Compressed(_))));
        assert_eq!(uncompressed("kernel/a/b.ko.xz"), "kernel/a/b.ko");
    }
}
