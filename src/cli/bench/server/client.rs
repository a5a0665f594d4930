//! Asking a server: one streamed answer, timed.

use std::io::BufReader;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::cli::error::CliError;

/// Time to reach the server, and to hear from it at all.
const PATIENCE: Duration = Duration::from_mins(10);
const CONNECT: Duration = Duration::from_secs(10);

/// A server and what every request to it has in common.
pub(super) struct Client {
    agent: ureq::Agent,
    /// Address of the API, without a slash at its end.
    base: String,
    authorization: Option<String>,
    /// Fields of each request.
    fields: Map<String, Value>,
}

/// An answer and when its parts came.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// When the request was sent.
    pub(super) sent: Instant,
    /// When each piece of text came.
    pub(super) pieces: Vec<Instant>,
    /// When the stream ended.
    pub(super) ended: Instant,
    pub(super) text: String,
    pub(super) usage: Usage,
}

/// What the server counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    pub(super) prompt_tokens: u64,
    pub(super) completion_tokens: u64,
    /// Nothing where the server does not tell.
    pub(super) cached_tokens: Option<u64>,
    pub(super) tiles: Option<u64>,
}

impl Answer {
    /// From the request to the first text; to the end where there is none.
    pub(super) fn first_token(&self) -> Duration {
        self.first().duration_since(self.sent)
    }

    /// When the first text came; the end where there is none.
    pub(super) fn first(&self) -> Instant {
        self.pieces.first().copied().unwrap_or(self.ended)
    }

    /// Mean time between two tokens after the first; nothing for an answer of one.
    pub(super) fn inter_token(&self) -> Option<Duration> {
        let gaps = u32::try_from(self.usage.completion_tokens).ok()?.checked_sub(1).filter(|gaps| *gaps > 0)?;
        let last = self.pieces.last()?;
        Some(last.duration_since(self.first()) / gaps)
    }

    /// Longest time between two pieces of text.
    pub(super) fn longest_gap(&self) -> Option<Duration> {
        self.pieces.windows(2).map(|pair| pair[1].duration_since(pair[0])).max()
    }
}

impl Client {
    /// A client of the server at `url`, for up to `connections` requests at a time. Without a `model` the first that the
    /// server lists is asked.
    ///
    /// # Errors
    /// When the URL is none that can be asked, or the server does not answer.
    pub(super) fn new(
        url: &str,
        key: Option<&str>,
        model: Option<&str>,
        mut fields: Map<String, Value>,
        connections: usize,
    ) -> Result<Self, CliError> {
        let base = base(url)?;
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            // What is measured is the server, not what may stand before it.
            .proxy(None)
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(PATIENCE))
            .max_idle_connections(connections)
            .max_idle_connections_per_host(connections)
            .build()
            .into();
        let mut client =
            Self { agent, base, authorization: key.map(|key| format!("Bearer {key}")), fields: Map::new() };
        let model = model.map_or_else(|| client.first_model(), |model| Ok(model.to_owned()))?;
        fields.insert("model".to_owned(), json!(model));
        fields.insert("stream".to_owned(), json!(true));
        fields.insert("stream_options".to_owned(), json!({"include_usage": true}));
        client.fields = fields;
        Ok(client)
    }

    /// The model that is asked.
    pub(super) fn model(&self) -> &str {
        self.fields["model"].as_str().unwrap_or_default()
    }

    /// Address of the API.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    fn first_model(&self) -> Result<String, CliError> {
        let url = format!("{}/models", self.base);
        let failed = |message: String| CliError::AskedServer { url: url.clone(), message };
        let mut request = self.agent.get(&url);
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let mut response = request.call().map_err(|error| failed(error.to_string()))?;
        let status = response.status();
        let body = response.body_mut().read_to_string().map_err(|error| failed(error.to_string()))?;
        if !status.is_success() {
            return Err(failed(refusal(status.as_u16(), &body)));
        }
        let list: Value = serde_json::from_str(&body).unwrap_or_default();
        let first = list["data"][0]["id"].as_str();
        first.map(str::to_owned).ok_or_else(|| failed("it lists no model; name one with --server-model".to_owned()))
    }

    /// The body of a request with these messages.
    pub(super) fn body(&self, messages: Value) -> Vec<u8> {
        let mut fields = self.fields.clone();
        fields.insert("messages".to_owned(), messages);
        Value::Object(fields).to_string().into_bytes()
    }

    /// Sends a request and reads its answer to the end.
    ///
    /// # Errors
    /// What the server or the connection said, on one line.
    pub(super) fn ask(&self, body: &[u8]) -> Result<Answer, String> {
        self.follow(body, || {})
    }

    /// As [`Client::ask`]; `on_first` is called when the first text comes, or the end if there is none before.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub(super) fn follow(&self, body: &[u8], on_first: impl FnOnce()) -> Result<Answer, String> {
        let mut request = self.agent.post(format!("{}/chat/completions", self.base)).content_type("application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let sent = Instant::now();
        let mut response = request.send(body).map_err(|error| error.to_string())?;
        if response.status().as_u16() != 200 {
            let text = response.body_mut().read_to_string().map_err(|error| error.to_string())?;
            return Err(refusal(response.status().as_u16(), &text));
        }
        read_stream(BufReader::new(response.into_body().into_reader()), sent, on_first)
    }
}

/// Reads server-sent events up to `[DONE]`.
fn read_stream(mut stream: impl std::io::BufRead, sent: Instant, on_first: impl FnOnce()) -> Result<Answer, String> {
    let (mut pieces, mut text, mut usage, mut on_first) = (Vec::new(), String::new(), None, Some(on_first));
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).map_err(|error| error.to_string())? == 0 {
            return Err("the stream ended before its [DONE]".to_owned());
        }
        let Some(data) = line.trim_end().strip_prefix("data:").map(str::trim_start) else { continue };
        if data == "[DONE]" {
            break;
        }
        let chunk: Value = serde_json::from_str(data).map_err(|error| format!("a chunk is not JSON: {error}"))?;
        if let Some(message) = error_message(&chunk) {
            return Err(message);
        }
        if let Some(piece) = chunk["choices"][0]["delta"]["content"].as_str().filter(|piece| !piece.is_empty()) {
            pieces.push(Instant::now());
            text += piece;
            if let Some(on_first) = on_first.take() {
                on_first();
            }
        }
        usage = usage_of(&chunk["usage"]).or(usage);
    }
    let ended = Instant::now();
    if let Some(on_first) = on_first {
        on_first();
    }
    let usage = usage.ok_or("the stream tells no usage, by which tokens are counted (stream_options.include_usage)")?;
    Ok(Answer { sent, pieces, ended, text, usage })
}

fn usage_of(usage: &Value) -> Option<Usage> {
    let details = &usage["prompt_tokens_details"];
    Some(Usage {
        prompt_tokens: usage["prompt_tokens"].as_u64()?,
        completion_tokens: usage["completion_tokens"].as_u64()?,
        cached_tokens: details["cached_tokens"].as_u64(),
        tiles: details["image_tiles"].as_u64(),
    })
}

fn error_message(answer: &Value) -> Option<String> {
    let error = answer.get("error").filter(|error| !error.is_null())?;
    Some(error["message"].as_str().map_or_else(|| error.to_string(), str::to_owned))
}

/// `HTTP 429: what the server says`
fn refusal(status: u16, body: &str) -> String {
    let said = serde_json::from_str(body).ok().and_then(|answer| error_message(&answer));
    let said = said.unwrap_or_else(|| body.lines().next().unwrap_or_default().chars().take(200).collect());
    format!("HTTP {status}: {said}")
}

/// The address of an API: that of a server alone gets the usual path.
fn base(url: &str) -> Result<String, CliError> {
    let address = url.trim_end_matches('/');
    let Some(rest) = address.strip_prefix("http://").filter(|rest| !rest.is_empty()) else {
        return Err(CliError::usage(
            format!("--server is {url:?}; it must be a URL of http, such as http://127.0.0.1:8000/v1"),
            "ask a server behind TLS where it listens itself",
        ));
    };
    Ok(if rest.contains('/') { address.to_owned() } else { format!("{address}/v1") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(stream: &str) -> Result<Answer, String> {
        read_stream(stream.as_bytes(), Instant::now(), || {})
    }

    #[test]
    fn tokens_are_counted_by_the_usage() {
        let answer = read(
            ": keep-alive\n\ndata: {\"choices\": [{\"delta\": {\"role\": \"assistant\", \"content\": \"\"}}]}\n\n\
             data: {\"choices\": [{\"delta\": {\"content\": \"Hà \"}}], \"usage\": null}\n\n\
             data:{\"choices\": [{\"delta\": {\"content\": \"Nội\"}}]}\r\n\r\n\
             data: {\"choices\": [], \"usage\": {\"prompt_tokens\": 9, \"completion_tokens\": 5}}\n\ndata: [DONE]\n\n",
        )
        .unwrap();
        assert_eq!((answer.text.as_str(), answer.pieces.len()), ("Hà Nội", 2));
        assert_eq!((answer.usage.prompt_tokens, answer.usage.completion_tokens), (9, 5));
        assert_eq!((answer.usage.cached_tokens, answer.usage.tiles), (None, None));
        assert_eq!(answer.inter_token().unwrap(), answer.longest_gap().unwrap() / 4);
    }

    #[test]
    fn what_is_no_whole_answer_is_an_error() {
        for (stream, reason) in [
            ("", "before its [DONE]"),
            ("data: {\"choices\": []}\n\n", "before its [DONE]"),
            ("data: {\"choices\": []}\n\ndata: [DONE]\n\n", "tells no usage"),
            ("data: {\n\n", "not JSON"),
            ("data: {\"error\": {\"message\": \"the time is up\"}}\n\n", "the time is up"),
        ] {
            let error = read(stream).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_server_alone_has_the_usual_path() {
        let base = |url| base(url).ok();
        assert_eq!(base("http://a:8000").as_deref(), Some("http://a:8000/v1"));
        assert_eq!(base("http://a/"), Some("http://a/v1".to_owned()));
        assert_eq!(base("http://a/api/v3/"), Some("http://a/api/v3".to_owned()));
        assert_eq!((base("https://a"), base("a:8000"), base("http://")), (None, None, None));
    }

    #[test]
    fn a_refusal_says_what_the_server_said() {
        assert_eq!(refusal(429, r#"{"error": {"message": "come again"}}"#), "HTTP 429: come again");
        assert_eq!(refusal(502, "<html>\nbad"), "HTTP 502: <html>");
    }
}
