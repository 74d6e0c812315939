//! A record's parts as Python's `marshal` writes them in its version 2.
//!
//! Source: CPython's Python/marshal.c, `w_object`. Sizes are little endian, of 32 bits.

use crate::record::Header;

const DIGIT_BITS: u32 = 15;

/// `marshal.dumps((key, value, headers, leader_epoch, timestamp_ms), 2)`; `None` where a part is too large.
pub fn pack(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: Option<&[Header]>,
    leader_epoch: i64,
    timestamp_ms: i64,
) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(512);
    sized(&mut out, b'(', 5)?;
    bytes(&mut out, key)?;
    bytes(&mut out, value)?;
    match headers {
        None => out.push(b'N'),
        Some(headers) => {
            sized(&mut out, b'[', headers.len())?;
            for (name, value) in headers {
                sized(&mut out, b'(', 2)?;
                sized(&mut out, b'u', name.len())?;
                out.extend_from_slice(name.as_bytes());
                bytes(&mut out, *value)?;
            }
        }
    }
    integer(&mut out, leader_epoch)?;
    integer(&mut out, timestamp_ms)?;
    Some(out)
}

fn sized(out: &mut Vec<u8>, kind: u8, size: usize) -> Option<()> {
    out.push(kind);
    out.extend_from_slice(&i32::try_from(size).ok()?.to_le_bytes());
    Some(())
}

fn bytes(out: &mut Vec<u8>, part: Option<&[u8]>) -> Option<()> {
    match part {
        None => out.push(b'N'),
        Some(part) => {
            sized(out, b's', part.len())?;
            out.extend_from_slice(part);
        }
    }
    Some(())
}

fn integer(out: &mut Vec<u8>, number: i64) -> Option<()> {
    if let Ok(small) = i32::try_from(number) {
        out.push(b'i');
        out.extend_from_slice(&small.to_le_bytes());
        return Some(());
    }
    let mut rest = number.unsigned_abs();
    let mut digits = Vec::with_capacity(5);
    while rest != 0 {
        digits.push(u16::try_from(rest & ((1 << DIGIT_BITS) - 1)).ok()?);
        rest >>= DIGIT_BITS;
    }
    let count = i32::try_from(digits.len()).ok()?;
    out.push(b'l');
    out.extend_from_slice(&(if number < 0 { -count } else { count }).to_le_bytes());
    digits.iter().for_each(|digit| out.extend_from_slice(&digit.to_le_bytes()));
    Some(())
}
