//! Arrow's IPC file format for columns of integers and of lists of integers
//! (<https://arrow.apache.org/docs/format/Columnar.html#ipc-file-format>).
//!
//! Other implementations of Arrow, such as pyarrow, can read the output of `write`. `read` finds the columns of a file in memory
//! without copying them. The metadata is in flatbuffers, for which `polars-arrow-format` has the generated code. The `arrow` crates
//! are not used because they implement all types and took a fifth of the build time.

pub(crate) mod read;
pub(crate) mod write;

/// The first and the last bytes of a file.
const MAGIC: &[u8; 6] = b"ARROW1";
/// Precedes the length of the metadata of a message.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// The alignment of buffers in a file, in bytes.
const ALIGNMENT: usize = 64;

/// The type of the elements of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Int {
    U16,
    U32,
    I32,
    I64,
}

impl Int {
    /// The width in bits, and whether it is signed.
    fn format(self) -> (i32, bool) {
        match self {
            Int::U16 => (16, false),
            Int::U32 => (32, false),
            Int::I32 => (32, true),
            Int::I64 => (64, true),
        }
    }

    fn from_format(format: (i32, bool)) -> Option<Int> {
        [Int::U16, Int::U32, Int::I32, Int::I64].into_iter().find(|int| int.format() == format)
    }

    /// The size of an element in bytes.
    pub(crate) fn size(self) -> usize {
        self.format().0 as usize / 8
    }
}

/// A column of the schema. Elements of lists are never null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub name: String,
    /// The type of the column, or of the elements of its lists.
    pub int: Int,
    pub is_list: bool,
    pub is_nullable: bool,
}

impl Field {
    pub(crate) fn new(name: &str, int: Int) -> Field {
        Field { name: name.to_owned(), int, is_list: false, is_nullable: false }
    }

    pub(crate) fn nullable(name: &str, int: Int) -> Field {
        Field { is_nullable: true, ..Field::new(name, int) }
    }

    pub(crate) fn list(name: &str, int: Int) -> Field {
        Field { is_list: true, ..Field::new(name, int) }
    }
}

#[cfg(test)]
mod tests;
