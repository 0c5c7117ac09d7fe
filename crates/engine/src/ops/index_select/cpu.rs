use super::IndexSelect;
use crate::Tensor;
use crate::cpu::Cpu;
use crate::dtype::{Real, with_real};

impl IndexSelect for Cpu {
    fn index_select(&self, x: &Tensor, rows: &Tensor) -> Tensor {
        let (tokens, hidden) = x.matrix("index_select");
        let rows = rows.slice::<i32>();
        let mut y = Tensor::host(&[rows.len(), hidden], x.dtype());
        with_real!(x.dtype(), E => {
            let x = x.slice::<E>();
            for (y, row) in y.slice_mut::<E>().chunks_exact_mut(hidden).zip(rows) {
                assert!((0..tokens as i32).contains(row), "index_select: row {row} of {tokens}");
                let start = *row as usize * hidden;
                y.copy_from_slice(&x[start..start + hidden]);
            }
        });
        y
    }

    fn index_select_backward(&self, dy: &Tensor, rows: &Tensor, tokens: usize, prior: Option<Tensor>) -> Tensor {
        let (_, hidden) = dy.matrix("index_select_backward");
        let mut dx = match prior {
            Some(prior) => prior.into_unique(),
            None => {
                let mut zeros = Tensor::host(&[tokens, hidden], dy.dtype());
                with_real!(dy.dtype(), E => zeros.slice_mut::<E>().fill(E::from_f32(0.0)));
                zeros
            }
        };
        with_real!(dy.dtype(), E => {
            let dx = dx.slice_mut::<E>();
            for (dy, row) in dy.slice::<E>().chunks_exact(hidden).zip(rows.slice::<i32>()) {
                let start = *row as usize * hidden;
                for (dx, dy) in dx[start..start + hidden].iter_mut().zip(dy) {
                    *dx = E::from_f32(dx.to_f32() + dy.to_f32());
                }
            }
        });
        dx
    }
}
