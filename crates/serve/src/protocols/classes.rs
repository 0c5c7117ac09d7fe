//! Labels of texts with their scores, for all protocols.

use std::sync::Arc;

use cloze_tasks::pipelines::text_classification::{Function, Parameters, TopK};
use cloze_tasks::pipelines::{Inputs, TextOrPair};
use serde_json::{Value, json};

use crate::app::{Answered, App};
use crate::failure::Failure;
use crate::models::Served;
use crate::scheduler::ticket::Priority;

/// All labels of each text or pair with their scores, best first: the softmax, or the sigmoid if labels are independent or there is only one;
/// with `raw`, the model's outputs. `truncate` is as in a request, `size` the number of characters.
///
/// # Errors
/// No texts or too many; a text that is too long and not to be truncated; the failures of the model.
pub async fn classify(
    app: &App,
    model: &Arc<Served>,
    rows: Vec<(String, Option<String>)>,
    (raw, truncate): (bool, Option<bool>),
    (priority, size): (Priority, usize),
) -> Result<Answered<Vec<Value>>, Failure> {
    app.check_inputs(rows.len())?;
    let truncate = truncate.unwrap_or(app.settings.truncate);
    app.compute(model, (priority, size), move |model, call| {
        let mut parameters = Parameters::default();
        parameters.top_k = TopK::All;
        parameters.function_to_apply = raw.then_some(Function::None);
        parameters.truncation = Some(truncate);
        let row = |(text, pair): (String, Option<String>)| match pair {
            Some(pair) => TextOrPair::Object { text, text_pair: Some(pair) },
            None => TextOrPair::Text(text),
        };
        let inputs = Inputs::list(rows.into_iter().map(row));
        let found = model.text_classification()?.run_on(call, &inputs, &parameters)?;
        Ok(found.rows.iter().map(|row| json!(row)).collect())
    })
    .await
}
