//! Any bytes as a record, and its parts as rows: nothing panics, and what is taken is as plain as promised.
//!
//! The bytes are split at their NULs: command, id, source, another header, key; the rest is the value.

#![no_main]

use libfuzzer_sys::fuzz_target;
use stockledger_native::record::{COMMANDS, Header, Value, plain};
use stockledger_native::{packed, rows};

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(6, |byte| *byte == 0);
    let mut next = || parts.next().unwrap_or_default();
    let (command, id, source, other, key, value) = (next(), next(), next(), next(), next(), next());
    let (name, _) = COMMANDS[usize::from(command.first().copied().unwrap_or_default()) % COMMANDS.len()];
    let kind = format!("stockledger.{name}.v1");
    let other_name = std::str::from_utf8(other).unwrap_or("ce_time");
    let headers: Vec<Header> = vec![
        ("ce_specversion", Some(b"1.0")),
        ("ce_id", Some(id)),
        ("ce_source", Some(source)),
        ("ce_type", Some(if command.len() > 1 { command } else { kind.as_bytes() })),
        (other_name, Some(value)),
    ];
    let found = plain(&headers, value);
    if let Some(found) = found {
        assert_eq!((found.source.as_bytes(), found.id.as_bytes()), (source, id));
        assert!(value.is_ascii() && !value.contains(&b'\\'));
        let (_, known) = COMMANDS[found.command];
        let members = known.iter().zip(found.fields).filter_map(|(field, value)| Some((field.name, value?)));
        let again: Vec<String> = members
            .map(|(name, value)| match value {
                Value::Text(text) => format!("\"{name}\":\"{text}\""),
                Value::Number(number) => format!("\"{name}\":{number}"),
            })
            .collect();
        let again = format!("{{{}}}", again.join(","));
        let twice = plain(&headers[..4], again.as_bytes()).expect("the canonical form is plain");
        assert_eq!((twice.fields, twice.fingerprint), (found.fields, found.fingerprint));
    }
    let number = i64::from_le_bytes(std::array::from_fn(|at| key.get(at).copied().unwrap_or_default()));
    let packed = packed::pack(Some(key), Some(value), Some(&headers), number, -number.max(1)).expect("it is small");
    assert!(packed.len() < 2 * data.len() + 300);
    let mut made = rows::Rows::default();
    for text in [other_name, "b", "a"] {
        let begin = made.text.len();
        rows::join(&mut made.text, &[text, "\t"]);
        rows::decimal(&mut made.text, number, "\t");
        rows::hexadecimal(&mut made.text, key);
        made.push(begin, (text, other_name));
    }
    assert_eq!(made.blocks().concat().len(), made.text.len());
});
