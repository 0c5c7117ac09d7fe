//! Which weights a rank of a job updates.

use std::ops::Range;

/// The share of a rank in the arena: consecutive blocks of weights, dealt to the ranks in turn. A rank updates only the weights of its
/// share, and has only their moments (Rajbhandari et al. 2020, "ZeRO", stage 1). A round, in which each rank gets some blocks, is what the
/// ranks exchange at once.
///
/// Sums of squares are added block by block, so that they do not depend on the number of ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    rank: usize,
    size: usize,
}

impl Share {
    /// Weights of a block.
    pub const BLOCK: usize = 1 << 14;

    /// All weights: a job of one process.
    pub const WHOLE: Share = Share { rank: 0, size: 1 };

    /// The share of rank `rank` of `size`.
    pub fn new(rank: usize, size: usize) -> Share {
        assert!(rank < size, "rank {rank} of {size}");
        Share { rank, size }
    }

    /// Blocks that a rank gets in a round: 4 MB for all of a few ranks, which stay in the caches while they are exchanged. With many ranks,
    /// a few blocks for each, so that messages are not too small; with very many, one, so that all have some.
    fn dealt(self) -> usize {
        let least = match self.size {
            ..=64 => 4,
            65..=256 => 2,
            _ => 1,
        };
        (64 / self.size).clamp(least, 32)
    }

    /// Weights of a round.
    pub fn round(self) -> usize {
        self.dealt() * self.size * Self::BLOCK
    }

    /// The rank that has a block.
    pub fn owner(self, block: usize) -> usize {
        block / self.dealt() % self.size
    }

    /// The number of weights of an arena of `count` weights.
    pub(crate) fn count(self, count: usize) -> usize {
        if self.size == 1 { count } else { self.ranges(0..count).map(|range| range.len()).sum() }
    }

    /// The parts of a range of the arena, each in one block.
    pub fn ranges(self, within: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let blocks = within.start / Self::BLOCK..within.end.div_ceil(Self::BLOCK);
        let part = move |block: usize| within.start.max(block * Self::BLOCK)..within.end.min((block + 1) * Self::BLOCK);
        blocks.filter(move |block| self.owner(*block) == self.rank).map(part).filter(|range| !range.is_empty())
    }

    /// The place of a part of the arena among the weights of the share. The part must be in consecutive blocks of the share.
    pub(crate) fn place(self, part: Range<usize>) -> Range<usize> {
        if part.is_empty() {
            // A rank may have no block of the last round.
            return 0..0;
        }
        if self.size == 1 {
            return part;
        }
        let (round, dealt) = (part.start / self.round(), self.dealt() * Self::BLOCK);
        let start = part.start % dealt;
        let is_owned = self.owner(part.start / Self::BLOCK) == self.rank && start + part.len() <= dealt;
        assert!(is_owned, "{part:?} in the share {self:?}");
        round * dealt + start..round * dealt + start + part.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_the_arena_once() {
        let count = 150 * Share::BLOCK + 100;
        for size in [1, 2, 3, 4, 70] {
            let mut seen = vec![0; count];
            for rank in 0..size {
                let share = Share::new(rank, size);
                let mut places = vec![false; share.count(count)];
                for range in share.ranges(0..count) {
                    seen[range.clone()].iter_mut().for_each(|n| *n += 1);
                    places[share.place(range)].iter_mut().for_each(|place| *place = true);
                }
                assert!(places.iter().all(|place| *place), "rank {rank} of {size}");
            }
            assert!(seen.iter().all(|n| *n == 1));
        }
        let second = Share::new(1, 2);
        let parts: Vec<_> = second.ranges(31 * Share::BLOCK..33 * Share::BLOCK + 5).collect();
        assert_eq!(parts, [32 * Share::BLOCK..33 * Share::BLOCK, 33 * Share::BLOCK..33 * Share::BLOCK + 5]);
        assert_eq!(second.place(500 * Share::BLOCK..500 * Share::BLOCK), 0..0, "nothing of a last round");
        assert_eq!(second.place(96 * Share::BLOCK + 7..97 * Share::BLOCK), 32 * Share::BLOCK + 7..33 * Share::BLOCK);
    }
}
