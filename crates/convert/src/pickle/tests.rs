use std::fs;
use std::path::{Path, PathBuf};

use super::machine::{self, PickleError};
use super::*;
use crate::tensors;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/torch")).join(name)
}

fn open_error(path: &Path) -> String {
    open(path, &mut Skipped::default()).err().expect("a file that cannot be opened").to_string()
}

/// The error message of running a program.
fn program_error(program: &[u8]) -> String {
    match machine::run(program).err().expect("a program that fails") {
        PickleError::Global { global, .. } => format!("refers to {global}"),
        PickleError::Program { reason, .. } => reason,
        PickleError::Io(e) => e.to_string(),
    }
}

fn binunicode(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A file of the older form with a program that creates the state dictionary; `storages` are keys and elements (f32).
fn legacy(state: &[u8], storages: &[(&str, &[f32])]) -> Vec<u8> {
    let mut bytes = vec![0x80, 2, 0x8a, 10];
    bytes.extend(LEGACY_MAGIC);
    bytes.extend(*b".\x80\x02M\xe9\x03.\x80\x02}");
    bytes.extend([&binunicode("little_endian")[..], b"\x88s."].concat());
    bytes.extend(state);
    bytes.extend(*b"\x80\x02]");
    for (key, _) in storages {
        bytes.extend([&binunicode(key)[..], b"a"].concat());
    }
    bytes.push(b'.');
    for (_, values) in storages {
        bytes.extend((values.len() as u64).to_le_bytes());
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    bytes
}

/// `{"t": tensor}` with an f32 storage "0" of `count` elements; the sizes are given as opcodes.
fn one_tensor(count: i32, part: &[u8], offset: &[u8], shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let number = |value: i32| [b"J", &value.to_le_bytes()[..]].concat();
    [
        b"\x80\x02}",
        &binunicode("t")[..],
        b"ctorch._utils\n_rebuild_tensor_v2\n((",
        &binunicode("storage"),
        b"ctorch\nFloatStorage\n",
        &binunicode("0"),
        &binunicode("cpu"),
        &number(count),
        part,
        b"tQ",
        offset,
        shape,
        strides,
        b"\x89)tRs.",
    ]
    .concat()
}

fn written(dir: &Path, state: &[u8], storages: &[(&str, &[f32])]) -> PathBuf {
    let path = dir.join("pytorch_model.bin");
    fs::write(&path, legacy(state, storages)).unwrap();
    path
}

#[test]
fn layouts_and_types_are_read_as_by_torch() {
    let expected = fs::read(fixture("odd.safetensors")).unwrap();
    let expected = ::safetensors::SafeTensors::deserialize(&expected).unwrap();
    for (name, legacy) in [("odd.bin", false), ("odd-legacy.bin", true), ("odd-protocol-4.bin", false)] {
        let checkpoint = open(&fixture(name), &mut Skipped::default()).unwrap();
        assert_eq!(checkpoint.legacy, legacy);
        assert_eq!(checkpoint.tensors.len(), expected.len(), "{name}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        tensors::write(&path, &checkpoint.tensors, &mut |_| {}).unwrap();
        let found = fs::read(&path).unwrap();
        let found = ::safetensors::SafeTensors::deserialize(&found).unwrap();
        for (tensor, expected) in expected.iter() {
            let found = found.tensor(tensor).unwrap();
            assert_eq!((found.dtype(), found.shape()), (expected.dtype(), expected.shape()), "{name}: {tensor}");
            assert_eq!(found.data(), expected.data(), "{name}: {tensor}");
        }
    }
}

#[test]
fn files_with_unsafe_globals_are_rejected_with_the_name() {
    // In a pickle, os.system is posix.system or nt.system.
    for name in ["evil.bin", "evil-legacy.bin"] {
        let error = open_error(&fixture(name));
        assert!(error.contains("refers to posix.system") && error.contains(name), "{error}");
    }
    let cases: [(&[u8], &str); 12] = [
        (b"\x80\x02cos\nsystem\nX\x02\0\0\0ls\x85R.", "refers to os.system"),
        (b"cbuiltins\neval\n.", "refers to builtins.eval"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "refers to os.system"),
        (b"(S'ls'\nios\nsystem\n.", "opcode 0x53 ('S')"),
        (b"(ios\nsystem\n.", "refers to os.system"),
        (b"ctorch\nload\n.", "refers to torch.load"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n.", ""),
        (b"(ccollections\nOrderedDict\no.", "OBJ creates an object"),
        (b"ccollections\nOrderedDict\n)\x81.", "NEWOBJ creates an object"),
        (b"X\x01\0\0\0a)R.", "REDUCE calls a value that is not a function"),
        (b"ctorch\nFloatStorage\n)R.", "Storage(F32) with 0 arguments"),
        (b"\x82\x01.", "EXT refers to a global"),
    ];
    for (program, expected) in cases {
        if expected.is_empty() {
            assert!(machine::run(program).is_ok(), "a known global without a call is harmless");
            continue;
        }
        let error = program_error(program);
        assert!(error.contains(expected), "{error}: expected {expected}");
    }
}

#[test]
fn invalid_programs_are_rejected_with_a_reason() {
    let cases: [(&[u8], &str); 16] = [
        (b"", "ends before its STOP"),
        (b".", "pops more values"),
        (b"0", "pops more values"),
        (b"N(0", "pops more values"),
        (b"2", "empty stack"),
        (b"t", "needs a mark"),
        (b"q\0", "empty stack"),
        (b"h\x05", "memo 5 is read before"),
        (b"Na", "empty stack"),
        (b"NNa", "not a list"),
        (b"}(Nu", "key without a value"),
        (b"\x80\x09", "protocol 9"),
        (b"X\xff\xff\xff\x7f", "a string of 2147483647 bytes"),
        (b"X\0\0\0\x01short", "within a string of 16777216 bytes"),
        (b"\x8d\0\0\0\0\0\0\0\x40", "a string of 4611686018427387904 bytes"),
        (b"X\x01\0\0\0\xff", "not UTF-8"),
    ];
    for (program, expected) in cases {
        let error = program_error(program);
        assert!(error.contains(expected), "{program:?}: {error}, expected {expected}");
    }
    let long = [b"c", &[b'a'; 300][..]].concat();
    assert!(program_error(&long).contains("more than 256 bytes"));
}

#[test]
fn memory_of_malicious_programs_is_limited() {
    // A repeatedly doubled memo (only references, so it does not grow), nested lists, and a list that contains itself are cheap.
    let mut doubling = b"]q\0".to_vec();
    for _ in 0..20_000 {
        doubling.extend(*b"h\0h\0\x86q\0");
    }
    doubling.push(b'.');
    assert!(machine::run(&doubling[..]).is_ok());
    let deep = [&[b'N'][..], &[0x85; 300_000], b"."].concat();
    assert!(machine::run(&deep[..]).is_ok());
    assert!(machine::run(&b"]q\0h\0a."[..]).is_ok());
    // Programs that allocate memory reach the limit.
    for unit in [&b"N"[..], b"}", b"]", b"(", b"2", b"Nq\0", b")"] {
        let endless = std::iter::once(b'N').chain(unit.iter().copied().cycle().take(MOST));
        let endless: Vec<u8> = endless.collect();
        let error = program_error(&endless);
        assert!(error.contains("bytes"), "{unit:?}: {error}");
    }
    let many_slots: Vec<u8> =
        std::iter::once(b'N').chain((0..6_000_000u32).flat_map(|i| [&b"r"[..], &i.to_le_bytes()].concat())).collect();
    assert!(program_error(&many_slots).contains("values need more than"));
}

/// Longer than the maximal length of a program.
const MOST: usize = (32 << 20) + 10;

#[test]
fn legacy_file_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let values = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
    // Rows of 2 from element 1 on, and the same with a part of a storage that starts at element 1.
    for (part, offset) in [(&b""[..], b"K\x01"), (b"N", b"K\x01"), (b"(X\x01\0\0\0vK\x01K\x05t", b"K\0")] {
        let state = one_tensor(6, part, offset, b"K\x02K\x02\x86", b"K\x02K\x01\x86");
        let checkpoint = open(&written(dir.path(), &state, &[("0", &values)]), &mut Skipped::default()).unwrap();
        assert!(checkpoint.legacy);
        let out = dir.path().join("out.safetensors");
        tensors::write(&out, &checkpoint.tensors, &mut |_| {}).unwrap();
        let bytes = fs::read(&out).unwrap();
        let found = ::safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let expected: Vec<u8> = values[1..5].iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(found.tensor("t").unwrap().data(), expected);
    }
}

#[test]
fn shapes_that_do_not_match_their_storage_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let values = [0.0; 6];
    let huge = b"\x8a\x08\0\0\0\0\0\0\0\x40".as_slice(); // 2^62
    let pair = |a: &[u8], b: &[u8]| [a, b, b"\x86"].concat();
    type Case = (i32, Vec<u8>, Vec<u8>, &'static [u8], &'static str);
    let cases: [Case; 10] = [
        (6, pair(b"K\x02", b"K\x04"), pair(b"K\x04", b"K\x01"), b"K\0", "needs 8 elements, but its storage has 6"),
        (6, pair(b"K\x02", b"K\x03"), pair(b"K\x04", b"K\x01"), b"K\0", "exceeds its storage of 6"),
        (6, pair(b"K\x02", b"K\x03"), pair(b"K\x03", b"K\x01"), b"K\x01", "exceeds its storage of 6"),
        (6, pair(huge, b"K\x01"), pair(b"K\0", b"K\0"), b"K\0", "but its storage has 6"),
        (6, pair(huge, huge), pair(b"K\0", b"K\0"), b"K\0", "too many elements"),
        (6, pair(b"K\x02", b"K\x02"), pair(huge, huge), b"K\0", "exceeds"),
        (6, pair(b"K\x02", b"K\x03"), b"K\x03\x85".to_vec(), b"K\0", "2 sizes but 1 strides"),
        (6, pair(b"J\xff\xff\xff\xff", b"K\x03"), pair(b"K\x03", b"K\x01"), b"K\0", "sizes of 0 or more"),
        (7, pair(b"K\x02", b"K\x03"), pair(b"K\x03", b"K\x01"), b"K\0", "shape [7] of F32 needs 28 bytes, found 24"),
        (
            6,
            b"(K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01t".to_vec(),
            b")".to_vec(),
            b"K\0",
            "at most 16 axes",
        ),
    ];
    for (count, shape, strides, offset, expected) in cases {
        let state = one_tensor(count, b"", offset, &shape, &strides);
        let error = open_error(&written(dir.path(), &state, &[("0", &values)]));
        assert!(error.contains(expected), "{error}: expected {expected}");
    }
    let good = one_tensor(6, b"", b"K\0", b"K\x06\x85", b"K\x01\x85");
    let error = open_error(&written(dir.path(), &good, &[]));
    assert!(error.contains("tensor t: the file does not contain its storage 0"), "{error}");
    let error = open_error(&written(dir.path(), &good, &[("1", &values)]));
    assert!(error.contains("storage 1 is listed, but no tensor uses it"), "{error}");
    // Ten thousand tensors that share one storage could fill a disk.
    let all = one_tensor(1 << 16, b"", b"K\0", b"J\0\0\x01\0\x85", b"K\x01\x85");
    let (name, item) = (binunicode("t"), &all[3..all.len() - 1]);
    let items = (0..300).map(|i| [&binunicode(&format!("t{i}"))[..], &item[name.len()..]].concat());
    let many = [&b"\x80\x02}"[..], &items.collect::<Vec<_>>().concat(), b"."].concat();
    let error = open_error(&written(dir.path(), &many, &[("0", &vec![0.0; 1 << 16])]));
    assert!(error.contains("300 tensors have"), "{error}");
}

#[test]
fn files_without_a_state_dict_are_rejected_with_their_content() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(Vec<u8>, &str); 8] = [
        (Vec::new(), "the file is empty"),
        (b"<html>".to_vec(), "neither a zip file nor a pickle"),
        (b"version https://git-lfs.github.com/spec/v1".to_vec(), "git lfs pull"),
        (b"PK\x03\x04 and no more".to_vec(), "zip directory"),
        (b"\x80\x02K\x01.".to_vec(), "magic number"),
        (legacy(b"\x80\x02K\x01.", &[]), "no dictionary of tensors"),
        (legacy(&[b"\x80\x02}", &binunicode("epoch")[..], b"K\x01s."].concat(), &[]), "first keys are [epoch]"),
        ([&legacy(b"\x80\x02}.", &[])[..], b"more"].concat(), "4 bytes after the last storage"),
    ];
    for (bytes, expected) in cases {
        let path = dir.path().join("pytorch_model.bin");
        fs::write(&path, bytes).unwrap();
        let error = open_error(&path);
        assert!(error.contains(expected) && error.contains("pytorch_model.bin"), "{error}: expected {expected}");
    }
}

#[test]
fn compressed_and_altered_entries_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pytorch_model.bin");
    let good = fs::read(fixture("zip.bin")).unwrap();
    let directory = good.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
    let mut compressed = good.clone();
    compressed[directory + 10] = 8; // the method: deflate
    fs::write(&path, &compressed).unwrap();
    assert!(open_error(&path).contains("is compressed or encrypted"));
    for cut in [good.len() - 1, good.len() / 2, 100] {
        fs::write(&path, &good[..cut]).unwrap();
        assert!(open_error(&path).contains("zip directory"));
    }
    // The checksum of the program is verified first, that of a storage when it is copied.
    let program = good.windows(15).position(|bytes| bytes == b"word_embeddings").unwrap();
    let mut altered = good.clone();
    altered[program] = b'W';
    fs::write(&path, &altered).unwrap();
    assert!(open_error(&path).contains("data.pkl at byte"));
}
