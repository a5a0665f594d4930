//! Bodies of requests, as they come.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{StatusCode, header};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::StreamExt as _;

use super::Shared;
use super::api::ApiError;

/// Of the largest bodies, how many may be in memory at once.
const LARGEST_AT_ONCE: usize = 8;

/// Bytes of a body that are not counted: questions without images are let in whatever comes beside them.
const SMALL: usize = 64 << 10;

/// Bytes that are counted as one.
const UNIT: usize = 1 << 10;

/// The memory that all bodies together may take.
pub(super) struct BodyMemory(Arc<Semaphore>);

/// A body, and its share of the memory, which it keeps as long as this lives.
pub(super) struct RequestBody {
    pub(super) bytes: Vec<u8>,
    share: Option<OwnedSemaphorePermit>,
}

/// The share of the memory that a body's bytes have, for what is made of them.
#[derive(Clone)]
pub(super) struct BodyShare(
    #[expect(dead_code, reason = "held until it is dropped")] Option<Arc<OwnedSemaphorePermit>>,
);

impl BodyMemory {
    /// For bodies of `most` bytes each.
    pub(super) fn new(most: usize) -> Self {
        Self(Arc::new(Semaphore::new((LARGEST_AT_ONCE * most.div_ceil(UNIT)).min(Semaphore::MAX_PERMITS))))
    }

    /// Makes the share of a body fit `bytes`; false if there is not so much left.
    fn grow(&self, share: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> bool {
        let wanted = bytes.saturating_sub(SMALL).div_ceil(UNIT);
        let more = wanted.saturating_sub(share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits));
        let Ok(permit) = Arc::clone(&self.0).try_acquire_many_owned(more as u32) else { return false };
        match share {
            Some(share) => share.merge(permit),
            None => *share = Some(permit),
        }
        true
    }
}

impl RequestBody {
    /// Whether it is read in no time.
    pub(super) fn is_small(&self) -> bool {
        self.bytes.len() <= SMALL
    }

    /// The bytes, and their share of the memory.
    pub(super) fn into_parts(self) -> (Vec<u8>, BodyShare) {
        (self.bytes, BodyShare(self.share.map(Arc::new)))
    }
}

impl Shared {
    /// The body of a request, which must arrive in time. One that cannot be taken is let arrive and thrown away, because a
    /// client that cannot send all does not look for an answer; unless it asks before it sends.
    ///
    /// # Errors
    /// 408 when it does not arrive in time, 413 when it is too large, 429 when too many large ones come at once.
    pub(super) async fn read_body(&self, request: Request) -> Result<RequestBody, ApiError> {
        let (most, patience) = (self.options.max_body, self.options.client_timeout);
        let large = || {
            let message = format!("the body is larger than {} MiB; send smaller or fewer images", most >> 20);
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
        };
        let told = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if request.headers().contains_key(header::EXPECT) && told.is_some_and(|length: usize| length > most) {
            return Err(large());
        }
        let (mut stream, mut length, mut has_room) = (request.into_body().into_data_stream(), 0, true);
        let mut body = RequestBody { bytes: Vec::new(), share: None };
        let read = async {
            while let Some(piece) = stream.next().await {
                let piece = piece?;
                length += piece.len();
                has_room = has_room && length <= most && self.bodies.grow(&mut body.share, length);
                if has_room {
                    body.bytes.extend_from_slice(&piece);
                } else {
                    body = RequestBody { bytes: Vec::new(), share: None };
                }
            }
            Ok::<_, axum::Error>(())
        };
        match tokio::time::timeout(patience, read).await {
            _ if length > most => Err(large()),
            Ok(Ok(())) if has_room => Ok(body),
            Ok(Ok(())) => {
                let message = "as many large requests arrive as this server has memory for; try again".to_owned();
                Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message))
            }
            Ok(Err(error)) => {
                let message = format!("the body did not arrive whole: {error}");
                Err(ApiError::new(StatusCode::BAD_REQUEST, "invalid_body", message))
            }
            Err(_) => {
                let message = format!("the body did not arrive within {} s", patience.as_secs());
                Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_what_large_bodies_take_and_come_back() {
        let memory = BodyMemory::new(1 << 20);
        let mut small = None;
        let mut large: Vec<_> = (0..LARGEST_AT_ONCE).map(|_| None).collect();
        for share in &mut large {
            assert!(memory.grow(share, 1 << 19) && memory.grow(share, (1 << 20) + SMALL));
        }
        assert!(memory.grow(&mut small, SMALL));
        assert!(!memory.grow(&mut small, SMALL + 1));
        large.pop();
        assert!(memory.grow(&mut small, (1 << 20) + SMALL));
        assert!(!memory.grow(&mut None, SMALL + 1));
    }
}
