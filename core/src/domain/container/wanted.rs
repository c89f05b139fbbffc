//! What a container shall be.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use g8_container::Limits;
use g8_fs::format::RunConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ContainerError;
use crate::domain::container_net;

/// Where programs are looked for, as docker has it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Most mounts and most files of one.
const MANY: usize = 64;
/// Longest name of a host, by the kernel.
const HOSTNAME_MAX: usize = 64;
/// Longest name or tag, and most tags.
const WORD_MAX: usize = 128;

/// Longest path, by the kernel, without the NUL at its end.
const PATH_MAX: usize = 4095;

/// What a container may write unless it asks for more or less.
const UPPER_BYTES: u64 = 1 << 30;

/// Where a container writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Upper {
    /// Memory, at most so many bytes.
    Memory {
        /// The size.
        bytes: u64,
    },
    /// A disk of the node, as much as is free there.
    Disk,
}

impl Default for Upper {
    fn default() -> Self {
        Self::Memory { bytes: UPPER_BYTES }
    }
}

/// See the module's text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Wanted {
    /// The flist of the root filesystem.
    pub root: String,
    /// Sources of its blocks; the node's own when empty, and then `told`.
    pub sources: Vec<String>,
    /// Those that the bootstrap file named when it was made.
    #[serde(default)]
    pub told: Vec<String>,
    /// Absolute paths of the host, or flists, and where they are shown inside.
    pub mounts: Vec<(String, PathBuf)>,
    /// Its network, which has a record of its own.
    #[serde(skip)]
    pub network: container_net::Wanted,
    /// The host name inside; `core-ID` when absent.
    pub hostname: Option<String>,
    /// What it is called.
    pub name: String,
    /// What it is found by.
    pub tags: Vec<String>,
    /// Variables of all that runs inside.
    pub env: BTreeMap<String, String>,
    /// No fence.
    pub privileged: bool,
    /// What it may use.
    pub limits: Limits,
    /// The program that it lives for, the image's when it is not given; without one it waits for commands.
    pub entrypoint: Option<Vec<String>>,
    /// Whom that runs as: `user[:group]`, names or numbers of the image.
    pub user: String,
    /// Where it starts, and whatever else runs inside and is not told where.
    pub workdir: String,
    /// Where it writes to.
    #[serde(default)]
    pub upper: Upper,
    /// Files that are written first. Not kept: there may be secrets in them.
    #[serde(skip)]
    pub files: BTreeMap<PathBuf, String>,
    /// As it was asked for, without the contents of files.
    pub arguments: Value,
}

impl Wanted {
    /// What is wrong with it, before anything is made.
    pub fn check(&self) -> Result<(), ContainerError> {
        let fault = self.fault();
        fault.map_or(Ok(()), |fault| Err(ContainerError::Wanted(fault)))
    }

    fn fault(&self) -> Option<String> {
        if self.root.is_empty() {
            return Some("the root is empty: it is the address of an flist".into());
        }
        if self.mounts.len() > MANY || self.files.len() > MANY || self.tags.len() > WORD_MAX {
            return Some(format!("more than {MANY} mounts or files, or {WORD_MAX} tags"));
        }
        let targets = self.mounts.iter().map(|(_, target)| target.as_path());
        if let Err(error) = g8_container::check_places(targets, self.files.keys().map(PathBuf::as_path)) {
            return Some(error.to_string());
        }
        if let Some(name) = self.hostname.as_ref().filter(|name| name.is_empty() || name.len() > HOSTNAME_MAX)
        {
            return Some(format!("host name {name:.80?} has not 1 to {HOSTNAME_MAX} bytes"));
        }
        // It stands in files of the container.
        if let Some(name) = self.hostname.as_ref().filter(|name| !name.bytes().all(|b| b.is_ascii_graphic()))
        {
            return Some(format!(
                "host name {name:.80?} has more in it than letters, digits and signs of ASCII"
            ));
        }
        let words = self.tags.iter().chain([&self.name]);
        if let Some(word) = words.into_iter().find(|word| word.len() > WORD_MAX) {
            return Some(format!("{word:.32?}... is longer than {WORD_MAX} bytes"));
        }
        if !self.workdir.is_empty() && !is_folder(&self.workdir) {
            return Some(format!(
                "workdir {:.80?} must be absolute, without '..' and NUL, and not longer than {PATH_MAX} bytes",
                self.workdir
            ));
        }
        if self.upper == (Upper::Memory { bytes: 0 }) {
            return Some("a container needs some bytes to write to".into());
        }
        None
    }

    /// What is not asked for is as the image has it.
    pub fn complete(&mut self, config: &RunConfig) {
        let image = config.env.iter().filter_map(|variable| variable.split_once('='));
        for (name, value) in image.filter(|(name, value)| {
            !name.is_empty() && ![*name, *value].iter().any(|text| text.contains('\0'))
        }) {
            self.env.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
        if self.entrypoint.is_none() {
            self.entrypoint = Some(config.entrypoint.clone());
            // The image's user and folder are those of the image's program.
            if self.user.is_empty() {
                self.user = config.user.clone().unwrap_or_default();
            }
        }
        if self.workdir.is_empty() {
            // Some images mean it from their root, and some climb in it.
            self.workdir = config.workdir.as_ref().map(|dir| resolved(dir)).unwrap_or_default();
        }
    }

    /// The program that it lives for; nothing when it waits for commands.
    pub fn program(&self) -> &[String] {
        self.entrypoint.as_deref().unwrap_or_default()
    }

    /// Where what runs inside starts.
    pub fn workdir(&self) -> &str {
        if self.workdir.is_empty() { "/" } else { &self.workdir }
    }

    /// The variables of all that runs inside.
    pub fn variables(&self) -> BTreeMap<String, String> {
        let usual = [("PATH", PATH), ("HOME", "/root")].map(|(name, value)| (name.into(), value.into()));
        usual.into_iter().chain(self.env.clone()).collect()
    }
}

fn is_folder(path: &str) -> bool {
    path.len() <= PATH_MAX
        && !path.contains('\0')
        && Path::new(path).is_absolute()
        && !Path::new(path).components().any(|part| part == Component::ParentDir)
}

/// A path from the root without `..`, each of which takes the name before it away.
fn resolved(path: &str) -> String {
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Wanted {
        Wanted { root: "bafy".into(), ..Wanted::default() }
    }

    #[test]
    fn what_cannot_be_is_told_before_anything_is_made() {
        plain().check().unwrap();
        let faults: [fn(&mut Wanted); 15] = [
            |w| w.root.clear(),
            |w| w.upper = Upper::Memory { bytes: 0 },
            |w| w.hostname = Some("x".repeat(65)),
            |w| w.hostname = Some("x\n10.0.0.1 bank".into()),
            |w| w.mounts = vec![("/tmp".into(), "relative".into())],
            |w| w.mounts = vec![("/tmp".into(), "/".into())],
            |w| w.mounts = vec![("/tmp".into(), "/a/../b".into())],
            |w| w.mounts = vec![("/tmp".into(), "/data".into()), ("/var".into(), "/data/".into())],
            |w| w.files = [("/proc/sys/x".into(), String::new())].into(),
            |w| {
                w.mounts = vec![("/tmp".into(), "/data".into())];
                w.files = [("/data/x".into(), String::new())].into();
            },
            |w| w.workdir = "relative".into(),
            |w| w.workdir = "/a/../b".into(),
            |w| w.workdir = "/a\0b".into(),
            |w| w.workdir = "/a".repeat(2048),
            |w| w.files = (0..65).map(|i| (format!("/f{i}").into(), String::new())).collect(),
        ];
        for (number, fault) in faults.iter().enumerate() {
            let mut wanted = plain();
            fault(&mut wanted);
            assert!(matches!(wanted.check(), Err(ContainerError::Wanted(_))), "{number}");
        }
    }

    #[test]
    fn what_is_not_asked_for_is_as_the_image_has_it() {
        let config = RunConfig {
            entrypoint: vec!["httpd".into()],
            env: vec!["A=image".into(), "B=image=b".into(), "no variable".into()],
            user: Some("web".into()),
            workdir: Some("/srv".into()),
            ..RunConfig::default()
        };
        let mut wanted = Wanted { env: [("A".into(), "mine".into())].into(), ..plain() };
        wanted.complete(&config);
        assert_eq!(
            (wanted.program(), &*wanted.user, &*wanted.workdir),
            (&["httpd".to_owned()][..], "web", "/srv")
        );
        assert_eq!(wanted.env, [("A".into(), "mine".into()), ("B".into(), "image=b".into())].into());
        for (dir, expected) in
            [("srv", "/srv"), ("/a/../srv/./x//", "/srv/x"), ("../../a", "/a"), ("/..", "/"), ("", "/")]
        {
            let mut climbing = plain();
            climbing.complete(&RunConfig { workdir: Some(dir.into()), ..RunConfig::default() });
            assert_eq!(climbing.workdir(), expected);
        }
        let mut idle = Wanted { entrypoint: Some(Vec::new()), ..plain() };
        idle.complete(&config);
        assert_eq!((idle.program(), &*idle.user), (&[][..], ""));
    }

    #[test]
    fn variables_of_the_caller_come_over_the_usual_ones() {
        let env = [("PATH".to_string(), "/x".to_string()), ("A".into(), "b".into())].into();
        let variables = Wanted { env, ..plain() }.variables();
        assert_eq!((variables["PATH"].as_str(), variables["A"].as_str()), ("/x", "b"));
        assert_eq!(variables["HOME"], "/root");
    }
}
