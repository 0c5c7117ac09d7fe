//! Log-likelihoods of sentences.
//!
//! A causal language model gives the log-likelihood: Σ log p(wₜ | w₁ … wₜ₋₁), where the first token is predicted from
//! `[CLS]`. A masked language model has none; its pseudo-log-likelihood is Σ log p(wₜ | all other tokens), with one copy
//! of the sentence for each token, in which this token is masked (Salazar et al. 2020, "Masked Language Model Scoring").
//! That overestimates words of several tokens, because a word's first token is nearly certain if the others are visible.
//! Therefore [`word-l2r`](PseudoLikelihood::WordL2r) also masks the later tokens of the same word (Kauf & Ivanova 2023,
//! "A Better Way to Do Masked Language Model Scoring").
//!
//! Only the tokens of the text are scored, not the special tokens around it; `[UNK]` counts as a token of the text.

use std::sync::Arc;

use cloze_model::Inputs;
use cloze_text::Sequence;

use crate::TaskError;
use crate::forward::BATCH_TOKENS;
use crate::inference::pretrained::Pretrained;
use crate::parallel;

/// Maximal number of logits of a batch: 128 MiB in f32.
const BATCH_LOGITS: usize = 1 << 25;

/// What is masked to predict a token of a sentence with a masked language model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PseudoLikelihood {
    /// The token and the later tokens of its word.
    #[default]
    WordL2r,
    /// Only the token.
    Pll,
}

impl PseudoLikelihood {
    /// All of them, with the name and what it means.
    pub const ALL: [(PseudoLikelihood, &'static str, &'static str); 2] = [
        (
            PseudoLikelihood::WordL2r,
            "word-l2r",
            "Mask each token and the later tokens of its word (Kauf & Ivanova 2023)",
        ),
        (PseudoLikelihood::Pll, "pll", "Mask only the token (Salazar et al. 2020)"),
    ];
}

/// How sentences are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// By pseudo-log-likelihood, with a masked language model.
    Masked(PseudoLikelihood),
    /// By log-likelihood, with a causal language model.
    Causal,
}

impl Method {
    /// The name in outputs: `word-l2r`, `pll` or `likelihood`.
    pub fn name(self) -> &'static str {
        match self {
            Method::Masked(kind) => {
                PseudoLikelihood::ALL.iter().find(|(known, ..)| *known == kind).map_or("", |(_, name, _)| name)
            }
            Method::Causal => "likelihood",
        }
    }
}

/// A model that scores sentences.
pub struct Scorer {
    model: Arc<Pretrained>,
    method: Method,
}

/// A tokenized sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// With special tokens.
    sequence: Sequence,
    /// The position of the first token of the text.
    start: usize,
    /// `[T]` for each token of the text, the position one past the end of its word.
    word_ends: Vec<usize>,
}

impl Sentence {
    /// Number of scored tokens.
    pub fn tokens(&self) -> usize {
        self.word_ends.len()
    }
}

/// A forward pass of one sentence that predicts some of its tokens.
struct Prediction<'a> {
    sentence: usize,
    sequence: &'a Sequence,
    /// The positions that are masked.
    masked: std::ops::Range<usize>,
    /// The positions that predict, and the ids that they predict.
    targets: Vec<(usize, u32)>,
}

impl Scorer {
    /// A model with its method: by log-likelihood if it is a causal language model, otherwise by `pseudo`-log-likelihood
    /// (by default [`PseudoLikelihood::WordL2r`]).
    ///
    /// # Errors
    /// [`TaskError::Folder`] for a model without the language-model head; [`TaskError::Setting`] if `pseudo` is given for a
    /// causal language model.
    pub fn new(model: Arc<Pretrained>, pseudo: Option<PseudoLikelihood>) -> Result<Scorer, TaskError> {
        if !model.model.heads.mlm {
            let problem = format!(
                "expected a masked or causal language model, found a {} without that head",
                model.model.class_name()
            );
            return Err(TaskError::Folder { path: model.dir().to_owned(), problem });
        }
        let method = match (model.model.architecture().causal, pseudo) {
            (true, None) => Method::Causal,
            (true, Some(_)) => {
                let problem = "a causal language model scores by log-likelihood; leave it out";
                return Err(TaskError::setting("score", problem));
            }
            (false, pseudo) => Method::Masked(pseudo.unwrap_or_default()),
        };
        Ok(Scorer { model, method })
    }

    /// How sentences are scored.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Tokenizes a sentence.
    ///
    /// # Errors
    /// [`TaskError::Input`] for a sentence without tokens; [`TaskError::TooLong`] for one with more tokens than the model
    /// has positions.
    pub fn encode(&self, text: &str) -> Result<Sentence, TaskError> {
        let template = self.model.tokenizer.template();
        let (ids, words): (Vec<u32>, Vec<u32>) = self.model.tokenizer.encode_with_words(text).into_iter().unzip();
        if ids.is_empty() {
            return Err(TaskError::input("sentence", "has no tokens"));
        }
        let (sequence, start) = (template.sequence(&ids, None), template.start_of_first(false));
        let (found, positions) = (sequence.ids.len(), self.model.model.architecture().max_sequence_length());
        if found > positions {
            return Err(TaskError::TooLong { found, positions });
        }
        let end_of = |at: usize| at + words[at..].iter().take_while(|word| **word == words[at]).count();
        let word_ends = (0..ids.len()).map(|at| start + end_of(at)).collect();
        Ok(Sentence { sequence, start, word_ends })
    }

    /// The (pseudo-)log-likelihood of each sentence in nats. Many sentences are computed in one pass. `progress` receives
    /// the completed fraction.
    ///
    /// # Errors
    /// [`TaskError::Logits`] if the model's logits are not finite.
    pub fn score(&self, sentences: &[Sentence], progress: &mut dyn FnMut(f64)) -> Result<Vec<f64>, TaskError> {
        let vocabulary = self.model.model.architecture().vocab_size;
        let total: usize = sentences.iter().map(|sentence| self.cost(sentence)).sum();
        let (mut scores, mut done) = (vec![0.0; sentences.len()], 0);
        let mut waiting = sentences.iter().enumerate().flat_map(|(number, s)| self.predictions(number, s)).peekable();
        while waiting.peek().is_some() {
            let (mut batch, mut tokens, mut rows) = (Vec::new(), 0, 0);
            while let Some(next) = waiting.next_if(|next: &Prediction<'_>| {
                tokens += next.sequence.ids.len();
                rows += next.targets.len();
                batch.is_empty() || tokens <= BATCH_TOKENS && rows.saturating_mul(vocabulary) <= BATCH_LOGITS
            }) {
                done += next.sequence.ids.len();
                batch.push(next);
            }
            self.add(&batch, &mut scores);
            progress(done as f64 / total.max(1) as f64);
        }
        match scores.iter().position(|score| !score.is_finite()) {
            Some(number) => Err(TaskError::Logits(format!("sentence {}", number + 1))),
            None => Ok(scores),
        }
    }

    /// The tokens of all passes over a sentence.
    fn cost(&self, sentence: &Sentence) -> usize {
        let passes = if self.method == Method::Causal { 1 } else { sentence.tokens() };
        passes * sentence.sequence.ids.len()
    }

    /// The passes over a sentence.
    fn predictions<'a>(&self, number: usize, sentence: &'a Sentence) -> Vec<Prediction<'a>> {
        let Sentence { sequence, start, word_ends } = sentence;
        let positions = *start..start + word_ends.len();
        let pass = |masked, targets| Prediction { sentence: number, sequence, masked, targets };
        match self.method {
            Method::Causal => vec![pass(0..0, positions.map(|at| (at - 1, sequence.ids[at])).collect())],
            Method::Masked(kind) => positions
                .zip(word_ends)
                .map(|(at, word_end)| {
                    let end = if kind == PseudoLikelihood::Pll { at + 1 } else { *word_end };
                    pass(at..end, vec![(at, sequence.ids[at])])
                })
                .collect(),
        }
    }

    /// Runs one batch, and adds the log-probability of each predicted token to its sentence's score.
    fn add(&self, batch: &[Prediction<'_>], scores: &mut [f64]) {
        let mask = self.model.tokenizer.special().mask;
        let (mut inputs, mut rows, mut targets) = (Inputs::default(), Vec::new(), Vec::new());
        for prediction in batch {
            let base = inputs.tokens();
            let Sequence { ids, segments } = prediction.sequence;
            let mut ids = ids.clone();
            ids[prediction.masked.clone()].fill(mask);
            inputs.push(&ids, segments);
            for &(at, id) in &prediction.targets {
                rows.push((base + at) as i32);
                targets.push((prediction.sentence, id as usize));
            }
        }
        let logits = self.model.forward(|model, pass| {
            let logits = model.mlm_logits(pass, &inputs, &rows);
            logits.map(|logits| logits.value().to_vec_f32()).unwrap_or_default()
        });
        let width = logits.len() / rows.len().max(1);
        let predicted: Vec<(&[f32], usize)> =
            logits.chunks(width.max(1)).zip(&targets).map(|(logits, (_, id))| (logits, *id)).collect();
        let threads = self.model.device.threads();
        let log_probabilities = parallel::map(&predicted, threads, |(logits, id)| log_probability(logits, *id));
        for ((sentence, _), log_probability) in targets.iter().zip(log_probabilities) {
            scores[*sentence] += log_probability;
        }
    }
}

/// log softmax(logits) at `id`, in f64.
fn log_probability(logits: &[f32], id: usize) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&logit| (f64::from(logit) - max).exp()).sum();
    f64::from(logits[id]) - max - sum.ln()
}
