//! fs/SEMANTICS.md where it differs from a local disk: each test is one of its sentences.

mod semantics {
    mod attributes;
    mod daemon;
    mod files;
}
