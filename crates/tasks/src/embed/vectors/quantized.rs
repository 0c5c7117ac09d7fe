//! Quantized vectors: a byte or a bit for each dimension, as `quantize_embeddings` of sentence-transformers computes them.
//!
//! | precision | a number is | range |
//! | --- | --- | --- |
//! | `uint8` | ⌊(x − min) / step⌋, limited to 0 … 255, with step = (max − min) / 255 | of each dimension |
//! | `int8` | the same minus 128 | of each dimension |
//! | `ubinary` | eight dimensions, the first in the highest bit: 1 if x > 0; zeros fill the last byte | – |
//! | `binary` | the same byte minus 128, as a signed byte | – |

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::matrix::{Element, StoredMatrix, ranges_path};
use super::memory::Vectors;
use super::writer::{Format, RawWriter, Writer};
use crate::TaskError;

/// How the numbers of vectors are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Precision {
    /// A signed byte for each dimension.
    Int8,
    /// An unsigned byte for each dimension.
    Uint8,
    /// A bit for each dimension, in signed bytes.
    Binary,
    /// A bit for each dimension, in unsigned bytes.
    Ubinary,
}

impl Precision {
    /// All precisions, with names (those of sentence-transformers) and descriptions.
    pub const ALL: [(Precision, &'static str, &'static str); 4] = [
        (Precision::Int8, "int8", "A signed byte for each dimension: 4 times smaller"),
        (Precision::Uint8, "uint8", "An unsigned byte for each dimension: 4 times smaller"),
        (Precision::Binary, "binary", "A bit for each dimension, in signed bytes: 32 times smaller"),
        (Precision::Ubinary, "ubinary", "A bit for each dimension, in unsigned bytes: 32 times smaller"),
    ];

    /// The name, as in sentence-transformers.
    pub fn name(self) -> &'static str {
        Precision::ALL.iter().find(|(precision, ..)| *precision == self).map_or("", |(_, name, _)| name)
    }

    /// Whether a dimension is a bit.
    pub fn is_binary(self) -> bool {
        matches!(self, Precision::Binary | Precision::Ubinary)
    }

    /// The type of the stored numbers.
    pub fn element(self) -> Element {
        match self {
            Precision::Int8 | Precision::Binary => Element::I8,
            Precision::Uint8 | Precision::Ubinary => Element::U8,
        }
    }

    /// The number of stored bytes of a vector.
    pub fn columns(self, dimensions: usize) -> usize {
        if self.is_binary() { dimensions.div_ceil(8) } else { dimensions }
    }
}

/// The minimum and the maximum of each dimension, which quantization to a byte maps to 0 and 255.
#[derive(Clone, Debug, PartialEq)]
pub struct Ranges {
    lows: Vec<f32>,
    highs: Vec<f32>,
    /// What one step of a byte means; 1 for a dimension that is constant.
    steps: Vec<f32>,
}

impl Ranges {
    /// The ranges of the dimensions of these vectors. None if there are no vectors.
    pub fn of(vectors: &Vectors) -> Option<Ranges> {
        let mut bounds = Bounds::default();
        bounds.add(vectors);
        bounds.ranges()
    }

    /// The ranges of the dimensions of vectors in a file.
    ///
    /// # Errors
    /// [`TaskError::File`] for quantized vectors, and for numbers that are not finite.
    pub fn of_matrix(matrix: &StoredMatrix) -> Result<Ranges, TaskError> {
        if matrix.element() != Element::F32 {
            let problem =
                "expected vectors in f32, found quantized ones; compute them with `cloze embed` without `quantize`";
            return Err(TaskError::file(matrix.path(), problem));
        }
        let (mut bounds, mut buffer) = (Bounds::default(), Vec::new());
        for start in (0..matrix.rows()).step_by(BLOCK_ROWS) {
            let rows = start..matrix.rows().min(start + BLOCK_ROWS);
            let values = matrix.values(rows, &mut buffer);
            if values.iter().any(|value| !value.is_finite()) {
                let problem = "contains NaN or infinite values; compute the vectors again with `cloze embed`";
                return Err(TaskError::file(matrix.path(), problem));
            }
            bounds.add(&Vectors::new(matrix.columns(), values.to_vec()));
        }
        // A matrix has at least one row.
        Ok(bounds.ranges().unwrap_or_else(|| Ranges::new(Vec::new(), Vec::new())))
    }

    /// The ranges of a matrix with two rows, the minima and the maxima.
    pub(super) fn of_rows(rows: &Vectors) -> Result<Ranges, String> {
        if rows.len() != 2 {
            return Err(format!(
                "expected two rows, the minima and the maxima of the dimensions, found {}",
                rows.len()
            ));
        }
        let is_valid =
            rows.row(0).iter().zip(rows.row(1)).all(|(low, high)| low.is_finite() && high.is_finite() && low <= high);
        if !is_valid {
            return Err("expected finite minima that are not above the maxima".to_owned());
        }
        Ok(Ranges::new(rows.row(0).to_vec(), rows.row(1).to_vec()))
    }

    fn new(lows: Vec<f32>, highs: Vec<f32>) -> Ranges {
        let steps = lows.iter().zip(&highs).map(|(low, high)| (high - low) / 255.0);
        let steps = steps.map(|step| if step == 0.0 { 1.0 } else { step }).collect();
        Ranges { lows, highs, steps }
    }

    /// Two rows: the minima and the maxima.
    pub fn rows(&self) -> Vectors {
        Vectors::new(self.width(), [&self.lows[..], &self.highs].concat())
    }

    /// The number of dimensions.
    pub fn width(&self) -> usize {
        self.lows.len()
    }

    /// Appends a vector as unsigned bytes.
    fn reduce(&self, vector: &[f32], to: &mut Vec<u8>) {
        for ((x, low), step) in vector.iter().zip(&self.lows).zip(&self.steps) {
            // The conversion limits it to 0 … 255.
            to.push(((x - low) / step).floor() as u8);
        }
    }

    /// Appends the vector that was stored as bytes: minimum + step · byte.
    pub(super) fn restore(&self, bytes: &[u8], element: Element, to: &mut Vec<f32>) {
        let offset = if element == Element::I8 { SIGN } else { 0 };
        let parts = bytes.iter().zip(&self.lows).zip(&self.steps);
        to.extend(parts.map(|((byte, low), step)| low + step * f32::from(byte ^ offset)));
    }
}

/// What turns an unsigned byte into the signed byte minus 128, and back.
pub(crate) const SIGN: u8 = 0x80;

/// Rows that are read from a file at a time.
const BLOCK_ROWS: usize = 4096;

/// The minima and maxima of the dimensions of vectors so far.
#[derive(Default)]
struct Bounds {
    lows: Vec<f32>,
    highs: Vec<f32>,
    rows: usize,
}

impl Bounds {
    fn add(&mut self, vectors: &Vectors) {
        if self.rows == 0 {
            self.lows = vec![f32::INFINITY; vectors.width()];
            self.highs = vec![f32::NEG_INFINITY; vectors.width()];
        }
        self.rows += vectors.len();
        for row in vectors.rows() {
            for ((low, high), x) in self.lows.iter_mut().zip(&mut self.highs).zip(row) {
                *low = low.min(*x);
                *high = high.max(*x);
            }
        }
    }

    fn ranges(self) -> Option<Ranges> {
        (self.rows > 0).then(|| Ranges::new(self.lows, self.highs))
    }
}

/// Vectors as bytes, row-major, [`Precision::columns`] for each vector. `ranges` is needed for `int8` and `uint8`.
///
/// The bytes are those of sentence-transformers' `quantize_embeddings(vectors, precision, ranges)`.
///
/// # Errors
/// [`TaskError::Setting`] without ranges that are needed, or with those of a different number of dimensions.
pub fn quantize(vectors: &Vectors, precision: Precision, ranges: Option<&Ranges>) -> Result<Vec<u8>, TaskError> {
    let mut bytes = Vec::with_capacity(vectors.len() * precision.columns(vectors.width()));
    if precision.is_binary() {
        vectors.rows().for_each(|row| pack_bits(row, &mut bytes));
    } else {
        let width = vectors.width();
        let Some(ranges) = ranges.filter(|ranges| ranges.width() == width) else {
            let found = ranges.map_or("none".to_owned(), |ranges| format!("{} dimensions", ranges.width()));
            let problem = format!("{} needs the ranges of {width} dimensions, found {found}", precision.name());
            return Err(TaskError::setting("calibrate", problem));
        };
        vectors.rows().for_each(|row| ranges.reduce(row, &mut bytes));
    }
    if precision.element() == Element::I8 {
        bytes.iter_mut().for_each(|byte| *byte ^= SIGN);
    }
    Ok(bytes)
}

/// Appends the bits of a vector: 1 for positive numbers, eight in a byte, the first in the highest bit.
pub(crate) fn pack_bits(vector: &[f32], to: &mut Vec<u8>) {
    for eight in vector.chunks(8) {
        let bits = eight.iter().enumerate().map(|(place, x)| u8::from(*x > 0.0) << (7 - place));
        to.push(bits.fold(0, |byte, bit| byte | bit));
    }
}

/// A streaming writer of quantized vectors.
///
/// Without given ranges, `int8` and `uint8` need a second pass: the vectors are first written in f32 to a temporary file
/// in the folder of the output, which is removed at the end. The memory does not grow with their number.
pub struct QuantizedWriter {
    path: PathBuf,
    precision: Precision,
    dimensions: usize,
    rows: usize,
    state: State,
}

enum State {
    /// The ranges are known.
    Direct(RawWriter, Option<Ranges>),
    /// The ranges are those of all vectors, which are here in f32.
    Spooled(BufWriter<File>, Bounds),
}

impl QuantizedWriter {
    /// Creates temporary files for vectors with `dimensions` dimensions.
    ///
    /// # Errors
    /// [`TaskError::Setting`] for extensions other than `.npy` and `.safetensors`, and for ranges of a different number
    /// of dimensions; [`TaskError::Io`].
    pub fn create(
        path: &Path,
        dimensions: usize,
        precision: Precision,
        ranges: Option<Ranges>,
    ) -> Result<QuantizedWriter, TaskError> {
        if !matches!(Format::of(path), Some(Format::Npy | Format::Safetensors)) {
            let problem = format!(
                "expected a name with the extension .npy or .safetensors for quantized vectors, found {}",
                path.display()
            );
            return Err(TaskError::setting("out", problem));
        }
        if let Some(found) = ranges.as_ref().map(Ranges::width)
            && found != dimensions
        {
            let problem = format!("expected vectors of {dimensions} dimensions, as those to write, found {found}");
            return Err(TaskError::setting("calibrate", problem));
        }
        let state = if precision.is_binary() || ranges.is_some() {
            let ranges = ranges.filter(|_| !precision.is_binary());
            State::Direct(raw_writer(path, precision, dimensions, ranges.as_ref())?, ranges)
        } else {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let file = tempfile::tempfile_in(folder).map_err(|e| TaskError::io("write", path, e))?;
            State::Spooled(BufWriter::new(file), Bounds::default())
        };
        Ok(QuantizedWriter { path: path.to_owned(), precision, dimensions, rows: 0, state })
    }

    /// Writes vectors. Panics if their number of dimensions is different.
    ///
    /// # Errors
    /// [`TaskError::Io`].
    pub fn push(&mut self, vectors: &Vectors) -> Result<(), TaskError> {
        assert_eq!(vectors.width(), self.dimensions, "expected vectors with the dimensions of the writer");
        self.rows += vectors.len();
        match &mut self.state {
            State::Direct(writer, ranges) => {
                writer.push(vectors.len(), &quantize(vectors, self.precision, ranges.as_ref())?)
            }
            State::Spooled(file, bounds) => {
                bounds.add(vectors);
                let written = vectors.values().iter().try_for_each(|x| file.write_all(&x.to_le_bytes()));
                written.map_err(|e| TaskError::io("write", &self.path, e))
            }
        }
    }

    /// Completes the file, and that of the ranges if the format is `.npy`. Returns the ranges.
    ///
    /// # Errors
    /// [`TaskError::Io`]; [`TaskError::Input`] if ranges are needed and there is only one vector.
    pub fn finish(self) -> Result<Option<Ranges>, TaskError> {
        let QuantizedWriter { path, precision, dimensions, rows, state } = self;
        let (writer, ranges) = match state {
            State::Direct(writer, ranges) => (writer, ranges),
            State::Spooled(file, bounds) => {
                let ranges = match bounds.ranges() {
                    Some(ranges) if rows > 1 => ranges,
                    _ => {
                        let problem = format!(
                            "expected at least two vectors, whose range in each dimension {} needs, found {rows}; give representative vectors with `calibrate`",
                            precision.name()
                        );
                        return Err(TaskError::input("vectors", problem));
                    }
                };
                let failed = |e: std::io::Error| TaskError::io("read", &path, e);
                let mut file = file.into_inner().map_err(|e| TaskError::io("write", &path, e.into_error()))?;
                file.rewind().map_err(failed)?;
                let mut file = BufReader::new(file);
                let mut writer = raw_writer(&path, precision, dimensions, Some(&ranges))?;
                for start in (0..rows).step_by(BLOCK_ROWS) {
                    let count = BLOCK_ROWS.min(rows - start);
                    let mut bytes = vec![0; count * dimensions * 4];
                    file.read_exact(&mut bytes).map_err(failed)?;
                    let values = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
                    writer.push(count, &quantize(&Vectors::new(dimensions, values), precision, Some(&ranges))?)?;
                }
                (writer, Some(ranges))
            }
        };
        if let (Some(ranges), Some(Format::Npy)) = (&ranges, Format::of(&path)) {
            let mut beside = Writer::create(&ranges_path(&path), dimensions)?;
            beside.push(&["min", "max"], &ranges.rows())?;
            beside.finish()?;
        }
        writer.finish()?;
        Ok(ranges)
    }
}

fn raw_writer(
    path: &Path,
    precision: Precision,
    dimensions: usize,
    ranges: Option<&Ranges>,
) -> Result<RawWriter, TaskError> {
    RawWriter::create(path, precision.element(), precision.columns(dimensions), ranges)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Results of sentence-transformers: see fixtures/embed/make_search.py.
    fn reference() -> Value {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/embed/quantized.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    fn vectors(value: &Value) -> Vectors {
        let rows = value.as_array().unwrap();
        let width = rows[0].as_array().unwrap().len();
        let numbers = rows.iter().flat_map(|row| row.as_array().unwrap());
        Vectors::new(width, numbers.map(|x| x.as_f64().unwrap() as f32).collect())
    }

    fn bytes(value: &Value, element: Element) -> Vec<u8> {
        let numbers = value.as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
        let byte = |x: &Value| match element {
            Element::I8 => x.as_i64().unwrap() as i8 as u8,
            _ => x.as_u64().unwrap() as u8,
        };
        numbers.map(byte).collect()
    }

    #[test]
    fn bytes_equal_those_of_sentence_transformers() {
        let reference = reference();
        let (all, few) = (vectors(&reference["vectors"]), vectors(&reference["calibration"]));
        for (precision, name, _) in Precision::ALL {
            for (calibration, key) in [(&all, "own"), (&few, "calibrated")] {
                let expected = bytes(&reference[key][name], precision.element());
                let ranges = Ranges::of(calibration);
                let found = quantize(&all, precision, ranges.as_ref()).unwrap();
                assert_eq!(found, expected, "{name}, {key}");
                // The written files have the same bytes, with given ranges and with those of a second pass.
                for format in ["npy", "safetensors"] {
                    let dir = tempfile::tempdir().unwrap();
                    let path = dir.path().join(format!("x.{format}"));
                    let given = ranges.clone().filter(|_| key == "calibrated");
                    let mut writer = QuantizedWriter::create(&path, all.width(), precision, given).unwrap();
                    let half = all.len() / 2 * all.width();
                    writer.push(&Vectors::new(all.width(), all.values()[..half].to_vec())).unwrap();
                    writer.push(&Vectors::new(all.width(), all.values()[half..].to_vec())).unwrap();
                    let used = writer.finish().unwrap();
                    let matrix = StoredMatrix::open(&path).unwrap();
                    assert_eq!(matrix.bytes(0..all.len()), expected, "{name}, {key}, {format}");
                    assert_eq!(matrix.ranges(), used.as_ref(), "{name}, {key}, {format}");
                    assert_eq!(used, ranges.clone().filter(|_| !precision.is_binary()));
                    let files = 1 + usize::from(format == "npy" && !precision.is_binary());
                    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), files);
                }
            }
        }
    }

    #[test]
    fn restored_vectors_are_within_a_step() {
        let all = vectors(&reference()["vectors"]);
        let ranges = Ranges::of(&all).unwrap();
        for precision in [Precision::Int8, Precision::Uint8] {
            let bytes = quantize(&all, precision, Some(&ranges)).unwrap();
            for (row, bytes) in all.rows().zip(bytes.chunks(all.width())) {
                let mut restored = Vec::new();
                ranges.restore(bytes, precision.element(), &mut restored);
                for ((x, found), step) in row.iter().zip(restored).zip(&ranges.steps) {
                    assert!(found <= x + 1e-6 && x - found <= step * 1.0001, "{x} {found} {step}");
                }
            }
        }
    }

    #[test]
    fn vectors_that_cannot_be_quantized_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.npy");
        let one = Vectors::new(2, vec![1.0, 2.0]);
        let mut writer = QuantizedWriter::create(&path, 2, Precision::Int8, None).unwrap();
        writer.push(&one).unwrap();
        let line = writer.finish().unwrap_err().to_string();
        assert!(line.contains("at least two vectors") && line.contains("found 1; give"), "{line}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let create = |name: &str, ranges| QuantizedWriter::create(&dir.path().join(name), 3, Precision::Int8, ranges);
        assert!(create("x.jsonl", None).err().unwrap().to_string().contains(".npy or .safetensors"));
        assert!(
            create("x.npy", Ranges::of(&one)).err().unwrap().to_string().contains("expected vectors of 3 dimensions")
        );
        assert!(
            quantize(&one, Precision::Uint8, None)
                .unwrap_err()
                .to_string()
                .contains("needs the ranges of 2 dimensions, found none")
        );
        for (rows, expected) in [
            (vec![1.0, 2.0, 0.5, 2.0], "not above"),
            (vec![f32::NAN, 0.0, 1.0, 1.0], "finite"),
            (vec![1.0, 2.0], "two rows"),
        ] {
            let line = Ranges::of_rows(&Vectors::new(2, rows)).unwrap_err();
            assert!(line.contains(expected), "{line}");
        }
    }
}
