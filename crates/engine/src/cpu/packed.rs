//! Cache of packed weights, used after [`Parameters::cache_packed_weights`].

use std::sync::OnceLock;

use super::gemm::{Mat, PackedB};
use super::level::Level;
use super::pool::Pool;
use crate::device::WeightCache;
use crate::{ParamId, Parameters};

/// Packed matrices, each created at its first use.
struct PackedWeights(Vec<OnceLock<Option<PackedB>>>);

/// An empty cache with `slots` entries.
pub(super) fn weight_cache(slots: usize) -> WeightCache {
    Box::new(PackedWeights((0..slots).map(|_| OnceLock::new()).collect()))
}

/// The packed copy of `matrix`, which is the parameter `id` or its transpose, for bf16 products. `None` if weights are
/// not cached, or if packing does not pay at this level. If several threads call at once, the first one packs.
pub(crate) fn packed<'a>(
    params: &'a Parameters,
    id: ParamId,
    level: Level,
    pool: &Pool,
    matrix: Mat<'_>,
) -> Option<&'a PackedB> {
    let PackedWeights(entries) = params.cache()?.downcast_ref()?;
    entries[params.cache_slot(id)].get_or_init(|| PackedB::bf16(level, pool, matrix)).as_ref()
}
