//! Steps that the ranks of a job share have the same bits for any number of ranks.

use cloze_engine::DType;
use cloze_testing::ranks;

use super::*;
use crate::exchange::Wire;
use crate::network::Network;

/// A network of several blocks of [`cloze_engine::Share`], some of whose weights are frozen.
fn wide() -> Model {
    let mut config = config(0.1);
    config.hidden_size = 64;
    config.intermediate_size = 160;
    let mut model = Model::new(config, Heads::PRETRAINING, &device(), 3).unwrap();
    let frozen = model.params.ids().nth(20).unwrap();
    model.params.set_rate(frozen, 0.0);
    model
}

/// The weights, moments, losses and norms after some steps of `count` micro-batches on `size` ranks, at each rank.
fn run(kind: OptimizerKind, count: usize, size: usize, wire: Wire, recompute: bool) -> Vec<(Vec<u32>, Vec<u64>)> {
    let all = batches(2, 3 * count as u64);
    ranks(size, |ranks| {
        let optimizer = Optimizer { kind, clip_norm: 0.5, ..Optimizer::default() };
        let device = Device::cpu(Some(1)).unwrap();
        let mut trainer = Trainer::new(wide(), &device, DType::F32, &optimizer, 11, ranks);
        trainer.wire = wire;
        trainer.recompute = recompute;
        let mut figures = Vec::new();
        for step in 0..3 {
            let part = ranks.part(count);
            let own = &all[step * count..][part];
            let StepOutcome { update, tokens, flops } = train_step(&BERT, &mut trainer, own, count, step as u64, 1e-2);
            assert!(update.updated);
            figures.extend([update.grad_norm.to_bits(), tokens, flops.to_bits()]);
            figures.extend(update.losses.iter().flat_map(|(_, loss)| [loss.sum.to_bits(), loss.count as u64]));
        }
        let weights = trainer.network.params().read_all().iter().map(|weight| weight.to_bits()).collect();
        (weights, figures)
    })
}

#[test]
fn a_step_has_the_same_bits_for_any_number_of_ranks() {
    for (kind, count, recompute) in [
        (OptimizerKind::Adamw, 4, false),
        (OptimizerKind::Adamw, 3, true),
        (OptimizerKind::Lamb, 5, false),
        (OptimizerKind::BertAdamw, 1, false),
    ] {
        let alone = run(kind, count, 1, Wire::F32, recompute).remove(0);
        for size in 2..=4 {
            for (rank, found) in run(kind, count, size, Wire::F32, recompute).into_iter().enumerate() {
                assert!(found == alone, "{kind:?}, {count} micro-batches, rank {rank} of {size}");
            }
        }
    }
}

/// bf16 between ranks: each rank's gradient is rounded once, to 8 bits.
#[test]
fn rounded_gradients_change_little() {
    let numbers = |bits: &[u32]| bits.iter().map(|bits| f32::from_bits(*bits)).collect::<Vec<_>>();
    let norm = |(_, figures): &(Vec<u32>, Vec<u64>)| f64::from_bits(figures[0]);
    let exact = run(OptimizerKind::Adamw, 4, 2, Wire::F32, false).remove(0);
    let rounded = run(OptimizerKind::Adamw, 4, 2, Wire::Bf16, false);
    assert!(rounded[0] == rounded[1], "all ranks have the same weights");
    let difference = (norm(&rounded[0]) - norm(&exact)).abs() / norm(&exact);
    assert!(difference > 0.0 && difference < 1.0 / 512.0, "the norm of the first gradient changes by {difference}");
    // Adam divides by the root of the second moment, so a weight moves by at most about the rate in each step.
    assert!(largest_difference(&numbers(&rounded[0].0), &numbers(&exact.0)) < 0.03);
}
