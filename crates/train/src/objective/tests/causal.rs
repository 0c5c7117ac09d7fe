//! Next-token prediction: which tokens are predicted, and that the loss is −log p of each, given the tokens before it.

use cloze_comm::Communicator;
use cloze_engine::{DropoutKey, Gradients, Pass};
use cloze_model::losses::CLM;

use super::*;

#[test]
fn every_next_token_of_each_sequence_is_predicted() {
    let sampled = sampled(&CausalLm, 3, 1).remove(0);
    assert!(sampled.mlm_rows.is_empty() && !sampled.ids.contains(&4), "nothing is masked");
    let (ids, ends) = (sampled.ids.clone(), sampled.cu_seqlens.clone());
    let PretrainBatch { inputs, labels } = CausalLm.batch(sampled);
    assert_eq!(inputs.ids, ids, "the input is not changed");
    let mut expected = Vec::new();
    for pair in ends.windows(2) {
        expected.extend((pair[0]..pair[1] - 1).map(|row| (row, ids[row as usize + 1])));
    }
    assert_eq!(labels.mlm_rows.iter().copied().zip(labels.mlm_labels.iter().copied()).collect::<Vec<_>>(), expected);
    assert_eq!(expected.len(), inputs.tokens() - inputs.sequences());
    assert!(expected.iter().any(|(_, next)| *next == 3), "the last token is predicted");
}

fn model() -> Model {
    Model::new(config(0.0).causal(), Heads::MLM, &device(), 3).unwrap()
}

fn batch() -> PretrainBatch {
    CausalLm.batch(sampled(&CausalLm, 3, 1).remove(0))
}

/// Computes Σ −log p of every next token in f64 from the logits of each separate prefix, which cannot depend on later
/// tokens.
#[test]
fn the_loss_is_minus_log_p_of_each_next_token() {
    let (model, batch) = (model(), batch());
    let (mut expected, mut correct) = (0.0, 0);
    for pair in batch.inputs.cu_seqlens.windows(2) {
        let ids: Vec<u32> = batch.inputs.ids[pair[0] as usize..pair[1] as usize].iter().map(|&id| id as u32).collect();
        for length in 1..ids.len() {
            let mut prefix = cloze_model::Inputs::default();
            prefix.push(&ids[..length], &vec![0; length]);
            let mut pass = Pass::inference(&device(), &model.params, DType::F32);
            let logits = model.mlm_logits(&mut pass, &prefix, &[length as i32 - 1]).unwrap();
            let logits: Vec<f64> = logits.value().to_vec_f32().into_iter().map(f64::from).collect();
            let next = ids[length] as usize;
            expected += logits.iter().map(|logit| logit.exp()).sum::<f64>().ln() - logits[next];
            correct += usize::from(logits.iter().all(|logit| *logit <= logits[next]));
        }
    }
    let mut pass = Pass::inference(&device(), &model.params, DType::F32);
    let key = DropoutKey::default();
    let losses = CausalLm.loss(&model, &mut pass, &batch, &[1.0], key);
    let found = losses.get(CLM).unwrap();
    assert_eq!((found.count, found.correct), (batch.labels.mlm_rows.len(), correct));
    assert!((found.sum - expected).abs() < 1e-5 * expected, "{} and {expected}", found.sum);
    assert_eq!(losses.iter().count(), 1);
}

/// Compares the gradient of the mean loss with central differences along random directions.
#[test]
fn the_gradient_matches_central_differences() {
    let (mut model, batch) = (model(), batch());
    let scale = 1.0 / CausalLm.counts(&batch)[0] as f32;
    let mut gradients = Gradients::zeros_like(&model.params);
    let mut pass = Pass::recording(&device(), &model.params, &mut gradients, DType::F32, None);
    CausalLm.loss(&model, &mut pass, &batch, &[scale], DropoutKey::default());
    pass.backward();
    let gradient = gradients.read_all().to_vec();
    let start = model.params.read_all().to_vec();
    let mut state = 9u64;
    for _ in 0..4 {
        let direction: Vec<f32> = start
            .iter()
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
            })
            .collect();
        let mut mean_at = |step: f32| {
            model.params.edit_all(|values| {
                for ((value, start), direction) in values.iter_mut().zip(&start).zip(&direction) {
                    *value = start + step * direction;
                }
            });
            let mut pass = Pass::inference(&device(), &model.params, DType::F32);
            CausalLm.loss(&model, &mut pass, &batch, &[1.0], DropoutKey::default()).get(CLM).unwrap().mean()
        };
        let step = 1e-3;
        let difference = (mean_at(step) - mean_at(-step)) / f64::from(2.0 * step);
        let expected: f64 = gradient.iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
        assert!((difference - expected).abs() < 1e-2 * expected.abs() + 1e-3, "{difference} and {expected}");
    }
}

#[test]
fn next_tokens_are_memorised() {
    let optimizer = Optimizer { kind: OptimizerKind::Adamw, ..Optimizer::default() };
    let mut trainer = Trainer::new(model(), &device(), DType::F32, &optimizer, 11, &Communicator::single());
    let batch = [batch()];
    let first = train_step(&CausalLm, &mut trainer, &batch, batch.len(), 0, 3e-3).update.losses.get(CLM).unwrap();
    assert!((first.mean() - (VOCABULARY as f64).ln()).abs() < 0.2, "{first:?}");
    let last =
        (1..150).map(|step| train_step(&CausalLm, &mut trainer, &batch, batch.len(), step, 3e-3)).last().unwrap();
    // The first words of a document cannot be predicted from [CLS].
    assert!(last.update.losses.get(CLM).unwrap().mean() < 0.4, "{last:?}");
}
