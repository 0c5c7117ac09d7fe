//! An open model with its tasks.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use cloze_engine::Device;
use cloze_model::{Config, Layout, Model, TaskHead};
use cloze_tasks::embed::prompts::{Prompt, Purpose};
use cloze_tasks::embed::{Embedder, Options};
use cloze_tasks::example::{Example, Target};
use cloze_tasks::inference::Precision;
use cloze_tasks::inference::predictor::kind_of;
use cloze_tasks::kinds::{self, Kind};
use cloze_tasks::pipelines::{
    FillMask, QuestionAnswering, TextClassification, TokenClassification, ZeroShotClassification,
};
use cloze_tasks::rerank::{self, CrossEncoder};
use cloze_tasks::{NextSentence, Output, Predictor, Pretrained, TaskError, TaskOptions};
use cloze_text::Tokenizer;

use super::task::Task;
use crate::failure::{Failure, Reason};
use crate::scheduler::cost::Cost;

/// The number of tokens of the first batch, from which the cost of a token is estimated.
const FIRST_TOKENS: usize = 64;
/// Maximum number of prompts and directions for which an embedder is kept.
const MAX_EMBEDDERS: usize = 64;

/// How a model is opened.
#[derive(Debug, Clone, PartialEq)]
pub struct Opening {
    /// The precision of models that embed and of rerankers, whose numbers are compared with other programs'.
    pub vectors: Precision,
    /// That of other models.
    pub others: Precision,
    /// Maximum number of tokens of a sequence; none: the folder's.
    pub max_len: Option<usize>,
    /// The name of the prompt before each text; none: the folder's default.
    pub prompt: Option<String>,
}

impl Default for Opening {
    /// As `cloze serve` opens models without options.
    fn default() -> Opening {
        Opening { vectors: Precision::F32, others: Precision::default(), max_len: None, prompt: None }
    }
}

/// What distinguishes an embedder of the same model.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Variant {
    prompt: Option<String>,
    truncate_left: Option<bool>,
}

/// An open model with its tasks.
pub struct Served {
    /// The name in requests.
    pub name: String,
    /// Its folder.
    pub dir: PathBuf,
    /// The model.
    pub model: Arc<Pretrained>,
    /// What a token costs.
    pub cost: Arc<Cost>,
    /// When it was opened.
    pub opened: SystemTime,
    /// How long that took.
    pub took: Duration,
    /// How many times a model of this name was opened before, plus one.
    pub version: u64,
    /// The state of its files when it was opened.
    pub fingerprint: Fingerprint,
    opening: Opening,
    embedders: Option<Mutex<HashMap<Variant, Arc<Embedder>>>>,
    predictor: Option<Predictor>,
    cross_encoder: Option<CrossEncoder>,
    text_classification: Option<TextClassification>,
    token_classification: Option<TokenClassification>,
    question_answering: Option<QuestionAnswering>,
    fill_mask: Option<FillMask>,
    zero_shot: Option<ZeroShotClassification>,
    next_sentence: Option<NextSentence>,
    tasks: Vec<Task>,
}

impl Served {
    /// Opens a model's folder, or a sentence-transformers folder.
    ///
    /// # Errors
    /// Those of [`Pretrained::open`] and of the model's tasks.
    pub fn open(name: &str, dir: &Path, device: &Device, opening: &Opening, version: u64) -> Result<Served, TaskError> {
        let begin = Instant::now();
        let fingerprint = Fingerprint::of(dir);
        let folder = Layout::of(dir)?.model;
        let folder = if dir.join("config.json").is_file() { dir.to_owned() } else { folder };
        let model = Model::load(&folder, device)?;
        let compares = is_scorer(&model) || (model.heads.task.is_none() && !model.heads.mlm);
        let precision = if compares { opening.vectors } else { opening.others };
        let model = Pretrained::new(model, Tokenizer::open(&folder)?, device.clone(), precision, &folder)?;
        let kind = match model.model.heads.task {
            Some(_) => Some(kind_of(&model, None)?.0),
            None => None,
        };
        let is_encoder = kind.is_none() && !model.model.architecture().causal;
        let model = Arc::new(model);
        let mut tasks = Vec::new();
        let embedders = match is_encoder {
            true => {
                let none = Variant { prompt: None, truncate_left: None };
                let embedder = embedder(&model, dir, opening, &none)?;
                tasks.extend([Task::Embed, Task::TokenEmbed, Task::Similarity]);
                Some(Mutex::new(HashMap::from([(none, Arc::new(embedder))])))
            }
            false => None,
        };
        let cross_encoder = match kind {
            Some(_) if is_scorer(&model.model) => {
                let mut options = rerank::Options::default();
                options.max_len = opening.max_len;
                let cross_encoder = CrossEncoder::new(Arc::clone(&model), dir, &options)?;
                tasks.push(Task::Rerank);
                Some(cross_encoder)
            }
            _ => None,
        };
        let predictor = match kind {
            Some(kind) if cross_encoder.is_none() || *kind != kinds::rerank::KIND => {
                let mut given = TaskOptions::default();
                given.settings.max_len = opening.max_len;
                given.threads = device.threads();
                tasks.extend(task_of(kind));
                Some(Predictor::new(Arc::clone(&model), Some(kind), given)?)
            }
            _ => None,
        };
        let fill_mask = FillMask::new(Arc::clone(&model)).ok();
        tasks.extend(fill_mask.is_some().then_some(Task::FillMask));
        let has = |names: &[&str]| kind.is_some_and(|kind| names.contains(&kind.name()));
        // A fine-tuned model that does not fit its pipeline still predicts as its kind does.
        let text_classification = match has(&["classify", "multi-label", "regress", "rerank"]) {
            true => TextClassification::new(Arc::clone(&model)).ok(),
            false => None,
        };
        let token_classification = TokenClassification::new(Arc::clone(&model)).ok();
        let question_answering = QuestionAnswering::new(Arc::clone(&model)).ok();
        let zero_shot = match has(&["classify"]) && is_inference_of_language(model.model.config()) {
            true => ZeroShotClassification::new(Arc::clone(&model)).ok(),
            false => None,
        };
        tasks.extend(zero_shot.is_some().then_some(Task::ZeroShot));
        let next_sentence = NextSentence::new(Arc::clone(&model)).ok();
        tasks.extend(next_sentence.is_some().then_some(Task::NextSentence));
        tasks.push(Task::Attention);
        tasks.sort();
        let cost = Arc::new(first_cost(&model));
        Ok(Served {
            name: name.to_owned(),
            dir: dir.to_owned(),
            cost,
            opened: SystemTime::now(),
            took: begin.elapsed(),
            version,
            fingerprint,
            opening: opening.clone(),
            embedders,
            predictor,
            cross_encoder,
            text_classification,
            token_classification,
            question_answering,
            fill_mask,
            zero_shot,
            next_sentence,
            tasks,
            model,
        })
    }

    /// Its tasks.
    pub fn tasks(&self) -> &[Task] {
        &self.tasks
    }

    /// The names of its labels; empty if it has none.
    pub fn labels(&self) -> Vec<String> {
        match self.model.model.heads.task {
            Some(head) => self
                .model
                .model
                .config()
                .labels()
                .unwrap_or_else(|| (0..head.logits()).map(|number| format!("LABEL_{number}")).collect()),
            None => Vec::new(),
        }
    }

    /// Maximum number of tokens of a sequence.
    pub fn max_len(&self) -> usize {
        if let Some(embedder) = self.default_embedder() {
            return embedder.max_len(Purpose::Text);
        }
        if let Some(cross_encoder) = &self.cross_encoder {
            return cross_encoder.max_len();
        }
        let positions = self.model.model.architecture().max_sequence_length();
        self.predictor.as_ref().map_or(positions, |predictor| predictor.reading().max_len())
    }

    /// The embedder with the default prompt.
    pub fn default_embedder(&self) -> Option<Arc<Embedder>> {
        self.embedder(None, None).ok()
    }

    /// The embedder with this prompt of the folder.
    ///
    /// # Errors
    /// A model that does not embed; the name of a prompt that the folder does not have.
    pub fn embedder(&self, prompt: Option<&str>, truncate_left: Option<bool>) -> Result<Arc<Embedder>, Failure> {
        let embedders = self.embedders.as_ref().ok_or_else(|| self.lacks(Task::Embed))?;
        let variant = Variant { prompt: prompt.map(str::to_owned), truncate_left };
        let mut known = embedders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(&variant) {
            return Ok(Arc::clone(found));
        }
        let made = Arc::new(embedder(&self.model, &self.dir, &self.opening, &variant)?);
        if known.len() < MAX_EMBEDDERS {
            known.insert(variant, Arc::clone(&made));
        }
        Ok(made)
    }

    /// The predictor of its task.
    ///
    /// # Errors
    /// A model without this task.
    pub fn predictor(&self, task: Task) -> Result<&Predictor, Failure> {
        self.predictor.as_ref().filter(|_| self.tasks.contains(&task)).ok_or_else(|| self.lacks(task))
    }

    /// The predictor of whatever task it was fine-tuned for, if it was.
    pub fn any_predictor(&self) -> Option<&Predictor> {
        self.predictor.as_ref()
    }

    /// The cross-encoder.
    ///
    /// # Errors
    /// A model that is none.
    pub fn cross_encoder(&self) -> Result<&CrossEncoder, Failure> {
        self.cross_encoder.as_ref().ok_or_else(|| self.lacks(Task::Rerank))
    }

    /// The pipeline of labels of texts.
    ///
    /// # Errors
    /// A model without this task.
    pub fn text_classification(&self) -> Result<&TextClassification, Failure> {
        self.text_classification.as_ref().ok_or_else(|| self.lacks(Task::Classify))
    }

    /// The pipeline of labels of tokens.
    ///
    /// # Errors
    /// A model without this task.
    pub fn token_classification(&self) -> Result<&TokenClassification, Failure> {
        self.token_classification.as_ref().ok_or_else(|| self.lacks(Task::Tag))
    }

    /// The pipeline of answers to questions.
    ///
    /// # Errors
    /// A model without this task.
    pub fn question_answering(&self) -> Result<&QuestionAnswering, Failure> {
        self.question_answering.as_ref().ok_or_else(|| self.lacks(Task::Answer))
    }

    /// The pipeline of masks.
    ///
    /// # Errors
    /// A model without this task.
    pub fn fill_mask(&self) -> Result<&FillMask, Failure> {
        self.fill_mask.as_ref().ok_or_else(|| self.lacks(Task::FillMask))
    }

    /// The pipeline of labels that the model was not trained for.
    ///
    /// # Errors
    /// A model without this task.
    pub fn zero_shot(&self) -> Result<&ZeroShotClassification, Failure> {
        self.zero_shot.as_ref().ok_or_else(|| self.lacks(Task::ZeroShot))
    }

    /// Next-sentence prediction.
    ///
    /// # Errors
    /// A model without that head.
    pub fn next_sentence(&self) -> Result<&NextSentence, Failure> {
        self.next_sentence.as_ref().ok_or_else(|| self.lacks(Task::NextSentence))
    }

    /// The failure of a request for a task that the model does not have.
    pub fn lacks(&self, task: Task) -> Failure {
        let tasks: Vec<&str> = self.tasks.iter().map(|task| task.name()).collect();
        let message = format!(
            "model \"{}\" ({}) has no task {}; it has {}",
            self.name,
            self.model.model.class_name(),
            task.name(),
            if tasks.is_empty() { "none".to_owned() } else { tasks.join(", ") }
        );
        Failure::new(Reason::WrongTask, message)
    }
}

/// Whether a classifier's single output is a score of relevance, as text-embeddings-inference assumes of every one that is not a regression.
fn is_scorer(model: &Model) -> bool {
    model.heads.task == Some(TaskHead::Classify { labels: 1 }) && model.config().problem_type() != Some("regression")
}

fn task_of(kind: &Kind) -> Option<Task> {
    Some(match kind.name() {
        "classify" => Task::Classify,
        "multi-label" => Task::MultiLabel,
        "regress" => Task::Regress,
        "rerank" => Task::Rerank,
        "tag" => Task::Tag,
        "answer" => Task::Answer,
        "choose" => Task::Choose,
        _ => return None,
    })
}

/// Whether a classifier's labels are those of natural-language inference, by the rule of Transformers' zero-shot
/// pipeline: a label that starts with "entail".
fn is_inference_of_language(config: &Config) -> bool {
    let labels = config.labels().unwrap_or_default();
    labels.len() > 1 && labels.iter().any(|label| label.to_lowercase().starts_with("entail"))
}

fn embedder(model: &Arc<Pretrained>, dir: &Path, opening: &Opening, variant: &Variant) -> Result<Embedder, TaskError> {
    let mut options = Options::default();
    options.max_len = opening.max_len;
    options.truncate_left = variant.truncate_left;
    if let Some(name) = variant.prompt.as_ref().or(opening.prompt.as_ref()) {
        options.prompts.text = Prompt::Named(name.clone());
    }
    Embedder::new(Arc::clone(model), dir, &options)
}

/// Runs a first batch: it shows what a token costs, and the weights are read from the disk.
fn first_cost(model: &Pretrained) -> Cost {
    let (tokenizer, positions) = (&model.tokenizer, model.model.architecture().max_sequence_length());
    let length = FIRST_TOKENS.min(positions);
    let room = tokenizer.template().room(length, false);
    let sequence = tokenizer.template().sequence(&vec![tokenizer.special().unk; room], None);
    let example = Example::new(vec![sequence], Target::value(None));
    let output = Output::HiddenStates { layer: model.model.architecture().layers };
    // The first pass reads the weights.
    model.compute(&output, &[&example]);
    let begin = Instant::now();
    model.compute(&output, &[&example]);
    Cost::measured(example.length(), begin.elapsed())
}

/// The names, sizes and times of the files of a folder, by which a change is seen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fingerprint(Vec<(PathBuf, u64, Option<SystemTime>)>);

impl Fingerprint {
    /// That of a folder and the folders in it; files that cannot be read are left out.
    pub fn of(dir: &Path) -> Fingerprint {
        let mut files = Vec::new();
        let folders = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let folders = folders.map(|entry| entry.path()).filter(|path| path.is_dir());
        for folder in std::iter::once(dir.to_owned()).chain(folders) {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                // Follows links, as in the cache of the hub.
                if let Ok(known) = std::fs::metadata(entry.path())
                    && known.is_file()
                {
                    files.push((entry.path(), known.len(), known.modified().ok()));
                }
            }
        }
        files.sort();
        Fingerprint(files)
    }

    /// The size of all files in bytes.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|(_, size, _)| size).sum()
    }
}
