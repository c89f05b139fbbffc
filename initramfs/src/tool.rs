//! Running a tool of the build machine: argv, never a shell; its words are in the error when it fails.

use std::io;
use std::process::{Command, ExitStatus, Stdio};

/// What is kept of what a failed tool said, from its end.
const SAID_MAX: usize = 4 << 10;
/// Which Debian package has a tool, where the name does not say.
const PACKAGES: [(&str, &str); 7] = [
    ("depmod", "kmod"),
    ("apt-get", "apt"),
    ("sgdisk", "gdisk"),
    ("mformat", "mtools"),
    ("mmd", "mtools"),
    ("mcopy", "mtools"),
    ("strip", "binutils"),
];

/// Why a tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// It is not there.
    #[error("{program} is not installed: apt-get install {package}")]
    Missing {
        /// Its name.
        program: String,
        /// The Debian package that has it.
        package: String,
    },
    /// It could not be started.
    #[error("cannot run {program}")]
    Io {
        /// Its name.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended with an error.
    #[error("{program} failed ({status}): {said}")]
    Failed {
        /// Its name.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said.
        said: String,
    },
}

/// Runs a tool to its end and returns what it printed.
pub fn run(command: &mut Command) -> Result<String, ToolError> {
    let path = std::path::Path::new(command.get_program());
    let program = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    let output = match command.env("LC_ALL", "C").stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let known = PACKAGES.iter().find(|(tool, _)| *tool == program);
            let package = known.map_or_else(|| program.clone(), |(_, package)| (*package).into());
            return Err(ToolError::Missing { program, package });
        }
        Err(source) => return Err(ToolError::Io { program, source }),
    };
    if !output.status.success() {
        let said = if output.stderr.trim_ascii().is_empty() { &output.stdout } else { &output.stderr };
        let tail = &said[said.len().saturating_sub(SAID_MAX)..];
        let said = String::from_utf8_lossy(tail).trim().to_owned();
        return Err(ToolError::Failed { program, status: output.status, said });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_carries_the_words_of_the_tool_and_a_missing_one_its_package() {
        let error = run(Command::new("ls").arg("/no/such/place")).unwrap_err();
        assert!(error.to_string().contains("/no/such/place"), "{error}");
        let error = run(&mut Command::new("/no/such/folder/sgdisk")).unwrap_err();
        assert_eq!(error.to_string(), "sgdisk is not installed: apt-get install gdisk");
    }
}
