use super::Multinomial;
use crate::cuda::{Cuda, Grid, args};
use crate::device::Memory;
use crate::{DType, Tensor};

impl Multinomial for Cuda {
    fn multinomial(&self, logits: &Tensor, uniform: &[f64]) -> Vec<i32> {
        let (rows, classes) = logits.matrix("multinomial");
        assert_eq!(uniform.len(), rows, "multinomial: numbers of {rows} rows");
        // An f64 in two 32-bit words.
        let words: Vec<i32> = uniform.iter().flat_map(|u| [u.to_bits() as i32, (u.to_bits() >> 32) as i32]).collect();
        let uniform = self.tensor_i32(&words, &[rows, 2]);
        let mut samples = self.empty(&[rows], DType::I32);
        let grid = Grid::new(rows, 256).with_shared(classes.div_ceil(256) * size_of::<f64>());
        let mut args = args![logits.device_ptr(), uniform.device_ptr(), samples.device_ptr_mut(), classes as i32];
        // SAFETY: the logits are [rows, classes], there is a number and room for a sample for each row, and shared memory for a
        // sum of each 256 classes.
        unsafe { self.launch_of("multinomial_rows", logits.dtype(), grid, &mut args) };
        samples.to_vec_i32()
    }
}
