//! `POST /v1/chat/completions`.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;

use super::Shared;
use super::api::{ApiError, ChatRequest, Reply, ReplyForm};
use super::body::{BodyShare, RequestBody};
use super::reader::Resolved;
use super::worker::{Running, Update};
use crate::engine::{self, Completion};
use crate::generate::FinishReason;

/// Chunks that may wait for a slow reader before the server holds them back.
const CHUNKS: usize = 64;

/// How often a stream without news shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Answers a request.
pub(super) async fn completions(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let response = answer(&shared, request).await.unwrap_or_else(|error| {
        tracing::info!(status = error.status.as_u16(), param = error.param, "refused: {}", error.message);
        error.into_response()
    });
    shared.metrics.requests.with_label_values(&[response.status().as_str()]).inc();
    response
}

async fn answer(shared: &Arc<Shared>, request: Request) -> Result<Response, ApiError> {
    shared.keys.check(request.headers())?;
    let body = shared.read_body(request).await?;
    if shared.draining.load(Ordering::SeqCst) {
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", "the server is shutting down"));
    }
    let place = shared.worker.place().ok_or_else(|| {
        let most = shared.options.max_requests;
        let message = format!("{most} requests are being worked on or wait, which is all this server takes; try again");
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message)
    })?;
    let timeout = shared.options.timeout;
    let deadline = Instant::now() + timeout;
    let prepared = tokio::time::timeout_at(deadline, prepare(shared, body)).await;
    let Prepared { request, stream, reply, share } = prepared.map_err(|_| out_of_time(timeout))??;
    let running = shared
        .worker
        .submit(request, place, share)
        .ok_or_else(|| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "engine_failed", "the engine has stopped"))?;
    let call = Call { running, reply, deadline, timeout };
    if stream { call.streamed().await } else { call.whole().await }
}

/// A request as the engine takes it, and what its response needs.
struct Prepared {
    request: engine::Request,
    stream: bool,
    reply: Reply,
    /// The memory of the body, until the engine has taken over what was made of it.
    share: BodyShare,
}

/// Reads a request and its images.
async fn prepare(shared: &Arc<Shared>, body: RequestBody) -> Result<Prepared, ApiError> {
    let (is_small, server) = (body.is_small(), Arc::clone(shared));
    let (body, share) = body.into_parts();
    let read = move || server.asked(ChatRequest::parse(&body)?);
    // What is read in no time does not wait for the images of others.
    let asked = if is_small { read()? } else { shared.decode(&share, read).await? };
    let Asked { mut resolved, stream, reply } = asked;
    // Nothing is asked of other servers for a request that is refused.
    shared.fetch(&mut resolved.images).await?;
    let request = if resolved.images.is_empty() {
        shared.reader.read_images(resolved)?
    } else {
        let server = Arc::clone(shared);
        shared.decode(&share, move || server.reader.read_images(resolved)).await?
    };
    Ok(Prepared { request, stream, reply, share })
}

fn out_of_time(timeout: Duration) -> ApiError {
    let message = format!("the request took longer than {} s; ask for fewer tokens, tiles or beams", timeout.as_secs());
    ApiError::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message)
}

/// A request as the engine can take it, but for its images.
struct Asked {
    resolved: Resolved,
    stream: bool,
    reply: Reply,
}

impl Shared {
    /// Runs work that takes a core for a while, and much memory, beside the event loop; a few at a time. What it works on keeps
    /// its share of the memory of bodies until it ends, which it does when whoever asked for it has left, too.
    ///
    /// # Errors
    /// What `work` says; 500 when it panics.
    pub(super) async fn decode<T: Send + 'static>(
        &self,
        share: &BodyShare,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let failed = || ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "request_failed", "the request was not read");
        let share = share.clone();
        let permit = Arc::clone(&self.decoding).acquire_owned().await.map_err(|_| failed())?;
        let work = move || {
            let _held = (permit, share);
            work()
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| failed())?
    }

    fn asked(&self, request: ChatRequest) -> Result<Asked, ApiError> {
        let served = &self.options.model;
        let model = request.model.as_ref().unwrap_or(served);
        self.check_model(model).map_err(|error| ApiError { param: Some("model".to_owned()), ..error })?;
        let form = ReplyForm {
            token_ids: request.return_token_ids,
            usage: request.include_usage,
            logprobs: request.logprobs.map(|_| Arc::clone(&self.tokenizer)),
        };
        let reply = Reply::new(served.clone(), form);
        let stream = request.stream;
        Ok(Asked { resolved: self.reader.resolve(request)?, stream, reply })
    }
}

/// A request the engine works on, and what its response needs.
struct Call {
    running: Running,
    reply: Reply,
    deadline: Instant,
    timeout: Duration,
}

impl Call {
    /// The next update; at the deadline an error.
    async fn next(&mut self) -> Result<Update, ApiError> {
        match tokio::time::timeout_at(self.deadline, self.running.next()).await {
            Ok(Some(Update::Failed(error))) => Err((&error).into()),
            Ok(Some(update)) => Ok(update),
            Ok(None) => {
                Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "engine_failed", "the engine has stopped"))
            }
            Err(_) => Err(out_of_time(self.timeout)),
        }
    }

    /// One JSON object, when all is done.
    async fn whole(mut self) -> Result<Response, ApiError> {
        loop {
            if let Update::Finished(completion) = self.next().await? {
                log(&completion);
                return Ok(Json(self.reply.whole(&completion)).into_response());
            }
        }
    }

    /// Server-sent events as the answer becomes settled. They begin when the engine has taken the request on, long before there
    /// is an answer; what is wrong with the request is found before, so that it has its own status.
    async fn streamed(mut self) -> Result<Response, ApiError> {
        self.next().await?;
        let (sender, receiver) = mpsc::channel(CHUNKS);
        tokio::spawn(async move {
            let closed = sender.clone();
            // A client that goes away ends the request at once, not at the next piece.
            tokio::select! {
                () = closed.closed() => tracing::info!("the client went away"),
                () = self.send_all(&sender) => (),
            }
        });
        let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
        Ok(Sse::new(ReceiverStream::new(receiver)).keep_alive(keep_alive).into_response())
    }

    async fn send_all(&mut self, sender: &Sender) {
        let mut update = self.next().await;
        if update.is_ok() {
            let role = json!({"role": "assistant", "content": ""});
            send(sender, &self.reply.chunk(0, &role, None)).await;
        }
        loop {
            match update {
                Ok(Update::Accepted) => (),
                Ok(Update::Text(text, logprobs)) => {
                    send(sender, &self.reply.chunk(0, &json!({"content": text}), Some(&logprobs))).await;
                }
                Ok(Update::Finished(completion)) => {
                    log(&completion);
                    return self.send_end(&completion, sender).await;
                }
                Ok(Update::Failed(error)) => return send(sender, &ApiError::from(&error).body()).await,
                Err(error) => {
                    tracing::info!(status = error.status.as_u16(), "failed: {}", error.message);
                    return send(sender, &error.body()).await;
                }
            }
            update = self.next().await;
        }
    }

    /// What is left when the answers are known. Several answers are not told in pieces: all of them come here.
    async fn send_end(&self, completion: &Completion, sender: &Sender) {
        let several = completion.answers.len() > 1;
        for (index, answer) in completion.answers.iter().enumerate() {
            if several {
                let delta = json!({"role": "assistant", "content": answer.text});
                send(sender, &self.reply.chunk(index, &delta, answer.logprobs.as_deref())).await;
            }
            send(sender, &self.reply.end(index, answer)).await;
        }
        if let Some(usage) = self.reply.usage_chunk(completion) {
            send(sender, &usage).await;
        }
        let _ = sender.send(Ok(Event::default().data("[DONE]"))).await;
    }
}

type Sender = mpsc::Sender<Result<Event, Infallible>>;

/// Sends a chunk; that nobody listens any more is noticed elsewhere.
async fn send(sender: &Sender, chunk: &Value) {
    let _ = sender.send(Ok(Event::default().data(chunk.to_string()))).await;
}

fn log(completion: &Completion) {
    let (usage, timings) = (completion.usage, &completion.timings);
    let cut_short = completion.answers.iter().any(|answer| answer.finish == FinishReason::Cancelled);
    tracing::info!(
        prompt_tokens = usage.prompt_tokens,
        cached_tokens = usage.cached_tokens,
        tiles = usage.tiles,
        completion_tokens = usage.completion_tokens,
        milliseconds = timings.total.as_millis() as u64,
        cut_short,
        "answered"
    );
}
