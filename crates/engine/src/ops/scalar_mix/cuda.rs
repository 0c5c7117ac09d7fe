use super::{MixWeights, ScalarMix};
use crate::cuda::{Cuda, DevicePtr, Grid, args};
use crate::device::Memory;
use crate::{DType, Gradients, Parameters, Tensor};

/// Elements whose products are summed first, by one block of threads.
const BLOCK: usize = 4096;

impl ScalarMix for Cuda {
    fn scalar_mix(&self, parts: &[Tensor], params: &Parameters, mix: MixWeights) -> Tensor {
        let (shape, dtype, count) = (parts[0].shape(), parts[0].dtype(), parts[0].count());
        let same = |part: &Tensor| (part.shape(), part.dtype()) == (shape, dtype);
        assert!(parts.iter().all(same), "scalar_mix: parts like {:?}", parts[0]);
        let shares = mix_shares(self, params, mix, parts.len());
        let addresses: Vec<DevicePtr> = parts.iter().map(Tensor::device_ptr).collect();
        let addresses = upload_addresses(self, &addresses);
        let mut y = self.empty(shape, dtype);
        let (x, shares, y_at) = (addresses.device_ptr(), shares.device_ptr(), y.device_ptr_mut());
        let mut args = args![x, shares, self.weights(params, mix.scale), y_at, parts.len() as i32, count];
        // SAFETY: y and all parts have the same shape and type, each part has a share, and γ is one number.
        unsafe { self.launch_of("scalar_mix_forward", dtype, Grid::each_vector(&y), &mut args) };
        y
    }

    fn scalar_mix_backward(
        &self,
        dy: &Tensor,
        parts: &[(Tensor, bool)],
        params: &Parameters,
        mix: MixWeights,
        grads: &mut Gradients,
    ) -> Vec<Option<Tensor>> {
        let (dtype, count, number) = (dy.dtype(), dy.count(), parts.len() as i32);
        let shares = mix_shares(self, params, mix, parts.len());
        let (shares, scale) = (shares.device_ptr(), self.weights(params, mix.scale));

        let addresses: Vec<DevicePtr> = parts.iter().map(|(x, _)| x.device_ptr()).collect();
        let addresses = upload_addresses(self, &addresses);
        let blocks = count.div_ceil(BLOCK);
        // Numbers of f64.
        let mut partial = self.empty(&[parts.len(), blocks, 2], DType::F32);
        let mut products = self.empty(&[parts.len(), 2], DType::F32);
        let (partial, products) = (partial.device_ptr_mut(), products.device_ptr_mut());
        let mut args = args![dy.device_ptr(), addresses.device_ptr(), partial, count, BLOCK as i32];
        let grid = Grid::of([blocks, parts.len(), 1], 256);
        // SAFETY: dy and the parts have the same shape and type; there is a sum for each part and block.
        unsafe { self.launch_of("scalar_mix_products", dtype, grid, &mut args) };
        let (dscale, adds_scale) = self.gradients(grads, params.range(mix.scale));
        let (dw, adds_w) = self.gradients(grads, params.range(mix.weights));
        let mut args = args![partial, blocks, products, shares, scale, number, dscale, adds_scale, dw, adds_w];
        // SAFETY: as above; w and its gradient have a number for each part, and γ is one number.
        unsafe { self.launch("scalar_mix_gradients", Grid::new(1, 256), &mut args) };

        let mut dx: Vec<Option<Tensor>> =
            parts.iter().map(|(x, is_needed)| is_needed.then(|| self.empty(x.shape(), dtype))).collect();
        let addresses: Vec<DevicePtr> =
            dx.iter_mut().map(|dx| dx.as_mut().map_or(DevicePtr::NULL, Tensor::device_ptr_mut)).collect();
        let addresses = upload_addresses(self, &addresses);
        let mut args = args![dy.device_ptr(), addresses.device_ptr(), shares, scale, number, count];
        // SAFETY: dy and the gradients have the same shape and type, and each part has a share.
        unsafe { self.launch_of("scalar_mix_backward", dtype, Grid::each_vector(dy), &mut args) };
        dx
    }
}

/// softmax(w), for this number of parts.
fn mix_shares(cuda: &Cuda, params: &Parameters, mix: MixWeights, parts: usize) -> Tensor {
    assert_eq!(params.size(mix.weights), parts, "scalar_mix: a weight for each part");
    let mut shares = cuda.empty(&[parts], DType::F32);
    let mut args = args![cuda.weights(params, mix.weights), shares.device_ptr_mut(), parts as i32];
    // SAFETY: there is a weight and a share for each part.
    unsafe { cuda.launch("scalar_mix_softmax", Grid::new(1, 32), &mut args) };
    shares
}

/// An array of addresses, for a kernel.
fn upload_addresses(cuda: &Cuda, addresses: &[DevicePtr]) -> Tensor {
    let words: Vec<[i32; 2]> = addresses.iter().map(|at| [at.0 as i32, (at.0 >> 32) as i32]).collect();
    cuda.tensor_i32(words.as_flattened(), &[addresses.len(), 2])
}
