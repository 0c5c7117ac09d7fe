//! Reads LevelDB's sorted tables, in TensorFlow's variant: the `.index` file of a checkpoint.
//!
//! A table consists of data blocks, an index block whose values are the positions of the data blocks, and a footer of 48 bytes:
//! two block handles (offset and size, base-128), zeros up to byte 40, a magic number. Each block is followed by one byte for its
//! compression (0 none, 1 Snappy) and the masked CRC-32C of both. A block contains entries (number of bytes shared with the
//! previous key, number of other bytes, number of bytes of the value; key; value), then the offsets of the entries that share
//! nothing (restarts), then their number.

use super::proto::{take, varint};

const MAGIC: u64 = 0xdb47_7524_8b80_fb57;
const FOOTER: usize = 48;
const TRAILER: usize = 5;
/// Maximal size of an uncompressed block in bytes; TensorFlow's blocks have about 256 KiB.
const MAX_BLOCK: usize = 64 << 20;
/// Maximal size of a key, which is a variable's name, in bytes.
const MAX_KEY: usize = 4096;
/// Maximal size of all blocks, keys and values in bytes; a checkpoint with ten thousand variables needs one MiB.
const MAX_CONTENT: usize = 128 << 20;

/// LevelDB stores a rotated checksum, because checksums of data that contains checksums are weak.
pub(super) fn unmask(masked: u32) -> u32 {
    masked.wrapping_sub(0xa282_ead8).rotate_left(15)
}

/// Key and value.
pub(super) type Entry = (Vec<u8>, Vec<u8>);

/// All entries of a table, in order of their keys.
///
/// # Errors
/// A message with the problem and its position.
pub(super) fn read(table: &[u8]) -> Result<Vec<Entry>, String> {
    let footer_at = table.len().checked_sub(FOOTER);
    let Some((footer_at, mut footer)) = footer_at.and_then(|at| Some((at, table.get(at..)?))) else {
        return Err(format!("found {} bytes, expected at least a footer of {FOOTER}", table.len()));
    };
    let magic = footer.last_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    if magic != MAGIC {
        return Err(format!(
            "the last 8 bytes are {magic:016x}, expected {MAGIC:016x}: the file is truncated or not a table"
        ));
    }
    let in_footer = |e: String| format!("the footer at byte {footer_at}: {e}");
    let meta_at = handle(&mut footer).map_err(in_footer)?;
    let index_at = handle(&mut footer).map_err(in_footer)?;
    let blocks = table.get(..footer_at).unwrap_or_default();
    let mut content = 0;
    let mut entries: Vec<Entry> = Vec::new();
    block(blocks, meta_at)?; // empty, but must be valid
    let index = block(blocks, index_at)?;
    for (_, value) in block_entries(&index, &mut content).map_err(|e| format!("the index block: {e}"))? {
        let at = handle(&mut value.as_slice()).map_err(|e| format!("the index block: {e}"))?;
        let data = block(blocks, at)?;
        let found = block_entries(&data, &mut content).map_err(|e| format!("the block at byte {}: {e}", at.0))?;
        if let (Some((before, _)), Some((after, _))) = (entries.last(), found.first())
            && before >= after
        {
            return Err(format!("the block at byte {} is out of order", at.0));
        }
        entries.extend(found);
    }
    Ok(entries)
}

/// Offset and size of a block.
fn handle(bytes: &mut &[u8]) -> Result<(u64, u64), String> {
    Ok((varint(bytes)?, varint(bytes)?))
}

/// The content of a block, after verifying its checksum and decompressing it.
fn block(table: &[u8], (offset, size): (u64, u64)) -> Result<Vec<u8>, String> {
    let place = || format!("the block of {size} bytes at byte {offset}");
    let start = usize::try_from(offset).map_err(|_| format!("{} is outside the file", place()))?;
    let stored = usize::try_from(size).ok().and_then(|size| {
        let all = table.get(start..)?.get(..size.checked_add(TRAILER)?)?;
        let (summed, sum) = all.split_last_chunk::<4>()?;
        let (&compression, content) = summed.split_last()?;
        Some((content, compression, summed, u32::from_le_bytes(*sum)))
    });
    let (content, compression, summed, sum) =
        stored.ok_or_else(|| format!("{} exceeds the file's {} bytes", place(), table.len() + FOOTER))?;
    let (expected, found) = (unmask(sum), crc32c::crc32c(summed));
    if expected != found {
        return Err(format!("{} has checksum {found:08x}, expected {expected:08x}", place()));
    }
    match compression {
        0 => Ok(content.to_vec()),
        1 => {
            let length = snap::raw::decompress_len(content).map_err(|e| format!("{}: {e}", place()))?;
            if length > MAX_BLOCK {
                return Err(format!("{} has {length} bytes uncompressed, expected at most {MAX_BLOCK}", place()));
            }
            snap::raw::Decoder::new().decompress_vec(content).map_err(|e| format!("{}: {e}", place()))
        }
        other => Err(format!("{} has compression {other}, expected 0 (none) or 1 (Snappy)", place())),
    }
}

fn block_entries(block: &[u8], total: &mut usize) -> Result<Vec<Entry>, String> {
    let (body, restarts) = block.split_last_chunk::<4>().ok_or("a block is shorter than its number of restarts")?;
    let restarts = u32::from_le_bytes(*restarts) as usize;
    let end = restarts.checked_mul(4).and_then(|bytes| body.len().checked_sub(bytes));
    let mut rest = end
        .and_then(|end| body.get(..end))
        .ok_or_else(|| format!("a block is shorter than its {restarts} restarts"))?;
    // Count every block, even without entries, because a damaged index may contain the same block many times.
    *total += block.len();
    let mut key: Vec<u8> = Vec::new();
    let mut entries: Vec<Entry> = Vec::new();
    while !rest.is_empty() {
        let (shared, own, length) = (varint(&mut rest)?, varint(&mut rest)?, varint(&mut rest)?);
        let shared = usize::try_from(shared).ok().filter(|&shared| shared <= key.len());
        let shared = shared.ok_or("a key shares more bytes than the previous key has")?;
        key.truncate(shared);
        key.extend_from_slice(take(&mut rest, own)?);
        let value = take(&mut rest, length)?;
        if key.len() > MAX_KEY {
            return Err(format!("found a key of {} bytes, expected at most {MAX_KEY}", key.len()));
        }
        *total += key.len() + value.len() + size_of::<Entry>();
        if *total > MAX_CONTENT {
            return Err(format!("the entries have more than {MAX_CONTENT} bytes"));
        }
        if entries.last().is_some_and(|(before, _)| *before >= key) {
            return Err(format!("key {:?} is out of order", String::from_utf8_lossy(&key)));
        }
        entries.push((key.clone(), value.to_vec()));
    }
    Ok(entries)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::tensorflow) fn mask(sum: u32) -> u32 {
        sum.rotate_right(15).wrapping_add(0xa282_ead8)
    }

    pub(in crate::tensorflow) fn put_varint(to: &mut Vec<u8>, mut value: u64) {
        while value >= 0x80 {
            to.push(value as u8 | 0x80);
            value >>= 7;
        }
        to.push(value as u8);
    }

    /// Writes tables with features that TensorFlow's fixtures do not have: several blocks, restarts, Snappy.
    pub(in crate::tensorflow) fn table(entries: &[Entry], block_entries: usize, snappy: bool) -> Vec<u8> {
        fn put_block(table: &mut Vec<u8>, entries: &[Entry], snappy: bool) -> Vec<u8> {
            let (mut block, mut restarts, mut before) = (Vec::new(), Vec::new(), &[][..]);
            for (i, (key, value)) in entries.iter().enumerate() {
                if i % 2 == 0 {
                    restarts.push(block.len() as u32);
                    before = &[];
                }
                let shared = key.iter().zip(before).take_while(|(a, b)| a == b).count();
                for number in [shared, key.len() - shared, value.len()] {
                    put_varint(&mut block, number as u64);
                }
                block.extend_from_slice(&key[shared..]);
                block.extend_from_slice(value);
                before = key;
            }
            for restart in restarts.iter().chain([&(restarts.len() as u32)]) {
                block.extend_from_slice(&restart.to_le_bytes());
            }
            if snappy {
                block = snap::raw::Encoder::new().compress_vec(&block).unwrap();
            }
            let mut handle = Vec::new();
            put_varint(&mut handle, table.len() as u64);
            put_varint(&mut handle, block.len() as u64);
            block.push(u8::from(snappy));
            let sum = mask(crc32c::crc32c(&block));
            table.extend_from_slice(&block);
            table.extend_from_slice(&sum.to_le_bytes());
            handle
        }
        let mut table = Vec::new();
        let index: Vec<Entry> = entries
            .chunks(block_entries)
            .map(|chunk| (chunk.last().unwrap().0.clone(), put_block(&mut table, chunk, snappy)))
            .collect();
        let meta = put_block(&mut table, &[], false);
        let index = put_block(&mut table, &index, snappy);
        let mut footer = [meta, index].concat();
        footer.resize(FOOTER - 8, 0);
        table.extend_from_slice(&footer);
        table.extend_from_slice(&MAGIC.to_le_bytes());
        table
    }

    fn entries() -> Vec<Entry> {
        (0..40).map(|i| (format!("bert/layer_{i:02}/kernel").into_bytes(), vec![i; usize::from(i)])).collect()
    }

    #[test]
    fn reads_many_blocks_with_and_without_snappy() {
        for (per_block, snappy) in [(40, false), (7, false), (7, true), (1, true)] {
            assert_eq!(read(&table(&entries(), per_block, snappy)).unwrap(), entries(), "{per_block} {snappy}");
        }
    }

    #[test]
    fn changed_and_missing_bytes_are_detected() {
        let table = table(&entries(), 7, true);
        for at in 0..table.len() {
            let mut changed = table.clone();
            changed[at] ^= 0x10;
            // The footer's padding and the handle of the metadata block are not covered by a checksum.
            let uncovered = at >= table.len() - FOOTER && at < table.len() - 8;
            assert!(uncovered || read(&changed).is_err(), "byte {at}");
            assert!(read(&table[..at]).is_err(), "{at} bytes");
        }
    }

    #[test]
    fn reports_what_is_wrong() {
        let good = table(&entries(), 7, false);
        let cases: [(Vec<u8>, &str); 4] = [
            (b"short".to_vec(), "at least a footer of 48"),
            (vec![0; 100], "expected db4775248b80fb57"),
            ([&[1], &good[1..]].concat(), "at byte 0 has checksum"),
            (table(&[(b"b".to_vec(), vec![]), (b"a".to_vec(), vec![])], 1, false), "out of order"),
        ];
        for (bytes, expected) in cases {
            let error = read(&bytes).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        // A Snappy block with a huge declared size is rejected before memory is allocated.
        let mut bomb = Vec::new();
        put_varint(&mut bomb, (MAX_BLOCK + 1) as u64);
        bomb.push(1);
        let sum = mask(crc32c::crc32c(&bomb));
        bomb.extend_from_slice(&sum.to_le_bytes());
        let error = block(&bomb, (0, bomb.len() as u64 - 5)).unwrap_err();
        assert!(error.contains("uncompressed"), "{error}");
    }
}
