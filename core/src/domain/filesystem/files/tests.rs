use std::fs;

use super::*;

fn open_in(files: &Arc<Files>, path: &Path, mode: &str) -> Result<String, FilesystemError> {
    files.open(path, mode.parse().unwrap(), Mode::from_raw_mode(0o644))
}

#[tokio::test]
async fn what_is_written_is_read_again_block_by_block() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let files = Arc::new(Files::default());
    let content: Vec<u8> = (0..BLOCK + 1000).map(|i| (i % 251) as u8).collect();
    let name = open_in(&files, &path, "wx").unwrap();
    for part in content.chunks(100_000) {
        files.write(&name, part).unwrap();
    }
    files.close(&name).unwrap();
    let name = open_in(&files, &path, "r").unwrap();
    assert_eq!(files.read(&name).unwrap(), content[..BLOCK]);
    assert_eq!(files.read(&name).unwrap(), content[BLOCK..]);
    assert_eq!(files.read(&name).unwrap(), b"");
    files.close(&name).unwrap();
}

#[tokio::test]
async fn an_upload_replaces_a_longer_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "a longer content").unwrap();
    let files = Arc::new(Files::default());
    let name = open_in(&files, &path, "wx").unwrap();
    files.write(&name, b"short").unwrap();
    files.close(&name).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"short");
    assert!(open_in(&files, &path, "x").is_err(), "x alone wants a new file");
}

#[tokio::test]
async fn a_closed_file_is_not_open() {
    let files = Arc::new(Files::default());
    let name = open_in(&files, Path::new("/proc/version"), "r").unwrap();
    assert!(files.read(&name).unwrap().starts_with(b"Linux"));
    files.close(&name).unwrap();
    for error in [
        files.read(&name).unwrap_err(),
        files.write(&name, b"").unwrap_err(),
        files.close(&name).unwrap_err(),
    ] {
        assert!(matches!(error, FilesystemError::NotOpen(..)), "{error:?}");
    }
}

#[tokio::test]
async fn what_has_no_bytes_of_its_own_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let files = Arc::new(Files::default());
    for path in [fifo.as_path(), dir.path()] {
        let error = open_in(&files, path, "r").unwrap_err();
        assert!(matches!(error, FilesystemError::NoFile(..)), "{error:?}");
    }
    assert!(files.table.lock().open.is_empty());
}

#[tokio::test]
async fn the_number_of_open_files_is_bounded() {
    let files = Arc::new(Files::default());
    for _ in 0..MAX_OPEN {
        open_in(&files, Path::new("/dev/null"), "r").unwrap();
    }
    let error = open_in(&files, Path::new("/dev/null"), "r").unwrap_err();
    assert!(matches!(error, FilesystemError::TooManyOpen(MAX_OPEN)), "{error:?}");
    let any = files.table.lock().open.keys().next().unwrap().clone();
    files.close(&any).unwrap();
    open_in(&files, Path::new("/dev/null"), "r").unwrap();
}

#[tokio::test]
async fn an_idle_file_is_closed_and_a_used_one_is_not() {
    let idle = Duration::from_millis(400);
    let files =
        Arc::new(Files { most: MAX_OPEN, table: Mutex::default(), idle, round: Duration::from_millis(20) });
    let forgotten = open_in(&files, Path::new("/dev/zero"), "r").unwrap();
    let held = open_in(&files, Path::new("/dev/zero"), "r").unwrap();
    let busy = files.get(&held).unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while files.table.lock().open.contains_key(&forgotten) {
        assert!(Instant::now() < end, "an idle file stays open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(files.table.lock().open.contains_key(&held), "a file was closed below a read");
    drop(busy);
    while files.table.lock().swept {
        assert!(Instant::now() < end, "the last idle file stays open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The task has ended; the next file gets another one.
    open_in(&files, Path::new("/dev/zero"), "r").unwrap();
    assert!(files.table.lock().swept);
}
