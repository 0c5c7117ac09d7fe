//! Counter-based random numbers: (key, index) → number, without state to save, share or replay.
//!
//! The backward pass computes the dropout mask of the forward pass again instead of storing it, and a resumed run
//! samples the same numbers as the uninterrupted run.

/// The part of a dropout mask's key that is common to a forward pass. The other parts are the dropout's number in the
/// pass and the element's index.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DropoutKey {
    /// The run's seed.
    pub seed: u64,
    /// The optimizer step.
    pub step: u64,
    /// The micro-batch within the step.
    pub micro: u32,
}

impl DropoutKey {
    /// The key of a pass's dropout number `site`.
    pub(crate) fn site(self, site: u32) -> Key {
        Key::new(mix(mix(self.seed, self.step), (u64::from(self.micro) << 32) | u64::from(site)))
    }
}

/// SplitMix64's finaliser over two words (Steele et al. 2014): every input bit affects every output bit.
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    let mut z = a.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ b.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A stream of 32-bit words addressed by index.
#[derive(Clone, Copy)]
pub(crate) struct Key {
    add: u32,
    middle: u32,
}

impl Key {
    pub(crate) fn new(key: u64) -> Key {
        Key { add: key as u32, middle: (key >> 32) as u32 }
    }

    /// The word at `index`: a keyed mixer with two multiplications (constants of Wellons' lowbias32). Only 32-bit
    /// operations, so that it vectorises sixteen wide.
    #[inline(always)]
    pub(crate) fn word(self, index: u32) -> u32 {
        let mut x = index.wrapping_mul(0x9E37_79B1).wrapping_add(self.add);
        x ^= x >> 16;
        x = x.wrapping_mul(0x7feb_352d).wrapping_add(self.middle);
        x ^= x >> 15;
        x = x.wrapping_mul(0x846c_a68b);
        x ^ (x >> 16)
    }
}

/// Inverted dropout (Srivastava et al. 2014): each element is kept with probability 1 − p and scaled by 1/(1 − p).
#[derive(Clone, Copy)]
pub struct Mask {
    key: Key,
    threshold: u32,
    scale: f32,
}

impl Mask {
    /// A mask for dropout probability `p`; it keeps everything if `p` is 0.
    pub(crate) fn new(key: Key, p: f32) -> Mask {
        assert!((0.0..1.0).contains(&p), "dropout {p}: expected 0 ≤ p < 1");
        Mask { key, threshold: (f64::from(p) * 4_294_967_296.0) as u32, scale: 1.0 / (1.0 - p) }
    }

    /// Whether any element can be dropped.
    #[inline(always)]
    pub(crate) fn is_active(self) -> bool {
        self.threshold > 0
    }

    /// The factor of a kept element: 1/(1 − p).
    #[inline(always)]
    pub(crate) fn scale(self) -> f32 {
        self.scale
    }

    /// The key, the threshold and the bits of the factor: a `Mask` of CUDA's kernels.
    pub(crate) fn words(self) -> [u32; 4] {
        [self.key.add, self.key.middle, self.threshold, self.scale.to_bits()]
    }

    /// 0 or 1/(1 − p) for the element at `index`.
    #[inline(always)]
    pub(crate) fn factor(self, index: usize) -> f32 {
        if self.key.word(index as u32) >= self.threshold { self.scale } else { 0.0 }
    }

    /// The mask of another row, for ops that index by (row, element): a single 32-bit index would repeat after 2³²
    /// elements.
    #[inline(always)]
    pub(crate) fn row(self, row: u64) -> Mask {
        let Key { add, middle } = self.key;
        Mask { key: Key::new(mix((u64::from(middle) << 32) | u64::from(add), row)), ..self }
    }
}

/// The normal distribution truncated at two standard deviations, as a pure function of a key and an index (BERT's
/// initialiser, `tf.truncated_normal`).
pub(crate) fn truncated_normal(key: u64, index: u64) -> f64 {
    // Φ(−2); the uniform number is mapped to [Φ(−2), Φ(2)].
    const TAIL: f64 = 0.022_750_131_948_179_21;
    let uniform = (mix(key, index) >> 11) as f64 * (1.0 / (1u64 << 53) as f64) + 0.5 / (1u64 << 53) as f64;
    normal_quantile(TAIL + uniform * (1.0 - 2.0 * TAIL))
}

/// Φ⁻¹ by Acklam's rational approximation, relative error below 1.2e-9. The truncation at 0.02275 uses only a small
/// part of the tail branch (below 0.02425).
fn normal_quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 5] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 4] =
        [7.784_695_709_041_462e-3, 3.224_671_290_700_398e-1, 2.445_134_137_142_996, 3.754_408_661_907_416];
    const LOW: f64 = 0.02425;
    if !(LOW..=1.0 - LOW).contains(&p) {
        let q = (-2.0 * p.min(1.0 - p).ln()).sqrt();
        let tail = C.iter().fold(0.0, |sum, c| sum * q + c) / (D.iter().fold(0.0, |sum, d| sum * q + d) * q + 1.0);
        return if p < 0.5 { tail } else { -tail };
    }
    let q = p - 0.5;
    let r = q * q;
    A.iter().fold(0.0, |sum, a| sum * r + a) * q / (B.iter().fold(0.0, |sum, b| sum * r + b) * r + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncated_normal_has_the_right_moments_and_bounds() {
        let n = 200_000;
        let samples: Vec<f64> = (0..n).map(|i| truncated_normal(7, i)).collect();
        let mean = samples.iter().sum::<f64>() / n as f64;
        let variance = samples.iter().map(|x| x * x).sum::<f64>() / n as f64;
        assert!(mean.abs() < 0.01, "{mean}");
        assert!((variance - 0.774).abs() < 0.01, "{variance}"); // 1 − 2·2φ(2)/(Φ(2) − Φ(−2))
        let largest = samples.iter().fold(0f64, |m, x| m.max(x.abs()));
        assert!(largest <= 2.0 + 1e-8 && largest > 1.98, "{largest}");
    }

    #[test]
    fn a_mask_drops_the_given_share_and_sites_differ() {
        let key = DropoutKey { seed: 1, step: 2, micro: 0 };
        let (first, second) = (Mask::new(key.site(0), 0.1), Mask::new(key.site(1), 0.1));
        let n = 100_000;
        let dropped = |m: Mask| (0..n).filter(|i| m.factor(*i) == 0.0).count();
        assert!((dropped(first) as f64 / n as f64 - 0.1).abs() < 0.005);
        let both = (0..n).filter(|i| first.factor(*i) == 0.0 && second.factor(*i) == 0.0).count();
        assert!((both as f64 / n as f64 - 0.01).abs() < 0.003, "{both}");
        let pairs = (0..n - 1).filter(|i| first.factor(*i) == 0.0 && first.factor(i + 1) == 0.0).count();
        assert!((pairs as f64 / n as f64 - 0.01).abs() < 0.003, "{pairs}");
        assert_eq!(first.factor(5), Mask::new(key.site(0), 0.1).factor(5));
        assert!(!Mask::new(key.site(0), 0.0).is_active());
    }
}
