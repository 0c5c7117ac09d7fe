//! Streaming writer of vectors: to a temporary file, which is renamed at the end.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use cloze_files::AtomicFile;

use super::header;
use super::matrix::Element;
use super::memory::Vectors;
use super::quantized::Ranges;
use crate::TaskError;

/// A file format of vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// NumPy's format: a matrix of little-endian f32.
    Npy,
    /// One tensor `embeddings`, `[N, D]` of f32.
    Safetensors,
    /// One object per line: `{"text": …, "embedding": […]}`.
    Jsonl,
}

impl Format {
    /// The format of a file name's extension; none for other extensions.
    pub fn of(path: &Path) -> Option<Format> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "npy" => Some(Format::Npy),
            "safetensors" => Some(Format::Safetensors),
            "jsonl" => Some(Format::Jsonl),
            _ => None,
        }
    }
}

/// A writer of a matrix of bytes or f32. If it is dropped before [`finish`](Self::finish), it leaves no file.
pub(super) struct RawWriter {
    file: AtomicFile,
    header: Header,
    rows: u64,
}

/// What the header of a file says apart from the number of rows.
struct Header {
    format: Format,
    element: Element,
    columns: usize,
    has_ranges: bool,
}

impl Header {
    /// The header for this number of rows.
    fn bytes(&self, rows: u64) -> Vec<u8> {
        match self.format {
            Format::Npy => header::npy(self.element, rows, self.columns),
            Format::Safetensors if self.has_ranges => header::safetensors_with_ranges(self.element, rows, self.columns),
            Format::Safetensors => header::safetensors(self.element, rows, self.columns),
            Format::Jsonl => Vec::new(),
        }
    }
}

impl RawWriter {
    /// Creates a temporary file for rows of `columns` numbers. The ranges of the dimensions are stored in a
    /// `.safetensors` file.
    pub(super) fn create(
        path: &Path,
        element: Element,
        columns: usize,
        ranges: Option<&Ranges>,
    ) -> Result<RawWriter, TaskError> {
        let Some(format) = Format::of(path) else {
            let problem =
                format!("expected a name with the extension .npy, .safetensors or .jsonl, found {}", path.display());
            return Err(TaskError::setting("out", problem));
        };
        let ranges = ranges.filter(|_| format == Format::Safetensors);
        let header = Header { format, element, columns, has_ranges: ranges.is_some() };
        let mut file = AtomicFile::create(path)?;
        file.write_with(|file| {
            file.write_all(&header.bytes(0))?;
            ranges.iter().try_for_each(|ranges| write_values(file, &ranges.rows()))
        })?;
        Ok(RawWriter { file, header, rows: 0 })
    }

    /// Writes the bytes of rows.
    pub(super) fn push(&mut self, rows: usize, bytes: &[u8]) -> Result<(), TaskError> {
        self.push_with(rows, |file| file.write_all(bytes))
    }

    fn push_with(
        &mut self,
        rows: usize,
        fill: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<(), TaskError> {
        self.rows += rows as u64;
        Ok(self.file.write_with(fill)?)
    }

    /// Writes the number of rows into the header and renames the file to its final name.
    pub(super) fn finish(mut self) -> Result<(), TaskError> {
        self.file.write_start(&self.header.bytes(self.rows))?;
        Ok(self.file.commit()?)
    }
}

fn write_values(file: &mut BufWriter<File>, vectors: &Vectors) -> io::Result<()> {
    vectors.values().iter().try_for_each(|x| file.write_all(&x.to_le_bytes()))
}

/// A writer of a file of vectors. If it is dropped before [`finish`](Self::finish), it leaves no file.
pub struct Writer {
    raw: RawWriter,
}

impl Writer {
    /// Creates a temporary file for vectors with `width` dimensions.
    ///
    /// # Errors
    /// [`TaskError::Setting`] for extensions other than `.npy`, `.safetensors` and `.jsonl`; [`TaskError::Io`].
    pub fn create(path: &Path, width: usize) -> Result<Writer, TaskError> {
        Ok(Writer { raw: RawWriter::create(path, Element::F32, width, None)? })
    }

    /// Writes vectors, and their texts if the format has them. Panics unless there is one text for each vector and the
    /// number of dimensions is that of the writer.
    ///
    /// # Errors
    /// [`TaskError::Io`].
    pub fn push<S: AsRef<str>>(&mut self, texts: &[S], vectors: &Vectors) -> Result<(), TaskError> {
        assert_eq!(
            (texts.len(), self.raw.header.columns),
            (vectors.len(), vectors.width()),
            "expected one text for each vector, with the dimensions of the writer"
        );
        match self.raw.header.format {
            Format::Npy | Format::Safetensors => self.raw.push_with(texts.len(), |file| write_values(file, vectors)),
            Format::Jsonl => self.raw.push_with(texts.len(), |file| {
                texts.iter().zip(vectors.rows()).try_for_each(|(text, row)| {
                    serde_json::to_writer(&mut *file, &Line { text: text.as_ref(), embedding: row })?;
                    file.write_all(b"\n")
                })
            }),
        }
    }

    /// Writes the number of vectors into the header and renames the file to its final name.
    ///
    /// # Errors
    /// [`TaskError::Io`].
    pub fn finish(self) -> Result<(), TaskError> {
        self.raw.finish()
    }
}

#[derive(serde::Serialize)]
struct Line<'a> {
    text: &'a str,
    embedding: &'a [f32],
}

#[cfg(test)]
mod tests {
    use super::super::read_npy;
    use super::*;

    const TEXTS: [&str; 3] = ["one", "two \"quoted\"", ""];

    fn vectors() -> Vectors {
        Vectors::new(2, vec![1.5, -2.25, 0.1, 1e-30, f32::MAX, -0.0])
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn each_format_is_lossless() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["x.npy", "x.safetensors", "x.jsonl"] {
            let mut writer = Writer::create(&path(name), 2).unwrap();
            let two = Vectors::new(2, vectors().values()[..4].to_vec());
            let one = Vectors::new(2, vectors().values()[4..].to_vec());
            writer.push(&TEXTS[..2], &two).unwrap();
            writer.push(&TEXTS[2..], &one).unwrap();
            writer.finish().unwrap();
        }
        assert_eq!(names(dir.path()), ["x.jsonl", "x.npy", "x.safetensors"]);
        let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let expected = bits(vectors().values());

        let npy = read_npy(&path("x.npy")).unwrap();
        assert_eq!((npy.len(), npy.width(), bits(npy.values())), (3, 2, expected.clone()));

        let bytes = std::fs::read(path("x.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.names(), ["embeddings"]);
        let tensor = file.tensor("embeddings").unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (safetensors::Dtype::F32, &[3, 2][..]));
        let values: Vec<f32> = tensor.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        assert_eq!(bits(&values), expected);

        #[derive(serde::Deserialize)]
        struct Read {
            text: String,
            embedding: Vec<f32>,
        }
        let lines = std::fs::read_to_string(path("x.jsonl")).unwrap();
        let lines: Vec<Read> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.iter().map(|line| &line.text[..]).collect::<Vec<_>>(), TEXTS);
        assert_eq!(bits(&lines.iter().flat_map(|line| line.embedding.clone()).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn unfinished_writers_leave_no_file_and_keep_the_existing_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npy");
        std::fs::write(&path, "old").unwrap();
        let mut writer = Writer::create(&path, 2).unwrap();
        writer.push(&TEXTS, &vectors()).unwrap();
        let written = names(dir.path());
        assert!(
            written[0].starts_with(".x.npy.") && written[0].ends_with(".partial") && written[1..] == ["x.npy"],
            "{written:?}"
        );
        drop(writer);
        assert_eq!(names(dir.path()), ["x.npy"]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        let absent = dir.path().join("absent/x.npy");
        assert!(Writer::create(&absent, 2).err().unwrap().to_string().contains("absent"));
        assert!(Writer::create(&dir.path().join("x.csv"), 2).err().unwrap().to_string().contains(".safetensors"));
    }
}
