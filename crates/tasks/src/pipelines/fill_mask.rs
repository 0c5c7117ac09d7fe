//! Fill-mask: a text with masks → the most probable tokens for each, as `FillMaskPipeline`.
//!
//! A text that does not fit the model's positions is an error, as in Transformers. Ids that the model has embeddings for but
//! the tokenizer no tokens are left out.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answers::Answers;
use super::fields::Fields;
use super::inputs::Inputs;
use super::logits::rounded;
use crate::TaskError;
use crate::inference::executor::Executor;
use crate::inference::fill::{Filled, Filler, Masked};
use crate::inference::pretrained::Pretrained;
use crate::parallel;

/// The number of tokens for each mask if `top_k` is absent.
const TOP: usize = 5;

/// The parameters.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
#[non_exhaustive]
pub struct Parameters {
    /// The number of tokens for each mask. None: 5.
    pub top_k: Option<usize>,
    /// Tokens, as in the vocabulary (`##ing`, `Ġthe`), among which the best are searched. None: all. The first token of a
    /// word that is not in the vocabulary is used, with a note; one without tokens is ignored. From JSON: a list or a string.
    pub targets: Option<Vec<String>>,
}

impl TryFrom<Value> for Parameters {
    type Error = TaskError;

    fn try_from(value: Value) -> Result<Parameters, TaskError> {
        let fields = Fields::of_parameters(value)?;
        let targets = fields.text_or_texts("targets", |target| vec![target.to_owned()])?;
        Ok(Parameters { top_k: fields.count("top_k")?, targets })
    }
}

/// A token for a mask.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Proposal {
    /// Its probability.
    pub score: f64,
    /// Its id.
    pub token: u32,
    /// The decoded token.
    pub token_str: String,
    /// The decoded text with this token: without special tokens if the text has one mask, with them if it has several.
    pub sequence: String,
}

/// The tokens for the masks of a text, best first.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Proposals {
    /// Of a text with one mask.
    One(Vec<Proposal>),
    /// Of a text with several masks, in order. They are independent of each other.
    Several(Vec<Vec<Proposal>>),
}

/// A model that predicts masked tokens.
pub struct FillMask {
    filler: Filler,
}

impl FillMask {
    /// Checks that a model has a masked-language-model head.
    ///
    /// # Errors
    /// Those of [`Filler::new`].
    pub fn new(model: Arc<Pretrained>) -> Result<FillMask, TaskError> {
        Ok(FillMask { filler: Filler::new(model)? })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Pretrained> {
        self.filler.model()
    }

    /// The most probable tokens for each mask of each text. A list with one text is answered like that text, as in
    /// Transformers.
    ///
    /// # Errors
    /// Those of [`run_on`](Self::run_on), except of an executor.
    pub fn run(&self, inputs: &Inputs<String>, parameters: &Parameters) -> Result<Answers<Proposals>, TaskError> {
        self.run_on(&**self.model(), inputs, parameters)
    }

    /// As [`run`](Self::run); `executor` runs the model's forward passes.
    ///
    /// # Errors
    /// [`TaskError::Input`] for an empty list and for targets without tokens; [`TaskError::NoMask`]; [`TaskError::TooLong`];
    /// [`TaskError::Logits`]; those of the executor.
    pub fn run_on(
        &self,
        executor: &dyn Executor,
        inputs: &Inputs<String>,
        parameters: &Parameters,
    ) -> Result<Answers<Proposals>, TaskError> {
        if inputs.rows.is_empty() {
            return Err(TaskError::input("\"inputs\"", "expected at least one text, found an empty list"));
        }
        let Pretrained { tokenizer, device, .. } = &**self.model();
        let mut notes = Vec::new();
        let ids = match &parameters.targets {
            Some(targets) => self.ids_of(targets, &mut notes)?,
            None => (0..tokenizer.vocab_size()).collect(),
        };
        let encoded = parallel::map(&inputs.rows, device.threads(), |text| self.filler.encode(text));
        let encoded: Vec<Masked> = encoded.into_iter().collect::<Result<_, _>>()?;
        let filled = self.filler.rank(executor, &encoded, |logits| {
            let mut order: Vec<usize> = ids.iter().copied().filter(|id| *id < logits.len()).collect();
            order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
            order.truncate(parameters.top_k.unwrap_or(TOP));
            order
        })?;
        let rows = encoded.iter().zip(filled).map(|(masked, masks)| {
            let proposal = |number: usize, Filled { id, probability }: Filled| Proposal {
                score: rounded(probability),
                token: id,
                token_str: tokenizer.decode_as_written(&[id], false),
                sequence: masked.decoded(tokenizer, number, id),
            };
            let of_mask = |(number, all): (usize, Vec<Filled>)| {
                all.into_iter().map(|filled| proposal(number, filled)).collect::<Vec<Proposal>>()
            };
            let mut masks: Vec<Vec<Proposal>> = masks.into_iter().enumerate().map(of_mask).collect();
            if masks.len() == 1 { Proposals::One(masks.remove(0)) } else { Proposals::Several(masks) }
        });
        let mut answers = Answers::new(rows.collect(), inputs.is_list && inputs.rows.len() > 1);
        answers.notes = notes;
        Ok(answers)
    }

    /// The ids of targets.
    fn ids_of(&self, targets: &[String], notes: &mut Vec<String>) -> Result<Vec<usize>, TaskError> {
        let tokenizer = &self.model().tokenizer;
        let mut ids = BTreeSet::new();
        for target in targets {
            if let Some(id) = tokenizer.id(target) {
                ids.insert(id as usize);
                continue;
            }
            let pieces = tokenizer.encode(target);
            // Transformers truncates the target to one token.
            let kept = if tokenizer.truncates_left() { pieces.last() } else { pieces.first() };
            match kept {
                Some(id) => {
                    let token = tokenizer.token(*id).unwrap_or_default();
                    notes.push(format!(
                        "the target {target:?} is not in the vocabulary; the token {token:?} replaces it"
                    ));
                    ids.insert(*id as usize);
                }
                None => notes.push(format!("the target {target:?} has no tokens; it was ignored")),
            }
        }
        if ids.is_empty() {
            return Err(TaskError::input("\"targets\"", "expected at least one word or token, found none"));
        }
        Ok(ids.into_iter().collect())
    }
}
