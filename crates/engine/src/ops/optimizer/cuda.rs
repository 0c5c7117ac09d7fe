use super::{
    Complete, Direction, LambBlocks, LambDirection, Moments, OptimizerStep, StepSettings, UpdateMoments, adamw_rate,
};
use crate::cuda::{Cuda, DevicePtr, Grid, args};
use crate::device::Memory;
use crate::{DType, Gradients, Parameters, Share, Tensor, host};
use std::ops::Range;

/// Threads of a block: one block for each part.
const THREADS: u32 = 256;

impl OptimizerStep for Cuda {
    fn square_sums(&self, grads: &Gradients, parts: &[Range<usize>]) -> Vec<f64> {
        let mut table = Parts::default();
        let unused = Share::WHOLE;
        parts.iter().for_each(|part| table.push(part.clone(), unused, grads.share(), 0));
        let on_device = table.upload(self);
        let mut sums = self.empty(&[parts.len(), 2], DType::F32);
        let mut args = args![grads.arena().device_ptr(), on_device.device_ptr(), sums.device_ptr_mut()];
        // SAFETY: the parts are within the gradients, and there is an f64 for each.
        unsafe { self.launch("optimizer_square_sums", Grid::new(parts.len(), THREADS), &mut args) };
        let mut found = vec![0f64; parts.len()];
        sums.device_buffer().download(0, host::bytes_mut(&mut found));
        found
    }

    fn adamw(
        &self,
        params: &mut Parameters,
        grads: &Gradients,
        moments: &mut Moments,
        settings: &StepSettings,
        factor: f32,
    ) {
        let mut parts = Parts::default();
        let (mut rates, mut common) = (Vec::new(), None);
        for (number, group) in params.update_groups().into_iter().enumerate() {
            let ((direction, rate), decay) = adamw_rate(&group, settings);
            rates.push([rate, decay]);
            common = Some(direction);
            moments.share.ranges(group.range).for_each(|part| parts.push(part, moments.share, grads.share(), number));
        }
        let Some(Direction { eps, root_correction }) = common else { return };
        let UpdateMoments { factor, beta1, beta2 } = UpdateMoments::new(settings, factor);
        let (on_device, rates) = (parts.upload(self), upload_rates(self, &rates));
        let Arenas { w, copy, m, v, g } = Arenas::new(params, grads, moments);
        let (of_parts, of_groups) = (on_device.device_ptr(), rates.device_ptr());
        let mut args = args![w, copy, m, v, g, of_parts, of_groups, factor, beta1, beta2, eps, root_correction];
        // SAFETY: the parts are disjoint and within all arenas; their groups have rates.
        unsafe { self.launch("optimizer_adamw", parts.grid(), &mut args) };
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
        let tensors = params.trained();
        if tensors.is_empty() {
            return;
        }
        let blocks = LambBlocks::new(&tensors, moments.share);
        let mut parts = Parts::default();
        for &index in &blocks.owned {
            parts.push(blocks.blocks[index].clone(), moments.share, grads.share(), blocks.of_tensors[index]);
        }
        let directions: Vec<LambDirection> =
            tensors.iter().map(|tensor| LambDirection::new(settings, tensor.decays)).collect();
        let LambDirection { adam: Direction { eps, root_correction }, scale, .. } = directions[0];
        let UpdateMoments { factor, beta1, beta2 } = UpdateMoments::new(settings, factor);
        let Arenas { w, copy, m, v, g } = Arenas::new(params, grads, moments);
        let with_decays = |rates: &[f32]| -> Vec<[f32; 2]> {
            rates.iter().zip(&directions).map(|(rate, direction)| [*rate, direction.decay]).collect()
        };

        let on_device = parts.upload(self);
        let of_parts = on_device.device_ptr();
        let decays = upload_rates(self, &with_decays(&vec![0.0; tensors.len()]));
        let mut sums = self.empty(&[blocks.owned.len(), 4], DType::F32);
        let (of_tensors, sums_at) = (decays.device_ptr(), sums.device_ptr_mut());
        let mut args =
            args![w, m, v, g, of_parts, of_tensors, sums_at, factor, beta1, beta2, eps, root_correction, scale];
        // SAFETY: the parts are disjoint and within all arenas; their parameters have λ, and each part has room for two f64.
        unsafe { self.launch("optimizer_lamb_norms", parts.grid(), &mut args) };
        let mut own_sums = vec![0f64; 2 * blocks.owned.len()];
        sums.device_buffer().download(0, host::bytes_mut(&mut own_sums));

        let mut block_sums = vec![[0f64; 2]; blocks.blocks.len()];
        for (index, sums) in blocks.owned.iter().zip(own_sums.as_chunks().0) {
            block_sums[*index] = *sums;
        }
        let rates = blocks.rates(&tensors, &mut block_sums, settings, complete);
        let rates = upload_rates(self, &with_decays(&rates));
        let mut args = args![w, copy, m, v, of_parts, rates.device_ptr(), eps, root_correction, scale];
        // SAFETY: as above.
        unsafe { self.launch("optimizer_lamb_update", parts.grid(), &mut args) };
    }
}

/// Parts of the arena, as the kernels read them.
#[derive(Default)]
struct Parts(Vec<[i32; 8]>);

impl Parts {
    /// Adds a part, whose moments and gradients are in the arenas of these shares.
    fn push(&mut self, part: Range<usize>, of_moments: Share, of_gradients: Share, group: usize) {
        let [w, m, g] =
            [part.start, of_moments.place(part.clone()).start, of_gradients.place(part.clone()).start].map(words);
        self.0.push([w[0], w[1], m[0], m[1], g[0], g[1], part.len() as i32, group as i32]);
    }

    fn upload(&self, cuda: &Cuda) -> Tensor {
        cuda.tensor_i32(self.0.as_flattened(), &[self.0.len(), 8])
    }

    fn grid(&self) -> Grid {
        Grid::new(self.0.len(), THREADS)
    }
}

/// A u64 of the kernels as two i32.
fn words(x: usize) -> [i32; 2] {
    [x as i32, (x >> 32) as i32]
}

fn upload_rates(cuda: &Cuda, rates: &[[f32; 2]]) -> Tensor {
    cuda.tensor_f32(rates.as_flattened(), &[rates.len(), 2])
}

/// The addresses of the weights, of their copy in bf16 if there is one, of both moments, and of the gradients.
struct Arenas {
    w: DevicePtr,
    copy: DevicePtr,
    m: DevicePtr,
    v: DevicePtr,
    g: DevicePtr,
}

impl Arenas {
    fn new(params: &mut Parameters, grads: &Gradients, moments: &mut Moments) -> Arenas {
        let (w, copy) = params.arena_mut().device_buffer_mut().both_mut();
        let (m, v) = (moments.first.device_ptr_mut(), moments.second.device_ptr_mut());
        Arenas { w, copy, m, v, g: grads.arena().device_ptr() }
    }
}
