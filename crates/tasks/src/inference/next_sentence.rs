//! Next-sentence prediction: the probability that one text follows another (Devlin et al. 2019, section 3.1).

use std::sync::Arc;

use crate::TaskError;
use crate::example::{Example, Target};
use crate::inference::executor::{Executor, Output, run_all};
use crate::inference::pretrained::Pretrained;
use crate::kinds::probabilities::softmax;

/// A model that predicts whether one text follows another.
pub struct NextSentence {
    model: Arc<Pretrained>,
}

impl NextSentence {
    /// Checks that a model has a head for next-sentence prediction (or for ALBERT's sentence order).
    ///
    /// # Errors
    /// [`TaskError::Folder`] for a model without that head.
    pub fn new(model: Arc<Pretrained>) -> Result<NextSentence, TaskError> {
        if !model.model.heads.nsp {
            let problem = format!(
                "expected a model with a head for next-sentence prediction, such as BertForPreTraining, found a {}",
                model.model.class_name()
            );
            return Err(TaskError::Folder { path: model.dir().to_owned(), problem });
        }
        Ok(NextSentence { model })
    }

    /// For each pair, the probability that the second text follows the first: the softmax of the head's two logits, as
    /// `BertForNextSentencePrediction`'s label 0. Longer pairs are truncated, the longer text first.
    ///
    /// # Errors
    /// [`TaskError::Logits`], and those of the executor.
    pub fn probabilities_on<S: AsRef<str>>(
        &self,
        executor: &dyn Executor,
        pairs: &[(S, S)],
    ) -> Result<Vec<f64>, TaskError> {
        let Pretrained { model, tokenizer, .. } = &*self.model;
        let positions = model.architecture().max_sequence_length();
        let most = tokenizer.model_max_length().map_or(positions, |most| most.min(positions));
        let room = tokenizer.template().room(most, true);
        let encode = |(first, second): &(S, S)| {
            let (mut first, mut second) = (tokenizer.encode(first.as_ref()), tokenizer.encode(second.as_ref()));
            tokenizer.truncate_pair(&mut first, &mut second, room);
            Example::new(vec![tokenizer.template().sequence(&first, Some(&second))], Target::value(None))
        };
        let examples: Vec<Example> = pairs.iter().map(encode).collect();
        self.model.check(&examples)?;
        let found = run_all(executor, &Output::NextSentence, &examples.iter().collect::<Vec<_>>())?;
        let probability = |(logits, (first, _)): (&Vec<f32>, &(S, S))| {
            let shares = softmax(logits).filter(|shares| shares.len() == 2);
            let shares = shares.ok_or_else(|| TaskError::Logits(format!("text {:?}", first.as_ref())))?;
            Ok(shares[0])
        };
        found.iter().zip(pairs).map(probability).collect()
    }
}
