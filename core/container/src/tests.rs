//! The promises of the container, each tried through [`run`] with a busybox image. They need root and
//! `/bin/busybox` linked statically (Debian: `busybox-static`).

mod escape;
mod harness;
mod isolation;
mod lifecycle;

use std::path::PathBuf;

use super::*;
use harness::{Image, Launch};

/// Not a test: the process that the others start to run one container in (see [`harness`]).
#[test]
fn launcher() {
    // Below nohup, say, the tests inherit an ignored SIGHUP, which is not forwarded and rightly so.
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGUSR1] {
        // SAFETY: the default action of a signal, before anything else of this process cares.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    harness::launch_if_asked();
}

#[test]
fn the_exit_code_is_the_shells() {
    let image = Image::new();
    std::fs::write(image.path("plain"), "data").expect("write");
    assert_eq!(image.sh("exit 0").finish().code, 0);
    assert_eq!(image.sh("exit 3").finish().code, 3);
    assert_eq!(image.sh("kill -9 $$").finish().code, 128 + 9);
    assert_eq!(image.launch(&["/plain"]).finish().code, 126, "found, not executable");
    assert_eq!(image.launch(&["/etc"]).finish().code, 126, "a directory");
    assert_eq!(image.launch(&["/no/such"]).finish().code, 127);
    assert_eq!(image.launch(&["no-such"]).finish().code, 127);
    assert_eq!(image.launch(&[""]).finish().code, 127);
}

#[test]
fn writes_go_to_the_upper_layer_and_the_image_stays() {
    let image = Image::new();
    std::fs::write(image.path("etc/motd"), "image").expect("write");
    let done = image
        .sh("echo changed > /etc/motd && rm /bin/cat && echo new > /new && read x < /etc/motd && echo $x");
    assert_eq!(done.finish().text(), "changed\n");
    assert_eq!(std::fs::read_to_string(image.path("etc/motd")).expect("read"), "image");
    assert!(image.path("bin/cat").exists() && !image.path("new").exists());
    assert!(!image.path("proc").exists() && !image.path("dev").exists(), "made in the upper layer only");
}

#[test]
fn the_upper_layer_is_limited_in_bytes_and_in_files() {
    let image = Image::new();
    let launch = |script| Launch { upper_bytes: 1 << 20, ..image.sh(script) };
    let full = launch("dd if=/dev/zero of=/big bs=64k count=64").finish();
    assert!(full.code != 0 && full.text().contains("No space left"), "{}", full.text());
    let full = launch("cd /tmp; i=0; while : > $i; do i=$((i+1)); [ $i -lt 9999 ] || exit 77; done").finish();
    assert!(full.code != 77 && full.text().contains("No space left"), "{}", full.text());
}

#[test]
fn the_command_starts_in_its_workdir_as_its_user_with_its_environment() {
    let image = Image::new();
    let launch = Launch {
        workdir: "/made/for/it".into(),
        user: User { uid: 1000, gid: 1001, groups: vec![1002, 5], home: None },
        ..image.sh("pwd; id -u; id -g; id -G; echo $MARK; umask; ls /proc/self/fd")
    };
    let done = launch.finish();
    // `ls` itself opens 3.
    assert_eq!(done.text(), "/made/for/it\n1000\n1001\n1001 5 1002\nenvironment\n0022\n0\n1\n2\n3\n");
}

#[test]
fn no_signal_is_ignored_or_blocked() {
    // Rust ignores SIGPIPE, and a clone with signals blocked would hand that on.
    let done = Image::new().launch(&["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"]).finish();
    assert_eq!(done.text(), "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
}

#[test]
fn a_user_other_than_root_has_no_capabilities() {
    let image = Image::new();
    let user = User { uid: 1000, gid: 1000, groups: vec![], home: None };
    let done = Launch { user, ..image.sh("grep -E 'Cap(Inh|Prm|Eff|Amb)' /proc/self/status") }.finish();
    assert!(done.text().lines().all(|line| line.ends_with("\t0000000000000000")), "{}", done.text());
    assert_eq!(done.text().lines().count(), 4);
}

#[test]
fn what_cannot_be_run_is_refused_before_anything_happens() {
    let refused = |change: fn(&mut Spec, &mut Command)| {
        let (mut spec, mut command) =
            (harness::spec(PathBuf::from("/nonexistent")), harness::program(&["true"]));
        change(&mut spec, &mut command);
        matches!(run(&spec, &command), Err(ContainerError::Invalid(_)))
    };
    assert!(refused(|_, command| command.argv.clear()));
    assert!(refused(|spec, _| spec.workdir = "relative".into()));
    assert!(refused(|spec, _| spec.workdir = "/a/../b".into()));
    assert!(refused(|_, command| command.user.uid = u32::MAX));
    assert!(refused(|_, command| command.user.uid = 65_536), "nobody has it inside");
    assert!(refused(|spec, _| spec.upper = Upper::Memory { bytes: 0 }));
    assert!(refused(|spec, _| spec.hostname = "x".repeat(65)));
    let volume = |target: &str| Volume { source: "/".into(), target: target.into(), read_only: true };
    for target in ["relative", "/", "/a/../b"] {
        let spec = Spec { volumes: vec![volume(target)], ..harness::spec(PathBuf::from("/nonexistent")) };
        let done = run(&spec, &harness::program(&["true"]));
        assert!(matches!(done, Err(ContainerError::Place(_))), "{target}");
    }
}

#[test]
fn a_failing_step_is_named_with_its_errno() {
    let image = Image::new();
    let missing = Launch { lower: image.path("missing"), ..image.sh("true") }.finish();
    assert_eq!(missing.code, 125);
    assert!(missing.text().contains("cannot open the image: No such file"), "{}", missing.text());
    let closed = Launch { workdir: "/bin/busybox".into(), ..image.sh("true") }.finish();
    assert!(
        closed.text().contains("cannot enter the working directory: Not a directory"),
        "{}",
        closed.text()
    );
}
