//! A server of its own for a test, and a client for it.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::common::{repository, vintern};
use crate::contract::Contract;

pub struct Server {
    child: Child,
    /// Kept open: the server must not find a closed pipe.
    stderr: BufReader<ChildStderr>,
    pub address: String,
    /// What it said on stderr before its address, and after it once it has ended.
    pub told: String,
    /// What the server says it takes and answers.
    pub contract: Contract,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// A server of the bundled model.
    pub fn bundled(arguments: &[&str]) -> Self {
        Self::start(&repository().join("models/vintern-tiny"), arguments)
    }

    /// A server on any free port, unless the arguments name one.
    pub fn start(package: &Path, arguments: &[&str]) -> Self {
        let program = vintern().get_program().to_owned();
        let mut command = Command::new(program);
        command.current_dir(repository()).args(["serve", "--model"]).arg(package).args(arguments);
        if !arguments.contains(&"--port") {
            command.args(["--port", "0"]);
        }
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut told = String::new();
        let address = loop {
            let mut line = String::new();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "the server did not start: {told}");
            if let Some((_, address)) = line.trim().split_once(" at ") {
                break address.trim_end_matches("/v1").to_owned();
            }
            told += &line;
        };
        let mut document = agent().get(format!("{address}/openapi.json")).call().unwrap();
        let contract = Contract::new(document.body_mut().read_json().unwrap());
        Self { child, stderr, address, told, contract }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        let mut response = agent().get(self.url(path)).call().unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    }

    /// Sends a body to the chat endpoint.
    pub fn post(&self, body: &[u8], headers: &[(&str, &str)]) -> (u16, Value) {
        self.post_to("/v1/chat/completions", body, headers)
    }

    /// Sends a body; what comes back must be as the server describes it.
    pub fn post_to(&self, path: &str, body: &[u8], headers: &[(&str, &str)]) -> (u16, Value) {
        let mut request = agent().post(self.url(path)).content_type("application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = request.send(body).unwrap();
        let status = response.status().as_u16();
        let answer = response.body_mut().with_config().limit(64 << 20).read_json().unwrap();
        let request = serde_json::from_slice(body).unwrap_or_default();
        self.contract.check_exchange(path, Some(&request), status, &answer);
        (status, answer)
    }

    /// The status of the response to a request, and what it says.
    pub fn raw(&self, request: &Value) -> (u16, String) {
        let mut response = agent().post(self.url("/v1/chat/completions")).send(request.to_string().as_bytes()).unwrap();
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    }

    /// What the server answers; it must not refuse.
    pub fn ask(&self, request: &Value) -> Value {
        let (status, answer) = self.post(request.to_string().as_bytes(), &[]);
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// The error of a request that is refused.
    pub fn refused(&self, request: &Value) -> (u16, Value) {
        let (status, answer) = self.post(request.to_string().as_bytes(), &[]);
        assert_ne!(status, 200, "{answer}");
        (status, answer["error"].clone())
    }

    /// The chunks of a streamed answer.
    pub fn stream(&self, request: &Value) -> Vec<Value> {
        let mut request = request.clone();
        request["stream"] = json!(true);
        let mut response = agent().post(self.url("/v1/chat/completions")).send(request.to_string().as_bytes()).unwrap();
        let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
        assert_eq!(kind, "text/event-stream");
        let body = response.body_mut().read_to_string().unwrap();
        let mut data: Vec<&str> = body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(data.pop(), Some("[DONE]"));
        let chunks: Vec<Value> = data.into_iter().map(|data| serde_json::from_str(data).unwrap()).collect();
        for chunk in &chunks {
            self.contract.check_chunk(chunk);
        }
        chunks
    }

    /// The value of a counter.
    pub fn metric(&self, name: &str) -> u64 {
        let (_, text) = self.get("/metrics");
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.map_or(0, |value| value.parse().unwrap())
    }

    /// Kills it as nothing can be helped.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Tells the server to end.
    pub fn terminate(&self) {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for its end; the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let code = self.child.wait().unwrap().code();
        let _ = std::io::Read::read_to_string(&mut self.stderr, &mut self.told);
        code
    }

    /// Memory the server holds, bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }
}

/// Takes every status for an answer.
pub fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).build().into()
}

/// The bytes of a PNG file as a data URL.
pub fn data_url(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", base64::engine::general_purpose::STANDARD.encode(png))
}

/// An image part.
pub fn image(file: &Path) -> Value {
    json!({"type": "image_url", "image_url": {"url": data_url(&std::fs::read(file).unwrap())}})
}

/// The bundled receipt as an image part.
pub fn receipt() -> Value {
    image(&repository().join("models/demo/receipt.png"))
}

/// A short question about the image at a URL.
pub fn showing(url: &str) -> Value {
    let parts = json!([{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "?"}]);
    json!({"messages": [{"role": "user", "content": parts}], "max_tokens": 2})
}

/// A question about the receipt.
pub fn about_receipt(question: &str) -> Value {
    json!({"messages": [{"role": "user", "content": [receipt(), {"type": "text", "text": question}]}]})
}

/// The text of an answer.
pub fn content(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap()
}

/// A request with more fields.
pub fn with(mut request: Value, fields: Value) -> Value {
    request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    request
}
