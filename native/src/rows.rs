//! The rows of a table: their lines in the order in which they were made, and the order of their keys.

use std::ops::Range;

/// The server begins soon, and the driver isn't called too often.
const BLOCK_BYTES: usize = 30_000;

/// Lines and their keys. Texts are compared byte by byte, as Postgres does.
#[derive(Default)]
pub struct Rows {
    pub text: Vec<u8>,
    keys: Vec<u8>,
    rows: Vec<(Range<usize>, Range<usize>, Range<usize>)>,
}

impl Rows {
    /// The line that was written to `text` from `begin` on is a row with this key.
    pub fn push(&mut self, begin: usize, key: (&str, &str)) {
        let (first, second) = (self.add_key(key.0), self.add_key(key.1));
        self.rows.push((begin..self.text.len(), first, second));
    }

    fn add_key(&mut self, part: &str) -> Range<usize> {
        let begin = self.keys.len();
        self.keys.extend_from_slice(part.as_bytes());
        begin..self.keys.len()
    }

    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines in the order of their keys, some at a time; those of one key stay as they were.
    pub fn blocks(&self) -> Vec<Vec<u8>> {
        let mut order: Vec<_> = self.rows.iter().collect();
        order.sort_by_key(|(_, first, second)| (self.keys.get(first.clone()), self.keys.get(second.clone())));
        let (mut blocks, mut block) = (Vec::new(), Vec::new());
        for (line, _, _) in order {
            block.extend_from_slice(self.text.get(line.clone()).unwrap_or_default());
            if block.len() > BLOCK_BYTES {
                blocks.push(std::mem::take(&mut block));
            }
        }
        if !block.is_empty() {
            blocks.push(block);
        }
        blocks
    }
}

/// Whether JSON and COPY both have the text as it stands.
pub fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\')
}

/// Write the texts, one after the other.
pub fn join(out: &mut Vec<u8>, texts: &[&str]) {
    texts.iter().for_each(|text| out.extend_from_slice(text.as_bytes()));
}

/// Write the number, and what follows it.
pub fn decimal(out: &mut Vec<u8>, number: i64, after: &str) {
    join(out, &[itoa::Buffer::new().format(number), after]);
}

/// Write the bytes as COPY has them.
pub fn hexadecimal(out: &mut Vec<u8>, bytes: &[u8]) {
    join(out, &["\\\\x"]);
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            out.push(if digit < 10 { b'0' | digit } else { (b'a' - 10).wrapping_add(digit) });
        }
    }
}
