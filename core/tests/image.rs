//! A small root filesystem of busybox, packed: what the containers of these tests are made of. Needs `/bin/busybox` linked
//! statically (Debian: `busybox-static`).

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use g8_fs::pack::{PackOptions, Progress, pack};
use g8_fs::source::DirStore;

const APPLETS: &str = "cat echo env false grep hostname httpd id ip kill ls mkdir mount nc nslookup ping ps readlink sh sleep \
     stat touch true udhcpc mkfifo truncate";

/// Packs it into a store below `folder`: the address, and the store.
pub fn pack_busybox(folder: &Path) -> (String, PathBuf) {
    let tree = folder.join("tree");
    for name in ["bin", "etc", "root", "tmp"] {
        fs::create_dir_all(tree.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", tree.join("bin/busybox")).expect("needs busybox-static in /bin");
    for applet in APPLETS.split(' ') {
        symlink("busybox", tree.join("bin").join(applet)).unwrap();
    }
    // bash, as far as these tests go.
    fs::write(tree.join("bin/bash"), "#!/bin/sh\nexec /bin/sh \"$@\"\n").unwrap();
    fs::set_permissions(tree.join("bin/bash"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(tree.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n").unwrap();
    fs::write(tree.join("etc/plain"), "no program").unwrap();
    let store = folder.join("store");
    (pack_with(&tree, &store, &PackOptions::default()), store)
}

/// Packs a tree into a store: the address.
pub fn pack_with(tree: &Path, store: &Path, options: &PackOptions) -> String {
    let store = DirStore::create(store).unwrap();
    let cancel = AtomicBool::new(false);
    pack(tree, options, &store, &Progress::default(), &cancel).unwrap().cid.to_string()
}
