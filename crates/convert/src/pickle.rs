//! Files of `torch.save`: the zip form (torch 1.6 and later), the older form, and shards of both.
//!
//! The zip file contains `NAME/data.pkl`, a pickle of the state dictionary that refers to each storage by a key, and
//! `NAME/data/KEY`, the bytes of a storage without compression. The older form has five parts: three small pickles (magic
//! number, version, the writer's byte order), the pickle of the state dictionary, and a pickle of the keys, followed by the
//! number of elements and the bytes of every storage in the order of the keys. See `torch/serialization.py`.

mod machine;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::BufReader;
use std::path::Path;
use std::rc::Rc;

use rawzip::{CompressionMethod, RECOMMENDED_BUFFER_SIZE, ZipArchive};
use safetensors::Dtype;

use crate::error::ConvertError;
use crate::skipped::Skipped;
use crate::tensors::{Checksum, SourceFile, SourceTensor, Sum, check_total, element_size};
use machine::{Node, PickleError, Storage, Unpickled, Value, View};

const FORMAT: &str = "PyTorch checkpoint";
/// 0x1950a86a20f9469cfc6c, little-endian.
const LEGACY_MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
const LEGACY_VERSION: i64 = 1001;
/// Keys under which training programs store the state dictionary in a checkpoint.
const WRAPPERS: [&str; 4] = ["state_dict", "model_state_dict", "model", "module"];

/// The tensors of a file.
pub(crate) struct Checkpoint {
    pub(crate) tensors: Vec<SourceTensor>,
    /// Whether the file has the form before torch 1.6.
    pub(crate) legacy: bool,
}

/// Reads the names and positions of a file's tensors.
///
/// # Errors
/// [`ConvertError::UnsafeGlobal`] with the global to which the file refers; [`ConvertError::Damaged`] and
/// [`ConvertError::Unsupported`]; [`ConvertError::Io`].
pub(crate) fn open(path: &Path, skipped: &mut Skipped) -> Result<Checkpoint, ConvertError> {
    let file = SourceFile::open(path)?;
    let start = file.read(0, file.length.min(512) as usize).map_err(ConvertError::io("read", path))?;
    let damaged = |reason: &str| Err(ConvertError::damaged(path, FORMAT, reason));
    let (unpickled, storages, legacy) = match start.as_slice() {
        [b'P', b'K', ..] => {
            let (unpickled, storages) = open_zip(&file)?;
            (unpickled, storages, false)
        }
        [0x80, ..] => {
            let (unpickled, storages) = open_legacy(&file)?;
            (unpickled, storages, true)
        }
        [] => return damaged("the file is empty"),
        start if start.starts_with(b"version https://git-lfs") => {
            return damaged("it is a Git LFS pointer, not the file itself; download it with git lfs pull");
        }
        start if start.get(257..262) == Some(b"ustar") => {
            let reason = "found a tar file of torch before 0.1.10; load it with that version and save its state_dict() with torch.save";
            return Err(ConvertError::unsupported(path, reason));
        }
        _ => return damaged("found neither a zip file nor a pickle"),
    };
    let tensors = state_dict(&unpickled, &file, &storages, skipped)?;
    check_total(&tensors, FORMAT)?;
    Ok(Checkpoint { tensors, legacy })
}

fn pickle_error(path: &Path, error: PickleError) -> ConvertError {
    match error {
        PickleError::Global { at, global } => ConvertError::UnsafeGlobal { path: path.to_owned(), at, global },
        PickleError::Program { at, reason } => {
            ConvertError::damaged(path, FORMAT, format!("byte {at} of its pickle: {reason}"))
        }
        PickleError::Io(source) => ConvertError::io("read", path)(source),
    }
}

/// The range and checksum of each storage's bytes: start, length, checksum.
type Storages = HashMap<String, (u64, u64, Option<Checksum>)>;

fn open_zip(file: &Rc<SourceFile>) -> Result<(Unpickled, Storages), ConvertError> {
    let path = &file.path;
    let damaged = |reason: String| ConvertError::damaged(path, FORMAT, reason);
    let broken = |e: rawzip::Error| damaged(format!("invalid zip directory: {e}"));
    // A directory record must fit into the buffer: each of its three texts has at most 64 KiB.
    let mut buffer = vec![0; 4 * RECOMMENDED_BUFFER_SIZE];
    let archive = ZipArchive::from_seekable(file.raw(), &mut buffer).map_err(broken)?;
    let mut entries: BTreeMap<String, (u64, u64, Option<Checksum>)> = BTreeMap::new();
    let (mut listed, announced) = (0, archive.entries_hint());
    let mut directory = archive.entries(&mut buffer);
    while let Some(entry) = directory.next_entry().map_err(broken)? {
        listed += 1;
        let name = String::from_utf8_lossy(entry.file_path().as_ref()).into_owned();
        let length = entry.compressed_size_hint();
        if entry.compression_method() != CompressionMethod::STORE
            || entry.flags().is_encrypted()
            || entry.uncompressed_size_hint() != length
        {
            let reason =
                format!("entry {name} is compressed or encrypted; expected the uncompressed entries of torch.save");
            return Err(ConvertError::unsupported(path, reason));
        }
        let (start, end) = archive.get_entry(entry.wayfinder()).map_err(broken)?.compressed_data_range();
        if end > file.length {
            return Err(damaged(format!("entry {name} of {length} bytes exceeds the file's {} bytes", file.length)));
        }
        let sum = Sum::Crc32(entry.crc32());
        if entries.insert(name.clone(), (start, length, Some(Checksum { start, length, sum }))).is_some() {
            return Err(damaged(format!("the zip directory contains {name} twice")));
        }
    }
    if listed != announced {
        return Err(damaged(format!(
            "the zip directory has {listed} entries, expected {announced} according to its end record"
        )));
    }
    // torch.serialization.set_crc32_options(False) writes zeros as checksums.
    let unsummed = |(_, _, checksum): &(u64, u64, Option<Checksum>)| {
        checksum.as_ref().is_none_or(|checksum| checksum.sum == Sum::Crc32(0))
    };
    if entries.values().all(unsummed) {
        for (_, _, checksum) in entries.values_mut() {
            *checksum = None;
        }
    }
    let found = entries.iter().find_map(|(name, place)| {
        let folder = name.strip_suffix("data.pkl").filter(|folder| folder.is_empty() || folder.ends_with('/'))?;
        Some((name.clone(), folder.to_owned(), place.clone()))
    });
    let Some((pickle, folder, (start, length, checksum))) = found else {
        return Err(damaged("found no data.pkl in the zip file".to_owned()));
    };
    if entries.contains_key(&format!("{folder}constants.pkl")) {
        let reason = "found a TorchScript program (torch.jit.save); load it with torch and save its state_dict() with torch.save";
        return Err(ConvertError::unsupported(path, reason));
    }
    let order = entries.get(&format!("{folder}byteorder")).filter(|(_, length, _)| *length <= 64);
    let order = order.and_then(|&(start, length, _)| file.read(start, length as usize).ok());
    if order.is_some_and(|order| order != b"little") {
        return Err(ConvertError::unsupported(
            path,
            "found big-endian data; expected little-endian: load the file and save it on a little-endian machine",
        ));
    }
    // The pickle determines the positions of all other data, so its checksum is verified first.
    let shape = vec![usize::try_from(length).unwrap_or(usize::MAX)];
    let program = SourceTensor::contiguous(pickle, Dtype::U8, shape, file, (start, length), checksum);
    program.map_err(damaged)?.verify(&mut HashSet::new())?;
    let input = BufReader::new(file.section(start, length));
    let (unpickled, _) = machine::run(input).map_err(|e| pickle_error(path, e))?;
    let prefix = format!("{folder}data/");
    let storages = entries.into_iter().filter_map(|(name, (start, length, checksum))| {
        Some((name.strip_prefix(&prefix)?.to_owned(), (start, length, checksum)))
    });
    Ok((unpickled, storages.collect()))
}

fn open_legacy(file: &Rc<SourceFile>) -> Result<(Unpickled, Storages), ConvertError> {
    let path = &file.path;
    let damaged = |reason: String| ConvertError::damaged(path, FORMAT, reason);
    let mut at = 0;
    let mut next = || -> Result<Unpickled, ConvertError> {
        let input = BufReader::new(file.section(at, file.length.saturating_sub(at)));
        let (unpickled, length) = machine::run(input).map_err(|e| pickle_error(path, e))?;
        at += length;
        Ok(unpickled)
    };
    let magic = next()?;
    if !matches!(magic.node(magic.root), Some(Node::BigInt(bytes)) if *bytes == LEGACY_MAGIC) {
        return Err(damaged("found a pickle without the magic number of torch.save".to_owned()));
    }
    let version = next()?.root;
    if version != Value::Int(LEGACY_VERSION) {
        return Err(damaged(format!("found version {version:?}, expected {LEGACY_VERSION}")));
    }
    let system = next()?;
    let order = system.dict(system.root).unwrap_or_default();
    let little = order.iter().find(|(key, _)| system.text(*key) == Some("little_endian")).map(|&(_, value)| value);
    if little != Some(Value::Bool(true)) {
        return Err(ConvertError::unsupported(
            path,
            "found big-endian data; expected little-endian: load the file and save it on a little-endian machine",
        ));
    }
    let unpickled = next()?;
    let keys = next()?;
    let Some(Node::List(listed)) = keys.node(keys.root) else {
        return Err(damaged("found no list of storages".to_owned()));
    };
    let mut types: HashMap<&str, &Storage> = HashMap::new();
    for storage in unpickled.storages() {
        types.insert(&storage.key, storage);
    }
    let mut storages = Storages::new();
    for &key in listed {
        let key = match (keys.text(key), key) {
            (Some(key), _) => key.to_owned(),
            (None, Value::Int(key)) => key.to_string(),
            _ => return Err(damaged("an element of the list of storages is not a key".to_owned())),
        };
        let Some(storage) = types.get(key.as_str()) else {
            return Err(damaged(format!("storage {key} is listed, but no tensor uses it")));
        };
        let header = file.read(at, 8).map_err(|_| damaged(format!("the file ends before storage {key}")))?;
        let count = header.try_into().map(u64::from_le_bytes).unwrap_or_default();
        let length = element_size(storage.dtype).and_then(|size| count.checked_mul(size as u64));
        let end = length.and_then(|length| at.checked_add(8)?.checked_add(length));
        match (length, end) {
            (Some(length), Some(end)) if end <= file.length => {
                storages.insert(key, (at + 8, length, None));
                at = end;
            }
            _ => {
                let reason =
                    format!("storage {key} of {count} elements at byte {at} exceeds the file's {} bytes", file.length);
                return Err(damaged(reason));
            }
        }
    }
    if at != file.length {
        return Err(damaged(format!("found {} bytes after the last storage", file.length - at)));
    }
    Ok((unpickled, storages))
}

/// The tensors of the state dictionary, which may be nested in the checkpoint.
fn state_dict(
    unpickled: &Unpickled,
    file: &Rc<SourceFile>,
    storages: &Storages,
    skipped: &mut Skipped,
) -> Result<Vec<SourceTensor>, ConvertError> {
    let path = &file.path;
    let Some(top) = unpickled.dict(unpickled.root) else {
        return Err(ConvertError::unsupported(
            path,
            "found no dictionary of tensors; save a state_dict() with torch.save",
        ));
    };
    let holds_tensors = |pairs: &[(Value, Value)]| {
        pairs.iter().any(|&(_, value)| matches!(unpickled.node(value), Some(Node::Tensor(_))))
    };
    let wrapped = WRAPPERS.iter().find_map(|wrapper| {
        let (_, value) = top.iter().find(|&&(key, _)| unpickled.text(key) == Some(*wrapper))?;
        unpickled.dict(*value).filter(|inner| holds_tensors(inner))
    });
    if wrapped.is_some() {
        for (key, _) in top.iter().filter_map(|&(key, value)| Some((unpickled.text(key)?, value))) {
            if !WRAPPERS.contains(&key) {
                skipped.add("not in the state_dict", key);
            }
        }
    }
    let pairs = wrapped.unwrap_or(top);
    if !holds_tensors(pairs) {
        let keys: Vec<&str> = top.iter().filter_map(|&(key, _)| unpickled.text(key)).take(8).collect();
        let reason = format!(
            "found no tensors at the top level or under {}; the first keys are [{}]. Save a state_dict() with torch.save",
            WRAPPERS.join(", "),
            keys.join(", ")
        );
        return Err(ConvertError::unsupported(path, reason));
    }
    // As in Python, the last value of a key is used.
    let mut tensors = BTreeMap::new();
    for &(key, value) in pairs {
        let Some(name) = unpickled.text(key) else {
            return Err(ConvertError::damaged(path, FORMAT, "a key of its state_dict is not a string"));
        };
        match unpickled.node(value) {
            Some(Node::Tensor(view)) => {
                let tensor = tensor(name, view, file, storages)
                    .map_err(|reason| ConvertError::damaged(path, FORMAT, format!("tensor {name}: {reason}")))?;
                tensors.insert(name, tensor);
            }
            _ => skipped.add("not a tensor", name),
        }
    }
    Ok(tensors.into_values().collect())
}

fn tensor(name: &str, view: &View, file: &Rc<SourceFile>, storages: &Storages) -> Result<SourceTensor, String> {
    let Storage { dtype, ref key, count, part } = view.storage;
    let Some((start, length, checksum)) = storages.get(key) else {
        return Err(format!("the file does not contain its storage {key}"));
    };
    let full = SourceTensor::contiguous(name.to_owned(), dtype, vec![count], file, (*start, *length), checksum.clone());
    let full = full.map_err(|reason| format!("storage {key}: {reason}"))?;
    let storage = match part {
        Some((first, count)) => SourceTensor::view(full, name.to_owned(), first, vec![count], vec![1])?,
        None => full,
    };
    SourceTensor::view(storage, name.to_owned(), view.offset, view.shape.clone(), view.strides.clone())
}

#[cfg(test)]
mod tests;
