use super::*;

/// More than attaching has steps.
const MANY: usize = 100;

async fn with_bridge(folder: &Path) -> Arc<Networks> {
    let node = node(folder);
    let mode = bridge::Mode::Static { network: "10.5.0.1/24".parse().unwrap() };
    let plan = bridge::Plan::new("br0".parse().unwrap(), None, mode, false).unwrap();
    node.bridges.create(&plan).await.unwrap();
    // The firewall has its table, as after the first port ever.
    node.firewall.install().await.unwrap();
    node
}

/// Containers that were not there before a manager was killed.
fn nobody() -> BTreeSet<Id> {
    BTreeSet::new()
}

#[test]
fn a_failure_at_any_step_leaves_nothing() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let node = with_bridge(dir.path()).await;
        let before = traces(dir.path()).await;
        let container = Container::new();
        for n in 1..MANY {
            node.faults.steps.store(0, Ordering::SeqCst);
            node.faults.fail.store(n, Ordering::SeqCst);
            match container.attach(&node, 1, full_plan()).await {
                Ok(_) => {
                    assert_eq!(n, 14, "another number of steps: does each one fail here?");
                    return;
                }
                Err(NetworkError::Injected(at)) => assert_eq!(at, n),
                Err(other) => panic!("{other}"),
            }
            until_without_default_bridge(&node).await;
            assert_eq!(
                difference(&before, &traces(dir.path()).await),
                Vec::<String>::new(),
                "after step {n}"
            );
            let inside = container.run("ip -o link").await.unwrap();
            assert_eq!(inside.lines().count(), 1, "after step {n}: {inside}");
            assert_eq!((node.get(1), node.users("br0")), (None, vec![]));
        }
        panic!("there is no end of steps");
    });
}

#[test]
fn the_next_manager_removes_what_one_left_that_was_killed_at_any_step() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let node = with_bridge(dir.path()).await;
        let before = traces(dir.path()).await;
        drop(node);
        for n in 1..MANY {
            let killed = self::node(dir.path());
            killed.faults.die.store(n, Ordering::SeqCst);
            let container = Container::new();
            let attaching = tokio::spawn({
                let (killed, netns) = (killed.clone(), container.netns());
                async move {
                    let netns = std::os::fd::AsFd::as_fd(&netns);
                    killed.reserve_here(1, "test", &full_plan()).await?;
                    killed.attach_here(1, netns).await.map(|_| ())
                }
            });
            let died = tokio::select! {
                () = killed.faults.dead.notified() => true,
                () = tokio::time::sleep(Duration::from_secs(60)) => panic!("step {n} is not reached, nor the end"),
                () = async { while !attaching.is_finished() { tokio::time::sleep(Duration::from_millis(5)).await } } => false,
            };
            attaching.abort();
            let _ = attaching.await;
            // Its memory goes, and its sockets; its dnsmasq lives on.
            drop(Arc::into_inner(killed).expect("nobody else has it").state);
            let next = self::node(dir.path());
            next.bridges.recover().await.unwrap();
            next.recover(&nobody()).await.unwrap();
            until_without_default_bridge(&next).await;
            assert_eq!(
                difference(&before, &traces(dir.path()).await),
                Vec::<String>::new(),
                "after step {n}"
            );
            next.bridges.stop().await;
            if !died {
                assert_eq!(n, 14, "another number of steps: is the manager killed at each of them?");
                return;
            }
        }
        panic!("there is no end of steps");
    });
}

#[test]
fn the_next_manager_takes_up_what_lives() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let killed = with_bridge(dir.path()).await;
        let (living, dead) = (Container::new(), Container::new());
        let attached = living.attach(&killed, 1, full_plan()).await.unwrap();
        dead.attach(&killed, 2, default_plan()).await.unwrap();
        let before = traces(dir.path()).await;
        drop(Arc::into_inner(killed).expect("nobody else has it").state);
        // Meanwhile somebody removed the bridge and all rules.
        run("ip link del core0; nft flush ruleset").await;
        let next = self::node(dir.path());
        next.bridges.recover().await.unwrap();
        next.recover(&BTreeSet::from([1])).await.unwrap();
        assert_eq!((next.get(1), next.get(2)), (Some(attached), None));
        let gone = difference(&before, &traces(dir.path()).await);
        let expected = |trace: &String| trace.contains("c2n0") || trace.ends_with("/2.json");
        assert!(gone.iter().all(expected), "{gone:?}");
        let ping = living.run("busybox ping -c 1 -W 10 172.18.0.1").await;
        ping.expect("the container has its bridge again");
        // The next one gets another address than the one that lives.
        let third = Container::new();
        assert_ne!(
            third.attach(&next, 3, default_plan()).await.unwrap().address(),
            next.get(1).unwrap().address()
        );
        let taken = third.attach(&next, 4, full_plan()).await.unwrap_err();
        assert!(matches!(taken, NetworkError::AddressTaken { .. }), "{taken}");
        next.release(1).await.unwrap();
        next.release(3).await.unwrap();
        next.stop().await.unwrap();
        next.bridges.delete("br0").await.unwrap();
        assert_eq!(next.bridges.list().await.unwrap(), Vec::<String>::new());
    });
}

#[test]
fn a_caller_that_goes_away_leaves_nothing_half_made() {
    in_new_network(|| async {
        let dir = tempfile::tempdir().unwrap();
        let node = node(dir.path());
        let before = traces(dir.path()).await;
        let container = Container::new();
        for wait in [0, 1, 5, 20, 60] {
            let attaching = container.attach(&node, 1, default_plan());
            let _ = tokio::time::timeout(Duration::from_millis(wait), attaching).await;
            // Whoever cleans up after the caller waits for what is under way.
            let reserved = async {
                while node.users(DEFAULT_BRIDGE).is_empty() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                node.release(1).await.unwrap();
            };
            tokio::time::timeout(Duration::from_secs(60), reserved).await.expect("it is reserved in the end");
            let late = node.attach(1, container.netns()).await.unwrap_err();
            assert_eq!(late.to_string(), "no network is reserved for container 1");
            assert_eq!(container.run("ip -o link").await.unwrap().lines().count(), 1);
        }
        until_without_default_bridge(&node).await;
        assert_eq!(difference(&before, &traces(dir.path()).await), Vec::<String>::new());
    });
}
