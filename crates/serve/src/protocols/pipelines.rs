//! The pipelines of Transformers: JSON in, JSON out.

use std::sync::Arc;

use cloze_tasks::TaskError;
use cloze_tasks::pipelines::text_classification::TopK;
use cloze_tasks::pipelines::{
    Answers, Inputs, fill_mask, question_answering, text_classification, token_classification, zero_shot_classification,
};
use serde::Serialize;
use serde_json::{Value, json};

use super::hugging_face::{Payload, Pipeline};
use crate::app::{Answered, App};
use crate::failure::Failure;
use crate::models::Served;
use crate::scheduler::Call;

/// The answer of a pipeline to a payload.
///
/// # Errors
/// Inputs and parameters that it cannot use; a model without the task; the failures of the model.
pub async fn value(
    app: &App,
    model: &Arc<Served>,
    pipeline: Pipeline,
    payload: Payload,
) -> Result<Answered<Value>, Failure> {
    let Payload { inputs, parameters, priority, .. } = payload;
    if let Value::Array(list) = &inputs {
        app.check_inputs(list.len())?;
    }
    let (size, truncate) = (characters_of(&inputs), app.settings.truncate);
    app.compute(model, (priority, size), move |model, call| {
        answer(model, call, pipeline, inputs, Value::Object(parameters), truncate)
    })
    .await
}

/// The number of characters of all strings of a value.
fn characters_of(value: &Value) -> usize {
    match value {
        Value::String(text) => text.chars().count(),
        Value::Array(list) => list.iter().map(characters_of).sum(),
        Value::Object(object) => object.values().map(characters_of).sum(),
        _ => 0,
    }
}

fn answer(
    model: &Served,
    call: &Call,
    pipeline: Pipeline,
    inputs: Value,
    parameters: Value,
    truncate: bool,
) -> Result<Value, Failure> {
    match pipeline {
        Pipeline::TokenClassification => {
            let parameters = token_classification::Parameters::try_from(parameters)?;
            done(model.token_classification()?.run_on(call, &Inputs::try_from(inputs)?, &parameters))
        }
        Pipeline::QuestionAnswering => {
            let parameters = question_answering::Parameters::try_from(parameters)?;
            done(model.question_answering()?.run_on(call, &Inputs::try_from(inputs)?, &parameters))
        }
        Pipeline::FillMask => {
            let parameters = fill_mask::Parameters::try_from(parameters)?;
            done(model.fill_mask()?.run_on(call, &Inputs::try_from(inputs)?, &parameters))
        }
        Pipeline::ZeroShotClassification => {
            let parameters = zero_shot_classification::Parameters::try_from(parameters)?;
            let found = model.zero_shot()?.run_on(call, &Inputs::try_from(inputs)?, &parameters)?;
            // As the hosted API and InferenceClient have it: `[{"label", "score"}]` for a text.
            let mut rows: Vec<Value> = found.rows.iter().map(|row| json!(row.label_scores())).collect();
            Ok(if found.is_list { Value::Array(rows) } else { rows.pop().unwrap_or_default() })
        }
        _ => {
            let mut parameters = text_classification::Parameters::try_from(parameters)?;
            if parameters.top_k == TopK::Best {
                // The hosted API answers with all labels.
                parameters.top_k = TopK::All;
            }
            if !truncate {
                parameters.truncation = parameters.truncation.or(Some(false));
            }
            let found = model.text_classification()?.run_on(call, &Inputs::try_from(inputs)?, &parameters)?;
            // The hosted API answers one text as a list of one, which InferenceClient expects.
            Ok(found.rows.iter().map(|row| json!(row.labels())).collect())
        }
    }
}

/// The answers as JSON.
fn done<T: Serialize>(found: Result<Answers<T>, TaskError>) -> Result<Value, Failure> {
    serde_json::to_value(found?).map_err(|error| Failure::new(crate::failure::Reason::Backend, error.to_string()))
}
