//! Servers of all kinds, on the loopback.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use g8_fs::source::FileError;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use url::Url;

use super::super::document;
use super::super::fetch::{FetchError, fetch_within};
use super::super::follow::{Follower, Setup, State};
use super::super::medium::Named;
use super::super::mounts::Mounts;
use super::{Signer, expiring, numbered, of_others};

/// Longer than any answer that is right takes.
const LONG: Duration = Duration::from_secs(30);

/// Serves for ever what `answer` says to a path; nothing is silence, and what is said is said again for ever after a `*`.
async fn server(answer: impl Fn(&str) -> Option<String> + Send + 'static) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/boot/bootstrap_i64.yaml", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let said = answer(head.split(' ').nth(1).unwrap_or_default());
            tokio::spawn(async move {
                let Some(said) = said else { return std::future::pending().await };
                let endless = said.ends_with('*');
                while stream.write_all(said.as_bytes()).await.is_ok() && endless {}
            });
        }
    });
    url.parse().unwrap()
}

fn ok(body: &str) -> Option<String> {
    Some(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()))
}

fn head(status: &str) -> Option<String> {
    Some(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
}

async fn fault(url: &Url, patience: Duration) -> FileError {
    match fetch_within(url, patience).await.unwrap_err() {
        FetchError::File { source, .. } => source,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_file_comes_with_its_signature_also_from_where_a_redirect_leads() {
    let signed = Signer::new().sign(&numbered(1));
    let there = signed.clone();
    let url = server(move |path| match path {
        "/boot/bootstrap_i64.yaml" => head("302 Found\r\nLocation: /elsewhere"),
        "/elsewhere" => ok(std::str::from_utf8(&there.bytes).unwrap()),
        "/boot/bootstrap_i64.yaml.minisig" => ok(&there.signature),
        _ => head("404 Not Found"),
    })
    .await;
    assert_eq!(fetch_within(&url, LONG).await.unwrap(), signed);
}

#[tokio::test]
async fn a_server_that_is_dead_silent_endless_or_has_no_file_is_told_in_time() {
    let gone: Url = "http://127.0.0.1:1/bootstrap_i64.yaml".parse().unwrap();
    assert!(matches!(fault(&gone, LONG).await, FileError::NoAnswer(_)));

    let silent = server(|_| None).await;
    assert!(matches!(fault(&silent, Duration::from_millis(300)).await, FileError::Slow(_)));

    let endless = server(|_| Some("HTTP/1.1 200 OK\r\n\r\nword*".into())).await;
    assert!(matches!(fault(&endless, LONG).await, FileError::Long(document::FILE_MAX)));

    let none = server(|_| head("404 Not Found")).await;
    assert!(matches!(fault(&none, LONG).await, FileError::Status(404)));

    let round = server(|path| head(&format!("302 Found\r\nLocation: {path}"))).await;
    assert!(matches!(fault(&round, LONG).await, FileError::NoAnswer(why) if why.contains("too often")));

    let short = server(|_| Some("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".into())).await;
    assert!(matches!(
        fault(&short, Duration::from_secs(3)).await,
        FileError::NoAnswer(_) | FileError::Slow(_)
    ));
}

#[tokio::test]
async fn a_file_without_a_signature_and_a_signature_that_is_no_text_are_none() {
    let unsigned =
        server(|path| if path.ends_with("minisig") { head("404 Not Found") } else { ok("text") }).await;
    match fetch_within(&unsigned, LONG).await.unwrap_err() {
        FetchError::File { url, source: FileError::Status(404) } => {
            assert!(url.path().ends_with("/bootstrap_i64.yaml.minisig"), "{url}");
        }
        other => panic!("{other}"),
    }
    let page = "<html>please log in</html>".repeat(1000);
    let page = server(move |_| ok(&page)).await;
    // The page is short enough for a file, and too long for a signature.
    assert!(matches!(fault(&page, LONG).await, FileError::Long(super::super::signature::FILE_MAX)));
}

/// A follower of a server, with a folder of its own; what it tells.
fn follower(folder: &Path, url: Option<&Url>, signer: &Signer) -> (Follower, watch::Receiver<State>) {
    drop(signer.key(folder));
    std::fs::write(folder.join("manifest"), "what is in the image\n").unwrap();
    let server = url.map(|url| url.join(".").unwrap().as_str().parse().unwrap());
    let (controllers, _) = watch::channel(Vec::new());
    let setup = Setup {
        named: watch::channel(Named { server, trouble: None }).1,
        key: folder.join("bootstrap.pub"),
        kept: folder.join("kept"),
        manifest: folder.join("manifest"),
        controllers,
        mounts: watch::channel(Mounts::new()).1,
    };
    let (state, seen) = watch::channel(State::default());
    (Follower::new(setup, state), seen)
}

#[tokio::test]
async fn a_file_is_followed_and_a_server_that_goes_wrong_later_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (signer, stranger) = (Signer::new(), Signer::new());
    let wanted = format!(
        "{}image: {{build_id: {}, image_cid: bafyreibijbanlsc2dlo74o2vcmxnzgb4gaj5cwjfv526b7biquxrtaaca4, sequence: 9}}\n\
         redis: {{password_sha256: {}}}\noverlay: {{zerotier: 8056c2e21c000001}}\n",
        numbered(3),
        "ab".repeat(32),
        "cd".repeat(32)
    );
    let given = Arc::new(Mutex::new(Some(signer.sign(&wanted))));
    let gives = given.clone();
    let url = server(move |path| match &*gives.lock() {
        Some(signed) if path.ends_with(".minisig") => ok(&signed.signature),
        Some(signed) => ok(std::str::from_utf8(&signed.bytes).unwrap()),
        None => head("503 Service Unavailable"),
    })
    .await;
    let (mut follower, seen) = follower(folder.path(), Some(&url), &signer);
    assert!(follower.round().await);
    let shown = seen.borrow().shown.clone();
    assert_eq!((shown.sequence, shown.build_id.as_ref().map(String::len)), (Some(3), Some(64)));
    let update = shown.update_wanted.clone().unwrap();
    assert_eq!((update.build_id, update.sequence), ("ab".repeat(32), 9));
    assert!(shown.to_string().contains("update wanted: image bafyrei"), "{shown}");
    assert!(shown.trouble[0].starts_with("overlay 8056c2e21c000001 is not joined"), "{shown}");
    for (bad, said) in [
        (None, "503"),
        (Some(signer.sign(&numbered(2))), "3 was seen before"),
        (Some(stranger.sign(&numbered(4))), "does not hold"),
        (Some(signer.sign("<html>log in</html>")), "line 1"),
        (Some(signer.sign(&expiring(4, "2001-01-01T00:00:00Z"))), "expired"),
        (Some(signer.sign(&of_others(4))), "and this machine is none"),
    ] {
        *given.lock() = bad;
        assert!(!follower.round().await);
        let state = seen.borrow().clone();
        assert!(state.shown.trouble.iter().any(|why| why.contains(said)), "{said}: {}", state.shown);
        assert_eq!(state.document.unwrap().sequence, 3, "the old one holds");
    }
    // The image that should run runs.
    let own = shown.build_id.unwrap();
    let same = format!(
        "{}image: {{build_id: {own}, image_cid: bafyreibijbanlsc2dlo74o2vcmxnzgb4gaj5cwjfv526b7biquxrtaaca4, sequence: 9}}\n",
        numbered(5)
    );
    *given.lock() = Some(signer.sign(&same));
    assert!(follower.round().await);
    assert_eq!(seen.borrow().shown.update_wanted, None);
    assert_eq!(seen.borrow().shown.to_string(), "sequence 5");
}

#[tokio::test]
async fn without_a_server_or_a_key_it_is_said_and_nobody_is_believed() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::new();
    let (mut unnamed, seen) = follower(folder.path(), None, &signer);
    assert!(unnamed.round().await);
    assert!(seen.borrow().asked && seen.borrow().document.is_none());
    assert_eq!(seen.borrow().shown.to_string(), "no server is named");

    let url = server(|_| ok("anything")).await;
    let (_, _) = follower(folder.path(), Some(&url), &signer);
    std::fs::remove_file(folder.path().join("bootstrap.pub")).unwrap();
    let setup = Setup {
        named: watch::channel(Named { server: Some(url.as_str().parse().unwrap()), trouble: None }).1,
        key: folder.path().join("bootstrap.pub"),
        kept: folder.path().join("kept"),
        manifest: folder.path().join("manifest"),
        controllers: watch::channel(Vec::new()).0,
        mounts: watch::channel(Mounts::new()).1,
    };
    let (state, seen) = watch::channel(State::default());
    assert!(!Follower::new(setup, state).round().await);
    assert!(
        seen.borrow().shown.to_string().contains("believes no bootstrap file"),
        "{}",
        seen.borrow().shown
    );
}

#[tokio::test]
async fn a_password_is_taken_back_at_once_however_many_flists_do_not_come() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::new();
    let silent = server(|_| None).await;
    let named = |sequence: u64, more: &str| {
        let cid = "bafyreibijbanlsc2dlo74o2vcmxnzgb4gaj5cwjfv526b7biquxrtaaca4";
        let mounts: Vec<String> =
            (0..16).map(|place| format!("{{flist: {cid}, path: /var/lib/{place}}}")).collect();
        let source = silent.join("/").unwrap();
        let mounts = mounts.join(", ");
        signer.sign(&format!("{}mounts: [{mounts}]\nsources: ['{source}']\n{more}", numbered(sequence)))
    };
    let password = format!("redis: {{password_sha256: {}}}\n", "ab".repeat(32));
    let given = Arc::new(Mutex::new(named(1, &password)));
    let gives = given.clone();
    let url = server(move |path| match path.ends_with(".minisig") {
        true => ok(&gives.lock().signature),
        false => ok(std::str::from_utf8(&gives.lock().bytes).unwrap()),
    })
    .await;
    let (mut follower, seen) = follower(folder.path(), Some(&url), &signer);
    let password = || seen.borrow().document.as_ref().and_then(|document| document.redis.clone());
    let both = async {
        assert!(follower.round().await && password().is_some());
        *given.lock() = named(2, "");
        assert!(follower.round().await && password().is_none());
    };
    tokio::time::timeout(LONG, both).await.expect("it waits for flists");
}

#[tokio::test]
async fn a_file_that_expires_while_it_is_followed_is_followed_on_also_by_the_next_manager_and_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::new();
    let soon = jiff::Timestamp::now() + Duration::from_secs(10);
    let password = format!("redis: {{password_sha256: {}}}\n", "ab".repeat(32));
    let signed = signer.sign(&(expiring(1, &soon.to_string()) + &password));
    let given = Arc::new(Mutex::new(Some(signed)));
    let gives = given.clone();
    let url = server(move |path| match &*gives.lock() {
        Some(signed) if path.ends_with(".minisig") => ok(&signed.signature),
        Some(signed) => ok(std::str::from_utf8(&signed.bytes).unwrap()),
        None => head("503 Service Unavailable"),
    })
    .await;
    let (mut first, seen) = follower(folder.path(), Some(&url), &signer);
    assert!(first.round().await, "{}", seen.borrow().shown);
    let says_it = |seen: &watch::Receiver<State>| {
        let state = seen.borrow().clone();
        let document = state.document.expect("it is followed");
        assert_eq!((document.sequence, document.redis.is_some()), (1, true));
        let said = format!("the file that is followed has expired at {soon}: it is followed until a newer");
        state.shown.trouble.iter().any(|why| why.starts_with(&said))
    };
    assert!(!says_it(&seen));
    // Nobody gives another one: somebody may hold the server back.
    *given.lock() = None;
    while jiff::Timestamp::now() <= soon {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!first.round().await && says_it(&seen));
    drop(first);
    let (mut next, seen) = follower(folder.path(), Some(&url), &signer);
    assert!(says_it(&seen), "before it asks anybody: {}", seen.borrow().shown);
    *given.lock() = Some(signer.sign(&numbered(2)));
    assert!(next.round().await);
    assert_eq!(
        (seen.borrow().document.as_ref().unwrap().sequence, seen.borrow().shown.trouble.len()),
        (2, 0)
    );
}
