//! The pages of a parquet column, checked so that the `parquet` crate can decode their values without a panic. The crate
//! decompresses zstd with a C library; here `ruzstd` does it. Page headers use Thrift's compact protocol
//! (<https://github.com/apache/parquet-format>, `PageHeader`).

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, Type};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{ChunkReader, RowGroupReader};
use parquet::schema::types::ColumnDescPtr;
use ruzstd::decoding::FrameDecoder;

use super::compression::is_bomb;

/// The maximum size of a page in bytes.
const MAX_PAGE: usize = 1 << 30;

fn damaged<T>(what: impl Into<String>) -> Result<T> {
    Err(ParquetError::General(what.into()))
}

/// The pages of one column of a row group, for any compression.
pub(super) fn column_pages<R: ChunkReader + 'static>(
    file: &Arc<R>,
    group: &dyn RowGroupReader,
    column: usize,
) -> Result<Box<dyn PageReader>> {
    let meta = group.metadata().column(column);
    // The `parquet` crate panics for negative values.
    let start = meta.dictionary_page_offset().unwrap_or(meta.data_page_offset());
    let (Ok(start), Ok(length)) = (u64::try_from(start), u64::try_from(meta.compressed_size())) else {
        return damaged("a column whose start or length is negative");
    };
    if start.checked_add(length).is_none_or(|end| end > file.len()) {
        return damaged("a column that extends beyond the end of the file");
    }
    let mut pages = ZstdPages::new(file.clone(), meta);
    let pages: Box<dyn PageReader> = match meta.compression() {
        Compression::ZSTD(_) => Box::new(pages),
        _ => {
            // The crate allocates the size in a header before it decompresses the page, so check all headers first.
            while pages.next_page()?.is_some() {}
            group.get_column_page_reader(column)?
        }
    };
    Ok(Box::new(CheckedPages { pages, leaf: meta.column_descr_ptr(), has_dictionary: false }))
}

/// Pages without what the `parquet` crate panics at when it decodes their values.
struct CheckedPages {
    pages: Box<dyn PageReader>,
    leaf: ColumnDescPtr,
    has_dictionary: bool,
}

impl CheckedPages {
    fn check(&mut self, page: &mut Page) -> Result<()> {
        if page.is_dictionary_page() {
            self.has_dictionary = true;
        } else if is_of_dictionary(page.encoding()) && !self.has_dictionary {
            return damaged("a page of indices without a dictionary");
        }
        if let Page::DataPage { num_values, def_level_encoding, rep_level_encoding, buf, .. } = page {
            let levels =
                [(self.leaf.max_rep_level(), *rep_level_encoding), (self.leaf.max_def_level(), *def_level_encoding)];
            let mut end = 0;
            for (max, encoding) in levels.into_iter().filter(|(max, _)| *max > 0) {
                end += levels_size(max, encoding, *num_values, buf.get(end..).unwrap_or_default());
                if end > buf.len() {
                    return damaged("a page's levels are longer than the page");
                }
            }
        }
        let is_plain = page.encoding() == Encoding::PLAIN || page.is_dictionary_page();
        let (Page::DataPage { buf, .. } | Page::DataPageV2 { buf, .. } | Page::DictionaryPage { buf, .. }) = page;
        if is_plain && self.leaf.physical_type() == Type::BYTE_ARRAY {
            // Each value follows its length, which the crate reads even if nothing is left. It refuses this length.
            *buf = [&buf[..], &u32::MAX.to_le_bytes()].concat().into();
        }
        Ok(())
    }
}

/// Size in bytes of the levels at the beginning of `bytes`, of which the greatest is `max`.
#[allow(deprecated, reason = "old files have BIT_PACKED")]
fn levels_size(max: i16, encoding: Encoding, values: u32, bytes: &[u8]) -> usize {
    if encoding == Encoding::BIT_PACKED {
        let bits = (i16::BITS - max.leading_zeros()) as usize;
        return (values as usize * bits).div_ceil(8);
    }
    let size = bytes.first_chunk::<4>().map_or(0, |size| u32::from_le_bytes(*size) as usize);
    size_of::<u32>() + size
}

fn is_of_dictionary(encoding: Encoding) -> bool {
    matches!(encoding, Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY)
}

impl PageReader for CheckedPages {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let mut page = self.pages.get_next_page()?;
        page.as_mut().map_or(Ok(()), |page| self.check(page))?;
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }

    fn at_record_boundary(&mut self) -> Result<bool> {
        self.pages.at_record_boundary()
    }
}

impl Iterator for CheckedPages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Result<Page>> {
        self.get_next_page().transpose()
    }
}

/// Reads the pages of one column chunk in order.
struct ZstdPages<R> {
    file: Arc<R>,
    offset: u64,
    end: u64,
    /// Whether the column has no definition levels: no value can be null.
    is_required: bool,
    decoder: FrameDecoder,
}

impl<R: ChunkReader> ZstdPages<R> {
    pub fn new(file: Arc<R>, column: &ColumnChunkMetaData) -> ZstdPages<R> {
        let (offset, length) = column.byte_range();
        let is_required = column.column_descr().max_def_level() == 0;
        ZstdPages { file, offset, end: offset.saturating_add(length), is_required, decoder: FrameDecoder::new() }
    }

    fn header(&self) -> Result<(Header, usize)> {
        let left = self.end - self.offset;
        let mut window = 4096;
        loop {
            let length = left.min(window);
            let bytes = self.file.get_bytes(self.offset, length as usize)?;
            let mut thrift = Thrift { bytes: &bytes };
            match Header::read(&mut thrift) {
                Ok(header) => return Ok((header, bytes.len() - thrift.bytes.len())),
                // Statistics can make a header long.
                Err(_) if length < left && window < 1 << 24 => window *= 8,
                Err(e) => return Err(e),
            }
        }
    }

    /// The header of the next page, the range of its bytes in the file, and its decompressed size.
    fn next_page(&mut self) -> Result<Option<(Header, Range<u64>, usize)>> {
        if self.offset >= self.end {
            return Ok(None);
        }
        let (header, header_length) = self.header()?;
        let start = self.offset + header_length as u64;
        let (raw_size, full_size) = (size(header.compressed)?, size(header.uncompressed)?);
        let end = start + raw_size as u64;
        if end > self.end {
            return damaged("a page extends beyond the end of its column");
        }
        if is_bomb(full_size as u64, raw_size as u64) {
            return damaged(format!("a page of {raw_size} bytes with a decompressed size of {full_size}"));
        }
        if let Some(Kind::DataV2(page)) = &header.kind
            && page.levels() > raw_size.min(full_size)
        {
            return damaged("a page's levels are longer than the page");
        }
        self.offset = end;
        Ok(Some((header, start..end, full_size)))
    }

    fn decompress(&mut self, raw: &[u8], size: usize, out: &mut Vec<u8>) -> Result<()> {
        if size == out.len() {
            return Ok(());
        }
        let result = self.decoder.decode_all_to_vec(raw, out);
        result.map_err(|e| ParquetError::General(format!("zstd page: {e}")))?;
        if out.len() != size {
            return damaged(format!("a page of {} bytes, expected {size}", out.len()));
        }
        Ok(())
    }
}

impl<R: ChunkReader> PageReader for ZstdPages<R> {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        loop {
            let Some((header, range, full_size)) = self.next_page()? else { return Ok(None) };
            let Some(kind) = header.kind else {
                continue; // An index page has no values.
            };
            let raw = self.file.get_bytes(range.start, (range.end - range.start) as usize)?;
            let mut buffer = Vec::with_capacity(full_size);
            return Ok(Some(match kind {
                Kind::Dictionary(dictionary) => {
                    self.decompress(&raw, full_size, &mut buffer)?;
                    Page::DictionaryPage {
                        buf: buffer.into(),
                        num_values: dictionary.values,
                        encoding: encoding(dictionary.encoding)?,
                        is_sorted: false,
                    }
                }
                Kind::Data(page) => {
                    self.decompress(&raw, full_size, &mut buffer)?;
                    Page::DataPage {
                        buf: buffer.into(),
                        num_values: page.values,
                        encoding: encoding(page.encoding)?,
                        def_level_encoding: match page.definition_encoding {
                            // Java's writer uses BIT_PACKED for the encoding of absent levels.
                            _ if self.is_required => Encoding::RLE,
                            code => encoding(code)?,
                        },
                        // The columns that are read have no lists, so there are no repetition levels.
                        rep_level_encoding: Encoding::RLE,
                        statistics: None,
                    }
                }
                Kind::DataV2(page) => {
                    // Levels come first and are never compressed.
                    let levels = page.levels();
                    let buf: Bytes = if page.compressed {
                        buffer.extend_from_slice(&raw[..levels]);
                        self.decompress(&raw[levels..], full_size, &mut buffer)?;
                        buffer.into()
                    } else {
                        raw
                    };
                    Page::DataPageV2 {
                        buf,
                        num_values: page.values,
                        encoding: encoding(page.encoding)?,
                        num_nulls: page.nulls,
                        num_rows: page.rows,
                        def_levels_byte_len: page.definition_bytes,
                        rep_levels_byte_len: page.repetition_bytes,
                        is_compressed: page.compressed,
                        statistics: None,
                    }
                }
            }));
        }
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        if self.offset >= self.end {
            return Ok(None);
        }
        let (header, _) = self.header()?;
        let (num_rows, num_levels, is_dict) = match &header.kind {
            Some(Kind::DataV2(page)) => (Some(page.rows as usize), Some(page.values as usize), false),
            Some(Kind::Data(page)) => (None, Some(page.values as usize), false),
            Some(Kind::Dictionary(_)) => (None, None, true),
            None => return damaged("an index page"),
        };
        Ok(Some(PageMetadata { num_rows, num_levels, is_dict }))
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.next_page().map(drop)
    }
}

impl<R: ChunkReader> Iterator for ZstdPages<R> {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Result<Page>> {
        self.get_next_page().transpose()
    }
}

fn size(bytes: i64) -> Result<usize> {
    match usize::try_from(bytes) {
        Ok(size) if size <= MAX_PAGE => Ok(size),
        _ => damaged(format!("a page of {bytes} bytes")),
    }
}

fn encoding(code: i64) -> Result<Encoding> {
    Ok(match code {
        0 => Encoding::PLAIN,
        2 => Encoding::PLAIN_DICTIONARY,
        3 => Encoding::RLE,
        5 => Encoding::DELTA_BINARY_PACKED,
        6 => Encoding::DELTA_LENGTH_BYTE_ARRAY,
        7 => Encoding::DELTA_BYTE_ARRAY,
        8 => Encoding::RLE_DICTIONARY,
        9 => Encoding::BYTE_STREAM_SPLIT,
        _ => return damaged(format!("page encoding {code}")),
    })
}

/// The parts of a `PageHeader` that decoding needs.
#[derive(Default)]
struct Header {
    uncompressed: i64,
    compressed: i64,
    kind: Option<Kind>,
}

enum Kind {
    Data(PageFields),
    Dictionary(PageFields),
    DataV2(PageFields),
}

/// Fields of the three kinds of page headers.
#[derive(Default)]
struct PageFields {
    values: u32,
    encoding: i64,
    definition_encoding: i64,
    nulls: u32,
    rows: u32,
    definition_bytes: u32,
    repetition_bytes: u32,
    compressed: bool,
}

impl Header {
    fn read(thrift: &mut Thrift) -> Result<Header> {
        let mut header = Header { uncompressed: -1, compressed: -1, kind: None };
        thrift.fields(|thrift, id, kind| {
            match (id, kind) {
                (2, INTEGER) => header.uncompressed = thrift.integer()?,
                (3, INTEGER) => header.compressed = thrift.integer()?,
                (5, STRUCT) => header.kind = Some(Kind::Data(PageFields::read(thrift, [1, 2, 3, 0, 0, 0, 0, 0])?)),
                (7, STRUCT) => {
                    header.kind = Some(Kind::Dictionary(PageFields::read(thrift, [1, 2, 0, 0, 0, 0, 0, 0])?))
                }
                (8, STRUCT) => header.kind = Some(Kind::DataV2(PageFields::read(thrift, [1, 4, 0, 2, 3, 5, 6, 7])?)),
                _ => thrift.skip(kind, 0)?,
            }
            Ok(())
        })?;
        Ok(header)
    }
}

impl PageFields {
    /// Size in bytes of the levels at the beginning of the page.
    fn levels(&self) -> usize {
        (self.definition_bytes as usize).saturating_add(self.repetition_bytes as usize)
    }

    /// `ids`: the field number of each field of `PageFields` in this kind of header, in order; 0 if it does not exist.
    fn read(thrift: &mut Thrift, ids: [i16; 8]) -> Result<PageFields> {
        // A missing `is_compressed` means true.
        let mut values = [0, 0, 0, 0, 0, 0, 0, 1];
        thrift.fields(|thrift, id, kind| {
            match (ids.iter().position(|&i| i == id), kind) {
                (Some(at), INTEGER) => values[at] = thrift.integer()?,
                (Some(at), TRUE | FALSE) => values[at] = i64::from(kind == TRUE),
                _ => thrift.skip(kind, 0)?,
            }
            Ok(())
        })?;
        let unsigned = |value: i64| u32::try_from(value).or_else(|_| damaged(format!("a page header with {value}")));
        Ok(PageFields {
            values: unsigned(values[0])?,
            encoding: values[1],
            definition_encoding: values[2],
            nulls: unsigned(values[3])?,
            rows: unsigned(values[4])?,
            definition_bytes: unsigned(values[5])?,
            repetition_bytes: unsigned(values[6])?,
            compressed: values[7] != 0,
        })
    }
}

const TRUE: u8 = 1;
const FALSE: u8 = 2;
const INTEGER: u8 = 5;
const STRUCT: u8 = 12;

/// The subset of Thrift's compact protocol that page headers use.
struct Thrift<'a> {
    bytes: &'a [u8],
}

impl Thrift<'_> {
    fn byte(&mut self) -> Result<u8> {
        match self.bytes.split_first() {
            Some((&byte, rest)) => {
                self.bytes = rest;
                Ok(byte)
            }
            None => damaged("a page header is truncated"),
        }
    }

    fn unsigned(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        damaged("a page header's number is too long")
    }

    /// Zigzag: 0, -1, 1, -2, …
    fn integer(&mut self) -> Result<i64> {
        let value = self.unsigned()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn fields(&mut self, mut field: impl FnMut(&mut Self, i16, u8) -> Result<()>) -> Result<()> {
        let mut id = 0i16;
        loop {
            let byte = self.byte()?;
            if byte == 0 {
                return Ok(());
            }
            id = match byte >> 4 {
                0 => self.integer()? as i16,
                delta => id.wrapping_add(i16::from(delta)),
            };
            field(self, id, byte & 0x0f)?;
        }
    }

    fn skip(&mut self, kind: u8, depth: u8) -> Result<()> {
        if depth > 8 {
            return damaged("a page header is nested too deeply");
        }
        match kind {
            TRUE | FALSE => {}
            3 => drop(self.byte()?),
            4..=6 => drop(self.unsigned()?),
            7 => self.advance(8)?,
            8 => {
                let length = self.unsigned()?;
                self.advance(length)?;
            }
            9 | 10 => {
                let byte = self.byte()?;
                let length = match byte >> 4 {
                    15 => self.unsigned()?,
                    short => u64::from(short),
                };
                for _ in 0..length {
                    // A boolean in a list takes one byte.
                    match byte & 0x0f {
                        TRUE | FALSE => drop(self.byte()?),
                        kind => self.skip(kind, depth + 1)?,
                    }
                }
            }
            STRUCT => self.fields(|thrift, _, kind| thrift.skip(kind, depth + 1))?,
            _ => return damaged(format!("a page header with type {kind}")),
        }
        Ok(())
    }

    fn advance(&mut self, n: u64) -> Result<()> {
        match usize::try_from(n).ok().and_then(|n| self.bytes.get(n..)) {
            Some(rest) => {
                self.bytes = rest;
                Ok(())
            }
            None => damaged("a page header is truncated"),
        }
    }
}
