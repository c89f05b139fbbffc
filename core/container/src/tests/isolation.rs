//! What the command sees and what it cannot do.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use super::super::Network;
use super::harness::{Image, Launch};

/// The caller's own value of a field of `/proc/self/status`.
fn own_status(field: &str) -> String {
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find(|line| line.starts_with(field)).expect("field");
    format!("{line}\n")
}

#[test]
fn the_host_name_and_the_processes_are_its_own() {
    let done = Image::new().sh("hostname; echo $$; ls -d /proc/[0-9]*; cat /proc/1/comm").finish();
    assert_eq!(done.text(), "inside\n2\n/proc/1\n/proc/2\nflist-init\n");
}

#[test]
fn there_is_no_network_but_loopback_unless_the_host_lends_its_own() {
    let image = Image::new();
    let script =
        "ls /sys/class/net; ifconfig lo | grep -E -o 'UP|addr:127.0.0.1'; readlink /proc/self/ns/net";
    let done = image.sh(script).finish();
    assert!(done.text().starts_with("lo\naddr:127.0.0.1\nUP\n"), "{}", done.text());
    let host = fs::read_link("/proc/self/ns/net").expect("readlink").display().to_string();
    let script = "busybox readlink /proc/self/ns/net";
    assert_ne!(image.sh(script).finish().text().trim(), host);
    let done = Launch { network: Network::Host, ..image.sh(script) }.finish();
    assert_eq!(done.text().trim(), host);
}

#[test]
fn the_capabilities_are_dockers_and_no_new_ones_can_be_had() {
    let done = Image::new().sh("grep -E 'Cap|NoNewPrivs' /proc/self/status").finish();
    let expected = "CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\n\
        CapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\nNoNewPrivs:\t0\n"
        .replace("NoNewPrivs:\t0", "NoNewPrivs:\t1");
    assert_eq!(done.text(), expected);
}

#[test]
fn a_privileged_container_has_all_that_the_caller_has() {
    let image = Image::new();
    let script = "grep -E 'CapEff|NoNewPrivs' /proc/self/status; \
        mkdir /m && mount -t tmpfs none /m && echo mounted; : > /proc/sys/kernel/hostname && echo writable; \
        mknod /n c 1 3 && echo data > /n && echo device; ls -d /sys/firmware/*";
    let done = Launch { privileged: true, ..image.sh(script) }.finish();
    let expected = own_status("CapEff") + "NoNewPrivs:\t0\nmounted\nwritable\ndevice\n";
    assert!(done.text().starts_with(&expected) && done.text().len() > expected.len(), "{}", done.text());
}

#[test]
fn kernel_paths_are_read_only_or_masked() {
    let image = Image::new();
    for write in [": > /proc/sys/kernel/hostname", ": > /proc/irq/default_smp_affinity"] {
        let done = image.sh(write).finish();
        assert!(done.code != 0 && done.text().contains("Read-only file system"), "{write}: {}", done.text());
    }
    let done = image.sh("mkdir /sys/x").finish();
    assert!(done.code != 0, "{}", done.text());
    let masked = "/proc/kcore /proc/keys /proc/interrupts /proc/timer_list /proc/sched_debug";
    let done =
        image.sh(&format!("for f in {masked}; do [ ! -e $f ] || cat $f; done; ls /sys/firmware")).finish();
    assert_eq!((done.code, done.text()), (0, ""));
    assert_ne!(image.sh("umount /sys/firmware").finish().code, 0, "the masks stay");
}

#[test]
fn dev_has_the_usual_devices_and_takes_no_others() {
    let image = Image::new();
    let done = image.sh("ls /dev; ls /dev/pts; head -c 3 /dev/zero | wc -c; echo x > /dev/null").finish();
    let expected = "fd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\nptmx\n3\n";
    assert_eq!((done.code, done.text()), (0, expected));
    // The node is the host's: changing it would change it for the host.
    let done = image.sh("chmod 000 /dev/null").finish();
    assert!(done.text().contains("Read-only file system"), "{}", done.text());
    for place in ["/n", "/dev/n", "/dev/shm/n"] {
        let done = image.sh(&format!("mknod {place} c 1 3 && echo made && cat {place}")).finish();
        assert!(done.code != 0 && done.text().contains("Permission denied"), "{place}: {}", done.text());
    }
}

#[test]
fn init_does_not_lead_to_the_host() {
    let image = Image::new();
    for path in
        ["/proc/1/exe", "/proc/1/root/", "/proc/1/cwd/", "/proc/1/fd/0", "/proc/1/mem", "/proc/1/environ"]
    {
        let done = image.sh(&format!("cat {path}")).finish();
        assert!(done.code != 0 && done.text().contains("Permission denied"), "{path}: {}", done.text());
    }
}

#[test]
fn a_file_of_the_host_handed_in_for_reading_cannot_be_written() {
    let image = Image::new();
    let host = tempfile::NamedTempFile::new().expect("tempfile");
    fs::write(host.path(), "host").expect("write");
    let read_only = || Stdio::from(fs::File::open(host.path()).expect("open"));
    let finish = |script: &str| image.sh(script).start_with(read_only()).finish();
    assert_eq!(finish("cat /dev/stdin").text(), "host");
    for write in ["echo x > /dev/stdin", "echo x >> /proc/self/fd/0", "busybox truncate -s 0 /dev/stdin"] {
        let done = finish(write);
        assert!(done.code != 0 && done.text().contains("Permission denied"), "{write}: {}", done.text());
    }
    assert_eq!(fs::read_to_string(host.path()).expect("read"), "host");
    // What was handed in for writing may be opened for it again, and files of the image may move about.
    let both = fs::File::options().read(true).append(true).open(host.path()).expect("open");
    let script =
        "echo x >> /dev/stdin && mkdir /a /b && touch /a/f && busybox mv /a/f /b/f && busybox ln /b/f /a/g";
    let done = image.sh(script).start_with(both.into()).finish();
    assert_eq!((done.code, done.text()), (0, ""));
    assert_eq!(fs::read_to_string(host.path()).expect("read"), "hostx\n");
}

#[test]
fn a_symlink_in_the_image_redirects_no_mount() {
    for name in ["proc", "sys", "dev"] {
        let image = Image::new();
        let victim = tempfile::tempdir().expect("tempdir");
        symlink(victim.path(), image.path(name)).expect("symlink");
        let done = image.sh("true").finish();
        assert_eq!(done.code, 125);
        assert!(done.text().contains(&format!("cannot mount /{name}: Too many levels")), "{}", done.text());
        assert_eq!(fs::read_dir(victim.path()).expect("read").count(), 0);
    }
    // A link inside the image gains nothing either.
    let image = Image::new();
    symlink("etc", image.path("proc")).expect("symlink");
    assert_eq!(image.sh("true").finish().code, 125);
}

#[test]
fn a_workdir_behind_a_symlink_stays_inside() {
    let image = Image::new();
    let victim = tempfile::tempdir().expect("tempdir");
    symlink(victim.path(), image.path("out")).expect("symlink");
    let done = Launch { workdir: "/out/made".into(), ..image.sh("pwd") }.finish();
    assert_ne!(done.code, 0);
    assert_eq!(fs::read_dir(victim.path()).expect("read").count(), 0);
}

#[test]
fn a_path_with_colons_and_commas_is_mounted() {
    let image = Image::new();
    let odd = image.path("a:b,c\\d e");
    fs::create_dir(&odd).expect("mkdir");
    fs::rename(image.path("bin"), odd.join("bin")).expect("rename");
    let done = Launch { lower: odd, ..image.sh("echo here") }.finish();
    assert_eq!(done.text(), "here\n");
}
