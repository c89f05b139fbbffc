//! The names of all steps inside the container: what can fail there, in the order in which it happens.
//!
//! A step crosses the link as its number, since the child cannot allocate a message.

use rustix::io::Errno;

/// Declares the steps once: the variants, their numbers and their names, which follow the word "cannot".
macro_rules! steps {
    ($($step:ident = $name:literal,)*) => {
        /// One step of the set-up inside the container.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub(super) enum Step { $($step,)* }

        impl Step {
            pub(super) const ALL: &[Step] = &[$(Step::$step,)*];

            /// What the step does, in words that follow "cannot".
            pub(super) fn name(self) -> &'static str {
                match self { $(Step::$step => $name,)* }
            }
        }
    };
}

steps! {
    CloseDescriptors = "close inherited descriptors",
    BecomeRoot = "become root of the user namespace",
    DieWithCaller = "bind the container's life to the caller",
    LeaveGroup = "leave the caller's process group",
    ResetSignals = "reset the signal dispositions",
    HideInit = "protect init from the container",
    NewKeyring = "join a new session keyring",
    NewCgroups = "enter a new cgroup namespace",
    IsolateMounts = "make the mounts private",
    MountScratch = "mount the upper layer",
    MountOverlay = "mount the overlay",
    WriteFiles = "write a file of the container",
    AttachVolumes = "mount a volume",
    MountProc = "mount /proc",
    MountSys = "mount /sys",
    MountDev = "mount /dev",
    BindDevices = "bind the devices",
    LinkDescriptors = "link the descriptors in /dev",
    MountPts = "mount /dev/pts",
    MountShm = "mount /dev/shm",
    MountMqueue = "mount /dev/mqueue",
    BindConsole = "bind /dev/console",
    ProtectPaths = "make kernel paths read-only",
    MaskPaths = "mask kernel paths",
    EnterRoot = "enter the root filesystem",
    SetHostname = "set the host name",
    RaiseLoopback = "raise the loopback interface",
    CreateWorkdir = "create the working directory",
    AwaitGo = "wait for the caller",
    StartCommand = "start the command",
    OwnTerminal = "give the terminal to the command",
    LimitResources = "limit files and processes",
    DropCapabilities = "drop capabilities",
    ChangeUser = "change the user",
    RefusePrivileges = "refuse new privileges",
    ConfineWrites = "confine writes to the container",
    EnterWorkdir = "enter the working directory",
    FilterCalls = "filter system calls",
    UnblockSignals = "unblock signals",
}

impl Step {
    /// The step with this number.
    pub(super) fn from_number(number: u8) -> Option<Step> {
        Step::ALL.get(usize::from(number)).copied()
    }

    /// Marks an error of `result` as this step's.
    pub(super) fn check<T>(self, result: rustix::io::Result<T>) -> Result<T, Failure> {
        #[cfg(test)]
        if FAILING.load(std::sync::atomic::Ordering::Relaxed) == self as u8 {
            return Err(Failure { step: self, errno: Errno::XFULL });
        }
        result.map_err(|errno| Failure { step: self, errno })
    }
}

/// The step that fails, because a test wants to see what is left then; the largest number is none.
#[cfg(test)]
pub(super) static FAILING: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(u8::MAX);

/// The step that failed and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) errno: Errno,
}
