//! The decoder of a denoising auto-encoder: it predicts a text from the vector of a damaged copy (Wang et al. 2021, "TSDAE").
//!
//! The decoder is the encoder itself with causal attention, and with a cross-attention in each layer: Transformers' language
//! models with `add_cross_attention`, tied as by `DenoisingAutoEncoderLoss` of sentence-transformers. The vector is the only
//! key of the cross-attention, so the softmax over the keys is 1, and the queries and keys of Transformers' model have
//! neither an effect nor a gradient: they are left out. In a network with norms before the blocks (ModernBERT, which has no such
//! decoder in Transformers), so is the norm, which only queries would pass. (Transformers also drops this 1 with the probability of
//! `attention_probs_dropout_prob`; we do not.)

use std::path::Path;

use cloze_engine::ops::{self, LossSum};
use cloze_engine::{Init, ParamId, Parameters, Pass, Var};

use crate::bert::{Cross, CrossAttention};
use crate::checkpoint::{read_tensors, write_tensors};
use crate::error::ModelError;
use crate::graph::{ModelGraph, upload};
use crate::inputs::Inputs;
use crate::model::Model;
use crate::output_rows::indices;

/// The cross-attentions of a decoder, with parameters in the arena of its model.
pub struct SentenceDecoder {
    layers: Vec<CrossAttention>,
}

/// A parameter of a layer: its name, its shape, and how it is initialised.
type Declared = (String, Vec<usize>, Init);

/// The parameters of the cross-attention in layer `number`.
fn declared(model: &ModelGraph, number: usize) -> Vec<Declared> {
    let architecture = model.architecture();
    let (h, std) = (architecture.hidden_size, architecture.initializer_range);
    let matrix = (vec![h, h], Init::TruncatedNormal { std });
    let (zeros, ones) = ((vec![h], Init::Zeros), (vec![h], Init::Ones));
    let norm = [("output.LayerNorm.weight", &ones), ("output.LayerNorm.bias", &zeros)];
    let dense = [
        ("self.value.weight", &matrix),
        ("self.value.bias", &zeros),
        ("output.dense.weight", &matrix),
        ("output.dense.bias", &zeros),
    ];
    let all = dense.iter().chain(norm.iter().filter(|_| !architecture.pre_norm));
    all.map(|(name, (shape, init))| (format!("layer.{number}.crossattention.{name}"), shape.clone(), *init)).collect()
}

/// All parameters, layer by layer.
fn all_declared(model: &ModelGraph) -> Vec<Declared> {
    (0..model.architecture().layers).flat_map(|number| declared(model, number)).collect()
}

impl SentenceDecoder {
    /// A decoder with new cross-attentions, whose parameters are added to those of the model.
    ///
    /// # Errors
    /// [`ModelError::Config`] for a model without a language-model head, or whose layers have another structure.
    pub fn new(model: &mut Model, seed: u64) -> Result<SentenceDecoder, ModelError> {
        let sample = |model: &Model, (name, shape, init): &Declared| {
            init.values(model.params.device(), seed, name, shape.iter().product())
        };
        let values: Vec<Vec<f32>> = all_declared(model).iter().map(|declared| sample(model, declared)).collect();
        SentenceDecoder::with_values(model, &values)
    }

    /// Reads the cross-attentions that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// As [`new`](Self::new), and those of [`read_tensors`].
    pub fn load(dir: &Path, model: &mut Model) -> Result<SentenceDecoder, ModelError> {
        let all = all_declared(model);
        let expected: Vec<(&str, &[usize])> = all.iter().map(|(name, shape, _)| (&name[..], &shape[..])).collect();
        SentenceDecoder::with_values(model, &read_tensors(dir, &expected)?)
    }

    fn with_values(model: &mut Model, values: &[Vec<f32>]) -> Result<SentenceDecoder, ModelError> {
        let architecture = model.architecture();
        let family = model.config().family().title;
        let fail = |problem: String| Err(ModelError::Config { path: None, problem });
        if architecture.distance_buckets.is_some() {
            return fail(format!(
                "{family} cannot be the decoder of a denoising auto-encoder: expected another family"
            ));
        }
        if architecture.causal {
            return fail("expected a model whose tokens attend to both sides, found a causal one".to_owned());
        }
        if !model.heads.mlm {
            return fail("the decoder of a denoising auto-encoder needs a language-model head".to_owned());
        }
        let all = all_declared(model);
        let named: Vec<(String, &[usize], &[f32])> = all
            .iter()
            .zip(values)
            .map(|((name, shape, _), values)| (format!("decoder.{name}"), &shape[..], &values[..]))
            .collect();
        let named: Vec<(&str, &[usize], &[f32])> =
            named.iter().map(|(name, shape, values)| (&name[..], *shape, *values)).collect();
        let ids = model.params.extend(&named);
        let layer = |ids: &[ParamId]| CrossAttention {
            value: [ids[0], ids[1]],
            output: [ids[2], ids[3]],
            norm: ids.get(4..6).map(|norm| [norm[0], norm[1]]),
        };
        Ok(SentenceDecoder { layers: ids.chunks(declared(model, 0).len()).map(layer).collect() })
    }

    /// Writes the cross-attentions to model.safetensors in the existing folder `dir`.
    ///
    /// # Errors
    /// [`ModelError::Write`].
    pub fn save(&self, dir: &Path, model: &ModelGraph, params: &Parameters) -> Result<(), ModelError> {
        let ids = self
            .layers
            .iter()
            .flat_map(|layer| [Some(layer.value), Some(layer.output), layer.norm].into_iter().flatten().flatten());
        let values: Vec<_> = ids.map(|id| params.read(id)).collect();
        let all = all_declared(model);
        let tensors: Vec<(&str, &[usize], &[f32])> =
            all.iter().zip(&values).map(|((name, shape, _), values)| (&name[..], &shape[..], &values[..])).collect();
        write_tensors(dir, &tensors)
    }

    /// The sum of −log p(token | earlier tokens of its text, vector) over all tokens of S texts except for the first tokens, and
    /// its gradient times `scale`, recorded in the pass. `vectors` is `[S, H]`: one for each text of `texts`, in order.
    pub fn loss(&self, model: &ModelGraph, pass: &mut Pass, texts: &Inputs, vectors: &Var, scale: f32) -> LossSum {
        // Each text without its last token is read, and without its first predicted.
        let (mut ids, mut segments, mut labels, mut sequences) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut ends = vec![0];
        for (number, range) in texts.cu_seqlens.windows(2).enumerate() {
            let (start, end) = (range[0] as usize, range[1] as usize);
            if end - start < 2 {
                continue;
            }
            ids.extend(&texts.ids[start..end - 1]);
            segments.extend(&texts.segments[start..end - 1]);
            labels.extend(&texts.ids[start + 1..end]);
            ends.push(labels.len() as i32);
            sequences.resize(labels.len(), number as i32);
        }
        if labels.is_empty() {
            return LossSum::default();
        }
        let inputs = Inputs::packed(ids, segments, &ends);
        let (bert, device) = (&model.bert, pass.device().clone());
        let packed = upload(&device, &inputs, bert.architecture.position_padding);
        let sequences = indices(&device, &sequences);
        // Pooled vectors are f32.
        let vectors = ops::cast(pass, vectors, pass.precision());
        let mut x = bert.embed(pass, &packed);
        for (number, attention) in self.layers.iter().enumerate() {
            let cross = Cross { attention: *attention, vectors: vectors.clone(), sequences: sequences.clone() };
            x = bert.decoder_layer(pass, &packed, number, &x, cross);
        }
        let labels = indices(&device, &labels);
        let features = bert.mlm_features(pass, &x);
        let loss = features.and_then(|features| bert.mlm_loss(pass, &features, &labels, scale));
        loss.expect("a decoder has a language-model head")
    }
}

#[cfg(test)]
mod tests {
    use cloze_engine::{DType, Gradients};

    use super::*;
    use crate::config::Config;
    use crate::heads::Heads;
    use crate::testing::{device, modern, small};

    /// Compares the loss and the gradients of all parameters with those of sentence-transformers; see
    /// `fixtures/denoising/make.py`.
    #[test]
    fn loss_and_gradients_equal_those_of_sentence_transformers() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/denoising");
        for name in ["bert", "roberta", "electra"] {
            let device = device();
            let mut model = Model::load(&fixtures.join(name), &device).unwrap();
            let decoder = SentenceDecoder::load(&fixtures.join(name).join("decoder"), &mut model).unwrap();
            let bytes = std::fs::read(fixtures.join(name).join("reference.safetensors")).unwrap();
            let reference = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            let words = |key: &str| reference.tensor(key).unwrap().data().as_chunks::<4>().0.to_vec();
            let integers = |key: &str| words(key).into_iter().map(i32::from_le_bytes).collect::<Vec<i32>>();
            let numbers = |key: &str| words(key).into_iter().map(f32::from_le_bytes).collect::<Vec<f32>>();
            let [damaged, texts] = ["damaged", "text"].map(|key| {
                let ids = integers(key);
                Inputs::packed(ids.clone(), vec![0; ids.len()], &integers(&format!("{key}.ends")))
            });
            let count = texts.tokens() - texts.sequences();

            let mut gradients = Gradients::zeros_like(&model.params);
            let mut pass = Pass::recording(&device, &model.params, &mut gradients, DType::F32, None);
            let states = model.hidden_states(&mut pass, &damaged, &[model.architecture().layers]).remove(0);
            let ends = indices(&device, &damaged.cu_seqlens);
            let vectors = ops::segment_mean(&mut pass, &states, &ends);
            let loss = decoder.loss(&model, &mut pass, &texts, &vectors, 1.0 / count as f32);
            pass.backward();
            assert_eq!(loss.count, count);
            let expected = f64::from(numbers("loss")[0]);
            assert!((loss.mean() - expected).abs() < 2e-6 * expected, "{name}: {}, expected {expected}", loss.mean());

            let largest = gradients.read_all().iter().fold(0f32, |largest, x| largest.max(x.abs()));
            let mut compared = 0;
            for id in model.params.ids() {
                let key = format!("grad.{}", model.params.name(id));
                let expected = numbers(&key);
                compared += 1;
                for (found, expected) in gradients.read(id).iter().zip(&expected) {
                    assert!((found - expected).abs() < 2e-6 * largest, "{name}: {key}: {found}, expected {expected}");
                }
            }
            let stored = reference.names().into_iter().filter(|key| key.starts_with("grad.")).count();
            assert_eq!(compared, stored, "{name}");
        }
    }

    #[test]
    fn a_decoder_is_saved_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let new = || Model::new(small(), Heads::MLM, &device(), 1).unwrap();
        let mut model = new();
        let decoder = SentenceDecoder::new(&mut model, 2).unwrap();
        decoder.save(dir.path(), &model, &model.params).unwrap();
        let mut again = new();
        SentenceDecoder::load(dir.path(), &mut again).unwrap();
        assert_eq!(model.params.read_all(), again.params.read_all());
        assert!(model.params.count() > new().params.count());
    }

    /// Of a network with norms before the blocks, which no other program has: a token's loss depends on the vector and on
    /// earlier tokens, not on later ones, and all parameters have a gradient.
    #[test]
    fn a_decoder_with_norms_before_the_blocks_is_causal_and_sees_the_vector() {
        let device = device();
        let mut config = modern();
        config.set_dropout(Some(0.0), Some(0.0));
        let mut model = Model::new(config, Heads::MLM, &device, 1).unwrap();
        let decoder = SentenceDecoder::new(&mut model, 2).unwrap();
        let width = model.architecture().hidden_size;
        let loss = |ids: &[u32], vector: f32| {
            let mut texts = Inputs::default();
            texts.push(ids, &vec![0; ids.len()]);
            let mut gradients = Gradients::zeros_like(&model.params);
            let mut pass = Pass::recording(&device, &model.params, &mut gradients, DType::F32, None);
            let vectors = device.tensor_f32(&vec![vector; width], &[1, width]);
            let vectors = pass.input(vectors);
            let loss = decoder.loss(&model, &mut pass, &texts, &vectors, 1.0).sum;
            pass.backward();
            (loss, gradients)
        };
        // The loss of the third token is the difference of the losses of two and three tokens, whatever follows.
        let third = |later: &[u32], vector: f32| {
            let all = [&[2, 9, 4], later].concat();
            loss(&all[..3], vector).0 - loss(&all[..2], vector).0
        };
        assert_eq!(third(&[7, 3], 1.0), third(&[30, 5], 1.0));
        let of_part = loss(&[2, 9, 4], 1.0).0;
        let [a, b] = [7, 30].map(|last| loss(&[2, 9, 4, last], 1.0).0 - of_part);
        assert!((a - b).abs() > 1e-4 && (third(&[3], 1.0) - third(&[3], -1.0)).abs() > 1e-4);
        let gradients = loss(&[2, 9, 4, 7, 3], 1.0).1;
        for id in model.params.ids().filter(|id| model.params.name(*id).starts_with("decoder.")) {
            assert!(gradients.read(id).iter().any(|x| *x != 0.0), "{}", model.params.name(id));
        }
    }

    #[test]
    fn models_that_cannot_decode_are_refused() {
        let error = |config, heads| {
            let mut model = Model::new(config, heads, &device(), 1).unwrap();
            SentenceDecoder::new(&mut model, 2).err().unwrap().to_string()
        };
        let mpnet = Config { model_type: "mpnet".to_owned(), type_vocab_size: 0, ..small() };
        let found = error(mpnet, Heads::MLM);
        assert!(found.contains("MPNet cannot be the decoder"), "{found}");
        let found = error(small(), Heads::NONE);
        assert!(found.contains("needs a language-model head"), "{found}");
    }
}
