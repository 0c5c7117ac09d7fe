//! ELECTRA's generator and discriminator (Clark et al. 2020, section 3): two models that are trained together.

use std::path::Path;

use cloze_engine::{Device, DropoutKey, Parameters, Pass};

use crate::bert::{Declarations, InitFrom};
use crate::config::Config;
use crate::error::ModelError;
use crate::flops::{FlopsOf, useful_flops};
use crate::graph::ModelGraph;
use crate::heads::Heads;
use crate::inputs::{Inputs, PretrainLabels};
use crate::losses::{Losses, MLM, RTD};
use crate::model::{Model, checked_heads};

/// The folder of the generator in a pair's folder.
pub const GENERATOR: &str = "generator";
/// The folder of the discriminator in a pair's folder.
pub const DISCRIMINATOR: &str = "discriminator";

/// A generator and a discriminator over one arena. They share the embedding tables and the LayerNorm of the embeddings, as
/// in google-research/electra with `untied_generator_embeddings = False`; their encoders are separate.
pub struct RtdPair {
    /// The parameters of both. The names of those that only the generator has start with `generator.`.
    pub params: Parameters,
    /// The generator, with the MLM head.
    pub generator: ModelGraph,
    /// The discriminator, with the head that detects replaced tokens.
    pub discriminator: ModelGraph,
}

impl RtdPair {
    /// A pair with new weights.
    ///
    /// # Errors
    /// [`ModelError::Config`] for a configuration of another family, or of embeddings that cannot be shared.
    pub fn new(generator: Config, discriminator: Config, device: &Device, seed: u64) -> Result<RtdPair, ModelError> {
        RtdPair::build(generator, discriminator, &|| InitFrom::Random, device, seed)
    }

    /// The number of weights of such a pair. Allocates nothing.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn count_parameters(generator: &Config, discriminator: &Config) -> Result<usize, ModelError> {
        check_shared(generator, discriminator)?;
        let architecture = discriminator.architecture();
        let rows = architecture.vocab_size + architecture.positions + architecture.segments + 2;
        let both =
            Model::count_parameters(generator, Heads::MLM)? + Model::count_parameters(discriminator, Heads::RTD)?;
        Ok(both - rows * architecture.embedding_size)
    }

    fn build(
        generator: Config,
        discriminator: Config,
        init: &dyn Fn() -> InitFrom,
        device: &Device,
        seed: u64,
    ) -> Result<RtdPair, ModelError> {
        let of_generator = checked_heads(&generator, Heads::MLM)?;
        let of_discriminator = checked_heads(&discriminator, Heads::RTD)?;
        check_shared(&generator, &discriminator)?;
        let (schema, architecture) = (discriminator.schema(), discriminator.architecture());
        let mut to = Declarations::new(Parameters::builder(), "", schema, &architecture, init());
        let discriminator = ModelGraph::declare(&mut to, discriminator, of_discriminator, None);
        let mut to = Declarations::new(to.builder, "generator.", generator.schema(), &generator.architecture(), init());
        let embeddings = discriminator.bert.embeddings;
        let generator = ModelGraph::declare(&mut to, generator, of_generator, Some(embeddings));
        Ok(RtdPair { params: to.builder.build(device, seed), generator, discriminator })
    }

    /// Runs both models on a batch of masked tokens, and returns the losses [`MLM`] of the generator and [`RTD`] of the
    /// discriminator. Their gradients, recorded in the pass, are multiplied by `scales`.
    ///
    /// The generator predicts the masked tokens. The discriminator reads the original text with the generator's samples at
    /// these places, and predicts for every token, special ones included, whether it was replaced; a sample that equals
    /// the original is not (section 2).
    pub fn loss(
        &self,
        pass: &mut Pass,
        inputs: &Inputs,
        labels: &PretrainLabels,
        scales: [f32; 2],
        key: DropoutKey,
    ) -> Losses {
        let mut losses = Losses::default();
        let Some((mlm, samples)) = self.generator.mlm_loss_and_samples(pass, inputs, labels, scales[0], key) else {
            return losses;
        };
        losses.add(MLM, mlm);
        let mut corrupted = inputs.clone();
        let mut replaced = vec![0.0; inputs.tokens()];
        for ((&row, &original), sample) in labels.mlm_rows.iter().zip(&labels.mlm_labels).zip(samples) {
            corrupted.ids[row as usize] = sample;
            replaced[row as usize] = f32::from(u8::from(sample != original));
        }
        let rtd = self.discriminator.rtd_loss(pass, &corrupted, &replaced, scales[1]);
        rtd.into_iter().for_each(|loss| losses.add(RTD, loss));
        losses
    }

    /// Useful floating-point operations of [`loss`](Self::loss) and its backward pass, without sampling.
    pub fn useful_flops(&self, inputs: &Inputs, labels: &PretrainLabels) -> f64 {
        let of = FlopsOf::ForwardBackward;
        let lengths = inputs.lengths().map(|length| [length; 2]);
        self.generator.useful_flops(inputs, labels, of)
            + useful_flops(self.discriminator.architecture(), lengths, 0, of)
    }

    /// Reads the folders `generator` and `discriminator` in `dir`.
    ///
    /// # Errors
    /// As [`Model::load`] and [`new`](Self::new); [`ModelError::Folder`] if the two models have different embeddings.
    pub fn load(dir: &Path, device: &Device) -> Result<RtdPair, ModelError> {
        let [generator, discriminator] = [GENERATOR, DISCRIMINATOR].map(|name| Model::load(&dir.join(name), device));
        let (generator, discriminator) = (generator?, discriminator?);
        let init = || InitFrom::Checkpoint { missing: Default::default() };
        let mut pair = RtdPair::build(generator.config().clone(), discriminator.config().clone(), &init, device, 0)?;
        for (id, role) in pair.discriminator.roles() {
            copy(&discriminator, DISCRIMINATOR, role, id, &mut pair.params, dir)?;
        }
        for (id, role) in pair.generator.roles() {
            let of_both = role.module.head().is_none() && pair.discriminator.find(role) == Some(id);
            if !of_both {
                copy(&generator, GENERATOR, role, id, &mut pair.params, dir)?;
            } else if generator.find(role).is_none_or(|own| generator.params.read(own) != pair.params.read(id)) {
                let problem = format!(
                    "{} of the generator differs from that of the discriminator; expected two models that share embeddings",
                    generator.schema().name(role)
                );
                return Err(ModelError::Folder { path: dir.to_owned(), problem });
            }
        }
        Ok(pair)
    }

    /// Writes the folders `generator` and `discriminator` in `dir`. Each is a complete model.
    ///
    /// # Errors
    /// As [`Model::save`].
    pub fn save(&self, dir: &Path) -> Result<(), ModelError> {
        self.generator.save(&self.params, &dir.join(GENERATOR))?;
        self.discriminator.save(&self.params, &dir.join(DISCRIMINATOR))
    }
}

/// Copies the parameter with this role from a model to the pair's arena.
fn copy(
    from: &Model,
    folder: &str,
    role: crate::Role,
    to: cloze_engine::ParamId,
    params: &mut Parameters,
    dir: &Path,
) -> Result<(), ModelError> {
    let Some(id) = from.find(role) else {
        let problem = format!("expected the tensor {} of the {folder}", from.schema().name(role));
        return Err(ModelError::Folder { path: dir.join(folder), problem });
    };
    params.write(to, &from.params.read(id));
    Ok(())
}

/// Checks that the embeddings have the same sizes.
fn check_shared(generator: &Config, discriminator: &Config) -> Result<(), ModelError> {
    let sizes = |config: &Config| {
        let architecture = config.architecture();
        [
            ("vocab_size", architecture.vocab_size),
            ("embedding_size", architecture.embedding_size),
            ("max_position_embeddings", architecture.positions),
            ("type_vocab_size", architecture.segments),
        ]
    };
    for ((key, found), (_, expected)) in sizes(generator).into_iter().zip(sizes(discriminator)) {
        if found != expected {
            let problem = format!(
                "{key} of the generator is {found}: expected {expected}, as in the discriminator, because they share embeddings"
            );
            return Err(ModelError::Config { path: None, problem });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::ELECTRA;
    use crate::testing::{device, inputs, labels, small};
    use cloze_engine::{DType, Gradients};

    fn electra(hidden: usize) -> Config {
        Config { model_type: ELECTRA.model_type.to_owned(), embedding_size: Some(8), hidden_size: hidden, ..small() }
    }

    fn pair() -> RtdPair {
        RtdPair::new(electra(4), electra(16), &device(), 3).unwrap()
    }

    fn key(step: u64) -> DropoutKey {
        DropoutKey { seed: 1, step, micro: 0 }
    }

    #[test]
    fn embeddings_are_shared_and_every_other_parameter_exists_twice() {
        let pair = pair();
        let of = |graph: &ModelGraph| graph.roles().map(|(id, _)| id).collect::<Vec<_>>();
        let (generator, discriminator) = (of(&pair.generator), of(&pair.discriminator));
        let shared = generator.iter().filter(|id| discriminator.contains(id)).count();
        assert_eq!(shared, 5, "three tables and a LayerNorm");
        assert_eq!(generator.len() + discriminator.len() - shared, pair.params.ids().count());
        assert_eq!(RtdPair::count_parameters(&electra(4), &electra(16)).unwrap(), pair.params.count());
        assert!(pair.params.find("generator.electra.embeddings_project.weight").is_some());
    }

    /// The gradient of the discriminator's loss equals that of the discriminator alone on the corrupted text.
    #[test]
    fn the_discriminator_learns_from_samples_at_the_masked_tokens() {
        let (pair, device) = (pair(), device());
        let labels = PretrainLabels { nsp_labels: vec![], ..labels() };
        let run = |scales: [f32; 2], step: u64| {
            let mut gradients = Gradients::zeros_like(&pair.params);
            let mut pass = Pass::recording(&device, &pair.params, &mut gradients, DType::F32, None);
            let losses = pair.loss(&mut pass, &inputs(), &labels, scales, key(step));
            pass.backward();
            let found = [MLM, RTD].map(|name| losses.get(name).unwrap());
            (found, gradients.read_all().to_vec())
        };
        let ([mlm, rtd], both) = run([0.5, 0.25], 1);
        assert_eq!((mlm.count, rtd.count), (2, 10));
        assert!((mlm.mean() - 50f64.ln()).abs() < 0.2 && (rtd.mean() - 2f64.ln()).abs() < 0.1, "{mlm:?} {rtd:?}");
        let ((_, only_mlm), (_, only_rtd)) = (run([0.5, 0.0], 1), run([0.0, 0.25], 1));
        assert!(both.iter().zip(only_mlm.iter().zip(&only_rtd)).all(|(both, (a, b))| (both - a - b).abs() < 1e-6));
        let moved = |graph: &ModelGraph, gradient: &[f32]| {
            let range = |id| pair.params.range(id);
            graph.roles().filter(|(id, _)| gradient[range(*id)].iter().any(|x| *x != 0.0)).count()
        };
        // No gradient passes through the samples: the generator gets none but through the shared embeddings.
        assert_eq!(moved(&pair.generator, &only_rtd), 5);
        assert_eq!(moved(&pair.discriminator, &only_mlm), 5);
        assert_eq!(run([0.5, 0.25], 1).1, both, "the samples depend only on the key");
    }

    #[test]
    fn a_pair_is_saved_as_two_models_and_read_back() {
        let (pair, dir) = (pair(), tempfile::tempdir().unwrap());
        pair.save(dir.path()).unwrap();
        let generator = Model::load(&dir.path().join(GENERATOR), &device()).unwrap();
        let discriminator = Model::load(&dir.path().join(DISCRIMINATOR), &device()).unwrap();
        assert_eq!(
            (generator.class_name(), discriminator.class_name()),
            ("ElectraForMaskedLM", "ElectraForPreTraining")
        );
        let loaded = RtdPair::load(dir.path(), &device()).unwrap();
        assert_eq!(loaded.params.read_all(), pair.params.read_all());

        let mut changed = generator;
        changed.params.edit_all(|values| values[0] += 1.0);
        changed.save(&dir.path().join(GENERATOR)).unwrap();
        let error = RtdPair::load(dir.path(), &device()).err().unwrap().to_string();
        assert!(error.contains("word_embeddings.weight of the generator differs"), "{error}");
    }

    #[test]
    fn embeddings_of_different_widths_are_rejected() {
        let wide = Config { embedding_size: Some(6), ..electra(4) };
        let error = RtdPair::new(wide, electra(16), &device(), 3).err().unwrap().to_string();
        assert!(error.contains("embedding_size of the generator is 6: expected 8"), "{error}");
        let error = RtdPair::new(small(), small(), &device(), 3).err().unwrap().to_string();
        assert!(error.contains("BERT has no replaced-token head"), "{error}");
    }
}
