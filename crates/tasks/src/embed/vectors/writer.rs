//! Writing vectors as they come: aside, and renamed when all are there.

use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::{Vectors, header};
use crate::TaskError;

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// NumPy's: a matrix of little-endian f32.
    Npy,
    /// One tensor `embeddings`, `[N, D]` of f32.
    Safetensors,
    /// `{"text": …, "embedding": […]}` a line.
    Jsonl,
}

impl Format {
    /// By the ending of a name; none if it is no such ending.
    pub fn of(path: &Path) -> Option<Format> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "npy" => Some(Format::Npy),
            "safetensors" => Some(Format::Safetensors),
            "jsonl" => Some(Format::Jsonl),
            _ => None,
        }
    }

    /// The file's beginning for so many rows.
    fn header(self, rows: u64, width: usize) -> Vec<u8> {
        match self {
            Format::Npy => header::npy(rows, width),
            Format::Safetensors => header::safetensors(rows, width),
            Format::Jsonl => Vec::new(),
        }
    }
}

/// A file of vectors being written. Dropped before [`finish`](Self::finish), it leaves nothing.
pub struct Writer {
    path: PathBuf,
    aside: PathBuf,
    format: Format,
    width: usize,
    rows: u64,
    /// None once it is finished.
    file: Option<BufWriter<File>>,
}

impl Writer {
    /// Begins a file of vectors of this width, aside.
    ///
    /// # Errors
    /// [`TaskError::Setting`] for another ending than `.npy`, `.safetensors` and `.jsonl`; [`TaskError::Io`].
    pub fn create(path: &Path, width: usize) -> Result<Writer, TaskError> {
        let (Some(format), Some(name)) = (Format::of(path), path.file_name()) else {
            let problem = format!("{}: expected a name in .npy, .safetensors or .jsonl", path.display());
            return Err(TaskError::setting("--out", problem));
        };
        let aside = path.with_file_name(format!(".{}.partial", name.to_string_lossy()));
        let file = File::create(&aside).map_err(|e| TaskError::io("write", path, e))?;
        let mut writer =
            Writer { path: path.to_owned(), aside, format, width, rows: 0, file: Some(BufWriter::new(file)) };
        let header = format.header(0, width);
        writer.write(|file| file.write_all(&header))?;
        Ok(writer)
    }

    /// Writes vectors, and their texts where the format keeps them. Panics unless there is a text a vector, of the width begun with.
    ///
    /// # Errors
    /// [`TaskError::Io`].
    pub fn push<S: AsRef<str>>(&mut self, texts: &[S], vectors: &Vectors) -> Result<(), TaskError> {
        assert_eq!((texts.len(), self.width), (vectors.len(), vectors.width()), "a text a vector, of one width");
        self.rows += texts.len() as u64;
        match self.format {
            Format::Npy | Format::Safetensors => {
                self.write(|file| vectors.values().iter().try_for_each(|x| file.write_all(&x.to_le_bytes())))
            }
            Format::Jsonl => self.write(|file| {
                for (text, row) in texts.iter().zip(vectors.rows()) {
                    serde_json::to_writer(&mut *file, &Line { text: text.as_ref(), embedding: row })?;
                    file.write_all(b"\n")?;
                }
                Ok(())
            }),
        }
    }

    /// Tells the header how many there are, and puts the file in its place.
    ///
    /// # Errors
    /// [`TaskError::Io`].
    pub fn finish(mut self) -> Result<(), TaskError> {
        let header = self.format.header(self.rows, self.width);
        self.write(|file| {
            if !header.is_empty() {
                file.seek(SeekFrom::Start(0))?;
                file.write_all(&header)?;
            }
            file.flush()?;
            file.get_ref().sync_all()
        })?;
        // Closed before it is renamed: some systems ask for it. From here on there is nothing to remove but on failure.
        self.file = None;
        let renamed = std::fs::rename(&self.aside, &self.path);
        renamed.map_err(|e| {
            let _ = std::fs::remove_file(&self.aside);
            TaskError::io("rename into place", &self.path, e)
        })
    }

    fn write(&mut self, what: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) -> Result<(), TaskError> {
        match &mut self.file {
            Some(file) => what(file).map_err(|e| TaskError::io("write", &self.path, e)),
            None => Ok(()), // only `finish` takes the file, and with it the writer: not reached
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            // What is still in the buffer is not wanted.
            drop(file.into_parts());
            let _ = std::fs::remove_file(&self.aside);
        }
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
    fn each_format_reads_back_to_the_bit() {
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
    fn what_is_not_finished_leaves_nothing_and_spares_the_old() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npy");
        std::fs::write(&path, "old").unwrap();
        let mut writer = Writer::create(&path, 2).unwrap();
        writer.push(&TEXTS, &vectors()).unwrap();
        assert_eq!(names(dir.path()), [".x.npy.partial", "x.npy"]);
        drop(writer);
        assert_eq!(names(dir.path()), ["x.npy"]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
        let absent = dir.path().join("absent/x.npy");
        assert!(Writer::create(&absent, 2).err().unwrap().to_string().contains("absent"));
        assert!(Writer::create(&dir.path().join("x.csv"), 2).err().unwrap().to_string().contains(".safetensors"));
    }
}
