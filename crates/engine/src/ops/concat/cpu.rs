use super::Concat;
use crate::Tensor;
use crate::cpu::Cpu;
use crate::dtype::with_real;

impl Concat for Cpu {
    fn concat(&self, parts: &[&Tensor]) -> Tensor {
        let (tokens, _) = parts[0].matrix("concat");
        let width: usize = parts.iter().map(|part| part.matrix("concat").1).sum();
        let mut y = Tensor::host(&[tokens, width], parts[0].dtype());
        with_real!(y.dtype(), E => {
            let y = y.slice_mut::<E>();
            let mut first = 0;
            for part in parts {
                let (rows, columns) = part.matrix("concat");
                assert_eq!(rows, tokens, "concat: number of rows");
                for (y, x) in y.chunks_exact_mut(width).zip(part.slice::<E>().chunks_exact(columns)) {
                    y[first..first + columns].copy_from_slice(x);
                }
                first += columns;
            }
        });
        y
    }

    fn concat_backward(&self, dy: &Tensor, widths: &[usize]) -> Vec<Tensor> {
        let (tokens, width) = dy.matrix("concat_backward");
        let mut first = 0;
        let part = |columns: &usize| {
            let mut dx = Tensor::host(&[tokens, *columns], dy.dtype());
            with_real!(dy.dtype(), E => {
                for (dx, dy) in dx.slice_mut::<E>().chunks_exact_mut(*columns).zip(dy.slice::<E>().chunks_exact(width)) {
                    dx.copy_from_slice(&dy[first..first + columns]);
                }
            });
            first += columns;
            dx
        };
        widths.iter().map(part).collect()
    }
}
