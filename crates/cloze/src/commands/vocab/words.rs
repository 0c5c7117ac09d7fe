//! The words of a corpus, counted under a progress bar.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use cloze_data::DataError;
use cloze_data::corpus::{CorpusOptions, open_corpus};
use cloze_text::{LearnProgress, LearnStage, MarkCounts, TextError};

use crate::format;
use crate::terminal::Terminal;

/// What was made of a corpus, and the corpus.
pub struct Read<T> {
    pub result: T,
    pub documents: u64,
    pub text_bytes: u64,
    pub seconds: f64,
    /// Letters and marks of the texts.
    pub marks: MarkCounts,
    /// The last news of the counting.
    pub news: Option<LearnProgress>,
}

/// Hands a corpus's texts to something that counts their words, under a progress bar; counts their letters and marks where these
/// are stripped.
pub fn read_words<T>(
    input: &[PathBuf],
    options: &CorpusOptions,
    strips_accents: bool,
    terminal: &Terminal,
    take: impl FnOnce(&mut dyn Iterator<Item = Result<String, DataError>>, &dyn Fn(LearnProgress)) -> Result<T, TextError>,
) -> Result<Read<T>> {
    let corpus = open_corpus(input, options)?;
    let reading = corpus.progress();
    let began = Instant::now();
    let bar = RefCell::new(terminal.progress("words", reading.bytes_total()));
    let (mut documents, mut text_bytes) = (0u64, 0u64);
    let (mut marks, latest) = (MarkCounts::default(), Cell::new(None));
    let mut texts = corpus.map(|document| {
        document.map(|document| {
            documents += 1;
            if documents.is_multiple_of(512) {
                bar.borrow().set(reading.bytes_read(), "counting words");
            }
            text_bytes += document.text.len() as u64;
            if strips_accents {
                marks.count(&document.text);
            }
            document.text
        })
    });
    let result = take(&mut texts, &|news| {
        latest.set(Some(news));
        let distinct = format::short(news.distinct as f64);
        match news.stage {
            LearnStage::Counting => {
                bar.borrow().set(reading.bytes_read(), &format!("{distinct} distinct, counting words"));
            }
            // The longest stage of small corpora, of which nothing tells the progress: a bar would stand at its end.
            LearnStage::Merging => {
                let next = terminal.progress("pieces", None);
                next.busy(&format!("joining pieces of {distinct} distinct words"));
                bar.replace(next).finish();
            }
            _ => {}
        }
    })?;
    drop(texts);
    bar.into_inner().finish();
    let seconds = began.elapsed().as_secs_f64();
    Ok(Read { result, documents, text_bytes, seconds, marks, news: latest.get() })
}
