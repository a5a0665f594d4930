//! The fields of a JSON object, taken out one by one; what is left over was not understood.

use axum::http::StatusCode;
use serde_json::{Map, Value};

use super::ApiError;
use crate::nearest::nearest;

/// The fields of an object that were not taken yet. `null` is the same as absent.
pub(super) struct Fields {
    left: Map<String, Value>,
    /// Where the object stands in the request; empty for the request itself.
    path: String,
    /// Every name that was asked for, for the nearest one to an unknown field.
    known: Vec<&'static str>,
}

impl Fields {
    /// The fields of the value at `path`.
    ///
    /// # Errors
    /// When it is not an object.
    pub(super) fn new(value: Value, path: impl Into<String>) -> Result<Self, ApiError> {
        let path = path.into();
        match value {
            Value::Object(left) => Ok(Self { left, path, known: Vec::new() }),
            other if path.is_empty() => {
                let message = format!("the body: expected an object, found {}", kind_of(&other));
                Err(ApiError::new(StatusCode::BAD_REQUEST, "invalid_value", message))
            }
            other => Err(ApiError::field(path, format!("expected an object, found {}", kind_of(&other)))),
        }
    }

    /// Where a field stands in the request.
    pub(super) fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The value of a field under any of its names, and the name it was found under.
    ///
    /// # Errors
    /// When two of the names are there with different values.
    pub(super) fn take(&mut self, names: &[&'static str]) -> Result<Option<(String, Value)>, ApiError> {
        self.known.extend(names);
        let mut found: Option<(&str, Value)> = None;
        for name in names {
            let Some(value) = self.left.remove(*name).filter(|value| !value.is_null()) else { continue };
            match &found {
                Some((first, other)) if *other != value => {
                    let message = format!("{name} and {first} are names of the same setting, with different values");
                    return Err(ApiError::field(self.path(name), message));
                }
                Some(_) => (),
                None => found = Some((name, value)),
            }
        }
        Ok(found.map(|(name, value)| (self.path(name), value)))
    }

    /// A field that `read` can make something of.
    ///
    /// # Errors
    /// When it cannot; `expected` says what would do.
    pub(super) fn read<T>(
        &mut self,
        names: &[&'static str],
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some((path, value)) = self.take(names)? else { return Ok(None) };
        match read(&value) {
            Some(read) => Ok(Some(read)),
            None => Err(ApiError::field(&path, format!("expected {expected}, found {}", found(&value)))),
        }
    }

    /// A whole number of 0 or more.
    pub(super) fn count(&mut self, names: &[&'static str]) -> Result<Option<usize>, ApiError> {
        self.read(names, "a whole number of 0 or more", |value| whole(value).and_then(|n| usize::try_from(n).ok()))
    }

    /// A number.
    pub(super) fn number(&mut self, names: &[&'static str]) -> Result<Option<f32>, ApiError> {
        self.read(names, "a number", |value| value.as_f64().map(|number| number as f32))
    }

    /// True or false.
    pub(super) fn flag(&mut self, names: &[&'static str]) -> Result<Option<bool>, ApiError> {
        self.read(names, "true or false", Value::as_bool)
    }

    /// A string.
    pub(super) fn text(&mut self, names: &[&'static str]) -> Result<Option<String>, ApiError> {
        self.read(names, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// A field that is let through where it changes nothing.
    ///
    /// # Errors
    /// When it would; `hint` says what to do.
    pub(super) fn neutral(
        &mut self,
        name: &'static str,
        is_neutral: impl Fn(&Value) -> bool,
        hint: &str,
    ) -> Result<(), ApiError> {
        match self.take(&[name])? {
            Some((path, value)) if !is_neutral(&value) => {
                let message = format!("{name} = {} cannot be honoured; {hint}", found(&value));
                Err(ApiError { code: "unsupported_value", ..ApiError::field(path, message) })
            }
            _ => Ok(()),
        }
    }

    /// Refuses what was not taken.
    ///
    /// # Errors
    /// The first field that is left.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        #[cfg(test)]
        ASKED_FOR.with_borrow_mut(|asked| asked.push((self.path.clone(), self.known.clone())));
        let Some(name) = self.left.iter().find(|(_, value)| !value.is_null()).map(|(name, _)| name) else {
            return Ok(());
        };
        let nearest = nearest(name, self.known.iter().copied());
        let hint = nearest.map_or(String::new(), |nearest| format!("; the nearest known name is {nearest}"));
        let message = format!("unknown field {:?}{hint}", shortened(name));
        Err(ApiError { code: "unknown_parameter", ..ApiError::field(self.path(&shortened(name)), message) })
    }
}

#[cfg(test)]
thread_local! {
    /// The names that were asked for in each object, by where it stands.
    static ASKED_FOR: std::cell::RefCell<Vec<(String, Vec<&'static str>)>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// The names that this thread asked for in each object since the last call, by where the object stands.
#[cfg(test)]
pub(in crate::serve) fn asked_for() -> Vec<(String, std::collections::BTreeSet<String>)> {
    let names = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
    ASKED_FOR.take().into_iter().map(|(path, asked)| (path, names(asked))).collect()
}

/// A whole number, also where it is written as 3.0.
pub(super) fn whole(value: &Value) -> Option<u64> {
    let of_float = |number: f64| (number >= 0.0 && number.fract() == 0.0 && number < 9e15).then_some(number as u64);
    value.as_u64().or_else(|| value.as_f64().and_then(of_float))
}

/// A value in a message: itself where it is short.
pub(super) fn found(value: &Value) -> String {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => format!("{:?}", shortened(text)),
        Value::Array(_) | Value::Object(_) => kind_of(value).to_owned(),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The beginning of a text, for a message.
pub(in crate::serve) fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
