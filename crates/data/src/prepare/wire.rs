//! Tokenised chunks as bytes, for the way from a rank to rank 0. All ranks are the same program on machines of the same kind.

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::chunk::{TokenisedChunk, TokenisedDocument};
use crate::report::Tally;

/// Appends a chunk. Its number, which only counts those of one rank, is left out.
pub(super) fn append(chunk: &TokenisedChunk, to: &mut Vec<u8>) {
    let TokenisedChunk { bytes, read, documents, tally, .. } = chunk;
    let Tally {
        text_bytes,
        sentences,
        tokens,
        words,
        unknown_tokens,
        capitals,
        letters,
        one_sentence_documents,
        cut_sentences,
        marks,
    } = tally;
    let marks = marks.to_bytes();
    let numbers: [u64; NUMBERS] = [
        *bytes as u64,
        *read,
        documents.len() as u64,
        marks.len() as u64,
        *text_bytes,
        *sentences,
        *tokens,
        *words,
        *unknown_tokens,
        *capitals,
        *letters,
        *one_sentence_documents,
        *cut_sentences,
    ];
    to.extend_from_slice(numbers.as_bytes());
    to.extend_from_slice(&marks);
    for TokenisedDocument { ids, ends, characters, hash, line_hashes } in documents {
        let numbers: [u64; 5] = [ids.len() as u64, ends.len() as u64, line_hashes.len() as u64, *characters, *hash];
        to.extend_from_slice(numbers.as_bytes());
        to.extend_from_slice(ids.as_bytes());
        to.extend_from_slice(ends.as_bytes());
        to.extend_from_slice(line_hashes.as_bytes());
    }
}

/// The numbers before a chunk's documents.
const NUMBERS: usize = 13;

/// Reads a chunk from the beginning of `from`; `None` if the bytes are not valid.
pub(super) fn read(from: &mut &[u8]) -> Option<TokenisedChunk> {
    let [
        bytes,
        read,
        documents,
        marks,
        text_bytes,
        sentences,
        tokens,
        words,
        unknown_tokens,
        capitals,
        letters,
        one_sentence_documents,
        cut_sentences,
    ] = numbers::<NUMBERS>(from)?;
    let mut tally = Tally {
        text_bytes,
        sentences,
        tokens,
        words,
        unknown_tokens,
        capitals,
        letters,
        one_sentence_documents,
        cut_sentences,
        ..Tally::default()
    };
    tally.marks.add_bytes(from.split_off(..usize::try_from(marks).ok()?)?)?;
    let mut chunk = TokenisedChunk { number: 0, bytes: bytes as usize, read, documents: Vec::new(), tally };
    for _ in 0..documents {
        let [ids, ends, lines, characters, hash] = numbers(from)?;
        chunk.documents.push(TokenisedDocument {
            ids: list(from, ids)?,
            ends: list(from, ends)?,
            characters,
            hash,
            line_hashes: list(from, lines)?,
        });
    }
    Some(chunk)
}

fn numbers<const N: usize>(from: &mut &[u8]) -> Option<[u64; N]> {
    list(from, N as u64)?.try_into().ok()
}

fn list<T: FromBytes + Immutable>(from: &mut &[u8], length: u64) -> Option<Vec<T>> {
    let bytes = from.split_off(..usize::try_from(length).ok()?.checked_mul(size_of::<T>())?)?;
    bytes.chunks_exact(size_of::<T>()).map(|item| T::read_from_bytes(item).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_arrive_as_they_were_and_truncated_ones_are_noticed() {
        let document = |seed: u32, lines: u64| TokenisedDocument {
            ids: (0..seed * 3).collect(),
            ends: (0..seed).collect(),
            characters: u64::from(seed) + 7,
            hash: u64::MAX - u64::from(seed),
            line_hashes: (0..lines).map(|line| line << 40).collect(),
        };
        let mut chunk =
            TokenisedChunk { bytes: 5, read: 6, documents: vec![document(3, 0), document(0, 2)], ..Default::default() };
        chunk.tally.count_text("Two words, caf\u{e9}.");
        chunk.tally.marks.count("caf\u{e9}");
        chunk.tally.cut_sentences = 9;
        let mut bytes = Vec::new();
        append(&chunk, &mut bytes);
        append(&TokenisedChunk::default(), &mut bytes);
        let mut from = bytes.as_slice();
        let found = read(&mut from).unwrap();
        assert_eq!(format!("{found:?}"), format!("{chunk:?}"));
        let end = from;
        assert_eq!(read(&mut from).map(|chunk| chunk.documents.len()), Some(0));
        assert!(from.is_empty());
        let length = bytes.len() - end.len();
        assert!((0..length).all(|cut| read(&mut &bytes[..cut]).is_none()));
    }
}
