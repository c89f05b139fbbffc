//! The answer that has the metadata of an flist, and what strangers make of it.

use g8_cache::StoredBlock;

use super::*;
use crate::car;
use crate::format::{Root, RunConfig};

/// An flist of which there is only metadata.
struct Image {
    root: BlockId,
    blocks: Vec<(BlockId, Vec<u8>)>,
}

impl Image {
    /// Root, one piece of the map, and so many of the tree.
    fn of(tree_pieces: u8, piece_len: usize) -> Image {
        let raw = |number: u8| (0..piece_len).map(|at| (at % 251) as u8 ^ number).collect::<Vec<u8>>();
        let pieces: Vec<_> =
            (0..=tree_pieces).map(raw).map(|bytes| (BlockId::of(Codec::Raw, &bytes), bytes)).collect();
        let cids: Vec<_> = pieces.iter().map(|(id, _)| id.cid()).collect();
        let root = Root {
            arch: None,
            blocks: 1,
            config: RunConfig::default(),
            content_bytes: 5,
            inodes: 2,
            kind: crate::format::root::KIND.into(),
            map: cids[..1].to_vec(),
            map_bytes: 30,
            os: crate::format::root::OS.into(),
            parent: None,
            shards: vec![stranger().0.cid()],
            stored_bytes: 5,
            tree: cids[1..].to_vec(),
            tree_bytes: 4096,
            version: crate::format::root::VERSION,
        };
        let root = root.to_bytes().unwrap();
        let id = BlockId::of(Codec::DagCbor, &root);
        Image { root: id, blocks: [(id, root)].into_iter().chain(pieces).collect() }
    }

    /// The beginning of its CAR, with so many blocks.
    fn car(&self, blocks: usize) -> Vec<u8> {
        let sections = self.blocks[..blocks].iter().flat_map(|(id, bytes)| section(id, bytes));
        [car::header(&[self.root.cid()]), sections.collect()].concat()
    }

    /// A gateway that says `car` when it is asked for one and then does as `after` says; and gives single blocks.
    fn gateway(
        &self,
        car: Vec<u8>,
        after: impl Fn(&mut TcpStream) + Send + Sync + 'static,
    ) -> (HttpSource, Arc<Log>) {
        let blocks = self.blocks.clone();
        let (port, log) = server(move |head, stream| {
            if head.contains("?format=car") {
                let _ = stream.write_all(&car);
                after(stream);
                let _ = stream.shutdown(std::net::Shutdown::Both);
                return;
            }
            let (_, block) = blocks.iter().find(|(id, _)| head.contains(&id.to_string())).unwrap();
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", block.len());
            let _ = stream.write_all(block);
        });
        let gateway: Gateway = format!("http://127.0.0.1:{port}").parse().unwrap();
        (HttpSource::new(gateway.to_string(), &gateway, Reach::Anywhere).unwrap(), log)
    }
}

/// What a gateway does behind what it says.
type After = fn(&mut TcpStream);

fn section(id: &BlockId, bytes: &[u8]) -> Vec<u8> {
    [car::prefix(id, bytes.len()).as_slice(), bytes].concat()
}

/// A block that no metadata links to.
fn stranger() -> (BlockId, Vec<u8>) {
    (BlockId::of(Codec::DagCbor, b"\x80"), b"\x80".to_vec())
}

fn answered(car: Vec<u8>) -> Vec<u8> {
    let head =
        b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.ipld.car; version=1\r\nConnection: close\r\n\r\n";
    [head.as_slice(), &car].concat()
}

fn cars(log: &Log) -> usize {
    log.heads.lock().iter().filter(|head| head.contains("?format=car")).count()
}

async fn is_right(source: &HttpSource, id: BlockId) {
    let block: StoredBlock = source.fetch(&id).await.unwrap();
    block.verify().unwrap();
}

#[tokio::test]
async fn root_map_and_tree_come_in_one_answer_which_is_cut_off_behind_them() {
    let image = Image::of(3, 10_000);
    let (id, bytes) = stranger();
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = sent.clone();
    let (source, log) = image.gateway(answered(image.car(5)), move |stream| {
        while let Ok(n) = stream.write(&section(&id, &bytes).repeat(1000)) {
            counted.fetch_add(n, SeqCst);
        }
    });
    let expected = source.expect(&image.root).unwrap();
    assert!(source.expect(&image.root).is_none(), "one at a time");
    is_right(&source, image.root).await;
    // In any order, as they are asked for at the same time.
    for at in [4, 1, 3, 2] {
        is_right(&source, image.blocks[at].0).await;
    }
    let head = log.heads.lock()[0].to_lowercase();
    assert!(head.contains("accept: application/vnd.ipld.car; version=1; order=dfs; dups=n\r\n"), "{head}");
    assert_eq!(log.heads.lock().len(), 1, "nothing was asked for alone");
    // Who asks again, and after the flist was opened, asks for that block.
    is_right(&source, image.blocks[1].0).await;
    drop(expected);
    is_right(&source, image.root).await;
    assert_eq!((cars(&log), log.heads.lock().len()), (1, 3));
    // What the kernel buffers is sent too.
    assert!(sent.load(SeqCst) < 32 << 20, "{} bytes sent", sent.load(SeqCst));
}

#[tokio::test]
async fn nothing_is_asked_for_before_the_root_is() {
    let image = Image::of(1, 100);
    let (source, log) = image.gateway(answered(image.car(3)), |_| ());
    let expected = source.expect(&image.root).unwrap();
    is_right(&source, image.blocks[1].0).await;
    drop(expected);
    assert_eq!((cars(&log), log.heads.lock().len()), (0, 1));
}

#[tokio::test]
async fn who_gives_no_car_is_asked_for_blocks_alone() {
    let image = Image::of(1, 100);
    let (id, bytes) = stranger();
    let header = car::header(&[image.root.cid()]);
    for answer in [
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec(),
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nhello".to_vec(),
        b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.ipld.raw\r\nContent-Length: 5\r\n\r\nhello"
            .to_vec(),
        Vec::new(),
        answered(Vec::new()),
        answered(vec![0xff; 100]),
        answered(header.clone()),
        answered([header.clone(), section(&id, &bytes)].concat()),
        answered([header, vec![0xff, 0xff, 0xff, 0x7f]].concat()),
    ] {
        let shown = answer.escape_ascii().to_string();
        let (source, log) = image.gateway(answer, |_| ());
        let expected = source.expect(&image.root).unwrap();
        for (id, _) in &image.blocks {
            is_right(&source, *id).await;
        }
        drop(expected);
        assert_eq!((cars(&log), log.heads.lock().len()), (1, 4), "{shown}");
    }
}

#[tokio::test]
async fn what_a_car_does_not_bring_is_asked_for_alone() {
    let image = Image::of(2, 1000);
    let (id, bytes) = stranger();
    let ends: [(&str, Vec<u8>, After); 4] = [
        ("ends", Vec::new(), |_| ()),
        ("ends within a block", section(&image.blocks[3].0, &image.blocks[3].1)[..500].to_vec(), |_| ()),
        ("goes on with something else", section(&id, &bytes), |_| ()),
        ("stalls", Vec::new(), |stream| while stream.read(&mut [0; 64]).is_ok_and(|n| n > 0) {}),
    ];
    for (how, end, after) in ends {
        let (source, log) = image.gateway(answered([image.car(3), end].concat()), after);
        let expected = source.expect(&image.root).unwrap();
        for (id, _) in &image.blocks {
            is_right(&source, *id).await;
        }
        assert_eq!((cars(&log), log.heads.lock().len()), (1, 2), "{how}: all but one came along");
        drop(expected);
    }
}

/// Behind a large map on a slow link.
#[tokio::test]
async fn a_block_whose_turn_comes_late_is_asked_for_alone_in_time() {
    let image = Image::of(4, 1000);
    let rest: Vec<_> = image.blocks[2..4].iter().map(|(id, bytes)| section(id, bytes)).collect();
    let (source, log) = image.gateway(answered(image.car(2)), move |stream| {
        for section in &rest {
            std::thread::sleep(Duration::from_secs(2));
            let _ = stream.write_all(section);
        }
        while stream.read(&mut [0; 64]).is_ok_and(|n| n > 0) {}
    });
    let _expected = source.expect(&image.root).unwrap();
    is_right(&source, image.root).await;
    let began = std::time::Instant::now();
    is_right(&source, image.blocks[5].0).await;
    assert!(began.elapsed() > Duration::from_secs(4), "it was not waited for: {:?}", began.elapsed());
    assert_eq!((cars(&log), log.heads.lock().len()), (1, 2));
    is_right(&source, image.blocks[3].0).await;
    assert_eq!(log.heads.lock().len(), 2, "what came meanwhile is there");
}

#[tokio::test]
async fn wrong_bytes_in_a_car_are_given_on_to_be_found_out() {
    let mut image = Image::of(1, 1000);
    image.blocks[2].1[500] ^= 1;
    let (source, _) = image.gateway(answered(image.car(3)), |_| ());
    let _expected = source.expect(&image.root).unwrap();
    is_right(&source, image.root).await;
    source.fetch(&image.blocks[2].0).await.unwrap().verify().unwrap_err();
    is_right(&source, image.blocks[1].0).await;
}

/// They may all be in the cache, from another image.
#[tokio::test]
async fn what_nobody_takes_is_not_held_without_bound() {
    let image = Image::of(20, 1_000_000);
    let (source, log) = image.gateway(answered(image.car(22)), |_| ());
    let _expected = source.expect(&image.root).unwrap();
    is_right(&source, image.root).await;
    is_right(&source, image.blocks[21].0).await;
    let held = source.bulk.held();
    assert!(held > 0 && held <= (8 << 20) + 1_000_000, "{held} bytes held");
    for (id, _) in &image.blocks[1..21] {
        is_right(&source, *id).await;
    }
    assert_eq!(cars(&log), 1);
}
