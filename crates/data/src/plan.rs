//! Plans the sequences of one epoch from sentence lengths only. No text is read, so an epoch of fifty million words is
//! planned in a fraction of a second, with 24 bytes per sequence.
//!
//! `pairs` implements Google's `create_instances_from_document` (`create_pretraining_data.py`). The sentences of a document
//! are collected in a chunk until the target length is reached. The chunk is split at a random sentence into A and B. With
//! probability 0.5, and always if the chunk is one sentence, B is replaced by sentences of a random other document, and the
//! sentences of the original B are used again later. Then the longer of A and B loses tokens, each at its front or back with
//! equal probability, until the pair fits. As in Google's code, there is one random target length per document, and
//! truncated tokens are not used in this epoch.
//!
//! For sentence-order prediction, the same chunks are made, and with probability 0.5 A and B are swapped (ALBERT's
//! `create_pretraining_data.py`). There is one difference: a chunk of one sentence, such as the last sentence of a document, is cut
//! at a random token. In ALBERT's code, B is then a random segment of another document with the label "swapped", which can be
//! recognised by its topic, without regard to order. A chunk of one token is left out.
//!
//! `sentences` is for training without pairs: consecutive complete sentences of one document.

use crate::random::{Purpose, Random};
use crate::shards::Documents;

/// What is predicted from a pair of segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairTask {
    /// No pairs: a sequence is complete sentences of one document in one segment.
    None,
    /// Next-sentence prediction (Devlin et al. 2019): whether B continues A (0) or is from another document (1).
    Nsp,
    /// Sentence-order prediction (Lan et al. 2020): whether two consecutive segments of one document are in their order (0)
    /// or swapped (1).
    Sop,
}

impl PairTask {
    /// Whether sequences are pairs.
    pub fn has_pairs(self) -> bool {
        self != PairTask::None
    }
}

/// One sequence: the positions of its tokens in the documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    a_document: u32,
    a_start: u32,
    b_document: u32,
    b_start: u32,
    a_len: u16,
    b_len: u16,
    /// The label of the pair: B is not the continuation of A (next sentence), or A and B are swapped (sentence order).
    pub(crate) label: bool,
}

const _: () = assert!(size_of::<Instance>() <= 24);

/// Consecutive tokens of one document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) document: u32,
    /// Index of the first token in the document.
    pub(crate) start: u32,
    pub(crate) len: u16,
}

impl Segment {
    /// Appends the segment's tokens to `out`; `scratch` receives the sentences that contain it.
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
    pub(crate) fn a(&self) -> Segment {
        Segment { document: self.a_document, start: self.a_start, len: self.a_len }
    }

    /// The second segment; `None` when planned by [`sentences`].
    pub(crate) fn b(&self) -> Option<Segment> {
        (self.b_len > 0).then_some(Segment { document: self.b_document, start: self.b_start, len: self.b_len })
    }

    /// Number of tokens in A and B together: the length of the sequence without special tokens.
    pub(crate) fn text_tokens(&self) -> usize {
        usize::from(self.a_len) + usize::from(self.b_len)
    }

    /// Numbers that identify the sequence. They are the key of its masks, so masks do not depend on the shuffled order.
    pub(crate) fn key(&self) -> [u64; 3] {
        [
            u64::from(self.a_document) << 32 | u64::from(self.a_start),
            u64::from(self.b_document) << 32 | u64::from(self.b_start),
            u64::from(self.a_len) << 17 | u64::from(self.b_len) << 1 | u64::from(self.label),
        ]
    }
}

/// The parameters of [`pairs`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct PairRule {
    /// The task; not [`PairTask::None`].
    pub(crate) task: PairTask,
    /// Maximal number of tokens in A and B together: the sequence length without special tokens. At least 2.
    pub(crate) max_tokens: usize,
    /// Probability that a document gets a random shorter target length.
    pub(crate) short_seq_prob: f64,
    pub(crate) seed: u64,
    /// Plans of the same seed and round are the same.
    pub(crate) round: u64,
}

/// Plans pairs over the documents in `usable` (each with at least one token; for next sentences at least two of them), in the
/// order of the documents. The caller shuffles them.
pub(crate) fn pairs(documents: &Documents, usable: &[u32], rule: PairRule) -> Vec<Instance> {
    let mut plan = Vec::with_capacity(estimate_len(documents, rule.max_tokens));
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
                // Sentences without tokens cannot form a segment.
                while ends[first + a_sentences - 1] == start {
                    a_sentences += 1;
                }
                let mut middle = ends[first + a_sentences - 1];
                if rule.task == PairTask::Sop && middle == end {
                    // One sentence: it is cut anywhere. One token cannot be cut.
                    middle = start + 1 + random.below(((end - start) as usize - 1).max(1)) as u32;
                }
                let (mut a, mut b) = (Span { document, start, end: middle }, Span { document, start: middle, end });
                let label = rule.task == PairTask::Nsp && middle == end || random.chance(0.5);
                match rule.task {
                    PairTask::Sop if label => std::mem::swap(&mut a, &mut b),
                    PairTask::Nsp if label => {
                        // A's sentences are used; the others are used again later.
                        next = first + a_sentences;
                        let pick = random.below(usable.len() - 1);
                        let other = usable[pick + usize::from(pick >= rank)];
                        let target_len = target.saturating_sub(middle - start);
                        b = random_next_segment(documents, other, target_len, &mut random);
                    }
                    _ => {}
                }
                if a.len() > 0 && b.len() > 0 {
                    plan.push(truncate(a, b, label, rule.max_tokens, &mut random));
                }
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

    /// Removes `count` tokens, each at the front or the back with equal probability (only the number on each side matters).
    /// Returns the new start and length.
    fn shortened(self, count: usize, random: &mut Random) -> (u32, u16) {
        let front = random.heads(count) as u32;
        (self.start + front, (self.len() - count) as u16)
    }
}

fn start_of(ends: &[u32], sentence: usize) -> u32 {
    if sentence == 0 { 0 } else { ends[sentence - 1] }
}

/// A rough estimate of the number of sequences in a plan, to allocate the vector once.
fn estimate_len(documents: &Documents, max_tokens: usize) -> usize {
    let full = documents.tokens() as usize / max_tokens.max(1);
    full + full / 2 + documents.len()
}

/// Sentences of `document` from a random one on, up to `target_len` tokens or the document's end; at least one token.
fn random_next_segment(documents: &Documents, document: u32, target_len: u32, random: &mut Random) -> Span {
    let ends = documents.sentence_ends(document as usize);
    let len = ends[ends.len() - 1];
    let mut start = start_of(ends, random.below(ends.len()));
    if start == len {
        // Only empty sentences follow. From the beginning there is at least one token, because the document is usable.
        start = 0;
    }
    let enough = start.saturating_add(target_len.max(1));
    let last = ends.partition_point(|&end| end < enough);
    Span { document, start, end: ends.get(last).copied().unwrap_or(len) }
}

/// The truncated lengths of two texts with `a` and `b` tokens, so that both together have at most `room`: the longer text
/// loses one token at a time; of two equally long texts, the second does (google-research/bert's `truncate_seq_pair`).
fn longest_first(mut a: usize, mut b: usize, room: usize) -> (usize, usize) {
    let mut excess = (a + b).saturating_sub(room);
    let difference = excess.min(a.abs_diff(b));
    if a > b {
        a -= difference;
    } else {
        b -= difference;
    }
    excess -= difference;
    // Now both are equal, or nothing is left to remove. They lose tokens alternately, B first.
    (a - excess / 2, b - excess.div_ceil(2))
}

/// Truncates the pair to `max_tokens`, like Google's `truncate_seq_pair`.
fn truncate(a: Span, b: Span, label: bool, max_tokens: usize, random: &mut Random) -> Instance {
    let (new_a_len, new_b_len) = longest_first(a.len(), b.len(), max_tokens);
    let (a_start, a_len) = a.shortened(a.len() - new_a_len, random);
    let (b_start, b_len) = b.shortened(b.len() - new_b_len, random);
    Instance { a_document: a.document, a_start, b_document: b.document, b_start, a_len, b_len, label }
}

/// Plans single segments of at most `max_tokens`: the complete sentences of one document that fit, in order (the
/// DOC-SENTENCES input of Liu et al. 2019, "RoBERTa", section 4.2). A longer sentence is split, and its rest continues in
/// the next sequence. Every token of the corpus is in the plan exactly once.
pub(crate) fn sentences(documents: &Documents, usable: &[u32], max_tokens: usize) -> Vec<Instance> {
    let mut plan = Vec::with_capacity(estimate_len(documents, max_tokens));
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
                label: false,
            });
        };
        // Tokens `start..ready` are complete sentences (or the rest of one) that fit.
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

    /// Documents with the given sentence lengths; every token of the corpus has a different id.
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
        PairRule { task: PairTask::Nsp, max_tokens, short_seq_prob: 0.1, seed: 3, round: 0 }
    }

    fn all(documents: &Documents) -> Vec<u32> {
        (0..documents.len() as u32).collect()
    }

    fn ids(segment: Segment, documents: &Documents) -> Vec<i32> {
        let mut out = Vec::new();
        segment.read(documents, &mut Vec::new(), &mut out);
        out
    }

    #[test]
    fn truncation_in_one_step_equals_googles_loop() {
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
    fn pairs_fit_and_labels_are_correct() {
        let documents = mixed(400);
        let plan = pairs(&documents, &all(&documents), rule(61));
        let mut random_next = 0;
        for instance in &plan {
            let (a, b) = (instance.a(), instance.b().unwrap());
            assert!(a.len >= 1 && b.len >= 1 && instance.text_tokens() + 3 <= 64);
            let (first, second) = (ids(a, &documents), ids(b, &documents));
            assert_eq!((first.len(), second.len()), (a.len.into(), b.len.into()));
            // Ids of the corpus are consecutive, so the ids of a segment are, too.
            for segment in [&first, &second] {
                assert!(segment.windows(2).all(|w| w[1] == w[0] + 1));
            }
            if instance.label {
                random_next += 1;
                assert_ne!(a.document, b.document, "B must be from another document");
            } else {
                assert_eq!(a.document, b.document);
                assert!(first.last() < second.first(), "B must come after A in the document");
            }
        }
        let fraction = f64::from(random_next) / plan.len() as f64;
        assert!((0.48..0.65).contains(&fraction), "random B: {fraction}");
    }

    #[test]
    fn both_segments_of_an_order_are_consecutive_text_of_one_document() {
        let documents = mixed(400);
        let rule = PairRule { task: PairTask::Sop, ..rule(61) };
        let (mut swapped, mut seen) = (0, vec![false; documents.tokens() as usize]);
        let plan = pairs(&documents, &all(&documents), rule);
        for instance in &plan {
            let (a, b) = (instance.a(), instance.b().unwrap());
            assert_eq!(a.document, b.document);
            assert!(a.len >= 1 && b.len >= 1 && instance.text_tokens() <= 61);
            let (first, second) = if instance.label { (b, a) } else { (a, b) };
            assert!(first.start + u32::from(first.len) <= second.start);
            swapped += usize::from(instance.label);
            for id in [first, second].into_iter().flat_map(|segment| ids(segment, &documents)) {
                assert!(!std::mem::replace(&mut seen[id as usize], true), "each token at most once");
            }
        }
        let sigma = (plan.len() as f64 / 4.0).sqrt();
        assert!((swapped as f64 - plan.len() as f64 / 2.0).abs() < 5.0 * sigma, "{swapped} of {}", plan.len());
        let used = seen.iter().filter(|seen| **seen).count() as f64 / seen.len() as f64;
        assert!(used > 0.8, "{used}");
        // The only sentence of a document is cut; one token cannot be.
        let single = corpus(&[vec![40], vec![1], vec![3, 4]]);
        let cuts: Vec<usize> = (0..20)
            .map(|round| {
                let plan = pairs(&single, &all(&single), PairRule { round, short_seq_prob: 0.0, ..rule });
                assert_eq!(plan.iter().map(|i| i.a().document).collect::<Vec<_>>(), [0, 2]);
                assert_eq!(plan[0].text_tokens(), 40);
                plan[0].a().len.into()
            })
            .collect();
        assert!(cuts.iter().any(|cut| *cut < 15) && cuts.iter().any(|cut| *cut > 25), "{cuts:?}");
    }

    #[test]
    fn next_is_random_half_the_time_if_both_are_possible() {
        // Sentences of 10 tokens and a budget of 60: every chunk has six sentences, except the last of a document.
        let documents = corpus(&vec![vec![10; 600]; 20]);
        let mut rule = rule(60);
        rule.short_seq_prob = 0.0;
        let plan = pairs(&documents, &all(&documents), rule);
        let random_next = plan.iter().filter(|i| i.label).count();
        let sigma = (plan.len() as f64 / 4.0).sqrt();
        let off = random_next as f64 - plan.len() as f64 / 2.0;
        // A chunk of one sentence at the end of a document is always random: at most 20 more.
        assert!(off.abs() < 5.0 * sigma + 20.0, "{random_next} of {}", plan.len());
        // A ends after any sentence of the chunk.
        for sentences in 1..=5u16 {
            assert!(plan.iter().any(|i| i.a().len == 10 * sentences));
        }
    }

    #[test]
    fn an_epoch_contains_every_sentence() {
        // Sentences are short compared to the budget, so truncation removes no complete sentence from A and a true B.
        let documents = mixed(200);
        let (mut start, plan) = (vec![0; documents.len()], pairs(&documents, &all(&documents), rule(509)));
        // Chunks are contiguous: A starts where the previous one ended, at a sentence or inside it.
        for instance in &plan {
            let (a, b) = (instance.a(), instance.b().unwrap());
            let from = ids(a, &documents)[0];
            let at = &mut start[a.document as usize];
            assert!(*at == 0 || from >= *at, "A overlaps tokens that were already used");
            let end = if instance.label { a } else { b };
            *at = ids(end, &documents).last().unwrap() + 1;
        }
        // With a budget that no pair exceeds, nothing is truncated, so the plan contains every token.
        let mut seen = vec![false; documents.tokens() as usize];
        let roomy = PairRule { short_seq_prob: 0.0, ..rule(20_000) };
        for instance in pairs(&documents, &all(&documents), roomy) {
            for segment in [Some(instance.a()), instance.b()].into_iter().flatten() {
                for id in ids(segment, &documents) {
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
            for segment in [Some(instance.a()), instance.b()].into_iter().flatten() {
                for id in ids(segment, &documents) {
                    seen[id as usize] = true;
                }
            }
        }
        let fraction = seen.iter().filter(|s| **s).count() as f64 / seen.len() as f64;
        assert!(fraction > 0.85, "{fraction}");
    }

    #[test]
    fn a_tenth_of_the_documents_have_short_targets() {
        let documents = corpus(&vec![vec![5; 200]; 2000]);
        let plan = pairs(&documents, &all(&documents), rule(125));
        // True pairs that do not end with the document have 125 tokens with the full target.
        let mut shortened = vec![false; documents.len()];
        for instance in plan.iter().filter(|i| !i.label && i.a_start <= 875) {
            shortened[instance.a().document as usize] |= instance.text_tokens() + 3 < 128;
        }
        let count = shortened.iter().filter(|s| **s).count();
        // Targets above 120 have no effect: 10 % · 119/124 of 2000 = 192, sigma 13.
        assert!((127..=257).contains(&count), "{count}");
    }

    #[test]
    fn truncation_takes_from_front_and_back() {
        let documents = corpus(&vec![vec![300, 300]; 400]);
        let plan = pairs(&documents, &all(&documents), rule(125));
        // Only first sentences: the second is an A if the first had a random B.
        let starts: Vec<u32> = plan.iter().map(|i| i.a_start).filter(|&s| s < 300).collect();
        let mean = starts.iter().sum::<u32>() as f64 / starts.len() as f64;
        // A loses 237 or 238 of 300 tokens, half of them at the front.
        assert!((115.0..122.0).contains(&mean), "{mean}");
    }

    #[test]
    fn unusual_documents_give_valid_pairs() {
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
                assert_eq!(instance.label, a.document != b.document);
            }
        }
    }

    #[test]
    fn full_sentences_contain_every_token_once_and_end_at_sentences() {
        for max_tokens in [1, 7, 62, 126, 510] {
            let documents =
                corpus(&[vec![5, 9, 0, 3], vec![1000], vec![0], vec![2, 400, 2, 2], vec![60, 1, 1, 62, 63]]);
            let mut next = 0;
            for instance in sentences(&documents, &[0, 1, 3, 4], max_tokens) {
                assert!(instance.b().is_none() && instance.text_tokens() <= max_tokens);
                let ids = ids(instance.a(), &documents);
                assert!(!ids.is_empty());
                for id in ids {
                    assert_eq!(id, next, "each token once, in order");
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
