//! How a mount reaches the kernel. What a process sees differs in a few places, which fs/SEMANTICS.md lists.

/// The mode of one mount; never `auto`, which is a question and not an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The kernel mounts the tree as EROFS and asks the daemon for contents only.
    Kernel,
    /// The daemon answers everything.
    Fuse,
}

impl Mode {
    /// Both, for a test that compares them.
    pub const BOTH: [Self; 2] = [Self::Kernel, Self::Fuse];

    /// As `--mode` and `flist mounts` name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Fuse => "fuse",
        }
    }

    /// The mode of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::BOTH.into_iter().find(|mode| mode.name() == name)
    }

    /// What the mount table shows as kind of filesystem.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Kernel => "erofs",
            Self::Fuse => "fuse.flist",
        }
    }
}
