use std::collections::{HashMap, HashSet};

use cloze_text::{Special, Template};

use super::display::describe_with;
use super::*;
use crate::TokenTable;
use crate::masking::{Masking, MaskingUnit};
use crate::random::{Purpose, Random};
use crate::shards::Documents;

const WORDS: u32 = 200_000;

/// Ids below 5 are special; every fourth id from 5 on continues a word.
pub(crate) fn table() -> TokenTable {
    let vocab_size = 5 + WORDS as usize;
    TokenTable {
        vocab_size,
        special: Special { pad: 0, unk: 1, cls: 2, sep: 3, mask: 4 },
        template: Template::bert(2, 3),
        continuation: Some((0..vocab_size).map(|id| id >= 5 && id % 4 == 0).collect()),
    }
}

/// Documents of 1 to 20 sentences of 1 to 25 tokens; every token of the corpus has a different id.
pub(crate) fn corpus(documents: usize) -> Documents {
    let mut random = Random::keyed(77, Purpose::Plan, &[]);
    let mut next = 5;
    let mut sentence = |len: usize| {
        next += len as u32;
        assert!(next < 5 + WORDS);
        (next - len as u32..next).collect::<Vec<u32>>()
    };
    let documents =
        (0..documents).map(|_| (0..1 + random.below(20)).map(|_| sentence(1 + random.below(25))).collect()).collect();
    Documents::from_memory(documents)
}

fn options(size: BatchSize) -> BatchOptions {
    BatchOptions { seq_len: 64, size, seed: 11, ..BatchOptions::default() }
}

fn source(documents: usize, options: BatchOptions) -> BatchSource {
    BatchSource::new(corpus(documents), table(), options).unwrap()
}

/// The sequences of a batch before masking.
fn unmasked(batch: &Batch) -> Vec<Vec<i32>> {
    let mut ids = batch.ids.clone();
    for (row, label) in batch.mlm_rows.iter().zip(&batch.mlm_labels) {
        ids[*row as usize] = *label;
    }
    (0..batch.sequences()).map(|s| ids[batch.rows(s)].to_vec()).collect()
}

/// The document that contains each id of [`corpus`].
fn documents_of(documents: &Documents) -> HashMap<i32, usize> {
    let mut of = HashMap::new();
    for doc in 0..documents.len() {
        let mut ids = Vec::new();
        documents.read(doc, 0..documents.sentences(doc), &mut ids);
        of.extend(ids.into_iter().map(|id| (id as i32, doc)));
    }
    of
}

fn check_layout(batch: &Batch, pairs: PairTask) {
    let has_pairs = pairs.has_pairs();
    let (t, s) = (batch.tokens(), batch.sequences());
    assert_eq!(batch.segments.len(), t);
    assert_eq!(batch.cu_seqlens[0], 0);
    assert_eq!(batch.cu_seqlens[s], t as i32);
    assert_eq!(batch.lengths().sum::<usize>(), t);
    assert_eq!(batch.mlm_rows.len(), batch.mlm_labels.len());
    assert!(batch.mlm_rows.is_sorted_by(|a, b| a < b));
    assert_eq!(batch.pair_labels.len(), if has_pairs { s } else { 0 });
    for (sequence, ids) in unmasked(batch).iter().enumerate() {
        let rows = batch.rows(sequence);
        let n = ids.len();
        assert!(n <= 64);
        assert_eq!((ids[0], ids[n - 1]), (2, 3), "[CLS] … [SEP]");
        let separators: Vec<usize> = (0..n).filter(|&i| ids[i] == 3).collect();
        assert_eq!(separators.len(), 1 + usize::from(has_pairs));
        let a_end = separators[0];
        let segments: Vec<i32> = (0..n).map(|i| i32::from(i > a_end)).collect();
        assert_eq!(batch.segments[rows], segments);
        assert!(ids[1..n - 1].iter().all(|&id| id == 3 || id >= 5));
        if has_pairs {
            assert!(a_end > 1 && n - 1 > a_end + 1, "A and B hold a token each");
        }
        let predicted = batch.prediction_range(sequence).len();
        let expected = ((0.15 * n as f64).round_ties_even() as usize).max(1);
        assert_eq!(predicted, expected.min(ids.iter().filter(|id| **id >= 5).count()));
    }
}

#[test]
fn layout_equals_bert() {
    for pairs in [PairTask::Nsp, PairTask::Sop, PairTask::None] {
        for size in [BatchSize::Sequences(7), BatchSize::Tokens(500)] {
            let source = source(100, BatchOptions { pairs, ..options(size) });
            for index in 0..60 {
                check_layout(&source.batch(index), pairs);
            }
        }
    }
}

#[test]
fn every_batch_has_its_size_across_epochs() {
    let by_number = source(30, options(BatchSize::Sequences(13)));
    let by_tokens = source(30, options(BatchSize::Tokens(700)));
    assert!(by_number.epoch_at(60) > 3.0 && by_tokens.epoch_at(60) > 3.0);
    for index in 0..60 {
        assert_eq!(by_number.batch(index).sequences(), 13);
        let tokens = by_tokens.batch(index).tokens();
        assert!((700 - 63..=700).contains(&tokens), "{tokens}");
    }
}

#[test]
fn corpus_smaller_than_a_batch_is_repeated() {
    for (size, epochs) in [(BatchSize::Sequences(500), 10.0), (BatchSize::Tokens(20_000), 10.0)] {
        let source = source(5, options(size));
        assert!(source.epoch_at(1) > epochs, "{}", source.epoch_at(1));
        check_layout(&source.batch(3), PairTask::Nsp);
        assert_eq!(source.batch(0).pair_labels[..20].len(), 20);
    }
}

#[test]
fn batches_are_the_concatenated_epochs() {
    for size in [BatchSize::Sequences(13), BatchSize::Tokens(700)] {
        let source = source(30, options(size));
        let expected: Vec<Vec<i32>> = (0..4)
            .flat_map(|epoch| source.epoch_batches(epoch).collect::<Vec<_>>())
            .flat_map(|batch| unmasked(&batch))
            .collect();
        let mut given = (0..).flat_map(|index| unmasked(&source.batch(index)));
        for (at, sequence) in expected.iter().enumerate() {
            assert_eq!(Some(sequence), given.next().as_ref(), "sequence {at}");
        }
        let counts: usize = (0..4).map(|epoch| source.epoch_sequences(epoch)).sum();
        assert_eq!(counts, expected.len());
    }
}

#[test]
fn full_sentences_contain_every_token_once_per_epoch() {
    let mut options = options(BatchSize::Sequences(8));
    options.pairs = PairTask::None;
    let source = source(60, options);
    for epoch in 0..2 {
        let mut seen = HashSet::new();
        for batch in source.epoch_batches(epoch) {
            for sequence in unmasked(&batch) {
                let text = &sequence[1..sequence.len() - 1];
                assert!(text.windows(2).all(|w| w[1] == w[0] + 1), "contiguous");
                seen.extend(text.iter().copied());
            }
        }
        assert_eq!(seen.len() as u64, corpus(60).tokens());
    }
}

#[test]
fn an_epoch_of_pairs_uses_every_document_and_has_correct_labels() {
    let documents = corpus(300);
    let of = documents_of(&documents);
    let source = source(300, options(BatchSize::Sequences(16)));
    let (mut seen, mut ones, mut total) = (HashSet::new(), 0, 0);
    for batch in source.epoch_batches(0) {
        for (sequence, ids) in unmasked(&batch).iter().enumerate() {
            let cut = ids.iter().position(|&id| id == 3).unwrap();
            let (a, b) = (of[&ids[1]], of[&ids[cut + 1]]);
            let label = batch.pair_labels[sequence];
            assert_eq!(label == 1, a != b);
            if label == 0 {
                assert!(ids[cut - 1] < ids[cut + 1], "the continuation comes after");
            }
            seen.insert(a);
            ones += label;
            total += 1;
        }
    }
    assert_eq!(seen.len(), 300);
    let fraction = f64::from(ones) / f64::from(total);
    assert!((0.48..0.7).contains(&fraction), "random fraction {fraction}");
}

#[test]
fn swapped_segments_have_label_one() {
    let source = source(300, BatchOptions { pairs: PairTask::Sop, ..options(BatchSize::Sequences(16)) });
    let (mut ones, mut total) = (0, 0);
    for batch in source.epoch_batches(0) {
        for (ids, label) in unmasked(&batch).iter().zip(&batch.pair_labels) {
            let cut = ids.iter().position(|&id| id == 3).unwrap();
            // Ids of the corpus are ascending.
            assert_eq!(*label == 1, ids[1] > ids[cut + 1]);
            ones += label;
            total += 1;
        }
    }
    let sigma = (f64::from(total) / 4.0).sqrt();
    assert!((f64::from(ones) - f64::from(total) / 2.0).abs() < 5.0 * sigma, "{ones} of {total}");
}

#[test]
fn the_masking_rate_follows_the_progress_of_the_run() {
    let masking = Masking { rate: 0.4, final_rate: Some(0.1), ..Masking::default() };
    let source = source(40, BatchOptions { masking: Some(masking), ..options(BatchSize::Tokens(2000)) });
    let shares = [0.0, 0.5, 1.0].map(|progress| {
        let batch = source.mask(source.unmasked(3), progress);
        assert_eq!(batch, source.mask(source.unmasked(3), progress));
        assert_eq!(unmasked(&batch), unmasked(&source.batch(3)), "the same text");
        batch.predictions() as f64 / batch.tokens() as f64
    });
    for (share, expected) in shares.into_iter().zip([0.4, 0.25, 0.1]) {
        assert!((share - expected).abs() < 0.02, "{shares:?}");
    }
}

#[test]
fn batches_do_not_depend_on_order_or_thread() {
    for size in [BatchSize::Sequences(9), BatchSize::Tokens(450)] {
        let in_order = source(40, options(size));
        let expected: Vec<Batch> = (0..80).map(|index| in_order.batch(index)).collect();
        assert!(in_order.epoch_at(79) > 3.0);
        let backwards = source(40, options(size));
        for index in (0..80).rev() {
            assert_eq!(backwards.batch(index), expected[index as usize]);
        }
        let shared = source(40, options(size));
        std::thread::scope(|scope| {
            for thread in 0..8u64 {
                let (shared, expected) = (&shared, &expected);
                scope.spawn(move || {
                    for turn in 0..80 {
                        let index = (turn * 37 + thread * 11) % 80;
                        assert_eq!(shared.batch(index), expected[index as usize]);
                    }
                });
            }
        });
        // The batches of a step are consecutive.
        assert_eq!(in_order.step(3, 4), expected[12..16]);
        assert_ne!(expected[0], expected[1]);
    }
}

#[test]
fn another_seed_gives_other_batches() {
    let size = BatchSize::Sequences(9);
    let other = BatchOptions { seed: 12, ..options(size) };
    assert_ne!(source(40, options(size)).batch(0), source(40, other).batch(0));
}

/// The masked sequences of an epoch, in a canonical order.
fn sorted_epoch(source: &BatchSource, epoch: u64) -> Vec<Vec<i32>> {
    let mut all: Vec<Vec<i32>> = source
        .epoch_batches(epoch)
        .flat_map(|batch| (0..batch.sequences()).map(|s| batch.ids[batch.rows(s)].to_vec()).collect::<Vec<_>>())
        .collect();
    all.sort();
    all
}

#[test]
fn static_masks_repeat_and_dynamic_masks_do_not() {
    for pairs in [PairTask::Nsp, PairTask::Sop, PairTask::None] {
        let dynamic = BatchOptions { pairs, ..options(BatchSize::Sequences(8)) };
        let fixed = BatchOptions { duplicates: Some(2), ..dynamic.clone() };
        let source = source(40, fixed);
        let epochs: Vec<_> = (0..5).map(|e| sorted_epoch(&source, e)).collect();
        assert_eq!(epochs[0], epochs[2]);
        assert_eq!(epochs[1], epochs[3]);
        assert_ne!(epochs[0], epochs[1]);
        let first = |epoch| source.epoch_batches(epoch).next();
        assert_ne!(first(0), first(2), "in another order");

        let source = self::source(40, dynamic);
        let epochs: Vec<_> = (0..4).map(|e| sorted_epoch(&source, e)).collect();
        for (i, one) in epochs.iter().enumerate() {
            for other in &epochs[i + 1..] {
                let repeated = one.iter().filter(|s| other.contains(s)).count();
                assert!(repeated * 5 < one.len(), "{repeated} of {} repeat", one.len());
            }
        }
    }
}

#[test]
fn masks_of_one_epoch_do_not_depend_on_the_batch_size() {
    let small = source(40, options(BatchSize::Sequences(1)));
    let large = source(40, options(BatchSize::Tokens(5000)));
    assert_eq!(sorted_epoch(&small, 1), sorted_epoch(&large, 1));
}

#[test]
fn unusual_corpora_work_or_report_what_is_missing() {
    let make = |docs: Vec<Vec<Vec<u32>>>, pairs: PairTask| {
        let options = BatchOptions { pairs, ..options(BatchSize::Sequences(4)) };
        BatchSource::new(Documents::from_memory(docs), table(), options)
    };
    let words = |n: u32| (5..5 + n).collect::<Vec<u32>>();
    let rejected = [
        (vec![], "no tokens"),
        (vec![vec![], vec![vec![]]], "no tokens"),
        (vec![vec![words(9), words(9)]], "second document"),
        (vec![vec![words(9), words(9)], vec![]], "second document"),
        (vec![vec![words(9)], vec![words(5), vec![]]], "two sentences"),
    ];
    for (docs, expected) in rejected {
        let text = make(docs, PairTask::Nsp).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    }
    assert!(make(vec![vec![], vec![vec![]]], PairTask::None).is_err());
    let text = make(vec![vec![words(9)], vec![words(5), vec![]]], PairTask::Sop).unwrap_err().to_string();
    assert!(text.contains("no order to predict") && text.contains("objective.sop = false"), "{text}");

    let odd = vec![
        vec![words(1)],
        vec![],
        vec![vec![], words(3), vec![]],
        vec![words(50_000)],
        vec![words(2), words(90_000), words(2)],
    ];
    for pairs in [PairTask::Nsp, PairTask::Sop, PairTask::None] {
        let source = make(odd.clone(), pairs).unwrap();
        for index in 0..40 {
            check_layout(&source.batch(index), pairs);
        }
    }
    // Without next sentences, a single document is enough.
    check_layout(&make(vec![vec![words(9)]], PairTask::None).unwrap().batch(5), PairTask::None);
    check_layout(&make(vec![vec![words(9), words(2)]], PairTask::Sop).unwrap().batch(5), PairTask::Sop);
}

#[test]
fn invalid_options_are_named_in_the_error() {
    let good = options(BatchSize::Sequences(4));
    let bad = [
        (BatchOptions { seq_len: 4, ..good.clone() }, "seq_len"),
        (BatchOptions { seq_len: 70_000, ..good.clone() }, "seq_len"),
        (BatchOptions { size: BatchSize::Sequences(0), ..good.clone() }, "`size` must"),
        (BatchOptions { size: BatchSize::Tokens(63), ..good.clone() }, "at least `seq_len`, 64 tokens"),
        (BatchOptions { size: BatchSize::Sequences(usize::MAX), ..good.clone() }, "reduce it"),
        (BatchOptions { short_seq_prob: 1.1, ..good.clone() }, "short_seq_prob"),
        (BatchOptions { duplicates: Some(0), ..good.clone() }, "duplicates"),
        (BatchOptions { masking: Some(Masking { rate: 2.0, ..Masking::default() }), ..good.clone() }, "`masking.rate`"),
    ];
    for (options, word) in bad {
        let text = BatchSource::new(corpus(9), table(), options).unwrap_err().to_string();
        assert!(text.contains(word), "{text}");
    }
    let unmarked = TokenTable { continuation: None, ..table() };
    for unit in [MaskingUnit::WholeWord, MaskingUnit::Ngram { max: 3 }, MaskingUnit::Span] {
        let words = BatchOptions { masking: Some(Masking { unit, ..Masking::default() }), ..good.clone() };
        let text = BatchSource::new(corpus(9), unmarked.clone(), words).unwrap_err().to_string();
        assert!(text.contains("`masking.unit` of words requires a tokenizer") && !text.contains('\n'), "{text}");
    }
    // The smallest valid values.
    let smallest = BatchOptions { seq_len: 5, size: BatchSize::Tokens(5), ..good };
    let batch = source(9, smallest).batch(3);
    assert_eq!(batch.tokens(), 5);
}

#[test]
fn examples_show_inputs_and_labels() {
    let batch = Batch {
        ids: vec![2, 10, 4, 3, 11, 3, 2, 7, 3, 8, 3],
        segments: vec![0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1],
        cu_seqlens: vec![0, 6, 11],
        mlm_rows: vec![2, 7],
        mlm_labels: vec![12, 9],
        pair_labels: vec![0, 1],
    };
    let examples = describe_with(&batch, &Template::bert(2, 3), |id| (id != 12).then(|| format!("w{id}")));
    assert_eq!(examples.len(), 2);
    let pieces = &examples[0].pieces;
    assert_eq!(pieces[2].token, "w4");
    assert_eq!(pieces[2].label.as_deref(), Some("<12>"));
    assert_eq!((pieces[3].segment, pieces[4].segment), (0, 1));
    assert_eq!((pieces[3].added, pieces[4].added), (true, false));
    assert_eq!(pieces.iter().filter(|p| p.label.is_some()).count(), 1);
    assert_eq!(examples[1].pieces[1].label.as_deref(), Some("w9"));
    assert_eq!((examples[0].pair_label, examples[1].pair_label), (Some(0), Some(1)));
}
