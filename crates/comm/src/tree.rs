//! The order in which numbered parts are added.
//!
//! The sum of parts `lo..hi` is that of `lo..mid` plus that of `mid..hi`, where `mid - lo` is the largest power of two below
//! `hi - lo` (pairwise summation). The order depends only on the number of parts. So ranks that share the parts in any way get
//! the same bits: each adds what it has in this order, and the rest is added where the pieces meet.

use std::ops::Range;

/// The part of `rank` in `0..count` items: consecutive, and of nearly equal size.
pub fn part(count: usize, rank: usize, size: usize) -> Range<usize> {
    rank * count / size..(rank + 1) * count / size
}

/// Where the two halves of a sum meet.
fn middle(range: &Range<usize>) -> usize {
    range.start + (range.len() - 1).checked_ilog2().map_or(0, |log| 1 << log)
}

/// The order in which `parts` parts are added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tree {
    parts: usize,
}

impl Tree {
    /// The order for this number of parts.
    pub fn new(parts: usize) -> Tree {
        Tree { parts }
    }

    /// The sums that the owner of consecutive parts can compute alone: the fewest ranges of the tree that cover them, in order.
    pub fn sums_of(self, owned: Range<usize>) -> Vec<Range<usize>> {
        let mut sums = Vec::new();
        if self.parts > 0 {
            cover(0..self.parts, &owned, &mut sums);
        }
        sums
    }

    /// Adds pieces in the order of the tree. `pieces` has the ranges of parts whose sums are given, in order; together they are all
    /// parts. `add(a, b)` adds the sum with index `b` to that with index `a`. The result is at index 0.
    pub fn combine(self, pieces: &[Range<usize>], add: &mut impl FnMut(usize, usize)) {
        if self.parts > 0 {
            let first = combine(0..self.parts, pieces, add);
            assert_eq!(first, 0, "the first piece has the result");
        }
    }
}

fn cover(node: Range<usize>, owned: &Range<usize>, sums: &mut Vec<Range<usize>>) {
    if node.end <= owned.start || owned.end <= node.start || node.is_empty() {
        return;
    }
    if owned.start <= node.start && node.end <= owned.end {
        sums.push(node);
        return;
    }
    let middle = middle(&node);
    cover(node.start..middle, owned, sums);
    cover(middle..node.end, owned, sums);
}

/// Returns the index of the piece that has the sum of `node` then.
fn combine(node: Range<usize>, pieces: &[Range<usize>], add: &mut impl FnMut(usize, usize)) -> usize {
    let index = pieces.partition_point(|piece| piece.start < node.start);
    assert_eq!(pieces[index].start, node.start, "pieces are ranges of the tree");
    if pieces[index] == node {
        return index;
    }
    let middle = middle(&node);
    let left = combine(node.start..middle, pieces, add);
    let right = combine(middle..node.end, pieces, add);
    add(left, right);
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The order of additions as text.
    fn order(parts: usize, pieces: &[Range<usize>], names: Vec<String>) -> String {
        let mut names = names;
        Tree::new(parts).combine(pieces, &mut |a, b| names[a] = format!("({}+{})", names[a], names[b]));
        names.swap_remove(0)
    }

    #[test]
    fn the_order_depends_on_the_number_of_parts_only() {
        let leaves = |range: Range<usize>| range.map(|i| i..i + 1).collect::<Vec<_>>();
        let names = |range: Range<usize>| range.map(|i| i.to_string()).collect::<Vec<_>>();
        assert_eq!(order(1, &leaves(0..1), names(0..1)), "0");
        assert_eq!(order(5, &leaves(0..5), names(0..5)), "(((0+1)+(2+3))+4)");
        assert_eq!(order(6, &leaves(0..6), names(0..6)), "(((0+1)+(2+3))+(4+5))");
        for parts in 1..20 {
            let alone = order(parts, &leaves(0..parts), names(0..parts));
            for size in 1..=parts + 2 {
                let mut pieces = Vec::new();
                let mut sums = Vec::new();
                for rank in 0..size {
                    for sum in Tree::new(parts).sums_of(part(parts, rank, size)) {
                        // What the rank computes alone: the node's own additions.
                        let length = sum.len();
                        let own = order(length, &leaves(0..length), names(sum.clone()));
                        pieces.push(sum);
                        sums.push(own);
                    }
                }
                assert_eq!(order(parts, &pieces, sums), alone, "{parts} parts on {size} ranks");
            }
        }
    }

    #[test]
    fn parts_are_consecutive_and_complete() {
        for count in 0..10 {
            for size in 1..6 {
                let all: Vec<usize> = (0..size).flat_map(|rank| part(count, rank, size)).collect();
                assert_eq!(all, (0..count).collect::<Vec<_>>());
            }
        }
    }
}
