//! Corpora, shards, recipes, vectors.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::LazyLock;

use cloze_data::TokenTable;
use cloze_data::batch::{BatchOptions, BatchSize, BatchSource, PairTask};
use cloze_data::corpus::{CorpusOptions, MAX_DOCUMENT, open_corpus, peek, read_text};
use cloze_data::prepare::{PrepareOptions, prepare};
use cloze_data::shards::{Documents, Shards, Split};
use cloze_tasks::embed::vectors::{StoredMatrix, read_npy};
use cloze_text::Tokenizer;
use cloze_train::Recipe;

use crate::files;
use crate::folder::Folder;

/// A corpus file: text, JSON, or either compressed.
pub fn corpus(input: &[u8]) {
    static FOLDER: LazyLock<Folder> = LazyLock::new(|| Folder::new("corpus"));
    const NAMES: [&str; 7] = ["a.txt", "a.jsonl", "a.tokens", "a", "a.txt.gz", "a.jsonl.zst", "a.json"];
    let Some((&first, bytes)) = input.split_first() else { return };
    let path = FOLDER.write(NAMES[usize::from(first.wrapping_sub(b'0')) % NAMES.len()], bytes);
    documents(&path);
    let _ = peek(&path);
    let _ = read_text(&path);
}

/// A Parquet file of texts.
pub fn parquet_corpus(input: &[u8]) {
    static FOLDER: LazyLock<Folder> = LazyLock::new(|| Folder::new("parquet_corpus"));
    documents(&FOLDER.write("a.parquet", input));
}

fn documents(path: &Path) {
    let Ok(corpus) = open_corpus(&[path.to_owned()], &CorpusOptions::default()) else { return };
    for document in corpus {
        let Ok(document) = document else { break };
        assert!(!document.text.trim().is_empty() && document.text.len() <= MAX_DOCUMENT, "{document:?}");
    }
}

/// A folder that `prepare` made, and its tokenizer.
fn prepared(name: &str) -> (Folder, TokenTable) {
    const WORDS: &str = "a b c d ##e ##f . ,";
    const TEXT: &[u8] = b"A b. C d, a.\nB ce df.\n\nC. D.\nA aef b.\n\nD b a. C c c c.\n";
    let folder = Folder::new(name);
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let tokens = special.into_iter().chain(WORDS.split(' ')).map(str::to_owned).collect();
    let tokenizer = Tokenizer::from_tokens(tokens, false).expect("a tokenizer");
    let table = TokenTable::from(&tokenizer);
    let corpus = folder.write("corpus.txt", TEXT);
    let mut options = PrepareOptions::new(vec![corpus], tokenizer, folder.join("shards"));
    options.valid_fraction = 0.3;
    options.workers = Some(1);
    prepare(&options, |_| ControlFlow::Continue(())).expect("shards");
    (folder, table)
}

/// A shard.
pub fn shards(input: &[u8]) {
    static PREPARED: LazyLock<(Folder, TokenTable)> = LazyLock::new(|| prepared("shards"));
    let (folder, table) = &*PREPARED;
    let path = folder.write("shard.arrow", input);
    if let Ok(documents) = Documents::open_file(&path, Some(table.vocab_size)) {
        batches(documents, table);
    }
}

fn batches(documents: Documents, table: &TokenTable) {
    let mut ids = Vec::new();
    for document in 0..documents.len().min(1000) {
        let sentences = documents.sentences(document);
        documents.read(document, 0..sentences, &mut ids);
        assert_eq!(ids.len(), documents.document_len(document));
        assert!(ids.iter().all(|&id| (id as usize) < table.vocab_size));
        ids.clear();
    }
    for pairs in [PairTask::None, PairTask::Nsp, PairTask::Sop] {
        let mut options = BatchOptions::default();
        options.seq_len = 16;
        options.size = BatchSize::Sequences(2);
        options.pairs = pairs;
        if let Ok(source) = BatchSource::new(documents.clone(), table.clone(), options) {
            (0..3).for_each(|index| drop(source.batch(index)));
        }
    }
}

/// The manifest of a folder of shards.
pub fn manifest(input: &[u8]) {
    static PREPARED: LazyLock<(Folder, TokenTable)> = LazyLock::new(|| prepared("manifest"));
    let (folder, table) = &*PREPARED;
    folder.write("shards/manifest.json", input);
    if let Ok(shards) = Shards::open(&folder.join("shards")) {
        if shards.manifest.tokenizer.vocab_size <= table.vocab_size {
            batches(shards.split(Split::Train).clone(), table);
            batches(shards.split(Split::Valid).clone(), table);
        }
        if let Ok(tokenizer) = Tokenizer::open(&shards.tokenizer_dir()) {
            let _ = shards.check_tokenizer(&tokenizer);
        }
    }
}

/// A recipe, and changes of it, one a line.
pub fn recipe(input: &[u8]) {
    let [text, changes] = files(input).map(|file| String::from_utf8_lossy(file.unwrap_or_default()));
    let changes: Vec<String> = changes.lines().map(str::to_owned).collect();
    let Ok(recipe) = Recipe::parse(&text, "recipe.toml", &changes) else { return };
    let Ok(written) = recipe.to_toml() else { return };
    let again = Recipe::parse(&written, "written.toml", &[]).expect("a recipe that was written can be read");
    assert_eq!(recipe.differences(&again).expect("two recipes"), [""; 0], "a recipe changes");
}

/// NumPy's matrices.
pub fn npy(input: &[u8]) {
    static FOLDER: LazyLock<Folder> = LazyLock::new(|| Folder::new("npy"));
    let path = FOLDER.write("a.npy", input);
    if let Ok(vectors) = read_npy(&path) {
        assert_eq!(vectors.rows().count(), vectors.len());
        vectors.normalized();
    }
    if let Ok(matrix) = StoredMatrix::open(&path) {
        let values = matrix.values(0..matrix.rows(), &mut Vec::new()).len();
        assert_eq!(values, matrix.rows() * matrix.columns());
    }
}
