use super::SegmentCrossEntropy;
use crate::Tensor;
use crate::cpu::Cpu;
use crate::dtype::{Real, with_real};
use crate::ops::cross_entropy::IGNORED;
use crate::ops::{LossSum, assert_segments};

impl SegmentCrossEntropy for Cpu {
    fn segment_cross_entropy(&self, z: &Tensor, ends: &Tensor, labels: &Tensor, scale: f32) -> (LossSum, Tensor) {
        let (rows, columns) = z.matrix("segment_cross_entropy");
        let (ends, labels) = (ends.slice::<i32>(), labels.slice::<i32>());
        assert_segments("segment_cross_entropy", ends, rows);
        assert_eq!(
            labels.len(),
            (ends.len() - 1) * columns,
            "segment_cross_entropy: labels of {} segments",
            ends.len() - 1
        );
        let mut gradient = Tensor::host(&[rows, columns], z.dtype());
        let mut loss = LossSum::default();
        with_real!(z.dtype(), E => {
            let (z, dz) = (z.slice::<E>(), gradient.slice_mut::<E>());
            for (segment, labels) in ends.windows(2).zip(labels.chunks_exact(columns)) {
                let (first, end) = (segment[0] as usize, segment[1] as usize);
                for (column, label) in labels.iter().enumerate() {
                    let at = |row: usize| row * columns + column;
                    if *label == IGNORED {
                        (first..end).for_each(|row| dz[at(row)] = E::from_f32(0.0));
                        continue;
                    }
                    assert!((0..(end - first) as i32).contains(label), "segment_cross_entropy: label {label} of {} rows", end - first);
                    let label = first + *label as usize;
                    let value = |row: usize| f64::from(z[at(row)].to_f32());
                    let best = (first..end).fold(first, |best, row| if value(row) > value(best) { row } else { best });
                    let sum: f64 = (first..end).map(|row| (value(row) - value(best)).exp()).sum();
                    let correct = usize::from(best == label);
                    loss += LossSum { sum: sum.ln() + value(best) - value(label), weight: 1.0, count: 1, correct };
                    for row in first..end {
                        let p = (value(row) - value(best)).exp() / sum - f64::from(u8::from(row == label));
                        dz[at(row)] = E::from_f32(scale * p as f32);
                    }
                }
            }
        });
        (loss, gradient)
    }
}
