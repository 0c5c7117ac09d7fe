//! Steps and evaluations of a run that trains embeddings.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use cloze_engine::ops::LossSum;
use cloze_engine::{Device, DropoutKey, Pass};
use cloze_model::{Inputs, Losses};
use cloze_train::micro_batch::MicroBatch;
use cloze_train::step::{StepOutcome, Trainer};

use super::denoising::Damage;
use super::encoded::{EncodedText, EncodedTexts};
use super::losses::{Embeddings, Loss, Matryoshka, Outcome, Rows, Step};
use super::mined::{MinedNegatives, Miner};
use super::network::EmbeddingNetwork;
use super::scores::scores;
use crate::TaskError;
use crate::embed::search::Similarity;
use crate::embed::vectors::Vectors;
use crate::finetune::job::{Learner, TERMS};
use crate::forward::batches_of_tokens;
use crate::task::Scores;
use cloze_train::network::Network;

/// The rows of a run, and how they are learned.
pub(super) struct EmbedLearner<'r> {
    pub(super) train: &'r EncodedTexts,
    pub(super) dev: &'r EncodedTexts,
    pub(super) objective: Objective,
    /// Mines negatives in the run.
    pub(super) miner: Option<Miner>,
    /// Maximum number of tokens of a forward pass.
    pub(super) micro_tokens: usize,
    /// The dev rows of a step, for the dev loss.
    pub(super) batch: usize,
    /// The similarity of the dev scores.
    pub(super) similarity: Similarity,
}

/// What is minimised.
pub(super) enum Objective {
    /// A loss of the vectors of a step.
    Vectors(Matryoshka),
    /// A decoder's loss on the texts of a step, from the vectors of damaged copies.
    Denoising(Damage),
}

/// One forward pass of a step: the places of its texts among those of the step.
struct TextBatch {
    places: Vec<usize>,
    inputs: Inputs,
    excluded: usize,
}

impl EmbedLearner<'_> {
    /// The forward passes of texts: of similar lengths, and with equal prompts.
    fn text_batches(&self, rows: &EncodedTexts, texts: &[usize]) -> Vec<TextBatch> {
        let mut kinds: Vec<usize> = texts.iter().map(|&number| rows.texts[number].excluded).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let mut batches = Vec::new();
        for excluded in kinds {
            let of_kind: Vec<usize> =
                (0..texts.len()).filter(|&place| rows.texts[texts[place]].excluded == excluded).collect();
            let lengths: Vec<usize> =
                of_kind.iter().map(|&place| rows.texts[texts[place]].sequence.ids.len()).collect();
            for group in batches_of_tokens(&lengths, self.micro_tokens) {
                let mut inputs = Inputs::default();
                let places: Vec<usize> = group.into_iter().map(|member| of_kind[member]).collect();
                for &place in &places {
                    let sequence = &rows.texts[texts[place]].sequence;
                    inputs.push(&sequence.ids, &sequence.segments);
                }
                batches.push(TextBatch { places, inputs, excluded });
            }
        }
        batches
    }

    /// The loss of a step whose texts have these vectors, the anchors' first; derivatives in the same order.
    fn outcome(
        loss: &Matryoshka,
        network: &EmbeddingNetwork,
        device: &Device,
        step: &Step,
        vectors: &[f32],
    ) -> (Outcome, Vec<f32>) {
        let width = network.width();
        let (anchors, candidates) = vectors.split_at(step.anchors.len() * width);
        let embeddings = Embeddings { anchors: Rows::new(width, anchors), candidates: Rows::new(width, candidates) };
        let mut loss = loss.clone();
        if let (Loss::InfoNce(settings), Some(scale)) = (&mut loss.loss, network.scale()) {
            settings.scale = scale;
        }
        let mut outcome = loss.of(device, step, &embeddings);
        let mut derivatives = std::mem::take(&mut outcome.anchors);
        derivatives.append(&mut outcome.candidates);
        (outcome, derivatives)
    }
}

/// One forward pass of a denoising step: texts, and their damaged copies in the same order.
struct Denoising {
    damaged: Inputs,
    excluded: usize,
    texts: Inputs,
}

/// The vectors of texts, in their order. With a key, as the recording pass with that key will compute them. The ranks of a job share the
/// passes; all get all vectors. None if `stop` was set at one of them.
fn embed(
    trainer: &Trainer<EmbeddingNetwork>,
    batches: &[TextBatch],
    key: impl Fn(usize) -> Option<DropoutKey>,
    stop: Option<&AtomicBool>,
) -> Option<Vec<f32>> {
    let (network, ranks) = (&trainer.network, trainer.ranks());
    let width = network.width();
    let (mut own, mut is_stopped) = (Vec::new(), false);
    for number in ranks.part(batches.len()) {
        is_stopped = stop.is_some_and(|stop| stop.load(Ordering::Relaxed));
        if is_stopped {
            break;
        }
        let mut pass = Pass::inference(trainer.device(), network.params(), trainer.precision());
        if let Some(key) = key(number) {
            pass = pass.dropping(key);
        }
        let TextBatch { inputs, excluded, .. } = &batches[number];
        own.extend(network.embed(&mut pass, inputs, *excluded).value().to_vec_f32());
    }
    if ranks.any(is_stopped) {
        return None;
    }
    let count: usize = batches.iter().map(|batch| batch.places.len()).sum();
    let mut vectors = vec![0.0; count * width];
    let places: Vec<usize> = batches.iter().flat_map(|batch| &batch.places).copied().collect();
    scatter(&ranks.all_gather(&own).concat(), &places, width, &mut vectors);
    Some(vectors)
}

fn scatter(rows: &[f32], places: &[usize], width: usize, to: &mut [f32]) {
    for (row, place) in rows.chunks_exact(width).zip(places) {
        to[place * width..(place + 1) * width].copy_from_slice(row);
    }
}

impl Learner for EmbedLearner<'_> {
    type Network = EmbeddingNetwork;

    fn examples(&self) -> usize {
        self.train.len()
    }

    fn tokens(&self) -> [usize; 2] {
        [self.train.tokens(), self.dev.tokens()]
    }

    fn has_dev(&self) -> bool {
        !self.dev.is_empty()
    }

    fn learn(&self, trainer: &mut Trainer<EmbeddingNetwork>, chosen: &[usize], number: u64, lr: f64) -> StepOutcome {
        let begun = Instant::now();
        let mut outcome = match &self.objective {
            Objective::Vectors(loss) => self.learn_vectors(loss, trainer, chosen, number, lr),
            Objective::Denoising(damage) => self.learn_denoising(damage, trainer, chosen, number, lr),
        };
        // With mining and the passes before the recorded ones.
        outcome.update.seconds = begun.elapsed().as_secs_f64();
        outcome
    }

    fn evaluate(
        &self,
        trainer: &Trainer<EmbeddingNetwork>,
        stop: &AtomicBool,
    ) -> Result<Option<(f64, Scores)>, TaskError> {
        let (device, network) = (trainer.device(), &trainer.network);
        let all: Vec<usize> = (0..self.dev.texts.len()).collect();
        let batches = self.text_batches(self.dev, &all);
        let Some(vectors) = embed(trainer, &batches, |_| None, Some(stop)) else { return Ok(None) };
        if vectors.iter().any(|value| !value.is_finite()) {
            return Err(TaskError::Logits("the dev rows' vectors".to_owned()));
        }
        let width = network.width();
        let mut loss = LossSum::default();
        let rows: Vec<usize> = (0..self.dev.len()).collect();
        match &self.objective {
            Objective::Vectors(of_vectors) => {
                for chosen in rows.chunks(self.batch) {
                    let (step, texts) = self.dev.step(chosen, &MinedNegatives::default());
                    let of_step: Vec<f32> =
                        texts.iter().flat_map(|n| &vectors[n * width..(n + 1) * width]).copied().collect();
                    loss += Self::outcome(of_vectors, network, device, &step, &of_step).0.loss;
                }
            }
            Objective::Denoising(damage) => {
                // The same damage at each evaluation.
                for Denoising { damaged, excluded, texts } in self.denoising(damage, self.dev, &rows, u64::MAX) {
                    if trainer.ranks().any(stop.load(Ordering::Relaxed)) {
                        return Ok(None);
                    }
                    let mut pass = Pass::inference(device, network.params(), trainer.precision());
                    loss += network.denoise(&mut pass, &damaged, excluded, &texts, 0.0).unwrap_or_default();
                }
            }
        }
        let scores = scores(device, self.dev, &Vectors::new(width, vectors), self.similarity);
        Ok(Some((loss.mean(), scores)))
    }
}

impl EmbedLearner<'_> {
    /// The forward passes of a denoising step on some rows.
    fn denoising(&self, damage: &Damage, rows: &EncodedTexts, chosen: &[usize], step: u64) -> Vec<Denoising> {
        let texts: Vec<&EncodedText> = chosen.iter().map(|&row| &rows.texts[rows.anchor(row)]).collect();
        let lengths: Vec<usize> = texts.iter().map(|text| text.sequence.ids.len()).collect();
        let passes = batches_of_tokens(&lengths, self.micro_tokens).into_iter().map(|group| {
            let (mut damaged, mut originals) = (Inputs::default(), Inputs::default());
            for &place in &group {
                let text = texts[place];
                let copy = damage.of(&text.sequence, text.prompt, [step, chosen[place] as u64]);
                damaged.push(&copy.ids, &copy.segments);
                originals.push(&text.sequence.ids, &text.sequence.segments);
            }
            // All texts have one purpose.
            Denoising { damaged, excluded: texts[0].excluded, texts: originals }
        });
        passes.collect()
    }

    /// A step of a decoder's loss: the mean over all tokens of the step.
    fn learn_denoising(
        &self,
        damage: &Damage,
        trainer: &mut Trainer<EmbeddingNetwork>,
        chosen: &[usize],
        number: u64,
        lr: f64,
    ) -> StepOutcome {
        let passes = self.denoising(damage, self.train, chosen, number);
        let predicted: usize = passes.iter().map(|pass| pass.texts.tokens() - pass.texts.sequences()).sum();
        let scale = 1.0 / predicted.max(1) as f32;
        trainer.step(passes.len(), number, lr, |network, pass, key| {
            let Denoising { damaged, excluded, texts } = &passes[key.micro as usize];
            let mut losses = Losses::default();
            let loss = network.denoise(pass, damaged, *excluded, texts, scale);
            loss.into_iter().for_each(|loss| losses.add(TERMS[0].name, loss));
            MicroBatch { losses, tokens: (damaged.tokens() + texts.tokens()) as u64, flops: 0.0 }
        })
    }

    /// Mines the negatives of all training rows with the current model. With vectors that are not finite, those mined before
    /// stay; the step will report its loss.
    fn mine(&self, miner: &Miner, trainer: &mut Trainer<EmbeddingNetwork>) {
        let all: Vec<usize> = (0..self.train.texts.len()).collect();
        let batches = self.text_batches(self.train, &all);
        let vectors = embed(trainer, &batches, |_| None, None).unwrap_or_default();
        if let Ok(mined) = miner.mine(trainer.device(), &Vectors::new(trainer.network.width(), vectors)) {
            trainer.network.mined = mined;
        }
    }

    /// A step of a loss of vectors.
    fn learn_vectors(
        &self,
        loss: &Matryoshka,
        trainer: &mut Trainer<EmbeddingNetwork>,
        chosen: &[usize],
        number: u64,
        lr: f64,
    ) -> StepOutcome {
        if let Some(miner) = self.miner.as_ref().filter(|miner| number.is_multiple_of(miner.every)) {
            self.mine(miner, trainer);
        }
        let (step, texts) = self.train.step(chosen, &trainer.network.mined);
        let batches = self.text_batches(self.train, &texts);
        let width = trainer.network.width();
        // With several passes, the loss is computed before the first is recorded.
        let mut before = None;
        if batches.len() > 1 {
            let key = |micro| Some(trainer.key(number, micro));
            let vectors = embed(trainer, &batches, key, None).unwrap_or_default();
            before = Some(Self::outcome(loss, &trainer.network, trainer.device(), &step, &vectors));
        }
        trainer.step(batches.len(), number, lr, |network, pass, key| {
            let TextBatch { places, inputs, excluded } = &batches[key.micro as usize];
            let output = network.embed(pass, inputs, *excluded);
            let alone;
            let (outcome, derivatives) = match &before {
                Some(before) => before,
                None => {
                    let mut vectors = vec![0.0; places.len() * width];
                    scatter(&output.value().to_vec_f32(), places, width, &mut vectors);
                    alone = Self::outcome(loss, network, pass.device(), &step, &vectors);
                    &alone
                }
            };
            let own: Vec<f32> =
                places.iter().flat_map(|place| &derivatives[place * width..(place + 1) * width]).copied().collect();
            let gradient = pass.device().tensor_f32(&own, &[places.len(), width]);
            pass.seed_gradient(&output, gradient);
            let mut losses = Losses::default();
            if key.micro == 0 {
                network.seed_log_scale(pass, outcome.log_scale);
                losses.add(TERMS[0].name, outcome.loss);
            }
            MicroBatch { losses, tokens: inputs.tokens() as u64, flops: 0.0 }
        })
    }
}
