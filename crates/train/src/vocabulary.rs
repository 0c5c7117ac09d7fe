//! Whether shards were made with a model's tokenizer.

use std::path::Path;

use cloze_data::DataError;
use cloze_data::shards::Shards;
use cloze_text::Tokenizer;

use crate::TrainError;

/// Fails unless the shards were made with the model's tokenizer.
pub(crate) fn require_tokenizer(shards: &Shards, model_dir: &Path, tokenizer: &Tokenizer) -> Result<(), TrainError> {
    match shards.check_tokenizer(tokenizer) {
        Err(DataError::OtherTokenizer { expected: of_shards, found: of_model, .. }) => {
            Err(TrainError::OtherTokenizer {
                shards: shards.dir().to_owned(),
                model: model_dir.to_owned(),
                found: of_shards,
                expected: of_model,
            })
        }
        checked => Ok(checked?),
    }
}
