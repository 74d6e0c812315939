//! stockledger's codec, compiled. Its specification is the one in Python, which also does what isn't plain.
//!
//! `record`, `packed` and `rows` know no Python; `python` hands them its objects, and makes objects of the answers.

pub mod packed;
pub mod record;
pub mod rows;

#[cfg(feature = "python")]
mod python;
