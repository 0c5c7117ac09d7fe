//! A double-array trie over a vocabulary, and WordPiece's greedy longest match on it.
//!
//! A node's child for byte `b` is at index `base + b`, and its `check` is the index of its parent (Aoe, "An efficient
//! digital search algorithm by using a double-array structure", 1989). Each byte needs one memory access, for any
//! vocabulary size.

/// No token ends at this node.
const NONE: u32 = u32::MAX;
const ROOT: u32 = 0;

#[derive(Clone, Copy)]
struct Node {
    base: u32,
    /// Index of the parent; `NONE` if the slot is free.
    check: u32,
    /// Id of the token that ends here.
    id: u32,
}

const FREE: Node = Node { base: 0, check: NONE, id: NONE };

/// WordPiece over bytes: word → ids.
pub(crate) struct Trie {
    /// Ends with 256 free slots, so that `base + byte` is always in bounds.
    nodes: Vec<Node>,
    /// The node of the continuation prefix `##`.
    continuation: Option<u32>,
    unk: u32,
    /// Words with more characters than this become \[UNK\].
    max_chars: usize,
}

impl Trie {
    /// Builds the trie of `tokens`, which are unique and whose ids are their positions. `unk` is the id of words that cannot
    /// be spelled.
    pub(crate) fn new<'a>(tokens: impl Iterator<Item = &'a str>, prefix: &str, unk: u32, max_chars: usize) -> Trie {
        let mut sorted: Vec<(&[u8], u32)> = tokens
            .enumerate()
            .map(|(id, token)| (token.as_bytes(), id as u32))
            .filter(|(token, _)| !token.is_empty())
            .collect();
        sorted.sort_unstable();
        let mut builder = Builder { nodes: vec![FREE; 512], hint: 1 };
        // Slot 0 is reserved for the root.
        builder.nodes[ROOT as usize].check = ROOT;
        // Depth first over ranges of the sorted tokens: (node, first, last, depth).
        let mut stack = vec![(ROOT, 0, sorted.len(), 0)];
        let mut children: Vec<(u8, usize)> = Vec::new();
        while let Some((node, mut first, last, depth)) = stack.pop() {
            if first < last && sorted[first].0.len() == depth {
                builder.nodes[node as usize].id = sorted[first].1;
                first += 1;
            }
            if first == last {
                continue;
            }
            children.clear();
            for (i, (token, _)) in sorted.iter().enumerate().take(last).skip(first) {
                let byte = token[depth];
                if children.last().is_none_or(|&(b, _)| b != byte) {
                    children.push((byte, i));
                }
            }
            let base = builder.place(node, &children);
            for (k, &(byte, start)) in children.iter().enumerate() {
                let end = children.get(k + 1).map_or(last, |&(_, next)| next);
                stack.push((base + u32::from(byte), start, end, depth + 1));
            }
        }
        let mut trie = Trie { nodes: builder.nodes, continuation: None, unk, max_chars };
        trie.continuation = prefix.bytes().try_fold(ROOT, |node, byte| trie.child(node, byte));
        trie
    }

    #[inline(always)]
    fn child(&self, node: u32, byte: u8) -> Option<u32> {
        let next = self.nodes[node as usize].base + u32::from(byte);
        (self.nodes[next as usize].check == node).then_some(next)
    }

    /// Appends the ids of one normalised word of `chars` characters: the longest token that is a prefix of the word, then
    /// the longest `##` token that is a prefix of the rest, and so on. If some rest has none, the entire word is \[UNK\].
    #[inline]
    pub(crate) fn encode(&self, word: &str, chars: usize, out: &mut Vec<u32>) {
        if chars > self.max_chars {
            out.push(self.unk);
            return;
        }
        let bytes = word.as_bytes();
        let mark = out.len();
        let (mut at, mut root) = (0, Some(ROOT));
        while at < bytes.len() {
            let (mut id, mut end) = (NONE, at);
            if let Some(mut node) = root {
                for (k, &byte) in bytes.iter().enumerate().skip(at) {
                    match self.child(node, byte) {
                        Some(next) => node = next,
                        None => break,
                    }
                    let here = self.nodes[node as usize].id;
                    if here != NONE {
                        (id, end) = (here, k + 1);
                    }
                }
            }
            if id == NONE {
                out.truncate(mark);
                out.push(self.unk);
                return;
            }
            out.push(id);
            at = end;
            root = self.continuation;
        }
    }
}

struct Builder {
    nodes: Vec<Node>,
    /// Almost all slots before this one are taken.
    hint: usize,
}

impl Builder {
    /// Finds a base for which the slots of all children are free, takes these slots, and returns the base.
    fn place(&mut self, parent: u32, children: &[(u8, usize)]) -> u32 {
        let low = usize::from(children[0].0);
        while self.nodes[self.hint].check != NONE {
            self.hint += 1;
            self.reserve(self.hint);
        }
        let start = self.hint.max(low + 1);
        let (mut at, mut taken) = (start, 0);
        let base = loop {
            self.reserve(at);
            if self.nodes[at].check == NONE {
                let base = at - low;
                if children.iter().all(|&(byte, _)| self.nodes[base + usize::from(byte)].check == NONE) {
                    break base;
                }
            } else {
                taken += 1;
            }
            at += 1;
        };
        // A range that is nearly full is not searched again.
        if at > start + 64 && taken * 20 >= (at - start) * 19 {
            self.hint = at;
        }
        for &(byte, _) in children {
            self.nodes[base + usize::from(byte)].check = parent;
        }
        self.nodes[parent as usize].base = base as u32;
        base as u32
    }

    /// Makes sure that slot `at` and the 256 children of any base up to it are allocated.
    fn reserve(&mut self, at: usize) {
        if self.nodes.len() < at + 512 {
            self.nodes.resize(self.nodes.len() * 2, FREE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(tokens: &[&str], word: &str) -> Vec<u32> {
        let trie = Trie::new(tokens.iter().copied(), "##", 0, 100);
        let mut out = Vec::new();
        trie.encode(word, word.chars().count(), &mut out);
        out
    }

    #[test]
    fn longest_match_wins_and_dead_ends_are_unknown() {
        let tokens = ["[UNK]", "un", "##aff", "##able", "unable", "u", "##n", "日", "##本"];
        assert_eq!(encode(&tokens, "unaffable"), [1, 2, 3]);
        assert_eq!(encode(&tokens, "unable"), [4]);
        assert_eq!(encode(&tokens, "unaffab"), [0]);
        assert_eq!(encode(&tokens, "日本"), [7, 8]);
        assert_eq!(encode(&tokens, "x"), [0]);
        // The match is greedy: there is no backtracking to a shorter first piece.
        assert_eq!(encode(&["[UNK]", "ab", "a", "##bc"], "abc"), [0]);
    }

    #[test]
    fn words_over_the_limit_are_unknown() {
        let tokens = ["[UNK]", "a", "##a"];
        assert_eq!(encode(&tokens, &"a".repeat(100)).len(), 100);
        assert_eq!(encode(&tokens, &"a".repeat(101)), [0]);
    }

    #[test]
    fn vocabulary_without_continuations_works() {
        assert_eq!(encode(&["[UNK]", "a"], "a"), [1]);
        assert_eq!(encode(&["[UNK]", "a"], "aa"), [0]);
        assert_eq!(encode(&[], "aa"), [0]);
    }

    #[test]
    fn every_token_is_found() {
        let tokens: Vec<String> =
            (0..20_000u32).map(|i| format!("{}{}", i.wrapping_mul(2_654_435_761) % 100_000, i)).collect();
        let trie = Trie::new(tokens.iter().map(String::as_str), "##", NONE - 1, 100);
        for (id, token) in tokens.iter().enumerate() {
            let mut out = Vec::new();
            trie.encode(token, token.len(), &mut out);
            assert_eq!(out, [id as u32], "{token}");
        }
        assert!(trie.nodes.len() < 1 << 19, "{} nodes", trie.nodes.len());
    }
}
