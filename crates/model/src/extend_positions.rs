//! Extends the table of positions of a model to longer sequences, for further training at that length.

use std::collections::BTreeSet;

use cloze_engine::Device;

use crate::bert::InitFrom;
use crate::config::Config;
use crate::error::ModelError;
use crate::model::{Blueprint, Model};
use crate::role::{Module, Table};

/// How the rows of new positions are initialised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PositionFill {
    /// Position p is a copy of position p modulo the old length, as in Longformer (Beltagy et al. 2020, section 5).
    #[default]
    Copy,
    /// The old positions are spread over the new length, with linear interpolation between neighbours (Chen et al. 2023,
    /// "Extending Context Window of Large Language Models via Position Interpolation", for a learned table).
    Interpolate,
}

impl PositionFill {
    /// All of them, with names and descriptions.
    pub const ALL: [(PositionFill, &'static str, &'static str); 2] = [
        (PositionFill::Copy, "copy", "Repeat the table: short texts have the same vectors as before"),
        (PositionFill::Interpolate, "interpolate", "Spread the table over the new length"),
    ];
}

impl Model {
    /// This model for sequences of up to `length` tokens. A model whose positions are rotations has the same weights.
    /// Learning-rate factors and frozen layers are reset.
    ///
    /// # Errors
    /// [`ModelError::Config`] unless `length` is above the current maximum.
    pub fn with_positions(&self, length: usize, fill: PositionFill, device: &Device) -> Result<Model, ModelError> {
        let architecture = self.architecture();
        let (before, first) = (architecture.max_sequence_length(), architecture.first_position());
        if length <= before {
            let problem = format!("expected more than {before} positions, the model's number, found {length}");
            return Err(ModelError::Config { path: None, problem });
        }
        let config = Config { max_position_embeddings: first + length, ..self.config().clone() };
        let start = InitFrom::Checkpoint { missing: BTreeSet::new() };
        let mut model = Blueprint::new(config, self.heads, start)?.build(device, 0);
        let width = architecture.embedding_size;
        for (id, role) in self.roles() {
            let from = self.params.read(id);
            if role.module != Module::Embedding(Table::Position) {
                model.params.write(id, &from);
                continue;
            }
            let (special, table) = from.split_at(first * width);
            model.params.edit(id, |to| {
                to[..special.len()].copy_from_slice(special);
                for (position, row) in to[special.len()..].chunks_exact_mut(width).enumerate() {
                    fill.row(table, width, position, length, row);
                }
            });
        }
        Ok(model)
    }
}

impl PositionFill {
    /// Writes the row of a position of the extended table.
    fn row(self, table: &[f32], width: usize, position: usize, length: usize, to: &mut [f32]) {
        let before = table.len() / width;
        let old = |number: usize| &table[number * width..(number + 1) * width];
        match self {
            PositionFill::Copy => to.copy_from_slice(old(position % before)),
            PositionFill::Interpolate => {
                let at = position as f64 * (before - 1) as f64 / (length - 1) as f64;
                let lower = (at as usize).min(before - 1);
                let (share, upper) = (at - lower as f64, (lower + 1).min(before - 1));
                for ((to, a), b) in to.iter_mut().zip(old(lower)).zip(old(upper)) {
                    *to = (f64::from(*a) * (1.0 - share) + f64::from(*b) * share) as f32;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::heads::Heads;
    use crate::inputs::Inputs;
    use crate::testing::{device, modern, small};
    use cloze_engine::{DType, Pass};

    fn logits(model: &Model, tokens: i32) -> Vec<f32> {
        let ids: Vec<u32> = (0..tokens as u32).map(|i| 5 + i % 7).collect();
        let mut inputs = Inputs::default();
        inputs.push(&ids, &vec![0; ids.len()]);
        let device = device();
        let mut pass = Pass::inference(&device, &model.params, DType::F32);
        model.mlm_logits(&mut pass, &inputs, &[tokens - 1]).unwrap().value().to_vec_f32()
    }

    #[test]
    fn copied_positions_keep_short_texts_and_open_longer_ones() {
        for model_type in ["bert", "roberta", "mpnet"] {
            let mut config = small();
            config.model_type = model_type.to_owned();
            if model_type == "mpnet" {
                config.type_vocab_size = 0;
            }
            let model = Model::new(config, Heads::MLM, &device(), 3).unwrap();
            let before = model.architecture().max_sequence_length();
            let longer = model.with_positions(3 * before, PositionFill::Copy, &device()).unwrap();
            assert_eq!(longer.architecture().max_sequence_length(), 3 * before, "{model_type}");
            assert_eq!(logits(&longer, before as i32), logits(&model, before as i32), "{model_type}");
            assert!(logits(&longer, 3 * before as i32).iter().all(|logit| logit.is_finite()));
        }
    }

    #[test]
    fn interpolated_positions_end_with_the_old_ends() {
        let model = Model::new(small(), Heads::NONE, &device(), 3).unwrap();
        let (before, width) = (model.architecture().max_sequence_length(), model.architecture().embedding_size);
        let longer = model.with_positions(2 * before - 1, PositionFill::Interpolate, &device()).unwrap();
        let role = Module::Embedding(Table::Position).weight();
        let [old, new] = [&model, &longer].map(|of| of.params.read(of.find(role).unwrap()).to_vec());
        let row = |of: &[f32], number: usize| of[number * width..(number + 1) * width].to_vec();
        for number in 0..before {
            assert_eq!(row(&new, 2 * number), row(&old, number));
        }
        for (i, value) in row(&new, 1).iter().enumerate() {
            assert!((value - (row(&old, 0)[i] + row(&old, 1)[i]) / 2.0).abs() < 1e-7);
        }
    }

    #[test]
    fn rotations_need_no_table_and_shorter_tables_are_refused() {
        let model = Model::new(modern(), Heads::MLM, &device(), 3).unwrap();
        let before = model.architecture().max_sequence_length();
        let longer = model.with_positions(before + 100, PositionFill::Copy, &device()).unwrap();
        assert_eq!(longer.params.read_all(), model.params.read_all());
        let problem = model.with_positions(before, PositionFill::Copy, &device()).err().unwrap().to_string();
        assert!(problem.contains(&format!("expected more than {before} positions")), "{problem}");
    }
}
