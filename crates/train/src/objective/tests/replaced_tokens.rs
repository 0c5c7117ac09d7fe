//! Replaced-token detection: two networks that share embeddings, two losses, and sampling within a step.

use std::fs;

use cloze_comm::Communicator;
use cloze_engine::DType;
use cloze_model::{Config, Losses, RtdPair};
use cloze_text::Tokenizer;

use super::{config, device, sampled};
use crate::batch::PretrainBatch;
use crate::checkpoint;
use crate::objective::{Objective, ReplacedTokens, train_step};
use crate::recipe::Optimizer;
use crate::run::RunFolder;
use crate::step::Trainer;
use crate::window::Window;

fn pair() -> RtdPair {
    let electra = |hidden: usize| {
        let mut config: Config = config(0.1);
        config.model_type = "electra".to_owned();
        config.embedding_size = Some(16);
        config.hidden_size = hidden;
        config
    };
    RtdPair::new(electra(8), electra(32), &device(), 5).unwrap()
}

fn trainer() -> Trainer<RtdPair> {
    Trainer::new(pair(), &device(), DType::F32, &Optimizer::default(), 11, &Communicator::single())
}

fn batches(sequences: usize, count: u64) -> Vec<PretrainBatch> {
    sampled(&ReplacedTokens, sequences, count).into_iter().map(|batch| ReplacedTokens.batch(batch)).collect()
}

#[test]
fn both_networks_learn_and_the_log_has_both_losses() {
    let (mut trainer, batch) = (trainer(), batches(8, 1));
    let start = trainer.network.params.read_all().to_vec();
    let mut window = Window::new(ReplacedTokens.terms());
    let first = train_step(&ReplacedTokens, &mut trainer, &batch, batch.len(), 0, 1e-2);
    window.add(&first, 1e-2);
    let line = window.means(ReplacedTokens.terms(), 1e9);
    let [mlm, rtd] = ["mlm", "rtd"].map(|name| line.losses.loss(name).unwrap());
    assert!((line.loss - (mlm + 50.0 * rtd)).abs() < 1e-9, "{line:?}");
    let text = serde_json::to_string(&line).unwrap();
    assert!(text.contains("\"mlm_loss\":") && text.contains("\"rtd_accuracy\":"), "{text}");

    let mut last = first.clone();
    for step in 1..200 {
        last = train_step(&ReplacedTokens, &mut trainer, &batch, batch.len(), step, 1e-2);
    }
    for (name, factor) in [("mlm", 0.9), ("rtd", 0.9)] {
        let [before, after] = [&first, &last].map(|outcome| outcome.update.losses.get(name).unwrap().mean());
        assert!(after < factor * before, "{name}: {before} → {after}");
    }
    let params = &trainer.network.params;
    let mut at = 0;
    for id in params.ids() {
        let now = params.read(id);
        // A key's bias has no gradient.
        let is_key = params.name(id).ends_with("key.bias");
        assert!(is_key || now[..] != start[at..at + now.len()], "{} did not change", params.name(id));
        at += now.len();
    }
}

/// Sampled tokens depend only on the step and the micro-batch: a run that continues from a checkpoint samples the same
/// as an uninterrupted one.
#[test]
fn two_networks_resume_bit_identically() {
    let batch = batches(4, 2);
    let step = |trainer: &mut Trainer<RtdPair>, number: u64| {
        train_step(&ReplacedTokens, trainer, &batch, batch.len(), number, 1e-2).update.losses
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
    let path = checkpoint::save(&folder, 2, &first, &tokenizer, &first.updates).unwrap();

    let loaded = checkpoint::load::<RtdPair, u64>(&path, &device(), cloze_engine::Share::WHOLE).unwrap();
    let mut second =
        Trainer::new(loaded.network, &device(), DType::F32, &Optimizer::default(), 11, &Communicator::single());
    (second.moments, second.updates) = (loaded.moments, loaded.state);
    assert_eq!(step(&mut second, 2), losses[2]);
    let bits =
        |trainer: &Trainer<RtdPair>| trainer.network.params.read_all().iter().map(|w| w.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&second), bits(&uninterrupted));
    assert_ne!(step(&mut trainer(), 7), losses[0], "another step samples other tokens");
}
