//! Zero-shot classification: a text and candidate labels → the labels with scores, as `ZeroShotClassificationPipeline`: a
//! model of natural language inference judges whether the text entails "This example is {label}.".
//!
//! Scores are computed without overflow, whereas those of Transformers are NaN for logits above 88. Texts are truncated, and
//! hypotheses are not, as in Transformers; if the tokenizer has no `model_max_length`, Transformers fails for texts that do not
//! fit the model's positions, and here they are truncated. The template may have `{}` once or `{0}`, and `{{` and `}}` for
//! braces, as in Python; format specifications (`{:>9}`) are an error.

use std::sync::Arc;

use cloze_model::TaskHead;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::answers::{Answers, LabelScore};
use super::fields::Fields;
use super::inputs::Inputs;
use super::logits::{are_finite, softmax};
use super::sequences::{limit, positions, quoted, task_logits, wrong_head};
use crate::TaskError;
use crate::example::{Example, Target};
use crate::inference::executor::Executor;
use crate::inference::pretrained::Pretrained;
use crate::kinds::labels_of;
use crate::parallel;

/// The parameters.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
#[non_exhaustive]
pub struct Parameters {
    /// The labels. From JSON: a list, or a string with commas between them.
    pub candidate_labels: Vec<String>,
    /// The hypothesis, with `{}` where the label is inserted.
    pub hypothesis_template: String,
    /// Whether several labels can be true: then each score is the probability of entailment rather than contradiction, and else
    /// the scores sum to 1.
    pub multi_label: bool,
}

impl Parameters {
    /// These labels, with `This example is {}.` as the template.
    pub fn new(candidate_labels: impl IntoIterator<Item = impl Into<String>>) -> Parameters {
        Parameters {
            candidate_labels: candidate_labels.into_iter().map(Into::into).collect(),
            hypothesis_template: "This example is {}.".to_owned(),
            multi_label: false,
        }
    }
}

impl TryFrom<Value> for Parameters {
    type Error = TaskError;

    fn try_from(value: Value) -> Result<Parameters, TaskError> {
        let fields = Fields::of_parameters(value)?;
        let split = |labels: &str| {
            labels.split(',').map(str::trim).filter(|label| !label.is_empty()).map(str::to_owned).collect()
        };
        let labels = fields.text_or_texts("candidate_labels", split)?;
        let missing = || TaskError::input("\"candidate_labels\"", "missing; give a list of labels in \"parameters\"");
        let mut parameters = Parameters::new(labels.ok_or_else(missing)?);
        if let Some(template) = fields.text("hypothesis_template")? {
            parameters.hypothesis_template = template;
        }
        parameters.multi_label = fields.flag("multi_label")?.unwrap_or(false);
        Ok(parameters)
    }
}

/// The scores of the candidate labels for a text.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Ranked {
    /// The text.
    pub sequence: String,
    /// The labels, best first.
    pub labels: Vec<String>,
    /// Their scores.
    pub scores: Vec<f64>,
}

impl Ranked {
    /// The labels with their scores, best first: the newer form of the hosted API.
    pub fn label_scores(&self) -> Vec<LabelScore> {
        let pairs = self.labels.iter().zip(&self.scores);
        pairs.map(|(label, score)| LabelScore::new(label.clone(), *score)).collect()
    }
}

/// A model of natural language inference.
pub struct ZeroShotClassification {
    model: Arc<Pretrained>,
    logits: usize,
    /// The logit of entailment, if a label says which it is.
    entailment: Option<usize>,
}

impl ZeroShotClassification {
    /// Checks that a model has the head of a text classifier.
    ///
    /// # Errors
    /// [`TaskError::Folder`] for a model without that head.
    pub fn new(model: Arc<Pretrained>) -> Result<ZeroShotClassification, TaskError> {
        let Some(TaskHead::Classify { labels: logits }) = model.model.heads.task else {
            return Err(wrong_head(
                &model,
                "a classifier of natural language inference, such as BertForSequenceClassification",
            ));
        };
        let config = model.model.config();
        let is_entailment = |label: &str| label.to_lowercase().starts_with("entail");
        let by_name = config.extra.get("label2id").and_then(Value::as_object);
        let entailment = match by_name {
            Some(ids) => {
                let id = ids.iter().find(|(label, _)| is_entailment(label)).and_then(|(_, id)| id.as_u64());
                id.map(|id| id as usize).filter(|id| *id < logits)
            }
            None => labels_of(config, logits).iter().position(|label| is_entailment(label)),
        };
        Ok(ZeroShotClassification { model, logits, entailment })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Pretrained> {
        &self.model
    }

    /// The candidate labels of each text by their scores.
    ///
    /// # Errors
    /// Those of [`run_on`](Self::run_on), except of an executor.
    pub fn run(&self, inputs: &Inputs<String>, parameters: &Parameters) -> Result<Answers<Ranked>, TaskError> {
        self.run_on(&*self.model, inputs, parameters)
    }

    /// As [`run`](Self::run); `executor` runs the model's forward passes.
    ///
    /// # Errors
    /// [`TaskError::Input`] for an empty list, an empty text, no labels, a template without a place for the label or with other
    /// places, a model that reads no pairs; [`TaskError::TooLong`] for a hypothesis that leaves no room for the text;
    /// [`TaskError::Logits`]; those of the executor.
    pub fn run_on(
        &self,
        executor: &dyn Executor,
        inputs: &Inputs<String>,
        parameters: &Parameters,
    ) -> Result<Answers<Ranked>, TaskError> {
        let labels = &parameters.candidate_labels;
        if inputs.rows.is_empty() || inputs.rows.iter().any(String::is_empty) {
            return Err(TaskError::input("\"inputs\"", "expected texts that are not empty, found an empty one"));
        }
        let Some(first) = labels.first() else {
            return Err(TaskError::input("\"candidate_labels\"", "expected at least one label, found none"));
        };
        let template = &parameters.hypothesis_template;
        if formatted(template, first)? == *template {
            return Err(not_a_template(template, "no place for the label"));
        }
        let tokenizer = &self.model.tokenizer;
        let hypotheses: Vec<Vec<u32>> = labels
            .iter()
            .map(|label| Ok(tokenizer.encode(&formatted(template, label)?)))
            .collect::<Result<_, TaskError>>()?;
        let premises = parallel::map(&inputs.rows, self.model.device.threads(), |text| tokenizer.encode(text));
        let (mut examples, mut cut) = (Vec::with_capacity(premises.len() * labels.len()), 0);
        for premise in &premises {
            let mut is_cut = false;
            for hypothesis in &hypotheses {
                let (example, is_shorter) = self.example(premise, hypothesis)?;
                is_cut |= is_shorter;
                examples.push(example);
            }
            cut += usize::from(is_cut);
        }
        let logits = task_logits(&self.model, executor, &examples)?;
        let rows = inputs.rows.iter().zip(logits.chunks(labels.len())).map(|(text, logits)| {
            if !logits.iter().all(|logits| are_finite(logits)) {
                return Err(TaskError::Logits(quoted(text)));
            }
            Ok(self.ranked(text, parameters, logits))
        });
        let mut answers = Answers::new(rows.collect::<Result<_, _>>()?, inputs.is_list);
        answers = answers.with_cut(cut, limit(&self.model));
        if self.entailment.is_none() {
            let last = self.logits - 1;
            answers.notes.push(format!(
                "no label of the model begins with \"entail\"; its last label, {last}, is read as entailment"
            ));
        }
        Ok(answers)
    }

    /// The pair of a text and a hypothesis, and whether the text was truncated.
    fn example(&self, premise: &[u32], hypothesis: &[u32]) -> Result<(Example, bool), TaskError> {
        let (tokenizer, positions) = (&self.model.tokenizer, positions(&self.model));
        let template = tokenizer.template();
        let length = template.added(true) + premise.len() + hypothesis.len();
        let excess = length.saturating_sub(limit(&self.model));
        // Transformers does not truncate a text of which nothing would remain.
        let excess = if excess < premise.len() { excess } else { 0 };
        if length - excess > positions {
            return Err(TaskError::TooLong { found: length, positions });
        }
        let kept = premise.len() - excess;
        let kept = if tokenizer.truncates_left() { &premise[excess..] } else { &premise[..kept] };
        let sequence = template.sequence(kept, Some(hypothesis));
        Ok((Example::new(vec![sequence], Target::class(None)), excess > 0))
    }

    fn ranked(&self, text: &str, parameters: &Parameters, logits: &[Vec<f32>]) -> Ranked {
        let labels = &parameters.candidate_labels;
        let entailment = self.entailment.unwrap_or(self.logits - 1);
        let scores: Vec<f64> = if parameters.multi_label || labels.len() == 1 {
            let contradiction = if self.entailment == Some(0) { self.logits - 1 } else { 0 };
            logits.iter().map(|logits| softmax(&[logits[contradiction], logits[entailment]])[1]).collect()
        } else {
            softmax(&logits.iter().map(|logits| logits[entailment]).collect::<Vec<f32>>())
        };
        let mut order: Vec<usize> = (0..scores.len()).collect();
        // The reverse of an ascending order: of equal scores, the last label is first.
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(b.cmp(&a)));
        Ranked {
            sequence: text.to_owned(),
            labels: order.iter().map(|&label| labels[label].clone()).collect(),
            scores: order.iter().map(|&label| scores[label]).collect(),
        }
    }
}

/// A template with a label in its place, as Python's `format`.
fn formatted(template: &str, label: &str) -> Result<String, TaskError> {
    let (mut text, mut rest, mut automatic, mut numbered) = (String::new(), template, 0, 0);
    while let Some(at) = rest.find(['{', '}']) {
        text.push_str(&rest[..at]);
        let brace = &rest[at..at + 1];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            text.push_str(brace);
            rest = after;
            continue;
        }
        if brace == "}" {
            return Err(not_a_template(template, "a single \"}\"; write \"}}\" for a brace"));
        }
        let Some((field, after)) = rest.split_once('}') else {
            return Err(not_a_template(template, "a single \"{\"; write \"{{\" for a brace"));
        };
        match field {
            "" => automatic += 1,
            "0" => numbered += 1,
            other => return Err(not_a_template(template, &format!("{{{other}}}; write {{}}"))),
        }
        if automatic > 1 || (automatic > 0 && numbered > 0) {
            return Err(not_a_template(template, "several places for the label; write {0} in each"));
        }
        text.push_str(label);
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

fn not_a_template(template: &str, found: &str) -> TaskError {
    let problem = format!("expected {{}} where the label is to be inserted, found {found} in {template:?}");
    TaskError::input("\"hypothesis_template\"", problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_those_of_python() {
        for (template, expected) in
            [("a {} b", "a é b"), ("{0}{0}", "éé"), ("{{{}}}", "{é}"), ("{{}}", "{}"), ("none", "none"), ("", "")]
        {
            assert_eq!(formatted(template, "é").unwrap(), expected, "{template}");
        }
        for template in ["{} {}", "{} {0}", "{1}", "{a}", "{:s}", "{", "}", "{}}", "{{}"] {
            let line = formatted(template, "x").unwrap_err().to_string();
            assert!(line.starts_with("\"hypothesis_template\": expected {} where") && !line.contains('\n'), "{line}");
        }
    }
}
