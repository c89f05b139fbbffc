//! apt with a state of its own: the sources of this machine and those of its backports, the keys of this machine, and
//! nothing installed. `/etc/apt` and what apt keeps of the machine are read at most.

pub mod sources;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::lock::Package;
use crate::tool::{self, ToolError};

/// Why packages cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum AptError {
    /// The private state cannot be made.
    #[error("cannot set up apt in {path}")]
    State {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// This machine names no source of its distribution.
    #[error("no apt source of this machine has the release {0}: the images are made from Debian's packages")]
    NoSource(String),
    /// The mirror has other versions by now.
    #[error("the mirror has dropped locked packages: {}", .0.join("; "))]
    Dropped(Vec<String>),
    /// apt names a package in a way that we do not understand.
    #[error("apt answers with something that is no package: {0:?}")]
    Answer(String),
    /// apt does not do it.
    #[error(transparent)]
    Tool(#[from] ToolError),
}

/// A private state.
#[derive(Debug)]
pub struct Apt {
    options: Vec<String>,
}

impl Apt {
    /// Sets it up below `dir` for a release, and asks the mirror what it has.
    pub fn open(dir: &Path, release: &str) -> Result<Self, AptError> {
        let failed = |source| AptError::State { path: dir.into(), source };
        let sources = sources::of_machine(Path::new("/etc/apt"), release).map_err(failed)?;
        if sources.is_empty() {
            return Err(AptError::NoSource(release.into()));
        }
        for folder in ["parts", "lists/partial", "archives/partial"] {
            fs::create_dir_all(dir.join(folder)).map_err(failed)?;
        }
        fs::write(dir.join("status"), "").map_err(failed)?;
        fs::write(dir.join("parts/image.sources"), sources::deb822(&sources, release)).map_err(failed)?;
        fs::write(dir.join("preferences"), sources::preferences(release)).map_err(failed)?;
        let at = |part: &str| dir.join(part).display().to_string();
        let set = [
            ("Dir::Etc::sourcelist", "/dev/null".to_owned()),
            ("Dir::Etc::sourceparts", at("parts")),
            ("Dir::Etc::preferences", at("preferences")),
            ("Dir::Etc::preferencesparts", "/dev/null".into()),
            ("Dir::State", at("")),
            ("Dir::State::lists", at("lists")),
            ("Dir::State::status", at("status")),
            ("Dir::Cache", at("")),
            ("APT::Install-Recommends", "0".into()),
            ("Acquire::ForceHash", "SHA256".into()),
            ("Acquire::Languages", "none".into()),
            ("Acquire::Retries", "3".into()),
            ("Acquire::http::Timeout", "30".into()),
            ("Acquire::https::Timeout", "30".into()),
        ];
        let mut options: Vec<String> =
            set.into_iter().flat_map(|(key, value)| ["-o".to_owned(), format!("{key}={value}")]).collect();
        // As root, apt would fetch as another user, who may not write here.
        options.extend(["-o".into(), "APT::Sandbox::User=root".into()]);
        let apt = Self { options };
        tool::run(apt.command().args(["update", "-qq", "--error-on=any"]))?;
        Ok(apt)
    }

    /// Packages with all that they depend on, in the newest versions. A name may have `/SUITE` behind it.
    pub fn closure(&self, names: &[String]) -> Result<Vec<Package>, AptError> {
        let mut command = self.command();
        let listed = tool::run(command.args(["install", "--print-uris", "-y", "-qq"]).args(names))?;
        listed.lines().filter(|line| !line.is_empty()).map(package).collect()
    }

    /// Downloads packages into a folder, or says which are not to be had any more.
    pub fn download(&self, packages: &[&Package], into: &Path) -> Result<(), AptError> {
        let versions = packages.iter().map(|package| format!("{}={}", package.name, package.version));
        match tool::run(self.command().args(["download", "-qq"]).args(versions).current_dir(into)) {
            Ok(_) => Ok(()),
            Err(ToolError::Failed { said, .. }) if !dropped(&said).is_empty() => {
                Err(AptError::Dropped(dropped(&said)))
            }
            Err(e) => Err(e.into()),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new("apt-get");
        command.args(&self.options);
        command
    }
}

/// What apt says of versions and names that it does not have.
fn dropped(said: &str) -> Vec<String> {
    let gone = |line: &&str| line.contains("was not found") || line.contains("Unable to locate package");
    said.lines().filter_map(|line| line.strip_prefix("E: ")).filter(gone).map(str::to_owned).collect()
}

/// A line of `--print-uris`: `'URI' FILE SIZE SHA256:HASH`.
fn package(line: &str) -> Result<Package, AptError> {
    let parse = || {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (file, size, hash) = (words.next()?, words.next()?, words.next()?);
        let mut parts = file.strip_suffix(".deb")?.split('_');
        let (name, version) = (parts.next()?, parts.next()?);
        let package = Package {
            name: name.into(),
            version: version.replace("%3a", ":"),
            file: file.into(),
            size_bytes: size.parse().ok()?,
            sha256: hash.strip_prefix("SHA256:")?.into(),
        };
        Some(package).filter(Package::is_sound)
    };
    parse().ok_or_else(|| AptError::Answer(line.chars().take(300).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_apt_is_a_package_with_its_hash() {
        let hash = "5a083377f29191cafcdf0f91ec124349b4a7895b531556633a136e43c6d53943";
        let line = format!("'http://m/l.deb' libcrypt1_1%3a4.4.33-2_amd64.deb 89464 SHA256:{hash}");
        let package = package(&line).unwrap();
        assert_eq!((package.name.as_str(), package.version.as_str()), ("libcrypt1", "1:4.4.33-2"));
        assert_eq!((package.size_bytes, package.sha256.as_str()), (89_464, hash));
        for line in
            ["", "'u' a_1_amd64.deb 5 MD5Sum:00", "'u' ../a_1_amd64.deb 5 SHA256:00", "Reading lists..."]
        {
            assert!(super::package(line).is_err(), "{line}");
        }
    }

    #[test]
    fn versions_that_are_gone_are_told_from_other_failures() {
        let said = "W: x\nE: Version '1' for 'a' was not found\nE: Unable to locate package b\n";
        assert_eq!(dropped(said).len(), 2);
        assert!(dropped("E: Failed to fetch http://m/l.deb  404  Not Found").is_empty());
    }
}
