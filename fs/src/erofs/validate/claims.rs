//! Who owns which bytes of the image.

use crate::erofs::layout::{Nid, is_zero};
use crate::erofs::reader::{Fault, TreeError};

struct Claim {
    start: u64,
    end: u64,
    owner: Nid,
}

/// The claimed byte ranges.
pub struct Claims {
    all: Vec<Claim>,
    /// Bytes of the image that nobody has claimed yet, if no claims overlap.
    left: u64,
}

impl Claims {
    /// No claims on an image of `len` bytes.
    pub fn new(len: u64) -> Self {
        Self { all: Vec::new(), left: len }
    }

    /// Claims the bytes from `start` to `end`, which lie in the image, before they are looked at. Claims that together
    /// exceed the image overlap; refusing them here bounds the work on a hostile image.
    pub fn add(&mut self, owner: Nid, start: u64, end: u64) -> Result<(), TreeError> {
        let overlap = TreeError::Damaged { nid: owner, offset: start, fault: Fault::Overlap };
        self.left = self.left.checked_sub(end - start).ok_or(overlap)?;
        if end > start {
            self.all.push(Claim { start, end, owner });
        }
        Ok(())
    }

    /// Requires that no claims overlap and that all bytes between them are zero.
    pub fn check(mut self, image: &[u8]) -> Result<(), TreeError> {
        self.all.sort_unstable_by_key(|claim| claim.start);
        let mut at = 0;
        let mut before = Nid(0);
        for claim in &self.all {
            if claim.start < at {
                return Err(TreeError::Damaged {
                    nid: claim.owner,
                    offset: claim.start,
                    fault: Fault::Overlap,
                });
            }
            check_gap(before, image, at, claim.start)?;
            (at, before) = (claim.end, claim.owner);
        }
        check_gap(before, image, at, image.len() as u64)
    }
}

/// Requires zeros from `start` to `end`; `before` is who owns the bytes before them.
pub fn check_gap(before: Nid, image: &[u8], start: u64, end: u64) -> Result<(), TreeError> {
    let gap = image.get(start as usize..end as usize);
    match gap {
        Some(gap) if is_zero(gap) => Ok(()),
        Some(_) => Err(TreeError::Damaged { nid: before, offset: start, fault: Fault::Padding }),
        None => Err(TreeError::Damaged { nid: before, offset: start, fault: Fault::Outside }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Many records that all claim one large range would make the judge read it again for each of them.
    #[test]
    fn claims_beyond_the_image_are_refused_before_anything_is_read() {
        let mut claims = Claims::new(100);
        claims.add(Nid(1), 0, 60).unwrap();
        let found = claims.add(Nid(2), 30, 90);
        assert_eq!(found, Err(TreeError::Damaged { nid: Nid(2), offset: 30, fault: Fault::Overlap }));
    }

    #[test]
    fn what_nobody_claims_is_zero() {
        let mut image = [0; 100];
        image[40] = 1;
        let check = |claims: &[(u64, u64)]| {
            let mut all = Claims::new(100);
            claims.iter().for_each(|(start, end)| all.add(Nid(7), *start, *end).unwrap());
            all.check(&image).map_err(|error| error.to_string())
        };
        assert_eq!(check(&[(40, 41)]), Ok(()));
        assert_eq!(check(&[(41, 90), (0, 40)]), Err("nid 7, byte 40: unused byte is not zero".to_owned()));
        assert_eq!(check(&[(0, 50), (49, 60)]), Err("nid 7, byte 49: overlaps something else".to_owned()));
    }
}
