//! BERT's pre-training in one file, for readers of the code: text → vocabulary → batches → model → training loop → filled masks.
//!
//! ```text
//! cargo run --release -p cloze --example pretrain_tiny
//! ```
//!
//! It takes about ten seconds on two cores. The text is a few facts about countries, so that one can see what the model has learned. Real
//! pre-training does the same with a corpus in files ([`cloze::data::prepare`]) and a recipe ([`cloze::train::pretrain`]).
//!
//! Shapes are in PyTorch's letters: B sequences of a batch, T tokens of all of them, M masked tokens, C width of the hidden states,
//! V tokens of the vocabulary. A batch is packed: its sequences are one after the other, so that T is their total length and there is
//! no padding.
#![allow(clippy::print_stdout, reason = "a program")]

use std::convert::Infallible;
use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use cloze::data::TokenTable;
use cloze::data::batch::{BatchOptions, BatchSize, BatchSource, PairTask};
use cloze::data::shards::Documents;
use cloze::engine::{Gradients, Moments, Optimizer, Pass, StepSettings, UpdateRule, optimizer_step};
use cloze::model::{Config, Heads, LossScale, Model};
use cloze::text::{VocabularyOptions, learn};
use cloze::train::batch::PretrainBatch;
use cloze::{DType, Device, Filler, Pretrained};

const FACTS: [[&str; 3]; 12] = [
    ["France", "Paris", "French"],
    ["Italy", "Rome", "Italian"],
    ["Spain", "Madrid", "Spanish"],
    ["Greece", "Athens", "Greek"],
    ["Norway", "Oslo", "Norwegian"],
    ["Sweden", "Stockholm", "Swedish"],
    ["Poland", "Warsaw", "Polish"],
    ["Hungary", "Budapest", "Hungarian"],
    ["Portugal", "Lisbon", "Portuguese"],
    ["Denmark", "Copenhagen", "Danish"],
    ["Finland", "Helsinki", "Finnish"],
    ["Japan", "Tokyo", "Japanese"],
];
const STEPS: u64 = 4000;
const WARMUP: u64 = 400;
const PEAK_LR: f32 = 2e-3;

fn main() -> Result<(), Box<dyn Error>> {
    // Text: each sentence is a document of its own.
    let texts: Vec<String> = FACTS
        .iter()
        .flat_map(|[country, city, language]| {
            [
                format!("The capital of {country} is {city}."),
                format!("{city} is a city in {country}."),
                format!("People in {city} speak {language}."),
                format!("The language of {country} is {language}."),
            ]
        })
        .collect();

    // Vocabulary: WordPiece, learned from the text. It starts with [PAD], [UNK], [CLS], [SEP] and [MASK].
    let mut options = VocabularyOptions::default();
    options.size = 300;
    let tokenizer = learn(&options, texts.iter().cloned().map(Ok::<_, Infallible>), &|_| ())?;
    println!("{} tokens; {:?} is {:?}", tokenizer.vocab_size(), texts[0], tokenizer.encode(&texts[0]));

    // Batches: documents of sentences of ids. Each epoch, 15 % of the tokens are chosen anew; of those 80 % become [MASK], 10 % a random
    // token, and 10 % stay. Batch number i is a pure function of the seed and i.
    let documents = Documents::from_memory(texts.iter().map(|text| vec![tokenizer.encode(text)]).collect());
    let mut options = BatchOptions::default();
    options.seq_len = 32;
    options.size = BatchSize::Sequences(16);
    options.pairs = PairTask::None;
    let batches = BatchSource::new(documents, TokenTable::from(&tokenizer), options)?;

    // Model: BERT with 2 layers, C = 64, and the head that predicts masked tokens. Its weights are random.
    let device = Device::cpu(None)?;
    let mut config = Config::default();
    config.vocab_size = tokenizer.vocab_size(); // V
    config.hidden_size = 64; // C
    config.num_hidden_layers = 2;
    config.num_attention_heads = 2;
    config.intermediate_size = 256;
    config.max_position_embeddings = 32;
    let mut model = Model::new(config, Heads::MLM, &device, 1)?;
    println!("{} parameters", model.params.count());

    // Training: the gradients and Adam's two moments have the layout of the parameters.
    let mut gradients = Gradients::zeros_like(&model.params);
    let mut moments = Moments::zeros_like(&model.params);
    let optimizer = Optimizer {
        rule: UpdateRule::AdamW,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-6,
        weight_decay: 0.01,
        bias_correction: true,
    };
    for step in 1..=STEPS {
        // ids (T,), positions (T,), segments (T,), cu_seqlens (B + 1,): where each sequence begins.
        // mlm_rows (M,): which of the T tokens are predicted. mlm_labels (M,): their ids before masking.
        let PretrainBatch { inputs, labels } = batches.batch(step - 1).into();

        // Forward: embeddings (T, C) → each layer (T, C): attention within each sequence, then the feed-forward block (T, 4C)
        // → the masked rows (M, C) → logits (M, V) → mean cross-entropy. Backward: the gradient of every parameter.
        gradients.zero();
        let mut pass = Pass::recording(&device, &model.params, &mut gradients, DType::F32, None);
        let losses = model.loss(&mut pass, &inputs, &labels, LossScale::mean(&labels));
        pass.backward();

        // AdamW, with the gradient's norm clipped to 1. The learning rate rises to its peak, then falls to zero.
        let lr = PEAK_LR * (step as f32 / WARMUP as f32).min((STEPS - step) as f32 / (STEPS - WARMUP) as f32);
        let settings = StepSettings { optimizer, lr, step, clip_norm: Some(1.0) };
        optimizer_step(&device, &mut model.params, &gradients, &mut moments, &settings);
        if step == 1 || step % 500 == 0 {
            println!("step {step:4}  loss {:.3}", losses.total());
        }
    }

    // Inference: the model with its tokenizer. `model.save` and `tokenizer.save` would write a folder that Transformers opens, too.
    let filler = Filler::new(Arc::new(Pretrained::new(model, tokenizer, device, DType::F32, Path::new("tiny"))?))?;
    for text in ["The capital of Greece is [MASK].", "People in Oslo speak [MASK]."] {
        let candidates = &filler.fill(text, 3)?[0];
        let shown: Vec<String> =
            candidates.iter().map(|found| format!("{} {:.2}", found.token, found.probability)).collect();
        println!("{text}  {}", shown.join(", "));
    }
    Ok(())
}
