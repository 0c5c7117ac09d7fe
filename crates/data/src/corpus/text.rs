//! What the bytes of a text file may be, the same for every reader: UTF-8. A byte-order mark at the beginning of the file or of a line
//! is dropped (files that were put together have them inside), and so are NUL bytes, as BERT drops them; NULs are counted. A file
//! whose first bytes have carriage returns and no line feed has its lines between the carriage returns.

use serde::de::DeserializeOwned;

/// Longest line, cell or row in bytes: longer ones are not text, and memory stays bounded.
pub const MAX_LINE: usize = 64 << 20;

const MARK: &[u8] = b"\xef\xbb\xbf";

/// What the beginning of a file says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// What ends a line: a line feed, or a carriage return in a file without line feeds.
    pub line_end: u8,
}

impl Beginning {
    /// Looks at the first bytes of a file.
    ///
    /// # Errors
    /// What the file is if it is not UTF-8 text, and how to convert it.
    pub fn of(start: &[u8]) -> Result<Beginning, String> {
        let encoding = match start {
            [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Some("utf-32"),
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("utf-16"),
            _ => without_mark(&start[..start.len().min(4096)])?,
        };
        if let Some(encoding) = encoding {
            let name = encoding.to_uppercase();
            return Err(format!("is {name}, expected UTF-8; convert it first: iconv -f {encoding} -t utf-8"));
        }
        // The last byte may be the first half of a line's end.
        let has_return = start.split_last().is_some_and(|(_, before)| memchr::memchr(b'\r', before).is_some());
        let has_feed = memchr::memchr(b'\n', start).is_some();
        Ok(Beginning { line_end: if has_return && !has_feed { b'\r' } else { b'\n' } })
    }
}

/// The encoding that NULs betray in text of Latin letters.
fn without_mark(start: &[u8]) -> Result<Option<&'static str>, String> {
    let zeros = |first: usize| start.iter().skip(first).step_by(2).filter(|&&byte| byte == 0).count();
    let (even, odd, half) = (zeros(0), zeros(1), start.len() / 2);
    match (even, odd) {
        (even, odd) if half < 4 || (even + odd) * 8 < half => Ok(None),
        (even, odd) if even * 8 < odd => Ok(Some("utf-16le")),
        (even, odd) if odd * 8 < even => Ok(Some("utf-16be")),
        _ => Err("holds many NUL bytes: a binary file, expected UTF-8 text".to_owned()),
    }
}

/// Makes a line the text that it stands for: without a mark at its beginning and without NULs, which are counted.
///
/// # Errors
/// The first byte that is not UTF-8, counted from 1 and from `before` bytes in front of these, and how to convert the file.
pub fn clean_line(bytes: &mut Vec<u8>, before: usize) -> Result<usize, String> {
    if let Err(e) = std::str::from_utf8(bytes) {
        return Err(not_utf8(bytes, e.valid_up_to(), before));
    }
    let whole = bytes.len();
    if memchr::memchr(0, bytes).is_some() {
        bytes.retain(|&byte| byte != 0);
    }
    let nuls = whole - bytes.len();
    if before == 0 && bytes.starts_with(MARK) {
        bytes.drain(..MARK.len());
    }
    Ok(nuls)
}

fn not_utf8(line: &[u8], at: usize, before: usize) -> String {
    let byte = line.get(at).copied().unwrap_or_default();
    format!(
        "byte {} of the line (0x{byte:02x}) is not UTF-8; convert the file first, e.g. from Windows-1252: iconv -f windows-1252 -t utf-8",
        before + at + 1
    )
}

/// A text that is read a piece at a time and kept whole.
#[derive(Default)]
pub(super) struct WholeText {
    bytes: Vec<u8>,
    beginning: Option<Beginning>,
    /// Bytes that are known to be UTF-8.
    valid: usize,
    /// The line that begins at `line_start`, from 1, and that place.
    line: usize,
    line_start: usize,
}

impl WholeText {
    /// Adds a piece.
    ///
    /// # Errors
    /// The line, from 1, and its problem; line 0 for a problem of the whole file.
    pub fn push(&mut self, piece: &[u8]) -> Result<(), (usize, String)> {
        if self.beginning.is_none() {
            self.beginning = Some(Beginning::of(piece).map_err(|problem| (0, problem))?);
            self.line = 1;
        }
        self.bytes.extend_from_slice(piece);
        let (added, is_broken) = match std::str::from_utf8(&self.bytes[self.valid..]) {
            Ok(text) => (text.len(), false),
            Err(e) => (e.valid_up_to(), e.error_len().is_some()),
        };
        let checked = self.valid..self.valid + added;
        let end = self.beginning.map_or(b'\n', |beginning| beginning.line_end);
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

    /// The text, and how many NULs were dropped.
    ///
    /// # Errors
    /// Those of [`push`](Self::push), where the last character is cut off.
    pub fn finish(mut self) -> Result<(String, usize), (usize, String)> {
        if self.valid < self.bytes.len() {
            let at = self.valid - self.line_start;
            return Err((self.line, not_utf8(&self.bytes[self.line_start..], at, 0)));
        }
        if self.beginning.is_some_and(|beginning| beginning.line_end == b'\r') {
            self.bytes.iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b'\n');
        }
        let whole = self.bytes.len();
        if memchr::memchr(0, &self.bytes).is_some() {
            self.bytes.retain(|&byte| byte != 0);
        }
        let nuls = whole - self.bytes.len();
        let mut text = String::from_utf8(self.bytes).map_err(|e| (self.line, e.to_string()))?;
        if text.contains('\u{feff}') {
            text = text.split_inclusive('\n').map(|line| line.strip_prefix('\u{feff}').unwrap_or(line)).collect();
        }
        Ok((text, nuls))
    }
}

/// What to say of a line, cell or row beyond [`MAX_LINE`].
pub fn too_long(what: &str) -> String {
    format!("a {what} of more than {} MiB; expected text", MAX_LINE >> 20)
}

/// Reads JSON as Python does: an escaped surrogate without its other half becomes U+FFFD, which `mended` counts.
///
/// # Errors
/// What is not JSON, or not such a value.
pub fn parse_json<T: DeserializeOwned>(text: &str, mended: &mut usize) -> Result<T, serde_json::Error> {
    serde_json::from_str(text).or_else(|error| match without_lone_surrogates(text) {
        Some((text, count)) => {
            let value = serde_json::from_str(&text)?;
            *mended += count;
            Ok(value)
        }
        None => Err(error),
    })
}

/// JSON with U+FFFD for each escaped surrogate that has no other half, and how many there are; none if there is none. Places stay the
/// same.
pub(super) fn without_lone_surrogates(text: &str) -> Option<(String, usize)> {
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
            // The character behind a backslash may be a backslash itself.
            _ => 2,
        };
    }
    if found.is_empty() {
        return None;
    }
    let mut mended = text.to_owned();
    for &at in &found {
        mended.replace_range(at..at + 6, "\\ufffd");
    }
    Some((mended, found.len()))
}

/// What a person should know of surrogates that were mended; none if there were none.
pub fn mended_note(count: usize) -> Option<String> {
    let what = match count {
        0 => return None,
        1 => "1 escaped surrogate without its other half was".to_owned(),
        _ => format!("{count} escaped surrogates without their other halves were"),
    };
    Some(format!("{what} read as U+FFFD"))
}

/// What a person should know of NULs that were dropped; none if there were none.
pub fn nul_note(count: usize) -> Option<String> {
    match count {
        0 => None,
        1 => Some("1 NUL byte was dropped".to_owned()),
        _ => Some(format!("{count} NUL bytes were dropped")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(pieces: &[&[u8]]) -> Result<(String, usize), (usize, String)> {
        let mut text = WholeText::default();
        pieces.iter().try_for_each(|piece| text.push(piece))?;
        text.finish()
    }

    /// Python's json reads each of these; the values are its own with U+FFFD for what it leaves as half a pair.
    #[test]
    fn r17_a_lone_surrogate_does_not_end_the_run() {
        for (text, expected, count) in [
            (r#""good one \ud83d""#, "good one \u{fffd}", 1),
            (r#""\ude00\ud83d""#, "\u{fffd}\u{fffd}", 2),
            (r#""\ud83d\ude00""#, "\u{1f600}", 0),
            (r#""\ud83d\ud83d\ude00\\ud83d""#, "\u{fffd}\u{1f600}\\ud83d", 1),
            (r#""\ud83dx\u0000""#, "\u{fffd}x\0", 1),
        ] {
            let mut mended = 0;
            let found: String = parse_json(text, &mut mended).unwrap();
            assert_eq!((found.as_str(), mended), (expected, count), "{text}");
        }
        assert!(parse_json::<String>(r#""\ud83d"#, &mut 0).is_err());
        assert!(parse_json::<String>(r#""\x""#, &mut 0).is_err());
    }

    #[test]
    fn r31_marks_lone_returns_and_other_encodings() {
        assert_eq!(whole(&[b"\xef\xbb\xbfa\n", b"\xef\xbb\xbfb\n"]).unwrap(), ("a\nb\n".to_owned(), 0));
        assert_eq!(whole(&[b"a\tb\rc\td"]).unwrap().0, "a\tb\nc\td");
        assert_eq!(whole(&[b"\xc3", b"\xa4\r\n"]).unwrap().0, "\u{e4}\r\n");
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
            let (line, problem) = whole(&[&bytes]).unwrap_err();
            assert!(line == 0 && problem.contains(expected), "{problem}");
        }
        let (line, problem) = whole(&[b"good\nit", b"\x92s\n"]).unwrap_err();
        assert_eq!(line, 2);
        assert!(
            problem.contains("byte 3 of the line (0x92)") && problem.contains("iconv -f windows-1252"),
            "{problem}"
        );
        assert_eq!(whole(&[b"a\n\xc3"]).unwrap_err().0, 2);
    }

    #[test]
    fn r18_nuls_are_dropped_and_counted() {
        assert_eq!(whole(&[b"one two\n\nth\0ree four\n"]).unwrap(), ("one two\n\nthree four\n".to_owned(), 1));
        let mut line = b"\0\xef\xbb\xbfa\0".to_vec();
        assert_eq!((clean_line(&mut line, 0), &line[..]), (Ok(2), &b"a"[..]));
    }
}
