//! `vintern serve`: the server, from its flags to its end.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::args::ServeArgs;
use super::error::CliError;
use super::output::note;
use super::progress::Progress;
use super::read_file;
use super::session::load_engine_with;
use super::system;
use crate::engine::EngineConfig;
use crate::package::{Manifest, Package};
use crate::serve::{ServeOptions, serve};
use crate::settings::Presets;

/// How long running answers may stand still for a chunk of a prompt.
const PREFILL_PAUSE: Duration = Duration::from_millis(500);

/// Runs the command until the process is told to end.
///
/// # Errors
/// When the model cannot be loaded or the address not be listened on.
pub(super) fn run(args: &ServeArgs) -> Result<(), CliError> {
    let providers = args.runtime.providers()?;
    let keys = args.api_key_file.as_deref().map_or(Ok(Vec::new()), read_keys)?;
    let package = Package::open(&args.model)?;
    let presets = Presets::new(Some(&package))?;
    let manifest = package.manifest();
    let config = EngineConfig {
        max_rows: usize::from(args.max_rows),
        prefill_chunk: args.prefill_chunk as usize,
        prefill_pause: Some(PREFILL_PAUSE),
        image_cache_bytes: (args.image_cache as usize) << 20,
        spare_rows: usize::from(args.spare_rows),
        cache_bytes: cache_bytes(args.cache_memory, manifest),
        vision_beside: true,
    };
    let options = ServeOptions {
        address: SocketAddr::new(args.host, args.port),
        model: args.model_name.clone().unwrap_or_else(|| manifest.source.name.clone()),
        keys,
        max_requests: usize::from(args.max_requests),
        timeout: Duration::from_secs(u64::from(args.timeout)),
        client_timeout: Duration::from_secs(u64::from(args.client_timeout)),
        max_body: (args.max_body as usize) << 20,
        max_image_pixels: args.max_image_pixels,
        tile_cache_bytes: (args.tile_cache as usize) << 20,
        image_hosts: args.allow_image_hosts.clone(),
        grace: Duration::from_secs(u64::from(args.grace)),
    };
    start_log(args.runtime.verbose);
    let stop = Arc::new(Notify::new());
    let told = Arc::clone(&stop);
    ctrlc::set_handler(move || told.notify_one()).map_err(std::io::Error::other)?;
    let engine = load_engine_with(&package, &args.runtime, &providers, config.clone(), &Progress::new())?;
    note(&cache_line(&config, args.cache_memory.is_some(), manifest));
    let model = options.model.clone();
    let address = options.address;
    serve(engine, presets, &config, options, &stop, |address| {
        note(&format!("serving {model} at http://{address}/v1"));
    })
    .map_err(|error| CliError::Serve { address, error })
}

/// Bytes the cache may take: those asked for, else half of what a program can get beyond the size of the package, whose weights
/// need it more. `None` where the system does not say.
fn cache_bytes(asked: Option<u32>, manifest: &Manifest) -> Option<usize> {
    let package: u64 = manifest.files().map(|file| file.size).sum();
    let half = || system::available_memory().map(|available| available.saturating_sub(package) / 2);
    asked.map(|mebibytes| u64::from(mebibytes) << 20).or_else(half).map(|bytes| bytes as usize)
}

/// What the cache takes, and what it may.
fn cache_line(config: &EngineConfig, asked: bool, manifest: &Manifest) -> String {
    let (position, length) = (manifest.cache_position_bytes(), manifest.architecture.max_length);
    let text = |bytes: usize| system::bytes_text(bytes as u64);
    let bound = match config.cache_bytes {
        Some(bytes) if asked => format!("bounded to {}", text(bytes)),
        Some(bytes) => {
            format!("bounded to {}, half of what is available (--cache-memory changes it)", text(bytes))
        }
        None => "not bounded (--cache-memory does)".to_owned(),
    };
    format!(
        "cache: {:.1} KiB a position, {} a row of {length}; all {} rows and {} to spare would take {}; {bound}",
        position as f64 / 1024.0,
        text(position * length),
        config.max_rows,
        config.spare_rows,
        text(config.full_cache_bytes(manifest)),
    )
}

/// The keys of a file, one a line; empty lines and those that begin with # are none.
fn read_keys(file: &Path) -> Result<Vec<String>, CliError> {
    let bytes = read_file("key file", file)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<String> = lines.map(str::to_owned).collect();
    if keys.is_empty() {
        let message = format!("{} holds no key, and without one nobody would need a key", file.display());
        return Err(CliError::usage(message, "write one key a line, or leave --api-key-file out"));
    }
    Ok(keys)
}

/// What the server says of requests goes to stderr: failures always, with -v each request.
fn start_log(verbose: u8) {
    let level = if verbose == 0 { tracing::Level::WARN } else { tracing::Level::INFO };
    let log = tracing_subscriber::fmt().with_max_level(level).with_target(false);
    // A log that was started before stays.
    let _ = log.with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr).try_init();
}
