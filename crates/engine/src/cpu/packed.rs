//! Cache of packed weights, used after [`Parameters::cache_packed_weights`].

use std::sync::OnceLock;

use super::gemm::{Mat, PackedB};
use super::level::Level;
use super::pool::Pool;
use super::quantized::Int8Weights;
use crate::device::WeightCache;
use crate::{ParamId, Parameters};

/// A packed matrix.
pub(crate) enum Packed {
    /// For bf16 products.
    BF16(PackedB),
    /// For int8 products: the parameter's rows are columns of B.
    Int8(Int8Weights),
}

/// Packed matrices, each created at its first use.
struct PackedWeights(Vec<OnceLock<Option<Packed>>>);

/// An empty cache with `slots` entries.
pub(super) fn weight_cache(slots: usize) -> WeightCache {
    Box::new(PackedWeights((0..slots).map(|_| OnceLock::new()).collect()))
}

/// The packed copy of `matrix`, the transpose of the parameter `id`: for int8 products if the parameter is one of
/// [`Parameters::quantize_weights`], else for bf16 products if `bf16` is set. `None` if weights are not cached, or if packing
/// does not pay at this level. If several threads call at once, the first one packs.
pub(crate) fn packed<'a>(
    params: &'a Parameters,
    id: ParamId,
    level: Level,
    pool: &Pool,
    matrix: Mat<'_>,
    bf16: bool,
) -> Option<&'a Packed> {
    let is_int8 = params.is_quantized(id);
    if !is_int8 && !bf16 {
        return None;
    }
    let PackedWeights(entries) = params.cache()?.downcast_ref()?;
    let pack = || match is_int8 {
        true => Some(Packed::Int8(Int8Weights::new(level, pool, matrix))),
        false => PackedB::bf16(level, pool, matrix).map(Packed::BF16),
    };
    entries[params.cache_slot(id)].get_or_init(pack).as_ref()
}
