//! The model card: README.md of the trained model, with the front matter that the Hugging Face Hub reads.

use std::fmt::Write;

use super::settings::EmbedSettings;
use crate::embed::Embedder;
use crate::embed::prompts::Purpose;

/// What a card says about a run.
pub(super) struct CardFacts<'a> {
    /// The name of the model that the run started with.
    pub(super) start: &'a str,
    pub(super) settings: &'a EmbedSettings,
    pub(super) train_rows: usize,
    pub(super) width: usize,
    pub(super) similarity: &'a str,
}

pub(super) fn card(embedder: &Embedder, facts: &CardFacts<'_>) -> String {
    let CardFacts { start, settings, train_rows, width, similarity } = facts;
    let training = &settings.training;
    let mut text = String::from(
        "---\nlibrary_name: sentence-transformers\npipeline_tag: sentence-similarity\ntags:\n- sentence-transformers\n- sentence-similarity\n- feature-extraction\n",
    );
    let _ = write!(
        text,
        "---\n\n# Embedding model trained with Cloze\n\nThis sentence-transformers model maps texts to vectors of {width} dimensions, which are compared by their {similarity}.\n\n\
         | | |\n| --- | --- |\n\
         | start | {start} |\n\
         | pooling | {} |\n\
         | maximum length | {} tokens |\n\
         | training rows | {train_rows} |\n\
         | loss | {} |\n\
         | epochs, rows per step, learning rate | {}, {}, {} |\n",
        embedder.describe(),
        embedder.max_len(Purpose::Document),
        settings.loss.name(),
        training.epochs,
        training.batch,
        training.lr,
    );
    if !settings.dimensions.is_empty() {
        let _ = writeln!(text, "| dimensions that can be used alone | {:?} |", settings.dimensions);
    }
    for purpose in [Purpose::Query, Purpose::Document] {
        if !embedder.prompt(purpose).is_empty() {
            let name = if purpose == Purpose::Query { "query" } else { "document" };
            let _ =
                writeln!(text, "| prompt before each {name} | `{}` |", embedder.prompt(purpose).replace('\n', "\\n"));
        }
    }
    text.push_str("\n```python\nfrom sentence_transformers import SentenceTransformer\n\nmodel = SentenceTransformer(\"FOLDER\")\n");
    text.push_str("vectors = model.encode([\"a text\", \"another text\"])\n```\n\n");
    text.push_str("```\ncloze embed --model FOLDER --input lines.txt --out lines.npy\n```\n");
    text
}
