//! Writes a file of record batches.

use std::io::{self, Write};

use polars_arrow_format::ipc::{self, planus};
use zerocopy::{Immutable, IntoBytes};

use super::{ALIGNMENT, CONTINUATION, Field, MAGIC};

/// The rows of a column. Their type is given by the field.
#[derive(Debug)]
pub(crate) enum Column<'a> {
    /// One number per row. `validity` is false where a row is null.
    Numbers { bytes: &'a [u8], rows: usize, validity: Option<Vec<bool>> },
    /// One list per row: `[rows + 1]` offsets into the elements of all lists.
    Lists { offsets: &'a [i32], bytes: &'a [u8], elements: usize },
}

impl<'a> Column<'a> {
    pub(crate) fn numbers<T: IntoBytes + Immutable>(values: &'a [T]) -> Column<'a> {
        Column::Numbers { bytes: values.as_bytes(), rows: values.len(), validity: None }
    }

    /// Values at which `validity` is false are ignored.
    pub(crate) fn nullable<T: IntoBytes + Immutable>(values: &'a [T], validity: Vec<bool>) -> Column<'a> {
        Column::Numbers { bytes: values.as_bytes(), rows: values.len(), validity: Some(validity) }
    }

    pub(crate) fn lists<T: IntoBytes + Immutable>(offsets: &'a [i32], values: &'a [T]) -> Column<'a> {
        Column::Lists { offsets, bytes: values.as_bytes(), elements: values.len() }
    }

    fn rows(&self) -> usize {
        match self {
            Column::Numbers { rows, .. } => *rows,
            Column::Lists { offsets, .. } => offsets.len() - 1,
        }
    }
}

/// Writes a file: the schema, then a record batch for each call of [`write`](FileWriter::write), then the footer.
pub(crate) struct FileWriter<W> {
    out: W,
    /// Bytes written.
    position: usize,
    schema: ipc::Schema,
    blocks: Vec<ipc::Block>,
}

impl<W: Write> FileWriter<W> {
    pub(crate) fn new(out: W, fields: &[Field]) -> io::Result<FileWriter<W>> {
        let schema = schema_of(fields);
        let mut writer = FileWriter { out, position: 0, schema, blocks: Vec::new() };
        writer.put(MAGIC)?;
        writer.put(&[0; 2])?;
        let header = ipc::MessageHeader::Schema(Box::new(writer.schema.clone()));
        writer.message(header, 0)?;
        Ok(writer)
    }

    /// Writes a record batch. `columns` must match the schema and have the same number of rows.
    pub(crate) fn write(&mut self, columns: &[Column<'_>]) -> io::Result<()> {
        let mut body = Body::default();
        for column in columns {
            match column {
                Column::Numbers { bytes, rows, validity } => {
                    let nulls = validity.iter().flatten().filter(|is_valid| !**is_valid).count();
                    body.node(*rows, nulls);
                    body.buffer(Buffer::Owned(validity.as_deref().filter(|_| nulls > 0).map_or(Vec::new(), bitmap)));
                    body.buffer(Buffer::Borrowed(bytes));
                }
                Column::Lists { offsets, bytes, elements } => {
                    body.node(offsets.len() - 1, 0);
                    body.buffer(Buffer::Borrowed(&[]));
                    body.buffer(Buffer::Borrowed(offsets.as_bytes()));
                    body.node(*elements, 0);
                    body.buffer(Buffer::Borrowed(&[]));
                    body.buffer(Buffer::Borrowed(bytes));
                }
            }
        }
        let offset = self.position;
        let batch = ipc::RecordBatch {
            length: columns.first().map_or(0, Column::rows) as i64,
            nodes: Some(body.nodes),
            buffers: Some(body.locations),
            ..ipc::RecordBatch::default()
        };
        self.message(ipc::MessageHeader::RecordBatch(Box::new(batch)), body.length)?;
        let metadata = self.position - offset;
        for buffer in &body.buffers {
            self.put(buffer.bytes())?;
            self.pad(ALIGNMENT)?;
        }
        let block =
            ipc::Block { offset: offset as i64, meta_data_length: metadata as i32, body_length: body.length as i64 };
        self.blocks.push(block);
        Ok(())
    }

    /// Writes the footer and flushes the file.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        // Marks the end of the messages.
        self.put(&CONTINUATION)?;
        self.put(&[0; 4])?;
        let footer = ipc::Footer {
            version: ipc::MetadataVersion::V5,
            schema: Some(Box::new(std::mem::take(&mut self.schema))),
            record_batches: Some(std::mem::take(&mut self.blocks)),
            ..ipc::Footer::default()
        };
        let mut builder = planus::Builder::new();
        let footer = builder.finish(&footer, None);
        self.put(footer)?;
        self.put(&(footer.len() as i32).to_le_bytes())?;
        self.put(MAGIC)?;
        self.out.flush()?;
        Ok(self.out)
    }

    /// Writes the metadata of a message, padded so that its body is aligned.
    fn message(&mut self, header: ipc::MessageHeader, body_length: usize) -> io::Result<()> {
        let message = ipc::Message {
            version: ipc::MetadataVersion::V5,
            header: Some(header),
            body_length: body_length as i64,
            ..ipc::Message::default()
        };
        let mut builder = planus::Builder::new();
        let metadata = builder.finish(&message, None);
        let end = (self.position + 8 + metadata.len()).next_multiple_of(ALIGNMENT);
        self.put(&CONTINUATION)?;
        self.put(&((end - self.position - 4) as i32).to_le_bytes())?;
        self.put(metadata)?;
        self.pad(ALIGNMENT)
    }

    fn pad(&mut self, alignment: usize) -> io::Result<()> {
        let zeros = [0; ALIGNMENT];
        let length = self.position.next_multiple_of(alignment) - self.position;
        self.put(&zeros[..length])
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.position += bytes.len();
        self.out.write_all(bytes)
    }
}

/// The body of a record batch: its buffers and their locations.
#[derive(Default)]
struct Body<'a> {
    nodes: Vec<ipc::FieldNode>,
    locations: Vec<ipc::Buffer>,
    buffers: Vec<Buffer<'a>>,
    /// Length in bytes, with padding.
    length: usize,
}

enum Buffer<'a> {
    Borrowed(&'a [u8]),
    Owned(Vec<u8>),
}

impl Buffer<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Buffer::Borrowed(bytes) => bytes,
            Buffer::Owned(bytes) => bytes,
        }
    }
}

impl<'a> Body<'a> {
    fn node(&mut self, length: usize, nulls: usize) {
        self.nodes.push(ipc::FieldNode { length: length as i64, null_count: nulls as i64 });
    }

    fn buffer(&mut self, buffer: Buffer<'a>) {
        let length = buffer.bytes().len();
        self.locations.push(ipc::Buffer { offset: self.length as i64, length: length as i64 });
        self.length += length.next_multiple_of(ALIGNMENT);
        self.buffers.push(buffer);
    }
}

/// One bit per row; the first row is in the lowest bit.
fn bitmap(validity: &[bool]) -> Vec<u8> {
    let byte = |rows: &[bool]| rows.iter().rev().fold(0, |byte, is_valid| byte << 1 | u8::from(*is_valid));
    validity.chunks(8).map(byte).collect()
}

fn schema_of(fields: &[Field]) -> ipc::Schema {
    // Numbers are written in the byte order of this machine.
    let endianness = if cfg!(target_endian = "little") { ipc::Endianness::Little } else { ipc::Endianness::Big };
    let fields = fields.iter().map(|field| {
        let (bit_width, is_signed) = field.int.format();
        let int = ipc::Field {
            name: Some(field.name.clone()),
            nullable: field.is_nullable,
            type_: Some(ipc::Type::Int(Box::new(ipc::Int { bit_width, is_signed }))),
            children: Some(Vec::new()),
            ..ipc::Field::default()
        };
        if !field.is_list {
            return int;
        }
        ipc::Field {
            name: Some(field.name.clone()),
            nullable: field.is_nullable,
            type_: Some(ipc::Type::List(Box::new(ipc::List {}))),
            children: Some(vec![ipc::Field { name: Some("item".to_owned()), nullable: false, ..int }]),
            ..ipc::Field::default()
        }
    });
    ipc::Schema { endianness, fields: Some(fields.collect()), ..ipc::Schema::default() }
}
