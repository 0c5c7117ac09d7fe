//! A batch of the data crate in the form that the network reads.

use cloze_data::batch::Batch;
use cloze_model::{Inputs, PretrainLabels};

/// Packed sequences and their labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PretrainBatch {
    /// The input of the network.
    pub inputs: Inputs,
    /// The tokens and sequences to predict.
    pub labels: PretrainLabels,
}

impl From<Batch> for PretrainBatch {
    /// Moves the vectors, does not copy them.
    fn from(batch: Batch) -> PretrainBatch {
        let Batch { ids, segments, cu_seqlens, mlm_rows, mlm_labels, pair_labels } = batch;
        PretrainBatch {
            inputs: Inputs::packed(ids, segments, &cu_seqlens),
            labels: PretrainLabels { mlm_rows, mlm_labels, nsp_labels: pair_labels },
        }
    }
}
