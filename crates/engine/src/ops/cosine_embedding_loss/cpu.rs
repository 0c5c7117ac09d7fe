use super::CosineEmbeddingLoss;
use crate::Tensor;
use crate::cpu::Cpu;
use crate::cpu::disjoint::DisjointSlice;
use crate::cpu::lanes::{self, LANES, VectorElement, each_part, lane_sum, load, store};
use crate::cpu::level::{Isa, Vectorized};
use crate::dtype::with_real;
use crate::ops::LossSum;

/// Added to the squared norms.
const EPS: f32 = 1e-12;

impl CosineEmbeddingLoss for Cpu {
    fn cosine_embedding_loss(&self, x: &Tensor, targets: &Tensor, scale: f32) -> (LossSum, Tensor) {
        let (rows, columns) = x.matrix("cosine_embedding_loss");
        let expected = (x.shape(), x.dtype());
        assert_eq!((targets.shape(), targets.dtype()), expected, "cosine_embedding_loss: targets");
        let mut gradient = Tensor::host(x.shape(), x.dtype());
        let mut losses = vec![0.0; rows];
        let parts = DisjointSlice::new(&mut losses);
        with_real!(x.dtype(), E => {
            let dx = DisjointSlice::new(gradient.slice_mut::<E>());
            self.for_blocks(rows, LANES, |rows| {
                let elements = rows.start * columns..rows.end * columns;
                // SAFETY: blocks of rows are disjoint.
                let (losses, dx) = unsafe { (parts.part(rows), dx.part(elements.clone())) };
                let (x, targets) = (&x.slice::<E>()[elements.clone()], &targets.slice::<E>()[elements]);
                self.level.run(Distances { x, targets, columns, scale, losses, dx });
            });
        });
        let sum = losses.into_iter().map(f64::from).sum();
        (LossSum { sum, weight: rows as f64, count: rows, correct: 0 }, gradient)
    }
}

/// The distances of some rows, and their gradients.
struct Distances<'a, E> {
    x: &'a [E],
    targets: &'a [E],
    columns: usize,
    scale: f32,
    losses: &'a mut [f32],
    dx: &'a mut [E],
}

impl<E: VectorElement> Vectorized for Distances<'_, E> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let Distances { x, targets, columns, scale, losses, dx } = self;
        let rows = x.chunks_exact(columns).zip(targets.chunks_exact(columns));
        for ((x, t), (loss, dx)) in rows.zip(losses.iter_mut().zip(dx.chunks_exact_mut(columns))) {
            let dot = lane_sum!(I, columns, part => lanes::zip(load(&x[part.clone()]), load(&t[part]), |x, t| x * t));
            let x_square = EPS + lane_sum!(I, columns, part => lanes::map(load(&x[part]), |x| x * x));
            let t_square = EPS + lane_sum!(I, columns, part => lanes::map(load(&t[part]), |t| t * t));
            let inverse = 1.0 / (x_square * t_square).sqrt();
            let cosine = dot * inverse;
            *loss = 1.0 - cosine;
            let (of_x, of_t) = (scale * cosine / x_square, scale * inverse);
            each_part!(columns, part => {
                let d = lanes::zip(load(&x[part.clone()]), load(&t[part.clone()]), |x, t| of_x * x - of_t * t);
                store::<I, _>(d, &mut dx[part]);
            });
        }
    }
}
