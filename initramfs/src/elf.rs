//! What a program needs before it runs: its loader and its libraries, as its own header names them. Nothing is executed.

use goblin::elf::Elf;

/// Where the loader looks, unless the program says otherwise.
const FOLDERS: [&str; 2] = ["/usr/lib/x86_64-linux-gnu", "/usr/lib"];

/// What a file needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The path of its loader or interpreter.
    pub loader: Option<String>,
    /// Names of libraries.
    pub libraries: Vec<String>,
    /// Folders to look in first.
    pub folders: Vec<String>,
}

/// A program that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("it is no sound ELF file")]
pub struct NoElf(#[source] goblin::error::Error);

impl Needs {
    /// Those of a program or script; other files need nothing.
    pub fn of(bytes: &[u8], path: &str) -> Result<Self, NoElf> {
        if let Some(line) = bytes.strip_prefix(b"#!") {
            let line = line.split(|&b| b == b'\n').next().unwrap_or_default();
            let word = String::from_utf8_lossy(line).split_ascii_whitespace().next().map(str::to_owned);
            return Ok(Self { loader: word, ..Self::default() });
        }
        if !bytes.starts_with(b"\x7fELF") {
            return Ok(Self::default());
        }
        let elf = Elf::parse(bytes).map_err(NoElf)?;
        let own = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let own = format!("/{}", own.trim_start_matches('/'));
        let folders = elf.runpaths.iter().chain(&elf.rpaths).flat_map(|paths| paths.split(':'));
        Ok(Self {
            loader: elf.interpreter.map(str::to_owned),
            libraries: elf.libraries.iter().map(|name| (*name).to_owned()).collect(),
            folders: folders
                .map(|folder| folder.replace("$ORIGIN", &own).replace("${ORIGIN}", &own))
                .collect(),
        })
    }

    /// The paths where a library may be, in the loader's order.
    pub fn candidates<'a>(&'a self, library: &'a str) -> impl Iterator<Item = String> + 'a {
        let whole = library.contains('/').then(|| library.to_owned());
        let folders = self.folders.iter().map(String::as_str).chain(FOLDERS);
        whole.into_iter().chain(folders.map(move |folder| format!("{folder}/{library}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_needs_the_c_library_and_its_loader() {
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let needs = Needs::of(&bytes, "/usr/bin/x").unwrap();
        assert!(needs.libraries.iter().any(|name| name.starts_with("libc.so")), "{needs:?}");
        assert!(needs.loader.as_ref().is_some_and(|loader| loader.contains("ld-")), "{needs:?}");
    }

    #[test]
    fn a_script_needs_its_interpreter_and_damage_is_an_error() {
        let needs = Needs::of(b"#! /bin/sh -e\nexit 0\n", "/x").unwrap();
        assert_eq!(needs.loader.as_deref(), Some("/bin/sh"));
        assert_eq!(Needs::of(b"text", "/x").unwrap(), Needs::default());
        assert!(Needs::of(b"\x7fELF and no more", "/x").is_err());
        let bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(Needs::of(&bytes[..70], "/x").is_err());
    }
}
