use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use ::parquet::data_type::{ByteArray, ByteArrayType};
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use cloze_testing::fuzz_seeds;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::document::split;
use super::*;
use crate::DataError;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

fn read(paths: &[PathBuf]) -> Result<Vec<Document>, DataError> {
    open_corpus(paths, &CorpusOptions::default())?.collect()
}

fn texts(paths: &[PathBuf]) -> Vec<String> {
    let documents = read(paths).unwrap();
    documents.into_iter().map(|d| d.text).collect()
}

/// Reads one file with this name and content; the error must contain `expected`.
#[track_caller]
fn fails(name: &str, bytes: &[u8], expected: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    let error = read(&[path]).unwrap_err().to_string();
    for part in [name].iter().chain(expected) {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

#[test]
fn each_format_gives_the_same_documents_in_each_compression() {
    let dir = tempfile::tempdir().unwrap();
    let text = "\u{feff}\n\nOne é.\r\nTwo.\r\n \r\n\nThree.".as_bytes();
    let json = b"{\"id\": 1, \"text\": \"One \\u00e9.\\nTwo.\"}\n\n{\"text\": null}\n{\"text\":\"Three.\",\"x\":[{}]}";
    let parquet = fs::read(fixture("zstd-plain-v1.parquet")).unwrap();
    for (name, bytes) in [("a.txt", text), ("a.jsonl", json), ("a.parquet", &parquet)] {
        let mut found = Vec::new();
        // The last one is compressed, but its name does not show it.
        for (ending, bytes) in [("", bytes.to_vec()), (".gz", gzip(bytes)), (".zst", zstd(bytes)), ("", zstd(bytes))] {
            let path = dir.path().join(format!("{name}{ending}"));
            fs::write(&path, bytes).unwrap();
            found.push(texts(&[path]));
        }
        assert!(found.iter().all(|texts| *texts == found[0]), "{name}");
        if name == "a.parquet" {
            assert_eq!(found[0].len(), 38);
        } else {
            assert_eq!(found[0], ["One é.\nTwo.", "Three."], "{name}");
        }
    }
}

#[test]
fn documents_have_line_and_row_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.txt");
    fs::write(&path, "\nOne.\nTwo.\n\n\nThree.\n").unwrap();
    let documents = read(std::slice::from_ref(&path)).unwrap();
    let lines: Vec<u64> = documents.iter().map(|d| d.line).collect();
    assert_eq!(lines, [2, 6]);
    assert_eq!(&*documents[0].file, path);
    let rows = read(&[fixture("zstd-dictionary-v2.parquet")]).unwrap();
    assert_eq!(rows[3].line, 5);
}

#[test]
fn parquet_pages_of_every_layout() {
    // The rows of fixtures/make.py.
    let expected: Vec<String> =
        (0..40).filter(|i| ![3, 5].contains(i)).map(|i| format!("Row {i} é.\nSecond line of {}.", i % 7)).collect();
    for name in
        ["zstd-dictionary-v1", "zstd-plain-v1", "zstd-dictionary-v2", "zstd-plain-v2", "zstd-required-v1", "snappy"]
    {
        let mut corpus = open_corpus(&[fixture(&format!("{name}.parquet"))], &CorpusOptions::default()).unwrap();
        let found: Result<Vec<_>, _> = corpus.by_ref().map(|d| d.map(|d| d.text)).collect();
        assert_eq!(found.unwrap(), expected, "{name}");
        assert_eq!(corpus.notes().empty_documents, 2);
        let progress = corpus.progress();
        assert_eq!(Some(progress.bytes_read()), progress.bytes_total());
    }
}

/// Regression: a file with one row group showed no progress before its end.
#[test]
fn parquet_progress_is_counted_by_rows() {
    let mut corpus = open_corpus(&[fixture("zstd-plain-v2.parquet")], &CorpusOptions::default()).unwrap();
    corpus.next().unwrap().unwrap();
    let progress = corpus.progress();
    let total = progress.bytes_total().unwrap();
    assert!((total / 4..total).contains(&progress.bytes_read()), "{} of {total}", progress.bytes_read());
}

#[test]
fn damaged_parquet_is_an_error_and_never_a_panic() {
    for name in ["zstd-dictionary-v1.parquet", "zstd-plain-v2.parquet"] {
        let original = fs::read(fixture(name)).unwrap();
        fails("cut.parquet", &original[..original.len() / 2], &["parquet"]);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.parquet");
        for at in (4..original.len()).step_by(7) {
            let mut bytes = original.clone();
            bytes[at] ^= 0x55;
            fs::write(&path, bytes).unwrap();
            // Some bytes change only a text, or nothing that is read.
            if let Err(error) = read(std::slice::from_ref(&path)) {
                assert!(error.to_string().contains("x.parquet"), "{error}");
            }
        }
    }
}

#[test]
fn wikitext_is_split_at_titles() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wiki.valid.tokens");
    let text = " \n = First = \n \n A b . \n \n = = Part = = \n \n C . \n \n = Second = \n \n D . \n";
    fs::write(&path, text).unwrap();
    let found = texts(&[path]);
    assert_eq!(found, [" = First = \n A b . \n = = Part = = \n C . ", " = Second = \n D . "]);
}

#[test]
fn folders_globs_and_repeated_files() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("b/c")).unwrap();
    for (name, text) in [
        ("z.txt", "z"),
        ("a.txt", "a"),
        ("b/c/y.txt", "y"),
        ("b/x.text", "x"),
        ("b/.hidden.txt", "hidden"),
        ("b/notes.md", "notes"),
    ] {
        fs::write(at(name), text).unwrap();
    }
    assert_eq!(texts(&[dir.path().into()]), ["a", "y", "x", "z"]);
    assert_eq!(texts(&[at("*.txt")]), ["a", "z"]);
    assert_eq!(texts(&[at("z.txt"), dir.path().into()]), ["z", "a", "y", "x"]);
    // An explicitly listed file may have any name and is read as text.
    assert_eq!(texts(&[at("b/notes.md")]), ["notes"]);
    for (name, expected) in [("none.txt", "no such file"), ("*.none", "matches no file")] {
        let error = read(&[at(name)]).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(name), "{error}");
    }
    fs::create_dir(at("empty")).unwrap();
    let error = read(&[at("empty")]).unwrap_err().to_string();
    assert!(error.contains("contains no corpus file"), "{error}");
    // Regression: an empty folder after a file was ignored.
    fs::write(at("full.txt"), "A text.\n").unwrap();
    let error = read(&[at("full.txt"), at("empty")]).unwrap_err().to_string();
    assert!(error.contains("contains no corpus file") && error.contains("empty"), "{error}");
}

#[test]
fn invalid_text_errors_name_file_and_byte() {
    fails("a.txt", b"", &["no text"]);
    fails("a.txt", b"\n \n\t\n", &["no text"]);
    fails("a.txt", &[0; 64], &["a.txt: ", "NUL", "binary"]);
    fails("a.txt", b"Good.\nCaf\xe9.\n", &["a.txt:2: byte 4 of the line (0xe9)", "UTF-8"]);
    fails("a.txt.gz", &gzip(b"Good.\nCaf\xe9.\n"), &["a.txt.gz:2: byte 4"]);
    fails("a.txt.gz", b"", &["gzip"]);
    let long = gzip(&b"A line of text. \n".repeat(10_000));
    fails("a.txt.gz", &long[..long.len() / 2], &["gzip", "incomplete"]);
    let long = zstd("Éa line of text. \n".repeat(10_000).as_bytes());
    fails("a.txt.zst", &long[..long.len() - 5], &["zstd", "incomplete"]);
}

#[test]
fn invalid_json_errors_name_the_line() {
    let good = "{\"text\": \"x\"}\n";
    fails("a.jsonl", format!("{good}{{\"text\": \"y\"\n").as_bytes(), &["a.jsonl:2", "column"]);
    fails("a.jsonl", format!("{good}[1]\n").as_bytes(), &[":2", "object"]);
    fails("a.jsonl", format!("{good}{good}{{\"text\": 5}}").as_bytes(), &[":3", "a number"]);
    fails("a.jsonl", b"{\"body\": \"x\", \"id\": 1}\n", &[":1", "\"text\"", "body, id"]);
    fails("a.jsonl", b"{\"text\": \"x\"} {\"text\": \"y\"}\n", &[":1", "trailing"]);
    let options = CorpusOptions { text_column: "body".into() };
    let error = open_corpus(&[fixture("snappy.parquet")], &options).unwrap().next().unwrap().unwrap_err();
    assert!(error.to_string().contains("among id, text"), "{error}");
}

#[test]
fn the_stream_ends_after_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.txt");
    fs::write(&path, b"Good.\n\n\xff\n\nGood.\n").unwrap();
    let mut corpus = open_corpus(&[path], &CorpusOptions::default()).unwrap();
    assert!(corpus.next().unwrap().is_ok());
    assert!(corpus.next().unwrap().is_err());
    assert!(corpus.next().is_none());
}

#[test]
fn long_documents_are_split_without_loss() {
    let dir = tempfile::tempdir().unwrap();
    let keep = |text: &str| text.split_whitespace().collect::<String>();
    // Lines; one line with spaces; one line of multi-byte characters without spaces.
    for text in ["Some words here.\n".repeat(700_000), "Some words here. ".repeat(700_000), "これは".repeat(1_100_000)]
    {
        let path = dir.path().join("a.txt");
        fs::write(&path, &text).unwrap();
        let mut corpus = open_corpus(&[path], &CorpusOptions::default()).unwrap();
        let parts: Vec<Document> = corpus.by_ref().collect::<Result<_, _>>().unwrap();
        assert!(parts.len() > 2 && parts.iter().all(|d| d.text.len() <= MAX_DOCUMENT));
        let joined: String = parts.iter().map(|d| keep(&d.text)).collect();
        assert!(joined == keep(&text), "text was lost");
        assert_eq!(corpus.notes().split_documents, 1);

        let parts = split(text.clone(), MAX_DOCUMENT);
        assert!(parts.len() > 1 && parts.iter().all(|p| p.len() <= MAX_DOCUMENT));
        assert!(parts.iter().map(|p| keep(p)).collect::<String>() == keep(&text));
    }
}

#[test]
fn long_files_without_blank_lines_are_noted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.txt");
    fs::write(&path, "A line.\n".repeat(10_001)).unwrap();
    let empty = dir.path().join("b.txt");
    fs::write(&empty, "\n").unwrap();
    let mut corpus = open_corpus(&[dir.path().into()], &CorpusOptions::default()).unwrap();
    assert_eq!(corpus.by_ref().filter(Result::is_ok).count(), 1);
    assert_eq!(corpus.notes().no_boundaries, [path]);
    assert_eq!(corpus.notes().empty_files, [empty]);
    assert_eq!(corpus.notes().files, 2);
}

#[test]
fn parquet_columns_of_each_type_as_texts() {
    let columns = ParquetColumns::open(&fixture("columns.parquet")).unwrap();
    let names = columns.names();
    let read = |name: &str| columns.read(names.iter().position(|n| n == name).unwrap());
    for (name, expected) in [
        ("text", [Some("é"), None, Some(""), Some("x\ty")]),
        ("signed", [Some("-1"), Some("2"), None, Some("9007199254740993")]),
        ("small", [Some("-128"), Some("127"), Some("0"), Some("1")]),
        ("unsigned", [Some("4294967295"), Some("0"), Some("1"), Some("2")]),
        ("single", [Some("0.1"), Some("5"), None, Some("0.0000001")]),
        ("double", [Some("0.1"), Some("3.8"), Some("-0.5"), None]),
        ("flag", [Some("true"), Some("false"), None, Some("true")]),
        ("pair.left", [Some("l"); 4]),
    ] {
        assert_eq!(read(name).unwrap(), expected.map(|value| value.map(String::from)), "{name}");
    }
    for (name, kind) in [("list.list.element", "lists"), ("day", "Date")] {
        let error = read(name).unwrap_err().to_string();
        assert!(error.contains("columns.parquet") && error.contains(name) && error.contains(kind), "{error}");
    }
    assert!(columns.read(names.len()).unwrap_err().to_string().contains("no column 11"));
    let list = names.iter().position(|name| name == "list.list.element").unwrap();
    assert_eq!([list, 0, 99].map(|column| columns.list_name(column)), [Some("list".to_owned()), None, None]);
    let lists = [Some("[\"a\"]"), Some("[]"), None, Some("[\"b\",\"c\"]")];
    assert_eq!(columns.read_lists(list).unwrap(), lists.map(|list| list.map(String::from)));
    assert!(columns.read_lists(0).unwrap_err().to_string().contains("contains no lists"));
    assert!(ParquetColumns::open(&fixture("make.py")).is_err());
}

#[test]
fn damaged_parquet_columns_are_an_error_and_never_a_panic() {
    let original = fs::read(fixture("columns.parquet")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    let mut errors = 0;
    for at in 4..original.len() {
        let mut bytes = original.clone();
        bytes[at] ^= 0x55;
        fs::write(&path, bytes).unwrap();
        match ParquetColumns::open(&path) {
            Ok(columns) => {
                let all = 0..columns.names().len();
                errors += all.clone().filter(|&column| columns.read(column).is_err()).count();
                all.for_each(|column| drop(columns.read_lists(column)));
            }
            Err(error) => {
                assert!(error.to_string().contains("x.parquet"), "{error}");
                errors += 1;
            }
        }
    }
    assert!(errors > 100, "{errors}");
}

#[test]
fn read_file_decompresses_each_format() {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in [("a.tsv", b"a\tb".to_vec()), ("a.tsv.gz", gzip(b"a\tb")), ("a.tsv.zst", zstd(b"a\tb"))] {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        assert_eq!(read_file(&path).unwrap(), b"a\tb", "{name}");
    }
    assert!(read_file(&dir.path().join("none")).unwrap_err().to_string().contains("none"));
}

/// Regressions: one NUL byte stopped the run; a byte-order mark inside a file, as in concatenated files, stayed in the text;
/// an unpaired surrogate escape was an error.
#[test]
fn r18_r31_r17_marks_nul_bytes_and_surrogates() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.txt");
    fs::write(&path, b"\xef\xbb\xbfone two\n\n\xef\xbb\xbfth\0ree four\n").unwrap();
    let json = dir.path().join("b.jsonl");
    fs::write(&json, "\u{feff}{\"text\": \"a\\ud83d\"}\n\u{feff}{\"text\": \"b\\u0000\", \"x\": \"\\ud83d\"}\n")
        .unwrap();
    let returns = dir.path().join("c.txt");
    fs::write(&returns, "five\rsix\r\rseven").unwrap();
    let mut corpus = open_corpus(&[path, json, returns], &CorpusOptions::default()).unwrap();
    let found: Vec<String> = corpus.by_ref().map(|document| document.unwrap().text).collect();
    assert_eq!(found, ["one two", "three four", "a\u{fffd}", "b\0", "five\nsix", "seven"]);
    assert_eq!((corpus.notes().nul_bytes, corpus.notes().lone_surrogates), (1, 1));
}

/// Regression: one megabyte of gzip took gigabytes of memory.
#[test]
fn reliability_8a_an_implausible_compression_ratio_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("b.csv.gz");
    let line = [&[b'a'; 127][..], b"\n"].concat();
    let mut encoder = flate2::write::GzEncoder::new(fs::File::create(&path).unwrap(), flate2::Compression::best());
    (0..600_000).for_each(|_| encoder.write_all(&line).unwrap());
    encoder.finish().unwrap();
    let error = read_text(&path).unwrap_err().to_string();
    assert!(error.contains("b.csv.gz: is more than 200 times larger"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_peeked_pipe_is_read_from_its_beginning() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let path = PathBuf::from(format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader)));
    if !path.exists() {
        return;
    }
    writer.write_all(b"\n one\ntwo\nth").unwrap();
    assert_eq!(peek(&path).unwrap(), FileStart { bytes: b"\n one\n".to_vec(), is_pipe: true });
    writer.write_all(b"ree").unwrap();
    drop(writer);
    assert_eq!(read_text(&path).unwrap().0, "\n one\ntwo\nthree");
}

/// Found by fuzzing: the `parquet` crate panicked.
#[test]
fn damaged_pages_that_were_panics_are_errors() {
    let damaged = |name: &str, changes: &[(usize, u8)]| {
        let mut bytes = fs::read(fixture(name)).unwrap();
        changes.iter().for_each(|&(at, byte)| bytes[at] = byte);
        bytes
    };
    // The place of the dictionary is wrong, so that the first page has indices into none.
    let indices = damaged("zstd-dictionary-v1.parquet", &[(784, 120), (1264, 166)]);
    fails("x.parquet", &indices, &["a page of indices without a dictionary"]);
    // A text ends with the page, and another one is to follow.
    let values = damaged("snappy.parquet", &[(709, 62)]);
    fails("x.parquet", &values, &["Not enough bytes to decode"]);
}

/// A Parquet file of one column of texts.
fn write_parquet(path: &Path, texts: &[ByteArray], levels: &[i16]) {
    let schema = parse_message_type("message m { optional binary text (utf8); }").unwrap();
    let file = fs::File::create(path).unwrap();
    let mut file = SerializedFileWriter::new(file, schema.into(), Default::default()).unwrap();
    let mut group = file.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(texts, Some(levels), None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    file.close().unwrap();
}

/// Parquet counts equal values: a kilobyte can stand for gigabytes.
#[test]
fn a_parquet_file_of_endless_repetitions_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    write_parquet(&path, &[], &vec![0; 3_000_000]);
    assert!(fs::metadata(&path).unwrap().len() < 10_000);
    let error = ParquetColumns::open(&path).unwrap().read(0).unwrap_err().to_string();
    assert!(error.contains("x.parquet") && error.contains("200 times larger when decoded"), "{error}");
    let text = ByteArray::from("a ".repeat(50_000).into_bytes());
    write_parquet(&path, &vec![text; 1000], &[1; 1000]);
    assert!(fs::metadata(&path).unwrap().len() < 200_000);
    let error = read(&[path]).unwrap_err().to_string();
    assert!(error.contains("x.parquet") && error.contains("200 times larger when decoded"), "{error}");
}

/// Each seed must give documents or an error, without a panic.
#[test]
fn seeds_of_the_fuzz_targets_are_read() {
    let dir = tempfile::tempdir().unwrap();
    const NAMES: [&str; 7] = ["a.txt", "a.jsonl", "a.tokens", "a", "a.txt.gz", "a.jsonl.zst", "a.json"];
    let texts = fuzz_seeds("corpus").into_iter().map(|seed| (NAMES[usize::from(seed[0] - b'0')], seed[1..].to_vec()));
    let tables = fuzz_seeds("parquet_corpus").into_iter().map(|seed| ("a.parquet", seed));
    for (name, bytes) in texts.chain(tables) {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let _ = read(&[path]);
    }
}
