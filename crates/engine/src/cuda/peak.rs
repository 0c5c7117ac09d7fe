//! The measured peaks of a GPU: what products and copies reach if nothing else limits them.

use std::time::Instant;

use super::{Cuda, Operand, Product};
use crate::DType;
use crate::device::{Bandwidths, Memory};

const REPEATS: usize = 5;

/// FLOP/s of products of this type.
pub(super) fn matrix_peak(cuda: &Cuda, dtype: DType) -> f64 {
    let size = cuda.driver.measurable();
    let (a, b) = (cuda.zeros(&[size, size], dtype), cuda.zeros(&[size, size], dtype));
    let mut c = cuda.empty(&[size, size], dtype);
    let product = Product {
        rows: size,
        columns: size,
        inner: size,
        a: Operand::of(&a),
        b: Operand::of(&b).t(),
        c: Operand::of_mut(&mut c),
        addend: None,
        bias: None,
    };
    let seconds = seconds(cuda, || {
        // SAFETY: all three are matrices of this size.
        unsafe { cuda.product(&product) };
    });
    2.0 * (size as f64).powi(3) / seconds
}

/// Bytes per second: a copy reads as much as it writes, so its rate of reading counts twice.
pub(super) fn bandwidths(cuda: &Cuda) -> Bandwidths {
    let rate = |bytes: usize| {
        let from = cuda.zeros(&[bytes / 4], DType::F32);
        let to = cuda.zeros(&[bytes / 4], DType::F32);
        let (from, to) = (from.device_ptr(), to.device_ptr());
        // SAFETY: both have this many bytes, and nothing else uses them.
        let seconds = seconds(cuda, || unsafe { cuda.driver.copy(to, from, bytes) });
        2.0 * bytes as f64 / seconds
    };
    let large = cuda.driver.measurable().pow(2) * 16;
    let memory = rate(large);
    Bandwidths { l2: rate(large / 128), l3: memory, dram: memory }
}

/// Seconds of one run of `work`, after a first one.
fn seconds(cuda: &Cuda, work: impl Fn()) -> f64 {
    work();
    cuda.driver.synchronize();
    let start = Instant::now();
    (0..REPEATS).for_each(|_| work());
    cuda.driver.synchronize();
    start.elapsed().as_secs_f64() / REPEATS as f64
}
