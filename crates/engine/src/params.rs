//! Parameters in one flat `f32` arena: norms, clipping, decay and Adam are single passes over memory, and a checkpoint
//! is a walk over names.

use crate::cpu::gemm::PackedB;
use crate::random::{mix, truncated_normal};
use crate::{Device, Tensor};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::OnceLock;

/// How a parameter starts.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Init {
    /// Biases.
    Zeros,
    /// Norm gains.
    Ones,
    /// Weights: normal with this standard deviation, cut at two of them (Devlin et al. 2019 use 0.02).
    TruncatedNormal {
        /// The standard deviation before the cut.
        std: f32,
    },
}

/// Names one parameter, or several stacked ones, of one [`Parameters`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ParamId(usize);

struct Declaration {
    name: String,
    shape: Vec<usize>,
    offset: usize,
    init: Init,
    decay: bool,
    /// What the learning rate is multiplied by; 0: the weights stay as they are.
    rate: f32,
}

impl Declaration {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Collects declarations; the arena is laid out in their order.
#[derive(Default)]
pub struct ParametersBuilder {
    declared: Vec<Declaration>,
    stacks: Vec<Declaration>,
    len: usize,
}

/// Stacked ids count down from the top, so that declarations and stacks share one id type.
const FIRST_STACK: usize = usize::MAX / 2;

impl ParametersBuilder {
    /// Declares a parameter once: its checkpoint name, shape, start, and whether weight decay applies.
    pub fn declare(&mut self, name: &str, shape: &[usize], init: Init, decay: bool) -> ParamId {
        let declaration =
            Declaration { name: name.to_owned(), shape: shape.to_vec(), offset: self.len, init, decay, rate: 1.0 };
        self.len += declaration.len();
        self.declared.push(declaration);
        ParamId(self.declared.len() - 1)
    }

    /// Sees consecutive parameters with equal inner dimensions as one, stacked along the first: query, key and value
    /// become one product. Panics if they do not follow each other.
    pub fn stack(&mut self, ids: &[ParamId]) -> ParamId {
        let parts: Vec<&Declaration> = ids.iter().map(|id| &self.declared[id.0]).collect();
        let (first, rest) = parts.split_first().expect("a stack has parts");
        let mut shape = first.shape.clone();
        let mut end = first.offset + first.len();
        for part in rest {
            assert_eq!(part.offset, end, "{} must follow its predecessor to be stacked", part.name);
            assert_eq!(part.shape[1..], shape[1..], "{}: inner dimensions of a stack", part.name);
            shape[0] += part.shape[0];
            end += part.len();
        }
        let name = parts.iter().map(|p| p.name.as_str()).collect::<Vec<_>>().join(" + ");
        let stack = Declaration { name, shape, offset: first.offset, init: first.init, decay: first.decay, rate: 1.0 };
        self.stacks.push(stack);
        ParamId(FIRST_STACK + self.stacks.len() - 1)
    }

    /// Lays out the arena and draws the initial weights, each a pure function of (seed, name, index).
    pub fn build(self, device: &Device, seed: u64) -> Parameters {
        let mut values = Tensor::host(&[self.len], crate::DType::F32);
        let flat = values.slice_mut::<f32>();
        for declared in &self.declared {
            let part = &mut flat[declared.offset..declared.offset + declared.len()];
            match declared.init {
                Init::Zeros => part.fill(0.0),
                Init::Ones => part.fill(1.0),
                Init::TruncatedNormal { std } => {
                    fill_truncated_normal(device, part, std, name_key(seed, &declared.name))
                }
            }
        }
        let by_name = self.declared.iter().enumerate().map(|(i, d)| (d.name.clone(), ParamId(i))).collect();
        Parameters { declared: self.declared, stacks: self.stacks, by_name, values, copies: None }
    }
}

fn name_key(seed: u64, name: &str) -> u64 {
    name.bytes().fold(mix(seed, name.len() as u64), |key, byte| mix(key, u64::from(byte)))
}

fn fill_truncated_normal(device: &Device, part: &mut [f32], std: f32, key: u64) {
    const BLOCK: usize = 1 << 16;
    let threads = device.threads().clamp(1, part.len().div_ceil(BLOCK).max(1));
    let share = part.len().div_ceil(threads).max(1);
    std::thread::scope(|scope| {
        for (i, chunk) in part.chunks_mut(share).enumerate() {
            scope.spawn(move || {
                for (j, x) in chunk.iter_mut().enumerate() {
                    *x = (f64::from(std) * truncated_normal(key, (i * share + j) as u64)) as f32;
                }
            });
        }
    });
}

/// A part of the arena that an optimizer treats alike.
pub(crate) struct LearningRun {
    pub(crate) range: Range<usize>,
    pub(crate) decays: bool,
    /// Of the learning rate.
    pub(crate) rate: f32,
}

/// All weights of a model.
pub struct Parameters {
    declared: Vec<Declaration>,
    stacks: Vec<Declaration>,
    by_name: HashMap<String, ParamId>,
    values: Tensor,
    /// Compute copies of matrices, made at first use.
    copies: Option<HashMap<ParamId, OnceLock<Option<PackedB>>>>,
}

impl Parameters {
    /// A builder without declarations.
    pub fn builder() -> ParametersBuilder {
        ParametersBuilder::default()
    }

    fn declaration(&self, id: ParamId) -> &Declaration {
        if id.0 >= FIRST_STACK { &self.stacks[id.0 - FIRST_STACK] } else { &self.declared[id.0] }
    }

    pub(crate) fn range(&self, id: ParamId) -> Range<usize> {
        let declared = self.declaration(id);
        declared.offset..declared.offset + declared.len()
    }

    /// Every parameter in arena order (stacks are views and do not appear).
    pub fn ids(&self) -> impl Iterator<Item = ParamId> + use<> {
        (0..self.declared.len()).map(ParamId)
    }

    /// The checkpoint name.
    pub fn name(&self, id: ParamId) -> &str {
        &self.declaration(id).name
    }

    /// Dimensions, outermost first.
    pub fn shape(&self, id: ParamId) -> &[usize] {
        &self.declaration(id).shape
    }

    /// Whether weight decay applies.
    pub fn decays(&self, id: ParamId) -> bool {
        self.declaration(id).decay
    }

    /// The parameter of this name.
    pub fn find(&self, name: &str) -> Option<ParamId> {
        self.by_name.get(name).copied()
    }

    /// Number of weights.
    pub fn count(&self) -> usize {
        self.values.count()
    }

    /// One parameter's weights, row-major.
    pub fn values(&self, id: ParamId) -> &[f32] {
        &self.flat()[self.range(id)]
    }

    /// One parameter's weights for writing.
    pub fn values_mut(&mut self, id: ParamId) -> &mut [f32] {
        let range = self.range(id);
        &mut self.flat_mut()[range]
    }

    /// The whole arena.
    pub fn flat(&self) -> &[f32] {
        self.values.slice()
    }

    /// The whole arena for writing. Compute copies are made anew after it.
    pub fn flat_mut(&mut self) -> &mut [f32] {
        if self.copies.is_some() {
            self.keep_copies();
        }
        self.values.slice_mut()
    }

    /// From now on passes that do not record keep, of each matrix, the packed bf16 copy that their first product makes: half the
    /// matrix's memory again, for weights that are used many times before they change. (A training step uses them once.)
    pub fn keep_copies(&mut self) {
        let ids = (0..self.declared.len()).chain(FIRST_STACK..FIRST_STACK + self.stacks.len());
        self.copies = Some(ids.map(|id| (ParamId(id), OnceLock::new())).collect());
    }

    /// The copy of a matrix that `make` makes, where copies are kept.
    pub(crate) fn copy(&self, id: ParamId, make: impl FnOnce() -> Option<PackedB>) -> Option<&PackedB> {
        self.copies.as_ref()?.get(&id)?.get_or_init(make).as_ref()
    }

    /// Multiplies the learning rate of one parameter by `rate`: layer-wise rates, or 0 for weights that stay as they are.
    /// Panics on a stack, whose parts have rates of their own.
    pub fn set_rate(&mut self, id: ParamId, rate: f32) {
        self.declared[id.0].rate = rate;
    }

    /// The parts of the arena that learn.
    pub(crate) fn learning_ranges(&self) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for LearningRun { range, .. } in self.learning_runs() {
            match ranges.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => ranges.push(range),
            }
        }
        ranges
    }

    /// Consecutive parts of the arena that an optimizer treats alike; parts that do not learn are left out.
    pub(crate) fn learning_runs(&self) -> Vec<LearningRun> {
        let mut runs: Vec<LearningRun> = Vec::new();
        for d in self.declared.iter().filter(|d| d.rate != 0.0) {
            match runs.last_mut() {
                Some(run) if (run.decays, run.rate, run.range.end) == (d.decay, d.rate, d.offset) => {
                    run.range.end += d.len();
                }
                _ => {
                    let range = d.offset..d.offset + d.len();
                    runs.push(LearningRun { range, decays: d.decay, rate: d.rate });
                }
            }
        }
        runs
    }
}

/// The gradient of every weight, laid out as its [`Parameters`].
pub struct Gradients {
    ranges: Vec<Range<usize>>,
    values: Tensor,
    /// Parameters whose gradient counts as zero, whatever lies there: the step's first one is stored, not added, which saves
    /// a pass over the arena.
    cleared: Vec<bool>,
}

impl Gradients {
    /// Zeros in the layout of `params`.
    pub fn zeros_like(params: &Parameters) -> Gradients {
        let mut values = Tensor::host(&[params.count()], crate::DType::F32);
        values.slice_mut::<f32>().fill(0.0);
        let ranges: Vec<_> = params.ids().map(|id| params.range(id)).collect();
        Gradients { cleared: vec![false; ranges.len()], ranges, values }
    }

    /// Sets every gradient to zero, before a step's first micro-batch. They can be read after a backward pass, not before.
    pub fn zero(&mut self) {
        self.cleared.fill(true);
    }

    /// One parameter's gradient.
    pub fn get(&self, id: ParamId) -> &[f32] {
        &self.flat()[self.ranges[id.0].clone()]
    }

    /// The whole arena of gradients.
    pub fn flat(&self) -> &[f32] {
        assert!(!self.cleared.contains(&true), "gradients are read after a backward pass");
        self.values.slice()
    }

    /// The whole arena of gradients for writing.
    pub fn flat_mut(&mut self) -> &mut [f32] {
        self.settle();
        self.values.slice_mut()
    }

    /// Writes the zeros of parameters that no gradient has reached.
    pub(crate) fn settle(&mut self) {
        for (range, cleared) in self.ranges.iter().zip(&mut self.cleared) {
            if std::mem::take(cleared) {
                self.values.slice_mut::<f32>()[range.clone()].fill(0.0);
            }
        }
    }

    /// Whether a gradient that covers the parameters of `range` must be added to what is there; otherwise it must be stored.
    /// Either way it is taken as done.
    pub(crate) fn adds(&mut self, range: Range<usize>) -> bool {
        let first = self.ranges.partition_point(|part| part.start < range.start);
        let count = self.ranges[first..].partition_point(|part| part.start < range.end);
        let parts = first..first + count;
        let adds = !self.cleared[parts.clone()].iter().all(|cleared| *cleared);
        for part in parts {
            if std::mem::take(&mut self.cleared[part]) && adds {
                self.values.slice_mut::<f32>()[self.ranges[part].clone()].fill(0.0);
            }
        }
        adds
    }

    /// The gradients of `range`, to be added to.
    pub(crate) fn sums(&mut self, range: Range<usize>) -> &mut [f32] {
        if !self.adds(range.clone()) {
            self.part(range.clone()).fill(0.0);
        }
        self.part(range)
    }

    /// What lies at `range`, after [`Gradients::adds`] has said what to do with it.
    pub(crate) fn part(&mut self, range: Range<usize>) -> &mut [f32] {
        &mut self.values.slice_mut()[range]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> Device {
        Device::cpu(Some(2)).expect("a CPU device")
    }

    #[test]
    fn initial_weights_depend_on_seed_and_name_alone() {
        let build = |order: [&str; 2], seed| {
            let mut builder = Parameters::builder();
            for name in order {
                builder.declare(name, &[300, 7], Init::TruncatedNormal { std: 0.02 }, true);
            }
            builder.build(&device(), seed)
        };
        let (first, second) = (build(["a", "b"], 1), build(["b", "a"], 1));
        let values = |p: &Parameters, name: &str| p.values(p.find(name).expect("declared")).to_vec();
        assert_eq!(values(&first, "a"), values(&second, "a"));
        assert_ne!(values(&first, "a"), values(&first, "b"));
        assert_ne!(values(&first, "a"), values(&build(["a", "b"], 2), "a"));
        assert!(values(&first, "a").iter().all(|x| x.abs() <= 0.0401));
    }

    #[test]
    fn a_stack_sees_its_parts_end_to_end() {
        let mut builder = Parameters::builder();
        let q = builder.declare("q", &[2, 3], Init::Zeros, true);
        let k = builder.declare("k", &[1, 3], Init::Ones, true);
        let both = builder.stack(&[q, k]);
        let params = builder.build(&device(), 0);
        assert_eq!(params.shape(both), [3, 3]);
        assert_eq!(params.values(both), [0., 0., 0., 0., 0., 0., 1., 1., 1.]);
        assert_eq!(params.ids().count(), 2);
    }
    #[test]
    fn a_cleared_gradient_is_stored_then_added_to() {
        let mut builder = Parameters::builder();
        let parts = ["a", "b", "c"].map(|name| builder.declare(name, &[2, 3], Init::Ones, true));
        let stack = builder.stack(&parts[..2]);
        let params = builder.build(&device(), 0);
        let mut grads = Gradients::zeros_like(&params);
        grads.flat_mut().fill(7.0);
        grads.zero();
        let [a, b, both] = [parts[0], parts[1], stack].map(|id| params.range(id));
        assert!(!grads.adds(a.clone()) && grads.adds(a.clone()));
        grads.part(a).fill(1.0);
        // A stack of which one part has its gradient: the other's zeros are written.
        assert!(grads.adds(both) && grads.adds(b));
        grads.sums(params.range(parts[2]))[0] = 2.0;
        assert_eq!(grads.flat(), [1., 1., 1., 1., 1., 1., 0., 0., 0., 0., 0., 0., 2., 0., 0., 0., 0., 0.]);
        grads.zero();
        grads.settle();
        assert!(grads.flat().iter().all(|g| *g == 0.0));
    }
}
