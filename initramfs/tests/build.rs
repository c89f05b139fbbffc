//! Builds real images from the machine's own mirror. Packages are fetched once per machine.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use initramfs::build::{self, BuildError, Options};
use initramfs::lock::Lock;
use initramfs::store::{Store, StoreError};
use initramfs::system;
use sha2::{Digest, Sha256};

fn recipes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("recipes")
}

/// The minimal image, with the programs that cargo built beside this test.
fn options(output: &Path) -> Options {
    let test = std::env::current_exe().unwrap();
    Options {
        recipe: recipes().join("minimal.toml"),
        lock: recipes().join("packages.lock"),
        relock: true,
        programs: test.ancestors().nth(2).unwrap().into(),
        cache: Store::usual().unwrap(),
        output: output.into(),
        with: Vec::new(),
    }
}

/// The lock that these tests build from: the committed one, or today's where the mirror has moved on.
fn lock_of(output: &Path) -> PathBuf {
    let relocked = output.join("packages.lock");
    if relocked.exists() { relocked } else { recipes().join("packages.lock") }
}

#[test]
fn two_builds_are_the_same_bytes_and_a_changed_text_is_another_image() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second, third] = ["first", "another/second", "third"].map(|name| folder.path().join(name));
    let built = build::build(&options(&first)).unwrap();
    // The same lock, other times and another place.
    let again = Options { lock: lock_of(&first), ..options(&second) };
    let again = build::build(&again).unwrap();
    assert_eq!(built.files.len(), 5);
    assert_eq!(built.build_id, again.build_id);
    for ((one, length), (other, _)) in built.files.iter().zip(&again.files) {
        assert_eq!(one.file_name(), other.file_name());
        assert_eq!(digest(one), digest(other), "{} differs", one.display());
        assert!(*length > 1 << 20 && *length == std::fs::metadata(one).unwrap().size());
    }
    let initramfs = &built.files[1];
    assert!(initramfs.1 <= 40_000_000, "the minimal initramfs has {} bytes", initramfs.1);

    let own = folder.path().join("recipes");
    std::fs::create_dir(&own).unwrap();
    let text = std::fs::read_to_string(recipes().join("minimal.toml")).unwrap();
    std::fs::write(own.join("minimal.toml"), text.replace("127.0.0.1 localhost", "127.0.0.1 other")).unwrap();
    let changed = Options { recipe: own.join("minimal.toml"), lock: lock_of(&first), ..options(&third) };
    let changed = build::build(&changed).unwrap();
    assert_eq!(digest(&built.files[0].0), digest(&changed.files[0].0));
    assert_ne!(digest(&initramfs.0), digest(&changed.files[1].0));
    assert_ne!(built.build_id, changed.build_id);
}

#[test]
fn a_lock_that_the_mirror_has_left_behind_is_an_error_that_says_what_to_do_or_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("packages.lock");
    let mut lock = Lock::load(&recipes().join("packages.lock")).unwrap();
    let old = lock.packages.iter_mut().find(|package| package.name == "kmod").unwrap();
    old.version = "29-0".into();
    old.file = "kmod_29-0_amd64.deb".into();
    lock.save(&path).unwrap();
    let output = folder.path().join("out");
    let stale = Options { lock: path.clone(), relock: false, ..options(&output) };
    let error = build::build(&stale).unwrap_err();
    assert!(matches!(error, BuildError::Stale { .. }), "{error:?}");
    for words in ["packages.lock", "kmod", "29-0", "make image-lock"] {
        assert!(error.to_string().contains(words), "{error}");
    }
    build::build(&Options { relock: true, ..stale }).unwrap();
    let today = Lock::load(&output.join("packages.lock")).unwrap();
    assert!(today.packages.iter().any(|package| package.name == "kmod" && package.version != "29-0"));
    assert_eq!(Lock::load(&path).unwrap(), lock, "the lock itself is changed on purpose only");
}

#[test]
fn a_lock_of_a_day_that_has_not_come_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("packages.lock");
    let mut lock = Lock::load(&recipes().join("packages.lock")).unwrap();
    lock.made = initramfs::lock::now() + 2 * 24 * 60 * 60;
    lock.save(&path).unwrap();
    let output = folder.path().join("out");
    let ahead = Options { lock: path, cache: folder.path().join("cache"), ..options(&output) };
    let error = build::build(&ahead).unwrap_err();
    assert!(matches!(error, BuildError::Ahead { made, .. } if made == lock.made), "{error:?}");
    for words in ["packages.lock", "has not come", "set the clock", "make image-lock"] {
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn a_package_with_another_hash_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let tree = system(&folder.path().join("tree"));
    system::build(&tree).unwrap();
    let path = folder.path().join("packages.lock");
    let mut lock = Lock::load(&lock_of(&tree.output)).unwrap();
    let forged = lock.packages.iter_mut().find(|package| package.name == "nftables").unwrap();
    forged.sha256 = "0".repeat(64);
    lock.save(&path).unwrap();
    let options = Options { lock: path, relock: false, ..system(&folder.path().join("out")) };
    let error = system::build(&options).unwrap_err();
    assert!(
        matches!(&error, BuildError::Store(StoreError::Wrong(path)) if path.to_string_lossy().contains("nftables")),
        "{error:?}"
    );
    assert!(!folder.path().join("out/system").exists());
}

/// The tree of the system flist.
fn system(output: &Path) -> Options {
    Options { recipe: recipes().join("system.toml"), ..options(output) }
}

#[test]
fn a_system_flist_has_no_kernel_and_never_a_way_in() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let built = system::build(&system(&output)).unwrap();
    assert_eq!(built.folder, output.join("system"));
    for path in
        ["bin/bash", "usr/sbin/nft", "lib64/ld-linux-x86-64.so.2", "etc/ssl/certs/ca-certificates.crt"]
    {
        assert!(built.folder.join(path).is_file(), "{path}");
    }
    assert!(!built.folder.join("lib/modules").exists());
    // Of an image it can be told apart, both ways.
    let error = build::build(&system(&output)).unwrap_err();
    assert!(
        error.to_string().contains("system.toml") && error.to_string().contains("`initramfs system`"),
        "{error}"
    );
    let error = system::build(&options(&output)).unwrap_err();
    assert!(error.to_string().contains("`initramfs build`"), "{error}");

    let own = folder.path().join("recipes");
    std::fs::create_dir(&own).unwrap();
    std::fs::copy(recipes().join("system.toml"), own.join("system.toml")).unwrap();
    let more = "extends = \"system\"\n[packages]\ndropbear-bin = [\"/usr/sbin/dropbear\"]\n";
    std::fs::write(own.join("more.toml"), more).unwrap();
    let more = Options { recipe: own.join("more.toml"), lock: lock_of(&output), ..system(&output) };
    let error = system::build(&more).unwrap_err();
    assert!(error.to_string().contains("takes /usr/sbin/dropbear"), "{error}");
    // What was there stays.
    assert!(built.folder.join("bin/bash").is_file() && !built.folder.join("usr/sbin/dropbear").exists());
}

fn digest(path: &Path) -> Vec<u8> {
    Sha256::digest(std::fs::read(path).unwrap()).to_vec()
}
