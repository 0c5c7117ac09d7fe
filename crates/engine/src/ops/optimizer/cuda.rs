use super::{Complete, Moments, OptimizerStep, StepSettings};
use crate::cuda::Cuda;
use crate::{Gradients, Parameters};
use std::ops::Range;

impl OptimizerStep for Cuda {
    fn square_sums(&self, grads: &Gradients, parts: &[Range<usize>]) -> Vec<f64> {
        todo!()
    }

    fn adamw(
        &self,
        params: &mut Parameters,
        grads: &Gradients,
        moments: &mut Moments,
        settings: &StepSettings,
        factor: f32,
    ) {
        todo!()
    }

    fn lamb(
        &self,
        params: &mut Parameters,
        grads: &Gradients,
        moments: &mut Moments,
        settings: &StepSettings,
        factor: f32,
        complete: Complete<'_>,
    ) {
        todo!()
    }
}
