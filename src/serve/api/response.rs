//! What goes back: a completion whole, or in chunks.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::engine::{Answer, Completion};
use crate::generate::FinishReason;

/// What all parts of the response to a request have in common.
#[derive(Clone, Debug)]
pub struct Reply {
    id: String,
    created: u64,
    model: String,
    /// Whether each answer comes with its token ids.
    with_ids: bool,
    /// Whether a stream ends with the usage.
    with_usage: bool,
}

impl Reply {
    /// To a request of this model.
    pub fn new(model: String, with_ids: bool, with_usage: bool) -> Self {
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { id: format!("chatcmpl-{:032x}", rand::random::<u128>()), created, model, with_ids, with_usage }
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
                        "logprobs": null,
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

    /// A stream's piece of answer `index`.
    pub fn chunk(&self, index: usize, delta: &Value) -> Value {
        let choice = json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": null});
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
        self.with_usage.then(|| self.chunk_of(Vec::new(), usage(completion)))
    }

    fn choice(&self, mut choice: Value, answer: &Answer) -> Value {
        if self.with_ids {
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
        if self.with_usage {
            chunk["usage"] = usage;
        }
        chunk
    }
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
