//! Keyed random numbers: the same key always gives the same stream.
//!
//! The generator is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014): a
//! counter followed by a 64-bit finaliser. A key is a list of numbers (seed, purpose, epoch, document, …), which is hashed
//! with the same finaliser. Streams of different keys are independent, and any stream can be started directly, from any
//! thread.

/// The use of a stream. It is the second part of every key, so that two uses of one seed never share numbers.
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    /// Lengths of chunks, splits into A and B, and random next segments.
    Plan,
    /// The order of an epoch's sequences.
    Order,
    /// The choice of masked tokens and their replacements.
    Mask,
    /// The order of labelled examples in an epoch.
    Examples,
    /// A use outside this crate: 5 or higher, a different number for each use.
    Other(u64),
}

impl Purpose {
    fn number(self) -> u64 {
        match self {
            Purpose::Plan => 1,
            Purpose::Order => 2,
            Purpose::Mask => 3,
            Purpose::Examples => 4,
            Purpose::Other(number) => number,
        }
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's finaliser: a bijection that spreads every input bit over all output bits.
fn finalise(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A stream of random numbers that is determined by its key.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The stream of this key. The order of `parts` matters: `[1, 2]` and `[2, 1]` are different streams.
    pub fn keyed(seed: u64, purpose: Purpose, parts: &[u64]) -> Random {
        let mut state = finalise(seed.wrapping_add(GOLDEN));
        state = finalise(state.wrapping_add(GOLDEN) ^ purpose.number());
        for &part in parts {
            state = finalise(state.wrapping_add(GOLDEN) ^ part);
        }
        Random { state }
    }

    /// 64 random bits.
    pub(crate) fn bits(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        finalise(self.state)
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// True with this probability.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Uniform in `0..bound`, without bias (Lemire, "Fast random integer generation in an interval", 2019).
    /// `bound` is at least 1.
    pub fn below(&mut self, bound: usize) -> usize {
        debug_assert!(bound > 0, "the bound must be at least 1");
        let bound = bound as u64;
        loop {
            let wide = u128::from(self.bits()) * u128::from(bound);
            let low = wide as u64;
            // The first test is cheap and nearly always sufficient; the second uses the exact rejection threshold.
            if low >= bound || low >= bound.wrapping_neg() % bound {
                return (wide >> 64) as usize;
            }
        }
    }

    /// The number of heads in `tosses` fair coin tosses.
    pub(crate) fn heads(&mut self, mut tosses: usize) -> usize {
        let mut heads = 0;
        while tosses >= 64 {
            heads += self.bits().count_ones() as usize;
            tosses -= 64;
        }
        if tosses > 0 {
            heads += (self.bits() >> (64 - tosses)).count_ones() as usize;
        }
        heads
    }

    /// Shuffles `items` (Fisher–Yates).
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// The order of `count` examples in an epoch. It is a pure function of its arguments.
pub fn example_order(count: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    Random::keyed(seed, Purpose::Examples, &[epoch]).shuffle(&mut order);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_determined_by_their_keys() {
        let draw = |seed, purpose, parts: &[u64]| Random::keyed(seed, purpose, parts).bits();
        assert_eq!(draw(7, Purpose::Plan, &[1, 2]), draw(7, Purpose::Plan, &[1, 2]));
        let others = [
            draw(8, Purpose::Plan, &[1, 2]),
            draw(7, Purpose::Mask, &[1, 2]),
            draw(7, Purpose::Plan, &[2, 1]),
            draw(7, Purpose::Plan, &[1, 2, 0]),
        ];
        assert!(!others.contains(&draw(7, Purpose::Plan, &[1, 2])));
    }

    #[test]
    fn bounded_numbers_are_uniform() {
        let mut random = Random::keyed(1, Purpose::Plan, &[]);
        let mut counts = [0u32; 7];
        for _ in 0..70_000 {
            counts[random.below(7)] += 1;
        }
        // Five standard deviations of 93.
        assert!(counts.iter().all(|&c| c.abs_diff(10_000) < 465), "{counts:?}");
        assert_eq!(random.below(1), 0);
    }

    #[test]
    fn heads_are_half_of_the_tosses_on_average() {
        let mut random = Random::keyed(2, Purpose::Plan, &[]);
        for tosses in [0, 1, 5, 63, 64, 65, 200] {
            let total: usize = (0..2000).map(|_| random.heads(tosses)).inspect(|&h| assert!(h <= tosses)).sum();
            let mean = total as f64 / 2000.0;
            let sigma = (tosses as f64 / 4.0 / 2000.0).sqrt();
            assert!((mean - tosses as f64 / 2.0).abs() <= 5.0 * sigma, "{tosses}: {mean}");
        }
    }

    #[test]
    fn shuffle_is_a_permutation() {
        let mut items: Vec<u32> = (0..1000).collect();
        Random::keyed(3, Purpose::Order, &[]).shuffle(&mut items);
        let fixed = items.iter().enumerate().filter(|(i, v)| *i == **v as usize);
        assert!(fixed.count() < 10);
        items.sort_unstable();
        assert!(items.iter().enumerate().all(|(i, v)| i == *v as usize));
    }
}
