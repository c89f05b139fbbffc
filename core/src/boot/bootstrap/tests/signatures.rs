//! Who has signed, and which of two files is followed.

use super::super::document::DocumentError;
use super::super::judge::{Judge, Refused, Signed};
use super::super::signature::{Key, SignatureError};
use super::{Signer, expiring, now, numbered, of_others};

#[test]
fn a_file_of_the_key_in_the_image_holds_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let (signer, stranger) = (Signer::new(), Signer::new());
    let key = signer.key(folder.path());
    let signed = signer.sign("text");
    key.verify(&signed.bytes, &signed.signature).unwrap();
    let wrong = |bytes: &[u8], signature: &str| key.verify(bytes, signature).unwrap_err();
    assert!(matches!(wrong(b"Text", &signed.signature), SignatureError::Wrong(_)));
    assert!(matches!(wrong(b"text", &stranger.sign("text").signature), SignatureError::Wrong(_)));
    assert!(matches!(wrong(b"text", ""), SignatureError::BadSignature(_)));
    assert!(matches!(wrong(b"text", "<html>"), SignatureError::BadSignature(_)));
    // What the comment says is signed, too.
    let commented = signed.signature.replace("trusted comment: ", "trusted comment: x");
    assert_ne!(commented, signed.signature);
    wrong(b"text", &commented);
}

#[test]
fn an_image_without_a_key_believes_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bootstrap.pub");
    assert!(matches!(Key::load(&path), Err(SignatureError::NoKey(_))));
    std::fs::write(&path, "no key").unwrap();
    assert!(matches!(Key::load(&path), Err(SignatureError::BadKey(..))));
    std::fs::create_dir(folder.path().join("folder")).unwrap();
    assert!(matches!(Key::load(&folder.path().join("folder")), Err(SignatureError::Read(..))));
}

#[test]
fn a_newer_file_is_followed_and_an_older_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (signer, stranger) = (Signer::new(), Signer::new());
    let open = || Judge::open(signer.key(folder.path()), &folder.path().join("kept"));
    let mut judge = open();
    assert!(judge.kept().is_none());
    assert!(judge.accept(signer.sign(&numbered(5)), now()).unwrap());
    assert!(!judge.accept(signer.sign(&numbered(5)), now()).unwrap(), "it is not new");
    let refused = |judge: &mut Judge, signed| judge.accept(signed, now()).unwrap_err();
    for judge in [&mut judge, &mut open()] {
        let error = refused(judge, signer.sign(&numbered(4)));
        assert!(matches!(error, Refused::Replayed { sequence: 4, seen: 5 }), "{error}");
        let error = refused(judge, signer.sign(&format!("{}controllers: []\n", numbered(5))));
        assert!(matches!(error, Refused::Twice(5)), "{error}");
        let error = refused(judge, signer.sign(&expiring(6, "2028-01-31T12:00:00Z")));
        assert!(matches!(error, Refused::Expired(_)), "{error}");
        let error = refused(judge, signer.sign(&of_others(6)));
        assert!(matches!(error, Refused::Architecture(_)), "{error}");
        let error = refused(judge, stranger.sign(&numbered(6)));
        assert!(matches!(error, Refused::Signature(SignatureError::Wrong(_))), "{error}");
        let error = refused(judge, signer.sign("sequence: many\n"));
        assert!(matches!(error, Refused::Document(DocumentError::Parse { line: 1, .. })), "{error}");
        assert_eq!(judge.kept().map(|document| document.sequence), Some(5), "the old one holds");
    }
    assert!(open().accept(signer.sign(&numbered(6)), now()).unwrap());
    assert_eq!(open().kept().map(|document| document.sequence), Some(6));
}

#[test]
fn what_was_kept_and_is_damaged_or_of_another_key_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let (signer, kept) = (Signer::new(), folder.path().join("kept"));
    let open = |signer: &Signer| Judge::open(signer.key(folder.path()), &kept);
    open(&signer).accept(signer.sign(&numbered(5)), now()).unwrap();
    assert!(open(&Signer::new()).kept().is_none());
    let file = kept.join("bootstrap.yaml");
    let good = std::fs::read(&file).unwrap();
    for cut in [0, 1, 2, 10, good.len() / 2, good.len() - 1] {
        std::fs::write(&file, &good[..cut]).unwrap();
        assert!(open(&signer).kept().is_none(), "{cut}");
    }
    std::fs::write(&file, b"99999999999999999999\n").unwrap();
    assert!(open(&signer).kept().is_none());
    std::fs::write(&file, b"18446744073709551615\nx").unwrap();
    assert!(open(&signer).kept().is_none());
}

#[test]
fn a_file_that_cannot_be_kept_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let signer = Signer::new();
    std::fs::write(folder.path().join("kept"), "a file").unwrap();
    let mut judge = Judge::open(signer.key(folder.path()), &folder.path().join("kept"));
    let signed: Signed = signer.sign(&numbered(1));
    assert!(matches!(judge.accept(signed, now()), Err(Refused::Kept(..))));
    assert!(judge.kept().is_none());
}
