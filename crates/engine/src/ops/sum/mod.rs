//! a + b: how gradients add over the uses of an activation. Its own derivative is never needed.

#[allow(unsafe_code)]
mod cpu;

use crate::Tensor;

/// Element-wise addition.
pub trait Sum {
    /// a + b, in a's memory where nobody else holds it.
    fn sum(&self, a: Tensor, b: &Tensor) -> Tensor;
}

#[cfg(test)]
mod tests {
    use crate::ops::check::check_op;
    use crate::ops::dropout;

    /// x reaches the output along two ways, so its gradient is a sum of two.
    #[test]
    fn gradients_add_over_uses() {
        for count in [1, 31, 1000] {
            check_op(
                "sum",
                &[&[count, 3]],
                &[],
                |pass, x, _| {
                    let both = (dropout(pass, &x[0], 0.0), dropout(pass, &x[0], 0.0));
                    let value = pass.device().clone().backend().sum(both.0.value().clone(), both.1.value());
                    let slots = [both.0.slot(), both.1.slot()];
                    pass.record("sum", value, |slot| {
                        Box::new(move |back| {
                            let Some(gradient) = back.finish(slot) else {
                                return;
                            };
                            back.add(slots[0], gradient.clone());
                            back.add(slots[1], gradient);
                        })
                    })
                },
                |x, _| x[0].iter().map(|v| v + v).collect(),
            );
        }
    }
}
