//! Training steps of objectives: masked tokens and next sentences, next tokens, and two networks at once.

mod causal;
mod ranks;
mod replaced_tokens;

use cloze_comm::Communicator;
use cloze_data::TokenTable;
use cloze_data::batch::{Batch, BatchOptions, BatchSize, BatchSource, PairTask};
use cloze_data::shards::Documents;
use cloze_engine::{DType, Device};
use cloze_model::losses::{MLM, NSP};
use cloze_model::{Config, Heads, Model};
use cloze_text::{Special, Template};

use super::*;
use crate::batch::PretrainBatch;
use crate::recipe::{Optimizer, OptimizerKind};
use crate::step::{StepOutcome, Trainer};
use crate::window::Window;

const VOCABULARY: usize = 41;
const BERT: MaskedLm = MaskedLm { pairs: PairTask::Nsp };

fn device() -> Device {
    Device::cpu(Some(2)).unwrap()
}

/// Batches of sequences of at most 20 tokens, from sixteen documents whose tokens count up from different numbers.
fn sampled(objective: &impl Objective, sequences: usize, count: u64) -> Vec<Batch> {
    let sentence = |d: u32, s: u32| (0..5).map(|i| 5 + (d * 7 + s + i) % 36).collect();
    let documents = (0..16).map(|d| (0..6).map(|s| sentence(d, s)).collect()).collect();
    let special = Special { pad: 0, unk: 1, cls: 2, sep: 3, mask: 4 };
    let (template, continuation) = (Template::bert(2, 3), Some(vec![false; VOCABULARY]));
    let table = TokenTable { vocab_size: VOCABULARY, special, template, continuation };
    let mut options = BatchOptions::default();
    options.seq_len = 20;
    options.size = BatchSize::Sequences(sequences);
    let options = objective.batch_options(options);
    let source = BatchSource::new(Documents::from_memory(documents), table, options).unwrap();
    (0..count).map(|i| source.batch(i)).collect()
}

fn batches(sequences: usize, count: u64) -> Vec<PretrainBatch> {
    sampled(&BERT, sequences, count).into_iter().map(|batch| BERT.batch(batch)).collect()
}

fn config(dropout: f64) -> Config {
    let mut config = Config::default();
    config.vocab_size = VOCABULARY;
    config.hidden_size = 32;
    config.num_hidden_layers = 2;
    config.num_attention_heads = 2;
    config.intermediate_size = 48;
    config.max_position_embeddings = 20;
    config.hidden_dropout_prob = dropout;
    config.attention_probs_dropout_prob = dropout;
    config
}

fn trainer(dropout: f64, kind: OptimizerKind) -> Trainer<Model> {
    let model = Model::new(config(dropout), Heads::PRETRAINING, &device(), 3).unwrap();
    let optimizer = Optimizer { kind, ..Optimizer::default() };
    Trainer::new(model, &device(), DType::F32, &optimizer, 11, &Communicator::single())
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    let pairs = a.iter().zip(b);
    pairs.map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
}

fn loss(outcome: &StepOutcome) -> f64 {
    total(BERT.terms(), |name| outcome.update.losses.get(name).unwrap_or_default())
}

#[test]
fn accumulation_equals_a_large_batch() {
    let (mut large, mut small) = (trainer(0.0, OptimizerKind::BertAdamw), trainer(0.0, OptimizerKind::BertAdamw));
    let (one, four) = (batches(8, 1), batches(2, 4));
    let counts: Vec<usize> = four.iter().map(|batch| batch.labels.mlm_rows.len()).collect();
    assert_eq!(one[0].labels.mlm_rows.len(), counts.iter().sum::<usize>());
    assert!(counts.windows(2).any(|c| c[0] != c[1]), "micro-batches differ in predicted tokens: {counts:?}");
    let (a, b) = (
        train_step(&BERT, &mut large, &one, one.len(), 0, 1e-3),
        train_step(&BERT, &mut small, &four, four.len(), 0, 1e-3),
    );
    assert!((loss(&a) - loss(&b)).abs() < 1e-5 * loss(&a));
    let counts = |outcome: &StepOutcome| [MLM, NSP].map(|name| outcome.update.losses.get(name).unwrap().count);
    assert_eq!((a.tokens, counts(&a)), (b.tokens, counts(&b)));
    assert!((a.flops - b.flops).abs() < 1e-6 * a.flops);
    let scale = large.gradients().read_all().iter().fold(0f32, |m, g| m.max(g.abs()));
    let difference = largest_difference(&large.gradients().read_all(), &small.gradients().read_all());
    assert!(difference < 1e-5 * scale, "gradients differ by {difference} of {scale}");
    assert!((a.update.grad_norm - b.update.grad_norm).abs() < 1e-5 * a.update.grad_norm);
}

#[test]
fn a_batch_is_memorised_and_every_parameter_changes() {
    for (kind, ..) in OptimizerKind::ALL {
        // LAMB's rate is relative to the norms of the parameters.
        let lr = if kind == OptimizerKind::Lamb { 2e-2 } else { 3e-3 };
        let mut trainer = trainer(0.0, kind);
        let start = trainer.network.params.read_all().to_vec();
        let batch = batches(8, 1);
        let first = train_step(&BERT, &mut trainer, &batch, batch.len(), 0, lr);
        let mut last = first.clone();
        for step in 1..120 {
            last = train_step(&BERT, &mut trainer, &batch, batch.len(), step, lr);
        }
        let [first_mlm, mlm] = [&first, &last].map(|outcome| outcome.update.losses.get(MLM).unwrap());
        assert!(first_mlm.mean() > 3.0, "{first:?}");
        assert!(mlm.mean() < 0.3 && mlm.accuracy() > 0.95, "{kind:?}: {last:?}");
        assert!(last.update.losses.get(NSP).unwrap().accuracy() > 0.95, "{kind:?}: {last:?}");
        let (params, mut at) = (&trainer.network.params, 0);
        for id in params.ids() {
            let now = params.read(id);
            assert_ne!(now[..], start[at..at + now.len()], "{} did not change", params.name(id));
            at += now.len();
        }
    }
}

#[test]
fn steps_are_reproducible_and_dropout_differs_between_steps() {
    let run = |number: u64| {
        let mut trainer = trainer(0.1, OptimizerKind::BertAdamw);
        let outcome = train_step(&BERT, &mut trainer, &batches(4, 2), batches(4, 2).len(), number, 1e-3);
        (loss(&outcome), trainer.network.params.read_all().to_vec())
    };
    assert!(run(0) == run(0));
    assert_ne!(run(0).0, run(1).0);
}

#[test]
fn a_step_with_infinite_loss_changes_nothing() {
    let mut trainer = trainer(0.0, OptimizerKind::BertAdamw);
    trainer.network.params.edit_all(|values| values[300] = f32::NAN);
    let before: Vec<u32> = trainer.network.params.read_all().iter().map(|w| w.to_bits()).collect();
    let outcome = train_step(&BERT, &mut trainer, &batches(4, 1), batches(4, 1).len(), 0, 1e-3);
    assert!(!outcome.update.updated && trainer.updates == 0);
    let after: Vec<u32> = trainer.network.params.read_all().iter().map(|w| w.to_bits()).collect();
    assert!(before == after && trainer.moments.read_first(0..300).iter().all(|m| *m == 0.0));
    let mut window = Window::default();
    window.add(&outcome, 1e-3);
    assert!(window.is_empty());
}
