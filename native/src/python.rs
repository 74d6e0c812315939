//! Python's objects in, Python's objects out. Whatever isn't plain goes to the functions that were given.

use crate::record::{COMMANDS, HEADERS_MAX, Header, Value, plain};
use crate::{packed, rows};
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyInt, PyList, PyString, PyTuple, PyType};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Mutex;

/// Ids that are kept: what recurs is one object, not thousands.
const TEXTS: usize = 4096;

/// A command's or an event's class, its stable name, and its fields.
struct Kind {
    class: Py<PyType>,
    name: String,
    fields: Vec<(Py<PyString>, String)>,
}

impl Kind {
    fn of(name: &str, class: &Bound<PyType>) -> PyResult<Kind> {
        let py = class.py();
        let names: Vec<String> = class.getattr("__struct_fields__")?.extract()?;
        let fields = names.into_iter().map(|field| (PyString::intern(py, &field).unbind(), field)).collect();
        Ok(Kind { class: class.clone().unbind(), name: name.to_owned(), fields })
    }
}

/// The codec, over the classes and functions of the one in Python.
#[pyclass(frozen)]
struct Codec {
    delivery: Py<PyAny>,
    register_line: Py<PyAny>,
    event_line: Py<PyAny>,
    delivery_class: Py<PyAny>,
    request_class: Py<PyAny>,
    key_class: Py<PyAny>,
    new_tuple: Py<PyAny>,
    commands: Vec<Kind>,
    events: Vec<Kind>,
    texts: Mutex<Vec<Option<Py<PyString>>>>,
}

#[pymethods]
impl Codec {
    /// `classes` are those of a delivery, a request and a message key; commands and events go by their names.
    #[new]
    fn new(
        py: Python,
        functions: (Py<PyAny>, Py<PyAny>, Py<PyAny>),
        classes: (Py<PyAny>, Py<PyAny>, Py<PyAny>),
        commands: &Bound<PyDict>,
        events: &Bound<PyDict>,
    ) -> PyResult<Self> {
        let (delivery, register_line, event_line) = functions;
        let (delivery_class, request_class, key_class) = classes;
        let mut known = Vec::new();
        for (name, fields) in COMMANDS {
            let class = commands.get_item(name)?.ok_or_else(|| PyValueError::new_err(name))?;
            let kind = Kind::of(name, class.cast()?)?;
            if !kind.fields.iter().map(|(_, name)| name.as_str()).eq(fields.iter().map(|field| field.name)) {
                return Err(PyValueError::new_err(name));
            }
            known.push(kind);
        }
        let event = |(name, class): (Bound<PyAny>, Bound<PyAny>)| Kind::of(name.cast()?.to_str()?, class.cast()?);
        Ok(Codec {
            delivery,
            register_line,
            event_line,
            delivery_class,
            request_class,
            key_class,
            new_tuple: py.get_type::<PyTuple>().getattr("__new__")?.unbind(),
            commands: known,
            events: events.iter().map(event).collect::<PyResult<_>>()?,
            texts: Mutex::new((0..TEXTS).map(|_| None).collect()),
        })
    }

    /// A record and what it says.
    fn delivery<'py>(
        &self,
        offset: &Bound<'py, PyAny>,
        key: &Bound<'py, PyAny>,
        value: &Bound<'py, PyAny>,
        headers: &Bound<'py, PyAny>,
        leader_epoch: &Bound<'py, PyAny>,
        timestamp_ms: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match self.plain_delivery(offset, key, value, headers, leader_epoch, timestamp_ms) {
            Some(delivery) => Ok(delivery),
            None => {
                let record = (offset, key, value, headers, leader_epoch, timestamp_ms);
                self.delivery.bind(offset.py()).call1(record)
            }
        }
    }

    /// The register's rows.
    fn register_rows(&self, register: &Bound<PyList>) -> PyResult<Rows> {
        let mut rows = rows::Rows::default();
        for row in register {
            let (key, processed) = row.extract::<(Bound<PyAny>, Bound<PyAny>)>()?;
            let begin = rows.text.len();
            let (source, id) = key.extract::<(Bound<PyString>, Bound<PyString>)>()?;
            let (source, id) = (source.to_str()?, id.to_str()?);
            if register_line(&mut rows.text, source, id, &processed).is_none() {
                rows.text.truncate(begin);
                let line = self.register_line.bind(key.py()).call1((&key, &processed))?;
                rows.text.extend_from_slice(line.cast::<PyString>()?.to_str()?.as_bytes());
            }
            rows.push(begin, (id, source));
        }
        Ok(Rows(rows))
    }

    /// The rows of an entry's events.
    fn event_rows(&self, entry: &Bound<PyInt>, events: &Bound<PyList>) -> PyResult<Rows> {
        let mut rows = rows::Rows::default();
        let number: i64 = entry.extract()?;
        for row in events {
            let (ordinal, place, key, event) =
                row.extract::<(Bound<PyAny>, Bound<PyAny>, Bound<PyAny>, Bound<PyAny>)>()?;
            let begin = rows.text.len();
            let stream = place.getattr(intern!(place.py(), "stream"))?;
            let stream = stream.cast::<PyString>()?.to_str()?;
            if self.event_line(&mut rows.text, number, &ordinal, (stream, &place), &key, &event).is_none() {
                rows.text.truncate(begin);
                let line = self.event_line.bind(event.py()).call1((entry, &ordinal, &place, &key, &event))?;
                rows.text.extend_from_slice(line.cast::<PyString>()?.to_str()?.as_bytes());
            }
            rows.push(begin, (stream, ""));
        }
        Ok(Rows(rows))
    }
}

impl Codec {
    fn plain_delivery<'py>(
        &self,
        offset: &Bound<'py, PyAny>,
        key: &Bound<'py, PyAny>,
        value: &Bound<'py, PyAny>,
        headers: &Bound<'py, PyAny>,
        leader_epoch: &Bound<'py, PyAny>,
        timestamp_ms: &Bound<'py, PyAny>,
    ) -> Option<Bound<'py, PyAny>> {
        let py = offset.py();
        let key = if key.is_none() { None } else { Some(key.cast::<PyBytes>().ok()?.as_bytes()) };
        let value = value.cast::<PyBytes>().ok()?.as_bytes();
        let list = headers.cast::<PyList>().ok()?;
        if list.len() > HEADERS_MAX {
            return None;
        }
        let mut owned = Vec::with_capacity(list.len());
        for header in list {
            let header = header.cast_into::<PyTuple>().ok()?;
            let name = header.get_item(0).ok()?.cast_into::<PyString>().ok()?;
            let value = header.get_item(1).ok()?;
            owned.push((name, if value.is_none() { None } else { Some(value.cast_into::<PyBytes>().ok()?) }));
        }
        let mut headers: Vec<Header> = Vec::with_capacity(owned.len());
        for (name, value) in &owned {
            headers.push((name.to_str().ok()?, value.as_ref().map(|value| value.as_bytes())));
        }
        let found = plain(&headers, value)?;
        let (epoch, time) = (leader_epoch.extract().ok()?, timestamp_ms.extract().ok()?);
        let packed = packed::pack(key, Some(value), Some(&headers), epoch, time)?;
        let kind = self.commands.get(found.command)?;
        let given = PyDict::new(py);
        for ((name, _), field) in kind.fields.iter().zip(found.fields) {
            match field {
                Some(Value::Text(text)) => given.set_item(name, self.text(py, text)).ok()?,
                Some(Value::Number(number)) => given.set_item(name, number).ok()?,
                None => {}
            }
        }
        let command = kind.class.bind(py).call((), Some(&given)).ok()?;
        let parts = PyTuple::new(py, [self.text(py, found.source), PyString::new(py, found.id)]).ok()?;
        let message_key = self.new_tuple.bind(py).call1((&self.key_class, parts)).ok()?;
        let fingerprint = PyBytes::new(py, &found.fingerprint);
        let request = self.request_class.bind(py).call1((message_key, command, fingerprint)).ok()?;
        self.delivery_class.bind(py).call1((offset, request, PyBytes::new(py, &packed))).ok()
    }

    /// The text, as the object that was made of it before, if that is still kept.
    fn text<'py>(&self, py: Python<'py>, text: &str) -> Bound<'py, PyString> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(text);
        // Another thread may run in between, and it must not wait for us with the interpreter's lock in hand.
        let Ok(mut kept) = self.texts.try_lock() else { return PyString::new(py, text) };
        let Some(place) = usize::try_from(hash % TEXTS as u64).ok().and_then(|slot| kept.get_mut(slot)) else {
            return PyString::new(py, text);
        };
        if let Some(found) = place
            && found.bind(py).to_str().is_ok_and(|found| found == text)
        {
            return found.bind(py).clone();
        }
        let made = PyString::new(py, text);
        *place = Some(made.clone().unbind());
        made
    }

    fn event_line(
        &self,
        out: &mut Vec<u8>,
        entry: i64,
        ordinal: &Bound<PyAny>,
        place: (&str, &Bound<PyAny>),
        key: &Bound<PyAny>,
        event: &Bound<PyAny>,
    ) -> Option<()> {
        let py = event.py();
        let class = event.get_type();
        let kind = self.events.iter().find(|kind| kind.class.is(&class))?;
        let (source, id) = key.extract::<(Bound<PyString>, Bound<PyString>)>().ok()?;
        let (source, id) = (source.to_str().ok()?, id.to_str().ok()?);
        let (stream, place) = place;
        let version = number(place, intern!(py, "version"))?;
        if ![source, id, stream].into_iter().all(rows::is_plain) {
            return None;
        }
        rows::decimal(out, entry, "\t");
        rows::decimal(out, ordinal.extract().ok()?, "\t");
        rows::join(out, &[stream, "\t"]);
        rows::decimal(out, version, "\t");
        rows::join(out, &[&kind.name, "\t{"]);
        let (mut between, mut user_id) = ("\"", None);
        for (attribute, name) in &kind.fields {
            let value = event.getattr(attribute).ok()?;
            if value.is_none() {
                continue; // its default
            }
            rows::join(out, &[between, name, "\":"]);
            if let Ok(text) = value.cast_exact::<PyString>() {
                rows::join(out, &["\"", text.to_str().ok().filter(|text| rows::is_plain(text))?, "\""]);
            } else {
                rows::decimal(out, value.cast_exact::<PyInt>().ok()?.extract().ok()?, "");
            }
            if name == "user_id" {
                user_id = Some(value);
            }
            between = ",\"";
        }
        rows::join(out, &["}\t"]);
        rows::decimal(out, number(event, intern!(py, "stock_delta"))?, "\t");
        let user_id = match &user_id {
            Some(user_id) => user_id.cast::<PyString>().ok()?.to_str().ok()?,
            None => "",
        };
        let user_id = if user_id.is_empty() { "\\N" } else { user_id };
        rows::join(out, &[source, "\t", id, "\t", user_id, "\n"]);
        Some(())
    }
}

fn register_line(out: &mut Vec<u8>, source: &str, id: &str, processed: &Bound<PyAny>) -> Option<()> {
    let py = processed.py();
    if !rows::is_plain(source) || !rows::is_plain(id) {
        return None;
    }
    rows::decimal(out, number(processed, intern!(py, "entry"))?, "\t");
    rows::decimal(out, number(processed, intern!(py, "offset"))?, "\t");
    let version = processed.getattr(intern!(py, "version")).ok()?;
    match version.is_none() {
        true => rows::join(out, &["\\N\t"]),
        false => rows::decimal(out, version.extract().ok()?, "\t"),
    }
    let reason = processed.getattr(intern!(py, "reason")).ok()?;
    match reason.is_none() {
        true => rows::join(out, &["\\N\t"]),
        false => rows::join(out, &[reason.cast::<PyString>().ok()?.to_str().ok()?, "\t"]),
    }
    let fingerprint = processed.getattr(intern!(py, "fingerprint")).ok()?;
    rows::hexadecimal(out, fingerprint.cast::<PyBytes>().ok()?.as_bytes());
    rows::join(out, &["\t", source, "\t", id, "\n"]);
    Some(())
}

fn number(object: &Bound<PyAny>, name: &Bound<PyString>) -> Option<i64> {
    object.getattr(name).ok()?.extract().ok()
}

/// The rows of a table, made.
#[pyclass(frozen)]
struct Rows(rows::Rows);

#[pymethods]
impl Rows {
    fn __len__(&self) -> usize {
        self.0.len()
    }

    /// The lines in the order in which they were made.
    fn text<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.text)
    }

    /// The lines in the order of their keys, some at a time.
    fn blocks<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        self.0.blocks().iter().map(|block| PyBytes::new(py, block)).collect()
    }
}

#[pymodule]
fn stockledger_native(module: &Bound<PyModule>) -> PyResult<()> {
    module.add("VERSION", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<Codec>()
}
