//! Parameters in one flat `f32` arena, in the memory of their device. So norms, clipping, weight decay and Adam are
//! single passes over memory, and a checkpoint is a walk over the names.

use crate::device::WeightCache;
use crate::random::{mix, truncated_normal};
use crate::{DType, Device, Tensor};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// The sum of more products of int8 could overflow an i32.
pub(crate) const MAX_INT8_COLUMNS: usize = 1 << 17;

/// How a parameter is initialised.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Init {
    /// Biases.
    Zeros,
    /// Norm gains.
    Ones,
    /// Weights: a normal distribution with this standard deviation, truncated at two standard deviations (Devlin et al.
    /// 2019 use 0.02).
    TruncatedNormal {
        /// The standard deviation before truncation.
        std: f32,
    },
}

impl Init {
    /// The initial values of a parameter of `size` numbers: a pure function of (seed, name, index).
    pub fn values(self, device: &Device, seed: u64, name: &str, size: usize) -> Vec<f32> {
        let mut values = vec![0.0; size];
        self.fill(device, seed, name, &mut values);
        values
    }

    fn fill(self, device: &Device, seed: u64, name: &str, part: &mut [f32]) {
        match self {
            Init::Zeros => part.fill(0.0),
            Init::Ones => part.fill(1.0),
            Init::TruncatedNormal { std } => fill_truncated_normal(device, part, std, name_key(seed, name)),
        }
    }
}

/// Identifies one parameter of a [`Parameters`], or a stack of several.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ParamId(pub(crate) usize);

struct Declaration {
    name: String,
    shape: Vec<usize>,
    offset: usize,
    init: Init,
    decay: bool,
    /// Factor of the learning rate; 0 freezes the weights.
    rate: f32,
}

impl Declaration {
    fn len(&self) -> usize {
        self.shape.iter().product()
    }

    fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.len()
    }
}

/// Collects declarations of parameters; the arena has their order.
#[derive(Default)]
pub struct ParametersBuilder {
    declared: Vec<Declaration>,
    stacks: Vec<Declaration>,
    len: usize,
}

/// Ids of stacks start here, so that parameters and stacks share one id type.
const FIRST_STACK: usize = usize::MAX / 2;

impl ParametersBuilder {
    /// Declares a parameter: its checkpoint name, shape, initialisation, and whether weight decay applies.
    pub fn declare(&mut self, name: &str, shape: &[usize], init: Init, decay: bool) -> ParamId {
        let declaration =
            Declaration { name: name.to_owned(), shape: shape.to_vec(), offset: self.len, init, decay, rate: 1.0 };
        self.len += declaration.len();
        self.declared.push(declaration);
        ParamId(self.declared.len() - 1)
    }

    /// Views consecutive parameters with equal inner dimensions as one, stacked along the first dimension: query, key
    /// and value become one matrix product. Panics if they are not consecutive.
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

    /// Lays out the arena and samples the initial weights. Each weight is a pure function of (seed, name, index).
    pub fn build(self, device: &Device, seed: u64) -> Parameters {
        let mut arena = device.backend().empty(&[self.len], DType::F32);
        for declared in &self.declared {
            arena.edit(declared.range(), |part| declared.init.fill(device, seed, &declared.name, part));
        }
        let by_name = self.declared.iter().enumerate().map(|(i, d)| (d.name.clone(), ParamId(i))).collect();
        Parameters {
            device: device.clone(),
            declared: self.declared,
            stacks: self.stacks,
            by_name,
            arena,
            cache: None,
            quantized: HashSet::new(),
        }
    }
}

fn name_key(seed: u64, name: &str) -> u64 {
    name.bytes().fold(mix(seed, name.len() as u64), |key, byte| mix(key, u64::from(byte)))
}

fn fill_truncated_normal(device: &Device, part: &mut [f32], std: f32, key: u64) {
    const BLOCK: usize = 1 << 16;
    let threads = device.threads().clamp(1, part.len().div_ceil(BLOCK).max(1));
    let blocks = Mutex::new(part.chunks_mut(BLOCK).enumerate());
    let sample = || {
        loop {
            let next = blocks.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((i, block)) = next else { return };
            for (j, x) in block.iter_mut().enumerate() {
                *x = (f64::from(std) * truncated_normal(key, (i * BLOCK + j) as u64)) as f32;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // If the system cannot start more threads, the running ones sample all blocks.
            if std::thread::Builder::new().spawn_scoped(scope, sample).is_err() {
                break;
            }
        }
        sample();
    });
}

/// A range of the arena with one learning rate and one decay setting.
pub(crate) struct UpdateGroup {
    pub(crate) range: Range<usize>,
    pub(crate) decays: bool,
    /// Factor of the learning rate.
    pub(crate) rate: f32,
}

/// All weights of a model.
pub struct Parameters {
    device: Device,
    declared: Vec<Declaration>,
    stacks: Vec<Declaration>,
    by_name: HashMap<String, ParamId>,
    arena: Tensor,
    /// What the device has computed from weights that do not change.
    cache: Option<WeightCache>,
    /// The matrices that are multiplied in int8.
    quantized: HashSet<ParamId>,
}

impl Parameters {
    /// A builder without declarations.
    pub fn builder() -> ParametersBuilder {
        ParametersBuilder::default()
    }

    /// Adds parameters with these names, shapes and initial values, which weight decay applies to if they are matrices.
    /// Ids of earlier parameters stay valid.
    pub fn extend(&mut self, more: &[(&str, &[usize], &[f32])]) -> Vec<ParamId> {
        let before = self.count();
        let mut end = before;
        let mut ids = Vec::new();
        for (name, shape, values) in more {
            let (shape, offset) = (shape.to_vec(), end);
            assert_eq!(shape.iter().product::<usize>(), values.len(), "{name}: values for shape {shape:?}");
            end += values.len();
            ids.push(ParamId(self.declared.len()));
            self.by_name.insert((*name).to_owned(), ParamId(self.declared.len()));
            let decay = shape.len() == 2;
            self.declared.push(Declaration {
                name: (*name).to_owned(),
                shape,
                offset,
                init: Init::Zeros,
                decay,
                rate: 1.0,
            });
        }
        let mut arena = self.device.backend().empty(&[end], DType::F32);
        arena.write(0..before, &self.read_all());
        let mut at = before;
        for (.., values) in more {
            arena.write(at..at + values.len(), values);
            at += values.len();
        }
        *self.arena_mut() = arena;
        ids
    }

    fn declaration(&self, id: ParamId) -> &Declaration {
        if id.0 >= FIRST_STACK { &self.stacks[id.0 - FIRST_STACK] } else { &self.declared[id.0] }
    }

    /// The range of one parameter in the arena: its place in [`Parameters::read_all`].
    pub fn range(&self, id: ParamId) -> Range<usize> {
        self.declaration(id).range()
    }

    /// The declared parameters that `id` consists of, as indices in arena order: the parameter itself, or the parts of
    /// a stack.
    pub(crate) fn parts(&self, id: ParamId) -> Range<usize> {
        let Range { start, end } = self.range(id);
        if id.0 < FIRST_STACK {
            return id.0..id.0 + 1;
        }
        let first = self.declared.partition_point(|part| part.offset < start);
        first..first + self.declared[first..].partition_point(|part| part.offset < end)
    }

    /// The device whose memory holds the weights.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// All parameters in arena order. Stacks are views and are not included.
    pub fn ids(&self) -> impl Iterator<Item = ParamId> + use<> {
        (0..self.declared.len()).map(ParamId)
    }

    /// The name in checkpoints.
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

    /// The parameter with this name.
    pub fn find(&self, name: &str) -> Option<ParamId> {
        self.by_name.get(name).copied()
    }

    /// Number of weights.
    pub fn count(&self) -> usize {
        self.arena.count()
    }

    /// Number of weights of one parameter.
    pub fn size(&self, id: ParamId) -> usize {
        self.declaration(id).len()
    }

    /// One parameter's weights, row-major: borrowed if the device uses host memory, otherwise copied.
    pub fn read(&self, id: ParamId) -> Cow<'_, [f32]> {
        self.arena.read(self.range(id))
    }

    /// The weights of all parameters in the order of [`Parameters::ids`], borrowed or copied as in
    /// [`Parameters::read`].
    pub fn read_all(&self) -> Cow<'_, [f32]> {
        self.arena.read(0..self.count())
    }

    /// Overwrites one parameter's weights. Panics if the number of `values` differs.
    pub fn write(&mut self, id: ParamId, values: &[f32]) {
        let range = self.range(id);
        self.arena_mut().write(range, values);
    }

    /// Lets `edit` change one parameter's weights, row-major, in place or in a copy that is then written back.
    pub fn edit<T>(&mut self, id: ParamId, edit: impl FnOnce(&mut [f32]) -> T) -> T {
        let range = self.range(id);
        self.arena_mut().edit(range, edit)
    }

    /// [`Parameters::edit`] over the weights of all parameters.
    pub fn edit_all<T>(&mut self, edit: impl FnOnce(&mut [f32]) -> T) -> T {
        let count = self.count();
        self.arena_mut().edit(0..count, edit)
    }

    /// Caches packed weights from now on: passes that do not record may keep what they compute from the weights, such
    /// as packed matrices (for bf16 products on a CPU: half the size of the f32 matrices). Each write empties the
    /// cache. Use it when weights seldom change; a training step uses each packed matrix only once, so there it does
    /// not pay.
    pub fn cache_packed_weights(&mut self) {
        self.cache = Some(self.device.backend().weight_cache(self.declared.len() + self.stacks.len()));
    }

    /// As [`cache_packed_weights`](Self::cache_packed_weights); and passes that do not record multiply these matrices in
    /// int8, in [`ops::linear`](crate::ops::linear). Each row of a matrix, and in each pass each row of its input, is
    /// rounded to multiples of 1/127 of its largest magnitude. The copy in int8 has a quarter of the size of the matrix; it is
    /// made at its first use. Recording passes, and the arena, keep the weights in f32.
    ///
    /// # Panics
    /// A parameter is not a matrix, or has more than 2¹⁷ columns.
    pub fn quantize_weights(&mut self, ids: &[ParamId]) {
        for &id in ids {
            let [_, columns] = *self.shape(id) else { panic!("{}: only matrices are quantized", self.name(id)) };
            assert!(columns <= MAX_INT8_COLUMNS, "{}: {columns} columns are too many for int8", self.name(id));
            self.quantized.insert(id);
        }
        self.cache_packed_weights();
    }

    /// Whether passes that do not record multiply this matrix in int8.
    pub(crate) fn is_quantized(&self, id: ParamId) -> bool {
        self.quantized.contains(&id)
    }

    /// The device's cache, if [`Parameters::cache_packed_weights`] was called.
    pub(crate) fn cache(&self) -> Option<&WeightCache> {
        self.cache.as_ref()
    }

    /// The index of the cache entry of `id`.
    pub(crate) fn cache_slot(&self, id: ParamId) -> usize {
        if id.0 >= FIRST_STACK { self.declared.len() + id.0 - FIRST_STACK } else { id.0 }
    }

    /// The complete arena, for backends.
    pub(crate) fn arena(&self) -> &Tensor {
        &self.arena
    }

    /// The complete arena, mutable. Empties the cache.
    pub(crate) fn arena_mut(&mut self) -> &mut Tensor {
        if self.cache.is_some() {
            self.cache_packed_weights();
        }
        &mut self.arena
    }

    /// Sets the factor of the learning rate for one parameter: for layer-wise rates, or 0 to freeze its weights. Panics
    /// for a stack, whose parts have their own rates.
    pub fn set_rate(&mut self, id: ParamId, rate: f32) {
        self.declared[id.0].rate = rate;
    }

    /// The ranges of the arena that are trained.
    pub fn trained_ranges(&self) -> Vec<Range<usize>> {
        let mut ranges: Vec<Range<usize>> = Vec::new();
        for UpdateGroup { range, .. } in self.update_groups() {
            match ranges.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => ranges.push(range),
            }
        }
        ranges
    }

    /// One group for each parameter that is not frozen.
    pub(crate) fn trained(&self) -> Vec<UpdateGroup> {
        let trained = self.declared.iter().filter(|d| d.rate != 0.0);
        trained.map(|d| UpdateGroup { range: d.range(), decays: d.decay, rate: d.rate }).collect()
    }

    /// As [`Parameters::trained`], with consecutive parameters of equal rate and decay setting merged.
    pub(crate) fn update_groups(&self) -> Vec<UpdateGroup> {
        let mut groups: Vec<UpdateGroup> = Vec::new();
        for next in self.trained() {
            match groups.last_mut() {
                Some(last)
                    if (last.decays, last.rate, last.range.end) == (next.decays, next.rate, next.range.start) =>
                {
                    last.range.end = next.range.end;
                }
                _ => groups.push(next),
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::devices;

    #[test]
    fn added_parameters_leave_the_others_as_they_are() {
        for device in devices() {
            let mut builder = Parameters::builder();
            let ids = ["a", "b"].map(|name| builder.declare(name, &[2, 3], Init::TruncatedNormal { std: 1.0 }, true));
            let stack = builder.stack(&ids);
            let mut params = builder.build(&device, 1);
            params.set_rate(ids[0], 0.0);
            params.cache_packed_weights();
            let before = params.read(stack).to_vec();
            let added = params.extend(&[("c", &[1, 2], &[5.0, 6.0]), ("d", &[1], &[7.0])]);
            assert_eq!(params.read(stack), before);
            assert_eq!(params.read_all()[12..], [5.0, 6.0, 7.0]);
            assert_eq!((params.find("d"), params.count(), params.ids().count()), (Some(added[1]), 15, 4));
            assert_eq!([params.decays(added[0]), params.decays(added[1])], [true, false]);
            assert_eq!(
                params.update_groups().iter().map(|group| group.range.clone()).collect::<Vec<_>>(),
                [6..14, 14..15]
            );
        }
    }

    #[test]
    fn initial_weights_depend_only_on_seed_and_name() {
        for device in devices() {
            let build = |order: [&str; 2], seed| {
                let mut builder = Parameters::builder();
                for name in order {
                    builder.declare(name, &[300, 7], Init::TruncatedNormal { std: 0.02 }, true);
                }
                builder.build(&device, seed)
            };
            let (first, second) = (build(["a", "b"], 1), build(["b", "a"], 1));
            let values = |p: &Parameters, name: &str| p.read(p.find(name).expect("declared")).to_vec();
            assert_eq!(values(&first, "a"), values(&second, "a"));
            assert_ne!(values(&first, "a"), values(&first, "b"));
            assert_ne!(values(&first, "a"), values(&build(["a", "b"], 2), "a"));
            assert!(values(&first, "a").iter().all(|x| x.abs() <= 0.0401));
        }
    }

    #[test]
    fn a_stack_is_a_view_of_consecutive_parameters() {
        for device in devices() {
            let mut builder = Parameters::builder();
            let q = builder.declare("q", &[2, 3], Init::Zeros, true);
            let k = builder.declare("k", &[1, 3], Init::Ones, true);
            let both = builder.stack(&[q, k]);
            let params = builder.build(&device, 0);
            assert_eq!(params.shape(both), [3, 3]);
            assert_eq!(params.read(both)[..], [0., 0., 0., 0., 0., 0., 1., 1., 1.]);
            assert_eq!(params.ids().count(), 2);
            assert_eq!((params.parts(both), params.parts(k)), (0..2, 1..2));
        }
    }
}
