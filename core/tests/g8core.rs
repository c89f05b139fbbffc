//! The old Python client, g8core 1.0.0 unmodified from PyPI, drives a node: every call it has but ZeroTier
//! and KVM.

#[path = "python/fenced.rs"]
mod fenced;
mod image;
#[path = "python/venv.rs"]
mod venv;

use fenced::Fenced;
use venv::{crate_dir, venv};

fn drives_a_node(environment: &str) {
    let venv = venv(environment);
    let node = Fenced::start();
    let tests = crate_dir().join("tests/python");
    let (cid, store) = image::pack_busybox(node.folder());
    let mut pytest = node.pytest(&venv, &tests);
    pytest.env("G8_TEST_FLIST", cid).env("G8_TEST_STORE", store);
    node.passes(pytest.arg("test_g8core.py"));
}

#[test]
fn g8core_makes_every_call_it_has() {
    drives_a_node("g8core");
}

#[test]
fn g8core_makes_every_call_it_has_over_the_redis_client_of_its_time() {
    drives_a_node("g8core-oldest");
}
