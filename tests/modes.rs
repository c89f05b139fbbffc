//! What mode `kernel` must prove: the same tree as mode `fuse`, and sound when the daemon, its sources or its memory are not.
//! A test that asks for no mode holds in both.

mod modes {
    mod bad_input;
    mod churn;
    mod cost;
    mod death;
    mod equality;
    mod failing;
    mod hanging;
    mod memory;
    mod stacking;
}
