use super::{Rope, RopeInputs};
use crate::Tensor;
use crate::cpu::Cpu;
use crate::cpu::disjoint::DisjointSlice;
use crate::cpu::lanes::{self, VectorElement, each_part, load, store};
use crate::cpu::level::{Isa, Vectorized};
use crate::dtype::with_real;

/// Rows per task.
const BLOCK: usize = 32;

impl Rope for Cpu {
    fn rope(&self, x: &Tensor, inputs: &RopeInputs, inverse: bool) -> Tensor {
        let (tokens, columns) = x.matrix("rope");
        let positions = inputs.positions.slice::<i32>();
        let (rows, width) = inputs.rotation.table.matrix("rope");
        assert_eq!((positions.len(), columns), (tokens, 3 * inputs.heads * width), "rope: {x:?}");
        assert!(positions.iter().all(|at| (0..rows as i32).contains(at)), "rope: a position outside 0..{rows}");
        let table = inputs.rotation.table.slice::<f32>();
        let mut y = Tensor::host(&[tokens, columns], x.dtype());
        with_real!(x.dtype(), E => {
            let (x, parts) = (x.slice::<E>(), DisjointSlice::new(y.slice_mut::<E>()));
            self.for_blocks(tokens, BLOCK, |range| {
                let elements = range.start * columns..range.end * columns;
                // SAFETY: blocks are disjoint.
                let y = unsafe { parts.part(elements.clone()) };
                let (x, positions) = (&x[elements], &positions[range]);
                self.level.run(Rotate { x, y, positions, table, width, columns, inverse });
            });
        });
        y
    }
}

struct Rotate<'a, E> {
    x: &'a [E],
    y: &'a mut [E],
    positions: &'a [i32],
    table: &'a [f32],
    width: usize,
    columns: usize,
    inverse: bool,
}

impl<E: VectorElement> Vectorized for Rotate<'_, E> {
    type Output = ();
    #[inline(always)]
    fn call<I: Isa>(self) {
        let Rotate { x, y, positions, table, width, columns, inverse } = self;
        let half = width / 2;
        let rotated = columns / 3 * 2;
        let sign = if inverse { -1.0 } else { 1.0 };
        for ((x, y), &position) in x.chunks_exact(columns).zip(y.chunks_exact_mut(columns)).zip(positions) {
            let (cos, sin) = table[position as usize * width..][..width].split_at(half);
            let heads = x[..rotated].chunks_exact(width).zip(y[..rotated].chunks_exact_mut(width));
            for (x, y) in heads {
                let ((a, b), (y_a, y_b)) = (x.split_at(half), y.split_at_mut(half));
                each_part!(half, part => {
                    let (a, b) = (load(&a[part.clone()]), load(&b[part.clone()]));
                    let (cos, sin) = (load(&cos[part.clone()]), lanes::map(load(&sin[part.clone()]), |sin| sign * sin));
                    let turned = lanes::zip(lanes::zip(a, cos, |a, c| a * c), lanes::zip(b, sin, |b, s| b * s), |p, q| p - q);
                    store::<I, _>(turned, &mut y_a[part.clone()]);
                    let turned = lanes::zip(lanes::zip(b, cos, |b, c| b * c), lanes::zip(a, sin, |a, s| a * s), |p, q| p + q);
                    store::<I, _>(turned, &mut y_b[part]);
                });
            }
            y[rotated..].copy_from_slice(&x[rotated..]);
        }
    }
}
