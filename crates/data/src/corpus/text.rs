//! The rules for the bytes of text files, shared by all readers. Text is UTF-8. A byte-order mark at the beginning of the file
//! or of a line is removed (concatenated files contain marks inside). NUL bytes are removed, as in BERT, and counted. If the
//! first bytes of a file contain carriage returns but no line feed, carriage returns end its lines.

use serde::de::DeserializeOwned;

/// Maximal length of a line, cell or row in bytes. Longer ones are not text; the limit bounds memory.
pub const MAX_LINE: usize = 64 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The format of a text file, detected by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextFormat {
    /// The line terminator: a line feed, or a carriage return in a file without line feeds.
    pub line_end: u8,
}

impl TextFormat {
    /// Detects the format from the first bytes of a file.
    ///
    /// # Errors
    /// A message with the file's encoding, if it is not UTF-8 text, and how to convert it.
    pub fn detect(start: &[u8]) -> Result<TextFormat, String> {
        let encoding = match start {
            [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Some("utf-32"),
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("utf-16"),
            _ => encoding_without_mark(&start[..start.len().min(4096)])?,
        };
        if let Some(encoding) = encoding {
            let name = encoding.to_uppercase();
            return Err(format!("is {name}, expected UTF-8; convert it first: iconv -f {encoding} -t utf-8"));
        }
        // The last byte may be the first half of a CRLF.
        let has_return = start.split_last().is_some_and(|(_, before)| memchr::memchr(b'\r', before).is_some());
        let has_feed = memchr::memchr(b'\n', start).is_some();
        Ok(TextFormat { line_end: if has_return && !has_feed { b'\r' } else { b'\n' } })
    }
}

/// Detects UTF-16 without a byte-order mark by the NUL bytes in text of Latin letters.
fn encoding_without_mark(start: &[u8]) -> Result<Option<&'static str>, String> {
    let zeros = |first: usize| start.iter().skip(first).step_by(2).filter(|&&byte| byte == 0).count();
    let (even, odd, half) = (zeros(0), zeros(1), start.len() / 2);
    match (even, odd) {
        (even, odd) if half < 4 || (even + odd) * 8 < half => Ok(None),
        (even, odd) if even * 8 < odd => Ok(Some("utf-16le")),
        (even, odd) if odd * 8 < even => Ok(Some("utf-16be")),
        _ => Err("contains many NUL bytes: expected UTF-8 text, found a binary file".to_owned()),
    }
}

/// Removes a byte-order mark at the beginning of a line, and NUL bytes. Returns the number of NUL bytes.
///
/// # Errors
/// A message with the first byte that is not UTF-8 (counted from 1, after `before` bytes of the same line), and how to convert
/// the file.
pub fn clean_line(bytes: &mut Vec<u8>, before: usize) -> Result<usize, String> {
    if let Err(e) = std::str::from_utf8(bytes) {
        return Err(not_utf8(bytes, e.valid_up_to(), before));
    }
    let len = bytes.len();
    if memchr::memchr(0, bytes).is_some() {
        bytes.retain(|&byte| byte != 0);
    }
    let nul_bytes = len - bytes.len();
    if before == 0 && bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(nul_bytes)
}

fn not_utf8(line: &[u8], at: usize, before: usize) -> String {
    let byte = line.get(at).copied().unwrap_or_default();
    format!(
        "byte {} of the line (0x{byte:02x}) is not UTF-8; convert the file first, e.g. from Windows-1252: iconv -f windows-1252 -t utf-8",
        before + at + 1
    )
}

/// A complete text that is read in pieces.
#[derive(Default)]
pub(super) struct TextBuffer {
    bytes: Vec<u8>,
    format: Option<TextFormat>,
    /// Number of bytes that have been checked to be UTF-8.
    valid: usize,
    /// The current line, from 1, and the index of its first byte.
    line: usize,
    line_start: usize,
}

impl TextBuffer {
    /// Adds a piece.
    ///
    /// # Errors
    /// The line, from 1, and a message. Line 0 stands for the entire file.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), (usize, String)> {
        if self.format.is_none() {
            self.format = Some(TextFormat::detect(piece).map_err(|problem| (0, problem))?);
            self.line = 1;
        }
        self.bytes.extend_from_slice(piece);
        let (added, is_broken) = match std::str::from_utf8(&self.bytes[self.valid..]) {
            Ok(text) => (text.len(), false),
            Err(e) => (e.valid_up_to(), e.error_len().is_some()),
        };
        let checked = self.valid..self.valid + added;
        let end = self.format.map_or(b'\n', |format| format.line_end);
        for at in memchr::memchr_iter(end, &self.bytes[checked.clone()]) {
            self.line += 1;
            self.line_start = checked.start + at + 1;
        }
        self.valid = checked.end;
        let line = &self.bytes[self.line_start..];
        if is_broken {
            return Err((self.line, not_utf8(line, self.valid - self.line_start, 0)));
        }
        if line.len() > MAX_LINE {
            return Err((self.line, too_long("line")));
        }
        Ok(())
    }

    /// The text, and the number of NUL bytes that were removed.
    ///
    /// # Errors
    /// Those of [`push`](Self::push), if the last character is incomplete.
    pub fn finish(mut self) -> Result<(String, usize), (usize, String)> {
        if self.valid < self.bytes.len() {
            let at = self.valid - self.line_start;
            return Err((self.line, not_utf8(&self.bytes[self.line_start..], at, 0)));
        }
        if self.format.is_some_and(|format| format.line_end == b'\r') {
            self.bytes.iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b'\n');
        }
        let len = self.bytes.len();
        if memchr::memchr(0, &self.bytes).is_some() {
            self.bytes.retain(|&byte| byte != 0);
        }
        let nul_bytes = len - self.bytes.len();
        let mut text = String::from_utf8(self.bytes).map_err(|e| (self.line, e.to_string()))?;
        if text.contains('\u{feff}') {
            text = text.split_inclusive('\n').map(|line| line.strip_prefix('\u{feff}').unwrap_or(line)).collect();
        }
        Ok((text, nul_bytes))
    }
}

/// The message for a line, cell or row that is longer than [`MAX_LINE`].
pub fn too_long(what: &str) -> String {
    format!("found a {what} of more than {} MiB; expected text", MAX_LINE >> 20)
}

/// Parses JSON like Python: an unpaired surrogate escape becomes U+FFFD. `lone_surrogates` is increased by their number.
///
/// # Errors
/// The text is not JSON, or not a value of this type.
pub fn parse_json<T: DeserializeOwned>(text: &str, lone_surrogates: &mut usize) -> Result<T, serde_json::Error> {
    serde_json::from_str(text).or_else(|error| match replace_lone_surrogates(text) {
        Some((text, count)) => {
            let value = serde_json::from_str(&text)?;
            *lone_surrogates += count;
            Ok(value)
        }
        None => Err(error),
    })
}

/// Replaces each unpaired surrogate escape in JSON by U+FFFD and returns their number; `None` if there are none. Byte
/// positions do not change.
pub(super) fn replace_lone_surrogates(text: &str) -> Option<(String, usize)> {
    let unit = |at: usize| -> Option<u16> {
        let escape = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(escape, 16).ok()
    };
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(next) = memchr::memchr(b'\\', text.as_bytes().get(at..).unwrap_or_default()) {
        at += next;
        at += match (unit(at), unit(at + 6)) {
            (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
            (Some(0xd800..=0xdfff), _) => {
                found.push(at);
                6
            }
            // The character after a backslash may itself be a backslash.
            _ => 2,
        };
    }
    if found.is_empty() {
        return None;
    }
    let mut replaced = text.to_owned();
    for &at in &found {
        replaced.replace_range(at..at + 6, "\\ufffd");
    }
    Some((replaced, found.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Result<(String, usize), (usize, String)> {
        let mut text = TextBuffer::default();
        pieces.iter().try_for_each(|piece| text.push(piece))?;
        text.finish()
    }

    /// Python's json accepts each of these; the values are Python's, with U+FFFD for its unpaired surrogates.
    #[test]
    fn r17_a_lone_surrogate_is_replaced() {
        for (text, expected, count) in [
            (r#""good one \ud83d""#, "good one \u{fffd}", 1),
            (r#""\ude00\ud83d""#, "\u{fffd}\u{fffd}", 2),
            (r#""\ud83d\ude00""#, "\u{1f600}", 0),
            (r#""\ud83d\ud83d\ude00\\ud83d""#, "\u{fffd}\u{1f600}\\ud83d", 1),
            (r#""\ud83dx\u0000""#, "\u{fffd}x\0", 1),
        ] {
            let mut lone_surrogates = 0;
            let found: String = parse_json(text, &mut lone_surrogates).unwrap();
            assert_eq!((found.as_str(), lone_surrogates), (expected, count), "{text}");
        }
        assert!(parse_json::<String>(r#""\ud83d"#, &mut 0).is_err());
        assert!(parse_json::<String>(r#""\x""#, &mut 0).is_err());
    }

    #[test]
    fn r31_byte_order_marks_carriage_returns_and_other_encodings() {
        assert_eq!(read(&[b"\xef\xbb\xbfa\n", b"\xef\xbb\xbfb\n"]).unwrap(), ("a\nb\n".to_owned(), 0));
        assert_eq!(read(&[b"a\tb\rc\td"]).unwrap().0, "a\tb\nc\td");
        assert_eq!(read(&[b"\xc3", b"\xa4\r\n"]).unwrap().0, "\u{e4}\r\n");
        let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        for (bytes, expected) in [
            (
                [&b"\xff\xfe"[..], &utf16("text,label\n")].concat(),
                "UTF-16, expected UTF-8; convert it first: iconv -f utf-16 ",
            ),
            (utf16("text,label\nab,1\n"), "iconv -f utf-16le "),
            (utf16("text,label\nab,1\n")[1..].to_vec(), "iconv -f utf-16be "),
            (vec![0; 4096], "binary"),
        ] {
            let (line, problem) = read(&[&bytes]).unwrap_err();
            assert!(line == 0 && problem.contains(expected), "{problem}");
        }
        let (line, problem) = read(&[b"good\nit", b"\x92s\n"]).unwrap_err();
        assert_eq!(line, 2);
        assert!(
            problem.contains("byte 3 of the line (0x92)") && problem.contains("iconv -f windows-1252"),
            "{problem}"
        );
        assert_eq!(read(&[b"a\n\xc3"]).unwrap_err().0, 2);
    }

    #[test]
    fn r18_nul_bytes_are_removed_and_counted() {
        assert_eq!(read(&[b"one two\n\nth\0ree four\n"]).unwrap(), ("one two\n\nthree four\n".to_owned(), 1));
        let mut line = b"\0\xef\xbb\xbfa\0".to_vec();
        assert_eq!((clean_line(&mut line, 0), &line[..]), (Ok(2), &b"a"[..]));
    }
}
