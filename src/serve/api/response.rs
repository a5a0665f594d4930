//! What goes back: a completion whole, or in chunks.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::engine::{Answer, Completion};
use crate::generate::{FinishReason, TokenId, TokenLogprob};
use crate::prompt::Tokenizer;

/// What all parts of the response to a request have in common.
#[derive(Clone, Debug)]
pub struct Reply {
    id: String,
    created: u64,
    model: String,
    form: ReplyForm,
}

/// What a response has beside the text.
#[derive(Clone, Debug)]
pub struct ReplyForm {
    /// Each answer's token ids.
    pub token_ids: bool,
    /// The usage at the end of a stream.
    pub usage: bool,
    /// Log-probabilities, with the tokenizer that knows the tokens' texts.
    pub logprobs: Option<Arc<Tokenizer>>,
}

/// What stands for the log-probability of a token that has none of the probability: JSON has no -infinity.
const LOWEST_LOGPROB: f32 = -9999.0;

impl Reply {
    /// To a request of this model.
    pub fn new(model: String, form: ReplyForm) -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { id: format!("chatcmpl-{:032x}", rand::random::<u128>()), created, model, form }
    }

    /// A finished request.
    pub fn whole(&self, completion: &Completion) -> Value {
        let choices: Vec<Value> = completion
            .answers
            .iter()
            .enumerate()
            .map(|(index, answer)| {
                self.choice(
                    json!({
                        "index": index,
                        "message": {"role": "assistant", "content": answer.text, "refusal": null},
                        "logprobs": self.logprobs(answer.logprobs.as_deref()),
                        "finish_reason": finish_reason(answer.finish),
                    }),
                    answer,
                )
            })
            .collect();
        json!({
            "id": self.id, "object": "chat.completion", "created": self.created, "model": self.model,
            "choices": choices, "usage": usage(completion),
        })
    }

    /// A stream's piece of answer `index`, with the log-probabilities that go with its text.
    pub fn chunk(&self, index: usize, delta: &Value, logprobs: Option<&[TokenLogprob]>) -> Value {
        let logprobs = self.logprobs(logprobs);
        let choice = json!({"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": null});
        self.chunk_of(vec![choice], Value::Null)
    }

    /// The end of answer `index` in a stream.
    pub fn end(&self, index: usize, answer: &Answer) -> Value {
        let finish = finish_reason(answer.finish);
        let choice = json!({"index": index, "delta": {}, "logprobs": null, "finish_reason": finish});
        self.chunk_of(vec![self.choice(choice, answer)], Value::Null)
    }

    /// The last piece of a stream, which tells the usage; nothing where it was not asked for.
    pub fn usage_chunk(&self, completion: &Completion) -> Option<Value> {
        self.form.usage.then(|| self.chunk_of(Vec::new(), usage(completion)))
    }

    /// Log-probabilities in the API's form; null where they were not asked for.
    fn logprobs(&self, logprobs: Option<&[TokenLogprob]>) -> Value {
        let (Some(tokenizer), Some(logprobs)) = (&self.form.logprobs, logprobs) else { return Value::Null };
        let content: Vec<Value> = logprobs
            .iter()
            .map(|token| {
                let mut entry = logprob(tokenizer, token.token, token.logprob);
                let top: Vec<Value> = token.top.iter().map(|&(id, value)| logprob(tokenizer, id, value)).collect();
                entry["top_logprobs"] = Value::Array(top);
                entry
            })
            .collect();
        json!({"content": content, "refusal": null})
    }

    fn choice(&self, mut choice: Value, answer: &Answer) -> Value {
        if self.form.token_ids {
            choice["token_ids"] = json!(answer.token_ids);
        }
        choice
    }

    /// Where the usage was asked for, every chunk has it, and all but the last have null.
    fn chunk_of(&self, choices: Vec<Value>, usage: Value) -> Value {
        let mut chunk = json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created, "model": self.model,
            "choices": choices,
        });
        if self.form.usage {
            chunk["usage"] = usage;
        }
        chunk
    }
}

/// A token's text, its bytes and its log-probability. The text of a token that is no whole character has U+FFFD in it.
fn logprob(tokenizer: &Tokenizer, id: TokenId, value: f32) -> Value {
    let bytes = tokenizer.token_bytes(id);
    let text = bytes.map(String::from_utf8_lossy).unwrap_or_default();
    json!({"token": text, "logprob": value.max(LOWEST_LOGPROB), "bytes": bytes})
}

/// Counts; the tokens of all answers, and of the prompt those of images and those that were cached.
fn usage(completion: &Completion) -> Value {
    let usage = completion.usage;
    let answered: usize = completion.answers.iter().map(|answer| answer.token_ids.len()).sum();
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": answered,
        "total_tokens": usage.prompt_tokens + answered,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens, "image_tokens": usage.image_tokens, "image_tiles": usage.tiles,
        },
    })
}

/// `stop` or `length`; what was cut short by a limit of the server ends like one that came to its length.
fn finish_reason(finish: FinishReason) -> &'static str {
    match finish {
        FinishReason::Length | FinishReason::Cancelled => "length",
        _ => "stop",
    }
}
