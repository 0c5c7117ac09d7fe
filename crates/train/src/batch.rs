//! A batch of the data crate as the network reads it.

use cloze_data::batch::Batch;
use cloze_model::{Inputs, PretrainLabels};

/// Packed sequences and what is predicted of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PretrainBatch {
    /// What the network reads.
    pub inputs: Inputs,
    /// What it is to predict.
    pub labels: PretrainLabels,
}

impl From<Batch> for PretrainBatch {
    /// The vectors are moved, not copied.
    fn from(batch: Batch) -> PretrainBatch {
        let Batch { ids, segments, cu_seqlens, mlm_rows, mlm_labels, nsp_labels } = batch;
        PretrainBatch {
            inputs: Inputs::packed(ids, segments, &cu_seqlens),
            labels: PretrainLabels { mlm_rows, mlm_labels, nsp_labels },
        }
    }
}
