//! A test that lacks what it needs says `SKIP why`; in CI (`CI` is set) that is a failure.

/// Reports a skip; the caller returns right after it.
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "SKIP {why} (a skip is a failure in CI)");
    eprintln!("SKIP {why}");
}
