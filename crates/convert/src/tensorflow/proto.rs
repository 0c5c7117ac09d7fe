//! The part of Protocol Buffers' wire format that the entries of a bundle need.

/// The content of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Field<'a> {
    Varint(u64),
    Fixed64,
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// Reads a base-128 integer of at most 64 bits from the start of `bytes` and advances it.
pub(super) fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let Some((&byte, rest)) = bytes.split_first() else {
            return Err("the message ends within a number".to_owned());
        };
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && bits > 1 {
            break;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number has more than 64 bits".to_owned())
}

/// Takes `count` bytes from the start of `bytes` and advances it.
pub(super) fn take<'a>(bytes: &mut &'a [u8], count: u64) -> Result<&'a [u8], String> {
    let split = usize::try_from(count).ok().and_then(|count| bytes.split_at_checked(count));
    let (taken, rest) = split.ok_or_else(|| format!("expected {count} more bytes, found {}", bytes.len()))?;
    *bytes = rest;
    Ok(taken)
}

fn fixed<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], String> {
    let (taken, rest) = bytes.split_first_chunk::<N>().ok_or("the message ends within a number")?;
    *bytes = rest;
    Ok(*taken)
}

/// The number and content of every field of a message, in order.
pub(super) fn fields(mut bytes: &[u8]) -> Result<Vec<(u64, Field<'_>)>, String> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let field = match tag & 7 {
            0 => Field::Varint(varint(&mut bytes)?),
            1 => {
                fixed::<8>(&mut bytes)?;
                Field::Fixed64
            }
            2 => {
                let length = varint(&mut bytes)?;
                Field::Bytes(take(&mut bytes, length)?)
            }
            5 => Field::Fixed32(u32::from_le_bytes(fixed(&mut bytes)?)),
            other => return Err(format!("wire type {other} is not valid")),
        };
        fields.push((tag >> 3, field));
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_examples_of_the_encoding_guide() {
        // developers.google.com/protocol-buffers/docs/encoding: 150, "testing".
        assert_eq!(fields(b"\x08\x96\x01").unwrap(), [(1, Field::Varint(150))]);
        assert_eq!(fields(b"\x12\x07testing").unwrap(), [(2, Field::Bytes(b"testing"))]);
        assert_eq!(fields(b"\x35\x01\x02\0\0").unwrap(), [(6, Field::Fixed32(513))]);
        assert_eq!(varint(&mut &[0xff; 9].iter().copied().chain([1]).collect::<Vec<u8>>()[..]).unwrap(), u64::MAX);
    }

    #[test]
    fn rejects_truncated_and_too_long_messages() {
        for bytes in [
            &b"\x08\x96"[..],
            b"\x12\x08testing",
            b"\x0b",
            b"\x35\x01",
            &[0xff; 11],
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert!(fields(bytes).is_err(), "{bytes:?}");
        }
    }
}
