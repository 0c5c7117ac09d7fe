use std::fs;

use super::*;
use crate::shards::{Documents, Shards};

const WORDS: [&str; 12] = ["the", "cat", "dog", "saw", "a", "bird", "##s", "in", "old", "town", ".", "ran"];

fn tokenizer(extra: usize) -> Tokenizer {
    let mut tokens: Vec<String> =
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].iter().chain(&WORDS).map(|t| t.to_string()).collect();
    tokens.extend((0..extra).map(|i| format!("x{i}")));
    Tokenizer::from_tokens(tokens, false).unwrap()
}

/// `n` documents of a few sentences each.
fn corpus(n: usize) -> String {
    let mut text = String::new();
    for doc in 0..n {
        for sentence in 0..=doc % 5 {
            let word = |k: usize| WORDS[(doc * 7 + sentence * 3 + k) % 10];
            text.push_str(&format!("The {} {} {} saw. ", word(0), word(1), word(2)).replace("##", ""));
        }
        text.push_str("\n\n");
    }
    text
}

fn options(dir: &Path, text: &str) -> PrepareOptions {
    let input = dir.join("corpus.txt");
    fs::write(&input, text).unwrap();
    PrepareOptions::new(vec![input], tokenizer(0), dir.join("out"))
}

fn run(options: &PrepareOptions) -> Result<CorpusReport, DataError> {
    prepare(options, |_| ControlFlow::Continue(()))
}

/// Every file of a folder, by name.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            let below = files(&path).into_iter();
            found.extend(below.map(|(file, bytes)| (format!("{name}/{file}"), bytes)));
        } else {
            found.insert(name, fs::read(path).unwrap());
        }
    }
    found
}

#[test]
fn shards_contain_the_sentences_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let text = corpus(300);
    let mut options = options(dir.path(), &text);
    options.valid_fraction = 0.1;
    options.shard_tokens = 1000;
    let report = run(&options).unwrap();
    assert_eq!(report.documents, 300);
    assert!((10..60).contains(&report.valid_documents), "{report}");

    let shards = Shards::open(&options.out).unwrap();
    assert_eq!(shards.manifest.report, report);
    shards.check_tokenizer(&options.tokenizer).unwrap();
    assert!(matches!(shards.check_tokenizer(&tokenizer(1)), Err(DataError::OtherTokenizer { .. })));
    assert!(shards.manifest.splits.train.shards.len() > 2);
    let copy = Tokenizer::open(&shards.tokenizer_dir()).unwrap();
    assert_eq!(copy.fingerprint(), options.tokenizer.fingerprint());

    let mut at = [0; 2];
    for (ordinal, document) in text.split("\n\n").filter(|d| !d.is_empty()).enumerate() {
        let held_out = is_held_out(ordinal as u64, 0.1);
        let split = if held_out { Split::Valid } else { Split::Train };
        let documents = shards.split(split);
        let doc = at[held_out as usize];
        at[held_out as usize] += 1;
        for (s, sentence) in sentences::split(document).enumerate() {
            let mut ids = Vec::new();
            documents.read(doc, s..s + 1, &mut ids);
            assert_eq!(ids, options.tokenizer.encode(sentence));
            assert_eq!(ids.len(), documents.sentence_len(doc, s));
        }
        assert_eq!(documents.sentences(doc), sentences::split(document).count());
    }
    for (split, seen) in [(Split::Train, at[0]), (Split::Valid, at[1])] {
        assert_eq!(shards.split(split).len(), seen);
    }
    let total = shards.split(Split::Train).tokens() + shards.split(Split::Valid).tokens();
    assert_eq!(total, report.tokens);
}

#[test]
fn bytes_do_not_depend_on_workers() {
    let dir = tempfile::tempdir().unwrap();
    // Several chunks.
    let mut options = options(dir.path(), &corpus(20_000));
    options.shard_tokens = 100_000;
    let mut found = Vec::new();
    for workers in [1, 2, 5] {
        options.out = dir.path().join(format!("out-{workers}"));
        options.workers = Some(workers);
        run(&options).unwrap();
        found.push(files(&options.out));
    }
    assert!(found[0].len() > 5, "{:?}", found[0].keys());
    assert!(found[0] == found[1] && found[0] == found[2]);
}

#[test]
fn bytes_and_report_do_not_depend_on_ranks() {
    let dir = tempfile::tempdir().unwrap();
    // Many chunks, so that each rank has several blocks; documents and lines that occur again; a name of a special token.
    let mut text = corpus(40_000);
    text.push_str("The cat saw\u{e9} [SEP].\nThe old town.\n\n");
    let mut options = options(dir.path(), &text);
    options.shard_tokens = 100_000;
    options.workers = Some(2);
    for (number, filters) in [
        Filters::default(),
        Filters { drop_duplicates: true, min_words: 9, ..Filters::default() },
        Filters { drop_duplicate_lines: true, ..Filters::default() },
    ]
    .into_iter()
    .enumerate()
    {
        options.filters = filters;
        let run = |ranks: &Communicator| {
            let mut options = options.clone();
            options.ranks = ranks.clone();
            options.tokenizer = tokenizer(0);
            options.out = dir.path().join(format!("out-{number}-{}", ranks.size()));
            let mut last = PrepareProgress::default();
            let report = prepare(&options, |progress| {
                last = *progress;
                ControlFlow::Continue(())
            });
            (report.unwrap(), last, options.tokenizer.special_name_count(), files(&options.out))
        };
        let one = run(&Communicator::single());
        assert_eq!((one.2, one.1.documents), ([1, 0, 1][number], one.0.documents));
        for size in [2, 5] {
            let mut all = cloze_testing::ranks(size, run);
            let root = all.remove(0);
            assert!(root == one, "{size} ranks:\n{}\n{}", root.0, one.0);
            for (report, last, names, found) in all {
                assert!((report, names, found) == (one.0.clone(), one.2, one.3.clone()));
                assert!(last.documents == 0 && last.bytes_read <= one.1.bytes_read);
            }
        }
    }
}

#[test]
fn one_rank_stops_all_and_ranks_that_differ_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &corpus(60_000));
    let errors = cloze_testing::ranks(3, |ranks| {
        let mut options = options.clone();
        options.ranks = ranks.clone();
        prepare(&options, |_| if ranks.rank() == 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            .unwrap_err()
            .to_string()
    });
    assert_eq!(errors, ["interrupted; nothing was written"; 3]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

    let other = dir.path().join("other.txt");
    fs::write(&other, corpus(60_000).replace("bird", "cat")).unwrap();
    let with = |set: &(dyn Fn(&mut PrepareOptions) + Sync)| {
        let errors = cloze_testing::ranks(2, |ranks| {
            let mut options = options.clone();
            options.ranks = ranks.clone();
            if ranks.rank() == 1 {
                set(&mut options);
            }
            run(&options).unwrap_err().to_string()
        });
        assert!(!options.out.exists() && errors[0] == errors[1], "{errors:?}");
        errors[0].clone()
    };
    let error = with(&|options| options.inputs = vec![other.clone()]);
    assert!(error.starts_with("rank 1 (localhost) has read other text than rank 0"), "{error}");
    let error = with(&|options| options.tokenizer = tokenizer(1));
    assert!(error.starts_with("rank 1 (localhost) has another tokenizer"), "{error}");
}

#[test]
fn large_vocabularies_use_32_bits() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path(), "x69999 the cat.\n");
    options.tokenizer = tokenizer(70_000);
    run(&options).unwrap();
    let shards = Shards::open(&options.out).unwrap();
    let mut ids = Vec::new();
    shards.split(Split::Train).read(0, 0..1, &mut ids);
    assert_eq!(ids, options.tokenizer.encode("x69999 the cat."));
    assert!(ids[0] > 65_536);
}

#[test]
fn used_folder_is_rejected_and_empty_folder_is_accepted() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &corpus(5));
    fs::create_dir(&options.out).unwrap();
    run(&options).unwrap();
    let before = files(&options.out);
    let error = run(&options).unwrap_err().to_string();
    assert!(error.contains("not empty"), "{error}");
    assert!(files(&options.out) == before);
}

#[test]
fn failed_and_interrupted_runs_leave_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let mut text = corpus(20_000).into_bytes();
    let mut options = options(dir.path(), "");
    let input = options.inputs[0].clone();
    fs::write(&input, &text).unwrap();
    let error = prepare(&options, |progress| match progress.documents {
        0..2000 => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    });
    assert!(matches!(error, Err(DataError::Interrupted)));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    text.push(0xff);
    fs::write(&input, &text).unwrap();
    options.workers = Some(1);
    assert!(matches!(run(&options), Err(DataError::Record { .. })));
    fs::write(&input, "").unwrap();
    assert!(matches!(run(&options), Err(DataError::EmptyCorpus { .. })));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// Regression: progress was the reader's position, up to 24 MB ahead of the writer, so a slow machine appeared fast.
#[test]
fn progress_counts_written_documents() {
    let dir = tempfile::tempdir().unwrap();
    let text = corpus(40_000);
    let options = PrepareOptions { workers: Some(1), ..options(dir.path(), &text) };
    let mut reports = Vec::new();
    prepare(&options, |progress| {
        reports.push(*progress);
        ControlFlow::Continue(())
    })
    .unwrap();
    let total = text.len() as u64;
    assert!(total > 8 * CHUNK_BYTES as u64 && reports.len() > 8, "{total}");
    assert_eq!(reports.last().unwrap().bytes_read, total);
    for progress in reports {
        // Plain text: a byte read is a byte of text, except for the blank lines and the reader's buffer.
        let ahead = progress.bytes_read - progress.text_bytes;
        assert!(ahead < total / 6, "{ahead} of {total}: {progress:?}");
    }
}

#[test]
fn damaged_shards_are_named_in_the_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path(), &corpus(2000));
    options.shard_tokens = 5000;
    run(&options).unwrap();
    let path = options.out.join("train-00001.arrow");
    let original = fs::read(&path).unwrap();
    #[track_caller]
    fn rejected(out: &Path, expected: &str) {
        let error = Shards::open(out).unwrap_err().to_string();
        assert!(error.contains("train-00001.arrow") && error.contains(expected), "{error}");
    }
    fs::write(&path, &original[..original.len() - 100]).unwrap();
    rejected(&options.out, "bytes");
    for at in (0..original.len()).step_by(original.len() / 50) {
        let mut bytes = original.clone();
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        rejected(&options.out, "checksum");
        // Without the checksum, the damage may or may not be detected; reading must not panic.
        if let Ok(documents) = Documents::open_file(&path, None) {
            let mut ids = Vec::new();
            for doc in 0..documents.len() {
                documents.read(doc, 0..documents.sentences(doc), &mut ids);
            }
        }
    }
    fs::remove_file(&path).unwrap();
    rejected(&options.out, "missing");
    fs::write(&path, &original).unwrap();
    Shards::open(&options.out).unwrap();
    fs::remove_file(options.out.join(MANIFEST)).unwrap();
    let error = Shards::open(&options.out).unwrap_err().to_string();
    assert!(error.contains("found no manifest.json"), "{error}");
}

/// Regression: an id outside the vocabulary, with correct checksums, caused a panic in the model.
#[test]
fn reliability_7a_ids_outside_the_vocabulary_are_rejected() {
    for extra in [10, 70_000] {
        let dir = tempfile::tempdir().unwrap();
        let mut options = options(dir.path(), "the cat saw a dog\n\nthe dogs ran\n\nthe cat saw a bird\n");
        (options.tokenizer, options.valid_fraction) = (tokenizer(extra), 0.0);
        run(&options).unwrap();
        let documents = Documents::open_file(&options.out.join("train-00000.arrow"), None).unwrap();
        let max_ids = (0..3).map(|doc| {
            let mut ids = Vec::new();
            documents.read(doc, 0..1, &mut ids);
            ids.into_iter().max().unwrap()
        });
        let max_ids: Vec<u32> = max_ids.collect();
        let size = *max_ids.iter().max().unwrap();
        let first = max_ids.iter().position(|id| *id == size).unwrap() + 1;
        let path = options.out.join(MANIFEST);
        let manifest = fs::read_to_string(&path).unwrap();
        let before = format!("\"vocab_size\": {}", options.tokenizer.vocab_size());
        assert!(manifest.contains(&before), "{manifest}");
        fs::write(&path, manifest.replace(&before, &format!("\"vocab_size\": {}", size + 1))).unwrap();
        let error = Shards::open(&options.out).unwrap().check_tokenizer(&options.tokenizer).unwrap_err().to_string();
        assert!(error.contains("according to the manifest"), "{error}");
        fs::write(&path, manifest.replace(&before, &format!("\"vocab_size\": {size}"))).unwrap();
        let error = Shards::open(&options.out).unwrap_err().to_string();
        let expected = format!("document {first} contains id {size}, expected ids below {size}");
        assert!(error.contains("train-00000.arrow") && error.contains(&expected), "{error}");
    }
}

#[test]
fn report_contains_counts_and_warnings() {
    let dir = tempfile::tempdir().unwrap();
    let text = "The cat saw a dog. The dogs ran.\n\nThe cat saw a dog. The dogs ran.\n\nqqq zzz.\nThe bird ran.\n";
    let options = options(dir.path(), text);
    let report = run(&options).unwrap();
    assert_eq!((report.documents, report.sentences, report.words), (3, 6, 21));
    assert_eq!(report.duplicate_documents, 1);
    assert_eq!((report.lines, report.duplicate_lines), (4, 1));
    assert_eq!(report.unknown_tokens, 2);
    let warnings = report.warnings.join("\n");
    for expected in ["[UNK]", "documents are duplicates"] {
        assert!(warnings.contains(expected), "{expected}: {warnings}");
    }
    assert!(report.to_string().contains("warning: "));
}

/// Regression: of thirty texts, the default of 1 % held out none, and later commands failed.
#[test]
fn each_split_has_at_least_one_document() {
    let dir = tempfile::tempdir().unwrap();
    let opened = |options: &PrepareOptions| {
        let report = run(options).unwrap();
        let shards = Shards::open(&options.out).unwrap();
        let text = fs::read_to_string(&options.inputs[0]).unwrap();
        let documents = text.split("\n\n").map(str::trim);
        let characters: BTreeMap<Vec<u32>, u64> =
            documents.map(|text| (options.tokenizer.encode(text), text.chars().count() as u64)).collect();
        let [train, valid] = [Split::Train, Split::Valid].map(|split| {
            let documents = shards.split(split).clone();
            let texts: Vec<Vec<u32>> = (0..documents.len())
                .map(|d| {
                    let mut ids = Vec::new();
                    documents.read(d, 0..documents.sentences(d), &mut ids);
                    ids
                })
                .collect();
            let expected: u64 = texts.iter().map(|ids| characters[ids]).sum();
            assert_eq!(shards.manifest.split(split).characters(), Some(expected));
            texts
        });
        assert_eq!(
            (report.documents, report.valid_documents),
            ((train.len() + valid.len()) as u64, valid.len() as u64)
        );
        let folders = fs::read_dir(&options.out).unwrap().filter(|e| e.as_ref().unwrap().path().is_dir()).count();
        assert_eq!(folders, 1, "only the tokenizer's folder");
        (train, valid, report)
    };
    let in_folder = |name: &str, text: &str| {
        let folder = dir.path().join(name);
        fs::create_dir(&folder).unwrap();
        options(&folder, text)
    };
    let thirty = in_folder("thirty", &corpus(30));
    let (train, valid, report) = opened(&thirty);
    assert_eq!((train.len(), valid.len()), (29, 1));
    assert!(!report.warnings.join("\n").contains("held out"), "{report}");
    // All documents are present, in order. The choice is deterministic and does not depend on the size of shards.
    let none = PrepareOptions { valid_fraction: 0.0, ..in_folder("none", &corpus(30)) };
    let (all, nothing, report) = opened(&none);
    assert!(nothing.is_empty() && report.warnings.join("\n").contains("`eval.every`"), "{report}");
    let kept: Vec<&Vec<u32>> = all.iter().filter(|text| **text != valid[0]).collect();
    assert!(kept.iter().all(|text| train.contains(text)) && is_within(&train, &all));
    // With shards of one document, one shard disappears; with shards of several, one is rewritten.
    for shard_tokens in [1, 80] {
        let name = format!("shards-{shard_tokens}");
        let small = PrepareOptions { shard_tokens, ..in_folder(&name, &corpus(30)) };
        let (some, held_out, _) = opened(&small);
        assert_eq!((some, held_out), (train.clone(), valid.clone()));
        let named: Vec<String> = files(&small.out).into_keys().filter(|name| name.starts_with("train-")).collect();
        let gapless: Vec<String> = (0..named.len()).map(|number| format!("train-{number:05}.arrow")).collect();
        assert!(named == gapless && named.len() > 3, "{named:?}");
        // The other shards are the same as without held-out documents.
        let all = PrepareOptions { valid_fraction: 0.0, out: dir.path().join(name).join("all"), ..small.clone() };
        run(&all).unwrap();
        let [before, after] = [&all, &small].map(|options| files(&options.out));
        let rewritten = named.iter().filter(|name| before[*name] != after[*name]).count();
        let removed = before.keys().filter(|name| name.starts_with("train-")).count() - named.len();
        match shard_tokens {
            1 => assert_eq!(removed, 1),
            _ => assert_eq!((removed, rewritten), (0, 1)),
        }
    }

    // The larger part of the text stays in the training split; of two documents, one is held out.
    let long = "The cat saw a dog. ".repeat(50);
    for (name, text) in [("first", format!("{long}\n\nThe dog ran.")), ("last", format!("The dog ran.\n\n{long}"))] {
        let (train, valid, _) = opened(&in_folder(name, &text));
        assert!(train.len() == 1 && valid.len() == 1 && train[0].len() > valid[0].len(), "{name}");
    }
    // A single document is always for training. So is one document if chance holds out all documents that have text.
    let (train, valid, report) =
        opened(&PrepareOptions { valid_fraction: 0.99, ..in_folder("lone", "The cat saw a dog.") });
    assert_eq!((train.len(), valid.len()), (1, 0));
    assert!(report.warnings[0].contains("`eval.every`"), "{report}");
    let (train, valid, _) = opened(&PrepareOptions {
        valid_fraction: 0.999_999,
        ..in_folder("nearly", "\u{1}\n\nThe cat.\n\nThe d\u{f6}g.")
    });
    assert_eq!((train.len(), valid.len()), (1, 1));
}

/// Whether `part` is a subsequence of `whole`.
fn is_within<T: PartialEq>(part: &[T], whole: &[T]) -> bool {
    let mut rest = whole.iter();
    part.iter().all(|item| rest.any(|other| other == item))
}

#[test]
fn long_sentences_are_split_between_words() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), &"the birds ".repeat(1000));
    let report = run(&options).unwrap();
    assert_eq!((report.tokens, report.cut_sentences), (3000, 1));
    let shards = Shards::open(&options.out).unwrap();
    let documents = shards.split(Split::Train);
    let table = crate::TokenTable::from(&options.tokenizer);
    for s in 0..documents.sentences(0) {
        let mut ids = Vec::new();
        documents.read(0, s..s + 1, &mut ids);
        assert!(ids.len() <= MAX_SENTENCE && !table.is_continuation(ids[0]));
    }
}

#[test]
fn invalid_options_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let good = options(dir.path(), "The cat.");
    for fraction in [-0.1, 1.0, f64::NAN] {
        let mut options = good.clone();
        options.valid_fraction = fraction;
        assert!(matches!(run(&options), Err(DataError::Option { .. })));
    }
    let mut options = good.clone();
    options.workers = Some(0);
    assert!(matches!(run(&options), Err(DataError::Option { .. })));
}

#[test]
fn a_full_disk_has_its_own_error() {
    let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
    let error = DataError::io("write", "x.arrow", full);
    assert!(error.to_string().contains("disk is full"), "{error}");
}

/// Real text, if available: a novel, WikiText and a parquet file.
#[test]
fn real_text() {
    let Some(vocabulary) = cloze_testing::real_data("tokenizers/bert-base-uncased") else { return };
    let Some(data) = cloze_testing::real_data("pretrain") else { return };
    let dir = tempfile::tempdir().unwrap();
    let inputs = ["novels/ENG18400_Trollope.txt.gz", "wikitext-2.valid.tokens"];
    let tokenizer = Tokenizer::open(&vocabulary).unwrap();
    let inputs = inputs.iter().map(|path| data.join(path)).collect();
    let options = PrepareOptions::new(inputs, tokenizer, dir.path().join("out"));
    let report = run(&options).unwrap();
    assert_eq!((report.documents, report.missing_boundaries), (61, 0), "{report}");
    assert!(report.unknown_rate < 0.01, "{report}");
    assert!((1.1..1.5).contains(&report.tokens_per_word), "{report}");
    let parquet = data.join("wikipedia-good.parquet");
    let rows = open_corpus(&[parquet], &CorpusOptions::default()).unwrap();
    assert_eq!(rows.filter(|row| row.is_ok()).count(), 1981);
}

/// A byte-level word has the space before it, also at the beginning of a sentence.
#[test]
fn sentences_within_a_line_have_the_ids_of_the_entire_line() {
    let lines = ["The cat saw a bird. The dog ran.  It saw the old town!", "In town, a bird saw the cat. A dog ran."];
    let dir = tempfile::tempdir().unwrap();
    let mut learning = cloze_text::VocabularyOptions::default();
    (learning.kind, learning.size) = (cloze_text::VocabularyKind::Bpe, 300);
    let texts = lines.iter().map(|line| Ok::<_, std::convert::Infallible>(line.to_string()));
    let tokenizer = cloze_text::learn(&learning, texts, &|_| {}).unwrap();
    let mut options = options(dir.path(), &lines.join("\n"));
    (options.tokenizer, options.valid_fraction) = (tokenizer.clone(), 0.0);
    run(&options).unwrap();
    let shards = Shards::open(&options.out).unwrap();
    let documents = shards.split(Split::Train);
    let mut ids = Vec::new();
    documents.read(0, 0..documents.sentences(0), &mut ids);
    assert_eq!(documents.sentences(0), 5);
    // Of two spaces, the first is a token of its own, which belongs to no sentence.
    let expected = lines.map(|line| tokenizer.encode(&line.replace("  ", " "))).concat();
    assert_eq!(ids, expected);
}

#[test]
fn filters_leave_documents_out_whatever_the_number_of_workers() {
    let text = corpus(60).replace("saw. ", "saw.\n") + &corpus(60);
    let mut written = Vec::new();
    for workers in [1, 3] {
        let dir = tempfile::tempdir().unwrap();
        let mut options = options(dir.path(), &text);
        options.workers = Some(workers);
        options.filters = Filters { min_words: 12, drop_duplicates: true, drop_duplicate_lines: true };
        let report = run(&options).unwrap();
        let kept = 120 - report.dropped.duplicate_documents - report.dropped.short_documents;
        assert!(report.dropped.duplicate_lines > 0 && report.documents == kept, "{report}");
        assert_eq!((report.duplicate_documents, report.duplicate_lines), (0, 0));
        assert!(report.to_string().contains("left out"), "{report}");
        written.push(files(&dir.path().join("out")));
    }
    assert_eq!(written[0], written[1]);
    let dir = tempfile::tempdir().unwrap();
    let mut options = options(dir.path(), &text);
    options.filters.min_words = 1000;
    let problem = run(&options).unwrap_err().to_string();
    assert!(
        problem.contains("all documents were left out: 0 duplicate documents, 0 duplicate lines, 120 documents"),
        "{problem}"
    );
    assert!(!dir.path().join("out").exists());
}
