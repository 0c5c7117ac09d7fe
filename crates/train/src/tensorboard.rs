//! TensorBoard event files with scalars.
//!
//! A file is a sequence of TFRecords: length u64, masked crc32c of the length, bytes, masked crc32c of the bytes,
//! little-endian (tensorflow/core/lib/io/record_writer.h). Each contains an `Event` of
//! tensorflow/core/util/event.proto: 1 wall_time double, 2 step int64, 3 file_version string, 5 summary, 7 session_log.
//! A summary's `value` (field 1) has 1 tag string and 2 simple_value float. A session log has 1 status; START = 1 tells
//! TensorBoard to ignore events of earlier files from that step on, so that a resumed run shows one curve.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crc32c::crc32c;

use crate::TrainError;

/// An event file that is being written.
#[derive(Debug)]
pub struct EventFile {
    file: File,
    path: PathBuf,
}

impl EventFile {
    /// Creates `events.out.tfevents.TIME.cloze.N` in a folder; `first_step` is the first step of this session.
    ///
    /// # Errors
    /// The system's error with the path.
    pub fn create(folder: &Path, first_step: u64) -> Result<EventFile, TrainError> {
        let seconds = wall_time() as u64;
        let (file, path) = (0..)
            .map(|n| folder.join(format!("events.out.tfevents.{seconds:010}.cloze.{n}")))
            .find_map(|path| match OpenOptions::new().write(true).create_new(true).open(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => None,
                opened => Some((opened, path)),
            })
            .expect("an infinite sequence of names");
        let file = file.map_err(|e| TrainError::io("create", &path, e))?;
        let mut events = EventFile { file, path };
        let mut version = event(wall_time(), 0);
        put_bytes(&mut version, 3, b"brain.Event:2");
        let mut start = event(wall_time(), first_step);
        put_bytes(&mut start, 7, &[0x08, 0x01]);
        events.append(&[version, start])?;
        Ok(events)
    }

    /// Writes scalars at a step. Values that are not finite are skipped.
    ///
    /// # Errors
    /// The system's error with the path.
    pub fn scalars(&mut self, step: u64, values: &[(String, f64)]) -> Result<(), TrainError> {
        let mut bytes = event(wall_time(), step);
        let mut summary = Vec::new();
        for (tag, value) in values.iter().filter(|(_, v)| v.is_finite()) {
            let mut entry = Vec::new();
            put_bytes(&mut entry, 1, tag.as_bytes());
            entry.push(2 << 3 | 5);
            entry.extend((*value as f32).to_le_bytes());
            put_bytes(&mut summary, 1, &entry);
        }
        put_bytes(&mut bytes, 5, &summary);
        self.append(&[bytes])
    }

    fn append(&mut self, events: &[Vec<u8>]) -> Result<(), TrainError> {
        let bytes: Vec<u8> = events.iter().flat_map(|e| record(e)).collect();
        self.file.write_all(&bytes).map_err(|e| TrainError::io("write", &self.path, e))
    }
}

fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}

/// An `Event` with its time and step; more fields may be appended.
fn event(wall_time: f64, step: u64) -> Vec<u8> {
    let mut bytes = vec![1 << 3 | 1];
    bytes.extend(wall_time.to_le_bytes());
    bytes.push(2 << 3);
    put_varint(&mut bytes, step);
    bytes
}

/// Appends a length-delimited field.
fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A TFRecord with these bytes.
fn record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let mut out = length.to_vec();
    out.extend(masked(crc32c(&length)).to_le_bytes());
    out.extend_from_slice(bytes);
    out.extend(masked(crc32c(bytes)).to_le_bytes());
    out
}

/// TFRecord's mask, so that a checksum remains useful for data that contains checksums.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_castagnoli() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283); // RFC 3720's check value
        assert_eq!(crc32c(&[0u8; 32]), 0x8a91_36aa); // RFC 3720, B.4
    }

    /// Identical to the record that TensorBoard's own writer produces for this event.
    #[test]
    fn bytes_of_a_record() {
        let mut e = event(1.5, 300);
        let mut value = Vec::new();
        put_bytes(&mut value, 1, b"loss");
        value.push(0x15);
        value.extend(2.0f32.to_le_bytes());
        let mut summary = Vec::new();
        put_bytes(&mut summary, 1, &value);
        put_bytes(&mut e, 5, &summary);
        let expected: &[u8] = &[
            0x09, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f, 0x10, 0xac, 0x02, 0x2a, 0x0d, 0x0a, 0x0b, 0x0a, 0x04, b'l', b'o', b's',
            b's', 0x15, 0, 0, 0, 0x40,
        ];
        assert_eq!(e, expected);
        let r = record(&e);
        assert_eq!(r.len(), 8 + 4 + expected.len() + 4);
        assert_eq!(r[..8], 27u64.to_le_bytes());
        assert_eq!(r[8..12], masked(crc32c(&r[..8])).to_le_bytes());
        assert_eq!(r[39..], masked(crc32c(expected)).to_le_bytes());
    }

    #[test]
    fn a_file_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut events = EventFile::create(folder.path(), 7).unwrap();
        events.scalars(8, &[("train/loss".to_owned(), 1.25), ("bad".to_owned(), f64::NAN)]).unwrap();
        EventFile::create(folder.path(), 9).unwrap(); // a second file in the same second gets another name
        let bytes = std::fs::read(&events.path).unwrap();
        let mut rest = &bytes[..];
        let mut records = Vec::new();
        while !rest.is_empty() {
            let n = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked(crc32c(&rest[..8])).to_le_bytes());
            let body = &rest[12..12 + n];
            assert_eq!(rest[12 + n..16 + n], masked(crc32c(body)).to_le_bytes());
            records.push(body.to_vec());
            rest = &rest[16 + n..];
        }
        assert_eq!(records.len(), 3);
        assert!(records[0].ends_with(b"brain.Event:2"));
        assert!(records[1].ends_with(&[0x10, 7, 0x3a, 2, 8, 1]));
        assert!(records[2].ends_with(&1.25f32.to_le_bytes()));
    }
}
