//! Images of other servers, where the operator allows their hosts.
//!
//! Whoever writes a request must not be able to make this server ask what only it can reach. So a URL's host must be one of
//! those allowed by name, its addresses are looked up once, those that are not public are dropped, and the connection goes
//! to one of the rest: nothing is resolved a second time. A redirect is a URL like the first. No proxy is used.

mod address;
mod error;
mod host;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use futures_util::StreamExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use url::{Host, Position, Url};

use super::api::{ApiError, ImageFile, ImageSource};

pub use host::ImageHost;

use error::FetchError;

/// Time that all images of a request are given.
const PATIENCE: Duration = Duration::from_secs(20);

/// Images of a request that are fetched side by side.
const AT_ONCE: usize = 4;

/// Redirects that are followed for an image.
const MOST_REDIRECTS: usize = 3;

/// Fetches images.
pub(super) struct Fetcher {
    hosts: Vec<ImageHost>,
    /// Most bytes of all images of a request.
    most_bytes: usize,
    patience: Duration,
    /// Whether an address may be asked.
    admits: fn(IpAddr) -> bool,
    tls: TlsConnector,
}

/// A response and what keeps its connection going.
struct Exchange {
    response: Response<hyper::body::Incoming>,
    _connection: JoinSet<()>,
}

impl Fetcher {
    /// Fetches from these hosts, at their public addresses, up to `most_bytes` for a request, and for no longer than
    /// `timeout`.
    ///
    /// # Errors
    /// When there is no encryption to be had.
    pub(super) fn new(hosts: Vec<ImageHost>, most_bytes: usize, timeout: Duration) -> Result<Self, rustls::Error> {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let patience = PATIENCE.min(timeout);
        Ok(Self { hosts, most_bytes, patience, admits: address::is_public, tls: connector(roots)? })
    }

    /// Fetches those of a request's images that are at other servers, a few at a time.
    ///
    /// # Errors
    /// The first image that is not to be had: 400.
    pub(super) async fn fetch_all(&self, images: &mut [ImageFile]) -> Result<(), ApiError> {
        let deadline = tokio::time::Instant::now() + self.patience;
        let left = AtomicUsize::new(self.most_bytes);
        let wanted: Vec<(usize, Url)> = images
            .iter()
            .enumerate()
            .filter_map(|(index, image)| match &image.source {
                ImageSource::Url(url) => Some((index, url.clone())),
                ImageSource::Bytes(_) => None,
            })
            .collect();
        let left = &left;
        let fetches = wanted.into_iter().map(|(index, url)| async move {
            let fetched = tokio::time::timeout_at(deadline, self.fetch(url, left)).await;
            (index, fetched.unwrap_or(Err(FetchError::Late { patience: self.patience })))
        });
        let mut fetched = futures_util::stream::iter(fetches).buffered(AT_ONCE);
        while let Some((index, bytes)) = fetched.next().await {
            let image = &mut images[index];
            image.source = ImageSource::Bytes(bytes.map_err(|error| error.at(&image.path))?);
        }
        Ok(())
    }

    /// The bytes at a URL, which are taken from what is `left` for the request.
    async fn fetch(&self, mut url: Url, left: &AtomicUsize) -> Result<Vec<u8>, FetchError> {
        for _ in 0..=MOST_REDIRECTS {
            self.check(&url)?;
            let Exchange { response, _connection } = self.exchange(&url).await?;
            let host = named(&url);
            match (response.status(), response.headers().get(header::LOCATION)) {
                (StatusCode::OK, _) => return self.body(response, host, left).await,
                (status, Some(location)) if status.is_redirection() => {
                    let target = location.to_str().ok().and_then(|location| url.join(location).ok());
                    url = target.ok_or(FetchError::Location { host })?;
                }
                (status, _) => return Err(FetchError::Status { host, status: status.as_u16() }),
            }
        }
        Err(FetchError::Redirects { most: MOST_REDIRECTS })
    }

    /// Whether a URL may be asked at all.
    fn check(&self, url: &Url) -> Result<(), FetchError> {
        let host = named(url);
        if !matches!(url.scheme(), "http" | "https") {
            return Err(FetchError::Location { host });
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(FetchError::Credentials);
        }
        if self.hosts.iter().any(|allowed| allowed.allows(url)) { Ok(()) } else { Err(FetchError::Host { host }) }
    }

    /// The addresses of a URL's host that may be asked.
    async fn addresses(&self, url: &Url) -> Result<Vec<SocketAddr>, FetchError> {
        let host = named(url);
        let port = url.port_or_known_default().unwrap_or_default();
        let found: Vec<SocketAddr> = match url.host() {
            Some(Host::Ipv4(address)) => vec![(address, port).into()],
            Some(Host::Ipv6(address)) => vec![(address, port).into()],
            Some(Host::Domain(name)) => match tokio::net::lookup_host((name, port)).await {
                Ok(addresses) => addresses.collect(),
                Err(_) => return Err(FetchError::Unknown { host }),
            },
            None => Vec::new(),
        };
        let admitted: Vec<SocketAddr> = found.iter().copied().filter(|address| (self.admits)(address.ip())).collect();
        match (found.is_empty(), admitted.is_empty()) {
            (true, _) => Err(FetchError::Unknown { host }),
            (false, true) => Err(FetchError::Address { host }),
            (false, false) => Ok(admitted),
        }
    }

    /// Asks one of the checked addresses for what is at the URL.
    async fn exchange(&self, url: &Url) -> Result<Exchange, FetchError> {
        let failed = |reason: String| FetchError::Connection { host: named(url), reason };
        let addresses = self.addresses(url).await?;
        let stream = TcpStream::connect(addresses.as_slice()).await.map_err(|error| failed(error.to_string()))?;
        let request = request(url).map_err(|error| failed(error.to_string()))?;
        if url.scheme() == "http" {
            return exchange_over(stream, request).await.map_err(|error| failed(error.to_string()));
        }
        let name = match url.host() {
            Some(Host::Domain(name)) => {
                ServerName::try_from(name.to_owned()).map_err(|error| failed(error.to_string()))?
            }
            Some(Host::Ipv4(address)) => ServerName::from(IpAddr::from(address)),
            Some(Host::Ipv6(address)) => ServerName::from(IpAddr::from(address)),
            None => return Err(failed("the URL has no host".to_owned())),
        };
        let stream = self.tls.connect(name, stream).await.map_err(|error| failed(error.to_string()))?;
        exchange_over(stream, request).await.map_err(|error| failed(error.to_string()))
    }

    /// Reads a body as far as it is allowed to go.
    async fn body(
        &self,
        response: Response<hyper::body::Incoming>,
        host: String,
        left: &AtomicUsize,
    ) -> Result<Vec<u8>, FetchError> {
        if let Some(encoding) = foreign_encoding(response.headers()) {
            return Err(FetchError::Encoding { host, encoding });
        }
        let mut bytes = Vec::new();
        let mut chunks = Body::new(response.into_body()).into_data_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk =
                chunk.map_err(|error| FetchError::Connection { host: host.clone(), reason: error.to_string() })?;
            let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(chunk.len()));
            taken.map_err(|_| FetchError::TooLarge { most: self.most_bytes })?;
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

/// TLS with these roots.
fn connector(roots: RootCertStore) -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
}

/// The host of a URL as it stands in it, with its port.
fn named(url: &Url) -> String {
    url[Position::BeforeHost..Position::AfterPort].to_owned()
}

fn request(url: &Url) -> Result<Request<Body>, axum::http::Error> {
    Request::get(&url[Position::BeforePath..Position::AfterQuery])
        .header(header::HOST, named(url))
        .header(header::ACCEPT, "image/*")
        .header(header::ACCEPT_ENCODING, "identity")
        .header(header::CONNECTION, "close")
        .header(header::USER_AGENT, concat!("vintern/", env!("CARGO_PKG_VERSION")))
        .body(Body::empty())
}

async fn exchange_over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Body>,
) -> Result<Exchange, hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the exchange: dropping the set aborts it.
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!("the connection of an image ended: {error}");
        }
    });
    Ok(Exchange { response: sender.send_request(request).await?, _connection: driver })
}

/// The encoding of a body that is not the file itself.
fn foreign_encoding(headers: &HeaderMap) -> Option<String> {
    let encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    let foreign = |value: &&HeaderValue| !value.as_bytes().eq_ignore_ascii_case(b"identity");
    encodings.filter(foreign).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).next()
}
