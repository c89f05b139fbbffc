//! Opens an image, mounts it, and serves it until the mount is gone or a signal asks for the end.
//!
//! Mount options, threads and `clone_fd` are those of `nydus fuse`; so is the absence of prefetch, which
//! their command starts only when it is told to. Blobs come from the image's own directory, or from another machine.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use fuser::{Config, MountOption, Session, SessionACL};
use nydus_backend::Local;
use nydus_core::ErofsReader;
use rustix::mount::{UnmountFlags, unmount};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::edge::Edge;
use crate::image::Image;
use crate::pack::BOOTSTRAP;
use crate::remote;

/// What `nydus-peer mount` takes.
#[derive(Args)]
pub struct MountArgs {
    /// An image directory that `pack` wrote, or the URL of a server with its files (see `remote`)
    image: PathBuf,
    /// An existing directory
    mountpoint: PathBuf,
    /// Where decoded chunk groups are kept; created if missing
    #[arg(long)]
    cache: PathBuf,
    /// Prove the BLAKE3 digest of every decoded group (their default: only its CRC-32C)
    #[arg(long)]
    verify: bool,
    /// FUSE threads, each with a cloned /dev/fuse
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=64))]
    threads: u8,
}

/// Why serving ends.
pub enum End {
    /// The kernel closed the connection: somebody unmounted us.
    Unmounted,
    /// A signal asks us to unmount.
    Asked,
}

/// Mounts, says so on stdout, and returns when nothing is mounted any more.
pub fn serve(args: &MountArgs) -> Result<()> {
    let (end, ended) = mpsc::channel();
    listen_for_signals(end.clone())?;
    ensure!(args.mountpoint.is_dir(), "{} is not a directory", args.mountpoint.display());
    let mountpoint = args.mountpoint.canonicalize().context("open the mount point")?;
    std::fs::create_dir_all(&args.cache).with_context(|| format!("create {}", args.cache.display()))?;

    let started = Instant::now();
    let image = open(args)?;
    let open_time = started.elapsed();
    let mounted = Session::new(Edge::new(image, end), &mountpoint, &config(args)).context("mount")?;
    let session = mounted.spawn().context("start the FUSE threads")?;
    let mount_time = started.elapsed() - open_time;

    let ready = serde_json::json!({
        "ready": true, "open_ms": milliseconds(open_time), "mount_ms": milliseconds(mount_time),
    });
    // A caller that does not listen loses the line, not the mount.
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{ready}").and_then(|()| stdout.flush());
    drop(stdout);

    match ended.recv().context("wait for the end")? {
        End::Unmounted => {
            // fuser takes a closed connection for a live mount, and its destructor would unmount by path
            // whatever stands there by now: the next benchmark's mount, perhaps. Our process ends here
            // anyway.
            std::mem::forget(session);
            Ok(())
        }
        End::Asked => match session.umount_and_join() {
            Err(busy) if busy.raw_os_error() == Some(libc::EBUSY) => {
                unmount(&mountpoint, UnmountFlags::DETACH).context("detach the busy mount")
            }
            result => result.context("unmount"),
        },
    }
}

/// Maps the bootstrap; the blob is opened by its first read, as in their daemon.
fn open(args: &MountArgs) -> Result<Image> {
    // Process-wide in their library: one process, one mount.
    nydus_storage::cache::set_skip_verify_checksums(!args.verify);
    let (backend, bootstrap) = if remote::is_url(&args.image) {
        let url = args.image.to_str().context("the URL is not UTF-8")?;
        remote::download_metadata(url, &args.cache)?;
        (remote::backend(url)?, args.cache.join(BOOTSTRAP))
    } else {
        let local = nydus_backend::metered(Arc::new(Local::new(args.image.clone())));
        (local, args.image.join(BOOTSTRAP))
    };
    ErofsReader::open_bootstrap(&bootstrap, backend, Some(&args.cache), None)
        .and_then(Image::new)
        .with_context(|| format!("open the image {}", bootstrap.display()))
}

fn config(args: &MountArgs) -> Config {
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.mount_options = vec![
        MountOption::RO,
        MountOption::FSName("nydus-peer".to_owned()),
        MountOption::DefaultPermissions,
        MountOption::Suid,
        MountOption::NoAtime,
    ];
    config.n_threads = Some(args.threads.into());
    config.clone_fd = true;
    config
}

/// Registered before the mount exists, so that no moment is left in which a signal would leave it behind.
fn listen_for_signals(end: Sender<End>) -> Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).context("listen for signals")?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for _ in signals.forever() {
                // Nobody listens any more only when we are ending already.
                let _ = end.send(End::Asked);
            }
        })
        .context("start the signal thread")?;
    Ok(())
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
