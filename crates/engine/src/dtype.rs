//! The element types of tensors, known at run time.

pub use half::bf16;

/// The type of a tensor's elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// The upper half of an `f32`: 8 bits of exponent, 7 of fraction.
    BF16,
    /// Token ids, positions, labels and cumulative lengths.
    I32,
}

impl DType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::BF16 => 2,
        }
    }

    /// The name in recipes and reports.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::BF16 => "bf16",
            DType::I32 => "i32",
        }
    }
}

/// Plain numbers, for which all bit patterns are valid.
pub(crate) trait Plain: Copy + Default + Send + Sync + 'static {}

impl Plain for i8 {}
impl Plain for i32 {}
impl Plain for f32 {}
impl Plain for f64 {}
impl Plain for bf16 {}

/// A Rust type that a tensor can store.
pub(crate) trait Element: Plain {
    const DTYPE: DType;
}

impl Element for i32 {
    const DTYPE: DType = DType::I32;
}
impl Element for f32 {
    const DTYPE: DType = DType::F32;
}
impl Element for bf16 {
    const DTYPE: DType = DType::BF16;
}

/// An element type for real numbers; arithmetic uses `f32`.
pub(crate) trait Real: Element {
    fn to_f32(self) -> f32;
    fn from_f32(x: f32) -> Self;
}

impl Real for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn from_f32(x: f32) -> f32 {
        x
    }
}

impl Real for bf16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits((self.to_bits() as u32) << 16)
    }
    /// Rounds to nearest, ties to even. (`half`'s conversion detects CPU features on each call.)
    #[inline(always)]
    fn from_f32(x: f32) -> bf16 {
        bf16::from_bits((rounded_to_bf16(x) >> 16) as u16)
    }
}

/// Bits whose upper half is `x` rounded to bf16: to nearest, ties to even; NaN stays NaN. Integer operations only: with
/// a comparison of floats, the compiler did not vectorise it.
#[inline(always)]
pub(crate) fn rounded_to_bf16(x: f32) -> u32 {
    let bits = x.to_bits();
    let nan = bits & 0x7fff_ffff > 0x7f80_0000;
    let up = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    if nan { bits | 0x0040_0000 } else { up }
}

/// Calls `$body` with the type alias `$E` bound to the Rust type of a real-valued dtype.
macro_rules! with_real {
    ($dtype:expr, $E:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F32 => {
                type $E = f32;
                $body
            }
            $crate::DType::BF16 => {
                type $E = $crate::dtype::bf16;
                $body
            }
            $crate::DType::I32 => panic!("a real-valued tensor was expected, found i32"),
        }
    };
}
pub(crate) use with_real;
