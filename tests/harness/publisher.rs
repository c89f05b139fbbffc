//! A user who publishes, and what is to be seen of that.

use serde_json::Value;

use crate::{Flist, Outcome, args, store, synthetic};

/// A user who has packed 7 MB, and the CID.
pub fn seven_megabytes() -> (Flist, String) {
    packed(synthetic::seven_megabytes)
}

/// A user who has packed the tree that `make` makes, `source` in the home, and the CID.
#[track_caller]
pub fn packed(make: fn(&std::path::Path)) -> (Flist, String) {
    let flist = Flist::new();
    let source = flist.home().join("source");
    make(&source);
    let cid = flist.pack(&source);
    (flist, cid)
}

/// The CIDs of everything in a user's store.
pub fn objects(flist: &Flist) -> Vec<String> {
    store::objects(flist.store()).into_iter().map(|(cid, _)| cid).collect()
}

/// Publishes and returns the report about the one sink.
#[track_caller]
pub fn publish(flist: &Flist, cid: &str, to: &str, options: &[&str]) -> Value {
    let mut arguments = args!["publish", cid, "--to", to, "--json"];
    arguments.extend(options.iter().map(Into::into));
    let reports = flist.ok(arguments).json();
    assert_eq!(reports.as_array().map(Vec::len), Some(1), "{reports}");
    reports[0].clone()
}

/// Panics unless a command failed with an explanation that has all these words.
#[track_caller]
pub fn explains(outcome: &Outcome, words: &[&str]) {
    assert_eq!(outcome.code, 1, "{}: {}", outcome.command, outcome.stderr);
    for needed in words {
        assert!(outcome.stderr.contains(needed), "{}: no {needed:?}: {}", outcome.command, outcome.stderr);
    }
    assert!(outcome.stdout.is_empty(), "what failed has no result: {}", outcome.text());
}
