use super::{ClassLabels, CrossEntropy, IGNORED};
use crate::Tensor;
use crate::cpu::Cpu;
use crate::dtype::{Real, with_real};
use crate::ops::LossSum;

impl CrossEntropy for Cpu {
    fn cross_entropy(&self, logits: &Tensor, labels: ClassLabels<'_>, scale: f32) -> (LossSum, Tensor) {
        let (rows, classes) = logits.matrix("cross_entropy");
        let ClassLabels { labels, weights } = labels;
        let labels = labels.slice::<i32>();
        assert!(
            weights.is_none_or(|w| w.len() == classes),
            "cross_entropy: number of class weights, expected {classes}"
        );
        assert_eq!(labels.len(), rows, "cross_entropy: labels of {rows} rows");
        let mut gradient = Tensor::host(&[rows, classes], logits.dtype());
        let mut loss = LossSum::default();
        with_real!(logits.dtype(), E => {
            let rows = logits.slice::<E>().chunks_exact(classes).zip(gradient.slice_mut::<E>().chunks_exact_mut(classes));
            for ((z, dz), label) in rows.zip(labels) {
                if *label == IGNORED {
                    dz.fill(E::from_f32(0.0));
                    continue;
                }
                assert!((0..classes as i32).contains(label), "cross_entropy: label {label} of {classes} classes");
                let label = *label as usize;
                let weight = weights.map_or(1.0, |weights| weights[label]);
                let z: Vec<f64> = z.iter().map(|z| f64::from(z.to_f32())).collect();
                let best = (0..classes).fold(0, |best, c| if z[c] > z[best] { c } else { best });
                let sum: f64 = z.iter().map(|v| (v - z[best]).exp()).sum();
                let nll = sum.ln() + z[best] - z[label];
                let correct = usize::from(best == label);
                loss += LossSum { sum: f64::from(weight) * nll, weight: weight.into(), count: 1, correct };
                for (c, dz) in dz.iter_mut().enumerate() {
                    let p = (z[c] - z[best]).exp() / sum - f64::from(u8::from(c == label));
                    *dz = E::from_f32(scale * weight * p as f32);
                }
            }
        });
        (loss, gradient)
    }
}
