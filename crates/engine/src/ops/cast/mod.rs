//! Converts activations to another type: pooled vectors are f32, and a layer that reads them may compute in bf16.
//!
//! Backward: the gradient is converted to the type of x.

mod cpu;
#[allow(unsafe_code)]
mod cuda;

use crate::profile::Cost;
use crate::{DType, Pass, Tensor, Var};

/// The kernel of both directions.
pub(crate) trait Cast {
    /// The numbers of `x`, f32 or bf16, as `dtype`, rounded to nearest even.
    fn cast(&self, x: &Tensor, dtype: DType) -> Tensor;
}

/// `x` as `dtype`; without a copy, if it has this type.
pub fn cast(pass: &mut Pass<'_>, x: &Var, dtype: DType) -> Var {
    let from = x.value().dtype();
    if from == dtype {
        return x.clone();
    }
    let value = pass.device().backend().cast(x.value(), dtype);
    let x_slot = x.slot();
    let cost = Cost::new(0, x.value().bytes() + value.bytes());
    pass.costs(cost, cost);
    pass.record("cast", value, |slot| {
        Box::new(move |backward| {
            let Some(gradient) = backward.finish(slot) else { return };
            let dx = backward.device.backend().cast(&gradient, from);
            backward.add(x_slot, dx);
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;
    use crate::ops::check::check_op;

    /// From bf16 to f32 and back.
    #[test]
    fn cast_matches_its_oracle() {
        for count in [1, 33] {
            check_op(
                "cast",
                &[&[count, 3]],
                &[],
                |pass, x, _| {
                    let wide = cast(pass, &x[0], DType::F32);
                    cast(pass, &wide, x[0].value().dtype())
                },
                |x, _| x[0].clone(),
            );
        }
    }

    #[test]
    fn what_bf16_cannot_represent_is_rounded() {
        let device = Device::cpu(Some(1)).unwrap();
        let x = device.tensor_f32(&[1.0, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, -3.0, f32::INFINITY], &[5]);
        let narrow = device.backend().cast(&x, DType::BF16);
        assert_eq!((narrow.dtype(), narrow.shape()), (DType::BF16, &[5][..]));
        let wide = device.backend().cast(&narrow, DType::F32).to_vec_f32();
        assert_eq!(wide, [1.0, 1.0, 1.0 + 4.0 / 256.0, -3.0, f32::INFINITY]);
    }
}
