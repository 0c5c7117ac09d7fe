//! a + b: sums the gradients from several uses of an activation, or from several micro-batches. It has no backward pass.

#[allow(unsafe_code)]
mod cpu;
#[allow(unsafe_code)]
mod cuda;

use crate::Tensor;
use std::ops::Range;

/// Element-wise addition.
pub(crate) trait Sum {
    /// a + b, in a's memory if it is not shared.
    fn sum(&self, a: Tensor, b: &Tensor) -> Tensor;

    /// Writes ranges of a₀ + (a₁ + (… + aₙ)), f32 tensors of one dimension, one after another to host memory.
    fn sum_ranges(&self, addends: &[&Tensor], ranges: &[Range<usize>], to: &mut [f32]);
}

#[cfg(test)]
mod tests {
    use crate::ops::check::check_op;
    use crate::ops::dropout;

    /// x reaches the output along two paths, so its gradient is a sum of two.
    #[test]
    fn gradients_add_over_uses() {
        for count in [1, 31, 1000, 1024] {
            check_op(
                "sum",
                &[&[count, 3]],
                &[],
                |pass, x, _| {
                    let both = (dropout(pass, &x[0], 0.0), dropout(pass, &x[0], 0.0));
                    let value = pass.device().clone().backend().sum(both.0.value().clone(), both.1.value());
                    let slots = [both.0.slot(), both.1.slot()];
                    pass.record("sum", value, |slot| {
                        Box::new(move |backward| {
                            let Some(gradient) = backward.finish(slot) else {
                                return;
                            };
                            backward.add(slots[0], gradient.clone());
                            backward.add(slots[1], gradient);
                        })
                    })
                },
                |x, _| x[0].iter().map(|v| v + v).collect(),
            );
        }
    }
}
