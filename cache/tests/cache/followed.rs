//! A list that somebody else keeps up to date, as the neighbours of a `peer:` are.

use std::sync::Arc;

use g8_cache::{AddError, MAX_SOURCES, Origin, Source, Sources};

use crate::harness::*;

fn named(spec: &str, blocks: &[Block]) -> (Arc<TestOrigin>, Arc<Source>) {
    let mut origin = TestOrigin::good(blocks);
    origin.spec = spec.into();
    let origin = Arc::new(origin);
    (origin.clone(), Arc::new(Source::new(origin as Arc<dyn Origin>)))
}

fn specs(sources: &Sources) -> Vec<String> {
    sources.list().iter().map(|source| source.spec().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_added_behind_another_is_asked_before_those_that_follow() {
    let blocks = blocks(1, 100_000);
    let (_, peer) = named("peer:", &[]);
    let (far, last) = named("far:", &blocks);
    let (near, neighbour) = named("near:", &blocks);
    let sources = Sources::new([peer, last]);
    sources.add_behind("peer:", neighbour.clone()).unwrap();
    assert_eq!(specs(&sources), ["peer:", "near:", "far:"]);
    assert_eq!(sources.add_behind("peer:", neighbour), Err(AddError::Present));
    read_all(&memory_only(MIB), &blocks, &sources).await;
    assert_eq!((near.calls(), far.calls()), (1, 0));

    for number in 3..MAX_SOURCES {
        sources.add_behind("gone:", named(&format!("{number}:"), &[]).1).unwrap();
    }
    assert_eq!(specs(&sources)[2..4], ["far:", "3:"], "behind nobody is last");
    assert_eq!(sources.add_behind("peer:", named("more:", &[]).1), Err(AddError::Full));
}

#[test]
fn who_follows_a_list_does_not_keep_it() {
    let sources = Sources::new([named("a:", &[]).1]);
    let followed = sources.downgrade();
    assert_eq!(specs(&followed.upgrade().expect("it is there")), ["a:"]);
    assert!(followed.is_of(&sources.clone()) && !followed.is_of(&Sources::new([])));
    drop(sources);
    assert!(followed.upgrade().is_none());
}
