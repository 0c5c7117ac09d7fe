//! A fine-tuned model at work: rows in, predictions out.

use std::path::Path;

use cloze_engine::ops::LossSum;
use cloze_engine::{DType, Device, Pass};
use cloze_model::{Model, TaskHead};
use cloze_text::Tokenizer;

use crate::TaskError;
use crate::batch::TaskBatch;
use crate::example::Example;
use crate::parallel;
use crate::task::{Encoded, Scores, Task};

/// Tokens of a batch when only outputs are wanted: enough for the matrix unit, little for memory.
pub(crate) const BATCH_TOKENS: usize = 4096;

/// A model with its tokenizer and the device that runs it.
pub struct Network {
    /// The model.
    pub model: Model,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Where it runs.
    pub device: Device,
    /// The type of activations.
    pub precision: DType,
}

/// Predictions of rows and what they score.
pub struct Judged<P> {
    /// One of each row.
    pub predictions: Vec<P>,
    /// Their scores.
    pub scores: Scores,
    /// The mean loss, of rows whose target is known.
    pub loss: f64,
}

impl Network {
    /// Opens a model folder, whatever its heads.
    ///
    /// # Errors
    /// A folder that cannot be read, a tokenizer larger than the model's vocabulary.
    pub fn open(dir: &Path, device: Device, precision: DType) -> Result<Network, TaskError> {
        let mut model = Model::load(dir, &device)?;
        model.params.cache_packed_weights();
        let tokenizer = Tokenizer::open(dir)?;
        cloze_train::checkpoint::check_vocabulary(dir, &tokenizer, &model)?;
        Ok(Network { model, tokenizer, device, precision })
    }

    /// The head of the model's task.
    ///
    /// # Errors
    /// A model that was not fine-tuned.
    pub fn head(&self, dir: &Path) -> Result<TaskHead, TaskError> {
        self.model.heads.task.ok_or_else(|| TaskError::Folder {
            path: dir.to_owned(),
            problem: format!(
                "a {} has no task's head: expected a fine-tuned model; make one with `cloze finetune`",
                self.model.class_name()
            ),
        })
    }

    /// The logits of every example, in order. `progress` is told the share done.
    pub fn logits(&self, examples: &[&Example], progress: &mut dyn FnMut(f64)) -> (Vec<Vec<f32>>, LossSum) {
        logits(&self.model, &self.device, self.precision, examples, progress)
    }

    /// Encodes rows, on all threads.
    ///
    /// # Errors
    /// Those of [`Task::encode`], of the first row that has one; sequences that are longer than the model reads.
    pub fn encode<T: Task>(&self, task: &T, rows: &[T::Row]) -> Result<Vec<Encoded<T::Notes>>, TaskError> {
        let encoded = encode(task, rows, &self.tokenizer, self.device.threads())?;
        check_fit(&self.model, encoded.iter().flat_map(|row| &row.examples))?;
        Ok(encoded)
    }

    /// The predictions of some rows.
    ///
    /// # Errors
    /// Those of [`Task::encode`] and [`Task::predict`].
    pub fn predict<T: Task>(
        &self,
        task: &T,
        rows: &[T::Row],
        progress: &mut dyn FnMut(f64),
    ) -> Result<Vec<T::Prediction>, TaskError> {
        let encoded = self.encode(task, rows)?;
        let (predictions, _) = predict(task, rows, &encoded, |examples| self.logits(examples, progress))?;
        Ok(predictions)
    }

    /// The predictions of some rows that say what is right, and their scores.
    ///
    /// # Errors
    /// Those of [`Task::encode`] and [`Task::predict`].
    pub fn judge<T: Task>(
        &self,
        task: &T,
        rows: &[T::Row],
        progress: &mut dyn FnMut(f64),
    ) -> Result<Judged<T::Prediction>, TaskError> {
        let encoded = self.encode(task, rows)?;
        judge(task, rows, &encoded, |examples| self.logits(examples, progress))
    }
}

/// Sequences must not be longer than the model has positions, nor pairs where it knows one segment only.
pub(crate) fn check_fit<'a>(model: &Model, examples: impl Iterator<Item = &'a Example>) -> Result<(), TaskError> {
    let (positions, segments) = (model.architecture().longest_sequence(), model.architecture().segments);
    for sequence in examples.flat_map(|example| &example.sequences) {
        let found = sequence.ids.len();
        if found > positions {
            let problem = format!(
                "a sequence has {found} tokens, the model {positions} positions; lower --max-len to {positions}"
            );
            return Err(TaskError::input("max-len", problem));
        }
        if sequence.segments.iter().any(|segment| usize::from(*segment) >= segments) {
            let problem = format!("two texts a row, but the model's type_vocab_size is {segments}: expected 2");
            return Err(TaskError::input("pair", problem));
        }
    }
    Ok(())
}

/// Encodes rows on several threads; the outcome does not depend on how many.
pub(crate) fn encode<T: Task>(
    task: &T,
    rows: &[T::Row],
    tokenizer: &Tokenizer,
    threads: usize,
) -> Result<Vec<Encoded<T::Notes>>, TaskError> {
    parallel::map(rows, threads, |row| task.encode(row, tokenizer)).into_iter().collect()
}

/// Which items are computed together, given their tokens: those of like lengths, some thousand tokens of them.
pub(crate) fn batches_of_like_lengths(lengths: &[usize]) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    // The longest first: memory that suffices for them suffices for all.
    order.sort_by_key(|&i| (std::cmp::Reverse(lengths[i]), i));
    let (mut batches, mut rest) = (Vec::new(), &order[..]);
    while !rest.is_empty() {
        let mut tokens = 0;
        let fits = |i: &&usize| {
            tokens += lengths[**i];
            tokens <= BATCH_TOKENS
        };
        let (now, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        batches.push(now.to_vec());
        rest = later;
    }
    batches
}

/// The logits of every example, in order, from batches of like lengths, and the summed loss of those with a target.
pub(crate) fn logits(
    model: &Model,
    device: &Device,
    precision: DType,
    examples: &[&Example],
    progress: &mut dyn FnMut(f64),
) -> (Vec<Vec<f32>>, LossSum) {
    let lengths: Vec<usize> = examples.iter().map(|example| example.tokens()).collect();
    let total: usize = lengths.iter().sum();
    let (mut found, mut loss, mut done) = (vec![Vec::new(); examples.len()], LossSum::default(), 0);
    for now in batches_of_like_lengths(&lengths) {
        let chosen: Vec<&Example> = now.iter().map(|&i| examples[i]).collect();
        let batch = TaskBatch::pack(&chosen);
        let mut pass = Pass::inference(device, &model.params, precision);
        let logits = batch.logits(model, &mut pass);
        if batch.weight(None) > 0.0 {
            loss += batch.loss(&mut pass, &logits, None, 1.0);
        }
        for (&i, own) in now.iter().zip(batch.split(&logits)) {
            found[i] = own;
        }
        done += now.iter().map(|&i| lengths[i]).sum::<usize>();
        progress(done as f64 / total.max(1) as f64);
    }
    (found, loss)
}

/// The predictions of encoded rows, given what computes logits.
pub(crate) fn predict<T: Task>(
    task: &T,
    rows: &[T::Row],
    encoded: &[Encoded<T::Notes>],
    logits: impl FnOnce(&[&Example]) -> (Vec<Vec<f32>>, LossSum),
) -> Result<(Vec<T::Prediction>, LossSum), TaskError> {
    let examples: Vec<&Example> = encoded.iter().flat_map(|row| &row.examples).collect();
    let (logits, loss) = logits(&examples);
    let mut rest = &logits[..];
    let mut predictions = Vec::with_capacity(rows.len());
    for (row, encoded) in rows.iter().zip(encoded) {
        let (own, others) = rest.split_at(encoded.examples.len());
        rest = others;
        predictions.push(task.predict(row, encoded, own)?);
    }
    Ok((predictions, loss))
}

/// As [`predict`], with the scores.
pub(crate) fn judge<T: Task>(
    task: &T,
    rows: &[T::Row],
    encoded: &[Encoded<T::Notes>],
    logits: impl FnOnce(&[&Example]) -> (Vec<Vec<f32>>, LossSum),
) -> Result<Judged<T::Prediction>, TaskError> {
    let (predictions, loss) = predict(task, rows, encoded, logits)?;
    let scores = task.scores(&rows.iter().collect::<Vec<_>>(), &predictions.iter().collect::<Vec<_>>());
    Ok(Judged { predictions, scores, loss: loss.mean() })
}
