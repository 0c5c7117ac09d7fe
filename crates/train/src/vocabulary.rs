//! Checks that shards were prepared with a model's tokenizer.

use std::path::Path;

use cloze_data::DataError;
use cloze_data::shards::Shards;
use cloze_text::Tokenizer;

use crate::TrainError;

/// Fails unless the shards were prepared with the model's tokenizer.
pub(crate) fn require_tokenizer(shards: &Shards, model_dir: &Path, tokenizer: &Tokenizer) -> Result<(), TrainError> {
    match shards.check_tokenizer(tokenizer) {
        Err(DataError::OtherTokenizer { expected: in_shards, found: in_model, .. }) => {
            Err(TrainError::OtherTokenizer {
                shards: shards.dir().to_owned(),
                model: model_dir.to_owned(),
                found: in_shards,
                expected: in_model,
            })
        }
        checked => Ok(checked?),
    }
}
