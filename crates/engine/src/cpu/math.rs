//! Element-wise functions, branch-free so that they vectorise at every level. Their accuracy is documented and tested.

use super::level::{Isa, mul_add};

/// 1.5·2²³: adding it rounds to the nearest integer, which is then in the low bits.
const ROUND_MAGIC: f32 = 12_582_912.0;

/// A polynomial in x by Horner's method; the coefficient of the highest power comes first.
#[inline(always)]
fn polynomial<I: Isa, const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut sum = coefficients[0];
    for coefficient in &coefficients[1..] {
        sum = mul_add::<I>(sum, x, *coefficient);
    }
    sum
}

/// eˣ, relative error below 2e-7; 0 below −87.3, infinite above 88.3, NaN for NaN.
#[inline(always)]
pub(crate) fn exp<I: Isa>(x: f32) -> f32 {
    // x = n ln 2 + r, |r| ≤ ln 2 / 2; the two halves of ln 2 keep r exact (Cody and Waite).
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // At n = 128 the scale below is infinite.
    let clamped = x.clamp(-87.3, 89.0);
    let shifted = mul_add::<I>(clamped, LOG2_E, ROUND_MAGIC);
    let n = shifted - ROUND_MAGIC;
    let r = mul_add::<I>(n, -LN2_LOW, mul_add::<I>(n, -LN2_HIGH, clamped));
    let p = polynomial::<I, _>(r, [1.987_569_1e-4, 1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1]);
    let e = mul_add::<I>(p, r * r, r) + 1.0;
    let scale = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    // Zero instead of a tiny number, whose products would be subnormal and slow.
    if x < -87.3 { 0.0 } else { e * scale }
}

/// eˣ for x ≤ 0, relative error below 2e-7 + 1e-7 |x|; for x < −41 the result is e⁻⁴¹ = 1.6e-18; NaN for NaN. Half the
/// work of [`exp`]. For softmax weights, whose maximum is 1.
#[inline(always)]
#[expect(clippy::approx_constant)] // a coefficient of the polynomial, not ln 2
pub(crate) fn exp_nonpositive<I: Isa>(x: f32) -> f32 {
    const MIN: f32 = -41.0;
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    let x = if MIN > x { MIN } else { x };
    // 2ⁿ 2ʳ, |r| ≤ ½; rounded as in `exp`. 2ʳ is a minimax polynomial.
    let shifted = mul_add::<I>(x, LOG2_E, ROUND_MAGIC);
    let r = mul_add::<I>(x, LOG2_E, ROUND_MAGIC - shifted);
    let p = polynomial::<I, _>(r, [1.326_472_7e-3, 9.671_513e-3, 5.550_733_6e-2, 2.402_224_2e-1, 6.931_47e-1, 1.0]);
    p * f32::from_bits(shifted.to_bits().wrapping_add(127) << 23)
}

/// ln x of a positive normal number, relative error below 2e-7 (absolute error near 1); NaN if x is infinite or NaN.
#[inline(always)]
pub(crate) fn ln<I: Isa>(x: f32) -> f32 {
    // x = 2ⁿ (1 + m), √½ ≤ 1 + m < √2. Polynomial and split of ln 2 are those of Cephes's logf (Moshier 1989).
    let n = (x.to_bits().wrapping_sub(std::f32::consts::FRAC_1_SQRT_2.to_bits()) as i32) >> 23;
    let m = f32::from_bits(x.to_bits().wrapping_sub((n as u32) << 23)) - 1.0;
    let n = n as f32;
    let p = polynomial::<I, _>(
        m,
        [
            7.037_683_6e-2,
            -1.151_461e-1,
            1.167_699_9e-1,
            -1.242_014_1e-1,
            1.424_932_3e-1,
            -1.666_805_8e-1,
            2.000_071_5e-1,
            -2.499_999_4e-1,
            3.333_333e-1,
        ],
    );
    let square = m * m;
    let tail = mul_add::<I>(-0.5, square, mul_add::<I>(n, -2.121_944_4e-4, square * m * p));
    // 0·x is 0, unless x is infinite or NaN.
    mul_add::<I>(n, 0.693_359_4, mul_add::<I>(0.0, x, m + tail))
}

/// tanh x, absolute error below 1e-6.
#[inline(always)]
pub(crate) fn tanh<I: Isa>(x: f32) -> f32 {
    let a = x.abs();
    let e = exp::<I>(-2.0 * a);
    let large = (1.0 - e) / (1.0 + e);
    // Below 0.1 the quotient cancels; x − x³/3 + 2x⁵/15 − 17x⁷/315 does not.
    let s = a * a;
    let small = a * polynomial::<I, _>(s, [-17.0 / 315.0, 2.0 / 15.0, -1.0 / 3.0, 1.0]);
    let t = if a < 0.1 { small } else { large };
    t.copysign(x)
}

/// erf x, absolute error below 4e-7: x times a minimax polynomial in x² on [−3.8, 3.8]; beyond that, erf differs from
/// ±1 by at most 8e-8. A quotient of two shorter polynomials, as in Eigen and XLA, is slower: a division takes as long
/// as about twelve terms.
#[inline(always)]
pub(crate) fn erf<I: Isa>(x: f32) -> f32 {
    let x = x.clamp(-3.8, 3.8);
    // x² mapped to [−1, 1], where the coefficients are small.
    let s = mul_add::<I>(x * x, 2.0 / (3.8 * 3.8), -1.0);
    let p = polynomial::<I, _>(
        s,
        [
            1.022_089_4e-3,
            -2.695_760_5e-3,
            2.367_267_6e-3,
            -3.299_465_2e-3,
            9.949_532e-3,
            -1.833_327_9e-2,
            2.669_301_8e-2,
            -3.893_965e-2,
            5.505_656_5e-2,
            -7.251_549_5e-2,
            9.083_27e-2,
            -1.111_855_7e-1,
            1.377_395_1e-1,
            -1.856_412e-1,
            3.721_076_3e-1,
        ],
    );
    x * p
}

const FRAC_1_SQRT_2: f32 = std::f32::consts::FRAC_1_SQRT_2;
/// 1/√(2π)
const FRAC_1_SQRT_TAU: f32 = 0.398_942_3;

/// x Φ(x) = x/2 (1 + erf(x/√2)) (Hendrycks and Gimpel 2016).
#[inline(always)]
pub(crate) fn gelu<I: Isa>(x: f32) -> f32 {
    0.5 * x * (1.0 + erf::<I>(x * FRAC_1_SQRT_2))
}

/// The derivative of [`gelu`]: Φ(x) + x φ(x).
#[inline(always)]
pub(crate) fn gelu_backward<I: Isa>(x: f32) -> f32 {
    let cdf = 0.5 * (1.0 + erf::<I>(x * FRAC_1_SQRT_2));
    mul_add::<I>(x * FRAC_1_SQRT_TAU, exp_nonpositive::<I>(-0.5 * x * x), cdf)
}

/// √(2/π), and the coefficient of x³, of the tanh approximation.
const GELU_TANH: (f32, f32) = (0.797_884_6, 0.044_715);

/// x/2 (1 + tanh(√(2/π)(x + 0.044715 x³))).
#[inline(always)]
pub(crate) fn gelu_tanh<I: Isa>(x: f32) -> f32 {
    let inner = GELU_TANH.0 * mul_add::<I>(GELU_TANH.1 * x, x * x, x);
    0.5 * x * (1.0 + tanh::<I>(inner))
}

/// The derivative of [`gelu_tanh`].
#[inline(always)]
pub(crate) fn gelu_tanh_backward<I: Isa>(x: f32) -> f32 {
    let inner = GELU_TANH.0 * mul_add::<I>(GELU_TANH.1 * x, x * x, x);
    let t = tanh::<I>(inner);
    let slope = GELU_TANH.0 * mul_add::<I>(3.0 * GELU_TANH.1 * x, x, 1.0);
    0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * slope
}

/// max(x, 0)
#[inline(always)]
pub(crate) fn relu(x: f32) -> f32 {
    if x > 0.0 { x } else { 0.0 }
}

/// The derivative of [`relu`].
#[inline(always)]
pub(crate) fn relu_backward(x: f32) -> f32 {
    if x > 0.0 { 1.0 } else { 0.0 }
}

/// The derivative of [`tanh`].
#[inline(always)]
pub(crate) fn tanh_backward<I: Isa>(x: f32) -> f32 {
    let y = tanh::<I>(x);
    1.0 - y * y
}

/// x/(1 + e⁻ˣ)
#[inline(always)]
pub(crate) fn silu<I: Isa>(x: f32) -> f32 {
    x * sigmoid::<I>(x)
}

/// s + x s (1 − s) with s = 1/(1 + e⁻ˣ).
#[inline(always)]
pub(crate) fn silu_backward<I: Isa>(x: f32) -> f32 {
    let s = sigmoid::<I>(x);
    s * (1.0 + x * (1.0 - s))
}

/// 1/(1 + e⁻ˣ)
#[inline(always)]
pub(crate) fn sigmoid<I: Isa>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<I>(-x))
}

#[cfg(test)]
mod tests {
    use super::super::level::{Isa, Level, Vectorized};
    use super::*;

    struct Map<'a>(fn_table::Function, &'a mut [f32]);
    mod fn_table {
        #[derive(Clone, Copy, Debug)]
        pub enum Function {
            Exp,
            Tanh,
            Erf,
            Gelu,
            GeluBackward,
            GeluTanh,
            GeluTanhBackward,
            Ln,
            ExpNonpositive,
        }
    }
    use fn_table::Function;

    impl Vectorized for Map<'_> {
        type Output = ();
        fn call<I: Isa>(self) {
            for x in self.1 {
                *x = match self.0 {
                    Function::Exp => exp::<I>(*x),
                    Function::Tanh => tanh::<I>(*x),
                    Function::Erf => erf::<I>(*x),
                    Function::Gelu => gelu::<I>(*x),
                    Function::GeluBackward => gelu_backward::<I>(*x),
                    Function::GeluTanh => gelu_tanh::<I>(*x),
                    Function::GeluTanhBackward => gelu_tanh_backward::<I>(*x),
                    Function::Ln => ln::<I>(*x),
                    Function::ExpNonpositive => exp_nonpositive::<I>(*x),
                };
            }
        }
    }

    /// erf by its Taylor series, exact to f64 for |x| ≤ 4.2.
    fn erf_f64(x: f64) -> f64 {
        let (mut sum, mut term) = (x, x);
        for n in 1..200 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        if x.abs() > 4.2 { x.signum() } else { sum * 2.0 / std::f64::consts::PI.sqrt() }
    }

    fn oracle(function: Function, x: f64) -> f64 {
        let cdf = 0.5 * (1.0 + erf_f64(x / 2f64.sqrt()));
        let (c, a) = ((2.0 / std::f64::consts::PI).sqrt(), 0.044715);
        let t = (c * (x + a * x.powi(3))).tanh();
        match function {
            Function::Exp | Function::ExpNonpositive => x.exp(),
            Function::Tanh => x.tanh(),
            Function::Erf => erf_f64(x),
            Function::Gelu => x * cdf,
            Function::GeluBackward => cdf + x * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt(),
            Function::GeluTanh => 0.5 * x * (1.0 + t),
            Function::GeluTanhBackward => 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * c * (1.0 + 3.0 * a * x * x),
            Function::Ln => x.ln(),
        }
    }

    #[test]
    fn functions_match_their_f64_oracles_at_every_level() {
        use Function::*;
        for level in [Level::Portable, Level::detect()] {
            for (function, bound) in [
                (Exp, 3e-7),
                (Tanh, 1e-6),
                (Erf, 4e-7),
                (Gelu, 1e-6),
                (GeluBackward, 1e-6),
                (GeluTanh, 2e-6),
                (GeluTanhBackward, 3e-6),
            ] {
                let xs: Vec<f32> = (-4000..4000).map(|i| i as f32 * 0.00217).collect();
                let mut ys = xs.clone();
                level.run(Map(function, &mut ys));
                for (x, y) in xs.iter().zip(&ys) {
                    let expected = oracle(function, f64::from(*x));
                    let error = (f64::from(*y) - expected).abs() / expected.abs().max(1.0);
                    assert!(error < bound, "{function:?}({x}) = {y}, expected {expected} ({level:?})");
                }
            }
        }
    }

    #[test]
    fn ln_matches_its_f64_oracle_at_every_level() {
        for level in [Level::Portable, Level::detect()] {
            let near_one = (-3000..3000).map(|i| 1.0 + i as f32 * 1e-4);
            let xs: Vec<f32> = near_one.chain((-120..120).map(|e| 1.2345 * 2f32.powi(e))).chain([1.0]).collect();
            let mut ys = xs.clone();
            level.run(Map(Function::Ln, &mut ys));
            for (x, y) in xs.iter().zip(&ys) {
                let expected = oracle(Function::Ln, f64::from(*x));
                let error = (f64::from(*y) - expected).abs() / expected.abs().max(1.0);
                assert!(error < 2e-7, "ln {x} = {y}, expected {expected} ({level:?})");
            }
            let mut ends = [f32::NAN, f32::INFINITY, 1.0];
            level.run(Map(Function::Ln, &mut ends));
            assert!(ends[0].is_nan() && ends[1].is_nan() && ends[2] == 0.0, "{ends:?}");
        }
    }

    #[test]
    fn exp_nonpositive_matches_its_f64_oracle_at_every_level() {
        for level in [Level::Portable, Level::detect()] {
            let xs: Vec<f32> = (0..41_000).map(|i| -(i as f32) * 1e-3).collect();
            let mut ys = xs.clone();
            level.run(Map(Function::ExpNonpositive, &mut ys));
            for (x, y) in xs.iter().zip(&ys) {
                let expected = oracle(Function::ExpNonpositive, f64::from(*x));
                let error = (f64::from(*y) - expected).abs() / expected;
                assert!(error < 2e-7 - 1e-7 * f64::from(*x), "exp {x} = {y}, expected {expected} ({level:?})");
            }
            let mut ends = [0.0, -1e30, f32::NEG_INFINITY, f32::NAN];
            level.run(Map(Function::ExpNonpositive, &mut ends));
            assert!(ends[0] == 1.0 && ends[3].is_nan(), "{ends:?}");
            assert!(ends[1..3].iter().all(|end| (0.0..2e-18).contains(end)), "{ends:?}");
        }
    }

    #[test]
    fn exp_handles_extreme_arguments() {
        let mut ends = [-1e30, -88.0, 89.0, f32::NAN, f32::NEG_INFINITY, 0.0];
        Level::detect().run(Map(Function::Exp, &mut ends));
        assert_eq!(ends[0], 0.0);
        assert_eq!(ends[1], 0.0);
        assert_eq!(ends[2], f32::INFINITY);
        assert!(ends[3].is_nan());
        assert_eq!(ends[4], 0.0);
        assert_eq!(ends[5], 1.0);
    }
}
