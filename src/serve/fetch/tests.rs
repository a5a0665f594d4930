//! Servers on this machine, which a fetcher of these tests admits, and one as it is in use does not.

use std::io::{BufRead as _, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::*;
use crate::serve::api::InspectRequest;
use crate::serve::{Limits, RequestReader};
use crate::settings::{ImageChoices, Presets};

/// A server that answers each path in a way of its own, and counts.
struct Origin {
    port: u16,
    asked: Arc<AtomicUsize>,
}

/// The smallest thing that counts as an image here: fetching does not look at it.
const IMAGE: &[u8] = b"\x89PNG and so on";

impl Origin {
    fn start(tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, asked) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
        let (counter, tls) = (Arc::clone(&asked), tls.map(Arc::new));
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                counter.fetch_add(1, Ordering::SeqCst);
                let (tls, asked) = (tls.clone(), Arc::clone(&counter));
                std::thread::spawn(move || match tls {
                    Some(config) => {
                        let connection = ServerConnection::new(config).unwrap();
                        serve(StreamOwned::new(connection, stream), &asked);
                    }
                    None => serve(stream, &asked),
                });
            }
        });
        Self { port, asked }
    }

    fn url(&self, path: &str) -> String {
        format!("http://localhost:{}{path}", self.port)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// A fetcher that is let to this server though it is on this machine.
    fn fetcher(&self) -> Fetcher {
        let hosts = vec![format!("localhost:{}", self.port).parse().unwrap()];
        let patience = Duration::from_mins(10);
        Fetcher { admits: |_| true, patience, ..Fetcher::new(hosts, 1000, Duration::from_secs(100)).unwrap() }
    }
}

/// Answers one request; what becomes of it is the client's business.
fn serve(stream: impl std::io::Read + Write, asked: &AtomicUsize) {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        match stream.read_line(&mut head) {
            Ok(read) if read > 0 => (),
            _ => return,
        }
    }
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let _ = answer(&path, &head, asked, stream.get_mut());
}

fn answer(path: &str, head: &str, asked: &AtomicUsize, stream: &mut impl Write) -> std::io::Result<()> {
    let whole = |status: &str, headers: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    let redirect = |to: &str| whole("302 Found", &format!("location: {to}\r\n"), b"");
    let hops = |path: &str| path.trim_start_matches("/hops/").parse::<usize>().ok();
    match path {
        "/image" => stream.write_all(&whole("200 OK", "", IMAGE)),
        "/picture" => {
            let mut png = std::io::Cursor::new(Vec::new());
            image::RgbImage::new(20, 10).write_to(&mut png, image::ImageFormat::Png).unwrap();
            // The type a server tells is not looked at.
            stream.write_all(&whole("200 OK", "content-type: text/html\r\n", png.get_ref()))
        }
        "/head" => stream.write_all(&whole("200 OK", "", head.as_bytes())),
        "/elsewhere" => stream.write_all(&redirect("http://127.0.0.2/image")),
        "/other-port" => stream.write_all(&redirect("http://localhost:1/image")),
        "/file" => stream.write_all(&redirect("file:///etc/passwd")),
        "/user" => stream.write_all(&redirect("http://me:secret@localhost/")),
        "/nowhere" => stream.write_all(&whole("302 Found", "", b"")),
        "/exact" => stream.write_all(&whole("200 OK", "", &[0; 1000])),
        "/large" => stream.write_all(&whole("200 OK", "", &[0; 1001])),
        "/packed" => stream.write_all(&whole("200 OK", "content-encoding: gzip\r\n", IMAGE)),
        "/cut" => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this"),
        "/nonsense" => stream.write_all(b"what?\r\n\r\n"),
        "/endless" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
            loop {
                stream.write_all(b"64\r\n")?;
                stream.write_all(&[0; 100])?;
                stream.write_all(b"\r\n")?;
            }
        }
        "/slow" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n")?;
            loop {
                stream.write_all(b".")?;
                stream.flush()?;
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        "/third" => {
            while asked.load(Ordering::SeqCst) < 3 {
                std::thread::sleep(Duration::from_millis(5));
            }
            stream.write_all(&whole("200 OK", "", IMAGE))
        }
        "/silent" => {
            std::thread::sleep(Duration::from_mins(1));
            Ok(())
        }
        path => match hops(path) {
            Some(0) => stream.write_all(&redirect("/image")),
            Some(left) => stream.write_all(&redirect(&format!("/hops/{}", left - 1))),
            None => stream.write_all(&whole("404 Not Found", "", b"no")),
        },
    }?;
    stream.flush()
}

fn at(url: &str) -> ImageFile {
    ImageFile { path: "image_url".to_owned(), source: ImageSource::Url(Url::parse(url).unwrap()) }
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// The bytes at a URL.
fn fetched(fetcher: &Fetcher, url: &str) -> Vec<u8> {
    let mut images = [at(url)];
    run(fetcher.fetch_all(&mut images)).unwrap_or_else(|error| panic!("{url}: {}", error.message));
    let [ImageFile { source: ImageSource::Bytes(bytes), .. }] = images else { panic!("{url} was not fetched") };
    bytes
}

/// Code and message of the refusal of a URL.
fn refused(fetcher: &Fetcher, url: &str) -> (&'static str, String) {
    let error = run(fetcher.fetch_all(&mut [at(url)])).unwrap_err();
    assert_eq!((error.status, error.param.as_deref()), (StatusCode::BAD_REQUEST, Some("image_url")));
    (error.code, error.message)
}

#[test]
fn the_bytes_are_those_of_the_server() {
    let origin = Origin::start(None);
    let fetcher = origin.fetcher();
    assert_eq!(fetched(&fetcher, &origin.url("/image")), IMAGE);
    assert_eq!(fetched(&fetcher, &origin.url("/exact")).len(), 1000);
    let head = String::from_utf8(fetched(&fetcher, &origin.url("/head"))).unwrap().to_ascii_lowercase();
    assert!(head.contains(&format!("host: localhost:{}\r\n", origin.port)), "{head}");
    assert!(head.contains("accept-encoding: identity"), "{head}");
}

#[test]
fn a_few_redirects_are_followed_and_checked_like_the_first_url() {
    let origin = Origin::start(None);
    let fetcher = origin.fetcher();
    assert_eq!(fetched(&fetcher, &origin.url("/hops/2")), IMAGE);
    for (path, code, reason) in [
        ("/hops/3", "image_not_fetched", "more than 3 redirects"),
        ("/elsewhere", "image_url_not_allowed", "not fetched from 127.0.0.2"),
        ("/other-port", "image_url_not_allowed", "not fetched from localhost:1"),
        ("/file", "image_not_fetched", "no http or https URL"),
        ("/user", "image_url_not_allowed", "user name"),
        ("/nowhere", "image_not_fetched", "status 302"),
    ] {
        let (found, message) = refused(&fetcher, &origin.url(path));
        assert!(found == code && message.contains(reason), "{path}: {found}: {message}");
    }
}

/// A host that is allowed by name, as a redirect's target, at an address that may not be asked.
#[test]
fn the_address_of_each_hop_is_checked() {
    let origin = Origin::start(None);
    let mut fetcher = Fetcher { admits: |address| address.to_string() != "127.0.0.2", ..origin.fetcher() };
    fetcher.hosts.push(ImageHost { host: Host::parse("127.0.0.2").unwrap(), port: None });
    let (code, message) = refused(&fetcher, &origin.url("/elsewhere"));
    assert!(code == "image_url_not_allowed" && message.contains("127.0.0.2 has no public address"), "{message}");
}

/// What the decoder makes of it counts, not what the server says it is.
#[test]
fn only_images_are_of_use() {
    let origin = Origin::start(None);
    let limits =
        Limits { tile_size: 448, tokens_per_tile: 256, max_length: 8192, max_rows: 1, max_image_pixels: 1_000_000 };
    let reader = RequestReader::new(Presets::new(None).unwrap(), limits);
    let read = |path: &str, fetched: bool| {
        let mut image = at(&origin.url(path));
        if fetched {
            run(origin.fetcher().fetch_all(std::slice::from_mut(&mut image))).unwrap();
        }
        let request = InspectRequest { image, preset: None, images: ImageChoices::default() };
        let (image, options) = reader.resolve_tiles(request).unwrap();
        reader.read_tiles(&image, &options)
    };
    assert_eq!(read("/picture", true).unwrap().grid().columns, 2);
    let error = read("/image", true).unwrap_err();
    assert_eq!((error.code, error.param.as_deref()), ("invalid_image", Some("image_url")), "{}", error.message);
    let error = read("/picture", false).unwrap_err();
    assert_eq!((error.code, error.param.as_deref()), ("image_url_not_allowed", Some("image_url")));
    assert!(error.message.contains("--allow-image-host localhost"), "{}", error.message);
}

#[test]
fn what_does_not_arrive_whole_is_an_error() {
    let origin = Origin::start(None);
    let fetcher = origin.fetcher();
    for (path, reason) in [
        ("/missing", "status 404"),
        ("/large", "larger than the 1000 bytes"),
        ("/endless", "larger than the 1000 bytes"),
        ("/packed", "Content-Encoding \"gzip\""),
        ("/cut", "was not reached"),
        ("/nonsense", "was not reached"),
    ] {
        let (code, message) = refused(&fetcher, &origin.url(path));
        assert!(code == "image_not_fetched" && message.contains(reason), "{path}: {message}");
    }
    let hasty = Fetcher { patience: Duration::from_millis(300), ..origin.fetcher() };
    for path in ["/slow", "/silent"] {
        let (_, message) = refused(&hasty, &origin.url(path));
        assert_eq!(message, "the images did not arrive within 0.3 s", "{path}");
    }
    let closed = "http://localhost:1/";
    let hosts = vec!["localhost:1".parse().unwrap()];
    let (_, message) = refused(&Fetcher { hosts, ..origin.fetcher() }, closed);
    assert!(message.contains("localhost:1 was not reached"), "{message}");
}

/// The images of a request share what one upload may have.
#[test]
fn the_limit_is_that_of_all_images() {
    let origin = Origin::start(None);
    let one = || at(&origin.url("/exact"));
    assert!(run(origin.fetcher().fetch_all(&mut [one()])).is_ok());
    let error = run(origin.fetcher().fetch_all(&mut [one(), one()])).unwrap_err();
    assert!(error.message.contains("larger than the 1000 bytes"), "{}", error.message);
    // What came with the request was counted then.
    let beside = ImageFile { path: "other".to_owned(), source: ImageSource::Bytes(vec![1; 5000]) };
    let mut images = [beside.clone(), one()];
    run(origin.fetcher().fetch_all(&mut images)).unwrap();
    assert_eq!(images[0], beside);
    assert_eq!(images[1].source, ImageSource::Bytes(vec![0; 1000]));
}

/// None of these is answered before all of them are asked for.
#[test]
fn images_are_fetched_side_by_side_and_keep_their_places() {
    let origin = Origin::start(None);
    let mut images = ["/third", "/exact", "/third"].map(|path| at(&origin.url(path)));
    run(Fetcher { most_bytes: 2000, ..origin.fetcher() }.fetch_all(&mut images)).unwrap();
    let lengths = images.map(|image| match image.source {
        ImageSource::Bytes(bytes) => bytes.len(),
        other @ ImageSource::Url(_) => panic!("{other:?}"),
    });
    assert_eq!(lengths, [IMAGE.len(), 1000, IMAGE.len()]);
}

/// As the fetcher is in use: a name is allowed, but none of its addresses is public, and nothing is connected to.
#[test]
fn addresses_of_this_machine_are_never_asked() {
    let origin = Origin::start(None);
    let port = origin.port;
    let fetcher = Fetcher { admits: address::is_public, ..origin.fetcher() };
    let (code, message) = refused(&fetcher, &origin.url("/image"));
    assert_eq!(code, "image_url_not_allowed");
    assert_eq!(
        message,
        format!("the host localhost:{port} has no public address, and images are fetched from public addresses only")
    );
    assert_eq!(origin.asked(), 0);
    let unknown = Fetcher { hosts: vec!["nothing.invalid".parse().unwrap()], ..origin.fetcher() };
    let (_, message) = refused(&unknown, "https://nothing.invalid/");
    assert_eq!(message, "the host nothing.invalid was not found");
}

#[test]
fn other_hosts_are_not_asked() {
    let origin = Origin::start(None);
    for url in [format!("http://127.0.0.1:{}/image", origin.port), format!("http://[::1]:{}/image", origin.port)] {
        let (code, message) = refused(&origin.fetcher(), &url);
        assert!(
            code == "image_url_not_allowed" && message.contains("have the server started with --allow-image-host"),
            "{message}"
        );
    }
    assert_eq!(origin.asked(), 0);
}

#[test]
fn a_certificate_must_be_trusted_and_of_the_host() {
    let connector_to = |names: &str| {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed([names.to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).unwrap();
        (Origin::start(Some(config)), connector(roots).unwrap())
    };
    let (origin, tls) = connector_to("localhost");
    let url = origin.url("/image").replace("http:", "https:");
    assert_eq!(fetched(&Fetcher { tls, ..origin.fetcher() }, &url), IMAGE);
    let (_, message) = refused(&origin.fetcher(), &url);
    assert!(message.contains("UnknownIssuer"), "{message}");
    let (other, tls) = connector_to("example.com");
    let url = other.url("/image").replace("http:", "https:");
    let (_, message) = refused(&Fetcher { tls, ..other.fetcher() }, &url);
    assert!(message.contains("not valid for name"), "{message}");
}
