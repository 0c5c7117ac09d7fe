//! Filters of documents, before they are tokenised.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;

use xxhash_rust::xxh3::xxh3_64;

use crate::corpus::Document;
use crate::report::{Dropped, IdentityHasher};

/// Which documents and lines are left out. By default, none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Filters {
    /// Drop documents with fewer words, which are runs of characters that are not white space.
    pub min_words: usize,
    /// Drop documents whose text equals that of an earlier one.
    pub drop_duplicates: bool,
    /// Drop lines whose text equals that of an earlier line of any document, such as menus and licences. Documents without
    /// any other line are dropped.
    pub drop_duplicate_lines: bool,
}

/// Hashes of texts.
type Seen = HashSet<u64, BuildHasherDefault<IdentityHasher>>;

/// Applies [`Filters`] to documents in order. It remembers eight bytes of each different document or line.
pub(super) struct Filter {
    filters: Filters,
    documents: Seen,
    lines: Seen,
    pub(super) dropped: Dropped,
}

impl Filter {
    pub(super) fn new(filters: Filters) -> Filter {
        Filter { filters, documents: Seen::default(), lines: Seen::default(), dropped: Dropped::default() }
    }

    /// The document without its dropped lines; none if it is dropped.
    pub(super) fn apply(&mut self, mut document: Document) -> Option<Document> {
        let Filters { min_words, drop_duplicates, drop_duplicate_lines } = self.filters;
        if drop_duplicates && !self.documents.insert(xxh3_64(document.text.trim().as_bytes())) {
            self.dropped.duplicate_documents += 1;
            return None;
        }
        if drop_duplicate_lines {
            let (mut kept, mut dropped) = (String::with_capacity(document.text.len()), 0);
            for line in document.text.split_inclusive('\n') {
                let text = line.trim();
                if text.is_empty() || self.lines.insert(xxh3_64(text.as_bytes())) {
                    kept.push_str(line);
                } else {
                    dropped += 1;
                }
            }
            self.dropped.duplicate_lines += dropped;
            if dropped > 0 {
                document.text = kept;
            }
        }
        // A document of dropped lines is empty.
        let fewest = min_words.max(usize::from(drop_duplicate_lines));
        if fewest > 0 && document.text.split_whitespace().take(fewest).count() < fewest {
            self.dropped.short_documents += 1;
            return None;
        }
        Some(document)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;

    fn filtered(filters: &Filters, texts: &[&str]) -> (Vec<String>, Dropped) {
        let mut filter = Filter::new(filters.clone());
        let document = |text: &str| Document { text: text.to_owned(), file: Arc::from(Path::new("a.txt")), line: 1 };
        let kept = texts.iter().filter_map(|text| filter.apply(document(text))).map(|document| document.text).collect();
        (kept, filter.dropped)
    }

    #[test]
    fn documents_and_lines_are_dropped_in_order() {
        let texts = ["a b c\nmenu\nd", "a b", "a b c\nmenu\nd\n", "x y z\n menu\nd", "menu", "menu\nd\n"];
        let (kept, dropped) = filtered(&Filters::default(), &texts);
        assert_eq!((kept, dropped), (texts.map(str::to_owned).to_vec(), Dropped::default()));

        let (kept, dropped) = filtered(&Filters { drop_duplicates: true, ..Filters::default() }, &texts);
        assert_eq!(kept, [texts[0], texts[1], texts[3], texts[4], texts[5]]);
        assert_eq!(dropped, Dropped { duplicate_documents: 1, ..Dropped::default() });

        let (kept, dropped) = filtered(&Filters { min_words: 3, ..Filters::default() }, &texts);
        assert_eq!(kept, [texts[0], texts[2], texts[3]]);
        assert_eq!(dropped, Dropped { short_documents: 3, ..Dropped::default() });

        let (kept, dropped) = filtered(&Filters { drop_duplicate_lines: true, ..Filters::default() }, &texts);
        assert_eq!(kept, ["a b c\nmenu\nd", "a b", "x y z\n"]);
        assert_eq!(dropped, Dropped { duplicate_lines: 8, short_documents: 3, ..Dropped::default() });
    }
}
