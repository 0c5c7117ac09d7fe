//! Finds the columns of a file in memory, without copying them. Every offset and length is validated.

use std::ops::Range;

use polars_arrow_format::ipc::planus::ReadAsRoot;
use polars_arrow_format::ipc::{
    BlockRef, Endianness, FieldRef, FooterRef, MessageHeaderRef, MessageRef, MetadataVersion, TypeRef,
};
use zerocopy::FromBytes;

use super::{CONTINUATION, Field, Int, MAGIC};

/// The list columns of a record batch.
#[derive(Debug)]
pub(crate) struct Batch {
    rows: usize,
    /// By name.
    lists: Vec<(String, Lists)>,
}

/// The byte ranges of a column of lists in the file. They are aligned, inside the file, and consistent with each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lists {
    /// The type of the elements.
    pub int: Int,
    /// `[rows + 1]` i32 values: ascending, at most the number of elements.
    pub offsets: Range<usize>,
    pub values: Range<usize>,
}

impl Batch {
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// The column with this name, if it contains lists.
    pub(crate) fn lists(&self, name: &str) -> Option<Lists> {
        let (_, lists) = self.lists.iter().find(|(found, _)| found == name)?;
        Some(lists.clone())
    }
}

/// The record batches of a file.
///
/// # Errors
/// Fails if the file is damaged, or if it contains types other than integers and lists of integers, nulls in lists, or compressed
/// buffers.
pub(crate) fn batches(file: &[u8]) -> Result<Vec<Batch>, String> {
    let (content, end) =
        file.split_last_chunk::<10>().ok_or_else(|| format!("expected an Arrow file, found {} bytes", file.len()))?;
    let [length @ .., _, _, _, _, _, _] = *end;
    if !file.starts_with(MAGIC) || end[4..] != *MAGIC {
        return Err("expected an Arrow file, which begins and ends with ARROW1".to_owned());
    }
    let footer_start = usize::try_from(i32::from_le_bytes(length))
        .ok()
        .and_then(|length| content.len().checked_sub(length))
        .ok_or("the footer is longer than the file")?;
    let footer = FooterRef::read_as_root(&content[footer_start..]).map_err(damaged)?;
    check_version(footer.version().map_err(damaged)?)?;
    let schema = footer.schema().map_err(damaged)?.ok_or("the schema is missing")?;
    let host = if cfg!(target_endian = "little") { Endianness::Little } else { Endianness::Big };
    if schema.endianness().map_err(damaged)? != host {
        return Err("the byte order is not that of this machine".to_owned());
    }
    let fields: Vec<Field> = match schema.fields().map_err(damaged)? {
        Some(fields) => fields.iter().map(|field| field_of(field.map_err(damaged)?)).collect::<Result<_, String>>()?,
        None => Vec::new(),
    };
    let blocks = footer.record_batches().map_err(damaged)?;
    let blocks = blocks.into_iter().flatten();
    blocks.map(|block| batch(&content[..footer_start], block, &fields)).collect()
}

fn damaged(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn check_version(version: MetadataVersion) -> Result<(), String> {
    match version {
        MetadataVersion::V4 | MetadataVersion::V5 => Ok(()),
        other => Err(format!("the metadata version is {other:?}, expected V4 or V5")),
    }
}

fn field_of(field: FieldRef<'_>) -> Result<Field, String> {
    let name = field.name().map_err(damaged)?.unwrap_or_default();
    let unsupported = || format!("column \"{name}\": expected integers or lists of integers");
    if field.dictionary().map_err(damaged)?.is_some() {
        return Err(unsupported());
    }
    let is_nullable = field.nullable().map_err(damaged)?;
    let (int, is_list) = match field.type_().map_err(damaged)?.ok_or_else(unsupported)? {
        TypeRef::Int(int) => (int, false),
        TypeRef::List(_) => {
            let mut children = field.children().map_err(damaged)?.ok_or_else(unsupported)?.iter();
            let child = children.next().ok_or_else(unsupported)?.map_err(damaged)?;
            match child.type_().map_err(damaged)? {
                Some(TypeRef::Int(int)) if children.next().is_none() => (int, true),
                _ => return Err(unsupported()),
            }
        }
        _ => return Err(unsupported()),
    };
    let format = (int.bit_width().map_err(damaged)?, int.is_signed().map_err(damaged)?);
    let int = Int::from_format(format).ok_or_else(unsupported)?;
    Ok(Field { name: name.to_owned(), int, is_list, is_nullable })
}

/// Reads a record batch. `file` is the file without the footer.
fn batch(file: &[u8], block: BlockRef<'_>, fields: &[Field]) -> Result<Batch, String> {
    let outside = "a block is outside the file";
    let (start, metadata) = range(block.offset(), block.meta_data_length().into()).ok_or(outside)?;
    let (_, body_length) = range(0, block.body_length()).ok_or(outside)?;
    let body_start = start.checked_add(metadata).ok_or(outside)?;
    let body_end = body_start.checked_add(body_length).filter(|&end| end <= file.len()).ok_or(outside)?;
    let message = file[start..body_start]
        .strip_prefix(&CONTINUATION)
        .and_then(|rest| rest.get(4..))
        .ok_or("a block does not begin with a message")?;
    let message = MessageRef::read_as_root(message).map_err(damaged)?;
    check_version(message.version().map_err(damaged)?)?;
    let Some(MessageHeaderRef::RecordBatch(batch)) = message.header().map_err(damaged)? else {
        return Err("a block is not a record batch".to_owned());
    };
    if batch.compression().map_err(damaged)?.is_some() {
        return Err("the buffers are compressed".to_owned());
    }
    let rows = usize::try_from(batch.length().map_err(damaged)?).map_err(|_| "a negative number of rows")?;
    let mut nodes = batch.nodes().map_err(damaged)?.into_iter().flatten();
    let mut locations = batch.buffers().map_err(damaged)?.into_iter().flatten();
    let mut next_node = |name: &str| -> Result<(usize, i64), String> {
        let node = nodes.next().ok_or_else(|| format!("column \"{name}\" is missing in a record batch"))?;
        Ok((usize::try_from(node.length()).map_err(|_| "a negative length")?, node.null_count()))
    };
    let mut next_buffer = |name: &str| -> Result<Range<usize>, String> {
        let location = locations.next().ok_or_else(|| format!("column \"{name}\" is missing in a record batch"))?;
        let (offset, length) = range(location.offset(), location.length()).ok_or("a buffer is outside its block")?;
        let start = body_start.checked_add(offset).ok_or("a buffer is outside its block")?;
        let end = start.checked_add(length).filter(|&end| end <= body_end).ok_or("a buffer is outside its block")?;
        Ok(start..end)
    };
    let mut lists = Vec::new();
    for Field { name, int, is_list, .. } in fields {
        let (length, nulls) = next_node(name)?;
        if length != rows {
            return Err(format!("column \"{name}\" has {length} rows in a batch of {rows}"));
        }
        next_buffer(name)?; // validity
        if !is_list {
            elements(file, next_buffer(name)?, rows, int.size(), name)?;
            continue;
        }
        let offsets = next_buffer(name)?;
        let (length, element_nulls) = next_node(name)?;
        next_buffer(name)?; // validity
        let values = elements(file, next_buffer(name)?, length, int.size(), name)?;
        if nulls != 0 || element_nulls != 0 {
            return Err(format!("column \"{name}\" has nulls"));
        }
        // A batch without rows may have an empty buffer of offsets.
        let offsets = elements(file, offsets, if rows == 0 { 0 } else { rows + 1 }, size_of::<i32>(), name)?;
        let ends = <[i32]>::ref_from_bytes(&file[offsets.clone()]).map_err(damaged)?;
        let bounds =
            ends.first().is_none_or(|&first| first >= 0) && ends.last().is_none_or(|&last| last as usize <= length);
        if !bounds || !ends.is_sorted() {
            return Err(format!("column \"{name}\": expected ascending offsets up to {length}"));
        }
        lists.push((name.clone(), Lists { int: *int, offsets, values }));
    }
    Ok(Batch { rows, lists })
}

fn range(start: i64, length: i64) -> Option<(usize, usize)> {
    Some((usize::try_from(start).ok()?, usize::try_from(length).ok()?))
}

/// The first `count` elements of a buffer, which must be aligned.
fn elements(file: &[u8], buffer: Range<usize>, count: usize, size: usize, name: &str) -> Result<Range<usize>, String> {
    let bytes = count.checked_mul(size).filter(|&bytes| bytes <= buffer.len());
    let bytes = bytes.ok_or_else(|| format!("column \"{name}\": a buffer is shorter than {count} elements"))?;
    if bytes > 0 && !file[buffer.start..].as_ptr().addr().is_multiple_of(size) {
        return Err(format!("column \"{name}\": a buffer is not aligned to {size} bytes"));
    }
    Ok(buffer.start..buffer.start + bytes)
}
