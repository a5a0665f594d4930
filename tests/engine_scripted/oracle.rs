//! What a request's answers must be: the search alone, driven on the language model without engine, cache or company.

use std::sync::LazyLock;

use ndarray::Array2;
use vintern::engine::Request;
use vintern::generate::{Advance, GeneratedSequence, GenerationSettings, Search, StopRule, TokenId, start};
use vintern::prompt::{Conversation, Template, Tokenizer, encode_prompt, expand_images, insert_image_mark, render};

use crate::harness::{SYSTEM_MESSAGE, Setup, tokenizer};
use crate::network::image_embeddings;

pub static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(tokenizer);

/// Stops where the text holds a stop string, by the definition.
struct Holds(Vec<String>);

impl StopRule for Holds {
    fn stops(&self, tokens: &[TokenId]) -> bool {
        let text = TOKENIZER.decode(tokens, true);
        self.0.iter().any(|stop| text.contains(stop))
    }
}

/// What the decoder is to see of a request's prompt: token ids and image embeddings.
pub fn prompt(request: &Request) -> Vec<u32> {
    let conversation = Conversation {
        template: request.template.unwrap_or(Template::Hermes2),
        system_message: request.system_message.clone().unwrap_or_else(|| SYSTEM_MESSAGE.to_owned()),
        history: request.history.clone(),
    };
    let question = insert_image_mark(&request.question, !request.images.is_empty(), request.history.is_some());
    let embeddings: Vec<Vec<u32>> = request.images.iter().map(image_embeddings).collect();
    let counts: Vec<usize> = embeddings.iter().map(Vec::len).collect();
    let expanded = expand_images(&render(&conversation, &question), &counts).unwrap();
    let encoded = encode_prompt(&TOKENIZER, &expanded.text, counts.iter().sum()).unwrap();
    let mut row = encoded.ids;
    for (span, embeddings) in encoded.image_spans.into_iter().zip(embeddings) {
        row[span].copy_from_slice(&embeddings);
    }
    row
}

/// The answers to a request.
pub fn answers(setup: &Setup, request: &Request) -> Vec<GeneratedSequence> {
    course(setup, request).pop().unwrap()
}

/// The answers to a request as they stand after no step, after one, and so on to the end.
pub fn course(setup: &Setup, request: &Request) -> Vec<Vec<GeneratedSequence>> {
    steps(setup, request).into_iter().map(|(answers, _)| answers).collect()
}

/// How many beams or samples run after each step.
pub fn widths(setup: &Setup, request: &Request) -> Vec<usize> {
    steps(setup, request).into_iter().map(|(_, rows)| rows).collect()
}

fn steps(setup: &Setup, request: &Request) -> Vec<(Vec<GeneratedSequence>, usize)> {
    let prompt = prompt(request);
    let room = setup.max_length - prompt.len();
    let max_new_tokens = request.settings.max_new_tokens.min(room);
    let settings = GenerationSettings { max_new_tokens, ..request.settings.clone() };
    let stop = request.stop.clone();
    let stop = (!stop.is_empty()).then(|| Box::new(Holds(stop)) as Box<dyn StopRule>);
    let mut search: Box<dyn Search> = start(&settings, setup.eos, stop).unwrap();
    let mut rows: Vec<Vec<TokenId>> = vec![Vec::new()];
    let mut steps = vec![(search.results(), 1)];
    loop {
        let logits: Vec<f32> = rows.iter().flat_map(|answer| (setup.model)(&prompt, answer)).collect();
        let logits = Array2::from_shape_vec((rows.len(), setup.vocab), logits).unwrap();
        let advance = search.advance(logits.view()).unwrap();
        let width = if let Advance::Continue(next) = &advance { next.len() } else { 0 };
        steps.push((search.results(), width));
        match advance {
            Advance::Finished => return steps,
            Advance::Continue(next) => {
                rows = next.iter().map(|row| [&rows[row.parent][..], &[row.token]].concat()).collect();
            }
        }
    }
}
