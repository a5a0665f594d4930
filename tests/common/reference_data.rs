//! Where the reference data is and how its files are read.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::path::PathBuf;

use serde::de::DeserializeOwned;

/// A file of the golden data.
pub fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A golden JSON file.
pub fn golden_json<T: DeserializeOwned>(name: &str) -> T {
    let path = golden(name);
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Lower-case hexadecimal digits, as hashes are recorded.
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}
