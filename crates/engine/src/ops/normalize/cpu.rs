use super::{EPSILON, Normalize};
use crate::Tensor;
use crate::cpu::Cpu;

/// The dot product, in f64.
fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

impl Normalize for Cpu {
    fn normalize(&self, x: &Tensor) -> Tensor {
        let (_, columns) = x.matrix("normalize");
        let mut y = Tensor::host(x.shape(), x.dtype());
        let rows = x.slice::<f32>().chunks_exact(columns);
        for (y, x) in y.slice_mut::<f32>().chunks_exact_mut(columns).zip(rows) {
            let norm = dot(x, x).sqrt().max(EPSILON);
            y.iter_mut().zip(x).for_each(|(y, x)| *y = (f64::from(*x) / norm) as f32);
        }
        y
    }

    fn normalize_backward(&self, x: &Tensor, dy: &Tensor) -> Tensor {
        let (_, columns) = x.matrix("normalize_backward");
        let mut dx = Tensor::host(x.shape(), x.dtype());
        let rows = x.slice::<f32>().chunks_exact(columns).zip(dy.slice::<f32>().chunks_exact(columns));
        for (dx, (x, dy)) in dx.slice_mut::<f32>().chunks_exact_mut(columns).zip(rows) {
            let norm = dot(x, x).sqrt();
            let along = if norm > EPSILON { dot(x, dy) / (norm * norm) } else { 0.0 };
            let factor = 1.0 / norm.max(EPSILON);
            for ((dx, x), dy) in dx.iter_mut().zip(x).zip(dy) {
                *dx = (factor * (f64::from(*dy) - along * f64::from(*x))) as f32;
            }
        }
        dx
    }
}
