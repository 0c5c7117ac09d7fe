//! One epoch's sequences, planned from sentence lengths alone: no text is read, so that an epoch of fifty million words
//! is planned in a fraction of a second, and in 24 bytes a sequence.
//!
//! `pairs` is Google's `create_instances_from_document` (`create_pretraining_data.py`): a document's sentences gather
//! in a chunk until the target length is reached; the chunk is cut at a random sentence into A and B; half the time, and
//! always if the chunk is one sentence, B is replaced by sentences of a random other document and B's own go back to be
//! used again; then the longer of A and B loses tokens, each from its front or back by the toss of a coin, until the pair
//! fits. As there, one target length is drawn for a document, and the part of a sentence that does not fit is lost to
//! this epoch. `sentences` is for training without sentence pairs: whole sentences of one document, one after the other.

use crate::random::{Purpose, Random};
use crate::shards::Documents;

/// One sequence: where its tokens come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    a_document: u32,
    a_start: u32,
    b_document: u32,
    b_start: u32,
    a_len: u16,
    b_len: u16,
    /// B is not the continuation of A: NSP label 1.
    pub(crate) random_next: bool,
}

const _: () = assert!(size_of::<Instance>() <= 24);

/// Consecutive tokens of one document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) document: u32,
    /// The first token, counted from the document's start.
    pub(crate) start: u32,
    pub(crate) len: u16,
}

impl Run {
    /// Adds the run's tokens to `out`; `scratch` holds the sentences it lies in.
    pub(crate) fn read(self, documents: &Documents, scratch: &mut Vec<u32>, out: &mut Vec<i32>) {
        let document = self.document as usize;
        let ends = documents.sentence_ends(document);
        let first = ends.partition_point(|&end| end <= self.start);
        let last = ends.partition_point(|&end| end < self.start + u32::from(self.len));
        scratch.clear();
        documents.read(document, first..last + 1, scratch);
        let skip = (self.start - start_of(ends, first)) as usize;
        let ids = &scratch[skip..skip + usize::from(self.len)];
        out.extend(ids.iter().map(|&id| id as i32));
    }
}

impl Instance {
    pub(crate) fn a(&self) -> Run {
        Run { document: self.a_document, start: self.a_start, len: self.a_len }
    }

    /// The second segment; `None` when planned by [`sentences`].
    pub(crate) fn b(&self) -> Option<Run> {
        (self.b_len > 0).then_some(Run { document: self.b_document, start: self.b_start, len: self.b_len })
    }

    /// Tokens of A and B together: the finished sequence without its special tokens.
    pub(crate) fn text_tokens(&self) -> usize {
        usize::from(self.a_len) + usize::from(self.b_len)
    }

    /// What the sequence is, as numbers: the key of its masks, wherever the shuffle puts it.
    pub(crate) fn key(&self) -> [u64; 3] {
        [
            u64::from(self.a_document) << 32 | u64::from(self.a_start),
            u64::from(self.b_document) << 32 | u64::from(self.b_start),
            u64::from(self.a_len) << 17 | u64::from(self.b_len) << 1 | u64::from(self.random_next),
        ]
    }
}

/// What [`pairs`] needs to know beside the lengths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PairRule {
    /// Tokens of A and B together at most: the sequence length without its special tokens. At least 2.
    pub(crate) max_tokens: usize,
    /// Probability that a document is cut to a random shorter target length.
    pub(crate) short_seq_prob: f64,
    pub(crate) seed: u64,
    /// Plans of the same seed and round are the same.
    pub(crate) round: u64,
}

/// Plans sentence pairs over the documents named by `usable` (each with at least one token; at least two of them).
/// In the documents' order: shuffling is the caller's.
pub(crate) fn pairs(documents: &Documents, usable: &[u32], rule: PairRule) -> Vec<Instance> {
    let mut plan = Vec::with_capacity(estimate(documents, rule.max_tokens));
    for (rank, &document) in usable.iter().enumerate() {
        let key = [rule.round, u64::from(document)];
        let mut random = Random::keyed(rule.seed, Purpose::Plan, &key);
        let mut target = rule.max_tokens as u32;
        if random.chance(rule.short_seq_prob) {
            target = 2 + random.below(rule.max_tokens - 1) as u32;
        }
        let ends = documents.sentence_ends(document as usize);
        // The chunk is sentences `first..next`.
        let (mut first, mut next) = (0, 0);
        while next < ends.len() {
            let start = start_of(ends, first);
            next += 1;
            let end = ends[next - 1];
            if next < ends.len() && end - start < target {
                continue;
            }
            if end > start {
                let count = next - first;
                let mut a_sentences = 1;
                if count >= 2 {
                    a_sentences += random.below(count - 1);
                }
                // Sentences with no tokens cannot stand alone.
                while ends[first + a_sentences - 1] == start {
                    a_sentences += 1;
                }
                let middle = ends[first + a_sentences - 1];
                let random_next = middle == end || random.chance(0.5);
                let a = Span { document, start, end: middle };
                let b = if random_next {
                    // A's sentences are used; the others go back.
                    next = first + a_sentences;
                    let pick = random.below(usable.len() - 1);
                    let other = usable[pick + usize::from(pick >= rank)];
                    let wanted = target.saturating_sub(middle - start);
                    random_next_segment(documents, other, wanted, &mut random)
                } else {
                    Span { document, start: middle, end }
                };
                plan.push(fit(a, b, random_next, rule.max_tokens, &mut random));
            }
            first = next;
        }
    }
    plan
}

/// Tokens `start..end` of a document, before truncation.
#[derive(Clone, Copy)]
struct Span {
    document: u32,
    start: u32,
    end: u32,
}

impl Span {
    fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// This without `lost` of its tokens, each the first or the last by the toss of a coin (only how many of either
    /// matters): the new start and length.
    fn shortened(self, lost: usize, random: &mut Random) -> (u32, u16) {
        let front = random.heads(lost) as u32;
        (self.start + front, (self.len() - lost) as u16)
    }
}

fn start_of(ends: &[u32], sentence: usize) -> u32 {
    if sentence == 0 { 0 } else { ends[sentence - 1] }
}

/// How many sequences a plan will have, roughly: spares the vector its growth.
fn estimate(documents: &Documents, max_tokens: usize) -> usize {
    let full = documents.tokens() as usize / max_tokens.max(1);
    full + full / 2 + documents.len()
}

/// Sentences of `document` from a random one on, until `wanted` tokens or the document's end: at least one token.
fn random_next_segment(documents: &Documents, document: u32, wanted: u32, random: &mut Random) -> Span {
    let ends = documents.sentence_ends(document as usize);
    let whole = ends[ends.len() - 1];
    let mut start = start_of(ends, random.below(ends.len()));
    if start == whole {
        // Nothing but empty sentences to the end; from the start there is a token, or the document is not usable.
        start = 0;
    }
    let enough = start.saturating_add(wanted.max(1));
    let last = ends.partition_point(|&end| end < enough);
    Span { document, start, end: ends.get(last).copied().unwrap_or(whole) }
}

/// How many tokens of two texts of `a` and `b` tokens stay, so that both together have at most `room`: the longer text loses tokens one
/// by one, of two equally long texts the second (google-research/bert's `truncate_seq_pair`).
fn longest_first(mut a: usize, mut b: usize, room: usize) -> (usize, usize) {
    let mut excess = (a + b).saturating_sub(room);
    let level = excess.min(a.abs_diff(b));
    if a > b {
        a -= level;
    } else {
        b -= level;
    }
    excess -= level;
    // Now they are equal, or nothing is left to take: in turns, B first.
    (a - excess / 2, b - excess.div_ceil(2))
}

/// Truncates the pair to `max_tokens` and writes it down. From which text as in Google's `truncate_seq_pair`.
fn fit(a: Span, b: Span, random_next: bool, max_tokens: usize, random: &mut Random) -> Instance {
    let (a_kept, b_kept) = longest_first(a.len(), b.len(), max_tokens);
    let (a_start, a_len) = a.shortened(a.len() - a_kept, random);
    let (b_start, b_len) = b.shortened(b.len() - b_kept, random);
    Instance { a_document: a.document, a_start, b_document: b.document, b_start, a_len, b_len, random_next }
}

/// Plans single segments of at most `max_tokens`: as many whole sentences of one document as fit, in order (the
/// DOC-SENTENCES input of Liu et al. 2019, "RoBERTa", section 4.2). A sentence longer than that is cut, and its rest goes
/// on in the next sequence: every token of the corpus is in the plan exactly once.
pub(crate) fn sentences(documents: &Documents, usable: &[u32], max_tokens: usize) -> Vec<Instance> {
    let mut plan = Vec::with_capacity(estimate(documents, max_tokens));
    let max = max_tokens as u32;
    for &document in usable {
        let mut write = |start: u32, end: u32| {
            plan.push(Instance {
                a_document: document,
                a_start: start,
                b_document: 0,
                b_start: 0,
                a_len: (end - start) as u16,
                b_len: 0,
                random_next: false,
            });
        };
        // Tokens `start..ready` are whole sentences (or the rest of one) that fit.
        let (mut start, mut ready) = (0, 0);
        for &end in documents.sentence_ends(document as usize) {
            if ready > start && end - start > max {
                write(start, ready);
                start = ready;
            }
            while end - start > max {
                write(start, start + max);
                start += max;
            }
            ready = end;
        }
        if ready > start {
            write(start, ready);
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Documents of the given sentence lengths; every token of the corpus is a different id.
    fn corpus(lengths: &[Vec<usize>]) -> Documents {
        let mut next = 0;
        let mut sentence = |len: usize| {
            next += len as u32;
            (next - len as u32..next).collect::<Vec<u32>>()
        };
        Documents::from_memory(lengths.iter().map(|doc| doc.iter().map(|&len| sentence(len)).collect()).collect())
    }

    fn mixed(documents: usize) -> Documents {
        let mut random = Random::keyed(9, Purpose::Plan, &[]);
        let lengths: Vec<Vec<usize>> =
            (0..documents).map(|_| (0..1 + random.below(30)).map(|_| 1 + random.below(40)).collect()).collect();
        corpus(&lengths)
    }

    fn rule(max_tokens: usize) -> PairRule {
        PairRule { max_tokens, short_seq_prob: 0.1, seed: 3, round: 0 }
    }

    fn all(documents: &Documents) -> Vec<u32> {
        (0..documents.len() as u32).collect()
    }

    fn ids(run: Run, documents: &Documents) -> Vec<i32> {
        let mut out = Vec::new();
        run.read(documents, &mut Vec::new(), &mut out);
        out
    }

    #[test]
    fn truncation_in_one_step_is_googles_loop() {
        for a in 1..40usize {
            for b in 1..40usize {
                for max in 2..30 {
                    let (mut x, mut y) = (a, b);
                    while x + y > max {
                        if x > y {
                            x -= 1;
                        } else {
                            y -= 1;
                        }
                    }
                    assert_eq!(longest_first(a, b, max), (x, y), "{a} {b} {max}");
                }
            }
        }
    }

    #[test]
    fn pairs_fit_and_labels_tell_the_truth() {
        let documents = mixed(400);
        let plan = pairs(&documents, &all(&documents), rule(61));
        let mut random_next = 0;
        for instance in &plan {
            let (a, b) = (instance.a(), instance.b().unwrap());
            assert!(a.len >= 1 && b.len >= 1 && instance.text_tokens() + 3 <= 64);
            let (first, second) = (ids(a, &documents), ids(b, &documents));
            assert_eq!((first.len(), second.len()), (a.len.into(), b.len.into()));
            // Ids of the corpus are consecutive: a run is one stretch.
            for run in [&first, &second] {
                assert!(run.windows(2).all(|w| w[1] == w[0] + 1));
            }
            if instance.random_next {
                random_next += 1;
                assert_ne!(a.document, b.document, "B must be of another document");
            } else {
                assert_eq!(a.document, b.document);
                assert!(first.last() < second.first(), "B must come after A in the document");
            }
        }
        let share = f64::from(random_next) / plan.len() as f64;
        assert!((0.48..0.65).contains(&share), "random B: {share}");
    }

    #[test]
    fn next_is_random_half_the_time_where_there_is_a_choice() {
        // Sentences of 10 and a budget of 60: every chunk but a document's last has six sentences.
        let documents = corpus(&vec![vec![10; 600]; 20]);
        let mut rule = rule(60);
        rule.short_seq_prob = 0.0;
        let plan = pairs(&documents, &all(&documents), rule);
        let random_next = plan.iter().filter(|i| i.random_next).count();
        let sigma = (plan.len() as f64 / 4.0).sqrt();
        let off = random_next as f64 - plan.len() as f64 / 2.0;
        // A document's last sentence alone is always random: 20 more at most.
        assert!(off.abs() < 5.0 * sigma + 20.0, "{random_next} of {}", plan.len());
        // A is cut anywhere in the chunk.
        for sentences in 1..=5u16 {
            assert!(plan.iter().any(|i| i.a().len == 10 * sentences));
        }
    }

    #[test]
    fn every_sentence_is_in_the_epoch() {
        // Short sentences against the budget, so that truncation takes no whole sentence… from A and a true B.
        let documents = mixed(200);
        let (mut start, plan) = (vec![0; documents.len()], pairs(&documents, &all(&documents), rule(509)));
        // Chunks follow each other with no gap: A starts where the one before it ended, at a sentence or inside it.
        for instance in &plan {
            let (a, b) = (instance.a(), instance.b().unwrap());
            let from = ids(a, &documents)[0];
            let at = &mut start[a.document as usize];
            assert!(*at == 0 || from >= *at, "A goes back over what was used already");
            let end = if instance.random_next { a } else { b };
            *at = ids(end, &documents).last().unwrap() + 1;
        }
        // With a budget that no pair exceeds nothing is truncated, so every token must be there.
        let mut seen = vec![false; documents.tokens() as usize];
        let roomy = PairRule { short_seq_prob: 0.0, ..rule(20_000) };
        for instance in pairs(&documents, &all(&documents), roomy) {
            for run in [Some(instance.a()), instance.b()].into_iter().flatten() {
                for id in ids(run, &documents) {
                    seen[id as usize] = true;
                }
            }
        }
        assert!(seen.iter().all(|s| *s), "tokens are missing from the epoch");
    }

    #[test]
    fn most_tokens_survive_truncation() {
        let documents = mixed(400);
        let mut seen = vec![false; documents.tokens() as usize];
        for instance in pairs(&documents, &all(&documents), rule(125)) {
            for run in [Some(instance.a()), instance.b()].into_iter().flatten() {
                for id in ids(run, &documents) {
                    seen[id as usize] = true;
                }
            }
        }
        let share = seen.iter().filter(|s| **s).count() as f64 / seen.len() as f64;
        assert!(share > 0.85, "{share}");
    }

    #[test]
    fn short_targets_are_drawn_for_a_tenth_of_the_documents() {
        let documents = corpus(&vec![vec![5; 200]; 2000]);
        let plan = pairs(&documents, &all(&documents), rule(125));
        // True pairs that the document's end did not cut short are 125 tokens with the full target.
        let mut shortened = vec![false; documents.len()];
        for instance in plan.iter().filter(|i| !i.random_next && i.a_start <= 875) {
            shortened[instance.a().document as usize] |= instance.text_tokens() + 3 < 128;
        }
        let count = shortened.iter().filter(|s| **s).count();
        // Targets over 120 do not show: 10 % · 119/124 of 2000 = 192, sigma 13.
        assert!((127..=257).contains(&count), "{count}");
    }

    #[test]
    fn truncation_takes_from_front_and_back() {
        let documents = corpus(&vec![vec![300, 300]; 400]);
        let plan = pairs(&documents, &all(&documents), rule(125));
        // First sentences only: the second is an A where the first had a random B.
        let starts: Vec<u32> = plan.iter().map(|i| i.a_start).filter(|&s| s < 300).collect();
        let mean = starts.iter().sum::<u32>() as f64 / starts.len() as f64;
        // A loses 237 or 238 of 300: half of it in front.
        assert!((115.0..122.0).contains(&mean), "{mean}");
    }

    #[test]
    fn odd_documents_give_sound_pairs() {
        let lengths = [vec![7], vec![0, 0, 4, 0], vec![100_000], vec![1, 1], vec![0, 9], vec![70_000, 3, 70_000]];
        let documents = corpus(&lengths);
        for round in 0..200 {
            let rule = PairRule { round, ..rule(13) };
            let plan = pairs(&documents, &all(&documents), rule);
            let present: std::collections::HashSet<u32> = plan.iter().map(|i| i.a().document).collect();
            assert_eq!(present.len(), lengths.len());
            for instance in plan {
                let (a, b) = (instance.a(), instance.b().unwrap());
                assert!(a.len >= 1 && b.len >= 1 && instance.text_tokens() + 3 <= 16);
                assert_eq!(ids(a, &documents).len(), usize::from(a.len));
                assert_eq!(ids(b, &documents).len(), usize::from(b.len));
                assert_eq!(instance.random_next, a.document != b.document);
            }
        }
    }

    #[test]
    fn full_sentences_hold_every_token_once_and_break_at_sentences() {
        for max_tokens in [1, 7, 62, 126, 510] {
            let documents =
                corpus(&[vec![5, 9, 0, 3], vec![1000], vec![0], vec![2, 400, 2, 2], vec![60, 1, 1, 62, 63]]);
            let mut next = 0;
            for instance in sentences(&documents, &[0, 1, 3, 4], max_tokens) {
                assert!(instance.b().is_none() && instance.text_tokens() <= max_tokens);
                let ids = ids(instance.a(), &documents);
                assert!(!ids.is_empty());
                for id in ids {
                    assert_eq!(id, next, "each token in its place, once");
                    next += 1;
                }
            }
            assert_eq!(next as u64, documents.tokens());
        }
        let documents = corpus(&[vec![60, 1, 1, 62, 63, 10]]);
        let lens: Vec<usize> = sentences(&documents, &[0], 62).iter().map(|i| i.text_tokens() + 2).collect();
        assert_eq!(lens, [64, 64, 64, 13]);
    }
}
