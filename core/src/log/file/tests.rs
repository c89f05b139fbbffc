use super::*;

fn record(text: &str) -> Record {
    Record { time: 0, source: "job x".into(), level: 1, text: text.into(), place: None }
}

fn line(text: &str) -> Vec<u8> {
    [serde_json::to_vec(&Line::of(&record(text))).unwrap(), b"\n".to_vec()].concat()
}

#[test]
fn a_file_that_cannot_be_followed_is_so_later() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.log");
    let mut writer = Writer::open(path.clone()).unwrap();
    writer.write(&line("first")).unwrap();
    std::fs::create_dir(dir.path().join("jobs.log.new")).unwrap();
    writer.bytes = FILE_MAX;
    writer.write(&line("lost")).unwrap_err();
    writer.lose(1, "a test");
    std::fs::remove_dir(dir.path().join("jobs.log.new")).unwrap();
    writer.write(&line("second")).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("1 lines are missing here: a test") && text.contains("second"), "{text}");
    assert!(std::fs::read_to_string(older(&path, 1)).unwrap().contains("first"));
    assert!(!older(&path, 2).exists());
}

#[test]
fn a_full_file_is_followed_by_another_and_three_older_stay() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path().join("jobs.log")).unwrap();
    let long = line(&"x".repeat(1 << 20));
    (0..330).for_each(|_| writer.write(&long).unwrap());
    let mut sizes: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
        .collect();
    sizes.sort();
    let names: Vec<_> = sizes.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["jobs.log", "jobs.log.1", "jobs.log.2", "jobs.log.3"]);
    assert!(sizes.iter().all(|(_, bytes)| *bytes <= FILE_MAX));
}

#[test]
fn half_a_line_of_a_killed_manager_is_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.log");
    std::fs::write(&path, [line("whole"), b"{\"time\":17".to_vec()].concat()).unwrap();
    Writer::open(path.clone()).unwrap().write(&line("next")).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), [line("whole"), line("next")].concat());
}

#[tokio::test]
async fn who_reads_waits_for_room_and_every_line_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.log");
    let log = LogFile::open(dir.path()).unwrap();
    let all: Vec<Room> = futures::future::join_all((0..WAITING / CHUNK).map(|_| log.room())).await;
    let more = tokio::time::timeout(Duration::from_millis(50), log.room()).await;
    assert!(more.is_err(), "there is room for more than there may be");
    for (i, room) in all.into_iter().enumerate() {
        log.put(&[record(&i.to_string())], room);
    }
    log.put(&[record("after")], log.room().await);
    log.flush().await;
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(text.lines().count(), WAITING / CHUNK + 1);
    assert!(text.ends_with(std::str::from_utf8(&line("after")).unwrap()));
}

#[tokio::test]
async fn a_disk_that_stands_still_holds_nobody_up_and_what_is_missing_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jobs.log");
    let log = LogFile::open(dir.path()).unwrap();
    // As if all that may wait did.
    let all: Vec<Room> = futures::future::join_all((0..WAITING / CHUNK).map(|_| log.room())).await;
    for text in ["lost", "lost too"] {
        let room = log.room().await;
        assert!(room.0.is_none());
        log.put(&[record(text)], room);
    }
    drop(all);
    log.put(&[record("after")], log.room().await);
    // Until it moves, nobody waits for it.
    log.flush().await;
    while log.shared.still.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    log.flush().await;
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() == 2 && lines[0].contains("2 lines are missing here"), "{text}");
    assert!(lines[1].contains("after"), "{text}");
}

#[test]
fn the_last_places_of_a_job_are_found_among_those_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(dir.path().join(NAME)).unwrap();
    let mut write = |source: &str, time, place| {
        let text = "{\"time\":1,\"source\":\"job a\",\"out\":99}".into();
        let record = Record { time, source: source.into(), level: 1, text, place: Some(place) };
        let line = serde_json::to_vec(&Line::of(&record)).unwrap();
        writer.write(&[line, b"\n".to_vec()].concat()).unwrap();
    };
    use crate::log::Place::{Err, Out};
    write("job a", 5, Out(50));
    write("job a", 10, Out(7));
    write("job a", 11, Err(3));
    write("job ab", 12, Out(40));
    write("job b", 12, Out(2));
    writer.rotate().unwrap();
    writer.write(b"no line of ours\n").unwrap();
    let since = [("job a", 10), ("job b", 10), ("job c", 0)].map(|(name, time)| (name.to_string(), time));
    let places = last_places(dir.path(), since.into()).unwrap();
    assert_eq!(places, [("job a".to_string(), [7, 3]), ("job b".to_string(), [2, 0])].into());
}
