//! A short soak: what `make soak` does for as long as one likes.

use std::time::Duration;

use harness::soak::{self, Options};

#[test]
fn in_a_storm_of_faults_every_byte_is_right_or_an_error_in_time_and_all_heals() {
    let report = soak::run(Options { length: Duration::from_secs(20), seed: 20 });
    println!("{report}");
    assert!(!report.has_violations(), "{report}");
    assert_eq!(report.kinds(), ["car", "http", "ipfs"], "{report}");
    assert!(report.reads() > 100, "hardly anything was read: {report}");
}
