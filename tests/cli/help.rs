//! Help texts and what clap refuses.

use crate::support::Transcript;

#[test]
fn help_texts() {
    for command in
        ["", "chat", "inspect", "doctor", "verify", "bench", "serve", "engine", "engine build", "engine show"]
    {
        let mut transcript = Transcript::new();
        let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        transcript.run(&arguments);
        let name = if command.is_empty() { "vintern" } else { command };
        transcript.check(&format!("help_{}", name.replace(' ', "_")));
    }
}

#[test]
fn version_and_what_is_no_command() {
    let mut transcript = Transcript::new();
    transcript.run(&["--version"]);
    transcript.run(&[]);
    transcript.run(&["ask"]);
    transcript.run(&["chat", "question"]);
    transcript.run(&["chat", "--modle", "x"]);
    transcript.check("usage");
}

#[test]
fn the_help_names_every_flag_of_the_design() {
    let help = crate::support::stdout_of(crate::support::vintern().args(["chat", "-h"]));
    for flag in [
        "--model",
        "--image",
        "--max-tiles",
        "--no-thumbnail",
        "--template",
        "--system",
        "--num-beams",
        "--repetition-penalty",
        "--length-penalty",
        "--early-stopping",
        "--no-repeat-ngram-size",
        "--max-new-tokens",
        "--min-new-tokens",
        "--temperature",
        "--top-k",
        "--top-p",
        "--min-p",
        "--seed",
        "--stop",
        "--preset",
        "--history",
        "--orientation",
        "--provider",
        "--ort-library",
        "--threads",
        "--json",
    ] {
        assert!(help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}\n")), "{flag}");
    }
}
