//! What an image or a system flist holds: a TOML file. One recipe can extend another one beside it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Longest recipe.
const FILE_MAX: u64 = 1 << 20;
/// Longest chain of recipes that extend each other.
const DEPTH: u32 = 4;

/// A recipe, with all that it extends: `extends` names the recipe beside it whose contents come first.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// zstd's level for the initramfs.
    #[serde(default)]
    pub level: i32,
    /// The kernel. A system flist, which is mounted and not booted, has none.
    #[serde(default)]
    pub kernel: Option<Kernel>,
    /// Packages, each with patterns of the files that are taken from it. Libraries come by themselves.
    #[serde(default)]
    pub packages: BTreeMap<String, Vec<String>>,
    /// Our own programs: name in the folder of programs, path in the image.
    #[serde(default)]
    pub programs: BTreeMap<String, String>,
    /// The program that has applets, one link each. It is run with `--list-full` to name them.
    #[serde(default)]
    pub applets: Option<String>,
    /// Folders and their modes, in octal.
    #[serde(default)]
    pub folders: BTreeMap<String, String>,
    /// Symbolic links and where they lead.
    #[serde(default)]
    pub links: BTreeMap<String, String>,
    /// Small files and their text.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Files that are others put together: path, and a pattern of files of packages.
    #[serde(default)]
    pub joined: BTreeMap<String, String>,
    /// What the media are made with; nothing of it is in the initramfs. They go with a kernel.
    #[serde(default)]
    pub media: Option<Media>,
}

/// The kernel and its modules.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// The package that depends on the newest kernel.
    pub package: String,
    /// What is appended to the name of the release for its suite, as `backports`.
    pub suite: String,
    /// Its arguments, where a medium has no way to ask for others.
    pub arguments: String,
    /// Names of modules, or patterns of paths below `/lib/modules/VERSION` (what has a slash). What they need comes too.
    pub modules: Vec<String>,
}

/// What boot media are made with.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Media {
    /// Packages that have it. One of another release has that behind it, as `ipxe/trixie`.
    pub packages: Vec<String>,
    /// The stub that makes a kernel an EFI program.
    pub stub: String,
    /// isolinux' loader, for a BIOS that boots a CD.
    pub isolinux: String,
    /// What isolinux loads first.
    pub ldlinux: String,
    /// isolinux' boot sector, for a BIOS that boots the same image from a disk.
    pub boot_sector: String,
    /// iPXE as a Linux kernel would be loaded, for a BIOS.
    pub ipxe_bios: String,
    /// iPXE as an EFI program. It looks for a script beside itself.
    pub ipxe_efi: String,
}

impl Media {
    /// All files that are taken from its packages.
    pub fn files(&self) -> [&str; 6] {
        [&self.stub, &self.isolinux, &self.ldlinux, &self.boot_sector, &self.ipxe_bios, &self.ipxe_efi]
    }
}

/// A recipe that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// It cannot be read.
    #[error("cannot read the recipe {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no TOML, or has wrong fields.
    #[error("{path} is no recipe: {fault}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        fault: String,
    },
}

impl Recipe {
    /// Reads a recipe and what it extends.
    pub fn load(path: &Path) -> Result<Self, RecipeError> {
        let mut merged = toml::Table::new();
        let mut chain = vec![read(path)?];
        while let Some(base) = chain.last_mut().and_then(|table| table.remove("extends")) {
            let base = base.as_str().unwrap_or_default().to_owned();
            if chain.len() as u32 > DEPTH || Path::new(&base).components().count() != 1 {
                return Err(fault(path, format!("it cannot extend {base:?}")));
            }
            chain.push(read(&path.with_file_name(format!("{base}.toml")))?);
        }
        for table in chain.into_iter().rev() {
            merge(&mut merged, table);
        }
        let recipe: Self = merged.try_into().map_err(|e: toml::de::Error| fault(path, e.to_string()))?;
        if recipe.kernel.is_some() != recipe.media.is_some() {
            return Err(fault(
                path,
                "[kernel] and [media] go together: an image has both, a system flist none",
            ));
        }
        match recipe.folders.values().find(|mode| u32::from_str_radix(mode, 8).is_err()) {
            Some(mode) => Err(fault(path, format!("{mode:?} is no mode in octal"))),
            None => Ok(recipe),
        }
    }

    /// All packages that have to be there.
    pub fn wanted(&self) -> Vec<&str> {
        let media = self.media.iter().flat_map(|media| &media.packages);
        self.packages.keys().chain(media).map(String::as_str).collect()
    }
}

fn read(path: &Path) -> Result<toml::Table, RecipeError> {
    let failed = |source| RecipeError::Read { path: path.into(), source };
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > FILE_MAX {
        return Err(fault(path, format!("it has {length} bytes, and a recipe at most {FILE_MAX}")));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    text.parse().map_err(|e: toml::de::Error| fault(path, e.to_string()))
}

fn fault(path: &Path, fault: impl AsRef<str>) -> RecipeError {
    RecipeError::Parse { path: path.into(), fault: fault.as_ref().trim().into() }
}

/// Tables are merged, lists are appended, and anything else is what the later one says.
fn merge(base: &mut toml::Table, later: toml::Table) {
    for (key, value) in later {
        match (base.get_mut(&key), value) {
            (Some(toml::Value::Table(base)), toml::Value::Table(later)) => merge(base, later),
            (Some(toml::Value::Array(base)), toml::Value::Array(later)) => base.extend(later),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipes() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes")
    }

    #[test]
    fn the_recipe_of_a_node_has_all_of_the_minimal_one_and_more() {
        let minimal = Recipe::load(&recipes().join("minimal.toml")).unwrap();
        let node = Recipe::load(&recipes().join("node.toml")).unwrap();
        assert!(minimal.packages.keys().all(|package| node.packages.contains_key(package)));
        let modules = |recipe: &Recipe| recipe.kernel.clone().unwrap().modules;
        assert!(modules(&minimal).iter().all(|module| modules(&node).contains(module)));
        for package in ["gocryptfs", "dropbear-bin", "ca-certificates"] {
            assert!(node.packages.contains_key(package) && !minimal.packages.contains_key(package));
        }
        assert!(node.level > minimal.level);
    }

    #[test]
    fn a_typo_is_named_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.toml");
        std::fs::copy(recipes().join("minimal.toml"), folder.path().join("minimal.toml")).unwrap();
        std::fs::write(&path, "extends = \"minimal\"\n[kernel]\nmodule = []\n").unwrap();
        let error = Recipe::load(&path).unwrap_err().to_string();
        assert!(error.contains("own.toml") && error.contains("`module`"), "{error}");
        std::fs::write(&path, "[kernel]\npackage = \"p\"\nsuite = \"\"\narguments = \"\"\nmodules = []\n")
            .unwrap();
        assert!(Recipe::load(&path).unwrap_err().to_string().contains("go together"));
        std::fs::write(&path, "extends = \"own\"\n").unwrap();
        assert!(Recipe::load(&path).unwrap_err().to_string().contains("extend"));
        std::fs::write(&path, "extends = \"../minimal\"\n").unwrap();
        assert!(Recipe::load(&path).unwrap_err().to_string().contains("extend"));
    }
}
