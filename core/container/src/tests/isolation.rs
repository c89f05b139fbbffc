//! What the command sees and what it cannot do.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use super::super::{Limits, Network, Spec, run};
use super::harness::{self, Image, Launch};

/// The caller's own value of a field of `/proc/self/status`.
fn own_status(field: &str) -> String {
    let status = fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find(|line| line.starts_with(field)).expect("field");
    format!("{line}\n")
}

#[test]
fn the_host_name_and_the_processes_are_its_own() {
    let done = Image::new().sh("hostname; echo $$; ls -d /proc/[0-9]*; cat /proc/1/comm").finish();
    assert_eq!(done.text(), "inside\n2\n/proc/1\n/proc/2\ncontainer-init\n");
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
        assert!(done.code != 0 && done.text().contains("not permitted"), "{place}: {}", done.text());
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
    // For everybody: its owner is nobody inside.
    fs::set_permissions(host.path(), std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("chmod");
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

#[test]
fn root_inside_is_nobody_outside() {
    let image = Image::new();
    let done = image
        .sh("read inside outside count < /proc/self/uid_map; echo $inside $outside $count; id -u")
        .finish();
    let text = done.text().to_owned();
    let first: u32 = text.split_whitespace().nth(1).expect("a map").parse().expect("a number");
    assert!((0x3000_0000..0x7000_0000).contains(&first) && first.is_multiple_of(65_536), "{text}");
    assert_eq!(text, format!("0 {first} 65536\n0\n"));
    // The image's files are root's inside, also what only their owner may read, and so is what is made.
    let secret = image.path("etc/shadow");
    fs::write(&secret, "secret").expect("write");
    fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("chmod");
    let script = "cat /etc/shadow; touch /etc/new; chmod 640 /etc/shadow; busybox stat -c ' %u:%g %a' /etc/shadow /etc/new";
    assert_eq!(image.sh(script).finish().text(), "secret 0:0 640\n 0:0 644\n");
}

#[test]
fn the_upper_layer_can_be_on_disk_where_files_are_roots_too() {
    let image = Image::new();
    let disk = tempfile::tempdir().expect("tempdir");
    let launch = |script| Launch { disk: Some(disk.path().to_owned()), ..image.sh(script) };
    let done =
        launch("echo new > /new; rm /etc/motd; mkdir /bin/d; busybox mv /root /toor; ls -d /toor").finish();
    assert!(done.text().ends_with("/toor\n"), "{}", done.text());
    let new = fs::metadata(disk.path().join("upper/new")).expect("on disk");
    let owner = std::os::unix::fs::MetadataExt::uid(&new);
    assert_eq!((owner, new.len()), (0, 4), "shown by an id-mapped mount: on disk it is root's");
    assert!(!image.path("new").exists() && image.path("root").exists());
    // A folder that has been used is not a container's own.
    assert!(launch("true").finish().text().contains("cannot open the upper layer: File exists"));
}

#[test]
fn a_volume_is_shown_where_it_belongs_with_its_owners_and_no_more() {
    let image = Image::new();
    let host = tempfile::tempdir().expect("tempdir");
    fs::write(host.path().join("file"), "from the host").expect("write");
    let volumes = vec![
        (host.path().to_owned(), "/data/deep", false),
        (host.path().to_owned(), "/ro", true),
        (host.path().join("file"), "/etc/one", true),
    ];
    let script = "cat /data/deep/file /etc/one; echo inside > /data/deep/new; busybox stat -c ' %u' /data/deep/new; \
        echo x > /ro/new";
    let done = Launch { volumes: volumes.clone(), ..image.sh(script) }.finish();
    let text = done.text();
    assert!(
        text.starts_with("from the hostfrom the host 0\n") && text.contains("Read-only file system"),
        "{text}"
    );
    assert_eq!(fs::read_to_string(host.path().join("new")).expect("written"), "inside\n");
    assert!(!image.path("data").exists());

    let missing = vec![(host.path().join("missing"), "/x", false)];
    let done = Launch { volumes: missing, ..image.sh("true") }.finish();
    assert!(done.text().contains("missing inside: No such file"), "{}", done.text());
    let done = Launch { volumes: vec![("/dev/null".into(), "/x", false)], ..image.sh("true") }.finish();
    assert!(done.text().contains("cannot show /dev/null inside"), "{}", done.text());
}

#[test]
fn a_file_is_written_before_anything_runs() {
    let image = Image::new();
    fs::write(image.path("etc/app"), "a longer text of the image").expect("write");
    let files = vec![("/etc/app", "new"), ("/opt/made/for/it", "deep")];
    let done = Launch { files, ..image.sh("cat /etc/app /opt/made/for/it") }.finish();
    assert_eq!(done.text(), "newdeep");
    assert_eq!(fs::read_to_string(image.path("etc/app")).expect("read"), "a longer text of the image");
}

#[test]
fn no_link_of_the_image_leads_a_volume_or_a_file_out() {
    let victim = tempfile::tempdir().expect("tempdir");
    fs::write(victim.path().join("file"), "host").expect("write");
    let climbing = format!("../../../../../..{}", victim.path().display());
    for target in
        [victim.path().display().to_string(), climbing, "/proc/self/root".into(), "/proc/1/cwd".into()]
    {
        let image = Image::new();
        symlink(&target, image.path("out")).expect("symlink");
        symlink(format!("{target}/file"), image.path("link")).expect("symlink");
        let volume = tempfile::tempdir().expect("tempdir");
        fs::write(volume.path().join("mark"), "").expect("write");
        let launch = Launch {
            volumes: vec![(volume.path().to_owned(), "/out/mnt", false)],
            files: vec![("/out/file", "overwritten"), ("/link", "overwritten")],
            ..image.sh("true")
        };
        // Whether it fails or the link leads to a place inside: outside nothing has changed.
        launch.finish();
        for files in [vec![("/out/file", "overwritten")], vec![("/link", "overwritten")]] {
            Launch { files, ..image.sh("true") }.finish();
        }
        Launch { volumes: vec![(volume.path().to_owned(), "/out/mnt", false)], ..image.sh("true") }.finish();
        assert_eq!(fs::read_to_string(victim.path().join("file")).expect("read"), "host", "{target}");
        assert_eq!(fs::read_dir(victim.path()).expect("read").count(), 1, "{target}");
    }
    // A link that stays inside is followed inside.
    let image = Image::new();
    symlink("/etc", image.path("conf")).expect("symlink");
    let done = Launch { files: vec![("/conf/app", "linked")], ..image.sh("cat /etc/app") }.finish();
    assert_eq!(done.text(), "linked");
    // What is no file is not written, and nobody waits for the reader of a FIFO.
    let image = Image::new();
    let fifo = image.path("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o644),
        0,
    )
    .expect("mkfifo");
    let done = Launch { files: vec![("/fifo", "x")], ..image.sh("true") }.finish();
    assert!(done.text().contains("cannot write a file of the container"), "{}", done.text());
}

#[test]
fn volumes_lie_in_one_another_whatever_their_order_and_never_on_one_another() {
    // The launcher sees to it that no mount shows up on the host, which shares its mounts.
    let image = Image::new();
    symlink("data", image.path("link")).expect("symlink");
    symlink("/", image.path("top")).expect("symlink");
    let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().expect("tempdir")).collect();
    for (name, folder) in ["outer", "inner", "innermost"].iter().zip(&folders) {
        fs::write(folder.path().join(name), "").expect("write");
    }
    let [outer, inner, innermost] = [0, 1, 2].map(|index: usize| folders[index].path().to_owned());
    let volumes = vec![
        (innermost.clone(), "/data//x/deep/y/", false),
        (outer.clone(), "/data/.", false),
        (inner.clone(), "/data/x", false),
    ];
    let done = Launch { volumes, ..image.sh("ls /data /data/x /data/x/deep/y") }.finish();
    assert_eq!(done.text(), "/data:\nouter\nx\n\n/data/x:\ndeep\ninner\n\n/data/x/deep/y:\ninnermost\n");
    // A mount of the host in a volume is no volume.
    let mounted = [inner.clone(), outer.join("x")];
    rustix::mount::mount_bind(&mounted[0], &mounted[1]).expect("bind");
    let volumes = vec![(outer.clone(), "/data", false), (innermost.clone(), "/data/x", false)];
    let over = Launch { volumes, ..image.sh("ls /data/x") }.finish();
    rustix::mount::unmount(&mounted[1], rustix::mount::UnmountFlags::empty()).expect("unmount");
    assert_eq!(over.text(), "innermost\n");
    for (target, expected) in [
        ("/data/", "two mounts have the same place"),
        ("/data/../data", "no place in a container"),
        ("/proc/x", "are the kernel's"),
        ("/dev", "are the kernel's"),
        // Only the image knows.
        ("/link", "cannot mount a volume: Device or resource busy"),
        ("/top", "cannot mount a volume: Device or resource busy"),
    ] {
        let volumes = vec![(outer.clone(), "/data", false), (inner.clone(), target, false)];
        let done = Launch { volumes, ..image.sh("true") }.finish();
        assert!(done.code == 125 && done.text().contains(expected), "{target}: {}", done.text());
    }
    let done = Launch { files: vec![("/sys/x", "")], ..image.sh("true") }.finish();
    assert!(done.code == 125 && done.text().contains("are the kernel's"), "{}", done.text());
}

#[test]
fn what_links_of_the_image_lead_a_volume_over_is_an_error() {
    // As every image of Debian has it.
    let image = Image::new();
    fs::create_dir_all(image.path("run")).expect("create");
    fs::create_dir_all(image.path("var")).expect("create");
    symlink("/run", image.path("var/run")).expect("symlink");
    let folders: Vec<_> = (0..2).map(|_| tempfile::tempdir().expect("tempdir")).collect();
    let [first, second] = [0, 1].map(|index: usize| folders[index].path().to_owned());
    for (volumes, files, expected) in [
        // Of one depth: the second comes over the first, and has its name or has it not.
        (vec![(&first, "/run/x"), (&second, "/var/run")], vec![], "cannot mount a volume"),
        (
            vec![(&first, "/run/x"), (&second, "/var/run"), (&first, "/run/y")],
            vec![],
            "cannot mount a volume",
        ),
        (vec![(&second, "/var/run")], vec![("/run/app.conf", "")], "cannot write a file of the container"),
        (vec![(&second, "/run")], vec![("/var/run/app.conf", "")], "cannot write a file of the container"),
    ] {
        for has_it in [false, true] {
            if has_it {
                fs::create_dir_all(second.join("x")).expect("create");
                fs::write(second.join("app.conf"), "").expect("write");
            }
            let volumes = volumes.iter().map(|(folder, place)| ((*folder).clone(), *place, false));
            let (volumes, files) = (volumes.collect(), files.clone());
            let done = Launch { volumes, files, ..image.sh("true") }.finish();
            let expected = format!("{expected}: Device or resource busy");
            assert!(done.code == 125 && done.text().contains(&expected), "{}", done.text());
        }
    }
    // What covers nothing.
    let volumes = vec![(first.clone(), "/var/run/a/b", false), (second.clone(), "/run/a", false)];
    let files = vec![("/var/run/app.conf", "seen")];
    fs::write(first.join("mark"), "").expect("write");
    let done = Launch { volumes, files, ..image.sh("cat /run/app.conf; ls /run/a /run/a/b") }.finish();
    assert!(done.text().contains("seen") && done.text().contains("mark"), "{}", done.text());
}

#[test]
fn a_limit_that_nobody_keeps_is_an_error_that_names_the_controller() {
    let image = Image::new();
    let controllers = ["/sys/fs/cgroup/cgroup.controllers", "/sys/fs/cgroup/unified/cgroup.controllers"];
    let has = controllers.iter().find_map(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    let limits = Limits { memory_bytes: Some(64 << 20), ..Limits::default() };
    let name = format!("test-{}", std::process::id());
    let spec = Spec { limits: Some((name, limits)), ..harness::spec(image.path("")) };
    let done = run(&spec, &harness::program(&["true"]));
    if has.split_whitespace().any(|controller| controller == "memory") {
        assert_eq!(done.expect("runs"), 0);
    } else {
        let error = done.expect_err("nobody keeps the limit").to_string();
        assert!(error.contains("no memory controller"), "{error}");
    }
}

#[test]
fn nothing_of_the_host_is_mounted_inside() {
    let image = Image::new();
    let done = image.sh("cat /proc/self/mountinfo; echo; ls /; echo; ls /..; echo; ls /../../..").finish();
    let parts: Vec<&str> = done.text().split("\n\n").map(str::trim_end).collect();
    let [mounts, root, above, further] = parts[..] else { panic!("{}", done.text()) };
    assert_eq!((above, further), (root, root), "there is nothing above the root");
    assert!(root.lines().eq(["bin", "dev", "etc", "proc", "root", "sys", "tmp"]), "{root}");
    for mount in mounts.lines() {
        let kind = mount.split(" - ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a type");
        let known = ["overlay", "proc", "sysfs", "tmpfs", "devpts", "mqueue"].contains(&kind);
        let device = mount
            .split(' ')
            .nth(4)
            .is_some_and(|place| place.starts_with("/dev/") || place.starts_with("/proc/"));
        assert!(known || device, "{mount}");
    }
    assert_eq!(mounts.lines().filter(|mount| mount.split(' ').nth(4) == Some("/")).count(), 1, "{mounts}");
}
