//! Replaced-token detection (Clark et al. 2020) on a small scale: a generator fills masked tokens, and a discriminator
//! predicts which tokens were replaced. A test of two networks that share embeddings, two losses, and sampling within a
//! step.

use std::fs;
use std::path::Path;

use cloze_data::batch::{Batch, BatchOptions, PairTask};
use cloze_engine::ops::{self, Activation, EmbedTables};
use cloze_engine::{DType, Device, DropoutKey, Init, ParamId, Parameters, Pass, Var};
use cloze_model::{Inputs, LoadReport, Losses};
use cloze_text::Tokenizer;

use super::{VOCABULARY, device, sampled};
use crate::TrainError;
use crate::batch::PretrainBatch;
use crate::checkpoint;
use crate::network::Network;
use crate::objective::{Objective, Start, Term, train_step};
use crate::recipe::Optimizer;
use crate::run::RunFolder;
use crate::step::Trainer;
use crate::window::Window;

const WIDTH: usize = 16;

/// Both networks in one arena, with shared embedding tables.
struct Pair {
    params: Parameters,
    tables: EmbedTables,
    generator: [ParamId; 2],
    vocabulary_bias: ParamId,
    discriminator: [ParamId; 2],
    original: [ParamId; 2],
}

impl Pair {
    fn new(device: &Device) -> Pair {
        let mut builder = Parameters::builder();
        let mut matrix =
            |name: &str, shape: [usize; 2]| builder.declare(name, &shape, Init::TruncatedNormal { std: 0.2 }, true);
        let tables = EmbedTables::new(
            matrix("word", [VOCABULARY, WIDTH]),
            matrix("position", [20, WIDTH]),
            Some(matrix("segment", [2, WIDTH])),
        );
        let (generator, discriminator) = (matrix("generator", [WIDTH, WIDTH]), matrix("discriminator", [WIDTH, WIDTH]));
        let original = matrix("original", [2, WIDTH]);
        let mut bias = |name: &str, size: usize| builder.declare(name, &[size], Init::Zeros, false);
        let generator = [generator, bias("generator.bias", WIDTH)];
        let vocabulary_bias = bias("vocabulary.bias", VOCABULARY);
        let discriminator = [discriminator, bias("discriminator.bias", WIDTH)];
        let original = [original, bias("original.bias", 2)];
        let params = builder.build(device, 5);
        Pair { params, tables, generator, vocabulary_bias, discriminator, original }
    }

    /// tanh(embedding·Wᵀ + b) of each token.
    fn states(&self, pass: &mut Pass<'_>, inputs: &Inputs, ids: &[i32], [weight, bias]: [ParamId; 2]) -> Var {
        let device = pass.device().clone();
        let tensor = |values: &[i32]| device.tensor_i32(values, &[values.len()]);
        let [ids, positions, segments] = [ids, &inputs.positions, &inputs.segments].map(tensor);
        let x = ops::embed(pass, &ids, &positions, &segments, self.tables);
        ops::linear(pass, &x, weight, Some(bias), Activation::Tanh)
    }
}

impl Network for Pair {
    fn params(&self) -> &Parameters {
        &self.params
    }

    fn params_mut(&mut self) -> &mut Parameters {
        &mut self.params
    }

    fn positions(&self) -> usize {
        20
    }

    fn load(dir: &Path, device: &Device) -> Result<Pair, TrainError> {
        let path = dir.join("weights");
        let bytes = fs::read(&path).map_err(|e| TrainError::io("read", &path, e))?;
        let mut pair = Pair::new(device);
        let weights: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
        pair.params.edit_all(|all| all.copy_from_slice(&weights));
        Ok(pair)
    }

    fn save(&self, dir: &Path) -> Result<(), TrainError> {
        let bytes: Vec<u8> = self.params.read_all().iter().flat_map(|weight| weight.to_le_bytes()).collect();
        let path = dir.join("weights");
        fs::write(&path, bytes).map_err(|e| TrainError::io("write", &path, e))
    }
}

struct ReplacedTokens;

const TERMS: [Term; 2] = [
    Term { name: "mlm", weight: 1.0, has_perplexity: true },
    Term { name: "rtd", weight: 50.0, has_perplexity: false },
];

impl Objective for ReplacedTokens {
    type Network = Pair;
    type Batch = PretrainBatch;

    fn terms(&self) -> &'static [Term] {
        &TERMS
    }

    fn batch_options(&self, mut options: BatchOptions) -> BatchOptions {
        options.pairs = PairTask::None;
        options
    }

    fn batch(&self, sampled: Batch) -> PretrainBatch {
        sampled.into()
    }

    fn inputs<'b>(&self, batch: &'b PretrainBatch) -> &'b Inputs {
        &batch.inputs
    }

    fn initial_network(&self, start: &Start<'_>) -> Result<(Pair, LoadReport), TrainError> {
        Ok((Pair::new(start.device), LoadReport::default()))
    }

    fn prepare(&self, _: &mut Pair) {}

    fn counts(&self, batch: &PretrainBatch) -> Vec<f64> {
        vec![batch.labels.mlm_rows.len() as f64, batch.inputs.tokens() as f64]
    }

    fn loss(&self, pair: &Pair, pass: &mut Pass<'_>, batch: &PretrainBatch, scales: &[f32], key: DropoutKey) -> Losses {
        let PretrainBatch { inputs, labels } = batch;
        let device = pass.device().clone();
        let tensor = |values: &[i32]| device.tensor_i32(values, &[values.len()]);

        let states = pair.states(pass, inputs, &inputs.ids, pair.generator);
        let chosen = ops::index_select(pass, &states, &tensor(&labels.mlm_rows));
        let (word, bias) = (pair.tables.word, pair.vocabulary_bias);
        let mlm = ops::linear_cross_entropy(pass, &chosen, word, bias, &tensor(&labels.mlm_labels), scales[0]);

        // The sampled tokens are constants for the gradient.
        let logits = pass.no_grad(|pass| ops::linear(pass, &chosen, word, Some(bias), Activation::None));
        let logits = logits.value().to_vec_f32();
        let (mut ids, mut replaced) = (inputs.ids.clone(), vec![0; inputs.tokens()]);
        for (number, (&row, &label)) in labels.mlm_rows.iter().zip(&labels.mlm_labels).enumerate() {
            let id = sample(&logits[number * VOCABULARY..][..VOCABULARY], key, number);
            ids[row as usize] = id;
            replaced[row as usize] = i32::from(id != label);
        }

        let states = pair.states(pass, inputs, &ids, pair.discriminator);
        let [weight, bias] = pair.original;
        let logits = ops::linear(pass, &states, weight, Some(bias), Activation::None);
        let rtd = ops::cross_entropy(pass, &logits, &tensor(&replaced), scales[1]);
        let mut losses = Losses::default();
        losses.add("mlm", mlm);
        losses.add("rtd", rtd);
        losses
    }

    fn flops(&self, _: &Pair, batch: &PretrainBatch) -> f64 {
        (12 * WIDTH * WIDTH * batch.inputs.tokens()) as f64
    }
}

/// Samples from softmax(logits): the largest logit after adding Gumbel noise, which is a function of the key and the
/// index.
fn sample(logits: &[f32], key: DropoutKey, number: usize) -> i32 {
    let noise = |index: usize| {
        let mut z = key.seed ^ key.step << 40 ^ u64::from(key.micro) << 32 ^ ((number * VOCABULARY + index) as u64);
        for constant in [0xBF58_476D_1CE4_E5B9u64, 0x94D0_49BB_1331_11EB] {
            z = (z ^ (z >> 30)).wrapping_add(0x9E37_79B9_7F4A_7C15).wrapping_mul(constant);
        }
        let uniform = ((z >> 40) as f64 + 0.5) / (1u64 << 24) as f64;
        -(-uniform.ln()).ln()
    };
    let noisy = |index: &usize| f64::from(logits[*index]) + noise(*index);
    (0..logits.len()).max_by(|a, b| noisy(a).total_cmp(&noisy(b))).unwrap_or_default() as i32
}

fn trainer() -> Trainer<Pair> {
    Trainer::new(Pair::new(&device()), &device(), DType::F32, &Optimizer::default(), 11)
}

fn batches(sequences: usize, count: u64) -> Vec<PretrainBatch> {
    sampled(&ReplacedTokens, sequences, count).into_iter().map(|batch| ReplacedTokens.batch(batch)).collect()
}

#[test]
fn both_networks_learn_and_the_log_has_both_losses() {
    let (mut trainer, batch) = (trainer(), batches(8, 1));
    let start = trainer.network.params.read_all().to_vec();
    let mut window = Window::new(&TERMS);
    let first = train_step(&ReplacedTokens, &mut trainer, &batch, 0, 1e-2);
    window.add(&first, 1e-2);
    let line = window.means(&TERMS, 1e9);
    let [mlm, rtd] = ["mlm", "rtd"].map(|name| line.losses.loss(name).unwrap());
    assert!((line.loss - (mlm + 50.0 * rtd)).abs() < 1e-9, "{line:?}");
    let text = serde_json::to_string(&line).unwrap();
    assert!(text.contains("\"mlm_loss\":") && text.contains("\"rtd_accuracy\":"), "{text}");

    let mut last = first.clone();
    for step in 1..200 {
        last = train_step(&ReplacedTokens, &mut trainer, &batch, step, 1e-2);
    }
    for (name, factor) in [("mlm", 0.9), ("rtd", 0.6)] {
        let [before, after] = [&first, &last].map(|outcome| outcome.update.losses.get(name).unwrap().mean());
        assert!(after < factor * before, "{name}: {before} → {after}");
    }
    let params = &trainer.network.params;
    let mut at = 0;
    for id in params.ids() {
        let now = params.read(id);
        assert_ne!(now[..], start[at..at + now.len()], "{} did not change", params.name(id));
        at += now.len();
    }
}

/// Sampled tokens depend only on the step and the micro-batch: a run that continues from a checkpoint samples the same
/// as an uninterrupted one.
#[test]
fn two_networks_resume_bit_identically() {
    let batch = batches(4, 2);
    let step = |trainer: &mut Trainer<Pair>, number: u64| {
        train_step(&ReplacedTokens, trainer, &batch, number, 1e-2).update.losses
    };
    let mut uninterrupted = trainer();
    let losses: Vec<Losses> = (0..3).map(|number| step(&mut uninterrupted, number)).collect();

    let dir = tempfile::tempdir().unwrap();
    let folder = RunFolder::new(dir.path());
    fs::create_dir(folder.checkpoints()).unwrap();
    let mut first = trainer();
    assert_eq!([step(&mut first, 0), step(&mut first, 1)], losses[..2]);
    let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"].map(str::to_owned);
    let tokenizer = Tokenizer::from_tokens(words.to_vec(), false).unwrap();
    let path = checkpoint::save(&folder, 2, &first.network, &first.moments, &tokenizer, &first.updates).unwrap();

    let loaded = checkpoint::load::<Pair, u64>(&path, &device()).unwrap();
    let mut second = Trainer::new(loaded.network, &device(), DType::F32, &Optimizer::default(), 11);
    (second.moments, second.updates) = (loaded.moments, loaded.state);
    assert_eq!(step(&mut second, 2), losses[2]);
    let bits =
        |trainer: &Trainer<Pair>| trainer.network.params.read_all().iter().map(|w| w.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&second), bits(&uninterrupted));
    assert_ne!(step(&mut trainer(), 7), losses[0], "another step samples other tokens");
}
