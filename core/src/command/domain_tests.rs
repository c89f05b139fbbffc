//! What commands of the domains refuse before anything is done, and with which code they fail afterwards.

use serde_json::{Value, json};

use super::*;
use crate::domain::bridge::BridgeError;
use crate::domain::disk::DiskError;
use crate::domain::filesystem::FilesystemError;
use crate::domain::ip::IpError;

/// The complaint about arguments of a command, without the name of the command.
fn refused<C: Command>(arguments: Value) -> String {
    let shown = arguments.to_string();
    let error = match decode::<C>(C::NAME, arguments) {
        Ok(_) => panic!("{} takes {shown:.200}", C::NAME),
        Err(error) => error,
    };
    assert_eq!(error.code(), Code::BadRequest);
    let said = error.report();
    assert!(said.len() < 600, "a long complaint: {said}");
    said.strip_prefix(C::NAME).unwrap_or_else(|| panic!("{said} does not name the command")).to_owned()
}

fn taken<C: Command>(arguments: Value) {
    if let Err(error) = decode::<C>(C::NAME, arguments.clone()) {
        panic!("{arguments}: {error}");
    }
}

#[test]
fn missing_arguments_are_named() {
    assert_eq!(refused::<filesystem::Open>(json!({})), ": missing field `file`");
    assert_eq!(refused::<filesystem::Write>(json!({"fd": "x"})), ": missing field `block`");
    assert_eq!(refused::<disk::MkPart>(json!({"disk": "sda", "start": 1})), ": missing field `end`");
    assert_eq!(
        refused::<disk::Mount>(json!({"source": "/dev/sda1", "target": null})),
        ": missing field `target`"
    );
    assert_eq!(refused::<ip::AddrAdd>(json!({"name": "eth0"})), ": missing field `ip`");
    assert_eq!(refused::<bridge::Create>(json!(null)), ": missing field `name`");
    assert_eq!(refused::<btrfs::Create>(json!({"label": "x"})), ": missing field `devices`");
    assert_eq!(refused::<flist::Mount>(json!({"mountpoint": "/mnt"})), ": missing field `ref`");
}

#[test]
fn mistyped_arguments_are_named() {
    let said = refused::<filesystem::Open>(json!({"file": 7}));
    assert_eq!(said, ": file: invalid type: integer `7`, expected a string");
    let said = refused::<filesystem::Chmod>(json!({"path": "/x", "mode": "0755"}));
    assert_eq!(said, ": mode: invalid type: string \"0755\", expected u32");
    let said = refused::<filesystem::Chmod>(json!({"path": "/x", "mode": -1}));
    assert!(said.contains(": mode: invalid value: integer `-1`, expected u32"), "{said}");
    let said = refused::<nft::OpenPort>(json!({"port": 65_536}));
    assert!(said.contains(": port: invalid value: integer `65536`, expected u16"), "{said}");
    let said = refused::<disk::MkTable>(json!({"disk": "sda", "table_type": "ntfs"}));
    assert!(said.contains(": table_type: unknown variant `ntfs`, expected one of"), "{said}");
    let said = refused::<btrfs::Create>(json!({"devices": ["sda"], "data": "raid7"}));
    assert!(said.contains(": data: unknown variant `raid7`"), "{said}");
    let said = refused::<bridge::Create>(json!({"name": "br0", "network": {"nat": "yes"}}));
    assert!(said.starts_with(": network.nat: invalid type"), "{said}");
    let said = refused::<disk::RmPart>(json!({"disk": "sda", "number": "1"}));
    assert!(said.starts_with(": number: invalid type"), "{said}");
    refused::<filesystem::Chmod>(json!({"path": "/x", "mode": "7".repeat(1 << 20)}));
    refused::<info::Cpu>(json!([]));
    refused::<info::Cpu>(json!("x"));
}

#[test]
fn paths_are_absolute_and_have_no_nul() {
    for path in ["", "x", "../x", "/a\u{0}b"] {
        refused::<filesystem::Remove>(json!({"path": path}));
        refused::<filesystem::Move>(json!({"path": "/a", "destination": path}));
        refused::<disk::Mount>(json!({"source": "/dev/sda1", "target": path}));
        refused::<btrfs::SubvolDelete>(json!({"path": path}));
        refused::<flist::Umount>(json!({"mountpoint": path}));
    }
    assert_eq!(
        refused::<filesystem::List>(json!({"path": "x"})),
        ": path: path \"x\" is not absolute: it must start with /"
    );
    let long = format!("/{}", "x".repeat(1 << 20));
    let said = refused::<filesystem::Exists>(json!({"path": long}));
    assert!(said.contains("has 1048577 bytes, more than 4095"), "{said}");
}

#[test]
fn names_of_links_and_addresses_are_checked() {
    for name in ["", "a b", "-x", "../x", "sixteen-bytes-xx", "x\u{0}"] {
        refused::<ip::LinkUp>(json!({"name": name}));
        refused::<ip::LinkName>(json!({"name": "eth0", "new": name}));
        refused::<bridge::Delete>(json!({"name": name}));
    }
    for address in ["10.0.0.1", "10.0.0.1/33", "x/8", ""] {
        refused::<ip::AddrAdd>(json!({"name": "eth0", "ip": address}));
    }
    let said = refused::<ip::LinkMtu>(json!({"name": "x".repeat(1 << 20), "mtu": 1500}));
    assert!(said.contains("is no name of a link"), "{said}");
}

#[test]
fn what_the_old_client_sends_is_taken() {
    taken::<filesystem::Open>(json!({"file": "/x", "mode": "wx", "perm": 0o644}));
    taken::<filesystem::Chown>(json!({"path": "/x", "user": "root", "group": "root", "recursive": false}));
    taken::<bridge::Create>(
        json!({"name": "br0", "hwaddr": null, "network": {"mode": null, "nat": false, "settings": {}}}),
    );
    taken::<disk::MkPart>(json!({"disk": "sda", "start": "1", "end": "100%", "part_type": "primary"}));
    taken::<disk::MkPart>(json!({"disk": "sda", "start": 1, "end": 100, "part_type": "logical"}));
    taken::<disk::GetInfo>(json!({"disk": "sda", "part": ""}));
    taken::<disk::Mount>(json!({"options": "auto", "source": "/dev/sda1", "target": "/mnt"}));
    taken::<btrfs::Create>(
        json!({"label": "x", "metadata": "", "data": "raid1", "devices": ["/dev/sda"], "overwrite": false}),
    );
    taken::<btrfs::DeviceAdd>(json!({"mountpoint": "/mnt", "devices": ["/dev/sdb"]}));
    taken::<btrfs::SubvolQuota>(json!({"path": "/mnt/x", "limit": "10G"}));
}

#[test]
fn a_failure_has_the_code_that_tells_what_to_do() {
    let codes: [(CommandError, u32); 9] = [
        (DiskError::Missing("sdzz".into()).into(), 404),
        (DiskError::Signed { device: "sda".into(), what: "ext4".into() }.into(), 412),
        (DiskError::NoFolder("/x".into()).into(), 412),
        (BridgeError::Missing("br9".into()).into(), 404),
        (BridgeError::Exists("br0".into()).into(), 409),
        (IpError::Netlink(crate::sys::netlink::Error::NoLink("nic9".into())).into(), 404),
        (IpError::NoBridge("eth0".into()).into(), 400),
        (FilesystemError::TooManyOpen(1024).into(), 503),
        (FilesystemError::Root("/".into()).into(), 400),
    ];
    for (error, code) in codes {
        assert_eq!(error.code().number(), code, "{error}");
    }
    // An old client shows what is in the standard error of a failed disk command, and nothing else.
    let error: CommandError = DiskError::Missing("sdzz".into()).into();
    assert_eq!(error.stderr(), "no block device \"sdzz\" on this node");
}

#[tokio::test]
async fn what_a_tool_complained_is_the_standard_error_of_the_result() {
    let failed = crate::sys::tool::Tool::new("ls").arg("/no/such/place").run().await.unwrap_err();
    let error = tool_error("cannot list".to_owned(), failed);
    assert_eq!(error.code(), Code::Internal);
    assert!(error.stderr().contains("No such file"), "{}", error.stderr());
    let missing = crate::sys::tool::Tool::new("no-such-tool").run().await.unwrap_err();
    let error = tool_error("cannot list".to_owned(), missing);
    assert_eq!(
        (error.code(), error.report().as_str()),
        (Code::NotAcceptable, "cannot list: no-such-tool is not installed on this node")
    );
}

#[tokio::test]
async fn a_defect_below_a_command_is_its_failure_and_not_the_nodes() {
    let failed: Result<(), CommandError> =
        blocking(|| -> Result<(), CommandError> { panic!("a defect") }).await;
    assert_eq!(failed.unwrap_err().code(), Code::Internal);
}
