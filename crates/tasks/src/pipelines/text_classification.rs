//! Text classification: a text or a pair → labels with scores, as `TextClassificationPipeline`.

use std::sync::Arc;

use cloze_model::TaskHead;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answers::{Answers, LabelScore};
use super::fields::Fields;
use super::inputs::{Inputs, TextOrPair};
use super::logits::{are_finite, argmax, rounded, sigmoid, softmax};
use super::sequences::{limit, positions, quoted, task_logits, wrong_head};
use crate::TaskError;
use crate::example::{Example, Target};
use crate::inference::executor::Executor;
use crate::inference::pretrained::Pretrained;
use crate::kinds::labels_of;
use crate::parallel;

/// The function that turns logits into scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Function {
    /// The sigmoid of each logit.
    Sigmoid,
    /// The softmax over the labels.
    Softmax,
    /// The logits themselves.
    None,
}

/// Which labels are in an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopK {
    /// Only the best; the answers of a list are a flat list. `top_k` is absent.
    #[default]
    Best,
    /// This many, best first.
    First(usize),
    /// All, best first; `top_k` is null. This is what the hosted API answers if `top_k` is absent.
    All,
}

/// The parameters.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
#[non_exhaustive]
pub struct Parameters {
    /// The function that turns logits into scores. None: by the model's `problem_type` and number of labels. Regression: none;
    /// `multi_label_classification` or one label: sigmoid; else softmax.
    pub function_to_apply: Option<Function>,
    /// Which labels are in an answer.
    pub top_k: TopK,
    /// Whether texts are truncated to `max_length`. None: only those that do not fit the model's positions, as if this were
    /// true, with a note; Transformers fails for them.
    pub truncation: Option<bool>,
    /// The number of tokens, special ones included, to which texts are truncated. None: the tokenizer's `model_max_length`.
    pub max_length: Option<usize>,
}

impl TryFrom<Value> for Parameters {
    type Error = TaskError;

    fn try_from(value: Value) -> Result<Parameters, TaskError> {
        let fields = Fields::of_parameters(value)?;
        let functions = [("sigmoid", Function::Sigmoid), ("softmax", Function::Softmax), ("none", Function::None)];
        let top_k = match fields.count("top_k")? {
            Some(count) => TopK::First(count),
            None if fields.is_null("top_k") => TopK::All,
            None => TopK::Best,
        };
        Ok(Parameters {
            function_to_apply: fields.choice("function_to_apply", &functions)?,
            top_k,
            truncation: fields.flag("truncation")?,
            max_length: fields.count("max_length")?,
        })
    }
}

/// The labels of one text.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Classified {
    /// The best label, of a pair or of an item of a list.
    Best(LabelScore),
    /// Labels, best first.
    Labels(Vec<LabelScore>),
}

impl Classified {
    /// The labels, best first.
    pub fn labels(&self) -> &[LabelScore] {
        match self {
            Classified::Best(label) => std::slice::from_ref(label),
            Classified::Labels(labels) => labels,
        }
    }
}

/// A model that classifies texts.
pub struct TextClassification {
    model: Arc<Pretrained>,
    labels: Vec<String>,
    function: Function,
}

impl TextClassification {
    /// Checks that a model has the head of a text classifier.
    ///
    /// # Errors
    /// [`TaskError::Folder`] for a model without that head.
    pub fn new(model: Arc<Pretrained>) -> Result<TextClassification, TaskError> {
        let Some(TaskHead::Classify { labels }) = model.model.heads.task else {
            return Err(wrong_head(&model, "a text classifier, such as BertForSequenceClassification"));
        };
        let config = model.model.config();
        let function = match config.problem_type() {
            Some("regression") => Function::None,
            Some("multi_label_classification") => Function::Sigmoid,
            _ if labels == 1 => Function::Sigmoid,
            _ => Function::Softmax,
        };
        Ok(TextClassification { labels: labels_of(config, labels), function, model })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Pretrained> {
        &self.model
    }

    /// The labels of each text, by their scores in descending order.
    ///
    /// # Errors
    /// Those of [`run_on`](Self::run_on), except of an executor.
    pub fn run(&self, inputs: &Inputs<TextOrPair>, parameters: &Parameters) -> Result<Answers<Classified>, TaskError> {
        self.run_on(&*self.model, inputs, parameters)
    }

    /// As [`run`](Self::run); `executor` runs the model's forward passes.
    ///
    /// # Errors
    /// [`TaskError::Input`] for an empty list, a pair if the model reads no pairs, a text that is too long if it must not be
    /// truncated, a `max_length` that is less than the number of special tokens; [`TaskError::Logits`]; those of the executor.
    pub fn run_on(
        &self,
        executor: &dyn Executor,
        inputs: &Inputs<TextOrPair>,
        parameters: &Parameters,
    ) -> Result<Answers<Classified>, TaskError> {
        if inputs.rows.is_empty() {
            return Err(TaskError::input("\"inputs\"", "expected at least one text, found an empty list"));
        }
        let threads = self.model.device.threads();
        let encoded = parallel::map(&inputs.rows, threads, |row| self.encode(row, parameters));
        let encoded: Vec<(Example, bool)> = encoded.into_iter().collect::<Result<_, _>>()?;
        let cut = encoded.iter().filter(|(_, is_cut)| *is_cut).count();
        let examples: Vec<Example> = encoded.into_iter().map(|(example, _)| example).collect();
        let logits = task_logits(&self.model, executor, &examples)?;
        let function = parameters.function_to_apply.unwrap_or(self.function);
        let rows = inputs.rows.iter().zip(&logits).map(|(row, logits)| {
            if !are_finite(logits) {
                return Err(TaskError::Logits(quoted(row.text())));
            }
            Ok(self.answer(row, inputs.is_list, function, parameters.top_k, logits))
        });
        let answers = Answers::new(rows.collect::<Result<_, _>>()?, inputs.is_list);
        Ok(answers.with_cut(cut, parameters.max_length.unwrap_or(usize::MAX).min(limit(&self.model))))
    }

    /// The example of a text, and whether it was truncated.
    fn encode(&self, row: &TextOrPair, parameters: &Parameters) -> Result<(Example, bool), TaskError> {
        let (tokenizer, positions) = (&self.model.tokenizer, positions(&self.model));
        let (mut first, second) = (tokenizer.encode(row.text()), row.pair().map(|pair| tokenizer.encode(pair)));
        let (has_pair, mut pair) = (second.is_some(), second.unwrap_or_default());
        let template = tokenizer.template();
        let added = template.added(has_pair);
        let length = added + first.len() + pair.len();
        let to = match parameters.truncation {
            Some(false) if length > positions => return Err(TaskError::TooLong { found: length, positions }),
            Some(true) => parameters.max_length.map_or(limit(&self.model), |limit| limit.min(positions)),
            None if length > positions => limit(&self.model),
            Some(false) | None => positions,
        };
        if to < added {
            let problem = format!("expected at least {added}, the number of special tokens, found {to}");
            return Err(TaskError::input("\"max_length\"", problem));
        }
        let cut = tokenizer.truncate_pair(&mut first, &mut pair, to - added);
        let sequence = template.sequence(&first, has_pair.then_some(&pair[..]));
        Ok((Example::new(vec![sequence], Target::class(None)), cut > 0))
    }

    fn answer(&self, row: &TextOrPair, is_list: bool, function: Function, top: TopK, logits: &[f32]) -> Classified {
        let scores = match function {
            Function::Sigmoid => logits.iter().map(|logit| sigmoid(*logit)).collect(),
            Function::Softmax => softmax(logits),
            Function::None => logits.iter().map(|logit| rounded(f64::from(*logit))).collect(),
        };
        let label = |class: usize| LabelScore::new(self.labels[class].clone(), scores[class]);
        let kept = match top {
            TopK::Best => {
                let best = label(argmax(&scores));
                // Transformers answers a single text with a list of one label, and a pair with the label.
                let is_listed = !is_list && matches!(row, TextOrPair::Text(_));
                return if is_listed { Classified::Labels(vec![best]) } else { Classified::Best(best) };
            }
            TopK::First(count) => count,
            TopK::All => scores.len(),
        };
        let mut order: Vec<usize> = (0..scores.len()).collect();
        // Equal scores keep the order of the labels.
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        Classified::Labels(order.into_iter().take(kept).map(label).collect())
    }
}
