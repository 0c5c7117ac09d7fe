//! Counts the words of a corpus with a progress bar.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail};
use cloze_comm::Communicator;
use cloze_data::DataError;
use cloze_data::corpus::{CorpusOptions, open_corpus};
use cloze_text::{LearnProgress, LearnStage, MarkCounts, TextError};

use crate::format;
use crate::terminal::Terminal;

/// A result computed from a corpus, with statistics of the corpus.
pub struct ReadCorpus<T> {
    pub result: T,
    pub documents: u64,
    pub text_bytes: u64,
    pub seconds: f64,
    /// Numbers of letters and marks in the texts.
    pub marks: MarkCounts,
    /// The last progress report of the counting.
    pub progress: Option<LearnProgress>,
}

/// Passes the texts of a corpus to `take`, which counts their words, and shows a progress bar. Also counts letters and
/// marks if accents are stripped; the ranks of a job share this, and all get the sums.
pub fn read_words<T>(
    input: &[PathBuf],
    options: &CorpusOptions,
    strips_accents: bool,
    ranks: &Communicator,
    terminal: &Terminal,
    take: impl FnOnce(&mut dyn Iterator<Item = Result<String, DataError>>, &dyn Fn(LearnProgress)) -> Result<T, TextError>,
) -> Result<ReadCorpus<T>> {
    let corpus = open_corpus(input, options)?;
    let reading = corpus.progress();
    let start = Instant::now();
    let bar = RefCell::new(terminal.progress("words", reading.bytes_total()));
    let (mut documents, mut text_bytes) = (0u64, 0u64);
    let (mut marks, last_progress) = (MarkCounts::default(), Cell::new(None));
    let mut texts = corpus.map(|document| {
        document.map(|document| {
            documents += 1;
            if documents.is_multiple_of(512) {
                bar.borrow().set(reading.bytes_read(), "counting words");
            }
            text_bytes += document.text.len() as u64;
            if strips_accents && documents % ranks.size() as u64 == ranks.rank() as u64 {
                marks.count(&document.text);
            }
            document.text
        })
    });
    let result = take(&mut texts, &|progress| {
        last_progress.set(Some(progress));
        let distinct = format::short(progress.distinct as f64);
        match progress.stage {
            LearnStage::Counting => {
                bar.borrow().set(reading.bytes_read(), &format!("{distinct} distinct, counting words"));
            }
            // The longest stage for small corpora. It reports no progress, so show a spinner.
            LearnStage::Merging => {
                let next = terminal.progress("pieces", None);
                next.busy(&format!("learning pieces of {distinct} distinct words"));
                bar.replace(next).finish();
            }
            _ => {}
        }
    })?;
    drop(texts);
    if strips_accents && !ranks.is_single() {
        let all = ranks.all_gather(&marks.to_bytes());
        marks = MarkCounts::default();
        if all.iter().any(|counts| marks.add_bytes(counts).is_none()) {
            bail!("the ranks have different versions of Cloze: install the same one on all machines");
        }
    }
    bar.into_inner().finish();
    let seconds = start.elapsed().as_secs_f64();
    Ok(ReadCorpus { result, documents, text_bytes, seconds, marks, progress: last_progress.get() })
}
