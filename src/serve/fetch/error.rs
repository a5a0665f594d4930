//! Why an image was not fetched.

use std::time::Duration;

use crate::serve::api::ApiError;

/// Why an image was not fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// Another host than those the operator allows.
    #[error(
        "images are not fetched from {host}; send a data URL, or have the server started with --allow-image-host {host}"
    )]
    Host { host: String },
    /// A URL that names a user.
    #[error("the URL has a user name or a password, which are not sent; leave them out")]
    Credentials,
    /// A redirect to something that is no http or https URL.
    #[error("{host} redirects to what is no http or https URL")]
    Location { host: String },
    /// One redirect too many.
    #[error("more than {most} redirects")]
    Redirects { most: usize },
    /// The name has no address.
    #[error("the host {host} was not found")]
    Unknown { host: String },
    /// The name has none but addresses that are never asked.
    #[error("the host {host} has no public address, and images are fetched from public addresses only")]
    Address { host: String },
    /// The connection, its encryption or the exchange failed.
    #[error("{host} was not reached: {reason}")]
    Connection { host: String, reason: String },
    /// Another status than 200.
    #[error("{host} answered with status {status}")]
    Status { host: String, status: u16 },
    /// A body that would have to be unpacked.
    #[error("{host} sent the image with Content-Encoding {encoding:?}, which was not asked for")]
    Encoding { host: String, encoding: String },
    /// More bytes than an upload may have.
    #[error("the images are larger than the {most} bytes that a request may have")]
    TooLarge { most: usize },
    /// It took too long.
    #[error("the images did not arrive within {} s", patience.as_secs_f64())]
    Late { patience: Duration },
}

impl FetchError {
    /// The error of the image at `path` of a request.
    pub(super) fn at(&self, path: &str) -> ApiError {
        let code = match self {
            Self::Host { .. } | Self::Address { .. } | Self::Credentials => "image_url_not_allowed",
            _ => "image_not_fetched",
        };
        ApiError { code, ..ApiError::field(path, self.to_string()) }
    }
}
