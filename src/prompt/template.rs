//! The conversation templates of the Qwen-family `InternVL` checkpoints.
//!
//! All three have one form: `<|im_start|>role\nmessage` and a separator for each message, and the
//! bare header of the assistant at the end. They differ in the separator and in the default
//! system message.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::PromptError;

/// The text of the token that ends a message, and of the only end-of-sequence token.
pub const END_OF_TURN: &str = "<|im_end|>";

const SYSTEM: &str = "<|im_start|>system\n";
const USER: &str = "<|im_start|>user\n";
const ASSISTANT: &str = "<|im_start|>assistant\n";

/// A conversation template, by its name in `InternVL`'s `conversation.py`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Template {
    /// `Hermes-2`: no newline after `<|im_end|>`.
    Hermes2,
    /// `internlm2-chat`: the same text as `Hermes-2`.
    InternLm2Chat,
    /// `internvl2_5`: a newline after each `<|im_end|>`.
    InternVl25,
}

impl Template {
    /// Every template, in the order of the reference.
    pub const ALL: [Self; 3] = [Self::Hermes2, Self::InternLm2Chat, Self::InternVl25];

    /// The name used in `config.json` and in the manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hermes2 => "Hermes-2",
            Self::InternLm2Chat => "internlm2-chat",
            Self::InternVl25 => "internvl2_5",
        }
    }

    /// The system message of the template in the `InternVL` repository. A checkpoint may bring
    /// its own.
    pub const fn default_system_message(self) -> &'static str {
        match self {
            Self::Hermes2 | Self::InternLm2Chat => {
                "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, \
                 是一个有用无害的人工智能助手。"
            }
            Self::InternVl25 => {
                "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位\
                 联合开发的多模态大语言模型。"
            }
        }
    }

    /// What follows each message that is not empty.
    pub const fn separator(self) -> &'static str {
        match self {
            Self::Hermes2 | Self::InternLm2Chat => END_OF_TURN,
            Self::InternVl25 => "<|im_end|>\n",
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Template {
    type Err = PromptError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|template| template.name() == name).ok_or_else(|| PromptError::UnknownTemplate {
            name: name.to_owned(),
            known: Self::ALL.map(Self::name).join(", "),
        })
    }
}

impl TryFrom<String> for Template {
    type Error = PromptError;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse()
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.name().to_owned()
    }
}

/// An earlier question and its answer; in JSON the array `[question, answer]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(Option<String>, Option<String>)", into = "(String, Option<String>)")]
pub struct Turn {
    /// What the user wrote. Empty is the same as absent (`null`).
    pub question: String,
    /// What the assistant answered. An empty answer is the same as none.
    pub answer: Option<String>,
}

impl From<(Option<String>, Option<String>)> for Turn {
    fn from((question, answer): (Option<String>, Option<String>)) -> Self {
        Self { question: question.unwrap_or_default(), answer }
    }
}

impl From<Turn> for (String, Option<String>) {
    fn from(turn: Turn) -> Self {
        (turn.question, turn.answer)
    }
}

/// All of a prompt but the new question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// How the messages are laid out.
    pub template: Template,
    /// The system message; empty still prints the system header.
    pub system_message: String,
    /// Earlier turns, oldest first. `None` and an empty list render alike, but only with `None`
    /// does the reference add the `<image>` mark by itself: see
    /// [`insert_image_mark`](super::insert_image_mark).
    pub history: Option<Vec<Turn>>,
}

impl Conversation {
    /// A conversation with the template's own system message and no history.
    pub fn new(template: Template) -> Self {
        Self { template, system_message: template.default_system_message().to_owned(), history: None }
    }
}

/// The prompt text, `<image>` marks still in it.
///
/// The system message is always followed by the separator. A question or answer that is empty
/// gives its header alone, without the separator, as in the reference. No token is put before
/// the first header.
pub fn render(conversation: &Conversation, question: &str) -> String {
    let separator = conversation.template.separator();
    let mut prompt = String::from(SYSTEM);
    prompt.push_str(&conversation.system_message);
    prompt.push_str(separator);
    let mut message = |header: &str, text: &str| {
        prompt.push_str(header);
        if !text.is_empty() {
            prompt.push_str(text);
            prompt.push_str(separator);
        }
    };
    for turn in conversation.history.iter().flatten() {
        message(USER, &turn.question);
        message(ASSISTANT, turn.answer.as_deref().unwrap_or_default());
    }
    message(USER, question);
    message(ASSISTANT, "");
    prompt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_unknown_names_are_told_the_known_ones() {
        for template in Template::ALL {
            assert_eq!(template.to_string().parse::<Template>().unwrap(), template);
            let json = serde_json::to_string(&template).unwrap();
            assert_eq!(json, format!("{:?}", template.name()));
            assert_eq!(serde_json::from_str::<Template>(&json).unwrap(), template);
        }
        let message = "phi3-chat".parse::<Template>().unwrap_err().to_string();
        assert_eq!(
            message,
            "unknown chat template \"phi3-chat\"; the known templates are \
             Hermes-2, internlm2-chat, internvl2_5"
        );
        assert!("hermes-2".parse::<Template>().is_err());
        assert!(serde_json::from_str::<Template>("\"phi3-chat\"").is_err());
    }

    #[test]
    fn empty_messages_print_their_header_without_separator() {
        let conversation = Conversation {
            template: Template::InternVl25,
            system_message: String::new(),
            history: serde_json::from_str(r#"[[null, "a"], ["q", null], ["", ""]]"#).unwrap(),
        };
        assert_eq!(
            render(&conversation, ""),
            "<|im_start|>system\n<|im_end|>\n\
             <|im_start|>user\n<|im_start|>assistant\na<|im_end|>\n\
             <|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n\
             <|im_start|>user\n<|im_start|>assistant\n\
             <|im_start|>user\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn turns_are_pairs_in_json() {
        let turns: Vec<Turn> = serde_json::from_str(r#"[["q", "a"], ["q2", null]]"#).unwrap();
        assert_eq!(turns[0], Turn { question: "q".into(), answer: Some("a".into()) });
        assert_eq!(serde_json::to_string(&turns).unwrap(), r#"[["q","a"],["q2",null]]"#);
        assert!(serde_json::from_str::<Turn>(r#"["q"]"#).is_err());
        assert!(serde_json::from_str::<Turn>(r#"["q", "a", "b"]"#).is_err());
    }
}
