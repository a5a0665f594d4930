//! The command line as it is typed: strings and options. [`super::settings`] makes typed settings of it.

#![expect(clippy::doc_markdown, reason = "the comments on flags are their help texts, which are not Markdown")]

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::origins::Origins;
use crate::graph::onnx::PluginLibrary;
use crate::preprocess::{DEFAULT_MAX_PIXELS, MAX_TILES};
use crate::serve::ImageHost;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  part of the work failed
  2  wrong usage or configuration
  3  the environment: library, provider, memory";

const CHAT_EXAMPLES: &str = "\
Examples:
  vintern chat --model DIR --image photo.jpg \"Mô tả hình ảnh một cách chi tiết.\"
  vintern chat --model DIR --image a.png --image b.png \"<image> <image> So sánh hai ảnh.\"
  vintern chat --model DIR --image photo.jpg        (a conversation about the image)";

const SERVE_EXAMPLES: &str = "\
Examples:
  vintern serve --model DIR
  vintern serve --model DIR --host 0.0.0.0 --port 80 --api-key-file keys.txt";

const BENCH_EXAMPLES: &str = "\
Examples:
  vintern bench --model DIR --workload all
  vintern bench --server http://127.0.0.1:8000/v1 --workload all
  vintern bench --server http://127.0.0.1:8000/v1 --concurrency 1,4,16 --image page.png";

const CHAT_PRESET: &str = "\
Settings to start from; the other flags override them [default: the package's choice, else describe with an image, text \
without]

Built in:
- describe:  The model card's image call: 3 beams, repetition penalty 3.5, 512 new tokens
- text:      The model card's text call: greedy, repetition penalty 1.5, 64 new tokens
- benchmark: The published scores' call: 3 beams, no penalty, 1024 tokens, EXIF ignored

A package may have others, and settings of its own for these; `vintern doctor --model DIR` lists them.";

/// Runs Vintern and its InternVL siblings on ONNX Runtime.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Ask a question about images, or hold a conversation when no question is given
    #[command(after_help = CHAT_EXAMPLES)]
    Chat(Box<ChatArgs>),
    /// Show what the model will see of an image: grid, tiles, token count
    Inspect(InspectArgs),
    /// Check what works on this machine, and say how to mend what does not
    Doctor(DoctorArgs),
    /// Check a package: the hash of every file, and its graphs against recorded results
    Verify(PackageArgs),
    /// Measure the stages of a call on this machine, or a running server under load
    #[command(after_help = BENCH_EXAMPLES)]
    Bench(Box<BenchArgs>),
    /// Build and look at the engines that TensorRT compiles the graphs of a package into
    Engine(EngineArgs),
    /// Serve an OpenAI-compatible API
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),
}

impl Command {
    /// The runtime of a command that has one.
    pub(super) fn runtime(&mut self) -> Option<&mut RuntimeArgs> {
        match self {
            Self::Chat(args) => Some(&mut args.runtime),
            Self::Doctor(args) => Some(&mut args.runtime),
            Self::Verify(args) => Some(&mut args.runtime),
            // A server has its own.
            Self::Bench(args) => args.server.server.is_none().then_some(&mut args.runtime),
            Self::Engine(args) => Some(match &mut args.command {
                EngineCommand::Build(args) => &mut args.package.runtime,
                EngineCommand::Show(args) => &mut args.runtime,
            }),
            Self::Serve(args) => Some(&mut args.runtime),
            Self::Inspect(_) => None,
        }
    }
}

/// The runtime and where it runs.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Runtime")]
pub(super) struct RuntimeArgs {
    /// Execution providers in order of preference, with options, such as "cuda:device=1;cpu"; for each graph apart as
    /// "vision=tensorrt;cuda,decoder=cuda" [default: the settings file's, else cpu]
    #[arg(long, value_name = "LIST", env = "VINTERN_PROVIDER", hide_env_values = true)]
    pub(super) provider: Option<String>,
    /// Library of an execution provider that is not part of ONNX Runtime, and the name it has in --provider
    #[arg(long, value_name = "NAME=PATH", value_parser = plugin_library)]
    pub(super) provider_library: Vec<PluginLibrary>,
    /// Refuse a graph of which any node runs on the CPU provider though another was asked for
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) strict: Option<bool>,
    /// ONNX Runtime library [default: ORT_DYLIB_PATH, else beside the program, in .venv or the system's]
    #[arg(long, value_name = "PATH")]
    pub(super) ort_library: Option<PathBuf>,
    /// Threads the graphs share [default: the number of cores]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) threads: Option<u16>,
    /// Folder for ONNX Runtime's profile of each graph, which has every node of every call with its provider and time
    #[arg(long, value_name = "DIR")]
    pub(super) ort_profile: Option<PathBuf>,
    /// TOML file of these settings, by the names of their flags; an empty name reads none [default: vintern/settings.toml
    /// in the user's folder of configuration, if there is one]
    #[arg(long, value_name = "FILE", env = "VINTERN_SETTINGS", hide_env_values = true)]
    pub(super) settings: Option<OsString>,
    /// Tell on stderr where the graphs run, counts and times of each call; -vv also all that ONNX Runtime logs
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// Where the settings come from, once the settings file was looked at.
    #[arg(skip)]
    pub(super) origins: Origins,
}

fn plugin_library(text: &str) -> Result<PluginLibrary, String> {
    match text.split_once('=') {
        Some((name, path)) if !name.is_empty() && !path.is_empty() => {
            Ok(PluginLibrary { name: name.to_owned(), path: path.into() })
        }
        _ => Err("expected NAME=PATH".to_owned()),
    }
}

/// How images are decoded and cut into tiles.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Images")]
pub(super) struct TilingArgs {
    /// Most tiles of the grid, the thumbnail not counted [default: the preset's, else the package's]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_TILES)))]
    pub(super) max_tiles: Option<u32>,
    /// Fewest tiles of the grid [default: the preset's, else the package's]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_TILES)))]
    pub(super) min_tiles: Option<u32>,
    /// Do not append the whole image as one more tile
    #[arg(long)]
    pub(super) no_thumbnail: bool,
    /// Append the whole image also where the preset does not
    #[arg(long, conflicts_with = "no_thumbnail")]
    pub(super) thumbnail: bool,
    /// The orientation a photo's EXIF data states [default: the preset's]
    #[arg(long, value_name = "WHAT", value_enum)]
    pub(super) orientation: Option<OrientationArg>,
    /// Refuse images of more pixels than this
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = DEFAULT_MAX_PIXELS)]
    pub(super) max_image_pixels: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OrientationArg {
    /// Turn the image upright
    Auto,
    /// Take the pixels as stored, as the reference does
    Ignore,
}

#[derive(Debug, Args)]
pub(super) struct ChatArgs {
    /// The question; without one, a conversation whose questions are read from the terminal or from stdin
    #[arg(value_name = "QUESTION")]
    pub(super) question: Option<String>,
    /// Folder of the model package
    #[arg(long, value_name = "DIR", env = "VINTERN_MODEL", hide_env_values = true)]
    pub(super) model: PathBuf,
    /// An image; may be given several times, in the order of the <image> marks
    #[arg(long = "image", value_name = "FILE")]
    pub(super) images: Vec<PathBuf>,
    /// Earlier turns: a JSON list of [question, answer] pairs
    #[arg(long, value_name = "FILE")]
    pub(super) history: Option<PathBuf>,
    /// Print one JSON object instead of the text
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) tiling: TilingArgs,
    #[command(flatten)]
    pub(super) prompt: PromptArgs,
    #[command(flatten)]
    pub(super) generation: GenerationArgs,
    #[command(flatten)]
    pub(super) runtime: RuntimeArgs,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Prompt")]
pub(super) struct PromptArgs {
    /// Chat template: Hermes-2, internlm2-chat or internvl2_5 [default: the package's]
    #[arg(long, value_name = "NAME")]
    pub(super) template: Option<String>,
    /// System message [default: the package's]
    #[arg(long, value_name = "TEXT")]
    pub(super) system: Option<String>,
}

#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Generation")]
pub(super) struct GenerationArgs {
    /// Settings to start from; the other flags override them [default: the package's choice, else describe with an
    /// image, text without]
    #[arg(long, value_name = "NAME", long_help = CHAT_PRESET)]
    pub(super) preset: Option<String>,
    /// Beams; 1 is greedy search [default: the preset's]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(super) num_beams: Option<usize>,
    /// Makes generated tokens less likely to come again; 1 is off [default: the preset's]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(super) repetition_penalty: Option<f32>,
    /// Exponent of the length a beam's score is divided by [default: the preset's]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(super) length_penalty: Option<f32>,
    /// When beam search ends: true, false or never [default: the preset's]
    #[arg(long, value_name = "WHEN")]
    pub(super) early_stopping: Option<String>,
    /// No run of N generated tokens occurs twice; 0 is off [default: the preset's]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(super) no_repeat_ngram_size: Option<usize>,
    /// Most tokens to generate [default: the preset's]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(super) max_new_tokens: Option<usize>,
    /// Fewest tokens to generate [default: the preset's]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(super) min_new_tokens: Option<usize>,
    /// Sample at this temperature; 0 is greedy search
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(super) temperature: Option<f32>,
    /// Sample among the N likeliest tokens; 0 is off [default: 50]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(super) top_k: Option<usize>,
    /// Sample among the likeliest tokens that together hold this much probability [default: 1]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(super) top_p: Option<f32>,
    /// Sample among tokens at least this likely, relative to the likeliest [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(super) min_p: Option<f32>,
    /// Seed of the sampling [default: another one each time]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(super) seed: Option<u64>,
    /// End the answer before this text; may be given several times
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(super) stop: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    pub(super) image: PathBuf,
    /// Model package whose tile size, tokens and defaults to use [default: the model card's]
    #[arg(long, value_name = "DIR", env = "VINTERN_MODEL", hide_env_values = true)]
    pub(super) model: Option<PathBuf>,
    /// Preset whose tiles and orientation to use [default: that of a question with an image]
    #[arg(long, value_name = "NAME")]
    pub(super) preset: Option<String>,
    /// Side of a tile in pixels [default: the package's, else 448]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(super) tile_size: Option<u32>,
    /// Language-model tokens of a tile [default: the package's, else 256]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(super) tokens_per_tile: Option<usize>,
    /// Write each tile as a PNG into this folder
    #[arg(long, value_name = "DIR")]
    pub(super) output: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) tiling: TilingArgs,
}

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// A model package to check as well
    #[arg(long, value_name = "DIR", env = "VINTERN_MODEL", hide_env_values = true)]
    pub(super) model: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) runtime: RuntimeArgs,
}

/// A package that is looked at.
#[derive(Debug, Args)]
pub(super) struct PackageArgs {
    /// Folder of the model package
    #[arg(long, value_name = "DIR", env = "VINTERN_MODEL", hide_env_values = true)]
    pub(super) model: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) runtime: RuntimeArgs,
}

#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// Folder of the model package to measure on this machine
    #[arg(long, value_name = "DIR", env = "VINTERN_MODEL", hide_env_values = true, required_unless_present = "server")]
    pub(super) model: Option<PathBuf>,
    /// Tiles of the grid; the thumbnail comes on top when there are several [default: 6]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_TILES)))]
    pub(super) tiles: Option<u32>,
    /// Tokens to generate in each call
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..))]
    pub(super) new_tokens: u32,
    /// Beams of the beam-search call
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..))]
    pub(super) num_beams: u32,
    /// What to measure, in turn: greedy, beams, second-question, text, tiles-N, parallel-N, or all; of a server load,
    /// probe, second-question, or all [default: greedy,beams; of a server load]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(super) workload: Vec<String>,
    /// Counted rounds, after one that is not counted
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) repeats: u32,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) server: ServerBenchArgs,
    #[command(flatten)]
    pub(super) runtime: RuntimeArgs,
}

/// What is asked of a running server, and how.
#[derive(Debug, Args)]
#[command(next_help_heading = "Server")]
pub(super) struct ServerBenchArgs {
    /// Measure a running server with an OpenAI-compatible API, such as http://127.0.0.1:8000/v1, instead of a package
    #[arg(long, value_name = "URL")]
    pub(super) server: Option<String>,
    /// Model to ask [default: the first that the server lists]
    #[arg(long, value_name = "NAME")]
    pub(super) server_model: Option<String>,
    /// Key the server asks for
    #[arg(long, value_name = "KEY", env = "VINTERN_API_KEY", hide_env_values = true)]
    pub(super) api_key: Option<String>,
    /// Requests of load at a time, one level after another [default: 1,2,4,8]
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) concurrency: Vec<u16>,
    /// Requests of load at each level [default: 4 times its concurrency]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) requests: Option<u32>,
    /// Most tokens of an answer [default: 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) max_new_tokens: Option<u32>,
    /// Question of load; each request puts a number of its own before it [default: one of this program's]
    #[arg(long, value_name = "TEXT")]
    pub(super) question: Option<String>,
    /// Image of load, one in each request; may be given several times, they are shown in turn
    #[arg(long = "image", value_name = "FILE", conflicts_with = "tiles")]
    pub(super) images: Vec<PathBuf>,
    /// More fields of each request, such as {"num_beams": 3}
    #[arg(long, value_name = "JSON")]
    pub(super) extra_body: Option<String>,
    /// Milliseconds between an image request or a short answer and the next short question of probe [default: 100]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) probe_interval: Option<u32>,
}

#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Folder of the model package
    #[arg(long, value_name = "DIR", env = "VINTERN_MODEL", hide_env_values = true)]
    pub(super) model: PathBuf,
    /// Name of the model in the API [default: that of the package's checkpoint]
    #[arg(long, value_name = "NAME")]
    pub(super) model_name: Option<String>,
    /// Address to listen on; 0.0.0.0 lets other machines in
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    pub(super) host: IpAddr,
    /// Port to listen on; 0 is any that is free
    #[arg(long, value_name = "N", default_value_t = 8000)]
    pub(super) port: u16,
    /// File of keys, one a line, of which every request needs one [default: no key is needed]
    #[arg(long, value_name = "FILE")]
    pub(super) api_key_file: Option<PathBuf>,
    /// Beams and samples of all requests that are generated side by side
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) max_rows: u16,
    /// Cache rows that keep what earlier requests left, so that conversations go on where they were
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(super) spare_rows: u16,
    /// Memory of the cache in MiB; a request that does not fit waits for others to end [default: half of what is available
    /// beyond the package's size]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) cache_memory: Option<u32>,
    /// Requests taken on at once, waiting ones included; more are told to come again
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) max_requests: u16,
    /// Most prompt tokens computed between two steps of the answers that are being generated; fewer, but at least 64, where
    /// N would take more than half a second
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) prefill_chunk: u32,
    /// Image embeddings kept for further questions, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    pub(super) image_cache: u32,
    /// Tiles of images kept for further questions, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    pub(super) tile_cache: u32,
    /// Seconds a request may take
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) timeout: u32,
    /// Seconds a client is given to send the head of a request, its body, or to take a piece of the answer
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) client_timeout: u32,
    /// Largest request in MiB
    #[arg(long, value_name = "MIB", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) max_body: u32,
    /// Refuse images of more pixels than this
    #[arg(long, value_name = "N", default_value_t = DEFAULT_MAX_PIXELS)]
    pub(super) max_image_pixels: u64,
    /// Host that images may be fetched from, an exact name with or without a port; may be given several times [default:
    /// images are data URLs]
    #[arg(long = "allow-image-host", value_name = "HOST")]
    pub(super) allow_image_hosts: Vec<ImageHost>,
    /// Seconds that running requests are given when the server is told to end
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(super) grace: u32,
    #[command(flatten)]
    pub(super) runtime: RuntimeArgs,
}

#[derive(Debug, Args)]
pub(super) struct EngineArgs {
    #[command(subcommand)]
    pub(super) command: EngineCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum EngineCommand {
    /// Build the engines of all graphs that --provider puts on TensorRT, which takes minutes
    Build(EngineBuildArgs),
    /// Say what shapes the engines are for, where they are kept, and whether those that are kept fit
    Show(PackageArgs),
}

#[derive(Debug, Args)]
pub(super) struct EngineBuildArgs {
    /// Build also those that fit, and in the place of those that do not
    #[arg(long)]
    pub(super) force: bool,
    #[command(flatten)]
    pub(super) package: PackageArgs,
}
