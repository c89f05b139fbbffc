//! Trees that no packer writes. The rules themselves are tested beside the validator, byte by byte; here, that an flist
//! with such a tree is refused as a whole.

use super::*;

fn refused_tree(what: &str, says: &str, change: impl FnOnce(&mut Forge)) {
    let mut forge = Forge::of(&HONEST);
    change(&mut forge);
    forge.link();
    refused(what, forge, "tree", says);
}

/// Lets the entry of the directory `of` name the inode of `to`.
fn redirect(forge: &mut Forge, of: &str, to: &str) {
    let (at, nid) = (forge.dirent_of(of), forge.nid(to));
    forge.tree[at..at + 8].copy_from_slice(&nid.to_le_bytes());
}

#[test]
fn directories_that_lead_back_or_together_are_refused() {
    refused_tree("a loop to the root", "reached twice", |f| redirect(f, "d/sub", ""));
    refused_tree("a loop to itself", "reached twice", |f| redirect(f, "d/sub", "d"));
    refused_tree("a loop through a child", "", |f| redirect(f, "d", "d/sub/deep"));
    refused_tree("two parents", "", |f| redirect(f, "twin", "d/sub"));
    refused_tree("a file for a directory", "type of a directory entry", |f| redirect(f, "d", "words"));
    refused_tree("nowhere", "outside the image", |f| {
        let at = f.dirent_of("d/sub");
        f.tree[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    });
}

#[test]
fn names_that_are_no_names_are_refused() {
    refused_tree("a slash", "not a file name", |f| f.replace_in_tree(b"empty", b"em/ty"));
    refused_tree("a NUL", "not a file name", |f| f.replace_in_tree(b"empty", b"em\0ty"));
    refused_tree("a dot", "nid", |f| f.replace_in_tree(b"..deepqq", b"..deep.\0"));
    refused_tree("two dots", "nid", |f| f.replace_in_tree(b"..deepqq", b"..deep.."));
    refused_tree("twice the same", "not greater", |f| f.replace_in_tree(b"nanbsub", b"nbnbsub"));
    refused_tree("out of order", "not greater", |f| f.replace_in_tree(b"nanbsub", b"nbnasub"));
}

#[test]
fn superblocks_that_lie_are_refused() {
    refused_tree("another magic", "not an EROFS image", |f| f.tree[1024] ^= 1);
    refused_tree("unknown features", "unknown features", |f| f.tree[1024 + 80] |= 0x40);
    refused_tree("another size", "its superblock says", |f| f.tree[1024 + 36] ^= 1);
    refused_tree("another count of inodes", "number of inodes", |f| f.tree[1024 + 16] += 1);
    refused_tree("a cut tree", "its superblock says", |f| f.tree.truncate(4096));
    refused_tree("a piece of a block", "", |f| f.tree.push(0));
    refused_tree("nothing of it", "not an EROFS image", |f| f.tree.truncate(100));
    let mut forge = Forge::of(&HONEST);
    forge.tree[1028] ^= 1;
    let tree = forge.tree.clone();
    forge.link_tree(&tree);
    refused("a wrong checksum", forge, "tree", "wrong checksum");
}

/// The data spaces are as large as the tree says: smaller ones cut off extents of the map, or chunks of the tree.
#[test]
fn data_spaces_smaller_than_what_lies_in_them_are_refused() {
    for slot in [1152, 1280] {
        let mut forge = Forge::of(&HONEST);
        let small = u32::from_le_bytes(forge.tree[1152 + 64..][..4].try_into().unwrap());
        let at = slot + 64;
        let blocks = u32::from_le_bytes(forge.tree[at..at + 4].try_into().unwrap());
        forge.tree[at..at + 4].copy_from_slice(&(blocks - 1).to_le_bytes());
        if slot == 1152 {
            // Where `big` would begin in one image of all.
            let tree_blocks = forge.tree.len() as u32 / 4096;
            forge.tree[1280 + 68..][..4].copy_from_slice(&(tree_blocks + small - 1).to_le_bytes());
        }
        forge.link();
        let (id, objects) = forge.seal();
        refused_as("a smaller space", id, &objects, &[id], "tree", "beyond its device");
    }
}
