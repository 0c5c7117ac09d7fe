//! The CPU's packed copies of weights, of which [`Parameters`] say that they do not change.

use std::sync::OnceLock;

use super::gemm::{Mat, PackedB};
use super::level::Level;
use super::pool::Pool;
use crate::device::WeightCache;
use crate::{ParamId, Parameters};

/// Packed matrices, each made at its first use.
struct PackedWeights(Vec<OnceLock<Option<PackedB>>>);

/// Room for the copies of `slots` parameters.
pub(super) fn weight_cache(slots: usize) -> WeightCache {
    Box::new(PackedWeights((0..slots).map(|_| OnceLock::new()).collect()))
}

/// The packed copy of `matrix`, which is the parameter `id` or its transpose, for bf16 products; `None` where weights are not
/// cached or a copy would not pay. Several threads may ask at once: the first one packs.
pub(crate) fn packed<'a>(
    params: &'a Parameters,
    id: ParamId,
    level: Level,
    pool: &Pool,
    matrix: Mat<'_>,
) -> Option<&'a PackedB> {
    let PackedWeights(copies) = params.cache()?.downcast_ref()?;
    copies[params.cache_slot(id)].get_or_init(|| PackedB::bf16(level, pool, matrix)).as_ref()
}
