//! Replaces the vocabulary of a model: new rows of word embeddings, everything else unchanged.
//!
//! A new token is initialised with the mean of the rows of its pieces under the old vocabulary, as in AVocaDo (Hong et
//! al., "Strategy for adapting vocabulary to downstream domain", EMNLP 2021) and fast vocabulary transfer (Gee et al.,
//! EMNLP 2022, industry track). A token without pieces is sampled around the mean of all rows (Hewitt, "Initializing
//! new word embeddings for pretrained language models", 2021, which samples from the rows' normal distribution; here
//! its covariance is diagonal).

use std::collections::BTreeSet;

use cloze_engine::{Device, Init, Parameters};

use crate::bert::InitFrom;
use crate::config::Config;
use crate::error::ModelError;
use crate::model::{Blueprint, Model};
use crate::role::{Module, Table as Embeddings};

/// Where a row of the new vocabulary comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewRow {
    /// A copy of this row, bit for bit.
    Copied(usize),
    /// The mean of these rows, at least one.
    Mean(Vec<usize>),
    /// Sampled from the distribution of all old rows, independently for each column.
    Random,
}

impl Model {
    /// This model with a vocabulary of `rows.len()` tokens. The word embeddings, the MLM decoder if it is not tied to
    /// them, and the MLM bias if the model has that head, get the given rows. All other weights are copied bit for bit,
    /// and all heads and all keys of the configuration except `vocab_size` are kept. Old rows that are not in `rows`
    /// are dropped.
    ///
    /// Element j of a [sampled](NewRow::Random) row is the mean of column j over all old rows plus the column's
    /// standard deviation times a normal number truncated at 2σ (and scaled back to variance 1). It is a pure function
    /// of `seed`, the number of sampled rows before it, and j. Its bias is the mean bias. Learning-rate factors and
    /// frozen layers are reset.
    ///
    /// Hidden states and logits of texts whose ids do not change are identical to the last bit. The MLM loss is not,
    /// because its softmax includes other tokens.
    ///
    /// # Errors
    /// [`ModelError::Vocabulary`] for a row that the model does not have, or a mean of no rows; [`ModelError::Config`]
    /// if `rows` is empty.
    pub fn with_vocabulary(&self, rows: &[NewRow], seed: u64, device: &Device) -> Result<Model, ModelError> {
        self.check_rows(rows)?;
        let config = Config { vocab_size: rows.len(), ..self.config().clone() };
        let start = InitFrom::Checkpoint { missing: BTreeSet::new() };
        let mut model = Blueprint::new(config, self.heads, start)?.build(device, seed);
        let width = self.architecture().embedding_size;
        // Only the sizes of the vocabulary differ: the parameters and their order are the same.
        for (id, role) in self.roles() {
            let from = self.params.read(id);
            let table = |width| Table { values: &from, width };
            match role.module {
                Module::Embedding(Embeddings::Word) | Module::MlmDecoder => {
                    model.params.edit(id, |to| table(width).fill(rows, Some(seed), device, to));
                }
                Module::MlmBias => model.params.edit(id, |to| table(1).fill(rows, None, device, to)),
                _ => model.params.write(id, &from),
            }
        }
        Ok(model)
    }

    fn check_rows(&self, rows: &[NewRow]) -> Result<(), ModelError> {
        let size = self.architecture().vocab_size;
        for (row, source) in rows.iter().enumerate() {
            let fail = |problem| Err(ModelError::Vocabulary { row, problem });
            let sources: &[usize] = match source {
                NewRow::Copied(from) => std::slice::from_ref(from),
                NewRow::Mean(from) if from.is_empty() => return fail("the mean of no rows".to_owned()),
                NewRow::Mean(from) => from,
                NewRow::Random => &[],
            };
            if let Some(absent) = sources.iter().find(|&&from| from >= size) {
                return fail(format!(
                    "expected source rows below {size}, the size of the model's vocabulary, found {absent}"
                ));
            }
        }
        Ok(())
    }
}

/// Standard deviation of the standard normal distribution truncated at ±2.
const TRUNCATED_DEVIATION: f64 = 0.879_625_42;

/// A parameter with one row of `width` numbers per token.
struct Table<'a> {
    values: &'a [f32],
    width: usize,
}

impl Table<'_> {
    fn row(&self, number: usize) -> &[f32] {
        &self.values[number * self.width..][..self.width]
    }

    /// Fills `to`. Sampled rows vary by `seed`; without a seed, they are the mean.
    fn fill(&self, rows: &[NewRow], seed: Option<u64>, device: &Device, to: &mut [f32]) {
        let sampled = rows.iter().filter(|row| **row == NewRow::Random).count();
        let statistics = if sampled > 0 { self.column_statistics() } else { Vec::new() };
        let noise = seed.filter(|_| sampled > 0).map(|seed| standard_normal(sampled * self.width, seed, device));
        let noise = noise.as_ref().map(|params| params.read_all());
        let mut noise = noise.iter().flat_map(|noise| noise.iter());
        for (row, to) in rows.iter().zip(to.chunks_exact_mut(self.width)) {
            match row {
                NewRow::Copied(from) => to.copy_from_slice(self.row(*from)),
                NewRow::Mean(from) => {
                    for (column, value) in to.iter_mut().enumerate() {
                        let sum: f64 = from.iter().map(|&from| f64::from(self.row(from)[column])).sum();
                        *value = (sum / from.len() as f64) as f32;
                    }
                }
                NewRow::Random => {
                    for (value, (mean, deviation)) in to.iter_mut().zip(&statistics) {
                        let normal = noise.next().map_or(0.0, |&noise| f64::from(noise) / TRUNCATED_DEVIATION);
                        *value = (mean + deviation * normal) as f32;
                    }
                }
            }
        }
    }

    /// Mean and standard deviation of each column.
    fn column_statistics(&self) -> Vec<(f64, f64)> {
        let count = (self.values.len() / self.width) as f64;
        let mut mean = vec![0.0; self.width];
        for row in self.values.chunks_exact(self.width) {
            mean.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value) / count);
        }
        let mut variance = vec![0.0; self.width];
        for row in self.values.chunks_exact(self.width) {
            for ((sum, &value), mean) in variance.iter_mut().zip(row).zip(&mean) {
                *sum += (f64::from(value) - mean).powi(2) / count;
            }
        }
        mean.into_iter().zip(variance.into_iter().map(f64::sqrt)).collect()
    }
}

/// Samples by the engine's initialiser: normal numbers with variance 1 before truncation at 2σ. Its random stream
/// depends on the name.
fn standard_normal(count: usize, seed: u64, device: &Device) -> Parameters {
    let mut builder = Parameters::builder();
    builder.declare("vocabulary.drawn", &[count], Init::TruncatedNormal { std: 1.0 }, false);
    builder.build(device, seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heads::{Heads, TaskHead};
    use crate::losses::{LossScale, MLM, NSP};
    use crate::testing::{self, device, inputs, labels};
    use cloze_engine::{DType, Gradients, Pass};
    use serde_json::Value;
    use std::borrow::Cow;

    const OLD: usize = 40;
    const WORDS: &str = "bert.embeddings.word_embeddings.weight";
    const MLM_BIAS: &str = "cls.predictions.bias";

    /// A tiny model without uniform parameters.
    fn small(heads: Heads) -> Model {
        let mut config = Config { vocab_size: OLD, ..testing::small() };
        config.extra.insert("surprise".to_owned(), Value::from(7));
        let mut model = Model::new(config, heads, &device(), 1).unwrap();
        model.params.edit_all(|values| {
            for (i, value) in values.iter_mut().enumerate() {
                *value += ((i * 2_654_435_761) % 1000) as f32 * 1e-4 - 0.05;
            }
        });
        model
    }

    fn copied(rows: usize) -> Vec<NewRow> {
        (0..rows).map(NewRow::Copied).collect()
    }

    fn values<'a>(model: &'a Model, name: &str) -> Cow<'a, [f32]> {
        model.params.read(model.params.find(name).unwrap())
    }

    #[test]
    fn only_the_requested_rows_change() {
        let tag = Heads::of(TaskHead::Tag { labels: 3 });
        for heads in [Heads::PRETRAINING, Heads::MLM, Heads::ENCODER, tag] {
            let old = small(heads);
            let mut rows = copied(OLD);
            rows.swap(5, 6);
            rows.extend([NewRow::Mean(vec![7, 8, 8]), NewRow::Mean(vec![9]), NewRow::Random]);
            let new = old.with_vocabulary(&rows, 3, &device()).unwrap();
            assert_eq!(new.heads, heads);
            assert_eq!(new.config(), &Config { vocab_size: OLD + 3, ..old.config().clone() });
            assert_eq!(new.config().extra["surprise"], 7);
            let mut copied = 0;
            for id in new.params.ids() {
                let name = new.params.name(id);
                let width = match name {
                    WORDS => 16,
                    MLM_BIAS => 1,
                    _ => {
                        assert_eq!(new.params.read(id), values(&old, name), "{name}");
                        copied += 1;
                        continue;
                    }
                };
                let (from, to) = (values(&old, name), new.params.read(id));
                let row = |table: &[f32], number: usize| table[number * width..][..width].to_vec();
                for number in (0..OLD).filter(|number| ![5, 6].contains(number)) {
                    assert_eq!(row(&to, number), row(&from, number), "{name} {number}");
                }
                assert_eq!((row(&to, 5), row(&to, 6)), (row(&from, 6), row(&from, 5)), "{name}");
                for column in 0..width {
                    let [a, b] = [7, 8].map(|number| f64::from(row(&from, number)[column]));
                    assert_eq!(row(&to, OLD)[column], ((a + b + b) / 3.0) as f32, "{name}");
                }
                assert_eq!(row(&to, OLD + 1), row(&from, 9), "{name}");
            }
            let tables = 1 + usize::from(heads.mlm);
            assert_eq!(copied, old.params.ids().count() - tables);
            if heads.mlm {
                let bias = values(&old, MLM_BIAS);
                let mean = bias.iter().map(|&b| f64::from(b)).sum::<f64>() / OLD as f64;
                assert!((f64::from(values(&new, MLM_BIAS)[OLD + 2]) - mean).abs() < 1e-8);
            }
        }
    }

    #[test]
    fn sampled_rows_have_the_old_mean_and_deviation_and_depend_on_the_seed() {
        let mut old = small(Heads::MLM);
        let words = old.params.find(WORDS).unwrap();
        old.params.edit(words, |values| {
            for (i, value) in values.iter_mut().enumerate() {
                // Column j has mean j and a deviation that increases with j.
                let column = (i % 16) as f32;
                *value = column + (column + 1.0) * if (i / 16) % 2 == 0 { 0.5 } else { -0.5 };
            }
        });
        let count = 4000;
        let sample = |seed| {
            let model = old.with_vocabulary(&vec![NewRow::Random; count], seed, &device()).unwrap();
            values(&model, WORDS).to_vec()
        };
        let sampled = sample(5);
        assert_eq!(sampled, sample(5));
        assert_ne!(sampled, sample(6));
        for column in 0..16 {
            let values: Vec<f64> = sampled.iter().skip(column).step_by(16).map(|&value| f64::from(value)).collect();
            let mean = values.iter().sum::<f64>() / count as f64;
            let deviation = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count as f64).sqrt();
            let expected = (column as f64 + 1.0) * 0.5;
            assert!((mean - column as f64).abs() < 0.05 * expected, "column {column}: mean {mean}");
            assert!((deviation / expected - 1.0).abs() < 0.03, "column {column}: deviation {deviation}");
        }
    }

    #[test]
    fn states_and_logits_of_old_ids_do_not_change() {
        let old = small(Heads::PRETRAINING);
        let mut rows = copied(OLD);
        rows.push(NewRow::Mean(vec![4, 7]));
        let new = old.with_vocabulary(&rows, 0, &device()).unwrap();
        // Only the first 35 rows.
        let fewer = old.with_vocabulary(&copied(35), 0, &device()).unwrap();
        let device = device();
        let outputs = |model: &Model| {
            let mut pass = Pass::inference(&device, &model.params, DType::F32);
            let states = model.hidden_states(&mut pass, &inputs(), &[0, 1, 2]);
            let states: Vec<Vec<f32>> = states.iter().map(|state| state.value().to_vec_f32()).collect();
            let nsp = model.nsp_logits(&mut pass, &inputs()).unwrap();
            let mlm = model.mlm_logits(&mut pass, &inputs(), &labels().mlm_rows).unwrap();
            (states, nsp.value().to_vec_f32(), mlm.value().to_vec_f32())
        };
        let losses = |model: &Model| {
            let mut gradients = Gradients::zeros_like(&model.params);
            let mut pass = Pass::recording(&device, &model.params, &mut gradients, DType::F32, None);
            let losses = model.loss(&mut pass, &inputs(), &labels(), LossScale::mean(&labels()));
            (losses.get(MLM).unwrap().mean(), losses.get(NSP).unwrap().mean())
        };
        let (states, nsp, logits) = outputs(&old);
        for (model, size) in [(&new, OLD + 1), (&fewer, 35)] {
            let (new_states, new_nsp, new_logits) = outputs(model);
            assert_eq!((&new_states, &new_nsp), (&states, &nsp));
            let shared = OLD.min(size);
            for (new, old) in new_logits.chunks(size).zip(logits.chunks(OLD)) {
                assert_eq!(new[..shared], old[..shared]);
            }
            // The MLM loss is −logit + log Σ exp over the vocabulary: only the tokens in the sum differ.
            let expected = new_logits.chunks(size).zip(labels().mlm_labels).map(|(row, label)| {
                let sum: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
                sum.ln() - f64::from(row[label as usize])
            });
            let (mlm, nsp_loss) = losses(model);
            assert!((mlm - expected.sum::<f64>() / 2.0).abs() < 1e-4);
            assert_eq!(nsp_loss, losses(&old).1);
        }
        assert!(losses(&fewer).0 < losses(&old).0 && losses(&old).0 < losses(&new).0);
    }

    #[test]
    fn invalid_rows_are_reported() {
        let old = small(Heads::MLM);
        let error = |rows: &[NewRow]| old.with_vocabulary(rows, 0, &device()).err().unwrap().to_string();
        assert!(
            error(&[NewRow::Copied(0), NewRow::Copied(OLD)])
                .contains("row 1 of the new vocabulary: expected source rows below 40")
        );
        assert!(error(&[NewRow::Mean(vec![1, 99])]).contains("found 99"));
        assert!(error(&[NewRow::Mean(vec![])]).contains("the mean of no rows"));
        assert!(error(&[]).contains("vocab_size is 0"));
    }
}
