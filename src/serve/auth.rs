//! Keys of requests.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::api::ApiError;

/// The keys that are let in. Their digests are compared, in a time that does not depend on what was sent.
pub(super) struct Keys(Vec<[u8; 32]>);

impl Keys {
    /// These keys; without one, everybody is let in.
    pub(super) fn new(keys: &[String]) -> Self {
        Self(keys.iter().map(|key| digest(key.as_bytes())).collect())
    }

    /// Lets a request with such headers in.
    ///
    /// # Errors
    /// 401 without `Authorization: Bearer KEY`, or with a key that is none of these.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let refused = |code, message| Err(ApiError::new(StatusCode::UNAUTHORIZED, code, message));
        let sent = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let Some((scheme, key)) = sent.and_then(|sent| sent.split_at_checked("Bearer ".len())) else {
            return refused("missing_api_key", "this server needs a key: send Authorization: Bearer KEY");
        };
        let sent = digest(key);
        let known = self.0.iter().fold(Choice::from(0), |known, key| known | key.ct_eq(&sent));
        if scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(known) {
            return Ok(());
        }
        refused("invalid_api_key", "the key is not one of this server's")
    }
}

fn digest(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(keys: &Keys, sent: Option<&str>) -> Option<&'static str> {
        let mut headers = HeaderMap::new();
        if let Some(sent) = sent {
            headers.insert(header::AUTHORIZATION, sent.parse().unwrap());
        }
        keys.check(&headers).err().map(|error| error.code)
    }

    #[test]
    fn one_of_the_keys_opens() {
        let keys = Keys::new(&["one".to_owned(), "two".to_owned()]);
        assert_eq!(code(&keys, Some("Bearer two")), None);
        assert_eq!(code(&keys, Some("bearer one")), None);
        assert_eq!(code(&keys, Some("Bearer on")), Some("invalid_api_key"));
        assert_eq!(code(&keys, Some("Digest  one")), Some("invalid_api_key"));
        assert_eq!(code(&keys, Some("one")), Some("missing_api_key"));
        assert_eq!(code(&keys, None), Some("missing_api_key"));
        assert_eq!(code(&Keys::new(&[]), None), None);
    }
}
