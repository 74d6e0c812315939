//! A record's bytes to a command: the plain ones alone. `None` is no refusal, but "ask the one in Python".
//!
//! Plain is what needs no second look: CloudEvents in binary mode, printable ASCII without escapes, no
//! repeated name, no null, integers in their bounds. What is refused, and in which words, is Python's to say.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use sha2::{Digest, Sha256};
use std::fmt;

/// More than these are looked at in Python, however many they are.
pub const HEADERS_MAX: usize = 16;
const KEY_PART_MAX: usize = 128;
const ID_MAX: usize = 64;
const TEXT_MAX: usize = 200;
const QUANTITY_MAX: i64 = 1_000_000_000;
const PRICE_MINOR_MAX: i64 = 1_000_000_000_000;
const JSON_TYPE: &[u8] = b"application/json";
const TYPE_PREFIX: &str = "stockledger.";
const TYPE_VERSION: &str = ".v1";

/// A header: its name, and its value if it has one.
pub type Header<'a> = (&'a str, Option<&'a [u8]>);

/// A field's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Text(&'a str),
    Number(i64),
}

/// A field of a command.
#[derive(Debug, PartialEq)]
pub struct Field {
    pub name: &'static str,
    required: bool,
    rule: Rule,
}

#[derive(Debug, PartialEq)]
enum Rule {
    BusinessId,
    KeyPart,
    Text,
    Number(i64, i64),
    Delta,
}

const fn required(name: &'static str, rule: Rule) -> Field {
    Field { name, required: true, rule }
}

const fn optional(name: &'static str, rule: Rule) -> Field {
    Field { name, required: false, rule }
}

const QUANTITY: Rule = Rule::Number(1, QUANTITY_MAX);

/// The commands' names and fields, these in the order in which a fingerprint covers them.
pub const COMMANDS: [(&str, &[Field]); 7] = [
    ("RegisterUser", &[optional("name", Rule::Text), required("user_id", Rule::BusinessId)]),
    ("CloseUser", &[required("user_id", Rule::BusinessId)]),
    ("ListGoods", &[required("goods_id", Rule::BusinessId), optional("name", Rule::Text)]),
    ("ReceiveStock", &[required("goods_id", Rule::BusinessId), required("quantity", QUANTITY)]),
    (
        "AdjustStock",
        &[
            required("delta", Rule::Delta),
            required("goods_id", Rule::BusinessId),
            optional("note", Rule::Text),
        ],
    ),
    (
        "PurchaseGoods",
        &[
            required("goods_id", Rule::BusinessId),
            required("quantity", QUANTITY),
            optional("unit_price_minor", Rule::Number(0, PRICE_MINOR_MAX)),
            required("user_id", Rule::BusinessId),
        ],
    ),
    (
        "CancelPurchase",
        &[
            required("goods_id", Rule::BusinessId),
            required("purchase_id", Rule::KeyPart),
            optional("purchase_source", Rule::KeyPart),
        ],
    ),
];

const FIELDS_MAX: usize = 4;

/// What a plain record says.
#[derive(Debug, PartialEq)]
pub struct Plain<'a> {
    /// Which of `COMMANDS` it is.
    pub command: usize,
    pub source: &'a str,
    pub id: &'a str,
    /// By the command's fields; `None` where one was left out.
    pub fields: [Option<Value<'a>>; FIELDS_MAX],
    pub fingerprint: [u8; 16],
}

/// The command in a plain record.
pub fn plain<'a>(headers: &[Header<'a>], value: &'a [u8]) -> Option<Plain<'a>> {
    let (mut specversion, mut source, mut id, mut kind) = (None, None, None, None);
    if headers.len() > HEADERS_MAX {
        return None;
    }
    for (number, (name, value)) in headers.iter().enumerate() {
        if headers.iter().take(number).any(|(earlier, _)| earlier == name) {
            return None;
        }
        match *name {
            "ce_specversion" => specversion = *value,
            "ce_source" => source = *value,
            "ce_id" => id = *value,
            "ce_type" => kind = *value,
            "content-type" if *value != Some(JSON_TYPE) => return None,
            _ => {}
        }
    }
    if specversion? != b"1.0" {
        return None;
    }
    let (source, id) = (key_part(text(source?)?)?, key_part(text(id?)?)?);
    let name = text(kind?)?.strip_prefix(TYPE_PREFIX)?.strip_suffix(TYPE_VERSION)?;
    let command = COMMANDS.iter().position(|(known, _)| *known == name)?;
    let (_, known) = COMMANDS.get(command)?;
    let given: Given = serde_json::from_slice(value).ok()?;
    let fields = fields(known, &given)?;
    Some(Plain { command, source, id, fields, fingerprint: fingerprint(name, known, &fields, source) })
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn key_part(text: &str) -> Option<&str> {
    let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
    (visible && (1..=KEY_PART_MAX).contains(&text.len())).then_some(text)
}

fn is_printable(text: &str) -> bool {
    text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic())
}

fn allows(rule: &Rule, value: Value) -> bool {
    match (rule, value) {
        (Rule::BusinessId, Value::Text(text)) => {
            (1..=ID_MAX).contains(&text.len())
                && is_printable(text)
                && !text.starts_with(' ')
                && !text.ends_with(' ')
        }
        (Rule::KeyPart, Value::Text(text)) => key_part(text).is_some(),
        (Rule::Text, Value::Text(text)) => text.len() <= TEXT_MAX && is_printable(text),
        (Rule::Number(least, most), Value::Number(number)) => (least..=most).contains(&&number),
        (Rule::Delta, Value::Number(number)) => {
            number != 0 && (-QUANTITY_MAX..=QUANTITY_MAX).contains(&number)
        }
        _ => false,
    }
}

/// The values by the command's fields, if these and no others are given, each once.
fn fields<'a>(known: &[Field], given: &Given<'a>) -> Option<[Option<Value<'a>>; FIELDS_MAX]> {
    let mut fields = [None; FIELDS_MAX];
    let mut found = 0;
    for (field, place) in known.iter().zip(fields.iter_mut()) {
        *place = given.members.iter().flatten().find(|(name, _)| *name == field.name).map(|(_, value)| *value);
        match *place {
            Some(value) if allows(&field.rule, value) => found += 1,
            Some(_) => return None,
            None if field.required => return None,
            None => {}
        }
    }
    (found == given.members.iter().flatten().count()).then_some(fields)
}

/// First 16 bytes of SHA-256 over the type's name without its version, LF, and the fields as compact JSON.
fn fingerprint(name: &str, known: &[Field], fields: &[Option<Value>], source: &str) -> [u8; 16] {
    let mut text = String::with_capacity(256);
    text.push_str(TYPE_PREFIX);
    text.push_str(name);
    text.push_str("\n{");
    let mut between = "";
    for (field, value) in known.iter().zip(fields) {
        let Some(value) = value else { continue };
        if field.name == "purchase_source" && *value == Value::Text(source) {
            continue; // its default
        }
        text.push_str(between);
        text.push('"');
        text.push_str(field.name);
        text.push_str("\":");
        match value {
            Value::Text(value) => {
                text.push('"');
                text.push_str(value);
                text.push('"');
            }
            Value::Number(number) => text.push_str(&number.to_string()),
        }
        between = ",";
    }
    text.push('}');
    let mut first = [0; 16];
    first.iter_mut().zip(Sha256::digest(text)).for_each(|(to, from)| *to = from);
    first
}

/// A JSON object of few texts and integers, as they stand there: an escape, a float or a null isn't plain.
struct Given<'a> {
    members: [Option<(&'a str, Value<'a>)>; FIELDS_MAX],
}

impl<'de: 'a, 'a> Deserialize<'de> for Given<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(GivenVisitor)
    }
}

struct GivenVisitor;

impl<'de> Visitor<'de> for GivenVisitor {
    type Value = Given<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a small object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Given<'de>, A::Error> {
        let mut members = [None; FIELDS_MAX];
        for place in &mut members {
            *place = map.next_entry::<&str, Value>()?;
            if place.is_none() {
                return Ok(Given { members });
            }
        }
        match map.next_entry::<&str, Value>()? {
            None => Ok(Given { members }),
            Some(_) => Err(A::Error::custom("too many fields")),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Value<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a text or an integer")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(text))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value<'de>, E> {
        Ok(Value::Number(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value<'de>, E> {
        i64::try_from(number).map(Value::Number).map_err(E::custom)
    }
}
